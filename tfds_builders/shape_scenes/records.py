"""Samples as plain records (bytes, strings, numbers), made by worker processes.

A worker is `python -m tfds_builders.shape_scenes.records`: a fresh interpreter that imports numpy
and OpenCV only. So it starts fast, does not fork a process in which a library runs threads, and
does not import the caller's main module as multiprocessing would.
"""

import base64
import contextlib
import json
import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np

from tfds_builders.shape_scenes import render, scenes
from tfds_builders.shape_scenes.sample import make

# records that a worker makes before it is the next one's turn
CHUNK = 200
PICTURES = ('image', 'mask', 'object_masks')
TABLES = {'attributes': np.float32, 'scene': np.int32, 'facts': np.int32}
# below this a second process does not pay
FEW = 300


def png(pixels, bits=8):
    """Return PNG bytes of uint8 (H, W) or RGB (H, W, 3); with bits = 1 of a mask of 0 and 255."""
    pixels = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if bits == 8 else [cv2.IMWRITE_PNG_BILEVEL, 1]
    return cv2.imencode('.png', pixels, options)[1].tobytes()


def record(
    mode,
    split,
    index,
    size,
    seed=0,
    overlap='none',
    backgrounds=scenes.BACKGROUNDS,
    brief=False,
):
    """Return one record of the builder.

    `objects` are [(ymin, xmin, ymax, xmax), class name] and `bbox` is such a box.
    """
    one = make(mode, split, index, size, seed, overlap, backgrounds, brief=brief)
    small = (
        one['masks'] if size == render.MASK_SIZE else render.masks(one['scene'], render.MASK_SIZE)
    )
    objects = [
        (_box(row), scenes.CLASSES[row[scenes.CLASS]]) for row in scenes.objects_of(one['scene'])
    ]
    return {
        'image': png(one['image']),
        'captions': one['captions'],
        'file_name': f'{split}_{index:06d}.png',
        'label': one['class_id'],
        'class_name': one['class_name'],
        'bbox': objects[0][0],
        'objects': objects,
        'mask': png(one['mask'].astype(np.uint8) * 255, bits=1),
        'object_masks': png(small.reshape(-1, render.MASK_SIZE).astype(np.uint8) * 255, bits=1),
        'attributes': one['attributes'],
        'dialog': {'questions': one['questions'], 'answers': one['answers']},
        'scene': one['scene'],
        'facts': one['facts'],
    }


def _box(row):
    cx, cy, w, h = (
        row[column] / scenes.UNIT for column in (scenes.CX, scenes.CY, scenes.W, scenes.H)
    )
    return cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2


def records(count, workers=None, chunk=CHUNK, **arguments):
    """Yield (index, record) of samples 0 to count - 1 in order.

    count: of samples
    workers: processes, by default one for each core, or 0 (this process) for a small job; the
        records do not depend on it
    chunk: records that a worker makes at a time
    arguments: those of `record` except the index
    """
    if workers is None:
        workers = 0 if count < FEW else os.cpu_count() or 1
    if workers < 1:
        for index in range(count):
            yield index, record(index=index, **arguments)
        return
    root = str(pathlib.Path(__file__).resolve().parents[2])
    # One thread each: OpenCV and BLAS gain nothing on patches of this size and would compete for
    # the cores.
    paths = os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))
    environment = {**os.environ, 'PYTHONPATH': paths, 'OPENBLAS_NUM_THREADS': '1'}
    command = [sys.executable, '-m', 'tfds_builders.shape_scenes.records']
    share = {**arguments, 'count': count, 'chunk': chunk, 'step': chunk * workers}
    # Ctrl-C is for the parent, which ends its workers
    processes = [
        subprocess.Popen(
            [*command, json.dumps({**share, 'first': chunk * i})],
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        for i in range(workers)
    ]
    try:
        for index in range(count):
            process = processes[index // chunk % workers]
            line = process.stdout.readline()
            if not line.endswith(b'\n'):
                raise RuntimeError(
                    f'a worker that draws shape scenes ended with status {process.wait()}; its '
                    'message stands above'
                )
            yield index, from_json(line)
    finally:
        for process in processes:
            process.stdout.close()
            process.kill()
            process.wait()


def to_json(one):
    """Return a record as one line."""
    pictures = {name: base64.b64encode(one[name]).decode() for name in PICTURES}
    return json.dumps({**one, **pictures, **{name: one[name].tolist() for name in TABLES}})


def from_json(line):
    """Return the record of a line."""
    one = json.loads(line)
    return {
        **one,
        **{name: base64.b64decode(one[name]) for name in PICTURES},
        **{name: np.array(one[name], dtype) for name, dtype in TABLES.items()},
    }


def _work(count, first, chunk, step, **arguments):
    out = os.fdopen(os.dup(sys.stdout.fileno()), 'w')
    # nothing else may write into the stream of records
    sys.stdout = sys.stderr
    for start in range(first, count, step):
        for index in range(start, min(start + chunk, count)):
            out.write(to_json(record(index=index, **arguments)) + '\n')
        out.flush()


if __name__ == '__main__':
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _work(**json.loads(sys.argv[1]))
