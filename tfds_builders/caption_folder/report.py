"""The report of a folder, in words and as a contact sheet."""

import pathlib

import cv2
import numpy as np

from tfds_builders import sheets
from tfds_builders.caption_folder.scan import MOST
from tfds_builders.errors import quoted
from tfds_builders.pictures import read_file
from tfds_builders.words import CHARS, MAX_WORDS, count_words, tokenize

# pictures of the sheet, pixels
SHOWN, SIDE = 25, 128
PERCENTILES = (0, 5, 50, 95, 100)


def write(builder, folder) -> str:
    """Write report.txt and report.png into the data set's folder and return the text."""
    place, metadata = pathlib.Path(builder.data_dir), builder.info.metadata
    splits = builder.info.splits
    skipped = metadata['skipped']
    used = [entry for entry in folder.entries if entry.file not in skipped]
    train = [entry for entry in used if entry.split == 'train']
    captions = [caption for entry in used for caption in entry.captions]
    known = count_words(caption for entry in train for caption in entry.captions)
    words = [len(tokenize(caption)) for caption in captions]
    letters = [len(caption) for caption in captions]
    lines = [
        f'{builder.info.full_name}',
        f'pictures: {sum(split.num_examples for split in splits.values()):,} ('
        + ', '.join(f'{name} {split.num_examples:,}' for name, split in splits.items())
        + f'; split: {folder.rule})',
        f'captions: {len(captions):,}, from {folder.layout}',
        f'vocabulary: {len(known):,} words of the training captions',
        'words of a caption, percentiles '
        + ', '.join(
            f'{p}: {v:.0f}' for p, v in zip(PERCENTILES, np.percentile(words, PERCENTILES))
        ),
        'letters of a caption, percentiles '
        + ', '.join(
            f'{p}: {v:.0f}' for p, v in zip(PERCENTILES, np.percentile(letters, PERCENTILES))
        ),
        f'cut when they are read: {sum(n > MAX_WORDS for n in words):,} captions of more than '
        f'{MAX_WORDS} words, '
        f'{sum(n > CHARS for n in letters):,} of more than {CHARS} letters',
        f'pictures of more than {MOST} captions, of which the first are used: {folder.crowded:,}',
        f'pictures that the captions do not name: {folder.unnamed:,}',
        *folder.notes,
        f'left out: {len(skipped):,}',
        *(f'  {name}: {reason}' for name, reason in skipped.items()),
    ]
    _sheet(builder.manual_dir, train, builder.info.full_name, place / 'report.png')
    # last: where it lies, all of it does
    (place / 'report.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    shown = lines if len(lines) < 30 else [*lines[:29], f'  and {len(lines) - 29} more']
    return '\n'.join(
        [*shown, f'See {quoted(place / "report.txt")} and {quoted(place / "report.png")}.']
    )


def _sheet(root, entries, title, path):
    """Draw 25 pictures of the training part, spread over it, each with its first caption."""
    pictures, labels = [], []
    for i in np.unique(np.linspace(0, len(entries) - 1, SHOWN).astype(int)):
        pixels = read_file(root / entries[i].file)
        scale = SIDE / max(pixels.shape[:2])
        size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        pixels = cv2.resize(
            pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        )
        canvas = np.full((SIDE, SIDE, 3), 255, np.uint8)
        canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
        pictures.append(canvas)
        labels.append(entries[i].captions[0][:100])
    sheets.sheet(np.stack(pictures)[:, None], labels, path, title=title, columns=5)
