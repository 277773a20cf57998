"""Any picture file becomes pixels and bytes to store, and folders and texts are read safely.

Whatever a file holds, nothing hangs, and no other program is started.
"""

import io
import os
import pathlib
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from tfds_builders import DataError, files, pictures
from tfds_builders.foreign import pickles, t7
from tfds_builders.foreign.weights import read_weights
from tfds_builders.pictures import LONGEST, NotUsable, stored


def picture(seed=0, shape=(20, 24, 3), kind='JPEG', **options):
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def test_pictures_of_all_kinds_become_plain_ones():
    y, x = np.mgrid[:40, :48]
    plain = np.stack([x * 5, y * 6, np.full((40, 48), 90)], -1).astype(np.uint8)

    def like(kind, mode=None, pixels=plain, **options):
        out = io.BytesIO()
        image = Image.fromarray(pixels)
        (image.convert(mode) if mode else image).save(out, kind, **options)
        found = cv2.imdecode(
            np.frombuffer(stored(out.getvalue())[0], np.uint8), cv2.IMREAD_COLOR_RGB
        ).astype(int)
        return found, lambda expected: np.abs(found - expected).max()

    assert stored(picture())[0] == picture()  # a plain file stays as it is
    for kind, tolerance in (('PNG', 0), ('BMP', 0), ('TIFF', 0), ('GIF', 60), ('JPEG', 12)):
        assert like(kind)[1](plain) <= tolerance, kind
    assert like('WEBP', lossless=True)[1](plain) <= 12
    assert like('PNG', 'L')[1]((plain @ [0.299, 0.587, 0.114])[..., None]) <= 1
    assert like('PNG', 'P')[1](plain) <= 60
    assert like('JPEG', 'CMYK', quality=95)[1](plain) <= 12
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright
    assert like('JPEG', exif=turned, quality=95)[1](np.rot90(plain, 3)) <= 12
    clear = np.dstack([np.zeros((40, 48, 3)), np.full((40, 48), 255)]).astype(np.uint8)
    clear[:10, :, 3] = 0
    assert (like('PNG', pixels=clear)[0][:10] == 255).all() and not like('PNG', pixels=clear)[0][
        10:
    ].any()
    assert like('PNG', pixels=plain[..., 0].astype(np.uint16) * 257)[1](plain[..., :1]) == 0


def test_float_pictures_of_0_to_1():
    levels = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (40, 1))
    for scale in (1, 255):
        out = io.BytesIO()
        Image.fromarray(levels * scale).save(out, 'TIFF')
        found = cv2.imdecode(
            np.frombuffer(stored(out.getvalue())[0], np.uint8), cv2.IMREAD_GRAYSCALE
        )
        assert np.abs(found - levels * 255).max() <= 1


@pytest.mark.parametrize(
    'fault', [lambda image: struct.unpack('>H', b''), lambda image: len(5), lambda image: {}['a']]
)
def test_whatever_pil_raises_is_a_picture_that_cannot_be_decoded(monkeypatch, fault):
    monkeypatch.setattr(ImageFile.ImageFile, 'load', fault)
    with pytest.raises(NotUsable, match=r'cannot be decoded \((error|TypeError|KeyError): '):
        stored(picture())


def test_a_very_wide_picture_is_shrunk_and_a_bomb_refused(monkeypatch):
    data, size, source = stored(picture(shape=(40, 20_000, 3), kind='PNG'))
    assert source == (40, 20_000) and size == (8, LONGEST) and len(data) < 100_000
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(NotUsable, match='too many pixels'):
        stored(picture())


def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def tiff(*entries):
    """EXIF of (tag, type, count, value)."""
    rows = b''.join(struct.pack('<HHI4s', *entry) for entry in entries)
    return b'Exif\0\0II*\0' + struct.pack('<IH', 8, len(entries)) + rows + bytes(4)


UPRIGHT = (0x0112, 3, 1, b'\6')


