"""Scenes and statements about them as integers, and which statements are true.

A scene is an int32 table. All rows but the last are objects, the largest first, which is also
the order in which they are painted; unused rows are -1. The last row is the background. All
lengths are in units of 1/4096 of the frame, so that a scene is exact, hashable and the same at
every picture size.

    column   0      1       2     3   4   5  6  7
    object   class  colour  size  cx  cy  w  h  depth (0 is painted first)
    last row kind   variant -1    -1  -1  -1 -1 -1

A fact (atom) is a row of 6 integers; a caption has up to ATOMS of them, unused rows are -1.
-1 in a description means any.

    kind            1      2       3     4                     5
    0 EXISTS        shape  colour  size  n                     -1
    1 COUNT         -1     -1      -1    n                     -1
    2 PLACE         shape  colour  size  n                     place
    3 RELATION      shape  colour  size  relation              the other object, packed (`pack`)
    4 BACKGROUND    -1     -1      -1    background            -1
    5 NO_RELATION   shape  colour  size  relation              the other object, packed

EXISTS with n = -1 means at least one such object, otherwise exactly n (0: none). COUNT is the
number of all objects. PLACE is EXISTS of what stands at that place. RELATION: one object of the
first description stands so to another one of the second ('left' = the first is left of the
second); NO_RELATION: there is no such pair.

In a decoded scene -1 is unknown: an object of unknown class counts as an object, but satisfies
no description that names a class. Places and relations are defined below in whole numbers, so
numpy and jax.numpy agree exactly.
"""

import numpy as np

# lengths per frame
UNIT = 4096
COLUMNS = 8
CLASS, COLOUR, SIZE, CX, CY, W, H, DEPTH = range(COLUMNS)

EXISTS, COUNT, PLACE, RELATION, BACKGROUND, NO_RELATION = range(6)
KINDS = ('exists', 'count', 'place', 'relation', 'background', 'no_relation')
# facts per caption
ATOMS = 6
RELATIONS = ('left', 'right', 'above', 'below', 'near')
LEFT, RIGHT, ABOVE, BELOW, NEAR = range(5)
# centres differ by more than this to be left, right, above or below
APART = round(0.10 * UNIT)
# boxes whose gap is at most this are near
CLOSE = round(0.08 * UNIT)

# A place is x * 4 + y with 0 left/top, 1 middle, 2 right/bottom, 3 any; CORNER is any of the four
# corners.
PLACES = {
    'left': 3,
    'right': 11,
    'top': 12,
    'bottom': 14,
    'centre': 5,
    'top left': 0,
    'top right': 8,
    'bottom left': 2,
    'bottom right': 10,
    'corner': 16,
}
CORNER = PLACES['corner']


def bins(centre, side):
    """Return 0, 1 or 2: left (top), middle, right (bottom).

    Works on integers and arrays, in units of 1/4096. An object is left when the room on its right
    is more than twice the room on its left. So the bins are thirds of the room that an object of
    that size has, which serves small objects and those that fill the frame alike.
    """
    before, after = 2 * centre - side, 2 * UNIT - 2 * centre - side
    return 1 - (2 * before < after) + (2 * after < before)


def pack(shape=-1, colour=-1, size=-1):
    """Return a description as one int >= 0."""
    return ((shape + 1) * 8 + colour + 1) * 4 + size + 1


def unpack(code):
    """Return the inverse of `pack`: (shape, colour, size)."""
    return code // 32 - 1, code // 4 % 8 - 1, code % 4 - 1


def table(atoms, rows=ATOMS):
    """Return a list of atoms as int32 (rows, 6), filled up with -1."""
    out = np.full((rows, 6), -1, np.int32)
    if atoms:
        out[: len(atoms)] = atoms
    return out


def holds(facts, scene, xp=np):
    """Return which atoms are true: bool (..., A). Unused atoms are true.

    facts: int (..., A, 6)
    scene: int (..., R + 1, F); leading axes broadcast
    xp: numpy or jax.numpy
    """
    # ... A 1 6, ... 1 R F
    atoms, objects = facts[..., :, None, :], scene[..., None, :-1, :]
    kind, argument = facts[..., 0], facts[..., 4]
    exists = objects[..., W] >= 0  # ... 1 R

    def like(shape, colour, size):
        named = (
            (shape < 0) | (shape == objects[..., CLASS]),
            (colour < 0) | (colour == objects[..., COLOUR]),
            (size < 0) | (size == objects[..., SIZE]),
        )
        return exists & named[0] & named[1] & named[2]  # ... A R

    first = like(atoms[..., 1], atoms[..., 2], atoms[..., 3])
    place = atoms[..., 5]
    x, y = bins(objects[..., CX], objects[..., W]), bins(objects[..., CY], objects[..., H])
    there = xp.where(
        place == CORNER,
        (x != 1) & (y != 1),
        ((place // 4 == 3) | (place // 4 == x)) & ((place % 4 == 3) | (place % 4 == y)),
    )
    number = (first & (there | (kind != PLACE)[..., None])).sum(-1)
    exactly = xp.where(argument < 0, number >= 1, number == argument)

    second = like(*unpack(atoms[..., 5]))
    pair = first[..., :, None] & second[..., None, :]  # ... A R R: i stands so to j
    related = (pair & _stands(objects, argument[..., None, None], xp)).any((-2, -1))

    ground = argument == scene[..., None, -1, 0]
    true = xp.where(kind == RELATION, related, exactly)
    true = xp.where(kind == NO_RELATION, ~related, true)
    true = xp.where(kind == BACKGROUND, ground, true)
    return true | (kind < 0)


def _stands(objects, relation, xp):
    """Return whether object i stands in a relation to object j, bool (..., A, R, R).

    It never does to itself.
    """

    def difference(column):
        values = objects[..., column]
        # j minus i
        return values[..., None, :] - values[..., :, None]

    def half(column):
        values = objects[..., column]
        return (values[..., None, :] + values[..., :, None]) // 2

    dx, dy = difference(CX), difference(CY)
    ax, ay = abs(dx), abs(dy)
    near = (ax - half(W) <= CLOSE) & (ay - half(H) <= CLOSE)
    true = xp.where(relation == LEFT, (dx > APART) & (ax >= ay), near)
    true = xp.where(relation == RIGHT, (-dx > APART) & (ax >= ay), true)
    true = xp.where(relation == ABOVE, (dy > APART) & (ay > ax), true)
    true = xp.where(relation == BELOW, (-dy > APART) & (ay > ax), true)
    return true & ~np.eye(objects.shape[-2], dtype=bool)


def entails(facts, scene, xp=np):
    """Return whether all atoms of a caption are true of a scene: bool (...).

    The leading axes of facts (..., A, 6) and scene (..., R + 1, F) broadcast.
    """
    return holds(facts, scene, xp).all(-1)
