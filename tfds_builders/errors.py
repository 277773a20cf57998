"""The exception for what a user can put right, and the words of its message.

Such as a missing file, a mistyped name, a broken archive.
"""

import errno
import os
import pathlib
import shlex
import stat

# what to do about an error of the system; others have no remedy that we know
REMEDIES = {
    errno.ENOENT: 'Check the path',
    errno.ENOTDIR: 'A part of the path is a file: name a folder there',
    errno.EISDIR: 'It is a folder: take it away, or name a file',
    errno.EEXIST: 'Take it away, or choose another name',
    errno.EACCES: 'See to it that you may read and write there, or choose another place',
    errno.EPERM: 'See to it that you may read and write there, or choose another place',
    errno.EROFS: 'Choose a place that can be written',
    errno.ENOSPC: 'Make room, or choose another disk',
    errno.EDQUOT: 'Make room, or choose another disk',
    errno.EFBIG: 'Choose another disk',
    errno.ENAMETOOLONG: 'Choose a shorter name',
    errno.ELOOP: 'Its links lead in a circle: name the file itself',
    errno.EMFILE: 'Close other programs, or allow more open files (ulimit -n)',
    errno.ENFILE: 'Close other programs, or allow more open files',
    errno.ENXIO: 'Name a file, not a device',
    errno.ENODEV: 'Name a file, not a device',
    errno.EIO: 'Look at the disk: it may be broken, or its connection',
    errno.ESTALE: 'Look at the disk: it may be broken, or its connection',
}


class DataError(ValueError):
    """A problem with data; its message names the thing and the remedy.

    The message is all that the command line and notebooks print.
    """

    def _render_traceback_(self):
        """Return what IPython shows of it."""
        return [f'Error: {self}']


def short(text, length=200):
    """Write a text for a message: on one line, and of a long one the beginning and its length."""
    text = str(text)
    # the rest need not be looked at
    start = ' '.join(text[: 4 * length].split())
    if len(start) <= length and len(text) <= 4 * length:
        return start
    return f'{start[:length].rstrip()}... ({len(text):,} characters)'


def quoted(path):
    """Write a path so that it can be pasted into a shell, in quotes where it has blanks."""
    return shlex.quote(short(os.fsdecode(path), 4096) if len(str(path)) > 4096 else str(path))


def home(path) -> pathlib.Path:
    """Return a path of the user's with ~ and ~name expanded.

    Raises DataError for a user that does not exist, and for what cannot be a path.
    """
    text = os.path.expanduser(os.fsdecode(path))
    try:
        usable = b'\0' not in os.fsencode(text)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        # a NUL or half a surrogate pair
        raise DataError(f'{path!a} is not the name of a file or folder. Choose another.')
    first = pathlib.Path(text).parts[:1]
    if text.startswith('~') and not os.path.lexists(first[0]):
        name = first[0][1:]
        there = f'There is no user {short(name)}' if name else 'There is no home folder'
        raise DataError(f'{there}, for {quoted(text)}. Write the whole path.')
    return pathlib.Path(text)


def no_file(status: os.stat_result) -> str:
    """Say what a folder, a pipe, a socket or a device is; '' for a file."""
    if stat.S_ISDIR(status.st_mode):
        return 'a folder'
    # reading the others might never end
    if stat.S_ISFIFO(status.st_mode):
        return 'a pipe'
    if stat.S_ISSOCK(status.st_mode):
        return 'a socket'
    return '' if stat.S_ISREG(status.st_mode) else 'a device'


def explained(error, path=None):
    """Say which path the system refused, why, and what to do: two sentences.

    error: an OSError. path: by default its own.
    """
    path = error.filename if path is None else path
    there = isinstance(path, (str, bytes, os.PathLike))
    where = quoted(os.fsdecode(path)) if there else 'A file'
    remedy = REMEDIES.get(error.errno, 'Choose another place')
    return f'{where} cannot be used: {os.strerror(error.errno)}. {remedy}.'
