"""Metrics that survive a crash, contact sheets that show what they were given, and a lock that lets
one process in.
"""

import importlib.util
import io
import json
import math
import os
import subprocess
import sys
import time
import types

import ml_collections
import numpy as np
import pytest
from PIL import Image
from tensorboardX import RecordWriter

from benchmarks.program import curves, events
from t2i_jax.draw.curves import save_curves
from t2i_jax.draw.sheets import save_gif, save_png, sheet
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.runtime.files import replacing, write_text, writes
from t2i_jax.runtime.lock import Lock
from t2i_jax.runtime.log import Log, Wandb, require_wandb
from t2i_jax.runtime.terminal import Progress


def lines(folder):
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_a_phase_that_did_not_run_leaves_no_value(tmp_path):
    with Log(tmp_path) as log:
        log.write(1, {'d_loss': np.float32(0.5), 'g_loss': np.float32(np.nan), 'text_loss': None})
        log.write(2, {'g_loss': np.nan})
        log.write(2, {'d_loss': 0.25}, prefix='validation/')
        log.image(2, 'samples', np.zeros((8, 8, 3), np.uint8))
    assert lines(tmp_path) == [{'step': 1, 'd_loss': 0.5}, {'step': 2, 'validation/d_loss': 0.25}]
    tags = [(event.step, value.tag) for event in events(tmp_path) for value in event.summary.value]
    assert tags == [(1, 'd_loss'), (2, 'validation/d_loss'), (2, 'samples')]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    with Log(tmp_path) as log:
        for step in (1, 2, 3, 4):
            log.write(step, {'loss': step})
    with open(tmp_path / 'metrics.jsonl', 'a') as file:
        file.write('{"step": 2, "lo')  # killed while it wrote
    with Log(tmp_path, step=2) as log:
        log.write(3, {'loss': 30})
    assert lines(tmp_path) == [
        {'step': 1, 'loss': 1},
        {'step': 2, 'loss': 2},
        {'step': 3, 'loss': 30},
    ]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith('.')]
    # TensorBoard drops the events of this step and later ones when it meets the mark of a restart
    assert [event.step for event in events(tmp_path) if event.HasField('session_log')] == [1, 3]


def test_tensorboard_shows_each_step_once_though_the_clock_is_set_back(tmp_path, monkeypatch):
    for step, clock in ((0, 2e9), (2, 1e9), (3, 1e9), (4, 3e9)):
        monkeypatch.setattr(time, 'time', lambda clock=clock: clock)
        with Log(tmp_path, step) as log:
            for at in (step + 1, step + 2):
                log.write(at, {'loss': 10 * step + at})
    assert curves(tmp_path) == {
        ('loss', 1): 1,
        ('loss', 2): 2,
        ('loss', 3): 23,
        ('loss', 4): 34,
        ('loss', 5): 45,
        ('loss', 6): 46,
    }


def test_what_is_logged_before_a_checkpoint_lies_on_the_disk_then(tmp_path):
    with Log(tmp_path) as log:
        log.write(1, {'loss': 1})
        log.flush()
        assert curves(tmp_path) == {('loss', 1): 1} and lines(tmp_path)[0]['loss'] == 1


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full, which takes nothing')
def test_a_write_that_fails_stops_the_run_with_one_message(tmp_path):
    told = (
        rf'workdir {tmp_path} cannot be written: No space left on device. .* MB are free '
        rf'there. Make room, .*--workdir={tmp_path}'
    )
    with pytest.raises(RunError, match=told), writes(tmp_path), Log(tmp_path) as log:
        log.events.file.close()
        log.events.file = RecordWriter('/dev/full')
        for step in range(10_000):
            log.write(step, {'loss': step})


@pytest.mark.parametrize('kind', ['folder', 'pipe', 'full', 'zero'])
def test_files_of_a_run_that_are_no_files_are_named_and_not_opened(tmp_path, kind):
    for name in 'metrics.jsonl', 'lock':
        path = tmp_path / name
        if kind == 'folder':
            path.mkdir()
        elif kind == 'pipe':
            os.mkfifo(path)
        else:
            path.symlink_to(f'/dev/{kind}')
        what = {'folder': 'a folder', 'pipe': 'a pipe'}.get(kind, 'a device')
        with pytest.raises(RunError, match=f'{path} is {what}, and a run .*take it away'):
            Log(tmp_path) if name == 'metrics.jsonl' else Lock(tmp_path).__enter__()


def test_what_is_in_the_way_of_a_file_is_named_not_the_temporary_one(tmp_path):
    for name in 'config.json', 'curves.png':
        (tmp_path / name / 'x').mkdir(parents=True)
        message = rf'^{tmp_path}/{name} cannot be written: Is a directory. Take it away'
        with pytest.raises(RunError, match=message), writes(tmp_path):
            write_text(tmp_path / name, 'x')
    # the folder became a file in the meantime
    for how in ('while', 'before'):
        folder, at = tmp_path / how, '/x.png' if how == 'while' else ''
        message = rf'^{folder}{at} cannot be written: .*ake it away'
        with (
            pytest.raises(RunError, match=message),
            writes(tmp_path),
            replacing(folder / 'x.png') as temporary,
        ):
            folder.rmdir()
            folder.touch()
            temporary.write_text('x')
        (tmp_path / 'before').touch()
    assert sorted(tmp_path.glob('.*')) == []


