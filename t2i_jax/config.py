"""Every setting with its default and meaning; experiment files and overrides.

    config = load('gan_cls_shapes:quick', {'stages.gan.steps': '100'})

This file imports neither JAX nor what needs it, so that a typing error is answered at once. The
keywords of stages, `stages.<stage>.model`, come from their classes, which `variant` imports.
"""

import ast
import contextlib
import copy
import difflib
import functools
import importlib
import importlib.util
import inspect
import json
import math
import os
import pathlib
import shlex
import traceback
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from t2i_jax.data.choices import CACHES, CROPS, RESIZES, SAMPLERS
from t2i_jax.runtime.errors import (
    DataError,
    RunError,
    choose,
    explained,
    quoted,
    reason,
    short,
)
from t2i_jax.runtime.files import read_json
from tfds_builders.words import MAX_WORDS

# Whether a setting may differ when a run is resumed: never, always, or only to a larger number.
FIXED, FREE, GROWS = 'fixed', 'free', 'grows'
# the largest number below 1, for decays; what the step of a state and a seed can count to
BELOW_ONE, STEPS, SEEDS = math.nextafter(1, 0), 2**31 - 1, 2**32 - 1
# of a number of steps that may differ on resume, or 0: resume, low, high
FREE_STEPS = FREE, 0, STEPS
# pictures of an evaluation, of which features are kept, and of each caption or record
MOST_PICTURES, MOST_EACH = 10**6, 100
# keywords of stages up to FEW are counts of parts, of which a stage may have at most MANY
FEW, MANY = 8, 1000
# the two ways to say how long a stage is trained
OTHER_UNIT = {'steps': 'epochs', 'epochs': 'steps'}
# times that load_size may be larger than size: more is nearly always one of the two forgotten
CORNER = 2


# what Python's parser raises for nested brackets and long texts
TOO_MUCH = RecursionError, MemoryError, OverflowError


class Setting(NamedTuple):
    """One setting: its default, its meaning in a line, and what is allowed.

    low, high: of numbers. never: a number between them that is not allowed
    choices: the values that it can have, if not all
    """

    default: Any
    meaning: str
    resume: str = FIXED
    low: float = -math.inf
    high: float = math.inf
    choices: tuple = ()
    never: float | None = None


class Named(dict):
    """Settings that a config has only where an experiment writes them. '*' is any name."""


