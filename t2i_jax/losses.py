"""Losses: pure functions on arrays, computed in float32 whatever the compute type is."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from t2i_jax.runtime.errors import RunError, choose
from t2i_jax.runtime.sharding import everywhere

HIGHEST = jax.lax.Precision.HIGHEST


# ----------------------------------------------------------------------------------- adversarial
def bce_each(logits: Array, label: ArrayLike) -> Array:
    """Compute the sigmoid binary cross-entropy of each logit, float32 of the same shape.

    label: in [0, 1], a number or an array that broadcasts.
    """
    logits = logits.astype(jnp.float32)
    label = jnp.broadcast_to(jnp.float32(label), logits.shape)
    return optax.sigmoid_binary_cross_entropy(logits, label)


def bce_per_row(logits: Array, label: ArrayLike) -> Array:
    """Compute the sigmoid binary cross-entropy of logits (B, ...) for each row -> (B,).

    label: in [0, 1], a number or an array that broadcasts. 1 gives softplus(-logit), 0
    softplus(logit). What follows the batch axis (patches) is averaged.
    """
    losses = bce_each(logits, label)
    return losses.reshape(len(losses), -1).mean(-1)


def bce(logits: Array, label: ArrayLike) -> Array:
    """Compute the mean of `bce_per_row` over the batch -> scalar."""
    return bce_per_row(logits, label).mean()


def mismatched(values: Array, sampled: Array | None) -> Array:
    """Return conditions that do not match the first rows of a batch: (B, ...) -> (N, ...).

    values: the conditions of the batch's own rows.
    sampled: conditions that were sampled so that they certainly do not match (N = B). None takes
        the next row's, unchecked (N = B - 1).
    Raises RunError for a batch of 1 without sampled conditions.
    """
    if sampled is not None:
        return sampled
    if len(values) < 2:
        raise RunError(
            "wrong=shift takes the next row's condition for one that does not match, and a batch "
            'of 1 has none: set batch_size to 2 or more.'
        )
    return values[1:]


ADVERSARIES = 'bce', 'hinge', 'pairing'


class Answers(NamedTuple):
    """D's losses where pictures have sentences, each a scalar; a system weights and adds them."""

    # real pictures with their own sentences
    right: Array
    # drawn pictures
    drawn: Array
    # real pictures with sentences that do not match; None without such pairs
    wrong: Array | None


def d_answers(kind: str, real: Array, drawn: Array, wrong: Array | None = None) -> Answers:
    """Compute D's losses of a conditional game from logits (B, ...).

    | kind | right | drawn | wrong | source |
    |---|---|---|---|---|
    | 'bce' | mean softplus(-r) | mean softplus(d) | mean softplus(w) | [1] |
    | 'hinge' | mean max(0, 1 - r) | mean max(0, 1 + d) | mean max(0, 1 + w) | [2] |
    | 'pairing' | half of drawn | mean softplus(d - r) | mean softplus(w - r) | [3] |

    [1] Reed et al., 2016; [2] Lim and Ye, 2017, as DF-GAN has it; [3] Jolicoeur-Martineau, 2018,
    and Huang et al., 2024, whose rows pair a real with a drawn picture. With `wrong` of real
    pictures alone, rows of `wrong` may be fewer than B: they are paired with the first ones.
    Raises ValueError for another kind.
    """
    choose('adversary', kind, ADVERSARIES)
    if kind == 'bce':
        return Answers(bce(real, 1.0), bce(drawn, 0.0), None if wrong is None else bce(wrong, 0.0))
    real, drawn = real.astype(jnp.float32), drawn.astype(jnp.float32)
    wrong = None if wrong is None else wrong.astype(jnp.float32)
    if kind == 'hinge':
        false = [None if x is None else jax.nn.relu(1 + x).mean() for x in (drawn, wrong)]
        return Answers(jax.nn.relu(1 - real).mean(), *false)
    pair = jax.nn.softplus(drawn - real).mean()
    more = None if wrong is None else jax.nn.softplus(wrong - real[: len(wrong)]).mean()
    return Answers(pair / 2, pair, more)


