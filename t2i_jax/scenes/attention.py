"""Measures of where words of shape scenes look: colours and classes against their objects."""

import cv2
import numpy as np

from tfds_builders.facts import CLASS, COLOUR, W
from tfds_builders.shape_scenes import render
from tfds_builders.shape_scenes.sentences import TERMS


def named(word):
    """What a word of shape_scenes says of an object: (COLOUR or CLASS, value), None for other words."""
    kind, value = TERMS.get((word,), ('', None))
    if kind == 'colour':
        return COLOUR, value
    return (CLASS, value[0]) if kind == 'shape' and value[0] >= 0 else None


def mask_of(scene, column, value, side):
    """Where one sees objects with a value: float32 (side, side), the share of each cell. Zeros where there is none."""
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
    """How much of the attention of words for colours and classes lies on the objects that they are true of, against these objects' share of the frame.

    maps: n s s t; words: of each sentence; scenes: tables, true or decoded. Words that are true of nothing there are left out.
    -> {'colour': {'inside': mean, 'share': mean, 'n': words}, 'class': ...}
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
