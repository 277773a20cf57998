"""Writes the tables of settings in docs/training.md: name, default, meaning.

    python -m docs.settings           # rewrites the tables between the two markers
    python -m docs.settings --check   # exits with 1 where they differ

Defaults come from t2i_jax/config.py and t2i_jax/optim.py. A setting without a meaning here, or a
meaning without a setting, is an error.
"""

import pathlib
import sys

from t2i_jax import optim
from t2i_jax.config import DATA, EVAL, STAGE, TOP

PAGE = pathlib.Path(__file__).parent / 'training.md'
BEGIN, END = '<!-- settings: python -m docs.settings -->', '<!-- end of settings -->'

# block -> (title, defaults, {setting: meaning})
BLOCKS = {
    'config': (
        'The run',
        TOP,
        {
            'system': 'the file under `t2i_jax/systems/`',
            'seed': 'of weights, noise, order of records and augmentation',
            'dtype': "type in which layers compute: `'float32'` or `'bfloat16'`",
            'remat': 'compute activations again in the backward pass: less memory, more time',
            'mesh.fsdp': 'devices among which parameters and optimiser state are divided',
            'init.<stage>': 'workdir of another run from which this stage is taken',
        },
    ),
    'config.data': (
        'Data',
        DATA,
        {
            'name': 'data set and config, such as `shape_scenes/single`',
            'dir': 'folder of built data sets; empty: the default of TFDS',
            'manual_dir': 'folder with the files that you provide (archives, your own pictures)',
            'split': 'records for training, in the syntax of TFDS: `train[:1000]`',
            'validation_split': 'held-out records',
            'on_error': "`'refuse'`: broken records stop the build; `'skip'`: they are left out",
            'size': 'pixels, the side of the largest picture',
            'load_size': 'pixels, the side from which the random crop is taken; 0: `size`',
            'crop': "`'bbox'`: the square around the main object; empty: the whole picture",
            'resize': "`'squash'` to a square, or `'keep'` the shape",
            'scales': 'sides of smaller pictures, for systems that read several',
            'flip': 'mirror half of the training pictures',
            'length': 'words of a caption; longer ones are cut',
            'captions': 'captions of each picture in a batch row',
            'embedding': "`'stored'`: sentence vectors of the data set instead of an encoder",
            'cache': "where decoded pictures are: `'device'`, `'host'`, `'none'` (decode each time)",
            'workers': "processes that decode, with `cache='none'`; 0: threads",
            'nominal': 'published sizes of the data set, used by `--mode=describe` without data',
        },
    ),
    'config.stages.<stage>': (
        'A stage',
        STAGE,
        {
            'steps': 'training steps; 0: by `epochs`',
            'epochs': 'passes over the training records; 0: by `steps`',
            'batch_size': 'records of a step, over all devices',
            'sampler': '`uniform`, `class_balanced`, `distinct_classes` or `mixed`',
            'captioned_share': "share of rows with a caption, with `sampler='mixed'`",
            'near_wrong': 'share of rows whose mismatching record resembles the right one',
            'ema': 'decay of the moving average of weights per step; 0: none',
            'ema_half_life': 'the same as a half-life in records; 0: by `ema`',
            'model': 'hyper-parameters of the system, see its file',
            'data': 'settings of `data` that differ in this stage',
            'optim': 'one optimiser for each phase, see below',
            'steps_per_dispatch': 'steps that the device runs at once, for small networks',
            'log_every': 'steps between two lines of `metrics.jsonl`',
            'sample_every': 'steps between two sample grids; 0: none',
            'validate_every': 'steps between two validations; 0: none',
            'validate_batches': 'batches of a validation; 0: the whole split',
            'checkpoint_every': 'steps between two checkpoints',
            'keep_n': 'number of newest checkpoints that stay on disk',
            'keep': "`'last'`, or `'best:<loss>'` to also keep the best by validation",
        },
    ),
    'config.stages.<stage>.optim.<phase>': (
        'An optimiser',
        optim.DEFAULTS,
        {
            'name': '`adam`, `rmsprop` or `sgd`',
            'lr': 'learning rate',
            'b1': 'Adam: decay of the mean',
            'b2': 'Adam: decay of the variance',
            'eps': 'Adam and RMSprop: added to the denominator',
            'momentum': 'SGD',
            'decay': 'RMSprop: decay of the variance',
            'l2': 'L2 penalty, added to the gradient',
            'weight_decay': 'decoupled weight decay',
            'clip': 'largest global norm of the gradient; 0: no clipping',
            'schedule.kind': '`constant`, `step`, `cosine` or `linear`',
            'schedule.factor': '`step`: the rate is multiplied by this',
            'schedule.every': '`step`: after so many units',
            'schedule.start': 'units before the schedule starts',
            'schedule.floor': 'smallest rate, as a fraction of `lr`',
            'schedule.length': '`cosine`, `linear`: units until the floor; 0: to the end',
            'schedule.unit': '`epochs` or `updates`',
        },
    ),
    'config.eval': (
        'Evaluation',
        EVAL,
        {
            'name': 'of the report under `eval/`; empty: made from the settings that differ',
            'split': 'splits, separated by commas; empty: those that are not for training',
            'num': 'pictures for each split (layouts: records)',
            'captions': 'captions of each real picture for which pictures are generated',
            'seed': 'of the noise and of every random choice',
            'weights': "`'ema'` or `'raw'`",
            'step': 'checkpoint; 0: the newest (or best)',
            'extractor': "feature network; empty: one that fits the data; `'none'`: none",
            'extractor_weights': 'file with its weights, where it needs one',
            'resize': 'filter for resizing pictures to the size that the network reads',
            'splits': 'parts for the Inception Score',
            'scorer': 'workdir of another run whose DAMSM or joint embedding also judges R-precision',
            'diversity': 'captions for which several pictures are compared',
            'samples': 'layouts generated for each record',
            'force': 'print a Frechet distance of fewer pictures than features, marked as biased',
            'every': 'steps between evaluations during training; 0: never',
            'every_num': 'pictures of such an evaluation',
        },
    ),
}
SHOWN_ELSEWHERE = {'data', 'stages', 'init', 'mesh', 'eval'}  # blocks of the run


def flat(block, prefix=''):
    """{'a.b': value} of nested dictionaries; empty ones are values."""
    out = {}
    for name, value in block.items():
        if isinstance(value, dict) and value:
            out |= flat(value, f'{prefix}{name}.')
        else:
            out[prefix + name] = value
    return out


def table(block, title, defaults, meanings):
    """The lines of one block."""
    lines = [f'### {title}: `--{block}.`', '', '| setting | default | meaning |', '|---|---|---|']
    values = flat(defaults)
    missing = set(values) ^ set(meanings)
    if missing:
        raise SystemExit(f'docs/settings.py and {block} differ in: {", ".join(sorted(missing))}.')
    for name, meaning in meanings.items():
        shown = f'`{values[name]!r}`' if values[name] != {} else ''
        lines.append(f'| `{name}` | {shown} | {meaning} |')
    return lines + ['']


def main():
    lines = [line for block, parts in BLOCKS.items() for line in table(block, *parts)]
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    text = '\n'.join([before + BEGIN, '', *lines[:-1], '', END]) + after
    if '--check' in sys.argv:
        sys.exit(text != PAGE.read_text() and 'docs/training.md: run python -m docs.settings')
    PAGE.write_text(text)


if __name__ == '__main__':
    main()
