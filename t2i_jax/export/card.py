"""The card of an exported model: README.md with the front matter of the Hugging Face hub."""

import importlib
import json

from t2i_jax import __version__
from t2i_jax.data.conditions import CONDITIONS
from t2i_jax.draw.outputs import OUTPUTS, main_output
from t2i_jax.evaluate import report

# numbers of the table
MOST = 40
PAGE = """---
{front}
---

# {title}

{paper}

{pictures}
## Use

```
pip install t2i_jax
t2i_jax --workdir=<this folder> --mode=sample{flag}
```

```python
from t2i_jax import Sampler

sampler = Sampler.load('<this folder>')
{example}
```

It draws {makes} of {size} px from {conditions}. `--mode=evaluate` measures it, `--mode=explore`
shows what it has learnt.

## Training

System `{system}`, stage `{stage}`, {steps}; data {data}, split `{split}`; t2i_jax {version}.
`config.json` has every setting, `t2i_jax/systems/{system}.py` the losses and all deviations from
the paper.

## Numbers

{numbers}

## Limits

It knows what its data show, and nothing else{limits}. What the data lack or distort, its pictures
lack or distort, too.

## Files

| | |
|---|---|
{files}
"""


def card(stage, folder, step, precision, license, sizes) -> str:
    """Write the card of an exported stage. sizes: bytes of its weights, {stage: number}."""
    run, module, meta = stage.run, stage.module, stage.meta
    system = importlib.import_module(f't2i_jax.systems.{run.config.system}')
    title, _, rest = system.__doc__.partition('\n')
    title = f'{title.rstrip(".")}, on {meta.name}'
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob('eval/*.json'))]
    flags = [CONDITIONS[name].flag for name in module.draws_from if CONDITIONS[name].flag]
    example = "images = sampler(num=4)['image']  # uint8 1 4 s s 3"
    if 'sentence' in module.draws_from:
        example = "images = sampler(['...'], num=4)['image']  # uint8 1 4 s s 3"
    noun = OUTPUTS[main_output(module.makes)].noun
    files = {
        f'{name}/weights.safetensors': f'{n / 1e6:,.1f} MB, {precision}'
        for name, n in sizes.items()
    }
    files |= {'config.json': 'all settings', 'vocabulary.json': f'{len(meta.words):,} words'}
    files |= {'export.json': 'the SHA-256 of each file'}
    words = f'; of sentences it reads the {len(meta.words):,} words of `vocabulary.json`'
    return PAGE.format(
        front=front(run, meta, title, license, reports),
        title=title,
        paper=' '.join(rest.strip().partition('\n\n')[0].split()),
        pictures='![held-out records, and what it makes of them](samples.png)\n'
        if (folder / 'samples.png').exists()
        else '',
        flag=f' --{flags[0]}="..."' if flags else '',
        example=example,
        conditions=' and '.join(map(plural, module.draws_from)) or 'noise alone',
        makes=noun,
        size=meta.size,
        system=run.config.system,
        stage=stage.name,
        steps=f'{step:,} steps of {stage.block.batch_size} records',
        data=meta.name,
        split=stage.data['split'],
        version=__version__,
        numbers=numbers(reports),
        limits=words if 'sentence' in module.draws_from else '',
        files='\n'.join(f'| `{name}` | {text} |' for name, text in files.items()),
    )


def plural(name):
    return name if name.endswith('s') else f'{name}s'


def front(run, meta, title, license, reports) -> str:
    """Write the front matter, YAML whose texts are JSON."""
    lines = [
        f'license: {json.dumps(license)}',
        'library_name: t2i_jax',
        'pipeline_tag: text-to-image',
        f'tags: {json.dumps(["jax", "flax", "gan", run.config.system])}',
    ]
    found = [
        dict(type=one['metric'], value=round(one['value'], 4)) | dict(name=name)
        for name, one in headline(reports)
    ]
    if found:
        data = dict(type=meta.name, name=meta.name)
        results = [dict(task=dict(type='text-to-image'), dataset=data, metrics=found)]
        lines.append(f'model-index: {json.dumps([dict(name=title, results=results)])}')
    return '\n'.join(lines)


def headline(reports):
    """List (name, value) of the headline numbers of drawn pictures in reports."""
    out = {}
    for found in reports:
        named = {(one['metric'], one['reader']) for one in found.get('headline', ())}
        for one in found['values']:
            split, metric, reader = report.row_of(one)
            if (metric, reader) in named and report.column_of(one) == 'drawn':
                out[f'{metric} ({", ".join(filter(None, (split, reader)))})'] = one
    return list(out.items())[:MOST]


def numbers(reports) -> str:
    """Write the headline numbers as a table, with the protocol by which they were measured."""
    rows = headline(reports)
    if not rows:
        return 'None were measured before it was exported.'
    protocol = {k: v for k, v in reports[-1]['protocol'].items() if v != '-'}
    lines = [f'| {name} | {report.cell(one)} |' for name, one in rows]
    said = ', '.join(f'{name} {value}' for name, value in protocol.items())
    return '\n'.join(
        ['| | value |', '|---|---|', *lines, '', f'Protocol: {said}. All numbers: `eval/`.']
    )
