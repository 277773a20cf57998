"""The training loop, readable from top to bottom: data, step, log, validate, sample, save.

One loop serves every stage of every system. What a step does is stage.py's; what a batch is, data.py's.
"""

import collections
import contextlib
import functools
import itertools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from t2i_jax import run
from t2i_jax import stage as core
from t2i_jax.data import conditions, feed
from t2i_jax.data import plan as data
from t2i_jax.data.augment import augment
from t2i_jax.data.feed import Asked
from t2i_jax.data.tables import Split, device_tables
from t2i_jax.data.text import Vocabulary
from t2i_jax.draw import boxes as drawing
from t2i_jax.draw import sheets
from t2i_jax.evaluate import evaluate
from t2i_jax.runtime import files, hosts, lock, log, sharding, terminal
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.runtime.signals import Interrupted, Signals
from t2i_jax.sample import TEXT, Sampler, to_uint8

SHOWN = 8  # captions of a sample grid
SAMPLES = 7  # samples of each
AUGMENT = (
    0x617567  # folded into a step's key for the augmentation, so that no key of a stage is the same
)
SETTLE = 50  # batches after which running statistics fit the averaged parameters: 0.9 ** 50 of the old ones is left


def train(config, workdir, devices=None):
    """Trains the stages of a system in order, or resumes where an earlier process stopped. Raises RunError or DataError.

    devices: those to train on; None: all.
    """
    workdir = pathlib.Path(workdir)
    with (
        files.writes(workdir),
        lock.Lock(workdir) if jax.process_index() == 0 else contextlib.nullcontext(),
        Signals() as signals,
    ):
        run.claim(config, workdir)
        hosts.same_run(workdir, run.to_json(config))
        mesh = sharding.make_mesh(config.mesh.fsdp, devices)
        for name in run.stage_names(config):
            run.steps_per_dispatch(
                config, name
            )  # what is wrong with a later stage is told before the first is trained
            if not config.init.get(name) and not run.has_checkpoints(workdir, name):
                run.system(config.system).STAGES[name].check(run.plain(config.stages[name].model))
        for name in run.stage_names(config):
            if config.init.get(name):
                if jax.process_index() == 0:
                    run.adopt(config, workdir, name)
                hosts.together(f'{name} is adopted')
                print(f'Stage {name}: taken from {config.init[name]}.')
                continue
            Trainer(config, workdir, name, mesh, signals).train()
    if jax.process_index() == 0:
        report(config, workdir)


class NoLog(contextlib.AbstractContextManager):
    """For the hosts that leave the log to the first one."""

    def write(self, *_):
        pass

    def flush(self):
        pass

    def __exit__(self, *_):
        pass


