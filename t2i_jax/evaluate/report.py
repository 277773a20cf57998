"""A report: numbers with their protocol, as JSON, a table and a picture.

    {'run': {'workdir', 'system', 'data', 'stage', 'step', 'size'},
     'protocol': {...},                      # of all numbers
     'values': [{'metric', 'value', 'interval' or 'spread', 'protocol': {...}}, ...],
     'date'}

In the protocol of a value `pictures` is a column of the table (PICTURES), `decoder` what read the
pictures (a reader of scenes, a judge, a way of comparing), `reader` its tag.
"""

import functools
import hashlib
import json
import math
import pathlib
import time

import matplotlib
import numpy as np

from t2i_jax import __version__
from t2i_jax.draw import sheets
from t2i_jax.metrics.bootstrap import interval as bootstrap
from t2i_jax.runtime.errors import RunError, reason
from t2i_jax.runtime.files import write_text

# columns of a table, in this order
PICTURES = 'drawn', 'real', 'training', 'shuffled', 'remembered', 'mean', 'noise', 'floor'
# sentences of the picture, its pixels an inch
SHOWN, DPI = 12, 90


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
def finish(path, grids, **parts) -> dict:
    """Make a report of its parts, write it as <path>, JSON, and <path>.png, and print it.

    grids: the rows of its picture, see `picture`. parts: run, protocol, values.
    """
    out = parts | dict(date=time.strftime('%Y-%m-%d %H:%M:%S'))
    write_text(path, json.dumps(out, indent=1) + '\n')
    picture(out, grids, path.with_suffix('.png'))
    print(table(out))
    print(f'\nNumbers with their protocol: {path}; picture: {path.with_suffix(".png")}')
    return out


def read(path) -> dict:
    """Read a report from its file, or the newest of a workdir. Raises RunError."""
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        found = sorted((path / 'eval').glob('*.json'), key=lambda p: p.stat().st_mtime)
        if not found:
            raise RunError(
                f'{path} has no evaluation. Make one: t2i_jax --workdir={path} --mode=evaluate'
            )
        path = found[-1]
    try:
        out = json.loads(path.read_text())
        out['run'], out['values'], out['protocol']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f'{path} is not a report of an evaluation ({reason(error)}).') from None
    return out


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
    """Three significant digits of the value or its interval, whichever is larger."""
    if one is None:
        return '-'
    half = one.get('spread', 0)
    if 'interval' in one:
        half = (one['interval'][1] - one['interval'][0]) / 2
    size = max(abs(one['value']), half)
    places = min(5, max(0, 2 - math.floor(math.log10(size)))) if size else 0
    text = f'{one["value"]:.{places}f}'
    if 'interval' in one:
        text += f' ±{half:.{places}f}'
    elif 'spread' in one:
        text += f' ({one["spread"]:.{places}f})'
    return text + (' biased' if one['protocol'].get('biased') else '')


def line(row, cells, width):
    """One line of a table. row: (split, metric, reader)."""
    split, metric, reader = row
    return f'{split:<13}{metric:<34}{reader:<10}' + ''.join(f'{one:>{width}}' for one in cells)


def table(out) -> str:
    """Write metrics down, kinds of pictures across.

    After ± stands half of the 95 % interval, in brackets a standard deviation.
    """
    found = rows(out)
    columns = [name for name in PICTURES if any(name in one for one in found.values())]
    lines = [
        ', '.join(f'{name} {value}' for name, value in out[part].items())
        for part in ('run', 'protocol')
    ]
    lines += ['', line(('split', 'metric', 'reader'), columns, 18)]
    for row, values in found.items():
        lines.append(line(row, [cell(values.get(name)) for name in columns], 18))
    return '\n'.join(lines)


# ---------------------------------------------------------------------------------------- picture
def picture(out, grids, path):
    """Draw a row for each split: first samples and real pictures, then a panel a reader.

    A panel has bars for the metrics between 0 and 1, the others as text above.

    grids: (split, samples n s s 3 or n k s s 3, several of each, real n s s 3 or None where none
        belong to them, sentences) of each split
    """
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    found = rows(out)
    readers = list(dict.fromkeys(reader for _, _, reader in found))

    def panel(split, reader):
        return {row[1]: one for row, one in found.items() if (row[0], row[2]) == (split, reader)}

    panels = [[panel(split, reader) for reader in readers] for split in out['protocol']['splits']]
    shown = [first_pictures(*grid) for grid in grids]
    # in inches, as large as the sheets are in pixels where they are not huge
    longest = max(len(metrics) for one in panels for metrics in one)
    high = max(8, 0.27 * longest + 1, *(min(16, len(sheet) / DPI) for sheet in shown))
    wide = max(6, *(min(high, len(one) / DPI) * one.shape[1] / len(one) for one in shown))
    figure, axes = plt.subplots(
        len(panels),
        1 + len(readers),
        figsize=(wide + 6 * len(readers), high * len(panels)),
        layout='constrained',
        squeeze=False,
        width_ratios=[wide] + [6] * len(readers),
    )
    for (first, *others), (name, *_), sheet, metrics in zip(axes, grids, shown, panels):
        first.imshow(sheet)
        first.set_axis_off()
        first.set_anchor('N')
        for axis, reader, one in zip(others, readers, metrics):
            draw_panel(axis, ' '.join(filter(None, (name, reader))), one)
    run = out['run']
    title = f'{run["workdir"]}: {run["system"]} on {run["data"]}, step {run["step"]:,}'
    figure.suptitle(title)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def first_pictures(split, samples, real, texts):
    """A sheet of the first samples of a split, with the real pictures."""
    samples = samples if samples.ndim == 5 else samples[:, None]
    real = None if real is None else real[:SHOWN]
    return sheets.sheet(samples[:SHOWN], texts[:SHOWN], real=real, title=split, columns=1)


def draw_panel(axis, title, metrics):
    """Draw {metric: {column: value}}: shares as bars, the other numbers in the title."""
    shares, lines = {}, [title]
    for metric, values in metrics.items():
        if 'rank' not in metric and all(0 <= one['value'] <= 1 for one in values.values()):
            shares[metric] = values
        else:
            cells = [f'{name} {cell(values[name])}' for name in PICTURES if name in values]
            lines.append(f'{metric}: {", ".join(cells)}')
    axis.set_title('\n'.join(lines), fontsize=7, loc='left', wrap=True)
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
    for number, name in enumerate(columns):
        pairs = zip(places, found.values())
        have = [(place, values[name]) for place, values in pairs if name in values]
        at = [place + 0.4 - height * (number + 0.5) for place, _ in have]
        widths = [one['value'] for _, one in have]
        axis.barh(at, widths, height, label=name, color=colours[name])
        spans = [(y, *one['interval']) for y, (_, one) in zip(at, have) if 'interval' in one]
        if spans:
            axis.hlines(*zip(*spans), 'black', linewidth=0.8)
    axis.set_yticks(places, list(found), fontsize=7)
    axis.set_ylim(-0.6, len(found) - 0.4)
    below = -0.6 / max(len(found), 1) - 0.03
    axis.legend(fontsize=7, loc='upper center', bbox_to_anchor=(0.4, below), ncols=4)
    axis.grid(axis='x', alpha=0.3)
