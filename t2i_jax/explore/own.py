"""Explorations that a stage declares in `explores` and draws itself."""

import numpy as np

from t2i_jax.data import conditions
from t2i_jax.explore.request import Found, held_out, sentences_of
from t2i_jax.runtime.errors import DataError
from t2i_jax.scenes import explored


def own_sheet(request) -> Found:
    """Call the stage's function with given sentences, or with `num` held-out records.

    Raises DataError where it returns something else than pictures and their labels.
    """
    sampler, num, truth = request.sampler, request.num, None
    if request.dialogs:
        batch, texts = with_dialogs(request)
    elif request.texts:
        batch, texts = sentences_of(request, num)
    else:
        keys = ('image',) if 'image' in sampler.module.needs else ()
        rows = held_out(sampler, num, keys)
        batch, texts = rows.batch(), rows.texts
        known = sampler.meta.scenes and 'scene' in rows.split.tables
        truth = rows.of('scene') if known else None
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
    if truth is not None and [*map(str.startswith, labels, texts)] == [True] * len(truth):
        # a row for each record
        numbers |= explored.true_of(scenes, pictures, truth)
    return Found(pictures, labels, numbers)


def with_dialogs(request):
    """Return (batch, texts) of given sentences with given dialogues, one of either for all."""
    sampler, texts = request.sampler, list(request.texts)
    if not texts:
        raise DataError('A dialogue goes with a sentence: give --text="...", too.')
    given = {'sentence': texts, 'dialog': request.dialogs}
    context = conditions.Context(sampler.meta, sampler.vocabulary, 1, request.seed)
    module = sampler.module
    found = conditions.arrays(
        module.draws_from, given, context, type(module).__name__, module.takes
    )
    batch = {name: x[:, 0] for name, x in found.items()}
    n = len(batch['dialog'])
    return batch, texts * n if len(texts) == 1 else texts
