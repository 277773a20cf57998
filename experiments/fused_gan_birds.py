"""FusedGAN on CUB-200-2011 birds, 64 px, refined to 256 px (Bodla et al., ECCV 2018).

    t2i_jax --config=fused_gan_birds --workdir=runs/fused_gan --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/cub200_captions/README.md names.
Hardware: a GPU; not trained here at full size.
Without the refiner: --config.stages.refine.epochs=0.
Variants: `:prior16`, a structure of 16 x 16; `:tiny`, seconds, for tests.

Deviations: those of systems/fused_gan.py; the sentence encoder is trained here (gan_cls_birds); the
paper adds the 48,562 pictures of NABirds, which have no captions. With captions of a part of these
birds alone: --config.data.captioned_part=0.1.
"""

from t2i_jax.experiments import common, gan_cls_birds, stackgan_birds


def get_config(arg=''):
    # StackGAN's code: cropped around the bird, squash, crop, flip
    c = common.base('fused_gan', data=common.birds(size=256, load_size=304, flip=True))
    c.stages.text = common.stage_of(gan_cls_birds, 'text')
    c.stages.text.data.update(size=64, load_size=76)
    # from memory of the paper, as StackGAN; every: epochs
    adam = dict(lr=2e-4, b1=0.5, schedule=dict(kind='step', factor=0.5, every=100))
    c.stages.gan = dict(
        # from memory of the paper
        epochs=600,
        batch_size=64,
        sampler='mixed',
        data=dict(size=64, load_size=76),
        optim=dict(du_loss=adam, dc_loss=adam, g_loss=adam),
        # ours
        ema=0.999,
        **common.every(2000),
    )
    c.stages.refine = common.stage_of(stackgan_birds, 'two')
    return common.variant(c, arg, prior16=prior16, tiny=tiny)


def prior16(c):
    c.stages.gan.model.prior_res = 16


def tiny(c):
    common.tiny(c)
    # what is refined has 16 px
    c.data.size, c.stages.refine.model.ratio = 32, 2
