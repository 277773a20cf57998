"""Optimisers from config: one a phase, with overrides for single networks.

A config here is a plain dictionary, the block `stages.<stage>.optim.<phase>`: settings of DEFAULTS,
and blocks of the same settings named after networks that the phase trains. Their meaning stands in
config/tables.py.
"""

import jax.numpy as jnp
import optax

from t2i_jax.config import OPTIM, defaults
from t2i_jax.runtime.errors import RunError

DEFAULTS = defaults(OPTIM)
# schedules, as functions of the share of their length that is over, from 1 down to 0
CURVES = {
    'cosine': lambda share: (1 + jnp.cos(jnp.pi * share)) / 2,
    'linear': lambda share: 1 - share,
}
KINDS, UNITS = (OPTIM['schedule'][name].choices for name in ('kind', 'unit'))
# the settings of each rule that `describe` prints
RULES = {'adam': ('b1', 'b2'), 'rmsprop': ('decay',), 'sgd': ('momentum',)}


def make(config, networks, updates_per_epoch, total):
    """Make the optimiser of a phase.

    A network with a block of its own is optimised by itself, also for clipping by global norm.

    config: the block of the phase
    networks: names of those that the phase trains
    updates_per_epoch, total: number of updates of the phase in an epoch, and in the whole stage

    Raises RunError for a setting or a choice that does not exist.
    """
    check(config, networks)
    if not any(config.get(network) for network in networks):
        return single(merged(config), updates_per_epoch, total)
    txs = {
        network: single(merged(config, network), updates_per_epoch, total) for network in networks
    }
    return optax.multi_transform(txs, {network: network for network in networks})


def check(config, networks):
    """Raise RunError for wrong settings in the block of a phase or in those of its networks."""
    blocks = {'': {name: value for name, value in config.items() if name not in networks}}
    blocks |= {f'{network}.': config.get(network) or {} for network in networks}
    unknown, wrong = [], []
    for at, block in blocks.items():
        plan = block.get('schedule', {})
        unknown += [at + name for name in block if name not in DEFAULTS]
        unknown += [f'{at}schedule.{name}' for name in plan if name not in DEFAULTS['schedule']]
        for name, value, known in (
            ('name', block.get('name'), RULES),
            ('schedule.kind', plan.get('kind'), KINDS),
            ('schedule.unit', plan.get('unit'), UNITS),
        ):
            if value is not None and value not in known:
                wrong.append(f'{at}{name} is {value!r}; there are {", ".join(known)}')
        kind = plan.get('kind', config.get('schedule', {}).get('kind'))
        if kind == 'step' and plan.get('every') == 0:
            wrong.append(f'{at}schedule.every is 0; it is a number of epochs or updates above 0')
    if unknown:
        raise RunError(
            f'An optimiser has no setting {", ".join(unknown)}. It has {", ".join(DEFAULTS)} '
            f'(a schedule: {", ".join(DEFAULTS["schedule"])}), and blocks of what its phase '
            f'trains: {", ".join(networks)}.'
        )
    if wrong:
        raise RunError(f'An optimiser cannot be made: {"; ".join(wrong)}.')


def merged(config, network=None):
    """Lay a network's overrides over the block of its phase -> settings as in DEFAULTS."""
    over = dict(config.get(network) or {}) if network else {}
    plain = {name: config[name] for name in DEFAULTS}
    return {**plain, **over, 'schedule': {**plain['schedule'], **over.get('schedule', {})}}


def single(config, updates_per_epoch, total):
    """Make one optimiser from settings as in DEFAULTS.

    In this order: clipping by global norm, L2, the rule, decoupled weight decay, the learning rate.
    """
    rate = schedule(config['lr'], config['schedule'], updates_per_epoch, total)
    parts = [
        optax.clip_by_global_norm(config['clip']) if config['clip'] else None,
        optax.add_decayed_weights(config['l2']) if config['l2'] else None,
        rule(config),
        optax.add_decayed_weights(config['weight_decay']) if config['weight_decay'] else None,
        optax.scale_by_learning_rate(rate),
    ]
    return optax.chain(*(part for part in parts if part is not None))


def rule(config):
    """Make the rule `config['name']`."""
    if config['name'] == 'adam':
        return optax.scale_by_adam(config['b1'], config['b2'], config['eps'])
    if config['name'] == 'rmsprop':
        # eps outside of the root, as in Torch
        return optax.scale_by_rms(config['decay'], config['eps'], eps_in_sqrt=False)
    return optax.trace(config['momentum']) if config['momentum'] else optax.identity()


def schedule(lr, config, updates_per_epoch, total):
    """Make the learning rate as a function of the number of updates.

    constant
    step: times `factor` after every `every` units from `start` on, not below `floor` x lr
    cosine, linear: from `start` on down to `floor` x lr within `length` units; 0: until the end

    lr: the rate at first
    config: kind, and the settings above; unit: 'epochs' or 'updates'
    updates_per_epoch, total: number of updates in an epoch, and in the whole stage
    """
    unit = updates_per_epoch if config['unit'] == 'epochs' else 1
    start, every, length = (config[name] * unit for name in ('start', 'every', 'length'))
    length = length or max(total - start, 1)
    kind, floor = config['kind'], config['floor']

    def rate(count):
        done = jnp.maximum(count - start, 0.0)
        if kind == 'constant':
            fraction = 1.0
        elif kind == 'step':
            # half an update more, so that no rounding moves a boundary by one update
            times = jnp.floor((done + 0.5) / every)
            fraction = jnp.maximum(config['factor'] ** times, floor)
        else:
            fraction = floor + (1 - floor) * CURVES[kind](jnp.minimum(done / length, 1.0))
        return lr * fraction

    return rate


def describe(config, networks) -> str:
    """Describe the optimiser of a phase in one line."""
    own = [name for name in networks if config.get(name)]
    lines = [f'; {name}: {_line(merged(config, name))}' for name in own]
    return _line(merged(config)) + ''.join(lines)


def _line(block):
    words = [block['name'], f'lr {block["lr"]:g}']
    words += [f'{name} {block[name]:g}' for name in RULES.get(block['name'], ())]
    words += [f'{name} {block[name]:g}' for name in ('l2', 'weight_decay', 'clip') if block[name]]
    plan = block['schedule']
    if plan['kind'] == 'step':
        words.append(f'x {plan["factor"]:g} every {plan["every"]:g} {plan["unit"]}')
    elif plan['kind'] != 'constant':
        words.append(f'{plan["kind"]} to {plan["floor"]:g}')
    return ', '.join(words)
