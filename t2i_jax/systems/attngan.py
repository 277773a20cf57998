"""AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial Networks.

Xu, Zhang, Huang, Zhang, Gan, Huang, He, CVPR 2018 (arXiv 1711.10485).

The tree of StackGAN++, whose later maps look at the words. The first map h_0 is drawn from the
sentence vector and noise. Each pixel of a map then attends to the words that it should show, and
the mean of the words by that attention, concatenated with the map, gives the next map. The DAMSM,
two encoders that a stage of its own trains to match regions of pictures with words, also judges how
well a picture of the last scale fits its words.

    words e, sentence s: of the DAMSM, frozen
    mu, logvar = CA(s),  c = mu + exp(logvar / 2) eps,  z ~ N(0, 1)
    h_0 = F_0(c, z),  h_i = F_i(h_{i-1}, attention(h_{i-1}, e)),  G_i = tanh(conv(h_i))
    bce1(l) = softplus(-l),  bce0(l) = softplus(l)
    u: is it real,  m: does it match,  s' the sentence of another picture
    L_D = sum_i 1/2 [bce1(u(x_i)) + bce1(m(x_i, s))]
              + 1/3 [bce0(u(G_i)) + bce0(m(G_i, s)) + bce0(m(x_i, s'))]
    L_G = sum_i bce1(u(G_i)) + bce1(m(G_i, s)) + KL + lambda (L_words + L_sentence)(G_last)
    AttnDCGAN, one picture at the end and no u:
    L_D = bce1(m(x, s)) + 1/2 [bce0(m(G, s)) + bce0(m(x, s'))]

For the attention see layers/attention.py; the KL is a mean over batch and dimensions. All this is
the official code's (taoxugit/AttnGAN). In the paper each term of L_G and L_D has a factor 1/2, and
pairs that do not match have no part in them. s' is the next row's sentence, whatever it says, for
all rows but the last.

Deviations: the padding of a sentence is hidden from its own pixels; in the code from those of
others (`mask_mode='original'`). The smaller real pictures are means over blocks of pixels (PIL's
bilinear filter in the code). Samples are drawn with running statistics that fit the averaged
weights; in the code these are the live ones. Sampling reads the first words of a sentence that is
too long; the code a random choice of them, as training does here, too. A vocabulary has the words
of the training captions, the code's also those of the test captions. Scales below 64 px, for
laptops, are ours: a map of side r < 64 has 64 gf / r channels, as those of F_0 have, and
discriminators lack the first layers.

Expected (paper, lambda 5 for birds, 50 for COCO): Inception Score 4.36 birds, 25.89 COCO;
R-precision 67.82 % and 85.47 %. With one stage of attention on birds, from memory: without the
DAMSM 3.98 and 10.37 %, with lambda 5 4.35 and 58.65 %. FID, as DM-GAN's authors measured it by
PyTorch's Inception: 23.98 and 35.49.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.encoders.sentence import WORDS, encode_words
from t2i_jax.layers.attention import WordAttention
from t2i_jax.layers.conditioning import ConditioningAugmentation
from t2i_jax.layers.game import GAME, PLAIN, Game, Seen, Wrong, mean_logs
from t2i_jax.layers.glu import ImageTrunk, InitStage, LogitHead, ResidualGlu, ToImage, UpGlu
from t2i_jax.layers.linear import ORTHOGONAL
from t2i_jax.layers.norm import G_NORMS, NORMS, separately
from t2i_jax.layers.pairs import matching_advice
from t2i_jax.losses import conditioning_kl, mismatched
from t2i_jax.runtime.errors import RunError, choose
from t2i_jax.stage import Phase, normal_rows
from t2i_jax.systems.damsm import CommonSpace, Damsm, Matching
from t2i_jax.systems.stackgan_pp import pyramid, tree_sides


# ------------------------------------------------------------------------------------ networks
class AttentivePictures(NamedTuple):
    """The generator's pass over a batch."""

    # from the smallest to the largest, b s s 3
    images: Any
    # of each map that looked at words, b s s t
    attention: Any
    # b nc
    mu: Any
    logvar: Any
    # the WordsAndSentence that they were drawn from
    text: Any


class AttentiveStage(nnx.Module):
    """A map b s s c and words -> (the map b 2s 2s c' of the next side, attention b s s t)."""

    def __init__(self, d, c, c_next, residuals, mask_mode, *, rngs):
        self.attention = WordAttention(d, c, mask_mode, rngs=rngs)
        self.residuals = nnx.List([ResidualGlu(2 * c, rngs=rngs) for _ in range(residuals)])
        self.up = UpGlu(2 * c, c_next, rngs=rngs)

    def __call__(self, x, words, mask, *, train):
        context, beta = self.attention(x, words, mask)
        return self.refine(jnp.concatenate([x, context], -1), train=train), beta

    def refine(self, x, *, train):
        """Compute the next map from what pixels know and have read, b s s 2c -> b 2s 2s c'."""
        for residual in self.residuals:
            x = residual(x, train=train)
        return self.up(x, train=train)


