"""Pictures made elsewhere: what is read of a folder, what is said of it, files of statistics."""

import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from t2i_jax.evaluate import evaluate_files, sources
from t2i_jax.evaluate import files as module
from t2i_jax.metrics.fid import Statistics, fid
from t2i_jax.runtime.errors import DataError, RunError


class Colours:
    """Features that cost nothing: means and deviations of corners and channels."""

    metric_prefix = 'colours'

    def __init__(self, name='colours', d=8):
        self.tag, self.d, self.seen = {'name': name, 'resize': 'none'}, d, 0

    def __call__(self, images, first=0):
        self.seen += len(images)
        x = images.astype(np.float32) / 255
        features = np.concatenate([x.mean((1, 2)), x.std((1, 2)), x[:, 0, 0, :2]], 1)
        return {'features': np.resize(features.T, (self.d, len(x))).T, 'logits': features[:, :4]}


@pytest.fixture(autouse=True)
def extract(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    made = Colours()
    monkeypatch.setattr(module, 'choose_extractor', lambda *args: made)
    return made


def save(folder, n, low=0, seed=0, ending='png', mode='RGB'):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        pixels = rng.integers(low, 256, (16, 16, len(mode)), np.uint8)
        Image.fromarray(pixels, mode).save(folder / f'{i:02d}.{ending}')
    return folder


@pytest.fixture
def folders(tmp_path):
    save(tmp_path / 'made', 30)
    save(tmp_path / 'real', 30, low=60, seed=1)
    return tmp_path


def measured(folder, made='made', real='real', **given):
    out = evaluate_files(folder / made, reference=folder / real, out=folder / 'out', **given)
    return {(one['metric'], one['protocol']['pictures']): one for one in out['values']}


def numbers(found):
    return {key: one['value'] for key, one in found.items()}


# ------------------------------------------------------------------------------- what is measured
def test_every_promised_format_is_read_and_the_rest_is_named(folders, capsys):
    made = folders / 'made'
    save(made, 4, seed=2, ending='gif')
    save(made / 'inner', 3, seed=3, ending='tif')
    for name in ('._00.png', '.hidden/a.png', '@eaDir/00.png'):
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_bytes(b'no picture')
    (made / 'a.heic').write_bytes(b'no picture')
    (made / 'captions.txt').write_text('a picture')
    assert measured(folders)['kid_colours', 'drawn']['protocol']['n'] == 37
    said = capsys.readouterr().out
    for part in ('made: 37 pictures. Not measured: ', '1 files .heic', '1 files .txt', 'hidden'):
        assert part in said
    assert 'real' not in said.partition('Not measured')[2].splitlines()[0]


def test_transparent_pictures_are_those_on_white(tmp_path):
    for name in ('cut', 'flat'):
        (tmp_path / name).mkdir()
    for i in range(12):
        pixels = np.zeros((16, 16, 4), np.uint8)
        pixels[4:12, 2 + i // 2 : 12] = 255, 20 * i, 0, 255
        cut = Image.fromarray(pixels, 'RGBA')
        flat = Image.alpha_composite(Image.new('RGBA', cut.size, 'white'), cut).convert('RGB')
        cut.save(tmp_path / 'cut' / f'{i}.png')
        flat.save(tmp_path / 'flat' / f'{i}.png')
    assert numbers(measured(tmp_path, 'cut', 'flat')) == numbers(measured(tmp_path, 'flat', 'flat'))


def test_a_program_that_is_called_a_picture_is_not_run(folders):
    (folders / 'made' / '05.png').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
    with pytest.raises(DataError, match='05.png is not a picture that can be read'):
        measured(folders)


def test_a_number_that_cannot_be_computed_is_left_out_alone(folders, capsys):
    save(folders / 'six', 6, seed=4)
    found = measured(folders, 'six')
    said = capsys.readouterr().out
    assert ('kid_colours', 'drawn') in found and ('precision_colours', 'drawn') in found
    assert 'inception_score_colours is left out: logits: 6 rows, and 10 or more' in said
    assert 'fid_colours is left out, since it would be too high by about' in said
    assert '6 pictures and 30 real ones are no more than its 8 features' in said
    save(folders / 'one', 1, seed=4)
    with pytest.raises(RunError, match='No number could be computed'):
        measured(folders, 'one')


def test_the_bias_of_few_pictures_is_said_where_it_is_forced(folders, capsys):
    save(folders / 'six', 6, seed=4)
    assert measured(folders, 'six', force=True)['fid_colours', 'drawn']['protocol']['biased']
    assert 'fid_colours is too high by about' in capsys.readouterr().out


def test_a_folder_whose_red_and_blue_are_exchanged_is_noticed(tmp_path, capsys):
    rng = np.random.default_rng(0)

    def colours(n, base, spread=30):
        pixels = rng.normal(base, spread, (n, 1, 1, 3)) + rng.normal(0, 20, (n, 8, 8, 3))
        return sources.colours(np.clip(pixels, 0, 255).astype(np.uint8))

    red, grey = (190, 130, 90), (128, 128, 128)
    real = colours(60, red)
    assert module.exchanged(real, colours(60, red[::-1]))
    assert module.exchanged(real, colours(20, red[::-1]))
    # ordinary pictures, those of no colour, of another colour, and too few
    for made in (red, grey, (120, 190, 90), (60, 60, 60)):
        assert not module.exchanged(real, colours(60, made)), made
    assert not any(module.exchanged(colours(n, grey), colours(n, grey)) for n in range(4, 60))
    assert not module.exchanged(real, colours(3, red[::-1]))

    # as photographs, whose brightness varies more than their tint
    def photos(n, order=(0, 1, 2), shift=0, seed=0):
        rng = np.random.default_rng((n, seed))
        tint = 1 + rng.normal(0, 0.25, (n, 1, 1, 3)) * (1, 0.3, -1) + np.array([0.1, 0, -0.1])
        sky = np.linspace(1, -1, 8)[:, None, None] * np.array([-0.1, 0, 0.1]) + 1
        pixels = rng.uniform(30, 200, (n, 1, 1, 1)) * tint * sky + rng.normal(0, 20, (n, 8, 8, 1))
        pixels = pixels[..., order] + np.array([-shift, 0, shift])
        return sources.colours(pixels.clip(0, 255).astype(np.uint8))

    for n in (100, 200, 1000):
        for seed in range(5):
            assert module.exchanged(photos(n), photos(n, (2, 1, 0), seed=seed + 1))
            for shift in (0, 15, 30):
                assert not module.exchanged(photos(n), photos(n, shift=shift, seed=seed + 1))

    for name, order in (('real', [0, 1, 2]), ('bgr', [2, 1, 0])):
        for i, picture in enumerate(np.random.default_rng(1).normal(red, 20, (24, 1, 1, 3))):
            pixels = np.broadcast_to(picture, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels[..., order]).save(tmp_path / name / f'{i}.png')
    measured(tmp_path, 'bgr')
    assert 'red and blue' in capsys.readouterr().out
    measured(tmp_path, 'real')
    assert 'red and blue' not in capsys.readouterr().out


def test_the_report_does_not_lie_among_the_pictures(folders):
    for out in ('made', 'made/report', 'real'):
        with pytest.raises(RunError, match='would be measured the next time'):
            evaluate_files(folders / 'made', reference=folders / 'real', out=folders / out)


def test_names_are_drawn_as_they_are(folders, capsys):
    (folders / 'made').rename(folders / 'cost_$5_to_$9')
    measured(folders, 'cost_$5_to_$9')
    said = capsys.readouterr().out
    assert 'cost_$5_to_$9: 16 px' in said and 'kid_colours' in said
    assert (folders / 'out' / 'evaluation.png').exists()


# --------------------------------------------------------------------------------------- captions
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'cp1252'])
def test_captions_of_every_encoding(tmp_path, encoding):
    path = tmp_path / 'captions.txt'
    path.write_bytes(''.join(f'un café {i}\r\n' for i in range(3)).encode(encoding))
    assert module.read_captions(path, 'made', 3) == ['un café 0', 'un café 1', 'un café 2']


