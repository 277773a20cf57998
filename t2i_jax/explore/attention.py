"""Attention in explored pictures: what each pixel of a drawn picture looked at, and where each word looks in a real one."""

import jax
import numpy as np

from t2i_jax.data.text import encode_sentences
from t2i_jax.draw.attention import row, rows
from t2i_jax.runtime.errors import RunError
from t2i_jax.sample import to_uint8
from t2i_jax.scenes.attention import inside
from t2i_jax.scenes.readers import best_reader

ACROSS = 8  # words of a line
MEASURED = (
    200  # held-out pictures of shape scenes in which it is measured where words look, at least
)


def explored(ask, sampler, held_out) -> dict:
    """What --mode=explore --what=attention draws, as explore.py takes it; held_out: its function of that name. Raises RunError, DataError."""
    if 'tokens' not in sampler.module.needs:
        raise RunError(
            f"--what=attention needs a system whose pixels look at words, as AttnGAN's do; {type(sampler.module).__name__} does not read words."
        )
    return (
        of_words(ask, sampler, held_out)
        if 'attention' in sampler.module.explores
        else of_pixels(ask, sampler, held_out)
    )


def count(ask, sampler) -> int:
    """Of how many held-out pictures the attention is computed; the first `num` are shown."""
    return max(ask.num, MEASURED) if best_reader(sampler.meta.scenes) else ask.num


def of_words(ask, sampler, held_out):
    """Where the words of captions look in their held-out pictures (DAMSM): the words in their order, each relative to the 99th percentile of all values."""
    if ask.texts:
        raise RunError(
            f'--what=attention of stage {sampler.name} shows held-out pictures with their own captions: leave --text out.'
        )
    asked = held_out(ask, sampler, count(ask, sampler), ('image',))
    batch = asked.batch(0, len(asked.rows))
    maps = sampler.apply('attend', {name: batch[name] for name in ('image', 'tokens', 'length')})
    maps, words = (
        np.moveaxis(maps, 1, -1),
        [sampler.vocabulary.decode(ids) for ids in batch['tokens']],
    )  # n h w t
    lines, labels = [], []
    for picture, sentence, one, text in zip(
        np.asarray(to_uint8(batch['image'][: ask.num])), words, maps, asked.texts
    ):
        for start in range(0, max(1, len(sentence)), ACROSS):
            lines.append(
                row(
                    picture,
                    sentence,
                    one,
                    np.arange(start, min(start + ACROSS, len(sentence))),
                    ACROSS,
                    most=float(np.quantile(one, 0.99)),
                )
            )
            labels.append('' if start else text)
    numbers = (
        {f'map_{maps.shape[1]}': inside(maps, words, asked.of('scene'))}
        if 'scene' in asked.split.tables
        else {}
    )
    return dict(pictures=np.stack(lines), labels=labels, numbers=numbers)


def of_pixels(ask, sampler, held_out):
    """Which words each map looked at: a line for each picture and map, `num` pictures of each of the user's sentences or one of each held-out one."""
    if ask.texts:
        batch, texts = (
            encode_sentences(ask.texts, sampler.vocabulary, sampler.meta.length),
            [text for text in ask.texts for _ in range(ask.num)],
        )
        batch = {
            name: np.repeat(batch[name], ask.num, 0)
            for name in sampler.module.needs
            if name in batch
        }
        noise = jax.tree.map(
            lambda x: np.tile(np.asarray(x), (len(ask.texts),) + (1,) * (x.ndim - 1)),
            sampler.module.noise(jax.random.key(ask.seed), ask.num),
        )
        shown = len(texts)
    else:
        shown, asked = ask.num, held_out(ask, sampler, count(ask, sampler))
        batch, texts, noise = (
            asked.batch(0, len(asked.rows)),
            asked.texts,
            sampler.module.noise(jax.random.key(ask.seed), len(asked.rows)),
        )
    drawn = sampler.sample(batch, noise, (len(texts),), attention=True)
    if not drawn.get('attention'):
        raise RunError(
            f'The pixels of stage {sampler.name}, as this run has it, look at no words: there is no attention to draw.'
        )
    words = [sampler.vocabulary.decode(ids) for ids in batch['tokens']]
    lines = [
        rows(drawn['image'][i], words[i], [one[i] for one in drawn['attention']])
        for i in range(shown)
    ]
    reader, numbers = best_reader(sampler.meta.scenes), {}
    if reader:
        scenes = reader.decode(drawn['image'])
        numbers = {'decoder': reader.tag['name']} | {
            f'map_{one.shape[1]}': inside(one, words, scenes) for one in drawn['attention']
        }
    labels = [text if j == 0 else '' for text, part in zip(texts, lines) for j in range(len(part))]
    return dict(pictures=np.concatenate(lines), labels=labels, numbers=numbers)
