"""Conditions that a user gives: sentences, label sets, attributes, layouts -> batch arrays.

One table, CONDITIONS, serves the command line, the sampler, the training grid and explorations.
A data set may declare functions that read its sentences (`tfds_builders.conditions_of`). For other
data sets, labels are found in a sentence by their names.
"""

import difflib
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from t2i_jax.data.text import encode_sentences, tokenize
from t2i_jax.runtime.errors import DataError
from tfds_builders import conditions_of

# names that an error lists
FEW = 24
# names in a caption of a picture, and in examples
SHOWN = 8
PLURALS = {
    'person': 'people',
    'mouse': 'mice',
    'child': 'children',
    'man': 'men',
    'woman': 'women',
    'goose': 'geese',
    'sheep': 'sheep',
}


class Condition(NamedTuple):
    """One kind of condition.

    flag: of the command line, '' where there is none. keyword: of Sampler.
    keys: the batch keys that carry it.
    read: (values, Given) -> {batch key: (n, num, ...)}; None: values are such arrays without num.
    from_sentences: whether sentences can give it, for systems that do not read text.
    names: field of Meta with the names that a user may write.
    captions: (batch, meta) -> a caption for each row, or None.
    """

    flag: str
    keyword: str
    keys: tuple[str, ...]
    read: Callable | None = None
    from_sentences: bool = False
    names: str = ''
    captions: Callable | None = None


class Given(NamedTuple):
    """What readers of conditions know: the data, the words of the run, samples of each, seed."""

    meta: NamedTuple
    vocabulary: object
    num: int
    seed: int


def arrays(draws_from, given, known: Given, system='This system'):
    """Turn what a user gives into batch arrays, {batch key: (n, num, ...)}.

    draws_from: the stage's declaration.
    given: condition -> its values, those that are given.
    system: its name, for errors.

    Raises DataError for a condition that the stage does not read, that is given twice, that is
    missing, or that cannot be read.
    """
    given = {name: values for name, values in given.items() if values is not None}
    sentences = given.get('sentence')
    readable = [name for name in draws_from if CONDITIONS[name].from_sentences]
    for name in given:
        if name in ('labels', 'attributes') and name not in draws_from:
            raise DataError(f'{system} does not read {name}. Leave them out.')
    if sentences is not None and 'sentence' not in draws_from:
        if not readable:
            raise DataError(f'{system} draws without sentences. Leave them out.')
        if set(readable) <= set(given):
            both = ' and '.join(readable)
            raise DataError(
                f'Give sentences or {both}, not both: {system} reads {both} in sentences.'
            )
        given |= {name: FromSentences(sentences) for name in readable if name not in given}
        del given['sentence']
    out = {}
    for name, values in given.items():
        read = CONDITIONS[name].read
        out |= read(values, known) if read else repeated(values, known.num)
    if completes(given.get('layout')):
        out |= completed(out, known)
    missing = [name for name in draws_from if not set(CONDITIONS[name].keys) & set(out)]
    for name in missing:
        raise DataError(missing_condition(name, known.meta, system))
    lengths = {len(x) for x in out.values()}
    if len(lengths) > 1:
        each = ', '.join(f'{len(x)} of {name}' for name, x in out.items())
        raise DataError(f'Give as many of each: {each}.')
    return out


def missing_condition(name, meta, system):
    """The message for a condition that is not given."""
    one = CONDITIONS[name]
    if name == 'sentence':
        return f'{system} draws from sentences: give some, --text="..." on the command line.'
    names = ', '.join(getattr(meta, one.names)[:2]) if one.names else ''
    flag = f'--{one.flag}="{names or "..."}" on the command line, ' if one.flag else ''
    text = ', or sentences that name them, --text="..."' if one.from_sentences else ''
    return f'{system} draws from {name}: give some, {flag}{one.keyword}=[...] in Python{text}.'


class FromSentences(list):
    """Sentences in which a condition is to be read."""

    def __init__(self, sentences):
        super().__init__(listed(sentences))


def repeated(values, num):
    """{key: (n, ...)} -> {key: (n, num, ...)}."""
    return {name: np.repeat(np.asarray(x)[:, None], num, 1) for name, x in values.items()}


def read_sentences(sentences, known):
    return repeated(encode_sentences(sentences, known.vocabulary, known.meta.length), known.num)


def read_label_sets(values, known):
    from_text = isinstance(values, FromSentences)
    read = sentences_as_labels if from_text else label_sets
    return repeated({'label_set': read(values, known.meta)}, known.num)


def read_attribute_vectors(values, known):
    """What is not said is drawn from (seed, j) for the j-th sample of each, where that is known."""
    from_text = isinstance(values, FromSentences)
    read = sentences_as_attributes if from_text else read_attributes
    vectors, said = read(values, known.meta)
    return {'attributes': filled(vectors, said, known.meta, known.num, known.seed)}


