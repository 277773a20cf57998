"""LayoutVAE: likelihoods against quadrature and scipy, what depends on what, what sampling keeps
to.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import stats

from t2i_jax import stage as core
from t2i_jax.runtime.errors import DataError
from t2i_jax.stage import Meta
from t2i_jax.systems import layout_vae
from t2i_jax.systems.layout_vae import BoxVae, ConditionalVae, Counter, CountVae, Placer

C, R = 4, 7
ordered = jax.jit(layout_vae.ordered, static_argnums=2)
META = Meta('layouts', object_classes=C, max_objects=R)


def counter(head='poisson', prior='learned', history=True, latent_dim=3):
    return Counter(C, 16, latent_dim, head, prior, history, rngs=nnx.Rngs(1))


def placer(head='linear', history=True, latent_dim=3):
    return Placer(C, 16, latent_dim, head, 0.02, 'learned', history, rngs=nnx.Rngs(2))


def box_vae(**changes):
    kept = {name: changes.pop(name) for name in ('count_head',) if name in changes}
    count = CountVae(META, width=16, latent_dim=3, **kept, rngs=nnx.Rngs(3))
    return BoxVae(
        META,
        **dict(width=16, latent_dim=3, importance=7) | changes,
        counter=count.counter,
        rngs=nnx.Rngs(4),
    )


def scenes(n=5, seed=0, empty=False):
    """Boxes n R 4 (cx cy w h) and labels n R, of which some are -1."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((n, R)) < 0.3, -1, rng.integers(0, C, (n, R)))
    labels[:, 0] = -1 if empty else 2
    sides = rng.uniform(0.05, 0.3, (n, R, 2))
    centres = rng.uniform(sides / 2, 1 - sides / 2)
    return np.where(labels[..., None] >= 0, np.concatenate([centres, sides], -1), 0).astype(
        np.float32
    ), labels.astype(np.int32)


def batch_of(boxes, labels, step=0):
    return {
        'boxes': jnp.asarray(boxes),
        'object_labels': jnp.asarray(labels),
        'step': jnp.int32(step),
    }


def measured(stage, boxes, labels):
    parts = core.split(stage)
    measure = jax.jit(
        lambda *x: core.call(
            parts.graph, *x, 'measure', batch_of(boxes, labels), jax.random.key(0), training=False
        )[0]
    )
    return measure(parts.params, parts.stats)


def elbo(stage, boxes, labels, step=0):
    return jax.jit(lambda batch: stage.elbo(batch, jax.random.key(0), None))(
        batch_of(boxes, labels, step)
    )


# -------------------------------------------------------------------------------------- likelihoods
@pytest.mark.parametrize('prior', ['learned', 'standard'])
def test_the_importance_sampled_likelihood_is_the_integral_over_the_latent(prior):
    vae = ConditionalVae(1, 1, 8, 1, prior, rngs=nnx.Rngs(5))
    x, c = jnp.array([[0.4]]), jax.random.normal(jax.random.key(1), (1, 8))

    def nll(said):
        return 0.5 * (jnp.square((x - 3 * said) / 0.3) + math.log(2 * math.pi * 0.09))[..., 0]

    p = vae.prior(c)
    z = jnp.linspace(-12, 12, 20_001)[:, None, None]  # a grid, one row of x
    exact = -jax.nn.logsumexp(p.log_density(z) - nll(vae.decode(z, c)), 0)[0] - math.log(
        24 / 20_000
    )
    found = jax.jit(lambda key: vae.held_out(x, c, key, nll, 40_000))(jax.random.key(2))
    assert found['nll'][0] == pytest.approx(float(exact), abs=0.01)
    assert found['elbo'][0] > exact  # a bound, and not the likelihood itself
    q = vae.posterior(x, c)
    reconstruction = nll(vae.decode(z, c)) * jnp.exp(q.log_density(z))
    assert found['elbo'][0] == pytest.approx(
        float(reconstruction.sum() * 24 / 20_000 + found['kl'][0]), abs=0.02
    )


