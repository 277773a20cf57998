"""What a run that draws from attributes and latents has learnt; --mode=explore, see explore.py. The latents of a picture are found by optimisation."""

from typing import NamedTuple

import jax
import numpy as np

from t2i_jax.data import canvas, conditions, feed
from t2i_jax.data.tables import Split
from t2i_jax.draw.outputs import DRAWN
from t2i_jax.runtime.errors import RunError
from t2i_jax.sample import Sampler, to_uint8

STEPS = 7  # pictures from an attribute's absence to its presence
MOST = 24  # attributes of a sweep, where there are more those that vary most


class Looked(NamedTuple):
    """A trained stage and the pictures to look at: `image` b s s 3 in [-1, 1], `attributes`, `mask` where there are masks."""

    sampler: Sampler
    split: Split
    batch: dict
    seed: int
    known: np.ndarray  # b a: which attributes are; the others are inferred, too

    @property
    def pictures(self):
        return np.asarray(to_uint8(self.batch['image']))

    @property
    def names(self):
        """Of the attributes."""
        return self.sampler.meta.attribute_names or tuple(
            f'attribute {i + 1}' for i in range(self.sampler.meta.attributes)
        )

    @property
    def captions(self):
        return conditions.captions_of(self.batch, self.sampler.meta) or [
            f'picture {i + 1}' for i in range(len(self.pictures))
        ]

    def infer(self, observed=None):
        """The latents of the pictures, by optimisation: see Attribute2Image.infer."""
        return self.sampler.apply(
            'infer', self.batch, jax.random.key(self.seed), observed, self.known
        )

    def draw(self, noise, attributes):
        """Rows of noise and attributes -> what `sample` makes of them, its pictures as uint8."""
        return self.sampler.sample(
            {'attributes': np.asarray(attributes, np.float32)}, noise, (len(attributes),)
        )


def look(asked) -> Looked:
    """A run and `num` records of its held-out split, spread over it, or the picture of a file. asked: explore.Ask."""
    num, attributes = asked.num, asked.attributes
    sampler = Sampler(asked.run.last(DRAWN))
    module, stage = sampler.module, sampler.stage
    if 'reconstruction' not in module.explores:
        raise RunError(
            f'--mode=explore draws systems with attributes and latents that can be inferred; {type(module).__name__} is none.'
        )
    if attributes and not asked.images:
        raise RunError('--attributes belong to a picture of yours: give --image, too.')
    if len(asked.images) > 1:
        raise RunError('Give --image once.')
    split = stage.split(stage.data['validation_split'], cache='none')
    if asked.images:
        start = split.tables['attributes'].mean(0)
        told, known = (
            conditions.read_attributes(attributes, sampler.meta)
            if attributes
            else (start[None], np.zeros((1, len(start)), bool))
        )
        if len(told) > 1:
            raise RunError('Give --attributes once: they belong to the one picture of --image.')
        batch = {
            'image': canvas.read_picture(asked.images[0], sampler.meta.size)[None],
            'attributes': np.where(known, told, start).astype(np.float32),
        }
    else:
        rows = np.linspace(0, len(split) - 1, num).astype(np.int64)
        batch = feed.Rows(split, rows, np.zeros((num, sampler.meta.captions), np.int64)).batch(
            0, num
        )
        known = np.ones((num, sampler.meta.attributes), bool)
    batch = {name: batch[name] for name in ('image', 'attributes', 'mask') if name in batch}
    return Looked(sampler, split, batch, asked.seed, known)


def exclusive_groups(table):
    """Runs of neighbouring attributes of which every record (row) has exactly one, as lists of columns; the others stand alone."""
    groups, first = [], 0
    while first < table.shape[1]:
        totals = table[:, first:].cumsum(1)
        ends = np.flatnonzero((totals == 1).all(0) & (totals <= 1).all(0))
        end = first + (int(ends[0]) if len(ends) and ((table == 0) | (table == 1)).all() else 0) + 1
        groups.append(list(range(first, end)))
        first = end
    return groups


# ------------------------------------------------------------------------------------------------------------------- what is drawn
def attributes(looked):
    """Each group of exclusive attributes is set to each of its values, an attribute alone goes from 0 to 1 in equal steps."""
    found, table = looked.infer(), looked.split.tables['attributes']
    groups = exclusive_groups(table)
    groups = sorted(sorted(groups, key=lambda group: -table[:, group].std())[:MOST])
    most = max(max(map(len, groups)), STEPS if min(map(len, groups)) == 1 else 0)
    rows, labels, strips = [], [], []
    for i, own in enumerate(found['attributes']):
        for group in groups:
            changed = np.tile(own, (most, 1))
            if len(group) > 1:
                changed[:, group] = 0
                changed[np.arange(len(group)), group] = 1
            else:
                changed[:STEPS, group[0]] = np.linspace(0, 1, STEPS)
            strips.append((i, len(group) if len(group) > 1 else STEPS))
            rows.append(changed)
            labels.append(', '.join(looked.names[column] for column in group))
    noise = {
        name: np.repeat(z[[i for i, _ in strips]], most, 0) for name, z in found['noise'].items()
    }
    pictures = looked.draw(noise, np.concatenate(rows))['image']
    pictures = pictures.reshape(len(strips), most, *pictures.shape[1:]).copy()
    for row, (_, used) in zip(pictures, strips):
        row[used:] = 255
    return dict(
        pictures=pictures, labels=labels, real=looked.pictures[[i for i, _ in strips]], numbers={}
    )


