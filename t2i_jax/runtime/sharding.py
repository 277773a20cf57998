"""The mesh, and how a batch and a state lie on it."""

import contextlib
import math

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from t2i_jax.runtime.errors import RunError


def make_mesh(fsdp=1, devices=None):
    """A mesh over `devices` (None: all) with axes `data` and `fsdp`. Raises RunError where they do not divide."""
    devices = jax.devices() if devices is None else devices
    n = len(devices)
    if fsdp < 1 or n % fsdp:
        raise RunError(
            f'mesh.fsdp={fsdp} does not divide the {n} devices. Choose a divisor of {n}.'
        )
    return jax.make_mesh(
        (n // fsdp, fsdp),
        ('data', 'fsdp'),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices,
    )


def check_batch(batch_size, mesh, stage):
    if batch_size % mesh.size:
        raise RunError(
            f'stages.{stage}.batch_size={batch_size} cannot be divided among {mesh.size} devices. '
            f'Set --config.stages.{stage}.batch_size to a multiple of {mesh.size}.'
        )


def replicated(mesh):
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh, stacked=False):
    """Rows of a batch, or of several stacked batches, over all devices."""
    return NamedSharding(mesh, PartitionSpec(*((None,) if stacked else ()), ('data', 'fsdp')))


def state_shardings(mesh, shapes):
    """A sharding for each array of a state: its largest divisible axis over `fsdp`, small ones replicated."""
    fsdp = mesh.shape['fsdp']

    def shard(x):
        axes = [i for i, n in enumerate(x.shape) if n % fsdp == 0]
        if fsdp == 1 or x.size < 2**14 or not axes:
            return replicated(mesh)
        largest = max(axes, key=lambda i: x.shape[i])
        return NamedSharding(
            mesh, PartitionSpec(*('fsdp' if i == largest else None for i in range(x.ndim)))
        )

    return jax.tree.map(shard, shapes)


tracing = None  # the mesh for which a step is being traced


@contextlib.contextmanager
def traced_for(mesh):
    """While a function is traced within it, `everywhere` knows the mesh."""
    global tracing
    before, tracing = tracing, mesh
    try:
        yield
    finally:
        tracing = before


def everywhere(tree):
    """Arrays of a training step that every device is to have whole, such as the captions with which each compares the pictures of its rows. Left to itself
    XLA may move the far larger products of all pairs instead. Elsewhere it changes nothing."""
    return tree if tracing is None else jax.lax.with_sharding_constraint(tree, replicated(tracing))


def whole(params):
    """Parameters of a training step as layers use them: each device gathers its own copy, where they are sharded. Left to itself XLA may move and
    partition activations, which are larger, along the axes of the parameters instead."""
    return params if tracing is None or tracing.shape['fsdp'] == 1 else everywhere(params)


def over_rows(x):
    """An array of a training step whose rows are those of the batch, such as noise: each device makes its own, where they can be divided. Without it what is
    drawn from noise alone would be drawn whole by every device."""
    return (
        x
        if tracing is None or len(x) % tracing.size
        else jax.lax.with_sharding_constraint(x, by_rows(tracing))
    )


def describe(mesh, shapes, shardings):
    """How much of a state each device holds: one line for people, without a full stop."""
    leaves = list(zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings)))
    whole, part = (
        sum(math.prod(shape(x, s)) * x.dtype.itemsize for x, s in leaves)
        for shape in (lambda x, s: x.shape, lambda x, s: s.shard_shape(x.shape))
    )
    return f'state {whole / 1e6:,.1f} MB, {part / 1e6:,.1f} MB on each of {mesh.size} devices (data {mesh.shape["data"]}, fsdp {mesh.shape["fsdp"]})'


def put_rows(mesh, batch, stacked=False):
    """This process's rows of a batch, or of several stacked batches, as global arrays over all devices."""
    sharding = by_rows(mesh, stacked)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )
