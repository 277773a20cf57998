"""Normalisation as the GANs of this line use it."""

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx


class Running(nnx.BatchStat):
    """A running statistic. Assigned as `x[...] = value`, an nnx.Variable asks a traced value for its sharding, which it has not; the complaint, that
    nobody sees, searches the whole program, and takes half of the time of tracing a large one."""

    def __setitem__(self, index, value):
        self.set_value(value) if index is ... else super().__setitem__(index, value)


class BatchNorm(nnx.BatchNorm):
    """Scale drawn from N(1, 0.02), bias 0, eps 1e-5, running statistics 0.9 old + 0.1 new, over all axes but the last.

    Under a mesh the statistics are those of the global batch. `train=False` uses the running ones.
    """

    def __init__(self, c, *, rngs):
        super().__init__(c, momentum=0.9, epsilon=1e-5, scale_init=scale_around_one, rngs=rngs)
        self.mean, self.var = Running(self.mean[...]), Running(self.var[...])
        self.batches = 1  # that lie in one; see `separately`

    def __call__(self, x, *, train):
        if not train or self.batches == 1:
            return super().__call__(x, use_running_average=not train)
        x = rearrange(x, '(b n) ... -> b n ...', n=self.batches)
        wide, axes = x.astype(jnp.float32), (0, *range(2, x.ndim - 1))
        mean = wide.mean(axes)  # n c
        variance = jnp.maximum((wide**2).mean(axes) - mean**2, 0)
        for one, other in zip(mean, variance):  # one batch after the other
            self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * one
            self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * other
        mean, variance = (jnp.expand_dims(m, range(1, x.ndim - 2)) for m in (mean, variance))
        y = (wide - mean) * (jax.lax.rsqrt(variance + self.epsilon) * self.scale[...]) + self.bias[
            ...
        ]
        return rearrange(y.astype(self.dtype or x.dtype), 'b n ... -> (b n) ...')


def separately(network, batches, *beside):
    """[network(x, *beside, train=True) for x in batches], the same numbers by one pass over all rows. x, beside: b ...

    Batch norm sees each batch by itself, and its running statistics follow in this order. One convolution instead of several makes one gradient of each
    kernel, which otherwise are all kept and added up. Rows of one place lie side by side: where a batch is spread over devices, none has to move.
    """
    n = len(batches)
    norms = [module for _, module in nnx.iter_modules(network) if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.batches = n
    out = network(
        rearrange(list(batches), 'n b ... -> (b n) ...'),
        *(repeat(x, 'b ... -> (b n) ...', n=n) for x in beside),
        train=True,
    )
    for norm in norms:
        norm.batches = 1
    return [
        jax.tree.map(lambda x, i=i: rearrange(x, '(b n) ... -> n b ...', n=n)[i], out)
        for i in range(n)
    ]


class LayerNorm(nnx.Module):
    """Each row alone to mean 0 and variance 1 over its map and channels, then scale and bias a channel; eps 1e-5. `train` changes nothing."""

    def __init__(self, c, *, rngs):
        self.scale, self.bias = nnx.Param(jnp.ones(c)), nnx.Param(jnp.zeros(c))

    def __call__(self, x, *, train):
        wide = x.astype(jnp.float32)
        axes = tuple(range(1, x.ndim))
        mean, variance = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
        return (
            (wide - mean) * jax.lax.rsqrt(variance + 1e-5) * self.scale[...] + self.bias[...]
        ).astype(x.dtype)


NORMS = {'batch': BatchNorm, 'layer': LayerNorm}


def scale_around_one(key, shape, dtype):
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)
