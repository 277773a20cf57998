"""Layouts by rule.

They are what their rules say, their floors are right, and the checks see what is broken.
"""

import hashlib
import itertools

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import special, stats

from experiments import common
from t2i_jax import config as settings
from t2i_jax.data.feed import host_batches
from t2i_jax.data.plan import Plan
from t2i_jax.data.tables import Split
from tfds_builders import DataError, get_builder, names
from tfds_builders.inspect import describe, inspect
from tfds_builders.shape_scenes import builder as shapes_builder
from tfds_builders.shape_scenes.rules import (
    LABELS,
    MAX_OBJECTS,
    A,
    B,
    C,
    D,
    box_floor,
    checks,
    count_floor,
    counts_of,
    flipped,
    has_up,
    least_nll,
    sample,
)

OPTIONS = {
    (3, 4): 1.452,
    (2, 3): 1.238,
    (1, 2, 3): 1.231,
    (1,): 0,
    (2,): 1.000,
    (3,): 1.307,
}  # specs/layout_data.md, Poisson(n - 1)
WIDTHS = {A: (0.8, 0.2), B: (0.7, 0.1), D: (0.2, 0.2)}  # of x and y
SIGMA = 0.02


def padded(scenes):
    """Scenes -> boxes (N, 11, 4), labels (N, 11)."""
    boxes, labels = np.zeros((len(scenes), MAX_OBJECTS, 4)), np.full((len(scenes), MAX_OBJECTS), -1)
    for i, (some, kinds) in enumerate(scenes):
        boxes[i, : len(some)], labels[i, : len(kinds)] = some, kinds
    return boxes, labels


def scene(*rows):
    """(label, x, y, side) of boxes -> boxes (1, 11, 4), labels (1, 11)."""
    return padded(
        [
            (
                np.array([(x + s / 2, y + s / 2, s, s) for _, x, y, s in rows]),
                [row[0] for row in rows],
            )
        ]
    )


@pytest.fixture(scope='module')
def drawn():
    """20,000 scenes: boxes (N, 11, 4), labels (N, 11)."""
    return padded([sample('train', i) for i in range(20_000)])


def corners(boxes):
    """-> x, y, w, h of the upper left corner."""
    return *np.moveaxis(boxes[..., :2] - boxes[..., 2:] / 2, -1, 0), boxes[..., 2], boxes[..., 3]


# ------------------------------------------------------------------------------------------- scenes
def test_scenes_are_what_they_always_were():
    found = [sample('train', i) for i in range(10)]
    total = hashlib.sha256(
        b''.join(boxes.tobytes() + labels.astype(np.int32).tobytes() for boxes, labels in found)
    )
    assert total.hexdigest()[:16] == '94ca0a6723185800'


def test_a_scene_depends_on_its_split_index_and_seed_alone():
    one = [sample('train', i) for i in (5, 3, 5)]
    assert np.array_equal(one[0][0], one[2][0]) and np.array_equal(one[0][1], one[2][1])
    others = [
        sample(*which)[0]
        for which in (('train', 5), ('train', 6), ('validation', 5), ('test', 5), ('train', 5, 1))
    ]
    assert len({boxes.tobytes() for boxes in others}) == len(others)


def test_sets_and_counts_are_those_of_the_rules(drawn):
    counts = counts_of(drawn[1])
    sets, times = np.unique(counts > 0, axis=0, return_counts=True)
    assert (
        len(sets) == 15 and stats.chisquare(times).pvalue > 0.001
    )  # of 16 subsets all but the empty one, equally likely
    a, b, c, d = counts.T
    for found, options in (
        (a[a > 0], (3, 4)),
        (b[b > 0], (2, 3)),
        (d[(a == 0) & (d > 0)], (1, 2, 3)),
    ):
        values, times = np.unique(found, return_counts=True)
        assert tuple(values) == options and stats.chisquare(times).pvalue > 0.001
    assert (
        set(c[b > 0]) == {0, 1}
        and set(c[b == 0]) == {0, 2}
        and (d == a - 1)[(a > 0) & (d > 0)].all()
    )
    assert counts.sum(1).max() == MAX_OBJECTS


