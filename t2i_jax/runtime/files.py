"""Files that appear whole or not at all, and errors of writing into a workdir."""

import contextlib
import errno
import os
from pathlib import Path

from t2i_jax.runtime.errors import unwritable
from tfds_builders.atomic import replacing

__all__ = ['replacing', 'writes']


@contextlib.contextmanager
def writes(workdir):
    """Within it, what cannot be written into a workdir (no room, no permission, read-only) is one RunError."""
    try:
        yield
    except OSError as error:
        inside = (
            isinstance(error.filename, (str, os.PathLike))
            and Path(workdir).resolve() in Path(error.filename).resolve().parents
        )
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG) and not (
            inside and isinstance(error, PermissionError)
        ):
            raise
        raise unwritable(workdir, error, error.filename) from error
