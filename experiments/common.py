"""Shared by experiments: published values of data sets, calls that make a config.

An experiment begins with `c = common.base(system, data=common.shapes())`, fills `c.stages.<name>`
and ends with `return common.variant(c, arg)`, which completes all settings and locks the config.
What settings there are: t2i_jax/config/tables.py.
"""

from t2i_jax.config import merge, variants
from t2i_jax.config.variants import base

__all__ = [
    'base',
    'birds',
    'coco',
    'every',
    'flowers',
    'folder',
    'laptop_rates',
    'photo_recipe',
    'recipe',
    'rules',
    'shapes',
    'stage_of',
    'tiny',
    'variant',
]


# data set -> the small one that its tiny variants use
SMALL = {
    'shape_scenes/single': 'shape_scenes/single_quick',
    'shape_scenes/multi': 'shape_scenes/multi_quick',
    'shape_scenes/multi_brief': 'shape_scenes/multi_brief_quick',
}


def tiny(c):
    """Shrink a config, and its data set where there is a small one, to seconds on a laptop."""
    c.data.name = SMALL.get(c.data.name, c.data.name)
    variants.tiny(c)


def variant(c, arg='', **others):
    """Complete a config and apply a variant by name; see config/variants.py."""
    return variants.variant(c, arg, **{'tiny': tiny, **others})


def stage_of(experiment, stage, arg=''):
    """Return the settings of one stage of another experiment, a module; they may be changed."""
    return experiment.get_config(arg).stages[stage].copy_and_resolve_references().unlock()


def every(steps):
    """Return the settings of a stage that draws, validates and saves each so many steps."""
    return dict(sample_every=steps, validate_every=steps, checkpoint_every=steps)


def laptop_rates(stage):
    """Set the optimisers of a GAN on a laptop, in place: high rates that fall to nearly nothing.

    Ours, as the GANs on shape_scenes have them.
    """
    for phase in stage.optim:
        stage.optim[phase].update(lr=1e-3, b1=0.0, b2=0.99)
        stage.optim[phase].schedule.update(kind='cosine', floor=0.02)


def recipe(stage, steps):
    """Give a GAN stage on shape_scenes the game of later papers, in place. All numbers ours.

    D pairs each drawn with a real picture (relativistic), wrong pairs have another sentence, which
    often differs by a word, and a head of D finds the sentence of a picture in the batch.
    """
    stage.update(epochs=0, steps=steps, batch_size=32, near_wrong=0.5, ema=0.995, ema_warmup=True)
    stage.update(sample_every=1000, validate_every=0, checkpoint_every=1000)
    stage.model.leave_out = 'entailment'
    stage.model.game.update(adversary='pairing', contrast=(1.0, 0.2))
    laptop_rates(stage)


def photo_recipe(stage, steps):
    """As `recipe` for photographs of classes, in place: D also sees them moved and cut.

    Nothing is known of which wrong sentences are close to a right one.
    """
    recipe(stage, steps)
    stage.near_wrong, stage.model.leave_out, stage.model.game.augment = 0.0, 'class', True
    stage.data.captions = 1


# ---------------------------------------------------------------------------------------- data sets
def shapes(name='single', **changes):
    """shape_scenes, the embedded data set.

    Its captions say left and large, so that it is neither mirrored nor cropped.
    """
    nominal = dict(
        vocabulary_size=103,
        classes=42,
        object_classes=6,
        max_objects=5,
        attributes=22 if name.startswith('single') else 48,
    )
    return merge(dict(name=f'shape_scenes/{name}', cache='device', nominal=nominal), changes)


def rules(**changes):
    """shape_scenes/rules, layouts whose likelihoods are known: labelled boxes alone."""
    nominal = dict(object_classes=4, max_objects=11)
    return merge(dict(name='shape_scenes/rules', cache='device', nominal=nominal), changes)


def flowers(**changes):
    """Oxford-102 flowers with ten captions each.

    Training is on the 82 classes of the papers' train and validation parts.
    """
    splits = dict(split='train+validation', validation_split='test')
    # words: ours, about what the training captions have
    nominal = dict(vocabulary_size=5000, classes=102)
    return merge(dict(name='flowers102_captions', nominal=nominal, **splits), changes)


def birds(**changes):
    """CUB-200-2011 with ten captions each.

    Cropped around the bird as the papers after GAN-CLS have it; training is on 150 of 200 classes.
    """
    splits = dict(split='train+validation', validation_split='test')
    # words: AttnGAN's
    nominal = dict(vocabulary_size=5450, classes=200, attributes=312)
    return merge(dict(name='cub200_captions', crop='bbox', nominal=nominal, **splits), changes)


def coco(**changes):
    """MS-COCO 2014, five captions and up to ten objects each."""
    # words: AttnGAN's
    nominal = dict(vocabulary_size=27_297, object_classes=80, max_objects=10)
    return merge(dict(name='coco2014_captions', cache='none', nominal=nominal), changes)


def folder(**changes):
    """A folder of your own, `--config.data.manual_dir`; see tfds_builders/caption_folder."""
    return merge(dict(name='caption_folder', nominal=dict(vocabulary_size=5000)), changes)
