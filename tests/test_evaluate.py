"""A run to numbers.

The same twice, the same on one and four devices, each with its protocol; several runs side by side.
"""

import json
import shutil

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.data.feed import first_rows
from t2i_jax.data.tables import Split
from t2i_jax.draw.outputs import DRAWN
from t2i_jax.evaluate import evaluate, evaluate_files, report
from t2i_jax.evaluate import files as evaluate_files_module
from t2i_jax.evaluate.compare import compare
from t2i_jax.evaluate.features import choose_extractor
from t2i_jax.evaluate.files import statistics_tag
from t2i_jax.evaluate.measures import OPTIONS
from t2i_jax.evaluate.sources import Files, each_once
from t2i_jax.metrics.fid import Statistics
from t2i_jax.run import Run
from t2i_jax.runtime import sharding
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.scenes import trained as shape_net
from t2i_jax.scenes.analytic import recall
from t2i_jax.systems import gan_cls
from t2i_jax.train import train

SMALL = dict(num=24, diversity=4, extractor='random_conv', split='test')


def evaluated_run(workdir, **given):
    return evaluate(Run.open(workdir).last(DRAWN), **given)


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='module')
def workdir(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp('evaluated') / 'run'
    shutil.copytree(trained, folder)
    return folder


@pytest.fixture(scope='module')
def evaluated(workdir):
    return evaluated_run(workdir, **SMALL)


def numbers(out):
    return {
        (v['metric'], v['protocol'].get('pictures'), v['protocol'].get('decoder')): v
        for v in out['values']
    }


def test_the_report(workdir, evaluated):
    (path,) = (workdir / 'eval').glob('*.json')
    assert (
        path.name == 'test_24x1_ema_seed0_random_conv_pil_bicubic_step6.json'
        and cv2.imread(str(path.with_suffix('.png'))).shape[1] > 500
    )
    assert json.loads(path.read_text()) == evaluated
    found = numbers(evaluated)
    for metric, pictures, decoder in (
        ('sem_acc', 'drawn', 'analytic'),
        ('class_colour', 'remembered', 'analytic'),
        ('objects', 'mean', 'analytic'),
        ('kid_random_conv', 'drawn', None),
        ('kid_random_conv', 'training', None),
        ('coverage_random_conv', 'noise', None),
        ('ms_ssim_same_caption', 'drawn', None),
        ('feature_diversity_random_conv', 'drawn', None),
    ):
        assert (metric, pictures, decoder) in found, metric
    one = found['kid_random_conv', 'drawn', None]
    assert (
        one['protocol']['extractor']['weights'] == 'random seed 0'
        and one['protocol']['extractor']['resize'] == 'pil_bicubic'
    )
    assert (
        one['protocol']['reference']['n'] == 20
        and one['protocol']['n'] == 24
        and len(one['protocol']['reference']['sha256']) == 64
    )
    assert evaluated['run']['step'] == 6 and evaluated['protocol']['version'].startswith('0.1.0+')
    assert not [
        name for name, *_ in found if name.startswith('fid')
    ]  # 24 pictures are too few for 256 features
    text = report.table(evaluated)
    assert 'sem_acc' in text and '±' in text and 'remembered' in text


@pytest.mark.slow
def test_the_same_twice_and_on_one_device(workdir, evaluated, monkeypatch, tmp_path):
    """`evaluated` ran on all of the eight."""
    again = evaluated_run(workdir, **SMALL)
    assert {**again, 'date': ''} == {**evaluated, 'date': ''}
    whole = sharding.make_mesh
    monkeypatch.setattr(
        sharding, 'make_mesh', lambda fsdp=1, devices=None: whole(fsdp, jax.devices()[:1])
    )
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))  # the real pictures are read again, too
    four = numbers(evaluated_run(workdir, **SMALL))
    for key, one in numbers(evaluated).items():
        assert four[key]['value'] == pytest.approx(one['value'], rel=1e-5, abs=1e-5), key


def test_fid_is_forced_only_with_a_mark(workdir):
    out = evaluated_run(workdir, **SMALL | dict(force=True, name='forced', weights='raw'))
    one = numbers(out)['fid_random_conv', 'drawn', None]
    assert one['protocol']['biased'] and one['value'] > 0 and out['protocol']['weights'] == 'raw'
    assert 'biased' in report.table(out)


