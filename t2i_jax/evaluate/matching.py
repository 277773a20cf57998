"""Whether pictures and captions find each other, as a DAMSM sees it: R-precision of drawn pictures, retrieval by a DAMSM alone.

R-precision (AttnGAN, CVPR 2018, section 5): a picture is right where a scorer likens it more to the caption that it was drawn for than to each of 99
wrong ones. Which captions are wrong is a convention, and numbers of two conventions cannot be compared; each is a metric of its own:

| metric | wrong captions |
|---|---|
| r_precision_entailment | those that are false of the scene that the own caption was written for (shape_scenes) |
| r_precision_class | those of pictures of another class (DM-GAN's code for birds) |
| r_precision_picture | those of other pictures (COCO) |

A caption of the same words is never a wrong one. The number is the mean over all draws of the 99, computed, not drawn; what is likened as much as the
own caption counts before it. A scorer is a stage that has `codes(batch)`, vectors of pictures (`code`) and of captions (`sentence`), whose cosine says how
well they fit: a DAMSM, or the joint embedding that GAN-CLS begins with. It reads the captions with its own vocabulary. One that trained the
generator flatters it, which the protocol says (`trained_generator`); `eval.scorer` names another one, whose numbers then stand beside.
"""

import functools
import hashlib
import pathlib

import jax
import numpy as np

from t2i_jax import stage as core
from t2i_jax.data.feed import CHUNK, Rows, first_rows
from t2i_jax.data.text import encode_chars
from t2i_jax.evaluate import report
from t2i_jax.losses import word_scores
from t2i_jax.metrics.arrays import unit
from t2i_jax.metrics.r_precision import TIE
from t2i_jax.metrics.resize import resize
from t2i_jax.metrics.retrieval import retrieval, share
from t2i_jax.run import Run
from t2i_jax.runtime.errors import RunError
from t2i_jax.sample import Sampler, to_uint8
from tfds_builders.facts import entails

STAGE, NETWORKS = 'damsm', ('text', 'image')
WRONG = 99  # captions beside the own one
AT = 1, 5, 10
BLOCK = 200  # pictures that are compared at a time
POOL = 2000  # captions of which it is asked whether they are true of each picture
TILE = 32, 128  # pictures and captions whose words are compared at a time
SHOWN = 5  # pictures that a caption finds, in the report's picture
MOST = 10_000  # pairs of a retrieval, of which each is compared with each
FILTER = 'pil_bicubic'  # to the size that a scorer reads


# ------------------------------------------------------------------------------------------------------------------ scorers
class Scorer:
    """A trained stage as a judge. `decode` and `tag` are those of a reader of pictures, as evaluate.py takes them."""

    def __init__(self, name, sampler, trained_generator=False):
        """name: how its numbers are called. sampler: of its stage, by Sampler.load(workdir, stage=...). Raises RunError where it reads no pictures."""
        if 'image' not in sampler.module.needs:
            raise RunError(
                f'Stage {sampler.name} of scorer {name} was trained on stored features of pictures and cannot see drawn ones. Take another scorer.'
            )
        self.name, self.sampler, self.size = name, sampler, sampler.meta.size
        self.tag = dict(
            name=name,
            stage=sampler.name,
            step=sampler.step,
            weights=weights_of(sampler),
            size=self.size,
            resize=FILTER,
            vocabulary=sampler.vocabulary.hash[:20],
            trained_generator=trained_generator,
        )
        self._code, self._sentence = (
            jax.jit(functools.partial(codes, sampler.program, which))
            for which in ('code', 'sentence')
        )

    def decode(self, images):
        """uint8 n s s 3 -> codes of the whole pictures, n d."""
        pixels = np.asarray(resize(images, self.size, FILTER)) / 127.5 - 1
        words, _, length = self._encoded([''] * len(pixels))
        return self._chunks(self._code, words | dict(image=pixels, length=np.ones_like(length)))

    def read(self, texts):
        """Captions -> (codes n d, ids of what it reads of them n t, how many words or characters it knows n). Beyond its length they are cut."""
        words, ids, length = self._encoded(texts)
        # the pictures beside them are read by nobody: jit leaves their network out
        blank = np.broadcast_to(np.float32(0), (len(texts), self.size, self.size, 3))
        return self._chunks(self._sentence, words | dict(image=blank, length=length)), ids, length

    def _encoded(self, texts):
        if 'chars' in self.sampler.module.needs:
            ids = np.stack([encode_chars(text) for text in texts])
            return {'chars': ids}, ids, (ids > 0).sum(1).astype(np.int32)
        encoded = [self.sampler.vocabulary.encode(text, self.sampler.meta.length) for text in texts]
        ids = np.stack([words for words, _ in encoded])
        return {'tokens': ids}, ids, np.array([n for _, n in encoded], np.int32)

    def _chunks(self, function, batch):
        return np.concatenate(
            [np.asarray(part) for part in in_chunks(self.sampler, function, batch)]
        )[: len(batch['length'])]