def test_places_are_uniform_in_their_ranges(drawn):
    boxes, labels = drawn
    x, y, w, h = corners(boxes)
    alone = (counts_of(labels)[:, B] == 0)[:, None]
    assert np.array_equal(w, h)
    for chosen, *ranges in (
        ((labels == A), (0, 0.8), (0, 0.2), (0.12, 0.12)),
        ((labels == B), (0.05, 0.75), (0.7, 0.8), (0.1, 0.2)),
        ((labels == C) & alone, (0.4, 0.5), (0.4, 0.5), (0.15, 0.15)),
        ((labels == D), (0.3, 0.5), (0.3, 0.5), (0.08, 0.08)),
    ):
        for values, (low, high) in zip((x[chosen], y[chosen], w[chosen]), ranges):
            if low == high:
                assert (values == low).all()
            else:
                assert low - 1e-9 <= values.min() and values.max() <= high + 1e-9
                assert stats.kstest(values, 'uniform', (low, high - low)).pvalue > 0.001
    for several in (boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2):
        assert (
            several[labels >= 0].min() > 0 and several[labels >= 0].max() < 1
        )  # all of a box lies in the frame


def test_boxes_come_in_the_order_of_labels_and_from_left_to_right(drawn):
    boxes, labels = drawn
    x = corners(boxes)[0]
    there = labels[:, 1:] >= 0
    assert (np.diff(labels)[there] >= 0).all() and (
        np.diff(x)[there & (np.diff(labels) == 0)] > 0
    ).all()
    assert (
        (labels >= 0).cumsum(1)[labels >= 0] == np.nonzero(labels >= 0)[1] + 1
    ).all()  # padding comes last


def test_c_stands_over_the_first_b(drawn):
    boxes, labels = drawn
    x, y, _, _ = corners(boxes)
    both = (labels == B).any(1) & (labels == C).any(1)
    first, c = (np.argmax(labels[both] == label, 1) for label in (B, C))
    rows = np.flatnonzero(both)
    beside = x[rows, c] - x[rows, first]
    np.testing.assert_allclose(y[rows, c], y[rows, first] - 0.25, atol=1e-12)
    assert stats.kstest(beside, 'uniform', (-0.05, 0.1)).pvalue > 0.001
    assert abs(np.corrcoef(beside, x[rows, first])[0, 1]) < 0.05


# ------------------------------------------------------------------------------------------- floors
def test_the_poisson_head_does_no_better_than_its_floor():
    rates = np.linspace(0.001, 8, 8000)
    for options, value in OPTIONS.items():
        densities = stats.poisson.pmf(np.array(options)[:, None] - 1, rates)
        nats = -np.log(densities).mean(0)
        assert (
            least_nll(options, 'poisson') == pytest.approx(value, abs=6e-4)
            and abs(least_nll(options, 'poisson') - nats.min()) < 2e-3
        )
        best = densities[:, [nats.argmin()]]
        assert (densities / best).mean(
            0
        ).max() < 1.0001  # so no mixture of Poissons is better (Lindsay 1983)
        assert least_nll(options, 'categorical') == np.log(len(options))
    with pytest.raises(DataError, match="no floor for a count head 'gauss'"):
        least_nll((1, 2), 'gauss')


@pytest.mark.parametrize('head', ['categorical', 'poisson'])
def test_count_floors_are_what_the_best_head_reaches(drawn, head):
    """The head knows nothing of the rules.

    For each label, set and counts before it is fitted to the scenes.
    """
    counts = counts_of(drawn[1])
    nats = np.full(counts.shape, np.nan)
    for label in range(len(LABELS)):
        known = np.column_stack([counts > 0, counts[:, :label]])
        for key in np.unique(known[counts[:, label] > 0], axis=0):
            rows = (known == key).all(1)
            n = counts[rows, label]
            fitted = (
                stats.poisson.pmf(n - 1, (n - 1).mean())
                if head == 'poisson'
                else (np.bincount(n) / len(n))[n]
            )
            nats[rows, label] = -np.log(fitted)
    floor = count_floor(drawn[1], head)
    assert floor.shape == (len(counts),) and np.nanmean(nats, 1).mean() == pytest.approx(
        floor.mean(), abs=0.005
    )
    _, labels = padded([(np.zeros((7, 4)), [0, 0, 0, 0, 3, 3, 3]), (np.zeros((3, 4)), [2, 2, 3])])
    expected = [[np.log(2) / 2, np.log(3) / 2], [(1.4517 + 1.3069) / 2, (1 + 1.2310) / 2]][
        head == 'poisson'
    ]
    np.testing.assert_allclose(count_floor(labels, head), expected, atol=1e-4)


