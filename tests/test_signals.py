"""Signals that ask a run to stop, the processes that never see them, and output that nobody reads
any more.
"""

import io
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from t2i_jax.runtime import signals, terminal


@pytest.fixture
def handlers():
    """The handlers of STOPS are put back afterwards.

    SIGHUP is not ignored, as it is under nohup.
    """
    before = {number: signal.getsignal(number) for number in signals.STOPS}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('number', signals.STOPS)
def test_the_first_is_noted_and_a_second_stops_at_once(number, handlers, capsys):
    with signals.Signals() as noted:
        signal.raise_signal(number)
        assert (
            noted.received == signal.Signals(number).name
            and noted.received in capsys.readouterr().out
        )
        signal.raise_signal(signal.SIGHUP)  # a shell passes on what it got
        for again in (signal.SIGINT, signal.SIGTERM):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(again)
        assert noted.received == signal.Signals(number).name and not capsys.readouterr().out
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


@pytest.mark.parametrize('number', signals.STOPS)
def test_where_nothing_is_saved_the_first_stops_at_once(number, handlers, capsys):
    with signals.Signals() as noted:
        with pytest.raises(KeyboardInterrupt), noted.at_once():
            signal.raise_signal(number)
        assert noted.received == signal.Signals(number).name and noted.saves
        # a shell passes on what it got
        signal.raise_signal(signal.SIGHUP)
    assert not capsys.readouterr().out


def test_a_run_under_nohup_outlives_its_terminal(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.Signals() as noted:
        signal.raise_signal(signal.SIGHUP)
    assert noted.received is None


def test_in_a_thread_signals_are_left_alone():
    found = []

    def run():
        with signals.Signals() as noted:
            found.append(noted.received)

    before = [signal.getsignal(number) for number in signals.STOPS]
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [None] and before == [signal.getsignal(n) for n in signals.STOPS]


@pytest.mark.slow
def test_processes_that_are_begun_while_signals_are_withheld_never_see_them():
    blocked = [
        sys.executable,
        '-c',
        'import signal; print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))))',
    ]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with signals.withheld():
        assert json.loads(subprocess.check_output(blocked)) == sorted(map(int, signals.STOPS))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_what_nobody_reads_is_dropped(monkeypatch):
    readable, writable = os.pipe()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(os.fdopen(writable, 'wb')))
    monkeypatch.setattr(sys, 'stderr', None)  # as without a console
    mine = sys.stdout
    with terminal.outlets():
        print('read')
        assert (
            os.read(readable, 100) == b'read\n'
            and sys.stdout.fileno() == writable
            and not sys.stdout.isatty()
        )
        os.close(readable)
        print('not read', flush=True)
    assert sys.stdout is mine and sys.stderr is None


def test_output_that_is_no_file_stays_what_it_is(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', stream := io.StringIO())  # as in a notebook
    with terminal.outlets():
        print('told')
        assert sys.stdout is stream
    assert stream.getvalue() == 'told\n'
