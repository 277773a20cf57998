"""GAN-CLS on shape_scenes/single, 64 px (Reed et al., ICML 2016).

    t2i_jax --config=gan_cls_shapes:quick --workdir=runs/quick

Hardware: `:quick` 9 minutes of two CPU cores, `:laptop` 30 of one for 6,000 of 10,000 steps
(docs/results.md); else a GPU.
Variants: `:quick`, 32 px and narrow networks, the first run of a newcomer, by a recipe of later
papers (see `recipe`); `:recipe`, the same at 64 px on the whole data set; `:paper`, as `:quick` by
the paper's losses; `:laptop`, as `:paper` at 64 px; `:style`, as `:paper` with little noise, and
the style encoder; `:tiny`, seconds, for tests.

Expected: docs/results.md. Of the paper's 100 numbers of noise a style encoder reads little off such
pictures, of the four of `:style` all.
Deviations from the paper's settings for birds and flowers: pictures are neither cropped nor
mirrored (the captions say left and large); one caption a row instead of the mean of four.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base('gan_cls', data=common.shapes('single'))
    c.stages.text = dict(
        # ours
        steps=6000,
        # 30 training classes; the paper has batches of 40 of 82 to 150
        batch_size=30,
        sampler='distinct_classes',
        model=dict(encoder=dict(variant='icml_flowers')),
        # official code
        optim=dict(joint_loss=dict(name='rmsprop', lr=7e-4)),
    )
    # paper
    adam = dict(lr=2e-4, b1=0.5)
    c.stages.gan = dict(
        # paper
        epochs=600,
        batch_size=64,
        optim=dict(d_loss=adam, g_loss=adam),
        # ours
        ema=0.999,
    )
    # ours: nothing of it was published
    cosine = dict(kind='cosine', floor=0.02)
    c.stages.style = dict(
        steps=20_000,
        batch_size=64,
        validate_batches=16,
        optim=dict(style_loss=dict(lr=1e-3, b1=0.9, schedule=cosine)),
    )
    variants = dict(quick=quick, recipe=recipe, paper=paper, style=style, laptop=laptop)
    return common.variant(c, arg, **variants)


def small(c):
    """All numbers ours, chosen for a few minutes of CPU cores.

    Not in the paper: sentence vectors of unit length (`unit_text`), a D that normalises each
    picture alone (`d_norm`), and wrong pictures that differ from the sentence by little
    (`near_wrong`).
    """
    text = dict(variant='icml_birds', channels=(96, 128), hidden=128, embedding=128)
    c.stages.text.update(steps=5000, validate_every=1000, checkpoint_every=1000)
    c.stages.text.model.update(encoder=text, image_channels=(48, 96, 128), image_flat=True)
    c.stages.text.optim.joint_loss.update(name='adam', lr=2.5e-3)
    c.stages.text.optim.joint_loss.schedule.update(kind='cosine', floor=0.02)
    gan = c.stages.gan
    gan.update(epochs=0, batch_size=32, near_wrong=0.5, ema=0.99, ema_warmup=True)
    gan.update(sample_every=1000, validate_every=0, checkpoint_every=1000)
    gan.model.update(ngf=32, ndf=32, nt=64, third_activation=True, unit_text=True, d_norm='layer')
    for phase in ('d_loss', 'g_loss'):
        gan.optim[phase].update(lr=1e-3, b1=0.0, b2=0.99)
        gan.optim[phase].schedule.update(kind='cosine', floor=0.02)
    # of 100 numbers of noise hardly any can be read off a picture: see `style`
    c.stages.style.steps = 0


def recipe(c):
    """What later papers do, in the same network. All numbers ours.

    Sentences are sums of word vectors, trained by whole captions and whitened: recurrent encoders
    learn the captions of training as wholes. For the game see `common.recipe`. G's norms are scaled
    by the sentence, and it has a hidden map of full size.
    """
    text, gan = c.stages.text, c.stages.gan
    text.update(steps=1500, batch_size=32, sampler='uniform', near_wrong=0.5)
    text.update(validate_every=500, checkpoint_every=500)
    text.data.update(size=32)
    text.model.update(text='words', loss='contrast', whiten=True, leave_out='entailment')
    text.model.update(image_channels=(48, 96, 128), image_flat=True)
    text.model.encoder.update(variant='icml_birds', embedding=128)
    text.optim.joint_loss.update(name='adam', lr=2.5e-3)
    text.optim.joint_loss.schedule.update(kind='cosine', floor=0.02)
    common.recipe(gan, steps=8000)
    # with half the wrong sentences close, one seed of two mistook a class of unseen pairs
    gan.near_wrong = 0.9
    gan.model.update(ngf=32, ndf=32, nt=64, third_activation=True, unit_text=True, d_norm='layer')
    gan.model.update(wrong='text', g_norm='modulated', fine=True)
    # of 100 numbers of noise hardly any can be read off a picture: see `style`
    c.stages.style.steps = 0


def quick(c):
    recipe(c)
    c.data.name, c.data.size = 'shape_scenes/single_quick', 32
    c.eval.update(every=1000, every_num=100)


def paper(c):
    small(c)
    c.data.name, c.data.size = 'shape_scenes/single_quick', 32
    c.stages.gan.steps = 7500


def style(c):
    """`paper`, and the style encoder.

    z has about as many dimensions as a scene leaves open (place, size, ground), so that they can be
    read off it, and the sentence not many more, so that G uses z as well: with nt=64 it draws the
    same picture for every z.
    """
    paper(c)
    c.stages.gan.steps = 3500
    c.stages.gan.model.update(nz=4, nt=8)
    c.stages.style.update(steps=4000)
    c.stages.style.model.ndf = 32


def laptop(c):
    small(c)
    # 2 x 2 pixels become one: classes are as plain, and a step is four times as fast
    c.stages.text.data.update(size=32)
    c.stages.gan.update(steps=10_000, ema=0.995)
