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
# # Your own pictures
#
# A folder of pictures with captions, or a zip file of one, becomes a data set that every system trains on. Here
# StackGAN++ and AttnGAN at 64 px.

# %%
import importlib.util

from IPython import get_ipython

if importlib.util.find_spec('t2i_jax') is None:
    get_ipython().run_line_magic('pip', 'install --quiet t2i_jax[eval]')

# %%
import json
import pathlib
import zipfile

import numpy as np
import PIL.Image
from matplotlib import pyplot

from t2i_jax import Run, Sampler, config, train

# %% [markdown]
# ## The folder
#
# Put the path of your folder here, or of a zip file. The captions stand in `captions.jsonl` (a line
# `{"file_name": "a.jpg", "text": "a bird"}` for each picture), a CSV table, or a text file next to each picture.
# Without a folder of yours this notebook draws one: coloured discs, so that everything below can be tried.

# %%
FOLDER = ''

# %%
folder = pathlib.Path(FOLDER or 'discs')
if not FOLDER and not folder.exists():
    folder.mkdir()
    colours = dict(
        red=(220, 40, 40), green=(40, 170, 60), blue=(40, 80, 220), yellow=(240, 210, 40)
    )
    places, draws = np.indices((64, 64)), np.random.default_rng(0)
    lines = []
    for number in range(200):
        name, colour = list(colours.items())[number % 4]
        (y, x), r = draws.integers(16, 48, 2), draws.integers(6, 16)
        disc = (places[0] - y) ** 2 + (places[1] - x) ** 2 < r**2
        picture = np.where(disc[..., None], colour, 255).astype(np.uint8)
        PIL.Image.fromarray(picture).save(folder / f'{number}.png')
        size = 'large' if r > 10 else 'small'
        lines.append(json.dumps(dict(file_name=f'{number}.png', text=f'a {size} {name} disc')))
    (folder / 'captions.jsonl').write_text('\n'.join(lines))
if folder.suffix == '.zip':
    with zipfile.ZipFile(folder) as archive:
        folder = pathlib.Path(folder.stem)
        archive.extractall(folder)

# %% [markdown]
# ## Train
#
# `px64` runs on CPU cores in hours and on a GPU in minutes; without a variant AttnGAN draws 256 px and needs a GPU. Stop
# the cell whenever you like: what was trained is saved, and the same cell goes on.

# %% nbmake={"mock": {"VARIANT": "tiny"}}
VARIANT = 'px64'

# %%
runs = {}
for system in ('stackgan_pp', 'attngan'):
    own = {'data.manual_dir': str(folder), 'data.flip': 'False'}
    if system == 'attngan':
        own['stages.damsm.model.trunk'] = 'small'
    runs[system] = Run.create(config.load(f'{system}_folder:{VARIANT}', own), f'runs/{system}')
    train(runs[system])

# %% [markdown]
# ## Look
#
# The last grids of both: held-out captions, their pictures, and what is drawn.

# %%
for system, run in runs.items():
    last = list(run.samples().values())[-1]
    pyplot.figure(figsize=(12, 8))
    pyplot.imshow(last)
    pyplot.title(system)
    pyplot.axis('off')
    pyplot.show()

# %%
captions = [json.loads(line)['text'] for line in (folder / 'captions.jsonl').open()][:3]
Sampler.load(runs['attngan'])(captions, num=6)

# %% [markdown]
# With a few hundred pictures a GAN learns these pictures themselves; from a thousand on it begins to draw new ones. The
# warnings of the data set's report (`report.txt` in the folder of the prepared data) say what was left out.
