"""DF-GAN: A Simple and Effective Baseline for Text-to-Image Synthesis.

Tao, Tang, Wu, Jing, Bao, Xu, CVPR 2022 (arXiv 2008.05865).

One generator draws the picture at its full size at once, without stages, attention or
normalisation. The sentence enters every block: each map is scaled and shifted, channel by channel,
by small networks that read the sentence and z ("deep fusion"), twice before every convolution. The
discriminator gives one number, "real and matching?", and is kept smooth around real pictures with
their own sentences, so that G is led to them.

    s: sentence vector of the DAMSM, frozen;  y = [z ; s]
    affine(x, y) = gamma(y) x + beta(y),  fuse = affine, leaky ReLU, affine, leaky ReLU
    s' = the sentence of the next row
    L_D = mean max(0, 1 - D(x, s)) + 1/2 [mean max(0, 1 + D(G, s)) + mean max(0, 1 + D(x, s'))]
          + k mean |(dD/dx, dD/ds)(x, s)|^p,  k = 2, p = 6
    L_G = -mean D(G, s)

G at 256 px has 9,744,131 parameters and D 6,421,830, its head 295,936. The authors' code counts
6,619,206 in D: blocks that keep their width own a 1x1 convolution that is never used.

Deviations: those unused convolutions are left out. Real pictures of wrong pairs share D's pass over
the real ones, as in the code. Samples are drawn with z of any length unless `truncate` says
otherwise. What `game` and `wrong` can be is not in the paper (layers/game.py).

Expected: FID 14.81 on CUB, 19.32 on COCO (paper), 12.10 and 15.41 with the authors' later code.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.encoders.sentence import encode_sentence, text_dim, text_reads
from t2i_jax.layers.conv import Conv, conv3_doubled, levels, operands
from t2i_jax.layers.game import GAME, PLAIN, Game, Seen, Wrong
from t2i_jax.layers.linear import lrelu, torch_linear, uniform
from t2i_jax.layers.pairs import matching_advice
from t2i_jax.layers.remat import recomputed
from t2i_jax.losses import matching_gradient_penalty
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import Phase, Stage, normal_rows, truncated_rows, unused
from t2i_jax.systems.damsm import Damsm
from t2i_jax.systems.joint_embedding import ChosenText


# ------------------------------------------------------------------------------------ networks
def widths(size, n):
    """Return the channels of the maps from 4 px to `size`: 8 n at most, n at the end."""
    doublings = levels(size, least=8)
    return [n * min(8, 1 << i) for i in reversed(range(doublings))]


class BiasedConv(nnx.Module):
    """A convolution of stride 1 with Torch's start and a bias. b h w c -> b h w d"""

    def __init__(self, c, d, kernel, *, rngs):
        limit = (kernel * kernel * c) ** -0.5
        start = uniform(limit)
        self.conv = Conv(c, d, kernel, padding=kernel // 2, kernel_init=start, rngs=rngs)
        self.bias = nnx.Param(start(rngs.params(), (d,)))

    def __call__(self, x, doubled=False):
        """Convolve x, or x with every pixel doubled."""
        y = conv3_doubled(*operands(self.conv, x)) if doubled else self.conv(x)
        return y + self.bias[...].astype(y.dtype)


class Affine(nnx.Module):
    """gamma(y) x + beta(y): maps b h w c, conditions b n -> b h w c. It starts as x itself."""

    def __init__(self, c, n, *, rngs):
        zeros, ones = nnx.initializers.zeros, nnx.initializers.ones
        self.hidden = nnx.List([torch_linear(n, c, rngs=rngs) for _ in range(2)])
        self.out = nnx.List(
            [
                nnx.Linear(c, c, kernel_init=zeros, bias_init=start, rngs=rngs)
                for start in (ones, zeros)
            ]
        )

    def __call__(self, x, y):
        gamma, beta = (
            out(jax.nn.relu(hidden(y)))[:, None, None] for hidden, out in zip(self.hidden, self.out)
        )
        return gamma * x + beta


class Fuse(nnx.Module):
    """Two affines, each followed by a leaky ReLU. b h w c, b n -> b h w c"""

    def __init__(self, c, n, *, rngs):
        self.affines = nnx.List([Affine(c, n, rngs=rngs) for _ in range(2)])

    def __call__(self, x, y):
        for affine in self.affines:
            x = lrelu(affine(x, y))
        return x


class FusionBlock(nnx.Module):
    """Pixels doubled, then shortcut + residual, which the condition fuses. b h w c -> b 2h 2w d"""

    def __init__(self, c, d, n, *, rngs):
        self.fuses = nnx.List([Fuse(width, n, rngs=rngs) for width in (c, d)])
        self.convs = nnx.List([BiasedConv(width, d, 3, rngs=rngs) for width in (c, d)])
        self.shortcut = BiasedConv(c, d, 1, rngs=rngs) if c != d else None

    @recomputed
    def __call__(self, x, y, *, train):
        # what acts on single pixels is done before they are doubled
        short = self.shortcut(x) if self.shortcut else x
        residual = self.convs[0](self.fuses[0](x, y), doubled=True)
        residual = self.convs[1](self.fuses[1](residual, y))
        return repeat(short, 'b h w c -> b (h 2) (w 2) c') + residual


class FusionGenerator(nnx.Module):
    """Sentence vector b d and z -> picture b s s 3 in [-1, 1]."""

    def __init__(self, size, embedding, ngf, nz, *, rngs):
        c, n = widths(size, ngf), nz + embedding
        self.nz, self.size = nz, size
        self.first = torch_linear(nz, 16 * c[0], rngs=rngs)
        self.blocks = nnx.List([FusionBlock(*pair, n, rngs=rngs) for pair in zip([c[0], *c], c)])
        self.image = BiasedConv(c[-1], 3, 3, rngs=rngs)

    def __call__(self, text, z, *, train):
        y = jnp.concatenate([z, text], -1)
        x = rearrange(self.first(z), 'b (h w c) -> b h w c', h=4, w=4)
        for block in self.blocks:
            x = block(x, y, train=train)
        return jnp.tanh(self.image(lrelu(x)))


class HalvingBlock(nnx.Module):
    """shortcut + g residual, g a number that starts at 0. b 2h 2w c -> b h w d"""

    def __init__(self, c, d, *, rngs):
        self.down = Conv(
            c, d, 4, stride=2, padding=1, kernel_init=uniform((16 * c) ** -0.5), rngs=rngs
        )
        self.keep = Conv(d, d, 3, padding=1, kernel_init=uniform((9 * d) ** -0.5), rngs=rngs)
        self.shortcut = BiasedConv(c, d, 1, rngs=rngs) if c != d else None
        self.share = nnx.Param(jnp.zeros(()))

    @recomputed
    def __call__(self, x, *, train):
        residual = lrelu(self.keep(lrelu(self.down(x))))
        short = nnx.avg_pool(x, (2, 2), strides=(2, 2))
        # the mean of pixels and a 1x1 convolution can change places
        short = self.shortcut(short) if self.shortcut else short
        return short + self.share[...].astype(x.dtype) * residual


class OneWayDiscriminator(nnx.Module):
    """Picture and sentence vector -> logit of "real and matching". b

    It has no normalisation: each logit depends on its own row alone.
    """

    def __init__(self, size, embedding, ndf, hidden, game=PLAIN, *, rngs):
        c = widths(size, ndf)[::-1]
        self.first = BiasedConv(3, ndf, 3, rngs=rngs)
        self.blocks = nnx.List([HalvingBlock(*pair, rngs=rngs) for pair in zip(c, [*c[1:], c[-1]])])
        d = c[-1] + embedding
        self.joint = Conv(d, hidden, 3, padding=1, kernel_init=uniform((9 * d) ** -0.5), rngs=rngs)
        self.logit = Conv(hidden, 1, 4, kernel_init=uniform((16 * hidden) ** -0.5), rngs=rngs)
        self.extras = game.extras(16 * c[-1], embedding, rngs=rngs)

    def trunk(self, image, *, train):
        """Compute the map of 4 x 4 of pictures: b 4 4 c."""
        x = self.first(image)
        for block in self.blocks:
            x = block(x, train=train)
        return x

    def judge(self, x, text):
        """Compute the logits of maps with sentences: b."""
        tiled = repeat(text.astype(x.dtype), 'b c -> b 4 4 c')
        both = lrelu(self.joint(jnp.concatenate([x, tiled], -1)))
        return self.extras(self.logit(both)[:, 0, 0, 0], x, text)

    def __call__(self, image, text, *, train):
        return self.judge(self.trunk(image, train=train), text)


# -------------------------------------------------------------------------------------- stages
class ChosenDamsm(Damsm):
    """The DAMSM, left out of a run that gives it no steps."""

    @classmethod
    def skip(cls, config):
        return unused(config, 'damsm')


class Drawn(NamedTuple):
    """The generator's pass over a batch: pictures b s s 3 and their sentence vectors b d."""

    image: Any
    text: Any


class DfGan(Stage):
    """Trains the generator and the discriminator."""

    phases = (Phase('d_loss', trains=('D',)), Phase('g_loss', trains=('G',)))
    ema, loads = ('G',), {'text': 'damsm.text', 'sentences': 'text.text'}
    draws_from, makes = ('sentence',), ('image',)
    judges, critics = ('damsm', 'text'), ('D',)
    tiny = dict(ngf=4, ndf=4, hidden=8)
    advice = matching_advice('gan')

    def __init__(
        self,
        meta,
        *,
        ngf=32,
        ndf=32,
        nz=100,
        hidden=64,
        penalty=2.0,
        power=6.0,
        truncate=0.0,
        unit_text=False,
        game=GAME | {'adversary': 'hinge'},
        wrong='shift',
        leave_out='class',
        text,
        sentences,
        rngs,
    ):
        """Build the generator and the discriminator.

        ngf, ndf: channels of the largest map of G and of D.
        nz, hidden: dimensions of z, channels of D's head.
        penalty, power: k and p of the gradient penalty.
        truncate: samples have |z| of at most this in each dimension; 0: any.
        text, sentences: the trained text encoder, of the DAMSM or of the joint embedding.

        Ours, and off in the paper's settings:

        unit_text: scale sentence vectors to a mean square of 1.
        game, leave_out: see layers/game.py; adversary='hinge' is the paper's.
        wrong: 'shift', the next row's sentence, or 'text', one that certainly does not match.
        """
        self.game = Game.of(game, leave_out)
        self.wrong = choose('wrong', wrong, ('shift', 'text'))
        self.text, self.sentences, self.unit_text = text, sentences, unit_text
        d = text_dim(text or sentences, meta)
        self.G = FusionGenerator(meta.size, d, ngf, nz, rngs=rngs)
        self.D = OneWayDiscriminator(meta.size, d, ndf, hidden, self.game, rngs=rngs)
        self.game.prepare(self.D, rngs)
        self.sampler = self.game.sampler
        self.penalty, self.power, self.truncate = penalty, power, truncate
        reads = text_reads(text or sentences)
        sampled = tuple(f'wrong_{name}' for name in reads if name != 'length')
        sampled = sampled if wrong == 'text' else ()
        self.needs = ('image', *reads, *sampled, *self.game.compared(meta))

    def encode(self, batch, prefix=''):
        """Return sentence vectors b d (of the `wrong_` sentences)."""
        encoder = self.text or self.sentences
        return encode_sentence(encoder, batch, unit=self.unit_text, prefix=prefix)

    def noise(self, key, n):
        shape = (self.G.nz,)
        if self.truncate:
            return {'z': truncated_rows(key, n, shape, self.truncate)}
        return {'z': normal_rows(key, n, shape)}

    def forward(self, batch, key):
        text = self.encode(batch)
        noise = self.game.tied({'z': normal_rows(key, len(text), (self.G.nz,))}, len(text))
        return Drawn(self.G(text, noise['z'], train=True), text)

    def d_loss(self, batch, key, out):
        D, text = self.D, out.text
        self.game.begin(D)
        image, fake = self.game.seen(key, batch['image'], out.image)
        other = jnp.roll(text, -1, 0) if self.wrong == 'shift' else self.encode(batch, 'wrong_')
        code = D.trunk(image, train=True)
        real, unmatched, drawn = (
            D.judge(code, text),
            D.judge(code, other),
            D(fake, text, train=True),
        )
        answers = self.game.d_answers(real, drawn, unmatched)
        loss = answers.right + (answers.drawn + answers.wrong) / 2
        logs = {'d_real': answers.right, 'd_fake': answers.drawn, 'd_wrong': answers.wrong}
        if self.penalty:
            logs['matching_penalty'] = self.penalty * matching_gradient_penalty(
                lambda x, s: D(x, s, train=False), image, text, self.power
            )
            loss += logs['matching_penalty']
        more, its_logs = self.game.d_more(
            D.extras,
            lambda x: D(x, text, train=True),
            key,
            batch,
            text,
            Seen(image, code, real),
            Seen(fake, None, drawn),
            Wrong(other, unmatched),
        )
        return loss + more, logs | its_logs

    def g_loss(self, batch, key, out):
        D = self.D
        self.game.begin(D)
        image, fake = self.game.seen(key, batch['image'], out.image)
        code = D.trunk(fake, train=True)
        drawn = D.judge(code, out.text)
        real = D(image, out.text, train=True) if self.game.pairs else None
        more, logs = self.game.g_more(D.extras, batch, code, out.text)
        return self.game.g_answers(drawn, real).mean() + more, logs

    def sample(self, batch, noise):
        return {'image': self.G(self.encode(batch), noise['z'], train=False)}


# in the order of training
STAGES = {'damsm': ChosenDamsm, 'text': ChosenText, 'gan': DfGan}
