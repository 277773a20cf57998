"""Words of messages: long texts are cut, paths can be pasted, errors are explained."""

import errno
import os
import pathlib
import shlex

import jax
import pytest

from t2i_jax.runtime.compiled import start_jax
from t2i_jax.runtime.errors import DataError, explained, home, quoted, reason, short


def test_long_texts_are_cut_and_say_how_long_they_were():
    assert short('a red\n  bird') == 'a red bird'
    assert short('x' * 200) == 'x' * 200
    cut = short('word ' * 20_000)
    assert len(cut) < 240 and cut.endswith('... (100,000 characters)')
    assert len(short(' ' * 100_000)) < 40


@pytest.mark.parametrize('path', ['runs/x', 'my runs/x', "it's", 'a$b', 'ü'])
def test_a_path_in_a_message_can_be_pasted(path):
    assert shlex.split(f'--workdir={quoted(path)}') == [f'--workdir={path}']


def test_the_home_of_a_user(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert home('~') == tmp_path and home('~/x') == home(tmp_path / 'x') == tmp_path / 'x'
    for path in '', 'x', 'a~', 'x/~nouser', b'x':
        assert home(path) == pathlib.Path(os.fsdecode(path))
    for path in '~nouser', '~nouser/x', pathlib.Path('~nouser'), 'a\0b', 'a\ud800':
        with pytest.raises(DataError, match='There is no user nouser|is not the name of'):
            home(path)
    # a folder that a shell has made of the same words
    (tmp_path / '~nouser').mkdir()
    assert home('~nouser/x') == pathlib.Path('~nouser/x')


def test_plain_paths_stay_as_they_are():
    assert quoted('/data/runs/attngan-2_a.b') == '/data/runs/attngan-2_a.b'


@pytest.mark.parametrize('number', [errno.ENAMETOOLONG, errno.EISDIR, errno.EROFS, errno.EXDEV])
def test_an_error_of_the_system_names_its_path_and_a_remedy(number):
    error = OSError(number, os.strerror(number), '/a b/c')
    message = explained(error)
    assert message.startswith("'/a b/c' cannot be used: ") and os.strerror(number) in message
    assert message.endswith('.') and len(message.split('. ')) == 2
    assert reason(error) == os.strerror(number)
    assert explained(OSError(number, 'x')).startswith('A file cannot be used: ')


@pytest.mark.parametrize('cache', ['/proc', '/dev/null', '{folder}/file', '{folder}/' + 'x' * 300])
def test_a_cache_that_cannot_be_written_is_left_alone(tmp_path, monkeypatch, cache):
    (tmp_path / 'file').touch()
    found = {}
    monkeypatch.setattr(jax.config, 'update', lambda name, value: found.update({name: value}))
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
    monkeypatch.setenv('XDG_CACHE_HOME', cache.format(folder=tmp_path))
    start_jax()
    assert found['jax_compilation_cache_dir'] is None
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    start_jax()
    assert found['jax_compilation_cache_dir'] == str(tmp_path / 't2i_jax' / 'compiled')
