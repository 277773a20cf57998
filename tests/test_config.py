"""Settings: defaults, keywords of stages, overrides, ranges, experiment files, resuming."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import pytest
from ml_collections import ConfigDict

from t2i_jax import config as settings
from t2i_jax import main
from t2i_jax.config.files import shipped
from t2i_jax.config.overrides import override
from t2i_jax.config.variants import complete, keywords
from t2i_jax.experiments import common, gan_cls_shapes
from t2i_jax.run import describe
from t2i_jax.runtime.errors import RunError
from t2i_jax.stage import Phase, Stage
from t2i_jax.systems.attngan import AttnGan


def tiny(**overrides):
    return settings.load('gan_cls_shapes:tiny', overrides)


# ---------------------------------------------------------------------------------------- keywords
def test_keywords_are_collected_along_the_parents():
    class Mirror(AttnGan):
        def __init__(self, meta, *, caption_weight=20.0, gf=7, **others):
            super().__init__(meta, gf=gf, **others)

    class Sealed(Mirror):
        def __init__(self, meta, *, own=1, rngs):
            super().__init__(meta, rngs=rngs)

    class Unchanged(Mirror):
        pass

    parents = keywords(AttnGan)
    assert len(parents) > 15 and parents['gf'] != 7
    assert keywords(Mirror) == {**parents, 'caption_weight': 20.0, 'gf': 7}
    assert keywords(Unchanged) == keywords(Mirror)
    assert keywords(Sealed) == {'own': 1}


def test_every_setting_of_a_stage_is_completed():
    class Plain(Stage):
        phases = (Phase('d_loss', ('D',)), Phase('g_loss', ('G',)))

        def __init__(self, meta, *, width=3, rngs):
            pass

    block = complete(Plain, 'gan', {'steps': 5, 'optim': {'g_loss': {'lr': 1.0}}})
    assert block['steps'] == 5 and block['batch_size'] == 64 and block['model'] == {'width': 3}
    assert block['optim']['g_loss']['lr'] == 1.0 and block['optim']['d_loss']['lr'] == 2e-4


# ------------------------------------------------------------------------------------------- locks
def test_a_typing_error_in_python_is_refused():
    for arg in ('', 'tiny', 'quick'):
        config = gan_cls_shapes.get_config(arg)
        for block in (config, config.data, config.stages.gan, config.stages.gan.model):
            assert block.is_locked
        with pytest.raises(AttributeError):
            config.stages.gan.modle = {}
        with pytest.raises(KeyError):
            config.stages.gan.update(stepz=3)


EXPERIMENT = """
from t2i_jax.experiments import common

def get_config(arg=''):
    c = common.base('gan_cls', data=common.shapes())
    c.stages.gan = dict(steps=5)
    {}
    return common.variant(c, arg, other=other)

def other(c):
    {}
