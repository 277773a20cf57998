"""The command line: flags and modes; errors are one message, exit status 1, no traceback."""

import errno
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from t2i_jax import config as settings
from t2i_jax import main, sample
from t2i_jax.run import Run
from t2i_jax.runtime import lock
from t2i_jax.runtime.errors import DataError, RunError

ROOT = pathlib.Path(__file__).parents[1]
SHAPES, FLOWERS = 'experiments/gan_cls_shapes.py', 'experiments/gan_cls_flowers.py'


@pytest.fixture
def cli(monkeypatch, capsys):
    """A function: arguments of `t2i_jax` -> (exit status, output, error message)."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(main, 'start_jax', lambda: None)

    def call(*arguments):
        argv = ['t2i_jax', *map(str, arguments)]
        status, message = 0, ''
        try:
            main.cli(argv)
        except SystemExit as end:
            status, message = (1, end.code) if isinstance(end.code, str) else (end.code or 0, '')
        return status, capsys.readouterr().out, message

    return call


def refused(cli, *arguments):
    status, _, message = cli(*arguments)
    assert (
        status == 1
        and message.startswith('Error: ')
        and 'Traceback' not in message
        and len(message.splitlines()) < 30
    )
    return message


@pytest.mark.parametrize(
    'arguments, parts',
    [
        ([], ['--config=<experiment>', '--workdir']),
        (['--mode=describe'], ['--config=<experiment>']),
        (['--mode=sample'], ['Give --workdir=<folder>, the run.']),
        (['--mode=evaluate'], ['Give --workdir=<folder>, the run.']),
        ([f'--config={SHAPES}:tiny'], ['Give --workdir']),
        (
            [f'--config={SHAPES}:tiny', '--workdir=RUN', '--mode=dream'],
            ["no mode 'dream'", 'train, sample, explore, describe'],
        ),
        ([f'--config={SHAPES}:tiny', '--wrokdir=x'], ['wrokdir', 'workdir']),
        ([f'--config={SHAPES}:tiny', '--workdir=RUN', 'text'], ["'text' is not a flag"]),
        ([f'--config={SHAPES}:tiny', '--workdir=RUN', '--num=many'], ['num', 'many']),
        (
            ['--config=experiments/gan_cls_cats.py', '--workdir=RUN'],
            ['experiments/gan_cls_cats.py', 'gan_cls_shapes', 'gan_cls_flowers'],
        ),
        (
            ['--config', 'experiments/gan_cls_cats.py', '--workdir=RUN'],
            ['experiments/gan_cls_cats.py', 'gan_cls_shapes'],
        ),
        (['--config=experiments', '--workdir=RUN'], ['experiments', 'gan_cls_shapes']),
        (['--config=', '--workdir=RUN'], ['gan_cls_shapes']),
        (
            ['--config=experiments/common.py', '--workdir=RUN'],
            ['experiments/common.py', 'get_config'],
        ),
        (
            [f'--config={SHAPES}:enormous', '--workdir=RUN'],
            ["no variant 'enormous'", 'tiny', 'quick'],
        ),
        (
            [f'--config={SHAPES}:tiny', '--mode=describe', '--config.system=gan_clss'],
            ["no system 'gan_clss'", 'gan_cls', 'dcgan'],
        ),
        (
            [f'--config={SHAPES}:tiny', '--mode=describe', '--config.stages.gan.typo=1'],
            ['stages.gan.typo', 'batch_size'],
        ),
        (
            [f'--config={SHAPES}:tiny', '--mode=describe', '--config.stages.gun.steps=1'],
            ['stages.gun', 'gan', 'text'],
        ),
        (
            [f'--config={SHAPES}:tiny', '--mode=describe', '--config.stages.gan.model.nfg=1'],
            ['stages.gan.model.nfg', 'ngf'],
        ),
        (
            [f'--config={SHAPES}:tiny', '--mode=describe', '--config.stages.gan.steps=many'],
            ['stages.gan.steps', 'many'],
        ),
        ([f'--config={SHAPES}:tiny', '--mode=describe', '--config.stages.gan=1'], ['stages.gan']),
        (
            [
                f'--config={SHAPES}:tiny',
                '--mode=describe',
                '--config.stages.gan.optim.g_loss.name=adamm',
            ],
            ["name is 'adamm'", 'rmsprop'],
        ),
        (
            [f'--config={SHAPES}:tiny', '--mode=describe', '--config.data.size=50'],
            ['50', '16, 32, 64'],
        ),
        (
            [f'--config={SHAPES}:tiny', '--mode=describe', '--config.dtype=float31'],
            ['float31', 'bfloat16'],
        ),
        (
            ['--workdir=/nowhere/run', '--mode=sample', '--text=a circle'],
            ['/nowhere/run holds no run', '--config=<experiment>'],
        ),
        ([f'--config={SHAPES}:tiny', '--workdir=/proc/run'], ['/proc/run', 'another --workdir']),
        (['--workdir=/nowhere/run', '--mode=evaluate'], ['/nowhere/run holds no run']),
        (['--mode=compare'], ['two workdirs', '--mode=compare runs/a runs/b']),
        (
            ['--mode=compare', '/nowhere/a', '/nowhere/b'],
            ['/nowhere/a cannot be used', 'Name a workdir'],
        ),
        (
            [
                '--mode=evaluate',
                '--images=/nowhere',
                '--reference=/nowhere',
                '--out=RUN',
                '--extractor=random_conv',
            ],
            ['/nowhere is not a folder'],
        ),
        (
            [
                '--mode=evaluate',
                '--images=/nowhere',
                '--reference=/nowhere',
                '--out=RUN',
                '--extractor=vgg',
            ],
            ["no feature network 'vgg'", 'efficientnet_lite0'],
        ),
        (['--mode=evaluate', '--images=/nowhere', '--extractor=random_conv'], ['--reference=DIR']),
    ],
    ids=lambda value: (
        ' '.join(value)[-40:]
        if value and isinstance(value, list) and value[0].startswith('-')
        else ''
    ),
)
def test_mistyped_arguments(cli, tmp_path, arguments, parts):
    message = refused(
        cli, *(argument.replace('RUN', str(tmp_path / 'run')) for argument in arguments)
    )
    for part in parts:
        assert part in message
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'words',
    [
        f'--config={SHAPES}:tiny --workdir=PATH',
        '--config=PATH.py --workdir=RUN',
        f'--config={SHAPES}:tiny --config.data.dir=PATH --workdir=RUN',
        '--workdir=PATH --mode=sample --text=a',
        '--workdir=PATH --mode=evaluate',
        '--mode=compare PATH RUN',
        '--mode=compare RUN RUN --out=PATH',
        '--mode=evaluate --images=PATH --reference=RUN --out=RUN',
        '--mode=evaluate --images=RUN --reference=RUN --out=PATH',
    ],
)
def test_paths_that_no_user_has_and_that_no_disk_takes(cli, tmp_path, words):
    for path, part in (
        ('~nouser/x', 'There is no user nouser'),
        ('a\0b', 'is not the name of a file or folder'),
        ('a\ud800', 'is not the name of a file or folder'),
    ):
        arguments = (word.replace('RUN', str(tmp_path)) for word in words.split(' '))
        assert part in refused(cli, *(word.replace('PATH', path) for word in arguments))
    assert not (ROOT / '~nouser').exists()


def on_small(data_dir, *others):
    """The arguments that train the tiny GAN-CLS on shape_scenes/single_quick."""
    return [
        f'--config={SHAPES}:tiny',
        f'--config.data.dir={data_dir}',
        '--config.data.name=shape_scenes/single_quick',
        *others,
    ]


@pytest.mark.parametrize(
    'arguments, parts',
    [
        (
            ['--config.stages.text.batch_size=6'],
            ['stages.text.batch_size=6', '8 devices', 'multiple of 8'],
        ),
        (['--config.mesh.fsdp=3'], ['mesh.fsdp=3', '8 devices']),
        (
            ['--config.stages.text.epochs=2', '--config.stages.text.steps=20'],
            ['steps=20', 'epochs=2', 'set one of them'],
        ),
        (['--config.data.split=trian'], ["no split 'trian'", 'train', 'validation', 'test_unseen']),
        (
            ['--config.data.name=shape_scene/single'],
            ["no data set 'shape_scene'", 'shape_scenes', 'flowers102_captions'],
        ),
        (['--config.data.name=shape_scenes/double'], ["no config 'double'", 'single_quick']),
        (['--config.data.flip=True'], ['data.flip=False']),
        (['--config.data.split=train[:4]'], ['4 records', 'a batch of 8']),
        (['--config.data.cache=disk'], ["data.cache is 'disk'", "'device', 'host' or 'none'"]),
        (['--config.stages.text.sampler=random'], ["sampler is 'random'", 'class_balanced']),
        (['--config.stages.gan.model.game.nt_xent=0.2'], ['stage gan need', 'sampler=twins']),
        (
            ['--config.stages.gan.model.ngf=1000000'],
            ['Stage gan takes at least', 'GB of memory are free', 'lower widths'],
        ),
        (['--config.stages.text.keep=best'], ["keep is 'best'", 'best:']),
        (
            ['--config.data.workers=512', '--config.data.cache=none'],
            ['data.workers is 512', 'to at most'],
        ),
        (['--config.data.manual_dir=/x'], ['takes no data.manual_dir', 'Leave it out']),
        (['--config.data.embedding=sotred'], ["'sotred'", "'none' or 'stored'"]),
        (['--config.init.text=/nowhere/run'], ['/nowhere/run', 'config.json']),
    ],
    ids=lambda value: value[0] if value and value[0].startswith('-') else '',
)
def test_settings_that_training_refuses(cli, data_dir, tmp_path, arguments, parts):
    message = refused(cli, *on_small(data_dir, *arguments, f'--workdir={tmp_path}'))
    for part in parts:
        assert part in message
    assert not (tmp_path / 'lock').exists()


def test_a_workdir_belongs_to_one_config_and_one_process(cli, tiny, trained):
    message = refused(cli, f'--config={SHAPES}:tiny', f'--workdir={trained}')
    assert f'{trained} belongs to a run with another config' in message
    assert (
        'stages.gan.model.ngf: 4 there, 24 here' in message
        and 'data.split: train[:256] there, train here' in message
    )
    message = refused(cli, f'--workdir={trained}', '--config.stages.gan.model.ngf=8')
    assert 'stages.gan.model.ngf: 4 there, 8 here' in message and len(message.splitlines()) == 3
    with lock.Lock(trained):
        message = refused(cli, f'--workdir={trained}')
        assert f'in use by process {os.getpid()}' in message
    (trained / 'config.json').write_text(settings.to_json(tiny()))


def test_an_attempt_that_was_refused_does_not_bind_the_next(cli, data_dir, tmp_path):
    refused(cli, *on_small(data_dir, '--config.stages.text.batch_size=6', f'--workdir={tmp_path}'))
    assert 'stages.text.batch_size=7' in refused(
        cli, *on_small(data_dir, '--config.stages.text.batch_size=7', f'--workdir={tmp_path}')
    )


def test_a_config_of_another_system(cli):
    message = refused(
        cli, '--config=experiments/dcgan_shapes.py', '--config.system=gan_cls', '--mode=describe'
    )
    assert "gan_cls has a stage 'text'" in message


def test_the_damsm_alone_of_an_experiment(cli):
    status, output, message = cli(
        '--config=experiments/attngan_shapes.py', '--config.system=damsm', '--mode=describe'
    )
    assert (
        (status, message) == (0, '')
        and 'stage damsm: 2,500 steps' in output
        and 'gan' not in output
    )


def test_an_older_run_has_the_settings_of_an_evaluation_that_are_new(trained, tmp_path):
    config = settings.load_run(trained).unlock()
    del config.eval.scorer
    (tmp_path / 'config.json').write_text(settings.to_json(config))
    words = [f'--workdir={tmp_path}', '--mode=evaluate', '--config.eval.scorer=other']
    found = main.parse([*words, '--config.eval.num=7']).config.eval
    assert (found.scorer, found.num) == ('other', 7) and {*found} == {*settings.EVAL}


def test_sentences_that_cannot_be_drawn(cli, trained, tmp_path):
    (tmp_path / 'empty.txt').write_text('\n \n')
    (tmp_path / 'binary.txt').write_bytes(b'\xff\xfe\x00')
    for arguments, parts in (
        ([f'--text_file={tmp_path / "empty.txt"}'], ['empty.txt is empty', 'one sentence a line']),
        ([f'--text_file={tmp_path / "none.txt"}'], ['none.txt cannot be used', 'Check the path']),
        ([f'--text_file={tmp_path / "binary.txt"}'], ['no words']),
        (['--text='], ['Sentence 1', 'has no words']),
        (['--text=a circle', '--text=?!'], ["Sentence 2 ('?!') has no words"]),
        (['--text=zebra stripes'], ['zebra, stripes', 'words of its training captions']),
        ([], ['--text=']),
        (['--text=a circle', '--num=0'], ['--num is 0']),
        (['--text=a circle', '--num=-3'], ['--num is -3']),
        (['--labels=circle, square'], ['does not read labels']),
        (['--text=a circle', '--attributes=circle'], ['does not read attributes']),
    ):
        message = refused(
            cli, f'--workdir={trained}', '--mode=sample', f'--out={tmp_path / "out"}', *arguments
        )
        for part in parts:
            assert part in message, arguments
    assert not (tmp_path / 'out').exists()


def test_a_run_without_a_checkpoint_cannot_draw(cli, trained, tmp_path):
    shutil.copytree(
        trained, tmp_path, ignore=shutil.ignore_patterns('checkpoints'), dirs_exist_ok=True
    )
    for folder in (
        '',
        'text/checkpoints',
        'gan/checkpoints',
        'gan/checkpoints/3.orbax-checkpoint-tmp',
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        message = refused(cli, f'--workdir={tmp_path}', '--mode=sample', '--text=a circle')
        assert 'no finished checkpoint' in message
        assert f't2i_jax --workdir={tmp_path}' in message


def test_damaged_files_of_a_run_are_named(cli, tiny, trained, tmp_path):
    (tmp_path / 'config.json').write_text('{"system": ')
    assert f'{tmp_path / "config.json"} is damaged' in refused(
        cli, f'--workdir={tmp_path}', '--mode=sample', '--text=a circle'
    )


# ----------------------------------------------------------------------------------- paths, files
@pytest.mark.parametrize('mode', ['train', 'sample', 'evaluate', 'explore'])
def test_a_workdir_in_which_checkpoints_cannot_be_read_is_refused(cli, tmp_path, mode):
    """Orbax takes a path with brackets for a pattern, also behind a link; a backslash is lost."""
    config = settings.to_json(settings.load(f'{SHAPES}:tiny'))
    for name, part in (
        ('a[1]/b*', '* [ ] in its path'),
        (r'a\b', r'has \ in its path'),
        (os.fsdecode(b'a\xff'), r"a\udcff' is not the name of a folder in UTF-8"),
    ):
        folder, link = tmp_path / name, tmp_path / f'link{len(name)}'
        folder.mkdir(parents=True)
        (folder / 'config.json').write_text(config)
        link.symlink_to(folder)
        for path in folder, link:
            message = refused(cli, f'--workdir={path}', f'--mode={mode}')
            assert part in message and 'Rename that folder' in message
        assert {path.name for path in folder.iterdir()} == {'config.json'}


def files_of_all_kinds(folder):
    """{name: path} of what is not what a flag asks for."""
    (folder / 'file').write_text('x')
    (folder / 'folder').mkdir()
    os.mkfifo(folder / 'pipe')
    (folder / 'circle').symlink_to('circle')
    (folder / 'broken').symlink_to('nowhere')
    return dict(
        file=folder / 'file',
        below=folder / 'file' / 'x',
        folder=folder / 'folder',
        pipe=folder / 'pipe',
        circle=folder / 'circle',
        broken=folder / 'broken',
        long=folder / ('x' * 300),
        null='/dev/null',
        zero='/dev/zero',
        proc='/proc/1/nothing/x',
    )


@pytest.mark.parametrize('kind', ['file', 'below', 'folder', 'pipe', 'circle', 'broken', 'long'])
def test_a_path_of_another_kind_is_one_message(cli, tmp_path, kind):
    path = files_of_all_kinds(tmp_path)[kind]
    for flag in ('--mode=sample --text=a --workdir', '--mode=describe --config', '--workdir'):
        *others, flag = flag.split()
        message = refused(cli, *others, f'{flag}={path}')
        assert str(path)[:100] in message and len(message) < 1500, flag
    if kind in ('folder', 'broken'):
        return
    message = refused(
        cli, f'--config={SHAPES}:tiny', f'--workdir={path}', f'--config.data.dir={tmp_path}'
    )
    assert str(path) in message and 'workdir' in message


@pytest.mark.parametrize('kind', ['below', 'folder', 'pipe', 'circle', 'broken', 'long', 'zero'])
def test_a_text_file_of_another_kind_is_one_message(cli, trained, tmp_path, kind):
    path = files_of_all_kinds(tmp_path)[kind]
    message = refused(
        cli, f'--workdir={trained}', '--mode=sample', f'--text_file={path}', f'--out={tmp_path}/o'
    )
    assert str(path) in message and not (tmp_path / 'o').exists()


@pytest.mark.parametrize('kind', ['file', 'below', 'pipe', 'long', 'null', 'proc'])
def test_results_that_have_no_folder_are_refused_at_once(cli, trained, tmp_path, kind):
    path = files_of_all_kinds(tmp_path)[kind]
    message = refused(cli, f'--workdir={trained}', '--mode=sample', '--text=a', f'--out={path}')
    assert str(path) in message


def test_a_run_on_a_disk_that_cannot_be_written_is_told_before_it_is_drawn_or_measured(
    cli, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(main.os, 'access', lambda path, mode: path != trained)
    for mode in (['sample', '--text=a circle'], ['evaluate'], ['explore', '--what=attention']):
        message = refused(cli, f'--workdir={trained}', f'--mode={mode[0]}', *mode[1:])
        assert f'Results cannot be written to {trained}' in message and '--out=' in message
    # elsewhere, and for what writes nothing
    assert cli(f'--workdir={trained}', '--mode=explore', '--what')[0] == 0
    words = [f'--workdir={trained}', '--mode=sample', f'--out={tmp_path}']
    assert main.parse(words).flags.out == str(tmp_path)


def test_an_error_of_the_system_is_one_message_and_others_keep_their_traceback(cli, monkeypatch):
    def fails(error):
        def perform(command):
            raise error

        monkeypatch.setattr(main, 'perform', perform)
        return cli(f'--config={SHAPES}:tiny', '--workdir=/x y/z')

    status, _, message = fails(OSError(errno.EIO, 'x', '/a b/c'))
    assert status == 1 and message.startswith("Error: '/a b/c' cannot be used: Input/output error")
    for error in (OSError('of a library'), KeyError('x'), AttributeError('x')):
        with pytest.raises(type(error)):
            fails(error)


def test_files_that_are_not_of_a_run_are_not_replaced(cli, tmp_path):
    for name, text in (
        ('config.json', '{"architectures": ["GPT2"]}'),
        ('config.json', 'text'),
        ('vocabulary.json', '{"a": 1}'),
    ):
        (tmp_path / name).write_text(text)
        message = refused(cli, f'--config={SHAPES}:tiny', f'--workdir={tmp_path}')
        assert f'{tmp_path / name} is not that of a run' in message
        assert (tmp_path / name).read_text() == text
        (tmp_path / name).unlink()


def copy_of(trained, folder):
    return shutil.copytree(trained, folder / 'my run')


def test_another_vocabulary_is_refused_whatever_is_done_with_the_run(cli, trained, tmp_path):
    run = copy_of(trained, tmp_path)
    words = json.loads((run / 'vocabulary.json').read_text())['words']
    (run / 'vocabulary.json').write_text(json.dumps({'words': words[::-1]}))
    for mode in (['sample', '--text=a circle'], ['evaluate'], ['explore', '--what=swap_word']):
        message = refused(cli, f'--workdir={run}', f'--mode={mode[0]}', *mode[1:])
        assert f"'{run}/vocabulary.json' is not the one with which stage" in message


@pytest.mark.parametrize(
    'text, part',
    [
        ('[]', 'not a block'),
        ('{}', 'missing'),
        ('null', 'not a block'),
        ('[' * 100_000, 'nested too deeply'),
        ('{"name": 3}', 'name is 3'),
        ('{"name": "x", "length": "18"}', "length is '18'"),
        ('{"name": "x", "size": -5}', 'size is -5'),
        ('{"name": "x", "length": 1000000000}', 'length is 1000000000; expected 0 to 64'),
        ('{"name": "x", "size": 5000}', 'size is 5000; expected 0 to 4096'),
        ('{"name": "x", "max_objects": 100000}', 'max_objects is 100000; expected 0 to 10000'),
        ('{"name": "x", "attributes": 100000000}', 'attributes is 100000000; expected'),
        ('{"name": "x", "object_names": [1]}', 'object_names is (1,)'),
        ('{"name": "x", "wings": 2}', 'wings'),
    ],
    ids=lambda value: value[:20],
)
def test_a_damaged_meta_is_one_message(cli, trained, tmp_path, text, part):
    run = copy_of(trained, tmp_path)
    (run / 'gan' / 'meta.json').write_text(text)
    message = refused(cli, f'--workdir={run}', '--mode=sample', '--text=a circle')
    assert f"'{run}/gan' holds no trained stage: meta.json is damaged" in message
    # what this mode does not read is not proposed for it
    assert f"writes the file: t2i_jax --workdir='{run}'" in message
    assert part in message and len(message) < 1000


def test_a_renamed_checkpoint_is_not_drawn_under_its_new_step(cli, trained, tmp_path, caplog):
    run = copy_of(trained, tmp_path)
    folder = run / 'gan' / 'checkpoints'
    (folder / '6').rename(folder / '60')
    status, output, message = cli(
        f'--workdir={run}', '--mode=sample', '--text=a circle', '--num=1', f'--out={tmp_path}/o'
    )
    assert (status, message) == (0, '') and 'step 3' in output and 'it holds step 6' in caplog.text


def test_an_empty_step_folder_is_no_checkpoint(trained, tmp_path, caplog):
    run = copy_of(trained, tmp_path)
    (run / 'gan' / 'checkpoints' / '90').mkdir()
    stage = Run.open(run)['gan']
    # as where `init` of another run names this one
    stage.warn_if_unfinished()
    assert sorted(stage.saved_steps()) == [3, 6] and stage.state()[0] == 6
    assert 'was interrupted' not in caplog.text


def test_what_does_not_fit_into_memory_is_refused_with_what_does(
    cli, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(sample, 'free_memory', lambda: 10**9)
    for mode in (['sample'], ['explore', '--what=z_interpolation']):
        message = refused(
            cli,
            f'--workdir={trained}',
            f'--mode={mode[0]}',
            *mode[1:],
            '--text=a circle',
            '--num=1000000000',
            f'--out={tmp_path / "o"}',
        )
        assert '1,000,000,000 samples need about' in message and '1.0 GB are free: draw' in message
    assert not (tmp_path / 'o').exists()


def test_seeds_and_numbers_out_of_range_are_refused_from_python_too(trained):
    sampler = sample.Sampler.load(trained)
    for name, values in dict(
        seed=(2**32, -1, 1.5, None, '1', [1]), num=(0, -3, 1.5, None, '2', np.zeros(3))
    ).items():
        for value in values:
            with pytest.raises(RunError, match=f'{name} is '):
                sampler(['a circle'], **{name: value})
    for given in ([3], [None], 3, [['a circle']], ['a circle', b'x']):
        with pytest.raises(DataError, match=r'Sentence [12] is .*; expected a text'):
            sampler(given)
        with pytest.raises(DataError, match=r'Sentence [12] is .*; expected a text'):
            sampler.encode(given)


def test_the_program_can_be_called_twice_in_a_process(cli):
    for _ in range(2):
        assert cli('--help')[0] == 0
        assert refused(cli, '--mode=dream')


def test_data_that_must_be_fetched_by_hand(cli, tmp_path):
    for manual in ([], [f'--config.data.manual_dir={tmp_path / "mine"}']):
        places = [
            f'--config.data.dir={tmp_path / "data"}',
            f'--workdir={tmp_path / "run"}',
            *manual,
        ]
        message = refused(cli, f'--config={FLOWERS}:tiny', *places)
        assert (
            f'{tmp_path / "mine" if manual else "manual"}' in message
            and 'cvpr2016_flowers.tar.gz' in message
        )


def test_describe_tells_sizes_without_data(cli):
    status, output, message = cli(f'--config={FLOWERS}', '--mode=describe')
    assert (status, message) == (0, '') and '18,905,472' in output and '4,030,080' in output


def test_sampling_writes_pictures(cli, trained, tmp_path):
    (tmp_path / 'some.txt').write_text('a large circle\n\nA small square!\n')
    out = tmp_path / 'out'
    sentences = ['--text=a triangle', f'--text_file={tmp_path / "some.txt"}']
    status, output, message = cli(
        f'--workdir={trained}', '--mode=sample', *sentences, '--num=2', f'--out={out}'
    )
    assert (status, message) == (0, '') and str(out / 'sheet.png') in output
    drawn = ['000_a-triangle.png', '001_a-large-circle.png', '002_a-small-square.png', 'sheet.png']
    assert sorted(path.name for path in out.iterdir()) == drawn


def test_sampling_writes_what_is_asked_for_by_labels_and_attributes(
    cli, trained, tmp_path, monkeypatch
):
    given = []
    monkeypatch.setattr(sample, 'to_files', lambda *words, **_: given.append(words))
    cli(
        f'--workdir={trained}',
        '--mode=sample',
        '--labels=person, dog',
        '--labels=cat',
        '--attributes=circle, red',
        '--num=2',
        f'--out={tmp_path}',
    )
    ((stage, *rest),) = given
    assert (stage.workdir, stage.name) == (trained, 'gan')
    named = ['person, dog', 'cat'], ['circle, red']
    assert rest == [[], 2, 0, str(tmp_path), *named, [], [], []]


@pytest.mark.parametrize(
    'arguments, flag, mode, hint',
    [
        (
            ['--mode=describe', '--what=nonsense', '--images=/nowhere'],
            'what',
            'describe',
            'explore',
        ),
        (['--mode=train', '--seed=3'], 'seed', 'train', '--config.seed'),
        (['--seed', '3', '--workdir=x'], 'seed', 'train', '--mode=sample'),
        (['--mode=evaluate', '--num=10'], 'num', 'evaluate', '--config.eval.num'),
        (['--mode=evaluate', '--workdir=x', '--force'], 'force', 'evaluate', '--config.eval.force'),
        (['--mode=evaluate', '--images=x', '--workdir=y'], 'workdir', 'evaluate --images', 'train'),
        (['--mode=evaluate', '--images=x', '--stage=gan'], 'stage', 'evaluate --images', 'sample'),
        (['--mode=sample', '--process=1'], 'process', 'sample', '--mode=train'),
        (['--mode=sample', '--settings'], 'settings', 'sample', '--mode=describe'),
        (['--mode=sample', f'--config={SHAPES}'], 'config', 'sample', 'its own config'),
        (['--mode=sample', '--config.data.dir=x'], 'config.data.dir', 'sample', 'its own config'),
        (['--mode=explore', '--labels=dog'], 'labels', 'explore', '--mode=sample'),
        (['--mode=evaluate', '--config.seed=3'], 'config.seed', 'evaluate', 'config.eval.seed'),
        (
            ['--mode=evaluate', '--config.stages.gan.steps=9'],
            'config.stages.gan.steps',
            'evaluate',
            'train',
        ),
        (['--mode=explore', '--config.eval.num=9'], 'config.eval.num', 'explore', 'evaluate'),
        (['--mode=compare', 'a', 'b', '--stage=gan'], 'stage', 'compare', '--mode=evaluate'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_a_flag_of_another_mode_is_refused(cli, arguments, flag, mode, hint):
    message = refused(cli, *arguments)
    assert f'--{flag} is not read by --mode={mode}; it belongs to --mode=' in message
    assert hint in message and len(message.splitlines()) == 1


@pytest.mark.parametrize(
    'words, message',
    [
        (['--config=a', '--config=b'], '--config is given twice, a and b: give it once'),
        (['--num=3', '--num', '4'], '--num is given twice, 3 and 4'),
        (['--seed=-1'], '--seed is -1; it must be between 0 and 4294967295'),
        (['--seed=4294967296'], '--seed is 4294967296'),
        (['--num=' + '9' * 5000], '--num is a whole number'),
        (['--join_timeout=0'], '--join_timeout is 0'),
        (['--' + 'x' * 100_000], 'There is no flag --xxx'),
        (['--num=' + 'x' * 100_000], "is a whole number, not 'xxx"),
    ],
    ids=lambda value: value[0][:30] if isinstance(value, list) else '',
)
def test_flags_that_cannot_be_meant(words, message):
    with pytest.raises(RunError) as error:
        main.read(words)
    assert message in str(error.value) and len(str(error.value)) < 1000
    assert main.read(['--num=3', '--num=3'])[0] == {'num': 3}


def test_flags_are_read_in_both_forms():
    words = ['--text', 'a', '--text=b', '--num', '3', '--settings', '-workdir', 'x', 'y']
    given, overrides, paths = main.read([*words, '--config.data.size', '3', '--config.data.flip'])
    assert given == dict(text=['a', 'b'], num=3, settings=True, workdir='x') and paths == ['y']
    assert overrides == {'data.size': '3', 'data.flip': 'true'}
    with pytest.raises(RunError, match='--workdir needs a value'):
        main.read(['--workdir'])
    with pytest.raises(RunError, match='There is no flag --stages. Did you mean --stage?'):
        main.read(['--stages=gan'])


def test_every_flag_belongs_to_a_mode():
    assert {flag for mode in main.MODES.values() for flag in mode.flags} == {*main.FLAGS} - {'mode'}


def test_examples_of_the_help_can_be_parsed(cli, monkeypatch):
    monkeypatch.setattr(main, 'config_of', lambda mode, flags, overrides: None)
    for name, mode in main.MODES.items():
        assert main.parse(shlex.split(mode.example)).mode == name


def test_help_is_grouped_by_mode(cli):
    status, output, message = cli('--help')
    assert (status, message) == (0, '')
    for name, mode in main.MODES.items():
        assert f'\n{name}: {mode.help}\n    t2i_jax {mode.example}\n' in output
    assert all(f'--{flag}' in output for flag in main.FLAGS if flag != 'mode')
    assert max(map(len, output.splitlines())) <= 100
    status, output, message = cli('--mode=compare', '--help')
    assert (status, message) == (0, '') and '--out' in output and '--text' not in output
    status, output, message = cli(f'--config={SHAPES}:tiny', '--help')
    assert (status, message) == (0, '')
    assert '\n  --config.data.size=16         pixels' in output
    assert '\n  --config.stages.gan.model.ngf=24\n' in output


def test_settings_are_printed_as_the_command_line_reads_them(cli):
    status, output, message = cli(f'--config={SHAPES}:tiny', '--mode=describe', '--settings')
    assert (status, message) == (0, '')
    assert '--config.stages.gan.model.ngf=24' in output.splitlines()
    assert all(line.startswith('--config.') for line in output.splitlines())


def test_an_experiment_or_a_run_is_described(cli):
    message = refused(cli, f'--config={SHAPES}', '--workdir=x', '--mode=describe')
    assert 'give one of them' in message


@pytest.mark.slow
def test_the_program_itself():
    def program(module, *arguments):
        return subprocess.run(
            [sys.executable, '-m', module, *arguments], cwd=ROOT, capture_output=True, text=True
        )

    done = program('t2i_jax', f'--config={SHAPES}:enormous', '--workdir=x')
    assert done.returncode == 1 and not done.stdout and len(done.stderr.splitlines()) == 1
    done = program('t2i_jax.main', '--help')
    assert done.returncode == 0 and not done.stderr and '--workdir' in done.stdout
