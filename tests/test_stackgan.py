"""StackGAN against its published sizes and formulas; Stage-I inside Stage-II."""

import importlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import bit_equal, brief, count, filled, moved, restored, start

from t2i_jax import config as settings
from t2i_jax import optim
from t2i_jax import stage as core
from t2i_jax.data.text import encode_chars
from t2i_jax.encoders.char_cnn_rnn import CharCnnRnn
from t2i_jax.evaluate import evaluate
from t2i_jax.explore import explore
from t2i_jax.layers.game import PLAIN
from t2i_jax.layers.norm import LayerNorm
from t2i_jax.layers.relu import UpConv
from t2i_jax.run import Run, describe
from t2i_jax.runtime.errors import RunError
from t2i_jax.sample import Sampler, to_files
from t2i_jax.stage import Meta
from t2i_jax.systems import stackgan
from t2i_jax.systems.stackgan import (
    STAGES,
    AugmentedFakes,
    StackDiscriminator,
    StageOne,
    StageTwo,
    truncate,
)
from t2i_jax.train import train

SENTENCES = [
    'a red bird with a short beak',
    'this flower has five white petals',
    'a blue bird',
    'a flower with a yellow centre',
]
COCO = dict(variant='pytorch', gf=192, df=96)
NARROW = dict(gf=4, df=4, nc=6)
KEY = jax.random.key(0)


def pair(small=64, size=256, encoder=False, embedding_dim=1024, one=(), two=()):
    """Shapes only: Stage-I and Stage-II, each as (structure, parameters, running statistics)."""

    def make():
        rngs = nnx.Rngs(0)
        text = CharCnnRnn(channels=(6, 8), hidden=10, embedding=12, rngs=rngs) if encoder else None
        first = StageOne(
            Meta('birds', size=small, embedding_dim=embedding_dim),
            text=text,
            rngs=rngs,
            **dict(one),
        )
        return first, StageTwo(
            Meta('birds', size=size, embedding_dim=embedding_dim),
            text=text,
            G1=first.G1,
            rngs=rngs,
            **dict(two),
        )

    return tuple(core.split(stage) for stage in nnx.eval_shape(make))


def tiny(one=(), two=(), **keywords):
    """A pair of small stages; Stage-II holds Stage-I's weights."""
    draws = np.random.default_rng(0)
    two = {'ratio': 2, 'blocks': 1, **NARROW, **dict(two)}
    one = {'nz': 5, **NARROW, **dict(one)}
    shapes = pair(16, 32, **{'encoder': True, **keywords}, one=one, two=two)
    first, second = (filled(part, draws=draws) for part in shapes)
    for mine, others in zip(second[1:], first[1:]):
        mine |= {name: others[name] for name in ('text', 'G1') if name in mine}
    return first, second


def batch(size, **others):
    images = jax.random.uniform(jax.random.key(7), (2, 4, size, size, 3), minval=-1)
    return {
        'image': images[0],
        'wrong_image': images[1],
        'chars': np.stack([encode_chars(sentence) for sentence in SENTENCES]),
        **others,
    }


# ----------------------------------------------------------------------------------------- networks
@pytest.mark.parametrize(
    'keywords, blocks, sizes',
    [
        ({}, 4, (14_264_192, 4_029_824, 26_290_080, 48_603_520)),
        (COCO, 2, (20_020_832, 12_407_425, 37_130_480, 159_889_538)),
        (dict(variant='pytorch'), 4, (10_301_248, 5_715_713, 26_290_080, 71_269_122)),
    ],
)
def test_published_sizes(keywords, blocks, sizes):
    one, two = (part.params for part in pair(one=keywords, two={**keywords, 'blocks': blocks}))
    assert (count(one['G1']), count(one['D1']), count(two['G2']), count(two['D2'])) == sizes
    assert (
        count(two['G1']) == count(one['G1'])
        and count(one['G1']['augment']) == count(two['G2']['augment']) == 262_400
    )


