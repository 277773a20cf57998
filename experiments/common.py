"""What all experiments share: the keys that a config has, the data sets' published values, the variants.

An experiment says `c = common.base(system, data=common.shapes())`, fills `c.stages.<name>` and ends with
`return common.variant(c, arg)`. That completes every key that may be set from outside, `--config.stages.gan.optim.g_loss.lr=1e-4`.
"""

import copy
import inspect

from ml_collections import ConfigDict

from t2i_jax import optim, run
from t2i_jax.evaluate import evaluate

DATA = dict(
    name='',
    dir='',
    manual_dir='',
    split='train',
    validation_split='validation',
    on_error='refuse',
    size=64,  # pixels, the side of the largest image
    load_size=0,  # pixels, the side from which the crop is taken; 0 = size
    crop='',  # 'bbox': the square around the main object, as the papers on birds have it
    resize='squash',  # to a square, or 'keep' the shape
    scales=(),  # sides of smaller images, for systems that read several
    flip=False,
    length=18,
    captions=1,
    embedding='none',
    cache='host',  # decoded pictures in 'device' memory, in 'host' memory, or 'none': decoded when they are needed
    workers=0,  # processes that decode, with cache='none'; 0 = threads
    nominal=dict(),  # what is known of the data before they are read
)
STAGE = dict(
    steps=0,
    epochs=0,
    batch_size=64,
    sampler='uniform',
    captioned_share=0.5,
    near_wrong=0.0,
    ema=0.999,
    ema_half_life=0.0,
    model=dict(),
    data=dict(),
    optim=dict(),
    steps_per_dispatch=1,  # run at once, in a loop on the device: for small networks, whose steps take less than a millisecond or two
    log_every=50,
    sample_every=1000,
    validate_every=1000,
    validate_batches=4,
    checkpoint_every=1000,
    keep_n=2,
    keep='last',
)


def base(system, data):
    """An unlocked config. data: a dictionary as `shapes`, `flowers`, `birds`, `coco` or `folder` gives."""
    return ConfigDict(
        dict(
            system=system,
            seed=0,
            dtype='float32',
            remat=False,
            data=merge(DATA, data),
            stages={},
            init={},
            mesh=dict(fsdp=1),
            eval=dict(evaluate.OPTIONS),
        )
    )


def shapes(config='single', **changes):
    """shape_scenes, the embedded data set. Its captions say left and large, so it is neither mirrored nor cropped."""
    single = config.startswith('single')
    nominal = dict(
        vocabulary_size=103,
        classes=42,
        object_classes=6,
        max_objects=5,
        attributes=22 if single else 48,
    )
    return merge(dict(name=f'shape_scenes/{config}', cache='device', nominal=nominal), changes)


def rules(**changes):
    """shape_scenes/rules, layouts whose likelihoods are known: labelled boxes alone."""
    return merge(
        dict(
            name='shape_scenes/rules',
            cache='device',
            nominal=dict(object_classes=4, max_objects=11),
        ),
        changes,
    )


def flowers(**changes):
    """Oxford-102 flowers with ten captions each; training on the 82 classes of the papers' train and validation parts."""
    nominal = dict(
        vocabulary_size=5000, classes=102
    )  # words: ours, about what the training captions have
    return merge(
        dict(
            name='flowers102_captions',
            split='train+validation',
            validation_split='test',
            nominal=nominal,
        ),
        changes,
    )


def birds(**changes):
    """CUB-200-2011 with ten captions each, cropped around the bird as the papers after GAN-CLS have it; training on 150 of the 200 classes."""
    nominal = dict(vocabulary_size=5450, classes=200, attributes=312)  # words: AttnGAN's
    return merge(
        dict(
            name='cub200_captions',
            split='train+validation',
            validation_split='test',
            crop='bbox',
            nominal=nominal,
        ),
        changes,
    )


def coco(**changes):
    """MS-COCO 2014, five captions and up to ten objects each."""
    nominal = dict(vocabulary_size=27_297, object_classes=80, max_objects=10)  # words: AttnGAN's
    return merge(dict(name='coco2014_captions', cache='none', nominal=nominal), changes)


def folder(**changes):
    """A folder of anybody's, `--config.data.manual_dir`; see tfds_builders/caption_folder."""
    return merge(dict(name='caption_folder', nominal=dict(vocabulary_size=5000)), changes)


def merge(defaults, changes):
    """Nested dictionaries, the second laid over the first."""
    out = copy.deepcopy(dict(defaults))
    for name, value in dict(changes).items():
        out[name] = (
            merge(out[name], value)
            if isinstance(value, (dict, ConfigDict)) and isinstance(out.get(name), dict)
            else value
        )
    return out


def variant(c, arg='', **others):
    """Completes a config and applies a variant by name: '' as written, 'tiny' the small one that tests and a laptop run, or one of
    `others`, name -> function that changes the completed config. Raises RunError for another name.
    """
    known = {'': lambda c: None, 'tiny': tiny, **others}
    if arg not in known:
        raise run.RunError(
            f'This experiment has no variant {arg!r}. It has: {", ".join(filter(None, known))}.'
        )
    for name, cls in run.system(c.system).STAGES.items():
        block = merge(STAGE, c.stages.get(name, {}).to_dict() if name in c.stages else {})
        block['model'] = merge(keywords(cls), block['model'])
        block['optim'] = {
            phase: merge(optim.DEFAULTS, block['optim'].get(phase, {}))
            for phase in dict.fromkeys([p.loss for p in cls.phases] + list(block['optim']))
        }
        c.stages[name] = block
        c.init[name] = ''
    known[arg](c)
    return c


def keywords(cls):
    """The keywords of a stage with their values: every one may be set from outside."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
    }


def tiny(c):
    """Sizes, steps and batch that run on a laptop in seconds; widths from each stage's `tiny`."""
    c.data.size, c.data.load_size, c.data.cache = 16, 0, 'host'
    if c.data.name in ('shape_scenes/single', 'shape_scenes/multi'):
        c.data.name += '_quick'
    for name, cls in run.system(c.system).STAGES.items():
        if cls.skip(c):
            continue
        block = c.stages[name]
        block.update(
            steps=20,
            epochs=0,
            batch_size=8,
            log_every=10,
            sample_every=20,
            validate_every=10,
            validate_batches=2,
            checkpoint_every=10,
        )
        block.model = merge(block.model.to_dict(), cls.tiny)
        for key, small in (('size', 16), ('load_size', 0), ('scales', ())):
            if key in block.data:
                block.data[key] = small
