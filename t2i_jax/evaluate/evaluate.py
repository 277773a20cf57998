"""A run, or a folder of pictures, to numbers that can be compared: each with the protocol that made it.

    t2i_jax --workdir=runs/quick --mode=evaluate [--config.eval.num=1000]
    t2i_jax --mode=evaluate --images=DIR [--captions=FILE] --reference=DIR-or-npz --out=DIR

Pictures are drawn once, in chunks, and handed to everything that reads them: feature networks (distances to the real pictures), readers of
shape scenes (agreement with the caption), pairs of the same caption (diversity). Beside the run's numbers stand those of pictures that
are no system: the real ones, training pictures, noise, the run's own with other captions, the training picture of the most similar caption,
the mean picture. A stage that draws boxes is measured by evaluate_layouts.py, one that compares pictures with captions (DAMSM) by evaluate_matching.py,
which also has R-precision. What a stage measures itself (`measure`) joins the table.
"""

import functools
import hashlib
import json
import os
import pathlib
import time

import jax
import numpy as np
from tqdm import tqdm

from t2i_jax.config import EVAL, defaults
from t2i_jax.data.conditions import captions_of
from t2i_jax.data.feed import CHUNK, Rows, first_rows
from t2i_jax.data.text import encode_sentences
from t2i_jax.draw.outputs import DRAWN
from t2i_jax.evaluate import layouts as evaluate_layouts
from t2i_jax.evaluate import matching as evaluate_matching
from t2i_jax.evaluate import report
from t2i_jax.evaluate.features import extractor
from t2i_jax.evaluate.measures import Measure
from t2i_jax.evaluate.sources import Drawn, Files, Noise, Real, reals
from t2i_jax.metrics import layout
from t2i_jax.metrics.diversity import feature_diversity, pairwise
from t2i_jax.metrics.fid import Statistics, bias, fid
from t2i_jax.metrics.inception_score import inception_score
from t2i_jax.metrics.kid import kid
from t2i_jax.metrics.ms_ssim import ms_ssim
from t2i_jax.metrics.prdc import density_coverage, precision_recall
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import RunError, choose
from t2i_jax.sample import Sampler
from t2i_jax.scenes import agreement as shape_agreement
from t2i_jax.scenes.readers import ShapeFeatures, has_features, readers

OPTIONS = defaults(EVAL)
PAIRS = 4  # pictures of one caption that are compared with each other


def chosen_extractor(options, mode='', mesh=None):
    """The feature network that options name, or one that fits the data; mode: of shape scenes. None for 'none'."""
    fitting = (
        'efficientnet_lite0'
        if not mode
        else f'shape_net_{mode}'
        if has_features(mode)
        else 'random_conv'
    )
    name = options['extractor'] or fitting
    if name == 'none':
        return None
    if name.startswith('shape_net_'):
        return ShapeFeatures(name.removeprefix('shape_net_'))
    return extractor(name, options['extractor_weights'], options['resize'], mesh=mesh)


# ------------------------------------------------------------------------------------------------------------------- measuring
def gathered(pictures, extract, decoders, what):
    """One pass over the pictures: {'features', 'logits', <decoder>: scene tables, 'mean', 'first', 'digest', 'n'}."""
    found, total, first, digest, n = {}, 0.0, [], hashlib.sha256(), 0
    for images in tqdm(
        pictures, what, total=-(-len(pictures) // CHUNK), unit=' chunks', leave=False, disable=None
    ):
        parts = extract(images, first=n) if extract else {}
        for name, value in parts.items():
            bad = np.flatnonzero(~np.isfinite(value).all(1))
            if len(bad):
                which = (
                    pictures.name(n + bad[0])
                    if hasattr(pictures, 'name')
                    else f'picture {n + bad[0]} of {what}'
                )
                raise RunError(
                    f'The {name} of {which} are not finite ({extract.tag["name"]}). Look at that picture and at the weights.'
                )
        parts |= {name: reader.decode(images) for name, reader in decoders.items()}
        for name, value in parts.items():
            found.setdefault(name, []).append(np.asarray(value))
        total = total + images.astype(np.float64).sum(0)
        digest.update(images.tobytes())
        first += list(images[: max(0, 64 - len(first))])
        n += len(images)
    return {name: np.concatenate(parts) for name, parts in found.items()} | {
        'mean': total / n,
        'first': np.stack(first),
        'digest': digest.hexdigest(),
        'n': n,
    }


def reference(pictures, extract, decoders, what):
    """As `gathered`; features and readings are kept in the user's cache folder, under a hash of the pictures and all that read them."""
    digest, n = hashlib.sha256(), 0
    for images in pictures:
        digest.update(images.tobytes())
        n += len(images)
    shape = list(images.shape[1:])
    read_by = [
        extract.tag if extract else None,
        {name: reader.tag for name, reader in decoders.items()},
    ]
    key = hashlib.sha256(
        json.dumps(
            [digest.hexdigest(), n, shape, read_by, report.version()], sort_keys=True
        ).encode()
    ).hexdigest()
    path = (
        pathlib.Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser()
        / 't2i_jax'
        / 'reference'
        / f'{key[:20]}.npz'
    )
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files} | {
                'digest': digest.hexdigest(),
                'n': n,
            }
    found = gathered(pictures, extract, decoders, what)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f'.{os.getpid()}.npz')
    np.savez(
        unfinished, **{name: value for name, value in found.items() if name not in ('digest', 'n')}
    )
    unfinished.rename(path)
    return found


