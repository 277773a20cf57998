"""Normalisation as the GANs of this line use it."""

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.layers.linear import NORMAL


class Running(nnx.BatchStat):
    """A running statistic that is quick to assign while a program is traced.

    On `x[...] = value` an nnx.Variable reads the sharding of the value. A traced value has none;
    the error, which is caught inside, searches the whole program and takes half of the time of
    tracing a large one.
    """

    def __setitem__(self, index, value):
        self.set_value(value) if index is ... else super().__setitem__(index, value)


class BatchNorm(nnx.BatchNorm):
    """Batch norm over all axes but the last, eps 1e-5.

    The scale starts from N(1, 0.02), the bias at 0; running statistics are momentum times the old
    ones and the rest of the new. Under a mesh the statistics are those of the global batch.
    `train=False` uses the running ones.
    """

    def __init__(self, c, momentum=0.9, *, rngs):
        start = scale_around_one
        super().__init__(c, momentum=momentum, epsilon=1e-5, scale_init=start, rngs=rngs)
        self.mean, self.var = Running(self.mean[...]), Running(self.var[...])
        # batches that are interleaved in the one that it sees; see `separately`
        self.batches = 1

    def __call__(self, x, *, train, rows=None):
        """Norm x b ... c; rows: bool b, which rows the statistics are of, all by default."""
        if rows is not None:
            # of none at all they would not be finite
            rows = jnp.expand_dims(rows | ~rows.any(), range(1, x.ndim))
        if not train or self.batches == 1:
            return super().__call__(x, use_running_average=not train, mask=rows)
        x = rearrange(x, '(b n) ... -> b n ...', n=self.batches)
        wide, axes = x.astype(jnp.float32), (0, *range(2, x.ndim - 1))
        mean = wide.mean(axes)  # n c
        variance = jnp.maximum((wide**2).mean(axes) - mean**2, 0)
        # one batch after the other
        for one, other in zip(mean, variance):
            self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * one
            self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * other
        mean, variance = (jnp.expand_dims(m, range(1, x.ndim - 2)) for m in (mean, variance))
        centred = wide - mean
        slope = jax.lax.rsqrt(variance + self.epsilon) * self.scale[...]
        y = centred * slope + self.bias[...]
        return rearrange(y.astype(self.dtype or x.dtype), 'b n ... -> (b n) ...')


def separately(network, batches, *others):
    """Compute [network(x, *others, train=True) for x in batches] by one pass over all rows.

    batches, others: b ...

    The numbers are the same: batch norm sees each batch by itself, and its running statistics
    follow in this order. One convolution instead of several makes one gradient of each kernel,
    where several would all be stored and added up. Rows of one place lie side by side, so that none
    has to move where a batch is spread over devices.
    """
    n = len(batches)
    norms = [module for _, module in nnx.iter_modules(network) if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.batches = n
    out = network(
        rearrange(list(batches), 'n b ... -> (b n) ...'),
        *(repeat(x, 'b ... -> (b n) ...', n=n) for x in others),
        train=True,
    )
    for norm in norms:
        norm.batches = 1

    def batch(i):
        return jax.tree.map(lambda x: rearrange(x, '(b n) ... -> n b ...', n=n)[i], out)

    return [batch(i) for i in range(n)]


class LayerNorm(nnx.Module):
    """Each row alone to mean 0 and variance 1 over its map and channels, eps 1e-5.

    Then a scale and a bias for each channel. `train` and `rows` change nothing.
    """

    def __init__(self, c, *, rngs):
        self.scale, self.bias = nnx.Param(jnp.ones(c)), nnx.Param(jnp.zeros(c))

    def __call__(self, x, *, train, rows=None):
        wide = x.astype(jnp.float32)
        axes = tuple(range(1, x.ndim))
        mean, variance = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
        y = (wide - mean) * jax.lax.rsqrt(variance + 1e-5) * self.scale[...] + self.bias[...]
        return y.astype(x.dtype)


NORMS = {'batch': BatchNorm, 'layer': LayerNorm}
# of generators: see ModulatedNorm
G_NORMS = 'batch', 'modulated'


def instance_norm(x):
    """Norm each channel of each row over its map, eps 1e-5, without parameters. b h w c"""
    wide = x.astype(jnp.float32)
    mean, variance = wide.mean((1, 2), keepdims=True), wide.var((1, 2), keepdims=True)
    return ((wide - mean) * jax.lax.rsqrt(variance + 1e-5)).astype(x.dtype)


class ModulatedNorm(nnx.Module):
    """Batch norm whose result a condition scales and shifts: BN(x) (1 + A c) + B c.

    Maps b ... c, conditions b d -> b ... c. A and B start from normal(0, 0.02).
    """

    def __init__(self, c, d, *, rngs):
        self.norm = BatchNorm(c, rngs=rngs)
        self.modulate = nnx.Linear(d, 2 * c, kernel_init=NORMAL, rngs=rngs)

    def __call__(self, x, condition, *, train):
        scale, shift = jnp.split(self.modulate(condition), 2, -1)
        axes = range(1, x.ndim - 1)
        scale, shift = (jnp.expand_dims(part, axes) for part in (scale, shift))
        return self.norm(x, train=train) * (1 + scale) + shift


class Whitening(nnx.Module):
    """Vectors b d moved and turned so that all directions vary alike, as far as they vary at all.

    (x - m) U diag((lambda / lambda_max + 1e-3)^-1/2) U^T, m, U, lambda the mean of vectors and the
    eigenvectors and eigenvalues of their covariance. Both are running averages (0.99 old), to which
    `observe` adds a batch.
    """

    def __init__(self, d):
        self.mean, self.covariance = Running(jnp.zeros(d)), Running(jnp.eye(d))
        self.matrix = Running(jnp.eye(d))

    def observe(self, x, momentum=0.99):
        """Add a batch of vectors b d to the statistics."""
        x = jax.lax.stop_gradient(x.astype(jnp.float32))
        mean = momentum * self.mean[...] + (1 - momentum) * x.mean(0)
        centred = x - mean
        now = jnp.einsum('bi,bj->ij', centred, centred, precision=jax.lax.Precision.HIGHEST)
        covariance = momentum * self.covariance[...] + (1 - momentum) * now / len(x)
        values, vectors = jnp.linalg.eigh(covariance)
        spread = jax.lax.rsqrt(jnp.maximum(values, 0) / values[-1] + 1e-3)
        self.mean[...], self.covariance[...] = mean, covariance
        self.matrix[...] = (vectors * spread) @ vectors.T

    def __call__(self, x):
        return (x - self.mean[...]) @ self.matrix[...]


def scale_around_one(key, shape, dtype):
    """Draw from N(1, 0.02)."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)
