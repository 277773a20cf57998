"""The TFDS builder of the procedural data set `shape_scenes`.

Coloured shapes with captions, boxes, masks, attributes and dialogues; and layouts by rule, which
have boxes and labels only.
"""

import dataclasses

import tensorflow_datasets as tfds

from tfds_builders import schema
from tfds_builders.base import Builder
from tfds_builders.facts import ATOMS
from tfds_builders.shape_scenes import render, rules, scenes
from tfds_builders.shape_scenes.captions import CAPTIONS
from tfds_builders.shape_scenes.records import records

FULL = {'train': 20_000, 'validation': 1_000, 'test': 2_000, 'test_unseen': 2_000}
QUICK = {
    'single': {'train': 12_000, 'validation': 250, 'test': 500, 'test_unseen': 500},
    'multi': {'train': 8_000, 'validation': 250, 'test': 500, 'test_unseen': 500},
}
RULES = {'train': 50_000, 'validation': 2_000, 'test': 5_000}


@dataclasses.dataclass(kw_only=True)
class ShapeScenesConfig(tfds.core.BuilderConfig):
    """The settings of a variant.

    mode: 'single' (one object that fills the frame), 'multi' (1 to 5) or 'rules' (layouts without
        pictures, for which counts and seed are all that matters)
    size: in pixels
    counts: scenes in each split
    overlap: 'none' or 'mild'
    backgrounds: names of those that may occur
    brief: captions say how many objects there are and of which classes, dialogues the rest
    seed: of all random numbers
    """

    mode: str = 'single'
    size: int = 64
    counts: dict = dataclasses.field(default_factory=lambda: dict(FULL))
    overlap: str = 'none'
    backgrounds: tuple = scenes.BACKGROUNDS
    brief: bool = False
    seed: int = 0


def _configs():
    what = {'single': 'one object', 'multi': 'one to five objects'}
    for mode in scenes.MODES:
        yield ShapeScenesConfig(name=mode, description=f'{what[mode]}, 64 px', mode=mode)
        yield ShapeScenesConfig(
            name=f'{mode}_quick',
            description=f'{what[mode]}, 32 px, fewer scenes, no patterns behind them',
            mode=mode,
            size=32,
            counts=QUICK[mode],
            backgrounds=scenes.PLAIN,
        )
        for size in (32, 128, 256):
            yield ShapeScenesConfig(
                name=f'{mode}_{size}', description=f'{what[mode]}, {size} px', mode=mode, size=size
            )
    yield ShapeScenesConfig(
        name='multi_overlap',
        description='one to five objects that may cover each other a little, 64 px',
        mode='multi',
        overlap='mild',
    )
    for name, size, more in (
        ('multi_brief', 64, {}),
        ('multi_brief_quick', 32, dict(counts=QUICK['multi'], backgrounds=scenes.PLAIN)),
    ):
        yield ShapeScenesConfig(
            name=name,
            description=f'one to five objects, {size} px, whose captions leave to dialogues what '
            'colours, sizes and places they have',
            mode='multi',
            size=size,
            brief=True,
            **more,
        )
    yield ShapeScenesConfig(
        name='rules',
        description='layouts by rule, boxes and labels only, with exactly known likelihoods',
        mode='rules',
        counts=RULES,
    )


class ShapeScenes(Builder):
    VERSION = tfds.core.Version('1.1.0')
    RELEASE_NOTES = {
        '1.1.0': 'The metadata say what the scenes are: single, multi or rules.',
        '1.0.0': 'Six shapes, seven colours, three sizes, eight backgrounds.',
    }
    BUILDER_CONFIGS = list(_configs())

    def _info(self):
        return self._layouts() if self.builder_config.mode == 'rules' else self._pictures()

    def _layouts(self):
        return self.described(
            {'objects': schema.objects(rules.LABELS)},
            dict(
                split_rule=rules.SPLIT_RULE,
                max_objects=rules.MAX_OBJECTS,
                flip=False,
                scenes='rules',
                seed=self.builder_config.seed,
            ),
            'Boxes and labels whose counts and places follow rules, so that their likelihoods are '
            'known exactly.',
        )

    def _pictures(self):
        mode = self.builder_config.mode
        names = scenes.attribute_names(mode)
        features = schema.features(
            *('captions', 'file_name', 'class_name', 'bbox', 'mask', 'object_masks'),
            image=schema.feature('image', encoding_format='png'),
            label=schema.feature('label', names=list(scenes.CLASS_IDS)),
            objects=schema.objects(scenes.CLASSES),
            attributes=schema.feature('attributes', shape=(len(names),)),
            dialog=schema.dialog(),
            scene=schema.feature('scene', shape=(scenes.MAX_OBJECTS + 1, scenes.COLUMNS)),
            facts=schema.feature('facts', shape=(CAPTIONS[mode], ATOMS, 6)),
        )
        return self.described(
            features,
            dict(
                split_rule=scenes.SPLIT_RULE,
                captions_per_image=CAPTIONS[mode],
                attributes=list(names),
                max_objects=scenes.MAX_OBJECTS,
                mask_size=render.MASK_SIZE,
                flip=False,
                scenes=mode,
                size=self.builder_config.size,
                seed=self.builder_config.seed,
                held_out=[
                    scenes.CLASS_IDS[shape * len(scenes.COLOURS) + colour]
                    for shape, colour in scenes.UNSEEN_PAIRS
                ],
            ),
            'Procedural pictures of coloured shapes with captions whose truth can be computed '
            'exactly.',
        )

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split, count)
            for split, count in self.builder_config.counts.items()
        }

    def _generate_examples(self, split, count):
        config = self.builder_config
        if config.mode == 'rules':
            for index in range(count):
                boxes, labels = rules.sample(split, index, config.seed)
                yield (
                    index,
                    {
                        'objects': [
                            {
                                'bbox': tfds.features.BBox(
                                    cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2
                                ),
                                'label': label,
                            }
                            for (cx, cy, w, h), label in zip(boxes.tolist(), labels.tolist())
                        ]
                    },
                )
            return
        for index, one in records(
            count,
            mode=config.mode,
            split=split,
            size=config.size,
            seed=config.seed,
            overlap=config.overlap,
            backgrounds=config.backgrounds,
            brief=config.brief,
        ):
            one['bbox'] = tfds.features.BBox(*one['bbox'])
            one['objects'] = [
                {'bbox': tfds.features.BBox(*box), 'label': name} for box, name in one['objects']
            ]
            yield index, one