# ---------------------------------------------------------------------------------------- settings
DATA = dict(
    name=Setting('', 'data set, <builder> or <builder>/<config>: tfds_builders/README.md'),
    dir=Setting('', "folder of the prepared data; '': that of TFDS", FREE),
    manual_dir=Setting('', 'folder with files of yours, for the builders that read them', FREE),
    split=Setting('train', 'what is trained on, in the notation of TFDS: train[:256]'),
    validation_split=Setting('validation', 'the held-out split'),
    on_error=Setting(
        'refuse', 'records that cannot be used: refuse or skip', FREE, choices=('refuse', 'skip')
    ),
    size=Setting(64, 'pixels, the side of the largest image', low=1, high=4096),
    load_size=Setting(
        0, 'pixels, the side from which the crop is taken; 0: size', low=0, high=2 * 4096
    ),
    crop=Setting(
        '',
        "'bbox': the square around the main object, as the papers on birds have it",
        choices=CROPS,
    ),
    resize=Setting('squash', "'squash' to a square, or 'keep' the shape", choices=RESIZES),
    scales=Setting((), 'sides of smaller images, for systems that read several', low=1, high=4096),
    flip=Setting(False, 'mirror half of the pictures'),
    length=Setting(18, 'words of a caption, after padding or cutting', low=1, high=MAX_WORDS),
    captions=Setting(1, 'captions of an image in one row', low=1, high=100),
    embedding=Setting(
        'none', "sentence vectors: 'none', or 'stored' with the data", choices=('none', 'stored')
    ),
    cache=Setting(
        'host',
        "decoded pictures: in memory of the 'device', 'host', or 'none'",
        FREE,
        choices=CACHES,
    ),
    workers=Setting(
        0, "processes that decode, with cache='none'; 0: threads", FREE, low=0, high=512
    ),
    nominal=Named(
        {'*': Setting(0, 'known of the data before they are read', FREE, low=0, high=10**7)}
    ),
)
SCHEDULE = dict(
    kind=Setting(
        'constant',
        'constant, step, cosine or linear',
        choices=('constant', 'step', 'cosine', 'linear'),
    ),
    factor=Setting(0.5, 'step: the rate is multiplied by it', low=0),
    every=Setting(100.0, 'step: after so many units', low=0),
    start=Setting(0.0, 'units before it begins', low=0),
    floor=Setting(0.0, 'smallest rate, as a fraction of lr', low=0, high=1),
    length=Setting(0.0, 'cosine, linear: units until the floor; 0: the end', low=0),
    unit=Setting('epochs', 'epochs or updates', choices=('epochs', 'updates')),
)
OPTIM = dict(
    name=Setting('adam', 'adam, rmsprop or sgd', choices=('adam', 'rmsprop', 'sgd')),
    lr=Setting(2e-4, 'learning rate', low=0),
    b1=Setting(0.9, 'adam: decay of the first moment', low=0, high=BELOW_ONE),
    b2=Setting(0.999, 'adam: decay of the second moment', low=0, high=BELOW_ONE),
    eps=Setting(1e-8, 'adam, rmsprop: added to the denominator', low=0),
    momentum=Setting(0.0, 'sgd: momentum', low=0, high=BELOW_ONE),
    decay=Setting(0.99, 'rmsprop: decay of the mean square', low=0, high=BELOW_ONE),
    l2=Setting(0.0, 'L2 penalty, added to the gradient', low=0),
    weight_decay=Setting(0.0, 'decoupled weight decay', low=0),
    clip=Setting(0.0, 'clip the gradient to this norm; 0: never', low=0),
    schedule=SCHEDULE,
)
STAGE = dict(
    steps=Setting(0, 'training steps; 0: as epochs says', GROWS, low=0, high=STEPS),
    epochs=Setting(0.0, 'passes over the data; 0: as steps says', GROWS, low=0, high=STEPS),
    batch_size=Setting(64, 'rows of a batch, over all devices', low=1, high=2**16),
    sampler=Setting(
        'uniform',
        'uniform, class_balanced, distinct_classes or mixed',
        choices=SAMPLERS,
    ),
    captioned_share=Setting(0.5, 'mixed: share of the rows with a caption', low=0, high=1),
    near_wrong=Setting(0.0, 'share of wrong pairs that differ by little', low=0, high=1),
    ema=Setting(0.999, 'decay of the moving average of parameters, a step', low=0, high=BELOW_ONE),
    ema_half_life=Setting(0.0, 'its half-life in images instead; 0: as ema says', low=0),
    ema_warmup=Setting(False, 'at step t the decay is at most (1 + t) / (10 + t): for short runs'),
    model=Named({'*': Setting(None, 'keyword of the stage', low=0, high=STEPS)}),
    data=Named(DATA),
    optim=Named({'*': {**OPTIM, '*': OPTIM}}),
    steps_per_dispatch=Setting(
        1, 'steps run at once on the device: for small networks', low=1, high=10_000
    ),
    log_every=Setting(50, 'steps between two lines of metrics.jsonl; 0: at the end', *FREE_STEPS),
    sample_every=Setting(1000, 'steps between two grids of pictures; 0: at the end', *FREE_STEPS),
    validate_every=Setting(1000, 'steps between held-out losses; 0: never', *FREE_STEPS),
    validate_batches=Setting(4, 'batches of held-out data; 0: all', *FREE_STEPS),
    checkpoint_every=Setting(1000, 'steps between two checkpoints; 0: at the end', *FREE_STEPS),
    keep_n=Setting(
        2, 'number of newest checkpoints that stay; -1: all', FREE, low=-1, high=STEPS, never=0
    ),
    keep=Setting('last', 'last, or best:<a validation loss>, which stays as well'),
)
EVAL = dict(
    name=Setting('', "of the files in <workdir>/eval; '': what sets this evaluation apart", FREE),
    split=Setting('', "splits, comma-separated; '': those that are not for training", FREE),
    num=Setting(
        1000, 'pictures drawn for each split; of layouts: records', FREE, low=1, high=MOST_PICTURES
    ),
    captions=Setting(1, 'captions used of each real picture', FREE, low=1, high=MOST_EACH),
    seed=Setting(0, 'of the noise and of every draw', FREE, low=0, high=SEEDS),
    weights=Setting('ema', 'of the generator: ema or raw', FREE, choices=('ema', 'raw')),
    step=Setting(0, 'checkpoint; 0: the newest (or best)', *FREE_STEPS),
    extractor=Setting(
        '', "feature network: evaluate/features.py; '': one that fits, or none", FREE
    ),
    extractor_weights=Setting('', 'file with its weights, where it needs one', FREE),
    resize=Setting('pil_bicubic', 'filter to the size that the feature network reads', FREE),
    splits=Setting(10, 'parts of the Inception Score', FREE, low=1, high=1000),
    scorer=Setting('', 'a run whose DAMSM or joint embedding judges R-precision, too', FREE),
    diversity=Setting(
        32, 'captions of which several pictures are compared', FREE, low=0, high=10_000
    ),
    samples=Setting(5, 'layouts drawn for each record', FREE, low=1, high=MOST_EACH),
    force=Setting(False, 'a Frechet distance from fewer pictures than features', FREE),
    every=Setting(0, 'steps between two evaluations in training; 0: never', *FREE_STEPS),
    every_num=Setting(
        200, 'pictures of an evaluation in training', FREE, low=1, high=MOST_PICTURES
    ),
)
SETTINGS = dict(
    system=Setting('', 'file under t2i_jax/systems'),
    seed=Setting(0, 'of weights, batches, augmentation and noise', low=0, high=SEEDS),
    dtype=Setting(
        'float32',
        'type of the computation: float32 or bfloat16',
        choices=('float32', 'bfloat16'),
    ),
    remat=Setting(False, 'compute blocks again for their gradient: less memory, more time', FREE),
    data=DATA,
    stages=Named({'*': STAGE}),
    init=Named({'*': Setting('', 'a run that has trained this stage')}),
    mesh=dict(fsdp=Setting(1, 'devices among which the state is divided', FREE, low=1, high=2**16)),
    eval=EVAL,
)