@pytest.mark.slow
def test_more_draws_give_a_tighter_bound():
    boxes, labels = ordered(*map(jnp.asarray, scenes(40)), R)
    net = placer()
    c, nll = jax.jit(net.conditions)(boxes, labels), net.nll(boxes)
    weights = jax.jit(lambda key: net.vae.log_weights(layout_vae.scaled(boxes), c, key, nll, 120))(
        jax.random.key(0)
    )  # 120 n R

    def bound(k):  # mean over groups of k of the same draws: Jensen orders these exactly
        groups = weights.reshape(120 // k, k, *labels.shape)
        return -(jax.nn.logsumexp(groups, 1) - math.log(k)).mean(0)[labels >= 0]

    bounds = [bound(k) for k in (1, 2, 10, 60, 120)]
    for loose, tight in zip(bounds, bounds[1:]):
        assert (tight <= loose + 1e-3).all() and tight.mean() < loose.mean() - 1e-3
    found = jax.jit(lambda key: net.vae.held_out(layout_vae.scaled(boxes), c, key, nll, 120))(
        jax.random.key(0)
    )
    assert np.allclose(found['nll'][labels >= 0], bounds[-1], rtol=1e-4) and np.allclose(
        found['elbo'][labels >= 0], bounds[0], rtol=1e-4
    )


def test_heads_of_counts_against_scipy():
    counts = jnp.array([[1.0, 2, 5, 20]])
    net = counter('poisson')
    log_rate = jnp.array([[[-2.0], [0.0], [1.0], [2.5]]])
    expected = -stats.poisson.logpmf(np.array([0, 1, 4, 19]), np.exp([-2, 0, 1, 2.5]))
    assert np.allclose(net.nll(counts)(log_rate)[0], expected, rtol=1e-5)
    table = stats.poisson.pmf(np.arange(20), math.exp(1))
    assert np.allclose(jnp.exp(net.log_probs(jnp.array([1.0]))), table / table.sum(), atol=1e-6)
    assert net.likeliest(jnp.array([[-9.0], [0.5], [30.0]])).tolist() == [1, 3, 20]

    net, logits = counter('categorical'), jax.random.normal(jax.random.key(0), (1, 4, 20))
    logs = np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    assert np.allclose(
        net.nll(counts)(logits)[0],
        [-logs[0, i, n - 1] for i, n in enumerate((1, 2, 5, 20))],
        rtol=1e-5,
    )


def test_the_head_of_boxes_against_scipy():
    box, said = (
        np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        np.array([0.12, 0.18, 0.3, 0.41], np.float32),
    )
    assert float(placer().nll(box)(said)) == pytest.approx(
        -stats.norm.logpdf(box, said, 0.02).sum(), rel=1e-4
    )
    mean = 1 / (1 + np.exp(-said))
    assert float(placer('sigmoid').nll(box)(said)) == pytest.approx(
        -stats.norm.logpdf(box, mean, 0.02).sum(), rel=1e-4
    )
    assert float(placer().nll(box)(box)) == pytest.approx(
        4 * -2.993, abs=1e-3
    )  # spec: what a coordinate that is known costs


def test_losses_are_means_over_the_items_of_a_scene_then_over_scenes():
    boxes, labels = scenes()
    labels[3] = -1  # a scene without objects weighs nothing
    count = CountVae(META, width=16, latent_dim=3, rngs=nnx.Rngs(3))
    loss, logs = elbo(count, boxes, labels)
    counts = np.stack([(labels == k).sum(1) for k in range(C)], 1)
    nll, kl = jax.jit(count.counter.terms)(jnp.asarray(counts, jnp.float32), jax.random.key(0))
    by_hand = [np.mean((nll + kl)[i][counts[i] > 0]) for i in range(5) if i != 3]
    assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-5) and float(
        loss
    ) == pytest.approx(float(logs['nll'] + logs['kl']), rel=1e-6)
    assert all(
        np.isnan(value[3]) and np.isfinite(np.delete(value, 3)).all()
        for value in measured(box_vae(), boxes, labels).values()
    )
    stage = box_vae()
    slope = jax.jit(
        jax.grad(
            lambda scale: stage.elbo(batch_of(scale * boxes, labels), jax.random.key(0), None)[0]
        )
    )(1.0)
    assert np.isfinite(slope)


def test_the_weight_of_kl_grows_in_training_and_is_1_in_validation():
    stage = CountVae(META, width=16, latent_dim=3, warmup=100, rngs=nnx.Rngs(3))
    for step, training, weight in ((0, True, 0), (25, True, 0.25), (300, True, 1), (25, False, 1)):
        stage.training = training
        loss, logs = elbo(stage, *scenes(), step)
        assert logs['kl'] > 0 and float(loss) == pytest.approx(
            float(logs['nll'] + weight * logs['kl'])
        )


