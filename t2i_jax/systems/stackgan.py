"""StackGAN: Text to Photo-realistic Image Synthesis with Stacked Generative Adversarial Networks.

Zhang, Xu, Li, Zhang, Wang, Huang, Metaxas, ICCV 2017.

A picture is drawn twice. Stage-I (`one`) draws a small one, 64 px, from a sentence vector h and
noise. Stage-II (`two`) reads that picture and the sentence again, without a z of its own, corrects
what is wrong and draws 256 px; Stage-I is frozen meanwhile. A sentence is not a point for the
generators but a Gaussian around it, predicted from h and held near N(0, I) (conditioning
augmentation): few sentences then cover the space. Each stage has a discriminator that also sees
real pictures with the wrong sentence, as GAN-CLS.

    bce1(s) = softplus(-s),  bce0(s) = softplus(s)
    c = mu(h) + sigma(h) eps,  KL = KL(N(mu, sigma^2) || N(0, I))
    L_D = bce1(D(x, h)) + 1/2 [bce0(D(x_wrong, h)) + bce0(D(G, h))]
    L_G = bce1(D(G, h)) + 2 KL
    Stage-II of 'pytorch', with a second head u(x) that does not see the sentence:
    L_D = 1/2 [bce1(D(x, h)) + bce1(u(x))] + 1/3 [bce0(D(x_wrong, h)) + bce0(D(G, h)) + bce0(u(G))]
    L_G = bce1(D(G, h)) + bce1(u(G)) + 2 KL

The KL is averaged over the dimensions (code); the paper: lambda = 1, their sum. The authors
published two versions, `variant`:

| | 'official_tf' (birds, flowers) | 'pytorch' (COCO) |
|---|---|---|
| Stage-I G | two bottlenecks; biased first layer, its norm without ReLU | one convolution more |
| D | bottleneck after the ladder, 1x1 convolutions | 3x3 convolutions |
| D's condition | its own projection of h | mu of the augmentation, held constant |
| wrong pairs | a wrong image, sampled | the batch shifted by one (B - 1 pairs, unchecked) |
| augmentation | leaky ReLU on (mu, log sigma) | ReLU on (mu, log variance) |
| eps | cut at two deviations | normal |
| Stage-II | the losses of Stage-I | the unconditional head |
| start of convolutions | truncated normal(0, 0.02) | normal(0, 0.02) |

Deviations: the sentence encoder is trained here (stage `text` of GAN-CLS) where the data hold no
sentence vectors. Stage-I's batch norm uses its running statistics in Stage-II;
`stage_one_statistics='batch'` is the code. The images of G are shared by D's and G's step
(TensorFlow version: fresh noise). A moving average of G's weights is kept; `ema=0` samples with the
plain ones, as the original. The optional fine-tuning of Stage-I with Stage-II, off in the original,
is left out.

Expected (from memory of the paper; 30,000 samples): Inception Score 3.70 birds, 3.20 flowers, 8.45
COCO; Stage-I alone, 64 px, 2.95 on birds. FID, by the StackGAN++ paper: 51.89, 55.28, 74.05.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.encoders.sentence import encode_sentence, text_dim, text_reads
from t2i_jax.layers.conditioning import ConditioningAugmentation
from t2i_jax.layers.conv import Conv, conv3_beside, levels, operands
from t2i_jax.layers.game import GAME, PLAIN, Game, Seen, Wrong
from t2i_jax.layers.linear import linear, lrelu
from t2i_jax.layers.norm import NORMS, BatchNorm
from t2i_jax.layers.relu import Bottleneck, ResidualRelu, UpConv, UpRelu, conv3x3
from t2i_jax.layers.remat import recomputed
from t2i_jax.losses import conditioning_kl, mismatched
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import Phase, Stage, normal_rows
from t2i_jax.systems.gan_cls import Style
from t2i_jax.systems.joint_embedding import JointEmbedding

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
D_CONDITIONS = 'embedding', 'mu'
WRONG = 'sampled', 'shift', 'none', 'text'
STATISTICS = 'running', 'batch'


# ------------------------------------------------------------------------------------ networks
class GeneratorOne(nnx.Module):
    """Sentence vector, z and eps -> (image in [-1, 1], mu, log-variance).

    `unit_text`: how sentence vectors are scaled, for stages that load this network.
    """

    def __init__(self, size, embedding, gf, nz, ca, tf, unit_text=False, *, rngs):
        n = levels(size)
        # 64 px: 8, 4, 2, 1 (and 1/2) times gf
        c = [gf << (n - 1 - i) for i in range(n)] + ([] if tf else [gf // 2])
        self.size, self.embedding, self.nz, self.tf = size, embedding, nz, tf
        self.unit_text = unit_text
        self.augment = ConditioningAugmentation(embedding, **ca, rngs=rngs)
        self.first = linear(ca['c'] + nz, 16 * c[0], use_bias=tf, rngs=rngs)
        # of each unit, not of each channel
        self.first_norm = BatchNorm(16 * c[0], rngs=rngs)
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
                x = self.ups[i - 1](x)  # b 8 8 4c, b 16 16 2c, b 32 32 c
                x = self.norms[i - 1](x, train=train)
            if i < len(self.blocks):
                x = self.blocks[i](x, train=train)
            x = jax.nn.relu(x)
        return jnp.tanh(self.image(x)), mu, logvar  # b 64 64 3


class GeneratorTwo(nnx.Module):
    """Stage-I's image, sentence vector and eps -> (image in [-1, 1], mu, log-variance).

    channels: of what is read of Stage-I.
    """

    def __init__(self, small, size, embedding, gf, blocks, ca, channels=3, *, rngs):
        self.size = size
        # from a quarter of Stage-I's side
        n = levels(size) - levels(small) + 2
        c = [4 * gf >> i for i in range(n + 1)]
        self.augment = ConditioningAugmentation(embedding, **ca, rngs=rngs)
        self.read = conv3x3(channels, gf, rngs=rngs)
        self.downs = nnx.List(
            [Conv(a, 2 * a, 4, stride=2, padding=1, rngs=rngs) for a in (gf, 2 * gf)]
        )
        self.joint = conv3x3(ca['c'] + 4 * gf, 4 * gf, rngs=rngs)
        self.norms = nnx.List([BatchNorm(d, rngs=rngs) for d in (2 * gf, 4 * gf, 4 * gf)])
        self.blocks = nnx.List([ResidualRelu(4 * gf, rngs=rngs) for _ in range(blocks)])
        self.ups = nnx.List([UpRelu(a, b, rngs=rngs) for a, b in zip(c, c[1:])])
        self.image = conv3x3(c[-1], 3, rngs=rngs)

    def __call__(self, small, text, eps, *, train):
        condition, mu, logvar = self.augment(text, eps)
        x = jax.nn.relu(self.read(small))  # b 64 64 c
        for i, down in enumerate(self.downs):
            x = jax.nn.relu(self.norms[i](down(x), train=train))  # b 32 32 2c, b 16 16 4c
        # the condition at every pixel
        x = conv3_beside(*operands(self.joint, condition, x))
        x = jax.nn.relu(self.norms[-1](x, train=train))  # b 16 16 4c
        for block in self.blocks:
            x = block(x, train=train)
        for up in self.ups:
            x = up(x, train=train)  # b 32 32 2c ... b 256 256 c/4
        return jnp.tanh(self.image(x)), mu, logvar  # b 256 256 3


class StackDiscriminator(nnx.Module):
    """Image -> features b 4 4 c, and from them two logits b.

    `conditional`: of "real and matching", with a condition. `unconditional`: of "real".
    """

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
        game=PLAIN,
        *,
        rngs,
    ):
        n = levels(size)
        c, wide = [df << i for i in range(n)], 8 * df
        narrowing = [d for d in reversed(c) if d > wide]  # 256 px: 32, 16 times df
        last = min(c[-1], wide)

        def narrow(c, d):
            return Conv(c, d, 1, rngs=rngs) if tf else conv3x3(c, d, rngs=rngs)

        self.downs = nnx.List(
            [Conv(a, b, 4, stride=2, padding=1, rngs=rngs) for a, b in zip([3] + c, c)]
            + [narrow(d, d // 2) for d in narrowing]
        )
        self.norms = nnx.List([norm(d, rngs=rngs) for d in c[1:] + [d // 2 for d in narrowing]])
        self.block = Bottleneck(last, lrelu, norm, rngs=rngs) if tf else None
        # layers without an activation
        bare = {len(self.downs) - 1} | (set() if third_activation else {n - 2})
        self.bare = bare if tf else set()
        projected = d_condition == 'embedding'
        self.project = linear(embedding, nc, use_bias=True, rngs=rngs) if projected else None
        self.joint = narrow(last + nc, last)
        self.joint_norm = norm(last, rngs=rngs)
        self.logit = linear(16 * last, 1, use_bias=not tf, rngs=rngs)
        self.free_logit = linear(16 * last, 1, use_bias=True, rngs=rngs) if unconditional else None
        self.extras = game.extras(16 * last, embedding, None if projected else nc, rngs=rngs)

    @recomputed
    def __call__(self, image, *, train):
        x = image
        for i, down in enumerate(self.downs):
            x = down(x)  # b 128 128 c ... b 4 4 32c, 16c, 8c
            x = self.norms[i - 1](x, train=train) if i else x
            x = x if i in self.bare else lrelu(x)
        return lrelu(self.block(x, train=train)) if self.block else x  # b 4 4 8c

    def conditional(self, features, condition, *, train):
        """Compute the logits of "real and matching". condition: the sentence vector, or mu."""
        t = lrelu(self.project(condition)) if self.project else condition
        tiled = repeat(t.astype(features.dtype), 'b c -> b 4 4 c')
        x = lrelu(self.joint_norm(self.joint(jnp.concatenate([features, tiled], -1)), train=train))
        logits = self.logit(rearrange(x, 'b h w c -> b (h w c)'))[:, 0]
        return self.extras(logits, features, condition)

    def unconditional(self, features):
        """Compute the logits of "real"."""
        return self.free_logit(rearrange(features, 'b h w c -> b (h w c)'))[:, 0]


def truncate(network, rngs):
    """Start as TensorFlow: every convolution from normal(0, 0.02), cut at two deviations."""
    draw = nnx.initializers.truncated_normal(0.02)
    for path, module in nnx.iter_modules(network):
        if isinstance(module, Conv) or path[-1:] == ('logit',):
            module.kernel[...] = draw(rngs.params(), module.kernel.shape)


# -------------------------------------------------------------------------------------- stages
class AugmentedFakes(NamedTuple):
    """The generator's pass over a batch."""

    # b s s 3
    image: Any
    # b nc
    mu: Any
    # b nc
    logvar: Any
    # the sentence vector of each row
    text: Any


