"""The same words and the same seed give the same picture, whatever else is drawn with them."""

import copy
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from flax import nnx
from helpers import bit_equal, restored, sampler_of

from t2i_jax import sample
from t2i_jax.data.text import Vocabulary
from t2i_jax.draw import boxes as drawing
from t2i_jax.draw import sheets
from t2i_jax.run import Run
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.sample import Sampler, to_files, to_uint8
from t2i_jax.stage import Meta, Phase, Stage, normal_rows
from t2i_jax.systems import dcgan
from t2i_jax.train import train
from tfds_builders.shape_scenes import scenes

SINGLE = scenes.attribute_names('single')
META = Meta(
    'shape_scenes/single',
    size=16,
    attributes=22,
    object_classes=6,
    max_objects=5,
    object_names=scenes.CLASSES,
    attribute_names=SINGLE,
)


@pytest.fixture(scope='module')
def sampler(trained):
    return louder(Sampler.load(trained, chunk=6))


def louder(sampler):
    """A text encoder of four steps says nearly the same of all sentences; here it differs more."""
    text = jax.tree.map(lambda x: 20 * x, sampler.params['text'])
    sampler.params = {**sampler.params, 'text': text}
    return sampler


@pytest.fixture(scope='module')
def wordless(dense, tmp_path_factory):
    """The workdir of a run whose system reads no words."""
    workdir = tmp_path_factory.mktemp('wordless')
    train(Run.create(dense(steps=1), workdir), jax.devices()[:1])
    return workdir


SENTENCES = ['a large circle', 'a small square', 'the picture is blue']


def test_a_seed_is_a_picture(sampler):
    images = sampler(SENTENCES, num=3, seed=5)['image']
    assert images.shape == (3, 3, 16, 16, 3) and images.dtype == np.uint8
    assert bit_equal(images, sampler(SENTENCES, num=3, seed=5)['image'])
    assert not bit_equal(images, sampler(SENTENCES, num=3, seed=6)['image'])
    assert len({image.tobytes() for image in images.reshape(9, 16, 16, 3)}) == 9


def test_a_picture_does_not_depend_on_what_is_drawn_with_it(sampler):
    images = sampler(SENTENCES, num=3, seed=5)['image']
    assert bit_equal(
        sampler(SENTENCES[1], num=3, seed=5)['image'][0], images[1]
    )  # one sentence may stand alone
    assert bit_equal(sampler(SENTENCES[::-1], num=3, seed=5)['image'], images[::-1])
    assert bit_equal(sampler(SENTENCES, num=1, seed=5)['image'], images[:, :1])
    assert bit_equal(sampler(SENTENCES, num=7, seed=5)['image'][:, :3], images)


def test_chunks_do_not_matter(sampler, trained):
    images = sampler(SENTENCES, num=3)['image'].astype(int)
    for chunk in (1, 4, 64):
        other = louder(Sampler.load(trained, chunk=chunk))(SENTENCES, num=3)['image'].astype(int)
        assert np.abs(images - other).max() <= 1  # rounding may depend on the number of rows


def test_truncated_noise_is_less_and_keeps_its_order(sampler):
    plain, less = (sampler.noise(400, 3, truncation=t)['z'] for t in (0.0, 0.7))
    assert np.abs(less).max() <= 0.7 and np.abs(plain).max() > 3
    np.testing.assert_array_equal(np.argsort(plain[:, 0]), np.argsort(less[:, 0]))
    # of the standard normal distribution within 0.7
    expected = scipy.stats.truncnorm(-0.7, 0.7)
    assert abs(less.std() - expected.std()) < 0.01
    drawn = sampler(SENTENCES, num=2, seed=3, truncation=0.7)
    noise = sampler.noise(2, 3, len(SENTENCES), 0.7)
    assert bit_equal(drawn, sampler(SENTENCES, num=2, noise=noise))
    with pytest.raises(RunError, match='truncation'):
        sampler(SENTENCES, truncation=-1.0)


def test_uniform_noise_is_not_truncated(wordless):
    sampler = Sampler.load(wordless)
    assert sampler.module.normal == (('z',) if sampler.module.z == 'normal' else ())
    sampler.module.normal = ()
    with pytest.raises(RunError, match='draws from no normal noise: leave out truncation'):
        sampler(num=2, truncation=0.5)