def defaults(table):
    """Return {name: default} of a table of settings, nested as the table is."""
    if isinstance(table, Named):
        return {}
    return {
        name: copy.deepcopy(one.default) if isinstance(one, Setting) else defaults(one)
        for name, one in table.items()
        if name != '*'
    }


def setting(path):
    """Return the Setting of a path such as 'data.size', the table of a block, or None."""
    found = SETTINGS
    for part in path.split('.'):
        if isinstance(found, Setting):
            # a block within a keyword of a stage
            return found if found.default is None else None
        found = found.get(part, found.get('*'))
        if found is None:
            return None
    return found


# ------------------------------------------------------------------------- what an experiment calls
def merge(below, above):
    """Lay one nested dictionary over another; return a new one."""
    out = copy.deepcopy(dict(below))
    for name, value in dict(above).items():
        nested = isinstance(value, (dict, ConfigDict)) and isinstance(out.get(name), dict)
        out[name] = merge(out[name], value) if nested else value
    return out


def base(system, data):
    """Return an unlocked config. data: changes to DATA, as experiments/common.py has them."""
    start = defaults(SETTINGS)
    return ConfigDict({**start, 'system': system, 'data': merge(start['data'], data)})


def variant(c, arg='', **others):
    """Complete a config, apply a variant by name, and lock it.

    c: as `base` made it, with `c.stages.<stage>` as far as the experiment says.
    arg: '' as written, 'tiny' the small one for tests and laptops, or a name of `others`.
    others: name -> function that changes the completed config.

    Raises RunError for another name, and for a stage or a setting that does not exist.
    """
    known = {'': lambda c: None, 'tiny': tiny, **others}
    if arg not in known:
        names = ', '.join(filter(None, known))
        raise RunError(f'This experiment has no variant {arg!r}. It has: {names}.')
    classes = system(c.system).STAGES
    refuse_unknown(c.to_dict(), of_system(classes))
    for name, cls in classes.items():
        c.stages[name] = complete(cls, name, c.stages.get(name, {}))
        c.init[name] = c.init.get(name, '')
    c.lock()
    # blocks to which a variant may add names
    for block in c.stages.values():
        for free in (block.data, *block.model.values()):
            if isinstance(free, ConfigDict):
                free.unlock()
    known[arg](c)
    # a locked block is not entered by lock(), and a new one within it would stay open
    return c.unlock().lock()


def complete(cls, name, written):
    """Return all settings of a stage: those of an experiment laid over the defaults."""
    written = written.to_dict() if isinstance(written, ConfigDict) else dict(written)
    block = merge(defaults(STAGE), written)
    block['model'] = merge(keywords(cls), block['model'])
    given, optim = block['optim'], defaults(OPTIM)
    block['optim'] = {one.loss: merge(optim, given.get(one.loss, {})) for one in cls.phases}
    return with_floats(block, f'stages.{name}')


