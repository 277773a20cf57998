"""StackGAN++ (StackGAN-v2): Realistic Image Synthesis with Stacked Generative Adversarial Networks. Zhang, Xu, Li, Zhang, Wang, Huang,
Metaxas, TPAMI 2018 (arXiv 1710.10916).

One network draws the same picture at several sizes, each twice the last: a chain of hidden maps h_0, h_1, ..., of which each gives a
picture and, beside the condition, the next map. Every size has a discriminator of its own, with two heads: is the picture real (u), and does it
match the sentence (c). A picture with the wrong sentence is real for u. Without sentences the same tree draws from noise alone.

    bce1(s) = softplus(-s), bce0(s) = softplus(s);  sums over the scales i;  x' a picture that does not match;  a = uncond_weight
    mu, logvar = CA(sentence vector),  condition = mu + exp(logvar / 2) eps,  z ~ N(0, 1)
    L_D = sum_i bce1(c(x_i, mu)) + bce0(c(x'_i, mu)) + bce0(c(G_i, mu)) + a [bce1(u(x_i)) + bce1(u(x'_i)) + bce0(u(G_i))]
          a = 0: sum_i bce1(c(x_i, mu)) + 1/2 [bce0(c(x'_i, mu)) + bce0(c(G_i, mu))]
    L_G = sum_i bce1(c(G_i, mu)) + a bce1(u(G_i)) + 2 KL + alpha sum_{i > 0} colour(G_i, G_{i-1})       KL: mean over batch and dimensions
    without sentences: L_D = sum_i bce1(u(x_i)) + bce0(u(G_i)),  L_G = sum_i bce1(u(G_i)) + alpha colour

`colour` (losses.colour_consistency) pulls the mean and the covariance of a picture's colours to those of the next smaller one. All this is the
official code's (hanzhanggit/StackGAN-v2); in the paper the losses of a scale are plain sums of one conditional and one unconditional
term over all pairs, KL has weight 1 and is a sum over dimensions.

Deviations: the smaller real pictures are means over blocks of pixels (PIL's bilinear filter in the code). The text encoder is
trained here, as in GAN-CLS; the paper has stored vectors of the authors' (data.embedding='stored'). Wrong pictures certainly do not match; the
code draws once more, once, where the class is the same. Samples are drawn with running statistics that fit the averaged weights, and a checkpoint
never overwrites the weights that are trained, as it does in the code. Scales below 64 px, for laptops, are ours: a map of side r has
64 gf / r channels throughout, as the paper's have from 4 to 256 px, and discriminators lack the first layers.

Sizes at 64, 128, 256 px with sentence vectors of 1024: G 21,239,696, D 5,723,906 + 18,834,178 + 71,269,122; without sentences G 16,472,208,
D 2,765,569 + 15,875,841 + 68,310,785. The discriminators are one network `D` for the trainer; `--mode=describe` shows the sum and each.
Expected (from memory of the paper): Inception Score 4.04 birds, 3.26 flowers, 8.30 COCO; FID 15.30, 48.68, 81.59.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.data.augment import shrink
from t2i_jax.layers.blocks import (
    ORTHOGONAL,
    Head,
    ImageTrunk,
    InitStage,
    Keep,
    Residual,
    ToImage,
    Up,
)
from t2i_jax.layers.conditioning import ConditioningAugmentation
from t2i_jax.layers.norm import NORMS, separately
from t2i_jax.losses import bce, colour_consistency, conditioning_kl
from t2i_jax.runtime.errors import RunError
from t2i_jax.stage import Phase, Stage, normal_rows
from t2i_jax.systems import gan_cls
from t2i_jax.systems.gan_cls import GanCls, JointEmbedding


class Drawn(NamedTuple):
    images: Any  # from the smallest to the largest, b s s 3
    mu: Any  # b nc, None without sentences
    logvar: Any


class NextStage(nnx.Module):
    """A map b s s c, and a vector b n at every pixel -> b 2s 2s c/2."""

    def __init__(self, c, n, residuals, *, rngs):
        self.joint = Keep(c, c, vector=n, rngs=rngs)
        self.residuals = nnx.List([Residual(c, rngs=rngs) for _ in range(residuals)])
        self.up = Up(c, c // 2, rngs=rngs)

    def __call__(self, x, vector, *, train):
        x = self.joint(x, vector, train=train)
        for residual in self.residuals:
            x = residual(x, train=train)
        return self.up(x, train=train)


class Generator(nnx.Module):
    """Sentence vector b d and noise -> pictures of all sides. With embedding 0 there is no sentence, and z is the condition, too."""

    def __init__(self, sides, embedding, gf, nz, nc, residuals, *, rngs):
        n = nc if embedding else nz
        widths = [64 * gf // side for side in sides]  # 64, 128, 256 px: 1, 1/2, 1/4 times gf
        self.ca = (
            ConditioningAugmentation(embedding, nc, kernel_init=ORTHOGONAL, rngs=rngs)
            if embedding
            else None
        )
        self.first = InitStage(n + nz if embedding else nz, widths[0], sides[0], rngs=rngs)
        self.next = nnx.List(
            [
                NextStage(c, n, residuals if i < 2 else 1, rngs=rngs)
                for i, c in enumerate(widths[:-1])
            ]
        )
        self.to_images = nnx.List([ToImage(c, rngs=rngs) for c in widths])
        self.nz, self.size = nz, sides[-1]

    def noise(self, key, n):
        z_key, eps_key = jax.random.split(key)
        noise = {'z': normal_rows(z_key, n, (self.nz,))}
        return noise | {'eps': self.ca.noise(eps_key, n)} if self.ca else noise

    def __call__(self, text, z, eps, *, train):
        condition, mu, logvar = self.ca(text, eps) if self.ca else (z, None, None)
        x = self.first(
            jnp.concatenate([condition, z], -1) if self.ca else z, train=train
        )  # b 64 64 c
        images = [self.to_images[0](x)]
        for stage, to_image in zip(self.next, self.to_images[1:]):
            x = stage(x, condition, train=train)  # b 128 128 c/2, b 256 256 c/4
            images.append(to_image(x))
        return Drawn(images, mu, logvar)


class Discriminator(nnx.Module):
    """Picture of one side, and mu b nc -> logits b of "matching" (None without sentences) and of "real"."""

    def __init__(self, side, df, nc, norm, *, rngs):
        self.trunk = ImageTrunk(side, df, norm, rngs=rngs)
        self.matching = Head(8 * df, nc, norm, rngs=rngs) if nc else None
        self.real = Head(8 * df, rngs=rngs)

    def __call__(self, image, mu=None, *, train):
        code = self.trunk(image, train=train)  # b 4 4 8c
        return self.matching(code, mu, train=train) if self.matching else None, self.real(
            code, train=train
        )


class Text(JointEmbedding):
    """The text stage of GAN-CLS, which an unconditional run goes without."""

    @classmethod
    def skip(cls, config):
        return super().skip(config) or not config.stages.gan.model.conditional


class StackGanPp(Stage):
    phases = (Phase('d_loss', trains=('D',)), Phase('g_loss', trains=('G',)))
    ema, loads = ('G',), {'text': 'text.text'}
    draws_from, makes = ('sentence',), ('image', 'images')
    tiny = dict(scales=2, gf=4, df=4, residuals=1)

    def __init__(
        self,
        meta,
        *,
        scales=3,
        conditional=True,
        gf=64,
        df=64,
        nz=100,
        nc=128,
        residuals=2,
        uncond_weight=1.0,
        kl_weight=2.0,
        colour_weight=0.0,
        through_mu=True,
        unit_text=False,
        d_norm='batch',
        text,
        rngs,
    ):
        """scales: pictures of the tree; the largest has the data's size, each other half the next, the smallest 8 px or more. A map of side r
        has 64 gf / r channels, so a tree that starts below 64 px starts wider. conditional: False draws from z alone, and the stage `text` is left out.
        nc: dimensions of the condition. residuals: blocks of the second and of the third scale; further scales have one.
        uncond_weight: a of the formulas. colour_weight: alpha; the paper has 50 without sentences. through_mu: in G's phase the gradient also
        reaches the conditioning augmentation through what the discriminators are told.
        Ours, and off in the paper's settings, as in gan_cls: unit_text scales sentence vectors to a mean square of 1; d_norm='layer' lets
        discriminators normalise each picture alone.
        text: the trained CharCnnRnn, or None where the data hold sentence vectors. Raises ValueError for sizes that do not fit.
        """
        if d_norm not in NORMS:
            raise ValueError(f'd_norm is {d_norm!r}; it is {" or ".join(NORMS)}.')
        embedding = (text.embedding if text else meta.embedding_dim) if conditional else 0
        if conditional and not embedding:
            raise ValueError(
                'There is neither a text encoder nor a stored sentence vector: set data.embedding=none or import vectors.'
            )
        self.sides = tuple(meta.size >> i for i in reversed(range(scales)))
        if scales < 1 or self.sides[0] < 8 or meta.size & meta.size - 1:
            raise ValueError(
                f'scales={scales} of pictures of {meta.size} px: sides are 8, 16, 32, ... px, each half the next.'
            )
        if 64 * gf % meta.size:
            raise ValueError(
                f'gf={gf} gives the map of {meta.size} px {64 * gf / meta.size:g} channels: make it a multiple of {max(1, meta.size // 64)}.'
            )
        self.text, self.conditional = text if conditional else None, conditional
        self.G = Generator(self.sides, embedding, gf, nz, nc, residuals, rngs=rngs)
        self.D = nnx.List(
            [
                Discriminator(side, df, nc if conditional else 0, NORMS[d_norm], rngs=rngs)
                for side in self.sides
            ]
        )
        self.uncond_weight, self.kl_weight, self.colour_weight = (
            uncond_weight,
            kl_weight,
            colour_weight,
        )
        self.through_mu, self.unit_text, self.G.unit_text = through_mu, unit_text, unit_text
        self.needs = ('image',) + (
            ('wrong_image', 'chars' if text else 'embedding') if conditional else ()
        )
        self.draws_from = ('sentence',) if conditional else ()

    encode = GanCls.encode  # sentence vectors b d, read or stored

    def noise(self, key, n):
        return self.G.noise(key, n)

    def draw(self, batch, noise, train):
        return self.G(
            self.encode(batch) if self.conditional else None,
            noise['z'],
            noise.get('eps'),
            train=train,
        )

    def forward(self, batch, key):
        return self.draw(batch, self.noise(key, len(batch['image'])), train=True)

    def pyramid(self, batch, prefix=''):
        """A batch's real (or `wrong_`) pictures at all sides: the largest, and the smaller ones as the augmentation or else `shrink` makes them of it."""
        image = batch[prefix + 'image']
        there = {smaller.shape[1]: smaller for smaller in batch.get(prefix + 'images', ())}
        shrunk = {
            side: jax.vmap(lambda x, side=side: shrink(x, side))(image)
            for side in self.sides[:-1]
            if side not in there
        }
        return [(there | shrunk | {self.sides[-1]: image})[side] for side in self.sides]

    def d_loss(self, batch, key, out):
        reals, logs = self.pyramid(batch), {}
        wrongs = self.pyramid(batch, 'wrong_') if self.conditional else reals
        for side, D, *pictures in zip(self.sides, self.D, reals, wrongs, out.images):
            if not self.conditional:
                (_, real), (_, drawn) = separately(D, pictures[::2])
                logs[f'd_{side}'] = bce(real, 1.0) + bce(drawn, 0.0)
                continue
            matching, real = zip(*separately(D, pictures, out.mu))  # each for real, wrong, drawn
            right, *mismatched = (
                bce(logits, label) for logits, label in zip(matching, (1.0, 0.0, 0.0))
            )
            unconditional = sum(bce(logits, label) for logits, label in zip(real, (1.0, 1.0, 0.0)))
            a = self.uncond_weight
            logs[f'd_{side}'] = (
                right + sum(mismatched) + a * unconditional if a else right + sum(mismatched) / 2
            )
        return sum(logs.values()), logs

    def g_loss(self, batch, key, out):
        mu, logs = out.mu if self.through_mu else jax.lax.stop_gradient(out.mu), {}
        for side, D, fake in zip(self.sides, self.D, out.images):
            matching, real = D(fake, mu, train=True)
            logs[f'g_{side}'] = (
                bce(matching, 1.0) + self.uncond_weight * bce(real, 1.0)
                if self.conditional
                else bce(real, 1.0)
            )
        loss = sum(logs.values())
        if self.conditional:
            logs['kl'] = conditioning_kl(out.mu, out.logvar)
            loss += self.kl_weight * logs['kl']
        if self.colour_weight:
            logs['colour'] = sum(
                colour_consistency(fine, coarse) for coarse, fine in zip(out.images, out.images[1:])
            )
            loss += self.colour_weight * logs['colour']
        return loss, logs

    def sample(self, batch, noise):
        images = self.draw(batch, noise, train=False).images
        return {'image': images[-1], 'images': images}


class Style(gan_cls.Style):
    """GAN-CLS's style encoder, for the largest picture."""

    @classmethod
    def skip(cls, config):
        skipped = super().skip(config)
        if not skipped and not config.stages.gan.model.conditional:
            raise RunError(
                'A style encoder reads what a sentence leaves open, and this run has no sentences: set stages.style.steps=0.'
            )
        return skipped

    def drawn(self, text, noise):
        return self.G(text, **noise, train=False).images[-1]


STAGES = {'text': Text, 'gan': StackGanPp, 'style': Style}  # the order is the training order
