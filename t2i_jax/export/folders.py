"""The folder that an export writes."""

import contextlib
import json
import shutil

from t2i_jax import __version__
from t2i_jax.runtime.errors import RunError, explained, quoted
from t2i_jax.runtime.files import write_text
from t2i_jax.runtime.weights import LIST, digests, files_of, read_list


@contextlib.contextmanager
def written(out, **known):
    """Write a folder and its list next to `out`, and put it there at the end.

    Yields (the folder to write to, what the list says besides files, which may be changed).
    known: the latter. What was exported to `out` before is replaced, and stays where this fails.
    Raises RunError where `out` holds anything else, and where it cannot be written.
    """
    part = out.with_name(f'.{out.name}.part')
    try:
        require_replaceable(out)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part, known
        found = dict(version=__version__, **known, files=digests(part))
        write_text(part / LIST, json.dumps(found, indent=1) + '\n')
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    except OSError as error:
        raise RunError(explained(error, out)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def require_replaceable(out):
    """Raise RunError where a path holds something that was not exported."""
    if not out.exists():
        return
    listed = read_list(out) if out.is_dir() else None
    if not out.is_dir() or listed is None and any(out.iterdir()):
        raise RunError(
            f'{quoted(out)} exists and is not an exported folder: choose another --out, or empty '
            'it.'
        )
    if more := [name for name in files_of(out) if listed and name not in listed['files']]:
        raise RunError(
            f'{quoted(out)} also holds {quoted(more[0])}, which would be lost: take it away, or '
            'choose another --out.'
        )
