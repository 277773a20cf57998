"""The words of a dialogue: names of objects, questions, and what the answer reveals."""

from typing import NamedTuple

from tfds_builders.facts import (
    ABOVE,
    APART,
    BACKGROUND,
    BELOW,
    COUNT,
    EXISTS,
    LEFT,
    NO_RELATION,
    PLACE,
    RELATION,
    RIGHT,
    pack,
)
from tfds_builders.shape_scenes import phrases
from tfds_builders.shape_scenes.captions import matching
from tfds_builders.shape_scenes.scenes import (
    CLASS,
    CLASSES,
    COLOUR,
    COLOURS,
    CX,
    CY,
    SIZE,
    SIZES,
    H,
    W,
    bins,
)

ATTRIBUTES = {'shape': CLASS, 'colour': COLOUR, 'size': SIZE}
VALUES = {'shape': len(CLASSES), 'colour': len(COLOURS), 'size': len(SIZES)}
# x * 4 + y, as in facts.PLACES
REGIONS = {
    0: 'top left',
    1: 'middle left',
    2: 'bottom left',
    4: 'top middle',
    5: 'middle',
    6: 'bottom middle',
    8: 'top right',
    9: 'middle right',
    10: 'bottom right',
}
ATTRIBUTE_QUESTIONS = {
    'shape': ('what shape is {it}', 'what is {it}'),
    'colour': ('what colour is {it}', 'what is the colour of {it}'),
    'size': ('how big is {it}', 'what size is {it}'),
}
GROUP_QUESTIONS = {
    'shape': 'what shape are they',
    'colour': 'what colour are they',
    'size': 'how big are they',
}
BACKGROUND_QUESTIONS = (
    'what colour is the background',
    'what is the background like',
    'what does the background look like',
)
COUNT_QUESTIONS = (
    'how many shapes are there',
    'how many objects are in the picture',
    'how many shapes can you see',
)
OTHER_QUESTIONS = 'how many others are there', 'how many other shapes are there besides it'
SIDES = {LEFT: 'to the left of', RIGHT: 'to the right of', ABOVE: 'above', BELOW: 'below'}


class Round(NamedTuple):
    question: str
    answer: str
    # count_all, count_other, count_attribute, exist, attribute, place, relation, background
    type: str
    # what the answer says: an atom
    fact: tuple
    # (shape, colour, size, place) of the object that the question names; None: none, or 'it'
    reference: tuple | None
    # the facts known after this round
    revealed: frozenset


def region(row):
    return bins(row[CX], row[W]) * 4 + bins(row[CY], row[H])


def stands(a, b, relation):
    """Return whether a is left of, right of, above or below b: the rule of `facts.holds`."""
    dx, dy = b[CX] - a[CX], b[CY] - a[CY]
    along, across = (dx, dy) if relation in (LEFT, RIGHT) else (dy, dx)
    clear = abs(along) >= abs(across) if relation in (LEFT, RIGHT) else abs(along) > abs(across)
    return clear and (along if relation in (LEFT, ABOVE) else -along) > APART


def vocabulary():
    """Return every word that a question or an answer can have, sorted."""
    texts = [
        *REGIONS.values(),
        *COUNT_QUESTIONS,
        *OTHER_QUESTIONS,
        *SIDES.values(),
        *GROUP_QUESTIONS.values(),
        *BACKGROUND_QUESTIONS,
        *phrases.NUMBERS,
        *phrases.BACKGROUND_WORDS,
        *COLOURS,
        'what can you see in the none nothing yes no where is a an one it any',
    ]
    texts += [
        text for group in (*ATTRIBUTE_QUESTIONS.values(), *phrases.SIZE_WORDS) for text in group
    ]
    texts += [
        form for group in (*phrases.SHAPES, phrases.ANY_SHAPE) for forms in group for form in forms
    ]
    return sorted({word for text in texts for word in phrases.words(text.replace('{it}', 'it'))})


