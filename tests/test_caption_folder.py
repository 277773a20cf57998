"""A folder of anybody's.

Pictures of all kinds, captions in all layouts, and everything that is wrong with such folders.
"""

import csv
import io
import json
import os
import tarfile

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from PIL import Image
from test_flowers102_captions import LISTS, make

from tfds_builders import DataError, get_builder
from tfds_builders.caption_folder import report
from tfds_builders.caption_folder.builder import CaptionFolder
from tfds_builders.caption_folder.scan import scan

FILES = [f'{name}.jpg' for name in 'abcdefghij']


def picture(seed=0, shape=(20, 24, 3), kind='JPEG', mode=None, **options):
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
    out = io.BytesIO()
    (image.convert(mode) if mode else image).save(out, kind, **options)
    return out.getvalue()


def captions(file):
    return [f'a picture of {file[0]}', f'{file[0]} on a table']


@pytest.fixture
def folder(tmp_path):
    """Ten pictures without captions."""
    root = tmp_path / 'my pictures'
    for seed, file in enumerate(FILES):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(picture(seed))
    return root


def json_lines(root, rows, name='captions.jsonl'):
    (root / name).write_text(
        ''.join((row if isinstance(row, str) else json.dumps(row)) + '\n' for row in rows)
    )


def table(root, rows, name='captions.csv'):
    with open(root / name, 'w', newline='') as file:
        csv.writer(file).writerows(rows)


LAYOUTS = {
    'captions.jsonl': lambda root: json_lines(
        root, [{'file_name': f, 'captions': captions(f)} for f in FILES]
    ),
    'metadata.jsonl': lambda root: json_lines(
        root,
        [{'file_name': f, 'captions': captions(f), 'width': 24} for f in FILES],
        'metadata.jsonl',
    ),
    'captions.csv': lambda root: table(root, [(f, text) for f in FILES for text in captions(f)]),
    'metadata.csv': lambda root: table(
        root,
        [('caption', 'file_name'), *((text, f) for f in FILES for text in captions(f))],
        'metadata.csv',
    ),
    'text files': lambda root: [
        (root / f).with_suffix('.txt').write_text('\n'.join(captions(f))) for f in FILES
    ],
}


def built(tmp_path, folder, **keywords):
    builder = get_builder('caption_folder', tmp_path / 'data', manual_dir=folder, **keywords)
    builder.download_and_prepare()
    return builder


def records(builder):
    """{file: (split, record)}"""
    return {
        record['file_name'].decode(): (split, record)
        for split in builder.info.splits
        for record in builder.as_data_source(split, decoders={'image': tfds.decode.SkipDecoding()})
    }


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_gives_the_same_records(tmp_path, folder, layout, capsys):
    LAYOUTS[layout](folder)
    builder = built(tmp_path, folder)
    found = records(builder)
    assert {split: builder.info.splits[split].num_examples for split in builder.info.splits} == {
        'train': 8,
        'validation': 1,
        'test': 1,
    }
    assert builder.info.metadata['split_rule'] == 'random80_10_10_seed0' and set(found) == set(
        FILES
    )
    for seed, file in enumerate(FILES):
        assert found[file][1]['image'] == picture(seed) and [
            c.decode() for c in found[file][1]['captions']
        ] == captions(file)
    printed, place = capsys.readouterr().out, builder.data_path
    assert (
        'pictures: 10 (train 8' in printed
        and 'captions: 20' in printed
        and (place / 'report.txt').read_text()[:40] in printed
    )
    assert cv2.imread(str(place / 'report.png')).shape[2] == 3
    assert [split for split, _ in records(built(tmp_path, folder)).values()] == [
        split for split, _ in found.values()
    ]  # only reads
    assert 'pictures: 10' not in capsys.readouterr().out


def test_a_changed_folder_is_built_again(tmp_path, folder):
    LAYOUTS['text files'](folder)
    first = built(tmp_path, folder)
    (folder / 'a.txt').write_text('a better caption\n')
    second = built(tmp_path, folder)
    assert first.data_dir != second.data_dir
    assert records(second)['a.jpg'][1]['captions'] == [b'a better caption']


