"""The mesh of devices, and how a batch and a state lie on it."""

import contextlib
import math

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from t2i_jax.runtime.errors import RunError

# entries of an array below which it is replicated
SMALL = 2**14


def make_mesh(fsdp=1, devices=None):
    """Make a mesh with axes `data` and `fsdp`.

    fsdp: devices among which parameters are divided
    devices: by default all

    Raises RunError where fsdp does not divide the number of devices.
    """
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
    """Raise RunError where the batch of a stage cannot be divided among the devices."""
    if batch_size % mesh.size:
        raise RunError(
            f'stages.{stage}.batch_size={batch_size} cannot be divided among {mesh.size} devices. '
            f'Set --config.stages.{stage}.batch_size to a multiple of {mesh.size}.'
        )


def replicated(mesh):
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh, stacked=False):
    """The sharding of a batch by rows, over all devices.

    stacked: of several stacked batches.
    """
    return NamedSharding(mesh, PartitionSpec(*((None,) if stacked else ()), ('data', 'fsdp')))


def state_shardings(mesh, shapes):
    """Choose a sharding for each array of a state.

    The largest axis that `fsdp` divides lies over it; small arrays are replicated.
    """
    fsdp = mesh.shape['fsdp']

    def shard(x):
        axes = [i for i, n in enumerate(x.shape) if n % fsdp == 0]
        if fsdp == 1 or x.size < SMALL or not axes:
            return replicated(mesh)
        largest = max(axes, key=lambda i: x.shape[i])
        names = ('fsdp' if i == largest else None for i in range(x.ndim))
        return NamedSharding(mesh, PartitionSpec(*names))

    return jax.tree.map(shard, shapes)


# the mesh for which a step is traced at the moment
tracing = None


@contextlib.contextmanager
def traced_for(mesh):
    """Trace functions for a mesh.

    `divided`, `everywhere`, `whole` and `over_rows` know it within the context.
    """
    global tracing
    before, tracing = tracing, mesh
    try:
        yield
    finally:
        tracing = before


def divided():
    """Return whether the step that is traced at the moment is one of several devices."""
    return tracing is not None and tracing.size > 1


def everywhere(tree):
    """Replicate arrays within a training step, such as the captions of a whole batch.

    Each device compares all of them with the pictures of its rows. Left to itself XLA may move the
    far larger products of all pairs instead. Outside `traced_for` it changes nothing.
    """
    return tree if tracing is None else jax.lax.with_sharding_constraint(tree, replicated(tracing))


def whole(params):
    """All-gather sharded parameters within a training step, as layers use them.

    Left to itself XLA may move and partition activations, which are larger, along the axes of the
    parameters instead.
    """
    return params if tracing is None or tracing.shape['fsdp'] == 1 else everywhere(params)


def over_rows(x):
    """Divide an array of a training step, such as noise, by rows where it can be.

    Each device then makes its own rows. Without it every device would make all noise, and all that
    is generated from noise alone.
    """
    if tracing is None or len(x) % tracing.size:
        return x
    return jax.lax.with_sharding_constraint(x, by_rows(tracing))


def describe(mesh, shapes, shardings):
    """Say in one line how much of a state each device holds, without a full stop."""
    leaves = list(zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings)))
    total = sum(math.prod(x.shape) * x.dtype.itemsize for x, _ in leaves)
    part = sum(math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize for x, s in leaves)
    return (
        f'state {total / 1e6:,.1f} MB, {part / 1e6:,.1f} MB on each of {mesh.size} devices '
        f'(data {mesh.shape["data"]}, fsdp {mesh.shape["fsdp"]})'
    )


def put_rows(mesh, batch, stacked=False):
    """Make global arrays over all devices from this process's rows of a batch.

    stacked: of several stacked batches
    """
    sharding = by_rows(mesh, stacked)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )
