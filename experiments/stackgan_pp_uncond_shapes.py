"""StackGAN++ without sentences on shape_scenes/single, pictures of 16, 32 and 64 px (Zhang et al., TPAMI 2018, on the embedded data set).

    python -m t2i_jax.main --config=experiments/stackgan_pp_uncond_shapes.py --workdir=runs/stackgan_pp_uncond_shapes

Narrow networks, for an hour of two CPU cores. Variants: `:full`, the paper's networks and sizes, 64, 128 and 256 px, for a GPU; `:tiny`, seconds, for
tests. Deviations from the paper's settings for dogs, cats and rooms: pictures are neither cropped nor mirrored; except in `:full`, discriminators
normalise each picture alone (`d_norm`).
Measured: 3,000 steps, 25 minutes of one core, draw blobs of all colours on all grounds.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    """All numbers ours, but for the weight of the colours (official code)."""
    c = common.base('stackgan_pp', data=common.shapes('single'))
    adam = dict(lr=1e-3, b1=0.0, b2=0.99, schedule=dict(kind='cosine', floor=0.02))
    c.stages.gan = dict(
        steps=10_000,
        batch_size=32,
        ema=0.995,
        data=dict(scales=(16, 32)),
        model=dict(
            conditional=False, colour_weight=50.0, gf=16, df=16, residuals=1, d_norm='layer'
        ),
        optim=dict(d_loss=adam, g_loss=adam),
        validate_every=0,
    )
    return common.variant(c, arg, full=full)


def full(c):
    """The official code's settings for cats; the number of steps is that of the released model."""
    c.data.name, c.data.size = 'shape_scenes/single_256', 256
    c.stages.gan.update(steps=200_000, batch_size=24, ema=0.999)
    c.stages.gan.data.scales = (64, 128)
    c.stages.gan.model.update(gf=64, df=64, residuals=2, d_norm='batch')
    for phase in ('d_loss', 'g_loss'):
        c.stages.gan.optim[phase].update(lr=2e-4, b1=0.5, b2=0.999)
        c.stages.gan.optim[phase].schedule.kind = 'constant'