@pytest.mark.parametrize('by', ['column', 'folders'])
def test_splits(tmp_path, folder, by):
    parts = {'train': FILES[:6], 'val': FILES[6:8], 'test': FILES[8:]}
    rows = []
    for split, files in parts.items():
        for file in files:
            if by == 'folders':
                (folder / split).mkdir(exist_ok=True)
                (folder / file).rename(folder / split / file)
                (folder / split / file).with_suffix('.txt').write_text('a thing')
            rows.append({'file_name': file, 'text': 'a thing', 'split': split})
    if by == 'column':
        json_lines(folder, rows)
    found = {
        name.rpartition('/')[2]: split
        for name, (split, _) in records(built(tmp_path, folder)).items()
    }
    assert found == {
        file: {'val': 'validation'}.get(split, split)
        for split, files in parts.items()
        for file in files
    }


def test_the_tables_of_subfolders_name_their_own_pictures(tmp_path, folder):
    """As the Hugging Face image folder has it: train/metadata.jsonl.

    Where no validation part is given, one is drawn from train.
    """
    for split, files in (('train', FILES[:8]), ('test', FILES[8:])):
        (folder / split).mkdir()
        for file in files:
            (folder / file).rename(folder / split / file)
        json_lines(
            folder / split,
            [{'file_name': file, 'text': 'a thing'} for file in files],
            'metadata.jsonl',
        )
    found = [split for split, _ in records(built(tmp_path, folder)).values()]
    assert sorted(found) == ['test'] * 2 + ['train'] * 7 + ['validation']


def test_labels_and_boxes(tmp_path, folder):
    rows = [
        {
            'file_name': f,
            'text': 'a thing',
            'label': f'kind {i % 2}',
            'boxes': [[2, 5, 12, 10], [-3, 0, 6, 20]][: 1 + i % 2],
            'box_labels': ['dog', 'cat'][: 1 + i % 2],
        }
        for i, f in enumerate(FILES)
    ]
    rows[3] = {
        'file_name': 'd.jpg',
        'text': 'a thing',
        'label': 'kind 1',
        'objects': {'bbox': [[0, 0, 24, 20]], 'categories': ['dog']},
    }
    json_lines(folder, rows)
    builder = built(tmp_path, folder)
    found = {name: record for name, (_, record) in records(builder).items()}
    assert (
        builder.info.features['label'].names == ['kind 0', 'kind 1']
        and found['b.jpg']['class_name'] == b'kind 1'
    )
    assert (
        builder.info.features['objects'].feature['label'].names == ['cat', 'dog']
        and builder.info.metadata['max_objects'] == 2
    )
    np.testing.assert_allclose(
        found['b.jpg']['objects']['bbox'],
        [[0.25, 2 / 24, 0.75, 14 / 24], [0, 0, 1, 3 / 24]],
        atol=1e-6,
    )
    assert list(found['b.jpg']['objects']['label']) == [1, 0]
    np.testing.assert_allclose(found['d.jpg']['objects']['bbox'], [[0, 0, 1, 1]])


def test_a_system_reads_it(tmp_path, folder):
    from t2i_jax import config as settings
    from t2i_jax.data.tables import Split

    LAYOUTS['captions.csv'](folder)
    config = ConfigDict(
        settings.merge(
            settings.defaults(settings.DATA),
            dict(
                name='caption_folder', dir=str(tmp_path / 'data'), manual_dir=str(folder), size=16
            ),
        )
    )
    split = Split(config, 'train', ('image', 'tokens', 'wrong_image'))
    assert split.tables['image'].shape == (8, 16, 16, 3) and len(split.vocabulary) > 5