def test_noise_may_be_given(sampler):
    noise = sampler.module.noise(jax.random.key(5), 3)
    tiled = {name: np.tile(x, (3, 1)) for name, x in noise.items()}
    assert bit_equal(sampler(SENTENCES, num=3, noise=tiled), sampler(SENTENCES, num=3, seed=5))
    still = sampler(
        SENTENCES,
        num=2,
        noise={name: np.zeros((6, *x.shape[1:]), np.float32) for name, x in noise.items()},
    )['image']
    assert bit_equal(still[:, 0], still[:, 1])


def test_the_newest_averages_draw_unless_another_step_is_named(sampler, tiny, trained):
    state = restored(tiny(), trained, 'gan')[1]
    assert (sampler.name, sampler.step) == ('gan', 6) and bit_equal(
        sampler.params['G'], state.ema['G']
    )
    older = Sampler.load(trained, step=3)
    assert older.step == 3 and bit_equal(
        older.params['G'], restored(tiny(), trained, 'gan', 3)[1].ema['G']
    )
    with pytest.raises(RunError, match=r'no checkpoint of step 4. It has: 3, 6'):
        Sampler.load(trained, step=4)


def test_unknown_words_are_named_and_left_out(sampler, caplog):
    with caplog.at_level(logging.WARNING):
        sampler(['a purple circle with wings'], num=1)
    assert (
        'purple' in caplog.text
        and 'wings' in caplog.text
        and 'circle' not in caplog.text.split('does not know')[1]
    )


@pytest.mark.parametrize(
    'keywords, words',
    [
        (dict(sentences=[]), 'Give at least one'),
        (dict(sentences=['']), 'has no words'),
        (dict(sentences=['zebra']), 'no word of sentence 1'),
        (dict(), 'draws from sentences'),
    ],
)
def test_what_cannot_be_drawn(sampler, keywords, words):
    with pytest.raises(DataError, match=words):
        sampler(**keywords)


def test_a_system_without_words(wordless):
    sampler = Sampler.load(wordless)
    images = sampler(num=5)['image']
    assert images.shape == (1, 5, 16, 16, 3) and bit_equal(images[:, :2], sampler(num=2)['image'])
    with pytest.raises(DataError, match='draws without sentences'):
        sampler(['a circle'])


def test_a_run_without_a_checkpoint(trained, tmp_path):
    with pytest.raises(RunError, match='holds no run'):
        Sampler.load(tmp_path)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / 'gan' / 'checkpoints')
    with pytest.raises(RunError, match='no finished checkpoint of gan'):
        Sampler.load(tmp_path)
    (tmp_path / 'gan' / 'checkpoints').mkdir(parents=True)
    for step in (None, 3):
        with pytest.raises(RunError, match='no finished checkpoint'):
            Sampler.load(tmp_path, step=step)


def test_a_damaged_checkpoint_is_passed_over(trained, tmp_path, caplog):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / 'gan' / 'checkpoints' / '6' / 'state')
    assert Sampler.load(tmp_path).step == 3 and 'step 6' in caplog.text


def test_pictures_are_rounded_and_cut():
    assert to_uint8(jnp.array([-1, 1, 0, -2, 2, -1 + 1 / 127.5])).tolist() == [
        0,
        255,
        128,
        0,
        255,
        1,
    ]
    assert [x.dtype for x in to_uint8([jnp.zeros(2), jnp.zeros(3, jnp.bfloat16)])] == [np.uint8] * 2


# ----------------------------------------------------------------------- systems that read no words
class Painter(Stage):
    """Pictures of one colour, from attributes and noise."""

    phases, needs = (Phase('loss', trains=('net',)),), ('image', 'attributes')
    draws_from, makes = ('attributes',), ('image',)

    def __init__(self, meta, *, rngs, **_):
        self.net, self.size = nnx.Linear(meta.attributes + 4, 3, rngs=rngs), meta.size

    def noise(self, key, n):
        return {'z': normal_rows(key, n, (4,))}

    def paint(self, batch, noise):
        colour = jnp.tanh(self.net(jnp.concatenate([batch['attributes'], noise['z']], -1)))
        return jnp.broadcast_to(colour[:, None, None], (len(colour), self.size, self.size, 3))

    def loss(self, batch, key, out):
        return jnp.square(
            self.paint(batch, self.noise(key, len(batch['image']))) - batch['image']
        ).mean(), {}

    def sample(self, batch, noise):
        return {'image': self.paint(batch, noise), 'attributes': batch['attributes']}


