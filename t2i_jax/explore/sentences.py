"""Explorations of stages that draw from sentences: interpolations, exchanged words.

    sampler = Sampler.load('runs/quick')
    text_interpolation(sampler, ['a red circle', 'a blue circle'], num=4)      # uint8 4 9 s s 3

Each exploration is a function of a Sampler, and a function of a Request that makes its sheet.
"""

import difflib

import jax
import numpy as np

from t2i_jax.data.feed import Rows
from t2i_jax.data.text import tokenize
from t2i_jax.explore.request import Found, Sentences, held_out, sentences_of, take
from t2i_jax.runtime.errors import DataError, short
from t2i_jax.sample import Sampler
from t2i_jax.scenes import explored

# pictures of a row; frames of the film for each of them
STEPS, FINER = 9, 3
# rows of a film
FILMED = 16
# captions among which pairs are sought that differ by one word
READ = 20_000


# ---------------------------------------------------------------------------------- interpolations
def text_interpolation(
    sampler: Sampler, ends: Sentences, num: int = 8, steps: int = STEPS, seed: int = 0
) -> np.ndarray:
    """Draw from one sentence to another -> uint8 (num, steps, s, s, 3).

    Each row has its own noise. The path is the straight line between the sentences' vectors, as
    GAN-INT trains on it; its middle is shorter than they are.

    ends: two sentences, or a batch of two rows, as Sampler.encode takes them.

    Raises DataError.
    """
    weights = np.linspace(0, 1, steps, dtype=np.float32)
    path = jax.tree.map(
        lambda x: np.stack([(1 - w) * x[0] + w * x[1] for w in weights]), two_of(sampler, ends)
    )
    noise = take(sampler.noise(num, seed), np.repeat(np.arange(num), steps))
    batch = {'encoded': take(path, np.tile(np.arange(steps), num))}
    return sampler.sample(batch, noise, (num, steps))['image']


