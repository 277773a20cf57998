"""What a step costs as its batch grows, and as devices share it.

    python -m benchmarks.growth gan_cls_shapes:laptop --stage=gan --out=benchmarks/results/growth.md

Batches of 1 to 16 rows run (benchmarks.step): the time is that of all processors, the memory that
of the compiled step. Of 1 to 8 devices the operations of the compiled step are counted, with the
batch of the experiment (benchmarks.devices); `x n` is 1 where nothing is computed twice.
"""

import argparse
import datetime
import json
import pathlib
import subprocess
import sys
import tempfile

import jax

from benchmarks.step import alone

BATCHES, DEVICES = (1, 2, 4, 8, 16), (1, 2, 4, 8)


def grown(args):
    """Measure the batches -> a table in Markdown."""
    lines = [
        '| rows | images/CPU s | CPU ms a picture | step, MB | MB a picture | GFLOP a picture |',
        '|---|---|---|---|---|---|',
    ]
    settings = args.set
    for rows in BATCHES:
        args.set = [*settings, f'stages.{args.stage}.batch_size={rows}']
        one = alone(args, args.experiment, args.stage)
        each, memory = one['used'] / rows, one['memory'] / 1e6
        lines.append(
            f'| {rows} | {1 / each:,.1f} | {1e3 * each:,.1f} | {memory:,.0f} | '
            f'{memory / rows:,.0f} | {one["flops"] / rows / 1e9:,.2f} |'
        )
        print(lines[-1], flush=True)
    args.set = settings
    return '\n'.join(lines)


def shared(args):
    """Count the operations of the devices -> a table in Markdown. Ends where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, 'numbers.json')
        done = subprocess.run(
            [
                *(sys.executable, '-m', 'benchmarks.devices', f'--config={args.experiment}'),
                f'--stage={args.stage}',
                f'--devices={",".join(map(str, DEVICES))}',
                f'--json={file}',
                *(f'--config.{one}' for one in args.set),
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(file.read_text())
    lines = ['| devices | MFLOP a device | x n | temporary, MB a device |', '|---|---|---|---|']
    for one in found:
        lines.append(
            f'| {one["devices"]} | {one["flops"] / 1e6:,.0f} | {one["ratio"]:.3f} | '
            f'{one["temporary"] / 1e6:,.0f} |'
        )
    return '\n'.join(lines)


def cli():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('experiment', help='<name> or <name>:<variant>')
    parser.add_argument('--stage', required=True)
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE')
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--seconds', type=float, default=5)
    parser.add_argument('--out', type=pathlib.Path, help='Markdown file')
    args = parser.parse_args()
    args.trace = ''
    command = ' '.join(['python -m benchmarks.growth', *sys.argv[1:]])
    how = __doc__.partition('Batches of')
    text = (
        f'# What grows with the batch, and with devices\n\n```\n{command}\n```\n\n'
        f'{how[1]}{how[2]}\n{datetime.date.today()}, jax {jax.__version__}.\n\n'
        f'{grown(args)}\n\n{shared(args)}\n'
    )
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == '__main__':
    cli()
