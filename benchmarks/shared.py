"""Operations that sharing saves in a step: convolutions and FLOPs with and without it.

    python -m benchmarks.shared gan_cls_shapes:laptop stackgan_pp_shapes attngan_shapes

They are those of the compiled program. `as it is` is the trainer's step. `forward in each loss`
runs the generator again in every phase instead of once a step. `one batch after another` gives the
discriminators real, wrong and drawn pictures in one call each, where they see them in one pass.
`features twice` computes the features of real pictures again for the mismatched pairs, where a
system takes them from the matched ones. Nothing runs and no data are read.
"""

import argparse
import re

import jax
import jax.numpy as jnp

from benchmarks.step import configured
from t2i_jax import stage as core
from t2i_jax.layers.norm import separately
from t2i_jax.run import Run
from t2i_jax.systems import attngan, stackgan_pp


def batch_of(module, meta, b):
    """Find the shapes of the batch that a stage reads, of b rows."""
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
    """Compile the step of stage `gan` -> (convolutions, FLOPs).

    apart: the generator runs in each loss
    """
    stage = Run(config)['gan']
    if apart:
        stage.cls = with_own_forward(stage.cls)
    program = stage.program(stage.nominal)
    program = program._replace(forward=False) if apart else program
    state = jax.eval_shape(stage.fresh_state(program, stage.nominal_meta))
    batch = batch_of(stage.nominal, stage.nominal_meta, stage.block.batch_size)

    def step(state, batch):
        return core.train_step(program, state, batch)

    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    convolutions = re.findall(r' = \S+ convolution\(', compiled.as_text())
    return len(convolutions), compiled.cost_analysis()['flops']


def with_own_forward(cls):
    """Make a class whose losses run the forward pass themselves."""

    def own(loss):
        def call(self, batch, key, out):
            return loss(self, batch, key, cls.forward(self, batch, key))

        return call

    losses = {phase.loss: own(getattr(cls, phase.loss)) for phase in cls.phases}
    return type(cls.__name__, (cls,), losses)


def one_after_another(network, batches, *others):
    """`separately` in one call for each batch."""
    return [network(x, *others, train=True) for x in batches]


def features_twice(trunk, batches):
    """`separately` with the features of the real pictures computed twice."""
    real, fake = batches
    # were both alike, XLA would compute them once
    real, again, fake = separately(trunk, [real, -real, fake])
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
        changes = {'one batch after another': one_after_another} if system else {}
        if system is attngan:
            changes['features twice'] = features_twice
        for name, function in changes.items():
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
