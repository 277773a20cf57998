"""A split of a TFDS data set as tables, one row a record, read once.

`cache='host'` and 'device' hold every picture as uint8 on its canvas: in memory, or, where that
would take more than a quarter of what is free, in a memory-mapped file. With 'none' a picture is
read and decoded whenever a batch needs it. Tables are stored on disk as well, see store.py.
"""

import concurrent.futures
import contextlib
import itertools
import math
import os
import pathlib

import jax
import numpy as np
from tqdm import tqdm

import tfds_builders
from t2i_jax.data import text
from t2i_jax.data.canvas import Canvas, Pictures, frame
from t2i_jax.data.dataset import Dataset
from t2i_jax.data.dialogs import ROUND_WORDS
from t2i_jax.data.fields import PICTURE, TEXT, Record, field, fields_of, value
from t2i_jax.data.store import Store
from t2i_jax.runtime.errors import DataError, home, reason
from tfds_builders.files import require_space

# records that a thread reads at a time
READ = 256
# the frame of a canvas that shows whole pictures
WHOLE = frame(1, 1, Canvas(1, False, ''))
# the plan and people read these, whatever the stage needs
ALWAYS = 'label', 'facts', 'scene', 'texts'


class Split:
    """One split of a data set as tables.

    tables: field -> array with a row a record. texts: the captions of each record. meta: Meta.
    vocabulary: given, or that of the split's captions. lazy: whether pictures are decoded for each
    batch. pictures: the reader of pictures. fields, wrong_fields: of a batch.
    """

    def __init__(self, data, split, needs, vocabulary=None, advice=None):
        """Read the tables that `needs` asks for.

        data: settings, a dictionary; a Dataset works, too. needs: batch keys.
        vocabulary: None: made from this split's captions. advice: of the stage, for errors.
        Raises DataError.
        """
        self.dataset = data if isinstance(data, Dataset) else Dataset(dict(data))
        self.split, self.name = split, self.dataset.name
        count = self.dataset.check(split, needs, advice)
        self.fields = fields_of(needs)
        self.wrong_fields = fields_of(n for n in needs if n.startswith('wrong_'))
        self.canvas, self.geometry = self.dataset.canvas, self.dataset.geometry
        self.max_objects, self.metadata = self.dataset.max_objects, self.dataset.metadata
        self._read_tables(self.dataset.data['cache'], count, vocabulary)
        meta = self.dataset.meta(len(self.vocabulary))
        self.meta = meta._replace(words=tuple(self.vocabulary.words))

    def __len__(self):
        return len(self.texts)

    def _read_tables(self, cache, count, vocabulary):
        have = self.dataset.features
        pictures = [name for name in self.fields if field(name).kind == PICTURE]
        self.pictures = self._pictures(pictures)
        self.lazy = cache == 'none' and bool(self.pictures.fields)
        drawn = self.picture_shapes()
        if cache == 'device':
            # before hours of decoding
            size = sum(count * int(np.prod(shape)) for shape in drawn.values())
            check_fits({self.split: size}, self.name, jax.local_devices()[0])
        names = [n for n in (*self.fields, *ALWAYS, *drawn) if field(n).feature in have]
        names = dict.fromkeys(
            field(n).encoded_from or n for n in names if not (self.lazy and n in drawn)
        )
        found = self._find(names, count)
        self.texts, rounds = found.pop('texts', [[]] * count), found.pop('rounds', None)
        part = self.dataset.data.get('captioned_part', 1.0)
        # held-out captions are all read
        if part < 1 and self.split == self.dataset.data['split']:
            self._forget(found, rounds, uncaptioned(count, part))
        every_text = itertools.chain.from_iterable(self.texts + (rounds or []))
        self.vocabulary = vocabulary or text.Vocabulary.from_captions(every_text)
        self.tables = {'index': np.arange(count, dtype=np.int32)} | found
        if 'tokens' in self.fields:
            self.tables |= zip(('tokens', 'words'), self._encode(self.texts, text.MAX_WORDS))
        if rounds:
            self.tables |= zip(('dialog', 'dialog_length'), self._encode(rounds, ROUND_WORDS))
        if self.lazy:
            # batches draw them all at once
            self.tables |= {name: LazyPictures(self.pictures, name) for name in drawn}

    def _pictures(self, names) -> Pictures:
        """Make the reader of the features that these fields come from; it draws pictures."""
        have, canvas = self.dataset.features, self.canvas
        read = {field(name).feature for name in names} | ({'file_name'} & have)
        placed = any(field(name).placed and name != 'image' for name in names)
        if placed and (canvas.keep or canvas.crop):
            # the size of the picture decides where things lie
            read |= {'image'} & have
        if canvas.crop and 'image' in read:
            read |= {'bbox'}
        if 'object_masks' in read:
            # which of the objects are crowds
            read |= {'objects'} & have
        data_dir = self.dataset.builder.data_dir
        return Pictures(data_dir, self.split, read, names, canvas, self.max_objects)

    def _find(self, names, count):
        """{name: table}: those that are stored, the others by one pass over the records."""
        shapes = {n: (count, *shape) for n, shape in self.picture_shapes().items() if n in names}
        size = int(sum(map(np.prod, shapes.values())))
        mapped = tuple(shapes) if size > free_memory() / 4 else ()
        store = Store(self.dataset.builder.data_dir, self.split, count, self.canvas)
        found = store.find(names, mapped)
        if len(found) == len(names):
            return found
        # where nothing will be stored, other processes need not wait
        storing = mapped or store.worth(size)
        with store.alone() if storing else contextlib.nullcontext(False) as writable:
            # what another process has read meanwhile
            found |= store.find([name for name in names if name not in found], mapped)
            missing = [name for name in names if name not in found]
            if {'image', 'extent'} & set(missing):
                # an image is drawn with its extent
                missing += [n for n in ('image', 'extent') if n in shapes and n not in missing]
            if missing:
                shapes = {name: shape for name, shape in shapes.items() if name in missing}
                tables = self._empty(shapes, store, mapped, writable)
                made = self._read(self._pictures(missing), missing, tables, count)
                if writable:
                    store.put(made)
                found |= made
        return found

    def _empty(self, shapes, store, mapped, writable):
        """Tables of pictures to be filled, in memory or in files. Raises DataError for no room."""
        types = {name: np.int32 if name == 'extent' else np.uint8 for name in shapes}
        if not (mapped and shapes):
            return {name: np.zeros(shape, types[name]) for name, shape in shapes.items()}
        size = int(sum(map(np.prod, shapes.values())))
        remedy = 'Set --config.data.cache=none, or --config.data.dir to a folder of yours.'
        if not writable:
            raise DataError(
                f'The pictures of {self.split} of {self.name} take {size / 1e9:.1f} GB, for which '
                f'memory is too small, and {store.folder} cannot be written. {remedy}'
            )
        require_space(store.folder, size, f'for the pictures of {self.split}')
        print(
            f'The pictures of {self.split} take {size / 1e9:.1f} GB: they go to {store.folder}, '
            'once.'
        )
        try:
            return {name: store.room(name, shape, types[name]) for name, shape in shapes.items()}
        except OSError as error:
            raise DataError(
                f'{store.folder} has no room for the pictures of {self.split}, {size / 1e9:.1f} '
                'GB: '
                f'{reason(error)}. {remedy}'
            ) from error

    def _read(self, pictures, names, tables, count):
        """Read the tables of these names in one pass over the records, in threads.

        tables: those of pictures, which are filled.
        """

        def read(numbers):
            rows = []
            for number, features in zip(numbers, pictures.records(numbers)):
                if tables:
                    for name, drawn in pictures.draw(features).items():
                        tables[name][number] = drawn
                rows.append(self._row(features, names, pictures))
            return rows

        parts = [range(start, min(start + READ, count)) for start in range(0, count, READ)]
        bar = dict(unit=' records', leave=False, mininterval=0.5, disable=None)
        rows = []
        with (
            concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
            tqdm(desc=f'reading {self.split}', total=count, **bar) as progress,
        ):
            for part in pool.map(read, parts):
                rows += part
                progress.update(len(part))
        made = dict(tables)
        for name in rows[0]:
            values = [row[name] for row in rows]
            if field(name).kind == TEXT:
                made[name] = values
            else:
                made[name] = (filled if field(name).per_caption else np.stack)(values)
        return made

    def picture_shapes(self):
        """{field: shape of a row} of the pictures."""
        h, w = self.canvas.shape
        side = self.metadata.get('mask_size', 64)
        masks = self.max_objects, side, side
        shapes = {'image': (h, w, 3), 'mask': (h, w, 1), 'object_masks': masks}
        shapes = {name: shapes[name] for name in self.pictures.fields}
        return shapes | ({'extent': (2,)} if 'image' in shapes else {})

    def _row(self, features, names, pictures):
        """One record as a dictionary of arrays of fixed shape and of texts, without pictures."""
        names = [name for name in names if field(name).kind != PICTURE]
        moved = (self.canvas.keep or self.canvas.crop) and 'image' in features
        moved = moved and any(field(name).placed for name in names)
        shown = pictures.frame(features) if moved else WHOLE
        record = Record(features, shown, self.max_objects)
        return {name: value(record, name) for name in names}

    def _encode(self, texts, length):
        """Encode the sentences of each record -> ids (n, k, length), numbers of words (n, k).

        Both int32, 0 where a record has fewer sentences than another.
        """
        # many sentences repeat
        distinct = dict.fromkeys(itertools.chain.from_iterable(texts))
        number = {sentence: i for i, sentence in enumerate(distinct, start=1)}
        encoded = [(np.zeros(length, np.int32), 0)]
        encoded += [self.vocabulary.encode(sentence, length) for sentence in number]
        which = filled([np.array([number[s] for s in record], np.int32) for record in texts])
        ids, counts = zip(*encoded)
        return np.stack(ids)[which], np.array(counts, np.int32)[which]

    def _forget(self, tables, rounds, rows):
        """Take captions and dialogues from records; rows: their numbers."""
        for texts in (self.texts, rounds or []):
            for row in rows if texts else ():
                texts[row] = []
        for name in {'chars', 'captioned', 'facts', 'embedding'} & set(tables):
            tables[name] = tables[name].copy()
            # unused facts are -1
            tables[name][rows] = -1 if name == 'facts' else 0

    def batch_tables(self):
        """The tables that a batch is gathered from."""
        names = [n for n in (*self.fields, 'index', 'extent', 'dialog_length') if n in self.tables]
        tables = {name: self.tables[name] for name in dict.fromkeys(names)}
        return {n: table for n, table in tables.items() if not isinstance(table, LazyPictures)}


