"""Recurrent networks: the LSTM, the GRU of Cho et al. and the ReLU RNN.

All compute their inputs' share for every step at once, so that only the product with the previous
state waits for it, and all run under `jax.lax.scan`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.layers.linear import uniform_linear


class Lstm(nnx.Module):
    """One direction of an LSTM; states start at 0 and stay as they are where there is no input.

    i, f, g, o = W x_t + b + V h_(t-1) [+ b']
    c_t = sigmoid(f + forget_bias) c_(t-1) + sigmoid(i) tanh(g);  h_t = sigmoid(o) tanh(c_t)
    """

    def __init__(self, c, width, *, two_biases=True, forget_bias=0.0, input_limit=None, rngs):
        """Build the two dense layers.

        c, width: numbers of an input and of a state.
        two_biases: whether b' exists. Both are always added, so one says the same.
        forget_bias: a constant that is added to the forget gate.
        input_limit: W and b start from U(-limit, limit), by default 1/sqrt(c); V and b' start
            from U(-1/sqrt(width), 1/sqrt(width)).
        """
        # i, f, g, o
        self.input = uniform_linear(c, 4 * width, input_limit or c**-0.5, rngs=rngs)
        self.hidden = uniform_linear(width, 4 * width, width**-0.5, use_bias=two_biases, rngs=rngs)
        self.width, self.forget_bias = width, forget_bias

    def start(self, rows):
        """Return the first state: (h, c), each b width."""
        return jnp.zeros((rows, self.width)), jnp.zeros((rows, self.width))

    def step(self, state, gates, there):
        """Return the state after one input; it does not change where `there` (b,) is false.

        gates: self.input of the input, b 4*width.
        """
        h, c = state
        i, f, g, o = jnp.split((gates + self.hidden(h)).astype(jnp.float32), 4, -1)
        f = f + self.forget_bias if self.forget_bias else f
        new = nnx.sigmoid(f) * c + nnx.sigmoid(i) * jnp.tanh(g)
        there = there[:, None]
        return jnp.where(there, nnx.sigmoid(o) * jnp.tanh(new), h), jnp.where(there, new, c)

    def __call__(self, x, there, *, reverse=False):
        """Read b t c -> (states b t width, zeros at padding; the last state b width), float32.

        there: bool b t, words first, then padding. Forwards the last state is that after the last
        word; in reverse the reading starts at the last word and ends at the first.
        """

        def one(state, inputs):
            state = self.step(state, *inputs)
            return state, jnp.where(inputs[1][:, None], state[0], 0)

        inputs = self.input(x).swapaxes(0, 1), there.T
        (last, _), states = jax.lax.scan(one, self.start(x.shape[0]), inputs, reverse=reverse)
        return states.swapaxes(0, 1), last

    def before(self, x, there):
        """Read b n c -> the state before each input, b n width: zeros, that after the first, ..."""

        def one(state, inputs):
            return self.step(state, *inputs), state[0]

        inputs = self.input(x).swapaxes(0, 1), there.T
        return jax.lax.scan(one, self.start(x.shape[0]), inputs)[1].swapaxes(0, 1)


class ReluRnn(nnx.Module):
    """A recurrent network with ReLU; its first step has no recurrent term, not even its bias.

    h_1 = relu(Wi x_1 + bi);  h_t = relu(Wi x_t + bi + Wh h_(t-1) + bh)
    """

    def __init__(self, c, width, limit=0.08, *, rngs):
        """limit: parameters start from U(-limit, limit)."""
        self.input = uniform_linear(c, width, limit, rngs=rngs)
        self.hidden = uniform_linear(width, width, limit, rngs=rngs)

    def __call__(self, x):
        """Read b t c -> the states b t width."""
        inputs = self.input(x).swapaxes(0, 1)
        first = nnx.relu(inputs[0])

        def step(h, from_input):
            h = nnx.relu(from_input + self.hidden(h)).astype(h.dtype)
            return h, h

        return _with_first(first, jax.lax.scan(step, first, inputs[1:])[1])


class ChoGru(nnx.Module):
    """The GRU of Cho et al. (2014), which differs from nnx.GRUCell in two places.

    The reset gate acts before Wh, and the update gate weighs the candidate:
    h_1 = tanh(Wi x_1 + bi);  u, r = sigmoid(W x_t + b + V h + c)
    n = tanh(Wi x_t + bi + Wh (r h) + bh);  h_t = u n + (1 - u) h
    """

    def __init__(self, c, width, limit=0.08, *, rngs):
        """limit: parameters start from U(-limit, limit)."""
        # update, reset, candidate
        self.input = uniform_linear(c, 3 * width, limit, rngs=rngs)
        # update, reset
        self.gates = uniform_linear(width, 2 * width, limit, rngs=rngs)
        # candidate
        self.hidden = uniform_linear(width, width, limit, rngs=rngs)

    def __call__(self, x):
        """Read b t c -> the states b t width."""
        update, reset, candidate = jnp.split(self.input(x).swapaxes(0, 1), 3, -1)  # each t b h
        first = jnp.tanh(candidate[0])

        def step(h, from_input):
            update, reset, candidate = from_input
            update_h, reset_h = jnp.split(self.gates(h), 2, -1)
            u, r = nnx.sigmoid(update + update_h), nnx.sigmoid(reset + reset_h)
            n = jnp.tanh(candidate + self.hidden(r * h))
            h = (u * n + (1 - u) * h).astype(h.dtype)
            return h, h

        rest = jax.lax.scan(step, first, (update[1:], reset[1:], candidate[1:]))[1]
        return _with_first(first, rest)


def _with_first(first, rest):
    return jnp.concatenate([first[None], rest]).swapaxes(0, 1)  # b t h
