"""Agreement of shape scenes with captions.

Real pictures, scenes made by hand, and captions of several objects.
"""

import re

import numpy as np
import pytest

from t2i_jax.data.tables import Split
from t2i_jax.scenes import agreement as shape_agreement
from t2i_jax.scenes.analytic import decode_all
from tfds_builders.facts import (
    COUNT,
    EXISTS,
    PLACE,
    PLACES,
    RELATION,
    holds,
    pack,
    table,
)
from tfds_builders.shape_scenes import phrases
from tfds_builders.shape_scenes.captions import captions
from tfds_builders.shape_scenes.scenes import CLASS, COLOUR, CX, CY, SIZE, UNIT, Draws, H, W, sample

RED, BLUE, GREEN = 0, 2, 1
CIRCLE, SQUARE, TRIANGLE = range(3)


def scene(*objects):
    """A scene table (9, 8) of objects (class, colour) or (class, colour, size)."""
    out = np.full((9, 8), -1)
    for i, one in enumerate(objects):
        out[i] = (*one[:2], one[2] if len(one) > 2 else 1, 2000, 2000, 900, 900, i)
    return out


def exists(shape=-1, colour=-1, size=-1, n=-1):
    return EXISTS, shape, colour, size, n, -1


def facts(*atoms):
    return table(list(atoms))


@pytest.fixture(scope='module')
def multi():
    """(scenes, texts, facts) of 300 scenes of several objects, one caption each."""
    scenes = [sample('multi', 'test', i) for i in range(300)]
    said = [
        captions(one, 'multi', 'test', Draws(0, 'multi', 'test', i, stream=1))[i % 5]
        for i, one in enumerate(scenes)
    ]
    return (
        np.stack(scenes),
        [text for text, _, _ in said],
        np.stack([table(atoms) for _, atoms, _ in said]),
    )


@pytest.fixture(scope='module')
def real(on_shapes):
    config = on_shapes('gan_cls_shapes').data.unlock()
    config.update(size=32, split='train[:400]')
    split = Split(config, 'test', ('image', 'facts', 'attributes'), None)
    rows = np.arange(len(split))
    return (
        split,
        decode_all(split.tables['image'], 'single'),
        split.tables['facts'][rows, rows % 10],
        split.tables['scene'],
    )


def test_real_pictures_agree_with_their_captions(real):
    split, scenes, facts, truth = real
    found = shape_agreement.agreement(scenes, facts)
    assert np.nanmean(found['sem_exact']) == 1 and np.nanmean(found['sem_acc']) == 1
    assert np.nanmean(shape_agreement.hallucination(scenes, facts, truth)) == 0
    pool = split.tables['facts'].reshape(-1, 6, 6)
    assert shape_agreement.oracle_r_precision(scenes, facts, truth, pool).mean() > 0.9
    wrong = shape_agreement.agreement(np.roll(scenes, 7, 0), facts)
    assert np.nanmean(wrong['sem_exact']) < 0.3


def test_an_attribute_counts_only_where_what_it_describes_is_right():
    scenes = np.stack([scene((CIRCLE, RED)), scene((SQUARE, BLUE))])
    said = np.stack([facts(exists(CIRCLE, RED, 0))] * 2)  # a small red circle; both are medium
    found = shape_agreement.agreement(scenes, said)
    assert (
        found['exists_class'].tolist() == [1, 0]
        and found['colour_of_class'][0] == 1
        and np.isnan(found['colour_of_class'][1])
    )
    assert (
        found['size_of_class_colour'][0] == 0
        and np.isnan(found['size_of_class_colour'][1])
        and found['sem_acc'].tolist() == [0, 0]
    )


# --------------------------------------------------------------------- what is too much or mixed up
def test_hallucination_in_scenes_of_several_objects(multi):
    scenes, _, said = multi
    assert np.nanmax(shape_agreement.hallucination(scenes, said, scenes)) == 0
    nothing = np.full_like(scenes, -1)
    assert np.nanmax(shape_agreement.hallucination(nothing, said, scenes)) == 0


