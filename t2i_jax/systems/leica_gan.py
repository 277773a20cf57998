"""LeicaGAN: Learn, Imagine and Create, text-to-image generation from prior knowledge.

Qiao, Zhang, Xu, Tao, NeurIPS 2019.

Who draws from a description first recalls what such things look like and which shape they have.
Two pairs of encoders are learnt before, both DAMSMs of their own: text and pictures, for colours,
textures and what is shown, and text and foreground masks, for shapes and places. Their text
encoders are the two priors. The generator is MirrorGAN's GLAM. Its condition is drawn from both
sentence vectors, and each pixel attends to the words of both priors with the same weights W.

    Learn: words w, sentence s, regions v, code c of a picture or of its mask
    L_image = l1 L_DAMSM + l2 L_mod + l4 [T(v) + T(c)]              l = 1, 4, -, 1
    L_mask  = l1 L_DAMSM + l2 L_mod + l3 [CE(K c) + CE(K s)]        l = 1, 1, 1/2, -
    L_mod = mean of CE(M(R(c)), picture) and CE(M(R(s)), sentence)
    R(x) = x, its gradient times -r, r from 0 to 1 in `warmup` steps
    T(x) = mean of relu(|x_i - x_j| - |x_i - x_k| + margin),  classes: i as j, not as k
    Imagine: 1 of the pictures' prior, 2 of the masks'
    condition = CA([s1, s2]),  h_0 = F_0(condition, z)
    Create: context = (1 - phi) attention(h, w1) + phi attention(h, w2),  phi = .2
    h_i = F_i(W' [h_{i-1}, context, sentence attention(h_{i-1}, condition)])
    L_D, L_G: AttnGAN's with lambda 5; the DAMSM and D's sentences are those of the first prior

M: 256-128-64-2; K: a layer for the classes. Both serve this training alone.

Deviations: those of AttnGAN, MirrorGAN's generator and DAMSM. The released code (qiaott/LeicaGAN)
never uses the text-mask encoder: it asks the text-image encoder twice, so that both priors are
equal (`shape_prior='image'`; then the stage `mask` can be left out). Its targets of M are not the
modality, and its L_mod and class loss of the text-image encoder are commented out (l2 = 4 is in its
settings for birds; here it counts). Its class head squeezes logits by a sigmoid. Here M ends in a
softmax. Its triplets compare features of any length, of which the regions' 73,984 numbers outweigh
the rest; here they have length 1 (`unit_triplets`). It loads two more pictures for each triplet;
here all triplets of a batch count, which needs pictures of one class in it. A mask is one channel,
repeated, in [-1, 1]. The code's split of birds and flowers was never published: the usual one is
used. Its CA holds layers for one and for three encoders that nothing reads (`spare_layers`).

Sizes (birds and flowers): G 7,207,792, with the spare layers 7,618,192; M 41,282, K 51,400 for 200
classes.

Expected (paper, from memory): Inception Score 4.62 +- .06 birds, 3.92 +- .02 flowers. Its
R-precision, about .85, was measured on the pictures of 64 px by the encoder that taught G. Nothing
in the losses makes G take shapes from the second prior and the rest from the first, since both
read one sentence: --mode=explore --what=prior_swap shows what it does take.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.encoders.damsm_image import check_trunk
from t2i_jax.encoders.sentence import encode_words, scaled_to_unit
from t2i_jax.layers.linear import ORTHOGONAL, torch_linear
from t2i_jax.layers.pairs import matching_advice
from t2i_jax.runtime.errors import choose
from t2i_jax.runtime.sharding import everywhere
from t2i_jax.stage import Phase, unused
from t2i_jax.systems.damsm import Damsm
from t2i_jax.systems.mirrorgan import Glam, GlobalLocalGan, GlobalLocalStage

PRIORS = 'mask', 'image'


# ------------------------------------------------------------------------- learn: the two encoders
class DomainClassifier(nnx.Module):
    """Vectors b d -> logits b 2: are they of pictures (0) or of sentences (1)?

    `train=True` needs `key`, for the dropout.
    """

    def __init__(self, d, dropout=0.25, *, rngs):
        sizes = d, d // 2, d // 4, 2
        self.layers = nnx.List([torch_linear(*pair, rngs=rngs) for pair in zip(sizes, sizes[1:])])
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x, *, train, key=None):
        *hidden, last = self.layers
        for i, layer in enumerate(hidden):
            own = None if key is None else jax.random.fold_in(key, i)
            x = jax.nn.leaky_relu(layer(x), 0.01)
            x = self.dropout(x, deterministic=not train, rngs=own)
        return last(x).astype(jnp.float32)


def reversed_gradient(x, strength):
    """Return x, whose gradient is multiplied by -strength."""
    fixed = jax.lax.stop_gradient(x)
    return fixed - strength * (x - fixed)


def triplet_loss(vectors, label, margin, unit=True):
    """Compute T of the vectors b ... of pictures of these classes: scalar, 0 without a triplet.

    unit: scale vectors to length 1.
    """
    x = rearrange(vectors, 'b ... -> b (...)').astype(jnp.float32)
    if unit:
        x = x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))
    others, squares = everywhere(x), jnp.square(x).sum(-1)
    products = jnp.einsum('id,jd->ij', x, others, precision=jax.lax.Precision.HIGHEST)
    squared = squares[:, None] + everywhere(squares) - 2 * products
    distance = jnp.sqrt(jnp.maximum(squared, 1e-12))
    alike = label[:, None] == everywhere(label)
    pairs = alike & ~jnp.eye(len(x), dtype=bool)
    which = pairs[:, :, None] & ~alike[:, None, :]  # i j k
    losses = jax.nn.relu(distance[:, :, None] - distance[:, None, :] + margin)
    return jnp.where(which, losses, 0).sum() / jnp.maximum(which.sum(), 1)


class TextImage(Damsm):
    """Trains a text and an image encoder whose vectors tell neither the modality nor each other.

    Of the text-image prior; `TextMask` is the other one.
    """

    called = 'image'
    advice = matching_advice('image') | {
        'label': 'Set --config.stages.image.model.triplet_weight=0 and .leave_out=none.'
    }

    def __init__(
        self,
        meta,
        *,
        damsm_weight=1.0,
        modality_weight=4.0,
        class_weight=0.0,
        triplet_weight=1.0,
        warmup=2000,
        margin=1.0,
        unit_triplets=True,
        unit_modality=False,
        rngs,
        **others,
    ):
        """Build the encoders, and M and K where their losses count.

        damsm_weight, modality_weight, class_weight, triplet_weight: l1, l2, l3, l4.
        warmup: steps until the encoders get the whole reversed gradient (ours).
        margin, unit_triplets: of `triplet_loss`.
        unit_modality: M reads vectors of a mean square of 1 (ours); the matching losses leave their
            lengths free, and M reads the modality off them.
        others: of Damsm.
        Raises ValueError where there are no classes to be compared.
        """
        super().__init__(meta, rngs=rngs, **others)
        self.damsm_weight, self.modality_weight = damsm_weight, modality_weight
        self.class_weight, self.triplet_weight = class_weight, triplet_weight
        self.warmup, self.margin, self.unit_triplets = warmup, margin, unit_triplets
        self.unit_modality = unit_modality
        if (class_weight or triplet_weight) and not meta.classes:
            raise ValueError(
                f'{meta.name} has no classes, which the class loss and the triplets compare: set '
                f'stages.{self.called}.model.class_weight=0 and .triplet_weight=0.'
            )
        trains = ['text', 'image']
        if modality_weight:
            self.modality = DomainClassifier(self.text.d, rngs=rngs)
            trains.append('modality')
        if class_weight:
            self.classes = torch_linear(self.text.d, meta.classes, rngs=rngs)
            trains.append('classes')
        self.phases = (Phase('loss', trains=tuple(trains)),)
        if class_weight or triplet_weight:
            self.needs = tuple(dict.fromkeys([*self.needs, 'label']))

    @classmethod
    def check(cls, model):
        check_trunk(cls.called, model['trunk'], model['weights'])

    def loss(self, batch, key, out):
        text_key, dropout_key = jax.random.split(key)
        codes = self.codes(batch, text_key)
        damsm, logs = self.loss_of(codes, batch)
        loss = self.damsm_weight * damsm
        if self.modality_weight:
            warm = self.training and self.warmup
            strength = jnp.minimum(batch['step'] / self.warmup, 1.0) if warm else 1.0
            logs['modality'], right = self.told_apart(codes, strength, dropout_key)
            logs['domain_accuracy'] = right.mean()
            loss += self.modality_weight * logs['modality']
        if self.class_weight:
            logs['class'] = sum(
                optax.softmax_cross_entropy_with_integer_labels(
                    self.classes(x).astype(jnp.float32), batch['label']
                ).mean()
                for x in (codes.code, codes.sentence)
            )
            loss += self.class_weight * logs['class']
        if self.triplet_weight:
            logs['triplets'] = sum(
                triplet_loss(x, batch['label'], self.margin, self.unit_triplets)
                for x in (codes.regions, codes.code)
            )
            loss += self.triplet_weight * logs['triplets']
        return loss, logs

    def told_apart(self, codes, strength=1.0, key=None):
        """Ask M of which modality the vectors of a batch are. codes: CommonSpace

        -> (L_mod, float32 b: the share of each row's two vectors that M gets right)
        """
        vectors = rearrange([codes.code, codes.sentence], 'k b d -> b k d')
        vectors = scaled_to_unit(vectors) if self.unit_modality else vectors
        vectors = reversed_gradient(vectors, strength)
        logits = self.modality(vectors, train=self.training, key=key)  # b 2 2
        kinds = repeat(jnp.arange(2), 'k -> b k', b=len(logits))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, kinds)
        return losses.mean(), jnp.float32(logits.argmax(-1) == kinds).mean(-1)

    def measure(self, batch, key):
        """Return how often M tells pictures from sentences; 1/2 where the space is common."""
        if not self.modality_weight:
            return {}
        return {'domain_accuracy': self.told_apart(self.codes(batch))[1]}


class TextMask(TextImage):
    """Trains a text encoder and one of foreground masks, of the text-mask prior."""

    called = 'mask'
    advice = matching_advice('mask') | {
        'label': 'Set --config.stages.mask.model.class_weight=0 and .leave_out=none.',
        'mask': 'Masks of birds and flowers are in --config.data.name=cub200_captions/masks and '
        'flowers102_captions/masks; without them: --config.stages.mask.epochs=0 '
        '--config.stages.gan.model.shape_prior=image.',
    }

    def __init__(
        self,
        meta,
        *,
        modality_weight=1.0,
        class_weight=0.5,
        triplet_weight=0.0,
        rngs,
        **others,
    ):
        """Build the encoders, see TextImage."""
        weights = dict(class_weight=class_weight, triplet_weight=triplet_weight)
        super().__init__(meta, modality_weight=modality_weight, rngs=rngs, **weights, **others)
        self.needs = tuple('mask' if name == 'image' else name for name in self.needs)

    @classmethod
    def skip(cls, config):
        return unused(config, 'mask')

    def pictures(self, batch):
        return repeat(2 * batch['mask'] - 1, 'b h w 1 -> b h w c', c=3)


# ---------------------------------------------------------------------- imagine and create: drawing
class Priors(NamedTuple):
    """Sentences as both text encoders read them: those of the text-image encoder come first."""

    # b t d, 0 at padding
    words: Any
    # b d
    sentence: Any
    # b t float32, 0 at padding
    mask: Any
    # of the text-mask encoder, a WordsAndSentence
    form: Any
    # b, how much its words weigh
    phi: Any


class TwoLooks(NamedTuple):
    """Which words the pixels of a map looked at, b s s t, of each prior."""

    own: Any
    form: Any


class PriorStage(GlobalLocalStage):
    """A map b s s c, the words of both priors, the condition b n -> (b 2s 2s c', TwoLooks)."""

    def __call__(self, x, own, form, phi, condition, *, train):
        """own, form: (words b t d, mask b t). phi: b"""
        (first, beta), (second, other) = (self.attention(x, *words) for words in (own, form))
        phi = phi[:, None, None, None].astype(first.dtype)
        context = (1 - phi) * first + phi * second
        x = jnp.concatenate([x, context, self.sentence(x, condition)], -1)  # b s s 3c
        return self.refine(self.fuse(x), train=train), TwoLooks(beta, other)


class PriorGenerator(Glam):
    """MirrorGAN's generator that reads two priors."""

    sentences = 2

    def __init__(self, sides, d, gf, nz, nc, *others, spare_layers, softmax, rngs):
        super().__init__(sides, d, gf, nz, nc, *others, softmax=softmax, rngs=rngs)
        if spare_layers:
            self.spare = nnx.List(
                [nnx.Linear(n * d, 4 * nc, kernel_init=ORTHOGONAL, rngs=rngs) for n in (1, 3)]
            )

    def next_stage(self, d, *sizes, rngs):
        return PriorStage(d, self.nc, *sizes, self.softmax, rngs=rngs)

    def condition(self, text, eps):
        return self.ca(jnp.concatenate([text.sentence, text.form.sentence], -1), eps)

    def grow(self, i, x, text, condition, *, train):
        own, form = self.words_of(i, text), self.words_of(i, text.form)
        x, looks = self.next[i](x, own, form, text.phi, condition, train=train)
        return x, looks if i < self.attention_count else None


# --------------------------------------------------------------------------------------- stage
class LeicaGan(GlobalLocalGan):
    """Trains the generator and a discriminator for each side."""

    loads = {'text': 'image.text', 'image': 'image.image', 'mask_text': 'mask.text'}
    judges, advice = ('image',), matching_advice('gan')
    explores = GlobalLocalGan.explores | {'prior_swap': 'swapped', 'phi': 'weighed'}

    def __init__(
        self, meta, *, phi=0.2, shape_prior='mask', spare_layers=False, mask_text, rngs, **others
    ):
        """Build the generator and the discriminators.

        phi: how much the words of the second prior weigh, 0 to 1.
        shape_prior: the encoder of the second prior, 'mask', or as in the released code 'image',
            the one of the first.
        spare_layers: as in the released code, G holds layers that nothing reads.
        mask_text: the trained text encoder of masks, None where the stage `mask` is left out.
        others: of GlobalLocalGan.
        Raises ValueError for sizes that do not fit, and for a missing encoder.
        """
        if not 0 <= phi <= 1:
            raise ValueError(f'phi={phi:g} is a share: set it to 0 to 1.')
        self.phi, self.spare_layers = phi, spare_layers
        choose('shape_prior', shape_prior, PRIORS)
        super().__init__(meta, rngs=rngs, **others)
        if shape_prior == 'image':
            mask_text = None
        elif mask_text is None:
            raise ValueError(
                "shape_prior='mask' needs the text-mask encoder: give stages.mask steps, or set "
                "shape_prior='image'."
            )
        elif mask_text.d != self.text.d:
            raise ValueError(
                f'The text-image encoder has words of {self.text.d} dimensions, the text-mask '
                f'encoder of {mask_text.d}: set d of stages.image and stages.mask to one number.'
            )
        self.mask_text = mask_text

    def generator(self, *sizes, rngs):
        more = dict(spare_layers=self.spare_layers, softmax=self.sent_softmax)
        return PriorGenerator(*sizes, **more, rngs=rngs)

    def encode(self, batch, prefix='') -> Priors:
        if 'encoded' in batch and not prefix:
            return batch['encoded']
        own = super().encode(batch, prefix)
        form = own
        if self.mask_text:
            form = encode_words(self.mask_text, batch, unit=self.unit_text, prefix=prefix)
        return Priors(*own, form, jnp.full(len(own.mask), self.phi, jnp.float32))

    def sample(self, batch, noise):
        """-> {'image', 'images', 'attention'}

        attention: of each map that looked at words, from the smallest on, which word of the first
        prior its pixels looked at, b s s t; then the same of the second prior.
        """
        made = super().sample(batch, noise)
        looks = made.get('attention', ())
        return made | {'attention': [*(x.own for x in looks), *(x.form for x in looks)]}

    # --------------------------------------------------------------------------- explorations
    @staticmethod
    def swapped(text: Priors, other: Priors) -> Priors:
        """Return sentences whose second prior is that of other ones."""
        return text._replace(form=other.form)

    @staticmethod
    def weighed(text: Priors, phi) -> Priors:
        """Return sentences drawn with other phi. phi: (n,)"""
        return text._replace(phi=np.asarray(phi, np.float32))


# in the order of training
STAGES = {'image': TextImage, 'mask': TextMask, 'gan': LeicaGan}
