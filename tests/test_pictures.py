"""Pictures have three channels however they were stored.

Boxes, masks and parts go where their pixels go.
"""

import pathlib

import cv2
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from odd_pictures import ODD, encoded, gradient

from t2i_jax.data import dataset
from t2i_jax.data.augment import augment
from t2i_jax.data.canvas import Canvas, frame
from t2i_jax.data.feed import gather, host_batches
from t2i_jax.data.plan import Plan
from t2i_jax.data.tables import Split
from t2i_jax.runtime.errors import DataError


def test_every_picture_has_three_channels(odd):
    split = Split(odd, 'train', ('image',))
    pictures = {
        split.pictures.records([i])[0]['file_name'].decode(): image
        for i, image in enumerate(split.tables['image'])
    }
    assert set(pictures) == dict(ODD).keys() and split.tables['image'].shape == (
        len(ODD),
        20,
        20,
        3,
    )
    whole = gradient(20, 20).astype(int)
    assert np.array_equal(pictures['colour'], whole) and np.array_equal(
        pictures['transparent'], whole
    )  # red is red
    for name in ('grey', 'two_channels', 'sixteen', 'bits'):
        assert (pictures[name] == pictures[name][..., :1]).all()
    assert np.abs(pictures['grey'][..., 0] - whole @ [0.299, 0.587, 0.114]).max() < 2
    assert np.array_equal(pictures['sixteen'][..., 0], whole[..., 0])
    for name, tolerance in (
        ('jpeg', 12),
        ('palette', 60),
        ('cmyk', 12),
        ('wide', 12),
        ('wider', 12),
        ('tall', 12),
        ('tiny', 80),
    ):
        assert np.abs(pictures[name] - whole).max() < tolerance, name


def test_keep_cuts_the_longer_side_at_one_and_a_half_times_the_shorter(odd):
    odd.update(resize='keep', size=16, load_size=20)
    for cache in ('host', 'none'):
        odd.cache = cache
        split = Split(odd, 'train', ('image',))
        found = split.pictures.rows(range(len(ODD))) if cache == 'none' else split.tables
        names = [split.pictures.records([i])[0]['file_name'].decode() for i in range(len(ODD))]
        extents = dict(zip(names, found['extent'].tolist()))
        assert found['image'].shape == (len(ODD), 30, 30, 3)
        assert [extents[name] for name in ('colour', 'wide', 'wider', 'tall', 'tiny')] == [
            [20, 20],
            [20, 30],
            [20, 30],
            [25, 20],
            [20, 20],
        ]
        pictures = dict(zip(names, found['image']))
        assert np.array_equal(pictures['wide'][:20], gradient(20, 30))
        assert not pictures['wide'][20:].any() and not pictures['tall'][:, 20:].any()
        assert np.array_equal(pictures['wider'][:20], gradient(20, 80)[:, 25:55])  # its middle


def test_a_broken_picture_is_named(odd):
    with pytest.raises(
        DataError, match=r'The image of rose_7.jpg in split broken of .* cannot be decoded'
    ):
        Split(odd, 'broken', ('image',))
    odd.cache = 'none'
    split = Split(odd, 'broken', ('image',))
    with pytest.raises(DataError, match='rose_7.jpg'):
        list(host_batches(split, Plan(split, 1, 0, ('image',)), 0, 1, 'none', 1))


@pytest.mark.parametrize('workers', [0, 1])
def test_a_record_that_cannot_be_read_ends_in_one_message(odd, monkeypatch, workers):
    odd.cache = 'none'
    split = Split(odd, 'train', ('image',))
    plan = Plan(split, 1, 0, ('image',))
    for file in pathlib.Path(split.pictures.data_dir).glob('*.array_record*'):
        file.write_bytes(b'\0' * file.stat().st_size)
    split.pictures.__dict__.pop('source', None)
    with pytest.raises(
        DataError, match=r'The built data set in .* is damaged: .* Delete that folder'
    ):
        list(host_batches(split, plan, 0, 1, 'none', workers))


def test_a_picture_without_bytes_is_named(odd):
    pictures = Split(odd, 'train', ('image',)).pictures
    with pytest.raises(
        DataError, match='The image of rose.jpg in split train of .* cannot be decoded'
    ):
        pictures.draw({'image': b'', 'file_name': b'rose.jpg'})
    with pytest.raises(DataError, match='The image of a record in split train'):
        pictures.frame({'image': b'P6 1 1'})