def test_a_complete_caption_with_a_number_licenses_only_what_it_describes():
    truth = scene((CIRCLE, RED), (SQUARE, BLUE), (TRIANGLE, GREEN))
    complete = facts(
        (COUNT, -1, -1, -1, 3, -1),
        exists(CIRCLE, RED),
        exists(SQUARE, BLUE),
        exists(TRIANGLE, GREEN),
    )
    partial, other = (
        facts((COUNT, -1, -1, -1, 3, -1), exists(CIRCLE, RED)),
        facts(exists(CIRCLE, RED)),
    )
    wrong = scene((3, 3), (4, 4), (5, 5))
    shown = np.stack([truth, wrong, wrong, scene((3, 3), (4, 4), (5, 5), (5, 5)), wrong])
    found = shape_agreement.hallucination(
        shown, np.stack([complete, complete, partial, partial, other]), np.stack([truth] * 5)
    )
    assert found[:4].tolist() == [0, 3, 0, 1] and np.isnan(found[4])


def test_objects_are_given_to_descriptions_so_that_most_are_licensed():
    """'a circle left of something red'.

    The red circle goes to the second description, whatever the order.
    """
    said = facts((RELATION, CIRCLE, -1, -1, 0, pack(-1, RED, -1)))
    shown = scene((CIRCLE, RED), (CIRCLE, BLUE))
    assert shape_agreement.hallucination(shown[None], said[None], shown[None]).tolist() == [0]


def test_binding():
    scenes = np.stack(
        [
            scene((CIRCLE, RED), (SQUARE, BLUE)),
            scene((CIRCLE, BLUE), (SQUARE, RED)),
            scene((CIRCLE, RED)),
        ]
    )
    said = np.stack([facts(exists(CIRCLE, RED), exists(SQUARE, BLUE))] * 3)
    assert shape_agreement.binding(scenes, said).tolist() == [1, -1, 0]
    assert np.isnan(shape_agreement.binding(scenes, said[:, :1].repeat(2, 1) * 0 - 1)).all()
    said[:, 0, 4] = 2  # two red circles and a blue square
    assert np.isnan(shape_agreement.binding(scenes, said)).all()


def test_binding_in_scenes_of_several_objects(multi):
    scenes, texts, said = multi
    found = shape_agreement.binding(scenes, said)
    assert np.nanmin(found) >= 0 and np.nanmean(found) > 0.95 and np.isfinite(found).sum() > 20
    plural = re.compile(r'\b(two|three|four|five)\b(?! (shapes|objects|figures) including)')
    assert not [
        text for text, value in zip(texts, found) if np.isfinite(value) and plural.search(text)
    ]


# -------------------------------------------------------------------------------- attribute vectors
def test_real_pictures_are_what_their_attributes_ask_for(real):
    split, scenes, _, _ = real
    found = shape_agreement.attribute_accuracy(scenes, split.tables['attributes'])
    assert set(found) == {
        f'attribute_{name}'
        for name in ('class', 'colour', 'size', 'x', 'y', 'position', 'position_near')
    }
    for name, values in found.items():
        assert values.mean() == 1, name
    others = shape_agreement.attribute_accuracy(scenes, np.roll(split.tables['attributes'], 7, 0))
    assert others['attribute_colour'].mean() < 0.5 and others['attribute_position'].mean() < 0.5


def test_a_place_may_be_off_by_a_pixel():
    """A medium circle whose left third of the room ends at cx = .4"""
    one, asked = scene((CIRCLE, RED)), np.zeros((1, 22))
    asked[0, [16, 20]] = 1  # left, centre
    one[0, [CX, CY, W, H]] = [round(v * UNIT) for v in (0.42, 0.5, 0.4, 0.4)]
    found = shape_agreement.attribute_accuracy(one[None], asked)
    assert (
        found['attribute_position'] == 0
        and found['attribute_position_near'] == 1
        and np.isnan(found['attribute_class']).all()
    )
    one[0, CX] = round(0.44 * UNIT)
    assert shape_agreement.attribute_accuracy(one[None], asked)['attribute_position_near'] == 0


