"""Retrieval both ways from a matrix of scores, where more than one answer may be right.

Many captions are true of many pictures ("a red circle"), and a ranking should not lose for putting
one of these first. So a mask says which answers are right. The numbers are only as honest as the
scorer, see r_precision.py.
"""

import numpy as np
import scipy
from numpy.typing import ArrayLike

from t2i_jax.metrics.arrays import rows


def retrieval(
    scores: ArrayLike,
    right: np.ndarray | None = None,
    *,
    owner: ArrayLike | None = None,
    at: tuple[int, ...] = (1, 5, 10),
    gallery: int = 0,
    any_right: bool = False,
    tie: float = 0.0,
) -> dict[str, dict]:
    """Rank the answers to each picture and each caption -> {'image_to_text', 'text_to_image'}.

    Each query is answered by its own partner, ranked among the wrong answers alone: further right
    answers neither help nor harm. Of several captions of one picture the best counts; a picture
    without a caption is not a query but stays in the gallery.

    scores: (n, m) of picture i and caption j
    right: bool (n, m), caption j is true of picture i; a caption's own picture always counts as
        right
    owner: (m,), the picture of each caption; by default caption j belongs to picture j, and n = m
    at: the ranks k of R@k
    gallery: number of candidates of a query, its answer and gallery - 1 wrong ones chosen without
        replacement: R@k is then the expected share over all choices, computed, not sampled; 0: all
    any_right: the best of all right answers is the answer, as where classes are retrieved
    tie: a wrong answer that scores no less than this below the right one counts before it

    Each way has 'R@k' (shares), 'chance' (R@k of random scores, {k: share}), 'median_rank' (1 is
    best, among all wrong ones), 'ranks' and 'wrong' (number of wrong answers), one for each query.

    Raises ValueError for other shapes, NaN, and a query with fewer than gallery - 1 wrong answers.
    """
    scores = rows(scores, 'scores')
    n, m = scores.shape
    own = np.arange(n)[:, None] == _owner(owner, n, m)
    right = own if right is None else np.asarray(right)
    if right.shape != (n, m) or right.dtype != bool:
        raise ValueError(
            f'right {right.shape} {right.dtype}: expected bool of the shape of scores, {(n, m)}'
        )
    if not at or min(at) < 1 or gallery < 0 or gallery == 1:
        raise ValueError(
            f'at={at}, gallery={gallery}: k is 1 or more, a gallery 2 or more (0: all)'
        )
    right = right | own
    answer = right if any_right else own
    return {
        'image_to_text': _one_way(scores, right, answer, at, gallery, tie),
        'text_to_image': _one_way(scores.T, right.T, answer.T, at, gallery, tie),
    }


def share(ranks: np.ndarray, wrong: np.ndarray, k: int, gallery: int) -> np.ndarray:
    """Compute the chance of each query that its answer is among the best k of a gallery.

    ranks: of the answers among all wrong ones, 1 is best
    wrong: number of wrong answers of each query
    gallery: number of candidates, the answer and others chosen from its wrong ones
    """
    return scipy.stats.hypergeom.cdf(k - 1, wrong, ranks - 1, gallery - 1)


def _owner(owner, n, m):
    if owner is None and n != m:
        raise ValueError(
            f'scores {(n, m)}: {n} pictures and {m} captions; say with `owner` which picture each '
            'caption belongs to'
        )
    owner = np.arange(m) if owner is None else np.asarray(owner)
    if owner.shape != (m,) or not m or owner.min() < 0 or owner.max() >= n:
        raise ValueError(
            f'owner {owner.shape} of {m} captions must name a picture, 0 to {n - 1}, for each'
        )
    return owner


def _one_way(scores, right, answer, at, gallery, tie):
    """The numbers of one way. Rows are queries; those without an answer are left out."""
    with_answer = answer.any(1)
    scores, right, answer = scores[with_answer], right[with_answer], answer[with_answer]
    best = np.where(answer, scores, -np.inf).max(1, keepdims=True)
    wrong, answers = (~right).sum(1), answer.sum(1)
    if wrong.min() < gallery - 1:
        raise ValueError(
            f'a gallery of {gallery} needs {gallery - 1} wrong answers, and query {wrong.argmin()} '
            f'has {wrong.min()}: take more pairs, or a smaller gallery'
        )
    ranks = 1 + ((scores >= best - tie) & ~right).sum(1)
    # how many wrong answers are ranked
    pool = np.full(len(scores), gallery - 1) if gallery else wrong
    found = {'median_rank': float(np.median(ranks)), 'ranks': ranks, 'wrong': wrong}
    found |= {f'R@{k}': float(share(ranks, wrong, k, pool + 1).mean()) for k in at}
    return found | {'chance': {k: _chance(k, pool + answers, answers) for k in at}}


def _chance(k, candidates, answers):
    """The mean chance that one of the answers is among the first k of a random order."""
    none = scipy.stats.hypergeom.pmf(0, candidates, answers, np.minimum(k, candidates))
    return float(1 - none.mean())
