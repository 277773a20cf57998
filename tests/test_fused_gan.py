"""FusedGAN: sizes, what two generators share, rows without captions, controls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import batch_for, bit_equal, count, filled, get_config, sampler_of, shapes_of, uniform

from t2i_jax import stage as core
from t2i_jax.layers.norm import BatchNorm
from t2i_jax.run import Run
from t2i_jax.runtime.errors import RunError
from t2i_jax.systems.fused_gan import (
    UPSAMPLE,
    FreeDiscriminator,
    FusedGan,
    FusedGenerator,
    MatchingDiscriminator,
    StructurePrior,
    borrowed,
    structure_of,
)

EMBEDDING = 6


def generator(size=16, side=8, ngf=2, upsample='resize', g_norm='batch', fine=False, d=EMBEDDING):
    return FusedGenerator(
        *(size, d, ngf, 5, 4, side, upsample, g_norm, fine),
        (False, 'sentence'),
        rngs=nnx.Rngs(0),
    )


def small(**keywords):
    """A stage of few channels with weights drawn by numpy, its Meta and a batch."""
    meta = core.Meta('shapes', vocabulary_size=9, length=4, size=16, classes=3, attributes=7)
    meta = meta._replace(embedding_dim=EMBEDDING)
    sizes = dict(ngf=2, ndf=2, nz=5, nc=4, nt=3) | keywords
    shapes = shapes_of(lambda: FusedGan(meta, **sizes, text=None, rngs=nnx.Rngs(0)))
    stage = nnx.merge(*filled(shapes, scale=0.3))
    return stage, meta, batch_for(stage.needs, meta)


@pytest.fixture(scope='module')
def stage():
    return small()


# ------------------------------------------------------------------------------------------ sizes
@pytest.mark.parametrize('upsample, kernel', [('deconv', 16), ('resize', 9)])
def test_the_shared_part_has_the_size_of_both_reimplementations(upsample, kernel):
    """128 numbers, 4 x 4 x 1024, 8 x 8 x 512."""
    up = UPSAMPLE[upsample]
    prior = shapes_of(lambda: StructurePrior(8, 64, 128, up, rngs=nnx.Rngs(0))).params
    assert count(prior) == 128 * 16_384 + kernel * 1024 * 512 + 2 * (1024 + 512)


@pytest.mark.parametrize(
    'size, side, widths',
    [
        (64, 8, [512, 256, 128, 3]),
        (128, 8, [512, 256, 128, 64, 3]),
        (64, 16, [256, 128, 3]),
        (128, 16, [256, 128, 64, 3]),
    ],
)
def test_widths_of_the_tails(size, side, widths):
    def build():
        return FusedGenerator(
            *(size, 10, 64, 128, 128, side, 'deconv', 'batch', False),
            (False, 'sentence'),
            rngs=nnx.Rngs(0),
        )

    params = shapes_of(build).params
    for name, extra in (('unconditional', 0), ('conditional', 128)):
        tail = params[name]
        layers = [*tail['ups'].values(), tail['image']]
        shapes = [layer['kernel'].shape for layer in layers]
        pairs = zip([widths[0] + extra, *widths[1:]], widths[1:])
        assert shapes == [(4, 4, c, d) for c, d in pairs]


def test_sizes_of_the_discriminators():
    def D_c(size):
        return shapes_of(
            lambda: MatchingDiscriminator(size, 1024, 64, 128, BatchNorm, rngs=nnx.Rngs(0))
        ).params

    ladder = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512)
    norms = 2 * (128 + 256 + 512)
    D_u = shapes_of(lambda: FreeDiscriminator(64, 64, BatchNorm, rngs=nnx.Rngs(0))).params
    assert count(D_u) == ladder + norms + 16 * 512
    joined = 1025 * 128 + 640 * 512 + 2 * 512
    assert count(D_c(64)) == count(D_u) + joined
    # one more convolution behind the place where picture and sentence meet
    assert D_c(128)['rest']['downs'][0]['kernel'].shape == (4, 4, 512, 1024)
    assert 'rest' not in D_c(64)


@pytest.mark.parametrize('upsample', UPSAMPLE)
@pytest.mark.parametrize('size, side, fine', [(32, 8, False), (64, 16, True)])
def test_shapes_of_both_pictures(size, side, fine, upsample):
    def draw():
        G = generator(size, side, upsample=upsample, g_norm='modulated', fine=fine)
        return G.both(jnp.zeros((2, EMBEDDING)), jnp.zeros((2, 5)), jnp.zeros((2, 4)), train=False)

    out = nnx.eval_shape(draw)
    assert out.free.shape == out.image.shape == (2, size, size, 3) and out.mu.shape == (2, 4)


# ------------------------------------------------------------------------- what the two tails share
def test_the_structure_depends_on_z_alone():
    G = nnx.merge(*filled(shapes_of(generator), scale=0.3))
    z, eps, text = uniform(2, 5), uniform(2, 4, seed=1), uniform(2, EMBEDDING, seed=2)
    one, other = G.both(text, z, eps, train=False), G.both(-text, z, eps + 1, train=False)
    assert bit_equal(one.free, other.free) and bit_equal(one.free, G.free(z))
    assert np.abs(one.image - other.image).max() > 0.01
    assert np.abs(one.free - G.free(-z)).max() > 0.01
    assert bit_equal(one.image, G(text, z, eps, train=False)[0])


def test_gradients_of_both_discriminators_reach_the_shared_part_and_their_own_tail(stage):
    module, _, _ = stage
    graph, params = nnx.split(module.G)[0], nnx.to_pure_dict(nnx.state(module.G, nnx.Param))
    stats = nnx.state(module.G, nnx.BatchStat)
    z, eps, text = uniform(2, 5), uniform(2, 4), uniform(2, EMBEDDING)

    def answers(params, which):
        drawn = nnx.merge(graph, nnx.State(params), stats).both(text, z, eps, train=False)
        if which == 'D_u':
            return module.D_u(drawn.free, train=False).sum()
        return module.D_c(drawn.image, text, train=False).sum()

    def reached(which):
        grads = jax.grad(answers)(params, which)
        return {k for k, g in grads.items() if any(x.any() for x in jax.tree.leaves(g))}

    assert reached('D_u') == {'prior', 'unconditional'}
    assert reached('D_c') == {'prior', 'conditional', 'augment'}


def test_structures_are_compared_without_colour_and_brightness():
    x = uniform(2, 16, 16, 3)
    np.testing.assert_allclose(structure_of(x), structure_of(0.8 * x + 0.2), atol=0.01)
    grey = jnp.repeat(x.mean(-1, keepdims=True), 3, -1)
    np.testing.assert_allclose(structure_of(x), structure_of(grey), atol=1e-4)
    assert np.abs(structure_of(x) - structure_of(jnp.roll(x, 8, 1))).mean() > 0.5


# ----------------------------------------------------------------------------- rows with no caption
def test_rows_without_captions_borrow_those_of_others():
    rows = borrowed(jnp.array([False, True, False, True, False]))
    assert rows.tolist() == [1, 1, 1, 3, 1]
    assert borrowed(jnp.ones(3, bool)).tolist() == [0, 1, 2]
    assert set(borrowed(jnp.arange(64) < 8).tolist()) == set(range(8))


def test_a_batch_without_captions_teaches_nothing_of_conditions(stage):
    module, _, batch = stage
    batch = batch | {'captioned': jnp.zeros(4, bool)}
    out = module.forward(batch, jax.random.key(0))
    loss, _ = module.dc_loss(batch, jax.random.key(0), out)
    assert loss == 0
    parts = core.split(module)

    def loss_of(drawn):
        args = batch, jax.random.key(0), out._replace(drawn=drawn)
        return core.call(*parts, 'g_loss', *args)[0][0]

    slope = jax.grad(loss_of)(out.drawn)
    assert slope.free.any() and not slope.image.any() and not slope.mu.any()


def test_pictures_without_captions_reach_d_u_alone(stage):
    """Another picture in a row without a caption changes D_u's loss, and not D_c's."""
    module, _, batch = stage
    key = jax.random.key(0)
    out = module.forward(batch, key)
    lacks = ~batch['captioned']
    other = batch | {'image': jnp.where(lacks[:, None, None, None], 0.5, batch['image'])}
    assert module.dc_loss(batch, key, out)[0] == module.dc_loss(other, key, out)[0]
    assert module.du_loss(batch, key, out)[0] != module.du_loss(other, key, out)[0]


# ---------------------------------------------------------------------------- conditions, refusals
def test_attributes_are_a_condition_as_sentences_are():
    module, meta, batch = small(condition='attributes')
    assert module.draws_from == ('attributes',) and 'wrong_attributes' in module.needs
    assert module.encode(batch).shape == (4, meta.attributes)
    with pytest.raises(ValueError, match='no attributes'):
        FusedGan(meta._replace(attributes=0), condition='attributes', text=None, rngs=nnx.Rngs(0))


@pytest.mark.parametrize('side, size, at_most', [(16, 16, 8), (4, 64, 32)])
def test_a_structure_that_does_not_fit(side, size, at_most):
    with pytest.raises(ValueError, match=f'it is 8 or 16, and at most {at_most}'):
        generator(size, side)


def test_pictures_of_attributes_are_not_refined():
    config = get_config('fused_gan_shapes', 'tiny').unlock()
    config.stages.gan.model.condition = 'attributes'
    with pytest.raises(RunError, match='stages.refine.steps=0'):
        _ = Run(config.lock())['refine'].nominal


# --------------------------------------------------------------------------------------- controls
def test_controls_move_one_thing_each(stage):
    module, meta, batch = stage
    sampler = sampler_of(module, meta, chunk=8)
    batch, texts = {'encoded': np.asarray(uniform(2, EMBEDDING, seed=3))}, ['a', 'b']

    def differ(a, b):
        return np.abs(a.astype(int) - b).max() > 0

    posture, labels = module.posture(sampler, batch, texts, 3, 0)
    assert posture.shape == (3, 3, 16, 16, 3) and labels == ['the structure alone', 'a', 'b']
    detail, _ = module.detail(sampler, batch, texts, 3, 0)
    restyle, labels = module.restyle(sampler, batch, texts, 3, 0)
    assert restyle.shape == (3, 3, 16, 16, 3) and len(labels) == 3
    # the same z and sentences in columns instead of rows
    np.testing.assert_allclose(posture.swapaxes(0, 1), restyle, atol=1)
    # the first z and eps of all
    np.testing.assert_allclose(detail[:, 0], posture[1:, 0], atol=1)
    assert differ(posture[1, 0], posture[1, 1]) and differ(detail[0, 0], detail[0, 1])