def completes(layout) -> bool:
    """Whether a layout is to be completed: some of its boxes are given."""
    return bool(layout) and bool({'given_boxes', 'given_labels'} & set(layout))


def read_layout(values, known):
    """Boxes and labels of all objects, or of some, which are completed (`given_layouts`)."""
    if not completes(values):
        return repeated(values, known.num)
    if set(values) != {'given_boxes', 'given_labels'}:
        raise DataError(
            'Boxes are given with their labels: layout={"given_boxes": ..., "given_labels": ...}.'
        )
    layouts = given_layouts(values['given_boxes'], values['given_labels'], known.meta)
    return repeated(layouts, known.num)


def completed(out, known):
    """The label sets of layouts that are completed: what is given, and what is to come."""
    meta, labels = known.meta, out['given_labels'][:, 0]
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
    return repeated({'label_set': np.maximum(sets, given > 0).astype(np.float32)}, known.num)


# ----------------------------------------------------------------------------------------------------------------------- labels
def label_sets(sets, meta):
    """(n, C) float32: 1 for each label of a set.

    sets: lists of names, or texts with commas ('person, dog'); one such text alone is one set. Names may stand in the plural. Raises DataError
    for no set, an empty one, a name that the data set does not know, and more labels than a scene has objects.
    """
    sets = [sets] if isinstance(sets, str) else list(sets)
    if not sets:
        raise DataError('There is no label set. Give at least one.')
    out = np.zeros((len(sets), len(meta.object_names)), np.float32)
    for number, names in enumerate(sets, start=1):
        names = [name.strip() for name in (names.split(',') if isinstance(names, str) else names)]
        if not any(names):
            raise DataError(
                f'Label set {number} is empty. Name labels, such as: {", ".join(meta.object_names[:SHOWN])}.'
            )
        found = sorted({label_number(name, meta) for name in names if name})
        if len(found) > meta.max_objects > 0:
            raise DataError(
                f'Label set {number} has {len(found)} labels, but a scene of {meta.name} has at most {meta.max_objects} objects, '
                'one of each label at least.'
            )
        out[number - 1, found] = 1
    return out


def label_number(name, meta):
    """The number of a label, or of its plural. Raises DataError, with names that are near, for one that the data set does not know."""
    forms = forms_of(meta)
    if words_of(name) not in forms:
        raise DataError(unknown('label', name, meta.object_names, meta))
    return forms[words_of(name)]


def forms_of(meta):
    """Words, as a tuple -> number of the label: its name and what may be its plural."""
    if not meta.object_names:
        raise DataError(
            f'Of {meta.name} no names of labels are known: it has no objects, or the run is older than the names. Train again.'
        )
    forms = {}
    for i, name in enumerate(meta.object_names):
        *first, last = words_of(name)
        for form in (
            last,
            last + 's',
            last + 'es',
            re.sub('y$', 'ies', last),
            re.sub('fe?$', 'ves', last),
            PLURALS.get(last, last),
        ):
            forms.setdefault((*first, form), i)
    return forms


def words_of(name):
    return tuple(tokenize(name) or [name.lower()])


def unknown(what, name, names, meta):
    """The message for a name that does not exist, with those that are near."""
    near = (
        difflib.get_close_matches(name.lower(), names, 3)
        or [other for other in names if name.lower() in other.lower()][:3]
    )
    there = (
        f'There are: {", ".join(names)}.'
        if len(names) <= FEW
        else f'There are {len(names)}, such as {", ".join(names[:SHOWN])}.'
    )
    return (
        f'{meta.name} has no {what} {name!r}. '
        + (f'Did you mean {" or ".join(near)}? ' if near else '')
        + there
    )


# ------------------------------------------------------------------------------------------------------------------- attributes
def attribute_vectors(asked, meta, num=0, seed=0):
    """(n, A) float32; with `num`, (n, num, A): then groups of which nothing is said are drawn from (seed, j) for the j-th of each, where the data
    set has such groups (the colour, where only 'circle' is asked for). Without, and elsewhere, what is not said is 0.

    asked: vectors, as arrays or texts of numbers ('1 0 0'), or names, as texts ('circle, red', 'number of ring=.4') or lists; one text or vector
    may stand for a list of one. Raises DataError for no vector, one of another length, values outside [0, 1] and names that do not exist.
    """
    vectors, known = read_attributes(asked, meta)
    return filled(vectors, known, meta, num, seed) if num else vectors


