"""Metrics of sentences against references, and of a set of sentences in itself.

A sentence is a string, split at white space, or a list of tokens; use one tokenizer for both sides, since it is half of the result.
`references` hold one list of sentences for each hypothesis. Where all hypotheses share one set of references ("GAN text BLEU"), pass a
`References` object: its n-gram maxima are counted once, and each hypothesis then costs no more than its own length.
"""

import bisect
import collections
import math

import numpy as np


def words(sentence):
    return sentence.split() if isinstance(sentence, str) else list(sentence)


def ngrams(tokens, n):
    """Counter of the n-grams (tuples) of a list of tokens."""
    return collections.Counter(zip(*(tokens[i:] for i in range(n))))


def _grams_up_to(tokens, n):
    return [ngrams(tokens, i + 1) for i in range(n)]


class References:
    """Sentences that serve as references: for each n-gram its two largest counts and whose the first is, and the sorted lengths."""

    def __init__(self, sentences, n=4):
        self.n, self.most, self.lengths = n, {}, []
        for i, sentence in enumerate(sentences):
            tokens = words(sentence)
            self.lengths.append(len(tokens))
            for gram, count in (
                item for grams in _grams_up_to(tokens, n) for item in grams.items()
            ):
                first, owner, second = self.most.get(gram, (0, -1, 0))
                self.most[gram] = (
                    (count, i, first) if count > first else (first, owner, max(second, count))
                )
        if not self.lengths:
            raise ValueError('no reference: give one sentence or more')
        self.sorted = sorted(self.lengths)

    def matches(self, grams, without=None):
        """How many of the n-grams (a Counter) are in a reference, each at most as often as in one; reference `without` does not count."""
        total = 0
        for gram, count in grams.items():
            first, owner, second = self.most.get(gram, (0, -1, 0))
            total += min(count, second if owner == without else first)
        return total

    def closest(self, length, without=None):
        """The reference length closest to `length`, the shorter of two."""
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
                f'References(..., n={references.n}) hold no n-grams of {n} words: make them with n={n}'
            )
        return [(tokens, references) for tokens in hypotheses]
    if len(hypotheses) != len(references) or any(isinstance(own, str) for own in references):
        raise ValueError(
            f'{len(hypotheses)} hypotheses and {len(references)} lists of references: give one list of sentences for each'
        )
    return [(tokens, References(own, n)) for tokens, own in zip(hypotheses, references)]


def _counts(tokens, references, n, without=None):
    """(matches (n,), n-grams (n,), length, closest reference length)"""
    matches = [references.matches(grams, without) for grams in _grams_up_to(tokens, n)]
    return (
        matches,
        [max(len(tokens) - i, 0) for i in range(n)],
        len(tokens),
        references.closest(len(tokens), without),
    )


def _combine(precisions, length, closest):
    """BLEU-1..n from precisions: brevity penalty times geometric mean of the first of them."""
    if not length or not precisions[0]:
        return [0.0] * len(precisions)
    penalty = min(1.0, math.exp(1 - closest / length))
    logs = np.cumsum([math.log(p) if p else -math.inf for p in precisions])
    return [penalty * math.exp(total / (i + 1)) for i, total in enumerate(logs)]


def corpus_bleu(hypotheses, references, n=4):
    """[BLEU-1, ..., BLEU-n] in [0, 1] of Papineni et al., ACL 2002: matches and lengths added up over all, no smoothing, the closest reference
    length (of two the shorter). 0 from the first order on that has no match.
    """
    counts = [_counts(*pair, n) for pair in _paired(hypotheses, references, n)]
    matches, totals, lengths, closest = (np.sum([c[i] for c in counts], 0) for i in range(4))
    return _combine(
        [m / t if m else 0 for m, t in zip(matches.tolist(), totals.tolist())],
        int(lengths),
        int(closest),
    )


def _smoothed(matches, totals, length, closest):
    """BLEU-1..n of one sentence by method1 of Chen and Cherry, 2014: 0.1 match where an order has none. 0 where no word matches."""
    if not matches[0]:
        return [0.0] * len(matches)
    return _combine([(m or 0.1) / max(t, 1) for m, t in zip(matches, totals)], length, closest)


def sentence_bleu(hypotheses, references, n=4):
    """BLEU-1..n of each sentence, (number, n), smoothed by method1: float64 in [0, 1]."""
    return np.array([_smoothed(*_counts(*pair, n)) for pair in _paired(hypotheses, references, n)])


def self_bleu(sentences, n=4):
    """Each sentence's smoothed BLEU-1..n against all the others, (number, n); lower means more diverse (Zhu et al., SIGIR 2018, but a sentence
    is not its own reference). ValueError for fewer than 2 sentences.
    """
    sentences = [words(sentence) for sentence in sentences]
    if len(sentences) < 2:
        raise ValueError(
            f'self-BLEU compares sentences with each other, and there is {len(sentences)}'
        )
    references = References(sentences, n)
    return np.array(
        [
            _smoothed(*_counts(tokens, references, n, without=i))
            for i, tokens in enumerate(sentences)
        ]
    )


