"""Discriminators of Obj-GAN (Li et al., CVPR 2019): of patches, of shapes, of objects.

All read pictures by a `Trunk` and answer by a `PatchHead`; those of shapes and of objects also see
what is where, class maps. Orthogonal starts.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from t2i_jax.encoders.pretrained import bilinear
from t2i_jax.layers.conv import Conv, conv3_beside, levels, operands
from t2i_jax.layers.game import PLAIN
from t2i_jax.layers.glu import conv3
from t2i_jax.layers.linear import ORTHOGONAL, lrelu
from t2i_jax.layers.norm import BatchNorm, instance_norm
from t2i_jax.layers.objects import resized, rows_of
from t2i_jax.layers.roi import roi_align
from t2i_jax.layers.trunk import Trunk

# channels that are read of class maps
LOOKED = 12
# in the released code small objects are below the first number, large ones above the second
LEGACY_SIZES = 0.25, 0.5


class ReflectConv(Conv):
    """A 3x3 convolution whose border mirrors the map. b h w c -> b h w d"""

    def __init__(self, c, d, bias=False, *, rngs):
        super().__init__(c, d, 3, kernel_init=ORTHOGONAL, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(d)) if bias else None

    def __call__(self, x):
        y = super().__call__(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect'))
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


class PatchHead(nnx.Module):
    """A map b h w c -> logits of its patches b n; with `vector`, whether they match b vector."""

    def __init__(self, c, vector=0, norm=BatchNorm, *, rngs):
        self.joint = conv3(vector + c, c, rngs=rngs) if vector else None
        self.norm = norm(c, rngs=rngs) if vector else None
        self.logit = Conv(c, 1, 4, stride=2, kernel_init=ORTHOGONAL, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(1))

    def __call__(self, x, vector=None, *, train, rows=None):
        """rows: which rows batch norm sees."""
        if self.joint:
            x = conv3_beside(*operands(self.joint, vector, x))
            x = lrelu(self.norm(x, train=train, rows=rows))
        return rearrange(self.logit(x).astype(jnp.float32) + self.bias[...], 'b h w 1 -> b (h w)')


class PatchDiscriminator(nnx.Module):
    """Pictures of one side: are their patches real, and do they match a sentence?"""

    def __init__(self, side, d, embedding, norm, game=PLAIN, *, rngs):
        widths = widths_of(side, d)
        self.trunk = Trunk(3, widths, norm, kernel_init=ORTHOGONAL, rngs=rngs)
        self.real = PatchHead(widths[-1], rngs=rngs)
        self.matching = PatchHead(widths[-1], embedding, norm, rngs=rngs)
        features = (side >> len(widths)) ** 2 * widths[-1]
        self.extras = game.extras(features, embedding, rngs=rngs)

    def match(self, code, sentence, *, train):
        logits = self.matching(code, sentence, train=train)
        return logits + self.extras(jnp.zeros(len(logits)), code, sentence)[:, None]


class LayoutCritic(nnx.Module):
    """Pictures with class maps -> a map, by `trunk` of what `joined` makes."""

    def __init__(self, classes, widths, norm, *, rngs):
        self.look = ReflectConv(classes, LOOKED, bias=True, rngs=rngs)
        self.trunk = Trunk(3 + LOOKED, widths, norm, kernel_init=ORTHOGONAL, rngs=rngs)

    def joined(self, image, maps):
        """Join pictures b s s 3 and what is seen of class maps b h h C -> b s s 3+12."""
        seen = lrelu(instance_norm(self.look(resized(maps, image.shape[1]))))
        return jnp.concatenate([image, seen.astype(image.dtype)], -1)


class ShapeDiscriminator(LayoutCritic):
    """Pictures of one side with class maps: does the picture have these shapes? -> b n"""

    def __init__(self, side, classes, d, norm, *, rngs):
        widths = widths_of(side, d)
        super().__init__(classes, widths, norm, rngs=rngs)
        self.real = PatchHead(widths[-1], rngs=rngs)

    def __call__(self, x, *, train):
        return self.real(self.trunk(x, train=train), train=train)


class ObjectDiscriminator(LayoutCritic):
    """Objects in their boxes: are they real, and do they match labels and words?"""

    def __init__(self, classes, widths, condition, zoom, legacy, norm, *, rngs):
        """widths: of the trunk. condition: numbers of labels and words. zoom: of pictures."""
        super().__init__(classes, widths, norm, rngs=rngs)
        c = 4 * widths[0]
        self.each = Conv(widths[-1], c, 4, padding=1, kernel_init=ORTHOGONAL, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(c))
        self.real = PatchHead(c, rngs=rngs)
        self.matching = PatchHead(c, condition, norm, rngs=rngs)
        self.zoom, self.legacy = zoom, legacy

    def joined(self, image, maps):
        """Join pictures and class maps, enlarged."""
        x = super().joined(image, maps)
        return bilinear(x, self.zoom * x.shape[1], False).astype(image.dtype)

    def objects(self, maps, boxes):
        """Cut objects out of maps of the trunk: b h w c, b r 4 -> (b r) 4 4 c."""
        seen = rows_of(roi_align(maps, boxes, 5, self.legacy))
        return lrelu(self.each(seen) + self.bias[...].astype(seen.dtype))

    def match(self, objects, conditions, there, *, train):
        """Compute logits of objects (b r) 4 4 c with conditions b r n: b r."""
        rows = there.reshape(-1)
        logits = self.matching(objects, rows_of(conditions), train=train, rows=rows)
        return logits.reshape(there.shape)

    def free(self, objects, there, *, train):
        """Compute logits of objects alone: b r."""
        return self.real(objects, train=train).reshape(there.shape)


class Critics(nnx.Module):
    """All discriminators.

    patches, layouts: of each side. small, large: of objects in the last picture.
    """

    def __init__(self, sides, classes, d, embedding, condition, zoom, legacy, norm, game, *, rngs):
        self.patches = nnx.List(
            [PatchDiscriminator(side, d, embedding, norm, game, rngs=rngs) for side in sides]
        )
        self.layouts = nnx.List(
            [ShapeDiscriminator(side, classes, d, norm, rngs=rngs) for side in sides]
        )
        more = condition, zoom, legacy, norm
        self.small, self.large = (
            ObjectDiscriminator(classes, [d << i for i in range(n)], *more, rngs=rngs)
            for n in (3, 4)
        )


def widths_of(side, d):
    """Return the widths that lead from a side to 4 x 4, the last four of d .. 8d at most."""
    return [d << i for i in range(4)][-min(4, levels(side, least=8)) :]


def routed(objects, large=0.4, legacy=False):
    """Return which objects the discriminators of small and of large ones judge: bool b r each.

    large: from which width or height on an object is large.
    """
    side = objects.boxes[..., 2:].max(-1)
    low = high = large
    there = objects.there
    if legacy:
        (low, high), there = LEGACY_SIZES, there & (side >= 1.25 / 64)
    return {'small': there & (side < low), 'large': there & (side >= high)}


def next_of(there):
    """Return for each of some rows the next that is there, after the last the first: b -> b."""
    rows = len(there)
    number = jnp.where(there, jnp.arange(rows), rows)
    # of itself or those that follow
    ahead = jax.lax.cummin(number, reverse=True)
    following = jnp.append(ahead[1:], rows)
    return jnp.where(following < rows, following, ahead[0]) % rows


def other_objects(labels, there):
    """Find another object for each: labels b r, there b r -> (numbers, which are wrong), (b r,).

    It is the next that is there. It is not a wrong one where it has the same label in the same
    scene, and so reads the same words, as an object has that is alone.
    """
    flat, label = there.reshape(-1), labels.reshape(-1)
    other, scene = next_of(flat), jnp.arange(label.size) // labels.shape[1]
    same = (label[other] == label) & (scene[other] == scene)
    return other, flat & ~same
