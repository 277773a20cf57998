"""StackGAN++ on CUB-200-2011 birds, 64, 128 and 256 px (Zhang et al., TPAMI 2018).

    t2i_jax --config=stackgan_pp_birds --workdir=runs/pp_birds --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/cub200_captions/README.md names. The text encoder is
that of gan_cls_birds; one that is trained can be shared: --config.init.text=runs/birds.
With vectors of the authors' own encoder, --config.data.name=cub200_captions/embeddings
--config.data.embedding=stored, the stage `text` is left out.
Hardware: a GPU; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Deviations: those of stackgan_pp.py; a text encoder shared with gan_cls_birds has seen whole
pictures, these are cropped around the bird.
"""

from t2i_jax.experiments import common, gan_cls_birds


def get_config(arg=''):
    # official code: the square around the bird, shorter side to 304, crop, flip
    data = common.birds(size=256, load_size=304, resize='keep', flip=True)
    c = common.base('stackgan_pp', data=data)
    c.stages.text = common.stage_of(gan_cls_birds, 'text')
    # as there
    c.stages.text.data.update(size=64, load_size=76, resize='squash')
    # official code
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.gan = dict(
        # official code, one caption a row as well
        epochs=600,
        batch_size=24,
        ema=0.999,
        data=dict(scales=(64, 128)),
        optim=dict(d_loss=adam, g_loss=adam),
        **common.every(2000),
    )
    return common.variant(c, arg)
