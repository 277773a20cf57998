"""Layers against what they are defined by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t2i_jax.layers import conv as convolutions
from t2i_jax.layers.conv import (
    DIMENSIONS,
    Conv,
    ConvTranspose,
    conv_doubled,
    conv_transpose,
    convolution,
    levels,
    plain,
)
from t2i_jax.layers.norm import BatchNorm
from t2i_jax.layers.pool import max_pool
from t2i_jax.layers.pool import plain as plain_pool
from t2i_jax.layers.relu import Bottleneck
from t2i_jax.runtime import sharding

SAME, HALF = ((1, 1), (1, 1)), {'stride': 2, 'padding': ((1, 1), (1, 1))}
OTHERWISE = {  # on CPU: b h w c, kernel, stride and padding, LARGE
    'places': ((2, 8, 6, 5), (4, 4, 5, 7), HALF, 2**16),
    'places, one output': ((3, 2, 2, 8), (4, 4, 8, 1), HALF, 2**16),
    'dots': ((2, 8, 8, 6), (4, 4, 6, 7), HALF, 1),
    'dots 3x3': ((3, 4, 3, 5), (3, 3, 5, 6), dict(stride=1, padding=SAME), 1),
    'dots 2x2': ((2, 4, 4, 5), (2, 2, 5, 6), dict(stride=1, padding=((1, 0), (0, 1))), 1),
    'pictures': ((3, 32, 34, 5), (3, 3, 5, 6), dict(stride=1, padding=SAME), 2**16),
    'pictures, halved': ((2, 64, 64, 5), (4, 4, 5, 7), HALF, 2**16),
    'dots 5x5': ((2, 7, 8, 3), (5, 5, 3, 4), dict(stride=2, padding=((2, 1), (1, 2))), 1),
}


def normals(*shapes, dtype=jnp.float32):
    return [
        jax.random.normal(key, shape, dtype)
        for key, shape in zip(jax.random.split(jax.random.key(0), len(shapes)), shapes)
    ]


def with_gradients(form, **how):
    """A function of x, kernel and the gradient of the outcome -> outcome, gradients of x and
    kernel.
    """

    def all_three(x, kernel, dy):
        y, pull_back = jax.vjp(lambda x, kernel: form(x, kernel, **how), x, kernel)
        return y, *pull_back(dy)

    return jax.jit(all_three)


@pytest.mark.parametrize('dtype, tolerance', [(jnp.float32, 2e-6), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize('name', OTHERWISE)
def test_what_cpu_computes_in_another_way_is_the_plain_convolution(
    name, dtype, tolerance, monkeypatch
):
    x, kernel, how, large = OTHERWISE[name]
    monkeypatch.setattr(convolutions, 'LARGE', large)
    x, kernel = normals(x, kernel, dtype=dtype)
    dy = jax.random.normal(jax.random.key(2), plain(x, kernel, **how).shape, dtype)
    program = with_gradients(convolution, **how).lower(x, kernel, dy).compile()
    found, again, expected = (
        program(x, kernel, dy),
        program(x, kernel, dy),
        with_gradients(plain, **how)(x, kernel, dy),
    )
    for one, other, same in zip(found, expected, again):
        assert one.dtype == dtype
        np.testing.assert_array_equal(one, same)
        one, other = np.float32(one), np.float32(other)
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())
    text = program.as_text()
    # y, the gradient of x or its four places, that of the kernel or of each picture
    counts = {'places': 6, 'dots': 0, 'pictures': 1 + 1 + 3, 'pictures, halved': 1 + 4 + 2}
    count = counts.get(name, counts[name.split(',')[0].split()[0]])
    assert text.count(' convolution(') == count and 'conditional' not in text

    def slope(form):
        return jax.jit(
            jax.grad(
                lambda x, kernel: (
                    jax.grad(lambda x: (form(x, kernel, **how) ** 2).sum())(x) ** 2
                ).sum(),
                (0, 1),
            )
        )

    if dtype == jnp.float32:  # as a gradient penalty has it
        for one, other in zip(slope(convolution)(x, kernel), slope(plain)(x, kernel)):
            np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize('name', ['places', 'dots', 'pictures, halved'])
def test_other_devices_get_the_plain_convolution(name, monkeypatch):
    x, kernel, how, large = OTHERWISE[name]
    monkeypatch.setattr(convolutions, 'LARGE', large)
    x, kernel, dy = (
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in (x, kernel, (x[0], x[1] // 2, x[2] // 2, kernel[-1]))
    )
    texts = [
        jax.export.export(with_gradients(form, **how), platforms=['tpu'])(
            x, kernel, dy
        ).mlir_module()
        for form in (convolution, plain)
    ]
    convs, plain_convs = (
        [
            line.split('loc(')[0].split('dim_numbers')[1]
            for line in text.splitlines()
            if 'stablehlo.convolution' in line
        ]
        for text in texts
    )
    assert (
        len(plain_convs) == 3
        and sorted(convs) == sorted(plain_convs)
        and 'dot_general' not in texts[0]
    )


@pytest.mark.parametrize('name', ['places', 'dots', 'pictures, halved'])
def test_rows_of_a_batch_stay_on_their_devices(name, monkeypatch):
    x, kernel, how, large = OTHERWISE[name]
    monkeypatch.setattr(convolutions, 'LARGE', large)
    mesh = sharding.make_mesh()
    x, kernel, dy = normals((8, *x[1:]), kernel, (8, x[1] // 2, x[2] // 2, kernel[-1]))
    rows, whole = sharding.by_rows(mesh), sharding.replicated(mesh)
    program = jax.jit(
        with_gradients(convolution, **how),
        in_shardings=(rows, whole, rows),
        out_shardings=(rows, rows, whole),
    )
    with sharding.traced_for(mesh):
        text = program.lower(x, kernel, dy).compile().as_text()
    assert text.count(' all-reduce(') == 1 and not {
        'all-gather',
        'all-to-all',
        'collective-permute',
    } & set(text.replace('(', ' ').split())
    for one, other in zip(program(x, kernel, dy), with_gradients(plain, **how)(x, kernel, dy)):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


# sides, and window, stride and padding
POOLS = [
    ((11, 11), (3, 2, 0)),
    ((9, 12), (3, 2, 0)),
    ((8, 7), (3, 2, 1)),
    ((6, 8), (2, 2, 0)),
    ((7, 6), (3, 1, 1)),
    ((10, 9), (3, 3, 0)),
]


@pytest.mark.parametrize('sides, how', POOLS)
def test_max_pooling_is_the_plain_one_and_the_first_of_equal_pixels_has_the_gradient(sides, how):
    # whole numbers from 0 on: many windows have several largest pixels
    x = jax.nn.relu(normals((2, *sides, 5))[0].round())
    y, pull_back = jax.vjp(lambda x: max_pool(x, *how), x)
    expected, pull_plain = jax.vjp(lambda x: plain_pool(x, *how), x)
    np.testing.assert_array_equal(y, expected)
    dy = jax.random.normal(jax.random.key(2), y.shape).round(1)
    np.testing.assert_allclose(pull_back(dy)[0], pull_plain(dy)[0], atol=1e-6)


def test_other_devices_get_the_plain_pooling():
    def gradient(pool):
        return jax.jit(jax.grad(lambda x: pool(x, 3, 2).sum()))

    x = jax.ShapeDtypeStruct((2, 7, 7, 3), jnp.float32)
    for pool in max_pool, plain_pool:
        text = jax.export.export(gradient(pool), platforms=['tpu'])(x).mlir_module()
        assert text.count('stablehlo.select_and_scatter') == 1
    assert 'scatter' not in gradient(max_pool).lower(x).compile().as_text()


@pytest.mark.parametrize('kernel, padding, d', [(4, (2, 2), 5), (4, (2, 2), 3), (5, (2, 3), 5)])
def test_transposed_convolution_is_the_input_gradient_of_a_convolution(kernel, padding, d):
    keys = jax.random.split(jax.random.key(0), 3)
    x, k = (
        jax.random.normal(keys[0], (2, 6, 6, 3)),
        jax.random.normal(keys[1], (kernel, kernel, 3, d)),
    )
    dy = jax.random.normal(keys[2], (2, 12, 12, d))

    def derived(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1, 1), (padding, padding), lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS
        )

    @jax.jit
    def both(x, k, dy):
        return [
            (y, *pull_back(dy))
            for y, pull_back in (
                jax.vjp(f, x, k) for f in (derived, lambda x, k: conv_transpose(x, k, padding))
            )
        ]

    for expected, found in zip(*both(x, k, dy)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    # <T x, y> = <x, C y> for the convolution C whose transpose T is
    y = conv_transpose(x, k, padding)
    assert y.shape == (2, 12, 12, d)
    pads = tuple(kernel - 1 - p for p in padding)
    back = jax.lax.conv_general_dilated(
        dy, k[::-1, ::-1].swapaxes(2, 3), (2, 2), (pads, pads), dimension_numbers=DIMENSIONS
    )
    np.testing.assert_allclose((y * dy).sum(), (x * back).sum(), rtol=1e-3)


def test_convolution_of_pictures_is_the_plain_one():
    x, layer = (
        jax.random.normal(jax.random.key(0), (2, 8, 8, 3)),
        Conv(3, 5, 4, stride=2, padding=1, rngs=nnx.Rngs(0)),
    )
    assert layer.few
    expected = jax.lax.conv_general_dilated(
        x, layer.kernel[...], (2, 2), ((1, 1), (1, 1)), dimension_numbers=DIMENSIONS
    )
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('kernel', [3, 5])
def test_a_convolution_of_doubled_pixels_is_the_plain_one(kernel):
    keys = jax.random.split(jax.random.key(1), 2)
    x, k = (
        jax.random.normal(keys[0], (2, 5, 6, 3)),
        jax.random.normal(keys[1], (kernel, kernel, 3, 4)),
    )

    def plain(x, k):
        return jax.lax.conv_general_dilated(
            jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), k, (1, 1), 'SAME', dimension_numbers=DIMENSIONS
        )

    @jax.jit
    def both(x, k):
        dy = jnp.sin(jnp.arange(2 * 10 * 12 * 4)).reshape(2, 10, 12, 4)
        return [
            (y, *pull_back(dy))
            for y, pull_back in (jax.vjp(f, x, k) for f in (plain, conv_doubled))
        ]

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
