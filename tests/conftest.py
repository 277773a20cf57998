"""What all tests share: eight small CPU devices, compiled programs kept between runs, one small data set, one tiny trained run."""

import importlib
import os
import pathlib

os.environ['XLA_FLAGS'] = (
    '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1'
)
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(
    pathlib.Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser() / 't2i_jax' / 'tests'
)
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from absl import flags, logging  # noqa: E402

flags.FLAGS.mark_as_parsed()


def pytest_configure(config):
    # Orbax leaves coroutines behind where a restore fails
    left = '(?s)Exception ignored in.*(_read_array|Event loop is closed)'
    config.addinivalue_line(
        'filterwarnings', f'ignore:{left}:pytest.PytestUnraisableExceptionWarning'
    )


def bit_equal(a, b):
    """Whether two trees have the same leaves, NaN included."""
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(
        np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True) for x, y in zip(a, b)
    )


def kept_files(split):
    """The files in which tables of a split's data set are kept, by name and time."""
    return {
        path.name: path.stat().st_mtime_ns
        for path in (pathlib.Path(split.pictures.data_dir) / 'tables').glob('*/*')
    }


@pytest.fixture
def warnings(monkeypatch):
    """The warnings that are logged, as texts."""
    messages = []
    monkeypatch.setattr(logging, 'warning', lambda message, *args: messages.append(message % args))
    return messages


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
    """A folder that holds the first scenes of shape_scenes/single_quick."""
    from tfds_builders import get_builder
    from tfds_builders.shape_scenes.builder import QUICK

    folder = tmp_path_factory.mktemp('data')
    with pytest.MonkeyPatch.context() as patch:
        for split, count in (('train', 400), ('validation', 60), ('test', 20), ('test_unseen', 20)):
            patch.setitem(QUICK['single'], split, count)
        get_builder('shape_scenes/single_quick', folder).download_and_prepare()
    return folder


@pytest.fixture(scope='session')
def on_shapes(data_dir):
    """A function: the name of an experiment -> its tiny variant, reading the first records of shape_scenes/single_quick."""

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

    from t2i_jax.data import tables

    builder = OddPictures(data_dir=tmp_path_factory.mktemp('odd'), file_format='array_record')
    builder.download_and_prepare()
    monkeypatch.setattr(tables, 'prepared', lambda config: builder)
    odd = on_shapes('gan_cls_shapes').data.unlock()
    odd.update(size=20, load_size=0, resize='squash', cache='host')
    return odd


@pytest.fixture(scope='session')
def tiny(on_shapes):
    """A function: keywords of the stages of gan_cls_shapes -> its tiny variant with networks of a few channels, a few steps long."""

    def make(text=(), gan=(), style=()):
        config = on_shapes('gan_cls_shapes')
        config.stages.text.model.update(
            encoder=dict(variant='icml_flowers', channels=(8, 8), hidden=8, embedding=8),
            image_channels=(4, 8),
        )
        config.stages.text.optim.joint_loss.update(name='adam', lr=0.05)
        config.stages.gan.model.update(
            ngf=4, ndf=4, nz=128, nt=8
        )  # one kernel is large enough to be sharded
        every = dict(log_every=1, validate_every=3, checkpoint_every=3)
        config.stages.text.update(steps=4, sample_every=0, **every)
        config.stages.gan.update(steps=6, sample_every=3, **every)
        config.stages.style.update(steps=0)  # left out
        config.stages.style.update(every)
        for name, changes in (('text', text), ('gan', gan), ('style', style)):
            config.stages[name].update(dict(changes))
        return config.lock()

    return make


@pytest.fixture(scope='session')
def dense(on_shapes):
    """A function: keywords of the stage -> a GAN of dense layers, which compiles fast, 6 steps long."""

    def make(**gan):
        config = on_shapes('dcgan_shapes')
        config.stages.gan.model.update(
            variant='mlp', ngf=16, ndf=4, nz=8
        )  # one kernel is large enough to be sharded
        config.stages.gan.update(
            steps=6, log_every=1, validate_every=0, sample_every=0, checkpoint_every=3
        )
        config.stages.gan.update(gan)
        return config.lock()

    return make


@pytest.fixture(scope='session')
def trained(tiny, tmp_path_factory):
    """The workdir of a finished run of `tiny()`, which nothing interrupted."""
    from t2i_jax.train import train

    workdir = tmp_path_factory.mktemp('trained')
    train(tiny(), workdir, jax.devices()[:1])
    return workdir
