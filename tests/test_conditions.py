"""Conditions of a user become what was meant, or are refused with the reason."""

import itertools

import cv2
import numpy as np
import pytest
from helpers import bit_equal

from t2i_jax.data import conditions, parse
from t2i_jax.data.text import Vocabulary
from t2i_jax.runtime.errors import DataError
from t2i_jax.stage import Meta
from tfds_builders.coco2014_captions.categories import CATEGORIES
from tfds_builders.facts import (
    COUNT,
    EXISTS,
    NO_RELATION,
    PLACE,
    PLACES,
    RELATION,
    unpack,
)
from tfds_builders.shape_scenes import scenes, sentences
from tfds_builders.shape_scenes.captions import captions

SINGLE, MULTI = scenes.attribute_names('single'), scenes.attribute_names('multi')
SHAPES = Meta(
    'shape_scenes/single/1.1.0',
    attributes=22,
    object_classes=6,
    max_objects=5,
    object_names=scenes.CLASSES,
    attribute_names=SINGLE,
)
COCO = Meta(
    'coco2014_captions/plain/1.0.0',
    length=4,
    object_classes=80,
    max_objects=10,
    object_names=tuple(CATEGORIES.values()),
)
BIRDS = Meta(
    'cub200_captions/plain/1.0.0',
    attributes=3,
    attribute_names=('has_bill_shape::hooked', 'has_bill_shape::needle', 'has_crown_color::red'),
)


# ---------------------------------------------------------------------------------------- sentences
def written(mode, count):
    """(scene, sentence, its facts) of captions of `count` scenes of each split.

    Some say backgrounds, some what is not there.
    """
    for split, index in itertools.product(('train', 'test_unseen'), range(count)):
        scene = scenes.sample(mode, split, index)
        found = captions(
            scene,
            mode,
            split,
            scenes.Draws(0, mode, split, index, 'none', 1),
            caption_bg=index % 2,
            negations=not index % 3,
        )
        yield from ((scene, text, atoms) for text, atoms, _ in found)


def told_by(atoms):
    """(shape, colour, size) of each object that facts say is there."""
    for kind, shape, colour, size, n, other in atoms:
        if kind in (EXISTS, PLACE, RELATION) and not (kind == EXISTS and n == 0):
            yield shape, colour, size
        if kind == RELATION:
            yield unpack(other)


def test_captions_of_single_are_read_whole_and_never_against_the_scene():
    places = {'left': (3, 0), 'right': (3, 2), 'top': (4, 0), 'bottom': (4, 2)}
    read = 0
    for scene, text, atoms in written('single', 60):
        expected = []
        for described in told_by(atoms):
            expected += [(group, value) for group, value in enumerate(described) if value >= 0]
        for atom in atoms:
            if atom[0] == PLACE:
                name = next(name for name, place in PLACES.items() if place == atom[5])
                expected += (
                    [(3, 1), (4, 1)]
                    if name == 'centre'
                    else [places[word] for word in name.split()]
                )
        if not expected:  # 'no red circle' is no attribute
            continue
        vector, known = sentences.attributes(text, SINGLE)
        assert np.array_equal(vector[known], scenes.attributes(scene, 'single')[known]), text
        for group, value in expected:
            first, length = sentences.GROUPS[group]
            assert vector[first + value] == 1 and known[first : first + length].all(), text
        assert vector.sum() == len(set(expected)), text
        read += 1
    assert read > 1100


def test_captions_of_multi_are_read_whole_and_never_against_the_scene():
    read = 0
    for scene, text, atoms in written('multi', 60):
        named = [one for one in told_by(atoms) if one[0] >= 0]
        if not named:
            continue
        truth, (vector, known) = (
            scenes.attributes(scene, 'multi'),
            sentences.attributes(text, MULTI),
        )
        assert (
            np.array_equal(vector[:42][known[:42]], truth[:42][known[:42]])
            and (vector[42:] < truth[42:] + 1e-6).all()
        ), text
        assert set(np.flatnonzero(vector[:42])) == {
            shape * 7 + colour for shape, colour, _ in named if colour >= 0
        }, text
        assert set(np.flatnonzero(vector[42:])) == {shape for shape, _, _ in named}, text
        for kind, shape, colour, size, n, _ in atoms:  # the number of a class alone is told exactly
            if kind == EXISTS and shape >= 0 and n > 0 and max(colour, size) < 0:
                assert vector[42 + shape] == pytest.approx(n / 5)
        read += 1
    assert read > 400