def _frequencies(sentences, n):
    total = collections.Counter()
    for sentence in sentences:
        total.update(ngrams(words(sentence), n))
    if not total:
        raise ValueError(f'no sentence has {n} words: there are no n-grams to count')
    return total


def distinct(sentences, n):
    """Different n-grams / all n-grams of a set of sentences (Li et al., NAACL 2016), in (0, 1]; it falls with the size of the set."""
    total = _frequencies(sentences, n)
    return len(total) / total.total()


def unique_share(sentences):
    """Different sentences / all sentences."""
    return len({tuple(words(sentence)) for sentence in sentences}) / len(sentences)


def copied_share(sentences, training):
    """Share of sentences that stand word for word in the training set."""
    known = {tuple(words(sentence)) for sentence in training}
    return sum(tuple(words(sentence)) in known for sentence in sentences) / len(sentences)


def ngram_jsd(first, second, n):
    """Jensen-Shannon divergence in bits, [0, 1], of the n-gram frequencies of two sets of sentences (as Gulrajani et al., 2017, for characters).

    Few sentences raise it, the more the longer the n-grams: print two halves of the real ones at the same number beside it.
    """
    p, q = _frequencies(first, n), _frequencies(second, n)
    a, b = (np.array([total[gram] for gram in p | q]) / total.total() for total in (p, q))
    middle = (a + b) / 2
    return float(sum((x[x > 0] * np.log2(x[x > 0] / middle[x > 0])).sum() for x in (a, b)) / 2)


def _common(a, b):
    """Length of the longest common subsequence of two lists of tokens, by the bits of one number (Hyyro, 2004)."""
    places = collections.defaultdict(int)
    for i, token in enumerate(a):
        places[token] |= 1 << i
    free = everything = (1 << len(a)) - 1
    for token in b:
        taken = free & places[token]
        free = ((free + taken) | (free - taken)) & everything
    return len(a) - free.bit_count()


def rouge_l(hypotheses, references, beta=1.2):
    """ROUGE-L (Lin, 2004) of each sentence, float64 in [0, 1]: F of the largest precision and the largest recall over its references."""
    scores = []
    for hypothesis, own in zip(hypotheses, _lists(hypotheses, references)):
        tokens, own = words(hypothesis), [words(reference) for reference in own]
        common = [_common(tokens, reference) for reference in own]
        precision = max(common) / max(len(tokens), 1)
        recall = max(c / max(len(reference), 1) for c, reference in zip(common, own))
        scores.append(
            (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
            if precision
            else 0.0
        )
    return np.array(scores)


def _lists(hypotheses, references):
    if (
        len(hypotheses) != len(references)
        or any(isinstance(own, str) or not len(own) for own in references)
        or not len(hypotheses)
    ):
        raise ValueError(
            f'{len(hypotheses)} hypotheses and {len(references)} lists of references: give one list, not empty, for each'
        )
    return references


def document_frequencies(references, n=4):
    """(Counter, number): in the references of how many images each n-gram of 1..n words stands, and how many images there are."""
    frequencies = collections.Counter()
    for own in references:
        frequencies.update(
            {
                gram
                for reference in own
                for grams in _grams_up_to(words(reference), n)
                for gram in grams
            }
        )
    return frequencies, len(references)


def cider_d(hypotheses, references, frequencies=None, n=4, sigma=6.0):
    """CIDEr-D (Vedantam et al., CVPR 2015) of each sentence, float64 in [0, 10], as the public scorer of COCO captions has it.

    That is without stemming, and with the number of bigrams for a length in the Gaussian penalty. frequencies: `document_frequencies` of a
    larger set; unless given those of `references`, and then scores of a part of a set do not compare with those of the whole, and a single
    image has 0.
    """
    known, images = frequencies or document_frequencies(_lists(hypotheses, references), n)

    def vectors(sentence):
        orders = _grams_up_to(words(sentence), n)
        weights = [
            {
                gram: count * (math.log(images) - math.log(max(1, known[gram])))
                for gram, count in grams.items()
            }
            for grams in orders
        ]
        return (
            weights,
            [math.sqrt(sum(w * w for w in order.values())) for order in weights],
            orders[1].total() if n > 1 else 0,
        )

    def similarity(one, other):
        total = 0.0
        for a, b, norm_a, norm_b in zip(one[0], other[0], one[1], other[1]):
            if norm_a and norm_b:
                total += sum(min(w, b[gram]) * b[gram] for gram, w in a.items() if gram in b) / (
                    norm_a * norm_b
                )
        return total / n * math.exp(-((one[2] - other[2]) ** 2) / (2 * sigma**2))

    scores = []
    for hypothesis, own in zip(hypotheses, _lists(hypotheses, references)):
        vector = vectors(hypothesis)
        scores.append(
            10 * sum(similarity(vector, vectors(reference)) for reference in own) / len(own)
        )
    return np.array(scores)
