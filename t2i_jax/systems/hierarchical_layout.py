"""Inferring Semantic Layout for Hierarchical Text-to-Image Synthesis.

Hong, Yang, Choi, Lee, CVPR 2018 (arXiv 1801.05091). No official code is public.

A sentence becomes boxes, boxes become shapes, shapes and the sentence become a picture. Each step
is learnt from true inputs and can be given its input by hand, so that a picture comes with its
annotation, and an object can be moved, resized, deleted or added (stages `box`, `shape`, `image`;
`text` is the character encoder of GAN-CLS).

    box    p(B_1..T | s) = prod_t p(l_t) p(xy_t | l_t) p(wh_t | xy_t, l_t), an LSTM over objects,
           labels by softmax (C and the end), boxes by mixtures of K bivariate Gaussians
           L_box = -l1 mean_t log p(l_t) - l2 mean_t log p(b_t),  l1 = 4, l2 = 1
    shape  M_t = G(B_t, z_t), a bi-directional ConvLSTM over objects, cut out by the box
           L = li [log D_i(B_t, M*_t) + log(1 - D_i(B_t, M_t))], mean over objects
             + lg [the same of D_g(sum B_t, sum M_t)]
             + lr sum_l |phi_l(sum M_t) - phi_l(sum M*_t)|,  li = lg = 1, lr = 10
    image  A = features of the layout M, one channel a class; the text selects among them,
           A_g = A * sigmoid(W s); from [A_g ; W' s ; z] the picture grows, and sees M at each size
           L_D = -log D(M, s, x) - log(1 - D(M, s, G)) - log(1 - D(M, s', x)), s' a wrong sentence
           L_G = -log D(M, s, G) + lr sum_l mean |phi_l(G) - phi_l(x)|,  lr = 10
    phi: VGG16, relu1_2 to relu5_2

From the paper and a reader's notes: the factors of p, the initial state of the LSTM from s alone,
l1 and l2, the structure of the shape generator (z joined behind the ConvLSTM), the gate, the third
term of L_D without a factor 1/2, the layout at every size. Not known and ours: all widths of the
picture stage, K = 20, the order of objects (largest first), sizes and weights of the shape stage
(those of Obj-GAN's code, which builds on this system). Deviations: boxes are averaged over objects,
not over steps; objects whose box has a side below 1/32 are left out; sigma >= .02 deviations and
|rho| <= .95, without which likelihoods grow for ever; the end is never drawn first; masks are cut
at 1/2 in a layout. Ours and off: a third kind of wrong pairs, pictures with the classes of their
objects exchanged (`wrong_layout`); game.

Expected (paper, from memory; COCO): Inception Score 11.46 +- .09 with everything inferred, 11.94
with true boxes, 12.40 with true boxes and masks; BLEU-4 of captions .122, .139, .156. One sentence
vector reaches the picture in one place, so that colours of several objects are mixed up: Obj-GAN.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import repeat
from flax import nnx

from t2i_jax.encoders.perceptual import Perceptual
from t2i_jax.encoders.sentence import encode_sentence, scaled_to_unit, text_dim, text_reads
from t2i_jax.layers.box_decoder import BoxDecoder, Scale
from t2i_jax.layers.conv import Conv, conv3_beside, levels, operands
from t2i_jax.layers.game import GAME, PLAIN, Game, Seen, Wrong
from t2i_jax.layers.layout_stage import LayoutStage, as_samples, with_side
from t2i_jax.layers.linear import NORMAL, lrelu, torch_linear
from t2i_jax.layers.mixture import MixtureHead
from t2i_jax.layers.norm import NORMS, BatchNorm, instance_norm
from t2i_jax.layers.objects import (
    UNIONS,
    class_maps,
    mean_of,
    mean_per_row,
    other_classes,
    resized,
    touched,
    union,
)
from t2i_jax.layers.recurrent import Lstm
from t2i_jax.layers.relu import ResidualRelu, UpConv, conv3x3
from t2i_jax.layers.remat import recomputed
from t2i_jax.layers.shapes import MaskDiscriminator, ShapeGenerator
from t2i_jax.layers.trunk import Trunk
from t2i_jax.losses import bce_each, bce_per_row
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import Phase, normal_rows
from t2i_jax.systems.joint_embedding import JointEmbedding


# -------------------------------------------------------------------------------- box generator
class SentenceBoxes(BoxDecoder):
    """Sentence vector b d -> labels and boxes, one object after the other."""

    def __init__(
        self,
        classes,
        embedding,
        width,
        components,
        text_each_step,
        unit_text,
        temperatures,
        *,
        rngs,
    ):
        """temperatures: of boxes and of labels, when they are drawn."""
        c, more = classes + 1, 128 if text_each_step else 0
        self.classes, self.unit_text, self.temperatures = classes, unit_text, temperatures
        self.scale = Scale()
        self.first = nnx.List([torch_linear(embedding, width, rngs=rngs) for _ in range(2)])
        self.say = torch_linear(embedding, more, rngs=rngs) if more else None
        self.lstm = Lstm(c + 4 + more, width, two_biases=False, forget_bias=1.0, rngs=rngs)
        self.labels = torch_linear(width, c, rngs=rngs)
        self.places, self.sizes = (
            MixtureHead(d, components, start=NORMAL, rngs=rngs) for d in (width + c, width + c + 2)
        )

    def read(self, text):
        return scaled_to_unit(text) if self.unit_text else text

    def start(self, text):
        return tuple(jnp.tanh(w(self.read(text)).astype(jnp.float32)) for w in self.first)

    def step(self, state, label, code, text):
        seen = [label, code] + ([self.say(self.read(text))] if self.say else [])
        gates = self.lstm.input(jnp.concatenate(seen, -1))
        return self.lstm.step(state, gates, jnp.ones(len(label), bool))


# ------------------------------------------------------------------------------ image generator
class Cascade(nnx.Module):
    """Pixels doubled, the layout joined, 3x3 convolution, batch norm, ReLU.

    b h w c and a layout b 2h 2w k -> b 2h 2w d
    """

    def __init__(self, c, k, d, *, rngs):
        self.up, self.see = UpConv(c, d, rngs=rngs), conv3x3(k, d, rngs=rngs)
        self.norm = BatchNorm(d, rngs=rngs)

    @recomputed
    def __call__(self, x, layout, *, train):
        return jax.nn.relu(self.norm(self.up(x) + self.see(layout), train=train))


class LayoutGenerator(nnx.Module):
    """Layout b s s C, sentence vector and noise -> picture b s s 3 in [-1, 1].

    The layout is read down to 16 x 16 and 8g channels; the picture grows from there.
    """

    def __init__(self, size, classes, embedding, g, nz, nt, residuals, unit_text, *, rngs):
        n = levels(size) - 2
        c = [8 * g >> (n - i) for i in range(n + 1)]  # 128 px: g, 2g, 4g, 8g
        self.size, self.nz, self.unit_text = size, nz, unit_text
        self.look = Conv(classes, c[0], 7, padding=3, rngs=rngs)
        self.downs = nnx.List(
            [Conv(a, b, 4, stride=2, padding=1, rngs=rngs) for a, b in zip(c, c[1:])]
        )
        self.gate = torch_linear(embedding, c[-1], rngs=rngs)
        self.say = torch_linear(embedding, nt, rngs=rngs)
        self.join = conv3x3(nt + nz + c[-1], c[-1], rngs=rngs)
        self.norm = BatchNorm(c[-1], rngs=rngs)
        self.residuals = nnx.List([ResidualRelu(c[-1], rngs=rngs) for _ in range(residuals)])
        up = c[::-1]  # 128 px: 8g, 4g, 2g, g
        self.ups = nnx.List([Cascade(a, classes, b, rngs=rngs) for a, b in zip(up, up[1:])])
        self.image = conv3x3(c[0], 3, rngs=rngs)

    def noise(self, key, n):
        return {'z': normal_rows(key, n, (self.nz,))}

    def __call__(self, layout, text, z, *, train):
        text = scaled_to_unit(text) if self.unit_text else text
        x = lrelu(instance_norm(self.look(layout)))
        for down in self.downs:
            x = lrelu(instance_norm(down(x)))  # b 16 16 8g in the end
        x = x * nnx.sigmoid(self.gate(text))[:, None, None]
        vector = jnp.concatenate([self.say(text), z], -1)
        x = conv3_beside(*operands(self.join, vector, x))
        x = jax.nn.relu(self.norm(x, train=train))
        for block in self.residuals:
            x = block(x, train=train)
        for up in self.ups:
            x = up(x, resized(layout, 2 * x.shape[1]), train=train)  # b 32 32 4g, ..., b s s g
        return jnp.tanh(self.image(x))


class LayoutDiscriminator(nnx.Module):
    """Picture, layout and sentence vector -> logit of "real, and matching both", b.

    A map of patches (5 x 5 of 128 px, one of 64 px and below); their mean is the logit.
    """

    def __init__(
        self, size, classes, embedding, d, nt, unit_text, norm=BatchNorm, game=PLAIN, *, rngs
    ):
        n = min(levels(size), 4)
        c, side = d << n - 1, size >> n
        self.trunk = Trunk(3 + classes, [d << i for i in range(n)], norm, rngs=rngs)
        self.say, self.unit_text = torch_linear(embedding, nt, rngs=rngs), unit_text
        self.joint, self.norm = Conv(c + nt, c, 1, rngs=rngs), norm(c, rngs=rngs)
        self.logit = Conv(c, 1, 4, rngs=rngs)
        self.extras = game.extras(side * side * c, embedding, rngs=rngs)

    def __call__(self, image, layout, text, *, train):
        return self.judge(self.code(image, layout, train=train), text, train=train)

    def code(self, image, layout, *, train):
        """Compute the last map of pictures with their layouts, both b s s."""
        return self.trunk(jnp.concatenate([image, layout.astype(image.dtype)], -1), train=train)

    def judge(self, x, text, *, train):
        """Compute the logits of pictures by their last maps: b."""
        scaled = scaled_to_unit(text) if self.unit_text else text
        t = repeat(lrelu(self.say(scaled)), 'b c -> b h w c', h=x.shape[1], w=x.shape[2])
        y = lrelu(self.norm(self.joint(jnp.concatenate([x, t.astype(x.dtype)], -1)), train=train))
        logits = self.logit(y).astype(jnp.float32).mean((1, 2, 3))
        return self.extras(logits, x, text)


# --------------------------------------------------------------------------------------- stages
class SentenceStage(LayoutStage):
    """A stage of layouts that reads sentence vectors."""

    def encode(self, batch):
        """Return sentence vectors b d."""
        return encode_sentence(self.text, batch)


class BoxStage(SentenceStage):
    """Learns the labels and boxes of a sentence's objects."""

    phases = (Phase('box_loss', trains=('boxes',)),)
    loads, makes = {'text': 'text.text'}, ('boxes',)
    tiny = dict(width=16, components=3)

    def __init__(
        self,
        meta,
        *,
        width=512,
        components=20,
        text_each_step=False,
        order='area',
        label_weight=4.0,
        box_weight=1.0,
        box_mean='objects',
        temperature=0.4,
        label_temperature=1.0,
        unit_text=False,
        text,
        rngs,
    ):
        """Build the network.

        width: of the LSTM.
        components: K.
        text_each_step: 128 numbers of the sentence stand next to each object that the LSTM reads;
            otherwise it knows the sentence by its first state alone.
        order: of objects, 'area' (the largest first), 'left' (from left to right) or 'data'.
        label_weight, box_weight: l1, l2.
        box_mean: boxes are averaged over 'objects', or over all 'steps' (paper), of which the last
            one, the end, has no box.
        temperature, label_temperature: with which boxes and labels are drawn; 0 takes the likeliest
            label, and the middle of the likeliest component.
        unit_text: sentence vectors are scaled to a mean square of 1 (ours; for encoders that were
            trained briefly).
        text: the trained text encoder, or None where the data hold sentence vectors.
        """
        super().__init__(meta, text, order)
        self.label_weight, self.box_weight = label_weight, box_weight
        self.more = choose('box_mean', box_mean, ('objects', 'steps')) == 'steps'
        self.boxes = SentenceBoxes(
            self.classes,
            text_dim(text, meta),
            width,
            components,
            text_each_step,
            unit_text,
            (temperature, label_temperature),
            rngs=rngs,
        )
        self.needs = ('boxes', 'object_labels', *text_reads(text))

    def densities(self, batch):
        """Compute (log p of labels b r+1, of boxes b r in [0, 1] coordinates, objects b)."""
        objects = self.scene(batch)
        found = self.boxes.log_densities(self.encode(batch), objects, train=self.training)
        return *found, objects.there.sum(1)

    def box_loss(self, batch, key, out):
        labels, boxes, n = self.densities(batch)
        label = -(labels.sum(1) / (n + 1)).mean()
        box = -(boxes.sum(1) / jnp.maximum(n + self.more, 1)).mean()
        loss = self.label_weight * label + self.box_weight * box
        return loss, {'label_nll': label, 'box_nll': box}

    def measure(self, batch, key):
        """Measure likelihoods in nats; those of boxes are in [0, 1] coordinates."""
        labels, boxes, n = self.densities(batch)
        return {
            'nll_per_box': jnp.where(n > 0, -boxes.sum(1) / jnp.maximum(n, 1), jnp.nan),
            'nll_per_label': -labels.sum(1) / (n + 1),
            'nll_per_layout': -labels.sum(1) - boxes.sum(1),
        }

    def noise(self, key, n):
        return self.boxes.noise(key, n, self.rows)

    def sample(self, batch, noise):
        """-> {'boxes': b R 4, 'object_labels': b R}"""
        return as_samples(self.boxes.draw(self.encode(batch), noise, *self.boxes.temperatures))


