"""Folders of pictures with captions, in any of the layouts that people have."""

import collections
import csv
import hashlib
import json
import math
import os
import pathlib
import posixpath
from typing import NamedTuple

import numpy as np

from tfds_builders.errors import DataError
from tfds_builders.files import clean, storable, text_of

PICTURES = ('.jpg', '.jpeg', '.png', '.gif', '.bmp', '.webp', '.tif', '.tiff')
TABLES = ('captions.jsonl', 'metadata.jsonl', 'captions.csv', 'metadata.csv')
SPLITS = {
    'train': 'train',
    'training': 'train',
    'validation': 'validation',
    'val': 'validation',
    'valid': 'validation',
    'dev': 'validation',
    'test': 'test',
}
FILE_NAMES, TEXTS = ('file_name', 'filename', 'file', 'image'), ('captions', 'caption', 'text')
# of the pictures, for each of validation and test
HELD_OUT = 0.1
# captions of a picture
MOST = 100
# bytes at each end of a file, by which files of one size differ
END = 4096
NO_TEXT = 'holds NUL characters: save it as UTF-8, or as UTF-16 with a byte order mark'
NO_UTF8 = 'is not UTF-8: rename the file'


class Entry(NamedTuple):
    # path in the folder, with /
    file: str
    captions: list[str]
    split: str = ''
    label: str = ''
    # of (x, y, width, height) in pixels
    boxes: list = []
    box_labels: list = []


class Folder(NamedTuple):
    entries: list[Entry]
    # record -> why it cannot be used
    problems: dict[str, str]
    layout: str
    # pictures that no caption file names
    unnamed: int
    # pictures of more than MOST captions, of which the first are used
    crowded: int
    # by which the pictures were split
    rule: str
    # of file names, sizes, the ends of files of one size, and captions
    digest: str


def scan(root) -> Folder:
    """Read the captions and the names and sizes of the pictures, not the pictures.

    Raises DataError where there is nothing to read.
    """
    root = pathlib.Path(root)
    sizes = {
        file.relative_to(root).as_posix(): file.stat().st_size
        for file in sorted(root.rglob('*'))
        if file.suffix.lower() in PICTURES and file.is_file()
    }
    if not sizes:
        raise DataError(
            f'{root} holds no picture ({", ".join(PICTURES)}). Point manual_dir to a folder that '
            'does.'
        )
    tables = {name: sorted(root.rglob(name)) for name in TABLES}
    name = next((name for name in TABLES if tables[name]), None)
    problems = {}
    if name:
        entries = [
            entry for table in tables[name] for entry in _from_table(root, table, sizes, problems)
        ]
        entries = _unique(entries, problems)
    else:
        entries = _beside(root, sizes, problems)
    if not entries:
        first = ''.join(f' {record}: {problem}.' for record, problem in list(problems.items())[:1])
        raise DataError(
            f'{root} has {len(sizes)} pictures and no caption for any of them. Write {TABLES[0]} '
            f'(one {{"file_name": "a.jpg", '
            f'"text": "..."}} a line), captions.csv (file,caption), or a .txt for each picture, '
            f'one caption a line.{first}'
        )
    crowded = sum(len(entry.captions) > MOST for entry in entries)
    entries, rule = _split([entry._replace(captions=entry.captions[:MOST]) for entry in entries])
    common = collections.Counter(sizes.values())
    known = [
        (file, size, _ends(root / file) if common[size] > 1 else '')
        for file, size in sorted(sizes.items())
    ]
    digest = hashlib.sha256(json.dumps([known, entries, problems]).encode()).hexdigest()[:10]
    unnamed = len(sizes.keys() - {entry.file for entry in entries} - set(problems))
    problems = {storable(record): storable(problem) for record, problem in problems.items()}
    return Folder(
        entries, problems, name or 'a .txt for each picture', unnamed, crowded, rule, digest
    )


def _ends(path):
    """Return a hash of the first and last bytes of a file."""
    try:
        with open(path, 'rb') as file:
            data = file.read(END)
            file.seek(max(0, file.seek(0, os.SEEK_END) - END))
            return hashlib.sha256(data + file.read()).hexdigest()
    except OSError:
        # the check of the pictures says so
        return ''


