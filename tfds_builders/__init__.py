"""TFDS builders of captioned pictures. They write and read ArrayRecord, so TensorFlow is never needed."""

import importlib
import pathlib

from tfds_builders.errors import DataError

__all__ = ['DataError', 'get_builder', 'names']


def names() -> list[str]:
    """The data sets that exist, e.g. ['flowers102_captions', 'shape_scenes']."""
    return sorted(path.parent.name for path in pathlib.Path(__file__).parent.glob('*/builder.py'))


def get_builder(name, data_dir=None, file_format='array_record', **kwargs):
    """'shape_scenes/single' -> its TFDS builder. Keywords go to the builder (`manual_dir`, where it reads files of the user's).

    Raises ValueError where the data set lies there in another file format, and DataError for a name or a config that does not exist.
    """
    name, _, config = name.partition('/')
    if name not in names():
        raise DataError(f'There is no data set {name!r}. There are: {", ".join(names())}.')
    module = importlib.import_module(f'tfds_builders.{name}.builder')
    importlib.import_module('tfds_builders.spill').without_tensorflow()
    builder = getattr(module, ''.join(part.capitalize() for part in name.split('_')))
    configs = [c.name for c in builder.BUILDER_CONFIGS]
    if config and config not in configs:
        raise DataError(
            f'Data set {name} has no config {config!r}. It has: {", ".join(configs) or "none"}.'
        )
    return builder(data_dir=data_dir, config=config or None, file_format=file_format, **kwargs)
