"""The image encoder of DAMSM: a picture to a vector for each region and one for the whole, where word and sentence vectors lie, too.

Xu et al., CVPR 2018 (arXiv 1711.10485). Two linear heads on the maps of a trunk:

| trunk | reads | regions | whole | trained |
|---|---|---|---|---|
| 'inception', torchvision's InceptionV3, the paper's | 299 px | 17 x 17 x 768 | 2048 | heads |
| 'efficientnet_lite0', whose weights pip can install | 224 px | 14 x 14 x 112 | 1280 | heads |
| 'small', a few convolutions, for small pictures (ours) | what it gets | 8 x 8 or more | the last map | all |

Pretrained trunks are frozen in whatever stage they stand: their arrays are `nnx.BatchStat`, kept and saved but never optimised. Gradients do pass
through them to the picture. They compute in float32, in evaluation mode: batch norm is folded into the convolutions.
"""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.encoders import efficientnet_lite, inception
from t2i_jax.encoders.bi_lstm import uniform
from t2i_jax.encoders.frozen import random_weights
from t2i_jax.imports.torch import read_weights
from t2i_jax.layers.conv import Conv
from t2i_jax.layers.norm import BatchNorm
from t2i_jax.runtime.errors import DataError

LEAST = 8  # side of the map whose pixels are the regions of a small trunk


def bilinear(images, size, corners):
    """Pictures b h w c -> b size size c, 2 x 2 neighbours, no antialias. corners: the outer pixels keep their places (`align_corners` of PyTorch,
    its only way before 0.4); else pixel i reads at (i + 1/2) h / size - 1/2."""
    b, h, w, c = images.shape
    if (h, w) == (size, size):
        return images
    if not corners:
        return jax.image.resize(images, (b, size, size, c), 'linear', antialias=False)
    scale = (size - 1) / (np.array([h, w]) - 1)
    return jax.image.scale_and_translate(
        images, (b, size, size, c), (1, 2), scale, (1 - scale) / 2, 'linear', antialias=False
    )


class Pretrained(nnx.Module):
    """A frozen ImageNet network: pictures b s s 3 in [-1, 1] -> (its map of regions, its last map)."""

    channels: tuple  # of the two maps

    def __init__(self, weights, corners):
        """weights: see `frozen`. corners: see `bilinear`."""
        self.corners = corners
        self.net = frozen(self.make, self.shapes(), weights)

    def __call__(self, x, *, train):
        return self.net.maps(
            (bilinear(x.astype(jnp.float32), self.size, self.corners) + 1) * 127.5
        )[-2:]


class InceptionTrunk(Pretrained):
    size, channels = inception.SIZE, (768, 2048)

    @staticmethod
    def shapes():
        return inception.shapes('torchvision')

    @staticmethod
    def make(weights):
        net = inception.Inception('torchvision', weights)
        del net.head  # nobody asks for classes
        return net


class EfficientNetTrunk(Pretrained):
    size, channels = efficientnet_lite.SIZE, (112, 1280)
    shapes = staticmethod(efficientnet_lite.shapes)

    @staticmethod
    def make(weights):
        net = efficientnet_lite.EfficientNetLite(weights)
        del net.head
        return net


def frozen(make, shapes, weights):
    """The network `make(weights)` with all its arrays as `nnx.BatchStat`.

    weights: a file, 'random:SEED', or '' where none are known, as with nominal sizes. Without the file only its shapes can be had, which is all that is
    needed where a checkpoint holds the arrays: whoever computes them gets a DataError. Raises DataError for a file of other contents.
    """
    if digits := re.fullmatch(r'random:(\d{1,9})', weights):
        tensors = random_weights(shapes, int(digits[1]))
    elif weights and pathlib.Path(weights).expanduser().exists():
        tensors = read_weights(pathlib.Path(weights).expanduser())
    else:
        tensors = None
        if weights:
            logging.warning(
                'The weights %s are not there; a stage that is trained already does without.',
                weights,
            )

    def build():
        net = make(
            {name: np.broadcast_to(np.float32(1), shape) for name, shape in shapes.items()}
            if tensors is None
            else tensors
        )
        for _, module in nnx.iter_modules(net):
            for name, value in list(vars(module).items()):
                if isinstance(value, nnx.Param):
                    setattr(module, name, nnx.BatchStat(value[...]))
        return net

    if tensors is not None:
        with (
            jax.ensure_compile_time_eval()
        ):  # once, not as operations of the program that is being traced
            return build()

    def refuse():
        raise DataError(
            f'The image encoder of DAMSM has no weights: {weights or "none are named"}. Set model.weights to a file that is there.'
        )

    graph, state = nnx.split(nnx.eval_shape(build))
    return nnx.merge(graph, jax.pure_callback(refuse, nnx.to_pure_dict(state)))