def test_labels_of_captions():
    for mode in scenes.MODES:
        for _, text, atoms in written(mode, 40):
            named = sorted({shape for shape, _, _ in told_by(atoms)} - {-1})
            if named:
                assert sentences.labels(text) == tuple(scenes.CLASSES[shape] for shape in named), (
                    text
                )
            elif not {COUNT, NO_RELATION} & {atom[0] for atom in atoms}:
                with pytest.raises(DataError, match='names no shape'):
                    sentences.labels(text)


def known_names(sentence):
    vector, known = sentences.attributes(sentence, SINGLE)
    return {name for name, value in zip(SINGLE, vector) if value}, {
        name for name, value, told in zip(SINGLE, vector, known) if told and not value
    }


@pytest.mark.parametrize(
    'sentence, names',
    [
        ('A tiny RED disc!', 'circle red small'),
        ('in the middle', 'middle centre'),
        ('on the left side', 'left'),
        ('a ring at the top', 'ring top'),
        ('in the bottom right corner', 'bottom right'),
        ('a plus sign', 'cross'),
        ('something huge and purple', 'large purple'),
        ('the round shape is mid-sized and cyan', 'circle medium cyan'),
        ('a green shape on a blue background', 'green'),
        ('the background is red, a blue hoop', 'blue ring'),
        ('a square on the left of the picture', 'square left'),
        ('middle left', 'left centre'),
        ('a circle in the center of the image', 'circle middle centre'),
        ('a red, red square', 'red square'),
        ('one block', 'square'),
    ],
)
def test_sentences_of_people(sentence, names):
    assert known_names(sentence)[0] == set(names.split())


def test_what_an_object_is_not():
    assert known_names('a red shape, no circle') == (
        {'red'},
        set(scenes.COLOURS) - {'red'} | {'circle'},
    )
    assert known_names('in a corner') == (set(), {'middle', 'centre'})
    assert known_names('in the left corner') == ({'left'}, {'middle', 'right', 'centre'})


def test_order_says_which_object_is_meant():
    for sentence in (
        'a circle that is red and a square that is blue',
        'the red circle is left of the blue square',
        'red circle, blue square',
    ):
        assert [one[:2] for one in sentences.described(sentence)[0]] == [(0, 0), (1, 2)], sentence
    vector, _ = sentences.attributes('two red circles and a blue ring', MULTI)
    assert {MULTI[i]: round(float(vector[i]), 5) for i in np.flatnonzero(vector)} == {
        'red circle': 1,
        'blue ring': 1,
        'number of circle': 0.4,
        'number of ring': 0.2,
    }


@pytest.mark.parametrize(
    'sentence, names, words',
    [
        ('a cat', SINGLE, ['names no attribute', 'circle, square', 'small', 'on the left']),
        ('', SINGLE, ['names no attribute']),
        ('a red circle and a blue one', SINGLE, ['red and blue', 'one object']),
        ('a circle and a square', SINGLE, ['circle and square']),
        ('a red blue circle', SINGLE, ['red and blue of one object']),
        ('two circles', SINGLE, ['two objects']),
        ('a circle on the left, on the right', SINGLE, ['left and right']),
        ('the circle is small and large', MULTI, ['small and large']),
        ('a red shape', MULTI, ['names no attribute']),
        ('five circles and a square', MULTI, ['6 objects', 'at most 5']),
        ('a circle', ('curved bill',), ['not those of shape scenes']),
    ],
)
def test_sentences_that_say_nothing_or_two_things(sentence, names, words):
    with pytest.raises(DataError) as error:
        sentences.attributes(sentence, names)
    for word in words:
        assert word in str(error.value)


