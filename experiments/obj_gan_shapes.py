"""Obj-GAN on shape_scenes/multi, pictures of 32 and 64 px (Li et al., CVPR 2019).

    t2i_jax --config=obj_gan_shapes --workdir=runs/obj_gan
    t2i_jax --workdir=runs/obj_gan --mode=sample --text="a red circle to the left of a blue square"
    t2i_jax --workdir=runs/obj_gan --mode=explore --what=layout
    t2i_jax --workdir=runs/obj_gan --mode=evaluate [--stage=box] [--stage=shape]

Hardware: CPU cores, for narrow networks.
The DAMSM is that of damsm_shapes:multi; one that is trained can be shared,
--config.init.damsm=<run>.
Variants: `:recipe`, by what later papers do (see attngan_shapes); `:tiny`, seconds, for tests.
Ablations: --config.stages.image.model.attention=uniform (objects read the mean of all words),
--config.stages.image.model.object_weight=0 (no discriminators of objects in G's loss).

Deviations: labels are never colours here, so that colours reach an object by its words alone; words
and labels are compared by the DAMSM's embeddings, by ten times their cosine (without a factor it
would differ too little); phi is the DAMSM's picture encoder; D normalises each picture alone, and
whether a patch matches weighs as much as whether it is real. Two objects of one class get one
colour. All boxes here are square, and this system knows a box by its width and its height / width:
the likelihood of boxes is far above that of systems that know both sides, and says nothing about
which is better (`nll_per_box_by_ratio`). It would also drown the labels, which therefore weigh 8
times as much.
"""

from t2i_jax.experiments import common, damsm_shapes


def get_config(arg=''):
    """All numbers ours but the weights of losses."""
    c = common.base('obj_gan', data=common.shapes('multi'))
    c.stages.damsm = common.stage_of(damsm_shapes, 'damsm', 'multi')
    cosine = dict(kind='cosine', floor=0.02)
    c.stages.box = dict(
        steps=8000,
        batch_size=64,
        keep='best:box_loss',
        model=dict(label_weight=8.0, label_power=0.0, class_limit=False, label_temperature=1.0),
        optim=dict(box_loss=dict(lr=2e-3, clip=5.0, schedule=cosine)),
        **common.every(1000),
    )
    adam = dict(lr=1e-3, b1=0.0, b2=0.99, schedule=cosine)
    c.stages.shape = dict(
        steps=1500,
        batch_size=16,
        model=dict(width=8, widths=(16, 32, 64, 64), features='text'),
        optim=dict(d_loss=adam, g_loss=adam),
        ema=0.99,
        ema_warmup=True,
        **common.every(500),
    )
    looks = dict(vectors='damsm', attention='cosine', attention_scale=10.0)
    narrow = dict(scales=2, g=12, d=12, nz=32, nc=32, first_residuals=1, residuals=0, zoom=1)
    matching = dict(damsm_weight=1.0, gamma1=4.0, leave_out='entailment', wrong='sampled')
    weights = dict(match_weight=1.0, object_weight=1.0)
    c.stages.image = dict(
        steps=2500,
        batch_size=32,
        near_wrong=0.5,
        ema=0.995,
        ema_warmup=True,
        data=dict(scales=(32,)),
        model=dict(**looks, **narrow, **matching, **weights, unit_text=True, d_norm='layer'),
        optim=dict(d_loss=adam, g_loss=adam),
        **common.every(1000),
    )
    return common.variant(c, arg, recipe=recipe)


def recipe(c):
    """As `attngan_shapes.recipe`, but words are an LSTM's; all numbers ours.

    The colour of an object stands at the word for its class only if that word knows its neighbours.
    A step draws 16 pictures, of three objects each in the mean, without residual blocks; a third of
    it is D's look at objects.
    """
    common.recipe(c.stages.image, steps=3600)
    c.stages.image.update(near_wrong=0.9, batch_size=16)
    c.stages.image.model.update(kl_weight=0.5, damsm_weight=0.2, first_residuals=0)