class Questions:
    """The part of a dialogue that finds words.

    It reads its `rows`, `regions`, `background`, `known`, `last`, `group` and `draws`. An ask_...
    method returns (question, answer, type, atom, reference, facts revealed, objects spoken of).
    """

    def unknown(self, k, names):
        return {(k, name) for name in names if (k, name) not in self.known}

    def having(self, name, value):
        return [k for k, row in enumerate(self.rows) if row[ATTRIBUTES[name]] == value]

    def plain_reference(self, k):
        """Return what is known of object k, the shortest (shape, colour, size) that fits it alone.

        Or None.
        """
        row = self.rows[k]
        shape, colour, size = (
            row[column] if (k, name) in self.known else -1 for name, column in ATTRIBUTES.items()
        )
        for option in (
            (shape, -1, -1),
            (-1, colour, -1),
            (shape, colour, -1),
            (shape, -1, size),
            (-1, -1, size),
            (-1, colour, size),
            (shape, colour, size),
        ):
            if max(option) >= 0 and len(matching(self.rows, *option)) == 1:
                return option
        return None

    def reference(self, k):
        """Return (shape, colour, size, place) or None."""
        plain = self.plain_reference(k)
        if plain:
            return *plain, -1
        return (
            (-1, -1, -1, self.regions[k])
            if (k, 'place') in self.known and self.regions.count(self.regions[k]) == 1
            else None
        )

    def name(self, k, plain=False):
        """Return (words, reference) of object k: 'it' where it was the last one."""
        reference = (*self.plain_reference(k), -1) if plain else self.reference(k)
        if k == self.last and (reference is None or self.draws.random() < 0.6):
            return 'it', None
        *description, place = reference
        if place >= 0:
            return f'the shape in the {REGIONS[place]}', reference
        if description[0] >= 0:
            return f'the {phrases.noun(*description, self.choices())}', reference
        return (
            f'the {" ".join(phrases.adjectives(*description[1:], self.draws.random()))} one',
            reference,
        )

    def choices(self):
        return self.draws.random(), self.draws.random()

    def full(self, k):
        return tuple(self.rows[k][column] for column in ATTRIBUTES.values())

    def known_of(self, group):
        """Return [shape, colour, size] as far as all objects of a group are known to share them."""
        named = zip(ATTRIBUTES, self.full(group[0]), strict=True)
        return [
            value if all((k, name) in self.known for k in group) else -1 for name, value in named
        ]

    def value_word(self, name, value):
        if name == 'colour':
            return COLOURS[value]
        return (
            phrases.head(value, self.draws.random())
            if name == 'shape'
            else self.draws.pick(phrases.SIZE_WORDS[value])
        )

    def group_words(self, name, value, plural):
        """Return 'circles', 'red shapes', 'a circle'."""
        description = [value if other == name else -1 for other in ATTRIBUTES]
        text = phrases.noun(*description, self.choices(), plural)
        return text if plural else phrases.article(text)

    def ask_background(self):
        question = self.draws.pick(BACKGROUND_QUESTIONS)
        atom = (BACKGROUND, -1, -1, -1, self.background, -1)
        return (
            question,
            phrases.BACKGROUND_WORDS[self.background],
            'background',
            atom,
            None,
            {'background'},
            (),
        )

    def ask_count(self):
        n = len(self.rows)
        return (
            self.draws.pick(COUNT_QUESTIONS),
            phrases.NUMBERS[n],
            'count_all',
            (COUNT, -1, -1, -1, n, -1),
            None,
            {'count'},
            (),
        )

    def ask_others(self):
        n = len(self.rows)
        return (
            self.draws.pick(OTHER_QUESTIONS),
            phrases.NUMBERS[n - 1],
            'count_other',
            (COUNT, -1, -1, -1, n, -1),
            None,
            {'count'},
            (),
        )

    def ask_number(self, name, value):
        having = self.having(name, value)
        atom = (EXISTS, *(value if other == name else -1 for other in ATTRIBUTES), len(having), -1)
        facts = {(k, name) for k in having if len(self.unknown(k, (*ATTRIBUTES, 'place'))) == 4}
        question = f'how many {self.group_words(name, value, plural=True)} are there'
        return (
            question,
            phrases.NUMBERS[len(having)] if having else 'none',
            'count_attribute',
            atom,
            None,
            facts,
            tuple(having),
        )

    def ask_exists(self, name, value):
        having = self.having(name, value)
        atom = [
            EXISTS,
            *(value if other == name else -1 for other in ATTRIBUTES),
            -1 if having else 0,
            -1,
        ]
        question = f'is there {self.group_words(name, value, plural=False)}'
        if self.draws.random() < 0.5:
            question = f'are there any {self.group_words(name, value, plural=True)}'
        answer = 'yes' if having else 'no'
        if having and self.draws.random() < 0.3:
            answer, atom[4] = f'yes, {phrases.NUMBERS[len(having)]}', len(having)
        return (
            question,
            answer,
            'exist',
            tuple(atom),
            None,
            {(k, name) for k in having},
            tuple(having),
        )

    def ask_attribute(self, k, name):
        words, reference = self.name(k)
        value = self.rows[k][ATTRIBUTES[name]]
        description = list(reference[:3]) if reference else self.known_of((k,))
        description[list(ATTRIBUTES).index(name)] = value
        placed = reference and reference[3] >= 0
        atom = (PLACE, *description, -1, reference[3]) if placed else (EXISTS, *description, -1, -1)
        question = self.draws.pick(ATTRIBUTE_QUESTIONS[name]).format(it=words)
        return (
            question,
            self.value_word(name, value),
            'attribute',
            atom,
            reference,
            {(k, name)},
            (k,),
        )

    def ask_group(self, name):
        group = self.group
        value = self.rows[group[0]][ATTRIBUTES[name]]
        description = self.known_of(group)
        description[list(ATTRIBUTES).index(name)] = value
        atom = (EXISTS, *description, len(matching(self.rows, *description)), -1)
        return (
            GROUP_QUESTIONS[name],
            self.value_word(name, value),
            'attribute',
            atom,
            None,
            {(k, name) for k in group},
            group,
        )

    def ask_place(self, k):
        words, reference = self.name(k)
        description = reference[:3] if reference else self.full(k)
        answer = (
            self.draws.pick(('in the middle', 'middle'))
            if self.regions[k] == 5
            else REGIONS[self.regions[k]]
        )
        return (
            f'where is {words}',
            answer,
            'place',
            (PLACE, *description, -1, self.regions[k]),
            reference,
            {(k, 'place')},
            (k,),
        )

    def ask_region(self, place):
        there = [k for k, other in enumerate(self.regions) if other == place]
        question = self.draws.pick(('what is in the {}', 'what can you see in the {}')).format(
            REGIONS[place]
        )
        if not there:
            return question, 'nothing', 'place', (PLACE, -1, -1, -1, 0, place), None, set(), ()
        facts = self.unknown(there[0], (*ATTRIBUTES, 'place'))
        atom = (PLACE, *self.full(there[0]), -1, place)
        return (
            question,
            phrases.phrase(*self.full(there[0]), self.choices()),
            'place',
            atom,
            None,
            facts,
            tuple(there),
        )

    def ask_side(self, k, relation):
        words, reference = self.name(k, plain=True)
        there = pack(*(reference[:3] if reference else self.plain_reference(k)))
        others = [j for j in range(len(self.rows)) if stands(self.rows[j], self.rows[k], relation)]
        question = f'what is {SIDES[relation]} {words}'
        if not others:
            return (
                question,
                'nothing',
                'relation',
                (NO_RELATION, -1, -1, -1, relation, there),
                reference,
                set(),
                (k,),
            )
        facts = self.unknown(others[0], ATTRIBUTES)
        atom = (RELATION, *self.full(others[0]), relation, there)
        return (
            question,
            phrases.phrase(*self.full(others[0]), self.choices()),
            'relation',
            atom,
            reference,
            facts,
            tuple(others),
        )

    def ask_stands(self, a, b, relation):
        first, second = self.plain_reference(a), self.plain_reference(b)
        words, reference = self.name(a, plain=True)
        true = stands(self.rows[a], self.rows[b], relation)
        atom = (RELATION if true else NO_RELATION, *first, relation, pack(*second))
        other = 'it' if self.last == b else f'the {phrases.noun(*second, self.choices())}'
        return (
            f'is {words} {SIDES[relation]} {other}',
            'yes' if true else 'no',
            'relation',
            atom,
            reference,
            set(),
            (a,),
        )