def test_what_is_measured():
    boxes, labels = scenes(6)
    found = measured(box_vae(), boxes, labels)
    assert found.keys() == {
        f'{a}_per_{b}' for a in ('nll', 'elbo', 'kl') for b in ('box', 'label')
    } | {'count_exact', 'count_within_one'}
    assert all(value.shape == (6,) and value.dtype == jnp.float32 for value in found.values())
    assert (found['nll_per_box'] < found['elbo_per_box']).all() and (
        found['count_exact'] <= found['count_within_one']
    ).all()
    own = CountVae(META, width=16, latent_dim=3, importance=7, rngs=nnx.Rngs(3))
    assert np.allclose(
        measured(own, boxes, labels)['count_exact'], found['count_exact']
    )  # the same counter


def test_without_a_latent_the_bound_is_the_likelihood():
    stage = box_vae(latent=False)
    found = measured(stage, *scenes())
    assert (
        np.allclose(found['nll_per_box'], found['elbo_per_box'])
        and (found['kl_per_box'] == 0).all()
        and (found['kl_per_label'] > 0).all()
    )
    assert elbo(stage, *scenes())[1]['kl'] == 0
    assert core.split(stage).params['placer']['vae'].keys() == {'decoder'}


# --------------------------------------------------------------------------------------- conditions
def test_objects_are_told_by_label_from_left_to_right():
    boxes = jnp.array(
        [
            [
                [0.9, 0.5, 0.2, 0.1],
                [0.5, 0.5, 0.8, 0.2],
                [0.3, 0.3, 0.2, 0.2],
                [0.4, 0.6, 0.3, 0.005],
                [0.2, 0.2, 0.1, 0.1],
                [0, 0, 0, 0],
            ]
        ]
    )
    labels = jnp.array([[1, 1, 0, 0, 3, -1]])
    found, names = ordered(boxes, labels, 7)
    assert names.tolist() == [[0, 1, 1, 3, -1, -1, -1]]  # one is flatter than 1 %
    assert (
        np.allclose(
            found[0, :4],
            [
                [0.2, 0.2, 0.2, 0.2],
                [0.1, 0.4, 0.8, 0.2],
                [0.8, 0.45, 0.2, 0.1],
                [0.15, 0.15, 0.1, 0.1],
            ],
        )
        and (found[0, 4:] == 0).all()
    )
    assert ordered(boxes, labels, 2)[1].tolist() == [
        [1, 1]
    ]  # the first records' objects, where there is no room for all
    assert np.allclose(layout_vae.to_centre(found[0, :1]), boxes[0, 2])


def test_a_label_has_at_most_twenty_objects():
    n = 25
    boxes = (
        jnp.tile(jnp.array([0.5, 0.5, 0.1, 0.1]), (1, n, 1))
        .at[:, :, 0]
        .set(jnp.linspace(0.2, 0.8, n))
    )
    _, names = ordered(boxes, jnp.full((1, n), 1).at[:, -2:].set(2), n)
    assert (names == 1).sum() == 20 and (names == 2).sum() == 2


def test_the_order_of_padding_and_of_objects_changes_nothing():
    boxes, labels = scenes()
    order = np.random.default_rng(1).permuted(np.tile(np.arange(R), (5, 1)), axis=1)
    moved = np.take_along_axis(boxes, order[..., None], 1), np.take_along_axis(labels, order, 1)
    assert (moved[1] != labels).any()
    stage = box_vae()
    for a, b in (
        (measured(stage, boxes, labels), measured(stage, *moved)),
        (elbo(stage, boxes, labels)[1], elbo(stage, *moved)[1]),
    ):
        assert all(np.allclose(a[name], b[name], rtol=1e-5) for name in a)


def test_a_box_knows_those_before_it_and_no_other():
    boxes, labels = ordered(*map(jnp.asarray, scenes(1, seed=3)), R)
    n = int((labels >= 0).sum())
    net = placer()
    conditions = jax.jit(net.conditions)
    before = conditions(boxes, labels)
    for j in range(n):
        after = conditions(boxes.at[:, j].add(0.05), labels)
        assert (after[:, : j + 1] == before[:, : j + 1]).all() and (
            after[:, j + 1 : n] != before[:, j + 1 : n]
        ).any(-1).all()
    blind = placer(history=False)
    assert (blind.conditions(boxes, labels) == blind.conditions(boxes / 2, labels)).all()


