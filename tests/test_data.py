"""Batches are the same however the data are kept, tables are made once; pictures always have three channels; boxes and masks go where their pixels go."""
import fcntl
import io
import os
import pathlib
import shutil
import threading

import cv2
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import bit_equal
from PIL import Image

from t2i_jax import kept, tables
from t2i_jax.augment import augment
from t2i_jax.data import Plan, batches, by_processes, gather
from t2i_jax.errors import DataError
from t2i_jax.pictures import Canvas, frame
from t2i_jax.tables import Split, device_tables

EVERYTHING = ('image', 'images', 'wrong_image', 'tokens', 'length', 'wrong_tokens', 'wrong_length', 'chars', 'label', 'box', 'boxes',
              'object_labels', 'object_masks', 'mask', 'attributes', 'dialog', 'dialog_length', 'facts', 'captioned', 'index')


@pytest.fixture(scope='module')
def config(on_shapes):
    return on_shapes('gan_cls_shapes').data.unlock()


@pytest.fixture(scope='module')
def split(config):
    return Split(config, 'train[:256]', EVERYTHING)


# ---------------------------------------------------------------------------------------------------------- tables on disk
def files(split):
    """The files in which tables are kept, by name and time."""
    return {path.name: path.stat().st_mtime_ns for path in (pathlib.Path(split.pictures.data_dir) / 'tables').glob('*/*')}


def same(a, b):
    return a.tables.keys() == b.tables.keys() and all(bit_equal(a.tables[name], b.tables[name]) for name in a.tables) and a.texts == b.texts


@pytest.fixture
def reads(monkeypatch):
    """The names of the tables for which records were read, a list for each pass."""
    passes, read = [], Split._read
    monkeypatch.setattr(Split, '_read', lambda self, pictures, names, *args: passes.append(sorted(names)) or read(self, pictures, names, *args))
    return passes


def test_records_are_read_once_and_then_only_for_what_is_new(config, reads):
    def of(*needs, part='train[:30]', **stage):
        return Split(config, part, needs, stage_data=stage)
    one = of('image', 'tokens', 'dialog', 'boxes')
    assert reads == [['boxes', 'extent', 'facts', 'image', 'label', 'rounds', 'scene', 'texts']]
    stamps = files(one)
    assert same(of('image', 'tokens', 'dialog', 'boxes'), one) and len(reads) == 1 and files(one) == stamps
    other = of('image', 'chars', 'boxes', 'object_labels', crop='bbox', load_size=20)
    assert reads[1:] == [['boxes', 'chars', 'extent', 'image', 'object_labels']]
    assert same(of('image', 'chars', 'boxes', 'object_labels', crop='bbox', load_size=20), other) and len(reads) == 2
    of('tokens', part='train[:31]')                                       # another split has tables of its own
    assert reads[2:] == [['facts', 'label', 'scene', 'texts']]
    assert same(of('image', 'tokens', 'dialog', 'boxes'), one) and len(reads) == 3


def test_tables_of_other_files_or_of_other_code_are_not_used(odd, reads, monkeypatch):
    one = Split(odd, 'train', ('image', 'tokens'))
    place, before = pathlib.Path(one.pictures.data_dir), files(one)
    left = next((place / 'tables').glob('*/image.*.npy')).with_suffix('.unfinished')
    left.write_bytes(b'half of a picture')
    record = next(place.glob('*train*'))
    os.utime(record, ns=(1, 1))
    assert same(Split(odd, 'train', ('image', 'tokens')), one) and len(reads) == 2
    assert files(one).keys() == before.keys() and all(files(one)[name] != before[name] for name in before)           # the older ones are gone
    monkeypatch.setattr(kept, 'MAKERS', ('text.py',))
    assert same(Split(odd, 'train', ('image', 'tokens')), one) and len(reads) == 3


def other_rows(path):
    path.write_bytes(b'["a"]') if path.suffix == '.json' else np.save(path, np.load(path)[:3])


@pytest.mark.parametrize('damage', [
    lambda path: path.unlink(),
    lambda path: path.write_bytes(b''),
    lambda path: path.write_bytes(path.read_bytes()[:200]),
    lambda path: path.write_bytes(b'PK\3\4' + path.read_bytes()),
    lambda path: path.write_bytes(path.read_bytes().replace(b'{', b'({', 1).replace(b'[[', b'[', 1)),
    other_rows])
