"""Store a trained ShapeNet-cls in the library and compare it with the analytic reader.

    python -m benchmarks.shape_net --workdir=runs/shape_net

Writes the weights to t2i_jax/scenes/shape_net_<mode>.npz and prints, for pictures of the test split
without and with blur, what both readers make of them.
"""

import argparse

import cv2
import numpy as np

from t2i_jax.data.tables import Split
from t2i_jax.data.text import Vocabulary
from t2i_jax.run import Run
from t2i_jax.scenes import analytic, trained

NUM = 1000
BLURS = 0, 1, 2


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--workdir', required=True, help='the run that trained it')
    args = parser.parse_args()
    stage = Run.open(args.workdir)['net']
    split = Split(stage.data, 'test', ('image', 'scene'), Vocabulary(()))
    mode = split.meta.scenes
    step, state = stage.state()
    store(mode, state.sampling_params()['net'], state.stats['net'])
    path = trained.weights_path(mode)
    print(f'step {step:,}: {path}, {path.stat().st_size / 1e6:.2f} MB')
    compare(mode, split.tables['image'][:NUM], split.tables['scene'][:NUM])


def store(mode, params, stats):
    """Write parameters and running statistics, as float16, where `trained.load` reads them."""
    stored = {
        f'{part}.{name}': np.float16(value)
        for part, tree in (('p', params), ('s', stats))
        for name, value in trained.flatten(tree).items()
    }
    np.savez_compressed(trained.weights_path(mode), **stored)
    trained.load.cache_clear()


def compare(mode, images, truth):
    """Print a line for each blur: presence of pairs, recall of objects and scenes."""
    print(
        f'{"blur":>5} {"presence":>9} {"class+colour":>13} {"exact":>6}'
        f'   analytic: {"class+colour":>13} {"exact":>6}'
    )
    for sigma in BLURS:
        blurred = images
        if sigma:
            blurred = np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in images])
        own, other = (
            recalled(reader.decode_all(blurred, mode), truth) for reader in (trained, analytic)
        )
        presence = trained.presence(blurred, mode, truth)
        print(f'{sigma:>5} {presence:>9.4f} {own}             {other}', flush=True)


def recalled(scenes, truth) -> str:
    """Return the shares of objects (class and colour) and scenes that were read exactly."""
    found = [analytic.recall(a, b) for a, b in zip(scenes, truth)]
    right = sum(one['class_colour'] for one in found) / sum(one['objects'] for one in found)
    return f'{right:>13.3f} {np.mean([one["exact"] for one in found]):>6.3f}'


if __name__ == '__main__':
    main()
