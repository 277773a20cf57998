"""From a split to batches: step by step by a plan, or of given records.

    feed = Feed(split, plan, mesh)
    for rows in feed.batches(0, 100):                  # on the device, prefetched
        batch = feed.batch(tables, rows, key, True)    # inside jit: gathered, augmented

With cache='device' the tables lie on the device and only plans travel.
"""

import contextlib
import functools
import itertools
import multiprocessing
import os
import threading
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from t2i_jax.data.augment import augment
from t2i_jax.data.choices import CACHES
from t2i_jax.data.fields import field
from t2i_jax.data.plan import Plan
from t2i_jax.data.tables import Split, device_tables
from t2i_jax.runtime import sharding, signals
from t2i_jax.runtime.errors import DataError, choose

# folded into the key of a step for the augmentation, so that no key of a stage equals it
AUGMENT = 0x617567
# records of one batch of `Rows`
CHUNK = 100


def gather(tables, rows, wrong_fields=()):
    """Gather rows from tables in host or device memory -> fields as `augment` reads them.

    rows: of a plan: 'index' (b,), 'caption' (b, n), and where needed 'wrong', 'wrong_caption'.
    wrong_fields: fields of the wrong records, which get the prefix `wrong_`.
    """
    wrong = [*wrong_fields, *(('extent',) if 'image' in wrong_fields else ())]
    wrong = {name: tables[name] for name in wrong if name in tables}
    raw = {}
    for prefix, part in (('', tables), ('wrong_', wrong)):
        index = rows.get('wrong' if prefix else 'index')
        for name, table in part.items():
            if field(name).per_caption:
                raw[prefix + name] = table[index[:, None], rows[prefix + 'caption']]
            else:
                raw[prefix + name] = table[index]
    return raw


def decoded(pictures, rows, wrong_fields=()):
    """Read and decode the pictures of rows -> fields as `gather` gives them."""
    wrong = [name for name in wrong_fields if name in pictures.fields]
    wrong = pictures.rows(rows['wrong'], wrong) if wrong else {}
    return pictures.rows(rows['index']) | {f'wrong_{name}': x for name, x in wrong.items()}


class Load:
    """step -> this host's part of its plan, with the pictures that are decoded for each batch.

    It can be pickled, for worker processes.
    """

    def __init__(self, plan, share, pictures=None, wrong_fields=()):
        self.plan, self.share = plan, share
        self.pictures, self.wrong_fields = pictures, wrong_fields

    def __setstate__(self, state):
        self.__dict__.update(state)
        if parent := multiprocessing.parent_process():
            # a worker ends when the run is killed
            end = threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True)
            end.start()

    def __call__(self, step):
        part, parts = self.share
        size = self.plan.batch_size // parts
        own = slice(part * size, (part + 1) * size)
        rows = {name: value[own] for name, value in self.plan(int(step)).items()}
        return rows, decoded(self.pictures, rows, self.wrong_fields) if self.pictures else {}


def host_batches(split: Split, plan: Plan, start, stop, cache, workers=0, share=(0, 1)):
    """Iterate over the steps start..stop-1, prefetched, in host memory.

    cache: with 'device' plans come, else gathered batches.
    workers: processes that decode pictures, with cache='none'; 0: threads of this process.
    share: (i, n), of each batch the i-th of n parts, for a host among several.

    Batches depend on neither workers nor share. Close the iterator when leaving early.
    """
    # late, since drawing loads nothing
    import grain

    choose('data.cache', cache, CACHES)
    pictures = split.pictures if split.lazy else None
    load, tables = Load(plan, share, pictures, split.wrong_fields), split.batch_tables()
    options = grain.ReadOptions(num_threads=os.cpu_count(), prefetch_buffer_size=4)

    def finish(loaded):
        rows, drawn = loaded
        return rows if cache == 'device' else gather(tables, rows, split.wrong_fields) | drawn

    steps = grain.MapDataset.range(start, stop)
    if pictures and workers:
        if not flags.FLAGS.is_parsed():
            # Grain reads flags of its own in the workers, in notebooks and scripts, too
            flags.FLAGS.mark_as_parsed()
        one_each = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        loaded = steps.map(load).to_iter_dataset(one_each).mp_prefetch(options)
        return by_processes(iter(loaded.map(finish)))
    return iter(steps.map(lambda step: finish(load(step))).to_iter_dataset(options))


