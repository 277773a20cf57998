"""What all tests share: small CPU devices, kept programs, data and runs, and a budget of CPU time.

**Two suites.** `python -m pytest` runs what is not marked `slow`, and XLA compiles without
optimising, which takes a third less time. `python -m pytest -m 'slow or not slow'` (`.ci/run
--all`) runs everything at level 1, since slow tests compare the bits of processes of their own and
train longer. The level is a function of `-m`, which workers of xdist get, too.

**Kept between runs** under $XDG_CACHE_HOME/t2i_jax/tests (~/.cache): compiled programs
(`compiled`), and, each under a hash of the code that makes it, the small data set (`data`) and one
tiny trained run a system (`runs`; the fixture `run_of`). They are made under a file lock, so that
two workers share them. Remove the folder for a cold start.

**Budget.** CPU seconds (user and system, of this process and of children that have ended) of each
test with its fixtures, less what is made once and kept: compiling programs that are not in the
cache, making data and runs. So the limits hold on a cold machine, too. The suite fails where a file
exceeds FILE_LIMIT, a system (its own file and its cases of test_contract.py and test_systems.py)
SYSTEM_LIMIT, or all of them SUITE_LIMIT. With `-m slow` they do not apply.
"""

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import pathlib
import resource
import shutil
import time

CACHE = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
CACHE = CACHE / 't2i_jax' / 'tests'
ROOT = pathlib.Path(__file__).parents[1]
FILE_LIMIT, SYSTEM_LIMIT, SUITE_LIMIT = 40, 50, 960
# a notebook is a process that compiles all that it runs
NOTEBOOKS_LIMIT = 60
DEVICES = '--xla_force_host_platform_device_count=8'

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(CACHE / 'compiled')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags, logging  # noqa: E402

flags.FLAGS.mark_as_parsed()
# keywords of stages that are narrower than `tiny`
NARROW = {
    'attribute2image': dict(vae=dict(width=4, nz=8, nz_b=8)),
    'stackgan': dict(two=dict(blocks=1)),
}
# forward passes by which running statistics are estimated, in kept runs
SETTLE = 2
SYSTEMS = {path.stem for path in (ROOT / 't2i_jax' / 'systems').glob('[!_]*.py')}


def pytest_configure(config):
    # read by XLA when the first array is made
    level = 0 if config.option.markexpr == 'not slow' else 1
    os.environ['XLA_FLAGS'] = f'{DEVICES} --xla_backend_optimization_level={level}'
    config.stash[BUDGET] = Budget()
    jax.monitoring.register_event_listener(config.stash[BUDGET].on_event)
    jax.monitoring.register_event_duration_secs_listener(config.stash[BUDGET].on_duration)
    # Orbax leaves coroutines behind where a restore fails
    left = '(?s)Exception ignored in.*(_read_array|Event loop is closed)'
    config.addinivalue_line(
        'filterwarnings', f'ignore:{left}:pytest.PytestUnraisableExceptionWarning'
    )


