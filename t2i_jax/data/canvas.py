"""Records to pictures on a uint8 canvas of fixed shape: cropping, resizing, masks.

It runs on the host, in threads or worker processes.
"""

import functools
import os
from typing import NamedTuple

import cv2
import numpy as np

from t2i_jax.runtime.errors import DataError, quoted
from tfds_builders import pictures

PICTURES = ('image', 'mask', 'object_masks')
# with 'keep', the longer side of a canvas in units of the shorter one; more is cut at both ends
LONGEST = 1.5


class Canvas(NamedTuple):
    """How a picture is brought to a fixed shape.

    side: pixels. keep: its proportions, else it is squashed to a square. crop: '' or 'bbox'.
    """

    side: int
    keep: bool
    crop: str

    @property
    def shape(self):
        return (int(LONGEST * self.side),) * 2 if self.keep else (self.side,) * 2


class Frame(NamedTuple):
    """The part of a picture that its canvas shows; (top, left, height, width) each.

    crop: pixels of the picture. resized: height, width of the crop after resizing.
    cut: pixels of the resized crop. shown: fractions of the picture.
    """

    crop: tuple[int, int, int, int]
    resized: tuple[int, int]
    cut: tuple[int, int, int, int]
    shown: tuple[float, float, float, float]

    @property
    def whole(self):
        return self.shown == (0, 0, 1, 1)


