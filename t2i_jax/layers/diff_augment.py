"""What a discriminator sees of pictures, so that it does not learn few ones by heart.

DiffAugment: Zhao, Liu, Lin, Zhu, Han, NeurIPS 2020; without its changes of colour, since captions
name colours.
"""

import jax
import jax.numpy as jnp

from t2i_jax.stage import uniform_rows

# shares of a side: pictures move by so much at most, and a square of this side is cut out
MOVED, CUT = 1 / 8, 1 / 2


def moved_and_cut(images, key):
    """Move each picture, 0 where nothing is left, and set a square in it to 0. b s s c

    Gradients pass. Row i depends on (key, i), not on the number of rows.
    """
    b, side = len(images), images.shape[1]
    draws = uniform_rows(key, b, (4,))
    far, cut = round(side * MOVED), round(side * CUT)
    steps = jnp.floor(draws[:, :2] * (2 * far + 1)).astype(jnp.int32) - far  # b 2
    places = jnp.arange(side)
    # what row or column each one shows: products, since gathers have slow gradients on CPU
    rows, columns = (
        (places[None] == (places[:, None] - step[:, None, None])).astype(images.dtype)
        for step in steps.T
    )
    moved = jnp.einsum(
        'bij,bjkc,blk->bilc', rows, images, columns, precision=jax.lax.Precision.HIGHEST
    )
    # its centre is anywhere in the picture
    centres = jnp.floor(draws[:, 2:] * side).astype(jnp.int32)
    away = places[None, None] - centres[:, :, None]  # b 2 s
    inside = (away >= -(cut // 2)) & (away < cut - cut // 2)
    hole = inside[:, 0, :, None] & inside[:, 1, None, :]
    return jnp.where(hole[..., None], 0, moved)
