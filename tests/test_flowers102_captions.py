"""Oxford-102 with captions, built from tiny archives in the original layout."""

import gzip
import io
import pickle
import subprocess
import sys
import tarfile

import cv2
import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from archives import build_in, jpeg, records, write_tar
from PIL import Image
from test_old_downloads import attngan, chars, put, t7_file, vectors

from tfds_builders import DataError, build, class_splits, files, get_builder
from tfds_builders.flowers102_captions import classes
from tfds_builders.flowers102_captions.builder import URL, Flowers102Captions

RANDOM = class_splits.drawn(62, 20, 20)
TRAIN, VALIDATION, TEST = (sorted(RANDOM[name]) for name in ('train', 'validation', 'test'))
LABELS = [*TRAIN[:2], VALIDATION[0], TEST[0]] * 3  # three images a class, image 1 first
LISTS = {'train': TRAIN[:1], 'validation': TRAIN[1:2], 'test': [VALIDATION[0], TEST[0]]}
CAPTIONS = ''.join(f'this flower has {n} red petals\n' for n in range(10))


def make(folder, *, lists=None, images=None, captions=None, labels=LABELS):
    """The three files, as Oxford and Reed et al.

    Pack them; `images` and `captions` replace (None: remove) single files, by number.
    """
    folder.mkdir(exist_ok=True)
    numbers = range(1, len(LABELS) + 1)
    pictures = {n: jpeg(n) for n in numbers} | (images or {})
    write_tar(
        folder / '102flowers.tgz',
        {f'jpg/image_{n:05d}.jpg': data for n, data in pictures.items() if data is not None},
    )

    texts = {n: CAPTIONS.encode() for n in numbers} | (captions or {})
    files = {
        f'text_c10/class_{LABELS[n - 1]:05d}/image_{n:05d}.txt': data
        for n, data in texts.items()
        if data is not None
    }
    files |= {
        class_splits.LISTS[split]: ''.join(f'class_{c:05d}\n' for c in members).encode()
        for split, members in (lists or {}).items()
    }
    files |= {'trainvalclasses.txt': b'class_00001\n', '../../outside.txt': b'?'}
    write_tar(
        folder / 'cvpr2016_flowers.tar.gz',
        {f'cvpr2016_flowers/{name}': data for name, data in files.items()},
    )
    scipy.io.savemat(folder / 'imagelabels.mat', {'labels': np.array([labels], np.uint8)})
    return folder


def built(tmp_path, name='flowers102_captions', **kwargs):
    return build_in(tmp_path, name, **kwargs)


def test_published_lists_decide_the_split(tmp_path, warnings):
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
    assert set(metadata['sha256']) == {
        '102flowers.tgz',
        'imagelabels.mat',
        'cvpr2016_flowers.tar.gz',
    }

    test = records(builder, 'test')
    assert sorted(test) == [f'image_{n:05d}.jpg' for n in (3, 4, 7, 8, 11, 12)]
    record = test['image_00004.jpg']
    assert record['image'] == jpeg(4)  # the bytes of the archive, not encoded again
    assert [c.decode() for c in record['captions']] == CAPTIONS.splitlines()
    assert (
        record['label'] == TEST[0] - 1
        and record['class_name'].decode() == classes.CLASS_NAMES[TEST[0] - 1]
    )
    assert not (tmp_path / 'outside.txt').exists()

    again = get_builder(
        'flowers102_captions', data_dir=tmp_path / 'data'
    )  # reading needs no manual folder
    assert again.info.metadata['split_rule'] == 'reed_cvpr2016'
    assert again.info.features['label'].names == list(classes.CLASS_NAMES)


def test_without_lists_the_split_is_our_own_and_says_so_once(tmp_path, warnings):
    make(tmp_path / 'manual')
    builder = built(tmp_path)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        'train': 6,
        'validation': 3,
        'test': 3,
    }
    assert builder.info.metadata['split_rule'] == 'random82_seed0'
    assert len(warnings) == 1 and 'not comparable with published numbers' in warnings[0]


