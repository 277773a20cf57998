"""Features of images for the metrics: a network, its weights and a resize filter under one tag, which belongs beside every number."""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t2i_jax.encoders import efficientnet_lite, inception
from t2i_jax.encoders.frozen import ConvNorm, Head, checked, norm_shapes, random_weights
from t2i_jax.imports.torch import read_weights, sha256
from t2i_jax.metrics.resize import FILTERS, resize
from t2i_jax.runtime.errors import DataError
from t2i_jax.runtime.sharding import by_rows, replicated

# The port of inception-2015-12-05 that pytorch-fid and torch-fidelity offer for download, one file under two names.
FID_WEIGHTS = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'
BATCH = 32


class RandomConv(nnx.Module):
    """Four stride-2 convolutions with random weights: features that cost nothing, for tests. It ranks images only weakly."""

    def __init__(self, weights=None, *, seed=0):
        channels = 3, 32, 64, 128, 256
        shapes = {'fc.weight': (16, 256), 'fc.bias': (16,)}
        for i, (c, d) in enumerate(zip(channels, channels[1:])):
            shapes |= {f'{i}.conv.weight': (d, c, 3, 3), **norm_shapes(f'{i}.norm', d)}
        weights = checked(
            random_weights(shapes, seed) if weights is None else weights, shapes, 'random_conv'
        )
        self.convs = nnx.List(
            [ConvNorm(weights, f'{i}.conv', f'{i}.norm', stride=2) for i in range(4)]
        )
        self.head = Head(weights, 'fc')

    def __call__(self, x):
        x = x / 127.5 - 1  # b 64 64 3
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        pooled = jnp.mean(x, (1, 2))  # b 4 4 256 -> b 256
        return {'256': pooled, 'logits': self.head(pooled)[1]}


class Network(NamedTuple):
    build: Callable
    architecture: str
    size: int
    features: str
    logits: str


NETWORKS = {
    'inception_fid': Network(
        functools.partial(inception.Inception, 'fid'),
        'InceptionV3, graph of 2015-12-05',
        inception.SIZE,
        '2048',
        'logits_unbiased',
    ),
    'inception_torchvision': Network(
        functools.partial(inception.Inception, 'torchvision'),
        'InceptionV3, torchvision',
        inception.SIZE,
        '2048',
        'logits',
    ),
    'efficientnet_lite0': Network(
        efficientnet_lite.EfficientNetLite,
        'EfficientNet-Lite0',
        efficientnet_lite.SIZE,
        '1280',
        'logits',
    ),
    'random_conv': Network(RandomConv, 'four random convolutions', 64, '256', 'logits'),
}


