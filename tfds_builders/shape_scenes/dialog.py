"""Ten questions and answers about a scene, in the manner of VisDial.

They are short, in lower case, without question marks. The questioner knows the caption and the
earlier answers. A fact is (object, 'shape' | 'colour' | 'size' | 'place'), 'count' or 'background':
4 n + 2 in all. In each round a question is drawn with probability proportional to the number of
facts that its answer reveals; when nothing is left to ask, questions with negative answers follow.
A known fact is never asked for, at most MAX_YES_NO answers are yes or no, and every description in
a question fits one object of the scene alone. 'it' is the one object of the round before.

An answer is an atom of `tfds_builders/facts.py`, so that its truth can be checked. The question
types follow the idea of CLEVR-Dialog (Kottur et al. 2019): count, exist, attribute, place,
relation, background.
"""

from tfds_builders.facts import BACKGROUND, COUNT, EXISTS, PLACE, RELATION, unpack
from tfds_builders.shape_scenes.captions import matching
from tfds_builders.shape_scenes.questions import (
    ATTRIBUTES,
    REGIONS,
    SIDES,
    VALUES,
    Questions,
    Round,
    region,
    stands,
)
from tfds_builders.shape_scenes.scenes import objects_of

ROUNDS, MAX_YES_NO = 10, 4


def dialog(scene, atoms, draws):
    """Return ten Rounds about a scene of which a caption has said `atoms`."""
    talk = _Talk(scene, atoms, draws)
    return [talk.round() for _ in range(ROUNDS)]


def total_facts(scene):
    return 4 * len(objects_of(scene)) + 2


def known_from(rows, atoms):
    """Return the facts that a caption reveals."""
    known = set()
    for kind, *description, argument, other in atoms:
        said = (
            [description] if kind == RELATION or (kind in (EXISTS, PLACE) and argument != 0) else []
        )
        for one in said + ([unpack(other)] if kind == RELATION else []):
            for row in matching(rows, *one):
                known |= {
                    (rows.index(row), name)
                    for name, value in zip(ATTRIBUTES, one, strict=True)
                    if value >= 0
                }
                if kind == PLACE and other in REGIONS:
                    known.add((rows.index(row), 'place'))
        if kind == COUNT:
            known.add('count')
        elif kind == BACKGROUND:
            known.add('background')
    return known


class _Talk(Questions):
    def __init__(self, scene, atoms, draws):
        self.rows, self.background, self.draws = objects_of(scene), int(scene[-1, 0]), draws
        self.regions = [region(row) for row in self.rows]
        self.known = known_from(self.rows, atoms)
        # what has been asked in so many words: (kind, ...)
        self.asked = set()
        self.yes_no, self.last, self.group = 0, None, ()
        named = {k for k, *_ in (fact for fact in self.known if isinstance(fact, tuple))}
        if len(named) == 1:
            self.last = next(iter(named))

    def round(self):
        options = self.informative()
        negatives = not options or self.draws.random() < 0.08
        options = (negatives and self.negatives()) or options
        pick = self.draws.random() * sum(weight for weight, *_ in options)
        for weight, ask, *arguments in options:  # noqa: B007
            pick -= weight
            if pick < 0:
                break
        self.asked.add((ask.__name__, *arguments))
        question, answer, kind, fact, reference, facts, about = ask(*arguments)
        self.known |= facts
        self.yes_no += answer.startswith(('yes', 'no')) and answer not in (
            'none',
            'nothing',
            'noisy',
        )
        self.last, self.group = (about[0], ()) if len(about) == 1 else (None, about)
        return Round(question, answer, kind, fact, reference, frozenset(self.known))

    # What can be asked: (facts that the answer reveals, method, arguments).

    def informative(self):
        rows, known, everyone = self.rows, self.known, range(len(self.rows))
        options = [] if 'background' in known else [(1, self.ask_background)]
        if 'count' not in known:
            options.append(
                (1, self.ask_others)
                if self.last is not None and len(rows) > 1
                else (1, self.ask_count)
            )
        fresh = [k for k in everyone if len(self.unknown(k, (*ATTRIBUTES, 'place'))) == 4]
        for name, column in ATTRIBUTES.items():
            for value in {rows[k][column] for k in fresh}:
                weight = sum(rows[k][column] == value for k in fresh)
                if not self.settled(name, value):
                    options.append((weight, self.ask_number, name, value))
                    seen = any((k, name) in known and rows[k][column] == value for k in everyone)
                    if (
                        self.yes_no < MAX_YES_NO
                        and weight == 1 == len(self.having(name, value))
                        and not seen
                    ):
                        options.append((1, self.ask_exists, name, value))
            if (
                self.group
                and all((k, name) not in known for k in self.group)
                and len({rows[k][column] for k in self.group}) == 1
            ):
                options.append((len(self.group), self.ask_group, name))
        for k in everyone:
            if (
                self.regions.count(self.regions[k]) == 1
                and (self.ask_region.__name__, self.regions[k]) not in self.asked
            ):
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
                if (
                    len(others) == 1
                    and self.unknown(others[0], ATTRIBUTES)
                    and self.plain_reference(k)
                ):
                    options.append(
                        (len(self.unknown(others[0], ATTRIBUTES)), self.ask_side, k, relation)
                    )
        return options

    def negatives(self):
        options = [
            (1, self.ask_number, name, value)
            for name, n in VALUES.items()
            for value in range(n)
            if not self.having(name, value) and not self.settled(name, value)
        ]
        if self.yes_no < MAX_YES_NO:
            options += [(1, self.ask_exists, *arguments) for _, _, *arguments in options]
        options += [(0.7, self.ask_region, place) for place in REGIONS if place not in self.regions]
        for k in range(len(self.rows)):
            if self.plain_reference(k):
                options += [
                    (0.7, self.ask_side, k, relation)
                    for relation in SIDES
                    if not any(stands(row, self.rows[k], relation) for row in self.rows)
                ]
        if self.yes_no < MAX_YES_NO:
            named = [k for k in range(len(self.rows)) if self.plain_reference(k)]
            compared = {
                frozenset(asked[1:3])
                for asked in self.asked
                if asked[0] == self.ask_stands.__name__
            }
            options += [
                (0.7, self.ask_stands, a, b, relation)
                for a in named
                for b in named
                for relation in SIDES
                if a != b and frozenset((a, b)) not in compared
            ]
        return [option for option in options if (option[1].__name__, *option[2:]) not in self.asked]

    def unknown_in_order(self, k):
        return [(k, name) for name in ATTRIBUTES if (k, name) not in self.known]

    def settled(self, name, value):
        """Return whether a question was how many, or whether there are any, of these."""
        return any(
            (ask.__name__, name, value) in self.asked for ask in (self.ask_number, self.ask_exists)
        )

    def having(self, name, value):
        return [k for k, row in enumerate(self.rows) if row[ATTRIBUTES[name]] == value]
