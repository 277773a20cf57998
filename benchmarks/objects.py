"""What a picture step costs with 1, 5 and 10 objects a scene, at 64 px.

    python -m benchmarks.objects --out=benchmarks/results/objects.md
    python -m benchmarks.objects hierarchical_layout_shapes:recipe --objects=1,20

The trainer's own program of stage `image`, on random pictures and layouts: as many objects are
there as a scene may have. Time is CPU time, the median of `--steps` steps after one that is not
counted; memory is that of the compiled step, arguments and intermediate results.
"""

import argparse
import datetime
import functools
import pathlib
import statistics
import time

import jax
import numpy as np
from flax import nnx

from benchmarks.step import configured
from t2i_jax import stage as core
from t2i_jax.run import Run

EXPERIMENTS = 'obj_gan_shapes:recipe', 'hierarchical_layout_shapes:recipe'
# what tells wrong sentences by their facts is left out: random sentences have none
PLAIN = ('leave_out=none', 'game.contrast=(0.0, 0.0)')
HEAD = """# The cost of objects

```
python -m benchmarks.objects
```

{date}, {device}; a step of stage `image` at 64 px.

{table}
"""


def random_batch(needs, meta, b):
    """Return random arrays for a stage: pictures, sentences, and layouts that are full."""
    draws, n = np.random.default_rng(0), meta.max_objects
    centres, sides = draws.uniform(0.3, 0.7, (b, n, 2)), draws.uniform(0.1, 0.5, (b, n, 2))
    kinds = {
        'image': lambda: np.float32(draws.uniform(-1, 1, (b, meta.size, meta.size, 3))),
        'tokens': lambda: np.int32(draws.integers(1, meta.vocabulary_size, (b, meta.length))),
        'length': lambda: np.full(b, meta.length, np.int32),
        'boxes': lambda: np.float32(np.concatenate([centres, sides], -1)),
        'object_labels': lambda: np.int32(draws.integers(0, meta.object_classes, (b, n))),
        'object_masks': lambda: np.uint8(draws.integers(0, 2, (b, n, 64, 64))),
    }
    batch = {name: kinds[name.removeprefix('wrong_')]() for name in needs}
    if 'wrong_tokens' in batch:
        batch['wrong_length'] = batch['length']
    return batch | {'step': np.int32(0)}


def measured(experiment, objects, steps):
    """Measure the step of an experiment with so many objects -> {name: number}."""
    known = [f'stages.image.model.{one}' for one in PLAIN]
    config = configured(experiment, [f'data.nominal.max_objects={objects}', *known])
    stage = Run(config)['image']
    meta = stage.nominal_meta
    module = stage.build(meta, 0)
    program, parts = stage.program(module), core.split(module)
    state = core.init_state(program, parts.params, parts.stats, 0)
    batch = random_batch(module.needs, meta, stage.block.batch_size)
    step = jax.jit(functools.partial(core.train_step, program), donate_argnums=0)
    compiled, times = step.lower(state, batch).compile(), []
    for _ in range(steps + 1):
        start = time.process_time()
        state, _ = jax.block_until_ready(compiled(state, batch))
        times.append(time.process_time() - start)
    memory = compiled.memory_analysis()
    return dict(
        batch=stage.block.batch_size,
        seconds=statistics.median(times[1:]),
        flops=compiled.cost_analysis()['flops'],
        memory=memory.argument_size_in_bytes + memory.temp_size_in_bytes,
        G=sum(x.size for x in jax.tree.leaves(nnx.state(module.G, nnx.Param))),
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('experiments', nargs='*', default=EXPERIMENTS)
    parser.add_argument('--objects', default='1,5,10', help='of a scene')
    parser.add_argument('--steps', type=int, default=5)
    parser.add_argument('--out', type=pathlib.Path, help='Markdown file')
    args = parser.parse_args()
    lines = [
        '| | objects | pictures | CPU s | GFLOP | MiB | parameters of G |',
        '|---|---|---|---|---|---|---|',
    ]
    for experiment in args.experiments:
        for objects in map(int, args.objects.split(',')):
            one = measured(experiment, objects, args.steps)
            lines.append(
                f'| {experiment} | {objects} | {one["batch"]} | {one["seconds"]:.2f} | '
                f'{one["flops"] / 1e9:.1f} | {one["memory"] / 2**20:,.0f} | {one["G"]:,} |'
            )
            print(lines[-1], flush=True)
    device = jax.devices()[0].device_kind
    text = HEAD.format(date=datetime.date.today(), device=device, table='\n'.join(lines))
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == '__main__':
    main()
