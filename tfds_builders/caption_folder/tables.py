"""Files that hold the captions of many pictures: JSON lines, JSON arrays, CSV."""

import csv
import json
import pathlib
import posixpath
import re

from tfds_builders.errors import DataError, quoted
from tfds_builders.files import read_text
from tfds_builders.pictures import ENDINGS

# of tables, the first that a folder has is read
KINDS = ('.jsonl', '.json', '.csv', '.tsv', '.txt')
# whose names mean nothing else
ALWAYS = ('captions.jsonl', 'metadata.jsonl', 'captions.csv', 'metadata.csv')
SPLITS = {
    'train': 'train',
    'training': 'train',
    'validation': 'validation',
    'val': 'validation',
    'valid': 'validation',
    'dev': 'validation',
    'test': 'test',
}
FILE_NAMES = ('file_name', 'filename', 'file', 'image', 'image_name', 'image_path', 'path')
# of these, the first that a row has holds its captions
TEXTS = ('captions', 'caption', 'text', 'prompt', 'comment', 'description')
COLUMNS = (
    f'file_name and text (or {", ".join(FILE_NAMES[1:])}; '
    f'{", ".join(name for name in TEXTS if name != "text")})'
)
NO_TEXT = 'holds NUL characters: save it as UTF-8, or as UTF-16 with a byte order mark'
# Flickr8k and 30k number the captions of a picture: 1000268201.jpg#0
NUMBER = re.compile(r'#[0-9]+$')
# tables that are not read here, and how each becomes one that is
OTHERS = {
    'meta_cap.json': 'write captions.jsonl, a line {"file_name": ..., "caption": ...} a picture',
    '.parquet': 'write it as captions.csv, with pandas: read_parquet(...).to_csv(...)',
    '.arrow': 'write it as captions.jsonl, with datasets: load_from_disk(...).to_json(...)',
    '.xlsx': 'save it as captions.csv, with the columns file_name and text',
    '.xls': 'save it as captions.csv, with the columns file_name and text',
    '.ods': 'save it as captions.csv, with the columns file_name and text',
}
# bytes of a table
LIMIT = 1 << 28


class NoTable(ValueError):
    """A file that holds no captions; the message says what is wrong with it."""


def texts_in(row) -> list[str]:
    """Name the columns of a row that may hold its captions; the first is read."""
    return [name for name in TEXTS if str(row.get(name) or '').strip()]


def not_read(files) -> list[str]:
    """Return a line for each of the files that hold captions in a form that is not read."""
    lines = []
    for file in files:
        name = posixpath.basename(file).lower()
        how = OTHERS.get(name) or OTHERS.get(posixpath.splitext(name)[1])
        if how:
            lines.append(f'{file} is not read: {how}')
    return lines


def rank(file):
    """Return a table's place among those of its folder, None for a file that is none by its name.

    Those of the lowest rank are read.
    """
    name = posixpath.basename(file).lower()
    stem, kind = posixpath.splitext(name)
    # results_20130124.token of Flickr30k, Flickr8k.token.txt
    if name.endswith(('.token', '.token.txt')):
        return (3,)
    if kind not in KINDS:
        return None
    if stem in ('captions', 'metadata'):
        return (0, KINDS.index(kind), stem) if (stem, kind) != ('metadata', '.txt') else None
    if kind == '.txt':
        return None
    # train.csv and test.csv; Flickr30k's results.csv
    return (1, KINDS.index(kind)) if stem in SPLITS else (2,) if stem == 'results' else None


def read(root, tables, problems, guessed):
    """Return the rows of tables, of each folder those of lowest rank, and which are not read.

    root: the folder that the paths of `tables` are relative to
    problems: gets {line of a table: why it cannot be used}
    guessed: gets the paths of those whose encoding is a guess

    Returns ({path: [(line, row), ...]}, ['a.csv is not read: why', ...]). Raises DataError for
    captions.csv and the like that hold no captions; other names may mean something else.
    """
    found, chosen, refused = {}, {}, []
    for file in sorted(tables, key=lambda file: (rank(file), file)):
        folder, name = posixpath.dirname(file), posixpath.basename(file).lower()
        if chosen.get(folder, rank(file)) != rank(file):
            refused.append(f'{file} is not read: another table of its folder is')
            continue
        own = {}
        try:
            rows = list(_rows(pathlib.Path(root) / file, file, own, guessed))
            if not rows and not own:
                raise NoTable('it has no row')
        except NoTable as error:
            if name in ALWAYS:
                raise DataError(
                    f'{quoted(pathlib.Path(root) / file)} cannot be used: {error}.'
                ) from None
            refused.append(f'{file} is not read: {error}')
            continue
        problems |= own
        chosen[folder] = rank(file)
        split = SPLITS.get(posixpath.splitext(name)[0])
        found[file] = [(line, row | {'split': row.get('split') or split}) for line, row in rows]
    return found, refused