def check_weights(trunk, weights):
    """Raises DataError where the file of a pretrained trunk's weights is missing or holds other ones."""
    if (
        not re.fullmatch(r'random:(\d{1,9})', str(weights))
        and not pathlib.Path(weights).expanduser().is_file()
    ):
        raise DataError(
            f'The weights of the image encoder of DAMSM, {weights}, are not there. Set --config.stages.damsm.model.weights to a file that is.'
        )
    nnx.eval_shape(lambda: TRUNKS[trunk](str(weights), True))


class SmallTrunk(nnx.Module):
    """Stages of stride 2, each two convolutions with batch norm and ReLU: b s s 3 -> (b r r c, b q q d).

    The regions are those of the last map of 8 x 8 or more, with the following, coarser ones beside it, doubled: so a region knows what is around it.
    """

    def __init__(self, size, channels, *, rngs):
        sides = [size >> i + 1 for i in range(len(channels))]
        if not channels or sides[0] < LEAST or sides[-1] < 1 or sides[-1] << len(channels) != size:
            raise ValueError(
                f'channels={channels} halve pictures of {size} px {len(channels)} times: the first map has {LEAST} x {LEAST} pixels '
                'or more, the last one or more, and all sides are whole.'
            )
        pairs = list(zip((3, *channels), channels))
        self.downs = nnx.List(
            [
                Conv(
                    c,
                    d,
                    4,
                    stride=2,
                    padding=1,
                    kernel_init=nnx.initializers.he_normal(),
                    rngs=rngs,
                )
                for c, d in pairs
            ]
        )
        self.keeps = nnx.List(
            [
                Conv(d, d, 3, padding=1, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
                for d in channels
            ]
        )
        self.norms = nnx.List([BatchNorm(d, rngs=rngs) for d in channels for _ in range(2)])
        self.first, self.side, self.last_side = (
            sum(side >= LEAST for side in sides) - 1,
            [s for s in sides if s >= LEAST][-1],
            sides[-1],
        )
        self.channels = sum(channels[self.first :]), channels[-1]

    def __call__(self, x, *, train):
        maps = []
        for i, (down, keep) in enumerate(zip(self.downs, self.keeps)):
            x = jax.nn.relu(self.norms[2 * i](down(x), train=train))  # b s/2 s/2 d
            x = jax.nn.relu(self.norms[2 * i + 1](keep(x), train=train))
            maps.append(x)
        found = maps[self.first :]
        beside = [
            repeat(y, 'b h w c -> b (h i) (w j) c', i=1 << n, j=1 << n) for n, y in enumerate(found)
        ]
        return jnp.concatenate(beside, -1), x


class DamsmImage(nnx.Module):
    """Pictures b s s 3 in [-1, 1] -> (regions b r d, code of the whole b d), float32; regions in rows from the top left, r = side * side.

    `side` is that of the map of regions.
    """

    def __init__(
        self,
        size,
        d=256,
        *,
        trunk='inception',
        weights='',
        resize='corners',
        channels=(64, 128, 256, 256),
        places=False,
        rngs,
    ):
        """size: of the pictures, in pixels. trunk: see the table. weights: of a pretrained trunk, see `frozen`; resize: to the size that it reads,
        'corners' (the original's) or 'half_pixel'. channels: of a small trunk. places: also for a small trunk, whose maps know little of where they
        are: the code reads the whole last map instead of its mean, and each region has a learned vector of its own added.
        Raises ValueError for a name that does not exist, or sizes that do not fit.
        """
        if trunk not in ('small', *TRUNKS):
            raise ValueError(
                f'There is no image trunk {trunk!r}; there are {", ".join(TRUNKS)} and small.'
            )
        if resize not in ('corners', 'half_pixel'):
            raise ValueError(f'resize is {resize!r}; it is corners or half_pixel.')
        self.d = d
        if trunk == 'small':
            self.trunk = SmallTrunk(size, channels, rngs=rngs)
            self.side = self.trunk.side
        else:
            if places:
                raise ValueError('places=True is for trunk=small.')
            self.trunk = TRUNKS[trunk](weights, resize == 'corners')
            self.side = {'inception': 17, 'efficientnet_lite0': 14}[trunk]
        local, whole = self.trunk.channels
        self.place = nnx.Param(jnp.zeros((self.side**2, d))) if places else None
        whole = whole * self.trunk.last_side**2 if places else whole
        self.local = nnx.Linear(local, d, use_bias=False, kernel_init=uniform(0.1), rngs=rngs)
        self.whole = nnx.Linear(
            whole, d, kernel_init=uniform(0.1), bias_init=uniform(whole**-0.5), rngs=rngs
        )

    def __call__(self, x, *, train):
        local, last = self.trunk(x, train=train)
        regions = self.local(rearrange(local, 'b h w c -> b (h w) c')).astype(jnp.float32)  # b r d
        if self.place is None:
            return regions, self.whole(last.mean((1, 2))).astype(jnp.float32)
        return regions + self.place[...], self.whole(
            rearrange(last, 'b h w c -> b (h w c)')
        ).astype(jnp.float32)


TRUNKS = {'inception': InceptionTrunk, 'efficientnet_lite0': EfficientNetTrunk}
