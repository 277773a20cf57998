"""Settings of the command line, `--config.a.b=value`, laid over a config."""

import ast

from ml_collections import ConfigDict

from t2i_jax.config.checks import check_choice, check_number
from t2i_jax.config.tables import OTHER_UNIT, SETTINGS, unknown
from t2i_jax.runtime.errors import RunError, short

# what Python's parser raises for nested brackets and long texts
TOO_MUCH = RecursionError, MemoryError, OverflowError


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
