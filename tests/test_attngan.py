"""AttnGAN's generator side against its published sizes and formulas.

Small stand-ins take the place of the DAMSM's encoders.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import reduce
from flax import nnx
from helpers import count, filled, shapes_of, start, without_logits

from experiments import attngan_birds, attngan_coco, attngan_shapes
from t2i_jax import config as settings
from t2i_jax import stage as core
from t2i_jax.data.text import Vocabulary
from t2i_jax.encoders.sentence import WordsAndSentence
from t2i_jax.layers.game import PLAIN
from t2i_jax.losses import sentence_loss, words_loss
from t2i_jax.run import Run, describe
from t2i_jax.runtime.errors import RunError
from t2i_jax.stage import Meta
from t2i_jax.systems.attngan import STAGES, AttentivePictures, AttnGan

LOG2 = np.log(2)
WORDS, LENGTH = 12, 5  # of the vocabulary, of a padded sentence
GAN = dict(scales=2, gf=2, df=2, nz=5, nc=3, residuals=1)


class Words(nnx.Module):
    """Stands for the text encoder.

    A vector for each word, and a sentence vector that has to do with all of them.
    """

    def __init__(self, d, *, rngs):
        self.d, self.table = d, nnx.Embed(WORDS, d, rngs=rngs)

    def __call__(self, tokens, length, *, train):
        assert not train  # frozen
        words = self.table(tokens) * (jnp.arange(tokens.shape[1]) < length[:, None])[..., None]
        return words, jnp.tanh(words.sum(1))


class Patches(nnx.Module):
    """Stands for the image encoder: a vector for each patch, their mean for the picture."""

    def __init__(self, d, *, rngs):
        self.layer = nnx.Linear(3, d, rngs=rngs)

    def __call__(self, pictures, *, train):
        assert not train
        regions = jnp.tanh(
            self.layer(reduce(pictures, 'b (h i) (w j) c -> b (h w) c', 'mean', i=4, j=4))
        )
        return regions, regions.mean(1)


def parts(size=16, d=6, classes=0, **keywords):
    """Shapes only: (structure, parameters, running statistics)."""

    def make():
        encoders = dict(text=Words(d, rngs=nnx.Rngs(0)), image=Patches(d, rngs=nnx.Rngs(0)))
        return AttnGan(
            Meta('birds', size=size, length=LENGTH, classes=classes),
            **keywords,
            **encoders,
            rngs=nnx.Rngs(0),
        )

    return shapes_of(make)


def tiny(**keywords):
    """(structure, parameters, running statistics) of a small stage."""
    return filled(parts(**(GAN | keywords)), scale=0.2)


def batch(b=4, size=16, lengths=(2, 5, 3, 4), length=LENGTH):
    ids = np.random.default_rng(0).integers(1, WORDS, (2, b, LENGTH))
    there = np.arange(LENGTH) < np.array(lengths[:b])[:, None]
    tokens = np.pad(np.where(there, ids, 0), ((0, 0), (0, 0), (0, length - LENGTH)))
    image = np.random.default_rng(1).uniform(-1, 1, (b, size, size, 3))
    out = {
        'image': jnp.float32(image),
        'tokens': tokens[0],
        'length': np.array(lengths[:b]),
        'wrong_tokens': tokens[1],
        'wrong_length': np.array(lengths[:b]),
    }
    return {name: jnp.asarray(x) for name, x in out.items()}


# -------------------------------------------------------------------------------------------- sizes
CUB = 6_313_730, 19_424_002, 71_858_946
COCO = 13_304_450, 42_800_258, 160_774_274


@pytest.mark.parametrize(
    'keywords, g, ds',
    [
        ({}, 7_084_592, CUB),  # bird_attn2
        (dict(gf=48, df=96, residuals=3), 13_811_456, COCO),  # coco_attn2
        (dict(dcgan=True, residuals=0), 6_638_960, (71_850_753,)),  # bird_attnDCGAN2
        (
            dict(size=128, scales=2),
            7_084_592 - 268_000,
            CUB[:2],
        ),  # one attention less: 8,192 + 221,952 + 36,992 + 864
    ],
)
def test_published_sizes(keywords, g, ds):
    params = parts(**(dict(size=256, d=256) | keywords)).params
    assert count(params['G']) == g and tuple(count(D) for D in params['D'].values()) == ds


@pytest.mark.parametrize(
    'config, g, ds',
    [
        (attngan_birds.get_config(), 7_084_592, CUB),
        (attngan_coco.get_config(), 13_811_456, COCO),
        (attngan_birds.get_config('dcgan'), 6_638_960, (71_850_753,)),
    ],
)
def test_describe_tells_each_network(config, g, ds):
    told = describe(config)
    for network, size in {
        'G': g,
        'D': sum(ds),
        **{f'D.{i}': each for i, each in enumerate(ds)},
    }.items():
        assert re.search(rf'^gan.{re.escape(network)} +{size:,} +trained$', told, re.MULTILINE)
    for network in ('text', 'image'):
        assert re.search(rf'^damsm.{network} +[\d,]+ +trained$', told, re.MULTILINE) and re.search(
            rf'^gan.{network} +[\d,]+ +frozen$', told, re.MULTILINE
        )


@pytest.mark.parametrize('size, scales', [(64, 3), (64, 1), (128, 2), (256, 3), (32, 2), (16, 1)])
@pytest.mark.parametrize('dcgan', [False, True])
def test_trees(size, scales, dcgan):
    graph, params, stats = parts(size, scales=scales, gf=4, df=4, dcgan=dcgan)

    def draw(params, stats):
        stage = nnx.merge(graph, params, stats)
        data, key = batch(3), jax.random.key(0)
        data['image'] = jnp.zeros((3, size, size, 3))
        out = stage.forward(data, key)
        return (
            stage.sample(data, stage.noise(key, 3)),
            stage.d_loss(data, key, out)[1],
            stage.g_loss(data, key, out)[1],
        )

    drawn, d_logs, g_logs = jax.eval_shape(draw, params, stats)
    sides = [size >> i for i in reversed(range(scales))]
    pictures = sides[-1:] if dcgan else sides
    assert drawn['image'].shape == (3, size, size, 3) and [x.shape for x in drawn['images']] == [
        (3, s, s, 3) for s in pictures
    ]
    assert [x.shape for x in drawn.get('attention', [])] == [
        (3, s, s, LENGTH) for s in sides[:-1]
    ] and ('attention' in drawn) == (scales > 1)
    assert set(without_logits(d_logs)) == {f'd_{s}' for s in pictures} and set(g_logs) == {
        f'g_{s}' for s in pictures
    } | {'kl', 'words', 'sentence'}
    assert params['G']['first']['first']['kernel'].shape == (
        200,
        16 * 2 * 16 * 4,
    )  # to 4 x 4 x 16 gf, gated, whatever the first side
    assert [
        params['G']['next'][i]['attention']['project']['kernel'].shape for i in range(scales - 1)
    ] == [(6, 4 * max(1, 64 // s)) for s in sides[:-1]]
    assert ('real' in params['D'][0]) != dcgan


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(size=16, scales=3), 'scales=3 of pictures of 16 px'),
        (dict(size=48, scales=2), 'sides are 8, 16, 32'),
        (dict(scales=0), 'scales=0'),
        (dict(d_norm='instance'), "'batch' or 'layer'"),
        (dict(leave_out='label'), "'entailment' or 'none'"),
        (dict(wrong='other'), "'shift' or 'sampled'"),
        (dict(size=128, mask_mode='tiled'), "'original' or 'none'"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        parts(**wrong)


def test_encoders_that_do_not_fit_are_refused():
    def make(size, text=6, image=Patches, d=6):
        return AttnGan(
            Meta('birds', size=size),
            **GAN,
            text=Words(text, rngs=nnx.Rngs(0)),
            image=image(d, rngs=nnx.Rngs(0)),
            rngs=nnx.Rngs(0),
        )

    class Whole(Patches):
        def __call__(self, pictures, *, train):
            return self.layer(pictures.reshape(len(pictures), 1, -1)), None  # reads one size alone

    with pytest.raises(
        ValueError, match='cannot read those of 16 px: train it with stages.damsm.data.size=16'
    ):
        nnx.eval_shape(lambda: make(16, image=Whole))
    with pytest.raises(ValueError, match='words of 8 dimensions, regions of 6 and pictures of 6'):
        nnx.eval_shape(lambda: make(16, text=8))


def test_what_a_stage_asks_for():
    def needs(**keywords):
        return nnx.merge(*parts(**(GAN | keywords))).needs

    text = ('image', 'tokens', 'length')
    assert (
        needs() == needs(classes=7, leave_out='none') == needs(classes=7, damsm_weight=0.0) == text
    )
    assert needs(classes=7) == (*text, 'label') and needs(
        leave_out='entailment', wrong='sampled'
    ) == (*text, 'facts', 'scene', 'wrong_tokens')
    assert (
        tuple(STAGES) == ('damsm', 'gan')
        and AttnGan.loads == {'text': 'damsm.text', 'image': 'damsm.image'}
        and AttnGan.ema == ('G',)
    )


def test_encoders_of_another_vocabulary_are_refused(tmp_path):
    config, other = attngan_shapes.get_config('tiny'), tmp_path / 'other'
    other.mkdir()
    (other / 'config.json').write_text(settings.to_json(config))
    Vocabulary(['a', 'red', 'circle']).save(other / 'vocabulary.json')
    config.init.damsm = str(other)
    own = Vocabulary(['a', 'circle', 'red'])
    own.save(tmp_path / 'vocabulary.json')
    with pytest.raises(
        RunError,
        match=rf'{other} has another vocabulary \(3 words, hash \w{{12}}\) than {tmp_path} \(3 '
        rf'words, hash {own.hash[:12]}\), so its '
        'text and image would misread sentences',
    ):
        Run(config, tmp_path)['gan'].loaded_weights(None)


# ------------------------------------------------------------------------------------------ drawing
def drawing(**keywords):
    """A compiled function: (batch, noise) -> what is drawn; and noise of 4 rows."""
    graph, params, stats = tiny(**keywords)

    @jax.jit
    def draw(data, noise):
        return core.call(graph, params, stats, 'sample', data, noise, training=False)[0]

    return draw, nnx.merge(graph, params, stats).noise(jax.random.key(1), 4)


def test_pictures_do_not_depend_on_how_much_padding_there_is():
    draw, noise = drawing()
    a, b = draw(batch(length=18), noise), draw(batch(length=25), noise)
    for x, y in zip(a['images'], b['images']):
        np.testing.assert_allclose(x, y, atol=5e-5)  # rounding: sums of 18 and of 25
    np.testing.assert_allclose(a['attention'][0], b['attention'][0][..., :18], atol=5e-5)
    unmasked, _ = drawing(mask_mode='none')
    assert (
        jnp.abs(
            unmasked(batch(length=18), noise)['image'] - unmasked(batch(length=25), noise)['image']
        ).max()
        > 1e-3
    )


@pytest.mark.parametrize('mask_mode', ['fixed', 'original'])
def test_a_picture_does_not_depend_on_its_neighbours_but_for_the_original_mask(mask_mode):
    draw, noise = drawing(mask_mode=mask_mode)
    data = batch()
    others = {
        name: x.at[1:].set(x[jnp.array([2, 3, 1])]) for name, x in data.items()
    }  # three change places, row 0 stays
    difference = jnp.abs(draw(data, noise)['image'][0] - draw(others, noise)['image'][0]).max()
    assert difference > 1e-3 if mask_mode == 'original' else difference < 1e-6


def test_attention_of_samples():
    draw, noise = drawing(size=32, scales=3)
    drawn = draw(batch(), noise)
    assert [x.shape for x in drawn['attention']] == [(4, 8, 8, LENGTH), (4, 16, 16, LENGTH)]
    for beta in drawn['attention']:
        np.testing.assert_allclose(beta.sum(-1), 1, rtol=1e-5)
        assert (beta[0, ..., 2:] == 0).all() and (
            beta[1].max((0, 1)) > 0
        ).all()  # two words, five words


def test_samples_depend_on_noise_and_words():
    draw, noise = drawing()
    few, many = noise, nnx.merge(*tiny()).noise(jax.random.key(1), 9)
    assert all((few[name] == many[name][:4]).all() for name in ('z', 'eps'))
    one = draw(batch(), noise)
    assert (one['image'] == one['images'][1]).all() and jnp.abs(one['image']).max() <= 1
    text = nnx.merge(*tiny()).encode(batch())
    encoded = draw({'encoded': text}, noise)
    np.testing.assert_allclose(encoded['image'], one['image'], atol=1e-5)
    for changed in (
        draw(batch(), {**noise, 'z': -noise['z']}),
        draw(batch(), {**noise, 'eps': -noise['eps']}),
        draw({'encoded': text._replace(sentence=-text.sentence)}, noise),
    ):
        assert all((a != b).any((1, 2, 3)).all() for a, b in zip(one['images'], changed['images']))
    # words: not for the first map
    changed = draw({'encoded': text._replace(words=-text.words)}, noise)
    assert (encoded['images'][0] == changed['images'][0]).all()
    assert (encoded['images'][1] != changed['images'][1]).any((1, 2, 3)).all()


@pytest.mark.parametrize('looks', [0, 1, 2])
def test_maps_that_do_not_look_at_words_are_told_the_sentence(looks):
    keywords = dict(size=32, scales=3, attention_count=looks)
    assert count(parts(**(GAN | keywords)).params['G']) == count(
        parts(**(GAN | keywords | dict(attention_count=2))).params['G']
    )
    draw, noise = drawing(**keywords)
    text = nnx.merge(*tiny()).encode(batch())
    one = draw({'encoded': text}, noise)
    assert len(one.get('attention', [])) == looks
    words, sentence = (
        draw({'encoded': text._replace(words=-text.words)}, noise),
        draw({'encoded': text._replace(sentence=-text.sentence)}, noise),
    )
    assert [bool((a != b).any()) for a, b in zip(one['images'], words['images'])] == [
        False,
        looks > 0,
        looks > 0,
    ]
    assert all((a != b).any() for a, b in zip(one['images'], sentence['images']))


def test_between_two_sentences_the_words_of_either_are_looked_at():
    draw, noise = drawing()
    text = nnx.merge(*tiny()).encode(batch())
    middle = jax.tree.map(
        lambda x: (x + x[jnp.array([2, 1, 0, 3])]) / 2, text
    )  # rows 0 and 2: of two and of three words
    beta = draw({'encoded': middle}, noise)['attention'][0]
    assert (beta[0, ..., 3:] == 0).all() and (beta[0, ..., :3].max((0, 1)) > 0).all()


def test_sentence_vectors_of_one_length():
    text, plain = (nnx.merge(*tiny(unit_text=unit)).encode(batch()) for unit in (True, False))
    np.testing.assert_allclose((text.sentence**2).mean(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        text.sentence / plain.sentence,
        (text.sentence / plain.sentence)[:, :1].repeat(6, 1),
        rtol=1e-4,
    )
    assert (text.words == plain.words).all() and (text.mask.sum(1) == batch()['length']).all()


def test_attention_and_text_stay_float32():
    graph, params, stats = tiny()

    def compute():
        stage = nnx.merge(graph, params, stats)
        core.compute_in(stage, 'bfloat16')
        return stage.sample(batch(), stage.noise(jax.random.key(0), 4)), stage.forward(
            batch(), jax.random.key(0)
        )

    drawn, out = jax.eval_shape(compute)
    assert {x.dtype for x in out.images} == {jnp.dtype('bfloat16')}
    assert {x.dtype for x in (*drawn['attention'], *out.text, out.mu, out.logvar)} == {
        jnp.dtype('float32')
    } and out.attention == ()


# ------------------------------------------------------------------------------------------- losses
class Trunk:
    def __call__(self, image, *, train):
        return image.mean((1, 2))  # b 3: red, green, blue


class Matching:
    """Says the red of a picture plus the first number of its sentence, and remembers its rows."""

    def __init__(self):
        self.told = []

    def __call__(self, code, sentence, *, train):
        self.told.append((code, sentence))
        return code[:, 0] + sentence[:, 0]


class Stub:
    extras = PLAIN.extras(1, 1, rngs=None)

    def __init__(self, real):
        self.trunk, self.match = Trunk(), Matching()
        self.real = (lambda code, *, train: code[:, 1]) if real else None  # the green


def stubbed(**keywords):
    stage = nnx.merge(*tiny(**keywords))
    stage.D = nnx.data([Stub(not keywords.get('dcgan')) for _ in stage.sides])
    return stage


def pictures(red, green, b=4, side=16):
    red, green = (jnp.broadcast_to(jnp.float32(x), (b,)) for x in (red, green))
    return jnp.broadcast_to(jnp.stack([red, green, 0 * red], -1)[:, None, None], (b, side, side, 3))


def drawn(red, green, sides=(8, 16), sentence=0.0, b=4, mu=0.0, logvar=0.0):
    """What G might give.

    Constant pictures of each side, beside sentences whose first numbers are given.
    """
    sentence = jnp.zeros((b, 6)).at[:, 0].set(jnp.float32(sentence))
    text = WordsAndSentence(jnp.ones((b, LENGTH, 6)), sentence, jnp.ones((b, LENGTH)))
    return AttentivePictures(
        [pictures(red, green, b, side) for side in sides],
        (),
        jnp.full((b, 3), mu),
        jnp.full((b, 3), logvar),
        text,
    )


def bce0(x):
    return np.log1p(np.exp(np.float64(x))).mean()


def bce1(x):
    return bce0(-np.float64(x))


@pytest.mark.parametrize('dcgan, g', [(False, 2 * LOG2), (True, LOG2)])
def test_losses_where_the_logits_are_zero(dcgan, g):
    stage, sides = stubbed(dcgan=dcgan, damsm_weight=0.0), (16,) if dcgan else (8, 16)
    loss, logs = stage.d_loss({'image': pictures(0, 0)}, None, drawn(0, 0, sides))
    assert without_logits(logs) == pytest.approx(
        {f'd_{side}': 2 * LOG2 for side in sides}
    ) and loss == pytest.approx(2 * LOG2 * len(sides))
    loss, logs = stage.g_loss({'image': pictures(0, 0)}, None, drawn(0, 0, sides))
    assert without_logits(logs) == pytest.approx(
        {f'g_{side}': g for side in sides} | {'kl': 0}
    ) and loss == pytest.approx(g * len(sides))


@pytest.mark.parametrize('b', [2, 4])
@pytest.mark.parametrize('dcgan', [False, True])
def test_the_wrong_sentence_is_the_next_rows(b, dcgan):
    stage, sides, rows = stubbed(dcgan=dcgan), (16,) if dcgan else (8, 16), np.arange(b)
    reds, sentences = 0.1 * rows, 0.5 * rows**2
    out = drawn(-1, 2, sides, sentences, b)
    loss = stage.d_loss({'image': pictures(reds, 3, b)}, None, out)[0]
    right, fake, wrong = (
        bce1(reds + sentences),
        bce0(-1 + sentences),
        bce0(reds[:-1] + sentences[1:]),
    )
    each = (
        right + (fake + wrong) / 2
        if dcgan
        else (right + bce1(3)) / 2 + (fake + wrong + bce0(2)) / 3
    )
    assert loss == pytest.approx(len(sides) * each, rel=1e-5)
    for D in stage.D:
        _, (code, sentence), _ = D.match.told
        np.testing.assert_allclose(code[:, 0], reds[:-1], atol=1e-6)
        np.testing.assert_array_equal(sentence, out.text.sentence[1:])


def test_the_wrong_sentence_may_be_one_that_certainly_does_not_match():
    stage, data = stubbed(wrong='sampled', scales=1), batch()
    stage.d_loss(data, None, drawn(0, 0, (16,)))
    _, (code, sentence), _ = stage.D[0].match.told
    there = stage.encode({'tokens': data['wrong_tokens'], 'length': data['wrong_length']}).sentence
    assert (
        code.shape == (4, 3)
        and (sentence == there).all()
        and (sentence != stage.encode(data).sentence).any(1).all()
    )


def test_a_batch_of_one_has_no_wrong_sentence():
    one = {name: x[:1] for name, x in batch().items()} | {'image': pictures(0, 0, 1)}
    for keywords in (dict(damsm_weight=0.0), dict(wrong='sampled')):
        with pytest.raises(RunError, match='a batch of 1 has none: set stages.gan.batch_size to 2'):
            stubbed(**keywords).d_loss(one, None, drawn(0, 0, b=1))
    assert np.isfinite(
        stubbed(wrong='sampled', damsm_weight=0.0).d_loss(one, None, drawn(0, 0, b=1))[0]
    )


def test_the_generator_pays_for_each_scale_its_spread_and_the_damsm():
    stage, data = (
        stubbed(kl_weight=3.0, damsm_weight=7.0, gamma1=4.0, gamma2=2.0, gamma3=6.0),
        batch(),
    )
    out = drawn(1, 2, sentence=0.5, mu=0.4, logvar=0.2)
    out = out._replace(images=[out.images[0], data['image']], text=stage.encode(data))
    loss, logs = stage.g_loss(data, None, out)
    regions, code = stage.image(data['image'], train=False)
    words = float(
        words_loss(regions, out.text.words, data['length'], gamma1=4.0, gamma2=2.0, gamma3=6.0)
    )
    sentence = float(sentence_loss(code, out.text.sentence, gamma3=6.0))
    assert (
        logs['words'] == pytest.approx(words)
        and logs['sentence'] == pytest.approx(sentence)
        and words > 0 < sentence
    )
    kl = (0.4**2 + np.exp(0.2) - 1 - 0.2) / 2  # mean over dimensions
    means, first = np.asarray(data['image'].mean((1, 2))), np.asarray(out.text.sentence[:, 0])
    g_8, g_16 = bce1(1 + first) + bce1(2), bce1(means[:, 0] + first) + bce1(means[:, 1])
    assert logs['kl'] == pytest.approx(kl, rel=1e-5) and [
        logs['g_8'],
        logs['g_16'],
    ] == pytest.approx([g_8, g_16], rel=1e-5)
    assert loss == pytest.approx(g_8 + g_16 + 3 * kl + 7 * (words + sentence), rel=1e-5)


def test_sentences_of_the_same_class_are_not_wrong_for_the_damsm_where_classes_are_known():
    data = batch()
    stage = nnx.merge(*tiny(classes=3))
    out = drawn(0, 0)._replace(images=[data['image']], text=stage.encode(data))
    plain = stage.damsm_losses(data, out)  # no `label` in the batch
    apart = stage.damsm_losses(data | {'label': jnp.arange(4)}, out)
    alike = stage.damsm_losses(data | {'label': jnp.array([0, 1, 0, 2])}, out)
    ignored = nnx.merge(*tiny(classes=3, leave_out='none')).damsm_losses(
        data | {'label': jnp.array([0, 1, 0, 2])}, out
    )
    for name in ('words', 'sentence'):
        assert plain[name] == apart[name] == ignored[name] and alike[name] < plain[name]
    assert (
        sum(stage.damsm_losses(data | {'label': jnp.zeros(4)}, out).values()) == 0
    )  # nothing is wrong then


def test_sentences_that_are_true_of_another_picture_are_not_wrong():
    data = batch(2) | {
        'facts': jnp.full((2, 6, 6), -1)
        .at[0, 0]
        .set(jnp.array([0, -1, 1, -1, -1, -1])),  # "something red", and nothing at all
        'scene': jnp.full((2, 3, 8), -1)
        .at[:, 0]
        .set(jnp.array([[2, 1, 0, 30, 30, 9, 9, 0], [2, 4, 0, 30, 30, 9, 9, 0]])),
    }
    stage = nnx.merge(*tiny(leave_out='entailment', damsm_weight=1.0))
    out = drawn(0, 0, b=2)._replace(images=[data['image']], text=stage.encode(data))
    regions, code = stage.image(data['image'], train=False)
    left_out = jnp.array([[False, True], [False, False]])  # the second picture is not red
    losses = stage.damsm_losses(data, out)
    assert losses['words'] == pytest.approx(
        words_loss(regions, out.text.words, data['length'], leave_out=left_out)
    )
    assert (
        losses['sentence']
        == pytest.approx(sentence_loss(code, out.text.sentence, leave_out=left_out))
        != sentence_loss(code, out.text.sentence)
    )


def test_the_damsm_reaches_the_generator_and_nothing_else():
    graph, params, stats = tiny(kl_weight=0.0)
    data, key = batch(), jax.random.key(0)

    def damsm(trained):
        out = core.call(graph, {**params, **trained}, stats, 'forward', data, key)[0]
        losses = core.call(graph, {**params, **trained}, stats, 'damsm_losses', data, out)[0]
        return losses['words'] + losses['sentence']

    gradient = jax.jit(jax.grad(damsm))(core.pick(params, ('G', 'D')))
    assert all(
        jnp.abs(leaf).max() > 0
        for leaf in jax.tree.leaves(gradient['G']['next'])
        + jax.tree.leaves(gradient['G']['to_images'][1])
    )
    assert all(
        (leaf == 0).all()
        for leaf in jax.tree.leaves((gradient['D'], gradient['G']['to_images'][0]))
    )  # the last picture alone


# -------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize(
    'keywords, lacks',
    [
        (dict(dcgan=True, residuals=0), {'d_8', 'g_8'}),
        (dict(d_norm='layer', wrong='sampled'), set()),
        (dict(damsm_weight=0.0), {'words', 'sentence'}),
        (dict(mask_mode='original', scales=1), {'d_8', 'g_8'}),
    ],
)
def test_other_steps_have_the_same_parts(keywords, lacks):
    prog, state = start(tiny(**keywords))
    new, metrics = jax.eval_shape(lambda state: core.train_step(prog, state, batch()), state)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert (
        set(without_logits(metrics))
        == {'d_loss', 'd_8', 'd_16', 'g_loss', 'g_8', 'g_16', 'kl', 'words', 'sentence'} - lacks
    )
    assert bool(jax.tree.leaves(state.stats.get('D'))) == (keywords.get('d_norm') != 'layer')
