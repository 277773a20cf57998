"""Pictures of what a run has learnt: one condition moves, everything else stays.

    t2i_jax --workdir=runs/quick --mode=explore --what=style --text="a red circle" --image=FILE
    t2i_jax --workdir=runs/quick --mode=explore --what          # lists what the run offers

In Python:

    run = Run.open('runs/quick')
    explore(stage_of(run, 'z_interpolation'), 'z_interpolation', num=4)
    text_interpolation(Sampler.load('runs/quick'), ['a red circle', 'a blue circle'])  # pictures

Sentences and pictures are those of the held-out split where none are given. The table EXPLORATIONS
has a row for each kind. A stage may have more, its own: see `explores` in stage.py.
"""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from t2i_jax.draw import sheets
from t2i_jax.draw.outputs import DRAWN
from t2i_jax.explore.attention import attention_sheet
from t2i_jax.explore.attributes import (
    attributes_sheet,
    completion_sheet,
    layers_sheet,
    reconstruction_sheet,
)
from t2i_jax.explore.edit import edit, edit_sheet
from t2i_jax.explore.layout import layout_sheet
from t2i_jax.explore.nearest import nearest_sheet
from t2i_jax.explore.own import own_sheet
from t2i_jax.explore.priors import phi, phi_sheet, prior_swap, prior_swap_sheet
from t2i_jax.explore.request import Found, Request
from t2i_jax.explore.sentences import (
    swap_word,
    swap_word_sheet,
    text_interpolation,
    text_interpolation_sheet,
    z_interpolation,
    z_interpolation_sheet,
)
from t2i_jax.explore.style import style, style_correlation, style_sheet
from t2i_jax.run import Path, Run, RunStage
from t2i_jax.runtime.errors import RunError, home, quoted, short
from t2i_jax.runtime.files import write_text
from t2i_jax.sample import Sampler, require_drawable, require_memory

__all__ = [
    'EXPLORATIONS',
    'edit',
    'explore',
    'listing',
    'offered',
    'phi',
    'prior_swap',
    'stage_of',
    'style',
    'style_correlation',
    'swap_word',
    'text_interpolation',
    'z_interpolation',
]


class Exploration(NamedTuple):
    """One kind of exploration.

    sheet: Request -> Found.
    of: the stages that it explores, in words.
    shows: what the sheet shows, in one line.
    reads: the options that it reads besides num, seed and out.
    offered: module of a stage -> whether it can be explored; None: where it stands in `explores`.
    """

    sheet: Callable[[Request], Found]
    of: str
    shows: str
    reads: tuple[str, ...] = ()
    offered: Callable | None = None


def from_sentences(module) -> bool:
    return 'image' in module.makes and 'sentence' in module.draws_from


def from_noise(module) -> bool:
    return 'image' in module.makes and set(module.draws_from) <= {'sentence'}


def looks(module) -> bool:
    return 'attention' in (*module.makes, *module.explores)


def from_layouts(module) -> bool:
    return 'image' in module.makes and 'layout' in module.takes


SENTENCES = 'stages that draw pictures from sentences'
PRIORS = 'stages that draw from two priors (LeicaGAN)'
LATENTS = 'stages that draw from attributes and latents which can be inferred'
PICTURE = ('images', 'attributes')
EXPLORATIONS = {
    'text_interpolation': Exploration(
        text_interpolation_sheet,
        SENTENCES,
        'from one sentence to another, the noise unchanged; --text in pairs',
        ('texts',),
        from_sentences,
    ),
    'z_interpolation': Exploration(
        z_interpolation_sheet,
        'stages that draw pictures from sentences, or from noise alone',
        'from one noise to another, the sentence unchanged',
        ('texts',),
        from_noise,
    ),
    'swap_word': Exploration(
        swap_word_sheet,
        SENTENCES,
        'two sentences that differ by a word or a few, from the same noise; --text in pairs',
        ('texts',),
        from_sentences,
    ),
    'edit': Exploration(
        edit_sheet,
        SENTENCES,
        'two sentences, from the same noise, and where they differ; --text in pairs, without it '
        'also a table of exchanged words',
        ('texts',),
        from_sentences,
    ),
    'nearest': Exploration(
        nearest_sheet,
        'stages that draw pictures from sentences, or from noise alone',
        'drawn pictures next to the training pictures that are most like them: is it a copy?',
        ('texts',),
        from_noise,
    ),
    'attention': Exploration(
        attention_sheet,
        'stages whose pixels look at words (AttnGAN), or words at pictures (DAMSM)',
        'the words that pixels looked at most, as heat; of `damsm` where words look in pictures',
        ('texts',),
        looks,
    ),
    'prior_swap': Exploration(
        prior_swap_sheet,
        PRIORS,
        'two sentences, and each in the shape of the other; --text in pairs',
        ('texts',),
    ),
    'phi': Exploration(
        phi_sheet,
        PRIORS,
        'from the words of the first prior alone to those of the second, the rest unchanged',
        ('texts',),
    ),
    'layout': Exploration(
        layout_sheet,
        'stages that draw pictures from layouts, which they may be given',
        'one object of a layout is moved, scaled, deleted, added or renamed, the noise unchanged; '
        '--text with --layout=FILE',
        ('texts', 'layouts'),
        from_layouts,
    ),
    'style': Exploration(
        style_sheet,
        'style encoders',
        'each sentence in the style of each picture: with the noise that is read off it',
        ('texts', 'images'),
    ),
    'attributes': Exploration(
        attributes_sheet,
        LATENTS,
        'pictures whose attributes are exchanged one after the other, the latents unchanged',
        PICTURE,
    ),
    'layers': Exploration(
        layers_sheet,
        'stages with latents of foreground and background (disCVAE: stages.vae.model.layered=True)',
        'the foreground of each picture before the background of each',
        PICTURE,
    ),
    'reconstruction': Exploration(
        reconstruction_sheet,
        LATENTS,
        'pictures, and what the stage makes of them with latents found by optimisation',
        PICTURE,
    ),
    'completion': Exploration(
        completion_sheet,
        LATENTS,
        'pictures, and what the stage makes of them with the right half covered',
        PICTURE,
    ),
}
# pictures of a row of a sheet, about, with the copies of them that are made
COLUMNS = 32
# options whose flag has another name
FLAGS = {'texts': 'text', 'images': 'image', 'layouts': 'layout', 'dialogs': 'dialog'}


