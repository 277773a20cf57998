"""The files of CUB-200-2011 and of its captions.

Names of classes differ between the two (Brewer_Blackbird, Brewers_Blackbird), so pictures, captions
and masks are joined by numbers alone, their key:
009.Brewer_Blackbird/Brewer_Blackbird_0094_2645.jpg is (9, 94, 2645).
"""

import io
import math
import pathlib
import re
from typing import NamedTuple

import cv2
import numpy as np
from absl import logging
from tqdm import tqdm

from tfds_builders.class_splits import LISTS
from tfds_builders.errors import DataError, quoted
from tfds_builders.files import lines_of, members, read_bytes
from tfds_builders.pictures import decoded

# the first only scales progress bars
IMAGES, CLASSES, PARTS, ATTRIBUTES = 11_788, 200, 15, 312
# class folder and file
BIRD = r'(\d+)\.[^/]+/[^/.][^/]*?((?:_\d+)+)'
PICTURE = BIRD + r'\.jpe?g'
CAPTIONS = rf'text(?:_c10)?/{BIRD}\.txt'
CLASS_LIST = '|'.join(map(re.escape, LISTS.values()))
# of attributes/certainties.txt
NOT_VISIBLE = b'1'
ATTRIBUTE_NAMES = 'attributes.txt'
# file -> what one of its lines says
TABLES = {
    'images.txt': '<image_id> <NNN.Class/Name_0001_23.jpg>',
    'image_class_labels.txt': '<image_id> <class_id>',
    'classes.txt': '<class_id> <NNN.Class>',
    'bounding_boxes.txt': '<image_id> <x> <y> <width> <height>',
    'parts/parts.txt': '<part_id> <name>',
    'parts/part_locs.txt': '<image_id> <part_id> <x> <y> <visible>',
    'attributes/image_attribute_labels.txt': (
        '<image_id> <attribute_id> <is_present> <certainty_id> <time>'
    ),
    ATTRIBUTE_NAMES: '<attribute_id> <name>',
}

# tables that many copies lack
PART_TABLES = {'parts/parts.txt', 'parts/part_locs.txt'}
ATTRIBUTE_TABLES = {'attributes/image_attribute_labels.txt'}


class Birds(NamedTuple):
    """The tables by image id; a dictionary lacks the images that its table lacks."""

    # key, file name
    files: dict
    labels: dict  # 1..200
    # x, y, width, height in pixels
    boxes: dict
    # (15, 3): x, y in pixels, visible 0 or 1; None where the copy has no parts
    parts: dict | None
    # (312,) bool; None where it has no attributes
    attributes: dict | None
    class_names: list
    part_names: list
    attribute_names: list


def key_of(match) -> tuple[int, ...]:
    """Return the key of a match of BIRD.

    It is the number of the class, then those at the end of the file name.
    """
    return int(match[1]), *map(int, match[2].split('_')[1:])


def _add(found, key, value, source):
    if key in found:
        raise DataError(
            f'{source} has two files of class {key[0]:03d} with the numbers {key[1:]} at the end '
            'of their names, which must be unique. Remove one of them, or fetch it again.'
        )
    found[key] = value


def images(path):
    """Yield (key, bytes) of each picture, in the order of the archive or folder."""
    for match, data in members(path, f'images/{PICTURE}'):
        yield key_of(match), data


