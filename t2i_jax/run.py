"""A run: a folder, its config, and its stages.

run = Run.create(config, 'runs/x') | Run.open('runs/x')
stage = run['gan']      # .block .meta .module .program() .state(step) .split('test')

<workdir>/config.json, vocabulary.json, lock; export.json in an exported folder (export/)
<workdir>/<stage>/meta.json, checkpoints/<step>/, metrics.jsonl, tensorboard/,
                   curves.png, samples/<step>.png
"""

import contextlib
import functools
import itertools
import json
import math
import os
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import logging
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image

from t2i_jax import config as settings
from t2i_jax import optim
from t2i_jax import stage as core
from t2i_jax.config import plain
from t2i_jax.config.checks import is_of
from t2i_jax.config.tables import STEPS, unknown
from t2i_jax.data.dataset import Dataset
from t2i_jax.data.tables import Split, scenes_of
from t2i_jax.data.text import Vocabulary
from t2i_jax.layers import remat
from t2i_jax.runtime.checkpoint import NOT_READ, Checkpoints, saved_in
from t2i_jax.runtime.errors import RunError, choose, home, quoted, reason, short
from t2i_jax.runtime.files import read_json, write_text, writes
from t2i_jax.runtime.lock import Lock
from t2i_jax.runtime.places import folder_of
from t2i_jax.runtime.weights import WEIGHTS, load_weights, named, read_list

Path = str | os.PathLike
# what networks take their sizes from
SIZES = (
    'size',
    'vocabulary_size',
    'length',
    'embedding_dim',
    'attributes',
    'object_classes',
    'max_objects',
)
# those of them that are not settings themselves, and what else data know: names of data.nominal
NOMINAL = 'classes', *(name for name in SIZES if name not in ('size', 'length'))
# the largest numbers of meta.json: those of settings, and what else is no size of a network alone
LARGEST = {name: settings.DATA[name].high for name in ('size', 'length', 'captions')}
LARGEST['max_objects'] = 10**4
# differences between two configs that a message names
SHOWN = 10
# characters of file patterns: Orbax takes the path of a checkpoint for one and reads nothing; of
# the last one TensorStore makes a /
PATTERN = '[]*?\\'


