"""Frechet distance between Gaussians with the moments of two sets of features.

    |m1 - m2|^2 + Tr C1 + Tr C2 - 2 Tr (C1 C2)^(1/2),  C the unbiased covariances

Heusel et al., NeurIPS 2017. It is called FID where the features are the 2048 of the Inception graph
of 2015-12-05, and is comparable only at one resize filter, one reference set and one number of
images: it is biased upward, the more the fewer images there are (`bias`). Everything is float64.
"""

import pathlib
import zipfile

import numpy as np
from numpy.typing import ArrayLike

from t2i_jax.metrics.arrays import Seed, blocks, generator, rows, same_width
from t2i_jax.runtime.files import replacing
from tfds_builders.errors import quoted
from tfds_builders.files import require_file

# number of images below which a value is hardly worth printing
ENOUGH = 10_000
# rows of features in float64 at a time
BLOCK = 2048
# bytes of a file of statistics, unpacked
MOST = 1 << 30


class Statistics:
    """Moments of features that come in batches.

    n: number of features
    mean: (d,)
    scatter: (d, d), sum of the outer products of deviations from the mean
    tag: the network, layer, weights and resize filter that made the features. Only statistics of
        one tag can be merged or compared
    """

    def __init__(self, tag: str = ''):
        self.tag, self.n, self.mean, self.scatter = tag, 0, None, None

    @classmethod
    def of(cls, features: ArrayLike, tag: str = '') -> 'Statistics':
        """Collect the statistics of one array (n, d)."""
        statistics = cls(tag)
        statistics.update(features)
        return statistics

    @property
    def d(self) -> int:
        """Number of dimensions, 0 before the first update."""
        return len(self.mean) if self.n else 0

    @property
    def covariance(self) -> np.ndarray:
        """Covariance (d, d), divided by n - 1. Raises ValueError for fewer than two rows."""
        if self.n < 2:
            raise ValueError(
                f'a covariance needs 2 images or more, and these statistics have seen {self.n}'
            )
        return self.scatter / (self.n - 1)

    def update(self, features: ArrayLike) -> None:
        """Add features (b, d).

        Raises ValueError for another d than before, NaN and infinity; the row in the message is
        counted from the first update.
        """
        features = np.asarray(features)
        for part in blocks(len(features) if features.ndim else 1, BLOCK):
            x = rows(features[part] if features.ndim else features, 'features', first=self.n)
            mean = x.mean(0)
            x = x - mean
            self._add(len(x), mean, x.T @ x)

    def merge(self, other: 'Statistics') -> None:
        """Add the statistics of another set, as if all its features had come here."""
        if other.tag != self.tag:
            raise ValueError(
                f'statistics of {self.tag!r} and of {other.tag!r} do not mix: '
                'take both from one network'
            )
        if other.n:
            self._add(other.n, other.mean, other.scatter)

    def _add(self, n, mean, scatter):
        """Add the moments of another sample (Chan, Golub and LeVeque, 1979)."""
        if not self.n:
            self.n, self.mean, self.scatter = n, mean.copy(), scatter.copy()
            return
        same_width(self.d, len(mean), 'earlier and later features')
        gap, total = mean - self.mean, self.n + n
        self.scatter += scatter
        self.scatter += np.outer(gap, gap * (self.n * n / total))
        self.mean += gap * (n / total)
        self.n = total

    def save(self, path: str | pathlib.Path) -> None:
        """Write an .npz without pickles. Raises ValueError where there are no features yet."""
        if not self.n:
            raise ValueError(
                f'{quoted(path)}: statistics without features are not written; update them first'
            )
        with replacing(path) as temporary, open(temporary, 'wb') as file:
            np.savez(file, n=self.n, mean=self.mean, scatter=self.scatter, tag=np.array(self.tag))

    @classmethod
    def load(cls, path: str | pathlib.Path, tag: str | None = None) -> 'Statistics':
        """Read a file of `save`.

        tag: the tag that the file must have; None accepts any

        Raises ValueError for a file that is missing or another, another tag and wrong shapes.
        """
        found = read_arrays(path)
        lacking = [name for name in ('n', 'mean', 'scatter', 'tag') if name not in found]
        if lacking:
            raise ValueError(
                f'{quoted(path)} holds no statistics of features (no {", ".join(lacking)}): make '
                'it with Statistics.save'
            )
        statistics = cls(str(found['tag']))
        if tag is not None and statistics.tag != tag:
            raise ValueError(
                f'{quoted(path)} was made with {statistics.tag!r}, expected {tag!r}: compute the '
                'statistics again with that network'
            )
        n, mean, scatter = found['n'], found['mean'], found['scatter']
        if n.size != 1 or n.dtype.kind not in 'iu' or n < 1 or not fit(mean, scatter):
            raise ValueError(
                f'{quoted(path)}: n = {n}, mean {mean.shape} and scatter {scatter.shape} do not '
                'fit together'
            )
        statistics.n, statistics.mean, statistics.scatter = int(n), mean, scatter
        return statistics


