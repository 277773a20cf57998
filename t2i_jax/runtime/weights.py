"""Weights in files that hold numbers alone (safetensors), and the list of an exported folder.

<folder>/export.json    {'version', 'stages': {name: step}, 'precision', 'weights', 'files'}
         <stage>/weights.safetensors

`files` has the SHA-256 of every other file. export.py writes such a folder; run.py opens it.
"""

import hashlib
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from t2i_jax.runtime.errors import RunError, quoted, short
from t2i_jax.runtime.files import read_json, replacing

PRECISIONS = 'float32', 'bfloat16', 'float16'
LIST, WEIGHTS = 'export.json', 'weights.safetensors'
AGAIN = 'Copy or download the folder again.'


def named(tree) -> dict:
    """Name the arrays of a tree by their paths: {'params/G/first/kernel': array}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator='/'): x for path, x in leaves}


def save_weights(path, tree, precision='float32') -> int:
    """Write a tree of arrays as safetensors -> bytes. Floats are stored in `precision`."""
    arrays = {}
    for name, x in named(tree).items():
        x = np.asarray(x)
        floats = jnp.issubdtype(x.dtype, jnp.floating)
        arrays[name] = np.ascontiguousarray(x.astype(jnp.dtype(precision)) if floats else x)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save(arrays)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def load_weights(path, shapes):
    """Read a tree of arrays from safetensors.

    shapes: the tree as ShapeDtypeStructs, whose types the arrays get. Raises RunError where the
    file is none, or has other arrays.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f'{quoted(path)} cannot be read: {short(error, 200)}.') from None
    wanted = named(shapes)
    if found.keys() != wanted.keys():
        more, less = sorted(found.keys() - wanted), sorted(wanted.keys() - found)
        what = f'has {more[0]} in excess' if more else f'lacks {less[0]}'
        raise RunError(f'{quoted(path)} belongs to another model than its config: it {what}.')
    for name, shape in wanted.items():
        if found[name].shape != shape.shape:
            raise RunError(
                f'{quoted(path)} belongs to another model than its config: {name} has the shape '
                f'{found[name].shape}, expected {shape.shape}.'
            )
    leaves = [jnp.asarray(found[name], shape.dtype) for name, shape in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def digest(path) -> str:
    """Compute the SHA-256 of a file."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def files_of(folder) -> dict:
    """List the files of a folder but its list, {path within it: path}."""
    paths = sorted(path for path in pathlib.Path(folder).rglob('*') if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path for name, path in names.items() if name != LIST}


def digests(folder) -> dict:
    """Compute the SHA-256 of all files of a folder but its list, {path within it: digest}."""
    return {name: digest(path) for name, path in files_of(folder).items()}


def read_list(folder) -> dict | None:
    """Read the list of an exported folder; None where it is none.

    Raises RunError where the list is damaged, and where a file of it is missing or has changed.
    """
    path = pathlib.Path(folder) / LIST
    if not os.path.isfile(path):
        return None
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f'{quoted(path)} is damaged: {short(error, 200)}. {AGAIN}') from None
    kinds = dict(stages=int, files=str)
    parts = found if isinstance(found, dict) else {}
    if not all(
        isinstance(parts.get(name), dict) and all(isinstance(x, kind) for x in parts[name].values())
        for name, kind in kinds.items()
    ):
        raise RunError(f'{quoted(path)} is not the list of an exported folder. {AGAIN}')
    for name, known in found['files'].items():
        file = path.parent / name
        if not file.is_file():
            raise RunError(f'{quoted(file)} is missing. {AGAIN}')
        if (now := digest(file)) != known:
            raise RunError(
                f'{quoted(file)} is not the file that was exported: its SHA-256 is {now[:12]}..., '
                f'expected {str(known)[:12]}.... {AGAIN}'
            )
    return found