class AttnGenerator(nnx.Module):
    """Text and noise -> pictures of all sides, or (`single`) of the last alone.

    A system with other later stages replaces `next_stage`, a class or a method, and `grow`.
    """

    next_stage = AttentiveStage
    # sentence vectors from which the condition is drawn
    sentences = 1

    def __init__(
        self,
        sides,
        d,
        gf,
        nz,
        nc,
        residuals,
        attention_count,
        mask_mode,
        single,
        modulated=False,
        *,
        rngs,
    ):
        widths = [gf * max(1, 64 // side) for side in sides]
        self.ca = ConditioningAugmentation(
            self.sentences * d, nc, kernel_init=ORTHOGONAL, rngs=rngs
        )
        self.first = InitStage(nc + nz, widths[0], sides[0], modulated=modulated, rngs=rngs)
        self.next = nnx.List(
            [
                self.next_stage(d, *pair, residuals, mask_mode, rngs=rngs)
                for pair in zip(widths, widths[1:])
            ]
        )
        drawn = widths[-1:] if single else widths
        self.to_images = nnx.List([ToImage(c, rngs=rngs) for c in drawn])
        self.nz, self.size, self.attention_count = nz, sides[-1], attention_count

    def noise(self, key, n):
        z_key, eps_key = jax.random.split(key)
        return {'z': normal_rows(z_key, n, (self.nz,)), 'eps': self.ca.noise(eps_key, n)}

    def condition(self, text, eps):
        """Draw the condition of sentences. -> (condition, mu, log-variance), b nc each"""
        return self.ca(text.sentence, eps)

    def words_of(self, i, text):
        """Return the words b t d that map i looks at, and which of them there are, b t.

        After the first `attention_count` maps it is the sentence, as the only word of itself.
        """
        if i < self.attention_count:
            return text.words, text.mask > 0
        return text.sentence[:, None], jnp.ones((text.mask.shape[0], 1))

    def grow(self, i, x, text, condition, *, train):
        """Compute the map after x, by stage i. -> (map, attention, None where it is the sentence's)

        text: WordsAndSentence. condition: b nc, of the augmentation.
        """
        x, beta = self.next[i](x, *self.words_of(i, text), train=train)
        return x, beta if i < self.attention_count else None

    def __call__(self, text, z, eps, *, train):
        condition, mu, logvar = self.condition(text, eps)
        x = self.first(jnp.concatenate([condition, z], -1), train=train)  # b 64 64 c
        maps, attention = [x], []
        for i in range(len(self.next)):
            x, beta = self.grow(i, x, text, condition, train=train)  # b 128 128 c, b 256 256 c
            maps.append(x)
            attention += [] if beta is None else [beta]
        images = [to_image(x) for to_image, x in zip(self.to_images, maps[-len(self.to_images) :])]
        return AttentivePictures(images, attention, mu, logvar, text)


class AttnDiscriminator(nnx.Module):
    """Pictures of one side -> codes b 4 4 8c, by `trunk`; codes -> logits b.

    `match`: whether they match a sentence b d. `real`: not of AttnDCGAN.
    """

    def __init__(self, side, df, d, norm, real, game=PLAIN, *, rngs):
        self.trunk = ImageTrunk(side, df, norm, rngs=rngs)
        self.matching = LogitHead(8 * df, d, norm, rngs=rngs)
        self.real = LogitHead(8 * df, rngs=rngs) if real else None
        self.extras = game.extras(16 * 8 * df, d, rngs=rngs)

    def match(self, code, sentence, *, train):
        logits = self.matching(code, sentence, train=train)
        return self.extras(logits, code, sentence)


# --------------------------------------------------------------------------------------- stages
class AttnTree(Matching):
    """A tree of pictures whose sides have discriminators, and that a DAMSM teaches: its losses.

    A subclass sets `sides`, `game`, `wrong`, `unit_text`, `kl_weight`, `damsm_weight`, and has the
    trained encoders `text` and `image`. A discriminator of a side has `trunk`, `match`, `real` (or
    None) and `extras`.
    """

    # in STAGES, for messages
    called = 'gan'
    # how much the answers about sentences weigh, next to those about pictures alone
    match_weight = 1.0

    def check_encoders(self, size):
        """Raise ValueError where the image encoder cannot read pictures of `size` pixels.

        Also where its vectors have other dimensions than those of the text encoder.
        """
        pictures = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        try:
            regions, code = jax.eval_shape(lambda x: self.image(x, train=False), pictures)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'The DAMSM was trained on pictures of another size and cannot read those of {size}'
                f' px: train it with stages.{self.judges[0]}.data.size={size}, or set data.size to '
                f'its own. '
                f'({error})'
            ) from error
        if {regions.shape[-1], code.shape[-1]} != {self.text.d}:
            raise ValueError(
                f'The DAMSM has words of {self.text.d} dimensions, regions of {regions.shape[-1]} '
                f'and pictures of {code.shape[-1]}: take both encoders from one run.'
            )

    def encode(self, batch, prefix=''):
        """Return the WordsAndSentence of a batch's sentences (or of the `wrong_` ones)."""
        return encode_words(self.text, batch, unit=self.unit_text, prefix=prefix)

    def sentences(self, batch, prefix=''):
        """Return the sentence vectors that discriminators read: b d."""
        return self.encode(batch, prefix).sentence

    def d_sides(self, critics, batch, key, out):
        """Compute L_D of each side, {name: scalar}, and what is logged besides.

        critics: a discriminator for each side.
        """
        sentence, game, logs, others = out.text.sentence, self.game, {}, []
        if len(sentence) < 2 and (self.wrong == 'shift' or self.damsm_weight):
            raise RunError(
                f"{type(self).__name__} and its DAMSM take other rows' sentences for ones that do "
                'not match, and a batch of 1 has none: set '
                f'stages.{self.called}.batch_size to 2 or more.'
            )
        sampled = self.sentences(batch, 'wrong_') if self.wrong == 'sampled' else None
        other, weight = mismatched(sentence, sampled), self.match_weight
        for side, D, *pictures in zip(self.sides, critics, pyramid(batch, self.sides), out.images):
            pictures = game.seen(key, *pictures)
            real, fake = separately(D.trunk, pictures)  # b 4 4 8c
            right = D.match(real, sentence, train=True)
            wrong = D.match(real[: len(other)], other, train=True)
            drawn = D.match(fake, sentence, train=True)
            match = game.d_answers(right, drawn, wrong)
            if D.real:
                free = game.d_answers(D.real(real, train=True), D.real(fake, train=True))
                logs[f'd_{side}'] = (free.right + weight * match.right) / 2
                logs[f'd_{side}'] += (free.drawn + weight * (match.drawn + match.wrong)) / 3
            else:
                logs[f'd_{side}'] = match.right + (match.drawn + match.wrong) / 2

            def critic(x, D=D):
                answers = D.match(D.trunk(x, train=True), sentence, train=True)
                return answers.reshape(len(x), -1).mean(1)

            more, its_logs = game.d_more(
                D.extras,
                critic,
                key,
                batch,
                sentence,
                Seen(pictures[0], real, right),
                Seen(pictures[1], fake, drawn),
                Wrong(sampled, wrong),
            )
            logs[f'd_{side}'] += more
            others.append(its_logs)
        return logs, mean_logs(others)

    def g_sides(self, critics, batch, key, out):
        """Compute what L_G has of each side, {name: scalar}, and what is logged besides."""
        sentence, game, logs, others = out.text.sentence, self.game, {}, []
        reals = pyramid(batch, self.sides) if game.pairs else out.images
        for side, D, *pictures in zip(self.sides, critics, reals, out.images):

            def answers(code, D=D):
                real = D.real(code, train=True) if D.real else None
                return D.match(code, sentence, train=True), real

            real, fake = game.seen(key, *pictures)
            code = D.trunk(fake, train=True)
            of_real = answers(D.trunk(real, train=True)) if game.pairs else (None, None)
            match, free = (
                game.g_answers(*both).mean() if both[0] is not None else 0.0
                for both in zip(answers(code), of_real)
            )
            more, its_logs = game.g_more(D.extras, batch, code, sentence)
            logs[f'g_{side}'] = free + self.match_weight * match + more
            others.append(its_logs)
        return logs, mean_logs(others)

    def g_text(self, batch, out):
        """Compute what L_G has of the KL and the DAMSM -> (scalar, logs)."""
        logs = {'kl': conditioning_kl(out.mu, out.logvar)}
        loss = self.kl_weight * logs['kl']
        if self.damsm_weight:
            logs |= self.damsm_losses(batch, out)
            loss += self.damsm_weight * (logs['words'] + logs['sentence'])
        return loss, logs

    def damsm_losses(self, batch, out):
        """Compute how badly the largest pictures and their own sentences match each other."""
        codes = CommonSpace(*self.image(out.images[-1], train=False), *out.text[:2])
        return dict(zip(('words', 'sentence'), self.matching_losses(codes, batch)))


class AttnGan(AttnTree):
    """Trains the generator and a discriminator for each side."""

    phases = (Phase('d_loss', trains=('D',)), Phase('g_loss', trains=('G',)))
    ema, loads = ('G',), {'text': 'damsm.text', 'image': 'damsm.image'}
    draws_from, makes = ('sentence',), ('image', 'images', 'attention')
    judges, critics = ('damsm',), ('D',)
    tiny = dict(scales=2, gf=4, df=4, residuals=1)
    advice = matching_advice('gan')
    generator = AttnGenerator

    def __init__(
        self,
        meta,
        *,
        scales=3,
        attention_count=2,
        dcgan=False,
        gf=32,
        df=64,
        nz=100,
        nc=100,
        residuals=2,
        kl_weight=1.0,
        damsm_weight=5.0,
        wrong='shift',
        mask_mode='fixed',
        unit_text=False,
        d_norm='batch',
        g_norm='batch',
        game=GAME,
        text,
        image,
        rngs,
        **matching,
    ):
        """Build the generator and the discriminators.

        scales: pictures of the tree; the largest has the data's size, each other half the next, the
            smallest 8 px or more.
        attention_count: how many of the later maps look at words; those after them read the
            sentence vector, by as many parameters.
        dcgan: AttnDCGAN, which draws the last picture alone; in the official code with residuals=0
            and damsm_weight=1.
        gf: channels of the maps of 64 px and more.
        df: channels of the first map of D at 64 px and more.
        nz, nc: dimensions of z and of the condition.
        residuals: blocks of each scale but the first.
        kl_weight: of the KL.
        damsm_weight: lambda; the DAMSM has no part in training where it is 0.
        wrong: 'shift', a discriminator's wrong sentence is the next row's, or 'sampled', one that
            certainly does not match (ours).
        mask_mode: of WordAttention.
        unit_text: scale sentence vectors to a mean square of 1 (ours).
        d_norm: 'layer' lets discriminators normalise each picture alone (ours).
        g_norm: 'modulated', the condition and z scale and shift the maps of F_0 (ours).
        game: of each scale (ours; layers/game.py); its contrast leaves out the same pairs as the
            DAMSM.
        text, image: the trained encoders.
        matching: of Matching.
        Raises ValueError for sizes and words that do not fit.
        """
        super().__init__(meta, **matching)
        choose('d_norm', d_norm, NORMS)
        choose('g_norm', g_norm, G_NORMS)
        self.game = Game.of(game, self.leave_out)
        self.wrong, self.unit_text = choose('wrong', wrong, ('shift', 'sampled')), unit_text
        if attention_count < 0:
            raise ValueError(
                f'attention_count is {attention_count}; it is the number of maps that look at '
                'words, 0 for none.'
            )
        sides = tree_sides(meta.size, scales)
        # of pictures
        self.sides = sides[-1:] if dcgan else sides
        self.text, self.image = text, image
        self.check_encoders(meta.size)
        sizes = sides, text.d, gf, nz, nc, residuals, attention_count, mask_mode, dcgan
        self.G = self.generator(*sizes, g_norm == 'modulated', rngs=rngs)
        self.D = nnx.List(
            [
                AttnDiscriminator(side, df, text.d, NORMS[d_norm], not dcgan, self.game, rngs=rngs)
                for side in self.sides
            ]
        )
        self.game.prepare(self.D, rngs)
        self.sampler = self.game.sampler
        self.damsm_weight, self.kl_weight = damsm_weight, kl_weight
        self.taught_by = self.judges if damsm_weight else ()
        if not attention_count or scales == 1:
            self.makes = ('image', 'images')
        compared = self.compared if damsm_weight or any(self.game.contrast) else ()
        sampled = ('wrong_tokens',) if wrong == 'sampled' else ()
        self.needs = ('image', *WORDS, *compared, *sampled)

    def noise(self, key, n):
        return self.G.noise(key, n)

    def forward(self, batch, key):
        b = len(batch['image'])
        noise = self.game.tied(self.noise(key, b), b)
        out = self.G(self.encode(batch), **noise, train=True)
        # no loss reads the attention, and 256 px have hundreds of MB of it
        return out._replace(attention=())

    def d_loss(self, batch, key, out):
        self.game.begin(self.D)
        logs, others = self.d_sides(self.D, batch, key, out)
        return sum(logs.values()), logs | others

    def g_loss(self, batch, key, out):
        self.game.begin(self.D)
        logs, others = self.g_sides(self.D, batch, key, out)
        more, its_logs = self.g_text(batch, out)
        return sum(logs.values()) + more, logs | others | its_logs

    def sample(self, batch, noise):
        """-> {'image', 'images', 'attention'}

        attention: of each map that looked at words, from the smallest on, which word its pixels
        looked at, b s s t.
        """
        out = self.G(self.encode(batch), **noise, train=False)
        attention = {'attention': out.attention} if out.attention else {}
        return {'image': out.images[-1], 'images': out.images} | attention


# in the order of training
STAGES = {'damsm': Damsm, 'gan': AttnGan}
