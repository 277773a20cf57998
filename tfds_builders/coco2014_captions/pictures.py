"""The pictures of COCO, streamed from their archive or folder."""

import collections
import concurrent.futures
import os
import pathlib
import re

import cv2
from tqdm import tqdm

from tfds_builders.files import members
from tfds_builders.pictures import decoded


def each(path, names, work):
    """Yield (name, work(name, bytes)) of each picture with one of these names.

    In the order of the archive or folder. By threads, which read little ahead: memory holds a few
    pictures at a time.
    """
    left, threads, queue = set(names), os.cpu_count() or 1, collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        endings = '|'.join({re.escape(pathlib.Path(name).suffix) for name in left})
        for match, data in members(path, rf'([^/]+(?:{endings}))'):
            if match[1] in left:
                left.discard(match[1])
                queue.append((match[1], pool.submit(work, match[1], data)))
            if len(queue) > 2 * threads:
                name, result = queue.popleft()
                yield name, result.result()
        for name, result in queue:
            yield name, result.result()


def sizes(path, names) -> dict[str, tuple[int, int] | None]:
    """Return name -> (height, width) of each picture, None where it cannot be decoded."""
    found = each(path, names, lambda name, data: _size(data))
    return dict(
        tqdm(
            found,
            total=len(names),
            desc=f'Checking {pathlib.Path(path).name}',
            unit=' images',
            disable=None,
        )
    )


def _size(data):
    # half the time of colours, and as strict about bytes that are missing; annotations are of the
    # stored pixels
    pixels = decoded(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if pixels is None else pixels.shape
