"""Boxes as pictures: each with the name of its label, in a colour of its own."""

import numpy as np
from PIL import Image, ImageDraw

from t2i_jax.draw import sheets

# of labels; dark enough for letters on white
COLOURS = (
    (214, 32, 38),
    (38, 84, 214),
    (28, 140, 44),
    (226, 118, 0),
    (138, 40, 188),
    (0, 142, 150),
    (208, 36, 152),
    (140, 84, 32),
    (92, 150, 10),
    (82, 82, 96),
    (0, 126, 218),
    (124, 14, 56),
)
# behind boxes: differs from the white of a sheet, so that the frame is seen
PAPER = 248, 248, 248
# of a layout's picture, in pixels
SIDE = 128
# of masks, over the whole frame
MASK = 64


def objects_of(boxes, labels, names, masks=None) -> list[dict]:
    """List the objects of one layout for JSON: [{'label', 'cx', 'cy', 'w', 'h'}].

    boxes: (R, 4)
    labels: (R,), -1 where there is none
    names: of labels; empty: numbers serve
    masks: (R, 64, 64) in [0, 1], over the frame: then each object has a `mask`, lines of . and #
      that cover its box; one of which nothing is set has none
    """
    found = []
    for number in np.flatnonzero(np.asarray(labels) >= 0):
        places = zip(('cx', 'cy', 'w', 'h'), boxes[number])
        one = {'label': label_name(labels[number], names)}
        one |= {name: round(float(x), 5) for name, x in places}
        if masks is not None:
            rows, columns = spans(boxes[number])
            mask = masks[number][rows, columns] > 0.5
            lines = [''.join('#' if pixel else '.' for pixel in line) for line in mask]
            one |= {'mask': lines} if mask.any() else {}
        found.append(one)
    return found


def spans(box, side=MASK):
    """Return the pixels that a box touches, (rows, columns) as slices: one or more of each."""
    cx, cy, w, h = (float(x) for x in box)

    def span(centre, width):
        low = np.clip(np.floor((centre - width / 2) * side + 1e-3), 0, side - 1)
        high = np.ceil((centre + width / 2) * side - 1e-3)
        return slice(int(low), int(np.clip(high, low + 1, side)))

    return span(cy, h), span(cx, w)


def mask_in_frame(mask, box, side=MASK) -> np.ndarray:
    """Lay a mask (h, w) of a box into the frame -> float32 (side, side), 0 around it."""
    frame = np.zeros((side, side), np.float32)
    place = spans(box, side)
    picked = (
        ((np.arange(s.stop - s.start) + 0.5) * n / (s.stop - s.start)).astype(int)
        for s, n in zip(place, mask.shape)
    )
    frame[place] = mask[np.ix_(*picked)]
    return frame


def label_name(label, names) -> str:
    """Name a label, by its number where there are no names."""
    return names[label] if names else str(label)


def layout_pictures(boxes, labels, names, side=SIDE, masks=None) -> np.ndarray:
    """Show layouts as pictures -> uint8 (..., side, side, 3).

    boxes: (..., R, 4), cx cy w h in [0, 1]
    labels: (..., R), -1 where there is none
    names: of labels; empty: numbers serve
    masks: (..., R, h, w) in [0, 1], which fill the boxes; None: boxes alone
    """
    boxes, labels = np.asarray(boxes, np.float32), np.asarray(labels)
    parts = [boxes.reshape(-1, *boxes.shape[-2:]), labels.reshape(-1, labels.shape[-1])]
    if masks is not None:
        masks = np.asarray(masks, np.float32)
        parts.append(masks.reshape(-1, *masks.shape[-3:]))
    pictures = [layout_picture(*one[:2], names, side, *one[2:]) for one in zip(*parts)]
    return np.stack(pictures).reshape(*labels.shape[:-1], side, side, 3)


