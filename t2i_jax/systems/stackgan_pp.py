"""StackGAN++ (StackGAN-v2): Realistic Image Synthesis with Stacked Generative Adversarial Networks.

Zhang, Xu, Li, Zhang, Wang, Huang, Metaxas, TPAMI 2018 (arXiv 1710.10916).

One network draws the same picture at several sizes, each twice the last: a chain of hidden maps
h_0, h_1, ..., each of which gives a picture and, together with the condition, the next map. Every
size has a discriminator of its own, with two heads: is the picture real (u), and does it match the
sentence (c). A picture with the wrong sentence is real for u. Without sentences the same tree draws
from noise alone.

    bce1(s) = softplus(-s),  bce0(s) = softplus(s);  sums over the scales i
    x' a picture that does not match;  a = uncond_weight
    mu, logvar = CA(sentence vector),  condition = mu + exp(logvar / 2) eps,  z ~ N(0, 1)
    L_D = sum_i bce1(c(x_i, mu)) + bce0(c(x'_i, mu)) + bce0(c(G_i, mu))
              + a [bce1(u(x_i)) + bce1(u(x'_i)) + bce0(u(G_i))]
          a = 0: sum_i bce1(c(x_i, mu)) + 1/2 [bce0(c(x'_i, mu)) + bce0(c(G_i, mu))]
    L_G = sum_i bce1(c(G_i, mu)) + a bce1(u(G_i)) + 2 KL + alpha sum_{i > 0} colour(G_i, G_{i-1})
    without sentences:
    L_D = sum_i bce1(u(x_i)) + bce0(u(G_i)),  L_G = sum_i bce1(u(G_i)) + alpha colour

The KL is a mean over batch and dimensions. `colour` (losses.colour_consistency) pulls the mean and
the covariance of a picture's colours to those of the next smaller one. All this is the official
code's (hanzhanggit/StackGAN-v2); in the paper the losses of a scale are plain sums of one
conditional and one unconditional term over all pairs, KL has weight 1 and is a sum over dimensions.

Deviations: the smaller real pictures are means over blocks of pixels (PIL's bilinear filter in the
code). The text encoder is trained here, as in GAN-CLS; the paper has stored vectors of the authors'
(data.embedding='stored'). Wrong pictures certainly do not match; the code draws once more, once,
where the class is the same. Samples are drawn with running statistics that fit the averaged
weights, and a checkpoint never overwrites the weights that are trained, as it does in the code.
Scales below 64 px, for laptops, are ours: a map of side r has 64 gf / r channels throughout, as the
paper's have from 4 to 256 px, and discriminators lack the first layers.

Sizes at 64, 128, 256 px with sentence vectors of 1024: G 21,239,696, D 5,723,906 + 18,834,178 +
71,269,122; without sentences G 16,472,208, D 2,765,569 + 15,875,841 + 68,310,785. The
discriminators are one network `D` for the trainer; `--mode=describe` shows the sum and each.

Expected (from memory of the paper): Inception Score 4.04 birds, 3.26 flowers, 8.30 COCO; FID 15.30,
48.68, 81.59.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.data.augment import shrink
from t2i_jax.encoders.sentence import encode_sentence, text_dim, text_reads
from t2i_jax.layers.conditioning import ConditioningAugmentation
from t2i_jax.layers.game import GAME, PLAIN, Game, Seen, Wrong, mean_logs
from t2i_jax.layers.glu import (
    ImageTrunk,
    InitStage,
    KeepGlu,
    LogitHead,
    ResidualGlu,
    ToImage,
    UpGlu,
)
from t2i_jax.layers.linear import ORTHOGONAL
from t2i_jax.layers.norm import G_NORMS, NORMS, separately
from t2i_jax.losses import bce, colour_consistency, conditioning_kl
from t2i_jax.runtime.errors import RunError, choose
from t2i_jax.stage import Phase, Stage, normal_rows
from t2i_jax.systems.gan_cls import Style
from t2i_jax.systems.joint_embedding import JointEmbedding


# ------------------------------------------------------------------------------ sizes of a tree
def tree_sides(size, scales):
    """Return the sides of a tree's pictures, from the smallest on; each is twice the last.

    size: of the largest picture. Raises ValueError where they are not 8, 16, 32, ... px.
    """
    sides = tuple(size >> i for i in reversed(range(scales)))
    if scales < 1 or sides[0] < 8 or size & size - 1:
        raise ValueError(
            f'scales={scales} of pictures of {size} px: sides are 8, 16, 32, ... px, '
            'each half the next.'
        )
    return sides


def pyramid(batch, sides, prefix=''):
    """Return a batch's real (or `wrong_`) pictures at all sides, the largest being the data's.

    The smaller ones are the batch's own where it has them, or else `shrink` makes them.
    """
    image = batch[prefix + 'image']
    pictures = {picture.shape[1]: picture for picture in batch.get(prefix + 'images', ())}
    pictures[sides[-1]] = image
    return [
        pictures[side]
        if side in pictures
        else jax.vmap(lambda x, side=side: shrink(x, side))(image)
        for side in sides
    ]


# ------------------------------------------------------------------------------------ networks
class TreePictures(NamedTuple):
    """The generator's pass over a batch."""

    # from the smallest to the largest, b s s 3
    images: Any
    # b nc, None without sentences
    mu: Any
    logvar: Any
    # b d
    text: Any = None