def test_lines_of_captions(tmp_path, capsys):
    path = tmp_path / 'captions.txt'
    path.write_text('a\u2028b\n\nc\n', encoding='utf-8')
    assert module.read_captions(path, 'made', 3) == ['a\u2028b', '', 'c']
    path.write_text('a\nb\n\n\n')
    assert module.read_captions(path, 'made', 2) == ['a', 'b'] and not capsys.readouterr().out
    path.write_text('a\nb\nc\n')
    assert module.read_captions(path, 'made', 2) == ['a', 'b']
    assert 'has 3 lines, made 2 pictures: the first 2 lines are used' in capsys.readouterr().out
    with pytest.raises(RunError, match='has 3 lines, made 4 pictures: write one sentence'):
        module.read_captions(path, 'made', 4)
    with pytest.raises(DataError, match='is a folder'):
        module.read_captions(tmp_path, 'made', 4)


def test_paths_may_begin_with_a_tilde(folders, monkeypatch):
    monkeypatch.setenv('HOME', str(folders))
    (folders / 'captions.txt').write_text('a picture\n' * 30)
    paths = {name: f'~/{name}' for name in ('made', 'real', 'out', 'captions.txt')}
    evaluate_files(paths['made'], paths['captions.txt'], paths['real'], paths['out'])
    assert (folders / 'out' / 'evaluation.json').exists()


