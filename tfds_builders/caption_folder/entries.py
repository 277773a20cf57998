"""One row of a table -> the entry of a picture."""

import math
from typing import NamedTuple

from tfds_builders.caption_folder.tables import FILE_NAMES, NO_TEXT, SPLITS, TEXTS, texts_in
from tfds_builders.files import clean, storable

# of objects, as data sets of boxes name them
CATEGORIES = ('categories', 'category', 'labels', 'label')
KNOWN = {*FILE_NAMES, *TEXTS, 'split', 'label', 'boxes', 'box_labels', 'objects'}
# for boxes without a name
OBJECT = 'object'
NO_UTF8 = 'is not UTF-8: rename the file'


class Entry(NamedTuple):
    # path in the folder, with /
    file: str
    captions: list[str]
    split: str = ''
    label: str = ''
    # of (x, y, width, height) in pixels
    boxes: list = []
    box_labels: list = []


def entry_of(row) -> Entry:
    """Return one row of a table as an entry; null means that there is no value.

    Raises ValueError that says what is wrong with it.
    """
    row = {name: value for name, value in row.items() if value is not None}
    file = next((row[name] for name in FILE_NAMES if name in row), None)
    if not isinstance(file, str) or not file.strip():
        raise ValueError(f'it lacks file_name (it has {", ".join(row) or "nothing"})')
    if storable(file) != file:
        raise ValueError(f'its file_name {file!a} {NO_UTF8}')
    texts = next((row[name] for name in (*texts_in(row), *TEXTS) if name in row), None)
    if texts is None:
        raise ValueError(f'{file} lacks text or captions (it has {", ".join(row)})')
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'the captions of {file} are neither a text nor a list of texts')
    if any('\0' in text for text in texts):
        raise ValueError(f'a caption of {file} {NO_TEXT}')
    split = str(row.get('split', '')).strip().lower()
    if split and split not in SPLITS:
        raise ValueError(f'{file} has the split {split!r}; expected train, validation or test')
    label = row.get('label', '')
    if not isinstance(label, str | int | float):
        raise ValueError(f'the label of {file} must be a text')
    boxes, labels = _objects(file, row.get('objects', {}))
    boxes, labels = row.get('boxes', boxes), row.get('box_labels', labels)
    return Entry(
        file.strip(),
        clean('\n'.join(' '.join(text.split()) for text in texts)),
        SPLITS.get(split, ''),
        _name(label),
        _boxes(file, boxes),
        _labels(file, boxes, labels),
    )


def _name(label):
    """Return a label as TFDS stores it: class names stand one a line, without blanks around."""
    return ' '.join(storable(str(label)).split())


def _objects(file, objects):
    """Return the boxes and labels of Hugging Face's "objects": an object of lists, or a list."""
    if isinstance(objects, list) and all(isinstance(one, dict) for one in objects):
        names = {name for one in objects for name in one}
        objects = {name: [one.get(name) for one in objects] for name in names}
    if isinstance(objects, dict):
        objects = {name: value for name, value in objects.items() if value is not None}
        if not objects or 'bbox' in objects:
            labels = next((objects[name] for name in CATEGORIES if name in objects), [])
            return objects.get('bbox', []), labels
    raise ValueError(
        f'objects of {file} must be {{"bbox": [[x, y, width, height], ...], "categories": [...]}}'
    )


def _boxes(file, boxes):
    try:
        boxes = [tuple(float(value) for value in box) for box in boxes]
        right = all(
            len(box) == 4 and all(map(math.isfinite, box)) and min(box[2:]) > 0 for box in boxes
        )
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        raise ValueError(
            f'the boxes of {file} must be a list of [x, y, width, height] in pixels, finite and '
            'not empty'
        )
    return boxes


def _labels(file, boxes, labels):
    if not isinstance(labels, list) or None in labels:
        raise ValueError(f'the box_labels of {file} must be a list of names')
    labels = [_name(label) for label in labels] or [OBJECT] * len(boxes)
    if len(labels) != len(boxes):
        raise ValueError(f'{file} has {len(boxes)} boxes and {len(labels)} box_labels')
    if '' in labels:
        raise ValueError(f'a box_label of {file} is empty')
    return labels