class StackGanStage(Stage):
    """The keywords and losses that the two stages share."""

    def __init__(
        self,
        meta,
        *,
        variant='official_tf',
        nc=128,
        d_condition='',
        wrong='',
        ca_form='dense',
        ca_activation='',
        ca_spread='',
        ca_eps='',
        kl_weight=2.0,
        kl_reduction='mean',
        d_norm='batch',
        game=GAME,
        leave_out='class',
        text,
    ):
        """Check and store the keywords; where one that `VARIANTS` knows is '', it is the variant's.

        variant: see the head of this file.
        nc, ca_form, ca_activation, ca_spread, ca_eps: of ConditioningAugmentation, nc its c.
        d_condition: 'embedding' or 'mu'.
        wrong: 'sampled' (pictures), 'shift' or 'none'; ours: 'text', sampled sentences, so that D
            sees a real picture once.
        kl_weight, kl_reduction: 'mean' over the dimensions or their 'sum'; paper: 1, 'sum'.
        d_norm: as in GAN-CLS (ours, off in the paper's settings).
        game, leave_out: see layers/game.py (ours).
        text: the trained CharCnnRnn, or None where the data hold sentence vectors.
        """
        own = VARIANTS[choose('variant', variant, VARIANTS)]
        self.tf, self.nc = variant == 'official_tf', nc
        self.d_condition = choose('d_condition', d_condition or own['d_condition'], D_CONDITIONS)
        self.wrong = choose('wrong', wrong or own['wrong'], WRONG)
        self.d_norm = choose('d_norm', d_norm, NORMS)
        self.game = Game.of(game, leave_out)
        self.sampler = self.game.sampler
        if self.wrong == 'text' and self.d_condition == 'mu':
            raise ValueError(
                "wrong='text' needs d_condition='embedding': mu is known of the own sentence alone."
            )
        self.kl_weight, self.kl_reduction = kl_weight, kl_reduction
        self.text, self.embedding = text, self.dimensions(text, meta)
        reads = text_reads(text)
        sampled = {
            'sampled': ('wrong_image',),
            'text': tuple(f'wrong_{name}' for name in reads if name != 'length'),
        }
        self.needs = ('image', *sampled.get(self.wrong, ()), *reads, *self.game.compared(meta))
        # keywords of ConditioningAugmentation
        self.ca = dict(
            c=nc,
            form=ca_form,
            activation=ca_activation or own['ca_activation'],
            spread=ca_spread or own['ca_spread'],
            eps=ca_eps or own['ca_eps'],
        )

    def dimensions(self, text, meta):
        """Return the numbers of a condition, as `encode` makes it."""
        return text_dim(text, meta)

    def discriminator(self, size, df, rngs, **others):
        """Build the discriminator of pictures of one size."""
        D = StackDiscriminator(
            size,
            self.embedding,
            df,
            self.nc,
            self.tf,
            self.d_condition,
            NORMS[self.d_norm],
            **others,
            game=self.game,
            rngs=rngs,
        )
        self.game.prepare(D, rngs)
        return D

    def encode(self, batch, prefix=''):
        """Return sentence vectors b d; where a row has several captions, their mean.

        prefix: 'wrong_' for sentences that do not match.
        """
        return encode_sentence(self.text, batch, unit=self.unit_text, prefix=prefix)

    def condition(self, out):
        """Return the condition that D reads: the sentence vector, or mu."""
        return out.text if self.d_condition == 'embedding' else jax.lax.stop_gradient(out.mu)

    def d_loss(self, batch, key, out):
        """Mean of the terms of real pairs plus mean of those of the others."""
        D, game, condition = self.D, self.game, self.condition(out)
        game.begin(D)
        image, drawn_image = game.seen(key, batch['image'], out.image)
        real, wrong, other = D(image, train=True), None, None
        logits = D.conditional(real, condition, train=True)
        if self.wrong == 'sampled':
            (image_of_other,) = game.seen(key, batch['wrong_image'], first=2)
            wrong = D.conditional(D(image_of_other, train=True), condition, train=True)
        elif self.wrong == 'shift':
            shifted = mismatched(condition, None)
            wrong = D.conditional(real[: len(shifted)], shifted, train=True)
        elif self.wrong == 'text':
            other = self.encode(batch, 'wrong_')
            wrong = D.conditional(real, other, train=True)
        fake = D(drawn_image, train=True)
        drawn = D.conditional(fake, condition, train=True)
        answers = game.d_answers(logits, drawn, wrong)
        true, false = {'d_real': answers.right}, {}
        if wrong is not None:
            false['d_wrong'] = answers.wrong
        false['d_fake'] = answers.drawn
        if D.free_logit:
            free = game.d_answers(D.unconditional(real), D.unconditional(fake))
            true['d_real_free'], false['d_fake_free'] = free.right, free.drawn
        loss, logs = sum(true.values()) / len(true) + sum(false.values()) / len(false), true | false
        more, its_logs = game.d_more(
            D.extras,
            lambda x: D.conditional(D(x, train=True), condition, train=True),
            key,
            batch,
            out.text,
            Seen(image, real, logits),
            Seen(drawn_image, fake, drawn),
            Wrong(other, wrong),
        )
        return loss + more, logs | its_logs

    def g_loss(self, batch, key, out):
        D, game, condition = self.D, self.game, self.condition(out)
        game.begin(D)
        image, drawn_image = game.seen(key, batch['image'], out.image)
        fake, real_logits, real_free = D(drawn_image, train=True), None, None
        if game.pairs:
            real = D(image, train=True)
            real_logits = D.conditional(real, condition, train=True)
            real_free = D.unconditional(real) if D.free_logit else None
        drawn = D.conditional(fake, condition, train=True)
        logs = {'g_fake': game.g_answers(drawn, real_logits).mean()}
        if D.free_logit:
            logs['g_fake_free'] = game.g_answers(D.unconditional(fake), real_free).mean()
        kl = conditioning_kl(out.mu, out.logvar, self.kl_reduction)
        loss, logs = sum(logs.values()) + self.kl_weight * kl, logs | {'kl': kl}
        more, its_logs = game.g_more(D.extras, batch, fake, out.text)
        return loss + more, logs | its_logs


