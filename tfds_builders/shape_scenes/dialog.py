"""Ten questions and answers about a scene, in the manner of VisDial: short, lower-case, no question marks.

The questioner knows the caption and the earlier answers. A fact is (object, 'shape' | 'colour' | 'size' | 'place'), 'count' or 'background':
4 n + 2 in all. In each round a question is drawn with probability proportional to the square of the number of facts that its answer reveals;
when nothing is left to ask, questions with negative answers follow. A known fact is never asked, at most MAX_YES_NO answers are yes or no,
and every description in a question fits one object of the scene alone. 'it' is the one object of the round before.

What an answer says is an atom of `facts.py`, so that its truth can be checked. The question types follow the idea of CLEVR-Dialog (Kottur et
al. 2019): count, exist, attribute, place, relation, background.
"""
from typing import NamedTuple

from tfds_builders.shape_scenes import phrases
from tfds_builders.shape_scenes.captions import matching
from tfds_builders.shape_scenes.facts import (ABOVE, APART, BACKGROUND, BELOW, COUNT, EXISTS, LEFT, NO_RELATION, PLACE, RELATION, RIGHT, pack,
                                              unpack)
from tfds_builders.shape_scenes.scenes import CLASS, CLASSES, COLOUR, COLOURS, CX, CY, H, SIZE, SIZES, W, bins, objects_of

ROUNDS, MAX_YES_NO = 10, 4
ATTRIBUTES = {'shape': CLASS, 'colour': COLOUR, 'size': SIZE}
VALUES = {'shape': len(CLASSES), 'colour': len(COLOURS), 'size': len(SIZES)}
REGIONS = {0: 'top left', 1: 'middle left', 2: 'bottom left', 4: 'top middle', 5: 'middle', 6: 'bottom middle', 8: 'top right', 9: 'middle right',
           10: 'bottom right'}                              # x * 4 + y, as in facts.PLACES
ATTRIBUTE_QUESTIONS = {'shape': ('what shape is {it}', 'what is {it}'), 'colour': ('what colour is {it}', 'what is the colour of {it}'),
                       'size': ('how big is {it}', 'what size is {it}')}
GROUP_QUESTIONS = {'shape': 'what shape are they', 'colour': 'what colour are they', 'size': 'how big are they'}
BACKGROUND_QUESTIONS = 'what colour is the background', 'what is the background like', 'what does the background look like'
COUNT_QUESTIONS = 'how many shapes are there', 'how many objects are in the picture', 'how many shapes can you see'
OTHER_QUESTIONS = 'how many others are there', 'how many other shapes are there besides it'
SIDES = {LEFT: 'to the left of', RIGHT: 'to the right of', ABOVE: 'above', BELOW: 'below'}


class Round(NamedTuple):
    question: str
    answer: str
    type: str                       # count_all, count_other, count_attribute, exist, attribute, place, relation, background
    fact: tuple                     # what the answer says: an atom
    reference: tuple | None         # (shape, colour, size, place) of the object that the question names; None: none, or 'it'
    revealed: frozenset             # the facts known after this round


def dialog(scene, atoms, draws):
    """Ten Rounds about a scene of which a caption has told `atoms`."""
    talk = _Talk(scene, atoms, draws)
    return [talk.round() for _ in range(ROUNDS)]


def total_facts(scene):
    return 4 * len(objects_of(scene)) + 2


def known_from(rows, atoms):
    """The facts that a caption reveals."""
    known = set()
    for kind, *description, argument, other in atoms:
        told = [description] if kind == RELATION or (kind in (EXISTS, PLACE) and argument != 0) else []
        for one in told + ([unpack(other)] if kind == RELATION else []):
            for row in matching(rows, *one):
                known |= {(rows.index(row), name) for name, value in zip(ATTRIBUTES, one, strict=True) if value >= 0}
                if kind == PLACE and other in REGIONS:
                    known.add((rows.index(row), 'place'))
        if kind == COUNT:
            known.add('count')
        elif kind == BACKGROUND:
            known.add('background')
    return known


def region(row):
    return bins(row[CX], row[W]) * 4 + bins(row[CY], row[H])


def stands(a, b, relation):
    """Whether a is left of, right of, above or below b: the rule of `facts.holds`."""
    dx, dy = b[CX] - a[CX], b[CY] - a[CY]
    along, across = (dx, dy) if relation in (LEFT, RIGHT) else (dy, dx)
    clear = abs(along) >= abs(across) if relation in (LEFT, RIGHT) else abs(along) > abs(across)
    return clear and (along if relation in (LEFT, ABOVE) else -along) > APART


