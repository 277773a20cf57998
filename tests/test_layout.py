"""Metrics of layouts, on scenes small enough to work out by hand."""

import numpy as np
import pytest

from t2i_jax.metrics import layout, layout_sets
from t2i_jax.scenes.analytic import _templates
from tfds_builders.facts import ABOVE, LEFT, NEAR, RELATION, RIGHT, pack, table
from tfds_builders.shape_scenes import render, scenes

NONE = [0, 0, 0, 0]


def scene(*objects, rows=4):
    boxes = [box for _, box in objects] + [NONE] * (rows - len(objects))
    labels = [label for label, _ in objects] + [-1] * (rows - len(objects))
    return np.array([boxes], float), np.array([labels])


def test_iou_by_hand():
    a, b = (
        np.array([[0.5, 0.5, 0.4, 0.4]]),
        np.array([[0.6, 0.5, 0.4, 0.4], [0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]),
    )
    np.testing.assert_allclose(layout.ious(a, b), [[0.12 / 0.2, 0.04 / 0.16, 0]], atol=1e-12)


def test_boxes_are_matched_within_their_label():
    """Two boxes of label 0 in the wrong order are right.

    The box of label 1 lies where one of label 0 should be, and does not count.
    """
    true = scene((0, [0.2, 0.2, 0.2, 0.2]), (0, [0.8, 0.8, 0.2, 0.2]), (1, [0.5, 0.5, 0.2, 0.2]))
    said = scene((0, [0.8, 0.8, 0.2, 0.2]), (0, [0.2, 0.2, 0.2, 0.12]), (1, [0.2, 0.2, 0.2, 0.2]))
    found = layout.matching(*said, *true)
    assert found['iou'][0] == pytest.approx((1 + 0.6 + 0) / 3)
    assert found['precision_0.3'][0] == found['recall_0.5'][0] == pytest.approx(2 / 3)
    assert found['size_error'][0] == pytest.approx(np.log(1 / 0.6) / 2 / 3)
    assert found['aspect_error'][0] == pytest.approx(
        np.log(1 / 0.6) / 3
    )  # of three matched boxes two have the right shape
    same = layout.matching(*true, *true)
    assert same['iou'][0] == pytest.approx(1) and same['size_error'][0] == pytest.approx(0)


def test_nothing_said_and_nothing_true():
    empty, true = scene(), scene((0, [0.2, 0.2, 0.2, 0.2]))
    found = layout.matching(*empty, *true)
    assert found['iou'][0] == 0 == found['recall_0.5'][0] and np.isnan(found['precision_0.5'][0])
    assert np.isnan(layout.matching(*true, *empty)['iou'][0]) and np.isnan(
        layout.arrangement(*empty)['coverage'][0]
    )


def test_sizes_and_shapes_are_told_apart():
    """Twice as wide and twice as high is an error of size alone.

    Twice as wide and half as high one of shape alone.
    """
    true = scene((0, [0.5, 0.5, 0.2, 0.1]))
    found = layout.matching(*scene((0, [0.5, 0.5, 0.4, 0.2])), *true)
    assert found['size_error'][0] == pytest.approx(np.log(2)) and found['aspect_error'][
        0
    ] == pytest.approx(0, abs=1e-9)
    found = layout.matching(*scene((0, [0.5, 0.5, 0.4, 0.05])), *true)
    assert found['size_error'][0] == pytest.approx(0, abs=1e-9) and found['aspect_error'][
        0
    ] == pytest.approx(np.log(4))


def test_counts():
    found = layout.counts(
        np.array([[0, 0, 1, -1], [2, -1, -1, -1], [-1] * 4]),
        np.array([[0, 1, 1, 1], [2, -1, -1, -1], [1, 1, 3, -1]]),
    )
    assert found['count_error'].tolist() == [1, 0, 3] and found['labels_exact'].tolist() == [
        0,
        1,
        0,
    ]
    np.testing.assert_allclose(found['label_f1'], [2 * 2 / 7, 1, 0])
    np.testing.assert_allclose(found['label_precision'], [2 / 3, 1, np.nan])
    np.testing.assert_allclose(found['label_recall'], [2 / 4, 1, 0])
    np.testing.assert_allclose(found['label_count_error'], [(1 + 2) / 2, 0, (2 + 1) / 2])


def test_the_best_of_several():
    values = np.array([0.1, 0.5, np.nan, np.nan, 0.3, 0.2])
    np.testing.assert_allclose(layout.best_of(values, 2), [0.5, np.nan, 0.3])
    np.testing.assert_allclose(layout.best_of(values, 1), values)


def test_arrangement_by_hand():
    found = layout.arrangement(*scene((0, [0.25, 0.25, 0.5, 0.5]), (1, [0.375, 0.25, 0.25, 0.5])))
    assert found['overlap'][0] == pytest.approx(0.5 + 1)  # half of the first, all of the second
    assert found['pairwise_iou'][0] == pytest.approx(0.5) and found['coverage'][0] == pytest.approx(
        0.25
    )
    apart = layout.arrangement(*scene((0, [0.25, 0.25, 0.5, 0.5]), (1, [0.75, 0.75, 0.5, 0.5])))
    assert apart['overlap'][0] == 0 and apart['coverage'][0] == pytest.approx(0.5)


def test_everything_against_the_truth():
    true = scene((0, [0.25, 0.25, 0.5, 0.5]), (1, [0.75, 0.75, 0.5, 0.5]))
    found = layout.against(*true, *true)
    assert set(found) == {
        f'layout_{name}'
        for name in (
            'iou',
            'size_error',
            'aspect_error',
            'precision_0.3',
            'recall_0.3',
            'precision_0.5',
            'recall_0.5',
            'count_error',
            'label_count_error',
            'label_precision',
            'label_recall',
            'label_f1',
            'labels_exact',
            'overlap',
            'pairwise_iou',
            'coverage',
            'coverage_gap',
        )
    }
    assert (
        found['layout_iou'][0] == pytest.approx(1)
        and found['layout_labels_exact'][0] == 1
        and found['layout_coverage_gap'][0] == 0
    )
    half = layout.against(*scene((0, [0.25, 0.25, 0.5, 0.5])), *true)
    assert (
        half['layout_coverage'][0] == pytest.approx(0.25) == half['layout_coverage_gap'][0]
        and half['layout_count_error'][0] == 1
    )
    assert layout.against(*scene(), *true)['layout_coverage_gap'][0] == pytest.approx(0.5)
    assert np.isnan(layout.against(*scene(), *scene())['layout_coverage_gap'][0])


def test_alignment_of_documents():
    """The second box begins where the first does.

    The third is .02 from being centred under the second.
    """
    column = scene(
        (0, [0.3, 0.1, 0.2, 0.1]), (0, [0.25, 0.5, 0.1, 0.1]), (1, [0.27, 0.9, 0.3, 0.07])
    )
    assert layout.alignment(*column)[0] == pytest.approx(-np.log(1 - 0.02) / 3)
    assert layout.alignment(*scene((0, [0.3, 0.1, 0.2, 0.1]), (0, [0.7, 0.1, 0.4, 0.3])))[
        0
    ] == pytest.approx(0)
    assert np.isnan(layout.alignment(*scene((0, [0.3, 0.1, 0.2, 0.1])))[0])


def relation(first, kind, second):
    return (
        RELATION,
        first,
        2,
        -1,
        kind,
        pack(second, 3, 1),
    )  # colours and a size, which boxes do not have


def test_relations_of_captions():
    """A circle (0) to the left of a square (1), below which are two triangles (2)."""
    boxes, labels = scene(
        (0, [0.2, 0.3, 0.2, 0.2]),
        (1, [0.8, 0.3, 0.2, 0.2]),
        (2, [0.7, 0.8, 0.1, 0.1]),
        (2, [0.9, 0.8, 0.1, 0.1]),
    )

    def held(*atoms, boxes=boxes):
        return layout.relations(boxes, labels, table(list(atoms))[None], labels)[0]

    assert (
        held(relation(0, LEFT, 1)) == 1
        and held(relation(0, RIGHT, 1)) == 0
        and held(relation(1, RIGHT, 0)) == 1
    )
    assert held(relation(0, LEFT, 1), relation(0, ABOVE, 1)) == 0.5
    assert np.isnan(held(relation(1, ABOVE, 2)))  # of two triangles the caption may mean either
    assert (
        np.isnan(held(relation(0, NEAR, 1)))
        and np.isnan(held(relation(-1, LEFT, 1)))
        and np.isnan(held())
    )
    assert held(relation(0, LEFT, 1), relation(1, ABOVE, 2)) == 1
    turned = boxes * [-1, 1, 1, 1] + [1, 0, 0, 0]
    assert held(relation(0, LEFT, 1), boxes=turned) == 0


def test_relations_of_true_scenes_hold():
    from tfds_builders.shape_scenes.captions import captions

    drawn = [scenes.sample('multi', 'test', i) for i in range(120)]
    facts = np.stack(
        [
            table(
                captions(one, 'multi', 'test', scenes.Draws(0, 'multi', 'test', i, stream=1))[
                    i % 5
                ][1]
            )
            for i, one in enumerate(drawn)
        ]
    )
    boxes = np.stack([scenes.boxes(one) for one in drawn])
    labels = np.stack([one[:-1, 0] for one in drawn])
    found = layout.relations(boxes, labels, facts, labels)
    assert np.nanmin(found) == 1 and np.isfinite(found).sum() > 3
    assert np.nanmean(layout.relations(boxes[:, :, [1, 0, 2, 3]], labels, facts, labels)) < 0.5


# ---------------------------------------------------------------------------------- sets of layouts
def test_distributions_of_counts():
    labels, true = (
        np.array([[0, 0, -1], [0, -1, -1], [1, -1, -1]]),
        np.array([[0, 0, 1], [0, 0, -1]]),
    )
    sets, true_sets = layout_sets.label_sets(labels, 3), layout_sets.label_sets(true, 3)
    assert sets.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    found = layout_sets.count_distances(labels, sets, true, true_sets)
    np.testing.assert_allclose(
        found, [0.5, 0, np.nan]
    )  # of label 0: half one and half two against always two
    asked = np.array([[1, 1, 0]] * 3)  # a label that was asked for and is not there counts as none
    np.testing.assert_allclose(
        layout_sets.count_distances(labels, asked, true, true_sets), [1 / 3 + 1 / 3, 2 / 3, np.nan]
    )
    assert layout_sets.over_labels(found, np.array([3, 1, 7])) == pytest.approx(0.375)
    assert np.isnan(layout_sets.over_labels(np.array([np.nan, 0.5]), np.array([1, 0])))


def test_distributions_of_places():
    rng = np.random.default_rng(0)
    boxes, labels = rng.uniform(0.1, 0.9, (200, 3, 4)), np.tile([0, 1, -1], (200, 1))
    same = layout_sets.place_distances(boxes, labels, boxes, labels, 3)
    assert set(same) == {
        'wasserstein_cx',
        'wasserstein_cy',
        'wasserstein_w',
        'wasserstein_h',
        'centre_jsd',
    }
    for values in same.values():
        np.testing.assert_allclose(values, [0, 0, np.nan], atol=1e-9)
    moved = layout_sets.place_distances(boxes + [0.05, 0, 0, -0.02], labels, boxes, labels, 3)
    np.testing.assert_allclose(moved['wasserstein_cx'][:2], 0.05)
    np.testing.assert_allclose(moved['wasserstein_h'][:2], 0.02)
    np.testing.assert_allclose(moved['wasserstein_w'][:2], 0, atol=1e-9)
    left, right = (np.tile([[x, 0.5, 0.1, 0.1]], (5, 1, 1)) for x in (0.2, 0.8))
    assert layout_sets.place_distances(left, np.zeros((5, 1)), right, np.zeros((5, 1)), 1)[
        'centre_jsd'
    ][0] == pytest.approx(1)  # bit
    half = np.concatenate([left, right])
    found = layout_sets.place_distances(left, np.zeros((5, 1)), half, np.zeros((10, 1)), 1)[
        'centre_jsd'
    ][0]
    assert found == pytest.approx(
        -0.75 * np.log2(0.75) - 0.25 * np.log2(0.25) - 0.5
    )  # H(mixture) - (H(1, 0) + H(1/2, 1/2)) / 2


def test_what_one_would_remember():
    train = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
    found = layout_sets.remembered(np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]]), train, 2)
    assert set(found[0]) == {0, 2} and found[2].tolist() == [3, 3]
    assert set(found[1]) <= {3}  # 1/2 of the union is shared, with the first 1/3


