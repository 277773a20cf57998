"""A run ends in the same state on any number of devices and however often it is interrupted; what
goes wrong costs a few steps at most.
"""

import asyncio
import concurrent.futures
import json
import os
import shutil
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bit_equal, lines, opened, restored, saved_steps, start_python
from PIL import Image

from t2i_jax import config as settings
from t2i_jax.data import dataset
from t2i_jax.data.text import Vocabulary
from t2i_jax.layers.game import GAME
from t2i_jax.run import Run
from t2i_jax.runtime import log, sharding
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.runtime.signals import Interrupted
from t2i_jax.sample import Sampler
from t2i_jax.step import joined, mean_of
from t2i_jax.systems import dcgan
from t2i_jax.systems.dcgan import Dcgan
from t2i_jax.train import Trainer, check, train

ONE = jax.devices()[:1]


def interrupt_at(monkeypatch, stage, step, number=signal.SIGTERM):
    """Sends this process a signal when it has logged a step."""
    write = log.Log.write

    def write_then_signal(self, at, metrics, prefix=''):
        write(self, at, metrics, prefix)
        if at == step and prefix == 'train/' and stage in self.lines.name:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(log.Log, 'write', write_then_signal)


def test_a_run_that_was_interrupted_twice_ends_as_one_that_was_not(
    tiny, trained, tmp_path, monkeypatch, capsys
):
    for stage, step, number in (('text', 1, signal.SIGTERM), ('gan', 4, signal.SIGINT)):
        with (
            monkeypatch.context() as patch,
            pytest.raises(
                Interrupted, match=f'stage {stage} is saved at step {step} of'
            ) as stopped,
        ):
            interrupt_at(patch, f'/{stage}/', step, number)
            train(Run(tiny(), tmp_path), ONE)
        assert (
            f'--workdir={tmp_path}' in str(stopped.value)
            and saved_steps(tmp_path, stage)[-1] == step
        )
    train(Run(tiny(), tmp_path), ONE)
    told = capsys.readouterr().out
    assert (
        'text: resumed at step 1 of 4' in told
        and 'text: finished, 4 steps' in told
        and 'gan: resumed at step 4 of 6' in told
    )

    for stage in ('text', 'gan'):
        (there, whole), (here, resumed) = (
            restored(tiny(), workdir, stage) for workdir in (trained, tmp_path)
        )
        assert there == here == whole.step == resumed.step and bit_equal(whole, resumed)
        assert lines(trained, stage) == lines(tmp_path, stage)
    assert not bit_equal(whole.params, whole.sampling_params())


@pytest.mark.slow
@pytest.mark.parametrize('dtype, remat', [('float32', False), ('bfloat16', True)])
def test_a_run_with_every_part_of_the_game_ends_as_one_that_was_not_interrupted(
    tiny, tmp_path, monkeypatch, dtype, remat
):
    """Spectral norm and LeCam have a state of their own."""
    both = dict(adversary='hinge', contrast=(1.0, 0.1), projection=True, spectral=True)
    game = {**GAME, **both, 'augment': True, 'lecam': 0.3, 'r1': 0.1, 'r2': 0.1, 'nt_xent': 0.2}

    def config():
        made = tiny().unlock()
        made.stages.gan.model.update(game=game, wrong='text', leave_out='none')
        made.stages.gan.sampler, made.dtype, made.remat = 'twins', dtype, remat
        return made.lock()

    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    train(Run(config(), whole), ONE)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(patch, '/gan/', 4)
        train(Run(config(), broken), ONE)
    train(Run(config(), broken), ONE)
    (there, one), (here, other) = (restored(config(), path, 'gan') for path in (whole, broken))
    assert there == here == 6 and bit_equal(one, other)
    assert 'singular' in one.stats['D']['logit']
    memory = one.stats['D']['extras']['memory']
    assert memory['real'] != 0 and memory['drawn'] != 0
    last = [json.loads(line) for line in (whole / 'gan' / 'metrics.jsonl').read_text().splitlines()]
    logged = {'lecam', 'penalty', 'contrast', 'wrong_logit', 'twins'}
    assert {f'train/{name}' for name in logged} <= set(last[0])
    assert all(np.isfinite(value) for line in last for value in line.values())
    kept = jax.tree.leaves((one.params, one.stats))
    assert {x.dtype for x in kept if jnp.issubdtype(x.dtype, jnp.floating)} == {
        jnp.dtype('float32')
    }


