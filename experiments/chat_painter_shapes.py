"""ChatPainter on shape_scenes/multi_brief: 32 px, then 64 px (Sharma et al., 2018).

    t2i_jax --config=chat_painter_shapes --workdir=runs/chat
    t2i_jax --workdir=runs/chat --mode=sample --text="a ring and a square" --dialog=mine.txt
    t2i_jax --workdir=runs/chat --mode=explore --what=rounds --text="a ring" --dialog=mine.txt

One to five objects; captions say how many and of which classes, dialogues the colours, sizes and
places.
Hardware: a CPU core, for narrow networks.
Variants: `:recipe`, by what later papers do (see gan_cls_shapes), with sums of word vectors for the
rounds, an encoder of dialogues that D trains as well, and wrong dialogues beside right captions;
`:joined`, the dialogue as one string; `:captions`, without dialogues; `:tiny`, seconds, for tests.
Both at once: --config=chat_painter_shapes:recipe --config.stages.one.model.dialog=joined.

Deviations from the paper's settings for COCO: narrow networks, a larger rate; the sentence encoder
is that of gan_cls_shapes:recipe.
"""

from t2i_jax.experiments import common, gan_cls_shapes


def get_config(arg=''):
    """All numbers ours."""
    c = common.base('chat_painter', data=common.shapes('multi_brief', size=64))
    cosine = dict(kind='cosine', floor=0.02)
    adam = dict(lr=1e-3, b1=0.0, b2=0.99, schedule=cosine)
    c.stages.text = common.stage_of(gan_cls_shapes, 'text', 'recipe')
    c.stages.turns = dict(
        steps=2000,
        batch_size=128,
        data=dict(size=32),
        model=dict(embedding=64, width=64),
        optim=dict(skip_loss=dict(lr=2e-3, clip=10.0, schedule=cosine)),
    )
    both = dict(
        batch_size=32,
        ema=0.99,
        validate_every=0,
    )
    # how much is left out, as in chat_painter_coco
    narrow = dict(gf=32, df=32, nc=64, d_norm='layer', turn_dropout=0.1, truncated=0.25)
    c.stages.one = dict(
        steps=7500,
        data=dict(size=32),
        model=dict(unit_text=True, width=64, **narrow),
        optim=dict(d_loss=adam, g_loss=adam | dict(dialog=adam | dict(clip=5.0))),
        **both,
    )
    c.stages.two = dict(
        steps=5000,
        model=dict(ratio=2, blocks=2, **narrow),
        optim=dict(d_loss=adam, g_loss=adam),
        **both,
    )
    variants = dict(recipe=recipe, joined=joined, captions=captions, tiny=tiny)
    return common.variant(c, arg, **variants)


def recipe(c):
    """As `gan_cls_shapes.recipe`, where the networks allow it."""
    c.stages.turns.model.update(kind='words', width=64)
    for name, steps in (('one', 5000), ('two', 4000)):
        stage = c.stages[name]
        common.recipe(stage, steps)
        stage.model.update(wrong='dialog', d_condition='embedding')
    c.stages.one.model.d_trains_dialog = True


def joined(c):
    c.stages.one.model.dialog = 'joined'


def captions(c):
    c.stages.turns.steps = 0
    c.stages.one.model.dialog = 'none'


def tiny(c):
    common.tiny(c)
    # its few channels are those of a char-CNN-RNN
    c.stages.text.model.update(text='chars', whiten=False)
    # Stage-I draws 16 px
    c.data.size, c.stages.two.model.ratio = 32, 2
