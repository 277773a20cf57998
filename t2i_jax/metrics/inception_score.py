"""Inception score (Salimans et al., NeurIPS 2016).

    exp of the mean over images x of KL(p(y|x) || p(y)),  p(y) the mean of p(y|x) over a split

It is a function of the classifier above all; 1 at the lowest, the number of classes at the highest.
Two conventions are in use:
- COCO (the first authors' script, torch-fidelity): the 1008 outputs of the Inception graph of 2015
  without its bias, shuffled (torch-fidelity: `seed=np.random.RandomState(2020)`), remainder
  'spread';
- birds and flowers (StackGAN): the fine-tuned network's logits without the first, which is the
  background (`logits[:, 1:]`), of shuffled images in whole batches of 64 (cut off the rest),
  remainder 'drop'.
"""

import numpy as np
from numpy.typing import ArrayLike

from t2i_jax.metrics.arrays import Seed, generator, rows


def inception_score(
    scores: ArrayLike,
    *,
    probabilities: bool = False,
    splits: int = 10,
    seed: Seed | None = None,
    remainder: str = 'spread',
) -> tuple[float, float]:
    """Compute the Inception score -> (mean, std) over splits; std with ddof 0.

    scores: (n, classes), logits; with `probabilities` rows that sum to 1
    splits: number of parts of the rows, each with a score of its own
    seed: a number or a generator to shuffle the rows first; None leaves their order
    remainder: for n that is not a multiple of `splits`: 'spread' cuts at i n // splits and uses
        every row, 'drop' takes n // splits rows a split and leaves out the last rows

    Raises ValueError for fewer rows than splits, NaN and infinity (minus infinity as a logit, too).
    """
    name = 'probabilities' if probabilities else 'logits'
    if splits < 1 or remainder not in ('spread', 'drop'):
        raise ValueError(
            f'splits={splits}, remainder={remainder!r}: expected 1 or more, and spread or drop'
        )
    remedy = f'one for each of {splits} splits; papers take 30,000 images and 10 splits'
    x = rows(scores, name, splits, remedy)
    if probabilities:
        wrong = np.flatnonzero((x < 0).any(1) | (abs(x.sum(1) - 1) > 1e-3))
        if len(wrong):
            raise ValueError(
                f'probabilities: row {wrong[0]} is negative somewhere or sums to '
                f'{x[wrong[0]].sum():.4g}, not 1; are these logits?'
            )
    if seed is not None:
        x = x[generator(seed).permutation(len(x))]
    n = len(x) // splits * splits if remainder == 'drop' else len(x)
    cuts = [i * n // splits for i in range(splits + 1)]
    values = [_score(x[start:end], probabilities) for start, end in zip(cuts, cuts[1:])]
    return float(np.mean(values)), float(np.std(values))


def _score(x, probabilities):
    """The score of the rows of one split."""
    if probabilities:
        p, log_p = x, np.log(np.where(x > 0, x, 1))
    else:
        x = x - x.max(1, keepdims=True)
        log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
        p = np.exp(log_p)
    q = p.mean(0)
    return np.exp((p * (log_p - np.log(np.where(q > 0, q, 1)))).sum(1).mean())
