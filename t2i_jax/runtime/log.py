"""The losses of a run on disk: metrics.jsonl and TensorBoard."""

import contextlib
import json
import math
import os
from pathlib import Path

from t2i_jax.runtime.events import Events
from t2i_jax.runtime.files import require_regular, write_text


class Log(contextlib.AbstractContextManager):
    """Lines in `<folder>/metrics.jsonl` and events in `<folder>/tensorboard/`.

    Entries after `step` in both, which an abandoned run wrote, are dropped. Raises RunError where
    something other than a file lies there.
    """

    def __init__(self, folder, step=0):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / 'metrics.jsonl'
        require_regular(path)
        _drop_after(path, step)
        # close() closes it
        self.lines = open(path, 'a', buffering=1, encoding='utf-8')  # noqa: SIM115
        self.events = Events(folder / 'tensorboard', step)

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

    def image(self, step, name, picture):
        """Show a picture (h w 3 uint8) in TensorBoard."""
        self.events.image(int(step), name, picture)

    def flush(self):
        """Return when the losses are on the disk.

        Call it before a checkpoint is written, so that none is newer than the losses that lead to
        it.
        """
        os.fsync(self.lines.fileno())
        self.events.flush()

    def close(self):
        """Close both files."""
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
