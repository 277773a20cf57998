"""Command line: flags, and nothing else.

python -m t2i_jax.main --config=experiments/gan_cls_shapes.py:quick --workdir=runs/quick        # train, or resume
python -m t2i_jax.main --workdir=runs/quick --mode=sample --text="a green circle"               # text -> PNG
python -m t2i_jax.main --workdir=runs/layout --mode=sample --labels="person, dog, frisbee"      # a set of labels -> boxes
python -m t2i_jax.main --workdir=runs/quick --mode=explore --what=z_interpolation               # one condition moves, all others stay
python -m t2i_jax.main --config=experiments/gan_cls_flowers.py --mode=describe                  # sizes and settings
python -m t2i_jax.main --workdir=runs/quick --mode=evaluate                                     # numbers and their protocol
python -m t2i_jax.main --mode=compare runs/quick runs/other                                     # numbers side by side
"""

import importlib.util
import logging as python_logging
import os
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

MODES = ('train', 'sample', 'explore', 'describe', 'evaluate', 'compare')
FLAGS = flags.FLAGS
flags.DEFINE_string('workdir', None, 'Folder of the run: config, checkpoints, losses, pictures.')
flags.DEFINE_string('mode', 'train', f'What to do: {", ".join(MODES)}.')
flags.DEFINE_multi_string('text', [], 'sample, explore: a sentence; may be given several times.')
flags.DEFINE_string('text_file', None, 'sample, explore: a file with one sentence a line.')
flags.DEFINE_multi_string(
    'labels',
    [],
    'sample, systems that draw from a set of labels (LayoutVAE): "person, dog, frisbee"; may be given several '
    'times. --text works, too: the labels that a sentence names.',
)
flags.DEFINE_multi_string(
    'attributes',
    [],
    'sample, systems that draw from attributes (Attribute2Image): names, "circle, red", of which those not said '
    'are drawn or 0, or all numbers, "1 0 0 ...", in [0, 1]; may be given several times. --text works, too, where the data '
    'set can read it.',
)
flags.DEFINE_integer(
    'num',
    8,
    'sample: pictures (or layouts) for each sentence, set of labels or vector of attributes; explore: how many are looked at.',
)
flags.DEFINE_integer('seed', 0, 'sample, explore: seed of the noise.')
flags.DEFINE_string(
    'out',
    None,
    'sample, explore: folder for the pictures, <workdir>/samples and <workdir>/explore by default; evaluate --images: folder '
    'for the report; compare: PNG of the plot.',
)
flags.DEFINE_string(
    'stage',
    None,
    'sample, evaluate, explore: the stage of the run, where it is not the last one that draws.',
)
flags.DEFINE_string(
    'what',
    None,
    'explore: text_interpolation, z_interpolation, swap_word, attention, style, attributes, layers, '
    'reconstruction or completion; see t2i_jax/explore.py.',
)
flags.DEFINE_multi_string(
    'image',
    [],
    'explore: a picture of yours instead of held-out ones; --what=style takes several, others --attributes as far as '
    'they are known.',
)
flags.DEFINE_string(
    'images', None, 'evaluate: a folder of pictures made elsewhere, instead of a run.'
)
flags.DEFINE_string(
    'captions',
    None,
    'evaluate --images: a file with the sentence of each picture, one a line, in the order of file names.',
)
flags.DEFINE_string(
    'reference', None, 'evaluate --images: a folder of real pictures, or statistics as .npz.'
)
flags.DEFINE_string(
    'extractor', '', 'evaluate --images: the feature network; of a run --config.eval.extractor.'
)
flags.DEFINE_string('extractor_weights', '', 'evaluate --images: file with its weights.')
flags.DEFINE_string(
    'coordinator',
    None,
    'train, in several processes: host:port of process 0, or auto where JAX can find the others itself (a TPU pod); under '
    'SLURM and Open MPI not needed.',
)
flags.DEFINE_integer('processes', None, 'train: how many processes there are, with --coordinator.')
flags.DEFINE_integer(
    'process', None, 'train: which of them this one is, from 0, with --coordinator.'
)
flags.DEFINE_integer(
    'join_timeout', 300, 'train: seconds to wait for the other processes at the start.'
)
flags.DEFINE_bool(
    'force',
    False,
    'evaluate --images: distances from fewer pictures than features, marked as biased.',
)