def _rows(path, place, problems, guessed):
    text = read_text(path, LIMIT, guessed)
    if path.suffix.lower() in ('.jsonl', '.json'):
        return _json_rows(text, place, problems)
    return _csv_rows(text, place, problems)


def _json_rows(text, place, problems):
    """Yield the objects of one array, or of one line each."""
    try:
        items = json.loads(text) if text.lstrip()[:1] == '[' else None
    except (ValueError, RecursionError):
        # its lines say more
        items = None
    if place.lower().endswith('.json') and not (
        items and isinstance(items[0], dict) and set(FILE_NAMES) & items[0].keys()
    ):
        raise NoTable(f'it is not one array of objects with {COLUMNS}')
    # strings of JSON may hold other line separators
    lines = enumerate(items or text.split('\n'), start=1)
    for number, item in lines:
        where = f'{place} {"item" if items else "line"} {number}'
        try:
            if not items:
                if not item.strip():
                    continue
                if '\0' in item:
                    raise ValueError(f'it {NO_TEXT}')
                item = json.loads(item)
            if not isinstance(item, dict):
                raise ValueError('not an object in braces')
        except (ValueError, RecursionError) as error:
            problems[where] = f'no JSON ({error})'
            continue
        yield where, item


def _csv_rows(text, place, problems):
    """Yield the rows, of two columns, file and caption, or of those that a header names.

    Several rows of one file are several captions.
    """
    # spreadsheets end lines with \r\n or \r
    lines = text.replace('\r\n', '\n').replace('\r', '\n').split('\n')
    # Excel may begin with a line that names the separator
    first = next(
        (i for i, line in enumerate(lines) if line.strip() and line[:4].lower() != 'sep='), None
    )
    if first is None:
        raise NoTable('it is empty')
    header, options = _header(lines[first])
    # without header, which Flickr8k and 30k do not have
    numbered, first = not header, first + bool(header)
    header, found = header or ['file_name', 'text'], {}
    for number, values, problem in _records(lines, first, options):
        where = f'{place} line {number + 1}'
        if any('\0' in value for value in values):
            problem = f'it {NO_TEXT}'
        elif any(map(str.strip, values)) and len(values) != len(header):
            problem = f'{len(values)} columns instead of {len(header)}' + (
                f'; captions that hold "{options["delimiter"]}" need quotes around them'
                if len(values) > len(header)
                else ''
            )
        if problem:
            problems[where] = problem
        if problem or not any(map(str.strip, values)):
            continue
        row = {name: value for name, value in zip(header, values) if value.strip()}
        if numbered and 'file_name' in row:
            row['file_name'] = NUMBER.sub('', row['file_name'].strip())
        key = next((row[name].strip() for name in FILE_NAMES if name in row), where)
        texts = [row.pop(name) for name in texts_in(row)[:1]]
        line, merged = found.setdefault(key, (where, row | {'captions': []}))
        if any(row.get(name, merged.get(name)) != merged.get(name) for name in ('split', 'label')):
            problems[where] = f'its split or label differs from that of {line}'
        else:
            merged['captions'] += texts
    yield from found.values()


def _records(lines, start, options):
    """Yield (number of its first line, cells, what is wrong) of each row from `start` on.

    A row may have several lines. A quote that is not closed spoils no other row.
    """
    csv.field_size_limit(1 << 24)
    while start < len(lines):
        following = (lines[i] + '\n' for i in range(start, len(lines)))
        reader = csv.reader(following, skipinitialspace=True, strict=True, **options)
        number = start
        try:
            for values in reader:
                yield number, values, ''
                number = start + reader.line_num
            return
        except csv.Error as error:
            problem = f'no row of CSV ({error}); close quotes around a caption, double them inside'
            yield number, [], problem
            start = number + 1


def _header(line):
    """Return (names of the columns, how the csv module reads the rows), by the first line.

    The names are None where it is a row without header. Raises NoTable.
    """
    if '\0' in line:
        raise NoTable(f'it {NO_TEXT}')
    for delimiter in ',;\t|':
        # Flickr's captions behind | and numbers hold quotes that mean nothing
        plain = delimiter == '|' or NUMBER.search(line.partition(delimiter)[0])
        quoting = csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL
        options = {'delimiter': delimiter, 'quoting': quoting}
        cells = next(csv.reader([line], skipinitialspace=True, **options), [])
        names = [cell.strip().lower().replace(' ', '_') for cell in cells]
        known = [name for name in names if name in FILE_NAMES + TEXTS]
        if set(known) & set(FILE_NAMES) and set(known) & set(TEXTS):
            twice = {name for name in names if name and names.count(name) > 1}
            if twice:
                raise NoTable(f'two columns of its header are named {min(twice)}')
            return names, options
        if len(cells) > 1 and NUMBER.sub('', names[0]).endswith(ENDINGS):
            return None, options
    raise NoTable(
        f'its first line is neither a file and a caption nor a header that is known '
        f'({line.strip()[:80]!r}). Name its columns {COLUMNS}'
    )
