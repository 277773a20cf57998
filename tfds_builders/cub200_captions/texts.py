"""Captions and sentence vectors of the birds, from whichever old downloads are there."""

import re

from tfds_builders import texts
from tfds_builders.cub200_captions import archives
from tfds_builders.files import members

CVPR = (
    'cvpr2016_cub.tar.gz',
    'cvpr2016_cub',
    'birds/text.zip',
    'birds/text',
    'birds/text_c10',
    'text.zip',
    'text',
    'text_c10',
)
ICML, STACKGAN = ('cub_icml.tar.gz', 'cub_icml'), ('birds.zip', 'birds')


def read(captions_path, vectors_path, per_image) -> texts.Joined:
    """Read captions and vectors as `texts.read` does, by `archives.key_of`.

    captions_path: one of CVPR, ICML, STACKGAN
    vectors_path: of ICML, STACKGAN, or None
    per_image: sentences (and vectors)
    """

    def key(name):
        match = re.fullmatch(rf'(?:.*/)?{archives.BIRD}(?:\.[a-zA-Z]\w*)?', name)
        return archives.key_of(match) if match else None

    def raw(path):
        if path.name in STACKGAN and not any(members(path, archives.CAPTIONS)):
            return {}, {}
        return archives.read_captions(path)

    return texts.read(captions_path, vectors_path, per_image, key, raw, ICML)
