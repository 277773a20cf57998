"""Captions and sentence vectors of the flowers, from whichever old downloads are there."""

import re

from tfds_builders import texts
from tfds_builders.files import members
from tfds_builders.flowers102_captions import archives

CVPR = ('cvpr2016_flowers.tar.gz', 'cvpr2016_flowers')
ICML = ('flowers_icml.tar.gz', 'flowers_icml')
STACKGAN = ('flowers.zip', 'flowers')


def read(captions_path, vectors_path, per_image) -> tuple[texts.Joined, dict[int, int]]:
    """Read captions and vectors as `texts.read` does, by image number.

    captions_path: one of CVPR, ICML, STACKGAN
    vectors_path: of ICML, STACKGAN, or None
    per_image: sentences (and vectors)

    Returns these and, by number, the classes of the folders in which images stand.
    """
    folders = {}

    def key(name):
        match = re.search(r'(?:class_(\d+)/)?image_(\d+)(?:\.\w+)?$', name)
        if match and match[1]:
            folders[int(match[2])] = int(match[1])
        return int(match[2]) if match else None

    def raw(path):
        if path.name in STACKGAN and not any(members(path, archives.CAPTIONS)):
            return {}, {}
        captions, lists = archives.read_captions(path)
        folders.update({number: folder for number, (folder, _) in captions.items()})
        return {number: lines for number, (_, lines) in captions.items()}, lists

    return texts.read(captions_path, vectors_path, per_image, key, raw, ICML), folders
