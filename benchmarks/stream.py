"""Memory of the process while an epoch of generated records streams by, with cache='none'.

    python -m benchmarks.stream --records=100000 --workers=2

After the first batches it must not grow.
"""

import argparse
import contextlib
import pathlib
import tempfile

import cv2
import numpy as np
import tensorflow_datasets as tfds

from t2i_jax import config as settings
from t2i_jax.data import dataset
from t2i_jax.data.feed import host_batches
from t2i_jax.data.plan import Plan
from t2i_jax.data.tables import Split


class NoiseRecords(tfds.core.GeneratorBasedBuilder):
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
            _, image = cv2.imencode('.jpg', rng.integers(0, 256, (76, 76, 3), np.uint8))
            yield i, {'image': image.tobytes(), 'captions': [f'picture number {i}']}


def resident(pid='self') -> float:
    """Measure the megabytes of memory of a process and its children."""
    total, place = 0.0, pathlib.Path('/proc', str(pid))
    # it may end meanwhile
    with contextlib.suppress(OSError):
        for line in (place / 'status').read_text().splitlines():
            if line.startswith('VmRSS'):
                total += int(line.split()[1]) / 1024
        children = ' '.join(file.read_text() for file in place.glob('task/*/children')).split()
        total += sum(map(resident, children))
    return total


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--records', type=int, default=100_000)
    parser.add_argument('--workers', type=int, default=0, help='processes; 0: threads')
    parser.add_argument('--batch', type=int, default=100)
    args = parser.parse_args()
    NoiseRecords.records = args.records
    with tempfile.TemporaryDirectory() as folder:
        builder = NoiseRecords(data_dir=folder, file_format='array_record')
        builder.download_and_prepare()
        dataset.prepared = lambda data: builder
        needs = ('image', 'tokens')
        data = settings.defaults(settings.DATA) | dict(cache='none', size=64)
        split = Split(data, 'train', needs)
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
