"""Draw records of a data set with everything they carry.

    python -m tfds_builders.inspect NAME [--split=train] [--num=16] [--out=NAME.png]

Boxes and masks of objects lie over the picture, crowd regions are hatched; parts are dots with
their names; the foreground mask is outlined in white. Records without a picture are boxes on white,
one colour a label. Below stand captions, class, attributes, dialogue. What is not built yet is
built first, as by tfds_builders.build; a copy as tfrecord cannot be drawn.
"""

import argparse
import colorsys
import itertools
import os
import sys

import cv2
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw

from tfds_builders import DataError, build, names
from tfds_builders.base import unreadable
from tfds_builders.errors import explained, home, quoted
from tfds_builders.files import decode
from tfds_builders.sheets import GREY, INK, font, save_png, wrap

# pixels of a picture's longer side; lines of text below it
SIDE, MARGIN, LINES = 320, 12, 26
# records of a picture
MOST = 256
NEEDS = (
    'Records are drawn from array_record, which can be read at any place; tfrecord cannot. '
    'Build a copy with --file_format=array_record.'
)
ENCODED = ('image', 'mask', 'object_masks')


def inspect(builder, split='train', num=16, out='records.png'):
    """Draw `num` records, write the picture to `out` and return it, h w 3 uint8.

    Raises DataError for a split that does not exist, for tfrecord, for data that are damaged, and
    where the picture cannot be written.
    """
    out = str(home(out))
    if not 1 <= num <= MOST:
        raise DataError(f'--num is {num}; it is 1 to {MOST} records.')
    if os.path.isdir(out) or not os.path.basename(out):
        raise DataError(f'--out is the folder {quoted(out)}. Give the name of a PNG file in it.')
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise DataError(NEEDS)
    try:
        count = builder.info.splits[split].num_examples
    except ValueError as error:
        raise DataError(
            f'{builder.info.full_name} has no split {split!r} ({error}). It has: '
            f'{", ".join(builder.info.splits)}.'
        ) from None
    decoders = {
        name: tfds.decode.SkipDecoding() for name in ENCODED if name in builder.info.features
    }
    if count < 1:
        raise DataError(
            f'Split {split!r} of {builder.info.full_name} is empty. It has: '
            f'{", ".join(builder.info.splits)}.'
        )
    numbers = np.unique(np.linspace(0, count - 1, num).astype(int))
    source = builder.as_data_source(split, decoders=decoders)
    try:
        records = [source[int(i)] for i in numbers]
    except Exception as error:
        # readers of damaged files raise many kinds
        raise unreadable(builder.data_dir, error, builder.manual_dir) from error
    panels = [panel(record, builder.info) for record in records]
    columns = min(4, len(panels))
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [max(p.height for p in row) + MARGIN for row in rows]
    sheet = Image.new('RGB', (columns * (SIDE + MARGIN) + MARGIN, sum(heights) + 40), 'white')
    ImageDraw.Draw(sheet).text(
        (MARGIN, MARGIN),
        f'{builder.info.full_name}, {split}: {count:,} records',
        INK,
        font(16, builder.info.full_name),
    )
    for row, top in zip(rows, itertools.accumulate([40, *heights])):
        for column, one in enumerate(row):
            sheet.paste(one, (MARGIN + column * (SIDE + MARGIN), top))
    try:
        save_png(out, sheet)
    except OSError as error:
        place = error.filename if isinstance(error, FileExistsError) else out
        raise DataError(f'--out: {explained(error, place)}') from error
    return np.asarray(sheet)


def panel(record, info):
    """Return one record: its picture with all that has a place in it, the rest as text below."""
    texts, lines = list(describe(record, info)), []
    letters = font(12, ''.join(texts))
    for line in texts:
        lines += wrap(line, letters, SIDE)
    lines = lines[: LINES - 1] + ['...'] if len(lines) > LINES else lines
    picture = (
        draw(record, info)
        if {'image', 'objects'} & set(record)
        else Image.new('RGB', (SIDE, 1), 'white')
    )
    out = Image.new('RGB', (SIDE, picture.height + 6 + 15 * len(lines)), 'white')
    out.paste(picture, (0, 0))
    for i, line in enumerate(lines):
        ImageDraw.Draw(out).text((0, picture.height + 6 + 15 * i), line, INK, letters)
    return out


def describe(record, info):
    """Yield the record's texts and numbers, a line each."""
    metadata = info.metadata or {}
    if 'file_name' in record:
        yield record['file_name'].decode()
    if 'class_name' in record:
        yield f'class {record["label"]}: {record["class_name"].decode()}'
    for caption in record.get('captions', ()):
        yield f'- {caption.decode()}'
    for question, answer in zip(
        *(record.get('dialog', {}).get(key, ()) for key in ('questions', 'answers'))
    ):
        yield f'Q {question.decode()}? A {answer.decode()}'
    if 'attributes' in record and 'attributes' not in metadata.get('absent', ()):
        present = np.flatnonzero(np.asarray(record['attributes']) > 0)
        known = metadata.get('attributes', [])
        yield f'{len(present)} attributes: ' + ', '.join(
            known[i] if i < len(known) else str(i) for i in present
        )
    if 'objects' in record and 'image' not in record:
        kinds, counts = np.unique(record['objects']['label'], return_counts=True)
        yield ', '.join(
            f'{n} {info.features["objects"].feature["label"].int2str(int(kind))}'
            for kind, n in zip(kinds, counts)
        )
    if 'embedding' in record:
        yield f'embedding {" x ".join(map(str, np.shape(record["embedding"])))}'


