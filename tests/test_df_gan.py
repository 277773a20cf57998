"""DF-GAN: published sizes, the gradient penalty, how the sentence reaches every block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import count, filled, shapes_of, uniform

from t2i_jax import stage as core
from t2i_jax.losses import matching_gradient_penalty
from t2i_jax.systems.df_gan import (
    Affine,
    FusionGenerator,
    HalvingBlock,
    OneWayDiscriminator,
    widths,
)

# of the blocks of the authors' D that keep their width, for 256, 128 and 64 px
UNUSED = {256: 3 * 65_792, 128: 2 * 65_792, 64: 65_792}


@pytest.mark.parametrize(
    'size, g, d',
    [(256, 9_744_131, 6_619_206), (128, 7_306_499, 4_915_013), (64, 4_868_867, 3_210_820)],
)
def test_sizes_are_the_published_ones(size, g, d):
    generator = shapes_of(lambda: FusionGenerator(size, 256, 32, 100, rngs=nnx.Rngs(0))).params
    critic = shapes_of(lambda: OneWayDiscriminator(size, 256, 32, 64, rngs=nnx.Rngs(0))).params
    assert count(generator) == g
    head = count(critic['joint']) + count(critic['logit'])
    assert head == 295_936 and count(critic) - head == d - UNUSED[size]


def test_widths_of_the_maps():
    assert widths(256, 32) == [256, 256, 256, 128, 64, 32] and widths(64, 16) == [128, 64, 32, 16]


def test_an_affine_starts_as_what_it_is_given():
    x, y = uniform(2, 4, 4, 6), uniform(2, 5, seed=1)
    np.testing.assert_array_equal(Affine(6, 5, rngs=nnx.Rngs(0))(x, y), x)


def test_a_block_of_d_starts_as_its_shortcut():
    block, x = HalvingBlock(4, 6, rngs=nnx.Rngs(0)), uniform(2, 8, 8, 4)
    pooled = np.asarray(block.shortcut(x)).reshape(2, 4, 2, 4, 2, 6).mean((2, 4))
    np.testing.assert_allclose(block(x, train=True), pooled, atol=1e-6)


def test_another_sentence_changes_the_maps_of_every_block():
    graph, params, stats = filled(
        shapes_of(lambda: FusionGenerator(16, 6, 4, 5, rngs=nnx.Rngs(0))), scale=0.3
    )
    generator = nnx.merge(graph, params, stats)
    z, text = uniform(1, 5), jnp.concatenate([uniform(1, 6, seed=s) for s in (1, 2)])
    x = uniform(1, 4, 4, generator.blocks[0].convs[0].conv.kernel.shape[2])
    for block in generator.blocks:
        pair = [block(x, jnp.concatenate([z, t[None]], -1), train=True) for t in text]
        # by another way than the map that it was given
        assert np.abs(np.asarray(pair[0]) - np.asarray(pair[1])).max() > 1e-3
        x = pair[0]
    drawn = [generator(t[None], z, train=True) for t in text]
    assert drawn[0].shape == (1, 16, 16, 3) and np.abs(drawn[0] - drawn[1]).max() > 1e-3


# ---------------------------------------------------------------------------------------- penalty
def test_the_penalty_of_a_linear_critic_is_the_power_of_its_slope():
    w, v = uniform(4, 4, 3, seed=1), uniform(5, seed=2)

    def critic(x, s):
        return jnp.einsum('bhwc,hwc->b', x, w) + s @ v

    slope = float(jnp.sqrt((w**2).sum() + (v**2).sum()))
    for power in (2.0, 6.0):
        found = matching_gradient_penalty(critic, uniform(3, 4, 4, 3), uniform(3, 5), power)
        np.testing.assert_allclose(found, slope**power, rtol=1e-5)


def test_the_penalty_and_its_gradient_agree_with_finite_differences():
    with jax.enable_x64(True) if hasattr(jax, 'enable_x64') else jax.experimental.enable_x64():
        draws = np.random.default_rng(0)
        x, s, w, v, u = (draws.normal(size=n) * 0.7 for n in [(2, 3), (2, 2), (3, 4), (2, 4), 4])

        def critic(w):
            return lambda x, s: jnp.tanh(x.reshape(2, -1) @ w + s @ v) @ u

        def penalty(w):
            return float(matching_gradient_penalty(critic(w), x.reshape(2, 1, 1, 3), s, 6.0))

        def by_differences(w, h=1e-4):
            squares = np.zeros(2)
            for array, at in ((x, 0), (s, 1)):
                for j in range(array.shape[1]):
                    more, less = ([x, s], [x, s])
                    more[at], less[at] = array.copy(), array.copy()
                    more[at][:, j] += h
                    less[at][:, j] -= h
                    change = np.asarray(critic(w)(*more)) - np.asarray(critic(w)(*less))
                    squares += (change / (2 * h)) ** 2
            return (squares**3).mean()

        np.testing.assert_allclose(penalty(w), by_differences(w), rtol=1e-3)
        gradient = jax.grad(
            lambda w: matching_gradient_penalty(critic(w), x.reshape(2, 1, 1, 3), s, 6.0)
        )(jnp.asarray(w))
        for i, j in ((0, 0), (2, 3)):
            more, less = w.copy(), w.copy()
            more[i, j] += 0.02
            less[i, j] -= 0.02
            slope = (penalty(more) - penalty(less)) / 0.04
            np.testing.assert_allclose(gradient[i, j], slope, rtol=0.02)


def test_the_penalty_of_d_is_finite_and_reaches_its_weights():
    parts = filled(shapes_of(lambda: OneWayDiscriminator(16, 6, 4, 8, rngs=nnx.Rngs(0))))
    images, text = uniform(2, 16, 16, 3), uniform(2, 6)

    def penalty(params):
        critic = nnx.merge(parts.graph, params, parts.stats)
        return matching_gradient_penalty(lambda x, s: critic(x, s, train=False), images, text, 2.0)

    value, slope = jax.value_and_grad(penalty)(core.Parts(*parts).params)
    assert value > 0
    assert (
        np.abs(slope['joint']['kernel']).max() > 0
        and np.abs(slope['first']['conv']['kernel']).max() > 0
    )
