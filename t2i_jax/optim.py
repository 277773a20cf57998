"""Optimisers from config: one optax transformation a phase, with overrides for single networks."""

import jax.numpy as jnp
import optax

from t2i_jax.config import OPTIM, defaults
from t2i_jax.runtime.errors import RunError

DEFAULTS = defaults(OPTIM)
KINDS = ('constant', 'step', 'cosine', 'linear')


def schedule(lr, config, updates_per_epoch, total):
    """The learning rate as a function of the number of updates.

    constant; step: times `factor` after every `every` units counted from `start`, not below `floor` (a fraction of lr);
    cosine, linear: from `start` on down to `floor` within `length` units, or until the end where that is 0. unit:
    'epochs' or 'updates'. total: updates of the whole stage.
    """
    if config['kind'] not in KINDS or config['unit'] not in ('epochs', 'updates'):
        raise RunError(
            f'There is no schedule {config["kind"]!r} in {config["unit"]!r}; kinds are {", ".join(KINDS)}, units epochs and updates.'
        )
    unit = updates_per_epoch if config['unit'] == 'epochs' else 1
    start, every, length = (config[name] * unit for name in ('start', 'every', 'length'))
    length = length or max(total - start, 1)

    def rate(count):
        done = jnp.maximum(count - start, 0.0)
        if config['kind'] == 'constant':
            fraction = 1.0
        elif config['kind'] == 'step':
            # half an update more, so that no rounding can put a boundary one update earlier or later
            fraction = jnp.maximum(
                config['factor'] ** jnp.floor((done + 0.5) / every), config['floor']
            )
        else:
            part = jnp.minimum(done / length, 1.0)
            curve = 1 - part if config['kind'] == 'linear' else (1 + jnp.cos(jnp.pi * part)) / 2
            fraction = config['floor'] + (1 - config['floor']) * curve
        return lr * fraction

    return rate


def single(config, updates_per_epoch, total):
    """One optimiser from one block of config: clip by global norm, L2, the rule, decoupled weight decay, the learning rate."""
    rules = {
        'adam': lambda: optax.scale_by_adam(config['b1'], config['b2'], config['eps']),
        'rmsprop': lambda: optax.scale_by_rms(
            config['decay'], config['eps'], eps_in_sqrt=False
        ),  # as Torch has it
        'sgd': lambda: optax.trace(config['momentum']) if config['momentum'] else optax.identity(),
    }
    if config['name'] not in rules:
        raise RunError(f'There is no optimiser {config["name"]!r}; there are {", ".join(rules)}.')
    parts = [optax.clip_by_global_norm(config['clip'])] if config['clip'] else []
    parts += [optax.add_decayed_weights(config['l2'])] if config['l2'] else []
    parts += [rules[config['name']]()]
    parts += [optax.add_decayed_weights(config['weight_decay'])] if config['weight_decay'] else []
    return optax.chain(
        *parts,
        optax.scale_by_learning_rate(
            schedule(config['lr'], config['schedule'], updates_per_epoch, total)
        ),
    )


def merged(config, network=None):
    """A phase's block with the network's own overrides laid over it, without the blocks of networks."""
    over = dict(config.get(network) or {}) if network else {}
    plain = {name: config[name] for name in DEFAULTS}
    return {**plain, **over, 'schedule': {**plain['schedule'], **over.get('schedule', {})}}


def make(config, networks, updates_per_epoch, total):
    """The optimiser of a phase. config: `optim.<phase>`; networks: those that the phase trains.

    Where a network has a block of its own, each network is optimised by itself, also for clipping by global norm. Raises RunError
    for a name that does not exist.
    """
    check(config, networks)
    if not any(config.get(network) for network in networks):
        return single(merged(config), updates_per_epoch, total)
    txs = {
        network: single(merged(config, network), updates_per_epoch, total) for network in networks
    }
    return optax.multi_transform(txs, {network: network for network in networks})


def check(config, networks):
    """Raises RunError for a setting that does not exist, in a phase's block or in those of its networks."""
    blocks = {'': {name: value for name, value in config.items() if name not in networks}}
    blocks |= {f'{network}.': config.get(network) or {} for network in networks}
    unknown = [at + name for at, block in blocks.items() for name in block if name not in DEFAULTS]
    unknown += [
        f'{at}schedule.{name}'
        for at, block in blocks.items()
        for name in block.get('schedule', ())
        if name not in DEFAULTS['schedule']
    ]
    if unknown:
        raise RunError(
            f'An optimiser has no setting {", ".join(unknown)}. It has {", ".join(DEFAULTS)} (a schedule: '
            f'{", ".join(DEFAULTS["schedule"])}), and blocks of what its phase trains: {", ".join(networks)}.'
        )


def describe(config, networks) -> str:
    """One line for people."""

    def line(block):
        words = [block['name'], f'lr {block["lr"]:g}']
        words += {
            'adam': [f'b1 {block["b1"]:g}', f'b2 {block["b2"]:g}'],
            'rmsprop': [f'decay {block["decay"]:g}'],
            'sgd': [f'momentum {block["momentum"]:g}'],
        }.get(block['name'], [])
        words += [
            f'{name} {block[name]:g}' for name in ('l2', 'weight_decay', 'clip') if block[name]
        ]
        plan = block['schedule']
        if plan['kind'] == 'step':
            words.append(f'x {plan["factor"]:g} every {plan["every"]:g} {plan["unit"]}')
        elif plan['kind'] != 'constant':
            words.append(f'{plan["kind"]} to {plan["floor"]:g}')
        return ', '.join(words)

    own = [
        f'; {network}: {line(merged(config, network))}'
        for network in networks
        if config.get(network)
    ]
    return line(merged(config)) + ''.join(own)
