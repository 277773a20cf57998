"""Obj-GAN: Object-driven Text-to-Image Synthesis via Adversarial Training.

Li, Zhang, Zhang, Huang, He, Lyu, Gao, CVPR 2019 (arXiv 1902.10740).

Boxes and shapes come from the words, as in Hong et al. (CVPR 2018); AttnGAN's generator then paints
them. Each object looks for the words that speak of its label, and what it finds is laid into its
shape, so that two objects of a picture can have two colours. Discriminators judge patches, the
shapes of a picture, and each object within its box. Stages: damsm, box, shape, image.

    box    Hong et al.'s chain of labels and boxes, by an LSTM that looks at the words
           before each object: a_t = softmax over words of v . tanh(W [h_(t-1) ; e_t])
           L_box = -mean_t w(l_t) log p(l_t) - mean_t log p(xy_t) p(w_t, h_t / w_t)
    shape  as Hong et al. (weights 1, 1, 10), with gated units
    image  object r: beta_rt = softmax over t of label_r . word_t (vectors of both: GloVe),
           o_r = sum_t beta_rt V e_t;  O, L: o_r and label_r in every pixel of the object's mask
           h_1 = F_1(Hmap, S(c, z), O, L),  h_i = F_i(h_(i-1) + Hmap, G, O, L), Hmap from the
           classes of pixels, G AttnGAN's attention of pixels to words
           u: is it real,  m: does it match (of an object: its label and o_r)
           patch   L_D = (u(x) + .1 m(x, s)) / 2 + (u(G) + .1 m(G, s) + .1 m(x, s')) / 3
           shape   L_D = u(x, M) + (u(G, M) + u(x, M')) / 2
           object  L_D = (u(x) + m(x)) / 2 + (u(G) + m(G) + m(x, label') + m(x, M')) / 4
           L_G = sum_i [u + .1 m](patch_i) + u(shape_i) + .1 [u + m](small) + .1 [u + m](large)
                 + 100 (L_words + L_sentence)(G_last) + KL
           each letter stands for a cross-entropy with what it should be; s' the sentence of another
           picture, M' the picture's classes exchanged, label' another object's label and words

From the released code (jamesli1618/Obj-GAN): all sizes, the losses and their weights; from the
paper the dot product and the attention of boxes, which the release switches off. Deviations, which
mend the code: log-probabilities in the loss of labels, whose weights have a mean of 1; the tanh,
without which attention would not depend on h; the size of a box knows its own place; no box at the
end; the LSTM's cell starts at 0; the box is masked at full size, too. RoIAlign reads where the box
is (its code reads the upper left sixteenth); every object is judged by one of the two (`small`
below .4 of the frame, else `large`; in the code those between .25 and .5 by none); pairs that are
wrong by their layout have the right rows; an object's vectors are averaged where several overlap.
`legacy` has these as the code does: RoIAlign, sizes, the largest of several, AttnGAN's padding
mask. Masks are cut at 1/2, in training as in sampling. Phi is VGG16 (VGG19 with batch norm in the
code); objects whose box has a side below 1/32 are left out. `game`, of the patches, is ours.

Expected (paper; COCO): Inception Score 27.37 +- .28, FID 25.85, R-precision 86.20 % with everything
inferred; 29.89, 20.75 and 91.05 % with true boxes and masks. Two objects of one class look for the
same words and cannot have two colours.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from t2i_jax.encoders.pretrained import bilinear
from t2i_jax.encoders.sentence import WORDS, encode_words
from t2i_jax.encoders.word_vectors import label_ids, require_vectors, word_vectors
from t2i_jax.layers.attention import WordAttention, looked_at
from t2i_jax.layers.box_decoder import BoxDecoder, Scale
from t2i_jax.layers.conditioning import ConditioningAugmentation
from t2i_jax.layers.conv import Conv, conv3_beside, levels, operands
from t2i_jax.layers.game import GAME, PLAIN, Game, Seen, Wrong, mean_logs
from t2i_jax.layers.glu import ToImage, UpGlu, conv3
from t2i_jax.layers.linear import ORTHOGONAL, lrelu, uniform, uniform_linear
from t2i_jax.layers.mixture import MixtureHead
from t2i_jax.layers.norm import NORMS, BatchNorm, Running, instance_norm, separately
from t2i_jax.layers.objects import class_maps, mean_of, objects_of, other_classes, resized, rows_of
from t2i_jax.layers.pairs import matching_advice
from t2i_jax.layers.recurrent import Lstm
from t2i_jax.layers.remat import recomputed
from t2i_jax.layers.roi import roi_align
from t2i_jax.losses import bce, bce_per_row, conditioning_kl, mismatched
from t2i_jax.runtime.errors import RunError, choose
from t2i_jax.stage import Phase, normal_rows
from t2i_jax.systems import hierarchical_layout
from t2i_jax.systems.attngan import AttnGan
from t2i_jax.systems.damsm import Damsm, Matching
from t2i_jax.systems.hierarchical_layout import LayoutStage, bce_per_object
from t2i_jax.systems.stackgan_pp import pyramid, tree_sides

# of the projected numbers of a box, and of channels that a discriminator reads of class maps
PROJECTED, LOOKED = 50, 12
ATTENTIONS = 'dot', 'cosine', 'uniform'
VECTORS = 'glove', 'damsm'
# in the released code small objects are below the first number, large ones above the second
LEGACY_SIZES = 0.25, 0.5


# -------------------------------------------------------------------------------- box generator
class LabelCounts(nnx.Module):
    """How often labels are met in training: sums over layouts, and over those with the label."""

    def __init__(self, classes):
        zeros = jnp.zeros(classes)
        self.layouts = Running(jnp.zeros(()))
        self.scenes, self.objects, self.squares = (Running(zeros) for _ in range(3))

    def observe(self, objects):
        n = objects.named(self.scenes.shape[0]).sum(1)  # b classes
        self.layouts[...] = self.layouts[...] + len(n)
        for total, now in ((self.scenes, n > 0), (self.objects, n), (self.squares, n**2)):
            total[...] = total[...] + now.sum(0)

    def weights(self, power):
        """Return count^-power of labels and the end, whose mean over all labels met is 1."""
        counts = jnp.maximum(jnp.append(self.objects[...], self.layouts[...]), 1)
        weights = counts**-power
        return weights * counts.sum() / (counts * weights).sum()

    def most(self, eps):
        """Draw how many objects of a class a layout has at most: eps b classes -> b classes.

        max(2, floor N(mu, sigma)), mu and sigma of training scenes with the class.
        """
        scenes = jnp.maximum(self.scenes[...], 1)
        mean = self.objects[...] / scenes
        deviation = jnp.sqrt(jnp.maximum(self.squares[...] / scenes - mean**2, 0))
        return jnp.maximum(jnp.floor(mean + deviation * eps), 2)


class WordBoxes(BoxDecoder):
    """Words and sentences -> labels and boxes; the state is as wide as a sentence vector."""

    def __init__(self, classes, d, components, attention, limit, temperatures, *, rngs):
        """limit: whether no class has more objects than in training."""
        c = classes + 1
        self.classes, self.temperatures, self.limit = classes, temperatures, limit
        self.scale, self.counts = Scale('ratio'), LabelCounts(classes)

        def dense(a, b, use_bias=True):
            return uniform_linear(a, b, 0.08, use_bias=use_bias, rngs=rngs)

        self.say = dense(c, d, use_bias=False)
        self.place, self.size, self.here = (dense(2, PROJECTED) for _ in range(3))
        self.match = dense(2 * d, d) if attention else None
        self.score = dense(d, 1, use_bias=False) if attention else None
        width = 2 * PROJECTED + (2 * d if attention else d)
        self.lstm = Lstm(width, d, input_limit=0.08, rngs=rngs)
        self.labels = dense(d, c)
        self.places, self.sizes = (
            MixtureHead(d + c + more, components, start=uniform(0.08), rngs=rngs)
            for more in (0, PROJECTED)
        )

    def start(self, text):
        return text.sentence, jnp.zeros_like(text.sentence)

    def attend(self, h, text):
        """Compute how much a state looks at each word: b d -> b t."""
        words = text.words
        both = jnp.concatenate([jnp.broadcast_to(h[:, None], words.shape), words], -1)
        scores = self.score(jnp.tanh(self.match(both)))[..., 0].astype(jnp.float32)
        return jax.nn.softmax(jnp.where(text.mask > 0, scores, -1e9), -1)

    def step(self, state, label, code, text):
        seen = [self.say(label), self.place(code[:, :2]), self.size(code[:, 2:])]
        if self.match:
            seen.append(jnp.einsum('bt,btd->bd', self.attend(state[0], text), text.words))
        gates = self.lstm.input(jnp.concatenate(seen, -1))
        return self.lstm.step(state, gates, jnp.ones(len(label), bool))

    def label(self, h):
        return self.labels(h)

    def xy(self, h, label):
        return self.places(h, label)

    def wh(self, h, label, xy):
        return self.sizes(h, label, self.here(xy))

    def log_densities(self, text, objects, train=False):
        if train:
            self.counts.observe(objects)
        return super().log_densities(text, objects, train)

    def noise(self, key, n, rows):
        eps = normal_rows(jax.random.fold_in(key, 7), n, (self.classes,))
        return super().noise(key, n, rows) | ({'count_eps': eps} if self.limit else {})

    def draw(self, text, noise, *temperatures):
        objects = super().draw(text, noise, *temperatures)
        if not self.limit:
            return objects
        named = objects.named(self.classes)  # b r classes
        number = (named.cumsum(1) * named).sum(-1)
        most = jnp.einsum('brc,bc->br', named, self.counts.most(noise['count_eps']))
        labels = jnp.where(number <= most, objects.labels, -1)
        return objects_of(objects.boxes, labels, rows=labels.shape[1])


# ------------------------------------------------------------------------------ image generator
class Text(NamedTuple):
    """Sentences as objects and pixels read them."""

    # b t d, 0 at padding
    words: Any
    # b d
    sentence: Any
    # b t float32, 0 at padding
    mask: Any
    # of words, as they are compared with labels, b t n
    vectors: Any


class ObjectLayout(NamedTuple):
    """Objects as the generator reads them."""

    # of classes, b 64 64 C
    maps: Any
    # of objects, b 64 64 r
    masks: Any
    # of labels, b r n
    vectors: Any


class ObjectPictures(NamedTuple):
    """The generator's pass over a batch."""

    # from the smallest to the largest, b s s 3
    images: Any
    text: Any
    # of each map that looked at words, b s s t, and of objects, b r t
    attention: Any
    of_objects: Any
    # what discriminators of objects compare them with, label and words, b r n+g
    conditions: Any
    # b nc
    mu: Any
    logvar: Any


