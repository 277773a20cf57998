"""Checkpoints by Orbax, restored from the newest that is whole.

The folder of a step holds the state and a small JSON with a checksum of every array, because Orbax
does not notice a flipped byte. A folder that cannot be restored or whose checksums differ is named
and skipped, and the step before it is used. A finished checkpoint is never deleted for being
damaged: it is renamed to `<step>.damaged`.
"""

import contextlib
import errno
import logging as python_logging
import math
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from t2i_jax.runtime import hosts
from t2i_jax.runtime.errors import RunError, causes, os_error, quoted, reason, short, unwritable

python_logging.getLogger('orbax').setLevel(python_logging.ERROR)
# the threads of a failed save report it at length; it is raised where the save is waited for
logging.get_absl_logger().addFilter(lambda record: 'orbax' not in record.pathname)
# seconds that a save may take, by the clock: less would fail a save during which the process was
# stopped or the machine slept
WEEK = 7 * 24 * 3600
# the same for several processes, which wait for each other
HOUR = 3600
UNFINISHED = '*orbax-checkpoint-tmp*'
# why a folder that was copied or renamed is not restored
HOLDS = 'it holds step'
# a leaf of a state that is left on the disk
NOT_READ = ocp.PLACEHOLDER


def checksum(x):
    """Sum the words of an array times odd numbers, in 32 bits.

    It changes with any single word, and does not depend on the sharding.
    """
    four = x.dtype.itemsize == 4
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) if four else x.astype(jnp.uint32)
    weights = 2 * jax.lax.iota(jnp.uint32, max(bits.size, 1))[: bits.size].reshape(bits.shape) + 1
    return (bits * weights).sum(dtype=jnp.uint32)


@jax.jit
def checksums(tree):
    """Compute the checksum of each array of a tree, in order."""
    return jnp.stack([checksum(x) for x in jax.tree.leaves(tree)])


def saved_in(folder) -> list[int]:
    """List the steps that have a finished checkpoint in a folder, whole or damaged.

    An empty folder and a file are none.
    """
    return [int(path.name) for path, empty in _numbered(folder) if not empty]


