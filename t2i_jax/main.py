"""Command line: a table of modes and of the flags that each of them reads.

    t2i_jax --config=gan_cls_shapes:quick --workdir=runs/quick                 # train, or resume
    t2i_jax --workdir=runs/quick --mode=sample --text="a green circle"         # text -> PNG
    t2i_jax --workdir=runs/quick --mode=evaluate                               # numbers, protocol

Flags are read before JAX is imported, so that a typing error is answered at once.
`python -m t2i_jax` is the same program.
"""

import contextlib
import difflib
import functools
import logging as python_logging
import math
import os
import sys
import textwrap
import types
from typing import NamedTuple

from absl import logging

from t2i_jax import config as settings
from t2i_jax.config.forms import with_meanings
from t2i_jax.runtime import places, terminal
from t2i_jax.runtime.compiled import start_jax
from t2i_jax.runtime.errors import DataError, RunError, choose, explained, home, quoted, short
from t2i_jax.runtime.memory import one_heap
from t2i_jax.runtime.signals import Interrupted


class Flag(NamedTuple):
    """One flag: what stands for its value in the help, the help, its kind and default.

    kind: str, int, float, bool, or list for a flag that may be given several times.
    low, high: the smallest and the largest number
    """

    value: str
    help: str
    kind: type = str
    default: object = None
    low: float = -math.inf
    high: float = math.inf


class Mode(NamedTuple):
    """One mode: what it does, the flags that it reads, an example."""

    help: str
    flags: tuple[str, ...]
    example: str


