"""GAN-CLS on your own captioned pictures, 64 px (Reed et al., ICML 2016).

    t2i_jax --config=gan_cls_folder --workdir=runs/mine --config.data.manual_dir=<folder>

tfds_builders/caption_folder/README.md says what a folder looks like. --config.data.flip=False where
captions say left or right. The networks are those of COCO, which needs no classes, at the widths of
the flowers; lengths are in steps, so that 50 pictures are trained on as long as 5,000.
Hardware: a GPU; `:laptop` CPU cores. Not trained here.
Variants: `:laptop`, narrower networks; `:tiny`, seconds, to see that the folder is read.

Expected: of a few hundred pictures a GAN learns the pictures themselves, more than what their
captions have in common; from a thousand on it begins to draw new ones.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    """All numbers ours but those of gan_cls_coco."""
    c = common.base('gan_cls', data=common.folder(size=64, load_size=76, flip=True))
    c.stages.text = dict(
        steps=4000,
        batch_size=64,
        model=dict(encoder=dict(variant='icml_birds')),
        optim=dict(joint_loss=dict(lr=2e-4, b1=0.5)),
        sample_every=0,
    )
    # official code, but for the number of updates
    halving = dict(kind='step', factor=0.5, every=5000, unit='updates')
    adam = dict(lr=2e-4, b1=0.5, schedule=halving)
    c.stages.gan = dict(
        steps=20_000,
        batch_size=64,
        ema=0.999,
        ema_warmup=True,
        optim=dict(d_loss=adam, g_loss=adam),
    )
    return common.variant(c, arg, laptop=laptop)


def laptop(c):
    """All numbers ours, close to those of gan_cls_flowers:laptop."""
    text, gan = c.stages.text, c.stages.gan
    encoder = dict(variant='icml_birds', channels=(96, 128), hidden=128, embedding=128)
    text.update(steps=2000, batch_size=32)
    text.model.update(encoder=encoder, image_channels=(32, 64, 96, 128))
    text.optim.joint_loss.update(lr=1e-3)
    text.optim.joint_loss.schedule.update(kind='cosine', floor=0.05)
    gan.update(steps=10_000, batch_size=32)
    gan.model.update(ngf=32, ndf=32, nt=64, third_activation=True, unit_text=True, d_norm='layer')
    common.laptop_rates(gan)
