"""LayoutVAE: Stochastic Scene Layout Generation from a Label Set.

Jyothi, Durand, He, Sigal, Mori, ICCV 2019.

From a set of labels to a layout, in two steps. CountVAE says how many objects each label has, label
after label in the order of classes; BBoxVAE places them one after the other, by label, within a
label from left to right. Both are variational autoencoders whose prior depends on the condition c:
the label, the set (or all counts), and what came before (for boxes the state of an LSTM).

    L_count = mean over the labels k of the set of
              -log p(n_k | z, c) + KL(q(z | n_k, c) || p(z | c)),  n_k - 1 ~ Poisson
    L_box   = mean over the boxes b_j of  |b_j - mu|^2 / 2 s^2 + 4 log(s sqrt(2 pi)) + KL,
              b = (left, top, w, h), s = .02
    held out: -log 1/K sum_i p(x | z_i, c) p(z_i | c) / q(z_i | x, c),  z_i ~ q, K = 100,
              with the true counts and boxes before each

Sizes are those on which two public re-implementations agree. Deviations: counts enter networks
divided by 10, boxes as (b - 1/2) / .25. A Poisson is wider than the counts of most scenes:
`count_head='categorical'` takes 1 to 20 as classes instead. The weight of KL may grow at first
(`warmup`), or a coordinate that varies by few sigmas is never put into the latent. Boxes are drawn
at their means (`box_noise=1` for p(b | z)). In completion the given boxes come first in the
history, whatever their labels; dependence on a given box of an earlier label is then learnt,
dependence on one of a later label is not. A moving average of the weights is kept.

Expected: on shape_scenes/rules, whose likelihoods are known, see experiments/layout_vae_rules.py.
Of the paper's numbers none is recalled with certainty; on COCO the NLL of a count is about 0.56
nats, and a model of boxes without a latent is far behind one with it.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from t2i_jax.layers.linear import torch_linear
from t2i_jax.layers.recurrent import Lstm
from t2i_jax.losses import gaussian_kl, gaussian_nll, poisson_nll
from t2i_jax.runtime.errors import DataError, choose
from t2i_jax.stage import Phase, Stage, normal_rows, uniform_rows

# objects of one label
MAX_COUNT = 20

# counts enter networks divided by this
COUNT_UNIT = 10

# boxes enter networks as (b - 1/2) / BOX_UNIT
BOX_UNIT = 0.25

# side of a box, as a fraction of the frame: smaller ones are neither learnt nor made
SMALLEST = 0.01


# ------------------------------------------------------------------------------------ networks
class Gaussian(NamedTuple):
    """A Gaussian with diagonal covariance."""

    mean: Any
    logvar: Any

    def draw(self, eps, temperature=1.0):
        """Draw a sample from standard normal noise."""
        return self.mean + temperature * jnp.exp(0.5 * self.logvar) * eps

    def log_density(self, z):
        """Return log p(z), summed over the dimensions."""
        return -gaussian_nll(z, self.mean, self.logvar).sum(-1)


class ToGaussian(nnx.Module):
    """Linear to d, ReLU, then mean and log-variance."""

    def __init__(self, c, d, *, rngs):
        self.hidden, self.mean, self.logvar = (
            torch_linear(*size, rngs=rngs) for size in ((c, d), (d, d), (d, d))
        )

    def __call__(self, x):
        x = jax.nn.relu(self.hidden(x))
        return Gaussian(self.mean(x).astype(jnp.float32), self.logvar(x).astype(jnp.float32))


class ConditionalVae(nnx.Module):
    """An autoencoder of x (..., X) under a condition c (..., width). Leading axes are free.

    The decoder returns `out` numbers, the parameters of p(x | z, c).
    """

    def __init__(self, x, out, width, latent_dim, prior, *, rngs):
        """Build the networks.

        x, out, width: sizes of x, of the decoder's output and of the condition.
        latent_dim: 0 for a decoder that sees the condition alone.
        prior: 'learned', or 'standard', N(0, I) whatever the condition.
        """
        choose('prior', prior, ('learned', 'standard'))
        self.latent_dim = latent_dim
        if latent_dim:
            self.look = nnx.List(
                [torch_linear(x, width, rngs=rngs), torch_linear(width, width, rngs=rngs)]
            )
            self.to_posterior = ToGaussian(2 * width, latent_dim, rngs=rngs)
            self.to_prior = ToGaussian(width, latent_dim, rngs=rngs) if prior == 'learned' else None
        sizes = (latent_dim + width, width, width // 2, out)
        self.decoder = nnx.List([torch_linear(a, b, rngs=rngs) for a, b in zip(sizes, sizes[1:])])

    def posterior(self, x, c):
        x = self.look[1](jax.nn.relu(self.look[0](x)))
        return self.to_posterior(jnp.concatenate([x, c], -1))

    def prior(self, c):
        if self.latent_dim and self.to_prior:
            return self.to_prior(c)
        zero = jnp.zeros((*c.shape[:-1], self.latent_dim))
        return Gaussian(zero, zero)

    def decode(self, z, c):
        x = jnp.concatenate([z, jnp.broadcast_to(c, (*z.shape[:-1], c.shape[-1]))], -1)
        for layer in self.decoder[:-1]:
            x = jax.nn.relu(layer(x))
        return self.decoder[-1](x).astype(jnp.float32)

    def terms(self, x, c, key, nll):
        """Compute (-log p(x | z, c) for one z ~ q, KL(q || p)), each (...).

        nll: the decoder's output -> (...).
        """
        if not self.latent_dim:
            said = nll(self.decode(jnp.zeros((*c.shape[:-1], 0)), c))
            return said, jnp.zeros_like(said)
        q = self.posterior(x, c)
        z = q.draw(jax.random.normal(key, q.mean.shape))
        return nll(self.decode(z, c)), gaussian_kl(*q, *self.prior(c))

    def log_weights(self, x, c, key, nll, samples):
        """Compute log p(x, z | c) / q(z | x, c) for `samples` draws z ~ q -> (samples, ...).

        Their log mean exp is at most log p(x | c) on average.
        """
        if not self.latent_dim:
            return -self.terms(x, c, key, nll)[0][None]
        q, p = self.posterior(x, c), self.prior(c)

        def one(key):
            z = q.draw(jax.random.normal(key, q.mean.shape))
            return p.log_density(z) - q.log_density(z) - nll(self.decode(z, c))

        return jax.lax.map(one, jax.random.split(key, samples))

    def held_out(self, x, c, key, nll, samples):
        """Compute {'nll', 'elbo', 'kl'}, each (...).

        They are the importance-sampled -log p(x | c), its bound from the same draws, and
        KL(q || p).
        """
        log_weights = self.log_weights(x, c, key, nll, samples)
        mean = jax.nn.logsumexp(log_weights, 0) - jnp.log(len(log_weights))
        return {'nll': -mean, 'elbo': -log_weights.mean(0), 'kl': self.terms(x, c, key, nll)[1]}


class ConditionNet(nnx.Module):
    """c = linear [FC2 of each input ; the other inputs], FC2: linear, ReLU, linear, ReLU.

    Leading axes broadcast.
    """

    def __init__(self, sizes, width, others=0, *, rngs):
        self.layers = nnx.List(
            [
                nnx.List([torch_linear(d, width, rngs=rngs), torch_linear(width, width, rngs=rngs)])
                for d in sizes
            ]
        )
        self.merge = torch_linear((len(sizes) + others) * width, width, rngs=rngs)

    def __call__(self, *inputs):
        seen = [jax.nn.relu(b(jax.nn.relu(a(x)))) for (a, b), x in zip(self.layers, inputs)]
        seen += inputs[len(self.layers) :]
        shape = jnp.broadcast_shapes(*(x.shape[:-1] for x in seen))
        seen = [jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in seen]
        return self.merge(jnp.concatenate(seen, -1))


class Counter(nnx.Module):
    """CountVAE: how many objects each label of a set has."""

    def __init__(self, classes, width, latent_dim, head, prior, history, *, rngs):
        choose('count_head', head, ('poisson', 'categorical'))
        self.head, self.history, self.classes = head, history, classes
        self.condition = ConditionNet((classes,) * 3, width, rngs=rngs)
        out = 1 if head == 'poisson' else MAX_COUNT
        self.vae = ConditionalVae(1, out, width, latent_dim, prior, rngs=rngs)

    def log_probs(self, said):
        """Return log p of counts 1..20, (..., 20), of the decoder's output (..., 1 or 20).

        A Poisson is cut at 20.
        """
        return jax.nn.log_softmax(
            said if self.head == 'categorical' else -poisson_nll(jnp.arange(MAX_COUNT), said)
        )

    def nll(self, counts):
        """Return the function: decoder's output -> -log p(count), for counts of 1..20."""
        more = jnp.maximum(counts - 1, 0)
        if self.head == 'poisson':
            return lambda said: poisson_nll(more, said[..., 0])
        index = more.astype(int)

        def of(said):
            log_probs = self.log_probs(said)
            places = jnp.broadcast_to(index, said.shape[:-1])[..., None]
            return -jnp.take_along_axis(log_probs, places, -1)[..., 0]

        return of

    def likeliest(self, said):
        """Return the count to expect of the decoder's output (..., 1 or 20) -> (...).

        Poisson: 1 + its rate, rounded.
        """
        if self.head == 'poisson':
            rate = jnp.exp(jnp.minimum(said[..., 0], jnp.log(MAX_COUNT - 1)))
            return 1 + jnp.round(rate).astype(int)
        return 1 + said.argmax(-1)

    def conditions(self, counts):
        """Encode what each label depends on: counts b C (0: not in the set) -> b C width.

        That is the set, the label, and the counts of the labels before it.
        """
        earlier = jnp.tril(jnp.ones((self.classes, self.classes)), -1) * self.history
        return self.condition(
            (counts > 0)[:, None].astype(jnp.float32),
            jnp.eye(self.classes),
            counts[:, None] * earlier / COUNT_UNIT,
        )

    def terms(self, counts, key):
        x, c = counts[..., None] / COUNT_UNIT, self.conditions(counts)
        return self.vae.terms(x, c, key, self.nll(counts))

    def measure(self, counts, key, samples):
        """Measure counts b C -> {name: b}, means over the labels of the set.

        count_exact, count_within_one: of the likeliest count at the mean of the prior, given the
        true counts before it.
        """
        c, there = self.conditions(counts), counts > 0
        found = self.vae.held_out(counts[..., None] / COUNT_UNIT, c, key, self.nll(counts), samples)
        error = jnp.abs(self.likeliest(self.vae.decode(self.vae.prior(c).mean, c)) - counts)
        found = {f'{name}_per_label': value for name, value in found.items()} | {
            'count_exact': error < 0.5,
            'count_within_one': error < 1.5,
        }
        return {name: mean_per_row(value, there) for name, value in found.items()}

    def sample(self, label_set, least, room, z, u, temperature=1.0, mode=False):
        """Draw counts b C for sets of labels b C.

        least: b C, the least count of each label.
        room: b, how many more objects there may be; what a label takes is lost to those after it.
        z, u: b C D normal and b C uniform noise.
        temperature: times the deviation of the prior.
        mode: the likeliest counts instead.
        """
        number = jnp.arange(1, MAX_COUNT + 1)

        def one(carry, inputs):
            counts, room = carry
            label, low, z, u = inputs
            label_rows = jnp.broadcast_to(label, counts.shape)
            c = self.condition(label_set, label_rows, counts * self.history / COUNT_UNIT)
            z = self.vae.prior(c).draw(z, 0.0 if mode else temperature)
            said = self.vae.decode(z, c)  # b 1 or b 20
            possible = number >= low[:, None]
            shares = jax.nn.softmax(jnp.where(possible, self.log_probs(said), -jnp.inf))
            cdf = jnp.cumsum(shares, -1)
            n = self.likeliest(said) if mode else 1 + (cdf <= u[:, None] * cdf[:, -1:]).sum(-1)
            n = jnp.where(label_set @ label > 0, jnp.clip(n, low, low + room), 0)
            return (counts + n[:, None] * label, room - jnp.maximum(n - low, 0)), None

        start = jnp.zeros(label_set.shape), jnp.maximum(room, 0)
        inputs = jnp.eye(self.classes), least.T, rearrange(z, 'b c d -> c b d'), u.T
        return jax.lax.scan(one, start, inputs)[0][0]


