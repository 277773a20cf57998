"""GAN-CLS on MS-COCO 2014, 64 px (Reed et al., ICML 2016).

    t2i_jax --config=gan_cls_coco --workdir=runs/gan_cls_coco [--config.data.manual_dir=<folder>]

What the folder lacks is fetched (20 GB); see tfds_builders/coco2014_captions/README.md.
Hardware: a GPU; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Deviations: those of gan_cls_flowers; the text encoder is trained on images and captions, a batch of
different images, where the original has two captions of one image; pictures are not rotated.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base('gan_cls', data=common.coco(size=64, load_size=76, flip=True))
    # official code; every: epochs
    halving = dict(kind='step', factor=0.5, every=50)
    c.stages.text = dict(
        # official code
        epochs=200,
        batch_size=64,
        model=dict(encoder=dict(variant='icml_birds')),
        data=dict(captions=1),
        optim=dict(joint_loss=dict(lr=2e-4, b1=0.5, schedule=halving)),
    )
    # official code; every: epochs
    adam = dict(lr=2e-4, b1=0.5, schedule=dict(kind='step', factor=0.5, every=40))
    c.stages.gan = dict(
        # official code
        epochs=200,
        batch_size=64,
        model=dict(ngf=196, ndf=196, text_norm=False, third_activation=True),
        # official code: the mean of three captions
        data=dict(captions=3),
        optim=dict(d_loss=adam, g_loss=adam),
        # ours
        ema=0.999,
        **common.every(2000),
    )
    return common.variant(c, arg)