def read(path, whole=True) -> tuple[Birds, dict[tuple, tuple[int, int] | None]]:
    """Read CUB_200_2011.tgz, or the folder it unpacks to.

    whole: with parts and attributes, where they are there

    Returns its tables and {key: (height, width) or None where it cannot be decoded}.
    """
    path, tables, sizes = pathlib.Path(path), {}, {}
    found = members(path, f'images/{PICTURE}|({"|".join(map(re.escape, TABLES))})')
    for match, data in tqdm(
        found, total=IMAGES, desc=f'Checking {path.name}', unit=' images', disable=None
    ):
        if match[3]:
            tables[match[3]] = data
        else:
            # boxes and parts are measured in the stored pixels
            pixels = decoded(data)
            _add(sizes, key_of(match), None if pixels is None else pixels.shape[:2], quoted(path))
    # the archive has it outside of its folder, where it easily gets lost
    outside = path.parent / ATTRIBUTE_NAMES
    if ATTRIBUTE_NAMES not in tables and outside.is_file():
        tables[ATTRIBUTE_NAMES] = read_bytes(outside)
    absent = {ATTRIBUTE_NAMES}
    for files in (PART_TABLES, ATTRIBUTE_TABLES):
        if not whole or not tables.keys() & files:
            absent |= files
    tables = {file: data for file, data in tables.items() if file not in absent - {ATTRIBUTE_NAMES}}
    missing = [file for file in TABLES if file not in tables and file not in absent]
    if missing:
        raise DataError(
            f'{quoted(path)} lacks {", ".join(missing)}. Fetch CUB_200_2011.tgz again; as a folder '
            'it must be unpacked whole.'
        )
    return parse(tables, path), sizes


def parse(tables: dict[str, bytes], path) -> Birds:
    """Parse the tables, bytes by their paths (see TABLES).

    Raises DataError that names the line which cannot be read.
    """

    def rows(file, *kinds):
        return _rows(tables.get(file, b''), kinds, file, path)

    files, names, used = {}, {}, {}
    for image, (key, name) in rows('images.txt', int, _picture):
        if image in files:
            raise DataError(
                f'{quoted(path)}: images.txt has image {image} twice. Fetch CUB_200_2011.tgz again.'
            )
        files[image] = key, name
        _add(used, key, image, f'{quoted(path)}: images.txt')
    boxes = {
        image: box for image, *box in rows('bounding_boxes.txt', int, float, float, float, float)
    }
    parts = {} if PART_TABLES & tables.keys() else None
    attributes = {} if ATTRIBUTE_TABLES & tables.keys() else None
    for image, part, *location in rows(
        'parts/part_locs.txt', int, _within(1, PARTS), float, float, _within(0, 1)
    ):
        if image in files:
            parts.setdefault(image, np.zeros((PARTS, 3), np.float32))[part - 1] = location
    # A few lines have fields too many behind the certainty: all that follows it is taken for the
    # time.
    for image, attribute, present, certainty, _ in rows(
        'attributes/image_attribute_labels.txt',
        int,
        _within(1, ATTRIBUTES),
        _within(0, 1),
        bytes,
        bytes,
    ):
        if image in files:
            attributes.setdefault(image, np.zeros(ATTRIBUTES, bool))[attribute - 1] |= (
                present == 1 and certainty != NOT_VISIBLE
            )
    for file, count in {
        'classes.txt': CLASSES,
        'parts/parts.txt': PARTS,
        ATTRIBUTE_NAMES: ATTRIBUTES,
    }.items():
        if (file == ATTRIBUTE_NAMES and attributes is None) or (
            file in PART_TABLES and parts is None
        ):
            names[file] = []
            continue
        if file not in tables:
            logging.warning(
                '%s lacks %s: its %d names are replaced by numbers.', quoted(path), file, count
            )
            tables = tables | {
                file: ''.join(f'{k} attribute {k}\n' for k in range(1, count + 1)).encode()
            }
        named = dict(rows(file, _within(1, count), _text))
        if len(set(named.values())) != count:
            raise DataError(
                f'{quoted(path)}: {file} has {len(set(named.values()))} different names, expected '
                f'{count}. Fetch CUB_200_2011.tgz again.'
            )
        names[file] = [named[k] for k in range(1, count + 1)]
    return Birds(
        files,
        dict(rows('image_class_labels.txt', int, _within(1, CLASSES))),
        boxes,
        parts,
        attributes,
        *names.values(),
    )


