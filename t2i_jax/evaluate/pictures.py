"""Numbers of the pictures that a stage makes: distances, agreement with captions, variety.

Pictures are sampled once, in chunks, and given to everything that reads them: a feature network
(distances to the real pictures), readers of shape scenes (agreement with the caption), judges
(R-precision). Several samples of one caption say how varied they are. The run's numbers are
compared with those of pictures that no system made:

    real         the real pictures of the captions
    training     training pictures
    noise        noise
    shuffled     the run's own pictures, with the captions of other records
    remembered   the training picture of the most similar caption
    mean         the mean real picture

What the stage measures itself (`measure`) joins the table.
"""

import jax
import numpy as np

from t2i_jax.data.conditions import captions_of
from t2i_jax.data.feed import Rows, first_rows
from t2i_jax.data.text import encode_sentences
from t2i_jax.evaluate import report
from t2i_jax.evaluate.captions import redescribed
from t2i_jax.evaluate.crops import ObjectReader
from t2i_jax.evaluate.features import choose_extractor
from t2i_jax.evaluate.judges import captioners_of, judges_of
from t2i_jax.evaluate.matching import r_precision, readings
from t2i_jax.evaluate.measures import Kind, Measure, attempted, distances, once, silent
from t2i_jax.evaluate.report import HIGHER, LOWER, Headline
from t2i_jax.evaluate.sources import (
    FIRST,
    Noise,
    Real,
    Sampled,
    each_once,
    read,
    read_cached,
)
from t2i_jax.metrics import layout
from t2i_jax.metrics.diversity import feature_diversity, pairwise
from t2i_jax.metrics.ms_ssim import ms_ssim
from t2i_jax.scenes import agreement as scene_agreement
from t2i_jax.scenes.readers import readers

# who reads pictures of scenes, and who judges how they fit captions, the best one first
READERS, JUDGES = ('trained', 'analytic'), ('run_*', 'own*')
HEADLINE = (
    Headline('fid*', LOWER, ('training',)),
    Headline('kid*', LOWER, ('training',)),
    Headline('precision*', HIGHER, ('training',)),
    Headline('recall*', HIGHER, ('training',)),
    Headline('sem_acc', HIGHER, by=READERS),
    Headline('class_colour', HIGHER, by=READERS),
    # in place by readers of scenes, on crops where there are none
    Headline('object_*', HIGHER, ('true_masks', 'true_boxes', 'real'), by=(*READERS, '*')),
    Headline('attribute_position', HIGHER, by=READERS),
    Headline('r_precision_*', HIGHER, by=JUDGES),
    Headline('redescribed_all', HIGHER),
    Headline('inception_score*', HIGHER, ('training',)),
    Headline('ms_ssim_same_caption', LOWER),
)
# samples of one caption that are compared with each other, and those whose scenes are
PAIRS, SCENES = 4, 16
# pictures whose objects are looked at where no reader of scenes reads them
PLACED = 500
# pictures of which the oracle's R-precision is computed, which takes long
RANKED = 300


