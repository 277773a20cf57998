"""InceptionV3 for features, frozen: the 2015 graph of FID and torchvision's ImageNet network. Szegedy et al., CVPR 2016.

Both have the same convolutions. The 2015 graph (inception-2015-12-05, ported by pytorch-fid and torch-fidelity under equal names) leaves
padding out of its average pools, has a max pool in its last block and 1008 logits; torchvision's counts padding, has an average pool there
and 1000 logits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.encoders.frozen import ConvNorm, Head, checked, norm_shapes, random_weights

SIZE = 299
CLASSES = {'fid': 1008, 'torchvision': 1000}
DEPTHS = '64', '192', '768', '2048'


class Conv(NamedTuple):
    """Convolution, batch norm and ReLU. Padding keeps the size, but for stride 2 and `valid` there is none."""

    name: str
    channels: int
    kernel: int | tuple = 1
    stride: int = 1
    valid: bool = False


class Block(NamedTuple):
    """Branches on one input, their outputs one behind the other. A branch is a list of steps."""

    name: str
    branches: list


def _a(name, pool):
    return Block(
        name,
        [
            [Conv('branch1x1', 64)],
            [Conv('branch5x5_1', 48), Conv('branch5x5_2', 64, 5)],
            [
                Conv('branch3x3dbl_1', 64),
                Conv('branch3x3dbl_2', 96, 3),
                Conv('branch3x3dbl_3', 96, 3),
            ],
            ['average', Conv('branch_pool', pool)],
        ],
    )


def _b(name):
    return Block(
        name,
        [
            [Conv('branch3x3', 384, 3, 2)],
            [
                Conv('branch3x3dbl_1', 64),
                Conv('branch3x3dbl_2', 96, 3),
                Conv('branch3x3dbl_3', 96, 3, 2),
            ],
            ['half'],
        ],
    )


def _c(name, c):
    row, column = (1, 7), (7, 1)
    return Block(
        name,
        [
            [Conv('branch1x1', 192)],
            [Conv('branch7x7_1', c), Conv('branch7x7_2', c, row), Conv('branch7x7_3', 192, column)],
            [
                Conv('branch7x7dbl_1', c),
                Conv('branch7x7dbl_2', c, column),
                Conv('branch7x7dbl_3', c, row),
                Conv('branch7x7dbl_4', c, column),
                Conv('branch7x7dbl_5', 192, row),
            ],
            ['average', Conv('branch_pool', 192)],
        ],
    )


def _d(name):
    return Block(
        name,
        [
            [Conv('branch3x3_1', 192), Conv('branch3x3_2', 320, 3, 2)],
            [
                Conv('branch7x7x3_1', 192),
                Conv('branch7x7x3_2', 192, (1, 7)),
                Conv('branch7x7x3_3', 192, (7, 1)),
                Conv('branch7x7x3_4', 192, 3, 2),
            ],
            ['half'],
        ],
    )


def _e(name, pool):
    def fork(a, b):
        return Block('', [[Conv(a, 384, (1, 3))], [Conv(b, 384, (3, 1))]])

    return Block(
        name,
        [
            [Conv('branch1x1', 320)],
            [Conv('branch3x3_1', 384), fork('branch3x3_2a', 'branch3x3_2b')],
            [
                Conv('branch3x3dbl_1', 448),
                Conv('branch3x3dbl_2', 384, 3),
                fork('branch3x3dbl_3a', 'branch3x3dbl_3b'),
            ],
            [pool, Conv('branch_pool', 192)],
        ],
    )


def _stages(architecture):
    """The steps up to each of the four depths."""
    if architecture not in CLASSES:
        raise ValueError(
            f'There is no Inception {architecture!r}; there are {" and ".join(CLASSES)}.'
        )
    return [
        [
            Conv('Conv2d_1a_3x3', 32, 3, 2),
            Conv('Conv2d_2a_3x3', 32, 3, valid=True),
            Conv('Conv2d_2b_3x3', 64, 3),
            'half',
        ],  # 149 147 147 73
        [Conv('Conv2d_3b_1x1', 80), Conv('Conv2d_4a_3x3', 192, 3, valid=True), 'half'],  # 73 71 35
        [
            _a('Mixed_5b', 32),
            _a('Mixed_5c', 64),
            _a('Mixed_5d', 64),  # 35
            _b('Mixed_6a'),
            _c('Mixed_6b', 128),
            _c('Mixed_6c', 160),
            _c('Mixed_6d', 160),
            _c('Mixed_6e', 192),
        ],  # 17
        [
            _d('Mixed_7a'),
            _e('Mixed_7b', 'average'),
            _e('Mixed_7c', 'max' if architecture == 'fid' else 'average'),
        ],  # 8
    ]


def _walk(steps, prefix, c):
    """Yields (full name, convolution, its input channels) in the order in which they run; returns the channels at the end."""
    for step in steps:
        if isinstance(step, Conv):
            yield prefix + step.name, step, c
            c = step.channels
        elif isinstance(step, Block):
            inside = f'{prefix}{step.name}.' if step.name else prefix
            outputs = []
            for branch in step.branches:
                outputs.append((yield from _walk(branch, inside, c)))
            c = sum(outputs)
    return c


def _convolutions(architecture):
    return _walk(sum(_stages(architecture), []), '', 3)


def _square(kernel):
    return kernel if isinstance(kernel, tuple) else (kernel, kernel)


def shapes(architecture):
    """{name: shape} of all the tensors in a state dict of `architecture`, 'fid' or 'torchvision' (without its auxiliary classifier)."""
    result = {}
    for name, conv, c in _convolutions(architecture):
        result |= {
            f'{name}.conv.weight': (conv.channels, c, *_square(conv.kernel)),
            **norm_shapes(f'{name}.bn', conv.channels),
        }
    return result | {
        'fc.weight': (CLASSES[architecture], 2048),
        'fc.bias': (CLASSES[architecture],),
    }


class Inception(nnx.Module):
    """InceptionV3 in evaluation mode.

    architecture: 'fid' or 'torchvision'. weights: a state dict {name: array}, every tensor of which must have its place (torchvision's
    auxiliary classifier is left out); None: random ones of `seed`. Raises DataError, which names each tensor that is missing or unknown.
    """

    def __init__(self, architecture, weights=None, *, seed=0):
        expected = shapes(architecture)
        weights = random_weights(expected, seed) if weights is None else weights
        weights = checked(
            weights,
            expected,
            f'InceptionV3 ({architecture})',
            ignored=['AuxLogits.'] if architecture == 'torchvision' else (),
        )
        self.architecture = architecture
        self.layers = nnx.List(
            [_layer(weights, name, conv) for name, conv, _ in _convolutions(architecture)]
        )
        self.head = Head(weights, 'fc')

    def maps(self, x):
        """The last maps before each pooling depth, of float RGB images in 0..255: b 299 299 3 -> b 73 73 64, b 35 35 192, b 17 17 768,
        b 8 8 2048."""
        x = (
            (x - 128) / 128 if self.architecture == 'fid' else x / 127.5 - 1
        )  # what torchvision's mean and std end in
        layers, found = iter(self.layers), []
        for steps in _stages(self.architecture):
            x = self._run(steps, x, layers)
            found.append(x)
        return found

    def __call__(self, x):
        """Float RGB images b 299 299 3 in 0..255 -> {'64', '192', '768', '2048': means over the maps; 'logits_unbiased': without the bias of
        the last layer; 'logits'}."""
        pooled = {depth: jnp.mean(x, (1, 2)) for depth, x in zip(DEPTHS, self.maps(x))}
        raw, logits = self.head(pooled['2048'])
        return {**pooled, 'logits_unbiased': raw, 'logits': logits}

    def _run(self, steps, x, layers):
        for step in steps:
            if isinstance(step, Conv):
                x = jax.nn.relu(next(layers)(x))
            elif isinstance(step, Block):
                x = jnp.concatenate([self._run(branch, x, layers) for branch in step.branches], -1)
            elif step == 'half':
                x = nnx.max_pool(x, (3, 3), (2, 2))
            elif step == 'max':
                x = nnx.max_pool(x, (3, 3), (1, 1), padding=((1, 1), (1, 1)))
            else:
                x = nnx.avg_pool(
                    x,
                    (3, 3),
                    (1, 1),
                    padding=((1, 1), (1, 1)),
                    count_include_pad=self.architecture == 'torchvision',
                )
        return x


def _layer(weights, name, conv):
    padding = [(0 if conv.valid or conv.stride == 2 else n // 2,) * 2 for n in _square(conv.kernel)]
    return ConvNorm(weights, f'{name}.conv', f'{name}.bn', stride=conv.stride, padding=padding)
