"""Command line: flags, and nothing else.

python -m t2i_jax.main --config=experiments/gan_cls_shapes.py:quick --workdir=runs/quick        # train, or resume
python -m t2i_jax.main --workdir=runs/quick --mode=sample --text="a green circle"               # text -> PNG
python -m t2i_jax.main --config=experiments/gan_cls_flowers.py --mode=describe                  # sizes and settings
"""
import os
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

MODES = ('train', 'sample', 'describe')
FLAGS = flags.FLAGS
flags.DEFINE_string('workdir', None, 'Folder of the run: config, checkpoints, losses, pictures.')
flags.DEFINE_string('mode', 'train', f'What to do: {", ".join(MODES)}.')
flags.DEFINE_multi_string('text', [], 'sample: a sentence; may be given several times.')
flags.DEFINE_string('text_file', None, 'sample: a file with one sentence a line.')
flags.DEFINE_integer('num', 8, 'sample: pictures for each sentence.')
flags.DEFINE_integer('seed', 0, 'sample: seed of the noise.')
flags.DEFINE_string('out', None, 'sample: folder for the pictures; <workdir>/samples by default.')


def main(argv):
    from t2i_jax import run, sample, train
    from t2i_jax.errors import RunError
    if argv[1:]:
        raise RunError(f'{argv[1]!r} is no option. Options begin with --; --help lists them.')
    if FLAGS.mode not in MODES:
        raise RunError(f'There is no mode {FLAGS.mode!r}. There are: {", ".join(MODES)}.')
    if FLAGS.config is None:
        raise RunError('Give --config=experiments/<name>.py, or the --workdir of a run that exists.')
    if FLAGS.mode == 'describe':
        return print(run.describe(FLAGS.config))
    if not FLAGS.workdir:
        raise RunError('Give --workdir=<folder>: what is trained and drawn lies there.')
    if FLAGS.mode == 'train':
        return train.train(FLAGS.config, FLAGS.workdir)
    texts = FLAGS.text + (sample.read_lines(FLAGS.text_file) if FLAGS.text_file else [])
    sample.to_files(FLAGS.workdir, texts, FLAGS.num, FLAGS.seed, FLAGS.out)


def define_config(argv):
    """--config from a file, or, where it is not given, the config of the run that exists, so that --config.x=... works on both."""
    from t2i_jax import run
    from t2i_jax.errors import RunError
    given = [a.removeprefix('-').removeprefix('-') for a in argv]
    files = [a.partition('=')[2] for a in given if a.startswith('config=')] + [b for a, b in zip(given, given[1:]) if a == 'config']
    workdirs = [a.partition('=')[2] for a in given if a.startswith('workdir=')] + [b for a, b in zip(given, given[1:]) if a == 'workdir']
    if files:
        path = pathlib.Path(files[-1].partition(':')[0])
        if not path.exists():
            known = sorted(p.stem for p in pathlib.Path('experiments').glob('*.py') if p.stem not in ('common', '__init__'))
            raise RunError(f'There is no experiment {path}. Under experiments/ there are: {", ".join(known)}.')
        config_flags.DEFINE_config_file('config', lock_config=True)
    elif workdirs and not any(a in ('help', 'helpfull', 'helpshort') for a in given):
        config_flags.DEFINE_config_dict('config', run.load_config(os.path.expanduser(workdirs[-1])), lock_config=True)
    else:
        config_flags.DEFINE_config_file('config', help_string='experiments/<name>.py, or experiments/<name>.py:variant.', lock_config=True)


def cli(argv=None):
    """The program; what a person can put right ends in one message and exit status 1."""
    argv = sys.argv if argv is None else argv
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    logging.set_verbosity(logging.WARNING)     # Orbax tells every rename at INFO
    from t2i_jax.errors import DataError, RunError
    from t2i_jax.train import Interrupted
    try:
        define_config(argv)
        rest = FLAGS(argv)
        start_jax()
        main(rest)
    except (DataError, RunError, flags.Error) as error:
        sys.exit(f'Error: {error}')
    except (AttributeError, KeyError) as error:
        if 'Did you mean' in str(error) or 'config' in str(error).lower():
            sys.exit(f'Error: {error}')
        raise
    except Interrupted as error:
        print(error)
        sys.exit(130)


def start_jax():
    """Compiled programs are kept in the user's cache folder, so that the second start is fast; joins the other hosts of a job."""
    import jax

    from t2i_jax import sharding
    jax.config.update('jax_compilation_cache_dir', os.environ.get('JAX_COMPILATION_CACHE_DIR', os.path.expanduser('~/.cache/t2i_jax/compiled')))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)
    sharding.start_hosts()


if __name__ == '__main__':
    cli()