def test_attributes_by_hand():
    """A medium red circle on the left, in the middle of the height.

    A smaller blue square, which is not asked about.
    """
    one, vector = scene((CIRCLE, RED), (SQUARE, BLUE)), np.zeros(22)
    one[0, 3:7], one[1, 3:7] = (600, 2048, 900, 900), (3000, 3000, 500, 500)
    vector[[CIRCLE, 6 + RED, 13 + 1, 16 + 0, 19 + 1]] = 1

    def asked(bits, there=one):
        changed = vector.copy()
        for bit in bits:
            group = next(
                part
                for part in (slice(0, 6), slice(6, 13), slice(13, 16), slice(16, 19), slice(19, 22))
                if part.start <= bit < part.stop
            )
            changed[group] = 0
            changed[bit] = 1
        found = shape_agreement.attribute_accuracy(there[None], changed[None])
        return {name.removeprefix('attribute_'): float(values[0]) for name, values in found.items()}

    every = dict.fromkeys(('class', 'colour', 'size', 'x', 'y', 'position', 'position_near'), 1)
    assert asked([]) == every
    assert (
        asked([SQUARE]) == every | {'class': 0}
        and asked([6 + BLUE]) == every | {'colour': 0}
        and asked([13]) == every | {'size': 0}
    )
    assert asked([18]) == every | {'x': 0, 'position': 0, 'position_near': 0} and asked(
        [19]
    ) == every | {'y': 0, 'position': 0, 'position_near': 0}
    assert asked([], scene()) == dict.fromkeys(every, 0)
    vector[6:13] = 0  # nothing is said of the colour
    assert np.isnan(asked([])['colour']) and asked([])['class'] == 1


# ------------------------------------------------------------------------------- one word exchanged
def test_one_word_exchanged(real):
    split, _, facts, _ = real
    texts = [texts[i % 10] for i, texts in enumerate(split.texts)]
    found = shape_agreement.swaps(texts, facts, per_attribute=3)
    assert {attribute for _, attribute, _, _ in found} == {'class', 'colour', 'size'}
    for row, attribute, text, changed in found:
        column = {'class': 1, 'colour': 2, 'size': 3}[attribute]
        assert text != texts[row] and len(text.split()) - len(texts[row].split()) in (-1, 0, 1)
        used = changed[:, 0] >= 0
        assert (changed[used, column] != facts[row][used, column]).all()
        others = [c for c in range(6) if c != column]
        assert np.array_equal(changed[:, others], facts[row][:, others])


def test_plurals_become_plurals_and_numbers_stay(multi):
    _, texts, said = multi
    singular, plural = (
        {form for group in phrases.SHAPES for form in (pair[i] for pair in group)} for i in (0, 1)
    )
    found, seen = shape_agreement.swaps(texts, said, per_attribute=300), 0
    for row, attribute, text, changed in found:
        assert (changed != said[row]).sum() == 1  # a number of all objects is left alone
        number = changed[(changed != said[row]).any(-1)][0, 4]
        if attribute == 'class':
            seen += number > 1
            words = [
                form
                for form in (plural if number > 1 else singular)
                if re.search(rf'\b{form}\b', text)
            ]
            assert words, (texts[row], text)
    assert seen > 3
    (text,) = {
        text
        for _, attribute, text, _ in shape_agreement.swaps(
            ['two red circles'], facts(exists(CIRCLE, RED, n=2))[None]
        )
        if attribute == 'class'
    }
    assert re.fullmatch(r'two red \w+( \w+)?s|two red crosses', text) and 'circles' not in text


def results(before, after, attribute, said, changed):
    found = shape_agreement.swap_results(
        before[None], after[None], [(0, attribute, '', changed)], said[None]
    )
    return found[f'swap_{attribute}'][0], found['swap_keeps'][0]


