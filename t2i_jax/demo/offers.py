"""The offers of a page: functions over runs, which know nothing of the page itself.

models = open_models(['runs/quick', 'example:shapes'])
tabs_of(models)                                               # {'draw': Tab(...), ...}
draw(models, {'sentence': 'a red ring'}, num=4, seed=0)       # a Shown for each model

Which tabs there are follows from what stages declare: `draws_from`, `takes`, `makes`, `explores`.
A mistake of a user is a message in the Shown of the run that refuses it. One lock lets one request
at a time compute.
"""

import json
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from t2i_jax import config as settings
from t2i_jax.data.conditions import CONDITIONS
from t2i_jax.data.dataset import some_captions
from t2i_jax.data.text import tokenize
from t2i_jax.draw import sheets
from t2i_jax.draw.attention import looks_of, overlay, sample_sheet
from t2i_jax.draw.boxes import objects_of
from t2i_jax.draw.outputs import DRAWN, OUTPUTS
from t2i_jax.explore import offered, text_interpolation, z_interpolation
from t2i_jax.explore.request import Request
from t2i_jax.run import Path, Run
from t2i_jax.runtime.errors import DataError, RunError, short
from t2i_jax.sample import Sampler, require_drawable

# pictures of a request, at most; pictures from one end to the other; examples
MOST, STEPS, EXAMPLES = 16, 11, 6
# pixels of a side: of layouts, and of what lies over a picture, at least
SIDE = 192
# of a page, so that all that is computed is computed one after the other
BUSY = threading.Lock()


# ------------------------------------------------------------------------------------------ runs
class Model:
    """A run on a page: its name, and the stage that draws, with the weights of one step.

    reader: the Sampler of a stage of the same run that describes pictures, or None.
    """

    def __init__(self, workdir: Path, stage: str | None = None, name: str = ''):
        """Load the newest (or best) checkpoint. Raises RunError where nothing can be drawn."""
        self.run = Run.open(workdir)
        self.name = name or self.run.workdir.name
        self.stage = self.run.last(DRAWN, stage)
        # before it is read: what comes meanwhile is newer
        self.steps = self.stage.saved_steps()
        self.sampler = Sampler(self.stage)
        self.sampler.require_drawing()
        self.reader = None if self.module.draws_from == ('image',) else reader_of(self.run)

    @property
    def module(self):
        return self.sampler.module

    @property
    def title(self) -> str:
        return f'{self.name}: {self.sampler.name}, step {self.sampler.step:,}'

    def refresh(self) -> None:
        """Load the newest checkpoint where training has gone on."""
        steps = self.stage.saved_steps()
        if steps == self.steps:
            return
        old = self.sampler
        shared = dict(program=old.program, compiled=old.compiled)
        try:
            self.sampler, self.steps = Sampler(self.stage, **shared), steps
        # training may delete a checkpoint while it is read
        except (DataError, RunError, OSError):
            self.sampler = old

    def given(self, given: dict) -> dict:
        """Return the keywords of Sampler for the conditions that it reads: {kind: value}."""
        names = {*self.module.draws_from, *self.module.takes}
        if not any(is_given(given.get(name)) for name in self.module.draws_from):
            names.add('sentence')
        own = {name: x for name, x in given.items() if name in names and is_given(x)}
        return {FIELDS[name].keyword: FIELDS[name].read(x) for name, x in own.items()}

    def notes(self, sentence: str | None) -> str:
        """Say which words of a sentence are left out."""
        if not sentence or 'sentence' not in self.module.draws_from:
            return ''
        words, unknown = tokenize(sentence), self.sampler.vocabulary.unknown(sentence)
        known, length = (
            len([word for word in words if word not in unknown]),
            self.sampler.meta.length,
        )
        found = []
        if unknown:
            found.append(f'It does not know {short(", ".join(unknown), 120)}.')
        if known > length:
            found.append(f'It reads the first {length} words that it knows.')
        return ' '.join(found)


def open_models(workdirs: Sequence[Path], stage: str | None = None) -> list[Model]:
    """Open runs -> Models with names that differ. stage: of each, if not the last that draws.

    Raises RunError.
    """
    folders = [Run.open(workdir).workdir for workdir in workdirs]
    names = [folder.name for folder in folders]
    names = [
        name if names.count(name) == 1 else f'{folder.parent.name}/{name}'
        for name, folder in zip(names, folders)
    ]
    names = [name if names.count(name) == 1 else str(f) for name, f in zip(names, folders)]
    return [Model(folder, stage, name) for folder, name in zip(folders, names)]


