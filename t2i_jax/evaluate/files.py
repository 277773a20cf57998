"""Pictures made elsewhere, a folder of them, against real ones.

t2i_jax --mode=evaluate --images=DIR --reference=DIR-or-npz --out=DIR [--captions=FILE]
"""

import json

import numpy as np

from t2i_jax.evaluate import report
from t2i_jax.evaluate.features import choose_extractor
from t2i_jax.evaluate.measures import OPTIONS, distances, silent, suffix_of, warn_of_few
from t2i_jax.evaluate.report import HIGHER, LOWER, Headline
from t2i_jax.evaluate.sources import Files, Noise, read, read_cached
from t2i_jax.metrics.fid import Statistics, fid, fit, frechet, read_arrays
from t2i_jax.run import Path
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import RunError, home, quoted
from tfds_builders.files import read_text, sha256

# of real pictures nothing is known but that they are the reference
HEADLINE = tuple(
    Headline(f'{metric}*', LOWER if metric in ('fid', 'kid') else HIGHER, ('noise',))
    for metric in ('fid', 'kid', 'precision', 'recall', 'density', 'coverage', 'inception_score')
)
# pictures are taken for BGR where their tints are SURE from those of the reference, and NEARER
# times nearer with red and blue exchanged, in squared standard deviations of the mean tints; SLACK
# of these may be chance, and sets of fewer than LEAST pictures are not judged
NEARER, SURE, SLACK, LEAST = 9, 25, 9, 20
# what pytorch-fid writes, of how many features, and the filter that it uses
MOMENTS, INCEPTION, MOMENTS_RESIZE = {'mu', 'sigma'}, 2048, 'torch_bilinear'


def evaluate_files(
    images: Path,
    captions: Path | None = None,
    reference: Path | None = None,
    out: Path | None = None,
    everything: bool = False,
    **given,
) -> dict:
    """Measure pictures made elsewhere and write <out>/evaluation.json and .png -> the report.

    images: a folder
    captions: a text file, one sentence a line, shown in the picture
    reference: a folder of real pictures, or statistics of them (.npz): of the same network, as
        `Statistics.of(features, statistics_tag(extract, size)).save(path)` writes them, or mu and
        sigma of pytorch-fid for extractor='inception_fid'
    out: a folder
    everything: print all numbers
    given: options of EVAL

    A number that cannot be computed is left out, with a line that says why. Raises RunError,
    DataError.
    """
    if not reference:
        raise RunError(
            '--images needs --reference=DIR (real pictures) or --reference=FILE.npz (statistics of '
            'them).'
        )
    if not out:
        raise RunError('--images needs --out=DIR, another folder, where the report is written.')
    require_apart(out, images, reference)
    arrays = statistics_of(reference) if str(reference).lower().endswith('.npz') else None
    foreign = arrays is not None and set(arrays) >= MOMENTS
    options = {**OPTIONS, **(dict(resize=MOMENTS_RESIZE) if foreign else {}), **given}
    extract = choose_extractor(options, '', sharding.make_mesh(1))
    if extract is None:
        raise RunError('Files are measured by a feature network: name one, --extractor=...')
    if foreign:
        require_moments(arrays, reference, extract)
    pictures = Files.of(images)
    texts = read_captions(captions, images, len(pictures)) if captions else [''] * len(pictures)
    real = Files.of(reference) if arrays is None else None
    path = report.place(out, 'evaluation')
    found = read(pictures, extract, {}, str(images))
    size = found['mean'].shape
    if foreign:
        values = from_moments(found, arrays, reference, extract, options)
    elif real is None:
        values = from_statistics(found, reference, extract, options)
    else:
        real = read_cached(real, extract, {}, str(reference))
        require_size(real['mean'].shape, size, reference, images)
        if exchanged(real['colours'], found['colours']):
            print(
                f'Warning: red and blue of {quoted(images)} seem exchanged (BGR): with them '
                f'swapped, its colours are much nearer to {quoted(reference)}. If so, all numbers '
                'are wrong. Write the pictures as RGB.'
            )
        noise = Noise(len(pictures), size, options['seed'])
        noise = read_cached(noise, extract, {}, 'noise')
        values = report.tagged(distances(found, real, extract, options), pictures='drawn')
        others = distances(noise, real, extract, options, silent)
        values += report.tagged(others, pictures='noise')
    name = home(images).resolve().name
    run = dict(workdir=name, system='-', data='folder', stage='-', step=0, size=int(size[0]))
    protocol = dict(
        num=len(pictures),
        captions=1,
        captions_per_row=1,
        seed=options['seed'],
        weights='-',
        splits=[''],
        version=report.version(),
    )
    return report.finish(
        path,
        [('', found['first'], None, texts)],
        HEADLINE,
        everything,
        run=run,
        protocol=protocol,
        values=report.tagged(values, split=''),
    )


def require_apart(out, *folders):
    """Raise RunError where the report would lie among the pictures that are measured."""
    place = home(out).resolve()
    for folder in folders:
        if place.is_relative_to(home(folder).resolve()):
            raise RunError(
                f'--out={quoted(out)} lies in {quoted(folder)}, and the picture of the report '
                'would be measured the next time. Name another folder.'
            )


def read_captions(path, images, n) -> list[str]:
    """Read n captions, one a line; more are left out with a line.

    Raises RunError where there are fewer, DataError for a file that cannot be read.
    """
    texts = read_text(path).replace('\r\n', '\n').replace('\r', '\n').split('\n')
    if not texts[-1]:
        texts.pop()
    while len(texts) > n and not texts[-1].strip():
        texts.pop()
    counts = f'{quoted(path)} has {len(texts):,} lines, {quoted(images)} {n:,} pictures'
    if len(texts) < n:
        raise RunError(f'{counts}: write one sentence a picture, in the order of file names.')
    if len(texts) > n:
        print(f'{counts}: the first {n:,} lines are used, in the order of file names.')
    return texts[:n]


