"""A report: numbers with their protocol, as JSON, a table and a picture.

    {'run': {'workdir', 'system', 'data', 'stage', 'step', 'size'},
     'protocol': {...},                      # of all numbers
     'headline': [{'metric', 'reader', 'better', 'beside'}, ...],
     'values': [{'metric', 'value', 'interval' or 'spread', 'protocol': {...}}, ...],
     'date'}

The headline names the few numbers that are printed and drawn. In the protocol of a value `pictures`
is a column of the table (PICTURES), `decoder` what read the pictures (a reader of scenes, a judge,
a way of comparing), `reader` its tag.
"""

import fnmatch
import functools
import hashlib
import json
import math
import os
import pathlib
import shutil
import time
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from t2i_jax import __version__
from t2i_jax.draw import sheets
from t2i_jax.metrics.bootstrap import interval as bootstrap
from t2i_jax.runtime.errors import DataError, RunError, explained, home, quoted, reason, short
from t2i_jax.runtime.files import replacing, write_text
from tfds_builders.files import read_text

# columns of a table, in this order
PICTURES = (
    *('drawn', 'true_boxes', 'true_masks', 'real', 'training', 'shuffled', 'remembered', 'mean'),
    *('noise', 'floor'),
)
# sentences of the picture, its pixels an inch
SHOWN, DPI = 12, 90
# letters of a file's name; more are added while it is written
LONGEST = 200
# of a number in a report
LARGEST = 1e100
# columns where there is no terminal
WIDTH = 120
HIGHER, LOWER = '↑', '↓'
# what a file must have to be a report: {part: {entry: its type}}
PARTS = {
    'run': dict(workdir=str, system=str, data=str, stage=str, step=int, size=int),
    'protocol': dict(splits=list),
    'values': {},
}
NAMED = {
    dict: 'an object',
    list: 'a list',
    str: 'a text',
    int: 'a whole number',
    float: 'a number',
    bool: 'true or false',
}
REMEDY = 'Name a workdir, or a file of its folder eval.'
SIGNS = 'After ± stands half of the 95 % interval, in brackets a standard deviation.'


class Headline(NamedTuple):
    """One of the few numbers that stand for an evaluation.

    metric: its name; * stands for what a network or a convention adds to it
    better: HIGHER or LOWER
    beside: the kinds of pictures that it is compared with; of these the first that was measured
    by: patterns of those who may have read the pictures, the best one first
    """

    metric: str
    better: str
    beside: tuple[str, ...] = ('real',)
    by: tuple[str, ...] = ('*',)


@functools.cache
def version() -> str:
    """Return the release and a hash of the code that makes numbers.

    Training and the networks of systems are not a part of it.
    """
    root = pathlib.Path(__file__).parents[1]
    builders = root.parent / 'tfds_builders'
    folders = [root / name for name in ('data', 'encoders', 'evaluate', 'metrics', 'scenes')]
    folders += [builders, builders / 'shape_scenes']
    files = [root / 'losses.py', root / 'sample.py'] + sorted(
        path for folder in folders for path in folder.iterdir() if path.suffix in ('.py', '.npz')
    )
    digest = hashlib.sha256(b''.join(path.read_bytes() for path in files)).hexdigest()
    return f'{__version__}+{digest[:10]}'


# ----------------------------------------------------------------------------------------- values
def value(name, number, spread=None, interval=None, **protocol) -> dict:
    """Make one value. Raises RunError for a number that is not finite.

    spread: standard deviation over subsets or splits. interval: (low, high), 95 %.
    """
    one = {'metric': name, 'value': float(number)}
    if not math.isfinite(one['value']):
        raise RunError(
            f'{name} is {one["value"]}: what was sampled, or its features, cannot be used.'
        )
    if spread is not None:
        one['spread'] = float(spread)
    if interval is not None:
        one['interval'] = [float(v) for v in interval]
    return one | {'protocol': protocol}


