"""Runs the program with a fault in it: `python -m benchmarks.inject <fault>[:<argument>...] <arguments of t2i_jax.main>`.

nan:<stage>:<method>:<step>        the method (a loss, or forward) gives NaN in that step (counted from 1)
gradient:<stage>:<method>:<step>   the loss is finite, its gradient is not
clock:<seconds>[:<calls>]          the clock shows another time, from the n-th time on that somebody looks at it
room:<bytes>                       no file may become larger
asleep:<seconds>                   the clock is so much further after each save has begun, as where the process was stopped or the machine slept
"""

import pathlib
import resource
import sys
import time

import jax
import jax.numpy as jnp

from t2i_jax import main, run
from t2i_jax.runtime import checkpoint


def patched(stage, method, change):
    """Every system's stage of that name gets another method: change(what it returns, the batch)."""
    done = set()
    for path in (pathlib.Path(run.__file__).parent / 'systems').glob('[!_]*.py'):
        cls = run.system(path.stem).STAGES.get(stage)
        if cls is not None and hasattr(cls, method) and cls not in done:
            done.add(cls)
            setattr(cls, method, changed(getattr(cls, method), change))


def changed(method, change):
    def call(self, batch, key, *rest):
        return change(method(self, batch, key, *rest), batch)

    return call


def nan(stage, method, step):
    def change(found, batch):
        poison = jnp.where(batch['step'] == int(step) - 1, jnp.nan, 0)
        return jax.tree.map(
            lambda x: x + poison.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
            found,
        )

    patched(stage, method, change)


@jax.custom_vjp
def steep(x, bad):
    """x, with a gradient that is not finite where bad."""
    return x


steep.defvjp(lambda x, bad: (x, bad), lambda bad, g: (jnp.where(bad, jnp.inf, g), None))


def gradient(stage, method, step):
    patched(
        stage,
        method,
        lambda found, batch: (steep(found[0], batch['step'] == int(step) - 1), found[1]),
    )


def clock(seconds, calls=0):
    """Of Python's part of the program: Orbax, the log, TensorBoard, the lock."""
    real, looks = (
        {name: getattr(time, name) for name in ('time', 'time_ns', 'localtime', 'gmtime')},
        [0],
    )

    def shift():
        looks[0] += 1
        return int(seconds) if looks[0] > int(calls) else 0

    time.time = lambda: real['time']() + shift()
    time.time_ns = lambda: real['time_ns']() + shift() * 10**9
    for name in ('localtime', 'gmtime'):
        setattr(
            time, name, lambda at=None, real=real[name]: real(time.time() if at is None else at)
        )


def room(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))


def asleep(seconds):
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
