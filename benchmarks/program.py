"""The real program on a tiny data set, in a process of its own, and whether two of its runs ended alike."""

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
COUNTS = dict(train=400, validation=60, test=20, test_unseen=20)  # records of the data set
SCENES = [
    '--config.data.name=shape_scenes/single_quick',
    '--config.data.split=train[:256]',
    '--config.data.validation_split=validation[:40]',
]
DENSE = [
    '--config=experiments/dcgan_shapes.py:tiny',
    *SCENES,  # layers that compile fast
    *(
        f'--config.stages.gan.model.{setting}'
        for setting in ('variant=mlp', 'ngf=16', 'ndf=4', 'nz=8')
    ),
]
CLOCK = ('train/images_per_s', 'train/data_wait')


def make_data(folder):
    """The first scenes of shape_scenes/single_quick in `folder`."""
    import tensorflow_datasets as tfds

    from tfds_builders import get_builder
    from tfds_builders.shape_scenes.builder import QUICK

    kept = dict(QUICK['single'])
    QUICK['single'].update(COUNTS)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        get_builder('shape_scenes/single_quick', folder).download_and_prepare()
    QUICK['single'].update(kept)


def start(workdir, *flags, inject=None, variables=None, **options):
    """`python -m t2i_jax.main --workdir=<workdir> <flags>` as a process of its own; `finish` tells what it said.

    inject: a fault of benchmarks/inject.py that happens in it. variables: more of the environment. options: of subprocess.Popen.
    """
    module = ['benchmarks.inject', inject] if inject else ['t2i_jax.main']
    environment = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': '--xla_backend_optimization_level=1',
        'PYTHONPATH': str(ROOT),
        'PYTHONUNBUFFERED': '1',
        **(variables or {}),
    }
    options = (
        dict(
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            cwd=ROOT,
            env=environment,
        )
        | options
    )
    return subprocess.Popen(
        [sys.executable, '-m', *module, f'--workdir={workdir}', *flags], **options
    )


def finish(process, seconds=300):
    """(exit status, what the process said); one that hangs, or leaves processes behind, is killed and has status 'hangs'."""
    try:
        said = process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired as slow:
        process.kill()
        process.stdout.close()
        return 'hangs', (slow.output or b'').decode(errors='replace')
    return process.returncode, said


def saved(folder):
    """The steps of the finished checkpoints of a stage, in order."""
    return sorted(
        int(path.name) for path in (folder / 'checkpoints').glob('*') if path.name.isdigit()
    )


def logged(folder):
    """The whole lines of metrics.jsonl without what depends on the clock."""
    path, found = folder / 'metrics.jsonl', []
    for line in path.read_text(errors='replace').splitlines(keepends=True) if path.exists() else []:
        try:
            found.append(
                {name: value for name, value in json.loads(line).items() if name not in CLOCK}
            )
        except ValueError:
            continue
    return found


def events(folder):
    """The events of a stage as TensorBoard reads them: files in the order of their names, each a list of records of length, checksum, bytes, checksum."""
    found = []
    for path in sorted((folder / 'tensorboard').iterdir()):
        content, at = path.read_bytes(), 0
        while at + 12 <= len(content):
            (length,) = struct.unpack_from('<Q', content, at)
            if at + 16 + length > len(content):
                break  # of a process that was killed
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def curves(folder):
    """{(name, step): value} that TensorBoard shows: a restart hides what older files have of its step and later."""
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
    """(step, the arrays of the state) of a stage's newest checkpoint."""
    import jax

    from t2i_jax import run

    step, found, _ = run.restore(run.load_config(workdir), workdir, stage, step)
    return step, [np.asarray(x) for x in jax.tree.leaves(found)]


def differences(workdir, reference, stage='gan'):
    """How a finished run differs from one that nothing disturbed, [] where they are equal bit for bit: parameters, statistics, optimisers, averages;
    metrics.jsonl and TensorBoard without the clock's values; pictures; what else lies in the workdir."""
    found, folders = [], (workdir / stage, reference / stage)
    (step, mine), (last, theirs) = state(workdir, stage), state(reference, stage)
    if step != last:
        found.append(f'it ends at step {step}, not {last}')
    different = sum(
        not np.array_equal(a, b, equal_nan=True) for a, b in zip(mine, theirs, strict=True)
    )
    if different:
        found.append(f'{different} of {len(mine)} arrays differ')
    lines, others = map(logged, folders)
    if lines != others:
        found.append(f'metrics.jsonl differs: {len(lines)} lines, {len(others)} in the other')
    shown, others = map(curves, folders)
    if shown != others:
        found.append(f'TensorBoard differs: {len(shown)} values, {len(others)} in the other')
    pictures, others = (
        {path.name: path.read_bytes() for path in (folder / 'samples').glob('*')}
        for folder in folders
    )
    if pictures != others:
        found.append('pictures differ')
    for name in ('config.json', 'vocabulary.json', f'{stage}/meta.json'):
        if (
            name != 'config.json'
            and (workdir / name).read_bytes() != (reference / name).read_bytes()
        ):
            found.append(f'{name} differs')
    if saved(workdir / stage) != saved(reference / stage):
        found.append(f'checkpoints are {saved(workdir / stage)}, not {saved(reference / stage)}')
    names = {path.relative_to(workdir).as_posix() for path in workdir.glob('*')} | {
        f'{stage}/{path.name}' for path in (workdir / stage).glob('*')
    }
    left = names - {
        path.relative_to(reference).as_posix()
        for path in [*reference.glob('*'), *reference.glob('*/*')]
    }
    unfinished = [path.name for path in (workdir / stage / 'checkpoints').glob('*tmp*')]
    if left or unfinished:
        found.append(f'left over: {sorted(left) + unfinished}')
    return found
