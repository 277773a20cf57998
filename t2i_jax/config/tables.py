"""The tables of settings: default, meaning, what is allowed, whether it may differ on resume."""

import copy
import difflib
import math
from typing import Any, NamedTuple

from t2i_jax.data.choices import CACHES, CROPS, RESIZES, SAMPLERS
from t2i_jax.runtime.errors import short
from tfds_builders.words import MAX_WORDS

# Whether a setting may differ when a run is resumed: never, always, or only to a larger number.
FIXED, FREE, GROWS = 'fixed', 'free', 'grows'
# the largest number below 1, for decays; what the step of a state and a seed can count to
BELOW_ONE, STEPS, SEEDS = math.nextafter(1, 0), 2**31 - 1, 2**32 - 1
# of a number of steps that may differ on resume, or 0: resume, low, high
FREE_STEPS = FREE, 0, STEPS
# pictures of an evaluation, of which features are kept, and of each caption or record
MOST_PICTURES, MOST_EACH = 10**6, 100
# the two ways to say how long a stage is trained
OTHER_UNIT = {'steps': 'epochs', 'epochs': 'steps'}


class Setting(NamedTuple):
    """One setting: its default, its meaning in a line, and what is allowed.

    low, high: of numbers. never: a number between them that is not allowed
    choices: the values that it can have, if not all
    """

    default: Any
    meaning: str
    resume: str = FIXED
    low: float = -math.inf
    high: float = math.inf
    choices: tuple = ()
    never: float | None = None


class Named(dict):
    """Settings that a config has only where an experiment writes them. '*' is any name."""