def test_a_count_knows_those_before_it_the_set_and_no_other():
    counts = jnp.array([[2.0, 3, 1, 4]])
    net, blind = counter(), counter(history=False)
    before = net.conditions(counts)
    for k in range(C):
        after = net.conditions(counts.at[:, k].add(1))
        assert (after[:, : k + 1] == before[:, : k + 1]).all() and (
            after[:, k + 1 :] != before[:, k + 1 :]
        ).any(-1).all()
        assert (blind.conditions(counts.at[:, k].add(1)) == blind.conditions(counts)).all()
        assert (
            (net.conditions(counts.at[:, k].set(0))[:, :k] != before[:, :k]).any(-1).all()
        )  # what is in the set is known from the start


def test_the_state_passes_over_what_is_not_there():
    lstm = placer().lstm
    x = jax.random.normal(jax.random.key(0), (1, 4, C + 4))
    there = jnp.array([[True, False, True, True]])
    full, short = lstm.before(x, there), lstm.before(x[:, [0, 2, 3]], jnp.ones((1, 3), bool))
    assert (
        np.allclose(full[:, [0, 2, 3]], short)
        and (full[:, 0] == 0).all()
        and (full[:, 1] == full[:, 2]).all()
    )


@pytest.mark.slow
def test_counts_learn_from_those_before_them():
    counts = np.random.default_rng(0).integers(3, 5, 64)[:, None] * [1, 0, 0, 1] - [
        0,
        0,
        0,
        1,
    ]  # D = A - 1, A is 3 or 4
    counts = jnp.asarray(counts, jnp.float32)
    found = {}
    for history in (True, False):
        parts = core.split(counter('categorical', history=history, latent_dim=2))
        tx = optax.adam(1e-2)

        def loss(params, key, parts=parts):
            nll, kl = nnx.merge(parts.graph, params, {}).terms(counts, key)
            return (nll + kl)[:, jnp.array([0, 3])].mean(0).sum(), nll.mean(0)

        @jax.jit
        def steps(params, loss=loss, tx=tx):
            def one(carry, key):
                params, opt = carry
                grads, nll = jax.grad(loss, has_aux=True)(params, key)
                updates, opt = tx.update(grads, opt)
                return (optax.apply_updates(params, updates), opt), nll

            return jax.lax.scan(
                one, (params, tx.init(params)), jax.random.split(jax.random.key(0), 400)
            )[1][-20:].mean(0)

        found[history] = steps(parts.params)
    p = float((counts[:, 0] == 3).mean())
    entropy = stats.bernoulli(p).entropy()
    assert found[True][0] == pytest.approx(entropy, abs=0.03) and found[False][0] == pytest.approx(
        entropy, abs=0.03
    )
    assert found[True][3] < 0.05 and found[False][3] == pytest.approx(entropy, abs=0.05)


# ----------------------------------------------------------------------------------------- sampling
SETS = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 1]], np.float32)


def drawn(stage, n=40, seed=0, **batch):
    batch = batch or {'label_set': np.resize(SETS, (n, C))}
    return jax.tree.map(
        np.asarray,
        jax.jit(lambda key: stage.sample(batch, stage.noise(key, n)))(jax.random.key(seed)),
    )


@pytest.mark.parametrize('head', ['poisson', 'categorical'])
def test_layouts_keep_to_the_set_the_frame_and_the_number_of_boxes(head):
    stage = box_vae(count_head=head, box_noise=3.0, temperature=5.0)
    out = drawn(stage)
    counts = np.stack([(out['object_labels'] == k).sum(1) for k in range(C)], 1)
    assert (
        (counts == out['counts']).all()
        and ((counts > 0) == np.resize(SETS, (40, C))).all()
        and counts.sum(1).max() == R
    )
    there = out['object_labels'] >= 0
    assert (np.diff(np.where(there, out['object_labels'], C)) >= 0).all()  # by label, padding last
    low, high = (
        out['boxes'][..., :2] - out['boxes'][..., 2:] / 2,
        out['boxes'][..., :2] + out['boxes'][..., 2:] / 2,
    )
    assert (
        (low[there] >= -1e-6).all()
        and (high[there] <= 1 + 1e-6).all()
        and (out['boxes'][there][:, 2:] >= 0.01 - 1e-6).all()
    )
    assert (out['boxes'][~there] == 0).all() and len(np.unique(counts[::5, 0])) > 1


