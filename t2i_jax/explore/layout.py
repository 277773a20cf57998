"""Edits of layouts: one object moves, grows, goes, comes, or becomes another; the noise stays."""

import numpy as np

from t2i_jax.data.layouts import read_layouts
from t2i_jax.draw.boxes import SIDE, layout_pictures, mask_in_frame, spans
from t2i_jax.explore.request import Found, held_out, take
from t2i_jax.metrics.layout import intersections
from t2i_jax.runtime.errors import DataError
from t2i_jax.sample import Sampler
from t2i_jax.scenes import explored

EDITS = 'moved', 'scaled', 'deleted', 'added', 'renamed'
# by how much of the frame an object moves, and how much larger or smaller it becomes
STEP, GROWTH = 0.3, 1.4
# of the frame: boxes are widened by so much before what lies outside of them is compared
MARGIN = 1 / 32


class Scene:
    """One layout that is edited: boxes (R, 4), labels (R,), -1 where none is, masks (R, 64, 64).

    A mask of which nothing is set is made by the stage. edited: the number of the edited object.
    """

    def __init__(self, boxes, labels, masks, edited=None):
        self.boxes, self.labels, self.masks = (np.array(x) for x in (boxes, labels, masks))
        self.edited = edited

    def copy(self) -> 'Scene':
        return Scene(self.boxes, self.labels, self.masks, self.edited)

    @property
    def there(self):
        return np.flatnonzero(self.labels >= 0)

    def placed(self, box) -> 'Scene':
        """Return the layout with the edited object in another box, its mask stretched with it."""
        new, i = self.copy(), self.edited
        mask = self.masks[i][spans(self.boxes[i])]
        new.boxes[i], new.masks[i] = box, mask_in_frame(mask, box)
        return new


# ------------------------------------------------------------------------------------------- edits
def moved(layout) -> Scene:
    """Move the object by STEP in the direction in which it stays in the frame and meets least."""
    cx, cy, w, h = layout.boxes[layout.edited]
    ways = [(STEP, 0), (-STEP, 0), (0, STEP), (0, -STEP)]
    boxes = np.array([inside((cx + x, cy + y, w, h)) for x, y in ways])
    way = np.abs(boxes[:, :2] - (cx, cy)).sum(1)
    return layout.placed(boxes[np.argmin(met(boxes, layout) - 2 * way)])


def scaled(layout) -> Scene:
    """Enlarge the object where it stays in the frame, else make it smaller; its centre stays."""
    box = layout.boxes[layout.edited]
    larger = np.concatenate([box[:2], box[2:] * GROWTH])
    fits = (larger[:2] >= larger[2:] / 2).all() and (larger[:2] <= 1 - larger[2:] / 2).all()
    return layout.placed(larger if fits else np.concatenate([box[:2], box[2:] / GROWTH]))


def deleted(layout) -> Scene:
    new = layout.copy()
    new.labels[layout.edited], new.boxes[layout.edited], new.masks[layout.edited] = -1, 0, 0
    return new


def added(layout, classes) -> Scene | None:
    """Add an object of a class that is not there, as large as the edited one, where there is room.

    None where a scene is full.
    """
    free = np.flatnonzero(layout.labels < 0)
    if not len(free):
        return None
    new, side = layout.copy(), layout.boxes[layout.edited][2:]
    new.edited = free[0]
    new.labels[free[0]] = another(layout, classes)
    grid = np.linspace(0, 1, 7)
    boxes = np.array([inside((x, y, *side)) for x in grid for y in grid])
    new.boxes[free[0]], new.masks[free[0]] = boxes[np.argmin(met(boxes, layout, True))], 0
    return new


def renamed(layout, classes) -> Scene:
    new = layout.copy()
    new.labels[layout.edited], new.masks[layout.edited] = another(layout, classes), 0
    return new


def another(layout, classes):
    """Return a class that the scene does not have, the next of that of the edited object."""
    own = layout.labels[layout.edited]
    others = [(own + i) % classes for i in range(1, classes + 1)]
    return next((label for label in others if label not in layout.labels), others[0])


def met(boxes, layout, everything=False):
    """Return how much of other objects boxes (n, 4) cover, (n,)."""
    others = layout.there if everything else layout.there[layout.there != layout.edited]
    return intersections(boxes, layout.boxes[others]).sum(1)


def inside(box):
    """Shift a box into the frame."""
    cx, cy, w, h = box
    return np.array([np.clip(cx, w / 2, 1 - w / 2), np.clip(cy, h / 2, 1 - h / 2), w, h])


# ------------------------------------------------------------------------------------------- sheet
def layout_sheet(request) -> Found:
    """Show two rows for each layout: its edits, and the pictures that are drawn of them.

    Given layouts are edited, or those that the stage makes of given sentences, or true ones of
    held-out records.
    """
    sampler = request.sampler
    batch, texts, layouts = starts(request)
    noise = sampler.noise(1, request.seed, len(texts))
    classes = sampler.meta.object_classes
    rows = [edits_of(layout, classes) for layout in layouts]
    k = 1 + len(EDITS)
    every = [layout or row[0] for row in rows for layout in row]
    several = np.repeat(np.arange(len(texts)), k)
    given = {
        'given_boxes': np.float32([one.boxes for one in every]),
        'given_labels': np.int32([one.labels for one in every]),
        'given_masks': np.float32([one.masks for one in every]),
    }
    out = sampler.sample(take(batch, several) | given, take(noise, several), (len(texts), k))
    pictures, side = out['image'], out['image'].shape[2]
    shown = layout_pictures(
        out['boxes'], out['object_labels'], sampler.meta.object_names, max(side, SIDE), out['masks']
    )
    factor = shown.shape[2] // side
    pictures = np.repeat(np.repeat(pictures, factor, 2), factor, 3)
    labels = [label for text in texts for label in (text, f'as drawn: {", ".join(EDITS)}')]
    both = np.stack([shown, pictures], 1).reshape(-1, *pictures.shape[1:])
    return Found(both, labels, numbers(sampler, rows, out['image']))