def test_what_is_not_said_is_drawn_uniformly_and_alike_for_all_sentences():
    vector, known = sentences.attributes('a red shape in a corner, no ring', SINGLE)
    drawn = np.stack(
        [sentences.fill(vector, known, np.random.default_rng((0, j))) for j in range(600)]
    )
    assert (np.stack([drawn[:, a : a + n].sum(1) for a, n in sentences.GROUPS]) == 1).all()
    often = dict(zip(SINGLE, drawn.mean(0)))
    assert often['red'] == 1 and often['ring'] == often['middle'] == often['centre'] == 0
    for names, share in (
        (scenes.CLASSES[:5], 0.2),
        (scenes.SIZES, 1 / 3),
        (('left', 'right', 'top', 'bottom'), 0.5),
    ):
        assert all(abs(often[name] - share) < 0.07 for name in names)
    other = np.stack(
        [
            sentences.fill(*sentences.attributes('a circle', SINGLE), np.random.default_rng((0, j)))
            for j in range(600)
        ]
    )
    assert bit_equal(other[:, 13:16], drawn[:, 13:16])  # the same sizes
    vector, known = sentences.attributes('a red circle', MULTI)
    assert bit_equal(sentences.fill(vector, known, np.random.default_rng(0)), vector)


# ------------------------------------------------------------------------------- labels, attributes
def names_of(row, meta):
    return [meta.object_names[i] for i in np.flatnonzero(row)]


def test_label_sets():
    sets = parse.label_sets(
        ['person, dog, frisbee', ['Traffic Light', 'people'], ' knives,sandwiches , buses,'], COCO
    )
    assert sets.shape == (3, 80) and sets.dtype == np.float32 and set(sets.flat) == {0, 1}
    assert [names_of(row, COCO) for row in sets] == [
        ['person', 'dog', 'frisbee'],
        ['person', 'traffic light'],
        ['bus', 'knife', 'sandwich'],
    ]
    assert bit_equal(parse.label_sets('person, dog, frisbee', COCO), sets[:1])


@pytest.mark.parametrize(
    'sets, meta, words',
    [
        ([], COCO, ['no label set']),
        ([''], COCO, ['Label set 1 is empty', 'person, bicycle']),
        (['dog', ' , '], COCO, ['Label set 2 is empty']),
        ([[]], COCO, ['Label set 1 is empty']),
        (['person, frisbe'], COCO, ["no label 'frisbe'", 'mean frisbee', '80']),
        (['racket'], COCO, ['mean tennis racket']),
        (
            ['cirle'],
            SHAPES,
            ['mean circle', 'There are: circle, square, triangle, diamond, cross, ring'],
        ),
        (['zzz'], COCO, ["no label 'zzz'. There are 80"]),
        ([COCO.object_names[:11]], COCO, ['11 labels', 'at most 10']),
        (['dog'], BIRDS, ['No names of labels']),
    ],
)
def test_label_sets_that_cannot_be(sets, meta, words):
    with pytest.raises(DataError) as error:
        parse.label_sets(sets, meta)
    for word in words:
        assert word in str(error.value)


def test_labels_in_sentences():
    said = ['Two people with hot dogs beside a traffic light', 'a dog and a bus', 'SKIS!']
    found = [names_of(row, COCO) for row in parse.sentences_as_labels(said, COCO)]
    assert found == [['person', 'traffic light', 'hot dog'], ['bus', 'dog'], ['skis']]
    assert names_of(parse.sentences_as_labels('two discs and a hoop', SHAPES)[0], SHAPES) == [
        'circle',
        'ring',
    ]
    with pytest.raises(DataError, match='names no label of coco.* such as person, bicycle'):
        parse.sentences_as_labels(['an empty place'], COCO)
    with pytest.raises(
        DataError, match="no label 'ring'"
    ):  # the reader knows it, these layouts do not
        parse.sentences_as_labels(['a ring'], SHAPES._replace(object_names=scenes.CLASSES[:4]))
    with pytest.raises(DataError, match='at least one'):
        parse.sentences_as_labels([], COCO)


def test_attribute_vectors():
    hot = np.zeros(22, np.float32)
    hot[[0, 6, 13, 16, 19]] = 1
    texts = [
        'circle, red, small, left, top',
        ' '.join(f'{x:g}' for x in hot),
        hot,
        'Circle,red=1, small = 1,left,top',
    ]
    vectors = parse.attribute_vectors(texts, SHAPES)
    assert vectors.dtype == np.float32 and bit_equal(vectors, np.stack([hot] * 4))
    for one in (texts[0], hot, hot.tolist(), hot[None], [texts[0].split(', ')]):
        assert bit_equal(parse.attribute_vectors(one, SHAPES), hot[None])
    assert parse.attribute_vectors(['red=.25'], SHAPES)[0].tolist() == [0] * 6 + [0.25] + [0] * 15
    assert bit_equal(parse.attribute_vectors(['0,1 ,0.5'], BIRDS), np.float32([[0, 1, 0.5]]))


