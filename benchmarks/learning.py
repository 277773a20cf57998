"""What systems learn in equal minutes of one core, on shape_scenes, read by the same judges.

    python -m benchmarks.learning FOLDER recipes --out=benchmarks/results/recipes.md
    python -m benchmarks.learning FOLDER ablation --minutes=0 --core=1
    python -m benchmarks.learning FOLDER recipes --rows=gan_cls,df_gan

A group of GROUPS is one table; each row of it is a run in FOLDER/<row>. The step of its last stages
is timed first, and they get as many steps as fit into the minutes, all of them equal parts
(`--minutes=0`: the experiment's own steps). Sentence encoders and the DAMSM are trained once and
shared, and do not count. A run that is finished is not trained again, one that was stopped is
resumed, so that the same command continues. The table has the rows that are measured so far. In
`layouts` the stages of boxes and shapes are trained as the experiments have them, do not count, and
have a table of their own.

Judges: the analytic and the trained reader (1,000 captions a split), and R-precision by a DAMSM of
its own, FOLDER/judge or FOLDER/reader (JUDGES), the second of which also describes the pictures.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np

from t2i_jax import Sampler
from t2i_jax.draw import sheets

SENTENCES = (
    'a red circle',
    'a small blue square',
    'a green triangle',
    'a purple cross',
    'a yellow ring',
    'a cyan diamond',
)
# where pictures have several objects
OF_SEVERAL = (
    'a red circle to the left of a blue square',
    'a green triangle above a yellow ring',
    'two purple crosses and an orange diamond',
)


class Row(NamedTuple):
    """One run. group: of tables. stages: those that share the minutes. sets: settings.

    takes: stage -> the row that trained it. parts: earlier stages that have a table, too; a row
    without `stages` has these alone.
    """

    name: str
    label: str
    experiment: str
    stages: tuple[str, ...] = ('gan',)
    sets: tuple[str, ...] = ()
    takes: dict[str, str] = {}
    parts: tuple[str, ...] = ()


def without(name, label, *sets, takes=None):
    sets = tuple(f'stages.{one}' for one in sets)
    takes = {'text': 'quick'} if takes is None else takes
    return Row(name, label, 'gan_cls_shapes:quick', sets=sets, takes=takes)


def mirror(name, label, *sets, takes=None):
    sets = tuple(f'stages.gan.model.{one}' for one in sets)
    takes = {'damsm': 'attngan', 'stream': 'mirrorgan'} if takes is None else takes
    return Row(name, label, 'mirrorgan_shapes:recipe', sets=sets, takes=takes)


def control(name, label, *sets):
    sets = tuple(f'stages.gan.model.{one}' for one in sets)
    return Row(name, label, 'mca_gan_shapes:recipe', sets=sets, takes={'damsm': 'attngan'})


def painted(name, label, *sets, variant='recipe', **takes):
    sets = tuple(f'stages.image.model.{one}' for one in sets)
    takes = {'damsm': 'attngan_multi'} | takes
    parts = () if 'box' in takes else ('box', 'shape')
    return Row(name, label, f'obj_gan_shapes:{variant}', ('image',), sets, takes, parts)


SHARED = {'text': 'gan_cls'}
OWN = {'text': 'gan_cls_paper'}
TALK = {'text': 'chat_recurrent', 'turns': 'chat_recurrent'}
DIALOG = 'stages.one.model.dialog'
GROUPS = {
    'recipes': [
        Row('gan_cls', 'GAN-CLS, recipe', 'gan_cls_shapes:recipe'),
        Row('stackgan_pp', 'StackGAN++, recipe', 'stackgan_pp_shapes:recipe', takes=SHARED),
        Row('df_gan', 'DF-GAN, recipe', 'df_gan_shapes:recipe', takes=SHARED),
        Row('stackgan', 'StackGAN, recipe', 'stackgan_shapes:recipe', ('one', 'two'), takes=SHARED),
        Row('attngan', 'AttnGAN, recipe', 'attngan_shapes:recipe'),
        Row('df_gan_paper', 'DF-GAN', 'df_gan_shapes', takes={'damsm': 'attngan'}),
        Row('gan_cls_paper', 'GAN-CLS', 'gan_cls_shapes:laptop'),
        Row('stackgan_paper', 'StackGAN', 'stackgan_shapes', ('one', 'two'), takes=OWN),
        Row('stackgan_pp_paper', 'StackGAN++', 'stackgan_pp_shapes', takes=OWN),
        Row('attngan_paper', 'AttnGAN', 'attngan_shapes', takes={'damsm': 'attngan'}),
    ],
    'attention': [
        Row('attngan', 'AttnGAN', 'attngan_shapes:recipe'),
        mirror('mirrorgan', 'MirrorGAN', takes={'damsm': 'attngan'}),
        mirror('mirrorgan_mute', 'the same, lambda_stream 0', 'lambda_stream=0'),
        mirror('mirrorgan_words', 'the same, no sentence attention', 'sentence_attention=False'),
        control('control', 'ControlGAN'),
        control('control_spatial', 'the same, no channel attention', 'channel_input=none'),
        control('control_whole', 'the same, no word discriminator', 'word_scales=0'),
        Row('leica', 'LeicaGAN, phi .2', 'leica_gan_shapes:recipe'),
        Row(
            'leica_even',
            'the same, phi 0',
            'leica_gan_shapes:recipe',
            sets=('stages.gan.model.phi=0.0',),
            takes={'image': 'leica', 'mask': 'leica'},
        ),
    ],
    'extensions': [
        Row('stackgan', 'StackGAN', 'stackgan_shapes:recipe', ('one', 'two'), takes=SHARED),
        Row('fused', 'FusedGAN', 'fused_gan_shapes:recipe', ('gan', 'refine'), takes=SHARED),
        Row('attribute2image', 'Attribute2Image', 'attribute2image_shapes', ('vae',)),
        Row('cvae', 'CVAE&GAN', 'cvae_gan_shapes:recipe', ('cvae', 'refine'), takes=SHARED),
        *(
            Row(f'chat_{dialog}', label, 'chat_painter_shapes:recipe', ('one', 'two'), sets, takes)
            for dialog, label, sets, takes in (
                ('recurrent', 'ChatPainter', (), {}),
                ('joined', 'the same, one string', (f'{DIALOG}=joined',), TALK),
                (
                    'none',
                    'the same, captions alone (StackGAN)',
                    (f'{DIALOG}=none', *(f'stages.{n}.model.wrong=text' for n in ('one', 'two'))),
                    TALK,
                ),
            )
        ),
    ],
    'layouts': [
        Row('attngan_multi', 'AttnGAN', 'attngan_shapes:multi'),
        painted('obj_gan', 'Obj-GAN, recipe'),
        painted(
            'obj_gan_uniform',
            'the same, objects read all words alike',
            'attention=uniform',
            box='obj_gan',
            shape='obj_gan',
        ),
        Row(
            'hong',
            'Hong et al., recipe',
            'hierarchical_layout_shapes:recipe',
            ('image',),
            parts=('box', 'shape'),
        ),
        Row('layout_vae', 'LayoutVAE, labels given', 'layout_vae_shapes', (), parts=('box',)),
        Row(
            'attngan_multi_recipe',
            'AttnGAN, recipe',
            'attngan_shapes:multi_recipe',
            takes={'damsm': 'attngan_multi'},
        ),
    ],
    'seeds': [
        Row(f'seed{n}' if n else 'quick', f'seed {n}', 'gan_cls_shapes:quick', sets=(f'seed={n}',))
        for n in range(3)
    ],
    'ablation': [
        Row('quick', 'all of it', 'gan_cls_shapes:quick'),
        without(
            'no_words',
            'char-CNN-RNN for sums of words',
            'text.model.text=chars',
            takes={},
        ),
        without('no_whitening', 'no whitening', 'text.model.whiten=False', takes={}),
        without('no_contrast', 'no contrast head', 'gan.model.game.contrast=(0.0, 0.0)'),
        without('wrong_pictures', 'wrong pictures for wrong text', 'gan.model.wrong=pictures'),
        without('no_modulation', 'plain norms in G', 'gan.model.g_norm=batch'),
        without('no_pairing', 'cross-entropy for pairing', 'gan.model.game.adversary=bce'),
        without('no_fine', 'no hidden map of full size', 'gan.model.fine=False'),
        without('no_near_wrong', 'wrong sentences at random', 'gan.near_wrong=0'),
    ],
}
HEAD = """# What is learnt in {minutes} minutes of a core: {group}