class Placer(nnx.Module):
    """BBoxVAE: where the objects are. Boxes are (left, top, w, h) here."""

    def __init__(self, classes, width, latent_dim, head, sigma, prior, history, *, rngs):
        choose('box_head', head, ('linear', 'sigmoid'))
        self.head, self.sigma, self.classes, self.width = head, sigma, classes, width
        self.condition = ConditionNet((classes, classes), width, others=1, rngs=rngs)
        self.lstm = Lstm(classes + 4, width, forget_bias=1.0, rngs=rngs) if history else None
        self.vae = ConditionalVae(4, 4, width, latent_dim, prior, rngs=rngs)

    def mean(self, said):
        """Return the mean box of the decoder's output."""
        return jax.nn.sigmoid(said) if self.head == 'sigmoid' else said

    def nll(self, boxes):
        """Return the function: decoder's output (..., 4) -> -log N(box; mean, sigma^2 I)."""
        return lambda said: gaussian_nll(boxes, self.mean(said), 2 * math.log(self.sigma)).sum(-1)

    def conditions(self, boxes, labels):
        """Encode what each box depends on: boxes b R 4 and labels b R -> b R width.

        That is all counts, its label, and the boxes before it.
        """
        named = jax.nn.one_hot(labels, self.classes)
        history = jnp.zeros((*labels.shape, self.width))
        if self.lstm:
            history = self.lstm.before(jnp.concatenate([named, scaled(boxes)], -1), labels >= 0)
        return self.condition(named.sum(1, keepdims=True) / COUNT_UNIT, named, history)

    def terms(self, boxes, labels, key):
        return self.vae.terms(scaled(boxes), self.conditions(boxes, labels), key, self.nll(boxes))

    def measure(self, boxes, labels, key, samples):
        c = self.conditions(boxes, labels)
        found = self.vae.held_out(scaled(boxes), c, key, self.nll(boxes), samples)
        there = labels >= 0
        return {f'{name}_per_box': mean_per_row(value, there) for name, value in found.items()}

    def sample(self, labels, given, z, eps, temperature=1.0, overlap=0.0):
        """Draw boxes b R 4 for labels b R (-1: none).

        given: b R 4, boxes that exist, with a width of 0 where one is to be made.
        z: b R tries D.
        eps: b R tries 4, in units of sigma.
        temperature: times the deviation of the prior.
        overlap: of several tries the first is taken whose overlap with the boxes before it is at
            most this, otherwise that with the least.
        """
        named = jax.nn.one_hot(labels, self.classes)
        counts = named.sum(1) / COUNT_UNIT

        def one(carry, inputs):
            state, placed = carry
            number, named, there, given, z, eps = inputs
            c = self.condition(counts, named, state[0])[:, None]  # b 1 width
            means = self.mean(self.vae.decode(self.vae.prior(c).draw(z, temperature), c))
            tries = inside(means + self.sigma * eps)
            best = jnp.maximum(overlaps(tries, placed), overlap).argmin(1)
            box = jnp.take_along_axis(tries, best[:, None, None], 1)[:, 0]  # b 4
            box = jnp.where(given[:, 2:3] > 0, given, box) * there[:, None]
            if self.lstm:
                gates = self.lstm.input(jnp.concatenate([named, scaled(box)], -1))
                state = self.lstm.step(state, gates, there)
            return (state, placed.at[:, number].set(box)), None

        rows = len(labels)
        state = self.lstm.start(rows) if self.lstm else (jnp.zeros((rows, self.width)),)
        inputs = (rearrange(x, 'b r ... -> r b ...') for x in (named, labels >= 0, given, z, eps))
        start, inputs = (state, jnp.zeros(given.shape)), (jnp.arange(labels.shape[1]), *inputs)
        return jax.lax.scan(one, start, inputs)[0][1]


