"""GAN-CLS on MS-COCO 2014, 64 px (Reed et al., ICML 2016).

    python -m t2i_jax.main --config=experiments/gan_cls_coco.py --workdir=runs/gan_cls_coco [--config.data.manual_dir=<folder>]

What the folder lacks is fetched (20 GB); see tfds_builders/coco2014_captions/README.md. Variant: `:tiny`, seconds, for tests.

Deviations: those of gan_cls_flowers; the text encoder is trained on images and captions, a batch of different images, where the
original has two captions of one image; pictures are not rotated.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base('gan_cls', data=common.coco(size=64, load_size=76, flip=True))
    halving = dict(kind='step', factor=0.5, every=50)  # epochs: official code
    c.stages.text = dict(
        epochs=200,
        batch_size=64,
        model=dict(encoder=dict(variant='icml_birds')),  # official code
        data=dict(captions=1),
        optim=dict(joint_loss=dict(lr=2e-4, b1=0.5, schedule=halving)),
    )
    halving = dict(kind='step', factor=0.5, every=40)  # epochs: official code
    c.stages.gan = dict(
        epochs=200,
        batch_size=64,
        ema=0.999,  # official code, ema: ours
        model=dict(ngf=196, ndf=196, text_norm=False, third_activation=True),  # official code
        data=dict(captions=3),  # the mean of three captions: official code
        optim=dict(
            d_loss=dict(lr=2e-4, b1=0.5, schedule=halving),
            g_loss=dict(lr=2e-4, b1=0.5, schedule=halving),
        ),
        sample_every=2000,
        validate_every=2000,
        checkpoint_every=2000,
    )
    return common.variant(c, arg)
