"""A run, or a folder of pictures, to numbers that can be compared: each with the protocol that made it.

    python -m t2i_jax.main --workdir=runs/quick --mode=evaluate [--config.eval.num=1000]
    python -m t2i_jax.main --mode=evaluate --images=DIR [--captions=FILE] --reference=DIR-or-npz --out=DIR

Pictures are drawn once, in chunks, and handed to everything that reads them: feature networks (distances to the real pictures), readers of
shape scenes (agreement with the caption), pairs of the same caption (diversity). Beside the run's numbers stand those of pictures that
are no system: the real ones, the run's own with other captions, the training picture of the most similar caption, the mean picture.
"""
import functools
import hashlib
import json
import os
import pathlib
import time
from typing import NamedTuple

import cv2
import jax
import numpy as np
from tqdm import tqdm

from t2i_jax import data, sharding
from t2i_jax.augment import augment
from t2i_jax.errors import RunError
from t2i_jax.metrics import layout, report, shape_agreement, shape_net, shape_scenes
from t2i_jax.metrics.bootstrap import interval
from t2i_jax.metrics.diversity import feature_diversity, pairwise
from t2i_jax.metrics.features import extractor
from t2i_jax.metrics.fid import Statistics, bias, fid
from t2i_jax.metrics.inception_score import inception_score
from t2i_jax.metrics.kid import kid
from t2i_jax.metrics.ms_ssim import ms_ssim
from t2i_jax.metrics.prdc import density_coverage, precision_recall
from t2i_jax.sample import Sampler, to_uint8
from t2i_jax.tables import Split

CHUNK = 100                # pictures at a time
OPTIONS = dict(
    name='',               # of the files under <workdir>/eval; by default split, number and step
    split='',              # splits, comma-separated; by default those of the data that are not for training
    num=1000,              # pictures of each split
    captions=1,            # of each real picture that are drawn; where num is larger than all of them, it goes round with others
    seed=0,                # of the noise and of every draw
    weights='ema',         # of the generator: ema or raw
    step=0,                # checkpoint; 0: the newest (or best)
    extractor='',          # feature network: see metrics/features.py; by default one that fits the data, 'none' for none
    extractor_weights='',  # file with its weights, where it needs one
    resize='pil_bicubic',  # to the size that it reads
    splits=10,             # of the Inception Score
    diversity=32,          # captions of which several pictures are compared
    force=False,           # distances from fewer pictures than features
    every=0,               # during training: evaluate each so many steps, 0 = never
    every_num=200,         # on so many pictures
)
PAIRS = 4                  # pictures of one caption that are compared with each other


class Asked(NamedTuple):
    """What is drawn: rows of a split with one caption each."""
    split: Split
    rows: np.ndarray
    captions: np.ndarray

    def batch(self, start, stop):
        """Batch keys as stages read them, without mirroring and random crops; numpy."""
        rows = self.rows[start:stop].astype(np.int32)
        plan = {'index': rows, 'caption': self.captions[start:stop]}
        raw = data.gather(self.split.kept(), plan) | (self.split.pictures.rows(rows) if self.split.lazy else {})
        return jax.tree.map(np.asarray, _centred(raw, self.split.geometry))

    @property
    def texts(self):
        return [self.split.texts[row][which[0]] if self.split.texts[row] else '' for row, which in zip(self.rows, self.captions)]

    def of(self, name):
        """A table's rows; facts are those of the first caption of each."""
        table = self.split.tables[name][self.rows]
        return table[np.arange(len(self.rows)), self.captions[:, 0]] if name == 'facts' else table


def _centred(raw, geometry):
    return jax.jit(augment, static_argnums=(2, 3))(raw, jax.random.key(0), geometry, False)


def ask(split, num, in_row=1, captions=1):
    """`num` rows of a split: `captions` rows for each record, each with other captions, `in_row` in each; going round where there are fewer."""
    number = np.arange(num)
    rows, lap = number // captions % len(split), number // (captions * len(split))
    counts = np.array([max(1, len(split.texts[row])) for row in rows])
    first = rows + number % captions + captions * lap
    return Asked(split, rows, (first[:, None] + np.arange(in_row)) % counts[:, None])


