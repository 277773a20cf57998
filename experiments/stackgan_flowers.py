"""StackGAN on Oxford-102 flowers: Stage-I 64 px, Stage-II 256 px (Zhang, ICCV 2017).

    t2i_jax --config=stackgan_flowers --workdir=runs/stackgan --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/flowers102_captions/README.md names. Stage-I alone can
be had from another run with its sentence encoder: --config.init.text=<run> --config.init.one=<run>.
Hardware: a GPU; not trained here at full size.
Variants: `:recipe`, 32 and 64 px, narrow networks by what later papers do (see gan_cls_shapes);
`:tiny`, seconds, for tests.

Deviations: the sentence encoder and the split are those of gan_cls_flowers, and so is what it says
of them; wrong images are certain to be of another class; the crops of a picture in Stage-I and
Stage-II are drawn separately; and those of systems/stackgan.py.
"""

from t2i_jax.experiments import common, gan_cls_flowers


def get_config(arg=''):
    # official code: squash, crop, flip
    c = common.base('stackgan', data=common.flowers(size=256, load_size=304, flip=True))
    c.stages.text = common.stage_of(gan_cls_flowers, 'text')
    c.stages.text.data.update(size=64, load_size=76)
    # paper; official code: every 50 epochs in Stage-I, 100 in Stage-II
    halving = dict(kind='step', factor=0.5, every=100)
    # paper
    adam = dict(lr=2e-4, b1=0.5, schedule=halving)
    # paper; ema: ours
    both = dict(epochs=600, batch_size=64, ema=0.999, optim=dict(d_loss=adam, g_loss=adam))
    # official code: the mean of four captions
    c.stages.one = dict(data=dict(size=64, load_size=76, captions=4), **both, **common.every(2000))
    c.stages.two = dict(data=dict(captions=4), **both, **common.every(2000))
    return common.variant(c, arg, recipe=recipe, tiny=tiny)


def recipe(c):
    """All numbers ours."""
    c.data.update(size=64, load_size=76, cache='device')
    c.stages.text = common.stage_of(gan_cls_flowers, 'text', 'recipe')
    c.stages.one.data.update(size=32, load_size=38)
    for name, steps in (('one', 10_000), ('two', 8000)):
        common.photo_recipe(c.stages[name], steps)
        c.stages[name].model.update(wrong='text', nc=64, d_norm='layer')
    c.stages.one.model.update(gf=48, df=48, third_activation=True, unit_text=True)
    c.stages.two.model.update(gf=48, df=48, ratio=2, blocks=2)


def tiny(c):
    common.tiny(c)
    # Stage-I draws 16 px
    c.data.size, c.stages.two.model.ratio = 32, 2
