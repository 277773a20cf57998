"""What a notebook uses: runs, callbacks of training, samples that show themselves."""

import asyncio
import shutil
import threading

import jax
import numpy as np
import pytest
from PIL import Image

from t2i_jax.run import Run
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.sample import Sampler
from t2i_jax.train import train


def test_samples_show_themselves(trained):
    samples = Sampler.load(trained)(['a red ring', 'a blue square'], num=3)
    assert samples.images is samples['image'] and samples.images.shape[:2] == (2, 3)
    assert samples.captions == ['a red ring', 'a blue square']
    ((first, *_), _) = samples.pil()
    assert isinstance(first, Image.Image) and first.size == (samples.meta.size,) * 2
    assert samples._repr_png_().startswith(b'\x89PNG')
    assert repr(samples) == f'Samples(image {samples.images.shape})'
    with pytest.raises(RunError, match='no texts: see `images`'):
        samples.texts  # noqa: B018


def test_samples_that_are_texts_and_boxes(run_of):
    described = Sampler.load(run_of('mirrorgan'), stage='stream')
    picture = np.zeros((16, 16, 3), np.uint8)
    samples = described(image=[picture, picture])
    assert [len(row) for row in samples.texts] == [8, 8] and samples._repr_png_() is None
    with pytest.raises(RunError, match='see `texts`'):
        samples.images  # noqa: B018
    boxes = Sampler.load(run_of('layout_vae'))(labels=['circle, square'], num=2)
    assert boxes.images.shape[:2] == (1, 2) and boxes.images.dtype == np.uint8


def test_a_run_says_what_training_left(trained):
    run = Run.open(trained)
    metrics = run.metrics('gan')
    assert {'step', 'train/d_loss', 'train/g_loss'} <= metrics.keys()
    assert all(len(values) == len(metrics['step']) for values in metrics.values())
    grids = run.samples()
    assert 0 in grids and all(grid.ndim == 3 for grid in grids.values())
    assert 'gan_cls' in repr(run) and Sampler.load(run, stage='gan').name == 'gan'
    with pytest.raises(RunError, match='has no losses of gan yet'):
        Run(run.config, trained / 'nowhere').metrics('gan')


@pytest.fixture
def resumable(trained, tmp_path):
    """A copy of a finished run, that has more steps to go."""
    run = Run.open(shutil.copytree(trained, tmp_path / 'run'))
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.stages.gan.update(steps=run.config.stages.gan.steps + 4, log_every=1, sample_every=2)
    return Run.create(config.lock(), run.workdir)


def test_training_calls_back_and_stops_when_told(resumable):
    logged, drawn, first = [], [], max(resumable['gan'].saved_steps())
    calls = dict(
        on_log=lambda stage, step, numbers: logged.append((stage, step, numbers)),
        on_samples=lambda stage, step, grid: drawn.append((step, grid.dtype)),
        on_step=lambda stage, step: step == first + 2,
    )
    # in a thread that has an event loop, as in a notebook
    done = []

    async def inside():
        done.append(train(resumable, jax.devices()[:1], **calls))

    thread = threading.Thread(target=asyncio.run, args=(inside(),))
    thread.start()
    thread.join()
    assert done == [resumable]
    assert max(resumable['gan'].saved_steps()) == first + 2
    trains = [(stage, step) for stage, step, numbers in logged if 'train/d_loss' in numbers]
    assert trains == [('gan', first + 1), ('gan', first + 2)]
    assert drawn == [(first + 2, np.uint8)]
    train(resumable, jax.devices()[:1])
    assert max(resumable['gan'].saved_steps()) == first + 4


def test_errors_of_a_user_are_one_line_in_a_notebook():
    for kind in (RunError, DataError):
        assert kind('Give a sentence.')._render_traceback_() == ['Error: Give a sentence.']
