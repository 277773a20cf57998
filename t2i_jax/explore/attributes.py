"""Explorations of stages with attributes and latents that can be inferred.

A stage that declares them in `explores` names its method (batch, key, observed, known) -> {'noise':
as `sample` takes it, 'attributes': b A, 'image': b s s 3, 'energy': steps b}, which finds the
latents of the batch's pictures by optimisation; see Attribute2Image.infer.
"""

from typing import NamedTuple

import jax
import numpy as np

from t2i_jax.data import canvas, conditions, parse
from t2i_jax.data.feed import Rows
from t2i_jax.data.tables import Split
from t2i_jax.explore.request import Found
from t2i_jax.runtime.errors import RunError
from t2i_jax.sample import Sampler, to_uint8

# pictures from an attribute's absence to its presence
STEPS = 7
# attributes of a sweep; where there are more, those that vary most
MOST = 24
# steps over which the running mean of the energy is taken
RUNNING = 20


class Subjects(NamedTuple):
    """The pictures that are explored, with a trained stage.

    split: of the data, opened for its tables.
    batch: `image` b s s 3 in [-1, 1], `attributes`, `mask` where there are masks.
    known: (b, A), which attributes are known; the others are inferred as well.
    method: of the stage, which infers.
    """

    sampler: Sampler
    split: Split
    batch: dict
    known: np.ndarray
    method: str
    seed: int

    @property
    def pictures(self):
        """As uint8."""
        return np.asarray(to_uint8(self.batch['image']))

    @property
    def names(self):
        """Names of the attributes."""
        meta = self.sampler.meta
        return meta.attribute_names or [f'attribute {i + 1}' for i in range(meta.attributes)]

    @property
    def captions(self):
        found = conditions.captions_of(self.batch, self.sampler.meta)
        return found or [f'picture {i + 1}' for i in range(len(self.pictures))]

    def infer(self, observed=None):
        """Infer the latents of the pictures; observed: (b, s, s, 1), 0 where they are covered."""
        key = jax.random.key(self.seed)
        return self.sampler.apply(self.method, self.batch, key, observed, self.known)

    def sample(self, noise, attributes):
        """Compute the samples of rows of noise and attributes."""
        attributes = np.asarray(attributes, np.float32)
        return self.sampler.sample({'attributes': attributes}, noise, (len(attributes),))


def subjects_of(request) -> Subjects:
    """Take the given picture, or `num` records of the held-out split, spread over it.

    Raises RunError, DataError.
    """
    sampler, stage, meta = request.sampler, request.sampler.stage, request.sampler.meta
    if request.attributes and not request.images:
        raise RunError('--attributes belong to a picture of yours: give --image, too.')
    if len(request.images) > 1:
        raise RunError('Give --image once.')
    split = stage.split(stage.data['validation_split'], cache='none')
    if request.images:
        start = split.tables['attributes'].mean(0)[None]
        values, known = start, np.zeros(start.shape, bool)
        if request.attributes:
            values, known = parse.read_attributes(request.attributes, meta)
        if len(values) > 1:
            raise RunError('Give --attributes once: they belong to the one picture of --image.')
        image = canvas.read_picture(request.images[0], meta.size)[None]
        attributes = np.where(known, values, start).astype(np.float32)
        batch = {'image': image, 'attributes': attributes}
    else:
        rows = np.linspace(0, len(split) - 1, request.num).astype(np.int64)
        batch = Rows(split, rows, np.zeros((request.num, meta.captions), np.int64)).batch()
        known = np.ones((request.num, meta.attributes), bool)
    batch = {name: batch[name] for name in ('image', 'attributes', 'mask') if name in batch}
    return Subjects(sampler, split, batch, known, request.method, request.seed)


def exclusive_groups(table):
    """Find runs of neighbouring attributes of which every record has exactly one.

    table: records x attributes. Returns lists of columns; other attributes stand alone.
    """
    groups, first = [], 0
    binary = ((table == 0) | (table == 1)).all()
    while first < table.shape[1]:
        totals = table[:, first:].cumsum(1)
        ends = np.flatnonzero((totals == 1).all(0) & (totals <= 1).all(0))
        end = first + (int(ends[0]) if len(ends) and binary else 0) + 1
        groups.append(list(range(first, end)))
        first = end
    return groups


