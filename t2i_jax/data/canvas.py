"""Records to pictures on a uint8 canvas of fixed shape: cropping, resizing, masks. Runs on the host, in threads or worker processes."""

import functools
import io
import os
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from t2i_jax.runtime.errors import DataError

PICTURES = ('image', 'mask', 'object_masks')
CROPS = ('', 'bbox')
LONGEST = 1.5  # with 'keep', the longer side of a canvas in units of the shorter one; what is longer is cut at both ends


class Canvas(NamedTuple):
    """How a picture is brought to a fixed shape. side: pixels; keep: its proportions, else it is squashed to a square; crop: '' or 'bbox'."""

    side: int
    keep: bool
    crop: str

    @property
    def shape(self):
        return (int(LONGEST * self.side),) * 2 if self.keep else (self.side,) * 2


class Frame(NamedTuple):
    """The part of a picture that its canvas shows. All (top, left, height, width)."""

    crop: tuple[int, int, int, int]  # pixels of the picture
    resized: tuple[int, int]  # height, width of the crop after resizing
    cut: tuple[int, int, int, int]  # pixels of the resized crop
    shown: tuple[float, float, float, float]  # fractions of the picture

    @property
    def whole(self):
        return self.shown == (0, 0, 1, 1)


def frame(height, width, canvas: Canvas, box=None) -> Frame:
    """box: (ymin, xmin, ymax, xmax) in fractions of the picture, for crop='bbox': the square around it of 1.5 times its longer side, cut at
    the picture's border (StackGAN, AttnGAN and their kin, whole pixels as there)."""
    top, left, h, w = 0, 0, height, width
    if canvas.crop == 'bbox':
        y, x, bottom, right = (
            int(round(v * side, 2)) for v, side in zip(box, (height, width, height, width))
        )
        cx, cy, r = (
            int((x + right) / 2),
            int((y + bottom) / 2),
            int(0.75 * max(right - x, bottom - y)),
        )
        top, left = max(0, cy - r), max(0, cx - r)
        h, w = min(height, cy + r) - top, min(width, cx + r) - left
        if h < 1 or w < 1:  # a box of no size: the whole picture
            top, left, h, w = 0, 0, height, width
    if not canvas.keep:
        return Frame(
            (top, left, h, w),
            (canvas.side,) * 2,
            (0, 0, canvas.side, canvas.side),
            (top / height, left / width, h / height, w / width),
        )
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
    """Pixels (H, W[, C]) uint8 -> (canvas (h, w, C) uint8 with the frame in its upper left corner, extent int32 (2,) of it)."""
    top, left, h, w = one.crop
    pixels = pixels[top : top + h, left : left + w]
    if (h, w) != one.resized:
        shrinks = one.resized[0] < h
        pixels = cv2.resize(
            pixels, one.resized[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        )
    top, left, h, w = one.cut
    pixels = pixels[top : top + h, left : left + w]
    if canvas.keep:
        out = np.zeros((*canvas.shape, *pixels.shape[2:]), np.uint8)
        out[:h, :w] = pixels
        pixels = out
    return pixels if pixels.ndim == 3 else pixels[..., None], np.array([h, w], np.int32)


def draw_masks(masks, one: Frame):
    """Masks of objects (R, h, w) uint8 over the whole picture -> the same shape over the frame."""
    if one.whole:
        return masks
    (h, w), (top, left, height, width) = masks.shape[1:], one.shown
    # pixel i of the frame lies at (i + .5) / h * height + top of the picture
    inverse = np.array(
        [[width, 0, left * w + 0.5 * width - 0.5], [0, height, top * h + 0.5 * height - 0.5]]
    )
    return np.stack(
        [
            cv2.warpAffine(mask, inverse, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            for mask in masks
        ]
    )


def move_boxes(boxes, one: Frame):
    """Boxes (..., 4) ymin xmin ymax xmax in fractions of the picture -> of the frame, cut at its border; all 0 where nothing is left."""
    start, extent = np.array(one.shown[:2] * 2, np.float32), np.array(one.shown[2:] * 2, np.float32)
    moved = np.clip((boxes - start) / extent, 0, 1).astype(np.float32)
    there = (moved[..., 2:] > moved[..., :2]).all(-1, keepdims=True)
    return np.where(there, moved, np.float32(0))


def move_parts(parts, one: Frame):
    """Parts (P, 3) x y visible, in fractions of the picture -> of the frame; those outside are invisible, and invisible ones all 0."""
    place = (parts[:, :2] - one.shown[1::-1]) / one.shown[:1:-1]
    seen = (parts[:, 2:] > 0) & ((place >= 0) & (place <= 1)).all(-1, keepdims=True)
    return np.where(seen, np.concatenate([place, np.ones_like(seen)], -1), 0).astype(np.float32)


class Pictures:
    """Reads records of a split and draws their pictures. It can be pickled, for worker processes, which open the files anew."""

    def __init__(self, data_dir, split, features, fields, canvas: Canvas, max_objects):
        """features: those of a record that are parsed, pictures as the bytes that they are; fields: of PICTURES, what is drawn."""
        self.data_dir, self.split, self.names = os.fspath(data_dir), split, tuple(features)
        self.fields, self.canvas, self.max_objects = (
            tuple(f for f in PICTURES if f in fields),
            canvas,
            max_objects,
        )

    def __getstate__(self):
        return {
            name: value for name, value in self.__dict__.items() if name not in ('source', 'parser')
        }

    @functools.cached_property
    def source(self):
        builder = tfds.builder_from_directory(self.data_dir)
        return builder.as_data_source(
            self.split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )

    @functools.cached_property
    def parser(self):
        # only these features are parsed (tfds.decode.PartialDecoding would need TensorFlow)
        features = tfds.builder_from_directory(self.data_dir).info.features
        return tfds.features.FeaturesDict({name: features[name] for name in self.names})

    def records(self, numbers) -> list:
        """Records as dictionaries, pictures as the bytes that they are. Read together, since a read costs as much as parsing one."""
        decoders = {name: tfds.decode.SkipDecoding() for name in PICTURES if name in self.names}
        return [
            self.parser.deserialize_example_np(raw, decoders=decoders)
            for raw in self.source.__getitems__([int(number) for number in numbers])
        ]

    def frame(self, record) -> Frame:
        """The part of the record's picture that is shown; the size is read from the head of the file, which is fast."""
        try:
            width, height = Image.open(io.BytesIO(record['image'])).size
        except OSError:
            raise self.broken(record, 'image') from None
        return frame(height, width, self.canvas, record.get('bbox'))

    def broken(self, record, name):
        what = record.get('file_name', b'').decode() or 'a record'
        return DataError(
            f'The {name} of {what} in split {self.split} cannot be decoded. Build the data set again from intact files.'
        )

    def draw(self, record, fields=None) -> dict:
        """{'image': uint8 c c 3, 'extent': int32 (2,), 'mask': uint8 c c 1, 'object_masks': uint8 r 64 64}, of these what `fields` names
        (None: all that were asked for)."""
        out, one = {}, None
        for name in self.fields if fields is None else fields:
            flag = cv2.IMREAD_COLOR_RGB if name == 'image' else cv2.IMREAD_GRAYSCALE
            pixels = cv2.imdecode(
                np.frombuffer(record[name], np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION
            )
            if pixels is None:
                raise self.broken(record, name)
            if name == 'image':
                one = frame(*pixels.shape[:2], self.canvas, record.get('bbox'))
            elif one is None and 'image' in self.names:
                one = self.frame(record)
            if name == 'object_masks':
                pixels = pixels.reshape(self.max_objects, -1, pixels.shape[1])
                crowd = np.flatnonzero(
                    record.get('objects', {}).get('is_crowd', ())
                )  # crowd regions are no objects
                pixels = np.where(
                    np.isin(np.arange(len(pixels)), crowd)[:, None, None], np.uint8(0), pixels
                )
                out[name] = draw_masks(pixels, one) if one else pixels
            else:
                out[name], extent = draw(
                    pixels, self.canvas, one or frame(*pixels.shape[:2], self.canvas)
                )
                if name == 'image':
                    out['extent'] = extent
        return out

    def rows(self, numbers, fields=None) -> dict:
        """The pictures of several records, stacked."""
        drawn = [self.draw(record, fields) for record in self.records(numbers)]
        return {name: np.stack([one[name] for one in drawn]) for name in drawn[0]}


def read_picture(path, size):
    """A picture file -> s s 3 in [-1, 1]. Raises DataError."""
    image = cv2.imread(os.path.expanduser(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DataError(f'{path} is missing, or no picture. Give a PNG or JPEG file.')
    return (
        cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 127.5 - 1
    )
