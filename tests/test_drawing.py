"""Boxes as pictures: where they are, in the colour of their label, with names that can be read."""

import numpy as np
import pytest
from helpers import bit_equal

from t2i_jax.draw import boxes as drawing
from t2i_jax.draw import sheets
from tfds_builders.coco2014_captions.categories import CATEGORIES


def near(picture, colour, tolerance=12):
    return (np.abs(picture.astype(int) - colour) <= tolerance).all(-1)


def test_boxes_are_drawn_where_they_are():
    boxes, labels = (
        np.array(
            [
                [[0.5, 0.6, 0.5, 0.4], [0.1, 0.1, 0.1, 0.1]],
                [[0.25, 0.25, 0.2, 0.2], [0.5, 0.5, 1, 1]],
            ]
        ),
        np.array([[1, -1], [0, -1]]),
    )
    pictures = drawing.layout_pictures(boxes, labels, ('', ''), side=100)
    assert pictures.shape == (2, 100, 100, 3) and pictures.dtype == np.uint8
    rows, columns = np.nonzero(near(pictures[0], drawing.colour_of(1), 0))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (40, 80, 25, 75)
    assert (
        near(pictures[0], drawing.PAPER, 0)[:40].all()
        and not near(pictures[0], drawing.PAPER, 0)[45:75, 30:70].any()
    )
    assert (
        near(pictures[1], drawing.colour_of(0), 0).any()
        and not near(pictures[1], drawing.colour_of(1)).any()
    )
    assert bit_equal(drawing.layout_pictures(boxes[0], labels[0], ('', ''), 100), pictures[0])
    empty = drawing.layout_pictures(boxes[0], np.array([-1, -1]), ())
    assert empty.shape == (128, 128, 3) and near(empty, drawing.PAPER, 0).all()


def test_thin_boxes_and_boxes_at_the_border_are_seen():
    boxes = np.array(
        [
            [0.5, 0.5, 0.9, 0.001],
            [0.5, 0.5, 0.001, 0.9],
            [0.999, 0.999, 0.002, 0.002],
            [1.4, 0.5, 0.2, 0.2],
            [np.nan] * 4,
        ]
    )
    picture = drawing.layout_pictures(boxes, np.arange(5), [''] * 5)
    for label, least in ((0, 200), (1, 200), (2, 4), (3, 1)):
        assert near(picture, drawing.colour_of(label)).sum() >= least


def test_names_are_written_in_the_colour_of_their_label_and_not_over_each_other():
    boxes = np.array([[0.3, 0.3, 0.2, 0.2], [0.3, 0.32, 0.2, 0.2], [0.7, 0.7, 0.3, 0.3]])
    named, bare = (
        drawing.layout_pictures(boxes, np.array([0, 0, 1]), names)
        for names in (('person', 'dog'), ('', ''))
    )
    changed = (named != bare).any(-1)
    for label, others in ((0, changed[:64]), (1, changed[64:])):
        assert (
            others.sum() > 40 and (near(named, drawing.colour_of(label), 60) & changed).sum() > 20
        )
    taken = []
    for box in ([10, 60, 30, 80], [12, 60, 32, 80], [100, 2, 126, 20], [0, 0, 127, 127]):
        (x, y), free = drawing.name_place(box, 30, 10, taken, [], 128)
        assert free and 0 <= x <= 98 and 0 <= y <= 118
        taken.append((x, y, x + 30, y + 10))


def test_every_label_has_a_colour_of_its_own():
    colours = np.array([drawing.colour_of(label) for label in range(80)])
    assert len(np.unique(colours, axis=0)) == 80
    assert (colours @ [0.3, 0.6, 0.1]).max() < 150  # letters of it can be read on white
    apart = np.abs(colours[:12, None] - colours[None, :12]).sum(-1) + 999 * np.eye(12)
    assert apart.min() > 80


@pytest.mark.parametrize('text', ['\u00e9\u00f1', '\u03b1\u03b2', '\u0436\u0434'])
def test_letters_of_other_alphabets_are_drawn(text):
    """A letter that a font lacks is drawn as the same box as any other one."""
    letters = sheets.font(16, text)
    first, second, lacking = (bytes(letters.getmask(one)) for one in (*text, '\U0010fffd'))
    assert len({first, second, lacking}) == 3
    words = [f'a {text}', 'a bird']
    drawn = sheets.sheet(np.zeros((2, 1, 8, 8, 3), np.uint8), words, title=text)
    assert (drawn < 100).any()


def test_objects_as_records():
    told = drawing.objects_of(
        np.array([[0.5, 0.25, 0.125, 0.1], [0, 0, 0, 0]]),
        np.array([16, -1]),
        tuple(CATEGORIES.values()),
    )
    assert told == [{'label': 'dog', 'cx': 0.5, 'cy': 0.25, 'w': 0.125, 'h': 0.1}]
