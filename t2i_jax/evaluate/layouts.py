"""Numbers of the layouts that a stage makes.

The label set of each record is given several times; the layouts are compared with the record's
own, label by label, and as a set with all of the split. They are compared with

    real         real layouts, as far as no truth is needed
    shuffled     the run's own layouts for other records
    remembered   layouts of the training data with the same label set, or the one most like it,
                 which a system that samples from the right distribution should come near
    floor        the exact likelihood, on shape_scenes/rules, where the rules are checked, too
"""

import jax
import numpy as np

from t2i_jax.data import conditions
from t2i_jax.data.feed import Rows, first_rows
from t2i_jax.draw.boxes import layout_pictures
from t2i_jax.evaluate import report
from t2i_jax.evaluate.measures import Kind, Measure, Unmeasurable
from t2i_jax.evaluate.report import HIGHER, LOWER, Headline
from t2i_jax.metrics import layout, layout_sets
from t2i_jax.runtime.errors import RunError
from t2i_jax.scenes import agreement, rules

# what a stage is not given when it samples
TRUTH = 'boxes', 'object_labels', 'object_masks'
# layouts of a record in the picture
SHOWN = 4
# of real layouts: what is measured without a truth
ALONE = tuple(
    f'layout_{name}'
    for name in ('overlap', 'overlap_ratio', 'pairwise_iou', 'coverage', 'relation')
)


class Layouts(Kind):
    """Layouts, and how well they fit the label sets that they were sampled for."""

    fields = ('boxes', 'object_labels')
    headline = (
        Headline('layout_iou', HIGHER, ('remembered',)),
        Headline('layout_iou_best', HIGHER, ('remembered',)),
        Headline('layout_label_f1', HIGHER, ('remembered',)),
        Headline('layout_count_tv', LOWER, ('remembered',)),
        Headline('layout_centre_jsd', LOWER, ('remembered',)),
        Headline('layout_relation', HIGHER),
        Headline('layout_labels_told', HIGHER, ('remembered',)),
        Headline('rule_all', HIGHER),
        Headline('layout_diversity', HIGHER, ('remembered',)),
        Headline('nll_per_box', LOWER, ('floor', 'noise')),
        Headline('nll_per_label', LOWER, ('floor',)),
        Headline('mask_iou', HIGHER, ()),
    )

    def __init__(self, stage, sampler, train, options):
        super().__init__(stage, sampler, train, options)
        self.measure = Measure(sampler)
        every = with_objects(train, len(train), sampler.meta.captions)
        self.remembered = Scenes.of(every)
        if train.meta.scenes:
            self.splits = ['test']
        self.protocol = dict(samples=options['samples'])
        self.size = f'{options["num"]}x{options["samples"]}'

    def __call__(self, name, split):
        rows = with_objects(split, self.options['num'], self.sampler.meta.captions)
        true = Scenes.of(rows)
        samples = sample(self.sampler, true, self.options['samples'], self.options['seed'])
        values = of_split(self.sampler, rows, true, samples, self.remembered, self.options)
        values += own_measures(self.sampler, self.measure, rows, true, self.options['seed'])
        return report.tagged(values, split=name), (name, *shown(self.sampler, rows, true, samples))


def with_objects(split, num, captions) -> Rows:
    """Take the first `num` records with an object, each once. Raises Unmeasurable for none."""
    rows = np.flatnonzero((split.tables['object_labels'] >= 0).any(1))[:num]
    if not len(rows):
        raise Unmeasurable(
            f'No record of {split.meta.name}, split {split.split}, has an object, so there is no '
            'layout to compare with.'
        )
    return first_rows(split, len(split), captions).take(rows)


