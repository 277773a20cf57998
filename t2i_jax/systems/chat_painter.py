"""ChatPainter: Improving Text to Image Generation using Dialogue.

Sharma, Suhubdy, Michalski, Kahou, Bengio, ICLR workshop 2018 (arXiv 1802.08216).

Captions of many objects say too little. StackGAN draws here from a caption and a dialogue of ten
questions and answers about the picture: its condition is the caption's vector phi beside the
dialogue's zeta, and all else is StackGAN, as its authors had it on COCO (variant 'pytorch').
Sentences of the dialogue are read by an encoder that was trained to predict, from one sentence, the
one before and the one after (skip-thoughts: Kiros et al., 2015), and is frozen:

    v_i = [uni(s_i) ; bi(s_i)], each half of length 1: final states of GRUs
    L_skip = - mean over words log P(s_(i-1) | v_i) + log P(s_(i+1) | v_i)
    zeta = v of all rounds as one string, or the last states of a bi-LSTM over v_1 ... v_10
    u = [norm(phi) ; norm(zeta)],  c = mu(u) + sigma(u) eps, and on as in systems/stackgan.py

The bi-LSTM is trained in Stage-I by G's loss; D's condition is held constant. Stage-II takes it
from there and keeps it. Without a dialogue norm(zeta) is its bias, which is learnt from rows whose
rounds are left out (`turn_dropout`, `truncated`). Wrong pairs have another picture's caption and
dialogue, or with wrong='dialog' the right caption and another scene's dialogue.

Deviations: the authors published no code. A round is one sentence, question and answer. The
encoders of sentences are trained here, on captions and dialogues of the data; the skip-thoughts of
the paper (4,800 numbers, of the BookCorpus) are `width=2400, embedding=620`. phi and zeta are
normed before they meet, so that the longer one does not drown the other. Ours, and off in the
paper's settings: `turn_dropout`, `truncated`, `d_trains_dialog`, `kind='words'` of stage `turns`.

Expected (Inception Score on COCO): recurrent 9.74, one string 9.43 (from memory); StackGAN 8.45.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.encoders.sentence import encode_sentence, scaled_to_unit, text_dim
from t2i_jax.encoders.word_sum import SCALE
from t2i_jax.layers.linear import ORTHOGONAL, torch_linear, uniform, uniform_linear
from t2i_jax.layers.norm import LayerNorm
from t2i_jax.layers.recurrent import Lstm
from t2i_jax.runtime.errors import DataError, choose
from t2i_jax.stage import Phase, Stage, unused
from t2i_jax.systems.joint_embedding import JointEmbedding
from t2i_jax.systems.stackgan import WRONG, StageOne, StageTwo

KINDS = 'skip', 'words'
DIALOGS = 'recurrent', 'joined', 'none'


# ------------------------------------------------------------------------- sentences of a dialogue
class SkipGru(nnx.Module):
    """A GRU whose state stays where there is no word.

    r, u = sigmoid(W x + U h);  n = tanh(W x + U (r h));  h' = (1 - u) h + u n
    """

    def __init__(self, c, width, *, rngs):
        self.width = width
        self.input = uniform_linear(c, 3 * width, 0.1, rngs=rngs)
        self.hidden = nnx.List(
            [
                nnx.Linear(width, width, use_bias=False, kernel_init=ORTHOGONAL, rngs=rngs)
                for _ in range(3)
            ]
        )

    def __call__(self, x, there, *, reverse=False):
        """Read b t c where `there` (bool b t) -> (states b t width, the last one b width)."""
        of_r, of_u, of_n = self.hidden

        def step(h, inputs):
            given, there = inputs
            r, u, n = jnp.split(given, 3, -1)
            r, u = nnx.sigmoid(r + of_r(h)), nnx.sigmoid(u + of_u(h))
            new = (1 - u) * h + u * jnp.tanh(n + of_n(r * h))
            h = jnp.where(there[:, None], new.astype(jnp.float32), h)
            return h, h

        inputs = self.input(x).swapaxes(0, 1), there.T
        last, states = jax.lax.scan(
            step, jnp.zeros((x.shape[0], self.width)), inputs, reverse=reverse
        )
        return states.swapaxes(0, 1), last


class SkipEncoder(nnx.Module):
    """Word ids n t (0 = padding) -> n d, d = 2 width: a GRU beside a pair of both directions."""

    def __init__(self, words, embedding, width, *, rngs):
        self.d = 2 * width
        self.embed = nnx.Embed(words, embedding, embedding_init=uniform(0.1), rngs=rngs)
        self.uni = SkipGru(embedding, width, rngs=rngs)
        self.pair = nnx.List([SkipGru(embedding, width // 2, rngs=rngs) for _ in range(2)])

    def __call__(self, tokens):
        x, there = self.embed(tokens), tokens > 0
        uni = self.uni(x, there)[1]
        both = [gru(x, there, reverse=i > 0)[1] for i, gru in enumerate(self.pair)]
        halves = uni, jnp.concatenate(both, -1)
        return jnp.concatenate([of_length_one(half) for half in halves], -1)


class TurnSum(nnx.Module):
    """Word ids n t (0 = padding) -> n d, the sum of the vectors of the words."""

    def __init__(self, words, d, *, rngs):
        self.d = d
        start = nnx.initializers.normal(0.3)
        self.embed = nnx.Embed(words, d, embedding_init=start, rngs=rngs)

    def __call__(self, tokens):
        return SCALE * (self.embed(tokens) * (tokens > 0)[..., None]).sum(1)


def of_length_one(x):
    """Scale vectors to length 1; zeros stay zeros."""
    return x * jax.lax.rsqrt((x**2).sum(-1, keepdims=True) + 1e-12)


class SkipDecoder(nnx.Module):
    """A sentence's vector -> the words of its neighbours, by two GRUs with one table of words."""

    def __init__(self, words, embedding, width, d, *, rngs):
        self.embed = nnx.Embed(words, embedding, embedding_init=uniform(0.1), rngs=rngs)
        # every gate sees the vector beside the word
        self.grus = nnx.List([SkipGru(embedding + d, width, rngs=rngs) for _ in range(2)])
        self.words = torch_linear(width, words, rngs=rngs)

    def __call__(self, which, vector, tokens):
        """Return logits n t words; which: 0 for the sentence before, 1 for the one after."""
        before = self.embed(jnp.pad(tokens[:, :-1], ((0, 0), (1, 0))))
        vector = repeat(vector.astype(before.dtype), 'n d -> n t d', t=tokens.shape[1])
        states, _ = self.grus[which](jnp.concatenate([before, vector], -1), tokens > 0)
        return self.words(states).astype(jnp.float32)


