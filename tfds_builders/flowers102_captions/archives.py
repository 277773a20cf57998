"""The files of Oxford-102 and of its captions."""

import io
import pathlib
import re

import cv2
import numpy as np
import scipy.io
from tqdm import tqdm

from tfds_builders.class_splits import LISTS
from tfds_builders.errors import DataError, quoted
from tfds_builders.files import lines_of, members, read_bytes
from tfds_builders.flowers102_captions.classes import CLASS_NAMES
from tfds_builders.pictures import decoded

# bytes of the file of labels, which has 502
SMALL = 1 << 18
IMAGE = r'image_(\d+)\.jpe?g'
MASK = r'segmim_(\d+)\.jpe?g'
CAPTIONS = r'text_c10/class_(\d+)/image_(\d+)\.txt'
CLASS_LIST = '|'.join(map(re.escape, LISTS.values()))


def images(path):
    """Yield (number, bytes) of each picture, in the order of the archive.

    jpg/image_00001.jpg is number 1.
    """
    for match, data in members(path, IMAGE):
        yield int(match[1]), data


def image_sizes(path, total: int) -> dict[int, tuple[int, int] | None]:
    """Return number -> (height, width) of every picture, None where it cannot be decoded.

    `total` scales the progress bar.
    """
    sizes = {}
    for number, data in tqdm(
        images(path),
        total=total,
        desc=f'Checking {pathlib.Path(path).name}',
        unit=' images',
        disable=None,
    ):
        if number in sizes:
            raise DataError(f'{quoted(path)} holds image {number} twice. Fetch it again.')
        pixels = decoded(data)
        sizes[number] = None if pixels is None else pixels.shape[:2]
    return sizes


def read_labels(path) -> np.ndarray:
    """Read imagelabels.mat: (N,) int, the classes 1..102 of the images 1..N."""
    try:
        data = io.BytesIO(read_bytes(path, SMALL))
        labels = np.asarray(scipy.io.loadmat(data)['labels']).reshape(-1).astype(int)
    except DataError:
        raise
    except Exception as error:
        # SciPy raises a dozen kinds for a file that is not MATLAB's
        raise DataError(
            f'{quoted(path)} cannot be read as MATLAB file with the key "labels" ({error!r}). '
            'Fetch it again.'
        ) from None
    if not len(labels) or labels.min() < 1 or labels.max() > len(CLASS_NAMES):
        raise DataError(
            f'{quoted(path)} holds labels outside 1..{len(CLASS_NAMES)}, or none. Fetch it again.'
        )
    return labels


def read_captions(path) -> tuple[dict[int, tuple[int, list[str]]], dict[str, str]]:
    """Read Reed's archive, or the folder it unpacks to.

    Returns {image number: (class of its folder, captions)} and {split: text of its class list}.
    """
    captions, lists = {}, {}
    splits = {file: split for split, file in LISTS.items()}
    for match, data in members(path, f'{CAPTIONS}|({CLASS_LIST})'):
        if match[3]:
            lists[splits[match[3]]] = data.decode('utf-8', 'replace')
        else:
            captions[int(match[2])] = int(match[1]), lines_of(data)
    if not captions:
        raise DataError(
            f'{quoted(path)} holds no captions; expected text_c10/class_00001/image_06734.txt and '
            'so on. Fetch cvpr2016_flowers.tar.gz again.'
        )
    return captions, lists


def foreground(pixels) -> np.ndarray:
    """Return the mask (H, W) uint8, 0 or 255, from Oxford's segmim picture (BGR).

    Its background is painted blue, with JPEG noise.
    """
    b, g, r = cv2.split(pixels)
    mask = np.where((b > 200) & (r < 60) & (g < 60), 0, 255).astype(np.uint8)
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))


def read_masks(path) -> dict[int, tuple[tuple[int, int], bytes]]:
    """Return number -> ((height, width), mask as PNG bytes).

    Pictures that cannot be decoded are absent.
    """
    masks = {}
    for match, data in tqdm(
        members(path, MASK), desc=f'Reading {pathlib.Path(path).name}', unit=' masks', disable=None
    ):
        pixels = decoded(data)
        if pixels is not None:
            masks[int(match[1])] = (
                pixels.shape[:2],
                cv2.imencode('.png', foreground(pixels))[1].tobytes(),
            )
    return masks
