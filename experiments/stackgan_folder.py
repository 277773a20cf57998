"""StackGAN on your own captioned pictures: Stage-I 64 px, Stage-II 256 px (Zhang, ICCV 2017).

    t2i_jax --config=stackgan_folder --workdir=runs/stackgan --config.data.manual_dir=<folder>

tfds_builders/caption_folder/README.md says what a folder looks like. --config.data.flip=False where
captions say left or right. The text encoder is that of gan_cls_folder; one that is trained can be
shared: --config.init.text=<run>. The networks are those of flowers; lengths are in steps, so that
50 pictures are trained on as long as 5,000.
Hardware: a GPU; `:px64` CPU cores. Not trained here.
Variants: `:px64`, 32 and 64 px, narrower networks; `:tiny`, seconds, to see that the folder is
read.

Expected: see gan_cls_folder.
"""

from t2i_jax.experiments import common, gan_cls_folder


def get_config(arg=''):
    """All numbers ours but those of stackgan_flowers."""
    c = common.base('stackgan', data=common.folder(size=256, load_size=304, flip=True))
    c.stages.text = common.stage_of(gan_cls_folder, 'text')
    c.stages.text.data.update(size=64, load_size=76)
    halving = dict(kind='step', factor=0.5, every=5000, unit='updates')
    adam = dict(lr=2e-4, b1=0.5, schedule=halving)
    both = dict(
        steps=20_000,
        batch_size=64,
        ema=0.999,
        ema_warmup=True,
        optim=dict(d_loss=adam, g_loss=adam),
    )
    c.stages.one = dict(data=dict(size=64, load_size=76), **both)
    c.stages.two = dict(**both)
    return common.variant(c, arg, px64=px64, tiny=tiny)


def px64(c):
    """All numbers ours, close to those of stackgan_shapes."""
    c.data.update(size=64, load_size=76)
    c.stages.text = common.stage_of(gan_cls_folder, 'text', 'laptop')
    one, two = c.stages.one, c.stages.two
    one.data.update(size=32, load_size=38)
    narrow = dict(gf=32, df=32, nc=64, d_norm='layer')
    one.model.update(third_activation=True, unit_text=True, **narrow)
    two.model.update(ratio=2, blocks=2, **narrow)
    one.update(steps=10_000, batch_size=32)
    two.update(steps=6000, batch_size=32)
    for stage in (one, two):
        common.laptop_rates(stage)


def tiny(c):
    common.tiny(c)
    # Stage-I draws 16 px
    c.data.size, c.stages.two.model.ratio = 32, 2