def _rows(data, kinds, file, path):
    """Yield the values of each line that is not blank.

    The last kind gets all that is left of its line.
    """
    for number, line in enumerate(io.BytesIO(data), 1):
        fields = line.strip().split(maxsplit=len(kinds) - 1)
        if not fields:
            continue
        try:
            if len(fields) < len(kinds):
                raise ValueError
            row = [kind(field) for kind, field in zip(kinds, fields)]
        except ValueError:
            raise DataError(
                f'{quoted(path)}: {file}, line {number} is '
                f'{line.decode("utf-8", "replace").strip()!r}; expected {TABLES[file]}. Put it '
                'right, or fetch CUB_200_2011.tgz again.'
            ) from None
        yield row


def _within(low, high):
    def kind(field):
        value = int(field)
        if not low <= value <= high:
            raise ValueError
        return value

    return kind


def _text(field):
    return field.decode('utf-8')


def _picture(field):
    match = re.fullmatch(PICTURE, _text(field))
    if not match:
        raise ValueError
    return key_of(match), match[0]


def bbox(box, size) -> tuple[float, float, float, float] | str:
    """Return a box as (ymin, xmin, ymax, xmax) in [0, 1], cut at the borders.

    From (x, y, width, height) in pixels and (height, width) of the picture; or a sentence that says
    why there is none.
    """
    x, y, width, height = box
    name = f'bounding box (x {x:g}, y {y:g}, width {width:g}, height {height:g})'
    if not all(map(math.isfinite, box)) or width <= 0 or height <= 0:
        return f'{name} has no extent'
    corners = [
        min(max(float(np.float32(v)), 0.0), 1.0)
        for v in (y / size[0], x / size[1], (y + height) / size[0], (x + width) / size[1])
    ]
    if corners[0] >= corners[2] or corners[1] >= corners[3]:
        return f'{name} lies outside the picture, {size[1]} x {size[0]}'
    return tuple(corners)


def relative(parts, size) -> np.ndarray:
    """Return parts (15, 3) in pixels as fractions of the picture (height, width), float32.

    x and y lie in [0, 1]; invisible parts are 0.
    """
    visible = parts[:, 2:] > 0
    return np.where(visible, np.clip(parts / np.float32([size[1], size[0], 1]), 0, 1), 0).astype(
        np.float32
    )


def read_captions(path) -> tuple[dict[tuple, list[str]], dict[str, str]]:
    """Return ({key: captions}, {split: text of its class list}).

    From Reed's archive, or one with text/<class>/<image>.txt, or what they unpack to.
    """
    path, captions, lists = pathlib.Path(path), {}, {}
    splits = {file: split for split, file in LISTS.items()}
    captions_of = rf'{BIRD}\.txt' if path.name in ('text', 'text_c10') else CAPTIONS
    for match, data in members(path, f'{captions_of}|({CLASS_LIST})'):
        if match[3]:
            lists[splits[match[3]]] = data.decode('utf-8', 'replace')
        else:
            _add(captions, key_of(match), lines_of(data), quoted(path))
    if not captions:
        raise DataError(
            f'{quoted(path)} holds no captions; expected '
            'text_c10/002.Laysan_Albatross/Laysan_Albatross_0002_1027.txt and so on (or '
            'text/...). Fetch it again.'
        )
    return captions, lists


def read_masks(path) -> dict[tuple, tuple[tuple[int, int], bytes]]:
    """Return key -> ((height, width), mask as PNG bytes, 0 or 255).

    Pictures that cannot be decoded are absent. The archive's greys count the votes of several
    annotators, 255 being all of them: foreground is what more than half marked, grey > 127.5.
    """
    masks = {}
    for match, data in tqdm(
        members(path, BIRD + r'\.png'),
        total=IMAGES,
        desc=f'Reading {pathlib.Path(path).name}',
        unit=' masks',
        disable=None,
    ):
        pixels = decoded(data)
        if pixels is not None:
            mask = np.where(pixels[..., 0] > 127.5, 255, 0).astype(np.uint8)
            _add(
                masks,
                key_of(match),
                (mask.shape, cv2.imencode('.png', mask)[1].tobytes()),
                quoted(path),
            )
    return masks
