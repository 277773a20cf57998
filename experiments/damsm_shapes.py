"""DAMSM on shape_scenes, pictures of 64 px (Xu et al., CVPR 2018).

    # pictures of one object, then of one to five
    t2i_jax --config=damsm_shapes --workdir=runs/damsm
    t2i_jax --config=damsm_shapes:multi --workdir=runs/damsm_multi

Hardware: a CPU core, `:multi` 25 minutes.
Variants: `:multi`; `:tiny` and `:multi_tiny`, seconds, for tests.

Measured (`:multi`): R@1 among 100 captions .757, more in docs/results.md.
Deviations from the paper's settings for birds: a small image network trained from scratch instead
of ImageNet's, which has hardly seen the like; pictures are neither cropped nor mirrored (the
captions say left and large); a caption that is true of another picture of the batch is not a wrong
one of it (instead of the same class).
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    """All numbers ours but for gamma1, the clipping and the dropout (official code)."""
    c = common.base('damsm', data=common.shapes('single'))
    cosine = dict(kind='cosine', floor=0.02)
    networks = dict(d=128, embedding=64, trunk='small', channels=(32, 64, 128, 128), places=True)
    c.stages.damsm = dict(
        steps=2500,
        batch_size=48,
        sample_every=0,
        validate_every=500,
        model=dict(gamma1=4.0, leave_out='entailment', **networks),
        optim=dict(loss=dict(lr=2e-3, b1=0.9, schedule=cosine, text=dict(clip=0.25))),
    )
    return common.variant(c, arg, multi=multi, multi_tiny=multi_tiny)


def multi(c):
    c.data.name = 'shape_scenes/multi'
    c.stages.damsm.steps = 5000


def multi_tiny(c):
    multi(c)
    common.tiny(c)
