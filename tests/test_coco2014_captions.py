"""COCO 2014 with captions, objects and dialogues, from tiny archives in the original layout."""

import io
import json
import zipfile

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from archives import build_in
from archives import jpeg as tiny_jpeg
from PIL import Image
from pycocotools import mask as coco_mask
from tensorflow_datasets.core import shuffle

from tfds_builders import DataError, build, files, get_builder
from tfds_builders.coco2014_captions import annotations
from tfds_builders.coco2014_captions.annotations import Object, Picture, pixels, place, run_lengths
from tfds_builders.coco2014_captions.builder import URL, Coco2014Captions
from tfds_builders.coco2014_captions.categories import CATEGORIES

PARTS = {'train': range(1, 7), 'val': range(11, 14)}  # image ids
HEIGHT, WIDTH = 48, 64
NOTES = 'annotations_trainval2014.zip'


def file_name(part, number):
    return f'COCO_{part}2014_{number:012d}.jpg'


def jpeg(number, shape=(HEIGHT, WIDTH, 3)):
    return tiny_jpeg(number, shape)


def rectangle(number, x, y, w, h, category=18, crowd=0, **other):
    shape = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {
        'id': number,
        'category_id': category,
        'iscrowd': crowd,
        'area': w * h,
        'bbox': [x, y, w, h],
        'segmentation': shape,
    } | other


def runs(mask):
    """COCO's uncompressed runs: down the columns, the first of zeros."""
    flat = np.concatenate([[0], mask.ravel(order='F'), [2]])
    ends = np.flatnonzero(np.diff(flat))
    lengths = np.diff(np.concatenate([[0], ends])).tolist()
    return {'size': list(mask.shape), 'counts': lengths}


def write_zip(path, contents):
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def notes(*, objects=None, captions=None, images=None, sizes=None):
    """The four annotation files as dictionaries.

    Objects, captions: {image id: list}, instead of what every image has.
    """
    contents = {}
    for part, numbers in PARTS.items():
        listed = [
            {
                'id': n,
                'file_name': file_name(part, n),
                'height': HEIGHT,
                'width': WIDTH,
                'license': 1,
            }
            | (sizes or {}).get(n, {})
            for n in numbers
        ]
        texts = {n: [f'caption {k} of {n}' for k in range(5)] for n in numbers} | (captions or {})
        things = {
            n: [rectangle(n * 100, 8, 12, 16, 24), rectangle(n * 100 + 1, 0, 0, 48, 40, category=1)]
            for n in numbers
        } | (objects or {})
        entries = [
            {'id': n * 10 + k, 'image_id': n, 'caption': text}
            for n in numbers
            for k, text in enumerate(texts[n])
        ]
        found = [one | {'image_id': n} for n in numbers for one in things[n]]
        contents[f'captions_{part}2014.json'] = {
            'info': {},
            'images': listed,
            'licenses': [],
            'annotations': entries[::-1],
        }
        contents[f'instances_{part}2014.json'] = {
            'info': {},
            'images': listed,
            'licenses': [],
            'annotations': found,
            'categories': [
                {'supercategory': 'any', 'id': number, 'name': name}
                for number, name in CATEGORIES.items()
            ],
        }
    return contents


def make(folder, *, images=None, **content):
    """The three archives; `images` replaces (None: removes) single pictures, by image id."""
    folder.mkdir(exist_ok=True)
    for part, numbers in PARTS.items():
        pictures = {n: jpeg(n) for n in numbers} | {
            n: data for n, data in (images or {}).items() if n in numbers
        }
        contents = {
            f'{part}2014/{file_name(part, n)}': data
            for n, data in pictures.items()
            if data is not None
        }
        write_zip(
            folder / f'{part}2014.zip',
            contents | {f'{part}2014/other.jpg': b'', '../outside.jpg': b'?'},
        )
    write_zip(
        folder / NOTES,
        {f'annotations/{name}': json.dumps(content) for name, content in notes(**content).items()},
    )
    return folder


