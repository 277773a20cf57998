"""What a training step does on several devices, read off the compiled program: operations and
memory of each device, and what they exchange.

    python -m benchmarks.devices --config=gan_cls_shapes --stage=gan --devices=1,2,4,8
    python -m benchmarks.devices --config=stackgan_pp_birds:tiny \\
        --config.data.name=shape_scenes/single_quick --fsdp

Nothing runs, so the virtual devices of a CPU will do. A step has work for each row of the batch,
which n devices share, and work for each parameter (optimiser, average, the test for finite values),
which each device does for all that it holds. What the rows cost is the difference to a batch of
twice the size. `x n` is n times the operations of a device over those of one device alone: 1 where
nothing is computed twice.

An exchanged array is told by the code that computes it, and lists what is none of the first four:

    BatchNorm    sums over the batch in a batch normalisation, forward and backward, and the
    gradients of its scale and bias gradient     of a trained array: the same number of entries, or
    of a convolution's kernel, parts and rearrangements of it included. An array that is
                 used several times has several: XLA on CPU adds them up after they are exchanged
    parameter    under --fsdp, where state is sharded: gathered before it is used, the same number
    of entries scalar       losses, what is logged, norms
    other        everything else; listed with its source
"""

import argparse
import collections
import json
import math
import os
import pathlib
import re
import sys
import tempfile
from typing import NamedTuple

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
WHATS = ('gradient', 'BatchNorm', 'parameter', 'scalar', 'other')


class Sent(NamedTuple):
    """One array of a collective; an operation may send several."""

    kind: str
    operation: str
    dtype: str
    shape: tuple[int, ...]
    code: str  # JAX's name of what computes it, with the transformations around it
    source: tuple[str, ...]  # file:line of the Python code, innermost first
    again: bool  # it stands in a loop or a branch

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def bytes(self):
        return self.size * BYTES[self.dtype]

    def what(self, trained, sharded=()):
        """trained: numbers of entries of the trained arrays; sharded: those of the arrays that may
        be sharded, frozen ones, too."""
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
    """The arrays that devices exchange in a compiled program, given as HLO text."""
    places, named, found, main = sources(text), {}, [], False
    for line in text.splitlines():
        if line.startswith(('%', 'ENTRY')):
            main = line.startswith('ENTRY')
        parts = re.match(r'\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z-]+)\((.*)', line)
        if parts:
            name, result, kind, rest = parts.groups()
            code, frame = (
                re.search(r'op_name="([^"]*)"', rest),
                re.search(r'stack_frame_id=(\d+)', rest),
            )
            named[name] = code and (code.group(1), places(int(frame.group(1))) if frame else ())
            if kind.removesuffix('-start') in KINDS:
                found.append((name, result, kind.removesuffix('-start'), rest, not main))
    out = []
    for name, result, kind, rest, again in found:
        operands = re.findall(r'%([\w.-]+)', rest.partition('), ')[0])
        for operand, (dtype, shape) in zip(
            operands, re.findall(r'([a-z]+\d*)\[([\d,]*)\]', result)
        ):
            code, source = named.get(operand) or named[name] or ('', ())
            out.append(
                Sent(
                    kind,
                    name,
                    dtype,
                    tuple(int(n) for n in shape.split(',') if n),
                    code,
                    source,
                    again,
                )
            )
    return out


def sources(text):
    """A function: number of a Python stack frame in HLO text -> ('file:line', ...) from the
    innermost on; () where the text has no such table."""

    def table(name, pattern):
        rows = re.search(rf'^{name}\n((?:\d+ .*\n)*)', text, re.MULTILINE)
        return {
            int(number): values
            for number, *values in re.findall(
                rf'^(\d+) {pattern}', rows.group(1) if rows else '', re.MULTILINE
            )
        }

    files = table('FileNames', '"(.*)"')
    lines = table('FileLocations', r'{file_name_id=(\d+) .*?\bline=(\d+)')
    frames = table('StackFrames', r'{file_location_id=(\d+)(?: parent_frame_id=(\d+))?')
    root = (
        int(frames[1][1] or 0) if frames else 0
    )  # the first frame has no parent, whatever number stands for that

    def walk(number):
        out = []
        while number in frames:
            location, parent = frames[number]
            file, line = lines[int(location)]
            out.append(f'{files[int(file)][0]}:{line}')
            number = int(parent or 0) - root
        return tuple(out)

    return walk


def open_trainer(config, stage, folder):
    """The trainer of a stage with its data, and the earlier ones' `meta.json`, without any
    training."""
    import jax

    from t2i_jax import run
    from t2i_jax.runtime import sharding
    from t2i_jax.runtime.signals import Signals
    from t2i_jax.train import Trainer

    for name in run.stage_names(config):
        trainer = Trainer(
            config,
            pathlib.Path(folder),
            name,
            sharding.make_mesh(devices=jax.devices()[:1]),
            Signals(),
        )
        trainer.open_data()
        if name == stage:
            return trainer
    raise run.RunError(
        f'There is no stage {stage!r}; there are: {", ".join(run.stage_names(config))}.'
    )


