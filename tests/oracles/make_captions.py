"""What other tools say about seeded captions. Writes captions.json, which the tests read where the
tools are not installed:

pip install -e .[oracles] && PYTHONPATH=tests python -m oracles.make_captions
"""

import json
import logging
import pathlib

import numpy as np
import pytest

FILE = pathlib.Path(__file__).with_name('captions.json')


def captions(images=150, seed=0):
    """(hypotheses, references): sentences of a small vocabulary, 1 to 5 references an image, of
    different lengths, some sharing a beginning.
    """
    random = np.random.default_rng(seed)
    vocabulary = np.array([*'abcdefghijklmnopqrs'])

    def sentence(start=()):
        return ' '.join(
            [*start, *random.choice(vocabulary, random.integers(4, 15), p=np.arange(1, 20) / 190)]
        )

    references = [[sentence() for _ in range(random.integers(1, 6))] for _ in range(images)]
    hypotheses = [sentence(own[0].split()[: random.integers(0, 8)]) for own in references]
    hypotheses[0], hypotheses[1] = references[0][0], 'nothing matches these four words'
    return hypotheses, references


def sacrebleu_corpus(n=4):
    sacrebleu = pytest.importorskip('sacrebleu')
    hypotheses, references = captions()
    longest = max(map(len, references))
    columns = [[own[i] if i < len(own) else None for own in references] for i in range(longest)]
    return [
        sacrebleu.metrics.BLEU(max_ngram_order=i, smooth_method='none', tokenize='none', force=True)
        .corpus_score(hypotheses, columns)
        .score
        / 100
        for i in range(1, n + 1)
    ]


def sacrebleu_sentences():
    """Zero matches replaced by 0.1, as method1 does."""
    sacrebleu = pytest.importorskip('sacrebleu')
    logging.getLogger('sacrebleu').setLevel(
        logging.ERROR
    )  # it recommends another convention for every sentence
    tool = sacrebleu.metrics.BLEU(
        smooth_method='floor', smooth_value=0.1, tokenize='none', effective_order=False
    )
    return [tool.sentence_score(*pair).score / 100 for pair in zip(*captions())]


def nltk_bleu():
    pytest.importorskip('nltk')
    from nltk.translate import bleu_score

    return bleu_score


def split(hypotheses, references):
    return [[r.split() for r in own] for own in references], [h.split() for h in hypotheses]


def nltk_corpus():
    tool = nltk_bleu()
    return [tool.corpus_bleu(*split(*captions()), weights=[1 / n] * n) for n in range(1, 5)]


def nltk_sentences():
    tool = nltk_bleu()
    method = tool.SmoothingFunction().method1
    return [
        tool.sentence_bleu(own, tokens, smoothing_function=method)
        for own, tokens in zip(*split(*captions()))
    ]


def nltk_self_bleu():
    tool = nltk_bleu()
    method, sentences = tool.SmoothingFunction().method1, [h.split() for h in captions(40)[0]]
    return [
        tool.sentence_bleu(sentences[:i] + sentences[i + 1 :], own, smoothing_function=method)
        for i, own in enumerate(sentences)
    ]


def coco(name):
    pytest.importorskip('pycocoevalcap')
    hypotheses, references = captions()
    results, truths = {i: [h] for i, h in enumerate(hypotheses)}, dict(enumerate(references))
    if name == 'cider':
        from pycocoevalcap.cider.cider import Cider

        return Cider().compute_score(truths, results)[1].tolist()
    if name == 'rouge':
        from pycocoevalcap.rouge.rouge import Rouge

        return Rouge().compute_score(truths, results)[1].tolist()
    from pycocoevalcap.bleu.bleu import Bleu

    return list(Bleu(4).compute_score(truths, results, verbose=0)[0])


ORACLES = {
    'corpus_bleu': {
        'sacrebleu': sacrebleu_corpus,
        'nltk': nltk_corpus,
        'pycocoevalcap': lambda: coco('bleu'),
    },
    'sentence_bleu': {'sacrebleu': sacrebleu_sentences, 'nltk': nltk_sentences},
    'self_bleu': {'nltk': nltk_self_bleu},
    'rouge_l': {'pycocoevalcap': lambda: coco('rouge')},
    'cider_d': {'pycocoevalcap': lambda: coco('cider')},
}
NAMES = [f'{metric}/{tool}' for metric, tools in ORACLES.items() for tool in tools]


def oracle(name):
    metric, tool = name.split('/')
    return ORACLES[metric][tool]()


if __name__ == '__main__':
    FILE.write_text(
        json.dumps({name: [round(float(x), 12) for x in oracle(name)] for name in NAMES}, indent=1)
        + '\n'
    )