@pytest.mark.parametrize(
    'name, data',
    [
        ('iCCP', b'a\0\0' + zlib.compress(bytes(2 << 20))),
        ('iCCP', b'a\0\0not zlib'),
        ('zTXt', b'a\0\0' + zlib.compress(bytes(3 << 20))),
        ('iTXt', b'a\0\1\0\0\0' + zlib.compress(bytes(3 << 20))),
        ('tEXt', b'a\0' + b'a' * (3 << 20)),
        ('gAMA', b'\0\0'),
        ('pHYs', b'\0\0\0\1'),
        ('eXIf', b'garbage'),
    ],
)
def test_metadata_of_a_png_refuse_no_picture(name, data):
    plain = picture(kind='PNG')
    odd = plain[:33] + chunk(name.encode(), data) + plain[33:]
    assert np.array_equal(pictures.read(odd), pictures.read(plain))
    assert pictures.size(odd) == (20, 24)
    kept, size, source = stored(odd)
    assert np.array_equal(opencv(kept), opencv(plain)) and size == source == (20, 24)
    # what is stored opens everywhere
    assert Image.open(io.BytesIO(kept)).size == (24, 20)


@pytest.mark.parametrize(
    'segment, shape',
    [
        (tiff(UPRIGHT, (0x011A, 10, 1, b'\xff\xff'), (0x8769, 2, 4, b'abc')), (24, 20)),
        (tiff((0x010F, 3, 1, b'\5'), UPRIGHT, (0x8769, 4, 1, b'\xf0\xff')), (24, 20)),
        (tiff((0x0112, 3, 1, rb'\9')), (20, 24)),
        (b'Exif\0\0garbage', (20, 24)),
        (b'Exif\0\0II*\0', (20, 24)),
    ],
)
def test_metadata_of_a_jpeg_refuse_no_picture(segment, shape):
    plain = picture()
    for more in (b'', b'\xff\xe0\0\7JFIF\0'):
        head = b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + more
        odd = plain[:2] + head + plain[2:]
        assert pictures.read(odd).shape[:2] == shape
        assert opencv(stored(odd)[0]).shape[:2] == stored(odd)[1] == shape


def test_what_is_stored_can_be_read_with_opencv():
    """Pillow takes a PNG without its last bytes, OpenCV does not."""
    plain = picture(kind='PNG')
    cut = plain[:-12]
    assert opencv(cut) is None
    assert np.array_equal(opencv(stored(cut)[0]), pictures.read(plain))


def test_pixels_are_those_that_opencv_reads():
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8), (70, 90))
    for options in ({}, {'quality': 95, 'subsampling': 0}, {'progressive': True}):
        out = io.BytesIO()
        Image.fromarray(smooth).save(out, 'JPEG', **options)
        assert np.array_equal(pictures.read(out.getvalue()), opencv(out.getvalue()))


@pytest.mark.parametrize(
    'data', [b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n', b'<svg/>', b'P6 1 1 1']
)
def test_other_formats_start_no_program(tmp_path, monkeypatch, data):
    monkeypatch.setattr(
        EpsImagePlugin, 'Ghostscript', lambda *_, **__: pytest.fail('a program was started')
    )
    (tmp_path / 'a.jpg').write_bytes(data)
    with pytest.raises(DataError, match='a.jpg is not a picture that can be read; save it as JPEG'):
        pictures.read_file(tmp_path / 'a.jpg')


def test_a_bomb_is_refused_by_its_head(tmp_path):
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0))
    with pytest.raises(NotUsable, match='too many pixels; shrink it'):
        stored(pictures.PNG + head + chunk(b'IDAT', b''))
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', 12_000, 12_000, 1, 0, 0, 0, 0))
    with pytest.raises(NotUsable, match=r'too many pixels \(12000 x 12000\); shrink it'):
        stored(pictures.PNG + head + chunk(b'IDAT', b''))


