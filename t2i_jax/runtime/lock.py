"""The lock that says which process writes in a workdir."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path

from absl import logging

from t2i_jax.runtime.errors import RunError, unwritable


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
                logging.warning(
                    'workdir %s: taken over from %s, which is gone.', self.workdir, self._holder()
                )
            self.file.seek(0)
            self.file.truncate()
            json.dump(
                {
                    'pid': os.getpid(),
                    'host': socket.gethostname(),
                    'started': time.strftime('%Y-%m-%d %H:%M:%S'),
                },
                self.file,
            )
            self.file.flush()
        except BlockingIOError:
            message = f'workdir {self.workdir} is in use by {self._holder()}; wait for it, stop it, or choose another --workdir.'
            raise RunError(message) from None
        except OSError as error:
            raise unwritable(self.workdir, error) from error
        return self

    def _acquire(self):
        while True:
            file = open(self.path, 'a+', encoding='utf-8')  # noqa: SIM115 - it stays open while the lock is held
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                    file.close()
                    raise
                logging.warning(
                    'workdir %s: its file system has no locks; see to it that no other process writes there.',
                    self.workdir,
                )
            with contextlib.suppress(
                FileNotFoundError
            ):  # its holder may have removed it between open and flock
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
        with contextlib.suppress(
            OSError
        ):  # where nothing can be written any more; whom it names is gone then
            self.path.unlink(missing_ok=True)  # first, while it is still held
        self.file.close()
