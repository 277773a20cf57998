"""Tables of a data set on disk, beside it, so that the next start need not read its records again.

    <data_dir>/tables/<version>/<table>.<which split, on which canvas>.npy, or .json for texts

A version is that of the data set's files and of the code that makes tables of them, and others are removed: so what is found here is what reading the
records would give. The folder may be deleted at any time.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import secrets
import shutil

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import logging

HERE = pathlib.Path(__file__).parent  # the code that makes tables
SHARE = 0.1  # of the free disk: larger tables are not kept
TEXTS = ('texts', 'rounds')


class Kept:
    """The tables of one split of `count` records, those that depend on how pictures are cropped and resized (`placed`) for one canvas."""

    def __init__(self, data_dir, split, count, canvas, placed):
        self.data_dir = pathlib.Path(data_dir)
        files = [
            (file.name, (stat := file.stat()).st_size, stat.st_mtime_ns)
            for file in sorted(self.data_dir.iterdir())
            if file.is_file()
        ]
        code = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(HERE.glob('*.py'))]
        self.folder = (
            self.data_dir / 'tables' / _digest(files, code, cv2.__version__, tfds.__version__)
        )
        self.split, self.count, self.canvas, self.placed = split, count, canvas, placed
        self.own = f'{secrets.token_hex(4)}.unfinished'  # how files of this process end before they are whole

    def path(self, name):
        which = _digest(self.split, self.canvas if name in self.placed else None)
        return self.folder / f'{name}.{which}.{"json" if name in TEXTS else "npy"}'

    def find(self, names, mapped=()):
        """{name: array, or list of texts a record} of those that are there, `mapped` ones as arrays that are read from disk where they are used."""
        found = {}
        for name in names:
            path = self.path(name)
            try:
                table = (
                    json.loads(path.read_text(encoding='utf-8'))
                    if name in TEXTS
                    else np.load(
                        path, mmap_mode='r' if name in mapped else None, allow_pickle=False
                    )
                )
                if (
                    not isinstance(table, list if name in TEXTS else np.ndarray)
                    or len(table) != self.count
                ):
                    raise ValueError('it is not what was kept')
                found[name] = table
            except FileNotFoundError:
                continue
            except Exception as error:  # what damaged bytes do to their readers is no short list
                logging.warning('%s cannot be read (%s): it is made again.', path, error)
        return found

    def worth(self, size):
        """Whether a table of so many bytes is small enough for the disk."""
        return size < SHARE * shutil.disk_usage(self.data_dir).free

    @contextlib.contextmanager
    def alone(self):
        """While it is open, no other process on this disk reads this data set for its tables. -> whether tables can be written"""
        folder = self.folder.parent
        with contextlib.ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _lock(stack.enter_context(open(folder / 'lock', 'w')), folder.parent)
                for other in folder.iterdir():
                    if other.is_dir() and other != self.folder:
                        shutil.rmtree(other, ignore_errors=True)
                self.folder.mkdir(exist_ok=True)
                self._tidy('unfinished')  # what a process that was killed has left
            except OSError as error:  # a folder of somebody else's
                logging.info('Tables are not kept: %s', error)
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
        """An array in a file, to be filled and then handed to `put`. Raises OSError where the disk is too small for it."""
        table = np.lib.format.open_memmap(self._unfinished(name), 'w+', dtype, shape)
        if hasattr(
            os, 'posix_fallocate'
        ):  # a disk that is full later would end the process by a signal
            with open(self._unfinished(name), 'r+b') as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        return table

    def put(self, tables):
        """Keeps tables {name: array or lists of texts}: those in files that `room` made, and the others where they are small for the disk."""
        for name, table in tables.items():
            try:
                if isinstance(table, np.memmap):
                    table.flush()
                    table.flags.writeable = False  # as when it is found
                else:
                    table = json.dumps(table).encode() if name in TEXTS else table
                    if not self.worth(len(table) if name in TEXTS else table.nbytes):
                        continue
                    with open(self._unfinished(name), 'wb') as file:
                        file.write(table) if name in TEXTS else np.save(
                            file, table, allow_pickle=False
                        )
                        file.flush()
                        os.fsync(file.fileno())  # a file under its final name is a whole one
                self._unfinished(name).replace(self.path(name))
            except OSError as error:
                logging.info('Table %s is not kept: %s', name, error)


def _lock(file, data_dir):
    """Waits until no other process holds the lock."""
    with contextlib.suppress(
        OSError
    ):  # a disk without locks: several may read, each into its own files
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'Another process reads {data_dir}: waiting for what it keeps.', flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)


def _digest(*parts):
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
