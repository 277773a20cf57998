"""Numbers with their protocol: JSON, a table, a picture, and several runs side by side."""

import functools
import hashlib
import json
import math
import pathlib

import matplotlib
import numpy as np

from t2i_jax.draw import sheets
from t2i_jax.metrics.bootstrap import interval as bootstrap
from t2i_jax.runtime.errors import RunError

VERSION = '0.1.0'
PICTURES = (
    'drawn',
    'real',
    'training',
    'shuffled',
    'remembered',
    'mean',
    'noise',
    'floor',
)  # the order of columns
SHOWN, DPI = 12, 90  # sentences of the picture, its pixels an inch


@functools.cache
def version() -> str:
    """Of the code that makes numbers: release and a hash of its files (training and networks of systems are not among them)."""
    root = pathlib.Path(__file__).parents[1]
    builders = root.parent / 'tfds_builders'
    folders = (
        *(root / name for name in ('data', 'encoders', 'evaluate', 'metrics', 'scenes')),
        *(builders, builders / 'shape_scenes'),
    )
    files = [root / 'losses.py', root / 'sample.py'] + sorted(
        path for folder in folders for path in folder.iterdir() if path.suffix in ('.py', '.npz')
    )
    return f'{VERSION}+{hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:10]}'


def value(name, number, spread=None, interval=None, **protocol) -> dict:
    """One number. spread: standard deviation over subsets or splits; interval: (low, high), 95 %."""
    one = {'metric': name, 'value': float(number)}
    if not math.isfinite(one['value']):
        raise RunError(
            f'{name} is {one["value"]}: what was drawn, or its features, cannot be used.'
        )
    if spread is not None:
        one['spread'] = float(spread)
    if interval is not None:
        one['interval'] = [float(v) for v in interval]
    return one | {'protocol': protocol}


def averaged(name, values, seed, groups=None, **protocol):
    """A mean of (n,) with its 95 % bootstrap interval, NaN left out; groups: values of one record are no independent draws."""
    there = np.isfinite(values)
    groups = groups[there] if groups is not None else None
    return value(
        name,
        values[there].mean(),
        interval=bootstrap(values[there], groups, seed=seed),
        n=int(there.sum()),
        **protocol,
    )


def averages(found, seed, groups=None, **protocol) -> list:
    """`averaged` of each of {name: (n,)} that has a value."""
    return [
        averaged(name, values, seed, groups, **protocol)
        for name, values in found.items()
        if np.isfinite(values).any()
    ]


def tagged(values, **more):
    """Values with further entries of their protocol."""
    return [one | {'protocol': {**one['protocol'], **more}} for one in values]


