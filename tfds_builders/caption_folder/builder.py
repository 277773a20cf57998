"""A user's folder of pictures with captions."""

import concurrent.futures
import os
import pathlib
import re

import tensorflow_datasets as tfds
from tqdm import tqdm

from tfds_builders import schema
from tfds_builders.caption_folder import report
from tfds_builders.caption_folder.scan import LEAST, scan
from tfds_builders.errors import DataError, home, quoted
from tfds_builders.files import read_bytes
from tfds_builders.manual import ManualBuilder
from tfds_builders.pictures import NotUsable, stored

# that check pictures
THREADS = 8


class CaptionFolder(ManualBuilder):
    """Pictures and captions of a folder.

    There is one data set for each folder, built again when its files change.
    """

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'First version.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Give a folder of pictures with --manual_dir (in training --config.data.manual_dir). Its captions
stand in one of these:
  captions.jsonl or metadata.jsonl   a line {"file_name": "a/b.jpg", "text": "..."} a picture;
                                     "captions": [...] for several; optional "split", "label",
                                     "boxes": [[x, y, width, height], ...] in pixels,
                                     "box_labels": [...]
  captions.csv or metadata.csv       a header file_name,text (optional split,label), then rows;
                                     several rows of a file are several captions
  a .txt next to each picture        of the same name, one caption a line
Splits: by "split" (train, validation, test), else by folders train/, validation/, test/, else
drawn: 80, 10, 10 %."""
    BUILDER_CONFIGS = []

    def __init__(self, *, manual_dir=None, config=None, **kwargs):
        if not manual_dir:
            raise DataError(f'caption_folder needs a folder.\n{self.MANUAL_DOWNLOAD_INSTRUCTIONS}')
        root = home(manual_dir)
        if not os.path.isdir(root):
            what = 'is a file: unpack it' if os.path.exists(root) else 'does not exist'
            raise DataError(
                f'{quoted(root)} {what}. Give a folder of pictures with their captions '
                '(--manual_dir, in training --config.data.manual_dir).'
            )
        self.folder = scan(root)
        # a name of the longest kind leaves no room for the digest
        name = re.sub(r'\W+', '_', root.resolve().name).strip('_')[:60] or 'folder'
        super().__init__(
            manual_dir=root,
            config=tfds.core.BuilderConfig(
                name=f'{name}-{self.folder.digest}', description=str(root.name)
            ),
            **kwargs,
        )

    def _info(self):
        entries = self.folder.entries
        features = schema.features('image', 'captions', 'file_name')
        metadata = {'split_rule': self.folder.rule, 'layout': self.folder.layout, 'flip': True}
        labels = sorted({entry.label for entry in entries} - {''})
        if labels:
            label = schema.feature('label', names=labels)
            features |= schema.features('class_name', label=label)
        kinds = sorted({label for entry in entries for label in entry.box_labels})
        if kinds:
            features['objects'] = schema.objects(kinds)
            metadata['max_objects'] = max(len(entry.boxes) for entry in entries)
        return self.described(features, metadata)

    def _split_generators(self, dl_manager):
        root, entries = self.manual_dir, self.folder.entries
        self.require_space(*(root / entry.file for entry in entries))
        problems = dict(self.folder.problems)
        if 'label' in self.info.features:
            problems |= {
                entry.file: 'has no label, others have one' for entry in entries if not entry.label
            }
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            checked = pool.map(lambda entry: _check(root, entry), entries)
            checked = tqdm(
                checked, f'Checking {root.name}', total=len(entries), unit=' pictures', disable=None
            )
            problems |= {
                entry.file: problem
                for entry, problem in zip(entries, checked)
                if problem and entry.file not in problems
            }
        self.report(problems, root)
        usable = [entry for entry in entries if entry.file not in problems]
        splits = {
            name: [entry for entry in usable if entry.split == name]
            for name in ('train', 'validation', 'test')
        }
        if not splits['train']:
            raise DataError(
                f'{quoted(root)} has no picture for training that can be used ({len(usable)} for '
                f'other splits, {len(problems)} problems). Complete it, or change its splits.'
            )
        if not splits['validation'] and len(splits['train']) < LEAST:
            raise DataError(
                f'{quoted(root)} has {len(splits["train"])} pictures for training that can be used '
                f'and none for validation; {LEAST} are the least, of which one is drawn for it. '
                'Add some.'
            )
        return {
            name: self._generate_examples(members) for name, members in splits.items() if members
        }

    def _generate_examples(self, entries):
        for entry in entries:
            data, (height, width), (source_height, source_width) = stored(
                read_bytes(self.manual_dir / entry.file)
            )
            record = {'image': data, 'captions': entry.captions, 'file_name': entry.file}
            if 'label' in self.info.features:
                record |= {'label': entry.label, 'class_name': entry.label}
            if 'objects' in self.info.features:
                record['objects'] = [
                    {'bbox': _box(box, source_height, source_width), 'label': label}
                    for box, label in zip(entry.boxes, entry.box_labels)
                ]
            yield entry.file, record

    def download_and_prepare(self, **kwargs):
        """Build the data set, and write report.txt and report.png into its folder.

        They are written also where an earlier build was interrupted before it did.
        """
        super().download_and_prepare(**kwargs)
        if not (pathlib.Path(self.data_dir) / 'report.txt').exists():
            print(report.write(self, self.folder))


def _check(root, entry):
    """Return why a picture or its boxes cannot be used, or None."""
    try:
        _, _, (height, width) = stored(read_bytes(root / entry.file))
    except (NotUsable, DataError) as error:
        return str(error).rstrip('.')
    for x, y, w, h in entry.boxes:
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            return f'box {[x, y, w, h]} lies outside of {width} x {height} pixels'
    return None


def _box(box, height, width):
    x, y, w, h = box
    return tfds.features.BBox(
        *(min(1.0, max(0.0, v)) for v in (y / height, x / width, (y + h) / height, (x + w) / width))
    )
