"""Forms of a config: nested, flat, as JSON, as arguments of a shell."""

import copy
import json
import shlex

from ml_collections import ConfigDict

from t2i_jax.config.tables import Setting, setting


def merge(below, above):
    """Lay one nested dictionary over another; return a new one."""
    out = copy.deepcopy(dict(below))
    for name, value in dict(above).items():
        nested = isinstance(value, (dict, ConfigDict)) and isinstance(out.get(name), dict)
        out[name] = merge(out[name], value) if nested else value
    return out


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
