"""What a folder of pictures with captions holds, in any of the layouts that people have."""
import csv
import hashlib
import io
import json
import math
import pathlib
from typing import NamedTuple

import numpy as np

from tfds_builders.errors import DataError
from tfds_builders.files import clean, text_of

PICTURES = ('.jpg', '.jpeg', '.png', '.gif', '.bmp', '.webp', '.tif', '.tiff')
TABLES = ('captions.jsonl', 'metadata.jsonl', 'captions.csv', 'metadata.csv')
SPLITS = {'train': 'train', 'training': 'train', 'validation': 'validation', 'val': 'validation', 'valid': 'validation', 'dev': 'validation', 'test': 'test'}
FILE_NAMES, TEXTS = ('file_name', 'filename', 'file', 'image'), ('captions', 'caption', 'text')
HELD_OUT = .1          # of the pictures, for each of validation and test


class Entry(NamedTuple):
    file: str                  # path in the folder, with /
    captions: list[str]
    split: str = ''
    label: str = ''
    boxes: list = []           # of (x, y, width, height) in pixels
    box_labels: list = []


class Folder(NamedTuple):
    entries: list[Entry]
    problems: dict[str, str]   # record -> why it cannot be used
    layout: str
    unnamed: int               # pictures that no caption file names
    rule: str                  # by which the pictures were split
    digest: str                # of file names, sizes and captions


def scan(root) -> Folder:
    """Reads the captions and the names and sizes of the pictures, not the pictures. Raises DataError where there is nothing to read."""
    root = pathlib.Path(root)
    sizes = {file.relative_to(root).as_posix(): file.stat().st_size for file in sorted(root.rglob('*')) if file.suffix.lower() in PICTURES and file.is_file()}
    if not sizes:
        raise DataError(f'{root} holds no picture ({", ".join(PICTURES)}). Point manual_dir to a folder that does.')
    tables = {name: sorted(root.rglob(name)) for name in TABLES}
    name = next((name for name in TABLES if tables[name]), None)
    problems = {}
    if name:
        entries = [entry for table in tables[name] for entry in _from_table(root, table, sizes, problems)]
        entries = _unique(entries, problems)
    else:
        entries = _beside(root, sizes, problems)
    if not entries:
        first = ''.join(f' {record}: {problem}.' for record, problem in list(problems.items())[:1])
        raise DataError(f'{root} has {len(sizes)} pictures and no caption for any of them. Write {TABLES[0]} (one {{"file_name": "a.jpg", '
                        f'"text": "..."}} a line), captions.csv (file,caption), or a .txt beside each picture, one caption a line.{first}')
    entries, rule = _split(entries)
    digest = hashlib.sha256(json.dumps([sorted(sizes.items()), entries, problems]).encode()).hexdigest()[:10]
    return Folder(entries, problems, name or 'a .txt beside each picture', len(sizes.keys() - {e.file for e in entries} - set(problems)), rule, digest)


def _beside(root, sizes, problems):
    """A text file of the same name beside each picture, one caption a line."""
    entries = []
    for file in sizes:
        text = (root / file).with_suffix('.txt')
        captions = clean(text_of(text.read_bytes())) if text.exists() else []
        if captions:
            entries.append(Entry(file, captions))
        else:
            problems[file] = f'{text.name} has no caption' if text.exists() else f'there is no {text.name} beside it'
    return entries


def _from_table(root, table, sizes, problems):
    """The lines of a captions file; its paths are relative to its own folder."""
    place = table.relative_to(root).as_posix()
    rows = _json_lines(table, place, problems) if table.suffix == '.jsonl' else _csv_rows(table, place, problems)
    for where, row in rows:
        try:
            entry = _entry(row)
        except (ValueError, TypeError, KeyError) as error:
            problems[where] = str(error)
            continue
        path = (table.parent / entry.file).resolve()
        if not path.is_relative_to(root.resolve()):
            problems[where] = f'{entry.file} leaves the folder'
            continue
        file = path.relative_to(root.resolve()).as_posix()
        if file not in sizes:
            problems[where] = f'{entry.file} is missing' if not path.exists() else f'{entry.file} is no picture ({", ".join(PICTURES)})'
        elif not entry.captions:
            problems[where] = f'{entry.file} has no caption'
        else:
            yield entry._replace(file=file)


