"""Attribute2Image: Conditional Image Generation from Visual Attributes.

Yan, Yang, Sohn, Lee, ECCV 2016. Pictures from vectors of attributes, by conditional variational
autoencoders.

CVAE: one latent z, prior N(0, I), decoder p(x | z, y). disCVAE (`layered`): a foreground with z_F,
which depends on the attributes y, and a background with z_B; the foreground decoder also draws a
gate g in (0, 1), how much of the background is seen:

    z_F ~ q(z_F | x m, y)    z_B ~ q(z_B | x, y, z_F)
    x^ = x_F + g x_B, added as light: (x_F + 1) + g (x_B + 1) - 1
    L = nll(x_F, x m) + nll(x^, x) + .3 bce(g, 1 - m)
        + KL(q(z_F) | N(0, I)) + KL(q(z_B) | N(0, I))

x m is the picture with black (-1) where the mask m is 0; nll and bce are sums over pixels and
channels, L is their mean over the batch. nll is smooth L1 as in the authors' Torch code, or a
Gaussian with a log-variance for each pixel. Without a mask, a picture is encoded, completed or
edited by optimising its latents (`infer`). Reads `attributes`, and for the layers `mask`; no
sentences.

Deviations: the composition adds light, since with the code's x_F + g x_B and x_F = -1 behind the
object no background brighter than grey can be reached (`compose='legacy'`); one gate channel
instead of three with one target; means over the batch instead of sums (Adam does not see it, and
the code's weight decay of .004, which is negligible against sums over 12,288 pixels, becomes 0);
log-variances within [-6, 2]; the mixing layer of the decoder starts from N(0, 1/n) like that of the
encoder (in the code, by a slip, from positive numbers); the background's KL also moves z_F; other
sizes of pictures start from maps of size/8, and the background's from 2 x 2 with fewer or more
doublings. Not the paper's, and 1 and 0 by default: kl_weight, and warmup, steps within which it
rises.

Published, from memory: cosine of predicted attributes on LFW .905 (CVAE) and .906 (disCVAE),
nearest neighbour .872. What is reached on shape_scenes stands in
experiments/attribute2image_shapes.py.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange, reduce
from flax import nnx

from t2i_jax.layers.conv import conv_doubled
from t2i_jax.layers.linear import torch_linear, uniform
from t2i_jax.layers.norm import BatchNorm
from t2i_jax.losses import gaussian_kl, gaussian_nll, smooth_l1
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import Phase, Stage, normal_rows

# bounds of a pixel's log-variance: a constant pixel would drive it to minus infinity
LOGVAR = -6.0, 2.0


# ------------------------------------------------------------------------------------ networks
class TorchConv(nnx.Conv):
    """A square convolution that keeps the side, halves it (stride 2) or doubles it (`double`).

    To double, every pixel is doubled first. It starts as Torch's: kernel and bias from
    U(-1/sqrt(n), 1/sqrt(n)), n = the inputs of one sum.
    """

    def __init__(self, c, d, kernel, stride=1, double=False, *, rngs):
        start = uniform((kernel * kernel * c) ** -0.5)
        super().__init__(
            c,
            d,
            (kernel, kernel),
            strides=(stride, stride),
            padding=kernel // 2,
            kernel_init=start,
            bias_init=start,
            rngs=rngs,
        )
        self.double = double

    def __call__(self, x):
        if not self.double:
            return super().__call__(x)
        arrays = x, self.kernel[...], self.bias[...]
        x, kernel, bias = nnx.nn.dtypes.promote_dtype(arrays, dtype=self.dtype)
        return conv_doubled(x, kernel) + bias


def mixing(c, d, *, rngs):
    """Make a dense layer that joins latents and attributes: normal(0, 1/sqrt(c))."""
    return nnx.Linear(c, d, kernel_init=nnx.initializers.normal(c**-0.5), rngs=rngs)


class ConvBlock(nnx.Module):
    """Convolution, batch norm, ReLU. b h w c -> b h w d, or a map of half or twice the side."""

    def __init__(self, c, d, kernel, stride=1, double=False, norm=True, *, rngs):
        self.conv = TorchConv(c, d, kernel, stride, double, rngs=rngs)
        self.norm = BatchNorm(d, rngs=rngs) if norm else None

    def __call__(self, x, *, train):
        x = self.conv(x)
        return jax.nn.relu(self.norm(x, train=train) if self.norm else x)


class PictureBody(nnx.Module):
    """Picture b s s 3 -> features b d.

    Three convolutions with pooling, one of stride 2, two dense layers, dropout.
    """

    def __init__(self, size, channels, kernels, d, dropout, *, rngs):
        self.blocks = nnx.List(
            [
                ConvBlock(a, b, k, stride=1 + (i == 3), norm=i > 0, rngs=rngs)
                for i, (a, b, k) in enumerate(zip((3, *channels), channels, kernels))
            ]
        )
        # 64 px: a 'valid' convolution of 4 x 4
        self.flat = torch_linear((size // 16) ** 2 * channels[-1], d, rngs=rngs)
        self.dense = torch_linear(d, d, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x, *, train, key):
        for i, block in enumerate(self.blocks):
            x = block(x, train=train)  # b s s c, b s/2 s/2 2c, b s/4 s/4 4c, b s/16 s/16 4c
            x = reduce(x, 'b (h i) (w j) c -> b h w c', 'max', i=2, j=2) if i < 3 else x
        x = jax.nn.relu(self.flat(rearrange(x, 'b h w c -> b (h w c)')))
        return self.dropout(jax.nn.relu(self.dense(x)), deterministic=not train, rngs=key)


class PictureEncoder(nnx.Module):
    """q(z | x, y): picture and attributes -> mean and log-variance, b z each.

    The log-variance sees the picture alone, unless `logvar_sees_y`.
    """

    def __init__(self, size, width, attributes, nz, dropout, logvar_sees_y, *, rngs):
        w = width
        self.body = PictureBody(
            size, (w, 2 * w, 4 * w, 4 * w), (5, 5, 3, 3), 16 * w, dropout, rngs=rngs
        )
        self.attributes = torch_linear(attributes, nz, rngs=rngs)
        self.mean = mixing(16 * w + nz, nz, rngs=rngs)
        zero, seen = nnx.initializers.zeros_init(), 16 * w + (nz if logvar_sees_y else 0)
        self.logvar = nnx.Linear(seen, nz, kernel_init=zero, rngs=rngs)
        self.logvar_sees_y = logvar_sees_y

    def __call__(self, x, y, *, train, key):
        h = self.body(x, train=train, key=key)
        both = jnp.concatenate([h, jax.nn.relu(self.attributes(y))], -1)
        return self.mean(both), self.logvar(both if self.logvar_sees_y else h)


class BackgroundEncoder(nnx.Module):
    """q(z_B | x, y, z_F) -> mean and log-variance, b z each; attributes: 0 where it sees no y."""

    def __init__(self, size, width, attributes, nz_f, nz, dropout, *, rngs):
        w = width
        self.body = PictureBody(size, (w, w, w, w), (5, 5, 3, 3), 4 * w, dropout, rngs=rngs)
        self.sees_y = attributes > 0
        self.joint = torch_linear(4 * w + attributes + nz_f, 4 * w, rngs=rngs)
        self.mean = torch_linear(4 * w, nz, rngs=rngs)
        self.logvar = torch_linear(4 * w, nz, rngs=rngs)

    def __call__(self, x, y, z_f, *, train, key):
        given = (y, z_f) if self.sees_y else (z_f,)
        h = jnp.concatenate([self.body(x, train=train, key=key), *given], -1)
        h = jax.nn.relu(self.joint(h))
        return self.mean(h), self.logvar(h)


class PictureDecoder(nnx.Module):
    """p(x | z, y): latent and attributes -> {'mean': b s s 3 in (-1, 1)}.

    With `gate` and `logvar` also 'gate' (b s s 1, logits) and 'logvar' (b s s 3).
    """

    def __init__(self, size, width, attributes, nz, gate, logvar, *, rngs):
        w, self.side = width, size // 8
        self.attributes = torch_linear(attributes, 2 * nz, rngs=rngs)
        self.mix = mixing(3 * nz, nz, rngs=rngs)
        self.first = torch_linear(nz, self.side**2 * 4 * w, rngs=rngs)
        shapes = ((4 * w, 4 * w, 3), (4 * w, 4 * w, 5), (4 * w, 2 * w, 5), (2 * w, w, 5))
        self.blocks = nnx.List(
            [ConvBlock(c, d, k, double=i > 0, rngs=rngs) for i, (c, d, k) in enumerate(shapes)]
        )
        self.heads = {'mean': 3} | ({'gate': 1} if gate else {}) | ({'logvar': 3} if logvar else {})
        # one convolution a head, concatenated
        self.last = TorchConv(w, sum(self.heads.values()), 5, rngs=rngs)

    def __call__(self, z, y, *, train):
        x = jax.nn.relu(self.mix(jnp.concatenate([z, jax.nn.relu(self.attributes(y))], -1)))
        x = jax.nn.relu(self.first(x))
        x = rearrange(x, 'b (h w c) -> b h w c', h=self.side, w=self.side)  # b s/8 s/8 4c
        for block in self.blocks:
            x = block(x, train=train)  # then b s/4 s/4 4c, b s/2 s/2 2c, b s s c
        places = np.cumsum(list(self.heads.values()))[:-1]
        out = dict(zip(self.heads, jnp.split(self.last(x).astype(jnp.float32), places, -1)))
        out['mean'] = jnp.tanh(out['mean'])
        if 'logvar' in out:
            out['logvar'] = jnp.clip(out['logvar'], *LOGVAR)
        return out


class BackgroundDecoder(nnx.Module):
    """z_B -> background, b s s 3 in (-1, 1)."""

    def __init__(self, size, width, nz, *, rngs):
        w = width
        # channels and kernels of each doubling, 4 to 64 px
        wide, narrow = ((2 * w, 3),), ((w, 3), (w, 3))
        steps = wide, wide, narrow, narrow, ((w // 2, 5),)
        doublings = size.bit_length() - 2
        steps = (wide,) * max(0, doublings - len(steps)) + steps[-doublings:]
        self.first = torch_linear(nz, 2 * 2 * 4 * w, rngs=rngs)
        blocks, c = [], 4 * w
        for step in steps:
            for i, (d, kernel) in enumerate(step):
                blocks.append(ConvBlock(c, d, kernel, double=i == 0, rngs=rngs))
                c = d
        self.blocks = nnx.List(blocks)
        self.last = TorchConv(c, 3, 5, rngs=rngs)

    def __call__(self, z, *, train):
        x = rearrange(jax.nn.relu(self.first(z)), 'b (h w c) -> b h w c', h=2, w=2)
        for block in self.blocks:
            x = block(x, train=train)
        return jnp.tanh(self.last(x).astype(jnp.float32))


class Standardise(nnx.Module):
    """Attributes to mean 0 and variance 1 over the training set, by running statistics."""

    def __init__(self, attributes, *, rngs):
        self.norm = nnx.BatchNorm(
            attributes, momentum=0.99, epsilon=1e-2, use_bias=False, use_scale=False, rngs=rngs
        )

    def __call__(self, y, *, train):
        if train:
            # moves the statistics
            self.norm(y, use_running_average=False)
        return self.norm(y, use_running_average=True)


# --------------------------------------------------------------------------------------- stage
class Reconstruction(NamedTuple):
    """One pass over a batch.

    target: b s s 3, after photometric changes. mask: b s s 1, or None. drawn: as `decode` gives.
    posteriors: noise key -> (mean, log-variance).
    """

    target: Any
    mask: Any
    drawn: dict
    posteriors: dict


# of foreground, gate and background; 'legacy': the code's, see the head of this file
COMPOSE = {
    'light': lambda front, gate, back: (front + 1) + gate * (back + 1) - 1,
    'convex': lambda front, gate, back: (1 - gate) * front + gate * back,
    'legacy': lambda front, gate, back: front + gate * back,
}
LIKELIHOODS = 'smooth_l1', 'gaussian'


class Attribute2Image(Stage):
    """Trains encoders and decoders of pictures with attributes."""

    phases, ema = (Phase('loss', trains=('encoder', 'decoder')),), ('encoder', 'decoder')
    tiny = dict(width=16, nz=32, nz_b=16)
    draws_from, makes = ('attributes',), ('image',)
    explores = dict.fromkeys(('attributes', 'layers', 'reconstruction', 'completion'), 'infer')
    advice = {
        'mask': 'disCVAE learns its two layers from foreground masks. Choose data that have them '
        '(shape_scenes/single, cub200_captions/masks), or train the CVAE, which reads image and '
        'attributes alone: --config.stages.vae.model.layered=False.',
        **dict.fromkeys(
            ('image', 'attributes'),
            'Attribute2Image learns from pictures with attributes. Choose data that have both: '
            'shape_scenes/single, cub200_captions.',
        ),
    }

    def __init__(
        self,
        meta,
        *,
        layered=True,
        likelihood='smooth_l1',
        width=64,
        nz=192,
        nz_b=64,
        gate_weight=0.3,
        dropout=0.5,
        compose='light',
        logvar_sees_y=False,
        background_sees_y=True,
        standardise=False,
        kl_weight=1.0,
        warmup=0,
        gain=0.03,
        sharpness=1.5,
        rotation=0.0,
        rngs,
    ):
        """Build the networks.

        layered: disCVAE, otherwise CVAE (nz=256 in the paper).
        likelihood: 'smooth_l1' or 'gaussian'.
        width: channels of the first map.
        nz, nz_b: latents of the foreground (of the whole picture) and of the background.
        gate_weight: .3 of the formulas.
        dropout: of the encoders' features.
        compose: 'light', 'convex' ((1 - g) x_F + g x_B) or 'legacy'.
        logvar_sees_y: whether the log-variance of z depends on the attributes, too.
        background_sees_y: whether z_B does.
        standardise: attributes, by the statistics of the training set.
        kl_weight: of the KL terms, 1 for the evidence bound.
        warmup: steps within which it rises from 0.

        Photometric changes in training:

        gain: of each channel, U(1 - gain, 1 + gain).
        sharpness: x + u (x - mean of 5 x 5), u ~ U(0, sharpness).
        rotation: radians at most.
        """
        choose('likelihood', likelihood, LIKELIHOODS)
        self.compose = choose('compose', compose, COMPOSE)
        if meta.size % 16 or meta.size & (meta.size - 1):
            raise ValueError(
                f'An image side of {meta.size} cannot be made by doubling: use 16, 32, 64, 128, ...'
            )
        if not meta.attributes:
            raise ValueError(
                f'{meta.name} has no attributes, from which this system draws. '
                'Use shape_scenes or cub200_captions.'
            )
        gaussian, a = likelihood == 'gaussian', meta.attributes
        self.standard = Standardise(a, rngs=rngs) if standardise else None
        self.encoder = PictureEncoder(meta.size, width, a, nz, dropout, logvar_sees_y, rngs=rngs)
        self.decoder = PictureDecoder(meta.size, width, a, nz, layered, gaussian, rngs=rngs)
        names = ('encoder', 'decoder')
        if layered:
            seen = a if background_sees_y else 0
            self.background_encoder = BackgroundEncoder(
                meta.size, width, seen, nz, nz_b, dropout, rngs=rngs
            )
            self.background_decoder = BackgroundDecoder(meta.size, width, nz_b, rngs=rngs)
            names += 'background_encoder', 'background_decoder'
        standard = ('standard',) if standardise else ()
        self.phases, self.ema = (Phase('loss', trains=names + standard),), names
        self.needs = ('image', 'attributes') + (('mask',) if layered else ())
        if not layered:
            self.explores = {name: 'infer' for name in self.explores if name != 'layers'}
        self.layered, self.latents = layered, {'z_f': nz, 'z_b': nz_b} if layered else {'z': nz}
        self.normal = tuple(self.latents)
        self.gate_weight, self.kl_weight, self.warmup = gate_weight, kl_weight, warmup
        self.gain, self.sharpness, self.rotation = gain, sharpness, rotation

    def noise(self, key, n):
        return {
            name: normal_rows(jax.random.fold_in(key, i), n, (nz,))
            for i, (name, nz) in enumerate(self.latents.items())
        }

    def posteriors(self, image, mask, y, eps, *, train, key):
        """Encode pictures into posteriors and latents.

        image, mask, y: the pictures, their masks (or None) and attributes.
        eps: as `noise` makes it, or zeros for the means.
        train, key: of dropout.
        -> ({noise key: (mean, log-variance)}, {noise key: mean + eps * deviation})
        """
        keys = jax.random.split(key)

        def draw(name, posterior):
            mean, logvar = (x.astype(jnp.float32) for x in posterior)
            return (mean, logvar), mean + jnp.exp(logvar / 2) * eps[name]

        if not self.layered:
            posterior, z = draw('z', self.encoder(image, y, train=train, key=keys[0]))
            return {'z': posterior}, {'z': z}
        front, z_f = draw('z_f', self.encoder(cut_out(image, mask), y, train=train, key=keys[0]))
        back, z_b = draw('z_b', self.background_encoder(image, y, z_f, train=train, key=keys[1]))
        return {'z_f': front, 'z_b': back}, {'z_f': z_f, 'z_b': z_b}

    def means(self, image, mask, y, key):
        """Return the means of the posteriors, {noise key: b z}, in evaluation mode."""
        zeros = {name: jnp.zeros((len(image), nz)) for name, nz in self.latents.items()}
        return self.posteriors(image, mask, y, zeros, train=False, key=key)[1]

    def decode(self, latents, y, *, train):
        """Decode latents.

        -> {'image', 'logvar' (Gaussian), and for the layers 'foreground', 'gate' (its logits),
        'background'}
        """
        if not self.layered:
            out = self.decoder(latents['z'], y, train=train)
            return {'image': out.pop('mean'), **out}
        out = self.decoder(latents['z_f'], y, train=train)
        front, back = out.pop('mean'), self.background_decoder(latents['z_b'], train=train)
        image = COMPOSE[self.compose](front, jax.nn.sigmoid(out['gate']), back)
        return {'image': image, 'foreground': front, 'background': back, **out}

    def condition(self, y, *, train=False):
        """Return attributes as the networks read them."""
        return self.standard(y, train=train) if self.standard else y

    def forward(self, batch, key):
        image, mask = batch['image'], batch.get('mask')
        keys = jax.random.split(key, 3)
        if self.training:
            image, mask = self.changed(image, mask, keys[0])
        y = self.condition(batch['attributes'], train=self.training)
        eps = self.noise(keys[1], len(image))
        more = dict(train=self.training, key=keys[2])
        posteriors, latents = self.posteriors(image, mask, y, eps, **more)
        drawn = self.decode(latents, y, train=self.training)
        return Reconstruction(image, mask, drawn, posteriors)

    def terms(self, out):
        """Compute the parts of the loss, {name: b}."""
        drawn = out.drawn

        def nll(x, name):
            if 'logvar' in drawn:
                return row_sums(gaussian_nll(x, drawn[name], drawn['logvar']))
            return row_sums(smooth_l1(drawn[name] - x))

        parts = {'reconstruction': nll(out.target, 'image')}
        if self.layered:
            parts['foreground'] = nll(cut_out(out.target, out.mask), 'foreground')
            crossed = optax.sigmoid_binary_cross_entropy(drawn['gate'], 1 - out.mask)
            parts['gate'] = self.gate_weight * row_sums(crossed)
        for name, posterior in out.posteriors.items():
            parts['kl' + name[1:]] = gaussian_kl(*posterior)
        return parts

    def loss(self, batch, key, out):
        parts = {name: value.mean() for name, value in self.terms(out).items()}
        warm = self.warmup and self.training
        weight = self.kl_weight * (jnp.minimum(1.0, batch['step'] / self.warmup) if warm else 1.0)
        weights = [weight if name.startswith('kl') else 1.0 for name in parts]
        return sum(value * w for value, w in zip(parts.values(), weights)), parts

    def sample(self, batch, noise):
        drawn = self.decode(noise, self.condition(batch['attributes']), train=False)
        # the mean picture, without noise of pixels
        drawn.pop('logvar', None)
        return drawn | ({'gate': jax.nn.sigmoid(drawn['gate'])} if self.layered else {})

    def changed(self, image, mask, key):
        """Apply photometric changes and a small rotation to a training batch -> (image, mask)."""
        b = len(image)
        keys = jax.random.split(key, 3)
        image = (image + 1) / 2
        if self.gain:
            image *= jax.random.uniform(
                keys[0], (b, 1, 1, 3), minval=1 - self.gain, maxval=1 + self.gain
            )
        if self.sharpness:
            u = jax.random.uniform(keys[1], (b, 1, 1, 1), maxval=self.sharpness)
            image += u * (image - box_mean(image, 5))
        if self.rotation:
            angles = jax.random.uniform(keys[2], (b,), minval=-self.rotation, maxval=self.rotation)
            image = jax.vmap(rotate)(image, angles)
            if mask is not None:
                mask = (jax.vmap(rotate)(mask, angles) > 0.5).astype(jnp.float32)
        return jnp.clip(image, 0, 1) * 2 - 1, mask

    def infer(
        self, batch, key, observed=None, known=None, *, steps=300, restarts=5, lr=0.05, sigma=0.1
    ):
        """Find the latents of given pictures, with Adam and a cosine schedule.

        Minimises  sum over observed pixels (x^ - x)^2 + 2 sigma^2 |z|^2 / 2.

        batch, key: the pictures with their attributes; key of the starts.
        observed: b s s 1, 1 where a pixel is known, None: everywhere.
        known: b a, which attributes are known, None: all. The others are optimised, too, within
            [0, 1], from those of the batch.
        steps, lr: of Adam.
        restarts: the best of so many starts is returned; the first is the encoder's mean where that
            is possible (everything observed, masks where they are needed), the others are from
            N(0, I).
        sigma: see the formula.
        -> {'noise': as `noise`, 'attributes': b a, 'image': b s s 3, 'energy': steps b}
        """
        image, y = batch['image'], batch['attributes'].astype(jnp.float32)
        b = len(image)
        keys = jax.random.split(key)
        latents = self.noise(keys[0], restarts * b)
        if observed is None and (not self.layered or 'mask' in batch):
            means = self.means(image, batch.get('mask'), self.condition(y), keys[1])
            latents = {name: z.at[:b].set(means[name]) for name, z in latents.items()}
        observed = jnp.ones_like(image[..., :1]) if observed is None else observed
        known = jnp.ones(y.shape, bool) if known is None else known
        image, observed, y, known = (
            jnp.tile(x, (restarts,) + (1,) * (x.ndim - 1)) for x in (image, observed, y, known)
        )

        def energy(free):
            drawn = self.decode(free['z'], self.condition(free['y']), train=False)['image']
            lengths = sum((z**2).sum(-1) for z in free['z'].values())
            rows = row_sums(observed * (drawn - image) ** 2) + sigma**2 * lengths
            return rows.sum(), rows

        tx = optax.adam(optax.cosine_decay_schedule(lr, steps))
        free = {'z': latents, 'y': y}

        def step(carry, _):
            free, opt = carry
            grads, rows = jax.grad(energy, has_aux=True)(free)
            updates, opt = tx.update(grads, opt)
            free = optax.apply_updates(free, updates)
            free['y'] = jnp.where(known, y, jnp.clip(free['y'], 0, 1))
            return (free, opt), rows

        (free, _), energies = jax.lax.scan(step, (free, tx.init(free)), length=steps)
        last = energy(free)[1]
        rows = last.reshape(restarts, b).argmin(0) * b + jnp.arange(b)
        best = jax.tree.map(lambda x: x[rows], free)
        return {
            'noise': best['z'],
            'attributes': best['y'],
            'energy': jnp.concatenate([energies, last[None]])[:, rows],
            'image': self.decode(best['z'], self.condition(best['y']), train=False)['image'],
        }

    def measure(self, batch, key):
        """Measure each record. Errors and changes are differences of values in [-1, 1].

        loss_per_picture, kl...: the sum of the loss's terms, and its KL terms in nats.
        psnr: of the reconstruction from the posterior's means, in dB.

        Of the layers:

        gate_iou: of gate and 1 - mask at .5.
        foreground_error: mean |x^ - x| where the mask is 1.
        bright_background: mean of the reconstruction behind the object where that is white
            (above .9).
        foreground_moves, background_moves: mean |change| of the picture with another z_B, where the
            gate (at .5) is shut for a pixel and its neighbours (at an edge both layers are seen by
            right), and where it is open.
        background_keeps: mean |change| where it is open with the own attributes and with those of
            another record.
        """
        image, mask = batch['image'], batch.get('mask')
        keys = jax.random.split(key, 3)
        terms = self.terms(self.forward(batch, keys[0]))
        out = {name: value for name, value in terms.items() if name.startswith('kl')} | {
            'loss_per_picture': sum(terms.values())
        }
        y = self.condition(batch['attributes'])
        latents = self.means(image, mask, y, keys[1])
        drawn = self.decode(latents, y, train=False)
        error = ((jnp.clip(drawn['image'], -1, 1) - image) / 2) ** 2
        out['psnr'] = -10 * jnp.log10(jnp.maximum(error.mean((1, 2, 3)), 1e-10))
        if mask is not None:
            out['foreground_error'] = weighted_mean(mask, jnp.abs(drawn['image'] - image))
        if not self.layered or mask is None:
            return out
        behind = (drawn['gate'] > 0).astype(jnp.float32)
        true = 1 - mask
        out['gate_iou'] = row_sums(behind * true) / jnp.maximum(
            row_sums(jnp.maximum(behind, true)), 1
        )
        bright = weighted_mean(true, image) > 0.9
        out['bright_background'] = jnp.where(bright, weighted_mean(true, drawn['image']), jnp.nan)
        other_z = {'z_b': self.noise(keys[2], len(image))['z_b']}
        other = self.decode(latents | other_z, y, train=False)
        change = jnp.abs(other['image'] - drawn['image'])
        inside = 1 - jax.lax.reduce_window(
            behind, 0.0, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), 'SAME'
        )
        out['foreground_moves'] = weighted_mean(inside, change)
        out['background_moves'] = weighted_mean(behind, change)
        other = self.decode(latents, jnp.roll(y, 1, 0), train=False)
        both = behind * (other['gate'] > 0)
        out['background_keeps'] = weighted_mean(both, jnp.abs(other['image'] - drawn['image']))
        return out


def row_sums(x):
    """Sum each row."""
    return x.reshape(len(x), -1).sum(-1)


def weighted_mean(weight, x):
    """Average x (b s s c) over pixels, weighted by b s s 1; NaN for rows without weight."""
    total = row_sums(weight) * x.shape[-1]
    return jnp.where(total > 0, row_sums(weight * x) / jnp.maximum(total, 1), jnp.nan)


def cut_out(image, mask):
    """Return the picture, black (-1) where the mask is 0."""
    return (image + 1) * mask - 1


def box_mean(image, side):
    """Average side x side pixels around each, fewer at the border."""

    def total(x):
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, side, side, 1), (1, 1, 1, 1), 'SAME')

    return total(image) / total(jnp.ones_like(image[:1]))


def rotate(image, angle):
    """Rotate s s c around its centre, bilinear, the border continued."""
    s = image.shape[0]
    centre = (s - 1) / 2
    y, x = jnp.meshgrid(jnp.arange(s) - centre, jnp.arange(s) - centre, indexing='ij')
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    places = [cos * y - sin * x + centre, sin * y + cos * x + centre]

    def turned(channel):
        return jax.scipy.ndimage.map_coordinates(channel, places, 1, mode='nearest')

    return jnp.stack([turned(image[..., c]) for c in range(image.shape[-1])], -1)


STAGES = {'vae': Attribute2Image}