def test_a_run_that_is_killed_goes_on_where_it_was_saved(dense, tmp_path, monkeypatch, capsys):
    """As one that was not, bit by bit. tests/test_faults.py kills while saving, and often."""
    config = dense(steps=100_000, log_every=10, checkpoint_every=20)
    killed, whole = tmp_path / 'killed', tmp_path / 'whole'
    Run(config, killed).claim()
    process = start_python('-m', 't2i_jax.main', f'--workdir={killed}')
    deadline = time.monotonic() + 300
    while not (killed / 'gan' / 'checkpoints').exists() or not saved_steps(killed):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    saved = saved_steps(killed)[-1]
    for workdir in (killed, whole):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            interrupt_at(patch, '/gan/', saved + 10)
            train(Run(config, workdir), ONE)
    assert f'resumed at step {saved} of' in capsys.readouterr().out
    (there, one), (here, other) = (restored(config, path, 'gan') for path in (killed, whole))
    assert there == here == saved + 10 and bit_equal(one, other)
    assert lines(killed, 'gan') == lines(whole, 'gan')


def test_a_finished_run_is_left_as_it_is(tiny, trained, capsys):
    rewritten = ('meta.json', 'config.json')
    before = {
        path: path.stat().st_mtime_ns
        for path in trained.rglob('*')
        if path.is_file() and path.name not in rewritten
    }
    train(Run(tiny(), trained), ONE)
    assert 'gan: finished, 6 steps' in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_what_a_run_leaves_behind(trained):
    assert {path.name for path in trained.iterdir()} == {
        'config.json',
        'vocabulary.json',
        'text',
        'gan',
    }  # the lock is gone
    assert {path.name for path in (trained / 'text').iterdir()} == {
        'checkpoints',
        'meta.json',
        'metrics.jsonl',
        'tensorboard',
        'curves.png',
    }
    assert saved_steps(trained, 'text') == [3, 4] and saved_steps(trained) == [3, 6]
    grids = sorted((trained / 'gan' / 'samples').iterdir())
    assert [path.name for path in grids] == [f'{step:08d}.png' for step in (0, 3, 6)]
    assert min(Image.open(grids[-1]).size) > 7 * 64 and list(
        (trained / 'gan' / 'tensorboard').glob('events.*')
    )
    for stage, losses in (
        ('text', {'joint_loss', 'top1'}),
        (
            'gan',
            {'d_loss', 'g_loss', 'd_real', 'd_wrong', 'd_fake'}
            | {f'{pictures}_logit' for pictures in ('real', 'drawn', 'wrong')},
        ),
    ):
        found = lines(trained, stage)
        for prefix, steps in (
            ('train', range(1, found[-1]['step'] + 1)),
            ('validation', [3, found[-1]['step']]),
        ):
            mine = [line for line in found if f'{prefix}/{min(losses)}' in line]
            assert [line['step'] for line in mine] == sorted({*steps})
            assert all(
                set(line) == {'step'} | {f'{prefix}/{name}' for name in losses} for line in mine
            )
            assert np.isfinite([value for line in mine for value in line.values()]).all()


def test_a_longer_run_goes_on_and_another_one_is_refused(tiny, trained):
    Run(tiny(gan=dict(steps=7)), trained).claim()  # growing is allowed ...
    with pytest.raises(RunError, match='stages.gan.steps: 7 there, 6 here'):
        Run(tiny(), trained).claim()  # ... shrinking is not
    (trained / 'config.json').write_text(settings.to_json(tiny()))


def test_speeds_do_not_count_compilation(trained):
    text = (trained / 'gan' / 'metrics.jsonl').read_text()
    found = [json.loads(line) for line in text.splitlines() if 'train/d_loss' in line]
    assert ['train/images_per_s' in line for line in found] == [False] + 5 * [True]


def test_a_stop_signal_ends_the_building_of_data_at_once(dense, tmp_path, monkeypatch):
    def build(data):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(dataset, 'prepared', build)
    began = time.monotonic()
    with pytest.raises(Interrupted, match=f'SIGTERM: the next stage .* --workdir={tmp_path}'):
        train(Run(dense(), tmp_path), ONE)
    assert time.monotonic() - began < 30 and not (tmp_path / 'lock').exists()


