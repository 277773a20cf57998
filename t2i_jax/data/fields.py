"""The fields of a batch: one row for each, with the feature that it comes from.

Most features are arrays of fixed shape and become tables as they are; they need no row here.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from t2i_jax.data import text
from t2i_jax.data.canvas import Frame, move_boxes, move_parts

# kinds of fields
ARRAY, TEXT, PICTURE = 'array', 'text', 'picture'


class Field(NamedTuple):
    """Where a field comes from and how it is stored.

    feature: of the record. kind: ARRAY, TEXT (lists of strings, stored as JSON) or PICTURE (drawn
    on the canvas). per_caption: whether its table has an axis of captions. placed: whether it
    depends on what of the picture the canvas shows. encoded_from: the field of TEXT that the
    vocabulary encodes into it. read: Record -> its value; None: the feature as an array.
    """

    feature: str
    kind: str = ARRAY
    per_caption: bool = False
    placed: bool = False
    encoded_from: str = ''
    read: Callable[['Record'], Any] | None = None


class Record:
    """A record of a data set, and the frame of its picture that the canvas shows.

    features: {name: value}, pictures as encoded bytes. max_objects: rows of boxes.
    """

    def __init__(self, features: dict, frame: Frame, max_objects: int):
        self.features, self.frame, self.max_objects = features, frame, max_objects

    def __getitem__(self, name):
        return self.features[name]

    @property
    def captions(self) -> list[str]:
        return [caption.decode() for caption in self.features.get('captions', ())]

    @functools.cached_property
    def objects(self):
        """(boxes (R, 4), labels (R,), -1 where there is none). Crowd regions are not objects."""
        objects, r = self['objects'], self.max_objects
        boxes, labels = np.zeros((r, 4), np.float32), np.full(r, -1, np.int32)
        n = min(len(objects['label']), r)
        crowd = np.asarray(objects.get('is_crowd', np.zeros(n, bool))[:n], bool)
        found = np.asarray(objects['bbox'], np.float32).reshape(-1, 4)[:n]
        found = np.where(crowd[:, None], 0, move_boxes(found, self.frame))
        boxes[:n] = centred(found)
        seen = (found[:, 2:] > found[:, :2]).all(1)
        labels[:n] = np.where(seen, np.asarray(objects['label'])[:n], -1)
        return boxes, labels


def centred(box):
    """TFDS order ymin xmin ymax xmax -> cx cy w h."""
    low, high = box[..., [1, 0]], box[..., [3, 2]]
    return np.concatenate([(low + high) / 2, high - low], -1).astype(np.float32)


def box(record):
    return centred(move_boxes(np.asarray(record['bbox'], np.float32), record.frame))


def parts(record):
    return move_parts(np.asarray(record['parts'], np.float32), record.frame)


def chars(record):
    codes = [text.encode_chars(caption) for caption in record.captions]
    return np.array(codes, np.uint8).reshape(-1, text.CHARS)


def rounds(record):
    """The rounds of a dialogue, each a question with its answer."""
    dialog = record['dialog']
    pairs = zip(dialog['questions'], dialog['answers'])
    return [f'{question.decode()} {answer.decode()}' for question, answer in pairs]


FIELDS = {
    'image': Field('image', PICTURE, placed=True),
    'mask': Field('mask', PICTURE, placed=True),
    'object_masks': Field('object_masks', PICTURE, placed=True),
    # height and width of the picture on its canvas; drawn together with it
    'extent': Field('image', PICTURE, placed=True),
    'texts': Field('captions', TEXT, read=lambda record: record.captions),
    'tokens': Field('captions', per_caption=True, encoded_from='texts'),
    # how many words a caption has
    'words': Field('captions', per_caption=True, encoded_from='texts'),
    'chars': Field('captions', per_caption=True, read=chars),
    # whether a record has a caption
    'captioned': Field('captions', read=lambda record: np.bool_(len(record.captions))),
    'facts': Field('facts', per_caption=True),
    'embedding': Field(
        'embedding',
        per_caption=True,
        read=lambda record: np.asarray(record['embedding'], np.float32),
    ),
    'rounds': Field('dialog', TEXT, read=rounds),
    'dialog': Field('dialog', encoded_from='rounds'),
    'dialog_length': Field('dialog', encoded_from='rounds'),
    'box': Field('bbox', placed=True, read=box),
    'boxes': Field('objects', placed=True, read=lambda record: record.objects[0]),
    'object_labels': Field('objects', placed=True, read=lambda record: record.objects[1]),
    'parts': Field('parts', placed=True, read=parts),
}

# batch key -> the fields that it is made of; other keys are fields
MADE_OF = {
    'images': ('image',),
    'tokens': ('tokens', 'words'),
    'length': ('tokens', 'words'),
    'dialog_length': ('dialog',),
}


def field(name) -> Field:
    """The row of a field; a feature without a row is an array of the same name."""
    return FIELDS.get(name) or Field(name)


def fields_of(needs) -> tuple[str, ...]:
    """Batch keys, with or without `wrong_` -> the fields that they are made of, each once."""
    found = {}
    for need in needs:
        need = need.removeprefix('wrong_')
        found |= dict.fromkeys(MADE_OF.get(need, (need,)))
    found.pop('index', None)
    return tuple(found)


def value(record: Record, name):
    """The value of a field that is not a picture."""
    one = field(name)
    return one.read(record) if one.read else np.asarray(record[one.feature])
