"""The sentence encoder of GAN-CLS and its kin on shape_scenes/single (Reed et al., CVPR 2016).

    t2i_jax --config=joint_embedding_shapes:recipe --workdir=runs/text
    t2i_jax --workdir=runs/text --mode=evaluate     # what can be read from its sentence vectors

Other runs take it by --config.init.text=runs/text. Hardware: a CPU core.
Variants: `:recipe`, sums of word vectors, trained by whole captions and whitened (see
gan_cls_shapes.recipe); `:tiny`, seconds, for tests.

Deviations from the paper: those of systems/joint_embedding.py.
"""

from t2i_jax.experiments import common, gan_cls_shapes


def get_config(arg=''):
    """All numbers ours, those of gan_cls_shapes:paper."""
    c = common.base('joint_embedding', data=common.shapes('single'))
    c.stages.text = common.stage_of(gan_cls_shapes, 'text', 'paper')
    c.stages.text.data.size = 32
    return common.variant(c, arg, recipe=recipe)


def recipe(c):
    c.stages.text = common.stage_of(gan_cls_shapes, 'text', 'recipe')
