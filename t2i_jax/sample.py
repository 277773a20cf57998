"""Sentences to pictures: the command line, the training grid, notebooks and the evaluator all call this.

    Sampler.load('runs/quick')(['a green circle'], num=4, seed=0)['image']      # uint8 1 4 s s 3
"""
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import log, run, sharding
from t2i_jax import stage as core
from t2i_jax.errors import DataError, RunError
from t2i_jax.text import Vocabulary, encode_sentences

TEXT = {'tokens', 'length', 'chars', 'embedding'}


class Sampler:
    """A trained stage that draws. `meta`, `step` and `stage` say which."""

    def __init__(self, prog, module, params, stats, vocabulary, meta, stage='', step=0, chunk=64, mesh=None):
        """chunk: rows computed at once; the last chunk is filled up, so that there is one compilation. mesh: devices among which the rows
        are divided, None: the first one."""
        self.prog, self.module, self.params, self.stats = prog, module, params, stats
        self.vocabulary, self.meta, self.stage, self.step, self.chunk = vocabulary, meta, stage, step, chunk
        self.rows = sharding.by_rows(mesh) if mesh else None
        if mesh:
            self.chunk = -(-chunk // mesh.size) * mesh.size
            self.params, self.stats = jax.device_put((params, stats), sharding.replicated(mesh))
        self.reads_text = bool(TEXT & set(module.needs))
        self._draw = jax.jit(functools.partial(core.sample, prog))

    @classmethod
    def load(cls, workdir, step=None, chunk=64, averaged=True, mesh=None):
        """The last stage of a run that draws and has a finished checkpoint; step: another than the newest (or best); averaged: with the
        moving average of the weights where there is one, else with the plain ones.

        Raises RunError where there is none.
        """
        config, stages = run.load_config(workdir), run.system(run.load_config(workdir).system).STAGES
        names = [n for n in run.stage_names(config) if stages[n].sample is not core.Stage.sample]
        ready = [n for n in names if (pathlib.Path(workdir) / n / 'checkpoints').exists()]
        if not ready:
            raise RunError(f'{workdir} has no finished checkpoint of {" or ".join(names)}, which draws. '
                           f'Train on: python -m t2i_jax.main --workdir={workdir}')
        name = ready[-1]
        meta = run.read_meta(workdir, name)
        step, state, prog = run.restore(config, workdir, name, step)
        vocabulary = Vocabulary.load(pathlib.Path(workdir) / 'vocabulary.json')
        params, stats = (state.sampling_params(), state.sampling_stats()) if averaged else (state.params, state.stats)
        return cls(prog, run.abstract(config, workdir, name, meta), params, stats, vocabulary, meta, name, step, chunk, mesh)

    def __call__(self, sentences=None, num=8, seed=0, noise=None, layout=None, dialog=None, image=None):
        """Draws `num` samples of each sentence (or of each row of a layout, a dialogue, a picture); of nothing, where the system is unconditional.

        sentences: n strings. num: samples of each. seed: the j-th sample of every sentence starts from the same noise, a
        function of (seed, j). noise: a dictionary as the stage's `noise` makes it, with n * num rows, instead of a seed.
        layout, dialog, image: batch keys and their values for what else the system reads (`boxes`, `dialog`, ...), n rows.
        -> {'image': uint8 n num s s 3, ...}, other keys as the stage's `sample` gives them, n num ...
        Raises DataError for a sentence that cannot be read and for a condition that is missing.
        """
        batch = dict(layout or {}) | dict(dialog or {}) | dict(image or {})
        if sentences is not None:
            if not self.reads_text:
                raise DataError(f'{type(self.module).__name__} draws without sentences. Leave them out.')
            if 'embedding' in self.module.needs:
                raise DataError('This run was trained on stored sentence vectors and has no text encoder, so it cannot read a sentence. '
                                'Train with --config.data.embedding=none.')
            batch |= encode_sentences(sentences, self.vocabulary, self.meta.length)
        elif self.reads_text and not batch:
            raise DataError(f'{type(self.module).__name__} draws from sentences: give some, --text="..." on the command line.')
        if num < 1:
            raise DataError(f'num={num}: ask for at least one sample.')
        n = len(next(iter(batch.values()))) if batch else 1
        if noise is None:
            one = self.module.noise(jax.random.key(seed), num)
            noise = {name: np.tile(np.asarray(x), (n,) + (1,) * (x.ndim - 1)) for name, x in one.items()}
        return self.draw({name: np.repeat(np.asarray(x), num, 0) for name, x in batch.items()}, noise, (n, num))

    def draw(self, batch, noise, shape):
        """Rows of a batch and of noise, in chunks -> numpy arrays, the rows arranged as `shape`; pictures as uint8."""
        rows, outs = int(np.prod(shape)), []
        for start in range(0, rows, self.chunk):
            index = np.minimum(np.arange(start, start + self.chunk), rows - 1)
            part = jax.tree.map(lambda x, index=index: jax.device_put(np.asarray(x)[index], self.rows), (batch, noise))
            out = self._draw(self.params, self.stats, *part)
            outs.append(jax.tree.map(np.asarray, {name: to_uint8(x) if name in ('image', 'images') else x for name, x in out.items()}))
        return jax.tree.map(lambda *x: np.concatenate(x)[:rows].reshape(*shape, *x[0].shape[1:]), *outs)


def to_uint8(images):
    """Pictures in [-1, 1] (one array or a list of scales) -> uint8, rounded."""
    return jax.tree.map(lambda x: jnp.clip(jnp.round((x.astype(jnp.float32) + 1) * 127.5), 0, 255).astype(jnp.uint8), images)


def read_lines(path):
    """The sentences of a text file, one a line. Raises DataError for a file that is missing or holds none."""
    try:
        lines = [line.strip() for line in pathlib.Path(path).read_text(encoding='utf-8').splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'The text file {path} cannot be read: {error}.') from None
    if not lines:
        raise DataError(f'The text file {path} is empty. Write one sentence a line.')
    return lines


def to_files(workdir, sentences, num, seed, out):
    """Draws and writes one PNG for each sentence and `sheet.png`, the contact sheet. -> the folder"""
    sampler = Sampler.load(workdir)
    out = pathlib.Path(out or pathlib.Path(workdir) / 'samples')
    drawn, labels = sampler(sentences or None, num=num, seed=seed), sentences or None
    if 'image' not in drawn:
        raise RunError(f'Stage {sampler.stage} makes {", ".join(drawn)}, not pictures: call Sampler from Python.')
    images = drawn['image']
    for number, row in enumerate(images):
        words = re.sub(r'[^a-z0-9]+', '-', sentences[number].lower()).strip('-')[:60] if labels else 'samples'
        log.save_png(out / f'{number:03d}_{words}.png', np.concatenate(list(row), 1))
    log.sheet(images, labels, out / 'sheet.png', title=f'{sampler.stage}, step {sampler.step:,}, seed {seed}')
    print(f'{len(images)} x {num} pictures of stage {sampler.stage}, step {sampler.step}, are in {out}; all together: {out / "sheet.png"}')
    return out
