"""Attention of pixels and of objects over words."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.layers.linear import ORTHOGONAL
from t2i_jax.runtime.errors import choose

MASK_MODES = ('fixed', 'original', 'none')
COMPARISONS = 'dot', 'cosine', 'uniform'


def looked_at(mask, pixels, mode):
    """Return which words each pixel may look at: b pixels t, or b 1 t if the same for all.

    mask: b t, true where there is a word.
    mode: 'fixed', those of its own sentence. 'original', as AttnGAN's code and all that descends
        from it have it: there the rows of scores are in the order (sentence, pixel), those of the
        tiled mask in the order (pixel, sentence), so that pixel q of sentence i has the mask of
        sentence (i pixels + q) mod b. The two agree where b = 1 or all sentences are of one length.
        Released weights were trained with it; a picture then depends on the others of its batch.
        'none', padding is looked at as well.
    """
    b = mask.shape[0]
    if mode == 'original':
        return mask[jnp.arange(b * pixels).reshape(b, pixels) % b]  # b q t
    return (mask if mode == 'fixed' else jnp.ones_like(mask))[:, None]  # b 1 t


class WordAttention(nnx.Module):
    """Attention of each pixel of a map to the words of a sentence.

    AttnGAN: Xu et al., CVPR 2018, section 3.1. W has no bias and scores no scale.
    w_t = W e_t,  beta_qt = softmax over t of h_q . w_t,  context_q = sum_t beta_qt w_t
    """

    def __init__(self, d, c, mask_mode='fixed', *, rngs):
        """d, c: dimensions of a word and of a pixel. mask_mode: see `looked_at`."""
        self.mask_mode = choose('mask_mode', mask_mode, MASK_MODES)
        self.project = nnx.Linear(d, c, use_bias=False, kernel_init=ORTHOGONAL, rngs=rngs)

    def __call__(self, x, words, mask):
        """Attend from x b h w c to words b t d -> (context b h w c, beta b h w t in float32).

        mask: b t, true where there is a word. Sentences without any word get the
        mean over their padding, not NaN.
        """
        b, h, w, c = x.shape
        words = self.project(words)  # b t c
        pixels = x.reshape(b, h * w, c)  # b q c
        scores = jnp.einsum('bqc,btc->bqt', pixels, words, preferred_element_type=jnp.float32)
        seen = looked_at(mask, h * w, self.mask_mode)
        scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
        beta = jax.nn.softmax(scores, -1)
        context = jnp.einsum('bqt,btc->bqc', beta.astype(words.dtype), words)
        return context.reshape(b, h, w, c), beta.reshape(b, h, w, -1)


def object_attention(labels, words, mask, kind='dot', scale=1.0, mask_mode='fixed'):
    """Compute how much objects look at words: b r n, b t n, mask b t -> b r t, sums 1.

    Obj-GAN: Li et al., CVPR 2019.
    kind: what is compared, the 'dot' product, the 'cosine', or nothing ('uniform'). scale: of it.
    """
    labels, words = labels.astype(jnp.float32), words.astype(jnp.float32)
    if choose('attention', kind, COMPARISONS) == 'cosine':
        labels, words = (
            x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-8) for x in (labels, words)
        )
    scores = scale * jnp.einsum('brn,btn->brt', labels, words) * (kind != 'uniform')
    seen = looked_at(mask > 0, labels.shape[1], mask_mode)
    return jax.nn.softmax(jnp.where(seen, scores, -1e9), -1)


def spread(vectors, masks, largest=False):
    """Lay vectors of objects b r c into their masks b h w r -> b h w c, 0 where no object is.

    Where several overlap, their mean by the masks; or each number is the `largest` of mask times
    vector, which is never below 0 where any object is not.
    """
    if largest:
        each = (masks[..., i, None] * vectors[:, None, None, i] for i in range(vectors.shape[1]))
        return functools.reduce(jnp.maximum, each)
    total = jnp.einsum('bhwr,brc->bhwc', masks, vectors)
    return total / jnp.maximum(masks.sum(-1, keepdims=True), 1)
