"""Layouts as sequences of labels and boxes: their likelihood, and how they are drawn.

Hong et al., CVPR 2018, and Obj-GAN (Li et al., CVPR 2019) share this and differ in the networks.

    p(l, b | text) = prod_t p(l_t | h_t) p(xy_t | h_t, l_t) p(wh_t | h_t, l_t, xy_t)
    h_t: a state that has seen the text and objects 1 .. t - 1;  l = C is the end
"""

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.layers.norm import Running
from t2i_jax.layers.objects import Objects, inside
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import normal_rows, uniform_rows

# what two of the four numbers of a box are: its sides, or its width and height / width
SIDES = 'wh', 'ratio'
# batches until a running mean forgets
MEMORY = 1000


class Scale(nnx.Module):
    """Boxes in units of the deviations of the training data, whose means are 0.

    sides: which two numbers stand for the size.
    """

    def __init__(self, sides='wh'):
        self.sides = choose('sides', sides, SIDES)
        self.mean, self.square = Running(jnp.full(4, 0.5)), Running(jnp.full(4, 0.5))
        self.seen = Running(jnp.zeros(()))

    def numbers(self, boxes):
        """Return the four numbers that stand for boxes (..., 4); they are all 1 where none is."""
        if self.sides == 'wh':
            return boxes
        ratio = boxes[..., 3:] / jnp.where(boxes[..., 2:3] > 0, boxes[..., 2:3], 1)
        return jnp.concatenate([boxes[..., :3], ratio], -1)

    @property
    def deviation(self):
        return jnp.sqrt(jnp.maximum(self.square[...] - self.mean[...] ** 2, 1e-4))

    def observe(self, boxes, there):
        """Add the boxes of a batch to the means: those of all batches so far weigh the same."""
        numbers, weights = self.numbers(boxes), there[..., None].astype(jnp.float32)
        n, share = weights.sum(), 1 / jnp.minimum(self.seen[...] + 1, MEMORY)
        for average, now in ((self.mean, numbers), (self.square, jnp.square(numbers))):
            now = (now * weights).sum((0, 1)) / jnp.maximum(n, 1)
            moved = average[...] + share * (now - average[...])
            average[...] = jnp.where(n > 0, moved, average[...])
        self.seen[...] = self.seen[...] + (n > 0)

    def coded(self, boxes):
        return (self.numbers(boxes) - self.mean[...]) / self.deviation

    def decoded(self, code):
        """Return the boxes of codes (..., 4), not yet cut at the frame."""
        numbers = code * self.deviation + self.mean[...]
        if self.sides == 'wh':
            return numbers
        return jnp.concatenate([numbers[..., :3], numbers[..., 3:] * numbers[..., 2:3]], -1)

    def log_slope(self, boxes):
        """Return log |d code / d box|, by which densities of boxes and of codes differ: (...)."""
        slope = jnp.broadcast_to(-jnp.log(self.deviation).sum(), boxes.shape[:-1])
        if self.sides == 'ratio':
            slope = slope - jnp.log(jnp.maximum(boxes[..., 2], 1e-6))
        return slope


class LabelCounts(nnx.Module):
    """How often labels are met in training: sums over layouts, and over those with the label."""

    def __init__(self, classes):
        zeros = jnp.zeros(classes)
        self.layouts = Running(jnp.zeros(()))
        self.scenes, self.objects, self.squares = (Running(zeros) for _ in range(3))

    def observe(self, objects):
        n = objects.named(self.scenes.shape[0]).sum(1)  # b classes
        self.layouts[...] = self.layouts[...] + len(n)
        for total, now in ((self.scenes, n > 0), (self.objects, n), (self.squares, n**2)):
            total[...] = total[...] + now.sum(0)

    def weights(self, power):
        """Return count^-power of labels and the end, whose mean over all labels met is 1."""
        counts = jnp.maximum(jnp.append(self.objects[...], self.layouts[...]), 1)
        weights = counts**-power
        return weights * counts.sum() / (counts * weights).sum()

    def most(self, eps):
        """Draw how many objects of a class a layout has at most: eps b classes -> b classes.

        max(2, floor N(mu, sigma)), mu and sigma of training scenes with the class.
        """
        scenes = jnp.maximum(self.scenes[...], 1)
        mean = self.objects[...] / scenes
        deviation = jnp.sqrt(jnp.maximum(self.squares[...] / scenes - mean**2, 0))
        return jnp.maximum(jnp.floor(mean + deviation * eps), 2)