class Scenes:
    """Layouts of N records, n of each.

    boxes (N, n, R, 4); labels (N, n, R); sets (N, C), the label sets that they were made for.
    batch: what else is known of the records. flat: boxes and labels of all layouts, (N n, ...).
    """

    def __init__(self, boxes, labels, sets, batch=None):
        self.boxes, self.labels, self.sets, self.batch = boxes, labels, sets, batch
        self.n = labels.shape[1]
        self.flat = boxes.reshape(-1, *boxes.shape[2:]), labels.reshape(-1, labels.shape[-1])

    @classmethod
    def of(cls, rows):
        """Return the records' own layouts."""
        batch = rows.batch()
        boxes, labels = batch['boxes'], batch['object_labels']
        sets = layout_sets.label_sets(labels, rows.split.meta.object_classes)
        others = {name: value for name, value in batch.items() if name not in TRUTH}
        return cls(boxes[:, None], labels[:, None], sets, others)

    def groups(self, values):
        """Return the record that each of (N,) or (N n,) values belongs to."""
        return np.repeat(np.arange(len(self.sets)), len(values) // len(self.sets))


def sample(sampler, true, n, seed) -> Scenes:
    """Sample n layouts for the label set of each record; row i from noise of (seed, i) alone."""
    rows, batch = len(true.sets), true.batch | {'label_set': true.sets}
    batch = {name: np.repeat(value, n, 0) for name, value in batch.items()}
    out = sampler.sample(batch, sampler.module.noise(jax.random.key(seed), rows * n), (rows, n))
    if 'boxes' not in out or 'object_labels' not in out:
        raise RunError(
            f'Stage {sampler.name} makes {", ".join(out)}, no boxes with labels (`boxes` and '
            '`object_labels`): there is nothing to measure.'
        )
    return Scenes(out['boxes'], out['object_labels'], true.sets)


def of_split(sampler, rows, true, samples, train, options) -> list:
    """Compute the numbers of samples and of the layouts that they are compared with.

    sampler: what sampled
    rows: records of the split
    true, samples, train: Scenes of these records, sampled for them, and of the training data
    options: of EVAL
    """
    n, seed, half = samples.n, options['seed'], max(1, len(true.sets) // 2)
    near = layout_sets.remembered(true.sets, train.sets, n, seed)
    others = np.roll(samples.boxes, half, 0), np.roll(samples.labels, half, 0)
    remembered = train.boxes[near][:, :, 0], train.labels[near][:, :, 0]
    kinds = {
        'drawn': samples,
        'real': true,
        'shuffled': Scenes(*others, true.sets),
        'remembered': Scenes(*remembered, true.sets),
    }
    meta, tables = rows.split.meta, rows.split.tables
    overlap = np.nanmean(layout.arrangement(*true.flat)['overlap'])
    facts = rows.of('facts') if 'facts' in tables and sampler.reads_text else None
    values = []
    for kind, scenes in kinds.items():
        found = compared(scenes, true)
        if facts is not None:
            of_each, labels = (np.repeat(x, scenes.n, 0) for x in (facts, true.flat[1]))
            found['layout_relation'] = layout.relations(*scenes.flat, of_each, labels)
            # of captions that leave no object out
            told = agreement.names_all(of_each, labels)
            found['layout_labels_told'] = np.where(told, found['layout_labels_exact'], np.nan)
        if meta.scenes == 'rules':
            found |= rules.checks(*scenes.flat, np.repeat(true.sets, scenes.n, 0))
        # as papers on layouts have it: real ones are 1
        if overlap:
            found['layout_overlap_ratio'] = found['layout_overlap'] / overlap
        for name, one in found.items():
            if kind != 'real' or name in ALONE or name.startswith('rule_'):
                one = report.averages({name: one}, seed, scenes.groups(one))
                values += report.tagged(one, pictures=kind)
        if kind in ('drawn', 'remembered'):
            values += report.tagged(distributions(scenes, true, meta), pictures=kind)
    return values


def compared(scenes, true) -> dict:
    """Compare each layout with the true one.

    To `layout.against` it adds `layout_iou_best`, the best IoU of the n of a record, and
    `layout_diversity`, 1 - IoU of one with the next.
    """
    boxes, labels = (np.repeat(x, scenes.n, 0) for x in true.flat)
    found = layout.against(*scenes.flat, boxes, labels)
    if scenes.n > 1:
        found['layout_iou_best'] = layout.best_of(found['layout_iou'], scenes.n)
        following = Scenes(np.roll(scenes.boxes, 1, 1), np.roll(scenes.labels, 1, 1), scenes.sets)
        found['layout_diversity'] = 1 - layout.matching(*following.flat, *scenes.flat)['iou']
    return found


def distributions(scenes, true, meta) -> list:
    """Compute how far all layouts are from all real ones, label by label.

    Each number is a mean over labels, by how often these occur; `by_label` has the parts.
    """
    sets, real = np.repeat(scenes.sets, scenes.n, 0), true.flat
    often = (real[1][..., None] == np.arange(meta.object_classes)).sum((0, 1))
    counts = layout_sets.count_distances(scenes.flat[1], sets, real[1], true.sets)
    places = layout_sets.place_distances(*scenes.flat, *real, meta.object_classes)
    found = {'layout_count_tv': (counts, true.sets.sum(0))}
    found |= {f'layout_{name}': (parts, often) for name, parts in places.items()}
    values = []
    for name, (parts, weights) in found.items():
        mean = layout_sets.over_labels(parts, weights)
        if np.isfinite(mean):
            named = zip(meta.object_names, parts)
            by_label = {label: round(float(x), 5) for label, x in named if np.isfinite(x)}
            values.append(report.value(name, mean, n=len(sets)) | {'by_label': by_label})
    return values


def own_measures(sampler, measure, rows, true, seed) -> list:
    """Compute what the stage measures itself.

    Where it has the likelihood of boxes, `flipped_less_likely` is the share of layouts that are
    less likely upside down; under rules only of those whose rules know up and down. Under rules
    likelihoods have floors (`above_floor`: scene by scene). Under `noise` stands the likelihood of
    boxes that lie anywhere.
    """
    own, (boxes, labels) = measure(rows, seed), true.flat
    by_rule, floors = rows.split.meta.scenes == 'rules', {}
    if by_rule:
        floors = rules.floors(boxes, labels, sampler.module.likelihoods)
        floors = {name: floor for name, floor in floors.items() if name in own}
    if 'nll_per_box' in own:
        likely = own['nll_per_box']
        turned = measure(rows, seed, upside_down)['nll_per_box']
        counts = rules.has_up(labels) if by_rule else np.ones(len(labels), bool)
        found = np.where(counts & np.isfinite(likely), turned > likely, np.nan)
        own['flipped_less_likely'] = found
    uniform = [report.value('nll_per_box', layout.UNIFORM_NLL)] if 'nll_per_box' in own else []
    own |= {f'{name}_above_floor': own[name] - floor for name, floor in floors.items()}
    own, floors = report.averages(own, seed), report.averages(floors, seed)
    kinds = {'drawn': own, 'floor': floors, 'noise': uniform}
    return [x for kind, found in kinds.items() for x in report.tagged(found, pictures=kind)]


def upside_down(batch):
    """Flip the boxes of a batch vertically."""
    return batch | {'boxes': rules.flipped(batch['boxes'])}


def shown(sampler, rows, true, samples):
    """Draw (samples n k s s 3, real layouts n s s 3, conditions) of the first records."""
    few, meta = slice(0, report.SHOWN), rows.split.meta
    of_each = samples.boxes[few, :SHOWN], samples.labels[few, :SHOWN]
    pictures = layout_pictures(*of_each, meta.object_names)
    real = layout_pictures(true.boxes[few, 0], true.labels[few, 0], meta.object_names)
    texts = rows.texts[few] if sampler.reads_text else None
    return pictures, real, conditions.captions_of({'label_set': true.sets[few]}, meta, texts)
