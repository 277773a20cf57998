"""A run: a config and a workdir, and the stages that they make.

<workdir>/config.json, vocabulary.json, lock
<workdir>/<stage>/meta.json, checkpoints/<step>/, metrics.jsonl, tensorboard/, samples/<step>.png
"""

import itertools
import json
import math
import os
import pathlib

import jax
from absl import logging
from flax import nnx

from t2i_jax import optim
from t2i_jax import stage as core
from t2i_jax.config import check, plain, refused, system, to_json
from t2i_jax.config import load_run as load_config
from t2i_jax.data.text import Vocabulary
from t2i_jax.layers import remat
from t2i_jax.runtime.checkpoint import Checkpoints
from t2i_jax.runtime.errors import RunError


def stage_names(config):
    """The stages that this config trains, in order."""
    if config.data.embedding not in ('none', 'stored'):
        raise RunError(f'data.embedding is {config.data.embedding!r}; it is none or stored.')
    names = [name for name, cls in system(config.system).STAGES.items() if not cls.skip(config)]
    missing = [name for name in names if name not in config.stages]
    if missing:
        raise RunError(
            f'System {config.system} has stage {missing[0]}, about which this config says nothing: take an experiment of that system.'
        )
    return names


# ------------------------------------------------------------------------------------------------------ config and workdir
def saved_steps(workdir, name='*'):
    """The steps of a stage (any) that have a finished checkpoint, whole or damaged."""
    return [
        int(step.name)
        for step in pathlib.Path(workdir).glob(f'{name}/checkpoints/*')
        if step.name.isdigit()
    ]


def has_checkpoints(workdir, name='*'):
    return bool(saved_steps(workdir, name))


def claim(config, workdir):
    """Writes the config of a run, or checks it against the one that is there. Raises RunError where they differ in what matters."""
    check(config)
    path = pathlib.Path(workdir) / 'config.json'
    trained = has_checkpoints(path.parent)
    if not trained and jax.process_index() == 0:  # an attempt that failed early binds nobody
        (path.parent / 'vocabulary.json').unlink(missing_ok=True)
    old = None
    if path.exists() and trained:
        try:
            old = load_config(workdir)
        except RunError as error:
            logging.warning('%s It is replaced by the one that was given.', error)
    if old is not None:
        lines = refused(old, config)
        if lines:
            raise RunError(
                f'{workdir} belongs to a run with another config:\n'
                + '\n'.join(f'  {line}' for line in lines)
                + '\nChoose another --workdir, or leave out --config to resume that run with its own.'
            )
    if jax.process_index():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.tmp')
    temporary.write_text(to_json(config))
    temporary.replace(path)


# ------------------------------------------------------------------------------------------------------------------- stages
def nominal_meta(config, name):
    """What is known of the data without reading them: published values, from `config.data.nominal`."""
    data = {**config.data, **config.stages[name].data}
    known = dict(config.data.nominal)
    if config.data.embedding == 'stored':
        known.setdefault('embedding_dim', 1024)
    return core.Meta(
        config.data.name,
        length=data['length'],
        size=data['size'],
        captions=data['captions'],
        nominal=True,
        **known,
    )


def source(config, workdir, stage):
    """(config, folder) of the run that made an earlier stage: `init.<stage>`, or this one."""
    other = os.path.expanduser(config.init.get(stage) or '')
    return (
        (load_config(other), pathlib.Path(other))
        if other
        else (config, pathlib.Path(workdir) if workdir else None)
    )


def adopt(config, workdir, stage):
    """Copies what is needed to build a stage that another run made, so that this run does not depend on that one for ever."""
    other, folder = source(config, workdir, stage)
    meta, own = read_meta(folder, stage), pathlib.Path(workdir) / stage
    own.mkdir(parents=True, exist_ok=True)
    (own / 'meta.json').write_text(json.dumps(meta._asdict(), indent=2) + '\n')
    (own / 'config.json').write_text(to_json(other))


def recipe(config, workdir, stage):
    """(config, folder) from which an earlier stage is built: as `source`, or what `adopt` copied."""
    if (
        config.init.get(stage)
        and workdir
        and (pathlib.Path(workdir) / stage / 'config.json').exists()
    ):
        return load_config(pathlib.Path(workdir) / stage), pathlib.Path(workdir)
    return source(config, workdir, stage)


def read_meta(folder, stage):
    path = pathlib.Path(folder) / stage / 'meta.json'
    try:
        return core.Meta(
            **plain(json.loads(path.read_text()))
        )  # names as tuples, which can be hashed, as Split has them
    except (FileNotFoundError, ValueError, TypeError):
        raise RunError(
            f'{path.parent} holds no trained stage: {path.name} is missing or damaged. Train (or resume) the stage, which writes it, or point '
            f'--config.init.{stage} to a run that has it.'
        ) from None


