"""Rematerialisation: a block keeps its inputs instead of all that its gradient needs, and is computed again when the gradient comes by.

`jax.checkpoint` leaves it to the compiler when the second computation happens, and XLA does it early on CPU, where nothing is saved then. Here its inputs
depend on the gradient that asks for it, so it cannot begin before.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx


def recomputed(call):
    """Decorates the `__call__(self, *arrays, train)` of a block: in training it is computed again where `switch_on` said so."""

    @functools.wraps(call)
    def either(self, *args, train):
        if not (train and getattr(self, 'remat', False)):
            return call(self, *args, train=train)
        graph, params, stats = nnx.split(self, nnx.Param, nnx.BatchStat)

        def function(params, stats, *args):
            block = nnx.merge(graph, params, stats)
            for _, inner in nnx.iter_modules(block):
                inner.remat = False  # blocks within it are computed again with it, once
            return call(block, *args, train=train), nnx.state(block, nnx.BatchStat)

        out, stats = again_for_its_gradient(function)(params, stats, *args)
        nnx.update(self, stats)
        return out

    either.recomputed = True
    return either


def switch_on(stage):
    """Lets all blocks of a stage that can be computed again."""
    for _, module in nnx.iter_modules(stage):
        if hasattr(type(module).__call__, 'recomputed'):
            module.remat = True


def again_for_its_gradient(function):
    """The same function of arrays, which keeps for its gradient nothing but its arguments."""

    @jax.custom_vjp
    def run(*args):
        return function(*args)

    def forward(*args):
        return function(*args), args

    def backward(args, gradient):
        first = next(
            leaf for leaf in jax.tree.leaves(gradient) if jnp.issubdtype(leaf.dtype, jnp.floating)
        )
        zero = (
            0 * first.ravel()[0]
        )  # known only when the gradient is; not a number where that is none
        args = jax.tree.map(lambda x: x + zero.astype(x.dtype), args)
        return jax.vjp(function, *args)[1](gradient)

    run.defvjp(forward, backward)
    return run
