"""Tables of a data set are made once and kept beside it.

What is damaged, old or not to be written stops nothing.
"""

import fcntl
import os
import pathlib
import shutil
import threading
import types

import numpy as np
import pytest
from helpers import bit_equal, kept_files

from t2i_jax.data import dataset, tables
from t2i_jax.data import store as kept
from t2i_jax.data.tables import Split
from t2i_jax.runtime.errors import DataError


def same(a, b):
    return (
        a.tables.keys() == b.tables.keys()
        and all(bit_equal(a.tables[name], b.tables[name]) for name in a.tables)
        and a.texts == b.texts
    )


@pytest.fixture
def reads(monkeypatch):
    """The names of the tables for which records were read, a list for each pass."""
    passes, read = [], Split._read
    monkeypatch.setattr(
        Split,
        '_read',
        lambda self, pictures, names, *args: (
            passes.append(sorted(names)) or read(self, pictures, names, *args)
        ),
    )
    return passes


def test_records_are_read_once_and_then_only_for_what_is_new(on_shapes, reads):
    config = on_shapes('gan_cls_shapes').data.unlock()

    def of(*needs, part='train[:30]', **stage):
        return Split({**config, **(stage or {})}, part, needs)

    one = of('image', 'tokens', 'dialog', 'boxes')
    assert reads == [['boxes', 'extent', 'facts', 'image', 'label', 'rounds', 'scene', 'texts']]
    stamps = kept_files(one)
    assert (
        same(of('image', 'tokens', 'dialog', 'boxes'), one)
        and len(reads) == 1
        and kept_files(one) == stamps
    )
    other = of('image', 'chars', 'boxes', 'object_labels', crop='bbox', load_size=20)
    assert reads[1:] == [['boxes', 'chars', 'extent', 'image', 'object_labels']]
    assert (
        same(of('image', 'chars', 'boxes', 'object_labels', crop='bbox', load_size=20), other)
        and len(reads) == 2
    )
    of('tokens', part='train[:31]')  # another split has tables of its own
    assert reads[2:] == [['facts', 'label', 'scene', 'texts']]
    assert same(of('image', 'tokens', 'dialog', 'boxes'), one) and len(reads) == 3


def test_tables_of_other_files_or_of_other_code_are_not_used(odd, reads, monkeypatch):
    one = Split(odd, 'train', ('image', 'tokens'))
    place, before = pathlib.Path(one.pictures.data_dir), kept_files(one)
    left = next((place / 'tables').glob('*/image.*.npy')).with_suffix('.unfinished')
    left.write_bytes(b'half of a picture')
    record = next(place.glob('*train*'))
    os.utime(record, ns=(1, 1))
    assert same(Split(odd, 'train', ('image', 'tokens')), one) and len(reads) == 2
    assert kept_files(one).keys() == before.keys() and all(
        kept_files(one)[name] != before[name] for name in before
    )  # the older ones are gone
    monkeypatch.setattr(kept, 'HERE', pathlib.Path(__file__).parent)
    assert same(Split(odd, 'train', ('image', 'tokens')), one) and len(reads) == 3


def other_rows(path):
    path.write_bytes(b'["a"]') if path.suffix == '.json' else np.save(path, np.load(path)[:3])


@pytest.mark.parametrize(
    'damage',
    [
        lambda path: path.unlink(),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(b'PK\3\4' + path.read_bytes()),
        lambda path: path.write_bytes(
            path.read_bytes().replace(b'{', b'({', 1).replace(b'[[', b'[', 1)
        ),
        other_rows,
        # of the right size and form
        lambda path: path.write_bytes(
            path.read_bytes()[:128] + bytes(len(path.read_bytes()) - 128)
        ),
        lambda path: path.write_bytes(path.read_bytes()[:-3] + b'  ]'),
        lambda path: path.with_suffix('.sum').unlink(),
        lambda path: path.with_suffix('.sum').write_bytes(b'\xff'),
    ],
)
@pytest.mark.parametrize('name', ['image', 'extent', 'texts'])
def test_a_table_that_is_missing_or_damaged_is_made_again(odd, reads, name, damage):
    one = Split(odd, 'train', ('image', 'tokens'))
    path = next((pathlib.Path(one.pictures.data_dir) / 'tables').glob(f'*/{name}.*[!m]'))
    whole = path.read_bytes()
    damage(path)
    assert (
        same(Split(odd, 'train', ('image', 'tokens')), one)
        and path.read_bytes() == whole
        and name in reads[1]
    )


