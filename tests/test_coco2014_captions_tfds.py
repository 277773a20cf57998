"""TFDS' own test case; needs TensorFlow, the builder itself does not."""

import pathlib
import tempfile

import pytest

pytest.importorskip('tensorflow')

import tensorflow_datasets as tfds  # noqa: E402
from test_coco2014_captions import dialog_file, make  # noqa: E402
from test_coco2014_vectors import icml  # noqa: E402
from test_old_downloads import put  # noqa: E402

from tfds_builders.coco2014_captions.builder import Coco2014Captions  # noqa: E402


class Coco2014CaptionsTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Coco2014Captions
    SPLITS = {'train': 6, 'validation': 3}

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.EXAMPLE_DIR = make(pathlib.Path(cls.folder.name) / 'manual')
        (cls.EXAMPLE_DIR / 'visdial_1.0_train.json').write_text(
            dialog_file([*range(1, 7), *range(11, 14)], '1.0', 'train')
        )
        for part in ('train', 'val'):
            put(cls.EXAMPLE_DIR / f'{part}2014_ex_t7.tar.gz', icml(part))
        super().setUpClass()

    def _make_builder(self, config=None):
        return Coco2014Captions(data_dir=self.tmp_dir, config=config, manual_dir=self.EXAMPLE_DIR)


if __name__ == '__main__':
    tfds.testing.test_main()
