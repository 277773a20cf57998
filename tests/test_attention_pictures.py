"""Attention drawn over pictures, and how much of it lies on the objects that words name."""

import json
import sys
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import sampler_of

from t2i_jax import sample
from t2i_jax import stage as core
from t2i_jax.data.text import Vocabulary
from t2i_jax.draw import attention as ap
from t2i_jax.draw import sheets
from t2i_jax.explore import explore, stage_of
from t2i_jax.explore.request import Request
from t2i_jax.run import Run
from t2i_jax.runtime.errors import RunError
from t2i_jax.sample import to_files
from t2i_jax.scenes import attention as looks
from t2i_jax.stage import Meta
from tfds_builders.shape_scenes import render
from tfds_builders.shape_scenes.scenes import CLASS, COLOUR

SIDE, LENGTH = 16, 5
VOCABULARY = Vocabulary(['a', 'red', 'blue', 'circle', 'square', 'dot'])


class Looking(core.Stage):
    """Grey pictures whose left half looks at the second word and whose right half at the first.

    On two maps.
    """

    needs, draws_from, makes = ('tokens', 'length'), ('sentence',), ('image', 'attention')

    def __init__(self):
        self.grey = nnx.Param(jnp.zeros(()))

    def noise(self, key, n):
        return {'z': core.normal_rows(key, n, (3,))}

    def sample(self, batch, noise):
        b, left = len(batch['tokens']), jnp.arange(8)[:, None] < 4
        beta = jnp.where(left, jax.nn.one_hot(1, LENGTH), jax.nn.one_hot(0, LENGTH))  # w t
        beta = jnp.broadcast_to(beta, (b, 8, 8, LENGTH))
        colour = jnp.tanh(noise['z'])[:, None, None] + self.grey[...]
        twice = jnp.repeat(jnp.repeat(beta, 2, 1), 2, 2)
        image = jnp.broadcast_to(colour, (b, SIDE, SIDE, 3))
        return {'image': image, 'attention': [beta, twice]}


@pytest.fixture
def looking(monkeypatch):
    """A Sampler of Looking, which sampling and exploring take for that of its stage."""
    meta = Meta('shapes', size=SIDE, length=LENGTH, scenes='single')
    made = sampler_of(Looking(), meta, VOCABULARY)
    for module in (sample, sys.modules['t2i_jax.explore']):
        monkeypatch.setattr(module, 'Sampler', lambda stage: made)
    return made


def scene_of(*objects):
    """(class, colour, cx) of objects a quarter of the frame wide."""
    table = -np.ones((6, 8), np.int32)
    for i, (kind, colour, cx) in enumerate(objects):
        table[i] = kind, colour, 1, cx * 4096, 2048, 1024, 1024, i
    table[-1, 0] = 0
    return table


# ------------------------------------------------------------------------------------------ drawing
def test_the_strongest_words_are_those_above_twice_an_even_share():
    maps = np.zeros((4, 4, 4))
    maps[..., 0] = 0.45  # a little everywhere: never above 2 / 4
    maps[:2, :, 1], maps[2:, :, 2] = 0.55, 0.55
    maps[2, 0, 1] = 0.5
    maps[3, 0, 3] = 0.9
    assert ap.strongest(maps).tolist() == [
        1,
        2,
        3,
        0,
    ]  # 1 and 2 have equal mass above the limit, 1 more in all
    assert ap.strongest(maps, 2).tolist() == [1, 2]
    assert ap.strongest(np.ones((2, 2, 1))).tolist() == [0]


def test_heat_lies_where_the_map_is():
    picture, heat = np.full((8, 8, 3), 100, np.uint8), np.zeros((4, 4))
    assert (ap.overlay(picture, heat) == picture).all()
    heat[:, :2] = 1
    seen = ap.overlay(picture, heat).astype(int)
    assert (
        seen.shape == (8, 8, 3) and (seen[:, 0] > 150).any(-1).all() and (seen[:, -1] == 100).all()
    )


def test_cells_have_one_size_and_rows_are_filled_up():
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    maps = [
        np.eye(2)[np.arange(64) % 2].reshape(8, 8, 2),
        np.eye(2)[np.arange(256) % 2].reshape(16, 16, 2),
    ]
    found = ap.rows(picture, ['red', 'circle'], maps, count=3)
    assert found.shape == (2, 4, ap.SIDE + ap.STRIP, ap.SIDE, 3) and found.dtype == np.uint8
    assert (found[:, 3] == 255).all() and (found[:, :3, ap.SIDE :] < 128).any(
        (2, 3, 4)
    ).all()  # a label beneath each
    assert (found[0, 1, : ap.SIDE] != found[0, 2, : ap.SIDE]).any()


# ---------------------------------------------------------------------------------------- measuring
def test_masks_are_of_what_can_be_seen():
    scene = scene_of(
        (1, 0, 0.25), (1, 2, 0.75), (0, 2, 0.25)
    )  # a red and a blue square, a blue circle over the red square
    whole = render.masks(scene, 128).mean((1, 2))
    assert looks.mask_of(scene, COLOUR, 2, 16).mean() == pytest.approx(
        whole[1] + whole[2], abs=1e-3
    )
    assert looks.mask_of(scene, COLOUR, 0, 16).mean() == pytest.approx(
        whole[0] - whole[2], abs=1e-3
    )
    assert (
        looks.mask_of(scene, CLASS, 1, 17)[:, 9:].sum() > 0
        and not looks.mask_of(scene, CLASS, 5, 16).any()
    )
    unknown = scene.copy()
    unknown[1, CLASS] = -1  # as decoded scenes have it
    assert looks.mask_of(unknown, COLOUR, 2, 16).mean() == pytest.approx(whole[2], abs=1e-3)