class Trainer:
    """One stage of one run: its data, its program and its state."""

    def __init__(self, config, workdir, name, mesh, signals):
        self.config, self.workdir, self.name, self.mesh, self.signals = (
            config,
            workdir,
            name,
            mesh,
            signals,
        )
        self.block, self.folder = config.stages[name], workdir / name
        self.validation = {}  # losses of the step that is being saved
        self.together = run.steps_per_dispatch(config, name)
        sharding.check_batch(self.block.batch_size, mesh, name)

    def train(self):
        if self.finished():
            print(f'Stage {self.name}: finished, {self.block.steps:,} steps.')
            return
        self.open_data()
        self.leave_if_asked()
        self.open_model()
        if self.mesh.size > 1 and jax.process_index() == 0:
            print(
                f'Stage {self.name}: {sharding.describe(self.mesh, self.shapes, self.place)}.',
                flush=True,
            )
        self.leave_if_asked()
        checkpoints = run.checkpoints(self.config, self.workdir, self.name)
        try:
            state = self.start(checkpoints)
            if not self.prog.phases:  # nothing to train: sampling needs what it loads
                self.save(0, state, checkpoints, wait=True)
            if int(state.step) >= self.total:
                print(f'Stage {self.name}: finished, {self.total:,} steps.')
            else:
                with (
                    log.Log(self.folder, int(state.step))
                    if jax.process_index() == 0
                    else NoLog() as self.log
                ):
                    self.loop(state, checkpoints)
        except BaseException as error:
            if not hosts.several() or isinstance(
                error, Interrupted
            ):  # else a save may wait for other hosts, which will not come
                checkpoints.close()
            raise
        checkpoints.close()

    def finished(self):
        """Whether there is a whole checkpoint of the last step, as far as that can be known without reading the data."""
        newest = max(run.saved_steps(self.workdir, self.name), default=-1)
        if not hosts.all_say(
            0 < self.block.steps <= newest and (self.workdir / 'vocabulary.json').exists()
        ):
            return False
        try:
            return (
                run.restore(
                    self.config, self.workdir, self.name, newest, sharding.replicated(self.mesh)
                )[0]
                >= self.block.steps
            )
        except RunError as error:  # what can be done about it is done with the data
            logging.warning('%s', error)
            return False

    def leave_if_asked(self):
        if self.signals.received and not hosts.several():  # several hosts agree on it at a step
            raise Interrupted(
                f'{self.signals.received}: stage {self.name} had not begun; what was saved before is kept. '
                f'Resume with: python -m t2i_jax.main --workdir={self.workdir}'
            )

    # ------------------------------------------------------------------------------------------------------------ opening
    def open_data(self):
        config, block = self.config, self.block
        nominal = functools.cache(
            lambda name: run.abstract(config, self.workdir, name, run.nominal_meta(config, name))
        )
        needs, advice = nominal(self.name).needs, nominal(self.name).advice
        path = self.workdir / 'vocabulary.json'
        vocabulary = None
        if path.exists():
            try:
                vocabulary = Vocabulary.load(path)
            except DataError as error:  # `start` compares it with the checkpoint's
                logging.warning('%s It is made again from the data.', error)
        made = vocabulary is None
        if vocabulary is None and any(
            'dialog' in nominal(name).needs for name in run.stage_names(config)
        ):
            vocabulary = Split(
                config.data, config.data.split, ('dialog',)
            ).vocabulary  # one for all stages, with the dialogues' words
        self.data = {**config.data, **block.data}
        self.split = Split(config.data, config.data.split, needs, vocabulary, block.data, advice)
        if made and jax.process_index() == 0:
            self.split.vocabulary.save(path)
        self.vocabulary = self.split.vocabulary
        self.held_out = Split(
            config.data, config.data.validation_split, needs, self.vocabulary, block.data
        )
        self.meta = self.split.meta
        if run.has_checkpoints(self.workdir, self.name):
            try:
                trained = run.read_meta(self.workdir, self.name)
            except RunError as error:
                trained = self.meta
                logging.warning('%s It is written again.', error)
            run.same_sizes(trained, self.meta, f'Stage {self.name}')
        if jax.process_index() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self.folder / 'meta.tmp'  # other hosts may be reading what is there
            temporary.write_text(json.dumps(self.meta._asdict(), indent=2) + '\n')
            temporary.replace(self.folder / 'meta.json')
        self.plan = data.Plan(
            self.split,
            block.batch_size,
            config.seed,
            needs,
            block.sampler,
            self.meta.captions,
            block.captioned_share,
            block.near_wrong,
        )
        self.validation_plan = self.plan_of_validation(needs)
        self.total = run.total_steps(
            config, self.name, nominal(self.name), self.plan.steps_per_epoch
        )
        self.cache = self.data['cache']

    def batches(self, start):
        """The rows of each dispatch from step `start` on, as global arrays; of several steps stacked. Close it when leaving early."""
        share = jax.process_index(), jax.process_count()
        rows = feed.batches(
            self.split, self.plan, start, self.total, self.cache, self.data['workers'], share
        )
        try:
            for first in rows:
                parts = [first, *itertools.islice(rows, self.together - 1)]
                if (
                    hosts.several()
                ):  # a signal may have come to one host only: told to all with the batch
                    stop = bool(self.signals.received)
                    parts = [
                        part | {'stop': np.full(len(part['index']), stop, np.int32)}
                        for part in parts
                    ]
                stacked = self.together > 1
                yield sharding.put_rows(
                    self.mesh,
                    jax.tree.map(lambda *x: np.stack(x), *parts) if stacked else parts[0],
                    stacked,
                )
        finally:
            rows.close()

    def plan_of_validation(self, needs):
        """As the training plan, with a batch that the held-out split can fill; None where it is too small for the devices."""
        block, size = (
            self.block,
            min(self.block.batch_size, len(data.records(self.held_out, needs, self.block.sampler))),
        )
        if block.keep.startswith('best:') and (
            not block.validate_every or block.checkpoint_every % block.validate_every
        ):
            raise RunError(
                f'stages.{self.name}.keep={block.keep} compares checkpoints by their validation losses: '
                'set validate_every to a number that divides checkpoint_every.'
            )
        if self.block.sampler == 'distinct_classes':
            size = min(size, len(np.unique(self.held_out.tables['label'])))
        size -= size % max(self.mesh.size, 2)  # even: GAN-INT pairs the rows of a batch
        if not size or not self.block.validate_every:
            return None
        return data.Plan(
            self.held_out,
            size,
            0,
            needs,
            self.block.sampler,
            self.meta.captions,
            self.block.captioned_share,
        )

    def open_model(self):
        self.module = run.abstract(self.config, self.workdir, self.name, self.meta)
        self.prog = prog = run.make_program(
            self.config, self.name, self.module, self.plan.steps_per_epoch
        )
        self.init = run.fresh_state(self.config, self.workdir, self.name, self.meta, prog)
        shapes = jax.eval_shape(self.init)
        self.place = sharding.state_shardings(self.mesh, shapes)
        self.shapes = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, self.place
        )
        draws = (
            type(self.module).sample is not core.Stage.sample and 'image' in self.held_out.fields
        )
        self.evaluate_every = self.config.get('eval', {}).get('every', 0) if draws else 0
        if (
            self.evaluate_every and jax.process_index() == 0
        ):  # now, so that what it lacks is known before the first step
            self.evaluation = evaluate.During(self.config, self.held_out)
        mesh, everywhere = self.mesh, sharding.replicated(self.mesh)
        self.tables, self.held_out_tables = (
            device_tables((self.split, self.held_out), everywhere)
            if self.cache == 'device'
            else ({}, {})
        )

        def batch_of(tables, rows, step, key, training):
            raw = feed.gather(tables, rows, self.split.wrong_fields) if tables else rows
            return augment(raw, jax.random.fold_in(key, AUGMENT), self.split.geometry, training) | {
                'step': step
            }

        def one_step(state, tables, rows):
            key = jax.random.fold_in(jax.random.key(state.seed), state.step)
            with sharding.traced_for(mesh):
                state, metrics = core.train_step(
                    prog, state, batch_of(tables, rows, state.step, key, True)
                )
            return state, metrics | ({'stop': rows['stop'].max()} if 'stop' in rows else {})

        @functools.partial(jax.jit, donate_argnums=0, out_shardings=(self.place, everywhere))
        def step(state, tables, rows):
            if self.together == 1:
                return one_step(state, tables, rows)
            return jax.lax.scan(lambda state, rows: one_step(state, tables, rows), state, rows)

        @jax.jit
        def losses(state, tables, rows, index):
            key = jax.random.fold_in(jax.random.key(0), index)
            with sharding.traced_for(mesh):
                return core.validation_losses(
                    prog, state, batch_of(tables, rows, state.step, key, False), key
                )

        @jax.jit
        def settle(state, tables, rows, index):
            key = jax.random.fold_in(jax.random.key(state.seed), index)
            with sharding.traced_for(mesh):
                return core.settle(prog, state, batch_of(tables, rows, state.step, key, True), key)

        self.settle = settle
        self.step, self.losses, self.whole = (
            step,
            losses,
            jax.jit(lambda tree: tree, out_shardings=everywhere),
        )

    def start(self, checkpoints):
        """The state to go on from: the newest whole checkpoint, or a fresh one with the weights of earlier stages."""
        found = checkpoints.restore(self.shapes)
        if found:
            step, state, extra = found
            # the position in the data is a function of the first three; checkpoints of older runs lack the hash
            for name, here in (
                ('seed', self.config.seed),
                ('batch_size', self.block.batch_size),
                ('records', len(self.split)),
                ('vocabulary', self.vocabulary.hash[:12]),
            ):
                if extra.get(name, here) != here:
                    raise RunError(
                        f'The checkpoint of stage {self.name} was made with {name} {extra[name]}, here it is {here}: the data would '
                        'not go on where they were. Put it back, or choose another --workdir.'
                    )
            checkpoints.tidy()
            if step < self.total:
                print(f'Stage {self.name}: resumed at step {step:,} of {self.total:,}.')
            return state
        checkpoints.tidy()
        state = jax.jit(self.init, out_shardings=self.place)()
        params, stats = run.loaded_weights(
            self.config, self.workdir, self.name, self.vocabulary, sharding.replicated(self.mesh)
        )
        ema, ema_stats = jax.tree.map(
            jnp.copy, (core.pick(params, self.prog.ema), core.pick(stats, self.prog.ema))
        )
        return state.replace(
            params={**state.params, **params},
            stats={**state.stats, **stats},
            ema={**state.ema, **ema},
            ema_stats={**state.ema_stats, **ema_stats},
        )

    # --------------------------------------------------------------------------------------------------------------- the loop
    def loop(self, state, checkpoints):
        block, start = self.block, int(state.step)
        together, several, agreed = self.together, hosts.several(), False
        pending, in_flight, waited, since = [], collections.deque(), 0.0, time.monotonic()
        with (
            contextlib.closing(self.batches(start)) as batches,
            terminal.progress(self.total, start, self.name) as progress,
        ):
            if start == 0:
                self.draw(0, state)
            for step in range(start + together, self.total + 1, together):
                self.validation, asked = {}, time.monotonic()
                rows = next(batches)
                waited += time.monotonic() - asked
                state, metrics = self.step(state, self.tables, rows)
                # two steps ahead of the device are enough to keep it busy; more would only delay signals
                in_flight.append(metrics)
                if len(in_flight) > 2:
                    done = jax.block_until_ready(in_flight.popleft())
                    agreed = (
                        several and np.asarray(done['stop']).any()
                    )  # what all hosts read at the same step
                pending.append({name: value for name, value in metrics.items() if name != 'stop'})

                last, due = step == self.total, functools.partial(self.due, step)
                if due(block.log_every):
                    means = mean_of(pending)
                    self.check(state, checkpoints)
                    spent = time.monotonic() - since
                    speed = len(pending) * together * block.batch_size / spent
                    self.log.write(
                        step,
                        {**means, 'images_per_s': speed, 'data_wait': waited / spent},
                        'train/',
                    )
                    progress.update(len(pending) * together, means, speed)
                    pending, waited, since = [], 0.0, time.monotonic()
                aside = time.monotonic()
                stop = (
                    self.signals.received
                    if not several
                    else (self.signals.received or 'Another process was told to end')
                    if agreed
                    else None
                )
                evaluates = self.evaluate_every and due(self.evaluate_every)
                if (
                    due(block.validate_every)
                    or due(block.sample_every)
                    or due(block.checkpoint_every)
                    or evaluates
                    or stop
                ):
                    self.check(state, checkpoints)
                    settled = self.settled(state)
                    if self.validation_plan and due(block.validate_every):
                        self.validate(step, settled)
                    if due(block.sample_every):
                        self.draw(step, settled)
                    if due(block.checkpoint_every) or stop:
                        self.log.flush()
                        self.save(step, settled, checkpoints, wait=last or stop)
                    if evaluates:
                        self.evaluate(step, settled)
                    del settled
                since += time.monotonic() - aside  # images/s are those of training alone
                if stop and not last:
                    raise Interrupted(
                        f'{stop}: stage {self.name} is saved at step {step:,} of {self.total:,}. '
                        f'Resume with: python -m t2i_jax.main --workdir={self.workdir}'
                    )

    def due(self, step, every):
        return step == self.total or (every and step % every == 0)

    def check(self, state, checkpoints):
        """Stops the run where a save has failed, or where a loss or gradient was not finite: nothing after that step has changed the state."""
        checkpoints.check()
        bad = int(state.bad_step)
        if bad >= 0:
            phase = self.module.phases[int(state.bad_phase)].loss
            checkpoints.wait()
            good = checkpoints.steps()
            kept = (
                f'The last good checkpoint is step {good[0]:,}'
                if good
                else 'There is no checkpoint yet'
            )
            raise RunError(
                f'Stage {self.name}, step {bad + 1:,}: the loss of phase {phase}, its gradient or its update is not finite. {kept}; '
                f'no later state was saved. Lower stages.{self.name}.optim.{phase}.lr, clip gradients (clip=...), or use '
                'dtype=float32, in another --workdir.'
            )

    def settled(self, state):
        """The state with running statistics that fit its averaged parameters; a function of the state alone."""
        if (
            not self.prog.decay or not self.prog.forward
        ):  # no average, or no forward pass to estimate them by: those of training
            return state.replace(ema_stats=core.pick(state.stats, self.prog.ema))
        if not jax.tree.leaves(state.ema_stats):
            return state
        share = jax.process_index(), jax.process_count()
        rows = feed.batches(
            self.split, self.plan, 0, SETTLE, self.cache, self.data['workers'], share
        )
        state = state.replace(ema_stats=core.pick(state.stats, self.prog.ema))
        for index, part in enumerate(rows):
            state = state.replace(
                ema_stats=self.settle(state, self.tables, sharding.put_rows(self.mesh, part), index)
            )
        return state

    def save(self, step, state, checkpoints, wait=False):
        extra = dict(
            seed=self.config.seed,
            batch_size=self.block.batch_size,
            records=len(self.split),
            vocabulary=self.vocabulary.hash[:12],
            total=self.total,
        )
        checkpoints.save(step, state, extra, self.validation or None, wait=bool(wait))

    def validate(self, step, state):
        """The phases' losses on the held-out split, with the averaged parameters."""
        plan, each = self.validation_plan, self.block.validate_batches
        count = min(each, plan.steps_per_epoch) if each else plan.steps_per_epoch
        share = jax.process_index(), jax.process_count()
        rows = feed.batches(self.held_out, plan, 0, count, self.cache, self.data['workers'], share)
        found = [
            self.losses(state, self.held_out_tables, sharding.put_rows(self.mesh, r), i)
            for i, r in enumerate(rows)
        ]
        self.validation = mean_of(found)
        name = self.block.keep.partition(':')[2]
        if name and name not in self.validation:
            raise RunError(
                f'stages.{self.name}.keep names {name!r}, but the validation losses are {", ".join(self.validation)}.'
            )
        self.log.write(step, self.validation, 'validation/')

    def draw(self, step, state):
        """The sample grid: fixed captions (attributes, label sets) of the held-out split, fixed noise, the real pictures or layouts beside them."""
        sampler = self.sampler(state, SHOWN * SAMPLES)
        if sampler is None:
            return
        if not hasattr(self, 'shown'):
            self.shown = self.rows_to_show()
        batch, labels, real = self.shown
        if labels:  # each sentence with the same few noises
            noise = {
                name: np.tile(np.asarray(x), (SHOWN,) + (1,) * (x.ndim - 1))
                for name, x in self.module.noise(jax.random.key(0), SAMPLES).items()
            }
        else:
            noise = self.module.noise(jax.random.key(0), SHOWN * SAMPLES)
        out = sampler.draw(
            jax.tree.map(lambda x: np.repeat(x, SAMPLES, 0), batch), noise, (SHOWN, SAMPLES)
        )
        pictures = drawing.pictures_of(out, self.meta)
        if pictures is not None:
            if 'image' not in out:
                real = drawing.pictures_of(
                    {name: batch[name] for name in ('boxes', 'object_labels') if name in batch},
                    self.meta,
                )
            picture = sheets.sheet(
                pictures,
                labels,
                self.folder / 'samples' / f'{step:08d}.png',
                real=real,
                title=f'{self.name}, step {step:,}',
            )
            self.log.image(step, 'samples', picture)

    def evaluate(self, step, state):
        """The evaluation on fewer pictures, as `eval.every` asks."""
        sampler = self.sampler(state, evaluate.CHUNK)
        if sampler is None:
            return
        try:
            self.log.write(step, self.evaluation(sampler), 'evaluation/')
        except (
            ValueError
        ) as error:  # pictures that are not finite, all alike, ...: training goes on
            print(f'\nStep {step:,} cannot be evaluated: {error}')

    def sampler(self, state, chunk):
        """What draws with the averaged weights of a state, `chunk` rows at a time; None on other hosts and for stages that draw nothing."""
        if type(self.module).sample is core.Stage.sample:
            return None
        weights = self.whole(
            (state.sampling_params(), state.sampling_stats())
        )  # by all hosts, since each may have a part; the first draws
        if jax.process_index():
            return None
        params, stats = jax.tree.map(lambda x: x.addressable_data(0), weights)
        sampler = Sampler(
            self.prog, self.module, params, stats, self.vocabulary, self.meta, chunk=chunk
        )
        self.compiled = getattr(
            self, 'compiled', sampler._apply
        )  # one for all samplers, so that it is compiled once
        sampler._apply = self.compiled
        return sampler

    def rows_to_show(self):
        """(batch, captions, real pictures) of a few records of the held-out split, spread over it. Captions are what the system draws from:
        sentences, attributes or label sets; None for one that draws from nothing."""
        rows = np.linspace(0, len(self.held_out) - 1, SHOWN).astype(np.int32)
        batch = Asked(self.held_out, rows, np.zeros((SHOWN, self.meta.captions), np.int32)).batch(
            0, SHOWN
        )
        texts = [self.held_out.texts[i] for i in rows]
        labels = conditions.captions_of(
            batch, self.meta, texts if TEXT & set(self.module.needs) else None
        )
        real = np.asarray(to_uint8(batch['image'])) if 'image' in batch and labels else None
        return batch, labels, real


