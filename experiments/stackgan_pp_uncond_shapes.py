"""StackGAN++ on shape_scenes/single, no sentences, 16, 32, 64 px (Zhang, TPAMI 2018).

    t2i_jax --config=stackgan_pp_uncond_shapes --workdir=runs/stackgan_pp_uncond_shapes

Hardware: a CPU core, for narrow networks; `:full` a GPU.
Variants: `:full`, the paper's networks and sizes, 64, 128 and 256 px; `:tiny`, seconds, for tests.

Measured: 3,000 steps, 25 minutes of one core, draw blobs of all colours on all grounds.
Deviations from the paper's settings for dogs, cats and rooms: pictures are neither cropped nor
mirrored; except in `:full`, discriminators normalise each picture alone (`d_norm`).
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    """All numbers ours, but for the weight of the colours (official code)."""
    c = common.base('stackgan_pp', data=common.shapes('single'))
    adam = dict(lr=1e-3, b1=0.0, b2=0.99, schedule=dict(kind='cosine', floor=0.02))
    narrow = dict(gf=16, df=16, residuals=1, d_norm='layer')
    c.stages.gan = dict(
        steps=10_000,
        batch_size=32,
        ema=0.995,
        data=dict(scales=(16, 32)),
        model=dict(conditional=False, colour_weight=50.0, **narrow),
        optim=dict(d_loss=adam, g_loss=adam),
        validate_every=0,
    )
    return common.variant(c, arg, full=full)


def full(c):
    """Return the official code's settings for cats.

    The number of steps is that of the released model.
    """
    c.data.name, c.data.size = 'shape_scenes/single_256', 256
    gan = c.stages.gan
    gan.update(steps=200_000, batch_size=24, ema=0.999)
    gan.data.scales = (64, 128)
    gan.model.update(gf=64, df=64, residuals=2, d_norm='batch')
    for phase in ('d_loss', 'g_loss'):
        gan.optim[phase].update(lr=2e-4, b1=0.5, b2=0.999)
        gan.optim[phase].schedule.kind = 'constant'
