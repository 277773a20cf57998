"""The readers' findings in explored pictures of shape scenes."""

import numpy as np

from t2i_jax.scenes.agreement import layout
from t2i_jax.scenes.readers import best_reader
from tfds_builders.facts import CLASS, COLOUR
from tfds_builders.shape_scenes.scenes import CLASSES, COLOURS


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


def _centres(reader, images):
    """Return the centres of the largest objects, (n, 2), NaN where none is found."""
    boxes, labels = layout(reader.decode(images.reshape(-1, *images.shape[-3:])))
    return np.where(labels[:, :1] >= 0, boxes[:, 0, :2], np.nan)