class Drawn(NamedTuple):
    """The pictures of a sampler for what is asked; iterate over chunks of uint8 n s s 3."""
    sampler: Sampler
    asked: Asked
    seed: int

    def __len__(self):
        return len(self.asked.rows)

    def __iter__(self):
        noise = self.sampler.module.noise(jax.random.key(self.seed), len(self))
        for start in range(0, len(self), CHUNK):
            batch = self.asked.batch(start, start + CHUNK)
            part = {name: np.asarray(x)[start:start + CHUNK] for name, x in noise.items()}
            yield self.sampler.draw(batch, part, (len(batch['index']),))['image']


class Real(NamedTuple):
    """The pictures of a split that belong to what is asked."""
    asked: Asked

    def __len__(self):
        return len(self.asked.rows)

    def __iter__(self):
        for start in range(0, len(self), CHUNK):
            yield np.asarray(to_uint8(self.asked.batch(start, start + CHUNK)['image']))


class Files(NamedTuple):
    """The pictures of a folder, which have one size."""
    paths: list

    @classmethod
    def of(cls, folder):
        paths = sorted(p for p in pathlib.Path(folder).rglob('*') if p.suffix.lower() in ('.png', '.jpg', '.jpeg', '.webp', '.bmp'))
        if not paths:
            raise RunError(f'{folder} holds no picture (.png, .jpg, .webp, .bmp).')
        return cls(paths)

    def __len__(self):
        return len(self.paths)

    def __iter__(self):
        first = None
        for start in range(0, len(self), CHUNK):
            chunk = []
            for path in self.paths[start:start + CHUNK]:
                image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
                if image is None:
                    raise RunError(f'{path} cannot be decoded. Repair it, or take it away.')
                first = first or (path, image.shape)
                if image.shape != first[1]:
                    raise RunError(f'{path} has {image.shape[1]} x {image.shape[0]} pixels, {first[0]} {first[1][1]} x {first[1][0]}: '
                                   'bring all to one size first, since the way of resizing changes the numbers.')
                chunk.append(image)
            yield np.stack(chunk)


# ------------------------------------------------------------------------------------------------------------------- measuring
def gathered(pictures, extract, decoders, what):
    """One pass over the pictures: {'features', 'logits', '<decoder>': scene tables, 'sum', 'first', 'digest'}."""
    found, total, first, digest = {}, 0.0, [], hashlib.sha256()
    for images in tqdm(pictures, what, total=-(-len(pictures) // CHUNK), unit=' chunks', leave=False, disable=None):
        parts = extract(images) if extract else {}
        parts |= {name: decode(images) for name, decode in decoders.items()}
        for name, value in parts.items():
            found.setdefault(name, []).append(np.asarray(value))
        total = total + images.astype(np.float64).sum(0)
        digest.update(images.tobytes())
        first += list(images[:max(0, 64 - len(first))])
    return {name: np.concatenate(parts) for name, parts in found.items()} | {
        'mean': total / len(pictures), 'first': np.stack(first), 'digest': digest.hexdigest(), 'n': len(pictures)}


def reference(pictures, extract, decoders, mode, what):
    """As `gathered`, for real pictures; features and readings are kept in the user's cache folder, under a hash of pictures and networks."""
    digest, n = hashlib.sha256(), 0
    for images in pictures:
        digest.update(images.tobytes())
        n += len(images)
    key = hashlib.sha256(json.dumps([digest.hexdigest(), n, extract.tag if extract else '', sorted(decoders), mode, report.version()]).encode()).hexdigest()
    path = pathlib.Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser() / 't2i_jax' / 'reference' / f'{key[:20]}.npz'
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files} | {'digest': digest.hexdigest(), 'n': n}
    found = gathered(pictures, extract, decoders, what)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f'.{os.getpid()}.npz')
    np.savez(unfinished, **{name: value for name, value in found.items() if name not in ('digest', 'n')})
    unfinished.rename(path)
    return found


