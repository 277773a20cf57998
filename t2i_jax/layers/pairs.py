"""Which captions of a batch are not wrong ones of which pictures."""

import jax.numpy as jnp

from t2i_jax.runtime.sharding import everywhere
from tfds_builders.facts import entails

# the batch keys that each kind reads
LEAVE_OUT = {'class': ('label',), 'entailment': ('facts', 'scene'), 'none': ()}


def not_wrong(batch, kind='class'):
    """Return which captions are not wrong ones of which pictures: bool (pictures, captions).

    kind: 'class', pairs of one class, where the batch has labels; 'entailment', all that a caption
    says is true of the picture (shape_scenes); 'none'. None is returned where nothing is known.
    """
    if kind == 'class' and 'label' in batch:
        return batch['label'][:, None] == everywhere(batch['label'])
    if kind == 'entailment':
        return entails(everywhere(batch['facts']), batch['scene'][:, None], jnp)
    return None


def found_own(scores, leave_out=None):
    """Compute the share of pictures whose own caption has the highest score -> scalar.

    scores: (b, b), of picture i and caption j. leave_out: of `not_wrong`.
    """
    own = jnp.eye(len(scores), dtype=bool)
    others = False if leave_out is None else leave_out & ~own
    best = jnp.where(others, -jnp.inf, scores).argmax(1)
    return (best == jnp.arange(len(scores))).mean()


def matching_advice(stage):
    """Return a stage's `advice`: what to set where the data lack a key that `leave_out` reads."""
    other = {'label': 'none', 'facts': 'class', 'scene': 'class'}
    return {
        key: f'Set --config.stages.{stage}.model.leave_out={kind}.' for key, kind in other.items()
    }
