"""StackGAN on MS-COCO 2014: Stage-I 64 px, Stage-II 256 px (Zhang et al., ICCV 2017).

    t2i_jax --config=stackgan_coco --workdir=runs/stackgan [--config.data.manual_dir=<folder>]

The settings are those of the authors' PyTorch version. What the folder lacks is fetched (20 GB);
see tfds_builders/coco2014_captions/README.md. Stage-I alone can be had from another run with its
sentence encoder: --config.init.text=<run> --config.init.one=<run>.
Hardware: a GPU; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Deviations: the sentence encoder is that of gan_cls_coco; batch norm sees the whole batch, where the
original has one for each GPU; and those of systems/stackgan.py.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    # official code: squash, crop, flip
    c = common.base('stackgan', data=common.coco(size=256, load_size=304, flip=True))
    # the encoder's official code; every: epochs
    halving = dict(kind='step', factor=0.5, every=50)
    c.stages.text = dict(
        # the encoder's official code
        epochs=200,
        batch_size=64,
        model=dict(encoder=dict(variant='icml_birds')),
        data=dict(size=64, load_size=76),
        optim=dict(joint_loss=dict(lr=2e-4, b1=0.5, schedule=halving)),
    )
    # official code; every: epochs
    adam = dict(lr=2e-4, b1=0.5, schedule=dict(kind='step', factor=0.5, every=20))
    # ema: ours
    both = dict(ema=0.999, optim=dict(d_loss=adam, g_loss=adam), **common.every(2000))
    c.stages.one = dict(
        # official code; batch: of each of two GPUs
        epochs=120,
        batch_size=128,
        model=dict(variant='pytorch', gf=192, df=96),
        data=dict(size=64, load_size=76),
        **both,
    )
    c.stages.two = dict(
        # official code; batch: of each of two GPUs
        epochs=100,
        batch_size=40,
        model=dict(variant='pytorch', gf=192, df=96, blocks=2),
        **both,
    )
    return common.variant(c, arg, tiny=tiny)


def tiny(c):
    common.tiny(c)
    # Stage-I draws 16 px
    c.data.size, c.stages.two.model.ratio = 32, 2
