"""Explorations from sentences: one condition moves, what is written, what is refused."""

import json
import sys
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import sampler_of
from PIL import Image

from t2i_jax import main
from t2i_jax import stage as core
from t2i_jax.draw import sheets
from t2i_jax.explore import (
    EXPLORATIONS,
    explore,
    listing,
    offered,
    stage_of,
    style,
    style_correlation,
    swap_word,
    text_interpolation,
    z_interpolation,
)
from t2i_jax.explore.own import own_sheet
from t2i_jax.explore.request import Request
from t2i_jax.explore.sentences import alike, between, exchanged
from t2i_jax.run import Run
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.sample import Sampler
from t2i_jax.scenes import explored
from t2i_jax.train import train
from tfds_builders.facts import EXISTS, table
from tfds_builders.shape_scenes import render

PAIR = ['a large red circle', 'a large blue circle']
SIDE = 16


@pytest.fixture(scope='module')
def styled(tiny, trained, tmp_path_factory):
    """A run that takes its generator from another one and has learnt a style encoder."""
    config, workdir = tiny(style=dict(steps=2)).unlock(), tmp_path_factory.mktemp('styled')
    config.init.update(text=str(trained), gan=str(trained))
    return train(Run.create(config.lock(), workdir), jax.devices()[:1])


@pytest.fixture(scope='module')
def sampler(trained):
    """Of a text encoder of four steps, which says nearly the same of all sentences, made louder."""
    sampler = Sampler.load(trained, chunk=16)
    louder = jax.tree.map(lambda x: 20 * x, sampler.params['text'])
    sampler.params = {**sampler.params, 'text': louder}
    return sampler


@pytest.fixture
def shown(monkeypatch):
    """The arguments of the last sheet that was written, by name."""
    found, sheet = {}, sheets.sheet

    def spy(pictures, labels, path, **more):
        found.update(pictures=pictures, labels=labels, **more)
        sheet(pictures, labels, path, **more)

    monkeypatch.setattr(sheets, 'sheet', spy)
    return found


@pytest.fixture
def few(monkeypatch):
    """Correlations of few pictures, a table of few exchanged words."""
    monkeypatch.setattr(sys.modules['t2i_jax.explore.style'], 'PICTURES', 20)
    monkeypatch.setattr(sys.modules['t2i_jax.explore.edit'], 'CAPTIONS', 60)


def close(a, b):
    """As 8-bit pictures, of which one rounding may differ."""
    return a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 1


# --------------------------------------------------------------------------------------- what moves
def test_from_sentence_to_sentence(sampler):
    pictures = text_interpolation(sampler, PAIR, num=3, steps=5, seed=4)
    ends = sampler(PAIR, num=3, seed=4)['image']
    assert pictures.shape == (3, 5, SIDE, SIDE, 3) and pictures.dtype == np.uint8
    assert close(pictures[:, 0], ends[0]) and close(pictures[:, -1], ends[1])
    assert (ends[0] != ends[1]).any()
    middle = sampler.encode(PAIR).mean(0, keepdims=True).repeat(3, 0)
    own = sampler.sample({'encoded': middle}, sampler.noise(3, 4), (3,))['image']
    assert close(pictures[:, 2], own)
    encoded = {'encoded': sampler.encode(PAIR)}
    assert (text_interpolation(sampler, encoded, num=3, steps=5, seed=4) == pictures).all()


def test_from_noise_to_noise(sampler):
    pictures = z_interpolation(sampler, PAIR, num=2, steps=4, seed=4)
    assert pictures.shape == (4, 4, SIDE, SIDE, 3)
    noise, encoded = sampler.noise(8, 4)['z'], sampler.encode(PAIR)
    for row, (sentence, first) in enumerate(((0, 0), (0, 2), (1, 4), (1, 6))):
        batch, ends = {'encoded': encoded[[sentence] * 2]}, {'z': noise[first : first + 2]}
        assert close(pictures[row, [0, -1]], sampler.sample(batch, ends, (2,))['image'])


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
    # nothing is divided by an angle of 0
    assert np.allclose(between(a, a, [0, 0.5, 1]), a[:, None], atol=1e-3)


