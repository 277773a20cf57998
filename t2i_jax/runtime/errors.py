"""The exceptions for what a person can put right. Their message is all that the command line prints."""

import errno
import os
import pathlib
import re
import shutil

from tfds_builders.errors import DataError

__all__ = ['DataError', 'RunError', 'reason', 'unwritable']


class RunError(ValueError):
    """Something about a run: its config, its workdir, a checkpoint. Its message is all that the command line prints."""


def causes(error):
    """An exception and those behind it, the first of all last."""
    return [error, *(causes(error.__cause__) if error.__cause__ else [])]


def os_error(error):
    """The number of the system's error behind an exception, None where there is none."""
    for cause in reversed(causes(error)):
        number = re.search(
            r"os_error_code='(\d+)'", str(cause)
        )  # how TensorStore tells it, behind several paths
        if number or isinstance(cause, OSError):
            return int(number[1]) if number else cause.errno
    return None


def reason(error):
    """What lies behind an exception, in a few words."""
    number, first = os_error(error), causes(error)[-1]
    return (
        os.strerror(number)
        if number
        else (str(first).strip().splitlines() or [type(first).__name__])[0][:300].rstrip('.')
    )


def unwritable(workdir, error, what=None):
    """The RunError for a write into a workdir that failed. what: the thing that could not be written, where it is not the workdir itself."""
    remedy = 'See to it that you may write there'
    if os_error(error) in (errno.ENOSPC, errno.EDQUOT):
        place = pathlib.Path(getattr(error, 'filename', None) or workdir).absolute()
        free = shutil.disk_usage(
            next(path for path in (place, *place.parents) if path.exists())
        ).free
        remedy = f'{free / 1e6:,.1f} MB are free there. Make room'
    return RunError(
        f'{what or f"workdir {workdir}"} cannot be written: {reason(error)}. {remedy}, then begin or resume with: '
        f'python -m t2i_jax.main --workdir={workdir}. Or choose another --workdir.'
    )
