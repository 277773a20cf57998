"""Which records and captions make the batch of a step: a pure function of (seed, step).

Gathering the rows of a plan from a split's tables gives a batch (feed.py).
"""

import functools
import math

import numpy as np
from absl import logging

from t2i_jax.data.choices import SAMPLERS
from t2i_jax.data.tables import Split
from t2i_jax.data.text import readable
from t2i_jax.runtime.errors import DataError, choose
from tfds_builders.facts import entails

# records among which the one that is most like a row's own is taken, with near_wrong
NEAR = 8


def drawable_captions(split, needs) -> np.ndarray:
    """Which captions of each record can be drawn: bool (records, captions).

    Where words are read, those without any word that the run knows cannot; where characters are,
    those without any character of the alphabet but blanks.
    """
    counts = np.array([len(texts) for texts in split.texts])
    there = np.arange(max(1, counts.max(initial=0))) < counts[:, None]
    if reads(needs, 'tokens') and 'words' in split.tables:
        there &= split.tables['words'] > 0
    if reads(needs, 'chars') and 'chars' in split.tables:
        there &= readable(split.tables['chars'])
    return there


def reads(needs, key) -> bool:
    """Whether a batch key is among those that are needed, as it is or of wrong pairs."""
    return key in needs or f'wrong_{key}' in needs


def drawable_records(split, needs, sampler='uniform') -> np.ndarray:
    """The numbers of the records that can be drawn.

    All of them, but for stages that read sentences those with a caption (except where they read
    which records have one).
    """
    reads_text = {'tokens', 'chars', 'embedding'} & set(needs)
    if not reads_text or 'captioned' in needs or sampler == 'mixed':
        return np.arange(len(split))
    return np.flatnonzero(drawable_captions(split, needs).any(1))


def fitting(where, batch_size, sampler, count, classes, devices=1) -> int:
    """Return `batch_size`, or the largest smaller batch that can be drawn.

    where: the data, for errors. count: records that can be drawn. classes: how many there are.
    devices: they divide a batch. A smaller batch is a multiple of 8 where it can be, so that most
    numbers of devices give the same one, and else of 2, as some systems pair its rows.
    Raises DataError where not even two rows can be drawn.
    """
    # classes that are drawn at random may be drawn again
    most = {'class_balanced': batch_size, 'distinct_classes': classes, 'twins': 2 * count}
    most = most.get(sampler, count)
    if batch_size <= most or not count:
        # of no record at all the plan says why
        return batch_size
    for multiple in (math.lcm(8, devices), math.lcm(2, devices)):
        if multiple <= most:
            return most - most % multiple
    what = 'classes' if sampler == 'distinct_classes' else 'records that can be drawn'
    raise DataError(
        f'{where} has {most} {what}, too few for a batch of {multiple}. Take more data.'
    )


def check_plan(where, have, classes, count, batch_size, sampler, near_wrong):
    """Check what a plan needs, by what is known: before the data are read, or of its tables.

    where: the data, for errors. have: their features or tables. classes: how many there are.
    count: records that can be drawn. Raises DataError, and RunError for an unknown sampler.
    """
    choose('sampler', sampler, SAMPLERS)
    if near_wrong and 'scene' not in have:
        raise DataError(
            f'near_wrong={near_wrong} compares scenes, which {where} does not have. '
            'Set near_wrong=0.'
        )
    if sampler in ('class_balanced', 'distinct_classes'):
        if 'label' not in have:
            raise DataError(
                f'Sampler {sampler} needs classes, which {where} does not have. '
                'Use sampler=uniform.'
            )
        if sampler == 'distinct_classes' and batch_size > classes:
            raise DataError(
                f'A batch of {batch_size} distinct classes cannot be drawn: {where} has {classes}. '
                'Set batch_size to at most that.'
            )
    elif count < records_of(batch_size, sampler):
        raise DataError(
            f'{where} has {count} records that can be drawn, fewer than one batch of {batch_size}. '
            'Set a smaller batch_size, or take more data.'
        )
    if sampler == 'twins' and batch_size % 2:
        raise DataError(
            f'Sampler twins has each record twice in a batch, and {batch_size} is odd. '
            'Set an even batch_size.'
        )


def records_of(batch_size, sampler) -> int:
    """How many records the rows of a batch have."""
    return batch_size // 2 if sampler == 'twins' else batch_size


