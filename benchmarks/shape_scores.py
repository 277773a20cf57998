"""How many pictures of a run on shape_scenes show what their captions say, read by the analytic decoder.

    python -m benchmarks.shape_scores --workdir=runs/quick

Captions of the splits `test` (seen combinations of class and colour) and `test_unseen`, one a record, unseen noise. Beside the run's
shares stand those of the real pictures (upper bound), of the run's pictures with shuffled captions (chance), and the mean number of
objects that are found in a picture (in `single`, one is right).
"""
import argparse

import jax
import numpy as np

from t2i_jax import run
from t2i_jax.metrics.shape_scenes import decode_all, score
from t2i_jax.sample import Sampler
from t2i_jax.tables import Split
from t2i_jax.text import encode_sentences

COLUMNS = ('colour', 'class', 'class_colour', 'size', 'place', 'exact')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workdir', required=True)
    parser.add_argument('--num', type=int, default=500, help='captions of each split')
    parser.add_argument('--seed', type=int, default=1, help='of the noise')
    parser.add_argument('--step', type=int, help='a checkpoint other than the newest')
    args = parser.parse_args()
    config, sampler = run.load_config(args.workdir), Sampler.load(args.workdir, args.step)
    mode = 'multi' if '/multi' in config.data.name else 'single'
    print(f'{args.workdir}, stage {sampler.stage}, step {sampler.step:,}, {args.num} captions a split, noise seed {args.seed}')
    print(f'{"split":<12} {"pictures":<18}' + ''.join(f'{name:>14}' for name in COLUMNS) + f'{"objects":>14}')
    for name in ('test', 'test_unseen'):
        split = Split(config.data, name, ('image', 'facts'), sampler.vocabulary)
        rows = np.arange(min(args.num, len(split)))
        which = rows % np.array([len(split.texts[i]) for i in rows])       # each record with another of its captions
        facts = split.tables['facts'][rows, which]
        noise = sampler.module.noise(jax.random.key(args.seed), len(rows))
        batch = encode_sentences([split.texts[i][c] for i, c in zip(rows, which)], sampler.vocabulary, sampler.meta.length)
        images = sampler.draw(batch, noise, (len(rows),))['image']
        scenes = {'drawn': (decode_all(images, mode), facts), 'real': (decode_all(split.tables['image'][rows], mode), facts)}
        scenes['drawn, shuffled'] = scenes['drawn'][0], np.roll(facts, len(rows) // 2, 0)
        for what, (decoded, said) in scenes.items():
            shares = score(decoded, said)
            found = (decoded[:, :-1, 5] >= 0).sum(1).mean()
            print(f'{name:<12} {what:<18}' + ''.join(f'{shares[c]:>14.3f}' for c in COLUMNS) + f'{found:>14.2f}')


if __name__ == '__main__':
    main()