# ----------------------------------------------------------------------------------------- captions
@pytest.mark.parametrize(
    'text, expected',
    [
        (b'\xef\xbb\xbfa bird\r\n\r\n   \r\na blue bird\r\n', ['a bird', 'a blue bird']),
        ('caf\xe9 au lait\n'.encode('latin-1'), ['café au lait']),
        ('a \ufffd\ufffd bird\n'.encode(), ['a bird']),
        ('a bird \U0001f426\n\U0001f426\n'.encode(), ['a bird \U0001f426']),
        ('a b\xefrd\n'.encode('utf-16'), ['a bïrd']),
        (b'\xfe\xff' + 'a b\xefrd\n'.encode('utf-16-be'), ['a bïrd']),
        (
            'caf\xe9\n'.encode('latin-1') + 'an \xe9clair\n'.encode(),
            ['café', 'an éclair'],
        ),  # each line by itself
        (b'word ' * 5000, [' '.join(['word'] * 5000)]),
    ],
)
def test_captions_of_all_kinds(tmp_path, folder, text, expected):
    LAYOUTS['text files'](folder)
    (folder / 'a.txt').write_bytes(text)
    assert [
        c.decode() for c in records(built(tmp_path, folder))['a.jpg'][1]['captions']
    ] == expected


@pytest.mark.parametrize('layout', ['captions.jsonl', 'captions.csv', 'text files'])
def test_text_that_is_none(tmp_path, folder, layout):
    LAYOUTS[layout](folder)
    file = folder / ('a.txt' if layout == 'text files' else layout)
    file.write_bytes(file.read_text().encode('utf-16-le'))  # without a byte order mark
    with pytest.raises(
        DataError,
        match='holds NUL characters: save it as UTF-8, or as UTF-16 with a byte order mark',
    ):
        built(tmp_path, folder)
    file.write_bytes(file.read_bytes().decode('utf-16-le').encode('utf-16'))
    assert set(records(built(tmp_path, folder))) == set(FILES)


def test_half_a_surrogate_pair_is_replaced(tmp_path, folder):
    json_lines(
        folder, [{'file_name': f, 'text': 'a \ud83d thing', 'label': 'kind \ud83d'} for f in FILES]
    )
    assert {
        (record['captions'][0], record['class_name'])
        for _, record in records(built(tmp_path, folder)).values()
    } == {(b'a ? thing', b'kind ?')}


def line(**changes):
    return {
        name: value
        for name, value in {'file_name': 'a.jpg', 'text': 'a thing', **changes}.items()
        if value is not None
    }


@pytest.mark.parametrize(
    'row, named',
    [
        ('{"file_name": "a.jpg", ', r'captions.jsonl line 1: no JSON'),
        ('[1, 2]', r'captions.jsonl line 1: no JSON \(not an object'),
        (line(file_name=None), 'line 1: it lacks file_name'),
        (
            line(text=None, width=3),
            r'line 1: a.jpg lacks text or captions \(it has file_name, width\)',
        ),
        (line(text=' \n'), 'line 1: a.jpg has no caption'),
        (line(text=5), 'line 1: the captions of a.jpg are neither'),
        (line(file_name='../secret.jpg'), r'line 1: \.\./secret.jpg leaves the folder'),
        (line(file_name='/etc/passwd'), 'line 1: /etc/passwd leaves the folder'),
        (line(file_name='z.jpg'), 'line 1: z.jpg is missing'),
        (line(file_name='captions.jsonl'), 'line 1: captions.jsonl is not a picture'),
        (line(file_name='b.jpg'), r'b.jpg \(again\): file_name stands more than once'),
        (line(split='training data'), "line 1: a.jpg has the split 'training data'"),
        (line(boxes=[[0, 0, 5, 0]]), 'line 1: the boxes of a.jpg must be'),
        (line(boxes=[[0, 0, float('nan'), 3]]), 'line 1: the boxes of a.jpg must be'),
        (line(boxes=[[0, 0, 5]]), 'line 1: the boxes of a.jpg must be'),
        (
            line(boxes=[[0, 0, 5, 5]], box_labels=['a', 'b']),
            'line 1: a.jpg has 1 boxes and 2 box_labels',
        ),
        (line(boxes=[[0, 0, 5, 10**400]]), 'line 1: the boxes of a.jpg must be'),
        (line(boxes=[[0, 0, 5, 5]], box_labels=[None]), 'line 1: the box_labels of a.jpg must be'),
        (line(boxes=[[0, 0, 5, 5]], box_labels=7), 'line 1: the box_labels of a.jpg must be'),
        (line(file_name='a' * 300 + '.jpg'), 'line 1: a+.jpg is missing'),
        (line(file_name='a\0.jpg'), 'line 1: a\0.jpg is missing'),
        (line(file_name='a\ud800.jpg'), "line 1: its file_name 'a.ud800.jpg' is not UTF-8"),
        (
            line(text='a\0thing'),
            'line 1: a caption of a.jpg holds NUL characters: save it as UTF-8',
        ),
        (
            '{"file_name": "a.jpg", "text": "a\0thing"}',
            r'captions.jsonl line 1: no JSON \(it holds NUL characters',
        ),
        ('[' * 100_000, 'captions.jsonl line 1: no JSON'),
        (line(label=['kind']), 'line 1: the label of a.jpg must be a text'),
        (
            '{"file_name": "a.jpg", "text": "a thing", "split": ' + '[' * 900 + ']' * 900 + '}',
            'line 1: (a.jpg has the split|maximum recursion depth)',
        ),
        (
            line(boxes=[[30, 0, 5, 5]]),
            r'a.jpg: box \[30.0, 0.0, 5.0, 5.0\] lies outside of 24 x 20',
        ),
    ],
)
def test_a_line_that_cannot_be_used_is_refused_or_left_out(tmp_path, folder, row, named):
    (tmp_path / 'secret.jpg').write_bytes(picture())
    json_lines(folder, [row, *({'file_name': f, 'text': 'a thing'} for f in FILES[1:])])
    with pytest.raises(DataError, match=named):
        built(tmp_path, folder)
    assert not list((tmp_path / 'data').rglob('*.array_record*'))  # nothing half-built is left
    builder = built(tmp_path, folder, on_error='skip')
    assert set(records(builder)) == set(FILES[1:]) and len(builder.info.metadata['skipped']) == 1
    assert 'left out: 1' in (builder.data_path / 'report.txt').read_text()


