"""Captions and sentence vectors from the downloads of the first text-to-image papers.

Many people still have them. They are Torch7 files and Python 2 pickles. Archives are read where
they lie, nothing is unpacked, and nothing that a file holds is executed (`foreign/`).
"""

import re
import reprlib
from typing import NamedTuple

import numpy as np

from tfds_builders.class_splits import LISTS
from tfds_builders.errors import DataError, quoted
from tfds_builders.files import HUGE, lines_of, members
from tfds_builders.foreign import pickles, t7
from tfds_builders.words import ALPHABET

# of the char-CNN-RNN encoders of Reed et al.
EMBEDDING = 1024
# numbers of an image: parts of a file may be named again and again, so that a small one stands for
# a huge table
MOST = 1 << 20
# words of a caption
LONGEST = 1000
# letters of a sentence that is cut, to be taken for another one's beginning
TELLING = 20
CLASS_LIST = '|'.join(map(re.escape, LISTS.values()))


class Texts(NamedTuple):
    """Captions and vectors of images by key.

    captions: key of the image -> list of sentences
    embeddings: key -> (n, 1024) float32, row j of sentence j where both are there
    lists: split -> text of the class list
    """

    captions: dict
    embeddings: dict
    lists: dict


def read_icml(path, key, problems=None) -> Texts:
    """Read Reed's X_icml.tar.gz, COCO's train2014_ex_t7, or the folders they unpack to.

    path: they hold a .t7 per image with `char`, `txt` and `img`
    key: a function of a file's path as it stands in the archive
        (flowers_icml/class_00001/image_06734.t7) that gives the key of the image, or None for what
        is not an image of the data set
    problems: a dictionary that collects, by key, why an image's file cannot be read; without it
        such a file raises DataError

    The sentences are those of 201 characters that the encoder read.
    """
    texts, found, splits = Texts({}, {}, {}), False, {file: split for split, file in LISTS.items()}
    for match, data in members(path, rf'[^/]+\.t7|({CLASS_LIST})'):
        name = match.string
        if match[1]:
            texts.lists[splits[match[1]]] = data.decode('utf-8', 'replace')
            continue
        number = key(name)
        if number is None:
            continue
        found = True
        try:
            captions, embedding = _icml_record(t7.loads(data, name), name)
        except DataError as error:
            if problems is None:
                raise
            problems[number] = str(error)
            continue
        _once(texts.embeddings, number, path, name)
        texts.captions[number], texts.embeddings[number] = captions, embedding
    if not found:
        raise DataError(
            f'{quoted(path)} holds no .t7 file of an image of this data set; expected '
            '<class>/<image>.t7 and so on. Fetch it again.'
        )
    return texts


def _icml_record(record, name):
    """Return the sentences (or none) and the vectors of one image."""
    if not isinstance(record, dict) or 'txt' not in record:
        raise DataError(
            f'{name} is not a table with "txt" (and "char"), as the files of the icml archives '
            'are. Fetch it again.'
        )
    embedding = _vectors(record['txt'], name)
    if 'char' not in record:
        return [], embedding
    try:
        chars = _table(record['char'], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f'{name}: "char" is not a table of numbers ({error}). Fetch it again.'
        ) from None
    n = len(embedding)
    if chars.ndim != 2 or n not in chars.shape:
        raise DataError(
            f'{name}: "char" has the shape {chars.shape}; expected characters x {n}, a column for '
            'each row of "txt". Fetch it again.'
        )
    rows = chars.T if chars.shape[1] == n else chars
    # nor NaN
    if not (rows.min() >= 0 and rows.max() <= len(ALPHABET)):
        raise DataError(
            f'{name}: "char" holds {rows.min():g}..{rows.max():g}, and its alphabet '
            f'1..{len(ALPHABET)}. Fetch it again.'
        )
    return [decode_chars(row) for row in rows], embedding


def decode_chars(row) -> str:
    """Return the sentence of positions in the alphabet, counted from 1, up to the first 0."""
    row = np.asarray(row).astype(int)
    end = np.flatnonzero(row == 0)
    return ' '.join(''.join(ALPHABET[i - 1] for i in row[: end[0] if len(end) else None]).split())