class Turns(Stage):
    """Trains the encoder of a dialogue's sentences."""

    phases = (Phase('skip_loss', trains=('encoder', 'decoder')),)
    needs, critics = ('dialog', 'tokens', 'length'), ('decoder',)
    tiny = dict(embedding=16, width=16)
    advice = {
        'dialog': 'ChatPainter learns from dialogues. Choose data that have them '
        '(coco2014_captions/dialogs, shape_scenes/multi_brief), or StackGAN.'
    }

    def __init__(self, meta, *, kind='skip', embedding=620, width=2400, rngs):
        """Build encoder and decoder.

        kind: 'skip', or 'words', whose vectors are sums of those of words (ours).
        embedding, width: numbers of a word and of a state; a sentence has 2 width.
        """
        words = meta.vocabulary_size
        if choose('kind', kind, KINDS) == 'skip':
            self.encoder = SkipEncoder(words, embedding, width, rngs=rngs)
        else:
            self.encoder = TurnSum(words, 2 * width, rngs=rngs)
        self.decoder = SkipDecoder(words, embedding, width, 2 * width, rngs=rngs)

    @classmethod
    def skip(cls, config):
        return unused(config, 'turns')

    def skip_loss(self, batch, key, out):
        """Of each record one sentence and its neighbours; the caption stands before round 1."""
        dialog, caption = batch['dialog'], batch['tokens']
        caption = caption[:, 0] if caption.ndim == 3 else caption
        words = dialog.shape[-1]
        caption = jnp.pad(caption[:, :words], ((0, 0), (0, max(0, words - caption.shape[1]))))
        empty = jnp.zeros_like(caption)[:, None]
        # none before the caption, none after the last round
        sentences = jnp.concatenate([empty, caption[:, None], dialog, empty], 1)
        middle = jax.random.randint(key, (len(dialog),), 1, dialog.shape[1] + 2)

        def at(place):
            return jnp.take_along_axis(sentences, place[:, None, None], 1)[:, 0]

        vector = self.encoder(at(middle))
        total, words, right = 0.0, 0, 0
        for which, target in enumerate((at(middle - 1), at(middle + 1))):
            logits, there = self.decoder(which, vector, target), target > 0
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, target)
            total += jnp.where(there, losses, 0).sum()
            words += there.sum()
            right += (there & (logits.argmax(-1) == target)).sum()
        words = jnp.maximum(words, 1)
        return total / words, {'words_right': right / words}


