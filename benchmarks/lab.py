"""Where the program is disturbed, resumed and compared: what benchmarks/faults.py and tests/test_faults.py share."""

import re
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import program
from benchmarks.program import DENSE, finish, logged, saved

STEPS, EVERY = 60, 5  # steps of a run, and between two checkpoints
MEND = (
    'Resume with',
    'resume with',
    'goes on from',
    '--workdir',
    'Try again',
    'is skipped',
    'taken over',
    'made again',
    'is written again',
    'is replaced',
    'resumed at',
)


class Result(NamedTuple):
    times: int
    survived: int
    lost: int  # steps, at most
    message: str
    problems: list[str]


class Case:
    """What happened in one case: every disturbance is one `time`."""

    def __init__(self, lab):
        self.lab, self.times, self.lost, self.message, self.problems, self.failed = (
            lab,
            0,
            0,
            '',
            [],
            set(),
        )

    def expect(self, true, problem):
        if not true:
            self.failed.add(self.times)
            self.problems.append(problem)

    def told(self, process, status, *parts, lost=None, workdir=None, seconds=300):
        """One disturbed process has ended, or will: its status, what it must have said, the steps that a resumed one will repeat."""
        self.times += 1
        found, said = finish(process, seconds)
        self.expect(found == status, f'status {found} instead of {status}: {said[-600:]}')
        self.expect('Traceback' not in said, f'a traceback: {said[-3000:]}')
        self.said(said, *parts)
        lines = [line for line in said.splitlines() if parts and any(word in line for word in MEND)]
        lines.sort(key=lambda line: not line.startswith('Error: '))
        self.message = self.message or (shorten(lines[0]) if lines else '')
        if workdir and lost is not None:
            self.expect(
                (gone := steps_lost(workdir)) <= lost, f'{gone} steps lost, {lost} are allowed'
            )
            self.lost = max(self.lost, gone)
        return said

    def said(self, text, *parts):
        for part in parts:
            self.expect(re.search(part, text), f'{part!r} is not in what it said: {text[-800:]}')

    def resume(self, workdir, reference=None, stage='gan'):
        """Runs to the end, undisturbed, and compares."""
        status, said = finish(self.lab.start(workdir))
        self.expect(
            status == 0 and 'Traceback' not in said,
            f'resuming ended with status {status}: {said[-2000:]}',
        )
        if status == 0:
            found = program.differences(workdir, reference or self.lab.whole, stage)
            self.expect(not found, f'not as undisturbed: {"; ".join(found)}')
        return said

    def result(self):
        return Result(
            self.times, self.times - len(self.failed), self.lost, self.message, self.problems
        )


def shorten(line):
    """A message without what differs from machine to machine."""
    line = re.sub(r'[^\s=]*/t2i_faults\w*/(disk\d/|ro/)?\w+', '<workdir>', line)
    return re.sub(r'^(WARNING:absl:|W\d{4} \S+ +\d+ \S+\] )', '', line.strip())


def steps_lost(workdir, stage='gan'):
    """Logged steps after the newest finished checkpoint: a resumed run repeats them."""
    lines, steps = logged(workdir / stage), saved(workdir / stage)
    return max([line['step'] for line in lines], default=0) - max(steps, default=0)


class Lab:
    """A folder with the data, a compilation cache and runs."""

    def __init__(self, folder, kills=4, data=None, cache=None):
        """data, cache: folders of the data set and of compiled programs, where they are there."""
        self.folder, self.kills, self.runs = folder, kills, 0
        self.environment = {'JAX_COMPILATION_CACHE_DIR': str(cache or folder / 'cache')}
        if not data:
            program.make_data(data := folder / 'data')
        self.flags = [f'--config.data.dir={data}']
        self.whole = self.undisturbed('whole')

    def undisturbed(self, name, *flags, first=DENSE):
        status, said = finish(self.begin(self.folder / name, *flags, first=first))
        if status:
            sys.exit(f'The undisturbed run failed: {said}')
        return self.folder / name

    def new(self):
        self.runs += 1
        return self.folder / f'run{self.runs}'

    def begin(self, workdir, *flags, first=DENSE, **options):
        """A run that nobody has begun; later flags win."""
        every = [
            f'--config.stages.gan.{name}={value}'
            for name, value in dict(
                steps=STEPS, log_every=1, validate_every=10, sample_every=30, checkpoint_every=EVERY
            ).items()
        ]
        return self.start(workdir, *first, *self.flags, *every, *flags, **options)

    def start(self, workdir, *flags, **options):
        return program.start(workdir, *flags, variables=self.environment, **options)

    def begin_group(self, workdir, *flags):
        """A run with processes that decode, and a group of processes of its own, as a shell in a terminal begins it."""
        before = signal.signal(
            signal.SIGHUP, signal.SIG_DFL
        )  # what is ignored here (nohup) would be there, too
        process = self.begin(
            workdir,
            '--config.data.cache=none',
            '--config.data.workers=2',
            *flags,
            start_new_session=True,
        )
        signal.signal(signal.SIGHUP, before)
        return process

    def half(self):
        """A copy of a run that was stopped on its way, with two whole checkpoints."""
        if not (self.folder / 'half').exists():
            process = self.begin(self.folder / 'half')
            until(process, self.folder / 'half', STEPS // 3)
            process.send_signal(signal.SIGTERM)
            finish(process)
        workdir = self.new()
        shutil.copytree(self.folder / 'half', workdir)
        return workdir


def steps(workdir):
    path = workdir / 'gan' / 'metrics.jsonl'
    return (
        sum(b'"train/' in line for line in path.read_bytes().splitlines()) if path.exists() else 0
    )


def saving(workdir):
    return next((workdir / 'gan' / 'checkpoints').glob('*orbax-checkpoint-tmp*'), None) is not None


def until(process, workdir, step, while_saving=None, seconds=120):
    """Waits until a step is logged, and a checkpoint is (or is not) being written then or later; or until the process has ended."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if steps(workdir) >= step and while_saving in (None, saving(workdir)):
            return
        time.sleep(0.001)
    if process.poll() is None:
        sys.exit(f'{workdir} has not come to step {step} within {seconds} s.')


class Disk:
    """A small file system where we may mount one; elsewhere a folder, and the size of a file is limited."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.mounted = (
            subprocess.run(
                ['mount', '-t', 'tmpfs', '-o', 'size=32m', 'tmpfs', str(folder)],
                capture_output=True,
            ).returncode
            == 0
        )

    def __enter__(self):
        return self

    def fill(self, leave):
        """Leaves so many bytes. -> options of `start`"""
        if not self.mounted:
            return dict(inject=f'room:{leave + 1}')
        room = shutil.disk_usage(self.folder).free - leave
        (self.folder / 'filler').write_bytes(b'x' * max(room, 0))
        return {}

    def make_room(self):
        (self.folder / 'filler').unlink(missing_ok=True)

    def read_only(self, on):
        if self.mounted:
            subprocess.run(
                ['mount', '-o', f'remount,{"ro" if on else "rw"}', str(self.folder)], check=True
            )
        else:
            for path in [self.folder, *self.folder.rglob('*')]:
                path.chmod((path.stat().st_mode & ~0o222) if on else path.stat().st_mode | 0o200)

    def __exit__(self, *_):
        if self.mounted:
            subprocess.run(['umount', '-l', str(self.folder)], check=True)
