"""Sentences read as conditions: the classes that they name, or an attribute vector.

For systems that read no words. The way back from `captions.py`, and a little wider, because people
type these: it looks for the words of the closed vocabulary and for their order, not for whole
frames. Words that it does not know are passed over.
"""

import re
from typing import NamedTuple

import numpy as np

from tfds_builders.conditions import Conditions
from tfds_builders.errors import DataError
from tfds_builders.shape_scenes import phrases
from tfds_builders.shape_scenes.scenes import CLASSES, COLOURS, MAX_OBJECTS, SIZES, attribute_names

# of the attributes of `single`: first entry and length of class, colour, size, x, y
GROUPS = (
    (0, 6),
    (6, 7),
    (13, 3),
    (16, 3),
    (19, 3),
)
# the groups that describe the object itself
SAID = 'shape', 'colour', 'size'
SCENERY = re.compile(
    r'\b(?:on|against|with|in front of)? ?(?:a|an|the) (?:\w+ ){0,2}background(?: is \w+)?'
    r'|\b(?:in|of) (?:the|this|a) (?:picture|image|drawing)\b'
)
EXAMPLES = '; '.join(
    (*map(', '.join, (CLASSES, COLOURS, SIZES)), 'on the left, at the top, in the middle')
)


class Described(NamedTuple):
    """A description of one object, or of several that are alike: -1 where nothing is said.

    n: how many, 0 where there is none.
    """

    shape: int = -1
    colour: int = -1
    size: int = -1
    n: int = 1


def _terms():
    """Return {words, as a tuple: (kind, value)}."""
    terms = {words: ('break', None) for words in ('a', 'an', 'the')} | {
        words: ('is', None) for words in ('is', 'are')
    }
    for group in phrases.RELATION_WORDS.values():
        terms |= {words: ('break', None) for words in group}
    terms |= {
        word: ('number', n) for n, words in enumerate(phrases.NUMBERS) for word in (words, str(n))
    } | {'without': ('number', 0)}
    terms |= {word: ('colour', i) for i, word in enumerate(COLOURS)}
    terms |= {word: ('size', i) for i, group in enumerate(phrases.SIZE_WORDS) for word in group}
    for shape, group in (*enumerate(phrases.SHAPES), (-1, phrases.ANY_SHAPE)):
        terms |= {
            word: ('shape', (shape, plural)) for forms in group for plural, word in enumerate(forms)
        }
    terms |= {word: ('place', word) for word in ('middle', 'corner')} | {
        word: ('place', 'middle') for word in ('centre', 'center')
    }
    terms |= {
        word: ('place', (axis, i))
        for word, axis, i in (
            ('left', 0, 0),
            ('right', 0, 2),
            ('top', 1, 0),
            ('upper', 1, 0),
            ('bottom', 1, 2),
            ('lower', 1, 2),
        )
    }
    return {tuple(phrases.words(text)): meaning for text, meaning in terms.items()}


TERMS = _terms()
LONGEST = max(map(len, TERMS))


def _found(sentence):
    """Return the terms of a sentence in their order: [(kind, value)].

    Of several that begin at a word, the longest.
    """
    words, found = phrases.words(SCENERY.sub(' ', sentence.lower())), []
    while words:
        length = next((n for n in range(LONGEST, 0, -1) if tuple(words[:n]) in TERMS), 0)
        found += [TERMS[tuple(words[:length])]] if length else []
        words = words[max(length, 1) :]
    return found


def described(sentence):
    """Return ([Described], [places]) of a sentence.

    A place is (axis, 0 or 2) with axis 0 for x and 1 for y, 'middle' or 'corner'. Raises DataError
    for an object of two colours or sizes.
    """
    # words: what is said of an object before its name; predicate: of one after it
    objects = []
    places = []
    words = {}
    predicate = False

    def say(one, kind, value):
        if one.setdefault(kind, value) != value:
            names = COLOURS if kind == 'colour' else SIZES
            raise DataError(
                f'{sentence!r} says {names[one[kind]]} and {names[value]} of one object: leave one '
                'of them out.'
            )

    for kind, value in _found(sentence):
        if kind == 'place':
            places.append(value)
        elif kind == 'is':
            # 'the circle is red'
            predicate = bool(objects)
        elif kind == 'shape':
            shape, plural = value
            objects.append({'n': 1 + plural} | words | {'shape': shape})
            words, predicate = {}, False
        elif kind in ('break', 'number'):
            predicate = False
            words |= {'n': value} if kind == 'number' else {}
        else:
            say(objects[-1] if predicate else words, kind, value)
    # '... large and red': of the last one, or of an object without a name
    if words.keys() & {
        'colour',
        'size',
    }:
        if not objects:
            objects.append({'n': words.get('n', 1)})
        for kind in words.keys() - {'n'}:
            say(objects[-1], kind, words[kind])
    return [Described(**one) for one in objects], places


