"""Checkpoints by Orbax: save while training goes on, restore the newest that is whole, load the weights of another stage.

Each step's folder holds the state and a small JSON with a checksum of every array, because Orbax does not notice a flipped
byte. A folder that cannot be restored or whose checksums differ is named and skipped, and the step before it is used. Nothing that
was finished is ever deleted for being damaged: it is kept as `<step>.damaged`.
"""

import contextlib
import errno
import logging as python_logging
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from t2i_jax.runtime import hosts
from t2i_jax.runtime.errors import RunError, causes, os_error, reason, unwritable

python_logging.getLogger('orbax').setLevel(python_logging.ERROR)
# the threads of a save that fails tell it at length; it is raised where the save is waited for
logging.get_absl_logger().addFilter(lambda record: 'orbax' not in record.pathname)
WEEK = (
    7 * 24 * 3600
)  # seconds: by the clock, so less would fail a save during which the process was stopped or the machine slept
HOUR = 3600  # of several processes, which wait for each other
UNFINISHED = '*orbax-checkpoint-tmp*'


def checksum(x):
    """A 32-bit sum of an array's words times odd numbers: it changes with any single word, whatever the sharding."""
    bits = (
        jax.lax.bitcast_convert_type(x, jnp.uint32)
        if x.dtype.itemsize == 4
        else x.astype(jnp.uint32)
    )
    weights = 2 * jax.lax.iota(jnp.uint32, max(bits.size, 1))[: bits.size].reshape(bits.shape) + 1
    return (bits * weights).sum(dtype=jnp.uint32)


@jax.jit
def checksums(tree):
    return jnp.stack([checksum(x) for x in jax.tree.leaves(tree)])


