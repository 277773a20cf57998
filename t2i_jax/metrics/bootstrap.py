"""Bootstrap intervals."""

import numpy as np

from t2i_jax.metrics.arrays import generator


def interval(values, groups=None, *, level=0.95, resamples=1000, seed=0):
    """(low, high): the percentile bootstrap interval of the mean of values (n,) (Efron, 1979).

    groups: (n,) of anything that can be compared: values of one group (captions of one image) are no independent draws, so whole groups are
    drawn again. seed: a number or a generator. Raises ValueError for no values, NaN, and a level outside (0, 1).
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values.ravel()))
        raise ValueError(
            f'an interval needs numbers (n,), one or more, got {values.shape}'
            + (f' with NaN or infinity at {bad[0]}' if len(bad) else '')
        )
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
        drawn = random.integers(len(sums), size=len(sums))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
