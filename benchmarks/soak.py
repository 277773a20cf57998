"""Memory, open files and threads of a process over thousands of tiny steps.

    python -m benchmarks.soak --steps=5000 --out=soak      # a table, soak.json, soak.png
    MALLOC_ARENA_MAX=1 python -m benchmarks.soak           # one arena instead of one a thread

The steps log, sample, evaluate and save. The real program runs in a process of its own and is
observed from outside (/proc, so on Linux). With one arena the memory in use is seen, without the
part that glibc spreads over the arenas of a hundred threads. Slopes are least squares over
measurements after `--warmup` steps, with their standard errors; neighbouring measurements are
averaged first, in BATCHES groups, since the values change slowly.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

import numpy as np
from matplotlib.figure import Figure

from benchmarks import program

EVERY = dict(log_every=5, validate_every=50, sample_every=100, checkpoint_every=50)
EVALUATE = 500
BATCHES = 20
LABELS = dict(
    memory='resident memory, MB', files='open files', threads='threads', checkpoints='checkpoints'
)


def look(pid, folder):
    """Measure once -> a row; None where the process has just ended."""
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
    """Read the step of the last whole line."""
    if not path.exists():
        return 0
    with open(path, 'rb') as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().split(b'\n')[:-1]
    lines = [line for line in lines if line.startswith(b'{') and line.endswith(b'}')]
    return json.loads(lines[-1])['step'] if lines else 0


def slope(steps, values):
    """Fit a line to the means of BATCHES groups -> (slope, standard error).

    Both for 1,000 steps.
    """

    def means(of):
        groups = np.array_split(np.asarray(of, float), min(BATCHES, len(steps)))
        return np.array([group.mean() for group in groups])

    x, y = means(steps), means(values)
    x = x / 1000 - x.mean() / 1000
    change = (x * y).sum() / (x * x).sum()
    rest = y - y.mean() - change * x
    return change, np.sqrt((rest**2).sum() / max(len(x) - 2, 1) / (x * x).sum())


def plot(rows, warmup, path):
    """Plot all measurements over the steps."""
    figure = Figure(figsize=(8, 7), layout='constrained')
    axes = figure.subplots(3, 1, sharex=True)
    steps = [row['step'] for row in rows]
    for axis, (name, label) in zip(axes, LABELS.items()):
        axis.plot(steps, [row[name] for row in rows], '.', markersize=3)
        axis.axvline(warmup, color='grey', linewidth=0.8)
        axis.set(ylabel=label, ylim=(0, None))
    axes[-1].set(xlabel='step')
    figure.savefig(path, dpi=110)


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
        workdir, settings = folder / 'run', {**EVERY, 'steps': args.steps}
        flags = [f'--config.stages.gan.{name}={value}' for name, value in settings.items()]
        with open(folder / 'output', 'w+') as output:
            process = program.start(
                workdir,
                *program.DENSE,
                f'--config.data.dir={folder / "data"}',
                *flags,
                f'--config.eval.every={EVALUATE}',
                '--config.eval.every_num=40',
                *args.flags,
                stdout=output,
            )
            rows = []
            while process.poll() is None:
                rows.append(look(process.pid, workdir / 'gan'))
                time.sleep(args.every)
            output.seek(0)
            if process.returncode:
                sys.exit(output.read())
        stage = workdir / 'gan'
        grids, left = len(list((stage / 'samples').glob('*.png'))), program.saved(stage)
        evaluations = sum(
            any(name.startswith('evaluation/') for name in line) for line in program.logged(stage)
        )
    # without the start and the end of the process
    rows = [row for row in rows if row and 0 < row['step'] < args.steps]
    late = [row for row in rows if row['step'] >= args.warmup]
    print(
        f'{args.steps:,} steps; {args.steps // EVERY["checkpoint_every"]} checkpoints, of which '
        f'{left} are left; {grids} sample grids, {evaluations} evaluations; {len(late)} looks '
        f'after step {args.warmup:,}\n'
    )
    print("| | at the warm-up's end | at the end | most | change in 1,000 steps |")
    print('|---|---|---|---|---|')
    slopes = {}
    for name, label in LABELS.items():
        values = [row[name] for row in late]
        change, error = slope([row['step'] for row in late], values)
        slopes[name] = dict(change=change, error=error)
        print(
            f'| {label} | {values[0]:,.0f} | {values[-1]:,.0f} | {max(values):,.0f} '
            f'| {change:+.2f} ± {error:.2f} |'
        )
    plot(rows, args.warmup, f'{args.out}.png')
    report = dict(slopes=slopes, kept=left, looks=rows)
    pathlib.Path(f'{args.out}.json').write_text(json.dumps(report) + '\n')


if __name__ == '__main__':
    main()