def test_rows_of_csv(tmp_path, folder):
    table(
        folder,
        [
            ('a.jpg', 'one'),
            ('b.jpg',),
            (),
            ('c.jpg', '"quoted", with a comma'),
            ('c.jpg', 'second'),
        ],
    )
    with pytest.raises(DataError, match='captions.csv line 2: 1 columns instead of 2'):
        built(tmp_path, folder)
    found = scan(folder)
    assert [(entry.file, entry.captions) for entry in found.entries] == [
        ('a.jpg', ['one']),
        ('c.jpg', ['"quoted", with a comma', 'second']),
    ] and found.unnamed == 8


@pytest.mark.parametrize('ends', ['\n', '\r\n', '\r'])
def test_a_quote_that_is_not_closed_spoils_no_other_row(folder, ends):
    lines = [
        'a.jpg,"a ""red"" thing"',
        'b.jpg,"a quote that nobody closes',
        'c.jpg,a thing',
        'd.jpg,"a caption',
        'of two lines"',
        'e.jpg,a\0thing',
        'f.jpg,"a" thing',
        'g.jpg,a thing',
        'h.jpg,"a second that nobody closes',
        'i.jpg,a thing',
    ]
    (folder / 'captions.csv').write_bytes(ends.join(lines).encode())
    found = scan(folder)
    assert {entry.file: entry.captions for entry in found.entries} == {
        'a.jpg': ['a "red" thing'],
        'c.jpg': ['a thing'],
        'd.jpg': ['a caption of two lines'],
        'g.jpg': ['a thing'],
        'i.jpg': ['a thing'],
    }
    assert {record: problem[:13] for record, problem in found.problems.items()} == {
        'captions.csv line 2': 'no row of CSV',
        'captions.csv line 6': 'it holds NUL ',
        'captions.csv line 7': 'no row of CSV',
        'captions.csv line 9': 'no row of CSV',
    }


def test_null_is_what_is_not_there(folder):
    rows = [
        {
            'file_name': f,
            'text': 'a thing',
            'captions': None,
            'label': 'kind' if f == 'a.jpg' else None,
            'split': None,
            'boxes': None,
            'box_labels': None,
            'objects': {'bbox': [[0, 0, 9, 9]] if f == 'b.jpg' else None, 'categories': None},
        }
        for f in FILES
    ]
    json_lines(folder, rows)
    found = scan(folder)
    assert (
        not found.problems
        and {entry.label for entry in found.entries} == {'kind', ''}
        and found.rule.startswith('random')
    )
    assert [(e.file, e.boxes, e.box_labels) for e in found.entries if e.boxes] == [
        ('b.jpg', [(0, 0, 9, 9)], ['object'])
    ]


