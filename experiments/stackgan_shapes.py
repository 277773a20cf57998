"""StackGAN on shape_scenes/single: Stage-I 32 px, Stage-II 64 px (Zhang, ICCV 2017).

    t2i_jax --config=stackgan_shapes --workdir=runs/stackgan_shapes

Hardware: a CPU core, for narrow networks and ratio 2; `:full` a GPU.
Stage-I of another run, and the sentence encoder that it reads: --config.init.text=<run>
--config.init.one=<run>.
Variants: `:recipe`, by what later papers do (see gan_cls_shapes); `:full`, the paper's networks and
sizes, 64 and 256 px; `:tiny`, seconds, for tests.

Measured (5,000 + 5,000 steps, 40 minutes of one core): docs/results.md.
Deviations from the paper's settings for birds and flowers: pictures are neither cropped nor
mirrored (the captions say left and large); one caption a row instead of the mean of four. Not in
the paper, and found to be needed on these data with GAN-CLS: sentence vectors of unit length
(`unit_text`), a D that normalises each picture alone (`d_norm`) and has all its activations, wrong
pictures that differ from the sentence by little (`near_wrong`).
"""

from t2i_jax.experiments import common, gan_cls_shapes


def get_config(arg=''):
    """All numbers ours, close to those of gan_cls_shapes:laptop."""
    c = common.base('stackgan', data=common.shapes('single', size=64))
    cosine = dict(kind='cosine', floor=0.02)
    adam = dict(lr=1e-3, b1=0.0, b2=0.99, schedule=cosine)
    encoder = dict(variant='icml_birds', channels=(96, 128), hidden=128, embedding=128)
    c.stages.text = dict(
        steps=5000,
        # 30 training classes
        batch_size=30,
        sampler='distinct_classes',
        data=dict(size=32),
        model=dict(encoder=encoder, image_channels=(48, 96, 128), image_flat=True),
        optim=dict(joint_loss=dict(lr=2.5e-3, schedule=cosine)),
    )
    both = dict(
        batch_size=32,
        near_wrong=0.5,
        ema=0.99,
        optim=dict(d_loss=adam, g_loss=adam),
        validate_every=0,
    )
    narrow = dict(gf=32, df=32, nc=64, d_norm='layer')
    c.stages.one = dict(
        steps=7500,
        data=dict(size=32),
        model=dict(third_activation=True, unit_text=True, **narrow),
        **both,
    )
    c.stages.two = dict(steps=5000, model=dict(ratio=2, blocks=2, **narrow), **both)
    return common.variant(c, arg, full=full, recipe=recipe, tiny=tiny)


def recipe(c):
    """As `gan_cls_shapes.recipe`, where the networks allow it."""
    c.stages.text = common.stage_of(gan_cls_shapes, 'text', 'recipe')
    for name, steps in (('one', 5000), ('two', 4000)):
        common.recipe(c.stages[name], steps)
        c.stages[name].model.wrong = 'text'


def full(c):
    """Stage-I and Stage-II as in the paper: networks, sizes, batch, rates and epochs.

    `--config.stages.<stage>.epochs` may be set to what time there is. The sentence encoder stays
    the narrow one, which these captions do not outgrow.
    """
    c.data.name, c.data.size = 'shape_scenes/single_256', 256
    c.stages.one.data.update(size=64)
    c.stages.two.model.update(ratio=4, blocks=4)
    for name in ('one', 'two'):
        stage = c.stages[name]
        stage.update(steps=0, epochs=600, batch_size=64, ema=0.999)
        stage.model.update(gf=128, df=64, nc=128)
        for phase in ('d_loss', 'g_loss'):
            stage.optim[phase].update(lr=2e-4, b1=0.5, b2=0.999)
            stage.optim[phase].schedule.update(kind='step', factor=0.5, every=100, floor=0.0)


def tiny(c):
    common.tiny(c)
    # Stage-I draws 16 px
    c.data.size, c.stages.two.model.ratio = 32, 2