def test_box_floors_by_hand():
    known = np.log(SIGMA * np.sqrt(2 * np.pi))
    tie = np.log(2 * np.sqrt(np.pi) * SIGMA * 0.1)
    assert known == pytest.approx(-2.993, abs=5e-4) and tie == pytest.approx(-4.95, abs=5e-3)
    a = [(A, 0.1 * i, 0.1, 0.12) for i in range(3)]
    b = [(B, 0.3, 0.75, 0.1), (B, 0.4, 0.7, 0.2)]
    a_nats = 3 * (np.log(0.8) + np.log(0.2) + 2 * known) - np.log(6)
    b_nats = 2 * (np.log(0.7) + np.log(0.1) + tie) - np.log(2)
    c_nats = np.log(0.1) + 3 * known
    for rows, nats in (
        (a, a_nats),
        (b, b_nats),
        (a + b, a_nats + b_nats),
        (b + [(C, 0.33, 0.5, 0.15)], b_nats + c_nats),
        (
            [(C, 0.41, 0.5, 0.15), (C, 0.45, 0.4, 0.15)],
            2 * (2 * np.log(0.1) + 2 * known) - np.log(2),
        ),
        ([(D, 0.4, 0.4, 0.08)], 2 * np.log(0.2) + 2 * known),
    ):
        assert box_floor(*scene(*rows))[0] == pytest.approx(nats / len(rows), abs=1e-9)
    assert np.isnan(box_floor(*scene(*a[:2]))[0]) and np.isnan(
        box_floor(*scene((A, 0.1, 0.5, 0.12), *a[1:]))[0]
    )


def mixture(values, centres, sigma):
    """NLL of values (..., d) under Gaussians of equal weight at centres (..., K, d)."""
    square = ((values[..., None, :] - centres) / sigma) ** 2
    terms = -square.sum(-1) / 2 - values.shape[-1] * np.log(sigma * np.sqrt(2 * np.pi))
    return -special.logsumexp(terms, -1) + np.log(centres.shape[-2])


def test_a_mixture_that_knows_the_rules_comes_close_to_the_box_floor(drawn, sigma=0.002, k=1000):
    """Its Gaussians stand where the next box may be, given those before it.

    Narrow ones, so that only a little is lost at the borders.
    """
    boxes, labels = (array[:200] for array in drawn)
    x, y, w, h = corners(boxes)
    grid = (np.arange(k) + 0.5) / k
    nats = np.zeros(labels.shape)
    for i, j in np.argwhere(labels >= 0):
        label, left = (
            labels[i, j],
            (labels[i, j:] == labels[i, j]).sum(),
        )  # boxes of this label that are still to come
        first_b = np.argmax(labels[i] == B)
        widths, start = (
            WIDTHS.get(label, (0.1, 0.1)),
            {A: (0, 0), B: (0.05, 0.7), C: (0.4, 0.4), D: (0.3, 0.3)}[label],
        )
        if label == C and B in labels[i]:
            places = x[i, first_b] - 0.05 + 0.1 * grid, np.full(k, y[i, first_b] - 0.25)
        else:
            low = (
                x[i, j - 1] if j and labels[i, j - 1] == label else start[0]
            )  # the leftmost of `left` uniform ones
            places = (
                low + (start[0] + widths[0] - low) * (1 - (1 - grid) ** (1 / left)),
                start[1] + widths[1] * grid,
            )
        side = 0.1 + 0.1 * grid if label == B else np.full(k, {A: 0.12, C: 0.15, D: 0.08}[label])
        nats[i, j] = (
            mixture(np.array([x[i, j]]), places[0][:, None], sigma)
            + mixture(np.array([y[i, j]]), places[1][:, None], sigma)
            + mixture(np.array([w[i, j], h[i, j]]), np.stack([side, side], -1), sigma)
        )
    gap = (nats.sum(1) / (labels >= 0).sum(1) - box_floor(boxes, labels, sigma)).mean()
    assert 0 < gap < 0.07


