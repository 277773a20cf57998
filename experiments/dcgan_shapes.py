"""DCGAN on shape_scenes/single, 64 px, without sentences (Radford, Metz, Chintala, ICLR 2016).

    python -m t2i_jax.main --config=experiments/dcgan_shapes.py --workdir=runs/dcgan_shapes

Variants: `:quick`, 32 px, minutes on a laptop; `:tiny`, seconds, for tests. Deviation: pictures are neither cropped nor mirrored.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base('dcgan', data=common.shapes('single'))
    c.stages.gan = dict(
        epochs=25,
        batch_size=64,
        ema=0.999,  # dcgan.torch; ema: ours
        optim=dict(d_loss=dict(lr=2e-4, b1=0.5), g_loss=dict(lr=2e-4, b1=0.5)),
    )
    return common.variant(c, arg, quick=quick)


def quick(c):
    """All numbers ours."""
    c.data.name, c.data.size = 'shape_scenes/single_quick', 32
    c.stages.gan.update(
        epochs=0, steps=2000, sample_every=500, validate_every=1000, checkpoint_every=500
    )
    c.stages.gan.model.update(ngf=32, ndf=32)
