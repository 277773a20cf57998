"""Frozen image networks: weights under the names of a PyTorch state dict, and how they are loaded.

Pretrained trunks are frozen in whatever stage they stand: their arrays are `nnx.BatchStat`, stored
and saved but never optimised. Gradients do pass through them to the picture. They compute in
float32, in evaluation mode: batch norm is folded into the convolutions.
"""

import importlib.util
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx

from t2i_jax.runtime.errors import DataError, home, quoted
from tfds_builders.files import require_file
from tfds_builders.foreign.weights import read_weights

# features are compared between machines
HIGHEST = jax.lax.Precision.HIGHEST

# of batch norm, in all of TensorFlow's networks
EPSILON = 1e-3
# mean and standard deviation of ImageNet's RGB in [0, 1]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# ------------------------------------------------------------------------------------- weights
def norm_shapes(name, d):
    """Return {tensor: shape} of a batch norm."""
    return {f'{name}.{part}': (d,) for part in ('weight', 'bias', 'running_mean', 'running_var')}


def random_weights(shapes, seed):
    """Draw float32 tensors of these shapes that keep activations of order one.

    They are the same for a seed wherever numpy draws them.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith('running_var'):
            weights[name] = rng.random(shape, np.float32) + np.float32(0.5)
            continue
        noise = rng.standard_normal(shape, np.float32)
        if len(shape) > 1:
            gain = 2 if len(shape) == 4 else 1
            weights[name] = noise * np.float32((gain / np.prod(shape[1:])) ** 0.5)
        else:
            weights[name] = noise * np.float32(0.1) + np.float32(name.endswith('weight'))
    return weights


def checked(weights, shapes, network, ignored=()):
    """Return the tensors of a network out of `weights`, after an account of every one.

    Counters of batches and names that start with a word of `ignored` are left out. Raises DataError
    that names each tensor that is missing, unknown, of another shape, or of impossible numbers.
    """
    weights = {
        name: np.asarray(tensor)
        for name, tensor in weights.items()
        if not name.endswith('num_batches_tracked') and not name.startswith(tuple(ignored))
    }
    found = {name: weights[name] for name in shapes if name in weights}

    def finite(tensor):
        return tensor.dtype.kind != 'f' or np.isfinite(tensor).all()

    complaints = {
        'missing': [name for name in shapes if name not in weights],
        'unknown': [name for name in weights if name not in shapes],
        'of another shape': [
            f'{name} {tensor.shape} instead of {shapes[name]}'
            for name, tensor in found.items()
            if tensor.shape != tuple(shapes[name])
        ],
        'not of numbers': [n for n, tensor in found.items() if tensor.dtype.kind not in 'fiu'],
        'negative': [
            n for n, tensor in found.items() if n.endswith('running_var') and (tensor < 0).any()
        ],
        'not finite': [n for n, tensor in found.items() if not finite(tensor)],
    }
    listed = [
        f'{len(names)} {what} ({", ".join(names)})' for what, names in complaints.items() if names
    ]
    if listed:
        raise DataError(
            f'These weights are not those of {network}, which has {len(shapes)} tensors: '
            f'{"; ".join(listed)}. Give the weights of that network.'
        )
    return found


# -------------------------------------------------------------------------------------- layers
class ConvNorm(nnx.Module):
    """A convolution and the batch norm after it, in evaluation mode, as one kernel and bias.

    b h w c -> b h' w' d
    """

    def __init__(
        self,
        weights,
        conv,
        norm,
        *,
        stride=1,
        padding='SAME',
        depthwise=False,
        epsilon=EPSILON,
    ):
        """Fold the norm into the convolution.

        weights: a state dict.
        conv, norm: the names of the two in it.
        stride: of the convolution.
        padding: as jax.lax.conv_general_dilated takes it.
        depthwise: each channel has a kernel of its own; the padding is TensorFlow's SAME.
        epsilon: of the batch norm.
        """
        scale, bias, mean, variance = (
            np.asarray(weights[f'{norm}.{part}'], np.float64)
            for part in ('weight', 'bias', 'running_mean', 'running_var')
        )
        scale = scale / np.sqrt(variance + epsilon)
        kernel = np.asarray(weights[f'{conv}.weight'], np.float64)
        kernel = kernel.transpose(2, 3, 1, 0)  # o i h w -> h w i o
        self.kernel = nnx.Param(jnp.asarray(kernel * scale, jnp.float32))
        self.bias = nnx.Param(jnp.asarray(bias - mean * scale, jnp.float32))
        self.stride, self.padding, self.depthwise = stride, padding, depthwise

    def __call__(self, x):
        if self.depthwise:
            return depthwise(x, self.kernel[:, :, 0], self.stride) + self.bias[...]
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...],
            (self.stride,) * 2,
            self.padding,
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            precision=HIGHEST,
        )
        return y + self.bias[...]


def depthwise(x, kernel, stride):
    """Convolve each channel with its own kernel, TensorFlow's SAME padding.

    b h w c, k k c -> b h' w' c. A sum of shifted images: on CPU, XLA's grouped convolution takes 2
    to 20 times as long.
    """
    k = len(kernel)
    outputs = [-(-n // stride) for n in x.shape[1:3]]
    pads = [max((m - 1) * stride + k - n, 0) for m, n in zip(outputs, x.shape[1:3])]
    x = jnp.pad(x, ((0, 0), *((p // 2, p - p // 2) for p in pads), (0, 0)))
    h, w = ((m - 1) * stride + 1 for m in outputs)
    return sum(
        x[:, i : i + h : stride, j : j + w : stride] * kernel[i, j]
        for i in range(k)
        for j in range(k)
    )


class ClassHead(nnx.Module):
    """The last linear layer of a classifier. b c -> b d, without its bias and with it."""

    def __init__(self, weights, name):
        self.kernel = nnx.Param(jnp.asarray(np.asarray(weights[f'{name}.weight'], np.float32).T))
        self.bias = nnx.Param(jnp.asarray(weights[f'{name}.bias'], jnp.float32))

    def __call__(self, x):
        raw = jnp.dot(x, self.kernel[...], precision=HIGHEST)
        return raw, raw + self.bias[...]


# -------------------------------------------------------------------------------------- trunks
class PretrainedTrunk(nnx.Module):
    """A frozen ImageNet network: pictures b s s 3 in [-1, 1] -> (its map of regions, its last map).

    A subclass sets the three attributes and the two static methods.
    """

    # pixels of the side that it reads
    size: int
    # of the two maps
    channels: tuple
    # of the map of regions
    side: int

    @staticmethod
    def shapes():
        """Return {name: shape} of the tensors in its state dict."""
        raise NotImplementedError

    @staticmethod
    def make(weights):
        """Build the network, which has `maps(images in 0..255)`, of a state dict."""
        raise NotImplementedError

    def __init__(self, weights, corners):
        """weights: see `frozen`. corners: see `bilinear`."""
        self.corners = corners
        self.net = frozen(self.make, self.shapes(), weights)

    def __call__(self, x, *, train):
        x = bilinear(x.astype(jnp.float32), self.size, self.corners)
        return self.net.maps((x + 1) * 127.5)[-2:]


def bilinear(images, size, corners):
    """Resize pictures b h w c -> b size size c, 2 x 2 neighbours, no antialias.

    corners: the outer pixels keep their places (`align_corners` of PyTorch, its only way before
    0.4); otherwise pixel i reads at (i + 1/2) h / size - 1/2.
    """
    b, h, w, c = images.shape
    if (h, w) == (size, size):
        return images
    if not corners:
        return jax.image.resize(images, (b, size, size, c), 'linear', antialias=False)
    scale = (size - 1) / (np.array([h, w]) - 1)
    return jax.image.scale_and_translate(
        images, (b, size, size, c), (1, 2), scale, (1 - scale) / 2, 'linear', antialias=False
    )


def frozen(make, shapes, weights, read=read_weights):
    """Build the network `make(weights)` with all its arrays as `nnx.BatchStat`.

    read: path -> state dict.
    weights: a file, 'random:SEED', or '' where none are known, as with nominal sizes. Without the
    file the network has shapes only, which is enough where a checkpoint holds the arrays; computing
    them raises DataError. Raises DataError for a file of other contents.
    """
    tensors, path = None, home(weights)
    if seed := random_seed(weights):
        tensors = random_weights(shapes, int(seed))
    elif weights and path.exists():
        tensors = read(path)
    elif weights:
        logging.warning(
            'The weights %s do not exist; a stage that is trained already does without.',
            quoted(weights),
        )

    def build():
        ones = {name: np.broadcast_to(np.float32(1), shape) for name, shape in shapes.items()}
        net = make(ones if tensors is None else tensors)
        for _, module in nnx.iter_modules(net):
            for name, value in list(vars(module).items()):
                if isinstance(value, nnx.Param):
                    setattr(module, name, nnx.BatchStat(value[...]))
        return net

    if tensors is not None:
        # once, not as operations of the program that is being traced
        with jax.ensure_compile_time_eval():
            return build()

    def refuse():
        raise DataError(
            f'A frozen network has no weights: {quoted(weights) if weights else "none are named"}. '
            'Set model.weights to a file that exists.'
        )

    graph, state = nnx.split(nnx.eval_shape(build))
    return nnx.merge(graph, jax.pure_callback(refuse, nnx.to_pure_dict(state)))


def check_weights(trunk, weights, setting):
    """Raise DataError where the weights of a trunk's class are missing or those of another network.

    setting: the name of the setting that holds the file, for the message.
    """
    if not random_seed(str(weights)):
        try:
            require_file(weights)
        except DataError as error:
            raise DataError(f'Weights of a frozen network (--config.{setting}): {error}') from None
    nnx.eval_shape(lambda: trunk(str(weights), True))


def package_files(package, pattern):
    """Return the files of an installed package by a pattern, without running the package."""
    spec = importlib.util.find_spec(package)
    return [
        path
        for place in (spec.submodule_search_locations or [] if spec else [])
        for path in sorted(pathlib.Path(place).glob(pattern))
    ]


def random_seed(weights):
    """Return the digits of 'random:SEED', '' for anything else."""
    digits = re.fullmatch(r'random:(\d{1,9})', weights)
    return digits[1] if digits else ''
