"""Reads the files of Oxford-102 and of its captions where they lie: streamed, nothing extracted to disk."""
import pathlib
import re
import tarfile
import zlib

import cv2
import numpy as np
import scipy.io
import tensorflow_datasets as tfds
from tqdm import tqdm

from tfds_builders.errors import DataError
from tfds_builders.flowers102_captions.classes import CLASS_NAMES, LISTS

IMAGE = r'image_(\d+)\.jpe?g'
MASK = r'segmim_(\d+)\.jpe?g'
CAPTIONS = r'text_c10/class_(\d+)/image_(\d+)\.txt'
CLASS_LIST = '|'.join(map(re.escape, LISTS.values()))


def members(path, pattern):
    """(match, bytes) of each file whose path in the archive (or unpacked folder) ends with the pattern.

    Names only select, they are never opened on this machine: a path that leads outside of an archive does no harm.
    Raises DataError that names an archive which is broken or ends early.
    """
    pattern = re.compile(rf'(?:^|.*/)(?:{pattern})')
    path = pathlib.Path(path)
    if path.is_dir():
        for file in sorted(path.rglob('*')):
            match = pattern.fullmatch(file.relative_to(path).as_posix())
            if match and file.is_file():
                yield match, file.read_bytes()
        return
    with open(path, 'rb') as archive:
        contents = tfds.download.iter_archive(archive, tfds.download.ExtractMethod.TAR_GZ)
        while True:
            try:
                name, file = next(contents, (None, None))
                match = name and pattern.fullmatch(name)
                data = file.read() if match else None
            except (EOFError, OSError, zlib.error, tarfile.TarError) as error:
                raise DataError(f'{path} is broken or ends early ({error}). Fetch it again.') from None
            if name is None:
                return
            if match:
                yield match, data


def decode(data: bytes):
    """Pixels (H, W, 3) uint8 BGR, or None where the bytes are no whole picture (one that ends early is none)."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None


def images(path):
    """(number, bytes) of each picture, in the order of the archive: jpg/image_00001.jpg is number 1."""
    for match, data in members(path, IMAGE):
        yield int(match[1]), data


def image_sizes(path, total: int) -> dict[int, tuple[int, int] | None]:
    """Number -> (height, width) of every picture, None where it cannot be decoded. `total` scales the progress bar."""
    sizes = {}
    for number, data in tqdm(images(path), total=total, desc=f'Checking {pathlib.Path(path).name}', unit=' images', disable=None):
        if number in sizes:
            raise DataError(f'{path} holds image {number} twice. Fetch it again.')
        pixels = decode(data)
        sizes[number] = None if pixels is None else pixels.shape[:2]
    return sizes


def read_labels(path) -> np.ndarray:
    """imagelabels.mat -> (N,) int, the classes 1..102 of the images 1..N."""
    try:
        labels = np.asarray(scipy.io.loadmat(str(path))['labels']).reshape(-1).astype(int)
    except Exception as error:                 # SciPy raises a dozen kinds for a file that is not MATLAB's
        raise DataError(f'{path} cannot be read as MATLAB file with the key "labels" ({error!r}). Fetch it again.') from None
    if not len(labels) or labels.min() < 1 or labels.max() > len(CLASS_NAMES):
        raise DataError(f'{path} holds labels outside 1..{len(CLASS_NAMES)}, or none. Fetch it again.')
    return labels


def parse_captions(data: bytes) -> list[str]:
    """The captions of one file, one a line. Lines without a word are left out; U+FFFD (and bytes that are not UTF-8) become blanks."""
    text = data.decode('utf-8', 'replace')
    lines = text.split('\n' if '\n' in text else '\r')
    lines = (' '.join(line.replace('\ufffd', ' ').split()) for line in lines)          # split() takes a stray CR, too
    return [line for line in lines if re.search(r'\w', line)]


def read_captions(path) -> tuple[dict[int, tuple[int, list[str]]], dict[str, str]]:
    """Reed's archive, or the folder it unpacks to -> ({image number: (class of its folder, captions)}, {split: text of its class list})."""
    captions, lists = {}, {}
    splits = {file: split for split, file in LISTS.items()}
    for match, data in members(path, f'{CAPTIONS}|({CLASS_LIST})'):
        if match[3]:
            lists[splits[match[3]]] = data.decode('utf-8', 'replace')
        else:
            captions[int(match[2])] = int(match[1]), parse_captions(data)
    if not captions:
        raise DataError(f'{path} holds no captions; expected text_c10/class_00001/image_06734.txt and so on. '
                        'Fetch cvpr2016_flowers.tar.gz again.')
    return captions, lists


def foreground(pixels) -> np.ndarray:
    """The mask (H, W) uint8, 0 or 255, from Oxford's segmim picture (BGR): its background is painted blue, with JPEG noise."""
    b, g, r = cv2.split(pixels)
    mask = np.where((b > 200) & (r < 60) & (g < 60), 0, 255).astype(np.uint8)
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))


def read_masks(path) -> dict[int, tuple[tuple[int, int], bytes]]:
    """Number -> ((height, width), mask as PNG bytes). Pictures that cannot be decoded are absent."""
    masks = {}
    for match, data in tqdm(members(path, MASK), desc=f'Reading {pathlib.Path(path).name}', unit=' masks', disable=None):
        pixels = decode(data)
        if pixels is not None:
            masks[int(match[1])] = pixels.shape[:2], cv2.imencode('.png', foreground(pixels))[1].tobytes()
    return masks
