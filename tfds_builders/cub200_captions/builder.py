"""CUB-200-2011 birds with ten captions for each image.

In the class-disjoint splits of the text-to-image papers.
"""

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from tfds_builders import class_splits, files, schema
from tfds_builders.base import UNBUILT
from tfds_builders.cub200_captions import archives, texts
from tfds_builders.errors import DataError, quoted
from tfds_builders.manual import ManualBuilder
from tfds_builders.old_downloads import EMBEDDING
from tfds_builders.texts import report_replaced

IMAGES_URL = 'https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz'
MASKS_URL = 'https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz'
IMAGES = ('CUB_200_2011.tgz', 'CUB_200_2011')
MASKS = ('segmentations.tgz', 'segmentations', 'CUB_200_2011/segmentations')
CAPTIONS_PER_IMAGE = 10
# classes
SPLIT = (100, 50, 50)


class Cub200Captions(ManualBuilder):
    """Pictures of birds: 11,788 of 200 classes."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'First version.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
Put these into the manual folder:
  cvpr2016_cub.tar.gz  captions of Reed et al. (CVPR 2016), or the folder cvpr2016_cub/ that it
                       unpacks to. Google Drive, by browser:
                       https://drive.google.com/file/d/0B0ywwgffWnLLZW9uVHNjb2JmNlE/view
                       or text.zip of AttnGAN's birds.zip
                       (https://drive.google.com/file/d/1O_LtUP9sch09QH3s_EBAgLEctBQ5JBSJ/view),
                       or the folder text/ that it unpacks to; in the same place
                       trainclasses.txt, valclasses.txt, testclasses.txt, which it lacks.
                       Where these are missing: cub_icml.tar.gz or birds.zip, if captions are
                       inside
  CUB_200_2011.tgz     or the folder CUB_200_2011/; fetched from {IMAGES_URL} where it is missing
  segmentations.tgz    or the folder segmentations/; only for cub200_captions/masks; fetched from
                       {MASKS_URL} where it is missing
  cub_icml.tar.gz      only for cub200_captions/embeddings: vectors of Reed et al. (ICML 2016), or
                       the folder cub_icml/. Google Drive, by browser:
                       https://drive.google.com/file/d/0B0ywwgffWnLLLUc2WHYzM0Q2eWc/view
                       or StackGAN's birds.zip or birds/:
                       https://drive.google.com/file/d/0B3y_msrWZaXLT1BZdVdycDY5TEE/view?resourcekey=0-sZrhftoEfdvHq6MweAeCjA"""
    HOMEPAGE = 'https://www.vision.caltech.edu/datasets/cub_200_2011/'
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name='plain', description='Images, captions, classes, boxes, parts, attributes.'
        ),
        tfds.core.BuilderConfig(name='captions', description='Without parts and attributes.'),
        tfds.core.BuilderConfig(name='masks', description='And the foreground masks.'),
        tfds.core.BuilderConfig(
            name='embeddings',
            description='And a stored sentence vector of each caption (char-CNN-RNN, 1024).',
        ),
    ]

    def _info(self):
        # its names are known when the files are read
        features = schema.features('image', 'captions', 'file_name', 'class_name', 'bbox')
        features['label'] = schema.feature('label', num_classes=archives.CLASSES)
        if self.builder_config.name != 'captions':
            features['parts'] = schema.feature('parts', shape=(archives.PARTS, 3))
            features['attributes'] = schema.feature('attributes', shape=(archives.ATTRIBUTES,))
        if self.builder_config.name == 'masks':
            features['mask'] = schema.feature('mask')
        if self.builder_config.name == 'embeddings':
            shape = CAPTIONS_PER_IMAGE, EMBEDDING
            features['embedding'] = schema.feature('embedding', shape=shape)
        metadata = {
            'split_rule': UNBUILT,
            'captions_per_image': CAPTIONS_PER_IMAGE,
            'flip': True,
        }
        return self.described(features, metadata)

    def _split_generators(self, dl_manager):
        folder = self.manual_folder()
        config = self.builder_config.name
        text = self.given(
            folder, *texts.CVPR, *texts.ICML, *texts.STACKGAN, what='The caption archive'
        )
        vector = (
            self.given(
                folder,
                *texts.ICML,
                *texts.STACKGAN,
                what=f'{texts.ICML[0]} with the sentence vectors (or build '
                'cub200_captions/plain, which has none)',
            )
            if config == 'embeddings'
            else None
        )
        joined = texts.read(text, vector, CAPTIONS_PER_IMAGE)
        rule, split = class_splits.choose(
            joined.lists,
            text.parent,
            r'(\d+)\..*',
            SPLIT,
            lambda message: logging.warning('%s', message),
        )
        picture = files.first_of(folder, *IMAGES) or self.fetched(folder, IMAGES_URL)
        mask = (
            (files.first_of(folder, *MASKS) or self.fetched(folder, MASKS_URL))
            if config == 'masks'
            else None
        )
        self.require_space(picture, mask, vector)
        birds, sizes = archives.read(picture, whole=config != 'captions')
        masks = archives.read_masks(mask) if mask else None

        records, problems = {}, {}
        for image, (key, name) in birds.files.items():
            record = joined.problems.get(key) or _record(
                image, key, birds, sizes, joined, masks, 'parts' in self.info.features
            )
            (problems if isinstance(record, str) else records)[name] = record
        self.report(dict(sorted(problems.items())), picture)
        unknown = len(sizes.keys() - {key for key, _ in birds.files.values()})
        if unknown:
            logging.warning(
                '%d images of %s are left out: its images.txt does not list them.',
                unknown,
                quoted(picture),
            )
        unlisted = {record['label'] + 1 for record in records.values()}.difference(*split.values())
        if unlisted:
            raise DataError(
                f'Class {min(unlisted)} ({len(unlisted)} such classes) stands in none of '
                f'{", ".join(class_splits.LISTS.values())}. '
                'Fetch the caption archive again.'
            )
        self.info.features['label'].names = birds.class_names
        self.info.metadata['split_rule'] = rule
        if config != 'captions':
            absent = [n for n in ('parts', 'attributes') if getattr(birds, n) is None]
            self.info.metadata.update(
                parts=birds.part_names, attributes=birds.attribute_names, absent=absent
            )
            if absent:
                logging.warning(
                    '%s has no %s: they are zeros in all records (metadata absent). For data '
                    'without them build cub200_captions/captions.',
                    quoted(picture),
                    ' and no '.join(absent),
                )
        if vector:
            report_replaced(joined.replaced, text, self.info.metadata)
        self.checksums(*dict.fromkeys((picture, text, mask, vector)))

        generators = {}
        for name, members in split.items():
            part = {
                birds.files[image][0]: records[file]
                for image, (_, file) in birds.files.items()
                if file in records and records[file]['label'] + 1 in members
            }
            if not part:
                raise DataError(
                    f'Split {name} ({rule}) has no image: none that can be used is of its classes. '
                    f'Complete {quoted(picture)} and {quoted(text)}.'
                )
            generators[name] = self._generate_examples(picture, part)
        return generators

    def _generate_examples(self, path, records):
        for key, data in archives.images(path):
            if key in records:
                yield records[key]['file_name'], records[key] | {'image': data}


