"""Operations, memory and communication of a training step on several devices.

    python -m benchmarks.devices --config=gan_cls_shapes --stage=gan --devices=1,2,4,8
    python -m benchmarks.devices --config=stackgan_pp_birds:tiny --fsdp \\
        --config.data.name=shape_scenes/single_quick

They are read off the compiled program. Nothing runs, so the virtual devices of a CPU will do. A
step has work for each row of the batch, which n devices share, and work for each parameter
(optimiser, average, the test for finite values), which each device does for all that it holds. The
cost of rows is the difference to a batch of twice the size. `x n` is n times the operations of a
device over those of one device alone: 1 where nothing is computed twice.

An exchanged array gets its kind from the code that computes it:

    BatchNorm    sums over the batch in a batch normalisation, forward and backward, and the
    gradients
                 of its scale and bias
    gradient     of a trained array: the same number of entries, or of a convolution's kernel, parts
    and
                 rearrangements of it included. An array that is used several times has several: XLA
                 on CPU adds them up after they are exchanged
    parameter    under --fsdp, where state is sharded: gathered before it is used, the same number
    of
                 entries
    scalar       losses, logged values, norms
    other        everything else; listed with its source
"""

import argparse
import collections
import contextlib
import json
import math
import os
import pathlib
import re
import sys
import tempfile
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.opened import open_trainer
from t2i_jax.config import load
from t2i_jax.data.feed import host_batches
from t2i_jax.run import Run
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import DataError, RunError

KINDS = (
    'all-reduce',
    'all-gather',
    'reduce-scatter',
    'all-to-all',
    'collective-permute',
    'collective-broadcast',
)
BYTES = {
    'pred': 1,
    's8': 1,
    'u8': 1,
    's16': 2,
    'u16': 2,
    'bf16': 2,
    'f16': 2,
    's32': 4,
    'u32': 4,
    'f32': 4,
    's64': 8,
    'u64': 8,
    'f64': 8,
}
COLUMNS = (
    'devices (data x fsdp)',
    'MFLOP a device',
    'x n',
    'of rows, x n',
    'arguments, MB',
    'temporary, MB',
    'operations',
)
WHATS = ('gradient', 'BatchNorm', 'parameter', 'scalar', 'other')


class Sent(NamedTuple):
    """One array of a collective; an operation may send several.

    kind, operation: of the collective, and its name
    code: JAX's name of the operation that computes the array, with the transformations around it
    source: file:line of the Python code, innermost first
    again: it stands in a loop or a branch
    """

    kind: str
    operation: str
    dtype: str
    shape: tuple[int, ...]
    code: str
    source: tuple[str, ...]
    again: bool

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def bytes(self):
        return self.size * BYTES[self.dtype]

    def what(self, trained, sharded=()):
        """Name its kind, one of WHATS.

        trained: numbers of entries of the trained arrays
        sharded: those of the arrays that may be sharded, frozen ones, too
        """
        if self.kind == 'all-reduce' and any('layers/norm.py' in line for line in self.source):
            return 'BatchNorm'
        if self.size == 1:
            return 'scalar'
        if (
            self.kind in ('all-reduce', 'reduce-scatter')
            and 'transpose(' in self.code
            and (self.size in trained or 'conv_general_dilated' in self.code)
        ):
            return 'gradient'
        return 'parameter' if self.size in sharded else 'other'


def collectives(text) -> list[Sent]:
    """List the arrays that devices exchange in a compiled program, given as HLO text."""
    places, named, found, main = sources(text), {}, [], False
    for line in text.splitlines():
        if line.startswith(('%', 'ENTRY')):
            main = line.startswith('ENTRY')
        parts = re.match(r'\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z-]+)\((.*)', line)
        if parts:
            name, result, kind, rest = parts.groups()
            code = re.search(r'op_name="([^"]*)"', rest)
            frame = re.search(r'stack_frame_id=(\d+)', rest)
            named[name] = code and (code.group(1), places(int(frame.group(1))) if frame else ())
            if kind.removesuffix('-start') in KINDS:
                found.append((name, result, kind.removesuffix('-start'), rest, not main))
    out = []
    for name, result, kind, rest, again in found:
        operands = re.findall(r'%([\w.-]+)', rest.partition('), ')[0])
        arrays = re.findall(r'([a-z]+\d*)\[([\d,]*)\]', result)
        for operand, (dtype, shape) in zip(operands, arrays):
            code, source = named.get(operand) or named[name] or ('', ())
            shape = tuple(int(n) for n in shape.split(',') if n)
            out.append(Sent(kind, name, dtype, shape, code, source, again))
    return out


