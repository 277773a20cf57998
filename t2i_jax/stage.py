"""The one abstraction of this library: a stage, its phases, and one training step.

A system is a list of stages. A stage owns named networks and, in each training step, runs its
phases in order: each phase minimises one loss over the networks that it trains. Networks are
`flax.nnx` modules. This file splits a stage into plain dictionaries once; everything after that
is `jax.jit`, `jax.grad` and optax.
"""

import functools
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from t2i_jax.runtime.errors import RunError
from t2i_jax.runtime.sharding import over_rows, whole


class Phase(NamedTuple):
    """One loss, minimised over the networks that it trains, at steps with step % every == at.

    loss: a method of the stage, (batch, key, out) -> (scalar, {name: scalar}).
    trains: attributes of the stage.
    """

    loss: str
    trains: tuple[str, ...]
    every: int = 1
    at: int = 0


class Meta(NamedTuple):
    """The knowledge of a data set about itself. Networks take their sizes from it.

    name: of the data set.
    vocabulary_size: words, including the padding (id 0).
    length: words of a caption after padding or cutting.
    size: pixels, the side of the largest image.
    attributes: length of the attribute vector.
    embedding_dim: of text vectors stored with the data.
    captions: captions of an image in one batch row.
    nominal: whether these are published values, because the data are not there.
    object_names, attribute_names: in the order of their ids; nominal values lack them.
    words: of the vocabulary, those of ids 1, 2, ...; nominal values lack them.
    scenes: 'single', 'multi' or 'rules' for shape_scenes, whose pictures can be read exactly.
    """

    name: str
    vocabulary_size: int = 0
    length: int = 0
    size: int = 64
    classes: int = 0
    object_classes: int = 0
    max_objects: int = 0
    attributes: int = 0
    embedding_dim: int = 0
    captions: int = 1
    nominal: bool = False
    object_names: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()
    scenes: str = ''
    words: tuple[str, ...] = ()


class Stage(nnx.Module):
    """A trained part of a system; its attributes are networks (lists of them: nnx.List).

    `__init__(self, meta, *, <hyper-parameters with the paper's values>, <one keyword for each
    entry of loads>, rngs)`. docs/add_a_system.md is a guided tour. What a stage may define:

    forward(batch, key) -> any pytree: what its generator makes of a batch. It runs once a step and
      reaches every loss as `out`; each phase differentiates it only towards what the phase trains.
    sample(batch, noise) -> {'image': b s s 3 in [-1, 1], ...}: one entry for each name in `makes`.
    noise(key, n): the random inputs of n samples.
    encode(batch) -> any pytree of floats, rows first: its view of sentences, which it accepts
      back as `batch['encoded']`; so points between two sentences can be drawn.
    codes(batch, key=None) -> an object with `code` (pictures) and `sentence`, both b d, whose
      cosine says how well they fit: for stages whose `makes` has 'codes'.
    pair_scores(pictures, captions, length) -> {name: (pictures, captions)}: other scores of pairs
      than the cosine, the best first; both are `codes`, length: words of each caption.
    measure(batch, key) -> {name: (b,) float32}: numbers of each record, NaN where one does not
      apply; the evaluation reports their means.
    explorations of its own, each a static method (sampler, batch, texts, num, seed) -> (pictures
      uint8 n k s s 3, n labels), which `explores` names. sampler: a Sampler of the stage. batch,
      texts: the given sentences (as `encoded`), or `num` held-out records with the keys of `needs`.
      A row of the result is one condition, with what moves from left to right; rows of a batch and
      noise (sampler.noise(num, seed, n)) are drawn by sampler.sample(batch, noise, (n, num)).

    phases, ema, needs, draws_from, takes, makes, explores, taught_by, likelihoods and sampler may
    also be set in `__init__`, where keywords decide; the class then has all that `makes`,
    `explores` and the losses of `phases` can be.
    """

    phases: tuple[Phase, ...] = ()
    # networks of which a moving average of the parameters is saved; sampling uses it
    ema: tuple[str, ...] = ()
    # networks that losses alone read: they are left on the disk where nothing is trained
    critics: tuple[str, ...] = ()
    # those of its noise that are normal
    normal: tuple[str, ...] = ('z', 'eps')
    # keyword (and attribute) -> '<earlier stage>.<its network>'
    loads: dict[str, str] = {}
    # the batch keys that training reads
    needs: tuple[str, ...] = ()
    # the conditions that a sample depends on, names of conditions.CONDITIONS
    draws_from: tuple[str, ...] = ()
    # the conditions that it makes itself where they are not given, also of CONDITIONS
    takes: tuple[str, ...] = ()
    # kind of pictures -> {batch key that it takes: batch key of the data's own}: the evaluation
    # also draws with these
    truths: dict[str, dict[str, str]] = {}
    # what `sample` (or `codes`) returns, names of outputs.OUTPUTS
    makes: tuple[str, ...] = ()
    # the earlier stages that can score its pictures against sentences
    judges: tuple[str, ...] = ()
    # those of them whose scores are part of its loss, so that they flatter it
    taught_by: tuple[str, ...] = ()
    # name in `measure` -> the form of that likelihood, as scenes/rules.py reads it for its floor
    likelihoods: dict[str, dict[str, Any]] = {}
    # exploration -> the method that it is made with: of the table explore.EXPLORATIONS, or its own
    explores: dict[str, str] = {}
    # constructor keywords of the small variant
    tiny: dict[str, Any] = {}
    # the sampler that its losses need; '' for any
    sampler: str = ''
    # batch key -> what to do where a data set lacks it, for the reader of the error
    advice: dict[str, str] = {}
    # False while validation losses are computed
    training = True

    @classmethod
    def skip(cls, config) -> bool:
        """Return whether this stage is not trained under this config."""
        return False

    @classmethod
    def check(cls, model):
        """Check what training needs besides data, such as a file of weights.

        It is called before any data are read. model: the constructor's keywords.
        Raises RunError or DataError.
        """

    @classmethod
    def loaded(cls) -> dict[str, tuple[str, str]]:
        """Return `loads` with its paths split: {keyword: (stage, network)}."""
        return {keyword: tuple(path.split('.')) for keyword, path in cls.loads.items()}

    def encode(self, batch):
        """Return its view of sentences, for explorations."""
        raise RunError(f'{type(self).__name__} has no `encode`: its sentences cannot be explored.')

    def noise(self, key, n):
        """Return the random inputs of n samples; row i depends on (key, i), not on n."""
        return {}

    def sample(self, batch, noise):
        """Return what the stage makes, one array or list of arrays for each name in `makes`."""
        raise TypeError(f'{type(self).__name__} makes no samples.')

    def network(self, name):
        """Return one of its networks, as `loads` of a later stage names it."""
        return getattr(self, name)

    def exploration(self, name):
        """Return the function of an exploration of its own."""
        return getattr(self, self.explores[name])

    def pair_scores(self, pictures, captions, length):
        """Return how well each caption fits each picture, without weights; besides the cosine."""
        return {}

    def measure(self, batch, key):
        """Return numbers of each record, {name: (b,) float32}."""
        return {}


