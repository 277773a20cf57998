"""CVAE&GAN on Oxford-102 flowers: 64 px, refined to 256 px (Zhang, Peng, BigMM 2018).

    t2i_jax --config=cvae_gan_flowers --workdir=runs/cvae_gan --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/flowers102_captions/README.md names, with the masks.
Hardware: a GPU; not trained here at full size.
Variants: `:maskless`, for data without masks; `:tiny`, seconds, for tests.

Deviations: those of cvae_gan_birds; the sentence encoder is that of gan_cls_flowers.
"""

from t2i_jax.experiments import (
    attribute2image_birds,
    common,
    cvae_gan_birds,
    gan_cls_flowers,
    stackgan_flowers,
)


def get_config(arg=''):
    data = common.flowers(name='flowers102_captions/masks', size=256, load_size=304, flip=True)
    c = common.base('cvae_gan', data=data)
    c.stages.text = common.stage_of(gan_cls_flowers, 'text')
    c.stages.text.data.update(size=64, load_size=76)
    both = cvae_gan_birds.stages(attribute2image_birds, stackgan_flowers)
    c.stages.cvae, c.stages.refine = both
    maskless, tiny = cvae_gan_birds.maskless, cvae_gan_birds.tiny
    return common.variant(c, arg, maskless=maskless, tiny=tiny)
