"""R-precision: whether an image finds its own caption (Xu et al., CVPR 2018).

Wrong captions are random; retrieval.py ranks a whole gallery without chance and is to be preferred.
Both are only as honest as the scorer: one that trained the generator flatters it, so report also
the value of a scorer of another seed or kind. A wrong caption that scores as high as the right one
counts before it: a scorer that gives all the same number gets 0.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from t2i_jax.metrics.arrays import Seed, generator, rows, same_width, unit
from t2i_jax.metrics.bootstrap import interval

# cosines closer than this are equal: codes of float32 networks are not more exact
TIE = 1e-6


def r_precision(
    image_codes: ArrayLike, text_codes: ArrayLike, groups: ArrayLike, **options
) -> dict:
    """Compute `r_precision_of` with the cosine of image codes (n, d) and text codes (n, d).

    Row i of one was made from row i of the other. options: those of `r_precision_of`.
    """
    images, texts = unit(image_codes, 'image codes'), unit(text_codes, 'text codes')
    same_width(images.shape[1], texts.shape[1], 'image and text codes')
    options = {'tie': TIE, **options}
    return r_precision_of(lambda i, some: texts[some] @ images[i], groups, **options)


def r_precision_of(
    score: ArrayLike | Callable,
    groups: ArrayLike,
    *,
    negatives: int = 99,
    k: int = 1,
    seed: Seed = 0,
    exclude_same_group: bool = True,
    images: ArrayLike | None = None,
    tie: float = 0.0,
) -> dict:
    """Compute the share of n images whose own text is among the best `k`.

    It is compared with wrong ones.

    score: a matrix (n, n) of image i and text j, or a function of i and an array of numbers of
        texts (c,) -> their scores (c,)
    groups: (n,); texts of image i's group are never wrong for it (birds: the class; COCO: the
        picture that the caption belongs to)
    negatives: number of wrong texts of each image, all distinct
    k: how many of the best texts count
    seed: a number or a generator
    exclude_same_group: False: all texts but its own may be wrong for an image
    images: (n,), the real picture that each caption describes: the interval resamples these (by
        default `groups`)
    tie: scores no further apart than this are equal

    Returns `value`, `interval` (95 %), `chance`, `hits` (bool (n,): folds can be made of them),
    `n`, `negatives`, `k`.

    Raises ValueError where a group leaves fewer than `negatives` wrong texts, and for NaN.
    """
    groups = np.asarray(groups)
    n, random = len(groups), generator(seed)
    score = score if callable(score) else _lookup(score, n)
    if not 1 <= k <= negatives:
        raise ValueError(
            f'k={k} with {negatives} wrong texts: expected 1 or more wrong texts and k from 1 to '
            'their number'
        )
    _, index = np.unique(groups, return_inverse=True)
    if not exclude_same_group:
        index = np.arange(n)
    order, counts = np.argsort(index, kind='stable'), np.bincount(index, minlength=1)
    starts = np.cumsum(counts) - counts
    left = n - counts.max()
    if not n or left < negatives:
        raise ValueError(
            f'{n} texts, {counts.max()} of them of one group, leave {left} wrong ones, and '
            f'{negatives} are needed: take more, or negatives={max(left, 0)}'
        )
    hits = np.zeros(n, bool)
    for i in range(n):
        start, count = starts[index[i]], counts[index[i]]
        wrong = random.choice(n - count, negatives, replace=False)
        # jump over the own group
        wrong = order[wrong + count * (wrong >= start)]
        scores = np.asarray(score(i, np.concatenate([[i], wrong])), np.float64)
        if not np.isfinite(scores).all():
            raise ValueError(f'the scores of image {i} hold NaN or infinity')
        hits[i] = (scores[1:] >= scores[0] - tie).sum() < k
    clusters = groups if images is None else images
    return {
        'value': float(hits.mean()),
        'interval': interval(hits, clusters, seed=seed),
        'chance': k / (negatives + 1),
        'hits': hits,
        'n': n,
        'negatives': negatives,
        'k': k,
    }


def r_precision_pools(
    image_codes: ArrayLike,
    text_codes: ArrayLike,
    groups: ArrayLike,
    *,
    size: int = 100,
    tie: float = TIE,
) -> dict:
    """Compute R-precision as Obj-GAN's code has it: top-1 both ways within pools of pairs.

    Row i of the codes (n, d) are a pair. Pairs are cut into pools in their order, first those that
    are the first of their group, then the second ones, ...: where groups are pictures of several
    captions, a picture is once in a pool. What is left of the last pool has no part. In a pool all
    captions but its own are wrong for a picture, whatever they say, and the other way round.

    Returns `value`, the mean over pools of the mean of both ways, `spread`, its standard deviation
    over pools, `to_text` (a picture finds its caption), `to_image`, `pools`. Raises ValueError for
    fewer than `size` pairs.
    """
    images, texts = unit(image_codes, 'image codes'), unit(text_codes, 'text codes')
    same_width(images.shape[1], texts.shape[1], 'image and text codes')
    groups = np.asarray(groups)
    _, index = np.unique(groups, return_inverse=True)
    order = np.argsort(index, kind='stable')
    starts = np.searchsorted(index[order], index[order])
    turn = np.empty(len(order), int)
    turn[order] = np.arange(len(order)) - starts
    order = np.argsort(turn, kind='stable')
    pools = len(order) // size
    if not pools:
        raise ValueError(f'{len(order)} pairs, and a pool has {size}: take more.')
    ways = []
    for pool in order[: pools * size].reshape(pools, size):
        scores = images[pool] @ texts[pool].T
        first = scores >= np.diagonal(scores)[:, None] - tie, scores >= np.diagonal(scores) - tie
        # of a picture its row, of a caption its column: nothing but its own is as good
        ways.append([(found.sum(axis) == 1).mean() for found, axis in zip(first, (1, 0))])
    ways = np.array(ways)
    return {
        'value': float(ways.mean()),
        'spread': float(ways.mean(1).std()),
        'to_text': float(ways[:, 0].mean()),
        'to_image': float(ways[:, 1].mean()),
        'pools': pools,
    }


def _lookup(scores, n):
    """A function that reads a checked matrix of scores (n, n)."""
    matrix = rows(scores, 'scores', n)
    if matrix.shape != (n, n):
        raise ValueError(
            f'scores {matrix.shape} do not fit {n} groups: expected one row an image, one column a '
            'text'
        )
    return lambda i, texts: matrix[i, texts]
