"""Hong et al.'s hierarchy of layouts: formulas, sizes, layouts by hand and edited."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import batch_for, count, filled, get_config, sampler_of, shapes_of

from t2i_jax import stage as core
from t2i_jax.data import conditions
from t2i_jax.data.layouts import read_layouts
from t2i_jax.draw.boxes import mask_in_frame, objects_of
from t2i_jax.encoders.small_cnn import SmallCnn
from t2i_jax.explore import layout as edits
from t2i_jax.layers import objects as objects_layer
from t2i_jax.metrics.layout import UNIFORM_NLL
from t2i_jax.runtime.errors import DataError
from t2i_jax.scenes import explored
from t2i_jax.scenes.agreement import layout
from t2i_jax.systems import hierarchical_layout as system
from tfds_builders.shape_scenes import render
from tfds_builders.shape_scenes.scenes import sample

NAMES = 'circle', 'square', 'ring'
META = core.Meta(
    'toy',
    vocabulary_size=20,
    length=6,
    size=16,
    object_classes=3,
    max_objects=4,
    embedding_dim=8,
    object_names=NAMES,
)
KEY = jax.random.key(0)


def built(make):
    return nnx.merge(*filled(shapes_of(make)))


def box_stage(**keywords):
    keywords = dict(width=8, components=2) | keywords
    return built(lambda: system.BoxStage(META, text=None, rngs=nnx.Rngs(0), **keywords))


def picture_net(rngs):
    return SmallCnn(16, (4, 8), 8, rngs=rngs)


def shape_stage(**keywords):
    keywords = system.ShapeStage.tiny | keywords

    def make():
        loaded = dict(text=None, picture=picture_net(nnx.Rngs(1)), boxes=None)
        return system.ShapeStage(META, rngs=nnx.Rngs(0), **loaded, **keywords)

    return built(make)


def image_stage(**keywords):
    keywords = system.ImageStage.tiny | keywords

    def make():
        rngs = nnx.Rngs(1)
        boxes = system.BoxStage(META, width=8, components=2, text=None, rngs=rngs).boxes
        shapes = system.ShapeGenerator(3, 4, 16, rngs=rngs)
        loaded = dict(text=None, picture=picture_net(rngs), boxes=boxes, shapes=shapes)
        return system.ImageStage(META, rngs=nnx.Rngs(0), **loaded, **keywords)

    return built(make)


def full(stage, meta=None, **loaded):
    """A stage of COCO at 128 px, in shapes."""
    meta = meta or core.Meta(
        'coco', object_classes=80, max_objects=10, size=128, embedding_dim=1024, nominal=True
    )
    return shapes_of(lambda: stage(meta, text=None, rngs=nnx.Rngs(0), **loaded))


# -------------------------------------------------------------------------------------------- sizes
def test_networks_have_the_sizes_of_the_spec():
    boxes = full(system.BoxStage).params['boxes']
    # [one-hot of a label and the end; a box] -> 512
    assert boxes['lstm']['input']['kernel'].shape == (85, 2048)
    assert boxes['labels']['kernel'].shape == (512, 81)
    assert boxes['places']['kernel'].shape == (512 + 81, 120)
    assert boxes['sizes']['kernel'].shape == (512 + 81 + 2, 120)
    loaded = dict(picture=None, boxes=None, shapes=None)
    G = full(system.ImageStage, **loaded).params['G']
    assert [G['downs'][i]['kernel'].shape[-1] for i in range(3)] == [128, 256, 512]
    assert [G['ups'][i]['see']['kernel'].shape for i in range(3)] == [
        (3, 3, 80, d) for d in (256, 128, 64)
    ]
    assert G['join']['kernel'].shape == (3, 3, 512 + 128 + 128, 512)
    assert count(G) == 27_955_392


# -------------------------------------------------------------------------------------------- boxes
def test_the_loss_of_boxes_is_the_weighted_sum_of_likelihoods():
    stage = box_stage()
    stage.training = False
    batch = batch_for(stage.needs, META)
    loss, logs = stage.box_loss(batch, KEY, None)
    labels, boxes, n = stage.densities(batch)
    assert n.tolist() == [2, 2, 2, 2] and (boxes[:, 2:] == 0).all() and (labels[:, 3:] == 0).all()
    label, box = -labels[:, :3].mean(1).mean(), -boxes[:, :2].mean(1).mean()
    assert logs['label_nll'] == pytest.approx(float(label), rel=1e-5)
    assert loss == pytest.approx(float(4 * label + box), rel=1e-5)
    over_steps = box_stage(box_mean='steps')
    over_steps.training = False
    assert over_steps.box_loss(batch, KEY, None)[1]['box_nll'] == pytest.approx(
        float(box * 2 / 3), rel=1e-5
    )


def test_the_end_is_masked_and_padding_changes_nothing():
    stage = box_stage()
    stage.training = False
    batch = batch_for(stage.needs, META)
    empty = batch | {'object_labels': jnp.full((4, 4), -1)}
    labels, boxes, n = stage.densities(empty)
    assert (boxes == 0).all() and (labels[:, 1:] == 0).all() and (labels[:, 0] < 0).all()
    garbage = batch | {'boxes': batch['boxes'].at[:, 2:].set(0.3)}
    for a, b in zip(stage.densities(batch), stage.densities(garbage)):
        np.testing.assert_array_equal(a, b)
    measured = stage.measure(empty, KEY)
    assert np.isnan(measured['nll_per_box']).all() and np.isfinite(measured['nll_per_label']).all()


def test_likelihoods_are_those_of_boxes_in_the_frame():
    """Numbers in [0, 1]: they sum to 1 over labels, and integrate to 1 over places."""
    stage = box_stage()
    text, decoder = jnp.ones((1, 8)), stage.boxes
    scale = decoder.scale
    scale.mean[...], scale.square[...] = jnp.full(4, 0.4), jnp.full(4, 0.2)
    state = decoder.step(decoder.start(text), jnp.zeros((1, 4)), jnp.zeros((1, 4)), text)
    assert jax.nn.softmax(decoder.labels(state[0])).sum() == pytest.approx(1, rel=1e-5)
    axis = np.linspace(-2, 3, 201)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    # of the place; the size is fixed
    boxes = np.concatenate([grid, np.full((len(grid), 2), 0.5)], -1)
    code = scale.coded(jnp.float32(boxes))
    h, label = (jnp.tile(x, (len(grid), 1)) for x in (state[0], jnp.eye(4)[:1]))
    density = decoder.places(h, label).log_density(code[:, :2]) - 2 * jnp.log(scale.deviation[0])
    assert np.exp(density).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=0.02)
    anywhere = np.random.default_rng(0).random((40_000, 4))
    volume = (np.abs(anywhere[:, :2] - 0.5) + anywhere[:, 2:] / 2 <= 0.5).all(1).mean()
    assert pytest.approx(np.log(volume), abs=0.03) == UNIFORM_NLL


def test_boxes_are_drawn_until_the_end_which_is_never_first():
    stage = box_stage()
    # the end is nearly certain
    stage.boxes.labels.bias[...] = jnp.array([0.0, 0, 0, 9])
    n = 40
    batch, noise = {'encoded': jnp.ones((n, 8))}, stage.noise(KEY, n)
    out = stage.sample(batch, noise)
    labels, boxes = out['object_labels'], out['boxes']
    assert (labels[:, 0] >= 0).all() and (labels[:, 1:] == -1).all()
    assert (boxes[:, 1:] == 0).all() and (boxes[:, 0, 2:] >= 0.0099).all()
    stage.boxes.labels.bias[...] = jnp.array([0.0, 0, 0, -9])
    out = stage.sample(batch, noise)
    assert (out['object_labels'] >= 0).all()
    low, high = (out['boxes'][..., :2] + sign * out['boxes'][..., 2:] / 2 for sign in (-1, 1))
    assert low.min() >= -1e-6 and high.max() <= 1 + 1e-6
    same = box_stage(temperature=0.0, label_temperature=0.0)
    a, b = (same.sample(batch, same.noise(jax.random.key(i), n)) for i in range(2))
    np.testing.assert_array_equal(a['object_labels'], b['object_labels'])
    np.testing.assert_array_equal(a['boxes'], b['boxes'])


def test_drawing_follows_the_network_that_was_trained():
    """Drawn layouts have the likelihoods by which they were drawn: of their first labels."""
    stage = box_stage()
    batch, n = {'encoded': jnp.ones((2000, 8))}, 2000
    out = stage.sample(batch, stage.noise(KEY, n))
    decoder, text = stage.boxes, jnp.ones((1, 8))
    state = decoder.step(decoder.start(text), jnp.zeros((1, 4)), jnp.zeros((1, 4)), text)
    expected = jax.nn.softmax(decoder.labels(state[0])[0, :3])
    share = np.bincount(out['object_labels'][:, 0], minlength=3) / n
    np.testing.assert_allclose(share, expected, atol=0.05)


# ------------------------------------------------------------------------------------------- shapes
def test_losses_of_shapes_are_those_of_the_paper():
    stage = shape_stage()
    batch = batch_for(stage.needs, META)
    out = stage.forward(batch, KEY)
    objects, drawn = out
    d_loss, logs = stage.d_loss(batch, KEY, out)
    softplus = jax.nn.softplus
    real, fake = (stage.D.each.of_objects(objects, m) for m in (objects.masks, drawn))
    each = (softplus(-real) + softplus(fake))[objects.there].mean()
    assert logs['d_each'] == pytest.approx(float(each), rel=1e-5)
    maps = system.class_maps(system.touched(objects.boxes, 16), objects.labels, 3, 'sum')
    real, fake = (stage.D.whole.of_scenes(maps, m.sum(1)) for m in (objects.masks, drawn))
    whole = (softplus(-real) + softplus(fake)).mean()
    assert d_loss == pytest.approx(float(each + whole), rel=1e-5)
    loss, logs = stage.g_loss(batch, KEY, out)
    assert loss == pytest.approx(
        float(logs['g_each'] + logs['g_whole'] + 10 * logs['perceptual']), rel=1e-5
    )
    perfect = stage.g_loss(batch, KEY, out._replace(drawn=objects.masks))[1]
    assert perfect['perceptual'] == 0 and logs['perceptual'] > 0
    none = batch | {'object_labels': jnp.full((4, 4), -1)}
    assert np.isfinite(stage.d_loss(none, KEY, stage.forward(none, KEY))[0])


# ----------------------------------------------------------------------------------------- pictures
def test_wrong_pairs_have_other_words_or_other_classes():
    stage = image_stage(wrong_layout=1.0)
    batch = batch_for(stage.needs, META)
    assert 'wrong_embedding' in stage.needs
    out = stage.forward(batch, KEY)
    labels = np.asarray(batch['object_labels'])
    assert out.changed.tolist() == [row[0] != row[1] for row in labels]
    differs = np.abs(out.layout - out.wrong_layout).max((1, 2, 3)) > 0
    assert (differs == out.changed).all()
    loss, logs = stage.d_loss(batch, KEY, out)
    parts = ('d_real', 'd_fake', 'd_wrong', 'd_wrong_layout')
    assert loss == pytest.approx(float(sum(logs[name] for name in parts)), rel=1e-5)
    half = image_stage(wrong_text=0.5)
    out = half.forward(batch, KEY)
    loss, logs = half.d_loss(batch, KEY, out)
    expected = logs['d_real'] + logs['d_fake'] + 0.5 * logs['d_wrong']
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_a_picture_is_drawn_of_what_is_given():
    stage = image_stage()
    batch = batch_for(('embedding', 'boxes', 'object_labels', 'object_masks'), META)
    noise = stage.noise(KEY, 4)
    made = stage.sample({'embedding': batch['embedding']}, noise)
    again = {'given_boxes': made['boxes'], 'given_labels': made['object_labels']}
    same = stage.sample({'embedding': batch['embedding'], **again}, noise)
    np.testing.assert_allclose(same['image'], made['image'], atol=1e-4)
    truth = {
        'given_boxes': batch['boxes'],
        'given_labels': batch['object_labels'],
        'given_masks': batch['object_masks'].at[:, 0].set(0),
    }
    out = stage.sample({'embedding': batch['embedding'], **truth}, noise)
    stage.order = 'data'
    objects = stage.scene(batch)
    np.testing.assert_array_equal(out['object_labels'], objects.labels)
    region = system.touched(out['boxes'], 64) > 0
    given = np.asarray([(one.max() > 0) for row in objects.masks for one in row]).reshape(4, 4)
    # of the first object of the data the mask is made, in its box
    assert ((out['masks'] > 0) & ~region).sum() <= ((objects.masks > 0) & ~region).sum()
    assert given.sum() == 8 and (out['masks'].max((2, 3)) > 0).sum() == 8
    nothing = truth | {'given_labels': jnp.full((4, 4), -1)}
    out = stage.sample({'embedding': batch['embedding'], **nothing}, noise)
    assert np.isfinite(out['image']).all() and (out['masks'] == 0).all()


def test_masks_are_made_in_the_order_that_was_learnt():
    """A list in another order gives the same masks, each with its own z."""
    stage = image_stage()
    batch = batch_for(('boxes', 'object_labels'), META)
    noise = {'shape_z': stage.noise(KEY, 4)['shape_z'][:, :2]}
    one = objects_layer.Objects(batch['boxes'][:, :2], batch['object_labels'][:, :2])
    turned = objects_layer.Objects(*(x[:, ::-1] for x in one[:2]))
    masks = stage.made(one, noise)
    again = stage.made(turned, {'shape_z': noise['shape_z'][:, ::-1]})
    np.testing.assert_allclose(masks, again[:, ::-1], atol=1e-5)
    stage.order = 'data'
    other = stage.made(turned, {'shape_z': noise['shape_z'][:, ::-1]})
    assert np.abs(other - again).max() > 1e-4


def test_phi_says_what_it_needs():
    with pytest.raises(ValueError, match="set features='vgg16'"):
        full(system.ShapeStage, picture=None, boxes=None, features='text')
    with pytest.raises(ValueError, match='does not have'):
        full(system.BoxStage, core.Meta('birds', embedding_dim=4))
    assert get_config('hierarchical_layout_shapes').stages.image.model.features == 'text'


# ---------------------------------------------------------------------------------- layouts by hand
OBJECT = dict(label='square', cx=0.5, cy=0.5, w=0.25, h=0.25)


def test_what_is_written_is_read_back(tmp_path):
    masks = np.zeros((2, 4, 64, 64), np.float32)
    boxes = np.array([[[0.3, 0.4, 0.21, 0.17], [0.7, 0.6, 0.3, 0.3], [0] * 4, [0] * 4]] * 2)
    labels = np.array([[2, 0, -1, -1]] * 2)
    masks[0, 0] = mask_in_frame(np.random.default_rng(0).random((9, 9)) > 0.4, boxes[0, 0])
    content = [objects_of(*one, NAMES, m) for *one, m in zip(boxes, labels, masks)]
    assert 'mask' in content[0][0] and 'mask' not in content[0][1]
    path = tmp_path / 'several.json'
    path.write_text(json.dumps(content))
    found = read_layouts(path, META)
    np.testing.assert_allclose(found['given_boxes'], boxes, atol=1e-5)
    np.testing.assert_array_equal(found['given_labels'], labels)
    np.testing.assert_array_equal(found['given_masks'], masks)
    assert read_layouts([path, path], META)['given_labels'].shape == (4, 4)
    assert read_layouts([OBJECT], META)['given_labels'].tolist() == [[1, -1, -1, -1]]
    assert read_layouts([[OBJECT], []], META)['given_labels'].shape == (2, 4)
    small = read_layouts([[OBJECT | {'mask': ['#.', '##']}]], META)['given_masks'][0, 0]
    assert small.sum() == 16 * 16 * 3 / 4 and small[24:32, 24:32].all()


@pytest.mark.parametrize(
    'given, message',
    [
        ([OBJECT | {'label': 'sqare'}], "no label 'sqare'. Did you mean square"),
        ([OBJECT | {'cx': 1.4}], r'\(square: cx cy w h = 1.4 .*leaves the frame'),
        ([OBJECT] * 5, 'has 5 boxes, but a scene of toy has at most 4'),
        ([OBJECT | {'mask': ['..', '..']}], 'mask of object 1 of layout 1 is empty'),
        ([OBJECT | {'mask': ['.#', '#']}], 'all of one length'),
        ([{'label': 'square', 'x': 0.2}], 'Object 1 of layout 1 is .*expected {"label"'),
        ([OBJECT | {'w': 'wide'}], 'expected {"label"'),
        ([OBJECT | {'label': 7}], 'are 0 to 2'),
        ([[OBJECT], 3], 'layout 2 is 3; expected a list of objects'),
        ([], None),
    ],
)
def test_a_layout_that_cannot_be_read_is_one_message(given, message):
    if message is None:
        assert (read_layouts(given, META)['given_labels'] == -1).all()
        return
    with pytest.raises(DataError, match=message):
        read_layouts(given, META)


def test_masks_that_overlap_are_drawn_with_a_word(capsys):
    whole = OBJECT | {'mask': ['#']}
    half = OBJECT | {'mask': ['#.'], 'label': 'ring'}
    found = read_layouts([[whole, OBJECT, half]], META)
    assert found['given_labels'].tolist() == [[1, 1, 2, -1]]
    said = capsys.readouterr().out
    assert 'masks of objects 1 and 3 of layout 1 overlap in 100% of the smaller' in said
    read_layouts([[OBJECT | {'mask': ['.#']}, half]], META)
    assert not capsys.readouterr().out


@pytest.mark.parametrize('text', ['{', '{"label": 1}', '[[], 3]', '7'])
def test_a_file_of_another_form_is_one_message(text, tmp_path):
    path = tmp_path / 'layout.json'
    path.write_text(text)
    with pytest.raises(DataError, match='layout file .*layout.json.*a list of'):
        read_layouts([path], META)


def test_a_sentence_and_its_layouts_are_given_together():
    context = conditions.Context(META, None, 2, 0)
    given = dict(layout=[[OBJECT], [OBJECT, OBJECT]])
    found = conditions.arrays((), given, context, 'X', ('layout',))
    assert found['given_boxes'].shape == (2, 2, 4, 4)
    with pytest.raises(DataError, match='X does not read layout'):
        conditions.arrays((), given, context, 'X')
    one = {'tokens': np.zeros((1, 2, 3)), 'given_boxes': np.zeros((4, 2, 4, 4))}
    assert conditions.each_with_one(one)['tokens'].shape == (4, 2, 3)


# -------------------------------------------------------------------------------------------- edits
def test_edits_change_one_object():
    boxes = np.float32([[0.3, 0.3, 0.4, 0.4], [0.7, 0.7, 0.2, 0.2], [0] * 4, [0] * 4])
    masks = np.float32([mask_in_frame(np.ones((2, 2)), box) for box in boxes])
    masks[2:] = 0
    start = edits.editable(boxes, np.array([0, 1, -1, -1]), masks)
    assert start.edited == 1
    first, moved, scaled, deleted, added, renamed = edits.edits_of(start, 3)
    assert first is start
    for new in (moved, scaled, deleted, added, renamed):
        np.testing.assert_array_equal(new.boxes[0], boxes[0])
        np.testing.assert_array_equal(new.masks[0], masks[0])
    way = np.abs(moved.boxes[1, :2] - boxes[1, :2])
    assert sorted(way.round(5)) == [0, pytest.approx(0.3, abs=1e-4)]
    assert moved.masks[1].sum() == pytest.approx(masks[1].sum(), rel=0.1)
    assert scaled.boxes[1, 2] == pytest.approx(0.28) and (scaled.boxes[1, :2] == boxes[1, :2]).all()
    assert deleted.labels.tolist() == [0, -1, -1, -1] and deleted.masks[1].sum() == 0
    assert added.labels.tolist() == [0, 1, 2, -1] and added.edited == 2
    assert edits.met(added.boxes[2:3], start, True) == 0 and added.masks[2].sum() == 0
    assert renamed.labels.tolist() == [0, 2, -1, -1] and renamed.masks[1].sum() == 0
    full = edits.editable(
        np.tile(boxes[1], (4, 1)), np.array([0, 1, 2, 0]), np.tile(masks[1], (4, 1, 1))
    )
    assert edits.added(full, 3) is None
    assert edits.editable(boxes, np.full(4, -1), masks) is None


def test_what_an_edit_did_is_read_off_real_scenes():
    """Two pictures of shape scenes stand for the picture before and after."""
    table = sample('multi', 'test', 3)
    picture = render.image(table, 64)
    boxes, labels = (x[0] for x in layout(table[None]))
    old = edits.editable(boxes, labels, np.zeros((len(labels), 64, 64)))
    new = edits.moved(old)
    found = explored.layout_edits('multi', picture[None], picture[None], [old], [new])
    assert found['found_before'] == 1 and found['found'] == 0 and found['gone'] == 0
    assert found['others_kept'] == 1 or len(old.there) == 1
    assert explored.layout_edits('', picture[None], picture[None], [old], [new]) == {}


def test_a_sampler_takes_layouts():
    stage = image_stage()
    sampler = sampler_of(stage, META)
    assert sampler.module.takes == ('layout',)
    batch = {'encoded': np.ones((2, 8), np.float32)}
    batch |= read_layouts([[OBJECT], []], META)
    out = sampler.sample(batch, sampler.noise(1, 0, 2), (2,))
    assert out['object_labels'].tolist() == [[1, -1, -1, -1], [-1] * 4]
    assert out['image'].shape == (2, 16, 16, 3)