def sources(text):
    """Make a function: number of a Python stack frame in HLO text -> ('file:line', ...).

    From the innermost on; () where the text has no such table.
    """

    def table(name, pattern):
        rows = re.search(rf'^{name}\n((?:\d+ .*\n)*)', text, re.MULTILINE)
        entries = rows.group(1) if rows else ''
        found = re.findall(rf'^(\d+) {pattern}', entries, re.MULTILINE)
        return {int(number): values for number, *values in found}

    files = table('FileNames', '"(.*)"')
    lines = table('FileLocations', r'{file_name_id=(\d+) .*?\bline=(\d+)')
    frames = table('StackFrames', r'{file_location_id=(\d+)(?: parent_frame_id=(\d+))?')
    # the first frame has no parent, whatever number stands for that
    root = int(frames[1][1] or 0) if frames else 0

    def walk(number):
        out = []
        while number in frames:
            location, parent = frames[number]
            file, line = lines[int(location)]
            out.append(f'{files[int(file)][0]}:{line}')
            number = int(parent or 0) - root
        return tuple(out)

    return walk


def rows(trainer, times=1):
    """Find the shapes of the rows that a step reads.

    times: how many times the rows of the trainer's batch.
    """
    feed = trainer.feed
    steps = (trainer.together,) if trainer.together > 1 else ()
    place = sharding.by_rows(feed.mesh, bool(steps))

    def shape(x):
        x = np.asarray(x)
        full = (*steps, int(times * len(x)), *x.shape[1:])
        return jax.ShapeDtypeStruct(full, x.dtype, sharding=place)

    with contextlib.closing(host_batches(feed.split, feed.plan, 0, 1, feed.cache)) as batches:
        return jax.tree.map(shape, next(batches))


def compiled(trainer, mesh, times=1):
    """Compile the step of a trainer for a mesh, with `times` the rows of its batch."""
    trainer.mesh = trainer.feed.mesh = trainer.held_out.mesh = mesh
    trainer.open_model()
    step, tables = trainer.compiled.step, trainer.feed.tables
    return step.lower(trainer.shapes, tables, rows(trainer, times)).compile()


def sizes(trainer):
    """Collect numbers of entries of the trained arrays, and of all that are sharded."""
    params = trainer.shapes.params
    trained = {network for phase in trainer.program.phases for network in phase.trains}

    def entries(networks):
        arrays = jax.tree.leaves([params[network] for network in networks])
        return {math.prod(x.shape) for x in arrays}

    return entries(trained), entries(params) if trainer.mesh.shape['fsdp'] > 1 else ()


def measure(trainer, mesh):
    """Compile a step for a mesh -> ({name: number}, the arrays that its devices exchange)."""
    once, twice = compiled(trainer, mesh), compiled(trainer, mesh, 2)
    memory, flops = once.memory_analysis(), once.cost_analysis()['flops']
    numbers = {
        'devices': mesh.size,
        'flops': flops,
        'row_flops': twice.cost_analysis()['flops'] - flops,
        'arguments': memory.argument_size_in_bytes,
        'temporary': memory.temp_size_in_bytes,
    }
    return numbers, collectives(once.as_text())


