"""A split of a TFDS data set as tables: captions, labels, boxes, ... one row a record, read once; pictures as `cache` says.

`cache='host'` and 'device' hold every picture as uint8 on its canvas: in memory, or, where that would take more than a quarter of what is
free, in a memory-mapped file. With 'none' a picture is read and decoded whenever a batch needs it. Tables are kept on disk, see kept.py.
"""

import concurrent.futures
import contextlib
import fcntl
import itertools
import os
import pathlib

import jax
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

import tfds_builders
from t2i_jax.data import text
from t2i_jax.data.augment import Geometry
from t2i_jax.data.canvas import CROPS, PICTURES, Canvas, Pictures, frame, move_boxes, move_parts
from t2i_jax.data.store import TEXTS, Kept
from t2i_jax.runtime.errors import DataError, reason
from t2i_jax.stage import Meta
from tfds_builders.manual import require_space

PER_CAPTION = ('tokens', 'words', 'chars', 'facts', 'embedding')
READ = 256  # records that a thread reads at a time
ROUND_WORDS = 24  # words of one question with its answer
# batch key -> what is stored for it; everything else is stored under its own name
STORED = {
    'images': ('image',),
    'tokens': ('tokens', 'words'),
    'length': ('tokens', 'words'),
    'dialog_length': ('dialog',),
}
FEATURE = {
    'words': 'captions',
    'tokens': 'captions',
    'chars': 'captions',
    'captioned': 'captions',
    'texts': 'captions',
    'rounds': 'dialog',
    'extent': 'image',
    'box': 'bbox',
    'boxes': 'objects',
    'object_labels': 'objects',
}
WHOLE = frame(1, 1, Canvas(1, False, ''))  # where the canvas shows whole pictures
PLACED = (
    'box',
    'boxes',
    'object_labels',
    'parts',
)  # where these lie depends on what of a picture its canvas shows
TOGETHER = {'image', 'extent'}  # an image is drawn with how far it extends on its canvas
ENCODED = {
    'tokens': 'texts',
    'words': 'texts',
    'dialog': 'rounds',
    'dialog_length': 'rounds',
}  # by the vocabulary, from what is kept


