"""GAN-CLS on Oxford-102 flowers, 64 px (Reed et al., ICML 2016).

    t2i_jax --config=gan_cls_flowers --workdir=runs/flowers --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/flowers102_captions/README.md names.
Hardware: a GPU, not trained here at full size; `:laptop` CPU cores.
Variants: `:laptop`, narrower networks; `:recipe`, the same by what later papers do (see
gan_cls_shapes); `:tiny`, seconds, for tests.

Expected: of `:laptop`, docs/results.md.
Deviations: the image side of the text encoder's training is a small network trained with it (no
GoogLeNet features); pictures of G are shared by the two phases; a moving average of G serves for
sampling; without Reed's class lists the split is ours, and numbers are not comparable with
published ones.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    # official code: squash, crop, flip
    data = common.flowers(size=64, load_size=76, flip=True, cache='device')
    c = common.base('gan_cls', data=data)
    # official code: x 0.98 after each 82 iterations
    slow = dict(kind='step', factor=0.98, every=82, unit='updates')
    c.stages.text = dict(
        # official code: 200 epochs of 82 iterations, RMSprop
        steps=16_400,
        batch_size=40,
        sampler='distinct_classes',
        model=dict(encoder=dict(variant='icml_flowers')),
        data=dict(captions=1),
        optim=dict(joint_loss=dict(name='rmsprop', lr=7e-4, schedule=slow)),
    )
    # official code; every: epochs
    adam = dict(lr=2e-4, b1=0.5, schedule=dict(kind='step', factor=0.5, every=100))
    c.stages.gan = dict(
        # official code
        epochs=600,
        batch_size=64,
        sampler='class_balanced',
        # official code: the mean of four captions
        data=dict(captions=4),
        optim=dict(d_loss=adam, g_loss=adam),
        # ours
        ema=0.999,
        **common.every(2000),
    )
    return common.variant(c, arg, laptop=laptop, recipe=recipe)


def laptop(c):
    """All numbers ours: narrower networks, smaller batches.

    A D that normalises each picture alone (`d_norm`) is not in the paper.
    """
    text, gan = c.stages.text, c.stages.gan
    encoder = dict(variant='icml_flowers', channels=(96, 128), hidden=192, embedding=256)
    text.update(steps=4000, sample_every=0, validate_every=1000, checkpoint_every=1000)
    text.model.update(encoder=encoder, image_channels=(32, 64, 128, 192))
    text.optim.joint_loss.update(name='adam', lr=1e-3)
    text.optim.joint_loss.schedule.update(kind='cosine', floor=0.05)
    gan.update(epochs=40, batch_size=32, ema_warmup=True)
    gan.update(sample_every=1000, validate_every=0, checkpoint_every=1000)
    gan.model.update(ngf=48, ndf=48, third_activation=True, unit_text=True, d_norm='layer')
    for phase in ('d_loss', 'g_loss'):
        gan.optim[phase].update(lr=5e-4, b1=0.0, b2=0.99)
        gan.optim[phase].schedule.update(kind='cosine', floor=0.05)


def recipe(c):
    """As `gan_cls_shapes.recipe`. All numbers ours."""
    text, gan = c.stages.text, c.stages.gan
    text.update(steps=4000, batch_size=40, sampler='uniform', validate_every=1000)
    text.update(sample_every=0, checkpoint_every=1000)
    text.model.update(text='words', loss='contrast', whiten=True)
    text.model.update(image_channels=(32, 64, 128, 192))
    text.model.encoder.update(variant='icml_birds', embedding=128)
    text.optim.joint_loss.update(name='adam', lr=1e-3)
    text.optim.joint_loss.schedule.update(kind='cosine', floor=0.05, unit='epochs')
    common.photo_recipe(gan, steps=15_000)
    gan.sampler = 'uniform'
    gan.model.update(ngf=48, ndf=48, third_activation=True, unit_text=True, d_norm='layer')
    gan.model.update(wrong='text', g_norm='modulated', fine=True)
