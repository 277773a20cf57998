"""DAMSM, the deep attentional multimodal similarity model: AttnGAN, Xu, Zhang, Huang, Zhang, Gan, Huang, He, CVPR 2018, section 3.2.

A caption becomes a vector for each word and one for the sentence (bi-LSTM), a picture a vector for each region and one for the whole (heads on a
convolutional network), all in one space. Each word gathers from a picture the regions that it fits; a caption fits a picture if its words are
alike to what they gathered. Trained so that within a batch every picture finds its caption and every caption its picture. Afterwards the text
encoder feeds the generator of AttnGAN and its kin, both together judge what it draws, and rank captions for R-precision.

    s = word_k . region_r,  alpha_k = softmax over regions of (gamma1 softmax over words of s),  c_k = sum_r alpha_kr region_r
    R(picture, caption) = log sum_k exp(gamma2 cos(c_k, word_k));  the paper divides it by gamma2 (`gamma2_root`)
    L_w = CE(gamma3 R, own caption) + CE(gamma3 R^T, own picture),  L_s the same with cos(picture, sentence) instead of R
    L = L_w + L_s

In the softmax of a pair those of the batch that are not wrong either are left out: pictures of its class, or captions that are true of the picture.

Deviations: the ImageNet trunk stays in evaluation mode (the original's batch norm uses the batch's statistics and its running ones drift, which are then used
frozen); Adam is not begun afresh each epoch; one bias a gate of the LSTM unless `two_biases`; a caption without any known word counts as if its
pair were not there. Captions longer than `data.length` lose words at random in training, as in the original, and their last ones in evaluation.
Trunks that are not in the paper: see encoders/damsm_image.py.

Expected: each of the four cross-entropies starts near ln(batch), 3.87 for 48, and falls well below. The paper has no table of retrieval.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from einops import rearrange

from t2i_jax.encoders.bi_lstm import BiLstm
from t2i_jax.encoders.damsm_image import TRUNKS, DamsmImage, check_weights
from t2i_jax.encoders.efficientnet_lite import packaged_weights
from t2i_jax.losses import sentence_loss, sentence_scores, word_attention, word_scores, words_loss
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.runtime.sharding import everywhere
from t2i_jax.stage import Phase, Stage
from tfds_builders.facts import entails

LEAVE_OUT = {
    'class': ('label',),
    'entailment': ('facts', 'scene'),
    'none': (),
}  # what each kind reads


class Codes(NamedTuple):
    """Pictures and captions in the common space."""

    regions: Any  # b r d
    code: Any  # b d, of the whole picture
    words: Any  # b t d, zeros at padding
    sentence: Any  # b d


def not_wrong(batch, kind='class'):
    """Which captions are no wrong ones of which pictures: bool (pictures, captions), or None where nothing is known.

    kind: 'class', pairs of one class, where the batch has labels; 'entailment', all that a caption says is true of the picture (shape_scenes);
    'none'.
    """
    if kind == 'class' and 'label' in batch:
        return batch['label'][:, None] == everywhere(batch['label'])
    if kind == 'entailment':
        return entails(everywhere(batch['facts']), batch['scene'][:, None], jnp)
    return None


def installed(trunk):
    """The weights of a trunk that pip can install; '' for another, and where they are not: a stage that is trained does without."""
    try:
        return str(packaged_weights()) if trunk == 'efficientnet_lite0' else ''
    except DataError:
        return ''


class Damsm(Stage):
    phases = (Phase('loss', trains=('text', 'image')),)
    makes, explores = ('codes',), {'attention': 'attend'}
    tiny = dict(d=32, embedding=16, trunk='small', channels=(8, 16))
    advice = {
        'label': 'Set --config.stages.damsm.model.leave_out=none.',
        'facts': 'Set --config.stages.damsm.model.leave_out=class.',
        'scene': 'Set --config.stages.damsm.model.leave_out=class.',
    }

    def __init__(
        self,
        meta,
        *,
        d=256,
        embedding=300,
        dropout=0.5,
        two_biases=False,
        trunk='inception',
        weights='',
        resize='corners',
        channels=(64, 128, 256, 256),
        places=False,
        gamma1=5.0,
        gamma2=5.0,
        gamma3=10.0,
        gamma2_root=False,
        leave_out='class',
        rngs,
    ):
        """d, embedding, dropout, two_biases: of BiLstm. trunk to places: of DamsmImage; 'efficientnet_lite0' takes the weights of its package where
        none are named. gamma1 is 4 in the official code. gamma2_root: see the formulas; the code, and all systems after it, leave the root out.
        leave_out: see `not_wrong`; 'class' does nothing where the data have no classes. Raises ValueError for wrong values.
        """
        if leave_out not in LEAVE_OUT:
            raise ValueError(f'leave_out is {leave_out!r}; it is {", ".join(LEAVE_OUT)}.')
        if meta.captions != 1:
            raise ValueError(
                f'DAMSM reads one caption of a picture, the data give {meta.captions}: set data.captions=1.'
            )
        if not meta.nominal:
            weights = weights or installed(trunk)
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
        self.words = dict(gamma1=gamma1, gamma2=gamma2, root=gamma2_root)
        self.gamma3, self.leave_out = gamma3, leave_out
        reads = LEAVE_OUT[leave_out] if leave_out != 'class' or meta.classes else ()
        self.needs = ('image', 'tokens', 'length', *reads)

    @classmethod
    def check(cls, model):
        trunk, weights = model['trunk'], model['weights']
        if trunk == 'inception' and not weights:
            raise RunError(
                "InceptionV3's weights cannot be installed by pip: name torchvision's file, --config.stages.damsm.model.weights=<file>, or choose "
                'another trunk, --config.stages.damsm.model.trunk=efficientnet_lite0 or small.'
            )
        if trunk in TRUNKS:
            check_weights(trunk, weights or packaged_weights())

    def codes(self, batch, key=None) -> Codes:
        """Pictures and captions of a batch; key: of the dropout, in training."""
        words, sentence = self.text(batch['tokens'], batch['length'], train=self.training, key=key)
        regions, code = self.image(batch['image'], train=self.training)
        return Codes(regions, code, words, sentence)

    def loss(self, batch, key, out):
        length, leave_out, b = (
            batch['length'],
            not_wrong(batch, self.leave_out),
            len(batch['length']),
        )
        if b < 2:
            raise RunError(
                'DAMSM compares the pairs of a batch, and one pair has no wrong one beside it: set stages.damsm.batch_size to 2 or more.'
            )
        codes = self.codes(batch, key)
        by_words = words_loss(
            codes.regions,
            codes.words,
            length,
            gamma3=self.gamma3,
            leave_out=leave_out,
            **self.words,
        )
        by_sentence = sentence_loss(
            codes.code, codes.sentence, gamma3=self.gamma3, leave_out=leave_out, present=length > 0
        )
        others = (
            jnp.zeros((b, b), bool) if leave_out is None else leave_out & ~jnp.eye(b, dtype=bool)
        )
        scores = jnp.where(others, -jnp.inf, sentence_scores(codes.code, codes.sentence))
        return by_words + by_sentence, {
            'words': by_words,
            'sentences': by_sentence,
            'top1': (scores.argmax(1) == jnp.arange(b)).mean(),
            'without_words': (length == 0).sum().astype(jnp.float32),
        }

    def pair_scores(self, pictures, captions, length):
        """R of each caption and each picture. pictures, captions: their `codes`."""
        return {'words': word_scores(pictures.regions, captions.words, length, **self.words)}

    def scores(self, batch):
        """How well each caption of a batch fits each picture: {'words': R, 'sentences': cosines}, both (pictures, captions)."""
        codes = self.codes(batch)
        return {
            'words': word_scores(codes.regions, codes.words, batch['length'], **self.words),
            'sentences': sentence_scores(codes.code, codes.sentence),
        }

    def attend(self, batch):
        """What each word of a caption looks at in its picture: b t h w, sums to 1 over the map, zeros at padding."""
        codes = self.codes(batch)
        maps = word_attention(
            codes.regions, codes.words, batch['length'], gamma1=self.words['gamma1']
        )
        return rearrange(maps, 'b t (h w) -> b t h w', h=self.image.side)


STAGES = {'damsm': Damsm}