def test_groups_of_which_nothing_is_said_are_drawn():
    drawn = parse.attribute_vectors(['circle, red', hot := [0.0] * 22], SHAPES, num=5, seed=3)
    assert drawn.shape == (2, 5, 22) and bit_equal(
        drawn[1], np.array([hot] * 5, np.float32)
    )  # numbers say everything
    assert (
        (drawn[0].sum(1) == 5).all()
        and (drawn[0][:, [0, 6]] == 1).all()
        and len({row.tobytes() for row in drawn[0]}) > 1
    )
    said = parse.filled(
        *parse.sentences_as_attributes(['a red circle', 'a red shape'], SHAPES), SHAPES, 5, 3
    )
    assert bit_equal(said[0], drawn[0]) and bit_equal(said[1][:, 6:], drawn[0][:, 6:])
    assert not bit_equal(parse.attribute_vectors(['circle, red'], SHAPES, num=5, seed=4), drawn[:1])
    assert bit_equal(
        parse.attribute_vectors(['has_crown_color::red'], BIRDS, num=2),
        np.float32([[[0, 0, 1]] * 2]),
    )


@pytest.mark.parametrize(
    'values, meta, words',
    [
        ([], SHAPES, ['no attribute vector']),
        ([''], SHAPES, ['names no attribute', 'circle']),
        (['1 0 1'], SHAPES, ['1 has 3 values', 'have 22', 'circle, square']),
        ([[0.0] * 22, [0.0] * 23], SHAPES, ['2 has 23 values']),
        ([[0.0] * 6 + [1.5] + [0.0] * 15], SHAPES, ['Attribute red of vector 1 is 1.5', '[0, 1]']),
        (['red=-1'], SHAPES, ['Attribute red', 'is -1']),
        ([[float('nan')] * 22], SHAPES, ['Attribute circle', 'nan']),
        (['redd'], SHAPES, ['mean red', 'There are: circle']),
        (['red=much'], SHAPES, ['red=0.5']),
        (['bill'], BIRDS, ['has_bill_shape::hooked']),
        (['red'], Meta('x', attributes=2), ['give 2 numbers']),
        (['0 2'], Meta('x', attributes=2), ['Attribute number 2 of vector 1 is 2']),
    ],
)
def test_attributes_that_cannot_be(values, meta, words):
    with pytest.raises(DataError) as error:
        parse.attribute_vectors(values, meta)
    for word in words:
        assert word in str(error.value)


def test_sentences_that_no_reader_can_read():
    words = 'cub200_captions.*cannot be read as attributes.*--attributes="has_bill_shape::hooked, '
    with pytest.raises(DataError, match=words):
        parse.sentences_as_attributes(['a red bird'], BIRDS)


def test_captions_of_rows():
    batch = {
        'attributes': np.eye(22)[:2] + np.eye(22)[6:8] * 0.5,
        'object_labels': np.array([[2, 0, 2, -1], [-1] * 4]),
    }
    assert (
        conditions.captions_of(batch, SHAPES, [['a', 'b'], ['c']])
        == ['a', 'c']
        == conditions.captions_of(batch, SHAPES, ['a', 'c'])
    )
    assert conditions.captions_of(batch, SHAPES) == ['circle, red 0.5', 'square, green 0.5']
    labels = {'object_labels': batch['object_labels']}
    assert conditions.captions_of(labels, SHAPES) == ['circle, triangle', '']
    assert conditions.captions_of({'label_set': np.eye(6)[[1]], **labels}, SHAPES) == ['square']
    assert conditions.captions_of({'attributes': np.ones((1, 22))}, SHAPES) == [
        'circle, square, triangle, diamond, cross, ring, red, green and 14 more'
    ]
    assert (
        conditions.captions_of({'image': batch['attributes']}, SHAPES)
        is None
        is conditions.captions_of(labels, Meta('nameless'))
    )
    assert conditions.captions_of({}, SHAPES, [['a'], []]) is None


