"""Every experiment: its sizes can be told without data, its tiny variant trains, saves and draws on shape scenes, its step can be compiled for a TPU."""

import importlib
import json
import pathlib
import re

import jax
import jax.export
import numpy as np
import pytest
from helpers import restored

from benchmarks import devices
from t2i_jax import config as settings
from t2i_jax import stage as core
from t2i_jax.run import Run, describe
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import RunError
from t2i_jax.runtime.signals import Signals
from t2i_jax.sample import Sampler
from t2i_jax.train import Trainer, train

FOLDER = pathlib.Path(__file__).parents[1] / 'experiments'
OTHER_KINDS = 'stackgan_coco', 'layout_vae_rules', 'stackgan_pp_uncond_shapes'
EXPERIMENTS = sorted(
    path.stem for path in FOLDER.glob('*.py') if path.stem not in ('__init__', 'common')
)


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
        told = describe(config)
        for name in Run(config).names:
            assert f'stage {name}:' in told
            for phase in settings.system(config.system).STAGES[name].phases:
                assert f'{phase.loss}: trains {", ".join(phase.trains)}' in told
        assert settings.to_json(config)  # nothing in it that JSON cannot hold


def representative(experiment):
    """Whether its steps are run: one experiment of each system, that on shape scenes where there is one, and those of another kind."""
    system = get_config(experiment).system
    own = [name for name in EXPERIMENTS if get_config(name).system == system]
    return experiment in {
        next((name for name in own if name.endswith('_shapes')), own[0]),
        *OTHER_KINDS,
    }


def lowered_for_tpu(trainer):
    """The step of a trainer as a program for TPUs, up to where a TPU is needed: jax.export refuses what only a CPU can run."""
    exported = jax.export.export(trainer.step, platforms=['tpu'])(
        trainer.shapes, trainer.tables, devices.rows(trainer)
    )
    assert exported.platforms == ('tpu',)
    return jax.tree.unflatten(exported.out_tree, exported.out_avals)


@pytest.mark.parametrize('experiment', [name for name in EXPERIMENTS if not representative(name)])
def test_a_step_fits_its_data(experiment, on_shapes, tmp_path):
    """Traced and not compiled, which takes most of the time of a short run."""
    config, mesh = on_shapes(experiment).lock(), sharding.make_mesh(devices=jax.devices()[:1])
    for name in Run(config).names:
        trainer = Trainer(config, tmp_path, name, mesh, Signals())
        trainer.open_data()
        trainer.open_model()
        state, logs = lowered_for_tpu(trainer)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
            lambda x: (x.shape, x.dtype), trainer.shapes
        )
        assert {phase.loss for phase in trainer.prog.phases} <= set(logs) and all(
            x.shape in ((), (trainer.together,)) for x in logs.values()
        )


@pytest.mark.parametrize('experiment', [name for name in EXPERIMENTS if representative(name)])
def test_a_few_steps_and_a_few_pictures(experiment, on_shapes, tmp_path, monkeypatch):
    config, loop = on_shapes(experiment), Trainer.loop

    def loop_then_lower(self, *args):
        loop(self, *args)
        lowered_for_tpu(self)  # here, because it has been traced

    monkeypatch.setattr(Trainer, 'loop', loop_then_lower)
    for name in Run(config).names:
        config.stages[name].update(
            steps=2,
            steps_per_dispatch=1,
            log_every=1,
            validate_every=2,
            validate_batches=1,
            sample_every=2,
            checkpoint_every=2,
        )
    train(Run(config.lock(), tmp_path), jax.devices()[:1])

    stages = settings.system(config.system).STAGES
    for name in Run(config).names:
        lines = [
            json.loads(line)
            for line in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()
        ]
        values = {key: value for line in lines for key, value in line.items()}
        assert np.isfinite([value for line in lines for value in line.values()]).all()
        for phase in restored(config, tmp_path, name)[2].phases:
            assert f'train/{phase.loss}' in values and f'validation/{phase.loss}' in values
    drawing = [name for name in Run(config).names if stages[name].sample is not core.Stage.sample]
    if drawing:
        sampler, asked = Sampler.load(tmp_path, chunk=4), []
        apply = sampler._apply
        sampler._apply = lambda *args: asked.append(args) or apply(*args)
        sentences = (
            ['a large circle', 'a small blue square']
            if sampler.reads_text or sampler.reads
            else None
        )
        out = sampler(sentences, num=2)
        assert jax.export.export(apply, platforms=['tpu'])(*asked[0]).platforms == ('tpu',)
        assert sampler.stage == drawing[-1] and sampler.step == 2
        assert 'image' in out or 'boxes' in out
        if 'boxes' in out:
            assert set(out['object_labels'][0].ravel()) == {-1, 0} and set(
                out['object_labels'][1].ravel()
            ) == {-1, 1}
            assert (
                (out['boxes'][:, 0] != out['boxes'][:, 1]).any((1, 2)).all()
                and (out['boxes'] >= 0).all()
                and (out['boxes'] <= 1).all()
            )
        if 'image' in out:
            size = sampler.meta.size
            assert (
                out['image'].shape == (len(sentences or [0]), 2, size, size, 3)
                and out['image'].dtype == np.uint8
            )
            assert (out['image'][:, 0] != out['image'][:, 1]).any((1, 2, 3)).all()
        assert (tmp_path / drawing[-1] / 'samples' / '00000002.png').exists()


def test_published_sizes():
    told = describe(get_config('gan_cls_flowers'))
    for network, count in (('gan.G', '18,905,472'), ('gan.D', '4,030,080')):
        assert re.search(rf'^{network} +{count} +trained$', told, re.MULTILINE)
    assert re.search(r'^gan.text +[\d,]+ +frozen$', told, re.MULTILINE)
