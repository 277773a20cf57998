"""Every experiment: its sizes can be told without data, its tiny variant trains, saves and draws on shape scenes."""
import importlib
import json
import pathlib
import re

import jax
import numpy as np
import pytest

from t2i_jax import run
from t2i_jax import stage as core
from t2i_jax.errors import RunError
from t2i_jax.sample import Sampler
from t2i_jax.train import train

FOLDER = pathlib.Path(__file__).parents[1] / 'experiments'
EXPERIMENTS = sorted(path.stem for path in FOLDER.glob('*.py') if path.stem not in ('__init__', 'common'))


def get_config(experiment, variant=''):
    return importlib.import_module(f'experiments.{experiment}').get_config(variant)


def variants(experiment):
    with pytest.raises(RunError) as error:
        get_config(experiment, '?')
    return ['', *re.search(r'It has: (.*)\.', str(error.value)).group(1).split(', ')]


@pytest.mark.parametrize('experiment', EXPERIMENTS)
def test_describe_needs_no_data_and_no_memory(experiment):
    assert 'tiny' in variants(experiment)
    for variant in variants(experiment):
        config = get_config(experiment, variant).lock()
        told = run.describe(config)
        for name in run.stage_names(config):
            assert f'stage {name}:' in told
            for phase in run.system(config.system).STAGES[name].phases:
                assert f'{phase.loss}: trains {", ".join(phase.trains)}' in told
        assert run.to_json(config)                                         # nothing in it that JSON cannot hold


@pytest.mark.parametrize('experiment', EXPERIMENTS)
def test_a_few_steps_and_a_few_pictures(experiment, on_shapes, tmp_path):
    config = on_shapes(experiment)
    for block in config.stages.values():
        block.update(steps=2, log_every=1, validate_every=2, validate_batches=1, sample_every=2, checkpoint_every=2)
    train(config.lock(), tmp_path, jax.devices()[:1])

    stages = run.system(config.system).STAGES
    for name in run.stage_names(config):
        lines = [json.loads(line) for line in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()]
        values = {key: value for line in lines for key, value in line.items()}
        assert np.isfinite([value for line in lines for value in line.values()]).all()
        for phase in run.restore(config, tmp_path, name)[2].phases:
            assert f'train/{phase.loss}' in values and f'validation/{phase.loss}' in values
    drawing = [name for name in run.stage_names(config) if stages[name].sample is not core.Stage.sample]
    if drawing:
        sampler = Sampler.load(tmp_path, chunk=4)
        sentences = ['a large circle', 'a small blue square'] if sampler.reads_text or sampler.reads else None
        out = sampler(sentences, num=2)
        assert sampler.stage == drawing[-1] and sampler.step == 2
        assert 'image' in out or 'boxes' in out
        if 'boxes' in out:
            assert set(out['object_labels'][0].ravel()) == {-1, 0} and set(out['object_labels'][1].ravel()) == {-1, 1}
            assert (out['boxes'][:, 0] != out['boxes'][:, 1]).any((1, 2)).all() and (out['boxes'] >= 0).all() and (out['boxes'] <= 1).all()
        if 'image' in out:
            size = sampler.meta.size
            assert out['image'].shape == (len(sentences or [0]), 2, size, size, 3) and out['image'].dtype == np.uint8
            assert (out['image'][:, 0] != out['image'][:, 1]).any((1, 2, 3)).all()
        assert (tmp_path / drawing[-1] / 'samples' / '00000002.png').exists()


def test_published_sizes():
    told = run.describe(get_config('gan_cls_flowers'))
    for network, count in (('gan.G', '18,905,472'), ('gan.D', '4,030,080')):
        assert re.search(rf'^{network} +{count} +trained$', told, re.MULTILINE)
    assert re.search(r'^gan.text +[\d,]+ +frozen$', told, re.MULTILINE)
