"""The files that people write captions into, as spreadsheets, taggers and data sets have them."""

import json
import os
import unicodedata

import pytest

from tfds_builders import DataError
from tfds_builders.caption_folder.scan import scan

FILES = [f'{name}.png' for name in 'abcdef']


@pytest.fixture
def folder(tmp_path):
    """Six files that are named like pictures; `scan` opens none."""
    root = tmp_path / 'mine'
    for size, file in enumerate(FILES):
        put(root / file, bytes(size))
    return root


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def captions(found):
    return {entry.file: entry.captions for entry in found.entries}


def rows(form, files=FILES):
    return ''.join(form.format(file, name=file[0]) + '\n' for file in files)


SAID = {file: [f'a small, red {file[0]}'] for file in FILES}


@pytest.mark.parametrize(
    'name, text',
    [
        ('captions.csv', rows('{},"a small, red {name}"')),
        ('metadata.csv', 'file_name,text\n' + rows('{},"a small, red {name}"')),
        ('metadata.csv', '\n  \nfile_name,text\n' + rows('{},"a small, red {name}"')),
        ('metadata.csv', 'sep=,\nfile_name,text\n' + rows('{},"a small, red {name}"')),
        ('metadata.csv', '"File name", "Caption"\n' + rows('"{}", "a small, red {name}"')),
        ('metadata.csv', 'file;caption\n' + rows('{};a small, red {name}')),
        ('captions.csv', rows('{};a small, red {name}')),
        ('captions.csv', 'image\tprompt\n' + rows('{}\ta small, red {name}')),
        ('captions.tsv', rows('{}\ta small, red {name}')),
        ('metadata.csv', ',file_name,text,x\n' + rows('0,{},"a small, red {name}",')),
        ('metadata.csv', 'file_name,text\n' + rows('{},"a small,\nred {name}"')),
        ('captions.csv', '\ufeff'.join(rows('{},"a small, red {name}"', [f]) for f in FILES)),
        ('captions.txt', 'image,caption\n' + rows('{},"a small, red {name}"')),
        (
            'results.csv',
            'image_name| comment_number| comment\n' + rows('{}| 0| a small, red {name}'),
        ),
        ('results_20130124.token', rows('{}#0\ta small, red {name}')),
        ('Flickr8k.token.txt', rows('{}#12\ta small, red {name}')),
    ],
)
def test_tables_as_people_write_them(folder, name, text):
    put(folder / name, text)
    found = scan(folder)
    assert captions(found) == SAID and not found.problems and found.layout == name


@pytest.mark.parametrize('name', ['metadata.jsonl', 'metadata.json', 'captions.json', 'train.json'])
@pytest.mark.parametrize('indent', [None, 1])
def test_an_array_is_as_good_as_lines(folder, name, indent):
    items = [{'image': file, 'prompt': said[0]} for file, said in SAID.items()]
    put(folder / name, json.dumps(items, indent=indent))
    assert captions(scan(folder)) == SAID


@pytest.mark.parametrize(
    'text, message',
    [
        (
            'file_name,split,words\na.png,train,a thing\n',
            r"metadata.csv cannot be used: its first line is .*\('file_name,split,words'\). Name "
            r'its columns file_name and text \(or .*prompt',
        ),
        ('a thing,a.png\n', 'cannot be used: its first line is neither'),
        ('file_name,text,text\na.png,a,b\n', 'two columns of its header are named text'),
        ('file_name,text\n\n', 'metadata.csv cannot be used: it has no row'),
        ('\n', 'metadata.csv cannot be used: it is empty'),
        (
            'a.png,a small, red thing\n',
            r'No caption of .* \(1 problems\). The first, metadata.csv line 1: 3 columns instead '
            r'of 2; captions that hold "," need quotes around them',
        ),
    ],
)
def test_a_table_without_captions_is_refused(folder, text, message):
    put(folder / 'metadata.csv', text)
    with pytest.raises(DataError, match=message):
        scan(folder)