def labels(sentence):
    """Return the names of the classes that a sentence names, in the order of CLASSES.

    Raises DataError where it names none.
    """
    found = {one.shape for one in described(sentence)[0] if one.n} - {-1}
    if not found:
        raise DataError(f'{sentence!r} names no shape. There are: {", ".join(CLASSES)}.')
    return tuple(CLASSES[shape] for shape in sorted(found))


def attributes(sentence, names):
    """Return (vector, known): float32 attributes and bool, which of them the sentence says.

    names: of the attributes; they say whether the scenes are of `single` or of `multi`

    Where the sentence says nothing, the vector is 0. Of `multi`, the number of a class is that of
    the objects that are named: there may be more. Raises DataError for other names, for a sentence
    that names no attribute, or one that says two things of one object.
    """
    read = {attribute_names('single'): _single, attribute_names('multi'): _multi}.get(tuple(names))
    if read is None:
        raise DataError(
            'These attributes are not those of shape scenes, so no sentence can be read as them.'
        )
    vector, known = read(sentence)
    if not known.any():
        raise DataError(f'{sentence!r} names no attribute. Words for them are: {EXAMPLES}.')
    return vector, known


def _single(sentence):
    objects, places = described(sentence)
    vector, known = np.zeros(22, np.float32), np.zeros(22, bool)

    def say(group, value):
        first, length = GROUPS[group]
        said = vector[first : first + length]
        if said.any() and not said[value]:
            names = attribute_names('single')[first : first + length]
            raise DataError(
                f'{sentence!r} says {names[said.argmax()]} and {names[value]}, but these pictures '
                'show one object: leave one out.'
            )
        said[value], known[first : first + length] = 1, True

    for one in objects:
        if one.n > 1:
            raise DataError(
                f'{sentence!r} speaks of {phrases.NUMBERS[one.n]} objects, but these pictures show '
                'one.'
            )
        said = [
            (group, getattr(one, kind))
            for group, kind in enumerate(SAID)
            if getattr(one, kind) >= 0
        ]
        if one.n:
            for group, value in said:
                say(group, value)
        elif len(said) == 1:
            # 'no circle', 'no green shape': what it is not
            known[GROUPS[said[0][0]][0] + said[0][1]] = True
    for place in places:
        if place not in ('middle', 'corner'):
            say(3 + place[0], place[1])
    # of the axes that no other word names
    for group in (3, 4):
        first, length = GROUPS[group]
        if not vector[first : first + length].any():
            if 'middle' in places:
                say(group, 1)
            elif 'corner' in places:
                # on either side
                known[first + 1] = True
    return vector, known


def _multi(sentence):
    pairs = len(CLASSES) * len(COLOURS)
    vector, known = np.zeros(pairs + len(CLASSES), np.float32), np.zeros(pairs + len(CLASSES), bool)
    objects = [one for one in described(sentence)[0] if one.shape >= 0]
    if sum(one.n for one in objects) > MAX_OBJECTS:
        raise DataError(
            f'{sentence!r} speaks of {sum(one.n for one in objects)} objects; there are at most '
            f'{MAX_OBJECTS}.'
        )
    for one in objects:
        pair, count = one.shape * len(COLOURS) + one.colour, pairs + one.shape
        if one.colour >= 0:
            vector[pair], known[pair] = max(vector[pair], one.n > 0), True
        if one.n or one.colour < 0:
            vector[count], known[count] = vector[count] + one.n / MAX_OBJECTS, True
    return vector, known


def check(vector, names):
    """Check that a vector of `single` has one value of each kind, not a red and blue object.

    Raises DataError.
    """
    for first, length in GROUPS if len(vector) == len(attribute_names('single')) else ():
        said = [names[first + i] for i in np.flatnonzero(vector[first : first + length] == 1)]
        if len(said) > 1:
            raise DataError(
                f'{" and ".join(said)} cannot both be true of one object: leave all but one out, '
                f'or give shares, "{said[0]}=.5, {said[1]}=.5".'
            )


def fill(vector, known, rng):
    """Return the vector of `single` with what is not known drawn uniformly in each group.

    rng: a numpy Generator

    Groups are class, colour, size, x, y; a vector of `multi` is returned as it is. A group is drawn
    from the same random number whatever the others are, so that two sentences get the same colour
    where neither names one.
    """
    draws = rng.random(len(GROUPS))
    vector = np.array(vector, np.float32)
    if len(vector) != len(attribute_names('single')):
        return vector
    for (first, length), draw in zip(GROUPS, draws):
        free = first + np.flatnonzero(~known[first : first + length])
        if len(free) and not vector[first : first + length].any():
            vector[free[int(draw * len(free))]] = 1
    return vector


CONDITIONS = Conditions(labels, attributes, fill, check)
