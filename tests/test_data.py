"""Batches are the same however the data are kept, on any number of hosts, from any step.

What cannot be read is refused.
"""

import jax
import numpy as np
import pytest
from helpers import bit_equal, kept_files

from t2i_jax.data import dataset, tables
from t2i_jax.data.feed import by_processes, gather, host_batches
from t2i_jax.data.plan import Plan
from t2i_jax.data.tables import Split, device_tables
from t2i_jax.data.text import tokenize
from t2i_jax.run import Run
from t2i_jax.runtime.errors import DataError, RunError

EVERYTHING = (
    'image',
    'images',
    'wrong_image',
    'tokens',
    'length',
    'wrong_tokens',
    'wrong_length',
    'chars',
    'label',
    'box',
    'boxes',
    'object_labels',
    'object_masks',
    'mask',
    'attributes',
    'dialog',
    'dialog_length',
    'facts',
    'captioned',
    'index',
)


@pytest.fixture(scope='module')
def config(on_shapes):
    return on_shapes('gan_cls_shapes').data.unlock()


@pytest.fixture(scope='module')
def split(config):
    return Split(config, 'train[:256]', EVERYTHING)


# ---------------------------------------------------------------------------------- tables, batches
def test_what_the_tables_hold(split):
    tables = split.batch_tables()
    n, r = 256, split.meta.max_objects
    k = split.tables['facts'].shape[1]
    assert {name: (value.shape, value.dtype.name) for name, value in tables.items()} == {
        'image': ((n, 16, 16, 3), 'uint8'),
        'extent': ((n, 2), 'int32'),
        'mask': ((n, 16, 16, 1), 'uint8'),
        'object_masks': ((n, r, 64, 64), 'uint8'),
        'tokens': ((n, k, 64), 'int32'),
        'words': ((n, k), 'int32'),
        'chars': ((n, k, 201), 'uint8'),
        'facts': ((n, k, 6, 6), 'int32'),
        'label': ((n,), tables['label'].dtype.name),
        'box': ((n, 4), 'float32'),
        'boxes': ((n, r, 4), 'float32'),
        'object_labels': ((n, r), 'int32'),
        'attributes': ((n, split.meta.attributes), 'float32'),
        'dialog': ((n, 10, 24), 'int32'),
        'dialog_length': ((n, 10), 'int32'),
        'captioned': ((n,), 'bool'),
        'index': ((n,), 'int32'),
    }
    assert (
        np.array_equal(tables['index'], np.arange(n))
        and tables['captioned'].all()
        and (tables['dialog_length'] > 1).all()
    )
    for i in (0, 100, 255):
        assert ' '.join(
            split.vocabulary.decode(tables['tokens'][i, 0][: tables['words'][i, 0]])
        ) == ' '.join(split.vocabulary.decode(split.vocabulary.encode(split.texts[i][0], 64)[0]))
    rows, columns = np.meshgrid(
        (np.arange(64) + 0.5) / 64, (np.arange(64) + 0.5) / 64, indexing='ij'
    )
    for i in range(0, n, 16):  # one object: its box, the same as the main one, holds its mask
        assert (
            np.array_equal(tables['boxes'][i, 0], tables['box'][i])
            and tables['object_labels'][i, 0] >= 0
        )
        assert (
            (tables['object_labels'][i, 1:] == -1).all()
            and not tables['boxes'][i, 1:].any()
            and not tables['object_masks'][i, 1:].any()
        )
        (x, y, w, h), inside = tables['box'][i], tables['object_masks'][i, 0] > 127
        for centre, side, place in ((x, w, columns[inside]), (y, h, rows[inside])):
            np.testing.assert_allclose(
                [place.min(), place.max()], [centre - side / 2, centre + side / 2], atol=0.03
            )


def test_meta_is_what_the_data_know(split, config):
    meta = split.meta
    assert (meta.name, meta.size, meta.length, meta.nominal) == (
        'shape_scenes/single_quick/1.1.0',
        16,
        config.length,
        False,
    )
    assert (meta.vocabulary_size, meta.classes, meta.object_classes, meta.captions) == (
        len(split.vocabulary),
        42,
        6,
        1,
    )
    validation = Split(
        {**config, 'size': 32, 'captions': 2}, 'validation[:40]', ('tokens',), split.vocabulary
    )
    assert validation.vocabulary is split.vocabulary and (
        validation.meta.size,
        validation.meta.captions,
    ) == (32, 2)


