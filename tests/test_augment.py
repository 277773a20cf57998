"""A crop and a mirror image concern all that describes a picture alike.

A row's draws depend on the key and its place alone.
"""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bit_equal

from t2i_jax.data.augment import Geometry, augment, choose_words
from t2i_jax.data.dataset import mirrored
from t2i_jax.data.feed import gather
from t2i_jax.data.tables import Split

SQUARE = Geometry(size=16, load_size=24, length=5, flip=True, scales=(8, 4))
run = jax.jit(augment, static_argnums=(2, 3))


def rectangles(n, canvas, extents, masks=32):
    """n pictures on canvases, in each one bright rectangle, and everything that says where it is.
    extents: (height, width) of each.
    """
    rng, rows = np.random.default_rng(0), []
    for height, width in extents[:n]:
        top, left = rng.integers(0, height - 6), rng.integers(0, width - 6)
        bottom, right = rng.integers(top + 4, height + 1), rng.integers(left + 4, width + 1)
        image, mask = (
            np.full((canvas, canvas, 3), 90, np.uint8),
            np.full((canvas, canvas, 1), 255, np.uint8),
        )  # 90: beside the picture
        image[:height, :width], mask[:height, :width] = 0, 0
        image[top:bottom, left:right], mask[top:bottom, left:right] = 255, 255
        box = (
            np.array([left + right, top + bottom, 2 * (right - left), 2 * (bottom - top)])
            / 2
            / [width, height, width, height]
        )
        y, x = (np.arange(masks) + 0.5) / masks * height, (np.arange(masks) + 0.5) / masks * width
        object_mask = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
        rows.append(
            {
                'image': image,
                'mask': mask,
                'extent': np.array([height, width], np.int32),
                'box': box.astype(np.float32),
                'boxes': np.stack([box, np.zeros(4)]).astype(np.float32),
                'object_labels': np.array([3, -1], np.int32),
                'object_masks': np.stack([object_mask * 255, np.zeros((masks, masks))]).astype(
                    np.uint8
                ),
            }
        )
    return {
        'index': np.arange(n, dtype=np.int32),
        **{name: np.stack([row[name] for row in rows]) for name in rows[0]},
    }


