"""Obj-GAN: formulas, sizes, what objects read, which pairs are wrong."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import batch_for, count, filled, shapes_of

from t2i_jax import stage as core
from t2i_jax.encoders import word_vectors
from t2i_jax.encoders.bi_lstm import BiLstm
from t2i_jax.layers import attention
from t2i_jax.layers import object_critics as critics
from t2i_jax.layers.objects import Objects
from t2i_jax.layers.shapes import ShapeGenerator
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.systems import obj_gan as system

WORDS = 'a', 'red', 'blue', 'circle', 'square', 'ring', 'and', 'the', 'left'
META = core.Meta(
    'toy',
    vocabulary_size=10,
    length=6,
    size=16,
    object_classes=3,
    max_objects=4,
    object_names=('circle', 'square', 'big ring'),
    words=WORDS,
)
KEY = jax.random.key(0)


class Eyes(nnx.Module):
    """A picture encoder of one layer: b s s 3 -> (regions b 4 d, code b d)."""

    def __init__(self, d, *, rngs):
        self.layer = nnx.Linear(3, d, rngs=rngs)

    def __call__(self, x, *, train):
        s = x.shape[1] // 2
        cells = x.reshape(len(x), 2, s, 2, s, 3).mean((2, 4)).reshape(len(x), 4, 3)
        regions = self.layer(cells)
        return regions, regions.mean(1)


class BoxReader(system.FromWords):
    """What the stage of boxes reads."""


def built(make):
    return nnx.merge(*filled(shapes_of(make)))


def box_stage(**keywords):
    def make():
        text = BiLstm(META.vocabulary_size, 8, embedding=4, rngs=nnx.Rngs(1))
        return system.ObjGanBoxes(META, components=2, text=text, rngs=nnx.Rngs(0), **keywords)

    return built(make)


def image_stage(meta=META, d=8, boxes=None, **keywords):
    keywords = system.ObjGan.tiny | dict(first_residuals=1, leave_out='none') | keywords

    def make():
        rngs = nnx.Rngs(1)
        text = BiLstm(meta.vocabulary_size, d, embedding=4, rngs=rngs)
        loaded = dict(
            text=text,
            image=Eyes(d, rngs=rngs),
            boxes=boxes,
            shapes=ShapeGenerator(meta.object_classes, 2, 16, rngs=rngs),
        )
        return system.ObjGan(meta, rngs=nnx.Rngs(0), **loaded, **keywords)

    return built(make)


@pytest.fixture(scope='module')
def trial():
    """(stage, batch, the generator's pass)."""
    stage = image_stage()
    batch = batch_for(stage.needs, META)
    return stage, batch, stage.forward(batch, KEY)


# -------------------------------------------------------------------------------------------- sizes
def test_networks_have_the_sizes_of_the_released_ones():
    meta = core.Meta(
        'coco', vocabulary_size=9, size=256, object_classes=80, max_objects=10, nominal=True
    )

    def make():
        rngs = nnx.Rngs(0)
        loaded = dict(text=BiLstm(9, rngs=rngs), image=Eyes(256, rngs=rngs))
        return system.ObjGan(meta, boxes=None, shapes=None, rngs=rngs, **loaded)

    params = shapes_of(make).params
    assert count(params['G']) == 19_344_452
    D = params['D']
    assert [count(one) for one in D['patches'].values()] == [13_304_450] * 3
    assert [count(one) for one in D['layouts'].values()] == [6_239_821] * 3
    assert (count(D['small']), count(D['large'])) == (5_545_934, 12_625_358)


def test_boxes_and_shapes_have_the_sizes_of_the_released_ones():
    def boxes(attention):
        return lambda: system.WordBoxes(82, 256, 5, attention, True, (0.4, 0.0), rngs=nnx.Rngs(0))

    plain = count(shapes_of(boxes(False)).params)
    # 83 labels
    assert plain == 693_665
    more = count(shapes_of(boxes(True)).params) - plain
    assert more == 256 * 1024 + 512 * 256 + 256 + 256
    shapes = shapes_of(lambda: ShapeGenerator(80, 80, 64, 'glu', rngs=nnx.Rngs(0)))
    assert count(shapes.params) == 15_553_360


# ----------------------------------------------------------------------------- objects and words
def test_objects_look_at_words_that_are_there():
    draws = np.random.default_rng(0)
    labels, words = draws.normal(size=(2, 3, 5)), draws.normal(size=(2, 6, 5))
    mask = jnp.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    for kind in attention.COMPARISONS:
        looks = attention.object_attention(jnp.array(labels), jnp.array(words), mask, kind)
        np.testing.assert_allclose(looks.sum(-1), 1, rtol=1e-5)
        assert (looks[0, :, 3:] == 0).all()
    np.testing.assert_allclose(looks[0, :, :3], 1 / 3, rtol=1e-5)
    garbage = jnp.array(words).at[0, 3:].set(9)
    for one in (words, garbage):
        looks = attention.object_attention(jnp.array(labels), jnp.array(one), mask, 'dot', 2.0)
        scores = np.exp(2 * labels[0] @ words[0, :3].T)
        np.testing.assert_allclose(
            looks[0, :, :3], scores / scores.sum(-1, keepdims=True), rtol=1e-4
        )


def test_cosines_without_a_factor_are_nearly_uniform():
    """Of twelve words, one with a cosine of 1, the others of .2: .17 of the attention."""
    label = jnp.array([[[1.0, 0]]])
    other = jnp.array([0.2, (1 - 0.2**2) ** 0.5])
    words = jnp.stack([3 * label[0, 0], *[other] * 11])[None]
    weak, strong = (
        attention.object_attention(label, words, jnp.ones((1, 12)), 'cosine', scale)[0, 0, 0]
        for scale in (1, 10)
    )
    assert weak == pytest.approx(0.17, abs=0.005) and strong > 0.99


def test_labels_are_the_words_of_their_names():
    assert word_vectors.label_ids(META) == ((4,), (5,), (6,))
    assert word_vectors.label_ids(META._replace(words=())) == ((1,), (2,), (3,))
    stage = image_stage(attention='cosine', attention_scale=10.0)
    table = stage.text.embed.embedding[...]
    vectors = stage.label_vectors(jnp.array([[1, 2, -1]]))
    np.testing.assert_array_equal(vectors[0, :2], table[5:7])
    assert (vectors[0, 2] == 0).all()
    # a red circle and the square
    tokens = jnp.array([[1, 2, 4, 7, 8, 5]])
    text = stage.encode({'tokens': tokens, 'length': jnp.array([6])})
    looks = stage.G.look(text, stage.label_vectors(jnp.array([[0, 1]])))
    assert looks[0].argmax(-1).tolist() == [2, 5]
    conditions = stage.G.conditions(text, stage.label_vectors(jnp.array([[0, 1]])))
    context = text.words[0] @ stage.G.stages[-1].value.kernel[...]
    np.testing.assert_allclose(conditions[0, :, 4:], looks[0] @ context, rtol=1e-4, atol=1e-5)


def test_vectors_are_laid_into_masks():
    masks = np.zeros((1, 2, 3, 2), np.float32)
    masks[0, 0, :2, 0], masks[0, 0, 1:, 1] = 1, 1
    vectors = jnp.array([[[2.0, -1], [4, -3]]])
    mean = attention.spread(vectors, jnp.array(masks))
    assert mean[0, 0].tolist() == [[2, -1], [3, -2], [4, -3]] and (mean[0, 1] == 0).all()
    largest = attention.spread(vectors, jnp.array(masks), largest=True)
    # what is below 0 is lost where another object is not
    assert largest[0, 0].tolist() == [[2, 0], [4, -1], [4, 0]]


def test_glove_is_read_from_files(tmp_path):
    path = tmp_path / 'glove.txt.gz'
    lines = ['circle 1 2', 'big 0 2', 'ring 2 4', 'zebra 9 9', 'red -1 0.5']
    path.write_bytes(gzip.compress('\n'.join(lines).encode()))
    found = word_vectors.word_vectors(META, str(path), 2)
    assert found.labels[...].tolist() == [[1, 2], [0, 0], [1, 3]]
    words = np.asarray(found.words[...])
    assert words[2].tolist() == [-1, 0.5] and (words[[0, 1, 3]] == 0).all()
    assert found.words.shape == (10, 2)
    with pytest.raises(DataError, match='vectors of 2 numbers, and vector_size is 50'):
        word_vectors.word_vectors(META, str(path), 50)
    path.write_bytes(gzip.compress(b'circle one two'))
    with pytest.raises(DataError, match='a word and its numbers a line'):
        word_vectors.word_vectors(META, str(path), 2)
    with pytest.raises(RunError, match='vectors=damsm'):
        word_vectors.require_vectors(str(tmp_path / 'nowhere.txt'), 'image')


def test_glove_is_read_from_its_package(tmp_path):
    pyarrow = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    np.save(tmp_path / 'vectors.npy', np.arange(6, dtype=np.float32).reshape(3, 2))
    table = pyarrow.table({'index': ['the', 'ring', 'x']})
    parquet.write_table(table, tmp_path / 'index.parquet')
    found = word_vectors.read_vectors(tmp_path / 'vectors.npy', {'ring', 'square'})
    assert list(found) == ['ring'] and found['ring'].tolist() == [2, 3]


# -------------------------------------------------------------------------------------------- boxes
def test_boxes_look_at_words_by_what_has_been_said():
    stage = box_stage()
    batch = batch_for(stage.needs, META)
    text, decoder = stage.encode(batch), stage.boxes
    for layer in (decoder.match, decoder.score):
        layer.kernel[...] *= 20
    first, second = (decoder.attend(jnp.full((4, 8), x), text) for x in (0.0, 1.0))
    np.testing.assert_allclose(first.sum(-1), 1, rtol=1e-5)
    assert (np.asarray(first)[np.asarray(text.mask) == 0] == 0).all()
    assert np.abs(first - second).max() > 1e-3
    # the size of a box knows its place, and whatever follows the end nothing
    h, label = jnp.ones((1, 8)), jnp.eye(4)[:1]
    means = [decoder.wh(h, label, jnp.full((1, 2), x)).mean for x in (0.0, 1.0)]
    assert np.abs(means[0] - means[1]).max() > 1e-3
    stage.training = False
    garbage = batch | {'boxes': batch['boxes'].at[:, 2:].set(0.3)}
    longer = batch | {'tokens': jnp.pad(batch['tokens'], ((0, 0), (0, 3)))}
    for other in (garbage, longer):
        np.testing.assert_allclose(
            stage.box_loss(batch, KEY, None)[0], stage.box_loss(other, KEY, None)[0], rtol=1e-5
        )


def test_labels_weigh_by_their_counts():
    stage = box_stage(label_power=0.8)
    labels = jnp.array([[0, 0, 1, -1], [0, -1, -1, -1]])
    boxes = jnp.where((labels >= 0)[..., None], 0.3, 0.0) * jnp.ones(4)
    counts = stage.boxes.counts
    for total in (counts.layouts, counts.scenes, counts.objects, counts.squares):
        total[...] = jnp.zeros_like(total[...])
    counts.observe(Objects(boxes, labels))
    assert counts.objects[...].tolist() == [3, 1, 0] and counts.layouts[...] == 2
    weights = counts.weights(0.8)
    assert weights[1] / weights[0] == pytest.approx(3**0.8, rel=1e-5)
    # labels 0, 1, (2: as if met once), the end
    assert (jnp.array([3, 1, 1, 2]) * weights).sum() == pytest.approx(7, rel=1e-5)
    np.testing.assert_allclose(counts.weights(0.0), 1, rtol=1e-6)
    # class 0: 1.5 +- .5 objects; never less than two are allowed
    assert counts.most(jnp.array([[0.0, 0, 0], [4, 0, 0]])).tolist() == [[2, 2, 2], [3, 2, 2]]


def test_no_class_has_more_objects_than_in_training():
    stage = box_stage(label_temperature=0.0)
    # always class 1, and never the end
    stage.boxes.labels.kernel[...] *= 0
    stage.boxes.labels.bias[...] = jnp.array([0.0, 9, 0, -9])
    for total in ('scenes', 'objects', 'squares'):
        getattr(stage.boxes.counts, total)[...] = jnp.ones(3)
    batch, noise = batch_for(stage.needs, META), stage.noise(KEY, 4)
    assert stage.sample(batch, noise)['object_labels'].tolist() == [[1, 1, -1, -1]] * 4
    stage.boxes.limit = False
    assert (stage.sample(batch, noise)['object_labels'] == 1).all()


# --------------------------------------------------------------------------------------- pictures
def test_every_object_is_judged_by_one_discriminator():
    sides = jnp.array([[0.01, 0.2, 0.3, 0.39], [0.41, 0.45, 0.6, 0.9]])
    boxes = jnp.stack([jnp.full((2, 4), 0.5)] * 2 + [sides, sides / 2], -1)
    objects = Objects(boxes, jnp.zeros((2, 4), jnp.int32).at[1, 3].set(-1))
    found = critics.routed(objects)
    assert found['small'].tolist() == [[True] * 4, [False] * 4]
    assert found['large'].tolist() == [[False] * 4, [True, True, True, False]]
    code = critics.routed(objects, legacy=True)
    assert code['small'].tolist() == [[False, True, False, False], [False] * 4]
    assert code['large'].tolist() == [[False] * 4, [False, False, True, False]]


def test_the_next_object_is_one_that_is_there():
    there = jnp.array([False, True, False, True, True, False])
    assert critics.next_of(there)[there].tolist() == [3, 4, 1]
    assert critics.next_of(jnp.zeros(3, bool)).max() < 3


def test_wrong_labels_are_those_of_other_objects():
    """The next object; not one of the same label in the same scene, which reads the same words."""
    labels = jnp.array([[0, 0, 1, -1], [1, 2, -1, -1]])
    there = (labels >= 0) & jnp.array([[True, True, True, True], [True, False, True, True]])
    other, wrong = critics.other_objects(labels, there)
    assert other[wrong].tolist() == [2, 4, 0]
    # the first circle's next is a circle of its scene; two squares of two scenes may differ
    assert wrong.tolist() == [False, True, True, False, True, False, False, False]
    alone = jnp.zeros((2, 4), bool).at[1, 0].set(True)
    assert not critics.other_objects(labels, alone)[1].any()


def softplus(logits, there=None):
    values = jax.nn.softplus(logits)
    return float(values.mean() if there is None else values[there].mean())


def test_losses_of_patches_weigh_the_sentence_a_tenth(trial):
    stage, batch, out = trial
    loss, logs = stage.d_loss(batch, KEY, out)
    parts = ('d_8', 'd_16', 'd_shape_8', 'd_shape_16', 'd_small', 'd_large')
    assert loss == pytest.approx(sum(float(logs[name]) for name in parts), rel=1e-5)
    D, sentence = stage.D.patches[1], out.text.sentence
    real, fake = (D.trunk(x, train=True) for x in (batch['image'], out.images[1]))
    free = [softplus(sign * D.real(x, train=True)) for sign, x in ((-1, real), (1, fake))]
    match = [
        softplus(sign * D.match(x, s, train=True))
        for sign, x, s in (
            (-1, real, sentence),
            (1, fake, sentence),
            (1, real[:-1], sentence[1:]),
        )
    ]
    expected = (free[0] + 0.1 * match[0]) / 2 + (free[1] + 0.1 * (match[1] + match[2])) / 3
    assert logs['d_16'] == pytest.approx(expected, rel=1e-4)
    loss, logs = stage.g_loss(batch, KEY, out)
    parts = ('g_8', 'g_16', 'g_shape_8', 'g_shape_16', 'g_small', 'g_large', 'kl')
    expected = sum(float(logs[name]) for name in parts)
    expected += 100 * float(logs['words'] + logs['sentence'])
    assert loss == pytest.approx(expected, rel=1e-5)
    expected = softplus(-D.real(fake, train=True))
    expected += 0.1 * softplus(-D.match(fake, sentence, train=True))
    assert logs['g_16'] == pytest.approx(expected, rel=1e-4)


def test_wrong_layouts_are_wrong(trial):
    stage, batch, out = trial
    objects = stage.scene(batch)
    labels, changed = system.other_classes(objects.labels, 3)
    layout, wrong = stage.laid_out(objects), stage.laid_out(objects, labels)
    assert changed.any() and not changed.all()
    differ = np.abs(layout.maps - wrong.maps).max((1, 2, 3)) > 0
    assert (differ == changed).all()
    other = (labels != objects.labels) & objects.there
    assert (other.any(1) == changed).all()
    assert (np.abs(layout.vectors - wrong.vectors).max(-1) > 0)[np.asarray(other)].all()
    np.testing.assert_array_equal(layout.masks, wrong.masks)
    D, real = stage.D.layouts[1], batch['image']
    right, fake, mixed = (
        D(D.joined(x, one.maps), train=True)
        for x, one in ((real, layout), (out.images[1], layout), (real, wrong))
    )
    expected = softplus(-right) + (softplus(fake) + softplus(mixed[changed])) / 2
    assert stage.d_loss(batch, KEY, out)[1]['d_shape_16'] == pytest.approx(expected, rel=1e-4)


def test_discriminators_of_objects_see_those_that_are_there(trial):
    stage, batch, out = trial
    objects = stage.scene(batch)
    there, D = critics.routed(objects, stage.large)['small'], stage.D.small
    layout, image = stage.laid_out(objects), batch['image']
    maps = D.trunk(D.joined(image, layout.maps), train=True)
    seen = D.objects(maps, objects.boxes)
    logits = D.match(seen, out.conditions, there, train=True)
    # batch norm, too, sees them alone
    rows = np.flatnonzero(there.reshape(-1))
    alone = D.matching(seen[rows], out.conditions.reshape(16, -1)[rows], train=True)
    np.testing.assert_allclose(logits.reshape(-1)[rows], alone[:, 0], rtol=1e-3, atol=1e-5)
    none = D.match(seen, out.conditions, jnp.zeros_like(there), train=True)
    assert np.isfinite(none).all()


def test_pictures_without_objects_can_be_learnt_and_drawn(trial):
    stage, batch, _ = trial
    empty = batch | {'object_labels': jnp.full((4, 4), -1)}
    out = stage.forward(empty, KEY)
    for loss, logs in (stage.d_loss(empty, KEY, out), stage.g_loss(empty, KEY, out)):
        assert np.isfinite(loss) and all(np.isfinite(x) for x in logs.values())
    assert logs['g_small'] == 0 and logs['g_large'] == 0
    noise = {name: x for name, x in stage.G.noise(KEY, 4).items()}
    noise['shape_z'] = jnp.zeros((4, 4, stage.shapes.nz))
    given = {'given_boxes': jnp.zeros((4, 4, 4)), 'given_labels': jnp.full((4, 4), -1)}
    drawn = stage.sample(batch | given, noise)
    assert np.isfinite(drawn['image']).all() and (drawn['masks'] == 0).all()


def test_a_picture_is_painted_of_the_given_layout_in_one_row(trial):
    """Other objects of the batch do not matter; `legacy` is another function."""
    stage, batch, _ = trial
    text, objects = stage.encode(batch), stage.scene(batch)
    noise = stage.G.noise(KEY, 4)

    def drawn(one, layout):
        return one.G(text, layout, **noise, train=False).images[-1]

    image = drawn(stage, stage.laid_out(objects))
    other = objects._replace(labels=objects.labels.at[1:].set(-1), masks=objects.masks * 0)
    other = other._replace(masks=other.masks.at[0].set(objects.masks[0]))
    again = drawn(stage, stage.laid_out(other))
    np.testing.assert_allclose(image[0], again[0], atol=1e-5)
    assert np.abs(image[1:] - again[1:]).max() > 1e-3
    assert image_stage(legacy=True).D.small.legacy


def test_boxes_read_sentences_as_they_learnt_them(trial):
    """`unit_text` is for G and D: the decoder of boxes was trained without."""
    stage, batch, _ = trial
    scaled = image_stage(unit_text=True)
    for one in (stage, scaled):
        raw = BoxReader.encode(one, batch)
        np.testing.assert_array_equal(one.encode(batch).sentence, raw.sentence)
    np.testing.assert_allclose((scaled.sentences(batch) ** 2).mean(-1), 1, rtol=1e-4)
    np.testing.assert_array_equal(stage.sentences(batch), raw.sentence)


def test_what_cannot_be_built_is_one_message():
    with pytest.raises(ValueError, match='attention'):
        image_stage(attention='sum')
    with pytest.raises(ValueError, match='vectors'):
        image_stage(vectors='word2vec')
    stage = image_stage()
    batch = batch_for(stage.needs, META, b=1)
    with pytest.raises(RunError, match='stages.image.batch_size to 2'):
        stage.d_loss(batch, KEY, stage.forward(batch, KEY))