FLAGS = {
    'mode': Flag('MODE', '', str, 'train'),
    'config': Flag(
        'EXPERIMENT',
        """An experiment, <name> or <name>:<variant>, or the path of a file. Without it a run is
        taken with its own config. --config.<setting>=<value> changes a setting of either.""",
    ),
    'workdir': Flag(
        'FOLDER',
        """The run: config, checkpoints, losses, pictures. Where nothing is trained, also an
        exported folder, example:shapes (a model that comes with the package), hf://OWNER/NAME.""",
    ),
    'coordinator': Flag(
        'HOST:PORT',
        """Several processes: the address of process 0, or auto, where JAX can find the others
        itself (a TPU pod). Not needed under SLURM and Open MPI.""",
    ),
    'processes': Flag('N', 'How many processes there are, with --coordinator.', int),
    'process': Flag('N', 'Which of them this one is, from 0, with --coordinator.', int),
    'join_timeout': Flag(
        'N', 'Seconds to wait for the other processes at the start.', int, 300, low=1, high=10**6
    ),
    'text': Flag('SENTENCE', 'A sentence; may be given several times.', list),
    'text_file': Flag('FILE', 'A file with one sentence a line.'),
    'labels': Flag(
        'NAMES',
        """Systems that draw from a set of labels (LayoutVAE): "person, dog, frisbee"; may be given
        several times. --text works, too: the labels that a sentence names.""",
        list,
    ),
    'attributes': Flag(
        'NAMES',
        """Systems that draw from attributes (Attribute2Image): names, "circle, red", where the
        others are drawn or 0, or all numbers in [0, 1], "1 0 0 ..."; may be given several times.
        --text works, too, where the data set can read it. explore: what is known of --image.""",
        list,
    ),
    'layout': Flag(
        'FILE',
        """A layout for each sentence, for systems that otherwise make layouts themselves
        (hierarchical_layout): JSON with a list of {"label", "cx", "cy", "w", "h"}, or a list of
        such lists, as sample writes it; may be given several times.""",
        list,
    ),
    'dialog': Flag(
        'FILE',
        """A dialogue for each sentence, for systems that read them (chat_painter): lines "question?
        answer", or JSON with a list of ["question", "answer"]; may be given several times.""",
        list,
    ),
    'num': Flag(
        'N',
        """Pictures (or layouts) for each sentence, set of labels or vector of attributes; 8 by
        default. explore: how many are looked at.""",
        int,
        8,
        low=1,
    ),
    'seed': Flag('N', 'Seed of the noise.', int, 0, low=0, high=settings.SEEDS),
    'truncation': Flag(
        'T',
        """Normal noise within -T and T, such as 0.7: pictures that are more typical and more alike;
        0: as it is.""",
        float,
        0.0,
        low=0,
    ),
    'stage': Flag('NAME', 'The stage of the run, if not the last one that draws.'),
    'out': Flag(
        'PATH',
        """Folder of the results; <workdir>/samples, explore, eval or export by default. compare:
        the file of the plot, compare.png by default.""",
    ),
    'what': Flag(
        '[NAME]',
        """text_interpolation, z_interpolation, swap_word, attention, style, attributes, layers,
        reconstruction, completion, layout, nearest, or an exploration of a stage's own. Without a
        name: lists those that the run offers.""",
    ),
    'image': Flag(
        'FILE',
        """sample: a picture, for stages that describe pictures; may be given several times.
        explore: one of yours instead of held-out ones; for --what=style several times.""",
        list,
    ),
    'format': Flag(
        'NAME',
        """safetensors, a folder that is opened like a run (the default), or stablehlo, a program
        with its weights and a short script, which draw with JAX alone.""",
        str,
        'safetensors',
    ),
    'precision': Flag(
        'TYPE', 'Of the weights: float32 (the default), bfloat16, float16.', str, 'float32'
    ),
    'license': Flag('NAME', 'Of the weights, as the hub names it.', str, 'other'),
    'push': Flag('OWNER/NAME', 'Upload the folder to the Hugging Face hub.'),
    'port': Flag('N', 'Of the page; 7860 by default.', int, 7860, low=1, high=65535),
    'host': Flag(
        'ADDRESS',
        """At which the page is served: 127.0.0.1, this machine alone, by default; 0.0.0.0, whoever
        can reach it.""",
        str,
        '127.0.0.1',
    ),
    'settings': Flag('', 'Print every setting as a line --config.a.b=value.', bool, False),
    'images': Flag('FOLDER', 'The pictures that are measured.'),
    'captions': Flag('FILE', 'The sentence of each picture, a line each, in the order of files.'),
    'reference': Flag('PATH', 'A folder of real pictures, or statistics as .npz.'),
    'extractor': Flag('NAME', 'The feature network; efficientnet_lite0 by default.', str, ''),
    'extractor_weights': Flag('FILE', 'Its weights.', str, ''),
    'resize': Flag(
        'FILTER', 'The filter to the size that it reads; pil_bicubic by default.', str, ''
    ),
    'all': Flag('', 'Print all numbers, not only the headline.', bool, False),
    'force': Flag(
        '', 'Distances from fewer pictures than features, marked as biased.', bool, False
    ),
}
FILES = 'evaluate --images'
DRAWS = ('workdir', 'text', 'text_file', 'attributes', 'num', 'seed', 'stage', 'out')
MODES = {
    'train': Mode(
        'Train a run; the same command resumes it. The default mode.',
        ('config', 'workdir', 'coordinator', 'processes', 'process', 'join_timeout'),
        '--config=gan_cls_shapes:quick --workdir=runs/quick',
    ),
    'sample': Mode(
        'Draw pictures (or layouts) from sentences, labels or attributes, or describe pictures.',
        (*DRAWS, 'truncation', 'labels', 'image', 'layout', 'dialog'),
        '--workdir=runs/quick --mode=sample --text="a green circle"',
    ),
    'explore': Mode(
        'Draw what a run has learnt: one condition moves, all others stay.',
        ('config', *DRAWS, 'what', 'image', 'layout', 'dialog'),
        '--workdir=runs/quick --mode=explore --what=z_interpolation',
    ),
    'describe': Mode(
        'Print networks, sizes and optimisers of an experiment or a run. Needs no data.',
        ('config', 'workdir', 'settings'),
        '--config=gan_cls_flowers --mode=describe',
    ),
    'evaluate': Mode(
        'Measure a run; --config.eval.num=2000 and its kin say how.',
        ('config', 'workdir', 'stage', 'out', 'all'),
        '--workdir=runs/quick --mode=evaluate',
    ),
    FILES: Mode(
        'Measure pictures made elsewhere.',
        (
            *('images', 'captions', 'reference', 'extractor', 'extractor_weights', 'resize'),
            *('force', 'out', 'all'),
        ),
        '--mode=evaluate --images=mine --reference=real --out=report',
    ),
    'export': Mode(
        'Write a trained stage as a folder to hand on: weights, settings, words, a card.',
        ('workdir', 'stage', 'out', 'format', 'precision', 'license', 'push'),
        '--workdir=runs/quick --mode=export --out=red_rings',
    ),
    'demo': Mode(
        'Serve a web page to play with runs, side by side where there are several.',
        ('workdir', 'stage', 'host', 'port'),
        '--mode=demo --workdir=runs/quick example:shapes',
    ),
    'compare': Mode(
        'Print evaluations of runs, or reports, next to each other, and plot them.',
        ('out', 'all'),
        '--mode=compare runs/quick runs/other',
    ),
}
NAMES = [name for name in MODES if name != FILES]
# they take other words than flags: runs, reports
TAKE_PATHS = 'compare', 'demo'
# mode -> the folder of its results, by default within the workdir
RESULTS = {'sample': 'samples', 'explore': 'explore', 'evaluate': 'eval', 'export': 'export'}


