"""Bootstrap intervals."""

import numpy as np
from numpy.typing import ArrayLike

from t2i_jax.metrics.arrays import generator


def interval(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of a mean -> (low, high) (Efron, 1979).

    values: (n,) numbers
    groups: (n,) of anything comparable. Values of one group (captions of one image) are not
        independent, so whole groups are resampled; by default each value is its own group
    level: share of the resampled means that the interval covers, between 0 and 1
    resamples: number of resampled means
    seed: a number or a generator

    Raises ValueError for no values, NaN, and a level outside (0, 1).
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values.ravel()))
        where = f' with NaN or infinity at {bad[0]}' if len(bad) else ''
        raise ValueError(f'an interval needs numbers (n,), one or more, got {values.shape}{where}')
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(
            f'level={level}, resamples={resamples}: expected a share between 0 and 1, and 1 or more'
        )
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    if len(groups) != len(values):
        raise ValueError(
            f'{len(values)} values and the groups of {len(groups)}: give one group for each value'
        )
    _, index = np.unique(groups, return_inverse=True)
    sums, counts, random = np.bincount(index, values), np.bincount(index), generator(seed)
    means = []
    for _ in range(resamples):
        chosen = random.integers(len(sums), size=len(sums))
        means.append(sums[chosen].sum() / counts[chosen].sum())
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
