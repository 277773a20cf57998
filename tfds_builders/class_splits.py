"""Class-disjoint splits, the text-to-image papers' own.

No class of the test part is seen in training.
"""

import re

import numpy as np

from tfds_builders.errors import DataError
from tfds_builders.files import read_text

LISTS = {'train': 'trainclasses.txt', 'validation': 'valclasses.txt', 'test': 'testclasses.txt'}
PUBLISHED = 'reed_cvpr2016'


def published(lists: dict[str, str], pattern, classes) -> dict[str, set[int]]:
    """Return the published split, name -> labels (1..classes).

    lists: split -> text of its class list, one folder name a line
    pattern: a folder name as regular expression whose first group is the label
    classes: how many there are

    Raises DataError where a line names no class, or a class stands in two lists.
    """
    split = {}
    for name, text in lists.items():
        split[name] = set()
        for line in filter(None, map(str.strip, text.splitlines())):
            match = re.fullmatch(pattern, line)
            if not match or not 1 <= int(match[1]) <= classes:
                raise DataError(
                    f'{LISTS[name]} has the line {line!r}; expected one of {classes} class folders '
                    f'({pattern}) a line. '
                    'Fetch the caption archive again.'
                )
            split[name].add(int(match[1]))
    twice = (
        (split['train'] & split['validation'])
        | (split['train'] & split['test'])
        | (split['validation'] & split['test'])
    )
    if twice:
        raise DataError(
            f'Class {min(twice)} stands in two of {", ".join(LISTS.values())}, which must share no '
            'class. '
            'Fetch the caption archive again.'
        )
    return split


def drawn(train, validation, test) -> dict[str, set[int]]:
    """Return so many of the labels 1, 2, ... for each split, at random but always the same.

    By the permutation of NumPy's RandomState(0), a stream that NumPy keeps as it is.
    """
    order = (np.random.RandomState(0).permutation(train + validation + test) + 1).tolist()
    return {
        'train': set(order[:train]),
        'validation': set(order[train : train + validation]),
        'test': set(order[train + validation :]),
    }


def choose(lists, folder, pattern, sizes, warn):
    """Return (name of the rule, split -> labels) by the class lists, else by our own draw.

    lists: split -> text, those of the caption archive
    folder: where the other lists may lie
    pattern: as for `published`
    sizes: classes in train, validation, test
    warn: called with a sentence for the draw
    """
    loose = {
        split: folder / file
        for split, file in LISTS.items()
        if split not in lists and (folder / file).exists()
    }
    lists = lists | {split: read_text(path) for split, path in loose.items()}
    missing = [file for split, file in LISTS.items() if split not in lists]
    if missing:
        rule = f'random{sizes[0] + sizes[1]}_seed0'
        warn(
            f'No {", ".join(missing)} in the caption archive: the classes are split by our own '
            f'draw, {rule} '
            f'({", ".join(map(str, sizes))} classes). Results are not comparable with published '
            'numbers.'
        )
        return rule, drawn(*sizes)
    return PUBLISHED, published(lists, pattern, sum(sizes))
