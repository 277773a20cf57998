"""ShapeNet-cls: a small network that reads shape_scenes, for evaluation alone.

The analytic reader (scenes/analytic.py) needs flat patches of colour; pictures of VAEs and of young
GANs are blurred. This network is trained on blurred, noisy, tinted and coarsely quantised pictures,
and gives two things: a reading of the scene (objects on a grid of cells of 8 x 8 pixels, each with
class, colour and box) and 256 features for distances between sets of pictures. Never use it, or one
trained with the same seed, inside the loss of a system: its scores would become over-optimistic.

    L = bce(object in cell) + ce(class) + ce(colour) + 5 |box| over cells with an object
      + bce(42 pairs of class and colour that are there) + ce(count of each class)
      + ce(number of objects)

Ours; there is no paper. Trained by
`t2i_jax --config=shape_net --workdir=runs/shape_net` and written into
the library by `python -m benchmarks.shape_net --workdir=runs/shape_net`.
"""

import itertools

import jax
import jax.numpy as jnp
import optax
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.layers.norm import BatchNorm
from t2i_jax.losses import bce
from t2i_jax.stage import Phase, Stage
from tfds_builders.shape_scenes.scenes import RGB

CLASSES, COLOURS, UNIT = 6, 7, 4096
# of each cell
HEADS = dict(object=1, kind=CLASSES, colour=COLOURS, box=4)


class ShapeNetwork(nnx.Module):
    """The reader of pictures b 64 64 3 in [-1, 1].

    Returns {'cells': {head: b 8 8 k}, 'pairs': b 42, 'counts': b 6 6, 'total': b 6,
    'features': b 256}.
    """

    def __init__(self, width, *, rngs):
        c = [3, width, 2 * width, 4 * width, 8 * width]
        self.convs = nnx.List(
            [
                nnx.Conv(a, b, (3, 3), strides=(2, 2), padding='SAME', use_bias=False, rngs=rngs)
                for a, b in zip(c, c[1:])
            ]
        )
        self.norms = nnx.List([BatchNorm(d, rngs=rngs) for d in c[1:]])
        self.cells = nnx.Linear(c[3] + c[4], sum(HEADS.values()), rngs=rngs)
        self.whole = nnx.Linear(c[4], CLASSES * COLOURS + 6 * CLASSES + 6, rngs=rngs)

    def __call__(self, x, *, train):
        maps = []
        for conv, norm in zip(self.convs, self.norms):
            # b 32 32 c, b 16 16 2c, b 8 8 4c, b 4 4 8c
            x = jax.nn.relu(norm(conv(x), train=train))
            maps.append(x)
        features = x.mean((1, 2))  # b 8c
        cells = self.cells(
            jnp.concatenate([maps[2], repeat(maps[3], 'b h w c -> b (h i) (w j) c', i=2, j=2)], -1)
        )
        places = tuple(itertools.accumulate(HEADS.values()))[:-1]
        pairs, counts, total = jnp.split(
            self.whole(features), (CLASSES * COLOURS, CLASSES * COLOURS + 6 * CLASSES), -1
        )
        return {
            'cells': dict(zip(HEADS, jnp.split(cells, places, -1))),
            'pairs': pairs,
            'counts': rearrange(counts, 'b (c n) -> b c n', c=CLASSES),
            'total': total,
            'features': features,
        }


def spoil(image, key):
    """Make pictures like generated ones: blur, noise, a tint, coarse quantisation.

    Blur of 0 to 2.5 pixels, noise of 0 to 0.2; of each none in some rows.
    """
    b, size = len(image), image.shape[1]
    keys = jax.random.split(key, 6)

    def some(k, low, high, share=0.75):
        chosen = jax.random.bernoulli(jax.random.fold_in(k, 1), share, (b,))
        return jnp.where(chosen, jax.random.uniform(k, (b,), minval=low, maxval=high), 0.0)

    sigma = some(keys[0], 0.0, 2.5)
    offset = jnp.arange(size)[:, None] - jnp.arange(size)
    kernel = jnp.exp(-0.5 * (offset / jnp.maximum(sigma, 0.05)[:, None, None]) ** 2)
    kernel /= kernel.sum(-1, keepdims=True)  # b s s: a matrix that blurs lines
    image = jnp.einsum('bij,bjwc,bvw->bivc', kernel, image, kernel)
    tint = 1 + 0.15 * some(keys[1], -1.0, 1.0)[:, None] * jax.random.uniform(
        keys[2], (b, 3), minval=-1
    )
    image = (image + 1) * tint[:, None, None] - 1
    image = image + 2 * some(keys[3], 0.0, 0.2)[:, None, None, None] * jax.random.normal(
        keys[4], image.shape
    )
    step = some(keys[5], 0.0, 0.15, 0.3)[:, None, None, None]
    image = jnp.where(step > 0.01, jnp.round(image / jnp.maximum(step, 0.01)) * step, image)
    return jnp.clip(image, -1, 1)