# -------------------------------------------------------------------------------------- small data
def test_a_batch_shrinks_to_small_data_and_a_checkpoint_knows_it(dense, tmp_path, capsys):
    config = dense(batch_size=64, ema_half_life=12.0, validate_every=3).unlock()
    config.data.update(split='train[:50]', validation_split='validation[:5]')
    run, mesh = Run(config, tmp_path), sharding.make_mesh(devices=ONE)
    check(run, mesh)
    trainer = opened(config, tmp_path, mesh)
    assert trainer.feed.plan.batch_size == trainer.identity()['batch_size'] == 48
    assert trainer.held_out.plan.batch_size == 4
    assert trainer.program.decay == pytest.approx(0.5 ** (48 / 12))
    told = capsys.readouterr().out
    for part in (
        'Stage gan: 50 records fill no batch of 64, so batches have 48.',
        'Stage gan: 50 records of shape_scenes/single_quick/',
        '(train[:50]), 5 held out (validation[:5]), 16 px; 6 steps of 48 rows.',
        'parameters to train on 1 x cpu. Compiling takes about a minute the first time.',
    ):
        assert part in told
    # of records without a caption that can be read
    trainer.feed.plan.n = 40
    trainer.announce()
    assert 'Stage gan: 40 of 50 records of shape_scenes' in capsys.readouterr().out


def test_other_data_than_those_of_a_checkpoint_are_refused(tiny, trained, tmp_path):
    shutil.copytree(trained, tmp_path / 'run')
    config = tiny().unlock()
    config.data.split = 'train[:128]'
    message = r'made with records 256, here it is 128: .* were\. Put it back, or choose'
    with pytest.raises(RunError, match=message):
        started(config, tmp_path / 'run')


def test_without_a_held_out_batch_there_are_no_held_out_losses(dense, tmp_path, capsys):
    config = dense(validate_every=3).unlock()
    config.data.validation_split = 'validation[:1]'
    mesh = sharding.make_mesh(devices=ONE)
    assert opened(config, tmp_path, mesh).held_out.plan is None
    told = capsys.readouterr().out
    assert 'Stage gan: no held-out losses. shape_scenes' in told
    assert '1 held out (validation[:1], without losses)' in told
    config.stages.gan.keep = 'best:g_loss'
    with pytest.raises(DataError, match='1 records that can be drawn, too few'):
        opened(config, tmp_path, mesh)


def test_more_captions_than_the_data_have_are_refused(tiny, tmp_path):
    config = tiny().unlock()
    config.data.captions = 40
    with pytest.raises(DataError, match='data.captions=40 captions in a row, and no record of'):
        opened(config, tmp_path, sharding.make_mesh(devices=ONE), 'text')


# ----------------------------------------------------------------------------------- several stages
def started(config, workdir):
    """The state from which a stage's training would start."""
    checkpoints = Run(config, workdir)['gan'].checkpoints()
    try:
        return opened(config, workdir, sharding.make_mesh(devices=ONE)).resumed(checkpoints)
    finally:
        checkpoints.close()


def test_a_smaller_keep_n_says_what_it_deletes_and_an_empty_folder_is_none(
    tiny, trained, tmp_path, capsys
):
    run = shutil.copytree(trained, tmp_path / 'run')
    config, folder = tiny().unlock(), run / 'gan' / 'checkpoints'
    config.stages.gan.steps = 9
    for keep_n, told in ((2, False), (1, True)):
        config.stages.gan.keep_n = keep_n
        assert started(config, run).step == 6
        assert told == (
            'with keep_n=1 the next save deletes 2 checkpoints, of steps 3 to 6. '
            '--config.stages.gan.keep_n=-1 keeps all.' in capsys.readouterr().out
        )
    for step in '36':
        shutil.rmtree(folder / step)
    (folder / '6').mkdir()
    assert started(config, run).step == 0 and not any(folder.iterdir())


def test_a_network_may_come_from_another_run(tiny, trained, tmp_path):
    config = tiny().unlock()
    config.init.text = str(trained)
    state, theirs = started(config, tmp_path), restored(tiny(), trained, 'text')[1]
    assert bit_equal(state.params['text'], theirs.params['text']) and state.step == 0
    Vocabulary(['circle', 'square']).save(tmp_path / 'vocabulary.json')
    with pytest.raises(RunError, match=rf'{trained} has another vocabulary .* than {tmp_path}'):
        started(config, tmp_path)
    config.init.text = str(tmp_path)
    with pytest.raises(RunError, match=r'holds no trained stage'):
        Run(config, tmp_path)['gan'].build(Run.open(trained)['gan'].meta, 0)