def test_a_split_goes_round_with_other_captions_and_a_reference_does_not(on_shapes):
    split = Split(on_shapes('gan_cls_shapes').data, 'test', ('image',))
    rows = first_rows(split, 50, captions=2)
    assert rows.rows[:6].tolist() == [0, 0, 1, 1, 2, 2] and rows.rows[40:42].tolist() == [0, 0]
    pairs = list(zip(rows.rows.tolist(), rows.captions[:, 0].tolist()))
    assert len(set(pairs)) == 50  # 20 records, ten captions each
    assert len(each_once(split, 50)) == 20


@pytest.mark.parametrize('kind', ['dcgan', pytest.param('folder', marks=pytest.mark.slow)])
def test_other_kinds_of_runs(dense, on_shapes, kind, tmp_path):
    """One that draws from nothing, and one on photographs with several captions a row."""
    if kind == 'dcgan':
        config, split = dense(steps=2, checkpoint_every=2).unlock(), 'test'
    else:
        for i in range(40):
            (tmp_path / 'pictures').mkdir(exist_ok=True)
            noise = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
            cv2.imwrite(str(tmp_path / 'pictures' / f'{i}.png'), noise)
            (tmp_path / 'pictures' / f'{i}.txt').write_text(
                f'a thing {i}\nanother thing\na third\n'
            )
        config, split = on_shapes('gan_cls_folder'), 'train'
        config.data.update(
            name='caption_folder',
            manual_dir=str(tmp_path / 'pictures'),
            dir=str(tmp_path / 'data'),
            split='train',
            validation_split='validation',
        )
        config.stages.text.update(steps=1, batch_size=4, validate_every=0, checkpoint_every=1)
        config.stages.gan.update(steps=1, batch_size=4, validate_every=0, checkpoint_every=1)
        config.stages.gan.data.captions = 2
    train(Run(config.lock(), tmp_path / 'run'), jax.devices()[:1])
    out = evaluated_run(
        tmp_path / 'run',
        num=24,
        diversity=2,
        extractor='random_conv',
        split=split,
        splits=2,
    )
    found = numbers(out)
    assert ('kid_random_conv', 'drawn', None) in found and (
        ('sem_acc', 'drawn', 'analytic') in found
    ) == (kind == 'dcgan')
    assert out['protocol']['captions_per_row'] == (2 if kind == 'folder' else 1)


def test_a_picture_whose_features_are_not_finite_is_named(folders, monkeypatch):
    class Broken:
        tag, metric_prefix = {'name': 'broken', 'resize': ''}, 'broken'

        def __call__(self, images, first=0):
            return {
                'features': np.where(
                    np.arange(first, first + len(images))[:, None] == 7, np.nan, 1.0
                )
            }

    monkeypatch.setattr(evaluate_files_module, 'choose_extractor', lambda *args, **kwargs: Broken())
    with pytest.raises(RunError, match=r'The features of .*07.png .*are not finite: broken'):
        files(folders)


def test_during_training(tiny, tmp_path):
    config = tiny(
        text=dict(steps=1), gan=dict(steps=2, validate_every=0, checkpoint_every=2)
    ).unlock()
    config.eval.update(every=1, every_num=20, extractor='random_conv', splits=2)
    train(Run(config.lock(), tmp_path), jax.devices()[:1])
    lines = [
        json.loads(line) for line in (tmp_path / 'gan' / 'metrics.jsonl').read_text().splitlines()
    ]
    found = {line['step']: line for line in lines if 'evaluation/kid_random_conv' in line}
    assert set(found) == {1, 2} and 0 <= found[2]['evaluation/sem_acc_analytic'] <= 1


def test_what_a_stage_measures(workdir, monkeypatch):
    """`measure` of the stage that draws: each record once, whatever `num` is."""

    def measure(self, batch, key):
        assert not self.training
        return {
            'brightness': batch['image'].mean((1, 2, 3)),
            'none': jnp.full(len(batch['image']), jnp.nan),
        }

    monkeypatch.setattr(gan_cls.GanCls, 'measure', measure, raising=False)
    found = numbers(evaluated_run(workdir, **SMALL | dict(name='measured', extractor='none')))
    split = Split(Run.open(workdir).config.data, 'test', ('image',))
    one = found['brightness', 'drawn', None]
    assert one['protocol']['n'] == len(split) == 20 and one['value'] == pytest.approx(
        split.tables['image'].mean() / 127.5 - 1, abs=1e-5
    )
    assert (
        one['interval'][0] < one['value'] < one['interval'][1]
        and ('none', 'drawn', None) not in found
    )