def of_system(classes):
    """Return SETTINGS with the names of a system: its stages, their keywords and phases."""
    stages, inits = {}, dict.fromkeys(classes, SETTINGS['init']['*'])
    for name, cls in classes.items():
        model = dict.fromkeys(keywords(cls), STAGE['model']['*'])
        optim = {phase.loss: STAGE['optim']['*'] for phase in cls.phases}
        stages[name] = {**STAGE, 'model': model, 'optim': optim}
    return {**SETTINGS, 'stages': stages, 'init': inits}


def refuse_unknown(tree, table, path=''):
    """Raise RunError for a name in nested dictionaries that a table of settings does not have."""
    for name, value in tree.items():
        below, nested = table.get(name, table.get('*')), isinstance(value, dict)
        # the names of networks in an optimiser are open, and stand for blocks
        if below is None or name not in table and isinstance(below, dict) and not nested:
            raise RunError(unknown(path + name, list(table)))
        if nested and isinstance(below, dict):
            refuse_unknown(value, below, f'{path}{name}.')


def with_floats(block, at):
    """Return a block in which a setting whose default is a float is one: 40 becomes 40.0."""
    out = {}
    for name, value in block.items():
        one = setting(f'{at}.{name}')
        if isinstance(value, dict):
            value = with_floats(value, f'{at}.{name}')
        elif isinstance(one, Setting) and type(one.default) is float and type(value) is int:
            value = float(value)
        out[name] = value
    return out


def keywords(cls):
    """Return the keywords of a stage with their values.

    Those of its parents belong to them as far as it takes `**others`.
    """
    out = {}
    for one in cls.__mro__:
        if '__init__' not in vars(one):
            continue
        parameters = inspect.signature(vars(one)['__init__']).parameters.values()
        own = {
            p.name: p.default
            for p in parameters
            if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
        }
        out = {**own, **out}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return out


def tiny(c):
    """Shrink a config to seconds on a laptop; widths come from each stage's `tiny`."""
    c.data.size, c.data.load_size, c.data.cache = 16, 0, 'host'
    for name, cls in system(c.system).STAGES.items():
        if cls.skip(c):
            continue
        block = c.stages[name]
        block.update(steps=20, epochs=0, batch_size=8, log_every=10, sample_every=20)
        block.update(validate_every=10, validate_batches=2, checkpoint_every=10, ema_warmup=True)
        block.model = merge(block.model.to_dict(), cls.tiny)
        for key, small in (('size', 16), ('load_size', 0), ('scales', ())):
            if key in block.data:
                block.data[key] = small


def system(name):
    """Import the module of a system. Raises RunError with the names that exist."""
    folder = pathlib.Path(__file__).parent / 'systems'
    names = sorted(path.stem for path in folder.glob('[!_]*.py'))
    if name not in names:
        raise RunError(f'There is no system {short(repr(name))}. There are: {", ".join(names)}.')
    return importlib.import_module(f't2i_jax.systems.{name}')


# -------------------------------------------------------------------------------- experiment files
@functools.cache
def shipped():
    """Return {name: file} of the experiments that come with the package."""
    folder = pathlib.Path(importlib.import_module('t2i_jax.experiments').__file__).parent
    files = sorted(folder.glob('[!_]*.py'))
    return {path.stem: path for path in files if path.stem != 'common'}


def find(name):
    """Import an experiment: one of ours by name, or a file by its path.

    A path `experiments/<name>.py` that does not exist means ours, so that it works from any folder.
    Raises RunError.
    """
    path = pathlib.Path(name).expanduser()
    ours = shipped()
    own = next(iter(ours.values())).parent
    if path.suffix == '.py' and path.is_file():
        if path.resolve().parent == own.resolve():
            experiment = importlib.import_module(f't2i_jax.experiments.{path.stem}')
        else:
            spec = importlib.util.spec_from_file_location('experiment', path)
            experiment = importlib.util.module_from_spec(spec)
            with named_errors(path):
                spec.loader.exec_module(experiment)
    elif name in ours or path.parent.name == 'experiments' and path.stem in ours:
        experiment = importlib.import_module(f't2i_jax.experiments.{path.stem}')
    else:
        close = difflib.get_close_matches(path.stem, ours, 1)
        guess = f' Did you mean {close[0]}?' if close else ''
        raise RunError(
            f'There is no experiment {short(repr(name))}.{guess} --config takes the path of a '
            f'file, or one of these: {", ".join(ours)}.'
        )
    if not callable(getattr(experiment, 'get_config', None)):
        raise RunError(
            f'{quoted(path)} is not an experiment: it has no get_config. docs/add_a_system.md '
            'shows one.'
        )
    return experiment