def check_rows(raw, batch, size):
    """Each row's picture against what is said of it.

    -> the number of rows where the rectangle is cut, gone, whole
    """
    seen = {'cut': 0, 'gone': 0, 'whole': 0}
    for i, image in enumerate(np.asarray(batch['image'])):
        bright = image[..., 0] > 0.99
        assert (bright | (image[..., 0] < -0.99)).all()  # nothing from beside the picture
        assert np.array_equal(bright, np.asarray(batch['mask'][i, ..., 0]) == 1)
        box = np.asarray(batch['box'][i])
        assert (
            np.array_equal(box, batch['boxes'][i, 0])
            and not np.any(batch['boxes'][i, 1])
            and batch['object_labels'][i, 1] == -1
        )
        assert (batch['object_labels'][i, 0] == 3) == bool(bright.any())
        if not bright.any():
            assert not box.any()
            seen['gone'] += 1
            continue
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / size
        np.testing.assert_allclose(
            np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2]), edges, atol=1e-5
        )
        area = (raw['mask'][i, : raw['extent'][i, 0], : raw['extent'][i, 1]] == 255).sum()
        seen['whole' if bright.sum() == area else 'cut'] += 1

        soft, side = np.asarray(batch['object_masks'][i, 0]), batch['object_masks'].shape[-1]
        sharp = np.kron(bright, np.ones((side // size, side // size))).astype(np.uint8)
        near = np.ones((5, 5), np.uint8)  # soft edges may be two of the mask's pixels away
        assert (soft[cv2.erode(sharp, near) > 0] > 0.4).all() and (
            soft[cv2.dilate(sharp, near) == 0] < 0.6
        ).all()
        assert not np.any(batch['object_masks'][i, 1])
    return seen


def test_crop_and_mirror_keep_picture_mask_and_boxes_together():
    raw = rectangles(64, 24, [(24, 24)] * 64)
    batch = run(raw, jax.random.key(0), SQUARE, True)
    assert (
        all(check_rows(raw, batch, 16).values())
        and batch['image'].dtype == batch['mask'].dtype == jnp.float32
    )
    plain = run(raw, jax.random.key(0), SQUARE._replace(flip=False), True)
    mirrored = [
        bit_equal(a, b[:, ::-1]) and not bit_equal(a, b)
        for a, b in zip(batch['image'], plain['image'])
    ]
    same = [bit_equal(a, b) for a, b in zip(batch['image'], plain['image'])]
    assert 12 < sum(mirrored) < 52 and sum(same) > 12 and all(a | b for a, b in zip(mirrored, same))


@pytest.mark.parametrize('load_size', [16, 20])
def test_a_picture_that_keeps_its_shape_is_cropped_within_itself(load_size):
    sides = [load_size, round(1.25 * load_size), int(1.5 * load_size)]
    extents = [
        ((load_size, sides[i % 3]) if i % 2 else (sides[i % 3], load_size)) for i in range(48)
    ]
    raw = rectangles(48, sides[-1], extents)
    for training in (True, False):
        batch = run(raw, jax.random.key(1), Geometry(16, load_size, 5), training)
        check_rows(raw, batch, 16)
        places = (np.stack(extents) - 16) // 2
        if not training:  # the middle
            for image, canvas, (top, left) in zip(batch['image'], raw['image'], places):
                assert np.array_equal(
                    np.asarray(image) > 0, canvas[top : top + 16, left : left + 16] > 127
                )


def test_without_a_crop_everything_stays_as_it_is():
    raw = rectangles(8, 16, [(16, 16)] * 8)
    batch = run(raw, jax.random.key(0), Geometry(16, 16, 5), True)
    np.testing.assert_allclose(
        batch['image'], raw['image'].astype(np.float32) / 127.5 - 1, atol=1e-6
    )
    np.testing.assert_allclose(batch['boxes'], raw['boxes'], atol=1e-6)
    np.testing.assert_allclose(batch['object_masks'], raw['object_masks'] / 255, atol=1e-6)
    assert np.array_equal(batch['object_labels'], raw['object_labels'])


def test_scales_are_means():
    raw = {
        'index': np.arange(2, dtype=np.int32),
        'image': np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3)).astype(np.uint8),
    }
    batch = run(raw, jax.random.key(0), SQUARE, True)
    image = np.asarray(batch['image'])
    assert [x.shape for x in batch['images']] == [(2, 8, 8, 3), (2, 4, 4, 3)] and np.abs(
        image
    ).max() < 1 + 1e-6
    for scaled in batch['images']:
        side = scaled.shape[1]
        blocks = image.reshape(2, side, 16 // side, side, 16 // side, 3)
        np.testing.assert_allclose(scaled, blocks.mean((2, 4)), atol=1e-6)


# --------------------------------------------------------------------------------------- randomness
def captioned(n, captions=2):
    rng = np.random.default_rng(1)
    raw = rectangles(n, 24, [(24, 24)] * n)
    raw |= {
        'tokens': rng.integers(1, 99, (n, captions, 64)).astype(np.int32),
        'words': rng.integers(0, 30, (n, captions)).astype(np.int32),
    }
    return raw | {f'wrong_{name}': raw[name] for name in ('image', 'extent', 'tokens', 'words')}


def test_a_row_depends_on_the_key_and_its_place_and_not_on_the_batch():
    raw = captioned(8)
    batch = run(raw, jax.random.key(3), SQUARE, True)
    assert bit_equal(batch, run(raw, jax.random.key(3), SQUARE, True))
    few = run({name: value[:3] for name, value in raw.items()}, jax.random.key(3), SQUARE, True)
    for name in batch:
        assert bit_equal(jax.tree.map(lambda x: x[:3], batch[name]), few[name]), name
    alike = run(
        {name: value[[0] * 8] for name, value in raw.items()}, jax.random.key(3), SQUARE, True
    )
    assert len({image.tobytes() for image in np.asarray(alike['image'])}) > 4
    assert not bit_equal(alike['image'], alike['wrong_image']) and not bit_equal(
        alike['tokens'], alike['wrong_tokens']
    )
    assert not bit_equal(batch['image'], run(raw, jax.random.key(4), SQUARE, True)['image'])


def test_evaluation_has_nothing_random():
    raw = captioned(8)
    assert bit_equal(
        run(raw, jax.random.key(3), SQUARE, False), run(raw, jax.random.key(4), SQUARE, False)
    )


# -------------------------------------------------------------------------------------------- words
@functools.partial(jax.jit, static_argnums=(3, 4))
def choose(tokens, words, key, length, training):
    return choose_words(tokens, words, key, length, training)


def sentences(numbers, width=64):
    tokens = np.zeros((len(numbers), width), np.int32)
    for row, n in zip(tokens, numbers):
        row[:n] = np.arange(1, n + 1) * 3
    return tokens, np.array(numbers, np.int32)


def test_a_subset_of_the_words_in_their_order():
    tokens, words = sentences([0, 1, 4, 5, 6, 12, 64])
    drawn = set()
    for seed in range(20):
        found, length = (
            np.asarray(x) for x in choose(tokens, words, jax.random.key(seed), 5, True)
        )
        assert found.shape == (7, 5) and list(length) == [0, 1, 4, 5, 5, 5, 5]
        for row, n, kept in zip(found, words, length):
            chosen = row[:kept]
            assert (
                (row[kept:] == 0).all()
                and (np.diff(chosen) > 0).all()
                and set(chosen) <= set(range(3, 3 * n + 1, 3))
            )
        drawn.add(tuple(found[5]))
    assert len(drawn) > 15 and {word for row in drawn for word in row} == set(range(3, 37, 3))


def test_the_first_words_in_evaluation():
    tokens, words = sentences([0, 3, 5, 12, 64])
    found, length = choose(tokens, words, jax.random.key(0), 5, False)
    assert np.array_equal(
        found, np.where(np.arange(5) < words[:, None], tokens[:, :5], 0)
    ) and list(length) == [0, 3, 5, 5, 5]


def test_what_stands_in_the_padding_does_not_matter():
    tokens, words = sentences([0, 3, 5, 12])
    dirty = np.where(np.arange(64) < words[:, None], tokens, 77)
    for training in (True, False):
        assert bit_equal(
            choose(tokens, words, jax.random.key(0), 5, training),
            choose(dirty, words, jax.random.key(0), 5, training),
        )


def test_one_caption_has_no_caption_axis():
    raw = {
        'index': np.arange(3, dtype=np.int32),
        'chars': np.ones((3, 1, 201), np.uint8),
        'embedding': np.ones((3, 1, 7), np.float32),
        'facts': np.ones((3, 1, 6, 6), np.int32),
        'tokens': np.ones((3, 1, 64), np.int32),
        'words': np.full((3, 1), 4, np.int32),
    }
    batch = run(raw, jax.random.key(0), SQUARE, True)
    assert {name: value.shape for name, value in batch.items()} == {
        'index': (3,),
        'chars': (3, 201),
        'embedding': (3, 7),
        'facts': (3, 6, 6),
        'tokens': (3, 5),
        'length': (3,),
    }
    assert batch['chars'].dtype == batch['tokens'].dtype == jnp.int32
    several = run(
        {name: value.repeat(2, 1) if name != 'index' else value for name, value in raw.items()},
        jax.random.key(0),
        SQUARE,
        True,
    )
    assert (
        several['tokens'].shape == (3, 2, 5)
        and several['length'].shape == (3, 2)
        and several['chars'].shape == (3, 2, 201)
    )


def test_a_mirrored_scene_is_mirrored_in_all_that_it_carries(on_shapes):
    config = on_shapes('gan_cls_shapes').data.unlock()
    config.update(size=32)
    needs = ('image', 'mask', 'object_masks', 'box', 'boxes', 'object_labels')
    split = Split(config, 'train[:64]', needs)
    raw = gather(split.batch_tables(), {'index': np.arange(64), 'caption': np.zeros((64, 1), int)})
    plain, turned = (
        jax.tree.map(
            np.asarray, augment(raw, jax.random.key(3), split.geometry._replace(flip=flip), True)
        )
        for flip in (False, True)
    )
    mirrored = np.array([not np.array_equal(a, b) for a, b in zip(plain['image'], turned['image'])])
    assert 20 < mirrored.sum() < 44
    for row in range(64):
        for name, axis in (('image', 1), ('mask', 1), ('object_masks', 2)):
            expected = np.flip(plain[name][row], axis) if mirrored[row] else plain[name][row]
            assert np.array_equal(turned[name][row], expected), name
        for name in ('box', 'boxes'):
            expected = plain[name][row].copy()
            there = expected[..., 2] > 0
            if mirrored[row]:
                expected[..., 0] = np.where(there, 1 - expected[..., 0], 0)
            np.testing.assert_allclose(turned[name][row], expected, atol=1e-6)
    assert np.array_equal(plain['object_labels'], turned['object_labels'])


def test_a_mirrored_picture_has_mirrored_attributes():
    """An object on the left is on the right in the mirrored picture, and its mask goes with it;
    other attributes stay.
    """
    names = ('red', 'left', 'middle', 'right', 'top')
    assert mirrored(names) == (0, 3, 2, 1, 4)
    geometry = Geometry(
        size=8, load_size=8, length=1, flip=True, mirrored_attributes=mirrored(names)
    )
    image = np.zeros((16, 8, 8, 3), np.uint8)
    image[:, :, :3] = 255
    raw = {
        'index': np.arange(16),
        'image': image,
        'mask': image[..., :1],
        'extent': np.full((16, 2), 8),
        'attributes': np.tile(np.float32([1, 1, 0, 0, 1]), (16, 1)),
    }
    batch = jax.tree.map(np.asarray, run(raw, jax.random.key(0), geometry, True))
    turned = batch['image'][:, 0, 0, 0] < 0
    assert 0 < turned.sum() < 16 and np.array_equal(batch['mask'][:, 0, 0, 0] == 0, turned)
    for row, flipped in zip(batch['attributes'], turned):
        assert row.tolist() == ([1, 0, 0, 1, 1] if flipped else [1, 1, 0, 0, 1])
