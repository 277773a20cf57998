"""Shared by evaluations: options, distances of picture sets, own measures of stages."""

import functools

import jax
import numpy as np

from t2i_jax.config import EVAL, defaults
from t2i_jax.data.feed import Rows
from t2i_jax.evaluate import report
from t2i_jax.metrics.fid import bias, fid
from t2i_jax.metrics.inception_score import inception_score
from t2i_jax.metrics.kid import kid
from t2i_jax.metrics.prdc import density_coverage, precision_recall
from t2i_jax.runtime.errors import DataError

OPTIONS = defaults(EVAL)
# records of `Measure` at a time; the usual numbers of devices divide it, since draws depend on it
ROWS = 64


class Unmeasurable(DataError):
    """A split that has nothing to measure; the others of a report are measured all the same."""


class Kind:
    """How one kind of output is measured, split by split; a row of EVALUATIONS.

    fields: batch keys of the truth, which samples are compared with.
    splits: those that are measured by default.
    headline: the few numbers that are printed, see `report.Headline`.
    protocol: what all numbers of a report have in common.
    size, networks: how much is measured, and by which networks, in the names of files.
    """

    fields: tuple[str, ...] = ()
    headline: tuple[report.Headline, ...] = ()

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


def once(say=print):
    """Return a `remark` that says of each name, the first word of a message, one thing only."""
    said = set()

    def remark(message):
        name = message.partition(' ')[0]
        if name not in said:
            said.add(name)
            say(message)

    return remark


def attempted(name, compute, remark=print) -> list:
    """Return the values that a function makes; where it cannot, [] after a line that says why.

    name: of the values. compute: a function -> values, which raises ValueError. remark: a function
    of the line.
    """
    try:
        return compute()
    except ValueError as error:
        remark(f'{name} is left out: {str(error).rstrip(".")}.')
        return []


def distances(found, real, extract, options, remark=print) -> list:
    """Compute FID, KID, precision, recall, density, coverage and Inception Score of features.

    found, real: readings of pictures, see `sources.read`
    extract: the feature network
    options: of EVAL
    remark: a function of a message, called where there are too few pictures

    A number that cannot be computed is left out. From too few pictures so is FID, unless options
    force it: then it is marked as biased.
    """
    x, y, suffix = real['features'], found['features'], suffix_of(extract)
    reference = dict(n=int(real['n']), sha256=str(real['digest']))
    protocol = dict(extractor=extract.tag, reference=reference, n=int(found['n']))
    values, seed, splits = [], options['seed'], options['splits']
    size = max(2, min(1000, len(x) // 2, len(y) // 2))

    def add(compute, names, **more):
        """Add values that are computed together; of one the function gives a spread, too."""

        def named():
            numbers = compute()
            if len(names) < len(numbers):
                return [report.value(names[0] + suffix, *numbers, **protocol, **more)]
            return [
                report.value(name + suffix, number, **protocol, **more)
                for name, number in zip(names, numbers)
            ]

        values.extend(attempted(' and '.join(name + suffix for name in names), named, remark))

    biased = warn_of_few(x, y, suffix, options['force'], remark)
    if options['force'] or not biased:
        more = {'biased': True} if biased else {}
        add(lambda: [fid(x, y, force=options['force'])], ['fid'], **more)
    add(lambda: kid(x, y, size=size, seed=seed), ['kid'], subsets=100, subset_size=size)
    add(lambda: precision_recall(x, y), ['precision', 'recall'], k=3)
    add(lambda: density_coverage(x, y), ['density', 'coverage'], k=5)
    if 'logits' in found:
        score = functools.partial(inception_score, found['logits'], splits=splits, seed=seed)
        add(score, ['inception_score'], splits=splits)
    return values


def warn_of_few(x, y, suffix, force, remark=print) -> bool:
    """Say how biased FID is where a set has no more pictures than features, and return whether.

    x, y: features of real pictures (n, d) and of others (m, d). force: it is computed all the same.
    """
    n, m, d = len(x), len(y), x.shape[1]
    if min(n, m) > d:
        return False
    excess = f'by about {bias(x, n, m):.3g} or more' if n > 1 else 'by much'
    state, more = 'is left out, since it would be', 'To have it, marked: --config.eval.force=True'
    more += ' or, with --images, --force'
    if force:
        state, more = 'is', 'It is marked as biased'
    counts = f'{m:,} pictures' if n == m else f'{m:,} pictures and {n:,} real ones'
    remark(
        f'fid{suffix} {state} too high {excess}: {counts} are no more than its {d:,} features. '
        f'Take 10,000, or KID. {more}.'
    )
    return True


def suffix_of(extract) -> str:
    """Return what a feature network adds to the name of a metric."""
    return f'_{extract.metric_prefix}' if extract.metric_prefix else ''


class Measure:
    """A stage's own `measure` over rows of a split, with the weights of a sampler."""

    def __init__(self, sampler):
        self.sampler = sampler
        devices = sampler.rows.mesh.size if sampler.rows else 1
        self.rows = -(-ROWS // devices) * devices

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
            found = self.sampler.compiled('measure', *self.sampler.weights, batch, key)
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
