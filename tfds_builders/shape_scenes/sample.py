"""One sample, complete: scene, pictures, masks, captions with their facts, dialogue.

A pure function of its arguments.
"""

import numpy as np

from tfds_builders.shape_scenes import render, scenes
from tfds_builders.shape_scenes.captions import captions, table_of
from tfds_builders.shape_scenes.dialog import dialog
from tfds_builders.shape_scenes.scenes import Draws

# streams: a change of the captions leaves the scenes as they are
SCENES, CAPTIONS, DIALOG = range(3)


def make(
    mode,
    split,
    index,
    size,
    seed=0,
    overlap='none',
    backgrounds=scenes.BACKGROUNDS,
    caption_bg=False,
    negations=False,
    brief=False,
):
    """Return a sample as a dictionary.

    With R = 5 objects and K = 10 (`single`) or 5 (`multi`) captions. Unused rows of tables are -1.

    image uint8 (S, S, 3); captions [str] * K; levels [str] * K; facts int32 (K, 6, 6); scene int32
    (6, 8); class_id int; class_name str; boxes, visible_boxes float32 (R, 4) cx cy w h in [0, 1];
    object_labels, colours, sizes int32 (R,); masks bool (R, S, S) amodal; seg int32 (S, S); mask
    bool (S, S); layout float32 (S, S, 6); attributes float32 (22,) or (48,); attribute_known of
    that shape, ones; label_set, counts int32 (6,); scene_key int; dialog, ten Rounds
    (`questions.py`) about what the first caption leaves open, and its questions and answers [str] *
    10.
    """
    scene = scenes.sample(mode, split, index, seed, overlap, backgrounds)
    found = captions(
        scene,
        mode,
        split,
        Draws(seed, mode, split, index, overlap, CAPTIONS),
        caption_bg,
        negations,
        brief,
    )
    rounds = dialog(scene, found[0][1], Draws(seed, mode, split, index, overlap, DIALOG))
    masks = render.masks(scene, size)
    seg = render.segmentation(masks)
    attributes = scenes.attributes(scene, mode)
    counts = np.bincount(
        scene[:-1, scenes.CLASS][scene[:-1, scenes.CLASS] >= 0], minlength=len(scenes.CLASSES)
    ).astype(np.int32)
    return {
        'image': render.image(scene, size),
        'captions': [text for text, _, _ in found],
        'levels': [level for _, _, level in found],
        'facts': table_of(found),
        'scene': scene,
        'class_id': scenes.class_id(scene),
        'class_name': scenes.CLASS_IDS[scenes.class_id(scene)],
        'boxes': scenes.boxes(scene),
        'visible_boxes': render.visible_boxes(seg, len(masks)),
        'object_labels': scene[:-1, scenes.CLASS],
        'colours': scene[:-1, scenes.COLOUR],
        'sizes': scene[:-1, scenes.SIZE],
        'masks': masks,
        'seg': seg,
        'mask': seg > 0,
        'layout': render.layout(scene, seg),
        'attributes': attributes,
        'attribute_known': np.ones_like(attributes),
        'label_set': (counts > 0).astype(np.int32),
        'counts': counts,
        'dialog': rounds,
        'questions': [r.question for r in rounds],
        'answers': [r.answer for r in rounds],
        'scene_key': scenes.scene_key(scene, mode),
    }
