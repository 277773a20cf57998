"""Edits: a sentence is changed, z and all other noise stay.

    edit(Sampler.load('runs/control'), ['a red circle', 'a blue circle'], num=4)  # uint8 3 4 s s 3

ControlGAN (NeurIPS 2019) reports the squared difference of pictures before and after. It is 0 for a
system that is deaf to words, so that it says something only next to how often the new words are
right, as it is known on shape scenes.
"""

import numpy as np

from t2i_jax.explore.request import Found, Sentences, held_out, take
from t2i_jax.explore.sentences import exchanged, held_out_pairs, require_pairs, two_of
from t2i_jax.sample import Sampler
from t2i_jax.scenes import explored

# held-out captions of the table of exchanged words
CAPTIONS = 200


def edit(sampler: Sampler, pair: Sentences, num: int = 8, seed: int = 0) -> np.ndarray:
    """Draw two sentences from the same noise -> uint8 (3, num, s, s, 3), before, after, change.

    pair: two sentences, or a batch of two rows, as Sampler.encode takes them.

    Raises DataError.
    """
    batch = {'encoded': take(two_of(sampler, pair), np.repeat(np.arange(2), num))}
    before, after = sampler.sample(batch, sampler.noise(num, seed, 2), (2, num))['image']
    return np.stack([before, after, change_map(before, after)])


def change_map(before, after):
    """Return how much each pixel changes, grey: white is from black to white."""
    change = np.abs(after.astype(np.float32) - before).mean(-1, keepdims=True)
    return np.repeat(change.round().astype(np.uint8), 3, -1)


def differences(before, after) -> dict:
    """Return how much pictures uint8 (..., s, s, 3) differ, pixels in [0, 1]."""
    off = (after.astype(np.float32) - before) / 255
    return {'l2': float((off**2).mean()), 'pixel_change': float(np.abs(off).mean())}


def edit_sheet(request) -> Found:
    """Show three rows for each pair of sentences: before, after, change.

    The pairs are given, or held-out captions with one word exchanged. From these a table is made:
    of `CAPTIONS` captions, on shape scenes with what became of them.
    """
    require_pairs(request)
    sampler, num, seed = request.sampler, request.num, request.seed
    texts, numbers = list(request.texts), {}
    if texts:
        encoded = sampler.encode(texts)
    else:
        encoded, texts, numbers = table(sampler, max(1, num // 2), seed)
    pairs = range(0, len(texts), 2)
    parts = [edit(sampler, {'encoded': take(encoded, slice(i, i + 2))}, num, seed) for i in pairs]
    labels = [label for i in pairs for label in (*texts[i : i + 2], 'change')]
    before, after = np.stack([part[:2] for part in parts], 1)
    own = {
        'pairs': [
            {'texts': texts[i : i + 2], **differences(*part[:2])} for i, part in zip(pairs, parts)
        ],
        **differences(before, after),
    }
    if num > 1:
        own['of_other_noise'] = differences(before, np.roll(before, 1, 1))
    return Found(np.concatenate(parts), labels, own | numbers)


def table(sampler, shown, seed):
    """Exchange words of held-out captions -> (`shown` pairs encoded, their texts, the numbers).

    On shape scenes words for a colour, a class, a size; elsewhere captions that differ by a word.
    """
    scenes, found = sampler.meta.scenes, []
    if scenes and sampler.reads_new_text:
        records = held_out(sampler, CAPTIONS, ('facts',))
        facts = records.of('facts')
        found = explored.edits(scenes, records.texts, facts, CAPTIONS, seed)
    if found:
        texts = [text for row, _, new, _ in found for text in (records.texts[row], new)]
        encoded = sampler.encode(texts)
    else:
        encoded, texts = held_out_pairs(sampler, CAPTIONS // 2)
    n = len(texts) // 2
    # row i of the noise for both captions of pair i
    noise = take(sampler.noise(n, seed), np.repeat(np.arange(n), 2))
    pictures = sampler.sample({'encoded': encoded}, noise, (n, 2))['image']
    before, after = pictures[:, 0], pictures[:, 1]
    numbers = {'captions': n, **differences(before, after)}
    if found:
        numbers |= explored.edited(scenes, before, after, found, facts)
    else:
        numbers['words'] = [
            {
                'words': [' '.join(words) for words in exchanged(*texts[2 * i : 2 * i + 2])],
                **differences(before[i], after[i]),
            }
            for i in range(n)
        ]
    which = np.unique(np.linspace(0, n - 1, min(shown, n)).round().astype(int))
    rows = (2 * which[:, None] + np.arange(2)).ravel()
    return take(encoded, rows), [texts[row] for row in rows], {'exchanged_words': numbers}
