"""What other tools say about seeded features and images. Writes metrics.json, which the tests read
where the tools are not installed:

pip install -e .[oracles] && PYTHONPATH=tests python -m oracles.make_metrics
"""

import json
import pathlib

import numpy as np
import pytest
from oracles import load

FILE = pathlib.Path(__file__).with_name('metrics.json')


def features(n, d=64, seed=0, scale=1.0, shift=0.0):
    """Gaussian, with a spectrum that decays as that of a network's features."""
    return (
        np.random.default_rng(seed).standard_normal((n, d)) * np.exp(-np.arange(d) * 8 / d) * scale
        + shift
    )


def doubled(x):
    return np.concatenate([x, x], 1)


def some_zero(x):
    return x * (np.arange(x.shape[1]) < 40)


def pictures(size, seed):
    """Two batches of smooth uint8 images, of which the second is the first with noise."""
    random = np.random.default_rng(seed)
    coarse = random.random((3, size // 16 + 1, size // 16 + 1, 3))
    smooth = np.kron(coarse, np.ones((1, 16, 16, 1)))[:, :size, :size]
    return tuple(
        (np.clip(x, 0, 1) * 255).astype(np.uint8)
        for x in (smooth, smooth + random.normal(0, 0.15, smooth.shape))
    )


FEATURES = {
    'n > d': lambda: (features(600), features(500, seed=1, scale=1.1, shift=0.05)),
    'n < d': lambda: (features(40), features(50, seed=1, scale=1.1, shift=0.05)),
    'n < d < m': lambda: (features(40), features(500, seed=1, scale=1.1, shift=0.05)),
    'nearly equal': lambda: (features(600), features(600) + 0.001 * features(600, seed=1)),
    'one image less': lambda: (features(600), features(600)[1:]),
    'both singular': lambda: (
        doubled(features(600)),
        doubled(features(500, seed=1, scale=1.1, shift=0.05)),
    ),
    'one singular': lambda: (
        some_zero(features(600)),
        features(500, seed=1, scale=1.1, shift=0.05),
    ),
    'd = 512': lambda: (features(900, 512), features(800, 512, seed=1, scale=1.1, shift=0.05)),
}
INPUTS = {
    'fid': FEATURES,
    'kid': {name: FEATURES[name] for name in ('n > d', 'nearly equal', 'd = 512')},
    'precision_recall': {name: FEATURES[name] for name in ('n > d', 'nearly equal')},
    'density_coverage': {name: FEATURES[name] for name in ('n > d', 'nearly equal')},
    'inception_score': {
        '20 classes': lambda: (3 * features(505, 20),),
        '1008 classes': lambda: (features(1003, 1008, scale=8),),
    },
    'ms_ssim': {
        '5 scales': lambda: (*pictures(176, 0), 5),
        '3 scales': lambda: (*pictures(164, 1), 3),
    },
}


def moments(x):
    return x.mean(0), np.cov(x, rowvar=False)


def torch_fidelity_fid(x, y):
    load.torch_fidelity()
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    x, y = (dict(zip(('mu', 'sigma'), moments(z))) for z in (x, y))
    return fid_statistics_to_metric(x, y, False)['frechet_inception_distance']


def pytorch_fid_fid(x, y):
    load.torchvision()
    pytest.importorskip('pytorch_fid')
    from pytorch_fid.fid_score import calculate_frechet_distance

    return calculate_frechet_distance(*moments(x), *moments(y))


def clean_fid_fid(x, y):
    load.torchvision()
    pytest.importorskip('cleanfid')
    from cleanfid.fid import frechet_distance

    return frechet_distance(*moments(x), *moments(y))


def torch_fidelity_kid(x, y):
    """10 subsets of 100, drawn by RandomState(2020)."""
    torch = load.torch_fidelity() and pytest.importorskip('torch')
    from torch_fidelity.metric_kid import kid_features_to_metric

    found = kid_features_to_metric(
        torch.tensor(x),
        torch.tensor(y),
        kid_subsets=10,
        kid_subset_size=100,
        rng_seed=2020,
        verbose=False,
    )
    return [found['kernel_inception_distance_mean'], found['kernel_inception_distance_std']]


def torch_fidelity_inception_score(logits):
    """10 splits, shuffled by RandomState(2020)."""
    torch = load.torch_fidelity() and pytest.importorskip('torch')
    from torch_fidelity.metric_isc import isc_features_to_metric

    found = isc_features_to_metric(torch.tensor(logits), 10, True, 2020)
    return [found['inception_score_mean'], found['inception_score_std']]


def torch_fidelity_precision_recall(real, fake):
    """k = 3; it takes the fakes first."""
    torch = load.torch_fidelity() and pytest.importorskip('torch')
    from torch_fidelity.metric_prc import prc_features_to_metric

    found = prc_features_to_metric(
        torch.tensor(fake),
        torch.tensor(real),
        prc_neighborhood=3,
        prc_batch_size=1000,
        verbose=False,
    )
    return [found['precision'], found['recall']]


def prdc_density_coverage(real, fake):
    """k = 5"""
    found = pytest.importorskip('prdc').compute_prdc(real, fake, 5)
    return [float(found['density']), float(found['coverage'])]


def pytorch_msssim_ms_ssim(a, b, scales):
    """The first weights, made to add up to 1.

    It refuses images below 161 px, whatever the number of scales.
    """
    torch, tool = pytest.importorskip('torch'), pytest.importorskip('pytorch_msssim')
    a, b = (torch.tensor(x).permute(0, 3, 1, 2).double() for x in (a, b))
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    return tool.ms_ssim(
        a, b, data_range=255, size_average=False, weights=(weights / weights.sum()).tolist()
    ).tolist()


ORACLES = {
    'fid': {
        'torch-fidelity': torch_fidelity_fid,
        'pytorch-fid': pytorch_fid_fid,
        'clean-fid': clean_fid_fid,
    },
    'kid': {'torch-fidelity': torch_fidelity_kid},
    'inception_score': {'torch-fidelity': torch_fidelity_inception_score},
    'precision_recall': {'torch-fidelity': torch_fidelity_precision_recall},
    'density_coverage': {'prdc': prdc_density_coverage},
    'ms_ssim': {'pytorch-msssim': pytorch_msssim_ms_ssim},
}
NAMES = [
    f'{metric}/{case}/{tool}'
    for metric, cases in INPUTS.items()
    for case in cases
    for tool in ORACLES[metric]
]


def oracle(name):
    metric, case, tool = name.split('/')
    return ORACLES[metric][tool](*INPUTS[metric][case]())


if __name__ == '__main__':
    FILE.write_text(json.dumps({name: oracle(name) for name in NAMES}, indent=1) + '\n')
