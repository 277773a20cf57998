"""Attribute2Image on shape_scenes/single, 32 px (Yan, Yang, Sohn, Lee, ECCV 2016).

    python -m t2i_jax.main --config=experiments/attribute2image_shapes.py --workdir=runs/attribute2image
    python -m t2i_jax.main --workdir=runs/attribute2image --mode=sample --text="a large red ring on the left"
    python -m t2i_jax.main --workdir=runs/attribute2image --mode=explore --what=attributes

The vector has 22 bits (class, colour, size, place), the backgrounds are not described by it. Variants: `:cvae`, one latent instead of two layers;
`:legacy`, the composition of the authors' code; `:tiny`, seconds, for tests. Sizes and rates are ours, about a quarter of the paper's widths.
Pictures are not changed in training (captions and attributes of shape_scenes name colours and places).
"""
from experiments import common


def get_config(arg=''):
    c = common.base('attribute2image', data=common.shapes('single_32', size=32))
    c.stages.vae = dict(
        steps=5000, batch_size=64, ema=.999, sample_every=500, validate_every=500, checkpoint_every=500,
        model=dict(width=16, nz=64, nz_b=32, kl_weight=3.0, gain=0.0, sharpness=0.0),
        optim=dict(loss=dict(lr=1e-3, schedule=dict(kind='cosine', floor=.02))),
    )
    return common.variant(c, arg, cvae=cvae, legacy=legacy)


def cvae(c):
    c.stages.vae.model.layered = False


def legacy(c):
    c.stages.vae.model.compose = 'legacy'
