"""What is refused in a config: types, choices, ranges, sizes that do not fit, another resume."""

import json
import math

from ml_collections import ConfigDict

from t2i_jax.config.forms import flat, plain, to_json
from t2i_jax.config.tables import (
    BELOW_ONE,
    FIXED,
    FREE,
    GROWS,
    OTHER_UNIT,
    SETTINGS,
    Setting,
    setting,
    unknown,
)
from t2i_jax.config.variants import keywords, system
from t2i_jax.runtime.errors import RunError, choose, short

# keywords of stages up to FEW are counts of parts, of which a stage may have at most MANY
FEW, MANY = 8, 1000
# times that load_size may be larger than size: more is nearly always one of the two forgotten
CORNER = 2
KINDS = {
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'a text',
    tuple: 'a list',
    dict: 'a block, {"name": value, ...}',
}


# -------------------------------------------------------------------------------------------- types
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


def is_of(default, value):
    """Whether a value has the type of a default: an int is a float, too; None is of any type."""
    if isinstance(default, bool) or isinstance(value, bool):
        return default is None or isinstance(default, bool) == isinstance(value, bool)
    if isinstance(default, (tuple, list)):
        return isinstance(value, (tuple, list))
    kinds = {int: int, float: (int, float), str: str, dict: (dict, ConfigDict)}
    return isinstance(value, kinds.get(type(default), object))


# ------------------------------------------------------------------------------------------- values
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


# ----------------------------------------------------------------------------------------- resuming
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
