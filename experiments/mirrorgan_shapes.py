"""MirrorGAN on shape_scenes, pictures of 16, 32 and 64 px (Qiao et al., CVPR 2019).

    # pictures of one object, then of one to five
    t2i_jax --config=mirrorgan_shapes --workdir=runs/mirrorgan
    t2i_jax --config=mirrorgan_shapes:multi --workdir=runs/mirrorgan_multi
    t2i_jax --workdir=runs/mirrorgan --mode=sample --stage=stream --image=FILE    # a caption
    t2i_jax --workdir=runs/mirrorgan --mode=evaluate --stage=stream               # BLEU, ...

Hardware: a CPU core, for narrow networks.
The DAMSM is that of damsm_shapes; one that is trained can be shared: --config.init.damsm=<run>, and
so can STREAM: --config.init.stream=<run>. STREAM alone: --config.stages.gan.steps=0.
Variants: `:multi`; `:recipe`, by what later papers do (see attngan_shapes); `:tiny` and
`:multi_tiny`, seconds, for tests. Ablations:
--config.stages.gan.model.lambda_stream=0 (with --config.stages.stream.steps=0 it is not trained
either), --config.stages.gan.model.sentence_attention=False; both, and damsm_weight=1, are
attngan_shapes.

Deviations from the paper's settings for birds: those of attngan_shapes; STREAM has a small image
network, which is trained with it, and learns where captions end.
"""

from t2i_jax.experiments import attngan_shapes, common, damsm_shapes


def get_config(arg=''):
    """All numbers ours: those of attngan_shapes; lambda_stream: paper."""
    c = common.base('mirrorgan', data=common.shapes('single'))
    c.stages.damsm = common.stage_of(damsm_shapes, 'damsm')
    small = dict(trunk='small', channels=(32, 64, 128, 128), places=True)
    c.stages.stream = dict(
        steps=2500,
        batch_size=48,
        sample_every=500,
        validate_every=500,
        model=dict(d=64, hidden=128, end=True, **small),
        optim=dict(loss=dict(lr=2e-3, b1=0.9, schedule=dict(kind='cosine', floor=0.02))),
    )
    c.stages.gan = common.stage_of(attngan_shapes, 'gan')
    c.stages.gan.model.update(lambda_stream=20.0, damsm_weight=0.0)
    return common.variant(c, arg, multi=multi, recipe=recipe, multi_tiny=multi_tiny)


def multi(c):
    c.data.name = 'shape_scenes/multi'
    c.stages.damsm = common.stage_of(damsm_shapes, 'damsm', 'multi')
    c.stages.stream.steps = 5000


def recipe(c):
    """As `attngan_shapes.recipe`, without the DAMSM's term: STREAM reads the pictures."""
    attngan_shapes.recipe(c)
    c.stages.gan.model.damsm_weight = 0.0


def multi_tiny(c):
    multi(c)
    common.tiny(c)
