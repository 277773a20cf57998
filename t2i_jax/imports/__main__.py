"""Command line: weights that others trained in PyTorch -> a run.

    python -m t2i_jax.imports --system=attngan --config=attngan_birds --workdir=runs/official \\
        --file netG_epoch_600.pth netD0.pth netD1.pth netD2.pth \\
        text_encoder200.pth image_encoder200.pth captions.pickle

Nothing in the files is executed, each of their tensors is accounted for, and nothing is written
where something does not fit. See docs/import_weights.md.
"""

import argparse
import sys

from absl import logging

from t2i_jax import config as settings
from t2i_jax.runtime.errors import DataError, RunError, explained, home, quoted

SYSTEMS = ('attngan',)


def cli(argv=None):
    """Read the flags, import the weights, and say how to go on.

    Mistakes of the user end in one message and exit status 1.
    """
    given = parser().parse_intermixed_args(argv)
    logging.set_verbosity(logging.WARNING)
    try:
        workdir = str(home(given.workdir))
        steps = written(given, settings.load(given.config), workdir)
    except (DataError, RunError) as error:
        sys.exit(f'Error: {error}')
    except OSError as error:
        if not error.errno:
            raise
        sys.exit(f'Error: {explained(error)}')
    stages = ', '.join(f'{name} (step {step:,})' for name, step in steps.items())
    workdir = quoted(workdir)
    further = f'For another run: --config.init.damsm={workdir}'
    if 'gan' in steps:
        further = f'Pictures: t2i_jax --workdir={workdir} --mode=sample --text="..."'
    print(f'{stages} in {workdir}. {further}')


def parser():
    """Return the parser of the flags."""
    flags = argparse.ArgumentParser(
        prog='python -m t2i_jax.imports',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument('--system', required=True, choices=SYSTEMS, help='whose weights they are')
    flags.add_argument(
        '--config',
        required=True,
        metavar='EXPERIMENT',
        help='<name> or <name>:<variant>: the data and the settings of further training',
    )
    flags.add_argument('--workdir', required=True, help='folder of the run to be written')
    flags.add_argument(
        '--file',
        action='append',
        default=[],
        help='a file of the release; more may follow it, or give --file several times',
    )
    flags.add_argument('files', nargs='*', help='more files')
    flags.add_argument(
        '--records',
        type=int,
        default=0,
        help='records of the training split, where the data are not the published ones',
    )
    flags.add_argument(
        '--mask_mode',
        default='original',
        choices=['original', 'fixed'],
        help='original: as released weights were trained, and a picture depends on the others of '
        'its batch; fixed: it does not',
    )
    return flags


def written(given, config, workdir):
    """Write the run -> {stage: step}."""
    # here, so that a typing error is answered before JAX is imported
    from t2i_jax.imports.run import import_attngan
    from t2i_jax.runtime.compiled import start_jax

    start_jax()
    return import_attngan(given.file + given.files, config, workdir, given.records, given.mask_mode)


if __name__ == '__main__':
    cli()