@pytest.mark.parametrize('name', ['image', 'extent', 'texts'])
def test_a_table_that_is_missing_or_damaged_is_made_again(odd, reads, name, damage):
    one = Split(odd, 'train', ('image', 'tokens'))
    path = next((pathlib.Path(one.pictures.data_dir) / 'tables').glob(f'*/{name}.*'))
    whole = path.read_bytes()
    damage(path)
    assert same(Split(odd, 'train', ('image', 'tokens')), one) and path.read_bytes() == whole and name in reads[1]


@pytest.mark.parametrize('memory', [10 ** 9, 1000])
def test_where_a_data_set_cannot_be_written_it_is_read_each_time(odd, reads, memory, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(pathlib.Path, 'mkdir', refused)
    monkeypatch.setattr(tables, 'free_memory', lambda: memory)
    if memory < 10 ** 9:
        with pytest.raises(DataError, match=r'memory is too small, and .*tables.* cannot be written. Set --config.data.cache=none'):
            Split(odd, 'train', ('image',))
        return
    assert same(Split(odd, 'train', ('image',)), Split(odd, 'train', ('image',))) and len(reads) == 2


def test_a_full_disk_keeps_no_tables_and_stops_nothing(odd, reads, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')
    with monkeypatch.context() as patch:
        patch.setattr(kept.np, 'save', full)
        one = Split(odd, 'train', ('image',))
    assert not [name for name in files(one) if not name.endswith('.json')]
    stamps = files(one)
    with monkeypatch.context() as patch:                                  # nor do they take what little a disk has left
        patch.setattr(kept.shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(10 ** 9, 10 ** 9, 1000))
        patch.setattr(kept.Kept, 'alone', None)                           # nobody waits for what will not be kept
        Split(odd, 'train', ('image',))
    assert files(one) == stamps
    assert same(Split(odd, 'train', ('image',)), one) and [name for name in files(one) if name.startswith('image')]


def test_a_disk_that_is_too_small_for_the_pictures_is_told_before_they_are_read(odd, reads, monkeypatch):
    def full(*args):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(tables, 'free_memory', lambda: 1000)
    monkeypatch.setattr(os, 'posix_fallocate', full)
    with pytest.raises(DataError, match=r'has no room for the pictures of train, 0.0 GB: No space left on device. Set --config.data.cache=none'):
        Split(odd, 'train', ('image',))
    assert not reads and not list((pathlib.Path(tables.prepared(odd).data_dir) / 'tables').glob('*/*'))


@pytest.mark.parametrize('memory', [10 ** 9, 1000])
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
    assert not files(one) and same(Split(odd, 'train', ('image', 'tokens')), one)


def test_a_disk_without_locks_keeps_tables(odd, reads, monkeypatch):
    def refused(*args):
        raise OSError(37, 'No locks available')
    monkeypatch.setattr(tables, 'free_memory', lambda: 1000)
    monkeypatch.setattr(kept.fcntl, 'flock', refused)
    assert same(Split(odd, 'train', ('image',)), Split(odd, 'train', ('image',))) and len(reads) == 1


def test_two_processes_without_a_lock_fill_files_of_their_own(tmp_path):
    (tmp_path / 'record').write_text('data')
    one, two = (kept.Kept(tmp_path, 'train', 2, (), ()) for _ in range(2))
    with one.alone():
        rows = one.room('image', (2, 3), np.uint8)
        (two.folder / two.own).parent.mkdir(exist_ok=True)
        others = two.room('image', (2, 3), np.uint8)
        rows[:], others[:1] = 1, 2
        one.put({'image': rows})
        assert (one.find(['image'])['image'] == 1).all()
        with pytest.raises(ValueError, match='read-only'):
            rows[:] = 3
    assert sorted(path.suffix for path in one.folder.iterdir()) == ['.npy', '.unfinished']


def test_tables_that_were_interrupted_leave_nothing(odd, monkeypatch):
    monkeypatch.setattr(tables, 'free_memory', lambda: 1000)
    with pytest.raises(DataError, match='rose_7.jpg'):
        Split(odd, 'broken', ('image',))
    place = pathlib.Path(tables.prepared(odd).data_dir) / 'tables'
    assert not list(place.glob('*/*'))
    Split(odd, 'train', ('image',))
    assert {path.name.split('.')[0] for path in place.glob('*/*')} == {'image', 'extent', 'texts'}


def test_one_process_reads_and_the_others_wait(odd, reads, capsys):
    where = pathlib.Path(tables.prepared(odd).data_dir) / 'tables'
    where.mkdir()
    with open(where / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=Split, args=(odd, 'train', ('image',)))
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive() and not reads
    waiting.join(20)
    assert not waiting.is_alive() and len(reads) == 1 and 'Another process reads' in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------------- tables, batches
def test_what_the_tables_hold(split):
    tables = split.kept()
    n, r = 256, split.meta.max_objects
    k = split.tables['facts'].shape[1]
    assert {name: (value.shape, value.dtype.name) for name, value in tables.items()} == {
        'image': ((n, 16, 16, 3), 'uint8'), 'extent': ((n, 2), 'int32'), 'mask': ((n, 16, 16, 1), 'uint8'),
        'object_masks': ((n, r, 64, 64), 'uint8'),
        'tokens': ((n, k, 64), 'int32'), 'words': ((n, k), 'int32'), 'chars': ((n, k, 201), 'uint8'), 'facts': ((n, k, 6, 6), 'int32'),
        'label': ((n,), tables['label'].dtype.name), 'box': ((n, 4), 'float32'), 'boxes': ((n, r, 4), 'float32'),
        'object_labels': ((n, r), 'int32'),
        'attributes': ((n, split.meta.attributes), 'float32'), 'dialog': ((n, 10, 24), 'int32'), 'dialog_length': ((n, 10), 'int32'),
        'captioned': ((n,), 'bool'), 'index': ((n,), 'int32')}
    assert np.array_equal(tables['index'], np.arange(n)) and tables['captioned'].all() and (tables['dialog_length'] > 1).all()
    for i in (0, 100, 255):
        assert ' '.join(split.vocabulary.decode(tables['tokens'][i, 0][:tables['words'][i, 0]])) == \
            ' '.join(split.vocabulary.decode(split.vocabulary.encode(split.texts[i][0], 64)[0]))
    rows, columns = np.meshgrid((np.arange(64) + .5) / 64, (np.arange(64) + .5) / 64, indexing='ij')
    for i in range(0, n, 16):                                              # one object: its box, the same as the main one, holds its mask
        assert np.array_equal(tables['boxes'][i, 0], tables['box'][i]) and tables['object_labels'][i, 0] >= 0
        assert (tables['object_labels'][i, 1:] == -1).all() and not tables['boxes'][i, 1:].any() and not tables['object_masks'][i, 1:].any()
        (x, y, w, h), inside = tables['box'][i], tables['object_masks'][i, 0] > 127
        for centre, side, place in ((x, w, columns[inside]), (y, h, rows[inside])):
            np.testing.assert_allclose([place.min(), place.max()], [centre - side / 2, centre + side / 2], atol=.03)


def test_meta_is_what_the_data_know(split, config):
    meta = split.meta
    assert (meta.name, meta.size, meta.length, meta.nominal) == ('shape_scenes/single_quick/1.0.0', 16, config.length, False)
    assert (meta.vocabulary_size, meta.classes, meta.object_classes, meta.captions) == (len(split.vocabulary), 42, 6, 1)
    validation = Split(config, 'validation[:40]', ('tokens',), split.vocabulary, {'size': 32, 'captions': 2})
    assert validation.vocabulary is split.vocabulary and (validation.meta.size, validation.meta.captions) == (32, 2)


def test_a_decoding_process_that_dies_is_told():
    def rows(message):
        yield {'index': 0}
        raise RuntimeError(message)
    for message, error in (('Worker process was terminated unexpectedly with exit code -9.', DataError), ('another', RuntimeError)):
        found = by_processes(rows(message))
        assert next(found) == {'index': 0}
        with pytest.raises(error, match='workers' if error is DataError else 'another'):
            next(found)


def collected(split, plan, cache, workers=0):
    found = list(batches(split, plan, 2, 5, cache, workers))
    if cache == 'device':
        table, = device_tables([split], jax.sharding.SingleDeviceSharding(jax.devices()[0]))
        found = [gather(table, rows, split.wrong_fields) for rows in found]
    return found


@pytest.mark.parametrize('resize, crop', [('squash', ''), ('squash', 'bbox'), ('keep', 'bbox')])
def test_the_ways_to_keep_the_data_give_equal_batches(config, resize, crop, monkeypatch):
    needs = ('image', 'wrong_image', 'wrong_tokens', 'tokens', 'mask', 'object_masks', 'chars')
    found = {}

    def read(cache, name, workers=0):
        part = Split(config, 'train[:64]', needs, stage_data={'cache': cache, 'resize': resize, 'crop': crop, 'load_size': 20})
        found[name] = collected(part, Plan(part, 8, 0, needs, captions=2), cache, workers)
        return part
    for cache in ('host', 'device', 'none'):
        read(cache, cache)
    if crop and resize == 'keep':
        read('none', 'processes', workers=2)
        monkeypatch.setattr(tables, 'free_memory', lambda: 1000)            # a machine without memory for the pictures
        whole = read('host', 'file')
        assert isinstance(whole.tables['image'], np.memmap)
        stamps = files(whole)
        assert not [name for name in stamps if 'unfinished' in name]
        read('host', 'the file once more')
        assert files(whole) == stamps                                       # built once
    assert set(found['host'][0]) == {'index', 'image', 'extent', 'mask', 'object_masks', 'tokens', 'words', 'chars',
                                     'wrong_image', 'wrong_extent', 'wrong_tokens', 'wrong_words'}
    assert len(found['host']) == 3 and found['host'][0]['tokens'].shape == (8, 2, 64)
    assert all(bit_equal(found['host'], other) for other in found.values())


def test_a_batch_is_gathered_from_the_rows_of_its_plan(split):
    plan = Plan(split, 8, 0, EVERYTHING)
    for step, batch in enumerate(collected(split, plan, 'host'), start=2):
        rows = plan(step)
        assert np.array_equal(batch['index'], rows['index']) and np.array_equal(batch['image'], split.tables['image'][rows['index']])
        assert np.array_equal(batch['wrong_image'], split.tables['image'][rows['wrong']])
        assert np.array_equal(batch['tokens'][:, 0], split.tables['tokens'][rows['index'], rows['caption'][:, 0]])
        assert np.array_equal(batch['wrong_tokens'][:, 0], split.tables['tokens'][rows['wrong'], rows['wrong_caption'][:, 0]])


@pytest.mark.parametrize('cache', ['device', 'host', 'none'])
def test_the_shares_of_two_hosts_make_the_whole(split, config, cache):
    if cache == 'none':
        split = Split(config, 'train[:40]', ('image', 'wrong_image', 'tokens'), stage_data={'cache': 'none'})
    plan = Plan(split, 8, 0, ('image', 'wrong_image', 'tokens', 'wrong_tokens'))
    parts = [list(batches(split, plan, 0, 3, cache, share=(i, 2))) for i in (0, 1)]
    whole = list(batches(split, plan, 0, 3, cache))
    for one, two, both in zip(*parts, whole):
        assert set(one) == set(both) and all(bit_equal(np.concatenate([one[name], two[name]]), both[name]) for name in both)


def test_a_run_goes_on_at_its_step_and_may_leave_early(split):
    plan = Plan(split, 8, 0, EVERYTHING)
    whole = list(batches(split, plan, 0, 6, 'host', 2))
    assert bit_equal(whole[4:], list(batches(split, plan, 4, 6, 'host', 4)))
    some = batches(split, plan, 0, 10 ** 9, 'host', 2)
    assert bit_equal(next(some), whole[0])
    some.close()


# ------------------------------------------------------------------------------------------------------------ odd pictures
def encoded(array, mode=None, kind='PNG', **options):
    stream = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def gradient(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), np.full((height, width), 90)], -1).astype(np.uint8)