def codes(prog, which, params, stats, batch):
    """`codes` of the stage, of which only one is computed."""
    return getattr(core.apply(prog, 'codes', params, stats, batch), which)


def in_chunks(sampler, function, batch):
    """function(params, stats, batch) of each chunk of rows; the last is filled up with its last row."""
    rows = len(batch['length'])
    for start in range(0, rows, sampler.chunk):
        index = np.minimum(np.arange(start, start + sampler.chunk), rows - 1)
        yield function(
            sampler.params,
            sampler.stats,
            {name: jax.device_put(np.asarray(x)[index], sampler.rows) for name, x in batch.items()},
        )


def weights_of(sampler) -> str:
    """A hash of the two encoders of a stage, '' where it lacks one: equal for a DAMSM and for the generator that was trained with it."""
    if not set(NETWORKS) <= {*sampler.params, *sampler.stats}:
        return ''
    leaves = jax.tree_util.tree_leaves_with_path(
        (core.pick(sampler.params, NETWORKS), core.pick(sampler.stats, NETWORKS))
    )
    digest = hashlib.sha256()
    for path, leaf in leaves:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:20]


def scorers(stage, sampler, other='') -> dict[str, Scorer]:
    """Return what judges the pictures of a sampler, {name: Scorer}.

    'own' is the judge that its stage declares, where the run has it; 'run_<name>' that of the
    workdir `other` (or <workdir>/<stage>). Raises RunError where the other one has none, or the
    sampler draws from no sentences.
    """
    if not sampler.reads_text:
        if other:
            raise RunError(
                f'eval.scorer={other} compares pictures with captions, and '
                f'{type(sampler.module).__name__} draws without. Leave it out.'
            )
        return {}
    found, mesh, own = {}, sampler.rows.mesh if sampler.rows else None, weights_of(sampler)

    def scorer(name, loaded):
        one = Scorer(name, loaded)
        # with weight 0 it has no part in the generator's loss
        one.tag['trained_generator'] = bool(
            own and own == one.tag['weights'] and getattr(sampler.module, 'damsm_weight', 1)
        )
        return one

    if other:
        judge = judging(pathlib.Path(other).expanduser().resolve())
        name = f'run_{judge.workdir.name}'
        found[name] = scorer(name, Sampler(judge, chunk=CHUNK, mesh=mesh))
    for name in sampler.module.judges:
        if name not in stage.run.names or own in {one.tag['weights'] for one in found.values()}:
            continue
        judge = stage.run[name]
        try:
            found['own'] = scorer('own', Sampler(judge.source(), chunk=CHUNK, mesh=mesh))
        except RunError as error:
            # an earlier stage of another run, which is gone
            if own:
                # the stage that draws has a copy
                found['own'] = scorer('own', copied(judge, sampler, mesh))
            else:
                print(f'R-precision by the judge of the run itself is left out: {error}')
    return found


