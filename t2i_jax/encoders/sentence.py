"""The one way from a batch to sentence vectors, stored with the data or encoded.

A text encoder (ENCODERS) says which batch keys it `reads`, how many dimensions `d` its vectors
have, and makes them by `sentence`. Where there is none (None), the data hold the vectors.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.encoders.bi_lstm import BiLstm
from t2i_jax.encoders.char_cnn_rnn import CharCnnRnn
from t2i_jax.encoders.word_sum import WordSum
from t2i_jax.layers.norm import Whitening
from t2i_jax.runtime.errors import choose

# kind -> the keywords that it reads; embedding: the dimensions of a sentence vector
ENCODERS = {
    'chars': ('variant', 'channels', 'hidden', 'embedding', 'dropout'),
    'lstm': ('embedding', 'dropout'),
    'words': ('embedding',),
}
# of the char-CNN-RNN; hidden 0: the variant's own
ENCODER = dict(variant='icml_birds', channels=(384, 512), hidden=0, embedding=1024, dropout=0.0)
STORED = ('embedding',)
WORDS = 'tokens', 'length'


def sentence_encoder(kind, meta, keywords, *, rngs):
    """Build a text encoder.

    kind: 'chars', a char-CNN-RNN; 'lstm', a bi-LSTM over words; 'words', the sum of word vectors.
    keywords: as ENCODER has them. Raises ValueError for one that differs from it and is not read.
    """
    read = ENCODERS[choose('text', kind, ENCODERS)]
    unread = [key for key in keywords if key not in read and keywords[key] != ENCODER[key]]
    if unread:
        raise ValueError(
            f'encoder.{unread[0]} is not read with text={kind!r}, which reads {", ".join(read)}: '
            'leave it out.'
        )
    if kind == 'chars':
        return CharCnnRnn(**keywords, rngs=rngs)
    d, words = keywords['embedding'], meta.vocabulary_size
    if kind == 'words':
        return WordSum(words, d, rngs=rngs)
    return BiLstm(words, d, dropout=keywords['dropout'], rngs=rngs)


class Whitened(nnx.Module):
    """A text encoder whose sentence vectors are whitened (`Whitening`)."""

    def __init__(self, encoder):
        self.encoder, self.whitening = encoder, Whitening(encoder.d)
        self.reads, self.d = encoder.reads, encoder.d

    def sentence(self, *inputs, train=False, key=None):
        """Encode the sentences: b d."""
        return self.whitening(self.encoder.sentence(*inputs, train=train, key=key))


class WordsAndSentence(NamedTuple):
    """Sentences as the attention of the AttnGAN family reads them."""

    # b t d, 0 at padding
    words: Any
    # b d
    sentence: Any
    # b t float32, 0 at padding; between two sentences (explore) a word of either counts
    mask: Any


def text_reads(text):
    """Return the batch keys from which sentence vectors come."""
    return text.reads if text else STORED


def text_dim(text, meta):
    """Return the dimensions of sentence vectors; raise ValueError where there are none."""
    d = text.d if text else meta.embedding_dim
    if not d:
        raise ValueError(
            'There is neither a text encoder nor a stored sentence vector: '
            'set data.embedding=none or import vectors.'
        )
    return d


def encode_sentence(text, batch, *, unit=False, prefix='', train=False, key=None):
    """Compute the sentence vectors of a batch, b d in float32.

    text: the encoder, None for stored vectors.
    batch: where a row has several captions, the result is the mean of their vectors. A batch that
        has been encoded already holds the result under `encoded`.
    unit: scale vectors to a mean square of 1.
    prefix: 'wrong_' for the sentences of pairs that do not match.
    train, key: of the encoder's dropout.
    """
    if 'encoded' in batch and not prefix:
        return batch['encoded']
    first, *lengths = (batch[prefix + name] for name in text_reads(text))
    vectors = first
    if text:
        # the captions of all rows one behind the other
        captions = [first.reshape(-1, first.shape[-1]), *(x.reshape(-1) for x in lengths)]
        vectors = text.sentence(*captions, train=train, key=key)
        vectors = vectors.reshape(*first.shape[:-1], -1)
    vectors = vectors.astype(jnp.float32)
    vectors = vectors.mean(1) if vectors.ndim == 3 else vectors
    return scaled_to_unit(vectors) if unit else vectors


def encode_words(text, batch, *, unit=False, prefix=''):
    """Compute the words and sentences of a batch with a BiLstm. -> WordsAndSentence

    Arguments as those of `encode_sentence`; a row has one caption.
    """
    if 'encoded' in batch and not prefix:
        return batch['encoded']
    tokens, length = batch[prefix + 'tokens'], batch[prefix + 'length']
    words, sentence = (x.astype(jnp.float32) for x in text(tokens, length, train=False))
    sentence = scaled_to_unit(sentence) if unit else sentence
    there = jnp.arange(tokens.shape[1]) < length[:, None]
    return WordsAndSentence(words, sentence, jnp.float32(there))


def scaled_to_unit(vectors):
    """Scale vectors (..., d) to a mean square of 1."""
    return vectors * jax.lax.rsqrt((vectors**2).mean(-1, keepdims=True) + 1e-12)
