"""Stop signals: a run that gets one saves before it leaves."""

import contextlib
import signal
import threading
from multiprocessing import resource_tracker

# Ctrl-C; preemption and `kill`; a closed terminal
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A stop signal came, and everything is saved."""


class Signals:
    """A context that notes the first stop signal in `received`.

    The training loop then stops at its next step. One more SIGINT or SIGTERM stops at once. SIGHUP
    stays ignored where it is ignored (nohup), and does not stop at once: it comes twice where a
    shell passes on its own. In a thread, where Python allows no handlers, signals are left alone.
    """

    def __init__(self):
        self.received = None
        self.before = {}
        # whether there is something to save
        self.saves = True

    def _note(self, number, frame):
        if not self.received:
            self.received = signal.Signals(number).name
            if not self.saves:
                raise KeyboardInterrupt
            print(
                f'\n{self.received}: saving, then leaving. Once more to leave without saving.',
                flush=True,
            )
        elif number != signal.SIGHUP:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def at_once(self):
        """A context with nothing to save, which the first stop signal ends by KeyboardInterrupt."""
        self.saves = False
        try:
            yield
        finally:
            self.saves = True

    def __enter__(self):
        if threading.current_thread() is not threading.main_thread():
            return self
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        numbers = [number for number in STOPS if not (nohup and number == signal.SIGHUP)]
        self.before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def withheld():
    """Keep stop signals from processes that are started within it.

    A terminal and a cluster send them to all processes of a program; the training process needs the
    others until its next save, and ends them itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        # multiprocessing starts it with the first process, and lets signals through again
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