def test_exchanges_in_scenes_of_one_object():
    red, blue = facts(exists(CIRCLE, RED, 1)), facts(exists(CIRCLE, BLUE, 1))
    assert results(scene((CIRCLE, RED)), scene((CIRCLE, BLUE)), 'colour', red, blue) == (1, 1)
    assert results(scene((CIRCLE, RED)), scene((CIRCLE, RED)), 'colour', red, blue) == (0, 1)
    assert results(scene((CIRCLE, RED)), scene((SQUARE, BLUE)), 'colour', red, blue) == (0, 0)
    assert results(
        scene((CIRCLE, RED)), scene((CIRCLE, BLUE), (CIRCLE, BLUE)), 'colour', red, blue
    ) == (1, 0)
    assert results(scene((SQUARE, RED)), scene((SQUARE, BLUE)), 'colour', red, blue) == (
        0,
        1,
    )  # never a circle, but all else stayed
    assert results(scene(), scene((CIRCLE, BLUE)), 'colour', red, blue) == (1, 0)
    placed = (
        facts((PLACE, CIRCLE, RED, -1, -1, PLACES['left'])),
        facts((PLACE, CIRCLE, BLUE, -1, -1, PLACES['left'])),
    )
    assert results(scene((CIRCLE, RED)), scene((CIRCLE, BLUE)), 'colour', *placed) == (
        0,
        1,
    )  # it is in the middle
    out = shape_agreement.swap_results(
        scene((CIRCLE, RED))[None],
        scene((CIRCLE, BLUE))[None],
        [(0, 'colour', '', blue)],
        red[None],
    )
    assert np.isnan(out['swap_class'][0]) and np.isnan(out['swap_size'][0])


def test_exchanges_in_scenes_of_several_objects():
    """The caption speaks of the red circle, which is never the largest."""
    red, blue = facts(exists(CIRCLE, RED)), facts(exists(CIRCLE, BLUE))
    before = scene((SQUARE, GREEN, 2), (CIRCLE, RED), (SQUARE, RED))
    assert results(
        before, scene((SQUARE, GREEN, 2), (SQUARE, RED), (CIRCLE, BLUE)), 'colour', red, blue
    ) == (1, 1)
    assert results(before, scene((SQUARE, RED), (CIRCLE, BLUE)), 'colour', red, blue) == (
        1,
        0,
    )  # one is lost
    assert results(
        before, scene((SQUARE, GREEN, 2), (CIRCLE, BLUE), (SQUARE, BLUE)), 'colour', red, blue
    ) == (1, 0)  # another one, too
    assert results(
        before, scene((SQUARE, GREEN, 2), (CIRCLE, RED), (SQUARE, BLUE)), 'colour', red, blue
    ) == (0, 0)  # the wrong one
    assert results(
        before, scene((SQUARE, GREEN, 2), (CIRCLE, BLUE, 0), (SQUARE, RED)), 'colour', red, blue
    ) == (1, 0)  # and its size
    two = facts(exists(CIRCLE, n=2)), facts(exists(SQUARE, n=2))
    before = scene((TRIANGLE, GREEN), (CIRCLE, RED), (CIRCLE, BLUE))
    assert results(
        before, scene((TRIANGLE, GREEN), (SQUARE, RED), (SQUARE, BLUE)), 'class', *two
    ) == (1, 1)
    assert results(
        before, scene((TRIANGLE, GREEN), (SQUARE, RED), (CIRCLE, BLUE)), 'class', *two
    ) == (0, 1)


