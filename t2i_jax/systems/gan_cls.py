"""GAN-CLS: Generative Adversarial Text to Image Synthesis.

Reed, Akata, Yan, Logeswaran, Schiele, Lee, ICML 2016.

A sentence becomes a vector by a character network that was trained to agree with images (stage
`text`: Learning Deep Representations of Fine-Grained Visual Descriptions, CVPR 2016). Then a DCGAN
draws from that vector and noise, and its discriminator answers one question, "real and matching?",
which it can learn because it also sees real images with the wrong sentence (CLS). The generator may
also be trained on sentences that exist nowhere, halfway between two others (INT). What a sentence
leaves open (where, how large, before what) is in the noise: a style encoder (stage `style`) learns
to read it off a picture.

    h = mean of a few caption vectors,  bce1(s) = softplus(-s),  bce0(s) = softplus(s)
    L_D = bce1(D(x, h)) + w bce0(D(x_wrong, h)) + (1 - w) bce0(D(G(z, h), h))
          w = 1/2; without CLS w = 0
    L_G = mean of bce1(D(G(z, h), h)) over the batch and, with INT, over B/2 midpoints
          h = (h_i + h_{i + B/2}) / 2
    L_style = |z - S(G(z, h))|^2, summed over the dimensions, S a third network and G frozen;
          then G(S(image), h) has that image's style
    L_text = 1/K^2 sum_i sum_{j != i} max(0, 1 + s_ij - s_ii) + the same with roles swapped,
          s_ij = f(image_i) . h(text_j)

Deviations: the images of G are shared by D's and G's step (the original draws fresh noise for G's).
The image side of the joint embedding is a small convolutional network trained with it, because the
GoogLeNet features of the original cannot be had; with stored features (`features`, their dimension)
it uses those. The style encoder's layers were never published: here they are those of D up to the
map of 4 x 4, all with their activations, and a dense layer. A row's captions are drawn without
replacement, and the wrong image from all records that do not match, not from a class drawn first. A
moving average of G's weights is kept; `stages.gan.ema=0` samples with the plain weights, as the
original does.

Expected (as measured by the StackGAN authors, from memory): Inception Score 2.88 birds, 2.66
flowers, 7.88 COCO.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.encoders.char_cnn_rnn import CharCnnRnn
from t2i_jax.encoders.sentence import encode_sentence, text_dim, text_reads
from t2i_jax.encoders.small_cnn import SmallCnn
from t2i_jax.layers.conv import Conv, ConvTranspose, levels
from t2i_jax.layers.linear import linear, lrelu, torch_linear
from t2i_jax.layers.norm import NORMS, BatchNorm
from t2i_jax.layers.relu import Bottleneck
from t2i_jax.layers.remat import recomputed
from t2i_jax.losses import bce, bce_per_row, structured_joint_embedding
from t2i_jax.runtime.errors import RunError, choose
from t2i_jax.stage import Phase, Stage, normal_rows


# ------------------------------------------------------------------------------------ networks
class ClsGenerator(nnx.Module):
    """Sentence vector and noise -> image in [-1, 1].

    `unit_text`: how sentence vectors are scaled, for stages that load this network.
    """

    def __init__(self, size, embedding, ngf, nz, nt, large=False, unit_text=False, *, rngs):
        n = levels(size)
        c = [ngf << (n - 1 - i) for i in range(n)]  # 64 px: 8, 4, 2, 1 times ngf
        self.nz, self.size, self.unit_text = nz, size, unit_text
        self.project = torch_linear(embedding, nt, rngs=rngs)
        self.first = linear(nz + nt, 16 * c[0], rngs=rngs)
        self.ups = nnx.List([ConvTranspose(c[i], c[i + 1], 4, rngs=rngs) for i in range(n - 1)])
        self.norms = nnx.List([BatchNorm(d, rngs=rngs) for d in c])
        blocks = 2 if large else 1
        self.blocks = nnx.List(
            [Bottleneck(d, jax.nn.relu, rngs=rngs) for d in c[:2] for _ in range(blocks)]
        )
        self.image = ConvTranspose(c[-1], 3, 4, rngs=rngs)

    def noise(self, key, n):
        return {'z': normal_rows(key, n, (self.nz,))}

    def __call__(self, text, z, *, train):
        t = lrelu(self.project(text))
        x = self.first(jnp.concatenate([z, t], -1))
        x = rearrange(x, 'b (h w c) -> b h w c', h=4, w=4)
        each = len(self.blocks) // 2
        for i, norm in enumerate(self.norms):
            x = self.ups[i - 1](x) if i else x
            x = norm(x, train=train)  # b 4 4 8c, b 8 8 4c, b 16 16 2c, b 32 32 c
            if i >= 2:
                x = jax.nn.relu(x)
                continue
            x = jax.nn.relu(self.blocks[i * each](x, train=train))
            if each == 2:
                # no activation after the second sum
                x = self.blocks[i * each + 1](x, train=train)
        return jnp.tanh(self.image(x))  # b 64 64 3


class ClsTrunk(nnx.Module):
    """Image -> map of 4 x 4, as in the discriminator and in the style encoder."""

    def __init__(self, size, ndf, third_activation, norm=BatchNorm, *, rngs):
        c = [ndf << i for i in range(levels(size))]
        self.downs = nnx.List(
            [Conv(a, b, 4, stride=2, padding=1, rngs=rngs) for a, b in zip([3] + c, c)]
        )
        self.norms = nnx.List([norm(d, rngs=rngs) for d in c[1:]])
        self.block = Bottleneck(c[-1], lrelu, norm, rngs=rngs)
        self.third_activation = third_activation

    @recomputed
    def __call__(self, x, *, train):
        last = len(self.downs) - 1
        x = lrelu(self.downs[0](x))  # b 32 32 c
        for i in range(1, last + 1):
            x = self.norms[i - 1](self.downs[i](x), train=train)  # b 16 16 2c, b 8 8 4c, b 4 4 8c
            if i < last - 1 or (i == last - 1 and self.third_activation):
                x = lrelu(x)
        return lrelu(self.block(x, train=train))  # b 4 4 8c


class ClsDiscriminator(nnx.Module):
    """Image and sentence vector -> logit of "real and matching". b"""

    def __init__(
        self, size, embedding, ndf, nt, text_norm, third_activation, norm=BatchNorm, *, rngs
    ):
        c = ndf << (levels(size) - 1)
        self.trunk = ClsTrunk(size, ndf, third_activation, norm, rngs=rngs)
        self.project = torch_linear(embedding, nt, rngs=rngs)
        self.text_norm = BatchNorm(nt, rngs=rngs) if text_norm else None
        self.joint = Conv(c + nt, c, 1, rngs=rngs)
        self.norm = norm(c, rngs=rngs)
        self.logit = linear(16 * c, 1, rngs=rngs)

    def __call__(self, image, text, *, train):
        x = self.trunk(image, train=train)
        t = self.project(text)
        t = lrelu(self.text_norm(t, train=train) if self.text_norm else t)
        x = jnp.concatenate([x, repeat(t, 'b c -> b 4 4 c')], -1)
        x = lrelu(self.norm(self.joint(x), train=train))
        return self.logit(rearrange(x, 'b h w c -> b (h w c)'))[:, 0]


class StyleEncoder(nnx.Module):
    """Image -> the z that it was drawn from, b nz. With an embedding it reads the sentence, too."""

    def __init__(self, size, embedding, ndf, nz, nt, *, rngs):
        self.trunk = ClsTrunk(size, ndf, True, rngs=rngs)
        self.project = torch_linear(embedding, nt, rngs=rngs) if embedding else None
        features = 16 * (ndf << (levels(size) - 1)) + (nt if embedding else 0)
        self.z = torch_linear(features, nz, rngs=rngs)

    def __call__(self, image, text, *, train):
        x = rearrange(self.trunk(image, train=train), 'b h w c -> b (h w c)')
        x = jnp.concatenate([x, lrelu(self.project(text))], -1) if self.project else x
        return self.z(x).astype(jnp.float32)


# ------------------------------------------------------------------------------ the text stage
# hidden 0: the variant's own
ENCODER = dict(variant='icml_birds', channels=(384, 512), hidden=0, embedding=1024, dropout=0.0)


class JointCodes(NamedTuple):
    """Pictures and sentences in the common space, b d."""

    code: Any
    sentence: Any


class JointEmbedding(Stage):
    """Trains the character network: true pairs get the largest product of their vectors."""

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
        rngs,
    ):
        """Build both encoders.

        encoder: keywords of CharCnnRnn.
        image_channels, image_flat: of SmallCnn.
        features: dimension of stored image features, 0 = learn them from pixels.
        margin: of the hinge loss.
        """
        self.text = CharCnnRnn(**encoder, rngs=rngs)
        self.margin, d = margin, self.text.d
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

    @classmethod
    def skip(cls, config):
        return config.data.embedding == 'stored'

    def codes(self, batch, key=None) -> JointCodes:
        """Encode the pictures and sentences of a batch; key: of the dropout, in training."""
        if self.image:
            image = self.image(batch['image'], train=self.training)
        else:
            image = batch['image_features']
        return JointCodes(image, encode_sentence(self.text, batch, train=self.training, key=key))

    def joint_loss(self, batch, key, out):
        image, text = self.codes(batch, key)
        loss = structured_joint_embedding(image, text, margin=self.margin)
        scores = image.astype(jnp.float32) @ text.T
        return loss, {'top1': (scores.argmax(1) == jnp.arange(len(scores))).mean()}


# ------------------------------------------------------------------------------- the GAN stage
class Fakes(NamedTuple):
    """The generator's pass over a batch; with INT there are b + b/2 rows."""

    # b s s 3
    image: Any
    # the sentence vector of each row
    text: Any


