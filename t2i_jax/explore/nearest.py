"""Drawn pictures next to the training pictures that are most like them.

A generator that copies what it has seen draws sharp pictures and has learnt little. How near a
drawn picture is to its nearest training picture says nothing alone; held-out pictures, which nobody
copied, say what near is.
"""

import numpy as np

from t2i_jax.data.feed import first_rows
from t2i_jax.evaluate.features import choose_extractor
from t2i_jax.explore.request import Found, held_out, sentences_of
from t2i_jax.sample import to_uint8

# training pictures that are compared, at most, and neighbours of each drawn one that are shown
TRAINING, SHOWN = 4000, 4
# held-out pictures, and drawn ones, whose distances are averaged
MEASURED = 64


def nearest(drawn: np.ndarray, known: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest of vectors known (m, d) to each of drawn (n, d).

    Returns their numbers and Euclidean distances, (n, count) each, the nearest first.
    """
    drawn, known = (np.asarray(x, np.float32) for x in (drawn, known))
    squares = (drawn**2).sum(1)[:, None] - 2 * drawn @ known.T + (known**2).sum(1)
    order = np.argsort(squares, 1)[:, :count]
    return order, np.sqrt(np.maximum(np.take_along_axis(squares, order, 1), 0))


def nearest_sheet(request) -> Found:
    """Show a row for each sentence: a drawn picture, its neighbours by features and by pixels."""
    sampler, num = request.sampler, request.num
    stage, scenes = sampler.stage, sampler.meta.scenes
    if sampler.reads_text:
        batch, texts = sentences_of(request, max(num, MEASURED) if not request.texts else num)
    else:
        batch, texts = {}, [''] * max(num, MEASURED)
    n = len(texts)
    drawn = sampler.sample(batch, sampler.noise(n, request.seed), (n,))['image']
    extract = choose_extractor({**stage.config.eval, 'every': 0}, scenes)

    def vectors(images):
        """By features and by pixels; the latter of 32 x 32, so that a shift of one costs little."""
        k = max(1, images.shape[1] // 32)
        blocks = images.reshape(len(images), images.shape[1] // k, k, images.shape[2] // k, k, 3)
        pixels = blocks.mean((2, 4)).reshape(len(images), -1) / 255
        return extract(images)['features'], pixels

    split = stage.split(stage.data['split'], ('image',), 'none')
    rows = first_rows(split, min(TRAINING, len(split)))
    parts = (rows.take(slice(i, i + 256)).batch()['image'] for i in range(0, len(rows.rows), 256))
    known = np.concatenate([np.asarray(to_uint8(part)) for part in parts])
    real = np.asarray(to_uint8(held_out(sampler, MEASURED, ('image',)).batch()['image']))
    columns, numbers = [drawn[:, None]], dict(training_pictures=len(known))
    for name, ours, theirs, others in zip(
        ('features', 'pixels'), vectors(drawn), vectors(known), vectors(real)
    ):
        order, distances = nearest(ours, theirs, SHOWN)
        columns.append(known[order])
        level = nearest(others, theirs, 1)[1].mean()
        numbers[name] = {
            'distance': float(distances[:, 0].mean()),
            'of_held_out_pictures': float(level),
            'to_them': float(distances[:, 0].mean() / max(level, 1e-12)),
        }
    pictures = np.concatenate(columns, 1)[:num]
    labels = [f'{text}\nnearest by features, then by pixels'.strip() for text in texts[:num]]
    return Found(pictures, labels, numbers)