def g_answers(kind: str, drawn: Array, real: Array | None = None) -> Array:
    """Compute G's loss of each drawn picture from logits (B, ...) -> (B,).

    'bce' softplus(-d), 'hinge' -d, 'pairing' softplus(r - d), r the logits of real pictures with
    the same sentences, a constant. Raises ValueError for another kind.
    """
    choose('adversary', kind, ADVERSARIES)
    if kind == 'bce':
        return bce_per_row(drawn, 1.0)
    drawn = drawn.astype(jnp.float32).reshape(len(drawn), -1)
    if kind == 'hinge':
        return -drawn.mean(-1)
    real = jax.lax.stop_gradient(real).astype(jnp.float32).reshape(len(real), -1)
    return jax.nn.softplus(real - drawn).mean(-1)


def _logistic_d_loss(real_logits, fake_logits):
    return bce(real_logits, 1.0) + bce(fake_logits, 0.0)


def _logistic_g_loss(fake_logits):
    return bce(fake_logits, 1.0)


def _minimax_g_loss(fake_logits):
    return -bce(fake_logits, 0.0)


def _hinge_d_loss(real_logits, fake_logits):
    real_logits, fake_logits = real_logits.astype(jnp.float32), fake_logits.astype(jnp.float32)
    return jax.nn.relu(1 - real_logits).mean() + jax.nn.relu(1 + fake_logits).mean()


def _critic_d_loss(real_logits, fake_logits):
    return fake_logits.astype(jnp.float32).mean() - real_logits.astype(jnp.float32).mean()


def _critic_g_loss(fake_logits):
    return -fake_logits.astype(jnp.float32).mean()


ADVERSARIAL = {
    'nonsaturating': (_logistic_d_loss, _logistic_g_loss),
    'minimax': (_logistic_d_loss, _minimax_g_loss),
    'hinge': (_hinge_d_loss, _critic_g_loss),
    'wgan': (_critic_d_loss, _critic_g_loss),
}


def adversarial(kind: str) -> tuple[Callable[[Array, Array], Array], Callable[[Array], Array]]:
    """Return the two losses of an adversarial game.

    They are d_loss(real_logits, fake_logits) and g_loss(fake_logits), each -> scalar.

    | kind | d_loss | g_loss | source |
    |---|---|---|---|
    | 'nonsaturating' | mean softplus(-real) + mean softplus(fake) | mean softplus(-fake) | [1] |
    | 'minimax' | the same | mean log(1 - sigmoid(fake)) | [1], the value function itself |
    | 'hinge' | mean max(0, 1 - real) + mean max(0, 1 + fake) | -mean fake | [2] |
    | 'wgan' | mean fake - mean real | -mean fake | [3]; needs `gradient_penalty` or the like |

    [1] Goodfellow et al., 2014; [2] Lim and Ye, 2017; [3] Arjovsky et al., 2017.
    The terms of d_loss are added, not halved. Logits may have any shape. Raises ValueError for
    another kind.
    """
    return ADVERSARIAL[choose('adversarial loss', kind, ADVERSARIAL)]


def gradient_penalty(
    critic: Callable[[Array], Array], real: Array, fake: Array, key: Array, weight: float = 10.0
) -> Array:
    """Compute weight * mean (|d critic(x) / dx| - 1)^2 -> scalar (Gulrajani et al., 2017).

    critic: (B, ...) -> logits (B,), each of which depends on its own row alone: a network in
        evaluation mode.
    real, fake: (B, ...); the points x are random ones between a real and a fake row.
    key: of the random points.
    weight: of the penalty.
    The norm is over all entries of a row.
    """
    real, fake = real.astype(jnp.float32), fake.astype(jnp.float32)
    share = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1))
    points = share * real + (1 - share) * fake
    gradient = jax.grad(lambda x: critic(x).astype(jnp.float32).sum())(points)
    squares = jnp.square(gradient).sum(range(1, real.ndim))
    # the root has no derivative at 0, where a critic may well start
    norm = jnp.sqrt(squares + 1e-12)
    return weight * jnp.square(norm - 1).mean()


