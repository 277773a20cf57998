"""Exploring a run that draws from sentences: one condition moves and nothing else does; what is written; what is refused."""

import json
import types

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from t2i_jax import main
from t2i_jax.draw import sheets
from t2i_jax.evaluate import evaluate
from t2i_jax.explore import explore
from t2i_jax.explore.explore import alike, between, exchanged
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.sample import Sampler
from t2i_jax.train import train

PAIR = ['a large red circle', 'a large blue circle']
SIDE = 16


@pytest.fixture(scope='module')
def styled(tiny, trained, tmp_path_factory):
    """(config, workdir) of a run that took its generator from another and learnt a style encoder."""
    config, workdir = tiny(style=dict(steps=2)).unlock(), tmp_path_factory.mktemp('styled')
    config.init.update(text=str(trained), gan=str(trained))
    train(config.lock(), workdir, jax.devices()[:1])
    return config, workdir


@pytest.fixture(scope='module')
def sampler(trained):
    sampler = Sampler.load(
        trained, chunk=16
    )  # a text encoder of four steps says nearly the same of all sentences
    sampler.params = {
        **sampler.params,
        'text': jax.tree.map(lambda x: 20 * x, sampler.params['text']),
    }
    return sampler


def close(a, b):
    """As 8-bit pictures, of which one rounding may differ."""
    return a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 1


# ------------------------------------------------------------------------------------------------------------------ what moves
def test_from_sentence_to_sentence(sampler):
    pictures = explore.text_interpolation(sampler, PAIR, num=3, steps=5, seed=4)
    ends = sampler(PAIR, num=3, seed=4)['image']
    assert pictures.shape == (3, 5, SIDE, SIDE, 3) and pictures.dtype == np.uint8
    assert (
        close(pictures[:, 0], ends[0])
        and close(pictures[:, -1], ends[1])
        and (ends[0] != ends[1]).any()
    )
    middle = sampler.encode(PAIR).mean(0, keepdims=True).repeat(3, 0)
    noise = sampler.module.noise(jax.random.key(4), 3)
    assert close(pictures[:, 2], sampler.draw({'encoded': middle}, noise, (3,))['image'])
    assert (
        explore.text_interpolation(
            sampler, {'encoded': sampler.encode(PAIR)}, num=3, steps=5, seed=4
        )
        == pictures
    ).all()


def test_from_noise_to_noise(sampler):
    pictures = explore.z_interpolation(sampler, PAIR, num=2, steps=4, seed=4)
    assert pictures.shape == (4, 4, SIDE, SIDE, 3)
    noise = np.asarray(sampler.module.noise(jax.random.key(4), 8)['z'])
    encoded = sampler.encode(PAIR)
    for row, (sentence, first) in enumerate(((0, 0), (0, 2), (1, 4), (1, 6))):
        ends = sampler.draw(
            {'encoded': encoded[[sentence] * 2]}, {'z': noise[first : first + 2]}, (2,)
        )['image']
        assert close(pictures[row, [0, -1]], ends)


def test_great_circles():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3, 4)).astype(np.float32)
    path = between(a, b, np.linspace(0, 1, 9))
    assert path.shape == (5, 9, 3, 4) and path.dtype == np.float32
    assert np.allclose(path[:, 0], a, atol=1e-5) and np.allclose(path[:, -1], b, atol=1e-5)
    lengths = np.linalg.norm(path.reshape(5, 9, -1), axis=-1)
    assert np.allclose(np.diff(lengths, 2), 0, atol=1e-5)
    unit = path.reshape(5, 9, -1) / lengths[..., None]
    angles = np.arccos(np.clip((unit[:, 1:] * unit[:, :-1]).sum(-1), -1, 1))
    assert np.allclose(angles, angles[:, :1], atol=1e-4)
    assert np.allclose(
        between(a, a, [0, 0.5, 1]), a[:, None], atol=1e-3
    )  # no direction is nowhere divided by


def test_one_word(sampler):
    pictures = explore.swap_word(sampler, PAIR, num=3, seed=2)
    assert (
        close(pictures, sampler(PAIR, num=3, seed=2)['image'])
        and (pictures[0] != pictures[1]).any()
    )
    assert exchanged('a red ring on a red ground', 'a red ring on a blue ground') == (
        ['red'],
        ['blue'],
    )
    assert exchanged('a red ring left of a blue cross', 'a blue ring left of a red cross') == (
        ['red', 'blue'],
        ['blue', 'red'],
    )
    assert exchanged('A red circle.', 'an orange circle') == (['a', 'red'], ['an', 'orange'])
    with pytest.raises(DataError, match="'red circles' and 'a blue square' have no word in common"):
        explore.swap_word(sampler, ['red circles', 'a blue square'])
    with pytest.raises(DataError, match='have the same words'):
        exchanged('a red circle', 'A red circle!')
    for one_too_many in (explore.swap_word, explore.text_interpolation):
        with pytest.raises(DataError, match='Give two sentences, not 3'):
            one_too_many(sampler, [*PAIR, 'a ring'])


