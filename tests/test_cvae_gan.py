"""CVAE&GAN: sizes, the loss with and without masks, what each layer and each half batch sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import batch_for, bit_equal, count, filled, sampler_of, shapes_of, uniform

from t2i_jax import stage as core
from t2i_jax.runtime.errors import DataError
from t2i_jax.systems.attribute2image import Reconstruction
from t2i_jax.systems.cvae_gan import CvaeRefiner, CvaeStage, whole_where_unknown

EMBEDDING, KEY = 6, jax.random.key(0)
META = core.Meta('scenes', vocabulary_size=9, length=4, size=16, embedding_dim=EMBEDDING)


def build(meta=META, **keywords):
    sizes = dict(width=4, nz=3, nz_b=2) | keywords
    return CvaeStage(meta, **sizes, text=None, rngs=nnx.Rngs(0))


def refiner(size=32, stage=build, **keywords):
    layers = stage()
    names = CvaeRefiner.layers
    return CvaeRefiner(
        META._replace(size=size),
        **(dict(gf=2, df=2, nc=4, blocks=1) | keywords),
        **{name: getattr(layers, name) for name in names},
        text=None,
        rngs=nnx.Rngs(0),
    )


def made(make):
    stage = nnx.merge(*filled(shapes_of(make), scale=0.3))
    return stage, batch_for(stage.needs, META._replace(size=32 if make is refiner else 16))


@pytest.fixture(scope='module')
def cvae():
    return made(build)


@pytest.fixture(scope='module')
def refine():
    return made(refiner)


# ------------------------------------------------------------------------------------------ sizes
def test_sizes_of_the_layers():
    """The tables of the specification, for a sentence of 1,024 numbers."""
    meta = META._replace(size=64, embedding_dim=1024)
    params = shapes_of(lambda: CvaeStage(meta, text=None, rngs=nnx.Rngs(0))).params
    c = (3, 64, 128, 256, 256)
    convs = sum(k * k * a * b + b + 2 * b * (b != 64) for a, b, k in zip(c, c[1:], (5, 5, 3, 3)))
    dense = (16 * 256 + 1) * 1024 + 1025 * 1024
    heads = 1025 * 128 + (1024 + 128 + 1) * 128 + 1025 * 128
    assert count(params['encoder']) == convs + dense + heads
    # the context sees the picture and z_F, and no sentence
    assert params['background_encoder']['joint']['kernel'].shape == (256 + 128, 256)
    # RGB and the gate
    assert params['decoder']['last']['kernel'].shape == (5, 5, 64, 4)
    assert params['background_decoder']['first']['kernel'].shape == (128, 2 * 2 * 256)


def test_the_refiner_is_stackgans_stage_two_with_a_fourth_channel():
    def counted(use_mask):
        stage = lambda: build(META._replace(size=64))  # noqa: E731
        keywords = dict(gf=128, df=64, nc=128, blocks=4, use_mask=use_mask)
        return shapes_of(lambda: refiner(256, stage, **keywords)).params

    with_mask, without = counted(True), counted(False)
    assert with_mask['G2']['read']['kernel'].shape == (3, 3, 4, 128)
    assert count(with_mask['G2']) - count(without['G2']) == 9 * 128
    assert count(with_mask['D2']) == count(without['D2'])


# ------------------------------------------------------------------------------------------ losses
def terms(stage, mask, **changes):
    x = uniform(2, 16, 16, 3)
    drawn = {
        'image': x,
        'foreground': x,
        'background': x,
        'gate': jnp.where(mask > 0, -20.0, 20.0)
        if mask is not None
        else jnp.zeros_like(x[..., :1]),
    }
    posteriors = {'z_f': (jnp.zeros((2, 3)),) * 2, 'z_b': (jnp.zeros((2, 2)),) * 2}
    return stage.terms(Reconstruction(x, mask, drawn | changes, posteriors))


def test_terms_of_the_loss(cvae):
    stage, _ = cvae
    mask = jnp.zeros((2, 16, 16, 1)).at[:, :4].set(1.0)
    right = terms(stage, mask)
    assert set(right) == {'reconstruction', 'foreground', 'background', 'gate', 'kl_f', 'kl_b'}
    assert all(np.allclose(value, 0, atol=1e-3) for value in right.values())
    x = uniform(2, 16, 16, 3)
    off = terms(stage, mask, foreground=x + 0.5, background=x + 0.5, image=x + 2.0)
    # smooth L1 of .5 is .125, of 2 it is 1.5; 64 pixels are foreground
    np.testing.assert_allclose(off['foreground'], 64 * 3 * 0.125, rtol=1e-5)
    np.testing.assert_allclose(off['background'], 0.5 * 192 * 3 * 0.125, rtol=1e-5)
    np.testing.assert_allclose(off['reconstruction'], 256 * 3 * 1.5, rtol=1e-5)
    shut = terms(stage, mask, gate=jnp.zeros_like(mask))
    np.testing.assert_allclose(shut['gate'], 0.3 * 256 * np.log(2), rtol=1e-5)


def test_a_record_without_a_mask_leaves_out_what_needs_one(cvae):
    """One with and one without in a batch; and none at all."""
    stage, _ = cvae
    mask = jnp.zeros((2, 16, 16, 1)).at[0, :4].set(1.0)
    worse = dict(foreground=jnp.ones((2, 16, 16, 3)), gate=jnp.ones((2, 16, 16, 1)))
    for given in (mask, None):
        found = terms(stage, given, **worse)
        for name in ('foreground', 'background', 'gate'):
            assert found[name][1] == 0
        assert (found['gate'][0] > 0) == (given is not None)


def test_a_picture_without_a_mask_is_encoded_as_a_whole(cvae):
    stage, batch = cvae
    y, eps = stage.encode(batch), stage.noise(KEY, 4)

    def means(mask):
        more = dict(train=False, key=KEY)
        return stage.posteriors(batch['image'], mask, y, eps, **more)[0]['z_f'][0]

    ones, some = jnp.ones((4, 16, 16, 1)), jnp.zeros((4, 16, 16, 1)).at[0, 3:9].set(1.0)
    np.testing.assert_array_equal(means(None), means(ones))
    np.testing.assert_array_equal(means(some)[1:], means(ones)[1:])
    assert np.abs(means(some)[0] - means(ones)[0]).max() > 1e-4
    assert whole_where_unknown(some, batch['image'])[1:].all()


def test_masks_can_be_done_without():
    stage = nnx.eval_shape(lambda: build(masks='none'))
    assert 'mask' not in stage.needs and 'mask' in build().needs
    with pytest.raises(ValueError, match='two layers'):
        build(layered=False)


# ---------------------------------------------------------------------------------------- composing
def test_an_open_gate_shows_the_background_and_a_shut_one_the_foreground(cvae):
    stage, batch = cvae
    y, latents = stage.encode(batch), stage.noise(KEY, 4)
    bias = stage.decoder.last.bias
    for gate, shown in ((1e4, 'background'), (-1e4, 'foreground')):
        bias[...] = bias[...].at[3].set(gate)
        drawn = stage.decode(latents, y, train=False)
        np.testing.assert_allclose(drawn['image'], drawn[shown], atol=1e-5)
    bias[...] = bias[...].at[3].set(0.0)


def test_the_gates_loss_does_not_move_the_background(cvae):
    stage, batch = cvae
    parts = core.split(stage)

    def gate_loss(params):
        args = 'forward', batch, KEY
        out, _ = core.call(parts.graph, params, parts.stats, *args)
        return core.call(parts.graph, params, parts.stats, 'terms', out)[0]['gate'].sum()

    grads = jax.grad(gate_loss)(parts.params)
    moved = {n for n, g in grads.items() if any(np.abs(x).max() > 0 for x in jax.tree.leaves(g))}
    assert moved == {'encoder', 'decoder'}


# ------------------------------------------------------------------------------------------ refiner
def test_the_refiner_draws_what_stage_cvae_draws(refine):
    stage, batch = refine
    layers = build()
    for name in CvaeRefiner.layers:
        setattr(layers, name, getattr(stage, name))
    noise, text = stage.noise(KEY, 4), stage.encode(batch)
    drawn = layers.sample({'embedding': batch['embedding']}, noise)
    small, share = stage.composed(text, noise['z_f'], noise['z_b'])
    np.testing.assert_allclose(small, drawn['image'], atol=1e-5)
    np.testing.assert_allclose(share, 1 - drawn['gate'], atol=1e-5)
    assert set(noise) == {'z_f', 'z_b', 'eps_two'}


def test_half_of_the_refiners_batch_is_of_real_pictures(refine):
    stage, batch = refine
    other = batch | {'image': -batch['image']}
    one, two = (stage.forward(x, KEY).image for x in (batch, other))
    assert np.abs(one[:2] - two[:2]).max() > 1e-3
    out = stage.forward(batch, KEY)
    _, logs = stage.g_loss(batch, KEY, out)
    off = np.abs(np.asarray(out.image[:2]) - batch['image'][:2]).mean()
    np.testing.assert_allclose(logs['off_own_picture'], off, rtol=1e-5)
    alone = nnx.eval_shape(lambda: refiner(consistency=0.0))
    assert 'mask' not in alone.needs and 'mask' in stage.needs


@pytest.mark.parametrize('size', [16, 40])
def test_sizes_that_do_not_fit(size):
    with pytest.raises(ValueError, match='stages.cvae.data.size'):
        refiner(size)


# ------------------------------------------------------------------------------------ explorations
def test_another_background_leaves_the_foreground(cvae):
    stage, batch = cvae
    sampler, texts = sampler_of(stage, META, chunk=8), ['a', 'b', 'c', 'd']
    batch = {name: np.asarray(x) for name, x in batch.items() if name != 'step'}
    pictures, labels = stage.background(sampler, {'embedding': batch['embedding']}, texts, 3, 0)
    assert pictures.shape == (4, 3, 16, 16, 3) and labels == texts
    assert not bit_equal(pictures[0, 0], pictures[0, 1])
    rebuilt, _ = stage.rebuild(sampler, batch, texts, 4, 0)
    assert rebuilt.shape == (4, 5, 16, 16, 3)
    edited, labels = stage.exchange(sampler, batch, texts, 4, 0)
    assert edited.shape == (4, 3, 16, 16, 3) and labels[0] == 'a → b' and labels[3] == 'd → a'
    np.testing.assert_allclose(edited[:, :2], rebuilt[:, :2], atol=1)
    with pytest.raises(DataError, match='leave --text out'):
        stage.rebuild(sampler, {'encoded': batch['embedding']}, texts, 4, 0)
