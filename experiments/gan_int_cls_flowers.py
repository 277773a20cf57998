"""GAN-INT-CLS on Oxford-102 flowers, 64 px (Reed et al., ICML 2016).

    t2i_jax --config=gan_int_cls_flowers --workdir=runs/int_cls --config.data.manual_dir=<folder>

GAN-CLS trained also on sentences halfway between two others. A text encoder that gan_cls_flowers
has trained can be shared: --config.init.text=runs/flowers. Everything else, the hardware,
the variants and the deviations are those of gan_cls_flowers.
"""

from t2i_jax.experiments import gan_cls_flowers


def get_config(arg=''):
    c = gan_cls_flowers.get_config(arg)
    # beta 1/2, weight 1: paper
    c.stages.gan.model.interpolate = True
    # midpoints have no real picture that a drawn one could be paired with
    c.stages.gan.model.game.adversary = 'bce'
    return c
