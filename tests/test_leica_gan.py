"""LeicaGAN: published sizes, the losses of both encoders, and that both priors are really read."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import batch_for, bit_equal, count, filled, sampler_of, shapes_of, uniform
from test_attngan import LENGTH, WORDS, Patches, Words, batch

from experiments import leica_gan_birds, leica_gan_flowers, leica_gan_shapes
from t2i_jax import stage as core
from t2i_jax.data.text import Vocabulary
from t2i_jax.encoders.sentence import WordsAndSentence
from t2i_jax.evaluate.reading import found_words, told_apart
from t2i_jax.explore.own import own_sheet
from t2i_jax.explore.priors import phi, phi_sheet, prior_swap, prior_swap_sheet
from t2i_jax.explore.request import Request
from t2i_jax.run import Run, describe
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.scenes import explored
from t2i_jax.stage import Meta
from t2i_jax.systems.leica_gan import (
    DomainClassifier,
    LeicaGan,
    Priors,
    TextImage,
    TextMask,
    reversed_gradient,
    triplet_loss,
)
from t2i_jax.systems.mirrorgan import Glam
from tfds_builders.facts import CLASS, COLOUR, EXISTS, W, table
from tfds_builders.shape_scenes.render import image
from tfds_builders.shape_scenes.scenes import sample

META = Meta('birds', vocabulary_size=WORDS, size=16, length=LENGTH, classes=3)
GAN = dict(scales=2, gf=2, df=2, nz=5, nc=3, residuals=1)
SMALL = dict(d=8, embedding=4, trunk='small', channels=(3, 4))
KEY = jax.random.key(0)


def gan_parts(mask_d=6, **keywords):
    """Shapes of a small stage with stand-ins for the encoders, different ones."""

    def make():
        networks = dict(text=Words(6, rngs=nnx.Rngs(0)), image=Patches(6, rngs=nnx.Rngs(0)))
        mask_text = Words(mask_d, rngs=nnx.Rngs(0)) if mask_d else None
        return LeicaGan(META, mask_text=mask_text, **networks, **(GAN | keywords), rngs=nnx.Rngs(0))

    return shapes_of(make)


def gan(**keywords):
    return nnx.merge(*filled(gan_parts(**keywords), scale=0.3))


def encoder(cls=TextImage, meta=META, **keywords):
    """A small pair of encoders with weights, in evaluation mode."""
    make = shapes_of(lambda: cls(meta, **(SMALL | keywords), rngs=nnx.Rngs(0)))
    stage = nnx.merge(*filled(make, scale=0.3))
    stage.training = False
    return stage


def encoder_batch(b=6):
    return batch_for(('image', 'mask', 'tokens', 'label'), META, b)


# -------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    'experiment, classes', [(leica_gan_birds, 51_400), (leica_gan_flowers, 257 * 102)]
)
def test_published_sizes(experiment, classes):
    told = describe(experiment.get_config())
    sizes = {'gan.G': 7_618_192, 'gan.D': 97_596_678, 'mask.classes': classes}
    sizes |= {f'{stage}.modality': 41_282 for stage in ('image', 'mask')}
    for network, size in sizes.items():
        assert re.search(rf'^{re.escape(network)} +{size:,} +trained$', told, re.MULTILINE)
    config = experiment.get_config().unlock()
    config.stages.gan.model.spare_layers = False
    # AttnGAN's, two sentence attentions, and a second sentence for the condition
    assert f'{7_084_592 + 20_800 + 256 * 400:,}' == '7,207,792' in describe(config)


# ------------------------------------------------------------------------------------------- learn
def triplets(vectors, label, margin):
    found = [
        max(0, np.linalg.norm(x - y) - np.linalg.norm(x - z) + margin)
        for i, x in enumerate(vectors)
        for j, y in enumerate(vectors)
        for k, z in enumerate(vectors)
        if i != j and label[i] == label[j] != label[k]
    ]
    return np.mean(found)


def test_all_triplets_of_a_batch_count():
    regions, label = 3 * uniform(5, 4, 3), jnp.array([0, 1, 0, 2, 1])
    flat = np.asarray(regions).reshape(5, -1)
    assert triplet_loss(regions, label, 1.0, unit=False) == pytest.approx(
        triplets(flat, label, 1.0), rel=1e-4
    )
    units = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    for factor in (1, 100):
        assert triplet_loss(factor * regions, label, 0.5) == pytest.approx(
            triplets(units, label, 0.5), rel=1e-4
        )
    for alone in ([0, 1, 2, 3, 4], [0] * 5):
        slope = jax.value_and_grad(triplet_loss)(regions, jnp.array(alone), 1.0)
        assert all((x == 0).all() for x in slope)


def test_the_reversed_gradient_leaves_numbers_as_they_are():
    x, weights = uniform(3, 4), uniform(3, 4, seed=1)
    assert bit_equal(reversed_gradient(x, 0.3), x)
    slope = jax.grad(lambda x: (weights * reversed_gradient(x, 0.3)).sum())(x)
    np.testing.assert_allclose(slope, -0.3 * weights, rtol=1e-6)


def test_encoders_make_alike_what_the_classifier_tells_apart():
    stage, data = encoder(), encoder_batch()
    graph, params, stats = core.split(stage)

    def slopes(step):
        def loss(params):
            module = nnx.merge(graph, params, stats)
            module.training = False
            strength = jnp.minimum(step / 1000, 1.0)
            return module.told_apart(module.codes(data), strength)[0]

        return jax.grad(loss)(params)

    start, half, full = (slopes(step) for step in (0, 500, 1000))
    # the classifier learns all the time, the encoders later, the other way round
    assert bit_equal(start['modality'], full['modality'])
    assert all((x == 0).all() for x in jax.tree.leaves((start['text'], start['image'])))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(2 * x, y, rtol=1e-4, atol=1e-7),
        half['text'],
        full['text'],
    )
    assert count(params['modality']) == 8 * 4 + 4 + 4 * 2 + 2 + 2 * 2 + 2


def test_lengths_of_vectors_may_be_hidden_from_the_classifier():
    data = encoder_batch()
    for unit in (False, True):
        stage = encoder(unit_modality=unit)
        stage.training = False
        codes = stage.codes(data)
        longer = codes._replace(code=9 * codes.code)
        same = np.allclose(stage.told_apart(codes)[0], stage.told_apart(longer)[0], rtol=1e-4)
        assert same == unit


def test_the_losses_of_the_text_image_encoder():
    stage = encoder(triplet_weight=2.0, modality_weight=3.0, damsm_weight=5.0)
    data = encoder_batch()
    loss, logs = stage.loss(data, KEY, None)
    codes = stage.codes(data)
    logits = np.asarray(stage.modality(jnp.stack([codes.code, codes.sentence]), train=False))
    each = -logits[..., [0, 1]] + np.log(np.exp(logits).sum(-1, keepdims=True))
    assert logs['modality'] == pytest.approx((each[0, :, 0] + each[1, :, 1]).mean() / 2, rel=1e-4)
    right = (logits[0].argmax(1) == 0) + 0.0 + (logits[1].argmax(1) == 1)
    np.testing.assert_array_equal(stage.measure(data, None)['domain_accuracy'], right / 2)
    found = sum(float(triplet_loss(x, data['label'], 1.0)) for x in (codes.regions, codes.code))
    assert logs['triplets'] == pytest.approx(found, rel=1e-5)
    damsm = logs['words'] + logs['sentences']
    total = 5 * damsm + 3 * logs['modality'] + 2 * logs['triplets']
    assert loss == pytest.approx(float(total), rel=1e-5) and 'class' not in logs


def test_the_text_mask_encoder_sees_masks_alone_and_names_the_class():
    stage, data = encoder(TextMask), encoder_batch()
    assert stage.needs == ('mask', 'tokens', 'length', 'label')
    assert stage.phases[0].trains == ('text', 'image', 'modality', 'classes')
    white = stage.codes(data | {'mask': jnp.ones_like(data['mask'])})
    by_hand = stage.image(jnp.ones((6, 16, 16, 3)), train=False)
    assert bit_equal((white.regions, white.code), by_hand)
    loss, logs = stage.loss({n: x for n, x in data.items() if n != 'image'}, KEY, None)
    codes = stage.codes(data)
    named = 0.0
    for x in (codes.code, codes.sentence):
        logits = np.asarray(stage.classes(x))
        each = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), data['label']]
        named += each.mean()
    assert logs['class'] == pytest.approx(named, rel=1e-4) and 'triplets' not in logs
    total = logs['words'] + logs['sentences'] + logs['modality'] + 0.5 * logs['class']
    assert loss == pytest.approx(float(total), rel=1e-5)


# ------------------------------------------------------------------------------ imagine and create
def test_the_second_prior_is_that_of_the_mask_encoder():
    """In the released code both are the same, whatever the text-mask encoder has learnt."""
    stage, data = gan(), batch()
    text = stage.encode(data)
    assert text.form.words.shape == text.words.shape and not bit_equal(text.form, text[:3])
    assert bit_equal(text.form.mask, text.mask)
    noise = stage.noise(KEY, 4)
    drawn = stage.sample(data, noise)['image']
    stage.mask_text = Words(6, rngs=nnx.Rngs(7))
    assert (np.abs(stage.sample(data, noise)['image'] - drawn).max((1, 2, 3)) > 0).all()
    released = gan(shape_prior='image')
    text = released.encode(data)
    assert released.mask_text is None and bit_equal(text.form, text[:3])


def test_with_phi_0_the_words_of_the_second_prior_do_not_count_and_with_1_those_of_the_first():
    stage, data, noise = gan(), batch(), gan().noise(KEY, 4)
    text = stage.encode(data)
    other = uniform(*text.words.shape, seed=5)

    def drawn(text, share):
        text = stage.weighed(text, np.full(4, share))
        return stage.sample({'encoded': text}, noise)['image']

    form = text._replace(form=text.form._replace(words=other))
    own = text._replace(words=other)
    assert bit_equal(drawn(text, 0), drawn(form, 0)) and bit_equal(drawn(text, 1), drawn(own, 1))
    assert not bit_equal(drawn(text, 0.2), drawn(form, 0.2))
    assert not bit_equal(drawn(text, 0), drawn(text, 1))
    # each row has its own share
    mixed = stage.weighed(text, [0, 1, 0, 1])
    rows = stage.sample({'encoded': mixed}, noise)['image']
    np.testing.assert_array_equal(rows[::2], drawn(text, 0)[::2])


def test_with_phi_0_and_a_deaf_condition_it_is_the_generator_of_one_prior():
    stage, data = gan(phi=0.0), batch()
    graph, params, stats = core.split(stage)
    params['G']['ca']['layer']['kernel'] = params['G']['ca']['layer']['kernel'].at[6:].set(0)
    stage, noise = nnx.merge(graph, params, stats), stage.noise(KEY, 4)
    keywords = (8, 16), 6, 2, 5, 3, 1, 2, 'fixed', False
    graph, *_ = shapes_of(lambda: Glam(*keywords, softmax='channel', rngs=nnx.Rngs(0)))
    layer = params['G']['ca']['layer']
    own = params['G'] | {'ca': {'layer': layer | {'kernel': layer['kernel'][:6]}}}
    one = nnx.merge(graph, own, stats['G'])
    text = stage.encode(data)
    expected = one(WordsAndSentence(*text[:3]), **noise, train=False)
    found = stage.G(text, **noise, train=False)
    for a, b in zip(found.images, expected.images):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_padding_is_not_looked_at_and_both_priors_show_where_they_look():
    stage, data, noise = gan(), batch(), gan().noise(KEY, 4)
    out = stage.sample(data, noise)
    first, second = out['attention']
    assert first.shape == second.shape == (4, 8, 8, LENGTH) and not bit_equal(first, second)
    for b, n in enumerate(data['length']):
        assert (first[b, ..., n:] == 0).all() and (second[b, ..., n:] == 0).all()
    np.testing.assert_allclose(second.sum(-1), 1, rtol=1e-5)
    longer = stage.sample(batch(length=LENGTH + 3), noise)['image']
    np.testing.assert_allclose(longer, out['image'], atol=1e-3)
    assert [x.shape for x in stage.forward(data, KEY).images] == [(4, 8, 8, 3), (4, 16, 16, 3)]


def test_what_stages_refuse():
    for keywords, message in (
        (dict(phi=1.5), 'phi=1.5 is a share'),
        (dict(shape_prior='text'), "shape_prior is 'text'"),
        (dict(mask_d=0), 'needs the text-mask encoder: give stages.mask steps'),
        (dict(mask_d=4), 'words of 6 dimensions, the text-mask encoder of 4'),
    ):
        with pytest.raises(ValueError, match=message):
            gan_parts(**keywords)
    with pytest.raises(ValueError, match=r'no classes.*stages.mask.model.class_weight=0'):
        encoder(TextMask, META._replace(classes=0))
    with pytest.raises(RunError, match='set stages.mask.batch_size to 2 or more'):
        encoder(TextMask).loss(encoder_batch(1), KEY, None)
    with pytest.raises(RunError, match='config.stages.mask.model.weights=<file>'):
        TextMask.check(dict(trunk='inception', weights=''))


def test_a_run_without_the_text_mask_encoder():
    config = leica_gan_shapes.get_config('tiny').unlock()
    assert Run(config).names == ['image', 'mask', 'gan']
    config.stages.mask.steps = 0
    with pytest.raises(RunError, match="shape_prior='mask' needs the text-mask encoder"):
        describe(config)
    config.stages.gan.model.shape_prior = 'image'
    assert Run(config).names == ['image', 'gan'] and 'gan.mask_text' not in describe(config)
    official = describe(leica_gan_birds.get_config('official'))
    assert 'modality' not in official and 'mask' not in official.split('data ')[0]


# ------------------------------------------------------------------------------------- explorations
def test_priors_are_exchanged_between_two_sentences():
    stage = gan()
    sampler = sampler_of(stage, META, Vocabulary('abcdefghijk'))
    pair = {'encoded': sampler.encode(jax.tree.map(lambda x: x[:2], batch()))}
    pictures = prior_swap(sampler, pair, 3)
    assert pictures.shape == (4, 3, 16, 16, 3)
    plain = sampler.sample(
        {'encoded': jax.tree.map(lambda x: np.repeat(x, 3, 0), pair['encoded'])},
        sampler.noise(3, 0, 2),
        (2, 3),
    )['image']
    np.testing.assert_array_equal(pictures[:2], plain)
    a, b = (jax.tree.map(lambda x, i=i: x[i : i + 1], pair['encoded']) for i in range(2))
    mixed = sampler.sample({'encoded': stage.swapped(b, a)}, sampler.noise(1, 0), (1,))['image']
    np.testing.assert_array_equal(pictures[3, 0], mixed[0])
    alike = jax.tree.map(lambda x: x[[0, 0]], pair['encoded'])
    four = prior_swap(sampler, {'encoded': alike}, 2)
    assert (four == four[:1]).all()

    found = prior_swap_sheet(Request(sampler, 'prior_swap', 2, 0, texts=['a b', 'c d']))
    assert found.pictures.shape == (4, 2, 16, 16, 3) and found.labels[2] == 'look: a b\nshape: c d'
    assert set(found.numbers) == {'pixel_change'}
    with pytest.raises(DataError, match='takes sentences in pairs'):
        prior_swap_sheet(Request(sampler, 'prior_swap', 2, 0, texts=['a']))


def test_the_share_of_the_second_prior_moves():
    sampler = sampler_of(gan(phi=0.5), META, Vocabulary('abcdefghijk'))
    pictures = phi(sampler, ['a b', 'c'], num=2, steps=3)
    assert pictures.shape == (4, 3, 16, 16, 3)
    plain = sampler.sample(
        {'encoded': jax.tree.map(lambda x: np.repeat(x, 2, 0), sampler.encode(['a b', 'c']))},
        sampler.noise(2, 0, 2),
        (4,),
    )['image']
    np.testing.assert_array_equal(pictures[:, 1], plain)
    found = phi_sheet(Request(sampler, 'phi', 2, 0, texts=['a b', 'c']))
    assert found.pictures.shape == (4, 9, 16, 16, 3) and found.labels == ['a b', '', 'c', '']
    assert len(found.numbers['pixel_change']) == 8
    shown = own_sheet(Request(sampler, 'sentence_attention', 2, 0, texts=['a b']))
    assert shown.pictures.shape == (2, 2, 16, 16, 3)


def test_what_mixed_pictures_show_is_read_off_them():
    texts = ['a red circle', 'a large blue square', 'two red rings', 'a cyan thing', 'a red square']
    assert explored.contrasts('single', texts + ['a green cross']) == [(0, 1), (4, 5)]
    assert explored.contrasts('', texts) == []

    def picture(kind, colour):
        """A picture of a white background."""
        scene = sample('single', 'test', 3)
        scene[0, :2], scene[-1, 0] = (kind, colour), 0
        return image(scene, 64)

    # circle 0, square 1; red 0, blue 2
    a, b, right, kept = (picture(*x) for x in ((0, 0), (1, 2), (1, 0), (1, 2)))
    pictures = np.stack([a, b, right, kept])[:, None, None]
    found = explored.mixed('single', pictures, texts[:1], texts[1:2])
    assert found['plain'] == {'class': 1, 'colour': 1} and found['pairs'] == 1
    # the first mixture has the shape of the second and the colour of the first, the other neither
    assert found['mixed'] == {
        'class_of_shape': 0.5,
        'colour_of_appearance': 1,
        'both': 0.5,
        'class_of_appearance': 0.5,
        'colour_of_shape': 0,
    }
    assert explored.mixed('single', pictures, texts[3:4], texts[:1]) == {}
    assert explored.mixed('', pictures, texts[:1], texts[1:2]) == {}


def test_the_classifier_of_modalities_drops_numbers_in_training_alone():
    net, x = DomainClassifier(8, rngs=nnx.Rngs(0)), uniform(5, 8)
    assert bit_equal(net(x, train=False), net(x, train=False, key=KEY))
    one, other = (net(x, train=True, key=jax.random.key(i)) for i in range(2))
    assert one.shape == (5, 2) and not bit_equal(one, other)


def test_sentences_carry_both_priors():
    text = Priors(*(uniform(2, 3) for _ in range(3)), None, jnp.array([0.2, 0.2]))
    other = text._replace(form='other')
    assert LeicaGan.swapped(text, other).form == 'other'


# ---------------------------------------------------------------------------------- evaluation
def test_the_best_of_some_captions_is_asked_for_single_words():
    draws, n, gallery = np.random.default_rng(0), 14, 4
    kinds, colours = draws.integers(0, 3, n), draws.integers(0, 2, n)
    facts = np.stack([table([(EXISTS, *pair, -1, 1, -1)]) for pair in zip(kinds, colours)])
    # one leaves the colour open
    facts[0, 0, 2] = -1
    scenes = np.full((n, 2, 8), -1)
    scenes[:, 0, CLASS], scenes[:, 0, COLOUR], scenes[:, 0, W] = kinds, colours, 100
    scores = draws.normal(size=(n, n)) + (kinds[:, None] == kinds)
    found = found_words(scores, facts, scenes, gallery)
    assert set(found) == {'class', 'colour'}
    assert np.isnan(found['colour'][0]).tolist() == [True] + [False] * (n - 1)
    for name, values in (('class', kinds), ('colour', colours)):
        for i in (3, 7):
            others = [j for j in range(name == 'colour', n) if j != i]
            every = list(itertools.combinations(others, gallery))
            best = [some[scores[i].take(some).argmax()] for some in every]
            hits = values[best] == values[i]
            assert found[name][0][i] == pytest.approx(np.mean(hits))
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    assert found['class'][1] == pytest.approx(np.mean([kinds[i] == kinds[j] for i, j in pairs]))
    alike = [(i, j) for i, j in pairs if i and j and kinds[i] == kinds[j]]
    assert found['colour'][1] == pytest.approx(
        np.mean([colours[i] == colours[j] for i, j in alike])
    )
    assert found_words(scores, facts, scenes, 100) == {}


def test_a_linear_reader_tells_modalities_apart_where_they_are_apart():
    draws = np.random.default_rng(0)
    pictures, sentences, new, others = draws.normal(size=(4, 400, 6))
    assert told_apart(pictures, sentences, new, others).mean() == pytest.approx(0.5, abs=0.08)
    assert told_apart(pictures + 9, sentences, new + 9, others).mean() == 1
    assert told_apart(pictures + 9, sentences, new, others + 9).shape == (400,)
