"""The results of a page: functions over Models, which know nothing of the page itself.

models = open_models(['runs/quick', 'example:shapes'])
draw(models, {'sentence': 'a red ring'}, num=4, seed=0)       # a Shown for each model

A mistake of a user is a message in the Shown of the run that refuses it. One lock lets one request
at a time compute.
"""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from t2i_jax import config as settings
from t2i_jax.data.conditions import CONDITIONS
from t2i_jax.demo.offers import Model, explorations, is_given
from t2i_jax.draw import sheets
from t2i_jax.draw.attention import looks_of, overlay, sample_sheet
from t2i_jax.draw.boxes import objects_of
from t2i_jax.draw.outputs import OUTPUTS
from t2i_jax.explore import offered, text_interpolation, z_interpolation
from t2i_jax.explore.request import Request
from t2i_jax.runtime.errors import DataError, RunError, short
from t2i_jax.sample import require_drawable

# pictures of a request, at most; pictures from one end to the other
MOST, STEPS = 16, 11
# pixels of a side: of layouts, and of what lies over a picture, at least
SIDE = 192
# of a page, so that all that is computed is computed one after the other
BUSY = threading.Lock()


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
