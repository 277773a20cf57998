"""LayoutVAE on the scenes of shape_scenes/multi: one to five objects of six labels (Jyothi et al., ICCV 2019, on the embedded data set).

    python -m t2i_jax.main --config=experiments/layout_vae_shapes.py --workdir=runs/layout_vae_shapes
    python -m t2i_jax.main --workdir=runs/layout_vae_shapes --mode=sample --labels="circle, ring"

Variants: `:categorical`, classes 1 to 20 instead of a Poisson; `:tiny`, seconds, for tests.
Objects of these scenes are placed uniformly without overlap, so that the set of labels says little about their places and much about their number.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base('layout_vae', data=common.shapes('multi'))
    # b1 of re-implementations; all other numbers ours, as in layout_vae_rules
    often = dict(
        batch_size=128,
        steps_per_dispatch=10,
        sample_every=2000,
        validate_every=500,
        validate_batches=0,
        checkpoint_every=500,
        keep='best:elbo',
    )
    c.stages.count = dict(
        steps=3000,
        optim=dict(elbo=dict(lr=1e-3, b1=0.9, schedule=dict(kind='cosine', floor=0.1))),
        **often,
    )
    c.stages.box = dict(
        steps=10_000,
        model=dict(warmup=2000),
        optim=dict(elbo=dict(lr=3e-3, b1=0.9, schedule=dict(kind='cosine', floor=0.01))),
        **often,
    )
    return common.variant(c, arg, categorical=categorical)


def categorical(c):
    c.stages.count.model.count_head = 'categorical'