def matching_gradient_penalty(
    critic: Callable[[Array, Array], Array], images: Array, sentences: Array, power: float = 6.0
) -> Array:
    """Compute mean |(d critic / d image, d critic / d sentence)|^power -> scalar (MA-GP, DF-GAN).

    critic: (B, H, W, 3), (B, D) -> logits (B,), each of which depends on its own row alone: a
        network in evaluation mode.
    images, sentences: of real matching pairs.
    The norm is over all entries of a picture and its sentence vector together.
    """
    images, sentences = images.astype(jnp.float32), sentences.astype(jnp.float32)
    gradients = jax.grad(lambda x, s: critic(x, s).astype(jnp.float32).sum(), argnums=(0, 1))
    squares = [jnp.square(x).sum(range(1, x.ndim)) for x in gradients(images, sentences)]
    # a power of the square, whose derivative at 0 is 0
    return (sum(squares) ** (power / 2)).mean()


def squared_slope(
    critic: Callable[[Array], Array], images: Array, key: Array, step: float = 0.03
) -> Array:
    """Estimate mean |d critic / d image|^2 -> scalar (R1, R2: Mescheder et al., ICML 2018).

    critic: (B, H, W, 3) -> logits (B,). images: (B, H, W, 3). key: of a direction.
    step: of a difference.
    Along one random direction n, since E (n . grad)^2 = |grad|^2, and by a difference, since batch
    statistics of a network belong to it.
    """
    n = step * jax.random.normal(key, images.shape)
    change = critic(images + n) - critic(images - n)
    slope = change.astype(jnp.float32) / (2 * step)
    return (slope**2).mean()


# ---------------------------------------------------------------------- embeddings and Gaussians
def structured_joint_embedding(
    image_vectors: Array, text_vectors: Array, *, margin: float = 1.0, symmetric: bool = True
) -> Array:
    """Compute the hinge loss on scores of K matching pairs -> scalar (Reed et al., CVPR 2016).

    image_vectors, text_vectors: (K, D), with scores s_ij = image_i . text_j. The pairs must come
    from K distinct classes: any text of an image's own class would count as wrong.

    1/K^2 sum_i sum_{j != i} max(0, margin + s_ij - s_ii), and with `symmetric` the same for each
    text against all images.
    """
    images = image_vectors.astype(jnp.float32)
    texts = everywhere(text_vectors.astype(jnp.float32))
    scores = jnp.einsum('id,jd->ij', images, texts, precision=HIGHEST)
    wrong = 1 - jnp.eye(len(scores))
    # the diagonal, without leaving the rows of a device
    right = ((1 - wrong) * scores).sum(1)
    # an image against all texts
    loss = (wrong * jax.nn.relu(margin + scores - right[:, None])).mean()
    if symmetric:
        # a text against all images
        loss += (wrong * jax.nn.relu(margin + scores - right[None, :])).mean()
    return loss


def gaussian_kl(
    mu_q: ArrayLike, logvar_q: ArrayLike, mu_p: ArrayLike = 0.0, logvar_p: ArrayLike = 0.0
) -> Array:
    """Compute KL(q || p) of Gaussians with diagonal covariance, (..., D) -> (...), in nats.

    mu_q, logvar_q, mu_p, logvar_p: means and log-variances; the default p is N(0, I).

    1/2 sum_d [logvar_p - logvar_q - 1 + (exp(logvar_q) + (mu_q - mu_p)^2) / exp(logvar_p)]
    """
    mu_q, logvar_q, mu_p, logvar_p = (
        jnp.asarray(x, jnp.float32) for x in (mu_q, logvar_q, mu_p, logvar_p)
    )
    terms = logvar_p - logvar_q - 1 + jnp.exp(logvar_q - logvar_p)
    terms = terms + jnp.square(mu_q - mu_p) * jnp.exp(-logvar_p)
    return 0.5 * terms.sum(-1)


