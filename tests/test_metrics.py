"""Metrics of features and images.

Values of the specification, properties, bad input, and what other tools say (tests/oracles).
"""

import json
import tracemalloc

import numpy as np
import pytest
from oracles import make_metrics

from t2i_jax.metrics.bootstrap import interval
from t2i_jax.metrics.diversity import feature_diversity, pairwise
from t2i_jax.metrics.fid import Statistics, bias, fid, fid_infinity
from t2i_jax.metrics.inception_score import inception_score
from t2i_jax.metrics.kid import kid, kid_full
from t2i_jax.metrics.ms_ssim import ms_ssim
from t2i_jax.metrics.prdc import density_coverage, precision_recall
from t2i_jax.metrics.r_precision import r_precision, r_precision_of, r_precision_pools
from t2i_jax.metrics.retrieval import retrieval


def sines(n, d, a, b, c):
    i, j = np.arange(n)[:, None], np.arange(d)
    return np.sin(a * i + b * j + c * ((i * j) % 7))


X, Y = sines(200, 8, 0.7, 1.3, 0.5), 1.2 * sines(150, 8, 0.9, 1.1, 0.4) + 0.1


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# ---- other tools ----

OURS = {
    'fid': lambda x, y: fid(x, y, force=True),
    'kid': lambda x, y: kid(x, y, subsets=10, size=100, seed=np.random.RandomState(2020)),
    'inception_score': lambda x: inception_score(x, seed=np.random.RandomState(2020)),
    'precision_recall': precision_recall,
    'density_coverage': density_coverage,
    'ms_ssim': lambda a, b, scales: ms_ssim(a, b, scales=scales),
}


def ours(name):
    metric, case, _ = name.split('/')
    return OURS[metric](*make_metrics.INPUTS[metric][case]())


@pytest.mark.parametrize('name, value', json.loads(make_metrics.FILE.read_text()).items())
def test_values_that_other_tools_gave(name, value):
    assert ours(name) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize('name', make_metrics.NAMES)
def test_values_that_other_tools_give(name):
    assert make_metrics.oracle(name) == pytest.approx(ours(name), rel=1e-4)


# ---- FID ----


def test_golden_values_of_features():
    assert fid(X, Y) == pytest.approx(2.0849223695, abs=1e-9)
    assert kid_full(X, Y) == pytest.approx(0.4148924419, abs=1e-9)
    assert kid_full(X, Y, biased=True) == pytest.approx(0.4494808950, abs=1e-9)
    assert precision_recall(X, Y) == (pytest.approx(1 / 6), 0)
    assert density_coverage(X, Y, k=3) == (pytest.approx(0.1422222, abs=1e-7), pytest.approx(0.035))


def test_fid_of_a_set_with_itself_and_moved():
    assert abs(fid(X, X)) < 1e-6 * np.trace(np.cov(X.T))
    assert fid(X, X + 0.25) == pytest.approx(8 * 0.25**2)
    assert fid(X[::-1], Y) == pytest.approx(fid(X, Y)) == pytest.approx(fid(Y, X))


def test_fid_of_diagonal_gaussians():
    """Columns of exactly uncorrelated features: sum (m1 - m2)^2 + sum (s1 - s2)^2."""
    columns, _ = np.linalg.qr(np.concatenate([np.ones((64, 1)), normal(64, 5)], 1))
    unit = columns[:, 1:] * 63**0.5  # mean 0, covariance 1
    s1, s2, gap = (
        np.array([1, 2, 3, 0.5, 0]),
        np.array([1, 1, 5, 0.1, 2]),
        np.array([1, 0, 0, -2, 0]),
    )
    assert fid(unit * s1, unit * s2 + gap) == pytest.approx(5 + ((s1 - s2) ** 2).sum())


