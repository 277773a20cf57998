"""The game of a GAN that draws from sentences: the block `game` of a stage's keywords.

It means the same in every system. `GAME` is what the papers before 2018 have.

adversary   how D's answers become losses: `losses.d_answers`, `losses.g_answers`
contrast    weights in L_D and in L_G of a contrast: in a space of D's own (`ContrastHead`) a
            picture finds its sentence among those of the batch, and a sentence its picture;
            D also sees a wrong sentence for each real picture, and no drawn pictures
projection  D's answer to a sentence has one term more, the inner product of the sentence and the
            picture, each mapped once (Miyato and Koyama, ICLR 2018)
spectral    kernels of D are divided by their largest singular values (layers/spectral.py)
augment     D sees pictures moved and with a square cut out (layers/diff_augment.py)
lecam       weight of a penalty that holds D's answers near the averages of the other side's
            (Tseng et al., CVPR 2021): mean relu(D(x) - a_G)^2 + mean relu(a_x - D(G))^2
r1, r2      weights of |grad D|^2 / 2 at real and at drawn pictures (Mescheder et al., ICML 2018)
nt_xent     weight in L_G of a contrast of drawn pictures: two that are drawn from two captions of
            one record and the same z find each other in the batch, by D's maps (Ye et al., 2021);
            it needs the sampler 'twins'

Pairs of a batch that do not count as wrong ones in the contrast: `leave_out`, pairs.not_wrong.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from t2i_jax.layers import spectral
from t2i_jax.layers.diff_augment import moved_and_cut
from t2i_jax.layers.linear import torch_linear
from t2i_jax.layers.norm import Running
from t2i_jax.layers.pairs import LEAVE_OUT, found_own, not_wrong
from t2i_jax.losses import (
    ADVERSARIES,
    Answers,
    d_answers,
    g_answers,
    nt_xent,
    sentence_loss,
    sentence_scores,
    squared_slope,
)
from t2i_jax.runtime.errors import choose

GAME = dict(
    adversary='bce',
    contrast=(0.0, 0.0),
    projection=False,
    spectral=False,
    augment=False,
    lecam=0.0,
    r1=0.0,
    r2=0.0,
    nt_xent=0.0,
)


# ------------------------------------------------------------------------------ parts of D
class ContrastHead(nnx.Module):
    """A map of D's trunk and a sentence vector -> vectors in a space of their own, b d each."""

    def __init__(self, features, embedding, d=128, *, rngs):
        self.picture, self.of_text = (torch_linear(c, d, rngs=rngs) for c in (features, embedding))

    def __call__(self, code, text):
        return self.picture(rearrange(code, 'b h w c -> b (h w c)')), self.of_text(text)


class Memory(nnx.Module):
    """Moving averages (0.99 old) of D's answers to real and to drawn pictures."""

    def __init__(self):
        self.real, self.drawn = Running(jnp.zeros(())), Running(jnp.zeros(()))

    def penalty(self, real, drawn):
        """Compute LeCam's penalty of answers b from the averages so far, then add them."""
        real, drawn = real.astype(jnp.float32), drawn.astype(jnp.float32)
        over = jax.nn.relu(real - self.drawn[...]), jax.nn.relu(self.real[...] - drawn)
        for average, now in ((self.real, real), (self.drawn, drawn)):
            average[...] = 0.99 * average[...] + 0.01 * jax.lax.stop_gradient(now.mean())
        return sum(jnp.square(x).mean() for x in over)


class Extras(nnx.Module):
    """What a game adds to a discriminator; each None where the game does without it.

    features: of its trunk's map. embedding: of sentence vectors, condition: of what its logits read
    of them.
    """

    def __init__(self, game, features, embedding, condition, *, rngs):
        def head(dimensions):
            return ContrastHead(features, dimensions, rngs=rngs)

        self.contrast = head(embedding) if any(game.contrast) else None
        self.projection = head(condition) if game.projection and condition else None
        self.memory = Memory() if game.lecam else None

    def __call__(self, logits, code, condition):
        """Add the projection's term to logits b of maps b h w c with conditions b d."""
        if self.projection is None:
            return logits
        picture, sentence = self.projection(code, condition)
        # as large as one of them: both have 128 numbers
        return logits + (picture * sentence).sum(-1) * sentence.shape[-1] ** -0.5


# -------------------------------------------------------------------------------- the game
class Seen(NamedTuple):
    """Pictures as D saw them, maps of its trunk, logits with their sentences."""

    image: Any
    code: Any
    logits: Any


class Wrong(NamedTuple):
    """Wrong sentences of real pictures, b d, None for wrong pictures; the logits of such pairs."""

    text: Any
    logits: Any