def rows(trainer, times=1):
    """The shapes of what a step reads of the host, with `times` the rows of the trainer's batch."""
    import jax
    import numpy as np

    from t2i_jax.data import feed
    from t2i_jax.runtime import sharding

    batches = feed.batches(trainer.split, trainer.plan, 0, 1, trainer.cache)
    steps = (trainer.together,) if trainer.together > 1 else ()
    found, place = next(batches), sharding.by_rows(trainer.mesh, bool(steps))
    batches.close()
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (*steps, int(times * len(x)), *x.shape[1:]), np.asarray(x).dtype, sharding=place
        ),
        found,
    )


def compiled(trainer, mesh, times=1):
    """The step of a trainer for a mesh, with `times` the rows of its batch."""
    trainer.mesh = mesh
    trainer.open_model()
    return trainer.step.lower(trainer.shapes, trainer.tables, rows(trainer, times)).compile()


def sizes(trainer):
    """Numbers of entries of the trained arrays, and of all that are sharded."""
    import jax

    names, params = (
        {name for phase in trainer.prog.phases for name in phase.trains},
        trainer.shapes.params,
    )
    trained, held = (
        {math.prod(x.shape) for name in some for x in jax.tree.leaves(params[name])}
        for some in (names, params)
    )
    return trained, held if trainer.mesh.shape['fsdp'] > 1 else ()


def measure(trainer, mesh):
    """{name: number} of a step on a mesh, and the arrays that its devices exchange."""
    once, twice = compiled(trainer, mesh), compiled(trainer, mesh, 2)
    memory, flops = once.memory_analysis(), once.cost_analysis()['flops']
    return {
        'devices': mesh.size,
        'flops': flops,
        'row_flops': twice.cost_analysis()['flops'] - flops,
        'arguments': memory.argument_size_in_bytes,
        'temporary': memory.temp_size_in_bytes,
    }, collectives(once.as_text())


def main():
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.devices',
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
    overrides = dict(word.removeprefix('--config.').partition('=')[::2] for word in rest)
    counts = [int(n) for n in args.devices.split(',')]
    os.environ['XLA_FLAGS'] = (
        f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={max(counts)}'
    )
    os.environ['JAX_PLATFORMS'] = 'cpu'
    import jax

    from t2i_jax import run
    from t2i_jax.config import load
    from t2i_jax.runtime import sharding

    config = load(args.config, overrides)
    stage, report = args.stage or run.stage_names(config)[-1], []
    with tempfile.TemporaryDirectory() as folder:
        trainer = open_trainer(config, stage, folder)
        print(
            f'{config.system}, stage {stage}, batch {trainer.block.batch_size}, {trainer.meta.size} px, {config.dtype}, {trainer.meta.name}'
        )
        print(
            '| devices (data x fsdp) | MFLOP a device | x n | of rows, x n | arguments, MB | temporary, MB | operations |'
            + ''.join(f' {what}: arrays, kB |' for what in WHATS)
            + '\n|'
            + '---|' * (7 + len(WHATS))
        )
        for n in counts:
            numbers, sent = measure(
                trainer, sharding.make_mesh(n if args.fsdp else 1, jax.devices()[:n])
            )
            known = sizes(trainer)
            first = report[0] if report else numbers
            whats = collections.defaultdict(list)
            for one in sent:
                whats[one.what(*known)].append(one)
            kinds = collections.Counter(
                kind for kind, _ in {(one.kind, one.operation) for one in sent}
            )
            numbers |= {
                'ratio': numbers['flops'] * n / first['flops'] / first['devices'],
                'row_ratio': numbers['row_flops'] * n / first['row_flops'] / first['devices'],
                'operations': dict(kinds),
                'sent': [one._asdict() | {'what': one.what(*known)} for one in sent],
            }
            print(
                f'| {n} ({n // (n if args.fsdp else 1)} x {n if args.fsdp else 1}) | {numbers["flops"] / 1e6:,.1f} | {numbers["ratio"]:.3f} | '
                f'{numbers["row_ratio"]:.3f} | {numbers["arguments"] / 1e6:,.1f} | {numbers["temporary"] / 1e6:,.1f} | '
                f'{", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"} |'
                + ''.join(
                    f' {len(whats[what])}, {sum(one.bytes for one in whats[what]) / 1e3:,.1f} |'
                    for what in WHATS
                ),
                flush=True,
            )
            report.append(numbers)
    held = sum(
        math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(trainer.shapes.params)
    )
    print(f'\nParameters: {held / 1e3:,.1f} kB.')
    for (kind, code, source, again), ones in sorted(
        collections.Counter(
            (
                one.kind,
                one.code,
                next((line for line in one.source if 't2i_jax' in line), ''),
                one.again,
            )
            for one in whats['other']
        ).items()
    ):
        print(f'other: {ones} {kind}{" (in a loop or branch)" if again else ""}, {code}, {source}')
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1))


if __name__ == '__main__':
    try:
        main()
    except (DataError, RunError) as error:
        sys.exit(f'Error: {error}')