def layout_picture(boxes, labels, names, side, masks=None):
    """Show one layout -> uint8 (side, side, 3).

    Large boxes lie behind small ones. A name without room of its own is left out where the same
    name stands elsewhere.
    """
    picture = Image.new('RGB', (side, side), PAPER)
    canvas, font = ImageDraw.Draw(picture, 'RGBA'), sheets.font(max(10, side // 13), ''.join(names))
    there = (labels >= 0) & np.isfinite(boxes).all(1)
    boxes, labels = boxes[there], labels[there]
    order = np.argsort(-boxes[:, 2] * boxes[:, 3], kind='stable')
    labels, corners = labels[order], corners_of(boxes[order], side)
    colours = [colour_of(label) for label in labels]
    for mask, colour in zip(() if masks is None else masks[there][order], colours):
        shape = Image.fromarray(np.uint8(mask > 0.5) * 150)
        shape = shape.resize((side, side), Image.Resampling.NEAREST)
        canvas.bitmap((0, 0), shape, fill=(*colour, 255))
    for corner, colour in zip(corners, colours):
        canvas.rectangle(corner, fill=(*colour, 40), outline=colour, width=max(1, side // 64))
    taken, named = [], set()
    # from small to large, since names of large boxes find a place more easily
    for corner, colour, label in reversed(list(zip(corners, colours, labels))):
        name = label_name(label, names)
        left, top, right, bottom = canvas.textbbox((0, 0), name, font, stroke_width=1)
        place, free = name_place(corner, right - left, bottom - top, taken, corners, side)
        if free or label not in named:
            taken.append((*place, place[0] + right - left, place[1] + bottom - top))
            named.add(label)
            at = place[0] - left, place[1] - top
            canvas.text(at, name, colour, font, stroke_width=1, stroke_fill=PAPER)
    return np.asarray(picture)


def corners_of(boxes, side) -> list[list[int]]:
    """Round boxes (n, 4) to the pixels of their corners: x0, y0, x1, y1."""
    low, high = (boxes[:, :2] + sign * boxes[:, 2:] / 2 for sign in (-1, 1))
    low, high = low * side, high * side - 1
    # three pixels wide at least: none is lost
    middle = (low + high) / 2
    low, high = np.minimum(low, middle - 1), np.maximum(high, middle + 1)
    corners = np.round(np.concatenate([low, high], 1))
    return np.clip(corners, 0, side - 1).astype(int).tolist()


def name_place(box, wide, high, taken, boxes, side):
    """Find the place of a name -> ((x, y), whether it covers no other name).

    Above its box, in it, below or at its sides: where it covers least of other names, and then of
    boxes.

    box: x0, y0, x1, y1
    wide, high: of the name, in pixels
    taken: corners of the other names
    boxes: corners of all boxes
    side: of the picture
    """
    x0, y0, x1, y1 = box
    places = (
        (x0, y0 - high),
        (x0 + 3, y0 + 3),
        (x0, y1 + 1),
        (x1 + 1, y0),
        (x0 - wide, y0),
        (x1 - wide, y0 - high),
        (x1 - wide, y1 + 1),
        (x0 + 3, y1 - high - 2),
        (x1 - wide - 2, y0 + 3),
        (x1 - wide - 2, y1 - high - 2),
    )
    places = [(min(max(x, 0), side - wide), min(max(y, 0), side - high)) for x, y in places]

    def covered(place, others):
        x, y = place
        return sum(
            max(0, min(x + wide, c) - max(x, a)) * max(0, min(y + high, d) - max(y, b))
            for a, b, c, d in others
        )

    best = min(places, key=lambda place: (covered(place, taken), covered(place, boxes)))
    return best, not covered(best, taken)


def colour_of(label):
    """Choose the colour of a label: twelve that differ clearly, then darker ones of them."""
    dark = (1, 0.6, 0.8, 0.5, 0.9, 0.7, 0.55)[label // len(COLOURS) % 7]
    return tuple(round(dark * x) for x in COLOURS[label % len(COLOURS)])
