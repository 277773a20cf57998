"""Shapes of objects in their boxes: the generator and the discriminators of masks.

Hong et al., CVPR 2018, and Obj-GAN (Li et al., CVPR 2019), whose released code gives the sizes.

An object enters as its box in the channel of its class, a map of 0 and 1. All objects of a scene
are rows of one batch; a bi-directional ConvLSTM over them tells each of the others.
"""

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.layers.conv import Conv, convolution, levels, patches
from t2i_jax.layers.conv_lstm import BiConvLstm
from t2i_jax.layers.linear import NORMAL, lrelu
from t2i_jax.layers.norm import instance_norm
from t2i_jax.layers.objects import rows_of, touched
from t2i_jax.layers.relu import UpConv
from t2i_jax.runtime.errors import choose

# the activations of convolutions that halve, and of the others
ACTIVATIONS = {'relu': (jax.nn.relu, jax.nn.relu), 'glu': (lrelu, jax.nn.glu)}


class BoxConv(Conv):
    """A convolution of a box map, one channel a class, and of `more` other channels.

    A box map has one channel that is not 0, so the kernel of its class alone is laid on it.
    """

    def __init__(self, classes, more, d, kernel, stride, *, rngs):
        super().__init__(classes + more, d, kernel, stride, 1, rngs=rngs)
        self.classes = classes

    def __call__(self, region, named, more=None):
        """Convolve boxes b h w with classes b C (one-hot), and b h w m. -> b h' w' d"""
        k, stride = self.kernel_size[0], self.strides[0]
        inputs = (region, named) if more is None else (region, named, more)
        *inputs, kernel = nnx.nn.dtypes.promote_dtype((*inputs, self.kernel[...]), dtype=self.dtype)
        of_class = rearrange(kernel[:, :, : self.classes], 'i j c d -> c (i j) d')
        of_class = jnp.einsum('bc,ckd->bkd', inputs[1], of_class)
        seen = patches(jnp.pad(inputs[0], ((0, 0), (1, 1), (1, 1)))[..., None], k, stride)
        y = jnp.einsum('bhwk,bkd->bhwd', seen, of_class)
        if more is None:
            return y
        return y + convolution(inputs[2], kernel[:, :, self.classes :], stride, self.padding)

    def of_maps(self, maps, more):
        """Convolve maps b h w C of several classes, and b h w m. -> b h' w' d"""
        return super().__call__(jnp.concatenate([maps, more], -1))


class ShapeGenerator(nnx.Module):
    """Boxes of objects -> their masks, b r s s in [0, 1], 0 outside their boxes.

    width: n, the channels of the last map; objects are maps s/4 s/4 4n, and z has 4n numbers.
    """

    def __init__(self, classes, width, side=64, activation='relu', *, rngs):
        self.down, self.act = ACTIVATIONS[choose('activation', activation, ACTIVATIONS)]
        n, d, twice = width, 4 * width, 2 if activation == 'glu' else 1
        if side % 4:
            raise ValueError(f'Masks have {side} pixels a side: they must be a multiple of 4.')
        self.classes, self.side, self.nz = classes, side, d

        def conv3(a, b):
            return Conv(a, b, 3, padding=1, rngs=rngs)

        self.first = BoxConv(classes, 0, 2 * n, 3, 2, rngs=rngs)
        self.second = Conv(2 * n, d, 3, stride=2, padding=1, rngs=rngs)
        self.lstm = BiConvLstm(d, 2 * n, kernel_init=NORMAL, rngs=rngs)
        self.joint = conv3(2 * d, twice * d)
        self.block = nnx.List([conv3(d, twice * d), conv3(d, twice * d), conv3(d, d)])
        self.ups = nnx.List([UpConv(a, twice * b, rngs=rngs) for a, b in ((d, 2 * n), (2 * n, n))])
        self.mask = Conv(n, 1, 1, rngs=rngs)

    def gate(self, x):
        return self.act(instance_norm(x))

    def __call__(self, objects, z):
        """objects: Objects of b scenes, r each. z: b r 4n."""
        boxes, there, r = objects.boxes, objects.there, objects.labels.shape[1]
        region = rows_of(touched(boxes, self.side))
        x = self.first(region, rows_of(objects.named(self.classes)))
        x = self.down(instance_norm(x))  # br s/2 s/2 2n
        x = self.down(instance_norm(self.second(x)))  # br s/4 s/4 4n
        x = rows_of(self.lstm(rearrange(x, '(b r) h w c -> b r h w c', r=r), there))
        noise = repeat(rows_of(z), 'b c -> b h w c', h=self.side // 4, w=self.side // 4)
        x = self.gate(self.joint(jnp.concatenate([x.astype(noise.dtype), noise], -1)))
        x = x * rows_of(touched(boxes, self.side // 4))[..., None]
        y = x
        for conv in self.block[:-1]:
            y = self.gate(conv(y))
        x = x + self.block[-1](y)
        for up in self.ups:
            x = self.gate(up(x))  # br s/2 s/2 2n, br s s n
        masks = nnx.sigmoid(self.mask(x)[..., 0].astype(jnp.float32)) * region
        return rearrange(masks, '(b r) h w -> b r h w', r=r) * there[..., None, None]


class MaskDiscriminator(nnx.Module):
    """Masks and box maps -> logits of "a real shape".

    widths: of convolutions of kernel 4 and stride 2; as many as lead to a map of 4 x 4.
    """

    def __init__(self, classes, widths=(32, 64, 128, 128), side=64, *, rngs):
        n = levels(side)
        if len(widths) < n:
            raise ValueError(
                f'Masks of {side} px are halved {n} times, and {len(widths)} widths are given.'
            )
        widths = widths[:n]
        self.first = BoxConv(classes, 1, widths[0], 4, 2, rngs=rngs)
        self.convs = nnx.List(
            [Conv(a, b, 4, stride=2, padding=1, rngs=rngs) for a, b in zip(widths, widths[1:])]
        )
        self.logit = Conv(widths[-1], 1, 4, rngs=rngs)
        self.classes, self.side = classes, side

    def of_objects(self, objects, masks):
        """Judge each object: masks b r s s in their boxes -> b r."""
        region = rows_of(touched(objects.boxes, self.side))
        named = rows_of(objects.named(self.classes))
        logits = self.judge(self.first(region, named, rows_of(masks)[..., None]))
        return logits.reshape(objects.labels.shape)

    def of_scenes(self, maps, masks):
        """Judge whole scenes: box maps b s s C and masks b s s of all their objects -> b."""
        return self.judge(self.first.of_maps(maps, masks[..., None]))

    def judge(self, x):
        x = lrelu(instance_norm(x))
        for conv in self.convs:
            x = lrelu(instance_norm(conv(x)))  # b 4 4 c in the end
        return self.logit(x)[:, 0, 0, 0].astype(jnp.float32)
