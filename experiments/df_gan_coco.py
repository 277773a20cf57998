"""DF-GAN on MS-COCO 2014, 256 px (Tao et al., CVPR 2022).

    t2i_jax --config=df_gan_coco --workdir=runs/df_gan [--config.data.manual_dir=<folder>]

What the folder lacks is fetched (20 GB); see tfds_builders/coco2014_captions/README.md. The text
encoder is that of AttnGAN's DAMSM; one that is trained can be shared: --config.init.damsm=<run>.
Hardware: a GPU; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Expected: FID 19.32 (paper), 15.41 with the authors' later code.
Deviations: those of systems/df_gan.py and systems/damsm.py; EfficientNet-Lite0 instead of Inception
in the DAMSM.
"""

from t2i_jax.experiments import attngan_coco, common, df_gan_birds


def get_config(arg=''):
    c = common.base('df_gan', data=common.coco(size=256, load_size=304, resize='keep', flip=True))
    c.stages.damsm = common.stage_of(attngan_coco, 'damsm')
    # epochs: from memory
    c.stages.gan = df_gan_birds.gan(epochs=120)
    return common.variant(c, arg)
