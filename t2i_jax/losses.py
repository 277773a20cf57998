"""Losses: pure functions on arrays, computed in float32 whatever the compute type is."""

import math

import jax
import jax.numpy as jnp
import optax

from t2i_jax.runtime.sharding import everywhere


def bce_per_row(logits, label):
    """Sigmoid binary cross-entropy of logits (B, ...) against a label in [0, 1] (a number, or an array that broadcasts) -> (B,).

    Label 1 gives softplus(-logit), label 0 softplus(logit). What follows the batch axis (patches) is averaged.
    """
    logits = logits.astype(jnp.float32)
    losses = optax.sigmoid_binary_cross_entropy(
        logits, jnp.broadcast_to(jnp.float32(label), logits.shape)
    )
    return losses.reshape(len(losses), -1).mean(-1)


def bce(logits, label):
    """Mean of `bce_per_row` over the batch -> scalar."""
    return bce_per_row(logits, label).mean()


def _logistic_d_loss(real_logits, fake_logits):
    return bce(real_logits, 1.0) + bce(fake_logits, 0.0)


def _hinge_d_loss(real_logits, fake_logits):
    return (
        jax.nn.relu(1 - real_logits.astype(jnp.float32)).mean()
        + jax.nn.relu(1 + fake_logits.astype(jnp.float32)).mean()
    )


def _critic_d_loss(real_logits, fake_logits):
    return fake_logits.astype(jnp.float32).mean() - real_logits.astype(jnp.float32).mean()


def _critic_g_loss(fake_logits):
    return -fake_logits.astype(jnp.float32).mean()


ADVERSARIAL = {
    'nonsaturating': (_logistic_d_loss, lambda fake_logits: bce(fake_logits, 1.0)),
    'minimax': (_logistic_d_loss, lambda fake_logits: -bce(fake_logits, 0.0)),
    'hinge': (_hinge_d_loss, _critic_g_loss),
    'wgan': (_critic_d_loss, _critic_g_loss),
}


def adversarial(kind):
    """The two losses of an adversarial game: d_loss(real_logits, fake_logits) and g_loss(fake_logits), each -> scalar.

    | kind | d_loss | g_loss | source |
    |---|---|---|---|
    | 'nonsaturating' | mean softplus(-real) + mean softplus(fake) | mean softplus(-fake) | Goodfellow et al., 2014 |
    | 'minimax' | the same | mean log(1 - sigmoid(fake)) | the same, the value function itself |
    | 'hinge' | mean max(0, 1 - real) + mean max(0, 1 + fake) | -mean fake | Lim and Ye, 2017 |
    | 'wgan' | mean fake - mean real | -mean fake | Arjovsky et al., 2017; needs `gradient_penalty` or the like |

    The terms of d_loss are added, not halved. Logits may have any shape. Raises ValueError for another kind.
    """
    if kind not in ADVERSARIAL:
        raise ValueError(
            f'There is no adversarial loss {kind!r}; there are {", ".join(ADVERSARIAL)}.'
        )
    return ADVERSARIAL[kind]


def gradient_penalty(critic, real, fake, key, weight=10.0):
    """weight * mean (|d critic(x) / dx| - 1)^2 at random points x between pairs of real and fake -> scalar (Gulrajani et al., 2017).

    critic: (B, ...) -> logits (B,), each of which depends on its own row alone: a network in evaluation mode. real, fake: (B, ...).
    The norm is over all entries of a row.
    """
    real, fake = real.astype(jnp.float32), fake.astype(jnp.float32)
    share = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1))
    gradient = jax.grad(lambda x: critic(x).astype(jnp.float32).sum())(
        share * real + (1 - share) * fake
    )
    squares = jnp.square(gradient).sum(range(1, real.ndim))
    norm = jnp.sqrt(
        squares + 1e-12
    )  # the root has no derivative at 0, where a critic may well start
    return weight * jnp.square(norm - 1).mean()


def structured_joint_embedding(image_vectors, text_vectors, *, margin=1.0, symmetric=True):
    """Hinge loss on the scores s_ij = image_i . text_j of K matching pairs (K, D) x (K, D) -> scalar (Reed et al., CVPR 2016).

    1/K^2 sum_i sum_{j != i} max(0, margin + s_ij - s_ii), and with `symmetric` the same for each text against all images.
    The pairs must come from K distinct classes: any text of an image's own class would count as wrong.
    """
    image_vectors, text_vectors = (
        image_vectors.astype(jnp.float32),
        everywhere(text_vectors.astype(jnp.float32)),
    )
    scores = jnp.einsum(
        'id,jd->ij', image_vectors, text_vectors, precision=jax.lax.Precision.HIGHEST
    )
    wrong = 1 - jnp.eye(len(scores))
    right = ((1 - wrong) * scores).sum(1)  # the diagonal, without leaving the rows of a device
    loss = (
        wrong * jax.nn.relu(margin + scores - right[:, None])
    ).mean()  # an image against all texts
    if symmetric:
        loss += (
            wrong * jax.nn.relu(margin + scores - right[None, :])
        ).mean()  # a text against all images
    return loss


