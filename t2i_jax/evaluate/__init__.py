"""A run, or a folder of pictures, to numbers that can be compared, each with its protocol.

t2i_jax --workdir=runs/quick --mode=evaluate [--config.eval.num=1000]
evaluate(Run.open('runs/quick')['gan'], num=1000)

pictures, layouts, matching, captions   a kind of output each, see EVALUATIONS
files                         pictures made elsewhere
during                        a few pictures, during training
sources, features, judges     what is measured, and what reads it
measures, report, compare     what all kinds share; the result
"""

import functools
import hashlib
import json

from t2i_jax import config as settings
from t2i_jax.config.checks import check_block
from t2i_jax.config.tables import FREE
from t2i_jax.data.feed import CHUNK
from t2i_jax.draw.outputs import DRAWN
from t2i_jax.evaluate import report
from t2i_jax.evaluate.captions import Captions
from t2i_jax.evaluate.files import evaluate_files
from t2i_jax.evaluate.layouts import Layouts
from t2i_jax.evaluate.matching import Pairs
from t2i_jax.evaluate.measures import OPTIONS, Kind, Unmeasurable
from t2i_jax.evaluate.pictures import Images
from t2i_jax.evaluate.trouble import troubles
from t2i_jax.run import Path, RunStage
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import RunError, quoted
from t2i_jax.sample import Sampler

__all__ = ['EVALUATIONS', 'evaluate', 'evaluate_files']

# what a stage makes, in the order in which its main result is looked for -> how it is measured
EVALUATIONS: dict[str, type[Kind]] = {
    'image': Images,
    'boxes': Layouts,
    'codes': Pairs,
    'tokens': Captions,
}


def evaluate(stage: RunStage, out: Path | None = None, everything: bool = False, **options) -> dict:
    """Evaluate a stage and write <out>/<name>.json and .png -> the report as a dictionary.

    Its headline is printed, and a line at the start.

    stage: a RunStage. out: a folder, <workdir>/eval by default. everything: print all numbers.
    options: those that differ from `eval` in the run's config.

    A number that cannot be computed is left out, with a line that says why. Raises RunError,
    DataError, and ValueError where none is left or pictures give no features.
    """
    config, options = stage.config, {**OPTIONS, **stage.config.eval, **options}
    check_block('eval', options)
    # a bar follows on a terminal; elsewhere minutes pass before the numbers come
    print(
        f'Evaluating stage {stage.name} of {quoted(stage.workdir)}, eval.num={options["num"]:,} of '
        'each split. Compiling takes about a minute the first time.',
        flush=True,
    )
    ema, mesh = options['weights'] == 'ema', sharding.make_mesh(1)
    sampler = Sampler(stage, options['step'] or None, chunk=CHUNK, averaged=ema, mesh=mesh)
    kind = kind_of(sampler)

    fields = *kind.fields, *(n for n in sampler.module.needs if not n.startswith('wrong_'))
    cache = 'none' if stage.data['cache'] == 'none' else 'host'
    opened = functools.cache(lambda name: stage.split(name, tuple(dict.fromkeys(fields)), cache))
    train = opened(stage.data['split'])
    measured = kind(stage, sampler, train, options)
    splits = [name.strip() for name in options['split'].split(',') if name.strip()]
    splits = splits or measured.splits
    name = options['name'] or file_name(stage, sampler.step, splits, measured, options)
    path = report.place(out or stage.workdir / 'eval', name.replace('/', '_'))
    values, grids = [], []
    for name in splits:
        split = opened(name)
        try:
            new, grid = measured(name, split)
        except Unmeasurable as error:
            print(f'Split {name} is left out: {error}')
            continue
        values += new
        grids.append(grid)
    splits = [name for name, *_ in grids]

    run = dict(
        workdir=stage.workdir.name,
        system=config.system,
        data=train.meta.name,
        stage=stage.name,
        step=sampler.step,
        size=sampler.meta.size,
        seed=config.seed,
        settings=settings_hash(config),
    )
    protocol = dict(
        num=options['num'],
        **measured.protocol,
        seed=options['seed'],
        weights=options['weights'],
        splits=splits,
        version=report.version(),
    )
    parts = dict(run=run, protocol=protocol, values=values)
    found = report.finish(path, grids, measured.headline, everything, **parts)
    logged = stage.run.metrics(stage.name) if stage.has_log else {}
    for trouble in troubles(values, logged):
        print(f'\nNote: {trouble}')
    return found


def settings_hash(config) -> str:
    """Hash the settings that a run learns from, without its seed."""
    flat = settings.flat(json.loads(settings.to_json(config)))
    kept = {path: x for path, x in flat.items() if path != 'seed' and not is_free(path)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:20]


def is_free(path) -> bool:
    """Whether a setting may differ between two starts of a run."""
    one = settings.setting(path)
    return isinstance(one, settings.Setting) and one.resume == FREE


def kind_of(sampler) -> type[Kind]:
    """Return how a stage is measured, by what it makes. Raises RunError where it is not."""
    made = next((name for name in EVALUATIONS if name in sampler.makes), None)
    if made is None:
        raise RunError(
            f'Stage {sampler.name} makes {", ".join(sampler.makes) or "nothing"}, which is not '
            f'measured; {", ".join(EVALUATIONS)} are. Name another stage: --stage.'
        )
    return EVALUATIONS[made]


def file_name(stage, step, splits, measured, options) -> str:
    """Return what sets an evaluation apart from the others of its run."""
    drawn = [one for one in stage.run.stages if one.makes_any(DRAWN)] or stage.run.stages
    # an encoder can be evaluated before what draws is trained
    main = next((one for one in reversed(drawn) if one.has_checkpoints), drawn[-1])
    last = '' if main is stage else f'_{stage.name}'
    return (
        f'{"_".join(splits)}_{measured.size}_{options["weights"]}_seed{options["seed"]}'
        f'{measured.networks}{last}_step{step}'
    )