def test_more_processes_than_the_machine_has_room_for_are_refused(config, trained):
    data = dict(config, cache='none', workers=512)
    with pytest.raises(DataError, match=r'data\.workers is 512, .* to at most \d+ \(0: threads\)'):
        Split(data, 'train[:8]', ('tokens',))
    assert len(Split({**data, 'cache': 'host'}, 'train[:8]', ('tokens',))) == 8
    # only training starts them
    stage = Run.open(trained)['gan']
    stage.data.update(cache='none', workers=512)
    assert len(stage.split('validation[:8]', ('tokens',), 'none')) == 8


def test_a_decoding_process_that_dies_is_told():
    def rows(message):
        yield {'index': 0}
        raise RuntimeError(message)

    for message, error in (
        ('Worker process was terminated unexpectedly with exit code -9.', DataError),
        ('another', RuntimeError),
    ):
        found = by_processes(rows(message))
        assert next(found) == {'index': 0}
        with pytest.raises(error, match='workers' if error is DataError else 'another'):
            next(found)


def collected(split, plan, cache, workers=0):
    found = list(host_batches(split, plan, 2, 5, cache, workers))
    if cache == 'device':
        (table,) = device_tables([split], jax.sharding.SingleDeviceSharding(jax.devices()[0]))
        found = [gather(table, rows, split.wrong_fields) for rows in found]
    return found


@pytest.mark.parametrize('resize, crop', [('squash', ''), ('squash', 'bbox'), ('keep', 'bbox')])
def test_the_ways_to_keep_the_data_give_equal_batches(config, resize, crop, monkeypatch):
    needs = ('image', 'wrong_image', 'wrong_tokens', 'tokens', 'mask', 'object_masks', 'chars')
    found = {}

    def read(cache, name, workers=0):
        part = Split(
            {**config, 'cache': cache, 'resize': resize, 'crop': crop, 'load_size': 20},
            'train[:64]',
            needs,
        )
        found[name] = collected(part, Plan(part, 8, 0, needs, captions=2), cache, workers)
        return part

    for cache in ('host', 'device', 'none'):
        read(cache, cache)
    if crop and resize == 'keep':
        read('none', 'processes', workers=2)
        monkeypatch.setattr(
            tables, 'free_memory', lambda: 1000
        )  # a machine without memory for the pictures
        whole = read('host', 'file')
        assert isinstance(whole.tables['image'], np.memmap)
        stamps = kept_files(whole)
        assert not [name for name in stamps if 'unfinished' in name]
        read('host', 'the file once more')
        assert kept_files(whole) == stamps  # built once
    assert set(found['host'][0]) == {
        'index',
        'image',
        'extent',
        'mask',
        'object_masks',
        'tokens',
        'words',
        'chars',
        'wrong_image',
        'wrong_extent',
        'wrong_tokens',
        'wrong_words',
    }
    assert len(found['host']) == 3 and found['host'][0]['tokens'].shape == (8, 2, 64)
    assert all(bit_equal(found['host'], other) for other in found.values())


def test_a_batch_is_gathered_from_the_rows_of_its_plan(split):
    plan = Plan(split, 8, 0, EVERYTHING)
    for step, batch in enumerate(collected(split, plan, 'host'), start=2):
        rows = plan(step)
        assert np.array_equal(batch['index'], rows['index']) and np.array_equal(
            batch['image'], split.tables['image'][rows['index']]
        )
        assert np.array_equal(batch['wrong_image'], split.tables['image'][rows['wrong']])
        assert np.array_equal(
            batch['tokens'][:, 0], split.tables['tokens'][rows['index'], rows['caption'][:, 0]]
        )
        assert np.array_equal(
            batch['wrong_tokens'][:, 0],
            split.tables['tokens'][rows['wrong'], rows['wrong_caption'][:, 0]],
        )


@pytest.mark.parametrize('cache', ['device', 'host', 'none'])
def test_the_shares_of_two_hosts_make_the_whole(split, config, cache):
    if cache == 'none':
        split = Split({**config, 'cache': 'none'}, 'train[:40]', ('image', 'wrong_image', 'tokens'))
    plan = Plan(split, 8, 0, ('image', 'wrong_image', 'tokens', 'wrong_tokens'))
    parts = [list(host_batches(split, plan, 0, 3, cache, share=(i, 2))) for i in (0, 1)]
    whole = list(host_batches(split, plan, 0, 3, cache))
    for one, two, both in zip(*parts, whole):
        assert set(one) == set(both) and all(
            bit_equal(np.concatenate([one[name], two[name]]), both[name]) for name in both
        )


