"""VisDial's dialogues about the pictures of COCO, versions 0.9 and 1.0.

Both have the same layout in differently divided files.
"""

import numpy as np

from tfds_builders.coco2014_captions.annotations import lists, load
from tfds_builders.errors import DataError, quoted

# questions with an answer
ROUNDS = 10


class Dialogs:
    """The dialogues of some files, by image id, as numbers of sentences until they are used."""

    def __init__(self, paths):
        """Read files: .json, or .zip archives of one of the same name.

        Raises DataError for other layouts.
        """
        self._rounds = {}
        for path in paths:
            questions, answers, dialogs = read(path)
            self._rounds |= {
                image_id: (rounds, questions, answers)
                for image_id, rounds in dialogs.items()
                if image_id not in self._rounds
            }

    def __contains__(self, image_id):
        return image_id in self._rounds

    def __iter__(self):
        return iter(self._rounds)

    def problem(self, image_id):
        """Return why the dialogue of an image cannot be used, or None."""
        rounds, questions, answers = self._rounds[image_id]
        if len(rounds) != ROUNDS:
            return f'dialogue has {len(rounds)} rounds instead of {ROUNDS}'
        if (rounds < 0).any() or (rounds >= (len(questions), len(answers))).any():
            return 'dialogue names a question or an answer that the file does not hold'
        return None

    def of(self, image_id):
        """Return (questions, answers), ROUNDS texts each."""
        rounds, questions, answers = self._rounds[image_id]
        return [questions[q].strip() for q, _ in rounds], [answers[a].strip() for _, a in rounds]


def read(path):
    """Return (questions, answers, {image id: int (rounds, 2)}).

    The rows are places in those lists, -1 where a test dialogue has no answer.
    """
    name = path.stem + '.json'
    content = load(path, name, _slim)
    content = content.get('data') if isinstance(content, dict) else None
    if not isinstance(content, dict):
        raise DataError(
            f'{quoted(path)} has not the layout of VisDial: {{data: {{questions, answers, '
            'dialogs}}. Fetch it again.'
        )
    questions, answers, dialogs = lists(content, quoted(path), 'questions', 'answers', 'dialogs')
    if not all(isinstance(text, str) for text in (*questions, *answers)) or not all(
        isinstance(dialog, tuple) for dialog in dialogs
    ):
        raise DataError(
            f'{quoted(path)} has not the layout of VisDial: questions and answers are texts, '
            'dialogs have image_id and dialog. Fetch it again.'
        )
    return questions, answers, dict(dialogs)


def _slim(entry):
    """Leave out the hundred answers to choose from in every round, which are most of the file."""
    if 'question' in entry:
        return entry['question'], entry.get('answer', -1)
    if 'dialog' in entry and type(entry.get('image_id')) is int:
        try:
            return entry['image_id'], np.array(entry['dialog'], np.int32).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError):
            return entry
    return entry
