"""What a training step costs: time, images a second, FLOPs and their share of what a matrix product reaches, memory, the wait for data.

    python -m benchmarks.step gan_cls_shapes:laptop damsm_shapes           # a row for each stage that is trained
    python -m benchmarks.step gan_cls_birds --stage=gan --set=dtype=bfloat16 --set=data.name=shape_scenes/single
    python -m benchmarks.step stackgan_pp_shapes --stage=gan --compare=dtype=float32,dtype=bfloat16
    python -m benchmarks.step dcgan_shapes:tiny --start                                   # seconds to the first step
    python -m benchmarks.step stackgan_pp_shapes --stage=gan --trace=profile              # what the time goes to

It is the trainer's own program on the trainer's own data; earlier stages have fresh weights. Each stage is measured in a process of its own, after a
warm-up, for `--steps` steps or `--seconds`, whichever ends later. A step lasts from the end of the one before to its own, the wait for data included.
`--compare=A,B` alternates two settings step by step in one process; A and B are settings joined by +, `remat=True+stages.gan.batch_size=8`, or other
experiments. `--start` times the real program, from its call to the next logged step of a stage: the first start, without compiled programs and kept
tables, the second, which resumes, and the start of another run.
"""

import argparse
import contextlib
import datetime
import itertools
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import config as settings
from t2i_jax import run
from t2i_jax.data.dataset import prepared
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.runtime.signals import Signals
from t2i_jax.train import Trainer

COLUMNS = (  # title, key, factor, format
    ('images/s', 'images_per_s', 1, '{:,.1f}'),
    ('ms a step', 'step', 1e3, '{:,.1f}'),
    ('10-90 %', 'spread', 1e3, '{:,.1f}-{:,.1f}'),
    ('compile s', 'compile', 1, '{:.1f}'),
    ('GFLOP a step', 'flops', 1e-9, '{:,.1f}'),
    ('GFLOP/s', 'flops_per_s', 1e-9, '{:,.0f}'),
    ('of the ceiling', 'share', 1, '{:.0%}'),
    ('step MiB', 'memory', 2**-20, '{:,.0f}'),
    ('process MiB', 'peak', 2**-20, '{:,.0f}'),
    ('sent KiB', 'sent', 2**-10, '{:,.1f}'),
    ('data wait', 'wait', 1, '{:.1%}'),
)


# ----------------------------------------------------------------------------------------- settings
def configured(experiment, changes):
    """The config of an experiment with settings `key=value` laid over it. Raises RunError for what does not exist."""
    for change in changes:
        if '=' not in change:
            raise RunError(f'{change!r} is not a setting; one looks like dtype=bfloat16.')
    return settings.load(experiment, dict(change.split('=', 1) for change in changes))


def stages_of(config, only):
    """The names of the stages that this config trains, or that one. Raises RunError where it is not among them."""
    names = run.stage_names(config)
    if only and only not in names:
        raise RunError(f'There is no stage {only!r}; there are {", ".join(names)}.')
    return [only] if only else names


