"""What experiments share: published values of the data sets, and the calls that make a config.

An experiment says `c = common.base(system, data=common.shapes())`, fills `c.stages.<name>`, and ends with
`return common.variant(c, arg)`, which completes all settings and locks the config. What settings there
are: t2i_jax/config.py.
"""

from t2i_jax.config import base, merge, tiny, variant

__all__ = [
    'base',
    'birds',
    'coco',
    'flowers',
    'folder',
    'merge',
    'rules',
    'shapes',
    'stage_of',
    'tiny',
    'variant',
]


def stage_of(experiment, stage, arg=''):
    """The settings of one stage of another experiment, a module, to be changed or used as they are."""
    return experiment.get_config(arg).stages[stage].copy_and_resolve_references().unlock()


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
