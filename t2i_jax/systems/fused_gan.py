"""FusedGAN: Semi-supervised FusedGAN for Conditional Image Generation.

Bodla, Hua, Chellappa, ECCV 2018 (arXiv 1801.05551).

Two generators share their first layers, F_s, which turn noise z into a small map M_s, the
structure of a picture: pose, shape, layout. G_u draws a picture of it without a condition, G_c with
one, y, which adds the style: colours, texture. So x_u and x_c of one z show one structure. D_u
judges pictures alone, and learns F_s from pictures without captions as well; D_c judges pictures
with their conditions. A condition is a sentence or a vector of attributes.

    M_s = F_s(z),  x_u = G_u(M_s),  x_c = G_c(M_s, c),  c = mu(y) + sigma(y) eps
    L_Du = bce1(D_u(x)) + bce0(D_u(x_u)),  x of all records
    L_Dc = bce1(D_c(x, y)) + 1/2 [bce0(D_c(x_c, y)) + bce0(D_c(x, y'))],  x of those with captions
    L_G  = bce1(D_u(x_u)) + bce1(D_c(x_c, y)) + 2 KL(N(mu, sigma^2) || N(0, I)) [+ s L_s]
    L_s  = mean |S(x_u) - S(x_c)|, S: grey, blurred (4 x 4), mean 0 and variance 1

y' is a condition that does not match. A batch of the sampler 'mixed' has rows with and without
captions (`captioned_share`); those without borrow picture and condition of one that has, where D_c
and G_c read them. `data.captioned_part` is the part of the records whose captions are read at all.
Stage `refine` is StackGAN's Stage-II on x_c, and is left out of a run that gives it no steps.

The authors published no code; sizes are those on which two public reimplementations agree: 128
numbers of z, M_s of 8 x 8 x 512. Deviations from them: pixels are doubled instead of transposed
convolutions, which leave checkers (`upsample='deconv'`); no ReLU on (mu, log variance), which would
keep mu >= 0 and sigma >= 1; D_c sees wrong pairs; attributes become 128 numbers of c, not as many
as they are. Not the paper's, and off by default: L_s, and what `game`, `g_norm`, `fine`,
`unit_text` and `d_norm` can be. Of the game, contrast and projection are those of D_c alone.

Expected (from memory, not confirmed): Inception Score on CUB at 64 px 3.00 against 2.95 of
StackGAN's Stage-I, 3.92 of the high-resolution variant. On shape_scenes: docs/results.md.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce, repeat
from flax import nnx

from t2i_jax.encoders.sentence import encode_sentence, text_dim, text_reads
from t2i_jax.layers.conditioning import ConditioningAugmentation
from t2i_jax.layers.conv import Conv, ConvTranspose, levels
from t2i_jax.layers.game import GAME, PLAIN, Game, Seen, Wrong
from t2i_jax.layers.linear import linear, lrelu
from t2i_jax.layers.norm import NORMS, BatchNorm, ModulatedNorm
from t2i_jax.layers.pairs import LEAVE_OUT, matching_advice
from t2i_jax.layers.relu import UpConv
from t2i_jax.layers.remat import recomputed
from t2i_jax.losses import conditioning_kl
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import Phase, Stage, normal_rows, unused
from t2i_jax.systems.joint_embedding import ChosenText
from t2i_jax.systems.stackgan import StageTwo

CONDITIONS = 'sentence', 'attributes'
UPSAMPLE = {
    'resize': UpConv,
    'deconv': lambda c, d, *, rngs: ConvTranspose(c, d, 4, rngs=rngs),
}


# ------------------------------------------------------------------------------------ networks
class StructurePrior(nnx.Module):
    """F_s: z b nz -> the structure M_s, b r r c; c = 8 ngf for r = 8, 4 ngf for r = 16."""

    def __init__(self, side, ngf, nz, up, *, rngs):
        c = [ngf << i for i in (4, 3, 2)][: levels(side, least=8) + 1]
        self.first = linear(nz, 16 * c[0], rngs=rngs)
        self.ups = nnx.List([up(a, b, rngs=rngs) for a, b in zip(c, c[1:])])
        self.norms = nnx.List([BatchNorm(d, rngs=rngs) for d in c])

    def __call__(self, z, *, train):
        x = rearrange(self.first(z), 'b (h w c) -> b h w c', h=4, w=4)
        for i, norm in enumerate(self.norms):
            x = self.ups[i - 1](x) if i else x
            x = jax.nn.relu(norm(x, train=train))  # b 4 4 16c, b 8 8 8c
        return x


class Tail(nnx.Module):
    """G_u, G_c: the structure b r r c, and a condition b nc -> picture b s s 3 in [-1, 1]."""

    def __init__(self, side, size, c, nc, up, modulated, fine, *, rngs):
        """Build the layers.

        side, size: of the structure and of the picture.
        c, nc: channels of the structure, numbers of the condition (0: none).
        up: makes a layer that doubles a map.
        modulated: the condition also scales and shifts the norms.
        fine: a hidden map of full size before the picture.
        """
        doublings = (size // side).bit_length() - 1
        # 64 px: 4, 2 times ngf
        widths = [c >> (i + 1) for i in range(doublings if fine else doublings - 1)]
        into = [c + nc, *widths]
        self.ups = nnx.List([up(a, b, rngs=rngs) for a, b in zip(into, widths)])
        self.modulated = modulated
        norms = [ModulatedNorm(d, nc, rngs=rngs) for d in widths] if modulated else ()
        self.norms = nnx.List(norms or [BatchNorm(d, rngs=rngs) for d in widths])
        if fine:
            start = nnx.initializers.normal(0.05)
            self.image = Conv(into[-1], 3, 3, padding=1, kernel_init=start, rngs=rngs)
        else:
            self.image = up(into[-1], 3, rngs=rngs)

    @recomputed
    def __call__(self, x, condition=None, *, train):
        if condition is not None:
            condition = condition.astype(x.dtype)
            tiled = repeat(condition, 'b c -> b h w c', h=x.shape[1], w=x.shape[2])
            x = jnp.concatenate([x, tiled], -1)
        given = (condition,) if self.modulated else ()
        for up, norm in zip(self.ups, self.norms):
            x = jax.nn.relu(norm(up(x), *given, train=train))  # b 16 16 4c, b 32 32 2c
        return jnp.tanh(self.image(x))  # b 64 64 3


class Fused(NamedTuple):
    """Pictures of one structure: x_u, x_c (b s s 3), mu and log-variance of c (b nc)."""

    free: Any
    image: Any
    mu: Any
    logvar: Any


class FusedGenerator(nnx.Module):
    """F_s, G_u and G_c: condition b d, z and eps -> (x_c, mu, log-variance); see `both`.

    `unit_text`, `condition`: how conditions are read, for stages that load this network.
    """

    def __init__(self, size, embedding, ngf, nz, nc, side, upsample, g_norm, fine, reads, *, rngs):
        up = UPSAMPLE[choose('upsample', upsample, UPSAMPLE)]
        if side not in (8, 16) or size < 2 * side:
            raise ValueError(
                f'prior_res={side} is the side of a map from which pictures of {size} px are '
                f'drawn: it is 8 or 16, and at most {size // 2}.'
            )
        self.size, self.embedding, self.nz = size, embedding, nz
        self.unit_text, self.condition = reads
        c = 64 * ngf // side
        modulated = choose('g_norm', g_norm, ('batch', 'modulated')) == 'modulated'
        self.augment = ConditioningAugmentation(embedding, nc, form='dense', rngs=rngs)
        self.prior = StructurePrior(side, ngf, nz, up, rngs=rngs)
        self.unconditional = Tail(side, size, c, 0, up, False, fine, rngs=rngs)
        self.conditional = Tail(side, size, c, nc, up, modulated, fine, rngs=rngs)

    def noise(self, key, n):
        z_key, eps_key = jax.random.split(key)
        return {'z': normal_rows(z_key, n, (self.nz,)), 'eps': self.augment.noise(eps_key, n)}

    def both(self, text, z, eps, *, train) -> Fused:
        """Draw both pictures of one structure."""
        structure, (c, *normal) = self.prior(z, train=train), self.augment(text, eps)
        image = self.conditional(structure, c, train=train)
        return Fused(self.unconditional(structure, train=train), image, *normal)

    def free(self, z):
        """Draw x_u, b s s 3, in evaluation mode."""
        return self.unconditional(self.prior(z, train=False), train=False)

    def __call__(self, text, z, eps, *, train):
        condition, mu, logvar = self.augment(text, eps)
        return self.conditional(self.prior(z, train=train), condition, train=train), mu, logvar


class Ladder(nnx.Module):
    """Halving convolutions: b h w c -> b h/2 w/2 d, ... `pictures`: no norm after the first."""

    def __init__(self, channels, norm, pictures, *, rngs):
        pairs = list(zip(channels, channels[1:]))
        self.downs = nnx.List([Conv(a, b, 4, stride=2, padding=1, rngs=rngs) for a, b in pairs])
        self.norms = nnx.List([norm(d, rngs=rngs) for d in channels[1 + pictures :]])
        self.bare = len(self.downs) - len(self.norms)

    @recomputed
    def __call__(self, x, *, train):
        for i, down in enumerate(self.downs):
            x = down(x)
            x = lrelu(x if i < self.bare else self.norms[i - self.bare](x, train=train))
        return x


class FreeDiscriminator(nnx.Module):
    """D_u: picture -> logit of "real". b"""

    def __init__(self, size, ndf, norm, game=PLAIN, *, rngs):
        c = [ndf << i for i in range(levels(size))]
        self.trunk = Ladder([3, *c], norm, True, rngs=rngs)
        self.logit = linear(16 * c[-1], 1, rngs=rngs)
        game = game._replace(contrast=(0.0, 0.0), projection=False)
        self.extras = game.extras(16 * c[-1], 0, rngs=rngs)

    def __call__(self, image, *, train):
        x = self.trunk(image, train=train)  # b 4 4 8c
        return self.logit(rearrange(x, 'b h w c -> b (h w c)'))[:, 0]


class MatchingDiscriminator(nnx.Module):
    """D_c: picture and condition b d -> logit of "real and matching". b

    They meet on the map of the fourth convolution: 4 x 4 for 64 px, 8 x 8 for 128.
    """

    def __init__(self, size, embedding, ndf, nt, norm, game=PLAIN, *, rngs):
        c = [ndf << i for i in range(levels(size))]
        before, after = c[:4], c[3:]
        self.trunk = Ladder([3, *before], norm, True, rngs=rngs)
        self.project = linear(embedding, nt, use_bias=True, rngs=rngs)
        self.joint = Conv(before[-1] + nt, before[-1], 1, rngs=rngs)
        self.norm = norm(before[-1], rngs=rngs)
        self.rest = Ladder(after, norm, False, rngs=rngs)
        self.logit = linear(16 * c[-1], 1, rngs=rngs)
        features = (size >> len(before)) ** 2 * before[-1]
        self.extras = game.extras(features, embedding, rngs=rngs)

    def judge(self, x, text, *, train):
        """Compute the logits of maps of the trunk with conditions: b."""
        t = lrelu(self.project(text)).astype(x.dtype)
        both = jnp.concatenate([x, repeat(t, 'b c -> b h w c', h=x.shape[1], w=x.shape[2])], -1)
        both = lrelu(self.norm(self.joint(both), train=train))
        both = self.rest(both, train=train)  # b 4 4 c
        logits = self.logit(rearrange(both, 'b h w c -> b (h w c)'))[:, 0]
        return self.extras(logits, x, text)

    def __call__(self, image, text, *, train):
        return self.judge(self.trunk(image, train=train), text, train=train)


# -------------------------------------------------------------------------------------- stages
def borrowed(captioned):
    """Return the number of a captioned row for each row, its own where it is one: bool b -> b."""
    numbers = jnp.arange(len(captioned))
    first = jnp.argsort(~captioned, stable=True)
    return jnp.where(captioned, numbers, first[numbers % jnp.maximum(captioned.sum(), 1)])


def structure_of(images):
    """Return pictures b s s 3 grey, blurred, of mean 0 and variance 1: b s/4 s/4."""
    grey = reduce(images.astype(jnp.float32), 'b (h i) (w j) c -> b h w', 'mean', i=4, j=4)
    centred = grey - grey.mean((1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean((1, 2), keepdims=True) + 1e-5)


class FusedFakes(NamedTuple):
    """The generator's pass over a batch; conditions b d; the rows they come from, b."""

    drawn: Fused
    text: Any
    rows: Any


