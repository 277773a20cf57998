"""CUB-200-2011 with captions, built from tiny archives in the original layout."""

import gzip
import pickle
import re
import tarfile
import zipfile

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from archives import build_in, records, write_tar
from archives import jpeg as tiny_jpeg
from test_old_downloads import attngan, chars, put, t7_file, vectors

from t2i_jax import config as settings
from t2i_jax.data.dataset import Dataset
from tfds_builders import DataError, build, class_splits, files, get_builder
from tfds_builders.cub200_captions import archives
from tfds_builders.cub200_captions.builder import IMAGES_URL, MASKS_URL, Cub200Captions
from tfds_builders.inspect import describe

PARTS_AND_ATTRIBUTES = [
    'parts/parts.txt',
    'parts/part_locs.txt',
    'attributes/image_attribute_labels.txt',
]
RANDOM = class_splits.drawn(100, 50, 50)
A, B, C, D = *sorted(RANDOM['train'])[:2], min(RANDOM['validation']), min(RANDOM['test'])
CLASSES = [A, B, C, D] * 3  # three images a class, image 1 first
NUMBERS = range(1, len(CLASSES) + 1)
LISTS = {'train': [A], 'validation': [B], 'test': [C, D]}
CAPTIONS = ''.join(f'this bird has {n} red feathers\n' for n in range(10)).encode()
SIZE = 20, 25  # height, width
ALL_MASKS = 'cub200_captions/masks'


def name_of(number, s=''):
    """The path of an image without its suffix.

    In Reed's archive class folders may have an s that CUB_200_2011 lacks.
    """
    return f'{CLASSES[number - 1]:03d}.Brewer{s}_Bird/Brewer_Bird_{number:04d}_{9000 + number}'


def file_of(number):
    return f'{name_of(number)}.jpg'


def jpeg(number, shape=(*SIZE, 3)):
    return tiny_jpeg(number, shape)


def lines(rows):
    return ''.join(' '.join(map(str, row)) + '\n' for row in rows).encode()


def tables(boxes=None):
    """The text files of CUB_200_2011.tgz.

    Attribute k of image i is present when (i + k) % 3 == 0; certainty 1 makes number 3 unseen.
    """
    folder = 'CUB_200_2011/'
    return {
        'attributes.txt': lines((k, f'has_thing::{k}') for k in range(1, 313)),
        folder + 'images.txt': lines((n, file_of(n)) for n in NUMBERS),
        folder + 'image_class_labels.txt': lines((n, CLASSES[n - 1]) for n in NUMBERS),
        folder + 'classes.txt': lines(
            (k, f'{k:03d}.Brewer_Bird' if k in CLASSES else f'{k:03d}.Bird_{k}')
            for k in range(1, 201)
        ),
        folder + 'bounding_boxes.txt': lines(
            (n, *(boxes or {}).get(n, (5.0, 4.0, 10.0, 8.0))) for n in NUMBERS
        ),
        folder + 'train_test_split.txt': lines((n, 1) for n in NUMBERS),
        folder + 'parts/parts.txt': lines((k, f'left part {k}') for k in range(1, 16)),
        folder + 'parts/part_locs.txt': lines(
            (n, k, 2.0 * k if k < 13 else 0.0, 1.0 * k if k < 13 else 0.0, int(k < 13))
            for n in (*NUMBERS, 999)
            for k in range(1, 16)
        ),
        folder + 'attributes/image_attribute_labels.txt': lines(
            (n, k, int((n + k) % 3 == 0), 1 if k == 3 else 4, *([0, 1.5] if k == 10 else [2.5]))
            for n in (*NUMBERS, 999)
            for k in range(1, 313)
        ),
    }


