"""COCO's annotation files: captions, objects and their masks."""

import json
import math
import pathlib
import re
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from tfds_builders.coco2014_captions.categories import CATEGORIES, LABELS
from tfds_builders.errors import DataError, quoted
from tfds_builders.files import clean, members, read_bytes

# slots of a record, as in the layout papers
MAX_OBJECTS = 10
# bytes of an annotation file; VisDial's has about 1 GB
LARGEST = 1 << 31
# side of one object mask in a record
MASK_SIZE = 64


class Picture(NamedTuple):
    id: int
    file_name: str
    height: int
    width: int


class Object(NamedTuple):
    """An object of a picture, as the file has it.

    box: [x, y, width, height] in pixels
    segmentation: float32 polygons, or a run-length dictionary
    """

    id: int
    category: int
    crowd: bool
    area: float
    box: Any
    segmentation: Any


def load(path, name, slim):
    """Return the JSON file of that name, in an archive or folder or at this very path.

    `slim` gets each object ({...}) of the file as it is read and returns what is needed of it, so
    that the file never lies in memory as dictionaries. Raises DataError.
    """
    try:
        return json.loads(_text(pathlib.Path(path), name), object_hook=slim)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(
            f'{quoted(path)}: {name} is not JSON, or ends early ({error}). Fetch it again.'
        ) from None


def _text(path, name):
    if path.suffix == '.json':
        return read_bytes(path, LARGEST).decode('utf-8-sig')
    for _, data in members(path, re.escape(name), LARGEST):
        return data.decode('utf-8-sig')
    rest = ', or build coco2014_captions/captions, which needs none'
    rest = rest if name.startswith('instances') else ''
    raise DataError(f'{quoted(path)} holds no {name}. Complete it, or fetch it again{rest}.')


def lists(content, source, *keys):
    """Return the lists of those keys. Raises DataError where the file has another layout."""
    found = [content.get(key) if isinstance(content, dict) else None for key in keys]
    if not all(isinstance(entries, list) for entries in found):
        raise DataError(
            f'{source} has not the layout of COCO 2014: {{{", ".join(keys)}}} with a list each. '
            'Fetch it again.'
        )
    return found


def read_captions(path, split) -> tuple[list[Picture], dict[int, list[str]]]:
    """Read captions_<split>2014.json: the pictures, and the captions by image id.

    Each image's captions stand in the order of their ids; captions without a word are left out.
    """
    name = f'captions_{split}2014.json'
    pictures, entries = lists(
        load(path, name, _caption), f'{quoted(path)}: {name}', 'images', 'annotations'
    )
    bad = [entry for entry in pictures if not isinstance(entry, Picture)] or [
        entry for entry in entries if not isinstance(entry, tuple)
    ]
    if bad:
        raise DataError(
            f'{quoted(path)}: {name} has the entry {str(bad[0])[:80]}; images have id, file_name, '
            'height and width (numbers), captions id, image_id and caption. Fetch it again.'
        )
    twice = len(pictures) - min(len({p.id for p in pictures}), len({p.file_name for p in pictures}))
    if twice or not pictures:
        raise DataError(
            f'{quoted(path)}: {name} names {"an image twice" if pictures else "no image"}. Fetch '
            'it again.'
        )
    captions = {}
    for image_id, _, text in sorted(entries, key=lambda entry: entry[1]):
        text = ' '.join(clean(text))
        if text:
            captions.setdefault(image_id, []).append(text)
    return pictures, captions


def _caption(entry):
    if 'file_name' in entry:
        picture = [entry.get(key) for key in Picture._fields]
        return (
            Picture(*picture)
            if list(map(type, picture)) == [int, str, int, int] and min(picture[2:]) > 0
            else entry
        )
    if 'caption' in entry:
        caption = entry.get('image_id'), entry.get('id'), entry['caption']
        return caption if list(map(type, caption)) == [int, int, str] else entry
    return entry


def read_objects(path, split) -> dict[int, list[Object]]:
    """Read instances_<split>2014.json: the objects by image id, as they are in the file.

    `place` says which can be used.
    """
    name = f'instances_{split}2014.json'
    entries, categories = lists(
        load(path, name, _instance), f'{quoted(path)}: {name}', 'annotations', 'categories'
    )
    other = [
        c
        for c in categories
        if not isinstance(c, dict) or CATEGORIES.get(c.get('id')) != c.get('name')
    ]
    bad = other or [entry for entry in entries if not isinstance(entry, tuple)]
    if bad:
        raise DataError(
            f'{quoted(path)}: {name} has the entry {str(bad[0])[:80]}; expected categories of COCO '
            '2014, and objects with id, image_id, category_id, bbox and segmentation. Fetch it '
            'again.'
        )
    objects = {}
    for image_id, one in entries:
        objects.setdefault(image_id, []).append(one)
    return objects


def _instance(entry):
    # the captions' file has the images, too
    if 'file_name' in entry:
        return None
    if (
        'bbox' not in entry
        or type(entry.get('image_id')) is not int
        or type(entry.get('id')) is not int
    ):
        return entry
    shape = entry.get('segmentation')
    if isinstance(shape, list):
        try:
            shape = [np.array(polygon, np.float32) for polygon in shape]
        except (TypeError, ValueError, OverflowError):
            shape = None
    elif isinstance(shape, dict) and isinstance(shape.get('counts'), list):
        try:
            shape['counts'] = np.array(shape['counts'], np.int64)
        except (TypeError, ValueError, OverflowError):
            shape = None
    return entry['image_id'], Object(
        entry['id'],
        entry.get('category_id'),
        bool(entry.get('iscrowd')),
        entry.get('area'),
        entry['bbox'],
        shape,
    )


