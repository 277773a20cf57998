"""The offers of a page: its runs, the conditions that it asks for, its tabs.

models = open_models(['runs/quick', 'example:shapes'])
tabs_of(models)                                               # {'draw': Tab(...), ...}

Which tabs there are follows from what stages declare: `draws_from`, `takes`, `makes`, `explores`.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from t2i_jax.data.conditions import CONDITIONS
from t2i_jax.data.dataset import some_captions
from t2i_jax.data.text import tokenize
from t2i_jax.draw.outputs import DRAWN
from t2i_jax.explore import offered
from t2i_jax.run import Path, Run
from t2i_jax.runtime.errors import DataError, RunError, short
from t2i_jax.sample import Sampler

# captions that are offered as examples
EXAMPLES = 6


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
        shared = dict(program=self.sampler.program, compiled=self.sampler.compiled)
        # training may delete a checkpoint while it is read
        with contextlib.suppress(DataError, RunError, OSError):
            self.sampler, self.steps = Sampler(self.stage, **shared), steps

    def given(self, given: dict) -> dict:
        """Return the keywords of Sampler for the conditions that it reads: {kind: value}."""
        names = {*self.module.draws_from, *self.module.takes}
        if not any(is_given(given.get(name)) for name in self.module.draws_from):
            names.add('sentence')
        own = {name: x for name, x in given.items() if name in names and is_given(x)}
        return {INPUTS[name].keyword: INPUTS[name].read(x) for name, x in own.items()}

    def notes(self, sentence: str | None) -> str:
        """Say which words of a sentence are left out."""
        if not sentence or 'sentence' not in self.module.draws_from:
            return ''
        words, unknown = tokenize(sentence), self.sampler.vocabulary.unknown(sentence)
        known, length = sum(x not in unknown for x in words), self.sampler.meta.length
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
class Input(NamedTuple):
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


INPUTS = {
    'sentence': Input('sentences', 'Sentence', 'what the picture shows', alone),
    'attributes': Input('attributes', 'Attributes', 'names, or all numbers', alone),
    'labels': Input('labels', 'Labels', 'names, with commas between them', alone),
    'sentences': Input('sentences', 'Sentences', 'several, each with a full stop', alone, lines=4),
    'layout': Input('layout', 'Boxes', '', boxes_of, 'boxes'),
    'dialog': Input('dialog', 'Dialogue', 'a line each: question? answer', rounds_of, lines=5),
    'image': Input('image', 'Picture', '', alone, 'picture'),
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
        tabs[name] = tab(INPUTS[name].label, own, without=[x for x in taken if x != name])
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
    """Return the explorations of sentences for the tab of that name: {name: what it shows}.

    They need no data, and have no tab of their own.
    """
    elsewhere = 'text_interpolation', 'z_interpolation', 'attention', 'nearest'
    return {
        name: one.shows
        for name, one in offered(module).items()
        if 'texts' in one.reads and {*one.reads} <= {'texts', 'layouts'} and name not in elsewhere
    }