def same_sizes(trained, found, what):
    """Raises RunError where data differ from those that a stage was trained on in what its networks take their sizes from."""
    for field in (
        'size',
        'vocabulary_size',
        'length',
        'embedding_dim',
        'attributes',
        'object_classes',
        'max_objects',
    ):
        there, here = getattr(trained, field), getattr(found, field)
        if there != here:
            raise RunError(
                f'{what} was trained on data with {field} {there}; {found.name} as it is now has {here}. Put the data (or the setting) back, '
                'or train on these in another --workdir.'
            )


class Keys:
    """The keys of `nnx.Rngs(seed)`, counted in Python: that counts in traced arrays, which takes most of the time of building a large model."""

    def __init__(self, seed):
        self.key, self.count = jax.random.key(seed), itertools.count()

    def params(self):
        return jax.random.fold_in(self.key, next(self.count))


def build(config, workdir, name, meta, key):
    """The module of a stage, the networks that it loads included, with fresh weights."""
    stages = system(config.system).STAGES
    cls, made = stages[name], {}
    loads = cls.loaded()
    for earlier in dict.fromkeys(earlier for earlier, _ in loads.values()):
        if not stages[earlier].skip(config):
            other, folder = recipe(config, workdir, earlier)
            other_meta = (
                nominal_meta(other, earlier) if meta.nominal else read_meta(folder, earlier)
            )
            made[earlier] = build(other, folder, earlier, other_meta, key)
    loaded = {
        keyword: getattr(made[earlier], network) if earlier in made else None
        for keyword, (earlier, network) in loads.items()
    }
    if config.dtype not in ('float32', 'bfloat16'):
        raise RunError(f'dtype is {config.dtype!r}; it is float32 or bfloat16.')
    try:
        module = cls(meta, **plain(config.stages[name].model), **loaded, rngs=Keys(key))
    except (ValueError, TypeError) as error:
        raise RunError(f'Stage {name} cannot be built: {error}') from error
    core.compute_in(module, config.dtype)
    if config.get('remat', False):
        remat.switch_on(module)
    return module


def abstract(config, workdir, name, meta):
    """The module without its weights: sizes, phases, needs."""
    return nnx.eval_shape(lambda: build(config, workdir, name, meta, 0))


def total_steps(config, name, module, steps_per_epoch):
    """0 for a stage without phases. Raises RunError unless exactly one of steps and epochs is set."""
    steps, epochs = config.stages[name].steps, config.stages[name].epochs
    if not module.phases:
        return 0
    if bool(steps) == bool(epochs):
        raise RunError(
            f'stages.{name} has steps={steps} and epochs={epochs}: set one of them, the other to 0.'
        )
    together = steps_per_dispatch(config, name)
    return int(steps or together * round(epochs * steps_per_epoch / together))


def steps_per_dispatch(config, name):
    """How many steps of a stage the device runs at once. Raises RunError unless whole dispatches end where something is due; a resumed run has then the
    same ones."""
    block = config.stages[name]
    together = block.get('steps_per_dispatch', 1)  # older runs do not say
    due = {
        key: block[key]
        for key in ('log_every', 'validate_every', 'sample_every', 'checkpoint_every', 'steps')
    }
    due |= {'eval.every': config.get('eval', {}).get('every', 0)}
    wrong = [f'{key}={value}' for key, value in due.items() if together < 1 or value % together]
    if wrong:
        raise RunError(
            f'stages.{name}.steps_per_dispatch={together} runs that many steps at once, and does not divide {", ".join(wrong)}: '
            'set one of them so that it does, or steps_per_dispatch=1.'
        )
    return together


def make_program(config, name, module, steps_per_epoch=1):
    """The stage's Program with its optimisers."""
    block, total = config.stages[name], total_steps(config, name, module, steps_per_epoch)
    txs = [
        optim.make(
            plain(block.optim.get(phase.loss, optim.DEFAULTS)),
            phase.trains,
            steps_per_epoch / phase.every,
            total / phase.every,
        )
        for phase in module.phases
    ]
    decay = 0.5 ** (block.batch_size / block.ema_half_life) if block.ema_half_life else block.ema
    return core.program(module, txs, decay)


def checkpoints(config, workdir, name):
    keep = config.stages[name].keep
    if keep != 'last' and not keep.startswith('best:'):
        raise RunError(f'stages.{name}.keep is {keep!r}; it is last, or best:<a validation loss>.')
    return Checkpoints(
        pathlib.Path(workdir) / name / 'checkpoints',
        config.stages[name].keep_n,
        keep.partition(':')[2] or None,
    )


def fresh_state(config, workdir, name, meta, prog):
    """A function that makes the initial state; traced by the caller."""

    def init():
        _, params, stats = core.split(build(config, workdir, name, meta, config.seed))
        return core.init_state(prog, params, stats, config.seed)

    return init


