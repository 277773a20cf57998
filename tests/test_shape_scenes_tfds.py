"""TFDS' own test case; needs TensorFlow, the builder itself does not."""

import tempfile

import pytest

pytest.importorskip('tensorflow')

import tensorflow_datasets as tfds  # noqa: E402

from tfds_builders.shape_scenes.builder import QUICK, ShapeScenes  # noqa: E402


class ShapeScenesTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = ShapeScenes
    BUILDER_CONFIG_NAMES_TO_TEST = ['single_quick', 'multi_quick']
    SPLITS = {'train': 12, 'validation': 4, 'test': 4, 'test_unseen': 4}

    @classmethod
    def setUpClass(cls):
        patch = pytest.MonkeyPatch()
        cls.addClassCleanup(patch.undo)
        for counts in QUICK.values():
            for split, count in cls.SPLITS.items():
                patch.setitem(counts, split, count)
        folder = tempfile.TemporaryDirectory()  # it reads no files
        cls.addClassCleanup(folder.cleanup)
        cls.EXAMPLE_DIR = folder.name
        super().setUpClass()


if __name__ == '__main__':
    tfds.testing.test_main()
