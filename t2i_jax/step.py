"""The compiled step, the validation losses and `settle` of a stage on a mesh."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from t2i_jax import stage as core
from t2i_jax.data.feed import Feed
from t2i_jax.runtime import sharding

# batches after which running statistics fit the averaged parameters: 0.9 ** 50 of the old are left
SETTLE = 50


class Compiled(NamedTuple):
    """The compiled functions of a stage in training; see `compiled`.

    step: (state, tables, rows) -> (state, metrics); the state is donated.
    losses: (state, tables, rows, index) -> {name: scalar}, on held-out rows.
    settle: (state, tables, rows, index) -> the statistics of the averaged parameters.
    replicate: a tree -> the same, whole on every device.
    """

    step: Any
    losses: Any
    settle: Any
    replicate: Any


def compiled(program, feed: Feed, held_out: Feed | None, placement, together=1) -> Compiled:
    """Compile what training runs.

    program: the static half of the stage. feed, held_out: of training and validation.
    placement: a sharding for each array of the state. together: steps of one dispatch.
    """
    mesh, everywhere = feed.mesh, sharding.replicated(feed.mesh)

    def one_step(state, tables, rows):
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        with sharding.traced_for(mesh):
            batch = feed.batch(tables, rows, key, True) | {'step': state.step}
            state, metrics = core.train_step(program, state, batch)
        return state, metrics | ({'stop': rows['stop'].max()} if 'stop' in rows else {})

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=(placement, everywhere))
    def step(state, tables, rows):
        if together == 1:
            return one_step(state, tables, rows)
        return jax.lax.scan(lambda state, rows: one_step(state, tables, rows), state, rows)

    @jax.jit
    def losses(state, tables, rows, index):
        key = jax.random.fold_in(jax.random.key(0), index)
        with sharding.traced_for(mesh):
            batch = held_out.batch(tables, rows, key, False) | {'step': state.step}
            return core.validation_losses(program, state, batch, key)

    @jax.jit
    def settle(state, tables, rows, index):
        key = jax.random.fold_in(jax.random.key(state.seed), index)
        with sharding.traced_for(mesh):
            batch = feed.batch(tables, rows, key, True) | {'step': state.step}
            return core.settle(program, state, batch, key)

    return Compiled(step, losses, settle, jax.jit(lambda tree: tree, out_shardings=everywhere))


def settled(program, run: Compiled, state, feed: Feed):
    """Return the state with running statistics that fit its averaged parameters.

    It is a function of the state alone.
    """
    if not program.decay or not program.forward:
        # no average, or no forward pass to estimate them by: those of training
        return state.replace(ema_stats=core.pick(state.stats, program.ema))
    if not jax.tree.leaves(state.ema_stats):
        return state
    state = state.replace(ema_stats=core.pick(state.stats, program.ema))
    for index, rows in enumerate(feed.batches(0, SETTLE)):
        state = state.replace(ema_stats=run.settle(state, feed.tables, rows, index))
    return state


def validated(run: Compiled, state, held_out: Feed, batches) -> dict[str, float]:
    """Return the means of the validation losses over the first batches of the held-out split."""
    rows = enumerate(held_out.batches(0, batches))
    return mean_of([run.losses(state, held_out.tables, one, index) for index, one in rows])


def mean_of(metrics) -> dict[str, float]:
    """Average a list of {name: scalar, or one of several steps} over steps.

    NaN (a phase that did not run) is left out.
    """
    return {
        name: float('nan') if np.isnan(values).all() else float(np.nanmean(values))
        for name, values in joined(metrics).items()
    }


def joined(metrics) -> dict[str, np.ndarray]:
    """Join a list of {name: scalar, or one of several steps} into {name: (steps,)} on the host."""
    found = jax.device_get(metrics)
    return {
        name: np.concatenate([np.ravel(one[name]) for one in found if name in one]).astype(float)
        for name in dict.fromkeys(name for one in found for name in one)
    }
