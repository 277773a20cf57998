"""Blocks of the ReLU family: GAN-CLS, StackGAN and the systems that follow them.

Convolutions start from normal(0, 0.02) and have no biases but those of the norms.
"""

import jax
from flax import nnx

from t2i_jax.layers.conv import Conv, conv3_doubled, operands
from t2i_jax.layers.norm import BatchNorm
from t2i_jax.layers.remat import recomputed


def conv3x3(c, d, *, rngs):
    """Make a 3x3 convolution that keeps the side. b h w c -> b h w d"""
    return Conv(c, d, 3, padding=1, rngs=rngs)


class UpConv(Conv):
    """Every pixel doubled in both directions, then a 3x3 convolution. b h w c -> b 2h 2w d"""

    def __init__(self, c, d, *, rngs):
        super().__init__(c, d, 3, padding=1, rngs=rngs)

    def __call__(self, x):
        return conv3_doubled(*operands(self, x))


class UpRelu(nnx.Module):
    """Pixels doubled, 3x3 convolution, batch norm, ReLU. b h w c -> b 2h 2w d"""

    def __init__(self, c, d, *, rngs):
        self.conv, self.norm = UpConv(c, d, rngs=rngs), BatchNorm(d, rngs=rngs)

    @recomputed
    def __call__(self, x, *, train):
        return jax.nn.relu(self.norm(self.conv(x), train=train))


class ResidualRelu(nnx.Module):
    """relu(x + [3x3, norm, ReLU, 3x3, norm](x)). b h w c -> b h w c"""

    def __init__(self, c, *, rngs):
        self.convs = nnx.List([conv3x3(c, c, rngs=rngs) for _ in range(2)])
        self.norms = nnx.List([BatchNorm(c, rngs=rngs) for _ in range(2)])

    @recomputed
    def __call__(self, x, *, train):
        y = jax.nn.relu(self.norms[0](self.convs[0](x), train=train))
        return jax.nn.relu(x + self.norms[1](self.convs[1](y), train=train))


class Bottleneck(nnx.Module):
    """x + [1x1 c/4, 3x3 c/4, 3x3 c](x). b h w c -> b h w c

    There is a norm after each convolution and the activation between them.
    """

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
