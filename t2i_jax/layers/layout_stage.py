"""What the stages of systems share that draw through a layout: labelled boxes and masks."""

import jax
import jax.numpy as jnp
from einops import rearrange

from t2i_jax.layers.objects import ORDERS, Objects, objects_of, order_of, resized, taken
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import Stage, normal_rows

# of masks, as data have them
SIDE = 64
# of a box: objects with a smaller side are left out
SMALLEST = 1 / 32


class LayoutStage(Stage):
    """A stage that learns from true objects; sizes come from the data set.

    A subclass has `encode`. One that draws has the trained networks `boxes`, a BoxDecoder, and
    `shapes`, a ShapeGenerator, and takes a layout.

    text: the trained encoder, None where the data hold sentence vectors.
    """

    draws_from = ('sentence',)
    # what the evaluation also draws from
    truths = {
        'true_masks': {
            'given_boxes': 'boxes',
            'given_labels': 'object_labels',
            'given_masks': 'object_masks',
        },
        'true_boxes': {'given_boxes': 'boxes', 'given_labels': 'object_labels'},
    }

    def __init__(self, meta, text, order):
        if not meta.object_classes or not meta.max_objects:
            raise ValueError(
                f'layouts are learnt from labelled boxes, which {meta.name} does not have. '
                'Choose a data set with objects.'
            )
        self.classes, self.rows = meta.object_classes, meta.max_objects
        self.text, self.order = text, choose('order', order, ORDERS)

    def scene(self, batch):
        """Return the true objects of a batch, with their masks where it has them."""
        found = (batch.get(name) for name in ('boxes', 'object_labels', 'object_masks'))
        return objects_of(*found, rows=self.rows, order=self.order, smallest=SMALLEST)

    def objects(self, batch, noise) -> Objects:
        """Return the objects to draw: the given ones, else those that the sentences lead to.

        batch: `given_boxes` b n 4 and `given_labels` b n, or sentences. Masks that are not given
        are made. A mask of which nothing is set counts as not given.
        """
        if 'given_boxes' not in batch:
            objects = self.boxes.draw(self.encode(batch), noise, *self.boxes.temperatures)
            return objects._replace(masks=self.made(objects, noise))
        found = (batch.get(f'given_{name}') for name in ('boxes', 'labels', 'masks'))
        # as they are given: z belongs to a place in the list
        objects = objects_of(*found, rows=self.rows, order='data')
        made = self.made(objects, noise)
        if objects.masks is None:
            return objects._replace(masks=made)
        given = objects.masks.max((2, 3), keepdims=True) > 0
        return objects._replace(masks=jnp.where(given, objects.masks, made))

    def made(self, objects, noise):
        """Make the masks of objects: b r 64 64.

        The generator reads them in the order in which it learnt them, whatever theirs is.
        """
        index = order_of(objects.boxes, objects.there, self.order)
        seen = Objects(*(taken(x, index) for x in objects[:2]))
        masks = self.shapes(seen, taken(noise['shape_z'], index))
        return with_side(taken(masks, jnp.argsort(index, -1)), SIDE)

    def layout_noise(self, key, n):
        """Return the random inputs of n layouts and their masks."""
        return self.boxes.noise(key, n, self.rows) | {
            'shape_z': normal_rows(jax.random.fold_in(key, 9), n, (self.rows, self.shapes.nz))
        }


def with_side(masks, side):
    """Resize masks b r h h by a whole factor -> b r side side."""
    masks = resized(rearrange(masks, 'b r h w -> b h w r'), side)
    return rearrange(masks, 'b h w r -> b r h w')


def as_samples(objects):
    """Return objects as `sample` does: boxes b R 4, labels b R, and masks b R 64 64."""
    found = dict(boxes=objects.boxes, object_labels=objects.labels)
    return found if objects.masks is None else found | {'masks': objects.masks}
