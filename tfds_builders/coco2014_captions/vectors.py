"""Stored sentence vectors of COCO's captions, from whichever old downloads are there."""

import re

from tfds_builders.errors import DataError
from tfds_builders.files import first_of
from tfds_builders.old_downloads import Texts, read_icml, read_stackgan

ICML = {
    part: (f'{part}2014_ex_t7.tar.gz', f'{part}2014_ex_t7.zip', f'{part}2014_ex_t7')
    for part in ('train', 'val')
}
STACKGAN = ('coco.zip', 'coco')
IMAGE = r'(?:.*/)?COCO_(train|val)2014_(\d{12})(?:\.\w+)?'


def find(folder):
    """Return the files and folders with vectors.

    Reed's of each split, StackGAN's where that of the training images is missing.
    """
    return [
        path
        for names in (ICML['val'], ICML['train'] + STACKGAN)
        if (path := first_of(folder, *names))
    ]


def read(paths) -> tuple[dict[str, Texts], dict[int, str]]:
    """Return ({split: captions and vectors by image id}, {image id: why it is not read}).

    Splits are COCO's. A split comes from the first of these files that has images of it. Raises
    DataError where none has.
    """
    texts, problems, source, part_of = {}, {}, {}, {}
    for path in paths:

        def key(name, path=path):
            match = re.fullmatch(IMAGE, name)
            if not match or source.setdefault(match[1], path) != path:
                return None
            part_of[int(match[2])] = match[1]
            return int(match[2])

        is_icml = any(path.name in names for names in ICML.values())
        found = read_icml(path, key, problems) if is_icml else read_stackgan(path, key)
        for field in ('captions', 'embeddings'):
            for number, value in getattr(found, field).items():
                part = texts.setdefault(part_of[number], Texts({}, {}, {}))
                getattr(part, field)[number] = value
    # all of its files are broken
    texts |= {part: Texts({}, {}, {}) for part in source if part not in texts}
    if not texts:
        raise DataError(
            f'{" and ".join(map(str, paths))} holds no vectors of images named '
            'COCO_train2014_000000000009 and so on. Fetch it again.'
        )
    return texts, problems
