"""The 102 classes of flowers and which of them train, validate and test."""
import re

import numpy as np

from tfds_builders.errors import DataError

# In the order of the labels: CLASS_NAMES[i] is label i + 1 of imagelabels.mat (the order of TFDS' oxford_flowers102).
CLASS_NAMES = (
    'pink primrose', 'hard-leaved pocket orchid', 'canterbury bells', 'sweet pea', 'english marigold', 'tiger lily', 'moon orchid',
    'bird of paradise', 'monkshood', 'globe thistle', 'snapdragon', "colt's foot", 'king protea', 'spear thistle', 'yellow iris',
    'globe-flower', 'purple coneflower', 'peruvian lily', 'balloon flower', 'giant white arum lily', 'fire lily', 'pincushion flower',
    'fritillary', 'red ginger', 'grape hyacinth', 'corn poppy', 'prince of wales feathers', 'stemless gentian', 'artichoke',
    'sweet william', 'carnation', 'garden phlox', 'love in the mist', 'mexican aster', 'alpine sea holly', 'ruby-lipped cattleya',
    'cape flower', 'great masterwort', 'siam tulip', 'lenten rose', 'barbeton daisy', 'daffodil', 'sword lily', 'poinsettia',
    'bolero deep blue', 'wallflower', 'marigold', 'buttercup', 'oxeye daisy', 'common dandelion', 'petunia', 'wild pansy', 'primula',
    'sunflower', 'pelargonium', 'bishop of llandaff', 'gaura', 'geranium', 'orange dahlia', 'pink-yellow dahlia?', 'cautleya spicata',
    'japanese anemone', 'black-eyed susan', 'silverbush', 'californian poppy', 'osteospermum', 'spring crocus', 'bearded iris',
    'windflower', 'tree poppy', 'gazania', 'azalea', 'water lily', 'rose', 'thorn apple', 'morning glory', 'passion flower', 'lotus',
    'toad lily', 'anthurium', 'frangipani', 'clematis', 'hibiscus', 'columbine', 'desert-rose', 'tree mallow', 'magnolia', 'cyclamen',
    'watercress', 'canna lily', 'hippeastrum', 'bee balm', 'ball moss', 'foxglove', 'bougainvillea', 'camellia', 'mallow',
    'mexican petunia', 'bromelia', 'blanket flower', 'trumpet creeper', 'blackberry lily',
)

# Split -> its list of classes in the caption archive.
LISTS = {'train': 'trainclasses.txt', 'validation': 'valclasses.txt', 'test': 'testclasses.txt'}
RANDOM_SPLIT = 'random82_seed0'
PUBLISHED_SPLIT = 'reed_cvpr2016'


def published_split(lists: dict[str, str]) -> dict[str, set[int]]:
    """Split -> labels (1..102), from the texts of the three class lists (split -> one folder name, such as class_00001, a line).

    Raises DataError where a line names no class, or a class stands in two lists.
    """
    split = {}
    for name, text in lists.items():
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        matches = [re.fullmatch(r'class_(\d+)', line) for line in lines]
        for line, match in zip(lines, matches):
            if not match or not 1 <= int(match[1]) <= len(CLASS_NAMES):
                raise DataError(f'{LISTS[name]} has the line {line!r}; expected class_00001 to class_00102, one a line. '
                                'Fetch the caption archive again.')
        split[name] = {int(match[1]) for match in matches}
    twice = (split['train'] & split['validation']) | (split['train'] & split['test']) | (split['validation'] & split['test'])
    if twice:
        raise DataError(f'Class {min(twice)} stands in two of {", ".join(LISTS.values())}, which must share no class. '
                        'Fetch the caption archive again.')
    return split


def random_split() -> dict[str, set[int]]:
    """62 / 20 / 20 of the labels 1..102, by the permutation of NumPy's RandomState(0) (a stream that NumPy keeps as it is)."""
    order = (np.random.RandomState(0).permutation(len(CLASS_NAMES)) + 1).tolist()
    return {'train': set(order[:62]), 'validation': set(order[62:82]), 'test': set(order[82:])}


def read_class_names(path) -> list[str]:
    """The names in a file of 102 lines, line k for label k. Raises DataError for another number of lines or a repeated name."""
    names = [line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
    if len(set(names)) != len(CLASS_NAMES) or len(names) != len(CLASS_NAMES):
        raise DataError(f'{path} has {len(names)} names, {len(set(names))} of them different; expected {len(CLASS_NAMES)} different ones, '
                        'line k for label k. Put it right, or remove it: the usual English names are then taken.')
    return names
