"""What all builders share: archives, downloads, disk space, the picture of records."""

import gzip
import hashlib
import http.server
import importlib.util
import io
import os
import re
import shutil
import struct
import tarfile
import threading
import types
import zipfile
import zlib

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_builders import DataError, base, build, files, get_builder, manual, pictures
from tfds_builders import inspect as inspection
from tfds_builders.inspect import describe, inspect

CONTENT = {
    'root/a.txt': b'first',
    'root/sub/b.txt': b'second',
    'root/c.bin': b'third',
    '../../out.txt': b'outside',
}
BODY = bytes(range(256)) * 40_000  # 10 MB


def archive(path):
    if path.suffix == '.zip':
        with zipfile.ZipFile(path, 'w') as out:
            for name, data in CONTENT.items():
                out.writestr(name, data)
        return path
    with tarfile.open(path, 'w:gz' if path.suffix == '.tgz' else 'w') as out:
        for name, data in CONTENT.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize('name', ['x.zip', 'x.tgz', 'x.tar', 'folder'])
def test_members_of_archives_and_folders(tmp_path, name):
    path = tmp_path / name
    if name == 'folder':
        for file, data in list(CONTENT.items())[:3]:
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_bytes(data)
    else:
        archive(path)
    assert [
        (match[1], data) for match, data in files.members(path, r'([a-z])\.txt') if match[1] != 't'
    ] == [('a', b'first'), ('b', b'second')]
    assert not (tmp_path.parents[1] / 'out.txt').exists()


@pytest.mark.parametrize('name', ['x', 'x.zip', 'x.tgz'])
def test_hidden_files_are_left_out(tmp_path, name):
    (tmp_path / 'x').mkdir()
    for place in ('./a.txt', '.a.txt', '.hidden/a.txt', '__MACOSX/x/._a.txt', 'b/@eaDir/a.txt'):
        (tmp_path / 'x' / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'x' / place).write_text(place)
    if name == 'x.tgz':
        with tarfile.open(tmp_path / name, 'w:gz') as out:
            out.add(tmp_path / 'x', '.')
    elif name == 'x.zip':
        shutil.make_archive(str(tmp_path / 'x'), 'zip', tmp_path / 'x')
    found = [data for _, data in files.members(tmp_path / name, r'.*\.txt')]
    assert found == [b'./a.txt']


