"""Pictures and captions that find each other.

Wrong captions of each convention, R-precision, retrieval by a DAMSM alone.
"""

import json
import shutil
import types

import jax
import numpy as np
import pytest

from t2i_jax.data.feed import first_rows
from t2i_jax.data.tables import Split
from t2i_jax.data.text import Vocabulary
from t2i_jax.draw.outputs import DRAWN
from t2i_jax.evaluate import EVALUATIONS, evaluate, file_name, kind_of
from t2i_jax.evaluate import matching as em
from t2i_jax.evaluate.compare import compare
from t2i_jax.evaluate.judges import Judge, judges_of, scorers_in
from t2i_jax.metrics.arrays import unit
from t2i_jax.metrics.r_precision import r_precision_of
from t2i_jax.metrics.retrieval import retrieval, share
from t2i_jax.run import Run
from t2i_jax.runtime.errors import RunError
from t2i_jax.sample import Sampler
from t2i_jax.train import train

CLASSES = np.array([0, 0, 1, 1, 2, 2])


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='module')
def judge_run(on_shapes, tmp_path_factory):
    """(config, workdir) of a DAMSM of two steps."""
    config, workdir = on_shapes('damsm_shapes'), tmp_path_factory.mktemp('damsm') / 'judge'
    config.stages.damsm.model.update(d=8, embedding=6, channels=(4, 6))
    config.stages.damsm.update(steps=2, log_every=1, validate_every=0, checkpoint_every=2)
    train(Run(config.lock(), workdir), jax.devices()[:1])
    return config, workdir


def evaluated_run(workdir, stage=None, **given):
    return evaluate(Run.open(workdir).last(DRAWN, stage), **given)


def rows_of(texts, **tables):
    split = type(
        'Rows',
        (),
        dict(texts=[[text] for text in texts], tables=tables, __len__=lambda self: len(texts)),
    )()
    return first_rows(split, len(texts))


class OneHot:
    """Reads one-hot captions: each word is a dimension."""

    def __init__(self, words='abcdefgh'):
        self.words, self.tag = words, dict(name='judge')

    def read(self, texts):
        tokens = np.array([[self.words.find(text[0]) + 1] for text in texts])
        codes = np.eye(len(self.words) + 1)[tokens[:, 0]]
        return codes, tokens, (tokens[:, 0] > 0).astype(int)


def r_precision(rows, judge, pictures, remark=print):
    judges = {'judge': judge}
    return em.r_precision(rows, judges, em.readings(rows, judges), pictures, 0, remark)


def by_name(values):
    return {(v['metric'], v['protocol']['pictures']): v for v in values}


# -------------------------------------------------------------------------------------- conventions
def test_which_captions_are_wrong(data_dir, on_shapes):
    config = on_shapes('damsm_shapes')
    split = Split(config.data, 'test', ('image', 'tokens', 'facts', 'scene'))
    rows, all_ = first_rows(split, 20), np.arange(20)
    assert em.conventions(split) == ['entailment', 'class', 'picture']
    by = {kind: em.right(kind, rows, all_, all_) for kind in em.conventions(split)}
    assert all(matrix[all_, all_].all() for matrix in by.values())
    assert (by['picture'] == np.eye(20, dtype=bool)).all()
    label = split.tables['label']
    assert (by['class'] == (label[:, None] == label)).all()
    i, j = next(
        (i, j) for i, j in np.argwhere(by['entailment']) if i != j and label[i] != label[j]
    )  # true of it, and of another class
    assert not by['entailment'].all() and by['entailment'][i, j] and not by['class'][i, j]
    assert (em.right('entailment', rows, all_[3:5], all_[7:]) == by['entailment'][3:5, 7:]).all()


