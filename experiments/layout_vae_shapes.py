"""LayoutVAE on shape_scenes/multi: 1 to 5 objects of 6 labels (Jyothi, ICCV 2019).

    t2i_jax --config=layout_vae_shapes --workdir=runs/layouts
    t2i_jax --workdir=runs/layouts --mode=sample --labels="circle, ring"

Hardware: a CPU core.
Variants: `:categorical`, classes 1 to 20 instead of a Poisson; `:tiny`, seconds, for tests.

Expected: objects of these scenes are placed uniformly without overlap, so that the set of labels
says little about their places and much about their number.
Deviations: those of layout_vae_rules.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    """b1: re-implementations; all other numbers ours, as in layout_vae_rules."""
    c = common.base('layout_vae', data=common.shapes('multi'))
    often = dict(sample_every=2000, validate_every=500, checkpoint_every=500, keep='best:elbo')
    both = dict(batch_size=128, steps_per_dispatch=10, validate_batches=0, **often)
    count = dict(lr=1e-3, b1=0.9, schedule=dict(kind='cosine', floor=0.1))
    c.stages.count = dict(steps=3000, optim=dict(elbo=count), **both)
    box = dict(lr=3e-3, b1=0.9, schedule=dict(kind='cosine', floor=0.01))
    c.stages.box = dict(steps=10_000, model=dict(warmup=2000), optim=dict(elbo=box), **both)
    return common.variant(c, arg, categorical=categorical)


def categorical(c):
    c.stages.count.model.count_head = 'categorical'
