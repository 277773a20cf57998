"""CVAE&GAN on CUB-200-2011 birds: 64 px, refined to 256 px (Zhang, Peng, BigMM 2018).

    t2i_jax --config=cvae_gan_birds --workdir=runs/cvae_gan --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/cub200_captions/README.md names, with the masks.
Hardware: a GPU; not trained here at full size.
Variants: `:maskless`, for data without masks; `:tiny`, seconds, for tests.

Deviations: those of systems/cvae_gan.py and of attribute2image_birds; the sentence encoder is that
of gan_cls_birds, settings of the refiner are StackGAN's.
"""

from t2i_jax.experiments import attribute2image_birds, common, gan_cls_birds, stackgan_birds


def get_config(arg=''):
    data = common.birds(name='cub200_captions/masks', size=256, load_size=304, flip=True)
    c = common.base('cvae_gan', data=data)
    c.stages.text = common.stage_of(gan_cls_birds, 'text')
    c.stages.text.data.update(size=64, load_size=76)
    c.stages.cvae, c.stages.refine = stages(attribute2image_birds, stackgan_birds)
    return common.variant(c, arg, maskless=maskless, tiny=tiny)


def stages(vaes, gans):
    """Return stages `cvae` and `refine`. vaes, gans: experiments whose settings they have."""
    vae = common.stage_of(vaes, 'vae')
    # Attribute2Image's code, 72 of 80 px
    vae.data = dict(size=64, load_size=72)
    vae.model = dict(rotation=0.08)
    refine = common.stage_of(gans, 'two')
    refine.model = dict()
    # one caption a row, as stage `cvae`
    refine.data = dict()
    return vae, refine


def maskless(c):
    c.data.name = c.data.name.replace('masks', 'plain')
    c.stages.cvae.model.masks = 'none'


def tiny(c):
    common.tiny(c)
    # what is refined has 16 px
    c.data.size = 32
