"""Explorations of two priors (LeicaGAN): how things look by one sentence, their shape by another.

    prior_swap(Sampler.load('runs/leica'), ['a red circle', 'a blue square'], num=4)  # 4 4 s s 3
    phi(Sampler.load('runs/leica'), ['a red circle'], num=4)                          # 4 9 s s 3

A stage declares them in `explores`, as methods on encoded sentences: `prior_swap` (sentences, other
ones) returns the first with the second prior of the others, `phi` (sentences, shares n) the same
sentences in which the words of the second prior have these shares.
"""

import jax
import numpy as np

from t2i_jax.explore.request import Found, Sentences, held_out, sentences_of, take
from t2i_jax.explore.sentences import STEPS, require_pairs, two_of
from t2i_jax.sample import Sampler
from t2i_jax.scenes import explored

# pairs of held-out captions that are measured
PAIRS = 200


# -------------------------------------------------------------------------------- exchanged priors
def prior_swap(sampler: Sampler, pair: Sentences, num: int = 8, seed: int = 0) -> np.ndarray:
    """Draw two sentences and both mixtures of their priors, from the same noise.

    pair: two sentences, or a batch of two rows, as Sampler.encode takes them.

    Returns uint8 (4, num, s, s, 3): the first, the second, the first in the shape of the second,
    the second in the shape of the first. Raises DataError.
    """
    return of_pairs(sampler, two_of(sampler, pair), sampler.noise(num, seed))[:, 0]


def of_pairs(sampler, encoded, noise):
    """Draw as `prior_swap` does, n pairs: uint8 (4, n, num, s, s, 3).

    encoded: rows 2i and 2i + 1 are a pair. noise: n * num rows, those of a pair in a row.
    """
    rows, total = (len(jax.tree.leaves(tree)[0]) for tree in (encoded, noise))
    n = rows // 2
    swap = sampler.module.exploration('prior_swap')
    mixed = swap(encoded, take(encoded, np.arange(rows) ^ 1))
    both = jax.tree.map(lambda *x: np.concatenate(x), encoded, mixed)
    which = np.array([0, 1, rows, rows + 1])[:, None] + 2 * np.arange(n)  # 4 n
    batch = {'encoded': take(both, np.repeat(which, total // n))}
    return sampler.sample(batch, take(noise, np.tile(np.arange(total), 4)), (4, n, total // n))[
        'image'
    ]


def prior_swap_sheet(request) -> Found:
    """Show four rows for each pair of sentences, see `prior_swap`.

    The pairs are given, or held-out captions; `PAIRS` of these are measured, on shape scenes pairs
    of other shapes and colours.
    """
    require_pairs(request)
    sampler, num, seed = request.sampler, request.num, request.seed
    texts, numbers = list(request.texts), {}
    if texts:
        encoded = sampler.encode(texts)
    else:
        encoded, texts = held_out_pairs(sampler)
        n = len(texts) // 2
        pictures = of_pairs(sampler, encoded, sampler.noise(n, seed))
        numbers = {'held_out': measured(sampler, pictures, texts)}
        shown = min(n, max(1, num // 4))
        encoded, texts = take(encoded, slice(2 * shown)), texts[: 2 * shown]
    n = len(texts) // 2
    pictures = of_pairs(sampler, encoded, sampler.noise(num, seed, n))
    numbers = measured(sampler, pictures, texts) | numbers
    labels = []
    for a, b in zip(texts[::2], texts[1::2]):
        labels += [a, b, f'look: {a}\nshape: {b}', f'look: {b}\nshape: {a}']
    return Found(np.concatenate(pictures.swapaxes(0, 1)), labels, numbers)


def held_out_pairs(sampler):
    """Encode pairs of held-out captions -> (rows of which two are a pair, their texts)."""
    records = held_out(sampler, 2 * PAIRS)
    pairs = explored.contrasts(sampler.meta.scenes, records.texts)
    if not pairs:
        pairs = np.arange(2 * PAIRS).reshape(2, PAIRS).T
    records = records.take(np.ravel(pairs))
    return sampler.encode(records.batch()), records.texts


def measured(sampler, pictures, texts) -> dict:
    """Measure pictures (4, n, num, s, s, 3) of `of_pairs` -> numbers.

    `pixel_change`: the mean absolute difference of pixels in [0, 1] that other appearances make,
    and other shapes; the noise and the other prior stay. On shape scenes also what the pictures
    show (scenes/explored.py).
    """
    first, second, mixed, other = pictures.astype(np.float32) / 255
    changes = {
        'pixel_change': {
            name: round(float(np.mean([np.abs(a - b).mean() for a, b in pairs])), 4)
            for name, pairs in {
                'of_appearance': [(first, other), (second, mixed)],
                'of_shape': [(first, mixed), (second, other)],
            }.items()
        }
    }
    return changes | explored.mixed(sampler.meta.scenes, pictures, texts[::2], texts[1::2])


# ---------------------------------------------------------------------------- the share of a prior
def phi(
    sampler: Sampler, sentences: Sentences, num: int = 1, steps: int = STEPS, seed: int = 0
) -> np.ndarray:
    """Draw sentences with words of the first prior alone, to those of the second alone.

    The condition stays, which both priors' sentence vectors give, and so does the noise.

    sentences: n, as Sampler.encode takes them.

    Returns uint8 (n * num, steps, s, s, 3). Raises DataError.
    """
    encoded = sentences['encoded'] if 'encoded' in sentences else sampler.encode(sentences)
    n = len(jax.tree.leaves(encoded)[0])
    rows = np.repeat(np.arange(n), num * steps)
    shares = np.tile(np.linspace(0, 1, steps), n * num)
    batch = {'encoded': sampler.module.exploration('phi')(take(encoded, rows), shares)}
    noise = take(sampler.noise(num, seed, n), np.repeat(np.arange(n * num), steps))
    return sampler.sample(batch, noise, (n * num, steps))['image']


def phi_sheet(request) -> Found:
    """Show a row for each sample of given sentences, or for each of `num` held-out captions."""
    batch, texts = sentences_of(request, request.num)
    num = request.num if request.texts else 1
    pictures = phi(request.sampler, batch, num, seed=request.seed)
    change = np.abs(np.diff(pictures.astype(np.float32), axis=1)).mean((0, 2, 3, 4)) / 255
    numbers = {'phi': np.linspace(0, 1, STEPS).tolist(), 'pixel_change': change.tolist()}
    numbers |= explored.read(request.sampler.meta.scenes, pictures)
    return Found(pictures, [text if j == 0 else '' for text in texts for j in range(num)], numbers)