def test_a_run_does_not_depend_on_the_one_from_which_it_took_a_stage(tiny, trained, tmp_path):
    other, mine = tmp_path / 'other', tmp_path / 'mine'
    shutil.copytree(trained, other)
    config = tiny().unlock()
    config.init.text = str(other)
    Run(config, mine)['text'].adopt()
    shutil.rmtree(other)
    assert Run(config, mine)['gan'].build(Run.open(trained)['gan'].meta, 0).text.d == 8


def test_a_stage_without_phases_is_saved_as_it_is(dense, tmp_path, monkeypatch, capsys):
    class Still(Dcgan):
        def __init__(self, *args, **keywords):
            super().__init__(*args, **keywords)
            self.phases = ()

    monkeypatch.setitem(dcgan.STAGES, 'gan', Still)
    train(Run(dense(), tmp_path), ONE)
    assert saved_steps(tmp_path) == [0] and Sampler.load(tmp_path)(num=2)['image'].shape == (
        1,
        2,
        16,
        16,
        3,
    )
    train(Run(dense(), tmp_path), ONE)
    assert 'finished, 0 steps' in capsys.readouterr().out


def test_the_best_checkpoint_stays(dense, tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 4.0])
    monkeypatch.setattr(
        Trainer,
        'validate',
        lambda self, step, state: setattr(self, 'validation', {'g_loss': next(losses)}),
    )
    config = dense(steps=4, checkpoint_every=1, validate_every=1, keep='best:g_loss', keep_n=1)
    train(Run(config, tmp_path), ONE)
    assert saved_steps(tmp_path) == [2, 4] and restored(config, tmp_path, 'gan')[0] == 2
    for every in (0, 3):
        with pytest.raises(
            RunError, match='validate_every to a number that divides checkpoint_every'
        ):
            config = dense(checkpoint_every=2, validate_every=every, keep='best:g_loss')
            check(Run(config, tmp_path / 'other'), sharding.make_mesh(devices=ONE))


def test_a_run_is_trained_in_a_thread_and_within_an_event_loop(dense, tmp_path):
    async def notebook():
        return train(Run(dense(steps=2), tmp_path / 'loop'), ONE)

    asyncio.run(notebook())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(train, Run(dense(steps=2), tmp_path / 'thread'), ONE).result()
    one, other = (restored(dense(steps=2), tmp_path / name, 'gan') for name in ('loop', 'thread'))
    assert one[0] == other[0] == 2 and bit_equal(one[1], other[1])


# ---------------------------------------------------------------------------------- what goes wrong
def test_a_workdir_that_is_taken_away_ends_the_run(dense, tmp_path, monkeypatch):
    write, workdir = log.Log.write, tmp_path / 'run'

    def write_then_take(self, at, metrics, prefix=''):
        write(self, at, metrics, prefix)
        if at == 4:
            workdir.rename(tmp_path / 'elsewhere')

    monkeypatch.setattr(log.Log, 'write', write_then_take)
    with pytest.raises(RunError, match=f'workdir {workdir} was moved or removed while stage gan'):
        train(Run(dense(), workdir), ONE)
    # nothing stands there that looks like a run
    assert not list(tmp_path.rglob('run/config.json')) and not list(workdir.rglob('checkpoints/6'))


def test_a_loss_that_is_not_finite_ends_the_run_and_is_never_saved(dense, tmp_path, monkeypatch):
    loss = Dcgan.g_loss

    def poisoned(self, batch, key, out):
        value, logs = loss(self, batch, key, out)
        return value + jnp.where(batch['step'] >= 4, jnp.nan, 0), logs

    monkeypatch.setattr(Dcgan, 'g_loss', poisoned)
    config = dense(steps=20, log_every=10, checkpoint_every=2)
    with pytest.raises(RunError) as error:
        train(Run(config, tmp_path), ONE)
    for part in (
        'Stage gan, step 5',
        'phase g_loss',
        'last good checkpoint is step 4',
        'optim.g_loss.lr',
    ):
        assert part in str(error.value)
    assert saved_steps(tmp_path) == [2, 4]
    state = restored(config, tmp_path, 'gan')[1]
    assert state.bad_step == -1 and all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    assert not (tmp_path / 'lock').exists()


