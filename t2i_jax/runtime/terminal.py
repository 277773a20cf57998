"""Standard output that may lose its reader, and the progress of a run on it."""

import contextlib
import io
import math
import os
import sys
import time

from tqdm.auto import tqdm

BAR = '{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {remaining} left {postfix}'


class Outlet(io.RawIOBase):
    """Standard output or error by its descriptor.

    Output that cannot be read any more is dropped: the terminal is closed, the reader of a pipe has
    ended.
    """

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
    """Within it, no run ends because its output cannot be written."""
    streams = (
        (sys.stdout, contextlib.redirect_stdout),
        (sys.stderr, contextlib.redirect_stderr),
    )
    with contextlib.ExitStack() as stack:
        for stream, redirect in streams:
            try:
                outlet = Outlet(stream.fileno())
            except (AttributeError, OSError):
                # there is none, or it is not a file, as in a notebook
                continue
            stream.flush()
            # a terminal that cannot show a letter shows "?"
            errors = 'replace' if stream.errors == 'strict' else stream.errors
            # unbuffered below, as a signal's handler may print in the midst of a print
            text = io.TextIOWrapper(outlet, stream.encoding, errors, line_buffering=True)
            stack.enter_context(redirect(text))
        yield


class Progress(contextlib.AbstractContextManager):
    """Step, losses, images per second and time left.

    A bar on a terminal and in a notebook, elsewhere a plain line every `seconds`.

    total, start: the last step, and the step from which this process goes on
    name: of what is done
    file: where it is shown, by default standard output
    """

    def __init__(self, total, start, name, file=None, seconds=30):
        self.total, self.name = total, name
        self.file, self.seconds = file or sys.stdout, seconds
        self.step, self.shown = start, ''
        # from where the time that is left is estimated
        self.first, self.started = start, time.monotonic()
        # step and time of the last printed line
        self.printed_step, self.printed = start, -math.inf
        self.bar = None
        notebook = file is None and 'ipykernel' in sys.modules
        if self.file.isatty() or notebook:
            self.bar = tqdm(
                total=total,
                initial=start,
                desc=name,
                file=self.file,
                dynamic_ncols=True,
                bar_format=None if notebook else BAR,
            )

    def restart(self, step):
        """Estimate the time that is left from here on, without what came before.

        step: that is done now, after what is done once: compiling
        """
        self.first, self.started = step, time.monotonic()
        if self.bar is not None:
            self.bar.unpause()

    def update(self, n=1, metrics=None, images_per_s=None):
        """Count n more steps.

        metrics: values to show: the losses among them, or all where no name ends with 'loss'; None
            leaves the values that are shown
        images_per_s: shown with them
        """
        self.step += n
        if metrics:
            there = {
                name: value
                for name, value in metrics.items()
                if value is not None and not math.isnan(value)
            }
            losses = {name: value for name, value in there.items() if name.endswith('loss')}
            parts = [f'{name} {value:.4g}' for name, value in (losses or there).items()]
            parts += [f'{images_per_s:.4g} images/s'] if images_per_s else []
            self.shown = '  '.join(parts)
        if self.bar is not None:
            self.bar.set_postfix_str(self.shown, refresh=False)
            self.bar.update(n)
        elif self.shown and time.monotonic() - self.printed >= self.seconds:
            self.print_line()

    def print_line(self):
        """Print step, values and time left."""
        self.printed, self.printed_step = time.monotonic(), self.step
        steps, left = self.step - self.first, '?'
        if steps > 0 or self.step == self.total:
            seconds = (self.printed - self.started) / max(steps, 1) * (self.total - self.step)
            left = tqdm.format_interval(seconds)
        print(
            f'{self.name}  step {self.step}/{self.total}  {self.shown}  {left} left',
            file=self.file,
            flush=True,
        )

    def close(self):
        """End the bar, or print the last step."""
        if self.bar is not None:
            self.bar.close()
        elif self.step != self.printed_step:
            self.print_line()

    def __exit__(self, *_):
        self.close()