def require_size(real, size, reference, images):
    """Raise RunError for real pictures (h, w, 3) of another size than those that are measured."""
    if real != size:
        raise RunError(
            f'{quoted(reference)} has pictures of {real[1]} x {real[0]} pixels, {quoted(images)} '
            f'of {size[1]} x {size[0]}. Bring both to one size by the same filter.'
        )


# ------------------------------------------------------------------------------------------ colours
def exchanged(real, made) -> bool:
    """Whether red and blue of pictures seem exchanged, by their tints.

    Tints change their sign where red and blue are exchanged. So do these of the pictures: with it
    they must be much nearer to those of the reference, and without it farther than chance explains.

    real, made: `sources.colours` of the reference and of the pictures
    """
    one, other = tints(real), tints(made)
    if min(len(one), len(other)) < LEAST:
        return False
    # of the mean tints; numbers that do not vary have no covariance
    chance = sum(np.cov(x, rowvar=False) / len(x) for x in (one, other)) + 1e-8 * np.eye(3)

    def apart(sign, some):
        gap = (one.mean(0) - sign * other.mean(0))[some]
        return gap @ np.linalg.solve(chance[some, some], gap)

    every, inner = slice(3), slice(1, 3)
    found = apart(1, every) > SURE and apart(1, every) > NEARER * apart(-1, every)
    # a mere shift of all colours leaves the others as they are
    return bool(found and apart(-1, inner) < apart(1, inner) + SLACK)


def tints(rows) -> np.ndarray:
    """Compute what changes its sign where red and blue are exchanged -> (n, 3).

    Mean red less mean blue, and the covariances within a picture of red less blue with the
    brightness and with green, each for a picture of brightness 1.

    rows: `sources.colours`
    """
    axes = np.array([[1, 0, -1], [1 / 3, 1 / 3, 1 / 3], [0.5, -1, 0.5]])
    mean, products = rows[:, :3], rows[:, 3:].reshape(-1, 3, 3)
    covariance = axes @ (products - mean[:, :, None] * mean[:, None]) @ axes.T
    mean = mean @ axes.T
    # black pictures have no tint
    light = mean[:, 1] + 1 / 255
    return np.stack([mean[:, 0] / light, *(covariance[:, 0, i] / light**2 for i in (1, 2))], 1)


# --------------------------------------------------------------------------------------- statistics
def statistics_tag(extract, size) -> str:
    """Return the tag of statistics of real pictures: the network and their size, (h, w, 3)."""
    return json.dumps({**extract.tag, 'pictures': list(size)}, sort_keys=True)


def statistics_of(path) -> dict:
    """Read the arrays of a file of statistics. Raises RunError."""
    try:
        return read_arrays(path)
    except ValueError as error:
        raise RunError(str(error)) from None


def from_statistics(found, path, extract, options) -> list:
    """Compute the Frechet distance of a reading to statistics of real pictures."""
    statistics = Statistics.load(path, tag=statistics_tag(extract, found['mean'].shape))
    own = Statistics.of(found['features'], statistics.tag)
    few = min(statistics.n, own.n) <= own.d
    reference = dict(n=statistics.n, sha256=sha256(path))
    more = dict(extractor=extract.tag, reference=reference, n=own.n, pictures='drawn')
    distance = fid(statistics, own, force=options['force'])
    more |= {'biased': True} if few else {}
    return [report.value(f'fid{suffix_of(extract)}', distance, **more)]


def require_moments(arrays, path, extract):
    """Raise RunError where mu and sigma are not those of features of the Inception of 2015."""
    mu, sigma = arrays['mu'], arrays['sigma']
    if extract.tag['name'] != 'inception_fid':
        raise RunError(
            f'{quoted(path)} holds mu and sigma, as pytorch-fid writes them for the Inception of '
            '2015: give --extractor=inception_fid and --extractor_weights=FILE, not '
            f'{extract.tag["name"]}.'
        )
    if mu.shape != (INCEPTION,) or not fit(mu, sigma):
        raise RunError(
            f'{quoted(path)}: mu {mu.shape} and sigma {sigma.shape} are not finite moments of '
            f'{INCEPTION} features, ({INCEPTION},) and ({INCEPTION}, {INCEPTION}). Make them with '
            'pytorch-fid --save-stats and its default --dims.'
        )


def from_moments(found, arrays, path, extract, options) -> list:
    """Compute the Frechet distance of a reading to mu and sigma of pytorch-fid.

    The file names neither the number of its pictures, nor its network and filter, which the
    protocol says.
    """
    print(
        f'{quoted(path)} does not say of how many pictures it is, and by which weights and filter. '
        f'It is compared with features of {extract.tag["name"]} by {extract.tag["resize"]}.'
    )
    suffix, features = suffix_of(extract), found['features']
    few = warn_of_few(features, features, suffix, options['force'])
    if few and not options['force']:
        return []
    own = Statistics.of(features)
    distance = frechet(arrays['mu'], arrays['sigma'], own.mean, own.covariance)
    unknown = dict(n='unknown', weights='unknown', resize='unknown', sha256=sha256(path))
    more = dict(extractor=extract.tag, reference=unknown, n=own.n, pictures='drawn')
    more |= {'biased': True} if few else {}
    return [report.value(f'fid{suffix}', distance, **more)]
