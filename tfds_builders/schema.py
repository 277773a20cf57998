"""The features of a record: what each is and says, the same in all data sets.

A data set has those that its files hold; README.md says which.
"""

import numpy as np
from tensorflow_datasets import features as tfds

Documentation = tfds.Documentation
# name -> kind, keywords that are the same everywhere, what it says, its values
ROWS = {
    'image': (tfds.Image, {'shape': (None, None, 3)}, 'The picture', '0 to 255'),
    'captions': (tfds.Sequence, {'feature': tfds.Text()}, 'Its captions, a sentence each', ''),
    'file_name': (tfds.Text, {}, 'The name of its file, unique in the data set', ''),
    'image_id': (tfds.Scalar, {'dtype': np.int64}, 'The number of the picture', ''),
    'label': (tfds.ClassLabel, {}, 'The class of the picture, or of the object', ''),
    'class_name': (tfds.Text, {}, 'The name of its class', ''),
    'bbox': (
        tfds.BBoxFeature,
        {},
        'The box around the object: ymin, xmin, ymax, xmax, fractions of the picture',
        '0 to 1',
    ),
    'is_crowd': (tfds.Scalar, {'dtype': np.bool_}, 'Whether it stands for several objects', ''),
    'objects': (tfds.Sequence, {}, 'The objects in it', ''),
    'parts': (
        tfds.Tensor,
        {'dtype': np.float32},
        'Parts of the object: x, y, fractions of the picture, and whether it is visible; '
        'names in the metadata (parts)',
        '0 to 1',
    ),
    'attributes': (
        tfds.Tensor,
        {'dtype': np.float32},
        'Which attributes it has; names in the metadata (attributes)',
        '0 or 1',
    ),
    'mask': (
        tfds.Image,
        {'shape': (None, None, 1), 'encoding_format': 'png'},
        'What is foreground',
        '0, or 255: foreground',
    ),
    'object_masks': (
        tfds.Image,
        {'shape': (None, None, 1), 'encoding_format': 'png'},
        'The masks of its objects below each other, each over the whole picture; zeros where there '
        'are fewer objects',
        '0 to 255: the share of a cell that the object covers',
    ),
    'dialog': (tfds.FeaturesDict, {}, 'Questions about the picture, with answers', ''),
    'questions': (tfds.Sequence, {'feature': tfds.Text()}, 'In the order of the dialogue', ''),
    'answers': (tfds.Sequence, {'feature': tfds.Text()}, 'One for each question', ''),
    'embedding': (
        tfds.Tensor,
        {'dtype': np.float32},
        'Stored sentence vectors: row j is that of caption j',
        '',
    ),
    'scene': (
        tfds.Tensor,
        {'dtype': np.int32},
        'The objects, the largest first, and in the last row the background (facts.py)',
        '-1: unused',
    ),
    'facts': (
        tfds.Tensor,
        {'dtype': np.int32},
        'What each caption says, as statements about the scene (facts.py)',
        '-1: unused, or any',
    ),
}


def feature(name, **options):
    """Return the TFDS feature of that name, with its description.

    options: of the feature, where data sets differ (names of a label, the shape of a tensor)
    """
    kind, same, text, values = ROWS[name]
    return kind(**same, **options, doc=Documentation(desc=text, value_range=values or None))


def features(*names, **given):
    """Return features as a dictionary: by name, and others as given."""
    return {name: feature(name) for name in names} | given


def objects(names, crowds=False):
    """Return the feature of objects with boxes and with labels of these names."""
    kinds = features('bbox', label=feature('label', names=list(names)))
    return feature('objects', feature=kinds | (features('is_crowd') if crowds else {}))


def dialog():
    """Return the feature of questions and answers."""
    return feature('dialog', feature_dict=features('questions', 'answers'))