def make(folder, *, lists=None, images=None, captions=None, boxes=None, text=None):
    """The archives, as Caltech and Reed et al. pack them; `images` and `captions` replace
    (None: remove) single files by number, `boxes` lines of bounding_boxes.txt, `text` whole
    tables."""
    folder.mkdir(exist_ok=True, parents=True)
    contents = tables(boxes) | {f'CUB_200_2011/{name}': data for name, data in (text or {}).items()}
    contents |= {
        f'CUB_200_2011/images/{file_of(n)}': data
        for n, data in ({n: jpeg(n) for n in NUMBERS} | (images or {})).items()
    }
    contents |= {'CUB_200_2011/images/._hidden_0001_2.jpg': b'?', '../../outside.txt': b'?'}
    write_tar(
        folder / 'CUB_200_2011.tgz',
        {name: data for name, data in contents.items() if data is not None},
    )

    texts = {n: CAPTIONS for n in NUMBERS} | (captions or {})
    contents = {
        f'text_c10/{name_of(n, "s")}.txt': data for n, data in texts.items() if data is not None
    }
    contents |= {
        class_splits.LISTS[split]: ''.join(f'{c:03d}.Brewers_Bird\n' for c in members).encode()
        for split, members in (lists or {}).items()
    }
    contents |= {'trainvalclasses.txt': b'?', 'word_c10/001.A_Bird/A_Bird_0001_2.t7': b'?'}
    write_tar(
        folder / 'cvpr2016_cub.tar.gz',
        {f'cvpr2016_cub/{name}': data for name, data in contents.items()},
    )
    return folder


def make_masks(folder, masks=None):
    votes = np.zeros(SIZE, np.uint8)
    votes[4:12, 5:15] = 153
    votes[12:14, 5:15] = 102  # two of five: not enough
    masks = {n: cv2.imencode('.png', votes)[1].tobytes() for n in NUMBERS} | (masks or {})
    write_tar(
        folder / 'segmentations.tgz',
        {f'segmentations/{name_of(n)}.png': data for n, data in masks.items() if data is not None},
    )
    return folder


def built(tmp_path, name='cub200_captions', **kwargs):
    return build_in(tmp_path, name, **kwargs)


def test_a_record_carries_all_that_the_archives_say(tmp_path, warnings):
    make(tmp_path / 'manual', lists=LISTS)
    builder = built(tmp_path)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        'train': 3,
        'validation': 3,
        'test': 6,
    }
    assert not warnings
    metadata = builder.info.metadata
    assert (metadata['split_rule'], metadata['captions_per_image'], metadata['flip']) == (
        'reed_cvpr2016',
        10,
        True,
    )
    assert set(metadata['sha256']) == {'CUB_200_2011.tgz', 'cvpr2016_cub.tar.gz'}
    assert metadata['parts'][0] == 'left part 1' and metadata['attributes'][311] == 'has_thing::312'

    test = records(builder, 'test')
    assert sorted(test) == sorted(file_of(n) for n in (3, 4, 7, 8, 11, 12))
    record = test[file_of(4)]
    assert record['image'] == jpeg(4)  # the bytes of the archive, not encoded again
    assert [c.decode() for c in record['captions']] == CAPTIONS.decode().splitlines()
    assert record['label'] == D - 1 and record['class_name'].decode() == f'{D:03d}.Brewer_Bird'
    np.testing.assert_allclose(record['bbox'], [4 / 20, 5 / 25, 12 / 20, 15 / 25])
    assert record['parts'].shape == (15, 3) and record['parts'].dtype == np.float32
    np.testing.assert_allclose(
        record['parts'][[0, 11, 12]], [[2 / 25, 1 / 20, 1], [24 / 25, 12 / 20, 1], [0, 0, 0]]
    )
    assert record['attributes'].shape == (312,) and record['attributes'].dtype == np.float32
    present = np.array([(4 + k) % 3 == 0 for k in range(1, 313)])
    np.testing.assert_array_equal(record['attributes'], present)
    assert records(builder, 'train')[file_of(9)]['attributes'][2] == 0  # present, but not visible
    assert not (tmp_path / 'outside.txt').exists()

    again = get_builder(
        'cub200_captions', data_dir=tmp_path / 'data'
    )  # reading needs no manual folder
    assert again.info.features['label'].names[D - 1] == f'{D:03d}.Brewer_Bird'
    assert 'reed_cvpr2016' in build.report(again)


def test_without_lists_the_split_is_our_own_and_says_so_once(tmp_path, warnings):
    make(tmp_path / 'manual')
    builder = built(tmp_path)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        'train': 6,
        'validation': 3,
        'test': 3,
    }
    assert builder.info.metadata['split_rule'] == 'random150_seed0'
    assert len(warnings) == 1 and 'not comparable with published numbers' in warnings[0]


def unpack(manual, archive):
    with tarfile.open(manual / archive) as tar:
        tar.extractall(manual, [m for m in tar if '..' not in m.name], filter='data')
    (manual / archive).unlink()