def best_mixture(width, left=1, n=200, steps=800):
    """The least expected NLL of the leftmost of `left` uniform numbers in a range, under any
    mixture of Gaussians: EM over weights.
    """
    u = (np.arange(n) + 0.5) / n
    weight = (1 - u) ** (left - 1)
    weight /= weight.sum()
    centres = np.linspace(0, width, min(n, max(30, int(width / SIGMA * 12))))
    density, share = (
        stats.norm.pdf(u[:, None] * width, centres, SIGMA),
        np.full(len(centres), 1 / len(centres)),
    )
    for _ in range(steps):
        share *= density.T @ (weight / (density @ share))
    return -weight @ np.log(density @ share)


def test_how_far_the_best_mixture_lies_above_the_floor(drawn):
    """.13, .06 and .03 nats for ranges of .1, .2 and .4, and .18 a box over all scenes."""
    for width, gap in ((0.1, 0.13), (0.2, 0.06), (0.4, 0.03)):
        assert best_mixture(width) - np.log(width) == pytest.approx(gap, abs=6e-3)
    ranges = np.array([0.001, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8])
    table = {
        left: np.array([best_mixture(width, left) for width in ranges]) for left in (1, 2, 3, 4)
    }
    known, of = (
        np.log(SIGMA * np.sqrt(2 * np.pi)),
        {width: best_mixture(width) for width in (0.1, 0.2, 0.1 * np.sqrt(2))},
    )
    boxes, labels = (array[:3000] for array in drawn)
    x, nats = corners(boxes)[0], np.zeros(labels.shape)
    for i, j in np.argwhere(labels >= 0):
        label, left = labels[i, j], (labels[i, j:] == labels[i, j]).sum()
        high = {A: 0.8, B: 0.75, C: 0.5, D: 0.5}[label]
        low = (
            x[i, j - 1] if j and labels[i, j - 1] == label else high - WIDTHS.get(label, (0.1,))[0]
        )
        if label == C and B in labels[i]:
            nats[i, j] = of[0.1] + 3 * known
        else:
            sides = of[0.1 * np.sqrt(2)] + known if label == B else 2 * known
            nats[i, j] = (
                np.interp(high - low, ranges, table[left])
                + of[WIDTHS.get(label, (0, 0.1))[1]]
                + sides
            )
    gap = (nats.sum(1) / (labels >= 0).sum(1) - box_floor(boxes, labels)).mean()
    assert gap == pytest.approx(0.18, abs=0.015)


# ------------------------------------------------------------------------------------------- checks
def test_scenes_keep_all_rules(drawn):
    for dtype in (float, np.float32):
        found = checks(drawn[0].astype(dtype), drawn[1])
        assert all(
            value.shape == (20_000,) and set(value[~np.isnan(value)]) == {1}
            for value in found.values()
        )
    counts = counts_of(drawn[1])
    assert np.array_equal(
        np.isnan(found['rule_relations']), (counts[:, B] == 0) | (counts[:, C] == 0)
    )
    assert not np.isnan([found[name] for name in ('rule_counts', 'rule_regions', 'rule_all')]).any()
    assert checks(*drawn, counts > 0)['rule_all'].all() and not np.isnan(box_floor(*drawn)).any()


WHOLE = (
    (A, 0.1, 0.1, 0.12),
    (A, 0.3, 0.1, 0.12),
    (A, 0.5, 0.1, 0.12),
    (B, 0.3, 0.75, 0.15),
    (B, 0.6, 0.7, 0.1),
    (C, 0.32, 0.5, 0.15),
    (D, 0.3, 0.4, 0.08),
    (D, 0.4, 0.4, 0.08),
)


def changed(row, **changes):
    label, x, y, side = WHOLE[row]
    new = dict(label=label, x=x, y=y, side=side) | changes
    return *WHOLE[:row], tuple(new.values()), *WHOLE[row + 1 :]


