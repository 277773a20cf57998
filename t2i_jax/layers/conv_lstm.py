"""ConvLSTM over the objects of scenes, in both directions (Shi et al., NeurIPS 2015)."""

import jax
import jax.numpy as jnp
from einops import pack, unpack
from flax import nnx

from t2i_jax.layers.conv import Conv
from t2i_jax.layers.linear import NORMAL


class ConvLstm(nnx.Module):
    """An LSTM whose states are maps; states stay as they are where there is no input.

    i, f, o, g = 3x3 convolution of [x_t ; h_(t-1)] + b
    c_t = sigmoid(f + forget_bias) c_(t-1) + sigmoid(i) tanh(g);  h_t = sigmoid(o) tanh(c_t)
    """

    def __init__(self, c, d, *, forget_bias=1.0, kernel_init=NORMAL, rngs):
        """c, d: channels of an input and of a state."""
        start = dict(kernel_init=kernel_init, rngs=rngs)
        # i, f, o, g
        self.input, self.hidden = (Conv(n, 4 * d, 3, padding=1, **start) for n in (c, d))
        self.bias = nnx.Param(jnp.zeros(4 * d))
        self.d, self.forget_bias = d, forget_bias

    def __call__(self, x, there, *, reverse=False):
        """Read b t h w c -> states b t h w d, zeros where nothing is.

        there: bool b t. In reverse the first state is that of the last input that is there, so that
        the result does not depend on what is not there.
        """
        flat, shape = pack([x], '* h w c')
        (gates,) = unpack(self.input(flat), shape, '* h w c')
        gates = gates + self.bias[...]

        def one(state, inputs):
            (h, c), (gates, there) = state, inputs
            i, f, o, g = jnp.split((gates + self.hidden(h)).astype(jnp.float32), 4, -1)
            new = nnx.sigmoid(f + self.forget_bias) * c + nnx.sigmoid(i) * jnp.tanh(g)
            h_new, there = nnx.sigmoid(o) * jnp.tanh(new), there[:, None, None, None]
            state = jnp.where(there, h_new, h), jnp.where(there, new, c)
            return state, jnp.where(there, h_new, 0)

        b, t, *sides, _ = x.shape
        start = (jnp.zeros((b, *sides, self.d)),) * 2
        inputs = gates.swapaxes(0, 1), there.T
        # no loop is left: convolutions within loops are slow on CPU
        _, states = jax.lax.scan(one, start, inputs, reverse=reverse, unroll=t)
        return states.swapaxes(0, 1)


class BiConvLstm(nnx.Module):
    """Two ConvLstm, the second from the last input to the first. b t h w c -> b t h w 2d"""

    def __init__(self, c, d, **options):
        self.forward, self.backward = ConvLstm(c, d, **options), ConvLstm(c, d, **options)

    def __call__(self, x, there):
        both = self.forward(x, there), self.backward(x, there, reverse=True)
        return jnp.concatenate(both, -1)
