"""Several batches in one pass are normalised as if each came alone, on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import bit_equal
from jax.sharding import NamedSharding, PartitionSpec

from t2i_jax import stage as core
from t2i_jax.layers.conv import Conv
from t2i_jax.layers.norm import NORMS, separately
from t2i_jax.runtime import sharding


class Net(nnx.Module):
    """Pictures b h w 3 and vectors b 3 -> logits b, maps b h/2 w/2 3 and what it lacks."""

    def __init__(self, norm='batch', *, rngs):
        self.conv, self.norm, self.second = (
            Conv(3, 3, 4, stride=2, padding=1, rngs=rngs),
            NORMS[norm](3, rngs=rngs),
            NORMS[norm](3, rngs=rngs),
        )

    def __call__(self, x, vector, *, train):
        x = jax.nn.relu(self.norm(self.conv(x), train=train))
        return x.mean((1, 2, 3)) + self.second(vector, train=train).sum(-1), x, None


def inputs(n=3, b=4):
    rng = np.random.default_rng(0)
    return [jnp.float32(rng.normal(i, i + 1, size=(b, 8, 8, 3))) for i in range(n)], jnp.float32(
        rng.normal(size=(b, 3))
    )


def values(function, net, dtype=None):
    """(loss, gradient, statistics) after one pass of `function(net, batches, vector)`."""
    if dtype:
        core.compute_in(net, dtype)
    graph, params, stats = core.split(net)
    batches, vector = inputs()

    def loss(params, batches, vector):
        module = nnx.merge(graph, params, stats)
        found = function(module, batches, vector)
        value = sum(
            (i + 1) * logits.astype(jnp.float32) ** 2 + x.astype(jnp.float32).max((1, 2, 3))
            for i, (logits, x, _) in enumerate(found)
        )
        return value.mean(), core.split(module).stats

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params, batches, vector)


def one_after_another(net, batches, vector):
    return [net(x, vector, train=True) for x in batches]


@pytest.mark.parametrize(
    'norm, dtype, tolerance',
    [('batch', None, 1e-5), ('layer', None, 1e-5), ('batch', 'bfloat16', 0.05)],
)
def test_one_pass_over_several_batches_is_that_of_one_after_another(norm, dtype, tolerance):
    together, apart = (
        values(function, Net(norm, rngs=nnx.Rngs(0)), dtype)
        for function in (separately, one_after_another)
    )
    assert jax.tree.structure(together) == jax.tree.structure(apart)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(apart)):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_batches_see_themselves_alone_and_the_network_is_left_as_it_was():
    batches, vector = inputs()
    net = Net(rngs=nnx.Rngs(0))
    first = [out[1] for out in separately(net, batches, vector)]
    assert (
        np.abs(
            net(jnp.concatenate(batches), jnp.tile(vector, (3, 1)), train=True)[1][:4] - first[0]
        ).max()
        > 0.1
    )
    changed = [out[1] for out in separately(net, [batches[0], batches[1] + 1, batches[2]], vector)]
    assert bit_equal(first[0], changed[0]) and not bit_equal(first[1], changed[1])


def test_rows_that_lie_on_several_devices_stay_there():
    mesh = sharding.make_mesh(devices=jax.devices()[:4])
    place = NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))
    net = Net('layer', rngs=nnx.Rngs(0))  # without statistics nothing needs to be sent
    batches, vector = jax.device_put(inputs(), place)
    text = (
        jax.jit(lambda batches, vector: separately(net, batches, vector))
        .lower(batches, vector)
        .compile()
        .as_text()
    )
    assert not any(
        name in text for name in ('all-gather', 'all-to-all', 'collective-permute', 'all-reduce')
    )
