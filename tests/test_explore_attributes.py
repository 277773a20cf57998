"""Explorations from attributes and latents: pictures and numbers of each kind, what is refused."""

import functools
import json

import cv2
import numpy as np
import pytest

from t2i_jax.draw import sheets
from t2i_jax.explore import explore, offered
from t2i_jax.explore.attributes import exclusive_groups
from t2i_jax.run import Run
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.systems.attribute2image import Attribute2Image

ALL = tuple(Attribute2Image.explores)


@pytest.fixture(scope='module')
def layered(run_of):
    """The stage of a tiny disCVAE after a few steps."""
    return Run.open(run_of('attribute2image'))['vae']


@pytest.fixture(autouse=True)
def brief_inference(monkeypatch):
    """Few steps from few starts, since XLA runs them slowly without optimising."""
    brief = functools.partialmethod(Attribute2Image.infer, steps=40, restarts=2)
    monkeypatch.setattr(Attribute2Image, 'infer', brief)


@pytest.fixture
def shown(monkeypatch):
    """The arguments of the last sheet, by name."""
    found = {}

    def spy(pictures, labels, path, **more):
        path.parent.mkdir(parents=True, exist_ok=True)
        found.update(pictures=pictures, labels=labels, **more)

    monkeypatch.setattr(sheets, 'sheet', spy)
    return found


def test_groups_of_which_each_record_has_one():
    table = np.array([[1, 0, 0, 1, 1, 0.5], [0, 1, 1, 0, 0, 0.1], [0, 1, 0, 1, 1, 0.2]])
    # one attribute is neither 0 nor 1: no groups are sought
    assert exclusive_groups(table) == [[0], [1], [2], [3], [4], [5]]
    assert exclusive_groups(np.round(table[:, :5])) == [[0, 1], [2, 3], [4]]


# inference is a loop over convolutions, which XLA at level 0 leaves slow
@pytest.mark.slow
@pytest.mark.parametrize('what', ALL)
def test_pictures_and_numbers(what, layered, shown, tmp_path):
    numbers = explore(layered, what, num=3, out=tmp_path)
    assert json.loads((tmp_path / f'{what}.json').read_text()) == numbers and numbers['step'] == 2
    pictures, labels, real = shown['pictures'], shown['labels'], shown['real']
    # five groups of attributes
    shapes = dict(attributes=(15, 7), layers=(4, 3), reconstruction=(3, 4), completion=(3, 3))
    assert pictures.shape == (*shapes[what], 16, 16, 3)
    assert len(pictures) == len(labels) == len(real)
    if what == 'attributes':
        # three sizes, seven colours
        assert labels[2] == 'small, medium, large' and (pictures[2, 3:] == 255).all()
        assert (pictures[2, 0] != pictures[2, 2]).any() and (pictures[1, 6] != 255).any()
    if what == 'layers':
        assert (pictures[0] == real[1:]).all() and (pictures[1, 0] != pictures[1, 1]).any()
    if what in ('reconstruction', 'completion'):
        assert numbers['energy'][2] < numbers['energy'][0]
    if what == 'completion':
        assert (pictures[:, 0, :, 8:] == 128).all()
        assert (pictures[:, 0, :, :8] == real[:, :, :8]).all()
        assert numbers['mse_reconstructed'] <= numbers['mse_completed']
        ratio = numbers['mse_completed'] / numbers['mse_reconstructed']
        assert numbers['ratio'] == pytest.approx(ratio)


@pytest.mark.slow
def test_a_given_picture(layered, tmp_path):
    mine = tmp_path / 'mine.png'
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    cv2.imwrite(str(mine), pixels)
    for given in (None, 'red, circle', ' '.join(['1'] + ['0'] * 21)):
        explore(layered, 'attributes', images=[mine], attributes=given, out=tmp_path)
    assert (tmp_path / 'attributes.png').exists()
    (tmp_path / 'text.png').write_text('not a picture')
    with pytest.raises(DataError, match=r'text\.png'):
        explore(layered, 'attributes', images=[tmp_path / 'text.png'])
    with pytest.raises(RunError, match='Give --attributes once'):
        explore(layered, 'attributes', images=[mine], attributes=['red', 'blue'])


def test_what_cannot_be_explored(layered, trained):
    with pytest.raises(RunError, match='no .depth. to explore.*attributes, layers'):
        explore(layered, 'depth')
    with pytest.raises(RunError, match='Give --image once'):
        explore(layered, 'layers', images=['a.png', 'b.png'])
    with pytest.raises(RunError, match='give --image, too'):
        explore(layered, 'layers', attributes=['red'])
    with pytest.raises(RunError, match='layers does not read --text'):
        explore(layered, 'layers', texts=['a red circle'])
    with pytest.raises(RunError, match='latents which can be inferred. Stage gan .GanCls. offers'):
        explore(Run.open(trained)['gan'], 'attributes')


def test_one_latent_has_no_layers(on_shapes):
    config = on_shapes('attribute2image_shapes')
    assert tuple(offered(Run(config)['vae'].nominal)) == ALL
    config.stages.vae.model.layered = False
    plain = offered(Run(config)['vae'].nominal)
    assert tuple(plain) == ('attributes', 'reconstruction', 'completion')
