"""Extractors: what their tags say, batches, devices, bad input."""

import os

import jax
import numpy as np
import pytest

from t2i_jax.encoders import efficientnet_lite, inception
from t2i_jax.encoders.pretrained import check_weights, frozen, random_weights
from t2i_jax.evaluate import features, report
from t2i_jax.evaluate.features import extractor
from t2i_jax.evaluate.files import read_captions, statistics_of
from t2i_jax.imports.attngan import identified
from t2i_jax.metrics.fid import Statistics
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.runtime.sharding import make_mesh
from tfds_builders.files import sha256


def images(n, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


@pytest.fixture(scope='module')
def random_conv():
    return extractor('random_conv', batch=8)


def test_features_do_not_depend_on_the_batches(random_conv):
    batch = images(19)
    whole = random_conv(batch)
    assert whole['features'].shape == (19, 256) and whole['logits'].shape == (19, 16)
    assert whole['features'].dtype == np.float32 and isinstance(whole['features'], np.ndarray)
    parts = [random_conv(batch[:3]), random_conv(batch[3:])]
    for name in whole:
        np.testing.assert_allclose(
            np.concatenate([part[name] for part in parts]), whole[name], rtol=1e-5, atol=1e-6
        )
    assert whole['features'].std(0).mean() > 1e-3  # images differ


def test_devices_agree(random_conv):
    batch = images(11)
    spread = extractor('random_conv', batch=6, mesh=make_mesh(devices=jax.devices()[:4]))
    assert spread.batch == 8
    one, four = random_conv(batch), spread(batch)
    for name in one:
        np.testing.assert_allclose(four[name], one[name], rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_network_and_another_another(random_conv):
    batch = images(8)
    same, other = (
        extractor('random_conv', 'random:0', batch=8),
        extractor('random_conv', 'random:1', batch=8),
    )
    np.testing.assert_array_equal(same(batch)['features'], random_conv(batch)['features'])
    assert np.abs(other(batch)['features'] - random_conv(batch)['features']).max() > 0.1
    assert (random_conv.metric_prefix, other.metric_prefix) == (
        'random_conv',
        'random_conv_random1',
    )
    assert random_conv.tag == {
        'name': 'random_conv',
        'architecture': 'four random convolutions',
        'weights': 'random seed 0',
        'resize': 'pil_bicubic',
        'input_size': 64,
        'features': '256',
        'logits': 'logits',
    }


def test_random_weights_are_never_plain_fid():
    made = extractor('inception_fid', resize='tf1_bilinear')
    assert made.metric_prefix == 'inception_fid_random0'
    assert made.tag == {
        'name': 'inception_fid',
        'architecture': 'InceptionV3, graph of 2015-12-05',
        'weights': 'random seed 0',
        'resize': 'tf1_bilinear',
        'input_size': 299,
        'features': '2048',
        'logits': 'logits_unbiased',
    }


def test_only_the_file_that_everybody_uses_is_plain_fid(tmp_path, monkeypatch):
    path = tmp_path / 'weights.npz'
    np.savez(path, **random_weights(inception.shapes('fid'), 3))
    digest = sha256(path)
    made = extractor('inception_fid', path)
    assert (made.metric_prefix, made.tag['weights']) == (
        'inception_fid_unverified',
        f'{digest} (unverified)',
    )
    monkeypatch.setattr(features, 'FID_WEIGHTS', digest)
    made = extractor('inception_fid', path)
    assert (made.metric_prefix, made.tag['weights']) == ('', digest)
    with pytest.raises(
        DataError,
        match=r'weights.npz: These weights are not those of InceptionV3 \(torchvision\).*1008, '
        r'2048',
    ):
        extractor('inception_torchvision', path)


def test_efficientnet_from_a_file_and_from_the_package(tmp_path, monkeypatch):
    path = tmp_path / 'weights.npz'
    np.savez(path, **random_weights(efficientnet_lite.shapes(), 3))
    monkeypatch.setattr(efficientnet_lite, 'packaged_weights', lambda: path)
    for made in (extractor('efficientnet_lite0'), extractor('efficientnet_lite0', path)):
        assert (made.metric_prefix, made.tag['weights'], made.tag['input_size']) == (
            'efficientnet_lite0',
            sha256(path),
            224,
        )


@pytest.mark.parametrize('path', ['pipe.npz', '/dev/zero'])
def test_pipes_and_devices_are_named_and_not_opened(tmp_path, path):
    os.mkfifo(tmp_path / 'pipe.npz')
    path = str(tmp_path / path)
    for read in (
        lambda: extractor('efficientnet_lite0', path),
        lambda: features.check_extractor(
            dict(extractor='inception_fid', extractor_weights=path, every=5)
        ),
        lambda: check_weights(None, path, 'stages.damsm.model.weights'),
        lambda: frozen(None, {}, path),
        lambda: identified(path),
        lambda: Statistics.load(path),
        lambda: statistics_of(path),
        lambda: read_captions(path, 'made', 3),
        lambda: report.read(path),
    ):
        with pytest.raises((DataError, RunError), match=f'{path} is a (pipe|device). Give a'):
            read()


def test_an_image_whose_features_are_not_finite_is_named():
    made = extractor('random_conv', batch=4)

    def apply(state, batch):  # what a network makes of image 6 of 7
        features = np.ones((4, 256), np.float32)
        features[2, 5] = np.nan if (batch[2] == 6).all() else 0
        return features, np.ones((4, 16), np.float32)

    made.apply = apply
    batch = np.broadcast_to(np.arange(7, dtype=np.uint8)[:, None, None, None], (7, 8, 8, 3))
    assert made(batch[:6])['features'].shape == (6, 256)
    with pytest.raises(
        ValueError,
        match=r'random_conv gives numbers that are not finite for image 46 \(1 of 7 images\). '
        r'Check its weights: random seed 0',
    ):
        made(batch, first=40)


def test_wrong_input_is_named(random_conv, tmp_path):
    for wrong in (images(2).astype(np.float32), images(2)[..., :1], images(2)[0], images(0)):
        with pytest.raises(ValueError, match=r'uint8 images \(n, h, w, 3\), one or more'):
            random_conv(wrong)
    for arguments, message in (
        (
            ('vgg',),
            "no feature network 'vgg'; there are inception_fid, inception_torchvision, "
            'efficientnet_lite0, random_conv',
        ),
        (('random_conv', '', 'nearest'), "no resize filter 'nearest'"),
        (('random_conv', 'random:'), 'names no seed'),
        (('random_conv', 'x.npz'), 'random_conv reads no file'),
        (('inception_fid', tmp_path / 'x.pth'), 'x.pth cannot be used: No such file'),
    ):
        with pytest.raises(ValueError, match=message):
            extractor(*arguments)
    with pytest.raises(ValueError, match='batch=0: expected 1'):
        extractor('random_conv', batch=0)
