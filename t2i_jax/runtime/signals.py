"""Signals that ask a run to stop: it saves first."""

import contextlib
import signal
from multiprocessing import resource_tracker

STOPS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
)  # Ctrl-C; preemption, `kill`; a terminal that was closed


class Interrupted(Exception):
    """A signal asked to stop, and everything is saved."""


class Signals:
    """While it is open, the first of STOPS is noted in `received` and stops the training loop at its next step. One more SIGINT or SIGTERM stops at once.

    SIGHUP stays ignored where it is (nohup), and comes twice where a shell passes on what it got.
    """

    def __init__(self):
        self.received = None

    def _note(self, number, frame):
        if not self.received:
            self.received = signal.Signals(number).name
            print(
                f'\n{self.received}: saving, then leaving. Once more to leave without saving.',
                flush=True,
            )
        elif number != signal.SIGHUP:
            raise KeyboardInterrupt

    def __enter__(self):
        numbers = [
            number
            for number in STOPS
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        ]
        self.before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def withheld():
    """Processes that are begun meanwhile never see STOPS, which a terminal and a cluster send to all processes of a program: who trains needs them to
    come to the next save, and ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        resource_tracker.ensure_running()  # multiprocessing begins it with the first process, and lets signals through again
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
