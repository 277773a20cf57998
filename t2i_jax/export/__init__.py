"""A trained stage as a folder to hand on: weights, settings, words, a card.

An exported folder is opened like the folder of a run, and draws the same pictures; it is not
trained. program.py has another form, which JAX alone can draw from.

<folder>/export.json                         what is here, and the SHA-256 of each file
         README.md, samples.png              the model card
         config.json, vocabulary.json
         <stage>/meta.json, weights.safetensors
         eval/*.json                         the run's evaluations of the stage
"""

import json
import pathlib
import shutil

from t2i_jax import config as settings
from t2i_jax.export.card import card
from t2i_jax.export.folders import written
from t2i_jax.export.program import to_program
from t2i_jax.run import Path, RunStage
from t2i_jax.runtime.errors import choose, home
from t2i_jax.runtime.files import write_text
from t2i_jax.runtime.places import push
from t2i_jax.runtime.weights import PRECISIONS, WEIGHTS, save_weights

__all__ = ['export', 'push', 'to_program']


def export(
    stage: RunStage,
    out: Path,
    *,
    step: int | None = None,
    averaged: bool = True,
    precision: str = 'float32',
    license: str = 'other',
) -> pathlib.Path:
    """Write a stage, and the stages that judge its pictures, to a folder -> its path.

    stage: a RunStage with a checkpoint.
    out: the folder, new, empty, or one that was exported before, which is replaced.
    step: of the checkpoint; None: the best or newest.
    averaged: the moving average of the weights where there is one.
    precision: 'float32', with which pictures stay the same bit by bit, 'bfloat16' or 'float16'.
    license: of the card, as the Hugging Face hub names it.

    Raises RunError where there is no checkpoint, and for a folder that holds something else.
    """
    choose('precision', precision, PRECISIONS)
    out = home(out)
    step, weights = stage.weights(step, averaged)
    # those that another run has trained, too
    judges = [stage.run[name].source() for name in stage.module.judges if name in stage.run.names]
    known = dict(stages={stage.name: step}, precision=precision, averaged=averaged)
    with written(out, **known) as (folder, known):
        saved = {stage.name: weights}
        for judge in judges:
            if judge.has_checkpoints:
                known['stages'][judge.name], saved[judge.name] = judge.weights()
        sizes = {
            name: save_weights(folder / name / WEIGHTS, dict(params=params, stats=stats), precision)
            for name, (params, stats) in saved.items()
        }
        with_settings(stage, folder)
        copied(stage, folder, step)
        write_text(folder / 'README.md', card(stage, folder, step, precision, license, sizes))
    return out


def with_settings(stage, out):
    """Write the config, the words, and what each stage knows of its data.

    Stages of other runs become the run's own, so that no path of this machine is left.
    """
    run, config = stage.run, json.loads(settings.to_json(stage.run.config))
    for name in run.names:
        other = run[name].origin()
        if run[name].adopted:
            config['stages'][name] = json.loads(settings.to_json(other.config))['stages'][name]
            config['stages'][name]['data'] = {**other.data, 'dir': '', 'manual_dir': ''}
        config['stages'][name]['init_from'] = config['init'][name] = ''
        folder = run[name].folder / 'meta.json'
        if folder.exists():
            (out / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(folder, out / name / 'meta.json')
    config['data'].update(dir='', manual_dir='')
    config['eval'].update(scorer='', extractor_weights='')
    write_text(out / 'config.json', json.dumps(config, indent=2) + '\n')
    run.vocabulary.save(out / 'vocabulary.json')


def copied(stage, out, step):
    """Copy the last training grid and the evaluations of this step."""
    grids = sorted((stage.folder / 'samples').glob('*.png'))
    if grids:
        shutil.copy(grids[-1], out / 'samples.png')
    for path in sorted((stage.workdir / 'eval').glob('*.json')):
        found = json.loads(path.read_text())
        measured = found.get('run', {}) if isinstance(found, dict) else {}
        if (measured.get('stage'), measured.get('step')) == (stage.name, step):
            (out / 'eval').mkdir(exist_ok=True)
            measured['workdir'] = stage.workdir.name
            write_text(out / 'eval' / path.name, json.dumps(found) + '\n')
