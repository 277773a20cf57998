"""Losses: pure functions on arrays, computed in float32 whatever the compute type is."""
import jax
import jax.numpy as jnp
import optax


def bce_per_row(logits, label):
    """Sigmoid binary cross-entropy of logits (B, ...) against a label in [0, 1] (a number, or an array that broadcasts) -> (B,).

    Label 1 gives softplus(-logit), label 0 softplus(logit). What follows the batch axis (patches) is averaged.
    """
    logits = logits.astype(jnp.float32)
    losses = optax.sigmoid_binary_cross_entropy(logits, jnp.broadcast_to(jnp.float32(label), logits.shape))
    return losses.reshape(len(losses), -1).mean(-1)


def bce(logits, label):
    """Mean of `bce_per_row` over the batch -> scalar."""
    return bce_per_row(logits, label).mean()


def structured_joint_embedding(image_vectors, text_vectors, *, margin=1.0, symmetric=True):
    """Hinge loss on the scores s_ij = image_i . text_j of K matching pairs (K, D) x (K, D) -> scalar (Reed et al., CVPR 2016).

    1/K^2 sum_i sum_{j != i} max(0, margin + s_ij - s_ii), and with `symmetric` the same for each text against all images.
    The pairs must come from K distinct classes: any text of an image's own class would count as wrong.
    """
    image_vectors, text_vectors = image_vectors.astype(jnp.float32), text_vectors.astype(jnp.float32)
    scores = jnp.einsum('id,jd->ij', image_vectors, text_vectors, precision=jax.lax.Precision.HIGHEST)
    wrong = 1 - jnp.eye(len(scores))
    right = jnp.diagonal(scores)
    loss = (wrong * jax.nn.relu(margin + scores - right[:, None])).mean()              # an image against all texts
    if symmetric:
        loss += (wrong * jax.nn.relu(margin + scores - right[None, :])).mean()         # a text against all images
    return loss