@pytest.mark.parametrize('memory', [10**9, 1000])
def test_where_a_data_set_cannot_be_written_it_is_read_each_time(odd, reads, memory, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(pathlib.Path, 'mkdir', refused)
    monkeypatch.setattr(tables, 'free_memory', lambda: memory)
    if memory < 10**9:
        with pytest.raises(
            DataError,
            match=r'memory is too small, and .*tables.* cannot be written. Set '
            r'--config.data.cache=none',
        ):
            Split(odd, 'train', ('image',))
        return
    assert (
        same(Split(odd, 'train', ('image',)), Split(odd, 'train', ('image',))) and len(reads) == 2
    )


def test_a_full_disk_keeps_no_tables_and_stops_nothing(odd, reads, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(kept.np, 'save', full)
        one = Split(odd, 'train', ('image',))
    assert not [name for name in kept_files(one) if not name.endswith('.json')]
    stamps = kept_files(one)
    with monkeypatch.context() as patch:  # nor do they take what little a disk has left
        patch.setattr(kept.shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=1000))
        patch.setattr(kept.Store, 'alone', None)  # nobody waits for what will not be kept
        Split(odd, 'train', ('image',))
    assert kept_files(one) == stamps
    assert same(Split(odd, 'train', ('image',)), one) and [
        name for name in kept_files(one) if name.startswith('image')
    ]


def test_a_disk_that_is_too_small_for_the_pictures_is_told_before_they_are_read(
    odd, reads, monkeypatch
):
    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(tables, 'free_memory', lambda: 1000)
    monkeypatch.setattr(os, 'posix_fallocate', full)
    with pytest.raises(
        DataError,
        match=r'has no room for the pictures of train, 0.0 GB: No space left on device. Set '
        r'--config.data.cache=none',
    ):
        Split(odd, 'train', ('image',))
    assert not reads and not list(
        (pathlib.Path(dataset.prepared(odd).data_dir) / 'tables').glob('*/*')
    )


@pytest.mark.parametrize('memory', [10**9, 1000])
def test_the_folder_may_be_deleted_while_records_are_read(odd, memory, monkeypatch):
    read = Split._read

    def delete(self, *args):
        made = read(self, *args)
        shutil.rmtree(pathlib.Path(self.pictures.data_dir) / 'tables')
        return made

    monkeypatch.setattr(tables, 'free_memory', lambda: memory)
    with monkeypatch.context() as patch:
        patch.setattr(Split, '_read', delete)
        one = Split(odd, 'train', ('image', 'tokens'))
    assert not kept_files(one) and same(Split(odd, 'train', ('image', 'tokens')), one)


def test_a_disk_without_locks_keeps_tables(odd, reads, monkeypatch):
    def refused(*args):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(tables, 'free_memory', lambda: 1000)
    monkeypatch.setattr(kept.fcntl, 'flock', refused)
    assert (
        same(Split(odd, 'train', ('image',)), Split(odd, 'train', ('image',))) and len(reads) == 1
    )


def test_two_processes_without_a_lock_fill_files_of_their_own(tmp_path):
    (tmp_path / 'record').write_text('data')
    one, two = (kept.Store(tmp_path, 'train', 2, ()) for _ in range(2))
    with one.alone():
        rows = one.room('image', (2, 3), np.uint8)
        others = two.room('image', (2, 3), np.uint8)
        rows[:], others[:1] = 1, 2
        one.put({'image': rows})
        assert (one.find(['image'])['image'] == 1).all()
        with pytest.raises(ValueError, match='read-only'):
            rows[:] = 3
    assert sorted(path.suffix for path in one.folder.iterdir()) == ['.npy', '.sum', '.unfinished']


def test_tables_that_were_interrupted_leave_nothing(odd, monkeypatch):
    monkeypatch.setattr(tables, 'free_memory', lambda: 1000)
    with pytest.raises(DataError, match='rose_7.jpg'):
        Split(odd, 'broken', ('image',))
    place = pathlib.Path(dataset.prepared(odd).data_dir) / 'tables'
    assert not list(place.glob('*/*'))
    Split(odd, 'train', ('image',))
    assert {path.name.split('.')[0] for path in place.glob('*/*')} == {'image', 'extent', 'texts'}


def test_one_process_reads_and_the_others_wait(odd, reads, capsys):
    where = pathlib.Path(dataset.prepared(odd).data_dir) / 'tables'
    where.mkdir()
    with open(where / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=Split, args=(odd, 'train', ('image',)))
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive() and not reads
    waiting.join(20)
    assert (
        not waiting.is_alive()
        and len(reads) == 1
        and 'Another process reads' in capsys.readouterr().out
    )


def test_the_table_of_another_split_is_not_used(odd, reads):
    one, other = (Split(odd, split, ('image',)) for split in ('train[:2]', 'train[2:4]'))
    place = pathlib.Path(one.pictures.data_dir) / 'tables'
    first, second = sorted(place.glob('*/image.*.npy'))
    before = second.read_bytes()
    for ending in ('.npy', '.sum'):
        shutil.copy(first.with_suffix(ending), second.with_suffix(ending))
    assert same(Split(odd, 'train[:2]', ('image',)), one)
    assert same(Split(odd, 'train[2:4]', ('image',)), other) and second.read_bytes() == before
