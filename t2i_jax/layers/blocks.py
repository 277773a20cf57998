"""The building blocks that several systems share."""

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.layers.conv import NORMAL, Conv, convolution
from t2i_jax.layers.norm import BatchNorm
from t2i_jax.layers.remat import recomputed

ORTHOGONAL = (
    nnx.initializers.orthogonal()
)  # gain 1; of a convolution, the matrix (kernel * kernel * inputs) x outputs


def lrelu(x):
    """Leaky ReLU of slope 0.2, the one of every discriminator here."""
    return jax.nn.leaky_relu(x, 0.2)


def levels(size, least=16):
    """How many times a 4 x 4 map is doubled to reach the image; raises ValueError for a size that is not 4 * 2^n, or below `least`."""
    n = size.bit_length() - 3
    if size < least or size != 4 << n:
        raise ValueError(
            f'An image side of {size} cannot be made by doubling 4 x 4 maps: use {least}, {2 * least}, {4 * least}, ...'
        )
    return n


def linear(c, d, *, use_bias=False, rngs):
    """A dense layer with a normal(0, 0.02) kernel."""
    return nnx.Linear(c, d, use_bias=use_bias, kernel_init=NORMAL, rngs=rngs)


def torch_linear(c, d, *, rngs):
    """A dense layer with Torch's default start: kernel and bias from U(-1/sqrt(c), 1/sqrt(c))."""

    def uniform(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -(c**-0.5), c**-0.5)

    return nnx.Linear(c, d, kernel_init=uniform, bias_init=uniform, rngs=rngs)