def gaussian_kl(mu_q, logvar_q, mu_p=0.0, logvar_p=0.0):
    """KL(q || p) of Gaussians with diagonal covariance, given by means and log-variances (..., D) -> (...), in nats.

    1/2 sum_d [logvar_p - logvar_q - 1 + (exp(logvar_q) + (mu_q - mu_p)^2) / exp(logvar_p)]. The default p is N(0, I).
    """
    mu_q, logvar_q, mu_p, logvar_p = (
        jnp.asarray(x, jnp.float32) for x in (mu_q, logvar_q, mu_p, logvar_p)
    )
    terms = (
        logvar_p
        - logvar_q
        - 1
        + jnp.exp(logvar_q - logvar_p)
        + jnp.square(mu_q - mu_p) * jnp.exp(-logvar_p)
    )
    return 0.5 * terms.sum(-1)


def conditioning_kl(mu, logvar, reduction='mean'):
    """Batch mean of KL(N(mu, exp(logvar)) || N(0, I)), the penalty of conditioning augmentation: (B, C), (B, C) -> scalar, in nats.

    'sum' over the C dimensions is the formula of the StackGAN paper, their 'mean' that of the official code of all its successors.
    A network that gives log sigma has logvar = 2 log sigma. Raises ValueError for another reduction.
    """
    if reduction not in ('mean', 'sum'):
        raise ValueError(f"The KL is reduced by 'mean' or 'sum', not by {reduction!r}.")
    kl = gaussian_kl(mu, logvar).mean()
    return kl / mu.shape[-1] if reduction == 'mean' else kl


def colour_consistency(fine, coarse):
    """How far the colours of pictures are from those of a smaller one each, which is a constant: (B, H, W, 3), (B, h, w, 3) -> scalar.

    mean (m_fine - m_coarse)^2 + 5 mean (S_fine - S_coarse)^2, where m is the mean of a picture's pixels and S the covariance of their
    colours (divided by the number of pixels). The means are over the batch and the 3 or 9 entries, as in the official code of StackGAN++;
    its paper sums over the entries.
    """

    def statistics(images):
        pixels = images.reshape(len(images), -1, images.shape[-1]).astype(jnp.float32)
        mean = pixels.mean(1)
        centred = pixels - mean[:, None]
        return mean, jnp.einsum(
            'bni,bnj->bij', centred, centred, precision=jax.lax.Precision.HIGHEST
        ) / pixels.shape[1]

    (mean, covariance), (its_mean, its_covariance) = (
        statistics(fine),
        jax.lax.stop_gradient(statistics(coarse)),
    )
    return jnp.square(mean - its_mean).mean() + 5 * jnp.square(covariance - its_covariance).mean()


def gaussian_nll(x, mean, logvar):
    """-log N(x; mean, exp(logvar)) of each element, in nats. A fixed deviation s is logvar = 2 log s. Shapes broadcast."""
    x, mean, logvar = (jnp.asarray(v, jnp.float32) for v in (x, mean, logvar))
    return 0.5 * (math.log(2 * math.pi) + logvar + jnp.square(x - mean) * jnp.exp(-logvar))


def poisson_nll(m, log_rate):
    """-log Poisson(m; exp(log_rate)) of each element, m in 0, 1, 2, ..., in nats: rate - m log_rate + log m!. Shapes broadcast."""
    m, log_rate = jnp.asarray(m, jnp.float32), jnp.asarray(log_rate, jnp.float32)
    return jnp.exp(log_rate) - m * log_rate + jax.lax.lgamma(m + 1)


def smooth_l1(error):
    """Element-wise: e^2 / 2 where |e| < 1, |e| - 1/2 elsewhere (Girshick, 2015)."""
    size = jnp.abs(error.astype(jnp.float32))
    return jnp.where(size < 1, size**2 / 2, size - 0.5)


