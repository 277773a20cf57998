"""Layouts without pictures, under rules with exactly known likelihoods.

LayoutVAE is checked on them. Labels A, B, C, D (circle, square, triangle, cross) are each in the
set of a scene with probability 1/2; no set is empty. All numbers are drawn uniformly. (x, y) is the
upper left corner of a box; all boxes are squares.

    label  how many                x                     y            side
    A      3 or 4                  0 to .8               0 to .2      .12
    B      2 or 3                  .05 to .75            .7 to .8     .1 to .2
    C      1 with a B, else 2      first B's -.05..+.05  its y - .25  .15      with a B
                                   .4 to .5              .4 to .5     .15      else
    D      one less than A,        .3 to .5              .3 to .5     .08
           without A 1, 2 or 3

Boxes come in the order of the labels, those of a label from left to right by their left edge; the
first B is the leftmost one. The rules are ours, in the manner of MNIST-Layouts (Jyothi et al., ICCV
2019).
"""

import math

import numpy as np

from tfds_builders.errors import DataError
from tfds_builders.shape_scenes.scenes import Draws

LABELS = ('circle', 'square', 'triangle', 'cross')
A, B, C, D = range(len(LABELS))
MAX_OBJECTS = 11  # 4 + 3 + 1 + 3
SPLIT_RULE = 'A scene is a function of (seed, split, index).'

# (low, high) of x, y and side; `low` itself where both are the same
PLACES = (
    ((0, 0.8), (0, 0.2), (0.12, 0.12)),
    ((0.05, 0.75), (0.7, 0.8), (0.1, 0.2)),
    ((0.4, 0.5), (0.4, 0.5), (0.15, 0.15)),
    ((0.3, 0.5), (0.3, 0.5), (0.08, 0.08)),
)
# a C stands at most so far to the side of the first B, and so far over it
BESIDE, OVER = 0.05, 0.25
# of `checks`, for what a model draws
TOLERANCE = 0.05
# of the random numbers; 0 to 2 are those of scenes with pictures (`sample.py`)
STREAM = 3


def sample(split, index, seed=0):
    """Return one scene: (boxes float64 (n, 4) cx cy w h in [0, 1], labels int (n,)).

    A pure function of its arguments.
    """
    draws = Draws(seed, 'multi', split, index, stream=STREAM)
    present = [False]
    while not any(present):
        present = [draws.random() < 0.5 for _ in LABELS]
    counts, places, labels, first_b = [0] * len(LABELS), [], [], None
    for label in np.flatnonzero(present).tolist():
        counts[label] = draws.pick(possible(label, present, counts))
        found = sorted(_place(label, first_b, draws) for _ in range(counts[label]))
        if label == B:
            first_b = found[0]
        places += found
        labels += [label] * counts[label]
    return np.array([(x + side / 2, y + side / 2, side, side) for x, y, side in places]), np.array(
        labels
    )


def possible(label, present, counts):
    """Return the counts that a label of the set may have, all equally likely.

    present: four flags, the set
    counts: those of the labels before it
    """
    if label == A:
        return 3, 4
    if label == B:
        return 2, 3
    if label == C:
        return (1,) if present[B] else (2,)
    return (max(1, counts[A] - 1),) if present[A] else (1, 2, 3)


def _place(label, first_b, draws):
    """Return (x, y, side) of one box."""
    x, y, side = (draws.uniform(*limits) for limits in PLACES[label])
    if label == C and first_b:
        return first_b[0] + draws.uniform(-BESIDE, BESIDE), first_b[1] - OVER, side
    return x, y, side


# Floors: no model has a lower expected NLL


def count_floor(labels, head):
    """Return the least expected NLL of counts in nats, (N,), mean over the labels of a set.

    labels: (N, R) with -1 where there is none
    head: as in `least_nll`

    Each count is given the set and the counts before.
    """
    floors = []
    for counts in counts_of(labels).tolist():
        present = [n > 0 for n in counts]
        floors.append(
            np.mean(
                [
                    least_nll(possible(label, present, counts), head)
                    for label in np.flatnonzero(present)
                ]
            )
        )
    return np.array(floors)


def least_nll(options, head):
    """Return the least expected NLL in nats of a count, one of equally likely `options`.

    'categorical': the entropy. 'poisson', where n - 1 has a Poisson distribution: it is least at
    the rate r = E[n - 1], and is then r - r log r + E[log (n - 1)!]. A mixture of Poissons, which
    is what a latent variable makes, does no better with these counts, which vary less than a
    Poisson does.
    """
    if head == 'categorical':
        return math.log(len(options))
    if head != 'poisson':
        raise DataError(
            f'There is no floor for a count head {head!r}; there are categorical and poisson.'
        )
    rate = sum(options) / len(options) - 1
    return (
        rate
        - (rate * math.log(rate) if rate else 0)
        + sum(map(math.lgamma, options)) / len(options)
    )


