"""A stage of an experiment as the trainer opens it: data and model, without training it."""

import contextlib
import pathlib

from t2i_jax.run import Run
from t2i_jax.runtime.errors import RunError
from t2i_jax.runtime.signals import Signals
from t2i_jax.train import Trainer


def open_trainer(config, stage, folder, mesh) -> Trainer:
    """Open the data of a stage, and of earlier ones, which then count as trained.

    config: of the experiment, locked
    stage: its name
    folder: an empty folder, for meta.json and the vocabulary

    Raises RunError for a stage that does not exist, DataError for the data.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    run = Run.create(config, folder)
    require_stage(run, stage)
    for one in run.stages:
        if one.adopted:
            one.adopt()
            continue
        trainer = Trainer(one, mesh, Signals())
        trainer.open_data()
        if one.name == stage:
            return trainer
    raise RunError(f'Stage {stage} is taken from another run: there is nothing to measure.')


def untrained(config, folder, mesh) -> Run:
    """Make a run whose stages are saved before their first step, so that it can draw."""
    run = Run.create(config, folder)
    run.claim()
    for one in run.stages:
        trainer = Trainer(one, mesh, Signals())
        trainer.open_data()
        trainer.open_model()
        with contextlib.closing(one.checkpoints()) as checkpoints:
            trainer.save(0, trainer.initial(), checkpoints, wait=True)
    return run


def require_stage(run, stage):
    """Raise RunError where a run has no stage of this name."""
    if stage not in run.names:
        raise RunError(f'There is no stage {stage!r}; there are {", ".join(run.names)}.')
