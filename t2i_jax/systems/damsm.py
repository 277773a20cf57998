"""DAMSM, the deep attentional multimodal similarity model of AttnGAN.

Xu, Zhang, Huang, Zhang, Gan, Huang, He, CVPR 2018, section 3.2.

A caption becomes a vector for each word and one for the sentence (bi-LSTM), a picture a vector for
each region and one for the whole (heads on a convolutional network), all in one space. Each word
gathers from a picture the regions that it fits; a caption fits a picture if its words are similar
to what they gathered. It is trained so that within a batch every picture finds its caption and
every caption its picture. Afterwards the text encoder feeds the generators of AttnGAN and its
successors, and both encoders together judge the drawn pictures and rank captions for R-precision.

    s = word_k . region_r,  alpha_k = softmax over regions of (gamma1 softmax over words of s)
    c_k = sum_r alpha_kr region_r
    R(picture, caption) = log sum_k exp(gamma2 cos(c_k, word_k))
    L_w = CE(gamma3 R, own caption) + CE(gamma3 R^T, own picture)
    L_s = the same with cos(picture, sentence) instead of R
    L = L_w + L_s

The paper divides R by gamma2 (`gamma2_root`). The softmax of a pair leaves out those of the batch
that are not wrong either: pictures of its class, or captions that are true of the picture.

Deviations: the ImageNet trunk stays in evaluation mode (the original's batch norm uses the batch's
statistics and its running ones drift, which are then used frozen); Adam does not start afresh each
epoch; one bias a gate of the LSTM unless `two_biases`; a caption without any known word counts as
if its pair did not exist. Captions longer than `data.length` lose words at random in training, as
in the original, and their last ones in evaluation. Trunks that are not in the paper: see
encoders/damsm_image.py.

Expected: each of the four cross-entropies starts near ln(batch), 3.87 for 48, and falls well below.
The paper has no table of retrieval.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from einops import rearrange

from t2i_jax.encoders.bi_lstm import BiLstm
from t2i_jax.encoders.damsm_image import DamsmImage, check_trunk, installed
from t2i_jax.encoders.word_sum import WordSum
from t2i_jax.layers.pairs import LEAVE_OUT, found_own, matching_advice, not_wrong
from t2i_jax.losses import sentence_loss, sentence_scores, word_attention, word_scores, words_loss
from t2i_jax.runtime.errors import RunError, choose
from t2i_jax.stage import Phase, Stage


# ------------------------------------------------------------- matching pictures with captions
class CommonSpace(NamedTuple):
    """Pictures and captions in the common space."""

    # b r d
    regions: Any
    # b d, of the whole picture
    code: Any
    # b t d, zeros at padding
    words: Any
    # b d
    sentence: Any


class Matching(Stage):
    """A stage with the DAMSM's losses; its keywords belong to every subclass."""

    def __init__(
        self,
        meta,
        *,
        gamma1=5.0,
        gamma2=5.0,
        gamma3=10.0,
        gamma2_root=False,
        leave_out='class',
    ):
        """Check and store the keywords; `compared` holds the batch keys that the losses need.

        gamma1, gamma2, gamma3: see the formulas; gamma1 is 4 in the official code.
        gamma2_root: R is divided by gamma2; the code, and all systems after it, leave that out.
        leave_out: see `not_wrong`; 'class' does nothing where the data have no classes.
        """
        if meta.captions != 1:
            raise ValueError(
                f'{type(self).__name__} reads one caption of a picture, the data give '
                f'{meta.captions}: set data.captions=1.'
            )
        self.leave_out = choose('leave_out', leave_out, LEAVE_OUT)
        self.gammas = dict(gamma1=gamma1, gamma2=gamma2, root=gamma2_root)
        self.gamma3 = gamma3
        self.compared = LEAVE_OUT[leave_out] if leave_out != 'class' or meta.classes else ()

    def matching_losses(self, codes, batch):
        """Compute (L_w, L_s) of the pairs of a batch. codes: CommonSpace"""
        length, leave_out = batch['length'], not_wrong(batch, self.leave_out)
        others = dict(gamma3=self.gamma3, leave_out=leave_out)
        by_words = words_loss(codes.regions, codes.words, length, **self.gammas, **others)
        by_sentence = sentence_loss(codes.code, codes.sentence, present=length > 0, **others)
        return by_words, by_sentence

    def pair_scores(self, pictures, captions, length):
        """Return R of each caption and each picture. pictures, captions: CommonSpace"""
        return {'words': word_scores(pictures.regions, captions.words, length, **self.gammas)}


