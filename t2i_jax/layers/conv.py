"""Convolutions of the DCGAN line: normal(0, 0.02) kernels, no biases, explicit padding, NHWC."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

NORMAL = nnx.initializers.normal(0.02)
DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


class Conv(nnx.Conv):
    """A square convolution without bias; `padding` pixels on each side. b h w c -> b h' w' d"""

    def __init__(self, c, d, kernel, stride=1, padding=0, *, kernel_init=NORMAL, rngs):
        super().__init__(c, d, (kernel, kernel), strides=(stride, stride), padding=((padding, padding),) * 2,
                         use_bias=False, kernel_init=kernel_init, rngs=rngs)
        self.few = c <= 4 and (kernel, stride, padding) == (4, 2, 1)

    def __call__(self, x):
        if not self.few:
            return super().__call__(x)
        x, kernel = nnx.nn.dtypes.promote_dtype((x, self.kernel[...]), dtype=self.dtype)
        return conv_few(x, kernel)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_transpose(x, kernel, padding):
    """Transposed convolution of stride 2, kernel not flipped: b h w c, k k c d -> b 2h 2w d.

    It is the input gradient of a stride-2 convolution, so its own gradients are that convolution and its kernel
    gradient. They are spelt out because XLA on CPU needs 25 to 50 times as long for the form that it derives.
    """
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), (padding, padding), lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS)


def conv_few(x, kernel):
    """Convolution of kernel 4, stride 2, padding 1 for few channels (pictures): b h w c, 4 4 c d -> b h/2 w/2 d.

    Blocks of 2 x 2 pixels become channels and the kernel becomes 2 x 2: the same sums, up to 8 times as fast on CPU.
    """
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = rearrange(x, 'b (h i) (w j) c -> b h w (i j c)', i=2, j=2)
    kernel = rearrange(kernel, '(h i) (w j) c d -> h w (i j c) d', i=2, j=2)
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'VALID', dimension_numbers=DIMENSIONS)


def conv_doubled(x, kernel):
    """Every pixel doubled in both directions, then a 'same' convolution of odd kernel 3 or 5: b h w c, k k c d -> b 2h 2w d.

    Each output is a sum over 3 x 3 pixels of x, with kernels that are sums of entries of the given one, others for each of the four
    places of an output in its pixel: the same sums with 9 instead of 25 products (kernel 5) and without the doubled map.
    """
    k = kernel.shape[0]
    if k not in (3, 5):
        raise ValueError(f'Pixels are doubled for a kernel of 3 or 5, not of {k}.')
    taps = np.zeros((2, 3, k), np.float32)                                 # place in the pixel, offset in x, entry of the kernel
    for place in range(2):
        for entry in range(k):
            taps[place, (place + entry - k // 2) // 2 + 1, entry] = 1
    four = jnp.einsum('pai,qbj,ijco->abcpqo', taps, taps, kernel).astype(kernel.dtype)
    four = rearrange(four, 'a b c p q o -> a b c (p q o)')
    y = jax.lax.conv_general_dilated(x, four, (1, 1), 'SAME', dimension_numbers=DIMENSIONS)
    return rearrange(y, 'b h w (p q o) -> b (h p) (w q) o', p=2, q=2)


def _flip(kernel):
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _forward(x, kernel, padding):
    return conv_transpose(x, kernel, padding), (x, kernel)


def _backward(padding, saved, dy):
    x, kernel = saved
    pads = tuple(kernel.shape[0] - 1 - p for p in padding)

    def conv(flipped):
        if dy.shape[-1] <= 4 and pads == (1, 1):
            return conv_few(dy, flipped)
        return jax.lax.conv_general_dilated(dy, flipped, (2, 2), (pads, pads), dimension_numbers=DIMENSIONS)
    dx, pull_back = jax.vjp(conv, _flip(kernel))
    return dx, _flip(pull_back(x)[0])


conv_transpose.defvjp(_forward, _backward)
