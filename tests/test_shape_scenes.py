"""The procedural data set.

Determinism, truth of captions and dialogues, splits, masks, exports, the builder.
"""

import hashlib
import itertools

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_builders import facts, get_builder
from tfds_builders.shape_scenes import builder as shapes_builder
from tfds_builders.shape_scenes import (
    captions,
    export,
    phrases,
    questions,
    records,
    render,
    scenes,
)
from tfds_builders.shape_scenes.dialog import MAX_YES_NO, known_from, total_facts
from tfds_builders.shape_scenes.sample import make
from tfds_builders.shape_scenes.scenes import CLASS, COLOUR, CX, CY, Draws, H, W

ALPHABET = set(
    'abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:\'"/\\|_@#$%^&*~`+ =<>()[]{}\n'
)  # of the char-CNN-RNN


@pytest.fixture(scope='module')
def samples():
    """{(mode, split): [400 samples at 32 px]} of train and test_unseen."""
    return {
        (mode, split): [make(mode, split, i, 32) for i in range(400)]
        for mode in scenes.MODES
        for split in ('train', 'test_unseen')
    }


def everything(samples):
    return itertools.chain.from_iterable(samples.values())


def atoms_of(table):
    return [tuple(atom) for atom in table.tolist() if atom[0] >= 0]


def digest(found, *keys):
    total = hashlib.sha256()
    for one in found:
        for key in keys:
            total.update(
                one[key].tobytes() if isinstance(one[key], np.ndarray) else repr(one[key]).encode()
            )
    return total.hexdigest()[:16]


GOLDEN = {
    'single': ('c8414ed66c67aaec', '555fe4ce1ade8c19'),
    'multi': ('3e81d04f49a819f0', '9c4f787385cb4f83'),
}


@pytest.mark.parametrize('mode', scenes.MODES)
def test_samples_are_what_they_always_were(mode):
    found = [make(mode, 'train', i, 64) for i in range(10)]
    assert (
        digest(found, 'scene', 'captions', 'facts', 'questions', 'answers'),
        digest(found, 'image'),
    ) == GOLDEN[mode]


def test_a_sample_does_not_depend_on_what_was_drawn_before(samples):
    alone, size = make('multi', 'train', 7, 32), 64
    for key in ('image', 'scene', 'facts', 'masks', 'seg', 'boxes', 'layout', 'attributes'):
        np.testing.assert_array_equal(alone[key], samples['multi', 'train'][7][key])
    np.testing.assert_array_equal(
        make('multi', 'train', 7, size)['scene'], alone['scene']
    )  # the same scene at every size
    assert make('multi', 'train', 7, size)['captions'] == alone['captions']
    assert not np.array_equal(make('multi', 'train', 7, 32, seed=1)['scene'], alone['scene'])


def test_worker_processes_make_the_records_that_this_process_makes():
    arguments = {'count': 11, 'mode': 'multi', 'split': 'validation', 'size': 32}
    here, there = (
        records.records(workers=0, **arguments),
        records.records(workers=2, chunk=4, **arguments),
    )
    for (i, one), (j, other) in zip(here, there, strict=True):
        assert i == j and one.keys() == other.keys()
        for key in one:
            np.testing.assert_equal(one[key], other[key])


def test_a_worker_that_dies_is_reported():
    with pytest.raises(RuntimeError, match='worker'):
        list(records.records(5, workers=1, mode='multi', split='nowhere', size=32))


# Facts


def scene_of(*rows, background=0):
    """A table of objects (class, colour, size, cx, cy, side) with fractions for lengths."""
    scene = np.full((scenes.MAX_OBJECTS + 1, scenes.COLUMNS), -1, np.int32)
    for depth, (shape, colour, size, *lengths) in enumerate(rows):
        cx, cy, side = (round(length * scenes.UNIT) for length in lengths)
        scene[depth] = shape, colour, size, cx, cy, side, side, depth
    scene[-1, 0] = background
    return scene


