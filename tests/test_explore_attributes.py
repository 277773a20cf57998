"""Exploring a run that draws from attributes and latents: pictures and numbers of each kind, and what is refused."""

import json

import cv2
import jax
import numpy as np
import pytest

from t2i_jax.explore import attributes as explore_attributes
from t2i_jax.explore import explore
from t2i_jax.explore.attributes import exclusive_groups
from t2i_jax.runtime import log
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.train import train


@pytest.fixture(scope='module')
def layered(on_shapes, tmp_path_factory):
    """(config, workdir) of a tiny disCVAE after a few steps."""
    config, workdir = on_shapes('attribute2image_shapes'), tmp_path_factory.mktemp('layered')
    config.stages.vae.update(
        steps=4, log_every=2, validate_every=0, sample_every=0, checkpoint_every=4
    )
    config.stages.vae.model.update(width=4, nz=8, nz_b=8)
    train(config.lock(), workdir, jax.devices()[:1])
    return config, workdir


def test_groups_of_which_each_record_has_one():
    table = np.array([[1, 0, 0, 1, 1, 0.5], [0, 1, 1, 0, 0, 0.1], [0, 1, 0, 1, 1, 0.2]])
    assert exclusive_groups(table) == [
        [0],
        [1],
        [2],
        [3],
        [4],
        [5],
    ]  # one attribute is no 0 or 1: no groups are sought
    assert exclusive_groups(np.round(table[:, :5])) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize('what', explore_attributes.WHAT)
def test_pictures_and_numbers(what, layered, monkeypatch, tmp_path):
    config, workdir = layered
    drawn = {}
    monkeypatch.setattr(
        log,
        'sheet',
        lambda pictures, labels, path, **more: drawn.update(
            pictures=pictures, labels=labels, **more
        ),
    )
    numbers = explore.explore(config, workdir, what, num=3, out=tmp_path)
    assert json.loads((tmp_path / f'{what}.json').read_text()) == numbers and numbers['step'] == 4
    shape = {
        'attributes': (15, 7),
        'layers': (4, 3),
        'reconstruction': (3, 4),
        'completion': (3, 3),
    }[what]
    assert drawn['pictures'].shape == (*shape, 16, 16, 3) and len(drawn['labels']) == shape[
        0
    ] == len(drawn['real'])
    if what == 'attributes':  # five groups; that of sizes has three values
        assert (
            drawn['labels'][2] == 'small, medium, large' and (drawn['pictures'][2, 3:] == 255).all()
        )
        assert (drawn['pictures'][2, 0] != drawn['pictures'][2, 2]).any() and (
            drawn['pictures'][1, 6] != 255
        ).any()
    if what == 'layers':
        assert (drawn['pictures'][0] == drawn['real'][1:]).all() and (
            drawn['pictures'][1, 0] != drawn['pictures'][1, 1]
        ).any()
    if what in ('reconstruction', 'completion'):
        assert numbers['energy'][2] < numbers['energy'][0]
    if what == 'completion':
        assert (drawn['pictures'][:, 0, :, 8:] == 128).all() and (
            drawn['pictures'][:, 0, :, :8] == drawn['real'][:, :, :8]
        ).all()
        assert (
            numbers['mse_reconstructed']
            <= numbers['mse_completed']
            == pytest.approx(numbers['ratio'] * numbers['mse_reconstructed'])
        )


def test_a_picture_of_the_users(layered, tmp_path):
    config, workdir = layered
    cv2.imwrite(
        str(tmp_path / 'mine.png'), np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    )
    for given in (None, 'red, circle', ' '.join(['1'] + ['0'] * 21)):
        explore.explore(
            config,
            workdir,
            'attributes',
            images=[tmp_path / 'mine.png'],
            attributes=given,
            out=tmp_path,
        )
    assert (tmp_path / 'attributes.png').exists()
    (tmp_path / 'text.png').write_text('no picture')
    with pytest.raises(DataError, match=r'text\.png is missing, or no picture'):
        explore.explore(config, workdir, 'attributes', images=[tmp_path / 'text.png'])


def test_what_cannot_be_explored(layered, trained, tiny):
    config, workdir = layered
    with pytest.raises(RunError, match='no .depth. to explore.*attributes, layers'):
        explore.explore(config, workdir, 'depth')
    with pytest.raises(RunError, match='Give --image once'):
        explore.explore(config, workdir, 'layers', images=['a.png', 'b.png'])
    with pytest.raises(RunError, match='layers does not read --text'):
        explore.explore(config, workdir, 'layers', texts=['a red circle'])
    with pytest.raises(RunError, match='GanCls is none'):
        explore.explore(tiny(), trained, 'attributes')
