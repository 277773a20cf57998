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
# # Two systems, several seeds, one table
#
# Numbers of one seed say little: here each system is trained with several, and the table gives mean and deviation. With
# the settings below this takes about an hour of two CPU cores.

# %%
import importlib.util

from IPython import get_ipython

if importlib.util.find_spec('t2i_jax') is None:
    get_ipython().run_line_magic('pip', 'install --quiet t2i_jax')

# %%
import PIL.Image
from IPython.display import display

from t2i_jax import Run, Sampler, config, evaluate, train
from t2i_jax.evaluate.compare import compare

# %% nbmake={"mock": {"SYSTEMS": {"recipe": "gan_cls_shapes:tiny", "other": "dcgan_shapes:tiny"}, "SEEDS": [0], "NUM": 64}}
# the combined recipe beside the paper's own losses
SYSTEMS = {'recipe': 'gan_cls_shapes:quick', 'paper': 'gan_cls_shapes:paper'}
SEEDS = [0, 1, 2]
NUM = 500

# %%
workdirs = []
for name, experiment in SYSTEMS.items():
    for seed in SEEDS:
        run = Run.create(config.load(experiment, {'seed': str(seed)}), f'runs/{name}_{seed}')
        train(run)
        evaluate(run.last(('image',)), num=NUM)
        workdirs.append(run.workdir)

# %% [markdown]
# ## The table
#
# Runs that differ in their seed alone share a column. What `↑` and `↓` mean, and what each number is:
# `docs/evaluation.md`.

# %%
print(compare(workdirs, 'runs/compare.png'))
PIL.Image.open('runs/compare.png')

# %% [markdown]
# ## The same sentences by each

# %%
for workdir in workdirs:
    sampler = Sampler.load(workdir)
    print(sampler)
    display(sampler(['a red ring', 'a blue cross'] if sampler.reads_text else None, num=6))
