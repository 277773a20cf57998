"""Initialisers, dense layers and the activation that the networks of this line share."""

import jax
import jax.numpy as jnp
from flax import nnx

NORMAL = nnx.initializers.normal(0.02)

# gain 1; of a convolution, the matrix (kernel * kernel * inputs) x outputs
ORTHOGONAL = nnx.initializers.orthogonal()


def uniform(limit):
    """Return the initialiser U(-limit, limit)."""

    def start(key, shape, dtype=jnp.float32, **_):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return start


def lrelu(x):
    """Apply the leaky ReLU of slope 0.2, which every discriminator here uses."""
    return jax.nn.leaky_relu(x, 0.2)


def linear(c, d, *, use_bias=False, rngs):
    """Make a dense layer with a normal(0, 0.02) kernel."""
    return nnx.Linear(c, d, use_bias=use_bias, kernel_init=NORMAL, rngs=rngs)


def torch_linear(c, d, *, rngs):
    """Make a dense layer with Torch's start: kernel and bias from U(-1/sqrt(c), 1/sqrt(c))."""
    return uniform_linear(c, d, c**-0.5, rngs=rngs)


def uniform_linear(c, d, limit, *, use_bias=True, rngs):
    """Make a dense layer whose kernel and bias start from U(-limit, limit)."""
    start = uniform(limit)
    return nnx.Linear(c, d, use_bias=use_bias, kernel_init=start, bias_init=start, rngs=rngs)
