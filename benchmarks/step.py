"""The cost of a training step: time, images a second, FLOPs, memory, the wait for data.

    python -m benchmarks.step gan_cls_shapes:laptop damsm_shapes      # a row for each stage
    python -m benchmarks.step gan_cls_birds --stage=gan --set=dtype=bfloat16 \\
        --set=data.name=shape_scenes/single
    python -m benchmarks.step stackgan_pp_shapes --stage=gan --compare=dtype=float32,dtype=bfloat16
    python -m benchmarks.step dcgan_shapes:tiny --start               # seconds to the first step
    python -m benchmarks.step stackgan_pp_shapes --stage=gan --trace=profile   # what takes the time

It is the trainer's own program on the trainer's own data; earlier stages have fresh weights. Each
stage is measured in a process of its own, after a warm-up, for `--steps` steps or `--seconds`,
whichever ends later. A step lasts from the end of the one before to its own, the wait for data
included. The ceiling of FLOP/s is that of a large matrix product. `--compare=A,B` alternates two
settings step by step in one process; A and B are settings joined by +,
`remat=True+stages.gan.batch_size=8`, or experiments. `--start` times the real program, from its
call to the next logged step of a stage: the first start, without compiled programs and stored
tables, the second, which resumes, and the start of another run.
"""

import argparse
import contextlib
import datetime
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

from benchmarks.opened import open_trainer, require_stage
from t2i_jax import config as settings
from t2i_jax.data.dataset import prepared
from t2i_jax.run import Run
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.runtime.memory import one_heap, reuse

