"""The losses of a run on disk: metrics.jsonl and TensorBoard."""

import contextlib
import hashlib
import importlib.util
import json
import math
import os
from pathlib import Path

from t2i_jax.runtime.errors import RunError
from t2i_jax.runtime.events import Events
from t2i_jax.runtime.files import require_regular, write_text


class Log(contextlib.AbstractContextManager):
    """Lines in `<folder>/metrics.jsonl` and events in `<folder>/tensorboard/`.

    Entries after `step` in both, which an abandoned run wrote, are dropped. Raises RunError where
    something other than a file lies there.
    also: other logs, which get the same.
    """

    def __init__(self, folder, step=0, also=()):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / 'metrics.jsonl'
        require_regular(path)
        _drop_after(path, step)
        # close() closes it
        self.lines = open(path, 'a', buffering=1, encoding='utf-8')  # noqa: SIM115
        self.events, self.also = Events(folder / 'tensorboard', step), also

    def write(self, step, metrics, prefix=''):
        """Write one line {'step': step, prefix + name: value, ...}.

        A value that is None or NaN (a phase that did not run) is left out.
        """
        values = {
            prefix + name: float(value)
            for name, value in metrics.items()
            if value is not None and not math.isnan(value)
        }
        if values:
            self.lines.write(json.dumps({'step': int(step), **values}) + '\n')
        for name, value in values.items():
            self.events.scalar(int(step), name, value)
        for other in self.also:
            other.write(int(step), values)

    def image(self, step, name, picture):
        """Show a picture (h w 3 uint8) in TensorBoard."""
        self.events.image(int(step), name, picture)
        for other in self.also:
            other.image(int(step), name, picture)

    def flush(self):
        """Return when the losses are on the disk.

        Call it before a checkpoint is written, so that none is newer than the losses that lead to
        it.
        """
        os.fsync(self.lines.fileno())
        self.events.flush()

    def close(self):
        """Close both files, and the other logs."""
        for other in self.also:
            other.close()
        with contextlib.closing(self.events):
            self.lines.close()

    def __exit__(self, kind, *_):
        # the error that stopped the run is the one to report
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self.close()


class NoLog(contextlib.AbstractContextManager):
    """The log of a process that leaves logging to the first one."""

    def write(self, step, metrics, prefix=''):
        pass

    def image(self, step, name, picture):
        pass

    def flush(self):
        pass

    def __exit__(self, *_):
        pass


class Wandb:
    """The log of a stage as a run of Weights & Biases, which a resumed one goes on with.

    stage: a RunStage. step: from which it goes on.
    """

    def __init__(self, stage, step):
        import wandb

        place = os.path.abspath(stage.folder)
        self.package, self.run = (
            wandb,
            wandb.init(
                project='t2i_jax',
                name=f'{Path(stage.workdir).name} {stage.name}',
                id=hashlib.sha256(place.encode()).hexdigest()[:16],
                resume='allow',
                dir=str(stage.folder),
                config=stage.config.to_dict(),
            ),
        )

    def write(self, step, values):
        self.run.log(values, step=step)

    def image(self, step, name, picture):
        self.run.log({name: self.package.Image(picture)}, step=step)

    def close(self):
        self.run.finish()


def require_wandb():
    """Raise RunError where the package wandb is not installed."""
    if not importlib.util.find_spec('wandb'):
        raise RunError('--config.log=wandb needs the package wandb: pip install wandb')


def _drop_after(path, step):
    """Drop the lines of later steps, and what a killed process left half written."""
    if not path.exists():
        return
    # of a process that was killed while it dropped lines
    for left in path.parent.glob(f'.{path.name}.*'):
        left.unlink()
    text = path.read_text(encoding='utf-8', errors='replace')
    lines = text.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith('\n') and _step(line) <= step]
    if ''.join(whole) != text:
        write_text(path, ''.join(whole))


def _step(line):
    """The step of a line; infinity for a damaged one."""
    try:
        return json.loads(line)['step']
    except (ValueError, KeyError, TypeError):
        return math.inf