class Placer(Stage):
    """One box for each label of a set, and those given; all the same but for noise."""

    phases, needs = (Phase('loss', trains=('net',)),), ('boxes', 'object_labels')
    draws_from, makes = ('labels',), ('boxes',)

    def __init__(self, meta, *, rngs, **_):
        self.net, self.rows, self.classes = (
            nnx.Linear(4, 4, rngs=rngs),
            meta.max_objects,
            meta.object_classes,
        )

    def noise(self, key, n):
        return {'z': normal_rows(key, n, (self.rows, 4))}

    def loss(self, batch, key, out):
        return jnp.square(self.net(batch['boxes']) - batch['boxes']).mean(), {}

    def sample(self, batch, noise):
        sets = (
            batch['label_set']
            if 'label_set' in batch
            else (batch['object_labels'][..., None] == jnp.arange(self.classes)).any(1)
        )
        order = jnp.argsort(sets == 0, axis=1, stable=True)[:, : self.rows]
        labels = jnp.where(jnp.take_along_axis(sets, order, 1) > 0, order, -1)
        boxes = jnp.where(
            labels[..., None] >= 0, 0.3 + 0.2 * jax.nn.sigmoid(self.net(noise['z'])), 0
        )
        if 'given_boxes' in batch:
            there = batch['given_labels'] >= 0
            boxes, labels = (
                jnp.where(there[..., None], batch['given_boxes'], boxes),
                jnp.where(there, batch['given_labels'], labels),
            )
        return {'boxes': boxes, 'object_labels': labels}


def toy(cls, meta=META):
    return sampler_of(cls(meta, rngs=nnx.Rngs(0)), meta)


def test_attributes_are_drawn_from():
    painter = toy(Painter)
    drawn = painter(attributes=['circle, red, small, left, top', np.ones(22)], num=3, seed=2)
    assert drawn['image'].shape == (2, 3, 16, 16, 3) and drawn['image'].dtype == np.uint8
    assert [SINGLE[i] for i in np.flatnonzero(drawn['attributes'][0, 2])] == [
        'circle',
        'red',
        'small',
        'left',
        'top',
    ] and drawn['attributes'][1].all()
    assert bit_equal(
        painter(attributes=np.ones((1, 22)), num=3, seed=2)['image'][0], drawn['image'][1]
    )
    assert len({image.tobytes() for image in drawn['image'].reshape(6, -1)}) == 6


def test_what_a_sentence_leaves_open_depends_on_seed_and_number_alone():
    painter = toy(Painter)
    drawn = painter(['a red circle', 'a red shape at the top'], num=6, seed=2)['attributes']
    assert (
        (drawn[0][:, [0, 6]] == 1).all()
        and (drawn[1][:, [6, 19]] == 1).all()
        and (drawn.sum(-1) == 5).all()
    )
    assert len({row.tobytes() for row in drawn[0]}) > 3
    assert bit_equal(
        drawn[0][:, 13:19], drawn[1][:, 13:19]
    )  # size and x, which neither sentence tells
    assert bit_equal(painter('a red circle', num=2, seed=2)['attributes'][0], drawn[0, :2])
    assert not bit_equal(painter('a red circle', num=6, seed=3)['attributes'][0], drawn[0])
    assert bit_equal(painter(attributes=['circle, red'], num=6, seed=2)['attributes'][0], drawn[0])


def test_label_sets_and_given_boxes():
    placer = toy(Placer)
    drawn = placer(labels=['circle, ring', ['square']], num=3)
    assert drawn['boxes'].shape == (2, 3, 5, 4) and drawn['object_labels'][0, 2].tolist() == [
        0,
        5,
        -1,
        -1,
        -1,
    ]
    one = dict(placer('a hoop and two red discs', num=3))
    assert bit_equal(one, jax.tree.map(lambda x: x[:1], drawn))
    given = dict(given_boxes=[[(0.5, 0.5, 0.2, 0.2)]], given_labels=[['cross']])
    completed = placer(labels=['circle, ring'], layout=given, num=2)
    assert (
        completed['object_labels'][0].tolist() == [[4, 4, 5, -1, -1]] * 2
        and (completed['boxes'][0, :, 0] == np.float32([0.5, 0.5, 0.2, 0.2])).all()
    )
    assert bit_equal(
        placer(layout={'object_labels': np.array([[5, 0, -1, -1, -1]])}, num=3)['boxes'],
        drawn['boxes'][:1],
    )


