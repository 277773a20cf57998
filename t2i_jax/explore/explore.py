"""What a trained run has learnt, drawn: one condition moves, everything else stays.

    t2i_jax --workdir=runs/quick --mode=explore --what=text_interpolation --text="a red circle" --text="a blue circle"
    t2i_jax --workdir=runs/quick --mode=explore --what=style --text="a red circle" --image=FILE
    t2i_jax --workdir=runs/attribute2image --mode=explore --what=attributes --image=FILE --attributes="red, circle"

| what | draws |
|---|---|
| text_interpolation | from one sentence to another, the noise kept; --text in pairs |
| z_interpolation | from one noise to another, the sentence kept; of any system that draws from sentences, or from noise alone |
| swap_word | two sentences that differ by a word or a few, from the same noise; --text in pairs |
| attention | the words that the pixels of each map looked at most, as heat over the picture; of stage `damsm` where words look in real pictures |
| style | each sentence in the style of each picture: the noise that the style encoder reads off it |
| attributes | pictures whose attributes are exchanged one after the other, the latents kept |
| layers | the foreground of each picture before the background of each |
| reconstruction | pictures beside what the stage makes of them, its latents found by optimisation |
| completion | as that with the right half covered |

Sentences and pictures are those of the held-out split where the user gives none. Each writes <workdir>/explore/<what>.png and its numbers,
<what>.json; the interpolations a film, too, <what>.gif. In Python the functions of the first four names take a `Sampler` and return the pictures:

    explore.text_interpolation(Sampler.load('runs/quick'), ['a red circle', 'a blue circle'], num=4)      # uint8 4 9 s s 3
"""

import difflib
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from t2i_jax.data import canvas, feed, plan
from t2i_jax.data.text import tokenize
from t2i_jax.draw import sheets
from t2i_jax.draw.outputs import DRAWN
from t2i_jax.explore import attention as explore_attention
from t2i_jax.explore import attributes as explore_attributes
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.sample import Sampler
from t2i_jax.scenes import explored

STEPS, FINER = 9, 3  # pictures of a row; frames of the film for each of them
DRAWS = 1000  # of noise, from which the style encoder's correlations are estimated
ACROSS = 12  # pictures that stand in one row of a sheet
READ = 20_000  # captions among which pairs are sought that differ by one word


# ---------------------------------------------------------------------------------------------------------------- in Python
def text_interpolation(sampler, ends, num=8, steps=STEPS, seed=0):
    """From one sentence to another -> num steps s s 3, uint8; each row has its own noise. On the straight line between the sentences' vectors, as GAN-INT
    trains on it; its middle is shorter than they are.

    ends: two sentences, or a batch of two rows, as Sampler.encode takes them. Raises DataError.
    """
    weights = np.linspace(0, 1, steps, dtype=np.float32)
    path = jax.tree.map(
        lambda x: np.stack([(1 - w) * x[0] + w * x[1] for w in weights]), two_of(sampler, ends)
    )
    noise = taken(noise_of(sampler, num, seed), np.repeat(np.arange(num), steps))
    return sampler.sample(
        {'encoded': taken(path, np.tile(np.arange(steps), num))}, noise, (num, steps)
    )['image']


