"""TFDS data sets to batches of fixed shapes, per host.

A split is read once into tables (captions, labels, boxes, ...). For each step the host draws a plan, a pure function of
(seed, step): which record, which captions, which record that certainly does not match. Gathering the plan's rows gives a
batch; with `cache='device'` the tables lie on the device and only the plan travels. Pictures are decoded here, to a
uint8 canvas; what else happens to them is augment.py's, on the device.
"""
import concurrent.futures
import functools
import os
import pathlib

import cv2
import grain
import jax
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

import tfds_builders
from t2i_jax import text
from t2i_jax.augment import Geometry
from t2i_jax.errors import DataError
from t2i_jax.stage import Meta
from tfds_builders.shape_scenes.facts import entails

PICTURES = ('image', 'mask', 'object_masks')
PER_CAPTION = ('tokens', 'words', 'chars', 'facts', 'embedding')
ROUND_WORDS = 24           # words of one question with its answer
# batch key -> what is stored for it; everything else is stored under its own name
STORED = {'images': ('image',), 'tokens': ('tokens', 'words'), 'length': ('tokens', 'words'), 'dialog_length': ('dialog',)}
FEATURE = {'words': 'captions', 'tokens': 'captions', 'chars': 'captions', 'captioned': 'captions', 'box': 'bbox',
           'boxes': 'objects', 'object_labels': 'objects'}


