"""R-precision of samples, and retrieval by a judge of pictures and captions.

R-precision (AttnGAN, CVPR 2018, section 5): a picture is right where a judge prefers the caption
that it was sampled for to each of 99 wrong ones. Which captions are wrong is a convention, and
numbers of two conventions cannot be compared; each is a metric of its own:

| metric | wrong captions |
|---|---|
| r_precision_entailment | those that are false of the scene of the own caption (shape_scenes) |
| r_precision_class | those of pictures of another class (DM-GAN's code for birds) |
| r_precision_picture | those of other pictures (COCO) |
| r_precision_both_ways | all others of a pool of 100, and pictures for captions (Obj-GAN's code) |

A caption of the same words is never a wrong one, but in the last. The number is the mean over all
draws of the 99, computed, not drawn; a wrong caption with the score of the own one counts before
it.
"""

import functools

import jax
import numpy as np

from t2i_jax import stage as core
from t2i_jax.data.feed import CHUNK, first_rows
from t2i_jax.evaluate import report
from t2i_jax.evaluate.judges import in_chunks
from t2i_jax.evaluate.measures import Kind, Measure, Unmeasurable, attempted
from t2i_jax.evaluate.reading import found_words, readable, told_apart
from t2i_jax.evaluate.report import HIGHER, LOWER, Headline
from t2i_jax.evaluate.sources import Real
from t2i_jax.metrics.arrays import unit
from t2i_jax.metrics.r_precision import TIE, r_precision_pools
from t2i_jax.metrics.retrieval import retrieval, share
from t2i_jax.runtime.errors import RunError
from tfds_builders.facts import entails

# captions that the own one is compared with
WRONG = 99
AT = 1, 5, 10
# captions of other pictures, of which the best one is asked for single words
GALLERY = 100
# pairs of a pool, of R-precision both ways
POOLED = 100
# pictures that are compared at a time
BLOCK = 200
# captions of which it is checked whether they are true of each picture
POOL = 2000
# pictures and captions whose `pair_scores` are computed at a time
TILE = 32, 128
# pictures that a caption finds, in the report's picture, and its captions
FOUND, SHOWN = 5, 64
# pairs of a retrieval, of which each is compared with each
MOST = 10_000
# captions to which the linear reader of sentence vectors is fitted
FIT = 2000


# --------------------------------------------------------------------------------- wrong captions
def conventions(split) -> list[str]:
    """List the conventions of wrong captions: entailment, class, picture."""
    entailment = {'facts', 'scene'} <= set(split.tables)
    return ['entailment'] * entailment + ['class'] * ('label' in split.tables) + ['picture']


def right(kind, rows, pictures, captions):
    """Return which captions are not wrong ones for which pictures: bool (pictures, captions).

    kind: a convention. pictures, captions: numbers of rows.
    """
    if kind == 'entailment':
        return entails(rows.of('facts')[captions], rows.of('scene')[pictures][:, None])
    table = rows.of('label') if kind == 'class' else rows.rows
    return table[pictures][:, None] == table[captions]


def wordings(ids):
    """Number captions (n, t) so that those of the same words have the same number."""
    return np.unique(ids, axis=0, return_inverse=True)[1].reshape(-1)


# ------------------------------------------------------------------------------------ R-precision
def readings(rows, judges) -> dict:
    """Let judges read the captions of rows -> {name: `Judge.read`}.

    A judge that knows words of fewer than two of them is left out, with a line.
    """
    found = {}
    for name, judge in judges.items():
        found[name] = judge.read(rows.texts)
        known = (found[name][2] > 0).sum()
        if known < 2:
            del found[name]
            print(
                f'R-precision by {name} is left out: it can read {known} of {len(rows.texts)} '
                'captions, and one has nothing to be compared with. Take a scorer that was trained '
                'on such captions, or more of them (--config.eval.num).'
            )
    return found