def by_processes(rows):
    """Iterate over batches of worker processes, which start with the first batch.

    A signal to the process group does not reach them. Raises DataError where one of them dies.
    """
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
                'A process that decodes pictures has ended, or was ended: for want of memory? '
                'Saved steps are safe. Set a lower --config.data.workers (0: threads of the main '
                'process), and the same command goes on from there.'
            ) from None


class Feed:
    """The batches of a plan on the devices of a mesh.

    split, plan: what is read, in which order. mesh: devices that share the rows of a batch.
    cache, workers: as `host_batches`. tables: on the devices with cache='device', else {}.
    """

    def __init__(self, split: Split, plan: Plan, mesh, cache='host', workers=0):
        self.split, self.plan, self.mesh = split, plan, mesh
        self.cache, self.workers, self.tables = cache, workers, {}

    def batches(self, start, stop, together=1, extra=None):
        """Iterate over global arrays of rows of the steps start..stop-1.

        together: steps that are stacked, for a dispatch of several.
        extra: a function () -> {name: int32 scalar}, which is added to each row. Close the
        iterator when leaving early.
        """
        share = jax.process_index(), jax.process_count()
        steps = host_batches(self.split, self.plan, start, stop, self.cache, self.workers, share)
        with contextlib.closing(steps):
            for first in steps:
                parts = [first, *itertools.islice(steps, together - 1)]
                if extra:
                    parts = [part | spread(extra(), part) for part in parts]
                stacked = together > 1
                rows = jax.tree.map(lambda *x: np.stack(x), *parts) if stacked else parts[0]
                yield sharding.put_rows(self.mesh, rows, stacked)

    def batch(self, tables, rows, key, training):
        """Gather and augment rows, inside jit -> a batch as stages read it."""
        raw = gather(tables, rows, self.split.wrong_fields) if tables else rows
        key = jax.random.fold_in(key, AUGMENT)
        return augment(raw, key, self.split.geometry, training)


def to_devices(feeds):
    """Send the tables of feeds with cache='device' to the devices.

    Raises DataError where they have no room.
    """
    feeds = [feed for feed in feeds if feed.cache == 'device']
    if feeds:
        place = sharding.replicated(feeds[0].mesh)
        tables = device_tables([feed.split for feed in feeds], place)
        for feed, one in zip(feeds, tables):
            feed.tables = one


def spread(values, rows):
    return {name: np.full(len(rows['index']), x, np.int32) for name, x in values.items()}


class Rows(NamedTuple):
    """Given records of a split with the captions of each, for sampling and evaluation.

    rows: (n,) numbers of records. captions: (n, k) numbers of their captions.
    """

    split: Split
    rows: np.ndarray
    captions: np.ndarray

    def batch(self, start=0, stop=None):
        """The batch of some of the rows, without mirroring and random crops; numpy arrays."""
        index = self.rows[start:stop].astype(np.int32)
        rows = {'index': index, 'caption': self.captions[start:stop]}
        raw = gather(self.split.batch_tables(), rows)
        raw |= decoded(self.split.pictures, rows) if self.split.lazy else {}
        return jax.tree.map(np.asarray, _centred(raw, jax.random.key(0), self.split.geometry))

    def take(self, which) -> 'Rows':
        """Some of the rows: a slice, or their numbers."""
        return Rows(self.split, self.rows[which], self.captions[which])

    @property
    def texts(self) -> list[str]:
        """The first caption of each; '' where a record has none."""
        texts = [self.split.texts[row] for row in self.rows]
        return [text[which[0]] if text else '' for text, which in zip(texts, self.captions)]

    def of(self, name):
        """The rows of a table; of facts those of the first caption of each."""
        table = self.split.tables[name][self.rows]
        return table[np.arange(len(self.rows)), self.captions[:, 0]] if name == 'facts' else table


@functools.partial(jax.jit, static_argnums=2)
def _centred(raw, key, geometry):
    return augment(raw, key, geometry, False)


def first_rows(split, num, in_row=1, captions=1) -> Rows:
    """Take `num` rows of a split in its order, going round where it has fewer.

    in_row: captions in each row. captions: rows of each record, each with other captions.
    """
    number = np.arange(num)
    rows, lap = number // captions % len(split), number // (captions * len(split))
    counts = np.array([max(1, len(split.texts[row])) for row in rows])
    first = rows + number % captions + captions * lap
    return Rows(split, rows, (first[:, None] + np.arange(in_row)) % counts[:, None])
