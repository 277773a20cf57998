"""Measures of shape scenes: whether they show what captions say, how varied they are.

All functions read scene tables (N, R + 1, 8), as the readers of `readers.py` give them, and facts
(N, A, 6), one caption for each picture. They return {name: values of each picture or caption}, NaN
where the caption says nothing of the kind, so that means and bootstrap intervals can be taken over
the rest.
"""

import collections
import re

import numpy as np
import scipy

from t2i_jax.scenes.analytic import caption_results
from tfds_builders.facts import COUNT, EXISTS, PLACE, RELATION, holds, unpack
from tfds_builders.shape_scenes.phrases import SHAPES, SIZE_WORDS, words
from tfds_builders.shape_scenes.scenes import (
    CLASS,
    CLASSES,
    COLOUR,
    COLOURS,
    CX,
    CY,
    SIZE,
    SIZES,
    UNIT,
    H,
    W,
    bins,
)

ATTRIBUTES = {
    'class': (CLASS, SHAPES),
    'colour': (COLOUR, tuple((colour,) for colour in COLOURS)),
    'size': (SIZE, SIZE_WORDS),
}

# of the frame: one pixel of 32
NEAR = 0.03


def agreement(scenes, facts) -> dict:
    """Return how well scenes agree with captions, each 0 or 1 except `sem_acc`.

    `sem_acc`: the share of a caption's atoms that hold. `sem_exact`: all of them hold. `colour`,
    `class`, `class_colour`, `size`, `place`, `relation`, `count`: see `analytic.caption_results`.
    `exists_class`, `colour_of_class`, `size_of_class_colour`: each attribute given that the one
    before is right, so that a missing shape is not counted twice.
    """
    true, used = holds(facts, scenes), facts[..., 0] >= 0
    with np.errstate(invalid='ignore', divide='ignore'):
        out = {'sem_acc': np.where(used, true, 0).sum(-1) / used.sum(-1)}
    results = {
        name: np.where(said, right, np.nan)
        for name, (right, said) in caption_results(scenes, facts).items()
    }
    out['sem_exact'] = results.pop('exact')
    out |= results
    out['exists_class'] = results['class']
    out['colour_of_class'] = np.where(results['class'] == 1, results['class_colour'], np.nan)
    out['size_of_class_colour'] = np.where(results['class_colour'] == 1, results['size'], np.nan)
    return out


def scene_match(scenes, truth) -> dict:
    """Return how many of the objects of scenes are seen, whatever a caption says, (N,) each.

    scenes, truth: (N, R + 1, F), what is seen and what is there

    `scene_class`: of the objects that are there the share whose class is seen, as often as it is
    there. `scene_colour_of_class`: of those the share whose colour is seen with the class.
    """

    def counts(table):
        objects = table[:, :-1, :2]
        kinds = np.stack(np.meshgrid(range(len(CLASSES)), range(len(COLOURS)), indexing='ij'), -1)
        return (objects[:, :, None, None] == kinds).all(-1).sum(1)  # N classes colours

    def of_classes(table):
        return (table[:, :-1, CLASS, None] == np.arange(len(CLASSES))).sum(1)

    seen = np.minimum(of_classes(scenes), of_classes(truth)).sum(1)
    with_colour = np.minimum(counts(scenes), counts(truth)).sum((1, 2))
    there = of_classes(truth).sum(1)
    return {
        'scene_class': seen / np.maximum(there, 1),
        'scene_colour_of_class': np.where(seen, with_colour / np.maximum(seen, 1), np.nan),
    }


