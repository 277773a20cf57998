"""LayoutVAE on the things of MS-COCO 2014 (Jyothi et al., ICCV 2019).

    t2i_jax --config=layout_vae_coco --workdir=runs/layouts [--config.data.manual_dir=<folder>]
    t2i_jax --workdir=runs/layouts --mode=sample --labels="person, dog, frisbee"

What the folder lacks is fetched (20 GB); see tfds_builders/coco2014_captions/README.md. On a part
of COCO, give it a folder of its own, --config.data.dir=<folder>, so that it is not taken for all of
it later. Pictures are not read.
Hardware: not trained here at full size.
Variants: `:categorical`, classes 1 to 20 instead of a Poisson for the counts; `:tiny`, seconds, for
tests.

Expected: the paper's numbers, from memory and of low confidence: NLL of a count about 0.56 nats.
Deviations: 80 labels of things of COCO 2014 and at most ten objects of a picture; the paper has
COCO 2017's 80 things and 53 stuffs, all of them. So numbers cannot be compared with the paper's.
Boxes thinner than 1 % of the picture are left out.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base('layout_vae', data=common.coco())
    # b1: re-implementations; lr: ours (theirs 1e-5 to 1e-4)
    adam = dict(lr=1e-3, b1=0.9, schedule=dict(kind='cosine', floor=0.1))
    # ours
    often = dict(sample_every=2000, validate_every=1000, checkpoint_every=1000, keep='best:elbo')
    both = dict(batch_size=128, steps_per_dispatch=10, optim=dict(elbo=adam), **often)
    # ours
    c.stages.count = dict(epochs=25, **both)
    # epochs: re-implementation; warmup: ours, a fifth of the steps
    c.stages.box = dict(epochs=50, model=dict(warmup=6000), **both)
    return common.variant(c, arg, categorical=categorical)


def categorical(c):
    c.stages.count.model.count_head = 'categorical'