def vocabulary():
    """Every word that a question or an answer can have, sorted."""
    texts = [*REGIONS.values(), *COUNT_QUESTIONS, *OTHER_QUESTIONS, *SIDES.values(), *GROUP_QUESTIONS.values(), *BACKGROUND_QUESTIONS,
             *phrases.NUMBERS, *phrases.BACKGROUND_WORDS, *COLOURS, 'what can you see in the none nothing yes no where is a an one it any']
    texts += [text for group in (*ATTRIBUTE_QUESTIONS.values(), *phrases.SIZE_WORDS) for text in group]
    texts += [form for group in (*phrases.SHAPES, phrases.ANY_SHAPE) for forms in group for form in forms]
    return sorted({word for text in texts for word in phrases.words(text.replace('{it}', 'it'))})


class _Talk:
    def __init__(self, scene, atoms, draws):
        self.rows, self.background, self.draws = objects_of(scene), int(scene[-1, 0]), draws
        self.regions = [region(row) for row in self.rows]
        self.known = known_from(self.rows, atoms)
        self.asked = set()                                  # what has been asked in so many words: (kind, ...)
        self.yes_no, self.last, self.group = 0, None, ()
        named = {k for k, *_ in (fact for fact in self.known if isinstance(fact, tuple))}
        if len(named) == 1:
            self.last = next(iter(named))

    def round(self):
        options = self.informative()
        negatives = not options or self.draws.random() < .05
        options = (negatives and self.negatives()) or options
        pick = self.draws.random() * sum(weight * weight for weight, *_ in options)
        for weight, ask, *arguments in options:
            pick -= weight * weight
            if pick < 0:
                break
        self.asked.add((ask.__name__, *arguments))
        question, answer, kind, fact, reference, facts, about = ask(*arguments)
        self.known |= facts
        self.yes_no += answer.startswith(('yes', 'no')) and answer not in ('none', 'nothing', 'noisy')
        self.last, self.group = (about[0], ()) if len(about) == 1 else (None, about)
        return Round(question, answer, kind, fact, reference, frozenset(self.known))

    # What can be asked: (facts that the answer reveals, method, arguments).

    def unknown(self, k, names):
        return {(k, name) for name in names if (k, name) not in self.known}

    def informative(self):
        rows, known, everyone = self.rows, self.known, range(len(self.rows))
        options = [] if 'background' in known else [(1, self.ask_background)]
        if 'count' not in known:
            options.append((1, self.ask_others) if self.last is not None and len(rows) > 1 else (1, self.ask_count))
        fresh = [k for k in everyone if len(self.unknown(k, (*ATTRIBUTES, 'place'))) == 4]
        for name, column in ATTRIBUTES.items():
            for value in {rows[k][column] for k in fresh}:
                weight = sum(rows[k][column] == value for k in fresh)
                if not self.settled(name, value):
                    options.append((weight, self.ask_number, name, value))
                    seen = any((k, name) in known and rows[k][column] == value for k in everyone)
                    if self.yes_no < MAX_YES_NO and weight == 1 == len(self.having(name, value)) and not seen:
                        options.append((1, self.ask_exists, name, value))
            if self.group and all((k, name) not in known for k in self.group) and len({rows[k][column] for k in self.group}) == 1:
                options.append((len(self.group), self.ask_group, name))
        for k in everyone:
            if self.regions.count(self.regions[k]) == 1 and (self.ask_region.__name__, self.regions[k]) not in self.asked:
                new = self.unknown(k, (*ATTRIBUTES, 'place'))
                if (k, 'place') in new:
                    options.append((len(new), self.ask_region, self.regions[k]))
            if k != self.last and not self.reference(k):
                continue
            options += [(1, self.ask_attribute, k, name) for _, name in self.unknown_in_order(k)]
            if (k, 'place') not in known:
                options.append((1, self.ask_place, k))
            for relation in SIDES:
                others = [j for j in everyone if j != k and stands(rows[j], rows[k], relation)]
                if len(others) == 1 and self.unknown(others[0], ATTRIBUTES) and self.plain_reference(k):
                    options.append((len(self.unknown(others[0], ATTRIBUTES)), self.ask_side, k, relation))
        return options

    def negatives(self):
        options = [(1, self.ask_number, name, value) for name, n in VALUES.items() for value in range(n)
                   if not self.having(name, value) and not self.settled(name, value)]
        if self.yes_no < MAX_YES_NO:
            options += [(1, self.ask_exists, *arguments) for _, _, *arguments in options]
        options += [(.7, self.ask_region, place) for place in REGIONS if place not in self.regions]
        for k in range(len(self.rows)):
            if self.plain_reference(k):
                options += [(.7, self.ask_side, k, relation) for relation in SIDES
                            if not any(stands(row, self.rows[k], relation) for row in self.rows)]
        if self.yes_no < MAX_YES_NO:
            named = [k for k in range(len(self.rows)) if self.plain_reference(k)]
            options += [(.7, self.ask_stands, a, b, relation) for a in named for b in named for relation in SIDES
                        if a != b and not any((self.ask_stands.__name__, *pair, r) in self.asked for pair in ((a, b), (b, a)) for r in SIDES)]
        return [option for option in options if (option[1].__name__, *option[2:]) not in self.asked]

    def unknown_in_order(self, k):
        return [(k, name) for name in ATTRIBUTES if (k, name) not in self.known]

    def settled(self, name, value):
        """Whether it has been asked how many, or whether there are any, of these."""
        return any((ask.__name__, name, value) in self.asked for ask in (self.ask_number, self.ask_exists))

    def having(self, name, value):
        return [k for k, row in enumerate(self.rows) if row[ATTRIBUTES[name]] == value]

    # How an object is named.

    def plain_reference(self, k):
        """(shape, colour, size) of what is known of object k, the shortest that fits it alone, or None."""
        row = self.rows[k]
        shape, colour, size = (row[column] if (k, name) in self.known else -1 for name, column in ATTRIBUTES.items())
        for option in ((shape, -1, -1), (-1, colour, -1), (shape, colour, -1), (shape, -1, size), (-1, -1, size), (-1, colour, size),
                       (shape, colour, size)):
            if max(option) >= 0 and len(matching(self.rows, *option)) == 1:
                return option
        return None

    def reference(self, k):
        """(shape, colour, size, place) or None."""
        plain = self.plain_reference(k)
        if plain:
            return *plain, -1
        return (-1, -1, -1, self.regions[k]) if (k, 'place') in self.known and self.regions.count(self.regions[k]) == 1 else None

    def name(self, k, plain=False):
        """(words, reference) of object k: 'it' where it was the last one."""
        reference = (*self.plain_reference(k), -1) if plain else self.reference(k)
        if k == self.last and (reference is None or self.draws.random() < .6):
            return 'it', None
        *description, place = reference
        if place >= 0:
            return f'the shape in the {REGIONS[place]}', reference
        if description[0] >= 0:
            return f'the {phrases.noun(*description, self.choices())}', reference
        return f'the {" ".join(phrases.adjectives(*description[1:], self.draws.random()))} one', reference

    def choices(self):
        return self.draws.random(), self.draws.random()

    def full(self, k):
        return tuple(self.rows[k][column] for column in ATTRIBUTES.values())

    def value_word(self, name, value):
        if name == 'colour':
            return COLOURS[value]
        return phrases.head(value, self.draws.random()) if name == 'shape' else self.draws.pick(phrases.SIZE_WORDS[value])

    def group_words(self, name, value, plural):
        """'circles', 'red shapes', 'a circle'."""
        description = [value if other == name else -1 for other in ATTRIBUTES]
        text = phrases.noun(*description, self.choices(), plural)
        return text if plural else phrases.article(text)

    # The questions: each returns (question, answer, type, atom, reference, facts revealed, objects spoken of).

    def ask_background(self):
        question = self.draws.pick(BACKGROUND_QUESTIONS)
        atom = (BACKGROUND, -1, -1, -1, self.background, -1)
        return question, phrases.BACKGROUND_WORDS[self.background], 'background', atom, None, {'background'}, ()

    def ask_count(self):
        n = len(self.rows)
        return self.draws.pick(COUNT_QUESTIONS), phrases.NUMBERS[n], 'count_all', (COUNT, -1, -1, -1, n, -1), None, {'count'}, ()

    def ask_others(self):
        n = len(self.rows)
        return (self.draws.pick(OTHER_QUESTIONS), phrases.NUMBERS[n - 1], 'count_other', (COUNT, -1, -1, -1, n, -1), None, {'count'}, ())

    def ask_number(self, name, value):
        having = self.having(name, value)
        atom = (EXISTS, *(value if other == name else -1 for other in ATTRIBUTES), len(having), -1)
        facts = {(k, name) for k in having if len(self.unknown(k, (*ATTRIBUTES, 'place'))) == 4}
        question = f'how many {self.group_words(name, value, plural=True)} are there'
        return question, phrases.NUMBERS[len(having)] if having else 'none', 'count_attribute', atom, None, facts, tuple(having)

    def ask_exists(self, name, value):
        having = self.having(name, value)
        atom = [EXISTS, *(value if other == name else -1 for other in ATTRIBUTES), -1 if having else 0, -1]
        question = f'is there {self.group_words(name, value, plural=False)}'
        if self.draws.random() < .5:
            question = f'are there any {self.group_words(name, value, plural=True)}'
        answer = 'yes' if having else 'no'
        if having and self.draws.random() < .3:
            answer, atom[4] = f'yes, {phrases.NUMBERS[len(having)]}', len(having)
        return question, answer, 'exist', tuple(atom), None, {(k, name) for k in having}, tuple(having)

    def ask_attribute(self, k, name):
        words, reference = self.name(k)
        value = self.rows[k][ATTRIBUTES[name]]
        description = list(reference[:3]) if reference else [v if (k, n) in self.known else -1 for n, v in zip(ATTRIBUTES, self.full(k), strict=True)]
        description[list(ATTRIBUTES).index(name)] = value
        placed = reference and reference[3] >= 0
        atom = (PLACE, *description, -1, reference[3]) if placed else (EXISTS, *description, -1, -1)
        question = self.draws.pick(ATTRIBUTE_QUESTIONS[name]).format(it=words)
        return question, self.value_word(name, value), 'attribute', atom, reference, {(k, name)}, (k,)

    def ask_group(self, name):
        group = self.group
        value = self.rows[group[0]][ATTRIBUTES[name]]
        description = [v if all((k, n) in self.known for k in group) else -1 for n, v in zip(ATTRIBUTES, self.full(group[0]), strict=True)]
        description[list(ATTRIBUTES).index(name)] = value
        atom = (EXISTS, *description, len(matching(self.rows, *description)), -1)
        return GROUP_QUESTIONS[name], self.value_word(name, value), 'attribute', atom, None, {(k, name) for k in group}, group

    def ask_place(self, k):
        words, reference = self.name(k)
        description = reference[:3] if reference else self.full(k)
        answer = self.draws.pick(('in the middle', 'middle')) if self.regions[k] == 5 else REGIONS[self.regions[k]]
        return f'where is {words}', answer, 'place', (PLACE, *description, -1, self.regions[k]), reference, {(k, 'place')}, (k,)

    def ask_region(self, place):
        there = [k for k, other in enumerate(self.regions) if other == place]
        question = self.draws.pick(('what is in the {}', 'what can you see in the {}')).format(REGIONS[place])
        if not there:
            return question, 'nothing', 'place', (PLACE, -1, -1, -1, 0, place), None, set(), ()
        facts = self.unknown(there[0], (*ATTRIBUTES, 'place'))
        atom = (PLACE, *self.full(there[0]), -1, place)
        return question, phrases.phrase(*self.full(there[0]), self.choices()), 'place', atom, None, facts, tuple(there)

    def ask_side(self, k, relation):
        words, reference = self.name(k, plain=True)
        there = pack(*(reference[:3] if reference else self.plain_reference(k)))
        others = [j for j in range(len(self.rows)) if stands(self.rows[j], self.rows[k], relation)]
        question = f'what is {SIDES[relation]} {words}'
        if not others:
            return question, 'nothing', 'relation', (NO_RELATION, -1, -1, -1, relation, there), reference, set(), (k,)
        facts, atom = self.unknown(others[0], ATTRIBUTES), (RELATION, *self.full(others[0]), relation, there)
        return question, phrases.phrase(*self.full(others[0]), self.choices()), 'relation', atom, reference, facts, tuple(others)

    def ask_stands(self, a, b, relation):
        first, second = self.plain_reference(a), self.plain_reference(b)
        words, reference = self.name(a, plain=True)
        true = stands(self.rows[a], self.rows[b], relation)
        atom = (RELATION if true else NO_RELATION, *first, relation, pack(*second))
        other = 'it' if self.last == b else f'the {phrases.noun(*second, self.choices())}'
        return f'is {words} {SIDES[relation]} {other}', 'yes' if true else 'no', 'relation', atom, reference, set(), (a,)