def test_rows_have_the_columns_of_the_header(folder):
    put(
        folder / 'metadata.csv',
        'file_name,text,split\na.png,one,train\nb.png,two\nc.png,three, four,test\n'
        'a.png,five,test\na.png,six,\n,,\n',
    )
    found = scan(folder)
    assert captions(found) == {'a.png': ['one', 'six']}
    assert found.problems == {
        'metadata.csv line 3': '2 columns instead of 3',
        'metadata.csv line 4': '4 columns instead of 3; captions that hold "," need quotes around '
        'them',
        'metadata.csv line 5': 'its split or label differs from that of metadata.csv line 2',
    }


def test_names_of_tables_give_the_split(folder):
    for name, files in (('train', FILES[:4]), ('val', FILES[4:5]), ('test', FILES[5:])):
        put(folder / f'{name}.csv', 'file_name,text\n' + rows('{},a {name}', files))
    found = scan(folder)
    assert [entry.split for entry in found.entries] == ['train'] * 4 + ['validation', 'test']
    assert found.rule == 'given' and found.layout == 'test.csv, train.csv, val.csv'


def test_of_the_tables_of_a_folder_one_is_read_and_others_are_named(folder):
    put(folder / 'metadata.csv', rows('{},a {name}'))
    put(folder / 'train.csv', 'epoch,loss\n1,2\n')
    put(folder / 'captions.json', '{"a.png": "a thing"}')
    put(folder / 'captions.txt', 'a thing\n')
    found = scan(folder)
    assert found.layout == 'metadata.csv' and len(found.entries) == 6
    assert [note.split(':')[0] for note in found.notes] == [
        'captions.json is not read',
        'captions.txt is not read',
        'train.csv is not read',
    ]


def test_a_table_speaks_for_its_folder_alone(folder):
    put(folder / 'train' / 'g.png', b'')
    put(folder / 'train' / 'metadata.jsonl', json.dumps({'file_name': 'g.png', 'text': 'a thing'}))
    put(folder / 'test' / 'h.png', b'')
    put(folder / 'test' / 'metadata.csv', 'file_name,text\nh.png,a thing\n')
    put(folder / 'a.txt', 'a thing')
    found = scan(folder)
    assert {entry.file: entry.split for entry in found.entries} == {
        'a.png': 'train',
        'test/h.png': 'test',
        'train/g.png': 'train',
    }
    assert found.layout == 'metadata.csv, metadata.jsonl, a text file for each picture'
    assert list(found.problems) == FILES[1:]


@pytest.mark.parametrize('text', ['{}.txt', '{}.TXT', '{}.caption', '{}.png.txt', '{}.PNG.txt'])
def test_a_text_file_of_each_picture(folder, text):
    if 'PNG' in text:
        for file in FILES:
            (folder / file).rename(folder / file.upper().replace(file[0].upper(), file[0]))
    for file in FILES:
        put(folder / text.format(file[0]), f'a small, red {file[0]}\n')
    assert list(captions(scan(folder)).values()) == list(SAID.values())
    put(folder / 'captions.png', b'')
    put(folder / 'captions.txt', 'a picture of a text')
    found = scan(folder)
    assert captions(found)['captions.png'] == ['a picture of a text'] and not found.notes


def test_texts_without_a_picture_are_named(folder):
    for file in FILES:
        put(folder / f'{file[0]}.txt', 'a thing')
    put(folder / 'a.caption', 'a thing')
    put(folder / 'x.avif', b'')
    (folder / 'y.png').symlink_to('nowhere')
    for name in 'xyz':
        put(folder / f'{name}.txt', 'a thing')
    put(folder / '.hidden' / 'old.png', b'')
    put(folder / '._a.png', b'')
    found = scan(folder)
    assert len(found.entries) == 6 and not found.problems
    assert found.notes == [
        'skipped: 1 broken links',
        'skipped: 1 hidden files',
        'skipped: 1 hidden folders',
        'text files of no picture: 4',
        '  a.caption (a.png has another)',
        '  x.txt (x.avif is not read)',
        '  y.txt (y.png is not read)',
        '  z.txt',
    ]