```
python -m benchmarks.learning FOLDER {group} --minutes={minutes}
```

{date}, {device}, one seed each. Shares of 1,000 captions a split, of seen pairs of colour and
class / of held-out ones, by the analytic reader; R-precision by a DAMSM that trained none of them.

{table}
{parts}{picture}"""
OF_PARTS = """
Boxes and shapes, of 1,000 held-out scenes. Nats: of boxes in [0, 1] coordinates; those of a system
that knows a box by its width and height / width say nothing here, where all boxes are square.

{table}
"""
ALONE = 'seed=1', 'stages.damsm.steps=1600'
# of a group: a run that takes no part, whose DAMSM (and captioner) reads the pictures
JUDGES = {
    'recipes': Row('judge', '', 'damsm_shapes', sets=ALONE),
    'attention': Row('reader', '', 'mirrorgan_shapes', sets=(*ALONE, 'stages.gan.steps=0')),
    'layouts': Row('judge_multi', '', 'damsm_shapes:multi', sets=ALONE),
}
# title, metric, reader, splits
READ = 'analytic'
COLUMNS = (
    ('colour', 'colour', READ),
    ('class', 'class', READ),
    ('class+colour', 'class_colour', READ),
    ('size', 'size', READ),
    ('place', 'place', READ),
    ('whole caption', 'sem_exact', READ),
    ('colour of what is there', 'scene_colour_of_class', READ),
    ('the same, trained reader', 'sem_exact', 'trained'),
    ('R-precision', 'r_precision_entailment', 'run_'),
    ('described rightly', 'redescribed_all', 'run_'),
    ('FID analogue', 'fid_', ''),
    ('MS-SSIM', 'ms_ssim_same_caption', ''),
)
MORE = {
    'layouts': (
        ('words', 'sem_acc', READ),
        ('object in its place', 'object_in_place', READ),
        ('R-precision, both ways', 'r_precision_both_ways', 'run_'),
    )
}
# title, metric of the stage's own evaluation
PARTS = (
    ('nats a box', 'nll_per_box'),
    ('the same by ratio', 'nll_per_box_by_ratio'),
    ('all labels', 'layout_labels_told'),
    ('relations', 'layout_relation'),
    ('counts, total variation', 'layout_count_tv'),
    ('IoU of boxes', 'layout_iou'),
    ('IoU of masks', 'mask_iou'),
)
# kinds of drawn pictures, and what stands behind a row's label
KINDS = {'true_masks': ', true boxes and masks', 'true_boxes': ', true boxes', 'drawn': ''}
SPLITS = 'test', 'test_unseen'


# -------------------------------------------------------------------------------------------- runs
def python(*words, core):
    """Run a module of this checkout, on one core; ends the program where it fails."""
    before = (lambda: os.sched_setaffinity(0, {core})) if core >= 0 else None
    done = subprocess.run(
        [sys.executable, '-m', *words], preexec_fn=before, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f'{" ".join(words)} failed:\n{done.stdout[-3000:]}')
    return done.stdout


def train(row, folder, minutes, core):
    """Train a row's run, or go on with it -> {stage: seconds a step, FLOPs of a step, steps}."""
    workdir, plan = folder / row.name, folder / f'{row.name}.json'
    flags = [f'--config.{one}' for one in row.sets]
    flags += [f'--config.init.{name}={folder / other}' for name, other in row.takes.items()]
    if not plan.exists():
        found = {}
        for stage in row.stages if minutes else ():
            words = [row.experiment, f'--stage={stage}', '--inside', '--steps=20', '--seconds=10']
            words += [f'--set={one}' for one in row.sets]
            said = python('benchmarks.step', *words, core=core).splitlines()
            (line,) = (one for one in said if one.startswith('result '))
            one = json.loads(line.removeprefix('result '))
            steps = round(minutes * 60 / len(row.stages) / one['step'])
            found[stage] = dict(step=one['step'], flops=one['flops'], steps=steps)
        plan.write_text(json.dumps(found))
    found = json.loads(plan.read_text())
    flags += [f'--config.stages.{name}.steps={one["steps"]}' for name, one in found.items()]
    python('t2i_jax', f'--config={row.experiment}', f'--workdir={workdir}', *flags, core=core)
    return found


