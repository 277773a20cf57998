"""Layers against what they are defined by."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t2i_jax.layers.blocks import Bottleneck, levels
from t2i_jax.layers.conv import DIMENSIONS, Conv, ConvTranspose, conv_doubled, conv_transpose
from t2i_jax.layers.norm import BatchNorm


@pytest.mark.parametrize('kernel, padding, d', [(4, (2, 2), 5), (4, (2, 2), 3), (5, (2, 3), 5)])
def test_transposed_convolution_is_the_input_gradient_of_a_convolution_and_its_gradients_are_those_that_jax_derives(kernel, padding, d):
    keys = jax.random.split(jax.random.key(0), 3)
    x, k = jax.random.normal(keys[0], (2, 6, 6, 3)), jax.random.normal(keys[1], (kernel, kernel, 3, d))
    dy = jax.random.normal(keys[2], (2, 12, 12, d))

    def derived(x, k):
        return jax.lax.conv_general_dilated(x, k, (1, 1), (padding, padding), lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS)

    @jax.jit
    def both(x, k, dy):
        return [(y, *pull_back(dy)) for y, pull_back in (jax.vjp(f, x, k) for f in (derived, lambda x, k: conv_transpose(x, k, padding)))]
    for expected, found in zip(*both(x, k, dy)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    # <T x, y> = <x, C y> for the convolution C whose transpose T is
    y = conv_transpose(x, k, padding)
    assert y.shape == (2, 12, 12, d)
    pads = tuple(kernel - 1 - p for p in padding)
    back = jax.lax.conv_general_dilated(dy, k[::-1, ::-1].swapaxes(2, 3), (2, 2), (pads, pads), dimension_numbers=DIMENSIONS)
    np.testing.assert_allclose((y * dy).sum(), (x * back).sum(), rtol=1e-3)


def test_convolution_of_pictures_is_the_plain_one():
    x, layer = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), Conv(3, 5, 4, stride=2, padding=1, rngs=nnx.Rngs(0))
    assert layer.few
    expected = jax.lax.conv_general_dilated(x, layer.kernel[...], (2, 2), ((1, 1), (1, 1)), dimension_numbers=DIMENSIONS)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('kernel', [3, 5])
def test_a_convolution_of_doubled_pixels_is_the_plain_one(kernel):
    keys = jax.random.split(jax.random.key(1), 2)
    x, k = jax.random.normal(keys[0], (2, 5, 6, 3)), jax.random.normal(keys[1], (kernel, kernel, 3, 4))

    def plain(x, k):
        return jax.lax.conv_general_dilated(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), k, (1, 1), 'SAME', dimension_numbers=DIMENSIONS)

    @jax.jit
    def both(x, k):
        dy = jnp.sin(jnp.arange(2 * 10 * 12 * 4)).reshape(2, 10, 12, 4)
        return [(y, *pull_back(dy)) for y, pull_back in (jax.vjp(f, x, k) for f in (plain, conv_doubled))]
    for expected, found in zip(*both(x, k)):
        np.testing.assert_allclose(found, expected, atol=1e-3)
    with pytest.raises(ValueError, match='kernel of 3 or 5'):
        conv_doubled(x, jnp.ones((4, 4, 3, 4)))


def test_layers_compute_in_the_type_that_they_are_told_and_keep_their_parameters():
    layer = ConvTranspose(3, 4, 4, rngs=nnx.Rngs(0))
    layer.dtype = jnp.bfloat16
    assert layer(jnp.ones((1, 4, 4, 3))).dtype == jnp.bfloat16
    assert layer.kernel[...].dtype == jnp.float32


def test_batch_norm_normalises_in_training_and_moves_its_statistics_by_a_tenth():
    norm = BatchNorm(2, rngs=nnx.Rngs(0))
    assert 0.9 < float(norm.scale[...].mean()) < 1.1 and float(jnp.abs(norm.bias[...]).max()) == 0
    norm.scale[...] = jnp.ones(2)
    x = jnp.stack([jnp.arange(8.0), 10 * jnp.arange(8.0) + 3], -1)
    y = norm(x, train=True)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(0), 1, rtol=1e-4)
    np.testing.assert_allclose(norm.mean[...], 0.1 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * x.var(0), rtol=1e-5)
    before = norm.mean[...]
    norm(x, train=False)
    np.testing.assert_array_equal(norm.mean[...], before)


def test_bottleneck_adds_to_its_input():
    block = Bottleneck(8, jax.nn.relu, rngs=nnx.Rngs(0))
    block.norms[2].scale[...] = jnp.zeros(8)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    np.testing.assert_array_equal(block(x, train=True), x)


def test_levels_of_an_image_side():
    assert [levels(s) for s in (16, 32, 64, 128)] == [2, 3, 4, 5]
    with pytest.raises(ValueError, match='48'):
        levels(48)
