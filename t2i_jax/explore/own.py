"""Explorations that a stage declares in `explores` and draws itself."""

import numpy as np

from t2i_jax.explore.request import Found, held_out, sentences_of
from t2i_jax.runtime.errors import DataError
from t2i_jax.scenes import explored


def own_sheet(request) -> Found:
    """Call the stage's function with given sentences, or with `num` held-out records.

    Raises DataError where it returns something else than pictures and their labels.
    """
    sampler, num = request.sampler, request.num
    if request.texts:
        batch, texts = sentences_of(request, num)
    else:
        keys = ('image',) if 'image' in sampler.module.needs else ()
        rows = held_out(sampler, num, keys)
        batch, texts = rows.batch(), rows.texts
    function = sampler.module.exploration(request.what)
    pictures, labels = function(sampler, batch, texts, num, request.seed)
    pictures = np.asarray(pictures)
    if pictures.ndim != 5 or pictures.dtype != np.uint8 or len(labels) != len(pictures):
        raise DataError(
            f'{request.what} of stage {sampler.name} returned pictures of shape {pictures.shape} '
            f'({pictures.dtype}) and {len(labels)} labels: it returns uint8 n k s s 3 and n labels.'
        )
    scenes = sampler.meta.scenes
    numbers = explored.read(scenes, pictures) | explored.same_boxes(scenes, pictures)
    return Found(pictures, labels, numbers)
