"""Pictures that are measured (samples, real ones, files, noise), and one pass over them."""

import collections
import contextlib
import hashlib
import io
import json
import os
import pathlib
from dataclasses import dataclass, field

import jax
import numpy as np
from tqdm import tqdm

from t2i_jax.data.feed import CHUNK, Rows, first_rows
from t2i_jax.evaluate import report
from t2i_jax.runtime.errors import RunError, home, quoted
from t2i_jax.runtime.files import replacing
from t2i_jax.sample import Sampler, to_uint8
from tfds_builders import pictures
from tfds_builders.files import HUGE, read_bytes, walk
from tfds_builders.pictures import ENDINGS

# the name of the checksum among the arrays of a file
CHECKSUM = 'checksum'
# pictures that a reading keeps, for the report
FIRST = 64


class Source:
    """Pictures in chunks of uint8 n s s 3, the same at each pass; `len` is their number."""

    def name(self, number) -> str:
        """Name one of them in a message."""
        return f'picture {number}'


@dataclass
class Sampled(Source):
    """The samples of the conditions of rows; sample i comes from noise of (seed, i) alone.

    given: {batch key: batch key of the data}, what the stage is given of the truth.
    """

    sampler: Sampler
    rows: Rows
    seed: int
    given: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.rows.rows)

    def __iter__(self):
        noise = self.sampler.module.noise(jax.random.key(self.seed), len(self))
        for start in range(0, len(self), CHUNK):
            batch = self.rows.batch(start, start + CHUNK)
            batch |= {key: batch[name] for key, name in self.given.items()}
            part = {name: np.asarray(x)[start : start + CHUNK] for name, x in noise.items()}
            yield self.sampler.sample(batch, part, (len(batch['index']),))['image']


@dataclass
class Real(Source):
    """The pictures of the records of rows."""

    rows: Rows

    def __len__(self):
        return len(self.rows.rows)

    def __iter__(self):
        for start in range(0, len(self), CHUNK):
            yield np.asarray(to_uint8(self.rows.batch(start, start + CHUNK)['image']))


def each_once(split, num) -> Real:
    """Take `num` records at most, each once: in a reference no picture may come twice."""
    return Real(first_rows(split, min(num, len(split))))


@dataclass
class Noise(Source):
    """Noise, pixel by pixel. shape: of one picture."""

    n: int
    shape: tuple
    seed: int

    def __len__(self):
        return self.n

    def __iter__(self):
        for start in range(0, self.n, CHUNK):
            rng = np.random.default_rng((self.seed, start))
            yield rng.integers(0, 256, (min(CHUNK, self.n - start), *self.shape), np.uint8)


@dataclass
class Files(Source):
    """The pictures of a folder, all of one size."""

    paths: list

    @classmethod
    def of(cls, folder):
        """List the pictures of a folder and its subfolders; print what else it holds.

        Raises RunError where there are none.
        """
        place = home(folder)
        if not os.path.isdir(place):
            raise RunError(f'{quoted(folder)} is not a folder. Name one with pictures.')
        paths, others = [], collections.Counter()
        found, skipped = walk(place, ('',))
        for path in found:
            if path.name.lower().endswith(ENDINGS):
                paths.append(path)
            else:
                others[
                    f'files {path.suffix.lower()}' if path.suffix else 'files without an ending'
                ] += 1
        left = ', '.join(f'{n} {what}' for what, n in [*skipped.items(), *others.most_common(9)])
        if not paths:
            there = f' It holds {left}.' if left else ''
            raise RunError(f'{quoted(folder)} holds no picture ({", ".join(ENDINGS)}).{there}')
        if left:
            print(f'{quoted(folder)}: {len(paths)} pictures. Not measured: {left}.')
        return cls(paths)

    def __len__(self):
        return len(self.paths)

    def name(self, number):
        return quoted(self.paths[number])

    def __iter__(self):
        first = None
        for start in range(0, len(self), CHUNK):
            chunk = []
            for path in self.paths[start : start + CHUNK]:
                image = pictures.read_file(path)
                first = first or (path, image.shape)
                if image.shape != first[1]:
                    (h, w, _), (other, (first_h, first_w, _)) = image.shape, first
                    raise RunError(
                        f'{quoted(path)} has {w} x {h} pixels, {quoted(other)} {first_w} x '
                        f'{first_h}: bring all to one size first, since the way of resizing '
                        'changes the numbers.'
                    )
                chunk.append(image)
            yield np.stack(chunk)


