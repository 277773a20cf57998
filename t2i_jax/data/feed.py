"""Batches of fixed shapes from a split: by a plan, step by step, or of records that are named."""

import contextlib
import functools
import multiprocessing
import os
import threading
from typing import NamedTuple

import grain
import jax
import numpy as np
from absl import flags

from t2i_jax.data.augment import augment
from t2i_jax.data.plan import Plan
from t2i_jax.data.tables import PER_CAPTION, Split
from t2i_jax.runtime import signals
from t2i_jax.runtime.errors import DataError


def gather(tables, plan, wrong_fields=()):
    """The rows of a plan, from tables in host or device memory. Keys as `augment` reads them; `wrong_` ones of `wrong_fields`."""
    raw = {}
    wrong = {
        name: tables[name]
        for name in (*wrong_fields, *(('extent',) if 'image' in wrong_fields else ()))
        if name in tables
    }
    for prefix, part, index, caption in (
        ('', tables, 'index', 'caption'),
        ('wrong_', wrong, 'wrong', 'wrong_caption'),
    ):
        for name, table in part.items():
            raw[prefix + name] = (
                table[plan[index][:, None], plan[caption]]
                if name in PER_CAPTION
                else table[plan[index]]
            )
    return raw


class Load:
    """A step -> this host's part of its plan, with the pictures where they are decoded for each batch. It can be pickled."""

    def __init__(self, plan, share, pictures=None, wrong_fields=()):
        self.plan, self.share, self.pictures, self.wrong_fields = (
            plan,
            share,
            pictures,
            wrong_fields,
        )

    def __setstate__(self, state):
        self.__dict__.update(state)
        if (
            parent := multiprocessing.parent_process()
        ):  # a worker: where the run is killed, it goes, too
            threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()

    def __call__(self, step):
        part, parts = self.share
        size = self.plan.batch_size // parts
        rows = {
            name: value[part * size : (part + 1) * size]
            for name, value in self.plan(int(step)).items()
        }
        if not self.pictures:
            return rows, {}
        wrong = [name for name in self.wrong_fields if name in self.pictures.fields]
        wrong = self.pictures.rows(rows['wrong'], wrong) if wrong else {}
        return rows, self.pictures.rows(rows['index']) | {
            f'wrong_{name}': table for name, table in wrong.items()
        }


def batches(split: Split, plan: Plan, start, stop, cache, workers=0, share=(0, 1)):
    """Iterator over the steps start..stop-1, prefetched: plans with `cache='device'`, else gathered batches.

    workers: processes that decode pictures, with cache='none'; 0: threads of this process. share: (i, n): of each batch the i-th of n parts,
    for a host among several. Batches depend on neither. Close it (`.close()`) when leaving early.
    """
    if cache not in ('device', 'host', 'none'):
        raise DataError(f'data.cache is {cache!r}; it is device, host or none.')
    pictures = split.pictures if split.lazy else None
    load, tables = Load(plan, share, pictures, split.wrong_fields), split.kept()
    options = grain.ReadOptions(num_threads=os.cpu_count(), prefetch_buffer_size=4)

    def finish(loaded):
        rows, drawn = loaded
        return rows if cache == 'device' else gather(tables, rows, split.wrong_fields) | drawn

    steps = grain.MapDataset.range(start, stop)
    if pictures and workers:
        if (
            not flags.FLAGS.is_parsed()
        ):  # Grain reads flags of its own in the workers, in notebooks and scripts, too
            flags.FLAGS.mark_as_parsed()
        one_each = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        return by_processes(
            iter(steps.map(load).to_iter_dataset(one_each).mp_prefetch(options).map(finish))
        )
    return iter(steps.map(lambda step: finish(load(step))).to_iter_dataset(options))


def by_processes(rows):
    """The same, from processes that no signal to all reaches: they are begun with the first batch. Raises DataError where one of them dies."""
    with contextlib.closing(rows):
        try:
            with signals.withheld():
                first = next(rows, None)
            if first is not None:
                yield first
            yield from rows
        except RuntimeError as error:
            if 'Worker process was terminated' not in str(error):
                raise
            raise DataError(
                'A process that decodes pictures has ended, or was ended: for want of memory? What was saved is kept. Set a lower '
                '--config.data.workers (0: threads of the main process), and the same command goes on from there.'
            ) from None


CHUNK = 100  # pictures at a time


class Asked(NamedTuple):
    """What is drawn: rows of a split, with one caption each or a few."""

    split: Split
    rows: np.ndarray
    captions: np.ndarray

    def batch(self, start, stop):
        """Batch keys as stages read them, without mirroring and random crops."""
        rows = self.rows[start:stop].astype(np.int32)
        plan = {'index': rows, 'caption': self.captions[start:stop]}
        raw = gather(self.split.kept(), plan) | (
            self.split.pictures.rows(rows) if self.split.lazy else {}
        )
        return jax.tree.map(np.asarray, _centred(raw, jax.random.key(0), self.split.geometry))

    @property
    def texts(self):
        return [
            self.split.texts[row][which[0]] if self.split.texts[row] else ''
            for row, which in zip(self.rows, self.captions)
        ]

    def of(self, name):
        """A table's rows; facts are those of the first caption of each."""
        table = self.split.tables[name][self.rows]
        return table[np.arange(len(self.rows)), self.captions[:, 0]] if name == 'facts' else table


@functools.partial(jax.jit, static_argnums=2)
def _centred(raw, key, geometry):
    return augment(raw, key, geometry, False)


def ask(split, num, in_row=1, captions=1):
    """`num` rows of a split: `captions` rows for each record, each with other captions, `in_row` in each; going round where there are fewer."""
    number = np.arange(num)
    rows, lap = number // captions % len(split), number // (captions * len(split))
    counts = np.array([max(1, len(split.texts[row])) for row in rows])
    first = rows + number % captions + captions * lap
    return Asked(split, rows, (first[:, None] + np.arange(in_row)) % counts[:, None])
