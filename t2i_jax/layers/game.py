"""The game of a GAN that draws from sentences: keywords that mean the same in every system.

adversary   how D's answers become losses: `losses.d_answers`, `losses.g_answers`
contrast    weights in L_D and in L_G of a contrast: in a space of D's own (`ContrastHead`) a
            picture finds its sentence among those of the batch, and a sentence its picture;
            D also sees a wrong sentence for each real picture, and no drawn pictures
leave_out   pairs of a batch that do not count as wrong ones in it: `pairs.not_wrong`
"""

from typing import NamedTuple

from einops import rearrange
from flax import nnx

from t2i_jax.layers.linear import torch_linear
from t2i_jax.layers.pairs import LEAVE_OUT, found_own, not_wrong
from t2i_jax.losses import (
    ADVERSARIES,
    Answers,
    d_answers,
    g_answers,
    sentence_loss,
    sentence_scores,
)
from t2i_jax.runtime.errors import choose


class ContrastHead(nnx.Module):
    """A map of D's trunk and a sentence vector -> vectors in a space of their own, b d each."""

    def __init__(self, features, embedding, d=128, *, rngs):
        self.picture, self.of_text = (torch_linear(c, d, rngs=rngs) for c in (features, embedding))

    def __call__(self, code, text):
        return self.picture(rearrange(code, 'b h w c -> b (h w c)')), self.of_text(text)


class Game(NamedTuple):
    """The keywords of a game, see the head of this file; `game` checks them."""

    adversary: str
    contrast: tuple[float, float]
    leave_out: str

    def d_answers(self, real, drawn, wrong=None) -> Answers:
        """Compute D's losses from logits b."""
        return d_answers(self.adversary, real, drawn, wrong)

    def g_answers(self, drawn, real=None):
        """Compute G's loss of each drawn picture: b. real: logits of real ones, with 'pairing'."""
        return g_answers(self.adversary, drawn, real)

    @property
    def pairs(self) -> bool:
        """Whether G's loss compares drawn with real pictures."""
        return self.adversary == 'pairing'

    def head(self, features, embedding, *, rngs):
        """Build D's head for the contrast; None where it has no weight."""
        return ContrastHead(features, embedding, rngs=rngs) if any(self.contrast) else None

    def compared(self, meta):
        """Return the batch keys that the contrast reads."""
        known = self.leave_out != 'class' or meta.classes
        return LEAVE_OUT[self.leave_out] if any(self.contrast) and known else ()

    def matched(self, head, code, text, batch, wrong=None):
        """Compute the contrast of pictures with the sentences of a batch.

        head: of D, ContrastHead. code: maps of its trunk. text: sentence vectors. wrong: those of
        a wrong sentence for each picture.
        Returns (`sentence_loss`, the share of pictures that find their sentence).
        """
        leave_out = not_wrong(batch, self.leave_out)
        pictures, sentences = head(code, text)
        wrong = None if wrong is None else head.of_text(wrong)
        loss = sentence_loss(pictures, sentences, leave_out=leave_out, wrong_sentences=wrong)
        return loss, found_own(sentence_scores(pictures, sentences), leave_out)


# that of most papers
PLAIN = Game('bce', (0.0, 0.0), 'none')


def game(adversary, contrast, leave_out) -> Game:
    """Check the keywords of a game. Raises RunError."""
    return Game(
        choose('adversary', adversary, ADVERSARIES),
        tuple(contrast),
        choose('leave_out', leave_out, LEAVE_OUT),
    )
