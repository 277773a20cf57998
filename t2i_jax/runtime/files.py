"""Files that appear whole or not at all, and errors of writing into a workdir."""

import contextlib
import errno
import os
from pathlib import Path

from t2i_jax.runtime.errors import unwritable


@contextlib.contextmanager
def replacing(path):
    """A temporary path beside `path` that takes its place in the end: a reader sees the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
