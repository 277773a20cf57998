from experiments import common


def get_config(arg=''):
    c = common.base('layout_vae', data=common.rules())
    often = dict(batch_size=128, sample_every=5000, validate_every=1000, validate_batches=0, checkpoint_every=1000)
    c.stages.count = dict(
        steps=5000, optim=dict(elbo=dict(lr=1e-3, b1=.9, schedule=dict(kind='cosine', floor=.1))), **often)
    c.stages.box = dict(
        steps=30_000, model=dict(warmup=5000), optim=dict(elbo=dict(lr=3e-3, b1=.9, schedule=dict(kind='cosine', floor=.01))), **often)
    return common.variant(c, arg, categorical=categorical, no_history=no_history, no_latent=no_latent)


def categorical(c):
    c.stages.count.model.count_head = 'categorical'


def no_history(c):
    c.stages.count.model.update(history=False, count_head='categorical')
    c.stages.box.model.history = False


def no_latent(c):
    c.stages.count.model.update(latent=False, count_head='categorical')
    c.stages.box.model.latent = False
