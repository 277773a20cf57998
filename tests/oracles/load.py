"""Importing the oracles."""

import pytest


def torchvision():
    """torchvision, for the oracles that import it. Its wheels are built for CUDA: beside a CPU
    build of torch its compiled operators do not load, and the import fails over those that it
    expects without asking. Declared here, none of them is ever called.
    """
    torch = pytest.importorskip('torch')
    try:
        return pytest.importorskip('torchvision')
    except RuntimeError:
        for operator in ('nms', 'qnms'):
            torch.library.define(
                f'torchvision::{operator}',
                '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
            )
        return pytest.importorskip('torchvision')


def torch_fidelity():
    torchvision()
    return pytest.importorskip('torch_fidelity')
