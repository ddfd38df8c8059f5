"""Normalisation over the width of the residual stream.

LayerNorm (Ba, Kiros and Hinton 2016, equation 3): (x - mean) / sqrt(var + eps) * scale + bias.
RMSNorm (Zhang and Sennrich 2019, equation 4): x / sqrt(mean(x^2) + eps) * scale; it has no bias.

Statistics are in float32 whatever the compute type: squares of bfloat16 lose too much.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn


class Norm(nn.Module):
    """Normalises the last dim.

    Attributes:
      kind: 'layernorm' or 'rmsnorm'.
      epsilon: added to the variance.
      use_bias: whether a LayerNorm has a bias.
      dtype: type of the result; statistics and parameters are float32.
    """

    kind: Literal["layernorm", "rmsnorm"]
    epsilon: float
    use_bias: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., D] -> [..., D] in `dtype`."""
        shape = x.shape[-1:]
        scale_D = self.param(
            "scale", nn.with_logical_partitioning(nn.initializers.ones, ("norm",)), shape
        )
        x = x.astype(jnp.float32)
        if self.kind == "layernorm":
            x = x - x.mean(-1, keepdims=True)
        y = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon) * scale_D
        if self.kind == "layernorm" and self.use_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("norm",))
            y = y + self.param("bias", zeros, shape)
        return y.astype(self.dtype)
