"""GAN-CLS on your own captioned pictures, 64 px: the settings of COCO's, which needs no classes, at the widths of the flowers'.

    python -m t2i_jax.main --config=experiments/gan_cls_folder.py --workdir=runs/mine --config.data.manual_dir=<folder>

tfds_builders/caption_folder/README.md says what a folder looks like. `--config.data.flip=False` where captions say left or right. All numbers
ours but those of gan_cls_coco. Variant: `:tiny`, seconds, to see that the folder is read.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base('gan_cls', data=common.folder(size=64, load_size=76, flip=True))
    c.stages.text = dict(
        epochs=100,
        batch_size=64,
        model=dict(encoder=dict(variant='icml_birds')),
        optim=dict(joint_loss=dict(lr=2e-4, b1=0.5)),
    )
    halving = dict(kind='step', factor=0.5, every=100)
    c.stages.gan = dict(
        epochs=600,
        batch_size=64,
        ema=0.999,
        optim=dict(
            d_loss=dict(lr=2e-4, b1=0.5, schedule=halving),
            g_loss=dict(lr=2e-4, b1=0.5, schedule=halving),
        ),
    )
    return common.variant(c, arg)