def unused(config, name):
    """Return whether a stage has neither steps nor epochs, for `skip` of one that is optional."""
    block = config.stages.get(name, {})
    return not block.get('steps') and not block.get('epochs')


class State(flax.struct.PyTreeNode):
    """Everything that a checkpoint holds.

    params, stats: network -> parameters, running statistics. opt: one optimiser state a phase.
    ema: network -> averaged parameters. ema_stats: running statistics that fit them (`settle`).
    bad_step, bad_phase: -1 while all updates are finite.
    """

    step: jax.Array
    seed: jax.Array
    params: dict[str, Any]
    stats: dict[str, Any]
    opt: tuple[Any, ...]
    ema: dict[str, Any]
    ema_stats: dict[str, Any]
    bad_step: jax.Array
    bad_phase: jax.Array

    def sampling_params(self):
        """Return the parameters that sampling uses: averaged where there is an average."""
        return {**self.params, **self.ema}

    def sampling_stats(self):
        """Return the running statistics that sampling uses."""
        return {**self.stats, **self.ema_stats}

    def weights(self, critics=(), averaged=True):
        """Return (parameters, statistics) to draw with, without those of the critics."""
        both = self.params, self.stats
        both = (self.sampling_params(), self.sampling_stats()) if averaged else both
        return tuple({k: x for k, x in tree.items() if k not in critics} for tree in both)


class Program(NamedTuple):
    """The static half of a stage: with it and a State everything can be computed.

    forward: whether the stage has a shared forward pass. txs: one optax transformation a phase.
    decay: of the moving average. warmup: whether it is smaller at first, see `decay_at`.
    absent: parameters and statistics of the critics as ShapeDtypeStructs, for `apply`.
    """

    graph: Any
    phases: tuple[Phase, ...]
    ema: tuple[str, ...]
    forward: bool
    txs: tuple[Any, ...] = ()
    decay: float = 0.999
    warmup: bool = False
    absent: tuple[dict[str, Any], dict[str, Any]] = ({}, {})