class Plan:
    """Which rows make the batch of a step: a pure function of (seed, step)."""

    def __init__(
        self,
        split: Split,
        batch_size,
        seed,
        needs,
        sampler='uniform',
        captions=1,
        captioned_share=0.5,
        near_wrong=0.0,
    ):
        """Find what can be drawn.

        needs: batch keys.
        sampler: 'uniform' (every record once an epoch, the incomplete last batch dropped),
          'class_balanced' (a random class, then a record of it), 'distinct_classes' (as that, no
          class twice in a batch), 'mixed' (`captioned_share` of the rows have captions) or 'twins'
          (as 'uniform', but rows i and i + batch_size / 2 are one record with two captions).
        captions: how many of a record's captions a row has.
        near_wrong: share of the rows whose wrong record is, of several that do not match, the one
          most like the right one (data with scenes): often a single word differs then.

        Raises DataError where no such batch can be made.
        """
        self.batch_size, self.seed, self.captions = batch_size, seed, captions
        self.sampler, self.share, self.near_wrong = sampler, captioned_share, near_wrong
        self.tables = {
            name: split.tables[name] for name in ('label', 'facts', 'scene') if name in split.tables
        }
        self.drawable = drawable_captions(split, needs)
        self.records = drawable_records(split, needs, sampler)
        self.counts, self.n = self.drawable.sum(1), len(self.records)
        self._report_left_out(split, 'character' if reads(needs, 'chars') else 'word')
        if sampler == 'mixed' and not self.counts.any():
            raise DataError(
                f'Sampler mixed needs records with captions, and split {split.split} of '
                f'{split.meta.name} has none. Take data with captions, or a larger '
                '--config.data.captioned_part.'
            )
        # where records without captions are drawn, too, nothing else is known of them either
        mixed = sampler == 'mixed' or 'captioned' in needs
        self.others = np.flatnonzero(self.counts) if mixed else self.records
        if 'label' in self.tables:
            self.order = self.others[np.argsort(self.tables['label'][self.others], kind='stable')]
            self.sorted = self.tables['label'][self.order]
        said = 'wrong_tokens', 'wrong_dialog'
        self.wrong_image = any(n.startswith('wrong_') and n not in said for n in needs)
        texts = 'wrong_tokens', 'wrong_chars', 'wrong_embedding'
        self.wrong_text = any(name in texts for name in needs)
        # of a right caption a dialogue of another scene
        self.wrong_dialog = 'wrong_dialog' in needs and not (self.wrong_image or self.wrong_text)
        classes = len(np.unique(self.sorted)) if 'label' in self.tables else 0
        where = f'{split.meta.name} (split {split.split})'
        check_plan(where, self.tables, classes, self.n, batch_size, sampler, near_wrong)
        if sampler in ('class_balanced', 'distinct_classes'):
            self.by_class = np.split(self.order, np.flatnonzero(np.diff(self.sorted)) + 1)
        if captions > 1 and not mixed and self.counts[self.records].min() < 1:
            raise DataError(
                'Some records have no caption; a system that reads several captions a row needs '
                'them on all.'
            )

    def _report_left_out(self, split, unit):
        """Warn of captions that cannot be read; raise DataError where no record has another.

        unit: in which captions are read, 'word' or 'character'.
        """
        without, left = sum(map(len, split.texts)) - int(self.counts.sum()), len(split) - self.n
        if not self.n and not any(split.texts):
            raise DataError(
                f'No record of split {split.split} of {split.meta.name} has a caption, and this '
                'stage learns from them: take data with captions, or a larger '
                '--config.data.captioned_part.'
            )
        if not self.n:
            raise DataError(
                f'No record of split {split.split} of {split.meta.name} has a caption with a '
                f'{unit} that the run knows. It reads the letters a to z and digits: write such '
                'captions.'
            )
        if without or left:
            logging.warning(
                '%d captions of split %s of %s have no %s that the run knows and are left out; '
                '%d of %d records have no other.',
                *(without, split.split, split.meta.name, unit, left, len(split)),
            )

    @property
    def steps_per_epoch(self):
        return max(1, self.n // records_of(self.batch_size, self.sampler))

    def __call__(self, step):
        """Return the rows of a step, int32: 'index' b, 'caption' b n.

        Where they are needed also 'wrong' b, 'wrong_caption' b n: records that certainly do not
        match, and captions of them.
        """
        rng = np.random.default_rng((self.seed, step, 1))
        index = self._records(step, rng)
        if self.sampler == 'twins':
            # each half of a record's captions goes to one of its rows
            caption = np.concatenate(np.hsplit(self._captions(index, rng, 2 * self.captions), 2))
            plan = {'index': np.tile(index, 2), 'caption': caption}
        else:
            plan = {'index': index, 'caption': self._captions(index, rng, self.captions)}
        if self.wrong_image or self.wrong_text or self.wrong_dialog:
            plan |= self._wrong(plan, rng)
        return {name: value.astype(np.int32) for name, value in plan.items()}

    def _records(self, step, rng):
        b = records_of(self.batch_size, self.sampler)
        if self.sampler in ('uniform', 'twins'):
            epoch, place = divmod(step, self.steps_per_epoch)
            return self.records[_shuffled(self.n, self.seed, epoch)[place * b : (place + 1) * b]]
        if self.sampler == 'mixed':
            captioned = np.arange(b) < round(b * self.share)
            have, lack = np.flatnonzero(self.counts > 0), np.flatnonzero(self.counts == 0)
            lack = lack if len(lack) else have
            return np.where(captioned, rng.choice(have, b), rng.choice(lack, b))
        replace = self.sampler == 'class_balanced'
        classes = rng.choice(len(self.by_class), b, replace=replace)
        return np.array([rng.choice(self.by_class[c]) for c in classes])

    def _captions(self, index, rng, number):
        """Draw `number` captions of each record, without replacement where there are enough.

        The first of a record that has none.
        """
        # those that cannot be drawn come last
        order = rng.random((len(index), self.drawable.shape[1])) + ~self.drawable[index]
        place = np.arange(number) % np.maximum(self.counts[index], 1)[:, None]
        chosen = np.take_along_axis(order.argsort(1), place, 1)
        return np.where(self.counts[index][:, None] > 0, chosen, 0)

    def _wrong(self, plan, rng, rounds=200):
        index, own = plan['index'], plan['caption']
        if 'facts' not in self.tables:
            wrong = self._of_another_class(index, rng)
            return {'wrong': wrong, 'wrong_caption': self._captions(wrong, rng, self.captions)}
        wrong, caption = np.zeros_like(index), np.zeros_like(own)
        open_rows = np.ones(len(wrong), bool)
        for _ in range(rounds):
            rows = np.flatnonzero(open_rows)
            if not len(rows):
                return {'wrong': wrong, 'wrong_caption': caption}
            wrong[rows] = self._candidates(index[rows], own[rows], rng)
            caption[rows] = self._captions(wrong[rows], rng, self.captions)
            match = self._matches(index[rows], own[rows], wrong[rows], caption[rows])
            # without a caption nothing can match
            open_rows[rows] = match & (self.counts[index[rows]] > 0)
        raise DataError(
            'No record that certainly does not match was found for some captions: the data set is '
            'too small or all alike.'
        )

    def _of_another_class(self, index, rng):
        """Draw a record of another class for each, all with the same chance.

        Without classes any other record.
        """
        if 'label' in self.tables:
            ordered = self.order
            labels = self.tables['label'][index]
            first, last = (np.searchsorted(self.sorted, labels, s) for s in ('left', 'right'))
        else:
            ordered = self.others
            first, last = (np.searchsorted(ordered, index, side) for side in ('left', 'right'))
        others = len(ordered) - (last - first)
        if (others < 1).any():
            raise DataError(
                'No record that certainly does not match was found: all records are of one class. '
                'Use data with several classes, or without any.'
            )
        drawn = rng.integers(0, others)
        return ordered[np.where(drawn < first, drawn, drawn + last - first)]

    def _candidates(self, index, caption, rng):
        """Draw a random record for each row.

        For a share `near_wrong` of the rows it is, of NEAR records, the one that is most like the
        row's own and yet wrong.
        """
        shape = len(index), NEAR if self.near_wrong else 1
        drawn = self.others[rng.integers(0, len(self.others), shape)]
        if not self.near_wrong:
            return drawn[:, 0]
        scene = self.tables['scene']
        # class, colour, size of each object
        own, others = scene[index][:, None, :-1, :3], scene[drawn][:, :, :-1, :3]
        alike = ((own == others) & (own >= 0)).sum((2, 3))
        if self.wrong_dialog:
            false = (own != others).any((2, 3))
        else:
            said = self.tables['facts'][index[:, None], caption][:, None]
            false = ~entails(said, scene[drawn][:, :, None]).all(2)
        near = np.take_along_axis(drawn, np.where(false, alike, -1).argmax(1)[:, None], 1)[:, 0]
        return np.where(rng.random(len(index)) < self.near_wrong, near, drawn[:, 0])

    def _matches(self, index, caption, wrong, wrong_caption):
        """Whether, by its facts, each wrong record might match after all."""
        facts, scene = self.tables['facts'], self.tables['scene']
        match = np.zeros(len(index), bool)
        if self.wrong_dialog:
            # class, colour and size of all objects
            match |= (scene[index][:, :-1, :3] == scene[wrong][:, :-1, :3]).all((1, 2))
        if self.wrong_image:
            # of several captions one that is false suffices
            match |= entails(facts[index[:, None], caption], scene[wrong][:, None]).all(1)
        if self.wrong_text:
            match |= entails(facts[wrong[:, None], wrong_caption], scene[index][:, None]).all(1)
        return match


@functools.lru_cache(maxsize=4)
def _shuffled(n, seed, epoch):
    return np.random.default_rng((seed, epoch, 0)).permutation(n)
