"""DF-GAN on Oxford-102 flowers, 256 px (Tao et al., CVPR 2022).

    t2i_jax --config=df_gan_flowers --workdir=runs/df_gan --config.data.manual_dir=<folder>

The paper has no flowers: the settings are those of birds, with whole pictures. The folder holds the
files that tfds_builders/flowers102_captions/README.md names.
Hardware: a GPU; not trained here at full size.
Variants: `:px64`, the same network with two blocks less, for 64 px, and a small DAMSM trained from
scratch; `:recipe`, 64 px, a narrower network by what later papers do (see gan_cls_shapes), without
a DAMSM; `:tiny`, seconds, for tests.

Deviations: those of systems/df_gan.py and systems/damsm.py. Without Reed's class lists the split is
ours, and numbers are not comparable with published ones.
"""

from t2i_jax.experiments import attngan_flowers, common, df_gan_birds, gan_cls_flowers


def get_config(arg=''):
    data = common.flowers(size=256, load_size=304, resize='keep', flip=True, length=18)
    c = common.base('df_gan', data=data)
    c.stages.damsm = common.stage_of(attngan_flowers, 'damsm')
    c.stages.gan = df_gan_birds.gan(epochs=600)
    return common.variant(c, arg, px64=px64, recipe=recipe)


def px64(c):
    """All numbers ours."""
    c.data.update(size=64, load_size=76, cache='device')
    c.stages.damsm = common.stage_of(attngan_flowers, 'damsm', 'px64')


def recipe(c):
    """All numbers ours."""
    c.data.update(size=64, load_size=76, cache='device')
    c.stages.damsm.update(steps=0, epochs=0)
    c.stages.text = common.stage_of(gan_cls_flowers, 'text', 'recipe')
    common.photo_recipe(c.stages.gan, steps=8000)
    c.stages.gan.model.update(ngf=24, ndf=24, unit_text=True, penalty=0.0, wrong='text')