def dialog_file(numbers, version, split, rounds=10):
    """VisDial's layout; the dialogue of image n asks question n + k in round k."""
    dialogs = [
        {
            'image_id': n,
            'caption': 'a caption',
            'dialog': [
                {'question': n + k, 'answer': k, 'answer_options': list(range(100)), 'gt_index': k}
                for k in range(rounds)
            ],
        }
        for n in numbers
    ]
    return json.dumps(
        {
            'version': version,
            'split': split,
            'data': {
                'questions': [f'is it {k} ' for k in range(200)],
                'answers': [f'no, {k}' for k in range(100)],
                'dialogs': dialogs,
            },
        }
    )


def built(tmp_path, name='coco2014_captions', **kwargs):
    return build_in(tmp_path, name, **kwargs)


def records(made, split):
    decoders = {
        key: tfds.decode.SkipDecoding()
        for key in ('image', 'object_masks')
        if key in made.info.features
    }
    return {
        int(record['image_id']): record for record in made.as_data_source(split, decoders=decoders)
    }


def masks_of(record):
    return cv2.imdecode(
        np.frombuffer(record['object_masks'], np.uint8), cv2.IMREAD_UNCHANGED
    ).reshape(10, 64, 64)


def test_pictures_captions_and_objects(tmp_path, warnings):
    manual = make(tmp_path / 'manual', captions={2: ['Two dogs. \n', 'a\ufffd dog', ' ', *'bcde']})
    made = built(tmp_path)
    assert {name: split.num_examples for name, split in made.info.splits.items()} == {
        'train': 6,
        'validation': 3,
    }
    metadata = made.info.metadata
    assert [
        metadata[key]
        for key in (
            'split_rule',
            'captions_per_image',
            'flip',
            'max_objects',
            'mask_size',
            'dropped_objects',
        )
    ] == ['coco2014', 5, True, 10, 64, {}]
    assert metadata['sha256'] == {
        name: files.sha256(manual / name) for name in (NOTES, 'train2014.zip', 'val2014.zip')
    }

    train = records(made, 'train')
    assert sorted(train) == list(PARTS['train']) and sorted(records(made, 'validation')) == list(
        PARTS['val']
    )
    record = train[2]
    assert record['image'] == jpeg(2) and record['file_name'].decode() == file_name(
        'train', 2
    )  # the bytes of the archive
    assert [text.decode() for text in record['captions']] == [
        'Two dogs.',
        'a dog',
        *'bcde',
    ]  # by id, whatever the file's order
    assert [text.decode() for text in train[3]['captions']] == [
        f'caption {k} of 3' for k in range(5)
    ]
    np.testing.assert_allclose(
        record['objects']['bbox'],
        [[0, 0, 40 / 48, 48 / 64], [12 / 48, 8 / 64, 36 / 48, 24 / 64]],
        rtol=1e-6,
    )
    names = made.info.features['objects'].feature['label'].names
    assert [names[label] for label in record['objects']['label']] == ['person', 'dog'] and len(
        names
    ) == 80
    assert not any(record['objects']['is_crowd'])

    again = get_builder(
        'coco2014_captions', data_dir=tmp_path / 'data'
    )  # reading needs no manual folder
    assert again.info.features['objects'].feature['label'].names[79] == 'toothbrush'
    assert not (tmp_path / 'outside.jpg').exists() and not warnings


def test_masks_lie_below_each_other_over_the_whole_picture(tmp_path, warnings):
    make(tmp_path / 'manual', objects={1: [rectangle(5, 8, 12, 16.5, 24)], 2: []})
    train = records(built(tmp_path), 'train')
    masks = masks_of(train[1])
    expected = np.zeros((64, 64))
    expected[16:48, 8:24] = 255  # 48 rows of the picture are 64 of the mask
    assert (
        np.abs(masks[0] - expected)[:, :24].max() <= 1
        and not masks[0][:, 26:].any()
        and not masks[1:].any()
    )
    assert not masks_of(train[2]).any() and not len(train[2]['objects']['label'])


