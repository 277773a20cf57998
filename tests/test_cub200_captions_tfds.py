"""TFDS' own test case; needs TensorFlow, the builder itself does not."""

import pathlib
import tempfile

import pytest

pytest.importorskip('tensorflow')

import tensorflow_datasets as tfds  # noqa: E402
from test_cub200_captions import LISTS, icml, make, make_masks  # noqa: E402
from test_old_downloads import put  # noqa: E402

from tfds_builders.cub200_captions.builder import Cub200Captions  # noqa: E402


class Cub200CaptionsTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Cub200Captions
    SPLITS = {'train': 3, 'validation': 3, 'test': 6}

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.EXAMPLE_DIR = make_masks(make(pathlib.Path(cls.folder.name) / 'manual', lists=LISTS))
        put(cls.EXAMPLE_DIR / 'cub_icml.tar.gz', icml())
        super().setUpClass()

    def _make_builder(self, config=None):
        return Cub200Captions(data_dir=self.tmp_dir, config=config, manual_dir=self.EXAMPLE_DIR)


if __name__ == '__main__':
    tfds.testing.test_main()
