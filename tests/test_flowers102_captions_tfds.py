"""TFDS' own test case; needs TensorFlow, the builder itself does not."""

import pathlib
import tempfile

import pytest

pytest.importorskip('tensorflow')

import tensorflow_datasets as tfds  # noqa: E402
from test_flowers102_captions import LISTS, icml, make, make_masks  # noqa: E402
from test_old_downloads import put  # noqa: E402

from tfds_builders.flowers102_captions.builder import Flowers102Captions  # noqa: E402


class Flowers102CaptionsTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Flowers102Captions
    SPLITS = {'train': 3, 'validation': 3, 'test': 6}

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.EXAMPLE_DIR = make_masks(make(pathlib.Path(cls.folder.name) / 'manual', lists=LISTS))
        put(cls.EXAMPLE_DIR / 'flowers_icml.tar.gz', icml())
        super().setUpClass()

    def _make_builder(self, config=None):
        return Flowers102Captions(data_dir=self.tmp_dir, config=config, manual_dir=self.EXAMPLE_DIR)


if __name__ == '__main__':
    tfds.testing.test_main()
