"""Parse user conditions (label sets, attributes, boxes) into arrays.

A data set may declare functions that read its sentences (`tfds_builders.conditions_of`). For other
data sets, labels are found in a sentence by their names.
"""

import difflib
import re

import numpy as np

from t2i_jax.data.text import listed, tokenize
from t2i_jax.runtime.errors import DataError, short
from tfds_builders import conditions_of

# names that an error lists
FEW = 24
# names in examples
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


# ------------------------------------------------------------------------------------------- labels
def label_sets(sets, meta):
    """Parse label sets -> (n, C) float32, 1 for each label of a set.

    sets: lists of names, or texts with commas ('person, dog'); one such text alone is one set.
      Names may stand in the plural.

    Raises DataError for no set, an empty one, a name that the data set does not know, and more
    labels than a scene has objects.
    """
    sets = [sets] if isinstance(sets, str) else list(sets)
    if not sets:
        raise DataError('There is no label set. Give at least one.')
    out = np.zeros((len(sets), len(meta.object_names)), np.float32)
    for number, names in enumerate(sets, start=1):
        names = names.split(',') if isinstance(names, str) else names
        names = [name.strip() for name in names]
        if not any(names):
            raise DataError(
                f'Label set {number} is empty. Name labels, such as: {examples(meta.object_names)}.'
            )
        found = sorted({label_number(name, meta) for name in names if name})
        if len(found) > meta.max_objects > 0:
            raise DataError(
                f'Label set {number} has {len(found)} labels, but a scene of {meta.name} has at '
                f'most {meta.max_objects} objects, one of each label at least.'
            )
        out[number - 1, found] = 1
    return out


def label_number(name, meta):
    """Return the number of a label, by its name or plural.

    Raises DataError, with names that are near, for one that the data set does not know.
    """
    forms = forms_of(meta)
    if words_of(name) not in forms:
        raise DataError(unknown('label', name, meta.object_names, meta))
    return forms[words_of(name)]


def forms_of(meta):
    """Map words, as a tuple, to the number of a label: its name and what may be its plural."""
    if not meta.object_names:
        raise DataError(
            f'No names of labels are known of {meta.name}: it has no objects, or the run is older '
            'than the names. Train again.'
        )
    forms = {}
    for number, name in enumerate(meta.object_names):
        *first, last = words_of(name)
        irregular = PLURALS.get(last, last)
        ends = re.sub('y$', 'ies', last), re.sub('fe?$', 'ves', last)
        for form in (last, last + 's', last + 'es', *ends, irregular):
            forms.setdefault((*first, form), number)
    return forms


def words_of(name):
    return tuple(tokenize(name) or [name.lower()])


def examples(names):
    return ', '.join(names[:SHOWN])


def unknown(noun, name, names, meta):
    """The message for a name that does not exist, with those that are near."""
    near = difflib.get_close_matches(name.lower(), names, 3)
    near = near or [other for other in names if name.lower() in other.lower()][:3]
    guess = f'Did you mean {" or ".join(near)}? ' if near else ''
    if len(names) <= FEW:
        there = f'There are: {", ".join(names)}.'
    else:
        there = f'There are {len(names)}, such as {examples(names)}.'
    return f'{meta.name} has no {noun} {short(repr(name))}. {guess}{there}'


# --------------------------------------------------------------------------------------- attributes
def attribute_vectors(values, meta, num=0, seed=0):
    """Parse attribute vectors -> (n, A) float32; with `num`, (n, num, A).

    With `num`, groups of which nothing is said are drawn from (seed, j) for the j-th of each, where
    the data set has such groups: the colour, where only 'circle' is given. Otherwise what is not
    said is 0.

    values: vectors, as arrays or texts of numbers ('1 0 0'), or names, as texts ('circle, red',
      'number of ring=.4') or lists; one text or vector may stand for a list of one.

    Raises DataError for no vector, one of another length, values outside [0, 1] and names that do
    not exist.
    """
    vectors, known = read_attributes(values, meta)
    return filled(vectors, known, meta, num, seed) if num else vectors


