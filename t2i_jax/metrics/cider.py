"""CIDEr-D of sentences against references (Vedantam et al., CVPR 2015).

As the public scorer of COCO captions computes it: without stemming, and with the number of bigrams
for a length in the Gaussian penalty. Sentences are those of ngrams.py.
"""

import collections
import math
from collections.abc import Sequence

import numpy as np

from t2i_jax.metrics.ngrams import Sentence, check_lists, ngrams_up_to, words


def document_frequencies(
    references: Sequence[Sequence[Sentence]], n: int = 4
) -> tuple[collections.Counter, int]:
    """Count in the references of how many images each n-gram of 1..n words stands.

    -> (Counter, number of images)
    """
    frequencies = collections.Counter()
    for own in references:
        counters = (grams for reference in own for grams in ngrams_up_to(words(reference), n))
        frequencies.update({gram for grams in counters for gram in grams})
    return frequencies, len(references)


def cider_d(
    hypotheses: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    frequencies: tuple[collections.Counter, int] | None = None,
    n: int = 4,
    sigma: float = 6.0,
) -> np.ndarray:
    """Compute CIDEr-D of each sentence -> float64 (number,) in [0, 10].

    hypotheses: sentences
    references: a list, not empty, for each hypothesis
    frequencies: `document_frequencies` of a larger set, by default those of `references`: then
        scores of a part of a set do not compare with those of the whole, and a single image has 0
    n: longest n-grams
    sigma: of the Gaussian penalty for another length
    """
    check_lists(hypotheses, references)
    known, images = frequencies or document_frequencies(references, n)

    def weigh(grams):
        """Weights of term frequency times inverse document frequency."""
        return {
            gram: count * (math.log(images) - math.log(max(1, known[gram])))
            for gram, count in grams.items()
        }

    def vectors(sentence):
        """Compute (weights of each order, their norms, number of bigrams)."""
        orders = ngrams_up_to(words(sentence), n)
        weights = [weigh(grams) for grams in orders]
        norms = [math.sqrt(sum(w * w for w in order.values())) for order in weights]
        return weights, norms, orders[1].total() if n > 1 else 0

    def similarity(one, other):
        total = 0.0
        for a, b, norm_a, norm_b in zip(one[0], other[0], one[1], other[1]):
            if norm_a and norm_b:
                product = sum(min(w, b[gram]) * b[gram] for gram, w in a.items() if gram in b)
                total += product / (norm_a * norm_b)
        return total / n * math.exp(-((one[2] - other[2]) ** 2) / (2 * sigma**2))

    scores = []
    for hypothesis, own in zip(hypotheses, references):
        vector = vectors(hypothesis)
        total = sum(similarity(vector, vectors(reference)) for reference in own)
        scores.append(10 * total / len(own))
    return np.array(scores)