def draw(record, info):
    """Return the picture (or a white square) with masks, boxes and parts.

    Its longer side has SIDE pixels.
    """
    image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    if 'image' in record:
        image = decode(record['image'], cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise DataError(
                f'The picture of {record["file_name"].decode()} cannot be decoded. Delete the '
                'folder of the data set, and build it again from intact files.'
            )
    scale = SIDE / max(image.shape[:2])
    w, h = (max(1, round(side * scale)) for side in image.shape[1::-1])
    pixels = cv2.resize(
        image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    )
    objects, metadata = record.get('objects', {}), info.metadata or {}
    crowd = list(objects.get('is_crowd', [False] * len(objects.get('label', ()))))
    hues, value, edge = (
        (range(len(crowd)), 1, INK)
        if 'image' in record
        else (objects['label'], 0.7, (255, 255, 255))
    )
    colours = [
        tuple(round(255 * c) for c in colorsys.hsv_to_rgb(i * 0.381966 % 1, 0.9, value))
        for i in hues
    ]
    if 'object_masks' in record:
        masks = cv2.imdecode(np.frombuffer(record['object_masks'], np.uint8), cv2.IMREAD_GRAYSCALE)
        for mask, colour, is_crowd in zip(
            masks.reshape(int(metadata['max_objects']), -1, masks.shape[1]), colours, crowd
        ):
            share = cv2.resize(mask, (w, h), interpolation=cv2.INTER_LINEAR)[..., None] / 255 * 0.35
            if is_crowd:
                share = share * ((np.add.outer(np.arange(h), np.arange(w)) // 4) % 2)[..., None] * 2
            pixels = (pixels * (1 - share) + np.array(colour) * share).astype(np.uint8)
    if 'mask' in record:
        mask = cv2.resize(
            cv2.imdecode(np.frombuffer(record['mask'], np.uint8), cv2.IMREAD_GRAYSCALE),
            (w, h),
            interpolation=cv2.INTER_NEAREST,
        )
        pixels = np.ascontiguousarray(pixels)
        cv2.drawContours(
            pixels,
            cv2.findContours((mask > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[
                0
            ],
            -1,
            (255, 255, 255),
            1,
        )
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    if 'image' not in record:
        pen.rectangle((0, 0, w - 1, h - 1), outline=GREY)
    kinds = info.features['objects'].feature['label'] if 'objects' in info.features else None
    for box, label, colour, is_crowd in zip(
        objects.get('bbox', ()), objects.get('label', ()), colours, crowd
    ):
        _box(
            pen,
            box,
            (h, w),
            colour,
            kinds.int2str(int(label)) + (' (crowd)' if is_crowd else ''),
            edge,
        )
    if 'bbox' in record and 'objects' not in record:
        _box(pen, record['bbox'], (h, w), (255, 255, 0), '', edge)
    for (x, y, seen), name in zip(record.get('parts', ()), metadata.get('parts', ())):
        if seen:
            pen.ellipse((x * w - 3, y * h - 3, x * w + 3, y * h + 3), (255, 255, 0), INK)
            at, white = (x * w + 4, y * h - 6), (255, 255, 255)
            pen.text(at, name, white, font(10, name), stroke_width=1, stroke_fill=INK)
    return picture


def _box(pen, box, size, colour, name, edge):
    top, left, bottom, right = (float(v) * (size[i % 2] - 1) for i, v in enumerate(box))
    pen.rectangle((left, top, right, bottom), outline=colour, width=2)
    if name:
        at = left + 3, top + 2
        pen.text(at, name, colour, font(10, name), stroke_width=1, stroke_fill=edge)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('name', help=f'the data set: {", ".join(names())}')
    parser.add_argument('--split', default='train', help='which part, also train[100:200]')
    parser.add_argument(
        '--num', type=int, default=16, help='how many records, spread over the part'
    )
    parser.add_argument(
        '--out', help='the PNG; by default the name of the data set, in this folder'
    )
    parser.add_argument(
        '--data_dir', help='where built data lie; by default as tfds_builders.build'
    )
    parser.add_argument('--manual_dir', help='where the files lie that you fetched yourself')
    parser.add_argument(
        '--on_error', choices=('refuse', 'skip'), help='what happens to records that cannot be used'
    )
    args = parser.parse_args()
    try:
        builder = build.build(args.name, args.data_dir, args.manual_dir, on_error=args.on_error)
        out = args.out or args.name.replace('/', '_') + '.png'
        inspect(builder, args.split, args.num, out)
    except DataError as error:
        sys.exit(f'Error: {error}')
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f'Error: {args.name} cannot be drawn: {explained(error)}')
    print(
        f'{quoted(out)}: {min(args.num, builder.info.splits[args.split].num_examples)} records of '
        f'{builder.info.full_name}, {args.split}'
    )


if __name__ == '__main__':
    main()
