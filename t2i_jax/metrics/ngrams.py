"""Variety and likeness of sets of sentences by their n-grams.

A sentence is a string, split at white space, or a list of tokens; use one tokenizer for both sides
of a comparison, since it is half of the result.
"""

import collections
from collections.abc import Iterable, Sequence

import numpy as np

Sentence = str | Sequence[str]


def words(sentence: Sentence) -> list[str]:
    """Split a string at white space; a list of tokens is returned as a list."""
    return sentence.split() if isinstance(sentence, str) else list(sentence)


def ngrams(tokens: Sequence[str], n: int) -> collections.Counter:
    """Count the n-grams (tuples) of a list of tokens."""
    return collections.Counter(zip(*(tokens[i:] for i in range(n))))


def ngrams_up_to(tokens: Sequence[str], n: int) -> list[collections.Counter]:
    """Count the n-grams of 1, 2, ..., n tokens."""
    return [ngrams(tokens, i + 1) for i in range(n)]


def check_lists(hypotheses: Sequence, references: Sequence) -> None:
    """Raise ValueError unless each hypothesis has a list of references, not empty."""
    empty = any(isinstance(own, str) or not len(own) for own in references)
    if len(hypotheses) != len(references) or empty or not len(hypotheses):
        raise ValueError(
            f'{len(hypotheses)} hypotheses and {len(references)} lists of references: '
            'give one list, not empty, for each'
        )


def _frequencies(sentences, n):
    total = collections.Counter()
    for sentence in sentences:
        total.update(ngrams(words(sentence), n))
    if not total:
        raise ValueError(f'no sentence has {n} words: there are no n-grams to count')
    return total


def distinct(sentences: Iterable[Sentence], n: int) -> float:
    """Compute different n-grams / all n-grams of a set (Li et al., NAACL 2016), in (0, 1].

    It falls with the size of the set.
    """
    total = _frequencies(sentences, n)
    return len(total) / total.total()


def unique_share(sentences: Sequence[Sentence]) -> float:
    """Compute different sentences / all sentences."""
    return len({tuple(words(sentence)) for sentence in sentences}) / len(sentences)


def copied_share(sentences: Sequence[Sentence], training: Iterable[Sentence]) -> float:
    """Compute the share of sentences that stand word for word in the training set."""
    known = {tuple(words(sentence)) for sentence in training}
    return sum(tuple(words(sentence)) in known for sentence in sentences) / len(sentences)


def ngram_jsd(first: Iterable[Sentence], second: Iterable[Sentence], n: int) -> float:
    """Compute the Jensen-Shannon divergence of n-gram frequencies of two sets.

    In bits, [0, 1]. As Gulrajani et al., 2017, for characters. Few sentences raise it, the more the
    longer the n-grams: print next to it the value of two halves of the real ones, of the same
    number.
    """
    p, q = _frequencies(first, n), _frequencies(second, n)
    a, b = (np.array([total[gram] for gram in p | q]) / total.total() for total in (p, q))
    middle = (a + b) / 2
    return float(sum((x[x > 0] * np.log2(x[x > 0] / middle[x > 0])).sum() for x in (a, b)) / 2)
