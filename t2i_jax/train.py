"""Training from top to bottom: check, then for each stage open, resume, loop.

One loop serves every stage of every system. What a step does is in stage.py, how it is compiled
in step.py, what a batch is in data/feed.py, what a run is in run.py.
"""

import collections
import contextlib
import importlib.util
import math
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx

from t2i_jax import config as settings
from t2i_jax import sample
from t2i_jax import stage as core
from t2i_jax.data.feed import CHUNK, Feed, to_devices
from t2i_jax.data.plan import Plan, check_plan, drawable_records, fitting
from t2i_jax.data.tables import Split, free_memory
from t2i_jax.data.text import Vocabulary
from t2i_jax.draw.curves import save_curves
from t2i_jax.evaluate.during import PANELS, Evaluation
from t2i_jax.evaluate.features import check_extractor
from t2i_jax.run import Run
from t2i_jax.runtime import hosts, memory, sharding
from t2i_jax.runtime.errors import DataError, RunError, quoted, short
from t2i_jax.runtime.log import Log, NoLog, Wandb, require_wandb
from t2i_jax.runtime.signals import Interrupted, Signals
from t2i_jax.runtime.terminal import Progress
from t2i_jax.step import compiled, joined, mean_of, settled, validated

# metrics of steps that wait on the device for their line: each is an array, of which few are cheap
WAITING = 1000


def train(
    run: Run,
    devices: Sequence[jax.Device] | None = None,
    *,
    on_log: Callable[[str, int, dict], None] | None = None,
    on_samples: Callable[[str, int, np.ndarray], None] | None = None,
    on_step: Callable[[str, int], bool | None] | None = None,
) -> Run:
    """Train the stages of a run in order, or resume where an earlier process stopped.

    devices: those to train on; None: all.
    on_log: called with (stage, step, {name: number}) for whatever is logged.
    on_samples: called with (stage, step, sample grid, uint8 h w 3).
    on_step: called with (stage, step) after each dispatch; a true result saves and stops training.

    Returns the run, also where `on_step` stopped it.
    Raises RunError, DataError, and Interrupted after a stop signal.
    """
    calls = Calls(on_log, on_samples, on_step)
    with run.writing(), Signals() as signals:
        hosts.same_run(run.workdir, settings.to_json(run.config))
        mesh = sharding.make_mesh(run.config.mesh.fsdp, devices)
        with before_training(signals, run):
            check(run, mesh)
        for stage in run.stages:
            if stage.adopted:
                adopt(stage)
            else:
                Trainer(stage, mesh, signals, calls).train()
            if calls.stopped:
                return run
    if jax.process_index() == 0:
        report(run)
    return run


class Calls:
    """The functions of a caller that training calls, each may be None; whether one stopped it."""

    def __init__(self, on_log=None, on_samples=None, on_step=None):
        self.on_log, self.on_samples, self.on_step = on_log, on_samples, on_step
        self.stopped = ''

    def log(self, stage, step, metrics):
        if self.on_log:
            numbers = {name: float(x) for name, x in metrics.items() if x is not None}
            self.on_log(stage, step, numbers)

    def samples(self, stage, step, picture):
        if self.on_samples:
            self.on_samples(stage, step, picture)

    def step(self, stage, step):
        if self.on_step and self.on_step(stage, step):
            self.stopped = 'on_step'


# ------------------------------------------------------------------------ before the first step
@contextlib.contextmanager
def before_training(signals, run):
    """Within it a stop signal ends at once what is done, such as building data for hours.

    There is nothing to save. Several processes learn of it together, at a step. Raises Interrupted.
    """
    try:
        with contextlib.nullcontext() if hosts.several() else signals.at_once():
            yield
    except KeyboardInterrupt:
        if not signals.received:
            raise
    # noted before, or just now
    if signals.received and not hosts.several():
        raise Interrupted(
            f'{signals.received}: the next stage had not started; what was saved is safe. Resume '
            f'with: t2i_jax --workdir={quoted(run.workdir)}'
        )


