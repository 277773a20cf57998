"""A built data set whose files are damaged: one message, which names the folder and the remedy."""

import pathlib
import shutil

import cv2
import numpy as np
import pytest

from t2i_jax import config as settings
from t2i_jax.data.dataset import Dataset
from t2i_jax.data.tables import Split
from tfds_builders import DataError, base, build, get_builder
from tfds_builders.inspect import inspect

TRAIN = 'caption_folder-train.array_record-00000-of-00001'
JSON = 'dataset_info.json', 'features.json', 'metadata.json'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A folder with pictures of one's own and the data set that is built from them."""
    root = tmp_path_factory.mktemp('damaged')
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    (root / 'my birds').mkdir()
    for i, picture in enumerate(pixels):
        cv2.imwrite(str(root / 'my birds' / f'{i}.png'), picture)
        (root / 'my birds' / f'{i}.txt').write_text(f'a bird of kind {i}')
    get_builder(
        'caption_folder', root / 'data', manual_dir=root / 'my birds'
    ).download_and_prepare()
    return root


@pytest.fixture
def copy(whole, tmp_path):
    """Settings of a copy of it, and the folder in which that lies."""
    shutil.copytree(whole / 'data', tmp_path / 'data')
    data = settings.defaults(settings.DATA)
    data |= {'name': 'caption_folder', 'manual_dir': str(whole / 'my birds')}
    place = next((tmp_path / 'data').glob('caption_folder/*/1.0.0'))
    return {**data, 'dir': str(tmp_path / 'data'), 'size': 16, 'load_size': 16}, place


def rewritten(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    'missing': pathlib.Path.unlink,
    'empty': rewritten(lambda data: b''),
    'cut': rewritten(lambda data: data[: len(data) // 2]),
    'zeros': rewritten(lambda data: bytes(len(data))),
    'half zeros': rewritten(lambda data: data[: len(data) // 2] + bytes(len(data) // 2)),
    'bytes': rewritten(lambda data: bytes(range(255, 0, -1))),
    'folder': folder,
}
TEXTS = '{}', '[]', 'null', '1', '"x"', '[' * 100_000, '{"splits": 3}', '{"a":' * 100_000


def message(place):
    return (
        f'The built data set in {place} is damaged: .*Delete that folder .rm -r {place}.*, then '
        'build it again: python -m tfds_builders.build caption_folder --data_dir=.*/data '
        "--manual_dir='?[^ ]+"
    )


@pytest.mark.parametrize('how', [*DAMAGES, *TEXTS], ids=lambda how: how[:20])
@pytest.mark.parametrize('name', JSON)
def test_files_that_describe_the_data(copy, name, how):
    data, place = copy
    if how in DAMAGES:
        DAMAGES[how](place / name)
    else:
        (place / name).write_text(how)
    with pytest.raises(DataError, match=message(place)):
        Dataset(data)
    with pytest.raises(DataError, match=message(place)):
        build.build('caption_folder', data['dir'], data['manual_dir'])


@pytest.mark.parametrize('how', DAMAGES)
@pytest.mark.parametrize('cache', ['host', 'none'])
def test_records(copy, how, cache, tmp_path):
    data, place = copy
    DAMAGES[how](place / TRAIN)
    with pytest.raises(DataError, match=message(place)):
        split = Split({**data, 'cache': cache}, 'train', ('image', 'tokens'))
        split.pictures.rows([0])
    with pytest.raises(DataError, match=message(place) + '.*my birds'):
        build.build('caption_folder', data['dir'], data['manual_dir'])
    # where it is not there, its folder is damaged, which is another message
    if (place / TRAIN).is_file():
        builder = get_builder('caption_folder', data['dir'], manual_dir=data['manual_dir'])
        with pytest.raises(DataError, match=message(place) + '.*my birds'):
            inspect(builder, 'train', 2, tmp_path / 'x.png')


def test_a_whole_data_set_that_is_there_is_reported(copy):
    data, place = copy
    builder = build.build('caption_folder', data['dir'], data['manual_dir'])
    assert f'lies in {place}' in build.report(builder)


def test_a_folder_without_anything_in_it(copy):
    data, place = copy
    shutil.rmtree(place)
    place.mkdir()
    with pytest.raises(
        DataError, match=message(place).replace(': .*', ': dataset_info.json is m.*')
    ):
        Dataset(data)


@pytest.mark.parametrize(
    'error, named',
    [
        (PermissionError(13, 'Permission denied'), 'cannot be used: Permission denied. See to it'),
        (RuntimeError('open() failed: Too many open files; x'), 'Too many open files. Close other'),
        (MemoryError(), 'no memory is left to read it'),
        (RuntimeError('hash mismatch'), 'is damaged: hash mismatch. Delete that folder'),
        (ValueError(), 'is damaged: ValueError. Delete'),
    ],
)
def test_what_no_new_build_puts_right_has_another_remedy(error, named):
    with pytest.raises(DataError, match=named):
        raise base.unreadable('/a b/shape_scenes/single/1.1.0', error)


def test_the_command_that_builds_it_again():
    told = str(base.damaged('/a b/cub200_captions/masks/1.0.0', 'why', '/my birds'))
    assert told.endswith(
        "(rm -r '/a b/cub200_captions/masks/1.0.0'), then build it again: python -m "
        "tfds_builders.build cub200_captions/masks --data_dir='/a b' --manual_dir='/my birds'"
    )