def frame(height, width, canvas: Canvas, box=None) -> Frame:
    """Find the part of a picture, height x width pixels, that a canvas shows.

    box: (ymin, xmin, ymax, xmax) in fractions of the picture, for crop='bbox': the crop is the
    square around it of 1.5 times its longer side, cut at the border of the picture (StackGAN,
    AttnGAN and their kin, whole pixels as there).
    """
    top, left, h, w = 0, 0, height, width
    if canvas.crop == 'bbox':
        sides = height, width, height, width
        y, x, bottom, right = (int(round(v * side, 2)) for v, side in zip(box, sides))
        cx, cy = int((x + right) / 2), int((y + bottom) / 2)
        r = int(0.75 * max(right - x, bottom - y))
        top, left = max(0, cy - r), max(0, cx - r)
        h, w = min(height, cy + r) - top, min(width, cx + r) - left
        if h < 1 or w < 1:
            # a box of no size: the whole picture
            top, left, h, w = 0, 0, height, width
    if not canvas.keep:
        side, shown = canvas.side, (top / height, left / width, h / height, w / width)
        return Frame((top, left, h, w), (side, side), (0, 0, side, side), shown)
    scale, limit = canvas.side / min(h, w), int(LONGEST * canvas.side)
    resized = tuple(max(canvas.side, round(side * scale)) for side in (h, w))
    size = tuple(min(limit, side) for side in resized)
    corner = tuple((side - part) // 2 for side, part in zip(resized, size))
    start = tuple(
        (first + c / r * side) / total
        for first, c, r, side, total in zip((top, left), corner, resized, (h, w), (height, width))
    )
    extent = tuple(
        part / r * side / total
        for part, r, side, total in zip(size, resized, (h, w), (height, width))
    )
    return Frame((top, left, h, w), resized, (*corner, *size), (*start, *extent))


def draw(pixels, canvas: Canvas, one: Frame):
    """Draw pixels (H, W[, C]) uint8 on a canvas -> (canvas (h, w, C), extent (2,)).

    The canvas is uint8, the extent int32. The frame lies in the upper left corner; extent is its
    height and width.
    """
    top, left, h, w = one.crop
    pixels = pixels[top : top + h, left : left + w]
    if (h, w) != one.resized:
        filter_ = cv2.INTER_AREA if one.resized[0] < h else cv2.INTER_CUBIC
        pixels = cv2.resize(pixels, one.resized[::-1], interpolation=filter_)
    top, left, h, w = one.cut
    pixels = pixels[top : top + h, left : left + w]
    if canvas.keep:
        out = np.zeros((*canvas.shape, *pixels.shape[2:]), np.uint8)
        out[:h, :w] = pixels
        pixels = out
    return pixels if pixels.ndim == 3 else pixels[..., None], np.array([h, w], np.int32)


def draw_masks(masks, one: Frame):
    """Move masks of objects (R, h, w) uint8 from the whole picture to the frame."""
    if one.whole:
        return masks
    (h, w), (top, left, height, width) = masks.shape[1:], one.shown
    # pixel i of the frame lies at (i + .5) / h * height + top of the picture
    x, y = left * w + 0.5 * width - 0.5, top * h + 0.5 * height - 0.5
    inverse, flags = np.array([[width, 0, x], [0, height, y]]), cv2.INTER_LINEAR
    flags |= cv2.WARP_INVERSE_MAP
    return np.stack([cv2.warpAffine(mask, inverse, (w, h), flags=flags) for mask in masks])


def move_boxes(boxes, one: Frame):
    """Move boxes (..., 4) ymin xmin ymax xmax from fractions of the picture to the frame's.

    They are cut at its border; all 0 where nothing is left.
    """
    start, extent = (np.array(part * 2, np.float32) for part in (one.shown[:2], one.shown[2:]))
    moved = np.clip((boxes - start) / extent, 0, 1).astype(np.float32)
    there = (moved[..., 2:] > moved[..., :2]).all(-1, keepdims=True)
    return np.where(there, moved, np.float32(0))


def move_parts(parts, one: Frame):
    """Move parts (P, 3) x y visible from fractions of the picture to fractions of the frame.

    Those outside are invisible, and invisible ones all 0.
    """
    place = (parts[:, :2] - one.shown[1::-1]) / one.shown[:1:-1]
    seen = (parts[:, 2:] > 0) & ((place >= 0) & (place <= 1)).all(-1, keepdims=True)
    return np.where(seen, np.concatenate([place, np.ones_like(seen)], -1), 0).astype(np.float32)


class Pictures:
    """A reader of the records of a split, which draws their pictures.

    It can be pickled, for worker processes, which open the files anew.
    """

    def __init__(self, data_dir, split, features, fields, canvas: Canvas, max_objects):
        """features: of a record, those that are parsed. fields: of PICTURES, those drawn."""
        self.data_dir, self.split, self.names = os.fspath(data_dir), split, tuple(features)
        self.fields = tuple(f for f in PICTURES if f in fields)
        self.canvas, self.max_objects = canvas, max_objects

    def __getstate__(self):
        return {n: value for n, value in self.__dict__.items() if n not in ('source', 'parser')}

    @functools.cached_property
    def source(self):
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(self.data_dir)
        return builder.as_data_source(
            self.split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )

    @functools.cached_property
    def parser(self):
        import tensorflow_datasets as tfds

        # only these features are parsed (tfds.decode.PartialDecoding would need TensorFlow)
        features = tfds.builder_from_directory(self.data_dir).info.features
        return tfds.features.FeaturesDict({name: features[name] for name in self.names})

    def records(self, numbers) -> list:
        """Read records as dictionaries, pictures as encoded bytes.

        They are read together, since a read costs as much as parsing a record. Raises DataError
        where their files are damaged or gone.
        """
        # late, since drawing reads no records
        import tensorflow_datasets as tfds

        from tfds_builders.base import unreadable

        decoders = {name: tfds.decode.SkipDecoding() for name in PICTURES if name in self.names}
        try:
            parse = functools.partial(self.parser.deserialize_example_np, decoders=decoders)
            return [parse(raw) for raw in self.source.__getitems__([int(n) for n in numbers])]
        # readers of damaged files raise many kinds, some of which no process can pass on
        except Exception as error:
            raise unreadable(self.data_dir, error) from error

    def frame(self, record) -> Frame:
        """The part of the record's picture that is shown, by the size in the head of the file."""
        try:
            height, width = pictures.size(record['image'])
        except pictures.NotUsable:
            raise self.broken(record, 'image') from None
        return frame(height, width, self.canvas, record.get('bbox'))

    def broken(self, record, name):
        what = record.get('file_name', b'').decode() or 'a record'
        return DataError(
            f'The {name} of {what} in split {self.split} of {quoted(self.data_dir)} cannot be '
            'decoded. Delete that folder, and build the data set again from intact files.'
        )

    def draw(self, record, fields=None) -> dict:
        """Draw the pictures of a record.

        fields: which; None: all of self.fields. Returns, of these, {'image': uint8 c c 3,
        'extent': int32 (2,), 'mask': uint8 c c 1, 'object_masks': uint8 r 64 64}.
        """
        out, one = {}, None
        for name in self.fields if fields is None else fields:
            flag = cv2.IMREAD_COLOR_RGB if name == 'image' else cv2.IMREAD_GRAYSCALE
            encoded = np.frombuffer(record[name], np.uint8)
            try:
                pixels = cv2.imdecode(encoded, flag | cv2.IMREAD_IGNORE_ORIENTATION)
            except cv2.error:
                # too many pixels, or no bytes
                pixels = None
            if pixels is None:
                raise self.broken(record, name)
            if name == 'image':
                one = frame(*pixels.shape[:2], self.canvas, record.get('bbox'))
            elif one is None and 'image' in self.names:
                one = self.frame(record)
            if name == 'object_masks':
                pixels = pixels.reshape(self.max_objects, -1, pixels.shape[1])
                # crowd regions are not objects
                crowd = np.flatnonzero(record.get('objects', {}).get('is_crowd', ()))
                empty = np.isin(np.arange(len(pixels)), crowd)[:, None, None]
                pixels = np.where(empty, np.uint8(0), pixels)
                out[name] = draw_masks(pixels, one) if one else pixels
            else:
                shown = one or frame(*pixels.shape[:2], self.canvas)
                out[name], extent = draw(pixels, self.canvas, shown)
                if name == 'image':
                    out['extent'] = extent
        return out

    def rows(self, numbers, fields=None) -> dict:
        """The pictures of several records, stacked."""
        drawn = [self.draw(record, fields) for record in self.records(numbers)]
        return {name: np.stack([one[name] for one in drawn]) for name in drawn[0]}


def read_picture(path, size):
    """A picture file -> s s 3 in [-1, 1], upright, transparency laid on white. Raises DataError."""
    return squashed(pictures.read_file(path), size)


def squashed(image, size):
    """A picture h w 3, uint8 -> s s 3 in [-1, 1]."""
    return (
        cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 127.5 - 1
    )
