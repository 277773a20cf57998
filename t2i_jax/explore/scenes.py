"""What the readers of shape scenes find in explored pictures; nothing for other data."""

import numpy as np

from t2i_jax.evaluate.evaluate import readers
from t2i_jax.scenes.agreement import layout
from tfds_builders.shape_scenes.scenes import CLASS, CLASSES, COLOUR, COLOURS


def reader_of(config):
    """What reads pictures of shape scenes, the trained reader where it has weights; None for other data."""
    if not config.data.name.startswith(('shape_scenes/single', 'shape_scenes/multi')):
        return None
    return list(readers('multi' if '/multi' in config.data.name else 'single').values())[-1]


def read(config, pictures):
    """n k s s 3 -> {'decoder', 'colour': {name: share of the n whose largest object has it, at each of k}, 'class': ...}; {} for other data."""
    reader = reader_of(config)
    if reader is None:
        return {}
    largest = reader.decode(pictures.reshape(-1, *pictures.shape[2:]))[:, 0].reshape(
        *pictures.shape[:2], -1
    )
    found = {'decoder': reader.tag['name']}
    for name, column, words in (('colour', COLOUR, COLOURS), ('class', CLASS, CLASSES)):
        shares = {
            word: (largest[..., column] == value).mean(0).round(3).tolist()
            for value, word in enumerate(words)
        }
        found[name] = {word: share for word, share in shares.items() if max(share) > 0.1}
    return found


def places(config, styles, pictures):
    """How far (of the frame) the largest object of each picture, n k s s 3, lies from that of its style, k s s 3, and from those of the others."""
    reader = reader_of(config)
    if reader is None:
        return {}
    centres = []
    for images in (styles, pictures):
        boxes, labels = layout(reader.decode(images.reshape(-1, *images.shape[-3:])))
        centres.append(
            np.where(labels[:, :1] >= 0, boxes[:, 0, :2], np.nan)
        )  # where no object is found, nothing is compared
    off = np.linalg.norm(
        centres[1].reshape(*pictures.shape[:2], 1, 2) - centres[0], axis=-1
    )  # n, k drawn, k styles
    own = np.eye(len(styles), dtype=bool)
    kinds = {'object_off_its_style': off[:, own], 'object_off_other_styles': off[:, ~own]}
    return {'decoder': reader.tag['name']} | {
        name: float(np.nanmean(values)) if np.isfinite(values).any() else None
        for name, values in kinds.items()
    }
