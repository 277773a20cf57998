"""Layouts as a set, compared with another set.

Distributions of counts, places and sides for each label; the nearest layouts of another set; masks
in their boxes; likelihoods brought to one unit. Layouts are boxes (N, R, 4), cx cy w h in [0, 1],
with labels (N, R), -1 where there is none; label sets are (N, C), 1 where a label is in the set.
Comparisons label by label are (C,), NaN where one side has nothing of a label.
"""

import cv2
import numpy as np
import scipy

from t2i_jax.metrics.arrays import generator

# cells of a side, for the distribution of centres
BINS = 10
SIDES = ('cx', 'cy', 'w', 'h')


def label_sets(labels: np.ndarray, classes: int) -> np.ndarray:
    """Find the label sets (N, C), float32, of labels (N, R)."""
    return (labels[..., None] == np.arange(classes)).any(-2).astype(np.float32)


def count_distances(
    labels: np.ndarray, sets: np.ndarray, true_labels: np.ndarray, true_sets: np.ndarray
) -> np.ndarray:
    """Compare the counts of each label in the layouts whose set has it -> (C,) in [0, 1].

    Total variation, half of sum |p - q|, of the distributions p and q of that number.

    labels, true_labels: (N, R) and (M, R)
    sets, true_sets: (N, C) and (M, C)
    """
    out = np.full(sets.shape[1], np.nan)
    for label in range(len(out)):
        a = (labels == label).sum(-1)[sets[:, label] > 0]
        b = (true_labels == label).sum(-1)[true_sets[:, label] > 0]
        if len(a) and len(b):
            p, q = (np.bincount(x, minlength=max(a.max(), b.max()) + 1) / len(x) for x in (a, b))
            out[label] = np.abs(p - q).sum() / 2
    return out


def place_distances(
    boxes: np.ndarray,
    labels: np.ndarray,
    true_boxes: np.ndarray,
    true_labels: np.ndarray,
    classes: int,
) -> dict[str, np.ndarray]:
    """Compare places and sides of the boxes of each label -> {name: (C,)}.

    `wasserstein_<side>`: the 1-D Wasserstein distance of cx, cy, w and h, in fractions of the frame
    `centre_jsd`: the Jensen-Shannon divergence, in bits, of the centres on a grid of 10 x 10

    All, and the divergence most of all, are above 0 for two samples of one distribution, the more
    so the fewer there are: compare with the values of other real layouts.
    """
    names = (*(f'wasserstein_{side}' for side in SIDES), 'centre_jsd')
    out = {name: np.full(classes, np.nan) for name in names}
    for label in range(classes):
        a, b = boxes[labels == label], true_boxes[true_labels == label]
        if len(a) and len(b):
            for side, x, y in zip(SIDES, a.T, b.T):
                out[f'wasserstein_{side}'][label] = scipy.stats.wasserstein_distance(x, y)
            p, q = _centres(a), _centres(b)
            out['centre_jsd'][label] = scipy.spatial.distance.jensenshannon(p, q, base=2) ** 2
    return out


def _centres(boxes):
    """How many centres lie in each cell of the grid."""
    centres = np.clip(boxes[:, :2], 0, 1)
    return np.histogram2d(*centres.T, bins=BINS, range=((0, 1), (0, 1)))[0].ravel()


def over_labels(values: np.ndarray, weights: np.ndarray) -> float:
    """Average (C,) over the labels that have a value; NaN where none has.

    weights: (C,), how often each label occurs
    """
    there = np.isfinite(values) & (weights > 0)
    return float(np.average(values[there], weights=weights[there])) if there.any() else float('nan')


def remembered(sets: np.ndarray, train_sets: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Choose for each label set n layouts of the training data -> numbers of rows (N, n).

    They are random ones of the most similar set (Jaccard), repeated where it has fewer than n: the
    layouts of a system that only remembers.

    sets, train_sets: (N, C) and (M, C)
    """
    rng, out = generator(seed), []
    distinct, which = np.unique(train_sets, axis=0, return_inverse=True)
    rows = [np.flatnonzero(which.ravel() == i) for i in range(len(distinct))]
    for one in sets:
        common = distinct @ one
        near = rows[(common / np.maximum(distinct.sum(1) + one.sum() - common, 1)).argmax()]
        out.append(rng.choice(near, n, replace=len(near) < n))
    return np.stack(out)


def masks_in_boxes(
    masks: np.ndarray, boxes: np.ndarray, labels: np.ndarray, templates: np.ndarray
) -> dict[str, np.ndarray]:
    """Compare masks with the shape of their class in their boxes -> {name: (N,)}.

    Means over the objects of a layout. An empty mask has no `mask_outside`.

    `mask_iou`: IoU of the template and the mask inside its box, brought to t x t and cut at 1/2
    `mask_outside`: share of the mask's mass in pixels that lie wholly outside the box
    `mask_area`: area of the mask divided by that of the template in the box

    masks: (N, R, s, s) in [0, 1] over the whole frame
    templates: bool (C, t, t), each class filling its box
    """
    out = {name: np.full(len(masks), np.nan) for name in ('mask_iou', 'mask_outside', 'mask_area')}
    for i in range(len(masks)):
        found = [
            _mask_in_box(mask, box, templates[label])
            for mask, box, label in zip(masks[i].astype(np.float32), boxes[i], labels[i])
            if label >= 0
        ]
        for name, values in zip(out, np.array(found).T):
            if np.isfinite(values).any():
                out[name][i] = np.nanmean(values)
    return out


def _mask_in_box(mask, box, template):
    """(IoU, share outside, relative area) of one mask (s, s) and a template (t, t)."""
    cx, cy, w, h = box
    s, t = mask.shape[-1], template.shape[-1]
    # the template's cells, in pixels of the mask
    line = (np.arange(t) + 0.5) / t - 0.5
    x, y = ((c + side * line) * s - 0.5 for c, side in ((cx, w), (cy, h)))
    x, y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    in_frame = (np.minimum(x, y) >= -0.5) & (np.maximum(x, y) <= s - 0.5)
    values = cv2.remap(mask, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = in_frame & (values >= 0.5)
    edges = np.arange(s + 1) / s
    columns, lines = (
        (edges[1:] > c - side / 2) & (edges[:-1] < c + side / 2) for c, side in ((cx, w), (cy, h))
    )
    total = float(mask.sum())
    return (
        (inside & template).sum() / (inside | template).sum(),
        1 - mask[np.ix_(lines, columns)].sum() / total if total else np.nan,
        total / s**2 / max(w * h * template.mean(), 1e-12),
    )


def nll_in_frame(nll, *, scale=None, ratio_of=None, side=None, coordinates=4) -> np.ndarray:
    """Convert likelihoods of boxes in a system's coordinates u to coordinates x in [0, 1].

    The density of x is that of u times |du / dx|. Several of the options may hold at once: then
    give each in the unit in which it was applied.

    nll: (n,), negative log-likelihoods in nats of u
    scale: (d,) or (n, d) where u = (x - mean) / scale: log |du / dx| = -sum log scale
    ratio_of: widths (n,) where a box is (x, y, w, r = h / w): -log w
    side: pixels of the frame where u = side x: + log side for each of the `coordinates`
    coordinates: of a box
    """
    jacobian = 0.0
    if scale is not None:
        jacobian = jacobian - np.log(scale).sum(-1)
    if ratio_of is not None:
        jacobian = jacobian - np.log(ratio_of)
    if side is not None:
        jacobian = jacobian + coordinates * np.log(side)
    return nll - jacobian
