"""Contact sheets: arrays of pictures -> PNG."""

import math

import numpy as np
from einops import repeat
from PIL import Image, ImageDraw, ImageFont

from tfds_builders.atomic import replacing
from tfds_builders.errors import short

# characters of a label that are drawn
LABEL = 400
INK, GREY = (32, 32, 32), (128, 128, 128)


def font(size, text=''):
    """Return a font for a text: Pillow's for ASCII, else DejaVu Sans.

    That has Latin, Greek, Cyrillic and Arabic letters; what it lacks becomes boxes.
    """
    if text.isascii():
        return ImageFont.load_default(size)
    # only where it is needed, since it takes a while
    import matplotlib

    return ImageFont.truetype(f'{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf', size)


def save_png(path, picture):
    """Write a picture (h w 3 or h w, uint8), so that it appears whole or not at all."""
    with replacing(path) as temporary:
        Image.fromarray(np.asarray(picture)).save(temporary, format='PNG')


def sheet(rows, labels=None, path=None, *, columns=None, title=None, real=None, scale=None):
    """Draw a contact sheet: the samples of each sentence in a row, next to the sentence.

    rows: n k s s 3 uint8, k samples of each of n sentences; more than 12 fill several lines
    labels: the sentences, None without any
    path: where the picture is written as PNG
    columns: how many sentences stand side by side, by default one, and where there is one sample of
        each as many as make a square; sentences stand above wide pictures then
    real: n s s 3 uint8, the picture that belongs to each sentence, in a column of its own
    scale: how many pixels wide and high each pixel is drawn, by default so that a side has 64

    Returns the sheet, h w 3 uint8. Raises ValueError for another type or number of pictures.
    """
    rows, real = np.asarray(rows), None if real is None else np.asarray(real)
    n, k, *shape = rows.shape if rows.ndim == 5 else (0, 0)
    # a longer one would be most of the sheet
    labels = [one if len(one) <= LABEL else short(one, LABEL) for one in labels or [''] * n]
    given = [(rows.shape, rows.dtype)] + ([] if real is None else [(real.shape, real.dtype)])
    if (
        not n * k
        or len(labels) != n
        or given[0][1] != np.uint8
        or given[1:] not in ([], [((n, *shape), np.uint8)])
    ):
        raise ValueError(
            'A sheet is drawn from n k s s 3 samples, n s s 3 real pictures, both uint8, and n '
            'labels, '
            f'not from {given} and {len(labels)} labels.'
        )
    scale = scale or -(-64 // min(shape[:2]))
    columns = min(n, columns or (math.ceil(n**0.5) if k == 1 else 1))
    side, wide = shape[0] * scale, shape[1] * scale
    # of the letters
    size = min(max(12, side // 9), 20)
    plain, small = font(size, ''.join(labels)), font(size - 2)
    margin, gap, space, line = 16, 2, size, math.ceil(1.3 * size)
    below = space if any(labels) else gap

    across = k if k <= 12 else math.ceil(k**0.5)
    first = 0 if real is None else wide + space
    high, drawn = -(-k // across) * (side + gap) - gap, first + across * (wide + gap) - gap
    # the pictures of each sentence
    strips = np.full((n, high, drawn, shape[2]), 255, np.uint8)
    if real is not None:
        strips[:, :side, :wide] = repeat(real, 'n h w c -> n (h y) (w x) c', y=scale, x=scale)
    for i in range(k):
        y, x = i // across * (side + gap), first + i % across * (wide + gap)
        strips[:, y : y + side, x : x + wide] = repeat(
            rows[:, i], 'n h w c -> n (h y) (w x) c', y=scale, x=scale
        )

    above = columns > 1 and real is None and drawn >= 12 * size
    text = 0 if not any(labels) else drawn if above else min(max(14 * size, wide), 22 * size)
    wrapped = [wrap(label, plain, text) for label in labels]
    cell = drawn if above or not text else text + space + drawn
    # what stands side by side
    groups = [range(i, min(i + columns, n)) for i in range(0, n, columns)]
    texts = [line * max(len(wrapped[i]) for i in group) for group in groups]
    heights = [t + high if above else max(t, high) for t in texts]
    y = margin + (2 * line if title else 0) + (line if real is not None else 0)
    width = 2 * margin + columns * (cell + 2 * space) - 2 * space
    height = y + sum(heights) + len(groups) * below - below + margin
    canvas = Image.new('RGB', (width, height), 'white')
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((margin, margin), title, INK, font(size + 4, title))
    for group, height in zip(groups, heights):
        for column, i in enumerate(group):
            x, block = margin + column * (cell + 2 * space), line * len(wrapped[i])
            top = y + height - high if above else y + (height - high) // 2
            # level with the first line
            start = top - block - gap if above else top + (max(side, min(block, high)) - block) // 2
            for j, words in enumerate(wrapped[i]):
                draw.text((x, start + j * line), words, INK, plain)
            canvas.paste(Image.fromarray(strips[i]), (x + cell - drawn, top))
            if real is not None and group is groups[0]:
                draw.text(
                    (x + cell - drawn + wide // 2, top - line), 'real', GREY, small, anchor='ma'
                )
        y += height + below
    if path is not None:
        save_png(path, canvas)
    return np.asarray(canvas)


def wrap(text, font, width):
    """Return the lines of a text that fit into a width; a wider word is broken."""
    lines = []
    for paragraph in text.splitlines():
        lines.append('')
        for word in paragraph.split():
            if lines[-1] and font.getlength(f'{lines[-1]} {word}') > width:
                lines.append('')
            lines[-1] = f'{lines[-1]} {word}'.strip()
            while font.getlength(lines[-1]) > width and len(lines[-1]) > 1:
                fits = next(
                    i
                    for i in range(len(lines[-1]) - 1, 0, -1)
                    if i == 1 or font.getlength(lines[-1][:i]) <= width
                )
                lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    return lines