class Run:
    """A config and a workdir; `run[name]` is one of its stages.

    config: locked, complete. workdir: a path, None for what needs no folder (describe).
    names: the stages that this config uses, in the order of training. exported: {stage: step} of
    an exported folder, which has weights to draw with and is not trained; else {}.
    """

    def __init__(self, config: ConfigDict, workdir: Path | None = None):
        self.config = config
        self.workdir = home(workdir) if workdir else None
        if self.workdir:
            require_plain(self.workdir)
        listed = read_list(self.workdir) if self.workdir else None
        self.exported = listed['stages'] if listed else {}
        choose('data.embedding', config.data.embedding, ('none', 'stored'))
        choose('dtype', config.dtype, ('float32', 'bfloat16'))
        self.classes = settings.system(config.system).STAGES
        self.names = [name for name, cls in self.classes.items() if not cls.skip(config)]
        for name in self.names:
            if name not in config.stages:
                raise RunError(
                    f'System {config.system} has a stage {name!r}, which this config does not '
                    'have: take an experiment of that system.'
                )
            settings.check_model(name, self.classes[name], config.stages[name].get('model', {}))
        self._stages = {}

    @classmethod
    def open(cls, workdir: Path) -> 'Run':
        """Open a run that exists, or an exported folder. Raises RunError where there is none.

        workdir: a folder, or what else places.py finds.
        """
        workdir = folder_of(workdir)
        return cls(settings.load_older(workdir), workdir)

    @classmethod
    def create(cls, config: ConfigDict | str, workdir: Path) -> 'Run':
        """Make a run of this config; `train` writes the folder, or resumes what is there.

        config: a locked ConfigDict, as `config.load` makes it, or the name of an experiment,
        'gan_cls_shapes:quick'.
        """
        return cls(settings.load(config) if isinstance(config, str) else config, workdir)

    def __repr__(self):
        return f'Run({self.config.system}, {str(self.workdir)!r}, stages {", ".join(self.names)})'

    def __getitem__(self, name: str) -> 'RunStage':
        if name not in self.names:
            place, names = quoted(self.workdir or 'config'), ', '.join(self.names)
            raise RunError(f'{place} has no stage {short(repr(name))}. It has: {names}.')
        return self._stages.setdefault(name, RunStage(self, name))

    @property
    def stages(self) -> list['RunStage']:
        return [self[name] for name in self.names]

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The words that its stages know. Raises DataError before they are read from data."""
        return Vocabulary.load(self.workdir / 'vocabulary.json')

    def last(self, makes: Sequence[str] = (), name: str | None = None) -> 'RunStage':
        """Return the last stage with a checkpoint that makes one of these, or the named one.

        Where no stage makes any of them, the last one with a checkpoint. A stage that
        `init.<stage>` takes from another run is looked for there. Raises RunError.
        """
        stages = [self[name]] if name else self.stages
        stages = [s for s in stages if s.makes_any(makes)] or stages
        found = next((s for s in reversed(stages) if s.has_checkpoints), None)
        found = found or next((s.source() for s in reversed(stages) if s.adopted), None)
        if found is None:
            names = ' or '.join(stage.name for stage in stages)
            raise RunError(
                f'{quoted(self.workdir)} has no finished checkpoint of {names}. '
                f'Train on: t2i_jax --workdir={quoted(self.workdir)}'
            )
        return found

    # ---------------------------------------------------------------------- what training left
    def metrics(self, stage: str | None = None) -> dict:
        """Read what a stage logged in training, {name: (n,) float64}, with `step`.

        stage: its name; None: the last one that was trained. NaN where a step has no such number.
        pandas.DataFrame(...) makes a table of it. Raises RunError where nothing was logged.
        """
        names = [stage] if stage else self.names[::-1]
        logged = next((self[name] for name in names if self[name].has_log), None)
        if logged is None:
            raise RunError(f'{quoted(self.workdir)} has no losses of {" or ".join(names)} yet.')
        text = (logged.folder / 'metrics.jsonl').read_text(encoding='utf-8')
        rows = [json.loads(line) for line in text.splitlines()]
        keys = dict.fromkeys(key for row in rows for key in row)
        missing = math.nan
        return {
            key: np.array([missing if row.get(key) is None else row[key] for row in rows], float)
            for key in keys
        }

    def samples(self, stage: str | None = None) -> dict:
        """Read the sample grids of a stage, {step: uint8 h w 3}; stage: as of `metrics`."""
        names = [stage] if stage else self.names[::-1]
        found = (sorted((self[name].folder / 'samples').glob('*.png')) for name in names)
        paths = next((paths for paths in found if paths), [])
        return {int(path.stem): np.asarray(Image.open(path).convert('RGB')) for path in paths}

    @contextlib.contextmanager
    def writing(self):
        """Lock the workdir and write its config, or check it against the one that is there.

        Raises RunError where another process writes there, where the config differs in what
        matters, and where nothing can be written.
        """
        if self.exported:
            raise RunError(
                f'{quoted(self.workdir)} is an exported folder: it has weights to draw with, and '
                'nothing to train on with. Train in another --workdir.'
            )
        first = jax.process_index() == 0
        with writes(self.workdir), Lock(self.workdir) if first else contextlib.nullcontext():
            self.claim()
            yield

    def claim(self) -> None:
        """Write config.json, or compare it with the one of the run that is there."""
        trained = bool(saved_steps(self.workdir))
        path, old = self.workdir / 'config.json', None
        if not trained and jax.process_index() == 0:
            require_own(path, lambda: settings.load_run(self.workdir))
            words = self.workdir / 'vocabulary.json'
            require_own(words, lambda: Vocabulary.load(words))
            # an attempt that failed early binds later ones to nothing
            words.unlink(missing_ok=True)
        if path.exists() and trained:
            try:
                old = settings.load_run(self.workdir)
            except RunError as error:
                logging.warning('%s It is replaced by the given one.', error)
        if old is not None and (lines := settings.refused(old, self.config)):
            if old.system != self.config.system:
                lines = [f'system: {old.system} there, {self.config.system} here']
            elif len(lines) > SHOWN:
                lines[SHOWN:] = [f'and {len(lines) - SHOWN} more']
            raise RunError(
                f'{quoted(self.workdir)} belongs to a run with another config:\n  '
                + '\n  '.join(lines)
                + '\nChoose another --workdir, or leave out --config and these settings to resume '
                'that run.'
            )
        if jax.process_index() == 0:
            write_text(path, settings.to_json(self.config))


def saved_steps(workdir, name=None) -> list[int]:
    """List the steps of a stage (any) that have a finished checkpoint, whole or damaged."""
    try:
        stages = [workdir / name] if name else list(workdir.iterdir())
    except FileNotFoundError:
        return []
    return [step for stage in stages for step in saved_in(stage / 'checkpoints')]


def require_plain(workdir) -> None:
    """Raise RunError for a workdir whose path, links followed, loses what is written there.

    It has characters of file patterns, or is not a name in UTF-8.
    """
    place = os.path.realpath(workdir)
    try:
        place.encode()
    except UnicodeEncodeError:
        raise RunError(
            f'The workdir {place!a} is not the name of a folder in UTF-8, and no checkpoint can be '
            'written there. Rename that folder, or choose another --workdir.'
        ) from None
    if found := sorted({*PATTERN} & {*place}):
        raise RunError(
            f'The workdir {quoted(place)} has {" ".join(found)} in its path, and no checkpoint can '
            f'be read there. Rename that folder, or choose another --workdir.'
        )


def require_own(path, load) -> None:
    """Raise RunError where training would replace a file that is not of a run."""
    if not path.exists():
        return
    try:
        load()
    except ValueError:
        raise RunError(
            f'{quoted(path)} is not that of a run, and training would replace it: take it away, or '
            'choose another --workdir.'
        ) from None


class RunStage:
    """One stage of a run, trained or not.

    cls: its class. block: its settings. folder: where its checkpoints lie.
    data: the settings of data that it reads, a plain dictionary.
    """

    def __init__(self, run: Run, name: str):
        self.run, self.name = run, name
        self.config, self.workdir = run.config, run.workdir
        self.cls, self.block = run.classes[name], run.config.stages[name]
        self.folder = run.workdir / name if run.workdir else None
        self.data = plain({**run.config.data, **self.block.data})
        self._meta = self._module = None

    def __repr__(self):
        return f'RunStage({self.name}, {self.cls.__name__}, {str(self.workdir)!r})'

    def makes_any(self, names: Sequence[str]) -> bool:
        """Whether its class can make one of these."""
        return bool(set(self.cls.makes) & set(names))

    # ------------------------------------------------------------------------------------- data
    @property
    def meta(self) -> core.Meta:
        """The Meta of the data that it was trained on. Raises RunError where it was not trained."""
        if self._meta is None:
            path = self.folder / 'meta.json'
            try:
                # tuples, which can be hashed, as those of a Split
                known = plain(read_json(path))
                if not isinstance(known, dict):
                    raise TypeError('it is not a block, {"name": value, ...}')
                # a run of an earlier version does not have it
                if 'scenes' not in known:
                    known['scenes'] = scenes_of(self.data)
                self._meta = meta_of(known)._replace(words=self.words)
            except (FileNotFoundError, NotADirectoryError, ValueError, TypeError) as error:
                why = 'missing' if isinstance(error, OSError) else f'damaged: {reason(error)}'
                raise RunError(
                    f'{quoted(path.parent)} holds no trained stage: {path.name} is {why}. Train '
                    f'(or resume) it, which writes the file: t2i_jax --workdir='
                    f'{quoted(self.workdir)}. Or train with --config.init.{self.name}=<a run that '
                    'has the stage>.'
                ) from None
        return self._meta

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the run, () where it has none yet."""
        known = 'vocabulary' in vars(self.run) or (self.workdir / 'vocabulary.json').exists()
        return self.run.vocabulary.words if known else ()

    def write_meta(self, meta: core.Meta) -> None:
        """Write what the data know, for everything that is built without them.

        Words have a file of their own.
        """
        self._meta, self._module = meta, None
        if jax.process_index() == 0:
            known = {name: value for name, value in meta._asdict().items() if name != 'words'}
            write_text(self.folder / 'meta.json', json.dumps(known, indent=2) + '\n')

    @functools.cached_property
    def nominal_meta(self) -> core.Meta:
        """The Meta without reading data: published values, `data.nominal`."""
        known = dict(self.data['nominal'])
        if self.data['embedding'] == 'stored':
            known.setdefault('embedding_dim', 1024)
        sizes = {name: self.data[name] for name in ('length', 'size', 'captions')}
        for name in known:
            if name not in NOMINAL:
                raise RunError(unknown(f'data.nominal.{name}', NOMINAL))
        return core.Meta(self.data['name'], **sizes, nominal=True, **known)

    @functools.cached_property
    def dataset(self) -> Dataset:
        """Its data set, prepared first where it is not there yet. Raises DataError."""
        return Dataset(self.data)

    def split(
        self, name: str, needs: Sequence[str] | None = None, cache: str | None = None
    ) -> Split:
        """Open a split of the data as this stage reads them.

        needs: batch keys, None: those of training. cache: another than the config's; pictures are
        then decoded in this process.
        Raises DataError for data that lack something, RunError for others than those of training.
        """
        data = Dataset(self.data | dict(cache=cache, workers=0)) if cache else self.dataset
        needs = self.module.needs if needs is None else needs
        split = Split(data, name, needs, self.run.vocabulary, self.cls.advice)
        self.require_sizes(split.meta)
        return split

    def require_sizes(self, found: core.Meta) -> None:
        """Raise RunError where data differ in sizes from those that this stage was trained on."""
        for field in SIZES:
            there, here = getattr(self.meta, field), getattr(found, field)
            if there != here:
                raise RunError(
                    f'Stage {self.name} was trained on data with {field} {there}; {found.name} as '
                    f'it is now has {here}. Put the data (or the setting) back, or train on these '
                    'in another --workdir.'
                )

    # ---------------------------------------------------------------------- stages of other runs
    @property
    def adopted(self) -> str:
        """The workdir of the run that made this stage, `init.<stage>`; '' where this one does."""
        other = self.config.init.get(self.name)
        other = str(home(other)) if other else ''
        own = self.workdir and os.path.realpath(self.workdir)
        return '' if other and os.path.realpath(other) == own else other

    def source(self) -> 'RunStage':
        """Return the stage that holds the weights: this one, or that of the run `init` names.

        Raises RunError where there is no such stage, and where runs name each other in a circle.
        """
        stage, seen = self, set()
        while stage.adopted:
            place, other = os.path.realpath(stage.adopted), Run.open(stage.adopted)[self.name]
            if place in seen:
                raise RunError(
                    f'init.{self.name} of {quoted(self.workdir)} leads back to {quoted(place)}: '
                    'point it to the run that trained the stage.'
                )
            if not (issubclass(other.cls, self.cls) or issubclass(self.cls, other.cls)):
                raise RunError(
                    f'init.{self.name}={quoted(stage.adopted)} is a run of '
                    f'{other.config.system}, whose stage {self.name} is another one than that of '
                    f'{self.config.system}: name a run of {self.config.system}.'
                )
            seen.add(place)
            stage = other
        return stage

    def adopt(self) -> None:
        """Copy what it takes to build a stage of another run, so that this run can do without."""
        other = self.source()
        self.write_meta(other.meta)
        write_text(self.folder / 'config.json', settings.to_json(other.config))

    def origin(self) -> 'RunStage':
        """Return the stage by whose config this one is built: what `adopt` copied, or `source`."""
        if self.adopted and self.folder and (self.folder / 'config.json').exists():
            return Run(settings.load_older(self.folder), self.workdir)[self.name]
        return self.source()

    # ---------------------------------------------------------------------------------- networks
    def build(self, meta: core.Meta, seed: int) -> core.Stage:
        """Build the module, including the networks that it loads, with fresh weights."""
        loads, made = self.cls.loaded(), {}
        for earlier in dict.fromkeys(stage for stage, _ in loads.values()):
            if earlier in self.run.names:
                other = self.run[earlier].origin()
                made[earlier] = other.build(
                    other.nominal_meta if meta.nominal else other.meta, seed
                )
        networks = {
            keyword: made[stage].network(network) if stage in made else None
            for keyword, (stage, network) in loads.items()
        }
        try:
            module = self.cls(meta, **plain(self.block.model), **networks, rngs=Keys(seed))
        # of sizes that are too large, of lists that are too short
        except (ValueError, TypeError, ArithmeticError, IndexError, MemoryError) as error:
            raise RunError(f'Stage {self.name} cannot be built: {reason(error)}.') from error
        core.compute_in(module, self.config.dtype)
        if self.config.get('remat', False):
            remat.switch_on(module)
        return module

    def abstract(self, meta: core.Meta) -> core.Stage:
        """Build the module without its weights: sizes, phases, needs, declarations."""
        return nnx.eval_shape(lambda: self.build(meta, 0))

    @property
    def module(self) -> core.Stage:
        """The module without its weights, of the data that it was trained on."""
        if self._module is None:
            self._module = self.abstract(self.meta)
        return self._module

    @functools.cached_property
    def nominal(self) -> core.Stage:
        """The module without its weights, of published sizes."""
        return self.abstract(self.nominal_meta)

    def program(
        self,
        module: core.Stage | None = None,
        steps_per_epoch: int = 1,
        batch_size: int | None = None,
    ) -> core.Program:
        """Return the Program of the module with its optimisers. Raises RunError for settings.

        batch_size: of the data where they fill no batch of the config's.
        """
        module, block = module or self.module, self.block
        batch_size = batch_size or block.batch_size
        total = self.total_steps(module, steps_per_epoch)
        txs = []
        for phase in module.phases:
            one = plain(block.optim.get(phase.loss, optim.DEFAULTS))
            updates = steps_per_epoch / phase.every, total / phase.every
            txs.append(optim.make(one, phase.trains, *updates))
        half_life = block.ema_half_life
        decay = 0.5 ** (batch_size / half_life) if half_life else block.ema
        return core.program(module, txs, decay, block.ema_warmup)

    def total_steps(self, module: core.Stage, steps_per_epoch: int = 1) -> int:
        """Return the steps of training, 0 without phases. Raises RunError for the settings."""
        steps, epochs, together = self.block.steps, self.block.epochs, self.steps_per_dispatch
        if not module.phases:
            return 0
        if bool(steps) == bool(epochs):
            raise RunError(
                f'stages.{self.name} has steps={steps} and epochs={epochs}: set one of them, the '
                'other to 0.'
            )
        total = int(steps or together * round(epochs * steps_per_epoch / together))
        settings.require_range(f'The number of steps of stage {self.name}', total, 0, STEPS)
        return total

    @property
    def steps_per_dispatch(self) -> int:
        """The steps that the device runs at once.

        Raises RunError unless whole dispatches end where something is due, so that a resumed run
        has the same ones.
        """
        block = self.block
        # runs of earlier versions lack the setting
        together = block.get('steps_per_dispatch', 1)
        every = 'log_every', 'validate_every', 'sample_every', 'checkpoint_every', 'steps'
        due = {key: block[key] for key in every} | {'eval.every': self.config.eval.every}
        wrong = [f'{key}={n}' for key, n in due.items() if together < 1 or n % together]
        if wrong:
            raise RunError(
                f'stages.{self.name}.steps_per_dispatch={together} runs that many steps at once, '
                f'and does not divide {", ".join(wrong)}: set one of them so that it does, or '
                'steps_per_dispatch=1.'
            )
        return together

    # ----------------------------------------------------------------------------------- weights
    def fresh_state(
        self, program: core.Program, meta: core.Meta | None = None
    ) -> Callable[[], core.State]:
        """Return a function that makes the initial State; the caller traces it."""
        meta, seed = meta or self.meta, self.config.seed

        def init():
            _, params, stats = core.split(self.build(meta, seed))
            return core.init_state(program, params, stats, seed)

        return init

    def saved_steps(self) -> list[int]:
        """List the steps with a finished checkpoint, whole or damaged, by the folder alone."""
        if self.run.exported:
            return self.checkpoint_steps()
        return saved_steps(self.workdir, self.name) if self.workdir else []

    @property
    def has_log(self) -> bool:
        """Whether its training was logged here."""
        return (self.folder / 'metrics.jsonl').exists()

    @property
    def has_checkpoints(self) -> bool:
        return bool(self.saved_steps())

    def checkpoints(self) -> Checkpoints:
        """Open its checkpoints; close them."""
        keep = self.block.keep
        return Checkpoints(
            self.folder / 'checkpoints', self.block.keep_n, keep.partition(':')[2] or None
        )

    def weights(
        self, step: int | None = None, averaged: bool = True, shardings=None
    ) -> tuple[int, tuple[dict, dict]]:
        """Restore (step, (parameters, statistics)), as much as drawing needs; see `state`.

        averaged: with the moving average of the weights where there is one.
        """
        critics = self.module.critics
        if self.run.exported:
            return self.exported_weights(step, shardings)
        return self.state(step, shardings, lambda state: state.weights(critics, averaged))

    def exported_weights(self, step, shardings):
        """Read the weights of an exported folder, which has those to draw with alone."""
        step = self.require_step(step, self.checkpoint_steps())
        _, params, stats = core.split(self.module)
        drawing = {
            kind: {n: core.abstract(x) for n, x in tree.items() if n not in self.module.critics}
            for kind, tree in dict(params=params, stats=stats).items()
        }
        found = load_weights(self.folder / WEIGHTS, drawing)
        found = jax.device_put(found, shardings or jax.local_devices()[0])
        return step, (found['params'], found['stats'])

    def require_step(self, step, there):
        """Return a step that is there, None for the newest. Raises RunError."""
        if not there:
            raise RunError(
                f'{quoted(self.folder)} has no finished checkpoint. '
                f'Train it first: t2i_jax --workdir={quoted(self.workdir)}'
            )
        if step is not None and step not in there:
            raise RunError(
                f'{quoted(self.folder)} has no checkpoint of step {step}. '
                f'It has: {", ".join(map(str, sorted(there)))}.'
            )
        return max(there) if step is None else step

    def state(
        self, step: int | None = None, shardings=None, part: Callable | None = None
    ) -> tuple[int, core.State]:
        """Restore (step, state) of a checkpoint: the best or newest, or that of `step`.

        shardings: of all arrays; None: the first device. part: a function of the state; what it
        leaves out is not read, and what it returns stands for the state.

        Raises RunError where there is none.
        """
        self.require_step(step, self.checkpoint_steps())
        _, *fresh = core.split(self.module)
        begin = functools.partial(core.init_state, self.program(), seed=self.config.seed)
        shapes = jax.eval_shape(begin, *fresh)
        place = shardings or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes
        )
        if part:
            needed = {id(x) for x in jax.tree.leaves((part(shapes), shapes.step))}
            shapes = jax.tree.map(lambda x: x if id(x) in needed else NOT_READ, shapes)
        with contextlib.closing(self.checkpoints()) as saved:
            found = saved.restore(shapes, saved.best_step() if step is None else step)
        step, state, extra = found
        here = self.run.vocabulary.hash[:12]
        # checkpoints of earlier versions lack it
        if extra.get('vocabulary', here) != here:
            raise RunError(
                f'{quoted(self.workdir / "vocabulary.json")} is not the one with which stage '
                f'{self.name} was trained (hash {here}, that of step {step} is '
                f'{extra["vocabulary"]}): it would misread sentences. Restore the file.'
            )
        return step, part(state) if part else state

    def checkpoint_steps(self) -> list[int]:
        """List the steps that have a finished checkpoint, the newest first."""
        if exported := self.run.exported:
            return [exported[self.name]] if self.name in exported else []
        if not (self.folder / 'checkpoints').exists():
            return []
        with contextlib.closing(self.checkpoints()) as saved:
            return saved.steps()

    def loaded_weights(self, place) -> tuple[dict, dict]:
        """Restore the networks of earlier stages -> (parameters, statistics), by keyword.

        A text encoder is absent where sentence vectors are stored. Raises RunError.
        """
        params, stats, made = {}, {}, {}
        for keyword, (earlier, network) in self.cls.loaded().items():
            if earlier in self.run.names:
                made.setdefault(earlier, {})[keyword] = network
        for earlier, networks in made.items():
            other = self.run[earlier].source()
            if other.run is not self.run:
                other.require_vocabulary(self, ' and '.join(networks))
            other.warn_if_unfinished()
            _, weights = other.weights(shardings=place)
            for into, trained in zip((params, stats), weights):
                into |= {key: trained[name] for key, name in networks.items() if name in trained}
        return params, stats

    @property
    def begins_with(self) -> str:
        """The workdir of the run whose same stage has its first weights, `init_from`; or ''."""
        # runs of earlier versions lack the setting
        other = self.block.get('init_from', '')
        return '' if not other or self.adopted else other

    def predecessor(self) -> 'RunStage':
        """Return the stage that `init_from` names. Raises RunError."""
        return Run.open(self.begins_with)[self.name]

    def first_weights(self, state: core.State, place) -> tuple[dict, dict]:
        """Read the weights that `init_from` names -> (parameters, statistics), {} without any.

        Averaged weights where there is an average. An exported folder has no critics, which then
        start afresh. Raises RunError where the networks differ.
        """
        if not self.begins_with:
            return {}, {}
        other = self.predecessor()
        if other.run.exported:
            step, (params, stats) = other.weights(shardings=place)
        else:
            step, (params, stats) = other.state(None, place, lambda saved: saved.weights())
        for kind, tree, ours in ('params', params, state.params), ('stats', stats, state.stats):
            there = named(core.pick(ours, tree))
            for name, found in named(tree).items():
                own = there.get(name)
                if own is None or own.shape != found.shape:
                    shape = 'is not there' if own is None else f'has the shape {own.shape}'
                    raise RunError(
                        f'Stage {self.name} cannot begin with that of {quoted(other.workdir)}: its '
                        f'{kind} {name} of shape {found.shape} {shape} here. Take the same '
                        f'settings under stages.{self.name}.model and sizes of data.'
                    )
        print(f'Stage {self.name}: begins with step {step:,} of {quoted(other.workdir)}.')
        return params, stats

    def require_vocabulary(self, other: 'RunStage', networks: str) -> None:
        """Raise RunError where the stage `other` of another run knows other words than this one."""
        theirs, ours = self.run.vocabulary, other.run.vocabulary
        if theirs != ours:
            raise RunError(
                f'{quoted(self.workdir)} has another vocabulary ({len(theirs) - 1} words, hash '
                f'{theirs.hash[:12]}) than {quoted(other.workdir)} ({len(ours) - 1} words, hash '
                f'{ours.hash[:12]}), so its {networks} would misread sentences. Train stage '
                f'{self.name!r} here (leave out --config.init.{self.name}), or use the same data.'
            )

    def warn_if_unfinished(self) -> None:
        """Warn where the newest checkpoint is not that of the last step."""
        if self.run.exported or not self.checkpoint_steps():
            return
        with contextlib.closing(self.checkpoints()) as saved:
            # a damaged one is left to `restore`
            known = {step: extra for step in saved.steps() if (extra := saved.extra(step))}
        newest = max(known, default=0)
        total = known[newest].get('total', newest) if known else 0
        if newest < total:
            logging.warning(
                'Stage %s of %s was interrupted at step %s of %s, and is used as it is. To finish '
                'it first: t2i_jax --workdir=%s',
                *(self.name, self.workdir, f'{newest:,}', f'{total:,}', quoted(self.workdir)),
            )


