"""Every experiment: each variant is a complete config, sizes are known without data, a tiny run
trains and draws.

What each stage must keep to is in test_contract.py. Here experiments meet data: one run a system in
the default suite (`run_of`), the steps of all experiments with `slow`.
"""

import json
import re

import jax
import jax.export
import numpy as np
import pytest
from helpers import EXPERIMENTS, SYSTEMS, brief, experiment_of, get_config, lines

from t2i_jax import config as settings
from t2i_jax.run import Run, describe
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import RunError
from t2i_jax.runtime.signals import Signals
from t2i_jax.sample import Sampler
from t2i_jax.train import Trainer, train

# on other data than the experiment of their system on shape_scenes/single, or of another kind
OTHER_KINDS = 'stackgan_coco', 'layout_vae_rules', 'stackgan_pp_uncond_shapes'


def variants(experiment):
    with pytest.raises(RunError) as error:
        get_config(experiment, '?')
    return ['', *re.search(r'It has: (.*)\.', str(error.value)).group(1).split(', ')]


# ------------------------------------------------------------------------------------- without data
@pytest.mark.parametrize('experiment', EXPERIMENTS)
def test_every_variant_is_a_complete_config(experiment):
    assert 'tiny' in variants(experiment)
    for variant in variants(experiment):
        config = get_config(experiment, variant)
        settings.check(config)
        assert json.loads(settings.to_json(config))['system'] == config.system
        assert set(Run(config).names) <= set(config.stages)


def check_description(config):
    text = describe(config)
    for stage in Run(config).stages:
        assert f'stage {stage.name}:' in text
        for phase in stage.nominal.phases:
            assert f'{phase.loss}: trains {", ".join(phase.trains)}' in text


@pytest.mark.parametrize('system', SYSTEMS)
def test_describe_needs_no_data_and_no_memory(system):
    check_description(get_config(experiment_of(system)))


@pytest.mark.slow
@pytest.mark.parametrize('experiment', EXPERIMENTS)
def test_describe_of_every_variant(experiment):
    for variant in variants(experiment):
        check_description(get_config(experiment, variant))


def test_published_sizes():
    text = describe(get_config('gan_cls_flowers'))
    for network, count in (('gan.G', '18,905,472'), ('gan.D', '4,030,080')):
        assert re.search(rf'^{network} +{count} +trained$', text, re.MULTILINE)
    assert re.search(r'^gan.text +[\d,]+ +frozen$', text, re.MULTILINE)


# --------------------------------------------------------------------------------------- a tiny run
def check_run(workdir, tmp_path):
    """What two steps of each stage leave behind, and what the last stage draws."""
    run = Run.open(workdir)
    for stage in run.stages:
        found = lines(workdir, stage.name)
        values = {key: value for line in found for key, value in line.items()}
        assert np.isfinite([value for line in found for value in line.values()]).all()
        for phase in stage.module.phases:
            assert {f'train/{phase.loss}', f'validation/{phase.loss}'} <= set(values)
    drawing = [
        stage for stage in run.stages if stage.makes_any(('image', 'boxes', 'masks', 'tokens'))
    ]
    if not drawing:
        return
    sampler = Sampler(drawing[-1], chunk=4)
    step = sampler.step
    assert step == drawing[-1].block.steps
    assert (workdir / drawing[-1].name / 'samples' / f'{step:08d}.png').exists()
    sentences = ['a large circle', 'a small blue square'] if sampler.draws_from else None
    out = sampler(sentences, num=2)
    n = len(sentences or [0])
    if 'boxes' in out:
        labels = out['object_labels']
        if 'labels' in sampler.draws_from:
            assert set(labels[0].ravel()) == {-1, 0} and set(labels[1].ravel()) == {-1, 1}
        assert (out['boxes'] >= 0).all() and (out['boxes'] <= 1).all()
        assert (out['boxes'][:, 0] != out['boxes'][:, 1]).any((1, 2)).all()
    if 'image' in out:
        size = sampler.meta.size
        assert out['image'].shape == (n, 2, size, size, 3) and out['image'].dtype == np.uint8
        assert (out['image'][:, 0] != out['image'][:, 1]).any((1, 2, 3)).all()


@pytest.mark.parametrize('system', SYSTEMS)
def test_a_few_steps_and_a_few_pictures(system, run_of, tmp_path):
    check_run(run_of(system), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('experiment', OTHER_KINDS)
def test_a_few_steps_and_a_few_pictures_of_other_kinds(experiment, on_shapes, tmp_path):
    config = brief(on_shapes(experiment)).lock()
    train(Run.create(config, tmp_path), jax.devices()[:1])
    check_run(tmp_path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('experiment', EXPERIMENTS)
def test_a_step_fits_its_data_and_other_platforms(experiment, on_shapes, tmp_path):
    """Traced and not compiled; `jax.export` refuses what only a CPU can run."""
    run = Run.create(on_shapes(experiment).lock(), tmp_path)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    for stage in run.stages:
        trainer = Trainer(stage, mesh, Signals())
        trainer.open_data()
        trainer.open_model()
        rows = next(trainer.feed.batches(0, trainer.together, trainer.together))
        step = jax.export.export(trainer.compiled.step, platforms=['tpu'])
        exported = step(trainer.shapes, trainer.feed.tables, rows)
        assert exported.platforms == ('tpu',)
        state, logs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
        before, after = (
            jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (trainer.shapes, state)
        )
        assert before == after
        assert {phase.loss for phase in trainer.program.phases} <= set(logs)
        assert all(x.shape in ((), (trainer.together,)) for x in logs.values())
