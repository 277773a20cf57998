"""Layouts: labelled boxes of a scene against those that are true, and against what layouts look like.

A scene is boxes (R, 4), cx cy w h in [0, 1], with labels (R,), -1 where there is none. Each function takes many scenes, (N, R, 4) and (N, R),
and returns a value for each, NaN where a scene has nothing to measure; means and bootstrap intervals are the caller's.
"""
import numpy as np
from scipy.optimize import linear_sum_assignment

RASTER = 256               # cells of a side, for areas of unions


def ious(a, b):
    """Intersection over union of boxes (n, 4) with (m, 4) -> (n, m)."""
    common = intersections(a, b)
    areas = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    return common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-12)


def intersections(a, b):
    low = np.maximum((a[:, :2] - a[:, 2:] / 2)[:, None], (b[:, :2] - b[:, 2:] / 2)[None])
    high = np.minimum((a[:, :2] + a[:, 2:] / 2)[:, None], (b[:, :2] + b[:, 2:] / 2)[None])
    return np.clip(high - low, 0, None).prod(-1)


def matching(boxes, labels, true_boxes, true_labels, thresholds=(.3, .5)) -> dict:
    """Boxes of equal labels matched so that their IoUs sum to most (Hungarian): `iou`, mean over the true boxes, those without a match
    counting 0; `precision_<t>` and `recall_<t>`, shares of the boxes (true boxes) whose match has an IoU of t or more; `size_error`,
    |log (w h / w* h*)| / 2 of the matched."""
    out = {name: np.full(len(boxes), np.nan) for name in ('iou', 'size_error', *(f'{kind}_{t}' for t in thresholds for kind in ('precision', 'recall')))}
    for i, (found, said, true, named) in enumerate(zip(boxes, labels, true_boxes, true_labels)):
        matched, errors = [], []
        for label in set(named[named >= 0]) & set(said[said >= 0]):
            a, b = found[said == label], true[named == label]
            table = ious(a, b)
            rows, columns = linear_sum_assignment(-table)
            matched += table[rows, columns].tolist()
            errors += np.abs(np.log(np.maximum(a[rows, 2:].prod(-1), 1e-12) / b[columns, 2:].prod(-1)) / 2).tolist()
        matched, n, m = np.array(matched), (said >= 0).sum(), (named >= 0).sum()
        if m:
            out['iou'][i] = matched.sum() / m
        if errors:
            out['size_error'][i] = np.mean(errors)
        for t in thresholds:
            hits = (matched >= t).sum()
            if n:
                out[f'precision_{t}'][i] = hits / n
            if m:
                out[f'recall_{t}'][i] = hits / m
    return out


def counts(labels, true_labels) -> dict:
    """`count_error`, |number of boxes - true one|; `label_f1`, of the multisets of labels; `labels_exact`, 1 where they are equal."""
    out = {name: np.full(len(labels), np.nan) for name in ('count_error', 'label_f1', 'labels_exact')}
    for i, (said, true) in enumerate(zip(labels, true_labels)):
        said, true = said[said >= 0], true[true >= 0]
        common = sum(min((said == label).sum(), (true == label).sum()) for label in set(true))
        out['count_error'][i] = abs(len(said) - len(true))
        out['labels_exact'][i] = common == len(said) == len(true)
        if len(said) + len(true):
            out['label_f1'][i] = 2 * common / (len(said) + len(true))
    return out


def arrangement(boxes, labels) -> dict:
    """What needs no truth: `overlap`, sum over ordered pairs of intersection / area of the first; `pairwise_iou`, mean over pairs;
    `coverage`, area of the union. Compare with the values of real layouts.

    What a generator of boxes needs besides is not here: distributions of counts, places and sides for each label, the best IoU of n layouts
    of one caption, masks in their boxes, and the alignment of documents."""
    out = {name: np.full(len(boxes), np.nan) for name in ('overlap', 'pairwise_iou', 'coverage')}
    for i, (found, said) in enumerate(zip(boxes, labels)):
        found = found[said >= 0]
        n = len(found)
        if not n:
            continue
        common, others = intersections(found, found), ~np.eye(n, dtype=bool)
        out['overlap'][i] = (common / np.maximum(found[:, 2] * found[:, 3], 1e-12)[:, None])[others].sum()
        if n > 1:
            out['pairwise_iou'][i] = ious(found, found)[others].mean()
        raster = np.zeros((RASTER, RASTER), bool)
        for cx, cy, w, h in found:
            x, y = (slice(*(int(round(np.clip(v, 0, 1) * RASTER)) for v in (c - s / 2, c + s / 2))) for c, s in ((cx, w), (cy, h)))
            raster[y, x] = True
        out['coverage'][i] = raster.mean()
    return out


def against(boxes, labels, true_boxes, true_labels) -> dict:
    """`matching`, `counts` and `arrangement` of layouts, and `coverage_gap`, |coverage - true coverage| (no boxes cover nothing; NaN where
    neither has any), each name with `layout_` before it. The note in `arrangement` says what is not measured."""
    found = arrangement(boxes, labels)
    covered, true = found['coverage'], arrangement(true_boxes, true_labels)['coverage']
    gap = np.where(np.isnan(covered) & np.isnan(true), np.nan, np.abs(np.nan_to_num(covered) - np.nan_to_num(true)))
    found = matching(boxes, labels, true_boxes, true_labels) | counts(labels, true_labels) | found | {'coverage_gap': gap}
    return {f'layout_{name}': values for name, values in found.items()}