def distances(found, real, extract, options) -> list:
    """FID, KID, precision, recall, density, coverage and Inception Score of features. FID is left out where there are too few pictures, which
    is said, unless options force it; then it is marked as biased."""
    x, y, suffix = real['features'], found['features'], f'_{extract.metric_prefix}' if extract.metric_prefix else ''
    protocol = dict(extractor=extract.tag, reference=dict(n=int(real['n']), sha256=str(real['digest'])), n=int(found['n']))
    values = []

    def add(metric, value, spread=None, **more):
        values.append(report.value(metric + suffix, value, spread, **protocol, **more))
    few = min(len(x), len(y)) <= x.shape[1]
    if options['force'] or not few:
        add('fid', fid(x, y, force=options['force']), **({'biased': True} if few else {}))
    else:
        print(f'fid{suffix} is left out: {min(len(x), len(y)):,} pictures, {x.shape[1]:,} features. It takes more pictures than features, and 10,000 or '
              f'more to mean much; from so few it would be too high by about {bias(x, len(x), len(y)):.3g} or more. KID needs fewer. eval.force=True '
              'prints it all the same, marked.')
    size = min(1000, len(x), len(y))
    add('kid', *kid(x, y, size=size, seed=options['seed']), subsets=100, subset_size=size)
    precision, recall = precision_recall(x, y)
    density, coverage = density_coverage(x, y)
    for metric, value, k in (('precision', precision, 3), ('recall', recall, 3), ('density', density, 5), ('coverage', coverage, 5)):
        add(metric, value, k=k)
    if 'logits' in found:
        add('inception_score', *inception_score(found['logits'], splits=options['splits'], seed=options['seed']), splits=options['splits'])
    return values


def agreement(scenes, asked_facts, truth, pool, decoder, seed) -> list:
    """How well scene tables fit captions, with 95 % bootstrap intervals over the captions."""
    found = shape_agreement.agreement(scenes, asked_facts)
    found['hallucination'] = shape_agreement.hallucination(scenes, asked_facts, truth)
    found['binding'] = shape_agreement.binding(scenes, asked_facts)
    boxes, labels = shape_agreement.layout(scenes)
    found |= layout.counts(labels, shape_agreement.layout(truth)[1]) | layout.arrangement(boxes, labels)
    few = slice(0, 300)
    found['oracle_r_precision'] = shape_agreement.oracle_r_precision(scenes[few], asked_facts[few], truth[few], pool, seed=seed)
    return [averaged(name, values, seed, decoder=decoder) for name, values in found.items() if np.isfinite(values).any()]


def averaged(name, values, seed, **protocol):
    values = values[np.isfinite(values)]
    return report.value(name, values.mean(), interval=interval(values, seed=seed), n=len(values), **protocol)


def varied(sampler, asked, decoders, extract, options) -> list:
    """Several pictures of each of some captions: how different they are."""
    few = Asked(asked.split, asked.rows[:options['diversity']], asked.captions[:options['diversity']])
    m, k = len(few.rows), 16 if decoders else PAIRS
    batch = {name: np.repeat(np.asarray(x), k, 0) for name, x in few.batch(0, m).items()}
    noise = sampler.module.noise(jax.random.key(options['seed'] + 1), m * k)
    images = sampler.draw(batch, noise, (m, k))['image']
    flat = images.reshape(m * k, *images.shape[2:])
    scales = next((n for n, side in ((None, 40), (2, 20)) if images.shape[2] > side), 1)
    alike, captions = pairwise(images[:, :PAIRS], lambda a, b: ms_ssim(a, b, scales=scales))
    values = [report.value('ms_ssim_same_caption', alike.mean(), interval=interval(alike, captions, seed=options['seed']), n=len(alike),
                           scales=scales or 'as many as fit')]
    if extract:
        spread = feature_diversity(extract(flat)['features'].reshape(m, k, -1))
        values.append(averaged(f'feature_diversity_{extract.metric_prefix or "inception_fid"}', spread, options['seed'], extractor=extract.tag, samples=k))
    for name, decode in decoders.items():
        scenes = decode(flat).reshape(m, k, 9, 8)
        values += [averaged(metric, one, options['seed'], decoder=name, samples=k)
                   for metric, one in shape_agreement.diversity(scenes).items() if np.isfinite(one).any()]
    if decoders:
        values += swapped(sampler, asked, decoders, options)
    return values


