"""How different are the images that one caption gives? Noise raises these numbers, too: print them beside a measure of quality."""

import numpy as np

from t2i_jax.metrics.arrays import generator


def pairwise(images, measure, *, pairs=None, seed=0):
    """A measure of pairs of images of one caption -> (values (p,), captions (p,)); `bootstrap.interval` takes both.

    images: (n, k, ...), k samples of each of n captions. measure: two arrays (p, ...) -> (p,), such as `ms_ssim`. pairs: how many to draw,
    each from a random caption, the two images distinct, a pair perhaps more than once; all n k (k - 1) / 2 unless given.
    """
    images = np.asarray(images)
    if images.ndim < 3 or images.shape[1] < 2 or not len(images):
        raise ValueError(
            f'expected images (captions, samples, ...) with 2 samples or more of each caption, got {images.shape}'
        )
    n, k = images.shape[:2]
    if pairs is None:
        first, second = np.triu_indices(k, 1)
        captions, first, second = (
            np.repeat(np.arange(n), len(first)),
            np.tile(first, n),
            np.tile(second, n),
        )
    else:
        random = generator(seed)
        captions, first, second = (random.integers(high, size=pairs) for high in (n, k, k - 1))
        second = second + (second >= first)
    parts = [slice(i, i + 256) for i in range(0, len(captions), 256)]
    values = [
        np.asarray(measure(images[captions[p], first[p]], images[captions[p], second[p]]))
        for p in parts
    ]
    return np.concatenate(values), captions


def feature_diversity(features):
    """Mean squared distance between unit-length features of the samples of a caption, over all its pairs -> (n,), in [0, 4].

    features: (n, k, d), k samples of each of n captions. Two samples at right angles have 2. Like LPIPS for one layer, but without its network
    and its learned weights: it must not go under that name. Raises ValueError for one sample a caption, NaN and rows of zeros.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 3 or features.shape[1] < 2 or not features.size:
        raise ValueError(
            f'expected features (captions, samples, d) with 2 samples or more of each caption, got {features.shape}'
        )
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    bad = np.argwhere(~(np.isfinite(lengths[..., 0]) & (lengths[..., 0] > 0)))
    if len(bad):
        raise ValueError(
            f'the features of sample {bad[0][1]} of caption {bad[0][0]} are zero, NaN or infinite'
        )
    k, total = features.shape[1], (features / lengths).sum(1)
    return np.maximum(
        2 - 2 * ((total**2).sum(-1) - k) / (k * (k - 1)), 0
    )  # mean cosine of pairs from the length of the sum
