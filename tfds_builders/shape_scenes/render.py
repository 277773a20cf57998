"""A scene table as pictures and masks of any size.

Every pixel is a function of the table, so only the table needs to be stored. Edges are anti-aliased
analytically: coverage = 1/2 - signed distance in pixels, cut to [0, 1], computed in each object's
patch alone. A mask is the set of pixels whose centre lies in the shape.
"""

import numpy as np

from tfds_builders.shape_scenes.scenes import CLASS, CLASSES, COLOUR, CX, CY, RGB, UNIT, H, W

_RGB = np.array(RGB, np.float32)
# side of one object mask in a record
MASK_SIZE = 64


def distance(name, x, y, radius):
    """Return the signed distance (negative inside) of points to the outline of a shape.

    The shape's box is [-radius, radius] on both axes. Exact within half a pixel of an edge, which
    is all that anti-aliasing needs; further out it is a bound.
    """
    ax, ay = np.abs(x), np.abs(y)
    if name == 'square':
        return np.maximum(ax, ay) - radius
    if name == 'diamond':
        return (ax + ay - radius) * np.float32(0.5**0.5)
    # apex up: (0, -r), (r, r), (-r, r)
    if name == 'triangle':
        return np.maximum((2 * ax - y - radius) * np.float32(0.2**0.5), y - radius)
    # arms a third of the side wide
    if name == 'cross':
        return np.minimum(
            np.maximum(ax - radius, ay - radius / 3), np.maximum(ax - radius / 3, ay - radius)
        )
    r = np.sqrt(x * x + y * y)
    return r - radius if name == 'circle' else np.maximum(r - radius, radius / 2 - r)


def patch(row, size):
    """Return ((y slice, x slice), signed distance in pixels) of an object in a picture.

    The picture has `size` pixels; the patch has a rim of one pixel.
    """
    scale = size / UNIT
    cx, cy, rx, ry = row[CX] * scale, row[CY] * scale, row[W] * scale / 2, row[H] * scale / 2
    x0, x1 = max(int(cx - rx) - 1, 0), min(int(cx + rx) + 2, size)
    y0, y1 = max(int(cy - ry) - 1, 0), min(int(cy + ry) + 2, size)
    x = np.arange(x0, x1, dtype=np.float32)[None, :] + np.float32(0.5 - cx)
    y = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5 - cy)
    return (slice(y0, y1), slice(x0, x1)), distance(CLASSES[row[CLASS]], x, y, np.float32(rx))


def background(kind, variant, size):
    """Return the background, float32 (size, size, 3) in 0..255.

    Desaturated on purpose: no background is mistaken for one of the seven colours.
    """
    canvas = np.empty((size, size, 3), np.float32)
    # white, grey, black
    if kind in (0, 1, 2):
        canvas[:] = (255.0, 128.0, 0.0)[kind]
    elif kind == 6:
        # pastel: near white, a tint
        canvas[:] = [226 + (variant >> shift & 7) * 3 for shift in (0, 3, 6)]
    else:
        position = (np.arange(size, dtype=np.float32) + 0.5) / size
        # darker greys are near green
        low = 104 + (variant & 15) * 2
        high = 165 + (variant >> 4 & 15) * 3
        # a linear ramp in one of 8 directions
        if kind == 3:
            angle = (variant >> 8 & 7) * np.pi / 4
            t = position[None, :] * np.cos(angle) + position[:, None] * np.sin(angle)
            grey = low + (high - low) * (t - t.min()) / (t.max() - t.min())
        elif kind == 4:
            bar = (position * (6 + 2 * (variant >> 8 & 3))).astype(np.int32) % 2
            grey = low + (high - low) * np.broadcast_to(
                bar[None, :] if variant >> 10 & 1 else bar[:, None], (size, size)
            )
        elif kind == 5:
            bar = (position * (4 + 2 * (variant >> 8 & 3))).astype(np.int32)
            grey = low + (high - low) * ((bar[None, :] + bar[:, None]) % 2)
        else:
            # noise in 32 x 32 cells: the same at every picture size
            cells = 132 + 56 * (
                np.random.Generator(np.random.Philox(key=[variant, 1])).random((32, 32)) - 0.5
            )
            at = (position * 32).astype(np.int32)
            grey = cells[at[:, None], at[None, :]]
        canvas[:] = np.asarray(grey, np.float32)[..., None]
    return canvas


def image(scene, size):
    """Return the picture, uint8 (size, size, 3)."""
    rows = scene.tolist()
    canvas = background(rows[-1][0], rows[-1][1], size)
    for row in rows[:-1]:
        if row[W] >= 0:
            where, d = patch(row, size)
            cover = np.clip(0.5 - d, 0, 1)[..., None]
            canvas[where] += cover * (_RGB[row[COLOUR]] - canvas[where])
    return np.rint(canvas).astype(np.uint8)


def masks(scene, size):
    """Return the whole shape of each object, whatever covers it: bool (5, size, size)."""
    rows = scene[:-1].tolist()
    out = np.zeros((len(rows), size, size), bool)
    for i, row in enumerate(rows):
        if row[W] >= 0:
            where, d = patch(row, size)
            out[i][where] = d <= 0
    return out


def segmentation(masks):
    """Return int32 (S, S) from amodal masks (R, S, S).

    0 is background, i + 1 the visible part of object i (later ones lie on top).
    """
    seg = np.zeros(masks.shape[1:], np.int32)
    for i, mask in enumerate(masks):
        seg[mask] = i + 1
    return seg


def layout(scene, seg):
    """Return float32 (S, S, 6): 1 where an object of that class is visible."""
    classes = np.concatenate([[-1], scene[:-1, CLASS]])
    return (classes[seg][..., None] == np.arange(len(CLASSES))).astype(np.float32)


def visible_boxes(seg, objects):
    """Return the boxes of what is seen of each object, float32 (R, 4): cx, cy, w, h in [0, 1].

    -1 where nothing is.
    """
    size = len(seg)
    out = np.full((objects, 4), -1, np.float32)
    for i in range(objects):
        ys, xs = np.nonzero(seg == i + 1)
        if len(xs):
            x0, x1, y0, y1 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
            out[i] = np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]) / size
    return out
