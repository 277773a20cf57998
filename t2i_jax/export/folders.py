"""The folder that an export writes."""

import contextlib
import json
import shutil

from t2i_jax import __version__
from t2i_jax.runtime.errors import RunError, explained, quoted
from t2i_jax.runtime.files import write_text
from t2i_jax.runtime.weights import LIST, digests


@contextlib.contextmanager
def written(out, **known):
    """Begin an exported folder, and write its list at the end.

    known: what the list says besides. Raises RunError for a folder that holds something else, and
    where it cannot be written.
    """
    try:
        if out.exists():
            if not out.is_dir() or any(out.iterdir()) and not (out / LIST).exists():
                raise RunError(
                    f'{quoted(out)} exists and is not an exported folder: choose another --out, or '
                    'empty it.'
                )
            shutil.rmtree(out)
        out.mkdir(parents=True)
        yield known
        found = dict(version=__version__, **known, files=digests(out))
        write_text(out / LIST, json.dumps(found, indent=1) + '\n')
    except OSError as error:
        raise RunError(explained(error, out)) from None
