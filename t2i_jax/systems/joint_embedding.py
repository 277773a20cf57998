"""Joint embedding: Learning Deep Representations of Fine-Grained Visual Descriptions.

Reed, Akata, Lee, Schiele, CVPR 2016.

A text encoder learns to agree with an image encoder: pictures and their captions get vectors in one
space, where the product of a picture and a caption is large if they belong together. It is the
first stage of GAN-CLS, StackGAN and their kin, which draw from the vector of a sentence.

    s_ij = f(image_i) . h(text_j),  K pairs of K different classes
    L = 1/K^2 sum_i sum_{j != i} max(0, 1 + s_ij - s_ii) + the same with roles swapped

Deviations: the image side is a small convolutional network trained with the text encoder, because
the GoogLeNet features of the original cannot be had; with stored features (`features`, their
dimension) it uses those. Other encoders than the char-CNN-RNN, and the training of whole captions,
are ours (`text`, `loss`, `whiten`).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from t2i_jax.encoders.sentence import ENCODER, Whitened, encode_sentence, sentence_encoder
from t2i_jax.encoders.small_cnn import SmallCnn
from t2i_jax.layers.norm import separately
from t2i_jax.layers.pairs import LEAVE_OUT, found_own, not_wrong
from t2i_jax.losses import sentence_loss, sentence_scores, structured_joint_embedding
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import Phase, Stage, unused

LOSSES = 'hinge', 'contrast'


class JointCodes(NamedTuple):
    """Pictures and sentences in the common space, b d."""

    code: Any
    sentence: Any


class JointEmbedding(Stage):
    """Trains the text encoder: true pairs get the largest product of their vectors."""

    phases = (Phase('joint_loss', trains=('text', 'image')),)
    makes = ('codes',)
    tiny = dict(
        encoder=dict(channels=(32, 48), hidden=48, embedding=64), image_channels=(16, 32, 48)
    )

    def __init__(
        self,
        meta,
        *,
        encoder=ENCODER,
        image_channels=(64, 128, 256, 256),
        image_flat=False,
        features=0,
        margin=1.0,
        text='chars',
        loss='hinge',
        gamma=10.0,
        leave_out='class',
        whiten=False,
        rngs,
    ):
        """Build both encoders.

        encoder: keywords of the text encoder.
        image_channels, image_flat: of SmallCnn.
        features: dimension of stored image features, 0 = learn them from pixels.
        margin: of the hinge loss.

        Ours, and off in the paper's settings:

        text: the encoder, 'chars', 'lstm' or 'words' (the sum of word vectors); see
            `sentence_encoder`.
        loss: 'contrast' trains whole captions, by the cross-entropies of gamma times the cosine
            over a batch and one more wrong picture for each caption, which may differ by little
            (`near_wrong`); the hinge only tells classes apart.
        gamma: see `loss`.
        leave_out: pairs of a batch that do not count as wrong ones, see `not_wrong`.
        whiten: sentence vectors for later stages are whitened.
        """
        encoder = sentence_encoder(text, meta, encoder, rngs=rngs)
        self.text = Whitened(encoder) if whiten else encoder
        self.margin, self.whiten, d = margin, whiten, encoder.d
        self.loss, self.gamma = choose('loss', loss, LOSSES), gamma
        self.leave_out = choose('leave_out', leave_out, LEAVE_OUT)
        if features and features != d:
            raise ValueError(
                f'Stored image features have {features} dimensions, the text encoder {d}: '
                'make them equal.'
            )
        if features:
            self.phases, self.image = (Phase('joint_loss', trains=('text',)),), None
        else:
            self.image = SmallCnn(meta.size, image_channels, d, image_flat, rngs=rngs)
        self.needs = ('image_features' if features else 'image', *self.text.reads)
        if loss == 'contrast':
            compared = LEAVE_OUT[leave_out] if leave_out != 'class' or meta.classes else ()
            wrong = () if features else ('wrong_image',)
            self.needs += (*wrong, *compared)

    @classmethod
    def skip(cls, config):
        return config.data.embedding == 'stored'

    def codes(self, batch, key=None) -> JointCodes:
        """Encode the pictures and sentences of a batch; key: of the dropout, in training."""
        if self.image:
            image = self.image(batch['image'], train=self.training)
        else:
            image = batch['image_features']
        return JointCodes(image, self.sentences(batch, key))

    def sentences(self, batch, key=None):
        """Encode the sentences of a batch as the losses compare them: b d, before whitening."""
        if not self.whiten:
            return encode_sentence(self.text, batch, train=self.training, key=key)
        vectors = encode_sentence(self.text.encoder, batch, train=self.training, key=key)
        if self.training:
            self.text.whitening.observe(vectors)
        return vectors

    def joint_loss(self, batch, key, out):
        if self.loss == 'contrast':
            return self.contrast(batch, key)
        image, text = self.codes(batch, key)
        loss = structured_joint_embedding(image, text, margin=self.margin)
        scores = image.astype(jnp.float32) @ text.T
        return loss, {'top1': (scores.argmax(1) == jnp.arange(len(scores))).mean()}

    def contrast(self, batch, key):
        """Compute the loss over whole captions, and how many pictures find theirs."""
        text, wrong = self.sentences(batch, key), None
        if not self.image:
            image = batch['image_features']
        elif self.training:
            image, wrong = separately(self.image, [batch['image'], batch['wrong_image']])
        else:
            image, wrong = (self.image(batch[n], train=False) for n in ('image', 'wrong_image'))
        leave_out = not_wrong(batch, self.leave_out)
        loss = sentence_loss(image, text, gamma3=self.gamma, leave_out=leave_out, wrong_codes=wrong)
        return loss, {'top1': found_own(sentence_scores(image, text), leave_out)}


class ChosenText(JointEmbedding):
    """The joint embedding, left out of a run that gives it no steps."""

    @classmethod
    def skip(cls, config):
        return super().skip(config) or unused(config, 'text')


STAGES = {'text': JointEmbedding}