def meta_of(known) -> core.Meta:
    """Make a Meta of the values of meta.json. Raises TypeError, ValueError for others."""
    meta = core.Meta(**known)
    for field, value in meta._asdict().items():
        default = core.Meta._field_defaults.get(field, '')
        texts = not isinstance(value, tuple) or all(isinstance(one, str) for one in value)
        if not is_of(default, value) or not texts:
            raise TypeError(f'{field} is {short(repr(value), 80)}')
        most = LARGEST.get(field, 10**7)
        if isinstance(value, int) and not 0 <= value <= most:
            raise ValueError(f'{field} is {short(value, 40)}; expected 0 to {most}')
    return meta


class Keys:
    """The keys of `nnx.Rngs(seed)`, counted in Python.

    Rngs counts in traced arrays, which takes most of the time of building a large model.
    """

    def __init__(self, seed):
        self.key, self.count = jax.random.key(seed), itertools.count()

    def params(self):
        return jax.random.fold_in(self.key, next(self.count))


# ------------------------------------------------------------------------------------- describe
def describe(config: ConfigDict) -> str:
    """List networks with their sizes, then phases, steps, batch and optimisers of each stage.

    Nothing is read from data, and no weights are allocated.
    """
    lines, below, width = [], [], 24
    for stage in Run(config).stages:
        # refuses the settings that training would refuse
        program, module, block = stage.program(stage.nominal), stage.nominal, stage.block
        trained = {network for phase in program.phases for network in phase.trains}
        for network, tree in core.split(module).params.items():
            # the parts of an nnx.List, too
            in_list = all(isinstance(key, int) for key in tree)
            parts = {f'{network}.{i}': part for i, part in tree.items()} if in_list else {}
            for part, arrays in ({network: tree} | parts).items():
                count = sum(math.prod(x.shape) for x in jax.tree.leaves(arrays))
                kind = 'trained' if network in trained else 'frozen'
                lines.append(f'{stage.name + "." + part:<{width}} {count:>14,}  {kind}')
        length = f'{block.steps:,} steps' if block.steps else f'{block.epochs:g} epochs'
        below.append(
            f'\nstage {stage.name}: {length}, batch {block.batch_size}, sampler {block.sampler}, '
            f'{stage.nominal_meta.size} px, {config.dtype}, reads {", ".join(module.needs)}'
        )
        for phase in module.phases:
            every = f', every {phase.every} steps at {phase.at}' if phase.every > 1 else ''
            one = plain(block.optim.get(phase.loss, optim.DEFAULTS))
            below.append(
                f'  {phase.loss}: trains {", ".join(phase.trains)}{every}; '
                f'{optim.describe(one, phase.trains)}'
            )
        averaged = [network for network in module.ema if network in trained]
        if averaged:
            half_life = f'half-life {block.ema_half_life:g} images'
            decay = half_life if block.ema_half_life else f'{block.ema:g}'
            warmup = ', less at first' if block.ema_warmup else ''
            below.append(f'  moving average of {", ".join(averaged)}: {decay}{warmup}')
    below.append(
        f'\ndata {config.data.name}: {config.data.split}; sizes above are for its published '
        f'values ({dict(config.data.nominal)})'
    )
    return '\n'.join([f'{"stage.network":<{width}} {"parameters":>14}', *lines, *below])