def check(run: Run, mesh):
    """Check what all stages need, before the first is trained for days.

    Settings, batch sizes, optimisers, the fields and records of the data, files of weights, runs
    that `init` names. Data are not read, weights not allocated. Raises RunError, DataError.
    """
    settings.check(run.config, trains=True)
    if run.config.get('log') == 'wandb':
        require_wandb()
    drawn = None
    for stage in run.stages:
        if stage.adopted:
            source = stage.source()
            source.meta, source.run.vocabulary  # noqa: B018 - raise where they are missing
            continue
        if seems_finished(stage):
            continue
        block = stage.block
        sharding.check_batch(block.batch_size, mesh, stage.name)
        stage.program(stage.nominal)
        refuse_empty(stage)
        require_memory(stage, mesh)
        if block.keep.startswith('best:') and (
            not block.validate_every or block.checkpoint_every % block.validate_every
        ):
            raise RunError(
                f'stages.{stage.name}.keep={block.keep} compares checkpoints by their validation '
                'losses: set validate_every to a number that divides checkpoint_every.'
            )
        if not stage.has_checkpoints:
            stage.cls.check(settings.plain(block.model))
            if stage.begins_with:
                stage.predecessor().meta  # noqa: B018 - raises where it is missing
        try:
            check_data(stage, mesh.size)
        except DataError as error:
            raise DataError(f'Stage {stage.name}: {error}') from error
        drawn = stage if stage.makes_any(('image',)) else drawn
    if drawn:
        check_extractor(run.config.eval, drawn.dataset.meta(0).scenes)


