"""Blocks of the GLU family: StackGAN++, AttnGAN and the systems that follow them.

Orthogonal starts, and no biases but those of the norms. A gated linear unit (GLU) is the first half
of the channels times the sigmoid of the second, jax.nn.glu. Discriminators use leaky ReLU.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from t2i_jax.layers.conv import Conv, conv3_beside, conv3_doubled, levels, operands
from t2i_jax.layers.linear import ORTHOGONAL, lrelu
from t2i_jax.layers.norm import BatchNorm, ModulatedNorm
from t2i_jax.layers.remat import recomputed


# ----------------------------------------------------------------------------------- generators
def conv3(c, d, *, rngs):
    """Make a 3x3 convolution that keeps the side. b h w c -> b h w d"""
    return Conv(c, d, 3, padding=1, kernel_init=ORTHOGONAL, rngs=rngs)


class UpGlu(nnx.Module):
    """Pixels doubled, 3x3 convolution, batch norm, GLU. b h w c -> b 2h 2w d

    With `modulated` = n a vector b n scales and shifts what is normed.
    """

    def __init__(self, c, d, modulated=0, *, rngs):
        self.conv = conv3(c, 2 * d, rngs=rngs)
        more = (modulated,) if modulated else ()
        self.norm = (ModulatedNorm if modulated else BatchNorm)(2 * d, *more, rngs=rngs)

    @recomputed
    def __call__(self, x, *vector, train):
        return jax.nn.glu(self.norm(conv3_doubled(*operands(self.conv, x)), *vector, train=train))


class KeepGlu(nnx.Module):
    """3x3 convolution, batch norm, GLU. b h w c -> b h w d

    With `vector` = n it reads a vector b n at every pixel, too.
    """

    def __init__(self, c, d, vector=0, *, rngs):
        self.conv, self.norm = conv3(vector + c, 2 * d, rngs=rngs), BatchNorm(2 * d, rngs=rngs)

    def __call__(self, x, vector=None, *, train):
        x = self.conv(x) if vector is None else conv3_beside(*operands(self.conv, vector, x))
        return jax.nn.glu(self.norm(x, train=train))


class ResidualGlu(nnx.Module):
    """x + [3x3, batch norm, GLU, 3x3, batch norm](x), with nothing after the sum.

    b h w c -> b h w c
    """

    def __init__(self, c, *, rngs):
        self.keep = KeepGlu(c, c, rngs=rngs)
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
    """A vector b n -> a map b s s c, s = 8, 16, 32, ...

    Maps of `base` x `base` (4 x 4) and c s/base channels are doubled until they have the side s;
    the channels halve each time. `modulated`: the vector scales and shifts each of them.
    """

    def __init__(self, n, c, side, base=4, modulated=False, *, rngs):
        self.base, count = base, levels(side, least=base) - levels(base, least=4)
        wide = c << count
        units = 2 * base**2 * wide
        self.first = nnx.Linear(n, units, use_bias=False, kernel_init=ORTHOGONAL, rngs=rngs)
        # of each unit
        self.norm = BatchNorm(units, rngs=rngs)
        self.modulated, more = modulated, (n if modulated else 0,)
        self.ups = nnx.List(
            [UpGlu(wide >> i, wide >> i + 1, *more, rngs=rngs) for i in range(count)]
        )

    def __call__(self, vector, *, train):
        given = (vector,) if self.modulated else ()
        x = jax.nn.glu(self.norm(self.first(vector), train=train))
        x = rearrange(x, 'b (h w c) -> b h w c', h=self.base, w=self.base)
        for up in self.ups:
            x = up(x, *given, train=train)  # b 8 8 c/2, b 16 16 c/4, ...
        return x


# ------------------------------------------------------------------------------- discriminators
class ImageTrunk(nnx.Module):
    """A picture b s s 3 -> its code b 4 4 8c.

    Convolutions of kernel 4 and stride 2, each with twice the channels of the one before. 64 px
    take four of them, from c channels on. A larger picture has one more for each doubling, and for
    each of those a 3x3 convolution at the end that halves the channels. A smaller one lacks the
    first ones: 32 px start with 2c channels, 16 px with 4c. All but the first have a norm.
    """

    def __init__(self, side, c, norm=BatchNorm, *, rngs):
        n = levels(side, least=8)
        down = [c << i for i in range(max(4 - n, 0), max(4, n))]
        back = [c << i for i in range(n - 2, 2, -1)]

        def halve(c, d):
            return Conv(c, d, 4, stride=2, padding=1, kernel_init=ORTHOGONAL, rngs=rngs)

        self.first = halve(3, down[0])
        self.convs = nnx.List(
            [halve(a, b) for a, b in zip(down, down[1:])]
            + [conv3(2 * b, b, rngs=rngs) for b in back]
        )
        self.norms = nnx.List([norm(b, rngs=rngs) for b in down[1:] + back])

    @recomputed
    def __call__(self, image, *, train):
        x = lrelu(self.first(image))  # b s/2 s/2 c
        for conv, norm in zip(self.convs, self.norms):
            x = lrelu(norm(conv(x), train=train))  # b s/4 s/4 2c, ..., b 4 4 8c
        return x


class LogitHead(nnx.Module):
    """A code b 4 4 c -> logits b.

    With `vector` = n it also reads a vector b n: the logits say whether the two match.
    """

    def __init__(self, c, vector=0, norm=BatchNorm, *, rngs):
        self.joint = conv3(vector + c, c, rngs=rngs) if vector else None
        self.norm = norm(c, rngs=rngs) if vector else None
        self.logit = nnx.Linear(16 * c, 1, kernel_init=ORTHOGONAL, rngs=rngs)

    def __call__(self, code, vector=None, *, train):
        if self.joint:
            code = conv3_beside(*operands(self.joint, vector, code))
            code = lrelu(self.norm(code, train=train))
        return self.logit(rearrange(code, 'b h w c -> b (h w c)'))[:, 0]