class Split:
    """One split of a data set: `tables` (field -> array with a row a record), `texts` (captions a record), `meta`."""

    def __init__(self, config, split, needs, vocabulary=None, stage_data=None, advice=None):
        """config: `config.data`; needs: batch keys; vocabulary: built from this split's captions where it is None; advice: the stage's, for
        the error where a field is missing."""
        self.config, self.split = config, split
        geometry = {**config, **(stage_data or {})}
        builder = prepared(config)
        info, have = builder.info, set(builder.info.features)
        self.name, self.metadata = info.full_name, dict(info.metadata or {})
        self.canvas = self._canvas(geometry, have)
        self.fields = stored_fields(needs)
        self.wrong_fields = stored_fields(n for n in needs if n.startswith('wrong_'))
        for field in self.fields:
            feature = FEATURE.get(field, field)
            if feature not in have:
                advised = (advice or {}).get(
                    field, 'Choose another --config.data.name or another system.'
                )
                raise DataError(
                    f'This system reads {field!r}, which data set {self.name} does not hold (it has {", ".join(sorted(have))}). {advised}'
                )
        if geometry['flip'] and not self.metadata.get('flip', True):
            raise DataError(
                f'The captions of {self.name} say left and right, so its pictures are never mirrored: set data.flip=False.'
            )

        try:
            count = len(
                builder.as_data_source(
                    split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
                )
            )
        except Exception as error:
            raise DataError(
                f'Data set {self.name} has no split {split!r} ({error}). It has: {", ".join(info.splits)}.'
            ) from error
        if not count:
            raise DataError(
                f'Split {split!r} of {self.name} is empty. It has: {", ".join(info.splits)}.'
            )
        self.max_objects = int(self.metadata.get('max_objects', 0))
        self._open(builder.data_dir, have, geometry['cache'], count, vocabulary)
        features, parts = info.features, self.metadata.get('parts', ())
        objects = features['objects'].feature['label'].names if 'objects' in have else ()
        self.meta = Meta(
            name=self.name,
            vocabulary_size=len(self.vocabulary),
            length=geometry['length'],
            size=geometry['size'],
            classes=features['label'].num_classes if 'label' in have else 0,
            object_classes=len(objects),
            max_objects=self.max_objects,
            attributes=features['attributes'].shape[0] if 'attributes' in have else 0,
            embedding_dim=features['embedding'].shape[-1] if 'embedding' in have else 0,
            captions=geometry['captions'],
            object_names=tuple(objects),
            attribute_names=tuple(self.metadata.get('attributes', ()))
            if 'attributes' in have
            else (),
            scenes=self.metadata.get('scenes', ''),
        )
        self.geometry = Geometry(
            geometry['size'],
            self.canvas.side,
            geometry['length'],
            geometry['flip'],
            tuple(geometry['scales']),
            mirrored(parts),
            mirrored(self.metadata.get('attributes', ())),
        )

    def __len__(self):
        return len(self.texts)

    def _canvas(self, geometry, have):
        if geometry['resize'] not in ('keep', 'squash'):
            raise DataError(f'data.resize is {geometry["resize"]!r}; it is squash or keep.')
        if geometry['crop'] not in CROPS:
            raise DataError(
                f'data.crop is {geometry["crop"]!r}; it is bbox, or empty for the whole picture.'
            )
        if geometry['crop'] and 'bbox' not in have:
            raise DataError(
                f'Data set {self.name} has no bbox to crop to: set data.crop="" (--config.data.crop=).'
            )
        return Canvas(
            geometry['load_size'] or geometry['size'],
            geometry['resize'] == 'keep',
            geometry['crop'],
        )

    def _open(self, data_dir, have, cache, count, vocabulary):
        self.pictures = self._pictures(
            data_dir, have, [name for name in self.fields if name in PICTURES]
        )
        self.lazy = cache == 'none' and bool(self.pictures.fields)
        if cache == 'device':  # before hours of decoding
            check_fits(
                {
                    self.split: sum(
                        count * int(np.prod(shape)) for shape in self.picture_shapes().values()
                    )
                },
                self.name,
                jax.local_devices()[0],
            )
        # label, facts and scene are for the plan, wherever they are; texts for the vocabulary and for people
        names = [
            name
            for name in (*self.fields, 'label', 'facts', 'scene', 'texts', *self.picture_shapes())
            if FEATURE.get(name, name) in have
        ]
        names = dict.fromkeys(
            ENCODED.get(name, name)
            for name in names
            if not (self.lazy and name in self.picture_shapes())
        )
        found = self._find(data_dir, have, names, count)
        self.texts, rounds = found.pop('texts', [[]] * count), found.pop('rounds', None)
        self.vocabulary = vocabulary or text.Vocabulary.from_captions(
            itertools.chain.from_iterable(self.texts + (rounds or []))
        )
        self.tables = {'index': np.arange(count, dtype=np.int32)} | found
        if 'tokens' in self.fields:
            self.tables |= zip(('tokens', 'words'), self._encode(self.texts, text.MAX_WORDS))
        if rounds:
            self.tables |= zip(('dialog', 'dialog_length'), self._encode(rounds, ROUND_WORDS))
        if self.lazy:
            self.tables |= {
                name: LazyPictures(self.pictures, name) for name in self.picture_shapes()
            }  # batches draw them all at once

    def _pictures(self, data_dir, have, names):
        """What reads the features of records that these tables are made of, and draws their pictures."""
        read = {FEATURE.get(name, name) for name in names} | ({'file_name'} & have)
        if not set(PLACED + PICTURES[1:]).isdisjoint(names) and (
            self.canvas.keep or self.canvas.crop
        ):  # then the picture's size decides
            read |= {'image'} & have
        read |= {'bbox'} if self.canvas.crop and 'image' in read else set()
        read |= {'objects'} & have if 'object_masks' in read else set()  # which of them are crowds
        return Pictures(data_dir, self.split, read, names, self.canvas, self.max_objects)

    def _find(self, data_dir, have, names, count):
        """{name: table}, of those that were kept and, in one pass over the records, of the others."""
        shapes = {
            name: (count, *shape) for name, shape in self.picture_shapes().items() if name in names
        }
        size = int(sum(map(np.prod, shapes.values())))
        mapped = tuple(shapes) if size > free_memory() / 4 else ()
        kept = Kept(data_dir, self.split, count, self.canvas, (*PLACED, *PICTURES, 'extent'))
        found = kept.find(names, mapped)
        if len(found) == len(names):
            return found
        # nobody waits for a process that will not keep its pictures
        with (
            kept.alone()
            if mapped or kept.worth(size)
            else contextlib.nullcontext(False) as writable
        ):
            found |= kept.find(
                [name for name in names if name not in found], mapped
            )  # what another process has read meanwhile
            missing = [
                name
                for name in names
                if name not in found or name in TOGETHER and not found.keys() >= TOGETHER
            ]
            if missing:
                tables = self._to_fill(
                    {name: shape for name, shape in shapes.items() if name in missing},
                    kept,
                    mapped,
                    writable,
                )
                made = self._read(self._pictures(data_dir, have, missing), missing, tables, count)
                if writable:
                    kept.put(made)
                found |= made
        return found

    def _to_fill(self, shapes, kept, mapped, writable):
        """Tables of pictures, still empty: in memory, or where that is too small in files. Raises DataError where these cannot be made."""
        types = {name: np.int32 if name == 'extent' else np.uint8 for name in shapes}
        if not (mapped and shapes):
            return {name: np.zeros(shape, types[name]) for name, shape in shapes.items()}
        size = int(sum(map(np.prod, shapes.values())))
        remedy = 'Set --config.data.cache=none, or --config.data.dir to a folder of yours.'
        if not writable:
            raise DataError(
                f'The pictures of {self.split} of {self.name} take {size / 1e9:.1f} GB, for which memory is too small, and {kept.folder} cannot be '
                f'written. {remedy}'
            )
        require_space(kept.folder, size, f'for the pictures of {self.split}')
        print(
            f'The pictures of {self.split} take {size / 1e9:.1f} GB: they go to {kept.folder}, once.'
        )
        try:
            return {name: kept.room(name, shape, types[name]) for name, shape in shapes.items()}
        except OSError as error:
            raise DataError(
                f'{kept.folder} has no room for the pictures of {self.split}, {size / 1e9:.1f} GB: {reason(error)}. {remedy}'
            ) from error

    def _read(self, pictures, names, tables, count):
        """The tables of these names, in one pass over the records, in threads. `tables`: those of pictures, which are filled."""

        def read(numbers):
            rows = []
            for number, record in zip(numbers, pictures.records(numbers)):
                if tables:
                    for name, value in pictures.draw(record).items():
                        tables[name][number] = value
                rows.append(self._row(record, names, pictures))
            return rows

        parts, rows = (
            [range(start, min(start + READ, count)) for start in range(0, count, READ)],
            [],
        )
        with (
            concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
            tqdm(
                desc=f'reading {self.split}',
                total=count,
                unit=' records',
                leave=False,
                mininterval=0.5,
                disable=None,
            ) as progress,
        ):
            for part in pool.map(read, parts):
                rows += part
                progress.update(len(part))
        made = {name: [row[name] for row in rows] for name in rows[0]}
        return tables | {
            name: values if name in TEXTS else (filled if name in PER_CAPTION else np.stack)(values)
            for name, values in made.items()
        }

    def picture_shapes(self):
        """{table: shape of its rows} of the pictures."""
        h, w = self.canvas.shape
        shapes = {
            'image': (h, w, 3),
            'mask': (h, w, 1),
            'object_masks': (self.max_objects, *(self.metadata.get('mask_size', 64),) * 2),
        }
        shapes = {name: shapes[name] for name in self.pictures.fields}
        return shapes | ({'extent': (2,)} if 'image' in shapes else {})

    def _row(self, record, names, pictures):
        """One record as a dictionary of arrays of fixed shape and of texts."""
        row, captions = {}, [caption.decode() for caption in record.get('captions', ())]
        for name in ('label', 'facts', 'scene', 'attributes', 'image_features'):
            if name in names:
                row[name] = np.asarray(record[name])
        if 'embedding' in names:
            row['embedding'] = np.asarray(record['embedding'], np.float32)
        if 'texts' in names:
            row['texts'] = captions
        if 'chars' in names:
            row['chars'] = np.array([text.encode_chars(t) for t in captions], np.uint8).reshape(
                -1, text.CHARS
            )
        if 'captioned' in names:
            row['captioned'] = np.bool_(len(captions))
        moved = (
            (self.canvas.keep or self.canvas.crop)
            and 'image' in record
            and not set(PLACED).isdisjoint(names)
        )
        one = pictures.frame(record) if moved else WHOLE
        if 'box' in names:
            row['box'] = _centred(move_boxes(np.asarray(record['bbox'], np.float32), one))
        if 'parts' in names:
            row['parts'] = move_parts(np.asarray(record['parts'], np.float32), one)
        if 'boxes' in names or 'object_labels' in names:
            row |= {
                name: table
                for name, table in self._objects(record['objects'], one).items()
                if name in names
            }
        if 'rounds' in names:
            row['rounds'] = [
                f'{q.decode()} {a.decode()}'
                for q, a in zip(record['dialog']['questions'], record['dialog']['answers'])
            ]
        return row

    def _objects(self, objects, one):
        """Boxes (R, 4) and labels (R,), -1 where there is none. Crowd regions are no objects."""
        boxes, labels = (
            np.zeros((self.max_objects, 4), np.float32),
            np.full(self.max_objects, -1, np.int32),
        )
        n = min(len(objects['label']), self.max_objects)
        crowd = (
            np.asarray(objects['is_crowd'][:n], bool)
            if 'is_crowd' in objects
            else np.zeros(n, bool)
        )
        found = np.asarray(objects['bbox'], np.float32).reshape(-1, 4)[:n]
        found = np.where(crowd[:, None], 0, move_boxes(found, one))
        boxes[:n] = _centred(found)
        labels[:n] = np.where(
            (found[:, 2:] > found[:, :2]).all(1), np.asarray(objects['label'])[:n], -1
        )
        return {'boxes': boxes, 'object_labels': labels}

    def _encode(self, texts, length):
        """Sentences of each record -> ids (n, k, length) and numbers of words (n, k) int32, 0 where a record has fewer sentences than another."""
        number = {
            sentence: i
            for i, sentence in enumerate(
                dict.fromkeys(itertools.chain.from_iterable(texts)), start=1
            )
        }  # many repeat
        encoded = [(np.zeros(length, np.int32), 0)] + [
            self.vocabulary.encode(sentence, length) for sentence in number
        ]
        which = filled(
            [np.array([number[sentence] for sentence in record], np.int32) for record in texts]
        )
        ids, counts = zip(*encoded)
        return np.stack(ids)[which], np.array(counts, np.int32)[which]

    def kept(self):
        """The tables that a batch is gathered from."""
        names = [n for n in (*self.fields, 'index', 'extent', 'dialog_length') if n in self.tables]
        return {
            name: self.tables[name]
            for name in dict.fromkeys(names)
            if not isinstance(self.tables[name], LazyPictures)
        }


