"""The halving convolutions of discriminators."""

from flax import nnx

from t2i_jax.layers.conv import Conv
from t2i_jax.layers.linear import NORMAL, lrelu
from t2i_jax.layers.norm import BatchNorm
from t2i_jax.layers.remat import recomputed


class Trunk(nnx.Module):
    """Pictures b s s c -> their map, b s/2^n s/2^n d.

    Convolutions of kernel 4 and stride 2, n of them, each with a leaky ReLU, all but the first with
    a norm before it.
    """

    def __init__(self, c, widths, norm=BatchNorm, *, kernel_init=NORMAL, rngs):
        """widths: channels after each convolution."""
        halving = dict(stride=2, padding=1, kernel_init=kernel_init, rngs=rngs)
        self.convs = nnx.List([Conv(a, b, 4, **halving) for a, b in zip((c, *widths), widths)])
        self.norms = nnx.List([norm(b, rngs=rngs) for b in widths[1:]])

    @recomputed
    def __call__(self, x, *, train):
        x = lrelu(self.convs[0](x))
        for conv, norm in zip(self.convs[1:], self.norms):
            x = lrelu(norm(conv(x), train=train))
        return x