def read_attributes(asked, meta):
    """(n, A) float32 and (n, A) bool, which of them are told: of vectors all, of names those. As `attribute_vectors`."""
    alone = isinstance(asked, str) or (
        len(asked) and not isinstance(asked[0], str) and np.ndim(asked[0]) == 0
    )
    asked = [asked] if alone else asked
    if not len(asked):
        raise DataError('There is no attribute vector. Give at least one.')
    vectors, known = (
        np.zeros((len(asked), meta.attributes), np.float32),
        np.ones((len(asked), meta.attributes), bool),
    )
    for number, one in enumerate(asked, start=1):
        one = (
            ', '.join(one)
            if len(one) and isinstance(one[0], str) and not isinstance(one, str)
            else one
        )
        vector = (
            numbers_of(one) if isinstance(one, str) else np.asarray(one, np.float32).reshape(-1)
        )
        if vector is None:
            vector, known[number - 1] = named(one, meta)
        if len(vector) != meta.attributes:
            raise DataError(
                f'Attribute vector {number} has {len(vector)} values, those of {meta.name} have {meta.attributes}'
                + (
                    f': {", ".join(meta.attribute_names[:SHOWN])}, ...'
                    if meta.attribute_names
                    else ''
                )
                + '.'
            )
        wrong = np.flatnonzero(~((vector >= 0) & (vector <= 1)))
        if len(wrong):
            name = (
                meta.attribute_names[wrong[0]] if meta.attribute_names else f'number {wrong[0] + 1}'
            )
            raise DataError(
                f'Attribute {name} of vector {number} is {vector[wrong[0]]:g}; attributes lie in [0, 1].'
            )
        vectors[number - 1] = vector
    return vectors, known


def numbers_of(text):
    """The numbers of a text; None where it has words."""
    try:
        return np.array([float(part) for part in re.split(r'[,\s]+', text.strip())], np.float32)
    except ValueError:
        return None


def named(text, meta):
    """(vector, known) of 'circle, red' or 'circle=1, red=.5'."""
    if not meta.attribute_names:
        raise DataError(
            f'Of {meta.name} no names of attributes are known: give {meta.attributes} numbers.'
        )
    places = {name.lower(): i for i, name in enumerate(meta.attribute_names)}
    vector, known = np.zeros(meta.attributes, np.float32), np.zeros(meta.attributes, bool)
    for part in filter(None, (part.strip() for part in text.split(','))):
        name, equals, value = part.rpartition('=') if part.lower() not in places else (part, '', '')
        name, value = (name.strip(), numbers_of(value)) if equals else (part, [1.0])
        if value is None or len(value) != 1:
            raise DataError(
                f'{part!r} is no attribute with its value: write {name}=0.5, or {name} alone for 1.'
            )
        if name.lower() not in places:
            raise DataError(unknown('attribute', name, meta.attribute_names, meta))
        vector[places[name.lower()]], known[places[name.lower()]] = value[0], True
    if not known.any():
        raise DataError(
            f'{text!r} names no attribute. Give names or numbers: {", ".join(meta.attribute_names[:SHOWN])}, ...'
        )
    conditions_of(meta.name).check(vector, meta.attribute_names)
    return vector, known


def filled(vectors, known, meta, num, seed):
    """(n, A) -> (n, num, A), what is not known drawn from (seed, j) for the j-th of each, where the data set's reader can."""
    fill = conditions_of(meta.name).fill
    return np.stack(
        [
            [fill(vector, told, np.random.default_rng((seed % 2**32, j))) for j in range(num)]
            for vector, told in zip(vectors, known)
        ]
    )


# -------------------------------------------------------------------------------------------------------------------- sentences
def sentences_as_labels(sentences, meta):
    """(n, C) float32: the labels that sentences name. Raises DataError for a sentence that names none."""
    read = conditions_of(meta.name).labels or (lambda sentence: named_in(sentence, meta))
    return label_sets([read(sentence) for sentence in listed(sentences)], meta)


def named_in(sentence, meta):
    """The labels whose names, of several words or in the plural, stand in a sentence; of two that begin at a word the longer ('hot dog')."""
    forms, words, found = forms_of(meta), tokenize(sentence), []
    while words:
        length = next(
            (n for n in range(max(map(len, forms)), 0, -1) if tuple(words[:n]) in forms), 0
        )
        found += [meta.object_names[forms[tuple(words[:length])]]] if length else []
        words = words[max(length, 1) :]
    if not found:
        raise DataError(
            f'{sentence!r} names no label of {meta.name}, such as {", ".join(meta.object_names[:SHOWN])}. Name some, or give labels '
            '(--labels="...").'
        )
    return found


def sentences_as_attributes(sentences, meta):
    """(vectors, known) as `read_attributes`. Raises DataError where the data set has no reader, and for sentences that say nothing of them."""
    read = conditions_of(meta.name).attributes
    if not read:
        raise DataError(
            f'Sentences of {meta.name} cannot be read as attributes. Give those: --attributes="'
            + (', '.join(meta.attribute_names[:2]) if meta.attribute_names else '0 1 ...')
            + '" (in Python attributes=[...]).'
        )
    vectors, known = zip(*[read(sentence, meta.attribute_names) for sentence in listed(sentences)])
    return np.stack(vectors), np.stack(known)