def refuse_empty(stage):
    """Raise RunError for parameters without elements, which a width of 0 makes."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.state(stage.nominal, nnx.Param)):
        if 0 in leaf.shape:
            name = jax.tree_util.keystr(path, simple=True, separator='.').removesuffix('.value')
            raise RunError(
                f'Stage {stage.name} has no elements in {name}, shape {leaf.shape}: set every '
                f'width in --config.stages.{stage.name}.model above 0.'
            )


def require_memory(stage, mesh):
    """Raise RunError for networks or a batch that cannot fit into the memory of the devices.

    What training takes at least: weights, of trained ones the gradient and two moments, pictures.
    """
    block, size = stage.block, stage.data['size']
    trained = {network for phase in stage.nominal.phases for network in phase.trains}
    weights = 0
    for network, tree in core.split(stage.nominal).params.items():
        count = sum(x.size for x in jax.tree.leaves(tree))
        weights += count * (16 if network in trained else 4)
    pictures = 12 * block.batch_size * size**2
    own = next(one for one in mesh.devices.flat if one.process_index == jax.process_index())
    stats = own.memory_stats() or {}
    if 'bytes_limit' in stats:
        limit = stats['bytes_limit']
        weights, pictures = weights / mesh.shape['fsdp'], pictures / mesh.size
    else:
        # processors share the memory of their machine
        limit = free_memory()
    if weights + pictures > limit:
        raise RunError(
            f'Stage {stage.name} takes at least {weights / 1e9:,.1f} GB for its networks and '
            f'{pictures / 1e9:,.1f} GB for a batch of {block.batch_size:,} pictures; '
            f'{limit / 1e9:,.1f} GB of memory are free. Set lower widths in '
            f'--config.stages.{stage.name}.model, or a lower batch_size or data.size.'
        )


def check_data(stage, devices):
    """Check that the data have what a stage reads on so many devices. Raises DataError."""
    block, data = stage.block, stage.dataset
    needs, advice = stage.nominal.needs, stage.cls.advice
    count = data.check(stage.data['split'], needs, advice)
    data.check(stage.data['validation_split'], needs, advice)
    classes = data.meta(0).classes
    where = f'{data.name} (split {stage.data["split"]})'
    size = fitting(where, block.batch_size, block.sampler, count, classes or count, devices)
    check_plan(where, data.features, classes, count, size, block.sampler, block.near_wrong)
    needed = stage.nominal.sampler
    if needed and block.sampler != needed:
        raise RunError(
            f'The losses of stage {stage.name} need batches by sampler {needed!r}, and it is '
            f'{block.sampler!r}: set --config.stages.{stage.name}.sampler={needed}.'
        )


def seems_finished(stage) -> bool:
    """Whether there is a checkpoint of the last step, by what is known without data."""
    newest = max(stage.saved_steps(), default=-1)
    try:
        stage.run.vocabulary  # noqa: B018 - raises where it is missing or damaged
    except DataError:
        return False
    return 0 < stage.block.steps <= newest


def adopt(stage):
    """Copy what it takes to build a stage that another run has trained."""
    if jax.process_index() == 0:
        stage.adopt()
    hosts.together(f'{stage.name} is adopted')
    print(f'Stage {stage.name}: taken from {stage.adopted}.')


class Trainer:
    """One stage of a run in training: its feeds, its compiled functions, its state."""

    def __init__(self, stage, mesh, signals, calls=None):
        self.calls = calls or Calls()
        self.stage, self.block, self.name = stage, stage.block, stage.name
        self.mesh, self.signals, self.first = mesh, signals, jax.process_index() == 0
        self.together = stage.steps_per_dispatch
        self.resume = f'Resume with: t2i_jax --workdir={quoted(stage.workdir)}'
        # losses of the step that is being saved
        self.validation = {}
        self.feed = self.held_out = self.grid = self.evaluation = self.log = None
        self.program = self.compiled = self.placement = self.shapes = None
        self.initial, self.total, self.evaluate_every = None, 0, 0

    def train(self):
        """Open the data and the model, resume, and run the loop."""
        if self.finished():
            return print(f'Stage {self.name}: finished, {self.block.steps:,} steps.')
        with before_training(self.signals, self.stage.run):
            self.open_data()
            self.open_model()
        checkpoints = self.stage.checkpoints()
        try:
            state = self.resumed(checkpoints)
            if not self.program.phases:
                # nothing to train, but sampling needs what it loads
                self.save(0, state, checkpoints, wait=True)
            if int(state.step) >= self.total:
                print(f'Stage {self.name}: finished, {self.total:,} steps.')
            else:
                with self.new_log(int(state.step)) as self.log:
                    self.loop(state, checkpoints)
        except BaseException as error:
            if isinstance(error, Interrupted):
                checkpoints.close()
            # with several hosts a save may wait for others, which will not come
            elif not hosts.several():
                # the error that stopped the run is the one to report
                with contextlib.suppress(Exception):
                    checkpoints.close()
            raise
        checkpoints.close()

    def new_log(self, step):
        """Open the log of the stage, in the first process."""
        if not self.first:
            return NoLog()
        config = self.stage.config
        # runs of earlier versions lack the setting
        also = [Wandb(self.stage, step)] if config.get('log') == 'wandb' else []
        return Log(self.stage.folder, step, also)

    def finished(self) -> bool:
        """Whether there is a whole checkpoint of the last step; no data are read."""
        stage = self.stage
        if not hosts.all_say(seems_finished(stage)):
            return False
        try:
            newest = max(stage.saved_steps())
            return stage.state(newest, sharding.replicated(self.mesh))[0] >= self.block.steps
        except RunError as error:
            # what can be done about it is done once the data are there
            logging.warning('%s', error)
            return False

    # ----------------------------------------------------------------------------------- opening
    def open_data(self):
        """Read the splits, the vocabulary and the plans."""
        stage, block = self.stage, self.block
        needs, data = stage.nominal.needs, stage.data
        split = Split(stage.dataset, data['split'], needs, self.vocabulary(), stage.cls.advice)
        if self.first:
            split.vocabulary.save(stage.workdir / 'vocabulary.json')
        stage.run.vocabulary = split.vocabulary
        held_out = Split(stage.dataset, data['validation_split'], needs, split.vocabulary)
        if stage.has_checkpoints:
            try:
                stage.meta  # noqa: B018 - raises where it is damaged
            except RunError as error:
                logging.warning('%s It is written again.', error)
            else:
                stage.require_sizes(split.meta)
        stage.write_meta(split.meta)
        self.require_captions(split)
        plan = self.plan(split, self.stage.config.seed, block.sampler, block.near_wrong)
        # raises now where a wrong pair cannot be found
        plan(0)
        if plan.batch_size < block.batch_size and self.first:
            print(
                f'Stage {self.name}: {len(plan.records):,} records fill no batch of '
                f'{block.batch_size}, so batches have {plan.batch_size}.'
            )
        more = dict(cache=data['cache'], workers=data['workers'])
        self.feed = Feed(split, plan, self.mesh, **more)
        self.held_out = Feed(held_out, self.plan_of_validation(held_out), self.mesh, **more)
        self.total = stage.total_steps(stage.nominal, plan.steps_per_epoch)

    def vocabulary(self):
        """The words of the run so far; None: they come from the data."""
        stage, path = self.stage, self.stage.workdir / 'vocabulary.json'
        if path.exists():
            try:
                return Vocabulary.load(path)
            except DataError as error:
                # `resumed` compares it with that of the checkpoint
                logging.warning('%s It is made again from the data.', error)
        if others := [other for other in stage.run.stages if other.begins_with]:
            # a word keeps its meaning
            return Run.open(others[0].begins_with).vocabulary
        if any('dialog' in other.nominal.needs for other in stage.run.stages):
            # one for all stages, with the words of the dialogues
            return Split(stage.dataset, stage.data['split'], ('dialog',)).vocabulary
        return None

    def require_captions(self, split):
        """Raise DataError for more captions in a row than any record has."""
        captions, most = split.meta.captions, max(map(len, split.texts))
        if captions > max(most, 1):
            raise DataError(
                f'Stage {self.name} reads data.captions={captions} captions in a row, and no '
                f'record of {split.name} (split {split.split}) has more than {most}: set at most '
                'that.'
            )

    def plan(self, split, seed, sampler, near_wrong=0.0):
        """Plan the batches of a split, smaller ones where it fills none of the config's."""
        block, needs = self.block, self.stage.nominal.needs
        records = drawable_records(split, needs, block.sampler)
        classes = count = len(records)
        if 'label' in split.tables:
            classes = len(np.unique(split.tables['label'][records]))
        where = f'{split.name} (split {split.split})'
        size = fitting(where, block.batch_size, sampler, count, classes, self.mesh.size)
        more = block.captioned_share, near_wrong
        return Plan(split, size, seed, needs, block.sampler, split.meta.captions, *more)

    def plan_of_validation(self, split):
        """Plan the held-out batches; None where there are none, or the split has too little."""
        block = self.block
        if not block.validate_every:
            return None
        # each record once
        sampler = 'uniform' if block.sampler == 'class_balanced' else block.sampler
        try:
            plan = self.plan(split, 0, sampler)
            for step in range(self.batches_of_validation(plan)):
                plan(step)
        except DataError as error:
            if block.keep != 'last':
                raise
            if self.first:
                print(f'Stage {self.name}: no held-out losses. {error}')
            return None
        return plan

    def batches_of_validation(self, plan) -> int:
        each = self.block.validate_batches
        return min(each, plan.steps_per_epoch) if each else plan.steps_per_epoch

    def open_model(self):
        """Build the program, the placement of its state, and the compiled functions."""
        stage = self.stage
        plan = self.feed.plan
        self.program = stage.program(stage.module, plan.steps_per_epoch, plan.batch_size)
        fresh = stage.fresh_state(self.program)
        shapes = jax.eval_shape(fresh)
        self.placement = sharding.state_shardings(self.mesh, shapes)

        def placed(x, place):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

        self.shapes = jax.tree.map(placed, shapes, self.placement)
        self.initial = jax.jit(fresh, out_shardings=self.placement)
        if stage.makes_any(('image',)) and 'image' in self.held_out.split.fields:
            self.evaluate_every = stage.config.eval.every
        if self.evaluate_every and self.first:
            # now, so that what it lacks is known before the first step
            self.evaluation = Evaluation(stage, self.held_out.split)
        to_devices([self.feed, self.held_out])
        self.compiled = compiled(
            self.program, self.feed, self.held_out, self.placement, self.together
        )
        self.require_loss(self.block.keep.partition(':')[2])
        self.grid = sample.Grid(stage, self.program, self.held_out.split)
        if self.first:
            self.announce()

    def require_loss(self, name):
        """Raise RunError for a validation loss that is not one, '' aside; nothing is computed."""
        if not name or name in [phase.loss for phase in self.program.phases]:
            return
        with contextlib.closing(self.held_out.batches(0, 1)) as batches:
            rows = next(batches)
        names = jax.eval_shape(self.compiled.losses, self.shapes, self.held_out.tables, rows, 0)
        if name not in names:
            raise RunError(
                f'stages.{self.name}.keep names {short(repr(name))}, but the validation losses are '
                f'{", ".join(names)}.'
            )

    def announce(self):
        """Print what is about to be trained, on what, and what the first minute is for."""
        if not self.program.phases or max(self.stage.saved_steps(), default=-1) >= self.total:
            return
        split, held_out, device = self.feed.split, self.held_out.split, self.mesh.devices.flat[0]
        trained = {network for phase in self.program.phases for network in phase.trains}
        arrays = jax.tree.leaves(core.pick(self.shapes.params, trained))
        pictures = f', {split.meta.size} px' if 'image' in split.fields else ''
        plan, without = self.feed.plan, '' if self.held_out.plan else ', without losses'
        # those without a caption that can be read are left out
        count = f'{plan.n:,} of {len(split):,}' if plan.n < len(split) else f'{plan.n:,}'
        print(
            f'Stage {self.name}: {count} records of {split.name} ({split.split}), '
            f'{len(held_out):,} held out ({held_out.split}{without}){pictures}; '
            f'{self.total:,} steps of {plan.batch_size} rows.'
        )
        shared = ''
        if self.mesh.size > 1:
            shared = f', {sharding.describe(self.mesh, self.shapes, self.placement)}'
        print(
            f'{sum(math.prod(x.shape) for x in arrays):,} parameters to train on '
            f'{self.mesh.size} x {device.device_kind}{shared}. Compiling takes about a minute the '
            'first time.',
            flush=True,
        )

    # ---------------------------------------------------------------------------------- resuming
    def resumed(self, checkpoints):
        """The newest whole checkpoint, or a fresh state with the weights of earlier stages."""
        found = checkpoints.restore(self.shapes)
        checkpoints.tidy()
        if found:
            step, state, extra = found
            for name, here in self.identity().items():
                # the position in the data is a function of these; old checkpoints lack the hash
                if extra.get(name, here) != here:
                    shrinks = ' (a batch shrinks to what the data and the devices allow)'
                    raise RunError(
                        f'The checkpoint of stage {self.name} was made with {name} {extra[name]}, '
                        f'here it is {here}: the data would not go on where they were. Put it back'
                        f'{shrinks if name == "batch_size" else ""}, or choose another --workdir.'
                    )
            if step < self.total:
                print(f'Stage {self.name}: resumed at step {step:,} of {self.total:,}.')
                if (old := checkpoints.surplus()) and self.first:
                    print(
                        f'Stage {self.name}: with keep_n={self.block.keep_n} the next save deletes '
                        f'{len(old)} checkpoints, of steps {min(old):,} to {max(old):,}. '
                        f'--config.stages.{self.name}.keep_n=-1 keeps all.'
                    )
            return state
        state = self.initial()
        params, stats = self.stage.loaded_weights(sharding.replicated(self.mesh))
        # those that the stage makes use of: by its keywords it may do without some
        params, stats = core.pick(params, state.params), core.pick(stats, state.stats)
        own, its = self.stage.first_weights(state, sharding.replicated(self.mesh))
        params, stats = {**own, **params}, {**its, **stats}
        averaged = core.pick(params, self.program.ema), core.pick(stats, self.program.ema)
        ema, ema_stats = jax.tree.map(jnp.copy, averaged)
        return state.replace(
            params={**state.params, **params},
            stats={**state.stats, **stats},
            ema={**state.ema, **ema},
            ema_stats={**state.ema_stats, **ema_stats},
        )

    def identity(self):
        """Return all that the position in the data depends on."""
        return dict(
            seed=self.stage.config.seed,
            batch_size=self.feed.plan.batch_size,
            records=len(self.feed.split),
            vocabulary=self.feed.split.vocabulary.hash[:12],
        )

    # ---------------------------------------------------------------------------------- the loop
    def loop(self, state, checkpoints):
        """Step, log, validate, sample, save, evaluate; after a stop signal save and leave."""
        block, start, together = self.block, int(state.step), self.together
        several, agreed = hosts.several(), False
        # with several hosts a stop signal may reach one only: all learn of it with the batch
        stop = (lambda: {'stop': bool(self.received())}) if several else None
        feed = self.feed.batches(start, self.total, together, stop)
        pending, in_flight, waited, since = [], collections.deque(), 0.0, time.monotonic()
        # the first dispatch compiles, which neither speeds nor the time left count
        logged, untimed = start, together
        with (
            contextlib.closing(feed) as batches,
            Progress(self.total, start, self.name) as bar,
            memory.reuse() as reuse,
        ):
            if start == 0:
                self.write_samples(0, state)
            for step in range(start + together, self.total + 1, together):
                self.validation, before = {}, time.monotonic()
                rows = next(batches)
                waited += time.monotonic() - before
                state, metrics = self.compiled.step(state, self.feed.tables, rows)
                if step == start + together:
                    jax.block_until_ready(metrics)
                    reuse()
                    bar.restart(step)
                    waited, since = 0.0, time.monotonic()
                # two steps ahead of the device keep it busy; more would only delay signals
                in_flight.append(metrics)
                if len(in_flight) > 2:
                    done = jax.block_until_ready(in_flight.popleft())
                    agreed = several and np.asarray(done['stop']).any()
                pending.append({name: x for name, x in metrics.items() if name != 'stop'})
                if len(pending) == WAITING:
                    pending = [joined(pending)]

                if self.due(step, block.log_every):
                    means = mean_of(pending)
                    self.require_finite(state, checkpoints)
                    spent, timed = time.monotonic() - since, step - logged - untimed
                    speed = timed * self.feed.plan.batch_size / spent if timed else None
                    speeds = {'images_per_s': speed, 'data_wait': waited / spent if timed else None}
                    self.write(step, means | speeds, 'train/')
                    bar.update(step - logged, means, speed)
                    pending, logged, untimed = [], step, 0
                    waited, since = 0.0, time.monotonic()
                aside = time.monotonic()
                self.calls.step(self.name, step)
                stopped = self.stopped(agreed)
                self.pause(step, state, checkpoints, stopped)
                # images/s are those of training alone
                since += time.monotonic() - aside
                if self.calls.stopped:
                    return
                if stopped and step != self.total:
                    raise Interrupted(
                        f'{stopped}: stage {self.name} is saved at step {step:,} of '
                        f'{self.total:,}. {self.resume}'
                    )

    def pause(self, step, state, checkpoints, stopped):
        """Do what is due between two steps: validate, sample, save, evaluate."""
        block = self.block
        validates = self.due(step, block.validate_every)
        samples = self.due(step, block.sample_every)
        saves = self.due(step, block.checkpoint_every) or stopped
        evaluates = self.evaluate_every and self.due(step, self.evaluate_every)
        if not (validates or samples or saves or evaluates):
            return
        self.require_finite(state, checkpoints)
        state = settled(self.program, self.compiled, state, self.feed)
        if validates and self.held_out.plan:
            self.validate(step, state)
        if samples:
            self.write_samples(step, state)
        if saves:
            self.log.flush()
            self.save(step, state, checkpoints, wait=bool(step == self.total or stopped))
        if evaluates:
            self.evaluate(step, state)
        if samples or evaluates:
            self.write_curves()

    def due(self, step, every) -> bool:
        return step == self.total or bool(every) and step % every == 0

    def stopped(self, agreed) -> str | None:
        """The stop signal that this process, or with several all of them, act upon now."""
        received = self.received()
        if not hosts.several():
            return received
        return (received or 'Another process received a stop signal') if agreed else None

    def received(self) -> str | None:
        """The stop signal of this process, or what its caller returned."""
        return self.signals.received or self.calls.stopped or None

    def require_workdir(self):
        """Raise RunError where the workdir was taken away: a save would make half a run there."""
        workdir = self.stage.workdir
        if self.first and not (workdir / 'config.json').exists():
            raise RunError(
                f'workdir {quoted(workdir)} was moved or removed while stage {self.name} was '
                'trained, and nothing more can be saved there. Put it back and resume, or begin '
                'again with --config=<experiment>.'
            )

    def require_finite(self, state, checkpoints):
        """Stop the run where a save has failed, or where a loss or gradient was not finite.

        Nothing after that step has changed the state. Raises RunError.
        """
        self.require_workdir()
        checkpoints.check()
        bad = int(state.bad_step)
        if bad < 0:
            return
        phase = self.program.phases[int(state.bad_phase)].loss
        checkpoints.wait()
        good = checkpoints.steps()
        last = (
            f'The last good checkpoint is step {good[0]:,}' if good else 'No checkpoint exists yet'
        )
        raise RunError(
            f'Stage {self.name}, step {bad + 1:,}: the loss of phase {phase}, its gradient or its '
            f'update is not finite. {last}; no later state was saved. Lower '
            f'stages.{self.name}.optim.{phase}.lr, clip gradients (clip=...), or use '
            'dtype=float32, in another --workdir.'
        )

    def save(self, step, state, checkpoints, wait=False):
        extra = self.identity() | {'total': self.total}
        checkpoints.save(step, state, extra, self.validation or None, wait=wait)

    def write(self, step, metrics, prefix):
        """Log numbers, and pass them to the caller of `train`."""
        self.log.write(step, metrics, prefix)
        if self.first:
            self.calls.log(self.name, step, {prefix + name: x for name, x in metrics.items()})

    def validate(self, step, state):
        """Log the losses on the held-out split, with the averaged parameters."""
        batches = self.batches_of_validation(self.held_out.plan)
        self.validation = validated(self.compiled, state, self.held_out, batches)
        self.write(step, self.validation, 'validation/')

    def write_samples(self, step, state):
        """Write the sample grid."""
        weights = self.sampling_weights(state)
        if weights:
            picture = self.grid.write(step, *weights)
            if picture is not None:
                self.log.image(step, 'samples', picture)
                self.calls.samples(self.name, step, picture)

    def write_curves(self):
        """Draw all that was logged so far, <stage>/curves.png."""
        if self.first:
            lines = (self.stage.folder / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
            save_curves(lines, self.stage.folder / 'curves.png', PANELS)

    def evaluate(self, step, state):
        """Log the evaluation on fewer pictures, as `eval.every` says."""
        weights = self.sampling_weights(state)
        if not weights:
            return
        try:
            self.write(step, self.evaluation(self.grid.sampler(*weights, CHUNK)), 'evaluation/')
        except ValueError as error:
            # pictures that are not finite, all alike, ...: training goes on
            print(f'\nStep {step:,} cannot be evaluated: {error}')

    def sampling_weights(self, state):
        """(parameters, statistics) on one device; None on other hosts and if nothing is drawn."""
        if not self.grid.draws:
            return None
        # by all hosts, since each may have a part; the first one draws
        weights = self.compiled.replicate((state.sampling_params(), state.sampling_stats()))
        return None if not self.first else jax.tree.map(lambda x: x.addressable_data(0), weights)


def report(run: Run):
    """Print where everything is, and what to do next."""
    place, trained = quoted(run.workdir), f'{run.config.system} on {run.config.data.name}'
    print(f'\nTrained: {trained}. It is all in {place}:')
    for stage in run.stages:
        if stage.adopted:
            continue
        grids = sorted((stage.folder / 'samples').glob('*.png'))
        checkpoints, losses = stage.folder / 'checkpoints', stage.folder / 'metrics.jsonl'
        last = f', last sample grid {quoted(grids[-1])}' if grids else ''
        print(f'  {stage.name}: checkpoints {quoted(checkpoints)}, losses {quoted(losses)}{last}')
    board = f', or tensorboard --logdir={place}' if importlib.util.find_spec('tensorboard') else ''
    print(f'  curves: curves.png there{board}')
    again = f't2i_jax --workdir={place}'
    if not any(stage.makes_any(sample.DRAWN) for stage in run.stages):
        return print(f'  numbers: {again} --mode=evaluate')
    print(f'  samples: {again} --mode=sample{sample.example_flag(run.last(sample.DRAWN).module)}')
