"""One training step.

Who moves, who does not, and that the shared forward pass changes nothing but the time.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import bit_equal, moved

from t2i_jax import run
from t2i_jax import stage as core
from t2i_jax.layers.norm import BatchNorm
from t2i_jax.stage import Phase, Stage

LR, DECAY = 0.1, 0.75


class Net(nnx.Module):
    def __init__(self, d, *, rngs):
        self.linear, self.norm = nnx.Linear(3, d, rngs=rngs), BatchNorm(d, rngs=rngs)

    def __call__(self, x, *, train):
        return self.norm(self.linear(x), train=train)


class Toy(Stage):
    """A GAN of 3 numbers with a frozen network; G's loss also weighs G's own parameters."""

    phases, ema = (Phase('d_loss', ('D',)), Phase('g_loss', ('G',))), ('G',)

    def __init__(self, *, rngs):
        self.F, self.G, self.D = Net(3, rngs=rngs), Net(3, rngs=rngs), Net(1, rngs=rngs)

    def input_of_g(self, batch, key):
        return self.F(batch['x'], train=False) + core.normal_rows(key, len(batch['x']), (3,))

    def draw(self, batch, key):
        fake = self.G(self.input_of_g(batch, key), train=True)
        return {
            'fake': fake,
            'tokens': fake.argmax(-1),
            'seen': fake > 0,
        }  # whole numbers and truth values have no gradient

    def d_loss(self, batch, key, out):
        real, fake = self.D(batch['x'], train=True), self.D(out['fake'], train=True)
        loss = jnp.square(real - 1).mean() + jnp.square(fake).mean() + batch.get('poison', 0.0)
        return loss, {'tokens': out['tokens'].mean()}

    def g_loss(self, batch, key, out):
        return jnp.square(self.D(out['fake'], train=True) - 1).mean() + jnp.square(
            self.G.linear.kernel[...]
        ).sum(), {}

    def sample(self, batch, noise):
        return {'image': self.G(noise['z'], train=False)}


class Shared(Toy):
    def forward(self, batch, key):
        return self.draw(batch, key)


class Apart(Toy):
    """As Shared, with G run again inside each loss."""

    def d_loss(self, batch, key, out):
        return super().d_loss(batch, key, self.draw(batch, key))

    def g_loss(self, batch, key, out):
        return super().g_loss(batch, key, self.draw(batch, key))


class Seldom(Shared):
    phases = (Phase('d_loss', ('D',)), Phase('g_loss', ('G',), every=3, at=1))


def made(cls=Shared, tx=optax.adam, dtype=None):
    """(program, state, jitted step) of a stage."""
    stage = cls(rngs=nnx.Rngs(0))
    if dtype:
        core.compute_in(stage, dtype)
    prog = core.program(stage, [tx(LR) for _ in stage.phases], DECAY)
    _, params, stats = core.split(stage)
    return (
        prog,
        core.init_state(prog, params, stats, 7),
        jax.jit(lambda state, batch: core.train_step(prog, state, batch)),
    )


@pytest.fixture(scope='module')
def shared():
    return made()


@pytest.fixture(scope='module')
def seldom():
    return made(Seldom)


def batch(seed=0):
    return {'x': np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32)}


def test_only_what_is_trained_moves(shared):
    _, state, step = shared
    new, metrics = step(state, batch())
    assert moved(state.params, new.params) == moved(state.stats, new.stats) == {'D', 'G'}
    assert (
        set(new.params) == set(new.stats) == {'F', 'G', 'D'}
        and new.step == 1
        and set(metrics) == {'d_loss', 'g_loss', 'tokens'}
    )
    paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(new.opt))
    counted = {key.key for path in paths for key in path if isinstance(key, jax.tree_util.DictKey)}
    assert 'F' not in counted and {'G', 'D'} <= counted


def test_statistics_move_once_a_step_and_only_in_the_phase_of_their_network(shared):
    prog, state, step = shared
    new, _ = step(state, batch())
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    out, forward = core.call(prog.graph, state.params, state.stats, 'forward', batch(), key)
    assert np.allclose(new.stats['G']['norm']['mean'], forward['G']['norm']['mean'], atol=1e-6)
    kernel, bias = (state.params['D']['linear'][name] for name in ('kernel', 'bias'))
    real, fake = (
        (x @ kernel + bias).mean(0) for x in (batch()['x'], out['fake'])
    )  # twice in D's loss; G's loss leaves no trace
    assert np.allclose(new.stats['D']['norm']['mean'], 0.9 * 0.1 * real + 0.1 * fake, atol=1e-6)


def test_the_average_follows_the_parameters(shared):
    prog, state, step = shared
    assert bit_equal(state.ema['G'], state.params['G'])
    copies = zip(jax.tree.leaves(state.ema['G']), jax.tree.leaves(state.params['G']))
    assert all(a is not b for a, b in copies)  # because buffers are donated
    new, _ = step(state, batch())
    expected = jax.tree.map(
        lambda a, b: DECAY * a + (1 - DECAY) * b, state.params['G'], new.params['G']
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), expected, new.ema['G'])
    assert set(new.ema) == {'G'} and bit_equal(
        new.sampling_params(), {**new.params, 'G': new.ema['G']}
    )


def test_a_short_run_forgets_its_first_parameters():
    prog, state, _ = made()
    short = prog._replace(decay=0.5, warmup=True)
    for t in (0, 1, 6, 7, 8, 9, 1000):
        expected = min(0.5, (1 + t) / (10 + t))
        assert core.decay_at(short, jnp.int32(t)) == pytest.approx(expected)
        assert core.decay_at(prog, jnp.int32(t)) == DECAY
    state = state.replace(step=jnp.int32(1))
    new, _ = jax.jit(lambda state: core.train_step(short, state, batch()))(state)
    for old, now, mean in zip(*(jax.tree.leaves(x['G']) for x in (state.ema, new.params, new.ema))):
        np.testing.assert_allclose(mean, 2 / 11 * old + 9 / 11 * now, atol=1e-6)


@pytest.mark.parametrize('tx', [optax.sgd, optax.adam])
def test_the_shared_forward_gives_the_gradients_of_running_the_generator_in_every_loss(tx):
    (_, one, step), (_, other, step_apart) = made(Shared, tx), made(Apart, tx)
    assert bit_equal(one, other)
    for i in range(3):
        (one, logs), (other, logs_apart) = step(one, batch(i)), step_apart(other, batch(i))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            (one, logs),
            (other, logs_apart),
        )


def test_a_phase_sees_what_the_phases_before_it_have_learnt(shared):
    prog, state, step = shared
    new, metrics = step(state, batch())
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    out, _ = core.call(prog.graph, state.params, state.stats, 'forward', batch(), key)
    for params, same in ((state.params, False), ({**state.params, 'D': new.params['D']}, True)):
        loss = core.call(prog.graph, params, state.stats, 'g_loss', batch(), key, out)[0][0]
        assert np.allclose(loss, metrics['g_loss'], rtol=1e-5) == same


def test_a_phase_runs_at_its_steps_only(seldom):
    _, state, step = seldom
    for i in range(6):
        new, metrics = step(state, batch(i))
        runs = i % 3 == 1
        assert (
            moved(state.params, new.params) == ({'D', 'G'} if runs else {'D'})
            and bool(moved(state.ema, new.ema)) == runs
        )
        assert (
            np.isnan(metrics['g_loss']) != runs
            and np.isfinite(metrics['d_loss'])
            and new.bad_step == -1
        )
        state = new
    counts = [
        [leaf for leaf in jax.tree.leaves(opt) if leaf.dtype == jnp.int32] for opt in state.opt
    ]
    assert {int(x) for x in counts[0]} == {6} and {int(x) for x in counts[1]} == {2}


def test_the_same_seed_and_step_give_the_same_step(shared):
    _, state, step = shared
    assert bit_equal(step(state, batch()), step(state, batch()))
    for other in (state.replace(step=state.step + 1), state.replace(seed=state.seed + 1)):
        assert step(other, batch())[1]['d_loss'] != step(state, batch())[1]['d_loss']


# ------------------------------------------------------------------------------------ finite or not
def test_after_a_loss_that_is_not_finite_nothing_changes_any_more(shared):
    _, state, step = shared
    state, _ = step(state, {**batch(0), 'poison': np.float32(0)})
    for i, poison in ((1, np.inf), (2, 0), (3, np.nan)):
        new, metrics = step(state, {**batch(i), 'poison': np.float32(poison)})
        assert (new.bad_step, new.bad_phase, new.step) == (1, 0, i + 1)
        for part in ('params', 'stats', 'opt', 'ema', 'ema_stats'):
            assert bit_equal(getattr(new, part), getattr(state, part))
        state = new


class Steep(Shared):
    def g_loss(self, batch, key, out):
        return jnp.sqrt(jnp.square(out['fake'] * 0).sum()), {}


@pytest.mark.parametrize('cls, lr', [(Steep, LR), (Shared, np.inf)], ids=['gradient', 'parameters'])
def test_whatever_is_not_finite_is_noticed_in_its_step(cls, lr):
    prog, state, _ = made(cls, optax.sgd)
    prog = prog._replace(txs=(optax.sgd(LR), optax.sgd(lr)))
    new, metrics = jax.jit(lambda state: core.train_step(prog, state, batch()))(state)
    assert np.isfinite(metrics['g_loss']) and (new.bad_step, new.bad_phase) == (0, 1)
    assert moved(state.params, new.params) == {'D'}  # the phase before it was good
    assert bit_equal(
        (new.stats, new.opt[1], new.ema, new.ema_stats),
        (state.stats, state.opt[1], state.ema, state.ema_stats),
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(new))


# ------------------------------------------------------------------------------ split and precision
class Storing(Stage):
    def __init__(self, kind, *, rngs):
        self.G = Net(2, rngs=rngs)
        self.extra = nnx.Rngs(0) if kind == 'rngs' else nnx.Cache(jnp.zeros(2))


@pytest.mark.parametrize('kind', ['rngs', 'cache'])
def test_a_stage_holds_parameters_and_statistics_only(kind):
    with pytest.raises(ValueError):
        core.split(Storing(kind, rngs=nnx.Rngs(0)))


def test_bfloat16_is_for_computing_only():
    prog, state, step = made(dtype='bfloat16')
    out, _ = core.call(prog.graph, state.params, state.stats, 'forward', batch(), jax.random.key(0))
    assert out['fake'].dtype == jnp.bfloat16
    new, metrics = step(state, batch())
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves((new.params, new.stats, new.ema, new.opt))}
    assert kinds == {'float32', 'int32'}
    assert moved(state.params, new.params) == {'D', 'G'} and np.isfinite(metrics['d_loss'])


# --------------------------------------------------------------------------- validation and samples
class Watching(Shared):
    def d_loss(self, batch, key, out):
        return super().d_loss(batch, key, out)[0], {'training': jnp.float32(self.training)}


def test_validation_uses_averages_and_is_told_so():
    prog, state, step = made(Watching)
    new, metrics = step(state, batch())
    key = jax.random.key(3)
    losses = core.validation_losses(prog, new, batch(1), key)
    assert (metrics['training'], losses['training']) == (1, 0) and set(losses) == {
        'd_loss',
        'g_loss',
        'training',
    }
    out, _ = core.call(prog.graph, new.sampling_params(), new.stats, 'forward', batch(1), key)
    assert np.allclose(
        losses['g_loss'],
        core.call(prog.graph, new.sampling_params(), new.stats, 'g_loss', batch(1), key, out)[0][0],
    )


def test_settled_statistics_are_those_of_the_averaged_parameters(shared):
    prog, state, step = shared
    for seed in range(3):
        state, _ = step(state, batch(seed))
    settle, key = jax.jit(lambda state: core.settle(prog, state, batch(), key)), jax.random.key(3)
    for _ in range(150):
        state = state.replace(ema_stats=settle(state))
    inner = state.ema['G']['linear']  # the input of G's norm, by hand
    frozen = core.call(prog.graph, state.params, state.stats, 'input_of_g', batch(), key)[0]
    h = frozen @ inner['kernel'] + inner['bias']
    np.testing.assert_allclose(
        state.ema_stats['G']['norm']['mean'], h.mean(0), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(state.ema_stats['G']['norm']['var'], h.var(0), rtol=1e-3)
    assert not np.allclose(state.stats['G']['norm']['mean'], h.mean(0), rtol=1e-2)


def test_row_i_of_the_noise_does_not_depend_on_the_number_of_rows():
    key = jax.random.key(5)
    few, many = core.normal_rows(key, 3, (4, 2)), core.normal_rows(key, 11, (4, 2))
    assert bit_equal(few, many[:3]) and len(np.unique(many)) == many.size
    assert abs(float(core.normal_rows(key, 500, (20,)).mean())) < 0.05


def test_a_stage_without_samples_says_so():
    with pytest.raises(TypeError, match='Storing makes no samples'):
        Storing('cache', rngs=nnx.Rngs(0)).sample({}, {})


def test_keys_counted_in_python_are_those_of_flax():
    ours, theirs = (
        nnx.to_pure_dict(nnx.state(Toy(rngs=keys), nnx.Param))
        for keys in (run.Keys(3), nnx.Rngs(3))
    )
    assert bit_equal(ours, theirs)
