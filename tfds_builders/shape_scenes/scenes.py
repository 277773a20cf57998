"""Scenes and their words, drawn at random: a pure function of (mode, split, index, seed).

A scene is a table as `tfds_builders/facts.py` defines it, of five objects and the background.
"""

import hashlib

import numpy as np

from tfds_builders.facts import CLASS, COLOUR, COLUMNS, CX, CY, SIZE, UNIT, H, W, bins

CLASSES = ('circle', 'square', 'triangle', 'diamond', 'cross', 'ring')
COLOURS = ('red', 'green', 'blue', 'yellow', 'purple', 'orange', 'cyan')
RGB = (
    (214, 39, 40),
    (44, 160, 44),
    (40, 70, 215),
    (240, 220, 40),
    (150, 50, 190),
    (250, 140, 20),
    (60, 205, 225),
)
SIZES = ('small', 'medium', 'large')
BACKGROUNDS = ('white', 'grey', 'black', 'gradient', 'stripes', 'checker', 'pastel', 'noise')
# those without a pattern
PLAIN = ('white', 'grey', 'black', 'gradient', 'pastel')
# class_id = class * 7 + colour
CLASS_IDS = tuple(f'{colour} {name}' for name in CLASSES for colour in COLOURS)

MAX_OBJECTS = 5

MODES = ('single', 'multi')
OVERLAPS = ('none', 'mild')
SPLITS = ('train', 'validation', 'test', 'test_unseen')
# Sides of the boxes as fractions of the frame; the gaps between them make the size decidable from a
# picture (see THRESHOLDS).
SIDES = {
    'single': ((0.36, 0.42), (0.50, 0.56), (0.64, 0.72)),
    'multi': ((0.20, 0.23), (0.29, 0.33), (0.40, 0.46)),
}
THRESHOLDS = {'single': (0.46, 0.60), 'multi': (0.26, 0.365)}
MARGIN, GAP, MAX_IOU = 0.01, 0.04, 0.12

# Pairs (class, colour) that no picture of train, validation and test shows: every class keeps 5
# colours, every colour at least 4 classes.
HELD_OUT = frozenset((c, (c + 3 * k) % len(COLOURS)) for c in range(len(CLASSES)) for k in (0, 1))
ALL_PAIRS = tuple((c, k) for c in range(len(CLASSES)) for k in range(len(COLOURS)))
SEEN_PAIRS = tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT)
UNSEEN_PAIRS = tuple(sorted(HELD_OUT))

SPLIT_RULE = (
    'A scene is a function of (seed, mode, split, index). Scenes whose key hashes to 0-7 modulo 10 '
    'belong to train, 8 to validation, 9 to '
    'test; the key is the multiset of (class, colour, size), in mode single with the position in '
    '1/64 and the background. '
    'The 12 held-out pairs (class, colour) occur in test_unseen only, where every scene has at '
    'least one.'
)


class Draws:
    """Random numbers keyed by (seed, mode, split, index) and a stream.

    From Philox's doubles alone: numpy promises the same raw doubles in every version, but not the
    same `integers` or `choice`, which are made here.
    """

    def __init__(self, seed, mode, split, index, overlap='none', stream=0):
        place = MODES.index(mode) * 8 + OVERLAPS.index(overlap) * 4 + SPLITS.index(split)
        self._generator = np.random.Generator(
            np.random.Philox(key=[seed, place << 48 | index], counter=[0, 0, 0, stream])
        )
        self._buffer = []

    def random(self):
        """Return a float in [0, 1)."""
        if not self._buffer:
            self._buffer = self._generator.random(64).tolist()
        return self._buffer.pop()

    def below(self, n):
        """Return an int in [0, n)."""
        return int(self.random() * n)

    def pick(self, items):
        """Return one of the items."""
        return items[int(self.random() * len(items))]

    def uniform(self, low, high):
        """Return a float in [low, high)."""
        return low + (high - low) * self.random()

    def shuffled(self, items):
        """Return a list in random order."""
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items


def sample(mode, split, index, seed=0, overlap='none', backgrounds=BACKGROUNDS):
    """Draw a scene table, int32 (6, 8).

    Counts are uniform in 1..5 and pairs (class, colour) uniform over those that the split may show.
    Sizes are drawn again with the places when a scene does not fit, so that in `multi` small
    objects are more frequent than large ones (measured: 45, 34 and 21 % with `none`, 36, 34 and 30
    % with `mild`; uniform in `single`).
    """
    draws = Draws(seed, mode, split, index, overlap)
    count = 1 if mode == 'single' else 1 + draws.below(MAX_OBJECTS)
    while True:
        pairs = [
            draws.pick(ALL_PAIRS if split == 'test_unseen' else SEEN_PAIRS) for _ in range(count)
        ]
        if split == 'test_unseen':
            pairs[draws.below(count)] = draws.pick(UNSEEN_PAIRS)
        objects = _place(pairs, mode, overlap, draws)
        scene = np.full((MAX_OBJECTS + 1, COLUMNS), -1, np.int32)
        scene[:count] = objects
        scene[-1, :2] = BACKGROUNDS.index(draws.pick(backgrounds)), draws.below(UNIT)
        # keep the object, look for a place that is this split's
        while mode == 'single' and not _belongs(scene, mode, split):
            _move(scene, draws)
        if _belongs(scene, mode, split):
            return scene