@pytest.mark.parametrize(
    'rows, broken',
    [
        (WHOLE, ''),
        (WHOLE[1:], 'counts'),  # two A
        (WHOLE[:7], 'counts'),  # one D beside three A
        ((*WHOLE, (D, 0.45, 0.4, 0.08)), 'counts'),
        ((*WHOLE[:6], (C, 0.33, 0.5, 0.15), *WHOLE[6:]), 'counts'),  # two C beside B
        ((*WHOLE[:3], *WHOLE[4:]), 'counts relations'),  # the only B that is left is another one
        (changed(0, y=0.5), 'regions'),
        (changed(0, x=0.9), 'regions'),
        (changed(4, y=0.6), 'regions'),
        (changed(4, side=0.3), 'regions'),
        (changed(6, side=0.2), 'regions'),
        (changed(7, x=0.6), 'regions'),
        (changed(7, x=0.54, y=0.26), ''),
        (changed(7, x=0.56, y=0.26), 'regions'),  # the tolerance
        (changed(5, x=0.45), 'relations'),
        (changed(5, x=0.15), 'relations'),
        (changed(5, x=0.39), ''),
        (changed(5, y=0.54), ''),
        (changed(5, y=0.42), 'relations'),
        (changed(5, y=0.56), 'relations'),
        (changed(5, y=0.7), 'regions relations'),
        (changed(3, x=0.65), 'relations'),  # so that the other B is the first one
    ],
)
def test_what_breaks_a_rule_is_seen_by_its_check_alone(rows, broken):
    found = {name: value[0] for name, value in checks(*scene(*rows)).items()}
    broken = [f'rule_{name}' for name in broken.split()]
    assert found == {
        name: float(name not in broken + ['rule_all'] * bool(broken)) for name in found
    }


def test_counts_are_judged_by_what_was_asked_for():
    boxes, labels = scene(*WHOLE[:3])
    for asked, right in (
        ((1, 0, 0, 0), 1),
        ((1, 1, 0, 0), 0),
        ((0, 1, 0, 0), 0),
        ((1, 0, 0, 1), 0),
    ):
        assert checks(boxes, labels, np.array([asked], float))['rule_counts'] == right
    two = scene((C, 0.4, 0.4, 0.15), (C, 0.45, 0.4, 0.15))
    assert (
        checks(*two)['rule_counts'] == 1 and checks(*two, [(0, 1, 1, 0)])['rule_counts'] == 0
    )  # with B in the set a C is alone
    nothing = {name: value[0] for name, value in checks(*scene_of_nothing()).items()}
    np.testing.assert_equal(
        nothing, {'rule_counts': 0, 'rule_regions': np.nan, 'rule_relations': np.nan, 'rule_all': 0}
    )


def scene_of_nothing():
    return np.zeros((1, MAX_OBJECTS, 4)), np.full((1, MAX_OBJECTS), -1)


def test_upside_down(drawn):
    boxes, labels = drawn
    turned, up = flipped(boxes), has_up(labels)
    np.testing.assert_allclose(flipped(turned), boxes, atol=1e-15)
    assert (turned[labels < 0] == 0).all() and np.array_equal(
        turned[..., [0, 2, 3]], boxes[..., [0, 2, 3]]
    )
    top, bottom = boxes[..., 1] - boxes[..., 3] / 2, boxes[..., 1] + boxes[..., 3] / 2
    np.testing.assert_allclose(
        (turned[..., 1] - turned[..., 3] / 2)[labels >= 0], 1 - bottom[labels >= 0], atol=1e-12
    )
    assert top[labels == A].max() < 0.2 and not checks(turned, labels)['rule_regions'][up].any()
    assert np.array_equal(up, counts_of(labels)[:, :2].any(1)) and 0.5 < up.mean() < 1


# ----------------------------------------------------------------------------------------- data set
@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """A folder with the first scenes of shape_scenes/rules, and its builder."""
    folder = tmp_path_factory.mktemp('rules')
    with pytest.MonkeyPatch.context() as patch:
        for split, count in (('train', 60), ('validation', 20), ('test', 20)):
            patch.setitem(shapes_builder.RULES, split, count)
        builder = get_builder('shape_scenes/rules', folder)
        builder.download_and_prepare()
    return folder, builder


