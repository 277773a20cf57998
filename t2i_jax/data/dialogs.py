"""Dialogues of a user: files, or lists of rounds (question, answer), as ids of words.

A file has a line for each round,

    what colour is the ring? red

or JSON: [["what colour is the ring", "red"], ...].
"""

import json
import os
import pathlib

import numpy as np
from absl import logging

from t2i_jax.runtime.errors import DataError, quoted, short
from tfds_builders.files import read_text

# rounds of a dialogue, and words of one question with its answer
ROUNDS, ROUND_WORDS = 10, 24
FORM = 'write lines "question? answer", or JSON [["question", "answer"], ...]'


def read_dialogs(values, vocabulary) -> dict:
    """Read dialogues -> {'dialog': (n, ROUNDS, ROUND_WORDS), 'dialog_length': (n, ROUNDS)}, int32.

    values: files, or lists of rounds; one of them may stand alone. An empty list is a dialogue
      without a round.

    More rounds than ROUNDS are left out, with a warning, and so are unknown words. Raises DataError
    for a round without an answer, and for a dialogue without any known word.
    """
    if isinstance(values, (str, os.PathLike)) or is_dialog(values):
        values = [values]
    if not len(values):
        raise DataError('There is no dialogue: give at least one.')
    ids = np.zeros((len(values), ROUNDS, ROUND_WORDS), np.int32)
    for number, one in enumerate(values):
        is_file = isinstance(one, (str, os.PathLike))
        where = quoted(one) if is_file else f'dialogue {number + 1}'
        rounds = rounds_of(read_file(one) if is_file else one, where)
        encode(rounds, where, vocabulary, ids[number])
    return {'dialog': ids, 'dialog_length': (ids > 0).sum(-1).astype(np.int32)}


def is_dialog(values):
    """Whether a list is one dialogue: its entries are pairs of texts."""
    return len(values) > 0 and all(
        isinstance(one, (list, tuple)) and len(one) and isinstance(one[0], str) for one in values
    )


def read_file(path):
    """Read the rounds of a file: a list, not yet checked. Raises DataError."""
    text = read_text(pathlib.Path(path)).strip()
    if not text:
        raise DataError(f'{quoted(path)} is empty: {FORM}.')
    if text[0] in '[{':
        try:
            return json.loads(text)
        except ValueError as error:
            raise DataError(f'{quoted(path)} is not JSON ({short(error)}): {FORM}.') from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [line.partition('?')[::2] if '?' in line else (line,) for line in lines]


def rounds_of(found, where) -> list[str]:
    """Check rounds -> the texts, question and answer of each. Raises DataError."""
    if not isinstance(found, (list, tuple)):
        raise DataError(f'{where} is not a list of rounds: {FORM}.')
    texts = []
    for number, one in enumerate(found, start=1):
        pair = isinstance(one, (list, tuple)) and all(isinstance(text, str) for text in one)
        if not pair or len(one) != 2 or not all(text.strip() for text in one):
            raise DataError(
                f'Round {number} of {where} ({short(repr(one))}) is not a question with its '
                f'answer: {FORM}.'
            )
        texts.append(f'{one[0]} {one[1]}')
    return texts


def encode(texts, where, vocabulary, out):
    """Write the ids of rounds into out (ROUNDS, ROUND_WORDS). Raises DataError for none."""
    if len(texts) > ROUNDS:
        logging.warning('%s has %d rounds; the first %d are read.', where, len(texts), ROUNDS)
    unknown = dict.fromkeys(word for text in texts for word in vocabulary.unknown(text))
    for row, text in zip(out, texts):
        row[:] = vocabulary.encode(text, ROUND_WORDS)[0]
    if texts and not out.any():
        raise DataError(
            f'The model knows no word of {where} ({short(", ".join(unknown))}). Use words of its '
            f'training dialogues, such as: {", ".join(vocabulary.words[:10])}.'
        )
    if unknown:
        logging.warning(
            '%s: the model does not know %s; it is drawn without.', where, short(', '.join(unknown))
        )
