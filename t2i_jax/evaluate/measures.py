"""Shared by evaluations: options, distances of picture sets, own measures of stages."""

import jax
import numpy as np

from t2i_jax import stage as core
from t2i_jax.config import EVAL, defaults
from t2i_jax.data.feed import Rows
from t2i_jax.evaluate import report
from t2i_jax.metrics.fid import bias, fid
from t2i_jax.metrics.inception_score import inception_score
from t2i_jax.metrics.kid import kid
from t2i_jax.metrics.prdc import density_coverage, precision_recall

OPTIONS = defaults(EVAL)
# records of `Measure` at a time; the usual numbers of devices divide it, since draws depend on it
ROWS = 64


class Kind:
    """How one kind of output is measured, split by split; a row of EVALUATIONS.

    fields: batch keys of the truth, which samples are compared with.
    splits: those that are measured by default.
    protocol: what all numbers of a report have in common.
    size, networks: how much is measured, and by which networks, in the names of files.
    """

    fields: tuple[str, ...] = ()

    def __init__(self, stage, sampler, train, options):
        """stage: a RunStage; sampler: of it; train: the Split of training; options: EVAL."""
        self.stage, self.sampler, self.train, self.options = stage, sampler, train, options
        self.splits = [stage.data['validation_split']]
        self.protocol, self.size, self.networks = {}, str(options['num']), ''

    def __call__(self, name, split):
        """Measure a split -> (values, the row of the report's picture, see `report.picture`)."""
        raise NotImplementedError


def silent(message):
    """Print nothing: a `remark` for numbers of baselines."""


def distances(found, real, extract, options, remark=print) -> list:
    """Compute FID, KID, precision, recall, density, coverage and Inception Score of features.

    found, real: readings of pictures, see `sources.read`
    extract: the feature network
    options: of EVAL
    remark: a function of a message, called where there are too few pictures

    From too few pictures FID is left out, unless options force it: then it is marked as biased.
    """
    x, y, suffix = real['features'], found['features'], suffix_of(extract)
    reference = dict(n=int(real['n']), sha256=str(real['digest']))
    protocol = dict(extractor=extract.tag, reference=reference, n=int(found['n']))
    values, least = [], min(len(x), len(y))
    few = least <= x.shape[1]

    def add(metric, value, spread=None, **more):
        values.append(report.value(metric + suffix, value, spread, **protocol, **more))

    if options['force'] or not few:
        add('fid', fid(x, y, force=options['force']), **({'biased': True} if few else {}))
    else:
        remark(
            f'fid{suffix} is left out: {least:,} pictures, {x.shape[1]:,} features. It takes more '
            'pictures than features, and 10,000 or more to mean much; from so few it would be too '
            f'high by about {bias(x, len(x), len(y)):.3g} or more. KID needs fewer. To print it '
            'all the same, marked: --config.eval.force=True (with --images: --force).'
        )
    size = max(2, min(1000, len(x) // 2, len(y) // 2))
    add('kid', *kid(x, y, size=size, seed=options['seed']), subsets=100, subset_size=size)
    precision, recall = precision_recall(x, y)
    density, coverage = density_coverage(x, y)
    for metric, value in dict(precision=precision, recall=recall).items():
        add(metric, value, k=3)
    for metric, value in dict(density=density, coverage=coverage).items():
        add(metric, value, k=5)
    if 'logits' in found:
        splits = options['splits']
        score = inception_score(found['logits'], splits=splits, seed=options['seed'])
        add('inception_score', *score, splits=splits)
    return values


def suffix_of(extract) -> str:
    """Return what a feature network adds to the name of a metric."""
    return f'_{extract.metric_prefix}' if extract.metric_prefix else ''


class Measure:
    """A stage's own `measure` over rows of a split, with the weights of a sampler."""

    def __init__(self, sampler):
        self.sampler = sampler
        devices = sampler.rows.mesh.size if sampler.rows else 1
        self.rows = -(-ROWS // devices) * devices
        graph = sampler.program.graph

        def run(params, stats, batch, key):
            return core.call(graph, params, stats, 'measure', batch, key, training=False)[0]

        self._run = jax.jit(run)

    def __call__(self, rows: Rows, seed, change=lambda batch: batch) -> dict:
        """Measure each record -> {name: (n,) float64}; {} for a stage that measures nothing.

        The random draws of a chunk depend on the seed and its number; the last chunk is filled up
        with the first rows. Infinite numbers are left out, with a message.

        change: batch -> batch, applied to each before
        """
        n, parts = len(rows.rows), []
        for number, start in enumerate(range(0, n, self.rows)):
            batch = change(rows.take(np.arange(start, start + self.rows) % n).batch())
            batch = jax.tree.map(lambda x: jax.device_put(np.asarray(x), self.sampler.rows), batch)
            key = jax.random.fold_in(jax.random.key(seed), number)
            found = self._run(self.sampler.params, self.sampler.stats, batch, key)
            if not found:
                return {}
            parts.append(jax.tree.map(lambda x: np.asarray(x, np.float64), found))
        found = jax.tree.map(lambda *x: np.concatenate(x)[:n], *parts)
        for name in [name for name, values in found.items() if np.isinf(values).any()]:
            infinite = np.isinf(found.pop(name)).sum()
            print(
                f'{name} is infinite for {infinite} of {n} records, so it has no mean and is left '
                'out.'
            )
        return found
