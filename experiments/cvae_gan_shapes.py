"""CVAE&GAN on shape_scenes/single: 32 px, refined to 64 px (Zhang, Peng, BigMM 2018).

    t2i_jax --config=cvae_gan_shapes --workdir=runs/cvae_gan
    t2i_jax --workdir=runs/cvae_gan --mode=explore --what=background --text="a red circle"
    t2i_jax --workdir=runs/cvae_gan --mode=explore --what=edit_text --stage=cvae

Hardware: a CPU core, for narrow networks.
Variants: `:recipe`, the refiner by what later papers do (see gan_cls_shapes); `:maskless`, without
masks, where nothing says what is foreground; `:tiny`, seconds, for tests.

Deviations: those of attribute2image_shapes; the sentence encoder is that of gan_cls_shapes:recipe,
the refiner that of stackgan_shapes.
"""

from t2i_jax.experiments import (
    attribute2image_shapes,
    common,
    gan_cls_shapes,
    stackgan_shapes,
)


def get_config(arg=''):
    """All numbers ours."""
    c = common.base('cvae_gan', data=common.shapes('single', size=64))
    c.stages.text = common.stage_of(gan_cls_shapes, 'text', 'recipe')
    vae = common.stage_of(attribute2image_shapes, 'vae')
    keywords = {name: vae.model[name] for name in ('width', 'nz', 'nz_b', 'kl_weight')}
    unchanged = dict(gain=0.0, sharpness=0.0)
    vae.update(steps=5000, model=dict(unit_text=True, **keywords, **unchanged))
    vae.data = dict(size=32)
    c.stages.cvae = vae
    c.stages.refine = common.stage_of(stackgan_shapes, 'two')
    narrow = ('gf', 'df', 'nc', 'd_norm', 'blocks')
    c.stages.refine.model = {name: c.stages.refine.model[name] for name in narrow}
    return common.variant(c, arg, recipe=recipe, maskless=maskless, tiny=tiny)


def recipe(c):
    """As `gan_cls_shapes.recipe`, where the networks allow it."""
    common.recipe(c.stages.refine, 4000)


def maskless(c):
    c.stages.cvae.model.masks = 'none'


def tiny(c):
    common.tiny(c)
    # what is refined has 16 px
    c.data.size = 32
    # its few channels are those of a char-CNN-RNN
    c.stages.text.model.update(text='chars', whiten=False)
