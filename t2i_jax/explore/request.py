"""Requests and results of explorations, and the conditions that they start from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from t2i_jax.data import plan
from t2i_jax.data.feed import Rows
from t2i_jax.runtime.errors import DataError
from t2i_jax.sample import Sampler

# sentences, or a batch of encoded ones
Sentences = Sequence[str] | dict


class Request(NamedTuple):
    """One exploration of one stage.

    sampler: of the stage.
    what: the exploration.
    num: how many held-out sentences or pictures; of given sentences, samples of each.
    seed: of the noise.
    texts: given sentences.
    images: given files of pictures.
    attributes: of the given picture, as `parse.read_attributes` takes them.
    layouts, dialogs: given files of layouts and of dialogues.
    """

    sampler: Sampler
    what: str
    num: int = 8
    seed: int = 0
    texts: Sequence[str] = ()
    images: Sequence[Any] = ()
    attributes: Any = ()
    layouts: Sequence[Any] = ()
    dialogs: Sequence[Any] = ()

    @property
    def method(self) -> str:
        """The method of the stage with which it declares this exploration."""
        return self.sampler.module.explores[self.what]


class Found(NamedTuple):
    """The result of an exploration.

    pictures: uint8 (n, k, s, s, 3), the rows of the sheet.
    labels: one text a row, '' for none.
    numbers: for the JSON file.
    real: uint8 (n, s, s, 3), pictures of the data in front of the rows.
    frames: uint8 (t, n, s, s, 3), a film.
    """

    pictures: np.ndarray
    labels: Sequence[str]
    numbers: dict = {}
    real: np.ndarray | None = None
    frames: np.ndarray | None = None


def take(tree, rows):
    """Return these rows (numbers or a slice) of every array of a tree."""
    return jax.tree.map(lambda x: np.asarray(x)[rows], tree)


def held_out(sampler, count, needs=()) -> Rows:
    """Choose `count` records of the held-out split, spread over it, with one caption each.

    needs: batch keys besides those of the stage; pictures are read only where they are named here.
    Raises DataError where no caption has a word that the run knows.
    """
    own = [n for n in sampler.module.needs if not n.startswith('wrong_')]
    # records without captions are for training alone
    own = [n for n in own if n not in ('image', 'captioned')]
    needs = tuple(dict.fromkeys([*needs, *own]))
    split = sampler.stage.split(sampler.stage.data['validation_split'], needs, 'none')
    usable = plan.drawable_records(split, needs)
    if not len(usable):
        raise DataError(
            f'No record of split {split.split} has a caption with a word that the run knows: '
            'give sentences, --text="...".'
        )
    rows = usable[np.linspace(0, len(usable) - 1, count).astype(np.int64)]
    caption = plan.drawable_captions(split, needs)[rows].argmax(1)
    return Rows(split, rows, np.repeat(caption[:, None], sampler.meta.captions, 1))


def sentences_of(request, count):
    """Encode the given sentences, or captions of `count` held-out records.

    Returns (a batch with `encoded`, as Sampler.sample takes it, and the texts).
    """
    sampler = request.sampler
    if request.texts:
        return {'encoded': sampler.encode(request.texts)}, list(request.texts)
    rows = held_out(sampler, count)
    texts = [text or f'record {row}' for row, text in zip(rows.rows, rows.texts)]
    return {'encoded': sampler.encode(rows.batch())}, texts
