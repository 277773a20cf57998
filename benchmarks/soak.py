"""What a long run costs its process: memory, open files, threads over thousands of tiny steps with logging, samples, evaluation and checkpoints.

    python -m benchmarks.soak --steps=5000 --out=soak                     # a table, soak.json, soak.png
    MALLOC_ARENA_MAX=1 python -m benchmarks.soak                          # what is kept, without what glibc spreads over the arenas of a hundred threads

The real program runs in a process of its own and is looked at from outside (/proc, so on Linux). Slopes are least squares over what was seen after
`--warmup` steps, with their standard errors; `batches` of neighbouring looks are averaged first, since what is measured changes slowly.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

import matplotlib
import numpy as np

from benchmarks import program

EVERY = dict(log_every=5, validate_every=50, sample_every=100, checkpoint_every=50)
EVALUATE = 500
BATCHES = 20


def look(pid, folder):
    """One row of measurements; None where the process has just ended."""
    try:
        status = dict(
            line.split(':', 1)
            for line in pathlib.Path(f'/proc/{pid}/status').read_text().splitlines()
        )
        files = len(list(pathlib.Path(f'/proc/{pid}/fd').iterdir()))
        memory = int(status['VmRSS'].split()[0]) * 1024 / 1e6
    except (OSError, KeyError):
        return None
    return dict(
        step=newest_step(folder / 'metrics.jsonl'),
        memory=memory,
        files=files,
        threads=int(status['Threads']),
        checkpoints=len(program.saved(folder)),
    )


def newest_step(path):
    """Of the last whole line."""
    if not path.exists():
        return 0
    with open(path, 'rb') as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = [
            line
            for line in file.read().split(b'\n')[:-1]
            if line.startswith(b'{') and line.endswith(b'}')
        ]
    return json.loads(lines[-1])['step'] if lines else 0


def slope(steps, values):
    """(change in 1,000 steps, its standard error), from the means of BATCHES neighbouring groups."""
    x, y = (
        np.array(
            [
                part.mean()
                for part in np.array_split(np.asarray(what, float), min(BATCHES, len(steps)))
            ]
        )
        for what in (steps, values)
    )
    x = x / 1000 - x.mean() / 1000
    change = (x * y).sum() / (x * x).sum()
    rest = y - y.mean() - change * x
    return change, np.sqrt((rest**2).sum() / max(len(x) - 2, 1) / (x * x).sum())


def plot(rows, warmup, path):
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(8, 7), layout='constrained', sharex=True)
    steps = [row['step'] for row in rows]
    for axis, (name, label) in zip(
        axes, (('memory', 'resident memory, MB'), ('files', 'open files'), ('threads', 'threads'))
    ):
        axis.plot(steps, [row[name] for row in rows], '.', markersize=3)
        axis.axvline(warmup, color='grey', linewidth=0.8)
        axis.set(ylabel=label, ylim=(0, None))
    axes[-1].set(xlabel='step')
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--steps', type=int, default=5000)
    parser.add_argument('--warmup', type=int, default=1000)
    parser.add_argument('--every', type=float, default=0.5, help='seconds between two looks')
    parser.add_argument('--out', default='soak', help='<out>.json and <out>.png are written')
    parser.add_argument('flags', nargs='*', help='more flags for the program, after --')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='t2i_soak') as folder:
        folder = pathlib.Path(folder)
        program.make_data(folder / 'data')
        workdir, flags = (
            folder / 'run',
            [
                f'--config.stages.gan.{name}={value}'
                for name, value in {**EVERY, 'steps': args.steps}.items()
            ],
        )
        with open(folder / 'said', 'w+') as said:
            process = program.start(
                workdir,
                *program.DENSE,
                f'--config.data.dir={folder / "data"}',
                *flags,
                f'--config.eval.every={EVALUATE}',
                '--config.eval.every_num=40',
                *args.flags,
                stdout=said,
            )
            rows = []
            while process.poll() is None:
                rows.append(look(process.pid, workdir / 'gan'))
                time.sleep(args.every)
            said.seek(0)
            if process.returncode:
                sys.exit(said.read())
        drawn, kept = (
            len(list((workdir / 'gan' / 'samples').glob('*.png'))),
            program.saved(workdir / 'gan'),
        )
        evaluated = sum(
            any(name.startswith('evaluation/') for name in line)
            for line in program.logged(workdir / 'gan')
        )
    rows = [
        row for row in rows if row and 0 < row['step'] < args.steps
    ]  # without the start and the end of the process
    late = [row for row in rows if row['step'] >= args.warmup]
    found = {}
    print(
        f'{args.steps:,} steps; {args.steps // EVERY["checkpoint_every"]} checkpoints, of which {kept} are left; {drawn} sample grids, '
        f'{evaluated} evaluations; {len(late)} looks after step {args.warmup:,}\n'
    )
    print(
        "| | at the warm-up's end | at the end | most | change in 1,000 steps |\n|---|---|---|---|---|"
    )
    for name, label in (
        ('memory', 'resident memory, MB'),
        ('files', 'open files'),
        ('threads', 'threads'),
        ('checkpoints', 'checkpoints'),
    ):
        values = [row[name] for row in late]
        change, error = slope([row['step'] for row in late], values)
        found[name] = dict(change=change, error=error)
        print(
            f'| {label} | {values[0]:,.0f} | {values[-1]:,.0f} | {max(values):,.0f} | {change:+.2f} ± {error:.2f} |'
        )
    plot(rows, args.warmup, f'{args.out}.png')
    pathlib.Path(f'{args.out}.json').write_text(
        json.dumps(dict(slopes=found, kept=kept, looks=rows)) + '\n'
    )


if __name__ == '__main__':
    main()
