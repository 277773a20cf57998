"""Conditions to samples: Sampler, files of the command line, the training grid.

Sampler.load('runs/quick')(['a green circle'], num=4, seed=0).images        # uint8 1 4 s s 3
Sampler.load('runs/layout')(labels=['person, dog'], num=4)['boxes']         # float32 1 4 R 4
Sampler.load('runs/mirrorgan', stage='stream')(image=['mine.png'])['tokens']  # int32 1 8 20
"""

import functools
import io
import math
import operator
import pathlib
import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from numpy.typing import ArrayLike
from PIL import Image

from t2i_jax import config as settings
from t2i_jax import stage as core
from t2i_jax.data import canvas, conditions, parse
from t2i_jax.data.conditions import CONDITIONS
from t2i_jax.data.feed import Rows
from t2i_jax.data.tables import free_memory
from t2i_jax.data.text import encode_sentences, listed
from t2i_jax.draw import sheets
from t2i_jax.draw.outputs import (
    DRAWN,
    OUTPUTS,
    Known,
    main_output,
    pictures_of,
    real_pictures,
    texts_of,
    write_files,
)
from t2i_jax.run import Path, Run, RunStage
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import DataError, RunError, home, quoted, short
from tfds_builders.files import read_text

# pictures of one call, at most, of which attention is shown: that of many takes gigabytes
ATTENDED = 256
# bytes of a sample besides its pixels: its condition and noise
ROW = 4096
# of a training grid: its rows, and the samples of each
SHOWN, SAMPLES = 8, 7


class Samples(dict):
    """Samples of n conditions, `num` of each: {'image': uint8 n num s s 3, ...}.

    A notebook shows them as a sheet. The keys are those of the stage's `sample`: `image`, `boxes`
    and `object_labels`, `masks`, `tokens`, `attention` where it was asked for.

    captions: a text for each condition, None without any. meta: of the data.
    """

    def __init__(self, arrays, makes, meta, vocabulary, captions=None, title=''):
        super().__init__(arrays)
        self.makes, self.meta, self.vocabulary = makes, meta, vocabulary
        self.captions, self.title = captions, title

    def __repr__(self):
        shapes = {name: jax.tree.map(np.shape, x) for name, x in self.items()}
        return f'Samples({", ".join(f"{name} {shape}" for name, shape in shapes.items())})'

    @property
    def images(self) -> np.ndarray:
        """The samples as pictures, uint8 n num s s 3: layouts and masks are drawn.

        Raises RunError where they are texts.
        """
        pictures = pictures_of(self, self.makes, self.meta, side=192)
        if pictures is None:
            raise RunError('These samples are texts: see `texts`.')
        return pictures

    @property
    def texts(self) -> list[list[str]]:
        """The samples as sentences, n lists of num. Raises RunError where they are none."""
        if 'tokens' not in self:
            raise RunError('These samples are no texts: see `images`.')
        return texts_of(self['tokens'], self.vocabulary)

    def pil(self) -> list[list[Image.Image]]:
        """Return the pictures as PIL images, n lists of num."""
        return [[Image.fromarray(one) for one in row] for row in self.images]

    def sheet(self) -> Image.Image:
        """Draw all pictures next to their captions."""
        return Image.fromarray(sheets.sheet(self.images, self.captions, title=self.title))

    def _repr_png_(self):
        if not {*self.makes} & {'image', 'boxes', 'masks'}:
            return None
        out = io.BytesIO()
        self.sheet().save(out, format='PNG')
        return out.getvalue()


def _parts(samples):
    return [samples[name] for name in sorted(samples)], tuple(sorted(samples))


# what jax.tree makes of samples is a dictionary
jax.tree_util.register_pytree_node(Samples, _parts, lambda names, parts: dict(zip(names, parts)))