def test_one_word(sampler):
    pictures = swap_word(sampler, PAIR, num=3, seed=2)
    assert close(pictures, sampler(PAIR, num=3, seed=2)['image'])
    assert (pictures[0] != pictures[1]).any()
    ground = 'a red ring on a red ground', 'a red ring on a blue ground'
    assert exchanged(*ground) == (['red'], ['blue'])
    both = 'a red ring left of a blue cross', 'a blue ring left of a red cross'
    assert exchanged(*both) == (['red', 'blue'], ['blue', 'red'])
    assert exchanged('A red circle.', 'an orange circle') == (['a', 'red'], ['an', 'orange'])
    with pytest.raises(DataError, match="'red circles' and 'a blue square' have no word in common"):
        swap_word(sampler, ['red circles', 'a blue square'])
    with pytest.raises(DataError, match='have the same words'):
        exchanged('a red circle', 'A red circle!')
    for function in (swap_word, text_interpolation):
        with pytest.raises(DataError, match='Give two sentences, not 3'):
            function(sampler, [*PAIR, 'a ring'])


def test_held_out_captions_that_differ_by_one_word():
    texts = [
        ['a red ring', 'a tall red ring'],
        ['a blue ring'],
        ['a green ring'],
        ['a red cross'],
        ['the blue ring'],
    ]
    rows, found = alike(texts, 3)
    others = ['a blue ring', 'a green ring', 'a red cross']
    assert found == [text for other in others for text in ('a red ring', other)]
    assert rows == [(0, [0]), (1, [0]), (0, [0]), (2, [0]), (0, [0]), (3, [0])]
    assert alike(texts, 9)[1][6:] == ['a blue ring', 'the blue ring']
    with pytest.raises(DataError, match='No two held-out captions'):
        alike([['a red ring'], ['two squares'], ['ring'], ['cross']], 2)


def test_edits_of_shape_scenes_and_what_became_of_them():
    def drawn(*objects):
        scene = np.full((6, 8), -1)
        for depth, (kind, colour, x) in enumerate(objects):
            scene[depth] = (kind, colour, 1, x, 1792, 1200, 1200, depth)
        scene[-1, :2] = 1, 0
        return render.image(scene, 64)

    red = table([(EXISTS, 0, 0, -1, -1, -1)])
    texts, facts = ['a red circle'] * 6, np.stack([red] * 6)
    found = explored.edits('single', texts, facts, 12)
    by_kind = {kind: [one for one in found if one[1] == kind] for kind in ('class', 'colour')}
    assert len(found) == 8 and {len(some) for some in by_kind.values()} == {4}
    assert explored.edits('', texts, facts, 12) == []
    colour = by_kind['colour'][0][3][0][2]
    edits = [(row, 'colour', '', by_kind['colour'][0][3]) for row in range(4)]
    # done; deaf; another shape; elsewhere
    after = [(0, colour, 1792), (0, 0, 1792), (1, colour, 1792), (0, colour, 2816)]
    pictures = [np.stack([drawn(one) for one in some]) for some in ([(0, 0, 1792)] * 4, after)]
    numbers = explored.edited('single', *pictures, edits, facts)['colour']
    assert (numbers['n'], numbers['right'], numbers['class_kept']) == (4, 0.5, 0.75)
    assert numbers['all_else_kept'] == 0.75 and numbers['size_kept'] == 1
    assert numbers['moved'] == pytest.approx(0.25 / 4, abs=0.01) and numbers['background'] < 0.01
    assert 'colour_kept' not in numbers


def test_styles(styled):
    sampler = Sampler(styled['style'], chunk=8)
    images = np.random.default_rng(0).uniform(-1, 1, (3, SIDE, SIDE, 3)).astype(np.float32)
    pictures = style(sampler, PAIR, images)
    assert pictures.shape == (2, 3, SIDE, SIDE, 3)
    encoded, noise = sampler.encode(PAIR), {'z': np.zeros((2, 128), np.float32)}
    # a column is one picture's style
    for i in range(3):
        batch = {'encoded': encoded, 'image': images[[i, i]]}
        own = sampler.sample(batch, noise, (2,), 'transfer')
        assert close(pictures[:, i], own['image'])
        assert np.allclose(own['z'][0], own['z'][1], atol=1e-5)
    with pytest.raises(DataError, match=r'k 16 16 3, not \(2, 8, 8, 3\)'):
        style(sampler, PAIR, images[:2, :8, :8])
    with pytest.raises(DataError, match='Stage gan is not a style encoder'):
        style(Sampler.load(styled.workdir), PAIR, images)