# ------------------------------------------------------------------------------------------ measure
class Measured:
    """The compiled step of one stage, its state and its stream of batches."""

    def __init__(self, config, stage, folder):
        mesh = sharding.make_mesh(config.mesh.fsdp)
        folder.mkdir(exist_ok=True)
        for name in run.stage_names(
            config
        ):  # earlier stages with fresh weights, as if they were trained
            if config.init.get(name):
                run.adopt(config, folder, name)
                continue
            self.trainer = trainer = Trainer(config, folder, name, mesh, Signals())
            trainer.open_data()
            if name == stage:
                break
        trainer.open_model()
        self.dtype, self.batch_size, self.together = (
            config.dtype,
            trainer.block.batch_size,
            trainer.together,
        )
        trainer.total = 1 << 40  # batches without end
        self.batches = trainer.batches(0)
        rows = next(self.batches)
        self.sent = sum(x.nbytes for x in jax.tree.leaves(rows)) / self.together
        began = time.perf_counter()
        lowered = trainer.step.lower(trainer.shapes, trainer.tables, rows)
        traced = time.perf_counter()
        self.program = lowered.compile()
        self.trace, self.compile = traced - began, time.perf_counter() - traced
        self.state = jax.jit(trainer.init, out_shardings=trainer.place)()
        self.times, self.waits = [], []

    def step(self):
        """Starts one dispatch. -> (what to wait for, seconds spent waiting for data)"""
        asked = time.perf_counter()
        rows = next(self.batches)
        waited = time.perf_counter() - asked
        self.state, metrics = self.program(self.state, self.trainer.tables, rows)
        return metrics, waited

    def numbers(self, ceiling):
        """What is reported, in seconds, bytes, FLOPs."""
        memory, flops = (
            self.program.memory_analysis(),
            (self.program.cost_analysis() or {}).get('flops', 0),
        )  # of a loop those of one turn
        step, tenths = (
            statistics.median(self.times) / self.together,
            [t / self.together for t in statistics.quantiles(self.times, n=10)],
        )
        stats = jax.local_devices()[0].memory_stats() or {}
        return dict(
            batch_size=self.batch_size,
            steps=len(self.times) * self.together,
            step=step,
            spread=tenths[::8],
            images_per_s=self.batch_size / step,
            trace=self.trace,
            compile=self.compile,
            flops=flops,
            flops_per_s=flops / step,
            ceiling=ceiling,
            share=flops / step / ceiling,
            memory=memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes,
            peak=stats.get('peak_bytes_in_use') or resident_peak(),
            sent=self.sent,
            wait=sum(self.waits) / sum(self.times),
        )


def measure(runs, steps, seconds):
    """The numbers of each of `runs`, one alone or two whose steps alternate."""
    products = {one.dtype: matrix_product(one.dtype) for one in runs}
    ceilings = dict.fromkeys(products, 0.0)
    for one in runs:
        for _ in range(3):
            jax.block_until_ready(one.step())
    reset_resident_peak()
    began = probed = time.perf_counter()
    while len(runs[0].times) < steps or time.perf_counter() - began < seconds:
        if len(runs) > 1:
            for one in runs:
                start = time.perf_counter()
                metrics, waited = one.step()
                jax.block_until_ready(metrics)
                one.times.append(time.perf_counter() - start)
                one.waits.append(waited)
        else:
            pipelined(runs[0], min(steps, 10))
        if (
            not any(ceilings.values()) or time.perf_counter() - probed > 5
        ):  # now and then, since machines are shared
            ceilings = {
                dtype: max(ceilings[dtype], product()) for dtype, product in products.items()
            }
            probed = time.perf_counter()
    return [one.numbers(ceilings[one.dtype]) for one in runs]


def pipelined(one, steps):
    """Steps as the trainer runs them: the next one is asked for before the last one has ended."""
    last, _ = one.step()
    start = time.perf_counter()
    for _ in range(steps):
        metrics, waited = one.step()
        jax.block_until_ready(last)
        last, now = metrics, time.perf_counter()
        one.times.append(now - start)
        one.waits.append(waited)
        start = now
    jax.block_until_ready(last)


def matrix_product(dtype):
    """A function that multiplies square matrices of this type, as large as a tenth of a second allows, and returns its best FLOP/s of three."""
    product = jax.jit(lambda a: a @ a)

    def rate(n):
        a = jnp.ones((n, n), dtype)
        jax.block_until_ready(product(a))
        began = time.perf_counter()
        jax.block_until_ready(product(a))
        return 2 * n**3 / (time.perf_counter() - began)

    n = next(
        n
        for n in itertools.accumulate(itertools.repeat(2), int.__mul__, initial=512)
        if n >= 16_384 or 16 * n**3 / rate(n) > 0.1
    )
    return lambda: max(rate(n) for _ in range(3))


