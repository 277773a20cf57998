"""Sentences to pictures: the command line, the training grid, notebooks and the evaluator all call this.

Sampler.load('runs/quick')(['a green circle'], num=4, seed=0)['image']      # uint8 1 4 s s 3
Sampler.load('runs/layout')(labels=['person, dog'], num=4)['boxes']         # float32 1 4 R 4
"""

import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import run
from t2i_jax import stage as core
from t2i_jax.data import conditions
from t2i_jax.data.text import Vocabulary, encode_sentences
from t2i_jax.draw import attention as attention_pictures
from t2i_jax.draw import boxes as drawing
from t2i_jax.draw import sheets
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import DataError, RunError

ATTENDED = (
    256  # pictures of one call, at most, of which attention is drawn: that of many takes gigabytes
)
TEXT = {'tokens', 'length', 'chars', 'embedding'}


class Sampler:
    """A trained stage that draws. `meta`, `step` and `stage` say which."""

    def __init__(
        self, prog, module, params, stats, vocabulary, meta, stage='', step=0, chunk=64, mesh=None
    ):
        """chunk: rows computed at once; the last chunk is filled up, so that there is one compilation. mesh: devices among which the rows
        are divided, None: the first one."""
        self.prog, self.module, self.params, self.stats = prog, module, params, stats
        self.vocabulary, self.meta, self.stage, self.step, self.chunk = (
            vocabulary,
            meta,
            stage,
            step,
            chunk,
        )
        self.rows = sharding.by_rows(mesh) if mesh else None
        if mesh:
            self.chunk = -(-chunk // mesh.size) * mesh.size
            self.params, self.stats = jax.device_put((params, stats), sharding.replicated(mesh))
        self.reads_text = bool(TEXT & set(module.needs))
        # what it draws from besides; a system that reads text makes boxes and their labels of it
        self.reads = {
            what
            for what, key in (('attributes', 'attributes'), ('labels', 'object_labels'))
            if key in module.needs
        }
        self.reads -= {'labels'} if self.reads_text else set()
        self._apply = jax.jit(functools.partial(core.apply, prog), static_argnums=0)

    @classmethod
    def load(cls, workdir, step=None, chunk=64, averaged=True, mesh=None, stage=None):
        """The last stage of a run that draws (of a run that draws nothing the last one) and has a finished checkpoint, or the one named; step:
        another than the newest (or best); averaged: with the moving average of the weights where there is one, else with the plain ones.

        Raises RunError where there is none.
        """
        config, stages = (
            run.load_config(workdir),
            run.system(run.load_config(workdir).system).STAGES,
        )
        names = [
            n for n in run.stage_names(config) if stages[n].sample is not core.Stage.sample
        ] or run.stage_names(config)
        if stage and stage not in run.stage_names(config):
            raise RunError(
                f'{workdir} has no stage {stage!r}. It has: {", ".join(run.stage_names(config))}.'
            )
        names = [stage] if stage else names
        folder = pathlib.Path(workdir)
        name = next(
            (name for name in reversed(names) if (folder / name / 'checkpoints').exists()), None
        )
        if name is None:  # one that init.<stage> takes from another run
            name = next((name for name in reversed(names) if config.init.get(name)), None)
            if name is None:
                raise RunError(
                    f'{workdir} has no finished checkpoint of {" or ".join(names)}. Train on: python -m t2i_jax.main --workdir={workdir}'
                )
            config, folder = run.source(config, workdir, name)
        meta = run.read_meta(folder, name)
        step, state, prog = run.restore(config, folder, name, step)
        vocabulary = Vocabulary.load(folder / 'vocabulary.json')
        params, stats = (
            (state.sampling_params(), state.sampling_stats())
            if averaged
            else (state.params, state.stats)
        )
        return cls(
            prog,
            run.abstract(config, folder, name, meta),
            params,
            stats,
            vocabulary,
            meta,
            name,
            step,
            chunk,
            mesh,
        )

    def __call__(
        self,
        sentences=None,
        num=8,
        seed=0,
        noise=None,
        layout=None,
        dialog=None,
        image=None,
        labels=None,
        attributes=None,
        attention=False,
    ):
        """Draws `num` samples of each sentence (or label set, attribute vector, row of a layout, a dialogue, a picture); of nothing, where the
        system is unconditional.

        sentences: n strings; a system without text reads labels or attributes in them where it can. num: samples of each. seed: the j-th sample
        of every sentence starts from the same noise, a function of (seed, j), and so does what a sentence leaves open of the attributes.
        noise: a dictionary as the stage's `noise` makes it, with n * num rows, instead of a seed.
        labels: n label sets ('person, dog' or lists). attributes: n vectors, or texts of numbers or names ('circle, red'). Both as conditions.py.
        layout, dialog, image: batch keys and their values for what else the system reads (`boxes`, `dialog`, ...), n rows. For the completion
        of a layout `given_boxes` and `given_labels`, of each row as many as there are (conditions.given_layouts).
        attention: whether to give what pixels looked at, of stages that tell it; of many pictures it takes gigabytes.
        -> {'image': uint8 n num s s 3, ...}, other keys as the stage's `sample` gives them, n num ...
        Raises DataError for what cannot be read and for a condition that is missing.
        """
        self.require_drawing()
        batch = dict(layout or {}) | dict(dialog or {}) | dict(image or {})
        given = {name: batch.pop(name) for name in ('given_boxes', 'given_labels') if name in batch}
        if num < 1:
            raise DataError(f'num={num}: ask for at least one sample.')
        self.refuse_unread(sentences, labels, attributes)
        if sentences is not None and self.reads_text:
            batch |= encode_sentences(sentences, self.vocabulary, self.meta.length)
            sentences = None
        rows = conditions.asked(
            self.meta, num, seed, self.reads, sentences, labels, attributes, given
        )
        rows |= {
            name: np.repeat(np.asarray(x)[:, None], num, 1) for name, x in batch.items()
        }  # n num ...
        self.require(rows)
        lengths = {len(x) for x in rows.values()} or {1}
        if len(lengths) > 1:
            raise DataError(
                'Give as many of each: '
                + ', '.join(f'{len(x)} of {name}' for name, x in rows.items())
                + '.'
            )
        n = lengths.pop()
        if noise is None:
            one = self.module.noise(jax.random.key(seed), num)
            noise = {
                name: np.tile(np.asarray(x), (n,) + (1,) * (x.ndim - 1)) for name, x in one.items()
            }
        return self.draw(
            {name: x.reshape(n * num, *x.shape[2:]) for name, x in rows.items()},
            noise,
            (n, num),
            attention=attention,
        )

    def refuse_unread(self, sentences, labels, attributes):
        """Raises DataError for a condition that the system does not read, and for two ways to say the same."""
        name = type(self.module).__name__
        for what, value in (('labels', labels), ('attributes', attributes)):
            if value is not None and what not in self.reads:
                raise DataError(f'{name} does not read {what}. Leave them out.')
        if sentences is None:
            return
        if not self.reads_text and not self.reads:
            raise DataError(f'{name} draws without sentences. Leave them out.')
        if 'embedding' in self.module.needs:
            raise DataError(
                'This run was trained on stored sentence vectors and has no text encoder, so it cannot read a sentence. '
                'Train with --config.data.embedding=none.'
            )
        told = [
            what
            for what, value in (('labels', labels), ('attributes', attributes))
            if value is not None
        ]
        if not self.reads_text and self.reads == set(told):
            raise DataError(
                f'Give sentences or {" and ".join(told)}, not both: {name} reads {" and ".join(told)} in sentences.'
            )

    def require(self, rows):
        """Raises DataError where a condition is missing, and says how to give it."""
        name = type(self.module).__name__
        if self.reads_text and not rows:
            raise DataError(
                f'{name} draws from sentences: give some, --text="..." on the command line.'
            )
        examples = (
            ('attributes', {'attributes'}, self.meta.attribute_names),
            ('labels', {'label_set', 'object_labels'}, self.meta.object_names),
        )
        for what, keys, names in examples:
            if what in self.reads and not keys & set(rows):
                raise DataError(
                    f'{name} draws from {what}: give some, --{what}="{", ".join(names[:2]) or "..."}" on the command line, {what}=[...] in '
                    'Python, or sentences that name them, --text="...".'
                )

    def encode(self, asked):
        """What the stage makes of sentences, or of rows of a batch: arrays n ..., which `draw` takes instead under `encoded`. Raises DataError."""
        if not hasattr(self.module, 'encode') or not self.reads_text:
            raise DataError(
                f'{type(self.module).__name__} draws without sentences. Leave them out.'
            )
        if not isinstance(asked, dict):
            self.refuse_unread(asked, None, None)
            asked = encode_sentences(asked, self.vocabulary, self.meta.length)
        return self.apply(
            'encode',
            {name: asked[name] for name in (*self.module.needs, 'encoded') if name in asked},
        )

    def apply(self, method, *args):
        """A method of the stage in evaluation mode, compiled -> numpy arrays."""
        return jax.tree.map(np.asarray, self._apply(method, self.params, self.stats, *args))

    def require_drawing(self, method='sample'):
        """Raises RunError for a stage that makes no samples."""
        if method == 'sample' and type(self.module).sample is core.Stage.sample:
            raise RunError(
                f'Stage {self.stage} draws nothing. Name one that does, if this run has one (--stage), or measure this one: --mode=evaluate '
                f'--stage={self.stage}.'
            )

    def draw(self, batch, noise, shape, method='sample', attention=False):
        """Rows of a batch and of noise, in chunks -> numpy arrays, the rows arranged as `shape`; pictures as uint8. method: that of the stage;
        attention: whether its result of that name is kept, too."""
        self.require_drawing(method)
        rows, outs = int(np.prod(shape)), []
        for start in range(0, rows, self.chunk):
            index = np.minimum(np.arange(start, start + self.chunk), rows - 1)
            part = jax.tree.map(
                lambda x, index=index: jax.device_put(np.asarray(x)[index], self.rows),
                (batch, noise),
            )
            out = self._apply(method, self.params, self.stats, *part)
            kept = {
                name: to_uint8(x) if name in ('image', 'images') else x
                for name, x in out.items()
                if attention or name != 'attention'
            }
            outs.append(jax.tree.map(np.asarray, kept))
        return jax.tree.map(
            lambda *x: np.concatenate(x)[:rows].reshape(*shape, *x[0].shape[1:]), *outs
        )


@jax.jit
def to_uint8(images):
    """Pictures in [-1, 1] (one array or a list of scales) -> uint8, rounded."""
    return jax.tree.map(
        lambda x: jnp.clip(jnp.round((x.astype(jnp.float32) + 1) * 127.5), 0, 255).astype(
            jnp.uint8
        ),
        images,
    )


def read_lines(path):
    """The sentences of a text file, one a line. Raises DataError for a file that is missing or holds none."""
    try:
        lines = [
            line.strip()
            for line in pathlib.Path(path).read_text(encoding='utf-8').splitlines()
            if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'The text file {path} cannot be read: {error}.') from None
    if not lines:
        raise DataError(f'The text file {path} is empty. Write one sentence a line.')
    return lines


def to_files(workdir, sentences, num, seed, out, labels=(), attributes=(), stage=None):
    """Draws and writes one PNG for each sentence, label set or attribute vector, and `sheet.png`, the contact sheet. Of boxes the PNGs show drawn
    boxes, and beside each stands a JSON file with them: for each sample a list of {label, cx, cy, w, h}. Beside
    the pictures of a stage that tells its attention, `..._attention.png` shows the words that the pixels of the first samples looked at. -> the folder"""
    sampler = Sampler.load(workdir, stage=stage)
    out = pathlib.Path(out or pathlib.Path(workdir) / 'samples')
    attention = 0 < len(sentences or ()) * num <= ATTENDED
    drawn = sampler(
        sentences or None,
        num=num,
        seed=seed,
        labels=labels or None,
        attributes=attributes or None,
        attention=attention,
    )
    images = drawing.pictures_of(drawn, sampler.meta, side=192)
    if images is None:
        raise RunError(
            f'Stage {sampler.stage} makes {", ".join(drawn)}, not pictures: call Sampler from Python.'
        )
    vectors = (
        {'attributes': conditions.attribute_vectors(attributes, sampler.meta)} if attributes else {}
    )
    named = conditions.captions_of(vectors, sampler.meta) or attributes  # numbers are told by names
    asked = [' / '.join(parts) for parts in zip(*filter(None, (sentences, labels, named)))] or None
    for number, row in enumerate(images):
        words = (
            re.sub(r'[^a-z0-9]+', '-', asked[number].lower()).strip('-')[:60]
            if asked
            else 'samples'
        )
        path = out / f'{number:03d}_{words}.png'
        sheets.save_png(path, np.concatenate(list(row), 1))
        if drawn.get('attention'):
            known = sampler.vocabulary.decode(
                sampler.vocabulary.encode(sentences[number], sampler.meta.length)[0]
            )
            attention_pictures.sample_sheet(
                drawn, number, known, path.with_name(f'{path.stem}_attention.png')
            )
        if 'image' not in drawn:
            layouts = zip(drawn['boxes'][number], drawn['object_labels'][number])
            told = [drawing.objects_of(*layout, sampler.meta.object_names) for layout in layouts]
            path.with_suffix('.json').write_text(json.dumps(told, indent=1) + '\n')
    sheets.sheet(
        images,
        asked,
        out / 'sheet.png',
        title=f'{sampler.stage}, step {sampler.step:,}, seed {seed}',
    )
    what = 'pictures' if 'image' in drawn else 'layouts'
    print(
        f'{len(images)} x {num} {what} of stage {sampler.stage}, step {sampler.step}, are in {out}; all together: {out / "sheet.png"}'
    )
    return out
