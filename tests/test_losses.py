"""Losses against values worked out by hand."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import losses

SCORES = np.array([[2., 1.5, 0.], [0., 1., 3.], [1., 2.5, 4.]], np.float32)     # of image i and text j


def test_structured_joint_embedding_by_hand():
    images, texts = SCORES, np.eye(3, dtype=np.float32)                          # so image_i . text_j = SCORES[i, j]
    # image against texts, max(0, 1 + s_ij - s_ii): row 0: .5, 0; row 1: 0, 3; row 2: 0, 0
    assert losses.structured_joint_embedding(images, texts, symmetric=False) == pytest.approx(3.5 / 9)
    # text against images, max(0, 1 + s_ij - s_jj): column 0: 0, 0; column 1: 1.5, 2.5; column 2: 0, 0
    assert losses.structured_joint_embedding(images, texts) == pytest.approx(7.5 / 9)
    assert losses.structured_joint_embedding(texts, images, symmetric=False) == pytest.approx(4.0 / 9)
    assert losses.structured_joint_embedding(images, texts, margin=0.0) == pytest.approx((2 + .5 + 1.5) / 9)


def test_a_perfect_embedding_costs_nothing():
    assert losses.structured_joint_embedding(jnp.eye(4), 2 * jnp.eye(4)) == 0


def test_bce_of_zero_logits_is_log_2_so_both_discriminator_losses_start_at_2_log_2():
    one, zero = losses.bce(jnp.zeros(4), 1.0), losses.bce(jnp.zeros(4), 0.0)
    assert one + zero == pytest.approx(2 * np.log(2))                            # vanilla: real + fake
    assert one + .5 * zero + .5 * zero == pytest.approx(2 * np.log(2))           # CLS: real + (wrong + fake) / 2


def test_bce_is_softplus_and_stays_finite_in_bfloat16():
    logits = jnp.array([-300., -1., 2., 300.], jnp.bfloat16)
    assert losses.bce_per_row(logits, 1.0) == pytest.approx([300., np.log1p(np.e), np.log1p(np.exp(-2)), 0.], rel=1e-6)
    assert losses.bce_per_row(logits, 0.0) == pytest.approx([0., np.log1p(np.exp(-1)), np.log1p(np.exp(2)), 300.], rel=1e-6)
    assert losses.bce(logits, 1.0).dtype == jnp.float32
    assert np.isfinite(jax.grad(lambda x: losses.bce(x, 1.0))(logits).astype(jnp.float32)).all()


def test_bce_of_patches_and_of_a_label_for_each_row():
    patches = jnp.array([[[0., 0.], [0., 0.]], [[4., 4.], [4., 4.]]])[..., None]
    rows = losses.bce_per_row(patches, 1.0)
    assert rows == pytest.approx([np.log(2), np.log1p(np.exp(-4))], rel=1e-6)
    assert losses.bce(patches, 1.0) == pytest.approx(float(rows.mean()))
    assert losses.bce_per_row(jnp.zeros((2, 1)), jnp.array([[1.], [.5]])) == pytest.approx([np.log(2)] * 2)