def test_a_line_of_json_ends_with_a_newline_alone(folder):
    (folder / 'captions.jsonl').write_text(
        '\r\n'.join(
            json.dumps({'file_name': f, 'text': 'one\u2028two\x85three'}, ensure_ascii=False)
            for f in FILES
        ),
        encoding='utf-8',
        newline='',
    )
    found = scan(folder)
    assert (
        not found.problems
        and [entry.captions for entry in found.entries] == [['one two three']] * 10
    )


def test_pictures_may_be_links(tmp_path, folder):
    """As in the caches of Hugging Face, DVC and git-annex.

    The file lies elsewhere, under another name.
    """
    json_lines(folder, [{'file_name': f'./sub/../{f}', 'text': 'a thing'} for f in FILES])
    (folder / 'a.jpg').rename(tmp_path / 'blob')
    (folder / 'a.jpg').symlink_to(tmp_path / 'blob')
    (folder / 'b.jpg').unlink()
    (folder / 'b.jpg').symlink_to('c.jpg')
    (folder / 'd.jpg').unlink()
    (folder / 'd.jpg').symlink_to('nowhere')
    found = scan(folder)
    assert [entry.file for entry in found.entries] == [f for f in FILES if f != 'd.jpg']
    assert found.problems == {'captions.jsonl line 4': './sub/../d.jpg is missing'}


@pytest.mark.parametrize('count', [1, 2])
def test_three_pictures_are_the_least(tmp_path, folder, count):
    table = [{'file_name': file, 'text': 'a thing'} for file in FILES]
    json_lines(folder, table[:count])
    with pytest.raises(DataError, match=f'has {count} pictures .*none for validation; 3 are the'):
        built(tmp_path, folder)
    json_lines(folder, table[:3])
    assert len(records(built(tmp_path, folder))) == 3


def test_of_many_problems_five_are_named(tmp_path, folder):
    LAYOUTS['text files'](folder)
    for file in FILES:
        (folder / file).write_bytes(b'')
    with pytest.raises(DataError, match=f'{len(FILES)} records .*; and {len(FILES) - 5} more. R'):
        built(tmp_path, folder)
    folder = folder.rename(tmp_path / "it's mine")
    with pytest.raises(DataError, match=r"""records of '.*/it'"'"'s mine' cannot be used as"""):
        built(tmp_path, folder)


def test_a_validation_part_is_a_tenth_of_train(folder):
    for i in range(100):
        (folder / f'{i}.jpg').write_bytes(b'')
    json_lines(
        folder,
        [
            {'file_name': f'{i}.jpg', 'text': 'a thing', 'split': 'train' if i < 40 else 'test'}
            for i in range(100)
        ],
    )
    splits = [entry.split for entry in scan(folder).entries]
    assert [splits.count(split) for split in ('train', 'validation', 'test')] == [36, 4, 60]
    json_lines(folder, [{'file_name': f'{i}.jpg', 'text': 'a thing'} for i in range(100)])
    splits = [entry.split for entry in scan(folder).entries]
    assert [splits.count(split) for split in ('train', 'validation', 'test')] == [80, 10, 10]


def test_a_hundred_captions_of_a_picture_are_kept(tmp_path, folder):
    LAYOUTS['text files'](folder)
    (folder / 'a.txt').write_text(''.join(f'caption {i}\n' for i in range(150)))
    builder = built(tmp_path, folder)
    assert [c.decode() for c in records(builder)['a.jpg'][1]['captions']] == [
        f'caption {i}' for i in range(100)
    ]
    assert (
        'pictures of more than 100 captions, of which the first are used: 1\n'
        in (builder.data_path / 'report.txt').read_text()
    )