def main(argv):
    from t2i_jax import run, sample, train
    from t2i_jax.evaluate import evaluate, report
    from t2i_jax.explore import explore
    from t2i_jax.runtime import hosts
    from t2i_jax.runtime.errors import RunError

    if FLAGS.mode == 'compare':
        if len(argv) < 3:
            raise RunError(
                '--mode=compare wants two workdirs or reports, or more: --mode=compare runs/a runs/b'
            )
        return print(report.compare(argv[1:], FLAGS.out or 'compare.png'))
    if argv[1:]:
        raise RunError(f'{argv[1]!r} is no option. Options begin with --; --help lists them.')
    if FLAGS.mode not in MODES:
        raise RunError(f'There is no mode {FLAGS.mode!r}. There are: {", ".join(MODES)}.')
    if FLAGS.mode == 'evaluate' and FLAGS.images:
        return measured(
            evaluate.evaluate_files,
            FLAGS.images,
            FLAGS.captions,
            FLAGS.reference,
            FLAGS.out,
            force=FLAGS.force,
            extractor=FLAGS.extractor or 'efficientnet_lite0',
            extractor_weights=FLAGS.extractor_weights,
        )
    if FLAGS.config is None:
        raise RunError(
            'Give --config=experiments/<name>.py, or the --workdir of a run that exists.'
        )
    if FLAGS.mode == 'describe':
        return print(run.describe(FLAGS.config))
    if not FLAGS.workdir:
        raise RunError('Give --workdir=<folder>: what is trained and drawn lies there.')
    if FLAGS.mode != 'train' and (FLAGS.coordinator or FLAGS.processes):
        raise RunError(
            '--coordinator and --processes are for --mode=train; everything else is done by one process.'
        )
    workdir, out, text_file = (
        os.path.expanduser(path) if path else None
        for path in (FLAGS.workdir, FLAGS.out, FLAGS.text_file)
    )
    if FLAGS.mode == 'train':
        hosts.start(FLAGS.coordinator, FLAGS.processes, FLAGS.process, FLAGS.join_timeout)
        train.train(FLAGS.config, workdir)
        return hosts.done()
    if FLAGS.mode == 'evaluate':
        return measured(evaluate.evaluate, FLAGS.config, workdir, stage=FLAGS.stage)
    texts = FLAGS.text + (sample.read_lines(text_file) if text_file else [])
    if FLAGS.mode == 'explore':
        return explore.explore(
            FLAGS.config,
            workdir,
            FLAGS.what,
            FLAGS.num,
            FLAGS.seed,
            texts,
            FLAGS.image,
            FLAGS.attributes,
            FLAGS.stage,
            out,
        )
    sample.to_files(
        workdir, texts, FLAGS.num, FLAGS.seed, out, FLAGS.labels, FLAGS.attributes, FLAGS.stage
    )


def measured(evaluate, *args, **options):
    """The metrics say what is wrong with their input by ValueError, as functions of a library do; here it becomes the program's one message."""
    from t2i_jax.runtime.errors import RunError

    try:
        return evaluate(*args, **options)
    except ValueError as error:
        raise RunError(str(error)) from error


def option(argv, name):
    """(the value of --name, None where it is not given; argv without it)"""
    value, rest, words = None, [], iter(argv)
    for word in words:
        flag, equals, text = word.partition('=')
        if flag.startswith('-') and flag.lstrip('-') == name:
            value = text if equals else next(words, '')
        else:
            rest.append(word)
    return value, rest


def experiment(text):
    """'experiments/<name>.py:variant' -> its config. Raises RunError for a file or a variant that does not exist."""
    from t2i_jax.runtime.errors import RunError

    name, _, variant = text.partition(':')
    if not name.endswith('.py') or not os.path.isfile(name):
        known = sorted(
            p.stem
            for p in pathlib.Path('experiments').glob('*.py')
            if p.stem not in ('common', '__init__')
        )
        raise RunError(
            f'There is no experiment {name}. Under experiments/ there are: {", ".join(known)}.'
        )
    spec = importlib.util.spec_from_file_location('experiment', name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, 'get_config'):
        raise RunError(
            f'{name} is no experiment: it has no get_config. docs/add_a_system.md shows what one looks like.'
        )
    return module.get_config(variant)