def distances(found, real, extract, options, remark=print) -> list:
    """FID, KID, precision, recall, density, coverage and Inception Score of features. FID is left out where there are too few pictures, which
    `remark` is told, unless options force it; then it is marked as biased."""
    x, y, suffix = (
        real['features'],
        found['features'],
        f'_{extract.metric_prefix}' if extract.metric_prefix else '',
    )
    protocol = dict(
        extractor=extract.tag,
        reference=dict(n=int(real['n']), sha256=str(real['digest'])),
        n=int(found['n']),
    )
    values, few = [], min(len(x), len(y)) <= x.shape[1]

    def add(metric, value, spread=None, **more):
        values.append(report.value(metric + suffix, value, spread, **protocol, **more))

    if options['force'] or not few:
        add('fid', fid(x, y, force=options['force']), **({'biased': True} if few else {}))
    else:
        remark(
            f'fid{suffix} is left out: {min(len(x), len(y)):,} pictures, {x.shape[1]:,} features. It takes more pictures than features, and 10,000 or '
            f'more to mean much; from so few it would be too high by about {bias(x, len(x), len(y)):.3g} or more. KID needs fewer. To print it all '
            'the same, marked: --config.eval.force=True (with --images: --force).'
        )
    size = max(2, min(1000, len(x) // 2, len(y) // 2))
    add('kid', *kid(x, y, size=size, seed=options['seed']), subsets=100, subset_size=size)
    precision, recall = precision_recall(x, y)
    density, coverage = density_coverage(x, y)
    for metric, value, k in (
        ('precision', precision, 3),
        ('recall', recall, 3),
        ('density', density, 5),
        ('coverage', coverage, 5),
    ):
        add(metric, value, k=k)
    if 'logits' in found:
        add(
            'inception_score',
            *inception_score(found['logits'], splits=options['splits'], seed=options['seed']),
            splits=options['splits'],
        )
    return values


def agreement(scenes, asked, facts, truth, reader, seed, attributes=None) -> list:
    """How well scene tables fit captions, the scenes that these were written for, and, for a stage that reads them, attribute vectors."""
    found = shape_agreement.agreement(scenes, facts)
    found['hallucination'] = shape_agreement.hallucination(scenes, facts, truth)
    found['binding'] = shape_agreement.binding(scenes, facts)
    found |= layout.against(*shape_agreement.layout(scenes), *shape_agreement.layout(truth))
    found['objects'] = (scenes[:, :-1, 5] >= 0).sum(1).astype(float)
    pool = asked.split.tables['facts'].reshape(-1, *facts.shape[1:])
    ranked = np.full(len(scenes), np.nan)
    few = slice(0, 300)
    ranked[few] = shape_agreement.oracle_r_precision(
        scenes[few], facts[few], truth[few], pool, seed=seed
    )
    found['oracle_r_precision'] = ranked
    if attributes is not None:
        found |= shape_agreement.attribute_accuracy(scenes, attributes)
    return report.averages(found, seed, asked.rows, decoder=reader.tag['name'], reader=reader.tag)


def varied(sampler, asked, decoders, extract, options) -> list:
    """Several pictures of each of some captions: how different they are."""
    few = Rows(
        asked.split, asked.rows[: options['diversity']], asked.captions[: options['diversity']]
    )
    m, k, seed = len(few.rows), 16 if decoders else PAIRS, options['seed']
    batch = jax.tree.map(lambda x: np.repeat(np.asarray(x), k, 0), few.batch(0, m))
    images = sampler.sample(batch, sampler.module.noise(jax.random.key(seed + 1), m * k), (m, k))[
        'image'
    ]
    flat = images.reshape(m * k, *images.shape[2:])
    scales = next((n for n, side in ((5, 160), (3, 40), (2, 20)) if images.shape[2] > side), 1)
    alike, captions = pairwise(images[:, :PAIRS], lambda a, b: ms_ssim(a, b, scales=scales))
    values = [report.averaged('ms_ssim_same_caption', alike, seed, captions, scales=scales)]
    if extract:
        spread = feature_diversity(extract(flat)['features'].reshape(m, k, -1))
        values.append(
            report.averaged(
                f'feature_diversity_{extract.metric_prefix or "inception_fid"}',
                spread,
                seed,
                extractor=extract.tag,
                samples=k,
            )
        )
    for reader in decoders.values():
        scenes = reader.decode(flat)
        scenes = scenes.reshape(m, k, *scenes.shape[1:])
        found = shape_agreement.diversity(scenes, few.of('facts'))
        values += report.averages(
            found, seed, decoder=reader.tag['name'], reader=reader.tag, samples=k
        )
    return values + (swapped(sampler, asked, decoders, options) if decoders else [])


def swapped(sampler, asked, decoders, options) -> list:
    """One word of a caption exchanged, the noise kept."""
    found = shape_agreement.swaps(asked.texts, asked.of('facts'), options['seed'])
    if not found or not sampler.reads_text or 'embedding' in sampler.module.needs:
        return []
    noise = sampler.module.noise(jax.random.key(options['seed']), len(asked.rows))
    noise = {name: np.asarray(x)[[row for row, *_ in found]] for name, x in noise.items()}
    texts = [asked.texts[row] for row, *_ in found], [text for _, _, text, _ in found]
    pictures = [
        sampler.sample(
            encode_sentences(t, sampler.vocabulary, sampler.meta.length), noise, (len(found),)
        )['image']
        for t in texts
    ]
    values = []
    for reader in decoders.values():
        results = shape_agreement.swap_results(
            *(reader.decode(images) for images in pictures), found, asked.of('facts')
        )
        values += report.averages(
            results, options['seed'], decoder=reader.tag['name'], reader=reader.tag
        )
    return values


def of_split(name, asked, drawn, train, extract, decoders, mode, options) -> list:
    """All numbers of one split, those of the baselines beside them."""
    n, seed, values = len(asked.rows), options['seed'], []
    if extract:
        real = reference(reals(asked.split, options['num']), extract, {}, f'real {name}')
        sets = {
            'drawn': drawn,
            'training': reference(reals(train, options['num']), extract, {}, 'training pictures'),
            'noise': reference(Noise(n, drawn['mean'].shape, seed), extract, {}, 'noise'),
        }
        for pictures, found in sets.items():
            remark = print if pictures == 'drawn' else lambda message: None
            values += report.tagged(
                distances(found, real, extract, options, remark), split=name, pictures=pictures
            )
    if not decoders:
        return values
    other = first_rows(asked.split, n)  # the captions of other records
    other = Rows(
        asked.split, (asked.rows + max(1, len(asked.split) // 2)) % len(asked.split), other.captions
    )
    nearest = np.array(shape_agreement.nearest_records(asked.texts, train.texts))
    remembered = reference(
        Real(Rows(train, nearest, np.zeros((n, asked.captions.shape[1]), np.int64))),
        None,
        decoders,
        'remembered',
    )
    shown = reference(Real(asked), None, decoders, 'real pictures')
    mean = np.clip(np.round(shown['mean']), 0, 255).astype(np.uint8)[None]
    own, others = (
        (
            of('facts'),
            of('scene'),
            of('attributes') if mode == 'single' and 'attributes' in asked.split.tables else None,
        )
        for of in (asked.of, other.of)
    )
    for decoder, reader in decoders.items():
        kinds = {
            'drawn': (drawn[decoder], own),
            'real': (shown[decoder], own),
            'shuffled': (drawn[decoder], others),
            'remembered': (remembered[decoder], own),
            'mean': (np.repeat(reader.decode(mean), n, 0), own),
        }
        for pictures, (scenes, (said, true, vectors)) in kinds.items():
            values += report.tagged(
                agreement(scenes, asked, said, true, reader, seed, vectors),
                split=name,
                pictures=pictures,
            )
    return values


def of_pictures(config, sampler, train, options, judges):
    """How a stage that draws pictures is measured: (a function: split's name and tables -> (values, grid), splits by default, what names the file).
    judges: {name: evaluate_matching.Scorer}."""
    mode = train.meta.scenes
    decoders = readers(mode)
    if decoders and 'trained' not in decoders:
        print(
            f'ShapeNet-cls has no weights for {mode!r} scenes, so only the analytic reader is used; experiments/shape_net.py says how to train it.'
        )
    extract = chosen_extractor(
        options, mode if decoders else '', sampler.rows.mesh if sampler.rows else None
    )
    measure = Measure(sampler)
    num, captions, seed = options['num'], sampler.meta.captions, options['seed']

    def measured(name, split):
        asked = first_rows(split, num, captions, options['captions'])
        read = evaluate_matching.readings(asked, judges)  # before the drawing, which takes long
        drawn = gathered(Drawn(sampler, asked, seed), extract, decoders | judges, f'drawing {name}')
        values = of_split(name, asked, drawn, train, extract, decoders, mode, options)
        if judges:
            shown = reference(Real(asked), None, judges, 'real pictures')
            values += report.tagged(
                evaluate_matching.r_precision(
                    asked, judges, read, {'drawn': drawn, 'real': shown}, seed
                ),
                split=name,
            )
        own = report.averages(
            measure(first_rows(split, min(num, len(split)), captions), seed), seed
        )
        values += report.tagged(
            varied(sampler, asked, decoders, extract, options) + own, split=name, pictures='drawn'
        )
        texts = asked.texts[:64]
        if 'attributes' in asked.split.tables and not sampler.reads_text:
            texts = captions_of({'attributes': asked.of('attributes')[:64]}, split.meta) or texts
        return values, (name, drawn['first'], next(iter(Real(asked)))[:64], texts)

    network = (
        f'_{extract.tag["name"]}_{extract.tag["resize"].replace(" ", "-").replace(",", "")}'
        if extract
        else ''
    )
    return (
        measured,
        ['test', 'test_unseen'] if decoders else [config.data.validation_split],
        f'{num}x{options["captions"]}',
        network,
    )


# ------------------------------------------------------------------------------------------------------------------- evaluating
def evaluate(stage, out=None, **given):
    """Evaluate a stage and write <out>/<name>.json and .png -> the report as a dictionary.

    stage: a RunStage. out: a folder, <workdir>/eval by default. given: options other than those
    of the run's config. Raises RunError, DataError, and ValueError where a metric cannot be
    computed from what it is given.
    """
    config = stage.config
    options = {**OPTIONS, **config.eval, **given}
    choose('eval.weights', options['weights'], ('ema', 'raw'))
    for name in ('num', 'captions', 'samples'):
        if options[name] < 1:
            raise RunError(f'eval.{name} is {options[name]}: ask for at least one.')
    mesh = sharding.make_mesh(1)
    averaged = options['weights'] == 'ema'
    sampler = Sampler(stage, options['step'] or None, chunk=CHUNK, averaged=averaged, mesh=mesh)
    meta, boxes = sampler.meta, evaluate_layouts.draws_boxes(sampler.module)
    truth = ('boxes', 'object_labels') if boxes else ('image',)
    read = [*truth, *(n for n in sampler.module.needs if not n.startswith('wrong_'))]
    cache = 'none' if stage.data['cache'] == 'none' else 'host'
    opened = functools.cache(lambda name: stage.split(name, tuple(dict.fromkeys(read)), cache))
    train, judges = opened(config.data.split), {}
    if boxes or evaluate_matching.compares(sampler.module):
        kind = evaluate_layouts.of_layouts if boxes else evaluate_matching.of_pairs
    else:
        judges = evaluate_matching.scorers(stage, sampler, options['scorer'])
        kind = functools.partial(of_pictures, judges=judges)
    measured, usual, many, network = kind(config, sampler, train, options)
    splits = [name.strip() for name in options['split'].split(',') if name.strip()] or usual
    values, grids = [], []
    for name in splits:
        new, grid = measured(name, opened(name))
        values += new
        grids.append(grid)
    number = (
        dict(samples=options['samples'])
        if boxes
        else dict(captions=options['captions'], captions_per_row=meta.captions)
    )
    found = dict(
        run=dict(
            workdir=stage.workdir.name,
            system=config.system,
            data=train.meta.name,
            stage=sampler.name,
            step=sampler.step,
            size=meta.size,
        ),
        protocol=dict(
            num=options['num'],
            **number,
            seed=options['seed'],
            weights=options['weights'],
            splits=splits,
            version=report.version(),
        ),
        values=values,
        date=time.strftime('%Y-%m-%d %H:%M:%S'),
    )
    network += ''.join(f'_scorer-{name.removeprefix("run_")}' for name in judges if name != 'own')
    last = '' if stage.run.last(DRAWN) is stage else f'_{stage.name}'
    usual = f'{"_".join(splits)}_{many}_{options["weights"]}_seed{options["seed"]}{network}{last}_step{sampler.step}'
    folder = pathlib.Path(out or stage.workdir / 'eval')
    path = folder / f'{(options["name"] or usual).replace("/", "_")}.json'
    report.write(found, path, grids)
    print(report.table(found))
    print(f'\nNumbers with their protocol: {path}; picture: {path.with_suffix(".png")}')
    return found


def evaluate_files(images, captions=None, reference_=None, out=None, **given):
    """Pictures made elsewhere against real ones: distances, and the protocol. reference_: a folder, or statistics (.npz) of the same network,
    as `Statistics.of(features, statistics_tag(extract, size)).save(path)` writes them.

    captions: a text file, one sentence a line, shown in the picture. -> the report; written to <out>/evaluation.json and .png.
    """
    options = {**OPTIONS, **given}
    if not reference_:
        raise RunError(
            '--images needs --reference=DIR (real pictures) or --reference=FILE.npz (statistics of them).'
        )
    if not out:
        raise RunError('--images needs --out=DIR, another folder, where the report is written.')
    extract, pictures = chosen_extractor(options, '', sharding.make_mesh(1)), Files.of(images)
    texts = [''] * len(pictures)
    if captions:
        if not pathlib.Path(captions).expanduser().exists():
            raise RunError(f'There is no captions file {captions}.')
        texts = pathlib.Path(captions).expanduser().read_text(encoding='utf-8').splitlines()
        if len(texts) < len(pictures):
            raise RunError(
                f'{captions} has {len(texts)} lines, {images} {len(pictures)} pictures: one sentence a picture, in the order of file names.'
            )
    drawn, real = gathered(pictures, extract, {}, str(images)), None
    size = drawn['mean'].shape
    if str(reference_).endswith('.npz'):
        values = [
            _from_statistics(drawn, pathlib.Path(reference_).expanduser(), extract, size, options)
        ]
    else:
        real = reference(Files.of(reference_), extract, {}, str(reference_))
        if real['mean'].shape != size:
            raise RunError(
                f'{reference_} has pictures of {real["mean"].shape[1]} x {real["mean"].shape[0]} pixels, {images} of {size[1]} x {size[0]}. '
                'Bring both to one size by the same filter.'
            )
        values = report.tagged(distances(drawn, real, extract, options), pictures='drawn')
        noise = reference(Noise(len(pictures), size, options['seed']), extract, {}, 'noise')
        values += report.tagged(
            distances(noise, real, extract, options, lambda message: None), pictures='noise'
        )
    result = dict(
        run=dict(
            workdir=pathlib.Path(images).name,
            system='-',
            data='folder',
            stage='-',
            step=0,
            size=int(size[0]),
        ),
        protocol=dict(
            num=len(pictures),
            captions=1,
            captions_per_row=1,
            seed=options['seed'],
            weights='-',
            splits=[''],
            version=report.version(),
        ),
        values=report.tagged(values, split=''),
        date=time.strftime('%Y-%m-%d %H:%M:%S'),
    )
    path = pathlib.Path(out).expanduser() / 'evaluation.json'
    report.write(result, path, [('pictures', drawn['first'], None, texts)])
    print(report.table(result))
    print(f'\nNumbers with their protocol: {path}; picture: {path.with_suffix(".png")}')
    return result


def statistics_tag(extract, size) -> str:
    """What statistics of real pictures are kept under: the network and the size of the pictures, (h, w, 3)."""
    return json.dumps({**extract.tag, 'pictures': list(size)}, sort_keys=True)


def _from_statistics(drawn, path, extract, size, options):
    if not path.exists():
        raise RunError(f'There are no statistics {path}.')
    statistics = Statistics.load(path, tag=statistics_tag(extract, size))
    features, suffix = (
        drawn['features'],
        f'_{extract.metric_prefix}' if extract.metric_prefix else '',
    )
    few = min(statistics.n, len(features)) <= features.shape[1]
    return report.value(
        f'fid{suffix}',
        fid(statistics, Statistics.of(features, statistics.tag), force=options['force']),
        extractor=extract.tag,
        reference=dict(n=statistics.n, sha256=hashlib.sha256(path.read_bytes()).hexdigest()),
        n=len(features),
        pictures='drawn',
        **({'biased': True} if few else {}),
    )