def test_facts_of_a_scene_made_by_hand():
    # A large red circle, two small blue squares.
    scene = scene_of(
        (0, 0, 2, 0.25, 0.3, 0.4), (1, 2, 0, 0.75, 0.25, 0.2), (1, 2, 0, 0.75, 0.8, 0.2)
    )
    circle, square = facts.pack(0), facts.pack(1, 2)
    places = facts.PLACES
    cases = {
        (facts.EXISTS, 0, 0, -1, -1, -1): True,
        (facts.EXISTS, 0, 2, -1, -1, -1): False,
        (facts.EXISTS, 1, 2, 0, 2, -1): True,
        (facts.EXISTS, 1, -1, -1, 1, -1): False,
        (facts.EXISTS, -1, 1, -1, 0, -1): True,
        (facts.EXISTS, -1, 0, -1, 0, -1): False,
        (facts.COUNT, -1, -1, -1, 3, -1): True,
        (facts.COUNT, -1, -1, -1, 2, -1): False,
        (facts.PLACE, 0, -1, -1, -1, places['left']): True,
        (facts.PLACE, 0, -1, -1, -1, places['right']): False,
        (facts.PLACE, 1, -1, -1, -1, places['bottom right']): True,
        (facts.PLACE, 1, -1, -1, -1, places['corner']): True,
        (facts.PLACE, -1, -1, -1, 0, places['centre']): True,
        (facts.PLACE, 1, -1, -1, 2, places['right']): True,
        (facts.RELATION, 0, -1, -1, facts.LEFT, square): True,
        (facts.RELATION, 0, -1, -1, facts.RIGHT, square): False,
        (facts.RELATION, 1, 2, 0, facts.RIGHT, circle): True,
        (facts.RELATION, 1, -1, -1, facts.ABOVE, square): True,
        (facts.RELATION, 0, -1, -1, facts.LEFT, circle): False,
        (facts.NO_RELATION, 0, -1, -1, facts.BELOW, square): True,
        (facts.NO_RELATION, 0, -1, -1, facts.LEFT, square): False,
        (facts.BACKGROUND, -1, -1, -1, 0, -1): True,
        (facts.BACKGROUND, -1, -1, -1, 3, -1): False,
    }
    for atom, true in cases.items():
        assert facts.entails(facts.table([atom]), scene) == true, atom
    assert facts.entails(facts.table([]), scene)  # a caption that says nothing is true


def test_unknown_attributes_of_a_decoded_scene_satisfy_no_description():
    scene = scene_of((-1, 0, 1, 0.5, 0.5, 0.3))
    says = [
        (facts.EXISTS, -1, 0, -1, -1, -1),
        (facts.EXISTS, 0, 0, -1, -1, -1),
        (facts.COUNT, -1, -1, -1, 1, -1),
    ]
    assert facts.holds(facts.table(says), scene)[:3].tolist() == [True, False, True]


def test_numpy_and_jax_agree_on_every_pair_of_a_batch(samples):
    jnp = pytest.importorskip('jax.numpy')
    for mode in scenes.MODES:
        chosen = samples[mode, 'train'][:48]
        said, drawn = (
            np.stack([one['facts'][0] for one in chosen])[:, None],
            np.stack([one['scene'] for one in chosen])[None],
        )
        table = facts.entails(said, drawn)
        assert table.shape == (48, 48) and table.diagonal().all() and table.mean() < 0.5
        np.testing.assert_array_equal(
            table, facts.entails(jnp.asarray(said), jnp.asarray(drawn), jnp)
        )


# Captions


def test_every_atom_of_every_caption_is_true(samples):
    checked = 0
    for one in everything(samples):
        assert facts.entails(one['facts'], one['scene']).all(), (one['captions'], one['scene'])
        checked += (one['facts'][..., 0] >= 0).sum()
    assert checked > 10_000


def test_wrong_captions_are_false(samples):
    for (mode, split), chosen in samples.items():
        for i, one in enumerate(chosen[:100]):
            draws = Draws(1, mode, split, i)
            for hard in (False, True):
                text, table = captions.sample_wrong(
                    one['scene'], mode, draws, one['facts'][i % len(one['facts'])], hard, split
                )
                assert (
                    not facts.entails(table, one['scene'])
                    and len(phrases.words(text)) <= captions.MAX_TOKENS
                )
                if split == 'train':
                    assert not captions._names_held_out(atoms_of(table))