def test_r_precision_is_the_mean_over_draws():
    """Against the metric that draws."""
    draws, n = np.random.default_rng(0), 150
    image, text = draws.normal(size=(2, n, 12))
    text = unit(text + image)
    groups = draws.integers(0, 20, n)
    rows = rows_of(['a'] * n, label=groups)
    ranks, wrong, pool = em.ranked({'drawn': unit(image)}, text, np.arange(n), rows, 'class')
    assert pool == n and (wrong == (groups[:, None] != groups).sum(1)).all()
    drawn = [
        r_precision_of(unit(image) @ text.T, groups, negatives=30, seed=seed)['value']
        for seed in range(25)
    ]
    assert share(ranks['drawn'], wrong, 1, 31).mean() == pytest.approx(np.mean(drawn), abs=0.01)
    assert 0.1 < np.mean(drawn) < 0.9


def test_own_captions_are_found_and_others_are_not(capsys):
    rows = rows_of(list('abcdef'), label=CLASSES)
    own = OneHot().read(rows.texts)[0]
    pictures = {'drawn': {'judge': np.roll(own, 1, 0)}, 'real': {'judge': own}}
    found = by_name(r_precision(rows, OneHot(), pictures))
    assert set(found) == {
        (f'r_precision_{kind}', which) for kind in ('class', 'picture') for which in pictures
    }
    assert (
        found['r_precision_picture', 'real']['value'] == 1
        and found['r_precision_picture', 'drawn']['value'] == 0
    )
    # every second picture is that of another caption of its class, which is not compared with
    # it: there all scores are equal, which counts against it
    assert found['r_precision_class', 'drawn']['value'] == 0
    protocol = found['r_precision_class', 'drawn']['protocol']
    assert (
        protocol['negatives'] == 4
        and protocol['chance'] == 0.2
        and protocol['wrong'] == 'class'
        and protocol['decoder'] == 'judge'
    )
    assert (
        'r_precision_class: a picture has 4 wrong captions, 99 are usual' in capsys.readouterr().out
    )


def test_captions_of_the_same_words_and_without_words(capsys):
    rows = rows_of(['a', 'a', 'b', 'c', '?', 'd'])
    own = OneHot().read(rows.texts)[0]
    (value,) = r_precision(rows, OneHot(), {'real': {'judge': own}}, lambda message: None)
    assert value['value'] == 1  # "a" is no wrong one for the other "a"
    assert (
        value['protocol']['without_words'] == 1
        and value['protocol']['n'] == 5
        and value['protocol']['negatives'] == 3
    )
    alone = rows_of(['a', 'a', 'a'])
    assert (
        r_precision(
            alone, OneHot(), {'real': {'judge': np.eye(9)[[1, 1, 1]]}}, lambda message: None
        )
        == []
    )
    for texts in ('???', 'a??', 'a'):
        assert em.readings(rows_of(list(texts)), {'judge': OneHot()}) == {}
        said = capsys.readouterr().out
        assert f'by judge is left out: it can read {texts.count("a")} of {len(texts)} ' in said


# ------------------------------------------------------------------------------------------ scorers
def test_a_scorer_reads_with_its_own_vocabulary_and_size(judge_run):
    sampler = Sampler.load(judge_run[1], chunk=4)
    assert sampler.name == 'damsm'  # the run draws nothing, so the last stage is loaded
    judge = Judge('own', sampler)
    texts = ['a red circle', 'a blue square with zebras', 'zebras', 'red', 'the ring is green']
    codes, tokens, length = judge.read(texts)
    assert codes.shape == (5, 8) and length.tolist()[:4] == [3, 4, 0, 1]
    batch = {
        'image': np.zeros((1, 16, 16, 3), np.float32),
        'tokens': tokens[:1],
        'length': length[:1],
    }
    np.testing.assert_allclose(sampler.apply('codes', batch).sentence[0], codes[0], atol=1e-5)
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    seen = judge.decode(images)
    np.testing.assert_allclose(
        sampler.apply('codes', {**batch, 'image': np.float32(images[4:]) / 127.5 - 1}).code[0],
        seen[4],
        atol=1e-5,
    )
    larger = judge.decode(
        images.repeat(2, 1).repeat(2, 2)
    )  # is made as small as the pictures that it was trained on
    assert larger.shape == seen.shape and np.corrcoef(larger.ravel(), seen.ravel())[0, 1] > 0.9
    assert judge.tag['weights'] and judge.tag['size'] == 16 and judge.tag['step'] == 2


