"""Attention, drawn: the strongest words of each map as heat over the picture.

    # how much each pixel looks at each word: of each map n num s s t
    maps = Sampler.load(workdir)(['a red circle'], num=4, attention=True)['attention']
    rows(picture, words, maps)    # cells with the words beneath

AttnGAN's pixels look at words (each pixel's attention sums to 1), DAMSM's words look at regions
(each word's does). scenes/attention.py measures whether they look at the right objects.
"""

import cv2
import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from t2i_jax.draw import sheets

# of a map that are shown
WORDS = 5
# pixels of a cell, at least, and of the words beneath
SIDE, STRIP = 128, 20
# pictures of a sentence whose attention is shown
SAMPLES = 4
HEAT = colormaps['inferno']


def strongest(maps, count=WORDS) -> np.ndarray:
    """Return the numbers of the words with most mass in maps (s, s, t), the strongest first.

    As in AttnGAN's code, only what is more than twice an even share counts; where nothing is, all
    does.
    """
    # a caption may have no word that the run knows
    t = max(1, maps.shape[-1])
    above = (maps * (maps > 2 / t)).sum((0, 1))
    return np.lexsort((-maps.sum((0, 1)), -above))[:count]


def overlay(picture, heat) -> np.ndarray:
    """Return a picture (s, s, 3) uint8 with a map (h, w) in [0, 1] over it.

    It is grey where the map is 0 and has the heat's colour where it is 1.
    """
    s = len(picture)
    heat = np.clip(
        cv2.resize(np.asarray(heat, np.float32), (s, s), interpolation=cv2.INTER_LINEAR), 0, 1
    )[..., None]
    grey = 0.5 * picture.mean(-1, keepdims=True) + 0.5 * picture
    return np.round(
        grey * (1 - 0.75 * heat) + 255 * HEAT(heat[..., 0])[..., :3] * 0.75 * heat
    ).astype(np.uint8)


def cell(picture, label) -> np.ndarray:
    """Return a picture with a label beneath it, uint8 (s + STRIP, s, 3).

    It is enlarged by a whole factor to SIDE pixels or more.
    """
    scale = -(-SIDE // len(picture))
    picture = np.repeat(np.repeat(picture, scale, 0), scale, 1)
    canvas = Image.new('RGB', (len(picture), len(picture) + STRIP), 'white')
    canvas.paste(Image.fromarray(picture), (0, 0))
    ImageDraw.Draw(canvas).text(
        (len(picture) // 2, len(picture) + 2),
        label,
        'black',
        ImageFont.load_default(13),
        anchor='ma',
    )
    return np.asarray(canvas)


def row(picture, words, maps, order, count, label='', most=None) -> np.ndarray:
    """Return the picture, then some words' maps over it: `count + 1` cells.

    Where there are fewer words, cells are white.

    picture: uint8 (s, s, 3)
    words: of the sentence
    maps: (h, w, t)
    order: numbers of the words that are shown
    count: cells after the first one
    label: of the picture
    most: the value that is drawn as 1, by default the largest of these maps
    """
    most = most or float(maps[..., order].max(initial=1e-9))
    cells = [cell(picture, label)] + [
        cell(overlay(picture, maps[..., i] / most), words[i]) for i in order
    ]
    return np.stack(cells + [np.full_like(cells[0], 255)] * (count + 1 - len(cells)))


def rows(picture, words, maps, count=WORDS) -> np.ndarray:
    """Return the strongest words of each map over the picture: maps, count + 1, cells.

    picture: uint8 (s, s, 3)
    words: of the sentence, at most t
    maps: each (s, s, t), in its own size
    count: words of each map
    """
    known = [np.asarray(one, np.float32)[..., : len(words)] for one in maps]
    return np.stack(
        [
            row(picture, words, one, strongest(one, count), count, f'map {len(one)} x {len(one)}')
            for one in known
        ]
    )


def sample_sheet(drawn, number, words, path):
    """Write the attention of one sentence's samples as a contact sheet.

    It has a line for each map of the first samples.

    drawn: the pictures and maps that Sampler gave
    number: of the sentence
    """
    found = [
        rows(picture, words, [one[number, i] for one in drawn['attention']])
        for i, picture in enumerate(drawn['image'][number][:SAMPLES])
    ]
    lines = np.concatenate(found)
    labels = [
        f'sample {i + 1}' if j == 0 else ''
        for i, part in enumerate(found)
        for j in range(len(part))
    ]
    sheets.sheet(lines, labels, path, scale=1, title=' '.join(words))