def test_names_of_pictures_in_tables(folder):
    """As Windows, a Mac, other folders and Flickr8k write them."""
    accent = unicodedata.normalize('NFD', 'caf\u00e9.png')
    for name in (
        'deep/b.png',
        'deep/g.png',
        'deep/h.png',
        'Images/i.png',
        f'deep/{accent}',
        'j.PNG',
    ):
        put(folder / name, b'')
    named = {
        'deep\\g.png': 'deep/g.png',
        str((folder / 'deep/h.png').resolve()): 'deep/h.png',
        'i.png': 'Images/i.png',
        'deep/caf\u00e9.png': f'deep/{accent}',
        'b.png': 'b.png',
        'j.png': 'j.PNG',
    }
    table = [{'file_name': name, 'text': 'a thing'} for name in [*named, 'k.png', 'A.PNG', 'f.pNg']]
    put(folder / 'metadata.jsonl', '\n'.join(map(json.dumps, table)))
    found = scan(folder)
    assert {entry.file for entry in found.entries} == {*named.values(), 'a.png', 'f.png'}
    assert list(found.problems.values()) == ['k.png is missing']
    # of names that differ in capitals, the one that is written
    put(folder / 'A.png', b'')
    put(folder / 'F.PNG', b'')
    found = scan(folder)
    assert {entry.file for entry in found.entries} == {*named.values()}
    assert list(found.problems.values()) == [
        f'{name} is missing' for name in ('k.png', 'A.PNG', 'f.pNg')
    ]
    put(folder / 'a' / 'c' / 'i.png', b'')
    assert 'i.png is in several folders' in str(scan(folder).problems)


def test_splits_by_folders_further_down(folder):
    for place in ('mine/train/a', 'mine/train/b', 'mine/val/a', 'images/Test/a'):
        put(folder / f'{place}.png', b'')
        put(folder / f'{place}.txt', 'a thing')
    assert {entry.file: entry.split for entry in scan(folder).entries} == {
        'mine/train/a.png': 'train',
        'mine/train/b.png': 'train',
        'mine/val/a.png': 'validation',
        'images/Test/a.png': 'test',
    }


# --------------------------------------------------------------------------------- labels and boxes
def read_row(folder, **row):
    put(folder / 'metadata.jsonl', json.dumps({'file_name': 'a.png', 'text': 'a thing', **row}))
    return scan(folder)


BOXES = [[0, 0, 5, 5], [1, 1, 9, 9]]


@pytest.mark.parametrize(
    'row',
    [
        {'objects': {'bbox': BOXES, 'category': ['cat', 'red dog']}},
        {'objects': {'bbox': BOXES, 'categories': ['cat ', 'red\ndog']}},
        {
            'objects': [
                {'bbox': BOXES[0], 'category': 'cat'},
                {'bbox': BOXES[1], 'category': 'red\rdog', 'area': 64},
            ]
        },
        {'boxes': BOXES, 'box_labels': ['\tcat', 'red \u2028 dog']},
    ],
)
def test_boxes_and_their_names(folder, row):
    """TFDS keeps class names one a line."""
    (entry,) = read_row(folder, label=' red\nrose ', **row).entries
    assert entry.label == 'red rose' and entry.box_labels == ['cat', 'red dog']
    assert entry.boxes == [tuple(box) for box in BOXES]


@pytest.mark.parametrize(
    'row, message',
    [
        ({'boxes': BOXES, 'box_labels': ['cat', ' \n']}, 'a box_label of a.png is empty'),
        ({'objects': {'bbox': BOXES, 'category': ['cat']}}, 'a.png has 2 boxes and 1 box_labels'),
        ({'objects': {'boxes': BOXES}}, 'objects of a.png must be {"bbox"'),
        ({'objects': [{'category': 'cat'}]}, 'objects of a.png must be {"bbox"'),
        ({'objects': [{'bbox': BOXES[0]}, {'category': 'cat'}]}, 'a.png must be a list'),
    ],
)
def test_boxes_that_cannot_be_read(folder, row, message):
    with pytest.raises(DataError, match=f'The first, metadata.jsonl line 1: .*{message}'):
        read_row(folder, **row)


def test_what_is_not_read_and_what_is_guessed_is_in_the_report(folder):
    found = read_row(folder, objects={'bbox': BOXES, 'kind': ['cat', 'dog']}, width=3, url='x')
    assert found.notes == [
        'columns that are not read: url, width',
        'pictures with boxes named "object": 1',
    ]
    (folder / 'metadata.jsonl').unlink()
    for file in FILES:
        put(folder / f'{file[0]}.txt', 'caf\u00e9'.encode('cp1252'))
    found = scan(folder)
    assert captions(found) == {file: ['caf\u00e9'] for file in FILES}
    assert found.notes == [
        "not UTF-8, taken for Windows' Latin-1: 6 files (a.txt, b.txt, c.txt, ...)"
    ]


