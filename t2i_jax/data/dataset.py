"""A TFDS data set, prepared and checked, before any record of it is read."""

import contextlib
import fcntl
import functools
import os
import pathlib

import numpy as np

import tfds_builders
from t2i_jax.data.augment import Geometry
from t2i_jax.data.canvas import Canvas, Pictures
from t2i_jax.data.choices import CACHES, CROPS, RESIZES
from t2i_jax.data.fields import field, fields_of
from t2i_jax.runtime.errors import DataError, choose, explained, home, quoted
from t2i_jax.stage import Meta


class Dataset:
    """A prepared data set, with the settings by which it is read.

    No record is read yet.
    data: the settings, a dictionary (config.DATA, a stage's own laid over it).
    info: what TFDS knows. features: their names. metadata: what the builder says of itself.
    """

    def __init__(self, data: dict):
        self.data = data
        builder = prepared(data)
        self.builder, self.info = builder, builder.info
        self.name, self.metadata = self.info.full_name, dict(self.info.metadata or {})
        # what its files did not have is zeros in the records
        self.features = set(self.info.features) - set(self.metadata.get('absent', ()))

    def check(self, split, needs, advice=None) -> int:
        """Check that a stage can read a split, without reading it -> its number of records.

        needs: batch keys. advice: of the stage, what to do where a field is missing.
        Raises DataError.
        """
        data = self.data
        choose('data.cache', data['cache'], CACHES)
        cores = os.cpu_count() or 1
        if data['cache'] == 'none' and data['workers'] > max(4, 4 * cores):
            raise DataError(
                f'data.workers is {data["workers"]}, processes that would share {cores} cores and '
                f'fill the memory: set --config.data.workers to at most {max(4, 4 * cores)} (0: '
                'threads).'
            )
        self.canvas  # noqa: B018 - raises
        for name in fields_of(needs):
            if field(name).feature not in self.features:
                remedy = 'Choose another --config.data.name or another system.'
                raise DataError(
                    f'This system reads {name!r}, which data set {self.name} does not hold (it has '
                    f'{", ".join(sorted(self.features))}). {(advice or {}).get(name, remedy)}'
                )
        if data['flip'] and not self.metadata.get('flip', True):
            raise DataError(
                f'The captions of {self.name} say left and right, so its pictures are never '
                'mirrored: set data.flip=False.'
            )
        known = ', '.join(self.info.splits)
        try:
            count = self.info.splits[split].num_examples
        except Exception as error:
            # TFDS lists the splits itself
            why = '' if str(error).startswith('Unknown split') else f' ({error})'
            raise DataError(
                f'Data set {self.name} has no split {split!r}{why}. It has: {known}. Set '
                '--config.data.split and validation_split to these or to parts of them, such as '
                'train[:80%].'
            ) from error
        if count < 1:
            raise DataError(f'Split {split!r} of {self.name} is empty. It has: {known}.')
        return count

    @functools.cached_property
    def canvas(self) -> Canvas:
        """How its pictures are drawn. Raises DataError."""
        data = self.data
        choose('data.resize', data['resize'], RESIZES)
        choose('data.crop', data['crop'], CROPS)
        if data['crop'] and 'bbox' not in self.features:
            raise DataError(
                f'Data set {self.name} has no bbox to crop to: set data.crop="" '
                '(--config.data.crop=).'
            )
        keep = data['resize'] == 'keep'
        return Canvas(data['load_size'] or data['size'], keep, data['crop'])

    @property
    def geometry(self) -> Geometry:
        """The knowledge of its pictures that augmentation needs."""
        data, of = self.data, self.metadata.get
        return Geometry(
            *(data['size'], self.canvas.side, data['length'], data['flip'], tuple(data['scales'])),
            mirrored(of('parts', ())),
            mirrored(of('attributes', ())),
        )

    @property
    def max_objects(self) -> int:
        return int(self.metadata.get('max_objects', 0))

    def meta(self, vocabulary_size) -> Meta:
        """The Meta of it; the size of the vocabulary comes from its captions."""
        data, features, have = self.data, self.info.features, self.features
        objects = features['objects'].feature['label'].names if 'objects' in have else ()
        attributes = self.metadata.get('attributes', ()) if 'attributes' in have else ()
        return Meta(
            name=self.name,
            vocabulary_size=vocabulary_size,
            length=data['length'],
            size=data['size'],
            classes=features['label'].num_classes if 'label' in have else 0,
            object_classes=len(objects),
            max_objects=self.max_objects,
            attributes=features['attributes'].shape[0] if 'attributes' in have else 0,
            embedding_dim=features['embedding'].shape[-1] if 'embedding' in have else 0,
            captions=data['captions'],
            object_names=tuple(objects),
            attribute_names=tuple(attributes),
            scenes=self.metadata.get('scenes', ''),
        )


def mirrored(names):
    """Number the partners of parts or attributes in a mirrored picture.

    Each has the place of its partner there: 'left eye' that of 'right eye'.
    """
    names, swap = list(names), {'left': 'right', 'right': 'left'}
    partners = [' '.join(swap.get(word, word) for word in name.split()) for name in names]
    return tuple(names.index(p if p in names else own) for p, own in zip(partners, names))


def builder_of(data):
    """Return the builder of a data set, prepared or not.

    data: settings, a dictionary. Raises DataError.
    """
    kwargs = {'manual_dir': data['manual_dir']} if data['manual_dir'] else {}
    if data['on_error'] != 'refuse':
        kwargs['on_error'] = data['on_error']
    data_dir = str(home(data['dir'])) if data['dir'] else None
    try:
        return tfds_builders.get_builder(data['name'], data_dir, **kwargs)
    except OSError as error:
        raise DataError(explained(error, error.filename or data_dir)) from error
    except TypeError as error:
        # a builder that reads no files of the user's has no such keyword
        if not any(name in str(error) for name in kwargs):
            raise
        given = ' and no '.join(f'data.{name}' for name in kwargs)
        raise DataError(f'Data set {data["name"]} takes no {given}. Leave it out.') from None


def prepared(data):
    """Return the builder of a data set, which is built first where it is not there yet.

    data: settings, a dictionary. Raises DataError.
    """
    builder = builder_of(data)
    place = pathlib.Path(builder.data_dir)
    if place.exists():
        return builder
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place.parent / 'building.lock', 'w') as lock:
            # one process builds, others on this disk wait for it
            with contextlib.suppress(OSError):
                # a disk without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                print(f'Building {builder.info.full_name} in {quoted(place)}')
                builder.download_and_prepare()
    except OSError as error:
        raise DataError(
            f'{builder.info.full_name} cannot be built: {explained(error)} Data sets lie in '
            '--config.data.dir.'
        ) from error
    return builder_of(data)


def some_captions(data, split, count) -> list[str]:
    """Return the first captions of records spread over a split; [] where it is not prepared.

    Nothing is built, and no other record is read. data: settings, a dictionary.
    Raises DataError for data that cannot be read.
    """
    if not pathlib.Path(builder_of(data).data_dir).exists():
        return []
    dataset = Dataset(data)
    if 'captions' not in dataset.features:
        return []
    rows = np.linspace(0, dataset.check(split, ()) - 1, count).astype(int)
    pictures = Pictures(dataset.builder.data_dir, split, ('captions',), (), dataset.canvas, 0)
    found = (list(record['captions']) for record in pictures.records(dict.fromkeys(rows)))
    return [captions[0].decode() for captions in found if captions]
