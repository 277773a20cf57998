"""What a run tells: metrics.jsonl and TensorBoard, a progress bar, contact sheets; and the lock that says who writes there."""
import contextlib
import errno
import fcntl
import io
import json
import math
import os
import socket
import sys
import time
from pathlib import Path

import numpy as np
from absl import logging
from einops import repeat
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from t2i_jax.errors import RunError, unwritable
from t2i_jax.events import Events

INK, GREY = (32, 32, 32), (128, 128, 128)


class Log(contextlib.AbstractContextManager):
    """Appends to `<folder>/metrics.jsonl` and `<folder>/tensorboard/`; what an abandoned run wrote after `step` is dropped from both."""

    def __init__(self, folder, step=0):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _drop_after(folder / 'metrics.jsonl', step)
        self.lines = open(folder / 'metrics.jsonl', 'a', buffering=1, encoding='utf-8')     # noqa: SIM115 - close() does
        self.events = Events(folder / 'tensorboard', step)

    def write(self, step, metrics, prefix=''):
        """One line {'step': step, prefix + name: value, ...}. A value that is None or NaN (a phase that did not run) is left out."""
        values = {prefix + name: float(value) for name, value in metrics.items() if value is not None and not math.isnan(value)}
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
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():     # what stopped the run is what its user should read
            self.close()


class Outlet(io.RawIOBase):
    """Standard output or error by its descriptor. What nobody can read any more is dropped: the terminal is closed, the reader of a pipe has ended."""

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def writable(self):
        return True

    def fileno(self):
        return self.descriptor

    def isatty(self):
        return os.isatty(self.descriptor)

    def write(self, data):
        left = memoryview(data)
        with contextlib.suppress(OSError):
            while left:
                left = left[os.write(self.descriptor, left):]
        return len(data)


@contextlib.contextmanager
def outlets():
    """While it is open, no run ends because what it tells cannot be written."""
    with contextlib.ExitStack() as stack:
        for stream, redirect in ((sys.stdout, contextlib.redirect_stdout), (sys.stderr, contextlib.redirect_stderr)):
            try:
                outlet = Outlet(stream.fileno())
            except (AttributeError, OSError):                                   # there is none, or it is no file, as in a notebook
                continue
            stream.flush()
            # unbuffered below, as a signal's handler may print in the midst of a print
            stack.enter_context(redirect(io.TextIOWrapper(outlet, stream.encoding, stream.errors, line_buffering=True)))
        yield


def _drop_after(path, step):
    """Drops the lines of later steps, and what a killed process left half written."""
    if not path.exists():
        return
    for left in path.parent.glob(f'.{path.name}.*'):                            # of a process that was killed while it dropped lines
        left.unlink()
    text = path.read_text(encoding='utf-8', errors='replace')
    kept = [line for line in text.splitlines(keepends=True) if line.endswith('\n') and _step(line) <= step]
    if ''.join(kept) != text:
        with _replacing(path) as temporary:
            temporary.write_text(''.join(kept), encoding='utf-8')


def _step(line):
    try:
        return json.loads(line)['step']
    except (ValueError, KeyError, TypeError):
        return math.inf


