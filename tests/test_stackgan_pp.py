"""StackGAN++ and the blocks of its family against their published sizes and formulas."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import reduce, repeat
from flax import nnx
from helpers import count, filled, shapes_of, start, without_logits

from experiments import stackgan_pp_birds, stackgan_pp_uncond_shapes
from t2i_jax import stage as core
from t2i_jax.data.augment import Geometry, augment
from t2i_jax.layers.conv import conv3_beside, conv3_doubled, convolve
from t2i_jax.layers.game import PLAIN
from t2i_jax.layers.glu import (
    ImageTrunk,
    InitStage,
    KeepGlu,
    LogitHead,
    ResidualGlu,
    UpGlu,
    conv3,
)
from t2i_jax.losses import colour_consistency
from t2i_jax.run import Run, describe
from t2i_jax.runtime.errors import RunError
from t2i_jax.stage import Meta
from t2i_jax.systems.stackgan_pp import STAGES, StackGanPp, TreeStyle, pyramid

LOG2 = np.log(2)
EMBEDDING = 6


def parts(size=256, embedding_dim=1024, **keywords):
    """Shapes only: (structure, parameters, running statistics)."""

    def make():
        return StackGanPp(
            Meta('birds', size=size, embedding_dim=embedding_dim),
            **keywords,
            text=None,
            rngs=nnx.Rngs(0),
        )

    return shapes_of(make)


def tiny(**keywords):
    """(structure, parameters, running statistics) of a small stage."""
    small = dict(size=16, embedding_dim=EMBEDDING, scales=2, gf=2, df=2, nz=5, nc=3, residuals=1)
    return filled(parts(**(small | keywords)), scale=0.2)


def batch(b=4, size=16):
    images = jax.random.uniform(jax.random.key(7), (2, b, size, size, 3), minval=-1)
    return {
        'image': images[0],
        'wrong_image': images[1],
        'embedding': jax.random.normal(jax.random.key(8), (b, EMBEDDING)),
    }


# -------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    'conditional, g, ds',
    [
        (True, 21_239_696, (5_723_906, 18_834_178, 71_269_122)),
        (False, 16_472_208, (2_765_569, 15_875_841, 68_310_785)),
    ],
)
def test_published_sizes(conditional, g, ds):
    params = parts(conditional=conditional).params
    assert count(params['G']) == g and tuple(count(params['D'][i]) for i in range(3)) == ds
    assert count(params['G'].get('ca', ())) == (524_800 if conditional else 0)


def test_describe_tells_each_network():
    told = describe(stackgan_pp_birds.get_config())
    without = describe(stackgan_pp_uncond_shapes.get_config('full'))
    sizes = {
        'G': ('21,239,696', '16,472,208'),
        'D': ('95,827,206', '86,952,195'),
        'D.0': ('5,723,906', '2,765,569'),
        'D.1': ('18,834,178', '15,875,841'),
        'D.2': ('71,269,122', '68,310,785'),
    }
    for network, each in sizes.items():
        for text, size in zip((told, without), each):
            assert re.search(rf'^gan.{re.escape(network)} +{size} +trained$', text, re.MULTILINE)
    assert 'stage text' in told and 'text' not in without.partition('\ndata')[0]


@pytest.mark.parametrize('scales', [1, 2, 3, 4])
@pytest.mark.parametrize('conditional', [True, False])
def test_trees_of_one_to_four_scales(scales, conditional):
    graph, params, stats = parts(64, EMBEDDING, scales=scales, conditional=conditional, gf=4, df=4)

    def draw(params, stats):
        stage = nnx.merge(graph, params, stats)
        return stage.sample(
            {'embedding': jnp.zeros((3, EMBEDDING))}, stage.noise(jax.random.key(0), 3)
        ), stage.forward(batch(3), jax.random.key(0))

    drawn, out = jax.eval_shape(draw, params, stats)
    sides = [64 >> i for i in reversed(range(scales))]
    assert drawn['image'].shape == (3, 64, 64, 3) and [x.shape for x in drawn['images']] == [
        (3, s, s, 3) for s in sides
    ] == [x.shape for x in out.images]
    assert len(params['D']) == scales
    assert [params['G']['to_images'][i]['conv']['kernel'].shape[2] for i in range(scales)] == [
        64 * 4 // s for s in sides
    ]  # channels
    first = params['G']['first']['first']['kernel']
    assert first.shape == (
        (128 if conditional else 0) + 100,
        16 * 2 * 16 * 4,
    )  # to 4 x 4 x 16 gf, gated, whatever the first side


def test_a_fourth_scale_has_one_residual_block():
    stages = parts(512, scales=4, gf=64).params['G']['next']
    assert [len(stages[i]['residuals']) for i in range(3)] == [2, 2, 1]


@pytest.mark.parametrize(
    'side, channels',
    [
        (8, [32]),
        (16, [16, 32]),
        (32, [8, 16, 32]),
        (64, [4, 8, 16, 32]),
        (128, [4, 8, 16, 32, 64, 32]),
        (256, [4, 8, 16, 32, 64, 128, 64, 32]),
    ],
)
def test_the_trunk_of_a_side(side, channels):
    graph, params, _ = core.split(nnx.eval_shape(lambda: ImageTrunk(side, 4, rngs=nnx.Rngs(0))))
    assert [params['first']['kernel'].shape[3]] + [
        params['convs'][i]['kernel'].shape[3] for i in range(len(channels) - 1)
    ] == channels
    code = jax.eval_shape(
        lambda: ImageTrunk(side, 4, rngs=nnx.Rngs(0))(jnp.zeros((2, side, side, 3)), train=True)
    )
    assert code.shape == (2, 4, 4, 32)


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(size=16, scales=3), 'scales=3 of pictures of 16 px'),
        (dict(size=48, scales=2), 'sides are 8, 16, 32'),
        (dict(scales=0), 'scales=0'),
        (dict(gf=2), '256 px 0.5 channels: make it a multiple of 4'),
        (dict(d_norm='instance'), "'batch' or 'layer'"),
        (dict(embedding_dim=0), 'neither a text encoder nor a stored sentence vector'),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        parts(**wrong)


def test_what_a_stage_asks_for():
    assert nnx.merge(*parts()).needs == ('image', 'wrong_image', 'embedding')
    assert nnx.merge(*parts(conditional=False, embedding_dim=0)).needs == ('image',)
    assert tuple(STAGES) == ('text', 'gan', 'style') and StackGanPp.loads == {'text': 'text.text'}
    config = stackgan_pp_birds.get_config()
    assert Run(config).names == ['text', 'gan'] and Run(
        stackgan_pp_uncond_shapes.get_config()
    ).names == ['gan']
    config.data.embedding = 'stored'
    assert Run(config).names == ['gan']


# ------------------------------------------------------------------------------------------- losses
class Stub:
    """A discriminator that says the mean of a picture's red to "matching" and of its green to
    "real"; it remembers what it was told beside.
    """

    extras = PLAIN.extras(1, 1, rngs=None)

    def __call__(self, image, mu=None, *, train):
        code = self.trunk(image, train=train)
        return self.match(code, mu, train=train), self.real(code, train=train)

    def trunk(self, image, *, train):
        return image.mean((1, 2))

    def match(self, code, mu, *, train):
        self.mu = mu
        return code[:, 0]

    def real(self, code, *, train):
        return code[:, 1]


def stubbed(**keywords):
    stage = nnx.merge(*tiny(**keywords))
    stage.D = nnx.data([Stub() for _ in stage.sides])
    return stage


def pictures(red, green, blue=0.0, side=16, b=4):
    return jnp.broadcast_to(jnp.array([red, green, blue]), (b, side, side, 3))


def drawn(*colours, mu=0.0, logvar=0.0):
    """What G might give: a constant picture of each side."""
    return type(
        'Out',
        (),
        dict(
            images=[pictures(*c, side=8 << i) for i, c in enumerate(colours)],
            mu=jnp.full((4, 3), mu),
            logvar=jnp.full((4, 3), logvar),
            text=None,
        ),
    )


@pytest.mark.parametrize(
    'a, each, g', [(1.0, 6 * LOG2, 2 * LOG2), (0.0, 2 * LOG2, LOG2), (0.5, 4.5 * LOG2, 1.5 * LOG2)]
)
def test_losses_where_the_logits_are_zero(a, each, g):
    stage, zero = stubbed(uncond_weight=a), {'image': pictures(0, 0), 'wrong_image': pictures(0, 0)}
    loss, logs = stage.d_loss(zero, None, drawn((0, 0), (0, 0)))
    assert without_logits(logs) == pytest.approx(
        {'d_8': each, 'd_16': each}
    ) and loss == pytest.approx(2 * each)
    loss, logs = stage.g_loss(zero, None, drawn((0, 0), (0, 0)))
    assert without_logits(logs) == pytest.approx(
        {'g_8': g, 'g_16': g, 'kl': 0}
    ) and loss == pytest.approx(2 * g)


def test_losses_without_sentences():
    stage = stubbed(conditional=False, scales=1, size=8)
    out = drawn((5, -2))
    assert stage.d_loss({'image': pictures(7, 1, side=8)}, None, out)[0] == pytest.approx(
        np.log1p(np.exp(-1)) + np.log1p(np.exp(-2))
    )
    assert stage.g_loss({}, None, out)[0] == pytest.approx(np.log1p(np.exp(2)))
    assert set(stage.g_loss({}, None, out)[1]) == {'g_8'}


def bce1(x):
    return np.log1p(np.exp(-x))


def test_a_wrong_picture_is_real_for_the_unconditional_head_and_no_match_for_the_other():
    stage = stubbed(scales=1, size=8, uncond_weight=0.5)
    data = {'image': pictures(1, 2, side=8), 'wrong_image': pictures(3, 4, side=8)}
    loss = stage.d_loss(data, None, drawn((5, 6)))[0]
    assert loss == pytest.approx(
        bce1(1) + bce1(-3) + bce1(-5) + 0.5 * (bce1(2) + bce1(4) + bce1(-6)), rel=1e-5
    )
    stage.uncond_weight = 0.0
    assert stage.d_loss(data, None, drawn((5, 6)))[0] == pytest.approx(
        bce1(1) + 0.5 * (bce1(-3) + bce1(-5)), rel=1e-5
    )


def test_the_generator_pays_for_each_scale_its_spread_and_its_colours():
    stage, out = (
        stubbed(kl_weight=3.0, colour_weight=50.0),
        drawn((1, 2, 0.5), (1, 2, -0.5), mu=0.4, logvar=0.2),
    )
    loss, logs = stage.g_loss({}, None, out)
    kl = (0.4**2 + np.exp(0.2) - 1 - 0.2) / 2  # mean over dimensions
    assert logs['kl'] == pytest.approx(kl, rel=1e-5) and logs['colour'] == pytest.approx(
        1 / 3, rel=1e-5
    )
    assert loss == pytest.approx(2 * (bce1(1) + bce1(2)) + 3 * kl + 50 / 3, rel=1e-5)


def test_discriminators_are_told_mu():
    graph, params, stats = tiny(scales=1, size=8)
    out = jax.jit(
        lambda: core.call(graph, params, stats, 'forward', batch(size=8), jax.random.key(0))[0]
    )()
    layer = params['G']['ca']['layer']
    mu, logvar = jnp.split(
        jax.nn.glu(batch()['embedding'] @ layer['kernel'] + layer['bias']), 2, -1
    )
    np.testing.assert_allclose(out.mu, mu, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.logvar, logvar, rtol=1e-4, atol=1e-5)
    stage = stubbed(scales=1, size=8)
    stage.d_loss(batch(size=8), None, out)
    assert (
        stage.D[0].mu == jnp.repeat(out.mu, 3, 0)
    ).all()  # of the real, the wrong and the drawn picture


@pytest.mark.parametrize('through_mu', [True, False])
def test_the_generators_gradient_reaches_the_augmentation_through_mu(
    through_mu,
):
    graph, params, stats = tiny(scales=1, size=8, kl_weight=0.0, through_mu=through_mu)

    def loss(ca):
        all_params = {**params, 'G': {**params['G'], 'ca': ca}}
        out, _ = core.call(graph, all_params, stats, 'forward', batch(size=8), jax.random.key(0))
        out = out._replace(images=jax.lax.stop_gradient(out.images))  # so mu is the only way
        return core.call(graph, all_params, stats, 'g_loss', batch(size=8), None, out)[0][0]

    gradient = jax.jit(jax.grad(loss))(params['G']['ca'])
    assert (max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 1e-6) == through_mu


def test_the_unconditional_head_ignores_the_text():
    stage = nnx.merge(*tiny())
    images, told = batch()['image'], jax.random.normal(jax.random.key(3), (2, 4, 3))
    (matching, real), (other, same) = (stage.D[1](images, mu, train=False) for mu in told)
    np.testing.assert_array_equal(real, same)
    assert jnp.abs(matching - other).min() > 1e-4
    assert (real != stage.D[1](-images, told[0], train=False)[1]).all()


def test_colours_of_a_picture_and_its_copies_agree():
    image = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1)
    doubled = repeat(image, 'b h w c -> b (h 2) (w 2) c')
    assert colour_consistency(image, image) == 0 and colour_consistency(
        doubled, image
    ) == pytest.approx(0, abs=1e-12)
    assert colour_consistency(image[:, ::-1, ::-1], image) == pytest.approx(
        0, abs=1e-12
    )  # places do not count
    assert colour_consistency(image, image[::-1]) > 1e-5  # pictures of a batch do


def test_colours_by_hand():
    assert colour_consistency(
        pictures(0.5, -0.5, 1, 16), pictures(0.2, 0.1, 1, 8)
    ) == pytest.approx((0.09 + 0.36) / 3, rel=1e-5)
    chessboard = jnp.where(jnp.indices((4, 4)).sum(0) % 2, 1.0, -1.0)  # variance 1, mean 0
    image = chessboard[None, :, :, None] * jnp.array(
        [1.0, 2.0, 0.0]
    )  # covariance (1 2 0, 2 4 0, 0 0 0)
    grey = jnp.zeros((1, 2, 2, 3))
    assert colour_consistency(image, grey) == pytest.approx(5 * (1 + 4 + 4 + 16) / 9, rel=1e-5)


def test_colours_pull_at_the_finer_picture_alone():
    fine, coarse = (
        jax.random.uniform(jax.random.key(i), (2, s, s, 3)) for i, s in ((0, 8), (1, 4))
    )
    to_fine, to_coarse = jax.grad(colour_consistency, (0, 1))(fine, coarse)
    assert (to_coarse == 0).all() and (jnp.abs(to_fine).max((1, 2, 3)) > 0).all()


# -------------------------------------------------------------------------------------------- steps
@pytest.mark.parametrize('scales', [(), (8, 16)])
def test_all_scales_of_a_real_picture_are_the_same_picture(scales):
    draws = np.random.default_rng(0)
    raw = {
        name: draws.integers(0, 256, (5, 40, 40, 3)).astype(np.uint8)
        for name in ('image', 'wrong_image')
    } | {'index': np.arange(5)}
    data = augment(raw, jax.random.key(0), Geometry(32, 40, 0, flip=True, scales=scales), True)
    assert ('wrong_images' in data) == bool(scales)
    stage = nnx.merge(*tiny(size=32, scales=3))
    for prefix in ('', 'wrong_'):
        small, middle, large = pyramid(data, stage.sides, prefix)
        assert (large == data[prefix + 'image']).all()
        for image, side in ((small, 8), (middle, 16)):
            np.testing.assert_allclose(
                image,
                reduce(large, 'b (h i) (w j) c -> b h w c', 'mean', h=side, w=side),
                atol=1e-6,
            )


def test_smaller_pictures_of_the_batch_are_used():
    stage, data = nnx.merge(*tiny(size=32, scales=3)), batch(size=32)
    small, middle, _ = pyramid({**data, 'images': [jnp.full((4, 8, 8, 3), 0.25)]}, stage.sides)
    assert (small == 0.25).all() and not (middle == 0.25).any()


def train(data, **keywords):
    """-> (step function, the state before it)"""
    prog, state = start(tiny(**keywords))
    return lambda state: core.train_step(prog, state, data), state


@pytest.mark.parametrize(
    'keywords',
    [dict(conditional=False, colour_weight=50.0), dict(d_norm='layer', uncond_weight=0.0)],
)
def test_other_steps_have_the_same_parts(keywords):
    data = batch() if keywords.get('conditional', True) else {'image': batch()['image']}
    step, state = train(data, **keywords)
    new, metrics = jax.eval_shape(step, state)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert ('colour' in metrics) == ('colour_weight' in keywords) and ('kl' in metrics) == (
        'wrong_image' in data
    )
    assert bool(jax.tree.leaves(state.stats.get('D'))) == (keywords.get('d_norm') != 'layer')


@pytest.mark.slow
def test_samples_depend_on_noise_and_sentence():
    graph, params, stats = tiny()
    stage = nnx.merge(graph, params, stats)
    few, many = (stage.noise(jax.random.key(1), n) for n in (4, 9))
    assert (
        all((few[name] == many[name][:4]).all() for name in ('z', 'eps'))
        and (few['z'][:, :3] != few['eps']).all()
    )

    @jax.jit
    def draw(noise, embedding):
        return core.call(
            graph, params, stats, 'sample', {'embedding': embedding}, noise, training=False
        )[0]

    text = batch()['embedding']
    one = draw(few, text)
    assert (one['image'] == one['images'][1]).all() and jnp.abs(one['image']).max() <= 1
    for changed in (
        draw({**few, 'z': -few['z']}, text),
        draw({**few, 'eps': -few['eps']}, text),
        draw(few, -text),
    ):
        assert all((a != b).any((1, 2, 3)).all() for a, b in zip(one['images'], changed['images']))


# ------------------------------------------------------------------------------------------- blocks
def both(f, g, *args):
    """Values and gradients of two functions that should be the same."""

    def all_of(f):
        value, pull_back = jax.vjp(f, *args)
        return value, *pull_back(
            jnp.cos(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape)
        )

    for found, expected in zip(*jax.jit(lambda: (all_of(f), all_of(g)))()):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def normals(*shapes):
    return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


def test_doubling_by_four_convolutions_is_doubling_and_one():
    both(
        conv3_doubled,
        lambda x, k: convolve(repeat(x, 'b h w c -> b (h 2) (w 2) c'), k, 'SAME'),
        *normals((2, 5, 4, 3), (3, 3, 3, 7)),
    )


@pytest.mark.parametrize('side', [3, 4, 7])
def test_a_convolution_beside_a_vector_is_one_beside_its_tiles(side):
    def tiled(vector, x, k):
        return convolve(
            jnp.concatenate([repeat(vector, 'b n -> b h w n', h=side, w=side), x], -1), k, 'SAME'
        )

    both(conv3_beside, tiled, *normals((2, 5), (2, side, side, 3), (3, 3, 8, 4)))


def test_a_residual_block_adds_to_its_input_and_nothing_comes_after_the_sum():
    block = ResidualGlu(4, rngs=nnx.Rngs(0))
    block.norm.scale[...] = jnp.zeros(4)
    x = normals((2, 4, 4, 4))[0]
    np.testing.assert_array_equal(block(x, train=True), x)


def test_a_vector_may_scale_and_shift_the_maps_of_the_first_stage():
    plain, modulated = (
        InitStage(6, 4, 16, modulated=one, rngs=nnx.Rngs(0)) for one in (False, True)
    )
    for one, other in zip(modulated.ups, plain.ups):
        other.conv.kernel[...], other.norm.scale[...] = (
            one.conv.kernel[...],
            one.norm.norm.scale[...],
        )
        kernel = one.norm.modulate.kernel
        kernel[...] = jnp.zeros_like(kernel[...])
    modulated.first, modulated.norm = plain.first, plain.norm
    x = jax.random.normal(jax.random.key(0), (5, 6))
    np.testing.assert_allclose(modulated(x, train=True), plain(x, train=True), rtol=1e-5)
    # the last gates are opened for the first row alone
    kernel = modulated.ups[-1].norm.modulate.kernel
    kernel[...] = kernel[...].at[0, -4:].set(10.0)
    changed = modulated(jnp.zeros((5, 6)).at[0, 0].set(1.0), train=True)
    without = plain(jnp.zeros((5, 6)).at[0, 0].set(1.0), train=True)
    assert not np.allclose(changed[0], without[0])
    np.testing.assert_allclose(changed[1:], without[1:], rtol=1e-4, atol=1e-6)


def test_gates_are_the_second_half_of_the_channels():
    keep = KeepGlu(2, 3, rngs=nnx.Rngs(0))
    x = normals((2, 4, 4, 2))[0]
    keep.norm.scale[...] = jnp.array([1.0, 1, 1, 0, 0, 0])  # the gates: sigmoid(0)
    normed = keep.norm(keep.conv(x), train=True)
    np.testing.assert_allclose(keep(x, train=True), normed[..., :3] / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    'make',
    [
        lambda rngs: conv3(4, 6, rngs=rngs),
        lambda rngs: conv3(1, 12, rngs=rngs),
        lambda rngs: UpGlu(4, 3, rngs=rngs).conv,
        lambda rngs: InitStage(9, 2, 8, rngs=rngs).first,
        lambda rngs: LogitHead(4, rngs=rngs).logit,
    ],
)
def test_weights_start_orthogonal(make):
    layer = make(nnx.Rngs(0))
    matrix = layer.kernel[...].reshape(-1, layer.kernel.shape[-1])
    matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-5)
    assert layer.bias is None or (layer.bias[...] == 0).all()


def test_blocks_compute_in_the_type_that_they_are_told():
    graph, params, stats = tiny()

    def compute():
        stage = nnx.merge(graph, params, stats)
        core.compute_in(stage, 'bfloat16')
        out = stage.forward(batch(), jax.random.key(0))
        return out, stage.D[1](out.images[1], out.mu, train=True)

    out, logits = jax.eval_shape(compute)
    assert {x.dtype for x in (*out.images, *logits)} == {jnp.dtype('bfloat16')} and {
        out.mu.dtype,
        out.logvar.dtype,
    } == {jnp.dtype('float32')}


def test_style_of_the_largest_picture():
    stage = nnx.merge(*tiny())
    meta = Meta('birds', size=16, embedding_dim=EMBEDDING)
    style = TreeStyle(meta, ndf=4, nt=8, G=stage.G, text=None, rngs=nnx.Rngs(1))
    asked, noise = {'embedding': batch()['embedding']}, style.noise(jax.random.key(1), 4)
    assert set(noise) == {'z', 'eps'} and style.needs == ('embedding',)
    np.testing.assert_allclose(
        style.drawn(style.encode(asked), noise), stage.sample(asked, noise)['image'], atol=1e-5
    )
    assert style.recover(asked, noise)['z'].shape == noise['z'].shape
    with pytest.raises(ValueError, match='draws 16 px, the style encoder would read 64 px'):
        TreeStyle(meta._replace(size=64), G=stage.G, text=None, rngs=nnx.Rngs(1))


def test_a_style_encoder_needs_sentences():
    config = stackgan_pp_uncond_shapes.get_config()
    assert Run(config).names == ['gan']
    config.stages.style.steps = 10
    with pytest.raises(RunError, match='this run has no sentences'):
        Run(config)
