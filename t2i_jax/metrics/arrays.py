"""What the metrics ask of their arrays, in float64 on the host."""

import numpy as np


def rows(x, name, least=1, remedy='', first=0):
    """x as float64 (n, d), checked.

    name: what the messages call it ('real features'). least: how many rows the metric needs; `remedy` ends the message where there are fewer.
    first: the index of the first row, where x is one block of more. Raises ValueError for another shape, fewer rows, NaN and infinity.
    """
    x = np.asarray(x)
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f'{name}: expected an array (n, d), one row an image, got {x.shape}')
    if len(x) < least:
        raise ValueError(
            f'{name}: {len(x):,} rows, and {least:,} or more are needed{"; " if remedy else ""}{remedy}'
        )
    x = x.astype(np.float64, copy=False)
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        others = f' (and {len(bad) - 1:,} more)' if len(bad) > 1 else ''
        raise ValueError(
            f'{name}: row {first + bad[0]} holds NaN or infinity{others}; look at that image, or leave it out'
        )
    return x


def pair(real, fake, least=1, remedy=''):
    """Real and fake features (n, d) and (m, d) as float64, checked, of one dimension."""
    real, fake = (
        rows(real, 'real features', least, remedy),
        rows(fake, 'fake features', least, remedy),
    )
    same_width(real.shape[1], fake.shape[1])
    return real, fake


def same_width(d, other, names='real and fake features'):
    if d != other:
        raise ValueError(
            f'{names} have {d:,} and {other:,} dimensions: take both from one network and one layer'
        )


def generator(seed):
    """A numpy generator from a number; what has the methods of one (`np.random.RandomState`, too) is returned as it is."""
    return seed if hasattr(seed, 'permutation') else np.random.default_rng(seed)


def blocks(n, size):
    """Slices that cover range(n), `size` long."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
