"""The bi-LSTM text encoder against its published sizes and against the LSTM's formulas in plain
numpy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t2i_jax import stage as core
from t2i_jax.encoders.bi_lstm import BiLstm

TOKENS = np.array([[5, 2, 7, 1, 0, 0], [3, 3, 4, 2, 6, 8], [9, 0, 0, 0, 0, 0]], np.int32)
LENGTH = np.array([4, 6, 1], np.int32)


def tiny(**keywords):
    return BiLstm(10, 6, embedding=5, **keywords, rngs=nnx.Rngs(0))


@pytest.fixture(scope='module')
def encoder():
    return tiny()


@pytest.fixture(scope='module')
def encoded(encoder):
    return encoder(TOKENS, LENGTH, train=False)


@pytest.mark.parametrize(
    'words, two_biases, count',
    [
        (5450, True, 2_075_320),
        (27_297, True, 8_629_420),
        (5450, False, 2_075_320 - 1024),
        (27_297, False, 8_629_420 - 1024),
    ],
)
def test_published_sizes(words, two_biases, count):
    params = core.split(
        nnx.eval_shape(lambda: BiLstm(words, two_biases=two_biases, rngs=nnx.Rngs(0)))
    ).params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    assert params['embed']['embedding'].shape == (words, 300)


def lstm(x, cell):
    """States of one direction, x t n."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    w, b, v = (
        np.asarray(p[...], np.float64)
        for p in (cell.input.kernel, cell.input.bias, cell.hidden.kernel)
    )
    b = b + (0 if cell.hidden.bias is None else np.asarray(cell.hidden.bias[...]))
    h = c = np.zeros(v.shape[0])
    states = []
    for row in x:
        i, f, g, o = np.split(row @ w + b + h @ v, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states)


@pytest.mark.parametrize('two_biases', [False, True])
def test_each_caption_by_itself_in_numpy(two_biases):
    model = tiny(two_biases=two_biases)
    for name in ('input', 'hidden'):  # larger than they start, so that gates differ
        for cell in (model.forward, model.backward):
            layer = getattr(cell, name)
            layer.kernel[...] *= 2
    words, sentence = model(TOKENS, LENGTH, train=False)
    table = np.asarray(model.embed.embedding[...], np.float64)
    for row, n, found, whole in zip(TOKENS, LENGTH, words, sentence):
        x = table[row[:n]]
        ahead, back = lstm(x, model.forward), lstm(x[::-1], model.backward)[::-1]
        np.testing.assert_allclose(found[:n], np.concatenate([ahead, back], 1), atol=1e-6)
        np.testing.assert_allclose(
            whole, np.concatenate([ahead[-1], back[0]]), atol=1e-6
        )  # after the last word read, either way
        assert (found[n:] == 0).all()
    assert model.d == 6 and words.shape == (3, 6, 6) and sentence.shape == (3, 6)


@pytest.mark.parametrize('t', [18, 25])
def test_padding_changes_nothing(encoder, encoded, t):
    padded = np.zeros((3, t), np.int32)
    padded[:, :6] = TOKENS
    words, sentence = encoder(padded, LENGTH, train=False)
    np.testing.assert_allclose(words[:, :6], encoded[0], atol=1e-7)
    np.testing.assert_allclose(sentence, encoded[1], atol=1e-7)
    assert (words[:, 6:] == 0).all()
    padded[:, 6:] = 3  # whatever stands there
    assert all(
        (a == b).all() for a, b in zip(encoder(padded, LENGTH, train=False), (words, sentence))
    )


def test_the_last_word_and_the_order_of_words_count(encoder, encoded):
    reordered = TOKENS.copy()
    reordered[1] = reordered[1, ::-1]
    shorter = encoder(TOKENS, LENGTH - [1, 1, 0], train=False)
    other = encoder(reordered, LENGTH, train=False)
    assert (jnp.abs(shorter[1] - encoded[1]).max(1) > 1e-4).tolist() == [True, True, False]
    assert (jnp.abs(other[1] - encoded[1]).max(1) > 1e-4).tolist() == [False, True, False]


def test_two_biases_are_their_sum():
    two, one = tiny(two_biases=True), tiny()
    for a, b in ((one.forward, two.forward), (one.backward, two.backward)):
        for name in ('input', 'hidden'):
            getattr(a, name).kernel[...] = getattr(b, name).kernel[...]
        a.input.bias[...] = b.input.bias[...] + b.hidden.bias[...]
    one.embed.embedding[...] = two.embed.embedding[...]
    for a, b in zip(one(TOKENS, LENGTH, train=False), two(TOKENS, LENGTH, train=False)):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_parameters_start_as_pytorchs():
    params = core.split(BiLstm(200, 32, embedding=20, two_biases=True, rngs=nnx.Rngs(0))).params
    embedding = params.pop('embed')['embedding']
    assert 0.09 < jnp.abs(embedding).max() <= 0.1
    for leaf in jax.tree.leaves(params):
        assert (
            0.2 < jnp.abs(leaf).max() <= 0.25 and abs(leaf.mean()) < 0.06
        )  # 16 states a direction


def test_dropout_takes_its_key_at_the_call(encoder, encoded):
    key = jax.random.key(0)
    dropped = encoder(TOKENS, LENGTH, train=True, key=key)
    assert all(
        (a == b).all() for a, b in zip(dropped, encoder(TOKENS, LENGTH, train=True, key=key))
    )
    assert not np.allclose(dropped[1], encoded[1])
    assert (dropped[0][0, 4:] == 0).all()  # padding stays zeros
    with pytest.raises(ValueError):
        encoder(TOKENS, LENGTH, train=True)


def test_gradients_reach_all_parameters_but_not_padding(encoder):
    graph, params, _ = core.split(encoder)

    def loss(params):
        words, sentence = nnx.merge(graph, params)(TOKENS, LENGTH, train=False)
        return jnp.square(words).sum() + jnp.square(sentence).sum()

    grads = jax.jit(jax.grad(loss))(params)
    rows = jnp.abs(grads['embed']['embedding']).max(1)
    assert rows[0] == 0 and (rows[1:] > 0).all()  # all words but the padding occur
    assert all(jnp.isfinite(g).all() and jnp.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_a_caption_without_words_is_zeros_and_has_no_gradient(encoder):
    graph, params, _ = core.split(encoder)

    def read(params):
        return nnx.merge(graph, params)(TOKENS[:1], np.zeros(1, np.int32), train=False)

    words, sentence = read(params)
    assert (words == 0).all() and (sentence == 0).all()
    grads = jax.grad(lambda params: sum(x.sum() for x in read(params)))(params)
    assert all((g == 0).all() for g in jax.tree.leaves(grads))


def test_bfloat16_computes_and_float32_comes_out(encoded):
    model = tiny()
    core.compute_in(model, 'bfloat16')
    words, sentence = model(TOKENS, LENGTH, train=False)
    assert words.dtype == sentence.dtype == jnp.float32
    difference = jnp.abs(words - encoded[0]).max()
    assert 0 < difference < 5e-3


@pytest.mark.parametrize(
    'words, d, message', [(10, 7, 'd=7 cannot be shared'), (0, 6, 'no captions')]
)
def test_wrong_sizes_are_refused(words, d, message):
    with pytest.raises(ValueError, match=message):
        BiLstm(words, d, rngs=nnx.Rngs(0))
