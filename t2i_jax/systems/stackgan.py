"""StackGAN: Text to Photo-realistic Image Synthesis with Stacked Generative Adversarial Networks.
Zhang, Xu, Li, Zhang, Wang, Huang, Metaxas, ICCV 2017.

A picture is drawn twice. Stage-I (`one`) draws a small one, 64 px, from a sentence vector h and noise. Stage-II (`two`) reads that picture
and the sentence again, without a z of its own, corrects what is wrong and draws 256 px; Stage-I is frozen meanwhile. A sentence is not
a point for the generators but a Gaussian around it, predicted from h and kept near N(0, I) (conditioning augmentation): few
sentences then cover the space. Each stage has a discriminator that also sees real pictures with the wrong sentence, as GAN-CLS.

    c = mu(h) + sigma(h) eps,  KL = KL(N(mu, sigma^2) || N(0, I)),  bce1(s) = softplus(-s),  bce0(s) = softplus(s)
    L_D = bce1(D(x, h)) + 1/2 [bce0(D(x_wrong, h)) + bce0(D(G, h))]
    L_G = bce1(D(G, h)) + 2 KL                                  KL averaged over the dimensions (code); the paper: lambda = 1, their sum
    Stage-II of 'pytorch', with a second head u(x) that does not see the sentence:
    L_D = 1/2 [bce1(D(x, h)) + bce1(u(x))] + 1/3 [bce0(D(x_wrong, h)) + bce0(D(G, h)) + bce0(u(G))],  L_G = bce1(D(G, h)) + bce1(u(G)) + 2 KL

The authors published two versions, `variant`:

| | 'official_tf' (birds, flowers) | 'pytorch' (COCO) |
|---|---|---|
| Stage-I G | two bottlenecks; first layer biased, no ReLU after its norm | a plain ladder, one convolution more |
| D | bottleneck after the ladder, 1x1 convolutions | 3x3 convolutions |
| D's condition | its own projection of h | mu of the augmentation, held constant |
| wrong pairs | a wrong image, sampled | the batch shifted by one (B - 1 pairs, unchecked) |
| augmentation | leaky ReLU on (mu, log sigma), eps cut at two deviations | ReLU on (mu, log variance) |
| Stage-II | the losses of Stage-I | the unconditional head |
| start of convolutions | truncated normal(0, 0.02) | normal(0, 0.02) |

Deviations: the sentence encoder is trained here (stage `text` of GAN-CLS) where the data hold no sentence vectors. Stage-I's batch norm uses its
running statistics in Stage-II; `stage_one_statistics='batch'` is the code. The images of G are shared by D's and G's step (TensorFlow
version: fresh noise). A moving average of G's weights is kept; `ema=0` samples with the plain ones, as the original. The optional
fine-tuning of Stage-I with Stage-II, off in the original, is left out.

Expected (from memory of the paper; 30,000 samples): Inception Score 3.70 birds, 3.20 flowers, 8.45 COCO; Stage-I alone, 64 px, 2.95 on
birds. FID, by the StackGAN++ paper: 51.89, 55.28, 74.05.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.layers.blocks import (
    Bottleneck,
    conv3_beside,
    conv3_doubled,
    levels,
    linear,
    lrelu,
    operands,
)
from t2i_jax.layers.conditioning import ConditioningAugmentation
from t2i_jax.layers.conv import Conv
from t2i_jax.layers.norm import NORMS, BatchNorm
from t2i_jax.layers.remat import recomputed
from t2i_jax.losses import bce, conditioning_kl
from t2i_jax.stage import Phase, Stage, normal_rows
from t2i_jax.systems import gan_cls
from t2i_jax.systems.gan_cls import GanCls, JointEmbedding

VARIANTS = {
    'official_tf': dict(
        d_condition='embedding',
        wrong='sampled',
        ca_activation='lrelu',
        ca_spread='log_sigma',
        ca_eps='truncated',
    ),
    'pytorch': dict(
        d_condition='mu',
        wrong='shift',
        ca_activation='relu',
        ca_spread='log_variance',
        ca_eps='normal',
    ),
}
CHOICES = {
    'variant': tuple(VARIANTS),
    'd_condition': ('embedding', 'mu'),
    'wrong': ('sampled', 'shift', 'none'),
    'd_norm': tuple(NORMS),
    'stage_one_statistics': ('running', 'batch'),
}


# --------------------------------------------------------------------------------------------------------------- networks
def conv3x3(c, d, *, rngs):
    """A 3x3 convolution that keeps the side. b h w c -> b h w d"""
    return Conv(c, d, 3, padding=1, rngs=rngs)


class UpConv(Conv):
    """Every pixel doubled in both directions, then a 3x3 convolution. b h w c -> b 2h 2w d"""

    def __init__(self, c, d, *, rngs):
        super().__init__(c, d, 3, padding=1, rngs=rngs)

    def __call__(self, x):
        return conv3_doubled(*operands(self, x))


class Up(nnx.Module):
    """Pixels doubled, 3x3 convolution, batch norm, ReLU. b h w c -> b 2h 2w d"""

    def __init__(self, c, d, *, rngs):
        self.conv, self.norm = UpConv(c, d, rngs=rngs), BatchNorm(d, rngs=rngs)

    @recomputed
    def __call__(self, x, *, train):
        return jax.nn.relu(self.norm(self.conv(x), train=train))


class Residual(nnx.Module):
    """relu(x + [3x3, norm, ReLU, 3x3, norm](x)). b h w c -> b h w c"""

    def __init__(self, c, *, rngs):
        self.convs = nnx.List([conv3x3(c, c, rngs=rngs) for _ in range(2)])
        self.norms = nnx.List([BatchNorm(c, rngs=rngs) for _ in range(2)])

    @recomputed
    def __call__(self, x, *, train):
        y = jax.nn.relu(self.norms[0](self.convs[0](x), train=train))
        return jax.nn.relu(x + self.norms[1](self.convs[1](y), train=train))


class GeneratorOne(nnx.Module):
    """Sentence vector, z and eps -> (image in [-1, 1], mu, log-variance)."""

    def __init__(self, size, embedding, gf, nz, ca, tf, *, rngs):
        n = levels(size)
        c = [gf << (n - 1 - i) for i in range(n)] + (
            [] if tf else [gf // 2]
        )  # 64 px: 8, 4, 2, 1 (and 1/2) times gf
        self.size, self.embedding, self.nz, self.tf = size, embedding, nz, tf
        self.augment = ConditioningAugmentation(embedding, **ca, rngs=rngs)
        self.first = linear(ca['c'] + nz, 16 * c[0], use_bias=tf, rngs=rngs)
        self.first_norm = BatchNorm(16 * c[0], rngs=rngs)  # of each unit, not of each channel
        self.blocks = nnx.List([Bottleneck(d, jax.nn.relu, rngs=rngs) for d in c[:2]] if tf else [])
        self.ups = nnx.List([UpConv(a, b, rngs=rngs) for a, b in zip(c, c[1:])])
        self.norms = nnx.List([BatchNorm(d, rngs=rngs) for d in c[1:]])
        self.image = (UpConv if tf else conv3x3)(c[-1], 3, rngs=rngs)

    def noise(self, key, n):
        z_key, eps_key = jax.random.split(key)
        return {'z': normal_rows(z_key, n, (self.nz,)), 'eps': self.augment.noise(eps_key, n)}

    def __call__(self, text, z, eps, *, train):
        condition, mu, logvar = self.augment(text, eps)
        x = self.first(jnp.concatenate([condition, z] if self.tf else [z, condition], -1))
        x = rearrange(self.first_norm(x, train=train), 'b (h w c) -> b h w c', h=4, w=4)
        for i in range(len(self.norms) + 1):
            if i:
                x = self.norms[i - 1](
                    self.ups[i - 1](x), train=train
                )  # b 8 8 4c, b 16 16 2c, b 32 32 c
            if i < len(self.blocks):
                x = self.blocks[i](x, train=train)
            x = jax.nn.relu(x)
        return jnp.tanh(self.image(x)), mu, logvar  # b 64 64 3


class GeneratorTwo(nnx.Module):
    """Stage-I's image, sentence vector and eps -> (image in [-1, 1], mu, log-variance)."""

    def __init__(self, small, size, embedding, gf, blocks, ca, *, rngs):
        self.size = size
        n = levels(size) - levels(small) + 2  # from a quarter of Stage-I's side
        c = [4 * gf >> i for i in range(n + 1)]
        self.augment = ConditioningAugmentation(embedding, **ca, rngs=rngs)
        self.read = conv3x3(3, gf, rngs=rngs)
        self.downs = nnx.List(
            [Conv(a, 2 * a, 4, stride=2, padding=1, rngs=rngs) for a in (gf, 2 * gf)]
        )
        self.joint = conv3x3(ca['c'] + 4 * gf, 4 * gf, rngs=rngs)
        self.norms = nnx.List([BatchNorm(d, rngs=rngs) for d in (2 * gf, 4 * gf, 4 * gf)])
        self.blocks = nnx.List([Residual(4 * gf, rngs=rngs) for _ in range(blocks)])
        self.ups = nnx.List([Up(a, b, rngs=rngs) for a, b in zip(c, c[1:])])
        self.image = conv3x3(c[-1], 3, rngs=rngs)

    def __call__(self, small, text, eps, *, train):
        condition, mu, logvar = self.augment(text, eps)
        x = jax.nn.relu(self.read(small))  # b 64 64 c
        for i, down in enumerate(self.downs):
            x = jax.nn.relu(self.norms[i](down(x), train=train))  # b 32 32 2c, b 16 16 4c
        x = conv3_beside(*operands(self.joint, condition, x))  # the condition at every pixel
        x = jax.nn.relu(self.norms[-1](x, train=train))  # b 16 16 4c
        for block in self.blocks:
            x = block(x, train=train)
        for up in self.ups:
            x = up(x, train=train)  # b 32 32 2c ... b 256 256 c/4
        return jnp.tanh(self.image(x)), mu, logvar  # b 256 256 3