def stored(record):
    """-> boxes (n, 4) ymin xmin ymax xmax, labels (n,)."""
    return np.array(record['objects']['bbox'], float), np.array(record['objects']['label'])


def test_the_config_and_its_records(built):
    builder = built[1]
    assert (
        shapes_builder.RULES == {'train': 50_000, 'validation': 2_000, 'test': 5_000}
        and 'shape_scenes' in names()
    )
    metadata = builder.info.metadata
    assert (metadata['max_objects'], metadata['scenes'], metadata['flip']) == (
        MAX_OBJECTS,
        'rules',
        False,
    )
    assert list(builder.info.features) == ['objects'] and builder.info.features['objects'].feature[
        'label'
    ].names == list(LABELS)
    for split, count in (('train', 60), ('validation', 20), ('test', 20)):
        expected = {
            labels.tobytes() + np.round(boxes, 4).astype(np.float32).tobytes()
            for boxes, labels in (sample(split, i) for i in range(count))
        }
        found = set()
        for record in builder.as_data_source(split):
            boxes, labels = stored(record)
            boxes = np.concatenate(
                [(boxes[:, [1, 0]] + boxes[:, [3, 2]]) / 2, boxes[:, [3, 2]] - boxes[:, [1, 0]]], -1
            )
            found.add(labels.tobytes() + np.round(boxes, 4).astype(np.float32).tobytes())
        assert found == expected


def test_it_is_read_as_a_split_without_pictures_and_captions(built):
    data = settings.merge(
        settings.defaults(settings.DATA),
        common.shapes('rules', cache='host', size=32, dir=str(built[0])),
    )
    split = Split(ConfigDict(data), 'train', ('object_labels', 'boxes'))
    meta = split.meta
    assert (
        len(split),
        meta.object_classes,
        meta.max_objects,
        meta.object_names,
        meta.captions,
    ) == (60, 4, MAX_OBJECTS, LABELS, 1)
    assert (meta.vocabulary_size, meta.classes, meta.attributes) == (1, 0, 0)  # 1: padding
    tables = split.tables
    assert (
        checks(tables['boxes'], tables['object_labels'])['rule_all'].all()
        and not tables['boxes'][tables['object_labels'] < 0].any()
    )
    plan = Plan(split, 20, 0, ('object_labels', 'boxes'))
    seen = list(
        itertools.chain.from_iterable(
            batch['index'] for batch in host_batches(split, plan, 0, 3, 'host')
        )
    )
    assert sorted(seen) == list(range(60))
    one = next(iter(host_batches(split, plan, 0, 1, 'host')))
    assert one['boxes'].shape == (20, MAX_OBJECTS, 4) and np.array_equal(
        one['object_labels'], tables['object_labels'][one['index']]
    )


def test_records_without_pictures_are_drawn_as_boxes(built, tmp_path):
    builder = built[1]
    sheet = inspect(builder, 'train', 4, tmp_path / 'rules.png')
    source = builder.as_data_source('train')
    for i, number in enumerate(np.unique(np.linspace(0, 59, 4).astype(int))):
        boxes, labels = stored(source[int(number)])
        panel = sheet[40:360, 12 + i * 332 : 332 + i * 332].astype(int)
        for colour, label in (((178, 18, 18), A), ((18, 178, 64), B)):
            pixels = (abs(panel - colour) < 8).all(-1)
            of = boxes[labels == label] * 319
            assert pixels.any() == bool(len(of))
            if len(of):
                ys, xs = np.nonzero(pixels)
                extent, expected = (
                    (ys.min(), xs.min(), ys.max(), xs.max()),
                    (*of[:, :2].min(0), *of[:, 2:].max(0)),
                )
                np.testing.assert_allclose(extent, expected, atol=2)
    labels = stored(source[0])[1]
    assert ', '.join(f'{(labels == k).sum()} {LABELS[k]}' for k in sorted(set(labels))) in list(
        describe(source[0], builder.info)
    )
