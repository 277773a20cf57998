"""Boxes as pictures: each with its name, in the colour of its label."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
)  # of boxes; dark enough for letters on white
PAPER = 248, 248, 248  # behind boxes: a frame that can be told from the white of a sheet


def objects_of(boxes, labels, names):
    """The objects of one layout, boxes (R, 4) and labels (R,), as [{'label', 'cx', 'cy', 'w', 'h'}]."""
    return [
        {
            'label': label_name(label, names),
            **{name: round(float(x), 5) for name, x in zip(('cx', 'cy', 'w', 'h'), box)},
        }
        for box, label in zip(boxes, labels)
        if label >= 0
    ]


def label_name(label, names):
    return names[label] if names else str(label)


def pictures_of(out, meta, side=128):
    """What can be shown of a stage's samples: pictures as they are, boxes drawn; None where there is neither. uint8 ... s s 3"""
    if 'image' in out:
        return out['image']
    return (
        layout_pictures(out['boxes'], out['object_labels'], meta.object_names, side)
        if {'boxes', 'object_labels'} <= set(out)
        else None
    )


def layout_pictures(boxes, labels, names, side=128):
    """Boxes (..., R, 4) cx cy w h in [0, 1] with labels (..., R), -1 = none -> uint8 (..., side, side, 3): each with its name, in the label's colour."""
    boxes, labels = np.asarray(boxes, np.float32), np.asarray(labels)
    pictures = [
        layout_picture(*one, names, side)
        for one in zip(boxes.reshape(-1, *boxes.shape[-2:]), labels.reshape(-1, labels.shape[-1]))
    ]
    return np.stack(pictures).reshape(*labels.shape[:-1], side, side, 3)


def layout_picture(boxes, labels, names, side):
    """One of `layout_pictures`. Large boxes lie behind small ones; a name that has no room of its own is left out if it stands elsewhere."""
    picture = Image.new('RGB', (side, side), PAPER)
    draw, font = ImageDraw.Draw(picture, 'RGBA'), ImageFont.load_default(max(10, side // 13))
    there = (labels >= 0) & np.isfinite(boxes).all(1)
    boxes, labels = boxes[there], labels[there]
    order = np.argsort(-boxes[:, 2] * boxes[:, 3], kind='stable')
    low, high = (
        (boxes[order, :2] - boxes[order, 2:] / 2) * side,
        (boxes[order, :2] + boxes[order, 2:] / 2) * side - 1,
    )
    low, high = (
        np.minimum(low, (low + high) / 2 - 1),
        np.maximum(high, (low + high) / 2 + 1),
    )  # three pixels wide at least: none is lost
    corners = np.clip(np.round(np.concatenate([low, high], 1)), 0, side - 1).astype(int).tolist()
    colours = [colour_of(label) for label in labels[order]]
    for corner, colour in zip(corners, colours):
        draw.rectangle(corner, fill=(*colour, 40), outline=colour, width=max(1, side // 64))
    taken, told = [], set()
    for corner, colour, label in reversed(
        list(zip(corners, colours, labels[order]))
    ):  # large ones find a place more easily
        name = label_name(label, names)
        left, top, right, bottom = draw.textbbox((0, 0), name, font, stroke_width=1)
        place, free = place_for(corner, right - left, bottom - top, taken, corners, side)
        if free or label not in told:
            taken.append((*place, place[0] + right - left, place[1] + bottom - top))
            told.add(label)
            draw.text(
                (place[0] - left, place[1] - top),
                name,
                colour,
                font,
                stroke_width=1,
                stroke_fill=PAPER,
            )
    return np.asarray(picture)


def place_for(box, wide, high, taken, boxes, side):
    """((x, y) of a name: above its box, in it, below, beside, where it covers least of other names and then of boxes; whether it covers no name)"""
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
    """One colour a label: twelve that can be told apart, then darker ones of them."""
    dark = (1, 0.6, 0.8, 0.5, 0.9, 0.7, 0.55)[label // len(COLOURS) % 7]
    return tuple(round(dark * x) for x in COLOURS[label % len(COLOURS)])
