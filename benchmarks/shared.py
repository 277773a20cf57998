"""What sharing saves in a step: convolutions and FLOPs of the compiled program with and without it.

    python -m benchmarks.shared gan_cls_shapes:laptop stackgan_pp_shapes attngan_shapes

`as it is` is the trainer's step. `forward in each loss` runs the generator again in every phase instead of once a step. `one batch after another` gives
the discriminators real, wrong and drawn pictures in one call each, where they see them in one pass. `features twice` computes the features of real pictures
again for the mismatched pairs, where a system takes them from the matched ones. Nothing runs and no data are read.
"""

import argparse
import re

import jax
import jax.numpy as jnp

from benchmarks.step import configured
from t2i_jax import run
from t2i_jax import stage as core
from t2i_jax.layers.norm import separately
from t2i_jax.systems import attngan, stackgan_pp


def batch_of(module, meta, b):
    """The batch that this stage reads, as shapes."""
    captions = (meta.captions,) if meta.captions > 1 else ()
    picture, words = ((b, meta.size, meta.size, 3), jnp.float32), ((b, meta.length), jnp.int32)
    shapes = dict(
        image=picture,
        wrong_image=picture,
        tokens=words,
        wrong_tokens=words,
        length=((b,), jnp.int32),
        wrong_length=((b,), jnp.int32),
        chars=((b, *captions, 201), jnp.uint8),
        embedding=((b, *captions, meta.embedding_dim), jnp.float32),
        label=((b,), jnp.int32),
        facts=((b, 6, 6), jnp.int32),
        scene=((b, 6, 6), jnp.int32),
    )
    needs = (*module.needs, *(('wrong_length',) if 'wrong_tokens' in module.needs else ()))
    return {name: jax.ShapeDtypeStruct(*shapes[name]) for name in needs} | {
        'step': jax.ShapeDtypeStruct((), jnp.int32)
    }


def counted(config, apart=False):
    """(convolutions, FLOPs) of the compiled step of stage `gan`. apart: the generator runs in each loss."""
    stages = run.system(config.system).STAGES
    cls = stages['gan']
    if apart:
        losses = {
            phase.loss: lambda self, batch, key, out, loss=phase.loss: getattr(cls, loss)(
                self, batch, key, cls.forward(self, batch, key)
            )
            for phase in cls.phases
        }
        stages['gan'] = type(cls.__name__, (cls,), losses)
    try:
        meta = run.nominal_meta(config, 'gan')
        module = run.abstract(config, None, 'gan', meta)
        prog = run.make_program(config, 'gan', module)
        prog = prog._replace(forward=False) if apart else prog
        state = jax.eval_shape(run.fresh_state(config, None, 'gan', meta, prog))
        batch = batch_of(module, meta, config.stages.gan.batch_size)
        compiled = (
            jax.jit(lambda state, batch: core.train_step(prog, state, batch), donate_argnums=0)
            .lower(state, batch)
            .compile()
        )
    finally:
        stages['gan'] = cls
    return len(re.findall(r' = \S+ convolution\(', compiled.as_text())), compiled.cost_analysis()[
        'flops'
    ]


def one_after_another(network, batches, *beside):
    return [network(x, *beside, train=True) for x in batches]


def features_twice(trunk, batches):
    real, fake = batches
    real, again, fake = separately(
        trunk, [real, -real, fake]
    )  # were both alike, XLA would compute them once
    return [real + 0 * again, fake]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('experiments', nargs='+')
    parser.add_argument(
        '--set',
        action='append',
        default=[],
        metavar='KEY=VALUE',
        help='a setting of the config; may be given several times',
    )
    args = parser.parse_args()
    print('| | | convolutions | GFLOP | to as it is |\n|---|---|---|---|---|')
    for experiment in args.experiments:
        config = configured(experiment, args.set)
        rows = {'as it is': counted(config), 'forward in each loss': counted(config, apart=True)}
        system = {'attngan': attngan, 'stackgan_pp': stackgan_pp}.get(config.system)
        for name, function in {
            'one batch after another': one_after_another,
            'features twice': features_twice,
        }.items():
            if system and not (function is features_twice and system is not attngan):
                system.separately = function
                rows[name] = counted(config)
                system.separately = separately
        for name, (convolutions, flops) in rows.items():
            ratio = flops / rows['as it is'][1]
            print(
                f'| {experiment} | {name} | {convolutions} | {flops / 1e9:,.1f} | {ratio:.2f} |',
                flush=True,
            )


if __name__ == '__main__':
    main()