# ------------------------------------------------------------------------------------------- sheets
def attributes_sheet(request) -> Found:
    """Set each group of exclusive attributes to each of its values, the latents unchanged.

    An attribute that stands alone goes from 0 to 1 in equal steps.
    """
    subjects = subjects_of(request)
    found, table = subjects.infer(), subjects.split.tables['attributes']
    groups = exclusive_groups(table)
    groups = sorted(sorted(groups, key=lambda group: -table[:, group].std())[:MOST])
    most = max(max(map(len, groups)), STEPS if min(map(len, groups)) == 1 else 0)
    vectors, labels, owners, used = [], [], [], []
    for i, own in enumerate(found['attributes']):
        for group in groups:
            changed = np.tile(own, (most, 1))
            if len(group) > 1:
                changed[:, group] = 0
                changed[np.arange(len(group)), group] = 1
            else:
                changed[:STEPS, group[0]] = np.linspace(0, 1, STEPS)
            vectors.append(changed)
            labels.append(', '.join(subjects.names[column] for column in group))
            owners.append(i)
            used.append(len(group) if len(group) > 1 else STEPS)
    noise = {name: np.repeat(z[owners], most, 0) for name, z in found['noise'].items()}
    pictures = subjects.sample(noise, np.concatenate(vectors))['image']
    pictures = pictures.reshape(len(owners), most, *pictures.shape[1:]).copy()
    for row, count in zip(pictures, used):
        row[count:] = 255
    return Found(pictures, labels, real=subjects.pictures[owners])


def layers_sheet(request) -> Found:
    """Put the foreground of picture i before the background of picture j: row i, column j.

    The first row shows the pictures. The stage's noise is `z_f` and `z_b`.
    """
    subjects = subjects_of(request)
    found, own = subjects.infer(), subjects.pictures
    n = len(own)
    front, back = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
    noise = {'z_f': found['noise']['z_f'][front], 'z_b': found['noise']['z_b'][back]}
    pictures = subjects.sample(noise, found['attributes'][front])['image']
    pictures = pictures.reshape(n, n, *pictures.shape[1:])
    white = np.full_like(own[:1], 255)
    labels = ['backgrounds of'] + [f'foreground of {i + 1}' for i in range(n)]
    pictures = np.concatenate([own[None], pictures])
    return Found(pictures, labels, real=np.concatenate([white, own]))


def reconstruction_sheet(request) -> Found:
    """Show each picture as its latents make it.

    Of layers also foreground, gate and background.
    """
    subjects = subjects_of(request)
    found = subjects.infer()
    made = subjects.sample(found['noise'], found['attributes'])
    names = [name for name in ('foreground', 'gate', 'background') if name in made]
    parts = [made['image'], *(layer_picture(made[name], name) for name in names)]
    kinds = ', '.join(['the picture it makes', *names])
    labels = [f'{caption}: {kinds}' for caption in subjects.captions]
    numbers = {'mse': float(squared_error(found['image'], subjects).mean()), **energies(found)}
    return Found(np.stack(parts, 1), labels, numbers, real=subjects.pictures)


def completion_sheet(request) -> Found:
    """Complete each picture from its left half, and reconstruct it from the whole.

    The numbers are mean squared errors of both (values in [-1, 1]), over the picture and over its
    right half, and their ratios.
    """
    subjects = subjects_of(request)
    own = subjects.pictures
    s = own.shape[1]
    observed = np.ones((len(own), s, s, 1), np.float32)
    observed[:, :, s // 2 :] = 0
    half, whole = subjects.infer(observed), subjects.infer(np.ones_like(observed))
    covered = np.where(observed > 0, own, 128).astype(np.uint8)
    made = [np.asarray(to_uint8(found['image'])) for found in (half, whole)]
    errors = {
        'completed': squared_error(half['image'], subjects),
        'reconstructed': squared_error(whole['image'], subjects),
    }
    numbers = {f'mse_{name}': float(x.mean()) for name, x in errors.items()}
    for name, x in errors.items():
        numbers[f'mse_{name}_right_half'] = float(x[:, :, s // 2 :].mean())
    for part in ('', '_right_half'):
        ratio = numbers[f'mse_completed{part}'] / numbers[f'mse_reconstructed{part}']
        numbers[f'ratio{part}'] = ratio
    labels = [f'{caption}: covered, completed, from the whole' for caption in subjects.captions]
    return Found(np.stack([covered, *made], 1), labels, numbers | energies(half), real=own)


def layer_picture(values, name):
    """Show a layer as pictures, uint8 (n, s, s, 3).

    A gate, in [0, 1], is grey; others are in [-1, 1].
    """
    values = np.asarray(to_uint8(values * 2 - 1 if name == 'gate' else values))
    return np.broadcast_to(values, (*values.shape[:-1], 3))


def squared_error(image, subjects):
    """Return squared differences of pictures in [-1, 1], (b, s, s, 3)."""
    return (np.clip(image, -1, 1) - np.asarray(subjects.batch['image'])) ** 2


def energies(found):
    """Report the mean energy at start, half-way and end, and whether its running mean rises."""
    curve = found['energy'].mean(1)
    running = np.convolve(curve, np.ones(RUNNING) / RUNNING, 'valid')
    return {
        'energy': [float(curve[i]) for i in (0, len(curve) // 2, -1)],
        'energy_rises': bool((np.diff(running) > 1e-3 * running[:-1]).any()),
    }
