"""Conditioning augmentation: a sentence vector becomes a Gaussian that gives the condition.

| system | form | activation | spread | eps |
|---|---|---|---|---|
| StackGAN, TensorFlow | 'dense': D -> 2c | 'lrelu' | 'log_sigma' | 'truncated' |
| StackGAN, PyTorch | 'dense' | 'relu' | 'log_variance' | 'normal' |
| StackGAN++, AttnGAN, MirrorGAN | 'glu': D -> 4c, gated to 2c | | 'log_variance' | 'normal' |

The generator's condition is drawn from that Gaussian. The papers speak of a linear layer:
activation 'none'. A ReLU keeps mu >= 0 and sigma >= 1.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.layers.linear import NORMAL, lrelu
from t2i_jax.runtime.errors import choose
from t2i_jax.stage import normal_rows, truncated_rows

ACTIVATIONS = {'lrelu': lrelu, 'relu': jax.nn.relu, 'none': lambda x: x}
FORMS = 'dense', 'glu'
SPREADS = 'log_variance', 'log_sigma'
EPS = {'normal': normal_rows, 'truncated': truncated_rows}


class ConditioningAugmentation(nnx.Module):
    """Sentence vectors b d -> (condition, mu, log-variance), each b c in float32."""

    def __init__(
        self,
        d,
        c=128,
        form='glu',
        activation='none',
        spread='log_variance',
        eps='normal',
        kernel_init=NORMAL,
        *,
        rngs,
    ):
        """Build the layer.

        d, c: dimensions of a sentence vector and of the condition.
        form: 'dense' applies the activation to both halves, 'glu' gates instead.
        activation: 'lrelu', 'relu' or 'none'.
        spread: how the second half of the layer's output is read, 'log_variance' or 'log_sigma';
            the log-variance is returned in both cases.
        eps: 'normal', or 'truncated' at two standard deviations.
        """
        self.gated = choose('form', form, FORMS) == 'glu'
        self.activation = ACTIVATIONS[choose('activation', activation, ACTIVATIONS)]
        self.doubled = choose('spread', spread, SPREADS) == 'log_sigma'
        self.eps, self.c = choose('eps', eps, EPS), c
        self.layer = nnx.Linear(d, (4 if self.gated else 2) * c, kernel_init=kernel_init, rngs=rngs)

    def noise(self, key, n):
        """Draw eps, n c; row i comes from fold_in(key, i)."""
        return EPS[self.eps](key, n, (self.c,))

    def __call__(self, text, eps=None):
        """Compute condition = mu + sigma * eps; without eps it is mu."""
        x = self.layer(text)
        x = jax.nn.glu(x, -1) if self.gated else self.activation(x)  # b 2c
        mu, logvar = jnp.split(x.astype(jnp.float32), 2, -1)
        logvar = 2 * logvar if self.doubled else logvar
        return mu if eps is None else mu + jnp.exp(logvar / 2) * eps, mu, logvar
