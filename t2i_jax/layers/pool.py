"""Max pooling, with a gradient that is cheap on a CPU."""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx


def max_pool(x, window, stride, padding=0):
    """Take the largest of `window` x `window` pixels. b h w c -> b h' w' c

    stride: at most the window. padding: pixels on each side, which are never the largest.

    Where several are the largest, the first of them has the gradient, in rows from the top left.
    XLA finds it on CPU by arrays of indices, 16 for a window of 3; there it is `to_first` instead.
    The gradients are equal.
    """
    return _on_cpu(x, window, stride, padding)


def plain(x, window, stride, padding=0):
    """Pool as XLA does."""
    return nnx.max_pool(x, (window,) * 2, (stride,) * 2, ((padding,) * 2,) * 2)


def taps(x, window, stride):
    """Return what each place of the window sees, in rows: window^2 arrays b h' w' c."""
    h, w = (1 + (side - window) // stride for side in x.shape[1:3])
    return [
        x[:, i : i + stride * (h - 1) + 1 : stride, j : j + stride * (w - 1) + 1 : stride]
        for i in range(window)
        for j in range(window)
    ]


def largest(x, window, stride, padding=0):
    """Compute `plain` as a maximum of arrays."""
    return functools.reduce(jnp.maximum, taps(padded(x, padding), window, stride))


def padded(x, padding):
    """Surround maps by pixels that are smaller than any other."""
    return jnp.pad(x, ((0, 0), *((padding,) * 2,) * 2, (0, 0)), constant_values=-jnp.inf)


def to_first(x, dy, window, stride, padding=0):
    """Compute the gradient of `plain`: each entry of dy goes to the first of the largest pixels.

    x: b h w c, dy: b h' w' c. A pixel is seen by few places of few windows, other ones for each of
    its stride^2 places: a sum over these for each, and the sums interleaved.
    """
    x = padded(x, padding)
    seen = taps(x, window, stride)
    top, n = functools.reduce(jnp.maximum, seen), len(seen)
    first = jnp.full(top.shape, n - 1, jnp.int8)
    for i in range(n - 2, -1, -1):
        first = jnp.where(seen[i] == top, jnp.int8(i), first)
    # how far windows reach back, and rows and columns of blocks of stride^2 pixels
    reach = (window - 1) // stride
    sizes = [-(-side // stride) for side in x.shape[1:3]]
    pads = [(reach, max(size - length, 0)) for size, length in zip(sizes, dy.shape[1:3])]
    dy, first = (jnp.pad(one, ((0, 0), *pads, (0, 0))) for one in (dy, first))

    def one(p, q):
        total = 0
        for i in range(p, window, stride):
            for j in range(q, window, stride):
                top, left = reach - (i - p) // stride, reach - (j - q) // stride
                here = slice(None), slice(top, top + sizes[0]), slice(left, left + sizes[1])
                total += jnp.where(first[here] == window * i + j, dy[here], 0)
        return total

    dx = jnp.stack([jnp.stack([one(p, q) for q in range(stride)], 3) for p in range(stride)], 2)
    dx = rearrange(dx, 'b h p w q c -> b (h p) (w q) c')
    return dx[:, padding : x.shape[1] - padding, padding : x.shape[2] - padding]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _on_cpu(x, *how):
    form, cheap = (lambda x, f=f: f(x, *how) for f in (plain, largest))
    return jax.lax.platform_dependent(x, cpu=cheap, default=form)


def _keep(x, *how):
    return _on_cpu(x, *how), x


def _gradient(*how_x_dy):
    *how, x, dy = how_x_dy

    def derived(x, dy):
        return jax.vjp(lambda x: plain(x, *how), x)[1](dy)[0]

    def cheap(x, dy):
        return to_first(x, dy, *how)

    return (jax.lax.platform_dependent(x, dy, cpu=cheap, default=derived),)


_on_cpu.defvjp(_keep, _gradient)