# ------------------------------------------------------------------------------ boxes and rows
def to_corner(boxes):
    """Convert cx cy w h -> left top w h."""
    return jnp.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], -1)


def to_centre(boxes):
    """Convert left top w h -> cx cy w h."""
    return jnp.concatenate([boxes[..., :2] + boxes[..., 2:] / 2, boxes[..., 2:]], -1)


def scaled(boxes):
    """Scale boxes for networks: numbers about 1, of which a sigma is not too small a part."""
    return (boxes - 0.5) / BOX_UNIT


def inside(boxes):
    """Cut boxes, left top w h, at the frame; no side is below SMALLEST."""
    low = jnp.clip(boxes[..., :2], 0, 1 - SMALLEST)
    high = jnp.clip(boxes[..., :2] + boxes[..., 2:], low + SMALLEST, 1)
    return jnp.concatenate([low, high - low], -1)


def overlaps(tries, placed):
    """Return the share of each of tries (b t 4) under boxes (b r 4) -> b t, overlaps added."""
    a, b = tries[:, :, None], placed[:, None]
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    return jnp.clip(high - low, 0).prod(-1).sum(-1) / tries[..., 2:].prod(-1)


def ordered(boxes, labels, rows, smallest=SMALLEST):
    """Sort the first `rows` objects of each scene by label, within a label from left to right.

    boxes, labels: b n 4 as cx cy w h, b n with -1 for padding, which comes last.
    smallest: boxes with a side below this, and those of a label beyond the 20th, are left out.
    -> boxes b rows 4 as left top w h, 0 where there is none; labels b rows
    """
    more = max(0, rows - labels.shape[1])
    boxes = to_corner(jnp.pad(boxes[:, :rows].astype(jnp.float32), ((0, 0), (0, more), (0, 0))))
    labels = jnp.pad(labels[:, :rows], ((0, 0), (0, more)), constant_values=-1)
    labels = jnp.where(boxes[..., 2:].min(-1) >= smallest, labels, -1)
    order = jnp.lexsort((boxes[..., 0], jnp.where(labels < 0, jnp.iinfo(labels.dtype).max, labels)))
    boxes = jnp.take_along_axis(boxes, order[..., None], 1)
    labels = jnp.take_along_axis(labels, order, 1)
    same = labels[:, :, None] == labels[:, None]  # b rows rows
    labels = jnp.where(jnp.tril(same).sum(-1) <= MAX_COUNT, labels, -1)
    return jnp.where(labels[..., None] >= 0, boxes, 0), labels


