"""Faults that training must survive: it is killed, filled, damaged and resumed.

    python -m benchmarks.faults --out=faults.json                         # all cases
    python -m benchmarks.faults --cases=kills,disk --kills=60             # some

After every case the run is resumed and must end bit for bit as an undisturbed one
(`program.differences`), no more steps may be lost than the case allows, and the output must name
the fault and the remedy and have no traceback. As root, disks are small tmpfs mounts. The docstring
of a case is its row in the table.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks import program
from benchmarks.lab import (
    EVERY,
    LARGE,
    STEPS,
    Case,
    Disk,
    Lab,
    saving,
    shorten,
    steps,
    steps_lost,
    until,
)
from benchmarks.program import SCENES, finish, saved

TEXT = [
    '--config=gan_cls_shapes:tiny',
    *SCENES,
    '--config.stages.style.steps=0',
    '--config.stages.gan.model.ngf=4',
    '--config.stages.gan.model.ndf=4',
    '--config.stages.text.model.encoder.hidden=8',
    '--config.stages.text.model.encoder.embedding=8',
]


# ------------------------------------------------------------------------------------------ signals
def signals(lab):
    """SIGTERM, SIGINT: during steps, while saving, before the first step"""
    case = Case(lab)
    moments = (
        (signal.SIGTERM, False),
        (signal.SIGINT, False),
        (signal.SIGTERM, True),
        (signal.SIGINT, True),
        (signal.SIGTERM, None),
    )
    for number, while_saving in moments:
        workdir = lab.new()
        process = lab.begin(workdir)
        if while_saving is None:
            # the file is opened before the first step is compiled
            losses = workdir / 'gan' / 'metrics.jsonl'
            while process.poll() is None and not losses.exists():
                time.sleep(0.001)
        else:
            until(process, workdir, random.randrange(1, STEPS // 2), while_saving)
        process.send_signal(number)
        case.ended(
            process,
            130,
            rf'{signal.Signals(number).name}: stage gan (is saved|had not started)',
            'Resume with: t2i_jax',
            lost=0,
            workdir=workdir,
        )
        case.resume(workdir)
    return case.result()


def kills(lab):
    """SIGKILL at random moments of one run; at a third of them SIGSTOP and SIGCONT instead"""
    case, workdir, every, length = Case(lab), lab.new(), 4 * EVERY, 120 * lab.kills
    settings = dict(steps=length, checkpoint_every=every, sample_every=200)
    flags = [f'--config.stages.gan.{name}={value}' for name, value in settings.items()]
    whole = lab.undisturbed('long', *flags)
    while_saving = stops = moments = 0
    process = lab.begin(workdir, *flags)
    while moments < lab.kills and process.poll() is None:
        before, kind, enough = steps(workdir), random.random(), random.randrange(1, 60)
        if kind < 0.1:
            # while it starts, too
            time.sleep(random.uniform(0.5, 8))
        else:
            until(process, workdir, min(before + enough, length - 2), kind > 0.5)
            time.sleep(random.uniform(0, 0.02))
        moments += 1
        while_saving += saving(workdir)
        when = ', while saving' if saving(workdir) else ''
        if random.random() < 1 / 3:
            process.send_signal(signal.SIGSTOP)
            time.sleep(random.uniform(0, 1))
            process.send_signal(signal.SIGCONT)
            case.times, stops = case.times + 1, stops + 1
            print(f'    stop {moments} at step {steps(workdir)}{when}', flush=True)
            continue
        process.kill()
        there = workdir if (workdir / 'gan').exists() else None
        case.ended(process, -signal.SIGKILL, lost=2 * every, workdir=there)
        print(f'    kill {moments} at step {steps(workdir)}{when}', flush=True)
        process = lab.begin(workdir, *flags)
    output = finish(process)[1]
    case.expect(moments >= lab.kills, f'only {moments} disturbances before it ended')
    case.resume(workdir, reference=whole)
    resumed = [shorten(line) for line in output.splitlines() if 'resumed at' in line]
    then = resumed[0] if resumed else output[-200:]
    case.message = f'{stops} stops; {while_saving} of {moments} while saving; then: {then}'
    return case.result()


def groups(lab):
    """Ctrl-C and a closed terminal: all processes get it, and nothing reads the output any more"""
    case = Case(lab)
    for number in (signal.SIGINT, signal.SIGHUP) * 3:
        workdir = lab.new()
        process = lab.begin_group(workdir)
        until(process, workdir, random.randrange(1, STEPS // 2))
        # decoding processes start again for each save
        time.sleep(random.uniform(0, 1))
        process.stdout.close()
        os.killpg(process.pid, number)
        case.ended(process, 130, lost=0, workdir=workdir)
        case.resume(workdir)
    return case.result()


def workers(lab):
    """SIGKILL of a run with processes that decode: they go, the lock is free; SIGKILL of one of
    these"""
    case, workdir = Case(lab), lab.new()
    process = lab.begin_group(workdir)
    until(process, workdir, 8)
    decode = decoding(process)
    process.kill()
    case.ended(process, -signal.SIGKILL, lost=2 * EVERY, workdir=workdir)
    output = case.resume(workdir)
    left = [pid for pid in decode if pathlib.Path(f'/proc/{pid}').exists()]
    case.expect(len(decode) >= 2 and not left, f'of {decode} some are left: {left}')
    case.printed(output, 'taken over')
    workdir = lab.new()
    process = lab.begin_group(workdir)
    until(process, workdir, 8)
    os.kill(decoding(process)[0], signal.SIGKILL)
    case.ended(
        process,
        1,
        'Error: A process that decodes pictures has ended',
        'lower --config.data.workers',
        lost=2 * EVERY,
        workdir=workdir,
    )
    case.resume(workdir)
    return case.result()


def decoding(process):
    """List the ids of the processes that decode for another."""
    command = ['ps', '-o', 'pid=,args=', '--ppid', str(process.pid)]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if 'spawn_main' in line]


def paused(lab):
    """SIGSTOP while saving, SIGCONT; an hour passes during each save"""
    case, workdir = Case(lab), lab.new()
    process = lab.begin(workdir)
    for at in (5, 20):
        until(process, workdir, at, while_saving=True)
        process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        process.send_signal(signal.SIGCONT)
    case.ended(process, 0)
    case.resume(workdir)
    workdir = lab.new()
    case.ended(lab.begin(workdir, inject='asleep:3600'), 0)
    case.resume(workdir)
    case.message = 'none: they go on'
    return case.result()


# -------------------------------------------------------------------------------------------- disks
def disk(lab):
    """Disk full: from the start, while logging, while saving"""
    case = Case(lab)
    for number, leave in enumerate((0, 16 << 10, 64 << 10, 400 << 10)):
        with Disk(lab.folder / f'disk{number}') as small:
            workdir = small.folder / 'run'
            shutil.copytree(lab.half(), workdir)
            newest, options = saved(workdir / 'gan')[-1], small.fill(leave)
            case.ended(
                lab.start(workdir, **options),
                1,
                r'Error: .* cannot be written: (No space left|File too large)',
                'resume with: t2i_jax',
                *(['Make room'] if small.mounted else []),
            )
            case.expect(program.state(workdir, 'gan')[0] >= newest, 'an earlier checkpoint is gone')
            case.lost = max(case.lost, steps_lost(workdir))
            small.make_room()
            case.resume(workdir)
    return case.result()


def read_only(lab):
    """Workdir that cannot be written"""
    case = Case(lab)
    with Disk(lab.folder / 'ro') as small:
        workdir = small.folder / 'run'
        shutil.copytree(lab.half(), workdir)
        small.read_only(True)
        case.ended(
            lab.start(workdir),
            1,
            r'Error: workdir \S+ cannot be written: (Read-only|Permission)',
            'See to it that you may write there',
        )
        small.read_only(False)
        case.resume(workdir)
    return case.result()


def small_disks(lab):
    """Disk of 1, 3 and 8 MB: a new run on it, resumed when it is larger"""
    case = Case(lab)
    for megabytes in (1, 3, 8):
        with Disk(lab.folder / f'disk{megabytes}mb') as small:
            workdir = small.folder / 'run'
            options = small.shrink(megabytes)
            case.ended(
                lab.begin(workdir, LARGE, **options),
                1,
                r'Error: .* cannot be written: (No space left|File too large)',
                'resume with: t2i_jax',
            )
            small.grow()
            case.resume(workdir, reference=lab.large())
    return case.result()


# ------------------------------------------------------------------------------------------- damage
def flip(path, seed=0, bits=16):
    """Flip random bits of a file."""
    content, rng = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(bits):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def arrays(step):
    """List the files of a checkpoint's arrays, the largest first."""
    files = [path for path in (step / 'state').rglob('*') if path.parent.name == 'd']
    return sorted(files, key=lambda path: -path.stat().st_size)


