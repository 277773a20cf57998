"""Losses against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from t2i_jax import losses

SCORES = np.array(
    [[2.0, 1.5, 0.0], [0.0, 1.0, 3.0], [1.0, 2.5, 4.0]], np.float32
)  # of image i and text j


def test_structured_joint_embedding_by_hand():
    images, texts = SCORES, np.eye(3, dtype=np.float32)  # so image_i . text_j = SCORES[i, j]
    # image against texts, max(0, 1 + s_ij - s_ii): row 0: .5, 0; row 1: 0, 3; row 2: 0, 0
    assert losses.structured_joint_embedding(images, texts, symmetric=False) == pytest.approx(
        3.5 / 9
    )
    # text against images, max(0, 1 + s_ij - s_jj): column 0: 0, 0; column 1: 1.5, 2.5; column
    # 2: 0, 0
    assert losses.structured_joint_embedding(images, texts) == pytest.approx(7.5 / 9)
    assert losses.structured_joint_embedding(texts, images, symmetric=False) == pytest.approx(
        4.0 / 9
    )
    assert losses.structured_joint_embedding(images, texts, margin=0.0) == pytest.approx(
        (2 + 0.5 + 1.5) / 9
    )


def test_a_perfect_embedding_costs_nothing():
    assert losses.structured_joint_embedding(jnp.eye(4), 2 * jnp.eye(4)) == 0


def test_bce_of_zero_logits_is_log_2_so_both_discriminator_losses_start_at_2_log_2():
    one, zero = losses.bce(jnp.zeros(4), 1.0), losses.bce(jnp.zeros(4), 0.0)
    assert one + zero == pytest.approx(2 * np.log(2))  # vanilla: real + fake
    assert one + 0.5 * zero + 0.5 * zero == pytest.approx(
        2 * np.log(2)
    )  # CLS: real + (wrong + fake) / 2


def test_bce_is_softplus_and_stays_finite_in_bfloat16():
    logits = jnp.array([-300.0, -1.0, 2.0, 300.0], jnp.bfloat16)
    assert losses.bce_per_row(logits, 1.0) == pytest.approx(
        [300.0, np.log1p(np.e), np.log1p(np.exp(-2)), 0.0], rel=1e-6
    )
    assert losses.bce_per_row(logits, 0.0) == pytest.approx(
        [0.0, np.log1p(np.exp(-1)), np.log1p(np.exp(2)), 300.0], rel=1e-6
    )
    assert losses.bce(logits, 1.0).dtype == jnp.float32
    assert np.isfinite(jax.grad(lambda x: losses.bce(x, 1.0))(logits).astype(jnp.float32)).all()


def test_bce_of_patches_and_of_a_label_for_each_row():
    patches = jnp.array([[[0.0, 0.0], [0.0, 0.0]], [[4.0, 4.0], [4.0, 4.0]]])[..., None]
    rows = losses.bce_per_row(patches, 1.0)
    assert rows == pytest.approx([np.log(2), np.log1p(np.exp(-4))], rel=1e-6)
    assert losses.bce(patches, 1.0) == pytest.approx(float(rows.mean()))
    assert losses.bce_per_row(jnp.zeros((2, 1)), jnp.array([[1.0], [0.5]])) == pytest.approx(
        [np.log(2)] * 2
    )


def test_adversarial_losses_of_zero_logits():
    zero = jnp.zeros(4)
    expected = {
        'nonsaturating': (2 * np.log(2), np.log(2)),
        'minimax': (2 * np.log(2), -np.log(2)),
        'hinge': (2, 0),
        'wgan': (0, 0),
    }
    assert expected.keys() == losses.ADVERSARIAL.keys()
    for kind, (d, g) in expected.items():
        d_loss, g_loss = losses.adversarial(kind)
        assert (d_loss(zero, zero), g_loss(zero)) == (pytest.approx(d), pytest.approx(g)), kind


def test_adversarial_losses_by_hand():
    real, fake = jnp.array([0.5, 3.0]), jnp.array([-2.0, 1.0])
    d_loss, g_loss = losses.adversarial('hinge')
    assert (d_loss(real, fake), g_loss(fake)) == (0.25 + 1.0, 0.5)
    d_loss, g_loss = losses.adversarial('wgan')
    assert (d_loss(real, fake), g_loss(fake)) == (-0.5 - 1.75, 0.5)
    probability = 1 / (1 + np.exp(-np.array(fake)))
    assert losses.adversarial('minimax')[1](fake) == pytest.approx(np.log(1 - probability).mean())
    assert losses.adversarial('nonsaturating')[1](fake) == pytest.approx(
        -np.log(probability).mean()
    )


@pytest.mark.parametrize('kind', losses.ADVERSARIAL)
def test_every_generator_wants_larger_logits_and_every_discriminator_a_gap(kind):
    d_loss, g_loss = losses.adversarial(kind)
    zero = jnp.zeros((2, 3, 3), jnp.bfloat16)  # patches, too, and in float32 whatever comes in
    assert d_loss(zero, zero).dtype == g_loss(zero).dtype == jnp.float32
    d_real, d_fake = jax.grad(d_loss, (0, 1))(zero, zero)
    assert (d_real < 0).all() and (d_fake > 0).all() and (jax.grad(g_loss)(zero) < 0).all()


def test_a_wrong_kind_names_those_that_exist():
    with pytest.raises(
        ValueError, match="'lsgan'; it is 'nonsaturating', 'minimax', 'hinge' or 'wgan'"
    ):
        losses.adversarial('lsgan')


def test_the_penalty_of_a_linear_critic():
    real, fake, weights = jax.random.normal(jax.random.key(0), (3, 5, 4, 4, 3))
    w = weights[0]

    def critic(x):
        return jnp.einsum('bhwc,hwc->b', x, w)

    norm = np.linalg.norm(w)
    assert losses.gradient_penalty(
        critic, real, fake, jax.random.key(1), weight=1.0
    ) == pytest.approx((norm - 1) ** 2)
    assert losses.gradient_penalty(critic, real, fake, jax.random.key(1)) == pytest.approx(
        10 * (norm - 1) ** 2
    )


def test_the_penalty_of_a_critic_that_is_flat_has_a_finite_gradient():
    def penalty(scale):
        return losses.gradient_penalty(
            lambda x: scale * x.sum(-1), jnp.ones((2, 3)), jnp.zeros((2, 3)), jax.random.key(0)
        )

    value, slope = jax.value_and_grad(penalty)(0.0)
    assert value == pytest.approx(10, rel=1e-5) and np.isfinite(slope)


def test_the_penalty_is_taken_between_real_and_fake():
    def critic(x):  # its slope at x is x
        return (x**2).sum(-1) / 2

    real, fake = jnp.full((1, 1), 3.0), jnp.full((1, 1), 1.0)
    penalties = [
        losses.gradient_penalty(critic, real, fake, jax.random.key(i), weight=1.0)
        for i in range(20)
    ]
    places = np.sqrt(penalties) + 1
    assert (places >= 1).all() and (places <= 3).all() and places.min() < 1.5 and places.max() > 2.5


def test_likelihoods_against_scipy():
    x, mean, logvar = (
        np.array([0.0, 0.3, -2.0]),
        np.array([0.1, 0.3, 1.0]),
        np.array([-8.0, 0.0, 1.5]),
    )
    assert losses.gaussian_nll(x, mean, logvar) == pytest.approx(
        -stats.norm.logpdf(x, mean, np.exp(logvar / 2)), rel=1e-5
    )
    assert losses.gaussian_nll(0.5, 0.5, 2 * np.log(0.02)) == pytest.approx(
        -2.993, abs=5e-4
    )  # a coordinate hit exactly, sigma .02
    m, log_rate = np.array([0, 1, 4, 19]), np.array([-3.0, 0.0, 1.2, 2.5])
    assert losses.poisson_nll(m, log_rate) == pytest.approx(
        -stats.poisson.logpmf(m, np.exp(log_rate)), rel=1e-5
    )
    assert losses.poisson_nll(2, np.log(2.0)) == pytest.approx(
        1.307, abs=5e-4
    )  # 2 - 2 ln 2 + ln 2!
    assert (
        losses.poisson_nll(np.zeros((5, 1)), np.zeros(3)).shape
        == losses.gaussian_nll(np.zeros((5, 1)), np.zeros(3), 0.0).shape
        == (5, 3)
    )


def test_kl_of_gaussians_against_a_monte_carlo_estimate():
    mu_q, logvar_q, mu_p, logvar_p = 0.7 * jax.random.normal(jax.random.key(0), (4, 3, 6))
    z = mu_q + jnp.exp(logvar_q / 2) * jax.random.normal(jax.random.key(1), (40_000, 3, 6))
    for p in ((mu_p, logvar_p), ()):
        other = p or (jnp.zeros(6), jnp.zeros(6))
        difference = stats.norm.logpdf(z, mu_q, np.exp(logvar_q / 2)) - stats.norm.logpdf(
            z, other[0], np.exp(other[1] / 2)
        )
        sampled = difference.sum(-1)  # 40000 3
        assert (
            np.abs(losses.gaussian_kl(mu_q, logvar_q, *p) - sampled.mean(0))
            < 4 * sampled.std(0) / 200
        ).all()


def test_kl_of_gaussians_by_hand():
    assert (
        losses.gaussian_kl(jnp.zeros(5), jnp.zeros(5)) == 0
        and (losses.gaussian_kl(*jnp.ones((4, 2, 5))) == 0).all()
    )
    assert losses.gaussian_kl(jnp.array([1.0, 2.0]), jnp.zeros(2)) == pytest.approx(2.5)
    assert losses.gaussian_kl(jnp.zeros(3), jnp.full(3, np.log(4.0))) == pytest.approx(
        1.5 * (4 - 1 - np.log(4))
    )
    wide, narrow = (
        losses.gaussian_kl(jnp.zeros(1), jnp.full(1, 1.0)),
        losses.gaussian_kl(jnp.zeros(1), jnp.zeros(1), 0.0, jnp.full(1, 1.0)),
    )
    assert wide == pytest.approx((np.e - 2) / 2) and narrow == pytest.approx(
        1 / (2 * np.e)
    )  # not symmetric


# -------------------------------------------------------------------------------------------- DAMSM
GAMMAS = dict(gamma1=4.0, gamma2=5.0)


def pairs(b=5, r=6, t=4, d=3, seed=0):
    """Regions, words with zeros at padding, lengths, codes, sentences."""
    draws = np.random.default_rng(seed)
    length = np.array([4, 1, 3, 2, 4, 3, 2][:b], np.int32)
    words = draws.normal(size=(b, t, d)) * (np.arange(t) < length[:, None])[..., None]
    arrays = (
        draws.normal(size=(b, r, d)),
        words,
        draws.normal(size=(b, d)),
        draws.normal(size=(b, d)),
    )
    regions, words, codes, sentences = (np.float32(x) for x in arrays)
    return regions, words, length, codes, sentences


def softmax(x, axis):
    x = np.exp(x - x.max(axis, keepdims=True))
    return x / x.sum(axis, keepdims=True)


def score_by_hand(v, e, gamma1, gamma2):
    """R of one picture, regions r d, and one caption without padding, n d.

    Specs/damsm.md, steps 1 to 5, in float64.
    """
    s = np.float64(e) @ np.float64(v).T  # n r
    alpha = softmax(gamma1 * softmax(s, 0), 1)
    c = alpha @ v
    cos = (c * e).sum(1) / (np.linalg.norm(c, axis=1) * np.linalg.norm(e, axis=1))
    return np.log(np.exp(gamma2 * cos).sum())


def ce(logits, right):
    return np.log(np.exp(logits).sum()) - logits[right]


def test_word_scores_pair_by_pair():
    regions, words, length, _, _ = pairs()
    expected = [[score_by_hand(v, e[:n], **GAMMAS) for e, n in zip(words, length)] for v in regions]
    found = losses.word_scores(regions[:3], words, length, **GAMMAS)  # fewer pictures than captions
    np.testing.assert_allclose(found, expected[:3], rtol=1e-5)
    np.testing.assert_allclose(
        losses.word_scores(regions, words, length, **GAMMAS, root=True),
        np.array(expected) / 5,
        rtol=1e-5,
    )


def test_word_attention_by_hand():
    regions = np.float32([[[1, 0], [0, 2]]])  # two regions
    words = np.float32([[[1, 0], [0, 1], [0, 0]]])  # two words and padding
    # s: word 1: 1, 0; word 2: 0, 2. Over words: region 1: e/(e+1), 1/(e+1); region 2:
    # 1/(1+e^2), e^2/(1+e^2)
    a, b = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-2))
    first, second = 1 / (1 + np.exp(-4 * (a - (1 - b)))), 1 / (1 + np.exp(-4 * (1 - a - b)))
    found = losses.word_attention(regions, words, np.array([2]), gamma1=4.0)
    np.testing.assert_allclose(
        found, [[[first, 1 - first], [second, 1 - second], [0, 0]]], rtol=1e-5
    )


@pytest.mark.parametrize('r', [1, 289])
def test_word_attention_sums_to_1_over_regions(r):
    regions, words, length, _, _ = pairs(r=r)
    found = losses.word_attention(regions, words, length)
    np.testing.assert_allclose(found.sum(-1), np.arange(4) < length[:, None], atol=1e-5)


def test_losses_are_the_cross_entropies_of_their_scores():
    regions, words, length, codes, sentences = pairs()
    leave_out = np.zeros((5, 5), bool)
    leave_out[[0, 3, 4, 2], [3, 0, 1, 2]] = True  # one way for 4 and 1; of 2 itself, which stays
    word = 10 * np.array(
        [[score_by_hand(v, e[:n], **GAMMAS) for e, n in zip(words, length)] for v in regions]
    )
    sentence = 10 * np.einsum(
        'id,jd->ij',
        codes / np.linalg.norm(codes, axis=1)[:, None],
        sentences / np.linalg.norm(sentences, axis=1)[:, None],
    )
    for scores, found in (
        (word, losses.words_loss(regions, words, length, **GAMMAS, leave_out=leave_out)),
        (sentence, losses.sentence_loss(codes, sentences, leave_out=leave_out)),
    ):
        scores = np.where(leave_out & ~np.eye(5, dtype=bool), -np.inf, scores)
        expected = np.mean([ce(row, i) for i, row in enumerate(scores)]) + np.mean(
            [ce(column, i) for i, column in enumerate(scores.T)]
        )
        assert found == pytest.approx(expected, rel=1e-4)


def damsm(regions, words, length, codes, sentences, leave_out=None):
    return losses.words_loss(
        regions, words, length, **GAMMAS, leave_out=leave_out
    ) + losses.sentence_loss(codes, sentences, leave_out=leave_out, present=length > 0)


def test_the_order_of_pairs_does_not_matter():
    arrays, order = pairs(), np.array([3, 0, 4, 2, 1])
    leave_out = np.zeros((5, 5), bool)
    leave_out[0, 2] = leave_out[1, 4] = True
    assert damsm(*(x[order] for x in arrays), leave_out[order][:, order]) == pytest.approx(
        float(damsm(*arrays, leave_out)), rel=1e-5
    )
    wrong = [arrays[0][order], *arrays[1:]]
    assert abs(damsm(*wrong, leave_out) - damsm(*arrays, leave_out)) > 0.1


@pytest.mark.parametrize('t', [18, 25])
def test_padding_does_not_matter(t):
    regions, words, length, codes, sentences = pairs()
    padded = np.zeros((5, t, 3), np.float32)
    padded[:, :4] = words
    assert damsm(regions, padded, length, codes, sentences) == pytest.approx(
        float(damsm(*pairs())), rel=1e-6
    )
    padded[:, 4:] = 7  # nor what stands there
    assert damsm(regions, padded, length, codes, sentences) == pytest.approx(
        float(damsm(*pairs())), rel=1e-6
    )


def test_equal_features_cost_little_and_equal_pairs_the_logarithm_of_the_batch():
    codes = np.float32(5 * np.eye(6))
    regions, words, length = codes[:, None], codes[:, None], np.ones(6, np.int32)
    # 10 against 0 in each of the four
    assert losses.sentence_loss(codes, codes) == pytest.approx(
        2 * np.log1p(5 * np.exp(-10)), rel=1e-3
    )
    assert losses.words_loss(regions, words, length) == pytest.approx(
        2 * np.log1p(5 * np.exp(-50)), abs=1e-5
    )
    same = np.ones((6, 3, 4), np.float32)
    assert damsm(same, same, np.full(6, 3), same[:, 0], same[:, 0]) == pytest.approx(
        4 * np.log(6), rel=1e-5
    )


def test_leaving_out_two_of_a_class_is_removing_each_from_the_others_choices():
    scores = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    leave_out = np.zeros((3, 3), bool)
    leave_out[0, 1] = leave_out[1, 0] = True
    keep = [[0, 2], [1, 2], [0, 1, 2]]
    expected = (
        sum(ce(scores[i, c], c.index(i)) + ce(scores[c, i], c.index(i)) for i, c in enumerate(keep))
        / 3
    )
    assert losses.matching_loss(scores, leave_out) == pytest.approx(expected, rel=1e-5)
    assert losses.matching_loss(scores) > expected


def test_a_pair_without_words_is_as_if_it_were_not_there():
    regions, words, length, codes, sentences = pairs()
    without = length.copy()
    without[2] = 0
    blank, silent = words.copy(), sentences.copy()
    blank[2], silent[2] = 0, 0
    rest = np.array([0, 1, 3, 4])
    assert damsm(regions, blank, without, codes, silent) == pytest.approx(
        float(damsm(*(x[rest] for x in pairs()))), rel=1e-5
    )
    grads = jax.grad(lambda *x: damsm(x[0], x[1], without, x[2], x[3]), (0, 1, 2, 3))(
        regions, blank, codes, silent
    )
    assert all(
        np.isfinite(g).all() and (g[2] == 0).all() and np.abs(g[rest]).max() > 0 for g in grads
    )
    nobody = np.zeros(5, np.int32)
    assert damsm(regions, 0 * words, nobody, codes, 0 * sentences) == 0


def test_damsm_has_finite_gradients_at_padding_and_none_there():
    regions, words, length, codes, sentences = pairs()
    grad = jax.jit(jax.grad(lambda words: losses.words_loss(regions, words, length, **GAMMAS)))(
        words
    )
    there = np.arange(4) < length[:, None]
    assert (
        np.isfinite(grad).all()
        and (grad[~there] == 0).all()
        and (np.abs(grad[there]).max(-1) > 0).all()
    )


def test_damsm_computes_in_float32():
    regions, words, length, codes, sentences = (
        jnp.asarray(x, jnp.bfloat16) if x.dtype == np.float32 else x for x in pairs()
    )
    found = damsm(regions, words, length, codes, sentences)
    assert found.dtype == jnp.float32
    wide = [x.astype(jnp.float32) for x in (regions, words, codes, sentences)]
    assert found == pytest.approx(float(damsm(*wide[:2], length, *wide[2:])), rel=1e-6)


def test_one_pair_cannot_be_matched():
    with pytest.raises(ValueError, match='batch of 2 or more'):
        losses.sentence_loss(np.ones((1, 3)), np.ones((1, 3)))