def test_a_run_goes_on_at_its_step_and_may_leave_early(split):
    plan = Plan(split, 8, 0, EVERYTHING)
    whole = list(host_batches(split, plan, 0, 6, 'host', 2))
    assert bit_equal(whole[4:], list(host_batches(split, plan, 4, 6, 'host', 4)))
    some = host_batches(split, plan, 0, 10**9, 'host', 2)
    assert bit_equal(next(some), whole[0])
    some.close()


def test_records_without_captions(odd):
    split = Split(odd, 'train', ('image', 'wrong_image', 'tokens', 'captioned'))
    plan = Plan(split, 8, 0, ('image', 'wrong_image', 'tokens'), 'mixed')
    found = gather(split.batch_tables(), plan(0), split.wrong_fields)
    assert found['captioned'].tolist() == [True] * 4 + [False] * 4
    assert (
        (found['words'][:4] > 0).all()
        and not found['words'][4:].any()
        and not found['tokens'][4:].any()
    )
    with pytest.raises(DataError, match='Some records have no caption'):
        Plan(split, 4, 0, ('image',), captions=2)


def test_captions_of_a_part_of_the_training_records(config):
    needs, kept = ('tokens', 'chars', 'captioned', 'facts'), {}
    for part in (0.1, 0.5, 1.0):
        data = {**config, 'split': 'train[:40]', 'captioned_part': part}
        split = Split(data, 'train[:40]', needs)
        kept[part] = {row for row, texts in enumerate(split.texts) if texts}
        assert len(kept[part]) == 40 * part
        assert set(np.flatnonzero(split.tables['captioned'])) == kept[part]
        lacks = [row for row in range(40) if row not in kept[part]]
        for name in ('tokens', 'words', 'chars'):
            assert not split.tables[name][lacks].any()
        assert (split.tables['facts'][lacks] == -1).all()
    assert kept[0.1] < kept[0.5]
    few = Split({**config, 'split': 'train[:40]', 'captioned_part': 0.1}, 'train[:40]', needs)
    words = {word for row in kept[0.1] for text in split.texts[row] for word in tokenize(text)}
    assert set(few.vocabulary.words) == words
    # held-out captions are all read
    held_out = {**config, 'split': 'train', 'captioned_part': 0.1}
    assert all(Split(held_out, 'validation[:40]', needs).texts)


def test_parts_of_mirrored_pictures_change_their_names():
    assert dataset.mirrored(('back', 'left eye', 'left leg', 'right eye', 'right leg', 'tail')) == (
        0,
        3,
        4,
        1,
        2,
        5,
    )


# ----------------------------------------------------------------------------------------- refusals
def test_tables_that_do_not_fit_into_device_memory(split, monkeypatch):
    monkeypatch.setattr(tables, 'free_memory', lambda: 4_000_000)
    with pytest.raises(
        DataError, match=r'train\[:256\] \(0.01 GB\) .*do not fit into the memory of .*cache=host'
    ):
        device_tables([split], jax.sharding.SingleDeviceSharding(jax.devices()[0]))


@pytest.mark.parametrize(
    'needs, name, changes, parts',
    [
        (
            ('image', 'embedding'),
            'train',
            {},
            ["reads 'embedding'", 'shape_scenes/single_quick', 'captions', '--config.data.name'],
        ),
        (('image', 'wrong_image_features'), 'train', {}, ["reads 'image_features'"]),
        (('image',), 'trian', {}, ["no split 'trian'", 'train', 'validation', 'test_unseen']),
        (('image',), 'train[:0]', {}, ["'train[:0]'"]),
        (('image',), 'train[:x]', {}, ["no split 'train[:x]'"]),
        (('image',), 'train', dict(name='shapes/single'), ["no data set 'shapes'", 'shape_scenes']),
        (('image',), 'train', dict(name='shape_scenes/triple'), ["no config 'triple'", 'multi']),
        (('image',), 'train', dict(flip=True), ['never mirrored', 'data.flip=False']),
        (('image',), 'train', dict(resize='stretch'), ["'stretch'", "'squash' or 'keep'"]),
    ],
)
def test_data_that_cannot_be_read(config, needs, name, changes, parts):
    other = config.copy_and_resolve_references()
    other.update(changes)
    with pytest.raises((DataError, RunError)) as error:
        Split(other, name, needs)
    for part in parts:
        assert part in str(error.value)


def test_a_cache_that_does_not_exist(split):
    with pytest.raises(RunError, match="data.cache is 'disk'; it is 'device', 'host' or 'none'"):
        host_batches(split, Plan(split, 8, 0, ('image',)), 0, 1, 'disk', 1)