def conditioning_kl(mu: Array, logvar: Array, reduction: str = 'mean') -> Array:
    """Compute the penalty of conditioning augmentation, (B, C), (B, C) -> scalar, in nats.

    It is the batch mean of KL(N(mu, exp(logvar)) || N(0, I)). A network that gives log sigma has
    logvar = 2 log sigma.

    reduction: 'sum' over the C dimensions is the formula of the StackGAN paper, their 'mean' that
        of the official code of all its successors. Raises ValueError for another.
    """
    choose('reduction of the KL', reduction, ('mean', 'sum'))
    kl = gaussian_kl(mu, logvar).mean()
    return kl / mu.shape[-1] if reduction == 'mean' else kl


def gaussian_nll(x: ArrayLike, mean: ArrayLike, logvar: ArrayLike) -> Array:
    """Compute -log N(x; mean, exp(logvar)) of each element, in nats.

    A fixed deviation s is logvar = 2 log s. Shapes broadcast.
    """
    x, mean, logvar = (jnp.asarray(v, jnp.float32) for v in (x, mean, logvar))
    return 0.5 * (math.log(2 * math.pi) + logvar + jnp.square(x - mean) * jnp.exp(-logvar))


def poisson_nll(m: ArrayLike, log_rate: ArrayLike) -> Array:
    """Compute -log Poisson(m; exp(log_rate)) of each element, in nats.

    m: 0, 1, 2, ... The loss is rate - m log_rate + log m!. Shapes broadcast.
    """
    m, log_rate = jnp.asarray(m, jnp.float32), jnp.asarray(log_rate, jnp.float32)
    return jnp.exp(log_rate) - m * log_rate + jax.lax.lgamma(m + 1)


# -------------------------------------------------------------------------------------- pictures
def colour_consistency(fine: Array, coarse: Array) -> Array:
    """Compute how far the colours of pictures are from those of smaller ones -> scalar.

    fine: (B, H, W, 3). coarse: (B, h, w, 3), a constant.

    mean (m_fine - m_coarse)^2 + 5 mean (S_fine - S_coarse)^2, where m is the mean of a picture's
    pixels and S the covariance of their colours (divided by the number of pixels). The means are
    over the batch and the 3 or 9 entries, as in the official code of StackGAN++; its paper sums
    over the entries.
    """

    def statistics(images):
        pixels = images.reshape(len(images), -1, images.shape[-1]).astype(jnp.float32)
        mean = pixels.mean(1)
        centred = pixels - mean[:, None]
        products = jnp.einsum('bni,bnj->bij', centred, centred, precision=HIGHEST)
        return mean, products / pixels.shape[1]

    mean, covariance = statistics(fine)
    its_mean, its_covariance = jax.lax.stop_gradient(statistics(coarse))
    return jnp.square(mean - its_mean).mean() + 5 * jnp.square(covariance - its_covariance).mean()


def map_distance(a: list[Array], b: list[Array], power: int = 1) -> Array:
    """Compute the sum over maps of mean |a - b|^power, power 1 or 2: a perceptual loss.

    a, b: maps of a frozen network, of drawn and of real pictures.
    """
    off = (x.astype(jnp.float32) - y for x, y in zip(a, b, strict=True))
    return sum((jnp.abs(x) if power == 1 else jnp.square(x)).mean() for x in off)


def smooth_l1(error: Array) -> Array:
    """Compute e^2 / 2 where |e| < 1, |e| - 1/2 elsewhere, of each element (Girshick, 2015)."""
    size = jnp.abs(error.astype(jnp.float32))
    return jnp.where(size < 1, size**2 / 2, size - 0.5)


