"""StackGAN++ on shape_scenes/single, 16, 32 and 64 px (Zhang et al., TPAMI 2018).

    t2i_jax --config=stackgan_pp_shapes --workdir=runs/stackgan_pp_shapes

Hardware: a CPU core, for narrow networks; `:full` a GPU.
The text encoder is that of gan_cls_shapes:laptop; one that is trained can be shared:
--config.init.text=<run>.
Variants: `:recipe`, by what later papers do (see gan_cls_shapes), with a cheaper step; `:quick`, 16
and 32 px, with the text encoder of gan_cls_shapes:paper; `:full`, the paper's networks and sizes,
64, 128 and 256 px; `:tiny`, seconds, for tests.

Measured (4,500 steps, 42 minutes of one core): docs/results.md.
Deviations from the paper's settings for birds: pictures are neither cropped nor mirrored (the
captions say left and large). Except in `:full`, not in the paper either, and found to be needed on
these data with GAN-CLS: sentence vectors of unit length (`unit_text`), discriminators that
normalise each picture alone (`d_norm`), wrong pictures that differ from the sentence by little
(`near_wrong`).
"""

from t2i_jax.experiments import common, gan_cls_shapes


def get_config(arg=''):
    """All numbers ours, close to those of gan_cls_shapes:laptop."""
    c = common.base('stackgan_pp', data=common.shapes('single'))
    adam = dict(lr=1e-3, b1=0.0, b2=0.99, schedule=dict(kind='cosine', floor=0.02))
    c.stages.text = common.stage_of(gan_cls_shapes, 'text', 'laptop')
    c.stages.gan = dict(
        steps=10_000,
        batch_size=32,
        near_wrong=0.5,
        ema=0.995,
        data=dict(scales=(16, 32)),
        model=dict(gf=16, df=16, nc=64, residuals=1, unit_text=True, d_norm='layer'),
        optim=dict(d_loss=adam, g_loss=adam),
        validate_every=0,
    )
    return common.variant(c, arg, quick=quick, full=full, recipe=recipe)


def quick(c):
    c.stages.text = common.stage_of(gan_cls_shapes, 'text', 'paper')
    c.data.name, c.data.size = 'shape_scenes/single_quick', 32
    c.stages.gan.update(steps=5000, ema=0.99, ema_warmup=True)
    c.stages.gan.model.scales, c.stages.gan.data.scales = 2, (16,)


def recipe(c):
    """As `gan_cls_shapes.recipe`, at 32 and 64 px; all numbers ours.

    Steps decide: G is narrow and has no residual blocks, which half of them would be spent on, and
    what is saved goes into wider discriminators. The sentence weighs more than in the paper,
    against the logits without it and the KL.
    """
    c.stages.text = common.stage_of(gan_cls_shapes, 'text', 'recipe')
    common.recipe(c.stages.gan, steps=5000)
    c.stages.gan.near_wrong, c.stages.gan.data.scales = 0.9, (32,)
    model = c.stages.gan.model
    model.update(scales=2, gf=12, df=24, residuals=0, wrong='text', d_condition='embedding')
    model.update(uncond_weight=0.25, kl_weight=0.5)


def full(c):
    """The paper's settings for birds.

    The text encoder stays the narrow one, which these captions do not outgrow.
    """
    c.data.name, c.data.size = 'shape_scenes/single_256', 256
    gan = c.stages.gan
    # steps: of the released model
    gan.update(steps=210_000, batch_size=24, near_wrong=0.0, ema=0.999)
    gan.data.scales = (64, 128)
    gan.model.update(gf=64, df=64, nc=128, residuals=2, d_norm='batch', unit_text=False)
    for phase in ('d_loss', 'g_loss'):
        gan.optim[phase].update(lr=2e-4, b1=0.5, b2=0.999)
        gan.optim[phase].schedule.kind = 'constant'
