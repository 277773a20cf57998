"""BLEU of sentences against references, and self-BLEU of a set.

`references` hold one list of sentences for each hypothesis. Where all hypotheses share one set of
references ("GAN text BLEU"), pass a `References` object: its n-gram maxima are counted once, and
each hypothesis then costs no more than its own length. Sentences are those of ngrams.py.
"""

import bisect
import collections
import math
from collections.abc import Iterable, Sequence

import numpy as np

from t2i_jax.metrics.ngrams import Sentence, ngrams_up_to, words


class References:
    """Reference sentences, counted once.

    most: n-gram -> (its largest count, number of that sentence, its second largest count)
    lengths: of the sentences, in tokens
    sorted: the same in order
    """

    def __init__(self, sentences: Iterable[Sentence], n: int = 4):
        self.n, self.most, self.lengths = n, {}, []
        for i, sentence in enumerate(sentences):
            tokens = words(sentence)
            self.lengths.append(len(tokens))
            for grams in ngrams_up_to(tokens, n):
                for gram, count in grams.items():
                    self._count(gram, count, i)
        if not self.lengths:
            raise ValueError('no reference: give one sentence or more')
        self.sorted = sorted(self.lengths)

    def _count(self, gram, count, i):
        first, owner, second = self.most.get(gram, (0, -1, 0))
        larger = (count, i, first) if count > first else (first, owner, max(second, count))
        self.most[gram] = larger

    def matches(self, grams: collections.Counter, without: int | None = None) -> int:
        """Count the n-grams that are in a reference, each at most as often as in one reference.

        without: number of a reference that does not count
        """
        total = 0
        for gram, count in grams.items():
            first, owner, second = self.most.get(gram, (0, -1, 0))
            total += min(count, second if owner == without else first)
        return total

    def closest(self, length: int, without: int | None = None) -> int:
        """Find the reference length closest to `length`, of two the shorter."""
        at = bisect.bisect_left(self.sorted, length)
        near = collections.Counter(self.sorted[max(at - 2, 0) : at + 2])
        if without is not None:
            near[self.lengths[without]] -= 1
        return min((abs(other - length), other) for other, count in near.items() if count > 0)[1]


def _paired(hypotheses, references, n):
    """(tokens, References) of each hypothesis."""
    hypotheses = [words(sentence) for sentence in hypotheses]
    if not hypotheses:
        raise ValueError('no hypothesis: give one sentence or more')
    if isinstance(references, References):
        if references.n < n:
            raise ValueError(
                f'References(..., n={references.n}) hold no n-grams of {n} words: '
                f'make them with n={n}'
            )
        return [(tokens, references) for tokens in hypotheses]
    if len(hypotheses) != len(references) or any(isinstance(own, str) for own in references):
        raise ValueError(
            f'{len(hypotheses)} hypotheses and {len(references)} lists of references: '
            'give one list of sentences for each'
        )
    return [(tokens, References(own, n)) for tokens, own in zip(hypotheses, references)]


def _counts(tokens, references, n, without=None):
    """Count -> (matches (n,), n-grams (n,), length, closest reference length)."""
    matches = [references.matches(grams, without) for grams in ngrams_up_to(tokens, n)]
    totals = [max(len(tokens) - i, 0) for i in range(n)]
    return matches, totals, len(tokens), references.closest(len(tokens), without)


def _combine(precisions, length, closest):
    """Compute BLEU-1..n: brevity penalty times the geometric mean of the first precisions."""
    if not length or not precisions[0]:
        return [0.0] * len(precisions)
    penalty = min(1.0, math.exp(1 - closest / length))
    logs = np.cumsum([math.log(p) if p else -math.inf for p in precisions])
    return [penalty * math.exp(total / (i + 1)) for i, total in enumerate(logs)]


def _smoothed(matches, totals, length, closest):
    """BLEU-1..n of one sentence by method1 of Chen and Cherry, 2014.

    0.1 match where an order has none; 0 where no word matches.
    """
    if not matches[0]:
        return [0.0] * len(matches)
    return _combine([(m or 0.1) / max(t, 1) for m, t in zip(matches, totals)], length, closest)


def corpus_bleu(
    hypotheses: Sequence[Sentence], references: Sequence | References, n: int = 4
) -> list[float]:
    """Compute [BLEU-1, ..., BLEU-n] of a set of sentences, each in [0, 1].

    Papineni et al., ACL 2002: matches and lengths are added up over all, no smoothing, the closest
    reference length (of two the shorter). 0 from the first order on that has no match.
    """
    counts = [_counts(*pair, n) for pair in _paired(hypotheses, references, n)]
    matches, totals, lengths, closest = (np.sum([c[i] for c in counts], 0) for i in range(4))
    precisions = [m / t if m else 0 for m, t in zip(matches.tolist(), totals.tolist())]
    return _combine(precisions, int(lengths), int(closest))


def sentence_bleu(
    hypotheses: Sequence[Sentence], references: Sequence | References, n: int = 4
) -> np.ndarray:
    """Compute BLEU-1..n of each sentence, smoothed -> float64 (number, n) in [0, 1].

    By method1 of Chen and Cherry, 2014.
    """
    return np.array([_smoothed(*_counts(*pair, n)) for pair in _paired(hypotheses, references, n)])


def self_bleu(sentences: Sequence[Sentence], n: int = 4) -> np.ndarray:
    """Compute each sentence's smoothed BLEU-1..n against all the others -> (number, n).

    Lower means more diverse (Zhu et al., SIGIR 2018, but a sentence is not its own reference).

    Raises ValueError for fewer than 2 sentences.
    """
    sentences = [words(sentence) for sentence in sentences]
    if len(sentences) < 2:
        raise ValueError(
            f'self-BLEU compares sentences with each other, and there is {len(sentences)}'
        )
    references = References(sentences, n)
    counts = (_counts(tokens, references, n, without=i) for i, tokens in enumerate(sentences))
    return np.array([_smoothed(*one) for one in counts])