def read_attributes(values, meta):
    """Parse attribute vectors -> (n, A) float32, and (n, A) bool, which of them are known.

    All of a vector of numbers are known, and those that a text names. values, errors: as
    `attribute_vectors`.
    """
    one_text = isinstance(values, str)
    if one_text or len(values) and not isinstance(values[0], str) and not np.ndim(values[0]):
        values = [values]
    if not len(values):
        raise DataError('There is no attribute vector. Give at least one.')
    pairs = [read_vector(one, number, meta) for number, one in enumerate(values, start=1)]
    vectors, known = zip(*pairs)
    return np.stack(vectors), np.stack(known)


def read_vector(value, number, meta):
    """Parse the number-th vector -> its values (A,) float32 and which are known (A,) bool."""
    if not isinstance(value, str) and len(value) and isinstance(value[0], str):
        value = ', '.join(value)
    known = np.ones(meta.attributes, bool)
    if not isinstance(value, str):
        vector = np.asarray(value, np.float32).reshape(-1)
    elif (vector := numbers_of(value)) is None:
        vector, known = named_attributes(value, meta)
    names = meta.attribute_names
    if len(vector) != meta.attributes:
        such = f': {examples(names)}, ...' if names else ''
        raise DataError(
            f'Attribute vector {number} has {len(vector)} values, those of {meta.name} have '
            f'{meta.attributes}{such}.'
        )
    wrong = np.flatnonzero(~((vector >= 0) & (vector <= 1)))
    if len(wrong):
        name = names[wrong[0]] if names else f'number {wrong[0] + 1}'
        raise DataError(
            f'Attribute {name} of vector {number} is {vector[wrong[0]]:g}; attributes lie in '
            '[0, 1].'
        )
    return vector, known


def numbers_of(text):
    """Parse the numbers of a text, (n,) float32; None where it has words."""
    try:
        return np.array([float(part) for part in re.split(r'[,\s]+', text.strip())], np.float32)
    except ValueError:
        return None


def named_attributes(text, meta):
    """Parse 'circle, red' or 'circle=1, red=.5' -> (vector, known)."""
    names = meta.attribute_names
    if not names:
        raise DataError(
            f'No names of attributes are known of {meta.name}: give {meta.attributes} numbers.'
        )
    places = {name.lower(): i for i, name in enumerate(names)}
    vector, known = np.zeros(meta.attributes, np.float32), np.zeros(meta.attributes, bool)
    for part in filter(None, (part.strip() for part in text.split(','))):
        # a name may have an equals sign itself
        name, equals, value = part.rpartition('=') if part.lower() not in places else (part, '', '')
        name, value = (name.strip(), numbers_of(value)) if equals else (part, [1.0])
        if value is None or len(value) != 1:
            raise DataError(
                f'{short(repr(part))} is not an attribute with its value: write '
                f'{short(name, 40)}=0.5, or {short(name, 40)} alone for 1.'
            )
        if name.lower() not in places:
            raise DataError(unknown('attribute', name, names, meta))
        vector[places[name.lower()]], known[places[name.lower()]] = value[0], True
    if not known.any():
        raise DataError(
            f'{short(repr(text))} names no attribute. Give names or numbers: {examples(names)}, ...'
        )
    conditions_of(meta.name).check(vector, names)
    return vector, known


def filled(vectors, known, meta, num, seed):
    """Draw what is not known, (n, A) -> (n, num, A), where the data set's reader can.

    The j-th of each is drawn from (seed, j).
    """
    fill = conditions_of(meta.name).fill

    def one(vector, known, j):
        return fill(vector, known, np.random.default_rng((seed % 2**32, j)))

    return np.stack([[one(*pair, j) for j in range(num)] for pair in zip(vectors, known)])


# ---------------------------------------------------------------------------------------- sentences
def sentences_as_labels(sentences, meta):
    """Return the labels that sentences name, (n, C) float32.

    Raises DataError for a sentence that names none.
    """
    read = conditions_of(meta.name).labels or (lambda sentence: named_in(sentence, meta))
    return label_sets([read(sentence) for sentence in listed(sentences)], meta)


