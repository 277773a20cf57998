"""Optimisers and schedules against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import optim
from t2i_jax.runtime.errors import RunError

P, GRAD = jnp.array([2.0, -1.0]), jnp.array([3.0, -4.0])  # parameters, and a gradient of norm 5


def block(**changes):
    """A phase's block of config.

    `schedule` may be given in part, other dictionaries are blocks of networks.
    """
    plan = {**optim.DEFAULTS['schedule'], **changes.pop('schedule', {})}
    return {**optim.DEFAULTS, 'schedule': plan, **changes}


def rate(lr=1.0, updates_per_epoch=1, total=1000, **plan):
    return jax.jit(optim.schedule(lr, block(schedule=plan)['schedule'], updates_per_epoch, total))


def step(config, grads=None, params=None, steps=1):
    """What the parameters become after some steps with the same gradient."""
    params, grads = params or {'G': P}, grads or {'G': GRAD}
    tx = optim.make(config, tuple(params), 1, 100)
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ---------------------------------------------------------------------------------------- schedules
@pytest.mark.parametrize('updates_per_epoch', [1, 7, 82, 109, 138.5, 2767])
def test_halving_every_100_epochs_happens_at_the_first_update_of_the_epoch(updates_per_epoch):
    lr = rate(2e-4, updates_per_epoch, 600 * updates_per_epoch, kind='step', factor=0.5, every=100)
    for epoch, halvings in (
        (0, 0),
        (99, 0),
        (100, 1),
        (101, 1),
        (199, 1),
        (200, 2),
        (300, 3),
        (500, 5),
        (600, 6),
    ):
        close(lr(round(epoch * updates_per_epoch)), 2e-4 / 2**halvings)
    for boundary in range(100, 700, 100):
        first = round(boundary * updates_per_epoch)
        close(lr(first - 1) / lr(first), 2)


def test_steps_may_start_late_and_end_at_a_floor():
    lr = rate(kind='step', factor=0.5, every=10, start=100, floor=0.2)
    for count, expected in ((0, 1), (109, 1), (110, 0.5), (120, 0.25), (130, 0.2), (500, 0.2)):
        close(lr(count), expected)


def test_steps_counted_in_updates():
    lr = rate(7e-4, updates_per_epoch=40, kind='step', factor=0.98, every=82, unit='updates')
    for count, expected in (
        (81, 7e-4),
        (82, 7e-4 * 0.98),
        (82 * 50, 7e-4 * 0.98**50),
        (82 * 50 - 1, 7e-4 * 0.98**49),
    ):
        close(lr(count), expected)


def test_linear_and_cosine():
    line = rate(
        2.0, kind='linear', start=10, length=20, floor=0.1, updates_per_epoch=5, unit='updates'
    )
    for count, expected in ((0, 2), (10, 2), (20, 2 * 0.55), (30, 0.2), (900, 0.2)):
        close(line(count), expected)
    curve = rate(
        2.0, kind='cosine', start=10, length=20, floor=0.1, updates_per_epoch=5, unit='epochs'
    )
    for count, expected in (
        (0, 2),
        (50, 2),
        (100, 2 * 0.55),
        (150, 0.2),
        (900, 0.2),
        (75, 2 * (0.1 + 0.9 * (1 + 2**-0.5) / 2)),
    ):
        close(curve(count), expected)
    to_the_end = rate(1.0, kind='linear', start=20, unit='updates', total=100)
    for count, expected in ((20, 1), (60, 0.5), (100, 0)):
        np.testing.assert_allclose(to_the_end(count), expected, atol=1e-6)
    close(rate(3.0)(12345), 3)


# --------------------------------------------------------------------------------------- optimisers
def test_sgd_and_momentum():
    close(step(block(name='sgd', lr=0.1))['G'], P - 0.1 * GRAD)
    close(step(block(name='sgd', lr=0.1, momentum=0.5), steps=2)['G'], P - 0.1 * GRAD * (1 + 1.5))


def test_adam():
    close(
        step(block(lr=0.1, b1=0.5, b2=0.9, eps=0.0))['G'], P - 0.1 * np.sign(GRAD)
    )  # the first step is lr, whatever the gradient
    close(step(block(lr=0.1, eps=1.0))['G'], P - 0.1 * GRAD / (np.abs(GRAD) + 1))


def test_rmsprop_adds_eps_outside_the_root_as_torch_does():
    close(
        step(block(name='rmsprop', lr=0.1, decay=0.99))['G'],
        P - 0.1 * GRAD / (0.1 * np.abs(GRAD) + 1e-8),
    )
    tiny = 1e-6 * GRAD
    close(
        step(block(name='rmsprop', lr=0.1, decay=0.99), {'G': tiny}, steps=1)['G'],
        P - 0.1 * tiny / (0.1 * np.abs(tiny) + 1e-8),
    )
    second = 0.99 * 0.01 + 0.01
    close(
        step(block(name='rmsprop', lr=0.1, decay=0.99, eps=0.0), steps=2)['G'],
        P - 0.1 * np.sign(GRAD) * (10 + second**-0.5),
    )


def test_l2_goes_through_the_rule_and_weight_decay_does_not():
    close(step(block(name='sgd', lr=0.1, l2=0.5))['G'], P - 0.1 * (GRAD + 0.5 * P))
    close(step(block(name='sgd', lr=0.1, weight_decay=0.5))['G'], P - 0.1 * (GRAD + 0.5 * P))
    grads = {'G': jnp.array([-0.5, -4.0])}
    close(
        step(block(lr=0.1, l2=0.5, eps=0.0), grads)['G'], P - 0.1 * np.sign([-0.5 + 1, -4 - 0.5])
    )  # L2 may turn the direction
    close(
        step(block(lr=0.1, weight_decay=0.5, eps=0.0), grads)['G'],
        P - 0.1 * (np.sign([-0.5, -4]) + 0.5 * P),
    )


def test_clipping_by_the_norm_of_the_whole_phase():
    close(step(block(name='sgd', lr=1.0, clip=1.0))['G'], P - GRAD / 5)
    close(step(block(name='sgd', lr=1.0, clip=6.0))['G'], P - GRAD)
    both = step(
        block(name='sgd', lr=1.0, clip=1.0),
        {'G': GRAD, 'D': jnp.array([12.0])},
        {'G': P, 'D': jnp.zeros(1)},
    )
    close(both['G'], P - GRAD / 13)
    close(both['D'], [-12 / 13])
    close(
        step(block(name='sgd', lr=1.0, clip=1.0, l2=1.0))['G'], P - (GRAD / 5 + P)
    )  # clipped before L2 is added


def test_a_network_may_have_settings_of_its_own():
    config = block(
        name='sgd',
        lr=1.0,
        clip=10.0,
        schedule=dict(kind='step', every=1.0, unit='updates'),
        text=dict(clip=0.5),
        image=dict(lr=0.1, schedule=dict(factor=0.1)),
        rest={},
    )
    params = {'text': P, 'image': P, 'rest': P}
    for steps, factors in (
        (1, (1 / 10, 0.1, 1)),
        (2, (1.5 / 10, 0.1 + 0.01, 1.5)),
    ):  # text is clipped by itself
        after = step(config, dict.fromkeys(params, GRAD), params, steps)
        for name, factor in zip(params, factors):
            close(after[name], P - factor * GRAD)
    told = optim.describe(config, tuple(params))
    assert told.startswith('sgd, lr 1')
    for part in ('text: sgd', 'clip 0.5', 'image: sgd, lr 0.1', 'x 0.1 every 1 updates'):
        assert part in told


@pytest.mark.parametrize(
    'changes, parts',
    [
        (dict(name='adamm'), ["name is 'adamm'", 'adam, rmsprop, sgd']),
        (
            dict(schedule=dict(kind='stair')),
            ["schedule.kind is 'stair'", 'constant, step, cosine, linear'],
        ),
        (dict(schedule=dict(unit='hours')), ["'hours'", 'epochs, updates']),
        (dict(G=dict(name='lion')), ["G.name is 'lion'"]),
        (dict(schedule=dict(kind='step', every=0)), ['schedule.every is 0', 'above 0']),
        (dict(learning_rate=1.0), ['no setting learning_rate', 'lr']),
        (dict(G=dict(learning_rate=1.0)), ['no setting G.learning_rate', 'lr']),
        (dict(schedule=dict(step=5)), ['no setting schedule.step', 'every']),
        (dict(G=dict(schedule=dict(step=5))), ['no setting G.schedule.step', 'every']),
        (dict(g=dict(lr=1.0)), ['no setting g.', 'trains: G']),
    ],
)
def test_wrong_names(changes, parts):
    with pytest.raises(RunError) as error:
        optim.make(block(**changes), ('G',), 1, 100)
    for part in parts:
        assert part in str(error.value)