class Parts(NamedTuple):
    """A stage taken apart: its structure, and network -> parameters and running statistics."""

    graph: Any
    params: dict[str, Any]
    stats: dict[str, Any]


def pick(tree, names):
    """Return the entries of a dictionary that have these names, as far as they exist."""
    return {name: tree[name] for name in names if name in tree}


def split(stage) -> Parts:
    """Take a stage apart. Raises ValueError on variables that are neither Param nor BatchStat."""
    graph, params, stats = nnx.split(stage, nnx.Param, nnx.BatchStat)
    return Parts(graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats))


def program(stage, txs=(), decay=0.999, warmup=False) -> Program:
    """Return the Program of a stage with these optimisers, one a phase."""
    phases, ema, parts = tuple(stage.phases), tuple(stage.ema), split(stage)
    absent = tuple(abstract(pick(tree, stage.critics)) for tree in parts[1:])
    forward = hasattr(stage, 'forward')
    return Program(parts.graph, phases, ema, forward, tuple(txs), decay, warmup, absent)


def abstract(tree):
    """Return a tree of arrays as ShapeDtypeStructs."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def compute_in(stage, dtype):
    """Set the type in which every layer computes; parameters and statistics stay float32."""
    for _, module in nnx.iter_modules(stage):
        if hasattr(module, 'dtype') and hasattr(module, 'param_dtype'):
            module.dtype = jnp.dtype(dtype)


def call(graph, params, stats, method, *args, training=True):
    """Call a method of the stage as a pure function -> (its result, the statistics after it)."""
    stage = nnx.merge(graph, whole(params), stats)
    stage.training = training
    return getattr(stage, method)(*args), split(stage).stats


def init_state(prog: Program, params, stats, seed) -> State:
    """Return the State before the first step."""
    opt = tuple(
        tx.init(pick(params, phase.trains)) for phase, tx in zip(prog.phases, prog.txs, strict=True)
    )
    # copies: donated buffers must not be shared
    ema, ema_stats = jax.tree.map(jnp.copy, (pick(params, prog.ema), pick(stats, prog.ema)))
    good = jnp.int32(-1)
    return State(
        jnp.int32(0), jnp.uint32(seed), params, stats, opt, ema, ema_stats, good, jnp.int32(-1)
    )


def train_step(prog: Program, state: State, batch) -> tuple[State, dict[str, jax.Array]]:
    """Run one step, the shared forward pass and every phase in order -> (state, metrics).

    A phase whose loss, gradient, update or statistics are not finite changes nothing but
    `bad_step` and `bad_phase`, and after it no phase of any step changes anything: so a bad state
    is never saved. Metrics of a phase that did not run are NaN.
    """
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    out, pull_back, new = shared_forward(prog, state, batch, key)
    metrics = {}
    for index, phase in enumerate(prog.phases):

        def run(new, index=index):
            return run_phase(prog, index, new, batch, key, out, pull_back)

        if phase.every == 1:
            new, logs = run(new)
        else:
            shape = jax.eval_shape(run, new)[1]
            idle = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), shape)
            runs = state.step % phase.every == phase.at
            new, logs = jax.lax.cond(runs, run, lambda new, idle=idle: (new, idle), new)
        metrics |= logs
    stats = select(new.bad_step < 0, new.stats, state.stats)
    return new.replace(step=state.step + 1, stats=stats), metrics


def select(condition, a, b):
    """Return the tree a where the condition holds, otherwise b."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def shared_forward(prog, state, batch, key):
    """Run the generator on a batch -> (out, its pull-back to the trained networks, new state)."""
    if not prog.forward:
        return None, None, state
    trained = {name for phase in prog.phases for name in phase.trains}

    def forward(train):
        params = {**state.params, **train}
        return call(prog.graph, params, state.stats, 'forward', batch, key)

    out, pull_back, stats = jax.vjp(forward, pick(state.params, trained), has_aux=True)
    return out, pull_back, state.replace(stats={**state.stats, **pick(stats, trained)})


