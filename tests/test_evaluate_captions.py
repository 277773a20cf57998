"""Captions that a stage reads off pictures: against those of people, and against the truth."""

import types

import numpy as np
import pytest
from test_evaluate_matching import rows_of

from t2i_jax.evaluate import captions as ec
from t2i_jax.evaluate.judges import captioners_of
from t2i_jax.evaluate.measures import OPTIONS, Unmeasurable
from t2i_jax.metrics.bleu import corpus_bleu
from t2i_jax.metrics.cider import cider_d
from t2i_jax.metrics.rouge import rouge_l
from t2i_jax.runtime.errors import RunError
from t2i_jax.scenes.captions import same, truth
from tfds_builders.shape_scenes import scenes
from tfds_builders.shape_scenes.captions import captions

TEXTS = [['A red dog.', 'a dog'], ['two cats', 'cats on a mat'], ['a blue bird', 'one bird']]
WRITTEN = ['a red dog', 'a cat', 'a bird']


def kind_of(draws_from=('image',), **options):
    module = types.SimpleNamespace(noise=lambda key, n: {})
    sampler = types.SimpleNamespace(name='stream', draws_from=draws_from, module=module)
    stage = types.SimpleNamespace(data={'validation_split': 'validation'})
    train = types.SimpleNamespace(tables={})
    return ec.Captions(stage, sampler, train, OPTIONS | dict(num=9) | options)


def split_of(texts, **tables):
    split = rows_of([''] * len(texts), **tables).split
    split.texts = texts
    split.meta = types.SimpleNamespace(scenes='single' if tables else '')
    return split


def measured(monkeypatch, split, written):
    monkeypatch.setattr(ec, 'captions_of', lambda *_: written)
    monkeypatch.setattr(ec, 'Real', lambda rows: iter([np.zeros((len(rows.rows), 4, 4, 3))]))
    values, (name, pictures, real, texts) = kind_of()('test', split)
    assert (name, real, texts) == ('test', None, written) and len(pictures) == len(written)
    found = {}
    for one in values:
        by = one['protocol']
        found[one['metric'], by['decoder'], by['pictures']] = one['value']
    return found


def test_captions_are_compared_with_those_of_people(monkeypatch):
    found = measured(monkeypatch, split_of(TEXTS), WRITTEN)
    own = [['a red dog', 'a dog'], ['two cats', 'cats on a mat'], ['a blue bird', 'one bird']]
    for kind, said in (('real', WRITTEN), ('shuffled', WRITTEN[1:] + WRITTEN[:1])):
        for i, bleu in enumerate(corpus_bleu(said, own), start=1):
            assert found[f'bleu_{i}', 'stream', kind] == pytest.approx(bleu)
        assert found['rouge_l', 'stream', kind] == pytest.approx(rouge_l(said, own).mean())
        assert found['cider_d', 'stream', kind] == pytest.approx(cider_d(said, own).mean())
    assert found['bleu_1', 'stream', 'real'] > found['bleu_1', 'stream', 'shuffled']
    first, others = [one[0] for one in own], [one[1:] for one in own]
    assert found['bleu_1', 'people', 'real'] == pytest.approx(corpus_bleu(first, others)[0])
    assert not any(name.startswith('caption') for name, *_ in found)


def test_people_need_two_captions_and_a_split_two_pictures(monkeypatch):
    found = measured(monkeypatch, split_of([TEXTS[0], ['cats'], []]), WRITTEN[:2])
    assert not any(who == 'people' for _, who, _ in found)
    with pytest.raises(Unmeasurable, match='Split test has 1 pictures with captions'):
        measured(monkeypatch, split_of([TEXTS[0], []]), WRITTEN[:1])


def test_on_shape_scenes_it_is_said_what_is_true(monkeypatch):
    tables = np.stack([scenes.sample('single', 'test', i) for i in range(2)])
    texts = [
        [text for text, *_ in captions(one, 'single', 'test', scenes.Draws(0, 'single', 'test', i))]
        for i, one in enumerate(tables)
    ]
    found = measured(monkeypatch, split_of(texts, scene=tables), [texts[0][0], 'nothing'])
    assert found['caption_true', 'stream', 'real'] == 0.5


def test_what_captions_say_and_what_they_leave_open():
    table = scenes.sample('single', 'test', 0)
    row = scenes.attributes(table, 'single')
    shape, colour = row[:6].argmax(), row[6:13].argmax()
    right = f'a {scenes.COLOURS[colour]} {scenes.CLASSES[shape]}'
    wrong = f'a {scenes.COLOURS[(colour + 1) % 7]} {scenes.CLASSES[shape]}'
    both = f'{right} and {wrong}'
    found = truth(
        'single', [right, wrong, both, 'in in', f'a {scenes.COLOURS[colour]} shape'], [table] * 5
    )
    np.testing.assert_array_equal(found['caption_true'], [1, 0, 0, 0, 1])
    np.testing.assert_array_equal(found['caption_colour'], [1, 0, 0, 0, 1])
    np.testing.assert_array_equal(found['caption_class'], [1, 1, 0, 0, np.nan])
    assert np.isnan(found['caption_size'][0]) and truth('', [right], [table]) == {}


def test_captions_of_several_objects_may_leave_some_out():
    for i in range(5):
        table = scenes.sample('multi', 'test', i)
        texts = captions(table, 'multi', 'test', scenes.Draws(0, 'multi', 'test', i))
        found = truth('multi', [text for text, *_ in texts], [table] * len(texts))
        said = {name: x for name, x in found.items()}
        assert set(said) == {'caption_true'} and said['caption_true'].max() == 1


def test_whether_a_captioner_says_of_a_picture_what_it_was_drawn_for():
    asked = ['a small red ring', 'a blue cross', 'something', 'a green circle']
    found = same('single', ['a red ring', 'a red cross', 'a ring', 'in in'], asked)
    np.testing.assert_array_equal(found['redescribed_class'], [1, 1, np.nan, 0])
    np.testing.assert_array_equal(found['redescribed_colour'], [1, 0, np.nan, 0])
    assert np.isnan(found['redescribed_size'][:3]).all()
    np.testing.assert_array_equal(found['redescribed_all'], [1, 0, np.nan, 0])
    assert same('multi', asked, asked) == {}
    rows = rows_of(asked)
    rows.split.meta = types.SimpleNamespace(scenes='single')
    values = {one['metric']: one['value'] for one in ec.redescribed(np.array(asked), rows, 0)}
    assert values['bleu_1'] == values['redescribed_all'] == 1


def test_a_captioner_of_another_run_reads_pictures(run_of):
    (name, captioner), *others = captioners_of(str(run_of('mirrorgan'))).items()
    assert name.startswith('run_') and name.endswith('_captions') and not others
    texts = captioner.decode(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8))
    assert texts.shape == (3,) and texts.dtype.kind == 'U'
    assert captioner.tag['stage'] == 'stream' and captioners_of('') == {}


def test_what_has_no_part_in_it():
    with pytest.raises(RunError, match='makes sentences, but not of pictures'):
        kind_of(draws_from=())
    with pytest.raises(RunError, match='eval.scorer=runs/x has no part in the evaluation'):
        kind_of(scorer='runs/x')
