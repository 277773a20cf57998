"""ControlGAN on MS-COCO 2014, pictures of 64, 128 and 256 px (Li et al., NeurIPS 2019).

    t2i_jax --config=mca_gan_coco --workdir=runs/control [--config.data.manual_dir=<folder>]

What the folder lacks is fetched (20 GB); see tfds_builders/coco2014_captions/README.md. The DAMSM
is that of attngan_coco; that of a run of it can be shared: --config.init.damsm=runs/attngan. The
perceptual loss reads VGG16: see mca_gan_birds.
Hardware: a GPU; not trained here at full size.
Variants: `:official`, what the released code does; `:tiny`, seconds, for tests.

Expected: Inception Score 24.06 +- .60, R-precision 82.43 +- 2.43 %, squared difference after a
change of words .17 (paper, from memory); no weights were released.
Deviations: those of systems/mca_gan.py and of attngan_coco.
"""

from t2i_jax.experiments import attngan_coco, common, mca_gan_birds


def get_config(arg=''):
    data = common.coco(size=256, load_size=304, resize='keep', flip=True)
    c = common.base('mca_gan', data=data)
    for name in ('damsm', 'gan'):
        c.stages[name] = common.stage_of(attngan_coco, name)
    # official code
    c.stages.gan.update(epochs=120, batch_size=8)
    # lambda 4: official code, paper 5; the weights of the other terms: paper
    c.stages.gan.model.update(damsm_weight=50.0)
    c.stages.gan.model.update(d_word_weight=0.5, g_word_weight=1.0, perceptual_weight=1.0)
    return common.variant(c, arg, official=mca_gan_birds.official)