def z_interpolation(
    sampler: Sampler,
    sentences: Sentences | None = None,
    num: int = 1,
    steps: int = STEPS,
    seed: int = 0,
    to: int | None = None,
) -> np.ndarray:
    """Draw from one noise to another, `num` times for each sentence.

    The path is a great circle, so that all points are as long as the noise of training is (on
    straight lines the middle is shorter).

    sentences: n, as Sampler.encode takes them; None for a system that draws from noise alone.
    to: a seed: the j-th path of each sentence goes from the noise of `seed` with which its j-th
      sample is drawn to that of `to`. None: both ends come from `seed`.

    Returns uint8 (n * num, steps, s, s, 3). Raises DataError.
    """
    others = sorted(set(sampler.draws_from) - {'sentence'})
    if others or (sentences is None) == sampler.reads_text:
        alone = 'noise alone: leave the sentences out'
        reads = 'sentences: give some' if sampler.reads_text else alone
        system = type(sampler.module).__name__
        raise DataError(f'{system} draws from {" and ".join(others) or reads}.')
    encoded = {} if sentences is None else {'encoded': sampler.encode(sentences)}
    rows = num * max([1, *(len(x) for x in jax.tree.leaves(encoded))])
    weights = np.linspace(0, 1, steps)
    if to is None:
        ends = sampler.noise(2 * rows, seed)
        first, last = take(ends, slice(0, None, 2)), take(ends, slice(1, None, 2))
    else:
        first, last = (sampler.noise(num, one, rows // num) for one in (seed, to))
    noise = {
        name: between(z, last[name], weights).reshape(rows * steps, *z.shape[1:])
        for name, z in first.items()
    }
    batch = take(encoded, np.arange(rows * steps) // (num * steps))
    return sampler.sample(batch, noise, (rows, steps))['image']


def two_of(sampler, sentences):
    """Encode two sentences. Raises DataError where there are more or fewer."""
    encoded = sampler.encode(sentences)
    if any(len(x) != 2 for x in jax.tree.leaves(encoded)):
        raise DataError(f'Give two sentences, not {len(jax.tree.leaves(encoded)[0])}.')
    return encoded


def between(a, b, weights):
    """Return points of the great circles from a to b, (n, ...) -> (n, k, ...).

    Lengths change evenly. weights: (k,), 0 at a, 1 at b.
    """
    flat_a, flat_b = (x.reshape(len(x), 1, -1).astype(np.float64) for x in (a, b))
    long_a, long_b = (np.linalg.norm(x, axis=-1, keepdims=True) for x in (flat_a, flat_b))
    cosine = (flat_a * flat_b).sum(-1, keepdims=True) / np.maximum(long_a * long_b, 1e-12)
    angle = np.arccos(np.clip(cosine, -1 + 1e-7, 1 - 1e-7))
    w = np.asarray(weights)[:, None]
    part_a = np.sin((1 - w) * angle) * flat_a / np.maximum(long_a, 1e-12)
    part_b = np.sin(w * angle) * flat_b / np.maximum(long_b, 1e-12)
    points = (part_a + part_b) / np.sin(angle) * ((1 - w) * long_a + w * long_b)
    return points.astype(a.dtype).reshape(len(a), len(weights), *a.shape[1:])


def text_interpolation_sheet(request) -> Found:
    """Draw between the given sentences of each pair, or between held-out captions."""
    require_pairs(request)
    batch, texts = sentences_of(request, 2 * request.num)
    samples = request.num if request.texts else 1
    fine, labels = [], []
    for i in range(0, len(texts), 2):
        # held-out pairs have one row each, and each its own noise
        seed = request.seed + (0 if request.texts else i)
        pair = take(batch, slice(i, i + 2))
        steps = FINER * (STEPS - 1) + 1
        fine.append(text_interpolation(request.sampler, pair, samples, steps, seed))
        labels += [f'from “{texts[i]}” to “{texts[i + 1]}”'] + [''] * (samples - 1)
    return film(request.sampler, np.concatenate(fine), labels)


def z_interpolation_sheet(request) -> Found:
    """Draw between two noises for each sentence, given or held-out, or for none."""
    batch, texts = None, ['']
    if request.sampler.reads_text or request.texts:
        batch, texts = sentences_of(request, request.num)
    samples = request.num if request.texts or batch is None else 1
    steps = FINER * (STEPS - 1) + 1
    fine = z_interpolation(request.sampler, batch, samples, steps, request.seed)
    labels = [text if j == 0 else '' for text in texts for j in range(samples)]
    return film(request.sampler, fine, labels)


def film(sampler, fine, labels) -> Found:
    """Put some steps of interpolations, n t s s 3, into a sheet, and all of them into a film."""
    pictures = fine[:, ::FINER]
    values = pictures.astype(np.float32)
    step = np.abs(np.diff(values, axis=1)).mean((2, 3, 4)) / 255  # rows, steps - 1
    ends = np.abs(values[:, -1] - values[:, 0]).mean((1, 2, 3)) / 255
    largest = step.max(1) / np.maximum(step.mean(1), 1e-9)
    numbers = {
        'pixel_change': step.mean(0).tolist(),
        'pixel_change_mean': float(step.mean()),
        'pixel_change_ends': float(ends.mean()),
        'largest_step_of_a_row_to_its_mean': float(np.median(largest)),
        **explored.read(sampler.meta.scenes, pictures),
    }
    return Found(pictures, labels, numbers, frames=fine[:FILMED].swapaxes(0, 1))


# ------------------------------------------------------------------------------------ changed words
def swap_word(sampler: Sampler, pair: Sentences, num: int = 8, seed: int = 0) -> np.ndarray:
    """Draw two sentences that differ by a word or a few, from the same noise.

    pair: two sentences, or a batch of two rows, as Sampler.encode takes them.

    Returns uint8 (2, num, s, s, 3). Raises DataError for two sentences without a common word.
    """
    encoded = two_of(sampler, pair)
    if not isinstance(pair, dict):
        exchanged(*pair)
    batch = {'encoded': take(encoded, np.repeat(np.arange(2), num))}
    return sampler.sample(batch, sampler.noise(num, seed, 2), (2, num))['image']


def exchanged(first, second):
    """Return the words that are exchanged: (of the first sentence, of the second), two lists.

    Raises DataError where the sentences share no word, or have all words in one order.
    """
    a, b = tokenize(first), tokenize(second)
    if not set(a) & set(b):
        raise DataError(
            f'{short(repr(first))} and {short(repr(second))} have no word in common. swap_word '
            'exchanges a word and leaves the others: give such a pair.'
        )
    if a == b:
        raise DataError(
            f'{short(repr(first))} and {short(repr(second))} have the same words: give '
            'sentences that differ by one.'
        )
    blocks = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    blocks = [block for block in blocks if block[0] != 'equal']
    old = [word for _, i, j, *_ in blocks for word in a[i:j]]
    new = [word for *_, i, j in blocks for word in b[i:j]]
    return old, new


def swap_word_sheet(request) -> Found:
    """Draw two rows for each pair of sentences that differ by a word.

    Given ones, or held-out captions.
    """
    require_pairs(request)
    sampler, num = request.sampler, request.num
    texts, encoded = list(request.texts), None
    if not texts:
        encoded, texts = held_out_pairs(sampler, max(1, num // 2))
    pairs = range(0, len(texts), 2)
    changed = [exchanged(*texts[i : i + 2]) for i in pairs]
    encoded = {'encoded': sampler.encode(texts) if encoded is None else encoded}
    parts = [swap_word(sampler, take(encoded, slice(i, i + 2)), num, request.seed) for i in pairs]
    pictures = np.concatenate(parts)
    paired = pictures.reshape(-1, 2, *pictures.shape[1:]).astype(np.float32)  # pairs 2 num s s 3
    other = float(np.abs(np.roll(paired, 1, 2) - paired).mean() / 255)
    numbers = {
        'words': [[' '.join(old), ' '.join(new)] for old, new in changed],
        'pixel_change': (np.abs(paired[:, 1] - paired[:, 0]).mean((1, 2, 3, 4)) / 255).tolist(),
        'pixel_change_of_other_noise': other if num > 1 else None,
        **explored.read(sampler.meta.scenes, pictures.swapaxes(0, 1)),
    }
    return Found(pictures, texts, numbers)


def held_out_pairs(sampler, count):
    """Encode `count` pairs of held-out captions that differ by one word -> (encoded, texts).

    Raises DataError where there is none.
    """
    split = held_out(sampler, 1).split
    rows, texts = alike(split.texts, count)
    batch = texts
    if 'embedding' in sampler.module.needs:
        batch = Rows(split, *(np.array(x) for x in zip(*rows))).batch()
    return sampler.encode(batch), texts


def alike(texts, count):
    """Find `count` pairs of captions that differ by one word, each pair by other words.

    texts: the captions of each record.

    Returns ([(record, [caption]) of each], their texts). Raises DataError where there is none.
    """
    seen, words_used, rows, found = {}, set(), [], []
    captions = (
        (record, number, text)
        for record, several in enumerate(texts)
        for number, text in enumerate(several)
    )
    for _, (record, number, text) in zip(range(READ), captions):
        words = tuple(tokenize(text))
        for place, word in enumerate(words):
            frame = (*words[:place], None, *words[place + 1 :])
            first = seen.setdefault(frame, (record, number, text, word))
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


def require_pairs(request):
    """Raise DataError for an odd number of sentences."""
    if len(request.texts) % 2:
        raise DataError(
            f'--what={request.what} takes sentences in pairs, --text="..." --text="...": '
            f'there are {len(request.texts)}.'
        )
