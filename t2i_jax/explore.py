"""What a trained run has learnt, drawn: one condition moves, everything else stays.

    python -m t2i_jax.main --workdir=runs/attribute2image --mode=explore --what=attributes
    python -m t2i_jax.main --workdir=runs/attribute2image --mode=explore --what=attributes --image=FILE --attributes="red, circle"

| what | draws |
|---|---|
| attributes | pictures whose attributes are exchanged one after the other, the latents kept |
| layers | the foreground of each picture before the background of each |
| reconstruction | pictures beside what the stage makes of them, its latents found by optimisation |
| completion | as that with the right half covered |

Each writes <workdir>/explore/<what>.png and its numbers, <what>.json. The pictures are records of the held-out split, or a file of the user's.
"""
import json
import os
import pathlib
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from t2i_jax import conditions, log, sources
from t2i_jax import stage as core
from t2i_jax.errors import DataError, RunError
from t2i_jax.sample import Sampler, to_uint8
from t2i_jax.tables import Split

STEPS = 7                  # pictures from an attribute's absence to its presence
MOST = 24                  # attributes of a sweep, where there are more those that vary most


class Looked(NamedTuple):
    """A trained stage and the pictures to look at: `image` b s s 3 in [-1, 1], `attributes`, `mask` where there are masks."""
    sampler: Sampler
    split: Split
    batch: dict
    seed: int
    known: np.ndarray  # b a: which attributes are; the others are inferred, too
    run: Any           # the stage's `infer`, compiled

    @property
    def pictures(self):
        return np.asarray(to_uint8(self.batch['image']))

    @property
    def names(self):
        """Of the attributes."""
        return self.sampler.meta.attribute_names or tuple(f'attribute {i + 1}' for i in range(self.sampler.meta.attributes))

    @property
    def captions(self):
        return conditions.captions_of(self.batch, self.sampler.meta) or [f'picture {i + 1}' for i in range(len(self.pictures))]

    def infer(self, observed=None):
        """The latents of the pictures, by optimisation: see Attribute2Image.infer."""
        found = self.run(self.sampler.params, self.sampler.stats, self.batch, jax.random.key(self.seed), observed, self.known)
        return jax.tree.map(np.asarray, found)

    def draw(self, noise, attributes):
        """Rows of noise and attributes -> what `sample` makes of them, its pictures as uint8."""
        return self.sampler.draw({'attributes': np.asarray(attributes, np.float32)}, noise, (len(attributes),))


def look(config, workdir, num, seed, image, attributes):
    """A run and `num` records of its held-out split, spread over it, or the picture of a file."""
    sampler = Sampler.load(workdir)
    module, block = sampler.module, config.stages[sampler.stage]
    if 'attributes' not in module.needs or not hasattr(module, 'infer'):
        raise RunError(f'--mode=explore draws systems with attributes and latents that can be inferred; {type(module).__name__} is none.')
    if attributes and not image:
        raise RunError('--attributes belong to a picture of yours: give --image, too.')
    split = Split(config.data, config.data.validation_split, module.needs, sampler.vocabulary, {**block.data, 'cache': 'none'}, module.advice)
    if image:
        start = split.tables['attributes'].mean(0)
        told, known = conditions.read_attributes(attributes, sampler.meta) if attributes else (start[None], np.zeros((1, len(start)), bool))
        if len(told) > 1:
            raise RunError('Give --attributes once: they belong to the one picture of --image.')
        batch = {'image': read_picture(image, sampler.meta.size)[None], 'attributes': np.where(known, told, start).astype(np.float32)}
    else:
        rows = np.linspace(0, len(split) - 1, num).astype(np.int64)
        batch = sources.Asked(split, rows, np.zeros((num, sampler.meta.captions), np.int64)).batch(0, num)
        known = np.ones((num, sampler.meta.attributes), bool)
    batch = {name: batch[name] for name in ('image', 'attributes', 'mask') if name in batch}

    @jax.jit
    def infer(params, stats, *args):
        return core.call(sampler.prog.graph, params, stats, 'infer', *args, training=False)[0]
    return Looked(sampler, split, batch, seed, known, infer)


