"""The evaluation of a run in training: fewer pictures of the held-out split, no baselines."""

import numpy as np

from t2i_jax.data.feed import first_rows
from t2i_jax.evaluate.features import choose_extractor
from t2i_jax.evaluate.measures import OPTIONS, distances, once, silent
from t2i_jax.evaluate.pictures import HEADLINE, attribute_vectors
from t2i_jax.evaluate.sources import Sampled, each_once, read, read_cached
from t2i_jax.scenes import agreement
from t2i_jax.scenes.readers import readers

# of the curves: title -> patterns of names in metrics.jsonl; a panel has numbers of one scale
SCALES = 'fid', 'kid', 'inception_score'
PANELS = {
    'evaluation': [
        f'evaluation/{one.metric}*' for one in HEADLINE if not one.metric.startswith(SCALES)
    ],
    **{name: [f'evaluation/{name}*'] for name in SCALES},
}


class Evaluation:
    """A function of a sampler -> {metric: value}; what does not change is computed once."""

    def __init__(self, stage, held_out):
        """stage: a RunStage. held_out: a Split with pictures."""
        self.options = {**OPTIONS, **stage.config.eval}
        num, scenes = self.options['every_num'], held_out.meta.scenes
        self.rows = first_rows(held_out, num, held_out.meta.captions)
        self.readers = readers(scenes)
        self.attributes = attribute_vectors(self.rows)
        # each evaluation has the same ones
        self.remark = once(lambda message: print(f'\n{message}'))
        self.extract, self.real = choose_extractor(self.options, scenes, say=silent), None
        if self.extract:
            self.real = read_cached(each_once(held_out, num), self.extract, {}, 'real pictures')

    def __call__(self, sampler) -> dict[str, float]:
        samples = Sampled(sampler, self.rows, self.options['seed'])
        read_now = read(samples, self.extract, self.readers, 'evaluating')
        out = {}
        if self.extract:
            values = distances(read_now, self.real, self.extract, self.options, self.remark)
            out = {one['metric']: one['value'] for one in values}
        for reader in self.readers:
            found = agreement.agreement(read_now[reader], self.rows.of('facts'))
            if self.attributes is not None:
                found |= agreement.attribute_accuracy(read_now[reader], self.attributes)
            for name, values in found.items():
                if np.isfinite(values).any():
                    out[f'{name}_{reader}'] = float(np.nanmean(values))
        return out