class Images(Kind):
    """Pictures, and how well they fit what they were sampled for."""

    fields = ('image',)
    headline = HEADLINE

    def __init__(self, stage, sampler, train, options):
        super().__init__(stage, sampler, train, options)
        scenes, mesh = train.meta.scenes, sampler.rows.mesh if sampler.rows else None
        self.judges = judges_of(stage, sampler, options['scorer'])
        self.captioners = captioners_of(options['scorer'], mesh)
        self.readers = readers(scenes)
        if self.readers and 'trained' not in self.readers:
            print(
                f'ShapeNet-cls has no weights for {scenes!r} scenes, so only the analytic reader '
                'is used; experiments/shape_net.py says how to train it.'
            )
        self.extract = choose_extractor(options, scenes, mesh)
        self.measure, self.remark = Measure(sampler), once()
        if self.readers:
            self.splits = ['test', 'test_unseen']
        in_row = sampler.meta.captions
        self.protocol = dict(captions=options['captions'], captions_per_row=in_row)
        self.size = f'{options["num"]}x{options["captions"]}'
        if self.extract:
            resize = self.extract.tag['resize'].replace(' ', '-').replace(',', '')
            self.networks = f'_{self.extract.tag["name"]}_{resize}'
        others = [name for name in self.judges | self.captioners if not name.startswith('own')]
        self.networks += ''.join(f'_scorer-{name.removeprefix("run_")}' for name in others)

    def __call__(self, name, split):
        num, seed, in_row = self.options['num'], self.options['seed'], self.sampler.meta.captions
        rows = first_rows(split, num, in_row, self.options['captions'])
        # before the sampling, which takes long
        read_by_judges = readings(rows, self.judges)
        samples = Sampled(self.sampler, rows, seed)
        all_readers = self.readers | self.judges | self.captioners
        sampled = read(samples, self.extract, all_readers, f'sampling {name}')

        values = self.set_distances(rows, sampled, f'real {name}') if self.extract else []
        values += self.agreements(rows, sampled) if self.readers else []
        kinds = {'drawn': sampled}
        if self.sampler.module.truths:
            found, more = self.of_truths(rows, name)
            values, kinds = values + found, kinds | more
        if read_by_judges:
            kinds['real'] = read_cached(Real(rows), None, self.judges, 'real pictures')
            values += r_precision(rows, self.judges, read_by_judges, kinds, seed)
        for who, captioner in self.captioners.items():
            real = read_cached(Real(rows), None, {who: captioner}, 'real pictures')
            for kind, found in (('drawn', sampled), ('real', real)):
                found = redescribed(found[who], rows, seed)
                values += report.tagged(found, pictures=kind, **read_by(captioner))
        once = first_rows(split, min(num, len(split)), in_row)
        own = variety(self.sampler, rows, self.readers, self.extract, self.options)
        if self.readers:
            own += swaps(self.sampler, rows, self.readers, seed)
        own += report.averages(self.measure(once, seed), seed)
        values = report.tagged(values + report.tagged(own, pictures='drawn'), split=name)

        texts = rows.texts[:FIRST]
        if 'attributes' in split.tables and not self.sampler.reads_text:
            vectors = {'attributes': rows.of('attributes')[:FIRST]}
            texts = captions_of(vectors, split.meta) or texts
        return values, (name, sampled['first'], next(iter(Real(rows)))[:FIRST], texts)

    def set_distances(self, rows, sampled, what) -> list:
        """Distances to the real pictures of the split, of the samples, training pictures, noise."""
        num, extract = self.options['num'], self.extract
        noise = Noise(len(rows.rows), sampled['mean'].shape, self.options['seed'])
        real = read_cached(each_once(rows.split, num), extract, {}, what)
        sets = {
            'drawn': sampled,
            'training': read_cached(each_once(self.train, num), extract, {}, 'training pictures'),
            'noise': read_cached(noise, extract, {}, 'noise'),
        }
        values = []
        for pictures, found in sets.items():
            remark = self.remark if pictures == 'drawn' else silent
            found = distances(found, real, extract, self.options, remark)
            values += report.tagged(found, pictures=pictures)
        return values

    def of_truths(self, rows, name) -> tuple[list, dict]:
        """Numbers of pictures that are drawn of parts of the truth, such as true layouts.

        And how often the objects of a layout, given or made, stand in their places in the picture,
        or are known by a reader of crops. Also {kind of pictures: what was read of them}.
        """
        values, kinds, readings = [], {'drawn': {}, **self.sampler.module.truths}, {}
        # readers of scenes know objects exactly
        ask = self.extract and not self.readers
        crops = ObjectReader.fitted(self.extract, self.train) if ask else None
        if crops:
            values += report.tagged(crops.of_data(rows, self.options['seed']), pictures='real')
        for kind, given in kinds.items():
            found = []
            if given:
                samples = Sampled(self.sampler, rows, self.options['seed'], given)
                readers = self.readers | self.judges
                sampled = read(samples, self.extract, readers, f'sampling {name}, {kind}')
                readings[kind] = sampled
                found += self.distances_to_real(rows, sampled, kind)
                for who, reader in self.readers.items():
                    found += agreement(sampled[who], rows, reader, self.options['seed'], rows.rows)
            found += in_their_places(self.sampler, rows, self.readers, crops, given, self.options)
            values += report.tagged(found, pictures=kind)
        return values, readings

    def distances_to_real(self, rows, sampled, what) -> list:
        """Distances of one set of pictures to the real ones of the split; [] without features."""
        if not self.extract:
            return []
        real = read_cached(each_once(rows.split, self.options['num']), self.extract, {}, what)
        return distances(sampled, real, self.extract, self.options, silent)

    def agreements(self, rows, sampled) -> list:
        """Agreement with the captions, of the samples and of pictures that no system made."""
        n, seed = len(rows.rows), self.options['seed']
        nearest = np.array(scene_agreement.nearest_records(rows.texts, self.train.texts))
        first = np.zeros((n, rows.captions.shape[1]), np.int64)
        remembered = Real(Rows(self.train, nearest, first))
        remembered = read_cached(remembered, None, self.readers, 'remembered')
        real = read_cached(Real(rows), None, self.readers, 'real pictures')
        mean = np.clip(np.round(real['mean']), 0, 255).astype(np.uint8)[None]
        others, values = other_records(rows), []
        for name, reader in self.readers.items():
            kinds = {
                'drawn': (sampled[name], rows),
                'real': (real[name], rows),
                'shuffled': (sampled[name], others),
                'remembered': (remembered[name], rows),
                'mean': (np.repeat(reader.decode(mean), n, 0), rows),
            }
            for pictures, (scenes, conditions) in kinds.items():
                found = agreement(scenes, conditions, reader, seed, rows.rows)
                values += report.tagged(found, pictures=pictures)
        return values


