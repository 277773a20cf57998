"""MirrorGAN: published sizes, both directions by their formulas, and that it extends AttnGAN."""

import itertools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import bit_equal, count, filled, sampler_of, shapes_of, uniform
from test_attngan import LENGTH, WORDS, Patches, Words, batch

from experiments import mirrorgan_birds, mirrorgan_coco, mirrorgan_shapes
from t2i_jax import config as settings
from t2i_jax import stage as core
from t2i_jax.data.text import Vocabulary
from t2i_jax.encoders import resnet
from t2i_jax.encoders.pretrained import IMAGENET, PretrainedTrunk
from t2i_jax.losses import caption_loss
from t2i_jax.metrics.resize import resize
from t2i_jax.run import Run, describe
from t2i_jax.runtime.errors import RunError
from t2i_jax.stage import Meta
from t2i_jax.systems.attngan import AttnGan
from t2i_jax.systems.mirrorgan import (
    Captioner,
    MirrorGan,
    PictureFeature,
    SentenceAttention,
    Stream,
)

META = Meta('birds', vocabulary_size=WORDS, size=16, length=LENGTH)
GAN = dict(scales=2, gf=2, df=2, nz=5, nc=3, residuals=1)
OFF = dict(sentence_attention=False, lambda_stream=0.0)


def captioner(*writes, words=WORDS, scale=0.8):
    """A captioner with weights; writes: end, max_words, beam."""
    return nnx.merge(
        *filled(shapes_of(lambda: Captioner(words, 4, 5, *writes, rngs=nnx.Rngs(0))), scale)
    )


def parts(cls=MirrorGan, stream=True, **keywords):
    """Shapes of a small stage with stand-ins for the DAMSM."""

    def make():
        networks = dict(text=Words(6, rngs=nnx.Rngs(0)), image=Patches(6, rngs=nnx.Rngs(0)))
        if cls is MirrorGan:
            small = 'small', '', 'half_pixel', (3, 4), False
            feature = PictureFeature(16, 4, *small, rngs=nnx.Rngs(0))
            networks |= dict(
                feature=feature if stream else None,
                captioner=Captioner(WORDS, 4, 5, rngs=nnx.Rngs(0)) if stream else None,
            )
        return cls(META, **(GAN | keywords), **networks, rngs=nnx.Rngs(0))

    return shapes_of(make)


def built(*args, **keywords):
    return nnx.merge(*filled(parts(*args, **keywords), scale=0.2))


# -------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    'experiment, words', [(mirrorgan_birds, 5_768_010), (mirrorgan_coco, 22_568_353)]
)
def test_published_sizes(experiment, words):
    told = describe(experiment.get_config())
    # AttnGAN's for birds, and two sentence attentions
    sizes = {'gan.G': 7_084_592 + 20_800, 'gan.D': 97_596_678, 'stream.captioner': words}
    for network, size in sizes.items():
        assert re.search(rf'^{re.escape(network)} +{size:,} +trained$', told, re.MULTILINE)


def test_resnet_152_and_the_layers_after_it_have_the_published_sizes():
    learnt = {name: s for name, s in resnet.shapes().items() if 'running' not in name}
    total = sum(int(np.prod(shape)) for shape in learnt.values())
    assert total == 60_192_808 and total - 1000 * 2049 == 58_143_808
    keywords = ('resnet152', '', 'half_pixel', (), False)
    feature = nnx.eval_shape(lambda: PictureFeature(256, 256, *keywords, rngs=nnx.Rngs(0)))
    assert count(core.split(feature).params) == 525_056  # 524,544 and 512
    maps = jax.eval_shape(
        lambda x: resnet.ResNetTrunk('', False).net.maps(x),
        jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32),
    )
    assert [x.shape[1:] for x in maps] == [
        (56, 56, 256),
        (28, 28, 512),
        (14, 14, 1024),
        (7, 7, 2048),
    ]


@pytest.mark.slow
def test_resnet_152_is_torchvisions():
    """With seeded weights, against the committed values of tests/oracles."""
    path = pathlib.Path(__file__).parent / 'oracles' / 'networks.json'
    pictures = np.random.default_rng(1).integers(0, 256, (2, 80, 64, 3), np.uint8)
    pictures[1::2] //= 4
    graph, state = nnx.split(resnet.ResNet())
    out = jax.jit(lambda state, x: nnx.merge(graph, state)(x))(
        state, resize(pictures, resnet.SIZE, 'torch_bilinear')
    )
    for name, rows in json.loads(path.read_text())['resnet152'].items():
        found = np.concatenate([out[name].mean(1, keepdims=True), out[name][:, :4]], 1)
        np.testing.assert_allclose(found, rows, rtol=1e-3, err_msg=name)


# ------------------------------------------------------------------------------------ captioner
def test_a_caption_of_l_words_has_l_logits_and_the_first_reads_the_picture_alone():
    net, feature = captioner(), uniform(2, 4)
    tokens = jnp.array([[3, 5, 7], [3, 5, 7]])
    logits = net(feature, tokens)
    assert logits.shape == (2, 3, WORDS) and (logits[0] != logits[1]).any(-1).all()
    for t in range(3):
        # a word changes what comes after it, and nothing before it
        changed = net(feature, tokens.at[:, t].set(9))
        np.testing.assert_array_equal(changed[:, : t + 1], logits[:, : t + 1])
        assert t == 2 or (changed[:, t + 1 :] != logits[:, t + 1 :]).any()