def reset_resident_peak():
    """So that what compiling needed is not counted (Linux)."""
    with contextlib.suppress(OSError):
        pathlib.Path('/proc/self/clear_refs').write_text('5')


def resident_peak():
    """Bytes: the most that this process had in memory since."""
    with contextlib.suppress(OSError, StopIteration):
        return next(
            int(line.split()[1]) * 1024
            for line in pathlib.Path('/proc/self/status').read_text().splitlines()
            if line.startswith('VmHWM')
        )
    return 0


# ------------------------------------------------------------------------------------------ reports
def alone(args, experiment, stage):
    """The row of one stage, measured in a process of its own. Ends the program where that fails."""
    command = [
        sys.executable,
        '-m',
        'benchmarks.step',
        experiment,
        f'--stage={stage}',
        f'--steps={args.steps}',
        f'--seconds={args.seconds}',
        '--inside',
        f'--trace={args.trace}',
        *(f'--set={setting}' for setting in args.set),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    found = [
        line.removeprefix('result ')
        for line in done.stdout.splitlines()
        if line.startswith('result ')
    ]
    if not found:
        sys.exit(done.stderr.strip().splitlines()[-1] if 'Error: ' in done.stderr else done.stderr)
    return json.loads(found[0])


def inside(args, experiment, stage):
    with tempfile.TemporaryDirectory() as folder:
        one = Measured(configured(experiment, args.set), stage, pathlib.Path(folder))
        (row,) = measure([one], args.steps, args.seconds)
        if args.trace:
            with jax.profiler.trace(args.trace, create_perfetto_trace=True):
                pipelined(one, 3)
    print('result', json.dumps(row | machine()))


def machine():
    return dict(
        device=jax.devices()[0].device_kind,
        devices=jax.device_count(),
        cores=os.cpu_count(),
        jax=jax.__version__,
    )


def compared(args, experiment, stage):
    """Rows of two settings whose steps alternated, and the ratios of the second to the first."""
    sides = args.compare.split(',')
    if len(sides) != 2:
        raise RunError(
            f'--compare={args.compare} wants two settings, such as --compare=remat=False,remat=True'
        )
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for name, side in zip('ab', sides):
            other, changes = (side, []) if '=' not in side else (experiment, side.split('+'))
            runs.append(
                Measured(configured(other, args.set + changes), stage, pathlib.Path(folder, name))
            )
        rows = measure(runs, args.steps, args.seconds)
    ratios = {
        key: rows[1][key] / rows[0][key]
        for key in ('step', 'images_per_s', 'compile', 'flops', 'memory')
        if rows[0][key]
    }
    return [
        dict(name=side, **row, **machine()) | {'peak': None} for side, row in zip(sides, rows)
    ], ratios  # of both together


def started(args, experiment):
    """Seconds from the call of the real program to the next logged step of a stage. first: without compiled programs and kept tables; again: the same command
    once more, which resumes; new: a new run with what the first one has kept. The data are built and the stages before are trained."""
    with tempfile.TemporaryDirectory() as folder:
        folder, config = pathlib.Path(folder), configured(experiment, args.set)
        names = run.stage_names(config)
        stage = stages_of(config, args.stage)[-1]
        begun, cache = folder / 'begun', folder / 'cache'
        flags = [
            f'--config={experiment}',
            *(f'--config.{setting}' for setting in args.set),
            *(
                f'--config.stages.{name}.{what}'
                for name in names
                for what in (
                    'epochs=0',
                    f'steps={1000 if name == stage else 1}',
                    'steps_per_dispatch=1',
                    'log_every=1',
                )
            ),
        ]
        first_step(begun, stage, flags, folder / 'other')
        shutil.rmtree(begun / stage)
        for kind in ('first', 'new'):
            shutil.copytree(begun, folder / kind)
        shutil.rmtree(pathlib.Path(prepared(config.data).data_dir) / 'tables', ignore_errors=True)
        return dict(
            first=first_step(folder / 'first', stage, flags, cache),
            new=first_step(folder / 'new', stage, flags, cache),
            again=first_step(folder / 'first', stage, flags, cache),
        )


def first_step(workdir, stage, flags, cache):
    """Seconds until the program has logged a step of a stage, which then saves and leaves. Ends where it fails."""
    losses = workdir / stage / 'metrics.jsonl'
    began, before = time.perf_counter(), size(losses)
    process = subprocess.Popen(
        [sys.executable, '-m', 't2i_jax.main', f'--workdir={workdir}', *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(cache)},
    )
    while process.poll() is None and size(losses) <= before:
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    process.terminate()
    told = process.communicate()[0].decode()
    if not size(losses) > before:
        sys.exit(told)
    return seconds


def size(path):
    return path.stat().st_size if path.exists() else 0


def table(rows):
    """Rows of numbers as a table in Markdown."""
    lines = [
        '| | ' + ' | '.join(title for title, *_ in COLUMNS) + ' |',
        '|---' * (len(COLUMNS) + 1) + '|',
    ]
    for row in rows:
        cells = [
            form.format(*np.atleast_1d(row[key]) * factor) if row[key] is not None else ''
            for _, key, factor, form in COLUMNS
        ]
        lines.append(f'| {row["name"]} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def cli():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('experiments', nargs='+', help='<name> or <name>:<variant>')
    parser.add_argument('--stage', default='', help='one stage; by default each that is trained')
    parser.add_argument(
        '--set',
        action='append',
        default=[],
        metavar='KEY=VALUE',
        help='a setting of the config; may be given several times',
    )
    parser.add_argument(
        '--compare', metavar='A,B', help='two settings or experiments in alternation'
    )
    parser.add_argument(
        '--start', action='store_true', help='time to the first step; kept tables are made again'
    )
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--seconds', type=float, default=10)
    parser.add_argument(
        '--trace',
        default='',
        metavar='DIR',
        help='a profile of three steps, for TensorBoard or ui.perfetto.dev',
    )
    parser.add_argument('--out', help='JSON file for the numbers')
    parser.add_argument('--inside', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    jax.config.update('jax_enable_compilation_cache', False)
    report = dict(
        command=' '.join(['python -m benchmarks.step', *sys.argv[1:]]),
        date=str(datetime.date.today()),
        rows=[],
        ratios={},
        start={},
    )
    for experiment in args.experiments:
        if args.start:
            report['start'][experiment] = found = started(args, experiment)
            again, new = (
                f'{found[kind]:.1f} s ({found[kind] / found["first"]:.0%})'
                for kind in ('again', 'new')
            )
            print(
                f'{experiment}: first step after {found["first"]:.1f} s, of the second start after {again}, of a new run after {new}',
                flush=True,
            )
            continue
        for stage in stages_of(configured(experiment, args.set), args.stage):
            if args.inside:
                return inside(args, experiment, stage)
            name = (
                f'{pathlib.Path(experiment).stem}{"".join(experiment.partition(":")[1:])} {stage}'
            )
            if args.compare:
                rows, report['ratios'][name] = compared(args, experiment, stage)
                report['rows'] += [row | {'name': f'{name} {row["name"]}'} for row in rows]
            else:
                report['rows'].append(dict(name=name, **alone(args, experiment, stage)))
                print(
                    f'{name}: {report["rows"][-1]["images_per_s"]:,.1f} images/s',
                    file=sys.stderr,
                    flush=True,
                )
    if report['rows']:
        print(
            '{device}, devices: {devices}, cores: {cores}, jax {jax}'.format(**report['rows'][0])
            + f', {report["date"]}: {report["command"]}'
        )
        print(f'\n{table(report["rows"])}')
    for name, ratios in report['ratios'].items():
        print(
            f'\n{name}, the second to the first: '
            + ', '.join(f'{key} {value:.3f}' for key, value in ratios.items())
        )
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    try:
        cli()
    except (DataError, RunError) as error:
        sys.exit(f'Error: {error}')