def report_of(row, folder, judge, part=''):
    """Return the file of a row's evaluation, of its pictures or of an earlier stage."""
    by = f'_{part}' if part else f'_{judge.name}' if judge else ''
    return folder / row.name / 'eval' / f'learning{by}.json'


def evaluate(row, folder, core, judge=None, part=''):
    """Evaluate a row's run, once -> its report."""
    workdir, path = folder / row.name, report_of(row, folder, judge, part)
    if not path.exists():
        flags = [f'--config.eval.name={path.stem}'] + ([f'--stage={part}'] if part else [])
        flags += [f'--config.eval.scorer={folder / judge.name}'] if judge else []
        python('t2i_jax', f'--workdir={workdir}', '--mode=evaluate', *flags, core=core)
    return json.loads(path.read_text())


# ------------------------------------------------------------------------------------------ tables
def value(report, metric, reader, split, kind='drawn'):
    """Find a number of drawn pictures in a report, or None."""
    for one in report['values']:
        protocol = one['protocol']
        if (protocol.get('pictures'), protocol.get('split')) != (kind, split):
            continue
        by = protocol.get('decoder', '')
        if one['metric'].startswith(metric) and (not reader or by.startswith(reader)):
            return one['value']
    return None


def table(group, rows):
    """Write rows [(Row, plan, report)] as a table in Markdown: seen / held-out pairs."""
    columns = COLUMNS + MORE.get(group, ())
    measured = [one for one in columns if any(value(r, *one[1:], SPLITS[0]) for *_, r in rows)]
    lines = ['| | steps | GFLOP a step | ' + ' | '.join(title for title, *_ in measured) + ' |']
    lines.append('|---' * (len(measured) + 3) + '|')
    for row, plan, report in rows:
        steps = ' + '.join(f'{one["steps"]:,}' for one in plan.values())
        flops = ' + '.join(f'{one["flops"] / 1e9:.0f}' for one in plan.values())
        steps = steps or f'{report["run"]["step"]:,}'
        for kind, more in KINDS.items():
            cells = [cell(report, *one[1:], kind) for one in measured]
            if any(cells):
                head = f'| {row.label}{more} | {steps} | {flops} | '
                lines.append(head + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def cell(report, metric, reader, kind):
    """Write a number of both splits."""
    both = [value(report, metric, reader, split, kind) for split in SPLITS]
    form = '{:.1f}' if metric == 'fid_' else '{:.3f}'
    return ' / '.join(form.format(x).removeprefix('0') for x in both if x is not None)


def parts_table(rows):
    """Write evaluations of earlier stages, [(Row, stage, report)], as a table in Markdown."""
    if not rows:
        return ''
    lines = ['| | stage | ' + ' | '.join(title for title, _ in PARTS) + ' |']
    lines.append('|---' * (len(PARTS) + 2) + '|')
    for row, part, report in rows:
        found = {
            one['metric']: f'{one["value"]:.3f}'
            for one in report['values']
            if (one['protocol'].get('pictures'), one['protocol'].get('split')) == ('drawn', 'test')
        }
        cells = ' | '.join(found.get(metric, '') for _, metric in PARTS)
        lines.append(f'| {row.label} | {part} | {cells} |')
    return OF_PARTS.format(table='\n'.join(lines))


def strip(rows, folder, out, sentences=SENTENCES):
    """Draw the same sentences by each run: one picture, a line for each."""
    drawn = []
    for row, *_ in rows:
        images = Sampler.load(folder / row.name)(list(sentences), num=2, seed=0)['image']
        drawn.append(images.reshape(-1, *images.shape[2:]))
    side = max(images.shape[1] for images in drawn)
    drawn = [x.repeat(side // x.shape[1], 1).repeat(side // x.shape[2], 2) for x in drawn]
    title = ', '.join(sentences)
    sheets.sheet(np.stack(drawn), [row.label for row, *_ in rows], out, title=title)


def cli():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=pathlib.Path, help='for the runs')
    parser.add_argument('group', choices=GROUPS)
    parser.add_argument('--rows', default='', help='some of them, comma-separated')
    parser.add_argument('--minutes', type=float, default=30, help='of a core; 0: as written')
    parser.add_argument('--core', type=int, default=-1, help='number of the core; -1: all')
    parser.add_argument('--table', action='store_true', help='train nothing, write what is there')
    parser.add_argument('--out', type=pathlib.Path, help='Markdown file; its picture lies beside')
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    chosen = args.rows.split(',') if args.rows else [row.name for row in GROUPS[args.group]]
    done, parts = [], []
    judge = JUDGES.get(args.group)
    if judge and not args.table:
        train(judge, args.folder, 0, args.core)
    for row in GROUPS[args.group]:
        if args.table:
            there = [one for one in row.parts if report_of(row, args.folder, None, one).exists()]
            draws = row.stages and report_of(row, args.folder, judge).exists()
        elif row.name in chosen:
            train(row, args.folder, args.minutes, args.core)
            there, draws = row.parts, row.stages
        else:
            continue
        parts += [(row, one, evaluate(row, args.folder, args.core, part=one)) for one in there]
        if draws:
            plan = json.loads((args.folder / f'{row.name}.json').read_text())
            done.append((row, plan, evaluate(row, args.folder, args.core, judge)))
            print(table(args.group, done[-1:]), flush=True)
    picture = args.out and f'\n![what each draws]({args.out.with_suffix(".png").name})\n'
    text = HEAD.format(
        group=args.group,
        minutes=f'{args.minutes:g}',
        date=datetime.date.today(),
        device=jax.devices()[0].device_kind,
        table=table(args.group, done),
        parts=parts_table(parts),
        picture=picture or '',
    )
    print(text)
    if args.out and done:
        args.out.write_text(text)
        sentences = OF_SEVERAL if args.group == 'layouts' else SENTENCES
        strip(done, args.folder, args.out.with_suffix('.png'), sentences)


if __name__ == '__main__':
    cli()
