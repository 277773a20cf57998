"""Attribute2Image's disCVAE on CUB-200-2011, 64 px (Yan, Yang, Sohn, Lee, ECCV 2016).

    t2i_jax --config=attribute2image_birds --workdir=runs/a2i --config.data.manual_dir=<archives>

312 attributes, cropped around the bird, foreground masks (tfds_builders/cub200_captions/README.md
says which archives hold them).
Hardware: the authors trained 3 hours on a Titan X; not trained here at full size.
Variant: `:tiny`, seconds, for tests.

Expected: blurred birds of the right colours before a blurred background, and the same bird before
others (`--mode=explore --what=layers`).
Deviations besides those of the system: the crop is the square around the box
(t2i_jax/data/canvas.py); training on 150 of the 200 classes, so that evaluation sees birds of
others; the validation part is the papers' test part instead of every tenth picture.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    # code: 72 of 80 px
    data = common.birds(name='cub200_captions/masks', size=64, load_size=72, flip=True)
    c = common.base('attribute2image', data=data)
    c.stages.vae = dict(
        # code
        epochs=160,
        batch_size=32,
        # code; standardise: ours
        model=dict(nz=128, nz_b=128, rotation=0.08, standardise=True),
        # code
        optim=dict(loss=dict(lr=3e-4)),
        # ours
        ema=0.999,
    )
    return common.variant(c, arg)
