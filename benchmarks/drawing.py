"""What drawing costs: the start, one picture, many, and memory.

    python -m benchmarks.drawing gan_cls_shapes:quick attngan_shapes:full --out=FILE.md

Of each experiment a run is made and left untrained. The program then draws one picture of a
sentence, first without compiled programs (cold), then with them (warm, the median of --times): CPU
seconds from its call to its end, and resident memory at most. In a process of its own a Sampler
draws 1, 8 and 64 pictures: milliseconds by the clock (median), after one that compiles.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax

from benchmarks.opened import untrained
from benchmarks.step import configured
from t2i_jax import Sampler
from t2i_jax.runtime import sharding

TEXT, NUMBERS = 'a large red circle', (1, 8, 64)


def child(words, cache):
    """Run Python with these words -> (CPU seconds, MB, what it printed); ends where that fails."""
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'XDG_CACHE_HOME': str(cache)},
    )
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f'{" ".join(words)} failed: {said}')
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, said


def measure(experiment, changes, times):
    """Measure an experiment -> its row."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        words = ['--inside', experiment, *(f'--set={one}' for one in changes)]
        child(['-m', 'benchmarks.drawing', *words, f'--run={folder / "run"}'], folder / 'made')
        draw = ['-m', 't2i_jax', f'--workdir={folder / "run"}', '--mode=sample', '--num=1']
        draw += [f'--text={TEXT}']
        cold, *_ = child(draw, folder / 'cache')
        warm = [child(draw, folder / 'cache') for _ in range(times)]
        inside = ['-m', 'benchmarks.drawing', '--inside', f'--times={times}']
        *_, said = child([*inside, f'--run={folder / "run"}'], folder / 'cache')
    return dict(
        name=experiment,
        cold=cold,
        warm=statistics.median(one[0] for one in warm),
        memory=statistics.median(one[1] for one in warm),
        **json.loads(said.splitlines()[-1]),
    )


def inside(run, experiment, changes, times):
    """Make the run in this process, or measure a Sampler of it and print the numbers."""
    if experiment:
        return untrained(configured(experiment, changes), run, sharding.make_mesh())
    sampler, found = Sampler.load(run), {}
    for num in NUMBERS:
        spent = []
        for _ in range(times + 1):
            start = time.perf_counter()
            sampler(TEXT, num=num)
            spent.append(time.perf_counter() - start)
        found[f'ms_{num}'] = 1e3 * statistics.median(spent[1:])
    print(json.dumps(found))


def table(rows):
    """Rows as a table in Markdown."""
    titles = ['cold, CPU s', 'warm, CPU s', 'memory, MB', *(f'{n}, ms' for n in NUMBERS)]
    lines = ['| | ' + ' | '.join(titles) + ' |', '|---' * (len(titles) + 1) + '|']
    for row in rows:
        cells = [f'{row["cold"]:.1f}', f'{row["warm"]:.2f}', f'{row["memory"]:,.0f}']
        cells += [f'{row[f"ms_{n}"]:,.1f}' for n in NUMBERS]
        lines.append(f'| {row["name"]} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def cli():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('experiments', nargs='*', help='<name> or <name>:<variant>')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE')
    parser.add_argument('--times', type=int, default=5)
    parser.add_argument('--out', type=pathlib.Path, help='Markdown file')
    parser.add_argument('--inside', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--run', default='', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        experiment = args.experiments[0] if args.experiments else ''
        return inside(args.run, experiment, args.set, args.times)
    rows = [measure(experiment, args.set, args.times) for experiment in args.experiments]
    command = ' '.join(['python -m benchmarks.drawing', *sys.argv[1:]])
    text = (
        f'`{command}`, {datetime.date.today()}, {jax.devices()[0].device_kind}\n\n{table(rows)}\n'
    )
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == '__main__':
    cli()
