"""The real program, killed, refused, damaged and without room, ends as one that nothing disturbed.
benchmarks/faults.py has more cases and more of each.
"""

import os
import random
import signal

import pytest

from benchmarks import inputs
from benchmarks.faults import arrays, flip
from benchmarks.lab import EVERY, Case, Lab, steps, until
from benchmarks.program import saved


def test_what_is_told_of_an_output():
    """Of a build, of a build that left something out, of a training, an evaluation, an error."""
    build = 'x/1.0.0 lies in /a\n  train: 1,019 examples\n  test: 3 examples\n  split rule: given\n'
    for output, told in (
        (build, 'train: 1,019 examples; test: 3 examples'),
        (
            f'left out: 1\n  a.png: is empty\nSee /a\n{build}  left out: 1\n    a.png: is empty\n',
            'left out: 1; a.png: is empty; train: 1,019 examples; test: 3 examples',
        ),
        ('left out: 0\nSee /a\n\nTrained: x on y.\n  curves: tensorboard', 'Trained: x on y.'),
        ('/a: 3 pictures. Not measured: 1 hidden files.\nPicture: /b.png', '/a: 3 pictures. Not '),
        ('Picture: /b.png', 'Picture: /b.png'),
        ('Fetching\nError: no file.\nGive one.\nmore', 'Error: no file. Give one.'),
    ):
        found = inputs.told(inputs.Outcome([], 0, 1.0, 0, output))
        assert found.startswith(told) and 'split rule' not in found


@pytest.fixture(scope='module')
def lab(data_dir, tmp_path_factory):
    return Lab(
        tmp_path_factory.mktemp('faults'),
        data=data_dir,
        cache=os.environ['JAX_COMPILATION_CACHE_DIR'],
    )


def survived(case):
    assert case.times and not case.problems, case.problems


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(lab):
    case, workdir, draw = Case(lab), lab.new(), random.Random(0)
    for while_saving in (False, True, False, True):
        process = lab.begin(workdir)
        until(process, workdir, steps(workdir) + draw.randrange(4, 10), while_saving)
        process.send_signal(signal.SIGKILL)
        case.ended(process, -signal.SIGKILL, lost=2 * EVERY, workdir=workdir)
    case.printed(case.resume(workdir), 'taken over from process', 'resumed at step')
    survived(case)


@pytest.mark.slow
def test_two_processes_a_signal_no_room_and_a_damaged_checkpoint(
    lab,
):
    case, workdir = Case(lab), lab.new()
    first = lab.begin(workdir)
    until(first, workdir, 10)
    first.send_signal(signal.SIGSTOP)
    case.ended(lab.start(workdir), 1, rf'Error: workdir \S+ is in use by process {first.pid} on')
    first.send_signal(signal.SIGCONT)
    until(first, workdir, 12, while_saving=True)
    first.send_signal(signal.SIGTERM)
    case.ended(
        first, 130, 'SIGTERM: stage gan is saved', 'Resume with: t2i_jax', lost=0, workdir=workdir
    )

    before, newest = saved(workdir / 'gan')
    flip(arrays(workdir / 'gan' / 'checkpoints' / str(newest))[0])
    case.ended(
        lab.start(workdir, inject=f'room:{100 << 10}'),
        1,  # the log has room, a checkpoint has not
        rf'checkpoint of step {newest} in .* is damaged',
        rf'resumed at step {before}',
        rf'Error: A checkpoint of .* \(step {before} is the last finished one\) cannot be '
        rf'written: File too large',
    )
    case.resume(workdir)
    assert (workdir / 'gan' / 'checkpoints' / f'{newest}.damaged').is_dir()
    survived(case)


@pytest.mark.slow
def test_a_run_whose_terminal_is_closed_saves_and_all_its_processes_stop(
    lab,
):
    case, workdir = Case(lab), lab.new()
    process = lab.begin_group(workdir)
    until(process, workdir, 8)
    process.stdout.close()
    os.killpg(process.pid, signal.SIGHUP)
    case.ended(process, 130, lost=0, workdir=workdir)
    survived(case)