def test_masks_from_polygons_and_from_both_kinds_of_runs_are_the_same():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 20:50] = 1
    mask[35:40, 2:9] = 1
    polygons = [
        np.array(p, np.float32)
        for p in ([20, 10, 50, 10, 50, 30, 20, 30], [2, 35, 9, 35, 9, 40, 2, 40])
    ]
    plain = runs(mask)
    packed = coco_mask.encode(np.asfortranarray(mask))['counts'].decode()
    assert run_lengths(packed).tolist() == plain['counts']
    for shape in (polygons, plain, plain | {'counts': packed}):
        np.testing.assert_array_equal(pixels(shape, HEIGHT, WIDTH), mask)
    noise = np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH)).astype(np.uint8)
    noise[:30] = 0  # long runs and short ones
    packed = coco_mask.encode(np.asfortranarray(noise))['counts'].decode()
    np.testing.assert_array_equal(pixels(runs(noise) | {'counts': packed}, HEIGHT, WIDTH), noise)


def test_thin_things_keep_their_share_of_a_cell():
    mask = np.zeros((256, 256), np.uint8)
    mask[:, 100] = 1  # a quarter of a cell of 4 x 4 pixels
    small = annotations.shrunk(mask)
    assert abs(int(small[7, 25]) - 64) <= 1 and np.count_nonzero(small) == 64


def test_the_largest_ten_and_a_crowd():
    picture = Picture(1, 'a.jpg', HEIGHT, WIDTH)

    def thing(number, side, crowd=False):
        return Object(
            number,
            1,
            crowd,
            None,
            [0, 0, side, side],
            [np.array([0, 0, side, 0, side, side, 0, side], np.float32)],
        )

    many, crowd = [thing(k, k + 2) for k in range(14)], thing(20, 40, crowd=True)
    boxes, _, crowds, masks, bad = place(picture, many)
    assert (
        [round(box[3] * WIDTH) for box in boxes] == list(range(15, 5, -1))
        and not any(crowds)
        and not bad
        and masks.any((1, 2)).all()
    )
    boxes, _, crowds, _, _ = place(
        picture, [crowd, *many]
    )  # marked, behind the others, in the last slot
    assert [round(box[3] * WIDTH) for box in boxes] == [*range(15, 6, -1), 40] and crowds == [
        False
    ] * 9 + [True]
    boxes, _, crowds, masks, _ = place(picture, [crowd, many[3]])
    assert crowds == [False, True] and masks.any((1, 2)).tolist() == [True, True] + [False] * 8