def test_random_split_is_fixed():
    assert [len(RANDOM[name]) for name in ('train', 'validation', 'test')] == [62, 20, 20]
    assert set().union(*RANDOM.values()) == set(range(1, 103))
    assert class_splits.drawn(62, 20, 20) == RANDOM and TEST[:5] == [
        10,
        13,
        22,
        37,
        38,
    ]  # NumPy keeps this stream as it is


def test_lists_may_lie_beside_the_archive_and_the_archive_may_be_unpacked(tmp_path, warnings):
    manual = make(tmp_path / 'manual')
    with tarfile.open(manual / 'cvpr2016_flowers.tar.gz') as archive:
        archive.extractall(
            manual,
            [m for m in archive if m.name.startswith('cvpr2016_flowers/text_c10')],
            filter='data',
        )
    (manual / 'cvpr2016_flowers.tar.gz').unlink()
    for split, members in LISTS.items():
        (manual / class_splits.LISTS[split]).write_text(
            ''.join(f'class_{c:05d}\r\n' for c in members)
        )
    (manual / 'class_names.txt').write_text(''.join(f'flower {k}\n' for k in range(1, 103)))
    builder = built(tmp_path)
    assert builder.info.metadata['split_rule'] == 'reed_cvpr2016' and not warnings
    assert records(builder, 'test')['image_00004.jpg']['class_name'].decode() == f'flower {TEST[0]}'
    assert builder.info.features['label'].int2str(TEST[0] - 1) == f'flower {TEST[0]}'


def test_captions_are_cleaned(tmp_path, warnings):
    text = '\r\n'.join(
        ['a red\ufffd\ufffdflower ', '', ' \t ', '...', 'café petals', *'bcdefghijk']
    )
    assert files.lines_of(text.encode()) == ['a red flower', 'café petals', *'bcdefghijk']
    assert files.lines_of(b'caf\xe9 au lait\rwhite') == ['café au lait', 'white']
    make(tmp_path / 'manual', captions={1: text.encode()})
    captions = records(built(tmp_path), 'train')['image_00001.jpg']['captions']
    assert [c.decode() for c in captions] == [
        'a red flower',
        'café petals',
        *'bcdefghi',
    ]  # the first ten