@pytest.mark.parametrize(
    'cls, keywords, words',
    [
        (
            Painter,
            dict(),
            ['Painter draws from attributes', '--attributes="circle, square"', '--text'],
        ),
        (Placer, dict(), ['Placer draws from labels', '--labels="circle, square"']),
        (Placer, dict(labels=[]), ['no label set']),
        (Placer, dict(attributes=['circle']), ['does not read attributes']),
        (Painter, dict(labels=['circle']), ['does not read labels']),
        (Painter, dict(sentences=['a circle'], attributes=['circle']), ['not both']),
        (Placer, dict(sentences=['a circle'], labels=['circle']), ['not both']),
        (Painter, dict(sentences=[]), ['at least one']),
        (Painter, dict(sentences=['?!']), ['names no attribute', 'circle']),
        (
            Painter,
            dict(attributes=['circle'] * 3, image={'mask': np.ones((2, 1))}),
            ['3 of attributes, 2 of mask'],
        ),
    ],
)
def test_conditions_that_are_missing_or_not_read(cls, keywords, words):
    with pytest.raises(DataError) as error:
        toy(cls)(**keywords)
    for word in words:
        assert word in str(error.value)


def test_a_system_with_words_reads_nothing_else(sampler, wordless):
    for keywords in (dict(labels=['circle']), dict(attributes=['circle'])):
        with pytest.raises(DataError, match='GanCls does not read'):
            sampler(SENTENCES, **keywords)
        with pytest.raises(DataError, match='Dcgan does not read'):
            Sampler.load(wordless)(**keywords)


def test_boxes_are_written_as_pictures_and_as_numbers(monkeypatch, tmp_path, capsys):
    placer = toy(Placer)
    monkeypatch.setattr(sample, 'Sampler', lambda stage: placer)
    assert (
        to_files(placer.stage, [], 2, 0, tmp_path, labels=['circle, ring', 'square']) == tmp_path
        and '2 x 2 layouts' in capsys.readouterr().out
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        '000_circle-ring.json',
        '000_circle-ring.png',
        '001_square.json',
        '001_square.png',
        'sheet.png',
    ]
    samples = placer(labels=['circle, ring', 'square'], num=2)
    written = json.loads((tmp_path / '000_circle-ring.json').read_text())
    assert [[one['label'] for one in layout] for layout in written] == [['circle', 'ring']] * 2
    box = [written[1][1][name] for name in ('cx', 'cy', 'w', 'h')]
    assert box == pytest.approx(samples['boxes'][0, 1, 1].tolist(), abs=1e-5)


class Captioner(Stage):
    """The mean of a picture as the id of a word, and noise as another."""

    draws_from, makes = ('image',), ('tokens',)

    def __init__(self, meta, *, rngs, **_):
        self.shift = nnx.Param(jnp.zeros(()))

    def noise(self, key, n):
        return {'z': normal_rows(key, n, ())}

    def sample(self, batch, noise):
        first = 2 + jnp.sign(batch['image'].mean((1, 2, 3)) + self.shift[...])
        second = 2 + jnp.sign(noise['z'])
        ids = jnp.stack([first, second, jnp.zeros_like(first)], 1)
        return {'tokens': ids.astype(jnp.int32)}


def test_sentences_are_written_as_words(monkeypatch, tmp_path, capsys):
    reader = sampler_of(Captioner(META, rngs=None), META, Vocabulary(['dark', 'grey', 'bright']))
    images = {'image': np.stack([np.full((4, 4, 3), x) for x in (-1, 0, 1)])}
    samples = reader(image=images, num=2)
    assert samples['tokens'].shape == (3, 2, 3)
    # as a stage without conditions, since the command line has no flag for pictures
    monkeypatch.setattr(Captioner, 'draws_from', ())
    monkeypatch.setattr(sample, 'Sampler', lambda stage: fixed(reader, samples))
    to_files(reader.stage, [], 2, 0, tmp_path)
    assert '3 x 2 sentences of stage toy' in capsys.readouterr().out
    written = [path.read_text().splitlines() for path in sorted(tmp_path.iterdir())]
    assert [[line.split()[0] for line in one] for one in written] == [
        ['dark'] * 2,
        ['grey'] * 2,
        ['bright'] * 2,
    ]
    for missing in ({}, dict(image=None)):
        monkeypatch.setattr(Captioner, 'draws_from', ('image',))
        with pytest.raises(DataError, match='Captioner draws from image: give --image="..."'):
            reader(**missing)


def fixed(sampler, samples):
    """A sampler that returns these samples."""
    stand_in = copy.copy(sampler)
    stand_in.__class__ = type('Fixed', (Sampler,), {'__call__': lambda self, *_, **__: samples})
    return stand_in


