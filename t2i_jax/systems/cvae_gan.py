"""CVAE&GAN: Stacking VAE and GAN for Context-aware Text-to-Image Generation.

Zhang, Peng, BigMM 2018.

A picture is drawn twice. First a variational autoencoder draws a small, blurred one with the right
layout and colours: a foreground, which the sentence describes, and a background, the context, which
it does not, each with latents of its own, and a gate between them. This is Attribute2Image's
disCVAE with a sentence vector h instead of attributes. Then a GAN in the form of StackGAN's
Stage-II reads that picture, the gate and the sentence, adds detail and corrects what is wrong.

    z_F ~ q(z_F | x m, h)    z_B ~ q(z_B | x, z_F)
    x^ = (1 - g) x_F + g x_B, g in (0, 1): how much of the background is seen
    L = R(m x, m x_F) + R(x, x^) + 1/2 R((1 - m) x, (1 - m) x_B) + .3 bce(g, 1 - m)
        + KL(q(z_F) | N(0, I)) + KL(q(z_B) | N(0, I))

    y = G([x^, 1 - g], c),  c = mu(h) + sigma(h) eps
    L_D = bce1(D(x, h)) + 1/2 [bce0(D(x, h')) + bce0(D(y, h))]
    L_G = bce1(D(y, h)) + 2 KL(N(mu, sigma^2) || N(0, I)) + 10 mean |y - x|

R is smooth L1, R and bce are sums over pixels and channels, L is their mean over the batch. h' is a
sentence that does not match. Half of the refiner's batch is drawn of z from N(0, I), half of the
posteriors of real pictures, and of those alone the last term. A record whose mask m is empty has
none: it is encoded as a whole, and the terms with m leave it out.

The paper's text and code could not be had: what is known is its abstract, and its ancestors, which
systems/attribute2image.py and systems/stackgan.py follow. Ours are the half batch of posteriors and
its term, the gate as the refiner's fourth channel (`use_mask`), the term of the background, and a
background that does not see the sentence (`background_sees_y`).

Expected (quoted by surveys, from memory): Inception Score 4.97 on CUB, 4.21 on Oxford-102.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import reduce

from t2i_jax.encoders.sentence import encode_sentence, text_dim, text_reads
from t2i_jax.losses import gaussian_kl, smooth_l1
from t2i_jax.runtime.errors import DataError, choose
from t2i_jax.stage import Phase, normal_rows
from t2i_jax.systems.attribute2image import COMPOSE, Attribute2Image, row_sums
from t2i_jax.systems.joint_embedding import JointEmbedding
from t2i_jax.systems.stackgan import AugmentedFakes, GeneratorTwo, StackGanStage, truncate

MASKS = 'known', 'none'


def whole_where_unknown(mask, image):
    """Return masks b s s 1, all 1 where a record has none."""
    if mask is None:
        return jnp.ones_like(image[..., :1])
    return jnp.where(mask.any((1, 2, 3), keepdims=True), mask, 1.0)


def moved_backgrounds(sampler, batch, texts, num, seed):
    """Each sentence before several backgrounds, the same in each row; the foreground stays."""
    n = len(texts)
    noise = sampler.noise(num, seed, n)
    noise = {k: x if k == 'z_b' else np.repeat(x[:1], n * num, 0) for k, x in noise.items()}
    batch = {name: np.repeat(x, num, 0) for name, x in batch.items()}
    return sampler.sample(batch, noise, (n, num))['image'], texts


class CvaeStage(Attribute2Image):
    """Trains encoders and decoders of foreground and background."""

    loads = {'text': 'text.text'}
    draws_from, makes, judges = ('sentence',), ('image',), ('text',)
    explores = {'background': 'background', 'reconstruct': 'rebuild', 'edit_text': 'exchange'}
    advice = {
        'mask': 'CVAE&GAN learns its two layers from foreground masks. Choose data that have them '
        '(shape_scenes/single, cub200_captions/masks, flowers102_captions/masks), or do without: '
        '--config.stages.cvae.model.masks=none.'
    }

    def __init__(
        self,
        meta,
        *,
        compose='convex',
        background_sees_y=False,
        foreground_weight=1.0,
        background_weight=0.5,
        nz=128,
        nz_b=128,
        masks='known',
        unit_text=False,
        text,
        rngs,
        **others,
    ):
        """Build the networks; others: of Attribute2Image.

        foreground_weight, background_weight: 1 and 1/2 of L.
        masks: 'known', or 'none' for data without.
        unit_text: as in GAN-CLS (ours).
        text: the trained text encoder, or None where the data hold sentence vectors.
        """
        self.text, self.unit_text, d = text, unit_text, text_dim(text, meta)
        super().__init__(
            meta._replace(attributes=d),
            compose=compose,
            background_sees_y=background_sees_y,
            nz=nz,
            nz_b=nz_b,
            rngs=rngs,
            **others,
        )
        if not self.layered:
            raise ValueError('CVAE&GAN has two layers: leave layered=True, or use attribute2image.')
        known = choose('masks', masks, MASKS) == 'known'
        self.explores = dict(type(self).explores)
        self.needs = ('image', *text_reads(text), *(('mask',) if known else ()))
        self.foreground_weight, self.background_weight = foreground_weight, background_weight
        # of stages that load the decoder
        self.decoder.read_by = dict(
            size=meta.size, compose=compose, unit_text=unit_text, masks=masks, nz=nz, nz_b=nz_b
        )

    def encode(self, batch):
        """Return sentence vectors b d; where a row has several captions, their mean."""
        return encode_sentence(self.text, batch, unit=self.unit_text)

    def described(self, batch):
        """Return a batch whose attributes are its sentences."""
        return {**batch, 'attributes': self.encode(batch)}

    def forward(self, batch, key):
        return super().forward(self.described(batch), key)

    def sample(self, batch, noise):
        return super().sample(self.described(batch), noise)

    def measure(self, batch, key):
        return super().measure(self.described(batch), key)

    def posteriors(self, image, mask, y, eps, *, train, key):
        mask = whole_where_unknown(mask, image)
        return super().posteriors(image, mask, y, eps, train=train, key=key)

    def terms(self, out):
        drawn, x, mask = out.drawn, out.target, out.mask
        mask = jnp.zeros_like(x[..., :1]) if mask is None else mask
        known = mask.any((1, 2, 3)).astype(jnp.float32)

        def off(name):
            return smooth_l1(drawn[name] - x)

        crossed = row_sums(optax.sigmoid_binary_cross_entropy(drawn['gate'], 1 - mask))
        parts = {
            'reconstruction': row_sums(off('image')),
            'foreground': self.foreground_weight * known * row_sums(mask * off('foreground')),
            'background': self.background_weight * known * row_sums((1 - mask) * off('background')),
            'gate': self.gate_weight * known * crossed,
        }
        for name, posterior in out.posteriors.items():
            parts['kl' + name[1:]] = gaussian_kl(*posterior)
        return parts

    # ----------------------------------------------------------------------------- explorations
    background = staticmethod(moved_backgrounds)

    def rebuilt(self, batch, noise):
        """Draw pictures from their own latents: them, foreground, gate and background."""
        y = self.encode(batch)
        latents = self.means(batch['image'], batch.get('mask'), y, jax.random.key(0))
        drawn = self.decode(latents, y, train=False)
        gate = jnp.broadcast_to(2 * jax.nn.sigmoid(drawn['gate']) - 1, drawn['image'].shape)
        parts = batch['image'], drawn['image'], drawn['foreground'], gate, drawn['background']
        return {'images': list(parts)}

    def edited(self, batch, noise):
        """Draw pictures from their own latents with another sentence, `other`: b d."""
        y = self.encode(batch)
        latents = self.means(batch['image'], batch.get('mask'), y, jax.random.key(0))
        both = (self.decode(latents, text, train=False)['image'] for text in (y, batch['other']))
        return {'images': [batch['image'], *both]}

    @staticmethod
    def rebuild(sampler, batch, texts, num, seed):
        """Pictures, what is made of them, and its parts: foreground, gate, background."""
        rows = with_pictures(batch)
        found = sampler.sample(rows, {}, (len(texts),), method='rebuilt')['images']
        kinds = 'picture, reconstruction, foreground, gate, background'
        return np.stack(found, 1), [f'{text}: {kinds}' for text in texts]

    @staticmethod
    def exchange(sampler, batch, texts, num, seed):
        """Pictures, what is made of them, and the same with the sentence of the next one."""
        rows = with_pictures(batch)
        rows['other'] = np.roll(sampler.encode(batch), -1, 0)
        found = sampler.sample(rows, {}, (len(texts),), method='edited')['images']
        others = [*texts[1:], *texts[:1]]
        return np.stack(found, 1), [f'{a} → {b}' for a, b in zip(texts, others)]


def with_pictures(batch):
    """Copy a batch of held-out records. Raises DataError for sentences without pictures."""
    if 'image' not in batch:
        raise DataError('This exploration reads pictures of the held-out split: leave --text out.')
    return dict(batch)


class CvaeRefiner(StackGanStage):
    """Trains the refiner and its discriminator; the layers are frozen."""

    phases = (Phase('d_loss', trains=('D2',)), Phase('g_loss', trains=('G2',)))
    layers = 'encoder', 'background_encoder', 'decoder', 'background_decoder'
    loads = {'text': 'cvae.text'} | {name: f'cvae.{name}' for name in layers}
    ema, draws_from, makes = ('G2',), ('sentence',), ('image', 'images')
    judges, critics, explores = ('text',), ('D2',), {'background': 'background'}
    tiny = dict(gf=8, df=8, nc=32)
    background = staticmethod(moved_backgrounds)

    def __init__(
        self,
        meta,
        *,
        gf=128,
        df=64,
        blocks=4,
        use_mask=True,
        consistency=10.0,
        wrong='text',
        text,
        encoder,
        background_encoder,
        decoder,
        background_decoder,
        rngs,
        **shared,
    ):
        """Build the networks.

        gf, df, blocks: as StackGAN's Stage-II.
        use_mask: the gate is the refiner's fourth channel.
        consistency: 10 of L_G; 0: the whole batch is drawn of z from N(0, I).
        wrong, shared: of StackGanStage.
        encoder, background_encoder, decoder, background_decoder: of stage cvae.
        Raises ValueError for sizes that do not fit.
        """
        super().__init__(meta, wrong=wrong, text=text, **shared)
        self.encoder, self.background_encoder = encoder, background_encoder
        self.decoder, self.background_decoder = decoder, background_decoder
        of, self.use_mask, self.consistency = decoder.read_by, use_mask, consistency
        self.small, self.unit_text = of['size'], of['unit_text']
        if meta.size < 2 * self.small or meta.size % self.small:
            raise ValueError(
                f'Pictures of {self.small} px are refined to {meta.size} px, which is no multiple '
                'of it: set stages.refine.data.size (or data.size), or stages.cvae.data.size.'
            )
        if consistency and of['masks'] == 'known':
            self.needs += ('mask',)
        self.G2 = GeneratorTwo(
            *(self.small, meta.size, self.embedding, gf, blocks, self.ca, 3 + use_mask), rngs=rngs
        )
        self.D2 = self.discriminator(meta.size, df, rngs, unconditional=not self.tf)
        if self.tf:
            truncate(self.G2, rngs)
            truncate(self.D2, rngs)

    @property
    def D(self):
        return self.D2

    def noise(self, key, n):
        of = self.decoder.read_by
        layers = {
            name: normal_rows(jax.random.fold_in(key, i), n, (of[nz],))
            for i, (name, nz) in enumerate((('z_f', 'nz'), ('z_b', 'nz_b')))
        }
        return layers | {'eps_two': self.G2.augment.noise(jax.random.fold_in(key, 2), n)}

    def composed(self, text, z_f, z_b):
        """Draw the small picture and its foreground's share: b s s 3, b s s 1."""
        front = self.decoder(z_f, text, train=False)
        gate, back = jax.nn.sigmoid(front['gate']), self.background_decoder(z_b, train=False)
        return COMPOSE[self.decoder.read_by['compose']](front['mean'], gate, back), 1 - gate

    def latents_of(self, batch, text, noise, key):
        """Draw latents from the posteriors of real pictures: z_f, z_b."""
        by, keys = batch['image'].shape[1] // self.small, jax.random.split(key)

        def shrunk(x):
            return reduce(x, 'b (h i) (w j) c -> b h w c', 'mean', i=by, j=by)

        image, mask = shrunk(batch['image']), batch.get('mask')
        mask = None if mask is None else (shrunk(mask) > 0.5).astype(jnp.float32)

        def draw(posterior, eps):
            mean, logvar = (x.astype(jnp.float32) for x in posterior)
            return mean + jnp.exp(logvar / 2) * eps

        cut = (image + 1) * whole_where_unknown(mask, image) - 1
        z_f = draw(self.encoder(cut, text, train=False, key=keys[0]), noise['z_f'])
        found = self.background_encoder(image, text, z_f, train=False, key=keys[1])
        return z_f, draw(found, noise['z_b'])

    def refined(self, text, small, share, eps, *, train):
        read = jnp.concatenate([small, share], -1) if self.use_mask else small
        return self.G2(read, text, eps, train=train)

    def forward(self, batch, key):
        text = self.encode(batch)
        noise, half = self.noise(key, len(text)), len(text) // 2 if self.consistency else 0
        z_f, z_b = noise['z_f'], noise['z_b']
        if half:
            some = {name: batch[name][:half] for name in ('image', 'mask') if name in batch}
            found = self.latents_of(some, text[:half], jax.tree.map(lambda z: z[:half], noise), key)
            z_f, z_b = (jnp.concatenate([z, x[half:]]) for z, x in zip(found, (z_f, z_b)))
        small = self.composed(text, z_f, z_b)
        return AugmentedFakes(*self.refined(text, *small, noise['eps_two'], train=True), text)

    def g_loss(self, batch, key, out):
        loss, logs = super().g_loss(batch, key, out)
        if not self.consistency:
            return loss, logs
        half = len(out.image) // 2
        off = jnp.abs(out.image[:half].astype(jnp.float32) - batch['image'][:half]).mean()
        return loss + self.consistency * off, logs | {'off_own_picture': off}

    def sample(self, batch, noise):
        """`images`: the small picture and the final one."""
        text = self.encode(batch)
        small, share = self.composed(text, noise['z_f'], noise['z_b'])
        # rounding
        small = jnp.clip(small, -1, 1)
        image = self.refined(text, small, share, noise['eps_two'], train=False)[0]
        return {'image': image, 'images': [small, image]}


# in the order of training
STAGES = {'text': JointEmbedding, 'cvae': CvaeStage, 'refine': CvaeRefiner}
