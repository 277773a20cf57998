"""InceptionV3 against torch-fidelity's and torchvision's modules with the same seeded weights:
committed values, and live where they are installed.
"""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx
from oracles import load

from t2i_jax.encoders import inception
from t2i_jax.encoders.pretrained import random_weights
from t2i_jax.metrics.resize import resize
from t2i_jax.runtime.errors import DataError

EXPECTED = json.loads((pathlib.Path(__file__).parent / 'oracles' / 'networks.json').read_text())
FILTERS = {'fid': 'tf1_bilinear', 'torchvision': 'torch_bilinear'}


def images(n=2, h=80, w=64):
    """The images of oracles/make_networks.py."""
    noise = np.random.default_rng(1).integers(0, 256, (n, h, w, 3), np.uint8)
    noise[1::2] //= 4
    return noise


@functools.cache
def weights(architecture):
    return random_weights(inception.shapes(architecture), 0)


@functools.cache
def network(architecture):
    """Images uint8 -> outputs of the network with the seeded weights; one compilation."""
    graph, state = nnx.split(inception.Inception(architecture, weights(architecture)))
    apply = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    return lambda batch: jax.device_get(
        apply(state, resize(batch, inception.SIZE, FILTERS[architecture]))
    )


def difference(value, oracle):
    return np.abs(value - oracle).max() / np.abs(oracle).max()


@pytest.mark.parametrize('architecture', inception.CLASSES)
def test_every_depth_has_the_committed_values_of_the_oracle(architecture):
    outputs = network(architecture)(images())
    expected = EXPECTED[f'inception_{architecture}']
    assert [outputs[depth].shape for depth in inception.DEPTHS] == [
        (2, int(depth)) for depth in inception.DEPTHS
    ]
    assert (
        outputs['logits'].shape
        == outputs['logits_unbiased'].shape
        == (2, inception.CLASSES[architecture])
    )
    for name, rows in expected.items():
        found = np.concatenate([outputs[name].mean(1, keepdims=True), outputs[name][:, :4]], 1)
        assert difference(found, np.array(rows)) < 1e-5, name


def test_every_depth_equals_torch_fidelity():
    load.torch_fidelity()
    from oracles.make_networks import fidelity

    for h, w in ((80, 64), (299, 299)):
        outputs, oracle = network('fid')(images(2, h, w)), fidelity(weights('fid'), images(2, h, w))
        assert outputs.keys() == oracle.keys()
        for name, value in oracle.items():
            assert difference(outputs[name], value) < 1e-5, (name, h, w)


def test_every_depth_equals_torchvision():
    load.torchvision()
    from oracles.make_networks import vision

    for h, w in ((80, 64), (299, 299)):
        outputs, oracle = (
            network('torchvision')(images(2, h, w)),
            vision(weights('torchvision'), images(2, h, w)),
        )
        for name, value in oracle.items():
            assert difference(outputs[name], value) < 1e-5, (name, h, w)


def test_parameters_are_as_many_as_published():
    def count(architecture):  # 23,834,568: torchvision's network without its auxiliary classifier
        return sum(
            int(np.prod(shape))
            for name, shape in inception.shapes(architecture).items()
            if 'running' not in name
        )

    assert count('torchvision') == 23_834_568
    assert count('fid') == 23_834_568 + 8 * 2049
    assert len(inception.shapes('fid')) == 94 * 5 + 2


def test_every_tensor_is_accounted_for():
    good = dict(weights('fid'))
    kernel = good.pop('Conv2d_1a_3x3.conv.weight')
    with pytest.raises(
        DataError,
        match=r'InceptionV3 \(fid\), which has 472 tensors: 1 missing '
        r'\(Conv2d_1a_3x3.conv.weight\)\. Give',
    ):
        inception.Inception('fid', good)
    good.pop('fc.bias')
    broken = {
        **good,
        'Conv2d_1a_3x3.conv.weight': kernel[:, :2],
        'more': kernel,
        'AuxLogits.fc.bias': kernel,
    }
    broken['Mixed_7c.branch_pool.bn.bias'] = np.full(192, np.nan, np.float32)
    broken['Mixed_7c.branch_pool.bn.running_var'] = np.full(192, -1, np.float32)
    with pytest.raises(DataError) as error:
        inception.Inception('fid', broken)
    for part in (
        '1 missing (fc.bias)',
        '2 unknown (more, AuxLogits.fc.bias)',
        'weight (32, 2, 3, 3) instead of (32, 3, 3, 3)',
        '1 not finite (Mixed_7c.branch_pool.bn.bias)',
        '1 negative (Mixed_7c.branch_pool.bn.running_var)',
    ):
        assert part in str(error.value)
    with pytest.raises(DataError, match='1008, 2048'):
        inception.Inception(
            'torchvision',
            {
                **weights('fid'),
                'AuxLogits.fc.bias': kernel,
                'Conv2d_1a_3x3.bn.num_batches_tracked': np.array(0),
            },
        )
    with pytest.raises(ValueError, match="Inception is 'v4'; it is 'fid' or 'torchvision'"):
        inception.Inception('v4')