class Checkpoints:
    """The checkpoints of one stage, in `<workdir>/<stage>/checkpoints`."""

    def __init__(self, folder, keep_n=2, best=None):
        """best: name of the validation loss whose smallest value is kept besides the last `keep_n`; None keeps the last only."""
        self.folder, self.best = pathlib.Path(folder).resolve(), best
        self.damaged, self.failed, self.bytes = (
            {},
            False,
            0,
        )  # step -> why it cannot be restored; whether a save failed; of the last one
        self.folder.mkdir(parents=True, exist_ok=True)
        policy = ocp.checkpoint_managers.preservation_policy
        keep = [policy.LatestN(keep_n)]

        def loss(metrics):
            return (
                metrics[best] if math.isfinite(metrics[best]) else math.inf
            )  # NaN would count as the best

        if best:
            keep.append(
                policy.BestN(
                    get_metric_fn=loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
                )
            )
        self.manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy.AnyPreservationPolicy(keep),
                enable_async_checkpointing=True,
                best_fn=loss if best else None,
                best_mode='min',
                async_options=ocp.AsyncOptions(timeout_secs=HOUR if hosts.several() else WEEK),
                single_host_load_and_broadcast=hosts.several(),
            ),
        )

    def steps(self):
        """Finished steps, the newest first. Unfinished ones are named in a warning."""
        for path in self.folder.glob(UNFINISHED):
            logging.warning('%s was not finished when its process ended; it is ignored.', path)
        self.manager.reload()
        return sorted(self.manager.all_steps(), reverse=True)

    def save(self, step, state, extra, metrics=None, wait=False):
        """Starts writing the state. extra: JSON values that belong to it. An existing step is left as it is.

        Raises RunError where this or the save before it cannot be written.
        """
        if step in self.manager.all_steps():
            return
        sums = [int(x) for x in jax.device_get(checksums(state))]
        self.bytes = sum(x.nbytes for x in jax.tree.leaves(state))
        with self.told():
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    extra=ocp.args.JsonSave({**extra, 'checksums': sums}),
                ),
                metrics=metrics,
            )
            if wait:
                self.manager.wait_until_finished()

    @contextlib.contextmanager
    def told(self):
        """Errors of a save, of this process or of the threads that write, as one message; the room that it took is given back."""
        try:
            yield
        except Exception as error:
            self.failed = True
            if (
                hosts.lost(error) or os_error(error) is None and not isinstance(error, TimeoutError)
            ):  # not a matter of the disk
                raise
            kept = [int(path.name) for path in self.folder.iterdir() if path.name.isdigit()]
            kept = f'step {max(kept):,} is the last finished one' if kept else 'there is none yet'
            message = unwritable(
                self.folder.parents[1],
                error,
                f'A checkpoint of {self.bytes / 1e6:,.1f} MB in {self.folder} ({kept})',
            )
            if self.bytes:  # else this process saves nothing, and what is unfinished is another's
                self.sweep()
            raise message from error

    def sweep(self):
        """Deletes what processes did not finish. For the one that holds the lock of the workdir."""
        if jax.process_index() == 0:
            for path in self.folder.glob(UNFINISHED):
                shutil.rmtree(path, ignore_errors=True)

    def extra(self, step):
        return self.manager.restore(step, args=ocp.args.Composite(extra=ocp.args.JsonRestore()))[
            'extra'
        ]

    def best_step(self):
        """The step to sample with: the best by its validation loss, or the newest."""
        steps = self.steps()
        return (
            self.manager.best_step()
            if self.best and steps and self.manager.best_step() is not None
            else (steps or [None])[0]
        )

    def restore(self, shapes, step=None):
        """(step, state, extra) of the newest whole checkpoint, or of `step` if that is whole; None where there is none.

        shapes: the state as ShapeDtypeStructs with shardings. Raises RunError where the checkpoint belongs to another model, or where reading
        fails for a reason that need not lie in the files.
        """
        self.damaged = {}
        for candidate in sorted(self.steps(), key=lambda s: (s != step, -s)):
            try:
                restored = self.manager.restore(
                    candidate,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(shapes), extra=ocp.args.JsonRestore()
                    ),
                )
                state, extra = restored['state'], restored['extra']
                sums = [int(x) for x in jax.device_get(checksums(state))]
                why = '' if sums == extra['checksums'] else 'an array differs from its checksum'
            except (
                Exception
            ) as error:  # Orbax and TensorStore raise many kinds for a damaged folder
                why = reason(error) or type(error).__name__
                if hosts.lost(error):
                    raise
                if passing(error):
                    raise RunError(
                        f'The checkpoint of step {candidate} in {self.folder} cannot be read now: {why}. It may be whole. Nothing was changed. '
                        f'Try again; or rename the folder to {candidate}.damaged, and the one before it is used.'
                    ) from error
            if hosts.all_say(not why):
                return candidate, state, extra
            self.damaged[candidate] = why = why or 'another process cannot read its part of it'
            logging.warning(
                'The checkpoint of step %d in %s is damaged (%s) and is skipped.',
                candidate,
                self.folder,
                why,
            )
        if self.damaged:
            broken = '; '.join(f'step {step}: {why}' for step, why in self.damaged.items())
            raise RunError(
                f'No checkpoint in {self.folder} can be read: {broken}. If the model was changed, choose another '
                '--workdir; if files are damaged, delete that folder to train the stage again.'
            )
        return None

    def tidy(self):
        """For the one that goes on writing here: what `restore` found damaged gets another name, since its number is needed; unfinished saves are deleted."""
        hosts.together('checkpoints are read')
        self.sweep()
        if jax.process_index() == 0:
            for step in self.damaged:
                names = (self.folder / f'{step}.damaged{n}' for n in ('', *range(2, 1000)))
                aside = next(path for path in names if not path.exists())
                (self.folder / str(step)).rename(aside)
                logging.warning(
                    'The damaged checkpoint of step %d is kept as %s; delete it when you do not want to look at it.',
                    step,
                    aside,
                )
        hosts.together('checkpoints are tidy')
        self.manager.reload()

    def check(self):
        """Raises RunError where a save that was begun has failed since."""
        with self.told():
            self.manager.check_for_errors()

    def wait(self):
        with self.told():
            self.manager.wait_until_finished()

    def close(self):
        with contextlib.suppress(Exception) if self.failed else self.told():  # it was told
            self.manager.close()


def passing(error):
    """Whether a read may have failed for a reason that will pass: no memory, no permission, too many files, a file system that does not answer."""
    without_memory = any(
        isinstance(one, MemoryError) or 'RESOURCE_EXHAUSTED' in str(one) for one in causes(error)
    )
    return without_memory or os_error(error) not in (
        None,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
    )