class TreeStage(nnx.Module):
    """A map b s s c, and a vector b n at every pixel -> b 2s 2s c/2."""

    def __init__(self, c, n, residuals, *, rngs):
        self.joint = KeepGlu(c, c, vector=n, rngs=rngs)
        self.residuals = nnx.List([ResidualGlu(c, rngs=rngs) for _ in range(residuals)])
        self.up = UpGlu(c, c // 2, rngs=rngs)

    def __call__(self, x, vector, *, train):
        x = self.joint(x, vector, train=train)
        for residual in self.residuals:
            x = residual(x, train=train)
        return self.up(x, train=train)


class TreeGenerator(nnx.Module):
    """Sentence vector b d and noise -> pictures of all sides.

    With embedding 0 there is no sentence, and z is the condition, too. `unit_text`: how sentence
    vectors are scaled, for stages that load this network.
    """

    def __init__(
        self, sides, embedding, gf, nz, nc, residuals, unit_text=False, modulated=False, *, rngs
    ):
        widths = [64 * gf // side for side in sides]  # 64, 128, 256 px: 1, 1/2, 1/4 times gf
        n = nc if embedding else nz
        self.ca = (
            ConditioningAugmentation(embedding, nc, kernel_init=ORTHOGONAL, rngs=rngs)
            if embedding
            else None
        )
        first = n + nz if embedding else nz
        self.first = InitStage(first, widths[0], sides[0], modulated=modulated, rngs=rngs)
        self.next = nnx.List(
            [
                TreeStage(c, n, residuals if i < 2 else 1, rngs=rngs)
                for i, c in enumerate(widths[:-1])
            ]
        )
        self.to_images = nnx.List([ToImage(c, rngs=rngs) for c in widths])
        self.nz, self.size, self.unit_text = nz, sides[-1], unit_text

    def noise(self, key, n):
        z_key, eps_key = jax.random.split(key)
        noise = {'z': normal_rows(z_key, n, (self.nz,))}
        return noise | {'eps': self.ca.noise(eps_key, n)} if self.ca else noise

    def __call__(self, text, z, eps, *, train):
        condition, mu, logvar = self.ca(text, eps) if self.ca else (z, None, None)
        x = jnp.concatenate([condition, z], -1) if self.ca else z
        x = self.first(x, train=train)  # b 64 64 c
        images = [self.to_images[0](x)]
        for stage, to_image in zip(self.next, self.to_images[1:]):
            x = stage(x, condition, train=train)  # b 128 128 c/2, b 256 256 c/4
            images.append(to_image(x))
        return TreePictures(images, mu, logvar)


class TreeDiscriminator(nnx.Module):
    """Picture of one side, and mu b nc -> logits b of "matching" and of "real".

    Without sentences (nc = 0) the first are None.
    """

    def __init__(self, side, df, nc, norm, game=PLAIN, embedding=0, *, rngs):
        self.trunk = ImageTrunk(side, df, norm, rngs=rngs)
        self.matching = LogitHead(8 * df, nc, norm, rngs=rngs) if nc else None
        self.real = LogitHead(8 * df, rngs=rngs)
        self.extras = game.extras(16 * 8 * df, embedding, nc, rngs=rngs)

    def __call__(self, image, mu=None, *, train):
        code = self.trunk(image, train=train)  # b 4 4 8c
        matching = self.match(code, mu, train=train) if self.matching else None
        return matching, self.real(code, train=train)

    def match(self, code, condition, *, train):
        """Compute the logits of "matching" of maps of the trunk."""
        logits = self.matching(code, condition, train=train)
        return self.extras(logits, code, condition)


# -------------------------------------------------------------------------------------- stages
class OptionalText(JointEmbedding):
    """The text stage of GAN-CLS, which an unconditional run skips."""

    @classmethod
    def skip(cls, config):
        return super().skip(config) or not config.stages.gan.model.conditional


class StackGanPp(Stage):
    """Trains the generator and a discriminator for each side."""

    phases = (Phase('d_loss', trains=('D',)), Phase('g_loss', trains=('G',)))
    ema, loads = ('G',), {'text': 'text.text'}
    draws_from, makes, critics = ('sentence',), ('image', 'images'), ('D',)
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
        g_norm='batch',
        d_condition='mu',
        wrong='pictures',
        game=GAME,
        leave_out='class',
        text,
        rngs,
    ):
        """Build the generator and the discriminators.

        scales: pictures of the tree; the largest has the data's size, each other half the next, the
            smallest 8 px or more.
        conditional: False draws from z alone, and the stage `text` is left out.
        gf: a map of side r has 64 gf / r channels, so a tree that starts below 64 px starts wider.
        df: channels of the first map of D at 64 px and more.
        nz, nc: dimensions of z and of the condition.
        residuals: blocks of the second and of the third scale; further scales have one.
        uncond_weight, kl_weight: a of the formulas, and the weight of the KL.
        colour_weight: alpha; the paper has 50 without sentences.
        through_mu: in G's phase the gradient also reaches the conditioning augmentation through the
            mu that the discriminators read.
        unit_text, d_norm: as in gan_cls; ours, and off in the paper's settings.
        g_norm: 'modulated', the condition and z scale and shift the maps before the first picture
            (ours).
        d_condition: what discriminators read of a sentence, 'mu' or (ours) its vector, 'embedding'.
        wrong: what is wrong in wrong pairs, 'pictures', or (ours, with 'embedding') 'text', so that
            a discriminator sees a real picture once.
        game, leave_out: of each scale, see layers/game.py (ours); without sentences of no effect
            but for game.spectral and game.augment.
        text: the trained CharCnnRnn, or None where the data hold sentence vectors.
        Raises ValueError for sizes that do not fit.
        """
        choose('d_norm', d_norm, NORMS)
        choose('g_norm', g_norm, G_NORMS)
        embedding = text_dim(text, meta) if conditional else 0
        self.sides = tree_sides(meta.size, scales)
        if 64 * gf % meta.size:
            raise ValueError(
                f'gf={gf} gives the map of {meta.size} px {64 * gf / meta.size:g} channels: '
                f'make it a multiple of {max(1, meta.size // 64)}.'
            )
        self.game = Game.of(game, leave_out)
        self.d_condition = choose('d_condition', d_condition, ('mu', 'embedding'))
        self.wrong = choose('wrong', wrong, ('pictures', 'text'))
        if wrong == 'text' and d_condition == 'mu':
            raise ValueError(
                "wrong='text' needs d_condition='embedding': mu is known of the own sentence alone."
            )
        self.text, self.conditional = text if conditional else None, conditional
        more = unit_text, g_norm == 'modulated'
        self.G = TreeGenerator(self.sides, embedding, gf, nz, nc, residuals, *more, rngs=rngs)
        told = (nc if d_condition == 'mu' else embedding) if conditional else 0
        more = NORMS[d_norm], self.game, embedding
        self.D = nnx.List(
            [TreeDiscriminator(side, df, told, *more, rngs=rngs) for side in self.sides]
        )
        self.game.prepare(self.D, rngs)
        self.sampler = self.game.sampler
        self.uncond_weight, self.kl_weight = uncond_weight, kl_weight
        self.colour_weight, self.through_mu = colour_weight, through_mu
        self.unit_text = unit_text
        reads = text_reads(text) if conditional else ()
        wrongs = tuple(f'wrong_{name}' for name in reads if name != 'length')
        wrongs = wrongs if wrong == 'text' else ('wrong_image',)
        self.needs = ('image', *(wrongs if conditional else ()), *reads)
        self.needs += self.game.compared(meta)
        self.draws_from = ('sentence',) if conditional else ()

    def encode(self, batch, prefix=''):
        """Return sentence vectors b d, read or stored (of the `wrong_` sentences)."""
        return encode_sentence(self.text, batch, unit=self.unit_text, prefix=prefix)

    def noise(self, key, n):
        return self.G.noise(key, n)

    def draw(self, batch, noise, train):
        """Run the generator on a batch. -> TreePictures"""
        text = self.encode(batch) if self.conditional else None
        return self.G(text, noise['z'], noise.get('eps'), train=train)._replace(text=text)

    def forward(self, batch, key):
        b = len(batch['image'])
        return self.draw(batch, self.game.tied(self.noise(key, b), b), train=True)

    def d_loss(self, batch, key, out):
        reals, a, logs, game = pyramid(batch, self.sides), self.uncond_weight, {}, self.game
        game.begin(self.D)
        if not self.conditional:
            for side, D, *pictures in zip(self.sides, self.D, reals, out.images):
                (_, real), (_, drawn) = separately(D, game.seen(key, *pictures))
                logs[f'd_{side}'] = bce(real, 1.0) + bce(drawn, 0.0)
            return sum(logs.values()), logs
        by_text, told, others = self.wrong == 'text', self.told(out), []
        other = self.encode(batch, 'wrong_') if by_text else None
        wrongs = reals if by_text else pyramid(batch, self.sides, 'wrong_')
        for side, D, *pictures in zip(self.sides, self.D, reals, wrongs, out.images):
            real, wrong, drawn = game.seen(key, *pictures)
            if by_text:
                code, drawn_code = separately(D.trunk, [real, drawn])
                # each for real, wrong, drawn
                pairs = (code, told), (code, other), (drawn_code, told)
                matching = [D.match(*pair, train=True) for pair in pairs]
                free = [D.real(x, train=True) for x in (code, drawn_code)]
            else:
                matching, free = zip(*separately(D, [real, wrong, drawn], told))
                code = D.trunk(real, train=True) if D.extras.contrast else None
            right, *false = game.d_answers(matching[0], matching[2], matching[1])
            false = false[1] + false[0]
            unconditional = self.unconditional(free)
            logs[f'd_{side}'] = right + false + a * unconditional if a else right + false / 2
            more, its_logs = game.d_more(
                D.extras,
                lambda x, D=D: D(x, told, train=True)[0],
                key,
                batch,
                out.text,
                Seen(real, code, matching[0]),
                Seen(drawn, None, matching[2]),
                Wrong(other, matching[1]),
            )
            logs[f'd_{side}'] += more
            others.append(its_logs)
        return sum(logs.values()), logs | mean_logs(others)

    def unconditional(self, logits):
        """Add up D's losses without sentences. logits: of real, maybe wrong, and drawn pictures."""
        answers = [self.game.d_answers(real, logits[-1]) for real in logits[:-1]]
        return sum([*(one.right for one in answers), answers[0].drawn])

    def told(self, out):
        """Return what discriminators read of the sentences."""
        return out.mu if self.d_condition == 'mu' else out.text

    def g_loss(self, batch, key, out):
        told, logs, others, game = self.told(out), {}, [], self.game
        game.begin(self.D)
        told = told if self.through_mu else jax.lax.stop_gradient(told)
        reals = pyramid(batch, self.sides) if game.pairs else out.images
        for side, D, *pictures in zip(self.sides, self.D, reals, out.images):
            real, fake = game.seen(key, *pictures)
            code = D.trunk(fake, train=True)
            free = D.real(code, train=True)
            real_matching, real_free = D(real, told, train=True) if game.pairs else (None, None)
            logs[f'g_{side}'] = game.g_answers(free, real_free).mean()
            if self.conditional:
                matching = D.match(code, told, train=True)
                matching = game.g_answers(matching, real_matching).mean()
                logs[f'g_{side}'] = matching + self.uncond_weight * logs[f'g_{side}']
                more, its_logs = game.g_more(D.extras, batch, code, out.text)
                logs[f'g_{side}'] += more
                others.append(its_logs)
        loss = sum(logs.values())
        logs |= mean_logs(others)
        if self.conditional:
            logs['kl'] = conditioning_kl(out.mu, out.logvar)
            loss += self.kl_weight * logs['kl']
        if self.colour_weight:
            pairs = zip(out.images, out.images[1:])
            logs['colour'] = sum(colour_consistency(fine, coarse) for coarse, fine in pairs)
            loss += self.colour_weight * logs['colour']
        return loss, logs

    def sample(self, batch, noise):
        images = self.draw(batch, noise, train=False).images
        return {'image': images[-1], 'images': images}


class TreeStyle(Style):
    """GAN-CLS's style encoder, for the largest picture."""

    @classmethod
    def skip(cls, config):
        skipped = super().skip(config)
        if not skipped and not config.stages.gan.model.conditional:
            raise RunError(
                'A style encoder reads what a sentence leaves open, and this run has no sentences: '
                'set stages.style.steps=0.'
            )
        return skipped

    def drawn(self, text, noise):
        return self.G(text, **noise, train=False).images[-1]


# in the order of training
STAGES = {'text': OptionalText, 'gan': StackGanPp, 'style': TreeStyle}