# -------------------------------------------------------------------------------------------- boxes
def test_given_layouts_are_filled_up():
    given = parse.given_layouts(
        [[(0.5, 0.5, 0.2, 0.4)], np.full((3, 4), 0.25), []], [['dog'], [2, -1, 79], []], COCO
    )
    assert (
        given['given_boxes'].shape == (3, 10, 4)
        and given['given_labels'].dtype == np.int32
        and (given['given_labels'][2] == -1).all()
    )
    assert (
        given['given_labels'][0].tolist() == [16] + [-1] * 9
        and given['given_labels'][1].tolist() == [2, 79] + [-1] * 8
    )
    assert (
        given['given_boxes'][0, 0].tolist() == pytest.approx([0.5, 0.5, 0.2, 0.4])
        and not given['given_boxes'][0, 1:].any()
    )


@pytest.mark.parametrize(
    'boxes, labels, words',
    [
        (
            [[(0.9, 0.5, 0.4, 0.1)]],
            [['dog']],
            ['layout 1', 'dog', '0.9 0.5 0.4 0.1', 'leaves the frame'],
        ),
        ([[(0.5, 0.5, 0, 0.1)]], [['dog']], ['no extent']),
        ([[(0.5, 0.5, 0.1, float('nan'))]], [['dog']], ['leaves']),
        ([[(0.5, 0.5, 0.1, 0.1)] * 11], [['dog'] * 11], ['11 boxes', 'at most 10']),
        ([[(0.5, 0.5, 0.1, 0.1)]], [['dgo']], ['mean dog']),
        ([[(0.5, 0.5, 0.1, 0.1)]], [[80]], ['0 to 79']),
        ([[(0.5, 0.5, 0.1, 0.1)]], [['dog', 'cat']], ['shape (1, 4) and 2 labels']),
        ([[(0.5, 0.5, 0.1, 0.1)]], [], ['1 layouts and labels of 0']),
        ([[(0.5, 0.5, 0.1)]], [['dog']], ['shape (1, 3)']),
    ],
)
def test_boxes_that_cannot_be_given(boxes, labels, words):
    with pytest.raises(DataError) as error:
        parse.given_layouts(boxes, labels, COCO)
    for word in words:
        assert word in str(error.value)


def arrays(draws_from, meta=COCO, num=1, seed=0, **given):
    context = conditions.Context(meta, VOCABULARY, num, seed)
    return conditions.arrays(draws_from, given, context, 'Toy')


def test_given_boxes_belong_to_the_set():
    given = dict(given_boxes=[[(0.5, 0.5, 0.2, 0.2)] * 9], given_labels=[['dog'] * 9])
    found = arrays(('labels',), num=2, labels=['person'], layout=given)
    assert found['label_set'].shape == (1, 2, 80) and found['given_boxes'].shape == (1, 2, 10, 4)
    assert names_of(found['label_set'][0, 1], COCO) == ['person', 'dog']
    alone = arrays(('labels',), layout=given)['label_set']
    assert names_of(alone[0, 0], COCO) == ['dog']
    read = arrays(('labels',), sentence='two cats', layout={k: x for k, x in given.items()})
    assert names_of(read['label_set'][0, 0], COCO) == ['cat', 'dog']
    for labels, words in (
        (['person, cat'], 'more than 10 objects'),
        (['person', 'cat'], '2 label sets and given boxes of 1'),
    ):
        with pytest.raises(DataError, match=words):
            arrays(('labels',), labels=labels, layout=given)
    with pytest.raises(DataError, match='with their labels'):
        arrays(('labels',), layout={'given_boxes': given['given_boxes']})


# ------------------------------------------------------------------------------ kinds of conditions
VOCABULARY = Vocabulary(['a', 'red', 'dog', 'cat', 'two'])


@pytest.mark.parametrize('kind', ['layout', 'dialog'])
def test_batch_keys_are_repeated_for_each_sample(kind):
    keys = {name: np.arange(6).reshape(3, 2) for name in conditions.CONDITIONS[kind].keys[:2]}
    found = arrays((kind,), num=2, **{kind: keys})
    assert set(found) == set(keys)
    for name, x in keys.items():
        assert found[name].shape == (3, 2, 2) and (found[name] == x[:, None]).all()
    with pytest.raises(DataError, match=f'Toy draws from {kind}: give --{kind}="..." on'):
        arrays((kind,))
    with pytest.raises(DataError, match='is not a list of rounds|expected a list of objects'):
        arrays((kind,), **{kind: [1, 2]})