def read_stackgan(path, key) -> Texts:
    """Read StackGAN's zip or folder.

    path: it holds {train,test}/{filenames,char-CNN-RNN-embeddings,class_info}.pickle, and captions
        in text_c10/ where they are inside
    key: a function of an image's name as it stands in the files (jpg/image_06734,
        text_c10/class_00001/image_06734.txt), as in `read_icml`

    Raises DataError where the lists do not fit each other.
    """
    texts, parts = Texts({}, {}, {}), {'train': {}, 'test': {}}
    for match, data in members(
        path,
        r'(train|test)/(filenames|char-CNN-RNN-embeddings|class_info)\.pickle'
        r'|text(?:_c10)?/(?:.*/)?[^/]+\.txt',
        HUGE,
    ):
        if match[1]:
            parts[match[1]][match[2]] = pickles.loads(data, match.string)
        elif (number := key(match.string)) is not None:
            texts.captions[number] = lines_of(data)
    given = {split: part for split, part in parts.items() if part}
    if not given:
        raise DataError(
            f'{quoted(path)} holds no train/filenames.pickle or test/filenames.pickle. Fetch it '
            'again.'
        )
    for split, part in given.items():
        names = _names(part, split, path)
        vectors = part.get('char-CNN-RNN-embeddings')
        if vectors is None:
            raise DataError(
                f'{quoted(path)} has {split}/filenames.pickle, but no '
                f'{split}/char-CNN-RNN-embeddings.pickle. Fetch it again.'
            )
        for file, rows in part.items():
            is_list = isinstance(rows, list | tuple) or isinstance(rows, np.ndarray) and rows.ndim
            if not is_list or len(rows) != len(names):
                what = f'{len(rows)} rows' if is_list else 'no rows'
                raise DataError(
                    f'{quoted(path)}: {split}/{file}.pickle has {what}, and '
                    f'{split}/filenames.pickle {len(names)}; row i of the one belongs to row i of '
                    'the other. Fetch both again.'
                )
        for name, rows in zip(names, vectors):
            if (number := key(name)) is not None:
                _once(texts.embeddings, number, path, name)
                texts.embeddings[number] = _vectors(
                    rows, f'{quoted(path)}: {split}/char-CNN-RNN-embeddings.pickle, {name}'
                )
    return texts


def read_attngan(path, key) -> Texts:
    """Read AttnGAN's metadata, a zip or folder.

    path: it holds captions.pickle (train captions, test captions, id -> word, word -> id) with
        {train,test}/filenames.pickle
    key: a function of an image's name in filenames.pickle, as in `read_icml`

    Sentences are its words with blanks between them. Raises DataError where the lists do not fit
    each other.
    """
    found = {}
    for match, data in members(path, r'(?:(train|test)/filenames|(\w*captions))\.pickle'):
        found[match[1] or 'captions'] = pickles.loads(data, match.string)
    if 'captions' not in found:
        raise DataError(
            f'{quoted(path)} holds no captions.pickle. Fetch it again, or put another caption '
            'archive into the manual folder.'
        )
    content = found['captions']
    if (
        not isinstance(content, list | tuple)
        or len(content) != 4
        or not all(isinstance(part, list) for part in content[:2])
        or not isinstance(content[2], dict)
    ):
        raise DataError(
            f'{quoted(path)}: captions.pickle is not [train captions, test captions, id -> word, '
            'word -> id]. Fetch it again.'
        )
    texts, words = Texts({}, {}, {}), content[2]
    for split, captions in zip(('train', 'test'), content):
        if not captions and split not in found:
            continue
        names = _names({'filenames': found.get(split)}, split, path)
        each, rest = divmod(len(captions), max(1, len(names)))
        if rest or not each or not names:
            raise DataError(
                f'{quoted(path)}: captions.pickle has {len(captions)} {split} captions for the '
                f'{len(names)} images of {split}/filenames.pickle; expected the same number for '
                'each. Fetch both again.'
            )
        for i, name in enumerate(names):
            if (number := key(name)) is not None:
                _once(texts.captions, number, path, name)
                texts.captions[number] = [
                    _sentence(ids, words, path) for ids in captions[i * each : (i + 1) * each]
                ]
    return texts


