"""Pictures made elsewhere, a folder of them, against real ones.

t2i_jax --mode=evaluate --images=DIR --reference=DIR-or-npz --out=DIR [--captions=FILE]
"""

import hashlib
import json
import pathlib

from t2i_jax.evaluate import report
from t2i_jax.evaluate.features import choose_extractor
from t2i_jax.evaluate.measures import OPTIONS, distances, silent, suffix_of
from t2i_jax.evaluate.sources import Files, Noise, read, read_cached
from t2i_jax.metrics.fid import Statistics, fid
from t2i_jax.run import Path
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import RunError


def evaluate_files(
    images: Path,
    captions: Path | None = None,
    reference: Path | None = None,
    out: Path | None = None,
    **given,
) -> dict:
    """Measure pictures made elsewhere and write <out>/evaluation.json and .png -> the report.

    images: a folder
    captions: a text file, one sentence a line, shown in the picture
    reference: a folder of real pictures, or statistics of the same network (.npz), as
        `Statistics.of(features, statistics_tag(extract, size)).save(path)` writes them
    out: a folder
    given: options of EVAL

    Raises RunError.
    """
    options = {**OPTIONS, **given}
    if not reference:
        raise RunError(
            '--images needs --reference=DIR (real pictures) or --reference=FILE.npz (statistics of '
            'them).'
        )
    if not out:
        raise RunError('--images needs --out=DIR, another folder, where the report is written.')
    extract, pictures = choose_extractor(options, '', sharding.make_mesh(1)), Files.of(images)
    if extract is None:
        raise RunError('Files are measured by a feature network: name one, --extractor=...')
    texts = read_captions(captions, images, len(pictures)) if captions else [''] * len(pictures)
    found = read(pictures, extract, {}, str(images))
    size = found['mean'].shape
    if str(reference).endswith('.npz'):
        path = pathlib.Path(reference).expanduser()
        values = report.tagged([from_statistics(found, path, extract, options)], pictures='drawn')
    else:
        real = read_cached(Files.of(reference), extract, {}, str(reference))
        require_size(real['mean'].shape, size, reference, images)
        noise = Noise(len(pictures), size, options['seed'])
        noise = read_cached(noise, extract, {}, 'noise')
        values = report.tagged(distances(found, real, extract, options), pictures='drawn')
        others = distances(noise, real, extract, options, silent)
        values += report.tagged(others, pictures='noise')
    run = dict(workdir=pathlib.Path(images).name, system='-', data='folder', stage='-', step=0)
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
        pathlib.Path(out).expanduser() / 'evaluation.json',
        [('pictures', found['first'], None, texts)],
        run=run | dict(size=int(size[0])),
        protocol=protocol,
        values=report.tagged(values, split=''),
    )


def read_captions(path, images, n) -> list[str]:
    """Read n captions, one a line. Raises RunError where there are fewer."""
    file = pathlib.Path(path).expanduser()
    if not file.exists():
        raise RunError(f'There is no captions file {path}.')
    texts = file.read_text(encoding='utf-8').splitlines()
    if len(texts) < n:
        raise RunError(
            f'{path} has {len(texts)} lines, {images} {n} pictures: write one sentence a picture, '
            'in the order of file names.'
        )
    return texts


def require_size(real, size, reference, images):
    """Raise RunError for real pictures (h, w, 3) of another size than those that are measured."""
    if real != size:
        raise RunError(
            f'{reference} has pictures of {real[1]} x {real[0]} pixels, {images} of {size[1]} x '
            f'{size[0]}. Bring both to one size by the same filter.'
        )


def statistics_tag(extract, size) -> str:
    """Return the tag of statistics of real pictures: the network and their size, (h, w, 3)."""
    return json.dumps({**extract.tag, 'pictures': list(size)}, sort_keys=True)


def from_statistics(found, path, extract, options):
    """Compute the Frechet distance of a reading to statistics of real pictures."""
    if not path.exists():
        raise RunError(f'There are no statistics {path}.')
    statistics = Statistics.load(path, tag=statistics_tag(extract, found['mean'].shape))
    features = found['features']
    own = Statistics.of(features, statistics.tag)
    few = min(statistics.n, len(features)) <= features.shape[1]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return report.value(
        f'fid{suffix_of(extract)}',
        fid(statistics, own, force=options['force']),
        extractor=extract.tag,
        reference=dict(n=statistics.n, sha256=digest),
        n=len(features),
        **({'biased': True} if few else {}),
    )
