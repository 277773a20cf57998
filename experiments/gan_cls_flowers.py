"""GAN-CLS on Oxford-102 flowers, 64 px (Reed et al., ICML 2016).

    python -m t2i_jax.main --config=experiments/gan_cls_flowers.py --workdir=runs/gan_cls_flowers --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/flowers102_captions/README.md names. Variants: `:laptop`, narrower networks for an
hour or two on two CPU cores; `:tiny`, seconds, for tests.

Deviations: the image side of the text encoder's training is a small network trained with it (no GoogLeNet features); pictures of G are
shared by the two phases; a moving average of G is kept for sampling; without Reed's class lists the split is ours, and numbers are
not comparable with published ones.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base(
        'gan_cls', data=common.flowers(size=64, load_size=76, flip=True, cache='device')
    )  # squash, crop, flip: official code
    c.stages.text = dict(
        steps=16_400,
        batch_size=40,
        sampler='distinct_classes',  # official code: 200 epochs of 82 iterations
        model=dict(encoder=dict(variant='icml_flowers')),
        data=dict(captions=1),
        # official code: RMSprop, x 0.98 after each 82 iterations
        optim=dict(
            joint_loss=dict(
                name='rmsprop',
                lr=7e-4,
                schedule=dict(kind='step', factor=0.98, every=82, unit='updates'),
            )
        ),
    )
    halving = dict(kind='step', factor=0.5, every=100)  # epochs: official code
    c.stages.gan = dict(
        epochs=600,
        batch_size=64,
        sampler='class_balanced',
        ema=0.999,  # official code, ema: ours
        data=dict(captions=4),  # the mean of four captions: official code
        optim=dict(
            d_loss=dict(lr=2e-4, b1=0.5, schedule=halving),
            g_loss=dict(lr=2e-4, b1=0.5, schedule=halving),
        ),
        sample_every=2000,
        validate_every=2000,
        checkpoint_every=2000,
    )
    return common.variant(c, arg, laptop=laptop)


def laptop(c):
    """All numbers ours: narrower networks, smaller batches; and a D that normalises each picture alone (`d_norm`), which is not in the paper."""
    c.stages.text.update(steps=4000, sample_every=0, validate_every=1000, checkpoint_every=1000)
    c.stages.text.model.update(
        encoder=dict(variant='icml_flowers', channels=(96, 128), hidden=192, embedding=256),
        image_channels=(32, 64, 128, 192),
    )
    c.stages.text.optim.joint_loss.update(name='adam', lr=1e-3)
    c.stages.text.optim.joint_loss.schedule.update(kind='cosine', floor=0.05)
    c.stages.gan.update(
        epochs=40, batch_size=32, sample_every=1000, validate_every=0, checkpoint_every=1000
    )
    c.stages.gan.model.update(ngf=48, ndf=48, third_activation=True, unit_text=True, d_norm='layer')
    for phase in ('d_loss', 'g_loss'):
        c.stages.gan.optim[phase].update(lr=5e-4, b1=0.0, b2=0.99)
        c.stages.gan.optim[phase].schedule.update(kind='cosine', floor=0.05)
