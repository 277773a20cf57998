"""A stage that begins with the weights of the same stage of another run."""

import json

import jax
import numpy as np
import pytest
from helpers import bit_equal

from t2i_jax.export import export
from t2i_jax.run import Run
from t2i_jax.runtime.errors import RunError
from t2i_jax.sample import DRAWN, Sampler
from t2i_jax.train import train


@pytest.fixture
def fine(tiny, trained):
    """A function: the run to begin with, settings of the GAN -> the config of a fine-tuned run."""

    def make(other, **gan):
        config = tiny(gan=dict(init_from=str(other), steps=1, **gan)).unlock()
        config.init.text = str(trained)
        return config.lock()

    return make


def test_a_stage_trains_on_from_other_weights(fine, trained, tmp_path, capsys):
    run = Run.create(fine(trained), tmp_path / 'run')
    first = []
    train(run, jax.devices()[:1], on_samples=lambda *grid: first.append(grid))
    assert 'Stage gan: begins with step 6 of' in capsys.readouterr().out
    assert run.vocabulary == Run.open(trained).vocabulary
    # the grid before the first step is that of the other run's averages
    assert first[0][1] == 0
    sentences = ['a red ring']
    own, other = (Sampler.load(x)(sentences, num=2).images for x in (run, trained))
    moved = np.abs(np.int32(own) - other).mean()
    fresh = Sampler.load(run, step=None)
    assert moved < 20 and not bit_equal(fresh.params['G'], Sampler.load(trained).params['G'])


def test_an_exported_folder_has_no_discriminator_to_begin_with(fine, trained, tmp_path):
    folder = export(Run.open(trained).last(DRAWN), tmp_path / 'model')
    run = Run.create(fine(folder), tmp_path / 'run')
    fresh = run['gan'].fresh_state
    run['gan'].write_meta(Run.open(trained)['gan'].meta)
    run.vocabulary = Run.open(trained).vocabulary
    state = fresh(run['gan'].program())()
    params, stats = run['gan'].first_weights(state, jax.local_devices()[0])
    assert 'D' not in params and bit_equal(params['G'], Sampler.load(trained).params['G'])


def test_other_sizes_are_refused_by_name(fine, trained, tmp_path):
    run = Run.create(fine(trained, model=dict(ngf=8)), tmp_path / 'run')
    with pytest.raises(RunError, match=r'params G/.*of shape .* has the shape .* here'):
        train(run, jax.devices()[:1])
    gone = Run.create(fine(tmp_path / 'nowhere'), tmp_path / 'other')
    with pytest.raises(RunError, match='nowhere'):
        train(gone, jax.devices()[:1])
    assert not json.loads((tmp_path / 'run/config.json').read_text())['init']['gan']