class StageOne(StackGanStage):
    """Trains the generator of the small picture and its discriminator."""

    phases = (Phase('d_loss', trains=('D1',)), Phase('g_loss', trains=('G1',)))
    ema, loads = ('G1',), {'text': 'text.text'}
    draws_from, makes, critics = ('sentence',), ('image',), ('D1',)
    tiny = dict(gf=16, df=16, nc=32)

    def __init__(
        self,
        meta,
        *,
        gf=128,
        df=64,
        nz=100,
        third_activation=False,
        unit_text=False,
        text,
        rngs,
        **shared,
    ):
        """Build the networks.

        gf, df: channels of the largest map of G and of D.
        nz: dimensions of z.
        third_activation: leaky ReLU after D's third convolution, which 'official_tf' lacks.
        unit_text: as in GAN-CLS (ours, off in the paper's settings); Stage-II does as Stage-I.
        text, shared: of StackGanStage.
        """
        super().__init__(meta, text=text, **shared)
        self.unit_text = unit_text
        self.G1 = GeneratorOne(
            meta.size, self.embedding, gf, nz, self.ca, self.tf, unit_text, rngs=rngs
        )
        self.D1 = self.discriminator(meta.size, df, rngs, third_activation=third_activation)
        if self.tf:
            truncate(self.G1, rngs)
            truncate(self.D1, rngs)

    @property
    def D(self):
        return self.D1

    def noise(self, key, n):
        return self.G1.noise(key, n)

    def forward(self, batch, key):
        text = self.encode(batch)
        noise = self.game.tied(self.noise(key, len(text)), len(text))
        return AugmentedFakes(*self.G1(text, **noise, train=True), text)

    def sample(self, batch, noise):
        """With eps = 0 in `noise` the condition is mu."""
        return {'image': self.G1(self.encode(batch), **noise, train=False)[0]}