def test_correlations_of_each_dimension():
    def sample(batch, noise, shape, method):
        z, other = noise['z'], np.random.default_rng(1).normal(size=len(noise['z']))
        read = [3 * z[:, 0] + 1, -z[:, 1], other, z[:, 3] + other, np.zeros_like(other)]
        return {'z': np.stack(read, 1)}

    stand_in = types.SimpleNamespace(
        encode=lambda sentences: np.zeros((3, 2)),
        noise=lambda n, seed: {'z': np.asarray(jax.random.normal(jax.random.key(seed), (n, 5)))},
        sample=sample,
    )
    found = style_correlation(stand_in, None, num=4000)
    assert found == pytest.approx([1, -1, 0, 0.5**0.5, 0], abs=0.05)


# ---------------------------------------------------------------------------------- what is written
@pytest.mark.parametrize(
    'what, given, rows',
    [
        ('text_interpolation', dict(texts=PAIR), (2, 9)),
        ('text_interpolation', {}, (2, 9)),
        ('z_interpolation', {}, (2, 9)),
        ('z_interpolation', dict(texts=PAIR), (4, 9)),
        ('swap_word', dict(texts=PAIR), (2, 2)),
        ('swap_word', {}, (2, 2)),
        ('edit', dict(texts=PAIR), (3, 2)),
        ('edit', {}, (3, 2)),
        ('style', {}, (3, 2)),
        ('style', dict(texts=PAIR[:1]), (2, 2)),
    ],
)
def test_pictures_and_numbers(what, given, rows, styled, shown, few, tmp_path, capsys):
    numbers = explore(stage_of(styled, what), what, num=2, out=tmp_path, **given)
    assert json.loads((tmp_path / f'{what}.json').read_text()) == numbers
    assert f'{what}.png' in capsys.readouterr().out
    pictures = shown['pictures']
    assert pictures.shape == (*rows, SIDE, SIDE, 3) and len(shown['labels']) == rows[0]
    assert cv2.imread(str(tmp_path / f'{what}.png')) is not None
    if what.endswith('interpolation'):
        frames = Image.open(tmp_path / f'{what}.gif').n_frames
        # few pictures move where the text encoder has four steps: fewer frames
        assert len(numbers['pixel_change']) == 8 and (frames == 48 or what[0] == 't')
        first, last = (pictures[:, i].astype(float) for i in (0, -1))
        change = np.abs(first - last).mean() / 255
        assert numbers['pixel_change_ends'] == pytest.approx(change, abs=1e-6)
    if what == 'swap_word':
        assert len(numbers['words']) == 1 and all(numbers['words'][0])
        assert numbers['pixel_change_of_other_noise'] > 0
    if what == 'edit':
        before, after, change = pictures.astype(np.float32)
        assert shown['labels'][2] == 'change' and (change == change[..., :1]).all()
        np.testing.assert_allclose(change[..., 0], np.abs(after - before).mean(-1), atol=0.5)
        assert numbers['l2'] == pytest.approx(np.square((after - before) / 255).mean(), rel=1e-3)
        assert numbers['pairs'][0]['texts'] == shown['labels'][:2]
        words = numbers.get('exchanged_words')
        assert (words is None) == ('texts' in given)
        assert given or {name: words[name]['n'] for name in ('class', 'colour', 'size')} == {
            name: 20 for name in ('class', 'colour', 'size')
        }
    if what == 'style':
        assert len(numbers['correlation']) == 128
        assert numbers['correlation_least'] <= numbers['correlation_mean']
        assert set(numbers) >= {'object_off_its_style', 'object_off_other_styles'}