class Command(NamedTuple):
    """The command line, checked: mode, flags by name, config (or None), other words."""

    mode: str
    flags: types.SimpleNamespace
    config: object
    paths: list[str]


# ---------------------------------------------------------------------------------------- reading
def parse(words):
    """Check the words behind the program's name -> a Command, or None where help was printed.

    Raises RunError for an unknown mode, flag, experiment or setting, a flag of another mode, and
    a number out of range.
    """
    given, overrides, paths = read(words)
    mode = given.get('mode', 'train')
    if mode not in NAMES:
        raise RunError(f'There is no mode {short(repr(mode))}. There are: {", ".join(NAMES)}.')
    if mode == 'evaluate' and 'images' in given:
        mode = FILES
    if given.pop('help', False):
        print(help_of(given, overrides, mode if 'mode' in given else None))
        return None
    for name in (*given, *(f'config.{path}' for path in overrides)):
        if name != 'mode' and name.partition('.')[0] not in MODES[mode].flags:
            raise RunError(unread(name, mode))
    for path in overrides:
        refuse_of_training(path, mode)
    if mode == 'compare' and len(paths) < 2:
        raise RunError(
            '--mode=compare takes two workdirs or reports, or more: --mode=compare runs/a runs/b'
        )
    if paths and mode not in TAKE_PATHS:
        raise RunError(
            f'{short(repr(paths[0]))} is not a flag: flags begin with --, t2i_jax --help lists '
            'them.'
        )
    flags = {name: given.get(name, flag.default) for name, flag in FLAGS.items()}
    flags |= {name: given.get(name, []) for name, flag in FLAGS.items() if flag.kind is list}
    for name in ('text_file', 'out'):
        flags[name] = str(home(flags[name])) if flags[name] else None
    if flags['workdir']:
        trains = mode in ('train', 'describe') and not places.own(flags['workdir'])
        if trains:
            raise RunError(f'--mode={mode} takes a folder as --workdir.')
        if mode in RESULTS and not places.own(flags['workdir']):
            # not into the package
            flags['out'] = flags['out'] or str(home(RESULTS[mode]))
        flags['workdir'] = str(places.folder_of(flags['workdir']))
    config = config_of(mode, flags, overrides)
    # at once: what is computed should not be lost
    writes = mode in RESULTS and (mode != 'explore' or flags['what'])
    if flags['out'] or writes:
        require_out(flags['out'] or flags['workdir'], mode)
    return Command(mode, types.SimpleNamespace(**flags), config, paths)


