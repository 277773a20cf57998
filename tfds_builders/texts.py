"""Captions and stored sentence vectors of the same images.

From whichever of the old downloads are there.
"""

import re
from typing import NamedTuple

from absl import logging

from tfds_builders.errors import DataError, quoted
from tfds_builders.old_downloads import Texts, align, read_attngan, read_icml, read_stackgan


class Joined(NamedTuple):
    """Captions and vectors of the same sentences, by key of the image.

    captions: sentences
    embeddings: (n, 1024) float32, row j of sentence j, or None where no vectors were requested
    lists: split -> text of its class list
    problems: why an image cannot be used
    replaced: how many images have the sentences of the vectors instead of the captions
    """

    captions: dict
    embeddings: dict | None
    lists: dict
    problems: dict
    replaced: int


def read(captions_path, vectors_path, per_image, key, raw, icml) -> Joined:
    """Read captions and, where a path is given, vectors of the same sentences.

    captions_path: where the captions lie
    vectors_path: Reed's icml archive or StackGAN's, or None
    per_image: sentences (and vectors) of an image
    key: name of a file or image -> its key or None, see `old_downloads`
    raw: path -> (key -> captions, lists) from text files, both empty where the path has none
    icml: the names of Reed's icml archive

    Where there are no text files, captions come from the icml archive or from AttnGAN's pickle.
    """
    problems = {}
    vectors = (
        None
        if vectors_path is None
        else read_icml(vectors_path, key, problems)
        if vectors_path.name in icml
        else read_stackgan(vectors_path, key)
    )
    captions, lists = ({}, {}) if captions_path.name in icml else raw(captions_path)
    if not captions:
        texts = (
            vectors
            if captions_path == vectors_path and vectors.captions
            else read_icml(captions_path, key, problems)
            if captions_path.name in icml
            else read_attngan(captions_path, key)
        )
        captions, lists = texts.captions, texts.lists
    if not captions and not problems:
        raise DataError(
            f'{quoted(captions_path)} holds no captions of this data set. Put another caption '
            'archive into the manual folder.'
        )
    if vectors is None:
        return Joined(
            {number: list(filter(has_word, lines)) for number, lines in captions.items()},
            None,
            lists,
            problems,
            0,
        )
    return join(captions, vectors._replace(lists=vectors.lists | lists), per_image, problems)


def join(captions, vectors: Texts, per_image, problems=None) -> Joined:
    """Return `per_image` captions and vectors of the same sentences for images with vectors.

    captions: by key
    vectors: `old_downloads.Texts`
    per_image: sentences of an image
    problems: is added to

    Where both are of the same sentences, the vectors are put into the order of the captions, and
    captions without a vector are left out; where they are not (or the image has no captions), the
    image gets the sentences that its vectors were made of. Where the vectors come without their
    sentences, sentence j of the captions is taken to be that of row j, as StackGAN took it.
    """
    captions = dict(captions)
    embeddings = {}
    problems = {} if problems is None else problems
    replaced = 0
    for number, rows in vectors.embeddings.items():
        lines, own = captions.get(number, []), vectors.captions.get(number)
        if own and (same := align(lines, own, rows)):
            lines, rows = same
        elif own:
            lines, replaced = own, replaced + 1
        lines, rows = lines[:per_image], rows[:per_image]
        wordless = [str(j + 1) for j, line in enumerate(lines) if not has_word(line)]
        if wordless:
            problems[number] = f'caption {", ".join(wordless)} has no word'
        elif len(rows) != per_image:
            problems[number] = f'{len(rows)} sentence vectors instead of {per_image}'
        captions[number], embeddings[number] = lines, rows
    return Joined(captions, embeddings, vectors.lists, problems, replaced)


def has_word(line) -> bool:
    """Return whether a line has a word."""
    return bool(re.search(r'\w', line))


def report_replaced(replaced, source, metadata):
    """Put into metadata and log how many images have the captions of their vectors.

    source: of the captions
    """
    metadata.update(captions_of_vectors=replaced)
    if replaced:
        logging.warning(
            '%d images get the sentences that come with their vectors: those of %s differ.',
            replaced,
            quoted(source),
        )
