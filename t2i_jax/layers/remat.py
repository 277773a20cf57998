"""Rematerialisation: a block stores its inputs instead of all that its gradient needs.

It is computed again when its gradient is. `jax.checkpoint` leaves to the compiler when the second
computation happens, and XLA does it early on CPU, where it then saves nothing. Here the inputs of
the second computation depend on the incoming gradient, so it cannot start before.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx


def recomputed(call):
    """Decorate the `__call__(self, *arrays, train)` of a block that may be computed again.

    It is in training, where `switch_on` was called for the stage.
    """

    @functools.wraps(call)
    def either(self, *args, train):
        if not (train and getattr(self, 'remat', False)):
            return call(self, *args, train=train)
        graph, params, stats = nnx.split(self, nnx.Param, nnx.BatchStat)

        def function(params, stats, *args):
            block = nnx.merge(graph, params, stats)
            for _, inner in nnx.iter_modules(block):
                # blocks within it are computed again with it, once
                inner.remat = False
            return call(block, *args, train=train), nnx.state(block, nnx.BatchStat)

        out, stats = again_for_its_gradient(function)(params, stats, *args)
        nnx.update(self, stats)
        return out

    either.recomputed = True
    return either


def switch_on(stage):
    """Switch rematerialisation on for all blocks of a stage that support it."""
    for _, module in nnx.iter_modules(stage):
        if hasattr(type(module).__call__, 'recomputed'):
            module.remat = True


def again_for_its_gradient(function):
    """Return the same function of arrays; for its gradient it stores only its arguments."""

    @jax.custom_vjp
    def run(*args):
        return function(*args)

    def forward(*args):
        return function(*args), args

    def backward(args, gradient):
        first = next(
            leaf for leaf in jax.tree.leaves(gradient) if jnp.issubdtype(leaf.dtype, jnp.floating)
        )
        # known only when the gradient is; NaN where that is not finite
        zero = 0 * first.ravel()[0]
        args = jax.tree.map(lambda x: x + zero.astype(x.dtype), args)
        return jax.vjp(function, *args)[1](gradient)

    run.defvjp(forward, backward)
    return run
