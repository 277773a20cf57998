"""The one way from a picture file to pixels, and to bytes that a record stores."""

import contextlib
import io
import threading
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from tfds_builders.errors import DataError, quoted
from tfds_builders.files import STORED, decode, read_bytes

# Pillow's names of what is read (JPEG opens MPO, too). It knows more; some start other programs.
FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'WEBP', 'TIFF')
ENDINGS = ('.jpg', '.jpeg', '.jfif', '.png', '.gif', '.bmp', '.webp', '.tif', '.tiff')
NAMES = 'JPEG, PNG, GIF, BMP, WebP or TIFF'
# pixels of a stored side
SMALLEST, LONGEST = 8, 2048
# of a picture, which takes 4 bytes each while it is read; large ones are read one at a time
PIXELS, LARGE, ONE = 100_000_000, 30_000_000, threading.Lock()
# EXIF's orientation -> what turns it upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# the chunks of a PNG that decide about its pixels, and its end
CHUNKS = (b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'acTL', b'fcTL', b'fdAT')
END = bytes(4) + b'IEND\xaeB`\x82'
PNG, JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8'

# Pillow warns of odd metadata, and of sizes below the limit
warnings.filterwarnings('ignore', module=r'PIL\.')


class NotUsable(ValueError):
    """A picture that cannot be used; the message says what is wrong with it."""


def read(data: bytes) -> np.ndarray:
    """Return the pixels of a picture file, h w 3 uint8 RGB, as a person sees them.

    Upright, transparency laid on white, 16 bits made 8. Raises NotUsable.
    """
    return _opened(data, lambda _, image: _whole(image, lambda: np.array(to_rgb(_upright(image)))))


def read_file(path) -> np.ndarray:
    """Return the pixels of the file at a path, as `read` does. Raises DataError."""
    try:
        return read(read_bytes(path))
    except NotUsable as error:
        raise DataError(f'{quoted(path)} {error}.') from None


def stored(data: bytes) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
    """Return (bytes of a JPEG or PNG, its (height, width), those of the source as it is seen).

    The file as it is where every program can read it (a PNG without its metadata): else turned
    upright, transparency laid on white, 16 bits to 8, shrunk to LONGEST. Raises NotUsable.
    """
    return _opened(data, lambda part, image: _whole(image, lambda: _stored(part, image)))


def size(data: bytes) -> tuple[int, int]:
    """Return (height, width) as the head of a picture file says. Raises NotUsable."""
    return _opened(data, lambda _, image: image.size[::-1])


def decoded(data: bytes, flags=STORED):
    """Return pixels as `files.decode` does, None also for other formats and for too many pixels."""
    try:
        height, width = size(data)
    except NotUsable:
        return None
    return decode(data, flags) if height * width <= PIXELS else None


def _opened(data, use):
    """Return use(data, image) of a picture file. Raises NotUsable.

    Metadata that Pillow refuses are left out of both.
    """
    if not data:
        raise NotUsable('is empty')
    failure = None
    for way in (bytes, _pixels_only):
        try:
            part = way(data)
            with Image.open(io.BytesIO(part), formats=FORMATS) as image:
                return use(part, image)
        except NotUsable:
            raise
        except Image.DecompressionBombError:
            raise NotUsable('has too many pixels; shrink it') from None
        except Exception as error:
            # PIL has many ways to say that a file is broken
            failure = error
        if not data.startswith((PNG, JPEG)):
            break
    if isinstance(failure, UnidentifiedImageError):
        raise NotUsable(f'is not a picture that can be read; save it as {NAMES}')
    reason = f'{type(failure).__name__}: {failure}'
    raise NotUsable(f'cannot be decoded ({reason}); fetch or save it again')


def _whole(image, use):
    """Return use() of a picture that is decoded whole, large ones one at a time."""
    _check(image)
    with ONE if image.width * image.height > LARGE else contextlib.nullcontext():
        image.load()
        return use()


