"""Resize filters of the public FID tools, by name: each gives another number."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

HIGHEST = jax.lax.Precision.HIGHEST


def resize(images: ArrayLike, size: int, name: str = 'pil_bicubic') -> jax.Array:
    """Resize images, uint8 n h w 3 -> float32 n size size 3 in 0..255, not rounded.

    | name | filter | tool |
    |---|---|---|
    | 'pil_bicubic' | PIL's bicubic (a = -0.5), antialias, float channels, clipped | clean-fid |
    | 'tf1_bilinear' | 2 x 2 neighbours; pixel i reads at i h / size | 2015 graph, torch-fidelity |
    | 'torch_bilinear' | 2 x 2 neighbours; i reads at (i + 1/2) h / size - 1/2 | pytorch-fid |

    Pixel i is of the output; both bilinear filters are without antialias. An image of the right
    size stays as it is. May be traced.

    Raises ValueError for another name or type.
    """
    if name not in FILTERS:
        raise ValueError(f'There is no resize filter {name!r}; there are {", ".join(FILTERS)}.')
    if images.ndim != 4 or images.dtype != jnp.uint8:
        raise ValueError(f'resize reads uint8 images n h w c, not {images.dtype} {images.shape}')
    return _resize(images, size, name)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _resize(images, size, name):
    images = images.astype(jnp.float32)
    return images if images.shape[1:3] == (size, size) else FILTERS[name](images, size)


def _separable(weights, limits=None):
    """Make a filter of rows and columns.

    weights: a function (n, size) -> (size, n), how much of each of n pixels is in each output pixel
    """

    def apply(images, size):
        rows, columns = (jnp.asarray(weights(n, size), jnp.float32) for n in images.shape[1:3])
        images = jnp.einsum('bhwc,xw->bhxc', images, columns, precision=HIGHEST)
        images = jnp.einsum('bhxc,yh->byxc', images, rows, precision=HIGHEST)
        return jnp.clip(images, *limits) if limits else images

    return apply


def _cubic(n, size):
    scale = n / size
    at = (np.arange(size) + 0.5) * scale
    # a longer kernel where the image becomes smaller: antialias
    x = np.abs(np.arange(n) + 0.5 - at[:, None]) / max(scale, 1)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


def _linear(place):
    def weights(n, size):
        # in float32, as the originals compute it
        at = place(np.arange(size, dtype=np.float32), np.float32(n / size))
        at = np.maximum(at, 0)
        low = np.minimum(at.astype(int), n - 1)
        weights = np.zeros((size, n), np.float32)
        weights[np.arange(size), low] = 1 - (at - low)
        weights[np.arange(size), np.minimum(low + 1, n - 1)] += at - low
        return weights

    return weights


def _corners(i, scale):
    return i * scale


def _centres(i, scale):
    return (i + np.float32(0.5)) * scale - np.float32(0.5)


FILTERS = {
    'pil_bicubic': _separable(_cubic, (0, 255)),
    'tf1_bilinear': _separable(_linear(_corners)),
    'torch_bilinear': _separable(_linear(_centres)),
}