def generator(own, run, **changes):
    """Stands for the sampler of a stage that has loaded both encoders of a DAMSM."""
    taught_by = changes.pop('taught_by', ('damsm',))
    loaded = {'words': ('damsm', 'text'), 'pictures': ('damsm', 'image')}
    module = types.SimpleNamespace(judges=('damsm',), taught_by=taught_by, loaded=lambda: loaded)
    params = {'words': own.params['text'], 'pictures': own.params['image'], 'G': {}}
    stats = {name: own.stats[of] for name, (_, of) in loaded.items() if of in own.stats}
    weights = changes.pop('params', params), changes.pop('stats', stats)
    known = dict(reads_text=True, rows=None, weights=weights, module=module, step=9)
    return types.SimpleNamespace(run=run), types.SimpleNamespace(**known | changes)


def test_whether_a_judge_taught_the_generator(judge_run, capsys, tmp_path):
    config, workdir = judge_run
    own, run = Sampler.load(workdir), Run.open(workdir)
    found = judges_of(*generator(own, run))
    assert set(found) == {'own'} and found['own'].tag['trained_generator'] is True
    found = judges_of(*generator(own, run, taught_by=()))
    assert found['own'].tag['trained_generator'] is False
    params = {'words': jax.tree.map(lambda x: x + 1, own.params['text'])}
    params |= {'pictures': own.params['image']}
    found = judges_of(*generator(own, run, params=params))
    assert set(found) == {'own'} and found['own'].tag['trained_generator'] is False
    # named is the own one
    for folder in (f'{workdir}/damsm', str(workdir)):
        assert set(judges_of(*generator(own, run), folder)) == {'run_judge'}
    assert judges_of(*generator(own, run, reads_text=False)) == {}
    with pytest.raises(RunError, match='draws without'):
        judges_of(*generator(own, run, reads_text=False), str(workdir))
    with pytest.raises(RunError, match='holds no run'):
        judges_of(*generator(own, run), str(workdir / 'gone'))
    capsys.readouterr()
    without = generator(own, Run(config, tmp_path), params={'words': own.params['text']}, stats={})
    assert judges_of(*without) == {} and 'is left out' in capsys.readouterr().out


def test_a_generator_holds_the_damsm_of_a_run_that_is_gone(judge_run, tmp_path):
    config, gone = judge_run[0].copy_and_resolve_references().unlock(), tmp_path / 'gone'
    shutil.copytree(judge_run[1], gone)
    config.init.damsm, own = str(gone), Sampler.load(gone)
    run = Run(config.lock(), tmp_path / 'new')
    run['damsm'].adopt()
    (tmp_path / 'new' / 'config.json').write_text(config.to_json())
    shutil.copy(gone / 'vocabulary.json', tmp_path / 'new')
    shutil.rmtree(gone)
    judge = judges_of(*generator(own, Run.open(tmp_path / 'new')))['own']
    assert judge.tag['trained_generator'] is True and judge.tag['step'] == 9
    texts = ['a red circle', 'a blue ring']
    expected = Judge('own', own).read(texts)[0]
    np.testing.assert_allclose(judge.read(texts)[0], expected, atol=1e-6)