class BoxDecoder(nnx.Module):
    """A recurrent network that says objects one after the other, its text given.

    A subclass sets `classes`, builds `scale` and the heads `labels` (h -> logits of the classes and
    the end), `places` and `sizes` (MixtureHead, of the first and the last two numbers of a code:
    h, label -> and h, label, xy ->), and defines

    start(text): the state before the first object; its first array is h, b d.
    step(state, label, code, text): the state after an object, label one-hot b C+1 and code b 4.
    """

    def wh(self, h, label, xy):
        """Return the Mixture of a size; leading axes are free."""
        return self.sizes(h, label, xy)

    def log_densities(self, text, objects: Objects, train=False):
        """Compute the likelihood of layouts -> (labels b r+1, boxes b r).

        They are log p of each label and of the end after the last one, 0 behind it; and log p of
        each box in [0, 1] coordinates, 0 where none is. train: whether the scale learns from them.
        """
        boxes, there, c = objects.boxes, objects.there, self.classes
        if train:
            self.scale.observe(boxes, there)
        codes, rows = self.scale.coded(boxes) * there[..., None], len(boxes)
        labels = jnp.pad(objects.labels, ((0, 0), (0, 1)), constant_values=-1)
        ends = jnp.pad(there, ((0, 0), (1, 0)), constant_values=True) & (labels < 0)
        labels = jnp.where(ends, c, labels)  # b r+1
        named = jax.nn.one_hot(labels, c + 1)

        def one(state, previous):
            state = self.step(state, *previous, text)
            return state, state[0]

        before = named[:, :-1].swapaxes(0, 1), codes.swapaxes(0, 1)
        before = [jnp.concatenate([jnp.zeros((1, rows, x.shape[-1])), x]) for x in before]
        h = jax.lax.scan(one, self.start(text), tuple(before))[1].swapaxes(0, 1)  # b r+1 d
        logits = jax.nn.log_softmax(self.labels(h).astype(jnp.float32))
        of_labels = (named * logits).sum(-1)
        h, named, xy, wh = h[:, :-1], named[:, :-1], codes[..., :2], codes[..., 2:]
        density = self.places(h, named).log_density(xy) + self.wh(h, named, xy).log_density(wh)
        return of_labels, jnp.where(there, density + self.scale.log_slope(boxes), 0)

    def noise(self, key, n, rows):
        """Return the random inputs of n layouts of at most `rows` objects."""
        keys = jax.random.split(key, 3)
        return {
            'label_u': uniform_rows(keys[0], n, (rows,)),
            'box_u': uniform_rows(keys[1], n, (rows, 2)),
            'box_eps': normal_rows(keys[2], n, (rows, 4)),
        }

    def draw(self, text, noise, temperature=1.0, label_temperature=1.0) -> Objects:
        """Draw layouts; the first object is not the end.

        temperature: of boxes, see Mixture.draw. label_temperature: 0 takes the likeliest labels.
        """
        c, rows = self.classes, len(noise['label_u'])
        end = jnp.arange(c + 1) == c

        def one(carry, inputs):
            state, label, code, going = carry
            number, u, box_u, eps = inputs
            state = self.step(state, label, code, text)
            h, logits = state[0], self.labels(state[0]).astype(jnp.float32)
            logits = jnp.where(end & (number == 0), -jnp.inf, logits)
            chosen = drawn_label(logits, u, label_temperature)
            going &= chosen < c
            label = jax.nn.one_hot(chosen, c + 1)
            xy = self.places(h, label).draw(box_u[:, 0], eps[:, :2], temperature)
            wh = self.wh(h, label, xy).draw(box_u[:, 1], eps[:, 2:], temperature)
            box = inside(self.scale.decoded(jnp.concatenate([xy, wh], -1)))
            # the next object knows the box as it lies in the frame
            code = self.scale.coded(box)
            found = jnp.where(going[:, None], box, 0), jnp.where(going, chosen, -1)
            return (state, label, code, going), found

        nothing = jnp.zeros((rows, c + 1)), jnp.zeros((rows, 4))
        start = self.start(text), *nothing, jnp.ones(rows, bool)
        inputs = (noise[name].swapaxes(0, 1) for name in ('label_u', 'box_u', 'box_eps'))
        inputs = jnp.arange(noise['label_u'].shape[1]), *inputs
        boxes, labels = (x.swapaxes(0, 1) for x in jax.lax.scan(one, start, inputs)[1])
        return Objects(boxes, labels.astype(jnp.int32))


def drawn_label(logits, u, temperature):
    """Draw a label from logits (b, C) with uniform noise b; 0 takes the likeliest."""
    if not temperature:
        return logits.argmax(-1)
    cdf = jnp.cumsum(jax.nn.softmax(logits / temperature), -1)
    return (cdf <= u[:, None] * cdf[:, -1:]).sum(-1)
