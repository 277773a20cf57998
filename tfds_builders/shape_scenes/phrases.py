"""The closed vocabulary: synonyms, frames and the noun phrases that are made of them."""

import re

from tfds_builders.facts import ABOVE, BELOW, LEFT, NEAR, PLACES, RIGHT
from tfds_builders.shape_scenes.scenes import COLOURS

# singular and plural of the synonyms of each class; the first has one word
SHAPES = (
    (('circle', 'circles'), ('disc', 'discs'), ('dot', 'dots'), ('round shape', 'round shapes')),
    (('square', 'squares'), ('box', 'boxes'), ('block', 'blocks')),
    (('triangle', 'triangles'),),
    (('diamond', 'diamonds'), ('rhombus', 'rhombuses')),
    (('cross', 'crosses'), ('plus sign', 'plus signs')),
    (('ring', 'rings'), ('donut', 'donuts'), ('hoop', 'hoops')),
)
ANY_SHAPE = ('shape', 'shapes'), ('object', 'objects'), ('figure', 'figures')
SIZE_WORDS = ('small', 'tiny', 'little'), ('medium', 'mid-sized'), ('large', 'big', 'huge')
NUMBERS = 'no', 'one', 'two', 'three', 'four', 'five'
BACKGROUND_WORDS = (
    'white',
    'grey',
    'black',
    'grey gradient',
    'striped',
    'checkered',
    'pale',
    'noisy',
)

# {x}: a noun phrase or a list of them, {is}: its verb.
FRAMES = (
    '{x}',
    'there {is} {x}',
    'the picture shows {x}',
    'this image contains {x}',
    '{x} can be seen here',
    'we can see {x}',
    'a picture of {x}',
    'an image with {x}',
    'a drawing that shows {x}',
    'here {is} {x}',
    'you can see {x} in this picture',
    'this drawing has {x} in it',
    'in this image there {is} {x}',
    'someone drew {x}',
)
# One described object and its attributes as a predicate: {head} is the noun without them,
# {adjectives} e.g. 'small and red'.
PREDICATES = (
    'the {head} in the picture is {adjectives}',
    'there is a {head} that is {adjectives}',
    'the {head} shown here is {adjectives}',
    'the picture shows a {head} which is {adjectives}',
    'a {head} that is {adjectives}',
)
PLACE_FRAMES = (
    '{x} {where}',
    'there is {x} {where}',
    'the picture shows {x} {where}',
    'this image contains {x} {where}',
    '{x} can be seen {where}',
    'we can see {x} {where}',
    'a picture of {x} {where}',
    'an image with {x} {where}',
    'here is {x} {where}',
    '{where} there is {x}',
    '{where} we can see {x}',
    '{the} is {where}',
    '{the} sits {where}',
    '{where} is {x}',
)
RELATION_FRAMES = (
    '{a} {rel} {b}',
    'there is {a} {rel} {b}',
    '{a} is {rel} {b}',
    '{a} sits {rel} {b}',
    'we can see {a} {rel} {b}',
    '{the_a} lies {rel} {the_b}',
    'the picture shows {a} {rel} {b}',
    '{a} can be seen {rel} {b}',
    '{rel} {b} there is {a}',
    '{rel} {b} we can see {a}',
    '{the_a} is {rel} {the_b}',
    'an image with {a} {rel} {b}',
    '{the_a} sits {rel} {b}',
)
PLACE_WORDS = {
    PLACES['left']: ('on the left', 'at the left', 'on the left side'),
    PLACES['right']: ('on the right', 'at the right', 'on the right side'),
    PLACES['top']: ('at the top', 'in the upper part'),
    PLACES['bottom']: ('at the bottom', 'in the lower part'),
    PLACES['centre']: ('in the middle', 'in the centre'),
    PLACES['top left']: ('in the top left corner', 'at the top left'),
    PLACES['top right']: ('in the top right corner', 'at the top right'),
    PLACES['bottom left']: ('in the bottom left corner', 'at the bottom left'),
    PLACES['bottom right']: ('in the bottom right corner', 'at the bottom right'),
    PLACES['corner']: ('in a corner',),
}
RELATION_WORDS = {
    LEFT: ('to the left of', 'left of', 'on the left of'),
    RIGHT: ('to the right of', 'right of', 'on the right of'),
    ABOVE: ('above', 'over'),
    BELOW: ('below', 'under', 'beneath'),
    NEAR: ('near', 'close to', 'next to'),
}
OTHERS = 'a an and the is are including on background'


def words(text):
    """Return the tokens of a sentence: lower-case runs of word characters."""
    return re.findall(r'\w+', text.lower())


def vocabulary():
    """Return every word that a caption can have, sorted."""
    texts = [
        *FRAMES,
        *PLACE_FRAMES,
        *RELATION_FRAMES,
        *PREDICATES,
        *COLOURS,
        *NUMBERS,
        *BACKGROUND_WORDS,
        OTHERS,
    ]
    for group in (*SHAPES, ANY_SHAPE):
        texts += [form for forms in group for form in forms]
    for group in (*SIZE_WORDS, *PLACE_WORDS.values(), *RELATION_WORDS.values()):
        texts += group
    return sorted({word for text in texts for word in words(re.sub(r'{\w+}', ' ', text))})


def article(noun):
    return f'an {noun}' if noun[0] in 'aeiou' else f'a {noun}'


def head(shape, choice, plural=False):
    """Return the noun alone; `choice` in [0, 1) picks the synonym."""
    group = SHAPES[shape] if shape >= 0 else ANY_SHAPE
    return group[int(choice * len(group))][plural]


def adjectives(colour, size, choice):
    """Return ['small', 'red'], ['red'] or [].

    `choice` in [0, 1) picks the synonym of the size.
    """
    found = []
    if size >= 0:
        found.append(SIZE_WORDS[size][int(choice * len(SIZE_WORDS[size]))])
    if colour >= 0:
        found.append(COLOURS[colour])
    return found


def noun(shape, colour, size, choices, plural=False):
    """Return 'small red circle': no article.

    `choices`: two numbers in [0, 1) that pick the synonyms.
    """
    return ' '.join([*adjectives(colour, size, choices[0]), head(shape, choices[1], plural)])


def phrase(shape, colour, size, choices, n=-1):
    """Return 'a small red circle', 'two red circles', 'no circles'."""
    text = noun(shape, colour, size, choices, plural=n not in (-1, 1))
    return article(text) if n < 0 else f'{NUMBERS[n]} {text}'


def enumerate_phrases(phrases):
    """Return 'a', 'a and b', 'a, b and c'."""
    return ' and '.join([', '.join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)