@contextlib.contextmanager
def _replacing(path):
    """A temporary path beside `path` that takes its place in the end: a reader sees the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Progress(contextlib.AbstractContextManager):
    """Step, losses, images per second and time left: a bar on a terminal, elsewhere a plain line every `seconds`. See `progress`."""

    def __init__(self, total, start, name, file=None, seconds=30):
        self.total, self.start, self.name, self.file, self.seconds = total, start, name, file or sys.stdout, seconds
        self.step, self.printed_step, self.began, self.printed, self.told = start, start, time.monotonic(), -math.inf, ''
        self.bar = tqdm(
            total=total, initial=start, desc=name, file=self.file, dynamic_ncols=True,
            bar_format='{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {remaining} left {postfix}') if self.file.isatty() else None

    def update(self, n=1, metrics=None, images_per_s=None):
        """n steps more are done. `metrics`: of them the losses are shown, or all where none is named so; None keeps what is shown."""
        self.step += n
        if metrics:
            shown = {name: value for name, value in metrics.items() if value is not None and not math.isnan(value)}
            shown = {name: value for name, value in shown.items() if name.endswith('loss')} or shown
            self.told = '  '.join([f'{name} {value:.4g}' for name, value in shown.items()]
                                  + ([f'{images_per_s:.4g} images/s'] if images_per_s else []))
        if self.bar is not None:
            self.bar.set_postfix_str(self.told, refresh=False)
            self.bar.update(n)
        elif self.told and time.monotonic() - self.printed >= self.seconds:
            self.print_line()

    def print_line(self):
        self.printed, self.printed_step = time.monotonic(), self.step
        left = (self.printed - self.began) / max(self.step - self.start, 1) * (self.total - self.step)
        print(f'{self.name}  step {self.step}/{self.total}  {self.told}  {tqdm.format_interval(left)} left', file=self.file, flush=True)

    def close(self):
        if self.bar is not None:
            self.bar.close()
        elif self.step != self.printed_step:
            self.print_line()

    def __exit__(self, *_):
        self.close()


def progress(total, start, name):
    """A context manager with update(n, metrics, images_per_s) for the steps from `start` to `total` of what `name` names."""
    return Progress(total, start, name)


def save_png(path, picture):
    """Writes a picture (h w 3 or h w, uint8) so that nobody ever sees half of it."""
    with _replacing(path) as temporary:
        Image.fromarray(np.asarray(picture)).save(temporary, format='PNG')


def save_gif(path, frames, scale=None, seconds=3.0):
    """Writes a film as GIF, there and back, for ever: frames t n s s 3 uint8, n pictures side by side in a near-square grid.
    scale: how many pixels wide and high each pixel is drawn, by default so that a side has 64. seconds: from the first frame to the last."""
    t, n, *shape = np.asarray(frames).shape
    scale, across = scale or -(-64 // min(shape[:2])), math.ceil(n ** .5)
    down, side, gap = -(-n // across), shape[0] * scale, 2
    canvas = np.full((t, down * (side + gap) - gap, across * (side + gap) - gap, 3), 255, np.uint8)
    for i in range(n):
        y, x = i // across * (side + gap), i % across * (side + gap)
        canvas[:, y:y + side, x:x + side] = repeat(frames[:, i], 't h w c -> t (h y) (w x) c', y=scale, x=scale)
    pictures = [Image.fromarray(one) for one in canvas]
    with _replacing(path) as temporary:
        pictures[0].save(temporary, format='GIF', save_all=True, append_images=pictures[1:] + pictures[-2:0:-1], duration=round(1000 * seconds / t), loop=0)


def sheet(rows, labels=None, path=None, *, columns=None, title=None, real=None, scale=None):
    """A contact sheet: the samples of each sentence in a row, beside the sentence -> picture, h w 3 uint8.

    rows: n k s s 3 uint8, k samples of each of n sentences; more than 12 fill several lines. labels: the sentences, None without any.
    path: where the picture is written as PNG. columns: how many sentences stand side by side, by default one, and where there is one
    sample of each as many as make a square; sentences stand above wide pictures then. real: n s s 3 uint8, the picture that belongs
    to each sentence, in a column of its own. scale: how many pixels wide and high each pixel is drawn, by default so that a side has 64.
    Raises ValueError for another type or number of pictures.
    """
    rows, real = np.asarray(rows), None if real is None else np.asarray(real)
    n, k, *shape = rows.shape if rows.ndim == 5 else (0, 0)
    labels = [''] * n if labels is None else list(labels)
    given = [(rows.shape, rows.dtype)] + ([] if real is None else [(real.shape, real.dtype)])
    if not n * k or len(labels) != n or given[0][1] != np.uint8 or given[1:] not in ([], [((n, *shape), np.uint8)]):
        raise ValueError('A sheet is drawn from n k s s 3 samples, n s s 3 real pictures, both uint8, and n labels, '
                         f'not from {given} and {len(labels)} labels.')
    scale = scale or -(-64 // min(shape[:2]))
    columns = min(n, columns or (math.ceil(n ** .5) if k == 1 else 1))
    side, wide = shape[0] * scale, shape[1] * scale
    size = min(max(12, side // 9), 20)                                               # of the letters
    font, small, large = (ImageFont.load_default(s) for s in (size, size - 2, size + 4))
    margin, gap, space, line = 16, 2, size, math.ceil(1.3 * size)
    below = space if any(labels) else gap

    across = k if k <= 12 else math.ceil(k ** .5)
    first = 0 if real is None else wide + space
    high, drawn = -(-k // across) * (side + gap) - gap, first + across * (wide + gap) - gap
    strips = np.full((n, high, drawn, shape[2]), 255, np.uint8)                      # the pictures of each sentence
    if real is not None:
        strips[:, :side, :wide] = repeat(real, 'n h w c -> n (h y) (w x) c', y=scale, x=scale)
    for i in range(k):
        y, x = i // across * (side + gap), first + i % across * (wide + gap)
        strips[:, y:y + side, x:x + wide] = repeat(rows[:, i], 'n h w c -> n (h y) (w x) c', y=scale, x=scale)

    above = columns > 1 and real is None and drawn >= 12 * size
    text = 0 if not any(labels) else drawn if above else min(max(14 * size, wide), 22 * size)
    wrapped = [wrap(label, font, text) for label in labels]
    cell = drawn if above or not text else text + space + drawn
    groups = [range(i, min(i + columns, n)) for i in range(0, n, columns)]           # what stands side by side
    texts = [line * max(len(wrapped[i]) for i in group) for group in groups]
    heights = [t + high if above else max(t, high) for t in texts]
    y = margin + (2 * line if title else 0) + (line if real is not None else 0)
    width, height = 2 * margin + columns * (cell + 2 * space) - 2 * space, y + sum(heights) + len(groups) * below - below + margin
    canvas = Image.new('RGB', (width, height), 'white')
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((margin, margin), title, INK, large)
    for group, height in zip(groups, heights):
        for column, i in enumerate(group):
            x, block = margin + column * (cell + 2 * space), line * len(wrapped[i])
            top = y + height - high if above else y + (height - high) // 2
            start = top - block - gap if above else top + (max(side, min(block, high)) - block) // 2       # beside the first line
            for j, words in enumerate(wrapped[i]):
                draw.text((x, start + j * line), words, INK, font)
            canvas.paste(Image.fromarray(strips[i]), (x + cell - drawn, top))
            if real is not None and group is groups[0]:
                draw.text((x + cell - drawn + wide // 2, top - line), 'real', GREY, small, anchor='ma')
        y += height + below
    if path is not None:
        save_png(path, canvas)
    return np.asarray(canvas)


def wrap(text, font, width):
    """The lines of a text that fit into a width; a word that is wider than that is broken."""
    lines = []
    for paragraph in text.splitlines():
        lines.append('')
        for word in paragraph.split():
            if lines[-1] and font.getlength(f'{lines[-1]} {word}') > width:
                lines.append('')
            lines[-1] = f'{lines[-1]} {word}'.strip()
            while font.getlength(lines[-1]) > width and len(lines[-1]) > 1:
                fits = next(i for i in range(len(lines[-1]) - 1, 0, -1) if i == 1 or font.getlength(lines[-1][:i]) <= width)
                lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    return lines


@contextlib.contextmanager
def writes(workdir):
    """Within it, what cannot be written into a workdir (no room, no permission, read-only) is one RunError."""
    try:
        yield
    except OSError as error:
        inside = isinstance(error.filename, (str, os.PathLike)) and Path(workdir).resolve() in Path(error.filename).resolve().parents
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG) and not (inside and isinstance(error, PermissionError)):
            raise
        raise unwritable(workdir, error, error.filename) from error


class Lock:
    """`with Lock(workdir):` one process writes there. Raises RunError where another one does. What a dead process left is taken over."""

    def __init__(self, workdir):
        self.workdir = Path(workdir)
        self.path = self.workdir / 'lock'

    def __enter__(self):
        try:
            self.workdir.mkdir(parents=True, exist_ok=True)
            self.file = self._acquire()
            if self.file.read(1):
                logging.warning('workdir %s: taken over from %s, which is gone.', self.workdir, self._holder())
            self.file.seek(0)
            self.file.truncate()
            json.dump({'pid': os.getpid(), 'host': socket.gethostname(), 'started': time.strftime('%Y-%m-%d %H:%M:%S')}, self.file)
            self.file.flush()
        except BlockingIOError:
            message = f'workdir {self.workdir} is in use by {self._holder()}; wait for it, stop it, or choose another --workdir.'
            raise RunError(message) from None
        except OSError as error:
            raise unwritable(self.workdir, error) from error
        return self

    def _acquire(self):
        while True:
            file = open(self.path, 'a+', encoding='utf-8')   # noqa: SIM115 - it stays open while the lock is held
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                    file.close()
                    raise
                logging.warning('workdir %s: its file system has no locks; see to it that no other process writes there.', self.workdir)
            with contextlib.suppress(FileNotFoundError):   # its holder may have removed it between open and flock
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                    file.seek(0)
                    return file
            file.close()

    def _holder(self):
        try:
            holder = json.loads(self.path.read_text(encoding='utf-8'))
            return f'process {holder["pid"]} on {holder["host"]} since {holder["started"]}'
        except (OSError, ValueError, KeyError, TypeError):
            return 'another process'

    def __exit__(self, *_):
        with contextlib.suppress(OSError):                 # where nothing can be written any more; whom it names is gone then
            self.path.unlink(missing_ok=True)              # first, while it is still held
        self.file.close()