def test_given_pictures_give_their_style(styled, shown, few, tmp_path):
    files = [tmp_path / name for name in ('one.png', 'two.jpg', 'three.png')]
    for path in files:
        draws = np.random.default_rng(len(path.name))
        cv2.imwrite(str(path), draws.integers(0, 256, (40, 30, 3), np.uint8))
    explore(styled['style'], 'style', texts=PAIR, images=files, out=tmp_path)
    assert shown['pictures'].shape[:2] == (3, 3)
    own = cv2.imread(str(files[1]), cv2.IMREAD_COLOR_RGB)
    own = cv2.resize(own, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    assert close(shown['pictures'][0, 1], own)
    (tmp_path / 'text.png').write_text('not a picture')
    with pytest.raises(DataError, match=r'text\.png'):
        explore(styled['style'], 'style', images=[tmp_path / 'text.png'], out=tmp_path)


def test_from_the_command_line(styled, trained, monkeypatch, tmp_path, capsys):
    calls, start = [], ['t2i_jax', f'--workdir={styled.workdir}', '--mode=explore']
    package = sys.modules['t2i_jax.explore']
    monkeypatch.setattr(package, 'explore', lambda *args, **_: calls.append(args))
    monkeypatch.setattr(main, 'start_jax', lambda: None)
    texts = [f'--text={text}' for text in PAIR]
    more = ['--image=a.png', '--image=b.png', '--num=4', '--seed=3', f'--out={tmp_path}']
    main.cli([*start, '--what=style', *texts, *more])
    (stage, *rest), *others = calls
    assert stage.name == 'style' and not others
    assert rest == ['style', 4, 3, PAIR, ['a.png', 'b.png'], [], str(tmp_path)]
    main.cli([*start, '--what'])
    out = capsys.readouterr().out
    assert 'stage gan (GanCls)\n  text_interpolation' in out
    assert 'stage style (Style)\n  style  ' in out and len(calls) == 1
    main.cli([*start, '--what', '--stage=gan'])
    assert 'stage style' not in capsys.readouterr().out


# ---------------------------------------------------------------------------------- what is offered
def test_stages_and_what_they_offer(styled, trained):
    assert list(offered(styled['gan'].module)) == [
        'text_interpolation',
        'z_interpolation',
        'swap_word',
        'edit',
        'nearest',
    ]
    assert list(offered(styled['style'].module)) == ['style']
    assert offered(styled['text'].module) == {}
    assert 'stage text (JointEmbedding)\n  nothing' in listing(styled)
    # the last stage that draws, though another is trained after it
    assert stage_of(styled, 'z_interpolation').name == 'gan'
    assert stage_of(styled, 'style').name == 'style'
    assert stage_of(styled, 'z_interpolation', 'style').name == 'style'
    with pytest.raises(RunError, match=r"needs stage 'style'.*--config\.stages\.style\.steps=4000"):
        stage_of(Run.open(trained), 'style')


def test_what_cannot_be_explored(styled):
    gan, encoder = styled['gan'].source(), styled['style']
    for what in ('text_interpolation', 'swap_word'):
        with pytest.raises(DataError, match=f'{what} takes sentences in pairs.*there are 3'):
            explore(gan, what, texts=[*PAIR, 'a ring'])
    with pytest.raises(DataError, match='no word in common'):
        explore(gan, 'swap_word', texts=['two rings', 'a blue square'])
    with pytest.raises(RunError, match='swap_word does not read --image'):
        explore(gan, 'swap_word', texts=PAIR, images=['a.png'])
    with pytest.raises(RunError, match=r'There is no .styles. to explore.*\(GanCls\) offers: text'):
        explore(gan, 'styles')
    with pytest.raises(RunError, match='explores style encoders. Stage gan'):
        explore(gan, 'style')
    with pytest.raises(RunError, match='from sentences. Stage style .Style. offers: style'):
        explore(encoder, 'text_interpolation')
    with pytest.raises(RunError, match='num is 0; it must be at least 1'):
        explore(encoder, 'style', num=0)
    with pytest.raises(RunError, match='shows 12 pictures at most'):
        explore(encoder, 'style', num=13)


def test_a_system_that_draws_from_noise_alone(dense, tmp_path):
    run = train(Run.create(dense(steps=1), tmp_path), jax.devices()[:1])
    assert explore(run['gan'], 'z_interpolation', num=3)['rows'] == 3
    assert (tmp_path / 'explore' / 'z_interpolation.gif').exists()
    with pytest.raises(DataError, match='draws without sentences'):
        explore(run['gan'], 'z_interpolation', texts=PAIR)
    with pytest.raises(RunError, match='Stage gan .Dcgan. offers: z_interpolation'):
        explore(stage_of(run, 'style'), 'style')


# -------------------------------------------------------------------------- explorations of a stage
class Scene(core.Stage):
    """A grey foreground of the text's value next to a background of the noise's."""

    needs, draws_from, makes = ('image', 'chars'), ('sentence',), ('image',)
    explores = {'background': 'backgrounds'}

    def __init__(self):
        self.grey = nnx.Param(jnp.zeros(()))

    def noise(self, key, n):
        return {'z': core.normal_rows(key, n, ())}

    def encode(self, batch):
        return batch['encoded'] if 'encoded' in batch else batch['chars'][:, 0] / 100 + 0.0

    def sample(self, batch, noise):
        front = self.encode(batch) + self.grey[...]
        halves = jnp.stack([front, jnp.tanh(noise['z'])], 1)
        return {'image': jnp.broadcast_to(halves[:, None, :, None], (len(halves), 2, 2, 3))}

    @staticmethod
    def backgrounds(sampler, batch, texts, num, seed):
        """Each sentence before `num` backgrounds."""
        n = len(texts)
        rows = jax.tree.map(lambda x: np.repeat(x, num, 0), batch)
        return sampler.sample(rows, sampler.noise(num, seed, n), (n, num))['image'], texts


@pytest.fixture
def scene():
    vocabulary = types.SimpleNamespace(encode=lambda text, n: (np.ones(n, np.int32), n))
    vocabulary.unknown = lambda text: []
    return sampler_of(Scene(), core.Meta('toy', length=3, size=2), vocabulary)


def test_a_stage_has_an_exploration_of_its_own(scene, monkeypatch, tmp_path):
    assert list(offered(scene.module))[-1] == 'background'
    assert offered(scene.module)['background'].shows == 'its own, see Scene.backgrounds'
    found = own_sheet(Request(scene, 'background', 3, 1, texts=['a', 'b']))
    assert found.pictures.shape == (2, 3, 2, 2, 3) and found.labels == ['a', 'b']
    front, back = found.pictures[..., 0, 0], found.pictures[..., 1, 0]
    # a row is one sentence, a column one background
    assert (front == front[:, :1]).all() and (front[0] != front[1]).any()
    assert (back == back[:1]).all() and len(set(back[0, :, 0])) == 3
    monkeypatch.setattr(sys.modules['t2i_jax.explore'], 'Sampler', lambda stage: scene)
    numbers = explore(scene.stage, 'background', 3, texts=['a', 'b'], out=tmp_path)
    assert numbers == {'what': 'background', 'step': 0, 'rows': 2, 'seed': 0}
    assert {path.name for path in tmp_path.iterdir()} == {'background.json', 'background.png'}
    with pytest.raises(RunError, match='background does not read --image'):
        explore(scene.stage, 'background', images=['a.png'])


def test_held_out_records_are_explored_by_a_stage_of_its_own(scene, monkeypatch):
    calls = []
    rows = types.SimpleNamespace(
        batch=lambda: {'chars': np.ones((2, 9), np.int32), 'image': np.zeros((2, 2, 2, 3))},
        texts=['one', 'two'],
    )
    own = sys.modules['t2i_jax.explore.own']
    monkeypatch.setattr(own, 'held_out', lambda *args: calls.append(args[1:]) or rows)
    found = own_sheet(Request(scene, 'background', 2))
    assert calls == [(2, ('image',))] and found.labels == ['one', 'two']
    monkeypatch.setattr(Scene, 'backgrounds', staticmethod(lambda *args: (np.zeros((2, 3)), ['a'])))
    with pytest.raises(DataError, match=r'background of stage toy returned.*\(2, 3\).*1 labels'):
        own_sheet(Request(scene, 'background', 2))


def test_explorations_have_sheets_and_words():
    for name, one in EXPLORATIONS.items():
        assert one.sheet.__name__ == f'{name}_sheet' and one.of and one.shows
