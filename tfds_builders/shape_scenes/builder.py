"""The TFDS builder of the procedural data set `shape_scenes`: coloured shapes, captions, boxes, masks, attributes and dialogues."""
import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.shape_scenes import render, scenes
from tfds_builders.shape_scenes.captions import CAPTIONS
from tfds_builders.shape_scenes.facts import ATOMS
from tfds_builders.shape_scenes.records import records

FULL = {'train': 20_000, 'validation': 1_000, 'test': 2_000, 'test_unseen': 2_000}
QUICK = {'single': {'train': 12_000, 'validation': 250, 'test': 500, 'test_unseen': 500},
         'multi': {'train': 8_000, 'validation': 250, 'test': 500, 'test_unseen': 500}}


@dataclasses.dataclass(kw_only=True)
class ShapeScenesConfig(tfds.core.BuilderConfig):
    """mode: 'single' (one object that fills the frame) or 'multi' (1 to 5); size in pixels; counts: scenes in each split;
    overlap: 'none' or 'mild'; backgrounds: names of those that may occur."""
    mode: str = 'single'
    size: int = 64
    counts: dict = dataclasses.field(default_factory=lambda: dict(FULL))
    overlap: str = 'none'
    backgrounds: tuple = scenes.BACKGROUNDS
    seed: int = 0


def _configs():
    what = {'single': 'one object', 'multi': 'one to five objects'}
    for mode in scenes.MODES:
        yield ShapeScenesConfig(name=mode, description=f'{what[mode]}, 64 px', mode=mode)
        yield ShapeScenesConfig(name=f'{mode}_quick', description=f'{what[mode]}, 32 px, fewer scenes, no patterns behind them', mode=mode,
                                size=32, counts=QUICK[mode], backgrounds=scenes.PLAIN)
        for size in (32, 128, 256):
            yield ShapeScenesConfig(name=f'{mode}_{size}', description=f'{what[mode]}, {size} px', mode=mode, size=size)
    yield ShapeScenesConfig(name='multi_overlap', description='one to five objects that may cover each other a little, 64 px', mode='multi',
                            overlap='mild')


class ShapeScenes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'Six shapes, seven colours, three sizes, eight backgrounds.'}
    BUILDER_CONFIGS = list(_configs())

    def _info(self):
        mode = self.builder_config.mode
        names = scenes.attribute_names(mode)
        return tfds.core.DatasetInfo(
            builder=self,
            description='Procedural pictures of coloured shapes with captions whose truth can be computed exactly.',
            features=tfds.features.FeaturesDict({
                'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
                'captions': tfds.features.Sequence(tfds.features.Text()),
                'file_name': tfds.features.Text(),
                'label': tfds.features.ClassLabel(names=list(scenes.CLASS_IDS)),
                'class_name': tfds.features.Text(),
                'bbox': tfds.features.BBoxFeature(),
                'mask': tfds.features.Image(shape=(None, None, 1), encoding_format='png'),
                'objects': tfds.features.Sequence({'bbox': tfds.features.BBoxFeature(),
                                                   'label': tfds.features.ClassLabel(names=list(scenes.CLASSES))}),
                'object_masks': tfds.features.Image(shape=(None, None, 1), encoding_format='png'),
                'attributes': tfds.features.Tensor(shape=(len(names),), dtype=np.float32),
                'dialog': {'questions': tfds.features.Sequence(tfds.features.Text()),
                           'answers': tfds.features.Sequence(tfds.features.Text())},
                'scene': tfds.features.Tensor(shape=(scenes.MAX_OBJECTS + 1, scenes.COLUMNS), dtype=np.int32),
                'facts': tfds.features.Tensor(shape=(CAPTIONS[mode], ATOMS, 6), dtype=np.int32),
            }),
            metadata=tfds.core.MetadataDict(
                split_rule=scenes.SPLIT_RULE, captions_per_image=CAPTIONS[mode], attributes=list(names), max_objects=scenes.MAX_OBJECTS,
                mask_size=render.MASK_SIZE, flip=False, mode=mode, size=self.builder_config.size, seed=self.builder_config.seed,
                held_out=[scenes.CLASS_IDS[shape * len(scenes.COLOURS) + colour] for shape, colour in scenes.UNSEEN_PAIRS]),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, count) for split, count in self.builder_config.counts.items()}

    def _generate_examples(self, split, count):
        config = self.builder_config
        for index, one in records(count, mode=config.mode, split=split, size=config.size, seed=config.seed, overlap=config.overlap,
                                  backgrounds=config.backgrounds):
            one['bbox'] = tfds.features.BBox(*one['bbox'])
            one['objects'] = [{'bbox': tfds.features.BBox(*box), 'label': name} for box, name in one['objects']]
            yield index, one