def test_archives_may_be_unpacked(tmp_path, warnings):
    manual = make_masks(make(tmp_path / 'manual', lists=LISTS))
    for archive in ('CUB_200_2011.tgz', 'cvpr2016_cub.tar.gz', 'segmentations.tgz'):
        unpack(manual, archive)
    builder = built(tmp_path, ALL_MASKS)
    assert builder.info.metadata['split_rule'] == 'reed_cvpr2016' and not warnings
    assert (
        builder.info.metadata['attributes'][0] == 'has_thing::1'
    )  # from attributes.txt beside the folder
    assert builder.info.metadata['sha256'] == {}
    assert records(builder, 'test')[file_of(4)]['image'] == jpeg(4)


@pytest.mark.parametrize(
    'where, packed',
    [
        ('birds/text', False),
        ('birds/text_c10', False),
        ('text', False),
        ('birds/text.zip', True),
        ('text.zip', True),
    ],
)
def test_captions_of_stackgan_and_attngan(tmp_path, warnings, where, packed):
    manual = make(tmp_path / 'manual')
    (manual / 'cvpr2016_cub.tar.gz').unlink()
    text = manual / where
    text.parent.mkdir(exist_ok=True)
    if packed:
        with zipfile.ZipFile(text, 'w') as archive:
            for n in NUMBERS:
                archive.writestr(f'text/{name_of(n)}.txt', CAPTIONS)
            archive.writestr(f'__MACOSX/text/{A:03d}.Bird/._Bird_0001_9001.txt', b'?')
    else:
        for n in NUMBERS:
            file = text / f'{name_of(n)}.txt'
            file.parent.mkdir(exist_ok=True, parents=True)
            file.write_bytes(CAPTIONS)
    for split, members in LISTS.items():  # beside the captions
        (text.parent / class_splits.LISTS[split]).write_text(
            ''.join(f'{c:03d}.Brewers_Bird\r\n' for c in members)
        )
    builder = built(tmp_path)
    assert builder.info.metadata['split_rule'] == 'reed_cvpr2016' and not warnings
    assert len(records(builder, 'test')) == 6


def test_captions_are_cleaned(tmp_path, warnings):
    text = '\r\n'.join(['a red\ufffd\ufffdbird ', '', ' \t ', '...', 'café wings', *'bcdefghijk'])
    make(tmp_path / 'manual', captions={1: text.encode()})
    captions = records(built(tmp_path), 'train')[file_of(1)]['captions']
    assert [c.decode() for c in captions] == [
        'a red bird',
        'café wings',
        *'bcdefghi',
    ]  # the first ten


def test_masks_are_what_most_voted_for(tmp_path, warnings):
    make_masks(make(tmp_path / 'manual'))
    mask = records(built(tmp_path, ALL_MASKS), 'train')[file_of(1)]['mask']
    mask = cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_UNCHANGED)
    expected = np.zeros(SIZE, np.uint8)
    expected[4:12, 5:15] = 255
    np.testing.assert_array_equal(mask, expected)


def icml(**records):
    """Files of cub_icml whose sentences are those of the caption archive.

    `records`: {'n5': bytes or fields} of image 5.
    """
    files = {}
    for n in NUMBERS:
        change = records.get(f'n{n}', {})
        data = (
            change
            if isinstance(change, bytes)
            else t7_file(n, **{'char': chars(CAPTIONS.decode().splitlines())} | change)
        )
        files[f'cub_icml/{name_of(n, "s")}.t7'] = data
    return files


def stackgan(text):
    names = [name_of(n) for n in NUMBERS]
    files = {
        'birds/train/filenames.pickle': names[2:],
        'birds/train/char-CNN-RNN-embeddings.pickle': [vectors(n) for n in NUMBERS][2:],
        'birds/test/filenames.pickle': names[:2],
        'birds/test/char-CNN-RNN-embeddings.pickle': [vectors(1), vectors(2)],
    }
    files = {name: pickle.dumps(value, 2) for name, value in files.items()}
    return files | {f'birds/text_c10/{name_of(n)}.txt': CAPTIONS for n in NUMBERS if text}


def of(record):
    return [caption.decode() for caption in record['captions']]


LINES = CAPTIONS.decode().splitlines()
WITH_VECTORS = 'cub200_captions/embeddings'


