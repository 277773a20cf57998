"""Streams an epoch of generated records with cache='none' and prints the memory that the process holds on the way.

    python -m benchmarks.stream --records=100000 --workers=2

After the first batches it must not grow.
"""

import argparse
import pathlib
import tempfile

import cv2
import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from t2i_jax import config as settings
from t2i_jax.data import tables
from t2i_jax.data.feed import host_batches
from t2i_jax.data.plan import Plan


class Noise(tfds.core.GeneratorBasedBuilder):
    """Pictures of noise, each with a caption."""

    VERSION = tfds.core.Version('1.0.0')
    records = 1000

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(None, None, 3)),
                    'captions': tfds.features.Sequence(tfds.features.Text()),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        rng = np.random.default_rng(0)
        for i in range(self.records):
            yield (
                i,
                {
                    'image': cv2.imencode('.jpg', rng.integers(0, 256, (76, 76, 3), np.uint8))[
                        1
                    ].tobytes(),
                    'captions': [f'picture number {i}'],
                },
            )


def resident(pid='self') -> float:
    """Megabytes of memory of this process and its children."""
    total, place = 0.0, pathlib.Path('/proc', str(pid))
    try:
        total = (
            next(
                int(line.split()[1])
                for line in (place / 'status').read_text().splitlines()
                if line.startswith('VmRSS')
            )
            / 1024
        )
        children = ' '.join(file.read_text() for file in place.glob('task/*/children')).split()
    except (OSError, StopIteration):  # it has just ended
        return total
    return total + sum(map(resident, children))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--records', type=int, default=100_000)
    parser.add_argument('--workers', type=int, default=0, help='processes; 0: threads')
    parser.add_argument('--batch', type=int, default=100)
    args = parser.parse_args()
    Noise.records = args.records
    with tempfile.TemporaryDirectory() as folder:
        builder = Noise(data_dir=folder, file_format='array_record')
        builder.download_and_prepare()
        tables.prepared = lambda config: builder
        needs = ('image', 'tokens')
        split = tables.Split(
            ConfigDict(
                settings.merge(settings.defaults(settings.DATA), dict(cache='none', size=64))
            ),
            'train',
            needs,
        )
        plan = Plan(split, args.batch, 0, needs)
        print(f'{len(split):,} records; the tables of captions are read: {resident():,.0f} MB')
        stream = host_batches(split, plan, 0, plan.steps_per_epoch, 'none', args.workers)
        seen = set()
        for step, batch in enumerate(stream):
            seen |= set(batch['index'].tolist())
            if step % max(1, plan.steps_per_epoch // 10) == 0:
                print(f'{(step + 1) * args.batch:>9,} records  {resident():,.0f} MB', flush=True)
        print(f'{len(seen):,} different records')


if __name__ == '__main__':
    main()