def test_held_out_captions_that_differ_by_one_word():
    texts = [
        ['a red ring', 'a tall red ring'],
        ['a blue ring'],
        ['a green ring'],
        ['a red cross'],
        ['the blue ring'],
    ]
    rows, found = alike(texts, 3)
    assert found == [
        'a red ring',
        'a blue ring',
        'a red ring',
        'a green ring',
        'a red ring',
        'a red cross',
    ]
    assert rows == [(0, [0]), (1, [0]), (0, [0]), (2, [0]), (0, [0]), (3, [0])]
    assert alike(texts, 9)[1][6:] == ['a blue ring', 'the blue ring']
    with pytest.raises(DataError, match='No two held-out captions'):
        alike([['a red ring'], ['two squares'], ['ring'], ['cross']], 2)


def test_styles(styled):
    sampler = Sampler.load(styled[1], chunk=8, stage='style')
    images = np.random.default_rng(0).uniform(-1, 1, (3, SIDE, SIDE, 3)).astype(np.float32)
    pictures = explore.style(sampler, PAIR, images)
    assert pictures.shape == (2, 3, SIDE, SIDE, 3)
    encoded, noise = sampler.encode(PAIR), {'z': np.zeros((2, 128), np.float32)}
    for i in range(3):  # a column is one picture's style
        own = sampler.draw({'encoded': encoded, 'image': images[[i, i]]}, noise, (2,), 'transfer')
        assert close(pictures[:, i], own['image']) and np.allclose(
            own['z'][0], own['z'][1], atol=1e-5
        )


def test_correlations_of_each_dimension():
    def draw(batch, noise, shape, method):
        z, other = noise['z'], np.random.default_rng(1).normal(size=len(noise['z']))
        return {
            'z': np.stack(
                [3 * z[:, 0] + 1, -z[:, 1], other, z[:, 3] + other, np.zeros_like(other)], 1
            )
        }

    module = types.SimpleNamespace(noise=lambda key, n: {'z': jax.random.normal(key, (n, 5))})
    told = explore.style_correlation(
        types.SimpleNamespace(encode=lambda asked: np.zeros((3, 2)), module=module, draw=draw),
        None,
        num=4000,
    )
    assert told == pytest.approx([1, -1, 0, 0.5**0.5, 0], abs=0.05)


# ------------------------------------------------------------------------------------------------------------- what is written
@pytest.mark.parametrize(
    'what, given, rows',
    [
        ('text_interpolation', dict(texts=PAIR), (2, 9)),
        ('text_interpolation', {}, (2, 9)),
        ('z_interpolation', {}, (2, 9)),
        ('z_interpolation', dict(texts=PAIR), (4, 9)),
        ('swap_word', dict(texts=PAIR), (2, 2)),
        ('swap_word', {}, (2, 2)),
        ('style', {}, (3, 2)),
        ('style', dict(texts=PAIR[:1]), (2, 2)),
    ],
)
def test_pictures_and_numbers(what, given, rows, styled, monkeypatch, tmp_path, capsys):
    config, workdir = styled
    drawn, sheet = {}, sheets.sheet

    def keep(pictures, labels, path, **more):
        drawn.update(pictures=pictures, labels=labels)
        sheet(pictures, labels, path, **more)

    monkeypatch.setattr(sheets, 'sheet', keep)
    monkeypatch.setattr(explore, 'DRAWS', 20)
    numbers = explore.explore(config, workdir, what, num=2, out=tmp_path, **given)
    assert (
        json.loads((tmp_path / f'{what}.json').read_text()) == numbers
        and f'{what}.png' in capsys.readouterr().out
    )
    assert drawn['pictures'].shape == (*rows, SIDE, SIDE, 3) and len(drawn['labels']) == rows[0]
    assert cv2.imread(str(tmp_path / f'{what}.png')) is not None
    if what.endswith('interpolation'):
        frames = Image.open(
            tmp_path / f'{what}.gif'
        ).n_frames  # of a text encoder of four steps hardly any picture moves: fewer frames
        assert len(numbers['pixel_change']) == 8 and (frames == 48 or what[0] == 't')
        first, last = (drawn['pictures'][:, i].astype(float) for i in (0, -1))
        assert numbers['pixel_change_ends'] == pytest.approx(
            np.abs(first - last).mean() / 255, abs=1e-6
        )
    if what == 'swap_word':
        assert (
            len(numbers['words']) == 1
            and all(numbers['words'][0])
            and numbers['pixel_change_of_other_noise'] > 0
        )
    if what == 'style':
        assert (
            len(numbers['correlation']) == 128
            and numbers['correlation_least'] <= numbers['correlation_mean']
        )
        assert set(numbers) >= {'object_off_its_style', 'object_off_other_styles'}