# ----------------------------------------------------------------------------------------- settings
DATA = dict(
    name=Setting('', 'data set, <builder> or <builder>/<config>: tfds_builders/README.md'),
    dir=Setting('', "folder of the prepared data; '': that of TFDS", FREE),
    manual_dir=Setting('', 'folder with files of yours, for the builders that read them', FREE),
    split=Setting('train', 'what is trained on, in the notation of TFDS: train[:256]'),
    validation_split=Setting('validation', 'the held-out split'),
    on_error=Setting(
        'refuse', 'records that cannot be used: refuse or skip', FREE, choices=('refuse', 'skip')
    ),
    size=Setting(64, 'pixels, the side of the largest image', low=1, high=4096),
    load_size=Setting(
        0, 'pixels, the side from which the crop is taken; 0: size', low=0, high=2 * 4096
    ),
    crop=Setting(
        '',
        "'bbox': the square around the main object, as the papers on birds have it",
        choices=CROPS,
    ),
    resize=Setting('squash', "'squash' to a square, or 'keep' the shape", choices=RESIZES),
    scales=Setting((), 'sides of smaller images, for systems that read several', low=1, high=4096),
    flip=Setting(False, 'mirror half of the pictures'),
    length=Setting(18, 'words of a caption, after padding or cutting', low=1, high=MAX_WORDS),
    captions=Setting(1, 'captions of an image in one row', low=1, high=100),
    captioned_part=Setting(
        1.0,
        'part of the training records whose captions are read, always the same ones',
        low=0,
        high=1,
    ),
    embedding=Setting(
        'none', "sentence vectors: 'none', or 'stored' with the data", choices=('none', 'stored')
    ),
    cache=Setting(
        'host',
        "decoded pictures: in memory of the 'device', 'host', or 'none'",
        FREE,
        choices=CACHES,
    ),
    workers=Setting(
        0, "processes that decode, with cache='none'; 0: threads", FREE, low=0, high=512
    ),
    nominal=Named(
        {'*': Setting(0, 'known of the data before they are read', FREE, low=0, high=10**7)}
    ),
)
SCHEDULE = dict(
    kind=Setting(
        'constant',
        'constant, step, cosine or linear',
        choices=('constant', 'step', 'cosine', 'linear'),
    ),
    factor=Setting(0.5, 'step: the rate is multiplied by it', low=0),
    every=Setting(100.0, 'step: after so many units', low=0),
    start=Setting(0.0, 'units before it begins', low=0),
    floor=Setting(0.0, 'smallest rate, as a fraction of lr', low=0, high=1),
    length=Setting(0.0, 'cosine, linear: units until the floor; 0: the end', low=0),
    unit=Setting('epochs', 'epochs or updates', choices=('epochs', 'updates')),
)
OPTIM = dict(
    name=Setting('adam', 'adam, rmsprop or sgd', choices=('adam', 'rmsprop', 'sgd')),
    lr=Setting(2e-4, 'learning rate', low=0),
    b1=Setting(0.9, 'adam: decay of the first moment', low=0, high=BELOW_ONE),
    b2=Setting(0.999, 'adam: decay of the second moment', low=0, high=BELOW_ONE),
    eps=Setting(1e-8, 'adam, rmsprop: added to the denominator', low=0),
    momentum=Setting(0.0, 'sgd: momentum', low=0, high=BELOW_ONE),
    decay=Setting(0.99, 'rmsprop: decay of the mean square', low=0, high=BELOW_ONE),
    l2=Setting(0.0, 'L2 penalty, added to the gradient', low=0),
    weight_decay=Setting(0.0, 'decoupled weight decay', low=0),
    clip=Setting(0.0, 'clip the gradient to this norm; 0: never', low=0),
    schedule=SCHEDULE,
)
STAGE = dict(
    steps=Setting(0, 'training steps; 0: as epochs says', GROWS, low=0, high=STEPS),
    epochs=Setting(0.0, 'passes over the data; 0: as steps says', GROWS, low=0, high=STEPS),
    batch_size=Setting(64, 'rows of a batch, over all devices', low=1, high=2**16),
    sampler=Setting(
        'uniform',
        'uniform, class_balanced, distinct_classes, mixed or twins',
        choices=SAMPLERS,
    ),
    captioned_share=Setting(0.5, 'mixed: share of the rows with a caption', low=0, high=1),
    near_wrong=Setting(0.0, 'share of wrong pairs that differ by little', low=0, high=1),
    ema=Setting(0.999, 'decay of the moving average of parameters, a step', low=0, high=BELOW_ONE),
    ema_half_life=Setting(0.0, 'its half-life in images instead; 0: as ema says', low=0),
    ema_warmup=Setting(False, 'at step t the decay is at most (1 + t) / (10 + t): for short runs'),
    model=Named({'*': Setting(None, 'keyword of the stage', low=0, high=STEPS)}),
    data=Named(DATA),
    optim=Named({'*': {**OPTIM, '*': OPTIM}}),
    steps_per_dispatch=Setting(
        1, 'steps run at once on the device: for small networks', low=1, high=10_000
    ),
    log_every=Setting(50, 'steps between two lines of metrics.jsonl; 0: at the end', *FREE_STEPS),
    sample_every=Setting(1000, 'steps between two grids of pictures; 0: at the end', *FREE_STEPS),
    validate_every=Setting(1000, 'steps between held-out losses; 0: never', *FREE_STEPS),
    validate_batches=Setting(4, 'batches of held-out data; 0: all', *FREE_STEPS),
    checkpoint_every=Setting(1000, 'steps between two checkpoints; 0: at the end', *FREE_STEPS),
    keep_n=Setting(
        2, 'number of newest checkpoints that stay; -1: all', FREE, low=-1, high=STEPS, never=0
    ),
    keep=Setting('last', 'last, or best:<a validation loss>, which stays as well'),
    init_from=Setting('', 'a run from whose same stage the first weights are taken', FREE),
)
EVAL = dict(
    name=Setting('', "of the files in <workdir>/eval; '': what sets this evaluation apart", FREE),
    split=Setting('', "splits, comma-separated; '': those that are not for training", FREE),
    num=Setting(
        1000, 'pictures drawn for each split; of layouts: records', FREE, low=1, high=MOST_PICTURES
    ),
    captions=Setting(1, 'captions used of each real picture', FREE, low=1, high=MOST_EACH),
    seed=Setting(0, 'of the noise and of every draw', FREE, low=0, high=SEEDS),
    weights=Setting('ema', 'of the generator: ema or raw', FREE, choices=('ema', 'raw')),
    step=Setting(0, 'checkpoint; 0: the newest (or best)', *FREE_STEPS),
    extractor=Setting(
        '', "feature network: evaluate/features.py; '': one that fits, or none", FREE
    ),
    extractor_weights=Setting('', 'file with its weights, where it needs one', FREE),
    resize=Setting('pil_bicubic', 'filter to the size that the feature network reads', FREE),
    splits=Setting(10, 'parts of the Inception Score', FREE, low=1, high=1000),
    scorer=Setting(
        '', 'a run whose DAMSM or joint embedding, and whose captioner judge pictures, too', FREE
    ),
    diversity=Setting(
        32, 'captions of which several pictures are compared', FREE, low=0, high=10_000
    ),
    samples=Setting(5, 'layouts drawn for each record', FREE, low=1, high=MOST_EACH),
    force=Setting(False, 'a Frechet distance from fewer pictures than features', FREE),
    every=Setting(0, 'steps between two evaluations in training; 0: never', *FREE_STEPS),
    every_num=Setting(
        200, 'pictures of an evaluation in training', FREE, low=1, high=MOST_PICTURES
    ),
)
SETTINGS = dict(
    system=Setting('', 'file under t2i_jax/systems'),
    seed=Setting(0, 'of weights, batches, augmentation and noise', low=0, high=SEEDS),
    dtype=Setting(
        'float32',
        'type of the computation: float32 or bfloat16',
        choices=('float32', 'bfloat16'),
    ),
    remat=Setting(False, 'compute blocks again for their gradient: less memory, more time', FREE),
    data=DATA,
    stages=Named({'*': STAGE}),
    init=Named({'*': Setting('', 'a run that has trained this stage')}),
    log=Setting(
        '', "'wandb': losses and grids go to Weights & Biases, too", FREE, choices=('', 'wandb')
    ),
    mesh=dict(fsdp=Setting(1, 'devices among which the state is divided', FREE, low=1, high=2**16)),
    eval=EVAL,
)


