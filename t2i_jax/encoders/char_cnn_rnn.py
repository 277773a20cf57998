"""char-CNN-RNN, the text encoder of GAN-CLS and StackGAN.

Reed et al., CVPR 2016 (arXiv 1605.05395); Reed et al., ICML 2016 (arXiv 1605.05396).

A sentence as 201 one-hot characters goes through three convolutions and a recurrent net; the mean
of its states over time is projected to the embedding. Three incarnations were published, and they
differ in the third pool, the recurrent cell and the width:

| variant | third pool | cell | steps | hidden | parameters |
|---|---|---|---|---|---|
| 'cvpr' (birds and flowers, CVPR 2016) | yes | ReLU RNN | 8 | 256 | 1,814,144 |
| 'icml_flowers' (ICML 2016) | yes | ReLU RNN | 8 | 512 | 2,994,560 |
| 'icml_birds' (ICML 2016, and COCO) | no | GRU | 18 | 512 | 4,045,184 |

Every parameter starts from U(-0.08, 0.08) (reedscot/cvpr2016).

Deviation: the originals' ReLU is Threshold(1e-6, 0); a plain ReLU stands here.
"""

from typing import NamedTuple

import jax
from flax import nnx

from t2i_jax.data.text import ALPHABET
from t2i_jax.layers.linear import uniform, uniform_linear
from t2i_jax.layers.recurrent import ChoGru, ReluRnn
from t2i_jax.runtime.errors import choose

LIMIT = 0.08


class TextVariant(NamedTuple):
    """The choices in which the published encoders differ."""

    third_pool: bool
    gru: bool
    hidden: int


VARIANTS = {
    'cvpr': TextVariant(third_pool=True, gru=False, hidden=256),
    'icml_flowers': TextVariant(third_pool=True, gru=False, hidden=512),
    'icml_birds': TextVariant(third_pool=False, gru=True, hidden=512),
}


class CharCnnRnn(nnx.Module):
    """Characters b 201 int -> sentence vectors b d; d is `self.d`.

    Characters count from 1 in `t2i_jax.data.text.ALPHABET` (1..70, as `encode_chars` and Reed's
    files have them); 0, or anything else outside, is a zero row. `train=True` with a dropout rate
    needs `key`.
    """

    reads = ('chars',)

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
        """Build the encoder.

        variant: a key of VARIANTS.
        channels: of the first two convolutions.
        hidden: of the third and of the recurrent net; None or 0 is the variant's own.
        embedding: d.
        dropout: of the mean state.
        """
        self.third_pool, gru, own = VARIANTS[choose('variant', variant, VARIANTS)]
        hidden, self.d = hidden or own, embedding

        def conv(c, d):
            start = uniform(LIMIT)
            return nnx.Conv(
                c, d, (4,), padding='VALID', kernel_init=start, bias_init=start, rngs=rngs
            )

        self.conv1 = conv(len(ALPHABET), channels[0])
        self.conv2 = conv(channels[0], channels[1])
        self.conv3 = conv(channels[1], hidden)
        self.rnn = (ChoGru if gru else ReluRnn)(hidden, hidden, LIMIT, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.embed = uniform_linear(hidden, embedding, LIMIT, rngs=rngs)

    def features(self, chars):
        """Compute what the recurrent net reads: b 201 int -> b 8 h, or b 18 h."""
        x = jax.nn.one_hot(chars - 1, len(ALPHABET))  # b 201 70
        x = nnx.relu(self.conv1(x))  # b 198 384
        x = nnx.relu(self.conv2(nnx.max_pool(x, (3,), strides=(3,))))  # b 63 512, of b 66 384
        x = nnx.relu(self.conv3(nnx.max_pool(x, (3,), strides=(3,))))  # b 18 h, of b 21 512
        return nnx.max_pool(x, (3,), strides=(2,)) if self.third_pool else x  # b 8 h

    def __call__(self, chars, *, train, key=None):
        x = self.rnn(self.features(chars)).mean(1)  # b h
        return self.embed(self.dropout(x, deterministic=not train, rngs=key))  # b d

    def sentence(self, chars, *, train=False, key=None):
        """Encode the sentences: b d."""
        return self(chars, train=train, key=key)
