"""GAN-CLS on your own captioned pictures, 64 px (Reed et al., ICML 2016).

    t2i_jax --config=gan_cls_folder --workdir=runs/mine --config.data.manual_dir=<folder>

tfds_builders/caption_folder/README.md says what a folder looks like. --config.data.flip=False where
captions say left or right. The settings are those of COCO, which needs no classes, at the widths of
the flowers; all numbers ours but those of gan_cls_coco.
Hardware: a GPU.
Variant: `:tiny`, seconds, to see that the folder is read.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base('gan_cls', data=common.folder(size=64, load_size=76, flip=True))
    c.stages.text = dict(
        # ours
        epochs=100,
        batch_size=64,
        model=dict(encoder=dict(variant='icml_birds')),
        optim=dict(joint_loss=dict(lr=2e-4, b1=0.5)),
    )
    # official code; every: epochs, as for flowers and birds
    adam = dict(lr=2e-4, b1=0.5, schedule=dict(kind='step', factor=0.5, every=100))
    c.stages.gan = dict(
        # ours
        epochs=600,
        batch_size=64,
        ema=0.999,
        optim=dict(d_loss=adam, g_loss=adam),
    )
    return common.variant(c, arg)
