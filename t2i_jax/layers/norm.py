"""Batch normalisation as the GANs of this line use it."""
import jax
from flax import nnx


class BatchNorm(nnx.BatchNorm):
    """Scale drawn from N(1, 0.02), bias 0, eps 1e-5, running statistics 0.9 old + 0.1 new, over all axes but the last.

    Under a mesh the statistics are those of the global batch. `train=False` uses the running ones.
    """

    def __init__(self, c, *, rngs):
        super().__init__(c, momentum=0.9, epsilon=1e-5, scale_init=scale_around_one, rngs=rngs)

    def __call__(self, x, *, train):
        return super().__call__(x, use_running_average=not train)


def scale_around_one(key, shape, dtype):
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)