def read_arrays(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz; nothing is unpickled.

    Raises ValueError for a file that is missing or another, and for more than MOST bytes.
    """
    path = require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MOST:
            raise ValueError(f'it unpacks to {size / 1e9:,.0f} GB')
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:
        # damaged bytes make their readers raise many kinds
        raise ValueError(
            f'{quoted(path)} holds no statistics of features ({error}): make it with '
            'Statistics.save'
        ) from error


def fit(mean, matrix) -> bool:
    """Whether a mean (d,) and a symmetric matrix (d, d) are finite and of one d."""
    numbers = mean.dtype.kind == matrix.dtype.kind == 'f'
    d = len(mean) if mean.ndim == 1 else 0
    if not numbers or not d or matrix.shape != (d, d):
        return False
    finite = np.isfinite(mean).all() and np.isfinite(matrix).all()
    return bool(finite and np.allclose(matrix, matrix.T, atol=1e-6 * abs(matrix).max()))


Features = ArrayLike | Statistics


def fid(real: Features, fake: Features, *, force: bool = False) -> float:
    """Compute the Frechet distance; 0 or more but for rounding.

    real, fake: features (n, d) and (m, d), or `Statistics`, or one of each
    force: compute a value also where a set has no more images than dimensions: the covariance is
        singular then, and the value mostly bias

    Raises ValueError for such a set without `force`, unequal dimensions or tags, NaN and infinity.
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
    tags = [x.tag if isinstance(x, Statistics) else None for x in sets]
    # features without a tag are taken to be of the other side's network
    tags = [other or '' if own is None else own for own, other in zip(tags, tags[::-1])]
    if tags[0] != tags[1]:
        raise ValueError(
            f'real features are of {tags[0]!r}, fake features of {tags[1]!r}: '
            'take both from one network'
        )
    real, fake = (x if isinstance(x, Statistics) else Statistics.of(x) for x in sets)
    return frechet(real.mean, real.covariance, fake.mean, fake.covariance)


def frechet(m1: np.ndarray, c1: np.ndarray, m2: np.ndarray, c2: np.ndarray) -> float:
    """Compute the Frechet distance of two Gaussians by means (d,) and covariances (d, d)."""
    gap = m1 - m2
    return float(gap @ gap + np.trace(c1) + np.trace(c2) - 2 * _trace_of_root(c1, c2))


def _trace_of_root(c1, c2):
    """Tr (C1 C2)^(1/2) of two symmetric matrices without negative eigenvalues.

    For any R with C1 = R R^T the eigenvalues of C1 C2 are those of the symmetric R^T C2 R. The
    triangular R takes an eighth of the time of the symmetric one, and it leaves no noise of rounded
    zeros where the sets are nearly equal. Singular covariances have no triangular R: there the
    trace is the sum of the singular values of R1^T R2, which do not need the roots of rounded
    zeros.
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
    """`fid` of fewer images than dimensions, without the (d, d) matrices.

    The trace of the root is the nuclear norm of A B^T.
    """
    gap = real.mean(0) - fake.mean(0)
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (real, fake))
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(gap @ gap + (a**2).sum() + (b**2).sum() - 2 * root)


def bias(features: Features, n: int, m: int) -> float:
    """Estimate the mean of `fid` for n and m images of one distribution.

    Its true value is 0. For Gaussian features and to first order in 1/n:

        (1/n + 1/m) (sum_i l_i + 1/2 sum_ij (1 + [i = j]) l_i l_j / (l_i + l_j)),

    the second-order term of the Bures distance under the variances of a Wishart matrix. The
    spectrum of few features is distorted, and the estimate then too small: by up to 40 % at k = d,
    by more below.

    features: (k, d) or `Statistics`, for the spectrum l of the covariance
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
        f'a Frechet distance of {d:,}-d features needs {d + 1:,} images or more in each set, '
        f'better {max(ENOUGH, 4 * d):,}; {few}. Two sets of these sizes from one distribution '
        f'would score {chance:.3g} or more, not 0. Take more images, or use kid, which has no such '
        'bias; fid(..., force=True) computes it all the same: mark the value then'
    )


def fid_infinity(
    real: Features, fake: ArrayLike, *, points: int = 15, least: int | None = None, seed: Seed = 0
) -> float:
    """Extrapolate `fid` to infinitely many fake images (Chong and Forsyth, CVPR 2020).

    Distances of random subsets of the fake images are a line in 1/N, and its intercept is returned.
    The bias of the real set's size stays.

    real: features (n, d) or `Statistics`
    fake: features (m, d)
    points: number of subsets
    least: size of the smallest subset, by default the larger of m / 10 and 2 d; the largest has all
    seed: a number or a generator

    Raises ValueError where the sizes give no line.
    """
    fake = rows(fake, 'fake features', 3)
    real = real if isinstance(real, Statistics) else Statistics.of(real)
    d = fake.shape[1]
    least = least or max(len(fake) // 10, 2 * d)
    if not d < least < len(fake) or points < 2:
        raise ValueError(
            f'{points} subsets of {least:,} to {len(fake):,} fake images of {d:,} dimensions give '
            f'no line: it takes 2 subsets, more than {d:,} images in the smallest, and more images '
            'than that'
        )
    random, sizes = generator(seed), np.linspace(least, len(fake), points).astype(int)
    values = [
        fid(real, Statistics.of(fake[random.permutation(len(fake))[:n]], real.tag)) for n in sizes
    ]
    return float(np.polyfit(1 / sizes, values, 1)[1])