class Extractor:
    """`extractor` makes it. Called with images it gives their features; `tag` and `metric_prefix` say what these are.

    tag: {'name', 'architecture', 'weights': SHA-256 of the file or 'random seed k', 'resize', 'input_size', 'features', 'logits': the outputs
    of the network that are given}, for JSON. metric_prefix: what the name of a metric needs so that nobody takes it for another: '' for the 2015
    Inception with the weights that everybody uses, whose FID is plain FID; otherwise such as 'efficientnet_lite0'.
    """

    def __init__(self, module, network, tag, metric_prefix, batch, mesh):
        self.tag, self.metric_prefix, self.mesh = tag, metric_prefix, mesh
        devices = mesh.size if mesh else 1
        self.batch = -(-batch // devices) * devices
        graph, state = nnx.split(module)
        self.state = jax.device_put(state, replicated(mesh) if mesh else None)

        def apply(state, images):
            outputs = nnx.merge(graph, state)(resize(images, network.size, tag['resize']))
            return outputs[network.features], outputs[network.logits]

        self.apply = jax.jit(apply)

    def __call__(self, images, first=0):
        """{'features': float32 n d, 'logits': float32 n k} of images uint8 n h w 3, on the host.

        The logits of inception_fid are without the bias of the last layer, as the Inception Score on ImageNet's classes reads them. `first`: the
        number of the first image, for messages. Each size of image is compiled once. Raises ValueError for other arrays, and where a feature is
        not finite: it names the image.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
            raise ValueError(
                f'Features are those of uint8 images (n, h, w, 3), one or more, not of {images.dtype} {images.shape}.'
            )
        waiting, done = None, []
        for start in range(0, len(images), self.batch):
            rows = images[start : start + self.batch]
            padded = (
                np.concatenate(
                    [rows, np.zeros((self.batch - len(rows), *rows.shape[1:]), np.uint8)]
                )
                if len(rows) < self.batch
                else rows
            )
            outputs = self.apply(
                self.state, jax.device_put(padded, by_rows(self.mesh) if self.mesh else None)
            )
            if waiting:
                done.append(jax.device_get(waiting))  # while the next batch is computed
            waiting = outputs
        done.append(jax.device_get(waiting))
        features, logits = (np.concatenate(parts)[: len(images)] for parts in zip(*done))
        wrong = np.flatnonzero(~(np.isfinite(features).all(1) & np.isfinite(logits).all(1)))
        if len(wrong):
            raise ValueError(
                f'{self.tag["name"]} gives numbers that are not finite for image {first + wrong[0]} ({len(wrong)} of {len(images)} images). '
                f'Check its weights: {self.tag["weights"]}.'
            )
        return {'features': features, 'logits': logits}


def extractor(name, weights='', resize='pil_bicubic', *, batch=BATCH, mesh=None):
    """An `Extractor`.

    name: inception_fid, inception_torchvision, efficientnet_lite0 or random_conv. weights: a file (`read_weights`), or 'random:SEED'; empty: those
    of the pip package for efficientnet_lite0, random ones of seed 0 for the others, which the tag and the prefix say. resize: a filter of
    t2i_jax/metrics/resize.py. batch: images at a time, rounded up to a multiple of the devices of `mesh` (t2i_jax.runtime.sharding.make_mesh, of
    this process's devices), over which they are spread; None: one device. Raises ValueError for wrong names, DataError for wrong weights.
    """
    if name not in NETWORKS:
        raise ValueError(f'There is no feature network {name!r}; there are {", ".join(NETWORKS)}.')
    if resize not in FILTERS:
        raise ValueError(f'There is no resize filter {resize!r}; there are {", ".join(FILTERS)}.')
    if batch < 1:
        raise ValueError(f'A batch of {batch} images is none: give 1 or more.')
    network, weights = NETWORKS[name], str(weights)
    if not weights:
        weights = (
            str(efficientnet_lite.packaged_weights())
            if name == 'efficientnet_lite0'
            else 'random:0'
        )
    if weights.startswith('random:'):
        digits = weights.removeprefix('random:')
        if not re.fullmatch(r'\d{1,9}', digits):
            raise ValueError(f'weights={weights!r} names no seed: give random:0, random:1, ...')
        source, prefix, module = (
            f'random seed {int(digits)}',
            f'{name}_random{int(digits)}',
            network.build(seed=int(digits)),
        )
        prefix = 'random_conv' if prefix == 'random_conv_random0' else prefix
    elif name == 'random_conv':
        raise ValueError(
            f'random_conv reads no file ({weights}): leave its weights empty, or give random:SEED.'
        )
    else:
        source, prefix = sha256(weights), name
        try:
            module = network.build(read_weights(weights))
        except DataError as error:
            raise (error if weights in str(error) else DataError(f'{weights}: {error}')) from None
        if name == 'inception_fid':
            known = source == FID_WEIGHTS
            source, prefix = (
                (source, '') if known else (f'{source} (unverified)', 'inception_fid_unverified')
            )
    tag = {
        'name': name,
        'architecture': network.architecture,
        'weights': source,
        'resize': resize,
        'input_size': network.size,
        'features': network.features,
        'logits': network.logits,
    }
    return Extractor(module, network, tag, prefix, batch, mesh)