def read_picture(path, size):
    """A picture file -> s s 3 in [-1, 1]. Raises DataError."""
    image = cv2.imread(os.path.expanduser(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DataError(f'{path} is missing, or no picture. Give a PNG or JPEG file.')
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 127.5 - 1


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
    noise = {name: np.repeat(z[[i for i, _ in strips]], most, 0) for name, z in found['noise'].items()}
    pictures = looked.draw(noise, np.concatenate(rows))['image']
    pictures = pictures.reshape(len(strips), most, *pictures.shape[1:]).copy()
    for row, (_, used) in zip(pictures, strips):
        row[used:] = 255
    return pictures, labels, looked.pictures[[i for i, _ in strips]], {}


def layers(looked):
    """Row i, column j: the foreground of picture i before the background of picture j; the first row shows the pictures."""
    if 'z_b' not in looked.sampler.module.latents:
        raise RunError('--what=layers needs the two layers of disCVAE (stages.vae.model.layered=True); this run has one latent.')
    found, n = looked.infer(), len(looked.pictures)
    front, back = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
    noise = {'z_f': found['noise']['z_f'][front], 'z_b': found['noise']['z_b'][back]}
    drawn = looked.draw(noise, found['attributes'][front])
    pictures = drawn['image'].reshape(n, n, *drawn['image'].shape[1:])
    pictures, real = np.concatenate([looked.pictures[None], pictures]), np.concatenate([looked.pictures[:1] * 0 + 255, looked.pictures])
    return pictures, ['backgrounds of'] + [f'foreground of {i + 1}' for i in range(n)], real, {}


def reconstruction(looked):
    """Each picture as its latents draw it; of the layers also foreground, gate and background."""
    found = looked.infer()
    drawn = looked.draw(found['noise'], found['attributes'])
    parts = [drawn['image']] + [shown(drawn[name], name) for name in ('foreground', 'gate', 'background') if name in drawn]
    labels = ['the picture it makes'] + [name for name in ('foreground', 'gate', 'background') if name in drawn]
    numbers = {'mse': float(error(found['image'], looked).mean()), **energies(found)}
    return np.stack(parts, 1), [f'{caption}: {", ".join(labels)}' for caption in looked.captions], looked.pictures, numbers


def completion(looked):
    """Each picture with its right half covered, as completed from the left one, and as reconstructed from the whole. The numbers are mean squared
    errors of both (values in [-1, 1]), over the picture and over its right half, and their ratios."""
    s = looked.pictures.shape[1]
    observed = np.ones((len(looked.pictures), s, s, 1), np.float32)
    observed[:, :, s // 2:] = 0
    half, whole = looked.infer(observed), looked.infer(np.ones_like(observed))
    covered = np.where(observed > 0, looked.pictures, 128).astype(np.uint8)
    pictures = np.stack([covered, *(np.asarray(to_uint8(found['image'])) for found in (half, whole))], 1)
    mse = {'completed': error(half['image'], looked), 'reconstructed': error(whole['image'], looked)}
    numbers = {f'mse_{name}': float(value.mean()) for name, value in mse.items()}
    numbers |= {f'mse_{name}_right_half': float(value[:, :, s // 2:].mean()) for name, value in mse.items()}
    numbers |= {f'ratio{part}': numbers[f'mse_completed{part}'] / numbers[f'mse_reconstructed{part}'] for part in ('', '_right_half')}
    return pictures, [f'{caption}: covered, completed, from the whole' for caption in looked.captions], looked.pictures, numbers | energies(half)


WHAT = {'attributes': attributes, 'layers': layers, 'reconstruction': reconstruction, 'completion': completion}


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
    return {'energy': [float(curve[i]) for i in (0, len(curve) // 2, -1)], 'energy_rises': bool((np.diff(running) > 1e-3 * running[:-1]).any())}


def explore(config, workdir, what, num=8, seed=0, image=None, attributes=None, out=None):
    """Draws `what` and writes <out>/<what>.png and .json -> the numbers.

    num: held-out pictures; image: a file instead of them; attributes: what is known of that, as conditions.read_attributes takes it; where
    that is not all, they are inferred along with the latents. Raises RunError, DataError.
    """
    if what not in WHAT:
        raise RunError((f'There is no {what!r} to explore. ' if what else 'Say what to explore. ') + f'--what is one of: {", ".join(WHAT)}.')
    if num < 1:
        raise RunError(f'num={num}: ask for at least one picture.')
    looked = look(config, workdir, num, seed, image, attributes)
    pictures, labels, real, numbers = WHAT[what](looked)
    sampler, folder = looked.sampler, pathlib.Path(out or pathlib.Path(workdir) / 'explore')
    log.sheet(pictures, labels, folder / f'{what}.png', real=real, title=f'{what}: {sampler.stage}, step {sampler.step:,}')
    numbers = {'what': what, 'step': sampler.step, 'pictures': len(looked.pictures), 'seed': seed, **numbers}
    (folder / f'{what}.json').write_text(json.dumps(numbers, indent=1) + '\n')
    print(f'{folder / what}.png' + (f'; {json.dumps(numbers)}' if len(numbers) > 4 else ''))
    return numbers