def test_files_of_one_size_are_told_apart(folder):
    LAYOUTS['text files'](folder)
    for file, colour in (('a.bmp', 'red'), ('b.bmp', 'blue')):
        Image.new('RGB', (200, 200), colour).save(folder / file)
    first = scan(folder).digest
    (folder / 'a.bmp').rename(folder / 'c.bmp')
    (folder / 'b.bmp').rename(folder / 'a.bmp')
    (folder / 'c.bmp').rename(folder / 'b.bmp')
    assert scan(folder).digest != first


@pytest.mark.skipif(os.name == 'nt', reason='names there are always Unicode')
def test_a_file_name_that_is_no_utf8_is_a_problem(tmp_path, folder):
    LAYOUTS['text files'](folder)
    for kind in (b'.jpg', b'.txt'):
        (folder / f'a{kind.decode()}').rename(os.fsdecode(os.fsencode(folder) + b'/\xff' + kind))
    with pytest.raises(DataError, match=r'\?.jpg: its name is not UTF-8: rename the file'):
        built(tmp_path, folder)
    assert set(records(built(tmp_path, folder, on_error='skip'))) == set(FILES[1:])


@pytest.mark.parametrize(
    'place, named',
    [
        ('empty', 'empty holds no picture'),
        ('my pictures', 'no caption for any of them.*captions.jsonl'),
        ('hidden', 'hidden holds no picture .*; skipped: 1 hidden folders. Point'),
        ('none', 'none does not exist. Give a folder of pictures'),
        ('my pictures/a.jpg', "a.jpg' is a file: unpack it. Give a folder of pictures"),
        ('a' * 300, 'does not exist. Give a folder'),
        ('a\0b', 'is not the name of a file or folder'),
        ('~nobody/x', 'x does not exist. Give a folder'),
        ('', 'needs a folder'),
    ],
)
def test_folders_that_hold_nothing(tmp_path, folder, monkeypatch, place, named):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'hidden' / '.b').mkdir(parents=True)
    (tmp_path / 'hidden' / '.b' / 'a.png').write_bytes(picture(kind='PNG'))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=named):
        built(tmp_path, place)


# ----------------------------------------------------------------------------------------- pictures
BROKEN = {
    'empty': (b'', 'is empty'),
    'no picture': (b'<html></html>', 'is not a picture'),
    'truncated jpeg': (picture(shape=(200, 200, 3))[:3000], 'cannot be decoded'),
    'truncated png': (picture(kind='PNG')[:600], 'cannot be decoded'),
    'one pixel': (picture(shape=(1, 1, 3)), 'is 1 x 1 pixels; a side needs 8'),
}


@pytest.mark.parametrize('kind', [*BROKEN, 'animated'])
def test_a_picture_that_cannot_be_used_is_refused_or_left_out(tmp_path, folder, kind):
    data, named = BROKEN.get(kind, (None, r'is animated \(3 frames\)'))
    if data is None:
        frames = [Image.fromarray(np.full((20, 20, 3), 80 * i, np.uint8)) for i in range(3)]
        frames[0].save(folder / 'a.gif', save_all=True, append_images=frames[1:])
        data = (folder / 'a.gif').read_bytes()
        (folder / 'a.gif').unlink()
    LAYOUTS['text files'](folder)
    (folder / 'a.jpg').write_bytes(data)
    with pytest.raises(DataError, match=f'a.jpg: {named}'):
        built(tmp_path, folder)
    builder = built(tmp_path, folder, on_error='skip')
    assert set(records(builder)) == set(FILES[1:])


def test_a_png_that_is_named_jpg(tmp_path, folder):
    LAYOUTS['text files'](folder)
    (folder / 'a.jpg').write_bytes(picture(7, kind='PNG'))
    builder = built(tmp_path, folder)
    split, record = records(builder)['a.jpg']
    assert record['image'] == picture(7, kind='PNG')
    read = {r['file_name']: r['image'] for r in builder.as_data_source(split)}[b'a.jpg']
    np.testing.assert_array_equal(
        read, np.random.default_rng(7).integers(0, 256, (20, 24, 3), np.uint8)
    )


