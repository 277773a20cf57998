"""Normalisation as the GANs of this line use it."""
import jax
import jax.numpy as jnp
from flax import nnx


class BatchNorm(nnx.BatchNorm):
    """Scale drawn from N(1, 0.02), bias 0, eps 1e-5, running statistics 0.9 old + 0.1 new, over all axes but the last.

    Under a mesh the statistics are those of the global batch. `train=False` uses the running ones.
    """

    def __init__(self, c, *, rngs):
        super().__init__(c, momentum=0.9, epsilon=1e-5, scale_init=scale_around_one, rngs=rngs)

    def __call__(self, x, *, train):
        return super().__call__(x, use_running_average=not train)


class LayerNorm(nnx.Module):
    """Each row alone to mean 0 and variance 1 over its map and channels, then scale and bias a channel; eps 1e-5. `train` changes nothing."""

    def __init__(self, c, *, rngs):
        self.scale, self.bias = nnx.Param(jnp.ones(c)), nnx.Param(jnp.zeros(c))

    def __call__(self, x, *, train):
        wide = x.astype(jnp.float32)
        axes = tuple(range(1, x.ndim))
        mean, variance = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
        return ((wide - mean) * jax.lax.rsqrt(variance + 1e-5) * self.scale[...] + self.bias[...]).astype(x.dtype)


NORMS = {'batch': BatchNorm, 'layer': LayerNorm}


def scale_around_one(key, shape, dtype):
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)
