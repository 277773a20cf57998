"""An exact reader of `shape_scenes` pictures, and scores of captions from it.

The reader (`decode`) finds flat patches of the seven colours, names them by template and writes
the table in which the data set describes its scenes, so that `holds` and `entails` answer for
generated pictures, too. It is not a network: nothing is trained, so nothing can be exploited. Sharp
pictures of 64 px and more are read without error; blur of 2 px at 64 px costs a third of the
objects, so report the scores of the real test pictures (upper bound) and of shuffled captions
(lower bound) with those of a model.
"""

import functools

import cv2
import numpy as np

from tfds_builders.facts import COUNT, EXISTS, PLACE, RELATION, holds, unpack
from tfds_builders.shape_scenes.render import distance
from tfds_builders.shape_scenes.scenes import (
    CLASS,
    CLASSES,
    COLOUR,
    COLUMNS,
    CX,
    CY,
    MODES,
    RGB,
    SIZE,
    THRESHOLDS,
    UNIT,
    H,
    W,
)

# White, grey and black take part so that pixels of the background belong to no colour.
_PALETTE = np.array([*RGB, (255, 255, 255), (128, 128, 128), (0, 0, 0)], np.float32) / 255
# of the templates
_SIDE = 32
MIN_AREA, MIN_CORE, MIN_IOU = 0.008, 0.12, 0.45
# rows of a decoded scene: more than a scene has, so that too many objects are noticed
MAX_FOUND = 8


@functools.cache
def _templates():
    """Return the shape of each class filling its box, bool (6, 32, 32)."""
    line = ((np.arange(_SIDE) + 0.5) / _SIDE * 2 - 1).astype(np.float32)
    return np.stack(
        [distance(name, line[None, :], line[:, None], np.float32(1)) <= 0 for name in CLASSES]
    )


def colour_map(image):
    """Return the nearest colour of each pixel of uint8 (S, S, 3), uint8 (S, S).

    0 to 6 as in COLOURS, 7 to 9 white, grey, black.
    """
    pixels = image.reshape(-1, 3).astype(np.float32) / 255
    # argmax of it is argmin of the Euclidean distance
    closeness = pixels @ _PALETTE.T - (_PALETTE**2).sum(1) / 2
    return closeness.argmax(1).astype(np.uint8).reshape(image.shape[:2])


def decode(image, mode, keep_unknown=True):
    """Return the scene table of one picture, int32 (9, 8): up to 8 objects and the background.

    image: uint8 (S, S, 3), S >= 32 (pictures below 64 px are doubled first)
    mode: 'single' or 'multi', which sets the limits of the sizes
    keep_unknown: whether a patch whose IoU with every template is below 0.45 stays, with class -1

    The largest object comes first. Background: 0 white, 1 grey, 2 black where the border is plain,
    otherwise -1. Raises ValueError for another mode and for pictures of another kind.
    """
    if mode not in MODES:
        raise ValueError(f'mode is {mode!r}; shape scenes are {" or ".join(MODES)}')
    image = np.asarray(image)
    if (
        image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[0] != image.shape[1]
        or image.shape[2] != 3
    ):
        raise ValueError(
            f'decode reads square uint8 pictures (S, S, 3), not {image.dtype} {image.shape}'
        )
    if len(image) < 64:
        image = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    size = len(image)
    colours = colour_map(image)
    border = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    ground = int(np.bincount(border, minlength=len(_PALETTE)).argmax())
    found = [
        row
        for colour in range(len(RGB))
        if colour != ground
        for row in _patches(colours == colour, colour, size, mode)
    ]
    found = sorted(
        (row for row in found if keep_unknown or row[CLASS] >= 0), key=lambda row: -row[W] * row[H]
    )[:MAX_FOUND]
    scene = np.full((MAX_FOUND + 1, COLUMNS), -1, np.int32)
    for depth, row in enumerate(found):
        scene[depth] = (*row, depth)
    plain = (
        ground >= len(RGB)
        and (border == ground).mean() > 0.9
        and image[[0, -1]].std((0, 1)).max() < 12
    )
    scene[-1, 0] = ground - len(RGB) if plain else -1
    return scene