def attribute_accuracy(scenes, attributes) -> dict:
    """Return whether the largest objects are what attribute vectors say, 0 or 1, (N,) each.

    attributes: (N, 22), those of `single` scenes

    `attribute_class`, `attribute_colour`, `attribute_size`, `attribute_x`, `attribute_y` (the third
    of the room), `attribute_position` (both), and `attribute_position_near`, with places that are
    off by no more than NEAR: by so much readers err, and a third of a large object's room is a
    tenth of the frame. NaN where a vector says nothing of the kind (its bits are all 0); a picture
    without an object is wrong.
    """
    largest = scenes[:, 0]

    def thirds(off):
        return bins(largest[:, CX] + off, largest[:, W]), bins(largest[:, CY] + off, largest[:, H])

    x, y = thirds(0)
    near_x, near_y = np.stack(
        [thirds(off) for off in (-round(NEAR * UNIT), 0, round(NEAR * UNIT))], -1
    )  # N 3
    said = {
        'class': largest[:, [CLASS]],
        'colour': largest[:, [COLOUR]],
        'size': largest[:, [SIZE]],
        'x': x[:, None],
        'y': y[:, None],
    }
    parts = np.split(attributes, np.cumsum([len(CLASSES), len(COLOURS), len(SIZES), 3]), 1)

    def right(values, bits):
        found = (values == bits.argmax(1)[:, None]).any(1) & (largest[:, W] >= 0)
        return np.where(bits.any(1), found, np.nan)

    out = {
        f'attribute_{name}': right(values, bits)
        for (name, values), bits in zip(said.items(), parts)
    }
    return out | {
        'attribute_position': out['attribute_x'] * out['attribute_y'],
        'attribute_position_near': right(near_x, parts[3]) * right(near_y, parts[4]),
    }


def descriptions(facts):
    """Return what one caption (A, 6) describes: [(class, colour, size, how many)], -1 for any."""
    found = []
    for kind, shape, colour, size, number, other in facts.tolist():
        if kind in (EXISTS, PLACE) and number != 0:
            found.append((shape, colour, size, max(number, 1) if kind == EXISTS else 1))
        if kind == RELATION:
            found += [(shape, colour, size, 1), (*(int(v) for v in unpack(np.int64(other))), 1)]
    return found


def layout(scenes):
    """Return scene tables as boxes (N, R, 4), cx cy w h in [0, 1], and labels (N, R).

    A label is the class, -1 where there is no object or its class is unknown.
    """
    objects = scenes[:, :-1]
    return objects[..., [CX, CY, W, H]] / UNIT, np.where(
        objects[..., W] >= 0, objects[..., CLASS], -1
    )


def names_all(facts, labels) -> np.ndarray:
    """Return which captions name the class of each object of their scenes, (N,) bool.

    labels: of the scenes, (N, R), -1 where there is none
    """
    out = np.zeros(len(facts), bool)
    for i, (one, there) in enumerate(zip(facts, labels)):
        said = [shape for shape, _, _, number in descriptions(one) for _ in range(number)]
        out[i] = sorted(said) == sorted(there[there >= 0])
    return out


def found_at(scenes, boxes, labels, near=0.1) -> np.ndarray:
    """Return which objects of layouts are seen where they should be, (N, R) of 0 and 1.

    boxes, labels: (N, R, 4) and (N, R), -1 where there is none, which becomes NaN.
    near: an object of the label whose centre is at most this far counts.
    """
    seen, said = layout(scenes)
    off = np.linalg.norm(boxes[:, :, None, :2] - seen[:, None, :, :2], axis=-1)  # N R S
    same = (labels[..., None] == said[:, None]) & (said[:, None] >= 0)
    found = (same & (off <= near)).any(-1)
    return np.where(labels >= 0, found, np.nan)


def _rows(scene):
    """Return the (class, colour, size) of each object."""
    return [tuple(row[:3]) for row in scene[:-1].tolist() if row[W] >= 0]


def _fits(row, description):
    return all(wanted < 0 or wanted == have for wanted, have in zip(description[:3], row[:3]))


def hallucination(scenes, facts, truth) -> np.ndarray:
    """Return how many objects of each picture its caption does not license, (N,).

    truth: the scenes that the captions were written for

    For captions that describe as many objects as their own scene has: the objects that are left
        when as many as possible have been given to descriptions. Where a caption describes fewer,
        but says how
    many there are: those above that number. NaN for the others.
    """
    out = np.full(len(scenes), np.nan)
    for i, (scene, one, real) in enumerate(zip(scenes, facts, truth)):
        said = [description for description in descriptions(one) for _ in range(description[3])]
        there, found, counted = int((real[:-1, W] >= 0).sum()), _rows(scene), one[:, 0] == COUNT
        if len(said) == there:
            fits = np.array(
                [[_fits(row, description) for description in said] for row in found], float
            ).reshape(-1, len(said))
            out[i] = len(found) - fits[scipy.optimize.linear_sum_assignment(-fits)].sum()
        elif counted.any():
            out[i] = max(0, len(found) - int(one[counted, 4][0]))
    return out


