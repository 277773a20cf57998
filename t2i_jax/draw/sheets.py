"""Contact sheets and films: arrays of pictures -> PNG and GIF."""

import math

import numpy as np
from einops import repeat
from PIL import Image

from tfds_builders.atomic import replacing
from tfds_builders.sheets import GREY, INK, font, save_png, sheet, wrap

__all__ = ['GREY', 'INK', 'font', 'save_gif', 'save_png', 'sheet', 'wrap']

# pixels between the pictures of a film
GAP = 2


def save_gif(path, frames, scale=None, seconds=3.0):
    """Write a film as GIF, there and back, for ever.

    frames: t n s s 3 uint8, n pictures side by side in a near-square grid
    scale: how many pixels wide and high each pixel is drawn, by default so that a side has 64
    seconds: from the first frame to the last
    """
    t, n, *shape = np.asarray(frames).shape
    scale, across = scale or -(-64 // min(shape[:2])), math.ceil(n**0.5)
    down, side = -(-n // across), shape[0] * scale
    height, width = (count * (side + GAP) - GAP for count in (down, across))
    canvas = np.full((t, height, width, 3), 255, np.uint8)
    for i in range(n):
        y, x = i // across * (side + GAP), i % across * (side + GAP)
        canvas[:, y : y + side, x : x + side] = repeat(
            frames[:, i], 't h w c -> t (h y) (w x) c', y=scale, x=scale
        )
    pictures = [Image.fromarray(one) for one in canvas]
    with replacing(path) as temporary:
        pictures[0].save(
            temporary,
            format='GIF',
            save_all=True,
            append_images=pictures[1:] + pictures[-2:0:-1],
            duration=round(1000 * seconds / t),
            loop=0,
        )