class Controls:
    """The explorations: what moves with z (structure), with eps (detail), with the sentence."""

    @staticmethod
    def posture(sampler, batch, texts, num, seed):
        """Each sentence with several z, the same in each row; above them x_u."""
        n = len(texts)
        noise = sampler.noise(num, seed, n)
        noise = {k: x if k == 'z' else np.repeat(x[:1], n * num, 0) for k, x in noise.items()}
        batch = {name: np.repeat(x, num, 0) for name, x in batch.items()}
        drawn = sampler.sample(batch, noise, (n, num))['image']
        return beside(sampler, drawn, noise, (1, num), 0), ['the structure alone', *texts]

    @staticmethod
    def detail(sampler, batch, texts, num, seed):
        """Each sentence with one z and several eps."""
        n = len(texts)
        noise = sampler.noise(num, seed, n)
        noise['z'] = np.repeat(noise['z'][:1], n * num, 0)
        batch = {name: np.repeat(x, num, 0) for name, x in batch.items()}
        return sampler.sample(batch, noise, (n, num))['image'], texts

    @staticmethod
    def restyle(sampler, batch, texts, num, seed):
        """One z in each row, with all sentences; in front of them x_u."""
        n = len(texts)
        noise = {name: np.repeat(x, n, 0) for name, x in sampler.noise(num, seed).items()}
        noise = {k: x if k == 'z' else np.repeat(x[:1], n * num, 0) for k, x in noise.items()}
        batch = {name: np.concatenate([x] * num) for name, x in batch.items()}
        drawn = sampler.sample(batch, noise, (num, n))['image']
        alone = {name: x[::n] for name, x in noise.items()}
        labels = ['the structure alone; ' + '; '.join(texts), *[''] * (num - 1)]
        return beside(sampler, drawn, alone, (num, 1), 1), labels


