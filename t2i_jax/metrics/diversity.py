"""Diversity of the images of one caption.

Noise raises these numbers, too: print them next to a measure of quality.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from t2i_jax.metrics.arrays import Seed, blocks, generator

# pairs that are measured at a time
BLOCK = 256


def pairwise(
    images: ArrayLike, measure: Callable, *, pairs: int | None = None, seed: Seed = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Measure pairs of images of one caption -> (values (p,), captions (p,)).

    `bootstrap.interval` takes both.

    images: (n, k, ...), k samples of each of n captions
    measure: a function of two arrays (p, ...) -> (p,), such as `ms_ssim`
    pairs: number of random pairs: each of a random caption, its two images distinct, a pair perhaps
        more than once; by default all n k (k - 1) / 2
    seed: a number or a generator
    """
    images = np.asarray(images)
    if images.ndim < 3 or images.shape[1] < 2 or not len(images):
        raise ValueError(
            'expected images (captions, samples, ...) with 2 samples or more of each caption, '
            f'got {images.shape}'
        )
    n, k = images.shape[:2]
    if pairs is None:
        first, second = np.triu_indices(k, 1)
        captions = np.repeat(np.arange(n), len(first))
        first, second = np.tile(first, n), np.tile(second, n)
    else:
        random = generator(seed)
        captions, first, second = (random.integers(high, size=pairs) for high in (n, k, k - 1))
        second = second + (second >= first)
    values = [
        np.asarray(measure(images[captions[p], first[p]], images[captions[p], second[p]]))
        for p in blocks(len(captions), BLOCK)
    ]
    return np.concatenate(values), captions


def feature_diversity(features: ArrayLike) -> np.ndarray:
    """Average the squared distances of a caption's unit-length features -> (n,) in [0, 4].

    The mean is over all pairs of the samples of one caption; two samples at right angles have 2.
    Like LPIPS for one layer, but without its network and its learned weights: do not call it LPIPS.

    features: (n, k, d), k samples of each of n captions

    Raises ValueError for one sample a caption, NaN and rows of zeros.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 3 or features.shape[1] < 2 or not features.size:
        raise ValueError(
            'expected features (captions, samples, d) with 2 samples or more of each caption, '
            f'got {features.shape}'
        )
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    bad = np.argwhere(~(np.isfinite(lengths[..., 0]) & (lengths[..., 0] > 0)))
    if len(bad):
        raise ValueError(
            f'the features of sample {bad[0][1]} of caption {bad[0][0]} are zero, NaN or infinite'
        )
    k, total = features.shape[1], (features / lengths).sum(1)
    # the mean cosine of pairs, from the length of the sum
    cosine = ((total**2).sum(-1) - k) / (k * (k - 1))
    return np.maximum(2 - 2 * cosine, 0)