class Sampler:
    """A stage that draws, with weights of one step.

    module, meta, vocabulary: of the stage. name: of the stage. step: of its checkpoint.
    """

    def __init__(
        self,
        stage: RunStage,
        step: int | None = None,
        *,
        averaged: bool = True,
        chunk: int = 64,
        mesh: jax.sharding.Mesh | None = None,
        weights: tuple[dict, dict] | None = None,
        program: core.Program | None = None,
        compiled: Callable | None = None,
    ):
        """Restore a checkpoint.

        stage: a RunStage.
        step: of the checkpoint; None: the best or newest.
        averaged: with the moving average of the weights where there is one.
        chunk: rows computed at once, at most; fewer are filled up to 1, 2, 4, 8, ..., so that few
          programs are compiled (`bucket`).
        mesh: devices among which the rows are divided; None: the first one.
        weights: (parameters, statistics) to use instead of those of a checkpoint.
        program: of the stage; None: made from it.
        compiled: `compile_methods(program)`, which samplers of one program may share.

        Raises RunError where there is no checkpoint.
        """
        self.stage, self.name = stage, stage.name
        self.module, self.meta, self.vocabulary = stage.module, stage.meta, stage.run.vocabulary
        self.program = program or stage.program()
        self.step, self.chunk, self.rows, self.devices = step or 0, chunk, None, 1
        if weights is None:
            self.step, weights = stage.weights(step, averaged)
        if mesh:
            self.rows, self.devices = sharding.by_rows(mesh), mesh.size
            self.chunk = -(-chunk // mesh.size) * mesh.size
            weights = jax.device_put(weights, sharding.replicated(mesh))
        self.params, self.stats = weights
        self.compiled = compiled or compile_methods(self.program)

    @classmethod
    def load(
        cls, workdir: Path | Run, step: int | None = None, *, stage: str | None = None, **options
    ) -> 'Sampler':
        """Load the last stage of a run that draws, or the named one; options as above.

        workdir: as `Run.open` takes it, or a Run. Of one that draws nothing it is the last stage.
        Raises RunError where no stage has a checkpoint.
        """
        run = workdir if isinstance(workdir, Run) else Run.open(workdir)
        return cls(run.last(DRAWN, stage), step, **options)

    def __repr__(self):
        return f'Sampler({self.stage!r}, step {self.step:,})'

    @property
    def makes(self) -> tuple[str, ...]:
        return self.module.makes

    @property
    def draws_from(self) -> tuple[str, ...]:
        return self.module.draws_from

    @property
    def reads_text(self) -> bool:
        return 'sentence' in self.draws_from

    @property
    def reads_new_text(self) -> bool:
        """Whether it can be given sentences of which the data have no stored vectors."""
        return self.reads_text and 'embedding' not in self.module.needs

    def __call__(
        self,
        sentences: str | Sequence[str] | None = None,
        num: int = 8,
        seed: int = 0,
        *,
        noise: dict[str, ArrayLike] | None = None,
        layout: dict[str, ArrayLike] | Sequence | str | None = None,
        dialog: dict[str, ArrayLike] | Sequence | str | None = None,
        image: dict[str, ArrayLike] | Sequence | str | None = None,
        labels: Sequence | str | None = None,
        attributes: Sequence | str | None = None,
        attention: bool = False,
        truncation: float = 0.0,
    ) -> Samples:
        """Draw `num` samples of each condition; of nothing, where the system is unconditional.

        sentences: n strings; a system without text reads labels or attributes in them if it can.
        num: samples of each.
        seed: the j-th sample of every condition starts from the same noise, a function of
          (seed, j), and so does what a sentence leaves open of the attributes.
        noise: as the stage's `noise` makes it, with n * num rows, instead of a seed.
        labels: n label sets ('person, dog' or lists).
        attributes: n vectors, or texts of numbers or names ('circle, red').
        image: n pictures, files or uint8 arrays h w 3, which are squashed to the data's size.
        layout: n layouts instead of those that the system would make: a file, or lists of objects
          {'label', 'cx', 'cy', 'w', 'h'}, which may have a mask (data/layouts.py). One layout
          serves for all sentences, one sentence for all layouts.
        dialog: n dialogues, for a system that reads them: files, or lists of rounds (question,
          answer) (data/dialogs.py). One serves for all sentences, one sentence for all dialogues.
        layout, dialog, image: batch keys and their values, n rows, for what else a system reads.
          For the completion of a layout `given_boxes` and `given_labels`, of each row as many as
          there are (parse.given_layouts).
        attention: whether to return what pixels looked at; of many pictures it takes gigabytes.
        truncation: of normal noise, see `noise`.

        Returns Samples, {'image': uint8 n num s s 3, ...}: the keys of the stage's `sample`.
        Raises DataError for what cannot be read and for a condition that is missing, RunError for
        a number or a seed out of range.
        """
        self.require_drawing()
        require_drawable(num, seed)
        given = dict(sentence=sentences, labels=labels, attributes=attributes)
        given |= dict(layout=layout, dialog=dialog, image=image)
        self.refuse_unreadable(sentences)
        n = max([1, *(len(x) for x in given.values() if isinstance(x, (list, tuple)))])
        require_memory(n, num, 2 * self.meta.size**2)
        context = conditions.Context(self.meta, self.vocabulary, num, seed)
        system = type(self.module).__name__
        takes = self.module.takes
        rows = conditions.arrays(self.draws_from, given, context, system, takes)
        n = max([1, *map(len, rows.values())])
        rows = {name: x.reshape(n * num, *x.shape[2:]) for name, x in rows.items()}
        noise = self.noise(num, seed, n, truncation) if noise is None else noise
        found = self.sample(rows, noise, (n, num), attention=attention)
        captions = (
            listed(sentences) * (n if isinstance(sentences, str) else 1) if sentences else None
        )
        captions = captions if captions and len(captions) == n else None
        title = f'{self.name}, step {self.step:,}, seed {seed}'
        return Samples(found, self.makes, self.meta, self.vocabulary, captions, title)

    def refuse_unreadable(self, sentences):
        """Raise DataError for sentences where the run has stored vectors and no text encoder."""
        if sentences is not None and 'embedding' in self.module.needs:
            raise DataError(
                'This run was trained on stored sentence vectors and has no text encoder, so it '
                'cannot read a sentence. Train with --config.data.embedding=none.'
            )

    def noise(
        self, num: int, seed: int, repeat: int = 1, truncation: float = 0.0
    ) -> dict[str, np.ndarray]:
        """Return the noise of `num` samples, the same for each of `repeat` conditions.

        truncation: above 0 normal noise is squeezed into [-truncation, truncation], so that it has
        the truncated normal distribution (Brock et al., ICLR 2019: less variety, fewer bad
        pictures). A seed keeps its picture's kind: each number moves less the smaller it is.
        Raises RunError for a stage without normal noise.
        """
        require_drawable(num, seed)
        one = self.module.noise(jax.random.key(seed), num)
        one = truncated(one, truncation, self.module) if truncation else one
        return {n: np.tile(np.asarray(x), (repeat,) + (1,) * (x.ndim - 1)) for n, x in one.items()}

    def encode(self, sentences: Sequence[str] | dict):
        """Return the stage's view of sentences, or of the rows of a batch: arrays n ...

        `sample` takes it instead of sentences, as `encoded`. Raises DataError.
        """
        if not self.reads_text:
            name = type(self.module).__name__
            raise DataError(f'{name} draws without sentences. Leave them out.')
        if not isinstance(sentences, dict):
            self.refuse_unreadable(sentences)
            sentences = encode_sentences(sentences, self.vocabulary, self.meta.length)
        keys = *self.module.needs, 'encoded'
        return self.apply('encode', {name: sentences[name] for name in keys if name in sentences})

    def apply(self, method: str, *args):
        """Call a method of the stage in evaluation mode, compiled -> numpy arrays."""
        return jax.tree.map(np.asarray, self.compiled(method, *self.weights, *args))

    def require_drawing(self, method='sample'):
        """Raise RunError for a stage that makes no samples."""
        if method == 'sample' and not main_output(self.makes):
            raise RunError(
                f'Stage {self.name} draws nothing. Name one that does, if this run has one '
                f'(--stage), or measure this one: --mode=evaluate --stage={self.name}.'
            )

    def bucket(self, rows: int) -> int:
        """Return the rows of one computation for so many: a power of two, or a whole chunk.

        So a method is compiled for at most log2(chunk) + 1 numbers of rows, each when it comes.
        """
        power = 1 << (rows - 1).bit_length()
        return min(self.chunk, -(-power // self.devices) * self.devices)

    def chunks(self, tree, rows: int):
        """Yield the rows of a tree of arrays in chunks, on the devices of the sampler.

        The last chunk is filled up with the last row.
        """
        size = self.bucket(rows)
        for start in range(0, rows, size):
            index = np.minimum(np.arange(start, start + size), rows - 1)
            yield jax.tree.map(
                lambda x, index=index: jax.device_put(np.asarray(x)[index], self.rows), tree
            )

    def sample(
        self,
        batch: dict,
        noise: dict,
        shape: tuple[int, ...],
        method: str = 'sample',
        attention: bool = False,
    ) -> dict:
        """Compute rows of a batch and of noise in chunks -> numpy arrays.

        shape: how the rows are arranged. method: that of the stage. attention: whether its
        result of that name is returned as well. Pictures become uint8.
        """
        self.require_drawing(method)
        rows, outs = int(np.prod(shape)), []
        for part in self.chunks((batch, noise), rows):
            out = self.compiled(method, *self.weights, *part)
            if not attention:
                out = {name: x for name, x in out.items() if not name.endswith('attention')}
            out |= {name: to_uint8(out[name]) for name in ('image', 'images') if name in out}
            outs.append(jax.tree.map(np.asarray, out))
        return jax.tree.map(
            lambda *x: np.concatenate(x)[:rows].reshape(*shape, *x[0].shape[1:]), *outs
        )

    @property
    def weights(self) -> tuple[dict, dict]:
        return self.params, self.stats


def truncated(noise, limit, module):
    """Squeeze the normal ones of noise {name: array} into [-limit, limit]. Raises RunError."""
    names = [name for name in noise if name in module.normal]
    settings.require_range('truncation', limit, 0, math.inf)
    if not names:
        raise RunError(f'{type(module).__name__} draws from no normal noise: leave out truncation.')
    least = scipy.special.ndtr(-limit)

    def squeezed(x):
        within = least + scipy.special.ndtr(np.asarray(x, np.float64)) * (1 - 2 * least)
        return scipy.special.ndtri(within).astype(np.float32)

    return noise | {name: squeezed(noise[name]) for name in names}


def require_drawable(num, seed):
    """Raise RunError for a number of samples or a seed out of range."""
    for name, value, low, high in ('num', num, 1, math.inf), ('seed', seed, 0, settings.SEEDS):
        try:
            # NumPy's whole numbers, too
            whole = operator.index(value)
        except TypeError:
            raise RunError(
                f'{name} is {short(repr(value), 80)}; expected a whole number.'
            ) from None
        settings.require_range(name, whole, low, high)


def require_memory(n, num, pixels):
    """Raise RunError where samples need more memory than is free.

    n: conditions. num: samples of each. pixels: that are held for each of them
    """
    each, free = ROW + 3 * pixels, free_memory()
    if n * num * each > free:
        of = f' of each of {n:,} conditions' if n > 1 else ''
        raise RunError(
            f'{num:,} samples{of} need about {n * num * each / 1e9:,.1f} GB of memory, '
            f'{free / 1e9:,.1f} GB are free: draw {max(1, free // (2 * n * each)):,} at a time '
            '(--num), with another --seed each time.'
        )


def compile_methods(program):
    """Compile the stage's methods in evaluation mode: (method, params, stats, *args)."""
    return jax.jit(functools.partial(core.apply, program), static_argnums=0)


@jax.jit
def to_uint8(images):
    """Turn pictures in [-1, 1] (one array or a list of scales) into uint8, rounded."""

    def one(x):
        pixels = jnp.round((x.astype(jnp.float32) + 1) * 127.5)
        return jnp.clip(pixels, 0, 255).astype(jnp.uint8)

    return jax.tree.map(one, images)


# ------------------------------------------------------------------------------------- command line
def read_lines(path):
    """Read the sentences of a text file, one a line. Raises DataError where there is none."""
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise DataError(f'The text file {quoted(path)} is empty. Write one sentence a line.')
    return lines


def to_files(
    stage: RunStage,
    sentences: Sequence[str] = (),
    num: int = 8,
    seed: int = 0,
    out: Path | None = None,
    labels: Sequence = (),
    attributes: Sequence = (),
    images: Sequence = (),
    layouts: Sequence = (),
    dialogs: Sequence = (),
    truncation: float = 0.0,
) -> pathlib.Path:
    """Draw and write one PNG for each condition, and `sheet.png`, the contact sheet.

    stage: a RunStage. layouts, dialogs: files, for a stage that may be given them. images: files,
    for a stage that describes pictures: their captions are printed, and stand in the sheet.

    Other files stand next to the PNGs, by what the stage makes: JSON with boxes, text,
    `..._attention.png` with the words that the pixels of the first samples looked at. A stage
    without noise makes one sample of each condition, whatever num says.
    Returns the folder. Raises RunError, DataError.
    """
    require_drawable(num, seed)
    num = num if stage.module.noise(jax.random.key(seed), 1) else 1
    side = stage.meta.size
    count = max(1, *map(len, (sentences or (), labels or (), attributes or (), images or ())))
    # pictures, their copies in files, and the sheet
    require_memory(count, num, 3 * side**2 + 3 * max(side, 64) ** 2)
    sampler = Sampler(stage)
    out = home(out or stage.workdir / 'samples')
    given = dict(labels=labels or None, attributes=attributes or None, image=images or None)
    given |= dict(layout=layouts or None, dialog=dialogs or None)
    attention = 0 < len(sentences or ()) * num <= ATTENDED
    given |= dict(attention=attention, truncation=truncation)
    samples = sampler(sentences or None, num=num, seed=seed, **given)
    meta, makes = sampler.meta, sampler.makes
    pictures = pictures_of(samples, makes, meta, side=192)
    named = None
    if attributes:
        # numbers are written by their names
        vectors = parse.attribute_vectors(attributes, meta)
        named = conditions.captions_of({'attributes': vectors}, meta) or attributes
    files = [pathlib.Path(path).stem for path in images or ()]
    n = len(jax.tree.leaves(samples)[0])
    if (layouts or dialogs) and len(sentences or ()) == 1:
        # one sentence for several of them
        sentences = list(sentences) * n
        files = files or [pathlib.Path(path).stem for path in dialogs or ()]
    parts = filter(None, (sentences, labels, named, files))
    captions = [' / '.join(one) for one in zip(*parts)] or None
    for number in range(n):
        words = re.sub(r'[^a-z0-9]+', '-', captions[number].lower()) if captions else 'samples'
        path = out / f'{number:03d}_{words.strip("-")[:60]}.png'
        sentence = sentences[number] if sentences else ''
        known = Known(meta, sampler.vocabulary, sentence)
        write_files(path, samples, number, makes, known, pictures)
    noun, shown = OUTPUTS[main_output(makes)].noun, pictures
    if images and 'tokens' in samples:
        texts = texts_of(samples['tokens'], sampler.vocabulary)
        for file, some in zip(images, texts):
            print('\n'.join(f'{quoted(file)}: {text}' for text in some))
        if pictures is None:
            own = np.stack([canvas.read_picture(file, side) for file in images])
            shown = np.asarray(to_uint8(own))[:, None]
            captions = ['\n'.join(some) for some in texts]
    done = f'{n} x {num} {noun} of stage {sampler.name}, step {sampler.step}, are in {quoted(out)}'
    if shown is not None:
        title = f'{sampler.name}, step {sampler.step:,}, seed {seed}'
        sheets.sheet(shown, captions, out / 'sheet.png', title=title)
        done += f'; all together: {quoted(out / "sheet.png")}'
    print(done)
    return out


def example_flag(stage) -> str:
    """The flag by which a stage is given its condition, ' --text="..."'; '' without any."""
    flags = [CONDITIONS[name].flag for name in stage.draws_from if CONDITIONS[name].flag]
    return f' --{flags[0]}="..."' if flags else ''


# ------------------------------------------------------------------------------------ training grid
class Grid:
    """The sample grid of a stage in training.

    Its conditions are a few records of the held-out split, its noise is fixed, and the data's own
    pictures or layouts stand next to the samples.
    """

    def __init__(self, stage, program, held_out):
        self.stage, self.program, self.held_out = stage, program, held_out
        self.module, self.meta = stage.module, held_out.meta
        self.draws = bool(main_output(self.module.makes))
        # shared by the samplers of all steps
        self.compiled = compile_methods(program)

    def sampler(self, params, stats, chunk=SHOWN * SAMPLES) -> Sampler:
        """A Sampler with these weights."""
        shared = dict(program=self.program, compiled=self.compiled)
        return Sampler(self.stage, weights=(params, stats), chunk=chunk, **shared)

    @functools.cached_property
    def shown(self):
        """(batch, captions or None, the data's own pictures or None) of the records shown."""
        split, module = self.held_out, self.module
        rows = np.linspace(0, len(split) - 1, SHOWN).astype(np.int32)
        batch = Rows(split, rows, np.zeros((SHOWN, self.meta.captions), np.int32)).batch()
        if not module.draws_from:
            return batch, None, None
        texts = [split.texts[i] for i in rows] if 'sentence' in module.draws_from else None
        captions = conditions.captions_of(batch, self.meta, texts)
        own = {k: np.asarray(to_uint8(x)) if k == 'image' else x for k, x in batch.items()}
        real = real_pictures(own, module.makes, self.meta)
        return batch, captions or [f'record {i}' for i in rows], real

    def write(self, step, params, stats):
        """Write <stage>/samples/<step>.png -> the picture, h w 3 uint8; None if it has none."""
        sampler, (batch, captions, real) = self.sampler(params, stats), self.shown
        # each condition with the same few noises
        count, repeat = (SAMPLES, SHOWN) if captions else (SHOWN * SAMPLES, 1)
        noise = sampler.noise(count, 0, repeat)
        rows = jax.tree.map(lambda x: np.repeat(x, SAMPLES, 0), batch)
        samples = sampler.sample(rows, noise, (SHOWN, SAMPLES))
        pictures = pictures_of(samples, self.module.makes, self.meta)
        if pictures is None and 'tokens' in samples and 'image' in self.module.draws_from:
            # what it says of pictures stands next to them
            pictures = np.asarray(to_uint8(batch['image']))[:, None]
            captions = [one[0] for one in texts_of(samples['tokens'], sampler.vocabulary)]
        if pictures is None:
            return None
        path = self.stage.folder / 'samples' / f'{step:08d}.png'
        title = f'{self.stage.name}, step {step:,}'
        return sheets.sheet(pictures, captions, path, real=real, title=title)
