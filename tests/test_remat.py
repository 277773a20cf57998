"""Blocks that are computed a second time: the same numbers from less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t2i_jax import stage as core
from t2i_jax.layers import remat
from t2i_jax.layers.glu import ImageTrunk, ResidualGlu
from t2i_jax.run import Run


class Chain(nnx.Module):
    def __init__(self, *, rngs):
        self.blocks = nnx.List([ResidualGlu(4, rngs=rngs) for _ in range(6)])
        self.trunk = ImageTrunk(16, 4, rngs=rngs)

    def __call__(self, x, *, train):
        for block in self.blocks:
            x = block(x, train=train)
        return self.trunk(x[..., :3], train=train)


def parts(on, dtype=jnp.float32):
    """(jitted function of parameters and a picture -> loss, gradient, statistics; parameters)"""
    chain = Chain(rngs=nnx.Rngs(0))
    if on:
        remat.switch_on(chain)
    graph, params, stats = core.split(chain)

    def loss(params, x):
        chain = nnx.merge(graph, params, stats)
        y = chain(x.astype(dtype), train=True)
        return jnp.square(y.astype(jnp.float32)).sum(), core.split(chain).stats

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)), params


@pytest.fixture(scope='module')
def both():
    x = jax.random.normal(jax.random.key(1), (8, 16, 16, 4))
    return [
        (function.lower(params, x).compile(), params, x)
        for function, params in (parts(False), parts(True))
    ]


def test_the_numbers_are_the_same(both):
    (once, params, x), (twice, _, _) = both
    a, b = once(params, x), twice(params, x)
    assert jax.tree.structure(a) == jax.tree.structure(b) and len(jax.tree.leaves(a)) > 40
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)


def test_the_memory_is_less_and_the_work_is_more(both):
    memory = [compiled.memory_analysis().temp_size_in_bytes for compiled, _, _ in both]
    work = [compiled.cost_analysis()['flops'] for compiled, _, _ in both]
    assert memory[1] < 0.6 * memory[0] and 1.1 * work[0] < work[1] < 1.5 * work[0]


def test_a_block_within_a_block_is_computed_again_with_it_only():
    calls = []

    class Inner(nnx.Module):
        @remat.recomputed
        def __call__(self, x, *, train):
            calls.append(1)
            return jnp.sin(x)

    class Outer(nnx.Module):
        def __init__(self):
            self.inner = Inner()

        @remat.recomputed
        def __call__(self, x, *, train):
            return self.inner(x, train=train)

    outer = Outer()
    remat.switch_on(outer)
    assert outer.remat and outer.inner.remat
    assert (
        jax.grad(lambda x: outer(x, train=True).sum())(jnp.ones(3)) == pytest.approx(np.cos(1))
        and len(calls) == 2
    )
    assert (
        jax.grad(lambda x: outer(x, train=False).sum())(jnp.ones(3)) == pytest.approx(np.cos(1))
        and len(calls) == 3
    )


def test_the_config_switches_it_on(on_shapes):
    config = on_shapes('stackgan_pp_shapes')
    for on in (False, True):
        config.remat = on
        stage = Run(config, None)['gan'].abstract(Run(config)['gan'].nominal_meta)
        assert {
            getattr(module, 'remat', False)
            for _, module in nnx.iter_modules(stage.D)
            if isinstance(module, ImageTrunk)
        } == {on}
