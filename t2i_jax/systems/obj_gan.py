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
wrong by their layout have the right rows, and an object of the same label in the same scene is no
wrong one; an object's vectors are averaged where several overlap.
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

from t2i_jax.encoders.sentence import WORDS, encode_words, scaled_to_unit
from t2i_jax.encoders.word_vectors import label_ids, require_vectors, word_vectors
from t2i_jax.layers.attention import COMPARISONS, WordAttention, object_attention, spread
from t2i_jax.layers.box_decoder import BoxDecoder, LabelCounts, Scale
from t2i_jax.layers.conditioning import ConditioningAugmentation
from t2i_jax.layers.conv import Conv
from t2i_jax.layers.game import GAME, Game
from t2i_jax.layers.glu import InitStage, ToImage, UpGlu
from t2i_jax.layers.layout_stage import LayoutStage, as_samples
from t2i_jax.layers.linear import ORTHOGONAL, lrelu, uniform, uniform_linear
from t2i_jax.layers.mixture import MixtureHead
from t2i_jax.layers.norm import NORMS, instance_norm, separately
from t2i_jax.layers.object_critics import Critics, ReflectConv, other_objects, routed
from t2i_jax.layers.objects import class_maps, mean_of, objects_of, other_classes, resized, rows_of
from t2i_jax.layers.pairs import matching_advice
from t2i_jax.layers.recurrent import Lstm
from t2i_jax.layers.remat import recomputed
from t2i_jax.losses import bce, bce_each, bce_per_row
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import Phase, normal_rows
from t2i_jax.systems.attngan import AttnTree
from t2i_jax.systems.damsm import Damsm, Matching
from t2i_jax.systems.hierarchical_layout import BoxStage, ShapeStage
from t2i_jax.systems.stackgan_pp import pyramid, tree_sides

# of the projected numbers of a box
PROJECTED = 50
VECTORS = 'glove', 'damsm'


# -------------------------------------------------------------------------------- box generator
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
        side = sides[0] // 2
        self.first = InitStage(nc + nz, g, side, min(8, side), rngs=rngs)
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


# --------------------------------------------------------------------------------------- stages
class FromWords:
    """A stage of layouts that reads words: its `encode` gives a WordsAndSentence."""

    def encode(self, batch, prefix=''):
        return encode_words(self.text, batch, prefix=prefix)