@pytest.mark.parametrize(
    'fault, reason',
    [
        (dict(bbox=[8, 12, 0, 24]), 'has no area'),
        (dict(bbox=[8, 12, 16, -4]), 'has no area'),
        (dict(bbox=[8, 12, float('nan'), 24]), 'not four numbers'),
        (dict(bbox=[8, 12, 16]), 'not four numbers'),
        (dict(bbox=None), 'not four numbers'),
        (dict(bbox=[8, 12, 10**400, 24]), 'too large'),
        (dict(area='x', bbox=[8, 12, 16, None]), 'not four numbers'),
        (dict(bbox=[70, 12, 16, 24]), 'outside of the picture'),
        (dict(category_id=12), 'category 12 is none'),
        (dict(segmentation=[]), 'fewer than three points'),
        (dict(segmentation=[[8, 12, 16, 24]]), 'fewer than three points'),
        (dict(segmentation=[[8, 12, float('nan'), 24, 9, 9]]), 'not numbers'),
        (dict(segmentation=[[10**400, 12] * 3]), 'no segmentation'),
        (dict(segmentation=[['x', 'y']]), 'no segmentation'),
        (dict(segmentation=None), 'no segmentation'),
        (dict(segmentation=[[8, 12] * 4]), 'covers no pixel'),
        (
            dict(segmentation={'size': [HEIGHT, WIDTH], 'counts': [5, 10]}),
            'its runs do not make a mask of 64 x 48',
        ),
        (
            dict(segmentation={'size': [HEIGHT, WIDTH], 'counts': [5, 10**9]}),
            'its runs do not make',
        ),
        (
            dict(segmentation={'size': [HEIGHT, WIDTH], 'counts': [5, -10, HEIGHT * WIDTH + 5]}),
            'its runs do not make',
        ),
        (
            dict(segmentation={'size': [WIDTH, HEIGHT], 'counts': [5, HEIGHT * WIDTH - 5]}),
            'its runs do not make',
        ),
        (dict(segmentation={'size': [HEIGHT, WIDTH], 'counts': ''}), 'its runs do not make'),
        (dict(segmentation={'size': [HEIGHT, WIDTH], 'counts': '5'}), 'its runs do not make'),
        (dict(segmentation={'size': [HEIGHT, WIDTH], 'counts': '~~~'}), 'not in the format'),
        (dict(segmentation={'size': [HEIGHT, WIDTH], 'counts': [5, 'x']}), 'no segmentation'),
    ],
)
def test_an_object_that_cannot_be_used_is_left_out_and_named(fault, reason):
    entry = json.loads(
        json.dumps(rectangle(7, 8, 12, 16, 24) | {'image_id': 1} | fault),
        object_hook=annotations._instance,
    )
    boxes, _, _, masks, bad = place(Picture(1, 'a.jpg', HEIGHT, WIDTH), [entry[1]])
    assert not boxes and not masks.any() and list(bad) == [7] and reason in bad[7]


def test_an_object_never_costs_its_picture_or_the_build(tmp_path, warnings):
    over = rectangle(
        8, -10, 40, 200, 1e9, segmentation=[[-10, 40, 1e9, 40, 1e9, 1e9, -10, 1e9]]
    )  # cut at the border
    make(
        tmp_path / 'manual',
        objects={
            3: [rectangle(7, 8, 12, 0, 24), over],
            12: [rectangle(9, 8, 12, 16, 24, segmentation=None)],
        },
    )
    made = built(tmp_path)
    record = records(made, 'train')[3]
    np.testing.assert_allclose(record['objects']['bbox'], [[40 / 48, 0, 1, 1]], rtol=1e-6)
    assert masks_of(record)[0, 54:].all() and not masks_of(record)[0, :53].any()
    dropped = made.info.metadata['dropped_objects']
    assert (
        list(dropped) == [f'{file_name("train", 3)} object 7', f'{file_name("val", 12)} object 9']
        and not made.info.metadata['skipped']
    )
    assert (
        len(warnings) == 2
        and f'{file_name("train", 3)} object 7: box [8, 12, 0, 24] has no area' in warnings[0]
    )


def test_folders_do_as_well_as_archives_and_captions_need_no_objects(tmp_path, warnings):
    manual = make(tmp_path / 'manual')
    for archive in list(manual.iterdir()):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(
                manual,
                [
                    name
                    for name in opened.namelist()
                    if '..' not in name and 'instances' not in name
                ],
            )
        archive.unlink()
    made = built(tmp_path, 'coco2014_captions/captions')
    assert records(made, 'validation')[12]['image'] == jpeg(12)
    assert 'objects' not in made.info.features and 'max_objects' not in made.info.metadata
    assert list(made.info.metadata['sha256']) == [
        'captions_train2014.json',
        'captions_val2014.json',
    ]
    with pytest.raises(
        DataError, match='annotations holds no instances_train2014.json. Complete it'
    ):
        built(tmp_path)


