"""An exported folder draws the same pictures, is checked, and is not trained."""

import importlib.util
import json
import runpy
import shutil
import sys
import types

import jax
import numpy as np
import pytest

from t2i_jax import config as settings
from t2i_jax.export import export, to_program
from t2i_jax.export.program import SCRIPT
from t2i_jax.main import parse
from t2i_jax.run import Run
from t2i_jax.runtime import places
from t2i_jax.runtime.errors import RunError
from t2i_jax.runtime.weights import LIST, WEIGHTS, named
from t2i_jax.sample import DRAWN, Sampler
from t2i_jax.scenes.analytic import decode_all
from t2i_jax.train import train
from tfds_builders.shape_scenes.scenes import CLASS, CLASSES, COLOUR, COLOURS

SENTENCES = ['a red ring', 'a small blue square']


@pytest.fixture(scope='module')
def folder(trained, tmp_path_factory):
    """The exported generator of a tiny run."""
    return export(Run.open(trained).last(DRAWN), tmp_path_factory.mktemp('export') / 'model')


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / 'model')


def test_the_same_pictures_bit_by_bit(trained, folder):
    own, other = (Sampler.load(place)(SENTENCES, num=3).images for place in (trained, folder))
    np.testing.assert_array_equal(own, other)


def test_half_the_bits_are_close(trained, folder, tmp_path):
    half = export(Run.open(trained).last(DRAWN), tmp_path / 'half', precision='float16')
    whole, short = (place / 'gan' / WEIGHTS for place in (folder, half))
    assert short.stat().st_size < 0.55 * whole.stat().st_size
    own, other = (
        np.int32(Sampler.load(place)(SENTENCES, num=3).images) for place in (folder, half)
    )
    assert np.abs(own - other).mean() < 2


def test_critics_and_paths_of_this_machine_stay_behind(trained, folder):
    config = json.loads((folder / 'config.json').read_text())
    assert config['data']['dir'] == '' and set(config['init'].values()) == {''}
    assert str(trained) not in ''.join(
        path.read_text() for path in folder.glob('*.*') if path.suffix != '.png'
    )
    kept = Sampler.load(folder).params
    assert 'G' in kept and 'text' in kept and 'D' not in kept


def test_a_stage_of_another_run_is_exported_with_its_own_settings(trained, tmp_path, tiny):
    config = tiny()
    config.init.text = str(trained)
    run = Run.create(config, tmp_path / 'run')
    train(run, jax.devices()[:1])
    own = export(run.last(DRAWN), tmp_path / 'model')
    shutil.rmtree(tmp_path / 'run' / 'text')
    assert json.loads((own / 'config.json').read_text())['init']['text'] == ''
    np.testing.assert_array_equal(
        Sampler.load(own)(SENTENCES, num=2).images, Sampler.load(run)(SENTENCES, num=2).images
    )


def test_a_changed_file_is_named(copied):
    path = copied / 'gan' / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match='weights.safetensors is not the file that was exported'):
        Run.open(copied)
    path.unlink()
    with pytest.raises(RunError, match='weights.safetensors is missing'):
        Run.open(copied)


def test_weights_of_another_model_are_refused(copied):
    listed = json.loads((copied / LIST).read_text())
    (copied / LIST).write_text(json.dumps(listed | {'files': {}}))
    config = json.loads((copied / 'config.json').read_text())
    config['stages']['gan']['model']['ngf'] *= 2
    (copied / 'config.json').write_text(json.dumps(config))
    with pytest.raises(
        RunError, match='belongs to another model than its config: params/G/.*shape'
    ):
        Sampler.load(copied)


def test_it_is_not_trained_and_starts_no_training(copied):
    with pytest.raises(RunError, match='is an exported folder: .* Train in another --workdir'):
        train(Run.open(copied))
    with pytest.raises(RunError, match='has no finished checkpoint of text'):
        Sampler.load(copied, stage='text')


