"""Folders of pictures with captions, in any of the layouts that people have."""

import collections
import contextlib
import hashlib
import json
import os
import pathlib
import posixpath
import unicodedata
from typing import NamedTuple

import numpy as np

from tfds_builders.caption_folder import tables
from tfds_builders.caption_folder.entries import KNOWN, NO_UTF8, OBJECT, Entry, entry_of
from tfds_builders.caption_folder.tables import NO_TEXT, SPLITS
from tfds_builders.errors import DataError, no_file, quoted
from tfds_builders.files import clean, read_text, storable, walk
from tfds_builders.pictures import ENDINGS

# of a text file with the captions of one picture; the first that there is
TEXTS = ('.txt', '.caption')
# of the pictures, for each of validation and test
HELD_OUT = 0.1
# pictures that others are drawn from for validation
LEAST = 3
# captions of a picture
MOST = 100
# bytes at each end of a file, by which files of one size differ
END = 4096
# of a list in a report, and in a message
SHOWN, FEW = 20, 5


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
    # what was not read, for the report
    notes: list[str]


def scan(root) -> Folder:
    """Read the captions and the names and sizes of the pictures, not the pictures.

    Raises DataError where there is nothing to read.
    """
    root = pathlib.Path(root)
    found, skipped = walk(root, ('',))
    found = [path.relative_to(root).as_posix() for path in found]
    sizes = {file: (root / file).stat().st_size for file in found if file.lower().endswith(ENDINGS)}
    notes = [f'skipped: {count} {what}' for what, count in skipped.items()]
    if not sizes:
        raise DataError(
            '; '.join(
                [f'{quoted(root)} holds no picture ({", ".join(ENDINGS)}){_listed(found)}', *notes]
            )
            + '. Point manual_dir to a folder that does.'
        )
    others = [file for file in found if file not in sizes]
    problems, guessed = {}, []
    # captions.txt may belong to captions.png
    stems = {f'{posixpath.splitext(file)[0]}.txt' for file in sizes}
    named = [file for file in others if tables.rank(file) and file not in stems]
    rows, refused = tables.read(root, named, problems, guessed)
    entries = _unique(_named(root, rows, sizes, problems, notes), problems)
    # a table speaks for its folder and those in it
    spoken = {posixpath.dirname(table) for table in rows}
    alone = [file for file in sizes if not spoken & set(_folders(file))]
    texts = [file for file in others if file.lower().endswith(TEXTS) and file not in rows]
    texts = [file for file in texts if not spoken & set(_folders(file))]
    beside, unused = _beside(root, alone, texts, problems, guessed)
    entries += beside
    if not entries and problems and (rows or len(unused) < len(texts)):
        record, problem = next(iter(problems.items()))
        raise DataError(
            f'No caption of {quoted(root)} can be used ({len(problems)} problems). The first, '
            f'{storable(record)}: {storable(problem)}.'
        )
    notes += refused + tables.not_read(others) + _orphans(root, unused, sizes)
    if not entries:
        left = storable(''.join(f'; {note.strip()}' for note in notes[:FEW]))
        raise DataError(
            f'{quoted(root)} has {len(sizes)} pictures and no caption for any of '
            f'them{_listed(others)}{left}. Write captions.jsonl (one {{"file_name": "a.jpg", '
            '"text": "..."} a line), captions.csv (a header file_name,text, then file and '
            'caption), or a .txt for each picture (a.txt for a.jpg), one caption a line.'
        )
    if guessed:
        names = ', '.join(path.name for path in guessed[:3]) + (', ...' if guessed[3:] else '')
        notes.append(f"not UTF-8, taken for Windows' Latin-1: {len(guessed):,} files ({names})")
    nameless = sum(OBJECT in one.box_labels for one in entries)
    if nameless:
        notes.append(f'pictures with boxes named "{OBJECT}": {nameless:,}')
    crowded = sum(len(one.captions) > MOST for one in entries)
    entries, rule = _split([one._replace(captions=one.captions[:MOST]) for one in entries])
    common = collections.Counter(sizes.values())
    known = [
        (file, size, _ends(root / file) if common[size] > 1 else '')
        for file, size in sorted(sizes.items())
    ]
    digest = hashlib.sha256(json.dumps([known, entries, problems]).encode()).hexdigest()[:10]
    unnamed = len(sizes.keys() - {one.file for one in entries} - set(problems))
    problems = {storable(record): storable(problem) for record, problem in problems.items()}
    layout = ', '.join(
        [
            *sorted({posixpath.basename(table) for table in rows}),
            *(['a text file for each picture'] if beside else []),
        ]
    )
    notes = [storable(note) for note in notes]
    return Folder(entries, problems, layout, unnamed, crowded, rule, digest, notes)


def _listed(files):
    """Return a clause that names files, or nothing."""
    more = f' and {len(files) - FEW} more' if len(files) > FEW else ''
    return storable(f'; it has {", ".join(files[:FEW])}{more}') if files else ''


def _folders(file):
    """Return the folders that a file lies in, the innermost first; '' is the top."""
    folder = posixpath.dirname(file)
    return [folder, *(_folders(folder) if folder else [])]


def _same(name):
    """Return a name as it is compared: a Mac stores accents as letters of their own."""
    return unicodedata.normalize('NFC', name)


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


