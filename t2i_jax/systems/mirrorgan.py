"""MirrorGAN: Learning Text-to-Image Generation by Redescription.

Qiao, Zhang, Xu, Tao, CVPR 2019 (arXiv 1903.05854).

A picture that fits a sentence should be described by it. GLAM, the generator, is AttnGAN's, whose
later maps read the whole sentence at every pixel besides the words. STREAM, a captioner that was
trained on real pictures before and is then frozen, reads a caption off each drawn picture: the
generator pays for each word of its sentence that STREAM would not have said. So the text goes to a
picture and back, as in a mirror. The text encoder is that of the DAMSM (STEM in the paper).

    words e, sentence s, condition c, maps h_i:  as in AttnGAN
    s' = V c + b at every pixel,  A = softmax(U (h * s')),  context = s' * A
    h_i = F_i(W [h_{i-1}, attention(h_{i-1}, e), context]),  G_i = tanh(conv(h_i))
    STREAM: x_0 = BN(dense(mean of the trunk's last map)),  x_t = embedding of word t,
    p(word t+1 | picture, words before) = softmax(dense(LSTM(x_0, ..., x_t)))
    L_stream = mean over all words of the batch of -log p(word | G_last, words before)
    L_G = sum_i bce1(u(G_i)) + bce1(m(G_i, s)) + KL + lambda L_stream
    L_D: AttnGAN's

The paper's L_stream is a sum over the words of a sentence (`stream_reduction='sum'`), ten times as
much; the mean is the released code's (qiaott/MirrorGAN). lambda is 20 in the paper, 10 in the code,
the KL in the code alone. Neither has a DAMSM term in L_G; some read the paper as if it had
(`damsm_weight=5`). The axis of the softmax is the channels in the code (`sent_softmax`): it then
shares out channels at each pixel, not pixels. The paper does not say, and `spatial` is what
attention usually means. With `sentence_attention=False`, lambda_stream=0 and damsm_weight=5 this is
AttnGAN.

STREAM is as a full reproduction has it (Seth-Park/MirrorGAN), since the authors released neither
its weights nor its training: the picture first, no start or end tokens, AttnGAN's words.

Deviations: those of AttnGAN. Drawn pictures are normalised for STREAM's trunk as the real ones were
in its training; in the code they are not (`stream_norm='none'`). The scale of STREAM's batch norm
starts from N(1, .02) as everywhere here, not from 1. STREAM may learn where captions
end (`end`), without which each has 20 words. A trunk other than ResNet-152 (encoders/
damsm_image.py), whose pretrained weights pip can install, or a small one that is trained with it.

Sizes with 5,450 words, birds: G 7,105,392, 20,800 more than AttnGAN's; STREAM's dense layer and
norm 525,056, its decoder 5,768,010. ResNet-152 up to its last map has 58,143,808.

Expected (paper, from memory): Inception Score 4.56 birds, 26.47 COCO; R-precision 57.67 % and
74.52 %, where the paper's way of measuring gives AttnGAN 53.31 % (67.82 % by AttnGAN's own).
Ablations, birds and COCO: lambda 0 4.01 and 21.85, lambda 10 4.27 and 24.95; lambda 20 without
sentence attention 4.47 and 25.99. Users found 3.89 to 4.41 on birds.
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.encoders.damsm_image import check_trunk, installed, trunk_of
from t2i_jax.encoders.pretrained import IMAGENET, PretrainedTrunk
from t2i_jax.encoders.sentence import WORDS
from t2i_jax.layers.linear import NORMAL, ORTHOGONAL, uniform
from t2i_jax.layers.norm import BatchNorm
from t2i_jax.layers.recurrent import Lstm
from t2i_jax.losses import caption_loss
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import Phase, Stage, unused
from t2i_jax.systems.attngan import AttentiveStage, AttnGan, AttnGenerator
from t2i_jax.systems.damsm import Damsm

SOFTMAXES = {'channel': -1, 'spatial': (1, 2)}


# ----------------------------------------------------------------------------- GLAM: text to image
class SentenceAttention(nnx.Module):
    """What a sentence says at each pixel: maps b h w c, conditions b n -> b h w c.

    softmax: over 'channel', each pixel's alone, or 'spatial', over the pixels of each channel.
    """

    def __init__(self, n, c, softmax, *, rngs):
        self.axis = SOFTMAXES[choose('sent_softmax', softmax, SOFTMAXES)]
        self.project = nnx.Linear(n, c, kernel_init=ORTHOGONAL, rngs=rngs)
        self.score = nnx.Linear(c, c, use_bias=False, kernel_init=ORTHOGONAL, rngs=rngs)

    def shares(self, x, condition):
        """Compute the sentence at a pixel, b 1 1 c, and its shares A, b h w c in float32."""
        told = self.project(condition)[:, None, None]
        return told, jax.nn.softmax(self.score(x * told).astype(jnp.float32), self.axis)

    def __call__(self, x, condition):
        told, shares = self.shares(x, condition)
        return told * shares.astype(told.dtype)


class GlobalLocalStage(AttentiveStage):
    """A map b s s c, words, and the condition b n -> (the map b 2s 2s c', attention b s s t)."""

    def __init__(self, d, n, c, c_next, residuals, mask_mode, softmax, *, rngs):
        super().__init__(d, c, c_next, residuals, mask_mode, rngs=rngs)
        self.sentence = SentenceAttention(n, c, softmax, rngs=rngs)
        self.fuse = nnx.Linear(3 * c, 2 * c, use_bias=False, kernel_init=ORTHOGONAL, rngs=rngs)

    def __call__(self, x, words, mask, condition, *, train):
        context, beta = self.attention(x, words, mask)
        x = jnp.concatenate([x, context, self.sentence(x, condition)], -1)  # b s s 3c
        return self.refine(self.fuse(x), train=train), beta


class Glam(AttnGenerator):
    """AttnGAN's generator, whose later maps also read the condition, at each pixel."""

    def __init__(self, sides, d, gf, nz, nc, *others, softmax, rngs):
        self.nc, self.softmax = nc, softmax
        super().__init__(sides, d, gf, nz, nc, *others, rngs=rngs)

    def next_stage(self, d, *sizes, rngs):
        return GlobalLocalStage(d, self.nc, *sizes, self.softmax, rngs=rngs)

    def grow(self, i, x, text, condition, *, train):
        x, beta = self.next[i](x, *self.words_of(i, text), condition, train=train)
        return x, beta if i < self.attention_count else None


# --------------------------------------------------------------------------- STREAM: image to text
class PictureFeature(nnx.Module):
    """Pictures b s s 3 in [-1, 1] -> what the captioner reads before the first word, b d.

    Trunk and places: of DamsmImage. The trunk is frozen but for 'small'.
    """

    def __init__(self, size, d, trunk, weights, resize, channels, places, *, rngs):
        if places and trunk != 'small':
            raise ValueError('places=True is for trunk=small.')
        self.trunk = trunk_of(trunk, size, weights, resize, channels, rngs=rngs)
        width = self.trunk.channels[1] * (self.trunk.last_side**2 if places else 1)
        self.dense = nnx.Linear(width, d, kernel_init=NORMAL, rngs=rngs)
        self.norm, self.places = BatchNorm(d, momentum=0.99, rngs=rngs), places

    def __call__(self, x, *, train):
        last = self.trunk(x, train=train)[1]
        seen = rearrange(last, 'b h w c -> b (h w c)') if self.places else last.mean((1, 2))
        return self.norm(self.dense(seen), train=train).astype(jnp.float32)


class Captioner(nnx.Module):
    """Features of pictures b d, and captions -> logits of each next word (id 0: the end).

    end: whether captions may end; otherwise id 0 is never said. max_words, beam: of those that it
    writes, see `read`.
    """

    def __init__(self, vocabulary_size, d, hidden, end=False, max_words=20, beam=1, *, rngs):
        start = uniform(0.1)
        self.embed = nnx.Embed(vocabulary_size, d, embedding_init=start, rngs=rngs)
        self.lstm = Lstm(d, hidden, input_limit=hidden**-0.5, rngs=rngs)
        self.words = nnx.Linear(hidden, vocabulary_size, kernel_init=start, rngs=rngs)
        self.vocabulary_size, self.end = vocabulary_size, end
        self.max_words, self.beam = max_words, beam

    def __call__(self, feature, tokens):
        """Compute the logits b t V of words b t, each from the picture and the words before it."""
        before = jnp.concatenate([feature[:, None], self.embed(tokens[:, :-1])], 1)  # b t d
        states, _ = self.lstm(before, jnp.ones(tokens.shape, bool))  # b t h
        return self.words(states)

    def read(self, feature):
        """Search for the likeliest caption of each picture -> (ids b max_words, log-likelihood b).

        `beam` captions are kept at a time; with 1 the likeliest next word is taken each time.
        """
        b, v, count, beam = len(feature), self.vocabulary_size, self.max_words, self.beam
        # captions that have ended go on with 0
        over = jnp.where(jnp.arange(v) == 0, 0.0, -jnp.inf)

        def each(rows):
            return rearrange(rows, '(b k) ... -> b k ...', k=beam)

        def one(carry, i):
            state, x, ids, ended, score = carry
            state = self.lstm.step(state, self.lstm.input(x), jnp.ones(len(x), bool))
            logits = self.words(state[0]).astype(jnp.float32)
            logits = logits if self.end else logits.at[:, 0].set(-jnp.inf)
            new = jnp.where(ended[..., None], over, each(jax.nn.log_softmax(logits)))  # b k V
            totals = rearrange(score[..., None] + new, 'b k v -> b (k v)')
            score, best = jax.lax.top_k(totals, beam)  # b k
            parent, word = best // v, best % v

            def of_parents(x):
                return jnp.take_along_axis(x, parent.reshape(b, beam, *[1] * (x.ndim - 2)), 1)

            ids = of_parents(ids).at[:, :, i].set(word)
            ended = of_parents(ended) | (word == 0)
            state = jax.tree.map(
                lambda h: rearrange(of_parents(each(h)), 'b k h -> (b k) h'), state
            )
            x = self.embed(rearrange(word, 'b k -> (b k)')).astype(jnp.float32)
            return (tuple(state), x, ids, ended, score), None

        # the first time all k are one
        score = jnp.broadcast_to(jnp.where(jnp.arange(beam) == 0, 0.0, -jnp.inf), (b, beam))
        ids, ended = jnp.zeros((b, beam, count), jnp.int32), jnp.zeros((b, beam), bool)
        x = repeat(feature, 'b d -> (b k) d', k=beam)
        begin = self.lstm.start(b * beam), x, ids, ended, score
        (_, _, ids, _, score), _ = jax.lax.scan(one, begin, jnp.arange(count))
        return ids[:, 0], score[:, 0]


# -------------------------------------------------------------------------------------- stages
class Stream(Stage):
    """Trains the captioner on real pictures and their captions."""

    phases = (Phase('loss', trains=('feature', 'captioner')),)
    needs, draws_from, makes = ('image', *WORDS), ('image',), ('tokens',)
    tiny = dict(d=16, hidden=16, trunk='small', channels=(8, 16))

    def __init__(
        self,
        meta,
        *,
        d=256,
        hidden=512,
        trunk='resnet152',
        weights='',
        resize='half_pixel',
        channels=(64, 128, 256, 256),
        places=False,
        end=False,
        max_words=20,
        beam=1,
        rngs,
    ):
        """Build the captioner.

        d, hidden: numbers of a word and of a picture as the LSTM reads them, and of its state.
        trunk, weights, resize, channels, places: of DamsmImage; 'efficientnet_lite0' takes the
            weights of its package where none are named.
        end: it also learns where captions end (ours); otherwise each that it writes has max_words.
        max_words, beam: of the captions that it writes, see Captioner.
        Raises ValueError for wrong values.
        """
        if meta.captions != 1:
            raise ValueError(
                f'STREAM reads one caption of a picture, the data give {meta.captions}: set '
                'data.captions=1.'
            )
        if meta.vocabulary_size < 2:
            raise ValueError('STREAM has no words to say: these data have no captions.')
        if min(beam, max_words) < 1 or beam > meta.vocabulary_size:
            raise ValueError(
                f'beam={beam}, max_words={max_words}: set both to 1 or more, and beam to no more '
                f'than the {meta.vocabulary_size:,} words.'
            )
        if not meta.nominal:
            weights = weights or installed(trunk)
        self.feature = PictureFeature(
            meta.size, d, trunk, weights, resize, channels, places, rngs=rngs
        )
        writes = end, max_words, beam
        self.captioner = Captioner(meta.vocabulary_size, d, hidden, *writes, rngs=rngs)

    @classmethod
    def check(cls, model):
        check_trunk('stream', model['trunk'], model['weights'])

    @classmethod
    def skip(cls, config):
        return unused(config, 'stream')

    def loss(self, batch, key, out):
        tokens, length = batch['tokens'], batch['length']
        logits = self.captioner(self.feature(batch['image'], train=self.training), tokens)
        there = jnp.arange(tokens.shape[1]) < length[:, None]
        right = (logits.argmax(-1) == tokens) & there
        logs = {
            'words_right': right.sum() / jnp.maximum(there.sum(), 1),
            'sum': caption_loss(logits, tokens, length, reduction='sum'),
        }
        return caption_loss(logits, tokens, length, end=self.captioner.end), logs

    def sample(self, batch, noise):
        """-> {'tokens': ids b max_words, 'log_likelihood': b}"""
        ids, score = self.captioner.read(self.feature(batch['image'], train=False))
        return {'tokens': ids, 'log_likelihood': score}


class GlobalLocalGan(AttnGan):
    """AttnGAN's stage with a generator whose later maps read the sentence at each pixel."""

    explores = {'sentence_attention': 'sentence_sheet'}

    def __init__(self, meta, *, sent_softmax='channel', rngs, **others):
        """Build the generator and the discriminators.

        sent_softmax: of later maps, see SentenceAttention.
        others: of AttnGan.
        Raises ValueError for sizes that do not fit.
        """
        self.sent_softmax = choose('sent_softmax', sent_softmax, SOFTMAXES)
        super().__init__(meta, rngs=rngs, **others)
        if not self.G.next:
            self.explores = {x: y for x, y in self.explores.items() if x != 'sentence_attention'}

    def generator(self, *sizes, rngs):
        """Build G from the sizes that AttnGan gives."""
        return Glam(*sizes, softmax=self.sent_softmax, rngs=rngs)

    def attend(self, batch, noise):
        """Draw pictures and what each pixel read of the sentence. -> {'image', 'maps'}

        maps: of each later stage, the mean over channels of |context|, b h w.
        """
        G, text, maps = self.G, self.encode(batch), []
        condition = G.condition(text, noise['eps'])[0]
        x = G.first(jnp.concatenate([condition, noise['z']], -1), train=False)
        for i, stage in enumerate(G.next):
            maps.append(jnp.abs(stage.sentence(x, condition)).astype(jnp.float32).mean(-1))
            x, _ = G.grow(i, x, text, condition, train=False)
        return {'image': G.to_images[-1](x), 'maps': maps}

    @staticmethod
    def sentence_sheet(sampler, batch, texts, num, seed):
        """Show drawn pictures, and as grey where each stage read the sentence, white the most."""
        rows, noise, texts = drawn_rows(sampler, batch, texts, num, seed)
        out = sampler.sample(rows, noise, (len(texts),), 'attend')
        shown = [out['image']]
        for maps in out['maps']:
            side = out['image'].shape[1] // maps.shape[1]
            grey = np.uint8(
                np.round(255 * maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-12))
            )
            shown.append(repeat(grey, 'n h w -> n (h y) (w x) c', y=side, x=side, c=3))
        return np.stack(shown, 1), texts


