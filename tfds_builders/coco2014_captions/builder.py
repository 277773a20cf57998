"""MS-COCO 2014 with captions, objects and masks, and VisDial's dialogues.

In the splits of the text-to-image papers.
"""

import cv2
import tensorflow_datasets as tfds
from absl import logging

from tfds_builders import files, schema, texts
from tfds_builders.coco2014_captions import annotations, pictures, vectors
from tfds_builders.coco2014_captions.annotations import MASK_SIZE, MAX_OBJECTS
from tfds_builders.coco2014_captions.categories import CATEGORIES
from tfds_builders.coco2014_captions.visdial import Dialogs
from tfds_builders.errors import DataError, quoted
from tfds_builders.manual import SHOWN, ManualBuilder
from tfds_builders.old_downloads import EMBEDDING, Texts

URL = 'http://images.cocodataset.org/'
ANNOTATIONS = 'annotations_trainval2014.zip'
# ours -> COCO's
SPLITS = {'train': 'train', 'validation': 'val'}
CAPTIONS_PER_IMAGE = 5
# how far the shape of a picture may be from that of its annotations: a smaller copy is rounded to
# whole pixels
ASPECT = 1.05
VISDIAL = [
    f'visdial_{part}.{kind}'
    for part in ('1.0_train', '0.9_train', '0.9_val')
    for kind in ('json', 'zip')
]


class Coco2014Captions(ManualBuilder):
    """Photographs of everyday scenes: 123,287, with captions and outlined objects.

    Each has five captions; objects are of 80 categories.
    """

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'First version.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
Put these into the manual folder (which must exist), or leave them out, and they are fetched
(20.4 GB):
  train2014.zip, val2014.zip   the pictures, or the folders train2014/ and val2014/:
                               {URL}zips/train2014.zip (13.5 GB), .../val2014.zip (6.6 GB)
  {ANNOTATIONS}
                               or the folder annotations/ that it unpacks to:
                               {URL}annotations/{ANNOTATIONS} (0.25 GB)
