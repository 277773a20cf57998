"""Mixtures of bivariate Gaussians, as heads of networks (Graves, 2013; Ha and Eck, 2018).

    p(x) = sum_k pi_k N2(x; mu_k, sigma_k, rho_k),  pi = softmax, sigma = exp, rho = tanh
    log N2 = -q / 2 (1 - rho^2) - log(2 pi sigma_1 sigma_2) - log(1 - rho^2) / 2
    q = d_1^2 + d_2^2 - 2 rho d_1 d_2,  d = (x - mu) / sigma

Data that lie on a line or a point would make the density infinite, so that sigma and rho have
limits.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

# of log sigma, in units in which data have a deviation of about 1
LOG_SIGMA = math.log(0.02), 3.0
RHO = 0.95


class Mixture(NamedTuple):
    """A mixture of k Gaussians in two dimensions; leading axes are free."""

    # ... k
    log_weights: Any
    # ... k 2
    mean: Any
    # ... k 2
    log_sigma: Any
    # ... k
    rho: Any

    @classmethod
    def of(cls, raw) -> 'Mixture':
        """Read the parameters off the output of a network, (..., 6 k), in float32."""
        weights, mean, log_sigma, rho = jnp.split(
            raw.astype(jnp.float32), [k * raw.shape[-1] // 6 for k in (1, 3, 5)], -1
        )
        pairs = (rearrange(x, '... (k i) -> ... k i', i=2) for x in (mean, log_sigma))
        mean, log_sigma = pairs
        log_sigma = jnp.clip(log_sigma, *LOG_SIGMA)
        return cls(jax.nn.log_softmax(weights), mean, log_sigma, RHO * jnp.tanh(rho))

    def log_density(self, x):
        """Return log p(x): (..., 2) -> (...)."""
        off = (x[..., None, :] - self.mean) * jnp.exp(-self.log_sigma)  # ... k 2
        free = 1 - self.rho**2
        q = jnp.square(off).sum(-1) - 2 * self.rho * off.prod(-1)
        each = -q / (2 * free) - math.log(2 * math.pi) - self.log_sigma.sum(-1) - jnp.log(free) / 2
        return jax.nn.logsumexp(self.log_weights + each, -1)

    def draw(self, u, eps, temperature=1.0):
        """Draw a point (..., 2) from noise: u (...) uniform, eps (..., 2) normal.

        temperature: t makes weights pi^(1/t) and deviations sigma sqrt(t); 0 is the mean of the
        likeliest component.
        """
        weights = jax.nn.softmax(self.log_weights / max(temperature, 1e-6))
        cdf = jnp.cumsum(weights, -1)
        k = (cdf <= u[..., None] * cdf[..., -1:]).sum(-1)[..., None]

        def chosen(x):
            k_of = k if x.ndim == k.ndim else k[..., None]
            return jnp.take_along_axis(x, k_of, k.ndim - 1).squeeze(k.ndim - 1)

        rho = chosen(self.rho)
        along = jnp.stack([eps[..., 0], rho * eps[..., 0] + jnp.sqrt(1 - rho**2) * eps[..., 1]], -1)
        sigma = math.sqrt(temperature) * jnp.exp(chosen(self.log_sigma))
        return chosen(self.mean) + sigma * along


class MixtureHead(nnx.Linear):
    """A dense layer whose output is a Mixture of k components. ... c -> Mixture"""

    def __init__(self, c, k, *, start, rngs):
        """start: initialiser of the kernel. Means start spread out, deviations at 1."""

        def bias(key, shape, dtype=jnp.float32, **_):
            means = jax.random.normal(key, (2 * k,), dtype)
            return jnp.concatenate([jnp.zeros(k), means, jnp.zeros(3 * k)]).reshape(shape)

        super().__init__(c, 6 * k, kernel_init=start, bias_init=bias, rngs=rngs)

    def __call__(self, *inputs):
        return Mixture.of(super().__call__(jnp.concatenate(inputs, -1)))