def binding(scenes, facts) -> np.ndarray:
    """Return whether the colours of two objects are right (1), exchanged (-1) or neither (0).

    A value for each picture.
    For captions of exactly two objects, each described alone with class and colour, which differ in
    both; NaN for the others ('two red circles and a blue square', too).
    """
    out = np.full(len(scenes), np.nan)
    for i, (scene, one) in enumerate(zip(scenes, facts)):
        said, alone = [d[:2] for d in descriptions(one)], all(d[3] == 1 for d in descriptions(one))
        if (
            len(said) != 2
            or not alone
            or min(map(min, said)) < 0
            or said[0][0] == said[1][0]
            or said[0][1] == said[1][1]
        ):
            continue
        there = {tuple(row[:2]) for row in scene[:-1].tolist()}
        swapped = {(said[0][0], said[1][1]), (said[1][0], said[0][1])}
        out[i] = (set(said) <= there) - (swapped <= there)
    return out


def oracle_r_precision(scenes, facts, truth, pool, negatives=99, seed=0) -> np.ndarray:
    """Return whether the own caption fits a picture best among many false ones, 0 or 1, (N,).

    scenes: (N, R + 1, 8), of the pictures
    facts: (N, A, 6), of their captions
    truth: (N, R + 1, 8), the scenes that the captions were written for
    pool: (M, A, 6), captions, of which those that are false of the true scene are drawn
    negatives: how many of them
    seed: of the draw

    A caption fits by the share of its atoms that hold; a tie is a failure.
    """
    rng, out = np.random.default_rng(seed), np.zeros(len(scenes))
    for i, (scene, one, real) in enumerate(zip(scenes, facts, truth)):
        others = np.zeros((0, *pool.shape[1:]), pool.dtype)
        while len(others) < negatives:
            drawn = pool[rng.integers(0, len(pool), 2 * negatives)]
            others = np.concatenate([others, drawn[~holds(drawn, real).all(-1)]])[:negatives]
        atoms = np.concatenate([one[None], others])
        used = atoms[..., 0] >= 0
        shares = (holds(atoms, scene) & used).sum(-1) / np.maximum(used.sum(-1), 1)
        out[i] = shares[0] > shares[1:].max()
    return out


# ------------------------------------------------------------------------------- one word exchanged
def swaps(texts, facts, seed=0, per_attribute=32):
    """Return captions of one description with one word exchanged.

    A list of (row, attribute, changed text, changed facts (A, 6)). The word names the class, the
    colour or the size of what is described; it is replaced by one of the same kind, a plural by a
    plural.
    """
    rng, out = np.random.default_rng(seed), []
    for attribute, (column, names) in ATTRIBUTES.items():
        found = []
        for row in rng.permutation(len(texts)):
            said = descriptions(facts[row])
            if len(said) != 1 or said[0][column] < 0 or len(found) == per_attribute:
                continue
            old = said[0][column]
            forms = {
                form: i
                for synonym in names[old]
                for i, form in enumerate([synonym] if isinstance(synonym, str) else synonym)
            }
            pattern = re.compile(
                r'\b(' + '|'.join(sorted(map(re.escape, forms), key=len, reverse=True)) + r')\b'
            )
            written = pattern.findall(texts[row])
            if len(written) != 1:
                continue
            new = int(rng.choice([v for v in range(len(names)) if v != old]))
            word = (
                names[new][0]
                if isinstance(names[new][0], str)
                else names[new][0][forms[written[0]]]
            )
            text = re.sub(
                r'\ba (?=[aeiou])',
                'an ',
                re.sub(r'\ban (?=[^aeiou])', 'a ', pattern.sub(word, texts[row])),
            )
            changed = facts[row].copy()
            changed[np.isin(changed[:, 0], (EXISTS, PLACE)) & (changed[:, 4] != 0), 1 + column] = (
                new
            )
            found.append((int(row), attribute, text, changed))
        out += found
    return out


