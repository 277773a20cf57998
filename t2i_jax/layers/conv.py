"""Convolutions of the DCGAN line: normal(0, 0.02) kernels, no biases, explicit padding, NHWC.

XLA's convolutions on CPU are as fast as PyTorch's for most layers, but not for all. Where another way to write one, or its gradients, was found to make
whole training steps faster there, it is taken on CPU alone; other devices get the plain convolution. `python -m benchmarks.layers` measures
each. The numbers are the same but for rounding.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

NORMAL = nnx.initializers.normal(0.02)
DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
LARGE = (
    2**16
)  # entries of a kernel for each pixel that it is laid on: from here on XLA spends its time on ordering the kernel (CPU)


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
        return (
            conv_few(x, kernel)
            if self.few
            else convolution(x, kernel, self.strides[0], self.padding)
        )


class ConvTranspose(nnx.Module):
    """A square transposed convolution of stride 2 without bias. b h w c -> b 2h 2w d

    `padding`: zeros before and after the stretched input, (2, 2) for a kernel of 4 and (2, 3) for one of 5.
    """

    def __init__(self, c, d, kernel, padding=(2, 2), *, kernel_init=NORMAL, rngs):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (kernel, kernel, c, d)))
        self.padding = tuple(padding)
        self.dtype, self.param_dtype = None, jnp.float32

    def __call__(self, x):
        x, kernel = nnx.nn.dtypes.promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        return conv_transpose(x, kernel, self.padding)


def convolution(x, kernel, stride, padding):
    """A convolution: b h w c, k k c d -> b h' w' d; padding: pixels before and after, of rows and of columns.

    On CPU two kinds of layers are computed in another way: small maps with large kernels as one matrix product, see `dots`, and the gradient of the input
    of a kernel of 4 with stride 2 by the four places of a pixel, see `by_places`.
    """
    (k, _, c, _), sides = kernel.shape, x.shape[1:3]
    pixels = math.prod(1 + (side + sum(pads) - k) // stride for side, pads in zip(sides, padding))
    if k > 1 and large(kernel, pixels):
        return conv_on_cpu(x, kernel, stride, padding, True)
    if (
        (k, stride, padding) == (4, 2, ((1, 1), (1, 1)))
        and c > 4
        and not any(side % 2 for side in sides)
    ):
        return conv_on_cpu(x, kernel, stride, padding, False)
    return plain(x, kernel, stride, padding)


def large(kernel, pixels):
    return kernel.size >= LARGE * pixels


def plain(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS
    )


def patches(x, k, stride):
    """What a kernel of k sees at each place, without padding: b h w c -> b h' w' k*k*c"""
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
    """`plain` as one matrix product of patches and kernel, which needs k * k times the input's memory for them and reads the kernel as it lies.

    With 512 to 2,048 channels on maps of 4 x 4 and 8 x 8 it takes half to three quarters of a convolution's time, forward and backward.
    """
    seen = patches(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel.shape[0], stride)
    return seen @ rearrange(kernel, 'h w c d -> (h w c) d')


def by_places(x, kernel):
    """Transposed convolution of stride 2 with a kernel of 4: b h w c, 4 4 c d -> b 2h 2w d.

    Each of the four places of an output in its pixel sees 2 x 2 pixels of x through a quarter of the kernel: four convolutions without the zeros of the
    stretched input, 1.2 to 3 times as fast on CPU.
    """
    places = [
        [plain(x, kernel[p::2, q::2], 1, ((1 - p, p), (1 - q, q))) for q in range(2)]
        for p in range(2)
    ]
    y = jnp.stack([jnp.stack(row, 3) for row in places], 2)  # b h 2 w 2 d
    return rearrange(y, 'b h p w q d -> b (h p) (w q) d')


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_on_cpu(x, kernel, stride, padding, small):
    """`plain` with gradients that are spelt out, so that they can differ by platform; small: `dots` on CPU, otherwise only its input's gradient differs."""
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
        return by_places(dy, _flip(kernel)), jax.vjp(lambda kernel: form(x, kernel), kernel)[1](dy)[
            0
        ]

    return jax.lax.platform_dependent(*saved, dy, cpu=on_cpu, default=derived)


conv_on_cpu.defvjp(_keep, _gradients)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_transpose(x, kernel, padding):
    """Transposed convolution of stride 2, kernel not flipped: b h w c, k k c d -> b 2h 2w d.

    It is the input gradient of a stride-2 convolution, so its own gradients are that convolution and its kernel
    gradient. They are spelt out because XLA on CPU needs 25 to 50 times as long for the form that it derives.
    """

    def stretched(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), (padding, padding), lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS
        )

    if (
        kernel.shape[0] != 4
        or padding != (2, 2)
        or kernel.shape[-1] <= 4
        or large(kernel, x.shape[1] * x.shape[2])
    ):
        return stretched(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=by_places, default=stretched)


def conv_few(x, kernel):
    """Convolution of kernel 4, stride 2, padding 1 for few channels (pictures): b h w c, 4 4 c d -> b h/2 w/2 d.

    Blocks of 2 x 2 pixels become channels and the kernel becomes 2 x 2: the same sums, up to 8 times as fast on CPU.
    """
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = rearrange(x, 'b (h i) (w j) c -> b h w (i j c)', i=2, j=2)
    kernel = rearrange(kernel, '(h i) (w j) c d -> h w (i j c) d', i=2, j=2)
    return plain(x, kernel, 1, 'VALID')


def conv_doubled(x, kernel):
    """Every pixel doubled in both directions, then a 'same' convolution of odd kernel 3 or 5: b h w c, k k c d -> b 2h 2w d.

    Each output is a sum over 3 x 3 pixels of x, with kernels that are sums of entries of the given one, others for each of the four
    places of an output in its pixel: the same sums with 9 instead of 25 products (kernel 5) and without the doubled map.
    """
    k = kernel.shape[0]
    if k not in (3, 5):
        raise ValueError(f'Pixels are doubled for a kernel of 3 or 5, not of {k}.')
    taps = np.zeros((2, 3, k), np.float32)  # place in the pixel, offset in x, entry of the kernel
    for place in range(2):
        for entry in range(k):
            taps[place, (place + entry - k // 2) // 2 + 1, entry] = 1
    four = jnp.einsum('pai,qbj,ijco->abcpqo', taps, taps, kernel).astype(kernel.dtype)
    four = rearrange(four, 'a b c p q o -> a b c (p q o)')
    y = plain(x, four, 1, 'SAME')
    return rearrange(y, 'b h w (p q o) -> b (h p) (w q) o', p=2, q=2)


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
