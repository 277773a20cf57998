"""Several processes that train together, usually one on each host: how they find each other, wait for each other, agree, and end.

Process 0 is the coordinator. All of them must see the same workdir. Where one ends or dies, the others end with a message: at once where a message
between them breaks off, else within HEARTBEAT seconds.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
import traceback

import jax
import numpy as np
from jax.experimental import multihost_utils

from t2i_jax.runtime.errors import RunError, causes

HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead
RESUME = 'Nothing that was saved is lost: start the whole job again, and it goes on from the last checkpoint.'
LAUNCHERS = {
    'SLURM_STEP_NODELIST': 'SLURM_NTASKS',
    'OMPI_MCA_orte_hnp_uri': 'OMPI_COMM_WORLD_SIZE',
}  # of each: what it sets, and how many there are
LOST = (
    'gloo',
    'nccl',
    'coordination',
    'barrier',
    'unavailable',
    'deadline_exceeded',
    'aborted',
    'cancelled',
    'connection',
)  # in errors of exchange
GUARD = 'import sys\nlast = b""\nfor last in sys.stdin.buffer: pass\nsys.stderr.buffer.write(last.lstrip())'


def several():
    return jax.distributed.is_initialized() and jax.process_count() > 1


# -------------------------------------------------------------------------------------------------------------------- joining
def start(coordinator=None, processes=None, process=None, timeout=300):
    """Joins the other processes of this job, if there are any. Raises RunError.

    coordinator: host:port of process 0; processes: how many there are; process: which one this is, from 0. What is None is read from
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. Without them JAX is asked where a launcher says that there are several (SLURM,
    Open MPI, TPU_WORKER_HOSTNAMES), and with coordinator='auto' in any case, as on a TPU pod that says nothing. timeout: seconds to wait for the others.
    """
    address = coordinator or os.environ.get('JAX_COORDINATOR_ADDRESS')
    processes, process = number(processes, 'JAX_NUM_PROCESSES'), number(process, 'JAX_PROCESS_ID')
    explicit = address != 'auto' and None not in (processes, process) and bool(address)
    if not explicit and (
        processes is not None or process is not None or (coordinator and coordinator != 'auto')
    ):
        raise RunError(
            'Several processes are told by three flags together, --coordinator=<host:port of process 0> --processes=<how many> '
            '--process=<which one this is, from 0>, or by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; one of them is missing. '
            'Where JAX can find them out itself, --coordinator=auto alone is enough.'
        )
    if not explicit and not address and not launched():
        return
    options = {}
    if explicit:
        check(address, processes, process)
        if processes == 1:
            return
        reach(address, process, timeout)
        options = dict(coordinator_address=address, num_processes=processes, process_id=process)
    mine = f'Process {process} of {processes}' if explicit else 'This process'
    last_words(
        f'Error: {mine} waited {timeout} s for the others{f" at {address}" if explicit else ""}, or was refused by them. Start all of them with '
        'the same --coordinator and --processes, and each with a --process of its own, counted from 0.'
    )
    try:
        with no_stderr():  # where this fails, JAX aborts the process with a report from its inside
            jax.distributed.initialize(
                **options, initialization_timeout=timeout, heartbeat_timeout_seconds=HEARTBEAT
            )
    except (RuntimeError, ValueError) as error:
        last_words('')
        raise RunError(
            f'The processes of this job cannot find each other: {str(error).splitlines()[0]} Name them: --coordinator=<host:port of process 0> '
            '--processes=<how many> --process=<which one this is, from 0>.'
        ) from None
    last_words(
        'Error: this process was ended from outside, or by JAX because another process of the job had ended (then the output of that one says '
        f'why). {RESUME}'
    )


def number(given, name):
    value = os.environ.get(name) if given is None else given
    try:
        return value if value is None else int(value)
    except ValueError:
        raise RunError(f'{name} is {value!r}; it is a number.') from None


def launched():
    sizes = [os.environ.get(size, '1') for name, size in LAUNCHERS.items() if name in os.environ]
    workers = os.environ.get('TPU_WORKER_HOSTNAMES', '').split(',')
    return (
        any(size.isdigit() and int(size) > 1 for size in sizes) or len(workers) > 1 and all(workers)
    )


def check(address, processes, process):
    host, _, port = address.rpartition(':')
    if not host or not port.isdigit():
        raise RunError(
            f'The coordinator is {address!r}; it is host:port of process 0, for instance node1:8476.'
        )
    if not 0 <= process < processes:
        raise RunError(
            f'There is no process {process} of {processes}: --process counts from 0 to {processes - 1}.'
        )


def reach(address, process, timeout):
    """Waits until the coordinator answers; of the coordinator itself, tests that its port is free. Raises RunError."""
    host, _, port = address.rpartition(':')
    if process == 0:
        try:
            with socket.create_server(('', int(port))):
                return
        except OSError as error:
            raise RunError(
                f'Process 0 cannot listen on port {port}: {error.strerror}. Choose another port for --coordinator, '
                'the same for all processes.'
            ) from None
    end = time.monotonic() + timeout
    while True:
        try:
            with socket.create_connection(
                (host.strip('[]'), int(port)), max(1, end - time.monotonic())
            ):
                return
        except OSError as error:
            if time.monotonic() > end:
                raise RunError(
                    f'The coordinator {address} cannot be reached ({error.strerror or error}), after {timeout} s. Is process 0 running '
                    'there, and is the port open?'
                ) from None
            time.sleep(0.2)


@contextlib.contextmanager
def no_stderr():
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


# -------------------------------------------------------------------------------------------------------------- in the run
def together(what):
    """Waits until all processes are here."""
    if several():
        multihost_utils.sync_global_devices(what)


def all_say(yes):
    """Whether all processes say yes; asked of all of them."""
    return (
        bool(multihost_utils.process_allgather(np.array(bool(yes))).all())
        if several()
        else bool(yes)
    )


def same_run(workdir, config, seconds=10):
    """Raises RunError where this process does not see what process 0 has written into the workdir, or was started with other settings (JSON)."""
    if not several():
        return
    together('the config is written')
    path, me, end = (
        pathlib.Path(workdir) / 'config.json',
        jax.process_index(),
        time.monotonic() + seconds,
    )
    while not path.exists() or path.read_text() != config:  # network file systems may be late
        if time.monotonic() > end:
            raise RunError(
                f'Process {me} was started with another config than process 0: start all of them with the same flags.'
                if path.exists()
                else f'Process {me} does not see {path}, which process 0 has written: --workdir must be one folder that all hosts share.'
            )
        time.sleep(0.2)


# ------------------------------------------------------------------------------------------------------------------- ending
guard = None


def last_words(text):
    """What is written to stderr if this process ends without a chance to speak (JAX aborts it where it learns that another one died); '': nothing."""
    global guard
    if guard is None:
        guard = subprocess.Popen(
            [sys.executable, '-I', '-S', '-c', GUARD], stdin=subprocess.PIPE, start_new_session=True
        )  # not reached by Ctrl-C
    guard.stdin.write(f'{text}\n'.encode())
    guard.stdin.flush()


def done():
    """Said by a process that is about to end in good order."""
    if guard:
        last_words('')


def leave(message, status=1):
    """Ends this process: among several at once, since the others, which JAX would wait for, may never come."""
    if not several():
        sys.exit(message or status)
    done()
    if message:
        print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)


def lost(error):
    """Whether an exception says that another process cannot be reached any more."""
    return several() and any(word in str(one).lower() for one in causes(error) for word in LOST)


def failed(error):
    """Ends this process of several for an exception that nobody expected."""
    if lost(error):
        leave(
            'Error: another process of this job ended or cannot be reached any more; its output says why '
            f'({str(error).strip().splitlines()[0]:.200}). {RESUME}'
        )
    traceback.print_exception(error)
    leave(f'Error: this process of the job failed, as told above. {RESUME}')