def judging(folder):
    """Return the stage that a folder names: that of a run, or its first one that compares.

    Raises RunError where there is none.
    """
    stage = None
    if (folder.parent / 'config.json').exists() and folder.name in Run.open(folder.parent).names:
        folder, stage = folder.parent, folder.name
    run = Run.open(folder)
    stages = [one.name for one in run.stages if one.makes_any(('codes',))]
    if not stages or stage and stage not in stages:
        raise RunError(
            f'eval.scorer: {folder} has no stage{f" {stage}" if stage else ""} that compares '
            'pictures with captions, as a DAMSM does. Name the workdir of a run that has one.'
        )
    return run[stage or stages[0]]


def copied(judge, sampler, mesh):
    """The judge whose networks the checkpoint of a later stage holds."""
    judge = judge.origin()
    weights = tuple(core.pick(tree, NETWORKS) for tree in sampler.weights)
    return Sampler(judge, sampler.step, weights=weights, chunk=CHUNK, mesh=mesh)


# ------------------------------------------------------------------------------------------------------------------ wrong captions
def conventions(split) -> list[str]:
    """Which captions can be told to be wrong ones: by 'entailment', by 'class', by 'picture'."""
    return (
        ['entailment'] * ({'facts', 'scene'} <= set(split.tables))
        + ['class'] * ('label' in split.tables)
        + ['picture']
    )


def right(kind, asked, rows, pool):
    """Which captions of `pool` are no wrong ones for the pictures of `rows`: numbers of what is asked -> bool (rows, pool)."""
    if kind == 'entailment':
        return entails(asked.of('facts')[pool], asked.of('scene')[rows][:, None])
    table = asked.of('label') if kind == 'class' else asked.rows
    return table[rows][:, None] == table[pool]


# ------------------------------------------------------------------------------------------------------------------ R-precision
def readings(asked, judges) -> dict:
    """{name: what a judge reads in the captions that are asked}. Raises RunError for one that knows less than two of them."""
    found = {name: judge.read(asked.texts) for name, judge in judges.items()}
    for name, (_, _, length) in found.items():
        if (length > 0).sum() < 2:
            raise RunError(
                f'Scorer {name} can read {(length > 0).sum()} of {len(length)} captions, and one has nothing to be compared with: take a scorer '
                'that was trained on such captions, or more of them (--config.eval.num).'
            )
    return found


def r_precision(asked, judges, read, pictures, seed, remark=print) -> list:
    """R-precision of each kind of pictures by each judge and convention -> values of a report.

    asked: what was drawn; judges: {name: Scorer}; read: their `readings`; pictures: {kind: {name of a judge: codes n d}}. Captions of which a judge
    knows no word are left out (`without_words`). Where there are fewer than 99 wrong captions, `remark` is told, and there is a smaller gallery.
    """
    values = []
    for name, judge in judges.items():
        texts, tokens, length = read[name]
        known = np.flatnonzero(length)
        few = Rows(asked.split, asked.rows[known], asked.captions[known])
        said = np.unique(tokens[known], axis=0, return_inverse=True)[1].reshape(-1)
        text_codes = unit(texts[known], 'text codes')
        image_codes = {
            kind: unit(found[name][known], f'codes of {kind} pictures')
            for kind, found in pictures.items()
        }
        for kind in conventions(asked.split):
            ranks, wrong, pool = ranked(image_codes, text_codes, said, few, kind)
            n = min(WRONG, int(wrong.min()))
            if n < WRONG:
                remark(
                    f'r_precision_{kind}: a picture has {n} wrong captions, {WRONG} are usual'
                    + (', so they are all it is compared with.' if n else ', so it is left out.')
                    + ' Draw more: --config.eval.num.'
                )
            for which, rank in ranks.items() if n else ():
                values.append(
                    report.averaged(
                        f'r_precision_{kind}',
                        share(rank, wrong, 1, n + 1),
                        seed,
                        few.rows,
                        decoder=name,
                        reader=judge.tag,
                        wrong=kind,
                        negatives=n,
                        chance=1 / (n + 1),
                        pool=pool,
                        without_words=len(length) - len(known),
                        pictures=which,
                    )
                )
    return values