@pytest.mark.parametrize('n, m', [(300, 200), (40, 30), (300, 30)])
def test_the_routes_agree(n, m):
    x, y = normal(n, 50), 1.3 * normal(m, 50, seed=1) + 0.2
    a, b = ((z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    nuclear = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * nuclear
    for pair in ((x, y), (Statistics.of(x), y), (Statistics.of(x), Statistics.of(y))):
        assert fid(*pair, force=True) == pytest.approx(expected, rel=1e-6)


def test_statistics_come_in_batches_and_shards():
    x = normal(5000, 6) * [1, 2, 3, 4, 5, 6] + 1e4  # far from 0, where sums of squares would cancel
    whole, first, second = Statistics.of(x), Statistics('a'), Statistics('a')
    for part in np.array_split(x[:1700], 9):
        first.update(part)
    second.update(x[1700:].astype(np.float64))
    first.merge(second)
    first.merge(Statistics('a'))
    assert first.n == whole.n == 5000
    assert first.mean == pytest.approx(x.mean(0), rel=1e-14)
    for statistics in (first, whole):
        assert statistics.covariance == pytest.approx(np.cov(x.T), rel=1e-9, abs=1e-9)
    assert fid(first, x) == pytest.approx(0, abs=1e-7)


def test_statistics_on_disk(tmp_path):
    statistics, path = Statistics.of(X, 'net'), tmp_path / 'reference.npz'
    statistics.save(path)
    again = Statistics.load(path, tag='net')
    assert (
        (again.tag, again.n) == ('net', 200)
        and np.array_equal(again.scatter, statistics.scatter)
        and np.array_equal(again.mean, statistics.mean)
    )
    assert [p.name for p in tmp_path.iterdir()] == ['reference.npz']
    with pytest.raises(ValueError, match="reference.npz was made with 'net', expected 'other'"):
        Statistics.load(path, tag='other')
    with pytest.raises(ValueError, match="'net' and of 'other' do not mix"):
        again.merge(Statistics.of(X, 'other'))
    with pytest.raises(ValueError, match="real features are of 'net', fake features of 'other'"):
        fid(again, Statistics.of(Y, 'other'))
    assert fid(again, Y) == fid(X, Y)  # an array takes the tag of the other side
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match='reference.npz holds no statistics of features'):
        Statistics.load(path)
    np.savez(path, mu=X)
    with pytest.raises(ValueError, match='holds no statistics'):
        Statistics.load(path)
    with pytest.raises(ValueError, match='absent.npz cannot be used: No such file'):
        Statistics.load(tmp_path / 'absent.npz')


def test_fid_of_few_images_says_how_many_it_needs_and_what_the_bias_is():
    x, y = normal(64, 64), normal(50, 64, seed=1)
    with pytest.raises(
        ValueError,
        match=r'of 64-d features needs 65 images or more in each set, better 10,000; the real '
        r'set has 64 and the fake '
        r'set has 50\. Two sets of these sizes from one distribution would score \d+',
    ) as error:
        fid(x, y)
    assert 'use kid' in str(error.value) and 'force=True' in str(error.value)
    with pytest.raises(ValueError, match='the fake set has 50'):
        fid(Statistics.of(normal(100, 64)), y)
    assert fid(x, y, force=True) > 10


def test_the_bias_is_what_two_halves_of_one_distribution_score():
    scale = np.exp(-np.arange(64) / 16)
    x = normal(20, 2, 500, 64) * scale
    mean = np.mean([fid(a, b) for a, b in x])
    assert bias(x[0, 0], 500, 500) == pytest.approx(mean, rel=0.05)
    assert bias(Statistics.of(x[0, 0]), 500, 500) == pytest.approx(bias(x[0, 0], 500, 500))
    assert (
        0.6
        < bias(x[0, 0, :64], 64, 64) / np.mean([fid(a[:64], b[:64], force=True) for a, b in x])
        < 1
    )


def test_fid_infinity_takes_the_bias_away():
    real, fake = Statistics.of(normal(50_000, 32)), normal(2000, 32, seed=1) + 0.1
    assert fid(real, fake[:500]) > 0.32 + 0.4
    assert fid_infinity(real, fake) == pytest.approx(0.32, abs=0.08)
    with pytest.raises(ValueError, match='15 subsets of 64 to 60 fake images'):
        fid_infinity(real, fake[:60])


def test_fid_in_two_thousand_dimensions_does_not_hold_copies():
    x = normal(1200, 256).astype(np.float32)
    tracemalloc.start()
    statistics = Statistics()
    for _ in range(3):
        statistics.update(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 1200 * 256 * 8


# ---- KID, IS, PRDC ----


def test_kid_of_one_distribution_is_zero_and_may_be_negative():
    x = normal(2000, 16)
    mean, std = kid(x[:1000], x[1000:], subsets=50, size=200)
    assert abs(mean) < 3 * std / 50**0.5 + 3e-3
    assert (
        kid(x, x + 1, subsets=5, size=100)
        == kid(x, x + 1, subsets=5, size=100)
        != kid(x, x + 1, subsets=5, size=100, seed=1)
    )
    assert kid(X, Y, subsets=1, size=150)[1] == 0
    assert min(kid(x[:1000], x[1000:], subsets=1, size=200, seed=i)[0] for i in range(10)) < 0
    with pytest.raises(
        ValueError,
        match=r'fake features: 150 rows, and 1,000 or more are needed; take more images, or '
        r'smaller subsets',
    ):
        kid(x, normal(150, 16))


def test_inception_score():
    assert inception_score(3 * X, splits=1) == (pytest.approx(2.2129550053, abs=1e-9), 0)
    assert inception_score(3 * X) == (
        pytest.approx(2.1858787744, abs=1e-9),
        pytest.approx(0.1000302706, abs=1e-9),
    )
    balanced = np.tile(np.eye(5), (20, 1))
    assert inception_score(balanced, probabilities=True, splits=2) == (
        pytest.approx(5),
        pytest.approx(0),
    )
    assert inception_score(1e4 * balanced, splits=2)[0] == pytest.approx(5)
    assert inception_score(np.ones((30, 7)), splits=3)[0] == pytest.approx(1)
    assert inception_score(np.eye(4)[np.zeros(30, int)], probabilities=True, splits=3) == (1, 0)
    p = np.exp(3 * X) / np.exp(3 * X).sum(1, keepdims=True)
    assert inception_score(p, probabilities=True) == pytest.approx(inception_score(3 * X))
    assert inception_score(3 * X + 700, splits=1)[0] == pytest.approx(2.2129550053)


def test_inception_score_splits():
    x = 3 * sines(109, 8, 0.7, 1.3, 0.5)
    assert inception_score(x, remainder='drop') == inception_score(x[:100])
    assert inception_score(x) != inception_score(x[:100])
    assert inception_score(x, seed=0) == inception_score(x, seed=0) != inception_score(x)
    with pytest.raises(
        ValueError, match='logits: 9 rows, and 10 or more are needed; one for each of 10 splits'
    ):
        inception_score(x[:9])
    with pytest.raises(ValueError, match='row 0 is negative somewhere .*logits'):
        inception_score(x, probabilities=True)


def test_prdc_of_a_set_with_itself_and_of_distant_sets():
    x = normal(2500, 5)  # more than one block
    assert precision_recall(x, x) == (1, 1) == precision_recall(x, x[::-1])
    density, coverage = density_coverage(x, x)
    assert (
        density == pytest.approx(1, abs=0.01) and coverage == 1
    )  # a ball holds its centre and k - 1 neighbours: k of them
    assert precision_recall(x, x + 100) == (0, 0) == density_coverage(x, x + 100)
    precision, recall = precision_recall(x, x[0] + 0.01 * x)  # one mode
    assert precision > 0.9 and recall < 0.1
    assert precision_recall(x, np.tile(x[:1], (300, 1))) == (
        1,
        0,
    )  # one image, copied: balls without size


@pytest.mark.parametrize(
    'metric',
    [
        lambda x, y: fid(x, y),
        lambda x, y: kid(x, y, size=50),
        precision_recall,
        density_coverage,
        kid_full,
    ],
)
def test_bad_features(metric):
    x, y = normal(100, 8), normal(100, 8, seed=1)
    y[[17, 60]] = np.nan
    with pytest.raises(
        ValueError, match=r'fake features: row 17 holds NaN or infinity \(and 1 more\)'
    ):
        metric(x, y)
    with pytest.raises(ValueError, match='8 and 7 dimensions'):
        metric(x, x[:, :7])
    with pytest.raises(ValueError, match=r'expected an array \(n, d\).*got \(100,\)'):
        metric(x[:, 0], x)


def test_nan_in_a_later_batch_is_counted_from_the_start():
    statistics = Statistics.of(X)
    with pytest.raises(ValueError, match='row 203 holds NaN'):
        statistics.update(np.where(np.arange(10)[:, None] == 3, np.inf, X[:10]))
    with pytest.raises(ValueError, match='8 and 4 dimensions'):
        statistics.update(X[:, :4])


# ---- text and image ----


def test_r_precision_of_perfect_random_and_constant_codes():
    codes, groups = normal(400, 64), np.arange(400)
    found = r_precision(codes, 3 * codes, groups)
    assert (found['value'], found['interval'], found['chance'], found['n']) == (
        1,
        (1, 1),
        0.01,
        400,
    ) and found['hits'].all()
    n = 2000
    value = r_precision(normal(n, 8), normal(n, 8, seed=1), np.arange(n))['value']
    assert abs(value - 0.01) < 3 * (0.01 * 0.99 / n) ** 0.5
    assert r_precision(codes, np.tile(codes[:1], (400, 1)), groups)['value'] == 0  # ties fail
    assert r_precision_of(np.zeros((400, 400)), groups)['value'] == 0


def test_r_precision_top_k_groups_and_seed():
    n = 300
    images, texts, classes = normal(n, 8), normal(n, 8, seed=1), np.arange(n) % 10
    top = [r_precision(images, texts, classes, negatives=9, k=k)['value'] for k in (1, 5, 9)]
    assert top == sorted(top) and abs(top[1] - 0.5) < 0.1
    same = normal(10, 8)[classes]  # texts of one class are alike
    assert r_precision(same, same, classes)['value'] == 1
    assert r_precision(same, same, classes, exclude_same_group=False)['value'] < 0.01
    a, b = (r_precision(images, texts, classes, negatives=9, seed=s) for s in (0, 1))
    assert (a['hits'] != b['hits']).any() and (
        a['hits'] == r_precision(images, texts, classes, negatives=9)['hits']
    ).all()


def test_r_precision_asks_only_for_other_groups_each_once():
    classes, asked = np.random.default_rng(0).integers(0, 6, 80), []

    def score(i, texts):
        asked.append((i, texts))
        return -np.arange(len(texts))

    assert r_precision_of(score, classes, negatives=40)['value'] == 1
    for i, texts in asked:
        assert texts[0] == i and len(set(texts)) == 41 and (classes[texts[1:]] != classes[i]).all()
    assert len(set(np.concatenate([t for _, t in asked]))) == 80
    largest = np.bincount(classes).max()
    with pytest.raises(
        ValueError,
        match=rf'80 texts, {largest} of them of one group, leave {80 - largest} wrong ones, and '
        rf'79 are needed',
    ):
        r_precision_of(score, classes, negatives=79)


def test_r_precision_interval_is_clustered():
    n = 400
    images = np.repeat(normal(n // 10, 8), 10, 0)  # ten captions a picture, all right or all wrong
    texts = np.where(
        (np.arange(n) // 10 % 2)[:, None], images, np.repeat(normal(n // 10, 8, seed=1), 10, 0)
    )
    picture = np.arange(n) // 10
    wide, narrow = (
        r_precision(images, texts, picture, images=i)['interval'] for i in (picture, np.arange(n))
    )
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_r_precision_in_pools_goes_both_ways():
    codes = normal(250, 8)
    found = r_precision_pools(codes, 2 * codes, np.arange(250))
    assert found == dict(value=1.0, spread=0.0, to_text=1.0, to_image=1.0, pools=2)
    # two pictures look like a third: they miss their captions, and these them; it is tied with both
    pictures = codes.copy()
    pictures[[7, 8]] = codes[9]
    asked = r_precision_pools(pictures, codes, np.arange(250))
    assert (asked['to_text'], asked['to_image']) == (0.99, 0.985)
    chance = r_precision_pools(normal(3000, 8), normal(3000, 8, seed=1), np.arange(3000))
    assert abs(chance['value'] - 0.01) < 0.006 and 0 < chance['spread'] < 0.02
    # pictures of two captions each stand next to each other, and are never in one pool
    twice = np.repeat(np.arange(100), 2)
    assert r_precision_pools(codes[twice], codes[twice], twice)['value'] == 1
    assert (
        r_precision_pools(np.tile(codes[:1], (100, 1)), codes[:100], np.arange(100))['value'] < 0.02
    )
    with pytest.raises(ValueError, match='99 pairs, and a pool has 100'):
        r_precision_pools(codes[:99], codes[:99], np.arange(99))


def test_r_precision_refuses_codes_without_a_direction():
    codes, texts = normal(9, 8), normal(9, 8, seed=1)
    with pytest.raises(ValueError, match='image codes: row 3 is all zeros'):
        r_precision(np.where(np.arange(9)[:, None] == 3, 0, codes), texts, np.arange(9))


def ranks(scores, **options):
    return [way['ranks'].tolist() for way in retrieval(scores, at=(1, 2), **options).values()]


def test_retrieval_with_several_captions_of_a_picture():
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.8], [0.4, 0.6, 0.7]])
    assert ranks(scores) == [[1, 2, 1], [1, 2, 2]]
    # picture 0 has two captions, picture 1 none
    assert ranks(scores, owner=[0, 0, 2]) == [[1, 1], [1, 3, 2]]
    found = retrieval(scores, owner=[0, 0, 2], at=(1,))['image_to_text']
    assert found['wrong'].tolist() == [1, 2]
    assert found['chance'] == {1: pytest.approx((2 / 3 + 1 / 3) / 2)}
    assert ranks(np.ones((4, 4))) == [[4] * 4] * 2
    assert ranks(scores[:, :2], owner=[2, 0]) == [[2, 2], [2, 3]]


def test_retrieval_refuses_captions_without_a_picture():
    with pytest.raises(ValueError, match='3 pictures and 5 captions; say with `owner`'):
        retrieval(np.ones((3, 5)))
    with pytest.raises(ValueError, match='must name a picture, 0 to 2, for each'):
        retrieval(np.ones((3, 5)), owner=[0, 1, 2, 3, 0])


# ---- diversity ----


def test_ms_ssim_of_equal_noisy_and_unlike_images():
    clean, noisy = make_metrics.pictures(64, 0)
    assert ms_ssim(clean, clean) == pytest.approx(1, abs=1e-5)
    value = ms_ssim(clean, noisy)
    assert (
        value.shape == (3,)
        and value.dtype == np.float64
        and (value < 0.95).all()
        and (value > 0.05).all()
    )
    assert ms_ssim(clean / np.float32(127.5) - 1, noisy / np.float32(127.5) - 1) == pytest.approx(
        value, abs=1e-4
    )
    assert (ms_ssim(clean, 255 - clean) < 0.05).all()  # negative contrast counts as 0
    many = np.concatenate([clean] * 30), np.concatenate([noisy] * 30)  # more than one batch
    assert ms_ssim(*many) == pytest.approx(np.tile(value, 30), abs=1e-6)


def test_ms_ssim_chooses_its_scales():
    a, b = make_metrics.pictures(161, 0)
    assert ms_ssim(a, b) == pytest.approx(ms_ssim(a, b, scales=5), abs=1e-7)
    assert ms_ssim(a[:, 1:], b[:, 1:]) == pytest.approx(
        ms_ssim(a[:, 1:], b[:, 1:], scales=3), abs=1e-7
    )
    with pytest.raises(
        ValueError, match='images of 32 px are too small for 3 scales, which need 41: pass scales=2'
    ):
        ms_ssim(a[:, :32, :32], b[:, :32, :32])
    with pytest.raises(ValueError, match=r'float images lie in \[-1, 1\], and image 1 does not'):
        ms_ssim(
            np.zeros((2, 64, 64, 3)), np.stack([np.zeros((64, 64, 3)), np.full((64, 64, 3), 9.0)])
        )


def test_pairs_within_a_caption():
    images = np.arange(12.0).reshape(4, 3, 1)  # caption c: 3c, 3c + 1, 3c + 2
    values, captions = pairwise(images, lambda a, b: abs(a - b)[:, 0])
    assert (
        captions.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
        and values.tolist() == [1, 2, 1] * 4
    )
    values, captions = pairwise(images, lambda a, b: abs(a - b)[:, 0], pairs=600)
    assert (
        set(values) == {1, 2}
        and values.mean() == pytest.approx(4 / 3, abs=0.1)
        and set(captions) == {0, 1, 2, 3}
    )
    with pytest.raises(ValueError, match='2 samples or more'):
        pairwise(images[:, :1], None)


def test_feature_diversity():
    assert feature_diversity(np.stack([np.eye(3), np.ones((3, 3))])) == pytest.approx([2, 0])
    assert feature_diversity(np.array([[[1.0, 0], [-2, 0]]])) == pytest.approx([4])
    x = normal(2, 5, 7)
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    assert feature_diversity(x) == pytest.approx(
        [np.mean([((u[i] - u[j]) ** 2).sum() for i in range(5) for j in range(i)]) for u in unit]
    )
    with pytest.raises(ValueError, match='sample 1 of caption 0 are zero'):
        feature_diversity(np.array([[[1.0, 0], [0, 0]]]))


# ---- intervals ----


def test_interval_is_that_of_the_normal_approximation():
    x = normal(2000) + 5
    low, high = interval(x)
    assert (low + high) / 2 == pytest.approx(x.mean(), abs=0.01) and high - low == pytest.approx(
        2 * 1.96 * x.std() / 2000**0.5, rel=0.1
    )
    narrow = interval(x, level=0.5)
    assert low < narrow[0] < narrow[1] < high and interval(x) == (low, high)


def test_interval_of_groups():
    groups = np.repeat(normal(100) > 0, 20).astype(float)
    low, high = interval(groups, np.repeat([f'image {i}' for i in range(100)], 20))
    alone = interval(groups)
    assert high - low == pytest.approx(20**0.5 * (alone[1] - alone[0]), rel=0.15)
    assert interval([3, 3, 3]) == (3, 3) == interval([3.0], ['a'])
    for values, message in ((np.zeros(0), 'one or more'), ([1, np.nan], 'NaN or infinity at 1')):
        with pytest.raises(ValueError, match=message):
            interval(values)