def test_masks_of_true_scenes_fit_their_boxes():
    drawn = [scenes.sample('multi', 'test', i) for i in range(6)]
    masks = np.stack([render.masks(one, 64) for one in drawn]).astype(float)
    boxes, labels = (
        np.stack([scenes.boxes(one) for one in drawn]),
        np.stack([one[:-1, 0] for one in drawn]),
    )
    found = layout_sets.masks_in_boxes(masks, boxes, labels, _templates())
    assert (
        found['mask_iou'].min() > 0.85
        and np.allclose(found['mask_outside'], 0)
        and np.abs(found['mask_area'] - 1).max() < 0.1
    )
    shifted = boxes + np.array([0.3, 0, 0, 0])
    moved = layout_sets.masks_in_boxes(masks, shifted, labels, _templates())
    assert moved['mask_outside'].min() > 0.5 and moved['mask_iou'].max() < 0.5
    np.testing.assert_allclose(moved['mask_area'], found['mask_area'])


def test_masks_by_hand():
    """A mask of 4 x 4 that fills the left half of the frame, in a box over the whole of it and in
    one over its upper half.
    """
    mask, square = np.zeros((1, 1, 4, 4)), np.ones((1, 8, 8), bool)
    mask[..., :2] = 1
    found = layout_sets.masks_in_boxes(
        mask, np.array([[[0.5, 0.5, 1, 1]]]), np.zeros((1, 1), int), square
    )
    assert [found[name][0] for name in ('mask_iou', 'mask_outside', 'mask_area')] == [0.5, 0, 0.5]
    found = layout_sets.masks_in_boxes(
        mask, np.array([[[0.5, 0.25, 1, 0.5]]]), np.zeros((1, 1), int), square
    )
    assert [found[name][0] for name in ('mask_iou', 'mask_outside', 'mask_area')] == [0.5, 0.5, 1]
    empty = layout_sets.masks_in_boxes(
        0 * mask, np.array([[[0.5, 0.5, 1, 1]]]), np.zeros((1, 1), int), square
    )
    assert empty['mask_iou'][0] == 0 == empty['mask_area'][0] and np.isnan(empty['mask_outside'][0])
    assert np.isnan(
        layout_sets.masks_in_boxes(mask, np.zeros((1, 1, 4)), np.full((1, 1), -1), square)[
            'mask_iou'
        ][0]
    )


