"""Captions: what to say about a scene (`plan`), how to say it (`realise`), wrong ones.

Levels: L1 one object with all its attributes; L2 the whole scene; L3 a part of the objects or
attributes, or how many there are; L4 a relation or a place; L5 what there is not (off by default).
In `single`, where one object is all there is, L1 is size, colour and class, L2 adds the place,
`pair` is colour and class, and L3 leaves the colour or the class out. Brief captions, for data that
say the rest in a dialogue, have one level, `kinds`: how many objects there are, of which classes.

A caption never says less than the scene: 'a ring' is said where there is one, 'two rings' where
there are exactly two. Places and relations are said only where they are true with some room
(CLEAR), so that they survive the rounding of pixels.
"""

import numpy as np

from tfds_builders.facts import (
    ABOVE,
    APART,
    ATOMS,
    BACKGROUND,
    BELOW,
    CLOSE,
    COUNT,
    EXISTS,
    LEFT,
    NEAR,
    PLACE,
    PLACES,
    RELATION,
    RELATIONS,
    RIGHT,
    entails,
    pack,
    table,
    unpack,
)
from tfds_builders.shape_scenes import phrases
from tfds_builders.shape_scenes.scenes import (
    BACKGROUNDS,
    CLASS,
    CLASSES,
    COLOUR,
    COLOURS,
    CX,
    CY,
    HELD_OUT,
    MAX_OBJECTS,
    SIZE,
    SIZES,
    UNIT,
    H,
    W,
    bins,
    objects_of,
    sample,
)

MAX_TOKENS, MAX_CHARACTERS = 18, 201
CLEAR = round(0.02 * UNIT)
LEVELS = {
    'single': ('L1', 'L1', 'L1', 'pair', 'pair', 'pair', 'L2', 'L2', 'L3', 'L3'),
    'multi': ('L1', 'L2', 'L3', 'L4', None),
}
CAPTIONS = {mode: len(levels) for mode, levels in LEVELS.items()}


def captions(scene, mode, split, draws, caption_bg=False, negations=False, brief=False):
    """Return K different (text, atoms, level) of a scene: 10 in `single`, 5 in `multi`.

    In test_unseen each names a held-out pair, but for brief captions.
    """
    rows = objects_of(scene)
    found, texts = [], set()
    levels = ('kinds',) * CAPTIONS[mode] if brief else draws.shuffled(LEVELS[mode])
    for level in levels:
        for attempt in range(60):
            chosen = (
                level
                if level and attempt < 20 or brief
                else draws.pick(('L1', 'L2', 'L3', 'L4', 'L5')[: 4 + negations])
            )
            atoms = plan(rows, mode, chosen, draws)
            unseen = split == 'test_unseen' and not brief
            if not atoms or (unseen and not _names_held_out(atoms)):
                continue
            if caption_bg and len(atoms) < ATOMS and draws.random() < 0.5:
                atoms.append((BACKGROUND, -1, -1, -1, int(scene[-1, 0]), -1))
            text = realise(atoms, draws)
            if text not in texts:
                break
        else:
            raise AssertionError(f'no further caption for the scene {scene.tolist()}')
        texts.add(text)
        found.append((text, atoms, chosen))
    return found


def _names_held_out(atoms):
    pairs = {atom[1:3] for atom in atoms} | {
        unpack(atom[5])[:2] for atom in atoms if atom[0] == RELATION
    }
    return not HELD_OUT.isdisjoint(pairs)


def matching(rows, shape=-1, colour=-1, size=-1):
    """Return the objects that a description fits."""
    return [
        row
        for row in rows
        if shape in (-1, row[CLASS]) and colour in (-1, row[COLOUR]) and size in (-1, row[SIZE])
    ]


def exists(rows, shape=-1, colour=-1, size=-1):
    """Return the atom that says how many such objects there are."""
    n = len(matching(rows, shape, colour, size))
    return EXISTS, shape, colour, size, -1 if n == 1 else n, -1


def plan(rows, mode, level, draws):
    """Return a list of atoms that are true of the objects `rows`.

    None where this level has nothing to say (this time).
    """
    if level == 'L5':
        shape, colour = draws.pick(
            (
                (draws.below(len(CLASSES)), -1),
                (-1, draws.below(len(COLOURS))),
                (draws.below(6), draws.below(7)),
            )
        )
        return None if matching(rows, shape, colour) else [(EXISTS, shape, colour, -1, 0, -1)]
    if level == 'kinds':
        return _plan_kinds(rows, draws)
    return (_plan_single if mode == 'single' else _plan_multi)(rows, level, draws)


def _plan_kinds(rows, draws):
    number = (COUNT, -1, -1, -1, len(rows), -1)
    shapes = dict.fromkeys(row[CLASS] for row in draws.shuffled(rows))
    classes, choice = [exists(rows, shape) for shape in shapes], draws.random()
    return [number] if choice < 0.2 else classes if choice < 0.7 else [number, *classes]


