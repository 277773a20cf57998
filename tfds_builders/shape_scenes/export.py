"""The data set as files of MS COCO and of VisDial v1.0, and readers of both.

COCO: captions_*.json, instances_*.json, images. So loaders of the real data can be tested without
the real data. What is written is read back to equal samples (test_shape_scenes.py).
"""

import json
import pathlib

import cv2
import numpy as np

from tfds_builders.files import read_text
from tfds_builders.shape_scenes import phrases, scenes
from tfds_builders.shape_scenes.sample import make
from tfds_builders.shape_scenes.scenes import CLASS, CLASSES, CX, CY, UNIT, Draws, H, W

# answers to choose from in each VisDial round
OPTIONS = 100
CIRCLE_CORNERS = 48


def export_coco(folder, samples, name='train2014', suffix='.png', segmentation='rle', first_id=1):
    """Write the pictures and annotations of samples in COCO's layout.

    folder: gets <name>/COCO_<name>_<id, 12 digits><suffix> and
        annotations/{captions,instances}_<name>.json
    samples: dictionaries of `make`
    name: of the folder of pictures
    suffix: '.jpg' is what COCO has, '.png' loses nothing
    segmentation: 'rle' (exact, uncompressed) or 'polygon' (rings have a hole and stay RLE)
    first_id: image ids count from it

    Boxes and masks are those of the whole shapes.
    """
    folder = pathlib.Path(folder)
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / 'annotations').mkdir(exist_ok=True)
    images, captions, instances = [], [], []
    for image_id, one in enumerate(samples, first_id):
        size = len(one['image'])
        file_name = f'COCO_{name}_{image_id:012d}{suffix}'
        cv2.imwrite(str(folder / name / file_name), one['image'][..., ::-1])
        images.append({'id': image_id, 'file_name': file_name, 'height': size, 'width': size})
        captions += [
            {'id': len(captions) + k, 'image_id': image_id, 'caption': text}
            for k, text in enumerate(one['captions'], 1)
        ]
        for row, mask in zip(scenes.objects_of(one['scene']), one['masks'], strict=False):
            outline = (
                [polygon(row, size)]
                if segmentation == 'polygon' and CLASSES[row[CLASS]] != 'ring'
                else run_lengths(mask)
            )
            cx, cy, w, h = (row[column] / UNIT * size for column in (CX, CY, W, H))
            instances.append(
                {
                    'id': len(instances) + 1,
                    'image_id': image_id,
                    'category_id': row[CLASS] + 1,
                    'iscrowd': 0,
                    'bbox': [cx - w / 2, cy - h / 2, w, h],
                    'area': int(mask.sum()),
                    'segmentation': outline,
                }
            )
    categories = [
        {'id': i, 'name': shape, 'supercategory': 'shape'} for i, shape in enumerate(CLASSES, 1)
    ]
    for kind, content in (
        ('captions', {'annotations': captions}),
        ('instances', {'annotations': instances, 'categories': categories}),
    ):
        path = folder / 'annotations' / f'{kind}_{name}.json'
        path.write_text(
            json.dumps(
                {
                    'info': {'description': 'shape_scenes'},
                    'licenses': [],
                    'images': images,
                    **content,
                }
            )
        )


def read_coco(folder, name='train2014'):
    """Read what `export_coco` wrote, in the order of the ids.

    A list of {image_id, image, captions, object_labels, boxes, masks} with boxes (n, 4) as cx, cy,
    w, h in [0, 1] and bool masks (n, S, S).
    """
    folder = pathlib.Path(folder)
    parts = {
        kind: json.loads(read_text(folder / 'annotations' / f'{kind}_{name}.json'))
        for kind in ('captions', 'instances')
    }
    out = []
    for entry in sorted(parts['captions']['images'], key=lambda entry: entry['id']):
        image = cv2.imread(str(folder / name / entry['file_name']), cv2.IMREAD_COLOR)[..., ::-1]
        objects = [
            one for one in parts['instances']['annotations'] if one['image_id'] == entry['id']
        ]
        size = entry['height']
        corners = np.array([one['bbox'] for one in objects], np.float64).reshape(-1, 4) / size
        out.append(
            {
                'image_id': entry['id'],
                'image': image,
                'captions': [
                    one['caption']
                    for one in parts['captions']['annotations']
                    if one['image_id'] == entry['id']
                ],
                'object_labels': np.array([one['category_id'] - 1 for one in objects], np.int32),
                'boxes': np.concatenate(
                    [corners[:, :2] + corners[:, 2:] / 2, corners[:, 2:]], 1
                ).astype(np.float32),
                'masks': np.stack([_mask(one['segmentation'], size) for one in objects]),
            }
        )
    return out