# --------------------------------------------------------------------------------------- stage
class Damsm(Matching):
    """Trains the text and the image encoder on the pairs of a batch."""

    phases = (Phase('loss', trains=('text', 'image')),)
    makes, explores = ('codes',), {'attention': 'attend'}
    # in STAGES, for messages
    called = 'damsm'
    tiny = dict(d=32, embedding=16, trunk='small', channels=(8, 16))
    advice = matching_advice('damsm')

    def __init__(
        self,
        meta,
        *,
        text='lstm',
        d=256,
        embedding=300,
        dropout=0.5,
        two_biases=False,
        trunk='inception',
        weights='',
        resize='corners',
        channels=(64, 128, 256, 256),
        places=False,
        rngs,
        **matching,
    ):
        """Build both encoders.

        text: 'lstm', or (ours) 'words', a vector of each word alone, and their sum (WordSum).
        d: of words and sentences.
        embedding, dropout, two_biases: of BiLstm.
        trunk, weights, resize, channels, places: of DamsmImage; 'efficientnet_lite0' takes the
            weights of its package where none are named.
        matching: of Matching.
        Raises ValueError for wrong values.
        """
        super().__init__(meta, **matching)
        if not meta.nominal:
            weights = weights or installed(trunk)
        if choose('text', text, ('lstm', 'words')) == 'words':
            self.text = WordSum(meta.vocabulary_size, d, rngs=rngs)
        else:
            self.text = BiLstm(
                meta.vocabulary_size,
                d,
                embedding=embedding,
                dropout=dropout,
                two_biases=two_biases,
                rngs=rngs,
            )
        self.image = DamsmImage(
            meta.size,
            d,
            trunk=trunk,
            weights=weights,
            resize=resize,
            channels=channels,
            places=places,
            rngs=rngs,
        )
        self.needs = ('image', *self.text.reads, *self.compared)

    @classmethod
    def check(cls, model):
        check_trunk(cls.called, model['trunk'], model['weights'])

    def pictures(self, batch):
        """Return what the image encoder reads, b s s 3."""
        return batch['image']

    def codes(self, batch, key=None) -> CommonSpace:
        """Encode the pictures and captions of a batch; key: of the dropout, in training."""
        words, sentence = self.text(batch['tokens'], batch['length'], train=self.training, key=key)
        regions, code = self.image(self.pictures(batch), train=self.training)
        return CommonSpace(regions, code, words, sentence)

    def loss(self, batch, key, out):
        return self.loss_of(self.codes(batch, key), batch)

    def loss_of(self, codes, batch):
        """Compute L and what is reported with it. codes: CommonSpace"""
        length, b = batch['length'], len(batch['length'])
        if b < 2:
            raise RunError(
                'DAMSM compares the pairs of a batch, and a batch of 1 has no wrong ones: '
                f'set stages.{self.called}.batch_size to 2 or more.'
            )
        by_words, by_sentence = self.matching_losses(codes, batch)
        leave_out = not_wrong(batch, self.leave_out)
        scores = sentence_scores(codes.code, codes.sentence)
        return by_words + by_sentence, {
            'words': by_words,
            'sentences': by_sentence,
            'top1': found_own(scores, leave_out),
            'without_words': (length == 0).sum().astype(jnp.float32),
        }

    def scores(self, batch):
        """Score how well each caption of a batch fits each picture, by R and by cosines.

        -> {'words', 'sentences'}, both (pictures, captions)
        """
        codes = self.codes(batch)
        cosines = sentence_scores(codes.code, codes.sentence)
        return self.pair_scores(codes, codes, batch['length']) | {'sentences': cosines}

    def attend(self, batch):
        """Compute where each word of a caption looks in its picture: b t h w.

        Maps sum to 1, and are zeros at padding.
        """
        codes, gamma1 = self.codes(batch), self.gammas['gamma1']
        maps = word_attention(codes.regions, codes.words, batch['length'], gamma1=gamma1)
        return rearrange(maps, 'b t (h w) -> b t h w', h=self.image.side)


STAGES = {'damsm': Damsm}
