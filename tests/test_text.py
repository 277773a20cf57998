"""Characters, words, the vocabulary, and what a person's sentence becomes."""

import json

import numpy as np
import pytest
from absl import logging

from t2i_jax.data import text
from tfds_builders.errors import DataError

CAPTIONS = ['A red bird sits on a branch.', 'the bird is red, and small', 'a small blue bird']


@pytest.fixture
def vocabulary():
    return text.Vocabulary.from_captions(CAPTIONS)


def test_alphabet_has_70_positions_and_the_later_hyphen_counts():
    assert len(text.ALPHABET) == 70 and len(set(text.ALPHABET)) == 69
    ids = text.encode_chars('a-Z 9é!')
    assert ids.tolist()[:7] == [
        1,
        60,
        26,
        70,
        36,
        0,
        41,
    ]  # counted from 1: '-' is 59 and the blank 69 counted from 0
    assert ids.shape == (201,) and ids.dtype == np.int32 and not ids[7:].any()
    assert 37 not in text.encode_chars(text.ALPHABET)


def test_a_text_of_another_script_cannot_be_read():
    texts = ['a', '!', '一只 3', '一只 红色', '  ', '', '红' * 201 + ' a bird']
    codes = np.stack([text.encode_chars(one) for one in texts])
    assert text.readable(codes).tolist() == [True, True, True, False, False, False, False]
    assert text.readable(codes.reshape(7, 1, 201).astype(np.uint8)).shape == (7, 1)


def test_long_text_is_cut_and_odd_characters_are_made_plain():
    assert (text.encode_chars('x' * 500) == 24).all()
    assert text.encode_chars('ａ\u00a0b\ufffd\ufffdc', 5).tolist() == [1, 70, 2, 70, 3]


@pytest.mark.parametrize(
    'sentence, words',
    [
        ('This Flower, with 5 petals!', ['this', 'flower', 'with', '5', 'petals']),
        ('red\ufffd\ufffdwhite\r\n', ['red', 'white']),
        (
            'café–noir  ﬁne',
            ['caf', 'noir', 'fine'],
        ),  # U+2013 separates words; what is not ASCII inside a word is dropped
        ('花', []),
        ('', []),
    ],
)
def test_tokenize(sentence, words):
    assert text.tokenize(sentence) == words


def test_vocabulary_is_ordered_by_frequency_then_alphabet(vocabulary):
    assert vocabulary.words == (
        'a',
        'bird',
        'red',
        'small',
        'and',
        'blue',
        'branch',
        'is',
        'on',
        'sits',
        'the',
    )
    assert len(vocabulary) == 12  # and the padding
    assert text.Vocabulary.from_captions(reversed(CAPTIONS)) == vocabulary


def test_words_become_ids_and_unknown_ones_are_left_out(vocabulary):
    ids, n = vocabulary.encode('A huge RED bird!', 5)
    assert ids.tolist() == [1, 3, 2, 0, 0] and ids.dtype == np.int32 and n == 3
    assert vocabulary.decode(ids) == ['a', 'red', 'bird']
    assert vocabulary.unknown('A huge huge odd bird') == ['huge', 'odd']
    assert vocabulary.encode('a red bird', 2)[1] == 2


def test_save_and_load(vocabulary, tmp_path):
    path = tmp_path / 'vocabulary.json'
    vocabulary.save(path)
    assert json.loads(path.read_text()) == {'words': list(vocabulary.words)}
    assert (
        text.Vocabulary.load(path) == vocabulary
        and text.Vocabulary.load(path).hash == vocabulary.hash
    )
    assert text.Vocabulary(vocabulary.words[::-1]).hash != vocabulary.hash


@pytest.mark.parametrize(
    'content',
    ['', '[]', '{"words": "abc"}', '{"words": [1]}', '{"words": ["a", "a"]}', '{"worte": []}'],
)
def test_a_broken_vocabulary_is_named(tmp_path, content):
    path = tmp_path / 'vocabulary.json'
    path.write_text(content)
    with pytest.raises(DataError, match='vocabulary'):
        text.Vocabulary.load(path)
    with pytest.raises(DataError, match='elsewhere.json'):
        text.Vocabulary.load(tmp_path / 'elsewhere.json')


def test_sentences_become_a_batch(vocabulary, monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, 'warning', lambda message, *args: warnings.append(message % args))
    batch = text.encode_sentences(['a red bird', 'a glossy small bird'], vocabulary, 6)
    assert batch['tokens'].tolist() == [[1, 3, 2, 0, 0, 0], [1, 4, 2, 0, 0, 0]]
    assert batch['length'].tolist() == [3, 3] and batch['chars'].shape == (2, 201)
    assert {a.dtype for a in batch.values()} == {np.dtype(np.int32)}
    assert len(warnings) == 1 and 'glossy' in warnings[0] and 'Sentence 2' in warnings[0]


@pytest.mark.parametrize(
    'sentences, named',
    [
        (['a bird', ' !? '], 'Sentence 2'),
        (['quick fox'], 'quick, fox'),
        ([], 'no sentence'),
        ('', 'Sentence 1'),
    ],
)
def test_a_sentence_without_meaning_is_refused(vocabulary, sentences, named):
    with pytest.raises(DataError, match=named):
        text.encode_sentences(sentences, vocabulary, 6)