def test_the_loss_is_of_words_and_never_of_padding():
    logits, length = uniform(2, 4, WORDS), jnp.array([2, 3])
    tokens = jnp.array([[4, 9, 0, 0], [1, 2, 3, 0]])
    each = -np.log(np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum(-1, keepdims=True))
    words = [each[b, t, tokens[b, t]] for b in range(2) for t in range(length[b])]
    ends = [each[0, 2, 0], each[1, 3, 0]]
    found = caption_loss(logits, tokens, length)
    assert found == pytest.approx(np.mean(words), rel=1e-5)
    assert caption_loss(logits, tokens, length, reduction='sum') == pytest.approx(
        np.sum(words) / 2, rel=1e-5
    )
    assert caption_loss(logits, tokens, length, end=True) == pytest.approx(
        np.mean(words + ends), rel=1e-5
    )
    # a caption that fills its place has no end that is known, one without words nothing to say
    full = caption_loss(logits[:, :2], tokens[:, :2], jnp.array([2, 0]), end=False)
    assert full == pytest.approx(np.mean(words[:2]), rel=1e-5)
    assert caption_loss(logits, tokens, jnp.zeros(2, int)) == 0


def likelihood(net, feature, ids):
    """log p of captions, 0 ends them; by teacher forcing."""
    logits = np.float64(net(jnp.repeat(feature, len(ids), 0), jnp.asarray(ids)))
    if not net.end:
        logits[:, :, 0] = -np.inf
    each = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = np.take_along_axis(each, np.asarray(ids)[..., None], 2)[..., 0]
    before = np.cumsum(np.asarray(ids) == 0, 1) - (np.asarray(ids) == 0)
    return np.where(before > 0, 0, own).sum(1)


def test_greedy_captions_take_the_likeliest_word_and_stop_in_time():
    net, feature = captioner(), uniform(3, 4)
    ids, score = net.read(feature)
    assert ids.shape == (3, 20) and (ids > 0).all()  # no end was learnt
    logits = net(feature, ids)
    np.testing.assert_array_equal(logits[..., 1:].argmax(-1) + 1, ids)
    np.testing.assert_allclose(score[:1], likelihood(net, feature[:1], ids[:1]), rtol=1e-4)


@pytest.mark.parametrize('end', [False, True])
def test_a_wide_beam_finds_the_likeliest_caption_of_all(end):
    feature, keywords = uniform(2, 4), dict(words=4, scale=1.5)
    net = captioner(end, 3, 64, **keywords)
    (ids, score), (_, greedy) = net.read(feature), captioner(end, 3, **keywords).read(feature)
    for i in range(2):
        every = np.array(list(itertools.product(range(4), repeat=3)))
        # what follows an end is not said
        every = every[[row.all() or not row[np.argmax(row == 0) :].any() for row in every]]
        known = likelihood(net, feature[i : i + 1], every)
        assert (ids[i] == every[known.argmax()]).all()
        assert score[i] == pytest.approx(known.max(), rel=1e-4) and score[i] >= greedy[i] - 1e-5


def test_what_stream_refuses():
    for meta, keywords, message in (
        (META, dict(beam=13), 'beam=13, max_words=20: set both to 1 or more'),
        (META._replace(vocabulary_size=0), {}, 'these data have no captions'),
        (META._replace(captions=5), {}, 'set data.captions=1'),
    ):
        with pytest.raises(ValueError, match=message):
            nnx.eval_shape(
                lambda meta=meta, keywords=keywords: Stream(
                    meta, trunk='small', channels=(3, 4), **keywords, rngs=nnx.Rngs(0)
                )
            )
    with pytest.raises(RunError, match="ResNet-152's weights cannot be installed by pip"):
        Stream.check(dict(trunk='resnet152', weights=''))


# ------------------------------------------------------------------------------------------- GLAM
@pytest.mark.parametrize('softmax, axes', [('channel', 3), ('spatial', (1, 2))])
def test_the_sentence_is_shared_out_over_channels_or_pixels(softmax, axes):
    parts = filled(shapes_of(lambda: SentenceAttention(3, 5, softmax, rngs=nnx.Rngs(0))), 0.5)
    attention, x, condition = nnx.merge(*parts), uniform(2, 4, 4, 5), uniform(2, 3)
    told, shares = attention.shares(x, condition)
    np.testing.assert_allclose(shares.sum(axes), 1, rtol=1e-5)
    np.testing.assert_allclose(attention(x, condition), told * shares, rtol=1e-5)
    assert count(parts.params) == 3 * 5 + 5 + 5 * 5