class ReflectConv(Conv):
    """A 3x3 convolution whose border mirrors the map. b h w c -> b h w d"""

    def __init__(self, c, d, bias=False, *, rngs):
        super().__init__(c, d, 3, kernel_init=ORTHOGONAL, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(d)) if bias else None

    def __call__(self, x):
        y = super().__call__(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect'))
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


class MapResidual(nnx.Module):
    """x + [3x3, instance norm, GLU, 3x3, instance norm](x). b h w c -> b h w c"""

    def __init__(self, c, *, rngs):
        self.convs = nnx.List([ReflectConv(c, d, rngs=rngs) for d in (2 * c, c)])

    @recomputed
    def __call__(self, x, *, train):
        y = jax.nn.glu(instance_norm(self.convs[0](x)))
        return x + instance_norm(self.convs[1](y))


class Hmap(nnx.Module):
    """What is where: class maps b s s C -> b s/2 s/2 g."""

    def __init__(self, classes, g, *, rngs):
        self.first = ReflectConv(classes, g // 2, bias=True, rngs=rngs)
        self.down = Conv(g // 2, g, 3, stride=2, padding=1, kernel_init=ORTHOGONAL, rngs=rngs)

    def __call__(self, maps):
        return lrelu(self.down(lrelu(instance_norm(self.first(maps)))))


class Start(nnx.Module):
    """A vector b n -> the first map b s s c, from 8 x 8 pixels on (4 x 4 where s = 4)."""

    def __init__(self, n, c, side, *, rngs):
        self.base = min(8, side)
        count = (side // self.base).bit_length() - 1
        wide = 2 * self.base**2 * (c << count)
        self.first = nnx.Linear(n, wide, use_bias=False, kernel_init=ORTHOGONAL, rngs=rngs)
        self.norm = BatchNorm(wide, rngs=rngs)
        widths = [c << i for i in reversed(range(count + 1))]
        self.ups = nnx.List([UpGlu(*pair, rngs=rngs) for pair in zip(widths, widths[1:])])

    def __call__(self, x, *, train):
        x = jax.nn.glu(self.norm(self.first(x), train=train))
        x = rearrange(x, 'b (h w c) -> b h w c', h=self.base, w=self.base)
        for up in self.ups:
            x = up(x, train=train)
        return x


def object_attention(labels, words, mask, kind='dot', scale=1.0, mask_mode='fixed'):
    """Compute how much objects look at words: b r n, b t n, mask b t -> b r t, sums 1.

    kind: what is compared, the 'dot' product, the 'cosine', or nothing ('uniform'). scale: of it.
    """
    labels, words = labels.astype(jnp.float32), words.astype(jnp.float32)
    if choose('attention', kind, ATTENTIONS) == 'cosine':
        labels, words = (
            x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-8) for x in (labels, words)
        )
    scores = scale * jnp.einsum('brn,btn->brt', labels, words) * (kind != 'uniform')
    seen = looked_at(mask > 0, labels.shape[1], mask_mode)
    return jax.nn.softmax(jnp.where(seen, scores, -1e9), -1)


def spread(vectors, masks, largest=False):
    """Lay vectors of objects b r c into their masks b h w r -> b h w c, 0 where no object is.

    Where several overlap, their mean by the masks; or each number is the `largest` of mask times
    vector, which is never below 0 where any object is not.
    """
    if largest:
        each = (masks[..., i, None] * vectors[:, None, None, i] for i in range(vectors.shape[1]))
        first = next(each)
        for one in each:
            first = jnp.maximum(first, one)
        return first
    total = jnp.einsum('bhwr,brc->bhwc', masks, vectors)
    return total / jnp.maximum(masks.sum(-1, keepdims=True), 1)


class ObjectStage(nnx.Module):
    """One size of the generator: a map b s/2 s/2 g, and all that stands there -> b s s g.

    first: of the first one, whose pixels do not look at words.
    """

    def __init__(self, d, classes, g, n, residuals, first, mask_mode, *, rngs):
        c = 3 * g + n
        self.hmap = Hmap(classes, g, rngs=rngs)
        self.value = nnx.Linear(d, g, use_bias=False, kernel_init=ORTHOGONAL, rngs=rngs)
        self.attention = None if first else WordAttention(d, g, mask_mode, rngs=rngs)
        self.residuals = nnx.List([MapResidual(c, rngs=rngs) for _ in range(residuals)])
        self.up = UpGlu(c, g, rngs=rngs)

    def __call__(self, x, text, layout, looks, largest, *, train):
        """looks: of objects at words, b r t. -> (map, attention of pixels b s/2 s/2 t or None)"""
        side, beta = x.shape[1], None
        hmap = self.hmap(resized(layout.maps, 2 * side))
        vectors = jnp.concatenate([self.context(text, looks), layout.vectors], -1)
        objects = spread(vectors, resized(layout.masks, side), largest)  # b s/2 s/2 g+n
        if self.attention is None:
            seen = [hmap, x]
        else:
            context, beta = self.attention(x, text.words, text.mask > 0)
            seen = [x + hmap, context]
        x = jnp.concatenate([*seen, objects.astype(x.dtype)], -1)
        for block in self.residuals:
            x = block(x, train=train)
        return self.up(x, train=train), beta

    def context(self, text, looks):
        """Return what objects read of the words: b r g."""
        return jnp.einsum('brt,btg->brg', looks, self.value(text.words).astype(jnp.float32))


class ObjectGenerator(nnx.Module):
    """Text, layout and noise -> pictures of all sides.

    n: numbers of a label's vector. looks: keywords of `object_attention`.
    """

    def __init__(self, sides, d, classes, n, g, nz, nc, residuals, looks, largest, *, rngs):
        self.ca = ConditioningAugmentation(d, nc, kernel_init=ORTHOGONAL, rngs=rngs)
        self.first = Start(nc + nz, g, sides[0] // 2, rngs=rngs)
        blocks = [residuals[0]] + [residuals[1]] * (len(sides) - 1)
        self.stages = nnx.List(
            [
                ObjectStage(d, classes, g, n, count, not i, looks['mask_mode'], rngs=rngs)
                for i, count in enumerate(blocks)
            ]
        )
        self.to_images = nnx.List([ToImage(g, rngs=rngs) for _ in sides])
        self.nz, self.looks, self.largest = nz, looks, largest

    def noise(self, key, n):
        z_key, eps_key = jax.random.split(key)
        return {'z': normal_rows(z_key, n, (self.nz,)), 'eps': self.ca.noise(eps_key, n)}

    def look(self, text, vectors):
        """Compute how much labels b r n look at words: b r t."""
        return object_attention(vectors, text.vectors, text.mask, **self.looks)

    def conditions(self, text, vectors):
        """Return labels and what the last stage reads for them, b r n+g."""
        context = self.stages[-1].context(text, self.look(text, vectors))
        return jnp.concatenate([vectors, context], -1)

    def __call__(self, text, layout, z, eps, *, train):
        condition, mu, logvar = self.ca(text.sentence, eps)
        x = self.first(jnp.concatenate([condition, z], -1), train=train)  # b s/2 s/2 g
        looks, images, attention = self.look(text, layout.vectors), [], []
        for stage, to_image in zip(self.stages, self.to_images):
            x, beta = stage(x, text, layout, looks, self.largest, train=train)
            images.append(to_image(x))
            attention += [] if beta is None else [beta]
        conditions = self.conditions(text, layout.vectors)
        return ObjectPictures(images, text, attention, looks, conditions, mu, logvar)


# ------------------------------------------------------------------------------- discriminators
class Trunk(nnx.Module):
    """Pictures b s s c -> their map, halved by a convolution for each of some widths."""

    def __init__(self, c, widths, norm, *, rngs):
        self.convs = nnx.List(
            [
                Conv(a, b, 4, stride=2, padding=1, kernel_init=ORTHOGONAL, rngs=rngs)
                for a, b in zip((c, *widths), widths)
            ]
        )
        self.norms = nnx.List([norm(b, rngs=rngs) for b in widths[1:]])

    @recomputed
    def __call__(self, x, *, train):
        x = lrelu(self.convs[0](x))
        for conv, norm in zip(self.convs[1:], self.norms):
            x = lrelu(norm(conv(x), train=train))
        return x


class PatchHead(nnx.Module):
    """A map b h w c -> logits of its patches b n; with `vector`, whether they match b vector."""

    def __init__(self, c, vector=0, norm=BatchNorm, *, rngs):
        self.joint = conv3(vector + c, c, rngs=rngs) if vector else None
        self.norm = norm(c, rngs=rngs) if vector else None
        self.logit = Conv(c, 1, 4, stride=2, kernel_init=ORTHOGONAL, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(1))

    def __call__(self, x, vector=None, *, train, rows=None):
        """rows: which rows batch norm sees."""
        if self.joint:
            x = conv3_beside(*operands(self.joint, vector, x))
            x = lrelu(self.norm(x, train=train, rows=rows))
        return rearrange(self.logit(x).astype(jnp.float32) + self.bias[...], 'b h w 1 -> b (h w)')


def widths_of(side, d):
    """Return the widths that lead from a side to 4 x 4, the last four of d .. 8d at most."""
    return [d << i for i in range(4)][-min(4, levels(side, least=8)) :]


class PatchDiscriminator(nnx.Module):
    """Pictures of one side: are their patches real, and do they match a sentence?"""

    def __init__(self, side, d, embedding, norm, game=PLAIN, *, rngs):
        widths = widths_of(side, d)
        self.trunk = Trunk(3, widths, norm, rngs=rngs)
        self.real = PatchHead(8 * d, rngs=rngs)
        self.matching = PatchHead(8 * d, embedding, norm, rngs=rngs)
        self.extras = game.extras((side >> len(widths)) ** 2 * 8 * d, embedding, rngs=rngs)

    def match(self, code, sentence, *, train):
        logits = self.matching(code, sentence, train=train)
        return logits + self.extras(jnp.zeros(len(logits)), code, sentence)[:, None]


class ShapeDiscriminator(nnx.Module):
    """Pictures of one side with class maps: does the picture have these shapes? -> b n"""

    def __init__(self, side, classes, d, norm, *, rngs):
        self.look = ReflectConv(classes, LOOKED, bias=True, rngs=rngs)
        self.trunk = Trunk(3 + LOOKED, widths_of(side, d), norm, rngs=rngs)
        self.real = PatchHead(8 * d, rngs=rngs)

    def joined(self, image, maps):
        """Join pictures b s s 3 and what is seen of class maps b 64 64 C."""
        return joined(self.look, image, maps)

    def __call__(self, x, *, train):
        return self.real(self.trunk(x, train=train), train=train)


def joined(look, image, maps):
    """Join pictures b s s 3 and what a convolution sees of class maps b h h C -> b s s 3+12."""
    seen = lrelu(instance_norm(look(resized(maps, image.shape[1]))))
    return jnp.concatenate([image, seen.astype(image.dtype)], -1)


class ObjectDiscriminator(nnx.Module):
    """Objects in their boxes: are they real, and do they match labels and words?

    widths: of the trunk. condition: numbers of labels and words. zoom: pictures are enlarged.
    """

    def __init__(self, classes, widths, c, condition, zoom, legacy, norm, *, rngs):
        self.look = ReflectConv(classes, LOOKED, bias=True, rngs=rngs)
        self.trunk = Trunk(3 + LOOKED, widths, norm, rngs=rngs)
        self.each = Conv(widths[-1], c, 4, padding=1, kernel_init=ORTHOGONAL, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(c))
        self.real, self.matching = (
            PatchHead(c, vector, norm, rngs=rngs) for vector in (0, condition)
        )
        self.zoom, self.legacy = zoom, legacy

    def joined(self, image, maps):
        """Join pictures and class maps, enlarged."""
        x = joined(self.look, image, maps)
        return bilinear(x, self.zoom * x.shape[1], False).astype(image.dtype)

    def objects(self, maps, boxes):
        """Cut objects out of maps of the trunk: b h w c, b r 4 -> (b r) 4 4 c."""
        seen = rows_of(roi_align(maps, boxes, 5, self.legacy))
        return lrelu(self.each(seen) + self.bias[...].astype(seen.dtype))

    def match(self, objects, conditions, there, *, train):
        """Compute logits of objects (b r) 4 4 c with conditions b r n: b r."""
        rows = there.reshape(-1)
        logits = self.matching(objects, rows_of(conditions), train=train, rows=rows)
        return logits.reshape(there.shape)

    def free(self, objects, there, *, train):
        """Compute logits of objects alone: b r."""
        return self.real(objects, train=train).reshape(there.shape)


class Critics(nnx.Module):
    """All discriminators."""

    def __init__(self, sides, classes, d, embedding, condition, zoom, legacy, norm, game, *, rngs):
        self.patches = nnx.List(
            [PatchDiscriminator(side, d, embedding, norm, game, rngs=rngs) for side in sides]
        )
        self.layouts = nnx.List(
            [ShapeDiscriminator(side, classes, d, norm, rngs=rngs) for side in sides]
        )
        self.small, self.large = (
            ObjectDiscriminator(
                *(classes, [d << i for i in range(n)], 4 * d, condition, zoom, legacy, norm),
                rngs=rngs,
            )
            for n in (3, 4)
        )


def routed(objects, large=0.4, legacy=False):
    """Return which objects the discriminators of small and of large ones judge: bool b r each.

    large: from which width or height on an object is large.
    """
    side = objects.boxes[..., 2:].max(-1)
    if not legacy:
        return {
            'small': objects.there & (side < large),
            'large': objects.there & (side >= large),
        }
    low, high = LEGACY_SIZES
    small = (side >= 1.25 / 64) & (side < low)
    return {'small': objects.there & small, 'large': objects.there & (side >= high)}


def next_of(there):
    """Return for each of some rows the next that is there, after the last the first: b -> b."""
    rows = len(there)
    number = jnp.where(there, jnp.arange(rows), rows)
    # of itself or those that follow
    ahead = jax.lax.cummin(number, reverse=True)
    following = jnp.append(ahead[1:], rows)
    return jnp.where(following < rows, following, ahead[0]) % rows


# --------------------------------------------------------------------------------------- stages
class FromWords:
    """A stage of layouts that reads words: its `encode` gives a WordsAndSentence."""

    def encode(self, batch, prefix=''):
        return encode_words(self.text, batch, prefix=prefix)


class ObjGanBoxes(FromWords, hierarchical_layout.BoxStage):
    """Learns the labels and boxes of a sentence's objects."""

    loads = {'text': 'damsm.text'}
    tiny = dict(components=3)

    def __init__(
        self,
        meta,
        *,
        components=5,
        attention=True,
        order='area',
        label_weight=1.0,
        box_weight=1.0,
        label_power=0.8,
        class_limit=True,
        temperature=0.4,
        label_temperature=0.0,
        text,
        rngs,
    ):
        """Build the network.

        components: of each mixture.
        attention: whether the LSTM looks at words.
        order: of objects, as in hierarchical_layout.BoxStage.
        label_weight, box_weight: of the two terms.
        label_power: a label weighs count^-power in the loss.
        class_limit: a layout has no more objects of a class than scenes in training have.
        temperature, label_temperature: as in hierarchical_layout.BoxStage.
        text: the trained text encoder.
        """
        LayoutStage.__init__(self, meta, text, order)
        self.label_weight, self.box_weight = label_weight, box_weight
        self.label_power = label_power
        self.boxes = WordBoxes(
            self.classes,
            text.d,
            components,
            attention,
            class_limit,
            (temperature, label_temperature),
            rngs=rngs,
        )
        self.needs = ('boxes', 'object_labels', *WORDS)

    def box_loss(self, batch, key, out):
        labels, boxes, n = self.densities(batch)
        end = jnp.arange(labels.shape[1]) == n[:, None]
        named = jnp.pad(self.scene(batch).labels, ((0, 0), (0, 1)), constant_values=-1)
        weights = self.boxes.counts.weights(self.label_power)
        weights = weights[jnp.where(end, self.classes, named)]
        label = -((weights * labels).sum(1) / (n + 1)).mean()
        box = -(boxes.sum(1) / jnp.maximum(n, 1)).mean()
        loss = self.label_weight * label + self.box_weight * box
        return loss, {'label_nll': -(labels.sum(1) / (n + 1)).mean(), 'box_nll': box}


class ObjGanShapes(FromWords, hierarchical_layout.ShapeStage):
    """Learns the shapes of objects in their boxes; gated units, and the largest of all masks."""

    loads = {'text': 'damsm.text', 'picture': 'damsm.image', 'boxes': 'box.boxes'}

    def __init__(self, meta, *, activation='glu', union='max', **others):
        super().__init__(meta, activation=activation, union=union, **others)


class ObjGan(Matching, LayoutStage):
    """Paints layouts; learns from true ones."""

    phases = (Phase('d_loss', trains=('D',)), Phase('g_loss', trains=('G',)))
    ema, critics = ('G',), ('D', 'image')
    loads = {
        'text': 'damsm.text',
        'image': 'damsm.image',
        'boxes': 'box.boxes',
        'shapes': 'shape.shapes',
    }
    makes, takes = ('image', 'images', 'attention', 'boxes', 'masks'), ('layout',)
    truths = hierarchical_layout.ImageStage.truths
    judges, advice = ('damsm',), matching_advice('image')
    tiny = dict(
        scales=2,
        g=4,
        d=4,
        nz=8,
        nc=8,
        first_residuals=1,
        residuals=1,
        zoom=1,
        large=0.22,
        vectors='damsm',
    )
    check_encoders, damsm_losses = AttnGan.check_encoders, AttnGan.damsm_losses

    def __init__(
        self,
        meta,
        *,
        scales=3,
        g=48,
        d=96,
        nz=100,
        nc=100,
        first_residuals=7,
        residuals=3,
        vectors='glove',
        vectors_file='',
        vector_size=50,
        attention='dot',
        attention_scale=1.0,
        order='area',
        match_weight=0.1,
        shape_weight=1.0,
        object_weight=0.1,
        damsm_weight=100.0,
        kl_weight=1.0,
        zoom=2,
        large=0.4,
        wrong='shift',
        legacy=False,
        unit_text=False,
        d_norm='batch',
        game=GAME,
        text,
        image,
        boxes,
        shapes,
        rngs,
        **matching,
    ):
        """Build the generator and the discriminators.

        scales: pictures; the largest has the data's size, each other half the next.
        g, d: channels of the generator's maps, and of a discriminator's first.
        nz, nc: dimensions of z and of the condition.
        first_residuals, residuals: blocks of the first and of each other size.
        vectors: of words and labels where objects look for words, 'glove' or (ours) 'damsm', those
            that the DAMSM's text encoder reads.
        vectors_file, vector_size: of GloVe, see encoders/word_vectors.py.
        attention, attention_scale: of objects, see `object_attention`; the released code has
            'cosine'.
        order: of objects, as in BoxStage.
        match_weight: of m of patches in both losses.
        shape_weight, object_weight, damsm_weight, kl_weight: of terms of L_G; the DAMSM has no part
            in training where its weight is 0, discriminators of shapes and objects none in G's.
        zoom: how many times larger the discriminators of objects see the last picture.
        large: the width or height, of the frame, from which on an object counts as large (ours).
        wrong, unit_text, d_norm, game: as in AttnGan; game: of the patches.
        legacy: as the released code has it, see the head of this file.
        text, image, boxes, shapes: the trained networks.
        matching: of Matching.
        """
        Matching.__init__(self, meta, **matching)
        LayoutStage.__init__(self, meta, text, order)
        choose('d_norm', d_norm, NORMS)
        choose('attention', attention, ATTENTIONS)
        self.game = Game.of(game, self.leave_out)
        self.wrong, self.unit_text = choose('wrong', wrong, ('shift', 'sampled')), unit_text
        self.legacy, self.large, self.sides = legacy, large, tree_sides(meta.size, scales)
        self.image, self.boxes, self.shapes = image, boxes, shapes
        self.check_encoders(meta.size)
        if choose('vectors', vectors, VECTORS) == 'glove':
            self.vectors = word_vectors(meta, vectors_file, vector_size)
        else:
            self.vectors, self.label_ids = None, label_ids(meta)
            vector_size = text.embed.embedding.shape[-1]
        looks = dict(
            kind=attention, scale=attention_scale, mask_mode='original' if legacy else 'fixed'
        )
        sizes = g, nz, nc, (first_residuals, residuals)
        self.G = ObjectGenerator(
            self.sides, text.d, self.classes, vector_size, *sizes, looks, legacy, rngs=rngs
        )
        more = zoom, legacy, NORMS[d_norm], self.game
        self.D = Critics(self.sides, self.classes, d, text.d, vector_size + g, *more, rngs=rngs)
        self.game.prepare(self.D, rngs)
        self.sampler = self.game.sampler
        self.match_weight, self.shape_weight = match_weight, shape_weight
        self.object_weight, self.damsm_weight = object_weight, damsm_weight
        self.kl_weight = kl_weight
        self.taught_by = self.judges if damsm_weight else ()
        if scales == 1:
            self.makes = tuple(name for name in self.makes if name != 'attention')
        compared = self.compared if damsm_weight or any(self.game.contrast) else ()
        sampled = ('wrong_tokens',) if wrong == 'sampled' else ()
        layout = 'boxes', 'object_labels', 'object_masks'
        self.needs = ('image', *WORDS, *layout, *compared, *sampled)

    @classmethod
    def check(cls, model):
        if model['vectors'] == 'glove':
            require_vectors(model['vectors_file'], 'image')

    # --------------------------------------------------------------------------- text and layouts
    def encode(self, batch, prefix=''):
        """Return the Text of a batch's sentences (or of the `wrong_` ones)."""
        if 'encoded' in batch and not prefix:
            return batch['encoded']
        text = encode_words(self.text, batch, unit=self.unit_text, prefix=prefix)
        tokens = batch[prefix + 'tokens']
        vectors = (
            self.vectors.words[...][tokens] if self.vectors is not None else self.text.embed(tokens)
        )
        return Text(*text, vectors.astype(jnp.float32))

    def label_vectors(self, labels):
        """Return the vectors of labels b r: b r n, zeros where no object is."""
        if self.vectors is not None:
            table = self.vectors.labels[...]
        else:
            each = self.text.embed.embedding[...]
            zeros = jnp.zeros((1, each.shape[-1]))
            means = [each[jnp.array(ids)].mean(0) if ids else zeros[0] for ids in self.label_ids]
            table = jnp.stack(means)
        return jnp.where((labels >= 0)[..., None], table[jnp.maximum(labels, 0)], 0)

    def laid_out(self, objects, labels=None):
        """Return the ObjectLayout of objects; labels: others than theirs, b r."""
        labels = objects.labels if labels is None else labels
        masks = (objects.masks > 0.5).astype(jnp.float32)
        maps = class_maps(masks, labels, self.classes, 'sum' if self.legacy else 'max')
        masks = rearrange(masks, 'b r h w -> b h w r')
        return ObjectLayout(maps, masks, self.label_vectors(labels))

    def noise(self, key, n):
        keys = jax.random.split(key)
        return self.G.noise(keys[0], n) | self.layout_noise(keys[1], n)

    def forward(self, batch, key):
        objects, text, b = self.scene(batch), self.encode(batch), len(batch['image'])
        noise = self.game.tied(self.G.noise(key, b), b)
        out = self.G(text, self.laid_out(objects), **noise, train=True)
        # no loss reads the attention, and 256 px have hundreds of MB of it
        return out._replace(attention=())

    # ---------------------------------------------------------------------------------- losses
    def d_loss(self, batch, key, out):
        if len(batch['image']) < 2 and (self.wrong == 'shift' or self.damsm_weight):
            raise RunError(
                "Obj-GAN and its DAMSM take other rows' sentences for ones that do not match, and "
                'a batch of 1 has none: set stages.image.batch_size to 2 or more.'
            )
        self.game.begin(self.D)
        reals, objects = pyramid(batch, self.sides), self.scene(batch)
        logs, others = self.d_patches(batch, key, out, reals)
        labels, changed = other_classes(objects.labels, self.classes)
        layout, wrong = self.laid_out(objects), self.laid_out(objects, labels)
        for side, D, real, drawn in zip(self.sides, self.D.layouts, reals, out.images):
            pairs = (real, layout), (drawn, layout), (real, wrong)
            seen = [D.joined(image, one.maps) for image, one in pairs]
            right, fake, exchanged = separately(D, seen)
            not_it = bce(fake, 0.0)
            mixed = (not_it + mean_of(bce_per_row(exchanged, 0.0), changed)) / 2
            logs[f'd_shape_{side}'] = bce(right, 1.0) + jnp.where(changed.any(), mixed, not_it)
        conditions = self.G.conditions(out.text, wrong.vectors)
        pairs = (reals[-1], layout), (out.images[-1], layout), (reals[-1], wrong)
        for name, there in routed(objects, self.large, self.legacy).items():
            logs[f'd_{name}'] = self.d_objects(
                getattr(self.D, name),
                pairs,
                objects,
                there,
                out.conditions,
                jax.lax.stop_gradient(conditions),
                changed[:, None] & (labels != objects.labels),
            )
        return sum(logs.values()), logs | mean_logs(others)

    def d_patches(self, batch, key, out, reals):
        """Compute the losses of the discriminators of patches: {name: scalar}, more logs."""
        sentence, game, logs, every = out.text.sentence, self.game, {}, []
        sampled = self.encode(batch, 'wrong_').sentence if self.wrong == 'sampled' else None
        other, weight = mismatched(sentence, sampled), self.match_weight
        for side, D, *pictures in zip(self.sides, self.D.patches, reals, out.images):
            pictures = game.seen(key, *pictures)
            real, fake = separately(D.trunk, pictures)
            matching, drawn = (D.match(code, sentence, train=True) for code in (real, fake))
            wrong = D.match(real[: len(other)], other, train=True)
            free = game.d_answers(*(D.real(code, train=True) for code in (real, fake)))
            match = game.d_answers(matching, drawn, wrong)
            loss = (free.right + weight * match.right) / 2
            loss += (free.drawn + weight * (match.drawn + match.wrong)) / 3
            more, its_logs = game.d_more(
                D.extras,
                lambda x, D=D: D.match(D.trunk(x, train=True), sentence, train=True).mean(1),
                key,
                batch,
                sentence,
                Seen(pictures[0], real, matching),
                Seen(pictures[1], fake, drawn),
                Wrong(sampled, wrong),
            )
            logs[f'd_{side}'] = loss + more
            every.append(its_logs)
        return logs, every

    def d_objects(self, D, pairs, objects, there, conditions, exchanged, changed):
        """Compute the loss of a discriminator of objects.

        pairs: (pictures, ObjectLayout), real, drawn and real with exchanged classes.
        there: which objects it judges, b r.
        conditions, exchanged: of objects by their labels, and by exchanged ones, b r n.
        changed: whose label is another then, b r.
        """
        maps = separately(D.trunk, [D.joined(image, one.maps) for image, one in pairs])
        real, fake, mixed = (D.objects(x, objects.boxes) for x in maps)

        def match(x, conditions):
            return D.match(x, conditions, there, train=True)

        flat = there.reshape(-1)
        other = rows_of(conditions)[next_of(flat)].reshape(conditions.shape)
        changed = changed & there
        right = D.free(real, there, train=True), match(real, conditions)
        wrong = [
            (D.free(fake, there, train=True), there),
            (match(fake, conditions), there),
            # of a single object there is no other
            (match(real, other), there & (flat.sum() > 1)),
            (match(mixed, exchanged), changed),
        ]
        loss = sum(mean_of(bce_per_object(x, 1.0), there) for x in right) / 2
        wrong = sum(mean_of(bce_per_object(x, 0.0), some) for x, some in wrong)
        return loss + wrong / (3 + changed.any())

    def g_loss(self, batch, key, out):
        self.game.begin(self.D)
        objects = self.scene(batch)
        layout = self.laid_out(objects)
        logs, others = self.g_patches(batch, key, out)
        if self.shape_weight:
            for side, D, drawn in zip(self.sides, self.D.layouts, out.images):
                answers = D(D.joined(drawn, layout.maps), train=True)
                logs[f'g_shape_{side}'] = self.shape_weight * bce(answers, 1.0)
        if self.object_weight:
            conditions = jax.lax.stop_gradient(out.conditions)
            for name, there in routed(objects, self.large, self.legacy).items():
                D = getattr(self.D, name)
                maps = D.trunk(D.joined(out.images[-1], layout.maps), train=True)
                found = D.objects(maps, objects.boxes)
                answers = (
                    D.free(found, there, train=True),
                    D.match(found, conditions, there, train=True),
                )
                answers = sum(mean_of(bce_per_object(x, 1.0), there) for x in answers)
                logs[f'g_{name}'] = self.object_weight * answers
        loss = sum(logs.values())
        logs |= mean_logs(others)
        logs['kl'] = conditioning_kl(out.mu, out.logvar)
        loss += self.kl_weight * logs['kl']
        if self.damsm_weight:
            logs |= self.damsm_losses(batch, out)
            loss += self.damsm_weight * (logs['words'] + logs['sentence'])
        return loss, logs

    def g_patches(self, batch, key, out):
        """Compute G's losses by the discriminators of patches: {name: scalar}, more logs."""
        sentence, game, logs, every = out.text.sentence, self.game, {}, []
        reals = pyramid(batch, self.sides) if game.pairs else out.images
        for side, D, *pictures in zip(self.sides, self.D.patches, reals, out.images):
            real, fake = game.seen(key, *pictures)
            code, of_real = D.trunk(fake, train=True), (None, None)
            if game.pairs:
                real = D.trunk(real, train=True)
                of_real = D.real(real, train=True), D.match(real, sentence, train=True)
            drawn = D.real(code, train=True), D.match(code, sentence, train=True)
            free, match = (game.g_answers(*both).mean() for both in zip(drawn, of_real))
            more, its_logs = game.g_more(D.extras, batch, code, sentence)
            logs[f'g_{side}'] = free + self.match_weight * match + more
            every.append(its_logs)
        return logs, every

    def sample(self, batch, noise):
        """-> {'image', 'images', 'attention', 'boxes', 'object_labels', 'masks', ...}

        attention: as AttnGAN's; object_attention: at which words objects look, b R t.
        """
        objects = self.objects(batch, noise)
        own = {name: noise[name] for name in ('z', 'eps')}
        out = self.G(self.encode(batch), self.laid_out(objects), **own, train=False)
        attention = {'attention': out.attention} if out.attention else {}
        return {
            'image': out.images[-1],
            'images': out.images,
            'boxes': objects.boxes,
            'object_labels': objects.labels,
            'masks': objects.masks,
            'object_attention': out.of_objects,
        } | attention


# in the order of training
STAGES = {'damsm': Damsm, 'box': ObjGanBoxes, 'shape': ObjGanShapes, 'image': ObjGan}
