"""Files that appear whole or not at all, and errors of writing into a workdir."""

import contextlib
import errno
import os
from pathlib import Path

from t2i_jax.runtime.errors import quoted, unwritable
from tfds_builders.atomic import replacing

__all__ = ['replacing', 'write_text', 'writes']

# errors of a file system that takes no more, wherever the file lies
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def write_text(path, text):
    """Write a text file in UTF-8 so that it appears whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


@contextlib.contextmanager
def writes(workdir):
    """Turn errors of writing into a workdir within the context into one RunError.

    These are: no room, no permission, read-only, a file too large.
    """
    try:
        yield
    except OSError as error:
        forbidden = isinstance(error, PermissionError) and _is_inside(error.filename, workdir)
        if error.errno not in REFUSED and not forbidden:
            raise
        what = quoted(error.filename) if error.filename else None
        raise unwritable(workdir, error, what) from error


def _is_inside(path, folder):
    is_path = isinstance(path, (str, os.PathLike))
    return is_path and Path(folder).resolve() in Path(path).resolve().parents