def test_captions_are_short_different_and_of_a_closed_vocabulary(samples):
    vocabulary, used, lengths = (
        set(phrases.vocabulary()),
        set(),
        {mode: [] for mode in scenes.MODES},
    )
    for (mode, _), chosen in samples.items():
        for one in chosen:
            assert len(set(one['captions'])) == len(one['captions']) == captions.CAPTIONS[mode]
            for text in one['captions']:
                used |= set(phrases.words(text))
                lengths[mode].append(len(phrases.words(text)))
                assert (
                    len(text) <= captions.MAX_CHARACTERS
                    and set(text) <= ALPHABET
                    and text == text.lower()
                )
    assert used <= vocabulary and 100 <= len(vocabulary) <= 140
    assert max(map(max, lengths.values())) <= captions.MAX_TOKENS
    assert 7 < np.mean(lengths['single']) < 14 and 9 < np.mean(lengths['multi']) < 14


def test_most_captions_of_single_name_colour_and_class(samples):
    said = np.stack([one['facts'][:, 0] for one in samples['single', 'train']])
    assert 0.7 <= ((said[..., 1] >= 0) & (said[..., 2] >= 0)).mean() <= 0.9


def test_backgrounds_and_negations_are_said_on_request():
    found = [make('multi', 'train', i, 32, caption_bg=True, negations=True) for i in range(60)]
    kinds = np.concatenate([one['facts'][..., 0].ravel() for one in found])
    assert (kinds == facts.BACKGROUND).any() and all(
        facts.entails(one['facts'], one['scene']).all() for one in found
    )
    assert all(
        set(phrases.words(text)) <= set(phrases.vocabulary())
        for one in found
        for text in one['captions']
    )
    usual = np.concatenate(
        [make('multi', 'train', i, 32)['facts'][..., 0].ravel() for i in range(60)]
    )
    assert not (usual == facts.BACKGROUND).any()


# Splits


def test_held_out_pairs_occur_in_test_unseen_only(samples):
    assert len(scenes.HELD_OUT) == 12
    for mode in scenes.MODES:
        for split in ('train', 'validation', 'test'):
            pairs = [
                tuple(row[:2])
                for i in range(300)
                for row in scenes.objects_of(scenes.sample(mode, split, i))
            ]
            assert scenes.HELD_OUT.isdisjoint(pairs)
            assert {pair[0] for pair in pairs} == set(range(6)) and {
                pair[1] for pair in pairs
            } == set(range(7))
        for one in samples[mode, 'test_unseen']:
            assert not scenes.HELD_OUT.isdisjoint(
                tuple(row[:2]) for row in scenes.objects_of(one['scene'])
            )
            assert all(captions._names_held_out(atoms_of(table)) for table in one['facts'])


def test_splits_share_no_scene(samples):
    for mode in scenes.MODES:
        keys = {
            split: {scenes.scene_key(scenes.sample(mode, split, i), mode) for i in range(500)}
            for split in scenes.SPLITS
        }
        assert all(keys[a].isdisjoint(keys[b]) for a, b in itertools.combinations(scenes.SPLITS, 2))


# Pictures


@pytest.mark.parametrize(
    ('mode', 'overlap'), [('single', 'none'), ('multi', 'none'), ('multi', 'mild')]
)
def test_boxes_are_tight_and_masks_agree_at_two_sizes(mode, overlap):
    for i in range(60):
        scene = scenes.sample(mode, 'train', i, overlap=overlap)
        fine, coarse = render.masks(scene, 128), render.masks(scene, 64)
        for row, mask, small in zip(scenes.objects_of(scene), fine, coarse, strict=False):
            ys, xs = np.nonzero(mask)
            corners = (
                np.array(
                    [
                        row[CX] - row[W] / 2,
                        row[CX] + row[W] / 2,
                        row[CY] - row[H] / 2,
                        row[CY] + row[H] / 2,
                    ]
                )
                / scenes.UNIT
                * 128
            )
            found = [xs.min(), xs.max() + 1, ys.min(), ys.max() + 1]
            np.testing.assert_allclose(found, corners, atol=1.5)  # a tip is thinner than a pixel
            pooled = mask.reshape(64, 2, 64, 2).mean((1, 3))
            pooled = (pooled > 0.5) | (
                (pooled == 0.5) & small
            )  # half covered pixels may go either way
            assert (pooled & small).sum() / (pooled | small).sum() >= 0.95
        gaps = [
            max(abs(a[CX] - b[CX]) - (a[W] + b[W]) / 2, abs(a[CY] - b[CY]) - (a[H] + b[H]) / 2)
            / scenes.UNIT
            for a, b in itertools.combinations(scenes.objects_of(scene), 2)
        ]
        assert overlap == 'mild' or all(gap >= scenes.GAP for gap in gaps)


