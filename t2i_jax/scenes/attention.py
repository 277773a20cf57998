"""Measures of where words of shape scenes look: colours and classes against their objects."""

import cv2
import numpy as np

from tfds_builders.facts import CLASS, COLOUR, W
from tfds_builders.shape_scenes import render
from tfds_builders.shape_scenes.sentences import TERMS


def named(word):
    """Return what a word of shape_scenes says of an object: (COLOUR or CLASS, value), or None."""
    kind, value = TERMS.get((word,), ('', None))
    if kind == 'colour':
        return COLOUR, value
    return (CLASS, value[0]) if kind == 'shape' and value[0] >= 0 else None


def mask_of(scene, column, value, side):
    """Return where objects with a value can be seen, float32 (side, side).

    A cell has the share of its area. scene: a table; column, value: as `named` returns them. Zeros
    where there is no such object.
    """
    pixels = 8 * side if side < 32 else 2 * side
    scene = np.array(scene)
    # a decoded patch of no shape has no mask
    scene[:-1][scene[:-1, CLASS] < 0] = -1
    objects = scene[:-1]
    # pixels pixels
    top = render.segmentation(render.masks(scene, pixels))
    which = np.concatenate([[False], (objects[:, W] >= 0) & (objects[:, column] == value)])
    return cv2.resize(which[top].astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)


def inside(maps, words, scenes) -> dict:
    """Measure how much attention of words lies on the objects that they are true of.

    The words are those for colours and classes.

    maps: (n, s, s, t)
    words: of each of the n sentences
    scenes: tables, true or decoded

    Returns {'colour': {'inside': mean, 'share': mean, 'n': words}, 'class': ...}, where `share` is
    these objects' share of the frame. Words that are true of nothing in their scene are left out.
    """
    found = {COLOUR: [], CLASS: []}
    for one, sentence, scene in zip(maps, words, scenes):
        for i, word in enumerate(sentence[: one.shape[-1]]):
            said = named(word)
            if said is None:
                continue
            mask = mask_of(scene, *said, len(one))
            if mask.any() and one[..., i].sum() > 0:
                found[said[0]].append(
                    (float((one[..., i] * mask).sum() / one[..., i].sum()), float(mask.mean()))
                )
    return {
        name: dict(
            inside=float(np.mean([x for x, _ in found[kind]])),
            share=float(np.mean([x for _, x in found[kind]])),
            n=len(found[kind]),
        )
        for name, kind in (('colour', COLOUR), ('class', CLASS))
        if found[kind]
    }