@pytest.mark.slow
def test_pictures_from_attributes(on_shapes, tmp_path):
    """What the vectors ask for is read from the pictures: all of it from real ones."""
    config = on_shapes('attribute2image_shapes')
    config.data.size = 32
    config.stages.vae.update(
        steps=2, batch_size=8, checkpoint_every=2, validate_every=0, sample_every=0, log_every=1
    )
    config.stages.vae.model.update(width=4, nz=4, layered=False)
    config.eval.update(every=2, every_num=16, extractor='none')
    train(Run(config.lock(), tmp_path), jax.devices()[:1])
    lines = [
        json.loads(line) for line in (tmp_path / 'vae' / 'metrics.jsonl').read_text().splitlines()
    ]
    assert (
        0
        <= next(line for line in lines if 'evaluation/attribute_colour_analytic' in line)[
            'evaluation/attribute_colour_analytic'
        ]
        <= 1
    )
    found = numbers(evaluated_run(tmp_path, num=16, diversity=2, extractor='none', split='test'))
    for name in ('class', 'colour', 'size', 'x', 'y', 'position'):
        values = {
            kind: found[f'attribute_{name}', kind, 'analytic']['value']
            for kind in ('drawn', 'real', 'shuffled', 'remembered', 'mean')
        }
        assert values['real'] == 1 > values['mean'], name
    assert (
        found['loss_per_picture', 'drawn', None]['protocol']['n'] == 16
        and found['psnr', 'drawn', None]['value'] > 0
    )


def test_wrong_options(workdir):
    for given, named in (
        (dict(weights='best'), "it is 'ema' or 'raw'"),
        (dict(split='tset'), "no split 'tset'"),
        (dict(step=5), 'no checkpoint of step 5'),
        (dict(extractor='vgg'), "no feature network 'vgg'"),
        (dict(num=0), 'eval.num is 0'),
    ):
        with pytest.raises((RunError, DataError, ValueError), match=named):
            evaluated_run(workdir, **SMALL | given)


# -------------------------------------------------------------------------- pictures made elsewhere
@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    for name, low in (('made', 0), ('real', 60)):
        (tmp_path / name).mkdir()
        for i in range(12):
            cv2.imwrite(
                str(tmp_path / name / f'{i:02d}.png'), rng.integers(low, 256, (24, 24, 3), np.uint8)
            )
    (tmp_path / 'captions.txt').write_text('a picture\n' * 12)
    return tmp_path


def files(folder, **given):
    options = (
        dict(
            captions=folder / 'captions.txt',
            reference=folder / 'real',
            out=folder / 'out',
            extractor='random_conv',
            splits=2,
        )
        | given
    )
    return evaluate_files(folder / 'made', **options)


def test_folders(folders):
    found = numbers(files(folders))
    assert (
        found['kid_random_conv', 'drawn', None]['value'] > 0
        and found['precision_random_conv', 'drawn', None]['value'] < 1
    )
    assert (folders / 'out' / 'evaluation.json').exists() and (
        folders / 'out' / 'evaluation.png'
    ).exists()


def test_statistics_as_reference(folders):
    extract = choose_extractor({**OPTIONS, 'extractor': 'random_conv'}, '', None)
    images = np.concatenate(list(Files.of(folders / 'real')))
    Statistics.of(extract(images)['features'], statistics_tag(extract, images.shape[1:])).save(
        folders / 'real.npz'
    )
    one = numbers(files(folders, reference=folders / 'real.npz', force=True))[
        'fid_random_conv', 'drawn', None
    ]
    whole = numbers(files(folders, force=True))['fid_random_conv', 'drawn', None]
    assert (
        one['value'] == pytest.approx(whole['value'], rel=1e-6)
        and one['protocol']['reference']['n'] == 12
        and one['protocol']['biased']
    )
    with pytest.raises(RunError, match='cannot be used: No such file'):
        files(folders, reference=folders / 'none.npz')
    for path in (folders / 'made').iterdir():
        cv2.imwrite(str(path), np.zeros((30, 30, 3), np.uint8))
    with pytest.raises(ValueError, match='was made with'):  # statistics of another resolution
        files(folders, reference=folders / 'real.npz', force=True)
    with pytest.raises(ValueError, match='was made with'):  # and of another filter
        files(folders, reference=folders / 'real.npz', force=True, resize='torch_bilinear')


