"""LeicaGAN on shape_scenes, pictures of 16, 32 and 64 px (Qiao et al., NeurIPS 2019).

    t2i_jax --config=leica_gan_shapes --workdir=runs/leica
    t2i_jax --workdir=runs/leica --mode=evaluate --stage=image    # which words the priors know
    t2i_jax --workdir=runs/leica --mode=evaluate --stage=mask
    t2i_jax --workdir=runs/leica --mode=explore --what=prior_swap

Hardware: a CPU core, for narrow networks.
Encoders that are trained can be shared: --config.init.image=<run> --config.init.mask=<run>.
Variants: `:recipe`, by what later papers do (see attngan_shapes); `:tiny`, seconds, for tests.
Ablations: --config.stages.gan.model.phi=0; one prior, --config.stages.gan.model.shape_prior=image
(with --config.stages.mask.steps=0 the other is not trained either).

Deviations from the paper's settings for birds: those of attngan_shapes and, for the encoders,
damsm_shapes. The modality's classifier reads vectors of unit length: by their lengths it told
nearly all vectors of the text-mask encoder apart, whatever its weight; without them half of those
of training and 72 of 100 held-out ones (32 px, 400 steps). No class loss: the classes are pairs of
shape and colour, and the text-mask encoder would learn colours, which no mask shows.
"""

from t2i_jax.experiments import attngan_shapes, common, damsm_shapes


def get_config(arg=''):
    """All numbers ours; phi, triplet_weight: paper."""
    c = common.base('leica_gan', data=common.shapes('single'))
    for name in ('image', 'mask'):
        c.stages[name] = common.stage_of(damsm_shapes, 'damsm')
        c.stages[name].model.update(modality_weight=1.0, unit_modality=True)
        c.stages[name].model.update(class_weight=0.0, warmup=300)
    c.stages.image.model.triplet_weight = 1.0
    c.stages.gan = common.stage_of(attngan_shapes, 'gan')
    c.stages.gan.model.phi = 0.2
    return common.variant(c, arg, recipe=recipe)


def recipe(c):
    """As `attngan_shapes.recipe`."""
    for name in ('image', 'mask'):
        c.stages[name].model.text = 'words'
    attngan_shapes.drawing_recipe(c.stages.gan)
