"""Frechet distance between the Gaussians that two sets of features suggest (Heusel et al., NeurIPS 2017).

    |m1 - m2|^2 + Tr C1 + Tr C2 - 2 Tr (C1 C2)^(1/2),  C the unbiased covariances

It is called FID where the features are the 2048 of the Inception graph of 2015-12-05, and is comparable only at one resize filter, one
reference set and one number of images: it is biased upward, the more the fewer images there are (`bias`). Everything is float64.
"""

import os
import pathlib
import zipfile

import numpy as np

from t2i_jax.metrics.arrays import blocks, generator, rows, same_width

ENOUGH = 10_000  # images, below which a value is hardly worth printing
BLOCK = 2048  # rows of features in float64 at a time


class Statistics:
    """Number, mean (d,) and sum of outer products of deviations `scatter` (d, d) of features that come in batches.

    tag: which network, layer, weights and resize filter made the features. Only statistics of one tag can be merged or compared.
    """

    def __init__(self, tag=''):
        self.tag, self.n, self.mean, self.scatter = tag, 0, None, None

    @classmethod
    def of(cls, features, tag=''):
        statistics = cls(tag)
        statistics.update(features)
        return statistics

    @property
    def d(self):
        return len(self.mean) if self.n else 0

    @property
    def covariance(self):
        """(d, d), divided by n - 1. ValueError for fewer than two rows."""
        if self.n < 2:
            raise ValueError(
                f'a covariance needs 2 images or more, and these statistics have seen {self.n}'
            )
        return self.scatter / (self.n - 1)

    def update(self, features):
        """Adds features (b, d). ValueError for another d than before, NaN and infinity (the row is counted from the first update)."""
        features = np.asarray(features)
        for part in blocks(len(features) if features.ndim else 1, BLOCK):
            x = rows(features[part] if features.ndim else features, 'features', first=self.n)
            mean = x.mean(0)
            x = x - mean
            self._add(len(x), mean, x.T @ x)

    def merge(self, other):
        """Adds the statistics of another set, as if all its features came here."""
        if other.tag != self.tag:
            raise ValueError(
                f'statistics of {self.tag!r} and of {other.tag!r} do not mix: take both from one network'
            )
        if other.n:
            self._add(other.n, other.mean, other.scatter)

    def _add(self, n, mean, scatter):
        """Chan, Golub and LeVeque, 1979."""
        if not self.n:
            self.n, self.mean, self.scatter = n, mean.copy(), scatter.copy()
            return
        same_width(self.d, len(mean), 'earlier and later features')
        gap, total = mean - self.mean, self.n + n
        self.scatter += scatter
        self.scatter += np.outer(gap, gap * (self.n * n / total))
        self.mean += gap * (n / total)
        self.n = total

    def save(self, path):
        """Writes an .npz without pickles; an unfinished file never stands under the name."""
        if not self.n:
            raise ValueError(f'{path}: statistics that have seen no features are not written')
        path = pathlib.Path(path)
        part = path.with_name(f'{path.name}.{os.getpid()}.part')
        with open(part, 'wb') as file:
            np.savez(file, n=self.n, mean=self.mean, scatter=self.scatter, tag=np.array(self.tag))
        part.replace(path)

    @classmethod
    def load(cls, path, tag=None):
        """Reads what `save` wrote. With `tag`: ValueError where the file has another."""
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in ('n', 'mean', 'scatter', 'tag')}
        except (KeyError, ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(
                f'{path} holds no statistics of features ({error}): make it with Statistics.save'
            ) from error
        statistics = cls(str(found['tag']))
        if tag is not None and statistics.tag != tag:
            raise ValueError(
                f'{path} was made with {statistics.tag!r}, expected {tag!r}: compute the statistics again with that network'
            )
        statistics.n, statistics.mean, statistics.scatter = (
            int(found['n']),
            found['mean'],
            found['scatter'],
        )
        if (
            statistics.n < 1
            or statistics.scatter.shape != (statistics.d, statistics.d)
            or not np.isfinite(statistics.scatter).all()
        ):
            raise ValueError(
                f'{path}: n = {statistics.n}, mean {found["mean"].shape} and scatter {found["scatter"].shape} do not fit together'
            )
        return statistics


def fid(real, fake, *, force=False):
    """Frechet distance of features (n, d) and (m, d), or of `Statistics`, or of one of each -> float, 0 or more but for rounding.

    Raises ValueError where a set has no more images than dimensions, since its covariance is singular and the value mostly bias, unless
    `force` is true; and for unequal dimensions or tags, NaN and infinity.
    """
    sets = [
        x if isinstance(x, Statistics) else rows(x, name, 2)
        for name, x in (('real features', real), ('fake features', fake))
    ]
    sizes = [x.n if isinstance(x, Statistics) else len(x) for x in sets]
    widths = [x.d if isinstance(x, Statistics) else x.shape[1] for x in sets]
    same_width(*widths)
    if min(sizes) <= widths[0] and not force:
        raise ValueError(_refusal(sets, sizes, widths[0]))
    if not any(isinstance(x, Statistics) for x in sets) and max(sizes) <= widths[0]:
        return _of_few(*sets)
    real, fake = (
        x
        if isinstance(x, Statistics)
        else Statistics.of(x, y.tag if isinstance(y, Statistics) else '')
        for x, y in zip(sets, sets[::-1])
    )
    if real.tag != fake.tag:
        raise ValueError(
            f'real features are of {real.tag!r}, fake features of {fake.tag!r}: take both from one network'
        )
    c1, c2, gap = real.covariance, fake.covariance, real.mean - fake.mean
    return float(gap @ gap + np.trace(c1) + np.trace(c2) - 2 * _trace_of_root(c1, c2))


def _trace_of_root(c1, c2):
    """Tr (C1 C2)^(1/2) of two symmetric matrices without negative eigenvalues.

    For any R with C1 = R R^T the eigenvalues of C1 C2 are those of the symmetric R^T C2 R. The triangular R takes an eighth of the time of the
    symmetric one, and it leaves no noise of rounded zeros where the sets are nearly equal. Singular covariances have none: there the trace is
    the sum of the singular values of R1^T R2, which do not need the roots of rounded zeros.
    """
    try:
        root = np.linalg.cholesky(c1)
    except np.linalg.LinAlgError:
        return np.linalg.svd(_root(c1).T @ _root(c2), compute_uv=False).sum()
    product = root.T @ c2 @ root
    return np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0)).sum()


