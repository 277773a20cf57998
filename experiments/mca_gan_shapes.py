"""ControlGAN on shape_scenes, pictures of 16, 32 and 64 px (Li et al., NeurIPS 2019).

    # pictures of one object, then of one to five
    t2i_jax --config=mca_gan_shapes --workdir=runs/control
    t2i_jax --config=mca_gan_shapes:multi --workdir=runs/control_multi
    t2i_jax --workdir=runs/control --mode=explore --what=edit

Hardware: a CPU core, for narrow networks.
The DAMSM is that of damsm_shapes; one that is trained can be shared: --config.init.damsm=<run>.
Variants: `:multi`; `:recipe`, by what later papers do (see attngan_shapes); `:tiny` and
`:multi_tiny`, seconds, for tests. Without each part:
--config.stages.gan.model.channel_input=none, .word_scales=0, .perceptual_weight=0.

Deviations from the paper's settings for birds: those of attngan_shapes; the features of the
perceptual loss are the DAMSM's, since those of ImageNet have hardly seen the like, and it weighs a
tenth, since most captions leave open what their picture shows; words are judged in the largest
picture alone, which is cheaper.
"""

from t2i_jax.experiments import attngan_shapes, common, damsm_shapes


def get_config(arg=''):
    """All numbers ours but those of the losses."""
    c = common.base('mca_gan', data=common.shapes('single'))
    c.stages.damsm = common.stage_of(damsm_shapes, 'damsm')
    c.stages.gan = common.stage_of(attngan_shapes, 'gan')
    own(c)
    return common.variant(c, arg, multi=multi, recipe=recipe, multi_tiny=multi_tiny)


def own(c):
    """What AttnGAN does not have."""
    c.stages.gan.model.update(features='damsm', perceptual_weight=0.1, word_scales=1)


def multi(c):
    c.data.name = 'shape_scenes/multi'
    c.stages.damsm = common.stage_of(damsm_shapes, 'damsm', 'multi')


def recipe(c):
    """As `attngan_shapes.recipe`."""
    attngan_shapes.recipe(c)


def multi_tiny(c):
    multi(c)
    common.tiny(c)