def recolour(image, scene, masks, key):
    """Give the objects of half of the pictures other colours -> (image, scene).

    So the network sees every pair of class and colour, also those that no training picture shows.
    masks: b 5 h w in [0, 1]
    """
    b, size = len(image), image.shape[1]
    keys = jax.random.split(key)
    old = scene[:, :-1, 1]
    drawn = jax.random.randint(keys[0], old.shape, 0, COLOURS)
    drawn = jnp.where(jax.random.bernoulli(keys[1], 0.5, (b, 1)) & (old >= 0), drawn, old)
    palette = jnp.array(RGB) / 127.5 - 1
    masks = jax.image.resize(masks, (*masks.shape[:2], size, size), 'linear')
    image = image + jnp.einsum('brhw,brc->bhwc', masks, palette[drawn] - palette[old])
    return jnp.clip(image, -1, 1), jnp.asarray(scene).at[:, :-1, 1].set(drawn)


def targets(scene, grid):
    """Return what the heads should give for scene tables b 6 8.

    A cell is of the object whose centre lies in it; of two, of the one painted last.
    """
    objects = scene[:, :-1]  # b 5 8
    there = objects[..., 5] > 0
    centre, side = objects[..., 3:5] / UNIT, objects[..., 5:7] / UNIT
    cell = jnp.clip((centre * grid).astype(int), 0, grid - 1)
    # rows of the grid are y
    inside = cell[..., 1] * grid + cell[..., 0]
    hit = (inside[..., None] == jnp.arange(grid * grid)) & there[..., None]  # b 5 64
    first = jnp.where(hit, jnp.arange(1, 6)[None, :, None], 0).argmax(1)  # b 64
    # dx, dy in cells, w, h in frames
    box = jnp.concatenate([centre * grid - cell, side], -1)

    def at(values):
        return jnp.take_along_axis(values, first.reshape(first.shape + (1,) * (values.ndim - 2)), 1)

    pairs = jax.nn.one_hot(
        jnp.where(there, objects[..., 0] * COLOURS + objects[..., 1], -1), CLASSES * COLOURS
    ).max(1)
    counts = jax.nn.one_hot(jnp.where(there, objects[..., 0], -1), CLASSES).sum(1).astype(int)
    return {
        'object': hit.any(1),
        'kind': at(objects[..., 0]),
        'colour': at(objects[..., 1]),
        'box': at(box),
        'pairs': pairs,
        'counts': counts,
        'total': there.sum(1),
    }


class ShapeNet(Stage):
    """The stage that trains ShapeNet-cls."""

    phases = (Phase('loss', trains=('net',)),)
    ema, needs = ('net',), ('image', 'scene', 'object_masks')
    tiny = dict(width=8)

    def __init__(self, meta, *, width=32, rngs):
        self.net = ShapeNetwork(width, rngs=rngs)

    def loss(self, batch, key, out):
        image, scene = batch['image'], batch['scene']
        if self.training:
            image, scene = recolour(image, scene, batch['object_masks'], jax.random.fold_in(key, 1))
            image = spoil(image, key)
        said, true = self.net(image, train=self.training), targets(scene, image.shape[1] // 8)
        cells = {
            name: rearrange(x, 'b h w k -> b (h w) k').astype(jnp.float32)
            for name, x in said['cells'].items()
        }
        where = true['object'].astype(jnp.float32)
        n = where.sum()

        def ce(logits, labels):
            return optax.softmax_cross_entropy_with_integer_labels(
                logits.astype(jnp.float32), jnp.maximum(labels, 0)
            )

        parts = {
            'object': 8 * bce(cells['object'][..., 0], where),
            'kind': (where * ce(cells['kind'], true['kind'])).sum() / n,
            'colour': (where * ce(cells['colour'], true['colour'])).sum() / n,
            'box': 5 * (where[..., None] * jnp.abs(cells['box'] - true['box'])).sum() / n,
            'pairs': 4 * bce(said['pairs'], true['pairs']),
            'counts': ce(said['counts'], true['counts']).mean(),
            'total': ce(said['total'], true['total']).mean(),
        }
        right = ((cells['kind'].argmax(-1) == true['kind']) * where).sum() / n
        exact = ((said['pairs'] > 0) == (true['pairs'] > 0.5)).all(-1).mean()
        return sum(parts.values()), parts | {'class_right': right, 'pairs_right': exact}


STAGES = {'net': ShapeNet}
