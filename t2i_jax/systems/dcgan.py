"""DCGAN: Unsupervised Representation Learning with Deep Convolutional GANs.

Radford, Metz, Chintala, ICLR 2016.

Noise becomes a picture without any text: the baseline of all that follows, and what can be trained
on a folder of pictures. The generator doubles a 4 x 4 map with transposed convolutions until it is
as large as the picture, the discriminator halves the picture with strided ones; no pooling, no
hidden dense layers, batch normalisation everywhere but at the pixels (G's last, D's first layer)
and at D's logit. The game is that of Generative Adversarial Nets (Goodfellow et al., NIPS 2014),
whose plain networks are the variant 'mlp'.

    bce1(s) = softplus(-s),  bce0(s) = softplus(s)
    L_D = mean bce1(D(x)) + mean bce0(D(G(z)))        (added, not halved)
    L_G = mean bce1(D(G(z)))                          'nonsaturating', that of the paper

| variant | networks | kernel | ngf, ndf, nz | z | D and G |
|---|---|---|---|---|---|
| 'torch' | dcgan.torch [1] | 4 | 64, 64, 100 | normal | both learn from every batch |
| 'radford' | the authors' Theano code [2] | 5 | 128, 128, 100 | uniform | take turns |
| 'mlp' | dense layers [3] | | 256, 256, 100 | uniform | as 'torch' |

[1] from which GAN-CLS was built. [2] The units of G's first map are normalised one by one. [3] Of
ngf, 2 ngf and of 2 ndf, ndf units, leaky ReLU. A picture of 4 * 2^n pixels takes n layers with
channels that halve from ngf 2^(n - 1) to ngf.

Deviations: D's and G's step share the images of G. Dcgan.torch sends G's gradient through what D
computed before its update; here D computes anew. Samples are drawn with running statistics; the
originals use those of the batch (`sample_bn='batch'`). Batch norm has eps 1e-5 where Theano has
1e-8. The authors' L2 of 1e-5 belongs to the optimiser (`optim.d_loss.l2`). 'mlp' has no maxout and
no dropout, tanh at the end, and starts from U(-1/sqrt(c), 1/sqrt(c)): N(0, .02) would be far too
small without normalisation. With 'wgan-gp' the critic is not normalised, as in Gulrajani et al.,
because their penalty is one of each picture alone. A moving average of G's weights is kept;
`stages.gan.ema=0` samples with the plain weights, as the originals do.

Expected: the paper has no Inception Score or FID. CIFAR-10 from the features of D and a linear SVM:
82.8 % (from memory).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from t2i_jax.layers.conv import Conv, ConvTranspose, levels
from t2i_jax.layers.linear import linear, lrelu, torch_linear
from t2i_jax.layers.norm import BatchNorm
from t2i_jax.losses import adversarial, gradient_penalty
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import Phase, Stage, normal_rows, uniform_rows


class DcganVariant(NamedTuple):
    """The choices in which the published networks differ.

    kernel: 0 for dense layers. unit_norm: whether G's first norm is over single units, not over
    channels.
    """

    ngf: int
    ndf: int
    nz: int
    z: str
    kernel: int = 0
    unit_norm: bool = False
    alternate: bool = False


VARIANTS = {
    'torch': DcganVariant(64, 64, 100, 'normal', kernel=4),
    'radford': DcganVariant(128, 128, 100, 'uniform', kernel=5, unit_norm=True, alternate=True),
    'mlp': DcganVariant(256, 256, 100, 'uniform'),
}

# -> the adversarial pair
LOSSES = {kind: kind for kind in ('nonsaturating', 'minimax', 'hinge')} | {'wgan-gp': 'wgan'}
NOISE = {'normal': normal_rows, 'uniform': functools.partial(uniform_rows, low=-1.0)}
SAMPLE_BN = 'running', 'batch'


# ------------------------------------------------------------------------------------ networks
class ConvGenerator(nnx.Module):
    """Noise b nz -> image in [-1, 1]."""

    def __init__(self, size, ngf, nz, kernel, unit_norm, *, rngs):
        n = levels(size)
        c = [ngf << (n - 1 - i) for i in range(n)]  # 64 px: 8, 4, 2, 1 times ngf
        padding = (2, kernel - 2)
        self.first = linear(nz, 16 * c[0], rngs=rngs)
        self.unit_norm = unit_norm
        normed = [16 * c[0] if unit_norm else c[0], *c[1:]]
        self.norms = nnx.List([BatchNorm(d, rngs=rngs) for d in normed])
        self.ups = nnx.List(
            [ConvTranspose(a, b, kernel, padding, rngs=rngs) for a, b in zip(c, c[1:])]
        )
        self.image = ConvTranspose(c[-1], 3, kernel, padding, rngs=rngs)

    def __call__(self, z, *, train):
        first_norm, *norms = self.norms
        x = self.first(z)  # b 16*8c
        x = first_norm(x, train=train) if self.unit_norm else x
        x = rearrange(x, 'b (h w c) -> b h w c', h=4, w=4)  # b 4 4 8c
        x = x if self.unit_norm else first_norm(x, train=train)
        x = jax.nn.relu(x)
        for up, norm in zip(self.ups, norms):
            x = jax.nn.relu(norm(up(x), train=train))  # b 8 8 4c, b 16 16 2c, b 32 32 c
        return jnp.tanh(self.image(x))  # b 64 64 3


class ConvDiscriminator(nnx.Module):
    """Image -> logit of "real". b"""

    def __init__(self, size, ndf, kernel, normalise=True, *, rngs):
        c = [ndf << i for i in range(levels(size))]
        pad = (kernel - 1) // 2
        self.downs = nnx.List(
            [Conv(a, b, kernel, stride=2, padding=pad, rngs=rngs) for a, b in zip([3] + c, c)]
        )
        self.norms = nnx.List([BatchNorm(d, rngs=rngs) for d in c[1:]]) if normalise else None
        self.logit = linear(16 * c[-1], 1, rngs=rngs)

    def maps(self, x, *, train):
        """Compute the map after each layer: the features by which the paper classifies pictures."""
        maps = []
        for i, down in enumerate(self.downs):
            x = down(x)  # b 32 32 c, b 16 16 2c, b 8 8 4c, b 4 4 8c
            x = lrelu(self.norms[i - 1](x, train=train) if i and self.norms else x)
            maps.append(x)
        return maps

    def __call__(self, x, *, train):
        return self.logit(rearrange(self.maps(x, train=train)[-1], 'b h w c -> b (h w c)'))[:, 0]


class Mlp(nnx.Module):
    """Dense layers with leaky ReLU between them. b c -> b d"""

    def __init__(self, sizes, *, rngs):
        self.layers = nnx.List([torch_linear(c, d, rngs=rngs) for c, d in zip(sizes, sizes[1:])])

    def __call__(self, x):
        for layer in list(self.layers)[:-1]:
            x = lrelu(layer(x))
        return self.layers[-1](x)


class MlpGenerator(nnx.Module):
    """Noise b nz -> image in [-1, 1]."""

    def __init__(self, size, ngf, nz, *, rngs):
        self.size = size
        self.net = Mlp((nz, ngf, 2 * ngf, 3 * size * size), rngs=rngs)

    def __call__(self, z, *, train):
        return jnp.tanh(rearrange(self.net(z), 'b (h w c) -> b h w c', h=self.size, c=3))


class MlpDiscriminator(nnx.Module):
    """Image -> logit of "real". b"""

    def __init__(self, size, ndf, *, rngs):
        self.net = Mlp((3 * size * size, 2 * ndf, ndf, 1), rngs=rngs)

    def __call__(self, x, *, train):
        return self.net(rearrange(x, 'b h w c -> b (h w c)'))[:, 0]


# --------------------------------------------------------------------------------------- stage
class Dcgan(Stage):
    """Trains the generator and the discriminator."""

    phases = (Phase('d_loss', trains=('D',)), Phase('g_loss', trains=('G',)))
    ema, needs = ('G',), ('image',)
    makes, critics = ('image',), ('D',)
    tiny = dict(ngf=16, ndf=16, nz=32)

    def __init__(
        self,
        meta,
        *,
        variant='torch',
        loss='nonsaturating',
        ngf=0,
        ndf=0,
        nz=0,
        z='',
        alternate=None,
        d_steps=1,
        g_steps=1,
        penalty=10.0,
        sample_bn='running',
        rngs,
    ):
        """Build the networks and their phases.

        variant: 'torch', 'radford', 'mlp'. Where ngf, ndf, nz is 0, z empty or alternate None, it
            is the variant's own.
        loss: 'nonsaturating', 'minimax', 'hinge' or 'wgan-gp', whose gradient penalty has the
            weight `penalty`.
        ngf, ndf, nz: channels of the largest map of G and of D, and dimensions of z.
        z: 'normal' or 'uniform'.
        alternate: one batch trains G, the next one D.
        d_steps, g_steps: one of them may be larger than 1: D is then updated d_steps times for each
            update of G, each time on another batch, or the other way round.
        sample_bn: sampling normalises with 'running' statistics or with those of the 'batch' of
            samples.
        """
        own = VARIANTS[choose('variant', variant, VARIANTS)]
        self.loss = LOSSES[choose('loss', loss, LOSSES)]
        self.z = choose('z', z or own.z, NOISE)
        self.normal = ('z',) if self.z == 'normal' else ()
        self.sample_bn = choose('sample_bn', sample_bn, SAMPLE_BN)
        self.penalty = penalty if loss == 'wgan-gp' else 0.0
        ngf, ndf, self.nz = ngf or own.ngf, ndf or own.ndf, nz or own.nz
        if own.kernel:
            normalise = loss != 'wgan-gp'
            self.G = ConvGenerator(meta.size, ngf, self.nz, own.kernel, own.unit_norm, rngs=rngs)
            self.D = ConvDiscriminator(meta.size, ndf, own.kernel, normalise, rngs=rngs)
        else:
            self.G = MlpGenerator(meta.size, ngf, self.nz, rngs=rngs)
            self.D = MlpDiscriminator(meta.size, ndf, rngs=rngs)

        alternate = own.alternate if alternate is None and d_steps == g_steps == 1 else alternate
        if min(d_steps, g_steps) != 1 or (alternate and max(d_steps, g_steps) != 1):
            raise ValueError(
                f'DCGAN cannot have alternate={alternate}, d_steps={d_steps} and '
                f'g_steps={g_steps}: set one of the three, and the steps to 1 or more.'
            )
        d, g = self.phases
        if alternate:
            self.phases = g._replace(every=2), d._replace(every=2, at=1)
        else:
            self.phases = d._replace(every=g_steps), g._replace(every=d_steps, at=d_steps - 1)

    def noise(self, key, n):
        return {'z': NOISE[self.z](key, n, (self.nz,))}

    def forward(self, batch, key):
        z_key, _ = jax.random.split(key)
        return self.G(self.noise(z_key, len(batch['image']))['z'], train=True)

    def d_loss(self, batch, key, out):
        real, fake = self.D(batch['image'], train=True), self.D(out, train=True)
        loss = adversarial(self.loss)[0](real, fake)
        logs = {}
        # a critic's sign says nothing
        if self.loss != 'wgan':
            # near 1 for long: D has won, and G learns nothing
            logs['d_right'] = ((real > 0).mean() + (fake < 0).mean()) / 2
        if self.penalty:
            _, penalty_key = jax.random.split(key)

            def critic(x):
                return self.D(x, train=False)

            logs['penalty'] = gradient_penalty(
                critic, batch['image'], out, penalty_key, self.penalty
            )
            loss += logs['penalty']
        return loss, logs

    def g_loss(self, batch, key, out):
        return adversarial(self.loss)[1](self.D(out, train=True)), {}

    def sample(self, batch, noise):
        return {'image': self.G(noise['z'], train=self.sample_bn == 'batch')}


STAGES = {'gan': Dcgan}
