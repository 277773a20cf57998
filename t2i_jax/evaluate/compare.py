"""Several reports next to each other, as a table and as a plot."""

import collections
import json
import os
import pathlib
import statistics
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from t2i_jax.evaluate import report
from t2i_jax.run import Path
from t2i_jax.runtime.errors import RunError, explained, home, quoted

# columns of a number, at most
CELL = 30
# panels of the plot, in a row and in all; inches of the plot at DPI, at most
ACROSS, PANELS, LARGEST, DPI = 4, 8, (16, 9), 100
# in the plot's name where `out` is a folder
FILE = 'compare.png'


def compare(paths: Sequence[Path], out: Path | None = None, everything: bool = False) -> str:
    """Write several reports as one table and, where `out` is given, as a plot.

    paths: workdirs or files of reports. out: a picture, or a folder for it. everything: all
    metrics, not only the headline.

    Numbers of different protocols stand in different rows, and what differs stands below. Runs that
    differ in their seed alone share a column: mean ± standard deviation.

    Raises RunError.
    """
    out = drawing(out) if out else None
    reports = [report.read(path) for path in paths]
    columns = grouped(reports)
    headline = headlines(reports)
    if everything or not headline:
        shown = dict.fromkeys(
            report.row_of(value)[1:] for one in reports for value in compared_values(one)
        )
        shown = {key: headline.get(key, dict(better=' ', beside=[])) for key in shown}
    else:
        shown = headline
    found = rows_of(reports, columns, shown)
    lines = table(found, list(columns), shown)
    seeds = {
        name: [reports[i]['run']['seed'] for i in members]
        for name, members in columns.items()
        if len(members) > 1
    }
    for name, some in seeds.items():
        lines.append(f'{name}: mean ± standard deviation of the seeds {", ".join(map(str, some))}.')
    lines += differences(found)
    if out:
        plot(found, columns, reports, headline or shown, out)
        lines.append(f'Plot: {quoted(out)}')
    return '\n'.join(lines)


def drawing(out) -> pathlib.Path:
    """Return the path of the plot, before anything is read. Raises RunError for another ending."""
    path = home(out)
    if path.is_dir():
        path /= FILE
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise RunError(
            f'--out={quoted(out)} is no picture that can be written: give a name that ends with '
            f'.png or with another of {", ".join(sorted(known))}, or a folder that exists.'
        )
    return path


# ---------------------------------------------------------------------------------------- columns
def grouped(reports) -> dict[str, list[int]]:
    """Put reports into columns: {name: numbers of reports}.

    Those of runs that differ in their seed alone share one.
    """
    alike = collections.defaultdict(list)
    for i, one in enumerate(reports):
        alike[same_but_seed(one) or f'{i}'].append(i)
    groups = []
    for members in alike.values():
        seeds = {reports[i]['run'].get('seed') for i in members}
        # a seed that comes twice is no sample of its own
        groups += [members] if len(seeds) == len(members) else [[i] for i in members]
    groups.sort()
    names = [name_of([reports[i]['run'] for i in members]) for members in groups]
    return {
        name if names.count(name) == 1 else f'{name}#{i}': members
        for i, (name, members) in enumerate(zip(names, groups))
    }


def same_but_seed(one) -> str:
    """Return what is equal in reports of runs that differ in their seed alone.

    '' for a report that does not say of what settings its run is.
    """
    run = one['run']
    if not run.get('settings') or 'seed' not in run:
        return ''
    kept = {name: x for name, x in run.items() if name not in ('workdir', 'seed')}
    return json.dumps([kept, one['protocol']], sort_keys=True)


def name_of(runs) -> str:
    """Name a column by its runs; of several by what their names have in common."""
    names, step = [run['workdir'] for run in runs], runs[0]['step']
    if len(names) == 1:
        return f'{names[0]}@{step}'
    return f'{os.path.commonprefix(names) or names[0]}*@{step} ({len(names)} seeds)'


# ------------------------------------------------------------------------------------------- rows
def headlines(reports) -> dict:
    """Collect the headlines of reports: {(metric, reader): entry}; older reports have none."""
    found = {}
    for one in reports:
        for entry in one.get('headline', []):
            found.setdefault((entry['metric'], entry['reader']), entry)
    return found


def compared_values(one) -> list:
    """Return the values that are compared: those of the report's main kind of pictures."""
    main = report.main_column(one['values'])
    return [value for value in one['values'] if report.column_of(value) == main]