def make_masks(manual):
    """Oxford's pictures of the foreground: the background is blue."""
    painted = np.full((20, 24, 3), (254, 0, 0), np.uint8)  # BGR
    painted[4:14, 6:18] = (40, 60, 220)
    painted[17, 20] = (40, 60, 220)  # a speck, which the opening removes
    data = cv2.imencode('.jpg', painted, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    write_tar(
        manual / '102segmentations.tgz',
        {f'segmim/segmim_{n:05d}.jpg': data for n in range(1, len(LABELS) + 1)},
    )
    return manual


def test_masks(tmp_path, warnings):
    manual = make(tmp_path / 'manual')
    make_masks(manual)
    mask = records(built(tmp_path, 'flowers102_captions/masks'), 'train')['image_00001.jpg']['mask']
    mask = cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (20, 24) and set(np.unique(mask)) == {0, 255}
    assert (mask[5:13, 7:17] == 255).all() and not mask[:3].any() and not mask[16:].any()


def test_pictures_are_measured_as_they_are_stored(tmp_path, warnings):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned when it is shown; the masks are not
    turned = io.BytesIO()
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(turned, 'JPEG', exif=exif)
    make_masks(make(tmp_path / 'manual', images={5: turned.getvalue()}))
    assert (
        records(built(tmp_path, 'flowers102_captions/masks'), 'train')['image_00005.jpg']['image']
        == turned.getvalue()
    )


NUMBERS = range(1, len(LABELS) + 1)


def icml(**records):
    """Files of flowers_icml whose sentences are those of the caption archive.

    `records`: {'image_00005': bytes or fields}.
    """
    records = {f'image_{n:05d}': {} for n in NUMBERS} | records
    files = {}
    for (name, change), label in zip(records.items(), LABELS):
        fields = change if isinstance(change, dict) else {}
        data = t7_file(int(name[-5:]), **{'char': chars(CAPTIONS.splitlines())} | fields)
        files[f'flowers_icml/class_{label:05d}/{name}.t7'] = (
            change if isinstance(change, bytes) else data
        )
    return files


def stackgan(text):
    names = [f'jpg/image_{n:05d}' for n in NUMBERS]
    files = {
        'flowers/train/filenames.pickle': names[2:],
        'flowers/train/char-CNN-RNN-embeddings.pickle': [vectors(n) for n in NUMBERS][2:],
        'flowers/test/filenames.pickle': names[:2],
        'flowers/test/char-CNN-RNN-embeddings.pickle': [vectors(1), vectors(2)],
    }
    files = {name: pickle.dumps(value, 2) for name, value in files.items()}
    return files | {
        f'flowers/text_c10/class_{LABELS[n - 1]:05d}/image_{n:05d}.txt': CAPTIONS.encode()
        for n in NUMBERS
        if text
    }


def of(record):
    return [caption.decode() for caption in record['captions']]


@pytest.mark.parametrize(
    'name, files',
    [
        ('flowers_icml.tar.gz', icml()),
        ('flowers_icml', icml()),
        ('flowers.zip', stackgan(True)),
        ('flowers.zip', stackgan(False)),
    ],
)
def test_sentence_vectors_lie_beside_their_captions(tmp_path, warnings, name, files):
    manual = make(tmp_path / 'manual', lists=LISTS)
    put(
        manual / name,
        files if '.' in name else {path.partition('/')[2]: data for path, data in files.items()},
    )
    builder = built(tmp_path, 'flowers102_captions/embeddings')
    records_ = records(builder, 'train+validation+test')
    assert len(records_) == 12 and not warnings
    for n in NUMBERS:
        record = records_[f'image_{n:05d}.jpg']
        assert (
            record['embedding'].dtype == np.float32
            and np.array_equal(record['embedding'], vectors(n))
            and of(record) == CAPTIONS.splitlines()
        )
    metadata = builder.info.metadata
    assert (metadata['split_rule'], metadata['captions_of_vectors']) == ('reed_cvpr2016', 0)
    assert (name in metadata['sha256']) == (manual / name).is_file()


def test_vectors_follow_the_order_of_the_captions_or_bring_their_own(tmp_path, warnings):
    lines = CAPTIONS.splitlines()
    other = [f'other words {j}' for j in range(10)]
    manual = make(tmp_path / 'manual', captions={6: None})
    put(
        manual / 'flowers_icml.tar.gz',
        icml(image_00001={'char': chars(lines[::-1])}, image_00005={'char': chars(other)}),
    )
    train = records(built(tmp_path, 'flowers102_captions/embeddings'), 'train')
    assert (
        np.array_equal(train['image_00001.jpg']['embedding'], vectors(1)[::-1])
        and of(train['image_00001.jpg']) == lines
    )
    assert (
        np.array_equal(train['image_00005.jpg']['embedding'], vectors(5))
        and of(train['image_00005.jpg']) == other
    )
    assert of(train['image_00006.jpg']) == lines  # it has no captions but those of the vectors
    assert any(
        '2 images get the sentences that come with their vectors' in message for message in warnings
    )


@pytest.mark.parametrize(
    'name, files, sentence',
    [
        (
            'flowers_icml.tar.gz',
            icml() | {'flowers_icml/trainclasses.txt': b'class_00001\n'},
            'this flower has 3 red petals',
        ),
        ('flowers.zip', stackgan(True), 'this flower has 3 red petals'),
        (
            'flowers.zip',
            attngan(
                captions=[
                    [[1, j, 0] for n in NUMBERS for j in range(2, 12)],
                    [],
                    {j: f'w{j}' for j in range(1, 12)},
                    {},
                ],
                train=[f'image_{n:05d}' for n in NUMBERS],
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
    (manual / 'cvpr2016_flowers.tar.gz').unlink()
    put(manual / name, files)
    if sentence == 'w1 w5' and config == 'embeddings':
        with pytest.raises(
            DataError,
            match='flowers.zip has train/filenames.pickle, but no '
            'train/char-CNN-RNN-embeddings.pickle',
        ):
            built(tmp_path, f'flowers102_captions/{config}')
        return
    record = records(built(tmp_path, f'flowers102_captions/{config}'), 'train')['image_00005.jpg']
    assert of(record)[3] == sentence and len(record['captions']) == 10
    assert ('embedding' in record) == (config == 'embeddings')


@pytest.mark.parametrize(
    'change, named',
    [
        (b'\x04', 'image_00005.jpg: .*image_00005.t7 cannot be read: it ends early'),
        (
            {'txt': vectors(5, 9), 'char': chars(CAPTIONS.splitlines()[:9])},
            'image_00005.jpg: 9 sentence vectors instead of 10',
        ),
        ({'txt': vectors(5)[:, :9]}, r'image_00005.jpg: .*shape \(10, 9\)'),
        ({'char': np.zeros((201, 10), np.uint8)}, 'image_00005.jpg: caption 1, 2, .* has no word'),
    ],
)
def test_a_vector_that_cannot_be_used_is_refused_or_left_out(tmp_path, warnings, change, named):
    manual = make(tmp_path / 'manual')
    put(manual / 'flowers_icml.tar.gz', icml(image_00005=change))
    with pytest.raises(DataError, match=named):
        built(tmp_path, 'flowers102_captions/embeddings')
    builder = built(tmp_path, 'flowers102_captions/embeddings', on_error='skip')
    assert sorted(records(builder, 'train')) == [f'image_{n:05d}.jpg' for n in (1, 2, 6, 9, 10)]


def test_images_without_vectors_and_missing_vectors_are_named(tmp_path, warnings):
    manual = make(tmp_path / 'manual')
    with pytest.raises(
        DataError, match='flowers_icml.tar.gz with the sentence vectors .* is not in'
    ):
        built(tmp_path, 'flowers102_captions/embeddings')
    put(
        manual / 'flowers_icml.tar.gz',
        {name: data for name, data in icml().items() if '00007' not in name},
    )
    with pytest.raises(DataError, match='image_00007.jpg: no sentence vectors'):
        built(tmp_path, 'flowers102_captions/embeddings')
    put(manual / 'flowers_icml.tar.gz', {name: b'' for name in icml()})
    with pytest.raises(DataError, match='12 records of .*102flowers.tgz cannot be used'):
        built(tmp_path, 'flowers102_captions/embeddings')


def test_a_system_trains_on_stored_vectors(tmp_path, warnings):
    """What `--config.data.name=flowers102_captions/embeddings --config.data.embedding=stored` gives
    to gan_cls.
    """
    import jax
    from flax import nnx

    from experiments import gan_cls_flowers
    from t2i_jax.data.feed import gather
    from t2i_jax.data.plan import Plan, Split
    from t2i_jax.systems.gan_cls import STAGES

    put(make(tmp_path / 'manual') / 'flowers_icml.tar.gz', icml())
    source = built(tmp_path, 'flowers102_captions/embeddings').as_data_source('train')
    config = gan_cls_flowers.get_config('tiny')
    config.data.update(
        name='flowers102_captions/embeddings',
        dir=str(tmp_path / 'data'),
        embedding='stored',
        cache='host',
    )
    assert [name for name, stage in STAGES.items() if not stage.skip(config)] == ['gan']
    needs = ('image', 'wrong_image', 'embedding')
    split = Split(config.data, 'train', needs)
    assert split.meta.embedding_dim == 1024 and split.tables['embedding'].shape == (6, 10, 1024)
    plan = Plan(split, 4, 0, needs, captions=4)(0)
    batch = gather(split.batch_tables(), plan, split.wrong_fields)
    assert batch['embedding'].shape == (4, 4, 1024)
    for index, caption, rows in zip(plan['index'], plan['caption'], batch['embedding']):
        assert np.array_equal(
            rows, vectors(int(source[int(index)]['file_name'].decode()[6:11]))[caption]
        )

    stage = nnx.eval_shape(
        lambda: STAGES['gan'](split.meta, ngf=4, ndf=4, nt=8, text=None, rngs=nnx.Rngs(0))
    )
    assert set(stage.needs) == set(needs) and jax.eval_shape(
        stage.encode, {'embedding': batch['embedding']}
    ).shape == (4, 1024)


def broken_image():
    return jpeg(5)[:-200]  # its head is whole, its end is missing


@pytest.mark.parametrize(
    'fault, named',
    [
        (dict(images={5: broken_image()}), 'image_00005.jpg: cannot be decoded'),
        (dict(images={5: b'no picture'}), 'image_00005.jpg: cannot be decoded'),
        (dict(captions={5: b'only one\n\n'}), 'image_00005.jpg: 1 captions instead of 10'),
        (dict(captions={5: None}), 'image_00005.jpg: no caption file'),
    ],
)
def test_an_image_that_cannot_be_used_is_refused_or_left_out(tmp_path, warnings, fault, named):
    make(tmp_path / 'manual', **fault)
    with pytest.raises(DataError, match=named):
        built(tmp_path)
    assert not list((tmp_path / 'data').rglob('*.array_record*'))  # nothing half-built is left
    builder = built(tmp_path, on_error='skip')
    assert sorted(records(builder, 'train')) == [f'image_{n:05d}.jpg' for n in (1, 2, 6, 9, 10)]
    assert list(builder.info.metadata['skipped']) == ['image_00005.jpg']
    assert any(named in message for message in warnings)
    assert 'left out: 1' in build.report(builder) and named in build.report(builder)


def remove(name):
    return lambda manual: (manual / name).unlink()


def truncate(name):
    def cut(manual):
        data = (manual / name).read_bytes()
        (manual / name).write_bytes(data[: len(data) // 2])

    return cut


def cut_inside(name):
    """An archive whose gzip layer is whole, but whose tar ends early."""

    def cut(manual):
        data = gzip.decompress((manual / name).read_bytes())
        (manual / name).write_bytes(gzip.compress(data[:1700]))

    return cut


def write(name, data):
    return lambda manual: (manual / name).write_bytes(data)


def empty(manual):
    for file in manual.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    'spoil, named',
    [
        (empty, 'manual is empty'),
        (lambda manual: (empty(manual), manual.rmdir()), 'manual does not exist'),
        (remove('cvpr2016_flowers.tar.gz'), 'cvpr2016_flowers.tar.gz is not in'),
        (truncate('102flowers.tgz'), '102flowers.tgz is broken or ends early'),
        (cut_inside('102flowers.tgz'), '102flowers.tgz'),
        (truncate('cvpr2016_flowers.tar.gz'), 'cvpr2016_flowers.tar.gz is broken or ends early'),
        (
            write('cvpr2016_flowers.tar.gz', b'<html>Sign in</html>'),
            'cvpr2016_flowers.tar.gz is broken',
        ),
        (write('imagelabels.mat', b'nonsense'), 'imagelabels.mat cannot be read'),
        (
            lambda manual: scipy.io.savemat(
                manual / 'imagelabels.mat', {'labels': np.array([LABELS[:-1]])}
            ),
            'has 11 labels, but .* 12 images',
        ),
        (
            lambda manual: scipy.io.savemat(
                manual / 'imagelabels.mat', {'labels': np.array([[103] * 12])}
            ),
            'outside 1..102',
        ),
        (
            lambda manual: scipy.io.savemat(
                manual / 'imagelabels.mat', {'labels': np.array([TRAIN[:1] * 12])}
            ),
            'captions lie in class_',
        ),
        (
            lambda manual: write_tar(manual / 'cvpr2016_flowers.tar.gz', {'readme.txt': b''}),
            'holds no captions',
        ),
        (write('class_names.txt', b'rose\nrose\n'), 'has 2 names'),
    ],
)
def test_each_mistake_is_named_with_its_remedy(tmp_path, warnings, spoil, named):
    spoil(make(tmp_path / 'manual'))
    with pytest.raises(DataError, match=named):
        built(tmp_path)


@pytest.mark.parametrize(
    'lists, named',
    [
        (LISTS | {'test': TRAIN[:1]}, 'stands in two of'),
        (LISTS | {'test': TEST[:1]}, 'stands in none of'),
        (LISTS | {'test': [103]}, "line 'class_00103'"),
    ],
)
def test_class_lists_must_divide_the_classes(tmp_path, lists, named):
    make(tmp_path / 'manual', lists=lists)
    with pytest.raises(DataError, match=named):
        built(tmp_path)


def test_a_split_without_images_and_missing_masks_are_named(tmp_path, warnings):
    make(tmp_path / 'manual', images={n: b'' for n in (4, 8, 12)})
    with pytest.raises(DataError, match='Split test .* has no image'):
        built(tmp_path, on_error='skip')
    with pytest.raises(DataError, match='102segmentations.tgz .* is not in'):
        built(tmp_path, 'flowers102_captions/masks')
    with pytest.raises(DataError, match='on_error'):
        built(tmp_path, on_error='ignore')


def test_images_and_labels_are_fetched_where_they_are_missing(tmp_path, warnings, monkeypatch):
    make(tmp_path / 'server')
    manual = make(tmp_path / 'manual')
    (manual / '102flowers.tgz').unlink()
    (manual / 'imagelabels.mat').unlink()
    asked = []

    def fetch(url, folder, *, size, checksum):
        asked.append((url, size, checksum[:4]))
        return tmp_path / 'server' / url.rpartition('/')[2]

    monkeypatch.setattr(files, 'fetch', fetch)
    assert len(records(built(tmp_path), 'test')) == 3
    assert asked == [
        (URL + '102flowers.tgz', 344862509, '2d01'),
        (URL + 'imagelabels.mat', 502, '4903'),
    ]


def test_what_is_fetched_has_a_known_checksum():
    infos = Flowers102Captions.url_infos
    assert {url: (info.size, info.checksum, info.filename) for url, info in infos.items()} == {
        URL + '102flowers.tgz': (
            344862509,
            '2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246',
            '102flowers.tgz',
        ),
        URL + 'imagelabels.mat': (
            502,
            '4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d',
            'imagelabels.mat',
        ),
        URL + 'setid.mat': (
            14989,
            '46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd',
            'setid.mat',
        ),
    }


def test_class_names():
    assert len(set(classes.CLASS_NAMES)) == 102
    assert (classes.CLASS_NAMES[0], classes.CLASS_NAMES[101]) == (
        'pink primrose',
        'blackberry lily',
    )


def test_build_reports_and_does_not_build_twice(tmp_path, warnings):
    make(tmp_path / 'manual', lists=LISTS)
    builder = build.build('flowers102_captions', tmp_path / 'data', tmp_path / 'manual')
    report = build.report(builder)
    assert (
        str(builder.data_path) in report
        and 'train: 3 examples' in report
        and 'reed_cvpr2016' in report
    )
    assert (
        build.report(build.build('flowers102_captions', tmp_path / 'data')) == report
    )  # the manual folder is not asked for again


def test_build_names_an_option_that_the_data_set_lacks(tmp_path, monkeypatch):
    class Drawn(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version('1.0.0')
        _info = _split_generators = _generate_examples = None

    monkeypatch.setattr(build, 'get_builder', lambda name, **kwargs: Drawn(**kwargs))
    with pytest.raises(DataError, match='drawn takes no --manual_dir'):
        build.build('drawn', tmp_path, manual_dir=tmp_path)


@pytest.mark.slow
def test_command_line_prints_one_message_and_no_traceback(tmp_path):
    command = [sys.executable, '-m', 'tfds_builders.build', 'flowers102_captions']
    run = subprocess.run(
        [*command, f'--data_dir={tmp_path}', f'--manual_dir={tmp_path / "none"}'],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and 'Traceback' not in run.stderr
    assert (
        f'Manual folder {tmp_path / "none"} does not exist' in run.stderr
        and 'cvpr2016_flowers.tar.gz' in run.stderr
    )


def test_pictures_and_masks_may_be_unpacked(tmp_path, warnings, monkeypatch):
    manual = make(tmp_path / 'manual', lists=LISTS)
    make_masks(manual)
    for name in ('102flowers.tgz', '102segmentations.tgz'):
        with tarfile.open(manual / name) as archive:
            archive.extractall(manual, filter='data')
        (manual / name).unlink()
    monkeypatch.setattr(files, 'fetch', None)
    assert (
        'mask' in records(built(tmp_path, 'flowers102_captions/masks'), 'train')['image_00001.jpg']
    )
