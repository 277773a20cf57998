"""The mesh, how a batch and a state lie on it, several hosts."""
import os

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from t2i_jax.errors import RunError

LAUNCHERS = ('JAX_COORDINATOR_ADDRESS', 'SLURM_STEP_NODELIST', 'OMPI_MCA_orte_hnp_uri', 'TPU_WORKER_HOSTNAMES')


def start_hosts():
    """Joins the other processes of this job, where a launcher's environment says that there are some."""
    hosts = os.environ.get('TPU_WORKER_HOSTNAMES', ',').split(',')
    if any(name in os.environ for name in LAUNCHERS[:3]) or len(hosts) > 1 and all(hosts):
        jax.distributed.initialize()


def make_mesh(fsdp=1, devices=None):
    """A mesh over `devices` (None: all) with axes `data` and `fsdp`. Raises RunError where they do not divide."""
    devices = jax.devices() if devices is None else devices
    n = len(devices)
    if fsdp < 1 or n % fsdp:
        raise RunError(f'mesh.fsdp={fsdp} does not divide the {n} devices. Choose a divisor of {n}.')
    return jax.make_mesh((n // fsdp, fsdp), ('data', 'fsdp'), axis_types=(AxisType.Auto, AxisType.Auto), devices=devices)


def check_batch(batch_size, mesh, stage):
    if batch_size % mesh.size:
        raise RunError(f'stages.{stage}.batch_size={batch_size} cannot be divided among {mesh.size} devices. '
                       f'Set --config.stages.{stage}.batch_size to a multiple of {mesh.size}.')


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
        if fsdp == 1 or x.size < 2 ** 14 or not axes:
            return replicated(mesh)
        largest = max(axes, key=lambda i: x.shape[i])
        return NamedSharding(mesh, PartitionSpec(*('fsdp' if i == largest else None for i in range(x.ndim))))
    return jax.tree.map(shard, shapes)


def put_rows(mesh, batch, stacked=False):
    """This process's rows of a batch, or of several stacked batches, as global arrays over all devices."""
    sharding = by_rows(mesh, stacked)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)
