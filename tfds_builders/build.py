"""Build a data set.

    python -m tfds_builders.build NAME [--data_dir=...] [--manual_dir=...]
        [--file_format=array_record]

NAME is e.g. shape_scenes/single. Prints where the data lie and how many examples each split has;
of what is already built a few records are read, and it is reported.
"""

import importlib.util
import os
import sys

from absl import app, flags

from tfds_builders import DataError, get_builder, names
from tfds_builders.errors import explained, quoted

FLAGS = flags.FLAGS
flags.DEFINE_string(
    'data_dir', None, 'Where the built data go. Default: TFDS_DATA_DIR, or ~/tensorflow_datasets.'
)
flags.DEFINE_string(
    'manual_dir',
    None,
    'Where the files lie that you fetched yourself. Default: <data_dir>/downloads/manual.',
)
flags.DEFINE_enum(
    'file_format',
    'array_record',
    ['array_record', 'tfrecord'],
    't2i_jax reads array_record; tfrecord needs TensorFlow.',
)
flags.DEFINE_enum(
    'on_error',
    None,
    ['refuse', 'skip'],
    'What happens to records that cannot be used, in data sets read from files.',
)


def build(name, data_dir=None, manual_dir=None, file_format='array_record', on_error=None):
    """Build the data set unless it is there, and return its TFDS builder.

    Raises DataError for all that the user can put right, also for records that are damaged.
    """
    options = {
        key: value
        for key, value in {'manual_dir': manual_dir, 'on_error': on_error}.items()
        if value is not None
    }
    if file_format == 'tfrecord' and importlib.util.find_spec('tensorflow') is None:
        raise DataError(
            '--file_format=tfrecord needs TensorFlow: pip install tensorflow. array_record needs '
            'nothing more.'
        )
    try:
        builder = get_builder(name, data_dir=data_dir, file_format=file_format, **options)
    except DataError:
        raise
    except TypeError as error:
        # a builder that reads no files of the user's has no such keyword
        if not any(option in str(error) for option in options):
            raise
        raise DataError(
            f'Data set {name} takes no {" and no ".join("--" + option for option in options)}. '
            'Leave it out.'
        ) from None
    there = os.path.exists(builder.data_dir)
    builder.download_and_prepare()
    if there:
        builder.require_records()
    return builder


def report(builder) -> str:
    """Return where the data lie, examples a split, the split rule, and what was left out."""
    lines = [f'{builder.info.full_name} lies in {quoted(builder.data_path)}']
    lines += [
        f'  {name}: {split.num_examples:,} examples' for name, split in builder.info.splits.items()
    ]
    metadata = builder.info.metadata or {}
    if metadata.get('absent'):
        lines.append(f'  zeros, as the files have none: {", ".join(metadata["absent"])}')
    if 'split_rule' in metadata:
        lines.append(f'  split rule: {metadata["split_rule"]}')
    skipped = metadata.get('skipped') or {}
    if skipped:
        lines.append(f'  left out: {len(skipped)}')
        lines += [f'    {name}: {reason}' for name, reason in skipped.items()]
    return '\n'.join(lines)


def main(argv):
    if len(argv) != 2:
        sys.exit(
            'Name one data set: python -m tfds_builders.build NAME. There are: '
            f'{", ".join(names())}.'
        )
    try:
        builder = build(
            argv[1], FLAGS.data_dir, FLAGS.manual_dir, FLAGS.file_format, FLAGS.on_error
        )
    except DataError as error:
        sys.exit(f'Error: {error}')
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f'Error: {argv[1]} cannot be built: {explained(error)}')
    print(report(builder))


if __name__ == '__main__':
    app.run(main)
