"""TFDS' own test case; needs TensorFlow, the builder itself does not."""

import pathlib
import tempfile

import pytest

pytest.importorskip('tensorflow')

import tensorflow_datasets as tfds  # noqa: E402
from test_caption_folder import FILES, json_lines, picture  # noqa: E402

from tfds_builders.caption_folder.builder import CaptionFolder  # noqa: E402


class CaptionFolderTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = CaptionFolder
    SPLITS = {'train': 8, 'validation': 1, 'test': 1}

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.EXAMPLE_DIR = pathlib.Path(cls.folder.name)
        for seed, file in enumerate(FILES):
            (cls.EXAMPLE_DIR / file).write_bytes(picture(seed))
        json_lines(
            cls.EXAMPLE_DIR,
            [
                {
                    'file_name': file,
                    'text': f'a thing {file}',
                    'label': f'kind {i % 2}',
                    'boxes': [[1, 2, 9, 9]],
                }
                for i, file in enumerate(FILES)
            ],
        )
        super().setUpClass()

    def _make_builder(self, config=None):
        return CaptionFolder(data_dir=self.tmp_dir, manual_dir=self.EXAMPLE_DIR)


if __name__ == '__main__':
    tfds.testing.test_main()