def test_of_several_columns_of_captions_one_is_read_in_every_kind_of_table(folder):
    """The first that a row has; the others are named, as all columns that are not read."""
    table = [
        {'file_name': 'a.png', 'text': 'a title', 'caption': 'a thing', 'prompt': ''},
        {'file_name': 'b.png', 'text': 'a title', 'caption': ' ', 'prompt': 'x'},
        {'file_name': 'c.png', 'text': '', 'caption': 'a thing', 'prompt': ''},
    ]
    csv = '\n'.join([','.join(table[0]), *(','.join(row.values()) for row in table)])
    for name, content in (
        ('metadata.csv', csv),
        ('metadata.json', json.dumps(table)),
        ('metadata.jsonl', '\n'.join(map(json.dumps, table))),
    ):
        put(folder / name, content)
        found = scan(folder)
        assert captions(found) == {
            'a.png': ['a thing'],
            'b.png': ['a title'],
            'c.png': ['a thing'],
        }
        assert found.notes == ['columns that are not read: prompt, text']
        (folder / name).unlink()
    put(folder / 'metadata.csv', 'file_name,captions,text\na.png,one,two\na.png,three,\n')
    found = scan(folder)
    assert captions(found) == {'a.png': ['one', 'three']}
    assert found.notes == ['columns that are not read: text']


def test_the_tokens_of_flickr(folder):
    said = ['a "bird" , said', '" a quote', "it 's red"]
    text = ''.join(f'{file}#{i}\t{one}\n' for file in FILES for i, one in enumerate(said))
    put(folder / 'results_20130124.token', text)
    assert captions(scan(folder)) == dict.fromkeys(FILES, said)
    put(folder / 'captions.csv', rows('{},"a small, red {name}"'))
    found = scan(folder)
    assert captions(found) == SAID and 'results_20130124.token is not read' in found.notes[0]


@pytest.mark.parametrize(
    'name, how', [('meta_cap.json', 'captions.jsonl'), ('a.parquet', 'pandas'), ('b.XLSX', 'csv')]
)
def test_tables_of_other_forms_are_named_with_how_to_convert_them(folder, name, how):
    put(folder / name, b'{}')
    with pytest.raises(DataError, match=f'{name} is not read: (write|save) .*{how}'):
        scan(folder)
    put(folder / 'captions.csv', rows('{},"a small, red {name}"'))
    found = scan(folder)
    assert captions(found) == SAID and f'{name} is not read: ' in found.notes[0]


def test_a_text_file_that_is_no_file_is_named(folder):
    for file in FILES:
        put(folder / file.replace('.png', '.txt'), 'a thing')
    for name in ('a.txt', 'b.txt', 'c.txt', 'd.txt'):
        os.remove(folder / name)
    os.mkfifo(folder / 'a.txt')
    (folder / 'b.png.txt').mkdir()
    (folder / 'c.txt').symlink_to('/dev/zero')
    assert scan(folder).problems == {
        'a.png': 'a.txt is a pipe, not a file',
        'b.png': 'b.png.txt is a folder, not a file',
        'c.png': 'c.txt is a device, not a file',
        'd.png': 'there is no d.txt in its folder',
    }


def test_a_folder_without_captions_is_refused_with_what_it_has(folder):
    put(folder / 'data.parquet', b'')
    with pytest.raises(DataError, match='has 6 pictures and no caption .* it has data.parquet'):
        scan(folder)
    put(folder / 'train.json', '{"a.png": "a thing"}')
    with pytest.raises(DataError, match='train.json is not read: it is not one array of objects'):
        scan(folder)
    put(folder / '.hidden' / 'a.txt', 'a thing')
    put(folder / 'x.txt', 'a thing')
    with pytest.raises(
        DataError, match='skipped: 1 hidden folders; train.json .*; text files of no picture: 1; x'
    ):
        scan(folder)
    (folder / 'x.txt').unlink()
    for file in FILES:
        os.remove(folder / file)
    with pytest.raises(DataError, match=r'no picture \(.jpg.*; it has data.parquet, train.json'):
        scan(folder)