class LazyPictures:
    """Stands where a table of pictures would: indexing it with numbers decodes those."""

    def __init__(self, pictures, name):
        self.pictures, self.name = pictures, name

    def __getitem__(self, numbers):
        return self.pictures.rows(numbers)[self.name]


def filled(arrays):
    """Stack the arrays of records with different numbers of captions, filled up with zeros."""
    most = max(1, *map(len, arrays))
    out = np.zeros((len(arrays), most, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(out, arrays):
        row[: len(array)] = array
    return out


def uncaptioned(count, part):
    """Return the numbers of the records whose captions are not read.

    count: of records. part: of them that keep their captions; those of a smaller part are among
    those of a larger one.
    """
    return np.random.default_rng(count).permutation(count)[math.ceil(part * count) :]


def free_memory() -> int:
    """Return the bytes that this process can still have, of the machine or of its container."""
    try:
        with open('/proc/meminfo') as file:
            # on Linux; what caches hold is available, too
            lines = (line for line in file if line.startswith('MemAvailable'))
            free = int(next(lines).split()[1]) * 1024
    except (OSError, StopIteration):
        free = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2
    try:
        folder = pathlib.Path('/sys/fs/cgroup')
        limit, used = (int((folder / n).read_text()) for n in ('memory.max', 'memory.current'))
    except (OSError, ValueError):
        # no container, or one without a limit ('max')
        return free
    return max(0, min(free, limit - used))


def check_fits(sizes, name, device):
    """Raise DataError where tables, {split: bytes}, do not fit into the memory of a device."""
    stats = device.memory_stats() or {}
    if 'bytes_limit' in stats:
        free = stats['bytes_limit'] - stats.get('bytes_in_use', 0)
    else:
        free = free_memory() / len(jax.local_devices())
    if sum(sizes.values()) > 0.8 * free:
        what = ' and '.join(f'{split} ({size / 1e9:.2f} GB)' for split, size in sizes.items())
        raise DataError(
            f'{what} of {name} do not fit into the memory of {device} ({free / 1e9:.2f} GB free, a '
            'fifth is left for the networks). Set --config.data.cache=host.'
        )


def device_tables(splits, sharding):
    """Send the tables of several splits to the devices, replicated.

    Raises DataError, before anything is sent, where they do not fit.
    """
    device = min(sharding.addressable_devices, key=lambda d: d.id)
    tables = {split: split.batch_tables() for split in splits}
    sizes = {s.split: sum(table.nbytes for table in ts.values()) for s, ts in tables.items()}
    check_fits(sizes, splits[0].name, device)
    return [jax.device_put(ts, sharding) for ts in tables.values()]


def scenes_of(data) -> str:
    """Return what the builder of a data set says of its scenes, '' where it says nothing.

    data: settings, a dictionary. Nothing is built.
    """
    try:
        data_dir = str(home(data['dir'])) if data['dir'] else None
        info = tfds_builders.get_builder(data['name'], data_dir).info
    except (DataError, TypeError, ValueError):
        return ''
    return dict(info.metadata or {}).get('scenes', '')
