"""Metrics of layouts, on scenes small enough to work out by hand."""
import numpy as np
import pytest

from t2i_jax.metrics import layout

NONE = [0, 0, 0, 0]


def scene(*objects, rows=4):
    boxes = [box for _, box in objects] + [NONE] * (rows - len(objects))
    labels = [label for label, _ in objects] + [-1] * (rows - len(objects))
    return np.array([boxes], float), np.array([labels])


def test_iou_by_hand():
    a, b = np.array([[.5, .5, .4, .4]]), np.array([[.6, .5, .4, .4], [.5, .5, .2, .2], [.1, .1, .1, .1]])
    np.testing.assert_allclose(layout.ious(a, b), [[.12 / .2, .04 / .16, 0]], atol=1e-12)


def test_boxes_are_matched_within_their_label():
    """Two boxes of label 0 in the wrong order are right; the box of label 1 lies where one of label 0 should be, and does not count."""
    true = scene((0, [.2, .2, .2, .2]), (0, [.8, .8, .2, .2]), (1, [.5, .5, .2, .2]))
    said = scene((0, [.8, .8, .2, .2]), (0, [.2, .2, .2, .12]), (1, [.2, .2, .2, .2]))
    found = layout.matching(*said, *true)
    assert found['iou'][0] == pytest.approx((1 + .6 + 0) / 3)
    assert found['precision_0.3'][0] == found['recall_0.5'][0] == pytest.approx(2 / 3)
    assert found['size_error'][0] == pytest.approx(np.log(1 / .6) / 2 / 3)
    same = layout.matching(*true, *true)
    assert same['iou'][0] == pytest.approx(1) and same['size_error'][0] == pytest.approx(0)


def test_nothing_said_and_nothing_true():
    empty, true = scene(), scene((0, [.2, .2, .2, .2]))
    found = layout.matching(*empty, *true)
    assert found['iou'][0] == 0 == found['recall_0.5'][0] and np.isnan(found['precision_0.5'][0])
    assert np.isnan(layout.matching(*true, *empty)['iou'][0]) and np.isnan(layout.arrangement(*empty)['coverage'][0])


def test_counts():
    found = layout.counts(np.array([[0, 0, 1, -1], [2, -1, -1, -1]]), np.array([[0, 1, 1, 1], [2, -1, -1, -1]]))
    assert found['count_error'].tolist() == [1, 0] and found['labels_exact'].tolist() == [0, 1]
    np.testing.assert_allclose(found['label_f1'], [2 * 2 / 7, 1])


def test_arrangement_by_hand():
    found = layout.arrangement(*scene((0, [.25, .25, .5, .5]), (1, [.375, .25, .25, .5])))
    assert found['overlap'][0] == pytest.approx(.5 + 1)                      # half of the first, all of the second
    assert found['pairwise_iou'][0] == pytest.approx(.5) and found['coverage'][0] == pytest.approx(.25)
    apart = layout.arrangement(*scene((0, [.25, .25, .5, .5]), (1, [.75, .75, .5, .5])))
    assert apart['overlap'][0] == 0 and apart['coverage'][0] == pytest.approx(.5)


def test_everything_against_the_truth():
    true = scene((0, [.25, .25, .5, .5]), (1, [.75, .75, .5, .5]))
    found = layout.against(*true, *true)
    assert set(found) == {f'layout_{name}' for name in ('iou', 'size_error', 'precision_0.3', 'recall_0.3', 'precision_0.5', 'recall_0.5', 'count_error',
                                                        'label_f1', 'labels_exact', 'overlap', 'pairwise_iou', 'coverage', 'coverage_gap')}
    assert found['layout_iou'][0] == pytest.approx(1) and found['layout_labels_exact'][0] == 1 and found['layout_coverage_gap'][0] == 0
    half = layout.against(*scene((0, [.25, .25, .5, .5])), *true)
    assert half['layout_coverage'][0] == pytest.approx(.25) == half['layout_coverage_gap'][0] and half['layout_count_error'][0] == 1
    assert layout.against(*scene(), *true)['layout_coverage_gap'][0] == pytest.approx(.5)
    assert np.isnan(layout.against(*scene(), *scene())['layout_coverage_gap'][0])