@pytest.mark.parametrize(
    'spoil, named',
    [
        (
            lambda f: cv2.imwrite(str(f / 'made' / '05.png'), np.zeros((20, 24, 3), np.uint8)),
            r'05.png has 24 x 20 pixels, .*00.png 24 x 24',
        ),
        (
            lambda f: (f / 'made' / '05.png').write_bytes(b'no picture'),
            r'05.png is not a picture that can',
        ),
        (
            lambda f: (f / 'captions.txt').write_text('one\n'),
            r'captions.txt has 1 lines, .* 12 pictures',
        ),
        (
            lambda f: [
                cv2.imwrite(str(p), np.zeros((30, 30, 3), np.uint8)) for p in (f / 'real').iterdir()
            ],
            r'real has pictures of 30 x 30 .*24 x 24',
        ),
        (lambda f: shutil.rmtree(f / 'made'), 'made is not a folder'),
        (
            lambda f: [p.rename(p.with_suffix('.heic')) for p in (f / 'made').iterdir()],
            r'made holds no picture \(.jpg, .*\). It holds 12 files .heic',
        ),
    ],
)
def test_folders_that_do_not_fit(folders, spoil, named):
    spoil(folders)
    with pytest.raises((RunError, DataError), match=named):
        files(folders)
    with pytest.raises(RunError, match='--reference'):
        files(folders, reference=None)
    with pytest.raises(RunError, match='--out=DIR, another folder'):
        files(folders, out=None)


# ---------------------------------------------------------------------------------------- comparing
def test_comparing(workdir, evaluated, tmp_path):
    for name, changes in (('a', {}), ('b', {}), ('c', {'num': 48})):
        out = json.loads(json.dumps(evaluated))
        out['run']['workdir'] = name
        out['protocol'].update(changes)
        (tmp_path / name / 'eval').mkdir(parents=True)
        (tmp_path / name / 'eval' / 'x.json').write_text(json.dumps(out))
    text = compare([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'plot.png')
    line = next(line for line in text.splitlines() if 'sem_acc' in line)
    assert (
        line.count('±') == 2
        and 'Not comparable' not in text
        and cv2.imread(str(tmp_path / 'plot.png')) is not None
    )
    text = compare([tmp_path / 'a', tmp_path / 'c' / 'eval' / 'x.json'])
    lines = [line for line in text.splitlines() if 'sem_acc (trained) *' in line]
    assert len(lines) == 2 and all(line.count('±') == 1 for line in lines)  # never in one row
    assert text.count('Not comparable') == 1 and text.endswith('\n  num: a@6 24, c@6 48')
    with pytest.raises(RunError, match='has no evaluation'):
        compare([tmp_path, tmp_path / 'a'])


@pytest.mark.slow
def test_one_run_over_training(evaluated, tmp_path):
    for step in (2, 4, 6):
        out = json.loads(json.dumps(evaluated))
        out['run']['step'] = step
        (tmp_path / f'{step}.json').write_text(json.dumps(out))
    text = compare([tmp_path / f'{step}.json' for step in (2, 4, 6)], tmp_path / 'plot.png')
    assert 'run@2' in text and 'run@6' in text and 'Not comparable' not in text
    assert cv2.imread(str(tmp_path / 'plot.png')).shape[0] > 500


# ------------------------------------------------------------------------------- the trained reader
def test_the_trained_reader_reads_blurred_pictures(data_dir, on_shapes):
    config = on_shapes('gan_cls_shapes').data.unlock()
    config.update(size=32)
    split = Split(config, 'train[:100]', ('image', 'scene'))
    blurred = np.stack(
        [cv2.GaussianBlur(image, (0, 0), 1) for image in split.tables['image']]
    )  # 1 pixel of 32 is 2 of 64
    found = [
        recall(a, b) for a, b in zip(shape_net.decode_all(blurred, 'single'), split.tables['scene'])
    ]
    assert np.mean([one['class_colour'] for one in found]) > 0.9
    assert shape_net.presence(blurred, 'single', split.tables['scene']) > 0.98
    assert shape_net.features(blurred, 'single').shape == (100, 256)
    with pytest.raises(DataError, match="no weights of ShapeNet-cls for 'triple'"):
        shape_net.load('triple')
