"""Layouts as a set: distributions of counts, places and sides for each label; the nearest layouts of another set; masks in their boxes;
likelihoods brought to one unit.

Layouts are boxes (N, R, 4), cx cy w h in [0, 1], with labels (N, R), -1 where there is none; label sets are (N, C), 1 where a label is in it.
What is compared label by label comes as (C,), NaN where one side has nothing of a label.
"""

import cv2
import numpy as np
import scipy

from t2i_jax.metrics.arrays import generator

BINS = 10  # of a side, for the distribution of centres
SIDES = ('cx', 'cy', 'w', 'h')


def label_sets(labels, classes):
    """The label sets (N, C), float32, of labels (N, R)."""
    return (labels[..., None] == np.arange(classes)).any(-2).astype(np.float32)


def count_distances(labels, sets, true_labels, true_sets):
    """(C,): total variation, half of sum |p - q|, of how many boxes a label has in the layouts whose set it is in; from 0 to 1."""
    out = np.full(sets.shape[1], np.nan)
    for label in range(len(out)):
        a, b = (
            (said == label).sum(-1)[given[:, label] > 0]
            for said, given in ((labels, sets), (true_labels, true_sets))
        )
        if len(a) and len(b):
            p, q = (np.bincount(x, minlength=max(a.max(), b.max()) + 1) / len(x) for x in (a, b))
            out[label] = np.abs(p - q).sum() / 2
    return out


def place_distances(boxes, labels, true_boxes, true_labels, classes) -> dict:
    """{name: (C,)} of the boxes of each label: `wasserstein_<side>`, the 1-D Wasserstein distance of cx, cy, w and h, in fractions of the frame;
    `centre_jsd`, the Jensen-Shannon divergence, in bits, of the centres on a grid of 10 x 10. Both, and the divergence most of all, are above 0
    for two samples of one distribution, the more so the fewer there are: compare with what other real layouts have."""
    out = {
        name: np.full(classes, np.nan)
        for name in (*(f'wasserstein_{side}' for side in SIDES), 'centre_jsd')
    }
    for label in range(classes):
        a, b = boxes[labels == label], true_boxes[true_labels == label]
        if len(a) and len(b):
            for side, x, y in zip(SIDES, a.T, b.T):
                out[f'wasserstein_{side}'][label] = scipy.stats.wasserstein_distance(x, y)
            p, q = (
                np.histogram2d(*np.clip(x[:, :2], 0, 1).T, bins=BINS, range=((0, 1), (0, 1)))[
                    0
                ].ravel()
                for x in (a, b)
            )
            out['centre_jsd'][label] = scipy.spatial.distance.jensenshannon(p, q, base=2) ** 2
    return out


def over_labels(values, weights):
    """The mean of (C,) over the labels that have a value, weighted by how often each occurs, (C,); NaN where none has."""
    there = np.isfinite(values) & (weights > 0)
    return float(np.average(values[there], weights=weights[there])) if there.any() else float('nan')


def remembered(sets, train_sets, n, seed=0):
    """For each label set n layouts of the training data, (N, n) numbers of rows: drawn from those of the most similar set (Jaccard), the same
    one as often as necessary. What a system would show that only remembers."""
    rng, out = generator(seed), []
    distinct, which = np.unique(train_sets, axis=0, return_inverse=True)
    rows = [np.flatnonzero(which.ravel() == i) for i in range(len(distinct))]
    for one in sets:
        common = distinct @ one
        near = rows[(common / np.maximum(distinct.sum(1) + one.sum() - common, 1)).argmax()]
        out.append(rng.choice(near, n, replace=len(near) < n))
    return np.stack(out)


def masks_in_boxes(masks, boxes, labels, templates) -> dict:
    """{name: (N,)}, means over the objects of masks (N, R, s, s) in [0, 1] over the whole frame. templates: bool (C, t, t), each class filling its
    box. `mask_iou`, of the mask inside its box, brought to t x t and cut at 1/2, with the template; `mask_outside`, share of its mass in pixels
    that lie wholly outside the box; `mask_area`, its area divided by the template's in that box. An empty mask has no `mask_outside`."""
    out = {name: np.full(len(masks), np.nan) for name in ('mask_iou', 'mask_outside', 'mask_area')}
    t, s = templates.shape[-1], masks.shape[-1]
    line, edges = (np.arange(t) + 0.5) / t - 0.5, np.arange(s + 1) / s
    for i in range(len(masks)):
        found = []
        for mask, (cx, cy, w, h), label in zip(masks[i].astype(np.float32), boxes[i], labels[i]):
            if label < 0:
                continue
            x, y = (
                (c + side * line) * s - 0.5 for c, side in ((cx, w), (cy, h))
            )  # of the template's cells, in pixels of the mask
            x, y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
            within = (np.minimum(x, y) >= -0.5) & (np.maximum(x, y) <= s - 0.5)  # the frame
            inside = within & (
                cv2.remap(mask, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) >= 0.5
            )
            columns, lines = (
                (edges[1:] > c - side / 2) & (edges[:-1] < c + side / 2)
                for c, side in ((cx, w), (cy, h))
            )
            total, template = float(mask.sum()), templates[label]
            found.append(
                (
                    (inside & template).sum() / (inside | template).sum(),
                    1 - mask[np.ix_(lines, columns)].sum() / total if total else np.nan,
                    total / s**2 / max(w * h * template.mean(), 1e-12),
                )
            )
        for name, values in zip(out, np.array(found).T):
            if np.isfinite(values).any():
                out[name][i] = np.nanmean(values)
    return out


def nll_in_frame(nll, *, scale=None, ratio_of=None, side=None, coordinates=4):
    """Negative log-likelihoods (n,), in nats, of boxes in a system's own coordinates u -> those of their coordinates in [0, 1], x.

    The density of x is that of u times |du / dx|. scale: (d,) or (n, d), where u = (x - mean) / scale: log |du / dx| = -sum log scale.
    ratio_of: widths (n,) where a box is (x, y, w, r = h / w): -log w. side: pixels of the frame where u = side x: + log side for
    each of the `coordinates`. Several may hold at once: then each is given in the unit in which it was applied.
    """
    jacobian = 0.0
    if scale is not None:
        jacobian = jacobian - np.log(scale).sum(-1)
    if ratio_of is not None:
        jacobian = jacobian - np.log(ratio_of)
    if side is not None:
        jacobian = jacobian + coordinates * np.log(side)
    return nll - jacobian