def run_lengths(mask):
    """Return COCO's uncompressed RLE of a bool mask (H, W).

    Lengths of runs down the columns, the first of zeros.
    """
    flat = mask.ravel(order='F').astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    counts = np.diff(bounds).tolist()
    return {'counts': [0, *counts] if flat[0] else counts, 'size': list(mask.shape)}


def polygon(row, size):
    """Return COCO's polygon [x0, y0, x1, y1, ...] in pixels of the outline of one object.

    Not of a ring.
    """
    third = 1 / 3
    angles = np.arange(CIRCLE_CORNERS) * 2 * np.pi / CIRCLE_CORNERS
    arm = [(-third, -1), (third, -1), (third, -third), (1, -third), (1, third), (third, third)]
    outline = {
        'circle': np.stack([np.cos(angles), np.sin(angles)], 1),
        'square': [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        'triangle': [(0, -1), (1, 1), (-1, 1)],
        'diamond': [(0, -1), (1, 0), (0, 1), (-1, 0)],
        'cross': [*arm, *((-x, -y) for x, y in arm)],
    }[CLASSES[row[CLASS]]]
    points = (
        (np.array([row[CX], row[CY]]) + np.array(outline) * np.array([row[W], row[H]]) / 2)
        / UNIT
        * size
    )
    return points.round(3).ravel().tolist()


def _mask(segmentation, size):
    if isinstance(segmentation, dict):
        counts = segmentation['counts']
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(
            segmentation['size'], order='F'
        )
    # cv2 fills between whole pixels: draw large, then sample the centres
    fine = 16
    canvas = np.zeros((size * fine, size * fine), np.uint8)
    for corners in segmentation:
        cv2.fillPoly(
            canvas, [np.rint(np.array(corners).reshape(-1, 2) * fine - 0.5).astype(np.int32)], 1
        )
    return canvas[fine // 2 :: fine, fine // 2 :: fine] > 0


def export_visdial(path, samples, split='train', first_id=1, seed=0):
    """Write the dialogues of `make`'s samples as VisDial v1.0 JSON.

    Global lists of questions and answers, ten rounds a dialogue, each with 100 answer options of
    which `gt_index` is the right one. Image ids as in `export_coco`.
    """
    draws = Draws(seed, 'single', 'train', 0, stream=1 << 20)
    pool = dict.fromkeys(answer for one in samples for answer in one['answers'])
    # a small export has too few different answers
    while len(pool) < OPTIONS:
        pool[
            phrases.phrase(
                draws.below(6), draws.below(7), draws.below(3), (draws.random(), draws.random())
            )
        ] = None
    answers = list(pool)
    questions = list(dict.fromkeys(question for one in samples for question in one['questions']))
    answer_at = {text: i for i, text in enumerate(answers)}
    question_at = {text: i for i, text in enumerate(questions)}
    dialogs = []
    for image_id, one in enumerate(samples, first_id):
        rounds = []
        for question, answer in zip(one['questions'], one['answers'], strict=True):
            options = {answer_at[answer]}
            while len(options) < OPTIONS:
                options.add(draws.below(len(answers)))
            options = draws.shuffled(sorted(options))
            rounds.append(
                {
                    'question': question_at[question],
                    'answer': answer_at[answer],
                    'answer_options': options,
                    'gt_index': options.index(answer_at[answer]),
                }
            )
        dialogs.append({'image_id': image_id, 'caption': one['captions'][0], 'dialog': rounds})
    content = {
        'version': '1.0',
        'split': split,
        'data': {'questions': questions, 'answers': answers, 'dialogs': dialogs},
    }
    pathlib.Path(path).write_text(json.dumps(content))


def read_visdial(path):
    """Read a VisDial v1.0 file with answers.

    [{image_id, caption, questions, answers, options}]
    """
    data = json.loads(read_text(path))['data']
    return [
        {
            'image_id': one['image_id'],
            'caption': one['caption'],
            'questions': [data['questions'][turn['question']] for turn in one['dialog']],
            'answers': [
                data['answers'][turn['answer_options'][turn['gt_index']]] for turn in one['dialog']
            ],
            'options': [
                [data['answers'][i] for i in turn['answer_options']] for turn in one['dialog']
            ],
        }
        for one in data['dialogs']
    ]


def export(
    folder, mode='multi', split='train', count=16, size=64, seed=0, name='train2014', **options
):
    """Write both exports of the first `count` samples of a split, and return the samples.

    `options` are those of `export_coco`.
    """
    samples = [make(mode, split, index, size, seed) for index in range(count)]
    export_coco(folder, samples, name, **options)
    export_visdial(
        pathlib.Path(folder) / f'visdial_1.0_{split}.json',
        samples,
        split,
        options.get('first_id', 1),
    )
    return samples
