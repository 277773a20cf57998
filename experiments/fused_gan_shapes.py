"""FusedGAN on shape_scenes/single: 32 px, refined to 64 px (Bodla et al., ECCV 2018).

    t2i_jax --config=fused_gan_shapes --workdir=runs/fused_gan
    # captions of a tenth of the pictures, and the same of a tenth of the pictures alone
    t2i_jax --config=fused_gan_shapes --workdir=runs/tenth --config.data.captioned_part=0.1
    t2i_jax --config=fused_gan_shapes --workdir=runs/few "--config.data.split=train[:10%]"
    t2i_jax --workdir=runs/fused_gan --mode=explore --what=posture --text="a red circle"

Hardware: a CPU core, for narrow networks. Without the refiner: --config.stages.refine.steps=0.
Variants: `:px64`, 64 px at once, without a refiner; `:recipe`, by what later papers do (see
gan_cls_shapes); `:attributes`, which draws from the 22 attributes instead of sentences; `:tiny`,
seconds, for tests.

Deviations from the paper's settings for birds: narrow networks, a larger rate, sentence vectors of
unit length, a D that normalises each picture alone; pictures are neither cropped nor mirrored (the
captions say left and large). Captions of these data also say places and sizes, which are structure:
sentences such as "a red circle" leave it to z.
"""

from t2i_jax.experiments import common, gan_cls_shapes, stackgan_shapes


def get_config(arg=''):
    """All numbers ours; those of stage `refine` as Stage-II in stackgan_shapes."""
    c = common.base('fused_gan', data=common.shapes('single', size=64))
    c.stages.text = common.stage_of(stackgan_shapes, 'text')
    adam = dict(lr=1e-3, b1=0.0, b2=0.99, schedule=dict(kind='cosine', floor=0.02))
    c.stages.gan = dict(
        steps=6000,
        batch_size=32,
        sampler='mixed',
        near_wrong=0.5,
        ema=0.99,
        data=dict(size=32),
        model=dict(ngf=16, ndf=32, nz=64, nc=64, nt=64, d_norm='layer', unit_text=True),
        optim=dict(du_loss=adam, dc_loss=adam, g_loss=adam),
        validate_every=0,
    )
    c.stages.refine = common.stage_of(stackgan_shapes, 'two')
    variants = dict(px64=px64, recipe=recipe, attributes=attributes, tiny=tiny)
    return common.variant(c, arg, **variants)


def px64(c):
    c.stages.gan.data.size = 64
    c.stages.refine.steps = 0


def recipe(c):
    """As `gan_cls_shapes.recipe`, where the networks allow it."""
    c.stages.text = common.stage_of(gan_cls_shapes, 'text', 'recipe')
    common.recipe(c.stages.gan, 6000)
    c.stages.gan.model.update(g_norm='modulated', fine=True)
    common.recipe(c.stages.refine, 4000)
    c.stages.refine.model.wrong = 'text'


def attributes(c):
    c.stages.text.steps = c.stages.refine.steps = 0
    c.stages.gan.model.condition = 'attributes'


def tiny(c):
    common.tiny(c)
    # what is refined has 16 px
    c.data.size, c.stages.refine.model.ratio = 32, 2
