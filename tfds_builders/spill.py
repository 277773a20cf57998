"""Splits of more than 1 GiB without TensorFlow.

TFDS shuffles a split in memory up to that size and through temporary files beyond, which it opens
with TensorFlow: without it the build ends there with ModuleNotFoundError. These are ordinary files,
so ordinary functions do.
"""

import errno
import importlib.util
import os
import types

from tensorflow_datasets.core import shuffle


def without_tensorflow():
    """Let TFDS write large splits where TensorFlow is not installed.

    Does nothing where it is.
    """
    if importlib.util.find_spec('tensorflow') is not None:
        return
    gfile = types.SimpleNamespace(GFile=_open, exists=os.path.exists, remove=os.remove)
    shuffle.tf = types.SimpleNamespace(
        io=types.SimpleNamespace(gfile=gfile),
        errors=types.SimpleNamespace(ResourceExhaustedError=_Never),
    )


class _Never(Exception):
    """An exception of TensorFlow's that these files do not raise."""


def _open(path, mode):
    try:
        return open(path, mode)
    except OSError as error:
        # a thousand files are open at once, some systems allow as many
        if error.errno != errno.EMFILE:
            raise
        shuffle._increase_open_files_limit()
        return open(path, mode)