def _record(image, key, birds, sizes, joined, masks, whole):
    """Return all but the picture, or a sentence that says why the image cannot be used."""
    size, label, lines = sizes.get(key), birds.labels.get(image), joined.captions.get(key, [])
    if size is None:
        return (
            f'cannot be decoded ({IMAGES[0]})'
            if key in sizes
            else f'is not among the images of {IMAGES[0]}'
        )
    if label != key[0]:
        return f'lies in the folder of class {key[0]}, but image_class_labels.txt has {label}'
    if len(lines) < CAPTIONS_PER_IMAGE:
        return (
            f'{len(lines)} captions instead of {CAPTIONS_PER_IMAGE}'
            if key in joined.captions
            else 'no caption file'
        )
    if joined.embeddings is not None and key not in joined.embeddings:
        return 'no sentence vectors'
    tables = {'boxes': birds.boxes, 'parts': birds.parts, 'attributes': birds.attributes}
    missing = [name for name, table in tables.items() if table is not None and image not in table]
    if missing:
        return f'no {", no ".join(missing)}'
    box = archives.bbox(birds.boxes[image], size)
    if isinstance(box, str):
        return box
    parts, attributes = np.zeros((archives.PARTS, 3)), np.zeros(archives.ATTRIBUTES)
    if birds.parts is not None:
        parts = archives.relative(birds.parts[image], size)
    if birds.attributes is not None:
        attributes = birds.attributes[image]
    if not np.isfinite(parts).all():
        return 'a visible part has no finite location'
    if masks is not None and key not in masks:
        return 'no mask that can be decoded'
    if masks is not None and masks[key][0] != size:
        return f'image is {size[1]} x {size[0]}, mask {masks[key][0][1]} x {masks[key][0][0]}'
    record = {
        'captions': lines[:CAPTIONS_PER_IMAGE],
        'file_name': birds.files[image][1],
        'label': label - 1,
        'class_name': birds.class_names[label - 1],
        'bbox': tfds.features.BBox(*box),
    }
    if whole:
        record |= {
            'parts': parts.astype(np.float32),
            'attributes': attributes.astype(np.float32),
        }
    if masks is not None:
        record['mask'] = masks[key][1]
    if joined.embeddings is not None:
        record['embedding'] = joined.embeddings[key]
    return record
