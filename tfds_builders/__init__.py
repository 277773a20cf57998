"""TFDS builders of captioned pictures, written and read without TensorFlow."""

import functools
import importlib
import pathlib

from absl import logging

from tfds_builders.conditions import Conditions
from tfds_builders.errors import DataError

__all__ = ['Conditions', 'DataError', 'conditions_of', 'get_builder', 'names']


def names() -> list[str]:
    """Return the names of the data sets, e.g. ['flowers102_captions', 'shape_scenes']."""
    return sorted(path.parent.name for path in pathlib.Path(__file__).parent.glob('*/builder.py'))


def get_builder(name, data_dir=None, file_format='array_record', **kwargs):
    """Return the TFDS builder of a data set, such as 'shape_scenes/single'.

    Keywords go to the builder (`manual_dir`, where it reads files of the user's).

    data_dir: may begin with ~

    Raises DataError for a name or a config that does not exist, and where the data set lies there
    damaged or in another file format.
    """
    name, _, config = name.partition('/')
    if name not in names():
        raise DataError(f'There is no data set {name!r}. There are: {", ".join(names())}.')
    module = importlib.import_module(f'tfds_builders.{name}.builder')
    quiet()
    builder = getattr(module, ''.join(part.capitalize() for part in name.split('_')))
    configs = [c.name for c in builder.BUILDER_CONFIGS]
    if config and config not in configs:
        raise DataError(
            f'Data set {name} has no config {config!r}. It has: {", ".join(configs) or "none"}.'
        )
    return builder(data_dir=data_dir, config=config or None, file_format=file_format, **kwargs)


@functools.cache
def quiet():
    """Drop the warning of TFDS that a data set has a configuration of its own."""
    custom = 'Using custom data configuration'
    logging.get_absl_logger().addFilter(lambda record: not str(record.msg).startswith(custom))


def conditions_of(name: str) -> Conditions:
    """Return the functions that read sentences of a data set, as it declares them.

    name: 'NAME' or more, as 'NAME/CONFIG/VERSION'

    A data set declares them in `tfds_builders/NAME/__init__.py` by the name of their module:
    `CONDITIONS = 'tfds_builders.NAME.sentences'`; there, `CONDITIONS` is a `Conditions`. Other data
    sets, and names that are not data sets of this package, have none.
    """
    name = name.partition('/')[0]
    package = importlib.import_module(f'tfds_builders.{name}') if name in names() else None
    module = getattr(package, 'CONDITIONS', '')
    return importlib.import_module(module).CONDITIONS if module else Conditions()
