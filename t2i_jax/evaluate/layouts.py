"""Layouts that a stage draws, in numbers; evaluate.py sends those stages here that read boxes and no pictures.

Each record's label set is asked for several times; the layouts are compared with the record's own, label by label, and as a set with all of
the split. Beside them stand real layouts (`real`, what needs no truth), the run's own for other records (`shuffled`), and layouts of the
training data with the same label set or the one most like it (`remembered`), which is what a system that draws from the right distribution
should come near. On shape_scenes/rules the rules are checked, and likelihoods stand beside their `floor`.
"""

import jax
import numpy as np

from t2i_jax.data import conditions
from t2i_jax.data.feed import Rows, first_rows
from t2i_jax.draw import boxes as drawing
from t2i_jax.evaluate import report
from t2i_jax.evaluate.measures import Measure
from t2i_jax.metrics import layout, layout_sets
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.scenes import rules

TRUTH = 'boxes', 'object_labels', 'object_masks'  # what a stage is not told when it draws
SHOWN = 4  # layouts of a record in the picture


def draws_boxes(module) -> bool:
    """Whether a stage draws boxes and no pictures."""
    return 'boxes' in module.makes and 'image' not in module.makes


def of_layouts(config, sampler, train, options):
    """How a stage that draws boxes is measured: (a function: split's name and tables -> (values, grid), splits by default, what names the file)."""
    measure, reals = (
        Measure(sampler),
        Scenes.of(with_objects(train, len(train), sampler.meta.captions)),
    )
    by_rule = train.meta.scenes == 'rules'

    def measured(name, split):
        asked = with_objects(split, options['num'], sampler.meta.captions)
        true = Scenes.of(asked)
        drawn = draw(sampler, true, options['samples'], options['seed'])
        values = of_split(sampler, asked, true, drawn, reals, by_rule, options)
        values += of_measures(sampler.module, measure, asked, true, by_rule, options['seed'])
        return report.tagged(values, split=name), (name, *shown(sampler, asked, true, drawn))

    return (
        measured,
        ['test'] if train.meta.scenes else [config.data.validation_split],
        f'{options["num"]}x{options["samples"]}',
        '',
    )


def with_objects(split, num, captions) -> Rows:
    """The first `num` records of a split that have an object, each once. Raises DataError where none has."""
    rows = np.flatnonzero((split.tables['object_labels'] >= 0).any(1))[:num]
    if not len(rows):
        raise DataError(
            f'No record of {split.meta.name}, split {split.split}, has an object, so there is no layout to compare with.'
        )
    every = first_rows(split, len(split), captions)
    return Rows(split, every.rows[rows], every.captions[rows])