class LazyPictures:
    """Stands where a table of pictures would: indexing it with numbers decodes those."""

    def __init__(self, pictures, name):
        self.pictures, self.name = pictures, name

    def __getitem__(self, numbers):
        return self.pictures.rows(numbers)[self.name]


def stored_fields(needs):
    """Batch keys -> the fields that are stored for them, `wrong_` ones included once."""
    fields = {}
    for need in needs:
        need = need.removeprefix('wrong_')
        fields |= dict.fromkeys(STORED.get(need, (need,)))
    fields.pop('index', None)
    return tuple(fields)


def filled(arrays):
    """Arrays of records with different numbers of captions -> one, zeros where a record has fewer than another."""
    out = np.zeros((len(arrays), max(1, *map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(out, arrays):
        row[: len(array)] = array
    return out


def _centred(box):
    """TFDS order ymin xmin ymax xmax -> cx cy w h."""
    low, high = box[..., [1, 0]], box[..., [3, 2]]
    return np.concatenate([(low + high) / 2, high - low], -1).astype(np.float32)


def mirrored(parts):
    """Names of parts or attributes -> for each the number of the one whose place it takes in a mirrored picture: 'left eye' that of 'right eye'."""
    swap = {'left': 'right', 'right': 'left'}
    names = [' '.join(swap.get(word, word) for word in name.split()) for name in parts]
    return tuple(
        list(parts).index(name if name in parts else own) for name, own in zip(names, parts)
    )


def free_memory() -> int:
    """Bytes of memory that are available to this process: of the machine, or of the container where that has less."""
    try:
        with open('/proc/meminfo') as file:  # on Linux, what caches hold is available, too
            free = next(
                int(line.split()[1]) * 1024 for line in file if line.startswith('MemAvailable')
            )
    except (OSError, StopIteration):
        free = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2
    try:
        limit, used = (
            int(pathlib.Path('/sys/fs/cgroup', name).read_text())
            for name in ('memory.max', 'memory.current')
        )
    except (OSError, ValueError):  # no container, or one without a limit ('max')
        return free
    return max(0, min(free, limit - used))


def check_fits(sizes, name, device):
    """Raises DataError where tables of these sizes, {split: bytes}, do not fit into the device's memory."""
    stats = device.memory_stats() or {}
    free = (
        stats['bytes_limit'] - stats.get('bytes_in_use', 0)
        if 'bytes_limit' in stats
        else free_memory() / len(jax.local_devices())
    )
    if sum(sizes.values()) > 0.8 * free:
        what = ' and '.join(f'{split} ({size / 1e9:.2f} GB)' for split, size in sizes.items())
        raise DataError(
            f'{what} of {name} do not fit into the memory of {device} ({free / 1e9:.2f} GB free, a fifth is left for '
            'the networks). Set --config.data.cache=host.'
        )


def device_tables(splits, sharding):
    """The tables of several splits in device memory, replicated. Raises DataError, before anything is sent, where they do not fit."""
    device = min(sharding.addressable_devices, key=lambda d: d.id)
    check_fits(
        {split.split: sum(table.nbytes for table in split.kept().values()) for split in splits},
        splits[0].name,
        device,
    )
    return [jax.device_put(split.kept(), sharding) for split in splits]


def prepared(config):
    """The builder of `config.data`, its data built first where they are not there yet. Raises DataError."""
    kwargs = {'manual_dir': config.manual_dir} if config.manual_dir else {}
    if config.on_error != 'refuse':
        kwargs['on_error'] = config.on_error
    data_dir = os.path.expanduser(config.dir) if config.dir else None
    try:
        builder = tfds_builders.get_builder(config.name, data_dir, **kwargs)
    except TypeError as error:  # a builder that reads no files of the user's has no such keyword
        if not any(name in str(error) for name in kwargs):
            raise
        raise DataError(
            f'Data set {config.name} takes no {" and no ".join("data." + name for name in kwargs)}. Leave it out.'
        ) from None
    place = pathlib.Path(builder.data_dir)
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place.parent / 'building.lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process builds, others on this disk wait for it
            if not place.exists():
                print(f'Building {builder.info.full_name} in {place}')
                builder.download_and_prepare()
        builder = tfds_builders.get_builder(config.name, data_dir, **kwargs)
    return builder
