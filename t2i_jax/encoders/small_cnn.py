"""A small image encoder that is trained from scratch, where no pretrained network can be had."""

import jax.numpy as jnp
from flax import nnx

from t2i_jax.layers.conv import Conv
from t2i_jax.layers.linear import linear, lrelu
from t2i_jax.layers.norm import BatchNorm


class SmallCnn(nnx.Module):
    """Stride-2 convolutions with batch norm, then a linear layer. b s s 3 in [-1, 1] -> b d

    flat: the linear layer reads the whole last map, so that it sees where things are, and the size
    is fixed; otherwise its mean.
    """

    def __init__(self, size, channels, d, flat=False, *, rngs):
        self.convs = nnx.List(
            [
                Conv(a, b, 4, stride=2, padding=1, rngs=rngs)
                for a, b in zip((3, *channels), channels)
            ]
        )
        self.norms = nnx.List([BatchNorm(c, rngs=rngs) for c in channels])
        side = size >> len(channels) if flat else 1
        self.head = linear(side * side * channels[-1], d, use_bias=True, rngs=rngs)
        self.flat = flat

    def maps(self, x, *, train=False):
        """Return the map after each convolution, b s/2 s/2 c, b s/4 s/4 c', ..."""
        found = []
        for conv, norm in zip(self.convs, self.norms):
            x = lrelu(norm(conv(x), train=train))
            found.append(x)
        return found

    def __call__(self, x, *, train):
        x = self.maps(x, train=train)[-1]
        return self.head(x.reshape(len(x), -1) if self.flat else jnp.mean(x, (1, 2)))