def test_the_joint_embedding_of_gan_cls_judges_too(trained, judge_run, tmp_path):
    for folder in (trained, trained / 'text'):
        assert {made: one.name for made, one in scorers_in(folder).items()} == {'codes': 'text'}
    assert scorers_in(judge_run[1])['codes'].name == 'damsm'
    judge = Judge('text', Sampler.load(trained, stage='text'))
    codes, ids, length = judge.read(['a red ring', '', '???'])
    assert codes.shape == judge.decode(np.zeros((3, 8, 8, 3), np.uint8)).shape
    assert ids.shape == (3, 201) and length.tolist() == [10, 0, 3]
    with pytest.raises(RunError, match='has no stage gan that compares pictures with captions'):
        scorers_in(trained / 'gan')
    shutil.copytree(trained, tmp_path / 'run')
    out = evaluated_run(tmp_path / 'run', 'text', num=20, split='test')
    assert {v['protocol']['decoder'] for v in out['values']} == {'sentences', 'ridge'}
    assert sum(v['protocol']['decoder'] == 'sentences' for v in out['values']) == 8


def test_options_that_have_no_part_in_retrieval(judge_run):
    for wrong in (dict(scorer='runs/typo'), dict(captions=7), dict(num=10_001)):
        with pytest.raises(RunError, match=f'eval.{next(iter(wrong))}='):
            evaluated_run(judge_run[1], **wrong)


def test_the_evaluation_of_a_run_that_another_one_judges(trained, judge_run, tmp_path):
    shutil.copytree(trained, tmp_path / 'run')
    given = dict(num=24, diversity=2, extractor='none', split='test')
    out = evaluated_run(tmp_path / 'run', **given, scorer=str(judge_run[1]))
    values = [v for v in out['values'] if v['metric'].startswith('r_precision')]
    assert {v['protocol']['pictures'] for v in values} == {'drawn', 'real'} and len(
        {v['metric'] for v in values}
    ) == 3
    for v in values:
        p = v['protocol']
        assert (
            0 <= v['value'] <= 1
            and p['split'] == 'test'
            and p['decoder'] == 'run_judge'
            and p['reader']['trained_generator'] is False
        )
        assert (
            p['chance'] == 1 / (p['negatives'] + 1)
            and p['reader']['vocabulary']
            == Vocabulary.load(judge_run[1] / 'vocabulary.json').hash[:20]
        )
    (path,) = (tmp_path / 'run' / 'eval').glob('*.json')
    assert path.name.endswith('_scorer-judge_step6.json')
    with pytest.raises(RunError, match='holds no run'):
        evaluated_run(tmp_path / 'run', **given, scorer=f'{trained}/vocabulary.json')


# ---------------------------------------------------------------------------------------- retrieval
def test_retrieval_by_a_damsm_alone(judge_run, capsys):
    config, workdir = judge_run
    out = evaluated_run(workdir, num=150, split='test')
    (path,) = (workdir / 'eval').glob('*.json')
    assert (
        json.loads(path.read_text()) == out
        and path.with_suffix('.png').exists()
        and out['run']['stage'] == 'damsm'
    )
    found = {(v['metric'], v['protocol']['decoder']): v for v in out['values']}
    read = {name for name, by in found if by == 'ridge'}
    assert {'reads_class', 'reads_colour'} <= read
    found = {key: v for key, v in found.items() if key[1] != 'ridge'}
    names = [
        f'{way}_{what}_entailment'
        for way in ('to_text', 'to_image')
        for what in ('R@1', 'R@5', 'R@10', 'median_rank')
    ]
    assert set(found) == {(name, by) for name in names for by in ('words', 'sentences')}
    for by in ('words', 'sentences'):
        ladder = [found[f'to_text_R@{k}_entailment', by]['value'] for k in (1, 5, 10)]
        assert (
            ladder == sorted(ladder)
            and found['to_text_R@1_entailment', by]['protocol']['pairs'] == 20
        )
    assert 'to_image_R@1_entailment (words)' in capsys.readouterr().out
    assert 'to_image_R@1_entailment' in compare([path, path])


