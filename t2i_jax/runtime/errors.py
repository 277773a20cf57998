"""Exceptions for mistakes that a user can correct, and the words of their messages.

Their message is all that the command line prints. `short` cuts long texts, `quoted` writes paths,
`explained` says what an OSError means; they lie in tfds_builders, which uses them, too.
"""

import errno
import os
import pathlib
import re
import shutil

from tfds_builders.errors import DataError, explained, home, quoted, short

__all__ = [
    'DataError',
    'RunError',
    'choose',
    'explained',
    'home',
    'quoted',
    'reason',
    'short',
    'unwritable',
]


# errors of a folder where a file is to be, or of a file where a folder is
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)


class RunError(ValueError):
    """A mistake in a run: its config, its workdir, a checkpoint."""

    _render_traceback_ = DataError._render_traceback_


def choose(name, value, known):
    """Return `value` if it is among the `known` ones; raise a RunError that lists them if not."""
    if value not in known:
        *others, last = map(repr, known)
        listed = f'{", ".join(others)} or {last}' if others else last
        raise RunError(f'{name} is {short(repr(value))}; it is {listed}.')
    return value


def causes(error):
    """List an exception and those behind it, the original one last."""
    return [error, *(causes(error.__cause__) if error.__cause__ else [])]


def os_error(error):
    """Find the system's error number behind an exception; None where there is none."""
    for cause in reversed(causes(error)):
        # TensorStore writes it behind several paths
        number = re.search(r"os_error_code='(\d+)'", str(cause))
        if number or isinstance(cause, OSError):
            return int(number[1]) if number else cause.errno
    return None


def reason(error):
    """Say in a few words why an exception was raised."""
    number, first = os_error(error), causes(error)[-1]
    if number:
        return os.strerror(number)
    lines = str(first).strip().splitlines() or [type(first).__name__]
    return short(lines[0], 300).rstrip('.')


def unwritable(workdir, error, what=None):
    """Make the RunError for a failed write into a workdir.

    what: the file that could not be written, by default the workdir itself
    """
    remedy = 'See to it that you may write there'
    if os_error(error) in IN_THE_WAY:
        remedy = 'Take it away'
        if os_error(error) == errno.ENOTDIR:
            remedy = 'A part of the path is a file: take it away'
    elif os_error(error) in (errno.ENOSPC, errno.EDQUOT):
        place = pathlib.Path(getattr(error, 'filename', None) or workdir).absolute()
        there = next(path for path in (place, *place.parents) if path.exists())
        free = shutil.disk_usage(there).free
        remedy = f'{free / 1e6:,.1f} MB are free there. Make room'
    return RunError(
        f'{what or f"workdir {quoted(workdir)}"} cannot be written: {reason(error)}. {remedy}, '
        f'then begin or resume with: t2i_jax --workdir={quoted(workdir)}. Or choose another '
        '--workdir.'
    )