def averaged(name, values, seed, groups=None, **protocol):
    """Make a value of the mean of (n,) and its 95 % bootstrap interval; NaN is left out.

    groups: values of one group (of one record) are not independent.
    """
    there = np.isfinite(values)
    groups = groups[there] if groups is not None else None
    values = values[there]
    interval = bootstrap(values, groups, seed=seed)
    return value(name, values.mean(), interval=interval, n=len(values), **protocol)


def averages(found, seed, groups=None, **protocol) -> list:
    """Make a value (`averaged`) of each of {name: (n,)} that has a number."""
    return [
        averaged(name, values, seed, groups, **protocol)
        for name, values in found.items()
        if np.isfinite(values).any()
    ]


def tagged(values, **more):
    """Add entries to the protocol of values."""
    return [one | {'protocol': {**one['protocol'], **more}} for one in values]


# ------------------------------------------------------------------------------------------ files
def place(folder, name) -> pathlib.Path:
    """Return the path of a report, before the work; its folder is made.

    Raises RunError where it cannot be written, or its name is too long.
    """
    folder = home(folder)
    if len(os.fsencode(name)) > LONGEST:
        raise RunError(
            f'{short(name, 60)} is too long a name of a file: set a shorter --config.eval.name.'
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(explained(error, folder)) from None
    return folder / f'{name}.json'


def finish(path, grids, headline=(), everything=False, **parts) -> dict:
    """Make a report of its parts, write it as <path>, JSON, and <path>.png, and print it.

    grids: the rows of its picture, see `picture`. headline: Headlines. everything: print all
    numbers. parts: run, protocol, values.

    Raises RunError where there are no values, or where the files cannot be written.
    """
    if not parts['values']:
        raise RunError('No number could be computed; the lines above say why.')
    date = time.strftime('%Y-%m-%d %H:%M:%S')
    out = parts | dict(headline=chosen(parts['values'], headline), date=date)
    # printed first: a disk that is full takes no numbers away
    print(table(out) if everything else few(out), flush=True)
    drawing = path.with_name(f'{path.stem}.png')
    try:
        write_text(path, json.dumps(out, indent=1) + '\n')
        picture(out, grids, drawing)
    except OSError as error:
        raise RunError(explained(error, path)) from None
    more = '' if everything else '; --all prints them'
    print(f'\nAll {len(out["values"])} numbers with their protocol: {quoted(path)}{more}.')
    print(f'Picture: {quoted(drawing)}')
    return out


def read(path) -> dict:
    """Read a report from its file, or the newest of a workdir. Raises RunError."""
    path = home(path)
    try:
        if path.is_dir():
            found = sorted((path / 'eval').glob('*.json'), key=lambda p: p.stat().st_mtime)
            if not found:
                raise RunError(
                    f'{quoted(path)} has no evaluation. Make one: '
                    f't2i_jax --workdir={quoted(path)} --mode=evaluate'
                )
            path = found[-1]
    except OSError as error:
        raise RunError(explained(error, path)) from None
    try:
        out = json.loads(read_text(path))
    except DataError as error:
        raise RunError(f'{error} {REMEDY}') from None
    except (ValueError, RecursionError) as error:
        raise RunError(f'{quoted(path)} is not JSON ({reason(error)}). {REMEDY}') from None
    lacks = missing(out)
    if lacks:
        raise RunError(f'{quoted(path)} is not a report of an evaluation: {lacks}. {REMEDY}')
    return out


def missing(out) -> str:
    """Say what a parsed file lacks to be a report; '' where it is one."""
    if not isinstance(out, dict):
        return f'it holds {NAMED.get(type(out), "null")}, not an object with {", ".join(PARTS)}'
    for part, entries in PARTS.items():
        kind = dict if entries else list
        if not isinstance(out.get(part), kind):
            return f'`{part}` is missing' if part not in out else f'`{part}` is not {NAMED[kind]}'
        for name, kind in entries.items():
            one = out[part].get(name)
            if not isinstance(one, kind) or kind is int and not is_number(one):
                there = name in out[part]
                return f'`{part}.{name}` is {"not " + NAMED[kind] if there else "missing"}'
    for number, one in enumerate(out['values']):
        lacks = missing_of_value(one)
        if lacks:
            return f'`values[{number}]{lacks}'
    # what reports of earlier versions lack
    for name, kind in dict(seed=int, settings=str).items():
        if not isinstance(out['run'].get(name, kind()), kind):
            return f'`run.{name}` is not {NAMED[kind]}'
    headline = out.get('headline', [])
    named = isinstance(headline, list) and all(map(is_entry, headline))
    return '' if named else '`headline` does not name metrics'


def is_entry(one) -> bool:
    """Whether something is an entry of a headline."""
    if not isinstance(one, dict) or not isinstance(one.get('beside'), list):
        return False
    texts = [one.get(name) for name in ('metric', 'reader', 'better')] + one['beside']
    return all(isinstance(text, str) for text in texts)


def missing_of_value(one) -> str:
    """Say what an entry of `values` lacks, after its name; '' where it lacks nothing."""
    if not isinstance(one, dict):
        return '` is not an object'
    for name, kind in dict(metric=str, protocol=dict).items():
        if not isinstance(one.get(name), kind):
            return f'.{name}` is not {NAMED[kind]}'
    protocol = one['protocol']
    if not all(isinstance(protocol.get(x, ''), str) for x in ('split', 'decoder', 'pictures')):
        return '.protocol` has no text for split, decoder or pictures'
    numbers = {'value': [one.get('value')], 'spread': [one.get('spread', 0.0)]}
    numbers['interval'] = one.get('interval', [0.0, 0.0])
    for name, some in numbers.items():
        sound = isinstance(some, list) and len(some) == (2 if name == 'interval' else 1)
        if not sound or not all(is_number(x) for x in some):
            return f'.{name}` is not a number' + (' twice' if name == 'interval' else '')
    return ''


def is_number(x) -> bool:
    """Whether something is a number that can be drawn: neither infinite nor nearly so."""
    return isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) <= LARGEST


