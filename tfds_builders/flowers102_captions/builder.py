"""Oxford-102 flowers with ten captions for each image.

In the class-disjoint splits of the text-to-image papers.
"""

import tensorflow_datasets as tfds
from absl import logging

from tfds_builders import class_splits, files, schema
from tfds_builders.base import UNBUILT
from tfds_builders.errors import DataError, quoted
from tfds_builders.flowers102_captions import archives, texts
from tfds_builders.flowers102_captions.classes import CLASS_NAMES, read_class_names
from tfds_builders.manual import ManualBuilder
from tfds_builders.old_downloads import EMBEDDING
from tfds_builders.texts import report_replaced

URL = 'https://www.robots.ox.ac.uk/~vgg/data/flowers/102/'
IMAGES, LABELS, MASKS = '102flowers.tgz', 'imagelabels.mat', '102segmentations.tgz'
# what they unpack to
UNPACKED, UNPACKED_MASKS = ('102flowers', 'jpg'), ('102segmentations', 'segmim')
CAPTIONS_PER_IMAGE = 10
# classes
SPLIT = (62, 20, 20)


class Flowers102Captions(ManualBuilder):
    """Pictures of flowers: 8,189 of 102 classes."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'First version.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
Put these into the manual folder:
  {texts.CVPR[0]}  captions of Reed et al. (CVPR 2016), or the folder cvpr2016_flowers/
                           that it unpacks to. Google Drive, by browser:
                           https://drive.google.com/file/d/0B0ywwgffWnLLcms2WWJQRFNSWXM/view?resourcekey=0-Av8zFbeDDvNcF1sSjDR32w
                           Where it is missing: flowers_icml.tar.gz or flowers.zip, if its captions
                           are inside
  {IMAGES}, {LABELS}  fetched from {URL} where they are missing; the folder jpg/ that
                           the archive unpacks to does as well
  {MASKS}     only for flowers102_captions/masks; from the same address; or the
                           folder segmim/ that it unpacks to
  {texts.ICML[0]}      only for flowers102_captions/embeddings: vectors of Reed et al.
                           (ICML 2016), or the folder flowers_icml/. Google Drive:
                           https://drive.google.com/file/d/0B0ywwgffWnLLMl9uOU91MV80cVU/view?resourcekey=0-vy4hVV-6Hvpw3AiYipoa3g
                           or StackGAN's {texts.STACKGAN[0]} or flowers/:
                           https://drive.google.com/file/d/0B3y_msrWZaXLaUc0UXpmcnhaVmM/view
  class_names.txt          optional: 102 lines, line k names label k"""
    HOMEPAGE = URL
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name='plain', description='Images, captions, classes.'),
        tfds.core.BuilderConfig(name='masks', description='And the foreground masks.'),
        tfds.core.BuilderConfig(
            name='embeddings',
            description='And a stored sentence vector of each caption (char-CNN-RNN, 1024).',
        ),
    ]

    def _info(self):
        # its names are known when the files are read
        features = schema.features('image', 'captions', 'file_name', 'class_name')
        features['label'] = schema.feature('label', num_classes=len(CLASS_NAMES))
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
        text = self.given(folder, *texts.CVPR, *texts.ICML, *texts.STACKGAN)
        config = self.builder_config.name
        mask = (
            self.given(
                folder,
                MASKS,
                *UNPACKED_MASKS,
                what=f'{MASKS} (or build flowers102_captions/plain, which has no masks)',
            )
            if config == 'masks'
            else None
        )
        vector = (
            self.given(
                folder,
                *texts.ICML,
                *texts.STACKGAN,
                what=f'{texts.ICML[0]} with the sentence vectors (or build '
                'flowers102_captions/plain, which has none)',
            )
            if config == 'embeddings'
            else None
        )
        picture = files.first_of(folder, IMAGES, *UNPACKED) or self.fetched(folder, URL + IMAGES)
        label = self.fetched(folder, URL + LABELS)
        self.require_space(picture, mask, vector)
        labels = archives.read_labels(label)
        (captions, embeddings, lists, broken, replaced), folders = texts.read(
            text, vector, CAPTIONS_PER_IMAGE
        )
        sizes = archives.image_sizes(picture, len(labels))
        if sorted(sizes) != list(range(1, len(labels) + 1)):
            raise DataError(
                f'{quoted(label)} has {len(labels)} labels, but {quoted(picture)} {len(sizes)} '
                'images; they belong together, image 1 to the first label. Fetch both again.'
            )
        masks = archives.read_masks(mask) if mask else None

        problems = {
            number: reason
            for number in sizes
            if (
                reason := broken.get(number)
                or _problem(
                    number, labels[number - 1], sizes[number], captions, folders, masks, embeddings
                )
            )
        }
        self.report(
            {_file_name(number): reason for number, reason in sorted(problems.items())}, picture
        )
        rule, split = class_splits.choose(
            lists, folder, r'class_(\d+)', SPLIT, lambda message: logging.warning('%s', message)
        )
        unlisted = set(labels.tolist()).difference(*split.values())
        if unlisted:
            raise DataError(
                f'Class {min(unlisted)} ({len(unlisted)} such classes) stands in none of '
                f'{", ".join(class_splits.LISTS.values())}. '
                'Fetch the caption archive again.'
            )
        names = folder / 'class_names.txt'
        names = read_class_names(names) if names.exists() else list(CLASS_NAMES)
        self.info.features['label'].names = names
        self.info.metadata.update(split_rule=rule)
        if vector:
            report_replaced(replaced, text, self.info.metadata)
        self.checksums(*dict.fromkeys((picture, label, text, mask, vector)))

        generators = {}
        for name, members in split.items():
            numbers = {
                number
                for number in sizes
                if labels[number - 1] in members and number not in problems
            }
            if not numbers:
                raise DataError(
                    f'Split {name} ({rule}) has no image: none that can be used is of its classes. '
                    f'Complete {quoted(picture)} and {quoted(text)}.'
                )
            generators[name] = self._generate_examples(
                picture, numbers, labels, captions, masks, embeddings, names
            )
        return generators

    def _generate_examples(self, path, numbers, labels, captions, masks, embeddings, names):
        for number, data in archives.images(path):
            if number in numbers:
                label = int(labels[number - 1]) - 1
                record = {
                    'image': data,
                    'captions': captions[number][:CAPTIONS_PER_IMAGE],
                    'file_name': _file_name(number),
                    'label': label,
                    'class_name': names[label],
                }
                if masks is not None:
                    record['mask'] = masks[number][1]
                if embeddings is not None:
                    record['embedding'] = embeddings[number]
                yield record['file_name'], record


def _problem(number, label, size, captions, folders, masks, embeddings):
    """Return why an image cannot be used, or None."""
    folder, lines = folders.get(number, label), captions.get(number, [])
    if size is None:
        return f'cannot be decoded ({IMAGES})'
    if folder != label:
        return f'captions lie in class_{folder:05d}, label is {label}'
    if len(lines) < CAPTIONS_PER_IMAGE:
        return (
            f'{len(lines)} captions instead of {CAPTIONS_PER_IMAGE}'
            if number in captions
            else 'no caption file'
        )
    if embeddings is not None and number not in embeddings:
        return 'no sentence vectors'
    if masks is not None and number not in masks:
        return 'no mask that can be decoded'
    if masks is not None and masks[number][0] != size:
        return f'image is {size[1]} x {size[0]}, mask {masks[number][0][1]} x {masks[number][0][0]}'
    return None


def _file_name(number):
    return f'image_{number:05d}.jpg'