class ObjGanBoxes(FromWords, BoxStage):
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
        order: of objects, as in BoxStage.
        label_weight, box_weight: of the two terms.
        label_power: a label weighs count^-power in the loss.
        class_limit: a layout has no more objects of a class than scenes in training have.
        temperature, label_temperature: as in BoxStage.
        text: the trained text encoder.
        """
        LayoutStage.__init__(self, meta, text, order)
        self.label_weight, self.box_weight = label_weight, box_weight
        self.label_power, self.all_square = label_power, bool(meta.scenes)
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

    def measure(self, batch, key):
        """As in BoxStage. Of shape scenes, whose boxes are square, `nll_per_box_by_ratio`.

        The density of a number that never varies has no limit but that of sigma, so that it says
        nothing about systems that know both sides.
        """
        found = super().measure(batch, key)
        if self.all_square:
            found['nll_per_box_by_ratio'] = found.pop('nll_per_box')
            found['nll_per_layout_by_ratio'] = found.pop('nll_per_layout')
        return found


class ObjGanShapes(FromWords, ShapeStage):
    """Learns the shapes of objects in their boxes; gated units, and the largest of all masks."""

    loads = {'text': 'damsm.text', 'picture': 'damsm.image', 'boxes': 'box.boxes'}

    def __init__(self, meta, *, activation='glu', union='max', **others):
        super().__init__(meta, activation=activation, union=union, **others)


class ObjGan(AttnTree, LayoutStage):
    """Paints layouts; learns from true ones."""

    phases = (Phase('d_loss', trains=('D',)), Phase('g_loss', trains=('G',)))
    ema, critics, called = ('G',), ('D', 'image'), 'image'
    loads = {
        'text': 'damsm.text',
        'image': 'damsm.image',
        'boxes': 'box.boxes',
        'shapes': 'shape.shapes',
    }
    makes = 'image', 'images', 'attention', 'object_attention', 'boxes', 'masks'
    takes, judges, advice = ('layout',), ('damsm',), matching_advice('image')
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
        shape_weight, object_weight, damsm_weight, kl_weight: of terms of L_G. What weighs 0 has no
            part in training, its discriminators included.
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
        choose('attention', attention, COMPARISONS)
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
        """Return the Text of a batch's sentences (or `wrong_` ones), as `boxes` learnt it."""
        if 'encoded' in batch and not prefix:
            return batch['encoded']
        tokens = batch[prefix + 'tokens']
        vectors = (
            self.vectors.words[...][tokens] if self.vectors is not None else self.text.embed(tokens)
        )
        return Text(*encode_words(self.text, batch, prefix=prefix), vectors.astype(jnp.float32))

    def painted(self, text):
        """Return a Text as G and D read it."""
        scaled = scaled_to_unit(text.sentence) if self.unit_text else text.sentence
        return text._replace(sentence=scaled)

    def sentences(self, batch, prefix=''):
        return self.painted(self.encode(batch, prefix)).sentence

    def label_vectors(self, labels):
        """Return the vectors of labels b r: b r n, zeros where no object is."""
        if self.vectors is not None:
            table = self.vectors.labels[...]
        else:
            each = self.text.embed.embedding[...]
            nothing = jnp.zeros(each.shape[-1])
            table = jnp.stack(
                [each[jnp.array(ids)].mean(0) if ids else nothing for ids in self.label_ids]
            )
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
        layout, b = self.laid_out(self.scene(batch)), len(batch['image'])
        noise = self.game.tied(self.G.noise(key, b), b)
        out = self.G(self.painted(self.encode(batch)), layout, **noise, train=True)
        # no loss reads the attention, and 256 px have hundreds of MB of it
        return out._replace(attention=())

    # ---------------------------------------------------------------------------------- losses
    def d_loss(self, batch, key, out):
        self.game.begin(self.D)
        reals, objects = pyramid(batch, self.sides), self.scene(batch)
        logs, others = self.d_sides(self.D.patches, batch, key, out)
        labels, changed = other_classes(objects.labels, self.classes)
        layout, exchanged = self.laid_out(objects), self.laid_out(objects, labels)

        def seen(D, trunk, real, drawn):
            """Ask for a real and a drawn picture, and a real one whose classes are exchanged."""
            pairs = (real, layout), (drawn, layout), (real, exchanged)
            return separately(trunk, [D.joined(image, one.maps) for image, one in pairs])

        if self.shape_weight:
            for side, D, *pictures in zip(self.sides, self.D.layouts, reals, out.images):
                right, drawn, wrong = seen(D, D, *pictures)
                wrong = (bce(drawn, 0.0) + mean_of(bce_per_row(wrong, 0.0), changed)) / 2
                wrong = jnp.where(changed.any(), wrong, bce(drawn, 0.0))
                logs[f'd_shape_{side}'] = bce(right, 1.0) + wrong
        conditions = jax.lax.stop_gradient(
            (out.conditions, self.G.conditions(out.text, exchanged.vectors))
        )
        changed = labels != objects.labels
        for name, there in self.routed(objects).items():
            D = getattr(self.D, name)
            maps = seen(D, D.trunk, reals[-1], out.images[-1])
            logs[f'd_{name}'] = self.d_objects(D, maps, objects, there, conditions, changed)
        return sum(logs.values()), logs | others

    def routed(self, objects):
        """Return which objects each discriminator of objects judges: {name: bool b r}."""
        return routed(objects, self.large, self.legacy) if self.object_weight else {}

    def d_objects(self, D, maps, objects, there, conditions, changed):
        """Compute the loss of a discriminator of objects.

        maps: of its trunk, of real pictures, drawn ones, and real ones with exchanged classes.
        there: which objects it judges, b r.
        conditions: of objects by their labels, and by exchanged ones, b r n each.
        changed: whose label is another then, b r.
        """
        real, drawn, mixed = (D.objects(x, objects.boxes) for x in maps)
        own, exchanged = conditions
        other, differs = other_objects(objects.labels, there)
        differs = differs.reshape(there.shape)
        changed = changed & there

        def match(x, conditions):
            return D.match(x, conditions, there, train=True)

        right = D.free(real, there, train=True), match(real, own)
        wrong = (
            (D.free(drawn, there, train=True), there),
            (match(drawn, own), there),
            (match(real, rows_of(own)[other].reshape(own.shape)), differs),
            (match(mixed, exchanged), changed),
        )
        loss = sum(mean_of(bce_each(x, 1.0), there) for x in right) / 2
        wrong = sum(mean_of(bce_each(x, 0.0), some) for x, some in wrong)
        return loss + wrong / (3 + changed.any())

    def g_loss(self, batch, key, out):
        self.game.begin(self.D)
        objects = self.scene(batch)
        maps = self.laid_out(objects).maps
        logs, others = self.g_sides(self.D.patches, batch, key, out)
        sides = zip(self.sides, self.D.layouts, out.images) if self.shape_weight else ()
        for side, D, drawn in sides:
            answers = D(D.joined(drawn, maps), train=True)
            logs[f'g_shape_{side}'] = self.shape_weight * bce(answers, 1.0)
        conditions = jax.lax.stop_gradient(out.conditions)
        for name, there in self.routed(objects).items():
            D = getattr(self.D, name)
            found = D.objects(D.trunk(D.joined(out.images[-1], maps), train=True), objects.boxes)
            free = D.free(found, there, train=True)
            match = D.match(found, conditions, there, train=True)
            answers = sum(mean_of(bce_each(x, 1.0), there) for x in (free, match))
            logs[f'g_{name}'] = self.object_weight * answers
        more, its_logs = self.g_text(batch, out)
        return sum(logs.values()) + more, logs | others | its_logs

    def sample(self, batch, noise):
        """-> {'image', 'images', 'attention', 'object_attention', and the layout}

        attention: as AttnGan's. object_attention: the words that the objects of a pixel look at, a
        mean over them, b 32 32 t.
        """
        objects, text = self.objects(batch, noise), self.encode(batch)
        own, layout = {name: noise[name] for name in ('z', 'eps')}, self.laid_out(objects)
        out = self.G(self.painted(text), layout, **own, train=False)
        return {
            'image': out.images[-1],
            'images': out.images,
            'attention': out.attention,
            'object_attention': spread(out.of_objects, resized(layout.masks, 32)),
        } | as_samples(objects)


# in the order of training
STAGES = {'damsm': Damsm, 'box': ObjGanBoxes, 'shape': ObjGanShapes, 'image': ObjGan}
