"""What a system is made of, and what one training step does with it.

A system is a list of stages; a stage owns named networks and, in each training step, runs its phases in order: each
phase minimises one loss over the networks that it trains. Networks are `flax.nnx` modules; this file splits a stage
into plain dictionaries once, and everything after that is `jax.jit`, `jax.grad` and optax.
"""

import functools
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from t2i_jax.runtime.sharding import over_rows, whole


class Phase(NamedTuple):
    """One loss, minimised over the networks that it trains, at the steps with step % every == at."""

    loss: str  # a method of the stage: (batch, key, out) -> (scalar, {name: scalar})
    trains: tuple[str, ...]  # attributes of the stage
    every: int = 1
    at: int = 0


class Meta(NamedTuple):
    """What a data set knows about itself. Networks take their sizes from it."""

    name: str
    vocabulary_size: int = 0  # words, the padding (id 0) included
    length: int = 0  # words of a caption after padding or cutting
    size: int = 64  # pixels, the side of the largest image
    classes: int = 0
    object_classes: int = 0
    max_objects: int = 0
    attributes: int = 0  # length of the attribute vector
    embedding_dim: int = 0  # of text vectors stored with the data
    captions: int = 1  # captions of an image in one batch row
    nominal: bool = False  # published values, because the data are not there
    object_names: tuple[
        str, ...
    ] = ()  # of the labels of objects, in their order; nominal values lack them
    attribute_names: tuple[str, ...] = ()  # of the attribute vector's entries


class Stage(nnx.Module):
    """Its attributes are networks (lists of them: nnx.List). See docs/add_a_system.md for a guided tour.

    `__init__(self, meta, *, <hyper-parameters with the paper's values>, <one keyword for each network in loads>, rngs)`.
    A stage may also have `forward(batch, key) -> any pytree`, what its generator makes of this batch: it runs once a
    step and reaches every loss as `out`. In each phase its result is differentiated only towards what the phase trains.
    And it may have `measure(batch, key) -> {name: (b,) float32}`, numbers of each record of a batch (held-out likelihoods, errors of
    reconstruction), NaN where one does not apply: the evaluation runs it in evaluation mode over a split and reports the means.
    One that draws from sentences has `encode(batch) -> any pytree of floats, rows first`, and takes it back from `batch['encoded']`: so what
    lies between two sentences can be drawn, too.
    """

    phases: tuple[Phase, ...] = ()  # may also be set in __init__, where keywords decide
    ema: tuple[
        str, ...
    ] = ()  # networks of which a moving average of the parameters is kept; sampling uses it
    loads: dict[str, str] = {}  # network -> the earlier stage that made it
    needs: tuple[str, ...] = ()  # batch keys that it reads; may also be set in __init__
    tiny: dict[str, Any] = {}  # constructor keywords of the small variant
    advice: dict[
        str, str
    ] = {}  # batch key -> what to do where a data set lacks it, for the error's reader
    training = True  # False while validation losses are computed

    @classmethod
    def skip(cls, config) -> bool:
        """Whether this stage is not trained under this config (the text encoder, when stored vectors are used)."""
        return False

    @classmethod
    def check(cls, model):
        """Raises RunError or DataError where what training needs besides data, such as a file of weights, is not there; called before any data are
        read. model: the constructor's keywords."""

    def noise(self, key, n):
        """The random inputs of n samples; row i comes from fold_in(key, i), so that it does not depend on n."""
        return {}

    def sample(self, batch, noise):
        """-> {'image': b s s 3 in [-1, 1], ...}; see sample.py for the keys that are drawn."""
        raise TypeError(f'{type(self).__name__} makes no samples.')


class State(flax.struct.PyTreeNode):
    """Everything that a checkpoint holds. `bad_step` and `bad_phase` stay -1 while all updates are finite."""

    step: jax.Array
    seed: jax.Array
    params: dict[str, Any]  # network -> parameters
    stats: dict[str, Any]  # network -> running statistics
    opt: tuple[Any, ...]  # one optimiser state a phase
    ema: dict[str, Any]  # network -> averaged parameters
    ema_stats: dict[str, Any]  # network -> running statistics that fit them; see `settle`
    bad_step: jax.Array
    bad_phase: jax.Array

    def sampling_params(self):
        """Parameters as sampling uses them: averaged where there is an average."""
        return {**self.params, **self.ema}

    def sampling_stats(self):
        return {**self.stats, **self.ema_stats}


class Program(NamedTuple):
    """The static half of a stage: with it and a State everything can be computed."""

    graph: Any
    phases: tuple[Phase, ...]
    ema: tuple[str, ...]
    forward: bool  # whether the stage has a shared forward pass
    txs: tuple[Any, ...] = ()  # one optax transformation a phase
    decay: float = 0.999


class Split(NamedTuple):
    graph: Any
    params: dict[str, Any]
    stats: dict[str, Any]


def pick(tree, names):
    return {name: tree[name] for name in names if name in tree}


def split(stage) -> Split:
    """A stage as (structure, parameters, running statistics). Raises ValueError on any other kind of variable."""
    graph, params, stats = nnx.split(stage, nnx.Param, nnx.BatchStat)
    return Split(graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats))


def program(stage, txs=(), decay=0.999) -> Program:
    return Program(
        split(stage).graph,
        tuple(stage.phases),
        tuple(stage.ema),
        hasattr(stage, 'forward'),
        tuple(txs),
        decay,
    )


def compute_in(stage, dtype):
    """Sets the type in which every layer computes; parameters and running statistics keep float32."""
    for _, module in nnx.iter_modules(stage):
        if hasattr(module, 'dtype') and hasattr(module, 'param_dtype'):
            module.dtype = jnp.dtype(dtype)