def run_phase(prog, index, state, batch, key, out, pull_back):
    """Update the networks of one phase, where all that changes is finite -> (state, metrics)."""
    phase, tx = prog.phases[index], prog.txs[index]
    train = pick(state.params, phase.trains)

    def loss_fn(train, out):
        params = {**state.params, **train}
        (loss, logs), stats = call(prog.graph, params, state.stats, phase.loss, batch, key, out)
        return loss, (logs, stats)

    # allow_int: `out` may hold token ids; their cotangents are float0, which the pull-back accepts
    grad = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True, allow_int=True)
    (loss, (logs, stats)), (grads, through_out) = grad(train, out)
    if pull_back is not None:
        grads = jax.tree.map(jnp.add, grads, pick(pull_back(through_out)[0], phase.trains))

    updates, opt = tx.update(grads, state.opt[index], train)
    # the statistics of the other networks are dropped
    stats = pick(stats, phase.trains)
    # norms: XLA needs several times as long to compile a test of each array
    norms = optax.tree.norm(grads), optax.tree.norm((updates, stats))
    finite = jnp.isfinite(loss) & jnp.isfinite(norms[0]) & jnp.isfinite(norms[1])
    good = finite & (state.bad_step < 0)
    # selected here, not once after the last phase, so that each array is updated in place and the
    # old state need not stay in memory
    train = select(good, optax.apply_updates(train, updates), train)
    averaged, old = pick(train, prog.ema), pick(state.ema, pick(train, prog.ema))
    ema = select(good, optax.incremental_update(averaged, old, 1 - decay_at(prog, state.step)), old)
    opt = select(good, opt, state.opt[index])
    first_bad = ~finite & (state.bad_step < 0)
    new = state.replace(
        params={**state.params, **train},
        stats={**state.stats, **stats},
        opt=state.opt[:index] + (opt,) + state.opt[index + 1 :],
        ema={**state.ema, **ema},
        bad_step=jnp.where(first_bad, state.step, state.bad_step),
        bad_phase=jnp.where(first_bad, index, state.bad_phase),
    )
    return new, {phase.loss: loss, **logs}


def decay_at(prog: Program, step):
    """Return the decay of the moving average at a step.

    With `warmup` min(decay, (1 + t) / (10 + t)), so that the first weights, which are noise, are
    forgotten within a few steps; a decay of 0.999 alone keeps a third of them for 1,000 steps.
    """
    return jnp.minimum(prog.decay, (1 + step) / (10 + step)) if prog.warmup else prog.decay


def settle(prog: Program, state: State, batch, key):
    """Return `ema_stats` moved by one batch of the forward pass with the averaged parameters.

    The running statistics of training belong to the parameters of the last few steps. Averaged
    parameters have others: drawn with those of training, the pictures of a generator with batch
    norm are grey until the learning rate is near 0.
    """
    params, stats = state.sampling_params(), state.sampling_stats()
    _, stats = call(prog.graph, params, stats, 'forward', batch, key)
    return pick(stats, prog.ema)


def validation_losses(prog: Program, state: State, batch, key) -> dict[str, jax.Array]:
    """Return every phase's loss on a batch with the sampling parameters; nothing is updated."""
    params, stats = state.sampling_params(), state.sampling_stats()

    def evaluate(method, *args):
        return call(prog.graph, params, stats, method, batch, key, *args, training=False)[0]

    out, metrics = evaluate('forward') if prog.forward else None, {}
    for phase in prog.phases:
        loss, logs = evaluate(phase.loss, out)
        metrics |= {phase.loss: loss, **logs}
    return metrics


def apply(prog: Program, method, params, stats, *args):
    """Call a method of the stage (`sample`, `encode`) as a pure function in evaluation mode.

    params, stats: those of critics may be left out.
    """
    params, stats = ({**gone, **tree} for gone, tree in zip(prog.absent, (whole(params), stats)))
    stage = nnx.merge(prog.graph, params, stats)
    stage.training = False
    return getattr(stage, method)(*args)


def normal_rows(key, n, shape):
    """Return standard normal noise, n x shape, whose row i comes from fold_in(key, i)."""
    return noise_rows(jax.random.normal, key, n, shape)


def uniform_rows(key, n, shape, low=0.0):
    """Return noise from U(low, 1), n x shape, whose row i comes from fold_in(key, i)."""
    return noise_rows(_uniform(low), key, n, shape)


def truncated_rows(key, n, shape, limit=2.0):
    """Return normal noise within +-limit, n x shape, whose row i comes from fold_in(key, i)."""
    return noise_rows(_truncated(limit), key, n, shape)


def noise_rows(draw, key, n, shape):
    """Return noise, n x shape, by draw(key of the row, shape), spread over the devices."""
    return over_rows(_noise_rows(draw, key, n, shape))


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _noise_rows(draw, key, n, shape):
    return jax.vmap(lambda i: draw(jax.random.fold_in(key, i), shape))(jnp.arange(n))


@functools.cache
def _uniform(low):
    return functools.partial(jax.random.uniform, minval=low)


@functools.cache
def _truncated(limit):
    return lambda key, shape: jax.random.truncated_normal(key, -limit, limit, shape)