def test_the_crop_around_a_bird_is_the_one_of_the_papers():
    canvas = Canvas(64, False, 'bbox')
    # x 60 y 27 w 325 h 304 in a picture of 500 x 335: centre (222, 179), R = int(.75 * 325) = 243
    box = np.array([27 / 335, 60 / 500, (27 + 304) / 335, (60 + 325) / 500], np.float32)
    assert frame(335, 500, canvas, box).crop == (0, 0, 335, 465)
    # x 139 y 30 w 153 h 264 in 500 x 400: centre (215, 162), R = 198; nothing is cut off on
    # the right
    box = np.array([30 / 400, 139 / 500, 294 / 400, 292 / 500], np.float32)
    assert frame(400, 500, canvas, box).crop == (0, 17, 360, 396)
    assert frame(400, 500, canvas, np.zeros(4)).crop == (
        0,
        0,
        400,
        500,
    )  # a box of no size: the whole picture


TOP, LEFT, BOTTOM, RIGHT, HEIGHT, WIDTH = 20, 60, 50, 90, 60, 150


class Rectangle(tfds.core.GeneratorBasedBuilder):
    """A dark picture with a bright rectangle, which is its box, mask and object, and whose upper
    corners are parts.
    """

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        box, picture = (
            tfds.features.BBoxFeature(),
            tfds.features.Image(shape=(None, None, 1), encoding_format='png'),
        )
        objects = tfds.features.Sequence(
            {'bbox': box, 'label': tfds.features.ClassLabel(num_classes=3), 'is_crowd': np.bool_}
        )
        features = {
            'image': picture,
            'mask': picture,
            'object_masks': picture,
            'bbox': box,
            'objects': objects,
            'parts': tfds.features.Tensor(shape=(3, 3), dtype=np.float32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(
                max_objects=3, mask_size=64, parts=['left eye', 'right eye', 'tail']
            ),
        )

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
        pixels[TOP:BOTTOM, LEFT:RIGHT] = 255
        small = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)
        box = tfds.features.BBox(TOP / HEIGHT, LEFT / WIDTH, BOTTOM / HEIGHT, RIGHT / WIDTH)
        objects = [
            {'bbox': box, 'label': 2, 'is_crowd': False},
            {'bbox': box, 'label': 1, 'is_crowd': True},
        ]
        parts = np.array(
            [[LEFT / WIDTH, TOP / HEIGHT, 1], [RIGHT / WIDTH, TOP / HEIGHT, 1], [0, 0, 0]],
            np.float32,
        )
        for i in range(4):
            yield (
                i,
                {
                    'image': encoded(pixels),
                    'mask': encoded(pixels),
                    'object_masks': encoded(np.vstack([small, small, 0 * small])),
                    'bbox': box,
                    'objects': objects,
                    'parts': parts,
                },
            )


@pytest.fixture(scope='module')
def rectangle(tmp_path_factory):
    builder = Rectangle(data_dir=tmp_path_factory.mktemp('rectangle'), file_format='array_record')
    builder.download_and_prepare()
    return builder


@pytest.mark.parametrize(
    'resize, crop, flip',
    [('squash', 'bbox', False), ('keep', '', False), ('keep', 'bbox', True), ('squash', '', True)],
)
def test_boxes_masks_and_parts_go_where_their_pixels_go(rectangle, monkeypatch, resize, crop, flip):
    monkeypatch.setattr(dataset, 'prepared', lambda config: rectangle)
    config = dict(
        size=64,
        load_size=80,
        resize=resize,
        crop=crop,
        cache='host',
        flip=flip,
        length=4,
        scales=(),
        captions=1,
    )
    split = Split(
        config, 'train', ('image', 'mask', 'object_masks', 'boxes', 'object_labels', 'box', 'parts')
    )
    both = 0
    for seed in range(6):
        raw = gather(
            split.batch_tables(), {'index': np.arange(4), 'caption': np.zeros((4, 1), int)}
        )
        batch = jax.tree.map(np.asarray, augment(raw, jax.random.key(seed), split.geometry, True))
        for i in range(4):
            seen = batch['image'][i, ..., 0] > 0
            ys, xs = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
            assert np.array_equal(seen, batch['mask'][i, ..., 0] > 0.5)
            if not len(xs):
                continue
            truth = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]) / 64
            for box in (batch['box'][i], batch['boxes'][i, 0]):
                assert (
                    np.abs(
                        np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2]) - truth
                    ).max()
                    < 0.03
                )
            mask = cv2.resize(batch['object_masks'][i, 0], (64, 64)) > 0.5
            assert (mask != seen).mean() < 0.05
            assert (
                batch['object_labels'][i].tolist() == [2, -1, -1]
                and not batch['object_masks'][i, 1:].any()
            )  # a crowd is no object
            assert not batch['parts'][i, 2].any()
            ends = batch['parts'][i, :2]
            for end, x in zip(
                ends, truth[[0, 2]]
            ):  # mirrored, the left eye is still the one on the left
                assert not end[2] or abs(end[0] - x) < 0.03 and abs(end[1] - truth[1]) < 0.03
            both += ends[:, 2].all()
    assert both > 3
