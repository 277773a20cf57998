"""Runs that draw boxes, to numbers.

What is reported, that a perfect drawer and a useless one are told apart, and likelihoods beside
their floors.
"""

import json
import types

import cv2
import jax
import numpy as np
import pytest

from experiments import common
from t2i_jax.data.tables import Split
from t2i_jax.data.text import Vocabulary
from t2i_jax.draw.outputs import DRAWN
from t2i_jax.evaluate import evaluate, report
from t2i_jax.evaluate import layouts as el
from t2i_jax.evaluate.compare import compare
from t2i_jax.evaluate.measures import OPTIONS, ROWS, Measure
from t2i_jax.run import Run
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.sample import compile_methods
from t2i_jax.stage import Stage, program, split
from t2i_jax.train import train
from tfds_builders import get_builder
from tfds_builders.shape_scenes import builder, rules

SMALL = dict(num=24, samples=3)


def evaluated_run(workdir, **given):
    return evaluate(Run.open(workdir).last(DRAWN), **given)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Small shape_scenes/rules and shape_scenes/multi_quick."""
    out = tmp_path_factory.mktemp('layouts')
    with pytest.MonkeyPatch.context() as patch:
        for part, count in (('train', 400), ('validation', 40), ('test', 70)):
            patch.setitem(builder.RULES, part, count)
            patch.setitem(builder.QUICK['multi'], part, count)
        patch.setitem(builder.QUICK['multi'], 'test_unseen', 10)
        for name in ('rules', 'multi_quick'):
            get_builder(f'shape_scenes/{name}', out).download_and_prepare()
    return out


@pytest.fixture(scope='module')
def config(folder):
    """A function: the name of a data set -> LayoutVAE with a few units, two steps long."""

    def make(name='shape_scenes/rules', every=0):
        c = common.base(
            'layout_vae', data=dict(common.rules(), name=name, dir=str(folder), cache='host')
        )
        c = common.variant(c, 'tiny')
        for stage in c.stages.values():
            stage.update(
                steps=2,
                steps_per_dispatch=1,
                batch_size=8,
                log_every=1,
                validate_every=0,
                sample_every=0,
                checkpoint_every=2,
                ema=0.0,
            )
            stage.model.update(width=8, importance=3)
        c.eval.update(every=every)
        return c.lock()

    return make


@pytest.fixture(scope='module')
def workdir(config, tmp_path_factory):
    out = tmp_path_factory.mktemp('run')
    train(Run(config(), out), jax.devices()[:1])
    return out


@pytest.fixture(scope='module')
def evaluated(workdir):
    return evaluated_run(workdir, **SMALL)


def numbers(out):
    return {
        (v['metric'], v['protocol'].get('pictures')): v
        for v in (out['values'] if isinstance(out, dict) else out)
    }


def test_the_report(workdir, evaluated):
    (path,) = (workdir / 'eval').glob('*.json')
    assert (
        path.name == 'test_24x3_ema_seed0_step2.json' and json.loads(path.read_text()) == evaluated
    )
    assert cv2.imread(str(path.with_suffix('.png'))).shape[1] > 500
    found = numbers(evaluated)
    for metric, kinds in (
        ('layout_iou', {'drawn', 'shuffled', 'remembered'}),
        ('layout_iou_best', {'drawn', 'shuffled', 'remembered'}),
        ('layout_overlap', {'drawn', 'real', 'shuffled', 'remembered'}),
        ('rule_all', {'drawn', 'real', 'shuffled', 'remembered'}),
        ('layout_count_tv', {'drawn', 'remembered'}),
        ('layout_centre_jsd', {'drawn', 'remembered'}),
        ('nll_per_box', {'drawn', 'floor', 'noise'}),
        ('nll_per_label', {'drawn', 'floor'}),
        ('count_exact', {'drawn'}),
        ('nll_per_box_above_floor', {'drawn'}),
        ('flipped_less_likely', {'drawn'}),
    ):
        assert {kind for name, kind in found if name == metric} == kinds, metric
    assert (
        found['layout_iou', 'drawn']['protocol']['n'] == 72
        and found['layout_iou_best', 'drawn']['protocol']['n'] == 24
    )
    assert 'interval' in found['layout_iou', 'drawn'] and set(
        found['layout_count_tv', 'drawn']['by_label']
    ) <= set(rules.LABELS)
    assert (
        found['rule_all', 'real']['value']
        == found['rule_all', 'remembered']['value']
        == 1
        > found['rule_all', 'drawn']['value']
    )
    assert found['layout_overlap_ratio', 'real']['value'] == pytest.approx(1)
    assert evaluated['protocol']['samples'] == 3 and 'captions' not in evaluated['protocol']
    gap = found['nll_per_box', 'drawn']['value'] - found['nll_per_box', 'floor']['value']
    assert found['nll_per_box_above_floor', 'drawn']['value'] == pytest.approx(gap) and gap > 0
    text = report.table(evaluated)
    (line,) = [
        line
        for line in compare([workdir, path], path.with_name('plot.png')).splitlines()
        if 'layout_iou_best' in line
    ]
    assert line.count('±') == 2  # of one protocol, side by side
    assert 'floor' in text and 'nll_per_label_above_floor' in text and 'remembered' in text


@pytest.mark.slow
def test_the_same_twice_and_on_one_device(workdir, evaluated, monkeypatch):
    """`evaluated` ran on all of the eight."""
    again = evaluated_run(workdir, **SMALL)
    assert {**again, 'date': ''} == {**evaluated, 'date': ''}
    whole = sharding.make_mesh
    monkeypatch.setattr(
        sharding, 'make_mesh', lambda fsdp=1, devices=None: whole(fsdp, jax.devices()[:1])
    )
    one = numbers(evaluated_run(workdir, **SMALL))
    for key, value in numbers(evaluated).items():
        assert one[key]['value'] == pytest.approx(value['value'], rel=1e-4, abs=1e-4), key


def test_wrong_options(workdir):
    for given, named in (
        (dict(samples=0), 'eval.samples is 0'),
        (dict(num=0), 'eval.num is 0'),
        (dict(split='tset'), "no split 'tset'"),
        (dict(weights='best'), "it is 'ema' or 'raw'"),
        (dict(step=5), 'no checkpoint of step 5'),
    ):
        with pytest.raises((RunError, DataError), match=named):
            evaluated_run(workdir, **SMALL | given)


@pytest.mark.slow
def test_training_evaluates_no_layouts(config, tmp_path):
    """`eval.every` is for stages that draw pictures: a config that sets it trains all the same."""
    train(Run(config(every=1), tmp_path), jax.devices()[:1])
    lines = [
        json.loads(line) for line in (tmp_path / 'box' / 'metrics.jsonl').read_text().splitlines()
    ]
    assert len(lines) == 2 and not [
        name for line in lines for name in line if name.startswith('evaluation')
    ]


# --------------------------------------------------------------------------- drawers that are known
def opened(config, name, part='test', needs=('boxes', 'object_labels')):
    return Split(config(name).data, part, needs, Vocabulary(('a',)))


class Drawer:
    """Stands for a sampler; `layouts`: the batch that it is given -> (boxes b R 4, labels b R)."""

    name, rows = 'box', None

    def __init__(self, layouts, meta, needs=('boxes', 'object_labels')):
        self.layouts, self.meta, self.given = layouts, meta, {}
        self.reads_text = 'tokens' in needs
        self.module = types.SimpleNamespace(needs=needs, noise=lambda key, n: {})

    def sample(self, batch, noise, shape):
        self.given = batch
        boxes, labels = self.layouts(batch)
        return {
            'boxes': boxes.reshape(*shape, *boxes.shape[1:]),
            'object_labels': labels.reshape(*shape, -1),
        }


def scored(
    config, layouts, name='shape_scenes/rules', num=40, n=2, needs=('boxes', 'object_labels')
):
    """({(metric, kind): value}, the drawer) of `of_split`.

    Layouts: (records' boxes, labels) -> drawn ones.
    """
    tables, reals = opened(config, name, needs=needs), opened(config, name, 'train', needs)
    rows = el.with_objects(tables, num, 1)
    true = el.Scenes.of(rows)
    drawer = Drawer(
        lambda batch: layouts(
            tables.tables['boxes'][batch['index']], tables.tables['object_labels'][batch['index']]
        ),
        tables.meta,
        needs,
    )
    samples = el.sample(drawer, true, n, 0)
    found = numbers(
        el.of_split(
            drawer,
            rows,
            true,
            samples,
            el.Scenes.of(el.with_objects(reals, len(reals), 1)),
            {**OPTIONS, 'seed': 0},
        )
    )
    return {key: one['value'] for key, one in found.items()}, drawer


def test_one_that_draws_the_truth(config):
    found, drawer = scored(config, lambda boxes, labels: (boxes, labels))
    for name in ('iou', 'iou_best', 'labels_exact', 'label_f1', 'recall_0.5', 'overlap_ratio'):
        assert found[f'layout_{name}', 'drawn'] == pytest.approx(1), name
    for name in (
        'count_tv',
        'wasserstein_cx',
        'wasserstein_h',
        'centre_jsd',
        'diversity',
        'coverage_gap',
        'count_error',
        'size_error',
    ):
        assert found[f'layout_{name}', 'drawn'] == pytest.approx(0, abs=1e-5), name
    assert (
        found['rule_all', 'drawn'] == 1 > found['rule_all', 'shuffled']
        and found['layout_iou', 'shuffled'] < 0.3
    )
    assert (
        found['layout_iou', 'remembered'] < found['layout_iou_best', 'remembered'] < 1
        and found['layout_count_tv', 'remembered'] < 0.2
    )
    assert set(drawer.given) == {'label_set', 'index'}  # of the truth it is given the set alone
    labels = opened(config, 'shape_scenes/rules').tables['object_labels'][drawer.given['index']]
    assert ((labels[..., None] == np.arange(4)).any(1) == drawer.given['label_set']).all()


def test_one_that_draws_nothing(config):
    found, _ = scored(config, lambda boxes, labels: (0 * boxes, np.full_like(labels, -1)))
    assert (
        found['layout_iou', 'drawn']
        == found['layout_label_recall', 'drawn']
        == found['rule_counts', 'drawn']
        == 0
    )
    assert (
        found['layout_count_tv', 'drawn'] == 1 and ('layout_wasserstein_cx', 'drawn') not in found
    )


def test_best_of_several_and_diversity(config):
    """Every second layout is the true one, the others are moved out of the boxes' way."""

    def layouts(boxes, labels):
        boxes[1::2, :, 0] = (boxes[1::2, :, 0] + 0.5) % 1
        return boxes, labels

    found, _ = scored(config, layouts)
    assert (
        found['layout_iou_best', 'drawn'] == pytest.approx(1) and found['layout_iou', 'drawn'] < 0.6
    )
    assert (
        found['layout_diversity', 'drawn'] > 0.8
        and found['layout_wasserstein_cx', 'drawn'] > 0.1 > found['layout_wasserstein_cy', 'drawn']
    )


def test_relations_of_captions_for_stages_that_read_them(config):
    needs = ('tokens', 'length', 'boxes', 'object_labels')
    name = 'shape_scenes/multi_quick'
    right, drawer = scored(config, lambda boxes, labels: (boxes, labels), name, num=70, needs=needs)
    wrong, _ = scored(
        config,
        lambda boxes, labels: (1 - boxes * [1, 1, -1, -1] - [0, 0, 1, 1], labels),
        name,
        num=70,
        needs=needs,
    )
    assert (
        right['layout_relation', 'drawn'] == right['layout_relation', 'real'] == 1
        and wrong['layout_relation', 'drawn'] == 0
    )
    assert set(drawer.given) == {'tokens', 'length', 'label_set', 'index'}
    blind, _ = scored(config, lambda boxes, labels: (boxes, labels), name, num=70)
    assert (
        'layout_relation' not in {metric for metric, _ in blind}
        and ('layout_overlap_ratio', 'drawn') not in blind
    )  # real ones never overlap


def test_what_cannot_be_measured(config):
    tables = opened(config, 'shape_scenes/rules')
    drawer = Drawer(None, tables.meta)
    drawer.sample = lambda batch, noise, shape: {'tokens': np.zeros(shape)}
    with pytest.raises(RunError, match='Stage box makes tokens, no boxes with labels'):
        el.sample(drawer, el.Scenes.of(el.with_objects(tables, 5, 1)), 2, 0)
    tables.tables['object_labels'][3:] = -1
    assert el.with_objects(tables, 9, 1).rows.tolist() == [0, 1, 2]
    tables.tables['object_labels'][:] = -1
    with pytest.raises(DataError, match='No record of shape_scenes/rules.* has an object'):
        el.with_objects(tables, 9, 1)


# ------------------------------------------------------------------------------ what stages measure
class Numbers(Stage):
    """Measures what can be worked out from its input."""

    needs = ('boxes', 'object_labels')
    likelihoods = {'nll_per_label': {'head': 'categorical'}}

    def measure(self, batch, key):
        there = batch['object_labels'] >= 0
        low = (batch['boxes'][..., 1] * (batch['object_labels'] == rules.A)).sum(
            1
        )  # a circle should be at the top
        return {
            'nll_per_box': low,
            'nll_per_label': there.sum(1) * 1.0,
            'random': jax.random.uniform(key, (len(there),)),
            'broken': np.inf * there.sum(1),
            'sometimes': jax.numpy.where(there.sum(1) > 3, 1.0, np.nan),
        }


def of(stage, devices=1):
    parts = split(stage)
    rows = sharding.by_rows(sharding.make_mesh(1, jax.devices()[:devices]))
    compiled, weights = compile_methods(program(stage)), (parts.params, parts.stats)
    return types.SimpleNamespace(compiled=compiled, weights=weights, module=stage, rows=rows)


def test_what_a_stage_measures(config, capsys):
    tables = opened(config, 'shape_scenes/rules')
    rows = el.with_objects(tables, 70, 1)
    found = Measure(of(Numbers()))(rows, 0)
    assert len(rows.rows) > ROWS  # two chunks, the second filled up
    np.testing.assert_allclose(found['nll_per_label'], (tables.tables['object_labels'] >= 0).sum(1))
    assert (
        'broken' not in found
        and 'broken is infinite for 70 of 70 records' in capsys.readouterr().out
    )
    assert (
        found['random'].shape == (70,)
        and len(set(found['random'])) == 70
        and np.isnan(found['sometimes']).any()
    )
    eight = Measure(of(Numbers(), 8))(rows, 0)
    np.testing.assert_array_equal(eight['random'], found['random'])
    assert Measure(of(Stage()))(rows, 0) == {}


def test_likelihoods_by_rule(config):
    tables = opened(config, 'shape_scenes/rules')
    rows = el.with_objects(tables, 70, 1)
    true, sampler = el.Scenes.of(rows), of(Numbers())
    labels = true.flat[1]
    found = numbers(el.own_measures(sampler, Measure(sampler), rows, true, 0))
    has_a = (labels == rules.A).any(1)
    # scenes with a B alone have a rule about the bottom, but this stage does not know it
    assert found['flipped_less_likely', 'drawn']['value'] == pytest.approx(
        has_a.sum() / rules.has_up(labels).sum()
    )
    assert found['flipped_less_likely', 'drawn']['protocol']['n'] == rules.has_up(labels).sum() < 70
    floor = rules.count_floor(labels, 'categorical')
    assert found['nll_per_label', 'floor']['value'] == pytest.approx(floor.mean())
    assert found['nll_per_label_above_floor', 'drawn']['value'] == pytest.approx(
        ((labels >= 0).sum(1) - floor).mean()
    )
    tables.meta = tables.meta._replace(scenes='')
    free = numbers(el.own_measures(sampler, Measure(sampler), rows, true, 0))
    assert (
        not [name for name, kind in free if kind == 'floor' or 'above' in name]
        and free['flipped_less_likely', 'drawn']['protocol']['n'] == 70
    )
