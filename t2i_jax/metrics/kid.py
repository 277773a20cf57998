"""Kernel distance: the squared maximum mean discrepancy under k(x, y) = (x.y / d + 1)^3 (Binkowski et al., ICLR 2018).

Called KID where the features are the 2048 of the Inception graph of 2015-12-05. Unbiased, so it may be slightly negative and suits few images.
Often printed times 1000.
"""

import numpy as np

from t2i_jax.metrics.arrays import blocks, generator, pair

BLOCK = 4096  # rows of a kernel matrix at a time


def _kernel_sum(x, y):
    """Sum of k over all pairs."""
    return sum(((x[part] @ y.T / x.shape[1] + 1) ** 3).sum() for part in blocks(len(x), BLOCK))


def _mmd(x, y, biased=False):
    m, n = len(x), len(y)
    within = []
    for z in (x, y):
        own = 0 if biased else (((z**2).sum(1) / z.shape[1] + 1) ** 3).sum()
        within.append((_kernel_sum(z, z) - own) / (len(z) * (len(z) if biased else len(z) - 1)))
    return float(within[0] + within[1] - 2 * _kernel_sum(x, y) / (m * n))


def kid(real, fake, *, subsets=100, size=1000, seed=0):
    """(mean, std) of the unbiased estimate over random subsets of `size` real and fake features; std with ddof 0.

    real, fake: (n, d) and (m, d). seed: a number or a generator; from `RandomState(s)` the subsets are those that torch-fidelity draws with
    rng_seed=s for the same order of the two sets (for each subset rows of the first set, then of the second, without replacement).
    Raises ValueError where a set is smaller than a subset, for unequal dimensions, NaN and infinity.
    """
    if size < 2 or subsets < 1:
        raise ValueError(
            f'{subsets} subsets of {size} images give no estimate: it takes 1 subset and 2 images or more'
        )
    real, fake = pair(
        real,
        fake,
        size,
        f'take more images, or smaller subsets (size={size:,} now; the value stays unbiased, its std grows)',
    )
    random = generator(seed)
    values = []
    for _ in range(subsets):
        x = real[random.choice(len(real), size, replace=False)]
        values.append(_mmd(x, fake[random.choice(len(fake), size, replace=False)]))
    return float(np.mean(values)), float(np.std(values))


def kid_full(real, fake, *, biased=False):
    """The estimate on all pairs of (n, d) and (m, d) -> float: no random subsets, no spread. biased: pairs of a row with itself count, too."""
    real, fake = pair(real, fake, 2)
    return _mmd(real, fake, biased)