# -------------------------------------------------------------------------------------- likelihoods
def normal_nll(u, mean, scale):
    return (((u - mean) / scale) ** 2 / 2 + np.log(scale * np.sqrt(2 * np.pi))).sum(-1)


def test_likelihoods_in_one_unit():
    """A model that sees x standardised, in pixels, or both, tells the same density as the one that
    sees x itself.
    """
    rng = np.random.default_rng(0)
    x, mean, scale, m, s = (
        rng.uniform(size=(7, 4)),
        rng.uniform(size=4),
        rng.uniform(0.1, 0.3, 4),
        rng.uniform(size=4),
        rng.uniform(0.5, 2, 4),
    )
    true = normal_nll(x, mean, scale)
    np.testing.assert_allclose(
        layout_sets.nll_in_frame(normal_nll((x - m) / s, (mean - m) / s, scale / s), scale=s), true
    )
    np.testing.assert_allclose(
        layout_sets.nll_in_frame(normal_nll(x * 64, mean * 64, scale * 64), side=64), true
    )
    both = normal_nll((x * 64 - m) / s, (mean * 64 - m) / s, scale * 64 / s)
    np.testing.assert_allclose(
        layout_sets.nll_in_frame(both, scale=np.tile(s, (7, 1)), side=64), true
    )


def test_the_likelihood_of_a_ratio():
    """w uniform in [.2, .4], r = h / w uniform in [1, 2].

    The density over (w, h) is that over (w, r) divided by w, and sums to 1.
    """
    w, h = np.meshgrid(np.linspace(0.2, 0.4, 401), np.linspace(0.2, 0.8, 1201))
    inside = (h / w >= 1) & (h / w <= 2)
    density = (
        np.exp(-layout_sets.nll_in_frame(np.full(w.shape, np.log(0.2 * 1)), ratio_of=w)) * inside
    )
    assert density.sum() * (w[0, 1] - w[0, 0]) * (h[1, 0] - h[0, 0]) == pytest.approx(1, abs=0.01)