ODD = [('colour', encoded(gradient(20, 20))), ('grey', encoded(gradient(20, 20), 'L')), ('two_channels', encoded(gradient(20, 20), 'LA')),
       ('transparent', encoded(np.dstack([gradient(20, 20), np.full((20, 20), 7, np.uint8)]))), ('palette', encoded(gradient(20, 20), 'P')),
       ('bits', encoded(gradient(20, 20), '1')), ('sixteen', encoded(gradient(20, 20)[..., 0].astype(np.uint16) * 257)),
       ('jpeg', encoded(gradient(20, 20), None, 'JPEG', quality=98)), ('cmyk', encoded(gradient(20, 20), 'CMYK', 'JPEG', quality=98)),
       ('wide', encoded(gradient(20, 30))), ('wider', encoded(gradient(20, 80))), ('tall', encoded(gradient(25, 20))),
       ('tiny', encoded(gradient(3, 3)))]


class OddPictures(tfds.core.GeneratorBasedBuilder):
    """Pictures of all kinds, with 0 to 3 captions."""
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
            'image': tfds.features.Image(shape=(None, None, 3)), 'file_name': tfds.features.Text(),
            'captions': tfds.features.Sequence(tfds.features.Text())}), metadata=tfds.core.MetadataDict(flip=True))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(ODD), 'broken': self._generate_examples([('rose_7.jpg', ODD[7][1][:40] + b'xx')])}

    def _generate_examples(self, pictures):
        for number, (name, content) in enumerate(pictures):
            yield name, {'image': content, 'file_name': name, 'captions': [f'a {name} picture', 'a flower', 'red'][:number % 4]}