def reader_of(run: Run) -> Sampler | None:
    """Return a Sampler of the last stage of a run that describes pictures; None without any."""
    for stage in reversed(run.stages):
        if stage.has_checkpoints and stage.makes_any(('tokens',)):
            sampler = Sampler(stage)
            if sampler.draws_from == ('image',):
                return sampler
    return None


def examples(models: Sequence[Model], count: int = EXAMPLES) -> list[str]:
    """Return held-out captions of the first run whose data are there; [] where none are."""
    for model in models:
        data = model.stage.data
        try:
            found = some_captions(data, data['validation_split'], count)
        # a page does without them
        except (DataError, RunError, OSError):
            continue
        if found:
            return found
    return []


# ------------------------------------------------------------------------------- conditions, tabs
class Field(NamedTuple):
    """The way in which a user gives one kind of condition.

    keyword: of Sampler. label, hint: on the page. read: what the page has -> the keyword's value.
    kind: 'text', or 'picture' (uint8 h w 3), or 'boxes' (JSON, a list of {label, cx, cy, w, h}).
    lines: of a text.
    """

    keyword: str
    label: str
    hint: str
    read: Callable
    kind: str = 'text'
    lines: int = 1


def is_given(value) -> bool:
    return value is not None and len(value) > 0


def alone(value) -> list:
    """Return one condition as the list that Sampler takes."""
    return [value]


def boxes_of(text: str) -> list:
    """Read JSON, a list of {label, cx, cy, w, h}, as one layout. Raises DataError."""
    try:
        layout = json.loads(text)
    except ValueError as error:
        raise DataError(f'The boxes are not JSON ({short(error, 80)}).') from None
    # of a text the library would open the file
    if not isinstance(layout, list) or not all(isinstance(one, dict) for one in layout):
        raise DataError(f'The boxes are {short(text, 80)}; expected a list of objects.')
    return [layout]


