"""Spectral normalisation of a whole network (Miyato, Kataoka, Koyama, Yoshida, ICLR 2018)."""

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.layers.norm import Running

HIGHEST = jax.lax.Precision.HIGHEST


def watch(network, rngs):
    """Give each layer with a kernel the vector by which `normalise` follows its singular value."""
    for _, layer in nnx.iter_modules(network):
        if isinstance(getattr(layer, 'kernel', None), nnx.Param):
            start = jax.random.normal(rngs.params(), layer.kernel.shape[-1:])
            layer.singular = Running(_unit(start))


def normalise(network):
    """Divide each kernel by its largest singular value, in place.

    Kernels count as matrices, (all but the last axis) x outputs. Each call takes one step of power
    iteration. In a loss it lasts as long as the loss: the parameters themselves stay as they are.
    """
    for _, layer in nnx.iter_modules(network):
        if hasattr(layer, 'singular'):
            kernel = layer.kernel[...]
            matrix = kernel.reshape(-1, kernel.shape[-1])
            left = _unit(jnp.matmul(matrix, layer.singular[...], precision=HIGHEST))
            right = _unit(jnp.matmul(left, matrix, precision=HIGHEST))
            left, right = jax.lax.stop_gradient((left, right))
            layer.singular[...] = right
            largest = jnp.matmul(jnp.matmul(left, matrix, precision=HIGHEST), right)
            layer.kernel.set_value(kernel / largest)


def _unit(x):
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(), 1e-12))
