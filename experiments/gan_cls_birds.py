"""GAN-CLS on CUB-200-2011 birds, 64 px (Reed et al., ICML 2016).

    t2i_jax --config=gan_cls_birds --workdir=runs/birds --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/cub200_captions/README.md names. With vectors of the
authors' own encoder: --config.data.name=cub200_captions/embeddings --config.data.embedding=stored.
Hardware: a GPU; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Deviations: those of gan_cls_flowers. The pictures are not cropped around the bird, as in the paper;
--config.data.crop=bbox does what its successors do, and helps.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    # official code: squash, crop, flip
    c = common.base('gan_cls', data=common.birds(size=64, load_size=76, flip=True, crop=''))
    # official code: x 0.98 after each 150 iterations
    slow = dict(kind='step', factor=0.98, every=150, unit='updates')
    c.stages.text = dict(
        # official code: 200 epochs of 150 iterations, RMSprop
        steps=30_000,
        batch_size=40,
        sampler='distinct_classes',
        model=dict(encoder=dict(variant='icml_birds')),
        data=dict(captions=1),
        optim=dict(joint_loss=dict(name='rmsprop', lr=7e-4, schedule=slow)),
    )
    # official code; every: epochs
    adam = dict(lr=2e-4, b1=0.5, schedule=dict(kind='step', factor=0.5, every=100))
    c.stages.gan = dict(
        # official code
        epochs=600,
        batch_size=64,
        sampler='class_balanced',
        # official code: the mean of four captions
        data=dict(captions=4),
        optim=dict(d_loss=adam, g_loss=adam),
        # ours
        ema=0.999,
        **common.every(2000),
    )
    return common.variant(c, arg)
