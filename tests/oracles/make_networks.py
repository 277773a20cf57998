"""Writes networks.json: what torch-fidelity, torchvision, efficientnet-lite-pytorch and torch give
for seeded weights and images.

pip install -e .[oracles] && PYTHONPATH=tests python -m oracles.make_networks
"""

import json
import pathlib
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from oracles.load import torch_fidelity, torchvision

from t2i_jax.encoders import efficientnet_lite, inception, resnet
from t2i_jax.encoders.pretrained import IMAGENET, random_weights


def images(n=2, h=80, w=64):
    """Seeded uint8 images n h w 3: noise, the odd ones dark."""
    noise = np.random.default_rng(1).integers(0, 256, (n, h, w, 3), np.uint8)
    noise[1::2] //= 4
    return noise


def channels_first(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def tensors(weights):
    return {name: torch.from_numpy(array) for name, array in weights.items()}


def fidelity(weights, batch):
    """{output: array} of torch-fidelity's module for uint8 images."""
    torch_fidelity()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    outputs = [*inception.DEPTHS, 'logits_unbiased', 'logits']
    with tempfile.NamedTemporaryFile(suffix='.pth') as file:
        torch.save(tensors(weights), file.name)
        module = FeatureExtractorInceptionV3(
            'oracle', outputs, feature_extractor_weights_path=file.name
        )
    with torch.no_grad():
        return {name: value.numpy() for name, value in zip(outputs, module(channels_first(batch)))}


def vision(weights, batch):
    """{output: array} of torchvision's module for uint8 images resized without antialias."""
    module = (
        torchvision()
        .models.inception_v3(
            weights=None, aux_logits=False, transform_input=True, init_weights=False
        )
        .eval()
    )
    module.load_state_dict(tensors(weights), strict=False)
    pooled = {}
    for depth, layer in zip(inception.DEPTHS, ('maxpool1', 'maxpool2', 'Mixed_6e', 'Mixed_7c')):
        getattr(module, layer).register_forward_hook(
            lambda _, __, value, depth=depth: pooled.update({depth: value.mean((2, 3)).numpy()})
        )
    mean, std = (
        torch.tensor(x).view(1, 3, 1, 1) for x in (efficientnet_lite.MEAN, efficientnet_lite.STD)
    )
    with torch.no_grad():
        x = F.interpolate(
            channels_first(batch).float(), (299, 299), mode='bilinear', align_corners=False
        )
        logits = module((x / 255 - mean) / std).numpy()
    return {**pooled, 'logits': logits}


def lite(weights, batch):
    """{output: array} of efficientnet-lite-pytorch for uint8 images that are resized without
    antialias.
    """
    from efficientnet_lite_pytorch import EfficientNet

    module = EfficientNet.from_name('efficientnet-lite0').eval()
    module.load_state_dict(tensors(weights), strict=False)
    mean, std = (
        torch.tensor(x).view(1, 3, 1, 1) for x in (efficientnet_lite.MEAN, efficientnet_lite.STD)
    )
    with torch.no_grad():
        x = F.interpolate(
            channels_first(batch).float(), (224, 224), mode='bilinear', align_corners=False
        )
        x = (x / 255 - mean) / std
        return {
            '1280': module.extract_features(x).mean((2, 3)).numpy(),
            'logits': module(x).numpy(),
        }


def residual(weights, batch):
    """{output: array} of torchvision's ResNet-152 for uint8 images resized without antialias."""
    module = torchvision().models.resnet152(weights=None).eval()
    module.load_state_dict(tensors(weights), strict=False)
    pooled = {}
    module.avgpool.register_forward_hook(
        lambda _, __, value: pooled.update({'2048': value.flatten(1).numpy()})
    )
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in IMAGENET)
    with torch.no_grad():
        x = F.interpolate(
            channels_first(batch).float(), (224, 224), mode='bilinear', align_corners=False
        )
        logits = module((x / 255 - mean) / std).numpy()
    return {**pooled, 'logits': logits}


def summary(outputs):
    """The mean and the first four values of each image's row."""
    return {
        name: [[float(f'{v:.7g}') for v in (row.mean(), *row[:4])] for row in rows]
        for name, rows in outputs.items()
    }


def resized():
    """{filter: {size: values}} of the first channel of one image of 9 x 7 pixels."""
    torch_fidelity()
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    batch = channels_first(images(1, 9, 7)[..., :1]).float()
    filters = {
        'tf1_bilinear': lambda n: interpolate_bilinear_2d_like_tensorflow1x(
            batch, (n, n), align_corners=False
        ),
        'torch_bilinear': lambda n: F.interpolate(
            batch, (n, n), mode='bilinear', align_corners=False
        ),
    }
    return {
        name: {n: np.round(f(n).flatten().numpy().astype(float), 4).tolist() for n in (5, 12)}
        for name, f in filters.items()
    }


if __name__ == '__main__':
    values = {
        'inception_fid': summary(fidelity(random_weights(inception.shapes('fid'), 0), images())),
        'inception_torchvision': summary(
            vision(random_weights(inception.shapes('torchvision'), 0), images())
        ),
        'efficientnet_lite0': summary(
            lite(random_weights(efficientnet_lite.shapes(), 0), images())
        ),
        'resnet152': summary(residual(random_weights(resnet.shapes(), 0), images())),
        'resize': resized(),
    }
    path = pathlib.Path(__file__).with_name('networks.json')
    path.write_text(
        json.dumps(values, indent=0)
        .replace('\n', '')
        .replace('], "', '],\n"')
        .replace('}, "', '},\n"')
        .replace('},"', '},\n"')
        + '\n'
    )
