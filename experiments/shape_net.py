"""ShapeNet-cls, the trained reader of shape_scenes for evaluation.

    # pictures of one object, then of one to five
    t2i_jax --config=shape_net --workdir=runs/shape_net
    t2i_jax --config=shape_net:multi --workdir=runs/shape_net_multi
    # compare it with the analytic reader, and write its weights into the library
    python -m benchmarks.shape_net --workdir=runs/shape_net

All numbers ours. Hardware: CPU cores. Variant `:tiny`, seconds, for tests.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base('shape_net', data=common.shapes('single'))
    c.stages.net = dict(
        steps=5000,
        batch_size=64,
        ema=0.99,
        sample_every=0,
        validate_every=500,
        optim=dict(loss=dict(lr=2e-3, b1=0.9, schedule=dict(kind='cosine', floor=0.02))),
    )
    return common.variant(c, arg, multi=multi)


def multi(c):
    c.data.name = 'shape_scenes/multi'