def _json_lines(table, place, problems):
    for number, line in enumerate(text_of(table.read_bytes()).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError('not an object in braces')
        except ValueError as error:
            problems[f'{place} line {number}'] = f'no JSON ({error})'
            continue
        yield f'{place} line {number}', row


def _csv_rows(table, place, problems):
    """Two columns, file and caption; more and other ones where a header names them. Several rows of one file are several captions."""
    csv.field_size_limit(1 << 24)
    rows = list(csv.reader(io.StringIO(text_of(table.read_bytes()))))
    header = [name.strip().lower() for name in rows[0]] if rows else []
    named = bool(set(header) & set(FILE_NAMES)) and bool(set(header) & set(TEXTS))
    found = {}
    for number, values in enumerate(rows[named:], start=1 + named):
        if not any(value.strip() for value in values):
            continue
        if len(values) < 2 or named and len(values) != len(header):
            problems[f'{place} line {number}'] = f'{len(values)} columns instead of {len(header) if named else 2}'
            continue
        row = {name: value for name, value in zip(header, values) if value.strip()} if named else {'file_name': values[0], 'text': values[1]}
        key = next((row[name] for name in FILE_NAMES if name in row), f' {number}')
        texts = [row.pop(name) for name in TEXTS if name in row]
        if key in found:
            found[key][1]['captions'] += texts
        else:
            found[key] = f'{place} line {number}', row | {'captions': texts}
    yield from found.values()


def _entry(row) -> Entry:
    """One row of a table. Raises ValueError that says what is wrong with it."""
    file = next((row[name] for name in FILE_NAMES if name in row), None)
    if not isinstance(file, str) or not file.strip():
        raise ValueError(f'it lacks file_name (it has {", ".join(row) or "nothing"})')
    texts = next((row[name] for name in TEXTS if name in row), None)
    if texts is None:
        raise ValueError(f'{file} lacks text or captions (it has {", ".join(row)})')
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'the captions of {file} are neither a text nor a list of texts')
    split = str(row.get('split', '')).strip().lower()
    if split and split not in SPLITS:
        raise ValueError(f'{file} has the split {split!r}; expected train, validation or test')
    objects = row.get('objects', {})
    if not isinstance(objects, dict):
        raise ValueError(f'objects of {file} must be {{"bbox": [[x, y, width, height], ...], "categories": [...]}}')
    boxes, labels = row.get('boxes', objects.get('bbox', [])), row.get('box_labels', objects.get('categories', []))
    return Entry(file.strip(), clean('\n'.join(' '.join(text.split()) for text in texts)), SPLITS.get(split, ''), str(row.get('label', '')).strip(),
                 _boxes(file, boxes), _labels(file, boxes, labels))


def _boxes(file, boxes):
    try:
        boxes = [tuple(float(value) for value in box) for box in boxes]
        right = all(len(box) == 4 and all(map(math.isfinite, box)) and min(box[2:]) > 0 for box in boxes)
    except (TypeError, ValueError):
        right = False
    if not right:
        raise ValueError(f'the boxes of {file} must be a list of [x, y, width, height] in pixels, finite and not empty')
    return boxes


def _labels(file, boxes, labels):
    labels = [str(label) for label in labels] or ['object'] * len(boxes)
    if len(labels) != len(boxes):
        raise ValueError(f'{file} has {len(boxes)} boxes and {len(labels)} box_labels')
    return labels


def _unique(entries, problems):
    kept = {}
    for entry in entries:
        if entry.file in kept:
            problems[f'{entry.file} (again)'] = 'file_name stands more than once; put all captions of a picture into one line'
        else:
            kept[entry.file] = entry
    return list(kept.values())


def _split(entries):
    """(entries, each with its split, the rule): as they say, else by folders train, validation, test, else a seeded draw."""
    rule = 'given'
    if not any(entry.split for entry in entries):
        tops = {entry.file: entry.file.split('/')[0].lower() for entry in entries}
        if {'train', 'training'} & set(tops.values()):
            rule, entries = 'folders', [entry._replace(split=SPLITS.get(tops[entry.file], '')) for entry in entries]
        else:
            rule = f'random{round(100 - 200 * HELD_OUT)}_{round(100 * HELD_OUT)}_{round(100 * HELD_OUT)}_seed0'
    have = {entry.split for entry in entries}
    entries = sorted((entry._replace(split=entry.split or 'train') for entry in entries), key=lambda entry: entry.file)
    missing = [split for split in ('validation', 'test') if split not in have]
    if rule in ('given', 'folders'):
        missing = [split for split in missing if split == 'validation']
        rule += f', {HELD_OUT:.0%} of train drawn for validation (seed 0)' if missing else ''
    for split in missing:
        train = [i for i, entry in enumerate(entries) if entry.split == 'train']
        count = max(1, round(HELD_OUT * len(entries))) if len(train) > 2 else 0
        for i in np.random.RandomState(0).permutation(train)[:count]:
            entries[i] = entries[i]._replace(split=split)
    return entries, rule