def counts_of(labels, classes):
    """Count the objects of each label, b n -> b C."""
    return jax.nn.one_hot(labels, classes).sum(1)


def slots(counts, labels):
    """Return the labels of all boxes b R: the given ones, then the rest of the counts by label.

    counts, labels: b C, and those of given boxes b R (-1: none, last).
    """
    given = labels >= 0
    ends = jnp.cumsum(counts - counts_of(labels, counts.shape[1]), -1)[:, None]  # b 1 C
    place = (jnp.arange(labels.shape[1]) - given.sum(1, keepdims=True))[..., None]  # b R 1
    wanted = jnp.where(place[..., 0] < ends[..., -1], (place >= ends).sum(-1), -1)
    return jnp.where(given, labels, wanted)


def mean_per_row(values, there):
    """Average values (b n) over those that are there -> b, NaN where none is."""
    n = there.sum(-1)
    return jnp.where(n > 0, jnp.where(there, values, 0).sum(-1) / jnp.maximum(n, 1), jnp.nan)


# -------------------------------------------------------------------------------------- stages
class Layout(Stage):
    """The parts that both stages share.

    Sizes come from the data set: `object_classes` labels, at most `max_objects` boxes.
    """

    needs = ('boxes', 'object_labels')
    tiny = dict(width=16, latent_dim=4, importance=5)

    def __init__(self, meta, warmup, importance):
        if not meta.object_classes or not meta.max_objects:
            raise ValueError(
                f'LayoutVAE learns from labelled boxes, which {meta.name} does not have. '
                'Choose a data set with objects.'
            )
        self.classes, self.rows = meta.object_classes, meta.max_objects
        self.warmup, self.importance = warmup, importance

    def scene(self, batch):
        """Return (boxes b R 4 as left top w h, labels b R, counts b C) of a batch, in order."""
        boxes, labels = ordered(batch['boxes'], batch['object_labels'], self.rows)
        return boxes, labels, counts_of(labels, self.classes)

    def bound(self, batch, terms, there):
        """Compute -ELBO: mean over items, then over the scenes that have any.

        The weight of KL grows from 0 to 1 within `warmup` steps of training.
        """
        warm = self.warmup and self.training
        weight = jnp.minimum(batch['step'] / self.warmup, 1.0) if warm else 1.0
        nll, kl = (
            jnp.where(there.any(-1), mean_per_row(x, there), 0.0).sum()
            / jnp.maximum(there.any(-1).sum(), 1)
            for x in terms
        )
        return nll + weight * kl, {'nll': nll, 'kl': kl}


