"""What a run tells: metrics.jsonl and TensorBoard, a progress bar, contact sheets; and the lock that says who writes there."""

import contextlib
import json
import math
import os
from pathlib import Path

from t2i_jax.runtime.events import Events
from t2i_jax.runtime.files import replacing

INK, GREY = (32, 32, 32), (128, 128, 128)


class Log(contextlib.AbstractContextManager):
    """Appends to `<folder>/metrics.jsonl` and `<folder>/tensorboard/`; what an abandoned run wrote after `step` is dropped from both."""

    def __init__(self, folder, step=0):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _drop_after(folder / 'metrics.jsonl', step)
        self.lines = open(folder / 'metrics.jsonl', 'a', buffering=1, encoding='utf-8')  # noqa: SIM115 - close() does
        self.events = Events(folder / 'tensorboard', step)

    def write(self, step, metrics, prefix=''):
        """One line {'step': step, prefix + name: value, ...}. A value that is None or NaN (a phase that did not run) is left out."""
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
        """A picture (h w 3 uint8) for TensorBoard."""
        self.events.image(int(step), name, picture)

    def flush(self):
        """Until the losses lie on the disk: before a checkpoint is written, so that none is newer than what leads to it."""
        os.fsync(self.lines.fileno())
        self.events.flush()

    def close(self):
        with contextlib.closing(self.events):
            self.lines.close()

    def __exit__(self, kind, *_):
        with (
            contextlib.suppress(OSError) if kind else contextlib.nullcontext()
        ):  # what stopped the run is what its user should read
            self.close()


def _drop_after(path, step):
    """Drops the lines of later steps, and what a killed process left half written."""
    if not path.exists():
        return
    for left in path.parent.glob(
        f'.{path.name}.*'
    ):  # of a process that was killed while it dropped lines
        left.unlink()
    text = path.read_text(encoding='utf-8', errors='replace')
    kept = [
        line
        for line in text.splitlines(keepends=True)
        if line.endswith('\n') and _step(line) <= step
    ]
    if ''.join(kept) != text:
        with replacing(path) as temporary:
            temporary.write_text(''.join(kept), encoding='utf-8')


def _step(line):
    try:
        return json.loads(line)['step']
    except (ValueError, KeyError, TypeError):
        return math.inf
