"""Metrics of sentences.

Values of the specification, properties, and what other tools say (tests/oracles).
"""

import json
import time

import numpy as np
import pytest
from oracles import make_captions

from t2i_jax.metrics.bleu import References, corpus_bleu, self_bleu, sentence_bleu
from t2i_jax.metrics.cider import cider_d, document_frequencies
from t2i_jax.metrics.ngrams import copied_share, distinct, ngram_jsd, unique_share
from t2i_jax.metrics.rouge import rouge_l

REFERENCES = [
    ['a small red bird sits on a green branch', 'a red bird on a branch'],
    ['a large blue circle above a yellow square', 'the blue circle is over the yellow square'],
    ['two white dogs run in the snow', 'a pair of white dogs running in snow'],
]
HYPOTHESES = [
    'a small red bird on a branch',
    'a large blue square above a yellow circle',
    'two dogs run in white snow',
]
OURS = {
    'corpus_bleu': lambda: corpus_bleu(*make_captions.captions()),
    'sentence_bleu': lambda: sentence_bleu(*make_captions.captions())[:, 3],
    'self_bleu': lambda: self_bleu(make_captions.captions(40)[0])[:, 3],
    'rouge_l': lambda: rouge_l(*make_captions.captions()),
    'cider_d': lambda: cider_d(*make_captions.captions()),
}


def ours(name):
    return pytest.approx(list(OURS[name.split('/')[0]]()), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize('name, value', json.loads(make_captions.FILE.read_text()).items())
def test_values_that_other_tools_gave(name, value):
    assert value == ours(name)


@pytest.mark.parametrize('name', make_captions.NAMES)
def test_values_that_other_tools_give(name):
    assert make_captions.oracle(name) == ours(name)


def test_golden_values():
    assert corpus_bleu(HYPOTHESES, REFERENCES) == pytest.approx(
        [1, 0.816497, 0.708439, 0.546024], abs=1e-6
    )
    assert sentence_bleu(HYPOTHESES, REFERENCES).mean(0) == pytest.approx(
        [0.948827, 0.763764, 0.656091, 0.460812], abs=1e-6
    )
    assert self_bleu(HYPOTHESES).mean(0)[1:] == pytest.approx(
        [0.042923, 0.028237, 0.024104], abs=1e-6
    )
    assert rouge_l(HYPOTHESES, REFERENCES) == pytest.approx([1, 0.75, 0.758706], abs=1e-6)
    assert cider_d(HYPOTHESES, REFERENCES) == pytest.approx(
        [5.864733, 3.178845, 2.674616], abs=1e-6
    )
    others = ['a red bird sits on a green branch', 'two white dogs run in snow']
    assert [ngram_jsd(HYPOTHESES[::2], others, n) for n in (1, 2, 3)] == pytest.approx(
        [0.110771, 0.651990, 0.894655], abs=1e-6
    )


def test_tokens_are_sentences_too():
    hypotheses, references = (
        [h.split() for h in HYPOTHESES],
        [[r.split() for r in own] for own in REFERENCES],
    )
    assert corpus_bleu(hypotheses, references) == corpus_bleu(HYPOTHESES, REFERENCES)
    assert (cider_d(hypotheses, references) == cider_d(HYPOTHESES, REFERENCES)).all()


def test_bleu_by_hand():
    assert corpus_bleu(['a b c d'], [['a b c d']]) == [1, 1, 1, 1]
    assert corpus_bleu(['a b'], [['a b c d']], 2) == pytest.approx([np.exp(-1)] * 2)  # short
    assert corpus_bleu(['the the the the'], [['the cat the dog']], 1) == [0.5]  # clipped
    assert corpus_bleu(['a b c'], [['a b', 'a b c d e']], 1) == [
        1
    ]  # of two lengths as close the shorter
    assert corpus_bleu(['a b c'], [['a b', 'a b c d']], 1) == [1]
    assert corpus_bleu(['a b x'], [['a b c d']])[2:] == [0, 0]
    assert sentence_bleu(['x y', ''], [['a b'], ['a b']]).tolist() == [[0] * 4] * 2


def test_bleu_against_one_set_of_references_for_all():
    hypotheses, references = make_captions.captions(40)
    everything = [r for own in references for r in own]
    shared = References(everything, n=5)
    assert corpus_bleu(hypotheses, shared, 5) == corpus_bleu(
        hypotheses, [everything] * len(hypotheses), 5
    )
    assert (
        sentence_bleu(hypotheses, shared)
        == sentence_bleu(hypotheses, [everything] * len(hypotheses))
    ).all()
    with pytest.raises(ValueError, match='n=3'):
        corpus_bleu(hypotheses, References(everything, n=3))


def test_self_bleu_leaves_each_sentence_out():
    sentences = make_captions.captions(30)[0]
    alone = [
        sentence_bleu([own], [sentences[:i] + sentences[i + 1 :]])[0]
        for i, own in enumerate(sentences)
    ]
    assert self_bleu(sentences) == pytest.approx(np.array(alone))
    assert (self_bleu(['a b c d e'] * 3) == 1).all() and self_bleu(['a b c', 'd e f']).max() == 0


def test_many_references_take_no_longer_than_their_words():
    sentences = [
        s for seed in range(20) for own in make_captions.captions(200, seed)[1] for s in own
    ]
    start = time.perf_counter()
    self_bleu(sentences)
    assert len(sentences) > 10_000 and time.perf_counter() - start < 30


def test_rouge_by_hand():
    assert rouge_l(['a b c d'], [['a x c y d z']]) == pytest.approx(
        (1 + 1.44) * 0.75 * 0.5 / (0.5 + 1.44 * 0.75)
    )
    assert rouge_l(['a b', '', 'b a b'], [['c d'], ['c d'], ['a b']]).tolist()[:2] == [0, 0]
    # the largest precision (of the long reference) with the largest recall (of the short one)
    assert (
        rouge_l(
            ['a b c'],
            [
                ['a b c d e f'],
            ],
        )[0]
        < rouge_l(['a b c'], [['a b c d e f', 'a']])[0]
        == 1
    )


def test_cider():
    hypotheses, references = make_captions.captions()
    own = cider_d([r[0] for r in references], [[r[0]] for r in references])
    assert own == pytest.approx(10)
    assert cider_d(hypotheses[:1], references[:1]).tolist() == [0]  # one image: no n-gram is rare
    known = document_frequencies(references)
    assert (
        cider_d(hypotheses[:20], references[:20], known) == cider_d(hypotheses, references)[:20]
    ).all()
    with pytest.raises(ValueError, match='3 hypotheses and 2 lists of references'):
        cider_d(HYPOTHESES, REFERENCES[:2])
    with pytest.raises(ValueError, match='one list of sentences for each'):
        corpus_bleu(HYPOTHESES, ['a b', 'c d', 'e f'])


def test_sets_of_sentences():
    assert ngram_jsd(HYPOTHESES, HYPOTHESES, 2) == 0 and ngram_jsd(['a b'], ['c d'], 1) == 1
    assert distinct(['a b a', 'a b'], 1) == 0.4 and distinct(['a b a', 'a b'], 2) == pytest.approx(
        2 / 3
    )
    assert (
        unique_share(['a', 'b', 'a', 'a']) == 0.5
        and copied_share(['a b', 'c'], ['a b', 'd']) == 0.5
    )
    with pytest.raises(ValueError, match='no sentence has 3 words'):
        distinct(['a b'], 3)