def _plan_single(rows, level, draws):
    row = rows[0]
    shape, colour, size = row[CLASS], row[COLOUR], row[SIZE]
    if level == 'pair':
        return [(EXISTS, shape, colour, -1, -1, -1)]
    if level in ('L1', 'L4'):
        return [(EXISTS, shape, colour, size, -1, -1)]
    if level == 'L3':
        words = draws.pick(
            (
                (shape, -1, -1),
                (shape, -1, size),
                (-1, colour, -1),
                (-1, colour, size),
                (shape, -1, -1),
                (-1, colour, -1),
            )
        )
        return [(EXISTS, *words, -1, -1)] if draws.random() < 0.75 else _placed(row, words, draws)
    return _placed(row, (shape, colour, size if draws.random() < 0.5 else -1), draws)


def _placed(row, described, draws):
    places = clear_places(row)
    return [(PLACE, *described, -1, draws.pick(places))] if places else None


def _plan_multi(rows, level, draws):
    if level == 'L1':
        row = draws.pick(rows)
        return [exists(rows, row[CLASS], row[COLOUR], row[SIZE])]
    if level == 'L2':
        with_sizes = len(rows) <= 2 or (len(rows) == 3 and draws.random() < 0.5)
        groups = list(
            dict.fromkeys(
                (row[CLASS], row[COLOUR], row[SIZE] if with_sizes else -1)
                for row in draws.shuffled(rows)
            )
        )
        atoms = [exists(rows, *group) for group in groups]
        counted = len(groups) <= 3 and draws.random() < 0.3
        return [(COUNT, -1, -1, -1, len(rows), -1), *atoms] if counted else atoms
    if level == 'L3':
        return _partial(rows, draws)
    choice = draws.random()
    if len(rows) > 1 and choice < 0.7:
        a, b = draws.shuffled(rows)[:2]
        first = described(rows, a, draws)
        second = described(rows, b, draws)
        relations = clear_relations(a, b)
        if first and second and relations:
            return [(RELATION, *first, draws.pick(relations), pack(*second))]
        return None
    row = draws.pick(rows)
    words = described(rows, row, draws)
    return _placed(row, words, draws) if words else None


def _partial(rows, draws):
    choice, row = draws.random(), draws.pick(rows)
    shape, colour, size = row[CLASS], row[COLOUR], row[SIZE]
    if choice < 0.2:
        return [(COUNT, -1, -1, -1, len(rows), -1)]
    if choice < 0.5:
        return [
            exists(
                rows,
                *draws.pick(
                    (
                        (shape, -1, -1),
                        (shape, -1, -1),
                        (-1, colour, -1),
                        (shape, -1, size),
                        (-1, colour, size),
                    )
                ),
            )
        ]
    if choice < 0.6 and len(rows) > 1:
        return [(COUNT, -1, -1, -1, len(rows), -1), exists(rows, shape, colour)]
    some = draws.shuffled(rows)[: max(1, len(rows) - 1)][:3]
    return [
        exists(rows, *pair) for pair in dict.fromkeys((row[CLASS], row[COLOUR]) for row in some)
    ]


def described(rows, row, draws):
    """Return (shape, colour, size), with -1 for what is left out, that fits this object alone.

    None where all attributes do not suffice.
    """
    shape, colour, size = row[CLASS], row[COLOUR], row[SIZE]
    options = [(shape, colour, -1), (shape, colour, size)]
    if draws.random() < 0.25:
        options.insert(0, draws.pick(((shape, -1, -1), (-1, colour, -1), (shape, -1, size))))
    elif draws.random() < 0.3:
        options.reverse()
    return next((option for option in options if len(matching(rows, *option)) == 1), None)


def clear_places(row):
    """Return the places where the object is, whichever way it is moved by CLEAR."""
    axes = []
    for centre, side in ((row[CX], row[W]), (row[CY], row[H])):
        found = {bins(centre + shift, side) for shift in (-CLEAR, 0, CLEAR)}
        axes.append(found.pop() if len(found) == 1 else None)
    x, y = axes
    if x is None or y is None:
        return [
            place
            for place in (x * 4 + 3 if x in (0, 2) else None, 12 + y if y in (0, 2) else None)
            if place is not None
        ]
    if x == 1 and y == 1:
        return [PLACES['centre']]
    if x == 1 or y == 1:
        return [x * 4 + 3 if y == 1 else 12 + y]
    return [x * 4 + y] * 3 + [x * 4 + 3, 12 + y]