def mean_of(metrics):
    """Mean over steps of a list of {name: scalar, or one of several steps}; NaN (a phase that did not run) is left out."""
    found = jax.device_get(metrics)
    out = {}
    for name in dict.fromkeys(name for one in found for name in one):
        values = np.concatenate([np.ravel(one[name]) for one in found if name in one]).astype(
            np.float64
        )
        out[name] = float(np.nanmean(values)) if not np.isnan(values).all() else float('nan')
    return out


def report(config, workdir):
    """Where everything is."""
    print(f'\nTrained: {config.system} on {config.data.name}. Everything is in {workdir}:')
    for name in run.stage_names(config):
        if config.init.get(name):
            continue
        grids = sorted((workdir / name / 'samples').glob('*.png'))
        found = [
            f'checkpoints {workdir / name / "checkpoints"}',
            f'losses {workdir / name / "metrics.jsonl"}',
        ]
        print(
            f'  {name}: ' + ', '.join(found + ([f'last sample grid {grids[-1]}'] if grids else []))
        )
    needs = set(run.abstract(config, workdir, name, run.nominal_meta(config, name)).needs)
    flag = next(
        (
            f' --{flag}="..."'
            for flag, keys in (
                ('text', TEXT),
                ('attributes', {'attributes'}),
                ('labels', {'object_labels'}),
            )
            if keys & needs
        ),
        '',
    )
    print(f'  curves: tensorboard --logdir={workdir}')
    stages = run.system(config.system).STAGES
    if all(stages[name].sample is core.Stage.sample for name in run.stage_names(config)):
        return print(f'  numbers: python -m t2i_jax.main --workdir={workdir} --mode=evaluate')
    print(f'  pictures: python -m t2i_jax.main --workdir={workdir} --mode=sample{flag}')
