"""What is restored is bit for bit what was saved, or an older state that is.

Damage and half-written folders are named and skipped.
"""

import contextlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bit_equal

from t2i_jax.runtime.checkpoint import Checkpoints, saved_in
from t2i_jax.runtime.errors import RunError
from t2i_jax.stage import State


def state(step, width=64):
    """A state whose values are all different, in the types that states have."""
    rng = np.random.default_rng(step)
    weights = {
        'kernel': jnp.float32(rng.normal(size=(width, 96))),
        'bias': jnp.float32(rng.normal(size=width)),
    }
    return State(
        step=jnp.int32(step),
        seed=jnp.uint32(4_000_000_000),
        params={'G': weights, 'empty': {}},
        stats={'G': {'mean': jnp.float32(step)}},
        opt=((jnp.int32(step), {'G': weights}), ()),
        ema={'G': {'kernel': weights['kernel'] + 1}},
        ema_stats={'G': {'mean': jnp.float32(1)}},
        bad_step=jnp.int32(-1),
        bad_phase=jnp.int32(-1),
    )


def shapes(one=None):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), one or state(0)
    )


@pytest.fixture
def opened(tmp_path):
    """A function that opens the checkpoints in a folder; they are closed in the end."""
    open_ones = []

    def call(**keywords):
        open_ones.append(Checkpoints(tmp_path, **keywords))
        return open_ones[-1]

    yield call
    for checkpoints in open_ones:
        checkpoints.close()


def written(checkpoints, *steps, metrics=None):
    for step in steps:
        checkpoints.save(
            step,
            state(step),
            {'seed': 7, 'note': f'step {step}'},
            metrics and metrics[step],
            wait=True,
        )
    return checkpoints


def data_files(folder):
    """The files of a checkpoint's arrays, the largest first."""
    files = (
        path for path in (folder / 'state').rglob('*') if path.is_file() and '/d/' in str(path)
    )
    return sorted(files, key=lambda path: -path.stat().st_size)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def test_a_round_trip_is_bit_equal(opened):
    assert opened().restore(shapes()) is None and opened().best_step() is None
    written(opened(), 3, 5)
    step, found, extra = opened().restore(shapes())
    assert (
        step == 5 and bit_equal(found, state(5)) and (extra['seed'], extra['note']) == (7, 'step 5')
    )
    assert (
        jax.tree.structure(found) == jax.tree.structure(state(5))
        and int(found.seed) == 4_000_000_000
    )
    assert all(
        a.dtype == b.dtype for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state(5)))
    )
    step, found, _ = opened().restore(shapes(), step=3)
    assert step == 3 and bit_equal(found, state(3))
    assert opened().extra(3)['note'] == 'step 3'


def test_a_state_that_was_written_elsewhere_is_no_checkpoint(opened, tmp_path):
    """TensorStore reads a backslash as /."""
    checkpoints = Checkpoints(tmp_path / r'a\b')
    with contextlib.closing(checkpoints), pytest.raises(RunError, match='cannot be read back'):
        written(checkpoints, 3)


def test_saving_goes_on_while_the_state_changes(opened):
    checkpoints, step = (
        opened(),
        jax.jit(lambda x: jax.tree.map(lambda y: y + 1, x), donate_argnums=0),
    )
    one = jax.tree.map(jnp.copy, state(1))
    checkpoints.save(1, one, {})
    step(one)  # its buffers are given away while it is written
    checkpoints.wait()
    assert bit_equal(checkpoints.restore(shapes())[1], state(1))


def test_the_last_ones_and_the_best_one_stay(opened):
    losses = {1: 5.0, 2: 1.0, 3: 3.0, 4: 4.0, 5: 2.0}
    metrics = {step: {'d_loss': loss, 'x': 0.0} for step, loss in losses.items()}
    checkpoints = written(opened(keep_n=2, best='d_loss'), *losses, metrics=metrics)
    assert checkpoints.steps() == [5, 4, 2] and checkpoints.best_step() == 2
    again = opened(keep_n=2, best='d_loss')
    assert again.best_step() == 2
    written(again, 6)  # saved before the first validation of a resumed run
    assert again.steps() == [6, 5, 2] and again.best_step() == 2


def test_a_loss_that_is_not_a_number_is_never_the_best(opened):
    losses = {1: float('nan'), 2: 3.0, 3: 2.0, 4: float('nan')}
    checkpoints = written(
        opened(keep_n=1, best='d_loss'),
        *losses,
        metrics={step: {'d_loss': loss} for step, loss in losses.items()},
    )
    assert checkpoints.steps() == [4, 3] and checkpoints.best_step() == 3


