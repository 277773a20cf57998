"""Time and memory of the metrics, and what EfficientNet-Lite0 sees in photographs.

python -m benchmarks.metrics                       # distances, and features a second
python -m benchmarks.metrics --photographs=DIR     # the five most probable classes of a few
"""

import argparse
import pathlib
import resource
import statistics
import time

import cv2
import numpy as np

from t2i_jax.encoders import efficientnet_lite
from t2i_jax.evaluate.features import extractor
from t2i_jax.metrics.fid import fid
from t2i_jax.metrics.kid import kid
from t2i_jax.metrics.prdc import density_coverage, precision_recall


def timed(name, function):
    """Print the time of a call, and the peak memory of the process so far."""
    start = time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f'{name:<40} {seconds:>8.1f} s   peak so far {peak:.2f} GiB', flush=True)


def distances(n, d):
    """Time the distances of two sets (n, d) whose spectrum falls like that of a network's."""
    rng = np.random.default_rng(0)
    scale = (1 / np.arange(1, d + 1)).astype(np.float32)
    real, fake = (rng.standard_normal((n, d), np.float32) * scale + shift for shift in (0, 0.01))
    metrics = {
        'fid': fid,
        'kid, 100 x 1,000': kid,
        'precision_recall': precision_recall,
        'density_coverage': density_coverage,
    }
    for name, function in metrics.items():
        timed(f'{name}, 2 x {n:,} x {d:,}', lambda function=function: function(real, fake))


def features(name, size=64, repeats=5):
    """Print how many features a second a network gives, the median of `repeats` batches."""
    network = extractor(name)
    images = np.random.default_rng(0).integers(0, 256, (32, size, size, 3), np.uint8)
    network(images)
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        network(images)
        rates.append(len(images) / (time.perf_counter() - start))
    print(f'{name:<40} {statistics.median(rates):>8.1f} features/s from {size} px', flush=True)


def photographs(folder, count=10):
    """Print the most probable classes of the first photographs of a folder."""
    network = extractor('efficientnet_lite0')
    for path in sorted(pathlib.Path(folder).expanduser().rglob('*.jpg'))[:count]:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        side = min(image.shape[:2])
        top, left = ((length - side) // 2 for length in image.shape[:2])
        (found,) = efficientnet_lite.top(
            network(image[top : top + side, left : left + side][None])['logits']
        )
        print(path.name, ', '.join(f'{name} {share:.2f}' for name, share in found), flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--photographs', help='a folder of .jpg')
    parser.add_argument('--n', type=int, default=10_000, help='features of each set')
    parser.add_argument('--networks', default='random_conv,efficientnet_lite0,inception_fid')
    args = parser.parse_args()
    if args.photographs:
        return photographs(args.photographs)
    for name in filter(None, args.networks.split(',')):
        features(name)
    distances(args.n, 2048)


if __name__ == '__main__':
    main()
