"""Checkpoints by Orbax: save while training goes on, restore the newest that is whole, load the weights of another stage.

Each step's folder holds the state and a small JSON with a checksum of every array, because Orbax does not notice a flipped
byte. A folder that cannot be restored or whose checksums differ is named and skipped, and the step before it is used.
"""
import logging as python_logging
import math
import pathlib

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from t2i_jax.errors import RunError

python_logging.getLogger('orbax').setLevel(python_logging.ERROR)


def checksum(x):
    """A 32-bit sum of an array's words times odd numbers: it changes with any single word, whatever the sharding."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) if x.dtype.itemsize == 4 else x.astype(jnp.uint32)
    weights = 2 * jax.lax.iota(jnp.uint32, max(bits.size, 1))[:bits.size].reshape(bits.shape) + 1
    return (bits * weights).sum(dtype=jnp.uint32)


@jax.jit
def checksums(tree):
    return jnp.stack([checksum(x) for x in jax.tree.leaves(tree)])


class Checkpoints:
    """The checkpoints of one stage, in `<workdir>/<stage>/checkpoints`."""

    def __init__(self, folder, keep_n=2, best=None):
        """best: name of the validation loss whose smallest value is kept besides the last `keep_n`; None keeps the last only."""
        self.folder, self.best = pathlib.Path(folder).resolve(), best
        self.folder.mkdir(parents=True, exist_ok=True)
        policy = ocp.checkpoint_managers.preservation_policy
        keep = [policy.LatestN(keep_n)]

        def loss(metrics):
            return metrics[best] if math.isfinite(metrics[best]) else math.inf     # NaN would count as the best
        if best:
            keep.append(policy.BestN(get_metric_fn=loss, reverse=True, n=1, keep_checkpoints_without_metrics=False))
        self.manager = ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy(keep), enable_async_checkpointing=True,
            best_fn=loss if best else None, best_mode='min'))

    def steps(self):
        """Finished steps, the newest first. Unfinished ones are named in a warning."""
        for path in self.folder.glob('*orbax-checkpoint-tmp*'):
            logging.warning('%s was not finished when its process ended; it is ignored.', path)
        self.manager.reload()
        return sorted(self.manager.all_steps(), reverse=True)

    def save(self, step, state, extra, metrics=None, wait=False):
        """Starts writing the state. extra: JSON values that belong to it. An existing step is left as it is."""
        if step in self.manager.all_steps():
            return
        sums = [int(x) for x in jax.device_get(checksums(state))]
        self.manager.save(step, args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave({**extra, 'checksums': sums})), metrics=metrics)
        if wait:
            self.manager.wait_until_finished()

    def extra(self, step):
        return self.manager.restore(step, args=ocp.args.Composite(extra=ocp.args.JsonRestore()))['extra']

    def best_step(self):
        """The step to sample with: the best by its validation loss, or the newest."""
        steps = self.steps()
        return self.manager.best_step() if self.best and steps and self.manager.best_step() is not None else (steps or [None])[0]

    def restore(self, shapes, step=None):
        """(step, state, extra) of the newest whole checkpoint, or of `step` if that is whole; None where there is none.

        shapes: the state as ShapeDtypeStructs with shardings. Raises RunError where the checkpoint belongs to another model.
        """
        broken = []
        for candidate in sorted(self.steps(), key=lambda s: (s != step, -s)):
            try:
                restored = self.manager.restore(candidate, args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(shapes), extra=ocp.args.JsonRestore()))
                state, extra = restored['state'], restored['extra']
                sums = [int(x) for x in jax.device_get(checksums(state))]
            except Exception as error:     # Orbax and TensorStore raise many kinds for a damaged folder
                broken.append(f'step {candidate}: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}')
                logging.warning('The checkpoint of step %d in %s cannot be read and is skipped (%s).', candidate, self.folder, broken[-1])
                continue
            if sums != extra['checksums']:
                broken.append(f'step {candidate}: an array differs from its checksum')
                logging.warning('The checkpoint of step %d in %s is damaged (an array differs from its checksum) and is skipped.', candidate, self.folder)
                continue
            return candidate, state, extra
        if broken:
            raise RunError(f'No checkpoint in {self.folder} can be read: {"; ".join(broken)}. If the model was changed, choose another '
                           '--workdir; if files are damaged, delete that folder to train the stage again.')
        return None

    def discard_after(self, step):
        """Deletes the checkpoints above `step`: they could not be read, and their numbers are needed."""
        for later in self.steps():
            if later > step:
                self.manager.delete(later)

    def wait(self):
        self.manager.wait_until_finished()

    def close(self):
        self.manager.close()