@pytest.mark.parametrize(
    'name, files',
    [
        ('cub_icml.tar.gz', icml()),
        ('cub_icml', icml()),
        ('birds.zip', stackgan(True)),
        ('birds.zip', stackgan(False)),
        ('birds', stackgan(False)),
    ],
)
def test_sentence_vectors_lie_beside_their_captions(tmp_path, warnings, name, files):
    manual = make(tmp_path / 'manual', lists=LISTS)
    put(
        manual / name,
        files if '.' in name else {path.partition('/')[2]: data for path, data in files.items()},
    )
    builder = built(tmp_path, WITH_VECTORS)
    found = records(builder, 'train+validation+test')
    assert len(found) == 12 and not warnings
    for n in NUMBERS:
        record = found[file_of(n)]
        assert (
            record['embedding'].dtype == np.float32
            and np.array_equal(record['embedding'], vectors(n))
            and of(record) == LINES
        )
    metadata = builder.info.metadata
    assert (metadata['split_rule'], metadata['captions_of_vectors']) == ('reed_cvpr2016', 0)
    assert (name in metadata['sha256']) == (manual / name).is_file()


def test_vectors_follow_the_order_of_the_captions_or_bring_their_own(tmp_path, warnings):
    other = [f'other words {j}' for j in range(10)]
    manual = make(tmp_path / 'manual', lists=LISTS, captions={9: None})
    put(
        manual / 'cub_icml.tar.gz', icml(n1={'char': chars(LINES[::-1])}, n5={'char': chars(other)})
    )
    builder = built(tmp_path, WITH_VECTORS)
    train = records(builder, 'train')
    assert (
        np.array_equal(train[file_of(1)]['embedding'], vectors(1)[::-1])
        and of(train[file_of(1)]) == LINES
    )
    assert (
        np.array_equal(train[file_of(5)]['embedding'], vectors(5))
        and of(train[file_of(5)]) == other
    )
    assert of(train[file_of(9)]) == LINES  # it has no captions but those of the vectors
    assert builder.info.metadata['captions_of_vectors'] == 2 and len(warnings) == 1
    assert '2 images get the sentences that come with their vectors' in warnings[0]


@pytest.mark.parametrize(
    'name, files, sentence',
    [
        (
            'cub_icml.tar.gz',
            icml()
            | {
                f'cub_icml/{class_splits.LISTS[split]}': b''.join(
                    b'%03d.Brewers_Bird\n' % c for c in members
                )
                for split, members in LISTS.items()
            },
            LINES[3],
        ),
        ('birds.zip', stackgan(True), LINES[3]),
        (
            'birds.zip',
            attngan(
                captions=[
                    [[1, j, 0] for n in NUMBERS for j in range(2, 12)],
                    [],
                    {j: f'w{j}' for j in range(1, 12)},
                    {},
                ],
                train=[name_of(n) for n in NUMBERS],
                test=None,
            ),
            'w1 w5',
        ),
    ],
)
@pytest.mark.parametrize('config', ['plain', 'embeddings'])
def test_captions_come_from_other_downloads_where_the_archive_is_missing(
    tmp_path, warnings, name, files, sentence, config
):
    manual = make(tmp_path / 'manual')
    (manual / 'cvpr2016_cub.tar.gz').unlink()
    put(manual / name, files)
    if sentence == 'w1 w5' and config == 'embeddings':
        with pytest.raises(
            DataError,
            match='birds.zip has train/filenames.pickle, but no '
            'train/char-CNN-RNN-embeddings.pickle',
        ):
            built(tmp_path, WITH_VECTORS)
        return
    builder = built(tmp_path, f'cub200_captions/{config}')
    record = records(builder, 'train')[file_of(5 if name == 'birds.zip' else 1)]
    assert of(record)[3] == sentence and len(record['captions']) == 10
    assert ('embedding' in record) == (config == 'embeddings')
    assert builder.info.metadata['split_rule'] == (
        'reed_cvpr2016' if name == 'cub_icml.tar.gz' else 'random150_seed0'
    )