def main():
    args, overrides = arguments()
    counts = [int(n) for n in args.devices.split(',')]
    more = f'--xla_force_host_platform_device_count={max(counts)}'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {more}'
    jax.config.update('jax_platforms', 'cpu')
    config, report = load(args.config, overrides), []
    stage = args.stage or Run(config).names[-1]
    with tempfile.TemporaryDirectory() as folder:
        trainer = open_trainer(config, stage, folder, sharding.make_mesh(devices=jax.devices()[:1]))
        meta = trainer.stage.meta
        print(
            f'{config.system}, stage {stage}, batch {trainer.block.batch_size}, {meta.size} px, '
            f'{config.dtype}, {meta.name}'
        )
        print(f'| {" | ".join((*COLUMNS, *(f"{what}: arrays, kB" for what in WHATS)))} |')
        print('|---' * (len(COLUMNS) + len(WHATS)) + '|')
        for n in counts:
            mesh = sharding.make_mesh(n if args.fsdp else 1, jax.devices()[:n])
            numbers, sent = measure(trainer, mesh)
            known = sizes(trainer)
            first = report[0] if report else numbers
            operations = {(one.kind, one.operation) for one in sent}
            numbers |= {
                'ratio': numbers['flops'] * n / first['flops'] / first['devices'],
                'row_ratio': numbers['row_flops'] * n / first['row_flops'] / first['devices'],
                'operations': dict(collections.Counter(kind for kind, _ in operations)),
                'sent': [one._asdict() | {'what': one.what(*known)} for one in sent],
            }
            whats = {what: [one for one in sent if one.what(*known) == what] for what in WHATS}
            print(row(numbers, mesh, whats), flush=True)
            report.append(numbers)
    params = jax.tree.leaves(trainer.shapes.params)
    held = sum(math.prod(x.shape) * x.dtype.itemsize for x in params)
    print(f'\nParameters: {held / 1e3:,.1f} kB.')
    for (kind, code, source, again), count in sorted(sources_of(whats['other']).items()):
        where = ' (in a loop or branch)' if again else ''
        print(f'other: {count} {kind}{where}, {code}, {source}')
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1))


def arguments():
    """Parse the command line -> (flags, settings of the config)."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.devices',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='--config.<setting>=<value> changes a setting, as on the command line of t2i_jax.',
    )
    parser.add_argument('--config', required=True, help='an experiment, <name> or <name>:<variant>')
    parser.add_argument('--stage', help='a stage; the last one by default')
    parser.add_argument('--devices', default='1,2,4,8', help='numbers of devices')
    parser.add_argument(
        '--fsdp', action='store_true', help='shard the state over all devices (mesh.fsdp), too'
    )
    parser.add_argument('--json', help='file for all numbers')
    args, rest = parser.parse_known_args()
    for word in rest:
        if not word.startswith('--config.') or '=' not in word:
            parser.error(f'unrecognized argument: {word}')
    return args, dict(word.removeprefix('--config.').split('=', 1) for word in rest)


def row(numbers, mesh, whats):
    """A number of devices as a row of the table."""
    operations = [f'{count} {kind}' for kind, count in numbers['operations'].items()]
    cells = [
        f'{mesh.size} ({mesh.shape["data"]} x {mesh.shape["fsdp"]})',
        f'{numbers["flops"] / 1e6:,.1f}',
        f'{numbers["ratio"]:.3f}',
        f'{numbers["row_ratio"]:.3f}',
        f'{numbers["arguments"] / 1e6:,.1f}',
        f'{numbers["temporary"] / 1e6:,.1f}',
        ', '.join(operations) or 'none',
        *(f'{len(ones)}, {sum(x.bytes for x in ones) / 1e3:,.1f}' for ones in whats.values()),
    ]
    return f'| {" | ".join(cells)} |'


def sources_of(sent):
    """Count arrays by their kind, code, line of the library, and whether they are in a loop."""
    counter = collections.Counter()
    for one in sent:
        ours = [line for line in one.source if 't2i_jax' in line]
        counter[one.kind, one.code, ours[0] if ours else '', one.again] += 1
    return counter


if __name__ == '__main__':
    try:
        main()
    except (DataError, RunError) as error:
        sys.exit(f'Error: {error}')