class Split:
    """One split of a data set: `tables` (field -> array with a row a record), `texts` (captions a record), `meta`."""

    def __init__(self, config, split, needs, vocabulary=None, stage_data=None):
        """config: `config.data`; needs: batch keys; vocabulary: built from this split's captions where it is None."""
        self.config, self.split = config, split
        geometry = {**config, **(stage_data or {})}
        self.canvas = geometry['load_size'] or geometry['size']
        self.keep = geometry['resize'] == 'keep'
        if geometry['resize'] not in ('keep', 'squash'):
            raise DataError(f'data.resize is {geometry["resize"]!r}; it is squash or keep.')
        builder = prepared(config)
        info = builder.info
        self.fields = stored_fields(needs)
        self.wrong_fields = stored_fields(n for n in needs if n.startswith('wrong_'))
        have = set(info.features)
        for field in self.fields:
            feature = FEATURE.get(field, field)
            if feature not in have:
                raise DataError(f'This system reads {field!r}, which data set {info.full_name} does not hold (it has {", ".join(sorted(have))}). '
                                'Choose another --config.data.name or another system.')
        if geometry['flip'] and not info.metadata.get('flip', True):
            raise DataError(f'The captions of {info.full_name} say left and right, so its pictures are never mirrored: set data.flip=False.')

        # label, facts and scene are for the plan, wherever they are; captions for the vocabulary and for people
        read = {FEATURE.get(f, f) for f in self.fields} | ({'captions', 'label', 'facts', 'scene', 'file_name'} & have)
        try:
            source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        except Exception as error:
            raise DataError(f'Data set {info.full_name} has no split {split!r} ({error}). It has: {", ".join(info.splits)}.') from error
        if not len(source):
            raise DataError(f'Split {split!r} of {info.full_name} is empty. It has: {", ".join(info.splits)}.')
        self.source = source
        # only these features are parsed (tfds.decode.PartialDecoding would need TensorFlow), and pictures stay the bytes that they are
        self.features = tfds.features.FeaturesDict({name: info.features[name] for name in read})
        self.decoders = {name: tfds.decode.SkipDecoding() for name in PICTURES if name in read}
        pictures = [f for f in self.fields if f in PICTURES]
        lazy = geometry['cache'] == 'none'                                 # pictures are decoded when a batch is gathered
        self.max_objects = int(info.metadata.get('max_objects', 0))
        rows = self._read(() if lazy else pictures)
        self.texts = [row.pop('texts') for row in rows]
        self.vocabulary = vocabulary or text.Vocabulary.from_captions(
            caption for row, texts in zip(rows, self.texts) for caption in (*texts, *row.get('rounds', ())))
        self._add_words(rows)
        self.tables = {name: (filled if name in PER_CAPTION else np.stack)([row[name] for row in rows])
                       for name in rows[0] if name != 'rounds'}
        if lazy:
            self.tables |= {f: LazyPictures(self, f) for f in pictures}
            if 'image' in pictures:
                self.tables['extent'] = np.array([self.canvas] * 2, np.int32)[None].repeat(len(rows), 0) if not self.keep else LazyPictures(self, 'extent')
        features = info.features
        self.meta = Meta(
            name=info.full_name, vocabulary_size=len(self.vocabulary), length=geometry['length'], size=geometry['size'],
            classes=features['label'].num_classes if 'label' in have else 0,
            object_classes=features['objects'].feature['label'].num_classes if 'objects' in have else 0,
            max_objects=self.max_objects, attributes=features['attributes'].shape[0] if 'attributes' in have else 0,
            embedding_dim=features['embedding'].shape[-1] if 'embedding' in have else 0, captions=geometry['captions'])
        self.geometry = Geometry(geometry['size'], self.canvas, geometry['length'], geometry['flip'], tuple(geometry['scales']))

    def __len__(self):
        return len(self.texts)

    def record(self, number):
        return self.features.deserialize_example_np(self.source[number], decoders=self.decoders)

    def _read(self, pictures):
        workers = self.config.workers or os.cpu_count()
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            read = functools.partial(self._row, pictures=pictures)
            rows = pool.map(read, range(len(self.source)))
            return list(tqdm(rows, f'reading {self.split}', total=len(self.source), unit=' records', leave=False, mininterval=.5, disable=None))

    def _row(self, number, pictures):
        """One record as a dictionary of arrays of fixed shape, besides `texts` (and `rounds`), which become tokens later."""
        record, fields, row = self.record(number), self.fields, {'index': np.int32(number)}
        row['texts'] = [caption.decode() for caption in record.get('captions', ())]
        for name in ('label', 'facts', 'scene', 'attributes', 'image_features'):
            if name in record and (name in fields or name in ('label', 'facts', 'scene')):
                row[name] = np.asarray(record[name])
        if 'embedding' in fields:
            row['embedding'] = np.asarray(record['embedding'], np.float32)
        if 'chars' in fields:
            row['chars'] = np.array([text.encode_chars(t) for t in row['texts']], np.uint8).reshape(-1, text.CHARS)
        if 'captioned' in fields:
            row['captioned'] = np.bool_(len(row['texts']))
        if 'box' in fields:
            row['box'] = _centred(np.asarray(record['bbox'], np.float32))
        if 'boxes' in fields or 'object_labels' in fields:
            boxes, labels = np.zeros((self.max_objects, 4), np.float32), np.full(self.max_objects, -1, np.int32)
            n = min(len(record['objects']['label']), self.max_objects)
            labels[:n] = record['objects']['label'][:n]
            boxes[:n] = _centred(np.asarray(record['objects']['bbox'], np.float32).reshape(-1, 4)[:n])
            row |= {'boxes': boxes, 'object_labels': labels}
        if 'dialog' in fields:
            row['rounds'] = [f'{q.decode()} {a.decode()}' for q, a in zip(record['dialog']['questions'], record['dialog']['answers'])]
        for name in pictures:
            row |= self._picture(record, name, number)
        return row

    def _picture(self, record, name, number):
        """{'image': uint8 c c 3, 'extent': int32 (2,)}, {'mask': uint8 c c 1} or {'object_masks': uint8 r 64 64}."""
        flag = cv2.IMREAD_COLOR_RGB if name == 'image' else cv2.IMREAD_GRAYSCALE
        pixels = cv2.imdecode(np.frombuffer(record[name], np.uint8), flag)
        if pixels is None:
            what = record.get('file_name', b'').decode() or f'record {number}'
            raise DataError(f'The {name} of {what} in split {self.split} cannot be decoded. Build the data set again from intact files.')
        if name == 'object_masks':
            return {name: pixels.reshape(self.max_objects, -1, pixels.shape[1])}
        h, w = pixels.shape[:2]
        if self.keep:
            scale, limit = self.canvas / min(h, w), int(1.5 * self.canvas)
            h, w = (max(self.canvas, min(limit, round(side * scale))) for side in (h, w))
            resized = cv2.resize(pixels, (max(w, round(pixels.shape[1] * scale)), max(h, round(pixels.shape[0] * scale))),
                                 interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
            top, left = (resized.shape[0] - h) // 2, (resized.shape[1] - w) // 2
            canvas = np.zeros((limit, limit, *pixels.shape[2:]), np.uint8)
            canvas[:h, :w] = resized[top:top + h, left:left + w]
        else:
            side = self.canvas
            shrinks = side < min(h, w)
            canvas = pixels if (h, w) == (side, side) else cv2.resize(
                pixels, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
            h = w = side
        if name == 'mask':
            return {'mask': canvas[..., None]}
        return {'image': canvas, 'extent': np.array([h, w], np.int32)}

    def _add_words(self, rows):
        for row, texts in zip(rows, self.texts):
            if 'tokens' in self.fields:
                encoded = [self.vocabulary.encode(t, text.MAX_WORDS) for t in texts]
                row['tokens'] = np.array([ids for ids, _ in encoded], np.int32).reshape(-1, text.MAX_WORDS)
                row['words'] = np.array([n for _, n in encoded], np.int32)
            if 'dialog' in self.fields:
                encoded = [self.vocabulary.encode(t, ROUND_WORDS) for t in row['rounds']]
                row['dialog'] = np.stack([ids for ids, _ in encoded])
                row['dialog_length'] = np.array([n for _, n in encoded], np.int32)

    def kept(self):
        """The tables that a batch is gathered from."""
        names = [n for n in (*self.fields, 'index', 'extent', 'dialog_length') if n in self.tables]
        return {name: self.tables[name] for name in dict.fromkeys(names)}


class LazyPictures:
    """Stands where a table of pictures would: indexing it with numbers decodes those."""

    def __init__(self, split, name):
        self.split, self.name = split, name

    def __getitem__(self, indices):
        feature = 'image' if self.name == 'extent' else self.name
        return np.stack([self.split._picture(self.split.record(int(i)), feature, int(i))[self.name] for i in indices])


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
        row[:len(array)] = array
    return out


def _centred(box):
    """TFDS order ymin xmin ymax xmax -> cx cy w h."""
    low, high = box[..., [1, 0]], box[..., [3, 2]]
    return np.concatenate([(low + high) / 2, high - low], -1).astype(np.float32)


def prepared(config):
    """The builder of `config.data`, its data built first where they are not there yet. Raises DataError."""
    kwargs = {'manual_dir': config.manual_dir} if config.manual_dir else {}
    if config.on_error != 'refuse':
        kwargs['on_error'] = config.on_error
    data_dir = os.path.expanduser(config.dir) if config.dir else None
    try:
        builder = tfds_builders.get_builder(config.name, data_dir, **kwargs)
    except TypeError as error:                             # a builder that reads no files of the user's has no such keyword
        if not any(name in str(error) for name in kwargs):
            raise
        raise DataError(f'Data set {config.name} takes no {" and no ".join("data." + name for name in kwargs)}. Leave it out.') from None
    if not pathlib.Path(builder.data_dir).exists():
        print(f'Building {builder.info.full_name} in {builder.data_dir}')
        builder.download_and_prepare()
    return builder


class Plan:
    """Which rows make the batch of a step: a pure function of (seed, step)."""

    def __init__(self, split: Split, batch_size, seed, needs, sampler='uniform', captions=1, captioned_share=0.5):
        """sampler: 'uniform' (every record once an epoch, the incomplete last batch dropped), 'class_balanced' (a random
        class, then a record of it), 'distinct_classes' (as that, no class twice in a batch) or 'mixed' (`captioned_share`
        of the rows have captions). captions: how many of a record's captions a row has.
        """
        self.n, self.batch_size, self.seed, self.captions = len(split), batch_size, seed, captions
        self.tables = {name: split.tables[name] for name in ('label', 'facts', 'scene') if name in split.tables}
        self.counts = np.array([len(t) for t in split.texts])
        self.wrong_image = any(n.startswith('wrong_') and n != 'wrong_tokens' for n in needs)
        self.wrong_text = any(n in ('wrong_tokens', 'wrong_chars', 'wrong_embedding') for n in needs)
        if sampler not in ('uniform', 'class_balanced', 'distinct_classes', 'mixed'):
            raise DataError(f'There is no sampler {sampler!r}; there are uniform, class_balanced, distinct_classes, mixed.')
        self.sampler, self.share = sampler, captioned_share
        if sampler in ('class_balanced', 'distinct_classes'):
            if 'label' not in self.tables:
                raise DataError(f'Sampler {sampler} needs classes, which {split.meta.name} does not have. Use sampler=uniform.')
            order = np.argsort(self.tables['label'], kind='stable')
            self.by_class = np.split(order, np.flatnonzero(np.diff(self.tables['label'][order])) + 1)
            if sampler == 'distinct_classes' and batch_size > len(self.by_class):
                raise DataError(f'A batch of {batch_size} distinct classes cannot be drawn: {split.meta.name}, split {split.split}, has '
                                f'{len(self.by_class)}. Set batch_size to at most that.')
        elif self.n < batch_size:
            raise DataError(f'Split {split.split} of {split.meta.name} has {self.n} records, fewer than one batch of {batch_size}.')
        if captions > 1 and self.counts.min() < 1:
            raise DataError('Some records have no caption; a system that reads several captions a row needs them on all.')

    @property
    def steps_per_epoch(self):
        return max(1, self.n // self.batch_size)

    def __call__(self, step):
        """-> {'index': b, 'caption': b n, 'wrong': b, 'wrong_caption': b n}, int32; wrong ones where they are needed."""
        rng = np.random.default_rng((self.seed, step, 1))
        index = self._records(step, rng)
        plan = {'index': index, 'caption': self._captions(index, rng)}
        if self.wrong_image or self.wrong_text:
            plan |= self._wrong(plan, rng)
        return {name: value.astype(np.int32) for name, value in plan.items()}

    def _records(self, step, rng):
        b = self.batch_size
        if self.sampler == 'uniform':
            epoch, place = divmod(step, self.steps_per_epoch)
            return _shuffled(self.n, self.seed, epoch)[place * b:(place + 1) * b]
        if self.sampler == 'mixed':
            captioned = np.arange(b) < round(b * self.share)
            have, lack = np.flatnonzero(self.counts > 0), np.flatnonzero(self.counts == 0)
            lack = lack if len(lack) else have
            return np.where(captioned, rng.choice(have, b), rng.choice(lack, b))
        replace = self.sampler == 'class_balanced'
        classes = rng.choice(len(self.by_class), b, replace=replace)
        return np.array([rng.choice(self.by_class[c]) for c in classes])

    def _captions(self, index, rng):
        """Captions of each record, drawn without replacement where there are enough."""
        order = rng.random((len(index), max(self.counts.max(), self.captions, 1)))
        order[np.arange(order.shape[1]) >= self.counts[index][:, None]] += 1            # those that do not exist come last
        chosen = order.argsort(1)[:, :self.captions]
        return chosen % np.maximum(self.counts[index], 1)[:, None]

    def _wrong(self, plan, rng, rounds=200):
        wrong, caption = (np.zeros_like(plan[k]) for k in ('index', 'caption'))
        open_rows = np.ones(len(wrong), bool)
        for _ in range(rounds):
            rows = np.flatnonzero(open_rows)
            if not len(rows):
                return {'wrong': wrong, 'wrong_caption': caption}
            wrong[rows] = rng.integers(0, self.n, len(rows))
            caption[rows] = self._captions(wrong[rows], rng)
            match = self._matches(plan['index'][rows], plan['caption'][rows], wrong[rows], caption[rows])
            open_rows[rows] = match & (self.counts[plan['index'][rows]] > 0)             # without a caption nothing can match
        raise DataError('No record that certainly does not match was found for some captions: the data set is too small or all alike.')

    def _matches(self, index, caption, wrong, wrong_caption):
        """Whether the wrong record might match after all: by facts where there are any, else by class, else the same record."""
        if 'facts' in self.tables:
            facts, scene = self.tables['facts'], self.tables['scene']
            match = np.zeros(len(index), bool)
            if self.wrong_image:       # of several captions one that is false suffices
                match |= entails(facts[index[:, None], caption], scene[wrong][:, None]).all(1)
            if self.wrong_text:
                match |= entails(facts[wrong[:, None], wrong_caption], scene[index][:, None]).all(1)
            return match
        if 'label' in self.tables:
            return self.tables['label'][index] == self.tables['label'][wrong]
        return index == wrong


@functools.lru_cache(maxsize=4)
def _shuffled(n, seed, epoch):
    return np.random.default_rng((seed, epoch, 0)).permutation(n)


def gather(tables, plan, wrong_fields=()):
    """The rows of a plan, from tables in host or device memory. Keys as `augment` reads them; `wrong_` ones of `wrong_fields`."""
    raw = {}
    wrong = {name: tables[name] for name in (*wrong_fields, *(('extent',) if 'image' in wrong_fields else ())) if name in tables}
    for prefix, part, index, caption in (('', tables, 'index', 'caption'), ('wrong_', wrong, 'wrong', 'wrong_caption')):
        for name, table in part.items():
            raw[prefix + name] = table[plan[index][:, None], plan[caption]] if name in PER_CAPTION else table[plan[index]]
    return raw


def batches(split: Split, plan: Plan, start, stop, cache, workers, share=(0, 1)):
    """Iterator over the steps start..stop-1, prefetched by threads: plans with `cache='device'`, else gathered batches.

    share: (i, n): of each batch the i-th of n parts, for a host among several. Close it (`.close()`) when leaving early.
    """
    if cache not in ('device', 'host', 'none'):
        raise DataError(f'data.cache is {cache!r}; it is device, host or none.')
    tables = split.kept()

    def load(step):
        rows = plan(int(step))
        part, parts = share
        size = plan.batch_size // parts
        rows = {name: value[part * size:(part + 1) * size] for name, value in rows.items()}
        return rows if cache == 'device' else gather(tables, rows, split.wrong_fields)
    options = grain.ReadOptions(num_threads=workers or os.cpu_count(), prefetch_buffer_size=4)
    return iter(grain.MapDataset.range(start, stop).map(load).to_iter_dataset(options))


def device_tables(split: Split, sharding):
    """The split's tables in device memory, replicated."""
    return jax.device_put(split.kept(), sharding)
