"""StackGAN on MS-COCO 2014: Stage-I 64 px, Stage-II 256 px (Zhang et al., ICCV 2017; the authors' PyTorch version).

    python -m t2i_jax.main --config=experiments/stackgan_coco.py --workdir=runs/stackgan_coco [--config.data.manual_dir=<folder>]

What the folder lacks is fetched (20 GB); see tfds_builders/coco2014_captions/README.md. Variant: `:tiny`, seconds, for tests. Stage-I alone
can be had from another run with its sentence encoder: --config.init.text=<run> --config.init.one=<run>.

Deviations: the sentence encoder is that of gan_cls_coco; batch norm sees the whole batch, where the original has one for each GPU; and those of
systems/stackgan.py.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base(
        'stackgan', data=common.coco(size=256, load_size=304, flip=True)
    )  # squash, crop, flip: official code
    halving = dict(kind='step', factor=0.5, every=50)  # epochs: the encoder's official code
    c.stages.text = dict(
        epochs=200,
        batch_size=64,
        model=dict(encoder=dict(variant='icml_birds')),  # the encoder's official code
        data=dict(size=64, load_size=76),
        optim=dict(joint_loss=dict(lr=2e-4, b1=0.5, schedule=halving)),
    )
    halving = dict(kind='step', factor=0.5, every=20)  # epochs: official code
    adam = dict(lr=2e-4, b1=0.5, schedule=halving)  # official code
    often = dict(sample_every=2000, validate_every=2000, checkpoint_every=2000)
    c.stages.one = dict(
        epochs=120,
        batch_size=128,
        ema=0.999,  # official code, batch of each of two GPUs; ema: ours
        model=dict(variant='pytorch', gf=192, df=96),  # official code
        data=dict(size=64, load_size=76),
        optim=dict(d_loss=adam, g_loss=adam),
        **often,
    )
    c.stages.two = dict(
        epochs=100,
        batch_size=40,
        ema=0.999,  # official code, batch of each of two GPUs; ema: ours
        model=dict(variant='pytorch', gf=192, df=96, blocks=2),  # official code
        optim=dict(d_loss=adam, g_loss=adam),
        **often,
    )
    return common.variant(c, arg, tiny=tiny)


def tiny(c):
    common.tiny(c)
    c.data.size, c.stages.two.model.ratio = 32, 2  # Stage-I draws 16 px
