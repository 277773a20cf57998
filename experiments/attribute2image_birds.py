"""Attribute2Image's disCVAE on CUB-200-2011, 64 px (Yan, Yang, Sohn, Lee, ECCV 2016).

    python -m t2i_jax.main --config=experiments/attribute2image_birds.py --workdir=runs/attribute2image_birds --config.data.manual_dir=<archives>

312 attributes, cropped around the bird, foreground masks (tfds_builders/cub200_captions/README.md says which archives hold them). The
authors trained 3 hours on a Titan X. Variant `:tiny`, seconds, for tests. Expect blurred birds of the right colours before a blurred
background, and the same bird before others (`--mode=explore --what=layers`).

Deviations beside those of the system: the crop is the square around the box (t2i_jax/data/canvas.py); training on 150 of the 200
classes, so that evaluation sees birds of others; the validation part is the papers' test part instead of every tenth picture.
"""

from t2i_jax.experiments import common


def get_config(arg=''):
    c = common.base(
        'attribute2image',
        data=common.birds(name='cub200_captions/masks', size=64, load_size=72, flip=True),
    )  # code: 72 of 80 px
    c.stages.vae = dict(
        epochs=160,
        batch_size=32,
        ema=0.999,  # code; ema: ours
        model=dict(nz=128, nz_b=128, rotation=0.08, standardise=True),  # code; standardise: ours
        optim=dict(loss=dict(lr=3e-4)),  # code
    )
    return common.variant(c, arg)
