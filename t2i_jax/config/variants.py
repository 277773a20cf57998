"""What an experiment calls: a config to begin with, its stages completed, its variants."""

import importlib
import inspect
import pathlib

from ml_collections import ConfigDict

from t2i_jax.config.forms import merge
from t2i_jax.config.tables import OPTIM, SETTINGS, STAGE, Setting, defaults, setting, unknown
from t2i_jax.runtime.errors import RunError, short


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


# --------------------------------------------------------------------------- the stages of a system
def system(name):
    """Import the module of a system. Raises RunError with the names that exist."""
    folder = pathlib.Path(__file__).parents[1] / 'systems'
    names = sorted(path.stem for path in folder.glob('[!_]*.py'))
    if name not in names:
        raise RunError(f'There is no system {short(repr(name))}. There are: {", ".join(names)}.')
    return importlib.import_module(f't2i_jax.systems.{name}')


def complete(cls, name, written):
    """Return all settings of a stage: those of an experiment laid over the defaults."""
    written = written.to_dict() if isinstance(written, ConfigDict) else dict(written)
    block = merge(defaults(STAGE), written)
    block['model'] = merge(keywords(cls), block['model'])
    given, optim = block['optim'], defaults(OPTIM)
    block['optim'] = {one.loss: merge(optim, given.get(one.loss, {})) for one in cls.phases}
    return with_floats(block, f'stages.{name}')


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