# ------------------------------------------------------------------------------------- statistics
@pytest.fixture
def moments(folders, extract):
    """Mu and sigma of the real pictures as pytorch-fid writes them; a function of changes."""
    extract.tag['name'], extract.d = 'inception_fid', 8

    def write(**changes):
        images = np.concatenate(list(sources.Files.of(folders / 'real')))
        x = extract(images)['features'].astype(np.float64)
        arrays = dict(mu=x.mean(0), sigma=np.cov(x, rowvar=False)) | changes
        np.savez_compressed(folders / 'fid.npz', **arrays)
        return x

    return write


def test_statistics_of_pytorch_fid(folders, extract, moments, monkeypatch, capsys):
    monkeypatch.setattr(module, 'INCEPTION', 8)
    x = moments()
    one = measured(folders, real='fid.npz')['fid_colours', 'drawn']
    y = extract(np.concatenate(list(sources.Files.of(folders / 'made'))))['features']
    assert one['value'] == pytest.approx(fid(Statistics.of(x), Statistics.of(y)), rel=1e-6)
    reference = one['protocol']['reference']
    assert {reference[name] for name in ('n', 'weights', 'resize')} == {'unknown'}
    assert 'does not say of how many pictures' in capsys.readouterr().out
    extract.tag['name'] = 'efficientnet_lite0'
    with pytest.raises(RunError, match='give --extractor=inception_fid and --extractor_weights'):
        measured(folders, real='fid.npz')


@pytest.mark.parametrize(
    'changes',
    [
        dict(mu=np.zeros(7)),
        dict(mu=np.zeros((8, 1))),
        dict(sigma=np.zeros((8, 7))),
        dict(sigma=np.full((8, 8), np.nan)),
        dict(sigma=np.triu(np.ones((8, 8)))),
        dict(mu=np.array(['a'] * 8)),
    ],
)
def test_moments_of_another_form_are_refused(folders, moments, monkeypatch, changes):
    monkeypatch.setattr(module, 'INCEPTION', 8)
    moments(**changes)
    with pytest.raises(RunError, match=r'fid.npz: mu .* are not finite moments of 8 features'):
        measured(folders, real='fid.npz')


class Trap:
    def __reduce__(self):
        return os.mkdir, ('trapped',)


@pytest.mark.parametrize('kind', ['objects', 'text', 'empty', 'cut', 'array'])
def test_files_that_are_no_statistics_are_refused(folders, kind, monkeypatch):
    monkeypatch.chdir(folders)
    path = folders / 'fid.npz'
    if kind == 'objects':
        np.savez(path, mu=np.array([Trap()], object), sigma=np.zeros((1, 1)))
    elif kind == 'cut':
        np.savez(path, mu=np.zeros(99), sigma=np.zeros((99, 99)))
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == 'array':
        with path.open('wb') as file:
            np.save(file, np.zeros(9))
    else:
        path.write_bytes(b'no statistics' if kind == 'text' else b'')
    with pytest.raises(RunError, match='fid.npz holds no statistics of features'):
        measured(folders, real='fid.npz')
    assert not (folders / 'trapped').exists()


# ------------------------------------------------------------------------------------ what is kept
def kept(folders):
    return sorted((folders / 'cache').rglob('*.npz'))


def test_what_was_read_of_a_reference_is_found_again(folders, extract):
    first, seen = numbers(measured(folders)), extract.seen
    assert len(kept(folders)) == 2
    assert numbers(measured(folders)) == first and extract.seen == seen + 30


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def with_other_features(path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays['features'] = arrays['features'] * 2
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    'damage',
    [
        flipped,
        with_other_features,
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: shutil.copy(kept(path.parents[3])[1], path),
    ],
)
def test_a_damaged_cache_gives_no_numbers(folders, damage):
    first = numbers(measured(folders))
    path = kept(folders)[0]
    whole = path.read_bytes()
    damage(path)
    assert numbers(measured(folders)) == first and path.read_bytes() == whole


@pytest.mark.parametrize('kind', ['file', 'nowhere', 'refused'])
def test_without_a_cache_pictures_are_read_each_time(folders, extract, kind, monkeypatch):
    if kind == 'refused':

        def refused(self, *args, **kwargs):
            raise PermissionError(13, 'Permission denied')

        monkeypatch.setattr(sources, 'replacing', refused)
        monkeypatch.setattr(pathlib.Path, 'read_bytes', refused)
    else:
        (folders / 'file').write_text('')
        place = '/proc/nowhere' if kind == 'nowhere' else str(folders / 'file')
        monkeypatch.setenv('XDG_CACHE_HOME', place)
    first, seen = numbers(measured(folders)), extract.seen
    assert numbers(measured(folders)) == first and extract.seen == 2 * seen
