"""The bi-LSTM text encoder of AttnGAN and of all that followed: a caption to a vector for each word and one for the sentence.

Xu et al., CVPR 2018 (arXiv 1711.10485). Sizes with 5,450 words (birds) and 27,297 (COCO), 300 numbers each, 128 states a direction:

| biases of a gate | birds | COCO |
|---|---|---|
| one | 2,074,296 | 8,628,396 |
| two, as PyTorch has them (`two_biases`) | 2,075,320 | 8,629,420 |

Two biases are always added, so one says the same; two are for imported weights.
"""

import jax
import jax.numpy as jnp
from flax import nnx


def uniform(limit):
    """An initialiser: U(-limit, limit)."""

    def draw(key, shape, dtype=jnp.float32, **_):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return draw


class Lstm(nnx.Module):
    """One direction of a standard LSTM; states start at 0, parameters from U(-1/sqrt(h), 1/sqrt(h)) as in PyTorch.

    i, f, g, o = W x_t + b + V h_(t-1) [+ b'];  c_t = sigmoid(f) c_(t-1) + sigmoid(i) tanh(g);  h_t = sigmoid(o) tanh(c_t)
    """

    def __init__(self, n_in, hidden, two_biases=False, *, rngs):
        start = uniform(hidden**-0.5)
        self.input = nnx.Linear(
            n_in, 4 * hidden, kernel_init=start, bias_init=start, rngs=rngs
        )  # i, f, g, o
        self.hidden = nnx.Linear(
            hidden, 4 * hidden, use_bias=two_biases, kernel_init=start, bias_init=start, rngs=rngs
        )

    def __call__(self, x, there, *, reverse=False):
        """b t n, bool b t (words first, then padding) -> (states b t h, zeros at padding; the state after the last word read b h), float32.

        At padding the state stays as it is. So forwards it ends with that of the last word, and in reverse it begins at the last word.
        """

        def step(state, inputs):
            from_input, there = inputs
            h, c = state
            i, f, g, o = jnp.split((from_input + self.hidden(h)).astype(jnp.float32), 4, -1)
            after = nnx.sigmoid(f) * c + nnx.sigmoid(i) * jnp.tanh(g)
            h, c = jnp.where(there, nnx.sigmoid(o) * jnp.tanh(after), h), jnp.where(there, after, c)
            return (h, c), jnp.where(there, h, 0)

        inputs = self.input(x).swapaxes(0, 1)  # t b 4h, for all steps at once: only V h has to wait
        start = jnp.zeros((len(x), self.hidden.in_features))
        (last, _), states = jax.lax.scan(
            step, (start, start), (inputs, there.T[..., None]), reverse=reverse
        )
        return states.swapaxes(0, 1), last  # b t h


class BiLstm(nnx.Module):
    """Word ids b t (0 = padding) and their numbers b -> (words b t d, sentence b d), float32; d is `self.d`, words are zeros at padding.

    Neither depends on how much padding there is. A caption of length 0 gives zeros. `train=True` with dropout needs `key`.
    """

    def __init__(
        self, vocabulary_size, d=256, *, embedding=300, dropout=0.5, two_biases=False, rngs
    ):
        """vocabulary_size: with the padding. d: of both directions together. dropout: of the vectors that the LSTM reads. Raises ValueError
        for an odd d, and where there are no words."""
        if d < 2 or d % 2:
            raise ValueError(f'd={d} cannot be shared by two directions: make it even.')
        if vocabulary_size < 2:
            raise ValueError('The text encoder has no words to read: these data have no captions.')
        self.d = d
        self.embed = nnx.Embed(vocabulary_size, embedding, embedding_init=uniform(0.1), rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.forward, self.backward = (
            Lstm(embedding, d // 2, two_biases, rngs=rngs) for _ in range(2)
        )

    def __call__(self, tokens, length, *, train, key=None):
        x = self.dropout(self.embed(tokens), deterministic=not train, rngs=key)  # b t e
        there = jnp.arange(tokens.shape[1]) < length[:, None]  # b t
        ahead, last = self.forward(x, there)
        back, first = self.backward(x, there, reverse=True)
        return jnp.concatenate([ahead, back], -1), jnp.concatenate([last, first], -1)  # b t d, b d