def _sentence(ids, words, path):
    try:
        if len(ids) > LONGEST:
            raise ValueError
        return ' '.join(words[int(i)] for i in ids if int(i))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DataError(
            f'{quoted(path)}: captions.pickle holds the caption {reprlib.repr(ids)}, which is not '
            'a list of ids of its words. Fetch it again.'
        ) from None


def _names(part, split, path):
    names = part.get('filenames')
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f'{quoted(path)}: {split}/filenames.pickle is '
            f'{"missing" if names is None else "not a list of names"}. Fetch it again.'
        )
    return names


def _once(known, number, path, name):
    if number in known:
        raise DataError(
            f'{quoted(path)} holds image {number} twice, the second time as {name}. Fetch it again.'
        )


def _table(rows, dtype):
    """Return an array from an array, or from a list of numbers or of rows of them.

    Raises ValueError, TypeError or OverflowError for anything else.
    """
    if isinstance(rows, list | tuple):
        lists = [row for row in rows if isinstance(row, list | tuple)]
        count = (
            len(rows)
            + sum(map(len, lists))
            + sum(row.size for row in rows if isinstance(row, np.ndarray))
        )
        if count > MOST:
            raise ValueError(f'{count} numbers')
        if any(isinstance(part, list | tuple | dict | np.ndarray) for row in lists for part in row):
            raise ValueError('lists in lists of lists')
    return np.asarray(rows, dtype)


def _vectors(rows, name):
    """Return (n, 1024) float32, from either orientation."""
    try:
        vectors = _table(rows, np.float32)
    except (TypeError, ValueError, OverflowError):
        vectors = np.zeros(0, np.float32)
    if vectors.ndim == 2 and vectors.shape[1] != EMBEDDING and vectors.shape[0] == EMBEDDING:
        vectors = np.ascontiguousarray(vectors.T)
    if vectors.ndim != 2 or vectors.shape[1] != EMBEDDING or not np.isfinite(vectors).all():
        what = (
            f'shape {vectors.shape}'
            if np.isfinite(vectors).all()
            else 'numbers that are not finite'
        )
        raise DataError(
            f'{name}: sentence vectors have {what}; expected captions x {EMBEDDING}. Fetch it '
            'again.'
        )
    return vectors


def align(captions, texts, embedding):
    """Return (captions, vectors) of the same sentences, in the order of the captions.

    captions: n sentences or more, of which those that no vector was made of are left out
    texts: the n sentences that the rows of `embedding` were made of, as far as the encoder read
        them
    embedding: (n, 1024)

    None where the vectors are of other sentences. Only letters and digits are compared.
    """
    have, want = (
        [re.sub('[^a-z0-9]', '', sentence.lower()) for sentence in sentences]
        for sentences in (texts, captions)
    )
    if len(have) != len(embedding) or len(want) < len(have):
        return None
    if any(have) and all(whole.startswith(read) for read, whole in zip(have, want)):
        return captions[: len(have)], embedding
    read, whole = (
        [' '.join(sentence.lower().split()) for sentence in sentences]
        for sentences in (texts, captions)
    )
    row_of, free = {}, list(range(len(have)))
    for same in (
        # two captions may differ in a comma alone
        lambda row, j: read[row] == whole[j],
        lambda row, j: (
            have[row] == want[j] or len(have[row]) >= TELLING and want[j].startswith(have[row])
        ),
    ):
        for j in range(len(want)):
            row = next((row for row in free if same(row, j)), None) if j not in row_of else None
            if row is not None:
                free.remove(row)
                row_of[j] = row
    matched = sorted(row_of)
    return (
        None if free else ([captions[j] for j in matched], embedding[[row_of[j] for j in matched]])
    )