class Game(NamedTuple):
    """The keywords of a game, see the head of this file; `Game.of` checks them."""

    leave_out: str
    adversary: str
    contrast: tuple[float, float]
    projection: bool
    spectral: bool
    augment: bool
    lecam: float
    r1: float
    r2: float
    nt_xent: float

    @classmethod
    def of(cls, keywords, leave_out='none') -> 'Game':
        """Check the keywords of a game; others are as in `GAME`. Raises RunError."""
        for name in keywords:
            choose('A keyword of game', name, GAME)
        choose('game.adversary', keywords['adversary'], ADVERSARIES)
        return cls(choose('leave_out', leave_out, LEAVE_OUT), **{**GAME, **keywords})

    # ------------------------------------------------------------------------------- building
    @property
    def pairs(self) -> bool:
        """Whether G's loss compares drawn with real pictures."""
        return self.adversary == 'pairing'

    @property
    def sampler(self) -> str:
        """The sampler that it needs; '' for any."""
        return 'twins' if self.nt_xent else ''

    def compared(self, meta):
        """Return the batch keys that the contrast reads."""
        known = self.leave_out != 'class' or meta.classes
        return LEAVE_OUT[self.leave_out] if any(self.contrast) and known else ()

    def extras(self, features, embedding, condition=None, *, rngs):
        """Build what the game adds to D; condition: as embedding by default."""
        condition = embedding if condition is None else condition
        return Extras(self, features, embedding, condition, rngs=rngs)

    def prepare(self, network, rngs):
        """Make a finished D (or a list of them) ready for `begin`."""
        if self.spectral:
            spectral.watch(network, rngs)

    # --------------------------------------------------------------------------------- losses
    def begin(self, network):
        """Begin a loss that asks D (or several)."""
        if self.spectral:
            spectral.normalise(network)

    def seen(self, key, *batches, first=0):
        """Return batches of pictures b s s 3 as D sees them. first: number of the first one."""
        if not self.augment:
            return batches
        keys = (jax.random.fold_in(key, 2 + i) for i in itertools.count(first))
        return [moved_and_cut(x, one) for x, one in zip(batches, keys)]

    def tied(self, noise, b):
        """Give both rows of a record the same z; noise: {'z': of b rows or more}."""
        if not self.nt_xent:
            return noise
        z = noise['z']
        return noise | {'z': jnp.concatenate([z[: b // 2], z[: b // 2], z[b:]])}

    def d_answers(self, real, drawn, wrong=None) -> Answers:
        """Compute D's losses from logits b."""
        return d_answers(self.adversary, real, drawn, wrong)

    def g_answers(self, drawn, real=None):
        """Compute G's loss of each drawn picture: b. real: logits of real ones, with 'pairing'."""
        return g_answers(self.adversary, drawn, real)

    def d_more(self, extras, critic, key, batch, text, real: Seen, drawn: Seen, wrong: Wrong):
        """Compute what the game adds to L_D -> (loss, {name: scalar}).

        extras: of D. critic: pictures -> logits, with the sentences of the batch. key: of the step.
        text: sentence vectors b d.
        """
        loss = 0.0
        answers = {'real': real.logits, 'drawn': drawn.logits, 'wrong': wrong.logits}
        logs = {
            f'{name}_logit': logits.astype(jnp.float32).mean()
            for name, logits in answers.items()
            if logits is not None
        }
        if extras.contrast:
            contrast, logs['found'] = self.matched(extras, real.code, text, batch, wrong.text)
            logs['contrast'] = contrast
            loss += self.contrast[0] * contrast
        if self.r1 or self.r2:
            slopes = [
                weight / 2 * squared_slope(critic, seen.image, jax.random.fold_in(key, i))
                for i, (weight, seen) in enumerate([(self.r1, real), (self.r2, drawn)], 1)
                if weight
            ]
            logs['penalty'] = sum(slopes)
            loss += logs['penalty']
        if extras.memory:
            logs['lecam'] = extras.memory.penalty(real.logits, drawn.logits)
            loss += self.lecam * logs['lecam']
        return loss, logs

    def g_more(self, extras, batch, code, text):
        """Compute what the game adds to L_G for drawn pictures -> (loss, {name: scalar})."""
        loss, logs = 0.0, {}
        if extras.contrast:
            contrast, logs['drawn_found'] = self.matched(extras, code, text, batch)
            loss += self.contrast[1] * contrast
        if self.nt_xent:
            logs['twins'] = nt_xent(code.mean((1, 2)))
            loss += self.nt_xent * logs['twins']
        return loss, logs

    def matched(self, extras, code, text, batch, wrong=None):
        """Compute the contrast of pictures with the sentences of a batch.

        Returns (`sentence_loss`, the share of pictures that find their sentence).
        """
        leave_out = not_wrong(batch, self.leave_out)
        pictures, sentences = extras.contrast(code, text)
        wrong = None if wrong is None else extras.contrast.of_text(wrong)
        loss = sentence_loss(pictures, sentences, leave_out=leave_out, wrong_sentences=wrong)
        return loss, found_own(sentence_scores(pictures, sentences), leave_out)


# that of most papers
PLAIN = Game.of(GAME)


def mean_logs(each):
    """Average the logs of several discriminators: a list of {name: scalar} -> one."""
    names = each[0] if each else ()
    return {name: sum(logs[name] for logs in each) / len(each) for name in names}