@pytest.mark.parametrize(
    'change, named',
    [
        (b'\x04', '.*_0005_9005.t7 cannot be read: it ends early'),
        ({'txt': vectors(5, 9), 'char': chars(LINES[:9])}, '9 sentence vectors instead of 10'),
        ({'txt': vectors(5)[:, :9]}, r'.*shape \(10, 9\)'),
        ({'char': np.zeros((201, 10), np.uint8)}, 'caption 1, 2, .* has no word'),
        (None, 'no sentence vectors'),
    ],
)
def test_a_vector_that_cannot_be_used_is_refused_or_left_out(tmp_path, warnings, change, named):
    manual = make(tmp_path / 'manual')
    put(
        manual / 'cub_icml.tar.gz',
        {
            name: data
            for name, data in icml(n5=change or {}).items()
            if change or '_0005_' not in name
        },
    )
    with pytest.raises(DataError, match=f'{file_of(5)}: {named}'):
        built(tmp_path, WITH_VECTORS)
    builder = built(tmp_path, WITH_VECTORS, on_error='skip')
    assert sorted(records(builder, 'train')) == sorted(file_of(n) for n in (1, 2, 6, 9, 10))


@pytest.mark.parametrize(
    'name, files, named',
    [
        (None, {}, 'cub_icml.tar.gz with the sentence vectors .*cub200_captions/plain.* is not in'),
        (
            'cub_icml.tar.gz',
            {'cub_icml/readme.t7': b''},
            'cub_icml.tar.gz holds no .t7 file of an image',
        ),
        (
            'cub_icml.tar.gz',
            icml() | {f'cub_icml/{CLASSES[0]:03d}.Other/Bird_1_9001.t7': t7_file(1)},
            r'holds image \(\d+, 1, 9001\) twice',
        ),
        (
            'birds.zip',
            stackgan(True) | {'birds/train/filenames.pickle': b'cos\nsystem\n(S"touch here"\ntR.'},
            'train/filenames.pickle asks for os.system',
        ),
        (
            'birds.zip',
            {'birds/text_c10/readme.txt': b''},
            'birds.zip holds no train/filenames.pickle',
        ),
    ],
)
def test_each_mistake_with_vectors_is_named(tmp_path, warnings, name, files, named):
    manual = make(tmp_path / 'manual')
    if name:
        put(manual / name, files)
    with pytest.raises(DataError, match=named):
        built(tmp_path, WITH_VECTORS)
    assert not list((tmp_path / 'data').rglob('*.array_record*'))


@pytest.mark.parametrize(
    'file, key',
    [
        ('002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg', (2, 2, 1027)),
        ('022.Chuck_will_Widow/Chuck_Will_Widow_0028_796982.jpg', (22, 28, 796982)),
        ('022.Chuck_wills_Widow/Chuck-Will_7_Widow_0028_796982.jpg', (22, 28, 796982)),
    ],
)
def test_keys_are_the_numbers_of_a_name(file, key):
    assert archives.key_of(re.fullmatch(archives.PICTURE, file)) == key


def test_a_box_that_crosses_the_border_is_cut():
    assert archives.bbox((-5, 10, 30, 20), (20, 50)) == (0.5, 0, 1, 0.5)
    assert archives.bbox((0, 0, 50, 20), (20, 50)) == (0, 0, 1, 1)


def test_parts_are_fractions_of_the_picture():
    parts = np.zeros((15, 3), np.float32)
    parts[0], parts[1], parts[2] = (25, 5, 1), (60, -1, 1), (np.nan, 9, 0)
    np.testing.assert_array_equal(
        archives.relative(parts, (20, 50))[:3], [[0.5, 0.25, 1], [1, 0, 1], [0, 0, 0]]
    )


def without(table, number):
    return {
        table: b''.join(
            row
            for row in tables()['CUB_200_2011/' + table].splitlines(True)
            if not row.startswith(b'%d ' % number)
        )
    }


def replaced(table, old, new):
    return {table: tables()['CUB_200_2011/' + table].replace(old, new)}