# -------------------------------------------------------------------------------- DAMSM: words and regions, sentences and pictures
def _unit(x, eps=1e-8):
    """Vectors of length 1; zeros, which the words of padding are, stay zeros and have no gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), eps**2))


def _attention(scores, there, gamma1):
    """How much of each region a word looks at. scores, there (... t r): a softmax over the words, then one over the regions of gamma1 times that."""
    by_word = jax.nn.softmax(
        jnp.where(there, scores, -1e9), -2
    )  # finite, so that a caption without words gives no NaN
    return jax.nn.softmax(gamma1 * by_word, -1)


def word_attention(regions, words, length, *, gamma1=5.0):
    """Of matching pairs, how much of each region a word looks at: (B, R, D), (B, T, D), (B,) -> (B, T, R); sums to 1 over R, zeros at pads."""
    regions, words = regions.astype(jnp.float32), words.astype(jnp.float32)
    there = (jnp.arange(words.shape[1]) < length[:, None])[..., None]  # b t 1
    scores = jnp.einsum('brd,btd->btr', regions, words, precision=jax.lax.Precision.HIGHEST)
    return there * _attention(scores, there, gamma1)


def word_scores(regions, words, length, *, gamma1=5.0, gamma2=5.0, root=False):
    """R(i, j), how well the words of caption j are found in picture i: (B, R, D), (C, T, D), (C,) -> (B, C) (Xu et al., CVPR 2018).

    With alpha_k the attention of word k (`word_attention`) and c_k = sum_r alpha_kr region_r: log sum_k exp(gamma2 cos(c_k, word_k)), as the
    official code and all that followed have it; `root` divides it by gamma2, as the paper does. Of a caption without words it is -1e9.
    """
    regions, words = regions.astype(jnp.float32), words.astype(jnp.float32)
    there = jnp.arange(words.shape[1]) < length[:, None]  # c t
    highest = jax.lax.Precision.HIGHEST
    scores = jnp.einsum('brd,ctd->bctr', regions, words, precision=highest)
    contexts = jnp.einsum(
        'bctr,brd->bctd', _attention(scores, there[..., None], gamma1), regions, precision=highest
    )
    cosines = jnp.einsum('bctd,ctd->bct', _unit(contexts), _unit(words), precision=highest)
    found = jax.nn.logsumexp(jnp.where(there, gamma2 * cosines, -1e9), -1)  # b c
    return found / gamma2 if root else found


def matching_loss(scores, leave_out=None, present=None):
    """Cross-entropy of each row of scores (B, B) and of each column against the diagonal, both means over the batch, added -> scalar.

    leave_out: bool (B, B), true for pairs of picture i and caption j that are not wrong either (same class, or the caption is true of the
    picture); the diagonal always stays. present: bool (B,), false for pairs that count as if they were not there. Raises ValueError for B = 1.
    """
    b = len(scores)
    if b < 2:
        raise ValueError(
            'Matching compares the pairs of a batch, and one pair has no wrong one beside it: take a batch of 2 or more.'
        )
    own = jnp.eye(b, dtype=bool)
    present = jnp.ones(b, bool) if present is None else present
    absent = ~(present[:, None] & present[None, :])
    absent = absent if leave_out is None else absent | leave_out
    scores = jnp.where(absent & ~own, -jnp.inf, scores.astype(jnp.float32))
    right = jnp.where(own, scores, 0).sum(1)  # the diagonal, without leaving the rows of a device
    losses = jax.nn.logsumexp(scores, 1) + jax.nn.logsumexp(scores, 0) - 2 * right
    return jnp.where(present, losses, 0).sum() / jnp.maximum(present.sum(), 1)


def words_loss(
    regions, words, length, *, gamma1=5.0, gamma2=5.0, gamma3=10.0, root=False, leave_out=None
):
    """L_w of DAMSM: `matching_loss` of gamma3 R, with R of `word_scores`. (B, R, D), (B, T, D), (B,) -> scalar

    Pairs whose caption has no word count as if they were not there. Raises ValueError for B = 1.
    """
    words, there = everywhere((words, length))
    scores = gamma3 * word_scores(regions, words, there, gamma1=gamma1, gamma2=gamma2, root=root)
    return matching_loss(scores, leave_out, length > 0)


def sentence_scores(codes, sentences):
    """Cosines of picture i and sentence j: (B, D), (C, D) -> (B, C)."""
    codes, sentences = _unit(codes.astype(jnp.float32)), _unit(sentences.astype(jnp.float32))
    return jnp.einsum('bd,cd->bc', codes, sentences, precision=jax.lax.Precision.HIGHEST)


def sentence_loss(codes, sentences, *, gamma3=10.0, leave_out=None, present=None):
    """L_s of DAMSM: `matching_loss` of gamma3 cos(picture, sentence). (B, D), (B, D) -> scalar. present: as there, for captions without words."""
    return matching_loss(gamma3 * sentence_scores(codes, everywhere(sentences)), leave_out, present)
