"""The image encoder of DAMSM: a picture to a vector for each region and one for the whole.

They lie in the space of the word and sentence vectors. Xu et al., CVPR 2018 (arXiv 1711.10485). Two
linear heads on the maps of a trunk:

| trunk | reads | regions | whole | trained |
|---|---|---|---|---|
| 'inception', torchvision's InceptionV3, the paper's | 299 px | 17 x 17 x 768 | 2048 | heads |
| 'efficientnet_lite0', whose weights pip can install | 224 px | 14 x 14 x 112 | 1280 | heads |
| 'resnet152', torchvision's ResNet-152 | 224 px | 14 x 14 x 1024 | 2048 | heads |
| 'small', some convolutions, for small pictures (ours) | any | 8 x 8 or more | last map | all |

Pretrained trunks are frozen, see encoders/pretrained.py.
"""

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx

from t2i_jax.encoders.efficientnet_lite import EfficientNetTrunk, packaged_weights
from t2i_jax.encoders.inception import InceptionTrunk
from t2i_jax.encoders.pretrained import check_weights
from t2i_jax.encoders.resnet import ResNetTrunk
from t2i_jax.layers.conv import Conv
from t2i_jax.layers.linear import uniform
from t2i_jax.layers.norm import BatchNorm
from t2i_jax.runtime.errors import DataError, RunError, choose

TRUNKS = {
    'inception': InceptionTrunk,
    'efficientnet_lite0': EfficientNetTrunk,
    'resnet152': ResNetTrunk,
}
RESIZES = 'corners', 'half_pixel'

# side of the map whose pixels are the regions of a small trunk
LEAST = 8


class SmallTrunk(nnx.Module):
    """Stages of stride 2, each two convolutions with batch norm and ReLU.

    b s s 3 -> (b r r c, b q q d). The regions are those of the last map of 8 x 8 or more. The
    coarser maps that follow are doubled and appended, so that a region knows its surroundings.
    """

    def __init__(self, size, channels, *, rngs):
        sides = [size >> i + 1 for i in range(len(channels))]
        if not channels or sides[0] < LEAST or sides[-1] < 1 or sides[-1] << len(channels) != size:
            raise ValueError(
                f'channels={channels} halve pictures of {size} px {len(channels)} times: the first '
                f'map has {LEAST} x {LEAST} pixels or more, the last one or more, and all sides '
                'are whole.'
            )
        start = nnx.initializers.he_normal()
        self.downs = nnx.List(
            [
                Conv(c, d, 4, stride=2, padding=1, kernel_init=start, rngs=rngs)
                for c, d in zip((3, *channels), channels)
            ]
        )
        self.keeps = nnx.List(
            [Conv(d, d, 3, padding=1, kernel_init=start, rngs=rngs) for d in channels]
        )
        self.norms = nnx.List([BatchNorm(d, rngs=rngs) for d in channels for _ in range(2)])
        fine = [side for side in sides if side >= LEAST]
        self.first, self.side, self.last_side = len(fine) - 1, fine[-1], sides[-1]
        self.channels = sum(channels[self.first :]), channels[-1]

    def halved(self, i, x, *, train):
        """Compute map i from the one before, the first from pictures. b s s c -> b s/2 s/2 d"""
        x = jax.nn.relu(self.norms[2 * i](self.downs[i](x), train=train))
        return jax.nn.relu(self.norms[2 * i + 1](self.keeps[i](x), train=train))

    def maps(self, x, *, train=False):
        """Return the map of each stage, b s/2 s/2 c, b s/4 s/4 c', ...; s may be another side."""
        maps = []
        for i in range(len(self.downs)):
            x = self.halved(i, x, train=train)
            maps.append(x)
        return maps

    def __call__(self, x, *, train):
        maps = self.maps(x, train=train)
        found = [
            repeat(y, 'b h w c -> b (h i) (w j) c', i=1 << n, j=1 << n)
            for n, y in enumerate(maps[self.first :])
        ]
        return jnp.concatenate(found, -1), maps[-1]


def trunk_of(trunk, size, weights, resize, channels, *, rngs):
    """Build a trunk of the table by its name; arguments as those of DamsmImage."""
    choose('trunk', trunk, (*TRUNKS, 'small'))
    choose('resize', resize, RESIZES)
    if trunk == 'small':
        return SmallTrunk(size, channels, rngs=rngs)
    return TRUNKS[trunk](weights, resize == 'corners')


def installed(trunk):
    """Return the weights of a trunk that pip can install.

    '' for another, and where they are missing: a stage that is trained does without.
    """
    try:
        return str(packaged_weights()) if trunk == 'efficientnet_lite0' else ''
    except DataError:
        return ''


def check_trunk(stage, trunk, weights):
    """Raise RunError or DataError where a trunk lacks the weights that training needs.

    stage: its name, for the message. weights: the file that its keywords name.
    """
    if trunk in TRUNKS and trunk != 'efficientnet_lite0' and not weights:
        network = {'inception': 'InceptionV3', 'resnet152': 'ResNet-152'}[trunk]
        raise RunError(
            f"{network}'s weights cannot be installed by pip: name torchvision's file, "
            f'--config.stages.{stage}.model.weights=<file>, or choose another trunk, '
            f'--config.stages.{stage}.model.trunk=efficientnet_lite0 or small.'
        )
    if trunk in TRUNKS:
        setting = f'stages.{stage}.model.weights'
        check_weights(TRUNKS[trunk], weights or packaged_weights(), setting)


class DamsmImage(nnx.Module):
    """Pictures b s s 3 in [-1, 1] -> (regions b r d, code of the whole b d), float32.

    Regions are in rows from the top left, r = side * side; `side` is that of the map of regions.
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
        """Build the trunk and the heads.

        size: of the pictures, in pixels.
        d: dimensions of the common space.
        trunk: see the table.
        weights: of a pretrained trunk, see `pretrained.frozen`.
        resize: to the size that it reads, 'corners' (the original's) or 'half_pixel'.
        channels: of a small trunk.
        places: also for a small trunk, whose maps know little of where they are: the code reads the
            whole last map instead of its mean, and each region has a learned vector of its own
            added.
        Raises ValueError for a name that does not exist, or sizes that do not fit.
        """
        if places and trunk != 'small':
            raise ValueError('places=True is for trunk=small.')
        self.d = d
        self.trunk = trunk_of(trunk, size, weights, resize, channels, rngs=rngs)
        self.side = self.trunk.side
        local, whole = self.trunk.channels
        self.place = nnx.Param(jnp.zeros((self.side**2, d))) if places else None
        whole = whole * self.trunk.last_side**2 if places else whole
        self.local = nnx.Linear(local, d, use_bias=False, kernel_init=uniform(0.1), rngs=rngs)
        self.whole = nnx.Linear(
            whole, d, kernel_init=uniform(0.1), bias_init=uniform(whole**-0.5), rngs=rngs
        )

    def maps(self, x):
        """Return maps of the trunk, for perceptual losses; a pretrained one has two."""
        small = isinstance(self.trunk, SmallTrunk)
        return self.trunk.maps(x) if small else self.trunk(x, train=False)

    def __call__(self, x, *, train):
        local, last = self.trunk(x, train=train)
        regions = self.local(rearrange(local, 'b h w c -> b (h w) c')).astype(jnp.float32)  # b r d
        if self.place is None:
            return regions, self.whole(last.mean((1, 2))).astype(jnp.float32)
        code = self.whole(rearrange(last, 'b h w c -> b (h w c)')).astype(jnp.float32)
        return regions + self.place[...], code
