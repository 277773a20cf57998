"""The char-CNN-RNN against its published sizes and against its formulas in plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t2i_jax.data.text import ALPHABET, encode_chars
from t2i_jax.encoders.char_cnn_rnn import VARIANTS, CharCnnRnn
from t2i_jax.layers.recurrent import ChoGru, ReluRnn

SENTENCES = [
    'this flower has bright pink petals and a yellow centre',
    'a small bird with a red crown',
]
CHARS = np.stack([encode_chars(sentence) for sentence in SENTENCES])


def tiny(variant, **kwargs):
    return CharCnnRnn(variant, channels=(6, 8), hidden=10, embedding=12, rngs=nnx.Rngs(0), **kwargs)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    'variant, count, steps',
    [('cvpr', 1_814_144, 8), ('icml_flowers', 2_994_560, 8), ('icml_birds', 4_045_184, 18)],
)
def test_published_sizes(variant, count, steps):
    model = nnx.eval_shape(lambda: CharCnnRnn(variant, rngs=nnx.Rngs(0)))
    graph, params, _ = nnx.split(
        model, nnx.Param, nnx.BatchStat
    )  # raises where there is any other kind of variable
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    features = jax.eval_shape(lambda params: nnx.merge(graph, params).features(CHARS), params)
    assert features.shape == (2, steps, VARIANTS[variant].hidden)


def test_lengths_in_time():
    model, lengths = tiny('cvpr'), []
    x = jax.nn.one_hot(CHARS - 1, len(ALPHABET))
    for conv, stride in ((model.conv1, 3), (model.conv2, 3), (model.conv3, 2)):
        x = conv(x)
        lengths.append(x.shape[1])
        x = nnx.max_pool(x, (3,), strides=(stride,))
        lengths.append(x.shape[1])
    assert lengths == [198, 66, 63, 21, 18, 8]


def test_all_parameters_start_uniform():
    model = CharCnnRnn('cvpr', channels=(64, 64), hidden=64, embedding=64, rngs=nnx.Rngs(0))
    for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)):
        assert 0.05 < jnp.abs(leaf).max() <= 0.08
    kernel = model.conv2.kernel[...]
    assert abs(kernel.mean()) < 2e-3 and kernel.std() == pytest.approx(0.16 / 12**0.5, rel=0.03)


def test_gru_by_hand_in_two_steps():
    cell = ChoGru(1, 1, rngs=nnx.Rngs(0))
    cell.input.kernel[...], cell.input.bias[...] = (
        jnp.array([[0.5, -1.0, 2.0]]),
        jnp.array([0.1, 0.2, -0.3]),
    )  # update, reset, candidate
    cell.gates.kernel[...], cell.gates.bias[...] = jnp.array([[0.7, 0.9]]), jnp.array([-0.4, 0.6])
    cell.hidden.kernel[...], cell.hidden.bias[...] = jnp.array([[1.5]]), jnp.array([0.25])
    h1 = np.tanh(2.0 * 0.4 - 0.3)  # x_1 = 0.4; no gate, and neither Wh nor bh
    u = sigmoid(0.5 * -1.0 + 0.1 + 0.7 * h1 - 0.4)  # x_2 = -1
    r = sigmoid(-1.0 * -1.0 + 0.2 + 0.9 * h1 + 0.6)
    n = np.tanh(2.0 * -1.0 - 0.3 + 1.5 * (r * h1) + 0.25)
    h2 = u * n + (1 - u) * h1
    np.testing.assert_allclose(cell(jnp.array([[[0.4], [-1.0]]]))[0, :, 0], [h1, h2], rtol=1e-5)
    np.testing.assert_allclose(
        [h1, u, r, n, h2], [0.462117, 0.383075, 0.901669, -0.890634, -0.056088], atol=2e-6
    )  # on paper


def test_relu_rnn_equals_its_formula():
    cell = ReluRnn(3, 5, rngs=nnx.Rngs(0))
    wi, bi, wh, bh = (
        np.asarray(p[...]) * 8
        for p in (cell.input.kernel, cell.input.bias, cell.hidden.kernel, cell.hidden.bias)
    )
    cell.input.kernel[...], cell.input.bias[...], cell.hidden.kernel[...], cell.hidden.bias[...] = (
        wi,
        bi,
        wh,
        bh,
    )
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    h = np.maximum(x[:, 0] @ wi + bi, 0)
    states = [h]
    for t in range(1, 4):
        h = np.maximum(x[:, t] @ wi + bi + h @ wh + bh, 0)
        states.append(h)
    assert (h > 0).any()
    np.testing.assert_allclose(cell(x), np.stack(states, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('variant', ['cvpr', 'icml_birds'])
def test_gradient_through_merge_reaches_every_parameter(variant):
    graph, params, _ = nnx.split(tiny(variant), nnx.Param, nnx.BatchStat)
    params = jax.tree.map(
        lambda p: 5 * p, nnx.to_pure_dict(params)
    )  # at +-0.08, 10 units wide, some gradients round to nothing

    def loss(params, chars):
        return jnp.square(nnx.merge(graph, params)(chars, train=True)).mean()

    value, grads = jax.jit(jax.value_and_grad(loss))(params, CHARS)
    assert np.isfinite(value)
    assert all(jnp.isfinite(g).all() and jnp.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_bfloat16_is_set_from_outside():
    model = tiny('icml_birds')
    reference = model(CHARS, train=False)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, (nnx.Conv, nnx.Linear)):
            module.dtype = jnp.bfloat16
    out = model(CHARS, train=False)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), reference, atol=2e-3)


def test_padding_and_unknown_characters_are_zero_rows():
    model = tiny('icml_birds')
    odd = CHARS.copy()
    odd[:, 100:] = -1
    np.testing.assert_array_equal(model(odd, train=False), model(CHARS, train=False))
    assert not np.allclose(*model(CHARS, train=False), atol=1e-6)


def test_dropout_takes_its_key_at_the_call():
    model, key = tiny('cvpr', dropout=0.5), jax.random.key(0)
    plain = model(CHARS, train=False)
    np.testing.assert_array_equal(plain, tiny('cvpr')(CHARS, train=True))  # no rate, no key
    dropped = model(CHARS, train=True, key=key)
    np.testing.assert_array_equal(dropped, model(CHARS, train=True, key=key))
    assert not np.allclose(dropped, plain)
    with pytest.raises(ValueError):
        model(CHARS, train=True)


def test_a_wrong_variant_names_those_that_exist():
    with pytest.raises(ValueError, match='icml_flowers'):
        CharCnnRnn('birds', rngs=nnx.Rngs(0))