def _check(image):
    """Raise NotUsable for what the head of a file rules out."""
    if image.width * image.height > PIXELS:
        raise NotUsable(f'has too many pixels ({image.width} x {image.height}); shrink it')
    frames = getattr(image, 'n_frames', 1)
    # MPO: a JPEG of a camera with a preview
    if frames > 1 and image.format != 'MPO':
        what = 'has several pages' if image.format == 'TIFF' else 'is animated'
        raise NotUsable(f'{what} ({frames} frames); save one of them')


def _pixels_only(data, also=(b'eXIf',)):
    """Return a PNG or JPEG without its metadata, except the orientation.

    also: chunks of a PNG that are kept

    A PNG whose end is missing gets one.
    """
    kept, place = [], 0
    if data.startswith(PNG):
        kept, place = [PNG], len(PNG)
        while place + 12 <= len(data) and data[place + 4 : place + 8] != b'IEND':
            length = int.from_bytes(data[place : place + 4], 'big') + 12
            if data[place + 4 : place + 8] in (*CHUNKS, *also):
                kept.append(data[place : place + length])
            place += length
        # nothing follows a chunk that is cut
        kept.append(END if place <= len(data) else b'')
    elif data.startswith(JPEG):
        kept, place = [JPEG], len(JPEG)
        # application segments stand before the tables; 0xEE is Adobe's, which names the colours
        while place + 4 <= len(data) and data[place] == 0xFF and 0xE0 <= data[place + 1] <= 0xEF:
            length = int.from_bytes(data[place + 2 : place + 4], 'big') + 2
            if data[place + 1] == 0xEE or data[place + 4 : place + 10] == b'Exif\0\0':
                kept.append(data[place : place + length])
            place += length
        kept.append(data[place:])
    return b''.join(kept)


def _upright(image):
    """Return a picture as its orientation says; one that cannot be read says nothing."""
    try:
        turn = TURNS.get(image.getexif().get(0x0112))
    except Exception:
        # PIL has many ways to say that EXIF is broken
        turn = None
    return image if turn is None else image.transpose(turn)


def _stored(data, image):
    if min(image.size) < SMALLEST:
        raise NotUsable(f'is {image.width} x {image.height} pixels; a side needs {SMALLEST}')
    plain = (
        image.format in ('JPEG', 'PNG')
        and image.mode in ('RGB', 'L')
        and 'transparency' not in image.info
    )
    upright = _upright(image)
    if plain and upright is image and max(image.size) <= LONGEST:
        data = _pixels_only(data, ()) if image.format == 'PNG' else data
        # records are read with OpenCV, which takes less than Pillow
        pixels = decode(data)
        if pixels is not None and pixels.shape[1::-1] == image.size:
            return data, image.size[::-1], image.size[::-1]
    kind = 'JPEG' if image.format in ('JPEG', 'MPO', 'WEBP') else 'PNG'
    image = to_rgb(upright)
    size = image.size[::-1]
    if max(image.size) > LONGEST:
        scale = LONGEST / max(image.size)
        image = image.resize(
            [max(SMALLEST, round(side * scale)) for side in image.size], Image.Resampling.BOX
        )
    # profiles and comments
    image.info = {}
    out = io.BytesIO()
    image.save(out, kind, **({'quality': 95} if kind == 'JPEG' else {}))
    return out.getvalue(), image.size[::-1], size


def to_rgb(image):
    """Return any PIL image as RGB; transparent parts become white."""
    if image.mode.startswith('I') or image.mode == 'F':
        levels = np.nan_to_num(np.asarray(image, np.float64))
        if image.mode == 'F' and levels.max() <= 1:
            # of 0..1
            levels = levels * 255
        image = Image.fromarray(
            (levels / (257 if levels.max() > 255 else 1)).clip(0, 255).astype(np.uint8)
        )
    if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
        image = image if image.mode == 'RGBA' else image.convert('RGBA')
        flat = Image.new('RGB', image.size, 'white')
        flat.paste(image, mask=image)
        return flat
    return image if image.mode == 'RGB' else image.convert('RGB')
