"""Does an image find its own caption among others, and a caption its image?

`r_precision` (Xu et al., CVPR 2018) draws wrong captions at random; `retrieval` ranks a whole gallery, needs no draws, and is to be preferred.
Both are only as honest as the scorer: one that trained the generator flatters it, so report one of another seed or kind beside it. A wrong one
that scores as high as the right one counts before it: a scorer that gives all the same number gets 0.
"""

import numpy as np

from t2i_jax.metrics.arrays import blocks, generator, rows, same_width
from t2i_jax.metrics.bootstrap import interval

TIE = 1e-6  # cosines closer than this are equal: codes of float32 networks are no more exact
BLOCK = 512


def unit(codes, name='codes'):
    """Rows of (n, d) divided by their lengths. ValueError for a row of zeros."""
    codes = rows(codes, name)
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(
            f'{name}: row {int(np.argmin(lengths))} is all zeros, and zero has no direction'
        )
    return codes / lengths


def _codes(image_codes, text_codes):
    images, texts = unit(image_codes, 'image codes'), unit(text_codes, 'text codes')
    same_width(images.shape[1], texts.shape[1], 'image and text codes')
    return images, texts


def r_precision(
    image_codes,
    text_codes,
    groups,
    *,
    negatives=99,
    k=1,
    seed=0,
    exclude_same_group=True,
    images=None,
):
    """`r_precision_of` with the cosine of image codes (n, d) and text codes (n, d): row i of one was made from row i of the other."""
    image_codes, text_codes = _codes(image_codes, text_codes)
    return r_precision_of(
        lambda i, texts: text_codes[texts] @ image_codes[i],
        groups,
        negatives=negatives,
        k=k,
        seed=seed,
        exclude_same_group=exclude_same_group,
        images=images,
        tie=TIE,
    )


def r_precision_of(
    score, groups, *, negatives=99, k=1, seed=0, exclude_same_group=True, images=None, tie=0.0
):
    """Share of n images whose own text is among the best `k` of itself and `negatives` wrong ones -> dict.

    score: a matrix (n, n) of image i and text j, or a function of i and an array of numbers of texts (c,) -> their scores (c,).
    groups: (n,), texts of image i's group are never wrong for it (birds: the class; COCO: the picture that the caption belongs to); with
    `exclude_same_group=False` all texts but its own may be. The wrong ones of an image are distinct. images: (n,), which real picture each
    caption describes: the interval resamples these (`groups` unless given). tie: scores no further apart are equal.
    Returns `value`, `interval` (95 %), `chance`, `hits` (bool (n,): folds can be made of them), `n`, `negatives`, `k`.
    Raises ValueError where a group leaves fewer than `negatives` wrong texts, and for NaN.
    """
    groups = np.asarray(groups)
    n, random = len(groups), generator(seed)
    if not callable(score):
        matrix = rows(score, 'scores', n)
        if matrix.shape != (n, n):
            raise ValueError(
                f'scores {matrix.shape} do not fit {n} groups: expected one row an image, one column a text'
            )
        score = lambda i, texts: matrix[i, texts]  # noqa: E731
    if not 1 <= k <= negatives:
        raise ValueError(
            f'k={k} with {negatives} wrong texts: expected 1 or more wrong texts and k from 1 to their number'
        )
    _, index = np.unique(groups, return_inverse=True)
    if not exclude_same_group:
        index = np.arange(n)
    order, counts = np.argsort(index, kind='stable'), np.bincount(index, minlength=1)
    starts = np.cumsum(counts) - counts
    if not n or n - counts.max() < negatives:
        left = n - counts.max()
        raise ValueError(
            f'{n} texts, {counts.max()} of them of one group, leave {left} wrong ones, and {negatives} are needed: take more, or '
            f'negatives={max(left, 0)}'
        )
    hits = np.zeros(n, bool)
    for i in range(n):
        start, count = starts[index[i]], counts[index[i]]
        wrong = random.choice(n - count, negatives, replace=False)
        wrong = order[wrong + count * (wrong >= start)]  # jump over the own group
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


def retrieval(image_codes, text_codes, owner=None, *, at=(1, 5, 10)):
    """`retrieval_of` with the cosine of image codes (n, d) and text codes (m, d), in blocks."""
    image_codes, text_codes = _codes(image_codes, text_codes)
    owner = _owner(owner, len(image_codes), len(text_codes))
    best = np.full(len(image_codes), -np.inf)
    np.maximum.at(best, owner, (image_codes[owner] * text_codes).sum(1))
    own = (image_codes[owner] * text_codes).sum(1)
    to_text, to_image = np.zeros(len(image_codes), int), np.zeros(len(text_codes), int)
    for part in blocks(len(image_codes), BLOCK):
        scores, mine = (
            image_codes[part] @ text_codes.T,
            np.arange(part.start, part.stop)[:, None] == owner,
        )
        to_text[part] = ((scores >= best[part, None] - TIE) & ~mine).sum(1)
        to_image += ((scores >= own - TIE) & ~mine).sum(0)
    return _ranks(to_text[np.bincount(owner, minlength=len(image_codes)) > 0] + 1, to_image + 1, at)


def retrieval_of(scores, owner=None, *, at=(1, 5, 10), tie=0.0):
    """Ranks in the whole gallery, both ways, from scores (n, m) of images and texts -> dict.

    owner: (m,), the image of each text (text j belongs to image j unless given); an image may have several texts, and the best of them counts;
    one without a text is no query but stays in the gallery.
    Returns `image_to_text` and `text_to_image`, each with `R@1`, `R@5`, `R@10` (shares), `median_rank` (1 is best), and `ranks`.
    """
    scores = rows(scores, 'scores')
    owner = _owner(owner, *scores.shape)
    mine = np.arange(len(scores))[:, None] == owner
    own = scores[owner, np.arange(len(owner))]
    to_text = ((scores >= np.where(mine, scores, -np.inf).max(1, keepdims=True) - tie) & ~mine).sum(
        1
    )
    to_image = ((scores >= own - tie) & ~mine).sum(0)
    return _ranks(to_text[mine.any(1)] + 1, to_image + 1, at)


def _owner(owner, n, m):
    if owner is None and n != m:
        raise ValueError(
            f'{n} images and {m} texts: say with `owner` which image each text belongs to'
        )
    owner = np.arange(m) if owner is None else np.asarray(owner)
    if owner.shape != (m,) or not m or owner.min() < 0 or owner.max() >= n:
        raise ValueError(
            f'owner {owner.shape} of {m} texts must name an image, 0 to {n - 1}, for each'
        )
    return owner


def _ranks(to_text, to_image, at):
    return {
        way: {
            **{f'R@{k}': float((ranks <= k).mean()) for k in at},
            'median_rank': float(np.median(ranks)),
            'ranks': ranks,
        }
        for way, ranks in (('image_to_text', to_text), ('text_to_image', to_image))
    }
