"""Where a config comes from: the file of an experiment, or config.json of a run."""

import contextlib
import difflib
import functools
import importlib
import importlib.util
import os
import pathlib
import traceback

from ml_collections import ConfigDict

from t2i_jax.config.checks import check, require_form
from t2i_jax.config.forms import flat, merge, plain
from t2i_jax.config.overrides import override, refuse_early
from t2i_jax.config.tables import OPTIM, SETTINGS, STAGE, defaults
from t2i_jax.config.variants import of_system, refuse_unknown, system
from t2i_jax.runtime.errors import DataError, RunError, explained, home, quoted, reason, short
from t2i_jax.runtime.files import read_json


# --------------------------------------------------------------------------------- experiment files
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


def find(name):
    """Import an experiment: one of ours by name, or a file by its path.

    A path `experiments/<name>.py` that does not exist means ours, so that it works from any folder.
    Raises RunError.
    """
    path = home(name)
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


@functools.cache
def shipped():
    """Return {name: file} of the experiments that come with the package."""
    folder = pathlib.Path(importlib.import_module('t2i_jax.experiments').__file__).parent
    files = sorted(folder.glob('[!_]*.py'))
    return {path.stem: path for path in files if path.stem != 'common'}


@contextlib.contextmanager
def named_errors(path):
    """Turn whatever an experiment file raises into a RunError that names its file and line."""
    try:
        yield
    except (DataError, RunError, KeyboardInterrupt):
        raise
    except BaseException as error:
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


# --------------------------------------------------------------------------------------------- runs
def load_run(workdir):
    """Read the config of a run that exists. Raises RunError where there is none."""
    path = pathlib.Path(workdir) / 'config.json'
    again = 'train on with --config=<experiment>, which writes it again.'
    in_the_way = os.path.exists(path) and not os.path.isfile(path)
    remedy = f'Take it away, and {again}' if in_the_way else f'Restore it, or {again}'
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
