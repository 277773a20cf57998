"""Objects known by the features of crops."""

import numpy as np

from t2i_jax.evaluate import crops


class Colours:
    """A feature network: the mean colour."""

    tag = dict(name='colours')

    def __call__(self, images, first=0):
        return {'features': images.reshape(len(images), -1, 3).mean(1)}


class Rows:
    """Pictures with a red and a blue object in each."""

    def __init__(self, n, swapped=False):
        self.rows = np.arange(n)
        self.labels = np.tile([[2, 5, -1]], (n, 1))
        side = [[0.25, 0.5, 0.3, 0.4], [0.7, 0.5, 0.3, 0.5], [0.0] * 4]
        self.boxes = np.tile(np.float32([side]), (n, 1, 1))
        self.image = np.full((n, 32, 32, 3), -1, np.float32)
        self.image[:, :, :16, 2 if swapped else 0] = 1
        self.image[:, :, 16:, 0 if swapped else 2] = 1

    def take(self, some):
        return self

    def batch(self):
        return dict(image=self.image, boxes=self.boxes, object_labels=self.labels)


class Split:
    tables = dict(boxes=0, object_labels=0)

    def __len__(self):
        return 8


def test_objects_are_known_in_their_boxes_alone(monkeypatch):
    monkeypatch.setattr(crops, 'first_rows', lambda split, n: Rows(n))
    reader = crops.ObjectReader.fitted(Colours(), Split())
    assert reader.classes.tolist() == [2, 5] and reader.tag['crops'] == 16
    (right,) = reader.of_data(Rows(4), 0)
    assert right['metric'] == 'object_on_crop' and right['value'] == 1
    assert right['protocol']['chance'] == 0.5 and right['protocol']['n'] == 8
    (wrong,) = reader.of_data(Rows(4, swapped=True), 0)
    assert wrong['value'] == 0
    nothing = Rows(2)
    nothing.labels[:] = -1
    assert reader.of_data(nothing, 0) == []


def test_small_objects_are_left_out():
    rows = Rows(1)
    rows.boxes[:, 0, 2] = 0.05
    images, labels, owner = crops.crops_of(*crops.true(rows))
    assert images.shape == (1, 64, 64, 3) and labels.tolist() == [5] and owner.tolist() == [0]
    assert (images[..., 2] == 255).all() and (images[..., 0] == 0).all()


def test_one_class_is_nothing_to_tell_apart(monkeypatch):
    rows = Rows(4)
    rows.labels[:, 1] = 2
    monkeypatch.setattr(crops, 'first_rows', lambda split, n: rows)
    assert crops.ObjectReader.fitted(Colours(), Split()) is None
