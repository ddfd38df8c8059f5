"""Normalisation over the width of the residual stream.

LayerNorm (Ba, Kiros and Hinton 2016, equation 3): (x - mean) / sqrt(var + eps) * scale + bias.
RMSNorm (Zhang and Sennrich 2019, equation 4): x / sqrt(mean(x^2) + eps) * scale; it has no bias.

Statistics are in float32 whatever the compute type: squares of bfloat16 lose too much. The way back
is written out (Ba et al., appendix; with x^ the normalised input and g the result's gradient times
scale: (g - mean(g) - x^ mean(g x^)) / std) so that it keeps one array of x's size, not three.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.model_config import ModelConfig


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _normalise(
    x: jax.Array, weights: dict[str, jax.Array], center: bool, epsilon: float, dtype: jnp.dtype
) -> jax.Array:
    return _forward(x, weights, center, epsilon, dtype)[0]


def _forward(x, weights, center, epsilon, dtype):
    x32 = x.astype(jnp.float32)
    if center:
        x32 = x32 - x32.mean(-1, keepdims=True)
    inverse_std = jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + epsilon)
    normal = x32 * inverse_std
    y = normal * weights["scale"] + weights.get("bias", 0.0)
    kept = jax.lax.optimization_barrier((normal.astype(x.dtype), inverse_std))
    return y.astype(dtype), (*kept, weights)


def _backward(center, epsilon, dtype, kept, dy):
    normal, inverse_std, weights = kept
    x_dtype, normal, dy = normal.dtype, normal.astype(jnp.float32), dy.astype(jnp.float32)
    # As products with ones: a sum over three dims was seen to differ in its last bits between
    # scanned and unrolled layers. Without a reshape, for which split dims would be gathered.
    over_rows = lambda x: jnp.tensordot(jnp.ones(x.shape[:-1]), x, x.ndim - 1)
    dweights = {"scale": over_rows(dy * normal), "bias": over_rows(dy)}
    g = dy * weights["scale"]
    slope = inverse_std * (g * normal).mean(-1, keepdims=True)
    if center:
        g = g - g.mean(-1, keepdims=True)
    # Ends in a difference, not a product: with this form, scanned and unrolled layers were seen to
    # agree in every bit on a CPU.
    dx = g * inverse_std - normal * slope
    return dx.astype(x_dtype), {name: dweights[name] for name in weights}


_normalise.defvjp(_forward, _backward)


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
        starts = {"scale": nn.initializers.ones, "bias": nn.initializers.zeros}
        if self.kind == "rmsnorm" or not self.use_bias:
            del starts["bias"]
        weights = {
            name: self.param(name, nn.with_logical_partitioning(start, ("norm",)), x.shape[-1:])
            for name, start in starts.items()
        }
        return _normalise(x, weights, self.kind == "layernorm", self.epsilon, self.dtype)


def make(config: ModelConfig, dtype: jnp.dtype, name: str | None = None) -> Norm:
    """The norm that a model's config describes."""
    return Norm(config.norm, config.norm_epsilon, config.norm_has_bias, dtype, name=name)