def test_mass_inside_the_named_object():
    scene = scene_of((1, 0, 0.25), (0, 2, 0.75))
    words = ['a', 'red', 'dot', 'ring']
    maps = np.full((2, 16, 16, 5), 0.2)
    maps[0, ..., 1] = looks.mask_of(scene, COLOUR, 0, 16) > 0.99  # looks at the red square alone
    found = looks.inside(maps, [words, words], [scene, scene])
    assert (
        set(found) == {'colour', 'class'} and found['colour']['n'] == 2 and found['class']['n'] == 2
    )  # there is no ring
    share = render.masks(scene, 128).mean((1, 2))
    assert found['colour']['inside'] == pytest.approx((1 + share[0]) / 2, abs=2e-3) and found[
        'colour'
    ]['share'] == pytest.approx(share[0], abs=1e-3)
    assert (
        found['class']['inside']
        == pytest.approx(found['class']['share'])
        == pytest.approx(share[1], abs=1e-3)
    )  # even
    assert (
        looks.named('red') == (COLOUR, 0)
        and looks.named('discs') == (CLASS, 0)
        and looks.named('shape') is looks.named('left') is looks.named('yonder') is None
    )
    assert looks.inside(maps, [['a'], []], [scene, scene]) == {}


# ----------------------------------------------------------------------------------------- sampling
def test_attention_is_returned_where_it_is_wanted(looking):
    sentences = ['a red circle', 'a blue dot']
    plain, full = looking(sentences, num=3), looking(sentences, num=3, attention=True)
    assert set(plain) == {'image'} and (plain['image'] == full['image']).all()
    assert [x.shape for x in full['attention']] == [(2, 3, 8, 8, LENGTH), (2, 3, 16, 16, LENGTH)]


def test_samples_have_a_picture_of_attention(looking, tmp_path, monkeypatch):
    written = []
    with monkeypatch.context() as patch:

        def spy(lines, labels, *args, **more):
            written.append((lines, labels, more))

        patch.setattr(sheets, 'sheet', spy)
        to_files(looking.stage, ['a red zebra circle', 'blue dot', 'a dot'], 5, 0, tmp_path)
    assert len(written) == 4
    lines, labels, more = written[0]
    assert len(lines) == ap.SAMPLES * 2
    assert labels == ['sample 1', '', 'sample 2', '', 'sample 3', '', 'sample 4', '']
    # the words that it knows
    assert more['title'] == 'a red circle'
    assert len(list(tmp_path.glob('*.png'))) == 3
    to_files(looking.stage, ['a red zebra circle'], 1, 0, tmp_path)
    picture = cv2.imread(str(tmp_path / '000_a-red-zebra-circle_attention.png'))
    assert picture.shape[0] > 2 * ap.SIDE and picture.shape[1] > 4 * ap.SIDE
    monkeypatch.setattr(sample, 'ATTENDED', 1)
    to_files(looking.stage, ['red', 'blue'], 1, 0, tmp_path / 'many')
    assert not list((tmp_path / 'many').glob('*attention*'))


# --------------------------------------------------------------------------------------- exploring
def test_explored_sentences(looking, tmp_path):
    texts = ['a red circle', 'blue dot']
    numbers = explore(looking.stage, 'attention', 3, texts=texts, out=tmp_path)
    assert numbers['rows'] == 2 * 3 * 2 and {'decoder', 'map_8', 'map_16'} <= set(numbers)
    assert json.loads((tmp_path / 'attention.json').read_text())['what'] == 'attention'
    assert cv2.imread(str(tmp_path / 'attention.png')).shape[0] > 12 * ap.SIDE


def test_words_of_drawn_objects_are_measured(looking, monkeypatch):
    # a red circle on the left, where pixels look at the second word
    scene = scene_of((0, 0, 0.25))
    reader = types.SimpleNamespace(
        decode=lambda images: np.stack([scene] * len(images)), tag={'name': 'given'}
    )
    module = sys.modules['t2i_jax.explore.attention']
    monkeypatch.setattr(module, 'best_reader', lambda mode: reader)
    request = Request(looking, 'attention', 1, texts=['circle red'])
    numbers = module.attention_sheet(request).numbers
    share = numbers['map_16']['colour']['share']
    assert numbers['decoder'] == 'given' and 0.02 < share < 0.07
    # half of the frame is looked at
    assert numbers['map_16']['colour']['inside'] == pytest.approx(2 * share, rel=1e-4)
    assert numbers['map_16']['class'] == {'inside': 0.0, 'share': pytest.approx(share), 'n': 1}


def test_stages_that_look_at_nothing_are_refused(looking, monkeypatch):
    monkeypatch.setattr(Looking, 'makes', ('image',))
    with pytest.raises(RunError, match='stages whose pixels look at words.*Stage toy .Looking.'):
        explore(looking.stage, 'attention', 1, texts=['red'])


@pytest.fixture(scope='module')
def matcher(run_of):
    """The stage of a DAMSM of two steps."""
    return Run.open(run_of('damsm'))['damsm']


def test_where_words_look_in_held_out_pictures(matcher, tmp_path):
    assert stage_of(matcher.run, 'attention').name == 'damsm'
    numbers = explore(matcher, 'attention', 4, out=tmp_path)
    # of captions of more than eight words there are more lines
    assert 4 <= numbers['rows'] <= 12 and (tmp_path / 'attention.png').exists()
    found = numbers['map_8']
    # of more than are shown
    assert found and all(one['n'] > 50 for one in found.values())
    assert all(0 <= one['inside'] <= 1 and 0 < one['share'] < 0.5 for one in found.values())
    with pytest.raises(RunError, match='leave --text out'):
        explore(matcher, 'attention', 4, texts=['a red circle'], out=tmp_path)
