"""Trained stages that judge how well pictures fit captions.

A judge is a stage that makes 'codes', vectors of pictures (`code`) and of captions (`sentence`),
whose cosine says how well they fit: a DAMSM, or the joint embedding that GAN-CLS begins with. It
reads captions with its own vocabulary. One that taught the generator flatters it, which the
protocol says (`trained_generator`); `eval.scorer` names another run's, which judges as well.

A captioner is a stage that describes pictures; that of the run `eval.scorer` reads them, too.
"""

import hashlib

import jax
import numpy as np

from t2i_jax import stage as core
from t2i_jax.data.feed import CHUNK
from t2i_jax.data.text import encode_chars
from t2i_jax.draw.outputs import texts_of
from t2i_jax.metrics.resize import resize
from t2i_jax.run import Run
from t2i_jax.runtime.errors import RunError, home, quoted
from t2i_jax.sample import Sampler

# to the size that a judge reads
FILTER = 'pil_bicubic'


class Judge:
    """A trained stage as a reader of pictures (`decode`, `tag`) and of captions (`read`)."""

    def __init__(self, name, sampler, teachers=()):
        """Prepare a stage.

        name: of its numbers, the protocol's `decoder`
        sampler: of the stage
        teachers: `weights_of` those who taught the generator that is judged

        Raises RunError where it reads no pictures.
        """
        if 'image' not in sampler.module.needs:
            raise RunError(
                f'Stage {sampler.name} of scorer {name} was trained on masks or on stored features '
                'of pictures, and cannot see new pictures. Take another scorer.'
            )
        self.name, self.sampler, self.size = name, sampler, sampler.meta.size
        weights = weights_of(*sampler.weights)
        self.tag = dict(
            name=name,
            stage=sampler.name,
            step=sampler.step,
            weights=weights,
            size=self.size,
            resize=FILTER,
            vocabulary=sampler.vocabulary.hash[:20],
            trained_generator=weights in teachers,
        )

        def codes(params, stats, batch):
            return core.apply(sampler.program, 'codes', params, stats, batch)

        # what is not returned is not computed: jit leaves its network out
        self._code = jax.jit(lambda *args: codes(*args).code)
        self._sentence = jax.jit(lambda *args: codes(*args).sentence)

    def decode(self, images):
        """Encode whole pictures, uint8 n s s 3 -> n d."""
        pixels = np.asarray(resize(images, self.size, FILTER)) / 127.5 - 1
        words, _, length = self._encoded([''] * len(pixels))
        return self._chunks(self._code, words | dict(image=pixels, length=np.ones_like(length)))

    def read(self, texts):
        """Encode captions, cut to the length that it reads.

        Returns (codes n d, ids of what it reads n t, how many words or characters it knows n).
        """
        words, ids, length = self._encoded(texts)
        blank = np.broadcast_to(np.float32(0), (len(texts), self.size, self.size, 3))
        return self._chunks(self._sentence, words | dict(image=blank, length=length)), ids, length

    def _encoded(self, texts):
        if 'chars' in self.sampler.module.needs:
            ids = np.stack([encode_chars(text) for text in texts])
            return {'chars': ids}, ids, (ids > 0).sum(1).astype(np.int32)
        encoded = [self.sampler.vocabulary.encode(text, self.sampler.meta.length) for text in texts]
        ids = np.stack([words for words, _ in encoded])
        return {'tokens': ids}, ids, np.array([n for _, n in encoded], np.int32)

    def _chunks(self, function, batch):
        parts = [np.asarray(part) for part in in_chunks(self.sampler, function, batch)]
        return np.concatenate(parts)[: len(batch['length'])]


def in_chunks(sampler, function, batch):
    """Yield function(params, stats, batch) of chunks; the last is filled up with its last row."""
    for part in sampler.chunks(batch, len(batch['length'])):
        yield function(*sampler.weights, part)


