"""ChatPainter: sizes, sentences of a dialogue, rounds that are there and that are left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import batch_for, bit_equal, count, filled, sampler_of, shapes_of, uniform

from t2i_jax import stage as core
from t2i_jax.data.text import Vocabulary
from t2i_jax.runtime.errors import DataError
from t2i_jax.systems.chat_painter import (
    ChatOne,
    DialogEncoder,
    SkipEncoder,
    SkipGru,
    Turns,
    TurnSum,
)

EMBEDDING, WORDS = 6, 9


def made(make, scale=0.3):
    return nnx.merge(*filled(shapes_of(make), scale=scale))


def turns_of(kind='skip'):
    if kind == 'skip':
        return made(lambda: SkipEncoder(WORDS, 5, 4, rngs=nnx.Rngs(0)))
    return made(lambda: TurnSum(WORDS, 8, rngs=nnx.Rngs(0)))


def small(**keywords):
    """Stage-I of few channels with weights drawn by numpy, its Meta and a batch."""
    meta = core.Meta('scenes', vocabulary_size=WORDS, length=4, size=16, embedding_dim=EMBEDDING)
    sizes = dict(gf=2, df=2, nc=4, nz=3, width=3) | keywords

    def make():
        turns = SkipEncoder(WORDS, 5, 4, rngs=nnx.Rngs(0))
        return ChatOne(meta, **sizes, text=None, turns=turns, rngs=nnx.Rngs(0))

    stage = made(make)
    return stage, meta, batch_for(stage.needs, meta)


@pytest.fixture(scope='module')
def stage():
    return small(turn_dropout=0.3, truncated=0.5)


def rounds(*lengths, b=1, t=5, seed=0):
    """Ids of words, b r t, of rounds with so many words."""
    ids = np.random.default_rng(seed).integers(1, WORDS, (b, len(lengths), t))
    return jnp.asarray(np.where(np.arange(t) < np.array(lengths)[:, None], ids, 0))


# ------------------------------------------------------------------------------------------ sizes
def test_a_sentence_of_the_paper_has_4800_numbers():
    def make():
        return SkipEncoder(20_001, 620, 2400, rngs=nnx.Rngs(0))

    assert nnx.eval_shape(make).d == 4800
    params = shapes_of(make).params
    assert count(params['uni']) == 3 * (620 * 2400 + 2400 + 2400 * 2400)
    assert count(params['pair']) == 2 * 3 * (620 * 1200 + 1200 + 1200 * 1200)


@pytest.mark.parametrize('dialog, u', [('recurrent', 1024 + 1024), ('joined', 1024 + 4800)])
def test_stage_one_is_that_of_coco_with_a_longer_condition(dialog, u):
    """Only the layer of the augmentation grows: u -> 256."""
    meta = core.Meta('coco', vocabulary_size=9, length=4, size=64, embedding_dim=1024)

    def make():
        turns = SkipEncoder(9, 620, 2400, rngs=nnx.Rngs(0))
        more = dict(dialog=dialog, text=None, turns=turns)
        return ChatOne(meta, gf=192, df=96, **more, rngs=nnx.Rngs(0))

    params = shapes_of(make).params
    assert params['G1']['augment']['layer']['kernel'].shape == (u, 256)
    assert params['G1']['first']['kernel'].shape == (228, 16 * 1536)
    assert count(params['D1']) == 12_407_425


# ---------------------------------------------------------------------------- sentences, their GRUs
def test_a_step_of_the_gru():
    gru = made(lambda: SkipGru(3, 2, rngs=nnx.Rngs(0)))
    x = uniform(1, 1, 3)
    h, given = np.array([[0.3, -0.5]]), np.asarray(gru.input(x[:, 0]))
    U = [np.asarray(layer.kernel[...]) for layer in gru.hidden]

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    r, u = sigmoid(given[:, :2] + h @ U[0]), sigmoid(given[:, 2:4] + h @ U[1])
    wanted = (1 - u) * h + u * np.tanh(given[:, 4:] + (r * h) @ U[2])
    # the first word brings the state to h
    first = jnp.concatenate([uniform(1, 1, 3, seed=1), x], 1)
    there = jnp.ones((1, 2), bool)
    states, last = gru(first, there)
    h = np.asarray(states[:, 0])
    r, u = sigmoid(given[:, :2] + h @ U[0]), sigmoid(given[:, 2:4] + h @ U[1])
    wanted = (1 - u) * h + u * np.tanh(given[:, 4:] + (r * h) @ U[2])
    np.testing.assert_allclose(last, wanted, atol=1e-6)
    np.testing.assert_allclose(states[:, 1], last)


@pytest.mark.parametrize('kind', ['skip', 'words'])
def test_padding_changes_no_sentence(kind):
    encoder, ids = turns_of(kind), rounds(3, 5)[0]
    longer = jnp.pad(ids, ((0, 0), (0, 4)))
    np.testing.assert_allclose(encoder(ids), encoder(longer), atol=1e-6)
    assert not np.asarray(encoder(jnp.zeros((1, 4), int))).any()
    if kind == 'skip':
        halves = np.asarray(encoder(ids)).reshape(2, 2, 4)
        np.testing.assert_allclose((halves**2).sum(-1), 1, atol=1e-5)
        turned = encoder(ids[:, ::-1])
        assert np.abs(np.asarray(turned) - encoder(ids))[1].max() > 1e-3


def test_the_loss_of_sentences_is_that_of_words_that_are_there():
    """With weights of 0 each word costs log V, whatever is missing around it."""
    meta = core.Meta('scenes', vocabulary_size=WORDS, length=4)
    make = lambda: Turns(meta, embedding=4, width=4, rngs=nnx.Rngs(0))  # noqa: E731
    stage = made(make, scale=0.0)
    ids = rounds(3, 0, 5, b=4)
    batch = {'dialog': ids, 'tokens': ids[:, 0, :4], 'length': jnp.full(4, 3)}
    for seed in range(3):
        loss, logs = stage.skip_loss(batch, jax.random.key(seed), None)
        np.testing.assert_allclose(loss, np.log(WORDS), rtol=1e-5)
    nothing = {name: jnp.zeros_like(x) for name, x in batch.items()}
    assert stage.skip_loss(nothing, jax.random.key(0), None)[0] == 0


# --------------------------------------------------------------------------------------- dialogues
@pytest.mark.parametrize('dialog', ['recurrent', 'joined'])
def test_rounds_that_are_missing_change_nothing(dialog):
    turns, caption = turns_of(), uniform(1, EMBEDDING)
    encoder = made(lambda: DialogEncoder(dialog, EMBEDDING, 8, 3, rngs=nnx.Rngs(0)))
    some = rounds(3, 2, 5)
    more = jnp.pad(some, ((0, 0), (0, 7), (0, 0)))
    zeta = encoder(caption, turns, some)
    assert zeta.shape == (1, encoder.d)
    np.testing.assert_allclose(zeta, encoder(caption, turns, more), atol=1e-5)
    np.testing.assert_array_equal(zeta[:, :EMBEDDING], caption)
    # the order is heard, and so is the last round
    assert np.abs(encoder(caption, turns, some[:, ::-1]) - zeta).max() > 1e-3
    assert np.abs(encoder(caption, turns, some[:, :2]) - zeta).max() > 1e-3


def test_without_a_dialogue_the_bias_of_the_norm_stands_for_it():
    turns, caption = turns_of(), uniform(2, EMBEDDING)
    encoder = made(lambda: DialogEncoder('recurrent', EMBEDDING, 8, 3, rngs=nnx.Rngs(0)))
    encoder.norm.bias[...] = jnp.arange(6.0)
    for given in (None, rounds(0, 0, b=2)):
        zeta = encoder(caption, turns, given)[:, EMBEDDING:]
        np.testing.assert_allclose(zeta, np.tile(np.arange(6.0), (2, 1)), atol=1e-6)


def test_rounds_are_left_out_in_training_alone(stage):
    module, _, batch = stage
    heard = module.heard(batch, jax.random.key(1))['dialog']
    kept = np.asarray((heard > 0).any(-1))
    assert 0 < kept.mean() < np.asarray((batch['dialog'] > 0).any(-1)).mean()
    # without dropout a row keeps its first rounds
    module.turn_dropout = 0.0
    kept = [module.heard(batch, jax.random.key(i))['dialog'].any(-1) for i in range(8)]
    assert all((np.diff(row.astype(int)) <= 0).all() for one in kept for row in np.asarray(one))
    module.training, module.turn_dropout = False, 0.3
    assert module.heard(batch, jax.random.key(1)) is batch
    module.training = True


# ------------------------------------------------------------------------------------------- stages
def test_d_reads_a_constant_condition_unless_it_trains_the_dialogue():
    for d_trains in (False, True):
        module, _, batch = small(d_trains_dialog=d_trains)
        assert ('dialog' in module.phases[0].trains) == d_trains
        parts = core.split(module)

        def text_of(dialog, parts=parts, batch=batch):
            params = {**parts.params, 'dialog': dialog}
            args = batch, jax.random.key(0)
            return core.call(parts.graph, params, parts.stats, 'forward', *args)[0]

        slope = jax.grad(lambda d, f=text_of: f(d).text.sum())(parts.params['dialog'])
        assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(slope['lstms'])) == d_trains
    slope = jax.grad(lambda d: jnp.square(text_of(d).image).sum())(parts.params['dialog'])
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(slope['lstms']))


def test_wrong_dialogues_stand_beside_right_captions():
    module, _, batch = small(wrong='dialog', variant='official_tf')
    assert {n for n in module.needs if n.startswith('wrong_')} == {'wrong_dialog'}
    batch['wrong_dialog'] = batch['dialog'][::-1]
    right, wrong = module.encode(batch), module.encode(batch, 'wrong_')
    np.testing.assert_array_equal(right[:, :EMBEDDING], wrong[:, :EMBEDDING])
    assert np.abs(right[:, EMBEDDING:] - wrong[:, EMBEDDING:]).max() > 1e-3
    both = small(wrong='text', variant='official_tf')[0]
    assert {'wrong_embedding', 'wrong_dialog'} <= set(both.needs)


def test_captions_alone_are_stackgan():
    module, _, batch = small(dialog='none')
    assert module.takes == () and module.explores == {} and 'dialog' not in module.needs
    assert module.encode(batch).shape == (4, EMBEDDING)
    with pytest.raises(ValueError, match='needs a dialogue'):
        small(dialog='none', wrong='dialog', variant='official_tf')
    with pytest.raises(ValueError, match='encoder of stage turns'):
        ChatOne(core.Meta('a', embedding_dim=6), text=None, turns=None, rngs=nnx.Rngs(0))


def test_rounds_are_drawn_one_after_the_other(stage):
    module, meta, batch = stage
    sampler = sampler_of(module, meta, Vocabulary(list('abcdefgh')), chunk=8)
    given = {'encoded': np.asarray(module.encode(batch))[:2]}
    dialog = np.array(batch['dialog'])[:2, :3]
    dialog[1, 1:] = 0
    pictures, labels = module.rounds(sampler, given | {'dialog': dialog}, ['x', 'y'], 8, 0)
    assert pictures.shape == (2, 4, 16, 16, 3) and labels[0].startswith('x: ')
    # the second dialogue has one round alone
    assert bit_equal(pictures[1, 1], pictures[1, 2]) and bit_equal(pictures[1, 1], pictures[1, 3])
    assert not bit_equal(pictures[0, 1], pictures[0, 3])
    with pytest.raises(DataError, match='--dialog=FILE'):
        module.rounds(sampler, given, ['x', 'y'], 8, 0)
