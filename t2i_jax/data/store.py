"""Tables of a data set on disk, so that the next start need not read its records.

    <data_dir>/tables/<version>/<field>.<which split, on which canvas>.npy, or .json for texts

A version is that of the data set's files and of the code of this folder; others are removed. Each
table has a checksum in a file next to it (.sum). So what is found is what reading the records would
give. The folder may be deleted at any time.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import zlib
from importlib import metadata

import cv2
import numpy as np
from absl import logging

from t2i_jax.data.fields import TEXT, field
from tfds_builders import atomic
from tfds_builders.errors import quoted
from tfds_builders.files import require_file

# the code that makes tables
HERE = pathlib.Path(__file__).parent
CHUNK = 1 << 22
# of the free disk; larger tables are not stored
SHARE = 0.1


class Store:
    """The stored tables of one split of `count` records.

    Tables of placed fields depend on the canvas, the others serve all of them.
    """

    def __init__(self, data_dir, split, count, canvas):
        self.data_dir = pathlib.Path(data_dir)
        files = []
        for file in sorted(self.data_dir.iterdir()):
            if file.is_file():
                stat = file.stat()
                files.append((file.name, stat.st_size, stat.st_mtime_ns))
        code = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(HERE.glob('*.py'))]
        version = _digest(files, code, cv2.__version__, metadata.version('tensorflow-datasets'))
        self.folder = self.data_dir / 'tables' / version
        self.split, self.count, self.canvas = split, count, canvas
        # how the names of this process's files end before they are whole
        self.own = f'{secrets.token_hex(4)}.unfinished'

    def path(self, name):
        which = _digest(self.split, self.canvas if field(name).placed else None)
        return self.folder / f'{name}.{which}.{"json" if is_text(name) else "npy"}'

    def find(self, names, mapped=()):
        """Read the stored tables among these names -> {name: array, or lists of texts}.

        mapped: names of tables that are read from disk where they are used. A damaged table is
        left out with a warning.
        """
        found = {}
        for name in names:
            path = self.path(name)
            try:
                if not path.exists():
                    continue
                for file in (_sum_of(path), path):
                    require_file(file)
                if _sum_of(path).read_text() != _checksum(path, path.name):
                    raise ValueError('its checksum is another')
                if is_text(name):
                    table = json.loads(path.read_text(encoding='utf-8'))
                else:
                    mode = 'r' if name in mapped else None
                    table = np.load(path, mmap_mode=mode, allow_pickle=False)
                kind = list if is_text(name) else np.ndarray
                if not isinstance(table, kind) or len(table) != self.count:
                    raise ValueError('it does not have the form of this table')
                found[name] = table
            except Exception as error:
                # damaged bytes make their readers raise many kinds
                logging.warning('%s cannot be read (%s): it is made again.', quoted(path), error)
        return found

    def worth(self, size):
        """Whether a table of so many bytes is small enough for the disk."""
        return size < SHARE * shutil.disk_usage(self.data_dir).free

    @contextlib.contextmanager
    def alone(self):
        """Keep other processes of this disk from reading the data set -> whether we can write."""
        folder = self.folder.parent
        with contextlib.ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _lock(stack.enter_context(open(folder / 'lock', 'w')), folder.parent)
                for other in folder.iterdir():
                    if other.is_dir() and other != self.folder:
                        shutil.rmtree(other, ignore_errors=True)
                self.folder.mkdir(exist_ok=True)
                # what a killed process has left
                self._tidy('unfinished')
            except OSError as error:
                # a folder of another user
                logging.info('Tables are not stored: %s', error)
                yield False
                return
            stack.callback(self._tidy, self.own)
            yield True

    def _tidy(self, ending):
        for left in self.folder.glob(f'*.{ending}'):
            left.unlink(missing_ok=True)

    def _unfinished(self, name):
        return self.path(name).with_suffix(f'.{self.own}')

    def room(self, name, shape, dtype):
        """Make an array in a file, to be filled and passed to `put`. Raises OSError for no room."""
        path = self._unfinished(name)
        table = np.lib.format.open_memmap(path, 'w+', dtype, shape)
        if hasattr(os, 'posix_fallocate'):
            # a disk that is full later would end the process by a signal
            with open(path, 'r+b') as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        return table

    def put(self, tables):
        """Store tables {name: array or lists of texts}, those that are small for the disk.

        Arrays of `room` are in their files already.
        """
        for name, table in tables.items():
            try:
                if isinstance(table, np.memmap):
                    table.flush()
                    # as when it is found
                    table.flags.writeable = False
                else:
                    table = json.dumps(table).encode() if is_text(name) else table
                    if not self.worth(len(table) if is_text(name) else table.nbytes):
                        continue
                    with open(self._unfinished(name), 'wb') as file:
                        if is_text(name):
                            file.write(table)
                        else:
                            np.save(file, table, allow_pickle=False)
                        file.flush()
                        # a file under its final name is a whole one
                        os.fsync(file.fileno())
                path = self.path(name)
                # a table without its checksum is made again
                _sum_of(path).unlink(missing_ok=True)
                checksum = _checksum(self._unfinished(name), path.name)
                self._unfinished(name).replace(path)
                with atomic.replacing(_sum_of(path)) as file:
                    file.write_text(checksum)
            except OSError as error:
                logging.info('Table %s is not stored: %s', name, error)


def is_text(name) -> bool:
    return field(name).kind == TEXT


def _sum_of(path):
    return path.with_suffix('.sum')


def _checksum(path, name):
    """Compute a checksum of a file under its final name, as fast as disks read.

    It guards against damage and mistakes alone.
    """
    total = 0
    with open(path, 'rb') as file:
        while data := file.read(CHUNK):
            total = zlib.crc32(data, total)
    return f'{name} {os.path.getsize(path)} {total:08x}'


def _lock(file, data_dir):
    """Wait until no other process holds the lock."""
    # a disk without locks: several may read, each into its own files
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'Another process reads {quoted(data_dir)}: waiting for its tables.', flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)


def _digest(*parts):
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
