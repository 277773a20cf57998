"""Several processes that train together, usually one on each host.

How they find each other, wait for each other, agree, and end. Process 0 is the coordinator. All of
them must see the same workdir. Where one ends or dies, the others end with a message: at once where
an exchange between them breaks off, else within HEARTBEAT seconds.
"""

import contextlib
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import traceback

import jax
import numpy as np
from jax.experimental import multihost_utils

from t2i_jax.runtime.errors import RunError, causes, quoted

# seconds without a sign of life after which a process counts as dead
HEARTBEAT = 30
# processes of a job
MOST = 2**16
RESUME = (
    'Nothing that was saved is lost: start the whole job again, and it goes on from the last '
    'checkpoint.'
)
FLAGS = (
    '--coordinator=<host:port of process 0> --processes=<how many> --process=<which one, from 0>'
)
# a variable that each launcher sets: the one with the number of its processes
LAUNCHERS = {
    'SLURM_STEP_NODELIST': 'SLURM_NTASKS',
    'OMPI_MCA_orte_hnp_uri': 'OMPI_COMM_WORLD_SIZE',
}
# words in the errors of an exchange with a process that is gone
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
)
# the program of a process that prints the last line of its input when that ends
GUARD = """
import sys
last = b""
for last in sys.stdin.buffer:
    pass
sys.stderr.buffer.write(last.lstrip())
"""