def swapped(sampler, asked, decoders, options) -> list:
    """One word of a caption exchanged, the noise kept."""
    from t2i_jax.text import encode_sentences
    found = shape_agreement.swaps(asked.texts, asked.of('facts'), options['seed'])
    if not found or not sampler.reads_text or 'embedding' in sampler.module.needs:
        return []
    noise = sampler.module.noise(jax.random.key(options['seed']), len(asked.rows))
    noise = {name: np.asarray(x)[[row for row, *_ in found]] for name, x in noise.items()}
    texts = [asked.texts[row] for row, *_ in found], [text for _, _, text, _ in found]
    pictures = [sampler.draw(encode_sentences(t, sampler.vocabulary, sampler.meta.length), noise, (len(found),))['image'] for t in texts]
    values = []
    for name, decode in decoders.items():
        before, after = (decode(images) for images in pictures)
        values += [averaged(metric, one, options['seed'], decoder=name)
                   for metric, one in shape_agreement.swap_results(before, after, found).items() if np.isfinite(one).any()]
    return values


# ------------------------------------------------------------------------------------------------------------------- evaluating
def evaluate(config, workdir, **given):
    """Evaluates a run and writes <workdir>/eval/<name>.json and .png -> the report as a dictionary. given: options other than the config's.

    Raises RunError or DataError.
    """
    options = {**OPTIONS, **config.get('eval', {}), **given}
    mesh = sharding.make_mesh(1)
    sampler = Sampler.load(workdir, options['step'] or None, chunk=CHUNK, averaged=options['weights'] == 'ema', mesh=mesh)
    if options['weights'] not in ('ema', 'raw'):
        raise RunError(f'eval.weights is {options["weights"]!r}; it is ema or raw.')
    splits = [name.strip() for name in options['split'].split(',') if name.strip()]
    block = config.stages[sampler.stage]
    needs = tuple(dict.fromkeys(('image', *(n for n in sampler.module.needs if not n.startswith('wrong_')))))

    def opened(name, needs):
        return Split(config.data, name, needs, sampler.vocabulary, {**block.data, 'cache': 'host'})
    train = opened(config.data.split, needs)
    splits = splits or ([config.data.validation_split] if 'scene' not in train.tables else ['test', 'test_unseen'])
    shapes = 'scene' in train.tables
    decoders, mode = readers(config, train)
    extract = chosen_extractor(options, mode if shapes else '', mesh)
    values, grids = [], []
    for name in splits:
        asked = ask(opened(name, (*needs, 'facts') if shapes else needs), options['num'], sampler.meta.captions, options['captions'])
        real = reference(Real(ask(asked.split, options['num'])), extract, {}, mode, f'real {name}')
        drawn = gathered(Drawn(sampler, asked, options['seed']), extract, decoders, f'drawing {name}')
        values += of_split(name, asked, drawn, real, train, extract, decoders, mode, options)
        values += report.tagged(varied(sampler, asked, decoders, extract, options), split=name, pictures='drawn')
        grids.append((name, drawn['first'], next(iter(Real(asked)))[:64], asked.texts[:64]))
    out = dict(
        run=dict(workdir=pathlib.Path(workdir).name, system=config.system, data=train.meta.name, stage=sampler.stage, step=sampler.step,
                 weights=options['weights'], size=sampler.meta.size),
        protocol=dict(num=options['num'], captions=options['captions'], seed=options['seed'], captions_per_row=sampler.meta.captions, splits=splits,
                      version=report.version()),
        values=values, date=time.strftime('%Y-%m-%d %H:%M:%S'))
    label = options['name'] or f'{"_".join(splits)}_{options["num"]}_{options["weights"]}_step{sampler.step}'.replace('/', '_')
    path = pathlib.Path(workdir) / 'eval' / f'{label}.json'
    report.write(out, path, grids)
    print(report.table(out))
    print(f'\nNumbers with their protocol: {path}; picture: {path.with_suffix(".png")}')
    return out


