"""AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial Networks. Xu, Zhang, Huang, Zhang, Gan, Huang, He,
CVPR 2018 (arXiv 1711.10485).

The tree of StackGAN++, whose later maps look at the words. The first map h_0 is drawn from the sentence vector and noise. Each pixel of a map then
asks which words it should show, and the words' mean by that attention, beside the map, gives the next one. What a picture of the last scale has
to do with its words is also told by the DAMSM, two encoders that a stage of its own trains to match regions of pictures with words.

    words e, sentence s: the DAMSM's, at rest;  mu, logvar = CA(s),  c = mu + exp(logvar / 2) eps,  z ~ N(0, 1)
    h_0 = F_0(c, z),  h_i = F_i(h_{i-1}, attention(h_{i-1}, e)),  G_i = tanh(conv(h_i));      attention: layers/attention.py
    bce1(l) = softplus(-l), bce0(l) = softplus(l);  u: is it real, m: does it match;  s' the sentence of another picture
    L_D = sum_i 1/2 [bce1(u(x_i)) + bce1(m(x_i, s))] + 1/3 [bce0(u(G_i)) + bce0(m(G_i, s)) + bce0(m(x_i, s'))]
    L_G = sum_i bce1(u(G_i)) + bce1(m(G_i, s)) + KL + lambda (L_words + L_sentence)(G_last)            KL: mean over batch and dimensions
    AttnDCGAN, one picture at the end and no u: L_D = bce1(m(x, s)) + 1/2 [bce0(m(G, s)) + bce0(m(x, s'))]

All this is the official code's (taoxugit/AttnGAN). In the paper each term of L_G and L_D has a factor 1/2, and pairs that do not match have no part in
them. s' is the next row's sentence, whatever it says, for all rows but the last.

Deviations: the padding of a sentence is hidden from its own pixels; in the code from those of others (`mask_mode='original'`). The smaller
real pictures are means over blocks of pixels (PIL's bilinear filter in the code). Samples are drawn with running statistics that fit the averaged
weights; in the code these are the live ones. Drawing reads the first words of a sentence that is too long; the code a random choice of them, as
training does here, too. A vocabulary has the words of the training captions, the code's also those of the test captions. Scales below 64 px, for
laptops, are ours: a map of side r < 64 has 64 gf / r channels, as those of F_0 have, and discriminators lack the first layers.

Expected (paper, lambda 5 for birds, 50 for COCO): Inception Score 4.36 birds, 25.89 COCO; R-precision 67.82 % and 85.47 %. With one stage of attention
on birds, from memory: without the DAMSM 3.98 and 10.37 %, with lambda 5 4.35 and 58.65 %. FID, as DM-GAN's authors measured it by PyTorch's Inception:
23.98 and 35.49.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.layers.attention import WordAttention
from t2i_jax.layers.blocks import ORTHOGONAL, Head, ImageTrunk, InitStage, Residual, ToImage, Up
from t2i_jax.layers.conditioning import ConditioningAugmentation
from t2i_jax.layers.norm import NORMS, separately
from t2i_jax.losses import bce, conditioning_kl, sentence_loss, words_loss
from t2i_jax.runtime.errors import RunError
from t2i_jax.stage import Phase, Stage, normal_rows
from t2i_jax.systems.damsm import LEAVE_OUT, Damsm, not_wrong
from t2i_jax.systems.stackgan_pp import StackGanPp


class Text(NamedTuple):
    words: Any  # b t d, 0 at padding
    sentence: Any  # b d
    mask: Any  # b t float32, 0 at padding; between two sentences (explore) what is a word of either counts


class Drawn(NamedTuple):
    images: Any  # from the smallest to the largest, b s s 3
    attention: Any  # of each map that looked at words, b s s t
    mu: Any  # b nc
    logvar: Any
    text: Any  # the Text that they were drawn from


class NextStage(nnx.Module):
    """A map b s s c and a sentence -> (the map b 2s 2s c' of the next side, attention b s s t)."""

    def __init__(self, d, c, c_next, residuals, mask_mode, *, rngs):
        self.attention = WordAttention(d, c, mask_mode, rngs=rngs)
        self.residuals = nnx.List([Residual(2 * c, rngs=rngs) for _ in range(residuals)])
        self.up = Up(2 * c, c_next, rngs=rngs)

    def __call__(self, x, words, mask, *, train):
        context, beta = self.attention(x, words, mask)
        x = jnp.concatenate([x, context], -1)  # b s s 2c
        for residual in self.residuals:
            x = residual(x, train=train)
        return self.up(x, train=train), beta  # b 2s 2s c'


class Generator(nnx.Module):
    """Text and noise -> pictures of all sides, or (`single`) of the last alone."""

    def __init__(
        self, sides, d, gf, nz, nc, residuals, attention_count, mask_mode, single, *, rngs
    ):
        widths = [gf * max(1, 64 // side) for side in sides]
        self.ca = ConditioningAugmentation(d, nc, kernel_init=ORTHOGONAL, rngs=rngs)
        self.first = InitStage(nc + nz, widths[0], sides[0], rngs=rngs)
        self.next = nnx.List(
            [
                NextStage(d, *pair, residuals, mask_mode, rngs=rngs)
                for pair in zip(widths, widths[1:])
            ]
        )
        self.to_images = nnx.List(
            [ToImage(c, rngs=rngs) for c in (widths[-1:] if single else widths)]
        )
        self.nz, self.size, self.attention_count = nz, sides[-1], attention_count

    def noise(self, key, n):
        z_key, eps_key = jax.random.split(key)
        return {'z': normal_rows(z_key, n, (self.nz,)), 'eps': self.ca.noise(eps_key, n)}

    def __call__(self, text, z, eps, *, train):
        condition, mu, logvar = self.ca(text.sentence, eps)
        maps, attention = (
            [self.first(jnp.concatenate([condition, z], -1), train=train)],
            [],
        )  # b 64 64 c
        sentence = (
            text.sentence[:, None],
            jnp.ones((len(text.mask), 1)),
        )  # as the only word of itself
        for i, stage in enumerate(self.next):
            looks = i < self.attention_count
            x, beta = stage(
                maps[-1], *((text.words, text.mask > 0) if looks else sentence), train=train
            )  # b 128 128 c, b 256 256 c
            maps.append(x)
            attention += [beta] if looks else []
        images = [to_image(x) for to_image, x in zip(self.to_images, maps[-len(self.to_images) :])]
        return Drawn(images, attention, mu, logvar, text)


class Discriminator(nnx.Module):
    """Pictures of one side -> codes b 4 4 8c, by `trunk`; codes -> logits b of "matching" a sentence b d and of "real" (not of AttnDCGAN)."""

    def __init__(self, side, df, d, norm, real, *, rngs):
        self.trunk = ImageTrunk(side, df, norm, rngs=rngs)
        self.matching = Head(8 * df, d, norm, rngs=rngs)
        self.real = Head(8 * df, rngs=rngs) if real else None


class AttnGan(Stage):
    phases = (Phase('d_loss', trains=('D',)), Phase('g_loss', trains=('G',)))
    ema, loads = ('G',), {'text': 'damsm.text', 'image': 'damsm.image'}
    draws_from, makes = ('sentence',), ('image', 'images', 'attention')
    judges = ('damsm',)
    tiny = dict(scales=2, gf=4, df=4, residuals=1)
    advice = {
        'label': 'Set --config.stages.gan.model.leave_out=none.',
        'facts': 'Set --config.stages.gan.model.leave_out=class.',
        'scene': 'Set --config.stages.gan.model.leave_out=class.',
    }

    def __init__(
        self,
        meta,
        *,
        scales=3,
        attention_count=2,
        dcgan=False,
        gf=32,
        df=64,
        nz=100,
        nc=100,
        residuals=2,
        kl_weight=1.0,
        damsm_weight=5.0,
        gamma1=5.0,
        gamma2=5.0,
        gamma3=10.0,
        gamma2_root=False,
        leave_out='class',
        wrong='shift',
        mask_mode='fixed',
        unit_text=False,
        d_norm='batch',
        text,
        image,
        rngs,
    ):
        """scales: pictures of the tree; the largest has the data's size, each other half the next, the smallest 8 px or more. gf: channels of the maps of
        64 px and more. attention_count: how many of the later maps look at words; those after them are told the sentence vector, by as many parameters.
        dcgan: AttnDCGAN, which draws the last picture alone; in the official code with residuals=0 and damsm_weight=1.
        nc: dimensions of the condition. residuals: blocks of each scale but the first. damsm_weight: lambda; the DAMSM has no part in training where it is 0.
        gamma1 (4 in the official code), gamma2, gamma3, gamma2_root, leave_out: of the DAMSM's losses, as in damsm.py.
        wrong: 'shift', a discriminator's wrong sentence is the next row's, or 'sampled', one that certainly does not match (ours).
        mask_mode: of WordAttention. Ours, and off in the paper's settings, as in stackgan_pp: unit_text scales sentence vectors to a mean square of 1;
        d_norm='layer' lets discriminators normalise each picture alone.
        text, image: the trained encoders. Raises ValueError for sizes and words that do not fit.
        """
        for name, value, known in (
            ('d_norm', d_norm, NORMS),
            ('leave_out', leave_out, LEAVE_OUT),
            ('wrong', wrong, ('shift', 'sampled')),
        ):
            if value not in known:
                raise ValueError(f'{name} is {value!r}; it is {", ".join(known)}.')
        if meta.captions != 1:
            raise ValueError(
                f'AttnGAN reads one caption of a picture, not {meta.captions}: set data.captions=1.'
            )
        sides = tuple(meta.size >> i for i in reversed(range(scales)))
        if scales < 1 or sides[0] < 8 or meta.size & meta.size - 1:
            raise ValueError(
                f'scales={scales} of pictures of {meta.size} px: sides are 8, 16, 32, ... px, each half the next.'
            )
        if attention_count < 0:
            raise ValueError(
                f'attention_count is {attention_count}; it is the number of maps that look at words, 0 for none.'
            )
        self.sides = sides[-1:] if dcgan else sides  # of pictures
        self.text, self.image = text, image
        self.check_encoders(meta.size)
        self.G = Generator(
            sides, text.d, gf, nz, nc, residuals, attention_count, mask_mode, dcgan, rngs=rngs
        )
        self.D = nnx.List(
            [
                Discriminator(side, df, text.d, NORMS[d_norm], not dcgan, rngs=rngs)
                for side in self.sides
            ]
        )
        self.damsm_weight, self.kl_weight, self.gammas = (
            damsm_weight,
            kl_weight,
            (gamma1, gamma2, gamma3),
        )
        self.gamma2_root, self.leave_out, self.wrong, self.unit_text = (
            gamma2_root,
            leave_out,
            wrong,
            unit_text,
        )
        compared = (
            LEAVE_OUT[leave_out] if damsm_weight and (leave_out != 'class' or meta.classes) else ()
        )
        self.taught_by = self.judges if damsm_weight else ()
        if not attention_count or scales == 1:
            self.makes = ('image', 'images')
        self.needs = (
            ('image', 'tokens', 'length')
            + compared
            + (('wrong_tokens',) if wrong == 'sampled' else ())
        )

    def check_encoders(self, size):
        """Raises ValueError where the image encoder cannot read pictures of that size, or has vectors of other dimensions than the text encoder."""
        try:
            regions, code = jax.eval_shape(
                lambda x: self.image(x, train=False),
                jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
            )
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'The DAMSM was trained on pictures of another size and cannot read those of {size} px: train it with '
                f'stages.damsm.data.size={size}, or set data.size to its own. ({error})'
            ) from error
        if {regions.shape[-1], code.shape[-1]} != {self.text.d}:
            raise ValueError(
                f'The DAMSM has words of {self.text.d} dimensions, regions of {regions.shape[-1]} and pictures of {code.shape[-1]}: '
                'take both encoders from one run.'
            )

    def encode(self, batch, prefix=''):
        """The Text of a batch's sentences (or of the `wrong_` ones); that of a batch that has been encoded stands under `encoded`."""
        if 'encoded' in batch and not prefix:
            return batch['encoded']
        tokens, length = batch[prefix + 'tokens'], batch[prefix + 'length']
        words, sentence = (x.astype(jnp.float32) for x in self.text(tokens, length, train=False))
        if self.unit_text:
            sentence = sentence * jax.lax.rsqrt((sentence**2).mean(-1, keepdims=True) + 1e-12)
        return Text(words, sentence, jnp.float32(jnp.arange(tokens.shape[1]) < length[:, None]))

    def noise(self, key, n):
        return self.G.noise(key, n)

    pyramid = StackGanPp.pyramid  # a batch's real pictures at all sides

    def forward(self, batch, key):
        out = self.G(self.encode(batch), **self.noise(key, len(batch['image'])), train=True)
        return out._replace(attention=())  # no loss reads it, and 256 px have hundreds of MB of it

    def d_loss(self, batch, key, out):
        sentence, logs = out.text.sentence, {}
        if len(sentence) < 2 and (self.wrong == 'shift' or self.damsm_weight):
            raise RunError(
                "AttnGAN and its DAMSM take other rows' sentences for ones that do not match, and a batch of 1 has none: "
                'set stages.gan.batch_size to 2 or more.'
            )
        other = sentence[1:] if self.wrong == 'shift' else self.encode(batch, 'wrong_').sentence
        for side, D, *pictures in zip(self.sides, self.D, self.pyramid(batch), out.images):
            real, fake = separately(D.trunk, pictures)  # b 4 4 8c
            right = bce(D.matching(real, sentence, train=True), 1.0)
            wrong = bce(
                D.matching(real[: len(other)], other, train=True), 0.0
            )  # b - 1 rows where it is the next one's
            drawn = bce(D.matching(fake, sentence, train=True), 0.0)
            if D.real:
                right, drawn = (
                    right + bce(D.real(real, train=True), 1.0),
                    drawn + bce(D.real(fake, train=True), 0.0),
                )
            logs[f'd_{side}'] = (
                right / 2 + (drawn + wrong) / 3 if D.real else right + (drawn + wrong) / 2
            )
        return sum(logs.values()), logs

    def g_loss(self, batch, key, out):
        logs = {}
        for side, D, fake in zip(self.sides, self.D, out.images):
            code = D.trunk(fake, train=True)
            logs[f'g_{side}'] = bce(D.matching(code, out.text.sentence, train=True), 1.0)
            if D.real:
                logs[f'g_{side}'] += bce(D.real(code, train=True), 1.0)
        loss = sum(logs.values())
        logs['kl'] = conditioning_kl(out.mu, out.logvar)
        loss += self.kl_weight * logs['kl']
        if self.damsm_weight:
            logs |= self.damsm_losses(batch, out)
            loss += self.damsm_weight * (logs['words'] + logs['sentence'])
        return loss, logs

    def damsm_losses(self, batch, out):
        """How far the largest pictures are from being matched with their own sentences, and these with them."""
        regions, code = self.image(out.images[-1], train=False)  # b r d, b d
        length, leave_out, (gamma1, gamma2, gamma3) = (
            batch['length'],
            not_wrong(batch, self.leave_out),
            self.gammas,
        )
        words = words_loss(
            regions,
            out.text.words,
            length,
            gamma1=gamma1,
            gamma2=gamma2,
            gamma3=gamma3,
            root=self.gamma2_root,
            leave_out=leave_out,
        )
        return {
            'words': words,
            'sentence': sentence_loss(
                code, out.text.sentence, gamma3=gamma3, leave_out=leave_out, present=length > 0
            ),
        }

    def sample(self, batch, noise):
        """{'image', 'images', 'attention': of each map that looked at words which word its pixels looked at, b s s t, from the smallest on}"""
        out = self.G(self.encode(batch), **noise, train=False)
        return {'image': out.images[-1], 'images': out.images} | (
            {'attention': out.attention} if out.attention else {}
        )


STAGES = {'damsm': Damsm, 'gan': AttnGan}  # the order is the training order
