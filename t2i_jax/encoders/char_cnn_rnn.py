"""char-CNN-RNN, the text encoder of GAN-CLS and StackGAN.

Reed et al., CVPR 2016 (arXiv 1605.05395); Reed et al., ICML 2016 (arXiv 1605.05396).

A sentence as 201 one-hot characters goes through three convolutions and a recurrent net; the mean of its states over time is
projected to the embedding. Three incarnations were published, and they differ in the third pool, the recurrent cell and the width:

| variant | third pool | cell | steps | hidden | parameters |
|---|---|---|---|---|---|
| 'cvpr' (birds and flowers, CVPR 2016) | yes | ReLU RNN | 8 | 256 | 1,814,144 |
| 'icml_flowers' (ICML 2016) | yes | ReLU RNN | 8 | 512 | 2,994,560 |
| 'icml_birds' (ICML 2016, and COCO) | no | GRU | 18 | 512 | 4,045,184 |

Deviation: the originals' ReLU is Threshold(1e-6, 0); a plain ReLU stands here.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.data.text import ALPHABET


class Variant(NamedTuple):
    third_pool: bool
    gru: bool
    hidden: int


VARIANTS = {
    'cvpr': Variant(third_pool=True, gru=False, hidden=256),
    'icml_flowers': Variant(third_pool=True, gru=False, hidden=512),
    'icml_birds': Variant(third_pool=False, gru=True, hidden=512),
}


def small_uniform(key, shape, dtype=jnp.float32, **_):
    """U(-0.08, 0.08), for every parameter (reedscot/cvpr2016)."""
    return jax.random.uniform(key, shape, dtype, -0.08, 0.08)


def linear(n_in, n_out, rngs):
    return nnx.Linear(n_in, n_out, kernel_init=small_uniform, bias_init=small_uniform, rngs=rngs)


class ReluRnn(nnx.Module):
    """h_1 = relu(Wi x_1 + bi);  h_t = relu(Wi x_t + bi + Wh h_(t-1) + bh). The first step has no recurrent term, not even its bias."""

    def __init__(self, n_in, hidden, *, rngs):
        self.input = linear(n_in, hidden, rngs)
        self.hidden = linear(hidden, hidden, rngs)

    def __call__(self, x):
        """(B, T, n_in) -> the states (B, T, hidden)."""
        inputs = self.input(x).swapaxes(
            0, 1
        )  # t b h, for all steps at once: only Wh h has to wait for the step before
        first = nnx.relu(inputs[0])

        def step(h, from_input):
            h = nnx.relu(from_input + self.hidden(h)).astype(h.dtype)
            return h, h

        return _with_first(first, jax.lax.scan(step, first, inputs[1:])[1])


class ChoGru(nnx.Module):
    """The GRU of Cho et al. (2014): the reset gate acts before Wh; the update gate weighs the candidate. nnx.GRUCell has both otherwise.

    h_1 = tanh(Wi x_1 + bi);  u, r = sigmoid(W x_t + b + V h + c);  n = tanh(Wi x_t + bi + Wh (r h) + bh);  h_t = u n + (1 - u) h.
    """

    def __init__(self, n_in, hidden, *, rngs):
        self.input = linear(n_in, 3 * hidden, rngs)  # update, reset, candidate
        self.gates = linear(hidden, 2 * hidden, rngs)  # update, reset
        self.hidden = linear(hidden, hidden, rngs)  # candidate

    def __call__(self, x):
        """(B, T, n_in) -> the states (B, T, hidden)."""
        update, reset, candidate = jnp.split(self.input(x).swapaxes(0, 1), 3, -1)  # each t b h
        first = jnp.tanh(candidate[0])

        def step(h, from_input):
            update, reset, candidate = from_input
            update_h, reset_h = jnp.split(self.gates(h), 2, -1)
            u, r = nnx.sigmoid(update + update_h), nnx.sigmoid(reset + reset_h)
            n = jnp.tanh(candidate + self.hidden(r * h))
            h = (u * n + (1 - u) * h).astype(h.dtype)
            return h, h

        return _with_first(
            first, jax.lax.scan(step, first, (update[1:], reset[1:], candidate[1:]))[1]
        )


def _with_first(first, rest):
    return jnp.concatenate([first[None], rest]).swapaxes(0, 1)  # b t h


class CharCnnRnn(nnx.Module):
    """Characters (B, 201) int -> (B, embedding).

    Characters count from 1 in `t2i_jax.data.text.ALPHABET` (1..70, as `encode_chars` and Reed's files have them); 0, or anything else
    outside, is a zero row. `variant` is a key of VARIANTS; `hidden` is the variant's own where it is None.
    `train=True` with a dropout rate needs `key`.
    """

    def __init__(
        self,
        variant='icml_birds',
        *,
        channels=(384, 512),
        hidden=None,
        embedding=1024,
        dropout=0.0,
        rngs,
    ):
        if variant not in VARIANTS:
            raise ValueError(
                f'char-CNN-RNN has no variant {variant!r}; there are {", ".join(VARIANTS)}.'
            )
        self.third_pool, gru, default = VARIANTS[variant]
        hidden, self.embedding = hidden or default, embedding

        def conv(n_in, n_out):
            return nnx.Conv(
                n_in,
                n_out,
                (4,),
                padding='VALID',
                kernel_init=small_uniform,
                bias_init=small_uniform,
                rngs=rngs,
            )

        self.conv1 = conv(len(ALPHABET), channels[0])
        self.conv2 = conv(channels[0], channels[1])
        self.conv3 = conv(channels[1], hidden)
        self.rnn = (ChoGru if gru else ReluRnn)(hidden, hidden, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.embed = linear(hidden, embedding, rngs)

    def features(self, chars):
        """What the recurrent net reads: (B, 201) int -> (B, 8 or 18, hidden)."""
        x = jax.nn.one_hot(chars - 1, len(ALPHABET))  # b 201 70
        x = nnx.max_pool(
            nnx.relu(self.conv1(x)), (3,), strides=(3,)
        )  # b 66 384 (198 before the pool)
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (3,), strides=(3,))  # b 21 512 (63)
        x = nnx.relu(self.conv3(x))  # b 18 h
        return nnx.max_pool(x, (3,), strides=(2,)) if self.third_pool else x  # b 8 h

    def __call__(self, chars, *, train, key=None):
        x = self.rnn(self.features(chars)).mean(1)  # b h
        return self.embed(self.dropout(x, deterministic=not train, rngs=key))  # b e
