"""What a terminal, a pipe or a log file shows of a run: output that nobody can read any more, and progress."""

import contextlib
import io
import math
import os
import sys
import time

from tqdm import tqdm


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
                left = left[os.write(self.descriptor, left) :]
        return len(data)


@contextlib.contextmanager
def outlets():
    """While it is open, no run ends because what it tells cannot be written."""
    with contextlib.ExitStack() as stack:
        for stream, redirect in (
            (sys.stdout, contextlib.redirect_stdout),
            (sys.stderr, contextlib.redirect_stderr),
        ):
            try:
                outlet = Outlet(stream.fileno())
            except (AttributeError, OSError):  # there is none, or it is no file, as in a notebook
                continue
            stream.flush()
            # unbuffered below, as a signal's handler may print in the midst of a print
            stack.enter_context(
                redirect(
                    io.TextIOWrapper(outlet, stream.encoding, stream.errors, line_buffering=True)
                )
            )
        yield


class Progress(contextlib.AbstractContextManager):
    """Step, losses, images per second and time left: a bar on a terminal, elsewhere a plain line every `seconds`. See `progress`."""

    def __init__(self, total, start, name, file=None, seconds=30):
        self.total, self.start, self.name, self.file, self.seconds = (
            total,
            start,
            name,
            file or sys.stdout,
            seconds,
        )
        self.step, self.printed_step, self.began, self.printed, self.told = (
            start,
            start,
            time.monotonic(),
            -math.inf,
            '',
        )
        self.bar = (
            tqdm(
                total=total,
                initial=start,
                desc=name,
                file=self.file,
                dynamic_ncols=True,
                bar_format='{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {remaining} left {postfix}',
            )
            if self.file.isatty()
            else None
        )

    def update(self, n=1, metrics=None, images_per_s=None):
        """n steps more are done. `metrics`: of them the losses are shown, or all where none is named so; None keeps what is shown."""
        self.step += n
        if metrics:
            shown = {
                name: value
                for name, value in metrics.items()
                if value is not None and not math.isnan(value)
            }
            shown = {name: value for name, value in shown.items() if name.endswith('loss')} or shown
            self.told = '  '.join(
                [f'{name} {value:.4g}' for name, value in shown.items()]
                + ([f'{images_per_s:.4g} images/s'] if images_per_s else [])
            )
        if self.bar is not None:
            self.bar.set_postfix_str(self.told, refresh=False)
            self.bar.update(n)
        elif self.told and time.monotonic() - self.printed >= self.seconds:
            self.print_line()

    def print_line(self):
        self.printed, self.printed_step = time.monotonic(), self.step
        left = (
            (self.printed - self.began) / max(self.step - self.start, 1) * (self.total - self.step)
        )
        print(
            f'{self.name}  step {self.step}/{self.total}  {self.told}  {tqdm.format_interval(left)} left',
            file=self.file,
            flush=True,
        )

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