def test_without_a_name_the_last_one_is_the_best(opened):
    checkpoints = written(opened(keep_n=3), 1, 2, 3, 4)
    assert checkpoints.steps() == [4, 3, 2] and checkpoints.best_step() == 4


def test_of_all_checkpoints_that_stay_none_is_deleted(opened, tmp_path):
    written(opened(keep_n=-1), 1, 2, 3, 4)
    assert saved_in(tmp_path) and sorted(saved_in(tmp_path)) == [1, 2, 3, 4]
    # to open them, or to read them, with a smaller number deletes none
    few = opened(keep_n=1)
    assert few.restore(shapes())[0] == 4 and few.best_step() == 4
    assert sorted(saved_in(tmp_path)) == [1, 2, 3, 4]


def test_an_existing_step_is_left_as_it_is(opened):
    checkpoints = written(opened(), 4)
    checkpoints.save(4, state(9), {'note': 'another'}, wait=True)
    assert (
        bit_equal(checkpoints.restore(shapes())[1], state(4))
        and checkpoints.extra(4)['note'] == 'step 4'
    )


# ------------------------------------------------------------------------------------------- damage
def test_a_flipped_byte_is_found_wherever_it_is(opened, tmp_path, caplog):
    written(opened(), 1, 2)
    whole, sources = tmp_path / 'whole', []
    shutil.copytree(tmp_path / '2', whole)
    large = data_files(whole)[0]
    fell_back = 0
    for place in np.linspace(0, large.stat().st_size - 1, 12).astype(int):
        shutil.rmtree(tmp_path / '2')
        shutil.copytree(whole, tmp_path / '2')
        flip(tmp_path / '2' / large.relative_to(whole), place)
        caplog.clear()
        step, found, _ = opened().restore(shapes())
        assert bit_equal(found, state(step))  # never something else
        if step == 1:
            assert 'checkpoint of step 2' in caplog.text and 'is skipped' in caplog.text
            fell_back += 1
        sources.append(step)
    assert fell_back >= 8, sources


def test_values_that_differ_from_their_checksum_are_refused(opened, tmp_path, caplog):
    written(opened(), 1, 2)
    other = written(Checkpoints(tmp_path / 'other'), 3)
    other.close()
    shutil.rmtree(tmp_path / '2' / 'state')
    shutil.copytree(
        tmp_path / 'other' / '3' / 'state', tmp_path / '2' / 'state'
    )  # whole, but not what was saved
    step, found, _ = opened().restore(shapes())
    assert step == 1 and bit_equal(found, state(1)) and 'differs from its checksum' in caplog.text


@pytest.mark.parametrize('part', ['state', 'extra', 'largest', '_CHECKPOINT_METADATA'])
def test_missing_parts(opened, tmp_path, part, caplog):
    written(opened(), 1, 2)
    path = data_files(tmp_path / '2')[0] if part == 'largest' else tmp_path / '2' / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    step, found, _ = opened().restore(shapes())
    assert bit_equal(found, state(step)) and (step == 2 or 'step 2' in caplog.text)


def test_folders_that_were_renamed_or_copied_are_not_taken_for_another_step(
    opened, tmp_path, caplog
):
    written(opened(), 1, 2)
    shutil.copytree(tmp_path / '1', tmp_path / '20')
    step, found, _ = opened().restore(shapes())
    assert step == 2 and bit_equal(found, state(2))
    assert 'step 20' in caplog.text and 'it holds step 1' in caplog.text
    shutil.rmtree(tmp_path / '20')
    for a, b in ('1', 'x'), ('2', '1'), ('x', '2'):
        (tmp_path / a).rename(tmp_path / b)
    with pytest.raises(RunError, match=r'step 2: it holds step 1, rename it back to 1; step 1'):
        opened().restore(shapes())
    with pytest.raises(RunError, match=r'it holds step 2, rename it back to 2\.$'):
        opened().restore(shapes())


def test_where_there_is_only_an_empty_folder_training_begins(opened, tmp_path):
    (tmp_path / '20').mkdir()
    checkpoints = opened()
    assert checkpoints.steps() == [] and checkpoints.restore(shapes()) is None
    checkpoints.tidy()
    written(checkpoints, 10, 20)
    assert checkpoints.steps() == [20, 10]


def test_the_next_save_deletes_what_is_too_many(opened):
    losses = {1: 5.0, 2: 1.0, 3: 3.0, 4: 4.0, 5: 2.0}
    metrics = {step: {'d_loss': loss} for step, loss in losses.items()}
    assert opened().surplus() == []
    written(opened(keep_n=-1, best='d_loss'), *losses, metrics=metrics)
    assert [opened(keep_n=n).surplus() for n in (-1, 6, 5)] == [[], [], []]
    assert opened(keep_n=2).surplus() == [4, 3, 2, 1]
    fewer = opened(keep_n=2, best='d_loss')
    assert fewer.surplus() == [4, 3, 1]
    written(fewer, 6)
    assert fewer.steps() == [6, 5, 2] and fewer.surplus() == []


