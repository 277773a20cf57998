"""Sentences to arrays: characters, words, the vocabulary.

The same code in training and sampling.
"""

import hashlib
import json
import pathlib
import re
from collections.abc import Iterable

import numpy as np
from absl import logging

from t2i_jax.runtime.files import read_json, write_text
from tfds_builders.errors import DataError, quoted, short
from tfds_builders.words import ALPHABET, CHARS, MAX_WORDS, count_words, normalise, tokenize

__all__ = [
    'ALPHABET',
    'CHARS',
    'MAX_WORDS',
    'PAD',
    'Vocabulary',
    'encode_chars',
    'encode_sentences',
    'listed',
    'readable',
    'tokenize',
]


# id of padding, for words and characters alike
PAD = 0

# what a blank becomes, which alone says nothing
BLANK = ALPHABET.rfind(' ') + 1
# 0 for what is not in it
_POSITIONS = bytes(ALPHABET.rfind(chr(code)) + 1 for code in range(256))


def encode_chars(text: str, length: int = CHARS) -> np.ndarray:
    """Return positions in ALPHABET, counted from 1 as in Reed's files: (length,) int32, 0..70.

    0 is padding, and what an unknown character becomes (no other character takes its place). What
    exceeds `length` is cut.
    """
    codes = re.sub(r'[^\0-\x7f]', '\0', normalise(text)[:length]).encode()
    return np.frombuffer(codes.translate(_POSITIONS).ljust(length, b'\0'), np.uint8).astype(
        np.int32
    )


def readable(codes: np.ndarray) -> np.ndarray:
    """Return which of the encoded texts (..., length) have more than blanks and unknown characters.

    A text of another script than the alphabet's has nothing else.
    """
    return ((codes != PAD) & (codes != BLANK)).any(-1)


class Vocabulary:
    """The words that a model knows.

    Ids count from 1 in the order of `words`; id 0 is padding, which `len(vocabulary)` counts, too.
    Raises DataError for a word that is repeated.
    """

    def __init__(self, words):
        self.words = tuple(words)
        self._ids = {word: i for i, word in enumerate(self.words, start=1)}
        if len(self._ids) != len(self.words):
            raise DataError(
                'A vocabulary lists each word once; this one repeats some. Build it again from the '
                'training captions.'
            )

    @classmethod
    def from_captions(cls, captions):
        """Build the vocabulary of captions, any iterable of str; give it training captions only.

        It has all their words, by falling frequency, then alphabetically.
        """
        counts = count_words(captions)
        return cls(sorted(counts, key=lambda word: (-counts[word], word)))

    def __len__(self):
        return len(self.words) + 1

    def __eq__(self, other):
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self):
        return hash(self.words)

    @property
    def hash(self) -> str:
        """SHA-256 of the words in their order.

        Two models with equal hashes read a sentence alike.
        """
        return hashlib.sha256('\n'.join(self.words).encode()).hexdigest()

    def save(self, path):
        """Write the vocabulary as JSON."""
        write_text(path, json.dumps({'words': self.words}) + '\n')

    @classmethod
    def load(cls, path):
        """Read a file that `save` wrote.

        Raises DataError where the file is missing or is something else.
        """
        try:
            found = read_json(path)
            words = found.get('words') if isinstance(found, dict) else None
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise ValueError('expected JSON {"words": [...]}')
            return cls(words)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f'There is no vocabulary at {quoted(path)}. Training writes it; point to the '
                'folder of a run.'
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(
                f'{quoted(path)} is not a vocabulary ({short(error)}). Restore it, or resume the '
                f'run, which makes it again: t2i_jax --workdir={quoted(pathlib.Path(path).parent)}.'
            ) from None

    def encode(self, text: str, length: int) -> tuple[np.ndarray, int]:
        """Return the ids of the first `length` known words, and their number.

        Ids are (length,) int32, filled up with 0. Unknown words are left out.
        """
        known = [self._ids[word] for word in tokenize(text) if word in self._ids][:length]
        ids = np.zeros(length, np.int32)
        ids[: len(known)] = known
        return ids, len(known)

    def decode(self, ids) -> list[str]:
        """Return the words of these ids, without padding."""
        return [self.words[i - 1] for i in ids if i != PAD]

    def unknown(self, text: str) -> list[str]:
        """Return the words of a text that are not in the vocabulary, each once, in their order."""
        return [word for word in dict.fromkeys(tokenize(text)) if word not in self._ids]


def listed(sentences) -> list[str]:
    """Return a list of sentences, also of a single one. Raises DataError for none, and no text."""
    several = isinstance(sentences, Iterable) and not isinstance(sentences, (str, bytes))
    found = list(sentences) if several else [sentences]
    if not found:
        raise DataError('There is no sentence to read. Give at least one.')
    for number, sentence in enumerate(found, start=1):
        if not isinstance(sentence, str):
            raise DataError(
                f'Sentence {number} is {short(repr(sentence), 80)}; expected a text, "a red bird".'
            )
    return found


def encode_sentences(
    sentences, vocabulary: Vocabulary, length: int, chars: int = CHARS
) -> dict[str, np.ndarray]:
    """Encode the sentences of a user as batch arrays.

    tokens (B, length), length (B,) and chars (B, chars), all int32.

    Unknown words are left out and named in a warning. Raises DataError for no sentence, an empty
    one, or one without any known word.
    """
    sentences = listed(sentences)
    rows = [
        _encode_sentence(sentence, number, vocabulary, length)
        for number, sentence in enumerate(sentences, start=1)
    ]
    return {
        'tokens': np.stack([ids for ids, _ in rows]),
        'length': np.array([n for _, n in rows], np.int32),
        'chars': np.stack([encode_chars(sentence, chars) for sentence in sentences]),
    }


def _encode_sentence(sentence, number, vocabulary, length):
    if not tokenize(sentence):
        raise DataError(
            f'Sentence {number} ({short(repr(sentence))}) has no words. Write what the picture '
            'shows, in plain letters.'
        )
    ids, n = vocabulary.encode(sentence, length)
    unknown = short(', '.join(vocabulary.unknown(sentence)))
    if not n:
        raise DataError(
            f'The model knows no word of sentence {number} ({short(repr(sentence))}): '
            f'{unknown}. '
            f'Use words of its training captions, such as: {", ".join(vocabulary.words[:10])}.'
        )
    if unknown:
        logging.warning(
            'Sentence %d (%s): the model does not know %s; it is drawn without.',
            number,
            short(repr(sentence)),
            unknown,
        )
    return ids, n