# ------------------------------------------------------------------------------------------- builds
def test_a_build_that_is_interrupted_while_it_writes_is_not_taken_for_whole(
    tmp_path, folder, monkeypatch
):
    LAYOUTS['captions.jsonl'](folder)
    with monkeypatch.context() as patch:
        generate = CaptionFolder._generate_examples

        def interrupted(self, entries):
            for number, example in enumerate(generate(self, entries)):
                if number == 3:
                    raise KeyboardInterrupt
                yield example

        patch.setattr(CaptionFolder, '_generate_examples', interrupted)
        with pytest.raises(KeyboardInterrupt):
            built(tmp_path, folder)
    builder = get_builder('caption_folder', tmp_path / 'data', manual_dir=folder)
    assert not builder.data_path.exists() and not builder.info.splits
    assert set(records(built(tmp_path, folder))) == set(FILES)


def test_what_was_made_of_a_folder_may_lie_in_it(folder, capsys):
    """The data set, whose report is a picture with a text, and the workdir of a run."""
    LAYOUTS['text files'](folder)
    for name in ('config.json', 'gan/meta.json', 'gan/samples/1.png', 'gan/samples/1.txt'):
        (folder / 'runs' / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / 'runs' / name).write_bytes(picture(kind='PNG'))
    places = set()
    for _ in range(2):
        builder = get_builder('caption_folder', folder / 'tfds', manual_dir=folder)
        builder.download_and_prepare()
        places.add(builder.data_path)
        assert set(records(builder)) == set(FILES)
    assert len(places) == 1 and (places.pop() / 'report.png').exists()
    assert 'skipped: 1 workdirs of runs' in capsys.readouterr().out
    assert scan(folder).notes == ['skipped: 1 built data sets', 'skipped: 1 workdirs of runs']


def test_pictures_that_one_reader_alone_takes(tmp_path, folder):
    """Pillow opens PostScript with another program, and PNGs without their end."""
    LAYOUTS['text files'](folder)
    plain = picture(kind='PNG')
    (folder / 'a.jpg').write_bytes(plain[:-12])
    (folder / 'b.jpg').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n')
    os.mkfifo(folder / 'pipe.png')
    with open(folder / 'c.jpg', 'wb') as file:
        file.truncate(1 << 30)
    with pytest.raises(
        DataError, match='2 records .*b.jpg: is not a picture .*c.jpg. is larger than'
    ):
        built(tmp_path, folder)
    builder = built(tmp_path, folder, on_error='skip')
    assert records(builder)['a.jpg'][1]['image'] == plain
    assert set(records(builder)) == {*FILES} - {'b.jpg', 'c.jpg'}
    assert 'skipped: 1 pipes and devices' in (builder.data_path / 'report.txt').read_text()


def test_a_report_that_is_missing_is_written(tmp_path, folder, monkeypatch):
    LAYOUTS['captions.jsonl'](folder)
    with monkeypatch.context() as patch:
        patch.setattr(report, 'write', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            built(tmp_path, folder)
    place = built(tmp_path, folder).data_path
    assert (
        'pictures: 10 (train 8' in (place / 'report.txt').read_text()
        and (place / 'report.png').exists()
    )


def test_flowers_from_a_folder_are_those_from_their_archives(tmp_path):
    manual = make(tmp_path / 'manual', lists=LISTS)
    flowers = get_builder('flowers102_captions', tmp_path / 'data', manual_dir=manual)
    flowers.download_and_prepare()
    root = tmp_path / 'folder'
    root.mkdir()
    for name in ('102flowers.tgz', 'cvpr2016_flowers.tar.gz'):
        with tarfile.open(manual / name) as archive:
            for member in archive:
                if '/image_' in member.name:
                    (root / member.name.rpartition('/')[2]).write_bytes(
                        archive.extractfile(member).read()
                    )
    expected, found = records(flowers), records(built(tmp_path, root))
    assert set(found) == set(expected) and len(found) == 12
    for name, (_, record) in expected.items():
        assert found[name][1]['image'] == record['image'] and list(
            found[name][1]['captions']
        ) == list(record['captions'])


def test_what_belongs_to_the_data_set():
    metadata = CaptionFolder.get_metadata()
    assert (
        metadata.citation == ''
        and 'content.data-type.text' in metadata.tags
        and metadata.description
    )
    assert CaptionFolder.url_infos == {}