def parse(argv):
    """--config from a file, or, where it is not given, the config of the run that exists, so that --config.x=... works on both.

    -> what FLAGS did not understand. Raises RunError for a config or a key that does not exist.
    """
    from t2i_jax import run
    from t2i_jax.runtime.errors import RunError

    text, argv = option(argv, 'config')
    workdir, _ = option(argv, 'workdir')
    app.define_help_flags()
    helps = any(word.lstrip('-') in ('help', 'helpfull', 'helpshort') for word in argv)
    if text is not None:
        config = experiment(text)
    elif workdir and not helps:
        from t2i_jax.evaluate.evaluate import OPTIONS

        config = run.load_config(os.path.expanduser(workdir))
        with config.unlocked():
            config.eval = {
                **OPTIONS,
                **config.get('eval', {}),
            }  # an older run can be asked what is new
    else:
        flags.DEFINE_string(
            'config',
            None,
            'experiments/<name>.py or experiments/<name>.py:variant; --config.<key>=... changes a setting.',
        )
        return FLAGS(argv)
    try:
        config_flags.DEFINE_config_dict('config', config, lock_config=True, sys_argv=argv)
    except (
        AttributeError,
        KeyError,
        TypeError,
    ) as error:  # how ml_collections says that there is no such key
        raise RunError(unknown_key(config, argv) or str(error)) from None
    return FLAGS(argv)


def unknown_key(config, argv):
    """The message for the first --config.<key> that does not exist; None where all do."""
    for word in argv:
        name = word.lstrip('-').partition('=')[0]
        if word.startswith('-') and name.startswith('config.'):
            block, done = config, 'config'
            for part in name.split('.')[1:]:
                if not hasattr(block, 'keys') or part not in block:
                    keys = (
                        f'there are {", ".join(block)}'
                        if hasattr(block, 'keys')
                        else 'it is a value, not a block'
                    )
                    return f'There is no setting --{name}: in {done} {keys}.'
                block, done = block[part], f'{done}.{part}'
    return None


def cli(argv=None):
    """The program; what a person can put right ends in one message and exit status 1."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    quiet()
    from t2i_jax.runtime import hosts, terminal
    from t2i_jax.runtime.errors import DataError, RunError
    from t2i_jax.train import Interrupted

    with terminal.outlets():
        try:
            rest = parse(sys.argv if argv is None else argv)
            start_jax()
            main(rest)
        except (DataError, RunError, flags.Error) as error:
            hosts.leave(f'Error: {error}')
        except Interrupted as error:
            print(error)
            hosts.done()
            sys.exit(130)
        except KeyboardInterrupt:
            hosts.leave('', 130)
        except Exception as error:
            if not hosts.several():
                raise
            hosts.failed(error)


def quiet():
    """Leaves what a person should read: not every rename of Orbax (INFO), nor what its threads and coroutines say when a save or a restore fails, which is
    raised where it is waited for."""
    logging.set_verbosity(logging.WARNING)
    python_logging.getLogger('asyncio').setLevel(python_logging.CRITICAL)
    hook = sys.unraisablehook

    def unraisable(what):
        if str(what.exc_value) != 'Event loop is closed' and 'orbax' not in getattr(
            getattr(what.object, 'cr_code', None), 'co_filename', ''
        ):
            hook(what)

    sys.unraisablehook = unraisable


def start_jax():
    """Compiled programs are kept in the user's cache folder, so that the second start is fast."""
    import jax

    jax.config.update(
        'jax_compilation_cache_dir',
        os.environ.get(
            'JAX_COMPILATION_CACHE_DIR', os.path.expanduser('~/.cache/t2i_jax/compiled')
        ),
    )
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


if __name__ == '__main__':
    cli()