# -------------------------------------------------------------------------------- texts and folders
def test_texts_of_all_encodings(tmp_path):
    path, text = tmp_path / 'a.txt', 'un café\nrouge\n'
    for encoding in ('utf-8', 'utf-8-sig', 'utf-16', 'cp1252'):
        path.write_bytes(text.encode(encoding))
        assert files.read_text(path) == text
    path.write_bytes(text.encode('utf-8-sig') * 2)
    assert files.read_text(path) == text * 2
    with pytest.raises(DataError, match=r'a.txt is larger than 0 MB. Give a smaller file'):
        files.read_text(path, limit=20)


@pytest.mark.parametrize(
    'name, message',
    [
        ('none.txt', 'none.txt cannot be used: No such file or directory. Check the path'),
        ('folder', 'folder is a folder. Give a file'),
        ('a.txt/b', 'a.txt/b cannot be used: Not a directory'),
        ('a' * 300, 'a cannot be used: File name too long'),
        ('a\0b', 'is not the name of a file'),
        ('a\ud800', 'is not the name of a file'),
        ('pipe', 'pipe is a pipe. Give a file'),
        ('/dev/zero', '/dev/zero is a device. Give a file'),
        ('~nobody/x', '/x cannot be used: No such file'),
    ],
)
def test_what_is_no_file_is_named_and_not_opened(tmp_path, name, message):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'a.txt').write_text('a')
    os.mkfifo(tmp_path / 'pipe')
    for read in (
        files.read_text,
        files.sha256,
        files.require_file,
        pictures.read_file,
        read_weights,
        pickles.load,
        t7.load,
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            read(name if name[0] == '~' else os.path.join(tmp_path, name))


def test_paths_in_messages_can_be_pasted(tmp_path):
    path = tmp_path / 'my birds' / 'a b.png'
    path.parent.mkdir()
    for read in (files.read_bytes, pictures.read_file, read_weights, pickles.load, t7.load):
        with pytest.raises(DataError, match=f"^'{path}' cannot be used"):
            read(path)
    path.write_bytes(b'no picture')
    for read in (pictures.read_file, read_weights, pickles.load, t7.load):
        with pytest.raises(DataError, match=f"^'{path}' "):
            read(path)


def test_what_is_not_meant_as_data_is_skipped_and_counted(tmp_path):
    for name in (
        'b.png',
        'a/c.PNG',
        '.hidden.png',
        '._b.png',
        '.Trash-1000/files/d.png',
        '@eaDir/b.png/thumb.png',
        '__MACOSX/b.png',
        'data/one/1.0.0/dataset_info.json',
        'data/one/1.0.0/report.png',
        'data/one/incomplete.12AB_1.0.0/report.png',
        'runs/x/config.json',
        'runs/x/gan/meta.json',
        'runs/x/gan/samples/1.png',
        'config.json',
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'broken.png').symlink_to('nowhere')
    (tmp_path / 'link.png').symlink_to('b.png')
    (tmp_path / 'links').symlink_to('a')
    os.mkfifo(tmp_path / 'pipe.png')
    found, skipped = files.walk(tmp_path, pictures.ENDINGS)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        'a/c.PNG',
        'b.png',
        'link.png',
    ]
    assert skipped == {
        'hidden files': 2,
        'hidden folders': 3,
        'built data sets': 2,
        'workdirs of runs': 1,
        'linked folders': 1,
        'broken links': 1,
        'pipes and devices': 1,
    }


def test_folders_that_may_not_be_read_are_counted(tmp_path, monkeypatch):
    for name in ('a', 'private'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'a.png').touch()
    stat, scandir = os.stat, os.scandir

    def refuse(system):
        def call(path, **keywords):
            if 'private' in pathlib.Path(path).parts[: -1 if system is stat else None]:
                raise PermissionError(13, 'Permission denied', str(path))
            return system(path, **keywords)

        return call

    monkeypatch.setattr(os, 'stat', refuse(stat))
    # by which os.walk lists them
    monkeypatch.setattr(os, 'scandir', refuse(scandir))
    found, skipped = files.walk(tmp_path, ('',))
    assert found == [tmp_path / 'a' / 'a.png'] and sum(skipped.values()) == 1