class Masks(NamedTuple):
    """The shape generator's pass over a batch."""

    # with true masks, b r s s
    objects: Any
    # b r s s
    drawn: Any


class MaskCritics(nnx.Module):
    """D_i, which sees an object, and D_g, which sees all of a scene."""

    def __init__(self, *sizes, rngs):
        self.each, self.whole = (MaskDiscriminator(*sizes, rngs=rngs) for _ in range(2))


class ShapeStage(Perceptual, SentenceStage):
    """Learns the shapes of objects in their boxes."""

    phases = (Phase('d_loss', trains=('D',)), Phase('g_loss', trains=('shapes',)))
    ema, critics = ('shapes',), ('D', 'vgg', 'picture')
    loads = {'text': 'text.text', 'picture': 'text.image', 'boxes': 'box.boxes'}
    makes, takes = ('boxes', 'masks'), ('layout',)
    tiny = dict(width=4, widths=(8, 8, 8, 8), side=16, features='text')

    def __init__(
        self,
        meta,
        *,
        width=64,
        widths=(32, 64, 128, 128),
        side=64,
        activation='relu',
        order='area',
        union='sum',
        instance_weight=1.0,
        global_weight=1.0,
        perceptual_weight=10.0,
        features='vgg16',
        features_weights='',
        features_normalised=True,
        text,
        picture,
        boxes,
        rngs,
    ):
        """Build the networks.

        width: n, of the generator's last map; objects are maps of 4n channels.
        widths: of both discriminators (ours; the code of Obj-GAN has n/2, n/4, n/8, n/16).
        side: of masks.
        activation: 'relu', or leaky ReLU and 'glu' as in Obj-GAN.
        order: of objects, as in BoxStage.
        union: how D_g and phi see all objects, their 'sum' (paper), 'clip' (at 1), or 'max'.
        instance_weight, global_weight, perceptual_weight: li, lg, lr.
        features: phi, 'vgg16', or 'text', the maps of the picture encoder of stage text (ours, for
            drawings).
        features_weights, features_normalised: of VGG16, see encoders/vgg.py.
        text, picture, boxes: the trained networks.
        """
        super().__init__(meta, text, order)
        self.watch(meta, features, features_weights, features_normalised, picture)
        self.boxes, self.union = boxes, choose('union', union, UNIONS)
        self.weights = instance_weight, global_weight, perceptual_weight
        self.shapes = ShapeGenerator(self.classes, width, side, activation, rngs=rngs)
        self.D = MaskCritics(self.classes, tuple(widths), side, rngs=rngs)
        self.needs = ('boxes', 'object_labels', 'object_masks', *text_reads(text))

    @classmethod
    def check(cls, model):
        cls.require(model, 'shape')

    def scene(self, batch):
        """Return the true objects with masks of the generator's side."""
        objects = super().scene(batch)
        return objects._replace(masks=with_side(objects.masks, self.shapes.side))

    def forward(self, batch, key):
        objects = self.scene(batch)
        z = jax.random.normal(key, (*objects.labels.shape, self.shapes.nz))
        return Masks(objects, self.shapes(objects, z))

    def asked(self, objects, masks, label):
        """Ask both discriminators of masks -> cross-entropies of an answer, the mean of each."""
        each = bce_each(self.D.each.of_objects(objects, masks), label)
        region = touched(objects.boxes, self.shapes.side)
        maps = class_maps(region, objects.labels, self.classes, self.union)
        whole = bce_per_row(self.D.whole.of_scenes(maps, union(masks, self.union)), label)
        return mean_of(each, objects.there), mean_of(whole, objects.there.any(1))

    def d_loss(self, batch, key, out):
        asked = self.asked(out.objects, out.objects.masks, 1.0), self.asked(*out, 0.0)
        each, whole = (real + drawn for real, drawn in zip(*asked))
        loss = self.weights[0] * each + self.weights[1] * whole
        return loss, {'d_each': each, 'd_whole': whole}

    def g_loss(self, batch, key, out):
        each, whole = self.asked(*out, 1.0)
        drawn, real = (
            repeat(2 * union(x, self.union) - 1, 'b h w -> b h w 3')
            for x in (out.drawn, out.objects.masks)
        )
        far = self.unlikeness(drawn, real)
        loss = self.weights[0] * each + self.weights[1] * whole + self.weights[2] * far
        return loss, {'g_each': each, 'g_whole': whole, 'perceptual': far}

    def measure(self, batch, key):
        """Measure masks that are made in true boxes against the true ones; means over objects."""
        objects = self.scene(batch)
        z = jax.random.normal(key, (*objects.labels.shape, self.shapes.nz))
        found, true = self.shapes(objects, z) > 0.5, objects.masks > 0.5
        common, either = (f(found, true).sum((2, 3)) for f in (jnp.logical_and, jnp.logical_or))
        seen = objects.there & true.any((2, 3))
        area = found.sum((2, 3)) / jnp.maximum(true.sum((2, 3)), 1)
        return {
            'mask_iou': mean_per_row(common / jnp.maximum(either, 1), seen),
            'mask_area_ratio': mean_per_row(area, seen),
        }

    def noise(self, key, n):
        return self.layout_noise(key, n)

    def sample(self, batch, noise):
        """-> {'boxes': b R 4, 'object_labels': b R, 'masks': b R 64 64}, as `objects` has them."""
        return as_samples(self.objects(batch, noise))


