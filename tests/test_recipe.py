"""The game of GANs that draw from sentences, sums of words, whitening, and the linear reader."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import uniform

from t2i_jax.encoders.sentence import ENCODER, Whitened, sentence_encoder
from t2i_jax.encoders.word_sum import SCALE, WordSum
from t2i_jax.evaluate.reading import readable, said
from t2i_jax.layers import spectral
from t2i_jax.layers.diff_augment import moved_and_cut
from t2i_jax.layers.game import GAME, PLAIN, ContrastHead, Extras, Game, Memory, Seen, Wrong
from t2i_jax.layers.norm import ModulatedNorm, Whitening
from t2i_jax.layers.pairs import found_own
from t2i_jax.losses import (
    d_answers,
    g_answers,
    matching_loss,
    nt_xent,
    sentence_loss,
    squared_slope,
)
from t2i_jax.runtime.errors import RunError
from t2i_jax.stage import Meta
from tfds_builders.facts import BACKGROUND, EXISTS, PLACE, table

REAL, DRAWN, WRONG = np.float32([1.5, -0.3]), np.float32([0.2, -2.0]), np.float32([0.7, 0.1])


def softplus(x):
    return np.log1p(np.exp(x))


# ----------------------------------------------------------------------------------------- answers
def test_answers_of_the_cross_entropy_and_of_the_hinge():
    logits = [jnp.asarray(x) for x in (REAL, DRAWN, WRONG)]
    right, drawn, wrong = d_answers('bce', *logits)
    expected = softplus(-REAL).mean(), softplus(DRAWN).mean(), softplus(WRONG).mean()
    np.testing.assert_allclose((right, drawn, wrong), expected, rtol=1e-6)
    np.testing.assert_allclose(g_answers('bce', logits[1]), softplus(-DRAWN), rtol=1e-6)

    right, drawn, wrong = d_answers('hinge', *logits)
    expected = [
        np.maximum(0, 1 + sign * x).mean() for sign, x in ((-1, REAL), (1, DRAWN), (1, WRONG))
    ]
    np.testing.assert_allclose((right, drawn, wrong), expected, rtol=1e-6)
    np.testing.assert_allclose(g_answers('hinge', logits[1]), -DRAWN)


def test_pairing_compares_each_drawn_picture_with_a_real_one():
    logits = [jnp.asarray(x) for x in (REAL, DRAWN, WRONG)]
    right, drawn, wrong = d_answers('pairing', *logits)
    pair = softplus(DRAWN - REAL).mean()
    np.testing.assert_allclose(
        right + (drawn + wrong) / 2, pair + softplus(WRONG - REAL).mean() / 2
    )
    np.testing.assert_allclose(g_answers('pairing', logits[1], logits[0]), softplus(REAL - DRAWN))
    # fewer wrong pairs than rows, as where the batch is shifted
    few = d_answers('pairing', logits[0], logits[1], logits[2][:1]).wrong
    np.testing.assert_allclose(few, softplus(WRONG[:1] - REAL[:1]).mean(), rtol=1e-6)


def game(leave_out='none', **changes):
    return Game.of({**GAME, **changes}, leave_out)


def test_another_adversary_and_another_keyword_are_refused():
    with pytest.raises(RunError, match="adversary is 'least squares'; it is 'bce', 'hinge' or"):
        game(adversary='least squares')
    with pytest.raises(RunError, match="A keyword of game is 'r3'; it is 'adversary', "):
        game(r3=1.0)


# ---------------------------------------------------------------------------------------- contrast
def test_one_more_wrong_caption_and_picture_count_in_the_contrast():
    scores, more, others = (np.random.default_rng(0).normal(size=n) for n in [(3, 3), 3, 3])
    found = matching_loss(jnp.asarray(scores), wrong_captions=more, wrong_pictures=others)
    rows = np.log(np.exp(scores).sum(1) + np.exp(more))
    columns = np.log(np.exp(scores).sum(0) + np.exp(others))
    np.testing.assert_allclose(found, (rows + columns - 2 * np.diag(scores)).mean(), rtol=1e-5)


def test_the_contrast_of_vectors_that_fit_is_small_and_of_others_large():
    eye = jnp.eye(4)
    fits = sentence_loss(eye, eye, wrong_sentences=jnp.roll(eye, 1, 0))
    assert fits < 0.001 < 5 < sentence_loss(eye, jnp.roll(eye, 1, 0), wrong_sentences=eye)
    assert found_own(eye @ eye.T) == 1 and found_own(eye @ jnp.roll(eye, 1, 0).T) == 0
    # a caption that is true of another picture, too, is no wrong one of it
    twice = jnp.asarray([[1.0, 0], [1, 0], [0, 1]])
    leave_out = (twice @ twice.T) > 0
    assert found_own(twice @ twice.T, leave_out) == 1
    assert sentence_loss(twice, twice, leave_out=leave_out) < 0.001


def test_a_head_gives_vectors_of_one_space():
    head = ContrastHead(4 * 4 * 3, 5, 7, rngs=nnx.Rngs(0))
    pictures, sentences = head(uniform(2, 4, 4, 3), uniform(2, 5))
    assert pictures.shape == sentences.shape == (2, 7)
    plain = PLAIN.extras(48, 5, rngs=nnx.Rngs(0))
    assert plain.contrast is plain.projection is plain.memory is None
    assert game('entailment').compared(Meta('x')) == ()
    assert game('entailment', contrast=(1, 0.1)).compared(Meta('x')) == ('facts', 'scene')


def test_a_modulated_norm_starts_close_to_batch_norm_and_follows_its_condition():
    norm = ModulatedNorm(4, 3, rngs=nnx.Rngs(0))
    x, condition = 3 * uniform(8, 2, 2, 4) + 1, uniform(8, 3)
    plain, modulated = norm.norm(x, train=True), norm(x, condition, train=True)
    assert np.abs(modulated - plain).max() < 0.3
    norm.modulate.kernel[...] = jnp.zeros((3, 8))
    norm.modulate.bias[...] = jnp.concatenate([jnp.ones(4), jnp.full(4, -2.0)])
    np.testing.assert_allclose(norm(x, condition, train=True), 2 * plain - 2, atol=1e-5)


# ------------------------------------------------------------------- what else a game can have
def test_kernels_are_divided_by_their_largest_singular_value_for_one_loss():
    network = ContrastHead(4 * 4 * 3, 5, 7, rngs=nnx.Rngs(0))
    before = [np.asarray(x.kernel[...]) for x in (network.picture, network.of_text)]
    spectral.watch(network, nnx.Rngs(1))
    for _ in range(50):
        for layer, kernel in zip((network.picture, network.of_text), before):
            layer.kernel.set_value(jnp.asarray(kernel))
        spectral.normalise(network)
    for layer, kernel in zip((network.picture, network.of_text), before):
        largest = np.linalg.svd(kernel, compute_uv=False)[0]
        np.testing.assert_allclose(layer.kernel[...], kernel / largest, rtol=1e-3)


def test_moved_and_cut_pictures_keep_their_colours():
    images = uniform(6, 16, 16, 3) + 2
    out = np.asarray(moved_and_cut(images, jax.random.key(0)))
    colours = {tuple(x) for x in np.asarray(images).reshape(-1, 3)} | {(0, 0, 0)}
    assert {tuple(x) for x in out.reshape(-1, 3)} <= colours
    gone = (out == 0).all(-1).mean((1, 2))
    # a corner of the square at least; at most all of it and what was moved out
    assert (gone > 1 / 16).all() and (gone < 1 / 4 + 2 / 8 + 0.01).all() and len(set(gone)) > 3
    few = moved_and_cut(images[:2], jax.random.key(0))
    np.testing.assert_array_equal(few, out[:2])
    slope = jax.grad(lambda x: moved_and_cut(x, jax.random.key(0)).sum())(images)
    assert slope.sum() == (out != 0).sum()


def test_answers_are_held_near_the_averages_of_the_other_side():
    memory = Memory()
    memory.real[...], memory.drawn[...] = jnp.asarray(0.5), jnp.asarray(-1.0)
    expected = np.square(np.maximum(0, REAL + 1)).mean()
    expected += np.square(np.maximum(0, 0.5 - DRAWN)).mean()
    np.testing.assert_allclose(memory.penalty(REAL, DRAWN), expected, rtol=1e-6)
    np.testing.assert_allclose(memory.real[...], 0.99 * 0.5 + 0.01 * REAL.mean(), rtol=1e-6)
    np.testing.assert_allclose(memory.drawn[...], -0.99 + 0.01 * DRAWN.mean(), rtol=1e-6)


def test_the_slope_of_a_linear_critic_is_found_along_random_directions():
    w = uniform(4, 4, 3, seed=1)

    def critic(x):
        return jnp.einsum('bhwc,hwc->b', x, w)

    found = squared_slope(critic, uniform(4000, 4, 4, 3), jax.random.key(0))
    np.testing.assert_allclose(found, (w**2).sum(), rtol=0.1)
    seen = [Seen(uniform(2000, 4, 4, 3, seed=i), None, jnp.zeros(2000)) for i in (2, 3)]
    extras = Extras(PLAIN, 48, 5, 5, rngs=nnx.Rngs(0))
    some = jax.random.key(1), {}, None, *seen, Wrong(None, None)
    loss, logs = game(r1=1.0, r2=3.0).d_more(extras, critic, *some)
    np.testing.assert_allclose(loss, 2 * (w**2).sum(), rtol=0.1)
    assert logs['penalty'] == loss
    assert PLAIN.d_more(extras, critic, *some)[0] == 0


def test_twins_find_each_other_among_drawn_pictures():
    codes = uniform(6, 5) - 0.5
    unit = np.asarray(codes / np.linalg.norm(codes, axis=1, keepdims=True))
    scores, expected = np.exp(unit @ unit.T / 0.5), []
    for i in range(6):
        expected.append(-np.log(scores[i, (i + 3) % 6] / (scores[i].sum() - scores[i, i])))
    np.testing.assert_allclose(nt_xent(codes), np.mean(expected), rtol=1e-5)
    assert nt_xent(jnp.tile(jnp.eye(8), (2, 1))) < nt_xent(jnp.repeat(jnp.eye(8), 2, 0))

    twins = game(nt_xent=0.2)
    z = twins.tied({'z': uniform(9, 4), 'eps': uniform(6, 2)}, 6)['z']
    assert z.shape == (9, 4) and (z[:3] == z[3:6]).all() and (z[:3] != z[6:]).all()
    code = uniform(6, 2, 2, 5)
    loss, logs = twins.g_more(twins.extras(20, 5, rngs=nnx.Rngs(0)), {}, code, None)
    np.testing.assert_allclose(loss, 0.2 * nt_xent(code.mean((1, 2))), rtol=1e-6)
    assert twins.sampler == 'twins' and not PLAIN.sampler and set(logs) == {'twins'}


def test_the_projection_is_the_inner_product_of_picture_and_sentence():
    extras = game(projection=True).extras(48, 5, rngs=nnx.Rngs(0))
    code, text, logits = uniform(2, 4, 4, 3), uniform(2, 5), uniform(2)
    picture, sentence = (np.asarray(x) for x in extras.projection(code, text))
    expected = logits + (picture * sentence).sum(-1) / np.sqrt(128)
    np.testing.assert_allclose(extras(logits, code, text), expected, rtol=1e-5)


# -------------------------------------------------------------------------------------------- text
META = Meta('words', vocabulary_size=9, length=5)


def test_a_sentence_is_the_sum_of_its_words_in_any_order():
    encoder = WordSum(9, 6, rngs=nnx.Rngs(0))
    tokens = jnp.asarray([[1, 2, 3, 0, 0], [3, 1, 2, 8, 8], [0] * 5])
    words, sentence = encoder(tokens, jnp.asarray([3, 3, 0]), train=False)
    vectors = SCALE * np.asarray(encoder.embed.embedding[...])
    np.testing.assert_allclose(sentence[0], vectors[[1, 2, 3]].sum(0), rtol=1e-5)
    np.testing.assert_allclose(sentence[0], sentence[1], rtol=1e-5)
    assert not words[0, 3:].any() and not words[1, 3:].any() and not sentence[2].any()


def test_encoders_by_name_and_keywords_that_are_not_read():
    words = sentence_encoder('words', META, dict(ENCODER, embedding=6), rngs=nnx.Rngs(0))
    lstm = sentence_encoder('lstm', META, dict(ENCODER, embedding=6), rngs=nnx.Rngs(0))
    assert words.reads == lstm.reads == ('tokens', 'length') and words.d == lstm.d == 6
    with pytest.raises(ValueError, match='encoder.hidden is not read with text=.words.'):
        sentence_encoder('words', META, dict(ENCODER, hidden=8), rngs=nnx.Rngs(0))


def test_whitened_vectors_vary_alike_in_all_directions():
    draws = np.random.default_rng(0)
    mix = np.linalg.qr(draws.normal(size=(4, 4)))[0] * [[3], [1], [0.5], [0.3]]
    whitening = Whitening(4)
    for _ in range(600):
        whitening.observe(jnp.float32(draws.normal(size=(64, 4)) @ mix + 0.5))
    out = np.asarray(whitening(jnp.float32(draws.normal(size=(4000, 4)) @ mix + 0.5)))
    values = np.linalg.eigvalsh(np.cov(out.T))
    raw = np.linalg.eigvalsh(mix.T @ mix)
    assert raw[-1] / raw[0] > 90 and values[-1] / values[0] < 2 and np.abs(out.mean(0)).max() < 0.5


def test_a_whitened_encoder_is_used_like_any_other():
    encoder = Whitened(WordSum(9, 6, rngs=nnx.Rngs(0)))
    tokens, length = jnp.asarray([[1, 2, 0, 0, 0]]), jnp.asarray([2])
    raw = encoder.encoder.sentence(tokens, length)
    # before any batch was seen
    np.testing.assert_allclose(encoder.sentence(tokens, length), raw, rtol=1e-5)
    assert encoder.reads == ('tokens', 'length') and encoder.d == 6


# ------------------------------------------------------------------------------------------ reader
def test_what_captions_say():
    first = table([(EXISTS, 2, 1, -1, -1, -1), (BACKGROUND, -1, -1, -1, 3, -1)])
    second = table([(PLACE, 0, -1, 2, -1, 5)])
    found = said(np.stack([first, second, table([])]))
    assert found['class'].tolist() == [2, 0, -1] and found['colour'].tolist() == [1, -1, -1]
    assert found['size'].tolist() == [-1, 2, -1] and found['place'].tolist() == [-1, 5, -1]
    assert found['background'].tolist() == [3, -1, -1]


def test_a_linear_reader_finds_unseen_pairs_in_sums_and_not_in_wholes():
    draws = np.random.default_rng(0)
    pairs = np.array([(a, b) for a in range(4) for b in range(4)])
    seen, unseen = pairs[pairs[:, 0] != pairs[:, 1]], pairs[pairs[:, 0] == pairs[:, 1]]
    facts = [
        np.stack([table([(EXISTS, a, b, -1, -1, -1)]) for a, b in some]) for some in (seen, unseen)
    ]
    one, other, wholes = draws.normal(size=(4, 32)), draws.normal(size=(4, 32)), {}
    sums = [one[some[:, 0]] + other[some[:, 1]] for some in (seen, unseen)]
    found = readable(sums[0], facts[0], sums[1], facts[1])
    assert found['class'].mean() == found['colour'].mean() == 1 and set(found) == {
        'class',
        'colour',
    }
    for pair in map(tuple, pairs):
        wholes[pair] = draws.normal(size=32)
    vectors = [np.stack([wholes[tuple(pair)] for pair in some]) for some in (seen, unseen)]
    assert readable(vectors[0], facts[0], vectors[0], facts[0])['class'].mean() == 1
    assert readable(vectors[0], facts[0], vectors[1], facts[1])['class'].mean() < 0.8
