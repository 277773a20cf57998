"""Captions that a stage reads off real pictures, against those that people wrote.

| metric | source |
|---|---|
| bleu_1 ... bleu_4 | Papineni et al., 2002, of the whole set |
| rouge_l | Lin, 2004 |
| cider_d | Vedantam et al., 2015; n-grams weigh by how few of these pictures have them |
| caption_* | shape_scenes: whether what a caption says is true (scenes/captions.py) |

All captions of a picture are its references, in words of the library's tokenizer. They are compared
with

    shuffled       the stage's captions of other pictures
    people         the first reference of each picture, against its others
"""

import jax
import numpy as np

from t2i_jax.data.feed import CHUNK, first_rows
from t2i_jax.data.text import tokenize
from t2i_jax.draw.outputs import texts_of
from t2i_jax.evaluate import report
from t2i_jax.evaluate.measures import Kind, Unmeasurable
from t2i_jax.evaluate.report import HIGHER, Headline
from t2i_jax.evaluate.sources import Real
from t2i_jax.metrics.bleu import corpus_bleu
from t2i_jax.metrics.cider import cider_d, document_frequencies
from t2i_jax.metrics.rouge import rouge_l
from t2i_jax.runtime.errors import RunError
from t2i_jax.scenes.captions import same, truth

# pictures of the report
SHOWN = 64


class Captions(Kind):
    """Captions of real pictures. Raises RunError for a stage that reads none."""

    fields = ('image',)
    headline = tuple(
        Headline(name, HIGHER, ('shuffled',))
        for name in (
            *('bleu_1', 'bleu_4', 'rouge_l', 'cider_d'),
            *('caption_true', 'caption_class', 'caption_colour'),
        )
    )

    def __init__(self, stage, sampler, train, options):
        super().__init__(stage, sampler, train, options)
        if 'image' not in sampler.draws_from:
            raise RunError(
                f'Stage {sampler.name} makes sentences, but not of pictures: there is nothing that '
                'they are compared with.'
            )
        for name, usual in (('scorer', ''), ('captions', 1)):
            if options[name] != usual:
                raise RunError(
                    f'eval.{name}={options[name]} has no part in the evaluation of stage '
                    f'{sampler.name}, which makes no pictures: leave it out.'
                )
        if 'scene' in train.tables:
            self.splits = ['test', 'test_unseen']

    def __call__(self, name, split):
        rows = first_rows(split, min(self.options['num'], len(split)))
        rows = rows.take(np.flatnonzero([bool(split.texts[row]) for row in rows.rows]))
        if len(rows.rows) < 2:
            raise Unmeasurable(f'Split {name} has {len(rows.rows)} pictures with captions.')
        written = captions_of(self.sampler, rows, self.options['seed'])
        references = [[tokenize(text) for text in split.texts[row]] for row in rows.rows]
        # the same captions, each with the next picture
        others = {'real': written, 'shuffled': written[1:] + written[:1]}
        values, who = [], self.sampler.name
        scenes = rows.of('scene') if 'scene' in split.tables else None
        for kind, captions in others.items():
            found = compared(captions, references, self.options['seed'])
            if scenes is not None:
                right = truth(split.meta.scenes, captions, scenes)
                found += report.averages(right, self.options['seed'])
            values += report.tagged(found, pictures=kind, decoder=who)
        if all(len(own) > 1 for own in references):
            first = [' '.join(own[0]) for own in references]
            found = compared(first, [own[1:] for own in references], self.options['seed'])
            values += report.tagged(found, pictures='real', decoder='people')
        few = next(iter(Real(rows.take(slice(SHOWN)))))
        return report.tagged(values, split=name), (name, few, None, written[: len(few)])


def compared(captions, references, seed) -> list:
    """Compare captions with lists of tokens of each -> values."""
    n = float(np.mean([len(own) for own in references]))
    more, count = dict(references=round(n, 2)), len(captions)
    bleu = enumerate(corpus_bleu(captions, references), start=1)
    values = [report.value(f'bleu_{i}', one, n=count, **more) for i, one in bleu]
    frequencies = document_frequencies(references)
    found = {
        'rouge_l': rouge_l(captions, references),
        'cider_d': cider_d(captions, references, frequencies),
    }
    return values + report.averages(found, seed, **more)


def redescribed(written, rows, seed) -> list:
    """Compare what a captioner wrote of pictures with the captions of rows, their conditions.

    `bleu_*`, `rouge_l`, `cider_d`, with the one caption of each as reference, and on shape_scenes
    `redescribed_*` (scenes/captions.py).
    """
    values = compared(list(written), [[tokenize(text)] for text in rows.texts], seed)
    return values + report.averages(same(rows.split.meta.scenes, written, rows.texts), seed)


def captions_of(sampler, rows, seed) -> list[str]:
    """Let a stage caption the pictures of rows."""
    texts, noise = [], sampler.module.noise(jax.random.key(seed), len(rows.rows))
    for start in range(0, len(rows.rows), CHUNK):
        batch = {'image': rows.batch(start, start + CHUNK)['image']}
        part = {name: np.asarray(x)[start : start + CHUNK] for name, x in noise.items()}
        found = sampler.sample(batch, part, (len(batch['image']), 1))
        texts += [one for (one,) in texts_of(found['tokens'], sampler.vocabulary)]
    return texts