# --------------------------------------------------------------------------------------- headline
def chosen(values, headline) -> list[dict]:
    """Find the metric and the reader of each Headline among values; it may have none."""
    there = dict.fromkeys((row_of(one)[1], row_of(one)[2]) for one in values)
    out = []
    for one in headline:
        metric = next((name for name, _ in there if fnmatch.fnmatchcase(name, one.metric)), None)
        by = [reader for name, reader in there if name == metric]
        readers = [who for pattern in one.by for who in by if fnmatch.fnmatchcase(who, pattern)]
        if readers:
            entry = dict(metric=metric, reader=readers[0], better=one.better)
            out.append(entry | dict(beside=list(one.beside)))
    return out


def main_column(values) -> str:
    """Return the kind of pictures that a report is about: samples, else real pairs.

    A stage that compares pictures with captions makes no samples.
    """
    return 'drawn' if any(column_of(one) == 'drawn' for one in values) else 'real'


def beside(entry, columns, main) -> tuple[str, dict] | None:
    """Return (kind, value) of what a number of the headline is compared with, None for nothing.

    entry: of a report's headline. columns: {kind of pictures: value} of its row.
    """
    return next(
        ((name, columns[name]) for name in entry['beside'] if name in columns and name != main),
        None,
    )


def titled(metric, reader, better='') -> str:
    """Name a metric, who read the pictures, and what is better."""
    return ' '.join(filter(None, (metric, f'({reader})' if reader else '', better)))


# ------------------------------------------------------------------------------------------ table
def row_of(one) -> tuple[str, str, str]:
    """Return the row of a value: (split, metric, reader)."""
    protocol = one['protocol']
    return protocol.get('split', ''), one['metric'], protocol.get('decoder', '')


def column_of(one) -> str:
    """Return the column of a value, one of PICTURES."""
    return one['protocol'].get('pictures', 'drawn')


def rows(out):
    """Arrange values as {row: {column: value}}, in the order of the report."""
    found = {}
    for one in out['values']:
        found.setdefault(row_of(one), {})[column_of(one)] = one
    return found


