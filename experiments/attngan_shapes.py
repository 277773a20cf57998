"""AttnGAN on shape_scenes, pictures of 16, 32 and 64 px (Xu et al., CVPR 2018).

    # pictures of one object, then of one to five
    t2i_jax --config=attngan_shapes --workdir=runs/attngan
    t2i_jax --config=attngan_shapes:multi --workdir=runs/attngan_multi

Hardware: a CPU core, for narrow networks; `:full` a GPU.
The DAMSM is that of damsm_shapes; one that is trained can be shared: --config.init.damsm=<run>.
Variants: `:multi`; `:recipe`, by what later papers do (see gan_cls_shapes), with a cheaper step,
and `:multi_recipe`; `:quick`, 16 and 32 px; `:full`, the paper's networks and sizes, 64, 128 and
256 px; `:tiny` and `:multi_tiny`, seconds, for tests. Ablations:
--config.stages.gan.model.damsm_weight=0 (no DAMSM), --config.stages.gan.model.attention_count=0
(no attention: later scales get the sentence vector, by as many parameters).

Measured (2,800 steps, 46 minutes of one core after 12 of the DAMSM; ablations): docs/results.md.
Deviations from the paper's settings for birds: those of damsm_shapes; pictures are neither cropped
nor mirrored (the captions say left and large); wrong sentences certainly do not match. Except in
`:full`, not in the paper either, and found to be needed on these data with GAN-CLS: sentence
vectors of unit length (`unit_text`), discriminators that normalise each picture alone (`d_norm`),
wrong sentences that differ from the right one by little (`near_wrong`).
"""

from t2i_jax.experiments import common, damsm_shapes


def get_config(arg=''):
    """All numbers ours, close to those of stackgan_pp_shapes; gamma1: official code.

    With lambda 5, as for birds, all pictures of a sentence were alike.
    """
    c = common.base('attngan', data=common.shapes('single'))
    c.stages.damsm = common.stage_of(damsm_shapes, 'damsm')
    adam = dict(lr=1e-3, b1=0.0, b2=0.99, schedule=dict(kind='cosine', floor=0.02))
    narrow = dict(gf=16, df=16, nc=64, residuals=1, unit_text=True, d_norm='layer')
    matching = dict(damsm_weight=1.0, gamma1=4.0, leave_out='entailment', wrong='sampled')
    c.stages.gan = dict(
        steps=2800,
        batch_size=32,
        near_wrong=0.5,
        ema=0.995,
        data=dict(scales=(16, 32)),
        model=dict(**narrow, **matching),
        optim=dict(d_loss=adam, g_loss=adam),
        validate_every=0,
    )
    variants = dict(multi=multi, quick=quick, recipe=recipe, full=full)
    variants |= dict(multi_recipe=multi_recipe, multi_tiny=multi_tiny)
    return common.variant(c, arg, **variants)


def multi(c):
    c.data.name = 'shape_scenes/multi'
    c.stages.damsm = common.stage_of(damsm_shapes, 'damsm', 'multi')


def quick(c):
    c.data.name, c.data.size = 'shape_scenes/single_quick', 32
    c.stages.gan.update(steps=5000, ema=0.99, ema_warmup=True)
    c.stages.gan.model.scales, c.stages.gan.data.scales = 2, (16,)


def recipe(c):
    """As `stackgan_pp_shapes.recipe`; all numbers ours.

    Pixels look at vectors of words alone, which an LSTM has not mixed; the contrast does most of
    what the DAMSM did for G.
    """
    c.stages.damsm.model.text = 'words'
    drawing_recipe(c.stages.gan)


def drawing_recipe(gan):
    """The part of `recipe` that draws, in place; successors of AttnGAN share it."""
    common.recipe(gan, steps=5000)
    gan.near_wrong, gan.data.scales = 0.9, (32,)
    gan.model.update(scales=2, gf=12, df=24, residuals=0, kl_weight=0.5, damsm_weight=0.2)


def multi_recipe(c):
    """As `recipe` on scenes of several objects, with the words of damsm_shapes:multi, an LSTM's."""
    multi(c)
    drawing_recipe(c.stages.gan)


def full(c):
    """The paper's settings for birds.

    The DAMSM is the narrow one with two more layers, which these captions do not outgrow.
    """
    c.data.name, c.data.size = 'shape_scenes/single_256', 256
    c.stages.damsm.update(steps=5000)
    c.stages.damsm.model.channels = (16, 32, 32, 64, 128, 128)
    gan = c.stages.gan
    # steps: 600 epochs of birds
    gan.update(steps=265_200, batch_size=20, near_wrong=0.0, ema=0.999)
    gan.data.scales = (64, 128)
    gan.model.update(gf=32, df=64, nc=100, residuals=2, d_norm='batch', unit_text=False)
    gan.model.update(damsm_weight=5.0, wrong='shift')
    for phase in ('d_loss', 'g_loss'):
        gan.optim[phase].update(lr=2e-4, b1=0.5, b2=0.999)
        gan.optim[phase].schedule.kind = 'constant'


def multi_tiny(c):
    multi(c)
    common.tiny(c)