class CountVae(Layout):
    phases = (Phase('elbo', trains=('counter',)),)
    ema = ('counter',)

    def __init__(
        self,
        meta,
        *,
        width=128,
        latent_dim=32,
        count_head='poisson',
        prior='learned',
        history=True,
        latent=True,
        warmup=0,
        importance=100,
        rngs,
    ):
        """Build the counter.

        width, latent_dim: of its networks.
        count_head: 'poisson' (of the count - 1), or 'categorical' over 1..20.
        prior: 'learned' from the condition, or 'standard'.
        history: whether a count depends on those before it.
        latent: False for a decoder of the condition alone.
        warmup: steps in which the weight of KL grows from 0 to 1.
        importance: draws for the held-out likelihood.
        """
        super().__init__(meta, warmup, importance)
        self.counter = Counter(
            self.classes, width, latent_dim if latent else 0, count_head, prior, history, rngs=rngs
        )

    def elbo(self, batch, key, out):
        counts = self.scene(batch)[2]
        return self.bound(batch, self.counter.terms(counts, key), counts > 0)

    def measure(self, batch, key):
        return self.counter.measure(self.scene(batch)[2], key, self.importance)


class BoxVae(Layout):
    phases = (Phase('elbo', trains=('placer',)),)
    ema, loads = ('placer',), {'counter': 'count.counter'}
    draws_from, takes, makes = ('labels',), ('layout',), ('boxes',)

    def __init__(
        self,
        meta,
        *,
        width=128,
        latent_dim=32,
        box_head='linear',
        sigma=0.02,
        prior='learned',
        history=True,
        latent=True,
        warmup=0,
        importance=100,
        counts='sample',
        temperature=1.0,
        box_noise=0.0,
        tries=1,
        overlap=0.0,
        counter,
        rngs,
    ):
        """Build the placer.

        width, latent_dim: of its networks.
        box_head: means of boxes as they are ('linear') or through a 'sigmoid'.
        sigma: deviation of each coordinate, fixed.
        prior, history, latent, warmup, importance: as in CountVae.
        counter: the trained Counter.

        Of sampling:

        counts: 'sample' or 'mode' (the likeliest).
        temperature: times the deviation of the priors.
        box_noise: how many sigmas of noise are added to the mean of a box.
        tries, overlap: of so many draws of a box the first is taken that overlaps at most `overlap`
            (a share of its area) with those before it, otherwise the one that overlaps least.
        """
        super().__init__(meta, warmup, importance)
        self.mode = choose('counts', counts, ('sample', 'mode')) == 'mode'
        if tries < 1:
            raise ValueError(f'tries is {tries}: a box needs at least one.')
        self.counter, self.latent_dim = counter, latent_dim if latent else 0
        self.placer = Placer(
            self.classes, width, self.latent_dim, box_head, sigma, prior, history, rngs=rngs
        )
        self.likelihoods = {
            'nll_per_box': dict(sigma=sigma),
            'nll_per_label': dict(head=counter.head),
        }
        self.temperature, self.box_noise, self.tries = temperature, box_noise, tries
        self.overlap = overlap

    def elbo(self, batch, key, out):
        boxes, labels, _ = self.scene(batch)
        return self.bound(batch, self.placer.terms(boxes, labels, key), labels >= 0)

    def measure(self, batch, key):
        boxes, labels, counts = self.scene(batch)
        keys = jax.random.split(key)
        of_boxes = self.placer.measure(boxes, labels, keys[0], self.importance)
        return of_boxes | self.counter.measure(counts, keys[1], self.importance)

    def noise(self, key, n):
        keys = jax.random.split(key, 4)
        return {
            'count_z': normal_rows(keys[0], n, (self.classes, self.counter.vae.latent_dim)),
            'count_u': uniform_rows(keys[1], n, (self.classes,)),
            'box_z': normal_rows(keys[2], n, (self.rows, self.tries, self.latent_dim)),
            'box_eps': normal_rows(keys[3], n, (self.rows, self.tries, 4)),
        }

    def sample(self, batch, noise):
        """Draw layouts of label sets. -> {'boxes': b R 4, 'object_labels': b R, 'counts': b C}

        batch: `label_set` b C, or `object_labels` b n, whose set is taken; for the completion of a
            layout also `given_boxes` b n 4 and `given_labels` b n.
        Each label has at least one object and those given; no more than R objects are made. Raises
        DataError where there are no labels.
        """
        if 'label_set' in batch:
            label_set = batch['label_set'].astype(jnp.float32)
        elif 'object_labels' in batch:
            label_set = counts_of(batch['object_labels'], self.classes)
        else:
            raise DataError(
                'LayoutVAE draws from a set of labels: give label_set, a row of 0 and 1 with a '
                'place for each label.'
            )
        rows = len(label_set)
        given = jnp.zeros((rows, self.rows, 4)), jnp.full((rows, self.rows), -1)
        if 'given_boxes' in batch:
            given = ordered(batch['given_boxes'], batch['given_labels'], self.rows, smallest=0.0)
        there = counts_of(given[1], self.classes)
        label_set = ((label_set + there) > 0).astype(jnp.float32)
        least = jnp.maximum(there, label_set)
        counts = self.counter.sample(
            label_set,
            least,
            self.rows - least.sum(1),
            noise['count_z'],
            noise['count_u'],
            self.temperature,
            self.mode,
        )
        labels = slots(counts, given[1])
        boxes = self.placer.sample(
            labels,
            given[0],
            noise['box_z'],
            self.box_noise * noise['box_eps'],
            self.temperature,
            self.overlap,
        )
        boxes = jnp.where(labels[..., None] >= 0, to_centre(boxes), 0)
        counts = counts_of(labels, self.classes).astype(int)
        return {'boxes': boxes, 'object_labels': labels, 'counts': counts}


# in the order of training
STAGES = {'count': CountVae, 'box': BoxVae}