"""


@pytest.mark.parametrize(
    'line, wrong, right',
    [
        ('c.data.sise = 32', 'data.sise', 'data.size'),
        ('c.sed = 3', 'sed', 'seed'),
        ('c.eval.nun = 3', 'eval.nun', 'eval.num'),
        ('c.mesh.fdsp = 2', 'mesh.fdsp', 'mesh.fsdp'),
        ('c.init.txt = "x"', 'init.txt', 'init.text'),
        ('c.stages.gann = dict(steps=3)', 'stages.gann', 'stages.gan'),
        ('c.stages.gan.epoch = 3', 'stages.gan.epoch', 'stages.gan.epochs'),
        ('c.stages.gan.data = dict(lenght=3)', 'stages.gan.data.lenght', 'stages.gan.data.length'),
        ('c.stages.gan.model = dict(nfg=3)', 'stages.gan.model.nfg', 'stages.gan.model.ngf'),
        (
            'c.stages.gan.optim = dict(g_los=dict(lr=1.0))',
            'stages.gan.optim.g_los',
            'stages.gan.optim.g_loss',
        ),
        (
            'c.stages.gan.optim = dict(g_loss=dict(lrr=1.0))',
            'stages.gan.optim.g_loss.lrr',
            'stages.gan.optim.g_loss.lr',
        ),
        (
            'c.stages.gan.optim = dict(g_loss=dict(schedule=dict(kid="step")))',
            'stages.gan.optim.g_loss.schedule.kid',
            'stages.gan.optim.g_loss.schedule.kind',
        ),
    ],
)
def test_a_mistyped_name_in_an_experiment_is_refused(tmp_path, line, wrong, right):
    path = tmp_path / 'mine.py'
    path.write_text(EXPERIMENT.format(line, 'pass'))
    message = f'There is no setting --config.{wrong}. Did you mean --config.{right}?'
    with pytest.raises(RunError, match=re.escape(message)):
        settings.load(str(path))


def test_a_mistyped_name_in_a_variant_is_refused_and_names_of_networks_are_open(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(EXPERIMENT.format('pass', 'c.stages.gan.data.sise = 32'))
    with pytest.raises(RunError, match=r'Did you mean --config\.stages\.gan\.data\.size\?'):
        settings.load(f'{path}:other')
    line = 'c.stages.gan.optim, c.init.text = dict(g_loss=dict(G=dict(lr=1.0))), "runs/x"'
    path.write_text(EXPERIMENT.format(line, 'pass'))
    config = settings.load(str(path))
    assert config.stages.gan.optim.g_loss.G.lr == 1.0 and config.init.text == 'runs/x'
    path.write_text(EXPERIMENT.format('c.data.nominal.words = 3', 'pass'))
    with pytest.raises(RunError, match=r'data\.nominal\.words.*vocabulary_size'):
        describe(settings.load(str(path)))


def test_a_stage_of_another_experiment_may_be_changed():
    stage = common.stage_of(gan_cls_shapes, 'text')
    stage.data.update(size=32)
    assert stage.data.size == 32 and stage.steps == 6000


# --------------------------------------------------------------------------------------- overrides
def test_steps_replace_the_epochs_of_an_experiment_and_the_reverse():
    def lengths(**overrides):
        stages = settings.load('gan_cls_shapes', overrides).stages
        return stages.text.steps, stages.text.epochs, stages.gan.steps, stages.gan.epochs

    assert lengths() == (6000, 0, 0, 600)
    assert lengths(**{'stages.gan.steps': '80'}) == (6000, 0, 80, 0)
    assert lengths(**{'stages.text.epochs': '3'}) == (0, 3, 0, 600)
    # 0 replaces nothing, and both of them are refused with the run
    assert lengths(**{'stages.gan.steps': '0'}) == (6000, 0, 0, 600)
    both = {'stages.gan.steps': '80', 'stages.gan.epochs': '2'}
    assert lengths(**both) == (6000, 0, 80, 2)
    assert lengths(**both | {'stages.gan.epochs': '0'}) == (6000, 0, 80, 0)


@pytest.mark.parametrize(
    'path, text, value',
    [
        ('data.flip', 'true', True),
        ('data.flip', 'False', False),
        ('data.size', '32', 32),
        ('data.split', 'train[:5]', 'train[:5]'),
        ('data.scales', '(16, 32)', (16, 32)),
        ('data.scales', '16,32', (16, 32)),
        ('data.scales', '16', (16,)),
        ('data.scales', '', ()),
        ('stages.gan.optim.g_loss.lr', '1e-3', 1e-3),
        ('stages.gan.optim.g_loss.lr', '1', 1.0),
        ('stages.gan.model.text_norm', '0', False),
        ('init.text', 'runs/7', 'runs/7'),
    ],
)
def test_values_keep_their_types(path, text, value):
    block = tiny(**{path: text})
    for part in path.split('.'):
        block = block[part]
    assert block == value and type(block) is type(value)


@pytest.mark.parametrize(
    'path, text, message',
    [
        (
            'data.sise',
            '3',
            r'--config\.data\.sise\. Did you mean --config\.data\.size\?',
        ),
        ('stages.gun.steps', '3', r'Did you mean --config\.stages\.gan\.steps\?'),
        ('stages.gan.model.nfg', '3', r'Did you mean --config\.stages\.gan\.model\.ngf\?'),
        ('data.size.x', '3', r'config\.data\.size is a value, not a block'),
        ('stages.gan', '3', r'--config\.stages\.gan is a block, not a value.*batch_size'),
        ('stages.gan.steps', 'many', "is a number, not 'many'"),
        ('stages.gan.steps', '1.5', "is a whole number, not '1.5'"),
        ('data.flip', 'maybe', "is true or false, not 'maybe'"),
        ('data.scales', '(16', r"is a list such as 16,32, not '\(16'"),
    ],
)
def test_overrides_that_are_refused(path, text, message):
    with pytest.raises(RunError, match=message):
        tiny(**{path: text})


def test_settings_as_lines_give_the_same_config_back():
    """`--mode=describe --settings` prints what the command line reads."""
    for name in (
        'gan_cls_shapes:tiny',
        'attngan_coco',
        'layout_vae_rules',
        'attribute2image_birds',
    ):
        config = settings.load(name)
        words = [shlex.split(line)[0] for line in settings.lines(config)]
        assert f'--config.system={config.system}' in words
        given, overrides, paths = main.read(words)
        assert not given and not paths
        assert settings.load(name, overrides).to_dict() == config.to_dict()


# ------------------------------------------------------------------------------------------ ranges
@pytest.mark.parametrize(
    'path, value, message',
    [
        ('stages.gan.steps', -1, r'--config\.stages\.gan\.steps is -1; .* between 0 and'),
        ('stages.gan.batch_size', 0, 'between 1 and 65536'),
        ('stages.gan.batch_size', 10**12, 'between 1 and 65536'),
        ('stages.gan.validate_batches', -1, 'between 0 and'),
        ('stages.gan.log_every', 10**12, 'between 0 and'),
        ('stages.gan.ema', 1.0, 'at least 0 and below 1'),
        ('stages.gan.optim.g_loss.b1', 1.0, 'at least 0 and below 1'),
        ('stages.gan.near_wrong', float('nan'), 'is nan'),
        ('stages.gan.keep_n', 0, 'between -1 and 2147483647, and not 0'),
        ('stages.gan.keep_n', -2, 'between -1 and'),
        ('stages.gan.keep', 'best:', "keep is 'best:'; it is last, or best:<a"),
        ('stages.gan.keep', 'first', "keep is 'first'"),
        ('stages.gan.optim.g_loss.lr', -1e-4, r'optim\.g_loss\.lr is -0\.0001'),
        ('stages.gan.optim.g_loss.lr', float('nan'), r'lr is nan'),
        ('stages.gan.optim.g_loss.lr', float('inf'), r'lr is inf'),
        ('stages.gan.optim.g_loss.schedule.floor', -0.1, r'schedule\.floor'),
        ('stages.gan.model.ngf', float('nan'), r'model\.ngf is nan'),
        ('stages.gan.model.ngf', 10**12, 'between 0 and'),
        ('data.size', 0, r'--config\.data\.size is 0'),
        ('data.length', -4, r'data\.length'),
        ('data.length', 65, 'between 1 and 64'),
        ('data.captions', 10**9, r'data\.captions'),
        ('data.load_size', -1, r'load_size is -1'),
        ('data.workers', -1, r'data\.workers'),
        ('eval.seed', 2**32, r'eval\.seed is 4294967296'),
        ('stages.gan.steps', 10**400, r'steps is 1000000'),
        ('data.scales', (16, -8), r'data\.scales is -8'),
        ('data.load_size', 8, r'--config\.data\.size is 16, larger than load_size=8'),
        ('eval.num', 0, r'--config\.eval\.num is 0'),
        ('eval.num', 999999999999, r'eval\.num is 999999999999; it must be between 1 and 1000000'),
        ('eval.captions', 10**9, 'between 1 and 100'),
        ('eval.samples', 10**9, 'between 1 and 100'),
        ('data.nominal.classes', 10**12, 'between 0 and'),
        ('mesh.fsdp', 0, r'mesh\.fsdp'),
        ('seed', -1, 'between 0 and'),
    ],
)
def test_numbers_out_of_range_are_refused(path, value, message):
    config = tiny()
    config = ConfigDict(json.loads(config.to_json()), type_safe=False)
    config.update_from_flattened_dict({path: value})
    with pytest.raises(RunError, match=message):
        settings.check(config)


def test_a_stage_may_have_a_size_of_its_own():
    config = tiny().unlock()
    config.stages.text.data = dict(size=32, load_size=24)
    with pytest.raises(RunError, match=r'--config\.stages\.text\.data\.size is 32.*load_size=24'):
        settings.check(config)


def test_settings_of_all_experiments_are_in_range():
    for name in shipped():
        settings.check(settings.load(name))


def test_every_whole_number_has_an_end():
    """So that none ends in eaten memory, or in an integer that a device cannot hold."""
    config = tiny()
    for name, value in settings.flat(config.to_dict()).items():
        if type(value) is int:
            assert settings.setting(name).high <= 2**32, name


def test_every_setting_has_a_meaning():
    for name in settings.flat(tiny().to_dict()):
        if '.model.' not in name:
            assert settings.setting(name).meaning, name


# ----------------------------------------------------------------------------------------- resuming
def test_what_may_differ_when_a_run_is_resumed():
    old = tiny()
    free = {
        'data.dir': 'x',
        'data.cache': 'none',
        'mesh.fsdp': '2',
        'remat': 'true',
        'eval.num': '3',
        'stages.gan.log_every': '3',
        'stages.gan.keep_n': '5',
        'stages.gan.steps': '30',
    }
    assert settings.refused(old, tiny(**free)) == []
    fixed = {'stages.gan.steps': '10', 'data.size': '32', 'stages.gan.model.ngf': '8', 'seed': '1'}
    assert settings.refused(old, tiny(**fixed)) == [
        'data.size: 16 there, 32 here',
        'seed: 0 there, 1 here',
        'stages.gan.model.ngf: 24 there, 8 here',
        'stages.gan.steps: 20 there, 10 here',
    ]


def test_a_run_that_counts_epochs_cannot_be_given_steps_and_says_so():
    old = settings.load('gan_cls_shapes')
    (line,) = settings.refused(old, settings.load('gan_cls_shapes', {'stages.gan.steps': '80'}))
    assert line.startswith('stages.gan.epochs: 600.0 there, 0')
    assert 'This run counts epochs: set --config.stages.gan.epochs, not steps' in line
    (line,) = settings.refused(old, settings.load('gan_cls_shapes', {'stages.text.epochs': '9'}))
    assert 'This run counts steps: set --config.stages.text.steps, not epochs' in line
    longer = settings.load('gan_cls_shapes', {'stages.gan.epochs': '700'})
    assert settings.refused(old, longer) == []
    (line,) = settings.refused(longer, old)
    assert 'counts' not in line


def test_a_setting_of_a_run_that_is_out_of_range_can_be_mended_by_an_override(tmp_path):
    path = tmp_path / 'config.json'
    path.write_text(changed(eval__num=0))
    with pytest.raises(RunError, match=rf'{path}: --config\.eval\.num is 0.* Correct it there'):
        settings.load_older(tmp_path)
    with pytest.raises(RunError, match=rf'{path}: --config\.eval\.num is 0'):
        settings.load_older(tmp_path, {'eval.splits': '5'})
    assert settings.load_older(tmp_path, {'eval.num': '5'}).eval.num == 5
    with pytest.raises(RunError, match=r'^--config\.eval\.splits is 0'):
        settings.load_older(tmp_path, {'eval.num': '5', 'eval.splits': '0'})


def test_a_run_is_read_with_the_settings_that_it_is_too_old_to_have(tmp_path):
    old = tiny(**{'data.scales': '8'}).unlock()
    del old.remat, old.eval.scorer, old.stages.gan.near_wrong
    (tmp_path / 'config.json').write_text(settings.to_json(old))
    assert 'remat' not in settings.load_run(tmp_path)
    new = settings.load_older(tmp_path)
    assert new.to_dict() == tiny(**{'data.scales': '8'}).to_dict() and new.stages.is_locked
    override(new, {'data.scales': '4,8', 'remat': 'true'})
    assert new.data.scales == (4, 8) and new.remat
    # what it was trained with, whatever its experiment has by now
    del old.stages.gan.ema_warmup
    (tmp_path / 'config.json').write_text(settings.to_json(old))
    assert not settings.load_older(tmp_path).stages.gan.ema_warmup


def test_a_setting_that_an_older_run_does_not_have_counts_as_its_default():
    old = ConfigDict(json.loads(tiny().to_json()))
    del old.stages.gan.steps_per_dispatch, old.remat
    del old.stages.gan.model.ngf, old.stages.gan.model.game
    assert settings.refused(old, tiny()) == ['stages.gan.model.ngf: 128 there, 24 here']
    there = settings.refused(old, tiny(**{'stages.gan.steps_per_dispatch': '2'}))
    assert 'stages.gan.steps_per_dispatch: 1 there, 2 here' in there


# -------------------------------------------------------------------------------- experiment files
def test_experiments_are_found_by_name_and_path_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = settings.load('gan_cls_shapes:quick').to_dict()
    assert settings.load('experiments/gan_cls_shapes.py:quick').to_dict() == named
    own = tmp_path / 'mine.py'
    shutil.copy(shipped()['gan_cls_shapes'], own)
    own.write_text(own.read_text().replace('steps=6000', 'steps=6001'))
    assert settings.load('mine.py').stages.text.steps == 6001
    assert settings.load(f'{own}:quick').to_dict() == named
    with pytest.raises(
        RunError, match=r"no experiment 'gan_cls_shape'\. Did you mean gan_cls_shapes\?"
    ):
        settings.load('gan_cls_shape')
    (tmp_path / 'empty.py').write_text('')
    with pytest.raises(RunError, match=r'empty\.py is not an experiment: it has no get_config'):
        settings.load('empty.py')


BROKEN = {
    'import t2i_jax.nothing': ['line 1', 'ModuleNotFoundError', 't2i_jax.nothing'],
    'x = 1\nimport sys\nsys.exit(3)': ['line 3', 'sys.exit', '3'],
    'def get_config(arg):\n    return {"a"': ['line 2', 'SyntaxError'],
    'def get_config(arg):\n    return arg.nothing': ['line 2', 'AttributeError'],
    'def get_config(arg):\n    raise SystemExit': ['line 2', 'sys.exit'],
    'raise GeneratorExit': ['line 1', 'GeneratorExit'],
    'def get_config():\n    return 3': ['TypeError', 'get_config'],
    'def get_config(arg):\n    pass': ['returns NoneType', 'return variant(c, arg)'],
    'def get_config(arg):\n    return {"system": "gan_cls"}': ['returns dict'],
    'from ml_collections import ConfigDict\nget_config = lambda arg: ConfigDict()': [
        'without system, seed'
    ],
    'from t2i_jax.experiments import gan_cls_shapes\n'
    'def get_config(arg):\n'
    '    c = gan_cls_shapes.get_config(arg).unlock()\n'
    '    del c.stages.gan.steps\n'
    '    return c': ['without stages.gan.steps'],
    'get_config = 3': ['has no get_config'],
    '\0': ['mine.py'],
}


@pytest.mark.parametrize('code', BROKEN)
def test_a_broken_experiment_is_named_with_its_line(tmp_path, code):
    path = tmp_path / 'mine.py'
    path.write_text(code)
    with pytest.raises(RunError) as error:
        settings.load(str(path))
    message = str(error.value)
    assert str(path) in message and len(message) < 500 and '\n' not in message
    for part in BROKEN[code]:
        assert part in message


def test_an_experiment_may_lie_at_a_path_with_a_colon_and_needs_a_variant_behind_one(tmp_path):
    folder = tmp_path / 'a:b'
    folder.mkdir()
    shutil.copy(shipped()['gan_cls_shapes'], folder / 'mine.py')
    assert settings.load(f'{folder}/mine.py').data.size == 64
    assert settings.load(f'{folder}/mine.py:tiny').data.size == 16
    with pytest.raises(RunError, match='names no variant behind its colon'):
        settings.load('gan_cls_shapes:')


# ------------------------------------------------------------------------------- damaged configs
def changed(**changes):
    """The JSON of a config in which values are replaced, by their paths."""
    config = json.loads(tiny().to_json())
    for path, value in changes.items():
        *blocks, last = path.split('__')
        at = config
        for name in blocks:
            at = at[name]
        at[last] = value
    return json.dumps(config)


@pytest.mark.parametrize(
    'text, parts',
    [
        ('{}', ['it has no system, data and stages']),
        ('[]', ['it has no system']),
        ('null', ['it has no system']),
        ('3', ['it has no system']),
        ('', ['damaged']),
        ('{"system": ', ['damaged']),
        ('[' * 100_000, ['nested too deeply']),
        ('{"a":' * 500 + '1' + '}' * 500, ['it has no system']),
        ('{"system": "gan_cls", "data": [], "stages": {}}', ['it has no system, data and stages']),
        (changed(stages={'gan': 3}), ['stages.gan is 3', 'a block']),
        (changed(stages__gan__model=3), ['stages.gan.model is 3', 'a block']),
        (changed(stages__gan__data=[]), ['stages.gan.data is []', 'a block']),
        (changed(stages__gan__optim={'g_loss': 'x'}), ['stages.gan.optim.g_loss', 'a block']),
        (changed(init=3), ['init is 3', 'a block']),
        (changed(init__gan=3), ['init.gan is 3', 'a text']),
        (changed(eval=None), ['eval is null', 'a block']),
        (changed(data__size='64'), ['data.size is "64"', 'a whole number']),
        (changed(data__size=64.5), ['data.size is 64.5', 'a whole number']),
        (changed(data__size=True), ['data.size is true', 'a whole number']),
        (changed(data__size={'a': 1}), ['data.size is {"a": 1}', 'a whole number']),
        (changed(data__flip=3), ['data.flip is 3', 'true or false']),
        (changed(data__scales=3), ['data.scales is 3', 'a list']),
        (changed(data__name='x' * 10**6, data__flip=3), ['data.flip is 3']),
        (changed(seed=float('nan')), ['seed is NaN']),
        (changed(stages__gan__optim__g_loss__lr=float('nan')), ['optim.g_loss.lr is nan']),
        (changed(data__size=-1), ['data.size is -1']),
        (changed(**{'a.b': 1}), ['damaged']),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else '',
)
def test_json_that_is_not_a_config_is_one_message_with_file_and_place(tmp_path, text, parts):
    path = tmp_path / 'config.json'
    path.write_text(text)
    with pytest.raises(RunError) as error:
        settings.load_older(tmp_path)
    message = str(error.value)
    assert str(path) in message and len(message) < 600
    for part in parts:
        assert part in message


def test_blocks_that_a_config_lacks_have_their_defaults(tmp_path):
    config = json.loads(tiny().to_json())
    for name in ('init', 'mesh', 'eval'):
        del config[name]
    del config['stages']['gan']['optim']['g_loss']['schedule']
    (tmp_path / 'config.json').write_text(json.dumps(config))
    found = settings.load_older(tmp_path)
    assert found.stages.gan.optim.g_loss.schedule.kind == 'constant'
    assert found.eval.num == 1000


def test_a_config_that_is_not_a_file_is_not_opened(tmp_path):
    (tmp_path / 'config.json').mkdir()
    with pytest.raises(RunError, match=r'config\.json is damaged \(it is a folder.* Take it away'):
        settings.load_older(tmp_path)
    (tmp_path / 'config.json').rmdir()
    os.mkfifo(tmp_path / 'config.json')
    with pytest.raises(RunError, match='it is a pipe, not a file'):
        settings.load_older(tmp_path)
    with pytest.raises(RunError, match='File name too long'):
        settings.load_older(tmp_path / ('x' * 300))


@pytest.mark.parametrize(
    'path, value, message',
    [
        ('ngf', 'x', r"stages\.gan\.model\.ngf is 'x'; expected a whole number"),
        ('ngf', 2.5, 'expected a whole number'),
        ('text_norm', 1, 'expected true or false'),
        ('ngf', {'a': 'b'}, 'expected a whole number'),
    ],
)
def test_keywords_of_another_type_are_refused(path, value, message):
    config = settings.load('gan_cls_shapes:tiny')
    model = {**config.stages.gan.model.to_dict(), path: value}
    with pytest.raises(RunError, match=message):
        settings.check_model('gan', settings.system('gan_cls').STAGES['gan'], model)


def test_parts_without_end_are_refused():
    two = settings.system('stackgan').STAGES['two']
    settings.check_model('two', two, {'blocks': 1000})
    with pytest.raises(RunError, match=r'stages\.two\.model\.blocks is 1000000000000; .* and 1000'):
        settings.check_model('two', two, {'blocks': 10**12})


def test_pictures_of_which_training_would_see_a_corner_are_refused():
    config = tiny(**{'data.load_size': '300'})
    # a run that was trained so may be drawn from
    settings.check(config)
    with pytest.raises(RunError, match=r'data\.size is 16, and load_size=300: .* a corner.*=19'):
        settings.check(config, trains=True)


@pytest.mark.parametrize(
    'path, text, message',
    [
        ('stages.gan.data.length', '3', r'--config\.data\.length sets that of all stages'),
        ('data.' + 'x' * 100_000, '3', 'There is no setting'),
        ('data.size', 'x' * 100_000, 'is a number, not'),
        ('data.cache', 'x' * 100_000, 'cache is'),
        ('stages.gan.model.ngf', '(' * 100_000, 'is a whole number'),
        ('data.scales', '(' * 100_000, 'is a list such as'),
        ('stages.gan.keep_n', '0', 'not 0'),
        ('seed', '4294967296', 'seed is 4294967296; it must be between 0 and 4294967295'),
        ('eval.num', '9' * 5000, 'eval.num is inf; it must be between 1 and'),
    ],
    ids=lambda value: value[:30],
)
def test_messages_are_short_whatever_is_written(path, text, message):
    with pytest.raises(RunError, match=message) as error:
        settings.load('gan_cls_shapes:tiny', {path: text})
    assert len(str(error.value)) < 1000


def test_epochs_may_be_a_fraction():
    assert settings.load('attngan_birds', {'stages.damsm.epochs': '0.5'}).stages.damsm.epochs == 0.5


# ------------------------------------------------------------------------------------- the package
def python(code):
    return subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
def test_importing_the_package_and_its_configs_imports_no_jax():
    python("""
        import sys, t2i_jax, t2i_jax.config, t2i_jax.main
        from t2i_jax.config.files import find
        from t2i_jax.experiments import common
        find('gan_cls_shapes'), find('attngan_birds')
        heavy = {'jax', 'flax', 'optax', 'orbax', 'grain', 'tensorflow_datasets'} & {*sys.modules}
        assert not heavy, heavy
        assert t2i_jax.__version__ and 'Sampler' in dir(t2i_jax)
    """)


@pytest.mark.slow
@pytest.mark.parametrize('first', ['function', 'module'])
def test_public_functions_and_modules_of_the_same_name(first):
    function = 'from t2i_jax import Sampler, evaluate, explore, train'
    module = 'from t2i_jax.train import mean_of; import t2i_jax.explore.style'
    lines = [function, module] if first == 'function' else [module, function]
    python(
        '\n'.join(
            [
                *lines,
                'import sys, types, t2i_jax',
                'for name in ("evaluate", "explore", "train"):',
                '    assert isinstance(getattr(t2i_jax, name), types.FunctionType), name',
                '    assert isinstance(sys.modules[f"t2i_jax.{name}"], types.ModuleType)',
                'assert t2i_jax.train is sys.modules["t2i_jax.train"].train',
            ]
        )
    )


def test_the_tables_of_settings_in_the_docs_are_current():
    from docs import settings as tables

    old = tables.PAGE.read_text()
    assert tables.page(old) == old, 'run python -m docs.settings'
