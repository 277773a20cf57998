"""What every stage of every system keeps to: one compiled training step and one compiled `sample` a
stage.

Stages are found in t2i_jax/systems. A new system is tested here without a word about it; its own
test file has formulas, sizes and published facts.
"""

import contextlib
import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import (
    SYSTEMS,
    batch_for,
    bit_equal,
    experiment_of,
    filled,
    get_config,
    layers,
    moved,
    names_in,
    shapes_of,
    start,
)

from t2i_jax import config as settings
from t2i_jax import stage as core
from t2i_jax.data.conditions import CONDITIONS
from t2i_jax.draw.outputs import OUTPUTS
from t2i_jax.run import Run
from t2i_jax.runtime.checkpoint import Checkpoints

B = 4


def behaviour(cls):
    """All that a stage does in training, as far as its class says it: equal for equal stages."""
    names = (name for name in dir(cls) if name[0] != '_' or name == '__init__')
    found = {name: inspect.getattr_static(cls, name) for name in names}
    return tuple(
        (name, inspect.unwrap(getattr(value, '__func__', value)).__qualname__)
        if callable(getattr(value, '__func__', value))
        else (name, repr(value))
        for name, value in found.items()
        if name not in ('skip', 'check')
    )


def stages():
    """'system.stage' of every stage, those that several systems share once."""
    found = {}
    for system in SYSTEMS:
        for name, cls in settings.system(system).STAGES.items():
            found.setdefault(behaviour(cls), f'{system}.{name}')
    return sorted(found.values())


STAGES = stages()
KEY = jax.random.key(0)


class Trial(NamedTuple):
    """A stage of few channels, its compiled step, and its state before and after some steps."""

    stage: Any
    module: Any
    program: core.Program
    step: Any
    batch: dict
    before: core.State
    after: core.State
    metrics: list[dict]


def config_of(system):
    """The tiny config of a system, in which all its stages are trained."""
    config = get_config(experiment_of(system), 'tiny').unlock()
    for block in config.stages.values():
        block.update(batch_size=B)
        if not block.steps and not block.epochs:
            block.steps = 1
    return config.lock()


def opened(path, **changes):
    """(stage of a run, its Meta, its parts as shapes) by 'system.stage'."""
    system, name = path.split('.')
    config = config_of(system).unlock()
    config.update(changes)
    stage = Run(config.lock())[name]
    meta = stage.nominal_meta
    return stage, meta, shapes_of(lambda: stage.build(meta, 0))


@pytest.fixture(scope='module', params=STAGES)
def trial(request):
    """Steps until each phase has run, from weights drawn by numpy."""
    stage, meta, shapes = opened(request.param)
    parts = filled(shapes)
    module = nnx.merge(*parts)
    program, before = start(parts)
    batch, metrics, after = batch_for(module.needs, meta, B), [], before
    step = jax.jit(functools.partial(core.train_step, program))
    for _ in range(max([phase.every for phase in program.phases], default=0)):
        after, logs = step(after, batch)
        metrics.append(jax.device_get(logs))
    return Trial(stage, module, program, step, batch, before, after, metrics)


def trained(program):
    return {name for phase in program.phases for name in phase.trains}


# ---------------------------------------------------------------------------------- a training step
def test_a_step_moves_what_is_trained_and_nothing_else(trial):
    before, after, names = trial.before, trial.after, trained(trial.program)
    assert after.bad_step == -1 and after.step == len(trial.metrics)
    assert moved(before.params, after.params) == names & set(before.params)
    running = {name for name in names if jax.tree.leaves(before.stats.get(name))}
    assert moved(before.stats, after.stats) == running
    assert moved(before.ema, after.ema) == set(before.ema) == set(trial.program.ema)
    assert names_in(after.opt) & set(before.params) == names & set(before.params)
    assert jax.tree.structure(after) == jax.tree.structure(before)


def test_every_layer_of_a_trained_network_learns(trial):
    before, after = (
        layers(core.pick(state.params, trained(trial.program)))
        for state in (trial.before, trial.after)
    )
    assert moved(before, after) == set(before)


def test_networks_that_are_loaded_are_frozen(trial):
    loaded = set(trial.stage.cls.loads)
    assert not loaded & trained(trial.program) and not loaded & set(trial.program.ema)
    for keyword, (earlier, _) in trial.stage.cls.loaded().items():
        names = list(trial.stage.run.classes)
        assert names.index(earlier) < names.index(trial.stage.name), keyword


