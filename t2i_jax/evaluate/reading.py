"""What can be read from sentence vectors by a linear reader, attribute by attribute.

A generator draws from the vector of a sentence. What a ridge regression, fitted to captions of the
training split, cannot read from the vectors of other captions, no generator will draw: the numbers
of combinations that training never had (`test_unseen` of shape_scenes) tell in seconds what a
training of hours cannot repair.
"""

import numpy as np
import scipy

from tfds_builders.facts import BACKGROUND, CLASS, COLOUR, EXISTS, PLACE, SIZE

# share of the mean square of vectors that is added to the diagonal
RIDGE = 0.01
ATTRIBUTES = 'class', 'colour', 'size', 'place', 'background'


def said(facts) -> dict:
    """Return what captions say of the first object that they describe, and of the background.

    facts: (n, A, 6). Returns {attribute: (n,) int}, -1 where a caption says nothing of it.
    """
    kind = facts[..., 0]
    objects = np.isin(kind, (EXISTS, PLACE))
    first = np.take_along_axis(facts, objects.argmax(1)[:, None, None], 1)[:, 0]
    first = np.where(objects.any(1)[:, None], first, -1)
    grounds = np.where(kind == BACKGROUND, facts[..., 4], -1).max(1)
    place = np.where(first[:, 0] == PLACE, first[:, 5], -1)
    columns = *(first[:, i] for i in (1, 2, 3)), place, grounds
    return dict(zip(ATTRIBUTES, columns))


def found_words(scores, facts, scenes, gallery) -> dict:
    """Return how often the best caption for a picture says what is seen in it, word by word.

    The best of `gallery` captions of other pictures: the mean over all choices of these, computed,
    not drawn. Captions that leave the attribute open are in no gallery.

    scores: (n, n), of picture i and caption j
    facts, scenes: of the n captions and pictures

    Returns {attribute: ((n,), chance)}, `class`, `colour` and `size`, as far as captions say them.
    NaN for pictures whose own caption says nothing of it. chance: of captions of any class, for
    colours and sizes of the picture's own class, since some of both never occur together.
    """
    named, out = said(facts), {}
    objects = scenes[:, :-1]
    kinds = named['class']
    for name, column in (('class', CLASS), ('colour', COLOUR), ('size', SIZE)):
        values = named[name]
        pool = np.flatnonzero(values >= 0)
        m = len(pool) - 1
        if m < gallery:
            continue
        seen = (objects[pool, :, column][:, :, None] == values[pool]).any(1)  # pictures, captions
        others = ~np.eye(m + 1, dtype=bool)
        alike = kinds[pool][:, None] == kinds[pool] if name != 'class' else True
        known = others & alike
        chance = float((seen & known).sum() / max(known.sum(), 1))
        # of each rank, that none of those before it is chosen, and it is
        first = scipy.stats.hypergeom.pmf(0, m, np.arange(m), gallery)
        first *= gallery / (m - np.arange(m))
        ranked = np.argsort(np.where(others, -scores[np.ix_(pool, pool)], np.inf), 1)[:, :m]
        right = np.full(len(values), np.nan)
        right[pool] = np.take_along_axis(seen, ranked, 1) @ first
        out[name] = right, chance
    return out


def told_apart(pictures, sentences, new_pictures, new_sentences):
    """Return whether a linear reader tells vectors of pictures from those of sentences: (m,).

    For each pair the share of its two vectors that it names rightly. The reader is fitted to
    pictures, sentences, (n, d) each.
    """
    x, new = (
        np.concatenate([np.asarray(one, np.float64) for one in pair])
        for pair in ((pictures, sentences), (new_pictures, new_sentences))
    )
    read = ridge(x, np.repeat([-1.0, 1.0], [len(pictures), len(sentences)])[:, None])(new)[:, 0]
    is_sentence = np.repeat([False, True], [len(new_pictures), len(new_sentences)])
    return ((read > 0) == is_sentence).reshape(2, -1).mean(0)


def ridge(x, y):
    """Fit y (n, k) to x (n, d), both minus their means -> a function of vectors (m, d)."""
    mean, centre = x.mean(0), y.mean(0)
    x = x - mean
    covariance = x.T @ x / len(x)
    covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    weights = np.linalg.solve(covariance, x.T @ (y - centre) / len(x))
    return lambda vectors: (vectors - mean) @ weights + centre


def readable(vectors, facts, new_vectors, new_facts) -> dict:
    """Return whether a linear reader finds what captions say, {attribute: (m,)}, NaN if unsaid.

    vectors (n, d), facts (n, A, 6): of the captions that the reader is fitted to. new_vectors,
    new_facts: of m others. A value that no caption of the fit has cannot be found.
    """
    known, asked, out = said(facts), said(new_facts), {}
    vectors, new_vectors = (np.asarray(x, np.float64) for x in (vectors, new_vectors))
    for name, values in known.items():
        there = values >= 0
        kinds = np.unique(values[there])
        if len(kinds) < 2:
            continue
        read = ridge(vectors[there], (values[there][:, None] == kinds).astype(float))
        right = kinds[read(new_vectors).argmax(1)] == asked[name]
        out[name] = np.where(asked[name] >= 0, right, np.nan)
    return out
