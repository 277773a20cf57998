"""StackGAN++ on Oxford-102 flowers, 64, 128 and 256 px (Zhang et al., TPAMI 2018).

    t2i_jax --config=stackgan_pp_flowers --workdir=runs/pp_flowers --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/flowers102_captions/README.md names. The text encoder
is that of gan_cls_flowers; one that is trained can be shared:
--config.init.text=runs/flowers.
Hardware: a GPU; not trained here at full size.
Variants: `:recipe`, 16, 32 and 64 px, narrow networks by what later papers do (see
gan_cls_shapes); `:tiny`, seconds, for tests.

Deviations: those of stackgan_pp.py. The authors released no settings for flowers: these are those
of birds, with whole pictures. Without Reed's class lists the split is ours, and numbers are not
comparable with published ones.
"""

from t2i_jax.experiments import common, gan_cls_flowers


def get_config(arg=''):
    data = common.flowers(size=256, load_size=304, resize='keep', flip=True)
    c = common.base('stackgan_pp', data=data)
    c.stages.text = common.stage_of(gan_cls_flowers, 'text')
    # as there
    c.stages.text.data.update(size=64, load_size=76, resize='squash')
    # birds, official code
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.gan = dict(
        # birds, official code, one caption a row as well
        epochs=600,
        batch_size=24,
        ema=0.999,
        data=dict(scales=(64, 128)),
        optim=dict(d_loss=adam, g_loss=adam),
        **common.every(2000),
    )
    return common.variant(c, arg, recipe=recipe)


def recipe(c):
    """All numbers ours."""
    c.data.update(size=64, load_size=76, cache='device')
    c.stages.text = common.stage_of(gan_cls_flowers, 'text', 'recipe')
    gan = c.stages.gan
    common.photo_recipe(gan, steps=10_000)
    gan.data.scales = (16, 32)
    gan.model.update(gf=24, df=24, nc=64, residuals=0, unit_text=True, d_norm='layer')
    gan.model.update(wrong='text', d_condition='embedding')
    gan.model.game.contrast = (1.0, 0.1)
