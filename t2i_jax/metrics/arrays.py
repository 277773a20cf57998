"""Checks and pieces that metrics share: arrays in float64 on the host."""

import numpy as np
from numpy.typing import ArrayLike

# a number, or an object with the methods of a generator
Seed = int | np.random.Generator | np.random.RandomState


def rows(x: ArrayLike, name: str, least: int = 1, remedy: str = '', first: int = 0) -> np.ndarray:
    """Return x as a checked float64 array (n, d).

    name: what messages call it ('real features')
    least: number of rows that the metric needs
    remedy: the end of the message where there are fewer
    first: number of the first row, where x is one block of a larger array

    Raises ValueError for another shape, fewer rows, NaN and infinity.
    """
    x = np.asarray(x)
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f'{name}: expected an array (n, d), one row an image, got {x.shape}')
    if len(x) < least:
        message = f'{name}: {len(x):,} rows, and {least:,} or more are needed'
        raise ValueError(f'{message}; {remedy}' if remedy else message)
    x = x.astype(np.float64, copy=False)
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        others = f' (and {len(bad) - 1:,} more)' if len(bad) > 1 else ''
        raise ValueError(
            f'{name}: row {first + bad[0]} holds NaN or infinity{others}; '
            'look at that image, or leave it out'
        )
    return x


def pair(
    real: ArrayLike, fake: ArrayLike, least: int = 1, remedy: str = ''
) -> tuple[np.ndarray, np.ndarray]:
    """Return real and fake features (n, d) and (m, d) as float64, checked, of one dimension."""
    real = rows(real, 'real features', least, remedy)
    fake = rows(fake, 'fake features', least, remedy)
    same_width(real.shape[1], fake.shape[1])
    return real, fake


def same_width(d: int, other: int, names: str = 'real and fake features') -> None:
    """Raise ValueError where two numbers of dimensions differ."""
    if d != other:
        raise ValueError(
            f'{names} have {d:,} and {other:,} dimensions: take both from one network and one layer'
        )


def unit(codes: ArrayLike, name: str = 'codes') -> np.ndarray:
    """Divide the rows of (n, d) by their lengths. Raises ValueError for a row of zeros."""
    codes = rows(codes, name)
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(
            f'{name}: row {int(np.argmin(lengths))} is all zeros, and zero has no direction'
        )
    return codes / lengths


def generator(seed: Seed) -> np.random.Generator | np.random.RandomState:
    """Make a numpy generator from a number.

    An object with the methods of a generator (`np.random.RandomState`, too) is returned unchanged.
    """
    return seed if hasattr(seed, 'permutation') else np.random.default_rng(seed)


def blocks(n: int, size: int) -> list[slice]:
    """Cut range(n) into slices that are `size` long; the last may be shorter."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