def test_every_phase_reports_its_loss_and_all_numbers_are_finite(trial):
    assert {phase.loss for phase in trial.program.phases} <= set(trial.metrics[0])
    for step, logs in enumerate(trial.metrics):
        for phase in trial.program.phases:
            assert np.isfinite(logs[phase.loss]) == (step % phase.every == phase.at)
    for name in trial.metrics[0]:
        values = np.array([logs[name] for logs in trial.metrics])
        assert values.shape == (len(trial.metrics),) and np.isfinite(values).any(), name
    assert all(
        np.isfinite(x).all() for x in jax.tree.leaves((trial.after.params, trial.after.stats))
    )


def test_a_saved_state_comes_back_bit_by_bit(trial, tmp_path):
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), trial.after
    )
    with contextlib.closing(Checkpoints(tmp_path)) as saved:
        saved.save(1, trial.after, {}, wait=True)
        step, state, _ = saved.restore(shapes)
    assert step == 1 and bit_equal(state, trial.after)


@pytest.mark.slow
def test_the_step_can_be_compiled_for_accelerators(trial):
    """Up to where one is needed: what only a CPU can run is refused."""
    exported = jax.export.export(trial.step, platforms=['tpu', 'cuda'])(trial.before, trial.batch)
    assert exported.platforms == ('tpu', 'cuda')


@pytest.mark.parametrize('trial_of', STAGES)
def test_in_bfloat16_what_is_kept_stays_float32(trial_of):
    _, meta, (graph, params, stats) = opened(trial_of, dtype='bfloat16')
    module = nnx.merge(graph, params, stats)

    def step(params, stats, batch):
        program = core.program(module, start_txs(module))
        return core.train_step(program, core.init_state(program, params, stats, 0), batch)

    state, metrics = jax.eval_shape(step, params, stats, batch_for(module.needs, meta, B))
    kinds = {x.dtype.name for x in jax.tree.leaves(state)}
    assert kinds <= {'float32', 'int32', 'uint32'}
    assert {x.dtype.name for x in jax.tree.leaves(metrics)} <= {'float32', 'int32'}
    layers = [m for _, m in nnx.iter_modules(module) if hasattr(m, 'param_dtype')]
    assert {jnp.dtype(layer.dtype).name for layer in layers} <= {'bfloat16'}


def start_txs(module):
    import optax

    return [optax.adam(1e-3)] * len(module.phases)


# ------------------------------------------------------------------------------------------ samples
def in_unit_square(boxes):
    return (boxes[..., :2] > -1e-6).all() and (boxes <= 1 + 1e-6).all()


def check_image(out, meta):
    assert out['image'].shape == (B, meta.size, meta.size, 3)
    assert out['image'].dtype == jnp.float32
    # a sum of two layers, which the paper does not bound, may be brighter than white
    assert 'background' in out or np.abs(out['image']).max() <= 1


def check_images(out, meta):
    sides = [x.shape[1] for x in out['images']]
    assert sides == sorted(sides) and sides[-1] == meta.size
    assert all(
        x.shape == (B, s, s, 3) and np.abs(x).max() <= 1 for s, x in zip(sides, out['images'])
    )
    assert bit_equal(out['images'][-1], out['image'])


def check_boxes(out, meta):
    boxes, labels = out['boxes'], out['object_labels']
    assert boxes.shape == (B, meta.max_objects, 4) and labels.shape == (B, meta.max_objects)
    assert in_unit_square(boxes) and labels.dtype == jnp.int32
    assert labels.min() >= -1 and labels.max() < meta.object_classes


def check_masks(out, meta):
    assert out['masks'].shape[:2] == (B, meta.max_objects)
    assert out['masks'].min() >= 0 and out['masks'].max() <= 1


def check_attention(out, meta):
    for maps in out['attention']:
        assert maps.ndim == 4 and maps.shape[0] == B and maps.shape[3] == meta.length
        np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-4)


def check_object_attention(out, meta):
    maps, there = out['object_attention'], (out['object_labels'] >= 0).any(1)
    assert maps.shape[0] == B and maps.shape[3] == meta.length
    # off all objects 0, elsewhere between 0 and 1
    total = maps.sum(-1)
    assert total.min() >= 0 and total.max() <= 1 + 1e-4 and (total[~there] == 0).all()