def test_without_stream_and_sentence_attention_it_is_attngan_bit_by_bit():
    mirror, attn = built(**OFF, stream=False, damsm_weight=5.0), built(AttnGan)
    assert bit_equal(core.split(mirror).params, core.split(attn).params)
    data, key, found = batch(), jax.random.key(1), []
    for stage in (mirror, attn):
        assert stage.needs == attn.needs and stage.taught_by == ('damsm',)
        out = stage.forward(data, key)
        found.append((out, stage.d_loss(data, key, out), stage.g_loss(data, key, out)))
    assert bit_equal(*found) and set(found[0][2][1]) == set(found[1][2][1])


def test_the_generator_pays_for_each_word_that_stream_would_not_have_said():
    data, key = batch(), jax.random.key(1)
    stage = built()
    out, plain = stage.forward(data, key), built(lambda_stream=0.0)
    loss, logs = stage.g_loss(data, key, out)
    without, other = plain.g_loss(data, key, out)
    without = float(without)
    assert set(logs) - set(other) == {'stream_mean', 'stream_sum'} and 'words' not in logs
    logits = stage.captioner(stage.feature(out.images[-1], train=False), data['tokens'])
    mean, total = (
        float(caption_loss(logits, data['tokens'], data['length'], reduction=name))
        for name in ('mean', 'sum')
    )
    # 2 + 5 + 3 + 4 words of four captions
    assert total == pytest.approx(mean * 14 / 4, rel=1e-5)
    assert loss == pytest.approx(without + 20 * mean, rel=1e-5)
    summed = built(stream_reduction='sum', lambda_stream=10.0).g_loss(data, key, out)[0]
    assert summed == pytest.approx(without + 10 * total, rel=1e-5)
    assert logs['stream_sum'] == pytest.approx(total)
    slope = jax.grad(
        lambda x: caption_loss(
            stage.captioner(stage.seen(x), data['tokens']), data['tokens'], data['length']
        )
    )(out.images[-1])
    assert (np.abs(slope).max((1, 2, 3)) > 0).all()  # to every picture, through frozen networks


def test_stream_norm_none_puts_pictures_in_the_place_of_normalised_ones():
    class Normalised(PretrainedTrunk):
        """Gives what a trunk reads after its normalisation."""

        def __init__(self):
            pass

        def __call__(self, x, *, train):
            return (((x + 1) / 2 - jnp.array(IMAGENET[0])) / jnp.array(IMAGENET[1]),)

    class Feature:
        trunk = Normalised()

        def __call__(self, x, *, train):
            return self.trunk(x, train=train)[0]

    pictures = uniform(2, 16, 16, 3)
    for norm, close in (('none', True), ('imagenet', False)):
        stage = built(stream_norm=norm)
        stage.feature = Feature()
        assert np.allclose(stage.seen(pictures), pictures, atol=1e-5) == close


def test_what_pixels_read_of_the_sentence_and_what_stream_says_can_be_shown():
    stage = built()
    sampler, texts = sampler_of(stage, META, Vocabulary('abcdefghijk')), ['one', 'two']
    given = {'encoded': sampler.encode(jax.tree.map(lambda x: x[:2], batch()))}
    pictures, labels = stage.redescriptions(sampler, given, texts, 3, 0)
    assert pictures.shape == (6, 1, 16, 16, 3) and len(labels[0].split('read: ')[1].split()) == 20
    assert [label.splitlines()[0] for label in labels] == ['one'] * 3 + ['two'] * 3
    plain = sampler.sample(given, sampler.noise(1, 0, 2), (2,))['image']
    np.testing.assert_array_equal(pictures[::3, 0], plain)
    pictures, _ = stage.sentence_sheet(sampler, given, texts, 1, 0)
    # the picture, and one map of 8 px that is white somewhere
    assert pictures.shape == (2, 2, 16, 16, 3) and (pictures[:, 1].max((1, 2, 3)) == 255).all()
    np.testing.assert_allclose(pictures[:, 0], plain, atol=1)
    assert set(built(**OFF, stream=False).explores) == set()


# ------------------------------------------------------------------------------------ stages, runs
def test_what_a_run_uses_and_refuses():
    config = mirrorgan_shapes.get_config('tiny').unlock()
    assert Run(config).names == ['damsm', 'stream', 'gan']
    config.stages.stream.steps = 0
    assert Run(config).names == ['damsm', 'gan']
    with pytest.raises(RunError, match='lambda_stream=20 needs the captioner: give stages.stream'):
        describe(config)
    config.stages.gan.model.lambda_stream = 0.0
    assert 'gan.captioner' not in describe(config)
    with pytest.raises(ValueError, match="sent_softmax is 'pixels'"):
        parts(sent_softmax='pixels')


def test_a_stream_of_another_vocabulary_is_refused(tmp_path):
    config, other = mirrorgan_shapes.get_config('tiny'), tmp_path / 'other'
    other.mkdir()
    (other / 'config.json').write_text(settings.to_json(config))
    Vocabulary(['a', 'red', 'circle']).save(other / 'vocabulary.json')
    Vocabulary(['a', 'circle', 'red']).save(tmp_path / 'vocabulary.json')
    config.init.stream = config.init.damsm = str(other)
    with pytest.raises(RunError, match=r'has another vocabulary \(3 words, hash \w{12}\)'):
        Run(config, tmp_path)['gan'].loaded_weights(None)
