"""Layers of systems that draw from layouts: mixtures, ConvLSTM, RoIAlign, objects, shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from flax import nnx
from helpers import count, filled, shapes_of, uniform

from t2i_jax import stage as core
from t2i_jax.layers import objects as objects_layer
from t2i_jax.layers.box_decoder import Scale, drawn_label
from t2i_jax.layers.conv_lstm import BiConvLstm
from t2i_jax.layers.mixture import Mixture, MixtureHead
from t2i_jax.layers.objects import Objects, class_maps, objects_of, other_classes, touched
from t2i_jax.layers.roi import roi_align
from t2i_jax.layers.shapes import MaskDiscriminator, ShapeGenerator


def made(maker, **options):
    """A network with weights drawn by numpy."""
    parts = filled(shapes_of(lambda: Holder(maker(rngs=nnx.Rngs(0)))), **options)
    return nnx.merge(*parts).net


class Holder(core.Stage):
    def __init__(self, net):
        self.net = net


# ---------------------------------------------------------------------------------------- mixtures
def mixture(k=3, seed=0):
    draws = np.random.default_rng(seed)
    return Mixture.of(jnp.float32(draws.normal(0, 1, 6 * k)))


def test_the_density_of_a_mixture_is_that_of_scipy():
    found = mixture()
    weights, mean = np.exp(found.log_weights), np.asarray(found.mean)
    sigma, rho = np.exp(found.log_sigma), np.asarray(found.rho)
    points = np.random.default_rng(1).normal(0, 2, (5, 2))
    expected = 0
    for k in range(3):
        off = rho[k] * sigma[k].prod()
        covariance = np.diag(sigma[k] ** 2) + off * (1 - np.eye(2))
        expected += weights[k] * scipy.stats.multivariate_normal(mean[k], covariance).pdf(points)
    np.testing.assert_allclose(jnp.exp(found.log_density(points)), expected, rtol=1e-4)


def test_the_density_integrates_to_one():
    axis = np.linspace(-12, 12, 481)
    grid = np.stack(np.meshgrid(axis, axis), -1)
    mass = np.exp(mixture().log_density(grid)).sum() * (axis[1] - axis[0]) ** 2
    assert mass == pytest.approx(1, abs=1e-3)


def test_a_mixture_cannot_become_infinite():
    raw = jnp.array([0.0, 0, 0, -1e3, -1e3, 1e3])
    one = Mixture.of(raw)
    assert jnp.exp(one.log_sigma).min() == pytest.approx(0.02)
    assert one.rho[0] == pytest.approx(0.95)
    assert one.log_density(jnp.zeros(2)) < 8.2
    gradient = jax.grad(lambda raw: Mixture.of(raw).log_density(jnp.zeros(2)))(raw)
    assert np.isfinite(gradient).all()
    far = Mixture.of(jnp.zeros(6)).log_density(jnp.array([1e3, 0]))
    assert np.isfinite(far)


def test_draws_of_a_mixture_follow_it():
    found, keys = mixture(), jax.random.split(jax.random.key(0))
    n = 20_000
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), found)
    u, eps = jax.random.uniform(keys[0], (n,)), jax.random.normal(keys[1], (n, 2))
    points = many.draw(u, eps)
    weights = np.exp(found.log_weights)
    np.testing.assert_allclose(points.mean(0), weights @ found.mean, atol=0.1)
    second = weights @ (jnp.exp(2 * found.log_sigma) + found.mean**2)
    np.testing.assert_allclose((points**2).mean(0), second, rtol=0.1)
    both = weights @ (found.rho * jnp.exp(found.log_sigma.sum(-1)) + found.mean.prod(-1))
    np.testing.assert_allclose(points.prod(-1).mean(), both, atol=0.2)
    # without temperature it is the mean of the likeliest component
    best = found.mean[found.log_weights.argmax()]
    np.testing.assert_allclose(many.draw(u, eps, 0.0)[:5], np.tile(best, (5, 1)), rtol=1e-5)
    head = made(lambda rngs: MixtureHead(4, 5, start=nnx.initializers.zeros, rngs=rngs))
    assert head(jnp.ones((2, 3)), jnp.ones((2, 1))).mean.shape == (2, 5, 2)


# ---------------------------------------------------------------------------------------- ConvLSTM
def test_a_conv_lstm_does_not_depend_on_padding():
    net = made(lambda rngs: BiConvLstm(3, 2, rngs=rngs))
    x, there = uniform(2, 4, 5, 5, 3), jnp.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    found = net(x, there)
    assert found.shape == (2, 4, 5, 5, 4) and (found[0, 2:] == 0).all() and (found[1, 3] == 0).all()
    other = net(jnp.where(there[..., None, None, None], x, 7.0), there)
    np.testing.assert_array_equal(found, other)
    # as many slots as there are objects, or more
    np.testing.assert_allclose(net(x[:1, :2], there[:1, :2]), found[:1, :2], rtol=1e-5, atol=1e-6)


def test_a_conv_lstm_reads_in_both_directions():
    net = made(lambda rngs: BiConvLstm(3, 2, rngs=rngs))
    x, there = uniform(1, 3, 5, 5, 3), jnp.ones((1, 3), bool)
    changed = x.at[:, 1].set(0)
    moved = np.abs(net(x, there) - net(changed, there)).max((0, 2, 3)) > 1e-6
    # forward states from the second on, backward ones up to it
    assert moved.tolist() == [[False, False, True, True], [True] * 4, [True, True, False, False]]


def test_one_step_of_a_conv_lstm_is_the_formula():
    cell = made(lambda rngs: BiConvLstm(3, 2, forget_bias=0.0, rngs=rngs)).forward
    x = uniform(1, 1, 4, 4, 3)
    gates = np.split(np.asarray(cell.input(x[:, 0]) + cell.bias[...]), 4, -1)
    i, _, o, g = gates
    expected = scipy.special.expit(o) * np.tanh(scipy.special.expit(i) * np.tanh(g))
    np.testing.assert_allclose(cell(x, jnp.ones((1, 1), bool))[:, 0], expected, rtol=1e-4)


# ---------------------------------------------------------------------------------------- RoIAlign
def ramp(n=16):
    """A map whose value is 2 x + 3 y, x and y in [0, 1]."""
    places = (np.arange(n) + 0.5) / n
    return jnp.float32(2 * places[None, :] + 3 * places[:, None])[None, ..., None]


def test_roi_align_is_exact_on_linear_ramps():
    box = np.array([0.45, 0.55, 0.4, 0.3])
    found = roi_align(ramp(), jnp.float32(box)[None, None])[0, 0, ..., 0]
    steps = (np.arange(5) + 0.5) / 5 - 0.5
    expected = 2 * (box[0] + box[2] * steps)[None] + 3 * (box[1] + box[3] * steps)[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_roi_align_moves_with_the_map():
    maps = uniform(1, 16, 16, 2)
    box = jnp.array([[[0.4, 0.5, 0.3, 0.2]]])
    moved = roi_align(jnp.roll(maps, (2, 3), (1, 2)), box + jnp.array([3 / 16, 2 / 16, 0, 0]))
    np.testing.assert_allclose(moved, roi_align(maps, box), rtol=1e-4, atol=1e-5)


def test_legacy_spans_look_at_the_upper_left_corner():
    maps, box = ramp() * 16, jnp.array([[[0.5, 0.5, 0.5, 0.5]]])
    found = roi_align(maps, box, legacy=True)[0, 0, ..., 0]
    # pixel i of the ramp is i + 1/2; from .25 on over 1.5 pixels
    points = 0.25 + 1.5 * (np.arange(5) + 0.5) / 5
    expected = 2 * (points + 0.5)[None] + 3 * (points + 0.5)[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ----------------------------------------------------------------------------------------- objects
BOXES = jnp.array([[[0.25, 0.25, 0.2, 0.2], [0.7, 0.6, 0.5, 0.4], [0.5, 0.5, 0.01, 0.4], [0] * 4]])
LABELS = jnp.array([[2, 0, 1, -1]])


def test_objects_are_sorted_and_small_ones_left_out():
    masks = jnp.arange(4.0)[None, :, None, None] * jnp.ones((1, 4, 2, 2))
    found = objects_of(BOXES, LABELS, masks, rows=5, order='area', smallest=0.03)
    assert found.labels.tolist() == [[0, 2, -1, -1, -1]]
    assert found.masks[0, :, 0, 0].tolist() == [1, 0, 0, 0, 0]
    np.testing.assert_allclose(found.boxes[0, 0], BOXES[0, 1])
    assert (found.boxes[0, 2:] == 0).all()
    left = objects_of(BOXES, LABELS, rows=2, order='left')
    assert left.labels.tolist() == [[2, 0]]
    assert objects_of(BOXES, LABELS, rows=3).labels.tolist() == [[2, 0, 1]]
    with pytest.raises(ValueError, match='order is'):
        objects_of(BOXES, LABELS, rows=3, order='size')


def test_boxes_touch_the_pixels_that_they_cover():
    found = touched(BOXES[0], 20)
    assert found[0, 3:7, 3:7].all() and found[0].sum() == 16
    assert found[2].sum() == 8 * 2 and found[3].sum() == 0
    edge = touched(jnp.array([0.999, 0.5, 0.002, 1.0]), 8)
    assert edge[:, 7].all() and edge.sum() == 8
    cut = objects_layer.inside(jnp.array([[0.95, 0.5, 0.3, 1.4], [1.5, 0.5, 0.2, 0.2]]))
    np.testing.assert_allclose(cut[0], [0.9, 0.5, 0.2, 1], rtol=1e-5)
    assert (cut[:, 2:] >= 0.0099).all() and (cut[:, :2] + cut[:, 2:] / 2 <= 1 + 1e-6).all()


def test_class_maps_join_the_objects_of_a_class():
    labels = jnp.array([[0, 0, 2]])
    maps = jnp.ones((1, 3, 2, 2)) * jnp.array([0.4, 0.9, 0.5])[None, :, None, None]
    for how, value in (('max', 0.9), ('clip', 1.0), ('sum', 1.3)):
        found = class_maps(maps, labels, 3, how)
        np.testing.assert_allclose(found[0, 0, 0], [value, 0, 0.5], rtol=1e-5)
    assert (class_maps(maps, jnp.full((1, 3), -1), 3) == 0).all()


def test_wrong_layouts_are_wrong():
    labels = jnp.array([[4, 1, 4, -1], [3, 3, -1, -1], [0, 2, 5, 2], [-1, -1, -1, -1]])
    wrong, changed = other_classes(labels, 6)
    assert wrong[0].tolist() == [1, 4, 1, -1] and wrong[2].tolist() == [2, 5, 0, 5]
    assert changed.tolist() == [True, False, True, False]
    assert wrong[1].tolist() == [3, 3, -1, -1]
    assert all(set(a) == set(b) for a, b in zip(labels.tolist(), wrong.tolist()))


def test_the_scale_of_boxes_is_that_of_the_data():
    draws = np.random.default_rng(0)
    boxes = jnp.float32(draws.uniform(0.2, 0.4, (64, 5, 4)))
    there = jnp.asarray(draws.random((64, 5)) < 0.7)
    for sides in ('wh', 'ratio'):
        scale = Scale(sides)
        for part in range(4):
            scale.observe(boxes[part * 16 :][:16], there[part * 16 :][:16])
        code = scale.coded(boxes)
        np.testing.assert_allclose(code[there].mean(0), 0, atol=0.1)
        np.testing.assert_allclose(code[there].std(0), 1, atol=0.1)
        np.testing.assert_allclose(scale.decoded(code), boxes, rtol=1e-4)
        slope = jnp.linalg.slogdet(jax.jacfwd(scale.coded)(boxes[0, 0]))[1]
        assert scale.log_slope(boxes[0, 0]) == pytest.approx(float(slope), rel=1e-4)
    assert drawn_label(jnp.log(jnp.array([[0.2, 0.3, 0.5]])), jnp.array([0.25]), 1.0) == 1


# ------------------------------------------------------------------------------------------ shapes
def three(rows=4, seed=0):
    """Scenes of two and of three objects in `rows` slots."""
    labels = jnp.array([[0, 2, -1, -1], [1, 1, 0, -1]])[:, :rows]
    centre, side = np.random.default_rng(seed).uniform(0.3, 0.5, (2, 2, 4, 2))
    boxes = jnp.float32(np.concatenate([centre, side], -1))[:, :rows]
    return objects_of(boxes, labels, rows=rows)


@pytest.mark.parametrize('activation', ['relu', 'glu'])
def test_masks_lie_in_their_boxes_and_do_not_depend_on_padding(activation):
    net = made(lambda rngs: ShapeGenerator(3, 4, 16, activation, rngs=rngs))
    objects, z = three(), uniform(2, 4, 16)
    masks = net(objects, z)
    assert masks.shape == (2, 4, 16, 16) and masks.min() >= 0 and masks.max() <= 1
    region = touched(objects.boxes, 16)
    assert ((masks > 0) == (region > 0)).all() and (masks[0, 2:] == 0).all()
    few = Objects(objects.boxes[:1, :2], objects.labels[:1, :2])
    np.testing.assert_allclose(net(few, z[:1, :2]), masks[:1, :2], rtol=1e-4, atol=1e-5)
    empty = Objects(jnp.zeros((1, 4, 4)), jnp.full((1, 4), -1))
    assert (net(empty, z[:1]) == 0).all()


def test_a_box_map_is_convolved_by_the_kernel_of_its_class_alone():
    net = made(lambda rngs: MaskDiscriminator(3, (4, 8), 16, rngs=rngs))
    objects, masks = three(), uniform(2, 4, 16, 16)
    found = net.of_objects(objects, masks)
    maps = touched(objects.boxes, 16)[..., None] * objects.named(3)[:, :, None, None]
    for slot in range(4):
        one = net.of_scenes(maps[:, slot], masks[:, slot])
        np.testing.assert_allclose(found[:, slot], one, rtol=1e-4, atol=1e-5)


def test_the_shape_generator_has_the_size_of_the_released_code():
    maker = lambda rngs: ShapeGenerator(80, 80, 64, 'glu', rngs=rngs)  # noqa: E731
    parts = shapes_of(lambda: Holder(maker(nnx.Rngs(0))))
    assert count(parts.params) == 15_553_360