# ---------------------------------------------------------------------------------------- one pass
def shown(source, what):
    """Go over the chunks of a source with a progress bar, which is there from the start."""
    bar = dict(desc=what, total=len(source), unit=' pictures', leave=False, disable=None)
    with tqdm(**bar) as progress:
        for images in source:
            yield images
            progress.update(len(images))


def read(source, extract, readers, what) -> dict:
    """Read pictures in one pass.

    extract: a feature network, or None. readers: {name: what has `decode` of pictures}.
    what: for the progress bar.

    Returns {'features', 'logits', <reader>: what it reads, a row a picture, 'colours': `colours`,
    'mean': the mean picture, 'first': some pictures, 'digest': their SHA-256, 'n'}. Raises RunError
    for features that are not finite.
    """
    found, total, first, digest, n = {}, 0.0, [], hashlib.sha256(), 0
    for images in shown(source, what):
        parts = extract(images, first=n) if extract else {}
        for name, value in parts.items():
            bad = np.flatnonzero(~np.isfinite(value).all(1))
            if len(bad):
                raise RunError(
                    f'The {name} of {source.name(n + bad[0])} ({what}) are not finite: '
                    f'{extract.tag["name"]}. Look at that picture and at the weights.'
                )
        parts |= {name: reader.decode(images) for name, reader in readers.items()}
        parts['colours'] = colours(images)
        for name, value in parts.items():
            found.setdefault(name, []).append(np.asarray(value))
        total = total + images.astype(np.float64).sum(0)
        digest.update(images.tobytes())
        first += list(images[: max(0, FIRST - len(first))])
        n += len(images)
    found = {name: np.concatenate(parts) for name, parts in found.items()}
    return found | dict(mean=total / n, first=np.stack(first), digest=digest.hexdigest(), n=n)


def colours(images) -> np.ndarray:
    """Return the mean colour of each picture and of the products of its channels -> (n, 12).

    images: uint8 n h w 3
    """
    rows = []
    for image in images:
        x = image.reshape(-1, 3).astype(np.float64) / 255
        rows.append(np.concatenate([x.mean(0), (x.T @ x / len(x)).ravel()]))
    return np.stack(rows)


def read_cached(source, extract, readers, what) -> dict:
    """Read pictures as `read`, or find what was read of them before.

    It is looked for in the user's cache folder, under a hash of the pictures and of all that reads
    them. A file there that is damaged, or another's, is made again; where none can be written the
    pictures are read each time.
    """
    digest, n = hashlib.sha256(), 0
    for images in shown(source, f'looking for {what}'):
        digest.update(images.tobytes())
        n += len(images)
    digest, tags = digest.hexdigest(), {name: reader.tag for name, reader in readers.items()}
    read_by = extract.tag if extract else None, tags
    key = [digest, n, images.shape[1:], read_by, report.version()]
    key = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    cache = pathlib.Path(os.path.expanduser(os.environ.get('XDG_CACHE_HOME') or '~/.cache'))
    path = cache / 't2i_jax' / 'reference' / f'{key[:20]}.npz'
    arrays = stored(path, key)
    if arrays is None:
        found = read(source, extract, readers, what)
        arrays = {name: value for name, value in found.items() if name not in ('digest', 'n')}
        store(path, key, arrays)
    return arrays | dict(digest=digest, n=n)


def stored(path, key) -> dict | None:
    """Read arrays that `store` wrote under a key; None where there are none, or damaged ones."""
    try:
        with np.load(io.BytesIO(read_bytes(path, HUGE)), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return arrays if str(arrays.pop(CHECKSUM)) == checksum(key, arrays) else None
    except Exception:
        # damaged bytes make their readers raise many kinds
        return None


def store(path, key, arrays):
    """Write arrays under a key, where the disk takes them."""
    with contextlib.suppress(OSError), replacing(path) as temporary, temporary.open('wb') as file:
        np.savez(file, **arrays, **{CHECKSUM: checksum(key, arrays)})


def checksum(key, arrays) -> str:
    """Hash a key and arrays with their names, types and shapes."""
    digest = hashlib.sha256(key.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f'{name} {array.dtype.str} {array.shape}'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
