"""Attention as pictures: of pixels in samples, or of words in real pictures.

Pixels, and the objects of a layout where these look, too: of a stage whose `makes` has 'attention'.
Words: of a stage that declares `explores = {'attention': method}` (DAMSM); its method (batch) ->
b t h w says where each word of a caption looks in its picture.
"""

import numpy as np

from t2i_jax.data.text import encode_sentences
from t2i_jax.draw.attention import looks_of, row, rows
from t2i_jax.explore.request import Found, held_out
from t2i_jax.runtime.errors import RunError
from t2i_jax.sample import to_uint8
from t2i_jax.scenes.attention import inside
from t2i_jax.scenes.readers import best_reader

# words of a line
ACROSS = 8
# held-out pictures of shape scenes in which it is measured where words look, at least
MEASURED = 200


def attention_sheet(request) -> Found:
    """Show the attention of pixels or of words, whichever the stage has."""
    if 'attention' in request.sampler.module.explores:
        return of_words(request)
    return of_pixels(request)


def count(request) -> int:
    """Return for how many held-out records attention is computed; the first `num` are shown."""
    measured = best_reader(request.sampler.meta.scenes)
    return max(request.num, MEASURED) if measured else request.num


def of_words(request) -> Found:
    """Show where the words of captions look in their held-out pictures.

    The words stand in their order, each relative to the 99th percentile of all values.
    """
    sampler = request.sampler
    if request.texts:
        raise RunError(
            f'--what=attention of stage {sampler.name} shows held-out pictures with their own '
            'captions: leave --text out.'
        )
    records = held_out(sampler, count(request), ('image',))
    batch = records.batch()
    batch = {name: batch[name] for name in (*sampler.module.needs, 'image') if name in batch}
    maps = np.moveaxis(sampler.apply(request.method, batch), 1, -1)  # n h w t
    words = [sampler.vocabulary.decode(ids) for ids in batch['tokens']]
    pictures = np.asarray(to_uint8(batch['image'][: request.num]))
    lines, labels = [], []
    for picture, sentence, one, text in zip(pictures, words, maps, records.texts):
        most = float(np.quantile(one, 0.99))
        for start in range(0, max(1, len(sentence)), ACROSS):
            order = np.arange(start, min(start + ACROSS, len(sentence)))
            lines.append(row(picture, sentence, one, order, ACROSS, most=most))
            labels.append('' if start else text)
    numbers = {}
    if 'scene' in records.split.tables:
        numbers[f'map_{maps.shape[1]}'] = inside(maps, words, records.of('scene'))
    return Found(np.stack(lines), labels, numbers)


def of_pixels(request) -> Found:
    """Show which words each map looks at, in a line for each picture and map.

    `num` pictures of each given sentence, or one of each of `num` held-out captions.
    """
    sampler, num, given = request.sampler, request.num, request.texts
    if given:
        batch = encode_sentences(given, sampler.vocabulary, sampler.meta.length)
        needs = sampler.module.needs
        batch = {name: np.repeat(batch[name], num, 0) for name in needs if name in batch}
        texts = [text for text in given for _ in range(num)]
        noise, shown = sampler.noise(num, request.seed, len(given)), len(texts)
    else:
        records = held_out(sampler, count(request))
        batch, texts = records.batch(), records.texts
        noise, shown = sampler.noise(len(texts), request.seed), num
    out = sampler.sample(batch, noise, (len(texts),), attention=True)
    words = [sampler.vocabulary.decode(ids) for ids in batch['tokens']]
    lines, labels = [], []
    names, looks = zip(*looks_of(out))
    for i in range(shown):
        part = rows(out['image'][i], words[i], [one[i] for one in looks], names)
        lines.append(part)
        labels += [texts[i]] + [''] * (len(part) - 1)
    reader, numbers = best_reader(sampler.meta.scenes), {}
    if reader:
        scenes = reader.decode(out['image'])
        numbers['decoder'] = reader.tag['name']
        for name, one in zip(names, looks):
            name = f'map_{one.shape[1]}' if name != 'objects' else name
            # a second look of the same map
            name = f'{name}_again' if name in numbers else name
            numbers[name] = inside(one, words, scenes)
    return Found(np.concatenate(lines), labels, numbers)
