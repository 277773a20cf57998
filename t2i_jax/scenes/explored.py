"""The readers' findings in explored pictures of shape scenes."""

import numpy as np

from t2i_jax.scenes.agreement import ATTRIBUTES, layout, swap_results, swaps
from t2i_jax.scenes.readers import best_reader
from tfds_builders.facts import CLASS, COLOUR, W
from tfds_builders.shape_scenes.scenes import CLASSES, COLOURS, CX, CY, UNIT, H


def read(mode: str, pictures) -> dict:
    """Return what the largest objects of explored pictures are, {} for other data.

    mode: `Meta.scenes`
    pictures: uint8 (n, k, s, s, 3)

    Returns {'decoder': name, 'colour': {name: share of the n whose largest object has it, at each
    of k}, 'class': ...}, with the colours and classes that some step has in more than a tenth.
    """
    reader = best_reader(mode)
    if reader is None:
        return {}
    scenes = reader.decode(pictures.reshape(-1, *pictures.shape[2:]))
    largest = scenes[:, 0].reshape(*pictures.shape[:2], -1)
    found = {'decoder': reader.tag['name']}
    for name, column, words in (('colour', COLOUR, COLOURS), ('class', CLASS, CLASSES)):
        shares = {
            word: (largest[..., column] == value).mean(0).round(3).tolist()
            for value, word in enumerate(words)
        }
        found[name] = {word: share for word, share in shares.items() if max(share) > 0.1}
    return found


def places(mode: str, styles, pictures) -> dict:
    """Return how far the largest objects lie from those of the style pictures.

    {} for other data.

    mode: `Meta.scenes`
    styles: uint8 (k, s, s, 3)
    pictures: uint8 (n, k, s, s, 3), n pictures drawn in each style

    Distances are fractions of the frame: `object_off_its_style`, `object_off_other_styles`, None
    where no object is found.
    """
    reader = best_reader(mode)
    if reader is None:
        return {}
    there, drawn = (_centres(reader, images) for images in (styles, pictures))
    drawn = drawn.reshape(*pictures.shape[:2], 1, 2)
    off = np.linalg.norm(drawn - there, axis=-1)  # n k k: drawn in a style, against a style
    own = np.eye(len(styles), dtype=bool)
    kinds = {'object_off_its_style': off[:, own], 'object_off_other_styles': off[:, ~own]}
    return {'decoder': reader.tag['name']} | {
        name: float(np.nanmean(values)) if np.isfinite(values).any() else None
        for name, values in kinds.items()
    }


# --------------------------------------------------------------------------- one word exchanged
def edits(mode: str, texts, facts, count, seed=0) -> list:
    """Return about `count` captions with one word exchanged, as `agreement.swaps` does.

    [] for other data.
    """
    each = -(-count // len(ATTRIBUTES))
    return swaps(texts, facts, seed, each) if best_reader(mode) else []


def edited(mode: str, before, after, found, facts) -> dict:
    """Return what exchanged words did to pictures, {attribute whose word was exchanged: numbers}.

    before, after: uint8 (n, s, s, 3), drawn from the same noise
    found, facts: what `edits` returned, and the facts that it was given

    `n` captions. `right`: the share whose new word holds afterwards. `all_else_kept`: see
    `swap_results`. Of pictures in which something was found before: `class_kept`, `colour_kept`,
    `size_kept` of the largest object, but for the exchanged one, and `moved`, by how much of the
    frame. `background`: the mean absolute difference of pixels in [0, 1] off the boxes of all
    objects, which are widened a little, before and after.
    """
    reader = best_reader(mode)
    old, new = reader.decode(before), reader.decode(after)
    results = swap_results(old, new, found, facts)
    kinds = np.array([attribute for _, attribute, *_ in found])
    seen, change = old[:, 0, W] >= 0, np.abs(after.astype(np.float32) - before).mean(-1) / 255
    off = _off_objects(old, before.shape[1]) & _off_objects(new, before.shape[1])
    moved = np.linalg.norm((new - old)[:, 0, [CX, CY]], axis=-1) / UNIT
    both = seen & (new[:, 0, W] >= 0)
    table = {'decoder': reader.tag['name']}
    for name in ATTRIBUTES:
        rows = kinds == name
        if not rows.any():
            continue
        table[name] = {
            'n': int(rows.sum()),
            'right': _mean(results[f'swap_{name}'][rows]),
            'all_else_kept': _mean(results['swap_keeps'][rows]),
            **{
                f'{other}_kept': _mean((old[:, 0, column] == new[:, 0, column])[rows & seen])
                for other, (column, _) in ATTRIBUTES.items()
                if other != name
            },
            'moved': _mean(moved[rows & both]),
            'background': _mean(change[rows][off[rows]]),
        }
    return table


def _off_objects(scenes, side):
    """Return which pixels lie off the boxes of all objects, bool (n, side, side)."""
    objects, pixels = scenes[:, :-1], (np.arange(side) + 0.5) / side
    there = objects[..., W] >= 0
    margin = 1 / 32

    def within(centre, width):
        low, high = (
            ((objects[..., centre] + sign * objects[..., width] / 2) / UNIT + sign * margin)
            for sign in (-1, 1)
        )
        return (pixels > low[..., None]) & (pixels < high[..., None]) & there[..., None]

    inside = within(CY, H)[..., :, None] & within(CX, W)[..., None, :]  # n r side side
    return ~inside.any(1)


def _mean(values):
    """Average what is not NaN; None where there is nothing."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return round(float(values.mean()), 4) if len(values) else None


# ------------------------------------------------------------------------------------------ places
def _centres(reader, images):
    """Return the centres of the largest objects, (n, 2), NaN where none is found."""
    boxes, labels = layout(reader.decode(images.reshape(-1, *images.shape[-3:])))
    return np.where(labels[:, :1] >= 0, boxes[:, 0, :2], np.nan)