def cell(one):
    """Write a value: three significant digits of it or its interval, whichever is larger.

    deviation: of the mean over several seeds, see compare.py.
    """
    if one is None:
        return '-'
    half = one.get('spread', one.get('deviation', 0))
    if 'interval' in one:
        half = (one['interval'][1] - one['interval'][0]) / 2
    text, other = shortest(one['value'], half), shortest(half, one['value'])
    if 'interval' in one:
        text += f' ±{other}'
    elif 'deviation' in one:
        text += f' ± {other}'
    elif 'spread' in one:
        text += f' ({other})'
    return text + (' biased' if one['protocol'].get('biased') else '')


def shortest(number, other=0.0) -> str:
    """Write a number with three significant digits of it or of another, whichever is larger."""
    size = max(abs(number), abs(other))
    places = min(5, max(0, 2 - math.floor(math.log10(size)))) if size else 0
    return f'{number:.{places}f}'


def line(row, cells, width):
    """One line of a table. row: (split, metric, reader)."""
    split, metric, reader = row
    return f'{split:<13}{metric:<34}{reader:<10}' + ''.join(f'{one:>{width}}' for one in cells)


def few(out) -> str:
    """Write the headline: a line a number, next to it what it is compared with, splits across."""
    found, main, run = rows(out), main_column(out['values']), out['run']
    splits = list(dict.fromkeys(split for split, _, _ in found))
    protocol = {k: v for k, v in out['protocol'].items() if k not in ('splits', 'version')}
    lines = [heading(run)]
    lines += [', '.join(f'{name} {x}' for name, x in protocol.items() if x != '-'), '']

    def cells_of(entry):
        """Two texts for each split: the number, and what it is compared with."""
        for split in splits:
            columns = found.get((split, entry['metric'], entry['reader']), {})
            other = beside(entry, columns, main)
            chance = columns.get(main, {}).get('protocol', {}).get('chance')
            if not other and is_number(chance):
                other = 'chance', dict(value=chance)
            level = f'{other[0]} {shortest(other[1]["value"])}' if other else ''
            yield cell(columns.get(main)), level

    titles = [titled(entry['metric'], entry['reader']) for entry in out['headline']]
    texts = [list(cells_of(entry)) for entry in out['headline']]
    first = max(map(len, titles), default=0) + 2
    own, level = (max([6] + [len(pair[i]) for one in texts for pair in one]) + 2 for i in (0, 1))
    width = shutil.get_terminal_size((WIDTH, 0)).columns
    across = max(1, (width - first - 3) // (own + level))
    for start in range(0, len(splits), across):
        part = slice(start, start + across)
        names = ''.join(f'{name:<{own + level}}' for name in splits[part]).rstrip()
        lines += [' ' * (first + 3) + names] * bool(names)
        for title, entry, pairs in zip(titles, out['headline'], texts):
            numbers = ''.join(f'{one:<{own}}{other:<{level}}' for one, other in pairs[part])
            lines.append(f'{title:<{first}}{entry["better"]}  {numbers}'.rstrip())
        lines.append('')
    return '\n'.join([*lines, f'{HIGHER} more is better, {LOWER} less. {SIGNS}'])


def heading(run) -> str:
    """Say in a line what was measured. run: of a report; '-' is what it does not have."""
    made = '' if run['system'] == '-' else f'{run["system"]} on {run["data"]}, '
    made += '' if run['stage'] == '-' else f'stage {run["stage"]}, step {run["step"]:,}, '
    return f'{run["workdir"]}: {made}{run["size"]} px'


def table(out) -> str:
    """Write all metrics down, kinds of pictures across."""
    found = rows(out)
    columns = [name for name in PICTURES if any(name in one for one in found.values())]
    lines = [
        ', '.join(f'{name} {value}' for name, value in out[part].items())
        for part in ('run', 'protocol')
    ]
    lines += ['', line(('split', 'metric', 'reader'), columns, 18)]
    for row, values in found.items():
        lines.append(line(row, [cell(values.get(name)) for name in columns], 18))
    return '\n'.join([*lines, '', SIGNS])


# ---------------------------------------------------------------------------------------- picture
def picture(out, grids, path):
    """Draw a row for each split: first samples and real pictures, then the headline.

    Its shares are bars next to those of other pictures, its other numbers stand above.

    grids: (split, samples n s s 3 or n k s s 3, several of each, real n s s 3 or None where none
        belong to them, sentences) of each split
    """
    found, shown = rows(out), [first_pictures(*grid) for grid in grids]
    # in inches, as large as the sheets are in pixels where they are not huge
    high = max(4, 0.55 * len(out['headline']) + 1, *(min(16, len(one) / DPI) for one in shown))
    wide = max(4, *(min(high, len(one) / DPI) * one.shape[1] / len(one) for one in shown))
    figure = Figure(figsize=(wide + 6, high * len(grids)), layout='constrained')
    axes = figure.subplots(len(grids), 2, squeeze=False, width_ratios=[wide, 6])
    for (first, second), (name, *_), sheet in zip(axes, grids, shown):
        first.imshow(sheet)
        first.set_axis_off()
        first.set_anchor('N')
        draw_panel(second, name, out['headline'], found)
    figure.suptitle(plain(heading(out['run'])))
    save(figure, path)


def first_pictures(split, samples, real, texts):
    """A sheet of the first samples of a split, with the real pictures."""
    samples = samples if samples.ndim == 5 else samples[:, None]
    real = None if real is None else real[:SHOWN]
    return sheets.sheet(samples[:SHOWN], texts[:SHOWN], real=real, title=split, columns=1)


def draw_panel(axis, split, headline, found):
    """Draw the headline of a split: shares as bars, the other numbers in the title.

    found: `rows` of the report.
    """
    shares, lines = {}, [split]
    for entry in headline:
        name = titled(entry['metric'], entry['reader'], entry['better'])
        values = found.get((split, entry['metric'], entry['reader']), {})
        if values and all(0 <= one['value'] <= 1 for one in values.values()):
            shares[name] = values
        elif values:
            cells = [f'{kind} {cell(values[kind])}' for kind in PICTURES if kind in values]
            lines.append(f'{name}: {", ".join(cells)}')
    axis.set_title(plain('\n'.join(lines)), fontsize=8, loc='left', wrap=True)
    if shares:
        bars(axis, shares, PICTURES)
    else:
        axis.set_axis_off()


def bars(axis, found, columns):
    """Draw a group of bars for each row of {row: {column: value}}."""
    # the same in every panel
    colours = {name: f'C{number}' for number, name in enumerate(columns)}
    columns = [name for name in columns if any(name in values for values in found.values())]
    places, height = np.arange(len(found))[::-1].astype(float), 0.8 / len(columns)
    drawn = []
    for number, name in enumerate(columns):
        pairs = zip(places, found.values())
        have = [(place, values[name]) for place, values in pairs if name in values]
        at = [place + 0.4 - height * (number + 0.5) for place, _ in have]
        widths = [one['value'] for _, one in have]
        drawn.append(axis.barh(at, widths, height, color=colours[name]))
        spans = [(y, *one['interval']) for y, (_, one) in zip(at, have) if 'interval' in one]
        if spans:
            axis.hlines(*zip(*spans), 'black', linewidth=0.8)
    axis.set_yticks(places, [plain(name) for name in found], fontsize=7)
    axis.set_ylim(-0.6, len(found) - 0.4)
    place = dict(loc='upper center', bbox_to_anchor=(0.5, -0.05), ncols=4)
    axis.legend(drawn, columns, fontsize=7, **place)
    axis.grid(axis='x', alpha=0.3)


def plain(text) -> str:
    """Write a text so that matplotlib draws it as it is: a $ begins no formula."""
    return text.replace('$', r'\$')


def save(figure, path, dpi=DPI):
    """Write a figure so that it appears whole; the ending of its path is the format."""
    path = pathlib.Path(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=dpi)
