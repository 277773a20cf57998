"""Attention as pictures: the strongest words of each map as heat over the picture.

    # how much each pixel looks at each word: of each map n num s s t
    maps = Sampler.load(workdir)(['a red circle'], num=4, attention=True)['attention']
    rows(picture, words, maps)    # cells with the words beneath

AttnGAN's pixels look at words (each pixel's attention sums to 1), DAMSM's words look at regions
(each word's does). scenes/attention.py measures whether they look at the right objects.
"""

import cv2
import numpy as np
from PIL import Image, ImageDraw

from t2i_jax.draw import sheets

# of a map that are shown
WORDS = 5
# pixels of a cell, at least, and of the words beneath
SIDE, STRIP = 128, 20
# pictures of a sentence whose attention is shown
SAMPLES = 4


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
    heat = cv2.resize(np.asarray(heat, np.float32), (s, s), interpolation=cv2.INTER_LINEAR)
    heat = np.clip(heat, 0, 1)[..., None]
    # the same colours as matplotlib's, whose import would take a tenth of the start
    colours = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = 0.5 * picture.mean(-1, keepdims=True) + 0.5 * picture
    mixed = grey * (1 - 0.75 * heat) + colours * 0.75 * heat
    return np.round(mixed).astype(np.uint8)


def cell(picture, label) -> np.ndarray:
    """Return a picture with a label beneath it, uint8 (s + STRIP, s, 3).

    It is enlarged by a whole factor to SIDE pixels or more.
    """
    scale = -(-SIDE // len(picture))
    picture = np.repeat(np.repeat(picture, scale, 0), scale, 1)
    s = len(picture)
    canvas, font = Image.new('RGB', (s, s + STRIP), 'white'), sheets.font(13, label)
    canvas.paste(Image.fromarray(picture), (0, 0))
    ImageDraw.Draw(canvas).text((s // 2, s + 2), label, 'black', font, anchor='ma')
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
    most: the value that is shown as 1, by default the largest of these maps
    """
    most = most or float(maps[..., order].max(initial=1e-9))
    cells = [cell(picture, label)]
    cells += [cell(overlay(picture, maps[..., i] / most), words[i]) for i in order]
    white = np.full_like(cells[0], 255)
    return np.stack(cells + [white] * (count + 1 - len(cells)))


def looks_of(samples) -> list[tuple]:
    """List what looked at words: [(a name, maps n ... s s t)], of pixels, then of objects."""
    found = [(f'map {x.shape[-2]} x {x.shape[-2]}', x) for x in samples.get('attention', ())]
    of_objects = samples.get('object_attention')
    return found if of_objects is None else [*found, ('objects', of_objects)]


def rows(picture, words, maps, labels=(), count=WORDS) -> np.ndarray:
    """Return the strongest words of each map over the picture: maps, count + 1, cells.

    picture: uint8 (s, s, 3)
    words: of the sentence, at most t
    maps: each (s, s, t), in its own size
    labels: of the maps, by default their sizes
    count: words of each map
    """
    found = []
    labels = labels or [f'map {len(one)} x {len(one)}' for one in maps]
    for one, label in zip(maps, labels):
        known = np.asarray(one, np.float32)[..., : len(words)]
        found.append(row(picture, words, known, strongest(known, count), count, label))
    return np.stack(found)


def sample_sheet(samples, number, words, path=None) -> np.ndarray:
    """Draw the attention of one sentence's samples as a contact sheet -> h w 3 uint8.

    It has a line for each map of the first samples.

    samples: pictures and maps, as Sampler returns them
    number: of the sentence
    words: of the sentence, those that the run knows
    path: where it is written
    """
    lines, labels = [], []
    names, looks = zip(*looks_of(samples))
    for i, picture in enumerate(samples['image'][number][:SAMPLES]):
        lines.append(rows(picture, words, [one[number, i] for one in looks], names))
        labels += [f'sample {i + 1}'] + [''] * (len(lines[-1]) - 1)
    return sheets.sheet(np.concatenate(lines), labels, path, scale=1, title=' '.join(words))