def swap_results(before, after, swapped, facts) -> dict:
    """Return what an exchanged word did to pictures that were drawn from the same noise.

    before, after: (n, R + 1, 8) each, n = len(swapped)
    swapped, facts: what `swaps` returned, and the facts (N, A, 6) that it was given

    `swap_<attribute>`: 1 where the changed atom holds afterwards. `swap_keeps`: 1 where everything
    else stayed: the multiset of (class, colour, size) is the one before, except for the exchanged
    attribute of as many objects as the caption describes, which fitted it before (where none did,
    any object may be the one that is meant); 0 where there was no object of known class before.
    """
    out = {f'swap_{name}': np.full(len(swapped), np.nan) for name in ATTRIBUTES} | {
        'swap_keeps': np.full(len(swapped), np.nan)
    }
    for i, (old, new, (row, attribute, _, changed)) in enumerate(zip(before, after, swapped)):
        atoms = changed[(changed != facts[row]).any(-1)]
        out[f'swap_{attribute}'][i] = holds(atoms, new).all()
        out['swap_keeps'][i] = _kept(
            _rows(old), _rows(new), descriptions(facts[row])[0], ATTRIBUTES[attribute][0]
        )
    return out


def _kept(before, after, description, column):
    gone, come = (
        list((collections.Counter(a) - collections.Counter(b)).elements())
        for a, b in ((before, after), (after, before))
    )
    meant = [row for row in before if _fits(row, description)] or before
    others = [sorted(row[:column] + row[column + 1 :] for row in rows) for rows in (gone, come)]
    return (
        any(row[CLASS] >= 0 for row in before)
        and len(gone) <= description[3]
        and set(gone) <= set(meant)
        and others[0] == others[1]
    )


def diversity(scenes, facts) -> dict:
    """Return how varied the pictures of a caption are, `diversity_place`, `diversity_size`.

    scenes: (M, k, R + 1, 8), decoded from k pictures of each of M captions
    facts: (M, A, 6)

    Standard deviation over the k of the largest object's place and side, in fractions of the frame.
    One picture for every noise gives 0; the place is NaN where the caption says where something is
    (a place or a relation), the side where it says how large something is.
    """
    largest = scenes[:, :, 0].astype(float)
    largest[largest[..., W] < 0] = np.nan
    side = np.maximum(largest[..., W], largest[..., H])
    placed = np.isin(facts[..., 0], (PLACE, RELATION)).any(-1)
    sized = np.array([any(size >= 0 for _, _, size, _ in descriptions(one)) for one in facts], bool)
    with np.errstate(invalid='ignore'):
        place = np.sqrt(_variance(largest[..., CX]) + _variance(largest[..., CY]))
        return {
            'diversity_place': np.where(placed, np.nan, place / UNIT),
            'diversity_size': np.where(sized, np.nan, np.sqrt(_variance(side)) / UNIT),
        }


def _variance(values):
    """Return the variance over the last axis without NaN; NaN where fewer than two are left."""
    there = np.isfinite(values)
    count = there.sum(-1)
    mean = np.where(there, values, 0).sum(-1) / np.maximum(count, 1)
    square = (np.where(there, values - mean[..., None], 0) ** 2).sum(-1)
    return np.where(count > 1, square / np.maximum(count, 1), np.nan)


def nearest_captions(texts, train_texts):
    """Return for each text the number of the training text most like it.

    By the words that they share (Jaccard), the first of equal ones. The pictures of these records
    are what a system that only remembers would show.
    """
    return nearest_records(texts, [[text] for text in train_texts])


def nearest_records(texts, captions_of_records):
    """Return for each text the number of the record with the caption most like it.

    captions_of_records: a list of texts for each record

    As `nearest_captions`. Raises ValueError where no record has a caption.
    """
    bags = {}
    for number, captions in enumerate(captions_of_records):
        for caption in captions:
            bags.setdefault(frozenset(words(caption)), number)
    if not bags:
        raise ValueError(
            f'{len(captions_of_records)} records without a caption: there is nothing that a text '
            'could be like'
        )
    # word -> the bags that hold it
    where = collections.defaultdict(list)
    for i, bag in enumerate(bags):
        for word in bag:
            where[word].append(i)
    where = {word: np.array(rows, np.int32) for word, rows in where.items()}
    sizes, numbers, out = np.array([len(bag) for bag in bags]), list(bags.values()), []
    for text in texts:
        bag, common = set(words(text)), np.zeros(len(bags), np.int32)
        for word in bag & where.keys():
            common[where[word]] += 1
        out.append(numbers[(common / np.maximum(sizes + len(bag) - common, 1)).argmax()])
    return out