Only for coco2014_captions/dialogs, and never fetched; one of the two, .zip or the .json inside
(https://visualdialog.org/data):
  visdial_1.0_train.zip        https://www.dropbox.com/s/ix8keeudqrd8hn8/visdial_1.0_train.zip
  visdial_0.9_train.zip and visdial_0.9_val.zip
                               https://s3.amazonaws.com/visual-dialog/v0.9/visdial_0.9_train.zip,
                               .../visdial_0.9_val.zip
Only for coco2014_captions/embeddings, and never fetched; a split without vectors is left out, and
its pictures are not needed:
  train2014_ex_t7.tar.gz       vectors of Reed et al. (ICML 2016), .tar.gz, .zip, or the folder
                               train2014_ex_t7/. Google Drive, by browser:
                               https://drive.google.com/file/d/0B0ywwgffWnLLamltREhDRjlaT3M/view
                               or StackGAN's coco.zip or coco/:
                               https://drive.google.com/file/d/0B3y_msrWZaXLQXVzOENCY2E3TlU/view
  val2014_ex_t7.tar.gz         the same of val2014, where you have it; it is not published"""
    HOMEPAGE = 'https://cocodataset.org'
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name='plain', description='Images, captions, objects and their masks.'
        ),
        tfds.core.BuilderConfig(name='captions', description='Images and captions.'),
        tfds.core.BuilderConfig(
            name='dialogs',
            description='As plain, and the dialogues of VisDial; images without one are left out.',
        ),
        tfds.core.BuilderConfig(
            name='embeddings',
            description='As plain, and a stored sentence vector of each of five captions '
            '(char-CNN-RNN, 1024); splits without vectors are left out.',
        ),
    ]

    def _info(self):
        features = schema.features('image', 'captions', 'file_name', 'image_id')
        metadata = {
            'split_rule': 'coco2014',
            'captions_per_image': CAPTIONS_PER_IMAGE,
            'flip': self.builder_config.name != 'dialogs',
        }
        if self.builder_config.name != 'captions':
            features['objects'] = schema.objects(CATEGORIES.values(), crowds=True)
            features['object_masks'] = schema.feature('object_masks')
            metadata |= {'max_objects': MAX_OBJECTS, 'mask_size': MASK_SIZE}
        if self.builder_config.name == 'dialogs':
            features['dialog'] = schema.dialog()
        if self.builder_config.name == 'embeddings':
            shape = CAPTIONS_PER_IMAGE, EMBEDDING
            features['embedding'] = schema.feature('embedding', shape=shape)
        return self.described(features, metadata)

    def _split_generators(self, dl_manager):
        # a folder that the user names may be empty: all but the dialogues can be fetched
        folder = self.manual_folder(empty=True)
        config = self.builder_config.name
        given = (
            self._dialog_files(folder)
            if config == 'dialogs'
            else self._vector_files(folder)
            if config == 'embeddings'
            else []
        )
        stored, broken = vectors.read(given) if config == 'embeddings' else (None, {})
        splits = {split: part for split, part in SPLITS.items() if stored is None or part in stored}
        for split in SPLITS.keys() - splits.keys():
            logging.warning(
                'Split %s is left out: %s has no sentence vectors of its images.',
                split,
                ' and '.join(map(quoted, given)),
            )
        archives, notes = self._archives(folder, splits.values())
        self.require_space(*archives.values(), *(given if stored else ()))
        dialogs = Dialogs(given) if config == 'dialogs' else None

        problems, parts, known, replaced = {}, {}, set(), 0
        for split, part in splits.items():
            images, captions = annotations.read_captions(notes, part)
            embeddings = None
            if stored is not None:
                captions, embeddings, _, broken, changed = _joined(
                    images, captions, stored.pop(part), broken
                )
                replaced += changed
            objects = (
                annotations.read_objects(notes, part) if 'objects' in self.info.features else None
            )
            known |= {image.id for image in images}
            chosen = [image for image in images if dialogs is None or image.id in dialogs]
            sizes = pictures.sizes(archives[part], [image.file_name for image in chosen])
            bad = {
                image.file_name: reason
                for image in chosen
                if (
                    reason := broken.get(image.id)
                    or _problem(
                        image, sizes, captions, objects, dialogs, embeddings, archives[part]
                    )
                )
            }
            good = {image.file_name: image for image in chosen if image.file_name not in bad}
            if not good and self.on_error == 'skip' or not chosen:
                raise DataError(
                    f'Split {split} has no image: none of the {len(images)} in '
                    f'captions_{part}2014.json can be used. '
                    f'Complete {archives[part]}{" and the dialogues" if dialogs else ""}.'
                )
            problems |= bad
            parts[split] = archives[part], good, captions, objects, dialogs, embeddings
            if dialogs:
                self._count(
                    f'{split}_without_dialog',
                    len(images) - len(chosen),
                    'images have no dialogue and are left out',
                )
        if dialogs:
            self._count(
                'dialogs_not_coco2014',
                sum(image_id not in known for image_id in dialogs),
                'dialogues are about other images',
            )
        if stored is not None:
            texts.report_replaced(replaced, notes, self.info.metadata)
        self.report(problems, *archives.values())
        self._checksums(folder, notes, archives, given)
        self.info.metadata['dropped_objects'] = {}
        return {split: self._generate_examples(*part) for split, part in parts.items()}

    def _archives(self, folder, parts):
        """Return ({COCO's split: pictures}, annotations): archives or folders.

        What is missing is fetched.
        """
        own = {
            f'{part}2014': files.first_of(folder, f'{part}2014.zip', f'{part}2014')
            for part in parts
        }
        urls = [f'{URL}zips/{name}.zip' for name, path in own.items() if path is None]
        # room for the archives and for their copies in the data set, before hours of downloads
        if urls:
            sizes = {url: self.url_infos[url].size for url in urls}
            come = sum(files.come(url, self.downloads, size) for url, size in sizes.items())
            files.require_space(
                self._data_dir_root,
                2 * sum(sizes.values()) - come,
                f'for {", ".join(urls)} and what is built of it',
            )
            logging.warning('Fetching what has not come yet of %s', ', '.join(urls))
        notes = files.first_of(folder, ANNOTATIONS, 'annotations') or self.fetched(
            folder, f'{URL}annotations/{ANNOTATIONS}'
        )
        return {
            name.removesuffix('2014'): path or self.fetched(folder, f'{URL}zips/{name}.zip')
            for name, path in own.items()
        }, notes

    def _dialog_files(self, folder):
        """Return VisDial's files that cover COCO 2014: the training file of 1.0, or both of 0.9.

        The images of 1.0's validation and test parts are not COCO's and have numbers of their own,
        so these files are never joined.
        """
        if files.first_of(folder, *VISDIAL[:2]):
            return [files.first_of(folder, *VISDIAL[:2])]
        if not files.first_of(folder, *VISDIAL):
            self.given(folder, *VISDIAL, what='VisDial')
        return [self.given(folder, *VISDIAL[2:4]), self.given(folder, *VISDIAL[4:])]

    def _vector_files(self, folder):
        return vectors.find(folder) or self.given(
            folder,
            *vectors.ICML['train'],
            *vectors.STACKGAN,
            *vectors.ICML['val'],
            what=(
                f'{vectors.ICML["train"][0]} with the sentence vectors (or build '
                'coco2014_captions/plain, which has none)'
            ),
        )

    def _count(self, name, number, what):
        self.info.metadata[name] = number
        if number:
            logging.warning('%d %s (metadata %s)', number, what, name)

    def _checksums(self, folder, notes, archives, given):
        """Return the SHA-256 of what was read, except of a picture archive of the published size.

        That was compared when it was fetched, every picture in it has its own checksum (CRC) and
        was decoded, and 20 GB would have to be read once more.
        """
        published = {info.filename: info.size for info in self.url_infos.values()}
        zips = [
            path
            for path in archives.values()
            if path.is_file() and path.stat().st_size != published.get(path.name)
        ]
        kinds = ('captions', 'instances') if 'objects' in self.info.features else ('captions',)
        names = {f'{kind}_{part}2014.json' for kind in kinds for part in archives}
        notes = files.walk(notes, names)[0] if notes.is_dir() else [notes]
        self.checksums(*notes, *zips, *given)

    def _generate_examples(self, archive, images, captions, objects, dialogs, embeddings):
        dropped = self.info.metadata['dropped_objects']

        def record(name, data):
            image = images[name]
            one = {
                'image': data,
                'captions': captions[image.id],
                'file_name': name,
                'image_id': image.id,
            }
            bad = {}
            if objects is not None:
                boxes, labels, crowds, masks, bad = annotations.place(
                    image, objects.pop(image.id, ())
                )
                one['objects'] = [
                    {'bbox': tfds.features.BBox(*box), 'label': label, 'is_crowd': crowd}
                    for box, label, crowd in zip(boxes, labels, crowds)
                ]
                one['object_masks'] = cv2.imencode('.png', masks.reshape(-1, MASK_SIZE))[
                    1
                ].tobytes()
            if dialogs:
                questions, answers = dialogs.of(image.id)
                one['dialog'] = {'questions': questions, 'answers': answers}
            if embeddings is not None:
                one['embedding'] = embeddings.pop(image.id)
            return one, bad

        before = len(dropped)
        for name, (one, bad) in pictures.each(archive, images, record):
            dropped.update({f'{name} object {number}': reason for number, reason in bad.items()})
            yield name, one
        if len(dropped) > before:
            shown = [
                f'{name}: {reason}'
                for name, reason in list(dropped.items())[before : before + SHOWN]
            ]
            logging.warning(
                'Left out %d objects of %s (metadata dropped_objects): %s',
                len(dropped) - before,
                quoted(archive),
                '; '.join(shown),
            )


def _joined(images, captions, stored, broken):
    """Return `texts.join` of a split's captions and the vectors of its listed images."""
    rows = {
        image.id: stored.embeddings[image.id] for image in images if image.id in stored.embeddings
    }
    return texts.join(captions, Texts(stored.captions, rows, {}), CAPTIONS_PER_IMAGE, broken)


def _problem(image, sizes, captions, objects, dialogs, embeddings, archive):
    """Return why an image cannot be used, or None."""
    size = sizes.get(image.file_name)
    if size is None:
        return (
            f'cannot be decoded ({archive.name})'
            if image.file_name in sizes
            else f'is not in {archive.name}'
        )
    if image.id not in captions:
        return 'no caption'
    if embeddings is not None and image.id not in embeddings:
        return 'no sentence vectors'
    if embeddings is not None and len(captions[image.id]) != CAPTIONS_PER_IMAGE:
        return f'{len(captions[image.id])} captions instead of {CAPTIONS_PER_IMAGE}'
    if (
        objects is not None
        and not 1 / ASPECT < size[0] * image.width / (size[1] * image.height) < ASPECT
    ):
        wanted = f'{image.width} x {image.height}'
        return f'image is {size[1]} x {size[0]}, its annotations are for {wanted}'
    return dialogs.problem(image.id) if dialogs else None