def beside(sampler, drawn, noise, shape, axis):
    """Put x_u of the first rows of noise, so arranged, before pictures along an axis."""
    few = {name: x[: shape[0] * shape[1]] for name, x in noise.items()}
    free = sampler.sample({}, few, shape, method='alone')['image']
    ratio = drawn.shape[2] // free.shape[2]
    return np.concatenate([free.repeat(ratio, 2).repeat(ratio, 3), drawn], axis)


EXPLORES = {name: name for name in ('posture', 'detail', 'restyle')}


class FusedGan(Controls, Stage):
    """Trains the generators and both discriminators."""

    phases = (
        Phase('du_loss', trains=('D_u',)),
        Phase('dc_loss', trains=('D_c',)),
        Phase('g_loss', trains=('G',)),
    )
    ema, loads = ('G',), {'text': 'text.text'}
    draws_from, makes = ('sentence',), ('image',)
    judges, critics, explores = ('text',), ('D_u', 'D_c'), EXPLORES
    tiny = dict(ngf=8, ndf=8, nz=16, nc=16, nt=16)
    advice = matching_advice('gan')

    def __init__(
        self,
        meta,
        *,
        ngf=64,
        ndf=64,
        nz=128,
        nc=128,
        nt=128,
        prior_res=8,
        upsample='resize',
        condition='sentence',
        kl_weight=2.0,
        kl_reduction='mean',
        structure=0.0,
        d_norm='batch',
        unit_text=False,
        g_norm='batch',
        fine=False,
        game=GAME,
        leave_out='class',
        text,
        rngs,
    ):
        """Build the networks.

        ngf, ndf: channels of a map of 64 px in G and of 32 in D; M_s has 8 ngf.
        nz, nc, nt: dimensions of z, of c and of the condition in D_c.
        prior_res: side of M_s, 8 or 16 (more structure, less style).
        upsample: 'resize' or 'deconv'.
        condition: 'sentence' or 'attributes'.
        kl_weight, kl_reduction: 'mean' over the dimensions or their 'sum'.
        text: the trained text encoder, or None where the data hold sentence vectors.

        Ours, and off in the paper's settings:

        structure: s, the weight of L_s.
        unit_text, d_norm, g_norm, fine: as in GAN-CLS; g_norm is that of G_c.
        game, leave_out: see layers/game.py.
        """
        choose('d_norm', d_norm, NORMS)
        self.condition = choose('condition', condition, CONDITIONS)
        self.game = Game.of(game, leave_out)
        self.sampler, self.unit_text, self.text = self.game.sampler, unit_text, text
        if condition == 'attributes':
            d, reads = meta.attributes, ('attributes',)
            if not d:
                raise ValueError(
                    f"{meta.name} has no attributes, which condition='attributes' reads: set "
                    'condition=sentence, or use shape_scenes or cub200_captions.'
                )
        else:
            d, reads = text_dim(text, meta), text_reads(text)
        self.draws_from = (condition,)
        wrong = tuple(f'wrong_{name}' for name in reads if name != 'length')
        self.needs = ('image', 'captioned', *reads, *wrong, *self.game.compared(meta))
        self.kl_weight, self.kl_reduction, self.structure = kl_weight, kl_reduction, structure
        self.G = FusedGenerator(
            *(meta.size, d, ngf, nz, nc, prior_res, upsample, g_norm, fine),
            (unit_text, condition),
            rngs=rngs,
        )
        self.D_u = FreeDiscriminator(meta.size, ndf, NORMS[d_norm], self.game, rngs=rngs)
        self.D_c = MatchingDiscriminator(meta.size, d, ndf, nt, NORMS[d_norm], self.game, rngs=rngs)
        for D in (self.D_u, self.D_c):
            self.game.prepare(D, rngs)

    def encode(self, batch, prefix=''):
        """Return conditions b d: sentence vectors, or attributes."""
        if self.condition == 'attributes':
            return batch[f'{prefix}attributes'].astype(jnp.float32)
        return encode_sentence(self.text, batch, unit=self.unit_text, prefix=prefix)

    def noise(self, key, n):
        return self.G.noise(key, n)

    def forward(self, batch, key):
        rows = borrowed(batch['captioned'])
        text = self.encode(batch)[rows]
        noise = self.game.tied(self.noise(key, len(text)), len(text))
        return FusedFakes(self.G.both(text, **noise, train=True), text, rows)

    def captioned(self, batch, rows):
        """Return what D_c reads of a batch besides conditions, of these rows."""
        names = 'image', *LEAVE_OUT[self.game.leave_out]
        return {name: batch[name][rows] for name in names if name in batch}

    def du_loss(self, batch, key, out):
        D, game = self.D_u, self.game
        game.begin(D)
        image, fake = game.seen(key, batch['image'], out.drawn.free)
        real, drawn = D(image, train=True), D(fake, train=True)
        answers = game.d_answers(real, drawn)
        more, logs = game.d_more(
            D.extras,
            lambda x: D(x, train=True),
            key,
            batch,
            None,
            Seen(image, None, real),
            Seen(fake, None, drawn),
            Wrong(None, None),
        )
        logs |= {'real': answers.right, 'fake': answers.drawn}
        logs = {f'u_{name}': value for name, value in logs.items()}
        return answers.right + answers.drawn + more, logs

    def dc_loss(self, batch, key, out):
        D, game, text = self.D_c, self.game, out.text
        game.begin(D)
        own, other = self.captioned(batch, out.rows), self.encode(batch, 'wrong_')[out.rows]
        image, fake = game.seen(key, own['image'], out.drawn.image)
        code = D.trunk(image, train=True)
        real, unmatched, drawn = (
            D.judge(code, text, train=True),
            D.judge(code, other, train=True),
            D(fake, text, train=True),
        )
        answers = game.d_answers(real, drawn, unmatched)
        loss = answers.right + (answers.drawn + answers.wrong) / 2
        logs = {'d_real': answers.right, 'd_fake': answers.drawn, 'd_wrong': answers.wrong}
        more, its_logs = game.d_more(
            D.extras,
            lambda x: D(x, text, train=True),
            key,
            own,
            text,
            Seen(image, code, real),
            Seen(fake, None, drawn),
            Wrong(other, unmatched),
        )
        # a batch without any caption teaches nothing here
        return (loss + more) * batch['captioned'].any(), logs | its_logs

    def g_loss(self, batch, key, out):
        D_u, D_c, game, drawn = self.D_u, self.D_c, self.game, out.drawn
        for D in (D_u, D_c):
            game.begin(D)
        own = self.captioned(batch, out.rows)
        image, free = game.seen(key, batch['image'], drawn.free)
        its_image, fake = game.seen(key, own['image'], drawn.image)
        code = D_c.trunk(fake, train=True)
        real, its_real = None, None
        if game.pairs:
            real, its_real = D_u(image, train=True), D_c(its_image, out.text, train=True)
        logs = {
            'g_u': game.g_answers(D_u(free, train=True), real).mean(),
            'g_c': game.g_answers(D_c.judge(code, out.text, train=True), its_real).mean(),
            'kl': conditioning_kl(drawn.mu, drawn.logvar, self.kl_reduction),
        }
        more, its_logs = game.g_more(D_c.extras, own, code, out.text)
        conditional = logs['g_c'] + self.kl_weight * logs['kl'] + more
        loss = logs['g_u'] + conditional * batch['captioned'].any()
        off = jnp.abs(structure_of(drawn.free) - structure_of(drawn.image)).mean()
        loss += self.structure * off if self.structure else 0.0
        return loss, logs | its_logs | {'structures_differ': off}

    def sample(self, batch, noise):
        return {'image': self.G(self.encode(batch), **noise, train=False)[0]}

    def alone(self, batch, noise):
        """Draw x_u: the structure, without a condition."""
        return {'image': self.G.free(noise['z'])}


class FusedRefiner(Controls, StageTwo):
    """StackGAN's Stage-II on x_c; what it refines is frozen."""

    loads, explores = {'text': 'gan.text', 'G1': 'gan.G'}, EXPLORES

    @classmethod
    def skip(cls, config):
        return unused(config, 'refine')

    def __init__(self, meta, *, text, G1, rngs, **others):
        """Build the networks; keywords as StageTwo. Raises ValueError for attributes."""
        if G1.condition != 'sentence':
            raise ValueError(
                "Pictures of attributes (condition='attributes') are not refined: leave the stage "
                'out, --config.stages.refine.steps=0.'
            )
        super().__init__(meta, text=text, G1=G1, rngs=rngs, **others)

    def alone(self, batch, noise):
        """Draw x_u: the structure, without a condition, small."""
        return {'image': self.G1.free(noise['z'])}


# in the order of training
STAGES = {'text': ChosenText, 'gan': FusedGan, 'refine': FusedRefiner}