def r_precision(rows, judges, read, pictures, seed, remark=print) -> list:
    """Compute R-precision of each kind of pictures by each judge and convention.

    rows: what was sampled
    judges: {name: Judge}
    read: `readings` of those that count
    pictures: {kind: {name of a judge: codes n d}}
    seed: of the intervals
    remark: a function of a message, called where there are fewer than 99 wrong captions, which
        makes the gallery smaller

    Captions of which a judge knows no word are left out (`without_words`).
    """
    values = []
    for name in read:

        def of_judge(name=name):
            one = {kind: found[name] for kind, found in pictures.items()}
            return judged(rows, name, judges[name], read[name], one, seed, remark)

        values += attempted(f'R-precision by {name}', of_judge)
    return values


def judged(rows, name, judge, read, pictures, seed, remark) -> list:
    """Compute R-precision by one judge, see `r_precision`.

    name: of the judge. read: its reading of the captions. pictures: {kind: its codes n d}.
    """
    values = []
    codes, ids, length = read
    known = np.flatnonzero(length)
    few, wording, codes = rows.take(known), wordings(ids[known]), unit(codes[known], 'captions')
    image_codes = {
        kind: unit(found[known], f'codes of {kind} pictures') for kind, found in pictures.items()
    }
    for convention in conventions(rows.split):
        ranks, wrong, pool = ranked(image_codes, codes, wording, few, convention)
        n = min(WRONG, int(wrong.min()))
        if n < WRONG:
            left = 'so they are all it is compared with' if n else 'so it is left out'
            remark(
                f'r_precision_{convention}: a picture has {n} wrong captions, {WRONG} are '
                f'usual, {left}. Take more pictures: --config.eval.num.'
            )
        protocol = dict(
            decoder=name,
            reader=judge.tag,
            wrong=convention,
            negatives=n,
            chance=1 / (n + 1),
            pool=pool,
            without_words=len(length) - len(known),
        )
        metric = f'r_precision_{convention}'
        for kind, rank in ranks.items() if n else ():
            found = share(rank, wrong, 1, n + 1)
            one = report.averaged(metric, found, seed, few.rows, **protocol, pictures=kind)
            values.append(one)
    for kind, found in image_codes.items() if len(codes) >= POOLED else ():
        one = r_precision_pools(found, codes, few.rows, size=POOLED)
        protocol = dict(decoder=name, reader=judge.tag, wrong='pool', pool=POOLED, pictures=kind)
        number, spread = one.pop('value'), one.pop('spread')
        protocol |= dict(chance=1 / POOLED, n=one['pools'] * POOLED) | one
        values.append(report.value('r_precision_both_ways', number, spread, **protocol))
    return values


def ranked(image_codes, text_codes, wording, rows, convention):
    """Rank the own caption of each picture among the wrong ones.

    -> ({kind of pictures: (n,) ranks}, (n,) numbers of wrong captions, captions they come from)
    """
    n = len(text_codes)
    pool = np.arange(n)
    if convention == 'entailment':
        pool = np.unique(np.linspace(0, n - 1, min(n, POOL)).astype(int))
    ranks, wrong = {kind: [] for kind in image_codes}, []
    for start in range(0, n, BLOCK):
        some = np.arange(start, min(start + BLOCK, n))
        same = wording[some][:, None] == wording[pool]
        false = ~(right(convention, rows, some, pool) | same)
        wrong.append(false.sum(1))
        for kind, code in image_codes.items():
            own = (code[some] * text_codes[some]).sum(1, keepdims=True)
            ranks[kind].append(1 + ((code[some] @ text_codes[pool].T >= own - TIE) & false).sum(1))
    ranks = {kind: np.concatenate(parts) for kind, parts in ranks.items()}
    return ranks, np.concatenate(wrong), len(pool)


