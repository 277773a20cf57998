"""What a stage says of itself on held-out records: its `measure`, chunk by chunk over the rows of a split."""

import jax
import numpy as np

from t2i_jax import stage as core

ROWS = 64  # at a time; a number that the usual numbers of devices divide, since random draws depend on it


class Measure:
    """A function: what is asked (`sources.Rows`) -> {name: (n,) float64} by the stage of a sampler, with its weights; {} where it has none."""

    def __init__(self, sampler):
        self.sampler = sampler
        self.there = type(sampler.module).measure is not core.Stage.measure
        devices = sampler.rows.mesh.size if sampler.rows else 1
        self.rows = -(-ROWS // devices) * devices
        graph = sampler.program.graph
        self._run = jax.jit(
            lambda params, stats, batch, key: core.call(
                graph, params, stats, 'measure', batch, key, training=False
            )[0]
        )

    def __call__(self, asked, seed, change=lambda batch: batch) -> dict:
        """change: batch -> batch, what is done to each before. The draws of a chunk depend on the seed and its number; the last chunk is
        filled up with the first rows."""
        n, parts = len(asked.rows), []
        for number, start in enumerate(range(0, n if self.there else 0, self.rows)):
            rows = np.arange(start, start + self.rows) % n
            batch = change(
                type(asked)(asked.split, asked.rows[rows], asked.captions[rows]).batch(0, self.rows)
            )
            batch = jax.tree.map(lambda x: jax.device_put(np.asarray(x), self.sampler.rows), batch)
            key = jax.random.fold_in(jax.random.key(seed), number)
            parts.append(
                jax.tree.map(
                    lambda x: np.asarray(x, np.float64),
                    self._run(self.sampler.params, self.sampler.stats, batch, key),
                )
            )
        found = {
            name: np.concatenate([part[name] for part in parts])[:n]
            for name in (parts[0] if parts else ())
        }
        for name in [name for name, values in found.items() if np.isinf(values).any()]:
            print(
                f'{name} is infinite for {np.isinf(found.pop(name)).sum()} of {n} records, so it has no mean and is left out.'
            )
        return found
