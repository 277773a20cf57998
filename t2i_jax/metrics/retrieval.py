"""Retrieval both ways from a matrix of scores, where more than one answer may be right.

Many captions are true of many pictures ("a red circle"), and a ranking should not lose for putting one of these first. So a mask says which answers
are right; see r_precision.py for rankings without it.
"""

import numpy as np
import scipy

from t2i_jax.metrics.arrays import rows


def retrieval(scores, right=None, *, at=(1, 5, 10), gallery=0, any_right=False, tie=0.0):
    """R@k both ways of scores (n, n), picture i and caption j, pair i belonging together -> {'image_to_text': ..., 'text_to_image': ...}.

    right: bool (n, n), caption j is true of picture i; the diagonal always is. Each query is answered by its own partner, ranked among the wrong ones
    alone: further right answers neither help nor harm. With `any_right` the best of all right ones is the answer, as where classes are retrieved.
    gallery: the answer among so many candidates, itself and gallery - 1 wrong ones drawn without replacement: then R@k is the expected share over
    all draws, computed, not drawn; 0: all wrong ones. tie: a wrong one that scores no less than this below the answer counts before it.
    Each way has 'R@k' (shares), 'chance' (R@k of random scores, {k: share}), 'median_rank' (among all wrong ones), 'ranks' (n,), 'wrong' (n,: how many
    there were). Raises ValueError for other shapes, NaN, and where a query has fewer than gallery - 1 wrong answers.
    """
    scores = rows(scores, 'scores')
    n = len(scores)
    own = np.eye(n, dtype=bool)
    right = own if right is None else np.asarray(right)
    if scores.shape != (n, n) or right.shape != (n, n) or right.dtype != bool:
        raise ValueError(
            f'scores {scores.shape} and right {right.shape} {right.dtype}: expected one row a picture and one column a caption, pair i '
            'in row and column i, and right ones as bool'
        )
    if not at or min(at) < 1 or gallery < 0 or gallery == 1:
        raise ValueError(
            f'at={at}, gallery={gallery}: k is 1 or more, a gallery 2 or more (0: all)'
        )
    right = right | own
    return {
        way: _one_way(s, r, own, at, gallery, any_right, tie)
        for way, s, r in (('image_to_text', scores, right), ('text_to_image', scores.T, right.T))
    }


def share(ranks, wrong, k, gallery):
    """Of each query the chance that its answer is among the best k of `gallery`, the others drawn from its wrong ones; ranks: among all of them."""
    return scipy.stats.hypergeom.cdf(k - 1, wrong, ranks - 1, gallery - 1)


def _one_way(scores, right, own, at, gallery, any_right, tie):
    """Queries are rows."""
    answer = np.where(right if any_right else own, scores, -np.inf).max(1)
    wrong, answers = (~right).sum(1), right.sum(1) if any_right else np.ones(len(scores), int)
    if wrong.min() < gallery - 1:
        raise ValueError(
            f'a gallery of {gallery} needs {gallery - 1} wrong answers, and query {wrong.argmin()} has {wrong.min()}: take more pairs, or '
            'a smaller gallery'
        )
    before = ((scores >= answer[:, None] - tie) & ~right).sum(1)
    pool = np.full(len(scores), gallery - 1) if gallery else wrong  # how many wrong ones are ranked
    found = {'median_rank': float(np.median(before + 1)), 'ranks': before + 1, 'wrong': wrong}
    found |= {f'R@{k}': float(share(before + 1, wrong, k, pool + 1).mean()) for k in at}
    found['chance'] = {
        k: float(
            1
            - scipy.stats.hypergeom.pmf(
                0, pool + answers, answers, np.minimum(k, pool + answers)
            ).mean()
        )
        for k in at
    }
    return found