def starts(request):
    """Return the conditions of a request, (a batch of n rows, n texts, n layouts)."""
    sampler, num = request.sampler, request.num
    if not request.texts and request.layouts:
        raise DataError('A layout is drawn together with a sentence: give --text="...", too.')
    if not request.texts:
        needs = ('boxes', 'object_labels', 'object_masks')
        rows = held_out(sampler, num, needs)
        batch = rows.batch()
        keys = ('boxes', 'object_labels', 'object_masks')
        layouts = [editable(*one) for one in zip(*(np.asarray(batch[name]) for name in keys))]
        texts = [text or f'record {row}' for row, text in zip(rows.rows, rows.texts)]
        kept = [i for i, layout in enumerate(layouts) if layout]
        if not kept:
            raise DataError('No held-out record that was looked at has an object: give --layout.')
        batch = {'encoded': take(sampler.encode(batch), np.array(kept))}
        return batch, [texts[i] for i in kept], [layouts[i] for i in kept]
    texts, encoded = list(request.texts), sampler.encode(request.texts)
    if request.layouts:
        found = read_layouts(request.layouts, sampler.meta)
        parts = [found[f'given_{name}'] for name in ('boxes', 'labels', 'masks')]
        n = max(len(texts), len(parts[0]))
        if {len(texts), len(parts[0])} - {1, n}:
            raise DataError(
                f'Give as many of each: {len(texts)} sentences, {len(parts[0])} layouts.'
            )
        texts = texts * n if len(texts) == 1 else texts
        parts = [np.repeat(x, n, 0) if len(x) == 1 else x for x in parts]
        encoded = take(encoded, np.arange(n) % len(request.texts))
    else:
        # one of each, so that all begin from the same noise
        out = sampler.sample(
            {'encoded': encoded}, sampler.noise(1, request.seed, len(texts)), (len(texts),)
        )
        parts = [out[name] for name in ('boxes', 'object_labels', 'masks')]
    layouts = [editable(*one) for one in zip(*parts)]
    for text, layout in zip(texts, layouts):
        if not layout:
            raise DataError(f'The layout of {text!r} has no object to edit.')
    return {'encoded': encoded}, texts, layouts


def editable(boxes, labels, masks) -> Scene | None:
    """Return a layout whose smallest object is edited; None for one without objects."""
    there = np.flatnonzero(labels >= 0)
    if not len(there):
        return None
    smallest = there[boxes[there, 2:].prod(1).argmin()]
    return Scene(boxes, labels, np.float32(masks > 0.5), smallest)


def edits_of(layout, classes) -> list:
    """Return a layout and its EDITS; None for one that is not possible."""
    more = added(layout, classes), renamed(layout, classes)
    return [layout, moved(layout), scaled(layout), deleted(layout), *more]


def numbers(sampler: Sampler, rows, pictures) -> dict:
    """Compute what edits did, {edit: numbers}; boxes before and after are widened by MARGIN.

    outside, inside: mean |difference| of pixels in [0, 1] off both boxes of the edited object, and
    in them. On shape scenes see `explored.layout_edits`.
    """
    found = {}
    for k, name in enumerate(EDITS, start=1):
        use = [i for i, row in enumerate(rows) if row[k]]
        if not use:
            continue
        before, after = ([rows[i][j] for i in use] for j in (0, k))
        change = np.abs(pictures[use, k].astype(np.float32) - pictures[use, 0]).mean(-1) / 255
        boxes = np.array(
            [[old.boxes[new.edited], new.boxes[new.edited]] for old, new in zip(before, after)]
        )
        within = np.stack([covered(pair, change.shape[1]) for pair in boxes])
        found[name] = {
            'n': len(use),
            'outside': mean(change[~within]),
            'inside': mean(change[within]),
            'distance': mean(np.linalg.norm(boxes[:, 1, :2] - boxes[:, 0, :2], axis=-1)),
        }
        if name in ('deleted', 'added'):
            del found[name]['distance']
        found[name] |= explored.layout_edits(
            sampler.meta.scenes, pictures[use, 0], pictures[use, k], before, after
        )
    return found


def covered(boxes, side):
    """Return which pixels lie in any of some boxes, widened: bool (side, side)."""
    pixels, inside = (np.arange(side) + 0.5) / side, np.zeros((side, side), bool)
    for cx, cy, w, h in boxes:
        if w > 0:
            rows, columns = (np.abs(pixels - c) <= d / 2 + MARGIN for c, d in ((cy, h), (cx, w)))
            inside |= rows[:, None] & columns
    return inside


def mean(values):
    """Average; None of nothing."""
    return round(float(np.mean(values)), 5) if np.size(values) else None
