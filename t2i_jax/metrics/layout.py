"""Measures of layouts, scene by scene; layout_sets.py compares whole sets.

A scene is boxes (R, 4), cx cy w h in [0, 1], with labels (R,), -1 where there is none. Each
function takes many scenes, (N, R, 4) and (N, R), and returns a value for each, NaN where a scene
has nothing to measure; means and bootstrap intervals are the caller's.
"""

import math

import numpy as np
import scipy

from tfds_builders.facts import CLASS, COLUMNS, CX, NEAR, RELATION, UNIT, H, holds, pack, unpack

# nats of a box whose corners lie anywhere in the frame: the four numbers fill a quarter of a cube
UNIFORM_NLL = -math.log(4)
# cells of a side, for areas of unions
RASTER = 256


def ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (n, 4) with (m, 4), (n, m)."""
    common = intersections(a, b)
    areas = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    return common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-12)


def intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the areas of intersection of boxes (n, 4) with (m, 4), (n, m)."""
    low = np.maximum((a[:, :2] - a[:, 2:] / 2)[:, None], (b[:, :2] - b[:, 2:] / 2)[None])
    high = np.minimum((a[:, :2] + a[:, 2:] / 2)[:, None], (b[:, :2] + b[:, 2:] / 2)[None])
    return np.clip(high - low, 0, None).prod(-1)


def matching(
    boxes: np.ndarray,
    labels: np.ndarray,
    true_boxes: np.ndarray,
    true_labels: np.ndarray,
    thresholds: tuple[float, ...] = (0.3, 0.5),
) -> dict[str, np.ndarray]:
    """Match boxes of equal labels (Hungarian), and measure the matches.

    Their IoUs sum to most. `iou`: mean over the true boxes, those without a match counting 0.
    `precision_<t>` and `recall_<t>`: shares of the boxes (true boxes) whose match has an IoU of t
    or more. Of the matched boxes `size_error`, |log (w h / w* h*)| / 2, which is |log w / w*| where
    the shape is right, and `aspect_error`, |log (w / h) - log (w* / h*)|.
    """
    names = (
        'iou',
        'size_error',
        'aspect_error',
        *(f'{kind}_{t}' for t in thresholds for kind in ('precision', 'recall')),
    )
    out = {name: np.full(len(boxes), np.nan) for name in names}
    for i, (found, said, true, named) in enumerate(zip(boxes, labels, true_boxes, true_labels)):
        matched, errors, aspects = [], [], []
        for label in set(named[named >= 0]) & set(said[said >= 0]):
            a, b = found[said == label], true[named == label]
            table = ious(a, b)
            rows, columns = scipy.optimize.linear_sum_assignment(-table)
            matched += table[rows, columns].tolist()
            w, h = np.log(np.maximum(a[rows, 2:], 1e-6) / b[columns, 2:]).T
            errors += np.abs((w + h) / 2).tolist()
            aspects += np.abs(w - h).tolist()
        matched, n, m = np.array(matched), (said >= 0).sum(), (named >= 0).sum()
        if m:
            out['iou'][i] = matched.sum() / m
        if errors:
            out['size_error'][i], out['aspect_error'][i] = np.mean(errors), np.mean(aspects)
        for t in thresholds:
            hits = (matched >= t).sum()
            if n:
                out[f'precision_{t}'][i] = hits / n
            if m:
                out[f'recall_{t}'][i] = hits / m
    return out


def best_of(values: np.ndarray, n: int) -> np.ndarray:
    """Return the largest of the values of the n layouts of each record: (N * n,) -> (N,).

    Values of one record stand together; NaN where all of them are.
    """
    values = np.where(np.isnan(values), -np.inf, values).reshape(-1, n).max(1)
    return np.where(np.isinf(values), np.nan, values)


