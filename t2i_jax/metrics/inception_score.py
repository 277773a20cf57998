"""Inception score: exp of the mean KL divergence of an image's classes from those of its split (Salimans et al., NeurIPS 2016).

It is a function of the classifier above all; 1 at the lowest, the number of classes at the highest. Two conventions are met:
- COCO (the first authors' script, torch-fidelity): the 1008 outputs of the Inception graph of 2015 without its bias, shuffled
  (torch-fidelity: `seed=np.random.RandomState(2020)`), remainder 'spread';
- birds and flowers (StackGAN): the fine-tuned network's logits without the first, which is the background (`logits[:, 1:]`), of shuffled
  images in whole batches of 64 (cut the rest off), remainder 'drop'.
"""

import numpy as np

from t2i_jax.metrics.arrays import generator, rows


def inception_score(scores, *, probabilities=False, splits=10, seed=None, remainder='spread'):
    """(mean, std) over the splits of exp(mean KL(p(y|x) | mean p(y|x))); std with ddof 0.

    scores: (n, classes) logits, or rows that sum to 1 with `probabilities`. seed: shuffles the rows first (None: as they come); a number or a
    generator. remainder: where n is no multiple of `splits`, 'spread' cuts at i n // splits and uses every row, 'drop' takes n // splits rows
    a split and leaves the last out. Raises ValueError for fewer rows than splits, NaN and infinity (minus infinity as a logit, too).
    """
    name = 'probabilities' if probabilities else 'logits'
    if splits < 1 or remainder not in ('spread', 'drop'):
        raise ValueError(
            f'splits={splits}, remainder={remainder!r}: expected 1 or more, and spread or drop'
        )
    x = rows(
        scores,
        name,
        splits,
        f'one for each of {splits} splits; papers take 30,000 images and 10 splits',
    )
    if probabilities:
        wrong = np.flatnonzero((x < 0).any(1) | (abs(x.sum(1) - 1) > 1e-3))
        if len(wrong):
            raise ValueError(
                f'probabilities: row {wrong[0]} is negative somewhere or sums to {x[wrong[0]].sum():.4g}, not 1; are these logits?'
            )
    if seed is not None:
        x = x[generator(seed).permutation(len(x))]
    n = len(x) // splits * splits if remainder == 'drop' else len(x)
    values = [
        _score(x[i * n // splits : (i + 1) * n // splits], probabilities) for i in range(splits)
    ]
    return float(np.mean(values)), float(np.std(values))


def _score(x, probabilities):
    if probabilities:
        p, log_p = x, np.log(np.where(x > 0, x, 1))
    else:
        x = x - x.max(1, keepdims=True)
        log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
        p = np.exp(log_p)
    q = p.mean(0)
    return np.exp((p * (log_p - np.log(np.where(q > 0, q, 1)))).sum(1).mean())
