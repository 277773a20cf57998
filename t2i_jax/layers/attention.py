"""Attention of pixels over words."""

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.layers.blocks import ORTHOGONAL

MASK_MODES = ('fixed', 'original', 'none')


def looked_at(mask, pixels, mode):
    """Which words each pixel may look at: mask b t (true: a word) -> b pixels t, or b 1 t where it is the same for all.

    'fixed': those of its own sentence. 'original': as AttnGAN's code and all that descends from it have it. There the rows of scores are in the order
    (sentence, pixel), those of the tiled mask in the order (pixel, sentence), so that pixel q of sentence i has the mask of sentence
    (i pixels + q) mod b. The two agree where b = 1 or all sentences are of one length. Released weights were trained with it; a picture then
    depends on the others of its batch. 'none': padding is looked at as well.
    """
    b = len(mask)
    if mode == 'original':
        return mask[jnp.arange(b * pixels).reshape(b, pixels) % b]  # b q t
    return (mask if mode == 'fixed' else jnp.ones_like(mask))[:, None]  # b 1 t


class WordAttention(nnx.Module):
    """Each pixel of a map looks at the words of a sentence (AttnGAN: Xu et al., CVPR 2018, section 3.1).

    w_t = W e_t,  beta_qt = softmax over t of h_q . w_t,  context_q = sum_t beta_qt w_t, where W has no bias and scores no scale.
    """

    def __init__(self, d, c, mask_mode='fixed', *, rngs):
        """d, c: dimensions of a word and of a pixel. mask_mode: see `looked_at`. Raises ValueError for another."""
        if mask_mode not in MASK_MODES:
            raise ValueError(f'mask_mode is {mask_mode!r}; it is {", ".join(MASK_MODES)}.')
        self.project, self.mask_mode = (
            nnx.Linear(d, c, use_bias=False, kernel_init=ORTHOGONAL, rngs=rngs),
            mask_mode,
        )

    def __call__(self, x, words, mask):
        """x b h w c, words b t d, mask b t, true where there is a word -> (context b h w c, beta b h w t in float32).

        Sentences without any word get the mean over their padding, not NaN.
        """
        b, h, w, c = x.shape
        words = self.project(words)  # b t c
        pixels = x.reshape(b, h * w, c)  # b q c
        scores = jnp.einsum('bqc,btc->bqt', pixels, words, preferred_element_type=jnp.float32)
        scores = jnp.where(
            looked_at(mask, h * w, self.mask_mode), scores, jnp.finfo(jnp.float32).min
        )
        beta = jax.nn.softmax(scores, -1)
        context = jnp.einsum('bqt,btc->bqc', beta.astype(words.dtype), words)
        return context.reshape(b, h, w, c), beta.reshape(b, h, w, -1)