class StageTwo(StackGanStage):
    """Trains the generator of the large picture and its discriminator; Stage-I is frozen."""

    phases = (Phase('d_loss', trains=('D2',)), Phase('g_loss', trains=('G2',)))
    # the encoder on which Stage-I was trained
    ema, loads = ('G2',), {'text': 'one.text', 'G1': 'one.G1'}
    draws_from, makes, critics = ('sentence',), ('image', 'images'), ('D2',)
    tiny = dict(gf=8, df=8, nc=32)

    def __init__(
        self,
        meta,
        *,
        gf=128,
        df=64,
        ratio=4,
        blocks=4,
        stage_one_statistics='running',
        text,
        G1,
        rngs,
        **shared,
    ):
        """Build the networks.

        gf, df: channels of the first map of G and of D.
        ratio: the side of these pictures to that of Stage-I's.
        blocks: residual blocks.
        stage_one_statistics: whether Stage-I's batch norm uses its 'running' ones or those of the
            'batch'.
        G1: the trained Stage-I.
        text, shared: of StackGanStage.
        Raises ValueError for sizes that do not fit.
        """
        super().__init__(meta, text=text, **shared)
        choose('stage_one_statistics', stage_one_statistics, STATISTICS)
        if meta.size != ratio * G1.size or ratio < 2:
            raise ValueError(
                f'Stage-I draws {G1.size} px and Stage-II {meta.size} px, which with ratio={ratio} '
                'does not fit. Set stages.two.data.size (or data.size), stages.two.model.ratio, or '
                'train Stage-I at another stages.one.data.size.'
            )
        if self.embedding != G1.embedding:
            raise ValueError(
                f'Stage-I was trained on sentence vectors of {G1.embedding} numbers, those of '
                f'these data have {self.embedding}. Use the data on which it was trained, or train '
                'Stage-I on these.'
            )
        self.G1, self.unit_text = G1, G1.unit_text
        self.batch_statistics = stage_one_statistics == 'batch'
        self.G2 = GeneratorTwo(G1.size, meta.size, self.embedding, gf, blocks, self.ca, rngs=rngs)
        self.D2 = self.discriminator(meta.size, df, rngs, unconditional=not self.tf)
        if self.tf:
            truncate(self.G2, rngs)
            truncate(self.D2, rngs)

    @property
    def D(self):
        return self.D2

    def noise(self, key, n):
        return noise_of_both(self.G1, self.G2, key, n)

    def forward(self, batch, key):
        text = self.encode(batch)
        noise = self.game.tied(self.noise(key, len(text)), len(text))
        small = self.G1(text, noise['z'], noise['eps'], train=self.batch_statistics)[0]
        return AugmentedFakes(*self.G2(small, text, noise['eps_two'], train=True), text)

    def sample(self, batch, noise):
        """`images`: Stage-I's picture and the final one."""
        images = twice(self.G1, self.G2, self.encode(batch), noise)
        return {'image': images[-1], 'images': images}


def noise_of_both(G1, G2, key, n):
    """Draw the noise of both stages; z and eps are those of Stage-I for the same key.

    So both stages show the same picture.
    """
    return G1.noise(key, n) | {'eps_two': G2.augment.noise(jax.random.fold_in(key, 2), n)}


def twice(G1, G2, text, noise):
    """Draw Stage-I's picture and the final one of sentence vectors, in evaluation mode."""
    small = G1(text, noise['z'], noise['eps'], train=False)[0]
    return [small, G2(small, text, noise['eps_two'], train=False)[0]]


class StackStyle(Style):
    """GAN-CLS's style encoder, for the final picture; z is Stage-I's."""

    loads = {'G1': 'two.G1', 'G2': 'two.G2', 'text': 'two.text'}

    def noise(self, key, n):
        return noise_of_both(self.G1, self.G2, key, n)

    def drawn(self, text, noise):
        return twice(self.G1, self.G2, text, noise)[-1]


# in the order of training
STAGES = {'text': JointEmbedding, 'one': StageOne, 'two': StageTwo, 'style': StackStyle}
