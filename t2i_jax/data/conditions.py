"""The kinds of conditions, and how those of a user become batch arrays.

One table, CONDITIONS, serves the command line, the sampler, the training grid and explorations.
parse.py reads what a user writes.
"""

import os
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from t2i_jax.data.canvas import read_picture, squashed
from t2i_jax.data.dialogs import read_dialogs
from t2i_jax.data.layouts import read_layouts
from t2i_jax.data.parse import (
    SHOWN,
    filled,
    given_layouts,
    label_sets,
    read_attributes,
    sentences_as_attributes,
    sentences_as_labels,
)
from t2i_jax.data.text import encode_sentences, listed
from t2i_jax.runtime.errors import DataError, reason, short


class Condition(NamedTuple):
    """One kind of condition.

    keys: the batch keys that carry it.
    read: (values, Context) -> {batch key: (n, num, ...)}.
    flag: of the command line, '' where there is none.
    from_sentences: whether sentences can give it, for systems that do not read text.
    names: field of Meta with the names that a user may write.
    captions: (batch, meta) -> a caption for each row, or None.
    """

    keys: tuple[str, ...]
    read: Callable
    flag: str = ''
    from_sentences: bool = False
    names: str = ''
    captions: Callable | None = None


class Context(NamedTuple):
    """The context of reading conditions: the data, the run's words, samples of each, the seed."""

    meta: NamedTuple
    vocabulary: object
    num: int
    seed: int


class FromSentences(list):
    """Sentences in which another condition is to be read."""

    def __init__(self, sentences):
        super().__init__(listed(sentences))


def arrays(draws_from, given, context: Context, system='This system', takes=()):
    """Turn what a user gives into batch arrays, {batch key: (n, num, ...)}.

    draws_from, takes: the stage's declarations.
    given: condition -> its values, None where it is not given.
    system: its name, for errors.

    Raises DataError for a condition that the stage does not read, that is given twice, that is
    missing, or that cannot be read.
    """
    given = {name: values for name, values in given.items() if values is not None}
    for name in given:
        one = CONDITIONS[name]
        # an `image` or a `layout` may also be a dictionary of whatever batch keys
        keys = isinstance(given[name], dict)
        own = one.from_sentences or one.flag in ('image', 'layout', 'dialog') and not keys
        if own and name not in (*draws_from, *takes):
            raise DataError(f'{system} does not read {name}: leave that out.')
    if 'sentence' in given and 'sentences' in draws_from:
        given['sentences'] = given.pop('sentence')
    if 'sentence' in given and 'sentence' not in draws_from:
        given |= in_sentences(given.pop('sentence'), draws_from, given, system)
    out = {}
    for name, values in given.items():
        try:
            out |= CONDITIONS[name].read(values, context)
        except DataError:
            raise
        # a number or None in place of a text, lists of several lengths
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                f'{name} is {short(repr(values), 80)}, which cannot be read: {reason(error)}. '
                'help(Sampler.__call__) says what it takes.'
            ) from error
    if {'given_boxes', 'dialog'} & set(out) and takes:
        out = each_with_one(out)
    if 'given_boxes' in out and 'labels' in draws_from:
        out |= completed(out, context)
    for name in draws_from:
        if not set(CONDITIONS[name].keys) & set(out):
            raise DataError(missing(name, context.meta, system))
    if len({len(x) for x in out.values()}) > 1:
        each = ', '.join(f'{len(x)} of {name}' for name, x in out.items())
        raise DataError(f'Give as many of each: {each}.')
    return out


def each_with_one(out):
    """Repeat one sentence for several layouts or dialogues, or one of those for all sentences."""
    n = max(map(len, out.values()))
    return {name: np.repeat(x, n, 0) if len(x) == 1 else x for name, x in out.items()}