def own(module, method) -> Exploration:
    """The row of an exploration that is the stage's own."""
    reads = ('texts', 'dialogs') if 'dialog' in module.takes else ('texts',)
    return Exploration(own_sheet, '', f'its own, see {type(module).__name__}.{method}', reads)


def offered(module) -> dict[str, Exploration]:
    """Return the explorations that a stage offers, by name; its own come last."""
    found = {}
    for name, one in EXPLORATIONS.items():
        if one.offered(module) if one.offered else name in module.explores:
            found[name] = one
    return found | {
        name: own(module, method)
        for name, method in module.explores.items()
        if name not in EXPLORATIONS
    }


def listing(run: Run, name: str | None = None) -> str:
    """List the explorations of a run's trained stages, or of the named one, a line each."""
    names = [name] if name else [s.name for s in run.stages if s.has_checkpoints or s.adopted]
    lines = []
    for stage in [run.last((), name) for name in names] or [run.last()]:
        lines.append(f'stage {stage.name} ({stage.cls.__name__})')
        lines += [f'  {name:<20} {one.shows}' for name, one in offered(stage.module).items()]
        lines += [] if offered(stage.module) else ['  nothing']
    return '\n'.join(lines)


def stage_of(run: Run, what: str, name: str | None = None) -> RunStage:
    """Return the RunStage in which `what` is explored.

    It is the named one, else the last that offers it. Of a run's stages the last one that draws
    comes first, then those that declare `what` in their `explores`. Raises RunError where there is
    no checkpoint.
    """
    last = run.last(DRAWN, name)
    if name or what in offered(last.module):
        return last
    for other, cls in reversed(run.classes.items()):
        if what in cls.explores and other in run.names:
            return run.last((), other)
        if what in cls.explores:
            raise RunError(
                f'--what={what} needs stage {other!r}, which this run left out. Train it: '
                f't2i_jax --workdir={quoted(run.workdir)} --config.stages.{other}.steps=4000'
            )
    return last


def explore(
    stage: RunStage,
    what: str,
    num: int = 8,
    seed: int = 0,
    texts: Sequence[str] = (),
    images: Sequence[Path] = (),
    attributes: Sequence = (),
    out: Path | None = None,
    *,
    layouts: Sequence[Path] = (),
    dialogs: Sequence[Path] = (),
) -> dict:
    """Write <out>/<what>.png and .json (of interpolations .gif, too) -> the numbers.

    stage: a RunStage with a checkpoint, as `stage_of` finds it.
    what: a name of EXPLORATIONS, or one that the stage declares.
    num: held-out sentences or pictures; of given sentences, samples of each.
    seed: of the noise.
    texts: sentences; without them those of the held-out split.
    images: files of pictures; without them those of the held-out split.
    attributes: what is known of a picture's, as parse.read_attributes takes it; unknown ones
      are inferred together with the latents.
    out: <workdir>/explore by default.
    layouts, dialogs: files of layouts and of dialogues, one for each sentence.

    Raises RunError, DataError.
    """
    known = offered(stage.module)
    if what not in known:
        raise RunError(not_offered(stage, what, known))
    require_drawable(num, seed)
    require_memory(max(1, len(texts)), num, COLUMNS * max(stage.meta.size, 64) ** 2)
    options = dict(texts=texts, images=images, attributes=attributes)
    options |= dict(layouts=layouts, dialogs=dialogs)
    for name, value in options.items():
        if value and name not in known[what].reads:
            raise RunError(f'--what={what} does not read --{FLAGS.get(name, name)}. Leave it out.')
    sampler = Sampler(stage)
    found = known[what].sheet(Request(sampler, what, num, seed, **options))
    out = home(out or stage.workdir / 'explore')
    return write(found, sampler, what, seed, out)


def not_offered(stage, what, known) -> str:
    """The message for an exploration that a stage does not offer."""
    here = f'Stage {stage.name} ({stage.cls.__name__}) offers: {", ".join(known) or "none"}.'
    if what in EXPLORATIONS:
        return f'--what={what} explores {EXPLORATIONS[what].of}. {here}'
    if what:
        return f'There is no {short(repr(what))} to explore. {here}'
    return f'Name what to explore. {here}'


def write(found, sampler, what, seed, folder) -> dict:
    """Write the files of an exploration -> its numbers."""
    title = f'{what}: {sampler.name}, step {sampler.step:,}'
    path = folder / f'{what}.png'
    sheets.sheet(found.pictures, found.labels, path, real=found.real, title=title)
    done = quoted(path)
    if found.frames is not None:
        sheets.save_gif(folder / f'{what}.gif', found.frames)
        done += f', {what}.gif'
    numbers = {'what': what, 'step': sampler.step, 'rows': len(found.labels), 'seed': seed}
    numbers |= found.numbers
    write_text(folder / f'{what}.json', json.dumps(numbers, indent=1) + '\n')
    print(done + (f'; {json.dumps(found.numbers)}' if found.numbers else ''))
    return numbers