def read(words):
    """Split words into {flag: value}, {setting: text} of --config.<setting>, and others."""
    given, overrides, paths = {}, {}, []
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith('-') or word == '-':
            paths.append(word)
            continue
        name, equals, text = word.lstrip('-').partition('=')
        if name in ('h', 'help', 'helpfull', 'helpshort'):
            given['help'] = True
            continue
        setting = name.startswith('config.')
        kind = str if setting else known_flag(name).kind
        if not equals:
            last = not words or words[0].startswith('--')
            # a switch: --settings, --config.data.flip
            if kind is bool or setting and last:
                text = 'true'
            elif last and FLAGS[name].value.startswith('['):
                text = ''
            elif last:
                raise RunError(f'--{name} needs a value: --{name}=<value>.')
            else:
                text = words.pop(0)
        if kind is list:
            given.setdefault(name, []).append(text)
            continue
        if setting:
            # of a setting the last one counts, so that scripts can add theirs
            overrides[name.removeprefix('config.')] = text
            continue
        value = value_of(name, kind, text)
        if given.get(name, value) != value:
            raise RunError(
                f'--{name} is given twice, {short(given[name], 80)} and {short(value, 80)}: give '
                'it once.'
            )
        given[name] = value
    return given, overrides, paths


def known_flag(name):
    """Return the Flag of a name. Raises RunError."""
    if name not in FLAGS:
        close = difflib.get_close_matches(name, FLAGS, 1)
        guess = f' Did you mean --{close[0]}?' if close else ''
        raise RunError(f'There is no flag --{short(name)}.{guess} t2i_jax --help lists them.')
    return FLAGS[name]


def value_of(name, kind, text):
    """Return the value of a flag. Raises RunError for a text that does not fit."""
    try:
        value = {'true': True, 'false': False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        wanted = {bool: 'true or false', float: 'a number'}.get(kind, 'a whole number')
        raise RunError(f'--{name} is {wanted}, not {short(repr(text))}.') from None
    if kind in (int, float):
        settings.require_range(f'--{name}', value, FLAGS[name].low, FLAGS[name].high)
    return value


def unread(name, mode):
    """Word the message for a flag that its mode does not read."""
    flag = name.partition('.')[0]
    modes = [other for other in MODES if flag in MODES[other].flags]
    modes = ', '.join(f'--mode={other}' for other in modes)
    here = ''
    if flag == 'config' and mode == 'sample':
        here = ' A run is sampled with its own config.'
    elif mode == 'evaluate' and flag in settings.EVAL:
        here = f' Of a run it is set by --config.eval.{flag}.'
    elif mode == 'train' and flag == 'seed':
        here = ' In training it is set by --config.seed.'
    return f'--{name} is not read by --mode={mode}; it belongs to {modes}.{here}'


def refuse_of_training(path, mode):
    """Raise RunError for a setting of training where a run is measured or explored."""
    if mode not in ('evaluate', 'explore'):
        return
    first, *rest = path.split('.')
    of_eval = first == 'eval' and (mode == 'explore' or path.startswith('eval.every'))
    of_stage = first == 'stages' and rest[1:2] not in (['data'], ['model'])
    if of_eval or of_stage or first in ('seed', 'mesh', 'remat'):
        by = 'evaluate' if of_eval and mode == 'explore' else 'train'
        here = ' Of an evaluation it is --config.eval.seed.' if path == 'seed' else ''
        raise RunError(
            f'--config.{path} is not read by --mode={mode}; it belongs to --mode={by}.{here}'
        )


def require_out(out, mode):
    """Raise RunError where results can be neither made nor written.

    out: --out, or the workdir in which they are written without
    """
    path = home(out).absolute()
    folder = path.parent if mode == 'compare' else path
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise RunError(
            f'Results cannot be written to {quoted(out)}: {quoted(there)} is not a folder in which '
            'you may write. Choose another place, --out=<folder>.'
        )


def config_of(mode, flags, overrides):
    """Return the config that a mode reads: of the experiment, else of the run; or None."""
    reads = MODES[mode].flags
    if 'workdir' not in reads:
        return None
    if flags['config'] is None and not flags['workdir']:
        raise RunError(
            'Give --config=<experiment>, or the --workdir=<folder> of a run that exists.'
            if mode in ('train', 'describe')
            else 'Give --workdir=<folder>, the run.'
        )
    if mode == 'describe' and flags['config'] is not None and flags['workdir']:
        raise RunError(
            '--mode=describe describes either --config=<experiment> or --workdir=<folder>, a run: '
            'give one of them.'
        )
    if mode != 'describe' and not flags['workdir']:
        raise RunError('Give --workdir=<folder>: results are written there.')
    if flags['config'] is None:
        config = settings.load_older(flags['workdir'], overrides)
    else:
        config = settings.load(flags['config'], overrides)
        if mode in ('evaluate', 'explore'):
            require_run_of(flags['workdir'], flags['config'])
    settings.check(config, trains=mode in ('train', 'describe'))
    return config


def require_run_of(workdir, experiment):
    """Raise RunError where a run was not made of an experiment."""
    lines = settings.refused(settings.load_run(workdir), settings.load(experiment))
    if lines:
        raise RunError(
            f'{quoted(workdir)} is not a run of {experiment} ({lines[0]}; {len(lines)} settings '
            'differ): '
            'leave out --config, since a run has its own.'
        )


# ------------------------------------------------------------------------------------------- help
WIDTH = 100


def help_of(given, overrides, mode=None):
    """Return the text of --help: of all modes, of one, or the settings of an experiment."""
    if given.get('config') is not None:
        config = settings.load(given['config'], overrides)
        out = [f'Settings of {given["config"]}; t2i_jax --help lists modes and flags.', '']
        return '\n'.join(out + [row(*one) for one in with_meanings(config)])
    out = [
        't2i_jax [--mode=MODE] [flags]. A flag is written --flag=value or --flag value.',
        't2i_jax --config=EXPERIMENT --help lists the settings of an experiment.',
    ]
    described = set()
    for name, one in MODES.items():
        if mode is not None and name.partition(' ')[0] != mode.partition(' ')[0]:
            continue
        new = [flag for flag in one.flags if flag not in described]
        again = [flag for flag in one.flags if flag in described]
        described.update(new)
        out += ['', f'{name}: {one.help}', f'    t2i_jax {one.example}', '']
        for flag in new:
            value = FLAGS[flag].value
            out.append(row(f'--{flag}={value}' if value else f'--{flag}', FLAGS[flag].help))
        if again:
            out += wrapped(f'and as above: {", ".join(f"--{flag}" for flag in again)}', '  ', '  ')
    return '\n'.join(out)


def row(flag, text):
    """Lay out a flag and its help."""
    if len(flag) > 28:
        return '\n'.join([f'  {flag}', *wrapped(text, ' ' * 32, ' ' * 32)])
    return '\n'.join(wrapped(text, f'  {flag:<30}', ' ' * 32)) or f'  {flag}'


def wrapped(text, first, rest):
    """Break a text into lines of at most WIDTH columns."""
    text = ' '.join(text.split())
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest)


