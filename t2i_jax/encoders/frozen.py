"""What the frozen image networks share: tensors under the names of a PyTorch state dict, and batch norm folded into convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t2i_jax.runtime.errors import DataError

HIGHEST = jax.lax.Precision.HIGHEST  # features are compared between machines
EPSILON = 1e-3  # of batch norm, in all of TensorFlow's networks


def norm_shapes(name, d):
    """{tensor: shape} of a batch norm."""
    return {f'{name}.{part}': (d,) for part in ('weight', 'bias', 'running_mean', 'running_var')}


def random_weights(shapes, seed):
    """float32 tensors of these shapes that keep activations of order one; the same for a seed wherever numpy draws them."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith('running_var'):
            weights[name] = rng.random(shape, np.float32) + np.float32(0.5)
            continue
        noise = rng.standard_normal(shape, np.float32)
        if len(shape) > 1:
            weights[name] = noise * np.float32(
                ((2 if len(shape) == 4 else 1) / np.prod(shape[1:])) ** 0.5
            )
        else:
            weights[name] = noise * np.float32(0.1) + np.float32(name.endswith('weight'))
    return weights


def checked(weights, shapes, network, ignored=()):
    """The tensors of a network out of `weights`, after an account of every one: DataError names each that is missing, unknown or of
    another shape. Counters of batches and names that begin with a word of `ignored` are left out."""
    weights = {
        name: np.asarray(tensor)
        for name, tensor in weights.items()
        if not name.endswith('num_batches_tracked') and not name.startswith(tuple(ignored))
    }
    complaints = {
        'missing': [name for name in shapes if name not in weights],
        'unknown': [name for name in weights if name not in shapes],
        'of another shape': [
            f'{name} {weights[name].shape} instead of {shape}'
            for name, shape in shapes.items()
            if name in weights and weights[name].shape != tuple(shape)
        ],
        'not of numbers': [
            name for name in shapes if name in weights and weights[name].dtype.kind not in 'fiu'
        ],
        'negative': [
            name
            for name in shapes
            if name.endswith('running_var') and name in weights and (weights[name] < 0).any()
        ],
        'not finite': [
            name
            for name in shapes
            if name in weights
            and weights[name].dtype.kind == 'f'
            and not np.isfinite(weights[name]).all()
        ],
    }
    found = [
        f'{len(names)} {what} ({", ".join(names)})' for what, names in complaints.items() if names
    ]
    if found:
        raise DataError(
            f'These weights are not those of {network}, which has {len(shapes)} tensors: {"; ".join(found)}. '
            'Give the weights of that network.'
        )
    return {name: weights[name] for name in shapes}


class ConvNorm(nnx.Module):
    """A convolution with the batch norm that follows it in evaluation mode as one: kernel and bias. b h w c -> b h' w' d

    weights: a state dict; conv, norm: the names of the two in it. padding: as jax.lax.conv_general_dilated takes it. depthwise: each
    channel has a kernel of its own; the padding is TensorFlow's SAME.
    """

    def __init__(self, weights, conv, norm, *, stride=1, padding='SAME', depthwise=False):
        scale, bias, mean, variance = (
            np.asarray(weights[f'{norm}.{part}'], np.float64)
            for part in ('weight', 'bias', 'running_mean', 'running_var')
        )
        scale = scale / np.sqrt(variance + EPSILON)
        kernel = np.asarray(weights[f'{conv}.weight'], np.float64).transpose(
            2, 3, 1, 0
        )  # o i h w -> h w i o
        self.kernel = nnx.Param(jnp.asarray(kernel * scale, jnp.float32))
        self.bias = nnx.Param(jnp.asarray(bias - mean * scale, jnp.float32))
        self.stride, self.padding, self.depthwise = stride, padding, depthwise

    def __call__(self, x):
        if self.depthwise:
            return depthwise(x, self.kernel[:, :, 0], self.stride) + self.bias[...]
        return (
            jax.lax.conv_general_dilated(
                x,
                self.kernel[...],
                (self.stride,) * 2,
                self.padding,
                dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
                precision=HIGHEST,
            )
            + self.bias[...]
        )


def depthwise(x, kernel, stride):
    """A convolution of each channel with its own kernel, TensorFlow's SAME padding: b h w c, k k c -> b h' w' c.

    A sum of shifted images: on CPU, XLA's grouped convolution takes 2 to 20 times as long.
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


class Head(nnx.Module):
    """The last linear layer. b c -> b d, without its bias and with it."""

    def __init__(self, weights, name):
        self.kernel = nnx.Param(jnp.asarray(np.asarray(weights[f'{name}.weight'], np.float32).T))
        self.bias = nnx.Param(jnp.asarray(weights[f'{name}.bias'], jnp.float32))

    def __call__(self, x):
        raw = jnp.dot(x, self.kernel[...], precision=HIGHEST)
        return raw, raw + self.bias[...]