def rows_of(reports, columns, shown) -> dict:
    """Arrange values as {(split, metric, reader): {protocol as text: {column: value}}}."""
    found = {}
    for name, members in columns.items():
        several = collections.defaultdict(list)
        for i in members:
            for value in compared_values(reports[i]):
                row = report.row_of(value)
                if row[1:] in shown:
                    protocol = json.dumps(whole_protocol(reports[i], value), sort_keys=True)
                    several[row, protocol].append(value)
        for (row, protocol), values in several.items():
            found.setdefault(row, {}).setdefault(protocol, {})[name] = mean_of(values)
    order = list(shown)
    return dict(sorted(found.items(), key=lambda one: order.index(one[0][1:])))


def mean_of(values) -> dict:
    """Return the mean of values, with its standard deviation where they are several."""
    if len(values) == 1:
        return values[0]
    numbers = [one['value'] for one in values]
    kept = {name: values[0][name] for name in ('metric', 'protocol')}
    return kept | dict(value=statistics.mean(numbers), deviation=statistics.stdev(numbers))


def whole_protocol(one, value) -> dict:
    """Return all that must be equal where a value is compared with that of another report."""
    shared = {name: x for name, x in one['protocol'].items() if name != 'splits'}
    shared['size'] = one['run']['size']
    # the hash of a reference says more than a name
    if 'reference' not in value['protocol']:
        shared['data'] = one['run']['data']
    protocol = shared | value['protocol']
    reader, run = protocol.get('reader'), one['run']
    if isinstance(reader, dict) and str(reader.get('name')).startswith('own') and 'settings' in run:
        # a run's own judge: another in each run, but made in the same way where settings are equal
        made = {name: x for name, x in reader.items() if name not in ('weights', 'vocabulary')}
        protocol['reader'] = made | dict(settings=run['settings'])
    return protocol


# ------------------------------------------------------------------------------------------ table
def table(found, names, shown) -> list[str]:
    """Write rows down, reports across; a star marks rows that have others of the same name."""
    lines = [['split', 'metric', '', *names]]
    for (split, *key), protocols in found.items():
        star, better = ' *' if len(protocols) > 1 else '', shown[tuple(key)]['better']
        for values in protocols.values():
            numbers = [report.cell(values.get(column)) for column in names]
            lines.append([split, report.titled(*key) + star, better, *numbers])
    lines = [
        line[:3] + [one if len(one) <= CELL else f'{one[: CELL - 3]}...' for one in line[3:]]
        for line in lines
    ]
    wide = [max(map(len, texts)) for texts in zip(*lines)]
    texts = [
        '  '.join(f'{one:{"<" if i < 3 else ">"}{wide[i]}}' for i, one in enumerate(line))
        for line in lines
    ]
    return [*texts, '', f'{report.HIGHER} more is better, {report.LOWER} less. {report.SIGNS}']


def differences(found) -> list[str]:
    """Say once in what the protocols of rows of the same name differ, report by report."""
    lines = {}
    for protocols in found.values():
        flat = [(dict(flattened(json.loads(text))), values) for text, values in protocols.items()]
        for entry in dict.fromkeys(name for one, _ in flat for name in one):
            given = [(one.get(entry, '-'), values) for one, values in flat]
            if len({text for text, _ in given}) > 1:
                for text, values in given:
                    for column in values:
                        lines.setdefault(entry, {}).setdefault(column, set()).add(text)
    if not lines:
        return []
    out = ['* Not comparable, since protocols differ:']
    for entry, columns in lines.items():
        # of several splits or metrics the first is an example
        parts = [f'{column} {min(texts)}' for column, texts in columns.items()]
        out.append(f'  {entry}: {", ".join(parts)}')
    return out