def test_attributes_in_numbers_are_written_by_their_names(monkeypatch, tmp_path):
    painter, shown = toy(Painter), []
    monkeypatch.setattr(sample, 'Sampler', lambda stage: painter)
    monkeypatch.setattr(
        sample.sheets,
        'sheet',
        lambda images, labels, *_, **__: shown.append((images.shape, labels)),
    )
    to_files(painter.stage, [], 2, 0, tmp_path, attributes=['1 ' + '0 ' * 20 + '.5'])
    assert shown == [((1, 2, 16, 16, 3), ['circle, bottom 0.5'])] and [
        p.name for p in tmp_path.iterdir()
    ] == ['000_circle-bottom-0-5.png']


@pytest.mark.parametrize(
    'cls, flag, shape',
    [(Painter, 'attributes', (8, 7, 16, 16, 3)), (Placer, 'labels', (8, 7, 128, 128, 3))],
)
def test_the_grid_of_a_training_run_shows_its_conditions(
    dense, tmp_path, monkeypatch, capsys, cls, flag, shape
):
    config, shown, sheet = dense(steps=1, sample_every=1), [], sheets.sheet
    monkeypatch.setitem(dcgan.STAGES, 'gan', cls)
    monkeypatch.setattr(
        sheets,
        'sheet',
        lambda rows, labels, path, **more: (
            shown.append((rows, labels, more['real'])),
            sheet(rows, labels, path, **more),
        )[1],
    )
    train(Run.create(config, tmp_path), jax.devices()[:1])
    rows, labels, real = shown[-1]
    assert (
        rows.shape == shape
        and real.shape == (8, *shape[2:])
        and (tmp_path / 'gan' / 'samples' / '00000001.png').exists()
    )
    assert all(
        set(label.split(', ')) <= set(SINGLE)
        and len(label.split(', ')) == (5 if flag == 'attributes' else 1)
        for label in labels
    )
    assert f'--mode=sample --{flag}="..."' in capsys.readouterr().out
    if flag == 'labels':  # of each scene the true boxes stand beside the drawn ones
        assert all(
            (one == drawing.colour_of(scenes.CLASSES.index(label))).all(-1).any()
            for one, label in zip(real, labels)
        )
    loaded = Sampler.load(tmp_path)
    assert (
        loaded.meta.attribute_names == SINGLE
        and loaded.meta.object_names == scenes.CLASSES
        and hash(loaded.meta)
    )


def test_what_the_data_lack_is_named_with_what_to_do(dense, tmp_path, monkeypatch):
    class Needy(Painter):
        needs, advice = (
            ('image', 'attributes', 'parts'),
            {'parts': 'Take birds, whose parts are known.'},
        )

    config = dense()
    monkeypatch.setitem(dcgan.STAGES, 'gan', Needy)
    lacks = "reads 'parts', which data set shape_scenes/single_quick.* does not hold "
    with pytest.raises(DataError, match=lacks + '.*Take birds, whose parts are known[.]'):
        train(Run.create(config, tmp_path), jax.devices()[:1])
    Needy.advice = {}
    with pytest.raises(DataError, match='Choose another --config.data.name'):
        train(Run.create(config, tmp_path), jax.devices()[:1])


def test_few_pictures_are_computed_in_few_rows_and_are_the_same(trained):
    wide = Sampler.load(trained, chunk=16)
    assert [wide.bucket(n) for n in (1, 2, 3, 5, 8, 9, 16, 17, 100)] == [
        1, 2, 4, 8, 8, 16, 16, 16, 16,
    ]  # fmt: skip
    many = louder(wide)(SENTENCES, num=5)['image'].astype(int)
    for num in (1, 2, 3):
        few = wide(SENTENCES[:1], num=num)['image'][0]
        assert np.abs(few - many[0, :num]).max() <= 1
    # 16, 1, 2 and 4 rows
    assert wide.compiled._cache_size() <= 4


def test_what_drawing_does_not_need_stays_on_the_disk(trained, tiny):
    sampler, (_, state) = Sampler.load(trained), restored(tiny(), trained, 'gan')
    assert 'D' not in sampler.params and 'D' in state.params and 'G' in sampler.params
    raw = Sampler.load(trained, averaged=False)
    assert bit_equal(raw.params['G'], state.params['G'])
    assert not bit_equal(raw.params['G'], sampler.params['G'])