def test_progress_without_a_terminal_is_a_few_plain_lines():
    file = io.StringIO()
    with Progress(200, 100, 'gan', file) as bar:
        for step in range(100):
            bar.update(
                1,
                {'d_loss': 1.5, 'd_real': 0.7, 'g_loss': float('nan')} if step % 10 == 0 else None,
                512.0,
            )
    first, last = file.getvalue().splitlines()
    assert first.startswith('gan  step 101/200  d_loss 1.5  512 images/s') and first.endswith(
        'left'
    )
    assert last.startswith('gan  step 200/200') and last.endswith('00:00 left')


def test_the_time_left_does_not_count_what_is_done_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, 'monotonic', lambda: clock[0])
    file = io.StringIO()
    with Progress(100, 0, 'gan', file, seconds=0) as bar:
        clock[0] = 60
        bar.restart(1)
        bar.update(1, {'d_loss': 1.5})
        clock[0] = 64
        bar.update(4, {'d_loss': 1.5}, 8.0)
    first, second = file.getvalue().splitlines()
    assert first == 'gan  step 1/100  d_loss 1.5  ? left'
    assert second == 'gan  step 5/100  d_loss 1.5  8 images/s  01:35 left'
    file.isatty = lambda: True
    with Progress(100, 0, 'gan', file) as bar:
        bar.bar.start_t, bar.bar.last_print_t = time.time() - 60, time.time() - 60
        bar.restart(1)
        assert bar.bar.format_dict['elapsed'] < 1


def test_progress_on_a_terminal_is_one_bar():
    file = io.StringIO()
    file.isatty = lambda: True
    with Progress(200, 100, 'gan', file) as bar:
        bar.update(100, {'d_loss': 1.5}, 512.0)
    assert '200/200' in file.getvalue() and 'd_loss 1.5  512 images/s' in file.getvalue()


def test_a_sheet_shows_every_picture_enlarged_and_the_sentences_beside_them(tmp_path):
    rows = np.arange(6, dtype=np.uint8).reshape(3, 2, 1, 1, 1) * 30 + np.zeros(
        (3, 2, 16, 16, 3), np.uint8
    )
    real = np.broadcast_to(np.uint8([[200, 0, 0]]), (3, 16, 16, 3))
    picture = sheet(
        rows,
        ['a red bird', '', 'a word ' * 40],
        tmp_path / 'deep' / 'sheet.png',
        real=real,
        title='step 10',
    )
    assert picture.dtype == np.uint8 and (picture[0] == 255).all() and (picture[:, -1] == 255).all()
    for value in rows[:, :, 0, 0].reshape(6, 3):
        assert (picture == value).all(
            -1
        ).sum() >= 64 * 64  # more where the smooth edges of letters have this grey, too
    assert ((picture == [200, 0, 0]).all(-1)).sum() == 3 * 64 * 64
    assert (np.asarray(Image.open(tmp_path / 'deep' / 'sheet.png')) == picture).all()
    assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['sheet.png']


def test_a_long_sentence_makes_its_row_higher_and_none_takes_no_space():
    rows = np.zeros((2, 3, 64, 64, 3), np.uint8)
    plain, short, long = (sheet(rows, labels) for labels in (None, ['a', 'b'], ['a', 'b ' * 400]))
    assert (
        plain.shape[1] < short.shape[1] == long.shape[1]
        and plain.shape[0] < short.shape[0] < long.shape[0]
    )


@pytest.mark.parametrize('n, columns, across', [(9, None, 3), (5, 5, 5), (2, 8, 2)])
def test_single_samples_lie_in_a_square(n, columns, across):
    rows = np.zeros((n, 1, 256, 256, 3), np.uint8)
    picture = sheet(rows, ['a bird'] * n, columns=columns)
    dark = (picture == 0).all(-1)
    assert dark.any(0).sum() == 256 * across and picture.shape[1] < across * 320


def test_many_samples_fill_several_lines():
    rows = np.zeros((1, 64, 64, 64, 3), np.uint8)
    dark = (sheet(rows, real=rows[:, 0]) == 0).all(-1)
    assert dark.any(0).sum() == 9 * 64 and dark.any(1).sum() >= 8 * 64


def test_a_sheet_refuses_what_is_no_picture():
    with pytest.raises(ValueError, match='uint8.* 2 labels'):
        sheet(np.zeros((2, 3, 64, 64, 3)), ['a', 'b'])
    with pytest.raises(ValueError, match='3 labels'):
        sheet(np.zeros((2, 3, 64, 64, 3), np.uint8), ['a', 'b', 'c'])
    with pytest.raises(ValueError, match='real'):
        sheet(np.zeros((2, 3, 64, 64, 3), np.uint8), real=np.zeros((3, 64, 64, 3), np.uint8))