def named_in(sentence, meta):
    """List the labels whose names, of several words or in the plural, stand in a sentence.

    Of two names that begin at one word the longer counts ('hot dog').
    """
    forms, words, found = forms_of(meta), tokenize(sentence), []
    lengths = range(max(map(len, forms)), 0, -1)
    while words:
        length = next((n for n in lengths if tuple(words[:n]) in forms), 0)
        if length:
            found.append(meta.object_names[forms[tuple(words[:length])]])
        words = words[max(length, 1) :]
    if not found:
        raise DataError(
            f'{short(repr(sentence))} names no label of {meta.name}, such as '
            f'{examples(meta.object_names)}. Name some, or give labels (--labels="...").'
        )
    return found


def sentences_as_attributes(sentences, meta):
    """Return what sentences say of attributes, (vectors, known) as `read_attributes`.

    Raises DataError where the data set has no reader, and for sentences that say nothing of them.
    """
    read = conditions_of(meta.name).attributes
    if not read:
        such = ', '.join(meta.attribute_names[:2]) if meta.attribute_names else '0 1 ...'
        raise DataError(
            f'Sentences of {meta.name} cannot be read as attributes. Give those: '
            f'--attributes="{such}" (in Python attributes=[...]).'
        )
    vectors, known = zip(*[read(sentence, meta.attribute_names) for sentence in listed(sentences)])
    return np.stack(vectors), np.stack(known)


# -------------------------------------------------------------------------------------------- boxes
def given_layouts(boxes, labels, meta, names=()):
    """Parse boxes that are given already, R = max_objects.

    boxes: for each layout any number of (cx, cy, w, h) in [0, 1].
    labels: as many names or numbers, -1 for rows that do not count.
    names: of the layouts, for messages; 'layout 1', ... by default.

    Returns {'given_boxes': (n, R, 4) float32, 'given_labels': (n, R) int32, -1 where none is}.
    Raises DataError for more than R, numbers of boxes and labels that differ, a label that does not
    exist, and a box that leaves the frame or has no extent.
    """
    if len(boxes) != len(labels):
        raise DataError(
            f'There are given boxes of {len(boxes)} layouts and labels of {len(labels)}.'
        )
    out_boxes = np.zeros((len(boxes), meta.max_objects, 4), np.float32)
    out_labels = np.full((len(boxes), meta.max_objects), -1, np.int32)
    for i, layout in enumerate(zip(boxes, labels)):
        where = names[i] if names else f'layout {i + 1}'
        some, kinds = given_layout(*layout, where, meta)
        out_boxes[i, : len(some)], out_labels[i, : len(some)] = some, kinds
    return {'given_boxes': out_boxes, 'given_labels': out_labels}


def given_layout(boxes, labels, where, meta):
    """Parse one layout -> (boxes (k, 4) float32, labels (k,) int32), those that count."""
    boxes = np.asarray(boxes, np.float32)
    boxes = boxes.reshape(-1, 4) if not boxes.size else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) != len(labels):
        raise DataError(
            f'Given {where} has boxes of shape {boxes.shape} and {len(labels)} labels: give cx cy '
            'w h for each label.'
        )
    kinds = [label_number(name, meta) if isinstance(name, str) else int(name) for name in labels]
    kinds = np.array(kinds, np.int32)
    boxes, kinds = boxes[kinds != -1], kinds[kinds != -1]
    if len(boxes) > meta.max_objects:
        raise DataError(
            f'Given {where} has {len(boxes)} boxes, but a scene of {meta.name} has at most '
            f'{meta.max_objects} objects.'
        )
    if ((kinds < 0) | (kinds >= meta.object_classes)).any():
        raise DataError(
            f'Given {where} has labels {kinds.tolist()}; those of {meta.name} are 0 to '
            f'{meta.object_classes - 1}, -1 for none.'
        )
    for box, kind in zip(boxes, kinds):
        low, high, side = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2, box[2:]
        if not ((low >= -1e-4) & (high <= 1 + 1e-4) & (side > 0)).all():
            name = meta.object_names[kind] if meta.object_names else kind
            values = ' '.join(f'{x:g}' for x in box)
            raise DataError(
                f'A given box of {where} ({name}: cx cy w h = {values}) leaves the frame or has no '
                'extent. The frame is 0 to 1 on both axes.'
            )
    return boxes, kinds
