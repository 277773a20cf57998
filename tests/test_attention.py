"""Attention of pixels over words: masks, weights by hand, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t2i_jax.layers.attention import WordAttention, looked_at

LENGTH = 5


def test_masks():
    mask = np.random.default_rng(0).random((3, 4)) < 0.5
    assert (looked_at(mask, 5, 'fixed') == mask[:, None]).all() and looked_at(mask, 5, 'none').all()
    tiled = np.tile(mask, (5, 1)).reshape(
        3, 5, 4
    )  # the code: mask.repeat(pixels, 1) over rows b * pixels + q
    np.testing.assert_array_equal(looked_at(jnp.array(mask), 5, 'original'), tiled)
    assert (tiled != mask[:, None]).any()
    same = np.repeat(mask[:1], 3, 0)
    assert (looked_at(jnp.array(same), 5, 'original') == same[:, None]).all() and (
        looked_at(jnp.array(mask[:1]), 5, 'original') == mask[0]
    ).all()


def look(mask_mode='fixed', lengths=(2, 5, 3), length=LENGTH):
    """-> (attention module, map, words, mask, context, beta)"""
    layer = WordAttention(6, 4, mask_mode, rngs=nnx.Rngs(0))
    x, words = (
        jax.random.normal(jax.random.key(0), (3, 4, 2, 4)),
        3 * jax.random.normal(jax.random.key(1), (3, LENGTH, 6)),
    )
    mask = jnp.arange(length) < jnp.array(lengths)[:, None]
    words = jnp.pad(words, ((0, 0), (0, length - LENGTH), (0, 0))) * mask[..., None]
    return layer, x, words, mask, *layer(x, words, mask)


def test_attention_sums_to_one_over_words_and_is_zero_at_padding():
    _, _, _, mask, _, beta = look()
    assert beta.shape == (3, 4, 2, LENGTH) and beta.dtype == jnp.float32
    np.testing.assert_allclose(beta.sum(-1), 1, rtol=1e-5)
    for row, there in zip(beta, mask):
        assert (row[..., ~there] == 0).all() and (row[..., there] > 0).all()


def test_attention_by_hand():
    layer, x, words, _, context, beta = look()
    for b, n in enumerate((2, 5, 3)):
        shown = np.asarray(words[b, :n] @ layer.project.kernel[...])  # t c
        scores = np.exp(np.asarray(x[b]) @ shown.T)  # h w t, no scale
        weights = scores / scores.sum(-1, keepdims=True)
        np.testing.assert_allclose(beta[b, ..., :n], weights, rtol=2e-4)
        np.testing.assert_allclose(context[b], weights @ shown, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize('mask_mode, same', [('fixed', True), ('original', True), ('none', False)])
def test_attention_does_not_depend_on_how_much_padding_there_is(mask_mode, same):
    (*_, short, beta), (*_, long, padded) = look(mask_mode), look(mask_mode, length=LENGTH + 7)
    assert (
        np.allclose(short, long, atol=1e-5)
        == np.allclose(beta, padded[..., :LENGTH], atol=1e-5)
        == same
    )


@pytest.mark.parametrize('mask_mode', ['fixed', 'original'])
def test_a_sentence_without_words_gives_no_nan(mask_mode):
    *_, context, beta = look(mask_mode, lengths=(0, 5, 3))
    assert np.isfinite(context).all() and np.isfinite(beta).all()


def test_attention_starts_orthogonal():
    kernel = WordAttention(6, 4, rngs=nnx.Rngs(0)).project.kernel[...]
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(4), atol=1e-5)