class Scenes:
    """Layouts of N records, n of each: `boxes` (N, n, R, 4), `labels` (N, n, R), `sets` (N, C), the label sets that they were made for."""

    def __init__(self, boxes, labels, sets, batch=None):
        self.boxes, self.labels, self.sets, self.batch = boxes, labels, sets, batch
        self.n = labels.shape[1]
        self.flat = boxes.reshape(-1, *boxes.shape[2:]), labels.reshape(-1, labels.shape[-1])

    @classmethod
    def of(cls, asked):
        """The records' own. `batch` is what else is known of them."""
        batch = asked.batch(0, len(asked.rows))
        boxes, labels = batch['boxes'], batch['object_labels']
        sets = layout_sets.label_sets(labels, asked.split.meta.object_classes)
        return cls(
            boxes[:, None],
            labels[:, None],
            sets,
            {name: value for name, value in batch.items() if name not in TRUTH},
        )

    def groups(self, values):
        """The record that each of (N,) or (N * n,) values belongs to."""
        return np.repeat(np.arange(len(self.sets)), len(values) // len(self.sets))


def draw(sampler, true, n, seed) -> Scenes:
    """n layouts for the label set of each record; row i from noise that depends on (seed, i) alone."""
    rows = len(true.sets)
    batch = {
        name: np.repeat(value, n, 0)
        for name, value in (true.batch | {'label_set': true.sets}).items()
    }
    out = sampler.sample(batch, sampler.module.noise(jax.random.key(seed), rows * n), (rows, n))
    if 'boxes' not in out or 'object_labels' not in out:
        raise RunError(
            f'Stage {sampler.name} makes {", ".join(out)}, no boxes with labels (`boxes` and `object_labels`): there is nothing to measure.'
        )
    return Scenes(out['boxes'], out['object_labels'], true.sets)


def of_split(sampler, asked, true, drawn, train, by_rule, options) -> list:
    """The numbers of what was drawn, those of the baselines beside them."""
    n, seed, half = drawn.n, options['seed'], max(1, len(true.sets) // 2)
    near = layout_sets.remembered(true.sets, train.sets, n, seed)
    kinds = {
        'drawn': drawn,
        'real': true,
        'shuffled': Scenes(
            np.roll(drawn.boxes, half, 0), np.roll(drawn.labels, half, 0), true.sets
        ),
        'remembered': Scenes(train.boxes[near][:, :, 0], train.labels[near][:, :, 0], true.sets),
    }
    overlap = np.nanmean(layout.arrangement(*true.flat)['overlap'])
    facts = asked.of('facts') if 'facts' in asked.split.tables and sampler.reads_text else None
    values = []
    for kind, scenes in kinds.items():
        found = compared(scenes, true)
        if facts is not None:
            said, labels = np.repeat(facts, scenes.n, 0), np.repeat(true.flat[1], scenes.n, 0)
            found['layout_relation'] = layout.relations(*scenes.flat, said, labels)
        if by_rule:
            found |= rules.checks(*scenes.flat, np.repeat(true.sets, scenes.n, 0))
        if overlap:  # as papers on layouts have it: real ones are 1
            found['layout_overlap_ratio'] = found['layout_overlap'] / overlap
        if kind == 'real':
            apart = 'overlap', 'overlap_ratio', 'pairwise_iou', 'coverage', 'relation'
            found = {
                name: one
                for name, one in found.items()
                if name.removeprefix('layout_') in apart or name.startswith('rule_')
            }
        here = [
            value
            for name, one in found.items()
            for value in report.averages({name: one}, seed, scenes.groups(one))
        ]
        if kind in ('drawn', 'remembered'):
            here += distributions(scenes, true, asked.split.meta)
        values += report.tagged(here, pictures=kind)
    return values


def compared(scenes, true) -> dict:
    """`layout.against` of each layout; `layout_iou_best`, the best IoU of the n of a record; `layout_diversity`, 1 - IoU of one with the next."""
    boxes, labels = (np.repeat(x, scenes.n, 0) for x in true.flat)
    found = layout.against(*scenes.flat, boxes, labels)
    if scenes.n > 1:
        found['layout_iou_best'] = layout.best_of(found['layout_iou'], scenes.n)
        following = Scenes(np.roll(scenes.boxes, 1, 1), np.roll(scenes.labels, 1, 1), scenes.sets)
        found['layout_diversity'] = 1 - layout.matching(*following.flat, *scenes.flat)['iou']
    return found


def distributions(scenes, true, meta) -> list:
    """How far all layouts are from all real ones, label by label; each a mean over labels, by how often these occur. `by_label` has the parts."""
    sets, real = np.repeat(scenes.sets, scenes.n, 0), true.flat
    often = (real[1][..., None] == np.arange(meta.object_classes)).sum((0, 1))
    found = {
        'layout_count_tv': (
            layout_sets.count_distances(scenes.flat[1], sets, real[1], true.sets),
            true.sets.sum(0),
        )
    }
    for name, parts in layout_sets.place_distances(
        *scenes.flat, *real, meta.object_classes
    ).items():
        found[f'layout_{name}'] = parts, often
    values = []
    for name, (parts, weights) in found.items():
        mean = layout_sets.over_labels(parts, weights)
        if np.isfinite(mean):
            by_label = {
                label: round(float(part), 5)
                for label, part in zip(meta.object_names, parts)
                if np.isfinite(part)
            }
            values.append(report.value(name, mean, n=len(sets)) | {'by_label': by_label})
    return values


def of_measures(module, measure, asked, true, by_rule, seed) -> list:
    """What the stage measures itself. Where it tells the likelihood of boxes, `flipped_less_likely`, the share of layouts that are less likely
    upside down; by rule, only of those whose rules know up and down, and likelihoods come with floors (`above_floor`: scene by scene)."""
    own, boxes, labels = measure(asked, seed), *true.flat
    floors = {}
    if 'nll_per_box' in own:
        turned = measure(
            asked, seed, lambda batch: batch | {'boxes': rules.flipped(batch['boxes'])}
        )['nll_per_box']
        knows_up = rules.has_up(labels) if by_rule else np.ones(len(labels), bool)
        floors['nll_per_box'] = (
            rules.box_floor(boxes, labels, getattr(getattr(module, 'placer', None), 'sigma', 0.02))
            if by_rule
            else None
        )
        own['flipped_less_likely'] = np.where(
            knows_up & np.isfinite(own['nll_per_box']), turned > own['nll_per_box'], np.nan
        )
    if 'nll_per_label' in own and by_rule:
        floors['nll_per_label'] = rules.count_floor(
            labels, getattr(getattr(module, 'counter', None), 'head', 'categorical')
        )
    floors = {name: floor for name, floor in floors.items() if floor is not None}
    own |= {f'{name}_above_floor': own[name] - floor for name, floor in floors.items()}
    return report.tagged(report.averages(own, seed), pictures='drawn') + report.tagged(
        report.averages(floors, seed), pictures='floor'
    )


def shown(sampler, asked, true, drawn):
    """(drawn n k s s 3, real n s s 3, what was asked for) of the first records."""
    few, meta = slice(0, report.SHOWN), asked.split.meta
    pictures = drawing.layout_pictures(
        drawn.boxes[few, :SHOWN], drawn.labels[few, :SHOWN], meta.object_names
    )
    real = drawing.layout_pictures(true.boxes[few, 0], true.labels[few, 0], meta.object_names)
    return (
        pictures,
        real,
        conditions.captions_of(
            {'label_set': true.sets[few]}, meta, asked.texts[few] if sampler.reads_text else None
        ),
    )
