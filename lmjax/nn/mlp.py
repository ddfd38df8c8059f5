"""The position-wise MLP, plain or gated.

Plain (Vaswani et al. 2017, equation 2): act(x W_up) W_down. Gated (Shazeer 2020, "GLU variants
improve transformer", equation 6): (act(x W_gate) * (x W_up)) W_down.

Shape suffixes: B rows, T length, D hidden_size, M mlp_size.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.config import ModelConfig
from lmjax.nn import linear

ACTIVATIONS = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


class MLP(nn.Module):
    """Widens, bends and narrows each position by itself."""

    config: ModelConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """x_BTD -> y_BTD in `dtype`."""
        config = self.config
        widen = partial(
            linear.Linear,
            features=(config.mlp_width,),
            axes=("embed", "mlp"),
            kernel_init=linear.normal_init(config),
            use_bias=config.use_bias,
            dtype=self.dtype,
        )
        activation = ACTIVATIONS[config.activation]
        up_BTM = widen(name="up")(x_BTD)
        if config.mlp_gated:
            h_BTM = activation(widen(name="gate")(x_BTD)) * up_BTM
        else:
            h_BTM = activation(up_BTM)
        h_BTM = nn.with_logical_constraint(h_BTM, ("act_batch", "act_length", "act_mlp"))
        return linear.Linear(
            features=(config.hidden_size,),
            axes=("mlp", "embed"),
            kernel_init=linear.residual_init(config),
            use_bias=config.use_bias,
            dtype=self.dtype,
            name="down",
        )(h_BTM)