def flattened(protocol, prefix=''):
    """Yield (name, text) of the entries of nested dictionaries, names joined by dots."""
    for name, value in protocol.items():
        if isinstance(value, dict):
            yield from flattened(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', str(value)[:24]


# ------------------------------------------------------------------------------------------- plots
def plot(found, columns, reports, headline, out):
    """Draw a panel for each metric: bars for each column, or curves over the steps of one run.

    found: `rows_of`. columns: {name: numbers of reports}. headline: {(metric, reader): entry}.
    Raises RunError where nothing can be drawn or written.
    """
    panels = [one for key, entry in headline.items() for one in panels_of(found, key, entry)]
    firsts = {name: reports[members[0]]['run'] for name, members in columns.items()}
    one_run = len({run['workdir'] for run in firsts.values()}) == 1 and len(firsts) > 2
    if one_run:
        panels = [one for one in panels if max(map(len, one[2].values())) > 1]
        if not panels:
            raise RunError(
                'These evaluations have no number of one protocol in common, so there is no curve. '
                'Evaluate the checkpoints with equal options.'
            )
    panels = panels[:PANELS]
    if not panels:
        return
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    bars = max(len(one) for *_, values in panels for one in values.values())
    high = 2.7 if one_run else max(2.2, 0.35 * bars + 1.2)
    size = max(6, 4 * across), min(LARGEST[1], high * down + 0.4)
    figure = Figure(figsize=size, dpi=DPI, layout='constrained')
    axes = figure.subplots(down, across, squeeze=False)
    splits = list(dict.fromkeys(split for *_, values in panels for split in values))
    colours = {split: f'C{i}' for i, split in enumerate(splits)}
    last, main = report.rows(reports[-1]), report.main_column(reports[-1]['values'])
    alike = len({frozenset().union(*values.values()) for *_, values in panels}) == 1
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for i, (axis, (key, title, values)) in enumerate(zip(axes.flat, panels)):
        if one_run:
            draw_curves(axis, values, {name: run['step'] for name, run in firsts.items()}, colours)
        else:
            draw_bars(axis, values, list(columns), colours, named=not (alike and i % across))
        for split in values:
            other = report.beside(headline[key], last.get((split, *key), {}), main)
            if other:
                draw = axis.axhline if one_run else axis.axvline
                style = dict(linestyle='--', linewidth=1, color=colours[split])
                draw(other[1]['value'], **style, label=f' {other[0]} {split}')
        axis.set_title(report.plain(title), fontsize=9)
        axis.tick_params(labelsize=7)
    found = {}
    for axis in axes.flat:
        drawn, names = axis.get_legend_handles_labels()
        found |= {name: one for name, one in zip(names, drawn) if name.strip()}
    if found:
        place = dict(loc='outside lower center', ncols=6, fontsize=8)
        figure.legend(list(found.values()), [report.plain(name) for name in found], **place)
    try:
        report.save(figure, out, DPI)
    except OSError as error:
        raise RunError(explained(error, out)) from None


def panels_of(found, key, entry) -> list:
    """Return the panels of a metric: ((metric, reader), title, {split: {column: value}}).

    Columns of one protocol in all splits share a panel.
    """
    protocols = collections.defaultdict(dict)
    splits = {split: rows for (split, *other), rows in found.items() if tuple(other) == key}
    for split, rows in splits.items():
        for protocol, values in rows.items():
            for column in values:
                protocols[column][split] = protocol
    panels = {}
    for column, own in protocols.items():
        panel = panels.setdefault(tuple(sorted(own.items())), {})
        for split, protocol in own.items():
            panel.setdefault(split, {})[column] = splits[split][protocol][column]
    title = report.titled(*key, entry['better'])
    titles = [f'{title}, protocol {number + 1}' for number in range(len(panels))]
    titles = titles if len(panels) > 1 else [title]
    return [(key, title, values) for title, values in zip(titles, panels.values())]


def draw_bars(axis, values, names, colours, named):
    """Draw a group of bars for each column, a bar for each split of {split: {column: value}}.

    named: whether the columns are named at the left.
    """
    names = [name for name in names if any(name in one for one in values.values())]
    height = 0.8 / len(values)
    for number, (split, one) in enumerate(values.items()):
        at = [i - 0.4 + height * (number + 0.5) for i, name in enumerate(names) if name in one]
        there = [one[name] for name in names if name in one]
        widths = [value['value'] for value in there]
        bars = axis.barh(at, widths, height, color=colours[split], label=f' {split}')
        texts = [report.plain(report.cell(value)) for value in there]
        axis.bar_label(bars, texts, fontsize=7, padding=2)
    axis.set_yticks(range(len(names)), [report.plain(name) if named else '' for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    # room for the numbers at the ends of the bars
    axis.margins(x=0.45)
    axis.grid(axis='x', alpha=0.3)


def draw_curves(axis, values, steps, colours):
    """Draw a curve over the steps of training for each split of {split: {column: value}}."""
    for split, one in values.items():
        points = sorted((steps[name], value['value']) for name, value in one.items())
        axis.plot(*zip(*points), marker='o', color=colours[split], label=f' {split}')
    axis.set_xlabel('step', fontsize=7)
    axis.grid(alpha=0.3)