def cut(path, share=0.5):
    """Cut a file short."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def empty(step):
    """Empty the folder of a checkpoint."""
    shutil.rmtree(step)
    step.mkdir()


DAMAGES = dict(
    flipped=[lambda step, seed=seed: flip(arrays(step)[0], seed) for seed in range(3)]
    + [lambda step: flip(step / 'extra' / 'metadata', 1)],
    cut=[
        lambda step: cut(arrays(step)[0]),
        lambda step: cut(step / 'state' / 'manifest.ocdbt'),
        lambda step: cut(step / 'extra' / 'metadata'),
    ],
    missing=[
        lambda step: arrays(step)[0].unlink(),
        lambda step: shutil.rmtree(step / 'state'),
        empty,
    ],
)


TITLES = dict(
    flipped='flipped bits',
    cut='a file cut short',
    missing='a file, the arrays or all gone',
)


def damaged(kind):
    """Make the case of one kind of damage to the newest checkpoint."""

    def run(lab):
        case = Case(lab)
        for harm in DAMAGES[kind]:
            workdir = lab.half()
            before, newest = saved(workdir / 'gan')[-2:]
            harm(workdir / 'gan' / 'checkpoints' / str(newest))
            case.times += 1
            output = case.resume(workdir)
            case.printed(
                output,
                f'checkpoint of step {newest} .* is damaged .* is skipped',
                f'kept as .*/{newest}.damaged',
                f'resumed at step {before} of',
            )
            case.expect(
                (workdir / 'gan' / 'checkpoints' / f'{newest}.damaged').exists(),
                'the damaged one is gone',
            )
            case.lost = max(case.lost, newest - before)
            case.message = case.message or next(
                (shorten(line) for line in output.splitlines() if 'is skipped' in line), ''
            )
        return case.result()

    run.__doc__ = f'Newest checkpoint: {TITLES[kind]}'
    return run


def all_damaged(lab):
    """All checkpoints damaged: refused, nothing deleted"""
    case, workdir = Case(lab), lab.half()
    folder = workdir / 'gan' / 'checkpoints'
    for step in saved(workdir / 'gan'):
        cut(arrays(folder / str(step))[0])
    before = sorted(path.relative_to(folder) for path in folder.rglob('*'))
    case.ended(
        lab.start(workdir),
        1,
        'Error: No checkpoint in .* can be read',
        'delete that folder to train the stage again',
    )
    case.expect(
        before == sorted(path.relative_to(folder) for path in folder.rglob('*')),
        'something was deleted',
    )
    shutil.rmtree(folder)
    shutil.copytree(lab.folder / 'half' / 'gan' / 'checkpoints', folder)
    case.resume(workdir)
    return case.result()


def files(lab):
    """metrics.jsonl cut in a line; vocabulary, meta, config cut short or gone"""
    case = Case(lab)
    for name in ('vocabulary.json', 'gan/meta.json', 'config.json'):
        for harm in (cut, pathlib.Path.unlink):
            workdir = lab.half()
            harm(workdir / name)
            if name == 'config.json':
                case.ended(
                    lab.start(workdir),
                    1,
                    'Error: .*config.json',
                    r'--config=<experiment>',
                )
                # the whole command, as at first
                finish(lab.begin(workdir))
            case.times += name != 'config.json'
            output = case.resume(workdir)
            case.message = case.message or next(
                (shorten(line) for line in output.splitlines() if 'again' in line), ''
            )
    workdir = lab.half()
    with open(workdir / 'gan' / 'metrics.jsonl', 'a') as file:
        file.write('{"step": 33, "train/d_lo')
    case.times += 1
    case.resume(workdir)
    return case.result()


# -------------------------------------------------------------------------------------------- clock
def clock(lab):
    """Clock set back: by a day between two processes, by a day while one runs"""
    case, workdir = Case(lab), lab.new()
    process = lab.begin(workdir, inject='clock:86400')
    until(process, workdir, STEPS // 3)
    process.send_signal(signal.SIGTERM)
    case.ended(process, 130, 'Resume with: t2i_jax', lost=0, workdir=workdir)
    for path in workdir.rglob('*'):
        os.utime(path, (time.time() + 86400,) * 2)
    case.resume(workdir)
    workdir = lab.new()
    case.ended(lab.begin(workdir, inject='clock:-86400:500'), 0)
    case.resume(workdir)
    return case.result()


# ---------------------------------------------------------------------------------------- processes
def lock(lab):
    """Second process refused, first unharmed; locks of a killed process and of a pid that is
    another's now"""
    case, workdir = Case(lab), lab.new()
    first = lab.begin(workdir)
    until(first, workdir, 10)
    first.send_signal(signal.SIGSTOP)
    case.ended(
        lab.start(workdir),
        1,
        rf'Error: workdir \S+ is in use by process {first.pid} on .*; wait for it, stop it, or '
        rf'choose another --workdir',
    )
    first.send_signal(signal.SIGCONT)
    case.ended(first, 0)
    case.resume(workdir)
    for pid in (None, os.getpid(), 1):
        workdir = lab.half()
        if pid:
            (workdir / 'lock').write_text(
                json.dumps(dict(pid=pid, host=os.uname().nodename, started='2020-01-02 03:04:05'))
            )
        else:
            process = lab.start(workdir)
            until(process, workdir, STEPS // 2)
            process.kill()
            finish(process)
        case.times += 1
        case.printed(case.resume(workdir), 'taken over from process')
    return case.result()


# --------------------------------------------------------------------------------------- not finite
def nan(lab):
    """NaN: loss, gradient and shared forward of each phase; a stage without a shared forward"""
    case, bad = Case(lab), 23
    faults = {
        'nan:gan:d_loss': 'd_loss',
        'nan:gan:g_loss': 'g_loss',
        'nan:gan:forward': 'd_loss',
        'gradient:gan:d_loss': 'd_loss',
        'gradient:gan:g_loss': 'g_loss',
    }
    for fault, phase in faults.items():
        workdir = lab.new()
        case.ended(
            lab.begin(workdir, inject=f'{fault}:{bad}'),
            1,
            rf'Error: Stage gan, step {bad}: the loss of phase {phase}',
            'good checkpoint is step 20',
        )
        finite(case, workdir, 'gan', bad)
        case.lost = max(case.lost, bad - 1 - saved(workdir / 'gan')[-1])
        case.resume(workdir)
    settings = dict(steps=STEPS // 2, log_every=1, checkpoint_every=EVERY)
    flags = [f'--config.stages.text.{name}={value}' for name, value in settings.items()]
    flags += ['--config.stages.gan.steps=2']
    whole, workdir = lab.undisturbed('text', *flags, first=TEXT), lab.new()
    case.ended(
        lab.begin(workdir, *flags, first=TEXT, inject=f'nan:text:joint_loss:{bad}'),
        1,
        rf'Error: Stage text, step {bad}: the loss of phase joint_loss',
    )
    finite(case, workdir, 'text', bad)
    case.resume(workdir, reference=whole, stage='text')
    return case.result()


def finite(case, workdir, stage, bad):
    """Check that all checkpoints are finite, and older than the bad step."""
    steps = saved(workdir / stage)
    case.expect(steps and steps[-1] < bad, f'checkpoints are {steps}')
    for step in steps:
        _, values = program.state(workdir, stage, step)
        are_finite = all(np.isfinite(x).all() for x in values)
        case.expect(are_finite, f'the checkpoint of step {step} is not finite')


CASES = dict(
    signals=signals,
    groups=groups,
    kills=kills,
    workers=workers,
    paused=paused,
    disk=disk,
    small_disks=small_disks,
    read_only=read_only,
    flipped=damaged('flipped'),
    cut=damaged('cut'),
    missing=damaged('missing'),
    all_damaged=all_damaged,
    files=files,
    clock=clock,
    lock=lock,
    nan=nan,
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--cases', default=','.join(CASES))
    parser.add_argument('--kills', type=int, default=32)
    parser.add_argument('--seed', type=int, default=0, help='of the random moments')
    parser.add_argument('--out', help='JSON')
    args = parser.parse_args()
    unknown = set(args.cases.split(',')) - set(CASES)
    if unknown:
        parser.error(f'There are no cases {", ".join(unknown)}. There are: {", ".join(CASES)}.')
    random.seed(args.seed)
    found = {}
    with tempfile.TemporaryDirectory(prefix='t2i_faults') as folder:
        lab = Lab(pathlib.Path(folder), args.kills)
        for name in args.cases.split(','):
            began = time.monotonic()
            result, title = CASES[name](lab)._asdict(), ' '.join(CASES[name].__doc__.split())
            seconds = round(time.monotonic() - began)
            found[name] = result | {'what': title, 'seconds': seconds}
            print(row(found[name]), flush=True)
            for problem in found[name]['problems']:
                print(f'    {problem}', flush=True)
    print('\n| case | times | survived | steps lost at most | message |\n|---|---|---|---|---|')
    for one in found.values():
        print(row(one))
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(found, indent=2) + '\n')
    sys.exit(any(one['survived'] < one['times'] for one in found.values()))


def row(one):
    """A case as a row of the table."""
    keys = ('what', 'times', 'survived', 'lost', 'message')
    return f'| {" | ".join(str(one[key]) for key in keys)} |'


if __name__ == '__main__':
    main()
