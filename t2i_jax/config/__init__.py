"""Every setting with its default and meaning; experiment files and overrides.

    config = load('gan_cls_shapes:quick', {'stages.gan.steps': '100'})

Nothing here imports JAX or what needs it, so that a typing error is answered at once. The keywords
of stages, `stages.<stage>.model`, come from their classes, which `variant` imports.

Of these files each imports only from those before it: tables, forms, variants, checks, overrides,
files.
"""

from t2i_jax.config.checks import check, check_model, refused, require_range
from t2i_jax.config.files import load, load_older, load_run
from t2i_jax.config.forms import flat, lines, merge, plain, to_json
from t2i_jax.config.tables import DATA, EVAL, OPTIM, SEEDS, Setting, defaults, setting
from t2i_jax.config.variants import system

__all__ = [
    'DATA',
    'EVAL',
    'OPTIM',
    'SEEDS',
    'Setting',
    'check',
    'check_model',
    'defaults',
    'flat',
    'lines',
    'load',
    'load_older',
    'load_run',
    'merge',
    'plain',
    'refused',
    'require_range',
    'setting',
    'system',
    'to_json',
]