def _beside(root, sizes, problems):
    """Read a text file of the same name for each picture, one caption a line."""
    entries = []
    for file in sizes:
        text = (root / file).with_suffix('.txt')
        content = text_of(text.read_bytes()) if text.exists() else ''
        captions = clean(content)
        if storable(file) != file:
            problems[file] = f'its name {NO_UTF8}'
        elif '\0' in content:
            problems[file] = f'{text.name} {NO_TEXT}'
        elif captions:
            entries.append(Entry(file, captions))
        else:
            problems[file] = (
                f'{text.name} has no caption'
                if text.exists()
                else f'there is no {text.name} in its folder'
            )
    return entries


def _from_table(root, table, sizes, problems):
    """Read the lines of a captions file; its paths are relative to its own folder."""
    place = table.relative_to(root).as_posix()
    rows = (
        _json_lines(table, place, problems)
        if table.suffix == '.jsonl'
        else _csv_rows(table, place, problems)
    )
    for where, row in rows:
        try:
            entry = _entry(row)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            problems[where] = str(error)
            continue
        # by the names alone: a picture may be a link to where Hugging Face, DVC or git-annex keep
        # it
        file = posixpath.normpath(posixpath.join(posixpath.dirname(place), entry.file))
        if posixpath.isabs(file) or file.split('/')[0] == '..':
            problems[where] = f'{entry.file} leaves the folder'
        elif file not in sizes:
            # False for names that no disk takes
            there = os.path.exists(root / file)
            problems[where] = f'{entry.file} is ' + (
                f'not a picture ({", ".join(PICTURES)}), or in a linked folder'
                if there
                else 'missing'
            )
        elif not entry.captions:
            problems[where] = f'{entry.file} has no caption'
        else:
            yield entry._replace(file=file)


def _json_lines(table, place, problems):
    # strings of JSON may hold other line separators
    for number, line in enumerate(text_of(table.read_bytes()).split('\n'), start=1):
        if not line.strip():
            continue
        try:
            if '\0' in line:
                raise ValueError(f'it {NO_TEXT}')
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError('not an object in braces')
        except (ValueError, RecursionError) as error:
            problems[f'{place} line {number}'] = f'no JSON ({error})'
            continue
        yield f'{place} line {number}', row


def _csv_rows(table, place, problems):
    """Return the rows of two columns, file and caption, or of those that a header names.

    Several rows of one file are several captions. Each line is a row of its own, so that a quote
    that is not closed spoils no other row.
    """
    csv.field_size_limit(1 << 24)
    header, named, found = [], False, {}
    for number, line in enumerate(
        text_of(table.read_bytes()).replace('\r\n', '\n').replace('\r', '\n').split('\n'), start=1
    ):
        try:
            if '\0' in line:
                raise csv.Error(f'it {NO_TEXT}')
            values = next(csv.reader([line], strict=True), [])
        except csv.Error as error:
            problems[f'{place} line {number}'] = (
                f'no row of CSV ({error}); a row is one line, quotes around a caption are closed, '
                'inside it doubled'
            )
            continue
        if number == 1:
            header = [name.strip().lower() for name in values]
            named = bool(set(header) & set(FILE_NAMES)) and bool(set(header) & set(TEXTS))
        if not any(value.strip() for value in values) or number == 1 and named:
            continue
        if len(values) < 2 or named and len(values) != len(header):
            problems[f'{place} line {number}'] = (
                f'{len(values)} columns instead of {len(header) if named else 2}'
            )
            continue
        row = (
            {name: value for name, value in zip(header, values) if value.strip()}
            if named
            else {'file_name': values[0], 'text': values[1]}
        )
        key = next((row[name] for name in FILE_NAMES if name in row), f' {number}')
        texts = [row.pop(name) for name in TEXTS if name in row]
        if key in found:
            found[key][1]['captions'] += texts
        else:
            found[key] = f'{place} line {number}', row | {'captions': texts}
    yield from found.values()