def test_pictures_of_the_users_give_their_style(styled, monkeypatch, tmp_path):
    config, workdir = styled
    monkeypatch.setattr(explore, 'DRAWS', 20)
    for name in ('one.png', 'two.jpg', 'three.png'):
        cv2.imwrite(
            str(tmp_path / name),
            np.random.default_rng(len(name)).integers(0, 256, (40, 30, 3), np.uint8),
        )
    drawn = {}
    monkeypatch.setattr(
        sheets,
        'sheet',
        lambda pictures, labels, path, **more: (
            drawn.update(pictures=pictures),
            sheets.save_png(path, pictures[0, 0]),
        ),
    )
    explore.explore(
        config,
        workdir,
        'style',
        texts=PAIR,
        images=[tmp_path / name for name in ('one.png', 'two.jpg', 'three.png')],
        out=tmp_path,
    )
    assert drawn['pictures'].shape[:2] == (3, 3)
    own = cv2.resize(
        cv2.imread(str(tmp_path / 'two.jpg'), cv2.IMREAD_COLOR_RGB),
        (SIDE, SIDE),
        interpolation=cv2.INTER_AREA,
    )
    assert close(drawn['pictures'][0, 1], own)
    (tmp_path / 'text.png').write_text('no picture')
    with pytest.raises(DataError, match=r'text\.png is missing, or no picture'):
        explore.explore(config, workdir, 'style', images=[tmp_path / 'text.png'], out=tmp_path)


def test_from_the_command_line(styled, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(explore, 'explore', lambda *args: asked.append(args))
    monkeypatch.setattr(main, 'start_jax', lambda: None)
    main.cli(
        [
            't2i_jax',
            f'--workdir={styled[1]}',
            '--mode=explore',
            '--what=style',
            *(f'--text={text}' for text in PAIR),
            '--image=a.png',
            '--image=b.png',
            '--num=4',
            '--seed=3',
            f'--out={tmp_path}',
        ]
    )
    rest = ('style', 4, 3, PAIR, ['a.png', 'b.png'], [], None, str(tmp_path))
    assert [args[1:] for args in asked] == [(str(styled[1]), *rest)]
    assert asked[0][0].to_json() == styled[0].to_json()


# --------------------------------------------------------------------------------------------------------------- what is refused
def test_what_cannot_be_explored(styled, trained, tiny):
    config, workdir = styled
    for what in ('text_interpolation', 'swap_word'):
        with pytest.raises(DataError, match=f'{what} takes sentences in pairs.*there are 3'):
            explore.explore(config, workdir, what, texts=[*PAIR, 'a ring'])
    with pytest.raises(DataError, match='no word in common'):
        explore.explore(config, workdir, 'swap_word', texts=['two rings', 'a blue square'])
    with pytest.raises(
        RunError, match=r'needs a style encoder.*--config\.stages\.style\.steps=4000'
    ):
        explore.explore(tiny(), trained, 'style')
    with pytest.raises(RunError, match='swap_word does not read --image'):
        explore.explore(config, workdir, 'swap_word', texts=PAIR, images=['a.png'])
    with pytest.raises(
        RunError,
        match='There is no .styles. to explore.*z_interpolation, swap_word, attention, style',
    ):
        explore.explore(config, workdir, 'styles')
    with pytest.raises(RunError, match='ask for at least one'):
        explore.explore(config, workdir, 'style', num=0)
    with pytest.raises(RunError, match='shows 12 pictures at most'):
        explore.explore(config, workdir, 'style', num=13)
    images = np.zeros((2, 8, 8, 3), np.float32)
    with pytest.raises(DataError, match='Stage gan is no style encoder'):
        explore.style(Sampler.load(workdir), PAIR, images)
    with pytest.raises(DataError, match=r'k 16 16 3, not \(2, 8, 8, 3\)'):
        explore.style(Sampler.load(workdir, stage='style'), PAIR, images)


def test_a_system_that_draws_from_noise_alone(dense, tmp_path):
    config = dense(steps=1)
    train(config, tmp_path, jax.devices()[:1])
    numbers = explore.explore(config, tmp_path, 'z_interpolation', num=3)
    assert numbers['rows'] == 3 and (tmp_path / 'explore' / 'z_interpolation.gif').exists()
    with pytest.raises(DataError, match='draws without sentences'):
        explore.explore(config, tmp_path, 'z_interpolation', texts=PAIR)
    with pytest.raises(
        DataError, match='text_interpolation needs a system that draws from sentences'
    ):
        explore.explore(config, tmp_path, 'text_interpolation')
    with pytest.raises(RunError, match='which dcgan does not have'):
        explore.explore(config, tmp_path, 'style')


# ----------------------------------------------------------------------------------------------------------- an earlier stage
def test_another_stage_than_the_last(styled, monkeypatch):
    config, workdir = styled
    assert (
        Sampler.load(workdir).stage == 'gan'
        and Sampler.load(workdir, stage='style').stage == 'style'
    )
    with pytest.raises(RunError, match="has no stage 'one'. It has: text, gan, style"):
        Sampler.load(workdir, stage='one')
    given = {}
    monkeypatch.setattr(
        evaluate.Sampler,
        'load',
        lambda *args, **keywords: (
            given.update(keywords) or (_ for _ in ()).throw(RunError('far enough'))
        ),
    )
    with pytest.raises(RunError, match='far enough'):
        evaluate.evaluate(config, workdir, stage='one')
    assert given['stage'] == 'one'