# ------------------------------------------------------------------------------------------ running
def perform(command):
    """Do what a command says. Modules are imported as they are needed."""
    mode, flags = command.mode, command.flags
    if mode == 'compare':
        from t2i_jax.evaluate.compare import compare

        print(compare(command.paths, flags.out or 'compare.png', flags.all))
    elif mode == 'describe':
        from t2i_jax.run import describe

        print(describe(command.config))
    elif mode == FILES:
        measured(flags)
    elif mode == 'demo':
        from t2i_jax.demo.page import serve

        serve([flags.workdir, *command.paths], flags.stage, flags.host, flags.port)
    else:
        from t2i_jax.run import Run

        verbs = dict(train=train, sample=sample, explore=explore, evaluate=evaluate)
        verbs |= dict(export=export)
        verbs[mode](Run.create(command.config, flags.workdir), flags)


def train(run, flags):
    """Train, among the processes of the job."""
    from t2i_jax.runtime import hosts
    from t2i_jax.train import train

    hosts.start(flags.coordinator, flags.processes, flags.process, flags.join_timeout)
    train(run)
    hosts.done()


def texts_of(flags):
    """Return the sentences of --text and --text_file."""
    from t2i_jax.sample import read_lines

    return flags.text + (read_lines(flags.text_file) if flags.text_file else [])


def sample(run, flags):
    """Write pictures of the given conditions."""
    from t2i_jax.sample import DRAWN, to_files

    stage, texts = run.last(DRAWN, flags.stage), texts_of(flags)
    # the stage may be that of another run, which `init` names
    out = flags.out or run.workdir / 'samples'
    given = flags.labels, flags.attributes, flags.image, flags.layout, flags.dialog
    to_files(stage, texts, flags.num, flags.seed, out, *given, truncation=flags.truncation)