# --------------------------------------------------------------------------------------- dialogues
class DialogEncoder(nnx.Module):
    """Caption vectors b d_text and rounds b r t -> conditions b d, float32.

    `dialog`: 'recurrent', a bi-LSTM over rounds; 'joined', all rounds as one string; 'none', the
    caption alone.
    """

    def __init__(self, dialog, text, turn, width, *, rngs):
        """Build the layers.

        dialog: see above. text, turn: numbers of a caption's and of a round's vector.
        width: numbers of a state of the bi-LSTM, in each direction.
        """
        self.dialog, self.d_text = choose('dialog', dialog, DIALOGS), text
        self.text_norm = LayerNorm(text, rngs=rngs)
        zeta = {'recurrent': 2 * width, 'joined': turn, 'none': 0}[dialog]
        self.d, recurrent = text + zeta, dialog == 'recurrent'
        self.norm = LayerNorm(zeta, rngs=rngs) if zeta else None
        self.lstms = nnx.List([Lstm(turn, width, rngs=rngs) for _ in range(2)] if recurrent else [])

    def caption(self, text):
        """Norm vectors of captions: b d_text."""
        return self.text_norm(text.astype(jnp.float32), train=False)

    def __call__(self, caption, turns, rounds):
        """caption: as `caption` returns it. turns: the encoder. rounds: ids, None: no dialogue."""
        if self.norm is None:
            return caption
        if rounds is None:
            zeta = jnp.zeros((len(caption), self.d - self.d_text))
        elif self.lstms:
            there = (rounds > 0).any(-1)  # b r
            vectors = turns(rearrange(rounds, 'b r t -> (b r) t'))
            vectors = rearrange(scaled_to_unit(vectors), '(b r) d -> b r d', b=len(rounds))
            states = [lstm(vectors, there, reverse=i > 0)[1] for i, lstm in enumerate(self.lstms)]
            zeta = jnp.concatenate(states, -1)
        else:
            zeta = turns(rearrange(rounds, 'b r t -> b (r t)'))
        zeta = self.norm(zeta.astype(jnp.float32), train=False)
        return jnp.concatenate([caption, zeta], -1)


