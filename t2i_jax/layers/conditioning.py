"""Conditioning augmentation: a sentence vector becomes a Gaussian from which the generator's condition is drawn.

| system | form | activation | spread | eps |
|---|---|---|---|---|
| StackGAN, TensorFlow | 'dense': D -> 2c | 'lrelu' | 'log_sigma' | 'truncated' |
| StackGAN, PyTorch | 'dense' | 'relu' | 'log_variance' | 'normal' |
| StackGAN++, AttnGAN, MirrorGAN | 'glu': D -> 4c, gated to 2c | | 'log_variance' | 'normal' |

The papers speak of a linear layer: activation 'none'. A ReLU keeps mu >= 0 and sigma >= 1.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from t2i_jax.layers.blocks import lrelu
from t2i_jax.layers.conv import NORMAL
from t2i_jax.stage import normal_rows

ACTIVATIONS = {'lrelu': lrelu, 'relu': jax.nn.relu, 'none': lambda x: x}
CHOICES = {
    'form': ('dense', 'glu'),
    'activation': tuple(ACTIVATIONS),
    'spread': ('log_variance', 'log_sigma'),
    'eps': ('normal', 'truncated'),
}


class ConditioningAugmentation(nnx.Module):
    """Sentence vectors b d -> (condition, mu, log-variance), each b c in float32. Raises ValueError for an unknown choice."""

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
        """form: 'dense' applies the activation to both halves, 'glu' gates instead. spread: what the second half of the layer's output
        is taken for; the log-variance is returned in both cases. eps: 'truncated' at two standard deviations."""
        for name, value in dict(form=form, activation=activation, spread=spread, eps=eps).items():
            if value not in CHOICES[name]:
                raise ValueError(
                    f'{name} of the conditioning augmentation is {value!r}; it is {" or ".join(map(repr, CHOICES[name]))}.'
                )
        self.c, self.gated, self.activation, self.doubled, self.truncated = (
            c,
            form == 'glu',
            ACTIVATIONS[activation],
            spread == 'log_sigma',
            eps == 'truncated',
        )
        self.layer = nnx.Linear(d, (4 if self.gated else 2) * c, kernel_init=kernel_init, rngs=rngs)

    def noise(self, key, n):
        """eps, n c; row i comes from fold_in(key, i)."""
        if not self.truncated:
            return normal_rows(key, n, (self.c,))
        return jax.vmap(
            lambda i: jax.random.truncated_normal(jax.random.fold_in(key, i), -2, 2, (self.c,))
        )(jnp.arange(n))

    def __call__(self, text, eps=None):
        """condition = mu + sigma * eps; without eps it is mu."""
        x = self.layer(text)
        x = jax.nn.glu(x, -1) if self.gated else self.activation(x)  # b 2c
        mu, logvar = jnp.split(x.astype(jnp.float32), 2, -1)
        logvar = 2 * logvar if self.doubled else logvar
        return mu if eps is None else mu + jnp.exp(logvar / 2) * eps, mu, logvar