def write(out, path, grids):
    """<path>, JSON, and the picture beside it. grids: (split, drawn n s s 3, real n s s 3, sentences) of each split; drawn may also be
    n k s s 3, several of each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps(out, indent=1) + '\n')
    temporary.replace(path)
    picture(out, grids, path.with_suffix('.png'))


def read(path) -> dict:
    """A report from its file, or the newest of a workdir. Raises RunError."""
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
        raise RunError(f'{path} is no evaluation ({error!r}).') from None
    return out


def rows(out):
    """{(split, metric, decoder): {kind of pictures: value}} in the order of the report."""
    found = {}
    for one in out['values']:
        p = one['protocol']
        found.setdefault((p.get('split', ''), one['metric'], p.get('decoder', '')), {})[
            p.get('pictures', 'drawn')
        ] = one
    return found


def cell(one):
    """Three significant digits of the value or its interval, whichever is larger."""
    if one is None:
        return '-'
    half = (
        (one['interval'][1] - one['interval'][0]) / 2 if 'interval' in one else one.get('spread', 0)
    )
    size = max(abs(one['value']), half)
    places = min(5, max(0, 2 - math.floor(math.log10(size)))) if size else 0
    text = f'{one["value"]:.{places}f}'
    if 'interval' in one:
        text += f' ±{half:.{places}f}'
    elif 'spread' in one:
        text += f' ({one["spread"]:.{places}f})'
    return text + (' biased' if one['protocol'].get('biased') else '')


def table(out) -> str:
    """Metrics down, kinds of pictures across. ± half of the 95 % interval, in brackets a standard deviation."""
    run, found = out['run'], rows(out)
    kinds = [kind for kind in PICTURES if any(kind in one for one in found.values())]
    lines = [
        ', '.join(f'{name} {value}' for name, value in run.items()),
        ', '.join(f'{name} {value}' for name, value in out['protocol'].items()),
        '',
    ]
    lines.append(
        f'{"split":<13}{"metric":<34}{"decoder":<10}' + ''.join(f'{kind:>18}' for kind in kinds)
    )
    for (split, metric, decoder), values in found.items():
        lines.append(
            f'{split:<13}{metric:<34}{decoder:<10}'
            + ''.join(f'{cell(values.get(kind)):>18}' for kind in kinds)
        )
    return '\n'.join(lines)


def picture(out, grids, path):
    """A row for each split: its first sentences with what was drawn and the real pictures (None: none belong to them), then a panel of bars for each
    reader of the pictures with the numbers between 0 and 1; the others as text above."""
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    found = rows(out)
    readers = list(dict.fromkeys(decoder for _, _, decoder in found))
    panels = [
        [
            {
                metric: values
                for (of, metric, decoder), values in found.items()
                if (of, decoder) == (split, reader)
            }
            for reader in readers
        ]
        for split in out['protocol']['splits']
    ]
    drawn_sheets = [
        sheets.sheet(
            (drawn if drawn.ndim == 5 else drawn[:, None])[:SHOWN],
            texts[:SHOWN],
            real=None if real is None else real[:SHOWN],
            title=name,
            columns=1,
        )
        for name, drawn, real, texts in grids
    ]
    # in inches, as large as the sheets are in pixels where they are not huge
    high = max(
        8,
        0.27 * max(len(panel) for line in panels for panel in line) + 1,
        *(min(16, sheet.shape[0] / DPI) for sheet in drawn_sheets),
    )
    wide = max(
        6,
        *(
            min(high, sheet.shape[0] / DPI) * sheet.shape[1] / sheet.shape[0]
            for sheet in drawn_sheets
        ),
    )
    figure, axes = plt.subplots(
        len(panels),
        1 + len(readers),
        figsize=(wide + 6 * len(readers), high * len(panels)),
        layout='constrained',
        squeeze=False,
        width_ratios=[wide] + [6] * len(readers),
    )
    for line, (name, *_), sheet, found in zip(axes, grids, drawn_sheets, panels):
        line[0].imshow(sheet)
        line[0].set_axis_off()
        line[0].set_anchor('N')
        for axis, reader, values in zip(line[1:], readers, found):
            shares = {
                metric: kinds
                for metric, kinds in values.items()
                if 'rank' not in metric and all(0 <= one['value'] <= 1 for one in kinds.values())
            }
            others = [
                f'{metric}: '
                + ', '.join(f'{kind} {cell(kinds[kind])}' for kind in PICTURES if kind in kinds)
                for metric, kinds in values.items()
                if metric not in shares
            ]
            axis.set_title(
                '\n'.join([' '.join(filter(None, (name, reader))), *others]),
                fontsize=7,
                loc='left',
                wrap=True,
            )
            if shares:
                bars(axis, shares, PICTURES)
            else:
                axis.set_axis_off()
    figure.suptitle(
        f'{out["run"]["workdir"]}: {out["run"]["system"]} on {out["run"]["data"]}, step {out["run"]["step"]:,}'
    )
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def bars(axis, found, kinds):
    """A group of bars for each row of found {row: {kind: value}}."""
    colours = {kind: f'C{number}' for number, kind in enumerate(kinds)}  # the same in every panel
    kinds = [kind for kind in kinds if any(kind in values for values in found.values())]
    places = np.arange(len(found))[::-1].astype(float)
    for number, kind in enumerate(kinds):
        have = [
            (place, values[kind]) for place, values in zip(places, found.values()) if kind in values
        ]
        at = [place + 0.4 - 0.8 * (number + 0.5) / len(kinds) for place, _ in have]
        axis.barh(
            at, [one['value'] for _, one in have], 0.8 / len(kinds), label=kind, color=colours[kind]
        )
        spans = [(y, one) for y, (_, one) in zip(at, have) if 'interval' in one]
        axis.hlines(
            [y for y, _ in spans],
            [one['interval'][0] for _, one in spans],
            [one['interval'][1] for _, one in spans],
            'black',
            linewidth=0.8,
        )
    axis.set_yticks(places, list(found), fontsize=7)
    axis.set_ylim(-0.6, len(found) - 0.4)
    axis.legend(
        fontsize=7,
        loc='upper center',
        bbox_to_anchor=(0.4, -0.6 / max(len(found), 1) - 0.03),
        ncols=4,
    )
    axis.grid(axis='x', alpha=0.3)


def compare(paths, out=None) -> str:
    """Several reports side by side, as a table and, where `out` is given, as a plot. Numbers of different protocols stand in different rows,
    which say what differs; they are never put into one."""
    reports = [read(path) for path in paths]
    names = [f'{r["run"]["workdir"]}@{r["run"]["step"]}' for r in reports]
    names = [name if names.count(name) == 1 else f'{name}#{i}' for i, name in enumerate(names)]
    found, protocols = {}, {}
    for name, one in zip(names, reports):
        kinds = {v['protocol'].get('pictures', 'drawn') for v in one['values']}
        for v in one['values']:
            if v['protocol'].get('pictures', 'drawn') != (
                'drawn' if 'drawn' in kinds else 'real'
            ):  # a DAMSM draws nothing
                continue
            shared = {k: w for k, w in one['protocol'].items() if k != 'splits'} | {
                'size': one['run']['size']
            }
            if 'reference' not in v['protocol']:  # whose hash says more than a name
                shared['data'] = one['run']['data']
            protocol = {**shared, **v['protocol']}
            key = (
                v['protocol'].get('split', ''),
                v['metric'],
                v['protocol'].get('decoder', ''),
                json.dumps(protocol, sort_keys=True),
            )
            found.setdefault(key, {})[name] = v
            protocols.setdefault(key[:3], []).append(protocol)
    lines = [
        f'{"split":<13}{"metric":<34}{"decoder":<10}' + ''.join(f'{name:>22}' for name in names)
    ]
    for (split, metric, decoder, protocol), values in found.items():
        lines.append(
            f'{split:<13}{metric:<34}{decoder:<10}'
            + ''.join(f'{cell(values.get(name)):>22}' for name in names)
        )
        others = [
            other
            for other in protocols[split, metric, decoder]
            if json.dumps(other, sort_keys=True) != protocol
        ]
        if others:
            own = json.loads(protocol)
            differs = sorted(
                {k for other in others for k in own | other if own.get(k) != other.get(k)}
            )
            lines.append(
                f'{"":<13}  not comparable with the row of the same name: '
                + ', '.join(f'{k} {_short(own.get(k))}' for k in differs)
            )
    if out:
        _compare_plot(found, names, out, rows(reports[-1]))
        lines.append(f'\nPlot: {out}')
    return '\n'.join(lines)


def _short(value):
    if isinstance(value, dict):
        return ' '.join(f'{k}={_short(v)}' for k, v in value.items())
    return str(value)[:24]


def _compare_plot(found, names, out, baselines):
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    runs = [name.partition('@') for name in names]
    if len(runs) > 2 and len({run for run, _, _ in runs}) == 1:
        return _over_steps(
            found,
            {name: int(step.partition('#')[0]) for name, (_, _, step) in zip(names, runs)},
            out,
            baselines,
        )
    inside, seen = {}, {}
    for key, values in found.items():
        number = seen[key[:3]] = seen.get(key[:3], 0) + 1
        if all(0 <= one['value'] <= 1 for one in values.values()):
            inside[
                ' '.join(filter(None, key[:3])) + (f' (protocol {number})' if number > 1 else '')
            ] = values
    figure, axis = plt.subplots(figsize=(8, max(3, 0.3 * len(inside) + 1)), layout='constrained')
    bars(axis, inside, names)
    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _over_steps(found, steps, out, baselines):
    """One run over training: a panel for each metric, its baselines as level lines."""
    from matplotlib import pyplot as plt

    shown = {key: values for key, values in found.items() if len(values) > 1}
    if not shown:
        raise RunError(
            'These evaluations have no number of one protocol in common, so there is no curve. Evaluate the checkpoints with equal options.'
        )
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4 * columns, 2.6 * lines), layout='constrained', squeeze=False
    )
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, (key, values) in zip(axes.flat, shown.items()):
        points = sorted((steps[name], one['value']) for name, one in values.items())
        axis.plot(*zip(*points), marker='o', label='drawn')
        for kind in ('real', 'training', 'shuffled', 'noise', 'floor'):
            if kind in baselines.get(key[:3], {}):
                axis.axhline(
                    baselines[key[:3]][kind]['value'],
                    linestyle='--',
                    linewidth=1,
                    color=f'C{PICTURES.index(kind)}',
                    label=kind,
                )
        axis.set_title(' '.join(filter(None, key[:3])), fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6)
    axes[-1, 0].set_xlabel('step')
    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)
