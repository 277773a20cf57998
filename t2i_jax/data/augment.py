"""Augmentation of a batch on the device: crop, mirror, smaller scales, choice of words.

It runs inside the jitted step, keyed by (seed, step, row), so it is the same on one device or
eight, and after a resume.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, reduce


class Geometry(NamedTuple):
    """Sizes and choices of the augmentation.

    size: pixels, the side of the largest image of a batch.
    load_size: pixels, the side from which the crop is taken.
    length: words of a caption.
    scales: sides of the smaller `images`.
    mirrored_parts: for each part the one whose place it takes in a mirrored picture.
    mirrored_attributes: the same for attributes: 'left' gets the value of 'right'.
    """

    size: int
    load_size: int
    length: int
    flip: bool = False
    scales: tuple[int, ...] = ()
    mirrored_parts: tuple[int, ...] = ()
    mirrored_attributes: tuple[int, ...] = ()


def augment(raw, key, geometry: Geometry, training: bool):
    """Turn a gathered batch (uint8 canvases, stored captions) into one as stages read it.

    raw: `image` uint8 b c c 3 and `extent` int32 b 2 (height, width of the picture on its canvas),
      `tokens` b n 64 with `words` b n, `chars` b n 201, boxes cx cy w h in [0, 1], masks uint8,
      and the same with `wrong_`; any may be absent.
    training: if false, the crop is the centre, nothing is mirrored, the first words stay.

    The keys of the result are listed in docs/add_a_system.md.
    """
    b = len(raw['index'])
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(b))
    batch = dict(raw)
    for prefix, stream in (('', 0), ('wrong_', 1)):
        part = {
            name[len(prefix) :]: batch.pop(name)
            for name in raw
            if name.startswith('wrong_') == bool(prefix)
        }
        streams = jax.vmap(lambda k, stream=stream: jax.random.fold_in(k, stream))(keys)
        part = jax.vmap(lambda row, k: _augment_row(row, k, geometry, training))(part, streams)
        batch |= {prefix + name: value for name, value in part.items()}
    return batch


def _augment_row(row, key, geometry, training):
    row = dict(row)
    crop_key, flip_key, words_key = jax.random.split(key, 3)
    extent = row.pop('extent', jnp.array([geometry.load_size] * 2))
    crops = (row['image'].shape[0] if 'image' in row else geometry.load_size) != geometry.size
    room = jnp.maximum(extent - geometry.size, 0)
    # top, left
    corner = jax.random.randint(crop_key, (2,), 0, room + 1) if training else room // 2
    mirrored = jax.random.bernoulli(flip_key) if training and geometry.flip else jnp.bool_(False)

    def cut(canvas):  # c c k -> s s k
        shape = geometry.size, geometry.size, canvas.shape[-1]
        out = jax.lax.dynamic_slice(canvas, (*corner, 0), shape)
        return jnp.where(mirrored, out[:, ::-1], out) if geometry.flip else out

    if 'image' in row:
        row['image'] = cut(row['image']).astype(jnp.float32) / 127.5 - 1
        if geometry.scales:
            row['images'] = [shrink(row['image'], side) for side in geometry.scales]
    if 'mask' in row:
        row['mask'] = (cut(row['mask']) > 127).astype(jnp.float32)
    for name in ('box', 'boxes'):
        if name in row:
            row[name] = crop_boxes(row[name], corner, extent, geometry.size, mirrored)
    if 'attributes' in row and geometry.flip and geometry.mirrored_attributes:
        swapped = row['attributes'][jnp.array(geometry.mirrored_attributes)]
        row['attributes'] = jnp.where(mirrored, swapped, row['attributes'])
    if 'parts' in row:
        row['parts'] = crop_parts(row['parts'], corner, extent, geometry, mirrored)
    if 'object_labels' in row and 'boxes' in row:
        row['object_labels'] = jnp.where(row['boxes'][:, 2] > 0, row['object_labels'], -1)
    if 'object_masks' in row:
        masks = row['object_masks']
        row['object_masks'] = crop_masks(masks, corner, extent, geometry.size, mirrored, crops)
    if 'tokens' in row:
        captions = row['tokens'], row.pop('words')
        row['tokens'], row['length'] = choose_words(*captions, words_key, geometry.length, training)
    # one caption: no caption axis
    for name in ('tokens', 'length', 'chars', 'facts', 'embedding'):
        if name in row and row[name].shape[0] == 1:
            row[name] = row[name][0]
    if 'chars' in row:
        row['chars'] = row['chars'].astype(jnp.int32)
    return row


def shrink(image, side):
    """Average over blocks: s s 3 -> side side 3; s is a multiple of side."""
    return reduce(image, '(h i) (w j) c -> h w c', 'mean', h=side, w=side)


def crop_boxes(boxes, corner, extent, size, mirrored):
    """Move boxes (..., 4) cx cy w h from fractions of the picture to fractions of the crop.

    They are cut at its border; all 0 where nothing is left.
    """
    centre, side = boxes[..., :2], boxes[..., 2:]
    # x before y, as in boxes
    pixels, start = extent[::-1], corner[::-1]
    low = jnp.clip(((centre - side / 2) * pixels - start) / size, 0, 1)
    high = jnp.clip(((centre + side / 2) * pixels - start) / size, 0, 1)
    centre, side = (low + high) / 2, high - low
    centre = centre.at[..., 0].set(jnp.where(mirrored, 1 - centre[..., 0], centre[..., 0]))
    there = (side > 0).all(-1, keepdims=True) & (boxes[..., 2:] > 0).all(-1, keepdims=True)
    return jnp.where(there, jnp.concatenate([centre, side], -1), 0)


def crop_parts(parts, corner, extent, geometry, mirrored):
    """Move parts (P, 3) x y visible from fractions of the picture to fractions of the crop.

    All 0 where a part is not seen. In a mirrored picture a left eye is a right one.
    """
    place = (parts[:, :2] * extent[::-1] - corner[::-1]) / geometry.size
    seen = (parts[:, 2:] > 0) & ((place >= 0) & (place <= 1)).all(-1, keepdims=True)
    parts = jnp.where(seen, jnp.concatenate([place, jnp.ones_like(place[:, :1])], -1), 0)
    swapped = parts[jnp.array(geometry.mirrored_parts or range(len(parts)))]
    swapped = swapped.at[:, 0].set(jnp.where(swapped[:, 2] > 0, 1 - swapped[:, 0], 0))
    return jnp.where(mirrored, swapped, parts)


def crop_masks(masks, corner, extent, size, mirrored, crops=True):
    """Move masks, uint8 r h w over the whole picture -> float r h w in [0, 1] over the crop.

    crops: False where the crop is the whole picture.
    """
    h, w = masks.shape[-2:]
    x = rearrange(masks.astype(jnp.float32) / 255, 'r h w -> h w r')
    if crops:
        scale = extent / size
        shift = -corner / size * jnp.array([h, w])
        x = jax.image.scale_and_translate(x, x.shape, (0, 1), scale, shift, 'linear')
    x = jnp.where(mirrored, x[:, ::-1], x)
    return rearrange(x, 'h w r -> r h w')


def choose_words(tokens, words, key, length, training):
    """Cut captions n m with `words` n words each -> (tokens n length, lengths n).

    The first `length` words, in training a random subset in its order; 0 is padding.
    """
    place = jnp.arange(tokens.shape[-1])
    there = place < words[:, None]
    last = tokens.shape[-1] - 1
    if training:
        rank = jax.random.uniform(key, tokens.shape)
    else:
        rank = jnp.broadcast_to(place / tokens.shape[-1], tokens.shape)
    # padding comes last
    chosen = jnp.argsort(jnp.where(there, rank, 2.0), axis=-1)[:, :length]
    chosen = jnp.sort(jnp.where(jnp.arange(length) < words[:, None], chosen, last), axis=-1)
    lengths = jnp.minimum(words, length)
    picked = jnp.take_along_axis(tokens, chosen, -1)
    return jnp.where(jnp.arange(length) < lengths[:, None], picked, 0), lengths
