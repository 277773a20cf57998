"""InceptionV3 for features, frozen: the 2015 graph of FID and torchvision's ImageNet network.

Szegedy et al., CVPR 2016. Both have the same convolutions. The 2015 graph (inception-2015-12-05,
ported by pytorch-fid and torch-fidelity under equal names) leaves padding out of its average pools,
has a max pool in its last block and 1008 logits; torchvision's counts padding, has an average pool
there and 1000 logits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.encoders.pretrained import (
    ClassHead,
    ConvNorm,
    PretrainedTrunk,
    checked,
    norm_shapes,
    random_weights,
)
from t2i_jax.layers.pool import max_pool
from t2i_jax.runtime.errors import choose

SIZE = 299
CLASSES = {'fid': 1008, 'torchvision': 1000}
DEPTHS = '64', '192', '768', '2048'


class _Conv(NamedTuple):
    """Convolution, batch norm, ReLU. Padding keeps the size; stride 2 and `valid` have none."""

    name: str
    channels: int
    kernel: int | tuple = 1
    stride: int = 1
    valid: bool = False


class _Block(NamedTuple):
    """Branches on one input, their outputs concatenated. A branch is a list of steps."""

    name: str
    branches: list


def _a(name, pool):
    return _Block(
        name,
        [
            [_Conv('branch1x1', 64)],
            [_Conv('branch5x5_1', 48), _Conv('branch5x5_2', 64, 5)],
            [
                _Conv('branch3x3dbl_1', 64),
                _Conv('branch3x3dbl_2', 96, 3),
                _Conv('branch3x3dbl_3', 96, 3),
            ],
            ['average', _Conv('branch_pool', pool)],
        ],
    )


def _b(name):
    return _Block(
        name,
        [
            [_Conv('branch3x3', 384, 3, 2)],
            [
                _Conv('branch3x3dbl_1', 64),
                _Conv('branch3x3dbl_2', 96, 3),
                _Conv('branch3x3dbl_3', 96, 3, 2),
            ],
            ['half'],
        ],
    )


def _c(name, c):
    row, column = (1, 7), (7, 1)
    return _Block(
        name,
        [
            [_Conv('branch1x1', 192)],
            [
                _Conv('branch7x7_1', c),
                _Conv('branch7x7_2', c, row),
                _Conv('branch7x7_3', 192, column),
            ],
            [
                _Conv('branch7x7dbl_1', c),
                _Conv('branch7x7dbl_2', c, column),
                _Conv('branch7x7dbl_3', c, row),
                _Conv('branch7x7dbl_4', c, column),
                _Conv('branch7x7dbl_5', 192, row),
            ],
            ['average', _Conv('branch_pool', 192)],
        ],
    )


def _d(name):
    return _Block(
        name,
        [
            [_Conv('branch3x3_1', 192), _Conv('branch3x3_2', 320, 3, 2)],
            [
                _Conv('branch7x7x3_1', 192),
                _Conv('branch7x7x3_2', 192, (1, 7)),
                _Conv('branch7x7x3_3', 192, (7, 1)),
                _Conv('branch7x7x3_4', 192, 3, 2),
            ],
            ['half'],
        ],
    )


def _e(name, pool):
    def fork(a, b):
        return _Block('', [[_Conv(a, 384, (1, 3))], [_Conv(b, 384, (3, 1))]])

    return _Block(
        name,
        [
            [_Conv('branch1x1', 320)],
            [_Conv('branch3x3_1', 384), fork('branch3x3_2a', 'branch3x3_2b')],
            [
                _Conv('branch3x3dbl_1', 448),
                _Conv('branch3x3dbl_2', 384, 3),
                fork('branch3x3dbl_3a', 'branch3x3dbl_3b'),
            ],
            [pool, _Conv('branch_pool', 192)],
        ],
    )


def _stages(architecture):
    """Return the steps up to each of the four depths."""
    choose('architecture of Inception', architecture, CLASSES)
    return [
        [
            _Conv('Conv2d_1a_3x3', 32, 3, 2),
            _Conv('Conv2d_2a_3x3', 32, 3, valid=True),
            _Conv('Conv2d_2b_3x3', 64, 3),
            'half',
        ],  # 149 147 147 73
        [
            _Conv('Conv2d_3b_1x1', 80),
            _Conv('Conv2d_4a_3x3', 192, 3, valid=True),
            'half',
        ],  # 73 71 35
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
    """Yield (full name, convolution, input channels) in order; return the channels at the end."""
    for step in steps:
        if isinstance(step, _Conv):
            yield prefix + step.name, step, c
            c = step.channels
        elif isinstance(step, _Block):
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
    """Return {name: shape} of all the tensors in a state dict.

    architecture: 'fid' or 'torchvision' (without its auxiliary classifier).
    """
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
    """InceptionV3 in evaluation mode."""

    def __init__(self, architecture, weights=None, *, seed=0):
        """Build the network.

        architecture: 'fid' or 'torchvision'.
        weights: a state dict {name: array}, every tensor of which must have its place
            (torchvision's auxiliary classifier is left out); None: random ones of `seed`.
        Raises DataError, which names each tensor that is missing or unknown.
        """
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
        self.head = ClassHead(weights, 'fc')

    def maps(self, x):
        """Compute the last map before each pooling depth, of float RGB images in 0..255.

        b 299 299 3 -> b 73 73 64, b 35 35 192, b 17 17 768, b 8 8 2048
        """
        # torchvision's mean and std end in this, too
        x = (x - 128) / 128 if self.architecture == 'fid' else x / 127.5 - 1
        layers, found = iter(self.layers), []
        for steps in _stages(self.architecture):
            x = self._run(steps, x, layers)
            found.append(x)
        return found

    def __call__(self, x):
        """Compute features of float RGB images b 299 299 3 in 0..255.

        -> {'64', '192', '768', '2048': means over the maps, 'logits_unbiased': without the bias of
        the last layer, 'logits'}
        """
        pooled = {depth: jnp.mean(x, (1, 2)) for depth, x in zip(DEPTHS, self.maps(x))}
        raw, logits = self.head(pooled['2048'])
        return {**pooled, 'logits_unbiased': raw, 'logits': logits}

    def _run(self, steps, x, layers):
        for step in steps:
            if isinstance(step, _Conv):
                x = jax.nn.relu(next(layers)(x))
            elif isinstance(step, _Block):
                x = jnp.concatenate([self._run(branch, x, layers) for branch in step.branches], -1)
            elif step == 'half':
                x = max_pool(x, 3, 2)
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


class InceptionTrunk(PretrainedTrunk):
    """Torchvision's InceptionV3 up to its last map."""

    size, side, channels = SIZE, 17, (768, 2048)

    @staticmethod
    def shapes():
        return shapes('torchvision')

    @staticmethod
    def make(weights):
        net = Inception('torchvision', weights)
        # classes are not needed
        del net.head
        return net
