"""DF-GAN on CUB-200-2011 birds, 256 px (Tao et al., CVPR 2022).

    t2i_jax --config=df_gan_birds --workdir=runs/df_gan --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/cub200_captions/README.md names. The text encoder is
that of AttnGAN's DAMSM; one that is trained can be shared: --config.init.damsm=runs/other.
Hardware: a GPU; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Expected: FID 14.81 (paper), 12.10 with the authors' later code; Inception Score 5.10 (from memory).
Deviations: those of systems/df_gan.py and systems/damsm.py; EfficientNet-Lite0 instead of Inception
in the DAMSM.
"""

from t2i_jax.experiments import attngan_birds, common


def get_config(arg=''):
    data = common.birds(size=256, load_size=304, resize='keep', flip=True, length=18)
    c = common.base('df_gan', data=data)
    c.stages.damsm = common.stage_of(attngan_birds, 'damsm')
    c.stages.gan = gan(epochs=600)
    # official code: samples of birds
    c.stages.gan['model'] = dict(truncate=0.88)
    return common.variant(c, arg)


def gan(**others):
    """Return the settings of the GAN stage that all data sets share."""
    # paper
    adam = dict(b1=0.0, b2=0.9)
    return dict(
        # paper
        batch_size=32,
        # official code
        ema=0.999,
        optim=dict(d_loss=dict(lr=4e-4, **adam), g_loss=dict(lr=1e-4, **adam)),
        **common.every(2000),
        **others,
    )
