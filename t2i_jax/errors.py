"""The exceptions for what a person can put right. Their message is all that the command line prints."""
import errno
import os
import re
import shutil

from tfds_builders.errors import DataError

__all__ = ['DataError', 'RunError', 'reason', 'unwritable']


class RunError(ValueError):
    """Something about a run: its config, its workdir, a checkpoint. Its message is all that the command line prints."""


def reason(error):
    """What lies behind an exception, in a few words."""
    while error.__cause__:
        error = error.__cause__
    number = re.search(r"os_error_code='(\d+)'", str(error))               # how TensorStore tells it, behind several paths
    text = os.strerror(int(number[1])) if number else getattr(error, 'strerror', None) or str(error).strip()
    return text.splitlines()[0][:300].rstrip('.') if text else type(error).__name__


def unwritable(workdir, error, what=None):
    """The RunError for a write into a workdir that failed. what: the thing that could not be written, where it is not the workdir itself."""
    why, remedy = reason(error), 'See to it that you may write there'
    if why in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)):
        remedy = f'{shutil.disk_usage(workdir).free / 1e6:,.1f} MB are free there. Make room'
    return RunError(f'{what or f"workdir {workdir}"} cannot be written: {why}. {remedy}, then begin or resume with: '
                    f'python -m t2i_jax.main --workdir={workdir}. Or choose another --workdir.')