@contextlib.contextmanager
def named_errors(path):
    """Turn whatever an experiment file raises into a RunError that names its file and line."""
    try:
        yield
    except (DataError, RunError):
        raise
    except (Exception, SystemExit) as error:
        where, what, own = quoted(path), str(error), os.path.realpath(path)
        frames = traceback.extract_tb(error.__traceback__)
        lines = [one.lineno for one in frames if os.path.realpath(one.filename) == own]
        if isinstance(error, SyntaxError) and error.filename:
            # it may be that of a file which it imports
            where, what, lines = quoted(error.filename), error.msg, [error.lineno]
        where += f', line {lines[-1]}' if lines else ''
        kind = 'sys.exit' if isinstance(error, SystemExit) else type(error).__name__
        raise RunError(
            f'Experiment {where}: {kind}: {short(what).rstrip(".")}. Correct the file.'
        ) from error


def load(text, overrides=()):
    """Return the config of '<experiment>' or '<experiment>:<variant>', locked.

    overrides: {'data.size': '64'}, as `override` takes them. Raises RunError.
    """
    # a path may have colons
    whole = text.endswith('.py') or ':' not in text
    name, _, arg = (text, '', '') if whole else text.rpartition(':')
    if not whole and not arg:
        raise RunError(
            f'--config={short(text)} names no variant behind its colon: leave out the colon, or '
            f'name one, --config={name}:tiny.'
        )
    module = find(name)
    # before the system is imported, which takes seconds
    for path, given in dict(overrides).items():
        refuse_early(path, given)
    file = pathlib.Path(module.__file__)
    with named_errors(file):
        config = module.get_config(arg)
    if not isinstance(config, ConfigDict):
        raise RunError(
            f'Experiment {quoted(file)}: get_config returns {type(config).__name__}, not a '
            'ConfigDict. End it with `return variant(c, arg)`.'
        )
    if lines := absent(config.to_dict()):
        raise RunError(
            f'Experiment {quoted(file)}: get_config returns a config without {short(lines)}. '
            'Begin with `c = base(...)`, and end with `return variant(c, arg)`.'
        )
    require_form(config.to_dict(), f'Experiment {quoted(file)}')
    refuse_unknown(config.to_dict(), of_system(system(config.system).STAGES))
    return override(config.lock(), overrides)


def absent(config):
    """List the blocks and settings that a config lacks, 'data.size, stages.gan.steps'; or ''."""
    found = [path for path in flat(defaults(SETTINGS)) if not has(config, path)]
    for name in ('stages', 'init'):
        found += [] if isinstance(config.get(name), dict) else [name]
    stages = config.get('stages')
    for name, block in stages.items() if isinstance(stages, dict) else ():
        wanted = [*flat(defaults(STAGE)), 'model', 'data', 'optim']
        found += [f'stages.{name}.{path}' for path in wanted if not has(block, path)]
    return ', '.join(found)


def has(tree, path):
    """Whether nested dictionaries have a value at 'a.b'."""
    for part in path.split('.'):
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def load_run(workdir):
    """Read the config of a run that exists. Raises RunError where there is none."""
    path = pathlib.Path(workdir) / 'config.json'
    remedy = 'Restore it, or train on with --config=<experiment>, which writes it again.'
    try:
        config = read_json(path)
        for name, kind in dict(system=str, data=dict, stages=dict).items():
            if not isinstance(config, dict) or not isinstance(config.get(name), kind):
                raise ValueError('it has no system, data and stages')
        require_form(config, quoted(path), remedy)
        return ConfigDict(plain(config)).lock()
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            f'{quoted(workdir)} holds no run: there is no {quoted(path)}. Train one first with '
            '--config=<experiment>, or check the path.'
        ) from None
    except OSError as error:
        raise RunError(explained(error, path)) from None
    except RunError:
        raise
    # a name that ConfigDict does not take
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f'{quoted(path)} is damaged ({reason(error)}). {remedy}') from None