class MirrorGan(GlobalLocalGan):
    """Trains the generator and a discriminator for each side; STREAM reads what it draws."""

    loads = AttnGan.loads | {'feature': 'stream.feature', 'captioner': 'stream.captioner'}
    explores = {'redescribe': 'redescriptions'} | GlobalLocalGan.explores

    def __init__(
        self,
        meta,
        *,
        sentence_attention=True,
        lambda_stream=20.0,
        stream_reduction='mean',
        stream_norm='imagenet',
        damsm_weight=0.0,
        feature,
        captioner,
        rngs,
        **others,
    ):
        """Build the generator and the discriminators.

        sentence_attention: whether later maps read the sentence; without it, AttnGAN's generator.
        lambda_stream, stream_reduction: see the formulas, and `caption_loss`.
        stream_norm: 'imagenet', a pretrained trunk reads drawn pictures as it reads real ones, or
            'none', as the released code, pictures in [-1, 1] take the place of normalised ones.
        damsm_weight: of the DAMSM's term.
        feature, captioner: the trained captioner, None where the stage `stream` is left out.
        others: of GlobalLocalGan.
        Raises ValueError for sizes that do not fit.
        """
        self.sentence_attention = sentence_attention
        super().__init__(meta, damsm_weight=damsm_weight, rngs=rngs, **others)
        choose('stream_reduction', stream_reduction, ('mean', 'sum'))
        choose('stream_norm', stream_norm, ('imagenet', 'none'))
        if lambda_stream and captioner is None:
            raise ValueError(
                f'lambda_stream={lambda_stream:g} needs the captioner: give stages.stream steps, '
                'or set lambda_stream=0'
            )
        self.feature, self.captioner = feature, captioner
        self.lambda_stream, self.stream_reduction = lambda_stream, stream_reduction
        self.raw = stream_norm == 'none'
        there = {'redescribe': captioner is not None, 'sentence_attention': sentence_attention}
        self.explores = {name: x for name, x in self.explores.items() if there[name]}
        if feature is not None:
            self.check_stream(meta)

    @classmethod
    def skip(cls, config):
        """A run that gives it no steps is a captioner alone."""
        return unused(config, 'gan')

    def check_stream(self, meta):
        """Raise ValueError where STREAM cannot read the pictures, or knows other words."""
        pictures = jax.ShapeDtypeStruct((1, meta.size, meta.size, 3), jnp.float32)
        try:
            jax.eval_shape(lambda x: self.feature(x, train=False), pictures)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'STREAM was trained on pictures of another size and cannot read those of '
                f'{meta.size} px: train it with stages.stream.data.size={meta.size}. ({error})'
            ) from error
        words = self.captioner.vocabulary_size
        if meta.vocabulary_size != words:
            raise ValueError(
                f'STREAM knows {words:,} words, these data have {meta.vocabulary_size:,}: train it '
                'on the same captions'
            )

    def generator(self, *sizes, rngs):
        if self.sentence_attention:
            return super().generator(*sizes, rngs=rngs)
        return AttnGenerator(*sizes, rngs=rngs)

    def g_loss(self, batch, key, out):
        loss, logs = super().g_loss(batch, key, out)
        if not self.lambda_stream:
            return loss, logs
        tokens, length = batch['tokens'], batch['length']
        logits = self.captioner(self.seen(out.images[-1]), tokens)
        for reduction in ('mean', 'sum'):
            loss_of = caption_loss(logits, tokens, length, reduction=reduction)
            logs[f'stream_{reduction}'] = loss_of
        return loss + self.lambda_stream * logs[f'stream_{self.stream_reduction}'], logs

    def seen(self, pictures):
        """Compute the features of pictures b s s 3, as `stream_norm` shows them to STREAM: b d."""
        if self.raw and isinstance(self.feature.trunk, PretrainedTrunk):
            mean, std = map(jnp.array, IMAGENET)
            # which the trunk's own normalisation turns into the pictures themselves
            pictures = 2 * (pictures * std + mean) - 1
        return self.feature(pictures, train=False)

    def redescribe(self, batch, noise):
        """Draw pictures and read a caption off each. -> {'image', 'tokens'}"""
        image = self.G(self.encode(batch), **noise, train=False).images[-1]
        return {'image': image, 'tokens': self.captioner.read(self.seen(image))[0]}

    @staticmethod
    def redescriptions(sampler, batch, texts, num, seed):
        """Show drawn pictures, with what STREAM says of each under its sentence."""
        rows, noise, texts = drawn_rows(sampler, batch, texts, num, seed)
        out = sampler.sample(rows, noise, (len(texts), 1), 'redescribe')
        said = [' '.join(sampler.vocabulary.decode(ids)) for (ids,) in out['tokens']]
        return out['image'], [f'{text}\nread: {caption}' for text, caption in zip(texts, said)]


def drawn_rows(sampler, batch, texts, num, seed):
    """Return (batch, noise, texts) of `num` samples of each given sentence.

    Of held-out records one of each.
    """
    each = num if 'encoded' in batch else 1
    keys = [name for name in (*WORDS, 'encoded') if name in batch]
    rows = jax.tree.map(lambda x: np.repeat(x, each, 0), {name: batch[name] for name in keys})
    return rows, sampler.noise(each, seed, len(texts)), [x for x in texts for _ in range(each)]


# in the order of training
STAGES = {'damsm': Damsm, 'stream': Stream, 'gan': MirrorGan}