def counts(labels: np.ndarray, true_labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return how far the numbers of boxes and labels are from the true ones.

    `count_error`: |number of boxes - true one|. `label_count_error`: the same for each label that
    either has, and their mean. `label_precision`, `label_recall`, `label_f1`: of the multisets of
    labels. `labels_exact`: 1 where these are equal.
    """
    names = (
        'count_error',
        'label_count_error',
        'label_precision',
        'label_recall',
        'label_f1',
        'labels_exact',
    )
    out = {name: np.full(len(labels), np.nan) for name in names}
    for i, (said, true) in enumerate(zip(labels, true_labels)):
        said, true = said[said >= 0], true[true >= 0]
        each = np.array(
            [((said == label).sum(), (true == label).sum()) for label in sorted({*said, *true})]
        ).reshape(-1, 2)
        common = each.min(1).sum()
        out['count_error'][i] = abs(len(said) - len(true))
        out['labels_exact'][i] = common == len(said) == len(true)
        if len(each):
            out['label_count_error'][i] = np.abs(each[:, 0] - each[:, 1]).mean()
            out['label_f1'][i] = 2 * common / (len(said) + len(true))
        if len(said):
            out['label_precision'][i] = common / len(said)
        if len(true):
            out['label_recall'][i] = common / len(true)
    return out


def arrangement(boxes: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return what needs no truth; compare it with the values of real layouts.

    `overlap`: sum over ordered pairs of intersection / area of the first. `pairwise_iou`: mean over
    pairs. `coverage`: area of the union.
    """
    out = {name: np.full(len(boxes), np.nan) for name in ('overlap', 'pairwise_iou', 'coverage')}
    for i, (found, said) in enumerate(zip(boxes, labels)):
        found = found[said >= 0]
        n = len(found)
        if not n:
            continue
        common, others = intersections(found, found), ~np.eye(n, dtype=bool)
        out['overlap'][i] = (common / np.maximum(found[:, 2] * found[:, 3], 1e-12)[:, None])[
            others
        ].sum()
        if n > 1:
            out['pairwise_iou'][i] = ious(found, found)[others].mean()
        raster = np.zeros((RASTER, RASTER), bool)
        for cx, cy, w, h in found:
            x, y = (
                slice(*(int(round(np.clip(v, 0, 1) * RASTER)) for v in (c - s / 2, c + s / 2)))
                for c, s in ((cx, w), (cy, h))
            )
            raster[y, x] = True
        out['coverage'][i] = raster.mean()
    return out


def alignment(boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how far boxes are out of line, (N,), for documents, whose parts stand in lines.

    Mean over the boxes of -log(1 - d), d the least difference of left, centre, right, top, middle
    or bottom to the same of another box (LayoutGAN's successors). 0 where every box is in line with
    one; NaN below two boxes.
    """
    out = np.full(len(boxes), np.nan)
    for i, (found, said) in enumerate(zip(boxes, labels)):
        found = found[said >= 0]
        if len(found) > 1:
            lines = np.concatenate(
                [found[:, :2] - found[:, 2:] / 2, found[:, :2], found[:, :2] + found[:, 2:] / 2], 1
            )  # n 6
            gaps = np.abs(lines[:, None] - lines[None]).min(-1) + np.where(
                np.eye(len(found)), np.inf, 0
            )
            out[i] = -np.log1p(-np.minimum(gaps.min(1), 1 - 1e-9)).mean()
    return out


def relations(
    boxes: np.ndarray, labels: np.ndarray, facts: np.ndarray, true_labels: np.ndarray
) -> np.ndarray:
    """Return the share of a caption's left, right, above and below that holds, (N,).

    facts: (N, A, 6), of the caption of each layout
    true_labels: (N, R), of the scene that the caption was written for

    Boxes have no colour and no size, so descriptions are read by their class: an atom counts where
    it names two classes of each of which the caption's own scene has one object ('the red circle is
    left of the square' in a scene of one circle); about half of them. NaN where a caption has none.
    """
    scenes = np.full((*labels.shape[:1], labels.shape[1] + 1, COLUMNS), -1)
    scenes[:, :-1, CX : H + 1] = np.where(labels[..., None] >= 0, np.round(boxes * UNIT), -1)
    scenes[:, :-1, CLASS] = labels
    first, second = facts[..., 1], unpack(facts[..., 5])[0]

    def alone(named):
        return (named >= 0) & ((true_labels[:, None] == named[..., None]).sum(-1) == 1)

    said = (facts[..., 0] == RELATION) & (facts[..., 4] < NEAR) & alone(first) & alone(second)
    blind = np.where(said[..., None], facts, -1)
    blind[..., 2:4] = -1
    blind[..., 5] = np.where(said, pack(second), -1)
    with np.errstate(invalid='ignore'):
        return (holds(blind, scenes) & said).sum(-1) / said.sum(-1)


def against(
    boxes: np.ndarray, labels: np.ndarray, true_boxes: np.ndarray, true_labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `matching`, `counts` and `arrangement` of layouts in one.

    Each name has `layout_` before it. And `layout_coverage_gap`, |coverage - true coverage|: no
    boxes cover nothing; NaN where neither has any.
    """
    found = arrangement(boxes, labels)
    covered, true = found['coverage'], arrangement(true_boxes, true_labels)['coverage']
    gap = np.where(
        np.isnan(covered) & np.isnan(true),
        np.nan,
        np.abs(np.nan_to_num(covered) - np.nan_to_num(true)),
    )
    found = (
        matching(boxes, labels, true_boxes, true_labels)
        | counts(labels, true_labels)
        | found
        | {'coverage_gap': gap}
    )
    return {f'layout_{name}': values for name, values in found.items()}
