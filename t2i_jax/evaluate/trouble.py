"""What numbers of a run say of the usual troubles of a GAN, and what to try."""

from collections.abc import Iterable

import numpy as np

# of two pictures of one sentence: MS-SSIM above which they are nearly the same
ALIKE = 0.9
# logits of real minus those of drawn pictures at which D takes 400 of 401 pairs rightly
WINS = 6.0
# metrics of how well pictures fit their sentences
MATCHING = 'sem_acc', 'r_precision'
DEAF = (
    'Pictures hardly depend on their sentence: {metric} is {value:.3f}, {other} {level:.3f}. '
    'Train longer, or let D insist on the sentence: near_wrong, game.contrast, unit_text '
    '(docs/training.md, the game); --mode=evaluate --stage=text says whether the encoder reads it.'
)
SAME = (
    'Pictures of a sentence are nearly alike: MS-SSIM {value:.2f}. Lower weights that hold them '
    'together (damsm_weight, lambda_stream, game.contrast), or give z more room: a larger nz, a '
    'smaller sentence vector (nt, nc).'
)
WON = (
    'D tells drawn from real pictures with ease: its logits differ by {value:.1f}, and G learns '
    "little. Lower D's rate or width, or hold it back: game.spectral, game.augment, game.lecam, "
    'game.r1 (docs/training.md, the game).'
)


def troubles(values: Iterable[dict], metrics: dict) -> list[str]:
    """List the troubles that the values of a report and the logs of training show, in sentences.

    values: of a report. metrics: as `Run.metrics` returns them, {} without any.
    """
    out, found = [], {}
    for one in values:
        protocol = one['protocol']
        key = one['metric'], protocol.get('decoder', ''), protocol.get('split', '')
        found.setdefault(key, {})[protocol.get('pictures', 'drawn')] = one
    for (metric, *_), of in found.items():
        if 'drawn' not in of:
            continue
        drawn = of['drawn']
        if metric.startswith(MATCHING):
            chance = drawn['protocol'].get('chance')
            level = of['shuffled']['value'] if 'shuffled' in of else chance
            low = drawn.get('interval', [drawn['value']])[0]
            if isinstance(level, (int, float)) and low <= level:
                other = 'of shuffled real pairs' if 'shuffled' in of else 'by chance'
                said = dict(metric=metric, value=drawn['value'], other=other, level=level)
                out.append(DEAF.format(**said))
        if metric == 'ms_ssim_same_caption' and drawn['value'] > ALIKE:
            out.append(SAME.format(value=drawn['value']))
    if {'train/real_logit', 'train/drawn_logit'} <= metrics.keys():
        apart = metrics['train/real_logit'] - metrics['train/drawn_logit']
        apart = apart[np.isfinite(apart)]
        last = apart[-max(1, len(apart) // 10) :]
        if len(last) and last.mean() > WINS:
            out.append(WON.format(value=last.mean()))
    # once, whatever the split and the reader
    return list({text.partition(':')[0]: text for text in reversed(out)}.values())[::-1]