def _root(c):
    values, vectors = np.linalg.eigh(c)
    return vectors * np.sqrt(np.maximum(values, 0))


def _of_few(real, fake):
    """The same for fewer images than dimensions, without the (d, d) matrices: the trace is the nuclear norm of A B^T."""
    gap = real.mean(0) - fake.mean(0)
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (real, fake))
    return float(
        gap @ gap + (a**2).sum() + (b**2).sum() - 2 * np.linalg.svd(a @ b.T, compute_uv=False).sum()
    )


def bias(features, n, m):
    """What `fid` gives on average for n and m images of one and the same distribution, whose value is 0 -> float.

    features: (k, d) or `Statistics`, from which the spectrum l of the covariance is taken. For Gaussian features and to first order in 1/n:
    (1/n + 1/m) (sum_i l_i + 1/2 sum_ij (1 + [i = j]) l_i l_j / (l_i + l_j)), the second-order term of the Bures distance under the variances
    of a Wishart matrix. The spectrum of few features is distorted, and this then too small: by up to 40 % at k = d, by more below.
    """
    if isinstance(features, Statistics):
        values = np.linalg.eigvalsh(features.covariance)
    else:
        x = rows(features, 'features', 2)
        x = (x - x.mean(0)) / (len(x) - 1) ** 0.5
        values = np.linalg.eigvalsh(x @ x.T if len(x) < x.shape[1] else x.T @ x)
    values = values[values > 1e-12 * max(values.max(), 1e-300)]
    pairs = values[:, None] * values / (values[:, None] + values)
    return float((1 / n + 1 / m) * (values.sum() + (pairs.sum() + values.sum() / 2) / 2))


def _refusal(sets, sizes, d):
    few = ' and '.join(
        f'the {name} set has {n:,}' for name, n in zip(('real', 'fake'), sizes) if n <= d
    )
    chance = bias(sets[int(np.argmax(sizes))], *sizes)
    return (
        f'a Frechet distance of {d:,}-d features needs {d + 1:,} images or more in each set, better {max(ENOUGH, 4 * d):,}; {few}. '
        f'Two sets of these sizes from one distribution would score {chance:.3g} or more, not 0. Take more images, or use kid, which has no '
        'such bias; fid(..., force=True) computes it all the same: mark the value then'
    )


def fid_infinity(real, fake, *, points=15, least=None, seed=0):
    """`fid` extrapolated to infinitely many fake images -> float (Chong and Forsyth, CVPR 2020).

    real: features or `Statistics`; fake: features (m, d). Distances of `points` random subsets of the fake images, from `least` (the larger of
    m / 10 and 2 d unless given) to all, are a line in 1/N, and its intercept is returned. The bias of the real set's size stays.
    """
    fake = rows(fake, 'fake features', 3)
    real = real if isinstance(real, Statistics) else Statistics.of(real)
    least = least or max(len(fake) // 10, 2 * fake.shape[1])
    if not fake.shape[1] < least < len(fake) or points < 2:
        raise ValueError(
            f'{points} subsets of {least:,} to {len(fake):,} fake images of {fake.shape[1]:,} dimensions give no line: '
            f'it takes 2 subsets, more than {fake.shape[1]:,} images in the smallest, and more images than that'
        )
    random, sizes = generator(seed), np.linspace(least, len(fake), points).astype(int)
    values = [
        fid(real, Statistics.of(fake[random.permutation(len(fake))[:n]], real.tag)) for n in sizes
    ]
    return float(np.polyfit(1 / sizes, values, 1)[1])