def in_their_places(sampler, rows, readers, crops, given, options) -> list:
    """Measure how many objects of layouts are seen in their places, class by class of things.

    crops: an ObjectReader or None. given: as `Sampled` takes it.
    """
    few, seed = rows.take(slice(options['diversity'] if readers else PLACED)), options['seed']
    n = len(few.rows)
    if not n or not (readers or crops):
        return []
    batch = few.batch()
    batch |= {key: batch[name] for key, name in given.items()}
    out = sampler.sample(batch, sampler.module.noise(jax.random.key(seed), n), (n,))
    values = []
    for reader in readers.values():
        found = scene_agreement.found_at(
            reader.decode(out['image']), out['boxes'], out['object_labels']
        )
        there = (out['object_labels'] >= 0).any(1)
        share = np.where(there, np.nanmean(np.where(there[:, None], found, 0), 1), np.nan)
        values += report.averages({'object_in_place': share}, seed, **read_by(reader))
    if crops:
        values += crops.of(out['image'], out['boxes'], out['object_labels'], seed)
    return values


def other_records(rows) -> Rows:
    """Return as many rows of other records, half a split away."""
    size = len(rows.split)
    captions = first_rows(rows.split, len(rows.rows)).captions
    return Rows(rows.split, (rows.rows + max(1, size // 2)) % size, captions)


def attribute_vectors(rows):
    """Return the attribute vectors of scenes of one object, which readers check; else None."""
    split = rows.split
    single = split.meta.scenes == 'single' and 'attributes' in split.tables
    return rows.of('attributes') if single else None


def agreement(scenes, rows, reader, seed, groups) -> list:
    """Measure how well scenes fit captions, the captions' own scenes, and attribute vectors.

    scenes: what a reader saw in pictures, a table each
    rows: records whose captions the pictures were sampled for
    groups: the record of each picture
    """
    facts, truth = rows.of('facts'), rows.of('scene')
    found = scene_agreement.agreement(scenes, facts)
    found['hallucination'] = scene_agreement.hallucination(scenes, facts, truth)
    found['binding'] = scene_agreement.binding(scenes, facts)
    found |= scene_agreement.scene_match(scenes, truth)
    found |= layout.against(*scene_agreement.layout(scenes), *scene_agreement.layout(truth))
    found['objects'] = (scenes[:, :-1, 5] >= 0).sum(1).astype(float)
    pool = rows.split.tables['facts'].reshape(-1, *facts.shape[1:])
    ranked, few = np.full(len(scenes), np.nan), slice(0, RANKED)
    oracle = scene_agreement.oracle_r_precision
    ranked[few] = oracle(scenes[few], facts[few], truth[few], pool, seed=seed)
    found['oracle_r_precision'] = ranked
    vectors = attribute_vectors(rows)
    if vectors is not None:
        found |= scene_agreement.attribute_accuracy(scenes, vectors)
    return report.averages(found, seed, groups, **read_by(reader))


def read_by(reader) -> dict:
    """Return what the protocol says of a reader."""
    return dict(decoder=reader.tag['name'], reader=reader.tag)


def variety(sampler, rows, readers, extract, options) -> list:
    """Measure how different several samples of each of some captions are."""
    few, seed = rows.take(slice(options['diversity'])), options['seed']
    m, k = len(few.rows), SCENES if readers else PAIRS
    if not m:
        return []
    batch = jax.tree.map(lambda x: np.repeat(np.asarray(x), k, 0), few.batch())
    noise = sampler.module.noise(jax.random.key(seed + 1), m * k)
    images = sampler.sample(batch, noise, (m, k))['image']
    flat = images.reshape(m * k, *images.shape[2:])
    scales = next((n for n, side in ((5, 160), (3, 40), (2, 20)) if images.shape[2] > side), 1)

    def alike():
        found = pairwise(images[:, :PAIRS], lambda a, b: ms_ssim(a, b, scales=scales))
        return [report.averaged(name, found[0], seed, found[1], scales=scales)]

    def apart():
        spread = feature_diversity(extract(flat)['features'].reshape(m, k, -1))
        return [report.averaged(name, spread, seed, extractor=extract.tag, samples=k)]

    name = 'ms_ssim_same_caption'
    values = attempted(name, alike)
    if extract:
        name = f'feature_diversity_{extract.metric_prefix or "inception_fid"}'
        values += attempted(name, apart)
    for reader in readers.values():
        scenes = reader.decode(flat)
        found = scene_agreement.diversity(scenes.reshape(m, k, *scenes.shape[1:]), few.of('facts'))
        values += report.averages(found, seed, **read_by(reader), samples=k)
    return values


def swaps(sampler, rows, readers, seed) -> list:
    """Measure what happens when one word of a caption is exchanged and the noise stays."""
    texts, facts = rows.texts, rows.of('facts')
    swapped = scene_agreement.swaps(texts, facts, seed)
    if not swapped or not sampler.reads_new_text:
        return []
    noise = sampler.module.noise(jax.random.key(seed), len(rows.rows))
    noise = {name: np.asarray(x)[[row for row, *_ in swapped]] for name, x in noise.items()}

    def samples(texts):
        batch = encode_sentences(texts, sampler.vocabulary, sampler.meta.length)
        return sampler.sample(batch, noise, (len(swapped),))['image']

    before = samples([texts[row] for row, *_ in swapped])
    after = samples([text for _, _, text, _ in swapped])
    values = []
    for reader in readers.values():
        scenes = reader.decode(before), reader.decode(after)
        found = scene_agreement.swap_results(*scenes, swapped, facts)
        values += report.averages(found, seed, **read_by(reader))
    return values
