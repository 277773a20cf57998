"""A sentence as the sum of the vectors of its words.

The order of the words is lost, and what each of them says stays apart from the others: a sentence
of words that never met in training lies where it should. Recurrent encoders learn the sentences of
the training captions as wholes, and lose others.
"""

import jax.numpy as jnp
from flax import nnx

# of the vectors; a sum of a dozen of them has entries of about 1
SCALE = 0.4


class WordSum(nnx.Module):
    """Word ids b t (0 = padding), their numbers b -> (words b t d, sentence b d), float32.

    d is `self.d`; words are zeros at padding. A caption of length 0 gives zeros.
    """

    reads = ('tokens', 'length')

    def __init__(self, vocabulary_size, d=128, *, rngs):
        """Build the encoder.

        vocabulary_size: words, the padding included.
        d: dimensions of a word and of a sentence.
        Raises ValueError where there are no words.
        """
        if vocabulary_size < 2:
            raise ValueError('The text encoder has no words to read: these data have no captions.')
        self.d = d
        start = nnx.initializers.normal(0.3)
        self.embed = nnx.Embed(vocabulary_size, d, embedding_init=start, rngs=rngs)

    def __call__(self, tokens, length, *, train, key=None):
        there = jnp.arange(tokens.shape[1]) < length[:, None]
        words = SCALE * self.embed(tokens) * there[..., None]  # b t d
        return words, words.sum(1)

    def sentence(self, tokens, length, *, train=False, key=None):
        """Encode the sentences alone: b d."""
        return self(tokens, length, train=train, key=key)[1]
