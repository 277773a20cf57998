"""Files that appear whole or not at all, and errors of writing into a workdir."""

import contextlib
import errno
import json
import os
from pathlib import Path

from t2i_jax.runtime.errors import IN_THE_WAY, RunError, quoted, unwritable
from tfds_builders.atomic import replacing
from tfds_builders.errors import no_file

__all__ = ['read_json', 'replacing', 'require_regular', 'write_text', 'writes']

# errors of a file system that takes no more, wherever the file lies
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
# errors of a folder that was removed or replaced, or that may not be written
GONE = (errno.ENOENT, *IN_THE_WAY, errno.EACCES, errno.EPERM, errno.ESTALE)


def write_text(path, text):
    """Write a text file in UTF-8 so that it appears whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


def read_json(path, limit=64 << 20):
    """Read a JSON file. Raises OSError, and ValueError for what is not JSON or not a file.

    limit: in bytes
    """
    found = os.stat(path)
    if other := no_file(found):
        raise ValueError(f'it is {other}, not a file')
    if found.st_size > limit:
        raise ValueError(f'it has {found.st_size / 1e6:,.0f} MB')
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except RecursionError:
        raise ValueError('it is nested too deeply') from None


def require_regular(path):
    """Raise RunError where a file that a run opens to write is a folder, a pipe or a device."""
    try:
        other = no_file(os.stat(path))
    except OSError:
        # it is made, or opening it says what is wrong
        return
    if other:
        raise RunError(f'{quoted(path)} is {other}, and a run has a file there: take it away.')


@contextlib.contextmanager
def writes(workdir):
    """Turn errors of writing into a workdir within the context into one RunError.

    These are: no room, no permission, read-only, a file too large, a folder that is gone, a folder
    in place of a file, and a file in place of a folder.
    """
    try:
        yield
    except OSError as error:
        inside = error.errno in GONE and _is_inside(error.filename, workdir)
        if error.errno not in REFUSED and not inside:
            raise
        what = quoted(error.filename) if error.filename else None
        raise unwritable(workdir, error, what) from error


def _is_inside(path, folder):
    is_path = isinstance(path, (str, os.PathLike))
    return is_path and Path(folder).resolve() in Path(path).resolve().parents
