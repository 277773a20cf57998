"""Dialogues of a user, wrong dialogues of a plan, captions that leave the rest to a dialogue."""

from types import SimpleNamespace

import numpy as np
import pytest

from t2i_jax.data import conditions
from t2i_jax.data.dialogs import ROUND_WORDS, ROUNDS, read_dialogs
from t2i_jax.data.plan import Plan
from t2i_jax.data.text import Vocabulary
from t2i_jax.runtime.errors import DataError
from t2i_jax.scenes.agreement import scene_match
from t2i_jax.stage import Meta
from tfds_builders.facts import COUNT, EXISTS, entails
from tfds_builders.shape_scenes.sample import make

VOCABULARY = Vocabulary(['what', 'colour', 'is', 'it', 'red', 'where', 'left', 'a', 'ring'])
TALK = [['what colour is it', 'red'], ['where is it', 'left']]


def words(found, number=0):
    return [' '.join(VOCABULARY.decode(ids)) for ids in found['dialog'][number] if ids.any()]


def test_lines_and_json_are_the_same_dialogue(tmp_path):
    lines, as_json = tmp_path / 'a.txt', tmp_path / 'b.json'
    lines.write_text('What colour is it? red\n\nwhere is it? left\n')
    as_json.write_text('[["what colour is it", "red"], ["where is it", "left"]]')
    found = read_dialogs([str(lines), str(as_json), TALK, []], VOCABULARY)
    assert found['dialog'].shape == (4, ROUNDS, ROUND_WORDS)
    assert words(found) == words(found, 1) == words(found, 2)
    assert words(found) == ['what colour is it red', 'where is it left'] and words(found, 3) == []
    assert found['dialog_length'][0, :3].tolist() == [5, 4, 0]
    # one alone
    assert words(read_dialogs(str(lines), VOCABULARY)) == words(read_dialogs(TALK, VOCABULARY))


def test_more_rounds_and_words_than_are_read(warnings):
    found = read_dialogs([TALK * 6], VOCABULARY)
    assert len(words(found)) == ROUNDS and '12 rounds; the first 10 are read' in warnings[0]
    read_dialogs([[['what is the size', 'red']]], VOCABULARY)
    assert 'does not know the, size' in warnings[1]


@pytest.mark.parametrize(
    'text, words',
    [
        ('what colour is it?\n', ['Round 1', "('what colour is it', '')", 'question? answer']),
        ('red\n', ['Round 1', 'is not a question with its answer']),
        ('[["where", "left"], ["where is it"]]', ['Round 2', '["question", "answer"]']),
        ('[["where", 3]]', ['Round 1']),
        ('{"dialog": []}', ['is not a list of rounds']),
        ('[["where"', ['is not JSON']),
        ('', ['is empty']),
        ('how old? six\n', ['knows no word', 'how, old, six']),
    ],
)
def test_dialogues_that_cannot_be_read(tmp_path, text, words):
    path = tmp_path / 'talk.txt'
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_dialogs([str(path)], VOCABULARY)
    for word in ('talk.txt', *words):
        assert word in str(error.value)


def test_a_dialogue_as_a_condition():
    context = conditions.Context(Meta('toys', length=4), VOCABULARY, 2, 0)

    def arrays(draws_from, takes, **given):
        return conditions.arrays(draws_from, given, context, 'Toy', takes)

    one = arrays(('sentence',), ('dialog',), sentence=['a ring', 'it is red'], dialog=[TALK])
    assert one['tokens'].shape[:2] == one['dialog'].shape[:2] == (2, 2)
    several = arrays(('sentence',), ('dialog',), sentence=['a ring'], dialog=[TALK, TALK[:1]])
    assert several['tokens'].shape[:2] == (2, 2)
    # it may be left out
    assert 'dialog' not in arrays(('sentence',), ('dialog',), sentence=['a ring'])
    with pytest.raises(DataError, match='Toy does not read dialog'):
        arrays(('sentence',), (), sentence=['a ring'], dialog=[TALK])


# ---------------------------------------------------------------------------------- wrong dialogues
def split_of(samples):
    class Records(SimpleNamespace):
        def __len__(self):
            return len(samples)

    tables = {name: np.stack([one[name] for one in samples]) for name in ('facts', 'scene')}
    texts = [one['captions'] for one in samples]
    return Records(tables=tables, texts=texts, meta=SimpleNamespace(name='toys'), split='train')


@pytest.fixture(scope='module')
def brief():
    return [make('multi', 'train', i, 16, brief=True) for i in range(60)]


def test_a_wrong_dialogue_is_of_another_scene_and_may_fit_the_caption(brief):
    needs, scene = ('tokens', 'dialog', 'wrong_dialog'), split_of(brief).tables['scene']
    alike = []
    for near in (0.0, 1.0):
        plan, found = Plan(split_of(brief), 16, 0, needs, near_wrong=near), []
        for step in range(6):
            rows = plan(step)
            own, wrong = scene[rows['index']][:, :-1, :3], scene[rows['wrong']][:, :-1, :3]
            assert (own != wrong).any((1, 2)).all()
            found += ((own == wrong) & (own >= 0)).sum((1, 2)).tolist()
        alike.append(np.mean(found))
    # near ones share more of their classes, colours and sizes
    assert alike[1] > 1.5 * alike[0]


def test_brief_captions_name_numbers_and_classes_alone(brief):
    for one in brief:
        assert len(set(one['captions'])) == 5
        for atoms in one['facts']:
            used = atoms[atoms[:, 0] >= 0]
            assert {*used[:, 0]} <= {COUNT, EXISTS} and (used[:, 2:4] == -1).all()
        assert entails(one['facts'], one['scene'][None]).all()
    # their scenes are those of other captions, and dialogues say colours
    assert (make('multi', 'train', 0, 16)['scene'] == brief[0]['scene']).all()
    said = ' '.join(answer for one in brief for answer in one['answers'])
    assert {'red', 'blue', 'small'} <= set(said.split())
    make('multi', 'test_unseen', 0, 16, brief=True)


def test_colours_of_classes_that_are_seen():
    truth = np.full((1, 6, 8), -1)
    truth[0, :3, :3] = [[0, 1, 0], [0, 2, 0], [3, 4, 0]]

    def match(*objects):
        seen = np.full((1, 6, 8), -1)
        seen[0, : len(objects), :2] = objects
        found = scene_match(seen, truth)
        return found['scene_class'][0], found['scene_colour_of_class'][0]

    assert match((0, 1), (0, 2), (3, 4)) == (1, 1)
    # one circle is missing, and the diamond has another colour
    assert match((0, 2), (3, 5)) == (2 / 3, 0.5)
    # one of two circles of one colour
    assert match((0, 1), (0, 1)) == (2 / 3, 0.5)
    assert match((5, 1))[0] == 0 and np.isnan(match((5, 1))[1])