# -------------------------------------------------------------------------------------- retrieval
class Pairs(Kind):
    """Retrieval by a stage that compares pictures with captions and makes no samples.

    R@k both ways, by the cosine of whole captions and by the stage's `pair_scores`: among all
    pairs and among 100, and the median rank. On shape_scenes a caption that is true of another
    picture is not a wrong answer for it. Where there are classes, the metrics of `class` take any
    caption (or picture) of the class among all, and the own one with 99 of other classes among 100.
    `reads_<attribute>` says what a linear reader finds in the vectors of captions (`readable`).
    `top1_<attribute>_of_100`: how often the best of 100 captions of other pictures says that
    attribute rightly (`found_words`). `told_apart`: how often a linear reader, and with a name of
    its own the stage's `measure`, tells vectors of pictures from those of captions.

    Raises RunError for options that have no part in this.
    """

    fields = ('image',)
    headline = tuple(
        Headline(f'{way}_{name}', better, ())
        for way in ('to_text', 'to_image')
        for name, better in (
            ('R@1_*', HIGHER),
            ('median_rank_*', LOWER),
            ('R@1_*_of_100', HIGHER),
        )
    ) + (
        *(Headline(f'reads_{name}', HIGHER, ()) for name in ('class', 'place')),
        *(Headline(f'top1_{name}_of_100', HIGHER, ()) for name in ('class', 'colour')),
        *(Headline(name, LOWER, ()) for name in ('told_apart', 'domain_accuracy')),
    )

    def __init__(self, stage, sampler, train, options):
        super().__init__(stage, sampler, train, options)
        for name, usual in (('scorer', ''), ('captions', 1)):
            if options[name] != usual:
                raise RunError(
                    f'eval.{name}={options[name]} has no part in the evaluation of stage '
                    f'{sampler.name}, which makes no pictures: leave it out.'
                )
        if options['num'] > MOST:
            raise RunError(
                f'eval.num={options["num"]}: each picture is compared with each caption, so set '
                f'{MOST:,} at most.'
            )
        self.protocol = dict(captions=1, captions_per_row=sampler.meta.captions)
        self.measure = Measure(sampler)
        if 'scene' in train.tables:
            self.splits = ['test', 'test_unseen']

    def __call__(self, name, split):
        rows = first_rows(split, min(self.options['num'], len(split)), self.sampler.meta.captions)
        codes, length, wording = codes_of(self.sampler, rows)
        known = np.flatnonzero(length > 0)
        if len(known) < 2:
            raise Unmeasurable(
                f'Split {name} has {len(known)} captions with a word that the run knows, and one '
                'has nothing to be compared with.'
            )
        protocol = dict(pairs=len(known), without_words=len(rows.rows) - len(known))
        rows, length, wording = rows.take(known), length[known], wording[known]
        scores = scores_of(self.sampler, jax.tree.map(lambda x: x[known], codes), length)
        values, kinds = [], conventions(split)
        for kind in kinds[:1] if kinds[0] == 'entailment' else kinds:
            values += self.retrieved(kind, scores, rows, wording, protocol)
        if 'facts' in split.tables:
            values += self.by_word(scores, rows, protocol)
            fit, facts = self.fit
            pictures, sentences = codes.code[known], codes.sentence[known]
            found = readable(fit.sentence, facts, sentences, rows.of('facts'))
            found = {f'reads_{attribute}': right for attribute, right in found.items()}
            found['told_apart'] = told_apart(fit.code, fit.sentence, pictures, sentences)
            more = dict(decoder='ridge', fit=len(facts))
            values += report.averages(found, self.options['seed'], **more)
        found = self.measure(rows, self.options['seed'])
        values += report.averages(found, self.options['seed'], decoder=self.sampler.name)
        values = report.tagged(values, split=name, pictures='real')

        # of each caption
        best = np.argsort(-next(iter(scores.values())), 0)[:FOUND].T[:SHOWN]
        found = pictures_of(rows.take(best.reshape(-1)))
        found = found.reshape(*best.shape, *found.shape[1:])
        few = rows.take(slice(SHOWN))
        return values, (name, found, pictures_of(few), few.texts)

    @functools.cached_property
    def fit(self):
        """The `codes` and facts of training pairs to which linear readers are fitted."""
        rows = first_rows(self.train, min(FIT, len(self.train)), self.sampler.meta.captions)
        return codes_of(self.sampler, rows)[0], rows.of('facts')

    def by_word(self, scores, rows, protocol) -> list:
        """The numbers of single words: shapes, colours, sizes."""
        values = []
        if 'scene' not in rows.split.tables:
            return values
        for by, matrix in scores.items():
            found = found_words(matrix, rows.of('facts'), rows.of('scene'), GALLERY)
            for name, (right, chance) in found.items():
                name, more = f'top1_{name}_of_{GALLERY}', dict(decoder=by, chance=chance)
                values.append(
                    report.averaged(name, right, self.options['seed'], **more, **protocol)
                )
        return values

    def retrieved(self, kind, scores, rows, wording, protocol) -> list:
        """The numbers of both ways by one convention."""
        n, seed, values = len(wording), self.options['seed'], []
        blocks, every = np.array_split(np.arange(n), -(-n // BLOCK)), np.arange(n)
        fits = np.concatenate([right(kind, rows, some, every) for some in blocks])
        fits |= wording[:, None] == wording
        for by, matrix in scores.items():
            own = best = retrieval(matrix, fits, at=AT, tie=TIE)
            if kind == 'class':
                best = retrieval(matrix, fits, at=AT, tie=TIE, any_right=True)
            for way in own:
                short = way.removeprefix('image_').removeprefix('text_')
                more = dict(decoder=by, wrong=kind) | protocol
                values += of_way(short, kind, best[way], own[way], seed, more)
        return values


def of_way(way, kind, best, own, seed, protocol) -> list:
    """Return the values of one way of `retrieval`.

    They are R@k and the median rank among all, and, where each query has 99 wrong answers, R@k of
    its own answer among 100.

    way: to_text or to_image
    kind: the convention
    best, own: what `retrieval` found for any right answer, and for the own one
    seed: of the intervals
    protocol: of all values
    """
    values, ranks, wrong = [], best['ranks'], own['wrong']

    def add(name, found, chance):
        values.append(report.averaged(f'{way}_{name}', found, seed, chance=chance, **protocol))

    for k in AT:
        add(f'R@{k}_{kind}', (ranks <= k).astype(float), best['chance'][k])
    median = np.median(ranks)
    values.append(report.value(f'{way}_median_rank_{kind}', median, n=len(ranks), **protocol))
    for k in AT if wrong.min() >= WRONG else ():
        size = WRONG + 1
        add(f'R@{k}_{kind}_of_{size}', share(own['ranks'], wrong, k, size), k / size)
    return values


def pictures_of(rows):
    """Return the pictures of rows as one array of uint8."""
    return np.concatenate(list(Real(rows)))


def codes_of(sampler, rows):
    """Encode the pictures and captions of rows.

    -> (codes, how many words or characters of each caption are known, `wordings`)
    """
    parts, ids, lengths, needs = [], [], [], sampler.module.needs
    function = jax.jit(functools.partial(core.apply, sampler.program, 'codes'))
    for start in range(0, len(rows.rows), CHUNK):
        batch = rows.batch(start, start + CHUNK)
        text = batch['tokens'] if 'tokens' in batch else batch['chars']
        ids.append(np.asarray(text).reshape(len(text), -1))
        lengths.append((ids[-1] > 0).sum(1))
        batch = {name: batch[name] for name in needs if name in batch}
        batch |= {'length': lengths[-1].astype(np.int32)}
        chunks, n = in_chunks(sampler, function, batch), len(text)
        parts.append(jax.tree.map(lambda *x, n=n: np.concatenate(x)[:n], *chunks))
    codes = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return codes, np.concatenate(lengths), wordings(np.concatenate(ids))


def scores_of(sampler, codes, length):
    """Score how well each caption fits each picture: {name: float64 (pictures, captions)}.

    Those are the stage's `pair_scores`, and 'sentences', the cosine. codes, length: of `codes_of`.
    """
    cosine = unit(codes.code, 'image codes') @ unit(codes.sentence, 'text codes').T
    n = len(length)

    def take(index):
        return jax.tree.map(lambda x: x[index], codes)

    # the last tile is filled up with the last row
    pictures, captions = (
        [np.minimum(np.arange(start, start + step), n - 1) for start in range(0, n, step)]
        for step in TILE
    )
    score = jax.jit(sampler.module.pair_scores)
    if not jax.eval_shape(score, take(pictures[0]), take(captions[0]), length[captions[0]]):
        return {'sentences': cosine}

    def line(i):
        tiles = [score(take(i), take(j), length[j]) for j in captions]
        return jax.tree.map(lambda *x: np.concatenate(x, 1)[:, :n], *tiles)

    lines = [line(i) for i in pictures]
    own = jax.tree.map(lambda *x: np.concatenate(x)[:n].astype(np.float64), *lines)
    return own | {'sentences': cosine}
