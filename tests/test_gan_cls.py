"""GAN-CLS against its published sizes and formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import count, filled, shapes_of

from t2i_jax import stage as core
from t2i_jax.data.text import encode_chars
from t2i_jax.encoders.char_cnn_rnn import CharCnnRnn
from t2i_jax.layers.game import PLAIN
from t2i_jax.stage import Meta
from t2i_jax.systems.gan_cls import STAGES, GanCls, Style
from t2i_jax.systems.joint_embedding import JointEmbedding

SENTENCES = [
    'a red bird with a short beak',
    'this flower has five white petals',
    'a blue bird',
    'a flower with a yellow centre',
]
COCO = dict(ngf=196, ndf=196, text_norm=False, third_activation=True)


def parts(size=64, encoder=False, embedding_dim=1024, **keywords):
    """Shapes only: (structure, parameters, running statistics)."""

    def make():
        rngs = nnx.Rngs(0)
        text = CharCnnRnn(channels=(6, 8), hidden=10, embedding=12, rngs=rngs) if encoder else None
        return GanCls(
            Meta('birds', size=size, embedding_dim=embedding_dim), text=text, rngs=rngs, **keywords
        )

    return shapes_of(make)


def tiny(**keywords):
    """(structure, parameters, running statistics) of a small stage."""
    return filled(parts(**(dict(size=16, encoder=True, ngf=4, ndf=4, nz=5, nt=6) | keywords)))


def batch():
    images = jax.random.uniform(jax.random.key(7), (2, 4, 16, 16, 3), minval=-1)
    return {
        'image': images[0],
        'wrong_image': images[1],
        'chars': np.stack([encode_chars(sentence) for sentence in SENTENCES]),
    }


@pytest.mark.parametrize(
    'keywords, g, d', [({}, 18_905_472, 4_030_080), (COCO, 41_101_080, 36_183_440)]
)
def test_published_sizes(keywords, g, d):
    params = parts(**keywords).params
    assert (count(params['G']), count(params['D'])) == (g, d)


def test_the_large_generator_has_a_second_block_after_each_of_the_first_two():
    extra = count(parts(**COCO, large=True).params['G']) - count(parts(**COCO).params['G'])
    blocks = parts(**COCO).params['G']['blocks']
    assert extra == count(blocks) and len(blocks) == 2


class Stub:
    """A discriminator that answers with the mean of the picture, and remembers the sentence vectors
    that it was shown.
    """

    extras = PLAIN.extras(1, 1, rngs=None)

    def __call__(self, image, text, *, train):
        return self.judge(self.trunk(image, train=train), text, train=train)

    def trunk(self, image, *, train):
        return image.mean((1, 2, 3))

    def judge(self, code, text, *, train):
        self.text = text
        return code


def stubbed(**keywords):
    """A stage with the stub as D, and a G that draws the first number of the sentence vector."""
    stage = nnx.merge(*tiny(encoder=False, embedding_dim=3, **keywords))
    noise, stage.D = stage.G.noise, Stub()
    stage.G = lambda text, z, train: jnp.broadcast_to(text[:, :1, None, None], (len(z), 2, 2, 3))
    stage.G.noise = noise
    return stage


def constant(value):
    return jnp.full((4, 2, 2, 3), value)


@pytest.mark.parametrize('matching_aware', [True, False])
@pytest.mark.parametrize('interpolate', [True, False])
def test_losses_where_the_logits_are_zero(matching_aware, interpolate):
    stage = stubbed(matching_aware=matching_aware, interpolate=interpolate)
    data = {'image': constant(0.0), 'wrong_image': constant(0.0), 'embedding': jnp.zeros((4, 3))}
    out = stage.forward(data, jax.random.key(0))
    loss, logs = stage.d_loss(data, None, out)
    assert (
        loss == pytest.approx(2 * np.log(2))
        and ('d_wrong' in logs) == ('wrong_image' in stage.needs) == matching_aware
    )
    assert stage.g_loss(data, None, out)[0] == pytest.approx(np.log(2))


def test_the_discriminator_weighs_wrong_pairs_against_fakes():
    data = {
        'image': constant(1.0),
        'wrong_image': constant(2.0),
        'embedding': jnp.full((4, 3), -0.5),
    }  # so the fakes are -0.5
    real, wrong, fake = np.log1p(np.exp([-1.0, 2.0, -0.5]))
    for keywords, share in (
        ({}, 0.5),
        (dict(cls_weight=0.3), 0.3),
        (dict(matching_aware=False), 0),
    ):
        stage, expected = stubbed(**keywords), real + share * wrong + (1 - share) * fake
        assert stage.d_loss(data, None, stage.forward(data, jax.random.key(0)))[0] == pytest.approx(
            expected
        )


def test_the_generator_is_trained_on_half_as_many_exact_midpoints():
    stage = stubbed(interpolate=True, interp_weight=0.25)
    h = jnp.array([[1.0, 0, 0], [2, 0, 0], [4, 8, 0], [0, 0, 2]])
    data = {'image': constant(0.0), 'wrong_image': constant(0.0), 'embedding': h}
    out = stage.forward(data, jax.random.key(0))
    assert np.array_equal(out.text, [*h, [2.5, 4, 0], [1, 0, 1]]) and len(out.image) == 6
    rows = np.log1p(np.exp(-np.array([1, 2, 4, 0, 2.5, 1])))
    assert stage.g_loss(data, None, out)[0] == pytest.approx(
        (rows[:4].sum() + 0.25 * rows[4:].sum()) / 6
    )  # divided by 1.5 B
    seen = {
        name: loss(data, None, out) and stage.D.text
        for name, loss in (('d', stage.d_loss), ('g', stage.g_loss))
    }
    assert np.array_equal(seen['d'], h) and np.array_equal(
        seen['g'], out.text
    )  # D learns from written sentences only
    with pytest.raises(ValueError):
        stage.forward({**data, 'embedding': h[:3]}, jax.random.key(0))


def test_extrapolation_stays_on_the_line_through_two_sentences():
    stage = stubbed(interpolate=True, interp_extrapolate=True)
    h = jnp.array([[0.0, 0, 0], [0, 1, 0], [1, 2, 0], [4, 1, 3]])
    data = {'image': constant(0.0), 'wrong_image': constant(0.0), 'embedding': h}
    alphas = []
    for i in range(8):
        moved = stage.forward(data, jax.random.key(i)).text[4:] - h[:2]
        alpha = moved[:, 0] / (h[2:] - h[:2])[:, 0]
        assert np.allclose(moved, alpha[:, None] * (h[2:] - h[:2]), atol=1e-6)
        alphas.extend(np.asarray(alpha))
    assert -1 <= min(alphas) < 0 < max(alphas) <= 1


def test_several_captions_of_a_row_are_averaged():
    stage = nnx.merge(*tiny())
    chars = batch()['chars']
    vectors = stage.encode({'chars': chars})
    assert np.allclose(
        stage.encode({'chars': chars.reshape(2, 2, -1)}),
        vectors.reshape(2, 2, -1).mean(1),
        atol=1e-6,
    )
    stored = stubbed().encode({'embedding': jnp.arange(12.0).reshape(2, 2, 3)})
    assert np.array_equal(stored, [[1.5, 2.5, 3.5], [7.5, 8.5, 9.5]])


def test_what_a_stage_asks_for():
    assert nnx.merge(*parts()).needs == ('image', 'wrong_image', 'embedding')
    assert nnx.merge(*tiny(matching_aware=False)).needs == ('image', 'chars')
    assert tuple(STAGES) == ('text', 'gan', 'style') and GanCls.loads == {'text': 'text.text'}
    with pytest.raises(ValueError, match='neither a text encoder nor a stored sentence vector'):
        parts(embedding_dim=0)
    with pytest.raises(ValueError, match='512 dimensions, the text encoder 1024'):
        nnx.eval_shape(lambda: JointEmbedding(Meta('birds'), features=512, rngs=nnx.Rngs(0)))


# -------------------------------------------------------------------------------- the style encoder
def styled(**keywords):
    """(graph, parameters, statistics) of a style stage beside the generator and the text encoder of
    `tiny`.
    """
    stage = nnx.merge(*tiny())
    return core.split(
        Style(
            Meta('birds', size=16, length=18),
            ndf=4,
            nt=8,
            G=stage.G,
            text=stage.text,
            rngs=nnx.Rngs(0),
            **keywords,
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize('text_input', [False, True])
def test_the_style_encoder_learns_and_nothing_else_moves(text_input):
    graph, params, stats = styled(text_input=text_input)
    prog = core.program(nnx.merge(graph, params, stats), [optax.adam(1e-2)])
    state = core.init_state(prog, params, stats, 0)
    step = jax.jit(
        lambda state: core.train_step(prog, state.replace(step=0), {'chars': batch()['chars']})
    )  # the same noise each time
    new, metrics = step(state)
    assert -1 <= metrics['correlation'] <= 1
    for _ in range(15):
        new, later = step(new)
    assert (
        later['style_loss'] < 0.5 * metrics['style_loss']
        and later['correlation'] > 0.9 > metrics['correlation']
    )
    assert all(
        (x == y).all()
        for name in ('G', 'text')
        for x, y in zip(
            jax.tree.leaves((params[name], stats.get(name))),
            jax.tree.leaves((new.params[name], new.stats.get(name))),
        )
    )
    assert ('project' in params['S']) == text_input


def test_the_loss_of_a_style_encoder_that_says_zero():
    graph, params, stats = styled()
    params['S']['z'] = jax.tree.map(jnp.zeros_like, params['S']['z'])
    stage = nnx.merge(graph, params, stats)
    loss, _ = stage.style_loss({'chars': batch()['chars']}, jax.random.key(3), None)
    z = stage.noise(jax.random.key(3), 4)['z']
    assert loss == pytest.approx(float((z**2).sum() / 4), rel=1e-5) and z.shape == (4, stage.G.nz)


def test_the_style_of_a_picture_is_the_noise_that_is_read_off_it():
    stage = nnx.merge(*styled())
    stage.training = False
    asked, noise = {'chars': batch()['chars']}, stage.noise(jax.random.key(1), 4)
    drawn = stage.drawn(stage.encode(asked), noise)
    z = stage.recover(asked, noise)['z']
    moved = stage.transfer(asked | {'image': drawn}, noise)
    assert np.allclose(moved['z'], z, atol=1e-5) and np.allclose(
        moved['image'], stage.drawn(stage.encode(asked), {'z': z}), atol=1e-5
    )
    encoded = stage.encode(asked)
    assert stage.encode({'encoded': encoded}) is encoded


def test_a_run_may_leave_the_style_encoder_out():
    from ml_collections import ConfigDict

    for style, skipped in (
        (None, True),
        (dict(steps=0, epochs=0), True),
        (dict(steps=5), False),
        (dict(steps=0, epochs=0.5), False),
    ):
        config = ConfigDict(dict(stages={} if style is None else dict(style=style)))
        assert Style.skip(config) == skipped
