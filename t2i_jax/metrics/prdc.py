"""Precision and recall, density and coverage of two sets of features.

Precision and recall: Kynkaanniemi et al., NeurIPS 2019; density and coverage: Naeem et al., ICML
2020. Around each feature lies a ball that reaches to its k-th neighbour in its own set; a point is
in a ball where its distance is smaller than the radius. Precision and density: fakes in balls of
reals; recall: reals in balls of fakes; coverage: reals that have a fake in their own ball. Compare
at equal numbers of images, 5,000 or more of each. Distances come in blocks: memory grows with n,
not with n^2.
"""

import numpy as np
from numpy.typing import ArrayLike

from t2i_jax.metrics.arrays import blocks, pair

# rows of a matrix of distances at a time
BLOCK = 1024


def _squares(x, y):
    """Compute squared distances (a, b).

    Rounding of 0 becomes 0, so that copies of one image have none.
    """
    lengths = (x**2).sum(1)[:, None] + (y**2).sum(1)
    squares = lengths - 2 * x @ y.T
    squares[squares < 1e-13 * lengths] = 0
    return squares


def _radii(x, k):
    """Compute the squared distance of each row of (n, d) to its k-th neighbour -> (n,).

    The row itself does not count.
    """
    parts = (_squares(x[part], x) for part in blocks(len(x), BLOCK))
    return np.concatenate([np.partition(squares, k, axis=1)[:, k] for squares in parts])


def _checked(real, fake, k):
    if k < 1:
        raise ValueError(
            f'k={k}: the radius of a ball is the distance to a neighbour, 1 or further'
        )
    remedy = f'the radius of a ball is the distance to the neighbour of rank {k}'
    real, fake = pair(real, fake, k + 1, remedy)
    # distances lose fewer digits near the origin
    centre = real.mean(0)
    return real - centre, fake - centre


def precision_recall(real: ArrayLike, fake: ArrayLike, k: int = 3) -> tuple[float, float]:
    """Compute (precision, recall), each in [0, 1], of features (n, d) and (m, d).

    Raises ValueError for k rows or fewer, unequal dimensions, NaN and infinity.
    """
    real, fake = _checked(real, fake, k)
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    inside, recalled = 0, np.zeros(len(real), bool)
    for part in blocks(len(fake), BLOCK):
        squares = _squares(fake[part], real)
        inside += (squares < real_radii).any(1).sum()
        recalled |= (squares < fake_radii[part, None]).any(0)
    return float(inside / len(fake)), float(recalled.mean())


def density_coverage(real: ArrayLike, fake: ArrayLike, k: int = 5) -> tuple[float, float]:
    """Compute (density, coverage) of features (n, d) and (m, d).

    Density is 0 or more, about 1 for equal distributions; coverage lies in [0, 1].

    Raises ValueError for k rows or fewer, unequal dimensions, NaN and infinity.
    """
    real, fake = _checked(real, fake, k)
    radii, count, covered = _radii(real, k), 0, np.zeros(len(real), bool)
    for part in blocks(len(fake), BLOCK):
        inside = _squares(fake[part], real) < radii
        count += inside.sum()
        covered |= inside.any(0)
    return float(count / (k * len(fake))), float(covered.mean())