@pytest.mark.parametrize(
    'fault, named',
    [
        (dict(images={5: jpeg(5)[:-200]}), 'cannot be decoded'),
        (dict(images={5: b'no picture'}), 'cannot be decoded'),
        (dict(images={5: b''}), 'cannot be decoded'),
        (dict(images={5: None}), 'is not among the images of CUB_200_2011.tgz'),
        (dict(captions={5: b'only one\n\n'}), '1 captions instead of 10'),
        (dict(captions={5: None}), 'no caption file'),
        (
            dict(boxes={5: ('nan', 4, 10, 8)}),
            'bounding box .x nan, y 4, width 10, height 8. has no extent',
        ),
        (dict(boxes={5: (5, 4, 'inf', 8)}), 'has no extent'),
        (dict(boxes={5: (5, 4, 0, 8)}), 'has no extent'),
        (dict(boxes={5: (5, 4, 10, -8)}), 'has no extent'),
        (dict(boxes={5: (25, 4, 10, 8)}), 'lies outside the picture, 25 x 20'),
        (dict(boxes={5: (5, -9, 10, 8)}), 'lies outside the picture, 25 x 20'),
        (dict(text=without('bounding_boxes.txt', 5)), 'no boxes'),
        (dict(text=without('parts/part_locs.txt', 5)), 'no parts'),
        (dict(text=without('attributes/image_attribute_labels.txt', 5)), 'no attributes'),
        (dict(text=without('image_class_labels.txt', 5)), 'but image_class_labels.txt has None'),
        (
            dict(text=replaced('image_class_labels.txt', b'5 %d\n' % A, b'5 %d\n' % B)),
            f'folder of class {A}, but image_class_labels.txt has {B}',
        ),
        (
            dict(text=replaced('parts/part_locs.txt', b'\n5 1 2.0', b'\n5 1 nan')),
            'a visible part has no finite location',
        ),
    ],
)
def test_an_image_that_cannot_be_used_is_refused_or_left_out(tmp_path, warnings, fault, named):
    make(tmp_path / 'manual', **fault)
    with pytest.raises(DataError, match=f'1 records .*{file_of(5)}: .*{named}'):
        built(tmp_path)
    assert not list((tmp_path / 'data').rglob('*.array_record*'))  # nothing half-built is left
    builder = built(tmp_path, on_error='skip')
    assert sorted(records(builder, 'train')) == sorted(file_of(n) for n in (1, 2, 6, 9, 10))
    assert list(builder.info.metadata['skipped']) == [file_of(5)]
    assert any(file_of(5) in message for message in warnings)


@pytest.mark.parametrize(
    'mask, named',
    [
        (None, 'no mask that can be decoded'),
        (b'no picture', 'no mask that can be decoded'),
        (
            cv2.imencode('.png', np.zeros((21, 25), np.uint8))[1].tobytes(),
            'image is 25 x 20, mask 25 x 21',
        ),
    ],
)
def test_each_image_needs_its_mask(tmp_path, warnings, mask, named):
    make_masks(make(tmp_path / 'manual'), {5: mask})
    with pytest.raises(DataError, match=f'{file_of(5)}: {named}'):
        built(tmp_path, ALL_MASKS)


def write(name, data):
    return lambda manual: (manual / name).write_bytes(data)


def remove(name):
    return lambda manual: (manual / name).unlink()