@pytest.fixture
def odd(monkeypatch, tmp_path_factory, config):
    """config.data of a data set whose pictures are of all kinds, without classes and facts."""
    builder = OddPictures(data_dir=tmp_path_factory.mktemp('odd'), file_format='array_record')
    builder.download_and_prepare()
    monkeypatch.setattr(tables, 'prepared', lambda config: builder)
    odd = config.copy_and_resolve_references()
    odd.update(size=20, load_size=0, resize='squash', cache='host')
    return odd


def test_every_picture_has_three_channels(odd):
    split = Split(odd, 'train', ('image',))
    pictures = {split.pictures.records([i])[0]['file_name'].decode(): image for i, image in enumerate(split.tables['image'])}
    assert set(pictures) == dict(ODD).keys() and split.tables['image'].shape == (len(ODD), 20, 20, 3)
    whole = gradient(20, 20).astype(int)
    assert np.array_equal(pictures['colour'], whole) and np.array_equal(pictures['transparent'], whole)            # red is red
    for name in ('grey', 'two_channels', 'sixteen', 'bits'):
        assert (pictures[name] == pictures[name][..., :1]).all()
    assert np.abs(pictures['grey'][..., 0] - whole @ [.299, .587, .114]).max() < 2
    assert np.array_equal(pictures['sixteen'][..., 0], whole[..., 0])
    for name, tolerance in (('jpeg', 12), ('palette', 60), ('cmyk', 12), ('wide', 12), ('wider', 12), ('tall', 12), ('tiny', 80)):
        assert np.abs(pictures[name] - whole).max() < tolerance, name


