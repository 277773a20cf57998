"""Pictures of any kind as bytes that a record stores.

Eight-bit RGB, upright, in a JPEG or PNG of a sensible size.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# pixels of a side
SMALLEST, LONGEST = 8, 2048
# of EXIF's orientation
UPRIGHT = (None, 1)


class NotUsable(ValueError):
    """A picture that cannot be used; the message says what is wrong with it."""


def stored(data: bytes) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
    """Return (bytes of a JPEG or PNG, its (height, width), those of the source as it is seen).

    The file as it is where every program can read it: else turned upright, transparency laid on
    white, 16 bits to 8, shrunk to LONGEST. Raises NotUsable.
    """
    try:
        with warnings.catch_warnings():
            # large pictures are shrunk
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(data)) as image:
                return _stored(data, image)
    except UnidentifiedImageError:
        raise NotUsable('is not a picture that can be read' if data else 'is empty') from None
    except Image.DecompressionBombError:
        raise NotUsable('has too many pixels; shrink it') from None
    except NotUsable:
        raise
    except Exception as error:
        # PIL has many ways to say that a file is broken
        raise NotUsable(f'cannot be decoded ({type(error).__name__}: {error})') from None


def _stored(data, image):
    frames = getattr(image, 'n_frames', 1)
    # MPO: a JPEG of a camera with a preview
    if frames > 1 and image.format != 'MPO':
        raise NotUsable(f'is animated ({frames} frames); save one of them')
    if min(image.size) < SMALLEST:
        raise NotUsable(f'is {image.width} x {image.height} pixels; a side needs {SMALLEST}')
    upright = image.getexif().get(0x0112) in UPRIGHT
    image.load()
    plain = (
        image.format in ('JPEG', 'PNG')
        and image.mode in ('RGB', 'L')
        and 'transparency' not in image.info
    )
    if plain and upright and max(image.size) <= LONGEST:
        return data, image.size[::-1], image.size[::-1]
    kind = 'JPEG' if image.format in ('JPEG', 'MPO', 'WEBP') else 'PNG'
    image = to_rgb(ImageOps.exif_transpose(image))
    size = image.size[::-1]
    if max(image.size) > LONGEST:
        scale = LONGEST / max(image.size)
        image = image.resize(
            [max(SMALLEST, round(side * scale)) for side in image.size], Image.Resampling.BOX
        )
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
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return image.convert('RGB')
