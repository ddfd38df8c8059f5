"""The position-wise MLP, plain or gated.

Plain (Vaswani et al. 2017, equation 2): act(x W_up) W_down. Gated (Shazeer 2020, "GLU variants
improve transformer", equation 6): (act(x W_gate) * (x W_up)) W_down.

Shape suffixes: B rows, T length, D hidden_size, M mlp_size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.model_config import ModelConfig
from lmjax.nn import linear


def _keep_derivative(f: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """`f`, elementwise, in float32, with its derivative computed along and kept for the way back.

    Left alone, XLA may recompute the transcendental function in every fusion that reads it
    (on a CPU 2-3 times the time of the whole MLP), and does so differently in a scan and unrolled.
    """

    @jax.custom_jvp
    def kept(x: jax.Array) -> jax.Array:
        return f(x.astype(jnp.float32)).astype(x.dtype)

    @kept.defjvp
    def _(primals, tangents):
        (x,), (dx,) = primals, tangents
        x32 = x.astype(jnp.float32)
        y, slope = jax.jvp(f, (x32,), (jnp.ones_like(x32),))
        return y.astype(x.dtype), jax.lax.optimization_barrier(slope.astype(x.dtype)) * dx

    return kept


ACTIVATIONS = {
    "gelu": _keep_derivative(partial(jax.nn.gelu, approximate=False)),
    "gelu_tanh": _keep_derivative(partial(jax.nn.gelu, approximate=True)),
    "relu": jax.nn.relu,
    "silu": _keep_derivative(jax.nn.silu),
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
            kernel_init=linear.kernel_init(config, config.hidden_size),
            use_bias=config.mlp_has_bias,
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
            kernel_init=linear.residual_init(config, config.mlp_width),
            use_bias=config.mlp_has_bias,
            dtype=self.dtype,
            name="down",
        )(h_BTM)
