"""COCO 2014 with the sentence vectors of old downloads, which lie beside the captions that they
were made of.
"""

import pickle

import numpy as np
import pytest
from test_coco2014_captions import PARTS, built, file_name, make, records
from test_old_downloads import chars, put, t7_file, vectors

from tfds_builders import DataError
from tfds_builders.coco2014_captions import builder

WITH_VECTORS = 'coco2014_captions/embeddings'


def texts_of(number):
    return [f'caption {k} of {number}' for k in range(5)]


def icml(part='train', **records):
    """Files of <part>2014_ex_t7 whose sentences are COCO's.

    `records`: {'n3': bytes or fields} of image 3.
    """
    files = {}
    for n in PARTS[part]:
        change = records.get(f'n{n}', {})
        data = (
            change
            if isinstance(change, bytes)
            else t7_file(
                n,
                **{'char': chars(texts_of(n)), 'txt': vectors(n, 5), 'img': file_name(part, n)}
                | change,
            )
        )
        files[f'{part}2014_ex_t7/{file_name(part, n)[:-4]}.t7'] = data
    return files


def stackgan(*splits, suffix=''):
    files = {'coco/test/val_captions.t7': b'sentences without images'}
    for split in splits:
        part = 'train' if split == 'train' else 'val'
        rows = {
            'filenames': [file_name(part, n)[:-4] + suffix for n in PARTS[part]],
            'char-CNN-RNN-embeddings': [vectors(n, 5) for n in PARTS[part]],
        }
        files |= {
            f'coco/{split}/{name}.pickle': pickle.dumps(value, 2) for name, value in rows.items()
        }
    return files


def of(record):
    return [caption.decode() for caption in record['captions']]


@pytest.mark.parametrize(
    'archives, splits',
    [
        ({'train2014_ex_t7.tar.gz': icml()}, ['train']),
        ({'train2014_ex_t7': icml(), 'val2014_ex_t7.zip': icml('val')}, ['train', 'validation']),
        ({'val2014_ex_t7.tar.gz': icml('val')}, ['validation']),
        ({'coco.zip': stackgan('train')}, ['train']),
        ({'coco': stackgan('train', 'test', suffix='.jpg')}, ['train', 'validation']),
        ({'coco.zip': stackgan('train'), 'val2014_ex_t7': icml('val')}, ['train', 'validation']),
    ],
)
def test_sentence_vectors_lie_beside_their_captions(tmp_path, warnings, archives, splits):
    manual = make(tmp_path / 'manual')
    for name, content in archives.items():
        put(
            manual / name,
            content
            if '.' in name
            else {path.partition('/')[2]: data for path, data in content.items()},
        )
    for split in builder.SPLITS.keys() - set(splits):
        (
            manual / f'{builder.SPLITS[split]}2014.zip'
        ).unlink()  # the pictures of a split without vectors are not needed
    made = built(tmp_path, WITH_VECTORS)
    assert list(made.info.splits) == splits
    for split in splits:
        for n, record in records(made, split).items():
            assert (
                record['embedding'].dtype == np.float32
                and np.array_equal(record['embedding'], vectors(n, 5))
                and of(record) == texts_of(n)
            )
            assert len(record['objects']['label']) == 2
    missing = [split for split in ('train', 'validation') if split not in splits]
    assert len(warnings) == len(missing) and all(
        f'Split {split} is left out' in message for split, message in zip(missing, warnings)
    )
    metadata = made.info.metadata
    assert metadata['captions_of_vectors'] == 0 and metadata['flip'] is True
    assert {name for name in archives if '.' in name} <= set(metadata['sha256'])