def load_older(workdir, overrides=()):
    """Read a run's config as `load_run`, and add the settings that it is too old to have.

    overrides: as `override` takes them. Raises RunError, also for what is then out of range.
    """
    config = merge(defaults(SETTINGS), load_run(workdir).to_dict())
    for name, block in config['stages'].items():
        config['stages'][name] = block = merge(defaults(STAGE), block)
        block['optim'] = {
            phase: merge(defaults(OPTIM), one) for phase, one in block['optim'].items()
        }
    config = ConfigDict(config).lock()
    own, found = fault(config), fault(override(config, overrides))
    if found:
        place = quoted(pathlib.Path(workdir) / 'config.json')
        raise RunError(f'{place}: {found} Correct it there.' if found == own else found)
    return config


def fault(config):
    """Return what `check` refuses in a config; '' where there is nothing."""
    try:
        check(config)
    except RunError as error:
        return str(error)
    return ''


# ---------------------------------------------------------------------------------------- overrides
def override(config, overrides):
    """Set values by their paths, in place; return the config. Types stay as they are.

    overrides: {'data.size': '64'}, texts as in `--config.data.size=64`. A tuple is '(16, 32)', or
    '16,32'. Steps of a stage replace its epochs, and the reverse. Raises RunError for a setting
    that does not exist, or a value of another type.
    """
    for path, text in dict(overrides).items():
        block, done = config, []
        for part in path.split('.'):
            if not isinstance(block, ConfigDict):
                raise RunError(
                    f'There is no setting --config.{path}: config.{".".join(done)} is a value, '
                    'not a block.'
                )
            if part not in block:
                raise RunError(unknown(path, list(block), done))
            parent, block = block, block[part]
            done.append(part)
        if isinstance(block, ConfigDict):
            raise RunError(no_value(path, block))
        parent[part] = parsed(path, text, block)
    return with_one_length(config, overrides)


def with_one_length(config, overrides):
    """Set the epochs of a stage to 0 where its steps are given, and the reverse, in place."""
    for name, block in config.get('stages', {}).items():
        for given, other in OTHER_UNIT.items():
            paths = f'stages.{name}.{given}', f'stages.{name}.{other}'
            # where both are given they are refused with the run
            if paths[0] in overrides and block[given] and paths[1] not in overrides:
                block[other] = 0
    return config


def parsed(path, text, old):
    """Return what a text stands for, of the type of the old value. Raises RunError."""
    try:
        if isinstance(old, bool):
            return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
        if isinstance(old, (int, float)):
            return type(old)(text)
        if isinstance(old, str):
            return text
        if isinstance(old, (tuple, list)):
            value = ast.literal_eval(text) if text.strip() else ()
            return tuple(value) if isinstance(value, (tuple, list)) else (value,)
    except (KeyError, ValueError, SyntaxError, TypeError, *TOO_MUCH):
        kinds = {bool: 'true or false', int: 'a whole number', float: 'a number'}
        kind = kinds.get(type(old), 'a list such as 16,32')
        raise RunError(f'--config.{path} is {kind}, not {short(repr(text))}.') from None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, *TOO_MUCH):
        return text


def refuse_early(path, text):
    """Raise RunError for an override that no config can have, whatever its system."""
    table, done = SETTINGS, []
    for part in path.split('.'):
        if not isinstance(table, dict):
            return
        if part not in table and '*' not in table:
            raise RunError(unknown(path, list(table), done))
        table = table.get(part, table.get('*'))
        done.append(part)
    if isinstance(table, dict):
        raise RunError(no_value(path, table))
    if table.choices:
        check_choice(path, text)
    elif type(table.default) in (int, float):
        try:
            number = int(text)
        except ValueError:
            # an experiment may have a float where the default is an int
            number = parsed(path, text, float(table.default))
        check_number(path, number)


def no_value(path, block):
    """Word the message for a block that is set as if it were a value."""
    known = ', '.join(name for name in block if name != '*')
    return f'--config.{path} is a block, not a value. Set one of its settings: {known}.'


def unknown(path, known, done=None):
    """Word the message for a setting that does not exist. done: the parts of its path that do."""
    done = path.split('.')[:-1] if done is None else done
    wrong, *rest = path.split('.')[len(done) :]
    close = difflib.get_close_matches(wrong, known, 1)
    guess = f' Did you mean {".".join(["--config", *done, close[0], *rest])}?' if close else ''
    if done[::2] == ['stages', 'data'] and wrong in DATA:
        return (
            f'Stage {done[1]} has no data.{wrong} of its own: --config.data.{wrong} sets that of '
            'all stages. (An experiment can give a stage its own, in stages.<stage>.data.)'
        )
    known = ', '.join(name for name in known if name != '*') or 'no settings'
    place = '.'.join(['config', *done])
    return f'There is no setting --config.{short(path)}.{guess} In {place} there are: {known}.'


