"""StackGAN on Oxford-102 flowers: Stage-I 64 px, Stage-II 256 px (Zhang et al., ICCV 2017).

    python -m t2i_jax.main --config=experiments/stackgan_flowers.py --workdir=runs/stackgan_flowers --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/flowers102_captions/README.md names. Variant: `:tiny`, seconds, for tests. Stage-I alone can be
had from another run with its sentence encoder: --config.init.text=<run> --config.init.one=<run>.

Deviations: the sentence encoder and the split are those of gan_cls_flowers, and so is what it says of them; wrong images are certain to be of
another class; the crops of a picture in Stage-I and Stage-II are drawn separately; and those of systems/stackgan.py.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base(
        'stackgan', data=common.flowers(size=256, load_size=304, flip=True)
    )  # squash, crop, flip: official code
    c.stages.text = dict(
        steps=16_400,
        batch_size=40,
        sampler='distinct_classes',  # the encoder's official code: 200 epochs of 82 iterations
        model=dict(encoder=dict(variant='icml_flowers')),
        data=dict(size=64, load_size=76, captions=1),
        # official code: RMSprop, x 0.98 after each 82 iterations
        optim=dict(
            joint_loss=dict(
                name='rmsprop',
                lr=7e-4,
                schedule=dict(kind='step', factor=0.98, every=82, unit='updates'),
            )
        ),
    )
    halving = dict(
        kind='step', factor=0.5, every=100
    )  # epochs: paper; official code: 50 in Stage-I, 100 in Stage-II
    adam = dict(lr=2e-4, b1=0.5, schedule=halving)  # paper
    often = dict(sample_every=2000, validate_every=2000, checkpoint_every=2000)
    c.stages.one = dict(
        epochs=600,
        batch_size=64,
        ema=0.999,  # paper; ema: ours
        data=dict(size=64, load_size=76, captions=4),  # the mean of four captions: official code
        optim=dict(d_loss=adam, g_loss=adam),
        **often,
    )
    c.stages.two = dict(
        epochs=600,
        batch_size=64,
        ema=0.999,  # paper; ema: ours
        data=dict(captions=4),
        optim=dict(d_loss=adam, g_loss=adam),
        **often,
    )
    return common.variant(c, arg, tiny=tiny)


def tiny(c):
    common.tiny(c)
    c.data.size, c.stages.two.model.ratio = 32, 2  # Stage-I draws 16 px