def _patches(mask, colour, size, mode):
    """Return the objects of one colour, rows without the depth."""
    if mask.sum() < MIN_AREA * size * size:
        return []
    mask = mask.view(np.uint8)
    cross = (
        np.ones((3, 3), np.uint8)
        if size >= 96
        else np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    )
    core = cv2.erode(mask, cross)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    rows = []
    for i in range(1, count):
        x, y, w, h, area = stats[i]
        if area < MIN_AREA * size * size:
            continue
        where = slice(y, y + h), slice(x, x + w)
        patch = labels[where] == i
        # Anti-aliased rims between two colours can be nearest to a third one; they are thin and do
        # not survive an erosion.
        if core[where][patch].sum() < MIN_CORE * area:
            continue
        shape = (
            cv2.resize(patch.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
            >= 0.5
        )
        common = (_templates() & shape).sum((1, 2))
        iou = common / np.maximum((_templates() | shape).sum((1, 2)), 1)
        small, medium = THRESHOLDS[mode]
        # Corners get lost and noise sticks out: the side by area, averaged with that of the box, is
        # wrong less often than the box alone.
        side = (max(w, h) + (area / _templates()[iou.argmax()].mean()) ** 0.5) / 2 / size
        rows.append(
            (
                int(iou.argmax()) if iou.max() >= MIN_IOU else -1,
                colour,
                int(side >= small) + int(side >= medium),
                round((x + w / 2) / size * UNIT),
                round((y + h / 2) / size * UNIT),
                round(w / size * UNIT),
                round(h / size * UNIT),
            )
        )
    return rows


def decode_all(images, mode):
    """Return the scene tables of uint8 (N, S, S, 3), int32 (N, 9, 8)."""
    return np.stack([decode(image, mode) for image in images])


def recall(decoded, truth, near=0.10):
    """Return how much of a true scene was read, {name: number}.

    decoded, truth: scene tables
    near: how far, of the frame, a position may be off

    `objects`, and of how many of them are right in `class_colour`, `+ size`, `+ position`; `exact`:
    all are right and nothing else was found. An object matches one of its class and colour, the
    nearest first, each once.
    """
    found = [row for row in decoded[:-1].tolist() if row[CLASS] >= 0]
    extra = len(found)
    wanted = [row for row in truth[:-1].tolist() if row[W] >= 0]
    counts = {'objects': len(wanted), 'class_colour': 0, '+ size': 0, '+ position': 0}

    def gap(a, b):
        return ((a[CX] - b[CX]) ** 2 + (a[CY] - b[CY]) ** 2) ** 0.5

    for row in wanted:
        same = [other for other in found if other[: COLOUR + 1] == row[: COLOUR + 1]]
        if not same:
            continue
        best = min(same, key=lambda other: gap(row, other))
        found.remove(best)
        right_size = best[SIZE] == row[SIZE]
        counts['class_colour'] += 1
        counts['+ size'] += right_size
        counts['+ position'] += right_size and gap(row, best) < near * UNIT
    return {**counts, 'exact': int(counts['+ position'] == len(wanted) == extra)}


def _descriptions(facts):
    """Return what captions describe as present: (shape, colour, size), each (N, 2A).

    -1 is any. The second objects of relations come last.
    """
    kind = facts[..., 0]
    present = (kind == RELATION) | (((kind == EXISTS) | (kind == PLACE)) & (facts[..., 4] != 0))
    first = np.where(present[..., None], facts[..., 1:4], -1)
    second = np.stack(unpack(facts[..., 5]), -1)
    second = np.where((kind == RELATION)[..., None], second, -1)
    return np.moveaxis(np.concatenate([first, second], -2), -1, 0)


def _shown(scenes, shape, colour, size, wanted):
    """Return whether scenes show all wanted descriptions, and whether there are any: (N,)."""
    facts = np.full((*wanted.shape, 6), -1, np.int32)
    facts[..., 0] = np.where(wanted, EXISTS, -1)
    facts[..., 1], facts[..., 2], facts[..., 3] = shape, colour, size
    return holds(facts, scenes).all(-1), wanted.any(-1)


def caption_results(scenes, facts):
    """Return what is right of each caption, {name: (right, said)}, bool (N,) each.

    scenes: (N, R + 1, 8), decoded or true
    facts: (N, A, 6), the caption of each picture

    `said` is whether the caption says anything of the kind. Names:

    colour, class       each colour (class) that is mentioned is somewhere in the picture
    class_circle, ...   the class of that name, of captions that mention it
    class_colour        each class mentioned with its colour is there as one object
    size                each object mentioned with a size is there, as described
    place, relation     the atoms of that kind hold
    count               the numbers hold ('two circles', 'three shapes')
    exact               everything that the caption says holds
    """
    shape, colour, size = _descriptions(facts)
    true, kind = holds(facts, scenes), facts[..., 0]

    def atoms(which):
        return (true | ~which).all(-1), which.any(-1)

    return {
        'colour': _shown(scenes, -1, colour, -1, colour >= 0),
        'class': _shown(scenes, shape, -1, -1, shape >= 0),
        **{
            f'class_{name}': _shown(scenes, shape, -1, -1, shape == i)
            for i, name in enumerate(CLASSES)
        },
        'class_colour': _shown(scenes, shape, colour, -1, (shape >= 0) & (colour >= 0)),
        'size': _shown(scenes, shape, colour, size, size >= 0),
        'place': atoms(kind == PLACE),
        'relation': atoms(kind == RELATION),
        'count': atoms((kind == COUNT) | ((kind == EXISTS) & (facts[..., 4] > 0))),
        'exact': atoms(kind >= 0),
    }


def score(scenes, facts):
    """Return the shares of `caption_results` over the captions that say anything of the kind.

    NaN where none does. `atoms` is the share of facts that hold.
    """
    results = caption_results(scenes, facts).items()
    shares = {
        name: float(right[said].mean()) if said.any() else float('nan')
        for name, (right, said) in results
    }
    used = facts[..., 0] >= 0
    shares['atoms'] = float(holds(facts, scenes)[used].mean()) if used.any() else float('nan')
    return shares


def caption_scores(images, facts, mode):
    """Return the shares of pictures that show what their captions say.

    images: uint8 (N, S, S, 3)
    facts: int (N, A, 6), those of the caption from which each picture was made
    mode: 'single' or 'multi'

    The names are those of `caption_results` and `atoms`: `colour` counts only captions that mention
    a colour, `class_colour` only those that mention both of one object, and so on; NaN where no
    caption does. Raises ValueError for other numbers of images and captions.
    """
    images, facts = np.asarray(images), np.asarray(facts)
    if len(images) != len(facts):
        raise ValueError(
            f'{len(images)} images and the facts of {len(facts)} captions: give one caption for '
            'each image'
        )
    return score(decode_all(images, mode), facts)