# ----------------------------------------------------------------------------------------- budget
def cpu_seconds():
    """Of this process and of its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Budget:
    """CPU seconds of each file and system, without what is made once and kept."""

    def __init__(self):
        self.used, self.once, self.cached, self.making, self.lowered = {}, 0.0, False, 0, 0.0

    def on_event(self, event, **_):
        self.cached = self.cached or event == '/jax/compilation_cache/cache_hits'

    def on_duration(self, event, seconds, **_):
        if event == '/jax/core/compile/jaxpr_to_mlir_module_duration':
            self.lowered = cpu_seconds()
        if event == '/jax/core/compile/backend_compile_duration':
            # reading the cache is part of a warm run; within `made_once` all is counted there
            if not self.cached and not self.making:
                self.once += min(cpu_seconds() - self.lowered, seconds * os.cpu_count())
            self.cached = False

    @contextlib.contextmanager
    def made_once(self):
        """A block that makes what is kept."""
        began, self.making = cpu_seconds(), self.making + 1
        try:
            yield
        finally:
            self.making -= 1
            if not self.making:
                self.once += cpu_seconds() - began

    def add(self, name, seconds):
        self.used[name] = self.used.get(name, 0.0) + seconds


BUDGET = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    budget = item.config.stash[BUDGET]
    began, once = cpu_seconds(), budget.once
    try:
        return (yield)
    finally:
        seconds = cpu_seconds() - began
        made = min(seconds, budget.once - once)
        budget.add(owner(item), seconds - made)
        budget.add('(made once)', made)


def owner(item):
    """The file or system to which the time of a test is charged."""
    name = pathlib.Path(item.path).stem
    given = item.callspec.params if hasattr(item, 'callspec') else {}
    given = next((given[key] for key in ('system', 'trial', 'trial_of') if key in given), name)
    system = given.removeprefix('test_').partition('.')[0]
    return f'system {system}' if system in SYSTEMS else f'tests/{name}.py'


def over_budget(used):
    """Messages, one for each limit that is exceeded."""
    found = []
    for name, seconds in used.items():
        limit = SYSTEM_LIMIT if name.startswith('system ') else FILE_LIMIT
        limit = NOTEBOOKS_LIMIT if name == 'tests/test_notebooks.py' else limit
        if seconds > limit and name != '(made once)':
            found.append(f'{name} takes {seconds:.0f} CPU seconds; the limit is {limit}.')
    total = sum(seconds for name, seconds in used.items() if name != '(made once)')
    if total > SUITE_LIMIT:
        found.append(f'The suite takes {total:.0f} CPU seconds; the limit is {SUITE_LIMIT}.')
    return found


def pytest_testnodedown(node, error):
    for name, seconds in getattr(node, 'workeroutput', {}).get('cpu', {}).items():
        node.config.stash[BUDGET].add(name, seconds)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    budget = session.config.stash[BUDGET]
    output = getattr(session.config, 'workeroutput', None)
    if output is not None:
        output['cpu'] = budget.used
    elif session.config.option.markexpr == 'not slow' and over_budget(budget.used):
        session.exitstatus = session.exitstatus or 1


def pytest_terminal_summary(terminalreporter, config):
    used = dict(config.stash[BUDGET].used)
    once = used.pop('(made once)', 0.0)
    terminalreporter.section('CPU seconds')
    largest = sorted(used.items(), key=lambda pair: -pair[1])
    terminalreporter.write_line(
        f'{sum(used.values()):.0f}, and {once:.0f} for what is kept. '
        + ', '.join(f'{name} {seconds:.0f}' for name, seconds in largest[:12])
    )
    if config.option.markexpr == 'not slow':
        for message in over_budget(used):
            terminalreporter.write_line(
                f'FAILED {message} Move what is dear to @pytest.mark.slow, or compile less.'
            )


# -------------------------------------------------------------------------- made once and kept
def code_hash(*folders):
    """Of the Python files in folders of the repository, and of the version of JAX."""
    digest = hashlib.sha256(jax.__version__.encode())
    for folder in folders:
        for path in sorted((ROOT / folder).rglob('*.py')):
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope='session')
def keep(pytestconfig):
    """A function (kind, name, key, make) -> folder.

    `make(folder)` fills it where it is not there.
    """

    def keep(kind, name, key, make):
        place = CACHE / kind
        place.mkdir(parents=True, exist_ok=True)
        folder = place / f'{name}-{key}'
        with open(place / f'{name}.lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                for old in place.glob(f'{name}-*'):
                    # those of other working copies stay, while they are used
                    if time.time() - old.stat().st_mtime > 86_400:
                        shutil.rmtree(old)
                half = place / f'{name}-half'
                shutil.rmtree(half, ignore_errors=True)
                with pytestconfig.stash[BUDGET].made_once():
                    make(half)
                half.rename(folder)
            os.utime(folder)
        return folder

    return keep


@pytest.fixture(scope='session')
def data_dir(keep, tmp_path_factory):
    """A folder that holds the first scenes of shape_scenes/single_quick."""
    from tfds_builders import get_builder
    from tfds_builders.shape_scenes.builder import QUICK

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            counts = ('train', 400), ('validation', 60), ('test', 20), ('test_unseen', 20)
            for split, count in counts:
                patch.setitem(QUICK['single'], split, count)
            get_builder('shape_scenes/single_quick', folder).download_and_prepare()

    kept = keep('data', 'shape_scenes', code_hash('tfds_builders'), make)
    # a copy, since tables of a data set are kept in its folder
    return shutil.copytree(kept, tmp_path_factory.mktemp('data') / 'shape_scenes')


# ---------------------------------------------------------------------------------------- configs
@pytest.fixture(scope='session')
def on_shapes(data_dir):
    """A function: the name of an experiment -> its tiny variant, on the first records of
    shape_scenes/single_quick.
    """

    def make(experiment):
        config = importlib.import_module(f'experiments.{experiment}').get_config('tiny').unlock()
        config.data.update(
            name='shape_scenes/single_quick',
            dir=str(data_dir),
            split='train[:256]',
            validation_split='validation[:40]',
        )
        config.data.flip = False
        return config

    return make


@pytest.fixture
def odd(monkeypatch, tmp_path_factory, on_shapes):
    """config.data of a new data set whose pictures are of all kinds, without classes and facts."""
    from odd_pictures import OddPictures

    from t2i_jax.data import dataset

    builder = OddPictures(data_dir=tmp_path_factory.mktemp('odd'), file_format='array_record')
    builder.download_and_prepare()
    monkeypatch.setattr(dataset, 'prepared', lambda config: builder)
    odd = on_shapes('gan_cls_shapes').data.unlock()
    odd.update(size=20, load_size=0, resize='squash', cache='host')
    return odd


@pytest.fixture(scope='session')
def tiny(on_shapes):
    """A function: keywords of the stages of gan_cls_shapes -> its tiny variant, of a few channels
    and steps.
    """

    def make(text=(), gan=(), style=()):
        config = on_shapes('gan_cls_shapes')
        stages = config.stages
        encoder = dict(variant='icml_flowers', channels=(8, 8), hidden=8, embedding=8)
        stages.text.model.update(encoder=encoder, image_channels=(4, 8))
        stages.text.optim.joint_loss.update(name='adam', lr=0.05)
        # one kernel is large enough to be sharded
        stages.gan.model.update(ngf=4, ndf=4, nz=128, nt=8)
        every = dict(log_every=1, validate_every=3, checkpoint_every=3)
        stages.text.update(steps=4, sample_every=0, **every)
        stages.gan.update(steps=6, sample_every=3, **every)
        # left out, as steps=0 says
        stages.style.update(steps=0, **every)
        for name, changes in (('text', text), ('gan', gan), ('style', style)):
            stages[name].update(dict(changes))
        return config.lock()

    return make


@pytest.fixture(scope='session')
def dense(on_shapes):
    """A function: keywords of the stage -> a GAN of dense layers, which compiles fast, 6 steps
    long.
    """

    def make(**gan):
        config = on_shapes('dcgan_shapes')
        # one kernel is large enough to be sharded
        config.stages.gan.model.update(variant='mlp', ngf=16, ndf=4, nz=8)
        every = dict(log_every=1, validate_every=0, sample_every=0, checkpoint_every=3)
        config.stages.gan.update(steps=6, **every)
        config.stages.gan.update(gan)
        return config.lock()

    return make


# ------------------------------------------------------------------------------------------- runs
@pytest.fixture(scope='session')
def run_of(on_shapes, tiny, data_dir, keep, tmp_path_factory):
    """A function: a system -> the workdir of a finished tiny run of it, trained once and kept
    on disk.

    The folder is this session's copy. Who writes into it or trains it further copies it before.
    """
    from helpers import brief, experiment_of

    copies = {}

    def run_of(system):
        if system not in copies:
            config = tiny() if system == 'gan_cls' else brief(on_shapes(experiment_of(system)))
            if system in NARROW:
                for name, keywords in NARROW[system].items():
                    config.stages[name].model.update(keywords)
            copies[system] = copy_of(system, config)
        return copies[system]

    def copy_of(system, config):
        from t2i_jax.run import Run
        from t2i_jax.train import train

        def make(folder):
            with pytest.MonkeyPatch.context() as patch:
                if brief_settling:
                    patch.setattr('t2i_jax.step.SETTLE', SETTLE)
                train(Run.create(config, folder), jax.devices()[:1])

        # tests of resuming compare their runs with that of gan_cls
        brief_settling = system != 'gan_cls'
        code = code_hash('t2i_jax', 'tfds_builders') + os.environ['XLA_FLAGS']
        code += f'settle {SETTLE}' if brief_settling else ''
        code += config.to_json().replace(str(data_dir), '')
        kept = keep('runs', system, hashlib.sha256(code.encode()).hexdigest()[:16], make)
        folder = shutil.copytree(kept, tmp_path_factory.mktemp('runs') / system)
        # data are read from this session's folder
        for path in [folder / 'config.json', *folder.glob('*/config.json')]:
            found = json.loads(path.read_text())
            found['data']['dir'] = str(data_dir)
            path.write_text(json.dumps(found, indent=2) + '\n')
        return folder

    return run_of


@pytest.fixture(scope='session')
def trained(run_of):
    """The workdir of a finished run of `tiny()`, which nothing interrupted."""
    return run_of('gan_cls')


@pytest.fixture
def warnings(monkeypatch):
    """The warnings that are logged, as texts."""
    messages = []
    monkeypatch.setattr(logging, 'warning', lambda message, *args: messages.append(message % args))
    return messages
