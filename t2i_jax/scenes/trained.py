"""ShapeNet-cls as a reader of shape_scenes pictures.

Its weights lie in this folder; systems/shape_net.py has the network, and
`python -m benchmarks.shape_net` checks a trained one and writes its weights here.
"""

import functools
import hashlib
import pathlib

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t2i_jax.runtime.errors import DataError
from t2i_jax.scenes.analytic import MAX_FOUND
from t2i_jax.systems.shape_net import COLOURS, ShapeNetwork
from tfds_builders.shape_scenes.scenes import COLUMNS, MODES, THRESHOLDS, UNIT

# side of the pictures that it reads, and how many at a time
SIDE, CHUNK = 64, 100
# an object has a probability above this, which the cells around its centre share
OBJECT = 0.1
# boxes with an IoU above this are of one object
OVERLAP = 0.2


def weights_path(mode):
    """Return the file of the weights for a mode, whether it exists or not."""
    return pathlib.Path(__file__).with_name(f'shape_net_{mode}.npz')


@functools.cache
def load(mode):
    """Return (the network as a function, SHA-256 of its weights) of a mode.

    The function takes uint8 (n, 64, 64, 3) and returns the outputs of `ShapeNetwork`. Raises
    DataError for a mode without weights.
    """
    path = weights_path(mode)
    if mode not in MODES or not path.exists():
        raise DataError(
            f'There are no weights of ShapeNet-cls for {mode!r} ({path.name}). Train them: '
            'experiments/shape_net.py says how.'
        )
    with np.load(path, allow_pickle=False) as stored:
        flat = {name: np.float32(stored[name]) for name in stored.files}
    params, stats = (
        unflat({name[2:]: value for name, value in flat.items() if name[0] == part})
        for part in 'ps'
    )
    width = flat['p.convs.0.kernel'].shape[-1]
    graph = nnx.split(nnx.eval_shape(lambda: ShapeNetwork(width, rngs=nnx.Rngs(0))))[0]

    @jax.jit
    def read(images):
        net = nnx.merge(graph, params, stats)
        return net(images.astype(jnp.float32) / 127.5 - 1, train=False)

    return read, hashlib.sha256(path.read_bytes()).hexdigest()


def unflat(flat):
    """Return {'a.0.b': x} as {'a': {0: {'b': x}}}."""
    out = {}
    for name, value in flat.items():
        *path, last = (int(part) if part.isdigit() else part for part in name.split('.'))
        place = out
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return out


def flatten(tree, prefix=''):
    """Return the inverse of `unflat`, with NumPy arrays."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: np.asarray(tree)}
    return {
        name: value
        for key, part in tree.items()
        for name, value in flatten(part, f'{prefix}{key}.').items()
    }


def outputs(images, mode):
    """Return the outputs of the network for uint8 (N, S, S, 3).

    Pictures are brought to 64 pixels first. See `ShapeNetwork`.
    """
    read, parts = load(mode)[0], []
    if images.shape[1] != SIDE:
        how = cv2.INTER_AREA if images.shape[1] > SIDE else cv2.INTER_LINEAR
        images = np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=how) for image in images])
    for start in range(0, len(images), CHUNK):
        # the last chunk is filled up: one compilation
        rows = np.minimum(np.arange(start, start + CHUNK), len(images) - 1)
        parts.append(jax.tree.map(np.asarray, read(images[rows])))
    return jax.tree.map(lambda *x: np.concatenate(x)[: len(images)], *parts)


def features(images, mode):
    """Return the features of pictures, (N, 256) float32."""
    return outputs(images, mode)['features']


def decode_all(images, mode):
    """Return scene tables int32 (N, 9, 8), the largest object first, without backgrounds."""
    cells = outputs(images, mode)['cells']
    return np.stack(
        [
            _scene({name: values[i] for name, values in cells.items()}, mode)
            for i in range(len(images))
        ]
    )


def _scene(cells, mode):
    grid = len(cells['object'])
    there = np.argwhere(cells['object'][..., 0] > np.log(OBJECT / (1 - OBJECT)))
    there = sorted(there.tolist(), key=lambda cell: -cells['object'][cell[0], cell[1], 0])
    rows, small_medium = [], THRESHOLDS[mode]
    for y, x in there:
        dx, dy, w, h = cells['box'][y, x]
        row = [
            int(cells['kind'][y, x].argmax()),
            int(cells['colour'][y, x].argmax()),
            0,
            (x + dx) / grid,
            (y + dy) / grid,
            max(w, 0.01),
            max(h, 0.01),
        ]
        if all(_iou(row, other) < OVERLAP for other in rows):
            row[2] = sum(max(w, h) >= limit for limit in small_medium)
            rows.append(row)
    scene = np.full((MAX_FOUND + 1, COLUMNS), -1, np.int32)
    for depth, row in enumerate(sorted(rows, key=lambda row: -row[5] * row[6])[:MAX_FOUND]):
        scene[depth] = (*row[:3], *(round(value * UNIT) for value in row[3:]), depth)
    return scene


def _iou(a, b):
    sides = [
        max(
            0,
            min(a[c] + a[c + 2] / 2, b[c] + b[c + 2] / 2)
            - max(a[c] - a[c + 2] / 2, b[c] - b[c + 2] / 2),
        )
        for c in (3, 4)
    ]
    common = sides[0] * sides[1]
    return common / (a[5] * a[6] + b[5] * b[6] - common)


def presence(images, mode, truth):
    """Return the share of the 42 pairs of class and colour whose presence is right.

    truth: scene tables (N, R + 1, 8)
    """
    said = outputs(images, mode)['pairs'] > 0
    true = np.zeros_like(said)
    for i, scene in enumerate(truth):
        for row in scene[:-1][scene[:-1, 5] >= 0]:
            true[i, row[0] * COLOURS + row[1]] = True
    return float((said == true).mean())
