"""The readers' findings in explored pictures of shape scenes."""

import numpy as np

from t2i_jax.metrics.layout import ious
from t2i_jax.scenes.agreement import (
    ATTRIBUTES,
    found_at,
    layout,
    scene_match,
    swap_results,
    swaps,
)
from t2i_jax.scenes.readers import best_reader
from tfds_builders.errors import DataError
from tfds_builders.facts import CLASS, COLOUR, W
from tfds_builders.shape_scenes.scenes import CLASSES, COLOURS, CX, CY, UNIT, H
from tfds_builders.shape_scenes.sentences import described


def read(mode: str, pictures) -> dict:
    """Return what the largest objects of explored pictures are, {} for other data.

    mode: `Meta.scenes`
    pictures: uint8 (n, k, s, s, 3)

    Returns {'decoder': name, 'colour': {name: share of the n whose largest object has it, at each
    of k}, 'class': ...}, with the colours and classes that some step has in more than a tenth.
    """
    reader = best_reader(mode)
    if reader is None:
        return {}
    scenes = reader.decode(pictures.reshape(-1, *pictures.shape[2:]))
    largest = scenes[:, 0].reshape(*pictures.shape[:2], -1)
    found = {'decoder': reader.tag['name']}
    for name, column, words in (('colour', COLOUR, COLOURS), ('class', CLASS, CLASSES)):
        shares = {
            word: (largest[..., column] == value).mean(0).round(3).tolist()
            for value, word in enumerate(words)
        }
        found[name] = {word: share for word, share in shares.items() if max(share) > 0.1}
    return found


def same_boxes(mode: str, pictures) -> dict:
    """Return how much the boxes of the largest objects of a sheet overlap, {} for other data.

    mode: `Meta.scenes`
    pictures: uint8 (n, k, s, s, 3)

    Means of the IoU of pairs of pictures in which something is found: `same_box_across` of two of
    a row, `same_box_down` of two of a column; None where there are none.
    """
    reader = best_reader(mode)
    if reader is None:
        return {}
    largest = reader.decode(pictures.reshape(-1, *pictures.shape[2:]))[:, 0]
    boxes = largest[:, [CX, CY, W, H]].reshape(*pictures.shape[:2], 4) / UNIT
    there = (largest[:, W] >= 0).reshape(pictures.shape[:2])
    return {
        name: _overlap(boxes.swapaxes(0, axis), there.swapaxes(0, axis))
        for axis, name in ((0, 'same_box_across'), (1, 'same_box_down'))
    }


def _overlap(boxes, there):
    """Average the IoU of two boxes of a row, (n, k, 4) cx cy w h, those that are there (n, k)."""
    both = there[:, :, None] & there[:, None] & ~np.eye(there.shape[1], dtype=bool)
    return _mean(np.stack([ious(row, row) for row in boxes])[both])


def true_of(mode: str, pictures, truth) -> dict:
    """Return how much of scenes is seen in each column of a sheet, {} for other data.

    mode: `Meta.scenes`
    pictures: uint8 (n, k, s, s, 3), a row of each scene. truth: scenes (n, R + 1, F)

    Returns {'scene_class': [k shares], 'scene_colour_of_class': ...}, see `scene_match`.
    """
    reader = best_reader(mode)
    if reader is None:
        return {}
    columns = [scene_match(reader.decode(column), truth) for column in pictures.swapaxes(0, 1)]
    return {name: [_mean(column[name]) for column in columns] for name in columns[0]}


def places(mode: str, styles, pictures) -> dict:
    """Return how far the largest objects lie from those of the style pictures.

    {} for other data.

    mode: `Meta.scenes`
    styles: uint8 (k, s, s, 3)
    pictures: uint8 (n, k, s, s, 3), n pictures drawn in each style

    Distances are fractions of the frame: `object_off_its_style`, `object_off_other_styles`, None
    where no object is found.
    """
    reader = best_reader(mode)
    if reader is None:
        return {}
    there, drawn = (_centres(reader, images) for images in (styles, pictures))
    drawn = drawn.reshape(*pictures.shape[:2], 1, 2)
    off = np.linalg.norm(drawn - there, axis=-1)  # n k k: drawn in a style, against a style
    own = np.eye(len(styles), dtype=bool)
    kinds = {'object_off_its_style': off[:, own], 'object_off_other_styles': off[:, ~own]}
    return {'decoder': reader.tag['name']} | {
        name: float(np.nanmean(values)) if np.isfinite(values).any() else None
        for name, values in kinds.items()
    }