def call(graph, params, stats, method, *args, training=True):
    """One method of the stage as a pure function: (what it returns, the running statistics after it)."""
    stage = nnx.merge(graph, whole(params), stats)
    stage.training = training
    return getattr(stage, method)(*args), split(stage).stats


def init_state(prog: Program, params, stats, seed) -> State:
    opt = tuple(
        tx.init(pick(params, phase.trains)) for phase, tx in zip(prog.phases, prog.txs, strict=True)
    )
    ema, ema_stats = jax.tree.map(
        jnp.copy, (pick(params, prog.ema), pick(stats, prog.ema))
    )  # copies: donated buffers must not be shared
    return State(
        jnp.int32(0),
        jnp.uint32(seed),
        params,
        stats,
        opt,
        ema,
        ema_stats,
        jnp.int32(-1),
        jnp.int32(-1),
    )


def train_step(prog: Program, state: State, batch) -> tuple[State, dict[str, jax.Array]]:
    """One step: the shared forward, then every phase in order. -> (state, metrics)

    A phase whose loss, gradient, update or statistics are not finite changes nothing but `bad_step` and `bad_phase`, and after it no phase of any
    step changes anything: so a bad state is never saved. Metrics of a phase that did not run are NaN.
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
    return new.replace(
        step=state.step + 1, stats=choose(new.bad_step < 0, new.stats, state.stats)
    ), metrics


def choose(first, a, b):
    """The tree a where `first` holds, otherwise b."""
    return jax.tree.map(lambda x, y: jnp.where(first, x, y), a, b)


def shared_forward(prog, state, batch, key):
    """The generator's view of this batch, once. -> (out, its pull-back to the trained networks, the state after it)"""
    if not prog.forward:
        return None, None, state
    trained = {name for phase in prog.phases for name in phase.trains}

    def forward(train):
        return call(prog.graph, {**state.params, **train}, state.stats, 'forward', batch, key)

    out, pull_back, stats = jax.vjp(forward, pick(state.params, trained), has_aux=True)
    return out, pull_back, state.replace(stats={**state.stats, **pick(stats, trained)})


def run_phase(prog, index, state, batch, key, out, pull_back):
    """Updates the networks of one phase, where all that changes is finite. -> (state, metrics)"""
    phase, tx = prog.phases[index], prog.txs[index]
    train = pick(state.params, phase.trains)

    def loss_fn(train, out):
        (loss, logs), stats = call(
            prog.graph, {**state.params, **train}, state.stats, phase.loss, batch, key, out
        )
        return loss, (logs, stats)

    # allow_int: what `forward` returns may hold token ids; their cotangents are float0, which the pull-back takes
    grad = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True, allow_int=True)
    (loss, (logs, stats)), (grads, through_out) = grad(train, out)
    if pull_back is not None:
        grads = jax.tree.map(jnp.add, grads, pick(pull_back(through_out)[0], phase.trains))

    updates, opt = tx.update(grads, state.opt[index], train)
    stats = pick(stats, phase.trains)  # the statistics of the other networks are dropped
    # norms, because XLA needs several times as long to compile a test of each array; what overflows the optimiser overflows that of grads
    finite = (
        jnp.isfinite(loss)
        & jnp.isfinite(optax.tree.norm(grads))
        & jnp.isfinite(optax.tree.norm((updates, stats)))
    )
    good = finite & (state.bad_step < 0)
    # chosen here and not once after the last phase, so that each array is updated in place and the old state need not be kept beside the new one
    train = choose(good, optax.apply_updates(train, updates), train)
    averaged = pick(train, prog.ema)
    ema = choose(
        good,
        optax.incremental_update(averaged, pick(state.ema, averaged), 1 - prog.decay),
        pick(state.ema, averaged),
    )
    new = state.replace(
        params={**state.params, **train},
        stats={**state.stats, **stats},
        opt=state.opt[:index] + (choose(good, opt, state.opt[index]),) + state.opt[index + 1 :],
        ema={**state.ema, **ema},
        bad_step=jnp.where(finite | (state.bad_step >= 0), state.bad_step, state.step),
        bad_phase=jnp.where(finite | (state.bad_step >= 0), state.bad_phase, index),
    )
    return new, {phase.loss: loss, **logs}


def settle(prog: Program, state: State, batch, key):
    """`ema_stats`, moved by one batch of the shared forward pass with the averaged parameters.

    The running statistics of training belong to the parameters of the last few steps. Averaged parameters have others: drawn
    with those of training, the pictures of a generator with batch norm are grey until the learning rate is near 0.
    """
    _, stats = call(
        prog.graph, state.sampling_params(), state.sampling_stats(), 'forward', batch, key
    )
    return pick(stats, prog.ema)


def validation_losses(prog: Program, state: State, batch, key) -> dict[str, jax.Array]:
    """Every phase's loss on a batch, with the parameters that sampling would use; nothing is updated."""

    def evaluate(method, *args):
        return call(
            prog.graph,
            state.sampling_params(),
            state.sampling_stats(),
            method,
            batch,
            key,
            *args,
            training=False,
        )[0]

    out, metrics = evaluate('forward') if prog.forward else None, {}
    for phase in prog.phases:
        loss, logs = evaluate(phase.loss, out)
        metrics |= {phase.loss: loss, **logs}
    return metrics


def apply(prog: Program, method, params, stats, *args):
    """A method of the stage (`sample`, `encode`) as a pure function, in evaluation mode."""
    return call(prog.graph, params, stats, method, *args, training=False)[0]


def normal_rows(key, n, shape):
    """Standard normal noise, n x shape, whose row i comes from fold_in(key, i)."""
    return over_rows(_normal_rows(key, n, shape))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _normal_rows(key, n, shape):
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), shape))(jnp.arange(n))
