"""Conditioning augmentation and its penalty against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t2i_jax.layers.conditioning import ConditioningAugmentation
from t2i_jax.losses import conditioning_kl

KEY = jax.random.key(0)
TF = dict(form='dense', activation='lrelu', spread='log_sigma', eps='truncated')
TORCH = dict(form='dense', activation='relu', spread='log_variance', eps='normal')


def layer(d=6, c=4, **keywords):
    """An augmentation whose weights and biases are of size 1."""
    out = ConditioningAugmentation(d, c, **keywords, rngs=nnx.Rngs(0))
    draws = np.random.default_rng(1)
    out.layer.kernel[...] = jnp.float32(draws.normal(0, 0.5, out.layer.kernel.shape))
    out.layer.bias[...] = jnp.float32(draws.normal(0, 0.5, out.layer.bias.shape))
    return out


TEXT = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)


@pytest.mark.parametrize(
    'keywords, size', [(TF, 262_400), (TORCH, 262_400), (dict(form='glu'), 524_800)]
)
def test_published_sizes(keywords, size):
    shapes = nnx.eval_shape(
        lambda: ConditioningAugmentation(1024, 128, **keywords, rngs=nnx.Rngs(0))
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes, nnx.Param))) == size


@pytest.mark.parametrize(
    'keywords, bend',
    [
        (TF, lambda x: np.where(x > 0, x, 0.2 * x)),
        (TORCH, lambda x: np.maximum(x, 0)),
        (TF | dict(activation='none'), lambda x: x),
        (TORCH | dict(activation='none'), lambda x: x),
        (dict(form='glu'), lambda x: x[:, :8] / (1 + np.exp(-x[:, 8:]))),
    ],
)
def test_the_condition_is_a_draw_from_the_gaussian(keywords, bend):
    augment = layer(**keywords)
    x = bend(TEXT @ np.asarray(augment.layer.kernel[...]) + np.asarray(augment.layer.bias[...]))
    sigma = np.exp(x[:, 4:] if keywords.get('spread') == 'log_sigma' else x[:, 4:] / 2)
    eps = np.asarray(augment.noise(KEY, 5))
    condition, mu, logvar = augment(TEXT, eps)
    np.testing.assert_allclose(mu, x[:, :4], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.exp(logvar / 2), sigma, rtol=1e-4)
    np.testing.assert_allclose(condition, x[:, :4] + sigma * eps, rtol=1e-4, atol=1e-4)
    assert np.array_equal(augment(TEXT)[0], mu)  # without noise the mean
    assert np.allclose(augment(TEXT, 0 * eps)[0], mu)


def test_a_relu_keeps_the_deviation_at_one_or_more():
    for keywords, kept in ((TORCH, True), (TF, False)):
        _, mu, logvar = layer(**keywords)(TEXT)
        assert (mu >= 0).all() == (logvar >= 0).all() == kept


def test_noise():
    normal, cut = (layer(c=50, **keywords).noise(KEY, 200) for keywords in (TORCH, TF))
    assert normal.shape == cut.shape == (200, 50)
    assert jnp.abs(normal).max() > 3 and jnp.abs(cut).max() <= 2
    assert normal.std() == pytest.approx(1, abs=0.03) and cut.std() == pytest.approx(
        0.8796, abs=0.03
    )  # of a normal cut at 2
    for keywords in (TORCH, TF):
        augment = layer(**keywords)
        assert np.array_equal(
            augment.noise(KEY, 3), augment.noise(KEY, 7)[:3]
        )  # row i does not depend on n
        assert not (augment.noise(KEY, 3) == augment.noise(jax.random.key(1), 3)).any()


def test_kl_of_the_standard_normal_is_zero_and_grows_from_there():
    zero = jnp.zeros((3, 8))
    for reduction in ('mean', 'sum'):
        assert conditioning_kl(zero, zero, reduction) == 0
        assert all(
            conditioning_kl(zero + a, zero + b, reduction) > 0
            for a, b in ((0.1, 0), (0, 0.1), (-0.1, 0), (0, -0.1))
        )


def test_both_conventions_have_the_same_kl():
    draws = np.random.default_rng(3)
    mu, log_sigma = draws.normal(size=(2, 7, 5))
    official = -log_sigma + 0.5 * (np.exp(2 * log_sigma) + mu**2 - 1)  # TensorFlow code
    v = 2 * log_sigma
    torch = 0.5 * (mu**2 + np.exp(v) - 1 - v)  # PyTorch code
    kl = conditioning_kl(mu, v)
    assert kl == pytest.approx(official.mean(), rel=1e-5) and kl == pytest.approx(
        torch.mean(), rel=1e-5
    )
    assert conditioning_kl(mu, v, 'sum') == pytest.approx(5 * float(kl), rel=1e-5)  # paper

    one, other = (
        layer(**TF),
        layer(**TF | dict(spread='log_variance')),
    )  # the same function, told in the other convention
    other.layer.kernel[...] = one.layer.kernel[...] * jnp.where(jnp.arange(8) < 4, 1, 2)
    other.layer.bias[...] = one.layer.bias[...] * jnp.where(jnp.arange(8) < 4, 1, 2)
    for a, b in zip(one(TEXT, one.noise(KEY, 5)), other(TEXT, one.noise(KEY, 5))):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('keywords', [TF, TORCH, dict(form='glu')])
def test_gradients_reach_mean_and_deviation(keywords):
    augment = layer(**keywords)
    graph, params = nnx.split(augment)

    def of(loss):
        grads = jax.grad(
            lambda params: loss(*nnx.merge(graph, params)(TEXT, augment.noise(KEY, 5)))
        )(params)
        kernel = np.asarray(grads['layer']['kernel'][...]).reshape(
            6, -1, 4
        )  # mu, deviation (and their gates)
        return (kernel != 0).any((0, 2))

    assert (
        of(lambda c, mu, logvar: (c**2).sum()).all()
        and of(lambda c, mu, logvar: conditioning_kl(mu, logvar)).all()
    )
    assert not of(lambda c, mu, logvar: mu.sum())[1]


def test_in_half_precision_the_gaussian_stays_in_single():
    augment = layer(**TF)
    augment.layer.dtype = jnp.bfloat16
    assert {x.dtype for x in augment(TEXT, augment.noise(KEY, 5))} == {jnp.dtype('float32')}


@pytest.mark.parametrize(
    'keywords, told',
    [
        (dict(form='wide'), "form .*'wide'.*'dense' or 'glu'"),
        (dict(activation='tanh'), "'tanh'.*'lrelu'"),
        (dict(spread='sigma'), "'log_variance' or 'log_sigma'"),
        (dict(eps='uniform'), "'normal' or 'truncated'"),
    ],
)
def test_what_does_not_exist(keywords, told):
    with pytest.raises(ValueError, match=told):
        ConditioningAugmentation(6, 4, **keywords, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="'max'.*'mean' or 'sum'"):
        conditioning_kl(jnp.zeros((1, 2)), jnp.zeros((1, 2)), 'max')
