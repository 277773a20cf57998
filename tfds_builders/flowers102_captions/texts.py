"""Captions and sentence vectors of the flowers, from whichever of the old downloads are there."""
import re
from typing import NamedTuple

from tfds_builders.errors import DataError
from tfds_builders.files import members
from tfds_builders.flowers102_captions import archives
from tfds_builders.old_downloads import align, read_attngan, read_icml, read_stackgan

CVPR, ICML, STACKGAN = ('cvpr2016_flowers.tar.gz', 'cvpr2016_flowers'), ('flowers_icml.tar.gz', 'flowers_icml'), ('flowers.zip', 'flowers')


class FlowerTexts(NamedTuple):
    """By image number. captions: (class of its folder or None, sentences); embeddings: (n, 1024) float32, row j of sentence j, or None
    where they were not asked for; lists: split -> text of its class list; problems: why a number cannot be used; replaced: how many
    images have the sentences of the vectors instead of those of the caption archive."""
    captions: dict
    embeddings: dict | None
    lists: dict
    problems: dict
    replaced: int


def read(captions_path, vectors_path, per_image) -> FlowerTexts:
    """captions_path: one of CVPR, ICML, STACKGAN; vectors_path: of ICML, STACKGAN, or None. per_image: sentences (and vectors).

    Where both are of the same sentences, the vectors are put into the order of the captions; where they are not (or the image has no
    captions), the image gets the sentences that its vectors were made of. Where the vectors come without their sentences, sentence j of
    the captions is taken to be that of row j, as StackGAN took it.
    """
    problems, folders = {}, {}

    def key(name):
        match = re.search(r'(?:class_(\d+)/)?image_(\d+)(?:\.\w+)?$', name)
        if match and match[1]:
            folders[int(match[2])] = int(match[1])
        return int(match[2]) if match else None

    vectors = None if vectors_path is None else \
        read_icml(vectors_path, key, problems) if vectors_path.name in ICML else read_stackgan(vectors_path, key)
    raw = captions_path.name in CVPR or captions_path.name in STACKGAN and any(members(captions_path, archives.CAPTIONS))
    if raw:
        captions, lists = archives.read_captions(captions_path)
    else:
        texts = vectors if captions_path == vectors_path and vectors.captions else \
            read_icml(captions_path, key, problems) if captions_path.name in ICML else read_attngan(captions_path, key)
        captions, lists = {number: (folders.get(number), lines) for number, lines in texts.captions.items()}, texts.lists
    if not captions and not problems:
        raise DataError(f'{captions_path} holds no captions. Put {CVPR[0]} into the manual folder.')
    if vectors is None:
        captions = {number: (folder, list(filter(archives.has_word, lines))) for number, (folder, lines) in captions.items()}
        return FlowerTexts(captions, None, lists, problems, 0)

    embeddings, replaced = {}, 0
    for number, rows in vectors.embeddings.items():
        folder, lines = captions.get(number, (folders.get(number), []))
        lines, own = lines[:per_image], vectors.captions.get(number)
        if own and (ordered := align(lines, own, rows)) is not None:
            rows = ordered
        elif own:
            lines, replaced = own, replaced + 1
        wordless = [str(j + 1) for j, line in enumerate(lines) if not archives.has_word(line)]
        if wordless:
            problems[number] = f'caption {", ".join(wordless)} has no word'
        elif len(rows) != per_image:
            problems[number] = f'{len(rows)} sentence vectors instead of {per_image}'
        captions[number], embeddings[number] = (folder, lines), rows
    return FlowerTexts(captions, embeddings, vectors.lists | lists, problems, replaced)
