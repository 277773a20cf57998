"""Convolutions of the DCGAN line: normal(0, 0.02) kernels, no biases, explicit padding, NHWC.

XLA's convolutions on CPU are as fast as PyTorch's for most layers, but not for all. Where another
way to write a layer, or its gradients, makes whole training steps faster there, it is taken on CPU
alone; other devices get the plain convolution. `python -m benchmarks.layers` measures each. The
numbers are the same but for rounding.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.layers.linear import NORMAL
from t2i_jax.runtime.sharding import divided

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

# entries of a kernel for each pixel that it is laid on: from here on XLA spends its time on
# ordering the kernel (CPU)
LARGE = 2**16
# pixels of a map from which on a kernel's gradient is computed picture by picture, and the most
# pictures (CPU)
WIDE, PICTURES = 2**10, 32


def levels(size, least=16):
    """Return how many times a 4 x 4 map is doubled to reach an image side.

    Raises ValueError for a size that is not 4 * 2^n, or below `least`.
    """
    n = size.bit_length() - 3
    if size < least or size != 4 << n:
        raise ValueError(
            f'An image side of {size} cannot be made by doubling 4 x 4 maps: '
            f'use {least}, {2 * least}, {4 * least}, ...'
        )
    return n


class Conv(nnx.Conv):
    """A square convolution without bias; `padding` pixels on each side. b h w c -> b h' w' d"""

    def __init__(self, c, d, kernel, stride=1, padding=0, *, kernel_init=NORMAL, rngs):
        super().__init__(
            c,
            d,
            (kernel, kernel),
            strides=(stride, stride),
            padding=((padding, padding),) * 2,
            use_bias=False,
            kernel_init=kernel_init,
            rngs=rngs,
        )
        self.few = c <= 4 and (kernel, stride, padding) == (4, 2, 1)

    def __call__(self, x):
        x, kernel = nnx.nn.dtypes.promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        if self.few:
            return conv_few(x, kernel)
        return convolution(x, kernel, self.strides[0], self.padding)


class ConvTranspose(nnx.Module):
    """A square transposed convolution of stride 2 without bias. b h w c -> b 2h 2w d

    `padding`: zeros before and after the stretched input, (2, 2) for a kernel of 4 and (2, 3) for
    one of 5.
    """

    def __init__(self, c, d, kernel, padding=(2, 2), *, kernel_init=NORMAL, rngs):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (kernel, kernel, c, d)))
        self.padding = tuple(padding)
        self.dtype, self.param_dtype = None, jnp.float32

    def __call__(self, x):
        x, kernel = nnx.nn.dtypes.promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        return conv_transpose(x, kernel, self.padding)


def operands(layer, *inputs):
    """Return the inputs of a layer and its kernel, in the type in which it computes."""
    return nnx.nn.dtypes.promote_dtype((*inputs, layer.kernel[...]), dtype=layer.dtype)


def convolution(x, kernel, stride, padding):
    """Convolve: b h w c, k k c d -> b h' w' d.

    padding: pixels before and after, of rows and of columns.

    On CPU three kinds of layers are computed in another way: small maps with large kernels as one
    matrix product (`dots`), the gradient of the input of a kernel of 4 with stride 2 by the four
    places of a pixel (`by_places`), and the gradient of the kernel of a large map picture by
    picture (`by_pictures`).
    """
    k, sides = kernel.shape[0], x.shape[1:3]
    pixels = math.prod(1 + (side + sum(pads) - k) // stride for side, pads in zip(sides, padding))
    if k > 1 and large(kernel, pixels):
        return conv_on_cpu(x, kernel, stride, padding, True)
    if halving(x, kernel, stride, padding) or (k > 1 and wide(x, kernel, pixels)):
        return conv_on_cpu(x, kernel, stride, padding, False)
    return plain(x, kernel, stride, padding)


def convolve(x, kernel, padding):
    """Apply `convolution` of stride 1; padding: as there, or 'SAME' for an odd kernel."""
    if padding == 'SAME':
        padding = ((kernel.shape[0] // 2,) * 2,) * 2
    return convolution(x, kernel, 1, padding)


def large(kernel, pixels):
    """Return whether a kernel has many entries for the pixels of its output."""
    return kernel.size >= LARGE * pixels


def halving(x, kernel, stride, padding):
    """Return whether a convolution of kernel 4 and stride 2 halves a map, not of pictures."""
    form = kernel.shape[0], stride, padding
    even = not any(side % 2 for side in x.shape[1:3])
    return form == (4, 2, ((1, 1), (1, 1))) and x.shape[-1] > 4 and even


def wide(x, kernel, pixels):
    """Return whether the maps of a batch are large, few and on one device, and no pictures."""
    rows = x.shape[0]
    # a program for any number of rows (export) has none yet
    few = isinstance(rows, int) and 1 < rows <= PICTURES and min(kernel.shape[2:]) > 4
    return few and pixels >= WIDE and not divided()


def plain(x, kernel, stride, padding):
    """Convolve as XLA does. b h w c, k k c d -> b h' w' d"""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS
    )


def patches(x, k, stride):
    """Cut out what a kernel of k sees at each place: b h w c -> b h' w' k*k*c, no padding."""
    h, w = (1 + (side - k) // stride for side in x.shape[1:3])
    return jnp.concatenate(
        [
            x[:, i : i + stride * (h - 1) + 1 : stride, j : j + stride * (w - 1) + 1 : stride]
            for i in range(k)
            for j in range(k)
        ],
        -1,
    )


def dots(x, kernel, stride, padding):
    """Compute `plain` as one matrix product of patches and kernel.

    The patches need k * k times the input's memory; the kernel is read as it lies. With 512 to
    2,048 channels on maps of 4 x 4 and 8 x 8 it takes half to three quarters of a convolution's
    time, forward and backward.
    """
    seen = patches(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel.shape[0], stride)
    return seen @ rearrange(kernel, 'h w c d -> (h w c) d')


def by_places(x, kernel):
    """Apply a transposed convolution of stride 2, kernel 4: b h w c, 4 4 c d -> b 2h 2w d.

    Each of the four places of an output in its pixel sees 2 x 2 pixels of x through a quarter of
    the kernel: four convolutions without the zeros of the stretched input, 1.2 to 3 times as fast
    on CPU.
    """
    places = [
        [plain(x, kernel[p::2, q::2], 1, ((1 - p, p), (1 - q, q))) for q in range(2)]
        for p in range(2)
    ]
    return interleave(places)


def interleave(places):
    """Join maps of the four places in a pixel, 2 x 2 of b h w d -> b 2h 2w d."""
    y = jnp.stack([jnp.stack(row, 3) for row in places], 2)  # b h 2 w 2 d
    return rearrange(y, 'b h p w q d -> b (h p) (w q) d')


def by_pictures(form, x, kernel, dy):
    """Compute the gradient of the kernel of `form` as a sum over the pictures of a batch.

    x: b h w c, dy: b h' w' d. The operands of one picture stay in the caches: .3 to .9 of the time
    of the whole batch on CPU, where maps have 32 x 32 pixels and more.
    """
    parts = (jnp.split(one, len(x)) for one in (x, dy))
    found = (jax.vjp(functools.partial(form, one), kernel)[1](d)[0] for one, d in zip(*parts))
    return sum(one.astype(jnp.float32) for one in found).astype(kernel.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_on_cpu(x, kernel, stride, padding, small):
    """Compute `plain` with gradients that are spelt out, so that they can differ by platform.

    small: `dots` on CPU; otherwise only the gradients differ.
    """
    form = functools.partial(plain, stride=stride, padding=padding)
    if not small:
        return form(x, kernel)
    return jax.lax.platform_dependent(
        x, kernel, cpu=functools.partial(dots, stride=stride, padding=padding), default=form
    )


def _keep(x, kernel, stride, padding, small):
    return conv_on_cpu(x, kernel, stride, padding, small), (x, kernel)


def _gradients(stride, padding, small, saved, dy):
    form, products = (functools.partial(f, stride=stride, padding=padding) for f in (plain, dots))

    def derived(x, kernel, dy, form=form):
        return jax.vjp(form, x, kernel)[1](dy)

    def on_cpu(x, kernel, dy):
        if small:
            return derived(x, kernel, dy, products)
        of_input, of_kernel = derived(x, kernel, dy)
        if halving(x, kernel, stride, padding):
            of_input = by_places(dy, _flip(kernel))
        if wide(x, kernel, math.prod(dy.shape[1:3])):
            of_kernel = by_pictures(form, x, kernel, dy)
        return of_input, of_kernel

    return jax.lax.platform_dependent(*saved, dy, cpu=on_cpu, default=derived)


conv_on_cpu.defvjp(_keep, _gradients)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_transpose(x, kernel, padding):
    """Apply a transposed convolution of stride 2: b h w c, k k c d -> b 2h 2w d.

    The kernel is not flipped. This is the input gradient of a stride-2 convolution, so its own
    gradients are that convolution and its kernel gradient. They are spelt out because XLA on CPU
    needs 25 to 50 times as long for the form that it derives.
    """

    def stretched(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), (padding, padding), lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS
        )

    doubling = kernel.shape[0] == 4 and padding == (2, 2)
    few = kernel.shape[-1] <= 4
    if not doubling or few or large(kernel, x.shape[1] * x.shape[2]):
        return stretched(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=by_places, default=stretched)


def conv_few(x, kernel):
    """Convolve few channels (pictures), stride 2, padding 1: b h w c, 4 4 c d -> b h/2 w/2 d.

    Blocks of 2 x 2 pixels become channels and the kernel becomes 2 x 2: the same sums, up to 8
    times as fast on CPU.
    """
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = rearrange(x, 'b (h i) (w j) c -> b h w (i j c)', i=2, j=2)
    kernel = rearrange(kernel, '(h i) (w j) c d -> h w (i j c) d', i=2, j=2)
    return plain(x, kernel, 1, 'VALID')


def conv_doubled(x, kernel):
    """Double every pixel, then convolve ('SAME', kernel 3 or 5): b h w c, k k c d -> b 2h 2w d.

    Each output is a sum over 3 x 3 pixels of x, with kernels that are sums of entries of the given
    one, others for each of the four places of an output in its pixel: the same sums with 9 instead
    of 25 products (kernel 5) and without the doubled map.
    """
    k = kernel.shape[0]
    if k not in (3, 5):
        raise ValueError(f'Pixels are doubled for a kernel of 3 or 5, not of {k}.')
    # place in the pixel, offset in x, entry of the kernel
    taps = np.zeros((2, 3, k), np.float32)
    for place in range(2):
        for entry in range(k):
            taps[place, (place + entry - k // 2) // 2 + 1, entry] = 1
    four = jnp.einsum('pai,qbj,ijco->abcpqo', taps, taps, kernel).astype(kernel.dtype)
    four = rearrange(four, 'a b c p q o -> a b c (p q o)')
    y = plain(x, four, 1, 'SAME')
    return rearrange(y, 'b h w (p q o) -> b (h p) (w q) o', p=2, q=2)


def conv3_doubled(x, kernel):
    """Double every pixel, then convolve ('SAME', kernel 3): b h w c, 3 3 c d -> b 2h 2w d.

    Outputs in the first row of their pixel see the pixel and the one above, those in the second row
    the pixel and the one below; columns alike. So four 2x2 convolutions, whose kernels are sums of
    entries of the given one, are the same with 16 instead of 36 products.
    """

    def halves(k, axis):
        a, b, c = jnp.split(k, 3, axis)
        return jnp.concatenate([a, b + c], axis), jnp.concatenate([a + b, c], axis)

    return interleave(
        [
            [convolve(x, k, ((1 - p, p), (1 - q, q))) for q, k in enumerate(halves(rows, 1))]
            for p, rows in enumerate(halves(kernel, 0))
        ]
    )


def conv3_beside(vector, x, kernel):
    """Convolve [vector at every pixel, x] ('SAME'): b n, b h w c, 3 3 n+c d -> b h w d.

    h and w are 3 or more. The share of the vector differs only where the kernel reaches over the
    border, so a 3 x 3 map of it holds all there is.
    """
    n = vector.shape[-1]
    y = convolve(repeat(vector, 'b n -> b 3 3 n'), kernel[:, :, :n], 'SAME')
    for axis in (1, 2):
        first, inner, last = jnp.split(y, 3, axis)
        shape = inner.shape[:axis] + (x.shape[axis] - 2,) + inner.shape[axis + 1 :]
        inner = jnp.broadcast_to(inner, shape)
        y = jnp.concatenate([first, inner, last], axis)  # b h w d in the end
    return y + convolve(x, kernel[:, :, n:], 'SAME')


def _flip(kernel):
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _forward(x, kernel, padding):
    return conv_transpose(x, kernel, padding), (x, kernel)


def _backward(padding, saved, dy):
    x, kernel = saved
    pads = tuple(kernel.shape[0] - 1 - p for p in padding)

    def back(flipped):
        if dy.shape[-1] <= 4 and pads == (1, 1):
            return conv_few(dy, flipped)
        return convolution(dy, flipped, 2, (pads, pads))

    dx, pull_back = jax.vjp(back, _flip(kernel))
    return dx, _flip(pull_back(x)[0])


conv_transpose.defvjp(_forward, _backward)
