"""What words and pixels have to do with each other, drawn: for each map of attention its strongest words, as heat over the picture.

    Sampler.load(workdir)(['a red circle'], num=4, attention=True)['attention']      # of each map n num s s t: how much each pixel looks at each word
    attention_pictures.rows(picture, words, maps)                                    # cells with the words beneath

AttnGAN's pixels look at words (each pixel's attention sums to 1), DAMSM's words look at regions (each word's does). On shape_scenes the words for
colours and classes are compared with the objects that they are true of.
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


# ------------------------------------------------------------------------------------------------------------------ drawing
def strongest(maps, count=WORDS) -> np.ndarray:
    """The words with most mass in maps, s s t -> their numbers, the strongest first. As in AttnGAN's code only what is more than twice an even share
    counts; where nothing is, all does."""
    # a caption may have no word that the run knows
    t = max(1, maps.shape[-1])
    above = (maps * (maps > 2 / t)).sum((0, 1))
    return np.lexsort((-maps.sum((0, 1)), -above))[:count]


def overlay(picture, heat) -> np.ndarray:
    """A map (h, w) in [0, 1] over a picture uint8 s s 3: grey where it is 0, of the heat's colour where it is 1."""
    s = len(picture)
    heat = np.clip(
        cv2.resize(np.asarray(heat, np.float32), (s, s), interpolation=cv2.INTER_LINEAR), 0, 1
    )[..., None]
    grey = 0.5 * picture.mean(-1, keepdims=True) + 0.5 * picture
    return np.round(
        grey * (1 - 0.75 * heat) + 255 * HEAT(heat[..., 0])[..., :3] * 0.75 * heat
    ).astype(np.uint8)


def cell(picture, label) -> np.ndarray:
    """A picture, enlarged to SIDE or more by whole factors, with a label beneath: uint8 (s + STRIP) s 3."""
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
    """The picture, then the maps h w t of the words of `order` over it, relative to `most`, by default their largest value -> count + 1 cells, white
    where there are fewer."""
    most = most or float(maps[..., order].max(initial=1e-9))
    cells = [cell(picture, label)] + [
        cell(overlay(picture, maps[..., i] / most), words[i]) for i in order
    ]
    return np.stack(cells + [np.full_like(cells[0], 255)] * (count + 1 - len(cells)))


def rows(picture, words, maps, count=WORDS) -> np.ndarray:
    """Of each attention map, s s t, the strongest words over the picture uint8 s s 3 -> maps, count + 1, cells. words: of the sentence, at most t."""
    known = [np.asarray(one, np.float32)[..., : len(words)] for one in maps]
    return np.stack(
        [
            row(picture, words, one, strongest(one, count), count, f'map {len(one)} x {len(one)}')
            for one in known
        ]
    )


def sample_sheet(drawn, number, words, path):
    """Writes the attention of the samples of one sentence: a line for each of the first samples and map. drawn: what Sampler gave."""
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
