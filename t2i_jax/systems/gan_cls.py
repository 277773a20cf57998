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

Deviations: the images of G are shared by D's and G's step (the original draws fresh noise for G's).
The style encoder's layers were never published: here they are those of D up to the map of 4 x 4,
all with their activations, and a dense layer. A row's captions are drawn without replacement, and
the wrong image from all records that do not match, not from a class drawn first. A moving average
of G's weights is kept; `stages.gan.ema=0` samples with the plain weights, as the original does.

Expected (as measured by the StackGAN authors, from memory): Inception Score 2.88 birds, 2.66
flowers, 7.88 COCO.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.encoders.sentence import encode_sentence, text_dim, text_reads
from t2i_jax.layers.conv import Conv, ConvTranspose, levels
from t2i_jax.layers.game import GAME, PLAIN, Game, Seen, Wrong
from t2i_jax.layers.linear import linear, lrelu, torch_linear
from t2i_jax.layers.norm import G_NORMS, NORMS, BatchNorm, ModulatedNorm
from t2i_jax.layers.relu import Bottleneck
from t2i_jax.layers.remat import recomputed
from t2i_jax.runtime.errors import RunError, choose
from t2i_jax.stage import Phase, Stage, normal_rows
from t2i_jax.systems.joint_embedding import JointEmbedding


# ------------------------------------------------------------------------------------ networks
class ClsGenerator(nnx.Module):
    """Sentence vector and noise -> image in [-1, 1].

    `unit_text`: how sentence vectors are scaled, for stages that load this network.
    """

    def __init__(
        self,
        size,
        embedding,
        ngf,
        nz,
        nt,
        large=False,
        unit_text=False,
        modulated=False,
        fine=False,
        *,
        rngs,
    ):
        n = levels(size)
        c = [ngf << (n - 1 - i) for i in range(n)]  # 64 px: 8, 4, 2, 1 times ngf
        # a hidden map of full size
        c += [ngf // 2] if fine else []
        self.nz, self.size, self.unit_text, self.modulated = nz, size, unit_text, modulated
        self.project = torch_linear(embedding, nt, rngs=rngs)
        self.first = linear(nz + nt, 16 * c[0], rngs=rngs)
        self.ups = nnx.List([ConvTranspose(*pair, 4, rngs=rngs) for pair in zip(c, c[1:])])
        norms = [ModulatedNorm(d, nz + nt, rngs=rngs) for d in c] if modulated else ()
        self.norms = nnx.List(norms or [BatchNorm(d, rngs=rngs) for d in c])
        blocks = 2 if large else 1
        self.blocks = nnx.List(
            [Bottleneck(d, jax.nn.relu, rngs=rngs) for d in c[:2] for _ in range(blocks)]
        )
        if fine:
            start = nnx.initializers.normal(0.05)
            self.image = Conv(c[-1], 3, 3, padding=1, kernel_init=start, rngs=rngs)
        else:
            self.image = ConvTranspose(c[-1], 3, 4, rngs=rngs)

    def noise(self, key, n):
        return {'z': normal_rows(key, n, (self.nz,))}

    def __call__(self, text, z, *, train):
        condition = jnp.concatenate([z, lrelu(self.project(text))], -1)
        x = self.first(condition)
        x = rearrange(x, 'b (h w c) -> b h w c', h=4, w=4)
        each, given = len(self.blocks) // 2, (condition,) if self.modulated else ()
        for i, norm in enumerate(self.norms):
            x = self.ups[i - 1](x) if i else x
            x = norm(x, *given, train=train)  # b 4 4 8c, b 8 8 4c, b 16 16 2c, b 32 32 c
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
        self,
        size,
        embedding,
        ndf,
        nt,
        text_norm,
        third_activation,
        norm=BatchNorm,
        game=PLAIN,
        *,
        rngs,
    ):
        c = ndf << (levels(size) - 1)
        self.trunk = ClsTrunk(size, ndf, third_activation, norm, rngs=rngs)
        self.project = torch_linear(embedding, nt, rngs=rngs)
        self.text_norm = BatchNorm(nt, rngs=rngs) if text_norm else None
        self.joint = Conv(c + nt, c, 1, rngs=rngs)
        self.norm = norm(c, rngs=rngs)
        self.logit = linear(16 * c, 1, rngs=rngs)
        self.extras = game.extras(16 * c, embedding, rngs=rngs)

    def __call__(self, image, text, *, train):
        return self.judge(self.trunk(image, train=train), text, train=train)

    def judge(self, x, text, *, train):
        """Compute the logits of pictures by their maps of the trunk: b."""
        t = self.project(text)
        t = lrelu(self.text_norm(t, train=train) if self.text_norm else t)
        both = jnp.concatenate([x, repeat(t, 'b c -> b 4 4 c')], -1)
        both = lrelu(self.norm(self.joint(both), train=train))
        logits = self.logit(rearrange(both, 'b h w c -> b (h w c)'))[:, 0]
        return self.extras(logits, x, text)


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
    draws_from, makes, critics = ('sentence',), ('image',), ('D',)
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
        game=GAME,
        wrong='pictures',
        leave_out='class',
        g_norm='batch',
        fine=False,
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
        game, leave_out: see layers/game.py.
        wrong: what is wrong in wrong pairs, 'pictures' or 'text'; with 'text' D's trunk sees a real
            picture once.
        g_norm: 'modulated', G's norms are scaled and shifted by the sentence and z.
        fine: G has a hidden map of full size; without it the last doubling is linear, and it can
            draw no corners.
        """
        choose('d_norm', d_norm, NORMS)
        choose('g_norm', g_norm, G_NORMS)
        self.game = Game.of(game, leave_out)
        self.wrong = choose('wrong', wrong, ('pictures', 'text'))
        if interpolate and self.game.pairs:
            raise ValueError(
                "game.adversary='pairing' compares a drawn with a real picture of one sentence, "
                'which the midpoints of interpolate=True do not have: set one of them.'
            )
        d = text_dim(text, meta)
        self.text = text
        more = g_norm == 'modulated', fine
        self.G = ClsGenerator(meta.size, d, ngf, nz, nt, large, unit_text, *more, rngs=rngs)
        more = NORMS[d_norm], self.game
        self.D = ClsDiscriminator(
            meta.size, d, ndf, nt, text_norm, third_activation, *more, rngs=rngs
        )
        self.game.prepare(self.D, rngs)
        self.sampler = self.game.sampler
        self.cls_weight, self.interpolate = cls_weight if matching_aware else 0.0, interpolate
        self.interp_weight, self.extrapolate = interp_weight, interp_extrapolate
        self.unit_text = unit_text
        reads = text_reads(text)
        wrong_text = tuple(f'wrong_{name}' for name in reads if name != 'length')
        pairs = (('wrong_image',) if wrong == 'pictures' else wrong_text) if matching_aware else ()
        self.needs = ('image', *pairs, *reads, *self.game.compared(meta))

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
        noise = self.game.tied(self.noise(z_key, len(text)), len(batch['image']))
        return Fakes(self.G(text, noise['z'], train=True), text)

    def d_loss(self, batch, key, out):
        b, w = len(batch['image']), self.cls_weight
        D, text, wrong, other = self.D, out.text[:b], None, None
        self.game.begin(D)
        image, fake = self.game.seen(key, batch['image'], out.image[:b])
        code = D.trunk(image, train=True)
        real = D.judge(code, text, train=True)
        if w and self.wrong == 'pictures':
            (image_of_other,) = self.game.seen(key, batch['wrong_image'], first=2)
            wrong = D(image_of_other, text, train=True)
        elif w:
            other = encode_sentence(self.text, batch, unit=self.unit_text, prefix='wrong_')
            wrong = D.judge(code, other, train=True)
        drawn = D(fake, text, train=True)
        answers = self.game.d_answers(real, drawn, wrong)
        loss = answers.right + (w * answers.wrong if w else 0.0) + (1 - w) * answers.drawn
        logs = {'d_real': answers.right, 'd_fake': answers.drawn}
        logs |= {'d_wrong': answers.wrong} if w else {}
        more, its_logs = self.game.d_more(
            D.extras,
            lambda x: D(x, text, train=True),
            key,
            batch,
            text,
            Seen(image, code, real),
            Seen(fake, None, drawn),
            Wrong(other, wrong),
        )
        return loss + more, logs | its_logs

    def g_loss(self, batch, key, out):
        b, D = len(batch['image']), self.D
        self.game.begin(D)
        image, fake = self.game.seen(key, batch['image'], out.image)
        code = D.trunk(fake, train=True)
        drawn = D.judge(code, out.text, train=True)
        real = D(image, out.text, train=True) if self.game.pairs else None
        rows = self.game.g_answers(drawn, real)
        weights = jnp.where(jnp.arange(len(rows)) < b, 1.0, self.interp_weight)
        more, logs = self.game.g_more(D.extras, batch, code[:b], out.text[:b])
        return (weights * rows).mean() + more, logs

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