def test_captions_are_those_that_the_vectors_were_made_of(tmp_path, warnings):
    six = ['Zero', *texts_of(2)]
    manual = make(tmp_path / 'manual', captions={2: six, 4: [], 5: texts_of(5)[:3], 6: six})
    other = [f'other words {j}' for j in range(5)]
    seven = chars(texts_of(6) + ['a seventh'])
    put(
        manual / 'train2014_ex_t7.tar.gz',
        icml(
            n2={'char': chars(texts_of(2))},
            n3={'char': chars(other)},
            n1={'char': chars(texts_of(1)[::-1])},
            n6={'char': seven, 'txt': vectors(6, 6)},
        ),
    )
    made = built(tmp_path, WITH_VECTORS)
    train = records(made, 'train')
    assert (
        len(records(made, 'train[:50%]')) == len(records(made, 'train[50%:]')) == 3
    )  # what the README says to validate on
    assert of(train[1]) == texts_of(1) and np.array_equal(
        train[1]['embedding'], vectors(1, 5)[::-1]
    )  # in COCO's order
    assert of(train[2]) == texts_of(2) and np.array_equal(
        train[2]['embedding'], vectors(2, 5)
    )  # the sixth has no vector
    assert of(train[3]) == other and np.array_equal(train[3]['embedding'], vectors(3, 5))
    assert of(train[4]) == texts_of(4) and of(train[5]) == texts_of(5)  # COCO has fewer here
    assert of(train[6]) == texts_of(6) and np.array_equal(train[6]['embedding'], vectors(6, 6)[:5])
    assert made.info.metadata['captions_of_vectors'] == 4
    assert any(
        '4 images get the sentences that come with their vectors' in message for message in warnings
    )


@pytest.mark.parametrize(
    'change, named',
    [
        (b'\x04', '.*000003.t7 cannot be read: it ends early'),
        ({'txt': vectors(3, 4), 'char': chars(texts_of(3)[:4])}, '4 sentence vectors instead of 5'),
        ({'txt': vectors(3, 5)[:, :9]}, r'.*shape \(5, 9\)'),
        ({'char': np.zeros((201, 5), np.uint8)}, 'caption 1, 2, 3, 4, 5 has no word'),
        (None, 'no sentence vectors'),
    ],
)
def test_a_vector_that_cannot_be_used_is_refused_or_left_out(tmp_path, warnings, change, named):
    manual = make(tmp_path / 'manual')
    put(
        manual / 'train2014_ex_t7.tar.gz',
        {
            name: data
            for name, data in icml(n3=change or {}).items()
            if change or '000003' not in name
        },
    )
    with pytest.raises(DataError, match=f'{file_name("train", 3)}: {named}'):
        built(tmp_path, WITH_VECTORS)
    made = built(tmp_path, WITH_VECTORS, on_error='skip')
    assert sorted(records(made, 'train')) == [1, 2, 4, 5, 6] and list(
        made.info.metadata['skipped']
    ) == [file_name('train', 3)]


@pytest.mark.parametrize(
    'name, content, named',
    [
        (
            None,
            {},
            'train2014_ex_t7.tar.gz with the sentence vectors .*coco2014_captions/plain.* is '
            'not in',
        ),
        (
            'train2014_ex_t7.tar.gz',
            {'train2014_ex_t7/readme.t7': b''},
            'train2014_ex_t7.tar.gz holds no .t7 file of an image',
        ),
        (
            'train2014_ex_t7.tar.gz',
            {name: b'' for name in icml()},
            '6 records of .*000001.t7 cannot be read',
        ),
        (
            'train2014_ex_t7.tar.gz',
            icml() | {'again/COCO_train2014_000000000001.t7': t7_file(1)},
            'holds image 1 twice',
        ),
        ('coco.zip', stackgan(), 'coco.zip holds no train/filenames.pickle'),
        (
            'coco.zip',
            stackgan('train')
            | {'coco/train/filenames.pickle': b'cos\nsystem\n(S"touch here"\ntR.'},
            'train/filenames.pickle asks for os.system',
        ),
        (
            'coco.zip',
            stackgan('train')
            | {'coco/train/filenames.pickle': pickle.dumps([f'image_{n}' for n in PARTS['train']])},
            'coco.zip holds no vectors of images named COCO_train2014_',
        ),
    ],
)
def test_each_mistake_with_vectors_is_named(tmp_path, warnings, name, content, named):
    manual = make(tmp_path / 'manual')
    if name:
        put(manual / name, content)
    with pytest.raises(DataError, match=named):
        built(tmp_path, WITH_VECTORS)
    assert not list((tmp_path / 'data').rglob('*.array_record*'))


def test_without_their_sentences_vectors_are_those_of_the_first_five_captions(tmp_path, warnings):
    manual = make(tmp_path / 'manual', captions={2: [*texts_of(2), 'a sixth'], 3: texts_of(3)[:4]})
    put(manual / 'coco.zip', stackgan('train'))
    with pytest.raises(DataError, match=f'{file_name("train", 3)}: 4 captions instead of 5'):
        built(tmp_path, WITH_VECTORS)
    assert of(records(built(tmp_path, WITH_VECTORS, on_error='skip'), 'train')[2]) == texts_of(2)
