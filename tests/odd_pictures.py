"""A data set whose pictures are of all kinds, without classes and facts."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def encoded(array, mode=None, kind='PNG', **options):
    stream = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def gradient(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), np.full((height, width), 90)],
        -1,
    ).astype(np.uint8)


ODD = [
    ('colour', encoded(gradient(20, 20))),
    ('grey', encoded(gradient(20, 20), 'L')),
    ('two_channels', encoded(gradient(20, 20), 'LA')),
    ('transparent', encoded(np.dstack([gradient(20, 20), np.full((20, 20), 7, np.uint8)]))),
    ('palette', encoded(gradient(20, 20), 'P')),
    ('bits', encoded(gradient(20, 20), '1')),
    ('sixteen', encoded(gradient(20, 20)[..., 0].astype(np.uint16) * 257)),
    ('jpeg', encoded(gradient(20, 20), None, 'JPEG', quality=98)),
    ('cmyk', encoded(gradient(20, 20), 'CMYK', 'JPEG', quality=98)),
    ('wide', encoded(gradient(20, 30))),
    ('wider', encoded(gradient(20, 80))),
    ('tall', encoded(gradient(25, 20))),
    ('tiny', encoded(gradient(3, 3))),
]


class OddPictures(tfds.core.GeneratorBasedBuilder):
    """Pictures of all kinds, with 0 to 3 captions."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(None, None, 3)),
                    'file_name': tfds.features.Text(),
                    'captions': tfds.features.Sequence(tfds.features.Text()),
                }
            ),
            metadata=tfds.core.MetadataDict(flip=True),
        )

    def _split_generators(self, dl_manager):
        return {
            'train': self._generate_examples(ODD),
            'broken': self._generate_examples([('rose_7.jpg', ODD[7][1][:40] + b'xx')]),
        }

    def _generate_examples(self, pictures):
        for number, (name, content) in enumerate(pictures):
            yield (
                name,
                {
                    'image': content,
                    'file_name': name,
                    'captions': [f'a {name} picture', 'a flower', 'red'][: number % 4],
                },
            )
