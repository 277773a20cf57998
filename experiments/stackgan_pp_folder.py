"""StackGAN++ on your own captioned pictures, 64, 128 and 256 px (Zhang et al., TPAMI 2018).

    t2i_jax --config=stackgan_pp_folder --workdir=runs/pp --config.data.manual_dir=<folder>

tfds_builders/caption_folder/README.md says what a folder looks like. --config.data.flip=False where
captions say left or right. The text encoder is that of gan_cls_folder; one that is trained can be
shared: --config.init.text=<run>. The networks are those of birds; lengths are in steps, so that 50
pictures are trained on as long as 5,000.
Hardware: a GPU; `:px64` CPU cores. Not trained here.
Variants: `:px64`, 16, 32 and 64 px, narrower networks; `:tiny`, seconds, to see that the folder is
read.

Expected: see gan_cls_folder.
"""

from t2i_jax.experiments import common, gan_cls_folder


def get_config(arg=''):
    """All numbers ours but those of stackgan_pp_birds."""
    data = common.folder(size=256, load_size=304, resize='keep', flip=True)
    c = common.base('stackgan_pp', data=data)
    c.stages.text = common.stage_of(gan_cls_folder, 'text')
    c.stages.text.data.update(size=64, load_size=76, resize='squash')
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.gan = dict(
        steps=50_000,
        batch_size=24,
        ema=0.999,
        ema_warmup=True,
        data=dict(scales=(64, 128)),
        optim=dict(d_loss=adam, g_loss=adam),
    )
    return common.variant(c, arg, px64=px64)


def px64(c):
    """All numbers ours, close to those of stackgan_pp_shapes."""
    c.data.update(size=64, load_size=76)
    c.stages.text = common.stage_of(gan_cls_folder, 'text', 'laptop')
    c.stages.text.data.update(size=64, load_size=76, resize='squash')
    gan = c.stages.gan
    gan.update(steps=8000, batch_size=16, ema=0.995)
    gan.data.scales = (16, 32)
    gan.model.update(gf=24, df=24, nc=64, residuals=1, unit_text=True, d_norm='layer')
    common.laptop_rates(gan)
