"""ROUGE-L of sentences against references (Lin, 2004). Sentences are those of ngrams.py."""

import collections
from collections.abc import Sequence

import numpy as np

from t2i_jax.metrics.ngrams import Sentence, check_lists, words


def rouge_l(
    hypotheses: Sequence[Sentence], references: Sequence[Sequence[Sentence]], beta: float = 1.2
) -> np.ndarray:
    """Compute ROUGE-L of each sentence -> float64 (number,) in [0, 1].

    F of the largest precision and the largest recall over the references of the sentence.

    references: a list, not empty, for each hypothesis
    beta: weight of recall over precision
    """
    check_lists(hypotheses, references)
    scores = []
    for hypothesis, own in zip(hypotheses, references):
        tokens, own = words(hypothesis), [words(reference) for reference in own]
        common = [_common(tokens, reference) for reference in own]
        p = max(common) / max(len(tokens), 1)
        r = max(c / max(len(reference), 1) for c, reference in zip(common, own))
        scores.append((1 + beta**2) * p * r / (r + beta**2 * p) if p else 0.0)
    return np.array(scores)


def _common(a, b):
    """Length of the longest common subsequence, by the bits of one number (Hyyro, 2004)."""
    places = collections.defaultdict(int)
    for i, token in enumerate(a):
        places[token] |= 1 << i
    free = everything = (1 << len(a)) - 1
    for token in b:
        taken = free & places[token]
        free = ((free + taken) | (free - taken)) & everything
    return len(a) - free.bit_count()
