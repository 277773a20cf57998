"""Where pictures that are measured come from: a sampler, a split, a folder, noise. Each iterates over chunks of uint8 n s s 3."""

import pathlib
from typing import NamedTuple

import cv2
import jax
import numpy as np

from t2i_jax.data.feed import CHUNK, Rows, first_rows
from t2i_jax.runtime.errors import RunError
from t2i_jax.sample import Sampler, to_uint8

KINDS = '.png', '.jpg', '.jpeg', '.webp', '.bmp'


class Drawn(NamedTuple):
    """The pictures of a sampler for what is asked; row i from noise that depends on (seed, i) alone."""

    sampler: Sampler
    asked: Rows
    seed: int

    def __len__(self):
        return len(self.asked.rows)

    def __iter__(self):
        noise = self.sampler.module.noise(jax.random.key(self.seed), len(self))
        for start in range(0, len(self), CHUNK):
            batch = self.asked.batch(start, start + CHUNK)
            part = {name: np.asarray(x)[start : start + CHUNK] for name, x in noise.items()}
            yield self.sampler.sample(batch, part, (len(batch['index']),))['image']


class Real(NamedTuple):
    """The pictures of a split that belong to what is asked."""

    asked: Rows

    def __len__(self):
        return len(self.asked.rows)

    def __iter__(self):
        for start in range(0, len(self), CHUNK):
            yield np.asarray(to_uint8(self.asked.batch(start, start + CHUNK)['image']))


def reals(split, num) -> Real:
    """Each record once, `num` at most: as a reference no picture may come twice."""
    return Real(first_rows(split, min(num, len(split))))


class Noise(NamedTuple):
    """Pictures of noise, pixel by pixel."""

    n: int
    shape: tuple
    seed: int

    def __len__(self):
        return self.n

    def __iter__(self):
        for start in range(0, self.n, CHUNK):
            rng = np.random.default_rng((self.seed, start))
            yield rng.integers(0, 256, (min(CHUNK, self.n - start), *self.shape), np.uint8)


class Files(NamedTuple):
    """The pictures of a folder, which have one size."""

    paths: list

    @classmethod
    def of(cls, folder):
        paths = sorted(
            p for p in pathlib.Path(folder).expanduser().rglob('*') if p.suffix.lower() in KINDS
        )
        if not paths:
            raise RunError(f'{folder} holds no picture ({", ".join(KINDS)}).')
        return cls(paths)

    def __len__(self):
        return len(self.paths)

    def name(self, number):
        return str(self.paths[number])

    def __iter__(self):
        first = None
        for start in range(0, len(self), CHUNK):
            chunk = []
            for path in self.paths[start : start + CHUNK]:
                image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
                if image is None:
                    raise RunError(f'{path} cannot be decoded. Repair it, or take it away.')
                first = first or (path, image.shape)
                if image.shape != first[1]:
                    raise RunError(
                        f'{path} has {image.shape[1]} x {image.shape[0]} pixels, {first[0]} {first[1][1]} x {first[1][0]}: '
                        'bring all to one size first, since the way of resizing changes the numbers.'
                    )
                chunk.append(image)
            yield np.stack(chunk)
