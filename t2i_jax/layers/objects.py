"""Objects of scenes, a varying number of them in tables of fixed length, and their maps.

Boxes are cx cy w h in [0, 1], labels -1 where there is no object.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, reduce, repeat

from t2i_jax.runtime.errors import choose

ORDERS = 'area', 'left', 'data'
UNIONS = 'max', 'clip', 'sum'


class Objects(NamedTuple):
    """The objects of b scenes, r of each; those that are not there come last."""

    # b r 4, 0 where none is
    boxes: Any
    # b r, -1 where none is
    labels: Any
    # b r s s in [0, 1], 0 where none is; None: not known
    masks: Any = None

    @property
    def there(self):
        """Which are there: bool b r."""
        return self.labels >= 0

    def named(self, classes):
        """Return the labels one-hot, b r classes; 0 where none is."""
        return jax.nn.one_hot(self.labels, classes)


def objects_of(boxes, labels, masks=None, *, rows, order='data', smallest=0.0) -> Objects:
    """Sort the objects of scenes; the first `rows` are kept.

    order: 'area', the largest first; 'left', from left to right; 'data', as they are.
    smallest: of a side; objects that are smaller are left out, and those without extent.
    """
    boxes = boxes.astype(jnp.float32)
    there = (labels >= 0) & (boxes[..., 2:].min(-1) > 0) & (boxes[..., 2:].min(-1) >= smallest)
    index = order_of(boxes, there, order)

    def arranged(x, empty):
        x = jnp.where(jnp.expand_dims(there, range(2, x.ndim)), x, empty)
        x = taken(x, index)[:, :rows]
        more = [(0, 0)] * x.ndim
        more[1] = 0, rows - x.shape[1]
        return jnp.pad(x, more, constant_values=empty)

    masks = None if masks is None else arranged(masks.astype(jnp.float32), 0.0)
    return Objects(arranged(boxes, 0.0), arranged(labels, -1), masks)


def order_of(boxes, there, order):
    """Return the numbers of objects b r in an order of ORDERS, those that are not there last."""
    by = {
        'area': -boxes[..., 2:].prod(-1),
        'left': boxes[..., 0] - boxes[..., 2] / 2,
        'data': jnp.zeros(there.shape),
    }[choose('order', order, ORDERS)]
    return jnp.argsort(jnp.where(there, by, jnp.inf), -1, stable=True)


def taken(x, index):
    """Return the objects x b r ... of some numbers, b r -> b r ..."""
    return jnp.take_along_axis(x, jnp.expand_dims(index, range(2, x.ndim)), 1)


def inside(boxes, least=0.01):
    """Cut boxes (..., 4) at the frame; no side is below `least`."""
    low = jnp.clip(boxes[..., :2] - boxes[..., 2:] / 2, 0, 1 - least)
    high = jnp.clip(boxes[..., :2] + boxes[..., 2:] / 2, low + least, 1)
    return jnp.concatenate([(low + high) / 2, high - low], -1)


def touched(boxes, side):
    """Rasterise boxes (..., 4): the pixels that they touch, (..., side, side) of 0 and 1.

    A box with extent touches a pixel at least, one without touches none.
    """
    low, high = (boxes[..., :2] + sign * boxes[..., 2:] / 2 for sign in (-1, 1))
    # a border that lies between two pixels but for rounding
    low, high = jnp.floor(low * side + 1e-3), jnp.ceil(high * side - 1e-3)
    low = jnp.clip(low, 0, side - 1)[..., None]
    high, pixels = jnp.maximum(high[..., None], low + 1), jnp.arange(side)
    within = (pixels >= low) & (pixels < high) & (boxes[..., 2:, None] > 0)  # ... 2 side
    return (within[..., 1, :, None] & within[..., 0, None, :]).astype(jnp.float32)


def union(maps, how='max'):
    """Join maps b r ... of r objects -> b ...: 'max'; 'sum'; or 'clip', the sum cut at 1."""
    if choose('union', how, UNIONS) == 'max':
        return maps.max(1)
    total = maps.sum(1)
    return jnp.minimum(total, 1) if how == 'clip' else total


def class_maps(maps, labels, classes, how='max'):
    """Lay maps b r h w of objects into the channels of their classes -> b h w classes.

    how: what becomes of objects of one class that overlap, as in `union`.
    """
    if choose('union', how, UNIONS) != 'max':
        named = jax.nn.one_hot(labels, classes)
        total = jnp.einsum('brhw,brc->bhwc', maps, named.astype(maps.dtype))
        return jnp.minimum(total, 1) if how == 'clip' else total
    # without a map of every class for every object
    channels, start = jnp.arange(classes), jnp.zeros((*maps[:, 0].shape, classes), maps.dtype)

    def add(whole, one):
        mask, label = one
        own = (label[:, None] == channels)[:, None, None]
        return jnp.where(own, jnp.maximum(whole, mask[..., None]), whole)

    each = zip(maps.swapaxes(0, 1), labels.T)
    return functools.reduce(add, each, start)


def other_classes(labels, classes):
    """Exchange the classes of scenes among their objects, b r -> (b r, whether any changed, b).

    Each class becomes the next one that the scene has, the last one the first. A scene of one class
    cannot be wrong in this way.
    """
    has = jax.nn.one_hot(labels, classes).sum(1) > 0  # b classes
    number = jnp.arange(classes)
    # how far it is from class i to class j, upwards
    steps = (number[None] - number[:, None] - 1) % classes  # i j
    steps = jnp.where(has[:, None], steps, classes)  # b i j
    following = steps.argmin(-1)  # b i
    new = jnp.take_along_axis(following, jnp.maximum(labels, 0), 1)
    return jnp.where(labels >= 0, new, -1), has.sum(-1) > 1


def resized(maps, side):
    """Resize maps b h h c by whole factors: pixels repeated, or averaged. -> b side side c"""
    h = maps.shape[1]
    if side >= h:
        k = side // h
        return repeat(maps, 'b h w c -> b (h i) (w j) c', i=k, j=k) if k > 1 else maps
    return reduce(maps, 'b (h i) (w j) c -> b h w c', 'mean', h=side, w=side)


def rows_of(x):
    """Put the objects of all scenes one behind the other: b r ... -> (b r) ..."""
    return rearrange(x, 'b r ... -> (b r) ...')


def mean_of(values, there):
    """Average values over those that are there, both of one shape; 0 where none is."""
    there = there.astype(jnp.float32)
    return (values * there).sum() / jnp.maximum(there.sum(), 1)


def mean_per_row(values, there):
    """Average values (b n) over those that are there -> b, NaN where none is."""
    n = there.sum(-1)
    return jnp.where(n > 0, jnp.where(there, values, 0).sum(-1) / jnp.maximum(n, 1), jnp.nan)