@pytest.mark.slow
def test_a_layout_does_not_depend_on_how_many_are_drawn():
    stage = box_vae(box_noise=1.0, tries=2)
    many, few = drawn(stage, 12), drawn(stage, 3)
    assert all(
        np.array_equal(many[name][:3], few[name])
        if name != 'boxes'
        else np.allclose(many[name][:3], few[name], atol=1e-6)
        for name in few
    )
    assert not np.allclose(many['boxes'], drawn(stage, 12, seed=1)['boxes'])


def test_the_set_of_a_true_layout_is_what_is_asked_for():
    boxes, labels = scenes(40, empty=True)
    out = drawn(box_vae(), object_labels=labels, boxes=boxes)
    assert ((out['counts'] > 0) == np.stack([(labels == k).any(1) for k in range(C)], 1)).all()
    with pytest.raises(DataError, match='give label_set'):
        box_vae().sample({}, {})


def test_counts_are_drawn_by_their_distribution_cut_to_what_is_allowed():
    net = counter('poisson', latent_dim=0)
    n = 4000
    label_set = jnp.tile(jnp.array([0.0, 1, 0, 0]), (n, 1))
    u = jnp.tile((jnp.arange(n) + 0.5)[:, None] / n, (1, C))
    log_rate = net.vae.decode(
        jnp.zeros((1, 0)), net.condition(label_set[:1], jnp.eye(C)[1:2], jnp.zeros((1, C)))
    )[0, 0]
    pmf = stats.poisson.pmf(np.arange(20), math.exp(log_rate))
    for low, room in ((1, 9), (3, 9), (1, 1)):
        counts = jax.jit(net.sample)(
            label_set, low * label_set, jnp.full(n, room), jnp.zeros((n, C, 0)), u
        )
        share = np.bincount(np.asarray(counts[:, 1], int), minlength=21)[1:] / n
        expected = np.where(np.arange(1, 21) >= low, pmf, 0) / pmf[low - 1 :].sum()
        expected[low + room - 1] += expected[
            low + room :
        ].sum()  # more than there is room for are as many as there is
        expected[low + room :] = 0
        assert np.allclose(share, expected, atol=2 / n) and (counts[:, [0, 2, 3]] == 0).all()


@pytest.mark.slow
def test_drawing_follows_the_model_that_was_trained():
    stage = box_vae(count_head='categorical')
    noise = stage.noise(jax.random.key(0), 40)
    out = stage.sample({'label_set': np.resize(SETS, (40, C))}, noise)
    boxes, labels = layout_vae.to_corner(out['boxes']), out['object_labels']
    c = stage.placer.conditions(boxes, labels)  # of all boxes at once, as training has them
    z = stage.placer.vae.prior(c).draw(noise['box_z'][:, :, 0])
    again = layout_vae.inside(stage.placer.mean(stage.placer.vae.decode(z, c)))
    assert np.allclose(again[labels >= 0], boxes[labels >= 0], atol=1e-5)

    counts, net = out['counts'].astype(jnp.float32), stage.counter
    c = net.conditions(counts)
    cdf = jnp.cumsum(
        jnp.exp(net.log_probs(net.vae.decode(net.vae.prior(c).draw(noise['count_z']), c))), -1
    )
    n = 1 + (cdf <= noise['count_u'][..., None]).sum(-1)
    whole = counts.sum(1) < R  # nothing was cut
    assert whole.sum() > 5 and (jnp.where(counts > 0, n, 0) == counts)[whole].all()


def test_the_mode_without_noise_is_the_same_every_time():
    stage = box_vae(counts='mode', temperature=0.0)
    a, b = drawn(stage, seed=0), drawn(stage, seed=1)
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert (
        drawn(box_vae(temperature=0.0), seed=0)['counts']
        != drawn(box_vae(temperature=0.0), seed=1)['counts']
    ).any()