# ------------------------------------------------------------------------------------------- checks
def require_form(config, place, remedy='Correct it.'):
    """Raise RunError where a tree has a block for a value, a value for a block, or another type.

    config: nested dictionaries; what is missing and what no table knows is left alone.
    place: where it stands, for the message.
    """
    for path, value, expected in wrong_forms(config, SETTINGS):
        text = short(json.dumps(value, default=str), 80)
        raise RunError(f'{place}: {path} is {text}; expected {expected}. {remedy}')


def wrong_forms(value, table, path=''):
    """Yield (path, value, what was expected) of what does not have the form of its table."""
    if isinstance(table, Setting):
        if not is_of(table.default, value):
            yield path, value, KINDS[type(table.default)]
    elif not isinstance(value, (dict, ConfigDict)):
        yield path, value, 'a block, {"name": value, ...}'
    else:
        for name, part in value.items():
            below = table.get(name, table.get('*'))
            if below is not None:
                yield from wrong_forms(part, below, f'{path}.{name}'.lstrip('.'))


KINDS = {
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'a text',
    tuple: 'a list',
    dict: 'a block, {"name": value, ...}',
}


def is_of(default, value):
    """Whether a value has the type of a default: an int is a float, too; None is of any type."""
    if isinstance(default, bool) or isinstance(value, bool):
        return default is None or isinstance(default, bool) == isinstance(value, bool)
    if isinstance(default, (tuple, list)):
        return isinstance(value, (tuple, list))
    kinds = {int: int, float: (int, float), str: str, dict: (dict, ConfigDict)}
    return isinstance(value, kinds.get(type(default), object))


def check(config, trains=False):
    """Raise RunError for a wrong choice, a number out of its range, or sizes that do not fit.

    trains: whether to refuse what makes no sense to train, though it can be drawn from, too
    """
    require_form(config.to_dict(), 'The config')
    for path, value in flat(config.to_dict()).items():
        check_choice(path, value)
        for number in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                check_number(path, number)
    for name, block in config.stages.items():
        best, _, loss = block['keep'].partition(':')
        if block['keep'] != 'last' and not (best == 'best' and loss):
            raise RunError(
                f'stages.{name}.keep is {short(repr(block["keep"]))}; it is last, or best:<a '
                'validation loss>.'
            )
    for at, block in {'': {}, **{f'stages.{n}.': b.data for n, b in config.stages.items()}}.items():
        data = {**config.data, **block}
        size, load_size = data['size'], data['load_size']
        here = f'--config.{at if "size" in block else ""}data.size is {size}'
        if 0 < load_size < size:
            raise RunError(
                f'{here}, larger than load_size={load_size}, from which it is cut: make it '
                'smaller, or load_size larger (0: equal to size).'
            )
        if trains and load_size > CORNER * size:
            raise RunError(
                f'{here}, and load_size={load_size}: of each picture a corner would be seen, '
                f'{size / load_size:.0%} of its side. Set --config.data.load_size='
                f'{round(size * 76 / 64)}, or 0 for whole pictures.'
            )
        for scale in plain(data['scales']):
            if not isinstance(scale, int) or isinstance(scale, bool) or size % scale:
                raise RunError(
                    f'--config.{at if "scales" in block else ""}data.scales has {short(scale)}, '
                    f'which does not divide data.size={size}.'
                )


