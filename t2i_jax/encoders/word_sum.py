"""A sentence as the sum of the vectors of its words.

The order of the words is lost, and what each of them says stays apart from the others: a sentence
of words that never met in training lies where it should. Recurrent encoders learn the sentences of
the training captions as wholes, and lose others. Where a sentence names several things, a window
over neighbouring words tells "a red ring and a blue square" from "a blue ring and a red square".
"""

import jax
import jax.numpy as jnp
from flax import nnx

# of the vectors; a sum of a dozen of them has entries of about 1
SCALE = 0.4


class WordSum(nnx.Module):
    """Word ids b t (0 = padding), their numbers b -> (words b t d, sentence b d), float32.

    d is `self.d`; words are zeros at padding. A caption of length 0 gives zeros.
    """

    reads = ('tokens', 'length')

    def __init__(self, vocabulary_size, d=128, window=1, *, rngs):
        """Build the encoder.

        vocabulary_size: words, the padding included.
        d: dimensions of a word and of a sentence.
        window: words that are read together; above 1 a sentence is the sum of its words and of
            what a layer with a ReLU makes of each word and those around it.
        Raises ValueError where there are no words.
        """
        if vocabulary_size < 2:
            raise ValueError('The text encoder has no words to read: these data have no captions.')
        self.d = d
        start = nnx.initializers.normal(0.3)
        self.embed = nnx.Embed(vocabulary_size, d, embedding_init=start, rngs=rngs)
        self.near = nnx.Conv(d, 2 * d, window, rngs=rngs) if window > 1 else None
        # the sum alone at first
        zeros = dict(use_bias=False, kernel_init=nnx.initializers.zeros)
        self.joint = nnx.Linear(2 * d, d, **zeros, rngs=rngs) if window > 1 else None

    def __call__(self, tokens, length, *, train, key=None):
        there = jnp.arange(tokens.shape[1]) < length[:, None]
        words = SCALE * self.embed(tokens) * there[..., None]  # b t d
        sentence = words.sum(1)
        if self.near:
            together = jax.nn.relu(self.near(words)) * there[..., None]  # b t 2d
            sentence += self.joint(together.sum(1))
        return words, sentence

    def sentence(self, tokens, length, *, train=False, key=None):
        """Encode the sentences alone: b d."""
        return self(tokens, length, train=train, key=key)[1]