def test_segmentation_masks_and_layout_tell_the_same():
    for i in range(40):
        one = make('multi', 'train', i, 64, overlap='mild')
        np.testing.assert_array_equal(one['mask'], one['masks'].any(0))
        covered = np.zeros((64, 64), bool)
        for k in reversed(range(scenes.MAX_OBJECTS)):  # the last one painted lies on top
            np.testing.assert_array_equal(one['seg'] == k + 1, one['masks'][k] & ~covered)
            covered |= one['masks'][k]
        np.testing.assert_array_equal(one['layout'].sum(-1) > 0, one['mask'])
        n = len(scenes.objects_of(one['scene']))
        assert (one['boxes'][n:] == -1).all() and (np.diff(one['boxes'][:n, 2]) <= 0).all()
        assert (one['visible_boxes'][:n, 2:] <= one['boxes'][:n, 2:] + 1 / 64).all()
        rgb = np.array(scenes.RGB)[one['scene'][:n, COLOUR]]
        inside = [
            one['image'][cv2.erode((one['seg'] == k + 1).astype(np.uint8), np.ones((3, 3))) > 0]
            for k in range(n)
        ]
        assert all((pixels == colour).all() for pixels, colour in zip(inside, rgb, strict=True))


def test_attributes(samples):
    for mode in scenes.MODES:
        names = scenes.attribute_names(mode)
        for one in samples[mode, 'train'][:50]:
            on = {name for name, value in zip(names, one['attributes'], strict=True) if value}
            if mode == 'single':
                assert len(on) == 5 and set(one['class_name'].split()) <= on
            else:
                rows = scenes.objects_of(one['scene'])
                assert {scenes.CLASS_IDS[row[CLASS] * 7 + row[COLOUR]] for row in rows} <= on
                assert one['attributes'][42:].sum() == pytest.approx(len(rows) / 5)


# Dialogues


def test_dialogues_are_true_unambiguous_and_never_repeat(samples):
    words = set(questions.vocabulary())
    for chosen in samples.values():
        shares = []
        for one in chosen:
            rows, rounds = scenes.objects_of(one['scene']), one['dialog']
            assert len(rounds) == 10
            assert facts.entails(facts.table([turn.fact for turn in rounds], 10), one['scene'])
            assert len({turn.fact for turn in rounds}) == 10
            assert sum(turn.answer.split(',')[0] in ('yes', 'no') for turn in rounds) <= MAX_YES_NO
            known = known_from(rows, atoms_of(one['facts'][0]))
            for turn in rounds:
                assert (
                    '?' not in turn.question
                    and set(phrases.words(f'{turn.question} {turn.answer}')) <= words
                )
                if turn.reference:  # what the question names is one object
                    *named, place = turn.reference
                    assert (
                        sum(
                            place in (-1, questions.region(row))
                            for row in captions.matching(rows, *named)
                        )
                        == 1
                    )
                assert known <= turn.revealed
                if turn.type in ('attribute', 'count_all', 'count_other', 'background'):
                    assert known < turn.revealed, turn  # never asked when it is known
                known = turn.revealed
            if len(rows) <= 3:
                shares.append(len(known) / total_facts(one['scene']))
        assert np.mean(shares) >= 0.9


# Files


