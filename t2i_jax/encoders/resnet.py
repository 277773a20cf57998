"""ResNet-152, frozen: torchvision's ImageNet classifier.

He, Zhang, Ren, Sun, CVPR 2016. Bottlenecks of three convolutions with batch norm; in torchvision's
the 3x3 convolution has the stride. 78.3 % top-1 on ImageNet.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.encoders.pretrained import (
    IMAGENET,
    ClassHead,
    ConvNorm,
    PretrainedTrunk,
    checked,
    norm_shapes,
    random_weights,
)
from t2i_jax.layers.pool import max_pool

SIZE = 224
# bottlenecks of each group; the first of a group but the first has stride 2
GROUPS = (3, 8, 36, 3)
# channels inside the bottlenecks of each group; they give four times as many
WIDTHS = (64, 128, 256, 512)
# of PyTorch's batch norm
EPSILON = 1e-5


def _bottlenecks():
    """Yield (name, input channels, inner channels, stride, whether the shortcut is a convolution).

    The names are those of a state dict.
    """
    c = 64
    for group, (count, width) in enumerate(zip(GROUPS, WIDTHS), start=1):
        for i in range(count):
            yield f'layer{group}.{i}', c, width, 2 if group > 1 and i == 0 else 1, i == 0
            c = 4 * width


def shapes():
    """Return {name: shape} of all the tensors in a state dict."""
    result = {'conv1.weight': (64, 3, 7, 7), **norm_shapes('bn1', 64)}
    for name, c, width, _, projected in _bottlenecks():
        kernels = (width, c, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)
        for i, kernel in enumerate(kernels, start=1):
            result[f'{name}.conv{i}.weight'] = kernel
            result |= norm_shapes(f'{name}.bn{i}', kernel[0])
        if projected:
            result[f'{name}.downsample.0.weight'] = (4 * width, c, 1, 1)
            result |= norm_shapes(f'{name}.downsample.1', 4 * width)
    return result | {'fc.weight': (1000, 2048), 'fc.bias': (1000,)}


class ResNet(nnx.Module):
    """ResNet-152 in evaluation mode."""

    def __init__(self, weights=None, *, seed=0):
        """Build the network.

        weights: a state dict {name: array}, every tensor of which must have its place; None: random
            ones of `seed`.
        Raises DataError, which names each tensor that is missing or unknown.
        """
        expected = shapes()
        weights = random_weights(expected, seed) if weights is None else weights
        weights = checked(weights, expected, 'ResNet-152')

        def layer(conv, norm, stride=1, padding=0):
            pads = [(padding, padding)] * 2
            keywords = dict(stride=stride, padding=pads, epsilon=EPSILON)
            return ConvNorm(weights, conv, norm, **keywords)

        self.stem, self.head = layer('conv1', 'bn1', 2, 3), ClassHead(weights, 'fc')
        self.blocks, self.shortcuts = nnx.List([]), nnx.List([])
        for name, _, _, stride, projected in _bottlenecks():
            plan = (1, 1, 0), (2, stride, 1), (3, 1, 0)
            self.blocks.append(
                nnx.List([layer(f'{name}.conv{i}', f'{name}.bn{i}', *how) for i, *how in plan])
            )
            if projected:
                down = f'{name}.downsample'
                self.shortcuts.append(layer(f'{down}.0', f'{down}.1', stride))

    def maps(self, x):
        """Compute the last map of each group, of float RGB images in 0..255.

        b 224 224 3 -> b 56 56 256, b 28 28 512, b 14 14 1024, b 7 7 2048
        """
        mean, std = map(jnp.array, IMAGENET)
        x = jax.nn.relu(self.stem((x / 255 - mean) / std))  # b 112 112 64
        x = max_pool(x, 3, 2, padding=1)
        found, shortcuts = [], iter(self.shortcuts)
        for block, (*_, projected) in zip(self.blocks, _bottlenecks()):
            if projected:
                found.append(x)
            before = next(shortcuts)(x) if projected else x
            narrow, square, wide = block
            x = wide(jax.nn.relu(square(jax.nn.relu(narrow(x)))))
            x = jax.nn.relu(x + before)
        return [*found[1:], x]

    def __call__(self, x):
        """Compute features of float RGB images b 224 224 3 in 0..255.

        -> {'2048': means over the last map, 'logits': of ImageNet's 1000 classes}
        """
        pooled = jnp.mean(self.maps(x)[-1], (1, 2))  # b 2048
        return {'2048': pooled, 'logits': self.head(pooled)[1]}


class ResNetTrunk(PretrainedTrunk):
    """ResNet-152 up to its last map."""

    size, side, channels = SIZE, 14, (1024, 2048)
    shapes = staticmethod(shapes)

    @staticmethod
    def make(weights):
        net = ResNet(weights)
        # classes are not needed
        del net.head
        return net
