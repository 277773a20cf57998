# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     cell_metadata_filter: nbmake,-all
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   accelerator: GPU
# ---

# %% [markdown]
# # AttnGAN on a GPU or TPU of Colab or Kaggle
#
# Choose an accelerator first (Colab: Runtime, Change runtime type; Kaggle: Settings, Accelerator), then run the cells
# from the top. After a disconnect run them again: training goes on at the last checkpoint.

# %%
import importlib.util

from IPython import get_ipython

# cuda or tpu
DEVICE = 'cuda'
if importlib.util.find_spec('t2i_jax') is None:
    get_ipython().run_line_magic('pip', f'install --quiet t2i_jax[{DEVICE},eval]')

# %%
import jax

from t2i_jax import Run, Sampler, config, evaluate, train

jax.devices()

# %% [markdown]
# ## Where things lie
#
# On Colab the machine is wiped: keep the run on Drive. Birds need their archives (`docs/data.md` lists them) in a folder;
# COCO is fetched (20 GB) and needs none: `attngan_coco`.

# %% nbmake={"mock": {"EXPERIMENT": "attngan_shapes:tiny", "WORKDIR": "runs/attngan", "MANUAL_DIR": ""}}
EXPERIMENT = 'attngan_birds'
WORKDIR = 'drive/MyDrive/runs/attngan_birds'
MANUAL_DIR = 'drive/MyDrive/cub'

# %%
if WORKDIR.startswith('drive/'):
    from google.colab import drive

    drive.mount('drive')

# %% [markdown]
# ## Train
#
# bfloat16 halves the time of a step on these devices. A batch is divided among all devices; losses do not depend on their
# number. Stop the cell, or lose the machine: at most the steps since the last checkpoint are lost.

# %%
own = {'data.manual_dir': MANUAL_DIR} if MANUAL_DIR else {}
run = Run.create(config.load(EXPERIMENT, {'dtype': 'bfloat16', **own}), WORKDIR)
train(run)

# %% [markdown]
# ## Draw and measure

# %%
sentences = ['a red ring'] if 'shapes' in EXPERIMENT else ['a small red bird with a black head']
samples = Sampler.load(run)(sentences, num=8, attention=True)
samples

# %%
report = evaluate(run['gan'], num=64)

# %% [markdown]
# To hand the model on: `t2i_jax --workdir=<run> --mode=export --out=model --push=<owner>/<name>`.