def layers(looked):
    """Row i, column j: the foreground of picture i before the background of picture j; the first row shows the pictures."""
    if 'z_b' not in looked.sampler.module.latents:
        raise RunError(
            '--what=layers needs the two layers of disCVAE (stages.vae.model.layered=True); this run has one latent.'
        )
    found, n = looked.infer(), len(looked.pictures)
    front, back = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
    noise = {'z_f': found['noise']['z_f'][front], 'z_b': found['noise']['z_b'][back]}
    drawn = looked.draw(noise, found['attributes'][front])
    pictures = drawn['image'].reshape(n, n, *drawn['image'].shape[1:])
    pictures, real = (
        np.concatenate([looked.pictures[None], pictures]),
        np.concatenate([looked.pictures[:1] * 0 + 255, looked.pictures]),
    )
    return dict(
        pictures=pictures,
        labels=['backgrounds of'] + [f'foreground of {i + 1}' for i in range(n)],
        real=real,
        numbers={},
    )


def reconstruction(looked):
    """Each picture as its latents draw it; of the layers also foreground, gate and background."""
    found = looked.infer()
    drawn = looked.draw(found['noise'], found['attributes'])
    parts = [drawn['image']] + [
        shown(drawn[name], name) for name in ('foreground', 'gate', 'background') if name in drawn
    ]
    labels = ['the picture it makes'] + [
        name for name in ('foreground', 'gate', 'background') if name in drawn
    ]
    numbers = {'mse': float(error(found['image'], looked).mean()), **energies(found)}
    labels = [f'{caption}: {", ".join(labels)}' for caption in looked.captions]
    return dict(pictures=np.stack(parts, 1), labels=labels, real=looked.pictures, numbers=numbers)


def completion(looked):
    """Each picture with its right half covered, as completed from the left one, and as reconstructed from the whole. The numbers are mean squared
    errors of both (values in [-1, 1]), over the picture and over its right half, and their ratios."""
    s = looked.pictures.shape[1]
    observed = np.ones((len(looked.pictures), s, s, 1), np.float32)
    observed[:, :, s // 2 :] = 0
    half, whole = looked.infer(observed), looked.infer(np.ones_like(observed))
    covered = np.where(observed > 0, looked.pictures, 128).astype(np.uint8)
    pictures = np.stack(
        [covered, *(np.asarray(to_uint8(found['image'])) for found in (half, whole))], 1
    )
    mse = {
        'completed': error(half['image'], looked),
        'reconstructed': error(whole['image'], looked),
    }
    numbers = {f'mse_{name}': float(value.mean()) for name, value in mse.items()}
    numbers |= {
        f'mse_{name}_right_half': float(value[:, :, s // 2 :].mean()) for name, value in mse.items()
    }
    numbers |= {
        f'ratio{part}': numbers[f'mse_completed{part}'] / numbers[f'mse_reconstructed{part}']
        for part in ('', '_right_half')
    }
    labels = [f'{caption}: covered, completed, from the whole' for caption in looked.captions]
    return dict(
        pictures=pictures, labels=labels, real=looked.pictures, numbers=numbers | energies(half)
    )


def shown(values, name):
    """A layer as a picture, n s s 3 uint8: a gate in [0, 1] as grey, others in [-1, 1]."""
    values = np.asarray(to_uint8(values * 2 - 1 if name == 'gate' else values))
    return np.broadcast_to(values, (*values.shape[:-1], 3))


def error(image, looked):
    """Squared differences of pictures in [-1, 1], b s s 3."""
    return (np.clip(image, -1, 1) - np.asarray(looked.batch['image'])) ** 2


def energies(found):
    """How the optimisation went: the mean energy at its start, half-way and end, and whether its running mean over 20 steps ever rises."""
    curve = found['energy'].mean(1)
    running = np.convolve(curve, np.ones(20) / 20, 'valid')
    return {
        'energy': [float(curve[i]) for i in (0, len(curve) // 2, -1)],
        'energy_rises': bool((np.diff(running) > 1e-3 * running[:-1]).any()),
    }


def drawn(function):
    """A function of what is looked at -> one of what is asked."""

    def draw(asked):
        looked = look(asked)
        return looked.sampler, function(looked)

    return draw


WHAT = {
    function.__name__: drawn(function)
    for function in (attributes, layers, reconstruction, completion)
}
