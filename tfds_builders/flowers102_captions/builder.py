"""Oxford-102 flowers with ten captions for each image, in the class-disjoint splits of the text-to-image papers."""
import hashlib
import pathlib
from typing import NamedTuple

import tensorflow_datasets as tfds
from absl import logging

from tfds_builders.errors import DataError
from tfds_builders.flowers102_captions import archives, classes

URL = 'https://www.robots.ox.ac.uk/~vgg/data/flowers/102/'
IMAGES, LABELS, CAPTIONS, MASKS = '102flowers.tgz', 'imagelabels.mat', 'cvpr2016_flowers.tar.gz', '102segmentations.tgz'
CAPTIONS_PER_IMAGE = 10
INSTRUCTIONS = f"""\
Put these into the manual folder:
  {CAPTIONS}   captions of Reed et al. (CVPR 2016), or the folder cvpr2016_flowers/ that it unpacks to. Google Drive, by browser:
                           https://drive.google.com/file/d/0B0ywwgffWnLLcms2WWJQRFNSWXM/view?resourcekey=0-Av8zFbeDDvNcF1sSjDR32w
  {IMAGES}, {LABELS}  fetched from {URL} where they are missing
  {MASKS}     only for flowers102_captions/masks; from the same address
  class_names.txt          optional: 102 lines, line k names label k"""


class Files(NamedTuple):
    """Where the sources lie. `masks` is None for the config without them."""
    images: pathlib.Path
    labels: pathlib.Path
    captions: pathlib.Path
    masks: pathlib.Path | None