def z_interpolation(sampler, sentences=None, num=1, steps=STEPS, seed=0):
    """From one noise to another, `num` times for each sentence -> n * num, steps, s s 3, uint8. Along great circles, so that all points are
    as long as the noise of training is (on straight lines the middle is shorter).

    sentences: as Sampler.encode takes them, None for a system that draws from noise alone. Raises DataError.
    """
    others = sorted(set(sampler.draws_from) - {'sentence'})
    if others or (sentences is None) == sampler.reads_text:
        reads = ' and '.join(others) or (
            'sentences: give some' if sampler.reads_text else 'noise alone: leave the sentences out'
        )
        raise DataError(f'{type(sampler.module).__name__} draws from {reads}.')
    encoded = {} if sentences is None else {'encoded': sampler.encode(sentences)}
    rows = num * max([1, *(len(x) for x in jax.tree.leaves(encoded))])
    ends = noise_of(sampler, 2 * rows, seed)
    noise = {
        name: between(z[::2], z[1::2], np.linspace(0, 1, steps)).reshape(rows * steps, *z.shape[1:])
        for name, z in ends.items()
    }
    return sampler.sample(
        taken(encoded, np.arange(rows * steps) // (num * steps)), noise, (rows, steps)
    )['image']


def swap_word(sampler, pair, num=8, seed=0):
    """Two sentences that differ by a word or a few, from the same noise -> 2 num s s 3, uint8. Raises DataError for two without a common word."""
    encoded = two_of(sampler, pair)
    if not isinstance(pair, dict):
        exchanged(*pair)
    noise = taken(noise_of(sampler, num, seed), np.tile(np.arange(num), 2))
    return sampler.sample(
        {'encoded': taken(encoded, np.repeat(np.arange(2), num))}, noise, (2, num)
    )['image']


def style(sampler, sentences, images, seed=0):
    """Each sentence in the style of each picture -> n k s s 3, uint8; what is random besides z is the same in all.

    sampler: `Sampler.load(workdir, stage='style')`. sentences: n, as Sampler.encode takes them. images: k s s 3 in [-1, 1]. Raises DataError.
    """
    if 'style' not in sampler.module.explores:
        raise DataError(
            f"Stage {sampler.name} is no style encoder: load it by Sampler.load(workdir, stage='style')."
        )
    side = sampler.meta.size
    if np.shape(images)[1:] != (side, side, 3):
        raise DataError(f'Style pictures are k {side} {side} 3, not {np.shape(images)}.')
    encoded, k = sampler.encode(sentences), len(images)
    n = len(jax.tree.leaves(encoded)[0])
    noise = taken(noise_of(sampler, 1, seed), np.zeros(n * k, int))
    batch = {
        'encoded': taken(encoded, np.repeat(np.arange(n), k)),
        'image': np.tile(np.asarray(images, np.float32), (n, 1, 1, 1)),
    }
    return sampler.sample(batch, noise, (n, k), 'transfer')['image']


def style_correlation(sampler, sentences, num=DRAWS, seed=0):
    """Of each dimension of z, the correlation with what the style encoder reads off the picture that is drawn from it -> nz, float64.
    sentences: as Sampler.encode takes them; they take turns."""
    encoded, noise = sampler.encode(sentences), noise_of(sampler, num, seed)
    batch = {'encoded': taken(encoded, np.arange(num) % len(jax.tree.leaves(encoded)[0]))}
    found, z = (
        x - x.mean(0) for x in (sampler.sample(batch, noise, (num,), 'recover')['z'], noise['z'])
    )
    return (found * z).mean(0, dtype=np.float64) / np.maximum(found.std(0) * z.std(0), 1e-12)


def two_of(sampler, asked):
    """Two sentences, encoded. Raises DataError where there are more or fewer."""
    encoded = sampler.encode(asked)
    if any(len(x) != 2 for x in jax.tree.leaves(encoded)):
        raise DataError(f'Give two sentences, not {len(jax.tree.leaves(encoded)[0])}.')
    return encoded


def noise_of(sampler, n, seed):
    return jax.tree.map(np.asarray, sampler.module.noise(jax.random.key(seed), n))


def taken(tree, rows):
    return jax.tree.map(lambda x: np.asarray(x)[rows], tree)


def between(a, b, weights):
    """Rows of noise, n ... -> n k ...: points of the great circles from a to b; lengths change evenly."""
    flat_a, flat_b = (x.reshape(len(x), 1, -1).astype(np.float64) for x in (a, b))
    long_a, long_b = (np.linalg.norm(x, axis=-1, keepdims=True) for x in (flat_a, flat_b))
    angle = np.arccos(
        np.clip(
            (flat_a * flat_b).sum(-1, keepdims=True) / np.maximum(long_a * long_b, 1e-12),
            -1 + 1e-7,
            1 - 1e-7,
        )
    )
    w = np.asarray(weights)[:, None]
    unit = (
        np.sin((1 - w) * angle) * flat_a / np.maximum(long_a, 1e-12)
        + np.sin(w * angle) * flat_b / np.maximum(long_b, 1e-12)
    ) / np.sin(angle)
    return (
        (unit * ((1 - w) * long_a + w * long_b))
        .astype(a.dtype)
        .reshape(len(a), len(weights), *a.shape[1:])
    )


def exchanged(first, second):
    """(the words of the first sentence that are exchanged, those of the second). Raises DataError where the two share no word, or all in one order."""
    a, b = tokenize(first), tokenize(second)
    if not set(a) & set(b):
        raise DataError(
            f'{first!r} and {second!r} have no word in common. swap_word exchanges a word and keeps the others: give such a pair.'
        )
    if a == b:
        raise DataError(
            f'{first!r} and {second!r} have the same words: give sentences that differ by one.'
        )
    blocks = [
        block
        for block in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
        if block[0] != 'equal'
    ]
    return [word for _, i, j, *_ in blocks for word in a[i:j]], [
        word for *_, i, j in blocks for word in b[i:j]
    ]


# ------------------------------------------------------------------------------------------------------ from the command line
class Ask(NamedTuple):
    """What the user asks for; see `explore`."""

    run: Any
    num: int = 8
    seed: int = 0
    texts: Any = ()
    images: Any = ()
    attributes: Any = ()
    stage: Any = None


def held_out(ask, sampler, count, needs=()):
    """`count` records of the held-out split, spread over it, with one caption each."""
    own = [n for n in sampler.module.needs if not n.startswith('wrong_') and n != 'image']
    needs = tuple(dict.fromkeys([*needs, *own]))
    split = sampler.stage.split(sampler.stage.data['validation_split'], needs, 'none')
    usable = plan.drawable_records(split, needs)
    if not len(usable):
        raise DataError(
            f'No record of split {split.split} has a caption with a word that the run knows: give sentences, --text="...".'
        )
    rows = usable[np.linspace(0, len(usable) - 1, count).astype(np.int64)]
    caption = plan.drawable_captions(split, needs)[rows].argmax(1)
    return feed.Rows(split, rows, np.repeat(caption[:, None], sampler.meta.captions, 1))


def sentences_of(ask, sampler, count):
    """(what is asked, as Sampler.encode takes it, its texts): the user's sentences, or captions of the held-out split."""
    if ask.texts:
        return {'encoded': sampler.encode(ask.texts)}, list(ask.texts)
    asked = held_out(ask, sampler, count)
    return {'encoded': sampler.encode(asked.batch(0, count))}, [
        text or f'record {row}' for row, text in zip(asked.rows, asked.texts)
    ]


def reading(ask, what):
    """The sampler of a system that draws from sentences, of which the user gave an even number."""
    if len(ask.texts) % 2:
        raise DataError(
            f'--what={what} takes sentences in pairs, --text="..." --text="...": there are {len(ask.texts)}.'
        )
    sampler = Sampler(ask.run.last(DRAWN, ask.stage))
    if not sampler.reads_text:
        raise DataError(
            f'--what={what} needs a system that draws from sentences; {type(sampler.module).__name__} does not.'
        )
    return sampler


def drawn_texts(ask):
    sampler = reading(ask, 'text_interpolation')
    asked, texts = sentences_of(ask, sampler, 2 * ask.num)
    each = ask.num if ask.texts else 1
    fine = np.concatenate(
        [
            text_interpolation(
                sampler,
                taken(asked, slice(i, i + 2)),
                each,
                FINER * (STEPS - 1) + 1,
                ask.seed + (0 if ask.texts else i),
            )
            for i in range(0, len(texts), 2)
        ]
    )
    labels = [
        f'from “{texts[i]}” to “{texts[i + 1]}”' if j == 0 else ''
        for i in range(0, len(texts), 2)
        for j in range(each)
    ]
    return sampler, film(sampler, fine, labels)


def drawn_noise(ask):
    sampler = Sampler(ask.run.last(DRAWN, ask.stage))
    asked, texts = (
        sentences_of(ask, sampler, ask.num) if sampler.reads_text or ask.texts else (None, [''])
    )
    each = ask.num if ask.texts or asked is None else 1
    fine = z_interpolation(sampler, asked, each, FINER * (STEPS - 1) + 1, ask.seed)
    return sampler, film(
        sampler, fine, [text if j == 0 else '' for text in texts for j in range(each)]
    )


def film(sampler, fine, labels):
    """What is drawn of interpolations in many steps: every third of them on the sheet, all in the film."""
    pictures = fine[:, ::FINER]
    step = (
        np.abs(np.diff(pictures.astype(np.float32), axis=1)).mean((2, 3, 4)) / 255
    )  # rows, steps - 1
    ends = np.abs(pictures[:, -1].astype(np.float32) - pictures[:, 0]).mean((1, 2, 3)) / 255
    numbers = {
        'pixel_change': step.mean(0).tolist(),
        'pixel_change_mean': float(step.mean()),
        'pixel_change_ends': float(ends.mean()),
        'largest_step_of_a_row_to_its_mean': float(
            np.median(step.max(1) / np.maximum(step.mean(1), 1e-9))
        ),
        **explored.read(sampler.meta.scenes, pictures),
    }
    return dict(pictures=pictures, labels=labels, numbers=numbers, frames=fine[:16].swapaxes(0, 1))


def drawn_swaps(ask):
    sampler = reading(ask, 'swap_word')
    if ask.texts:
        texts, asked = list(ask.texts), None
    else:
        asked = held_out(ask, sampler, 1)
        rows, texts = alike(asked.split.texts, max(1, ask.num // 2))
        asked = (
            feed.Rows(asked.split, *(np.array(x) for x in zip(*rows)))
            if 'embedding' in sampler.module.needs
            else None
        )
    changed = [exchanged(*texts[i : i + 2]) for i in range(0, len(texts), 2)]
    given = {'encoded': sampler.encode(asked.batch(0, len(texts)) if asked else texts)}
    pictures = np.concatenate(
        [
            swap_word(sampler, taken(given, slice(i, i + 2)), ask.num, ask.seed)
            for i in range(0, len(texts), 2)
        ]
    )
    paired = pictures.reshape(-1, 2, *pictures.shape[1:]).astype(np.float32)  # pairs 2 num s s 3
    numbers = {
        'words': [[' '.join(old), ' '.join(new)] for old, new in changed],
        'pixel_change': (np.abs(paired[:, 1] - paired[:, 0]).mean((1, 2, 3, 4)) / 255).tolist(),
        'pixel_change_of_other_noise': float(np.abs(np.roll(paired, 1, 2) - paired).mean() / 255)
        if ask.num > 1
        else None,
        **explored.read(sampler.meta.scenes, pictures.swapaxes(0, 1)),
    }
    return sampler, dict(pictures=pictures, labels=texts, numbers=numbers)


def alike(texts, count):
    """`count` pairs of captions that differ by one word -> ([(record, [caption]) of each], their texts). Raises DataError where there is none."""
    seen, words_used, rows, found = {}, set(), [], []
    captions = (
        (record, number, text)
        for record, several in enumerate(texts)
        for number, text in enumerate(several)
    )
    for _, (record, number, text) in zip(range(READ), captions):
        words = tuple(tokenize(text))
        for place, word in enumerate(words):
            first = seen.setdefault(
                (*words[:place], None, *words[place + 1 :]), (record, number, text, word)
            )
            pair = tuple(sorted((first[3], word)))
            if first[3] != word and pair not in words_used and len(words) > 1:
                words_used.add(pair)
                rows += [(first[0], [first[1]]), (record, [number])]
                found += [first[2], text]
                if len(found) == 2 * count:
                    return rows, found
    if not found:
        raise DataError(
            'No two held-out captions differ by one word: give a pair, --text="..." --text="...".'
        )
    return rows, found


def drawn_attention(ask):
    sampler = Sampler(ask.run.last(DRAWN, ask.stage))
    return sampler, explore_attention.explored(ask, sampler, held_out)


def drawn_styles(ask):
    run = ask.run
    if 'style' not in run.classes:
        raise RunError(
            f'--what=style needs a style encoder, which {run.config.system} does not have.'
        )
    if 'style' not in run.names:
        raise RunError(
            '--what=style needs a style encoder, the stage `style`, which this run left out: train it with '
            f't2i_jax --workdir={run.workdir} --config.stages.style.steps=4000'
        )
    if max(len(ask.images), ask.num) > ACROSS:
        raise RunError(f'--what=style shows {ACROSS} pictures at most.')
    sampler = Sampler(run['style'])
    if ask.images:
        images = np.stack([canvas.read_picture(path, sampler.meta.size) for path in ask.images])
    else:
        images = np.asarray(held_out(ask, sampler, ask.num, ('image',)).batch(0, ask.num)['image'])
    asked, texts = sentences_of(ask, sampler, ask.num)
    pictures, real = (
        style(sampler, asked, images, ask.seed),
        np.round((images + 1) * 127.5).astype(np.uint8),
    )
    correlation = style_correlation(
        sampler,
        asked
        if ask.texts
        else {'encoded': sampler.encode(held_out(ask, sampler, DRAWS).batch(0, DRAWS))},
        seed=ask.seed + 1,
    )
    numbers = {
        'correlation_mean': float(correlation.mean()),
        'correlation_least': float(correlation.min()),
        'draws': DRAWS,
        'correlation': correlation.round(4).tolist(),
        **explored.places(sampler.meta.scenes, real, pictures),
    }
    return sampler, dict(
        pictures=np.concatenate([real[None], pictures]),
        labels=['in the style of', *texts],
        numbers=numbers,
    )


# --------------------------------------------------------------------------------------------------------------------- entry
# what -> (a function: Ask -> (sampler, what is drawn), the options that it reads)
WHAT = {
    'text_interpolation': (drawn_texts, ('texts', 'stage')),
    'z_interpolation': (drawn_noise, ('texts', 'stage')),
    'swap_word': (drawn_swaps, ('texts', 'stage')),
    'attention': (drawn_attention, ('texts', 'stage')),
    'style': (drawn_styles, ('texts', 'images')),
    **{
        name: (function, ('images', 'attributes'))
        for name, function in explore_attributes.WHAT.items()
    },
}
FLAGS = {
    'texts': 'text',
    'images': 'image',
}  # where the option is called otherwise on the command line


def explore(run, what, num=8, seed=0, texts=(), images=(), attributes=(), stage=None, out=None):
    """Draws `what` and writes <out>/<what>.png and .json (interpolations .gif, too) -> the numbers.

    num: held-out sentences or pictures, samples of the user's own sentences. texts: sentences; images: files of pictures; where there are none, those
    of the held-out split. attributes: what is known of a picture's, as conditions.read_attributes takes it; where that is not all, they are
    inferred along with the latents. stage: another than the last one that draws. Raises RunError, DataError.
    """
    if what not in WHAT:
        raise RunError(
            (f'There is no {what!r} to explore. ' if what else 'Say what to explore. ')
            + f'--what is one of: {", ".join(WHAT)}.'
        )
    if num < 1:
        raise RunError(f'num={num}: ask for at least one picture.')
    function, options = WHAT[what]
    for name, value in dict(texts=texts, images=images, attributes=attributes, stage=stage).items():
        if value and name not in options:
            raise RunError(f'--what={what} does not read --{FLAGS.get(name, name)}. Leave it out.')
    sampler, found = function(Ask(run, num, seed, texts, images, attributes, stage))
    folder = pathlib.Path(out or run.workdir / 'explore')
    sheets.sheet(
        found['pictures'],
        found['labels'],
        folder / f'{what}.png',
        real=found.get('real'),
        title=f'{what}: {sampler.name}, step {sampler.step:,}',
    )
    if 'frames' in found:
        sheets.save_gif(folder / f'{what}.gif', found['frames'])
    numbers = {
        'what': what,
        'step': sampler.step,
        'rows': len(found['labels']),
        'seed': seed,
        **found['numbers'],
    }
    (folder / f'{what}.json').write_text(json.dumps(numbers, indent=1) + '\n')
    print(
        f'{folder / what}.png'
        + (f', {what}.gif' if 'frames' in found else '')
        + (f'; {json.dumps(found["numbers"])}' if found['numbers'] else '')
    )
    return numbers
