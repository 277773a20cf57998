"""DCGAN against its published sizes, and one step of each variant and loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import count, filled, moved, shapes_of, start

from t2i_jax import stage as core
from t2i_jax.stage import Meta
from t2i_jax.systems.dcgan import LOSSES, STAGES, Dcgan


def parts(size=64, **keywords):
    """Shapes only: (structure, parameters, running statistics)."""
    return shapes_of(lambda: Dcgan(Meta('faces', size=size), **keywords, rngs=nnx.Rngs(0)))


def tiny(size=16, **keywords):
    """(structure, parameters, running statistics) of a small stage."""
    return filled(parts(size, **(dict(ngf=4, ndf=4, nz=8) | keywords)))


def batch(b=4, size=16):
    return {'image': jax.random.uniform(jax.random.key(7), (b, size, size, 3), minval=-1)}


@pytest.mark.parametrize(
    'variant, g, d', [('torch', 3_576_704, 2_765_568), ('radford', 18_885_760, 17_232_768)]
)
def test_published_sizes(variant, g, d):
    params = parts(variant=variant).params
    assert (count(params['G']), count(params['D'])) == (g, d)


@pytest.mark.parametrize('variant', ['torch', 'radford', 'mlp'])
@pytest.mark.parametrize('size', [32, 64, 128])
def test_shapes_of_other_sizes(variant, size):
    graph, params, stats = parts(size, variant=variant, ngf=8, ndf=8)

    def run(params, stats):
        stage = nnx.merge(graph, params, stats)
        image = stage.sample({}, stage.noise(jax.random.key(0), 3))['image']
        return image, stage.D(image, train=True)

    image, logits = jax.eval_shape(run, params, stats)
    assert image.shape == (3, size, size, 3) and logits.shape == (3,)
    if variant != 'mlp':
        assert (
            params['G']['ups'][0]['kernel'].shape[2] == 8 * size // 8
        )  # the 4 x 4 map widens as the picture grows
        assert (
            params['D']['downs'][len(params['D']['downs']) - 1]['kernel'].shape[3] == 8 * size // 8
        )


def test_the_first_norm_is_over_channels_or_over_units():
    first = {
        variant: parts(variant=variant, ngf=8, ndf=8).stats['G']['norms'][0]['mean'].shape
        for variant in ('torch', 'radford')
    }
    assert first == {'torch': (64,), 'radford': (16 * 64,)}


@pytest.mark.parametrize(
    'loss, d, g',
    [
        ('nonsaturating', 2 * np.log(2), np.log(2)),
        ('minimax', 2 * np.log(2), -np.log(2)),
        ('hinge', 2, 0),
        ('wgan-gp', 10, 0),
    ],
)
def test_losses_where_the_logits_are_zero(loss, d, g):
    stage = nnx.merge(*tiny(loss=loss))
    stage.D = lambda images, train: jnp.zeros(len(images))
    key, out = jax.random.key(1), jnp.zeros((4, 16, 16, 3))
    assert stage.d_loss(batch(), key, out)[0] == pytest.approx(d, rel=1e-5) and stage.g_loss(
        batch(), key, out
    )[0] == pytest.approx(g)


def train(**keywords):
    """-> (step function, the state before it)"""
    prog, state = start(tiny(**keywords))
    return lambda state: core.train_step(prog, state, batch()), state


@pytest.mark.slow
def test_generator_and_discriminator_of_radford_take_turns():
    step, state = train(variant='radford')
    step = jax.jit(step)
    first, metrics = step(state)
    second, more = step(first)
    assert (
        second.bad_step == -1
        and moved(state.params, first.params) == {'G'}
        and moved(first.params, second.params) == {'D'}
    )
    assert moved(state.stats, second.stats) == {'G', 'D'}
    assert np.isnan(metrics['d_loss']) and np.isnan(more['g_loss'])
    assert np.isfinite([metrics['g_loss'], more['d_loss'], more['d_right']]).all()


@pytest.mark.parametrize('variant', ['torch', 'radford', 'mlp'])
@pytest.mark.parametrize('loss', LOSSES)
def test_every_variant_has_every_loss(variant, loss):
    step, state = train(variant=variant, loss=loss)
    new, metrics = jax.eval_shape(step, state)
    assert jax.tree.structure(new) == jax.tree.structure(state) and ('penalty' in metrics) == (
        loss == 'wgan-gp'
    )
    assert bool(state.stats.get('D')) == (
        loss != 'wgan-gp' and variant != 'mlp'
    )  # a penalty of each picture alone allows no batch norm


def test_noise_of_a_row_does_not_depend_on_their_number():
    for kind, low in (('normal', -np.inf), ('uniform', -1)):
        stage, key = nnx.merge(*tiny(z=kind)), jax.random.key(3)
        few, many = stage.noise(key, 2)['z'], stage.noise(key, 500)['z']
        assert (few == many[:2]).all() and many.shape == (500, 8)
        assert (
            many.min() >= low and (many.max() > 1) == (kind == 'normal') and abs(many.mean()) < 0.05
        )


def test_samples_depend_on_each_other_only_with_batch_statistics():
    z = jax.random.normal(jax.random.key(0), (4, 8))
    for kind, alone in (('running', True), ('batch', False)):
        graph, params, stats = tiny(sample_bn=kind)
        four, two = (
            core.call(graph, params, stats, 'sample', {}, {'z': z[:n]})[0]['image'] for n in (4, 2)
        )
        assert np.allclose(four[:2], two, atol=1e-5) == alone and jnp.abs(four).max() <= 1


def test_who_learns_when():
    def phases(**keywords):
        return [(p.loss, p.every, p.at) for p in nnx.merge(*parts(**keywords)).phases]

    assert phases() == [('d_loss', 1, 0), ('g_loss', 1, 0)]
    assert (
        phases(variant='radford') == phases(alternate=True) == [('g_loss', 2, 0), ('d_loss', 2, 1)]
    )
    assert phases(variant='radford', alternate=False) == phases()
    assert (
        phases(d_steps=5)
        == phases(variant='radford', d_steps=5)
        == [('d_loss', 1, 0), ('g_loss', 5, 4)]
    )
    assert phases(g_steps=2) == [('d_loss', 2, 0), ('g_loss', 1, 0)]
    assert list(STAGES.items()) == [('gan', Dcgan)]


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(variant='tf'), "variant is 'tf'; it is 'torch', 'radford' or 'mlp'"),
        (dict(loss='lsgan'), "'hinge' or 'wgan-gp'"),
        (dict(z='truncated'), "'normal' or 'uniform'"),
        (dict(alternate=True, d_steps=2), 'set one of the three'),
        (dict(size=48), '48'),
    ],
)
def test_wrong_keywords_name_what_there_is(wrong, message):
    with pytest.raises(ValueError, match=message):
        parts(**wrong)