def test_a_failed_save_leaves_the_old_picture(tmp_path):
    save_png(tmp_path / 'a.png', np.full((4, 4, 3), 7, np.uint8))
    with pytest.raises(TypeError):
        save_png(tmp_path / 'a.png', np.zeros((4, 4, 7), np.uint8))
    assert (np.asarray(Image.open(tmp_path / 'a.png')) == 7).all() and len(
        list(tmp_path.iterdir())
    ) == 1


@pytest.mark.slow
def test_a_workdir_lets_one_process_in(tmp_path):
    other = (
        'import sys\nfrom t2i_jax.runtime.lock import Lock\nfrom t2i_jax.runtime.errors '
        'import RunError\n'
        'try:\n    with Lock(sys.argv[1]):\n        print("in")\nexcept RunError as error:\n '
        '   print(error)'
    )

    def enter():
        return subprocess.run(
            [sys.executable, '-c', other, tmp_path / 'run'],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    with Lock(tmp_path / 'run'):
        message = enter()
        assert (
            f'in use by process {os.getpid()} on' in message
            and 'choose another --workdir' in message
        )
        with pytest.raises(RunError, match='in use'), Lock(tmp_path / 'run'):
            pass
    assert not (tmp_path / 'run' / 'lock').exists()
    assert enter() == 'in\n'


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, caplog):
    (tmp_path / 'lock').write_text(
        json.dumps({'pid': 4_000_001, 'host': 'there', 'started': '2020-01-02 03:04:05'})
    )
    caplog.set_level('INFO', logger='absl')
    with Lock(tmp_path):
        assert json.loads((tmp_path / 'lock').read_text())['pid'] == os.getpid()
    (message,) = (record.getMessage() for record in caplog.records)
    assert 'process 4000001 on there since 2020-01-02 03:04:05, which is gone' in message


def test_errors_are_value_errors_with_one_message():
    assert issubclass(RunError, ValueError) and issubclass(DataError, ValueError)


def test_a_film_runs_there_and_back(tmp_path):
    frames = (
        np.zeros((4, 3, 8, 8, 3), np.uint8)
        + np.arange(0, 200, 50, dtype=np.uint8)[:, None, None, None, None]
    )
    frames[:, 2, :4] = 255
    save_gif(tmp_path / 'film.gif', frames, seconds=2)
    film = Image.open(tmp_path / 'film.gif')
    assert (
        film.n_frames == 6
        and film.size == (130, 130)
        and film.info['duration'] == 500
        and film.info['loop'] == 0
    )
    for frame, shown in enumerate((0, 50, 100, 150, 100, 50)):
        film.seek(frame)
        picture = np.asarray(film.convert('RGB')).astype(int)
        assert (
            abs(picture[0, 0] - shown).max() <= 2
            and (picture[66:98, :64] >= 253).all()
            and abs(picture[99, 0] - shown).max() <= 2
        )
        assert (picture[66:, 66:] == 255).all()  # three pictures fill a square of four but for one


def test_curves_have_a_panel_for_each_kind_of_values_that_was_logged(tmp_path):
    lines = [
        '{"step": 10, "train/d_loss": 1.0, "train/g_loss": 2.0, "train/images_per_s": 9.0}',
        '{"step": 20, "train/d_loss": 0.5, "train/g_loss": 2.5}',
    ]
    assert not save_curves([], tmp_path / 'none.png') and not (tmp_path / 'none.png').exists()
    more = {'evaluation': ['evaluation/class*']}
    assert save_curves(lines, tmp_path / 'one.png', more)
    lines.append('{"step": 20, "evaluation/class_colour_analytic": 0.5, "evaluation/other": 7.0}')
    assert save_curves(lines, tmp_path / 'two.png', more)
    one, two = (Image.open(tmp_path / f'{name}.png').size for name in ('one', 'two'))
    assert two == (2 * one[0], one[1])


def test_weights_and_biases_get_the_same_numbers(tmp_path, monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append('end')
    )
    package = types.ModuleType('wandb')
    package.init, package.Image = lambda **given: calls.append(given) or run, lambda x: x.shape
    monkeypatch.setitem(sys.modules, 'wandb', package)
    config = ml_collections.ConfigDict({'system': 'gan_cls'})
    stage = types.SimpleNamespace(
        folder=tmp_path / 'a' / 'gan', workdir=tmp_path / 'a', name='gan', config=config
    )
    with Log(stage.folder, also=[Wandb(stage, 0)]) as log:
        log.write(2, {'loss': 1.5, 'idle': math.nan}, 'train/')
        log.image(2, 'samples', np.zeros((4, 5, 3), np.uint8))
    begun, *rest = calls
    assert begun['name'] == 'a gan' and begun['resume'] == 'allow'
    assert begun['config'] == {'system': 'gan_cls'}
    assert rest == [(2, {'train/loss': 1.5}), (2, {'samples': (4, 5, 3)}), 'end']
    again = [Wandb(stage, 2), calls[-1]][1]
    assert again['id'] == begun['id']


def test_weights_and_biases_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(RunError, match='pip install wandb'):
        require_wandb()