class GanCls(Stage):
    """Trains the generator and the discriminator."""

    phases = (Phase('d_loss', trains=('D',)), Phase('g_loss', trains=('G',)))
    ema, loads = ('G',), {'text': 'text.text'}
    draws_from, makes = ('sentence',), ('image',)
    tiny = dict(ngf=24, ndf=24, nt=64)

    def __init__(
        self,
        meta,
        *,
        ngf=128,
        ndf=64,
        nz=100,
        nt=128,
        matching_aware=True,
        interpolate=False,
        cls_weight=0.5,
        interp_weight=1.0,
        interp_extrapolate=False,
        text_norm=True,
        third_activation=False,
        large=False,
        unit_text=False,
        d_norm='batch',
        r1=0.0,
        text,
        rngs,
    ):
        """Build the generator and the discriminator.

        ngf, ndf: channels of the largest map of G and of D.
        nz, nt: dimensions of z and of the projected sentence vector.
        matching_aware, interpolate: GAN, GAN-CLS, GAN-INT, GAN-INT-CLS.
        cls_weight, interp_weight: w, and the weight of the midpoints in L_G.
        interp_extrapolate: move from h_i by alpha (h_j - h_i), alpha ~ U(-1, 1), instead of to the
            midpoint.
        text_norm: batch norm in D's text branch (not for COCO).
        third_activation: leaky ReLU after D's third convolution (COCO's script; that for birds and
            flowers lacks it).
        large: two bottlenecks a map in G instead of one.
        text: the trained CharCnnRnn, or None where the data hold sentence vectors.

        Ours, and off in the paper's settings:

        unit_text: scale sentence vectors to a mean square of 1; those of a briefly trained encoder
            are so short that G does not hear them next to z.
        d_norm: 'layer'; a D that normalises over the batch can tell a batch of mismatched or drawn
            pictures as a whole, and then has little to say to G about the single one.
        r1: weight of a penalty on D's slope at real pairs, which keeps D from winning on pictures
            that are easy to tell from drawn ones.
        """
        choose('d_norm', d_norm, NORMS)
        d = text_dim(text, meta)
        self.text = text
        self.G = ClsGenerator(meta.size, d, ngf, nz, nt, large, unit_text, rngs=rngs)
        self.D = ClsDiscriminator(
            meta.size, d, ndf, nt, text_norm, third_activation, NORMS[d_norm], rngs=rngs
        )
        self.cls_weight, self.interpolate = cls_weight if matching_aware else 0.0, interpolate
        self.interp_weight, self.extrapolate, self.r1 = interp_weight, interp_extrapolate, r1
        self.unit_text = unit_text
        wrong = ('wrong_image',) if matching_aware else ()
        self.needs = ('image', *wrong, *text_reads(text))

    def encode(self, batch):
        """Return sentence vectors b d; where a row has several captions, their mean."""
        return encode_sentence(self.text, batch, unit=self.unit_text)

    def noise(self, key, n):
        return self.G.noise(key, n)

    def forward(self, batch, key):
        text = self.encode(batch)
        z_key, alpha_key = jax.random.split(key)
        if self.interpolate:
            if len(text) % 2:
                raise RunError(
                    f'GAN-INT pairs the sentences of a batch, and {len(text)} is odd. '
                    'Set an even stages.gan.batch_size.'
                )
            a, b = jnp.split(text, 2)
            alpha = 0.5
            if self.extrapolate:
                alpha = jax.random.uniform(alpha_key, (len(a), 1), minval=-1, maxval=1)
            text = jnp.concatenate([text, a + alpha * (b - a)])  # b + b/2
        return Fakes(self.G(text, self.noise(z_key, len(text))['z'], train=True), text)

    def d_loss(self, batch, key, out):
        b, w = len(batch['image']), self.cls_weight
        text = out.text[:b]
        d_real = bce(self.D(batch['image'], text, train=True), 1.0)
        d_wrong = bce(self.D(batch['wrong_image'], text, train=True), 0.0) if w else 0.0
        d_fake = bce(self.D(out.image[:b], text, train=True), 0.0)
        loss = d_real + w * d_wrong + (1 - w) * d_fake
        logs = {'d_real': d_real, 'd_fake': d_fake} | ({'d_wrong': d_wrong} if w else {})
        if self.r1:
            logs['penalty'] = self.r1 / 2 * self.squared_slope(batch['image'], text, key)
            loss += logs['penalty']
        return loss, logs

    def squared_slope(self, image, text, key, step=0.03):
        """Estimate the mean over the batch of |grad D|^2 at the images.

        R1: Mescheder, Geiger, Nowozin, ICML 2018. Along one random direction n, since
        E (n . grad D)^2 = |grad D|^2, and by a difference, since D's batch statistics belong to it.
        """
        n = step * jax.random.normal(jax.random.fold_in(key, 1), image.shape)
        change = self.D(image + n, text, train=True) - self.D(image - n, text, train=True)
        slope = change.astype(jnp.float32) / (2 * step)
        return (slope**2).mean()

    def g_loss(self, batch, key, out):
        rows = bce_per_row(self.D(out.image, out.text, train=True), 1.0)
        weights = jnp.where(jnp.arange(len(rows)) < len(batch['image']), 1.0, self.interp_weight)
        return (weights * rows).mean(), {}

    def sample(self, batch, noise):
        return {'image': self.G(self.encode(batch), noise['z'], train=False)}