def place(picture, objects):
    """Return the objects of a record as arrays, MAX_OBJECTS in all.

    Single ones come first, the largest first, then crowd regions, the largest first. Where there
    are more, the last slot is a crowd region's: COCO outlines crowds where there are more things
    than were outlined one by one, so behind them none would ever find room.

    Returns (boxes, labels, crowd, masks, problems): boxes n x (ymin, xmin, ymax, xmax) in [0, 1],
    cut at the border; labels n; crowd n; masks uint8 (MAX_OBJECTS, MASK_SIZE, MASK_SIZE), the share
    of each cell that the object covers x 255, over the whole picture; {object id: why it cannot be
    used}.
    """
    bad = {}
    crowds = _usable(picture, [one for one in objects if one.crowd], MAX_OBJECTS, bad)
    used = _usable(
        picture, [one for one in objects if not one.crowd], MAX_OBJECTS - bool(crowds), bad
    )
    used += crowds[: MAX_OBJECTS - len(used)]
    masks = np.zeros((MAX_OBJECTS, MASK_SIZE, MASK_SIZE), np.uint8)
    for slot, (_, _, mask) in zip(masks, used):
        slot[:] = mask
    return (
        [box for _, box, _ in used],
        [LABELS[one.category] for one, _, _ in used],
        [one.crowd for one, _, _ in used],
        masks,
        bad,
    )


def _usable(picture, objects, most, bad):
    """Return [(object, box, mask)] of the largest that can be used.

    All boxes are checked; only what is used is drawn.
    """
    used = []
    for one in sorted(objects, key=lambda one: (-_area(one), one.id)):
        try:
            if type(one.category) is not int or one.category not in LABELS:
                raise ValueError(f'category {one.category} is none of COCO 2014')
            box = _box(one.box, picture.height, picture.width)
            if len(used) < most:
                used.append(
                    (one, box, shrunk(pixels(one.segmentation, picture.height, picture.width)))
                )
        except (ValueError, OverflowError) as error:
            bad[one.id] = str(error)
    return used


def _area(one):
    """Return the file's area in square pixels; of an object without one that of its box."""
    for area in (lambda: float(one.area), lambda: float(one.box[2]) * float(one.box[3])):
        try:
            if math.isfinite(area()):
                return area()
        except (TypeError, ValueError, LookupError, OverflowError):
            pass
    return 0


def _box(box, height, width):
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(type(v) in (int, float) and math.isfinite(v) for v in box)
    ):
        raise ValueError(f'box {box} is not four numbers')
    x, y, w, h = box
    if w <= 0 or h <= 0:
        raise ValueError(f'box {box} has no area')
    ymin, xmin, ymax, xmax = (
        min(max(v, 0.0), 1.0) for v in (y / height, x / width, (y + h) / height, (x + w) / width)
    )
    if ymin >= ymax or xmin >= xmax:
        raise ValueError(f'box {box} lies outside of the picture, which is {width} x {height}')
    return ymin, xmin, ymax, xmax


def pixels(segmentation, height, width):
    """Return polygons or runs as uint8 (height, width), 0 or 1.

    Raises ValueError for what does not describe a mask of that size.
    """
    if isinstance(segmentation, list):
        # pycocotools takes two points for a box, and memory for every pixel of an outline, however
        # far out it runs
        whole = [
            p
            for p in segmentation
            if p.ndim == 1 and len(p) >= 6 and len(p) % 2 == 0 and np.isfinite(p).all()
        ]
        if not whole:
            raise ValueError(
                'its polygons have fewer than three points, or some that are not numbers'
            )
        border = np.array([width, height])
        runs = coco_mask.merge(
            coco_mask.frPyObjects(
                [np.clip(p.reshape(-1, 2), 0, border).ravel() for p in whole], height, width
            )
        )
    elif isinstance(segmentation, dict):
        # it also leaves pixels undefined that the runs do not reach
        counts = segmentation.get('counts')
        counts = run_lengths(counts) if isinstance(counts, str) else np.asarray(counts)
        if (
            segmentation.get('size') != [height, width]
            or counts.ndim != 1
            or not len(counts)
            or counts.min() < 0
            or counts.sum() != height * width
        ):
            raise ValueError(f'its runs do not make a mask of {width} x {height}')
        runs = coco_mask.frPyObjects(
            {'counts': counts.tolist(), 'size': [height, width]}, height, width
        )
    else:
        raise ValueError('it has no segmentation')
    covered = coco_mask.decode(runs)
    if not covered.any():
        raise ValueError('its mask covers no pixel')
    return covered


def run_lengths(text):
    """Return COCO's compressed runs as (n,) int64.

    A number is written in groups of five bits, the lowest first, as the character 48 + group (+ 32
    where another group follows); from the fourth number on it is the difference to the number
    before the last one.
    """
    counts, value, shift = [], 0, 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64 or shift > 30:
            raise ValueError('its runs are not in the format of COCO')
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return np.array(counts, np.int64)


def shrunk(covered):
    """Return a mask of 0 and 1 as uint8 (MASK_SIZE, MASK_SIZE).

    A cell has the share of it that is covered, x 255.
    """
    return cv2.resize(covered * np.uint8(255), (MASK_SIZE, MASK_SIZE), interpolation=cv2.INTER_AREA)