@pytest.mark.parametrize('version', ['1.0', '0.9'])
def test_dialogues_of_both_versions(tmp_path, warnings, version):
    manual = make(tmp_path / 'manual')
    if version == '1.0':
        (manual / 'visdial_1.0_train.json').write_text(
            dialog_file([1, 2, 3, 11, 12, 99], '1.0', 'train')
        )
        (manual / 'visdial_1.0_val.json').write_text(
            dialog_file([4], '1.0', 'val')
        )  # number 4 is another image there
    else:
        write_zip(
            manual / 'visdial_0.9_train.zip',
            {'visdial_0.9_train.json': dialog_file([1, 2, 3, 99], '0.9', 'train')},
        )
        write_zip(
            manual / 'visdial_0.9_val.zip',
            {'visdial_0.9_val.json': dialog_file([11, 12], '0.9', 'val')},
        )
    made = built(tmp_path, 'coco2014_captions/dialogs')
    assert sorted(records(made, 'train')) == [1, 2, 3] and sorted(records(made, 'validation')) == [
        11,
        12,
    ]
    dialog = records(made, 'train')[2]['dialog']
    assert [text.decode() for text in dialog['questions']] == [f'is it {2 + k}' for k in range(10)]
    assert [text.decode() for text in dialog['answers']] == [f'no, {k}' for k in range(10)]
    metadata = made.info.metadata
    assert metadata['flip'] is False and not metadata['skipped']
    assert [
        metadata[key]
        for key in ('train_without_dialog', 'validation_without_dialog', 'dialogs_not_coco2014')
    ] == [3, 1, 1]
    assert len(warnings) == 3 and len(metadata['sha256']) == (4 if version == '1.0' else 5)


@pytest.mark.parametrize(
    'fault, named',
    [
        (dict(images={3: jpeg(3)[:-200]}), 'cannot be decoded'),
        (dict(images={3: b''}), 'cannot be decoded'),
        (dict(images={3: None}), 'is not in train2014.zip'),
        (dict(captions={3: ['', ' \n']}), 'no caption'),
        (
            dict(images={3: jpeg(3, (64, 48, 3))}),
            'image is 48 x 64, its annotations are for 64 x 48',
        ),
        (
            dict(sizes={3: {'file_name': '../outside.jpg'}}),
            r'\.\./outside.jpg: is not in train2014.zip',
        ),
    ],
)
def test_an_image_that_cannot_be_used_is_refused_or_left_out(tmp_path, warnings, fault, named):
    make(tmp_path / 'manual', **fault)
    with pytest.raises(DataError, match=named) as refused:
        built(tmp_path)
    assert '1 records of' in str(refused.value) and 'on_error' in str(refused.value)
    assert not list((tmp_path / 'data').rglob('*.array_record*'))  # nothing half-built is left
    made = built(tmp_path, on_error='skip')
    assert sorted(records(made, 'train')) == [1, 2, 4, 5, 6]
    assert len(made.info.metadata['skipped']) == 1 and 'left out: 1' in build.report(made)


def test_pictures_are_measured_as_they_are_stored(tmp_path, warnings):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned when it is shown; COCO's objects are not
    turned = io.BytesIO()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(turned, 'JPEG', exif=exif)
    make(tmp_path / 'manual', images={3: turned.getvalue()})
    assert records(built(tmp_path), 'train')[3]['image'] == turned.getvalue()


def test_all_problems_of_both_splits_are_named_at_once(tmp_path):
    make(tmp_path / 'manual', images={2: b'', 13: None}, captions={4: []})
    with pytest.raises(
        DataError,
        match='3 records of .*000002.jpg: cannot.*000004.jpg: no caption.*000013.jpg: is not '
        'in val2014.zip',
    ):
        built(tmp_path)