@pytest.mark.parametrize('name', ['x.zip', 'x.tgz', 'x.tar'])
def test_an_archive_that_ends_early_is_named(tmp_path, name):
    path = archive(tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(
        gzip.compress(gzip.decompress(data)[:700])
        if name == 'x.tgz'
        else data[:700]
        if name == 'x.tar'
        else data[:-30]
    )
    with pytest.raises(DataError, match=rf'{name} is broken or ends early.*Fetch it again'):
        list(files.members(path, '.*'))


def zipped(path, data=b'first', changed=None, **options):
    """A zip of one file, `changed` (old, new) in its bytes."""
    with zipfile.ZipFile(path, 'w', **options) as out:
        out.writestr('root/a.txt', data)
    if changed:
        path.write_bytes(path.read_bytes().replace(*changed))
    return path


def flagged(path, flag, method):
    """A zip whose only file has other flags and another method in both of its headers."""
    data = bytearray(zipped(path).read_bytes())
    for mark, place in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
        place += data.index(mark)
        data[place : place + 4] = flag.to_bytes(2, 'little') + method.to_bytes(2, 'little')
    path.write_bytes(data)
    return path


def sparse(path):
    """A tar of a file with holes, of the kind that GNU tar writes with --sparse."""
    head = bytearray(tarfile.TarInfo('root/a.txt').tobuf(tarfile.GNU_FORMAT))
    head[156:157] = b'S'
    # one piece: at 0, 5 bytes; the file has a petabyte
    head[386:410] = b'00000000000\0' + b'00000000005\0'
    head[124:136] = b'00000000005\0'
    head[483:495] = b'\x80' + (10**15).to_bytes(11, 'big')
    head[148:156] = b'%06o\0 ' % (sum(head[:148]) + 256 + sum(head[156:512]))
    path.write_bytes(bytes(head) + b'first'.ljust(512, b'\0') + bytes(1024))
    return path


def long_header(path):
    """A tar whose only comment has a terabyte."""
    head = tarfile.TarInfo('x')
    head.type, head.size = tarfile.XHDTYPE, 1 << 40
    path.write_bytes(head.tobuf(tarfile.GNU_FORMAT) + bytes(2000))
    return path


def deep(path):
    """A small gzip file that unpacks to gigabytes, which nobody asks for."""
    head = tarfile.TarInfo('root/other')
    head.size = 1 << 42
    with gzip.open(path, 'wb') as out:
        out.write(head.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    return path


def hollow(path):
    """A file of a gigabyte that is one hole."""
    path.mkdir()
    with open(path / 'a.bin', 'wb') as out:
        out.truncate(1 << 30)
    return path


@pytest.mark.parametrize(
    'make, name, message',
    [
        (hollow, 'x', 'a.bin takes 1,074 MB, of which 0.0 are stored.*Fetch'),
        (
            lambda path: flagged(path, 1, 0),
            'x.zip',
            'root/a.txt is encrypted. Unpack the archive .*give the folder',
        ),
        (
            lambda path: flagged(path, 0, 97),
            'x.zip',
            'a.txt is compressed by a method .*97.*Unpack',
        ),
        (sparse, 'x.tar', 'root/a.txt has holes .*give the folder'),
        (long_header, 'x.tar', 'broken .*a header of 1,099,512 MB.*Fetch it again'),
        (deep, 'x.tgz', 'root/other takes .* MB, far more.*Fetch the archive again'),
        (
            lambda path: zipped(path, b'a' * 2000),
            'x.zip',
            'a.txt takes 0 MB, and at most 0 are read',
        ),
        (lambda path: zipped(path, changed=(b'first', b'fiXst')), 'x.zip', 'broken .*a.txt.*CRC'),
        (lambda path: os.mkfifo(path), 'x.tgz', 'is a pipe. Give a file'),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_an_archive_cannot_give_is_named(tmp_path, make, name, message):
    make(tmp_path / name)
    with pytest.raises(DataError, match=f'{name}.*{message}'):
        list(files.members(tmp_path / name, r'a\.txt|.*\.bin', limit=1000))


def test_a_folder_that_the_system_refuses_is_named_as_such(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(13, 'Permission denied', str(tmp_path / 'x y.zip'))

    zipped(tmp_path / 'x y.zip')
    monkeypatch.setattr(zipfile, 'ZipFile', refused)
    with pytest.raises(DataError, match=r"'.*/x y.zip' cannot be used: Permission denied. See to"):
        list(files.members(tmp_path / 'x y.zip', '.*'))


def test_a_picture_of_too_many_pixels_is_not_decoded():
    data = cv2.imencode('.png', np.zeros((4, 4), np.uint8))[1].tobytes()
    assert pictures.decoded(data).shape == (4, 4, 3)
    head = struct.pack('>2I', 30000, 30000) + data[24:29]
    huge = data[:16] + head + struct.pack('>I', zlib.crc32(b'IHDR' + head)) + data[33:]
    assert pictures.decoded(huge) is None and pictures.decoded(b'%!PS-Adobe-3.0 EPSF-3.0') is None


@pytest.fixture
def server():
    """Serves BODY at any path.

    `cut` bytes are sent at most in each reply while it is set, and `ranges` says whether it can go
    on in the middle.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        cut, ranges, asked = None, True, []

        def do_GET(self):
            start = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
            self.asked.append(int(start[1]) if start else 0)
            start = int(start[1]) if start and Handler.ranges else 0
            self.send_response(206 if start else 200)
            self.send_header('Content-Length', str(len(BODY) - start))
            self.end_headers()
            self.wfile.write(BODY[start:][: Handler.cut])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        Handler.url, Handler.asked = f'http://127.0.0.1:{running.server_port}/x.bin', []
        yield Handler
        running.shutdown()


def test_a_builder_that_is_made_directly_needs_no_tensorflow_and_has_a_page(tmp_path):
    from tfds_builders.shape_scenes.builder import ShapeScenes

    info = ShapeScenes(data_dir=tmp_path, config='single_quick').info
    assert info.file_format.value == 'array_record'
    assert info.homepage == 'tfds_builders/shape_scenes/README.md'


def test_a_download_goes_on_where_it_stopped(tmp_path, server):
    right = dict(size=len(BODY), checksum=hashlib.sha256(BODY).hexdigest())
    server.cut = 3_000_000
    with pytest.raises(DataError, match='Cannot fetch .*x.bin.* Try again'):
        files.fetch(server.url, tmp_path, retries=2, **right)
    assert (
        server.asked == [0, 3_000_000]
        and not (tmp_path / 'x.bin').exists()
        and (tmp_path / 'x.bin.part').stat().st_size == 6_000_000
    )
    server.cut = None
    assert files.fetch(server.url, tmp_path, **right).read_bytes() == BODY and server.asked[2:] == [
        6_000_000
    ]
    files.fetch(server.url, tmp_path, **right)
    assert len(server.asked) == 3  # it is there


def test_a_download_begins_again_where_the_server_cannot_go_on_or_the_file_is_another(
    tmp_path, server
):
    server.ranges = False
    (tmp_path / 'x.bin.part').write_bytes(b'what came before')
    assert files.fetch(server.url, tmp_path, size=len(BODY)).read_bytes() == BODY
    (tmp_path / 'x.bin').unlink()
    with pytest.raises(DataError, match='not the file that was expected.*was removed'):
        files.fetch(server.url, tmp_path, size=len(BODY), checksum='0' * 64)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r'needs 1000000.00 GB for tests, and its disk has .* GB free'
    ):
        files.require_space(tmp_path / 'not' / 'there', 10**15, 'for tests')


def test_what_has_come_already_needs_no_room(tmp_path, monkeypatch):
    url, asked = 'https://x/a.zip', []
    builder = types.SimpleNamespace(
        downloads=tmp_path / 'downloads',
        url_infos={url: types.SimpleNamespace(size=1000, checksum='')},
    )
    monkeypatch.setattr(files, 'fetch', lambda *args, **kwargs: None)
    monkeypatch.setattr(files, 'require_space', lambda folder, size, purpose: asked.append(size))
    (tmp_path / 'downloads').mkdir()
    manual.ManualBuilder.fetched(builder, tmp_path, url)
    (tmp_path / 'downloads' / 'a.zip.part').write_bytes(bytes(300))
    manual.ManualBuilder.fetched(builder, tmp_path, url)
    (tmp_path / 'downloads' / 'a.zip').write_bytes(bytes(10))  # is not it, and is fetched again
    manual.ManualBuilder.fetched(builder, tmp_path, url)
    (tmp_path / 'downloads' / 'a.zip').write_bytes(bytes(1000))
    manual.ManualBuilder.fetched(builder, tmp_path, url)
    assert asked == [1000, 700, 700]


def test_records_are_drawn_with_what_they_carry(data_dir, tmp_path):
    builder = get_builder('shape_scenes/single_quick', data_dir)
    picture = inspect(builder, 'train', 3, tmp_path / 'records.png')
    assert np.array_equal(cv2.imread(str(tmp_path / 'records.png'), cv2.IMREAD_COLOR_RGB), picture)
    record = builder.as_data_source(
        'train',
        decoders={name: tfds.decode.SkipDecoding() for name in ('image', 'mask', 'object_masks')},
    )[0]
    told = '\n'.join(describe(record, builder.info))
    for what in (
        record['file_name'].decode(),
        record['class_name'].decode(),
        record['captions'][0].decode(),
        'attributes: ',
        'Q ',
    ):
        assert what in told
    top, left, bottom, right = record['objects']['bbox'][0] * 319
    coloured = (picture[40:, 12:332].astype(int) == (255, 25, 25)).all(
        -1
    )  # the colour of the first object's box
    ys, xs = np.nonzero(coloured[:320])
    assert (
        abs(ys.min() - top) < 3
        and abs(ys.max() - bottom) < 3
        and abs(xs.min() - left) < 3
        and abs(xs.max() - right) < 3
    )
    with pytest.raises(DataError, match="has no split 'trian'.*train"):
        inspect(builder, 'trian')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(builder), 'as_data_source', lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # what has nothing to do with splits
            inspect(builder, 'train')
        patch.setattr(type(builder.info), 'file_format', tfds.core.FileFormat.TFRECORD)
        with pytest.raises(DataError, match='drawn from array_record.*--file_format=array_record'):
            inspect(builder, 'train')


def test_the_command_says_how_many_records_were_drawn(data_dir, tmp_path, capsys, monkeypatch):
    command = [
        'inspect',
        'shape_scenes/single_quick',
        f'--data_dir={data_dir}',
        f'--out={tmp_path / "records.png"}',
    ]
    monkeypatch.setattr('sys.argv', [*command, '--split=test[:3]'])
    inspection.main()
    assert ': 3 records of shape_scenes/single_quick/1.1.0, test[:3]' in capsys.readouterr().out
    monkeypatch.setattr('sys.argv', [*command, '--split=tset'])
    with pytest.raises(SystemExit, match="Error: .* has no split 'tset'"):
        inspection.main()


def test_the_file_format_goes_to_the_builder_and_another_one_is_named(
    data_dir, tmp_path, monkeypatch
):
    """As far as it goes without TensorFlow, which writes tfrecord."""
    with pytest.raises(
        DataError, match='--file_format=tfrecord needs TensorFlow: pip install tensorflow'
    ):
        monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
        build.build('shape_scenes/single_quick', data_dir, file_format='tfrecord')
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: 'there')
    with pytest.raises(
        DataError,
        match='was built there as another file format .*Give another --data_dir for a copy as '
        'tfrecord',
    ):
        build.build('shape_scenes/single_quick', data_dir, file_format='tfrecord')
    monkeypatch.setattr(tfds.core.DatasetBuilder, 'download_and_prepare', lambda builder: None)
    monkeypatch.setattr(base.Builder, '_fault', lambda builder: None)
    for _ in range(2):  # also where it is there
        builder = build.build('shape_scenes/single_quick', tmp_path, file_format='tfrecord')
        assert builder.info.file_format is tfds.core.FileFormat.TFRECORD
        if not builder.data_path.exists():
            builder.data_path.mkdir(parents=True)
            builder.info.write_to_directory(builder.data_path)
    with pytest.raises(
        DataError,
        match='was built there as another file format .*Give another --data_dir for a copy as '
        'array_record',
    ):
        build.build('shape_scenes/single_quick', tmp_path)


BUILT = ['shape_scenes/single', 'shape_scenes/rules', 'coco2014_captions/dialogs']
BUILT += [f'{name}/embeddings' for name in ('cub200_captions', 'flowers102_captions')]


@pytest.mark.parametrize('name', BUILT)
def test_a_data_set_says_what_it_is(name, tmp_path):
    builder = get_builder(name, tmp_path)
    info = builder.info
    assert info.citation == builder.get_metadata().citation.strip() and '@' in info.citation
    own = f'tfds_builders/{info.name}/README.md'
    assert info.homepage == own or info.homepage.startswith('https://')
    assert 'tensorflow.org' not in info.homepage
    documented = [one for one in info.features.catalog_documentation() if one.name]
    assert documented and all(one.description for one in documented), documented


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--num=0'], '--num is 0; it is 1 to 256 records'),
        (['--num=-3'], '--num is -3'),
        (['--num=100000000'], '--num is 100000000'),
        (['--split=test[:0]'], r"Split 'test\[:0\]' of .* is empty. It has: train, "),
        (['--split=test[10:5]'], r"Split 'test\[10:5\]' of .* is empty"),
        (['--split='], "has no split ''"),
        (['--out={tmp_path}'], '--out is the folder .*Give the name of a PNG file'),
        (
            ['--out={tmp_path}/file/x.png'],
            '--out: .*/file cannot be used: File exists. Take it away',
        ),
        (['--out={tmp_path}/' + 300 * 'x'], '--out: .*xxx cannot be used: File name too long'),
        (['--out=/proc/x.png'], '--out: .*/proc.* cannot be used'),
        (['--data_dir={tmp_path}/file'], '/file.* cannot be used: .*A part of the path is a file'),
        (
            ['--data_dir={tmp_path}/file/x'],
            '/file.* cannot be used: .*A part of the path is a file',
        ),
        (['--data_dir={tmp_path}/' + 300 * 'x'], 'cannot be used: File name too long. Choose a sh'),
        (['--data_dir=/proc/x'], '/proc.* cannot be used'),
        (['--data_dir=/dev/null'], '/dev/null.* cannot be used'),
        (['--data_dir=/a\udcff'], "'/a.udcff.*' is not the name of a folder in UTF-8"),
    ],
)
def test_inspect_names_what_it_cannot_do(data_dir, tmp_path, monkeypatch, flags, message):
    (tmp_path / 'file').write_text('')
    flags = [flag.format(tmp_path=tmp_path) for flag in flags]
    given = [f'--data_dir={data_dir}', f'--out={tmp_path}/x.png', *flags]
    monkeypatch.setattr('sys.argv', ['inspect', 'shape_scenes/single_quick', *given])
    with pytest.raises(SystemExit, match=f'(?s)Error: .*{message}'):
        inspection.main()
    assert not (tmp_path / 'x.png').exists()


def test_paths_begin_with_a_tilde_and_missing_folders_are_made(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(data_dir))
    monkeypatch.chdir(tmp_path)
    flags = ['shape_scenes/single_quick', '--num=1', '--data_dir=~', f'--out={tmp_path}/a/b/x.png']
    monkeypatch.setattr('sys.argv', ['inspect', *flags])
    inspection.main()
    assert [path.name for path in tmp_path.iterdir()] == ['a'] and (tmp_path / 'a/b/x.png').exists()
    assert build.build('shape_scenes/single_quick', '~').data_path.is_relative_to(data_dir)


@pytest.mark.parametrize(
    'error, message',
    [
        (OSError(30, 'Read-only file system', '/a b'), "'/a b' cannot be used: Read-only .*Choose"),
        (OSError('Not enough disk space'), 'cannot be built: Not enough disk space'),
        (RuntimeError('write() failed: No space left on device; writing'), 'No space left .*Make'),
    ],
)
def test_a_disk_that_takes_no_data_is_named(tmp_path, monkeypatch, error, message):
    def refused(*args, **kwargs):
        raise error

    monkeypatch.setattr(tfds.core.DatasetBuilder, 'download_and_prepare', refused)
    with pytest.raises(DataError, match=f'shape_scenes/single_quick/1.1.0 .*{message}'):
        build.build('shape_scenes/single_quick', tmp_path)


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda path: None, 'does not exist'),
        (lambda path: path.mkdir(), 'is empty'),
        (lambda path: path.write_text(''), 'is a file.* give a folder'),
    ],
)
def test_a_manual_folder_that_is_none(tmp_path, make, message):
    make(tmp_path / 'my files')
    with pytest.raises(DataError, match=f"Manual folder '.*/my files' {message}"):
        build.build('flowers102_captions', tmp_path / 'data', tmp_path / 'my files')
