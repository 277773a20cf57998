"""The real program with a fault in it.

    python -m benchmarks.inject <fault>[:<argument>...] <arguments of t2i_jax>

nan:<stage>:<method>:<step>        the method (a loss, or forward) gives NaN in that step, from 1
gradient:<stage>:<method>:<step>   the loss is finite, its gradient is not
clock:<seconds>[:<calls>]          the clock shows another time, after so many readings
room:<bytes>                       no file may become larger
asleep:<seconds>                   the clock is so much further after each save has started, as
where the
                                   process was stopped or the machine slept
"""

import itertools
import pathlib
import resource
import sys
import time

import jax
import jax.numpy as jnp

from t2i_jax import config, main
from t2i_jax.runtime import checkpoint


def patched(stage, method, change):
    """Change a method of every system's stage of that name: change(its result, the batch)."""
    done = set()
    for path in (pathlib.Path(main.__file__).parent / 'systems').glob('[!_]*.py'):
        cls = config.system(path.stem).STAGES.get(stage)
        if cls is not None and hasattr(cls, method) and cls not in done:
            done.add(cls)
            setattr(cls, method, changed(getattr(cls, method), change))


def changed(method, change):
    def call(self, batch, key, *rest):
        return change(method(self, batch, key, *rest), batch)

    return call


def nan(stage, method, step):
    """Add NaN to the result of a method in one step."""

    def change(found, batch):
        poison = jnp.where(batch['step'] == int(step) - 1, jnp.nan, 0)
        return jax.tree.map(
            lambda x: x + poison.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
            found,
        )

    patched(stage, method, change)


@jax.custom_vjp
def steep(x, bad):
    """Return x, with a gradient that is not finite where bad."""
    return x


steep.defvjp(lambda x, bad: (x, bad), lambda bad, g: (jnp.where(bad, jnp.inf, g), None))


def gradient(stage, method, step):
    """Make the gradient of a loss infinite in one step."""
    patched(
        stage,
        method,
        lambda found, batch: (steep(found[0], batch['step'] == int(step) - 1), found[1]),
    )


def clock(seconds, calls=0):
    """Change the clock of Python's part of the program: Orbax, the log, TensorBoard, the lock."""
    names = ('time', 'time_ns', 'localtime', 'gmtime')
    real, readings = {name: getattr(time, name) for name in names}, itertools.count(1)

    def shift():
        return int(seconds) if next(readings) > int(calls) else 0

    time.time = lambda: real['time']() + shift()
    time.time_ns = lambda: real['time_ns']() + shift() * 10**9

    def changed_clock(read):
        return lambda at=None: read(time.time() if at is None else at)

    for name in ('localtime', 'gmtime'):
        setattr(time, name, changed_clock(real[name]))


def room(limit):
    """Limit the size of files."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))


def asleep(seconds):
    """Let the clock jump after each save has started."""
    real, slept, save = time.time, [0], checkpoint.Checkpoints.save

    def save_and_sleep(self, *args, **keywords):
        save(self, *args, **keywords)
        slept[0] += int(seconds)

    checkpoint.Checkpoints.save, time.time = save_and_sleep, lambda: real() + slept[0]


FAULTS = dict(nan=nan, gradient=gradient, clock=clock, room=room, asleep=asleep)

if __name__ == '__main__':
    fault, *arguments = sys.argv.pop(1).split(':')
    FAULTS[fault](*arguments)
    main.cli()