def explore(run, flags):
    """Write what `--what` names; without a name list what there is."""
    from t2i_jax.explore import explore, listing, stage_of

    if not flags.what:
        print(listing(run, flags.stage))
        return
    stage = stage_of(run, flags.what, flags.stage)
    given = texts_of(flags), flags.image, flags.attributes
    files = dict(layouts=flags.layout, dialogs=flags.dialog)
    # the stage may be that of another run, which `init` names
    out = flags.out or run.workdir / 'explore'
    explore(stage, flags.what, flags.num, flags.seed, *given, out, **files)


def evaluate(run, flags):
    """Measure a stage of a run."""
    from t2i_jax.evaluate import evaluate
    from t2i_jax.sample import DRAWN

    # the stage may be that of another run, which `init` names
    with one_message():
        stage = run.last(DRAWN, flags.stage)
        evaluate(stage, flags.out or run.workdir / 'eval', flags.all, **run.config.eval)


def export(run, flags):
    """Write a stage to hand on."""
    from t2i_jax.export import export, push, to_program
    from t2i_jax.sample import DRAWN

    choose('--format', flags.format, ('safetensors', 'stablehlo'))
    stage, out = run.last(DRAWN, flags.stage), flags.out or run.workdir / 'export'
    if flags.format == 'stablehlo':
        folder = to_program(stage, out)
    else:
        folder = export(stage, out, precision=flags.precision, license=flags.license)
    print(f'Stage {stage.name} is in {quoted(folder)}.')
    if flags.push:
        print(f'Uploaded: {push(folder, flags.push)}')


def measured(flags):
    """Measure a folder of pictures."""
    from t2i_jax.evaluate import evaluate_files

    options = {name: getattr(flags, name) for name in ('force', 'extractor', 'extractor_weights')}
    options |= {'resize': flags.resize} if flags.resize else {}
    given = flags.captions, flags.reference, flags.out, flags.all
    with one_message():
        evaluate_files(flags.images, *given, **options)


@contextlib.contextmanager
def one_message():
    """Turn the ValueError by which metrics refuse their input into the program's message."""
    try:
        yield
    except ValueError as error:
        raise RunError(str(error)) from error


def cli(argv=None):
    """Run the program: an error that its user can mend is one message, and exit status 1."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    quiet()
    with terminal.outlets():
        try:
            command = parse((sys.argv if argv is None else argv)[1:])
            if command is None:
                return
            if command.flags.settings:
                print('\n'.join(settings.lines(command.config)))
            else:
                execute(command)
        except (DataError, RunError) as error:
            sys.exit(f'Error: {error}')
        except OSError as error:
            sys.exit(f'Error: {of_the_system(error)}')
        except KeyboardInterrupt:
            sys.exit(130)


def of_the_system(error):
    """Explain an error of the system which no one expected; raise it where it is another."""
    # libraries derive errors of their own from OSError
    if not error.errno:
        raise error
    return explained(error)


def execute(command):
    """Run a command, with the ends that a job of several processes needs."""
    from t2i_jax.runtime import hosts

    try:
        if command.mode == 'train':
            one_heap()
        start_jax()
        perform(command)
    except (DataError, RunError) as error:
        hosts.leave(f'Error: {error}')
    except Interrupted as error:
        print(error)
        hosts.done()
        sys.exit(130)
    except KeyboardInterrupt:
        hosts.leave('', 130)
    except Exception as error:
        if hosts.several():
            hosts.failed(error)
        raise


@functools.cache
def quiet():
    """Drop what no user should read.

    That is every rename of Orbax (INFO), and what its threads and coroutines print when a save or a
    restore fails, which is raised where it is waited for.
    """
    logging.set_verbosity(logging.WARNING)
    python_logging.getLogger('asyncio').setLevel(python_logging.CRITICAL)
    hook = sys.unraisablehook

    def unraisable(what):
        code = getattr(what.object, 'cr_code', None)
        closed = str(what.exc_value) == 'Event loop is closed'
        if not closed and 'orbax' not in getattr(code, 'co_filename', ''):
            hook(what)

    sys.unraisablehook = unraisable


if __name__ == '__main__':
    cli()