def test_a_system_that_does_what_the_word_says(multi):
    """Pictures whose described objects take the new value.

    Everything kept, and the changed atom holds unless others have made it false.
    """
    scenes, texts, said = multi
    found = shape_agreement.swaps(texts, said, per_attribute=60)
    before, after = scenes[[row for row, *_ in found]], scenes[[row for row, *_ in found]]
    for one, (row, attribute, _, changed) in zip(after, found):
        column = {'class': CLASS, 'colour': COLOUR, 'size': SIZE}[attribute]
        ((*wanted, number),) = shape_agreement.descriptions(said[row])
        meant = [
            i
            for i in range(5)
            if one[i, W] >= 0 and all(w in (-1, have) for w, have in zip(wanted, one[i]))
        ]
        if (said[row][:, 0] == PLACE).any():
            meant = [i for i in meant if holds(said[row], one[[i, -1]]).all()]
        one[meant[:number], column] = changed[(changed != said[row]).any(-1)][0, 1 + column]
    right = shape_agreement.swap_results(before, after, found, said)
    idle = shape_agreement.swap_results(before, before, found, said)
    assert (right['swap_keeps'] == 1).all() and (idle['swap_keeps'] == 1).all()
    for name in ('swap_class', 'swap_colour', 'swap_size'):
        assert np.nanmean(right[name]) > 0.85 and np.nanmean(idle[name]) < 0.35, name


# -------------------------------------------------------------------------- how varied, and how new
def test_diversity_of_one_picture_is_nothing():
    scenes = np.full((2, 4, 9, 8), -1)
    scenes[:, :, 0] = (0, 0, 1, 2048, 2048, 900, 900, 0)
    scenes[1, :, 0, 3] = (1024, 2048, 3072, 2048)
    found = shape_agreement.diversity(scenes, np.stack([facts(exists(CIRCLE, RED))] * 2))
    np.testing.assert_allclose(found['diversity_place'], [0, np.std([0.25, 0.5, 0.75, 0.5])])
    assert not found['diversity_size'].any()


def test_diversity_of_what_the_caption_leaves_open():
    scenes = np.broadcast_to(scene((CIRCLE, RED)), (5, 4, 9, 8))
    said = np.stack(
        [
            facts(exists(CIRCLE, RED)),
            facts(exists(CIRCLE, RED, 1)),
            facts((PLACE, CIRCLE, RED, -1, -1, 3)),
            facts((PLACE, CIRCLE, RED, 0, -1, 3)),
            facts((RELATION, CIRCLE, RED, -1, 0, pack(SQUARE, -1, 2))),
        ]
    )
    found = shape_agreement.diversity(scenes, said)
    assert np.isnan(found['diversity_place']).tolist() == [False, False, True, True, True]
    assert np.isnan(found['diversity_size']).tolist() == [False, True, False, True, True]


def test_the_most_similar_caption():
    train = ['a red ring', 'there is a blue square', 'a small green dot']
    assert shape_agreement.nearest_captions(
        ['a blue square', 'green dot', 'a red ring'], train
    ) == [1, 2, 0]


def test_the_most_similar_record():
    records = [
        ['a red ring', 'one ring'],
        [],
        ['there is a blue square', 'A green dot.'],
        ['a green dot', 'one'],
    ]
    found = shape_agreement.nearest_records(
        ['one ring', 'green dot', 'one', 'blue', 'unheard of'], records
    )
    assert found == [0, 2, 3, 2, 0]
    with pytest.raises(ValueError, match='2 records without a caption'):
        shape_agreement.nearest_records(['one'], [[], []])


def test_the_most_similar_record_is_that_of_every_pair_compared():
    rng = np.random.default_rng(0)
    words = np.array([f'w{i}' for i in range(30)])
    records = [
        [' '.join(rng.choice(words, rng.integers(1, 9))) for _ in range(3)] for _ in range(60)
    ]
    texts = [' '.join(rng.choice(words, rng.integers(1, 9))) for _ in range(50)]

    def likeness(a, b):
        a, b = set(a.split()), set(b.split())
        return len(a & b) / len(a | b)

    slow = [
        int(np.argmax([max(likeness(text, one) for one in record) for record in records]))
        for text in texts
    ]
    assert shape_agreement.nearest_records(texts, records) == slow
