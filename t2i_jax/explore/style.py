"""Exploration of a style encoder: sentences in the style of pictures.

    sampler = Sampler.load('runs/style', stage='style')
    style(sampler, ['a red circle'], images)      # uint8 1 k s s 3

A stage that declares `explores = {'style': method}` has two methods of (batch, noise): the declared
one draws the sentences of a batch in the style of its `image`, and `recover` returns `z` as read
off the picture that is drawn from the noise.
"""

import jax
import numpy as np

from t2i_jax.data import canvas
from t2i_jax.explore.request import Found, Sentences, held_out, sentences_of, take
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.sample import Sampler, to_uint8
from t2i_jax.scenes import explored

# pictures from which the style encoder's correlations are estimated
PICTURES = 1000
# style pictures that have room in a row of a sheet
ACROSS = 12


def style(sampler: Sampler, sentences: Sentences, images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draw each sentence in the style of each picture -> uint8 (n, k, s, s, 3).

    Besides z, noise is the same in all.

    sampler: `Sampler.load(workdir, stage='style')`.
    sentences: n, as Sampler.encode takes them.
    images: (k, s, s, 3) in [-1, 1].

    Raises DataError.
    """
    method = sampler.module.explores.get('style')
    if method is None:
        raise DataError(
            f'Stage {sampler.name} is not a style encoder: load it by '
            "Sampler.load(workdir, stage='style')."
        )
    side = sampler.meta.size
    if np.shape(images)[1:] != (side, side, 3):
        raise DataError(f'Style pictures are k {side} {side} 3, not {np.shape(images)}.')
    encoded, k = sampler.encode(sentences), len(images)
    n = len(jax.tree.leaves(encoded)[0])
    batch = {
        'encoded': take(encoded, np.repeat(np.arange(n), k)),
        'image': np.tile(np.asarray(images, np.float32), (n, 1, 1, 1)),
    }
    return sampler.sample(batch, sampler.noise(1, seed, n * k), (n, k), method)['image']


def style_correlation(
    sampler: Sampler, sentences: Sentences, num: int = PICTURES, seed: int = 0
) -> np.ndarray:
    """Correlate each dimension of z with what is read off pictures drawn from it.

    sentences: as Sampler.encode takes them; they take turns.

    Returns (nz,) float64.
    """
    encoded, noise = sampler.encode(sentences), sampler.noise(num, seed)
    batch = {'encoded': take(encoded, np.arange(num) % len(jax.tree.leaves(encoded)[0]))}
    read = sampler.sample(batch, noise, (num,), 'recover')['z']
    read, z = (x - x.mean(0) for x in (read, noise['z']))
    return (read * z).mean(0, dtype=np.float64) / np.maximum(read.std(0) * z.std(0), 1e-12)


def style_sheet(request) -> Found:
    """Show a row for each sentence, a column for each style picture.

    The first row shows these.
    """
    sampler, num = request.sampler, request.num
    if max(len(request.images), num) > ACROSS:
        raise RunError(f'--what=style shows {ACROSS} pictures at most.')
    if request.images:
        images = np.stack([canvas.read_picture(path, sampler.meta.size) for path in request.images])
    else:
        images = np.asarray(held_out(sampler, num, ('image',)).batch()['image'])
    batch, texts = sentences_of(request, num)
    pictures = style(sampler, batch, images, request.seed)
    styles = np.asarray(to_uint8(images))
    if request.texts:
        many = batch
    else:
        many = {'encoded': sampler.encode(held_out(sampler, PICTURES).batch())}
    correlation = style_correlation(sampler, many, PICTURES, (request.seed + 1) % 2**32)
    numbers = {
        'correlation_mean': float(correlation.mean()),
        'correlation_least': float(correlation.min()),
        'draws': PICTURES,
        'correlation': correlation.round(4).tolist(),
        **explored.places(sampler.meta.scenes, styles, pictures),
    }
    return Found(np.concatenate([styles[None], pictures]), ['in the style of', *texts], numbers)