def test_keep_cuts_the_longer_side_at_one_and_a_half_times_the_shorter(odd):
    odd.update(resize='keep', size=16, load_size=20)
    for cache in ('host', 'none'):
        odd.cache = cache
        split = Split(odd, 'train', ('image',))
        found = split.pictures.rows(range(len(ODD))) if cache == 'none' else split.tables
        names = [split.pictures.records([i])[0]['file_name'].decode() for i in range(len(ODD))]
        extents = dict(zip(names, found['extent'].tolist()))
        assert found['image'].shape == (len(ODD), 30, 30, 3)
        assert [extents[name] for name in ('colour', 'wide', 'wider', 'tall', 'tiny')] == [[20, 20], [20, 30], [20, 30], [25, 20], [20, 20]]
        pictures = dict(zip(names, found['image']))
        assert np.array_equal(pictures['wide'][:20], gradient(20, 30))
        assert not pictures['wide'][20:].any() and not pictures['tall'][:, 20:].any()
        assert np.array_equal(pictures['wider'][:20], gradient(20, 80)[:, 25:55])                                     # its middle


def test_records_without_captions(odd):
    split = Split(odd, 'train', ('image', 'wrong_image', 'tokens', 'captioned'))
    plan = Plan(split, 8, 0, ('image', 'wrong_image', 'tokens'), 'mixed')
    found = gather(split.kept(), plan(0), split.wrong_fields)
    assert found['captioned'].tolist() == [True] * 4 + [False] * 4
    assert (found['words'][:4] > 0).all() and not found['words'][4:].any() and not found['tokens'][4:].any()
    with pytest.raises(DataError, match='Some records have no caption'):
        Plan(split, 8, 0, ('tokens',), captions=2)