def in_sentences(sentences, draws_from, given, system):
    """Return the conditions that are to be read in sentences, {condition: FromSentences}.

    They are those that can be read there and are not given themselves. Raises DataError for none.
    """
    readable = [name for name in draws_from if CONDITIONS[name].from_sentences]
    if not readable:
        raise DataError(f'{system} draws without sentences. Leave them out.')
    found = {name: FromSentences(sentences) for name in readable if name not in given}
    if not found:
        both = ' and '.join(readable)
        raise DataError(f'Give sentences or {both}, not both: {system} reads {both} in sentences.')
    return found


def missing(name, meta, system):
    """The message for a condition that is not given."""
    one = CONDITIONS[name]
    if one.flag == 'text':
        return f'{system} draws from sentences: give some, --text="..." on the command line.'
    names = getattr(meta, one.names) if one.names else ()
    flag = f'--{one.flag}="{", ".join(names[:2]) or "..."}" on the command line, '
    keyword = f'{name}=[...]' if one.flag else f'{name}={{{one.keys[0]!r}: ...}}'
    text = ', or sentences that name them, --text="..."' if one.from_sentences else ''
    return f'{system} draws from {name}: give {flag if one.flag else ""}{keyword} in Python{text}.'


# ------------------------------------------------------------------------------------------ readers
def repeated(values, context):
    """Repeat arrays for the samples of each, {key: (n, ...)} -> {key: (n, num, ...)}."""
    return {name: np.repeat(np.asarray(x)[:, None], context.num, 1) for name, x in values.items()}


def read_sentences(sentences, context):
    """Encode sentences with the run's words."""
    encoded = encode_sentences(sentences, context.vocabulary, context.meta.length)
    return repeated(encoded, context)


def read_several(values, context):
    """As many sentences for each picture as a row of the data has captions: lists, or texts."""
    values = [values] if isinstance(values, str) else values
    rows = [re.split(r'(?<=[.!?;])\s+', x) if isinstance(x, str) else listed(x) for x in values]
    k = context.meta.captions
    for number, row in enumerate(rows, start=1):
        if len(row) != k:
            raise DataError(f'Give {k} sentences for each picture; number {number} has {len(row)}.')
    every = [sentence for row in rows for sentence in row]
    encoded = encode_sentences(every, context.vocabulary, context.meta.length)
    return repeated({name: x.reshape(-1, k, *x.shape[1:]) for name, x in encoded.items()}, context)


def read_label_sets(values, context):
    """Parse label sets, given or named in sentences."""
    read = sentences_as_labels if isinstance(values, FromSentences) else label_sets
    return repeated({'label_set': read(values, context.meta)}, context)


def read_attribute_vectors(values, context):
    """Unknown attributes of the j-th sample of each are drawn from (seed, j), where possible."""
    read = sentences_as_attributes if isinstance(values, FromSentences) else read_attributes
    vectors, known = read(values, context.meta)
    return {'attributes': filled(vectors, known, context.meta, context.num, context.seed)}


def read_dialog(values, context):
    """Dialogues as files or lists of rounds (dialogs.py), or batch keys."""
    if isinstance(values, dict):
        return repeated(values, context)
    return repeated(read_dialogs(values, context.vocabulary), context)


def read_pictures(values, context):
    """Batch keys, or pictures: files, or uint8 arrays h w 3, which get the side of the data."""
    if isinstance(values, dict):
        return repeated(values, context)
    size = context.meta.size
    values = [values] if isinstance(values, (str, os.PathLike)) else list(values)
    pictures = [
        read_picture(one, size) if isinstance(one, (str, os.PathLike)) else squashed(one, size)
        for one in map(require_picture, values)
    ]
    return repeated({'image': np.stack(pictures)}, context)


def require_picture(value):
    """Return a file's name or a picture. Raises DataError for anything else."""
    if isinstance(value, (str, os.PathLike)):
        return value
    shape, kind = np.shape(value), getattr(value, 'dtype', type(value).__name__)
    if len(shape) != 3 or shape[2] != 3 or not np.size(value) or kind != np.uint8:
        raise DataError(
            f'A picture is a file, or an array h w 3 of uint8, not one of {kind} and shape {shape}.'
        )
    return np.asarray(value)