def _belongs(scene, mode, split):
    if split == 'test_unseen':
        return True
    bucket = scene_key(scene, mode) % 10
    return split == ('train' if bucket < 8 else 'validation' if bucket == 8 else 'test')


def _side(mode, size, draws):
    # even: the box has whole corners
    return 2 * round(draws.uniform(*SIDES[mode][size]) * UNIT / 2)


def _centre(side, draws):
    low = side // 2 + round(MARGIN * UNIT)
    return low + draws.below(UNIT - 2 * low + 1), low + draws.below(UNIT - 2 * low + 1)


def _move(scene, draws):
    scene[0, CX], scene[0, CY] = _centre(int(scene[0, W]), draws)


def _place(pairs, mode, overlap, draws):
    """Return rows of objects, the largest first.

    Sizes and places are drawn until all objects fit.
    """
    while True:
        sizes = [draws.below(len(SIZES)) for _ in pairs]
        sides = [_side(mode, size, draws) for size in sizes]
        rows = []
        for i in sorted(range(len(pairs)), key=lambda i: -sides[i]):
            for _ in range(200 // len(pairs)):
                row = (
                    *pairs[i],
                    sizes[i],
                    *_centre(sides[i], draws),
                    sides[i],
                    sides[i],
                    len(rows),
                )
                if all(_compatible(row, other, overlap) for other in rows):
                    rows.append(row)
                    break
            else:
                break
        if len(rows) == len(pairs):
            return rows


def _compatible(a, b, overlap):
    """Return whether two objects may stand so.

    Apart by GAP on an axis, or (`mild`) with little overlap and of different colours.
    """
    gap_x = abs(a[CX] - b[CX]) - (a[W] + b[W]) / 2
    gap_y = abs(a[CY] - b[CY]) - (a[H] + b[H]) / 2
    if max(gap_x, gap_y) >= GAP * UNIT:
        return True
    if overlap == 'none' or a[COLOUR] == b[COLOUR]:
        return False
    if max(gap_x, gap_y) >= 0:
        return True
    # Axis overlaps are cut at the smaller side: a box may lie inside the other's span.
    inner = min(-gap_x, a[W], b[W]) * min(-gap_y, a[H], b[H])
    return inner / (a[W] * a[H] + b[W] * b[H] - inner) <= MAX_IOU


def objects_of(scene):
    """Return the rows of the objects that exist, as lists of ints."""
    return [row for row in scene[:-1].tolist() if row[W] >= 0]


def scene_key(scene, mode):
    """Return a 64-bit id of what makes two scenes the same.

    The multiset of (class, colour, size), in `single` with place and background, too.
    """
    rows = objects_of(scene)
    parts = sorted((row[CLASS], row[COLOUR], row[SIZE]) for row in rows)
    if mode == 'single':
        parts.append((rows[0][CX] // (UNIT // 64), rows[0][CY] // (UNIT // 64), int(scene[-1, 0])))
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), 'little')


def class_id(scene):
    """Return 0..41, the pair (class, colour) of the largest object: an index into CLASS_IDS."""
    return int(scene[0, CLASS]) * len(COLOURS) + int(scene[0, COLOUR])


def boxes(scene):
    """Return the boxes of the unoccluded shapes, float32 (5, 4): cx, cy, w, h in [0, 1].

    -1 where there is no object.
    """
    rows = scene[:-1, [CX, CY, W, H]]
    return np.where(rows >= 0, rows / UNIT, -1).astype(np.float32)


def attribute_names(mode):
    """Return the names of the attributes of a mode."""
    if mode == 'single':
        return (*CLASSES, *COLOURS, *SIZES, 'left', 'middle', 'right', 'top', 'centre', 'bottom')
    return (*CLASS_IDS, *(f'number of {name}' for name in CLASSES))


def attributes(scene, mode):
    """Return the attribute vector, float32.

    single: 22 bits (class 6, colour 7, size 3, x 3, y 3). multi: 42 bits (pair present) and 6
    counts / 5.
    """
    rows = objects_of(scene)
    if mode == 'single':
        row = rows[0]
        hot = np.zeros(22, np.float32)
        x, y = bins(row[CX], row[W]), bins(row[CY], row[H])
        hot[[row[CLASS], 6 + row[COLOUR], 13 + row[SIZE], 16 + x, 19 + y]] = 1
        return hot
    hot = np.zeros(len(CLASS_IDS) + len(CLASSES), np.float32)
    for row in rows:
        hot[row[CLASS] * len(COLOURS) + row[COLOUR]] = 1
        hot[len(CLASS_IDS) + row[CLASS]] += 1 / MAX_OBJECTS
    return hot