def _entry(row) -> Entry:
    """Return one row of a table as an entry; null means that there is no value.

    Raises ValueError that says what is wrong with it.
    """
    row = {name: value for name, value in row.items() if value is not None}
    file = next((row[name] for name in FILE_NAMES if name in row), None)
    if not isinstance(file, str) or not file.strip():
        raise ValueError(f'it lacks file_name (it has {", ".join(row) or "nothing"})')
    if storable(file) != file:
        raise ValueError(f'its file_name {file!a} {NO_UTF8}')
    texts = next((row[name] for name in TEXTS if name in row), None)
    if texts is None:
        raise ValueError(f'{file} lacks text or captions (it has {", ".join(row)})')
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'the captions of {file} are neither a text nor a list of texts')
    if any('\0' in text for text in texts):
        raise ValueError(f'a caption of {file} {NO_TEXT}')
    split = str(row.get('split', '')).strip().lower()
    if split and split not in SPLITS:
        raise ValueError(f'{file} has the split {split!r}; expected train, validation or test')
    label = row.get('label', '')
    if not isinstance(label, str | int | float):
        raise ValueError(f'the label of {file} must be a text')
    objects = row.get('objects', {})
    if not isinstance(objects, dict):
        raise ValueError(
            f'objects of {file} must be {{"bbox": [[x, y, width, height], ...], "categories": '
            f'[...]}}'
        )
    objects = {'bbox': [], 'categories': []} | {
        name: value for name, value in objects.items() if value is not None
    }
    boxes, labels = row.get('boxes', objects['bbox']), row.get('box_labels', objects['categories'])
    return Entry(
        file.strip(),
        clean('\n'.join(' '.join(text.split()) for text in texts)),
        SPLITS.get(split, ''),
        storable(str(label)).strip(),
        _boxes(file, boxes),
        _labels(file, boxes, labels),
    )


def _boxes(file, boxes):
    try:
        boxes = [tuple(float(value) for value in box) for box in boxes]
        right = all(
            len(box) == 4 and all(map(math.isfinite, box)) and min(box[2:]) > 0 for box in boxes
        )
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        raise ValueError(
            f'the boxes of {file} must be a list of [x, y, width, height] in pixels, finite and '
            'not empty'
        )
    return boxes


def _labels(file, boxes, labels):
    if not isinstance(labels, list) or None in labels:
        raise ValueError(f'the box_labels of {file} must be a list of names')
    labels = [storable(str(label)) for label in labels] or ['object'] * len(boxes)
    if len(labels) != len(boxes):
        raise ValueError(f'{file} has {len(boxes)} boxes and {len(labels)} box_labels')
    return labels


def _unique(entries, problems):
    merged = {}
    for entry in entries:
        if entry.file in merged:
            problems[f'{entry.file} (again)'] = (
                'file_name stands more than once; put all captions of a picture into one line'
            )
        else:
            merged[entry.file] = entry
    return list(merged.values())


def _split(entries):
    """Return (entries, each with its split, the rule).

    The split is what the entries say, else the folder train, validation or test, else a seeded
    draw.
    """
    rule = 'given'
    if not any(entry.split for entry in entries):
        tops = {entry.file: entry.file.split('/')[0].lower() for entry in entries}
        if {'train', 'training'} & set(tops.values()):
            rule = 'folders'
            entries = [entry._replace(split=SPLITS.get(tops[entry.file], '')) for entry in entries]
        else:
            held_out = round(100 * HELD_OUT)
            rule = f'random{100 - 2 * held_out}_{held_out}_{held_out}_seed0'
    have = {entry.split for entry in entries}
    entries = sorted(
        (entry._replace(split=entry.split or 'train') for entry in entries),
        key=lambda entry: entry.file,
    )
    missing = [split for split in ('validation', 'test') if split not in have]
    if rule in ('given', 'folders'):
        missing = [split for split in missing if split == 'validation']
        rule += f', {HELD_OUT:.0%} of train drawn for validation (seed 0)' if missing else ''
    for split in missing:
        train = [i for i, entry in enumerate(entries) if entry.split == 'train']
        whole = entries if rule.startswith('random') else train
        count = max(1, round(HELD_OUT * len(whole))) if len(train) > 2 else 0
        for i in np.random.RandomState(0).permutation(train)[:count]:
            entries[i] = entries[i]._replace(split=split)
    return entries, rule
