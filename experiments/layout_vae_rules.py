from experiments import common


def get_config(arg=''):
    c = common.base('layout_vae', data=common.rules())
    adam = dict(elbo=dict(lr=1e-3, b1=.9, schedule=dict(kind='cosine', floor=.1)))
    often = dict(batch_size=128, sample_every=0, validate_every=1000, validate_batches=0, checkpoint_every=1000)
    c.stages.count = dict(steps=5000, optim=adam, **often)
    c.stages.box = dict(steps=20_000, optim=adam, **often)
    return common.variant(c, arg, categorical=categorical, no_history=no_history, no_latent=no_latent)


def categorical(c):
    c.stages.count.model.count_head = 'categorical'


def no_history(c):
    for name in ('count', 'box'):
        c.stages[name].model.history = False


def no_latent(c):
    for name in ('count', 'box'):
        c.stages[name].model.latent = False
