"""DCGAN on shape_scenes/single, 64 px, without sentences (Radford et al., ICLR 2016).

    t2i_jax --config=dcgan_shapes --workdir=runs/dcgan_shapes

Hardware: a GPU; `:quick` a CPU core.
Variants: `:quick`, 32 px; `:tiny`, seconds, for tests.
Deviation: pictures are neither cropped nor mirrored.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base('dcgan', data=common.shapes('single'))
    # dcgan.torch
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.gan = dict(
        # dcgan.torch
        epochs=25,
        batch_size=64,
        optim=dict(d_loss=adam, g_loss=adam),
        # ours
        ema=0.999,
    )
    return common.variant(c, arg, quick=quick)


def quick(c):
    """All numbers ours."""
    c.data.name, c.data.size = 'shape_scenes/single_quick', 32
    c.stages.gan.update(epochs=0, steps=2000, ema_warmup=True)
    c.stages.gan.update(sample_every=500, validate_every=1000, checkpoint_every=500)
    c.stages.gan.model.update(ngf=32, ndf=32)
