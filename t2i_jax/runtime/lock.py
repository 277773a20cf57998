"""The lock of a workdir: one process writes there at a time."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path

from absl import logging

from t2i_jax.runtime.errors import RunError, quoted, unwritable
from t2i_jax.runtime.files import require_regular


class Lock:
    """A context in which this process alone writes into `workdir`.

    The lock of a dead process is taken over. Entering it raises RunError where another process
    holds it.
    """

    def __init__(self, workdir):
        self.workdir = Path(workdir)
        self.path = self.workdir / 'lock'
        self.file = None

    def __enter__(self):
        try:
            self.workdir.mkdir(parents=True, exist_ok=True)
            require_regular(self.path)
            self.file = self._acquire()
            if self.file.read(1):
                logging.warning(
                    'workdir %s: taken over from %s, which is gone.', self.workdir, self._holder()
                )
            self.file.seek(0)
            self.file.truncate()
            started = time.strftime('%Y-%m-%d %H:%M:%S')
            me = {'pid': os.getpid(), 'host': socket.gethostname(), 'started': started}
            json.dump(me, self.file)
            self.file.flush()
        except BlockingIOError:
            raise RunError(
                f'workdir {quoted(self.workdir)} is in use by {self._holder()}; wait for it, stop '
                'it, or choose another --workdir.'
            ) from None
        except OSError as error:
            raise unwritable(self.workdir, error) from error
        return self

    def _acquire(self):
        """Open and lock the file. Raises BlockingIOError where another process holds it."""
        while True:
            # it stays open while the lock is held
            file = open(self.path, 'a+', encoding='utf-8')  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                    file.close()
                    raise
                logging.warning(
                    'workdir %s: its file system has no locks; see to it that no other process '
                    'writes there.',
                    self.workdir,
                )
            # its holder may have removed it between open and flock
            with contextlib.suppress(FileNotFoundError):
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
        # where nothing can be written any more it stays, and names a process that is gone
        with contextlib.suppress(OSError):
            # before it is released
            self.path.unlink(missing_ok=True)
        self.file.close()