def restore(config, workdir, name, step=None, shardings=None):
    """(step, state, program) of a stage's best or newest checkpoint. Raises RunError where there is none."""
    folder = pathlib.Path(workdir) / name / 'checkpoints'
    saved = checkpoints(config, workdir, name) if folder.exists() else None
    there = saved.steps() if saved else []
    if not there:
        raise RunError(
            f'{pathlib.Path(workdir) / name} has no finished checkpoint. Train it first: python -m t2i_jax.main --workdir={workdir}'
        )
    if step is not None and step not in there:
        raise RunError(
            f'{pathlib.Path(workdir) / name} has no checkpoint of step {step}. It has: {", ".join(map(str, sorted(there)))}.'
        )
    step = saved.best_step() if step is None else step
    meta = read_meta(workdir, name)
    prog = make_program(config, name, abstract(config, workdir, name, meta))
    shapes = jax.eval_shape(fresh_state(config, workdir, name, meta, prog))
    place = shardings or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    step, state, _ = saved.restore(shapes, step)
    saved.close()
    return step, state, prog


def warn_if_unfinished(config, folder, name):
    saved = checkpoints(config, folder, name) if (folder / name / 'checkpoints').exists() else None
    newest = (saved.steps() or [None])[0] if saved else None
    if newest is not None and newest < (total := saved.extra(newest).get('total', newest)):
        logging.warning(
            'Stage %s of %s was interrupted at step %s of %s, and is used as it is. To finish it first: python -m t2i_jax.main --workdir=%s',
            name,
            folder,
            f'{newest:,}',
            f'{total:,}',
            folder,
        )
    if saved:
        saved.close()


def loaded_weights(config, workdir, name, vocabulary, place):
    """({network: parameters}, {network: statistics}) of the networks that a stage loads, from the stages that made them."""
    stages, params, stats, made = system(config.system).STAGES, {}, {}, {}
    for keyword, (earlier, network) in stages[name].loaded().items():
        if not stages[earlier].skip(config):
            made.setdefault(earlier, {})[keyword] = network
    for earlier, networks in made.items():
        other, folder = source(config, workdir, earlier)
        theirs = (
            vocabulary
            if folder == pathlib.Path(workdir)
            else Vocabulary.load(folder / 'vocabulary.json')
        )
        if theirs != vocabulary:
            raise RunError(
                f'{folder} has another vocabulary ({len(theirs) - 1} words, hash {theirs.hash[:12]}) than {workdir} ({len(vocabulary) - 1} words, '
                f'hash {vocabulary.hash[:12]}), so its {" and ".join(networks)} would misread sentences. Train stage {earlier!r} here (leave out '
                f'--config.init.{earlier}), or use the same data.'
            )
        warn_if_unfinished(other, folder, earlier)
        _, state, _ = restore(other, folder, earlier, shardings=place)
        # a text encoder is absent where sentence vectors are stored
        for into, trained in ((params, state.sampling_params()), (stats, state.sampling_stats())):
            into |= {key: trained[net] for key, net in networks.items() if net in trained}
    return params, stats


# ----------------------------------------------------------------------------------------------------------------- describe
def describe(config) -> str:
    """One line per stage and network, then phases, steps, batch and optimisers: without data, without allocating weights."""
    lines, below = [], []
    width = 24
    for name in stage_names(config):
        meta = nominal_meta(config, name)
        module, block = abstract(config, None, name, meta), config.stages[name]
        make_program(config, name, module)  # refuses the settings that training would refuse
        params = core.split(module).params
        trained = {network for phase in module.phases for network in phase.trains}
        for network, tree in params.items():
            parts = (
                {f'{network}.{i}': part for i, part in tree.items()}
                if all(isinstance(key, int) for key in tree)
                else {}
            )  # of an nnx.List
            for part, arrays in ({network: tree} | parts).items():
                count = sum(math.prod(x.shape) for x in jax.tree.leaves(arrays))
                lines.append(
                    f'{name + "." + part:<{width}} {count:>14,}  {"trained" if network in trained else "frozen"}'
                )
        length = f'{block.steps:,} steps' if block.steps else f'{block.epochs:g} epochs'
        below.append(
            f'\nstage {name}: {length}, batch {block.batch_size}, sampler {block.sampler}, {meta.size} px, {config.dtype}, '
            f'reads {", ".join(module.needs)}'
        )
        below += [
            f'  {phase.loss}: trains {", ".join(phase.trains)}'
            + (f', every {phase.every} steps at {phase.at}' if phase.every > 1 else '')
            + f'; {optim.describe(plain(block.optim.get(phase.loss, optim.DEFAULTS)), phase.trains)}'
            for phase in module.phases
        ]
        averaged = [network for network in module.ema if network in trained]
        if averaged:
            below.append(
                f'  moving average of {", ".join(averaged)}: '
                + (
                    f'half-life {block.ema_half_life:g} images'
                    if block.ema_half_life
                    else f'{block.ema:g}'
                )
            )
    below.append(
        f'\ndata {config.data.name}: {config.data.split}; sizes above are for its published values ({dict(config.data.nominal)})'
    )
    return '\n'.join([f'{"stage.network":<{width}} {"parameters":>14}', *lines, *below])