def test_a_broken_picture_is_named(odd):
    with pytest.raises(DataError, match=r'The image of rose_7.jpg in split broken cannot be decoded'):
        Split(odd, 'broken', ('image',))
    odd.cache = 'none'
    split = Split(odd, 'broken', ('image',))
    with pytest.raises(DataError, match='rose_7.jpg'):
        list(batches(split, Plan(split, 1, 0, ('image',)), 0, 1, 'none', 1))


# ------------------------------------------------------------------------------------------------------------------ geometry
def test_the_crop_around_a_bird_is_the_one_of_the_papers():
    canvas = Canvas(64, False, 'bbox')
    # x 60 y 27 w 325 h 304 in a picture of 500 x 335: centre (222, 179), R = int(.75 * 325) = 243
    box = np.array([27 / 335, 60 / 500, (27 + 304) / 335, (60 + 325) / 500], np.float32)
    assert frame(335, 500, canvas, box).crop == (0, 0, 335, 465)
    # x 139 y 30 w 153 h 264 in 500 x 400: centre (215, 162), R = 198; nothing is cut off on the right
    box = np.array([30 / 400, 139 / 500, 294 / 400, 292 / 500], np.float32)
    assert frame(400, 500, canvas, box).crop == (0, 17, 360, 396)
    assert frame(400, 500, canvas, np.zeros(4)).crop == (0, 0, 400, 500)    # a box of no size: the whole picture


TOP, LEFT, BOTTOM, RIGHT, HEIGHT, WIDTH = 20, 60, 50, 90, 60, 150


class Rectangle(tfds.core.GeneratorBasedBuilder):
    """A dark picture with a bright rectangle, which is its box, mask and object, and whose upper corners are parts."""
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        box, picture = tfds.features.BBoxFeature(), tfds.features.Image(shape=(None, None, 1), encoding_format='png')
        objects = tfds.features.Sequence({'bbox': box, 'label': tfds.features.ClassLabel(num_classes=3), 'is_crowd': np.bool_})
        features = {'image': picture, 'mask': picture, 'object_masks': picture, 'bbox': box, 'objects': objects,
                    'parts': tfds.features.Tensor(shape=(3, 3), dtype=np.float32)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), metadata=tfds.core.MetadataDict(
            max_objects=3, mask_size=64, parts=['left eye', 'right eye', 'tail']))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
        pixels[TOP:BOTTOM, LEFT:RIGHT] = 255
        small = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)
        box = tfds.features.BBox(TOP / HEIGHT, LEFT / WIDTH, BOTTOM / HEIGHT, RIGHT / WIDTH)
        objects = [{'bbox': box, 'label': 2, 'is_crowd': False}, {'bbox': box, 'label': 1, 'is_crowd': True}]
        parts = np.array([[LEFT / WIDTH, TOP / HEIGHT, 1], [RIGHT / WIDTH, TOP / HEIGHT, 1], [0, 0, 0]], np.float32)
        for i in range(4):
            yield i, {'image': encoded(pixels), 'mask': encoded(pixels), 'object_masks': encoded(np.vstack([small, small, 0 * small])),
                      'bbox': box, 'objects': objects, 'parts': parts}


@pytest.fixture(scope='module')
def rectangle(tmp_path_factory):
    builder = Rectangle(data_dir=tmp_path_factory.mktemp('rectangle'), file_format='array_record')
    builder.download_and_prepare()
    return builder