def test_an_absurd_learning_rate_ends_the_run_before_anything_is_saved(dense, tmp_path):
    config = dense().unlock()
    config.stages.gan.optim.d_loss.lr = 1e38
    with pytest.raises(RunError, match='No checkpoint exists yet'):
        train(Run(config, tmp_path), ONE)
    assert not saved_steps(tmp_path)


def test_a_checkpoint_of_other_data_is_refused(tiny, trained):
    config = tiny(gan=dict(steps=7)).unlock()
    config.data.split = 'train[:200]'
    trainer = opened(config, trained, sharding.make_mesh(devices=ONE))
    checkpoints = Run(config, trained)['gan'].checkpoints()
    with pytest.raises(RunError, match='made with records 256, here it is 200'):
        trainer.resumed(checkpoints)
    checkpoints.close()


def test_a_finished_run_ends_at_once_without_its_data(tiny, trained, capsys, monkeypatch):
    monkeypatch.setattr(
        sys.modules['t2i_jax.train'], 'Split', lambda *_, **__: pytest.fail('the data are read')
    )
    train(Run(tiny(), trained), ONE)
    assert (
        'Stage text: finished, 4 steps.' in (told := capsys.readouterr().out)
        and 'Stage gan: finished, 6 steps.' in told
    )


def test_means_leave_out_phases_that_did_not_run():
    nan = np.float32(np.nan)
    metrics = [{'a': np.float32(1), 'b': nan}, {'a': np.float32(3), 'b': nan}, {'a': nan, 'b': nan}]
    # the same where the first ones were joined, because the line is far away
    for some in metrics, [joined(metrics[:2]), *metrics[2:]]:
        found = mean_of(some)
        assert found['a'] == 2 and np.isnan(found['b'])


@pytest.mark.slow
def test_several_steps_at_once_end_as_one_after_another(dense, tmp_path):
    config = dense(steps=8, log_every=4, checkpoint_every=4).unlock()
    train(Run(config, tmp_path / 'one'), ONE)
    config.stages.gan.steps_per_dispatch = 4
    train(Run(config, tmp_path / 'four'), ONE)
    one, four = (restored(config, tmp_path / name, 'gan')[1] for name in ('one', 'four'))
    assert one.step == four.step == 8
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    for a, b in zip(lines(tmp_path / 'one', 'gan'), lines(tmp_path / 'four', 'gan')):
        assert a == pytest.approx(b, rel=1e-4)
    config.stages.gan.update(steps=10, checkpoint_every=5)
    with pytest.raises(
        RunError, match='steps_per_dispatch=4 .* does not divide checkpoint_every=5, steps=10'
    ):
        train(Run(config, tmp_path / 'other'), ONE)


def test_the_host_asks_the_device_at_log_steps_only(dense, tmp_path, monkeypatch):
    """Nothing is sent but a batch's rows, and nothing is fetched, by a step at which nothing is due
    (several hosts fetch one number: whether to stop).
    """
    asked, number, step, put_rows = set(), [0], Trainer.open_model, sharding.put_rows

    def open_model(self):
        step(self)
        one = self.compiled.step

        def guarded(*args):
            number[0] += 1
            with jax.transfer_guard('disallow_explicit'):
                return one(*args)

        self.compiled = self.compiled._replace(step=guarded)

    def fetched(convert):
        def noted(self, *args, **keywords):
            asked.add(number[0])
            return convert(self, *args, **keywords)

        return noted

    monkeypatch.setattr(Trainer, 'open_model', open_model)
    monkeypatch.setattr(
        sharding,
        'put_rows',
        lambda *args, **keywords: jax.block_until_ready(put_rows(*args, **keywords)),
    )
    for name in ('__array__', '__int__', '__float__', '__bool__'):
        monkeypatch.setattr(type(jnp.ones(1)), name, fetched(getattr(type(jnp.ones(1)), name)))
    train(Run(dense(steps=9, log_every=3, checkpoint_every=0), tmp_path), ONE)
    assert number[0] == 9 and asked - {0} == {3, 6, 9}


def test_a_validation_loss_that_is_none_is_refused_before_the_first_step(tiny, tmp_path):
    config = tiny(text=dict(keep='best:nothing'))
    with pytest.raises(RunError, match=r"keep names 'nothing', but the validation losses are \w"):
        opened(config, tmp_path, sharding.make_mesh(devices=ONE), 'text')