class Flowers102Captions(tfds.core.GeneratorBasedBuilder):
    """8,189 flowers of 102 classes. `manual_dir` holds what the user fetched; default <data_dir>/downloads/manual.

    on_error: 'refuse' raises DataError for an image that cannot be decoded or has fewer than ten captions; 'skip' leaves such images out
    and lists them in the log and in the metadata ('skipped').
    """
    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'First version.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = INSTRUCTIONS
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name='plain', description='Images, captions, classes.'),
        tfds.core.BuilderConfig(name='masks', description='And the foreground masks.'),
    ]

    def __init__(self, *, manual_dir=None, on_error='refuse', **kwargs):
        if on_error not in ('refuse', 'skip'):
            raise DataError(f'on_error is {on_error!r}; use "refuse" or "skip".')
        self.manual_dir = pathlib.Path(manual_dir).expanduser() if manual_dir else None
        self.on_error = on_error
        super().__init__(**kwargs)

    def _info(self):
        features = {
            'image': tfds.features.Image(shape=(None, None, 3)),
            'captions': tfds.features.Sequence(tfds.features.Text()),
            'file_name': tfds.features.Text(),
            'label': tfds.features.ClassLabel(num_classes=len(classes.CLASS_NAMES)),       # its names are known when the files are read
            'class_name': tfds.features.Text(),
        }
        if self.builder_config.name == 'masks':
            features['mask'] = tfds.features.Image(shape=(None, None, 1), encoding_format='png')
        metadata = {'split_rule': 'not built yet', 'captions_per_image': CAPTIONS_PER_IMAGE, 'flip': True}
        return tfds.core.DatasetInfo(
            builder=self, description=self.__doc__, homepage=URL, features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(metadata),
        )

    def _split_generators(self, dl_manager):
        folder = self._manual_folder(dl_manager)
        files = self._files(folder, dl_manager)
        labels = archives.read_labels(files.labels)
        captions, lists = archives.read_captions(files.captions)
        sizes = archives.image_sizes(files.images, len(labels))
        if sorted(sizes) != list(range(1, len(labels) + 1)):
            raise DataError(f'{files.labels} has {len(labels)} labels, but {files.images} {len(sizes)} images; '
                            'they belong together, image 1 to the first label. Fetch both again.')
        masks = archives.read_masks(files.masks) if files.masks else None

        problems = {number: reason for number in sizes if (reason := _problem(number, labels[number - 1], sizes[number], captions, masks))}
        skipped = {_file_name(number): reason for number, reason in sorted(problems.items())}
        self._report(skipped, files)
        rule, split = self._split(folder, lists, labels)
        names = folder / 'class_names.txt'
        names = classes.read_class_names(names) if names.exists() else list(classes.CLASS_NAMES)
        self.info.features['label'].names = names
        self.info.metadata.update(split_rule=rule, skipped=skipped, sha256=_checksums(files))

        generators = {}
        for name, members in split.items():
            numbers = {number for number in sizes if labels[number - 1] in members and number not in problems}
            if not numbers:
                raise DataError(f'Split {name} ({rule}) has no image: none that can be used is of its classes. '
                                f'Complete {files.images} and {files.captions}.')
            generators[name] = self._generate_examples(files.images, numbers, labels, captions, masks, names)
        return generators

    def _generate_examples(self, path, numbers, labels, captions, masks, names):
        for number, data in archives.images(path):
            if number in numbers:
                label = int(labels[number - 1]) - 1
                record = {
                    'image': data,
                    'captions': captions[number][1][:CAPTIONS_PER_IMAGE],
                    'file_name': _file_name(number),
                    'label': label,
                    'class_name': names[label],
                }
                yield record['file_name'], record if masks is None else record | {'mask': masks[number][1]}

    def _manual_folder(self, dl_manager):
        """The folder of the user's files, which must exist and hold something."""
        try:
            folder = self.manual_dir or pathlib.Path(dl_manager.manual_dir)
        except AssertionError:                     # how TFDS says that its own manual folder is missing or empty
            folder = pathlib.Path(self._data_dir_root) / 'downloads' / 'manual'
        if not folder.is_dir() or not any(folder.iterdir()):
            raise DataError(f'Manual folder {folder} {"is empty" if folder.is_dir() else "does not exist"}.\n{INSTRUCTIONS}')
        return folder

    def _files(self, folder, dl_manager) -> Files:
        """Each file from the manual folder; images and labels are fetched (with a known checksum) where they are not there."""
        captions = next((p for p in (folder / CAPTIONS, folder / 'cvpr2016_flowers') if p.exists()), None)
        if not captions:
            raise DataError(f'{CAPTIONS} is not in {folder}, and it cannot be fetched without a browser.\n{INSTRUCTIONS}')
        masks = folder / MASKS if self.builder_config.name == 'masks' else None
        if masks and not masks.exists():
            raise DataError(f'{masks} is missing. Put it there, or build flowers102_captions/plain, which has no masks.\n{INSTRUCTIONS}')
        found = {}
        for name in (IMAGES, LABELS):
            found[name] = folder / name
            if not found[name].exists():
                try:
                    found[name] = pathlib.Path(dl_manager.download(URL + name))
                except Exception as error:         # no network, a changed file, a full disk: the remedy is the same
                    raise DataError(f'Cannot fetch {URL}{name} ({error}). Fetch it by hand and put it into {folder}.') from None
        return Files(found[IMAGES], found[LABELS], captions, masks)

    def _split(self, folder, lists, labels):
        """(name of the rule, split -> labels): by the class lists in the caption archive (or beside it), else a draw of our own."""
        for split, file in classes.LISTS.items():
            if split not in lists and (folder / file).exists():
                lists[split] = (folder / file).read_text(encoding='utf-8')
        missing = [file for split, file in classes.LISTS.items() if split not in lists]
        if missing:
            logging.warning('No %s in the caption archive: the classes are split by our own draw, %s (62, 20 and 20 classes). '
                            'Results are not comparable with published numbers.', ', '.join(missing), classes.RANDOM_SPLIT)
            return classes.RANDOM_SPLIT, classes.random_split()
        split = classes.published_split(lists)
        unlisted = set(labels.tolist()).difference(*split.values())
        if unlisted:
            raise DataError(f'Class {min(unlisted)} ({len(unlisted)} such classes) stands in none of {", ".join(classes.LISTS.values())}. '
                            'Fetch the caption archive again.')
        return classes.PUBLISHED_SPLIT, split

    def _report(self, skipped, files):
        """Names the images that cannot be used: an error, or with on_error='skip' a line in the log."""
        if not skipped:
            return
        listed = [f'{name}: {reason}' for name, reason in skipped.items()]
        listed = '; '.join(listed[:20]) + (f'; and {len(listed) - 20} more' if len(listed) > 20 else '')
        if self.on_error == 'refuse':
            raise DataError(f'{len(skipped)} images of {files.images} cannot be used as they are: {listed}. '
                            "Repair the files, or leave these images out with on_error='skip' (--on_error=skip).")
        logging.warning('Left out %d images: %s', len(skipped), listed)


def _problem(number, label, size, captions, masks):
    """Why an image cannot be used, or None."""
    folder, lines = captions.get(number, (label, []))
    if size is None:
        return f'cannot be decoded ({IMAGES})'
    if folder != label:
        return f'captions lie in class_{folder:05d}, label is {label}'
    if len(lines) < CAPTIONS_PER_IMAGE:
        return f'{len(lines)} captions instead of {CAPTIONS_PER_IMAGE}' if number in captions else 'no caption file'
    if masks is not None and number not in masks:
        return 'no mask that can be decoded'
    if masks is not None and masks[number][0] != size:
        return f'image is {size[1]} x {size[0]}, mask {masks[number][0][1]} x {masks[number][0][0]}'
    return None


def _file_name(number):
    return f'image_{number:05d}.jpg'


def _checksums(files):
    """SHA-256 of what was read, but for an unpacked folder. Nobody publishes one for the captions: so the user's copy is put on record."""
    checksums = {}
    for name, path in zip((IMAGES, LABELS, CAPTIONS, MASKS), files):
        if path and path.is_file():
            with open(path, 'rb') as file:
                checksums[name] = hashlib.file_digest(file, 'sha256').hexdigest()
    return checksums