@pytest.mark.parametrize('resize, crop, flip', [('squash', 'bbox', False), ('keep', '', False), ('keep', 'bbox', True), ('squash', '', True)])
def test_boxes_masks_and_parts_go_where_their_pixels_go(rectangle, monkeypatch, resize, crop, flip):
    monkeypatch.setattr(tables, 'prepared', lambda config: rectangle)
    config = dict(size=64, load_size=80, resize=resize, crop=crop, cache='host', flip=flip, length=4, scales=(), captions=1)
    split = Split(config, 'train', ('image', 'mask', 'object_masks', 'boxes', 'object_labels', 'box', 'parts'))
    both = 0
    for seed in range(6):
        raw = gather(split.kept(), {'index': np.arange(4), 'caption': np.zeros((4, 1), int)})
        batch = jax.tree.map(np.asarray, augment(raw, jax.random.key(seed), split.geometry, True))
        for i in range(4):
            seen = batch['image'][i, ..., 0] > 0
            ys, xs = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
            assert np.array_equal(seen, batch['mask'][i, ..., 0] > .5)
            if not len(xs):
                continue
            truth = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]) / 64
            for box in (batch['box'][i], batch['boxes'][i, 0]):
                assert np.abs(np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2]) - truth).max() < .03
            mask = cv2.resize(batch['object_masks'][i, 0], (64, 64)) > .5
            assert (mask != seen).mean() < .05
            assert batch['object_labels'][i].tolist() == [2, -1, -1] and not batch['object_masks'][i, 1:].any()       # a crowd is no object
            assert not batch['parts'][i, 2].any()
            ends = batch['parts'][i, :2]
            for end, x in zip(ends, truth[[0, 2]]):                         # mirrored, the left eye is still the one on the left
                assert not end[2] or abs(end[0] - x) < .03 and abs(end[1] - truth[1]) < .03
            both += ends[:, 2].all()
    assert both > 3


def test_parts_of_mirrored_pictures_change_their_names():
    assert tables.mirrored(('back', 'left eye', 'left leg', 'right eye', 'right leg', 'tail')) == (0, 3, 4, 1, 2, 5)


# ------------------------------------------------------------------------------------------------------------------ refusals
def test_tables_that_do_not_fit_into_device_memory(split, monkeypatch):
    monkeypatch.setattr(tables, 'free_memory', lambda: 4_000_000)
    with pytest.raises(DataError, match=r'train\[:256\] \(0.01 GB\) .*do not fit into the memory of .*cache=host'):
        device_tables([split], jax.sharding.SingleDeviceSharding(jax.devices()[0]))


@pytest.mark.parametrize('needs, name, changes, parts', [
    (('image', 'embedding'), 'train', {}, ["reads 'embedding'", 'shape_scenes/single_quick', 'captions', '--config.data.name']),
    (('image', 'wrong_image_features'), 'train', {}, ["reads 'image_features'"]),
    (('image',), 'trian', {}, ["no split 'trian'", 'train', 'validation', 'test_unseen']),
    (('image',), 'train[:0]', {}, ["'train[:0]'"]),
    (('image',), 'train[:x]', {}, ["no split 'train[:x]'"]),
    (('image',), 'train', dict(name='shapes/single'), ["no data set 'shapes'", 'shape_scenes']),
    (('image',), 'train', dict(name='shape_scenes/triple'), ["no config 'triple'", 'multi']),
    (('image',), 'train', dict(flip=True), ['never mirrored', 'data.flip=False']),
    (('image',), 'train', dict(resize='stretch'), ["'stretch'", 'squash or keep']),
])
def test_data_that_cannot_be_read(config, needs, name, changes, parts):
    other = config.copy_and_resolve_references()
    other.update(changes)
    with pytest.raises(DataError) as error:
        Split(other, name, needs)
    for part in parts:
        assert part in str(error.value)


def test_a_cache_that_does_not_exist(split):
    with pytest.raises(DataError, match="data.cache is 'disk'; it is device, host or none"):
        batches(split, Plan(split, 8, 0, ('image',)), 0, 1, 'disk', 1)