def ranked(image_codes, text_codes, said, asked, kind):
    """({pictures: (n,), the rank of the own caption among the wrong ones}, (n,) how many these are, from how many captions they come)"""
    n = len(text_codes)
    pool = (
        np.unique(np.linspace(0, n - 1, min(n, POOL)).astype(int))
        if kind == 'entailment'
        else np.arange(n)
    )
    ranks, wrong = {which: [] for which in image_codes}, []
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n))
        false = ~(right(kind, asked, rows, pool) | (said[rows][:, None] == said[pool]))
        wrong.append(false.sum(1))
        for which, code in image_codes.items():
            own = (code[rows] * text_codes[rows]).sum(1, keepdims=True)
            ranks[which].append(1 + ((code[rows] @ text_codes[pool].T >= own - TIE) & false).sum(1))
    return (
        {which: np.concatenate(parts) for which, parts in ranks.items()},
        np.concatenate(wrong),
        len(pool),
    )


# ------------------------------------------------------------------------------------------------------------------ retrieval
def compares(module) -> bool:
    """Whether a stage compares pictures with captions and draws nothing."""
    return 'codes' in module.makes


def of_pairs(config, sampler, train, options):
    """How a stage that compares is measured: (a function: split's name and tables -> (values, grid), splits by default, what names the file).

    R@k both ways, by the whole sentences and, of a DAMSM, by their words: among all pairs and among 100, and the median rank. On shape_scenes what a caption
    says of more than its own picture is no wrong answer. Where there are classes, `class` asks for any caption (or picture) of the class among all,
    and for the own one beside 99 of other classes among 100. Raises RunError for options that have no part in this.
    """
    seed = options['seed']
    for name, usual in (('scorer', ''), ('captions', 1)):
        if options[name] != usual:
            raise RunError(
                f'eval.{name}={options[name]} has no part in the evaluation of stage {sampler.name}, which draws nothing: leave it out.'
            )
    if options['num'] > MOST:
        raise RunError(
            f'eval.num={options["num"]}: each picture is compared with each caption, so ask for {MOST:,} at most.'
        )

    def measured(name, split):
        asked = first_rows(split, min(options['num'], len(split)), sampler.meta.captions)
        found, length, said = codes_of(sampler, asked)
        known = np.flatnonzero(length > 0)
        if len(known) < 2:
            raise RunError(
                f'Split {name} has {len(known)} captions with a word that the run knows, and one has nothing to be compared with.'
            )
        n, without = len(known), len(asked.rows) - len(known)
        asked, found, length, said = (
            Rows(split, asked.rows[known], asked.captions[known]),
            jax.tree.map(lambda x: x[known], found),
            length[known],
            said[known],
        )
        scores, values = scores_of(sampler, found, length), []
        kinds = conventions(split)
        for kind in kinds[:1] if kinds[0] == 'entailment' else kinds:
            fits = np.concatenate(
                [
                    right(kind, asked, rows, np.arange(n))
                    for rows in np.array_split(np.arange(n), -(-n // BLOCK))
                ]
            )
            fits |= said[:, None] == said
            for by, matrix in scores.items():
                protocol = dict(decoder=by, wrong=kind, pairs=n, without_words=without)
                own = retrieval(matrix, fits, at=AT, tie=TIE)
                best = (
                    retrieval(matrix, fits, at=AT, tie=TIE, any_right=True)
                    if kind == 'class'
                    else own
                )
                for way in own:
                    values += of_way(
                        way.removeprefix('image_').removeprefix('text_'),
                        kind,
                        best[way],
                        own[way],
                        seed,
                        protocol,
                    )
        best = np.argsort(-scores.get('words', scores['sentences']), 0)[:SHOWN].T[
            :64
        ]  # of each caption

        def shown(rows):
            some = Rows(split, asked.rows[rows], asked.captions[rows])
            return np.concatenate(
                [
                    np.asarray(to_uint8(some.batch(start, start + CHUNK)['image']))
                    for start in range(0, len(rows), CHUNK)
                ]
            )

        grid = shown(best.reshape(-1))
        shapes = *best.shape, *grid.shape[1:]
        return report.tagged(values, split=name, pictures='real'), (
            name,
            grid.reshape(shapes),
            shown(np.arange(min(n, 64))),
            asked.texts[:64],
        )

    return (
        measured,
        ['test', 'test_unseen'] if 'scene' in train.tables else [config.data.validation_split],
        f'{options["num"]}',
        '',
    )


def of_way(way, kind, best, own, seed, protocol) -> list:
    """Values of one way of `retrieval`: R@k and the median rank among all, and, where each query has 99 wrong answers, R@k of its own answer among 100."""
    values, ranks, wrong = [], best['ranks'], own['wrong']
    for k in AT:
        values.append(
            report.averaged(
                f'{way}_R@{k}_{kind}',
                (ranks <= k).astype(float),
                seed,
                chance=best['chance'][k],
                **protocol,
            )
        )
    values.append(
        report.value(f'{way}_median_rank_{kind}', np.median(ranks), n=len(ranks), **protocol)
    )
    for k in AT if wrong.min() >= WRONG else ():
        values.append(
            report.averaged(
                f'{way}_R@{k}_{kind}_of_{WRONG + 1}',
                share(own['ranks'], wrong, k, WRONG + 1),
                seed,
                chance=k / (WRONG + 1),
                **protocol,
            )
        )
    return values


def codes_of(sampler, asked):
    """(codes of all pictures and captions that are asked, how many words or characters of each caption are known, a number for each different caption)"""
    parts, ids, lengths = [], [], []
    function = jax.jit(functools.partial(core.apply, sampler.program, 'codes'))
    for start in range(0, len(asked.rows), CHUNK):
        batch = asked.batch(start, start + CHUNK)
        read = batch['tokens'] if 'tokens' in batch else batch['chars']
        ids.append(np.asarray(read).reshape(len(read), -1))
        lengths.append((ids[-1] > 0).sum(1))
        batch = {
            name: batch[name] for name in ('image', 'tokens', 'length', 'chars') if name in batch
        } | {'length': lengths[-1].astype(np.int32)}
        parts.append(
            jax.tree.map(
                lambda *x: np.concatenate(x)[: len(lengths[-1])],
                *in_chunks(sampler, function, batch),
            )
        )
    said = np.unique(np.concatenate(ids), axis=0, return_inverse=True)[1].reshape(-1)
    return jax.tree.map(lambda *x: np.concatenate(x), *parts), np.concatenate(lengths), said


def scores_of(sampler, found, length):
    """How well each caption fits each picture, float64 (pictures, captions): {'sentences'}, of a DAMSM 'words', too. found, length: of `codes_of`."""
    scores = {'sentences': unit(found.code, 'image codes') @ unit(found.sentence, 'text codes').T}
    if not hasattr(found, 'regions'):
        return scores
    n = len(length)
    pictures, captions = (
        [np.minimum(np.arange(start, start + step), n - 1) for start in range(0, n, step)]
        for step in TILE
    )
    score = jax.jit(functools.partial(word_scores, **sampler.module.words))
    rows = [
        np.concatenate(
            [np.asarray(score(found.regions[i], found.words[j], length[j])) for j in captions], 1
        )[:, :n]
        for i in pictures
    ]
    return {'words': np.concatenate(rows)[:n].astype(np.float64)} | scores
