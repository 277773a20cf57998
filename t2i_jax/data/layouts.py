"""Layouts that a user gives: files of JSON, or the same as Python lists, as batch arrays.

A layout is a list of objects, `{"label": "dog", "cx": .5, "cy": .6, "w": .3, "h": .4}`, of which
each may have a `mask`: lines of `.` and `#`, which cover its box, whatever their number. A file
holds one layout or a list of them, as `--mode=sample` writes it.
"""

import json
import numbers
import os

import numpy as np

from t2i_jax.data.parse import given_layouts, label_number
from t2i_jax.draw.boxes import MASK, mask_in_frame
from t2i_jax.runtime.errors import DataError, home, quoted, short
from tfds_builders.files import read_text

PLACES = 'cx', 'cy', 'w', 'h'
# share of a mask on which another may lie without a word
OVERLAP = 0.1
FORM = '{"label": "...", "cx": 0.5, "cy": 0.5, "w": 0.3, "h": 0.2}'


def read_layouts(values, meta) -> dict[str, np.ndarray]:
    """Read layouts, R = max_objects.

    values: a file, several of them, or what such a file holds.

    Returns {'given_boxes': (n, R, 4) float32, 'given_labels': (n, R) int32, -1 where none is,
    'given_masks': (n, R, 64, 64) float32, all 0 where none is given}. Raises DataError for JSON of
    another form, a label that does not exist, a box outside the frame, too many objects, and a mask
    of which nothing is set. Masks that overlap are drawn; a line says so.
    """
    if isinstance(values, (str, os.PathLike)):
        values = [values]
    layouts = []
    for one in [values] if is_layout(values) else values:
        if isinstance(one, (str, os.PathLike)):
            layouts += in_file(one)
        else:
            layouts.append((f'layout {len(layouts) + 1}', one))
    if not layouts:
        raise DataError('There is no layout. Give at least one; [] is a layout without objects.')
    parts = [read_layout(layout, where, meta) for where, layout in layouts]
    boxes, labels, masks = zip(*parts)
    found = given_layouts(boxes, labels, meta, [where for where, _ in layouts])
    given = np.zeros((*found['given_labels'].shape, MASK, MASK), np.float32)
    for row, some in zip(given, masks):
        for slot, mask in zip(row, some):
            slot[:] = mask
    return found | {'given_masks': given}


def is_layout(values) -> bool:
    """Return whether a list is one layout: without objects, or of dictionaries."""
    return not isinstance(values, dict) and all(isinstance(one, dict) for one in values)


def in_file(path) -> list[tuple]:
    """Read the layouts of a file: [(a name for messages, layout)]."""
    try:
        content = json.loads(read_text(home(path)))
    except json.JSONDecodeError as error:
        raise DataError(
            f'The layout file {quoted(path)} is not JSON (line {error.lineno}: {error.msg}). It '
            f'holds a list of objects, {FORM}, or a list of such lists.'
        ) from None
    if not isinstance(content, list) or any(
        isinstance(one, list) != isinstance(content[0], list) for one in content
    ):
        raise DataError(
            f'The layout file {quoted(path)} holds {short(repr(content), 60)}; expected a list of '
            f'objects, {FORM}, or a list of such lists.'
        )
    if is_layout(content) or not isinstance(content[0], list):
        return [(f'the layout of {quoted(path)}', content)]
    return [(f'layout {i} of {quoted(path)}', one) for i, one in enumerate(content, start=1)]


def read_layout(layout, where, meta):
    """Read one layout -> (boxes, labels, masks (64, 64) of each, 0 where none is given)."""
    if not isinstance(layout, (list, tuple)):
        raise DataError(
            f'{where} is {short(repr(layout), 60)}; expected a list of objects, {FORM}.'
        )
    boxes, labels, masks = [], [], []
    for number, one in enumerate(layout, start=1):
        at = f'Object {number} of {where}'
        wrong = not isinstance(one, dict) or set(one) - {'mask'} != {'label', *PLACES}
        if wrong or any(not is_number(one[name]) for name in PLACES):
            raise DataError(
                f'{at} is {short(repr(one), 80)}; expected {FORM}, and it may have a mask.'
            )
        label = one['label']
        if not isinstance(label, (str, int)) or isinstance(label, bool):
            raise DataError(f'The label of {lower(at)} is {short(repr(label), 40)}.')
        named = isinstance(label, str) and bool(meta.object_names)
        labels.append(label_number(label, meta) if named else whole_number(label, at))
        boxes.append([float(one[name]) for name in PLACES])
        mask = np.zeros((MASK, MASK), np.float32)
        if one.get('mask') is not None:
            mask = mask_in_frame(lines_as_mask(one['mask'], at), boxes[-1])
        masks.append(mask)
    say_overlaps(masks, where)
    return boxes, labels, masks


def say_overlaps(masks, where):
    """Print a line for the first two given masks of a layout that lie on each other."""
    for j, one in enumerate(masks):
        for i, other in enumerate(masks[:j]):
            smaller = min(one.sum(), other.sum())
            shared = (one * other).sum() / smaller if smaller else 0
            if shared > OVERLAP:
                print(
                    f'The masks of objects {i + 1} and {j + 1} of {where} overlap in '
                    f'{shared:.0%} of the smaller one: there the picture is asked to show both.'
                )
                return


def lower(at) -> str:
    """Return the name of an object as it stands within a sentence."""
    return at[0].lower() + at[1:]


def is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and np.isfinite(value)


def whole_number(label, at):
    """Return a label that is a number, where the data have no names."""
    try:
        return int(label)
    except ValueError:
        raise DataError(
            f'The label of {lower(at)} is {short(repr(label), 40)}; the names of labels are not '
            'known here: give its number.'
        ) from None


def lines_as_mask(lines, at) -> np.ndarray:
    """Read lines of '.' and '#' -> bool (h, w)."""
    good = isinstance(lines, list) and lines and all(isinstance(line, str) for line in lines)
    if not good or len({len(line) for line in lines}) > 1 or set(''.join(lines)) - {'.', '#'}:
        raise DataError(
            f'The mask of {lower(at)} is {short(repr(lines), 60)}; expected lines of . '
            'and #, all of one length, such as [".##.", "####"].'
        )
    mask = np.array([[letter == '#' for letter in line] for line in lines])
    if not mask.any():
        raise DataError(
            f'The mask of {lower(at)} is empty: it has no #. Leave it out, and it is made.'
        )
    return mask
