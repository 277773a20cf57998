"""GAN-CLS on CUB-200-2011 birds, 64 px (Reed et al., ICML 2016).

    python -m t2i_jax.main --config=experiments/gan_cls_birds.py --workdir=runs/gan_cls_birds --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/cub200_captions/README.md names. Variant: `:tiny`, seconds, for tests.

Deviations: those of gan_cls_flowers. The pictures are not cropped around the bird, as in the paper; `--config.data.crop=bbox` does what
its successors do, and helps. With vectors of the authors' own encoder, `--config.data.name=cub200_captions/embeddings
--config.data.embedding=stored`.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base(
        'gan_cls', data=common.birds(size=64, load_size=76, flip=True, crop='')
    )  # squash, crop, flip: official code
    c.stages.text = dict(
        steps=30_000,
        batch_size=40,
        sampler='distinct_classes',  # official code: 200 epochs of 150 iterations
        model=dict(encoder=dict(variant='icml_birds')),
        data=dict(captions=1),
        # official code: RMSprop, x 0.98 after each 150 iterations
        optim=dict(
            joint_loss=dict(
                name='rmsprop',
                lr=7e-4,
                schedule=dict(kind='step', factor=0.98, every=150, unit='updates'),
            )
        ),
    )
    halving = dict(kind='step', factor=0.5, every=100)  # epochs: official code
    c.stages.gan = dict(
        epochs=600,
        batch_size=64,
        sampler='class_balanced',
        ema=0.999,  # official code, ema: ours
        data=dict(captions=4),  # the mean of four captions: official code
        optim=dict(
            d_loss=dict(lr=2e-4, b1=0.5, schedule=halving),
            g_loss=dict(lr=2e-4, b1=0.5, schedule=halving),
        ),
        sample_every=2000,
        validate_every=2000,
        checkpoint_every=2000,
    )
    return common.variant(c, arg)
