"""Captions that a system wrote of pictures of shape scenes: is what they say true?"""

import numpy as np

from tfds_builders.errors import DataError
from tfds_builders.shape_scenes import scenes, sentences

# of `single`: the groups of attributes, in the order of `sentences.GROUPS`
NAMES = 'class', 'colour', 'size', 'x', 'y'


def truth(mode: str, captions, tables) -> dict:
    """Return whether captions are true of their scenes, {name: (n,) float64}, {} for other data.

    mode: `Meta.scenes`. captions: n texts. tables: of n scenes.

    `caption_true`: all that is said is true, and something is. Of `single` also `caption_class`,
    `caption_colour`, `caption_size`, `caption_x`, `caption_y` (thirds of the room), NaN where a
    caption says nothing of the kind. One that contradicts itself, or says nothing, is wrong in all.
    """
    if mode not in ('single', 'multi') or not len(captions):
        return {}
    rows = [_truth(mode, *pair) for pair in zip(captions, tables)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _truth(mode, caption, table):
    names, groups = scenes.attribute_names(mode), NAMES if mode == 'single' else ()
    true = scenes.attributes(table, mode)
    try:
        said, known = sentences.attributes(caption, names)
    except DataError:
        return {'caption_true': 0.0} | {f'caption_{name}': 0.0 for name in groups}
    # of several objects a caption may leave some out
    holds = said == true if mode == 'single' else said <= true + 1e-6
    found = {'caption_true': float(holds[known].all())}
    for name, (first, length) in zip(groups, sentences.GROUPS):
        part = slice(first, first + length)
        found[f'caption_{name}'] = float(holds[part].all()) if known[part].any() else np.nan
    return found