def check_block(name, values):
    """Raise RunError for a value of a block, such as 'eval', that it does not have or allow."""
    for key, value in values.items():
        one = setting(f'{name}.{key}')
        if one is None:
            raise RunError(unknown(f'{name}.{key}', list(setting(name))))
        require_form({name: {key: value}}, 'The call')
        check_choice(f'{name}.{key}', value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            check_number(f'{name}.{key}', value)


def check_model(name, cls, model):
    """Raise RunError for a keyword of a stage of another type than its own, or a huge count.

    Keywords that are small by default count blocks, scales and the like, which take time to build.
    """
    for path, value, default in with_defaults(plain(model), keywords(cls)):
        if not is_of(default, value):
            raise RunError(
                f'stages.{name}.model.{path} is {short(repr(value), 80)}; expected '
                f'{KINDS[type(default)]}.'
            )
        if isinstance(default, int) and 0 < default <= FEW:
            require_range(f'stages.{name}.model.{path}', value, 0, MANY)


def with_defaults(tree, defaults, prefix=''):
    """Yield (path, value, default) of nested dictionaries, blocks too; None without a default."""
    for name, value in tree.items():
        default = defaults.get(name)
        yield prefix + name, value, default
        if isinstance(value, dict) and isinstance(default, dict):
            yield from with_defaults(value, default, f'{prefix}{name}.')


def check_choice(path, value):
    """Raise RunError for a value that is not among the choices of its setting."""
    one = setting(path)
    if isinstance(one, Setting) and one.choices:
        choose(f'--config.{path}', value, one.choices)


def check_number(path, number):
    """Raise RunError where a number is not one that its setting allows."""
    one = setting(path)
    if isinstance(one, Setting):
        require_range(f'--config.{path}', number, one.low, one.high, one.never)
    else:
        require_range(f'--config.{path}', number)


def require_range(name, number, low=-math.inf, high=math.inf, never=None):
    """Raise RunError where a number is not finite, not between low and high, or the one never."""
    # an int can be too large for isfinite
    finite = isinstance(number, int) or math.isfinite(number)
    if finite and low <= number <= high and number != never:
        return
    if high == BELOW_ONE:
        allowed = f'at least {low} and below 1'
    elif math.isfinite(high):
        allowed = f'between {low} and {high}'
    elif isinstance(number, int) and math.isfinite(low):
        allowed = f'at least {low}'
    else:
        allowed = f'a finite number of at least {low}' if math.isfinite(low) else 'a finite number'
    allowed += f', and not {never}' if never is not None else ''
    shown = f'{number:g}' if isinstance(number, float) else short(number, 40)
    raise RunError(f'{name} is {shown}; it must be {allowed}.')


def refused(old, new):
    """List what forbids to resume a run with another config, 'a.b: old there, new here'.

    old, new: configs. A setting that an older run does not have counts as its default.
    """
    defaults = {
        f'stages.{name}.model.{path}': value
        for name, cls in system(new.system).STAGES.items()
        for path, value in flat(keywords(cls)).items()
    }
    old, new = (flat(json.loads(to_json(config))) for config in (old, new))
    lines = []
    for path in sorted(old.keys() | new.keys()):
        one = setting(path)
        resume = one.resume if isinstance(one, Setting) else FIXED
        default = defaults.get(path, one.default if isinstance(one, Setting) else None)
        there, here = old.get(path, default), new.get(path)
        if plain(there) == plain(here) or resume == FREE:
            continue
        if resume == GROWS and (here or 0) > (there or 0):
            continue
        unit = path.rpartition('.')[2]
        other = OTHER_UNIT.get(unit)
        there, here = ({None: 'absent', '': "''"}.get(x, x) for x in map(plain, (there, here)))
        lines.append(f'{short(path)}: {short(there, 80)} there, {short(here, 80)} here')
        if other and not new.get(path) and new.get(path.removesuffix(unit) + other):
            lines[-1] += f'. This run counts {unit}: set --config.{path}, not {other}'
    return lines


# -------------------------------------------------------------------------------------------- forms
def plain(value):
    """Turn ConfigDict and lists into dictionaries and tuples, as constructors take them."""
    if isinstance(value, (dict, ConfigDict)):
        return {name: plain(v) for name, v in value.items()}
    return tuple(plain(v) for v in value) if isinstance(value, (list, tuple)) else value


def flat(tree, prefix=''):
    """Return {'a.b': value} of nested dictionaries."""
    out = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        out |= flat(value, f'{prefix}{name}.') if nested else {prefix + name: value}
    return out


def to_json(config) -> str:
    """Return the text of config.json."""
    return json.dumps(json.loads(config.to_json()), indent=2) + '\n'


def lines(config) -> list[str]:
    """List every setting as the argument that sets it in a shell, `--config.a.b=value`."""
    return [line for line, _ in with_meanings(config)]


def with_meanings(config):
    """List (the argument that sets it, its meaning) of every setting."""
    out = []
    for path, value in flat(plain(config)).items():
        text = str(value)
        one = setting(path)
        meaning = one.meaning if isinstance(one, Setting) else ''
        out.append((f'--config.{path}={shlex.quote(text) if text else ""}', meaning))
    return out
