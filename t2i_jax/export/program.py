"""A trained stage as one program with its weights inside, which JAX alone runs (StableHLO).

<folder>/model.stablehlo    jax.export: (seed, rows) -> uint8 pictures b s s 3, for any b
         words.json         {'words', 'alphabet', 'reads', 'sizes'}
         draw.py            the script that draws with it
"""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
from jax import export as jax_export

from t2i_jax import stage as core
from t2i_jax.data.text import ALPHABET, CHARS
from t2i_jax.export.folders import written
from t2i_jax.run import Path, RunStage
from t2i_jax.runtime.errors import RunError, home, reason
from t2i_jax.sample import to_uint8

SCRIPT = '''"""Draw with JAX and NumPy alone: python draw.py "a red ring" [number] [seed]"""

import json, pathlib, re, sys

import jax, numpy as np

here, (sentence, n, seed) = pathlib.Path(__file__).parent, [*sys.argv[1:], '4', '0'][:3]
known = json.loads((here / 'words.json').read_text())
number = {word: i for i, word in enumerate(known['words'], 1)}
ids = [number[word] for word in re.findall('[a-z0-9_]+', sentence.lower()) if word in number]
chars = [known['alphabet'].rfind(letter) + 1 for letter in sentence.lower()]
row = {'tokens': ids, 'chars': chars, 'length': min(len(ids), known['sizes']['tokens'])}
for name, size in known['sizes'].items():
    row[name] = (row[name] + [0] * size)[:size]
rows = {name: np.array([row[name]] * int(n), np.int32) for name in known['reads']}
model = jax.export.deserialize((here / 'model.stablehlo').read_bytes())
pictures = np.concatenate(model.call(np.uint32(seed), rows), 1)
header = 'P6 {1} {0} 255 '.format(*pictures.shape).encode()
pathlib.Path('drawn.ppm').write_bytes(header + pictures.tobytes())
'''


def to_program(
    stage: RunStage, out: Path, *, step: int | None = None, platforms=('cpu', 'cuda', 'tpu')
) -> pathlib.Path:
    """Write a stage that draws pictures from sentences as a program -> its folder.

    stage: a RunStage with a checkpoint. out: as of `export`. step: of the checkpoint; None: the
    best or newest. platforms: those on which it runs.

    Picture i of a call is the one that `Sampler` draws as sample i of its sentence, to rounding.
    Raises RunError for a stage that draws from something else, and where there is no checkpoint.
    """
    if not importlib.util.find_spec('flatbuffers'):
        raise RunError(
            "--format=stablehlo needs the package flatbuffers: pip install 't2i_jax[export]'."
        )
    module, meta = stage.module, stage.meta
    if module.draws_from != ('sentence',) or 'image' not in module.makes:
        raise RunError(
            f'Stage {stage.name} draws {", ".join(module.makes)} from '
            f'{", ".join(module.draws_from) or "noise"}; as a program those are written that draw '
            'pictures from sentences.'
        )
    if 'embedding' in module.needs:
        raise RunError(
            f'Stage {stage.name} reads stored sentence vectors and cannot read a sentence.'
        )
    shapes = {'tokens': (meta.length,), 'length': (), 'chars': (CHARS,)}
    reads = [name for name in shapes if name in module.needs]
    _, (params, stats) = stage.weights(step)
    program = stage.program()

    def draw(seed, rows):
        noise = module.noise(jax.random.key(seed), rows[reads[0]].shape[0])
        return to_uint8(core.apply(program, 'sample', params, stats, rows, noise)['image'])

    (b,) = jax_export.symbolic_shape('b')
    rows = {name: jax.ShapeDtypeStruct((b, *shapes[name]), jnp.int32) for name in reads}
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    try:
        content = jax_export.export(jax.jit(draw), platforms=platforms)(seed, rows).serialize()
    # of layers that need to know the number of rows
    except (TypeError, ValueError, NotImplementedError) as error:
        raise RunError(
            f'Stage {stage.name} cannot be written as a program for any number of pictures: '
            f'{reason(error)}. Leave out --format=stablehlo.'
        ) from error
    out = home(out)
    with written(out, stages={}) as (folder, _):
        (folder / 'model.stablehlo').write_bytes(content)
        known = dict(words=stage.run.vocabulary.words, alphabet=ALPHABET, reads=reads)
        known |= dict(sizes=dict(tokens=meta.length, chars=CHARS))
        (folder / 'words.json').write_text(json.dumps(known) + '\n')
        (folder / 'draw.py').write_text(SCRIPT)
    return out
