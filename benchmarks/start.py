"""What a start costs: one picture of a sentence, cold and warm, and the imports by package.

    python -m benchmarks.start gan_cls_shapes:tiny --out=benchmarks/results/start.md

Of each experiment a run is made and left untrained, and the program draws one picture of a
sentence: without stored compiled programs (cold), then with them (warm). Its CPU seconds are
counted from its call to its end. Imports are those of the warm start: CPU seconds of a program that
imports the same modules and does nothing else, shared out among packages by the time that Python's
-X importtime finds for each module without those that it imports.
"""

import argparse
import collections
import datetime
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import jax

from benchmarks.drawing import TEXT, child

# packages with less than so many ms are added up
LEAST = 20
OTHERS = 'others'


# imports the modules whose names it is given; not all can be imported by name alone
IMPORT = """
import contextlib, importlib, sys
for name in sys.argv[1:]:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
"""


def imports(words, cache):
    """Run Python with these words -> {package: CPU ms that importing its modules takes}."""
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', *words],
        capture_output=True,
        text=True,
        env={**os.environ, 'XDG_CACHE_HOME': str(cache)},
    )
    if done.returncode:
        sys.exit(f'{" ".join(words)} failed: {done.stderr}')
    found, names = collections.Counter(), []
    for line in done.stderr.splitlines():
        own, _, name = line.removeprefix('import time:').partition('|')
        if line.startswith('import time:') and own.strip().isdigit():
            names.append(name.rpartition('|')[-1].strip())
            found[package_of(names[-1].partition('.')[0])] += int(own)
    seconds, *_ = child(['-c', IMPORT, *names], cache)
    return {name: 1e3 * seconds * own / found.total() for name, own in found.items()}


def package_of(module):
    """Name the package of a top-level module: those of Python itself are one, those of JAX, too."""
    if module.removeprefix('_') in sys.stdlib_module_names or module in sys.stdlib_module_names:
        return 'Python'
    return {'jaxlib': 'jax', 'tfds_builders': 't2i_jax'}.get(module, module)


def measure(experiment, changes, times):
    """Measure an experiment -> its row."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run, cache = folder / 'run', folder / 'cache'
        make = ['-m', 'benchmarks.drawing', '--inside', experiment, f'--run={run}']
        child([*make, *(f'--set={one}' for one in changes)], folder / 'made')
        draw = ['-m', 't2i_jax', f'--workdir={run}', '--mode=sample', '--num=1', f'--text={TEXT}']
        cold = [child(draw, folder / f'cold{i}')[0] for i in range(times)]
        child(draw, cache)
        warm = [child(draw, cache)[0] for _ in range(times)]
        packages = [imports(draw, cache) for _ in range(times)]
    names = dict.fromkeys(name for one in packages for name in one)
    spent = {name: statistics.median(one[name] for one in packages) for name in names}
    return dict(
        name=experiment,
        cold=statistics.median(cold),
        warm=statistics.median(warm),
        packages=few(spent),
    )


def few(spent):
    """Order packages by their time, and add up those with little of it."""
    found = {name: ms for name, ms in spent.items() if ms >= LEAST}
    found = dict(sorted(found.items(), key=lambda item: -item[1]))
    return found | {OTHERS: sum(spent.values()) - sum(found.values())}


def table(rows):
    """Rows as tables in Markdown."""
    lines = ['| | cold, CPU s | warm, CPU s | of it imports |', '|---|---|---|---|']
    for row in rows:
        total = sum(row['packages'].values()) / 1e3
        lines.append(f'| {row["name"]} | {row["cold"]:.2f} | {row["warm"]:.2f} | {total:.2f} |')
    names = dict.fromkeys(name for row in rows for name in row['packages'] if name != OTHERS)
    lines += ['', f'| imports, CPU ms | {" | ".join(row["name"] for row in rows)} |']
    lines.append('|---' * (len(rows) + 1) + '|')
    for name in [*names, OTHERS]:
        cells = [f'{row["packages"].get(name, 0):,.0f}' for row in rows]
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def cli():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('experiments', nargs='+', help='<name> or <name>:<variant>')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE')
    parser.add_argument('--times', type=int, default=5)
    parser.add_argument('--out', type=pathlib.Path, help='Markdown file')
    args = parser.parse_args()
    rows = [measure(experiment, args.set, args.times) for experiment in args.experiments]
    command = ' '.join(['python -m benchmarks.start', *sys.argv[1:]])
    _, _, how = __doc__.partition('Of each')
    text = (
        f'# What a start costs\n\n```\n{command}\n```\n\nOf each{how}\nMedians of {args.times}, '
        f'{datetime.date.today()}, jax {jax.__version__}.\n\n{table(rows)}\n'
    )
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == '__main__':
    cli()