# ------------------------------------------------------------------------------------- reading them
def defaults(table):
    """Return {name: default} of a table of settings, nested as the table is."""
    if isinstance(table, Named):
        return {}
    return {
        name: copy.deepcopy(one.default) if isinstance(one, Setting) else defaults(one)
        for name, one in table.items()
        if name != '*'
    }


def setting(path):
    """Return the Setting of a path such as 'data.size', the table of a block, or None."""
    found = SETTINGS
    for part in path.split('.'):
        if isinstance(found, Setting):
            # a block within a keyword of a stage
            return found if found.default is None else None
        found = found.get(part, found.get('*'))
        if found is None:
            return None
    return found


def unknown(path, known, done=None):
    """Word the message for a setting that does not exist. done: the parts of its path that do."""
    done = path.split('.')[:-1] if done is None else done
    wrong, *rest = path.split('.')[len(done) :]
    close = difflib.get_close_matches(wrong, known, 1)
    guess = f' Did you mean {".".join(["--config", *done, close[0], *rest])}?' if close else ''
    if done[::2] == ['stages', 'data'] and wrong in DATA:
        return (
            f'Stage {done[1]} has no data.{wrong} of its own: --config.data.{wrong} sets that of '
            'all stages. (An experiment can give a stage its own, in stages.<stage>.data.)'
        )
    known = ', '.join(name for name in known if name != '*') or 'no settings'
    place = '.'.join(['config', *done])
    return f'There is no setting --config.{short(path)}.{guess} In {place} there are: {known}.'