class Discriminator(nnx.Module):
    """Image -> features b 4 4 c; features and condition -> logit of "real and matching"; features -> logit of "real", both b."""

    def __init__(
        self,
        size,
        embedding,
        df,
        nc,
        tf,
        d_condition,
        norm,
        third_activation=True,
        unconditional=False,
        *,
        rngs,
    ):
        n = levels(size)
        c, wide = [df << i for i in range(n)], 8 * df
        narrowing = [d for d in reversed(c) if d > wide]  # 256 px: 32, 16 times df
        last = min(c[-1], wide)
        self.downs = nnx.List(
            [Conv(a, b, 4, stride=2, padding=1, rngs=rngs) for a, b in zip([3] + c, c)]
            + [
                Conv(d, d // 2, 1, rngs=rngs) if tf else conv3x3(d, d // 2, rngs=rngs)
                for d in narrowing
            ]
        )
        self.norms = nnx.List([norm(d, rngs=rngs) for d in c[1:] + [d // 2 for d in narrowing]])
        self.block = Bottleneck(last, lrelu, norm, rngs=rngs) if tf else None
        layers = len(self.downs)
        self.bare = (
            ({layers - 1} | (set() if third_activation else {n - 2})) if tf else set()
        )  # layers without an activation
        self.project = (
            linear(embedding, nc, use_bias=True, rngs=rngs) if d_condition == 'embedding' else None
        )
        self.joint = (
            Conv(last + nc, last, 1, rngs=rngs) if tf else conv3x3(last + nc, last, rngs=rngs)
        )
        self.joint_norm = norm(last, rngs=rngs)
        self.logit = linear(16 * last, 1, use_bias=not tf, rngs=rngs)
        self.free_logit = linear(16 * last, 1, use_bias=True, rngs=rngs) if unconditional else None

    @recomputed
    def __call__(self, image, *, train):
        x = image
        for i, down in enumerate(self.downs):
            x = down(x)  # b 128 128 c ... b 4 4 32c, 16c, 8c
            x = self.norms[i - 1](x, train=train) if i else x
            x = x if i in self.bare else lrelu(x)
        return lrelu(self.block(x, train=train)) if self.block else x  # b 4 4 8c

    def conditional(self, features, condition, *, train):
        """condition: the sentence vector, or mu."""
        t = lrelu(self.project(condition)) if self.project else condition
        tiled = repeat(t.astype(features.dtype), 'b c -> b 4 4 c')
        x = lrelu(self.joint_norm(self.joint(jnp.concatenate([features, tiled], -1)), train=train))
        return self.logit(rearrange(x, 'b h w c -> b (h w c)'))[:, 0]

    def unconditional(self, features):
        return self.free_logit(rearrange(features, 'b h w c -> b (h w c)'))[:, 0]


def truncate(network, rngs):
    """TensorFlow's start: every convolution from normal(0, 0.02), cut at two deviations."""
    draw = nnx.initializers.truncated_normal(0.02)
    for path, module in nnx.iter_modules(network):
        if isinstance(module, Conv) or path[-1:] == ('logit',):
            module.kernel[...] = draw(rngs.params(), module.kernel.shape)


# ----------------------------------------------------------------------------------------------------------------- stages
class Fakes(NamedTuple):
    image: Any  # b s s 3
    mu: Any  # b nc
    logvar: Any  # b nc
    text: Any  # the sentence vector of each row


class Conditional(Stage):
    """What the two stages share. keywords: theirs; where one that `VARIANTS` knows is '', it is the variant's."""

    encode = GanCls.encode  # sentence vectors; where a row has several captions, their mean

    def settings(self, meta, text, variant, nc, ca_form, kl_weight, kl_reduction, d_norm, **others):
        """-> (dimensions of sentence vectors, keywords of the augmentation, of the discriminator). Raises ValueError for what does not exist."""
        check(variant=variant, d_norm=d_norm)
        chosen = VARIANTS[variant] | {name: value for name, value in others.items() if value}
        check(d_condition=chosen['d_condition'], wrong=chosen['wrong'])
        embedding = text.embedding if text else meta.embedding_dim
        if not embedding:
            raise ValueError(
                'There is neither a text encoder nor a stored sentence vector: set data.embedding=none or import vectors.'
            )
        self.text, self.kl_weight, self.kl_reduction = text, kl_weight, kl_reduction
        self.d_condition, self.wrong = chosen['d_condition'], chosen['wrong']
        self.needs = (
            ('image',)
            + (('wrong_image',) if self.wrong == 'sampled' else ())
            + (('chars',) if text else ('embedding',))
        )
        ca = dict(
            c=nc,
            form=ca_form,
            activation=chosen['ca_activation'],
            spread=chosen['ca_spread'],
            eps=chosen['ca_eps'],
        )
        return (
            embedding,
            ca,
            dict(
                nc=nc, tf=variant == 'official_tf', d_condition=self.d_condition, norm=NORMS[d_norm]
            ),
        )

    def condition(self, out):
        return out.text if self.d_condition == 'embedding' else jax.lax.stop_gradient(out.mu)

    def d_loss(self, batch, key, out):
        """Mean of the terms of real pairs plus mean of those of the others."""
        D, condition = self.D, self.condition(out)
        real = D(batch['image'], train=True)
        true, false = {'d_real': bce(D.conditional(real, condition, train=True), 1.0)}, {}
        if self.wrong == 'sampled':
            false['d_wrong'] = bce(
                D.conditional(D(batch['wrong_image'], train=True), condition, train=True), 0.0
            )
        elif self.wrong == 'shift':
            false['d_wrong'] = bce(D.conditional(real[:-1], condition[1:], train=True), 0.0)
        fake = D(out.image, train=True)
        false['d_fake'] = bce(D.conditional(fake, condition, train=True), 0.0)
        if D.free_logit:
            true['d_real_free'], false['d_fake_free'] = (
                bce(D.unconditional(real), 1.0),
                bce(D.unconditional(fake), 0.0),
            )
        return sum(true.values()) / len(true) + sum(false.values()) / len(false), true | false

    def g_loss(self, batch, key, out):
        fake = self.D(out.image, train=True)
        logs = {'g_fake': bce(self.D.conditional(fake, self.condition(out), train=True), 1.0)}
        if self.D.free_logit:
            logs['g_fake_free'] = bce(self.D.unconditional(fake), 1.0)
        kl = conditioning_kl(out.mu, out.logvar, self.kl_reduction)
        return sum(logs.values()) + self.kl_weight * kl, logs | {'kl': kl}


class StageOne(Conditional):
    phases = (Phase('d_loss', trains=('D1',)), Phase('g_loss', trains=('G1',)))
    ema, loads = ('G1',), {'text': 'text.text'}
    draws_from, makes = ('sentence',), ('image',)
    tiny = dict(gf=16, df=16, nc=32)

    def __init__(
        self,
        meta,
        *,
        variant='official_tf',
        gf=128,
        df=64,
        nz=100,
        nc=128,
        d_condition='',
        wrong='',
        ca_form='dense',
        ca_activation='',
        ca_spread='',
        ca_eps='',
        kl_weight=2.0,
        kl_reduction='mean',
        third_activation=False,
        unit_text=False,
        d_norm='batch',
        text,
        rngs,
    ):
        """d_condition: 'embedding' or 'mu'. wrong: 'sampled', 'shift' or 'none'. ca_...: of ConditioningAugmentation, nc its c. kl_reduction:
        'mean' over the dimensions or their 'sum'; paper: kl_weight=1, 'sum'. third_activation: leaky ReLU after D's third convolution, which
        'official_tf' lacks. Ours, and off in the paper's settings: unit_text and d_norm as in GAN-CLS; Stage-II does as Stage-I with unit_text.
        text: the trained CharCnnRnn, or None where the data hold sentence vectors.
        """
        embedding, ca, d = self.settings(
            meta,
            text,
            variant,
            nc,
            ca_form,
            kl_weight,
            kl_reduction,
            d_norm,
            d_condition=d_condition,
            wrong=wrong,
            ca_activation=ca_activation,
            ca_spread=ca_spread,
            ca_eps=ca_eps,
        )
        self.G1 = GeneratorOne(meta.size, embedding, gf, nz, ca, d['tf'], rngs=rngs)
        self.D1 = Discriminator(
            meta.size, embedding, df, third_activation=third_activation, **d, rngs=rngs
        )
        self.unit_text = self.G1.unit_text = unit_text
        if d['tf']:
            truncate(self.G1, rngs)
            truncate(self.D1, rngs)

    @property
    def D(self):
        return self.D1

    def noise(self, key, n):
        return self.G1.noise(key, n)

    def forward(self, batch, key):
        text = self.encode(batch)
        return Fakes(*self.G1(text, **self.noise(key, len(text)), train=True), text)

    def sample(self, batch, noise):
        """With eps = 0 in `noise` the condition is mu."""
        return {'image': self.G1(self.encode(batch), **noise, train=False)[0]}


class StageTwo(Conditional):
    phases = (Phase('d_loss', trains=('D2',)), Phase('g_loss', trains=('G2',)))
    # the encoder on which Stage-I was trained
    ema, loads = ('G2',), {'text': 'one.text', 'G1': 'one.G1'}
    draws_from, makes = ('sentence',), ('image', 'images')
    tiny = dict(gf=8, df=8, nc=32)

    def __init__(
        self,
        meta,
        *,
        variant='official_tf',
        gf=128,
        df=64,
        nc=128,
        ratio=4,
        blocks=4,
        d_condition='',
        wrong='',
        ca_form='dense',
        ca_activation='',
        ca_spread='',
        ca_eps='',
        kl_weight=2.0,
        kl_reduction='mean',
        stage_one_statistics='running',
        d_norm='batch',
        text,
        G1,
        rngs,
    ):
        """Keywords as those of Stage-I. ratio: the side of these pictures to that of Stage-I's. blocks: residual blocks.
        stage_one_statistics: whether Stage-I's batch norm uses its 'running' ones or those of the 'batch'. G1: the trained Stage-I.
        """
        check(stage_one_statistics=stage_one_statistics)
        embedding, ca, d = self.settings(
            meta,
            text,
            variant,
            nc,
            ca_form,
            kl_weight,
            kl_reduction,
            d_norm,
            d_condition=d_condition,
            wrong=wrong,
            ca_activation=ca_activation,
            ca_spread=ca_spread,
            ca_eps=ca_eps,
        )
        if meta.size != ratio * G1.size or ratio < 2:
            raise ValueError(
                f'Stage-I draws {G1.size} px and Stage-II {meta.size} px, which with ratio={ratio} does not fit. Set stages.two.data.size '
                '(or data.size), stages.two.model.ratio, or train Stage-I at another stages.one.data.size.'
            )
        if embedding != G1.embedding:
            raise ValueError(
                f'Stage-I was trained on sentence vectors of {G1.embedding} numbers, those of these data have {embedding}. Use the data on '
                'which it was trained, or train Stage-I on these.'
            )
        self.G1, self.unit_text, self.batch_statistics = (
            G1,
            G1.unit_text,
            stage_one_statistics == 'batch',
        )
        self.G2 = GeneratorTwo(G1.size, meta.size, embedding, gf, blocks, ca, rngs=rngs)
        self.D2 = Discriminator(meta.size, embedding, df, unconditional=not d['tf'], **d, rngs=rngs)
        if d['tf']:
            truncate(self.G2, rngs)
            truncate(self.D2, rngs)

    @property
    def D(self):
        return self.D2

    def noise(self, key, n):
        return noise_of_both(self.G1, self.G2, key, n)

    def forward(self, batch, key):
        text = self.encode(batch)
        noise = self.noise(key, len(text))
        small = self.G1(text, noise['z'], noise['eps'], train=self.batch_statistics)[0]
        return Fakes(*self.G2(small, text, noise['eps_two'], train=True), text)

    def sample(self, batch, noise):
        """`images`: Stage-I's picture and the final one."""
        images = twice(self.G1, self.G2, self.encode(batch), noise)
        return {'image': images[-1], 'images': images}


def noise_of_both(G1, G2, key, n):
    """z and eps are Stage-I's: with the same key it draws the same picture in both stages."""
    return G1.noise(key, n) | {'eps_two': G2.augment.noise(jax.random.fold_in(key, 2), n)}


def twice(G1, G2, text, noise):
    """Sentence vectors and noise -> Stage-I's picture and the final one, in evaluation mode."""
    small = G1(text, noise['z'], noise['eps'], train=False)[0]
    return [small, G2(small, text, noise['eps_two'], train=False)[0]]


class Style(gan_cls.Style):
    """GAN-CLS's style encoder, for the final picture; z is Stage-I's."""

    loads = {'G1': 'two.G1', 'G2': 'two.G2', 'text': 'two.text'}

    def noise(self, key, n):
        return noise_of_both(self.G1, self.G2, key, n)

    def drawn(self, text, noise):
        return twice(self.G1, self.G2, text, noise)[-1]


def check(**values):
    """Raises ValueError for a keyword whose value does not exist."""
    for name, value in values.items():
        if value not in CHOICES[name]:
            raise ValueError(f'{name} is {value!r}; it is {" or ".join(map(repr, CHOICES[name]))}.')


STAGES = {
    'text': JointEmbedding,
    'one': StageOne,
    'two': StageTwo,
    'style': Style,
}  # the order is the training order
