# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     cell_metadata_filter: nbmake,-all
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A sentence in, pictures out
#
# A text-to-image GAN on two CPU cores: draw with a model that comes with the package, then train one of your own in
# about two minutes and look at what it has learnt. The data are drawn on the spot; nothing is downloaded but packages.

# %%
import importlib.util

from IPython import get_ipython

if importlib.util.find_spec('t2i_jax') is None:
    get_ipython().run_line_magic('pip', 'install --quiet t2i_jax')

# %%
import PIL.Image
from IPython.display import display
from matplotlib import pyplot

from t2i_jax import Run, Sampler, config, explore, train

# %% [markdown]
# ## A model that is there
#
# Each row is a sentence, each column the same noise.

# %%
sampler = Sampler.load('example:shapes')
sampler(['a large red ring', 'a small blue square', 'a green cross on the left'], num=6)

# %% [markdown]
# ## Train one
#
# GAN-CLS (Reed et al., 2016) in two stages: `text` learns what sentences say about pictures, `gan` draws from it.
# A few steps of each, for two minutes; the experiment itself has 1,500 and 8,000 and takes nine.

# %% nbmake={"mock": {"STEPS": {"stages.text.steps": "2", "stages.gan.steps": "4", "data.size": "16", "stages.text.data.size": "16", "stages.text.model.image_channels": "(4, 8)", "stages.gan.model.ngf": "8", "stages.gan.model.ndf": "8", "stages.gan.batch_size": "8", "stages.text.validate_every": "0"}}}
EXPERIMENT = 'gan_cls_shapes:quick'
STEPS = {'stages.text.steps': '500', 'stages.gan.steps': '1200', 'stages.gan.sample_every': '200'}

# %%
run = Run.create(config.load(EXPERIMENT, {**STEPS, 'eval.every': '0'}), 'runs/quickstart')
grid = display(display_id=True)


def on_samples(stage, step, picture):
    grid.update(PIL.Image.fromarray(picture))


train(run, on_samples=on_samples)

# %% [markdown]
# The grid shows held-out sentences, the picture that belongs to each, and what the run draws. What was logged:

# %%
metrics = run.metrics('gan')
for name in ('train/d_loss', 'train/g_loss'):
    pyplot.plot(metrics['step'], metrics[name], label=name)
pyplot.xlabel('step')
pyplot.legend()
pyplot.show()

# %% [markdown]
# ## Your sentences

# %%
Sampler.load(run)(['a red circle', 'a yellow triangle'], num=6)

# %% [markdown]
# ## From one sentence to another
#
# What lies between two points that the text encoder knows, with the noise held fixed.

# %%
found = explore(
    run['gan'],
    'text_interpolation',
    num=4,
    texts=['a red circle', 'a blue square'],
    out='runs/explored',
)
PIL.Image.open('runs/explored/text_interpolation.png')

# %% [markdown]
# The same command again resumes the run where it stands, with more steps if you raise them. On the command line:
#
#     t2i_jax --workdir=runs/quickstart --mode=sample --text="a red ring"
#     t2i_jax --workdir=runs/quickstart --mode=evaluate