class Conversation:
    """The share of both stages: StackGAN's, with conditions that have a dialogue."""

    draws_from, takes, explores = ('sentence',), ('dialog',), {'rounds': 'rounds'}
    advice = Turns.advice

    def __init__(
        self,
        meta,
        *,
        variant='pytorch',
        wrong='',
        turn_dropout=0.0,
        truncated=0.0,
        text,
        rngs,
        **others,
    ):
        """Check and store the keywords.

        variant, others: of StackGanStage.
        wrong: as there, or 'dialog'.
        turn_dropout: share of the rounds that are left out in training.
        truncated: share of the rows that have their first k rounds alone, k ~ U{0, ..., 10}.
        """
        self.turn_dropout, self.truncated = turn_dropout, truncated
        self.alone = choose('wrong', wrong or '', ('', *WRONG, 'dialog')) == 'dialog'
        wrong = 'text' if self.alone else wrong
        super().__init__(meta, variant=variant, wrong=wrong, text=text, rngs=rngs, **others)
        if self.dialog.norm is None and self.alone:
            raise ValueError("wrong='dialog' needs a dialogue: set dialog=recurrent or joined.")
        needs = self.needs
        if self.alone:
            needs = tuple(name for name in needs if not name.startswith('wrong_'))
        if self.dialog.norm is None:
            self.takes, self.explores = (), {}
        else:
            needs += ('dialog', *(('wrong_dialog',) if self.wrong == 'text' else ()))
        self.needs = needs

    def dimensions(self, text, meta):
        return self.dialog.d

    def heard(self, batch, key):
        """Return a batch of training without the rounds that are left out."""
        if not self.training or not (self.turn_dropout or self.truncated):
            return batch
        batch = dict(batch)
        for i, name in enumerate(('dialog', 'wrong_dialog')):
            if name not in batch:
                continue
            b, r = batch[name].shape[:2]
            keys = jax.random.split(jax.random.fold_in(key, 11 + i), 3)
            first = jax.random.randint(keys[0], (b, 1), 0, r + 1)
            cut = jax.random.bernoulli(keys[1], self.truncated, (b, 1))
            kept = (jnp.arange(r) < first) | ~cut
            kept &= ~jax.random.bernoulli(keys[2], self.turn_dropout, (b, r))
            batch[name] = batch[name] * kept[..., None]
        return batch

    def encode(self, batch, prefix=''):
        """Return conditions b d, of a caption and of a dialogue where the batch has one."""
        given = 'encoded' in batch and not prefix
        if given and 'dialog' not in batch:
            return batch['encoded']
        if given:
            caption = batch['encoded'][:, : self.dialog.d_text]
        else:
            of_caption = '' if self.alone else prefix
            vectors = encode_sentence(self.text, batch, unit=self.unit_text, prefix=of_caption)
            caption = self.dialog.caption(vectors)
        return self.dialog(caption, self.turns, batch.get(f'{prefix}dialog'))

    def forward(self, batch, key):
        out = super().forward(self.heard(batch, key), key)
        return out if self.d_trains else out._replace(text=jax.lax.stop_gradient(out.text))

    def d_loss(self, batch, key, out):
        return super().d_loss(self.heard(batch, key), key, out)

    @staticmethod
    def rounds(sampler, batch, texts, num, seed):
        """Each caption with more and more of its dialogue, from none on; the noise stays."""
        if 'dialog' not in batch:
            raise DataError('Rounds are those of a dialogue: give one, --dialog=FILE.')
        dialog = np.asarray(batch['dialog'])
        last = max(1, int((dialog > 0).any(-1).sum(1).max()))
        kept = np.arange(dialog.shape[1]) < np.arange(last + 1)[:, None]
        n, k = len(dialog), last + 1
        rows = {name: np.repeat(np.asarray(x), k, 0) for name, x in batch.items()}
        rows['dialog'] = rows['dialog'] * np.tile(kept, (n, 1))[..., None]
        pictures = sampler.sample(rows, sampler.noise(1, seed, n * k), (n, k))['image']
        said = [[' '.join(sampler.vocabulary.decode(ids)) for ids in one] for one in dialog]
        said = ['; '.join(filter(None, one)) for one in said]
        return pictures, [f'{text}: {one[:120]} …' for text, one in zip(texts, said)]


class ChatOne(Conversation, StageOne):
    """Trains Stage-I and the encoder of dialogues."""

    phases = (Phase('d_loss', trains=('D1',)), Phase('g_loss', trains=('G1', 'dialog')))
    ema, loads = ('G1', 'dialog'), {'text': 'text.text', 'turns': 'turns.encoder'}
    tiny = StageOne.tiny | dict(width=16)

    def __init__(
        self,
        meta,
        *,
        dialog='recurrent',
        width=512,
        d_trains_dialog=False,
        text,
        turns,
        rngs,
        **others,
    ):
        """Build the networks.

        dialog: 'recurrent', 'joined' or 'none'.
        width: numbers of a state of the bi-LSTM, in each direction.
        d_trains_dialog: D's loss trains the encoder of dialogues, too (ours).
        turns: the trained encoder of sentences; None with dialog='none'.
        others: of Conversation, StageOne and StackGanStage.
        """
        if turns is None and dialog != 'none':
            raise ValueError(
                f'dialog={dialog!r} reads sentences by the encoder of stage turns, which this run '
                'leaves out: give it steps, or set dialog=none.'
            )
        self.turns, self.d_trains = turns, d_trains_dialog
        turn = turns.d if turns else 0
        self.dialog = DialogEncoder(dialog, text_dim(text, meta), turn, width, rngs=rngs)
        if d_trains_dialog:
            self.phases = Phase('d_loss', trains=('D1', 'dialog')), self.phases[1]
        super().__init__(meta, text=text, rngs=rngs, **others)


class ChatTwo(Conversation, StageTwo):
    """Trains Stage-II; Stage-I and the encoder of dialogues are frozen."""

    loads = {
        'text': 'one.text',
        'turns': 'one.turns',
        'dialog': 'one.dialog',
        'G1': 'one.G1',
    }
    d_trains = False

    def __init__(self, meta, *, text, turns, dialog, G1, rngs, **others):
        """Build the networks; others: of Conversation, StageTwo and StackGanStage."""
        self.turns, self.dialog = turns, dialog
        super().__init__(meta, text=text, G1=G1, rngs=rngs, **others)


# in the order of training
STAGES = {'text': JointEmbedding, 'turns': Turns, 'one': ChatOne, 'two': ChatTwo}