@pytest.mark.parametrize(
    'rounds, change, named',
    [
        (9, lambda text: text, 'dialogue has 9 rounds instead of 10'),
        (
            10,
            lambda text: text.replace('"question": 3,', '"question": 900,'),
            'names a question or an answer',
        ),
        (10, lambda text: text.replace('"answer": 0, ', ''), 'names a question or an answer'),
        (
            10,
            lambda text: text.replace('"answer": 0, ', '"answer": "yes", '),
            'not the layout of VisDial',
        ),
        (10, lambda text: text.replace('"questions"', '"other"'), 'not the layout'),
        (10, lambda text: text.replace('"data"', '"other"'), 'not the layout of VisDial'),
        (10, lambda text: text[:-50], 'is not JSON, or ends early'),
    ],
)
def test_dialogues_that_cannot_be_used(tmp_path, warnings, rounds, change, named):
    manual = make(tmp_path / 'manual')
    (manual / 'visdial_1.0_train.json').write_text(
        change(dialog_file([3, 11], '1.0', 'train', rounds))
    )
    with pytest.raises(DataError, match=named):
        built(tmp_path, 'coco2014_captions/dialogs')


def test_dialogues_must_be_there(tmp_path, warnings):
    manual = make(tmp_path / 'manual')
    with pytest.raises(DataError, match='VisDial is not in .*visdial_1.0_train.zip'):
        built(tmp_path, 'coco2014_captions/dialogs')
    (manual / 'visdial_0.9_train.json').write_text(dialog_file([1], '0.9', 'train'))
    with pytest.raises(DataError, match='visdial_0.9_val.json is not in'):
        built(tmp_path, 'coco2014_captions/dialogs')
    (manual / 'visdial_0.9_val.json').write_text(dialog_file([99], '0.9', 'val'))
    with pytest.raises(
        DataError, match='Split validation has no image: none of the 3 .* and the dialogues'
    ):
        built(tmp_path, 'coco2014_captions/dialogs', on_error='skip')


