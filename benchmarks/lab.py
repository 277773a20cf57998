"""A place to disturb, resume and compare the program.

For benchmarks/faults.py and its tests.
"""

import re
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import program
from benchmarks.program import DENSE, finish, logged, saved

# steps of a run, and between two checkpoints
STEPS, EVERY = 60, 5
# a network whose checkpoint takes megabytes
LARGE = '--config.stages.gan.model.ngf=192'
# words of the lines that say how things go on
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
    """The result of a case.

    times, survived: disturbances, and those without a problem
    lost: steps, at most
    message: an example of what the program prints
    """

    times: int
    survived: int
    lost: int
    message: str
    problems: list[str]


class Case:
    """The disturbances of one case, and their problems."""

    def __init__(self, lab):
        self.lab, self.times, self.lost, self.message = lab, 0, 0, ''
        # problems as sentences, and the numbers of the disturbances that have one
        self.problems, self.failed = [], set()

    def expect(self, true, problem):
        """Note a problem of the present disturbance unless `true`."""
        if not true:
            self.failed.add(self.times)
            self.problems.append(problem)

    def ended(self, process, status, *parts, lost=None, workdir=None, seconds=300):
        """Wait for the end of a disturbed process, and check it -> its output.

        status: its exit status
        parts: patterns that must be in its output
        lost, workdir: the most logged steps without a checkpoint in the workdir; None: not checked
        seconds: to wait
        """
        self.times += 1
        found, output = finish(process, seconds)
        self.expect(found == status, f'status {found} instead of {status}: {output[-600:]}')
        self.expect('Traceback' not in output, f'a traceback: {output[-3000:]}')
        self.printed(output, *parts)
        lines = [
            line for line in output.splitlines() if parts and any(word in line for word in MEND)
        ]
        lines.sort(key=lambda line: not line.startswith('Error: '))
        self.message = self.message or (shorten(lines[0]) if lines else '')
        if workdir and lost is not None:
            gone = steps_lost(workdir)
            self.expect(gone <= lost, f'{gone} steps lost, {lost} are allowed')
            self.lost = max(self.lost, gone)
        return output

    def printed(self, output, *parts):
        """Check that patterns are in the output of a process."""
        for part in parts:
            self.expect(re.search(part, output), f'{part!r} is not in the output: {output[-800:]}')

    def resume(self, workdir, reference=None, stage='gan'):
        """Run to the end, undisturbed, and compare with the `reference` -> output."""
        status, output = finish(self.lab.start(workdir))
        ended_well = status == 0 and 'Traceback' not in output
        self.expect(ended_well, f'resuming ended with status {status}: {output[-2000:]}')
        if status == 0:
            found = program.differences(workdir, reference or self.lab.whole, stage)
            self.expect(not found, f'not as undisturbed: {"; ".join(found)}')
        return output

    def result(self):
        """The Result of the whole case."""
        survived = self.times - len(self.failed)
        return Result(self.times, survived, self.lost, self.message, self.problems)


def shorten(line):
    """Cut from a message the parts that differ from machine to machine."""
    line = re.sub(r'[^\s=]*/t2i_faults\w*/(disk\d/|ro/)?\w+', '<workdir>', line)
    return re.sub(r'^(WARNING:absl:|W\d{4} \S+ +\d+ \S+\] )', '', line.strip())


def steps_lost(workdir, stage='gan'):
    """Count the logged steps after the newest finished checkpoint.

    A resumed run repeats them.
    """
    lines, steps = logged(workdir / stage), saved(workdir / stage)
    return max([line['step'] for line in lines], default=0) - max(steps, default=0)


