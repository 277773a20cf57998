"""Several reports next to each other, as a table and as a plot."""

import json
import pathlib
from collections.abc import Sequence

import matplotlib

from t2i_jax.evaluate import report
from t2i_jax.run import Path
from t2i_jax.runtime.errors import RunError

# levels that are drawn across the curve of a run
LEVELS = 'real', 'training', 'shuffled', 'noise', 'floor'


def compare(paths: Sequence[Path], out: Path | None = None) -> str:
    """Write several reports as one table and, where `out` is given, as a plot.

    paths: workdirs or files of reports. out: a PNG.

    Numbers of different protocols stand in different rows, which say what differs.
    """
    reports = [report.read(path) for path in paths]
    names = [f'{one["run"]["workdir"]}@{one["run"]["step"]}' for one in reports]
    names = [name if names.count(name) == 1 else f'{name}#{i}' for i, name in enumerate(names)]
    # {(split, metric, reader, protocol as text): {report: value}}
    found = {}
    for name, one in zip(names, reports):
        for value in compared_values(one):
            protocol = json.dumps(whole_protocol(one, value), sort_keys=True)
            found.setdefault((*report.row_of(value), protocol), {})[name] = value
    lines = [report.line(('split', 'metric', 'reader'), names, 22)]
    for (*row, protocol), values in found.items():
        lines.append(report.line(row, [report.cell(values.get(name)) for name in names], 22))
        others = [key[-1] for key in found if key[:-1] == tuple(row) and key[-1] != protocol]
        if others:
            lines.append(f'{"":<13}  not comparable with the row of the same name: ')
            lines[-1] += ', '.join(differing(protocol, others))
    if out:
        plot(found, names, out, report.rows(reports[-1]))
        lines.append(f'\nPlot: {out}')
    return '\n'.join(lines)


def compared_values(one) -> list:
    """Return the values that are compared: those of samples, else of real pairs.

    A stage that compares pictures with captions makes no samples.
    """
    columns = {report.column_of(value) for value in one['values']}
    column = 'drawn' if 'drawn' in columns else 'real'
    return [value for value in one['values'] if report.column_of(value) == column]


def whole_protocol(one, value) -> dict:
    """Return all that must be equal where a value is compared with that of another report."""
    shared = {name: x for name, x in one['protocol'].items() if name != 'splits'}
    shared['size'] = one['run']['size']
    # the hash of a reference says more than a name
    if 'reference' not in value['protocol']:
        shared['data'] = one['run']['data']
    return shared | value['protocol']


def differing(protocol, others) -> list[str]:
    """Write the entries of a protocol (as text) in which one of the others differs."""
    own, others = json.loads(protocol), [json.loads(other) for other in others]
    names = {name for other in others for name in own | other if own.get(name) != other.get(name)}
    return [f'{name} {short(own.get(name))}' for name in sorted(names)]


def short(value) -> str:
    if isinstance(value, dict):
        return ' '.join(f'{name}={short(x)}' for name, x in value.items())
    return str(value)[:24]


# ------------------------------------------------------------------------------------------- plots
def plot(found, names, out, last):
    """Draw bars for each report, or curves over the steps of one run.

    found: as in `compare`. names: of the reports. last: the rows of the last of them.
    """
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    runs = [name.partition('@') for name in names]
    if len(runs) > 2 and len({run for run, _, _ in runs}) == 1:
        steps = [int(step.partition('#')[0]) for _, _, step in runs]
        figure = over_steps(found, dict(zip(names, steps)), last)
    else:
        inside, seen = {}, {}
        for (*row, _), values in found.items():
            label = ' '.join(filter(None, row))
            number = seen[label] = seen.get(label, 0) + 1
            if all(0 <= one['value'] <= 1 for one in values.values()):
                inside[label + (f' (protocol {number})' if number > 1 else '')] = values
        size = 8, max(3, 0.3 * len(inside) + 1)
        figure, axis = plt.subplots(figsize=size, layout='constrained')
        report.bars(axis, inside, names)
    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def over_steps(found, steps, last):
    """Draw one run over training, a panel a metric.

    Pictures that no system made are levels. Raises RunError where the reports have no number of one
    protocol in common.
    """
    from matplotlib import pyplot as plt

    shown = {key: values for key, values in found.items() if len(values) > 1}
    if not shown:
        raise RunError(
            'These evaluations have no number of one protocol in common, so there is no curve. '
            'Evaluate the checkpoints with equal options.'
        )
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    size = 4 * columns, 2.6 * lines
    figure, axes = plt.subplots(lines, columns, figsize=size, layout='constrained', squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, ((*row, _), values) in zip(axes.flat, shown.items()):
        points = sorted((steps[name], one['value']) for name, one in values.items())
        axis.plot(*zip(*points), marker='o', label='drawn')
        levels = last.get(tuple(row), {})
        for name in LEVELS:
            if name in levels:
                colour = f'C{report.PICTURES.index(name)}'
                style = dict(linestyle='--', linewidth=1, color=colour, label=name)
                axis.axhline(levels[name]['value'], **style)
        axis.set_title(' '.join(filter(None, row)), fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6)
    axes[-1, 0].set_xlabel('step')
    return figure
