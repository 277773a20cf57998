"""Plans: which records, captions and wrong pairs each step has, as a function of (seed, step);
wrong pairs are wrong.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import bit_equal

from t2i_jax.data.plan import Plan, fitting
from t2i_jax.data.tables import Split
from t2i_jax.data.text import encode_chars
from t2i_jax.runtime.errors import DataError, RunError
from tfds_builders.facts import entails


@pytest.fixture(scope='module')
def split(on_shapes):
    config = on_shapes('gan_cls_shapes').data.unlock()
    return Split(
        config, 'train[:256]', ('image', 'wrong_image', 'tokens', 'wrong_tokens', 'facts', 'label')
    )


def stand_in(labels=None, captions=None, n=60):
    """A split as Plan sees it, without facts. captions: how many each record has."""
    n = n if labels is None else len(labels)
    texts = [['a'] * k for k in (np.full(n, 2) if captions is None else captions)]

    class Records(SimpleNamespace):
        def __len__(self):
            return n

    tables = {} if labels is None else {'label': np.array(labels)}
    return Records(tables=tables, texts=texts, meta=SimpleNamespace(name='cats'), split='train')


def test_a_plan_is_a_function_of_seed_and_step(split):
    one, same, other = (
        Plan(split, 16, seed, ('image', 'wrong_image'), captions=2) for seed in (3, 3, 4)
    )
    ahead = [one(step) for step in (7, 0, 100, 7)]
    assert bit_equal([same(step) for step in (7, 0, 100, 7)], ahead) and not bit_equal(
        ahead[0], ahead[2]
    )
    assert all(
        not np.array_equal(one(step)[name], other(step)[name])
        for step in (0, 7)
        for name in ('index', 'wrong')
    )
    assert {name: (value.shape, value.dtype) for name, value in one(0).items()} == {
        'index': ((16,), np.int32),
        'caption': ((16, 2), np.int32),
        'wrong': ((16,), np.int32),
        'wrong_caption': ((16, 2), np.int32),
    }
    assert set(Plan(split, 16, 0, ('image',))(0)) == {'index', 'caption'}


def test_uniform_visits_every_record_once_an_epoch():
    plan = Plan(stand_in(n=60), 8, 0, ('image',))
    assert plan.steps_per_epoch == 7
    epochs = [
        np.concatenate([plan(epoch * 7 + step)['index'] for step in range(7)])
        for epoch in range(12)
    ]
    assert all(len(set(epoch)) == 56 for epoch in epochs) and not np.array_equal(*epochs[:2])
    assert set(np.concatenate(epochs)) == set(range(60))  # what one epoch drops another one shows
    whole = Plan(stand_in(n=60), 12, 0, ('image',))
    assert sorted(np.concatenate([whole(step)['index'] for step in range(5, 10)])) == list(
        range(60)
    )


def test_class_balanced_does_not_care_how_large_a_class_is():
    labels = [5] * 50 + [2] * 5 + [9] * 5
    drawn = np.concatenate(
        [
            Plan(stand_in(labels), 10, 0, ('image',), 'class_balanced')(step)['index']
            for step in range(120)
        ]
    )
    assert all(
        abs((np.array(labels)[drawn] == label).mean() - 1 / 3) < 0.06 for label in (2, 5, 9)
    ) and set(drawn) == set(range(60))


def test_distinct_classes_never_has_a_class_twice(split):
    plan = Plan(split, 20, 0, ('image',), 'distinct_classes')
    for step in range(20):
        assert len(set(split.tables['label'][plan(step)['index']])) == 20


def test_twins_are_one_record_with_two_captions():
    captions = np.array([1, 2, 3, 7] * 15)
    plan = Plan(stand_in(captions=captions), 20, 0, ('tokens',), 'twins')
    assert plan.steps_per_epoch == 6
    epoch = [plan(step) for step in range(6)]
    assert sorted(np.concatenate([one['index'][:10] for one in epoch])) == list(range(60))
    for one in epoch:
        first, second = np.split(one['index'], 2)
        np.testing.assert_array_equal(first, second)
        differ = np.not_equal(*np.split(one['caption'], 2))[:, 0]
        np.testing.assert_array_equal(differ, captions[first] > 1)


def test_mixed_has_its_share_of_captioned_records():
    captions = np.arange(60) % 3
    plan = Plan(stand_in(captions=captions), 8, 0, ('image',), 'mixed', captioned_share=0.25)
    for step in range(20):
        assert (captions[plan(step)['index']] > 0).tolist() == [True] * 2 + [False] * 6


def test_wrong_captions_are_of_records_that_have_some():
    captions, needs = np.arange(60) % 3, ('image', 'captioned', 'tokens', 'wrong_tokens')
    for labels in (None, np.arange(60) % 4):
        for sampler in ('mixed', 'uniform'):
            plan = Plan(stand_in(labels, captions), 8, 0, needs, sampler)
            for step in range(10):
                assert (captions[plan(step)['wrong']] > 0).all()


def test_mixed_without_any_caption():
    with pytest.raises(DataError, match='needs records with captions.*captioned_part'):
        Plan(stand_in(captions=np.zeros(60, int)), 8, 0, ('image',), 'mixed')
    with pytest.raises(DataError, match='has a caption, and this stage learns from them'):
        Plan(stand_in(captions=np.zeros(60, int)), 8, 0, ('tokens',))


def test_captions_of_a_row_are_different_ones_where_there_are_enough():
    captions = [1, 2, 3, 7] * 15
    plan = Plan(stand_in(captions=captions), 20, 0, ('tokens',), captions=3)
    seen = {1: set(), 2: set(), 3: set(), 7: set()}
    for step in range(30):
        found = plan(step)
        for index, chosen in zip(found['index'], found['caption']):
            assert chosen.max() < captions[index] and len(set(chosen)) == min(captions[index], 3)
            seen[captions[index]] |= set(chosen)
    assert all(chosen == set(range(n)) for n, chosen in seen.items())


def test_captions_without_a_known_word_are_left_out_and_counted(caplog):
    cats = stand_in(captions=[3, 2, 1] * 8, n=24)
    cats.tables['words'] = np.array(
        [[5, 0, 4], [0, 7, 0], [0, 0, 0]] * 8
    )  # the second of each first record, ... has no known word
    plan = Plan(cats, 6, 0, ('tokens', 'length', 'wrong_tokens'))
    assert (
        '24 captions of split train of cats have no word that the run knows' in caplog.text
        and '8 of 24 records have no other' in caplog.text
    )
    assert plan.steps_per_epoch == 16 // 6
    drawn = [plan(step) for step in range(40)]
    for index, caption in (('index', 'caption'), ('wrong', 'wrong_caption')):
        pairs = {
            (row % 3, chosen)
            for one in drawn
            for row, chosen in zip(one[index].tolist(), one[caption][:, 0].tolist())
        }
        assert pairs == {(0, 0), (0, 2), (1, 1)}
    assert all((one['index'] != one['wrong']).all() for one in drawn)
    assert {
        *np.concatenate([Plan(cats, 6, 0, ('image',))(step)['index'] % 3 for step in range(4)])
    } == {0, 1, 2}  # who reads no words draws all
    cats.tables['words'][:] = 0
    with pytest.raises(
        DataError, match='No record of split train of cats has a caption with a word'
    ):
        Plan(cats, 6, 0, ('tokens',))


def test_captions_in_another_script_are_left_out_and_counted(warnings):
    captions = [['一只 红色 的 鸟', 'a red bird'], ['花', '一朵 花'], ['a ring', '圆 环']] * 8
    cats = stand_in(captions=[2] * 24, n=24)
    cats.tables['chars'] = np.array([[encode_chars(text) for text in texts] for texts in captions])
    plan = Plan(cats, 6, 0, ('image', 'wrong_image', 'chars'))
    assert '32 captions of split train of cats have no character that the run knows' in warnings[0]
    assert '8 of 24 records have no other' in warnings[0] and plan.n == 16
    for step in range(20):
        rows = plan(step)
        assert {*zip(rows['index'] % 3, rows['caption'][:, 0])} <= {(0, 1), (2, 0)}
        assert not (rows['wrong'] % 3 == 1).any()
    # who reads no characters draws all
    assert Plan(cats, 6, 0, ('image',)).n == 24
    cats.tables['chars'][:] = encode_chars('一只 红色 的 鸟')
    with pytest.raises(DataError, match='cats has a caption with a character that the run knows'):
        Plan(cats, 6, 0, ('chars',))


# -------------------------------------------------------------------------------------- wrong pairs
def test_wrong_pairs_are_false_whatever_their_class(split):
    facts, scene = split.tables['facts'], split.tables['scene']
    plan = Plan(split, 32, 0, ('wrong_image', 'wrong_tokens'))
    same_class = 0
    for step in range(30):
        found = plan(step)
        index, wrong = found['index'], found['wrong']
        assert entails(facts[index, found['caption'][:, 0]], scene[index]).all()
        assert not entails(facts[index, found['caption'][:, 0]], scene[wrong]).any()
        assert not entails(facts[wrong, found['wrong_caption'][:, 0]], scene[index]).any()
        same_class += (split.tables['label'][index] == split.tables['label'][wrong]).sum()
    assert same_class > 5


def test_near_wrong_pictures_are_wrong_by_little(split):
    facts, scene = split.tables['facts'], split.tables['scene']

    def alike(share):
        plan, found = Plan(split, 32, 0, ('wrong_image',), near_wrong=share), []
        for step in range(20):
            rows = plan(step)
            assert not entails(
                facts[rows['index'], rows['caption'][:, 0]], scene[rows['wrong']]
            ).any()
            found.append((scene[rows['index'], 0, :3] == scene[rows['wrong'], 0, :3]).sum(1))
        return np.mean(found)

    assert alike(0) < 0.7 < 1 < alike(0.5) < 1.4 < alike(1)  # of class, colour, size
    with pytest.raises(DataError, match='near_wrong=0.5 compares scenes, which cats'):
        Plan(stand_in(), 8, 0, ('wrong_image',), near_wrong=0.5)


def test_of_several_captions_one_is_false_of_the_wrong_picture(split):
    plan = Plan(split, 32, 0, ('wrong_image',), captions=3)
    for step in range(10):
        found = plan(step)
        holds = entails(
            split.tables['facts'][found['index'][:, None], found['caption']],
            split.tables['scene'][found['wrong']][:, None],
        )
        assert not holds.all(1).any()


def test_without_facts_a_wrong_record_is_of_another_class_or_at_least_another_one():
    labels = np.arange(60) % 4
    plan, unlabelled = (
        Plan(stand_in(labels), 20, 0, ('wrong_image',)),
        Plan(stand_in(n=20), 20, 0, ('wrong_image',)),
    )
    for step in range(20):
        found = plan(step)
        assert (labels[found['index']] != labels[found['wrong']]).all()
        found = unlabelled(step)
        assert (found['index'] != found['wrong']).all()
    with pytest.raises(DataError, match='certainly does not match.* or without any'):
        Plan(stand_in([1] * 20), 8, 0, ('wrong_image',))(0)


def test_a_rare_class_finds_its_wrong_records_and_none_is_preferred():
    labels = np.r_[np.zeros(990, int), np.arange(1, 11)]
    plan = Plan(stand_in(labels), 64, 0, ('wrong_image',))
    drawn = []
    for step in range(200):
        found = plan(step)
        assert (labels[found['index']] != labels[found['wrong']]).all()
        drawn.append(found['wrong'][labels[found['index']] == 0])
    shares = np.bincount(labels[np.concatenate(drawn)], minlength=11)[1:] / len(
        np.concatenate(drawn)
    )
    assert abs(shares - 0.1).max() < 0.02


# ----------------------------------------------------------------------------- small data, refusals
@pytest.mark.parametrize(
    'asked, sampler, records, classes, devices, rows',
    [
        (64, 'uniform', 48, 48, 1, 48),
        (64, 'uniform', 64, 64, 1, 64),
        # the same on one, two, four and eight devices
        (64, 'uniform', 47, 47, 1, 40),
        (64, 'mixed', 47, 47, 8, 40),
        (64, 'uniform', 47, 47, 3, 24),
        # pairs are possible
        (64, 'uniform', 7, 7, 1, 6),
        (64, 'uniform', 7, 7, 4, 4),
        (1, 'uniform', 1, 1, 1, 1),
        (30, 'distinct_classes', 500, 20, 1, 16),
        (64, 'class_balanced', 10, 2, 1, 64),
        (64, 'twins', 32, 32, 1, 64),
        (64, 'twins', 10, 10, 1, 16),
        # why there are none is what Plan says
        (64, 'uniform', 0, 0, 1, 64),
    ],
)
def test_a_batch_shrinks_to_what_can_be_drawn(asked, sampler, records, classes, devices, rows):
    assert fitting('cats', asked, sampler, records, classes, devices) == rows


@pytest.mark.parametrize(
    'sampler, records, classes, devices, message',
    [
        ('uniform', 1, 1, 1, 'cats has 1 records that can be drawn, too few for a batch of 2'),
        ('uniform', 7, 7, 8, 'cats has 7 records that can be drawn, too few for a batch of 8'),
        ('distinct_classes', 50, 1, 1, 'cats has 1 classes, too few for a batch of 2'),
    ],
)
def test_a_batch_of_nothing_is_refused(sampler, records, classes, devices, message):
    with pytest.raises(DataError, match=message):
        fitting('cats', 64, sampler, records, classes, devices)


@pytest.mark.parametrize(
    'batch_size, sampler, records, parts',
    [
        (61, 'uniform', stand_in(), ['cats', 'train', '60 records', 'batch of 61']),
        (8, 'class_balanced', stand_in(), ['needs classes', 'cats', 'sampler=uniform']),
        (
            5,
            'distinct_classes',
            stand_in(np.arange(60) % 4),
            ['batch of 5 distinct classes', 'has 4'],
        ),
        (7, 'twins', stand_in(), ['twice in a batch', '7 is odd']),
        (122, 'twins', stand_in(), ['60 records', 'batch of 122']),
        (8, 'random', stand_in(), ["sampler is 'random'", 'mixed']),
    ],
)
def test_plans_that_cannot_be(batch_size, sampler, records, parts):
    with pytest.raises((DataError, RunError)) as error:
        Plan(records, batch_size, 0, ('image',), sampler)
    for part in parts:
        assert part in str(error.value)