def test_the_first_save_is_read_back(opened, tmp_path, monkeypatch):
    checkpoints = opened()
    monkeypatch.setattr(checkpoints, 'extra', lambda step: {})
    with pytest.raises(RunError, match=r'step 1 was written to .*cannot be read back.*another'):
        checkpoints.save(1, state(1), {})
    monkeypatch.undo()
    # without wait: the first is finished, later ones need not be
    other = opened()
    other.save(3, state(3), {})
    assert saved_in(tmp_path) == [1, 3] or saved_in(tmp_path) == [3, 1]


def test_what_is_a_finished_checkpoint(tmp_path):
    assert saved_in(tmp_path / 'none') == []
    for name in ('3', '7', '12.orbax-checkpoint-tmp', '5.damaged', '\u00b2', 'x'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'file').touch()
    (tmp_path / '7' / 'file').unlink()
    (tmp_path / '9').touch()
    assert saved_in(tmp_path) == [3]
    assert saved_in(tmp_path / '9') == []


def test_values_of_a_damaged_checkpoint_are_empty(opened, tmp_path):
    checkpoints = written(opened(), 1, 2)
    shutil.rmtree(tmp_path / '2')
    (tmp_path / '2').mkdir()
    assert checkpoints.extra(1)['note'] == 'step 1' and checkpoints.extra(2) == {}


def test_where_nothing_is_whole_the_message_says_what_to_do(opened, tmp_path):
    written(opened(), 1, 2)
    for step in '12':
        shutil.rmtree(tmp_path / step / 'state')
    with pytest.raises(RunError) as error:
        opened().restore(shapes())
    for part in (str(tmp_path), 'step 2', 'step 1', '--workdir', 'delete that folder'):
        assert part in str(error.value)


def test_unfinished_saves_are_named_and_ignored(opened, tmp_path, caplog):
    written(opened(keep_n=5), 1, 2)
    shutil.copytree(tmp_path / '2', tmp_path / '5.orbax-checkpoint-tmp')
    (tmp_path / '7').mkdir()  # an empty folder looks like the latest step to Orbax
    checkpoints = opened(keep_n=5)
    step, found, _ = checkpoints.restore(shapes())
    assert step == 2 and bit_equal(found, state(2))
    assert '5.orbax-checkpoint-tmp was not finished' in caplog.text and '/7 is empty' in caplog.text
    checkpoints.tidy()
    assert checkpoints.steps() == [2, 1]
    assert {path.name for path in tmp_path.iterdir()} == {'1', '2'}
    written(checkpoints, 5, 7)
    assert opened().steps() == [7, 5, 2, 1] and bit_equal(opened().restore(shapes())[1], state(7))


def test_a_damaged_checkpoint_is_kept_under_another_name(opened, tmp_path):
    written(opened(), 1, 2)
    for expected in ({'1', '2.damaged'}, {'1', '2.damaged', '2.damaged2'}):
        flip(tmp_path / '2' / 'extra' / 'metadata', 0)
        checkpoints = opened()
        assert checkpoints.restore(shapes())[0] == 1
        checkpoints.tidy()
        assert {path.name for path in tmp_path.iterdir()} == expected
        written(checkpoints, 2)


@pytest.mark.parametrize(
    'error',
    [
        PermissionError(13, 'Permission denied'),
        MemoryError(),
        OSError(5, 'Input/output error'),
        ValueError('RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes'),
    ],
)
def test_a_read_that_may_succeed_later_is_no_damage(opened, tmp_path, monkeypatch, error):
    checkpoints = written(opened(), 1, 2)

    def restore(*_, **__):
        raise RuntimeError('wrapped') from error

    monkeypatch.setattr(checkpoints.manager, 'restore', restore)
    with pytest.raises(RunError, match=r'step 2 in .* cannot be read now: .*Try again'):
        checkpoints.restore(shapes())
    checkpoints.tidy()
    assert checkpoints.steps() == [2, 1]


@pytest.mark.parametrize(
    'other',
    [
        state(0, width=32),
        state(0).replace(params={'G': state(0).params['G'], 'D': {}}, ema={}),
        state(0).replace(params={'G': {**state(0).params['G'], 'scale': jnp.ones(3)}, 'empty': {}}),
    ],
    ids=['shape', 'fewer', 'more'],
)
def test_another_model_is_refused(opened, other):
    written(opened(), 1)
    with pytest.raises(RunError, match='If the model was changed, choose another --workdir'):
        opened().restore(shapes(other))
