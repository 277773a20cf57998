"""GAN-INT-CLS on Oxford-102 flowers, 64 px: GAN-CLS trained also on sentences halfway between two others (Reed et al., ICML 2016).

    python -m t2i_jax.main --config=experiments/gan_int_cls_flowers.py --workdir=runs/gan_int_cls_flowers --config.data.manual_dir=<folder>

A text encoder that gan_cls_flowers has trained can be shared: --config.init.text=runs/gan_cls_flowers. Everything else, the
variants and the deviations are those of gan_cls_flowers.
"""

from t2i_jax.experiments import gan_cls_flowers


def get_config(arg=''):
    c = gan_cls_flowers.get_config(arg)
    c.stages.gan.model.interpolate = True  # beta 1/2, weight 1: paper
    return c