def test_exports_in_the_formats_of_coco_and_visdial_are_read_back(tmp_path):
    for segmentation, least in (('rle', 1.0), ('polygon', 0.9)):
        folder = tmp_path / segmentation
        written = export.export(folder, count=12, segmentation=segmentation)
        for one, other in zip(written, export.read_coco(folder), strict=True):
            n = len(other['boxes'])
            np.testing.assert_array_equal(one['image'], other['image'])
            np.testing.assert_array_equal(one['boxes'][:n], other['boxes'])
            np.testing.assert_array_equal(
                one['object_labels'], [*other['object_labels'], *[-1] * (5 - n)]
            )
            assert one['captions'] == other['captions']
            both, either = (
                (one['masks'][:n] & other['masks']).sum((1, 2)),
                (one['masks'][:n] | other['masks']).sum((1, 2)),
            )
            assert (both / either).min() >= least
        for one, other in zip(
            written, export.read_visdial(folder / 'visdial_1.0_train.json'), strict=True
        ):
            assert (one['captions'][0], one['questions'], one['answers']) == (
                other['caption'],
                other['questions'],
                other['answers'],
            )
            assert all(len(set(options)) == 100 for options in other['options'])


def test_the_builder_writes_and_reads_every_field(tmp_path, monkeypatch):
    counts = {'train': 12, 'validation': 3, 'test': 3, 'test_unseen': 3}
    config = shapes_builder.ShapeScenesConfig(name='tiny', mode='multi', size=32, counts=counts)
    # first: TFDS computes it once from the other, and what it had is put back
    monkeypatch.setattr(shapes_builder.ShapeScenes, 'builder_configs', {'tiny': config})
    monkeypatch.setattr(shapes_builder.ShapeScenes, 'BUILDER_CONFIGS', [config])
    builder = get_builder('shape_scenes/tiny', data_dir=tmp_path)
    builder.download_and_prepare()
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == counts
    metadata = builder.info.metadata
    assert (
        metadata['captions_per_image'] == metadata['max_objects'] == 5 and metadata['flip'] is False
    )
    assert len(metadata['attributes']) == 48
    skip = tfds.decode.SkipDecoding()
    found = {
        one['file_name'].decode(): one
        for one in builder.as_data_source(
            'train', decoders={'image': skip, 'mask': skip, 'object_masks': skip}
        )
    }
    for i in range(12):
        one, wanted = found[f'train_{i:06d}.png'], make('multi', 'train', i, 32)
        n = len(scenes.objects_of(wanted['scene']))
        np.testing.assert_array_equal(
            cv2.imdecode(np.frombuffer(one['image'], np.uint8), cv2.IMREAD_COLOR)[..., ::-1],
            wanted['image'],
        )
        np.testing.assert_array_equal(
            cv2.imdecode(np.frombuffer(one['mask'], np.uint8), cv2.IMREAD_GRAYSCALE) > 0,
            wanted['mask'],
        )
        masks = cv2.imdecode(np.frombuffer(one['object_masks'], np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(
            masks.reshape(5, 64, 64), render.masks(wanted['scene'], 64) * np.uint8(255)
        )
        for key in ('scene', 'facts', 'attributes'):
            np.testing.assert_array_equal(one[key], wanted[key])
        ymin, xmin, ymax, xmax = np.array(one['objects']['bbox']).T
        boxes = np.stack([(xmin + xmax) / 2, (ymin + ymax) / 2, xmax - xmin, ymax - ymin], 1)
        np.testing.assert_allclose(boxes, wanted['boxes'][:n], atol=1e-6)
        np.testing.assert_array_equal(one['objects']['label'], wanted['object_labels'][:n])
        np.testing.assert_array_equal(one['bbox'], one['objects']['bbox'][0])
        assert (
            one['label'] == wanted['class_id']
            and one['class_name'].decode() == wanted['class_name']
        )
        assert [text.decode() for text in one['captions']] == wanted['captions']
        assert [text.decode() for text in one['dialog']['questions']] == wanted['questions']
        assert [text.decode() for text in one['dialog']['answers']] == wanted['answers']


def test_the_configs_that_exist():
    configs = {config.name: config for config in shapes_builder.ShapeScenes.BUILDER_CONFIGS}
    assert configs['multi'].counts == {
        'train': 20_000,
        'validation': 1_000,
        'test': 2_000,
        'test_unseen': 2_000,
    }
    assert (configs['single_quick'].size, configs['single_quick'].counts['train']) == (32, 12_000)
    assert {f'{mode}_{size}' for mode in scenes.MODES for size in (32, 128, 256)} <= set(configs)