def box_floor(boxes, labels, sigma=0.02):
    """Return a bound below the expected NLL of boxes in nats, (N,), mean over a scene's boxes.

    boxes, labels: (N, R, 4) and (N, R) with -1 where there is none
    sigma: of each Gaussian

    The labels are given. NaN where `checks` finds a rule broken.

    It holds for any density of x y w h, or cx cy w h, that is a mixture of Gaussians of standard
    deviation sigma in each of the four. A coordinate that is given by what came before costs
    log(sigma sqrt(2 pi)), -2.993 at .02; a uniform one of width W at least log W. Where w = h has
    width W, that line is sqrt(2) W long and nothing varies across it: log(2 sqrt(pi) sigma W) for
    both. n boxes sorted by x cost log n! less. No mixture reaches it: at sigma = .02, the best one
    lies above log W by .13 nats at W = .1, by .06 at .2 and by .03 at .4, and by more where the box
    before cuts the range, as sorting does it. Over all scenes that makes about .18 nats a box.
    """
    # no mixture is denser than 1 / known along any coordinate
    known = sigma * math.sqrt(2 * math.pi)
    floors = []
    for counts in counts_of(labels).tolist():
        nats = 0.0
        for label in np.flatnonzero(counts):
            x, y, side = (high - low for low, high in PLACES[label])
            if label == C and counts[B]:
                x, y = 2 * BESIDE, 0
            nats += counts[label] * sum(
                math.log(max(width, known)) for width in (x, y, math.sqrt(2) * side, 0)
            ) - math.lgamma(counts[label] + 1)
        floors.append(nats / max(1, sum(counts)))
    return np.where(checks(boxes, labels)['rule_all'] == 1, floors, np.nan)


# Checks of layouts, for the model that made them


def checks(boxes, labels, label_set=None):
    """Return which rules a layout keeps, {name: float32 (N,)}, 1 or 0.

    boxes: (N, R, 4) cx cy w h
    labels: (N, R) with -1 where there is none
    label_set: (N, 4) of 0 and 1, the requested labels (None: those that are there)

    rule_counts: no label outside the set, and each count is one that the rules allow with the set
    and the counts before (so D = A - 1). rule_regions: x, y, w and h of all boxes lie in the
    label's ranges. rule_relations: each C stands over the leftmost B, x at most .05 off and y .25
    above. rule_all: all of these that apply. NaN where the rule says nothing of this layout.
    Lengths have TOLERANCE to either side.
    """
    boxes, labels, counts = np.asarray(boxes, float), np.asarray(labels), counts_of(labels)
    wanted = (counts if label_set is None else np.asarray(label_set)) > 0
    there, has_b = labels >= 0, counts[:, B] > 0
    counted = [
        any(present)
        and all(
            n in possible(label, present, row) if present[label] else n == 0
            for label, n in enumerate(row)
        )
        for present, row in zip(wanted.tolist(), counts.tolist())
    ]
    corners = np.concatenate(
        [boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], -1
    )  # n r 4: x y w h
    limits = _REGIONS[has_b.astype(int)[:, None], labels]  # n r 4 2
    inside = (
        (corners >= limits[..., 0] - TOLERANCE) & (corners <= limits[..., 1] + TOLERANCE)
    ).all(-1)
    first = np.where(labels == B, corners[..., 0], np.inf).argmin(1)
    away = np.abs(
        corners[..., :2] - corners[np.arange(len(first)), first, None, :2] + (0, OVER)
    )  # n r 2: from where a C is on average
    over = (away <= (BESIDE + TOLERANCE, TOLERANCE)).all(-1)
    found = {
        'rule_counts': np.array(counted, np.float32),
        'rule_regions': np.where(there.any(1), (inside | ~there).all(1), np.nan).astype(np.float32),
        'rule_relations': np.where(
            has_b & (counts[:, C] > 0), (over | (labels != C)).all(1), np.nan
        ).astype(np.float32),
    }
    return found | {'rule_all': np.nanmin(list(found.values()), 0)}


def _regions():
    """Return the ranges: (without and with a B, label, x y w h, low high)."""
    alone = np.array([[x, y, side, side] for x, y, side in PLACES])
    with_b = alone.copy()
    with_b[C, 0], with_b[C, 1] = alone[B, 0] + (-BESIDE, BESIDE), alone[B, 1] - OVER
    return np.stack([alone, with_b])


_REGIONS = _regions()


def counts_of(labels):
    """Return how many boxes each label has, int (N, 4).

    labels: (N, R), -1 where there is none
    """
    return (np.asarray(labels)[..., None] == np.arange(len(LABELS))).sum(-2)


def flipped(boxes):
    """Return the layout upside down, of boxes (..., 4) cx cy w h, all 0 where there is none."""
    boxes = np.array(boxes)
    boxes[..., 1] = np.where(boxes[..., 3] > 0, 1 - boxes[..., 1], boxes[..., 1])
    return boxes


def has_up(labels):
    """Return whether a rule puts a box to the top or the bottom: labels (N, R) -> bool (N,).

    That is, whether there is an A or a B.
    """
    return np.isin(labels, (A, B)).any(-1)
