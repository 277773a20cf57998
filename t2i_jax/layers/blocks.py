"""The building blocks that several systems share."""
import jax
from flax import nnx

from t2i_jax.layers.conv import NORMAL, Conv
from t2i_jax.layers.norm import BatchNorm


def lrelu(x):
    """Leaky ReLU of slope 0.2, the one of every discriminator here."""
    return jax.nn.leaky_relu(x, 0.2)


def levels(size):
    """How many times a 4 x 4 map is doubled to reach the image; raises ValueError for a size that is not 4 * 2^n."""
    n = size.bit_length() - 3
    if n < 2 or size != 4 << n:
        raise ValueError(f'An image side of {size} cannot be made by doubling 4 x 4 maps: use 16, 32, 64, 128, ...')
    return n


def linear(c, d, *, use_bias=False, rngs):
    """A dense layer with a normal(0, 0.02) kernel."""
    return nnx.Linear(c, d, use_bias=use_bias, kernel_init=NORMAL, rngs=rngs)


def torch_linear(c, d, *, rngs):
    """A dense layer with Torch's default start: kernel and bias from U(-1/sqrt(c), 1/sqrt(c))."""
    def uniform(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -c ** -.5, c ** -.5)
    return nnx.Linear(c, d, kernel_init=uniform, bias_init=uniform, rngs=rngs)


class Bottleneck(nnx.Module):
    """x + [1x1 c/4, 3x3 c/4, 3x3 c](x), normalised after each convolution, the activation between them. b h w c -> b h w c"""

    def __init__(self, c, activation, norm=BatchNorm, *, rngs):
        self.convs = nnx.List([Conv(c, c // 4, 1, rngs=rngs), Conv(c // 4, c // 4, 3, padding=1, rngs=rngs),
                               Conv(c // 4, c, 3, padding=1, rngs=rngs)])
        self.norms = nnx.List([norm(d, rngs=rngs) for d in (c // 4, c // 4, c)])
        self.activation = activation

    def __call__(self, x, *, train):
        y = x
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            y = norm(conv(y), train=train)
            if index < 2:
                y = self.activation(y)
        return x + y
