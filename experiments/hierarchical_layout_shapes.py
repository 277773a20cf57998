"""Hong et al.'s hierarchy of layouts on shape_scenes/multi, 64 px (CVPR 2018).

    t2i_jax --config=hierarchical_layout_shapes --workdir=runs/layout
    t2i_jax --workdir=runs/layout --mode=sample --text="a red circle to the left of a blue square"
    t2i_jax --workdir=runs/layout --mode=explore --what=layout
    t2i_jax --workdir=runs/layout --mode=evaluate [--stage=box] [--stage=shape]

Hardware: CPU cores, for narrow networks.
Variants: `:recipe`, by what later papers do (see gan_cls_shapes), with a cheaper step; `:tiny`,
seconds, for tests.

Expected: classes at their places; colours are mixed up where a scene has several, since one vector
carries all of them to one place (Obj-GAN).
Deviations: the sentence encoder is a bi-LSTM over words, trained by whole captions (a character
network learns them slowly); phi is the picture encoder that was trained with it; D normalises each
picture alone, and a fourth kind of pair, wrong classes, is wrong.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    """All numbers ours but the weights of losses."""
    c = common.base('hierarchical_layout', data=common.shapes('multi'))
    cosine = dict(kind='cosine', floor=0.02)
    c.stages.text = dict(
        steps=4000,
        batch_size=32,
        near_wrong=0.5,
        model=dict(
            text='lstm',
            encoder=dict(embedding=256),
            image_channels=(48, 96, 128),
            image_flat=True,
            loss='contrast',
            leave_out='entailment',
        ),
        optim=dict(joint_loss=dict(lr=2e-3, schedule=cosine)),
        **common.every(1000),
    )
    c.stages.box = dict(
        steps=8000,
        batch_size=64,
        keep='best:box_loss',
        model=dict(width=128, components=5, unit_text=True),
        optim=dict(box_loss=dict(lr=2e-3, clip=5.0, schedule=cosine)),
        **common.every(1000),
    )
    adam = dict(lr=1e-3, b1=0.0, b2=0.99, schedule=cosine)
    c.stages.shape = dict(
        steps=1500,
        batch_size=16,
        model=dict(width=8, widths=(16, 32, 64, 64), features='text'),
        optim=dict(d_loss=adam, g_loss=adam),
        ema=0.99,
        ema_warmup=True,
        **common.every(500),
    )
    c.stages.image = dict(
        steps=4000,
        batch_size=32,
        model=dict(
            g=16,
            d=32,
            nz=16,
            nt=64,
            residuals=2,
            features='text',
            perceptual_weight=1.0,
            wrong_layout=1.0,
            unit_text=True,
            d_norm='layer',
        ),
        optim=dict(d_loss=adam, g_loss=adam),
        ema=0.995,
        ema_warmup=True,
        **common.every(1000),
    )
    return common.variant(c, arg, tiny=tiny, recipe=recipe)


def recipe(c):
    """As `gan_cls_shapes.recipe`, for narrower networks; all numbers ours."""
    common.recipe(c.stages.image, steps=4000)
    c.stages.image.near_wrong = 0.9
    c.stages.image.model.update(g=8, d=24, residuals=1)


def tiny(c):
    common.tiny(c)
    # what a bi-LSTM does not read
    c.stages.text.model.encoder.update(channels=(384, 512), hidden=0)