def test_tiles_and_chunks_do_not_matter(judge_run, monkeypatch):
    config, workdir = judge_run
    sampler = Sampler.load(workdir, chunk=16)
    split = sampler.stage.split('validation[:37]')
    rows = first_rows(split, 37)
    batch = rows.batch(0, 37)
    batch = {name: batch[name] for name in ('image', 'tokens', 'length')}
    whole = sampler.apply('scores', batch)
    monkeypatch.setattr(em, 'TILE', (16, 24))
    monkeypatch.setattr(em, 'CHUNK', 20)
    codes, length, said = em.codes_of(sampler, rows)
    assert (length == batch['length']).all() and (said[:, None] == said).tolist() == (
        batch['tokens'][:, None] == batch['tokens']
    ).all(2).tolist()
    found = em.scores_of(sampler, codes, length)
    for by in ('words', 'sentences'):
        np.testing.assert_allclose(found[by], whole[by], atol=1e-4)


def test_r_at_k_among_a_hundred():
    """The chance that the answer is among the best, by hand.

    2 of 199 wrong ones are before it, 99 are drawn.
    """
    none = 100 * 99 / (199 * 198)
    assert share(np.array([3]), np.array([199]), 1, 100)[0] == pytest.approx(none)
    found = dict(
        ranks=np.array([3, 1]), wrong=np.array([199, 199]), chance={1: 0.005, 5: 0.025, 10: 0.05}
    )
    any_of_class = dict(ranks=np.array([2, 1]), chance={1: 0.05, 5: 0.2, 10: 0.4})
    values = {
        v['metric']: v
        for v in em.of_way('to_text', 'class', any_of_class, found, 0, dict(decoder='words'))
    }
    assert (
        len(values) == 7
        and values['to_text_median_rank_class']['value'] == 1.5
        and values['to_text_R@1_class']['protocol']['chance'] == 0.05
    )
    assert values['to_text_R@1_class_of_100']['value'] == pytest.approx((none + 1) / 2)
    assert (
        values['to_text_R@1_class']['value'] == 0.5
        and values['to_text_R@5_class_of_100']['protocol']['chance'] == 0.05
    )
    assert (
        len(
            em.of_way(
                'to_text', 'class', any_of_class, found | {'wrong': np.array([199, 98])}, 0, {}
            )
        )
        == 4
    )


def test_scores_that_know_nothing_reach_chance_at_class_level():
    """The own caption beside 99 of other classes, not the best of its class."""
    n, draws = 1000, np.random.default_rng(0)
    label, scores = draws.integers(0, 20, n), draws.normal(size=(n, n))
    fits = label[:, None] == label
    best, own = (
        retrieval(scores, fits, any_right=any_right)['image_to_text'] for any_right in (True, False)
    )
    for v in em.of_way('to_text', 'class', best, own, 0, {}):
        if 'R@' in v['metric']:
            assert v['value'] == pytest.approx(v['protocol']['chance'], abs=0.03)


def test_how_a_stage_is_measured_is_what_it_makes(judge_run, trained):
    assert kind_of(Sampler.load(judge_run[1])) is EVALUATIONS['codes'] is em.Pairs
    assert kind_of(Sampler.load(trained)) is EVALUATIONS['image']
    with pytest.raises(RunError, match='Stage count makes nothing, which is not measured'):
        kind_of(types.SimpleNamespace(name='count', makes=()))


def test_an_encoder_is_evaluated_before_what_draws_is_trained():
    options, run = dict(weights='ema', seed=0), types.SimpleNamespace()
    kind = types.SimpleNamespace(size='9', networks='')

    def stage(name, made, checkpoints):
        found = types.SimpleNamespace(name=name, run=run, has_checkpoints=checkpoints)
        found.makes_any = lambda makes: made in makes
        return found

    def names(drawn):
        run.stages = [stage('image', 'codes', True), stage('gan', 'image', drawn)]
        return [file_name(one, 5, ['test'], kind, options) for one in run.stages]

    plain, other = 'test_9_ema_seed0_step5', 'test_9_ema_seed0_image_step5'
    assert names(True) == names(False) == [other, plain]
