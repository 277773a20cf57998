"""The bi-LSTM text encoder: a caption to a vector for each word and one for the sentence.

AttnGAN's (Xu et al., CVPR 2018, arXiv 1711.10485), which all that followed took over. Sizes with
5,450 words (birds) and 27,297 (COCO), 300 numbers each, 128 states a direction:

| biases of a gate | birds | COCO |
|---|---|---|
| one | 2,074,296 | 8,628,396 |
| two, as PyTorch has them (`two_biases`) | 2,075,320 | 8,629,420 |

Two biases are always added, so one says the same; two are for imported weights.
"""

import jax.numpy as jnp
from flax import nnx

from t2i_jax.layers.linear import uniform
from t2i_jax.layers.recurrent import Lstm


class BiLstm(nnx.Module):
    """Word ids b t (0 = padding), their numbers b -> (words b t d, sentence b d), float32.

    d is `self.d`; words are zeros at padding. Neither depends on how much padding there is. A
    caption of length 0 gives zeros. `train=True` with dropout needs `key`.
    """

    reads = ('tokens', 'length')

    def __init__(
        self, vocabulary_size, d=256, *, embedding=300, dropout=0.5, two_biases=False, rngs
    ):
        """Build the encoder.

        vocabulary_size: words, the padding included.
        d: dimensions, of both directions together.
        embedding: numbers of a word as the LSTM reads it.
        dropout: of the vectors that the LSTM reads.
        two_biases: see the table.
        Raises ValueError for an odd d, and where there are no words.
        """
        if d < 2 or d % 2:
            raise ValueError(f'd={d} cannot be shared by two directions: make it even.')
        if vocabulary_size < 2:
            raise ValueError('The text encoder has no words to read: these data have no captions.')
        self.d, h = d, d // 2
        self.embed = nnx.Embed(vocabulary_size, embedding, embedding_init=uniform(0.1), rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.forward, self.backward = (
            Lstm(embedding, h, two_biases=two_biases, input_limit=h**-0.5, rngs=rngs)
            for _ in range(2)
        )

    def __call__(self, tokens, length, *, train, key=None):
        x = self.dropout(self.embed(tokens), deterministic=not train, rngs=key)  # b t e
        there = jnp.arange(tokens.shape[1]) < length[:, None]  # b t
        ahead, last = self.forward(x, there)
        back, first = self.backward(x, there, reverse=True)
        return jnp.concatenate([ahead, back], -1), jnp.concatenate([last, first], -1)  # b t d, b d

    def sentence(self, tokens, length, *, train=False, key=None):
        """Encode the sentences alone: b d."""
        return self(tokens, length, train=train, key=key)[1]
