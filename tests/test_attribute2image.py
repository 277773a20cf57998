"""Attribute2Image against its published sizes.

Its loss term by term; the composition; inference by optimisation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import bit_equal, count, filled, shapes_of

from t2i_jax import stage as core
from t2i_jax.stage import Meta
from t2i_jax.systems.attribute2image import COMPOSE, Attribute2Image, box_mean, cut_out, rotate

META = Meta('shapes', attributes=22, size=16)


def parts(meta=META, **keywords):
    """Shapes only: (structure, parameters, running statistics)."""
    return shapes_of(lambda: Attribute2Image(meta, **keywords, rngs=nnx.Rngs(0)))


def tiny(**keywords):
    """(structure, parameters, running statistics) of a small stage."""
    return filled(parts(**(dict(width=4, nz=4, nz_b=4) | keywords)))


def batch(b=6, size=16):
    key = jax.random.key(7)
    mask = np.zeros((b, size, size, 1), np.float32)
    mask[:, 4:12, 5:11] = 1
    return {
        'image': jax.random.uniform(key, (b, size, size, 3), minval=-1),
        'mask': jnp.asarray(mask),
        'step': jnp.int32(5),
        'attributes': jnp.round(jax.random.uniform(key, (b, 22))),
    }


def call(stage, method, *args, training=False):
    return jax.jit(
        lambda params, stats, args: core.call(
            stage[0], params, stats, method, *args, training=training
        )[0]
    )(*stage[1:], args)


def test_published_sizes():
    """Each layer of the Torch code's LFW models.

    Weights, biases, and scale and bias of batch norm.
    """
    encoder = (
        5 * 5 * 3 * 64 + 64,
        5 * 5 * 64 * 128 + 128 + 256,
        3 * 3 * 128 * 256 + 256 + 512,
        3 * 3 * 256 * 256 + 256 + 512,
        4 * 4 * 256 * 1024 + 1024,
        1024 * 1024 + 1024,
        73 * 256 + 256,
        (1024 + 256) * 256 + 256,
        1024 * 256 + 256,
    )
    decoder = (
        73 * 512 + 512,
        (256 + 512) * 256 + 256,
        256 * 16384 + 16384,
        3 * 3 * 256 * 256 + 256 + 512,
        5 * 5 * 256 * 256 + 256 + 512,
        5 * 5 * 256 * 128 + 128 + 256,
        5 * 5 * 128 * 64 + 64 + 128,
        2 * (5 * 5 * 64 * 3 + 3),
    )
    params = parts(
        Meta('lfw', attributes=73, size=64), layered=False, likelihood='gaussian', nz=256
    ).params
    assert (count(params['encoder']), count(params['decoder'])) == (sum(encoder), sum(decoder))

    background = (
        (256, 128, 3),
        (128, 128, 3),
        (128, 64, 3),
        (64, 64, 3),
        (64, 64, 3),
        (64, 64, 3),
        (64, 32, 5),
    )
    params = parts(Meta('lfw', attributes=73, size=64)).params
    convs = sum(k * k * c * d + d + 2 * d for c, d, k in background) + 5 * 5 * 32 * 3 + 3
    assert count(params['background_decoder']) == 64 * 1024 + 1024 + convs
    last = params['decoder']['last'][
        'kernel'
    ].shape  # three channels of the foreground, one of the gate
    assert last == (5, 5, 64, 4) and params['decoder']['mix']['kernel'].shape == (3 * 192, 192)


@pytest.mark.parametrize('size', [16, 32, 64, 128])
@pytest.mark.parametrize('layered', [True, False])
def test_shapes(layered, size):
    graph, params, stats = parts(
        Meta('shapes', attributes=22, size=size), layered=layered, width=8, nz=6, nz_b=5
    )
    b = jax.eval_shape(lambda: batch(3, size) | {'mask': jnp.ones((3, size, size, 1))})

    def run(params, stats, batch):
        stage = nnx.merge(graph, params, stats)
        return stage.sample(batch, stage.noise(jax.random.key(0), 3))

    out = jax.eval_shape(run, params, stats, b)
    shapes = {name: x.shape for name, x in out.items()}
    assert shapes.pop('image') == (3, size, size, 3)
    assert shapes == (
        {
            'foreground': (3, size, size, 3),
            'background': (3, size, size, 3),
            'gate': (3, size, size, 1),
        }
        if layered
        else {}
    )


def test_posteriors_start_at_deviation_one():
    stage = tiny()
    stage[1]['encoder']['logvar'] = jax.tree.map(jnp.zeros_like, stage[1]['encoder']['logvar'])
    kernel = nnx.state(
        Attribute2Image(META, width=4, nz=4, nz_b=4, rngs=nnx.Rngs(0)).encoder.logvar, nnx.Param
    )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(kernel))  # as it is initialised
    out = call(stage, 'forward', batch(), jax.random.key(0))
    assert not np.any(out.posteriors['z_f'][1]) and np.any(out.posteriors['z_f'][0])


@pytest.mark.parametrize(
    'keywords',
    [
        dict(),
        dict(likelihood='gaussian'),
        dict(layered=False),
        dict(layered=False, likelihood='gaussian'),
    ],
)
def test_loss_is_the_formula(keywords):
    stage, b = tiny(**keywords), batch()
    out = jax.tree.map(np.asarray, call(stage, 'forward', b, jax.random.key(0)))
    loss, logs = call(stage, 'loss', b, jax.random.key(0), out)

    def nll(x, name):
        e = out.drawn[name] - x
        if keywords.get('likelihood') == 'gaussian':
            s = out.drawn['logvar']
            return 0.5 * (s + np.log(2 * np.pi) + e**2 * np.exp(-s)).sum()
        return np.where(abs(e) < 1, e**2 / 2, abs(e) - 0.5).sum()

    image, mask = np.asarray(b['image']), np.asarray(b['mask'])
    want = {'reconstruction': nll(image, 'image')}
    if keywords.get('layered', True):
        want['foreground'] = nll(image * mask - (1 - mask), 'foreground')
        g = 1 / (1 + np.exp(-out.drawn['gate'].astype(np.float64)))
        want['gate'] = -0.3 * ((1 - mask) * np.log(g) + mask * np.log(1 - g)).sum()
    for name, (mean, logvar) in out.posteriors.items():
        want['kl' + name[1:]] = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum()
    assert set(logs) == set(want)
    for name, value in want.items():
        np.testing.assert_allclose(logs[name], value / len(image), rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(loss, sum(want.values()) / len(image), rtol=1e-4)


def test_kl_is_warmed_up_in_training_only():
    stage, b, key = (
        tiny(warmup=10, gain=0.0, sharpness=0.0, dropout=0.0),
        batch(),
        jax.random.key(0),
    )
    out = call(stage, 'forward', b, key)
    (half, logs), (full, _) = (
        call(stage, 'loss', b, key, out, training=training) for training in (True, False)
    )
    np.testing.assert_allclose(
        full - half, (logs['kl_f'] + logs['kl_b']) / 2, rtol=1e-2
    )  # step 5 of 10


def test_white_behind_the_object_needs_light():
    """With black where the mask is 0, x_F + g x_B cannot be brighter than grey; even where x_F
    gives way, both errors together are least at .5, below the .6 that a white background is
    held to."""
    black = np.float32(-1)
    assert (
        COMPOSE['light'](black, 1, 1) == 1
        and COMPOSE['convex'](black, 1, 1) == 1
        and COMPOSE['legacy'](black, 1, 1) == 0
    )
    assert COMPOSE['light'](0.3, 0, 0.8) == pytest.approx(0.3)
    front = np.linspace(-1, 1, 2001)
    drawn = COMPOSE['legacy'](front, 1, 1)
    best = np.argmin((front + 1) ** 2 / 2 + (drawn - 1) ** 2 / 2)
    assert drawn[best] == pytest.approx(0.5, abs=1e-3)


def test_layers_have_their_own_causes():
    stage, b = tiny(), batch(2)
    noise = {'z_f': jnp.ones((2, 4)), 'z_b': jnp.array([[1.0] * 4, [-1.0] * 4])}
    y = jnp.tile(b['attributes'][:1], (2, 1))
    drawn = call(stage, 'sample', {'attributes': y}, noise)
    assert bit_equal(drawn['foreground'][0], drawn['foreground'][1]) and bit_equal(
        drawn['gate'][0], drawn['gate'][1]
    )
    assert np.any(drawn['background'][0] != drawn['background'][1])
    other = call(stage, 'sample', {'attributes': jnp.stack([y[0], 1 - y[1]])}, noise)
    assert bit_equal(other['background'], drawn['background']) and np.any(
        other['foreground'][1] != drawn['foreground'][1]
    )
    assert np.all((drawn['gate'] > 0) & (drawn['gate'] < 1))
    image = (drawn['foreground'] + 1) + drawn['gate'] * (drawn['background'] + 1) - 1
    np.testing.assert_allclose(drawn['image'], image, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('layered', [True, False])
def test_a_step_moves_every_network(layered):
    graph, params, stats = tiny(layered=layered, standardise=True, warmup=4, rotation=0.08)
    module = nnx.merge(graph, params, stats)
    prog = core.program(module, (optax.adam(1e-3),))
    state = core.init_state(prog, params, stats, 0)
    new, logs = jax.jit(lambda state, batch: core.train_step(prog, state, batch))(
        state, batch() | {'step': jnp.int32(4)}
    )
    assert int(new.bad_step) < 0 and np.isfinite(list(logs.values())).all()
    for name in prog.phases[0].trains:
        if name in params:
            assert not bit_equal(new.params[name], params[name]), name
    assert not bit_equal(new.stats['standard'], stats['standard'])


@pytest.mark.slow
def test_attributes_are_standardised_by_statistics_of_training():
    stage = tiny(standardise=True, layered=False)
    y = jax.random.bernoulli(jax.random.key(1), 0.1, (64, 22)).astype(jnp.float32)

    @jax.jit
    def step(stats):
        return core.call(
            stage[0],
            stage[1],
            stats,
            'forward',
            batch(64) | {'attributes': y},
            jax.random.key(0),
            training=True,
        )[1]

    stats = stage[2]
    for _ in range(1000):
        stats = {**stats, **core.pick(step(stats), ('standard',))}
    out = np.asarray(core.call(stage[0], stage[1], stats, 'condition', y)[0])
    np.testing.assert_allclose(out.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(out.std(0), np.sqrt(y.var(0) / (y.var(0) + 0.01)), atol=0.05)


@pytest.mark.slow
def test_inference_goes_down_and_ignores_what_is_covered():
    stage, b = tiny(layered=False), batch(3)
    drawn = call(stage, 'sample', b, {'z': 2 * jax.random.normal(jax.random.key(3), (3, 4))})[
        'image'
    ]
    target = {'image': drawn, 'attributes': b['attributes']}
    left = np.ones((3, 16, 16, 1), np.float32)
    left[:, :, 8:] = 0

    def infer(image, observed, known=None):
        def run(params, stats):
            module = nnx.merge(stage[0], params, stats)
            return module.infer(
                target | {'image': image}, jax.random.key(0), observed, known, steps=60, restarts=2
            )

        return jax.jit(run)(*stage[1:])

    found = infer(drawn, left)
    assert (
        found['energy'].shape == (61, 3) and (found['energy'][-1] < 0.5 * found['energy'][0]).all()
    )
    assert found['noise']['z'].shape == (3, 4) and np.array_equal(
        found['attributes'], b['attributes']
    )
    spoilt = infer(jnp.where(left > 0, drawn, 1.0), left)
    np.testing.assert_allclose(spoilt['noise']['z'], found['noise']['z'], atol=1e-5)
    known = np.arange(22)[None].repeat(3, 0) < 6
    free = infer(drawn, left, known)
    assert ((free['attributes'] >= 0) & (free['attributes'] <= 1)).all()
    assert np.array_equal(free['attributes'][known], target['attributes'][known]) and np.any(
        free['attributes'] != target['attributes']
    )
    again = call(stage, 'sample', {'attributes': free['attributes']}, free['noise'])
    np.testing.assert_allclose(again['image'], free['image'], atol=1e-5)


def test_what_is_measured():
    stage, b = tiny(), batch(4)
    white = b['image'].at[0].set(jnp.where(b['mask'][0] > 0, 0.0, 1.0))
    found = call(stage, 'measure', b | {'image': white}, jax.random.key(0))
    assert all(value.shape == (4,) for value in found.values())
    assert {
        'loss_per_picture',
        'psnr',
        'gate_iou',
        'kl_f',
        'kl_b',
        'foreground_error',
        'foreground_moves',
        'background_moves',
        'background_keeps',
        'bright_background',
    } == set(found)
    assert (
        np.isfinite(found['bright_background'][0])
        and np.isnan(found['bright_background'][1:]).all()
    )
    assert (
        (found['gate_iou'] >= 0).all()
        and (found['gate_iou'] <= 1).all()
        and np.isfinite(found['psnr']).all()
    )
    flat = call(tiny(layered=False), 'measure', b, jax.random.key(0))
    assert {'loss_per_picture', 'psnr', 'kl', 'foreground_error'} == set(flat)


def test_changes_of_training():
    stage, b = tiny(), batch()
    image, mask = call(stage, 'changed', b['image'], b['mask'], jax.random.key(0))
    assert np.any(image != b['image']) and (abs(image) <= 1).all() and bit_equal(mask, b['mask'])
    np.testing.assert_allclose(box_mean(jnp.full((1, 8, 8, 3), 0.3), 5), 0.3, atol=1e-6)
    np.testing.assert_allclose(rotate(b['image'][0], 0.0), b['image'][0], atol=1e-5)
    np.testing.assert_allclose(
        rotate(b['image'][0], np.pi / 2), jnp.rot90(b['image'][0], -1), atol=1e-4
    )
    np.testing.assert_array_equal(cut_out(b['image'], b['mask'])[:, 0], -1)


@pytest.mark.parametrize(
    'keywords, meta, said',
    [
        (dict(likelihood='laplace'), META, "'smooth_l1' or 'gaussian'"),
        (dict(compose='over'), META, "'light', 'convex' or 'legacy'"),
        (dict(), META._replace(attributes=0), 'has no attributes'),
        (dict(), META._replace(size=24), 'use 16, 32'),
    ],
)
def test_bad_settings(keywords, meta, said):
    with pytest.raises(ValueError, match=said):
        parts(meta, **keywords)
