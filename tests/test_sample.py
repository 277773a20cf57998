"""The same words and the same seed give the same picture, whatever else is drawn with them."""
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import bit_equal

from t2i_jax import run
from t2i_jax.errors import DataError, RunError
from t2i_jax.sample import Sampler, to_uint8
from t2i_jax.train import train


@pytest.fixture(scope='module')
def sampler(trained):
    return telling(Sampler.load(trained, chunk=6))


def telling(sampler):
    """A text encoder of four steps says nearly the same of all sentences; with larger weights it tells them apart."""
    sampler.params = {**sampler.params, 'text': jax.tree.map(lambda x: 20 * x, sampler.params['text'])}
    return sampler


@pytest.fixture(scope='module')
def wordless(dense, tmp_path_factory):
    """The workdir of a run whose system reads no words."""
    workdir = tmp_path_factory.mktemp('wordless')
    train(dense(steps=1), workdir, jax.devices()[:1])
    return workdir


SENTENCES = ['a large circle', 'a small square', 'the picture is blue']


def test_a_seed_is_a_picture(sampler):
    images = sampler(SENTENCES, num=3, seed=5)['image']
    assert images.shape == (3, 3, 16, 16, 3) and images.dtype == np.uint8
    assert bit_equal(images, sampler(SENTENCES, num=3, seed=5)['image'])
    assert not bit_equal(images, sampler(SENTENCES, num=3, seed=6)['image'])
    assert len({image.tobytes() for image in images.reshape(9, 16, 16, 3)}) == 9


def test_a_picture_does_not_depend_on_what_is_drawn_with_it(sampler):
    images = sampler(SENTENCES, num=3, seed=5)['image']
    assert bit_equal(sampler(SENTENCES[1], num=3, seed=5)['image'][0], images[1])          # one sentence may stand alone
    assert bit_equal(sampler(SENTENCES[::-1], num=3, seed=5)['image'], images[::-1])
    assert bit_equal(sampler(SENTENCES, num=1, seed=5)['image'], images[:, :1])
    assert bit_equal(sampler(SENTENCES, num=7, seed=5)['image'][:, :3], images)


def test_chunks_do_not_matter(sampler, trained):
    images = sampler(SENTENCES, num=3)['image'].astype(int)
    for chunk in (1, 4, 64):
        other = telling(Sampler.load(trained, chunk=chunk))(SENTENCES, num=3)['image'].astype(int)
        assert np.abs(images - other).max() <= 1                           # rounding may depend on the number of rows


def test_noise_may_be_given(sampler):
    noise = sampler.module.noise(jax.random.key(5), 3)
    tiled = {name: np.tile(x, (3, 1)) for name, x in noise.items()}
    assert bit_equal(sampler(SENTENCES, num=3, noise=tiled), sampler(SENTENCES, num=3, seed=5))
    still = sampler(SENTENCES, num=2, noise={name: np.zeros((6, *x.shape[1:]), np.float32) for name, x in noise.items()})['image']
    assert bit_equal(still[:, 0], still[:, 1])


def test_the_newest_averages_draw_unless_another_step_is_named(sampler, tiny, trained):
    state = run.restore(tiny(), trained, 'gan')[1]
    assert (sampler.stage, sampler.step) == ('gan', 6) and bit_equal(sampler.params['G'], state.ema['G'])
    older = Sampler.load(trained, step=3)
    assert older.step == 3 and bit_equal(older.params['G'], run.restore(tiny(), trained, 'gan', 3)[1].ema['G'])
    with pytest.raises(RunError, match=r'no checkpoint of step 4. It has: 3, 6'):
        Sampler.load(trained, step=4)


def test_unknown_words_are_named_and_left_out(sampler, caplog):
    with caplog.at_level(logging.WARNING):
        sampler(['a purple circle with wings'], num=1)
    assert 'purple' in caplog.text and 'wings' in caplog.text and 'circle' not in caplog.text.split('does not know')[1]


@pytest.mark.parametrize('keywords, words', [
    (dict(sentences=[]), 'Give at least one'), (dict(sentences=['']), 'has no words'), (dict(sentences=['zebra']), 'no word of sentence 1'),
    (dict(), 'draws from sentences'), (dict(sentences=SENTENCES, num=0), 'at least one sample'),
])
def test_what_cannot_be_drawn(sampler, keywords, words):
    with pytest.raises(DataError, match=words):
        sampler(**keywords)


def test_a_system_without_words(wordless):
    sampler = Sampler.load(wordless)
    images = sampler(num=5)['image']
    assert images.shape == (1, 5, 16, 16, 3) and bit_equal(images[:, :2], sampler(num=2)['image'])
    with pytest.raises(DataError, match='draws without sentences'):
        sampler(['a circle'])


def test_a_run_without_a_checkpoint(trained, tmp_path):
    with pytest.raises(RunError, match='holds no run'):
        Sampler.load(tmp_path)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / 'gan' / 'checkpoints')
    with pytest.raises(RunError, match='no finished checkpoint of gan'):
        Sampler.load(tmp_path)
    (tmp_path / 'gan' / 'checkpoints').mkdir(parents=True)
    for step in (None, 3):
        with pytest.raises(RunError, match='no finished checkpoint'):
            Sampler.load(tmp_path, step=step)


def test_a_damaged_checkpoint_is_passed_over(trained, tmp_path, caplog):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / 'gan' / 'checkpoints' / '6' / 'state')
    assert Sampler.load(tmp_path).step == 3 and 'step 6' in caplog.text


def test_pictures_are_rounded_and_cut():
    assert to_uint8(jnp.array([-1, 1, 0, -2, 2, -1 + 1 / 127.5])).tolist() == [0, 255, 128, 0, 255, 1]
    assert [x.dtype for x in to_uint8([jnp.zeros(2), jnp.zeros(3, jnp.bfloat16)])] == [np.uint8] * 2
