"""DF-GAN on shape_scenes/single, 64 px (Tao et al., CVPR 2022).

    t2i_jax --config=df_gan_shapes --workdir=runs/df_gan

Hardware: a CPU core, for a narrow network.
Variants: `:recipe`, by what later papers do (see gan_cls_shapes): sums of word vectors, pairing, a
contrast head, no gradient penalty; `:tiny`, seconds, for tests.

Deviations from the paper's settings for birds: a DAMSM of its own (damsm_shapes), narrow networks,
a larger rate; pictures are neither cropped nor mirrored (the captions say left and large).
"""

from t2i_jax.experiments import common, damsm_shapes, gan_cls_shapes


def get_config(arg=''):
    """All numbers ours but those of the losses."""
    c = common.base('df_gan', data=common.shapes('single'))
    c.stages.damsm = common.stage_of(damsm_shapes, 'damsm')
    cosine = dict(kind='cosine', floor=0.02)
    adam = dict(b1=0.0, b2=0.9, schedule=cosine)
    c.stages.gan = dict(
        steps=3000,
        batch_size=32,
        ema=0.995,
        model=dict(ngf=16, ndf=16),
        optim=dict(d_loss=dict(lr=8e-4, **adam), g_loss=dict(lr=2e-4, **adam)),
        validate_every=0,
    )
    return common.variant(c, arg, recipe=recipe)


def recipe(c):
    """As `gan_cls_shapes.recipe`, where the networks allow it; all numbers ours.

    D has no norms, and without the paper's penalty G finds blobs that it takes for squares: its
    kernels are divided by their largest singular values instead, which costs next to nothing.
    """
    c.stages.damsm.steps = 0
    c.stages.text = common.stage_of(gan_cls_shapes, 'text', 'recipe')
    common.recipe(c.stages.gan, steps=3000)
    c.stages.gan.near_wrong = 0.9
    c.stages.gan.model.update(unit_text=True, penalty=0.0, wrong='text')
    c.stages.gan.model.game.spectral = True