def several():
    """Say whether this process trains together with others."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


# ---------------------------------------------------------------------------------------- joining
def start(coordinator=None, processes=None, process=None, timeout=300):
    """Join the other processes of this job, if there are any. Raises RunError.

    coordinator: host:port of process 0, by default JAX_COORDINATOR_ADDRESS
    processes: number of processes, by default JAX_NUM_PROCESSES
    process: number of this one, from 0, by default JAX_PROCESS_ID
    timeout: seconds to wait for the others

    Without any of them JAX finds them out where a launcher has started several (SLURM, Open MPI,
    TPU_WORKER_HOSTNAMES), and with coordinator='auto' in any case, as on a TPU pod without these
    variables.
    """
    address = coordinator or os.environ.get('JAX_COORDINATOR_ADDRESS')
    processes, process = number(processes, 'JAX_NUM_PROCESSES'), number(process, 'JAX_PROCESS_ID')
    numbered = processes is not None or process is not None
    explicit = address != 'auto' and None not in (processes, process) and bool(address)
    if not explicit and (numbered or (coordinator and coordinator != 'auto')):
        raise RunError(
            f'Several processes need three flags together, {FLAGS}, or JAX_COORDINATOR_ADDRESS, '
            'JAX_NUM_PROCESSES and JAX_PROCESS_ID; one of them is missing. Where JAX can find them '
            'out itself, --coordinator=auto alone is enough.'
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
    where = f' at {address}' if explicit else ''
    last_words(
        f'Error: {mine} waited {timeout} s for the others{where}, or was refused by them. Start '
        'all of them with the same --coordinator and --processes, and each with a --process of its '
        'own, counted from 0.'
    )
    try:
        # where this fails, JAX aborts the process with a report from its inside
        with no_stderr():
            jax.distributed.initialize(
                **options, initialization_timeout=timeout, heartbeat_timeout_seconds=HEARTBEAT
            )
    except (RuntimeError, ValueError) as error:
        last_words('')
        raise RunError(
            f'The processes of this job cannot find each other: {str(error).splitlines()[0]} '
            f'Name them: {FLAGS}.'
        ) from None
    last_words(
        'Error: this process was ended from outside, or by JAX because another process of the job '
        f'had ended (then the output of that one says why). {RESUME}'
    )


def number(given, name):
    """Read a number from a flag or else from the environment; None where neither has one."""
    value = os.environ.get(name) if given is None else given
    try:
        return value if value is None else int(value)
    except ValueError:
        raise RunError(f'{name} is {value!r}; expected a whole number.') from None


def launched():
    """Say whether a launcher has started several processes."""
    sizes = [os.environ.get(size, '1') for name, size in LAUNCHERS.items() if name in os.environ]
    if any(size.isdigit() and int(size) > 1 for size in sizes):
        return True
    workers = os.environ.get('TPU_WORKER_HOSTNAMES', '').split(',')
    return len(workers) > 1 and all(workers)


def check(address, processes, process):
    """Raise RunError for an address or a number that cannot be right."""
    host, _, port = address.rpartition(':')
    if not host or not re.fullmatch('[0-9]{1,5}', port) or not 0 < int(port) < 2**16:
        raise RunError(
            f'The coordinator is {address!r}; expected host:port of process 0, for instance '
            'node1:8476.'
        )
    if processes > MOST:
        raise RunError(f'--processes is {processes}; it must be between 1 and {MOST}.')
    if not 0 <= process < processes:
        raise RunError(
            f'There is no process {process} of {processes}: --process counts from 0 to '
            f'{processes - 1}.'
        )


def reach(address, process, timeout):
    """Wait until the coordinator answers. Raises RunError.

    In the coordinator itself: test that its port is free.
    """
    host, _, port = address.rpartition(':')
    if process == 0:
        try:
            with socket.create_server(('', int(port))):
                return
        except OSError as error:
            raise RunError(
                f'Process 0 cannot listen on port {port}: {error.strerror}. Choose another port '
                'for --coordinator, the same for all processes.'
            ) from None
    end = time.monotonic() + timeout
    while True:
        try:
            seconds = max(1, end - time.monotonic())
            with socket.create_connection((host.strip('[]'), int(port)), seconds):
                return
        except OSError as error:
            if time.monotonic() > end:
                raise RunError(
                    f'The coordinator {address} cannot be reached ({error.strerror or error}), '
                    f'after {timeout} s. Is process 0 running there, and is the port open?'
                ) from None
            time.sleep(0.2)


@contextlib.contextmanager
def no_stderr():
    """Drop what this process writes to its standard error, from C++, too."""
    sys.stderr.flush()
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)


# ------------------------------------------------------------------------------------- in the run
def together(what):
    """Wait until all processes are here. what: a name of the place, the same in all."""
    if several():
        multihost_utils.sync_global_devices(what)


def all_say(yes):
    """All-gather a yes or no of each process -> whether all say yes. All of them must call it."""
    if not several():
        return bool(yes)
    return bool(multihost_utils.process_allgather(np.array(bool(yes))).all())


def same_run(workdir, config, seconds=10):
    """Check that this process sees the workdir of process 0 and has its settings.

    config: the settings of this process as JSON
    seconds: to wait, as network file systems may be late

    Raises RunError.
    """
    if not several():
        return
    together('the config is written')
    path, me = pathlib.Path(workdir) / 'config.json', jax.process_index()
    end = time.monotonic() + seconds
    while not path.exists() or path.read_text() != config:
        if time.monotonic() > end:
            raise RunError(
                f'Process {me} was started with another config than process 0: start all of them '
                'with the same flags.'
                if path.exists()
                else f'Process {me} does not see {quoted(path)}, which process 0 has written: '
                '--workdir must be one folder that all hosts share.'
            )
        time.sleep(0.2)


# ----------------------------------------------------------------------------------------- ending
# the process that prints the last words of this one
guard = None


def last_words(text):
    """Choose the message that stderr gets if this process ends without a chance to print one.

    JAX aborts it where it learns that another process died. '': no message.
    """
    global guard
    if guard is None:
        # in a session of its own Ctrl-C does not reach it
        guard = subprocess.Popen(
            [sys.executable, '-I', '-S', '-c', GUARD], stdin=subprocess.PIPE, start_new_session=True
        )
    guard.stdin.write(f'{text}\n'.encode())
    guard.stdin.flush()


def done():
    """Drop the last words: this process is about to end in good order."""
    if guard:
        last_words('')


def leave(message, status=1):
    """End this process.

    One of several ends at once, since JAX would wait for the others, which may never come.
    """
    if not several():
        sys.exit(message or status)
    done()
    if message:
        print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)


def lost(error):
    """Say whether an exception means that another process cannot be reached any more."""
    return several() and any(word in str(one).lower() for one in causes(error) for word in LOST)


def failed(error):
    """End this process of several for an unexpected exception."""
    if lost(error):
        leave(
            'Error: another process of this job ended or cannot be reached any more; its output '
            f'says why ({str(error).strip().splitlines()[0]:.200}). {RESUME}'
        )
    traceback.print_exception(error)
    leave(f'Error: this process of the job failed, as printed above. {RESUME}')
