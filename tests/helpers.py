"""Helpers of the tests, each once.

Small networks, batches of what a stage needs, comparisons of trees.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from t2i_jax import stage as core
from t2i_jax.data.text import encode_chars

ROOT = pathlib.Path(__file__).parents[1]
CLOCK = ('train/images_per_s', 'train/data_wait')
SENTENCES = (
    'a red bird with a short beak',
    'this flower has five white petals',
    'a blue bird',
    'a flower with a yellow centre',
)


# ------------------------------------------------------------------------------------------ trees
def bit_equal(a, b):
    """Whether two trees have the same leaves, NaN included."""
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(
        np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True) for x, y in zip(a, b)
    )


def moved(before, after):
    """The names of the networks that are not bit-equal."""
    return {name for name in before if not bit_equal(before[name], after[name])}


def without_logits(logs):
    """The logs of a loss but for D's mean answers."""
    return {name: x for name, x in logs.items() if not name.endswith('_logit')}


def count(tree):
    """The number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def layers(tree, path=''):
    """{path: arrays} of the layers of networks, by the names of attributes and places in lists."""
    found, own = {}, {name: x for name, x in tree.items() if not isinstance(x, dict)}
    if own:
        found[path] = own
    for name, part in tree.items():
        if isinstance(part, dict):
            found |= layers(part, f'{path}.{name}'.lstrip('.'))
    return found


def names_in(tree):
    """All dictionary keys on the paths of a tree, such as the networks of an optimiser state."""
    paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(tree))
    return {key.key for path in paths for key in path if isinstance(key, jax.tree_util.DictKey)}


# ----------------------------------------------------------------------------------------- stages
def shapes_of(make):
    """A stage as (structure, parameters, running statistics), all of them shapes without values."""
    return core.split(nnx.eval_shape(make))


def filled(split, scale=0.1, draws=None):
    """Shapes -> arrays, drawn by numpy because initialisers take long to compile.

    split: (structure, parameters, running statistics)
    scale: standard deviation of weights; scales and variances are 1, biases and means 0
    """
    draws = draws or np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key in ('scale', 'var'):
            return jnp.ones(leaf.shape)
        if path[-1].key in ('bias', 'mean'):
            return jnp.zeros(leaf.shape)
        return jnp.float32(draws.normal(0, scale, leaf.shape))

    graph, params, stats = split
    with_path = jax.tree_util.tree_map_with_path
    return core.Parts(graph, with_path(fill, params), with_path(fill, stats))


def start(split, lr=2e-4):
    """(program, state) of a stage before its first step, with Adam for every phase."""
    module = nnx.merge(*split)
    prog = core.program(module, [optax.adam(lr, b1=0.5)] * len(module.phases))
    return prog, core.init_state(prog, split[1], split[2], 0)


# ---------------------------------------------------------------------------------------- batches
def uniform(*shape, seed=0):
    """Numbers in [-1, 1], as pictures have them."""
    return jnp.float32(np.random.default_rng(seed).uniform(-1, 1, shape))


def batch_for(needs, meta, b=4, seed=0):
    """A batch of random arrays with the keys that a stage needs, in the shapes that `meta` says.

    Its `step` lies behind all warm-ups.
    """
    draws, batch = np.random.default_rng(seed), {'step': np.int32(100_000)}
    lengths = draws.integers(1, max(meta.length, 1) + 1, b).astype(np.int32)
    sides, centres = draws.uniform(0.1, 0.3, (2, b, meta.max_objects, 2))
    labels = draws.integers(0, max(meta.object_classes, 1), (b, meta.max_objects))
    labels[:, 2:] = -1

    def value(name):
        if name in ('image', 'images'):
            return draws.uniform(-1, 1, (b, meta.size, meta.size, 3)).astype(np.float32)
        if name == 'tokens':
            ids = draws.integers(1, meta.vocabulary_size, (b, meta.length))
            return np.where(np.arange(meta.length) < lengths[:, None], ids, 0).astype(np.int32)
        if name == 'chars':
            return np.stack([encode_chars(SENTENCES[i % len(SENTENCES)]) for i in range(b)])
        if name == 'scene':
            return scenes(b)[0]
        if name == 'facts':
            return scenes(b)[1]
        rows = {
            'length': lengths,
            'embedding': draws.normal(size=(b, meta.embedding_dim)).astype(np.float32),
            'captioned': np.arange(b) % 2 == 0,
            'label': np.arange(b, dtype=np.int32) % max(meta.classes, 1),
            'attributes': draws.integers(0, 2, (b, meta.attributes)).astype(np.float32),
            'mask': draws.integers(0, 2, (b, meta.size, meta.size, 1)).astype(np.float32),
            'boxes': np.concatenate([centres + 0.3, sides], -1).astype(np.float32),
            'object_labels': labels.astype(np.int32),
            'object_masks': draws.integers(0, 2, (b, meta.max_objects, 64, 64)).astype(np.uint8),
            'label_set': (labels[..., None] == np.arange(meta.object_classes)).any(1),
            'dialog': draws.integers(0, 9, (b, 10, 24)).astype(np.int32),
            'dialog_length': np.full((b, 10), 5, np.int32),
        }
        return rows[name]

    for name in needs:
        batch[name] = value(name.removeprefix('wrong_'))
        if name.endswith('tokens'):
            batch[name.replace('tokens', 'length')] = lengths
    return jax.tree.map(jnp.asarray, batch)


def scenes(b):
    """(scene tables, fact tables) of the first test scenes of shape_scenes/multi."""
    from tfds_builders.facts import table
    from tfds_builders.shape_scenes import scenes as made
    from tfds_builders.shape_scenes.captions import captions

    tables, facts = [], []
    for i in range(b):
        tables.append(made.sample('multi', 'test', i))
        draws = made.Draws(0, 'multi', 'test', i, stream=1)
        facts.append(table(captions(tables[-1], 'multi', 'test', draws)[0][1]))
    return np.stack(tables), np.stack(facts)


# ------------------------------------------------------------------------------- experiments, runs
EXPERIMENTS = sorted(
    path.stem
    for path in (ROOT / 'experiments').glob('[!_]*.py')
    if path.stem not in ('common', 'config')
)
SYSTEMS = sorted(path.stem for path in (ROOT / 't2i_jax' / 'systems').glob('[!_]*.py'))


def get_config(experiment, variant=''):
    """The config of an experiment by name."""
    return importlib.import_module(f'experiments.{experiment}').get_config(variant)


def experiment_of(system):
    """The experiment of a system on shape scenes, or its first."""
    own = [name for name in EXPERIMENTS if get_config(name).system == system]
    return next((name for name in own if name == f'{system}_shapes'), own[0])


def brief(config, steps=2):
    """A config whose stages train a few steps, and validate, draw and save at the last."""
    last = {f'{what}_every': steps for what in ('validate', 'sample', 'checkpoint')}
    for block in config.stages.values():
        # those that are left out stay out
        if not block.steps and not block.epochs:
            continue
        block.update(steps=steps, steps_per_dispatch=1, log_every=1, validate_batches=1, **last)
    return config


def kept_files(split):
    """The files in which tables of a split's data set are kept, by name and time.

    Without their checksums.
    """
    return {
        path.name: path.stat().st_mtime_ns
        for path in (pathlib.Path(split.pictures.data_dir) / 'tables').glob('*/*')
        if path.suffix != '.sum'
    }


def lines(workdir, stage):
    """metrics.jsonl, without what depends on the clock."""
    text = (pathlib.Path(workdir) / stage / 'metrics.jsonl').read_text()
    found = [json.loads(line) for line in text.splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in found]


def restored(config, workdir, name, step=None):
    """(step, state) of a stage's checkpoint."""
    from t2i_jax.run import Run

    return Run(config, workdir)[name].state(step)


def opened(config, workdir, mesh, stage='gan'):
    """The trainer of a stage with its data and its model."""
    from t2i_jax.run import Run
    from t2i_jax.runtime.signals import Signals
    from t2i_jax.train import Trainer

    trainer = Trainer(Run(config, workdir)[stage], mesh, Signals())
    trainer.open_data()
    trainer.open_model()
    return trainer


def start_python(*arguments):
    """Start Python in a process of its own, with one device. Tests that call it are slow."""
    level = os.environ['XLA_FLAGS'].split()[-1]
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, 'XLA_FLAGS': level},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def saved_steps(workdir, stage='gan'):
    """The steps of the checkpoints of a stage."""
    folder = pathlib.Path(workdir) / stage / 'checkpoints'
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def sampler_of(module, meta, vocabulary=None, chunk=4, name='toy'):
    """A Sampler of a stage with its own weights, without a run."""
    from t2i_jax.sample import Sampler

    parts = core.split(module)
    program, run = core.program(module), types.SimpleNamespace(vocabulary=vocabulary)
    stage = types.SimpleNamespace(
        name=name, cls=type(module), module=module, meta=meta, run=run, program=lambda: program
    )
    return Sampler(stage, chunk=chunk, weights=(parts.params, parts.stats))