class Lab:
    """A folder with the data, a compilation cache and runs.

    kills: number of kills of the case `kills`
    data, cache: folders of the data set and of compiled programs, where they exist
    """

    def __init__(self, folder, kills=4, data=None, cache=None):
        self.folder, self.kills, self.runs = folder, kills, 0
        self.environment = {'JAX_COMPILATION_CACHE_DIR': str(cache or folder / 'cache')}
        if not data:
            program.make_data(data := folder / 'data')
        self.flags = [f'--config.data.dir={data}']
        self.whole = self.undisturbed('whole')

    def undisturbed(self, name, *flags, first=DENSE):
        """Train a run to its end -> its workdir."""
        status, output = finish(self.begin(self.folder / name, *flags, first=first))
        if status:
            sys.exit(f'The undisturbed run failed: {output}')
        return self.folder / name

    def large(self):
        """Train a run whose checkpoints take megabytes, once -> its workdir."""
        if not (self.folder / 'large').exists():
            self.undisturbed('large', LARGE)
        return self.folder / 'large'

    def new(self):
        """Name the workdir of a further run."""
        self.runs += 1
        return self.folder / f'run{self.runs}'

    def begin(self, workdir, *flags, first=DENSE, **options):
        """Start a new run; later flags win."""
        settings = dict(
            steps=STEPS, log_every=1, validate_every=10, sample_every=30, checkpoint_every=EVERY
        )
        every = [f'--config.stages.gan.{name}={value}' for name, value in settings.items()]
        return self.start(workdir, *first, *self.flags, *every, *flags, **options)

    def start(self, workdir, *flags, **options):
        """Start the program in a workdir; without flags it resumes."""
        return program.start(workdir, *flags, variables=self.environment, **options)

    def begin_group(self, workdir, *flags):
        """Start a new run with processes that decode, in a process group of its own.

        As a shell in a terminal starts it.
        """
        # if it is ignored here (nohup), it would be ignored there, too
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        cache = ('--config.data.cache=none', '--config.data.workers=2')
        process = self.begin(workdir, *cache, *flags, start_new_session=True)
        signal.signal(signal.SIGHUP, before)
        return process

    def half(self):
        """Copy a run that was stopped on its way, with two whole checkpoints -> workdir."""
        if not (self.folder / 'half').exists():
            process = self.begin(self.folder / 'half')
            until(process, self.folder / 'half', STEPS // 3)
            process.send_signal(signal.SIGTERM)
            finish(process)
        workdir = self.new()
        shutil.copytree(self.folder / 'half', workdir)
        return workdir


def steps(workdir):
    """Count the steps that are logged."""
    path = workdir / 'gan' / 'metrics.jsonl'
    lines = path.read_bytes().splitlines() if path.exists() else []
    return sum(b'"train/' in line for line in lines)


def saving(workdir):
    """Say whether a checkpoint is being written."""
    return next((workdir / 'gan' / 'checkpoints').glob('*orbax-checkpoint-tmp*'), None) is not None


def until(process, workdir, step, while_saving=None, seconds=120):
    """Wait until a step is logged, or until the process has ended.

    while_saving: wait further until a checkpoint is being written (True) or is not (False)
    """
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if steps(workdir) >= step and while_saving in (None, saving(workdir)):
            return
        time.sleep(0.001)
    if process.poll() is None:
        sys.exit(f'{workdir} has not come to step {step} within {seconds} s.')


class Disk:
    """A small file system where we may mount one, elsewhere a folder.

    There the size of a file is limited.
    """

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        mount = ['mount', '-t', 'tmpfs', '-o', 'size=32m', 'tmpfs', str(folder)]
        self.mounted = subprocess.run(mount, capture_output=True).returncode == 0

    def __enter__(self):
        return self

    def fill(self, leave):
        """Fill the disk but for `leave` bytes -> options of `start`."""
        if not self.mounted:
            return dict(inject=f'room:{leave + 1}')
        room = shutil.disk_usage(self.folder).free - leave
        (self.folder / 'filler').write_bytes(b'x' * max(room, 0))
        return {}

    def shrink(self, megabytes):
        """Leave the whole disk so many megabytes -> options of `start`."""
        if not self.mounted:
            return dict(inject=f'room:{megabytes << 20}')
        self.resize(megabytes)
        return {}

    def grow(self):
        """Give the disk its room back."""
        if self.mounted:
            self.resize(64)

    def resize(self, megabytes):
        """Mount it again with another size."""
        options = f'remount,size={megabytes}m'
        subprocess.run(['mount', '-o', options, str(self.folder)], check=True)

    def make_room(self):
        """Empty the disk again."""
        (self.folder / 'filler').unlink(missing_ok=True)

    def read_only(self, on):
        """Forbid writing, or allow it again."""
        if self.mounted:
            options = f'remount,{"ro" if on else "rw"}'
            subprocess.run(['mount', '-o', options, str(self.folder)], check=True)
            return
        for path in [self.folder, *self.folder.rglob('*')]:
            mode = path.stat().st_mode
            path.chmod(mode & ~0o222 if on else mode | 0o200)

    def __exit__(self, *_):
        if self.mounted:
            subprocess.run(['umount', '-l', str(self.folder)], check=True)