def truncate(name):
    return lambda manual: (manual / name).write_bytes(
        (data := (manual / name).read_bytes())[: len(data) // 2]
    )


def cut_inside(name):
    """An archive whose gzip layer is whole, but whose tar ends early."""
    return lambda manual: (manual / name).write_bytes(
        gzip.compress(gzip.decompress((manual / name).read_bytes())[:1700])
    )


def empty(manual):
    for file in manual.iterdir():
        file.unlink()


def half_a_folder(manual):
    unpack(manual, 'CUB_200_2011.tgz')
    (manual / 'CUB_200_2011' / 'parts' / 'parts.txt').unlink()
    (manual / 'CUB_200_2011' / 'bounding_boxes.txt').unlink()


def with_text(**text):
    """Tables replaced: `images='...'` stands for images.txt."""
    return lambda manual: make(manual, text={f'{name}.txt': data for name, data in text.items()})


@pytest.mark.parametrize(
    'spoil, named',
    [
        (empty, 'manual is empty'),
        (lambda manual: (empty(manual), manual.rmdir()), 'manual does not exist'),
        (remove('cvpr2016_cub.tar.gz'), 'The caption archive is not in .*cvpr2016_cub.tar.gz'),
        (truncate('CUB_200_2011.tgz'), 'CUB_200_2011.tgz is broken or ends early'),
        (cut_inside('CUB_200_2011.tgz'), 'CUB_200_2011.tgz is broken or ends early'),
        (truncate('cvpr2016_cub.tar.gz'), 'cvpr2016_cub.tar.gz is broken or ends early'),
        (write('cvpr2016_cub.tar.gz', b'<html>Sign in</html>'), 'cvpr2016_cub.tar.gz is broken'),
        (
            lambda manual: write_tar(manual / 'cvpr2016_cub.tar.gz', {'readme.txt': b''}),
            'holds no captions',
        ),
        (
            lambda manual: write_tar(
                manual / 'cvpr2016_cub.tar.gz',
                {f'text/{s}.Bird/Bird_0001_2.txt': CAPTIONS for s in ('001', '1')},
            ),
            'two files of class 001',
        ),
        (
            lambda manual: write_tar(manual / 'CUB_200_2011.tgz', {}),
            'lacks images.txt, image_class_labels.txt, classes.txt',
        ),
        (half_a_folder, 'CUB_200_2011 lacks bounding_boxes.txt, parts/parts.txt. Fetch'),
        (
            with_text(images=b'1 %s\n\nnonsense\n' % file_of(1).encode()),
            "images.txt, line 3 is 'nonsense'; expected <image_id>",
        ),
        (
            with_text(images=b'1 001.Bird/portrait.jpg\n'),
            "images.txt, line 1 is '1 001.Bird/portrait.jpg'",
        ),
        (with_text(images=b'1 ../Bird_1_2.jpg\n'), 'images.txt, line 1'),
        (with_text(images=b'1 \xff\n'), 'images.txt, line 1'),
        (with_text(images=2 * f'1 {file_of(1)}\n'.encode()), 'images.txt has image 1 twice'),
        (
            with_text(images=f'1 {file_of(1)}\n2 {file_of(1)}\n'.encode()),
            f'images.txt has two files of class {A:03d}',
        ),
        (
            with_text(bounding_boxes=b'1 60.0 27.0 325.0\n'),
            'bounding_boxes.txt, line 1 is .* expected <image_id> <x> <y> <width> <height>',
        ),
        (with_text(bounding_boxes=b'1 60.0 27.0 325.0 wide\n'), 'bounding_boxes.txt, line 1'),
        (with_text(image_class_labels=b'1 201\n'), 'image_class_labels.txt, line 1'),
        (with_text(**{'parts/part_locs': b'1 16 0 0 0\n'}), 'parts/part_locs.txt, line 1'),
        (
            with_text(**{'attributes/image_attribute_labels': b'1 1 1 4 2.5\n1 313 1 4 2.5\n'}),
            'image_attribute_labels.txt, line 2',
        ),
        (
            with_text(**{'attributes/image_attribute_labels': b'1 1 2 4 2.5\n'}),
            'image_attribute_labels.txt, line 1',
        ),
        (
            with_text(classes=b'1 001.Bird\n2 002.Bird\n'),
            'classes.txt has 2 different names, expected 200',
        ),
        (with_text(**{'parts/parts': b''}), 'parts/parts.txt has 0 different names'),
        (with_text(images=b''), 'Split train .* has no image'),
    ],
)
def test_each_mistake_is_named_with_its_remedy(tmp_path, warnings, spoil, named):
    spoil(make(tmp_path / 'manual'))
    with pytest.raises(DataError, match=named):
        built(tmp_path)
    assert not list((tmp_path / 'data').rglob('*.array_record*'))


@pytest.mark.parametrize(
    'lists, named',
    [
        (LISTS | {'test': [A]}, 'stands in two of'),
        (LISTS | {'test': [D]}, 'stands in none of'),
        (LISTS | {'test': [201]}, "line '201.Brewers_Bird'"),
    ],
)
def test_class_lists_must_divide_the_classes(tmp_path, lists, named):
    make(tmp_path / 'manual', lists=lists)
    with pytest.raises(DataError, match=named):
        built(tmp_path)


def test_attributes_without_names_and_images_without_a_line_are_said(tmp_path, warnings):
    manual = make(tmp_path / 'manual', lists=LISTS, text=without('images.txt', 5))
    unpack(manual, 'CUB_200_2011.tgz')
    (manual / 'attributes.txt').unlink()
    builder = built(tmp_path)
    assert builder.info.metadata['attributes'][311] == 'attribute 312' and sorted(
        records(builder, 'train')
    ) == [file_of(1), file_of(9)]
    assert (
        len(warnings) == 2
        and 'lacks attributes.txt' in warnings[0]
        and '1 images of' in warnings[1]
    )


def test_images_and_masks_are_fetched_where_they_are_missing(tmp_path, warnings, monkeypatch):
    make_masks(make(tmp_path / 'server'))
    manual = make(tmp_path / 'manual')
    (manual / 'CUB_200_2011.tgz').unlink()
    asked = []

    def fetch(url, folder, *, size, checksum):
        asked.append((url, size, checksum[:4]))
        return tmp_path / 'server' / url.rpartition('/')[2]

    monkeypatch.setattr(files, 'fetch', fetch)
    assert len(records(built(tmp_path, ALL_MASKS), 'test')) == 3
    assert asked == [(IMAGES_URL, 1150585339, '0c68'), (MASKS_URL, 39272883, 'dc77')]


def test_the_folder_has_what_tfds_asks_for():
    infos = Cub200Captions.url_infos
    assert {url: info.filename for url, info in infos.items()} == {
        IMAGES_URL: 'CUB_200_2011.tgz',
        MASKS_URL: 'segmentations.tgz',
    }
    assert all(len(info.checksum) == 64 for info in infos.values())
    metadata = Cub200Captions.get_metadata()
    assert (
        set(metadata.tags) <= set(tfds.core.dataset_metadata.valid_tags())
        and 'content.data-type.image' in metadata.tags
    )
    assert 'CNS-TR-2011-001' in metadata.citation


@pytest.mark.parametrize('config', ['plain', 'captions'])
@pytest.mark.parametrize('folder', [False, True])
def test_copies_without_parts_and_attributes(tmp_path, warnings, config, folder):
    manual = make(tmp_path / 'manual', lists=LISTS, text=dict.fromkeys(PARTS_AND_ATTRIBUTES))
    if folder:
        unpack(manual, 'CUB_200_2011.tgz')
        (manual / 'attributes.txt').unlink()
    builder = built(tmp_path, f'cub200_captions/{config}')
    record = records(builder, 'train')[file_of(1)]
    assert len(record['captions']) == 10 and record['bbox'].any()
    if config == 'captions':
        assert not {'parts', 'attributes'} & {*record, *builder.info.metadata}
        assert not warnings
        return
    assert not record['parts'].any() and not record['attributes'].any()
    assert builder.info.metadata['absent'] == ['parts', 'attributes']
    assert len(warnings) == 1 and 'no parts and no attributes: they are zeros' in warnings[0]
    assert 'zeros, as the files have none: parts, attributes' in build.report(builder)
    lines = ' '.join(describe(record, builder.info))
    assert 'attributes' not in lines


def test_what_the_files_do_not_have_is_not_read(tmp_path, warnings):
    make(tmp_path / 'manual', lists=LISTS, text={PARTS_AND_ATTRIBUTES[2]: None})
    built(tmp_path)
    data = settings.defaults(settings.DATA)
    data |= {'name': 'cub200_captions', 'dir': str(tmp_path / 'data')}
    dataset = Dataset(data)
    assert 'parts' in dataset.features and dataset.meta(9).attributes == 0
    with pytest.raises(DataError, match="This system reads 'attributes', which data set .* not"):
        dataset.check('train', ('attributes',))


def test_a_whole_copy_has_a_config_without_parts_too(tmp_path, warnings):
    make(tmp_path / 'manual', lists=LISTS, text={'parts/part_locs.txt': b'nonsense'})
    assert not {'parts', 'attributes'} & {
        *built(tmp_path, 'cub200_captions/captions').info.features
    }


def test_tfds_gives_the_folder(tmp_path, warnings):
    manual = make(tmp_path / 'manual', lists=LISTS)
    builder = get_builder('cub200_captions', tmp_path / 'data')
    config = tfds.download.DownloadConfig(manual_dir=manual)
    builder.download_and_prepare(download_config=config)
    assert len(records(builder, 'train')) == 3
    other = get_builder('cub200_captions', tmp_path / 'other', manual_dir=tmp_path)
    with pytest.raises(DataError, match='manual_dir is .* for the builder and .*/manual in Downlo'):
        other.download_and_prepare(download_config=config)
    other = get_builder('cub200_captions', tmp_path / 'other', manual_dir=manual)
    other.download_and_prepare(download_config=config)
    # by default files lie where TFDS downloads to
    (tmp_path / 'downloads').mkdir()
    manual.rename(tmp_path / 'downloads' / 'manual')
    third = get_builder('cub200_captions', tmp_path / 'third')
    third.download_and_prepare(download_dir=tmp_path / 'downloads')
    assert len(records(third, 'test')) == 6