def check_tokens(out, meta):
    assert out['tokens'].shape[0] == B and out['tokens'].max() < meta.vocabulary_size


# an output without a row here fails `test_samples_are_what_the_stage_declares`
CHECKS = {
    'image': check_image,
    'images': check_images,
    'boxes': check_boxes,
    'masks': check_masks,
    'attention': check_attention,
    'object_attention': check_object_attention,
    'tokens': check_tokens,
}


def test_declarations_are_words_of_the_tables(trial):
    module, cls = trial.module, trial.stage.cls
    assert set(module.makes) <= set(OUTPUTS) and set(module.draws_from) <= set(CONDITIONS)
    assert set(cls.judges) <= set(trial.stage.run.classes)
    assert all(callable(getattr(module, method)) for method in cls.explores.values())
    if module.makes and 'codes' not in module.makes:
        assert any(CHECKS[name] for name in module.makes)


def conditions_of(trial):
    """The batch keys that carry what the stage draws from, those of training where it has them."""
    found = {}
    for name in trial.module.draws_from:
        keys = CONDITIONS[name].keys
        own = {key: trial.batch[key] for key in keys if key in trial.batch}
        found |= own or {keys[0]: batch_for(keys[:1], trial.stage.nominal_meta, B)[keys[0]]}
    return found


def test_samples_are_what_the_stage_declares_and_depend_on_their_own_row(trial):
    """Shapes and range by `makes`; other rows 2 and 3 leave rows 0 and 1 as they are."""
    module, state, meta = trial.module, trial.after, trial.stage.nominal_meta
    if not module.makes or 'codes' in module.makes:
        pytest.skip('makes no samples')
    noise = module.noise(KEY, B)
    few = module.noise(KEY, 2)
    assert all(bit_equal(few[name], noise[name][:2]) for name in noise)
    draw = jax.jit(functools.partial(core.apply, trial.program, 'sample'))
    params, stats = state.weights(module.critics)
    batch = conditions_of(trial)
    out = draw(params, stats, batch, noise)
    assert set(module.makes) <= set(out)
    for name in module.makes:
        CHECKS[name](out, meta)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(out))

    mixed = {name: x.at[2:].set(x[:2]) for name, x in noise.items()}
    others = {name: jnp.asarray(x).at[2:].set(x[:2]) for name, x in batch.items()}
    again = draw(params, stats, others, mixed)
    assert jax.tree.all(jax.tree.map(lambda a, b: bit_equal(a[:2], b[:2]), out, again))
    # and the noise of a row does matter
    assert not bit_equal(jax.tree.map(lambda x: x[2:], out), jax.tree.map(lambda x: x[2:], again))


def test_a_sentence_may_come_encoded(trial):
    """The same shapes as from words, so that points between two sentences can be drawn."""
    module, state = trial.module, trial.after
    if 'sentence' not in module.draws_from or not module.makes:
        pytest.skip('draws without sentences')
    noise = jax.eval_shape(lambda: module.noise(KEY, B))

    def both(params, stats, batch, noise):
        encoded = core.apply(trial.program, 'encode', params, stats, batch)
        draw = functools.partial(core.apply, trial.program, 'sample', params, stats)
        return draw(batch, noise), draw({'encoded': encoded}, noise), encoded

    weights = state.weights(module.critics)
    plain, encoded, codes = jax.eval_shape(both, *weights, trial.batch, noise)
    assert plain == encoded and {x.shape[0] for x in jax.tree.leaves(codes)} == {B}


def test_measures_are_a_number_of_each_record(trial):
    if type(trial.module).measure is core.Stage.measure:
        pytest.skip('measures nothing')
    state = trial.after
    measure = functools.partial(core.apply, trial.program, 'measure')
    found = jax.eval_shape(measure, *state.weights(trial.module.critics), trial.batch, KEY)
    assert found and all((x.shape, x.dtype) == ((B,), jnp.float32) for x in found.values())


def test_codes_of_pictures_and_sentences_can_be_compared(trial):
    if 'codes' not in trial.module.makes:
        pytest.skip('compares nothing')
    state = trial.after
    codes = functools.partial(core.apply, trial.program, 'codes')
    found = jax.eval_shape(codes, *state.weights(trial.module.critics), trial.batch)
    assert found.code.shape == found.sentence.shape and found.code.shape[0] == B