def weights_of(params, stats) -> str:
    """Hash the networks of a stage: equal for a judge and for the copy in a generator's stage."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path((params, stats)):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:20]


def copied_weights(sampler, judge):
    """Return the weights of the networks that a stage has loaded from a judge, by its names.

    -> (params, stats), each {network of the judge: tree}
    """
    loaded = sampler.module.loaded().items()
    names = {network: keyword for keyword, (stage, network) in loaded if stage == judge}
    return tuple(
        {network: tree[name] for network, name in names.items() if name in tree}
        for tree in sampler.weights
    )


# ------------------------------------------------------------------------------------ who judges
def judges_of(stage, sampler, other='') -> dict[str, Judge]:
    """Return what judges the samples of a stage, {name: Judge}.

    'own' is the judge that the stage declares, where the run has it; 'run_<name>' that of the
    workdir `other` (or <workdir>/<stage>). One with the weights of an earlier one is left out.

    Raises RunError where the other one has no judge, or the stage draws from no sentences.
    """
    if not sampler.reads_text:
        if other:
            raise RunError(
                f'eval.scorer={other} compares pictures with captions, and '
                f'{type(sampler.module).__name__} draws without. Leave it out.'
            )
        return {}
    declared = [name for name in sampler.module.judges if name in stage.run.names]
    teachers = {weights_of(*copied_weights(sampler, name)) for name in sampler.module.taught_by}
    mesh, found = sampler.rows.mesh if sampler.rows else None, {}

    def add(name, judge):
        judge = Judge(name, judge, teachers)
        if judge.tag['weights'] not in {one.tag['weights'] for one in found.values()}:
            found[name] = judge

    if judge := scorers_in(other).get('codes') if other else None:
        add(f'run_{judge.workdir.name}', Sampler(judge, chunk=CHUNK, mesh=mesh))
    for name in declared:
        own = 'own' if len(declared) == 1 else f'own_{name}'
        try:
            add(own, Sampler(stage.run[name].source(), chunk=CHUNK, mesh=mesh))
        except RunError as error:
            # the judge belongs to another run, which is gone: the generator may have a copy
            if copy := copied(stage.run[name], sampler, mesh):
                add(own, copy)
            else:
                print(f'R-precision by the judge of the run itself is left out: {error}')
    return found


def copied(judge, sampler, mesh) -> Sampler | None:
    """Return a judge with the weights that a later stage holds.

    None where they are incomplete.
    """
    weights = copied_weights(sampler, judge.name)
    try:
        judge = judge.origin()
        parts = core.split(judge.module)
    except RunError:
        return None
    if {*parts.params, *parts.stats} != {*weights[0], *weights[1]}:
        return None
    return Sampler(judge, sampler.step, weights=weights, chunk=CHUNK, mesh=mesh)


def scorers_in(other) -> dict:
    """Return the stages that score the pictures of others, {what they make: RunStage}.

    other: a workdir, of which the first that compares pictures with captions ('codes') and the
        first that describes them ('tokens') are taken, or <workdir>/<stage>.
    Raises RunError where there is none.
    """
    folder, stage = home(other).resolve(), None
    if (folder.parent / 'config.json').exists() and folder.name in Run.open(folder.parent).names:
        folder, stage = folder.parent, folder.name
    found = {}
    for one in Run.open(folder).stages:
        made = [name for name in ('codes', 'tokens') if one.makes_any((name,))]
        if made and stage in (None, one.name) and (made[0] == 'codes' or describes(one)):
            found.setdefault(made[0], one)
    if not found:
        raise RunError(
            f'eval.scorer: {quoted(folder)} has no stage{f" {stage}" if stage else ""} that '
            'compares pictures with captions, as a DAMSM does, or describes them. Name the workdir '
            'of a run that has one.'
        )
    return found


def describes(stage) -> bool:
    """Whether a RunStage makes captions of pictures."""
    return stage.makes_any(('tokens',)) and 'image' in stage.cls.draws_from


class Describer:
    """A trained stage as a reader of pictures: `decode`, `tag`."""

    def __init__(self, name, sampler):
        self.sampler, self.size = sampler, sampler.meta.size
        self.tag = dict(
            name=name,
            stage=sampler.name,
            step=sampler.step,
            weights=weights_of(*sampler.weights),
            size=self.size,
            resize=FILTER,
            vocabulary=sampler.vocabulary.hash[:20],
        )

    def decode(self, images):
        """Describe pictures, uint8 n s s 3 -> n texts, an array."""
        pixels = np.asarray(resize(images, self.size, FILTER)) / 127.5 - 1
        noise = self.sampler.module.noise(jax.random.key(0), len(pixels))
        found = self.sampler.sample({'image': pixels}, noise, (len(pixels), 1))
        return np.array([text for (text,) in texts_of(found['tokens'], self.sampler.vocabulary)])


def captioners_of(other, mesh=None) -> dict[str, Describer]:
    """Return the captioner of the run `other`, {'run_<name>_captions': Describer}, or {}."""
    one = scorers_in(other).get('tokens') if other else None
    if one is None:
        return {}
    name = f'run_{one.workdir.name}_captions'
    return {name: Describer(name, Sampler(one, chunk=CHUNK, mesh=mesh))}