# --------------------------------------------- DAMSM: words and regions, sentences and pictures
def _unit(x, eps=1e-8):
    """Scale vectors to length 1; zeros, as at padding, stay zeros and have no gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), eps**2))


def _attention(scores, there, gamma1):
    """Compute how much of each region a word looks at.

    scores, there: (..., T, R). A softmax over the words, then one over the regions of gamma1 times
    that.
    """
    # finite, so that a caption without words gives no NaN
    by_word = jax.nn.softmax(jnp.where(there, scores, -1e9), -2)
    return jax.nn.softmax(gamma1 * by_word, -1)


def word_attention(regions: Array, words: Array, length: Array, *, gamma1: float = 5.0) -> Array:
    """Compute how much of each region of its picture a word looks at -> (B, T, R).

    regions, words, length: of matching pairs, (B, R, D), (B, T, D), (B,). The result sums to 1 over
    R, and is zeros at padding.
    """
    regions, words = regions.astype(jnp.float32), words.astype(jnp.float32)
    there = (jnp.arange(words.shape[1]) < length[:, None])[..., None]  # b t 1
    scores = jnp.einsum('brd,btd->btr', regions, words, precision=HIGHEST)
    return there * _attention(scores, there, gamma1)


def word_scores(
    regions: Array,
    words: Array,
    length: Array,
    *,
    gamma1: float = 5.0,
    gamma2: float = 5.0,
    root: bool = False,
) -> Array:
    """Compute R(i, j), how well the words of caption j are found in picture i -> (B, C).

    Xu et al., CVPR 2018. With alpha_k the attention of word k (`word_attention`) and
    c_k = sum_r alpha_kr region_r: log sum_k exp(gamma2 cos(c_k, word_k)).

    regions: (B, R, D).
    words, length: (C, T, D), (C,). The score of a caption without words is -1e9.
    gamma1, gamma2: see the formulas.
    root: divide by gamma2, as the paper does; the official code and all that followed do not.
    """
    regions, words = regions.astype(jnp.float32), words.astype(jnp.float32)
    there = jnp.arange(words.shape[1]) < length[:, None]  # c t
    scores = jnp.einsum('brd,ctd->bctr', regions, words, precision=HIGHEST)
    attention = _attention(scores, there[..., None], gamma1)
    contexts = jnp.einsum('bctr,brd->bctd', attention, regions, precision=HIGHEST)
    cosines = jnp.einsum('bctd,ctd->bct', _unit(contexts), _unit(words), precision=HIGHEST)
    found = jax.nn.logsumexp(jnp.where(there, gamma2 * cosines, -1e9), -1)  # b c
    return found / gamma2 if root else found


def matching_loss(
    scores: Array,
    leave_out: Array | None = None,
    present: Array | None = None,
    *,
    wrong_captions: Array | None = None,
    wrong_pictures: Array | None = None,
) -> Array:
    """Compute the cross-entropies of rows and of columns against the diagonal -> scalar.

    Both are means over the batch, and they are added. Raises ValueError for B = 1.

    scores: (B, B), of picture i and caption j.
    leave_out: bool (B, B), true for pairs that are not wrong either (same class, or the caption is
        true of the picture); the diagonal always stays.
    present: bool (B,), false for pairs that count as if they did not exist.
    wrong_captions: (B,), the score of each picture and one more caption that is wrong for it.
    wrong_pictures: (B,), the score of each caption and one more picture that is wrong for it.
    """
    b = len(scores)
    if b < 2:
        raise ValueError(
            'Matching compares the pairs of a batch, and a batch of 1 has no wrong ones: '
            'take a batch of 2 or more.'
        )
    own = jnp.eye(b, dtype=bool)
    present = jnp.ones(b, bool) if present is None else present
    absent = ~(present[:, None] & present[None, :])
    absent = absent if leave_out is None else absent | leave_out
    scores = jnp.where(absent & ~own, -jnp.inf, scores.astype(jnp.float32))
    # the diagonal, without leaving the rows of a device
    right = jnp.where(own, scores, 0).sum(1)
    by_picture, by_caption = jax.nn.logsumexp(scores, 1), jax.nn.logsumexp(scores, 0)
    if wrong_captions is not None:
        by_picture = jnp.logaddexp(by_picture, wrong_captions)
    if wrong_pictures is not None:
        by_caption = jnp.logaddexp(by_caption, wrong_pictures)
    losses = by_picture + by_caption - 2 * right
    return jnp.where(present, losses, 0).sum() / jnp.maximum(present.sum(), 1)


def words_loss(
    regions: Array,
    words: Array,
    length: Array,
    *,
    gamma1: float = 5.0,
    gamma2: float = 5.0,
    gamma3: float = 10.0,
    root: bool = False,
    leave_out: Array | None = None,
) -> Array:
    """Compute L_w of DAMSM, `matching_loss` of gamma3 R, with R of `word_scores` -> scalar.

    regions, words, length: (B, R, D), (B, T, D), (B,). Pairs whose caption has no word count as if
        they did not exist.
    gamma1, gamma2, root: of `word_scores`.
    gamma3: see the formula.
    leave_out: of `matching_loss`.
    Raises ValueError for B = 1.
    """
    words, there = everywhere((words, length))
    scores = gamma3 * word_scores(regions, words, there, gamma1=gamma1, gamma2=gamma2, root=root)
    return matching_loss(scores, leave_out, length > 0)


def sentence_scores(codes: Array, sentences: Array) -> Array:
    """Compute the cosines of picture i and sentence j: (B, D), (C, D) -> (B, C)."""
    codes, sentences = _unit(codes.astype(jnp.float32)), _unit(sentences.astype(jnp.float32))
    return jnp.einsum('bd,cd->bc', codes, sentences, precision=HIGHEST)


def nt_xent(codes: Array, temperature: float = 0.5) -> Array:
    """Compute the normalised cross-entropy of twins among a batch -> scalar (Chen et al., 2020).

    codes: (B, D), rows i and i + B/2 being twins. The mean over i of
    log sum_{j != i} exp(cos_ij / temperature) - cos_{i,twin} / temperature.
    """
    b = len(codes)
    scores = sentence_scores(codes, everywhere(codes)) / temperature
    own = (scores * jnp.roll(jnp.eye(b), b // 2, 1)).sum(1)
    return (jax.nn.logsumexp(scores - 1e9 * jnp.eye(b), 1) - own).mean()


def sentence_loss(
    codes: Array,
    sentences: Array,
    *,
    gamma3: float = 10.0,
    leave_out: Array | None = None,
    present: Array | None = None,
    wrong_sentences: Array | None = None,
    wrong_codes: Array | None = None,
) -> Array:
    """Compute L_s of DAMSM, `matching_loss` of gamma3 cos(picture, sentence) -> scalar.

    codes, sentences: (B, D).
    gamma3: see the formula.
    leave_out, present: of `matching_loss`; a caption without words is not present.
    wrong_sentences: (B, D), row i of a caption that is wrong for picture i.
    wrong_codes: (B, D), row i of a picture for which caption i is wrong.
    Raises ValueError for B = 1.
    """

    def cosines(a, b):
        a, b = _unit(a.astype(jnp.float32)), _unit(b.astype(jnp.float32))
        return gamma3 * (a * b).sum(-1)

    return matching_loss(
        gamma3 * sentence_scores(codes, everywhere(sentences)),
        leave_out,
        present,
        wrong_captions=None if wrong_sentences is None else cosines(codes, wrong_sentences),
        wrong_pictures=None if wrong_codes is None else cosines(wrong_codes, sentences),
    )


# -------------------------------------------------------------------------------------- captions
def caption_loss(
    logits: Array, tokens: Array, length: Array, *, reduction: str = 'mean', end: bool = False
) -> Array:
    """Compute the cross-entropy of the words of captions -> scalar, in nats.

    logits: (B, T, V), of word t from what stands before it. tokens: (B, T) ids, 0 is padding.
    length: (B,) words, which alone count.
    reduction: 'mean' over all words of the batch, or 'sum' over those of a caption, and then the
        mean over the batch. Raises ValueError for another.
    end: the first padding counts as a word, too, where there is one: the end.
    """
    choose('reduction', reduction, ('mean', 'sum'))
    counts = jnp.arange(tokens.shape[1]) < length[:, None] + end
    logits = logits.astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    total = jnp.where(counts, losses, 0).sum()
    return total / (jnp.maximum(counts.sum(), 1) if reduction == 'mean' else len(tokens))