def _beside(root, files, texts, problems, guessed):
    """Read the text file of each picture, one caption a line: a.txt, a.caption, a.jpg.txt.

    texts: the text files that there are

    Returns the entries, and the text files that belong to no picture.
    """
    entries, by_name, unused = [], {}, dict.fromkeys(texts)
    for text in sorted(texts, key=lambda text: text.lower().endswith(TEXTS[1:])):
        by_name.setdefault(_same(posixpath.splitext(text)[0]), text)
    for file in files:
        stem = posixpath.splitext(file)[0]
        text = by_name.get(_same(stem)) or by_name.get(_same(file))
        unused.pop(text, None)
        try:
            content = read_text(root / text, guessed=guessed) if text else ''
        except DataError as error:
            problems[file] = str(error).rstrip('.')
            continue
        captions = clean(content)
        if storable(file) != file:
            problems[file] = f'its name {NO_UTF8}'
        elif '\0' in content:
            problems[file] = f'{posixpath.basename(text)} {NO_TEXT}'
        elif captions:
            entries.append(Entry(file, captions))
        else:
            problems[file] = (
                f'{posixpath.basename(text)} has no caption' if text else _without(root, stem, file)
            )
    return entries, list(unused)


def _without(root, *stems):
    """Return why a picture has no caption: what is there in place of its text file, or nothing."""
    for text in (stem + ending for stem in stems for ending in TEXTS):
        with contextlib.suppress(OSError):
            if other := no_file(os.stat(root / text)):
                return f'{posixpath.basename(text)} is {other}, not a file'
    return f'there is no {posixpath.basename(stems[0])}.txt in its folder'


def _orphans(root, texts, sizes):
    """Return lines of the report about text files that belong to no picture."""
    lines, names = [], {}
    for text in texts[:SHOWN]:
        folder, file = posixpath.split(text)
        if folder not in names:
            names[folder] = sorted(os.listdir(root / folder))
        stem, near = posixpath.splitext(file)[0], ''
        for name in names[folder]:
            if posixpath.splitext(name)[0] == stem and not name.lower().endswith(TEXTS):
                has = 'has another' if posixpath.join(folder, name) in sizes else 'is not read'
                near = f' ({name} {has})'
        lines.append(f'  {text}{near}')
    if len(texts) > SHOWN:
        lines.append(f'  and {len(texts) - SHOWN} more')
    return [f'text files of no picture: {len(texts):,}', *lines] if texts else []


def _named(root, rows, sizes, problems, notes):
    """Yield the entries of tables, whose paths are relative to their own folders."""
    by_path, by_name = collections.defaultdict(list), collections.defaultdict(list)
    for file in sizes:
        by_path[_same(file).casefold()].append(file)
        by_name[_same(posixpath.basename(file))].append(file)
    unread = set()
    for table, lines in rows.items():
        folder = posixpath.dirname(table)
        for line, row in lines:
            unread |= {name for name in row.keys() - KNOWN if name} | {*tables.texts_in(row)[1:]}
            try:
                one = entry_of(row)
                file = _find(root, folder, one.file, by_path, by_name)
                if not one.captions:
                    raise ValueError(f'{one.file} has no caption')
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                problems[line] = str(error)
                continue
            yield one._replace(file=file)
    if unread:
        notes.append(f'columns that are not read: {", ".join(sorted(unread))}')


def _find(root, folder, name, by_path, by_name):
    """Return the picture that a table of a folder names.

    By the names alone: a picture may be a link to where Hugging Face, DVC or git-annex keep it.
    A name without a folder may be that of a picture further down, if there is one such picture.
    """
    for written in (name, name.replace('\\', '/')):
        path = posixpath.normpath(posixpath.join(folder, written))
        if posixpath.isabs(path):
            path = posixpath.relpath(path, root.resolve().as_posix())
        # on Windows and a Mac, capitals do not matter
        alike = by_path.get(_same(path).casefold(), [])
        found = [file for file in alike if _same(file) == _same(path)] or alike
        if len(found) == 1:
            return found[0]
    if path.split('/')[0] == '..':
        raise ValueError(f'{name} leaves the folder')
    below = [file for file in by_name.get(_same(name), []) if folder in _folders(file)]
    if len(below) == 1:
        return below[0]
    if below:
        raise ValueError(f'{name} is in several folders ({", ".join(below[:2])}): write which')
    # False for names that no disk takes
    if os.path.exists(root / path):
        raise ValueError(
            f'{name} is not a picture ({", ".join(ENDINGS)}), or in a linked or hidden folder'
        )
    raise ValueError(f'{name} is missing')


def _part(file):
    """Return the split that a folder of a file is named after, or nothing."""
    folders = (posixpath.basename(folder).lower() for folder in _folders(file))
    return next((SPLITS[folder] for folder in folders if folder in SPLITS), '')


def _unique(entries, problems):
    merged = {}
    for one in entries:
        if one.file in merged:
            problems[f'{one.file} (again)'] = (
                'file_name stands more than once; put all captions of a picture into one line'
            )
        else:
            merged[one.file] = one
    return list(merged.values())


def _split(entries):
    """Return (entries, each with its split, the rule).

    The split is what the entries say, else the folder train, validation or test (also images/train
    and the like), else a seeded draw.
    """
    rule = 'given'
    if not any(entry.split for entry in entries):
        parts = {entry.file: _part(entry.file) for entry in entries}
        if 'train' in parts.values():
            rule = 'folders'
            entries = [entry._replace(split=parts[entry.file]) for entry in entries]
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
        count = max(1, round(HELD_OUT * len(whole))) if len(train) >= LEAST else 0
        for i in np.random.RandomState(0).permutation(train)[:count]:
            entries[i] = entries[i]._replace(split=split)
    return entries, rule