def test_a_layout_is_completed_around_the_boxes_that_are_given():
    n = 20
    boxes = np.tile(
        np.array(
            [[0.3, 0.3, 0.1, 0.2], [0.8, 0.6, 0.2, 0.2], [0.2, 0.6, 0.2, 0.2], [0, 0, 0, 0]],
            np.float32,
        ),
        (n, 1, 1),
    )
    labels = np.tile([3, 1, 1, -1], (n, 1))
    out = drawn(
        box_vae(),
        n,
        label_set=np.tile([1.0, 0, 0, 1], (n, 1)),
        given_boxes=boxes,
        given_labels=labels,
    )
    assert (out['object_labels'][:, :3] == [1, 1, 3]).all() and np.allclose(
        out['boxes'][:, :3], boxes[:, [2, 1, 0]], atol=1e-6
    )
    assert (
        (out['counts'] >= [1, 2, 0, 1]).all()
        and (out['counts'][:, 2] == 0).all()
        and (out['object_labels'][:, 3] == 0).all()
    )
    assert np.unique(out['counts'], axis=0).shape[0] > 1
    other = boxes.copy()
    other[:, 0, 0] = 0.6
    moved = drawn(
        box_vae(),
        n,
        label_set=np.tile([1.0, 0, 0, 1], (n, 1)),
        given_boxes=other,
        given_labels=labels,
    )
    assert (moved['boxes'][:, 3] != out['boxes'][:, 3]).any()  # what is given is heard


@pytest.mark.slow
def test_more_tries_overlap_less():
    def overlap(**changes):
        out = drawn(box_vae(box_noise=8.0, **changes))
        boxes = layout_vae.to_corner(out['boxes'])
        return np.mean(
            [
                layout_vae.overlaps(boxes[:, j : j + 1], boxes[:, :j])[:, 0][
                    out['object_labels'][:, j] >= 0
                ].mean()
                for j in range(1, 4)
            ]
        )

    least, loose = overlap(tries=16), overlap(tries=16, overlap=1e9)
    assert (
        least < 0.7 * overlap() and loose > least
    )  # with any overlap allowed the first try stands


def test_overlap_of_boxes_by_hand():
    tries = jnp.array([[[0.0, 0, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 0.1, 0.1]]])
    placed = jnp.array([[[0.0, 0, 0.2, 0.2], [0.1, 0, 0.1, 0.2], [0, 0, 0, 0]]])
    assert np.allclose(layout_vae.overlaps(tries, placed), [[1.5, 0.5, 0]], atol=1e-6)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: counter('normal'), "count_head is 'normal'; it is 'poisson' or 'categorical'"),
        (lambda: placer('tanh'), "box_head is 'tanh'; it is 'linear' or 'sigmoid'"),
        (lambda: counter(prior='flat'), "prior is 'flat'; it is 'learned' or 'standard'"),
        (lambda: box_vae(counts='all'), "counts is 'all'; it is 'sample' or 'mode'"),
        (lambda: box_vae(tries=0), 'tries is 0'),
        (
            lambda: CountVae(Meta('flowers'), rngs=nnx.Rngs(0)),
            'flowers does not have. Choose a data set with objects',
        ),
    ],
)
def test_settings_that_do_not_exist_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_half_precision_is_of_the_layers_alone():
    stage = box_vae()
    before = float(elbo(stage, *scenes())[0])
    core.compute_in(stage, 'bfloat16')
    loss, out = elbo(stage, *scenes())[0], drawn(stage)
    assert (
        loss.dtype == jnp.float32
        and float(loss) == pytest.approx(before, rel=0.05)
        and float(loss) != before
    )
    assert out['boxes'].dtype == np.float32 and np.isfinite(out['boxes']).all()


def test_sizes_are_those_of_the_published_networks():
    """By hand: fc2(d) = 128 d + 128 + 128 128 + 128; see the table in the specification."""
    meta = Meta('coco', object_classes=80, max_objects=10)
    count = nnx.eval_shape(lambda: CountVae(meta, rngs=nnx.Rngs(0)))
    box = nnx.eval_shape(
        lambda: BoxVae(meta, counter=CountVae(meta, rngs=nnx.Rngs(0)).counter, rngs=nnx.Rngs(0))
    )

    def size(tree):
        return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))

    def dense(*sizes):
        return sum(a * b + b for a, b in zip(sizes, sizes[1:]))

    latent = dense(256, 32) + 2 * dense(32, 32) + dense(128, 32) + 2 * dense(32, 32)
    assert size(core.split(count).params) == 3 * dense(80, 128, 128) + dense(384, 128) + dense(
        1, 128, 128
    ) + latent + dense(160, 128, 64, 1)
    assert size(core.split(box).params['placer']) == (
        2 * dense(80, 128, 128)
        + dense(384, 128)
        + dense(84, 512)
        + dense(128, 512)
        + dense(4, 128, 128)
        + latent
        + dense(160, 128, 64, 4)
    )