class Bottleneck(nnx.Module):
    """x + [1x1 c/4, 3x3 c/4, 3x3 c](x), normalised after each convolution, the activation between them. b h w c -> b h w c"""

    def __init__(self, c, activation, norm=BatchNorm, *, rngs):
        self.convs = nnx.List(
            [
                Conv(c, c // 4, 1, rngs=rngs),
                Conv(c // 4, c // 4, 3, padding=1, rngs=rngs),
                Conv(c // 4, c, 3, padding=1, rngs=rngs),
            ]
        )
        self.norms = nnx.List([norm(d, rngs=rngs) for d in (c // 4, c // 4, c)])
        self.activation = activation

    @recomputed
    def __call__(self, x, *, train):
        y = x
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            y = norm(conv(y), train=train)
            if index < 2:
                y = self.activation(y)
        return x + y


# ------------------------------------------------------------------------------- StackGAN++, AttnGAN and their kin: generators
# "orthogonal" starts, no biases beside those of the norms; a gated linear unit (GLU) is the first half of the channels times the
# sigmoid of the second, jax.nn.glu
def conv3(c, d, *, rngs):
    """A 3x3 convolution that keeps the side. b h w c -> b h w d"""
    return Conv(c, d, 3, padding=1, kernel_init=ORTHOGONAL, rngs=rngs)


def operands(layer, *inputs):
    """The inputs of a layer and its kernel, in the type in which it computes."""
    return nnx.nn.dtypes.promote_dtype((*inputs, layer.kernel[...]), dtype=layer.dtype)


def convolve(x, kernel, padding):
    """`convolution` of stride 1; padding: as there, or 'SAME' for an odd kernel."""
    return convolution(
        x, kernel, 1, ((kernel.shape[0] // 2,) * 2,) * 2 if padding == 'SAME' else padding
    )


def conv3_doubled(x, kernel):
    """Every pixel doubled in both directions, then a 'same' 3x3 convolution: b h w c, 3 3 c d -> b 2h 2w d.

    Outputs in the first row of their pixel see the pixel and the one above, those in the second row the pixel and the one below; columns alike.
    So four 2x2 convolutions, whose kernels are sums of entries of the given one, are the same with 16 instead of 36 products.
    """

    def halves(k, axis):
        a, b, c = jnp.split(k, 3, axis)
        return jnp.concatenate([a, b + c], axis), jnp.concatenate([a + b, c], axis)

    places = [
        [convolve(x, k, ((1 - p, p), (1 - q, q))) for q, k in enumerate(halves(rows, 1))]
        for p, rows in enumerate(halves(kernel, 0))
    ]
    y = jnp.stack([jnp.stack(row, 3) for row in places], 2)  # b h 2 w 2 d
    return rearrange(y, 'b h p w q d -> b (h p) (w q) d')


def conv3_beside(vector, x, kernel):
    """A 'same' 3x3 convolution of [vector at every pixel, x]: b n, b h w c, 3 3 n+c d -> b h w d; h and w are 3 or more.

    What the vector adds differs only where the kernel reaches over the border, so a 3 x 3 map of it tells all there is.
    """
    n = vector.shape[-1]
    y = convolve(repeat(vector, 'b n -> b 3 3 n'), kernel[:, :, :n], 'SAME')
    for axis in (1, 2):
        first, inner, last = jnp.split(y, 3, axis)
        inner = jnp.broadcast_to(
            inner, inner.shape[:axis] + (x.shape[axis] - 2,) + inner.shape[axis + 1 :]
        )
        y = jnp.concatenate([first, inner, last], axis)  # b h w d in the end
    return y + convolve(x, kernel[:, :, n:], 'SAME')


class Up(nnx.Module):
    """Pixels doubled, 3x3 convolution, batch norm, GLU. b h w c -> b 2h 2w d"""

    def __init__(self, c, d, *, rngs):
        self.conv, self.norm = conv3(c, 2 * d, rngs=rngs), BatchNorm(2 * d, rngs=rngs)

    @recomputed
    def __call__(self, x, *, train):
        return jax.nn.glu(self.norm(conv3_doubled(*operands(self.conv, x)), train=train))


class Keep(nnx.Module):
    """3x3 convolution, batch norm, GLU: b h w c -> b h w d. With `vector` = n, of a vector b n at every pixel and the map."""

    def __init__(self, c, d, vector=0, *, rngs):
        self.conv, self.norm = conv3(vector + c, 2 * d, rngs=rngs), BatchNorm(2 * d, rngs=rngs)

    def __call__(self, x, vector=None, *, train):
        x = self.conv(x) if vector is None else conv3_beside(*operands(self.conv, vector, x))
        return jax.nn.glu(self.norm(x, train=train))


class Residual(nnx.Module):
    """x + [3x3 convolution, batch norm, GLU, 3x3 convolution, batch norm](x), with nothing after the sum. b h w c -> b h w c"""

    def __init__(self, c, *, rngs):
        self.keep = Keep(c, c, rngs=rngs)
        self.conv, self.norm = conv3(c, c, rngs=rngs), BatchNorm(c, rngs=rngs)

    @recomputed
    def __call__(self, x, *, train):
        return x + self.norm(self.conv(self.keep(x, train=train)), train=train)


class ToImage(nnx.Module):
    """3x3 convolution, tanh. b h w c -> b h w 3 in [-1, 1]"""

    def __init__(self, c, *, rngs):
        self.conv = conv3(c, 3, rngs=rngs)

    def __call__(self, x):
        return jnp.tanh(self.conv(x))


class InitStage(nnx.Module):
    """A vector b n -> a map b s s c, by doubling 4 x 4 maps of cs/4 channels, which halve each time. side: s = 8, 16, 32, ..."""

    def __init__(self, n, c, side, *, rngs):
        count = levels(side, least=8)
        wide = c << count
        self.first = nnx.Linear(n, 32 * wide, use_bias=False, kernel_init=ORTHOGONAL, rngs=rngs)
        self.norm = BatchNorm(32 * wide, rngs=rngs)  # of each unit
        self.ups = nnx.List([Up(wide >> i, wide >> i + 1, rngs=rngs) for i in range(count)])

    def __call__(self, x, *, train):
        x = jax.nn.glu(self.norm(self.first(x), train=train))
        x = rearrange(x, 'b (h w c) -> b h w c', h=4, w=4)
        for up in self.ups:
            x = up(x, train=train)  # b 8 8 c/2, b 16 16 c/4, ...
        return x


# --------------------------------------------------------------------------- StackGAN++, AttnGAN and their kin: discriminators
class ImageTrunk(nnx.Module):
    """A picture b s s 3 -> its code b 4 4 8c, by convolutions of kernel 4 and stride 2, each with twice the channels of the one before.

    64 px: four of them, from c channels on. A larger picture has one more for each doubling, and for each of those a 3x3 convolution
    at the end that halves the channels. A smaller one goes without the first ones: 32 px start with 2c channels, 16 px with 4c. There
    is a norm after all but the first.
    """

    def __init__(self, side, c, norm=BatchNorm, *, rngs):
        n = levels(side, least=8)
        down = [c << i for i in range(max(4 - n, 0), max(4, n))]
        back = [c << i for i in range(n - 2, 2, -1)]
        self.first = Conv(3, down[0], 4, stride=2, padding=1, kernel_init=ORTHOGONAL, rngs=rngs)
        self.convs = nnx.List(
            [
                Conv(a, b, 4, stride=2, padding=1, kernel_init=ORTHOGONAL, rngs=rngs)
                for a, b in zip(down, down[1:])
            ]
            + [conv3(2 * b, b, rngs=rngs) for b in back]
        )
        self.norms = nnx.List([norm(b, rngs=rngs) for b in down[1:] + back])

    @recomputed
    def __call__(self, image, *, train):
        x = lrelu(self.first(image))  # b s/2 s/2 c
        for conv, norm in zip(self.convs, self.norms):
            x = lrelu(norm(conv(x), train=train))  # b s/4 s/4 2c, ..., b 4 4 8c
        return x


class Head(nnx.Module):
    """A code b 4 4 c -> logits b. With `vector` = n, the logits of a code beside a vector b n: whether the two match."""

    def __init__(self, c, vector=0, norm=BatchNorm, *, rngs):
        self.joint = conv3(vector + c, c, rngs=rngs) if vector else None
        self.norm = norm(c, rngs=rngs) if vector else None
        self.logit = nnx.Linear(16 * c, 1, kernel_init=ORTHOGONAL, rngs=rngs)

    def __call__(self, code, vector=None, *, train):
        if self.joint:
            code = lrelu(self.norm(conv3_beside(*operands(self.joint, vector, code)), train=train))
        return self.logit(rearrange(code, 'b h w c -> b (h w c)'))[:, 0]