def rounds_of(text: str) -> list:
    """Read lines "question? answer" as one dialogue, a list of rounds."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [[line.partition('?')[::2] if '?' in line else (line,) for line in lines]]


FIELDS = {
    'sentence': Field('sentences', 'Sentence', 'what the picture shows', alone),
    'attributes': Field('attributes', 'Attributes', 'names, or all numbers', alone),
    'labels': Field('labels', 'Labels', 'names, with commas between them', alone),
    'sentences': Field('sentences', 'Sentences', 'several, each with a full stop', alone, lines=4),
    'layout': Field('layout', 'Boxes', '', boxes_of, 'boxes'),
    'dialog': Field('dialog', 'Dialogue', 'a line each: question? answer', rounds_of, lines=5),
    'image': Field('image', 'Picture', '', alone, 'picture'),
}


def reads_of(module) -> set[str]:
    """Return the conditions that a stage reads; sentences, too, where they give another."""
    own = {*module.draws_from, *module.takes}
    gives = any(CONDITIONS[name].from_sentences for name in module.draws_from)
    return own | ({'sentence'} if gives else set())


class Tab(NamedTuple):
    """A part of a page: its title, the runs that it is for, and the conditions that it asks for."""

    title: str
    models: list[Model]
    reads: tuple[str, ...] = ()


def tabs_of(models: Sequence[Model]) -> dict[str, Tab]:
    """Return the tabs of a page by name.

    'draw', one for each condition that a stage takes but does not need (its name), 'between' two
    sentences, 'z' from one noise to another, 'words' that pixels look at, 'explore'.
    """
    kinds = set().union(*(model.module.takes for model in models))
    taken = [name for name in CONDITIONS if name in kinds]
    tabs = {'draw': tab('Draw', models, without=taken)}
    for name in taken:
        own = [model for model in models if name in reads_of(model.module)]
        tabs[name] = tab(FIELDS[name].label, own, without=[x for x in taken if x != name])
    text = [model for model in models if model.sampler.reads_new_text]
    alone_or_text = [m for m in models if m in text or not m.sampler.reads_text]
    tests = {
        'between': ('Between two sentences', text, lambda m: 'text_interpolation' in offered(m)),
        'z': ('Between two seeds', alone_or_text, lambda m: 'z_interpolation' in offered(m)),
        'words': ('What pixels look at', text, lambda m: 'attention' in m.makes),
        'explore': ('Explore', text, lambda m: bool(explorations(m))),
    }
    for name, (title, some, test) in tests.items():
        found = [model for model in some if test(model.module)]
        if found:
            tabs[name] = tab(title, found, without=taken)
    return tabs


def tab(title, models, without=()) -> Tab:
    """Make a Tab that asks for what its models read; without: conditions that others ask for."""
    reads = set().union(*(reads_of(model.module) for model in models)) - {*without}
    return Tab(title, list(models), tuple(name for name in CONDITIONS if name in reads))


def explorations(module) -> dict[str, str]:
    """Return the explorations of sentences that have no tab of their own: {name: what it shows}."""
    own_tab = 'text_interpolation', 'z_interpolation', 'attention'
    return {
        name: one.shows
        for name, one in offered(module).items()
        if 'texts' in one.reads and {*one.reads} <= {'texts', 'layouts'} and name not in own_tab
    }


# ---------------------------------------------------------------------------------------- results
class Shown(NamedTuple):
    """The result of one run.

    title: the run, its stage and step. error: why there is nothing else, '' without.
    pictures: uint8 n s s 3. layouts: of them, uint8 n s s 3. texts: a line for each.
    frames: uint8 t n s s 3, of which one is shown at a time. labels: of the frames.
    sheet: uint8 h w 3, where it has one of its own.
    objects: of the first layout, {label, cx, cy, w, h}. note: what the reader should know.
    numbers: for the JSON file.
    """

    title: str
    error: str = ''
    pictures: np.ndarray | None = None
    layouts: np.ndarray | None = None
    texts: Sequence[str] = ()
    frames: np.ndarray | None = None
    labels: Sequence[str] = ()
    sheet: np.ndarray | None = None
    objects: Sequence[dict] = ()
    note: str = ''
    numbers: dict = {}


def each(models, show: Callable, given, num: int, seed: int, **asked) -> list[Shown]:
    """Return show(model) of each model, one request at a time; a mistake is a message.

    given, num, seed, asked: what the user asks for, which the JSON file has, too.
    """
    shown = []
    for model in models:
        with BUSY:
            try:
                require_drawable(num, seed)
                settings.require_range('The number of pictures', num, 1, MOST)
                one = show(model)
            except (DataError, RunError) as error:
                one = Shown(model.title, error=str(error))
        numbers = dict(run=model.name, stage=model.sampler.name, step=model.sampler.step)
        numbers |= dict(given=given, num=num, seed=seed) | asked | one.numbers
        shown.append(one._replace(numbers=numbers | ({'error': one.error} if one.error else {})))
    return shown


def refresh(models: Sequence[Model]) -> None:
    """Load newer checkpoints of runs that are still training."""
    with BUSY:
        for model in models:
            model.refresh()


def draw(models: Sequence[Model], given: dict, num: int = 4, seed: int = 0) -> list[Shown]:
    """Draw `num` samples of one condition by each run, from equal noise -> a Shown of each.

    given: {kind of condition: what the page has}, None or empty where it is not given.
    """

    def show(model):
        sampler = model.sampler
        keywords = model.given({name: given.get(name) for name in CONDITIONS})
        # what has no noise makes one sample
        count = num if sampler.module.noise(jax.random.key(0), 1) else 1
        samples = sampler(num=count, seed=seed, **keywords)
        parts = {name: x[0] for name, x in samples.items() if not isinstance(x, list)}
        found = dict(note=model.notes(given.get('sentence')), numbers={})
        if {'image', 'boxes', 'masks'} & {*sampler.makes}:
            found['pictures'] = samples.images[0]
        if 'boxes' in samples:
            names = sampler.meta.object_names
            layouts = [
                objects_of(*one, names) for one in zip(parts['boxes'], parts['object_labels'])
            ]
            found |= dict(objects=layouts[0], numbers={'objects': layouts})
            if 'image' in samples:
                found['layouts'] = OUTPUTS['boxes'].pictures(parts, sampler.meta, SIDE)
        if 'tokens' in samples:
            found['texts'] = samples.texts[0]
        elif model.reader and 'image' in samples:
            read = model.reader(image=list(samples.images[0]), num=1)
            found['texts'] = [f'“{row[0]}”' for row in read.texts]
        if 'texts' in found:
            found['numbers'] = found['numbers'] | {'texts': list(found['texts'])}
        return Shown(model.title, **found)

    said = {n: x for n, x in given.items() if is_given(x) and not isinstance(x, np.ndarray)}
    return each(models, show, said, num, seed)


def between(models: Sequence[Model], first: str, second: str, num=4, seed=0) -> list[Shown]:
    """Draw from one sentence to another, STEPS pictures, the noise unchanged."""

    def show(model):
        pictures = text_interpolation(model.sampler, [first, second], num, STEPS, seed)
        notes = ' '.join(filter(None, (model.notes(first), model.notes(second))))
        return film(model, pictures, notes)

    return each(models, show, [first, second], num, seed)


def between_seeds(
    models: Sequence[Model], sentence: str | None, num=4, seed=0, to=1
) -> list[Shown]:
    """Draw from the noise of one seed to that of another, STEPS pictures."""

    def show(model):
        sentences = [sentence] if model.sampler.reads_text else None
        pictures = z_interpolation(model.sampler, sentences, num, STEPS, seed, to)
        return film(model, pictures, model.notes(sentence))

    return each(models, show, sentence, num, seed, to=to)


def film(model, pictures, note) -> Shown:
    """Show pictures n t s s 3 as frames, labelled by the way that is gone, in percent."""
    labels = [f'{100 * i / (STEPS - 1):.0f} %' for i in range(STEPS)]
    return Shown(model.title, frames=pictures.swapaxes(0, 1), labels=labels, note=note)


def look(models: Sequence[Model], sentence: str, seed: int = 0) -> list[Shown]:
    """Draw a sentence and show where its pixels look at each word, by each run.

    The first frame is the picture, then comes one for each word that the run knows: the picture
    under the heat of each of its maps. A map is shown relative to its largest value.
    """

    def show(model):
        sampler = model.sampler
        samples = sampler([sentence], num=1, seed=seed, attention=True)
        ids, _ = sampler.vocabulary.encode(sentence, sampler.meta.length)
        words = sampler.vocabulary.decode(ids)
        names, looks = zip(*looks_of(samples))
        picture = enlarged(samples['image'][0], SIDE)[0]
        maps = [np.asarray(one[0, 0], np.float32)[..., : len(words)] for one in looks]
        heat = [one / max(float(one.max()), 1e-9) for one in maps]
        frames = [[picture] * len(heat)]
        frames += [[overlay(picture, one[..., i]) for one in heat] for i in range(len(words))]
        strongest = {name: words[int(x.sum((0, 1)).argmax())] for name, x in zip(names, maps)}
        found = dict(words=words, maps=list(names), looked_at_most=strongest)
        return Shown(
            model.title,
            texts=list(names),
            frames=np.array(frames),
            labels=['picture', *words],
            sheet=sample_sheet(samples, 0, words),
            note=model.notes(sentence),
            numbers=found,
        )

    return each(models, show, sentence, 1, seed)


def explore(models: Sequence[Model], what: str, text: str, num=4, seed=0) -> list[Shown]:
    """Draw an exploration of sentences, a line of `text` each, by each run that offers it."""
    texts = [line.strip() for line in text.splitlines() if line.strip()]

    def show(model):
        if what not in explorations(model.module):
            raise RunError(f'{model.name} does not offer {short(repr(what), 40)}.')
        # held-out captions would need the data
        if not texts or len(texts) > MOST:
            raise DataError(f'Write 1 to {MOST} sentences, a line each: there are {len(texts)}.')
        exploration = offered(model.module)[what]
        found = exploration.sheet(Request(model.sampler, what, num, seed, texts))
        sheet = sheets.sheet(found.pictures, found.labels, real=found.real)
        return Shown(model.title, sheet=sheet, note=exploration.shows, numbers=found.numbers)

    return each(models, show, texts, num, seed, what=what)


# ---------------------------------------------------------------------------------------- sheets
def enlarged(pictures, side) -> np.ndarray:
    """Return pictures n h w 3 whose side is at least `side`, by a whole factor."""
    factor = -(-side // len(pictures[0]))
    return np.repeat(np.repeat(pictures, factor, 1), factor, 2)


def sheet_of(shown: Sequence[Shown], title: str = '') -> np.ndarray | None:
    """Draw a sheet of what runs have drawn, h w 3 uint8; None where none has.

    A row has the pictures of a run, or what lies between two ends of one of its pictures. Sheets
    of their own stand below each other.
    """
    own = [one.sheet for one in shown if one.sheet is not None]
    if own:
        wide = max(one.shape[1] for one in own)
        pads = [((0, 0), (0, wide - one.shape[1]), (0, 0)) for one in own]
        return np.concatenate([np.pad(*one, constant_values=255) for one in zip(own, pads)])
    rows, labels = [], []
    for one in shown:
        if one.frames is not None:
            rows += list(one.frames.swapaxes(0, 1))
            labels += [one.title] + [''] * (one.frames.shape[1] - 1)
        elif one.pictures is not None:
            rows.append(one.pictures)
            labels.append('\n'.join([one.title, *one.texts]))
    if not rows:
        return None
    side, most = max(row.shape[1] for row in rows), max(map(len, rows))
    # runs of one page differ in size
    rows = [[square(picture, side) for picture in row] for row in rows]
    white = np.full((side, side, 3), 255, np.uint8)
    rows = np.array([row + [white] * (most - len(row)) for row in rows])
    return sheets.sheet(rows, labels, title=short(title, 80) if title else None)


def square(picture, side):
    """Return a picture with this side, its pixels as squares."""
    size = side, side
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