class During:
    """The evaluation of a training run: fewer pictures of the held-out split, no baselines; what does not change is computed once."""

    def __init__(self, config, held_out):
        self.options = {**OPTIONS, **config.get('eval', {})}
        self.asked = ask(held_out, self.options['every_num'], held_out.meta.captions)
        self.decoders, self.mode = readers(config, held_out)
        self.extract = chosen_extractor(self.options, self.mode if self.decoders else '', None)
        self.real = reference(Real(self.asked), self.extract, {}, self.mode, 'real pictures') if self.extract else None

    def __call__(self, sampler) -> dict:
        """{metric: value} of a sampler."""
        drawn = gathered(Drawn(sampler, self.asked, self.options['seed']), self.extract, self.decoders, 'evaluating')
        values = distances(drawn, self.real, self.extract, self.options) if self.extract else []
        out = {one['metric']: one['value'] for one in values}
        for decoder in self.decoders:
            found = shape_agreement.agreement(drawn[decoder], self.asked.of('facts'))
            out |= {f'{name}_{decoder}': float(np.nanmean(values)) for name, values in found.items() if np.isfinite(values).any()}
        return out


def readers(config, split):
    """({name: function pictures -> scene tables}, 'single' or 'multi'): none where the data are no shape scenes."""
    mode = 'multi' if '/multi' in config.data.name else 'single'
    if 'scene' not in split.tables:
        return {}, mode
    trained = {'trained': functools.partial(shape_net.decode_all, mode=mode)} if shape_net.weights_path(mode).exists() else {}
    return {'analytic': functools.partial(shape_scenes.decode_all, mode=mode), **trained}, mode


def chosen_extractor(options, mode, mesh):
    """The feature network that options name, or one that fits the data."""
    name = options['extractor'] or (f'shape_net_{mode}' if mode and shape_net.weights_path(mode).exists() else 'random_conv' if mode else 'efficientnet_lite0')
    if name == 'none':
        return None
    if name.startswith('shape_net_'):
        return ShapeFeatures(name.removeprefix('shape_net_'))
    return extractor(name, options['extractor_weights'], options['resize'], mesh=mesh)


class ShapeFeatures:
    """ShapeNet-cls as a feature network: 256 features, and the 42 pairs of class and colour as classes for the Inception Score's formula."""

    def __init__(self, mode):
        self.mode = mode
        self.tag = dict(name=f'shape_net_{mode}', weights=shape_net.load(mode)[1], resize='area', input_size=shape_net.SIDE)
        self.metric_prefix = f'shape_net_{mode}'

    def __call__(self, images):
        out = shape_net.outputs(images, self.mode)
        return {'features': out['features'], 'logits': out['pairs']}