def read_layout(values, context):
    """Layouts as files or lists (layouts.py), or batch keys; given boxes are checked."""
    parts = ('given_boxes', 'given_labels')
    if not isinstance(values, dict):
        return repeated(read_layouts(values, context.meta), context)
    if not set(parts) & set(values):
        return repeated(values, context)
    if not set(parts) <= set(values):
        raise DataError(
            'Boxes are given with their labels: layout={"given_boxes": ..., "given_labels": ...}.'
        )
    layouts = given_layouts(*(values[name] for name in parts), context.meta)
    others = {name: x for name, x in values.items() if name not in parts}
    return repeated(layouts | others, context)


def completed(out, context):
    """Return the label sets of layouts that are completed: what is given and what is to come."""
    meta, labels = context.meta, out['given_labels'][:, 0]
    given = (labels[..., None] == np.arange(meta.object_classes)).sum(1)
    sets = out['label_set'][:, 0] if 'label_set' in out else np.zeros_like(given, np.float32)
    if len(sets) != len(given):
        raise DataError(
            f'There are {len(sets)} label sets and given boxes of {len(given)} layouts: give as '
            'many of both.'
        )
    if (np.maximum(given, sets).sum(1) > meta.max_objects).any():
        raise DataError(
            'The given boxes and the labels that are still to come are more than '
            f'{meta.max_objects} objects, the most of {meta.name}.'
        )
    sets = np.maximum(sets, given > 0).astype(np.float32)
    return repeated({'label_set': sets}, context)


# ----------------------------------------------------------------------------- captions of pictures
def captions_of(batch, meta, texts=None):
    """Return a caption for each row of a batch: its sentence, attributes or labels; or None.

    texts: a caption or a list of them for each row; None where the system reads none.
    batch: `attributes` (b, A), `label_set` (b, C) or `object_labels` (b, R).
    """
    if texts is not None and len(texts) and all(texts):
        return [text if isinstance(text, str) else text[0] for text in texts]
    for one in CONDITIONS.values():
        if one.captions and set(one.keys) & set(batch):
            found = one.captions(batch, meta)
            if found:
                return found
    return None


def captions_of_attributes(batch, meta):
    """Name the attributes of each row that are not 0, with their values where they are not 1."""
    if not meta.attribute_names:
        return None
    captions = []
    for row in np.asarray(batch['attributes'], np.float32).tolist():
        present = [(name, value) for name, value in zip(meta.attribute_names, row) if value > 0]
        names = [name if value == 1 else f'{name} {value:.2g}' for name, value in present]
        more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
        captions.append(', '.join(names[:SHOWN]) + more)
    return captions


def captions_of_labels(batch, meta):
    """Name the labels of each row."""
    if not meta.object_names:
        return None
    if 'label_set' in batch:
        rows = [np.flatnonzero(row) for row in np.asarray(batch['label_set'])]
    else:
        rows = [np.unique(row[row >= 0]) for row in np.asarray(batch['object_labels'])]
    return [', '.join(meta.object_names[i] for i in row) for row in rows]


CONDITIONS = {
    'sentence': Condition(
        ('tokens', 'length', 'chars', 'embedding', 'encoded'),
        read_sentences,
        flag='text',
    ),
    'attributes': Condition(
        ('attributes',),
        read_attribute_vectors,
        flag='attributes',
        from_sentences=True,
        names='attribute_names',
        captions=captions_of_attributes,
    ),
    'labels': Condition(
        ('label_set', 'object_labels'),
        read_label_sets,
        flag='labels',
        from_sentences=True,
        names='object_names',
        captions=captions_of_labels,
    ),
    'sentences': Condition(('tokens', 'length', 'chars', 'encoded'), read_several, flag='text'),
    'layout': Condition(('boxes', 'object_labels', 'given_boxes'), read_layout, flag='layout'),
    'dialog': Condition(('dialog', 'dialog_length'), read_dialog, flag='dialog'),
    'image': Condition(('image',), read_pictures, flag='image'),
}
