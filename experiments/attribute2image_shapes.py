"""Attribute2Image on shape_scenes/single, 32 px (Yan, Yang, Sohn, Lee, ECCV 2016).

    t2i_jax --config=attribute2image_shapes --workdir=runs/a2i
    t2i_jax --workdir=runs/a2i --mode=sample --text="a large red ring on the left"
    t2i_jax --workdir=runs/a2i --mode=explore --what=attributes

The vector has 22 bits (class, colour, size, place); the backgrounds are not described by it.
Hardware: a CPU core; 5,000 steps of .12 s on two (benchmarks/results/step.md).
Variants: `:cvae`, one latent instead of two layers; `:legacy`, the composition of the authors'
code; `:tiny`, seconds, for tests.

Reached (`--mode=evaluate`, 1,000 vectors of a split; one seed), pictures drawn from the prior, read
by ShapeNet-cls, in brackets real pictures:

    split        class        colour       place         PSNR of          IoU of gate
                                           within 1 px   reconstructions  and 1 - mask
    test         .957 (.973)  .978 (.986)  .901 (.913)   23.5 dB          .979
    test_unseen  .919 (.964)  .892 (.980)  .900 (.867)   22.0 dB          .974

The pairs of class and colour of test_unseen are in no training picture. Completed from its left
half (`--mode=explore --what=completion --num=48`) a picture's error is 1.17 times that of its
reconstruction, on the covered half 1.38 times. White backgrounds come out at .95 of [-1, 1], with
`:legacy`, 2,000 steps, at .21. Error on objects .074 against .211 of `:cvae`. Stripes and noise
behind objects are not drawn, only their mean.

Deviations: about a quarter of the paper's widths, and rates of ours; pictures are not changed in
training (attributes name colours and places). The KL terms weigh 3 from the first step: sums over
32 x 32 pixels are a quarter of those over 64 x 64, and with a weight that starts at 0 the latents
take size and place before the attributes do (place right for .31 to .49 instead of .87 by the
analytic reader).
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    """All numbers ours."""
    c = common.base('attribute2image', data=common.shapes('single_32', size=32))
    c.stages.vae = dict(
        steps=5000,
        batch_size=64,
        ema=0.999,
        model=dict(width=16, nz=64, nz_b=32, kl_weight=3.0, gain=0.0, sharpness=0.0),
        optim=dict(loss=dict(lr=1e-3, schedule=dict(kind='cosine', floor=0.02))),
        **common.every(500),
    )
    return common.variant(c, arg, cvae=cvae, legacy=legacy)


def cvae(c):
    c.stages.vae.model.layered = False


def legacy(c):
    c.stages.vae.model.compose = 'legacy'