def clear_relations(a, b):
    """Return the relations in which a stands to b with CLEAR to spare."""
    dx, dy = b[CX] - a[CX], b[CY] - a[CY]
    gap = max(abs(dx) - (a[W] + b[W]) // 2, abs(dy) - (a[H] + b[H]) // 2)
    found = [NEAR] if gap <= CLOSE - CLEAR else []
    if max(abs(dx), abs(dy)) > APART + CLEAR and abs(abs(dx) - abs(dy)) > CLEAR:
        found += [
            (LEFT if dx > 0 else RIGHT) if abs(dx) > abs(dy) else (ABOVE if dy > 0 else BELOW)
        ] * 2
    return found


def realise(atoms, draws):
    """Return the words of a list of atoms: at most MAX_TOKENS tokens.

    The same random numbers and other values give the same frame.
    """
    for _ in range(6):
        text = _realise(atoms, [draws.random() for _ in range(4 + 2 * ATOMS)])
        if len(phrases.words(text)) <= MAX_TOKENS:
            return text
    # the bare frame and the shortest words
    return _realise(atoms, [0.0] * (4 + 2 * ATOMS))


def _realise(atoms, choices):
    def pick(options, choice):
        return options[int(choice * len(options))]

    ground = ''
    if atoms[-1][0] == BACKGROUND:
        ground = f' on a {phrases.BACKGROUND_WORDS[atoms[-1][4]]} background'
        atoms = atoms[:-1]
        if not atoms:
            return ground[len(' on ') :]
    kind, shape, colour, size, argument, other = atoms[0]
    own = choices[4:6]
    if kind == PLACE:
        named = phrases.noun(shape, colour, size, own)
        text = pick(phrases.PLACE_FRAMES, choices[0]).format(
            x=phrases.article(named),
            the=f'the {named}',
            where=pick(phrases.PLACE_WORDS[other], choices[1]),
        )
    elif kind == RELATION:
        a, b = phrases.noun(shape, colour, size, own), phrases.noun(*unpack(other), choices[6:8])
        text = pick(phrases.RELATION_FRAMES, choices[0]).format(
            a=phrases.article(a),
            b=phrases.article(b),
            the_a=f'the {a}',
            the_b=f'the {b}',
            rel=pick(phrases.RELATION_WORDS[argument], choices[1]),
        )
    elif (
        kind == EXISTS
        and len(atoms) == 1
        and argument < 0
        and choices[2] > 0.8
        and max(colour, size) >= 0
    ):
        text = pick(phrases.PREDICATES, choices[0]).format(
            head=phrases.head(shape, own[1]),
            adjectives=' and '.join(phrases.adjectives(colour, size, own[0])),
        )
    else:
        items = [
            phrases.phrase(*atom[1:4], choices[4 + 2 * i : 6 + 2 * i], atom[4])
            for i, atom in enumerate(atoms)
        ]
        listed = phrases.enumerate_phrases(items[1:] if kind == COUNT and len(items) > 1 else items)
        text = f'{items[0]} including {listed}' if kind == COUNT and len(items) > 1 else listed
        text = pick(phrases.FRAMES, choices[0]).format(
            x=text, **{'is': 'is' if argument in (-1, 1) else 'are'}
        )
    return text + ground


def sample_wrong(scene, mode, draws, atoms=None, hard=False, split='train', seed=0):
    """Return (text, facts (6, 6)) of a caption that is certainly false for the scene.

    Random: a caption of another scene of the split. Hard: `atoms` (of a true caption, a list or an
    array) with one class, colour, size, number, relation or place changed. Neither names a held-out
    pair unless the split is test_unseen.
    """
    if hard and atoms is None:
        raise ValueError(
            'sample_wrong(hard=True) needs the atoms of a caption that is to be changed'
        )
    if atoms is not None:
        atoms = [tuple(int(value) for value in atom) for atom in atoms if atom[0] >= 0]
    while True:
        if hard:
            other = _flip(atoms, draws)
            if split != 'test_unseen' and _names_held_out(other):
                continue
        else:
            rows = objects_of(sample(mode, split, draws.below(1 << 30), seed))
            other = plan(rows, mode, draws.pick(('L1', 'L2', 'L3', 'L4')), draws)
        if other and not entails(table(other), scene):
            return realise(other, draws), table(other)


def _flip(atoms, draws):
    """Return the atoms with one value changed to another one of its kind."""
    atoms = [list(atom) for atom in atoms]
    atom = draws.pick(atoms)
    limits = {1: len(CLASSES), 2: len(COLOURS), 3: len(SIZES)}
    second = list(unpack(atom[5])) if atom[0] == RELATION else []
    fields = [('own', i) for i in limits if atom[i] >= 0] + [
        ('second', i) for i in limits if second and second[i - 1] >= 0
    ]
    fields += [('argument', 4)] * (atom[4] >= 0) + [('place', 5)] * (atom[0] == PLACE)
    where, i = draws.pick(fields)

    def another(value, values):
        return draws.pick([v for v in values if v != value])

    if where == 'own':
        atom[i] = another(atom[i], range(limits[i]))
    elif where == 'second':
        second[i - 1] = another(second[i - 1], range(limits[i]))
        atom[5] = pack(*second)
    elif where == 'place':
        atom[5] = another(atom[5], list(PLACES.values())[:-1])
    else:
        values = {
            RELATION: range(len(RELATIONS)),
            BACKGROUND: range(len(BACKGROUNDS)),
            COUNT: range(1, MAX_OBJECTS + 1),
            EXISTS: range(2, MAX_OBJECTS + 1),
        }[atom[0]]
        atom[4] = another(atom[4], values)
    return [tuple(atom) for atom in atoms]


def table_of(found):
    """Return the facts of the captions that `captions` made, int32 (K, 6, 6)."""
    return np.stack([table(atoms) for _, atoms, _ in found])
