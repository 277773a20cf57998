"""The real program on a tiny data set in a process of its own, and comparisons."""

import contextlib
import io
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
from tensorboardX.proto.event_pb2 import Event

ROOT = pathlib.Path(__file__).parents[1]
# records of the data set
COUNTS = dict(train=400, validation=60, test=20, test_unseen=20)
SCENES = [
    '--config.data.name=shape_scenes/single_quick',
    '--config.data.split=train[:256]',
    '--config.data.validation_split=validation[:40]',
]
MODEL = ('variant=mlp', 'ngf=16', 'ndf=4', 'nz=8')
# layers that compile fast
DENSE = [
    '--config=dcgan_shapes:tiny',
    *SCENES,
    *(f'--config.stages.gan.model.{setting}' for setting in MODEL),
]
# logged values that depend on the clock
CLOCK = ('train/images_per_s', 'train/data_wait')


def make_data(folder):
    """Build the first scenes of shape_scenes/single_quick in `folder`."""
    import tensorflow_datasets as tfds

    from tfds_builders import get_builder
    from tfds_builders.shape_scenes.builder import QUICK

    before = dict(QUICK['single'])
    QUICK['single'].update(COUNTS)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        get_builder('shape_scenes/single_quick', folder).download_and_prepare()
    QUICK['single'].update(before)


def start(workdir, *flags, inject=None, variables=None, **options):
    """Start `python -m t2i_jax --workdir=<workdir> <flags>`; `finish` waits for it.

    inject: a fault of benchmarks/inject.py that happens in it
    variables: further ones of the environment
    options: of subprocess.Popen
    """
    module = ['benchmarks.inject', inject] if inject else ['t2i_jax']
    environment = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': '--xla_backend_optimization_level=1',
        'PYTHONPATH': str(ROOT),
        'PYTHONUNBUFFERED': '1',
        **(variables or {}),
    }
    usual = dict(
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
        cwd=ROOT,
        env=environment,
    )
    command = [sys.executable, '-m', *module, f'--workdir={workdir}', *flags]
    return subprocess.Popen(command, **usual | options)


def finish(process, seconds=300):
    """Wait for a process -> (exit status, output).

    One that hangs, or leaves processes behind, is killed and has status 'hangs'.
    """
    try:
        output = process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired as slow:
        process.kill()
        process.stdout.close()
        return 'hangs', (slow.output or b'').decode(errors='replace')
    return process.returncode, output


def saved(folder):
    """List the steps of the finished checkpoints of a stage, in order."""
    names = (path.name for path in (folder / 'checkpoints').glob('*'))
    return sorted(int(name) for name in names if name.isdigit())


def logged(folder):
    """Read the whole lines of metrics.jsonl, without the values of the clock."""
    path, found = folder / 'metrics.jsonl', []
    for line in path.read_text(errors='replace').splitlines() if path.exists() else []:
        # a killed process may leave half a line
        with contextlib.suppress(ValueError):
            values = json.loads(line).items()
            found.append({name: value for name, value in values if name not in CLOCK})
    return found


def events(folder):
    """Read the events of a stage as TensorBoard does: files in the order of their names.

    Each is a list of records of length, checksum, bytes, checksum.
    """
    found = []
    for path in sorted((folder / 'tensorboard').iterdir()):
        content, at = path.read_bytes(), 0
        while at + 12 <= len(content):
            (length,) = struct.unpack_from('<Q', content, at)
            # of a process that was killed
            if at + 16 + length > len(content):
                break
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def curves(folder):
    """Read the numbers that TensorBoard shows -> {(name, step): value}.

    A restart hides values of older files from its step on.
    """
    found = {}
    for event in events(folder):
        if event.HasField('session_log'):
            found = {key: value for key, value in found.items() if key[1] < event.step}
        for value in event.summary.value:
            if value.HasField('simple_value') and value.tag not in CLOCK:
                if (value.tag, event.step) in found:
                    raise ValueError(f'{value.tag} of step {event.step} is there twice')
                found[value.tag, event.step] = value.simple_value
    return found


def state(workdir, stage, step=None):
    """Restore a stage's newest checkpoint -> (step, the arrays of the state)."""
    import jax

    from t2i_jax.run import Run

    step, found = Run.open(workdir)[stage].state(step)
    return step, [np.asarray(x) for x in jax.tree.leaves(found)]


def differences(workdir, reference, stage='gan'):
    """List how a finished run differs from an undisturbed one, [] for equal bits.

    Compared are parameters, statistics, optimisers, averages; metrics.jsonl and TensorBoard without
    the clock's values; pictures; and which other files lie in the workdir.
    """
    found, (mine, theirs) = [], (workdir / stage, reference / stage)
    (step, arrays), (last, others) = state(workdir, stage), state(reference, stage)
    if step != last:
        found.append(f'it ends at step {step}, not {last}')
    pairs = zip(arrays, others, strict=True)
    different = sum(not np.array_equal(a, b, equal_nan=True) for a, b in pairs)
    if different:
        found.append(f'{different} of {len(arrays)} arrays differ')
    lines, others = logged(mine), logged(theirs)
    if lines != others:
        found.append(f'metrics.jsonl differs: {len(lines)} lines, {len(others)} in the other')
    shown, others = curves(mine), curves(theirs)
    if shown != others:
        found.append(f'TensorBoard differs: {len(shown)} values, {len(others)} in the other')
    if contents(mine / 'samples') != contents(theirs / 'samples'):
        found.append('pictures differ')
    for name in ('vocabulary.json', f'{stage}/meta.json'):
        if (workdir / name).read_bytes() != (reference / name).read_bytes():
            found.append(f'{name} differs')
    if saved(mine) != saved(theirs):
        found.append(f'checkpoints are {saved(mine)}, not {saved(theirs)}')
    left = names(workdir, stage) - names(reference, '*')
    unfinished = [path.name for path in (mine / 'checkpoints').glob('*tmp*')]
    if left or unfinished:
        found.append(f'left over: {sorted(left) + unfinished}')
    return found


def contents(folder):
    """Read the files of a folder -> {name: bytes}."""
    return {path.name: path.read_bytes() for path in folder.glob('*')}


def names(workdir, stage):
    """List what lies in a workdir, and in the folder of a stage."""
    paths = [*workdir.glob('*'), *workdir.glob(f'{stage}/*')]
    return {path.relative_to(workdir).as_posix() for path in paths}