class FromLayout(NamedTuple):
    """The picture generator's pass over a batch."""

    # b s s 3
    image: Any
    # sentence vectors b d
    text: Any
    # true layouts b s s C, and with classes exchanged
    layout: Any
    wrong_layout: Any
    # which differ: b
    changed: Any


class ImageStage(Perceptual, SentenceStage):
    """Draws pictures from layouts and sentences; learns from true layouts."""

    phases = (Phase('d_loss', trains=('D',)), Phase('g_loss', trains=('G',)))
    ema, critics = ('G',), ('D', 'vgg', 'picture')
    loads = {
        'text': 'text.text',
        'picture': 'text.image',
        'boxes': 'box.boxes',
        'shapes': 'shape.shapes',
    }
    makes, takes = ('image', 'boxes', 'masks'), ('layout',)
    tiny = dict(g=4, d=8, nz=8, nt=8, residuals=1, features='text')

    def __init__(
        self,
        meta,
        *,
        g=64,
        d=64,
        nz=128,
        nt=128,
        residuals=4,
        order='area',
        background=False,
        wrong_text=1.0,
        wrong_layout=0.0,
        adversarial_weight=1.0,
        perceptual_weight=10.0,
        features='vgg16',
        features_weights='',
        features_normalised=True,
        unit_text=False,
        d_norm='batch',
        game=GAME,
        leave_out='class',
        text,
        picture,
        boxes,
        shapes,
        rngs,
    ):
        """Build the generator and the discriminator.

        g, d: channels of their largest maps (at 128 px).
        nz, nt: dimensions of z and of the projected sentence vector.
        residuals: blocks at 16 x 16.
        order: of objects, as in BoxStage.
        background: a channel more says where no object is (ours).
        wrong_text: weight of the third term of L_D, 1 in the paper; 1/2 is GAN-CLS's.
        wrong_layout: weight of a fourth term, -log(1 - D(M', s, x)), M' with the classes of its
            objects exchanged (ours; Obj-GAN has it).
        adversarial_weight, perceptual_weight: of the terms of L_G.
        features, features_weights, features_normalised, unit_text: as in ShapeStage and BoxStage.
        text, picture, boxes, shapes: the trained networks.

        Ours, and off in the paper's settings:

        d_norm: 'layer'; a D that normalises over the batch can tell a batch of wrong pairs as a
            whole.
        game, leave_out: see layers/game.py.
        """
        super().__init__(meta, text, order)
        self.watch(meta, features, features_weights, features_normalised, picture)
        choose('d_norm', d_norm, NORMS)
        self.game = Game.of(game, leave_out)
        self.boxes, self.shapes, self.size = boxes, shapes, meta.size
        self.background = background
        self.wrong_text, self.wrong_layout = wrong_text, wrong_layout
        self.weights = adversarial_weight, perceptual_weight
        sizes = meta.size, self.classes + background, text_dim(text, meta)
        self.G = LayoutGenerator(*sizes, g, nz, nt, residuals, unit_text, rngs=rngs)
        more = unit_text, NORMS[d_norm], self.game
        self.D = LayoutDiscriminator(*sizes, d, nt, *more, rngs=rngs)
        self.game.prepare(self.D, rngs)
        self.sampler = self.game.sampler
        reads = text_reads(text)
        wrong = tuple(f'wrong_{n}' for n in reads if n != 'length') if wrong_text else ()
        layout = 'boxes', 'object_labels', 'object_masks'
        self.needs = ('image', *layout, *wrong, *reads, *self.game.compared(meta))

    @classmethod
    def check(cls, model):
        cls.require(model, 'image')

    def seen(self, objects, labels=None):
        """Return the layout of objects as G and D see it: b s s C, 1 where a class is.

        labels: b r, others than those of the objects.
        """
        labels = objects.labels if labels is None else labels
        masks = (objects.masks > 0.5).astype(jnp.float32)
        layout = class_maps(masks, labels, self.classes)
        if self.background:
            layout = jnp.concatenate([layout, 1 - layout.max(-1, keepdims=True)], -1)
        return resized(layout, self.size)

    def noise(self, key, n):
        keys = jax.random.split(key)
        return self.G.noise(keys[0], n) | self.layout_noise(keys[1], n)

    def forward(self, batch, key):
        objects, text = self.scene(batch), self.encode(batch)
        layout, wrong, changed = self.seen(objects), None, None
        if self.wrong_layout:
            labels, changed = other_classes(objects.labels, self.classes)
            wrong = self.seen(objects, labels)
        z = self.game.tied(self.G.noise(key, len(text)), len(text))['z']
        return FromLayout(self.G(layout, text, z, train=True), text, layout, wrong, changed)

    def d_loss(self, batch, key, out):
        D, text, layout = self.D, out.text, out.layout
        self.game.begin(D)
        image, drawn = self.game.seen(key, batch['image'], out.image)
        code = D.code(image, layout, train=True)
        real, other, wrong = D.judge(code, text, train=True), None, None
        if self.wrong_text:
            other = encode_sentence(self.text, batch, prefix='wrong_')
            wrong = D.judge(code, other, train=True)
        fake = D(drawn, layout, text, train=True)
        answers = self.game.d_answers(real, fake, wrong)
        loss = answers.right + answers.drawn
        logs = {'d_real': answers.right, 'd_fake': answers.drawn}
        if self.wrong_text:
            loss, logs['d_wrong'] = loss + self.wrong_text * answers.wrong, answers.wrong
        if self.wrong_layout:
            logits = D(image, out.wrong_layout, text, train=True)
            # what has not changed is not wrong: no loss, no gradient
            logits = jnp.where(out.changed, logits, -1e3)
            share = jnp.maximum(out.changed.mean(), 1e-6)
            logs['d_wrong_layout'] = self.game.d_answers(real, fake, logits).wrong / share
            loss += self.wrong_layout * logs['d_wrong_layout']
        more, its_logs = self.game.d_more(
            D.extras,
            lambda x: D(x, layout, text, train=True),
            key,
            batch,
            text,
            Seen(image, code, real),
            Seen(drawn, None, fake),
            Wrong(other, wrong),
        )
        return loss + more, logs | its_logs

    def g_loss(self, batch, key, out):
        D, text, layout = self.D, out.text, out.layout
        self.game.begin(D)
        image, drawn = self.game.seen(key, batch['image'], out.image)
        code = D.code(drawn, layout, train=True)
        fake = D.judge(code, text, train=True)
        real = D(image, layout, text, train=True) if self.game.pairs else None
        loss = self.weights[0] * self.game.g_answers(fake, real).mean()
        more, logs = self.game.g_more(D.extras, batch, code, text)
        if self.weights[1]:
            logs['perceptual'] = self.unlikeness(out.image, batch['image'])
            more += self.weights[1] * logs['perceptual']
        return loss + more, logs

    def sample(self, batch, noise):
        """-> {'image', 'boxes', 'object_labels', 'masks'}, as `objects` has them."""
        objects = self.objects(batch, noise)
        image = self.G(self.seen(objects), self.encode(batch), noise['z'], train=False)
        return {'image': image} | as_samples(objects)


# in the order of training
STAGES = {'text': JointEmbedding, 'box': BoxStage, 'shape': ShapeStage, 'image': ImageStage}