def test_sentences_and_another_condition_together():
    found = arrays(('sentence', 'image'), num=2, sentence=['a red dog'], image={'image': [[1.0]]})
    assert found['tokens'].shape == (1, 2, 4) and found['image'].shape == (1, 2, 1)
    with pytest.raises(DataError, match='Toy draws from image'):
        arrays(('sentence', 'image'), sentence=['a red dog'])
    with pytest.raises(DataError, match='Toy draws from sentences: give some, --text'):
        arrays(('sentence', 'image'), image={'image': [[1.0]]})
    with pytest.raises(DataError, match='Give as many of each: 1 of tokens.*2 of image'):
        arrays(('sentence', 'image'), sentence='a red dog', image={'image': [[1.0]] * 2})
    # a vector that stands for the sentence
    assert set(arrays(('sentence',), image={'encoded': np.ones((1, 3))})) == {'encoded'}
    # a system that reads sentences does not read attributes in them
    with pytest.raises(DataError, match='Toy draws from attributes: give --attributes="circle, sq'):
        arrays(('sentence', 'attributes'), SHAPES._replace(length=4), sentence='a red circle')


def test_pictures_are_files_or_arrays(tmp_path):
    white, meta = np.full((6, 8, 3), 255, np.uint8), COCO._replace(size=4)
    cv2.imwrite(str(tmp_path / 'white.png'), white)
    for given in ([white, white], [tmp_path / 'white.png', str(tmp_path / 'white.png')]):
        found = arrays(('image',), meta, num=3, image=given)['image']
        assert found.shape == (2, 3, 4, 4, 3) and (found == 1).all()
    assert arrays(('image',), meta, image={'image': [[1.0]]})['image'].shape == (1, 1, 1)
    for wrong in ([1], [white / 255.0], [white[0]]):
        with pytest.raises(DataError, match='A picture is a file, or an array h w 3 of uint8'):
            arrays(('image',), meta, image=wrong)
    with pytest.raises(DataError, match='none.png'):
        arrays(('image',), meta, image='none.png')
    with pytest.raises(DataError, match='Toy does not read image: leave that out'):
        arrays(('sentence',), meta, sentence='a dog', image=[white])
    with pytest.raises(DataError, match='Toy draws from image: give --image="..." on the command'):
        arrays(('image',), meta)


def test_several_sentences_for_a_picture():
    meta = COCO._replace(captions=2, length=4)
    found = arrays(('sentences',), meta, num=3, sentence=['A dog. Two red cats', ['a cat', 'red']])
    assert found['tokens'].shape == (2, 3, 2, 4) and found['length'].shape == (2, 3, 2)
    assert found['tokens'][0, 2].tolist() == [[1, 3, 0, 0], [5, 2, 0, 0]]
    with pytest.raises(DataError, match='Give 2 sentences for each picture; number 1 has 1'):
        arrays(('sentences',), meta, sentence='a dog')
    with pytest.raises(DataError, match='Toy draws from sentences: give some'):
        arrays(('sentences',), meta)


def test_what_is_not_read_or_given_twice():
    with pytest.raises(DataError, match='Toy does not read labels'):
        arrays(('sentence',), sentence='a dog', labels=['dog'])
    with pytest.raises(DataError, match='Toy draws without sentences'):
        arrays(('image',), sentence='a dog', image={'image': [1]})
    with pytest.raises(DataError, match='Give sentences or labels, not both'):
        arrays(('labels',), sentence='a dog', labels=['dog'])
    assert arrays((), None) == {}


@pytest.mark.parametrize(
    'name, values',
    [
        ('labels', [3]),
        ('labels', 3),
        ('labels', [['circle', None]]),
        ('attributes', 3),
        ('attributes', [['circle', 3]]),
        ('attributes', [{'circle': 1}]),
        ('sentences', 3),
        ('layout', {'given_boxes': [3], 'given_labels': [3]}),
    ],
)
def test_values_of_another_type_are_one_message(name, values):
    context = conditions.Context(SHAPES, Vocabulary(['a']), 2, 0)
    with pytest.raises(DataError, match=f'{name} is .*, which cannot be read: .*Sampler.__call__'):
        conditions.arrays((name,), {name: values}, context)


def test_two_values_of_one_kind_are_refused():
    with pytest.raises(DataError, match='red and blue cannot both be true of one object'):
        parse.attribute_vectors('red, blue, circle', SHAPES)
    shares = parse.attribute_vectors('red=.5, blue=.5, circle', SHAPES)
    assert shares[0, [0, 6, 8]].tolist() == [1, 0.5, 0.5]