# more steps than are ever measured
ENDLESS = 1 << 40
# title, key, factor, format
COLUMNS = (
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
    """Load an experiment with settings `key=value` laid over it. Raises RunError."""
    for change in changes:
        if '=' not in change:
            raise RunError(f'{change!r} is not a setting; one looks like dtype=bfloat16.')
    return settings.load(experiment, dict(change.split('=', 1) for change in changes))


def stages_of(config, only):
    """List the stages of a config, or that one. Raises RunError where it is not among them."""
    run = Run(config)
    if only:
        require_stage(run, only)
    return [only] if only else run.names


# ------------------------------------------------------------------------------------------ measure
class Measured:
    """The compiled step of one stage, its state and its stream of batches."""

    def __init__(self, config, stage, folder):
        mesh = sharding.make_mesh(config.mesh.fsdp)
        trainer = open_trainer(config, stage, folder, mesh)
        trainer.open_model()
        self.dtype, self.batch_size = config.dtype, trainer.block.batch_size
        self.together, self.tables = trainer.together, trainer.feed.tables
        self.batches = trainer.feed.batches(0, ENDLESS, self.together)
        rows = next(self.batches)
        self.sent = sum(x.nbytes for x in jax.tree.leaves(rows)) / self.together
        start = time.perf_counter()
        lowered = trainer.compiled.step.lower(trainer.shapes, self.tables, rows)
        traced = time.perf_counter()
        self.program = lowered.compile()
        self.trace, self.compile = traced - start, time.perf_counter() - traced
        self.state = trainer.initial()
        # seconds of each dispatch, those of all processors, and of its wait for data
        self.times, self.used, self.waits = [], [], []

    def step(self):
        """Start one dispatch -> (metrics to wait for, seconds spent waiting for data)."""
        start = time.perf_counter()
        rows = next(self.batches)
        waited = time.perf_counter() - start
        self.state, metrics = self.program(self.state, self.tables, rows)
        return metrics, waited

    def numbers(self, ceiling):
        """Report what was measured, in seconds, bytes, FLOPs. ceiling: FLOP/s."""
        memory = self.program.memory_analysis()
        # of a loop those of one turn
        flops = (self.program.cost_analysis() or {}).get('flops', 0)
        step = statistics.median(self.times) / self.together
        tenths = [t / self.together for t in statistics.quantiles(self.times, n=10)]
        stats = jax.local_devices()[0].memory_stats() or {}
        return dict(
            batch_size=self.batch_size,
            steps=len(self.times) * self.together,
            step=step,
            used=statistics.median(self.used) / self.together,
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
    """Measure one alone, or two whose steps alternate -> the numbers of each of `runs`."""
    products = {one.dtype: matrix_product(one.dtype) for one in runs}
    ceilings = dict.fromkeys(products, 0.0)
    for one in runs:
        for _ in range(3):
            jax.block_until_ready(one.step())
    with reuse() as begin:
        begin()
        reset_resident_peak()
        began = probed = time.perf_counter()
        while len(runs[0].times) < steps or time.perf_counter() - began < seconds:
            if len(runs) > 1:
                for one in runs:
                    start, used = time.perf_counter(), time.process_time()
                    metrics, waited = one.step()
                    jax.block_until_ready(metrics)
                    one.times.append(time.perf_counter() - start)
                    one.used.append(time.process_time() - used)
                    one.waits.append(waited)
            else:
                pipelined(runs[0], min(steps, 10))
            # now and then, since machines are shared
            if not any(ceilings.values()) or time.perf_counter() - probed > 5:
                for dtype, product in products.items():
                    ceilings[dtype] = max(ceilings[dtype], product())
                probed = time.perf_counter()
    return [one.numbers(ceilings[one.dtype]) for one in runs]


def pipelined(one, steps):
    """Run steps as the trainer does: the next one is started before the last one has ended."""
    last, _ = one.step()
    start, used = time.perf_counter(), time.process_time()
    for _ in range(steps):
        metrics, waited = one.step()
        jax.block_until_ready(last)
        last, now, used_now = metrics, time.perf_counter(), time.process_time()
        one.times.append(now - start)
        one.used.append(used_now - used)
        one.waits.append(waited)
        start, used = now, used_now
    jax.block_until_ready(last)


def matrix_product(dtype):
    """Make a function that multiplies square matrices and returns its best FLOP/s of three.

    They are as large as a tenth of a second allows.
    """
    product = jax.jit(lambda a: a @ a)

    def rate(n):
        a = jnp.ones((n, n), dtype)
        jax.block_until_ready(product(a))
        began = time.perf_counter()
        jax.block_until_ready(product(a))
        return 2 * n**3 / (time.perf_counter() - began)

    n = 512
    # twice the side: eight times the operations
    while n < 16_384 and 16 * n**3 / rate(n) <= 0.1:
        n *= 2
    return lambda: max(rate(n) for _ in range(3))


def reset_resident_peak():
    """Forget the memory that compiling needed (Linux)."""
    with contextlib.suppress(OSError):
        pathlib.Path('/proc/self/clear_refs').write_text('5')


def resident_peak():
    """Read the most bytes that this process had in memory since the reset."""
    with contextlib.suppress(OSError, StopIteration):
        return next(
            int(line.split()[1]) * 1024
            for line in pathlib.Path('/proc/self/status').read_text().splitlines()
            if line.startswith('VmHWM')
        )
    return 0


# ------------------------------------------------------------------------------------------ reports
def alone(args, experiment, stage):
    """Measure one stage in a process of its own -> its row. Ends the program where that fails."""
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
    found = [line for line in done.stdout.splitlines() if line.startswith('result ')]
    if not found:
        sys.exit(done.stderr.strip().splitlines()[-1] if 'Error: ' in done.stderr else done.stderr)
    return json.loads(found[0].removeprefix('result '))


def inside(args, experiment, stage):
    """Measure one stage in this process, and print its row for `alone`."""
    # as training from the command line does
    one_heap()
    with tempfile.TemporaryDirectory() as folder:
        one = Measured(configured(experiment, args.set), stage, pathlib.Path(folder))
        (row,) = measure([one], args.steps, args.seconds)
        if args.trace:
            with jax.profiler.trace(args.trace, create_perfetto_trace=True):
                pipelined(one, 3)
    print('result', json.dumps(row | machine()))


def machine():
    """Describe the machine of a row."""
    return dict(
        device=jax.devices()[0].device_kind,
        devices=jax.device_count(),
        cores=os.cpu_count(),
        jax=jax.__version__,
    )


def compared(args, experiment, stage):
    """Measure two settings whose steps alternate -> (rows, {key: ratio of the second})."""
    sides = args.compare.split(',')
    if len(sides) != 2:
        raise RunError(
            f'--compare={args.compare}: expected two settings, such as '
            '--compare=remat=False,remat=True'
        )
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for name, side in zip('ab', sides):
            is_setting = '=' in side
            other, changes = (experiment, side.split('+')) if is_setting else (side, [])
            config = configured(other, args.set + changes)
            runs.append(Measured(config, stage, pathlib.Path(folder, name)))
        rows = measure(runs, args.steps, args.seconds)
    first, second = rows
    keys = [key for key in ('step', 'images_per_s', 'compile', 'flops', 'memory') if first[key]]
    # the peak is that of both together
    rows = [dict(name=side, **row, **machine()) | {'peak': None} for side, row in zip(sides, rows)]
    return rows, {key: second[key] / first[key] for key in keys}


def started(args, experiment):
    """Time the real program from its call to the next logged step -> {kind: seconds}.

    first: without compiled programs and stored tables
    again: the same command once more, which resumes
    new: a new run with the programs and tables of the first

    The data are built, and the stages before are trained.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder, config = pathlib.Path(folder), configured(experiment, args.set)
        names, stage = stages_of(config, ''), stages_of(config, args.stage)[-1]
        trained, cache = folder / 'trained', folder / 'cache'
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
        first_step(trained, stage, flags, folder / 'other')
        shutil.rmtree(trained / stage)
        for kind in ('first', 'new'):
            shutil.copytree(trained, folder / kind)
        shutil.rmtree(pathlib.Path(prepared(config.data).data_dir) / 'tables', ignore_errors=True)
        return dict(
            first=first_step(folder / 'first', stage, flags, cache),
            new=first_step(folder / 'new', stage, flags, cache),
            again=first_step(folder / 'first', stage, flags, cache),
        )


def first_step(workdir, stage, flags, cache):
    """Time a start until the program has logged a step of a stage -> seconds.

    It then saves and leaves. Ends this program where that fails.
    """
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
    output = process.communicate()[0].decode()
    if size(losses) <= before:
        sys.exit(output)
    return seconds


def size(path):
    """Bytes of a file, 0 where there is none."""
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
        '--start', action='store_true', help='time to the first step; stored tables are made again'
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
                f'{experiment}: first step after {found["first"]:.1f} s, of the second start after '
                f'{again}, of a new run after {new}',
                flush=True,
            )
            continue
        for stage in stages_of(configured(experiment, args.set), args.stage):
            if args.inside:
                return inside(args, experiment, stage)
            name = f'{experiment} {stage}'
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
