"""Kernel distance of two sets of features (Binkowski et al., ICLR 2018).

The squared maximum mean discrepancy under k(x, y) = (x.y / d + 1)^3. Called KID where the features
are the 2048 of the Inception graph of 2015-12-05. Unbiased, so it may be slightly negative and
suits few images. Often printed times 1000.
"""

import numpy as np
from numpy.typing import ArrayLike

from t2i_jax.metrics.arrays import Seed, blocks, generator, pair

# rows of a kernel matrix at a time
BLOCK = 4096


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


def kid(
    real: ArrayLike, fake: ArrayLike, *, subsets: int = 100, size: int = 1000, seed: Seed = 0
) -> tuple[float, float]:
    """Estimate the distance on random subsets, unbiased -> (mean, std); std with ddof 0.

    real, fake: features (n, d) and (m, d)
    subsets, size: number of subsets, and of features in each of the two sides of one
    seed: a number or a generator. From `RandomState(s)` the subsets are those of torch-fidelity
        with rng_seed=s for the same order of the two sets: for each subset rows of the first set,
        then of the second, without replacement

    Raises ValueError where a set is smaller than a subset, for unequal dimensions, NaN and
    infinity.
    """
    if size < 2 or subsets < 1:
        raise ValueError(
            f'{subsets} subsets of {size} images give no estimate: '
            'it takes 1 subset and 2 images or more'
        )
    remedy = (
        f'take more images, or smaller subsets (size={size:,} now; the value stays unbiased, '
        'its std grows)'
    )
    real, fake = pair(real, fake, size, remedy)
    random = generator(seed)
    values = []
    for _ in range(subsets):
        x = real[random.choice(len(real), size, replace=False)]
        values.append(_mmd(x, fake[random.choice(len(fake), size, replace=False)]))
    return float(np.mean(values)), float(np.std(values))


def kid_full(real: ArrayLike, fake: ArrayLike, *, biased: bool = False) -> float:
    """Estimate the distance on all pairs of (n, d) and (m, d): no random subsets, no spread.

    biased: pairs of a row with itself count, too
    """
    real, fake = pair(real, fake, 2)
    return _mmd(real, fake, biased)
