"""Write the tables of settings in docs/training.md: name, default, meaning.

    python -m docs.settings           # rewrite what stands between the two markers
    python -m docs.settings --check   # end with 1 if that would change the page

Defaults and meanings come from t2i_jax/config/tables.py.
"""

import pathlib
import sys

from t2i_jax.config import DATA, EVAL, OPTIM, Setting
from t2i_jax.config.tables import SETTINGS, STAGE, Named

PAGE = pathlib.Path(__file__).parent / 'training.md'
BEGIN, END = '<!-- settings: python -m docs.settings -->', '<!-- end of settings -->'
TABLES = {
    'The run, `--config.`': {
        name: SETTINGS[name] for name in SETTINGS if name not in ('data', 'eval')
    },
    'Data, `--config.data.`': DATA,
    'A stage, `--config.stages.<stage>.`': STAGE,
    'An optimiser, `--config.stages.<stage>.optim.<phase>.`': OPTIM,
    'Evaluation, `--config.eval.`': EVAL,
}
# blocks that have a table of their own, or that the system or the data set fills
BLOCKS = {
    'stages': 'see the table of a stage below',
    'init': '`init.<stage>`: workdir of a run from which this stage is taken; empty: train it',
    'model': 'hyper-parameters of the system: see its file',
    'data': 'settings of `data` that differ in this stage',
    'optim': '`optim.<phase>`: see the table of an optimiser below',
    'nominal': 'published sizes of the data set, used where its files are not needed',
}


def rows(table, prefix=''):
    """The rows of a table of settings, nested ones included."""
    for name, one in table.items():
        if isinstance(one, Setting):
            meaning = one.meaning.replace('<', r'\<')
            yield f'| `{prefix}{name}` | `{one.default!r}` | {meaning} |'
        elif isinstance(one, Named):
            yield f'| `{prefix}{name}` | | {BLOCKS[name]} |'
        else:
            yield from rows(one, f'{prefix}{name}.')


def page(old):
    """The page with tables as config has them now."""
    lines = []
    for title, table in TABLES.items():
        head = [f'### {title}', '', '| setting | default | meaning |', '|---|---|---|']
        lines += [*head, *rows(table), '']
    before, after = old.split(BEGIN)[0], old.split(END)[1]
    return '\n'.join([before + BEGIN, '', *lines, END]) + after


def main():
    old = PAGE.read_text()
    new = page(old)
    if '--check' in sys.argv:
        sys.exit('docs/training.md: run python -m docs.settings' if new != old else 0)
    PAGE.write_text(new)


if __name__ == '__main__':
    main()
