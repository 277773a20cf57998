"""The curves of a stage in training: metrics.jsonl as one picture."""

import fnmatch
import json
import pathlib
from collections.abc import Iterable

from matplotlib.figure import Figure

from t2i_jax.runtime.files import replacing

# title -> patterns of names in metrics.jsonl; a panel without values is left out
PANELS = {
    'losses': ('train/*_loss',),
    'held-out losses': ('validation/*_loss',),
    "D's answers (logits)": ('train/*_logit',),
    'pictures that find their sentence': ('train/found', 'train/drawn_found'),
}
# of a curve
POINTS = 500


def save_curves(lines: Iterable[str], path, more=None) -> bool:
    """Draw the values of metrics.jsonl over steps -> whether there were any.

    lines: of that file. path: of the picture. more: further panels, as PANELS.
    """
    values = {}
    for line in lines:
        row = json.loads(line)
        for name, value in row.items():
            if name != 'step':
                values.setdefault(name, []).append((row['step'], value))
    panels = {
        title: found
        for title, patterns in {**PANELS, **(more or {})}.items()
        if (found := [n for n in values if any(fnmatch.fnmatch(n, p) for p in patterns)])
    }
    if not panels:
        return False
    figure = Figure(figsize=(4 * len(panels), 3), dpi=100, layout='constrained')
    for axis, (title, names) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items()
    ):
        for name in names:
            every = -(-len(values[name]) // POINTS)
            steps, heights = zip(*values[name][::every])
            axis.plot(steps, heights, linewidth=1, label=name.partition('/')[2])
        axis.set_title(title, fontsize=9)
        axis.set_xlabel('step', fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7)
    with replacing(pathlib.Path(path)) as temporary:
        figure.savefig(temporary, format='png')
    return True
