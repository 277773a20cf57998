"""Multi-scale structural similarity of pairs of images: 1 for equal images.

Wang, Simoncelli and Bovik, 2003. Between two samples of one caption lower means more diverse (Odena
et al., ICML 2017), see `diversity.pairwise`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from t2i_jax.metrics.arrays import blocks

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
BATCH = 64


def ms_ssim(a: ArrayLike, b: ArrayLike, *, scales: int | None = None) -> np.ndarray:
    """Compute MS-SSIM of images with images -> float64 (n,), at most 1.

    Each channel alone, then their mean. The window is a Gaussian of 11 px, without padding;
    negative contrasts count as 0; an odd side repeats its last row before halving.

    a, b: (n, h, w, c), both uint8, or both float in [-1, 1]
    scales: 1 to 5; by default 5 from 161 px on, else 3 (from 41 px) with the first weights divided
        by their sum: values of different numbers of scales do not compare

    Raises ValueError for unequal shapes, values out of range, and images that are too small.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.ndim != 4 or not len(a):
        raise ValueError(f'expected two arrays of images (n, h, w, c), got {a.shape} and {b.shape}')
    for name, x in (('first', a), ('second', b)):
        # NaN does not fit, either
        if x.dtype != np.uint8 and not (fits := abs(x) <= 1 + 1e-6).all():
            worst = int(np.argmin(fits.reshape(len(x), -1).all(1)))
            raise ValueError(
                f'the {name} images: float images lie in [-1, 1], and image {worst} does not '
                '(or holds NaN); 0..255 must be uint8'
            )
    side = min(a.shape[1:3])
    scales = scales or (len(WEIGHTS) if side > (WINDOW - 1) << 4 else 3)
    if not 1 <= scales <= len(WEIGHTS) or side <= (WINDOW - 1) << (scales - 1):
        fitting = sum(side > (WINDOW - 1) << i for i in range(len(WEIGHTS)))
        needed = ((WINDOW - 1) << (scales - 1)) + 1
        raise ValueError(
            f'images of {side} px are too small for {scales} scales, which need {needed}: '
            + (f'pass scales={fitting}' if fitting else 'make them larger')
        )
    parts = [_ms_ssim(_unit(a[p]), _unit(b[p]), scales) for p in blocks(len(a), BATCH)]
    return np.concatenate(parts).astype(np.float64)


def _unit(x):
    """To float32 in [0, 1]."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else (x.astype(np.float32) + 1) / 2


@functools.partial(jax.jit, static_argnums=2)
def _ms_ssim(a, b, scales):
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    value = 1.0
    for i, weight in enumerate(weights):
        luminance, contrast = _ssim(a, b)  # b c
        last = i == scales - 1
        value *= jax.nn.relu(luminance if last else contrast) ** weight
        a, b = (a, b) if last else (_half(a), _half(b))
    return value.mean(-1)


def _ssim(a, b):
    """SSIM, and its factor without luminance, averaged over the image: b c each."""
    line = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    line = (line / line.sum()).astype(np.float32)

    def blur(x):  # h w c -> h-10 w-10 c
        h, w = x.shape[-3] - WINDOW + 1, x.shape[-2] - WINDOW + 1
        x = sum(weight * x[..., i : h + i, :, :] for i, weight in enumerate(line))
        return sum(weight * x[..., i : w + i, :] for i, weight in enumerate(line))

    mean_a, mean_b, square_a, square_b, product = blur(jnp.stack([a, b, a * a, b * b, a * b]))
    variances, covariance = square_a + square_b - mean_a**2 - mean_b**2, product - mean_a * mean_b
    contrast = (2 * covariance + K2**2) / (variances + K2**2)
    luminance = (2 * mean_a * mean_b + K1**2) / (mean_a**2 + mean_b**2 + K1**2)
    return (luminance * contrast).mean((1, 2)), contrast.mean((1, 2))


def _half(x):
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode='edge')
    return x.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c).mean((2, 4))
