"""The outputs of stages: how each kind is shown as a picture and written to a file."""

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from t2i_jax.draw import attention, boxes, sheets


class Output(NamedTuple):
    """One kind of result; the names are those of `Stage.makes`.

    noun: a word for several of them, '' for what goes with another kind.
    keys: the batch keys under which the data have their own, () where they have none.
    pictures: (samples, meta, side) -> uint8 (..., s, s, 3); None: not shown as pictures.
    write: (samples, number, path, known) writes the number-th condition's samples next to the
      picture at `path`; None: the picture is enough.
    """

    noun: str = ''
    keys: tuple[str, ...] = ()
    pictures: Callable | None = None
    write: Callable | None = None


class Known(NamedTuple):
    """Facts for writers besides the samples: the data, the run's words, the sentence."""

    meta: NamedTuple
    vocabulary: object
    sentence: str


def images_as_pictures(samples, meta, side):
    return samples['image']


def boxes_as_pictures(samples, meta, side):
    layouts = samples['boxes'], samples['object_labels'], meta.object_names
    return boxes.layout_pictures(*layouts, side, samples.get('masks'))


def write_boxes(samples, number, path, known):
    """Write JSON: for each sample a list of {label, cx, cy, w, h}, with masks where it has them.

    Where the samples are pictures, their layouts stand in `..._layout.png`.
    """
    names = known.meta.object_names
    parts = [samples['boxes'][number], samples['object_labels'][number]]
    masks = samples['masks'][number] if 'masks' in samples else [None] * len(parts[0])
    objects = [boxes.objects_of(*layout, names, mask) for *layout, mask in zip(*parts, masks)]
    path.with_suffix('.json').write_text(json.dumps(objects, indent=1) + '\n')
    if 'image' in samples:
        of_one = {name: x[number] for name, x in samples.items() if not name.endswith('attention')}
        pictures = boxes_as_pictures(of_one, known.meta, max(boxes.SIDE, known.meta.size))
        strip = np.concatenate(list(pictures), 1)
        sheets.save_png(path.with_name(f'{path.stem}_layout.png'), strip)


def masks_as_pictures(samples, meta, side):
    """Show masks (..., h, w) in [0, 1] as grey pictures."""
    grey = np.clip(np.asarray(samples['masks'], np.float32), 0, 1)
    return np.repeat(np.round(grey * 255).astype(np.uint8)[..., None], 3, -1)


def texts_of(tokens, vocabulary):
    """Write ids of words (n, num, length) as n lists of num texts."""
    return [[' '.join(vocabulary.decode(ids)) for ids in row] for row in tokens]


def write_tokens(samples, number, path, known):
    """Write a text file with a line for each sample, from ids of words (n, num, length)."""
    lines = texts_of(samples['tokens'][number : number + 1], known.vocabulary)[0]
    path.with_suffix('.txt').write_text('\n'.join(lines) + '\n')


def write_attention(samples, number, path, known):
    """Write a picture of the words that the pixels of the first samples looked at."""
    if attention.looks_of(samples) and known.sentence:
        ids, _ = known.vocabulary.encode(known.sentence, known.meta.length)
        path = path.with_name(f'{path.stem}_attention.png')
        attention.sample_sheet(samples, number, known.vocabulary.decode(ids), path)


# in the order in which a stage's main result is looked for
OUTPUTS = {
    'image': Output('pictures', ('image',), images_as_pictures),
    'boxes': Output('layouts', ('boxes', 'object_labels'), boxes_as_pictures, write_boxes),
    'masks': Output('masks', pictures=masks_as_pictures),
    'tokens': Output('sentences', write=write_tokens),
    'images': Output(),
    'attention': Output(write=write_attention),
    # of the objects of a layout, at each pixel of their masks; drawn with the other
    'object_attention': Output(),
    # vectors of pictures and sentences that are compared; the stage has `codes`, not `sample`
    'codes': Output(),
}
DRAWN = tuple(name for name, one in OUTPUTS.items() if one.noun)


def main_output(makes) -> str | None:
    """The kind that a stage's samples are known by; None for a stage that makes no samples."""
    return next((name for name in DRAWN if name in makes), None)


def pictures_of(samples, makes, meta, side=128):
    """Show samples as pictures, uint8 (..., s, s, 3); None where they are not pictures.

    side: in pixels, of those that have no size of their own.
    """
    name = main_output(makes)
    show = OUTPUTS[name].pictures if name else None
    return show(samples, meta, side) if show else None


def real_pictures(batch, makes, meta, side=128):
    """Show the data's own pictures or layouts of a batch; None where it has none."""
    name = main_output(makes)
    keys = OUTPUTS[name].keys if name else ()
    if not keys or not set(keys) <= set(batch):
        return None
    own = {key: np.asarray(batch[key]) for key in keys}
    if 'masks' in makes and 'object_masks' in batch:
        own['masks'] = np.asarray(batch['object_masks'])
    return pictures_of(own, makes, meta, side)


def write_files(path, samples, number, makes, known, pictures):
    """Write the files of one condition, a PNG of its samples in a row and what goes with it.

    path: of the PNG; other files have its name with another ending.
    samples: of all conditions, as Sampler returns them.
    number: of the condition.
    makes: the stage's declaration.
    known: a Known.
    pictures: the samples shown as pictures, or None.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if pictures is not None:
        sheets.save_png(path, np.concatenate(list(pictures[number]), 1))
    for name in makes:
        if OUTPUTS[name].write:
            OUTPUTS[name].write(samples, number, path, known)