def truncate(name):
    def cut(manual):
        data = (manual / name).read_bytes()
        (manual / name).write_bytes(data[: len(data) // 2])

    return cut


def rewrite(name, change):
    """One of the annotation files, changed.

    A function of the dictionary, or the new bytes (None: removed).
    """

    def write(manual):
        contents = notes()
        contents[name] = change(contents[name]) if callable(change) else change
        write_zip(
            manual / NOTES,
            {
                f'annotations/{key}': content if isinstance(content, bytes) else json.dumps(content)
                for key, content in contents.items()
                if content is not None
            },
        )

    return write


@pytest.mark.parametrize(
    'spoil, named',
    [
        (truncate('train2014.zip'), 'train2014.zip is broken or ends early'),
        (truncate(NOTES), f'{NOTES} is broken or ends early'),
        (lambda manual: (manual / 'val2014.zip').write_bytes(b'<html>'), 'val2014.zip is broken'),
        (rewrite('captions_val2014.json', None), f'{NOTES} holds no captions_val2014.json'),
        (
            rewrite('captions_val2014.json', b'{"images": [{'),
            'captions_val2014.json is not JSON, or ends early',
        ),
        (rewrite('captions_val2014.json', b'\xff\xfe{}'), 'captions_val2014.json is not JSON'),
        (rewrite('captions_val2014.json', b'[' * 100_000), 'captions_val2014.json is not JSON'),
        (rewrite('captions_val2014.json', b'[]'), 'has not the layout of COCO 2014'),
        (rewrite('captions_val2014.json', lambda c: c | {'images': []}), 'names no image'),
        (
            rewrite(
                'captions_val2014.json', lambda c: c | {'images': c['images'] + c['images'][:1]}
            ),
            'names an image twice',
        ),
        (
            rewrite(
                'captions_val2014.json',
                lambda c: c | {'images': [{'id': 'x', 'file_name': 'a.jpg'}]},
            ),
            "has the entry .'id': 'x'",
        ),
        (
            rewrite(
                'captions_val2014.json', lambda c: c | {'annotations': [{'id': 1, 'caption': 'a'}]}
            ),
            "has the entry .'id': 1, 'caption'",
        ),
        (
            rewrite(
                'instances_train2014.json',
                lambda c: c | {'annotations': [{'id': 1, 'image_id': 1}]},
            ),
            'instances_train2014.json has the entry',
        ),
        (
            rewrite(
                'instances_train2014.json', lambda c: c | {'categories': [{'id': 1, 'name': 'dog'}]}
            ),
            "has the entry .'id': 1, 'name': 'dog'",
        ),
        (
            rewrite('instances_train2014.json', lambda c: {'annotations': []}),
            'has not the layout of COCO 2014',
        ),
    ],
)
def test_each_mistake_is_named_with_its_remedy(tmp_path, warnings, spoil, named):
    spoil(make(tmp_path / 'manual'))
    with pytest.raises(DataError, match=named):
        built(tmp_path, on_error='skip')
    assert not list((tmp_path / 'data').rglob('*.array_record*'))


def test_what_is_missing_is_fetched(tmp_path, warnings, monkeypatch):
    make(tmp_path / 'server')
    (tmp_path / 'manual').mkdir()
    asked, room = [], []

    def fetch(url, folder, *, size, checksum):
        asked.append((url, size, checksum[:4]))
        return tmp_path / 'server' / url.rpartition('/')[2]

    monkeypatch.setattr(files, 'fetch', fetch)
    monkeypatch.setattr(files, 'require_space', lambda folder, size, purpose: room.append(size))
    assert len(records(built(tmp_path), 'validation')) == 3
    assert sorted(asked) == [
        (URL + 'annotations/' + NOTES, 252872794, '0312'),
        (URL + 'zips/train2014.zip', 13510573713, 'ede4'),
        (URL + 'zips/val2014.zip', 6645013297, 'fe9b'),
    ]
    assert room[0] == 2 * (13510573713 + 6645013297)  # asked before the first byte comes
    with pytest.raises(DataError, match='(?s)manual does not exist.*train2014.zip, val2014.zip'):
        get_builder('coco2014_captions', data_dir=tmp_path / 'other').download_and_prepare()


def test_a_full_disk_is_named_before_anything_is_fetched(tmp_path, warnings, monkeypatch):
    (tmp_path / 'manual').mkdir()
    monkeypatch.setattr(files.shutil, 'disk_usage', lambda path: type('Usage', (), {'free': 10**9}))
    with pytest.raises(DataError, match='needs 40.31 GB for .*train2014.zip.* has 1.00 GB free'):
        built(tmp_path)
    (tmp_path / 'data' / 'downloads').mkdir(parents=True, exist_ok=True)
    for name, size in (('train2014.zip', 13510573713), ('val2014.zip.part', 10**9)):
        with open(tmp_path / 'data' / 'downloads' / name, 'wb') as file:
            file.truncate(size)  # holes, which take no room
    with pytest.raises(DataError, match='needs 25.80 GB for'):
        built(tmp_path)


def test_a_split_that_memory_does_not_hold_is_put_in_order_through_files(
    tmp_path, warnings, monkeypatch
):
    make(tmp_path / 'manual')
    monkeypatch.setattr(
        shuffle, 'MAX_MEM_BUFFER_SIZE', 4000
    )  # bytes, instead of 1 GiB; without TensorFlow
    made = built(tmp_path)
    train = records(made, 'train')
    assert sorted(train) == list(PARTS['train']) and all(
        train[n]['image'] == jpeg(n) for n in train
    )
    assert not list((tmp_path / 'data').rglob('*.tmp'))


def test_what_belongs_to_the_data_set(tmp_path):
    infos = Coco2014Captions.url_infos
    assert {info.filename: (info.size, info.checksum[:4]) for info in infos.values()} == {
        NOTES: (252872794, '0312'),
        'train2014.zip': (13510573713, 'ede4'),
        'val2014.zip': (6645013297, 'fe9b'),
        'test2014.zip': (6660437059, 'ead4'),
    }
    metadata = Coco2014Captions.get_metadata()
    assert (
        'lin2014microsoft' in metadata.citation
        and 'content.data-type.image' in metadata.tags
        and metadata.description
    )
    assert (
        len(CATEGORIES) == 80
        and list(CATEGORIES) == sorted(CATEGORIES)
        and (CATEGORIES[1], CATEGORIES[90]) == ('person', 'toothbrush')
    )