def of_split(name, asked, drawn, real, train, extract, decoders, mode, options) -> list:
    """All numbers of one split, those of the baselines beside them."""
    n, values = len(asked.rows), []
    if extract:
        values += report.tagged(distances(drawn, real, extract, options), split=name, pictures='drawn')
        spare = reference(Real(ask(train, n)), extract, {}, mode, 'training pictures')
        values += report.tagged(distances(spare, real, extract, options), split=name, pictures='training')
        rng = np.random.default_rng(options['seed'])
        noise = [rng.integers(0, 256, (len(range(start, min(n, start + CHUNK))), *drawn['mean'].shape), np.uint8) for start in range(0, n, CHUNK)]
        values += report.tagged(distances(reference(Listed(noise, n), extract, {}, mode, 'noise'), real, extract, options), split=name, pictures='noise')
    if not decoders:
        return values
    facts, truth, pool = asked.of('facts'), asked.of('scene'), asked.split.tables['facts'].reshape(-1, *asked.split.tables['facts'].shape[2:])
    nearest = np.array(shape_agreement.nearest_captions(asked.texts, [t[i % len(t)] for i, t in enumerate(train.texts)]))
    remembered = Asked(train, nearest, np.zeros((n, asked.captions.shape[1]), np.int64))
    remembered = gathered(Real(remembered), None, decoders, 'remembered')
    shown = reference(Real(asked), None, decoders, mode, 'real')            # the picture of each caption
    mean = np.clip(np.round(real['mean']), 0, 255).astype(np.uint8)
    apart = max(1, min(n, len(asked.split)) // 2)                           # so that the same record does not come again
    for decoder, decode in decoders.items():
        kinds = {'drawn': (drawn[decoder], facts, truth), 'real': (shown[decoder], facts, truth),
                 'shuffled': (drawn[decoder], np.roll(facts, apart, 0), np.roll(truth, apart, 0)),
                 'remembered': (remembered[decoder], facts, truth), 'mean': (np.repeat(decode(mean[None]), n, 0), facts, truth)}
        for pictures, (scenes, said, true) in kinds.items():
            values += report.tagged(agreement(scenes, said, true, pool, decoder, options['seed']), split=name, pictures=pictures)
            found = (scenes[:, :-1, 5] >= 0).sum(1).astype(float)
            values += report.tagged([averaged('objects', found, options['seed'], decoder=decoder)], split=name, pictures=pictures)
    return values


class Listed(NamedTuple):
    chunks: list
    n: int

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter(self.chunks)


def evaluate_files(images, captions=None, reference_=None, out=None, **given):
    """Pictures made elsewhere against real ones: distances, and the protocol. reference_: a folder, or statistics (.npz) of the same network.

    captions: a text file, one sentence a line, shown in the picture. -> the report; written to <out>/evaluation.json and .png.
    """
    options = {**OPTIONS, **given}
    if not reference_:
        raise RunError('--images needs --reference=DIR (real pictures) or --reference=FILE.npz (statistics of them).')
    extract = chosen_extractor(options, '', sharding.make_mesh(1))
    pictures = Files.of(images)
    texts = [''] * len(pictures)
    if captions:
        texts = pathlib.Path(captions).read_text(encoding='utf-8').splitlines() if pathlib.Path(captions).exists() else []
        if len(texts) < len(pictures):
            raise RunError(f'{captions} has {len(texts)} lines, {images} {len(pictures)} pictures: one sentence a picture, in the order of file names.')
    if str(reference_).endswith('.npz'):
        drawn = gathered(pictures, extract, {}, 'reading')
        statistics = Statistics.load(reference_, tag=json.dumps(extract.tag, sort_keys=True))
        name = extract.metric_prefix
        values = [report.value(f'fid_{name}' if name else 'fid', fid(statistics, drawn['features'], force=options['force']), extractor=extract.tag,
                               reference=dict(n=statistics.n, sha256=hashlib.sha256(pathlib.Path(reference_).read_bytes()).hexdigest()), n=len(pictures))]
        first = drawn['first']
    else:
        real = reference(Files.of(reference_), extract, {}, '', 'reference')
        drawn = gathered(pictures, extract, {}, 'reading')
        if real['mean'].shape != drawn['mean'].shape:
            raise RunError(f'{reference_} has pictures of {real["mean"].shape[1]} x {real["mean"].shape[0]} pixels, {images} of '
                           f'{drawn["mean"].shape[1]} x {drawn["mean"].shape[0]}. Bring both to one size by the same filter.')
        values, first = distances(drawn, real, extract, options), real['first']
    result = dict(run=dict(workdir=str(images), system='-', data=str(reference_), stage='-', step=0, weights='-', size=int(drawn['mean'].shape[0])),
                  protocol=dict(num=len(pictures), captions=1, seed=options['seed'], captions_per_row=1, splits=[''], version=report.version()),
                  values=report.tagged(values, pictures='drawn'), date=time.strftime('%Y-%m-%d %H:%M:%S'))
    path = pathlib.Path(out or images) / 'evaluation.json'
    report.write(result, path, [('pictures', drawn['first'], first[:len(drawn['first'])] if len(first) >= len(drawn['first']) else drawn['first'], texts)])
    print(report.table(result))
    print(f'\nNumbers with their protocol: {path}; picture: {path.with_suffix(".png")}')
    return result
