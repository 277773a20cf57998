"""Readers of shape scenes by mode, and the trained reader as a feature network."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from t2i_jax.scenes import analytic, trained
from tfds_builders.shape_scenes.scenes import MODES


class SceneReader(NamedTuple):
    """A way from pictures to scene tables.

    decode: uint8 (n, s, s, 3) -> int32 (n, 9, 8), the largest object first
    tag: its name, mode and weights, as reports carry them
    """

    decode: Callable
    tag: dict


def readers(mode: str) -> dict[str, SceneReader]:
    """Return the readers of a mode (`Meta.scenes`) by name, the best one last.

    'analytic', and 'trained' where ShapeNet-cls has weights for the mode. None are returned for
    data that are not pictures of shape scenes.
    """
    if mode not in MODES:
        return {}
    decode = functools.partial(analytic.decode_all, mode=mode)
    found = {'analytic': SceneReader(decode, dict(name='analytic', mode=mode))}
    if trained.weights_path(mode).exists():
        decode = functools.partial(trained.decode_all, mode=mode)
        tag = dict(name='trained', mode=mode, weights=trained.load(mode)[1])
        found['trained'] = SceneReader(decode, tag)
    return found


def best_reader(mode: str) -> SceneReader | None:
    """Return the trained reader where it has weights, else the analytic one, None without any."""
    return next(reversed(readers(mode).values()), None)


def has_features(mode: str) -> bool:
    """Return whether ShapeNet-cls has weights for a mode, so that `ShapeFeatures(mode)` works."""
    return trained.weights_path(mode).exists()


class ShapeFeatures:
    """ShapeNet-cls as a feature network.

    It gives 256 features, and the 42 pairs of class and colour as the classes of the Inception
    Score's formula. Raises DataError for a mode without weights.
    """

    def __init__(self, mode):
        self.mode, self.metric_prefix = mode, f'shape_net_{mode}'
        self.tag = dict(
            name=self.metric_prefix,
            weights=trained.load(mode)[1],
            resize='area down, bilinear up',
            input_size=trained.SIDE,
        )

    def __call__(self, images, first=0):
        """Return {'features': (n, 256), 'logits': (n, 42)} of uint8 (n, s, s, 3)."""
        out = trained.outputs(images, self.mode)
        return {'features': out['features'], 'logits': out['pairs']}
