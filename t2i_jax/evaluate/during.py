"""The evaluation of a run in training: fewer pictures of the held-out split, no baselines."""

import numpy as np

from t2i_jax.data.feed import first_rows
from t2i_jax.evaluate.evaluate import OPTIONS, chosen_extractor, distances, gathered, reference
from t2i_jax.evaluate.sources import Drawn, reals
from t2i_jax.scenes import agreement
from t2i_jax.scenes.readers import readers


class Evaluation:
    """A function: a sampler -> {metric: value}. What does not change is computed once."""

    def __init__(self, stage, held_out):
        """stage: a RunStage. held_out: a Split with pictures."""
        self.options = {**OPTIONS, **stage.config.eval}
        num, mode = self.options['every_num'], held_out.meta.scenes
        self.rows = first_rows(held_out, num, held_out.meta.captions)
        self.decoders = readers(mode)
        self.attributes = None
        if mode == 'single' and 'attributes' in held_out.tables:
            self.attributes = self.rows.of('attributes')
        self.extract = chosen_extractor(self.options, mode if self.decoders else '')
        self.real = None
        if self.extract:
            self.real = reference(reals(held_out, num), self.extract, {}, 'real pictures')

    def __call__(self, sampler) -> dict[str, float]:
        pictures = Drawn(sampler, self.rows, self.options['seed'])
        drawn = gathered(pictures, self.extract, self.decoders, 'evaluating')
        out = {}
        if self.extract:
            values = distances(drawn, self.real, self.extract, self.options, lambda message: None)
            out = {one['metric']: one['value'] for one in values}
        for decoder in self.decoders:
            found = agreement.agreement(drawn[decoder], self.rows.of('facts'))
            if self.attributes is not None:
                found |= agreement.attribute_accuracy(drawn[decoder], self.attributes)
            for name, values in found.items():
                if np.isfinite(values).any():
                    out[f'{name}_{decoder}'] = float(np.nanmean(values))
        return out
