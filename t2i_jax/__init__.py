"""Text-to-image systems of the GAN and VAE era in JAX.

    from t2i_jax import Run, Sampler, evaluate, explore, train

These names are imported when they are first used, so that `import t2i_jax` alone is fast.
`train`, `evaluate` and `explore` are functions here; what else their modules have is reached by
`from t2i_jax.train import ...`.
"""

import importlib
import importlib.util
import pathlib
import sys
import types

__version__ = '0.1.0'
__all__ = ['Run', 'Sampler', 'evaluate', 'explore', 'train']

_HOMES = {
    'Run': 't2i_jax.run',
    'Sampler': 't2i_jax.sample',
    'evaluate': 't2i_jax.evaluate',
    'explore': 't2i_jax.explore',
    'train': 't2i_jax.train',
}


class _Package(types.ModuleType):
    """The package, whose public names are functions and classes.

    They are so also where a module has the name.
    """

    def __getattr__(self, name):
        if name not in _HOMES:
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        value = getattr(importlib.import_module(_HOMES[name]), name)
        self.__dict__[name] = value
        return value

    def __setattr__(self, name, value):
        # the import system binds every submodule to its name in the package
        if not (name in _HOMES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self):
        return sorted({*super().__dir__(), *_HOMES})


sys.modules[__name__].__class__ = _Package


def _experiments():
    """Make `t2i_jax.experiments` of the folder next to the package, as it lies in a clone.

    In an installed package it is a folder of the package, and nothing is to be done.
    """
    here = pathlib.Path(__file__).resolve().parent
    file = here.parent / 'experiments' / '__init__.py'
    if not (here / 'experiments').is_dir() and file.is_file():
        name = f'{__name__}.experiments'
        spec = importlib.util.spec_from_file_location(
            name, file, submodule_search_locations=[str(file.parent)]
        )
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


_experiments()