# ----------------------------------------------------------------------------- the style stage
class Style(Stage):
    """Learns to read z off a picture that the trained generator draws.

    It makes no samples: `transfer` draws in the style of a picture. It is left out of a run that
    gives it no steps. A system with other generators names them in `loads`, the one that reads z
    first, the one that draws the final picture last, and overrides `noise` and `drawn`.
    """

    phases = (Phase('style_loss', trains=('S',)),)
    loads = {'G': 'gan.G', 'text': 'gan.text'}
    draws_from, explores = ('sentence',), {'style': 'transfer'}
    tiny = dict(ndf=8)

    def __init__(self, meta, *, ndf=64, nt=128, text_input=False, text, rngs, **generators):
        """Build the style encoder.

        ndf: channels of its first map.
        nt, text_input: S reads the sentence vector, too, nt numbers of it.
        text: the trained text encoder, or None where the data hold sentence vectors.
        generators: the trained ones, as `loads` names them.
        """
        for name, network in generators.items():
            setattr(self, name, network)
        first, last = list(generators.values())[0], list(generators.values())[-1]
        self.text, self.unit_text = text, first.unit_text
        if meta.size != last.size:
            raise ValueError(
                f'The generator draws {last.size} px, the style encoder would read {meta.size} px: '
                f'set stages.style.data.size={last.size}.'
            )
        d = text_dim(text, meta) if text_input else 0
        self.S = StyleEncoder(meta.size, d, ndf, first.nz, nt, rngs=rngs)
        self.needs = text_reads(text)

    @classmethod
    def skip(cls, config):
        block = config.stages.get('style', {})
        return not block.get('steps') and not block.get('epochs')

    def encode(self, batch):
        """Return sentence vectors b d, as those on which the generator was trained."""
        return encode_sentence(self.text, batch, unit=self.unit_text)

    def noise(self, key, n):
        return self.G.noise(key, n)

    def drawn(self, text, noise):
        """Draw pictures of sentence vectors: b s s 3."""
        return self.G(text, **noise, train=False)

    def style_loss(self, batch, key, out):
        text = self.encode(batch)
        noise = self.noise(key, len(text))
        z, found = noise['z'], self.S(self.drawn(text, noise), text, train=self.training)
        together = jnp.mean((z - z.mean(0)) * (found - found.mean(0)), 0)
        correlation = together / (z.std(0) * found.std(0) + 1e-6)
        return ((found - z) ** 2).sum(-1).mean(), {'correlation': correlation.mean()}

    def recover(self, batch, noise):
        """Read z off the picture drawn from this noise: {'z': b nz}."""
        text = self.encode(batch)
        return {'z': self.S(self.drawn(text, noise), text, train=False)}

    def transfer(self, batch, noise):
        """Draw the sentences of a batch in the style of its pictures.

        -> {'image': b s s 3, 'z': that style, b nz}; what else is random is in `noise`.
        """
        text = self.encode(batch)
        z = self.S(batch['image'], text, train=False)
        return {'image': self.drawn(text, noise | {'z': z}), 'z': z}


# in the order of training
STAGES = {'text': JointEmbedding, 'gan': GanCls, 'style': Style}
