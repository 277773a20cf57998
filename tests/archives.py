"""What the tests of builders share.

Tiny pictures, archives of them, and what is built from a manual folder.
"""

import io
import tarfile

import cv2
import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import get_builder


def jpeg(number, shape=(20, 24, 3)):
    return cv2.imencode('.jpg', np.random.default_rng(number).integers(0, 256, shape, np.uint8))[
        1
    ].tobytes()


def write_tar(path, contents):
    with tarfile.open(path, 'w:gz') as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def build_in(tmp_path, name, **kwargs):
    """A data set built from <tmp_path>/manual into <tmp_path>/data."""
    builder = get_builder(
        name, data_dir=tmp_path / 'data', manual_dir=tmp_path / 'manual', **kwargs
    )
    builder.download_and_prepare()
    return builder


def records(builder, split):
    """{file name: record}, pictures as the bytes that are stored."""
    decoders = {
        key: tfds.decode.SkipDecoding()
        for key in ('image', 'mask', 'object_masks')
        if key in builder.info.features
    }
    return {
        record['file_name'].decode(): record
        for record in builder.as_data_source(split, decoders=decoders)
    }
