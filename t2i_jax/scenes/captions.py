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


def same(mode: str, captions, conditions) -> dict:
    """Return whether captions say what others say, {name: (n,) float64}, {} for other data.

    mode: `Meta.scenes`. captions, conditions: n texts.

    Of `single`: `redescribed_class`, `redescribed_colour`, `redescribed_size`, `redescribed_x`,
    `redescribed_y`, NaN where one of the two says nothing of the kind, and `redescribed_all`: they
    agree in all of which both speak. A caption that contradicts itself or says nothing is wrong.
    """
    if mode != 'single' or not len(captions):
        return {}
    names, found = scenes.attribute_names(mode), {f'redescribed_{name}': [] for name in NAMES}
    for caption, condition in zip(captions, conditions):
        (wanted, asked), (said, known) = (_said(text, names) for text in (condition, str(caption)))
        if not known.any():
            said, known = 1 - wanted, asked
        for name, (first, length) in zip(NAMES, sentences.GROUPS):
            part = slice(first, first + length)
            both = known[part].any() and asked[part].any()
            right = float((said[part] == wanted[part]).all()) if both else np.nan
            found[f'redescribed_{name}'].append(right)
    found = {name: np.array(rows) for name, rows in found.items()}
    each = np.stack(list(found.values()))
    whole = np.where(np.isnan(each).all(0), np.nan, (np.nan_to_num(each, nan=1.0)).all(0))
    return found | {'redescribed_all': whole.astype(float)}


def _said(text, names):
    """As `sentences.attributes`; nothing where a text contradicts itself or says nothing."""
    try:
        return sentences.attributes(text, names)
    except DataError:
        return np.zeros(len(names), np.float32), np.zeros(len(names), bool)


def _truth(mode, caption, table):
    names, groups = scenes.attribute_names(mode), NAMES if mode == 'single' else ()
    true = scenes.attributes(table, mode)
    said, known = _said(caption, names)
    if not known.any():
        return {'caption_true': 0.0} | {f'caption_{name}': 0.0 for name in groups}
    # of several objects a caption may leave some out
    holds = said == true if mode == 'single' else said <= true + 1e-6
    found = {'caption_true': float(holds[known].all())}
    for name, (first, length) in zip(groups, sentences.GROUPS):
        part = slice(first, first + length)
        found[f'caption_{name}'] = float(holds[part].all()) if known[part].any() else np.nan
    return found