def listed(sentences):
    """A list of sentences, one alone too. Raises DataError for none."""
    sentences = [sentences] if isinstance(sentences, str) else list(sentences)
    if not sentences:
        raise DataError('There is no sentence to read. Give at least one.')
    return sentences


# ------------------------------------------------------------------------------ captions of pictures
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
    if not meta.attribute_names:
        return None
    captions = []
    for row in np.asarray(batch['attributes'], np.float32).tolist():
        present = [(n, value) for n, value in zip(meta.attribute_names, row) if value > 0]
        captions.append(some_of([n if value == 1 else f'{n} {value:.2g}' for n, value in present]))
    return captions


def captions_of_labels(batch, meta):
    if not meta.object_names:
        return None
    if 'label_set' in batch:
        rows = [np.flatnonzero(row) for row in np.asarray(batch['label_set'])]
    else:
        rows = [np.unique(row[row >= 0]) for row in np.asarray(batch['object_labels'])]
    return [', '.join(meta.object_names[i] for i in row) for row in rows]


def some_of(names):
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more


# ------------------------------------------------------------------------------------------------------------------------ boxes
def given_layouts(boxes, labels, meta):
    """{'given_boxes': (n, R, 4) float32, 'given_labels': (n, R) int32, -1 where none is} of boxes that are known already, R = max_objects.

    boxes: for each layout any number of (cx, cy, w, h) in [0, 1]; labels: as many names or numbers, -1 for rows that do not count. Raises DataError
    for more than R, numbers of boxes and labels that differ, a label that does not exist, and a box that leaves the frame or has no extent.
    """
    if len(boxes) != len(labels):
        raise DataError(
            f'There are given boxes of {len(boxes)} layouts and labels of {len(labels)}.'
        )
    out_boxes, out_labels = (
        np.zeros((len(boxes), meta.max_objects, 4), np.float32),
        np.full((len(boxes), meta.max_objects), -1, np.int32),
    )
    for number, (some, names) in enumerate(zip(boxes, labels)):
        some, where = np.asarray(some, np.float32), f'layout {number + 1}'
        some = some.reshape(-1, 4) if not some.size else some
        if some.ndim != 2 or some.shape[1] != 4 or len(some) != len(names):
            raise DataError(
                f'Given {where} has boxes of shape {some.shape} and {len(names)} labels: give cx cy w h for each label.'
            )
        kinds = np.array(
            [label_number(name, meta) if isinstance(name, str) else int(name) for name in names],
            np.int32,
        )
        some, kinds = some[kinds != -1], kinds[kinds != -1]
        if len(some) > meta.max_objects:
            raise DataError(
                f'Given {where} has {len(some)} boxes, but a scene of {meta.name} has at most {meta.max_objects} objects.'
            )
        if ((kinds < 0) | (kinds >= meta.object_classes)).any():
            raise DataError(
                f'Given {where} has labels {kinds.tolist()}; those of {meta.name} are 0 to {meta.object_classes - 1}, -1 for none.'
            )
        for box, kind in zip(some, kinds):
            low, high, side = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2, box[2:]
            if not ((low >= -1e-4) & (high <= 1 + 1e-4) & (side > 0)).all():
                name = meta.object_names[kind] if meta.object_names else kind
                raise DataError(
                    f'A given box of {where} ({name}: cx cy w h = {" ".join(f"{x:g}" for x in box)}) leaves '
                    'the frame or has no extent. The frame is 0 to 1 on both axes.'
                )
        out_boxes[number, : len(some)], out_labels[number, : len(some)] = some, kinds
    return {'given_boxes': out_boxes, 'given_labels': out_labels}


CONDITIONS = {
    'sentence': Condition(
        'text', 'sentences', ('tokens', 'length', 'chars', 'embedding', 'encoded'), read_sentences
    ),
    'attributes': Condition(
        'attributes',
        'attributes',
        ('attributes',),
        read_attribute_vectors,
        from_sentences=True,
        names='attribute_names',
        captions=captions_of_attributes,
    ),
    'labels': Condition(
        'labels',
        'labels',
        ('label_set', 'object_labels'),
        read_label_sets,
        from_sentences=True,
        names='object_names',
        captions=captions_of_labels,
    ),
    'layout': Condition('', 'layout', ('boxes', 'object_labels', 'given_boxes'), read_layout),
    'dialog': Condition('', 'dialog', ('dialog', 'dialog_length')),
    'sentences': Condition('', 'sentences', ('tokens', 'length', 'chars')),
    'image': Condition('', 'image', ('image',)),
}