# --------------------------------------------------------------------------- one word exchanged
def edits(mode: str, texts, facts, count, seed=0) -> list:
    """Return about `count` captions with one word exchanged, as `agreement.swaps` does.

    [] for other data.
    """
    each = -(-count // len(ATTRIBUTES))
    return swaps(texts, facts, seed, each) if best_reader(mode) else []


def edited(mode: str, before, after, found, facts) -> dict:
    """Return what exchanged words did to pictures, {attribute whose word was exchanged: numbers}.

    before, after: uint8 (n, s, s, 3), drawn from the same noise
    found, facts: what `edits` returned, and the facts that it was given

    `n` captions. `right`: the share whose new word holds afterwards. `all_else_kept`: see
    `swap_results`. Of pictures in which something was found before: `class_kept`, `colour_kept`,
    `size_kept` of the largest object, but for the exchanged one, and `moved`, by how much of the
    frame. `background`: the mean absolute difference of pixels in [0, 1] off the boxes of all
    objects, which are widened a little, before and after.
    """
    reader = best_reader(mode)
    old, new = reader.decode(before), reader.decode(after)
    results = swap_results(old, new, found, facts)
    kinds = np.array([attribute for _, attribute, *_ in found])
    seen, change = old[:, 0, W] >= 0, np.abs(after.astype(np.float32) - before).mean(-1) / 255
    off = _off_objects(old, before.shape[1]) & _off_objects(new, before.shape[1])
    moved = np.linalg.norm((new - old)[:, 0, [CX, CY]], axis=-1) / UNIT
    both = seen & (new[:, 0, W] >= 0)
    table = {'decoder': reader.tag['name']}
    for name in ATTRIBUTES:
        rows = kinds == name
        if not rows.any():
            continue
        table[name] = {
            'n': int(rows.sum()),
            'right': _mean(results[f'swap_{name}'][rows]),
            'all_else_kept': _mean(results['swap_keeps'][rows]),
            **{
                f'{other}_kept': _mean((old[:, 0, column] == new[:, 0, column])[rows & seen])
                for other, (column, _) in ATTRIBUTES.items()
                if other != name
            },
            'moved': _mean(moved[rows & both]),
            'background': _mean(change[rows][off[rows]]),
        }
    return table


# --------------------------------------------------------------------------------- edited layouts
def layout_edits(mode: str, before, after, old, new, near=0.05) -> dict:
    """Return what edits of layouts did to pictures of shape scenes, {} for other data.

    before, after: uint8 (n, s, s, 3).
    old, new: the layouts that they were drawn of, each with boxes (R, 4), labels (R,), and
      `edited`, the number of the edited object, in `new`.

    `found`: the share of edited objects that are seen in their new place, at most `near` of the
    frame off, and of their new class. `gone`: the share of those that moved or went of which none
    of the class is seen in the old place. `found_before`: the share that was seen there before.
    `others_kept`: of the other objects that were seen before, the share that still is.
    """
    reader = best_reader(mode)
    if reader is None:
        return {}
    first, then = (reader.decode(pictures) for pictures in (before, after))
    boxes, labels = (np.stack([getattr(one, name) for one in old]) for name in ('boxes', 'labels'))
    now, named = (np.stack([getattr(one, name) for one in new]) for name in ('boxes', 'labels'))
    rows, edited = np.arange(len(old)), np.array([one.edited for one in new])
    was, still = (found_at(scenes, boxes, labels, near) for scenes in (first, then))
    is_now = found_at(then, now, named, near)[rows, edited]
    others = np.arange(labels.shape[1]) != edited[:, None]
    seen, left = was[rows, edited], still[rows, edited]
    left = np.where(
        (boxes == now)[rows, edited].all(-1) & (labels == named)[rows, edited], np.nan, left
    )
    return {
        'decoder': reader.tag['name'],
        'found_before': _mean(seen),
        'found': _mean(is_now),
        'gone': _mean(1 - left[seen == 1]),
        'others_kept': _mean(still[others & (was == 1)]),
    }


def _off_objects(scenes, side):
    """Return which pixels lie off the boxes of all objects, bool (n, side, side)."""
    objects, pixels = scenes[:, :-1], (np.arange(side) + 0.5) / side
    there = objects[..., W] >= 0
    margin = 1 / 32

    def within(centre, width):
        low, high = (
            ((objects[..., centre] + sign * objects[..., width] / 2) / UNIT + sign * margin)
            for sign in (-1, 1)
        )
        return (pixels > low[..., None]) & (pixels < high[..., None]) & there[..., None]

    inside = within(CY, H)[..., :, None] & within(CX, W)[..., None, :]  # n r side side
    return ~inside.any(1)


def _mean(values):
    """Average what is not NaN; None where there is nothing."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return round(float(values.mean()), 4) if len(values) else None


# --------------------------------------------------------------------- priors of two sentences
def contrasts(mode: str, texts) -> list:
    """Return pairs of captions that name one object each, of other classes and colours.

    Each caption is in one pair at most. [] for other data.

    Returns [(i, j)], numbers of captions.
    """
    pairs, waiting = [], {}
    for i, (kind, colour) in enumerate(_named(texts) if best_reader(mode) else ()):
        if min(kind, colour) < 0:
            continue
        apart = [one for one in waiting if one[0] != kind and one[1] != colour]
        if apart:
            pairs.append((waiting[apart[0]].pop(0), i))
            waiting = {one: left for one, left in waiting.items() if left}
        else:
            waiting.setdefault((kind, colour), []).append(i)
    return pairs


def mixed(mode: str, pictures, firsts, seconds) -> dict:
    """Return what is seen in pictures that mix the priors of two captions, {} for other data.

    pictures: uint8 (4, n, num, s, s, 3), of each of n pairs its first caption, its second, the
        first in the shape of the second, the second in the shape of the first
    firsts, seconds: n texts each; pairs that do not name an object each, of other classes and
        colours, are left out

    Shares of pictures. `plain`, of one caption: `class` and `colour` are its own. `mixed`:
    `class_of_shape`, `colour_of_appearance`, `both`; and the reverse, `class_of_appearance`,
    `colour_of_shape`.
    """
    reader = best_reader(mode)
    a, b = (np.array(_named(texts)).reshape(-1, 2) for texts in (firsts, seconds))
    there = (a >= 0).all(1) & (b >= 0).all(1) & (a != b).all(1)
    if reader is None or not there.any():
        return {}
    pictures, a, b = pictures[:, there], a[there], b[there]
    largest = reader.decode(pictures.reshape(-1, *pictures.shape[3:]))[:, 0]
    seen = largest[:, [CLASS, COLOUR]].reshape(*pictures.shape[:3], 2)

    def share(*pairs):
        """How often columns of two kinds of pictures are those of given captions."""
        found = [
            np.all([seen[k][..., i] == text[:, None, i] for i, text in columns], 0)
            for k, columns in pairs
        ]
        return round(float(np.mean(found)), 4)

    kind, colour = 0, 1
    return {
        'decoder': reader.tag['name'],
        'pairs': len(a),
        'plain': {
            'class': share((0, [(kind, a)]), (1, [(kind, b)])),
            'colour': share((0, [(colour, a)]), (1, [(colour, b)])),
        },
        'mixed': {
            'class_of_shape': share((2, [(kind, b)]), (3, [(kind, a)])),
            'colour_of_appearance': share((2, [(colour, a)]), (3, [(colour, b)])),
            'both': share((2, [(kind, b), (colour, a)]), (3, [(kind, a), (colour, b)])),
            'class_of_appearance': share((2, [(kind, a)]), (3, [(kind, b)])),
            'colour_of_shape': share((2, [(colour, b)]), (3, [(colour, a)])),
        },
    }


def _named(texts):
    """Return (class, colour) of the one object that each text describes, -1 where it does not."""
    return [_named_in(text) for text in texts]


def _named_in(text):
    try:
        objects, _ = described(text)
    except DataError:
        return -1, -1
    shapes = [one for one in objects if one.n]
    if len(shapes) != 1 or shapes[0].n != 1:
        return -1, -1
    return shapes[0].shape, shapes[0].colour


# ------------------------------------------------------------------------------------------ places
def _centres(reader, images):
    """Return the centres of the largest objects, (n, 2), NaN where none is found."""
    boxes, labels = layout(reader.decode(images.reshape(-1, *images.shape[-3:])))
    return np.where(labels[:, :1] >= 0, boxes[:, 0, :2], np.nan)
