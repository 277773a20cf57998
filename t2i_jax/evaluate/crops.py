"""Objects in pictures, each known by the features of the crop of its box.

The reader is a ridge regression from features of crops to classes, fitted to real training
pictures. It is no detector: it is asked where an object should be, and only what it is. Its number
on real pictures, `real`, is what a perfect system would come to; `chance` that of always saying
the most frequent class.
"""

import numpy as np
from PIL import Image

from t2i_jax.data.feed import Rows, first_rows
from t2i_jax.draw.boxes import spans
from t2i_jax.evaluate import report
from t2i_jax.evaluate.reading import ridge
from t2i_jax.sample import to_uint8

# crops to which the reader is fitted, and of those the smallest part of a side of the frame
CROPS, SMALLEST = 4000, 1 / 8
# pixels of a crop
SIDE = 64


class ObjectReader:
    """Tells the classes of objects by the features of crops."""

    def __init__(self, extract, read, classes, fitted):
        """read: features -> scores of `classes`, the labels of its columns. fitted: to how many."""
        self.extract, self.read, self.classes = extract, read, classes
        self.tag = dict(
            name=f'ridge on {extract.tag["name"]}', features=extract.tag, crops=fitted, side=SIDE
        )

    @classmethod
    def fitted(cls, extract, split):
        """Fit a reader to the first objects of a split; None where it has fewer than two classes.

        extract: a feature network.
        """
        if not {'boxes', 'object_labels', 'image'} <= set(split.tables) | {'image'}:
            return None
        features, labels = [], []
        rows, found = first_rows(split, min(len(split), CROPS)), 0
        for start in range(0, len(rows.rows), 256):
            part = crops_of(*true(rows.take(slice(start, start + 256))))
            if part is not None:
                features.append(extract(part[0])['features'])
                labels.append(part[1])
                found += len(part[1])
            if found >= CROPS:
                break
        if not found or len(np.unique(np.concatenate(labels))) < 2:
            return None
        features, labels = np.concatenate(features), np.concatenate(labels)
        classes = np.unique(labels)
        known = (labels[:, None] == classes).astype(float)
        return cls(extract, ridge(features.astype(np.float64), known), classes, found)

    def of(self, images, boxes, labels, seed) -> list:
        """Measure how many objects of layouts are known, `object_on_crop`.

        images: uint8 n s s 3. boxes: n R 4. labels: n R, -1 where none is.
        """
        found = crops_of(images, boxes, labels)
        if found is None:
            return []
        crops, named, owner = found
        guess = self.classes[self.read(self.extract(crops)['features']).argmax(1)]
        chance = float(np.bincount(named).max() / len(named))
        more = dict(decoder=self.tag['name'], reader=self.tag, chance=chance)
        return [report.averaged('object_on_crop', guess == named, seed, owner, **more)]

    def of_data(self, rows: Rows, seed) -> list:
        """Measure it on the data's own pictures and layouts."""
        return self.of(*true(rows), seed)


def true(rows):
    """Return the pictures uint8, boxes and labels of rows."""
    batch = rows.batch()
    return np.asarray(to_uint8(batch['image'])), batch['boxes'], batch['object_labels']


def crops_of(images, boxes, labels):
    """Cut the objects of pictures out -> (uint8 m SIDE SIDE 3, their labels m, picture of each m).

    Objects below SMALLEST are left out. None where no object is left.
    """
    boxes, labels = np.asarray(boxes), np.asarray(labels)
    large = (labels >= 0) & (boxes[..., 2:].min(-1) >= SMALLEST)
    owner, slot = np.nonzero(large)
    if not len(owner):
        return None
    side = images.shape[1]
    parts = []
    for i, j in zip(owner, slot):
        rows, columns = spans(boxes[i, j], side)
        part = Image.fromarray(images[i, rows, columns])
        parts.append(np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
    return np.stack(parts), labels[owner, slot], owner
