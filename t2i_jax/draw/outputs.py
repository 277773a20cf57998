"""What a stage makes: how each kind is shown as a picture and written to a file."""

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from t2i_jax.draw import attention, boxes, sheets


class Output(NamedTuple):
    """One kind of result; the names are those of `Stage.makes`.

    noun: what a person calls several of them, '' for what goes with another kind.
    pictures: (out, meta, side) -> uint8 (..., s, s, 3); None: not shown as pictures.
    write: (out, number, path, sample) writes the number-th condition's results next to its
      picture at `path`; None: the picture says it all.
    """

    noun: str = ''
    pictures: Callable | None = None
    write: Callable | None = None


class Sample(NamedTuple):
    """What writers know of a sample: the data, and the words that the model knows of each text."""

    meta: NamedTuple
    words: list[list[str]]


def drawn_boxes(out, meta, side):
    return boxes.layout_pictures(out['boxes'], out['object_labels'], meta.object_names, side)


def write_boxes(out, number, path, sample):
    """JSON: for each sample a list of {label, cx, cy, w, h}."""
    layouts = zip(out['boxes'][number], out['object_labels'][number])
    objects = [boxes.objects_of(*layout, sample.meta.object_names) for layout in layouts]
    path.with_suffix('.json').write_text(json.dumps(objects, indent=1) + '\n')


def drawn_masks(out, meta, side):
    """Masks (..., h, w) in [0, 1] as grey pictures."""
    grey = np.round(np.clip(np.asarray(out['masks'], np.float32), 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


def write_tokens(out, number, path, sample):
    """A text file with one line a sample."""
    path.with_suffix('.txt').write_text('\n'.join(out['tokens'][number]) + '\n')


def write_attention(out, number, path, sample):
    """The words that the pixels of the first samples looked at."""
    if out.get('attention') and sample.words:
        path = path.with_name(f'{path.stem}_attention.png')
        attention.sample_sheet(out, number, sample.words[number], path)


# in the order in which a stage's main result is looked for
OUTPUTS = {
    'image': Output('pictures', lambda out, meta, side: out['image']),
    'boxes': Output('layouts', drawn_boxes, write_boxes),
    'masks': Output('masks', drawn_masks),
    'tokens': Output('sentences', write=write_tokens),
    'images': Output(),
    'attention': Output(write=write_attention),
    # vectors of pictures and sentences that are compared; the stage has `codes`, not `sample`
    'codes': Output(),
}
DRAWN = tuple(name for name, one in OUTPUTS.items() if one.noun)


def main_output(makes) -> str | None:
    """The kind that a stage's samples are known by; None for a stage that makes no samples."""
    return next((name for name in DRAWN if name in makes), None)


def pictures_of(out, makes, meta, side=128):
    """Show samples as pictures, uint8 (..., s, s, 3); None where they are not pictures."""
    name = main_output(makes)
    draw = OUTPUTS[name].pictures if name else None
    return draw(out, meta, side) if draw else None


def real_pictures(batch, makes, meta, side=128):
    """Show the data's own pictures or layouts of a batch; None where it has none."""
    keys = {'image': ('image',), 'boxes': ('boxes', 'object_labels')}.get(main_output(makes), ())
    if not keys or not set(keys) <= set(batch):
        return None
    return pictures_of({key: np.asarray(batch[key]) for key in keys}, makes, meta, side)


def write_sheet(path, out, number, makes, sample, pictures):
    """Write the files of one condition: a PNG of its samples in a row, and what goes with it."""
    if pictures is not None:
        sheets.save_png(path, np.concatenate(list(pictures[number]), 1))
    for name in makes:
        if OUTPUTS[name].write:
            OUTPUTS[name].write(out, number, path, sample)