def test_what_stands_in_the_way_stays(trained, tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(RunError, match='is not an exported folder'):
        export(Run.open(trained).last(DRAWN), tmp_path)
    assert (tmp_path / 'notes.txt').read_text() == 'mine'


def test_what_was_exported_before_is_replaced_and_nothing_else(copied):
    before = Sampler.load(copied)(SENTENCES).images
    # onto itself
    assert export(Run.open(copied).last(DRAWN), copied) == copied
    np.testing.assert_array_equal(Sampler.load(copied)(SENTENCES).images, before)
    (copied / 'samples').mkdir()
    (copied / 'samples' / 'mine.png').write_text('mine')
    with pytest.raises(RunError, match='also holds samples/mine.png, which would be lost'):
        export(Run.open(copied).last(DRAWN), copied)
    assert (copied / 'samples' / 'mine.png').read_text() == 'mine'


def test_an_export_that_fails_leaves_the_old_one(copied, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('t2i_jax.export.card', full)
    with pytest.raises(RunError, match='No space left'):
        export(Run.open(copied).last(DRAWN), copied)
    assert Sampler.load(copied) and [path.name for path in copied.parent.iterdir()] == ['model']


@pytest.mark.parametrize('content', ['[]', '{"stages": {"gan": "6"}, "files": {}}', '{', '{}'])
def test_a_list_of_another_form_is_refused(copied, content):
    (copied / LIST).write_text(content)
    with pytest.raises(RunError, match='export.json.*Copy or download the folder again'):
        Run.open(copied)


def test_the_card_names_paper_data_and_files(folder, trained):
    card = (folder / 'README.md').read_text()
    _, front, page = card.split('---\n', 2)
    parts = dict(line.split(': ', 1) for line in front.strip().splitlines())
    assert json.loads(parts['license']) == 'other' and parts['library_name'] == 't2i_jax'
    assert 'Reed, Akata' in page and Run.open(trained)['gan'].meta.name in page
    assert 'gan/weights.safetensors' in page and '{' not in page


@pytest.mark.parametrize('system', ['gan_cls', 'attngan'])
def test_a_program_draws_the_same_without_this_library(system, run_of, tmp_path, monkeypatch):
    pytest.importorskip('flatbuffers')
    run = Run.open(run_of(system))
    out = to_program(run.last(DRAWN), tmp_path / 'program', platforms=('cpu',))
    assert (out / 'draw.py').read_text() == SCRIPT and 't2i_jax' not in SCRIPT
    monkeypatch.chdir(tmp_path)
    for n in (1, 3):
        monkeypatch.setattr(sys, 'argv', ['draw.py', SENTENCES[0], str(n), '5'])
        runpy.run_path(str(out / 'draw.py'))
        own = Sampler.load(run)(SENTENCES[:1], num=n, seed=5).images[0]
        header, pixels = (tmp_path / 'drawn.ppm').read_bytes().split(b' 255 ', 1)
        side = own.shape[1]
        assert header == f'P6 {n * side} {side}'.encode()
        strip = np.frombuffer(pixels, np.uint8).reshape(side, n, side, 3).swapaxes(0, 1)
        assert np.abs(np.int32(strip) - own).max() <= 1


def test_a_stage_that_is_no_program_is_one_message(trained, tmp_path, monkeypatch):
    def counts(*_, **__):
        raise TypeError("'_DimExpr' object cannot be interpreted as an integer")

    monkeypatch.setattr('t2i_jax.export.program.core.apply', counts)
    with pytest.raises(RunError, match='cannot be written as a program for any number of pictures'):
        to_program(Run.open(trained).last(DRAWN), tmp_path / 'program')
    assert not (tmp_path / 'program').exists()


def test_a_program_needs_a_package(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(RunError, match="flatbuffers: pip install 't2i_jax"):
        to_program(Run.open(trained).last(DRAWN), tmp_path / 'program')


def test_an_example_comes_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ['--mode=sample', '--workdir=example:shapes', '--text=a red ring']
    flags = parse(words).flags
    assert flags.out == 'samples' and flags.workdir == str(places.EXAMPLES / 'shapes')
    for mode, message in (('train', 'takes a folder'), ('describe', 'takes a folder')):
        with pytest.raises(RunError, match=message):
            parse([f'--mode={mode}', '--workdir=example:shapes'])
    with pytest.raises(RunError, match="example is 'birds'; it is 'shapes'"):
        parse(['--mode=sample', '--workdir=example:birds', '--text=a'])
    size = sum(path.stat().st_size for path in (places.EXAMPLES / 'shapes').rglob('*'))
    assert size < 4e6
    pictures = Sampler.load('example:shapes')(['a red ring', 'a blue square'], num=4).images
    for row, *thing in zip(pictures, ('ring', 'square'), ('red', 'blue')):
        found = [scene for scene in decode_all(row, 'single')[:, 0]]
        names = [(CLASSES[int(one[CLASS])], COLOURS[int(one[COLOUR])]) for one in found]
        assert names.count(tuple(thing)) >= 3


def test_a_model_of_the_hub(folder, tmp_path, monkeypatch):
    # a folder stands for the hub
    store = tmp_path / 'hub'

    def download(repo, revision=None):
        return str(store / repo)

    def upload(repo_id, folder_path):
        shutil.copytree(folder_path, store / repo_id)
        return f'hub/{repo_id}'

    package = types.ModuleType('huggingface_hub')
    package.snapshot_download, package.upload_folder = download, upload
    package.create_repo = lambda repo, exist_ok: None
    package.get_token = lambda: None
    monkeypatch.setitem(sys.modules, 'huggingface_hub', package)
    with pytest.raises(RunError, match='log in with `hf auth login`'):
        places.push(folder, 'me/rings')
    package.get_token = lambda: 'token'
    assert places.push(folder, 'me/rings') == 'hub/me/rings'
    np.testing.assert_array_equal(
        Sampler.load('hf://me/rings')(SENTENCES[:1]).images,
        Sampler.load(folder)(SENTENCES[:1]).images,
    )
    with pytest.raises(RunError, match='names no model'):
        places.push(folder, 'rings')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(RunError, match="pip install 't2i_jax\\[export\\]'"):
        Sampler.load('hf://me/rings')


def test_arrays_are_named_by_their_paths():
    tree = {'params': {'G': {'ups': {0: {'kernel': np.zeros(1)}}}}}
    assert list(named(tree)) == ['params/G/ups/0/kernel']


def test_settings_of_the_command_line():
    assert set(
        settings.plain(parse(['--mode=export', '--workdir=example:shapes']).config.init)
    ) == {'text', 'gan', 'style'}
