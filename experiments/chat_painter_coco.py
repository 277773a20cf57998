"""ChatPainter on MS-COCO 2014 with VisDial: 64 px, then 256 px (Sharma et al., 2018).

    t2i_jax --config=chat_painter_coco --workdir=runs/chat --config.data.manual_dir=<folder>
    t2i_jax --workdir=runs/chat --mode=sample --text="a dog on a beach" --dialog=mine.txt

The folder holds VisDial's dialogues (tfds_builders/coco2014_captions/README.md); all else is
fetched (20 GB) where it lacks it. Stage-I of another run with its encoders:
--config.init.text=<run> --config.init.turns=<run> --config.init.one=<run>.
Hardware: a GPU; not trained here at full size.
Variants: `:joined`, the dialogue as one string; `:captions`, without dialogues, which is StackGAN;
`:tiny`, seconds, for tests.

Deviations: those of systems/chat_painter.py; sentences have 512 numbers instead of 4,800; pictures
are never mirrored, since dialogues say left and right.
"""

from t2i_jax.experiments import common, stackgan_coco


def get_config(arg=''):
    data = common.coco(name='coco2014_captions/dialogs', size=256, load_size=304)
    c = common.base('chat_painter', data=data)
    c.stages.text = common.stage_of(stackgan_coco, 'text')
    # ours
    c.stages.turns = dict(
        epochs=5,
        batch_size=128,
        model=dict(embedding=128, width=256),
        optim=dict(skip_loss=dict(lr=1e-3, clip=10.0)),
        data=dict(size=64, load_size=76),
    )
    for name in ('one', 'two'):
        # StackGAN's official code for COCO
        c.stages[name] = common.stage_of(stackgan_coco, name)
        c.stages[name].model = dict(gf=192, df=96)
        # ours: rounds that are left out, so that a dialogue may be short
        c.stages[name].model.update(turn_dropout=0.1, truncated=0.25)
    c.stages.two.model.blocks = 2
    adam = c.stages.one.optim.d_loss.to_dict()
    # clip: ours
    c.stages.one.optim.g_loss = adam | dict(dialog=adam | dict(clip=5.0))
    return common.variant(c, arg, joined=joined, captions=captions, tiny=tiny)


def joined(c):
    c.stages.one.model.dialog = 'joined'


def captions(c):
    c.stages.turns.epochs = 0
    c.stages.one.model.dialog = 'none'


def tiny(c):
    common.tiny(c)
    # Stage-I draws 16 px
    c.data.size, c.stages.two.model.ratio = 32, 2