@pytest.mark.parametrize(
    'experiment, sizes',
    [
        ('birds', ('14,264,192', '4,029,824', '26,290,080', '48,603,520')),
        ('coco', ('20,020,832', '12,407,425', '37,130,480', '159,889,538')),
    ],
)
def test_published_sizes_are_told(experiment, sizes):
    lines = describe(config_of(experiment)).splitlines()
    told = {line.split()[0]: line.split()[1:] for line in lines if line.count('  ')}
    assert [told[name] for name in ('one.G1', 'one.D1', 'two.G2', 'two.D2')] == [
        [size, 'trained'] for size in sizes
    ]
    assert told['two.G1'] == [sizes[0], 'frozen']


@pytest.mark.parametrize('variant', ['official_tf', 'pytorch'])
@pytest.mark.parametrize('small, size', [(64, 256), (32, 64), (16, 128)])
def test_shapes(variant, small, size):
    keywords = dict(variant=variant, gf=16, df=8, nc=4)
    one, two = pair(
        small,
        size,
        embedding_dim=12,
        one=keywords,
        two={**keywords, 'ratio': size // small, 'blocks': 1},
    )

    def draw(params, stats, graph=two.graph):
        stage = nnx.merge(graph, params, stats)
        out = stage.sample({'embedding': jnp.zeros((3, 12))}, stage.noise(KEY, 3))
        return out, stage.D(out['image'], train=True)

    out, features = jax.eval_shape(draw, two.params, two.stats)
    assert out['image'].shape == (3, size, size, 3) and [x.shape for x in out['images']] == [
        (3, small, small, 3),
        (3, size, size, 3),
    ]
    assert features.shape == (3, 4, 4, min(8 << int(np.log2(size // 8)), 64))
    out, features = jax.eval_shape(
        lambda *state: draw(*state, graph=one.graph), one.params, one.stats
    )
    assert out['image'].shape == (3, small, small, 3) and features.shape == (
        3,
        4,
        4,
        8 << int(np.log2(small // 8)),
    )


def test_the_up_convolution_is_a_doubled_map_under_a_3x3_kernel():
    graph, params = nnx.split(UpConv(3, 5, rngs=nnx.Rngs(0)))
    x, kernel = jax.random.normal(KEY, (2, 6, 4, 3)), params['kernel'][...]

    def plain(x, kernel):
        doubled = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
        return jax.lax.conv_general_dilated(
            doubled, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )

    def mine(x, kernel):
        return nnx.merge(graph, jax.tree.map(lambda _: kernel, params))(x)

    np.testing.assert_allclose(mine(x, kernel), plain(x, kernel), atol=1e-6)
    for a, b in zip(
        *(
            jax.grad(lambda *args, f=f: jnp.sin(9 * f(*args)).sum(), (0, 1))(x, kernel)
            for f in (plain, mine)
        )
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_tensorflow_version_cuts_the_start_of_every_convolution(monkeypatch):
    rngs = nnx.Rngs(0)
    D = StackDiscriminator(16, 8, 16, 8, True, 'embedding', LayerNorm, rngs=rngs)

    def convolutions():
        return [
            np.asarray(x[...])
            for x in (
                *(conv.kernel for conv in (*D.downs, *D.block.convs, D.joint)),
                D.logit.kernel,
            )
        ]

    before, dense = convolutions(), D.project.kernel[...]
    truncate(D, rngs)
    for kernel, old in zip(convolutions(), before, strict=True):
        assert kernel.shape == old.shape and abs(kernel).max() <= 0.04001
    wide = np.concatenate([kernel.ravel() for kernel in convolutions()])
    assert (
        wide.std() == pytest.approx(0.02 * 0.8796, rel=0.03)
        and max(abs(kernel).max() for kernel in before) > 0.05
    )
    assert np.array_equal(D.project.kernel[...], dense)  # dense layers are normal

    cut = []
    monkeypatch.setattr(stackgan, 'truncate', lambda network, rngs: cut.append(network))
    pair(one=dict(variant='pytorch'), two=dict(variant='pytorch'))
    assert not cut
    pair()
    assert [type(network).__name__ for network in cut] == [
        'GeneratorOne',
        'StackDiscriminator',
        'GeneratorTwo',
        'StackDiscriminator',
    ]


def test_the_first_layer_is_normalised_unit_by_unit():
    for variant in ('official_tf', 'pytorch'):
        params = pair(one=dict(variant=variant))[0].params['G1']
        assert params['first_norm']['scale'].shape == (4 * 4 * 1024,) and (
            'bias' in params['first']
        ) == (variant == 'official_tf')


# ------------------------------------------------------------------------------------------- losses
class Stub:
    """A discriminator whose features are the mean of the picture.

    It answers with their sum with the condition's, or alone.
    """

    def __init__(self, free):
        self.free_logit, self.seen, self.extras = free, [], PLAIN.extras(1, 1, rngs=None)

    def __call__(self, image, *, train):
        return image.mean((1, 2, 3))

    def conditional(self, features, condition, *, train):
        self.seen.append(condition)
        return features + condition.sum(-1)

    def unconditional(self, features):
        return 10 * features


def stubbed(free=False, **keywords):
    """Stage-II with the stub as D."""
    stage = nnx.merge(*tiny(encoder=False, embedding_dim=3, two=keywords)[1])
    stage.D2 = Stub(free)
    return stage


def fakes(image=0.0, mu=0.0, logvar=0.0, text=0.0):
    return AugmentedFakes(
        jnp.full((4, 2, 2, 3), image),
        jnp.full((4, 6), mu),
        jnp.full((4, 6), logvar),
        jnp.full((4, 3), text),
    )


def pictures(real=0.0, wrong=0.0):
    return {'image': jnp.full((4, 2, 2, 3), real), 'wrong_image': jnp.full((4, 2, 2, 3), wrong)}


@pytest.mark.parametrize(
    'variant, wrong, free, heads',
    [
        ('official_tf', '', False, 1),
        ('official_tf', 'none', False, 1),
        ('pytorch', '', False, 1),
        ('pytorch', '', True, 2),
        ('pytorch', 'none', True, 2),
        ('official_tf', 'shift', True, 2),
    ],
)
def test_losses_where_the_logits_are_zero(variant, wrong, free, heads):
    stage = stubbed(free, variant=variant, wrong=wrong)
    assert stage.d_loss(pictures(), KEY, fakes())[0] == pytest.approx(2 * np.log(2))
    loss, logs = stage.g_loss(pictures(), KEY, fakes())
    assert loss == pytest.approx(heads * np.log(2)) and logs['kl'] == 0


def bce1(x):
    return np.log1p(np.exp(-x))


def bce0(x):
    return np.log1p(np.exp(x))


def test_loss_of_the_tensorflow_version():
    stage, out = (
        stubbed(),
        fakes(image=0.3, mu=0.2, logvar=0.5, text=0.1),
    )  # three numbers of a sentence: .3 is added to each logit
    loss, logs = stage.d_loss(pictures(1, -0.5), KEY, out)
    assert loss == pytest.approx(bce1(1.3) + (bce0(-0.2) + bce0(0.6)) / 2) and logs[
        'd_wrong'
    ] == pytest.approx(bce0(-0.2))
    kl = 0.5 * (0.2**2 + np.exp(0.5) - 1 - 0.5)
    assert stage.g_loss(pictures(), KEY, out)[0] == pytest.approx(bce1(0.6) + 2 * kl)
    assert stubbed(kl_weight=1.0, kl_reduction='sum').g_loss(pictures(), KEY, out)[
        0
    ] == pytest.approx(bce1(0.6) + 6 * kl)
    assert stubbed(wrong='none').d_loss(pictures(1, -0.5), KEY, out)[0] == pytest.approx(
        bce1(1.3) + bce0(0.6)
    )


def test_loss_of_the_second_stage_in_the_pytorch_version():
    stage, out = (
        stubbed(free=True, variant='pytorch'),
        fakes(image=0.3, mu=0.1, text=9),
    )  # six numbers of mu: .6
    loss, logs = stage.d_loss(pictures(1), KEY, out)
    assert loss == pytest.approx(
        (bce1(1.6) + bce1(10)) / 2 + (bce0(1.6) + bce0(0.9) + bce0(3)) / 3, rel=1e-5
    )
    assert stage.g_loss(pictures(), KEY, out)[0] == pytest.approx(
        bce1(0.9) + bce1(3) + 0.1**2, rel=1e-5
    )  # 2 kl = mu^2


def test_a_shifted_pair_is_a_picture_with_the_next_sentence():
    stage = stubbed(variant='pytorch')
    mu = jnp.arange(4.0)[:, None] * jnp.ones(6)
    real = jnp.array([0.0, 100, 200, 300])[:, None, None, None] * jnp.ones((4, 2, 2, 3))
    stage.d_loss({'image': real}, KEY, fakes()._replace(mu=mu))
    assert [np.asarray(seen[:, 0]).tolist() for seen in stage.D2.seen] == [
        [0, 1, 2, 3],
        [1, 2, 3],
        [0, 1, 2, 3],
    ]


@pytest.mark.parametrize('variant, of_mu', [('official_tf', False), ('pytorch', True)])
def test_what_the_discriminator_is_told(variant, of_mu):
    """The sentence vector itself, or mu, through which no gradient goes to the augmentation."""
    stage = stubbed(variant=variant)
    out = fakes(mu=0.5, text=0.25)
    stage.g_loss(pictures(), KEY, out)
    assert np.array_equal(stage.D2.seen[-1], out.mu if of_mu else out.text)
    grad = jax.grad(lambda mu: stage.g_loss(pictures(), KEY, out._replace(mu=mu))[0])(out.mu)
    np.testing.assert_allclose(
        grad, 2 * 0.5 / 24 * np.ones((4, 6)), rtol=1e-5
    )  # that of 2 KL = mean mu^2 alone


# ----------------------------------------------------------------------------------------- training
@pytest.fixture(scope='module')
def stages():
    return tiny()


def stepped(parts, size, **keywords):
    prog, state = start(parts)
    step = jax.jit(lambda state: core.train_step(prog, state, batch(size, **keywords)))
    return state, *step(state)


@pytest.mark.slow
@pytest.mark.parametrize('two', [dict(stage_one_statistics='batch'), dict(variant='pytorch')])
def test_stage_one_is_bit_unchanged_by_a_step_of_stage_two(two):
    state, new, metrics = stepped(tiny(two=two)[1], 32)
    assert np.isfinite(list(metrics.values())).all() and new.bad_step == -1
    assert moved(state.params, new.params) == moved(state.stats, new.stats) == {'G2', 'D2'}
    assert bit_equal(state.params['G1'], new.params['G1']) and bit_equal(
        state.stats['G1'], new.stats['G1']
    )
    assert not bit_equal(
        state.params['G2']['augment'], new.params['G2']['augment']
    )  # the gradient reaches the augmentation
    trained = {
        key.key
        for path, _ in jax.tree_util.tree_leaves_with_path(new.opt)
        for key in path
        if hasattr(key, 'key')
    }
    assert {'G2', 'D2'} <= trained and not {'G1', 'text'} & trained


class Given:
    """A generator that remembers how it was called, and whose picture is one number."""

    class augment:
        noise = staticmethod(lambda key, n: jax.random.normal(key, (n, 6)))

    def __init__(self, number):
        self.number = number

    def noise(self, key, n):
        return {'z': jnp.ones((n, 5)), 'eps': self.augment.noise(key, n)}

    def __call__(self, *inputs, train):
        self.inputs, self.train = inputs, train
        return jnp.full((4, 2, 2, 3), self.number), jnp.zeros((4, 6)), jnp.zeros((4, 6))


@pytest.mark.parametrize('statistics', ['running', 'batch'])
def test_what_stage_two_is_given(statistics):
    """Stage-I's picture of the same sentence, drawn with running statistics or, as in the official
    code, with those of the batch.
    """
    stage = stubbed(stage_one_statistics=statistics)
    stage.G1, stage.G2 = Given(1.0), Given(2.0)
    text = jnp.arange(12.0).reshape(4, 3)
    out = stage.forward({'embedding': text}, KEY)
    noise = stage.noise(KEY, 4)
    for given, inputs, training in (
        (stage.G1, (text, noise['z'], noise['eps']), statistics == 'batch'),
        (stage.G2, (jnp.ones((4, 2, 2, 3)), text, noise['eps_two']), True),
    ):
        assert given.train == training and all(
            np.array_equal(a, b) for a, b in zip(given.inputs, inputs, strict=True)
        )
    assert (out.image == 2).all() and np.array_equal(out.text, text)
    stage.sample({'embedding': text}, noise)
    assert not stage.G1.train and not stage.G2.train  # sampling uses the running ones in any case


def config_of(name, arg=''):
    return importlib.import_module(f'experiments.stackgan_{name}').get_config(arg)


@pytest.mark.parametrize(
    'name, factors',
    [
        ('birds', {0: 1, 99: 1, 100: 1 / 2, 199: 1 / 2, 600: 1 / 64}),
        ('coco', {0: 1, 19: 1, 20: 1 / 2, 100: 1 / 32}),
    ],
)
@pytest.mark.parametrize('phase', ['d_loss', 'g_loss'])
def test_rates_are_halved(name, factors, phase):
    blocks = settings.plain(config_of(name).stages)
    for stage in ('one', 'two'):
        config = blocks[stage]['optim'][phase]
        assert (config['name'], config['lr'], config['b1'], config['b2'], config['eps']) == (
            'adam',
            2e-4,
            0.5,
            0.999,
            1e-8,
        )
        rate = optim.schedule(
            config['lr'], config['schedule'], 138, 138 * blocks[stage]['epochs']
        )  # 8,855 birds in batches of 64
        for epoch, factor in factors.items():
            assert rate(138 * epoch) == pytest.approx(2e-4 * factor)
    if name == 'birds':  # the paper counts on: Stage-II's first epoch is its 600th
        assert rate(138 * (600 - 600)) == pytest.approx(2e-4) and rate(
            138 * (700 - 600)
        ) == pytest.approx(1e-4)
        assert (
            rate(138 * (700 - 600) - 1) == pytest.approx(2e-4)
            and blocks['one']['epochs'] == blocks['two']['epochs'] == 600
        )


# ----------------------------------------------------------------------------------------- sampling
@pytest.mark.slow
def test_samples_depend_on_the_noise_key_alone(stages):
    one, two = stages
    first, second = nnx.merge(*one), nnx.merge(*two)
    few, many = (second.noise(jax.random.key(1), n) for n in (4, 9))
    assert set(few) == {'z', 'eps', 'eps_two'} and all(
        (few[name] == many[name][:4]).all() for name in few
    )
    other = second.noise(jax.random.key(2), 4)
    assert (
        not any((few[name] == other[name]).any() for name in few)
        and not (few['eps'] == few['eps_two']).any()
    )

    def draw(parts, noise):
        data = {'chars': batch(16)['chars']}
        return jax.jit(lambda noise: core.call(*parts, 'sample', data, noise, training=False)[0])(
            noise
        )

    drawn, again, another = draw(two, few), draw(two, few), draw(two, other)
    assert bit_equal(drawn, again) and (drawn['image'] != another['image']).any()
    assert drawn['image'] is drawn['images'][1] or bit_equal(drawn['image'], drawn['images'][1])
    assert jnp.abs(drawn['image']).max() <= 1 and drawn['image'].shape == (4, 32, 32, 3)
    alone = draw(one, first.noise(jax.random.key(1), 4))['image']
    np.testing.assert_allclose(
        alone, drawn['images'][0], atol=1e-6
    )  # with the same key Stage-I draws the same picture in both stages
    for name in few:  # each kind of noise changes the picture; that of Stage-II only the large one
        changed = draw(two, few | {name: other[name]})
        assert (changed['image'] != drawn['image']).any() and (
            changed['images'][0] != drawn['images'][0]
        ).any() == (name != 'eps_two')


def test_several_captions_of_a_row_are_averaged(stages):
    stage, chars = nnx.merge(*stages[1]), batch(16)['chars']
    vectors = stage.encode({'chars': chars})
    np.testing.assert_allclose(
        stage.encode({'chars': chars.reshape(2, 2, -1)}),
        vectors.reshape(2, 2, -1).mean(1),
        atol=1e-6,
    )
    unit = nnx.merge(*tiny(one=dict(unit_text=True))[1])  # Stage-II does as Stage-I
    np.testing.assert_allclose((unit.encode({'chars': chars}) ** 2).mean(-1), 1, rtol=1e-4)


# ---------------------------------------------------------------------------------------- bad input
def test_what_a_stage_asks_for():
    assert nnx.merge(*pair()[0]).needs == ('image', 'wrong_image', 'embedding')
    assert nnx.merge(*tiny(one=dict(variant='pytorch'))[0]).needs == ('image', 'chars')
    assert nnx.merge(*tiny(two=dict(wrong='none'))[1]).needs == ('image', 'chars')
    assert tuple(STAGES) == ('text', 'one', 'two', 'style') and StageTwo.loads == {
        'text': 'one.text',
        'G1': 'one.G1',
    }


@pytest.mark.parametrize(
    'keywords, told',
    [
        (dict(size=512), 'draws 64 px and Stage-II 512 px.*ratio=4.*stages.two.data.size'),
        (dict(two=dict(ratio=2)), 'draws 64 px and Stage-II 256 px.*ratio=2'),
        (dict(one=dict(variant='torch')), "variant is 'torch'; it is 'official_tf' or 'pytorch'"),
        (dict(two=dict(wrong='near')), "wrong is 'near'"),
        (dict(two=dict(d_condition='text')), "'embedding' or 'mu'"),
        (dict(one=dict(d_norm='group')), "d_norm is 'group'"),
        (dict(two=dict(stage_one_statistics='none')), "'running' or 'batch'"),
        (dict(one=dict(ca_eps='uniform')), "eps .* 'uniform'"),
        (dict(small=60), '60'),
        (dict(embedding_dim=0), 'neither a text encoder nor a stored sentence vector'),
    ],
)
def test_what_does_not_fit(keywords, told):
    with pytest.raises(ValueError, match=told):
        pair(**keywords)


def test_sentence_vectors_of_another_size():
    def make(first=1024, second=512):
        one = StageOne(Meta('birds', size=64, embedding_dim=first), text=None, rngs=nnx.Rngs(0))
        return StageTwo(
            Meta('birds', size=256, embedding_dim=second), text=None, G1=one.G1, rngs=nnx.Rngs(0)
        )

    with pytest.raises(ValueError, match='of 1024 numbers, those of these data have 512'):
        nnx.eval_shape(make)


@pytest.fixture
def config(on_shapes):
    return brief(on_shapes('stackgan_shapes'))


@pytest.mark.slow
def test_stage_two_without_a_finished_stage_one_ends_in_one_message(config, tmp_path):
    folder = tmp_path / 'empty'
    folder.mkdir()
    config.init.one = str(folder)
    with pytest.raises(RunError, match='empty holds no run.*Train one first'):
        train(Run(config.lock(), tmp_path / 'run'), jax.devices()[:1])
    Run(config, folder).claim()  # a run that has not come to Stage-I
    with pytest.raises(
        RunError,
        match=r'one holds no trained stage.*Train \(or resume\) it, which writes the file: t2i_jax '
        rf'--workdir={folder}\. Or train with --config.init.one=<a run',
    ):
        train(Run(config, tmp_path / 'other'), jax.devices()[:1])


def test_a_stage_one_of_another_size_is_refused_before_training(config, tmp_path):
    config.stages.one.data.size = 32
    with pytest.raises(
        RunError, match='Stage two cannot be built: Stage-I draws 32 px and Stage-II 32 px'
    ):
        train(Run(config.lock(), tmp_path), jax.devices()[:1])
    assert not list(tmp_path.glob('*/checkpoints/*'))


@pytest.fixture(scope='module')
def trained(run_of):
    """(config, workdir) of a finished run."""
    workdir = run_of('stackgan')
    return Run.open(workdir).config, workdir


@pytest.fixture
def narrow(trained, tmp_path):
    """(config, workdir) of a copy of it."""
    config, workdir = trained
    return config, shutil.copytree(workdir, tmp_path / 'run')


@pytest.mark.slow
def test_a_stage_one_of_other_widths_brings_its_widths_and_its_sentence_encoder(
    narrow, tmp_path, warnings
):
    config, first = narrow
    second, mine = tmp_path / 'second', config.copy_and_resolve_references().unlock()
    mine.seed, mine.stages.one.model.gf, mine.init.one, mine.stages.style.steps = (
        1,
        16,
        str(first),
        2,
    )
    train(Run(mine.lock(), second), jax.devices()[:1])
    assert not [message for message in warnings if 'interrupted' in message]
    one, two = (restored(config, first, 'one')[1], restored(mine, second, 'two')[1])
    assert bit_equal(one.ema['G1'], two.params['G1']) and bit_equal(
        one.ema_stats['G1'], two.stats['G1']
    )
    assert bit_equal(one.params['text'], two.params['text']) and not bit_equal(
        restored(mine, second, 'text')[1].params['text'], two.params['text']
    )

    shutil.rmtree(first)  # from here on the run stands alone
    sampler, style = Sampler.load(second), Sampler.load(second, stage='style', chunk=4)
    drawn = sampler(['a red circle'], num=2, seed=3)
    assert (
        sampler.name == 'two'
        and drawn['image'].shape == (1, 2, 32, 32, 3)
        and drawn['images'][0].shape == (1, 2, 16, 16, 3)
    )
    noise = style.module.noise(jax.random.key(3), 2)
    encoded = style.encode(['a red circle'] * 2)
    assert style.sample({'encoded': encoded}, noise, (2,), 'recover')['z'].shape == (2, 100)
    again = style.sample(
        {'encoded': encoded, 'image': drawn['image'][0] / 127.5 - 1}, noise, (2,), 'transfer'
    )['image']
    assert again.shape == (2, 32, 32, 3) and again.dtype == np.uint8
    with pytest.raises(RunError, match='Stage style draws nothing'):
        style(['a red circle'])


@pytest.mark.slow
def test_the_small_pictures_of_stage_one(narrow, tmp_path, warnings):
    config, workdir = narrow
    one, two = Sampler.load(workdir, stage='one'), Sampler.load(workdir)
    a, b = (
        one(['a red circle'], num=3, seed=1)['image'],
        two(['a red circle'], num=3, seed=1)['images'][0],
    )
    assert (
        a.shape == (1, 3, 16, 16, 3) and np.abs(a.astype(int) - b).max() <= 1
    )  # the same noise: the same picture
    to_files(Run.open(workdir)['one'], ['a red circle'], 2, 0, tmp_path / 'out')
    assert (tmp_path / 'out' / 'sheet.png').exists()
    assert explore(Run.open(workdir)['one'], 'z_interpolation', num=2)['rows'] == 2
    longer = config.copy_and_resolve_references().unlock()
    longer.stages.one.steps, longer.stages.two.steps = 2, 1
    longer.init.update(text=str(workdir), one=str(workdir))
    # as if the run had been started for more steps and stopped
    checkpoints = Run(config, workdir)['one'].checkpoints()
    monkey = pytest.MonkeyPatch()
    monkey.setattr(type(checkpoints), 'extra', lambda self, step: dict(total=50))
    checkpoints.close()
    other = tmp_path / 'other'
    other.mkdir()
    shutil.copy(workdir / 'vocabulary.json', other)
    Run(longer, other)['two'].loaded_weights(jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    monkey.undo()
    assert any(
        'was interrupted at step 2 of 50' in message and f'--workdir={workdir}' in message
        for message in warnings
    )


@pytest.mark.slow
def test_stored_sentence_vectors_of_another_size_are_refused(narrow):
    config, workdir = narrow
    path = workdir / 'two' / 'meta.json'
    path.write_text(
        path.read_text().replace('"embedding_dim": 0', '"embedding_dim": 512')
    )  # as if the data had been other ones
    longer = config.copy_and_resolve_references().unlock()
    longer.stages.two.steps = 3  # a finished stage does not read its data
    with pytest.raises(
        RunError,
        match='Stage two was trained on data with embedding_dim 512; .* as it is now has '
        '0.*another --workdir',
    ):
        train(Run(longer, workdir), jax.devices()[:1])
    with pytest.raises(RunError, match='Stage two was trained on data with embedding_dim 512'):
        explore(Run.open(workdir)['two'], 'z_interpolation')
    with pytest.raises(RunError, match='Stage two was trained on data with embedding_dim 512'):
        evaluate(Run.open(workdir)['two'], split='validation')
