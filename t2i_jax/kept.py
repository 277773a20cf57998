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
import shutil

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import logging

MAKERS = ('kept.py', 'pictures.py', 'tables.py', 'text.py')
SHARE = .1           # of the free disk; tables that take more are not kept
TEXTS = ('texts', 'rounds')


class Kept:
    """The tables of one split, those that depend on how pictures are cropped and resized (`placed`) for one canvas."""

    def __init__(self, data_dir, split, canvas, placed):
        data_dir, here = pathlib.Path(data_dir), pathlib.Path(__file__).parent
        files = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in sorted(data_dir.iterdir()) if file.is_file()]
        code = [hashlib.sha256((here / name).read_bytes()).hexdigest() for name in MAKERS]
        self.folder = data_dir / 'tables' / _digest(files, code, cv2.__version__, tfds.__version__)
        self.split, self.canvas, self.placed = split, canvas, placed

    def path(self, name):
        which = _digest(self.split, self.canvas if name in self.placed else None)
        return self.folder / f'{name}.{which}.{"json" if name in TEXTS else "npy"}'

    def find(self, names, mapped=()):
        """{name: array, or list of texts a record} of those that are there, `mapped` ones as arrays that are read from disk where they are used."""
        found = {}
        for name in names:
            with contextlib.suppress(OSError, ValueError, EOFError):          # not there, or cut short
                path = self.path(name)
                found[name] = (json.loads(path.read_text(encoding='utf-8')) if name in TEXTS else
                               np.load(path, mmap_mode='r' if name in mapped else None, allow_pickle=False))
        return found

    @contextlib.contextmanager
    def alone(self):
        """While it is open, no other process on this disk reads this data set for its tables. -> whether tables can be written"""
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(open(self.folder.parent / 'lock', 'w'))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print(f'Another process reads {self.folder.parents[1]}: waiting for what it keeps.', flush=True)
                    fcntl.flock(lock, fcntl.LOCK_EX)
                for other in self.folder.parent.iterdir():
                    if other.is_dir() and other != self.folder:
                        shutil.rmtree(other, ignore_errors=True)
                self._tidy()                                                  # what a process that was killed has left
            except OSError as error:                                          # a folder of somebody else's, a disk without locks
                logging.info('Tables are not kept: %s', error)
                yield False
                return
            try:
                yield True
            finally:
                self._tidy()

    def _tidy(self):
        for left in self.folder.glob('*.unfinished'):
            left.unlink()

    def _unfinished(self, name):
        return self.path(name).with_suffix('.unfinished')

    def room(self, name, shape, dtype):
        """An array in a file, to be filled and then handed to `put`."""
        return np.lib.format.open_memmap(self._unfinished(name), 'w+', dtype, shape)

    def put(self, tables):
        """Keeps tables {name: array or lists of texts}: those in files that `room` made, and the others where they are small for the disk."""
        small = sum(getattr(table, 'nbytes', 0) for table in tables.values() if not isinstance(table, np.memmap)) < SHARE * self.free()
        try:
            for name, table in tables.items():
                if isinstance(table, np.memmap):
                    table.flush()
                elif small:
                    with open(self._unfinished(name), 'wb') as file:
                        file.write(json.dumps(table).encode()) if name in TEXTS else np.save(file, table, allow_pickle=False)
                        file.flush()
                        os.fsync(file.fileno())                               # a file under its final name is a whole one
                else:
                    continue
                self._unfinished(name).replace(self.path(name))
        except OSError as error:
            logging.info('Tables are not kept: %s', error)

    def free(self):
        return shutil.disk_usage(self.folder).free


def _digest(*parts):
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