def _numbered(folder):
    """List (path, whether it is empty) of the folders whose names are numbers."""
    number = re.compile('[0-9]+')
    try:
        paths = [path for path in pathlib.Path(folder).iterdir() if number.fullmatch(path.name)]
        return [(path, not any(path.iterdir())) for path in paths if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


class Checkpoints:
    """The checkpoints of one stage, in `<workdir>/<stage>/checkpoints`.

    keep_n: number of checkpoints that stay, the last ones; -1: all
    best: name of the validation loss whose best checkpoint stays, too; None: the last ones only
    damaged: step -> why it cannot be restored, of the last `restore`
    failed: whether a save has failed
    bytes: of the last saved state
    proven: whether a save of this object was read back
    """

    def __init__(self, folder, keep_n=2, best=None):
        self.folder, self.keep_n, self.best = pathlib.Path(folder).resolve(), keep_n, best
        self.damaged, self.failed, self.bytes, self.proven = {}, False, 0, False
        self.folder.mkdir(parents=True, exist_ok=True)
        policy = ocp.checkpoint_managers.preservation_policy
        keep = [policy.LatestN(keep_n) if keep_n > 0 else policy.PreserveAll()]

        def loss(metrics):
            # NaN would count as the best
            return metrics[best] if math.isfinite(metrics[best]) else math.inf

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
        """List the finished steps, the newest first; a warning names unfinished and empty ones."""
        for path in self.folder.glob(UNFINISHED):
            logging.warning('%s was not finished when its process ended; it is ignored.', path)
        for path, empty in _numbered(self.folder):
            if empty:
                logging.warning('%s is empty; it is ignored.', path)
        self.manager.reload()
        # Orbax takes an empty folder for a step
        return sorted({*self.manager.all_steps()} & {*saved_in(self.folder)}, reverse=True)

    def surplus(self):
        """List the steps that the next save deletes, where there are more than `keep_n`; or []."""
        steps, keep = self.steps(), self.keep_n
        best = [self.best_step()] if self.best else []
        if keep < 1 or not {*steps[keep:]} - {*best}:
            return []
        return [step for step in steps[keep - 1 :] if step not in best]

    def save(self, step, state, extra, metrics=None, wait=False):
        """Start writing the state, the first one until it can be read; an existing step stays.

        step: number of updates
        state: a tree of arrays, with the step as `step`
        extra: JSON values that belong to it
        metrics: validation losses, for `best`
        wait: return when it is written

        Raises RunError where this or the save before it cannot be written.
        """
        if step in self.manager.all_steps():
            return
        sums = [int(x) for x in jax.device_get(checksums(state))]
        self.bytes = sum(x.nbytes for x in jax.tree.leaves(state))
        with self._as_one_message():
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    extra=ocp.args.JsonSave({**extra, 'checksums': sums}),
                ),
                metrics=metrics,
            )
            if wait or not self.proven:
                self.manager.wait_until_finished()
        if not self.proven:
            self.require_readable(step, sums)
            self.proven = True

    def require_readable(self, step, sums):
        """Raise RunError where a step that is written cannot be found and read."""
        found = step in self.steps() and self.extra(step).get('checksums') == sums
        # where TensorStore writes arrays
        if hosts.all_say(found and any((self.folder / str(step) / 'state').glob('**/d/*'))):
            return
        raise RunError(
            f'The checkpoint of step {step} was written to {quoted(self.folder)}, and cannot be '
            'read back: what is trained there would be lost. Choose another --workdir, on another '
            'disk.'
        )

    @contextlib.contextmanager
    def _as_one_message(self):
        """Turn errors of a save, of this process or of threads that write, into one RunError.

        The room that the save took is given back.
        """
        try:
            yield
        except Exception as error:
            self.failed = True
            of_the_disk = os_error(error) is not None or isinstance(error, TimeoutError)
            if hosts.lost(error) or not of_the_disk:
                raise
            steps = saved_in(self.folder)
            last = f'step {max(steps):,} is the last finished one' if steps else 'there is none yet'
            what = f'A checkpoint of {self.bytes / 1e6:,.1f} MB in {quoted(self.folder)} ({last})'
            message = unwritable(self.folder.parents[1], error, what)
            # without bytes this process saves nothing, and unfinished folders are another's
            if self.bytes:
                self.sweep()
            raise message from error

    def sweep(self):
        """Delete unfinished and empty ones. Only for the process with the lock of the workdir."""
        if jax.process_index() == 0:
            for path in self.folder.glob(UNFINISHED):
                shutil.rmtree(path, ignore_errors=True)
            for path, empty in _numbered(self.folder):
                if empty:
                    path.rmdir()

    def extra(self, step):
        """Read the JSON values that belong to a step; {} where they cannot be read."""
        args = ocp.args.Composite(extra=ocp.args.JsonRestore())
        try:
            return self.manager.restore(step, args=args)['extra']
        # Orbax raises many kinds for a damaged folder
        except Exception as error:
            if hosts.lost(error):
                raise
            return {}

    def best_step(self):
        """Find the step to sample with: the best by its validation loss, or the newest."""
        steps = self.steps()
        best = self.manager.best_step() if self.best and steps else None
        return (steps or [None])[0] if best is None else best

    def restore(self, shapes, step=None):
        """Restore the newest whole checkpoint -> (step, state, extra); None where there is none.

        shapes: the state as ShapeDtypeStructs with shardings; a leaf that is NOT_READ stays so
        step: the step to restore if it is whole

        Raises RunError where the checkpoint belongs to another model, or where reading fails for a
        reason that need not lie in the files.
        """
        self.damaged = {}
        how = ocp.checkpoint_utils.construct_restore_args(shapes)
        args = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(shapes, how), extra=ocp.args.JsonRestore()
        )
        read = [x is not NOT_READ for x in jax.tree.leaves(shapes)]
        for candidate in sorted(self.steps(), key=lambda s: (s != step, -s)):
            try:
                restored = self.manager.restore(candidate, args=args)
                state, extra = restored['state'], restored['extra']
                there = [x for x in jax.tree.leaves(state) if x is not NOT_READ]
                saved = [x for x, one in zip(extra['checksums'], read, strict=True) if one]
                sums = [int(x) for x in jax.device_get(checksums(there))]
                why = '' if sums == saved else 'an array differs from its checksum'
                if not why and int(state.step) != candidate:
                    why = f'{HOLDS} {int(state.step)}, rename it back to {int(state.step)}'
            # Orbax and TensorStore raise many kinds for a damaged folder
            except Exception as error:
                why = reason(error) or type(error).__name__
                if hosts.lost(error):
                    raise
                if passing(error):
                    raise RunError(
                        f'The checkpoint of step {candidate} in {quoted(self.folder)} cannot be '
                        f'read now: {why}. It may be whole. Nothing was changed. Try again; or '
                        f'rename the folder to {candidate}.damaged, and the one before it is used.'
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
            remedy = (
                ' If the model was changed, choose another --workdir; if files are damaged, delete '
                'that folder to train the stage again.'
            )
            if all(why.startswith(HOLDS) for why in self.damaged.values()):
                remedy = ''
            raise RunError(
                f'No checkpoint in {quoted(self.folder)} can be read: {short(broken, 1000)}.'
                + remedy
            )
        return None

    def tidy(self):
        """Make room for further saves, before the process that restored goes on writing here.

        Damaged checkpoints get another name, since their numbers are needed; unfinished and empty
        ones are deleted.
        """
        hosts.together('checkpoints are read')
        self.sweep()
        if jax.process_index() == 0:
            for step in self.damaged:
                names = (self.folder / f'{step}.damaged{n}' for n in ('', *range(2, 1000)))
                aside = next(path for path in names if not path.exists())
                (self.folder / str(step)).rename(aside)
                logging.warning(
                    'The damaged checkpoint of step %d is kept as %s; delete it when you do not '
                    'want to look at it.',
                    step,
                    aside,
                )
        hosts.together('checkpoints are tidy')
        self.manager.reload()

    def check(self):
        """Raise RunError where a save that was started has failed since."""
        with self._as_one_message():
            self.manager.check_for_errors()

    def wait(self):
        """Return when the last save is written. Raises RunError where it fails."""
        with self._as_one_message():
            self.manager.wait_until_finished()

    def close(self):
        """Wait for the last save, and end. Raises RunError where that save fails."""
        # a failed save was reported already
        with contextlib.suppress(Exception) if self.failed else self._as_one_message():
            self.manager.close()


def passing(error):
    """Say whether a read may have failed for a reason that will pass.

    These are: no memory, no permission, too many files, a file system that does not answer.
    """
    of_the_files = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
    without_memory = any(
        isinstance(one, MemoryError) or 'RESOURCE_EXHAUSTED' in str(one) for one in causes(error)
    )
    return without_memory or os_error(error) not in of_the_files
